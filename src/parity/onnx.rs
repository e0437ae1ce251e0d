//! ONNX's and ONNX Runtime's cases: one layer, directions before the batch, activation constants in lists.

use super::fields::{Fields, Tensors};
use super::{Named, Problem};
use crate::backend::pass::{Inputs, Outputs};
use crate::cell::{Activation, Activations, CellKind, CellOption};
use crate::error::{Error, Result};
use crate::interop::onnx::{self, OnnxWeights};
use crate::rnn::{Bias, Direction, GruReset, Layout, RnnDescriptor, RnnShape};

/// What an ONNX node does with the native operator's outputs.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// `layout` 1: the batch is the first axis of every input and output.
    batch_first: bool,
}

pub(super) fn read(fields: &mut Fields, tensors: &mut Tensors<'_>, runtime: bool) -> Result<(Node, Problem)> {
    let op = fields.required_text("op")?;
    let cell = match CellKind::ALL.into_iter().find(|cell| cell.spec().onnx.is_some_and(|onnx| onnx.name == op)) {
        Some(cell) => cell,
        None => return Err(fields.error("op", "RNN, LSTM or GRU", format!("{op:?}"))),
    };
    let mut attrs = fields.object("attrs", "case.attrs")?;
    let node = Node { batch_first: attrs.bit("layout")? };
    let direction = match attrs.text("direction")?.as_deref() {
        None | Some("forward") => Direction::Forward,
        Some("reverse") => Direction::Reverse,
        Some("bidirectional") => Direction::Bidirectional,
        Some(other) => {
            return Err(attrs.error("direction", "forward, reverse or bidirectional", format!("{other:?}")));
        }
    };
    let directions = direction.count();

    let [first, second, input_size] = tensors.shape("in.X", 3)?[..] else {
        return Err(tensors.error("in.X: expected three axes"));
    };
    let (seq_len, batch) = if node.batch_first { (second, first) } else { (first, second) };
    let shape = RnnShape { seq_len, batch };
    let hidden_size = match attrs.size("hidden_size")? {
        Some(size) => size,
        None => tensors.shape("in.R", 3)?.last().copied().unwrap_or(0),
    };

    let mut descriptor = RnnDescriptor::new(cell, input_size, hidden_size);
    descriptor.direction = direction;
    if node.batch_first {
        descriptor.layout = Layout::BatchMajor;
    }
    descriptor.bias = if tensors.contains("in.B") { Bias::Double } else { Bias::None };
    // ONNX keeps the attribute as a 32-bit number.
    descriptor.gate_clip = attrs.number("clip")?.map(single);
    let mut sets = activations(&mut attrs, cell, directions, runtime)?.into_iter();
    descriptor.activations = sets.next().unwrap_or_default();
    descriptor.reverse_activations = sets.next();
    if cell.has(CellOption::CoupledInputForget) {
        descriptor.coupled_input_forget = attrs.bit("input_forget")?;
    }
    if cell.has(CellOption::Peepholes) {
        descriptor.peepholes = tensors.contains("in.P");
    }
    if cell.has(CellOption::Reset) {
        descriptor.reset = if attrs.bit("linear_before_reset")? { GruReset::After } else { GruReset::Before };
    }
    attrs.finish()?;

    let native = tensors.native_shapes(&descriptor, shape)?;
    let rows = descriptor.cell.gates() * hidden_size;
    let x = tensors.floats("in.X", &native.x)?;
    let weights = OnnxWeights {
        w: tensors.floats("in.W", &[directions, rows, input_size])?,
        r: tensors.floats("in.R", &[directions, rows, hidden_size])?,
        b: tensors.optional("in.B", &[directions, 2 * rows])?,
        p: match cell.spec().peepholes.len() {
            0 => None,
            count => tensors.optional("in.P", &[directions, count * hidden_size])?,
        },
    };
    let weights = onnx::import(&descriptor, &weights)?;
    let lengths = if tensors.contains("in.sequence_lens") {
        let lengths = tensors.integers("in.sequence_lens", &[batch])?;
        Some(tensors.lengths(&lengths, shape)?)
    } else {
        None
    };
    let state_shape = node.state_shape(directions, batch, hidden_size);
    let mut state = |name: &str| -> Result<Option<Vec<f64>>> {
        let state = tensors.optional(name, &state_shape)?;
        Ok(state.map(|s| if node.batch_first { swap_axes(&s, batch, directions, hidden_size) } else { s }))
    };
    let h0 = state("in.initial_h")?;
    let c0 = if cell.has_cell_state() { state("in.initial_c")? } else { None };
    let inputs = Inputs { weights, x, h0, c0, lengths, ..Default::default() };
    Ok((node, Problem { descriptor, shape, inputs, gradients: None }))
}

/// The value that ONNX keeps of an attribute, which is a 32-bit float.
fn single(value: f64) -> f64 {
    f64::from(value as f32)
}

/// The functions of each direction. With `runtime`, constants that are not given are ONNX Runtime's.
fn activations(attrs: &mut Fields, cell: CellKind, directions: usize, runtime: bool) -> Result<Vec<Activations>> {
    let names = attrs.texts("activations")?;
    let mut alphas = attrs.numbers("activation_alpha")?.unwrap_or_default().into_iter().map(single);
    let mut betas = attrs.numbers("activation_beta")?.unwrap_or_default().into_iter().map(single);
    // Without names, constants have no function to belong to.
    let Some(names) = names else { return Ok(Vec::new()) };
    let used = cell.spec().functions;
    let count = [used.gate, used.state, used.output].into_iter().filter(|used| *used).count();
    if names.len() != count * directions {
        let expected = format!("{count} names for each of {directions} directions");
        return Err(attrs.error("activations", &expected, names.len()));
    }
    let functions =
        names.iter().map(|name| activation(name, &mut alphas, &mut betas, runtime)).collect::<Result<Vec<_>>>()?;
    Ok(functions
        .chunks_exact(count)
        .map(|set| match *set {
            [state] => Activations { state, ..Default::default() },
            [gate, state] => Activations { gate, state, ..Default::default() },
            [gate, state, output] => Activations { gate, state, output },
            _ => Activations::default(),
        })
        .collect())
}

fn activation(
    name: &str,
    alphas: &mut impl Iterator<Item = f64>,
    betas: &mut impl Iterator<Item = f64>,
    runtime: bool,
) -> Result<Activation> {
    let lower = name.to_ascii_lowercase();
    // ONNX's names are ours without the underscores; Selu and Linear are not among those of its recurrent operators.
    let function = Activation::ALL
        .into_iter()
        .filter(|f| !matches!(f, Activation::Selu | Activation::Linear))
        .find(|f| f.name().replace('_', "") == lower)
        .ok_or_else(|| {
            Error::unsupported(
                format!("ONNX's activation {name:?} (case.attrs.activations)"),
                "the recurrent operators have Relu, Tanh, Sigmoid, Affine, LeakyRelu, ThresholdedRelu, ScaledTanh, \
                 HardSigmoid, Elu, Softsign and Softplus",
            )
        })?;
    let constants = function.constants();
    let alpha = constants.0.and_then(|_| alphas.next());
    let beta = constants.1.and_then(|_| betas.next());
    let missing = (constants.0.is_some() && alpha.is_none()) || (constants.1.is_some() && beta.is_none());
    Ok(match function {
        // ONNX Runtime has no defaults for these, and its constants start from zero.
        Activation::ThresholdedRelu { .. } | Activation::ScaledTanh { .. } | Activation::Affine { .. } if runtime => {
            function.with_constants(Some(alpha.unwrap_or(0.0)), Some(beta.unwrap_or(0.0)))
        }
        Activation::ScaledTanh { .. } | Activation::Affine { .. } if missing => {
            return Err(Error::option(
                "case.attrs.activation_alpha, activation_beta",
                format!("constants for {name}, since ONNX gives it no default"),
                "too few",
            ));
        }
        _ => function.with_constants(alpha, beta),
    })
}

/// `[first, second, width]` to `[second, first, width]`.
fn swap_axes(values: &[f64], first: usize, second: usize, width: usize) -> Vec<f64> {
    let mut swapped = Vec::with_capacity(values.len());
    for s in 0..second {
        for f in 0..first {
            let start = (f * second + s) * width;
            swapped.extend(values.iter().skip(start).take(width));
        }
    }
    swapped
}

impl Node {
    fn state_shape(&self, directions: usize, batch: usize, hidden_size: usize) -> Vec<usize> {
        if self.batch_first { vec![batch, directions, hidden_size] } else { vec![directions, batch, hidden_size] }
    }

    pub(super) fn result_shapes(&self, problem: &Problem) -> Result<Named<Vec<usize>>> {
        let RnnShape { seq_len, batch } = problem.shape;
        let (directions, hidden) = (problem.descriptor.num_directions(), problem.descriptor.hidden_size);
        let y = if self.batch_first {
            vec![batch, seq_len, directions, hidden]
        } else {
            vec![seq_len, directions, batch, hidden]
        };
        let state = self.state_shape(directions, batch, hidden);
        let mut shapes = Named::from([("out.Y".to_owned(), y), ("out.Y_h".to_owned(), state.clone())]);
        if problem.descriptor.cell.has_cell_state() {
            shapes.insert("out.Y_c".to_owned(), state);
        }
        Ok(shapes)
    }

    pub(super) fn results(&self, problem: &Problem, outputs: &Outputs<f64>) -> Named<Vec<f64>> {
        let batch = problem.shape.batch;
        let (directions, hidden) = (problem.descriptor.num_directions(), problem.descriptor.hidden_size);
        // Batch first, our [B, T, D * H] is [B, T, D, H] already; sequence first, [T, B, D * H] becomes [T, D, B, H].
        let y = if self.batch_first {
            outputs.y.clone()
        } else {
            let step = batch * directions * hidden;
            outputs.y.chunks_exact(step).flat_map(|s| swap_axes(s, batch, directions, hidden)).collect()
        };
        let state = |native: &[f64]| {
            if self.batch_first { swap_axes(native, directions, batch, hidden) } else { native.to_vec() }
        };
        let mut results = Named::from([("out.Y".to_owned(), y), ("out.Y_h".to_owned(), state(&outputs.hn))]);
        results.extend(outputs.cn.as_deref().map(|cn| ("out.Y_c".to_owned(), state(cn))));
        results
    }
}
