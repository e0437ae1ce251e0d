//! The operator with options that Keras's layers have not: [`RecurrentOperator`].
#![expect(
    clippy::indexing_slicing,
    reason = "there is an input, as `sequence_shape` checks; states are as many for each of at most two directions"
)]

use serde::{Deserialize, Serialize};

use crate::cell::{Activation, Activations, CellKind};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::masking::{KeepRows, row_mask};
use crate::nn::merge::concatenated;
use crate::nn::recurrent::sequence::Sequence;
use crate::nn::recurrent::{RecurrentOptions, initial_states, sequence_shape, weights};
use crate::rnn::{Bias, Direction, GruReset, Layout, RnnDescriptor, RnnShape, WeightLayout};

/// One layer of the fused operator with the options of [ONNX's `LSTM`](https://onnx.ai/onnx/operators/onnx__LSTM.html), `GRU` and `RNN`,
/// where [`Lstm`](crate::nn::Lstm) and the others have no words for them: peepholes, a coupled forget gate, clipping, functions with constants
/// of their own, functions that differ from direction to direction.
///
/// `[seq_len, features]` to `[seq_len, directions * units]`, both directions side by side; then for each direction its last states, `[units]`
/// each: h, and of an LSTM c. Further inputs are the initial states in that order. Weights as [`Lstm`](crate::nn::Lstm) and others
/// have them, of a second direction under `backward`. Steps that a mask says are absent are left out, and zero in the output, as in ONNX. The mask ends here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrentOperator {
    /// Name of the cell: `rnn`, `lstm`, `gru`, ….
    pub cell: String,
    /// Width of a direction's states.
    pub units: usize,
    /// For each direction, whether time runs backwards.
    pub backwards: Vec<bool>,
    /// For each direction the functions of the gates, of the candidate and of an LSTM's output, as
    /// [`Activation`] writes them: `sigmoid`, `hard_sigmoid:0.2:0.5`.
    pub activations: Vec<[String; 3]>,
    /// Whether there are two biases, `bias_ih` and `bias_hh`; otherwise none.
    pub use_bias: bool,
    /// What every pre-activation is limited to; none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// LSTM: whether the gates see the cell state.
    #[serde(default)]
    pub peepholes: bool,
    /// LSTM: whether the forget gate is 1 less the input gate.
    #[serde(default)]
    pub coupled_input_forget: bool,
    /// GRU: whether the reset gate acts on the product with the state.
    #[serde(default)]
    pub reset_after: bool,
}

impl RecurrentOperator {
    /// One forward direction of `cell` with the usual functions and two biases.
    pub fn new(cell: CellKind, units: usize) -> Self {
        let Activations { gate, state, output } = Activations::default();
        RecurrentOperator {
            cell: cell.to_string(),
            units,
            backwards: vec![false],
            activations: vec![[gate, state, output].map(|function| function.to_string())],
            use_bias: true,
            clip: None,
            peepholes: false,
            coupled_input_forget: false,
            reset_after: false,
        }
    }

    /// The operator of a direction with so many features.
    pub(crate) fn descriptor(&self, direction: usize, features: usize) -> Result<RnnDescriptor> {
        let cell: CellKind = self.cell.parse()?;
        let functions = self.activations.get(direction).ok_or_else(|| {
            let expected = format!("functions for each of the {} directions", self.backwards.len());
            Error::option("activations", expected, self.activations.len())
        })?;
        let [gate, state, output] = functions;
        let mut descriptor = RnnDescriptor::new(cell, features, self.units);
        descriptor.activations = Activations {
            gate: gate.parse::<Activation>()?,
            state: state.parse::<Activation>()?,
            output: output.parse::<Activation>()?,
        };
        descriptor.layout = Layout::BatchMajor;
        descriptor.bias = if self.use_bias { Bias::Double } else { Bias::None };
        descriptor.gate_clip = self.clip;
        descriptor.peepholes = self.peepholes;
        descriptor.coupled_input_forget = self.coupled_input_forget;
        if cell == CellKind::Gru {
            descriptor.reset = if self.reset_after { GruReset::After } else { GruReset::Before };
        }
        if self.backwards.get(direction).copied().unwrap_or(false) {
            descriptor.direction = Direction::Reverse;
        }
        descriptor.validate()?;
        Ok(descriptor)
    }

    pub(in crate::nn) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let (seq_len, features) = sequence_shape(builder, inputs)?;
        let directions = self.backwards.len();
        if !(1..=2).contains(&directions) {
            let option = format!("backwards of {}", builder.name());
            return Err(Error::option(option, "one or two directions", directions));
        }
        let (x, states) = (&inputs[0], &inputs[1..]);
        if states.len() % directions != 0 {
            let expected = "as many initial states for each direction";
            return Err(Error::shape(builder.name(), expected, format!("{} states", states.len())));
        }
        let each = states.len() / directions;
        let (mut output, mut last): (Option<Value>, Vec<Value>) = (None, Vec::new());
        for direction in 0..directions {
            let descriptor = self.descriptor(direction, features)?;
            let given = &states[direction * each..(direction + 1) * each];
            let scope = ["forward", "backward"][direction];
            let mut outputs = match direction {
                0 => one(builder, descriptor, seq_len, x, given)?,
                _ => builder.scope(scope, |builder| one(builder, descriptor, seq_len, x, given))?,
            };
            let y = outputs.remove(0);
            output = Some(match output {
                None => y,
                Some(first) => concatenated(builder, &first, &y)?,
            });
            last.append(&mut outputs);
        }
        let mask = row_mask(builder, x)?;
        let output = match (output, mask) {
            (Some(y), Some(mask)) => Some(builder.op1(KeepRows, &[&y, mask], y.shape(), 0..0)?),
            (output, _) => output,
        };
        Ok(output.into_iter().chain(last).collect())
    }
}

/// One direction: the output of every step, then the last states.
fn one(
    builder: &mut Builder,
    descriptor: RnnDescriptor,
    seq_len: usize,
    x: &Value,
    given: &[Value],
) -> Result<Vec<Value>> {
    let options = RecurrentOptions { return_sequences: true, return_state: true, ..RecurrentOptions::default() };
    WeightLayout::new(&descriptor)?;
    RnnShape { seq_len, batch: 1 }.tensors(&descriptor)?;
    let states = initial_states(builder, given, &descriptor, &options)?;
    let mask = row_mask(builder, x)?.cloned();
    let range = weights(builder, &descriptor, false, &options)?;
    let (units, others) = (descriptor.hidden_size, descriptor.cell.other_states() * descriptor.hidden_size);
    let (every, last, rest) = ([seq_len, units], [units], [others]);
    let mut shapes: Vec<&[usize]> = vec![&every, &last];
    if descriptor.cell.has_cell_state() {
        shapes.push(&rest);
    }
    let op = Sequence::new(builder.name(), descriptor, seq_len, &options);
    builder.op(op, &[Some(x), mask.as_ref(), states.first(), states.get(1)], &shapes, range, 0..0)
}
