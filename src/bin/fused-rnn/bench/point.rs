//! One point of a sweep: an operator, its sizes, who computes it, and what of it is timed.

use std::fmt;
use std::sync::Arc;

use fused_rnn::cell::CellKind;
use fused_rnn::rnn::dropout::philox4x32;
use fused_rnn::rnn::{Direction, RnnDescriptor, RnnShape};
use fused_rnn::{DType, Error, Result};

use crate::descriptor_args::{DIRECTIONS, OptionArgs, Sizes};

use super::values::invalid;

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Reference,
    Cpu,
    Cuda,
}

pub const BACKENDS: &[(&str, Backend)] =
    &[("cpu", Backend::Cpu), ("reference", Backend::Reference), ("cuda", Backend::Cuda)];

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// Forward, nothing kept.
    Infer,
    /// Forward in training, which keeps what backward reads.
    Forward,
    /// Forward, gradients of x, h0 and c0, gradients of all weights.
    ForwardBackward,
    /// A step of gradient descent of a model: the layers, a dense layer on the last output, mean squared error.
    TrainStep,
    /// The same with Adam.
    TrainStepAdam,
    /// Inference step by step: a call for each, which takes the states of the one before.
    Stream,
}

pub const PASSES: &[(&str, Pass)] = &[
    ("infer", Pass::Infer),
    ("fwd", Pass::Forward),
    ("fwd+bwd", Pass::ForwardBackward),
    ("train-step", Pass::TrainStep),
    ("train-step-adam", Pass::TrainStepAdam),
    ("stream", Pass::Stream),
];

impl Pass {
    /// Whether backward passes are part of it.
    pub fn has_backward(self) -> bool {
        self == Pass::ForwardBackward || self.is_train_step()
    }

    /// Whether it is a step of a model.
    pub fn is_train_step(self) -> bool {
        matches!(self, Pass::TrainStep | Pass::TrainStepAdam)
    }
}

/// What is computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub dtype: DType,
    /// `f32` whose products are rounded to tf32.
    pub tf32: bool,
}

const fn number(dtype: DType) -> Number {
    Number { dtype, tf32: false }
}

pub const NUMBERS: &[(&str, Number)] = &[
    ("f32", number(DType::F32)),
    ("f64", number(DType::F64)),
    ("tf32", Number { dtype: DType::F32, tf32: true }),
    ("bf16", number(DType::Bf16)),
    ("f16", number(DType::F16)),
];

/// Valid steps of the sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lengths {
    Full,
    /// From 1 to seq_len, the same every time.
    Random,
    /// Shared: a line of a grid gives them to all of its points.
    Given(Arc<[u32]>),
}

impl Lengths {
    /// `full`, `random`, or a length for each sequence as `5/3/1`.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || invalid("lengths", "full, random, or a length of each sequence as 5/3/1", text);
        match text {
            "full" => Ok(Lengths::Full),
            "random" => Ok(Lengths::Random),
            given => {
                let one = |length: &str| length.parse().ok().filter(|length| *length > 0).ok_or_else(wrong);
                given.split('/').map(one).collect::<Result<_>>().map(Lengths::Given)
            }
        }
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lengths::Full => f.write_str("full"),
            Lengths::Random => f.write_str("random"),
            Lengths::Given(lengths) => f.write_str(&lengths.iter().map(u32::to_string).collect::<Vec<_>>().join("/")),
        }
    }
}

/// A point of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub sizes: Sizes,
    pub shape: RnnShape,
    pub number: Number,
    pub backend: Backend,
    /// Number of the GPU.
    pub device: usize,
    pub threads: usize,
    pub pass: Pass,
    pub lengths: Lengths,
}

/// The name of a value in a table of names.
pub fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names.iter().find(|(_, other)| other == value).map_or("", |(name, _)| name)
}

impl Point {
    pub fn descriptor(&self, options: &OptionArgs) -> RnnDescriptor {
        options.descriptor(self.sizes)
    }

    pub fn backend_name(&self) -> &'static str {
        name_of(BACKENDS, &self.backend)
    }

    pub fn pass_name(&self) -> &'static str {
        name_of(PASSES, &self.pass)
    }

    pub fn number_name(&self) -> &'static str {
        name_of(NUMBERS, &self.number)
    }

    pub fn direction_name(&self) -> &'static str {
        name_of(DIRECTIONS, &self.sizes.direction)
    }

    /// Threads that the backend computes on: the oracle has one.
    pub fn used_threads(&self) -> usize {
        if self.backend == Backend::Reference { 1 } else { self.threads }
    }

    pub fn is_on_host(&self) -> bool {
        self.backend != Backend::Cuda
    }

    /// The lengths as the operator takes them; nothing where all sequences are full.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where there is not one for each sequence, [`Error::SequenceLength`] for one above seq_len.
    pub fn lengths(&self) -> Result<Option<Vec<u32>>> {
        let RnnShape { seq_len, batch } = self.shape;
        match &self.lengths {
            Lengths::Full => Ok(None),
            Lengths::Random => {
                let drawn = |i: u32| 1 + ((u64::from(philox4x32([i, 0, 0, 0], 2)[0]) * seq_len as u64) >> 32) as u32;
                let count = u32::try_from(batch).map_err(|_| too_many_sequences(batch))?;
                Ok(Some((0..count).map(drawn).collect()))
            }
            Lengths::Given(lengths) => {
                if lengths.len() != batch {
                    return Err(Error::Shape {
                        tensor: "lengths".to_owned(),
                        expected: format!("batch {batch} of them"),
                        got: lengths.len().to_string(),
                    });
                }
                match lengths.iter().position(|length| *length as usize > seq_len) {
                    Some(index) => Err(Error::SequenceLength { index, got: lengths[index].into(), seq_len }),
                    None => Ok(Some(lengths.to_vec())),
                }
            }
        }
    }

    /// Valid steps of all sequences together.
    pub fn valid_steps(&self) -> Result<f64> {
        Ok(match self.lengths()? {
            None => self.shape.seq_len as f64 * self.shape.batch as f64,
            Some(lengths) => lengths.into_iter().map(f64::from).sum(),
        })
    }

    /// The point in a few words, without what is timed.
    pub fn label(&self) -> String {
        let Sizes { cell, input_size, hidden_size, heads, layers, direction } = self.sizes;
        let RnnShape { seq_len, batch } = self.shape;
        let mut label = format!("{} {seq_len}×{batch}, {input_size}→{hidden_size}", cell.to_string().to_uppercase());
        if heads > 1 {
            label += &format!(", {heads} heads");
        }
        if layers > 1 {
            label += &format!(", {layers} layers");
        }
        if direction != Direction::Forward {
            label += &format!(", {}", self.direction_name());
        }
        if self.lengths != Lengths::Full {
            label += ", lengths ";
            label += if matches!(self.lengths, Lengths::Random) { "random" } else { "given" };
        }
        label
    }

    /// Whether PyTorch, Keras and ONNX have the cell.
    pub fn is_usual_cell(&self) -> bool {
        [CellKind::Rnn, CellKind::Lstm, CellKind::Gru].contains(&self.sizes.cell) && self.sizes.heads == 1
    }
}

fn too_many_sequences(batch: usize) -> Error {
    Error::InvalidOption {
        option: "batch".to_owned(),
        expected: format!("at most {} sequences with random lengths", u32::MAX),
        got: batch.to_string(),
    }
}
