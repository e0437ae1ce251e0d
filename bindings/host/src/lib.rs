//! What the doors to other engines (candle, burn) share: an [`Operator`] on host memory that keeps its plans and its scratch from call
//! to call, and [`Saved`], what a forward pass leaves for a backward pass that may run more than once.
//!
//! ```
//! use std::sync::Arc;
//! use fused_rnn::rnn::{RnnDescriptor, RnnShape};
//! use fused_rnn_host::{Gradients, Operands, Operator, Outputs, Wanted};
//!
//! let operator = Arc::new(Operator::<f32>::new(RnnDescriptor::gru(2, 3))?);
//! let shape = RnnShape { seq_len: 4, batch: 1 };
//! let (weights, x) = (vec![0.1; operator.weights().len()], vec![1.0; 4 * 2]);
//! let operands = Operands { weights: &weights, x: &x, ..Operands::default() };
//! let mut y = vec![0.0; 4 * 3];
//! let saved = operator.forward_training(shape, operands, Outputs { y: &mut y, hn: None, cn: None }, None)?;
//!
//! let (mut once, mut twice) = (vec![0.0; weights.len()], vec![0.0; weights.len()]);
//! let dy = vec![1.0; 4 * 3];
//! for dweights in [&mut once, &mut twice] {
//!     let gradients = Gradients { dy: Some(&dy), ..Gradients::default() };
//!     saved.backward(operands, &y, gradients, Wanted { dweights: Some(dweights), ..Wanted::default() })?;
//! }
//! assert_eq!(once, twice);
//! # Ok::<(), fused_rnn::Error>(())
//! ```

mod buffers;
mod operator;
mod saved;
mod threads;

pub use operator::{Operands, Operator, Outputs, Packed};
pub use saved::{Gradients, Saved, Wanted};
pub use threads::{Number, set_threads, threads};
