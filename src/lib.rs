//! Fused recurrent operators: RNN, LSTM and GRU, forward and backward.

pub mod backend;
pub mod cell;
pub mod data;
pub mod dtype;
pub mod error;
pub mod files;
pub mod gradcheck;
pub mod interop;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod optim;
pub mod parity;
pub mod rnn;

pub use dtype::{DType, Scalar};
pub use error::{Error, Result};
