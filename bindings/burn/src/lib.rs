//! fused-rnn's recurrent layers in [burn](https://docs.rs/burn): [`Lstm`], [`Gru`] and [`Rnn`] as modules, on burn's CPU backend (`Flex`) with
//! a backward pass of their own.
//!
//! # Instead of `burn::nn::LstmConfig`
//!
//! [`LstmConfig`], [`GruConfig`] and [`RnnConfig`] are made like burn's, and `forward` takes and gives what burn's layers do. What can
//! go wrong is a [`Result`](fused_rnn::Result) and not a panic, which is the one difference:
//!
//! ```
//! use burn_core::tensor::{Device, Tensor};
//! use fused_rnn_burn::LstmConfig; // was: use burn::nn::LstmConfig;
//!
//! let device = Device::flex().autodiff();
//! let layer = LstmConfig::new(3, 4, true).init(&device)?;
//! let x = Tensor::<3>::ones([2, 5, 3], &device); // [batch, seq_len, d_input]
//! let (y, state) = layer.forward(x, None)?;
//! assert_eq!((y.dims(), state.cell.dims()), ([2, 5, 4], [2, 4]));
//! let gradients = y.sum().backward();
//! assert!(layer.recurrent.layers[0].weight_hh.val().grad(&gradients).is_some());
//! # Ok::<(), fused_rnn_burn::fused_rnn::Error>(())
//! ```
//!
//! A layer of burn is converted by [`Lstm::from_burn`], weights with PyTorch's names are taken by [`Lstm::with_weights`].
//!
//! # With everything else
//!
//! Configurations have layers, both directions, dropout and projection besides; [`Lstm::run`] takes a [`Call`]: states of all layers,
//! lengths of sequences, resets.
//!
//! ```
//! use burn_core::tensor::{Device, Tensor};
//! use fused_rnn_burn::{Call, LstmConfig};
//!
//! let device = Device::flex();
//! let layer = LstmConfig::new(3, 4, true).with_num_layers(2).with_bidirectional(true).init(&device)?;
//! let x = Tensor::<3>::ones([2, 5, 3], &device);
//! let out = layer.run(x, &Call::default().lengths(&[5, 3]))?; // the second sequence is shorter: no packing, no sorting
//! assert_eq!(out.y.dims(), [2, 5, 2 * 4]); // zero past a sequence's end
//! assert_eq!(out.states.h.dims(), [2 * 2, 2, 4]); // [num_layers * directions, batch, d_hidden], as PyTorch
//! # Ok::<(), fused_rnn_burn::fused_rnn::Error>(())
//! ```
//!
//! # What is not here
//!
//! Tensors of other backends (CUDA, wgpu, …) and of other types than `f32` and `f64` are errors that say so. On CUDA burn's public interface gives
//! addresses of tensors, but not the stream that its work is on, so that every call would have to wait for the GPU before and after.

mod convert;
mod layers;
mod op;
mod recurrent;

pub use fused_rnn;
pub use fused_rnn_host::{set_threads, threads};

pub use layers::{Gru, GruConfig, Lstm, LstmConfig, Rnn, RnnConfig};
pub use recurrent::{Call, Frozen, Output, Recurrent, States, Weights};

/// The code of the page for readers, so that tests compile and run it.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/burn.md")]
mod page {}
