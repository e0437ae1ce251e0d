//! Keras's cases: batch-major, outputs in the order of processing, two merged layers for two directions.

use serde_json::Value;

use super::fields::{Fields, Tensors};
use super::{Named, Problem, torch};
use crate::backend::pass::{InputGradients, Inputs, OutputGradients, Outputs};
use crate::cell::{Activation, Activations, CellKind, CellOption};
use crate::error::{Error, Result};
use crate::interop::keras::{self, KerasWeights};
use crate::rnn::{Bias, Direction, GruReset, Layout, PaddedOutput, RnnDescriptor, RnnShape};

/// How Bidirectional merges the outputs of its two layers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Merge {
    Concat,
    Sum,
    Mul,
    Ave,
}

/// What a Keras layer does with the native operator's outputs.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    return_sequences: bool,
    go_backwards: bool,
    merge: Option<Merge>,
}

pub(super) fn read(fields: &mut Fields, tensors: &mut Tensors<'_>) -> Result<(Layer, Problem)> {
    let name = fields.required_text("layer")?;
    let cell = match CellKind::ALL.into_iter().find(|cell| cell.spec().keras.is_some_and(|keras| keras.name == name)) {
        Some(cell) => cell,
        None => return Err(fields.error("layer", "SimpleRNN, LSTM or GRU", format!("{name:?}"))),
    };
    let shape = RnnShape { seq_len: fields.required_size("T")?, batch: fields.required_size("B")? };
    let merge = match fields.text("bidirectional")?.as_deref() {
        None => None,
        Some("concat") => Some(Merge::Concat),
        Some("sum") => Some(Merge::Sum),
        Some("mul") => Some(Merge::Mul),
        Some("ave") => Some(Merge::Ave),
        Some(other) => {
            return Err(fields.error("bidirectional", "null, concat, sum, mul or ave", format!("{other:?}")));
        }
    };
    let layer = Layer {
        return_sequences: fields.flag("return_sequences", false)?,
        go_backwards: fields.flag("go_backwards", false)?,
        merge,
    };
    let mask = fields.flag("mask", false)?;
    let use_bias = fields.flag("use_bias", true)?;
    let state = activation(fields, "activation", Activation::Tanh)?;
    // Keras's own constructors refuse the other layers' arguments; here they are left over as unknown keys.
    let gate = match cell.spec().functions.gate {
        false => Activation::Sigmoid,
        true => activation(fields, "recurrent_activation", Activation::Sigmoid)?,
    };
    if cell == CellKind::Lstm {
        fields.flag("unit_forget_bias", true)?;
    }
    let reset_after = cell.has(CellOption::Reset) && fields.flag("reset_after", true)?;

    let mut descriptor = RnnDescriptor::new(cell, fields.required_size("I")?, fields.required_size("H")?);
    descriptor.layout = Layout::BatchMajor;
    descriptor.direction = match (merge, layer.go_backwards) {
        (Some(_), _) => Direction::Bidirectional,
        (None, true) => Direction::Reverse,
        (None, false) => Direction::Forward,
    };
    descriptor.activations = Activations { gate, state, output: state };
    descriptor.bias = keras::bias_of(cell, use_bias, reset_after);
    if cell.has(CellOption::Reset) && !reset_after {
        descriptor.reset = GruReset::Before;
    }
    // Bidirectional makes its layers return zeros at masked steps of sequences.
    if merge.is_none() {
        descriptor.padded_output = PaddedOutput::Hold;
    }

    let native = tensors.native_shapes(&descriptor, shape)?;
    let x = tensors.floats("x", &native.x)?;
    let lengths = if mask {
        let lengths = tensors.integers("lengths", &[shape.batch])?;
        Some(tensors.lengths(&lengths, shape)?)
    } else {
        None
    };
    let mut sides = Vec::new();
    for prefix in layer.prefixes() {
        let [kernel, recurrent_kernel, bias] = weight_shapes(&descriptor);
        sides.push(KerasWeights {
            kernel: tensors.floats(&format!("w.{prefix}kernel"), &kernel)?,
            recurrent_kernel: tensors.floats(&format!("w.{prefix}recurrent_kernel"), &recurrent_kernel)?,
            bias: match descriptor.bias {
                Bias::None => None,
                _ => Some(tensors.floats(&format!("w.{prefix}bias"), &bias)?),
            },
        });
    }
    layer.swap_sides(&mut sides);
    let weights = keras::import(&descriptor, &sides)?;

    let dy = tensors.optional("dy", &layer.y_shape(&descriptor, shape))?;
    let mut states = torch::States::read(tensors, &descriptor, &native, dy)?;
    layer.swap_states([&mut states.h0, &mut states.c0]);
    let torch::States { h0, c0, gradients } = states;
    let inputs = Inputs { weights, x, h0, c0, lengths, ..Default::default() };
    Ok((layer, Problem { descriptor, shape, inputs, gradients }))
}

/// Keras's [activations](https://keras.io/api/layers/activations/) with their default constants.
fn activation(fields: &mut Fields, key: &'static str, default: Activation) -> Result<Activation> {
    let name = match fields.take(key) {
        None => return Ok(default),
        Some(Value::Null) => return Ok(Activation::Linear),
        Some(Value::String(name)) => name,
        Some(_) => return Err(fields.error(key, "the name of a Keras activation, or null", "something else")),
    };
    Ok(match name.as_str() {
        "tanh" => Activation::Tanh,
        "relu" => Activation::Relu,
        "sigmoid" => Activation::Sigmoid,
        "hard_sigmoid" => Activation::KERAS_HARD_SIGMOID,
        "softsign" => Activation::Softsign,
        "softplus" => Activation::Softplus,
        "elu" => Activation::Elu { alpha: 1.0 },
        "selu" => Activation::Selu,
        // TensorFlow keeps the slope as a 32-bit number, in double precision too.
        "leaky_relu" => Activation::LeakyRelu { alpha: f64::from(0.2f32) },
        "linear" => Activation::Linear,
        _ => {
            return Err(Error::unsupported(
                format!("Keras's activation {name:?} (case.{key})"),
                "this crate has tanh, relu, sigmoid, hard_sigmoid, softsign, softplus, elu, selu, leaky_relu and linear",
            ));
        }
    })
}

/// Shapes of `kernel`, `recurrent_kernel` and `bias`.
fn weight_shapes(descriptor: &RnnDescriptor) -> [Vec<usize>; 3] {
    let rows = descriptor.cell.gates() * descriptor.hidden_size;
    let bias = if descriptor.bias == Bias::Double { vec![2, rows] } else { vec![rows] };
    [vec![descriptor.input_size, rows], vec![descriptor.hidden_size, rows], bias]
}

impl Layer {
    /// What stands before the weights' names, the forward layer first.
    fn prefixes(&self) -> &'static [&'static str] {
        if self.merge.is_some() { &["forward.", "backward."] } else { &[""] }
    }

    /// In Bidirectional with `go_backwards`, the layer that Keras calls forward runs backwards: our second direction.
    fn sides_are_swapped(&self) -> bool {
        self.go_backwards && self.merge.is_some()
    }

    /// From Keras's order of the two layers to ours, or back.
    fn swap_sides<T>(&self, sides: &mut [T]) {
        if self.sides_are_swapped() {
            sides.reverse();
        }
    }

    /// The same for states `[2, B, H]`.
    fn swap_states<'a>(&self, states: impl IntoIterator<Item = &'a mut Option<Vec<f64>>>) {
        if self.sides_are_swapped() {
            for state in states.into_iter().flatten() {
                let half = state.len() / 2;
                state.rotate_left(half);
            }
        }
    }

    /// `[B, T, H]`, without sequences `[B, H]`, twice as wide when concatenated.
    fn y_shape(&self, descriptor: &RnnDescriptor, shape: RnnShape) -> Vec<usize> {
        let width = descriptor.hidden_size * if self.merge == Some(Merge::Concat) { 2 } else { 1 };
        if self.return_sequences { vec![shape.batch, shape.seq_len, width] } else { vec![shape.batch, width] }
    }

    pub(super) fn result_shapes(&self, problem: &Problem) -> Result<Named<Vec<usize>>> {
        let native = problem.shape.tensors(&problem.descriptor)?;
        let mut shapes = torch::state_shapes(&problem.descriptor, &native);
        shapes.insert("y".to_owned(), self.y_shape(&problem.descriptor, problem.shape));
        for prefix in self.prefixes() {
            let [kernel, recurrent_kernel, bias] = weight_shapes(&problem.descriptor);
            shapes.insert(format!("dw.{prefix}kernel"), kernel);
            shapes.insert(format!("dw.{prefix}recurrent_kernel"), recurrent_kernel);
            if problem.descriptor.bias != Bias::None {
                shapes.insert(format!("dw.{prefix}bias"), bias);
            }
        }
        Ok(shapes)
    }

    /// The row of our `y` `[B, T]` behind each row of Keras's.
    fn row(&self, row: usize, seq_len: usize) -> usize {
        if self.go_backwards { row / seq_len * seq_len + (seq_len - 1 - row % seq_len) } else { row }
    }

    /// Each layer's own output before merging, in Keras's order of layers and of steps: rows `[B * T]`, or `[B]`, of `H`.
    fn sides(&self, problem: &Problem, outputs: &Outputs<f64>) -> Vec<Vec<f64>> {
        let (hidden, directions) = (problem.descriptor.hidden_size, problem.descriptor.num_directions());
        let RnnShape { seq_len, batch } = problem.shape;
        let mut sides: Vec<Vec<f64>> = if self.return_sequences {
            let side = |direction: usize| {
                let mut side = Vec::with_capacity(batch * seq_len * hidden);
                for row in 0..batch * seq_len {
                    let start = (self.row(row, seq_len) * directions + direction) * hidden;
                    side.extend(outputs.y.iter().skip(start).take(hidden));
                }
                side
            };
            (0..directions).map(side).collect()
        } else {
            outputs.hn.chunks_exact(batch * hidden).map(<[f64]>::to_vec).collect()
        };
        self.swap_sides(&mut sides);
        sides
    }

    fn merge(&self, hidden: usize, sides: &[Vec<f64>]) -> Vec<f64> {
        let (Some(merge), [forward, backward]) = (self.merge, sides) else { return sides.concat() };
        let each = |merged: fn(f64, f64) -> f64| forward.iter().zip(backward).map(|(a, b)| merged(*a, *b)).collect();
        match merge {
            Merge::Concat => forward
                .chunks_exact(hidden)
                .zip(backward.chunks_exact(hidden))
                .flat_map(|(a, b)| [a, b].concat())
                .collect(),
            Merge::Sum => each(|a, b| a + b),
            Merge::Mul => each(|a, b| a * b),
            Merge::Ave => each(|a, b| (a + b) / 2.0),
        }
    }

    /// The gradients of each layer's own output, from that of the merged one.
    fn unmerge(&self, hidden: usize, dy: &[f64], sides: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (Some(merge), [forward, backward]) = (self.merge, sides) else { return vec![dy.to_vec()] };
        let times = |other: &[f64]| dy.iter().zip(other).map(|(a, b)| a * b).collect();
        match merge {
            Merge::Concat => {
                let half = |side: usize| {
                    dy.chunks_exact(2 * hidden)
                        .flat_map(|row| row.iter().skip(side * hidden).take(hidden))
                        .copied()
                        .collect()
                };
                vec![half(0), half(1)]
            }
            Merge::Sum => vec![dy.to_vec(), dy.to_vec()],
            Merge::Mul => vec![times(backward), times(forward)],
            Merge::Ave => {
                let half: Vec<f64> = dy.iter().map(|v| v / 2.0).collect();
                vec![half.clone(), half]
            }
        }
    }

    pub(super) fn output_gradients(
        &self,
        problem: &Problem,
        gradients: &OutputGradients<f64>,
        outputs: &Outputs<f64>,
    ) -> OutputGradients<f64> {
        let (hidden, directions) = (problem.descriptor.hidden_size, problem.descriptor.num_directions());
        let mut native = OutputGradients { dy: None, ..gradients.clone() };
        self.swap_states([&mut native.dhn, &mut native.dcn]);
        let Some(dy) = &gradients.dy else { return native };
        let mut sides = self.unmerge(hidden, dy, &self.sides(problem, outputs));
        self.swap_sides(&mut sides);
        if self.return_sequences {
            let mut native_dy = vec![0.0; outputs.y.len()];
            for (direction, side) in sides.iter().enumerate() {
                for (row, values) in side.chunks_exact(hidden).enumerate() {
                    let start = (self.row(row, problem.shape.seq_len) * directions + direction) * hidden;
                    native_dy.iter_mut().skip(start).zip(values).for_each(|(to, from)| *to = *from);
                }
            }
            native.dy = Some(native_dy);
        } else {
            // The last output is the final state.
            let last = sides.concat();
            native.dhn = Some(match native.dhn {
                None => last,
                Some(dhn) => dhn.iter().zip(&last).map(|(a, b)| a + b).collect(),
            });
        }
        native
    }

    pub(super) fn results(
        &self,
        problem: &Problem,
        outputs: &Outputs<f64>,
        gradients: Option<&InputGradients<f64>>,
    ) -> Result<Named<Vec<f64>>> {
        let y = self.merge(problem.descriptor.hidden_size, &self.sides(problem, outputs));
        let mut results = Named::from([("y".to_owned(), y)]);
        let dh0 = gradients.map(|gradients| gradients.dh0.clone());
        let dc0 = gradients.and_then(|gradients| gradients.dc0.clone());
        let mut states = [("hn", Some(outputs.hn.clone())), ("cn", outputs.cn.clone()), ("dh0", dh0), ("dc0", dc0)];
        if let Some(gradients) = gradients {
            results.insert("dx".to_owned(), gradients.dx.clone());
            let mut sides = keras::export(&problem.descriptor, &gradients.dweights)?;
            self.swap_sides(&mut sides);
            for (prefix, side) in self.prefixes().iter().zip(sides) {
                results.insert(format!("dw.{prefix}kernel"), side.kernel);
                results.insert(format!("dw.{prefix}recurrent_kernel"), side.recurrent_kernel);
                results.extend(side.bias.map(|bias| (format!("dw.{prefix}bias"), bias)));
            }
        }
        self.swap_states(states.iter_mut().map(|(_, state)| state));
        results.extend(states.into_iter().filter_map(|(name, state)| Some((name.to_owned(), state?))));
        Ok(results)
    }
}
