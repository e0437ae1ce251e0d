//! Recurrent operators (RNN, LSTM, GRU, sLSTM, MGU: the time loop and its backward pass) behind one trait, and models on top of them.
//!
//! # The map
//!
//! | module | what |
//! |---|---|
//! | [`cell`] | the cells, one file each: equations, a step to be read beside them, its derivative; [`cell::spec`] is the one table of gates, states and what training saves; [`cell::activation`] the functions of gates and states |
//! | [`rnn`] | the operator without its implementations: its description, [`RnnDescriptor`](rnn::RnnDescriptor); sizes, [`RnnShape`](rnn::RnnShape); [`WeightLayout`](rnn::WeightLayout), PyTorch's names, shapes and gate order in one flat buffer; [`rnn::dropout`], masks from counters |
//! | [`backend`] | the implementations: the trait [`RecurrentBackend`](backend::RecurrentBackend), the oracle [`reference`](backend::reference), the fast [`cpu`](backend::cpu), `backend::cuda`; `backend::ops`, the operations that models need besides |
//! | `Device` | a backend behind run-time types: where a model runs |
//! | `nn` | layers, one file a family: built of operations (`nn::op`) that a network runs forwards and backwards; initializers |
//! | `model` | `Sequential`, `Graph`, training, callbacks, files, with Keras's names and defaults |
//! | `optim`, `metrics` | optimizers and learning-rate schedules; metrics |
//! | `data` | CSV columns, gaps, scalers, windows, splits, padding, `.ts` files of sequences, characters |
//! | `plot` | plots: curves, training histories, heat maps |
//! | `interop` | weights of other frameworks: safetensors, Keras, ONNX |
//! | `exchange` | whole models of other programs, read and written: ONNX, Keras, PyTorch |
//! | `parity` | a backend against recorded results of PyTorch, Keras, ONNX and ONNX Runtime |
//! | [`gradcheck`] | gradients against finite differences |
//! | [`Error`] | all errors, one enum |
//! | [`figures`] | numbers as text |
//!
//! The equations are written once in the oracle and once in each fast backend, on purpose: if all ran the same text, comparing
//! them could not find a wrong equation. Everything else (gates and their order, states, saved values, layouts) is in one place.
//!
//! # Computing an LSTM
//!
//! Shapes are given once, to a plan, which determines the temporary space of a call; all buffers are the caller's.
//!
//! ```
//! use fused_rnn::backend::cpu::CpuBackend;
//! use fused_rnn::backend::{ForwardArgs, ForwardMode, RecurrentBackend};
//! use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};
//!
//! let descriptor = RnnDescriptor::lstm(3, 4); // input_size, hidden_size
//! let shape = RnnShape { seq_len: 5, batch: 2 };
//! let backend = CpuBackend::<f32>::new();
//! let plan = backend.plan(&descriptor, shape, ForwardMode::Inference)?;
//!
//! let weights = vec![0.1; WeightLayout::new(&descriptor)?.len()];
//! let x = vec![1.0; 5 * 2 * 3]; // [seq_len, batch, input_size]
//! let mut y = vec![0.0; 5 * 2 * 4]; // [seq_len, batch, hidden_size]
//! let mut workspace = vec![0.0; backend.temp_space(&plan).workspace];
//! let args = ForwardArgs::new(&weights[..], &x[..], &mut y[..], &mut workspace[..])
//!     .lengths(&[5, 3][..]); // the second sequence is shorter: no packing, no sorting
//! backend.forward(&plan, args)?;
//! assert_eq!(y[(3 * 2 + 1) * 4..(4 * 2) * 4], [0.0; 4]); // past its end the output is zero
//! # Ok::<(), fused_rnn::Error>(())
//! ```
//!
//! Training is [`forward_training`](backend::RecurrentBackend::forward_training),
//! [`backward_data`](backend::RecurrentBackend::backward_data), then
//! [`backward_weights`](backend::RecurrentBackend::backward_weights); the typed [`Reserve`](backend::Reserve) that passes
//! from one to the next makes any other order a compile error. Where convenience matters more than allocation,
//! [`backend::pass`] does it all in one call.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `operator` | [`backend`], [`cell`], [`rnn`], [`gradcheck`] of operators |
//! | `model` | `Device`, `nn`, `model`, `optim`, `metrics`, `data`, `interop`, `parity` |
//! | `exchange` | `exchange` |
//! | `plot` | `plot` |
//! | `mpi`, `nccl` | training on the processes of an MPI program; gradients from GPU to GPU |
//! | `cli` (default) | the `fused-rnn` program |
//! | `cuda` (default) | the CUDA backend, which needs neither a GPU nor CUDA to build |
//! | `cublaslt` | large matrix products by NVIDIA's cuBLASLt, where an option asks for it; not run on a GPU yet |
//! | `emulated` | the CUDA kernels on an emulated GPU, for tests |
//! | `ptx` | the kernels' PTX, interpreted, for tests |
//!
//! An embedder of the operator writes `default-features = false, features = ["operator", "cuda"]`, or leaves `cuda` out.
// What could panic says why it cannot: docs/development.md, "No panic". Tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::exit,
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::missing_panics_doc,
        clippy::panic,
        clippy::panic_in_result_fn,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_in_result,
        clippy::unwrap_used
    )
)]

pub mod backend;
pub mod cell;
#[cfg(feature = "model")]
pub mod data;
pub mod dtype;
pub mod error;
#[cfg(feature = "exchange")]
pub mod exchange;
pub mod figures;
#[cfg(feature = "model")]
pub mod files;
#[cfg(feature = "model")]
pub mod forecast;
pub mod gradcheck;
#[cfg(feature = "model")]
pub mod interop;
#[cfg(feature = "model")]
pub mod loss;
mod memory;
#[cfg(feature = "model")]
pub mod metrics;
#[cfg(feature = "model")]
pub mod model;
#[cfg(feature = "model")]
pub mod nn;
#[cfg(feature = "model")]
pub mod optim;
#[cfg(feature = "model")]
pub mod parity;
#[cfg(feature = "plot")]
pub mod plot;
pub mod rnn;
pub mod simd;
#[cfg(feature = "model")]
mod svg;

#[cfg(feature = "model")]
pub use backend::Device;
pub use dtype::{DType, Element, Scalar, Stored};
pub use error::{Error, Result};

/// The code of the pages for readers, so that tests compile and run it.
#[cfg(all(doctest, feature = "exchange"))]
mod pages {
    #![doc = include_str!("../README.md")]
    #![doc = include_str!("../docs/models.md")]
    #![doc = include_str!("../docs/words.md")]
    #![doc = include_str!("../docs/csv.md")]
    #![doc = include_str!("../docs/operator.md")]
    #![doc = include_str!("../docs/keras_pytorch.md")]
    #![doc = include_str!("../docs/onnx.md")]
}
