//! fused-rnn's recurrent layers in [candle](https://docs.rs/candle-core): [`Lstm`], [`Gru`] and [`Rnn`] from a `VarBuilder`, with
//! candle's gradients, on the CPU.
//!
//! # Instead of `candle_nn::lstm`
//!
//! [`lstm`] and [`gru`] take the arguments of candle_nn's functions of these names and read the same variables. The layers have
//! candle_nn's trait `RNN`, so that code which uses `seq`, `step` and `states_to_tensor` stays as it is:
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{VarBuilder, VarMap, rnn::{LSTMConfig, RNN}};
//! use fused_rnn_candle::lstm; // was: use candle_nn::rnn::lstm;
//!
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let layer = lstm(3, 4, LSTMConfig::default(), vb)?;
//! let x = Tensor::ones((2, 5, 3), DType::F32, &Device::Cpu)?; // [batch, seq_len, input_size]
//! let y = layer.states_to_tensor(&layer.seq(&x)?)?;
//! assert_eq!(y.dims(), [2, 5, 4]);
//! let gradients = y.sum_all()?.backward()?;
//! assert!(variables.all_vars().iter().all(|variable| gradients.get(variable).is_some()));
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # With everything else
//!
//! [`Lstm::new`] takes [`Options`] with PyTorch's meaning: layers, both directions, dropout, projection. [`Lstm::run`] takes a [`Call`]:
//! initial states, lengths of sequences, resets. Variables have PyTorch's names (`weight_ih_l0`, `bias_hh_l1_reverse`, …), so that a
//! `state_dict` saved as safetensors loads as it is.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{VarBuilder, VarMap};
//! use fused_rnn_candle::{Call, Lstm, Options};
//!
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
//! let layer = Lstm::new(3, 4, &Options::default().num_layers(2).bidirectional(true), vb)?;
//! let x = Tensor::ones((2, 5, 3), DType::F64, &Device::Cpu)?;
//! let out = layer.run(&x, &Call::default().lengths(&[5, 3]))?; // the second sequence is shorter: no packing, no sorting
//! assert_eq!(out.y.dims(), [2, 5, 2 * 4]); // zero past a sequence's end
//! assert_eq!(out.states.h.dims(), [2 * 2, 2, 4]); // [num_layers * directions, batch, hidden_size], as PyTorch
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # For serving
//!
//! [`Lstm::frozen`] gives a layer with the weights as they are now, packed once into the order in which they are multiplied with; for
//! calls of few steps that is most of the time.
//!
//! # What is not here
//!
//! Layers compute on the CPU in `f32` and `f64`; tensors on other devices and of other types are errors that say so. Gradients
//! have no gradients of their own. Errors are [`candle_core::Error`]s, most of which wrap a [`fused_rnn::Error`].

mod layer;
mod op;
mod options;
mod sequence;

pub use fused_rnn;
pub use fused_rnn_host::{set_threads, threads};

pub use layer::{Call, Gru, Lstm, Output, Recurrent, Rnn, States};
pub use options::Options;
pub use sequence::{GruState, LstmState, gru, lstm};

/// The code of the page for readers, so that tests compile and run it.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/candle.md")]
mod page {}
