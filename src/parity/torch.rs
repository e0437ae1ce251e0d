//! PyTorch's cases: weights, states and layouts are native already.

use super::fields::{Fields, Tensors};
use super::{Named, Problem};
use crate::backend::pass::{InputGradients, Inputs, OutputGradients, Outputs};
use crate::cell::{Activation, CellKind};
use crate::error::{Error, Result};
use crate::rnn::{Bias, Direction, RnnDescriptor, RnnShape, TensorShapes, WeightLayout};

pub(super) fn read(fields: &mut Fields, tensors: &mut Tensors<'_>) -> Result<Problem> {
    let cell = fields.required_text("cell")?;
    let (kind, activation) = match cell.as_str() {
        "rnn_tanh" => (CellKind::Rnn, Activation::Tanh),
        "rnn_relu" => (CellKind::Rnn, Activation::Relu),
        "lstm" => (CellKind::Lstm, Activation::Tanh),
        "gru" => (CellKind::Gru, Activation::Tanh),
        _ => return Err(fields.error("cell", "rnn_tanh, rnn_relu, lstm or gru", format!("{cell:?}"))),
    };
    let shape = RnnShape { seq_len: fields.required_size("T")?, batch: fields.required_size("B")? };
    let mut descriptor = RnnDescriptor::new(kind, fields.required_size("I")?, fields.required_size("H")?);
    descriptor.activations.state = activation;
    descriptor.num_layers = fields.size("L")?.unwrap_or(1);
    if fields.flag("bi", false)? {
        descriptor.direction = Direction::Bidirectional;
    }
    if !fields.flag("bias", true)? {
        descriptor.bias = Bias::None;
    }
    // PyTorch's own default of proj_size is 0.
    descriptor.proj_size = match fields.take("proj") {
        None => None,
        Some(value) if value.is_null() || value == 0 => None,
        Some(value) => match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(size) => Some(size),
            None => return Err(fields.error("proj", "a whole number", value)),
        },
    };
    let lengths = fields.integers("lengths")?;

    problem(tensors, descriptor, shape, lengths)
}

/// The tensors of an operator in native layouts.
pub(super) fn problem(
    tensors: &mut Tensors<'_>,
    descriptor: RnnDescriptor,
    shape: RnnShape,
    lengths: Option<Vec<i64>>,
) -> Result<Problem> {
    let native = tensors.native_shapes(&descriptor, shape)?;
    let x = tensors.floats("x", &native.x)?;
    if let Some(lengths) = lengths.as_ref().filter(|lengths| lengths.len() != shape.batch) {
        return Err(Error::shape("lengths", format!("[B = {}]", shape.batch), format!("[{}]", lengths.len())));
    }
    let lengths = lengths.map(|lengths| tensors.lengths(&lengths, shape)).transpose()?;
    let mut weights = Vec::new();
    for entry in WeightLayout::new(&descriptor)?.entries() {
        weights.extend(tensors.floats(&format!("w.{}", entry.name), &entry.shape)?);
    }
    let dy = tensors.optional("dy", &native.y)?;
    let States { h0, c0, gradients } = States::read(tensors, &descriptor, &native, dy)?;
    let inputs = Inputs { weights, x, h0, c0, lengths, ..Default::default() };
    Ok(Problem { descriptor, shape, inputs, gradients })
}

/// Initial states, and the gradients of all outputs where there is one, in PyTorch's shapes.
pub(super) struct States {
    pub(super) h0: Option<Vec<f64>>,
    pub(super) c0: Option<Vec<f64>>,
    pub(super) gradients: Option<OutputGradients<f64>>,
}

impl States {
    pub(super) fn read(
        tensors: &mut Tensors<'_>,
        descriptor: &RnnDescriptor,
        native: &TensorShapes,
        dy: Option<Vec<f64>>,
    ) -> Result<Self> {
        let h0 = tensors.optional("h0", &native.h)?;
        let dhn = tensors.optional("dhn", &native.h)?;
        let (mut c0, mut dcn) = (None, None);
        if descriptor.cell.has_cell_state() {
            c0 = tensors.optional("c0", &native.c)?;
            dcn = tensors.optional("dcn", &native.c)?;
        }
        let any = dy.is_some() || dhn.is_some() || dcn.is_some();
        Ok(States { h0, c0, gradients: any.then_some(OutputGradients { dy, dhn, dcn }) })
    }
}

/// Shapes of the results that do not depend on the layout of `y` and the weights.
pub(super) fn state_shapes(descriptor: &RnnDescriptor, native: &TensorShapes) -> Named<Vec<usize>> {
    let mut shapes = Named::from([
        ("dx".to_owned(), native.x.to_vec()),
        ("hn".to_owned(), native.h.to_vec()),
        ("dh0".to_owned(), native.h.to_vec()),
    ]);
    if descriptor.cell.has_cell_state() {
        shapes.insert("cn".to_owned(), native.c.to_vec());
        shapes.insert("dc0".to_owned(), native.c.to_vec());
    }
    shapes
}

pub(super) fn result_shapes(problem: &Problem) -> Result<Named<Vec<usize>>> {
    let native = problem.shape.tensors(&problem.descriptor)?;
    let mut shapes = state_shapes(&problem.descriptor, &native);
    shapes.insert("y".to_owned(), native.y.to_vec());
    for entry in WeightLayout::new(&problem.descriptor)?.entries() {
        shapes.insert(format!("dw.{}", entry.name), entry.shape.clone());
    }
    Ok(shapes)
}

pub(super) fn results(
    problem: &Problem,
    outputs: &Outputs<f64>,
    gradients: Option<&InputGradients<f64>>,
) -> Result<Named<Vec<f64>>> {
    let mut results = Named::from([("y".to_owned(), outputs.y.clone()), ("hn".to_owned(), outputs.hn.clone())]);
    results.extend(outputs.cn.clone().map(|cn| ("cn".to_owned(), cn)));
    if let Some(gradients) = gradients {
        results.insert("dx".to_owned(), gradients.dx.clone());
        results.insert("dh0".to_owned(), gradients.dh0.clone());
        results.extend(gradients.dc0.clone().map(|dc0| ("dc0".to_owned(), dc0)));
        for entry in WeightLayout::new(&problem.descriptor)?.entries() {
            let values = gradients.dweights.get(entry.range.clone()).unwrap_or_default();
            results.insert(format!("dw.{}", entry.name), values.to_vec());
        }
    }
    Ok(results)
}
