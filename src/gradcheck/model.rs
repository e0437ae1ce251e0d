//! Checks of whole models, and of custom cells.

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use crate::backend::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::model::{Model, Sequential};
use crate::nn::{Cell, Random, Rnn};

/// How far the gradients of a model are from difference quotients of its loss.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelReport {
    /// The largest difference of a gradient from its quotient, over the largest gradient of its tensor (or over a thousandth, in
    /// `f32` a tenth, of the largest of all, where that is more).
    pub worst: f64,
    /// Where it was: a weight tensor's name or `input 0`, and the element.
    pub place: String,
    /// Elements compared.
    pub checked: usize,
    /// What [`worst`](Self::worst) stays below for a right derivative in the model's precision: 1e-7 in `f64`, 1e-2 in `f32`.
    pub tolerance: f64,
}

impl ModelReport {
    /// Whether gradients are right, as far as the model's precision says.
    pub fn holds(&self) -> bool {
        self.checked > 0 && self.worst < self.tolerance
    }
}

/// Elements of a tensor that are looked at, at most: every so many.
const MOST: usize = 64;

/// How the quotient is taken in an element type, and what of it can be told from rounding.
struct Precision {
    /// Distance of the two inner points of the quotient.
    step: f64,
    /// Part of the largest gradient of all that the largest of a tensor counts as, at least.
    floor: f64,
    tolerance: f64,
}

/// The error of the quotient is that of the loss over the step, and the step's fourth power: about equal parts of both.
const DOUBLE: Precision = Precision { step: 3e-5, floor: 1e-3, tolerance: 1e-7 };
const SINGLE: Precision = Precision { step: 1e-2, floor: 0.1, tolerance: 1e-2 };

/// Compares the gradients of the loss of a batch, by every weight tensor and every input, with difference quotients of fourth order,
/// `(8 (L(v + h) - L(v - h)) - (L(v + 2h) - L(v - 2h))) / 12h`. Everything is done as in training: dropout drops the same each time. The
/// quotient means nothing within `2h` of a kink (relu, maxima), which the caller's inputs should keep clear of, nor where moving an element
/// makes an absent step a present one: `compare` says, by the number of an input and of an element in it, which elements to look at.
///
/// It works in the model's own precision, with a step and a tolerance that go with it: `h` is 3e-5 in `f64` and 0.01 in `f32`, where small
/// mistakes pass. A model on [`Device::with_dtype`] in `f64` is checked far more closely.
///
/// # Errors
///
/// [`Error::Presence`](crate::Error::Presence) for a model without layers, [`Error::Shape`](crate::Error::Shape)
/// where an array does not fit it, [`Error::ZeroSize`](crate::Error::ZeroSize) without samples; [`Error::Unsupported`](crate::Error::Unsupported) where the device cannot do it or memory is
/// short, [`Error::Driver`](crate::Error::Driver) and [`Error::KernelFault`](crate::Error::KernelFault) where the GPU fails.
pub fn model(
    model: &mut Model,
    x: &[ArrayViewD<'_, f64>],
    y: &[ArrayViewD<'_, f64>],
    compare: impl Fn(usize, usize) -> bool,
) -> Result<ModelReport> {
    let Precision { step, floor, tolerance } = if model.dtype() == DType::F64 { DOUBLE } else { SINGLE };
    let inputs: Vec<ArrayD<f64>> = x.iter().map(|x| x.to_owned()).collect();
    let loss = |model: &mut Model, inputs: &[ArrayD<f64>]| -> Result<f64> {
        model.reset_states();
        let x: Vec<ArrayViewD<'_, f64>> = inputs.iter().map(|a| a.view()).collect();
        model.loss_gradient(x, y.to_vec()).map(|(loss, _)| loss)
    };
    let quotient = |at: &mut dyn FnMut(f64) -> Result<f64>| -> Result<f64> {
        let near = at(step)? - at(-step)?;
        let far = at(2.0 * step)? - at(-2.0 * step)?;
        Ok((8.0 * near - far) / (12.0 * step))
    };

    model.reset_states();
    let given = inputs.clone();
    let (_, of_weights) = model.loss_gradient(given.iter().map(|a| a.view()).collect::<Vec<_>>(), y.to_vec())?;
    model.reset_states();
    let (_, of_inputs) = model.input_gradients(given.iter().map(|a| a.view()).collect::<Vec<_>>(), y.to_vec())?;
    let weights: Vec<f64> = model.flat_weights()?;
    let tensors: Vec<(String, usize)> = model.weights().map(|(name, _, values)| (name, values.len())).collect();

    let mut found: Vec<(String, f64, f64)> = Vec::new();
    let mut start = 0;
    for (name, len) in tensors {
        // What training does not change by its gradient has none.
        if !model.is_trained(&name) {
            continue;
        }
        for i in (start..start + len).step_by(len.div_ceil(MOST)) {
            let slope = quotient(&mut |offset| {
                let mut moved = weights.clone();
                moved[i] += offset;
                model.set_flat_weights(&moved)?;
                loss(model, &inputs)
            })?;
            found.push((format!("{name}[{}]", i - start), slope, of_weights[i]));
        }
        start += len;
    }
    model.set_flat_weights(&weights)?;
    for (number, gradient) in of_inputs.iter().enumerate() {
        let len = gradient.len();
        for i in (0..len).step_by(len.div_ceil(MOST)).filter(|i| compare(number, *i)) {
            let slope = quotient(&mut |offset| {
                let mut moved = inputs.clone();
                if let Some(value) = moved[number].as_slice_mut().and_then(|values| values.get_mut(i)) {
                    *value += offset;
                }
                loss(model, &moved)
            })?;
            let value = gradient.iter().nth(i).copied().unwrap_or(f64::NAN);
            found.push((format!("input {number}[{i}]"), slope, value));
        }
    }
    model.reset_states();

    let tensor = |place: &str| place.split('[').next().unwrap_or_default().to_owned();
    let largest = |name: Option<&str>| {
        found
            .iter()
            .filter(|(place, ..)| name.is_none_or(|name| tensor(place) == name))
            .fold(0.0f64, |most, (_, slope, gradient)| most.max(slope.abs()).max(gradient.abs()))
    };
    let floor = (floor * largest(None)).max(f64::MIN_POSITIVE);
    let mut report = ModelReport { worst: 0.0, place: String::new(), checked: found.len(), tolerance };
    for (place, slope, gradient) in &found {
        let error = (slope - gradient).abs() / largest(Some(&tensor(place))).max(floor);
        // A comparison would let NaN pass.
        if error > report.worst || error.is_nan() {
            (report.worst, report.place) = (error, place.clone());
        }
    }
    Ok(report)
}

/// Checks a custom cell, on the device in `f64`: the gradients of a loss of every output and of the last state of an [`Rnn`] over it, by its weights and
/// its input, on three sequences of five steps drawn from a normal distribution. One with a right derivative gives a report with a
/// [`worst`](ModelReport::worst) below 1e-7, unless it has kinks.
///
/// # Errors
///
/// What the cell returns; [`Error::Shape`](crate::Error::Shape), [`Error::ZeroSize`](crate::Error::ZeroSize) and [`Error::SizeOverflow`](crate::Error::SizeOverflow) for sizes that a layer over it cannot have;
/// [`Error::Unsupported`](crate::Error::Unsupported) where the device cannot do it in `f64` or memory is short, [`Error::Driver`](crate::Error::Driver) where the GPU's driver fails.
pub fn cell(device: &Device, cell: impl Cell + Clone + Sync + 'static, input_size: usize) -> Result<ModelReport> {
    let (batch, seq_len) = (3, 5);
    let mut random = Random::new(1, 0);
    let mut draw = |shape: &[usize]| {
        let values = (0..shape.iter().product()).map(|_| random.normal()).collect();
        ArrayD::from_shape_vec(IxDyn(shape), values).unwrap_or_default()
    };
    let output = cell.output_size();
    let (x, y) = (draw(&[batch, seq_len, input_size]), draw(&[batch, seq_len, output]));
    let mut checked = Sequential::new(device.with_dtype(DType::F64)?, &[seq_len, input_size], 1)?;
    checked.add_own(Rnn::new(cell).return_sequences(true))?;
    model(&mut checked, &[x.view()], &[y.view()], |_, _| true)
}
