//! Arrays that go into a model: [`Arrays`], their checks, and the weights of their samples.

use ndarray::{ArrayView, ArrayViewD, Axis, CowArray, Dimension, IxDyn, Slice};

use crate::backend::{DenseBackend, Memory};
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::model::output::Output;

/// Arrays for the inputs of a model, or for its outputs: one array for one, a `Vec` or an array of views for several.
pub trait Arrays<'a, E> {
    /// The arrays in order.
    fn arrays(self) -> Vec<ArrayViewD<'a, E>>;
}

impl<'a, E, D: Dimension> Arrays<'a, E> for ArrayView<'a, E, D> {
    fn arrays(self) -> Vec<ArrayViewD<'a, E>> {
        vec![self.into_dyn()]
    }
}

impl<'a, E, D: Dimension> Arrays<'a, E> for &'a ndarray::Array<E, D> {
    fn arrays(self) -> Vec<ArrayViewD<'a, E>> {
        vec![self.view().into_dyn()]
    }
}

impl<'a, E> Arrays<'a, E> for Vec<ArrayViewD<'a, E>> {
    fn arrays(self) -> Vec<ArrayViewD<'a, E>> {
        self
    }
}

impl<'a, E, const N: usize> Arrays<'a, E> for [ArrayViewD<'a, E>; N] {
    fn arrays(self) -> Vec<ArrayViewD<'a, E>> {
        self.into()
    }
}

/// Data that fit the model, in standard layout.
pub(super) struct Data<'a, E> {
    pub samples: usize,
    /// One array an input.
    pub x: Vec<CowArray<'a, E, IxDyn>>,
    /// One array an output; none for inference.
    pub y: Vec<CowArray<'a, E, IxDyn>>,
    /// Weights of the rows, `[samples, rows]` an output, or empty.
    pub weights: Vec<Vec<E>>,
}

/// Data where the backend computes.
pub(super) struct Placed<'a, B: DenseBackend + 'a> {
    pub samples: usize,
    pub x: Vec<<B as Memory>::View<'a, B::Elem>>,
    pub y: Vec<<B as Memory>::View<'a, B::Elem>>,
    pub weights: Vec<<B as Memory>::View<'a, B::Elem>>,
}

impl<'a, B: DenseBackend + 'a> Placed<'a, B>
where
    B::Elem: Scalar,
{
    pub fn new(backend: &B, prefix: &str, data: &'a Data<'_, B::Elem>) -> Result<Self> {
        let place = |name: &str, values| backend.place(&format!("{prefix}{name}"), values);
        Ok(Placed {
            samples: data.samples,
            x: data.x.iter().map(|x| place("x", flat("x", x)?)).collect::<Result<_>>()?,
            y: data.y.iter().map(|y| place("y", flat("y", y)?)).collect::<Result<_>>()?,
            weights: data.weights.iter().map(|w| place("weights", w)).collect::<Result<_>>()?,
        })
    }
}

/// Arrays with the number of their samples; a last axis of 1 may be left out, or be there in excess.
pub(super) fn check_arrays<'a, E: Scalar>(
    tensor: &str,
    what: &str,
    arrays: Vec<ArrayViewD<'a, E>>,
    expected: &[(&str, &[usize])],
) -> Result<(usize, Vec<CowArray<'a, E, IxDyn>>)> {
    if arrays.len() != expected.len() {
        let names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
        return Err(Error::shape(
            tensor,
            format!("{} arrays ({})", expected.len(), names.join(", ")),
            format!("{} arrays", arrays.len()),
        ));
    }
    let mut samples = None;
    let mut checked = Vec::new();
    for (array, (name, shape)) in arrays.into_iter().zip(expected) {
        let tensor = if expected.len() == 1 { tensor.to_owned() } else { format!("{tensor} of {name}") };
        let fits = match array.shape().split_first() {
            Some((_, rest)) => {
                let without = |long: &[usize], short: &[usize]| long.split_last() == Some((&1, short));
                rest == *shape || without(shape, rest) || without(rest, shape)
            }
            None => false,
        };
        let count = array.shape().first().copied().unwrap_or(0);
        if !fits {
            let axes: Vec<_> = shape.iter().map(|n| format!(", {n}")).collect();
            return Err(Error::shape(
                tensor,
                format!("[samples{}] (samples, then {what})", axes.concat()),
                format!("{:?}", array.shape()),
            ));
        }
        if count == 0 {
            return Err(Error::ZeroSize { name: "number of samples" });
        }
        if let Some(samples) = samples.filter(|samples| *samples != count) {
            return Err(Error::shape(
                tensor,
                format!("{samples} samples, as the arrays before it"),
                format!("{count} samples"),
            ));
        }
        samples = Some(count);
        let standard = if array.is_standard_layout() {
            CowArray::from(array)
        } else {
            CowArray::from(array.as_standard_layout().into_owned())
        };
        checked.push(standard);
    }
    Ok((samples.unwrap_or(0), checked))
}

/// The elements of an array in standard layout.
pub(super) fn flat<'a, E: Scalar>(tensor: &str, array: &'a CowArray<'_, E, IxDyn>) -> Result<&'a [E]> {
    array.as_slice().ok_or_else(|| Error::shape(tensor, "an array in standard layout", "another"))
}

/// The class that a target stands for: its largest element, or itself.
fn class_of<E: Scalar>(target: &[E]) -> usize {
    match target {
        [class] => class.wide().max(0.0) as usize,
        _ => (0..target.len()).fold(0, |best, i| if target[i] > target[best] { i } else { best }),
    }
}

/// Data without their last part, and that part.
pub(super) fn split<E: Scalar>(data: Data<'_, E>, fraction: f64) -> Result<(Data<'_, E>, Data<'_, E>)> {
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::option("validation_split", "a fraction of the samples, at least 0 and below 1", fraction));
    }
    // Keras's rounding.
    let first = (data.samples as f64 * (1.0 - fraction)).floor() as usize;
    if first == 0 || first == data.samples {
        return Err(Error::option(
            "validation_split",
            format!("a fraction that leaves some of the {} samples to train on and some to validate", data.samples),
            fraction,
        ));
    }
    let part = |arrays: &[CowArray<'_, E, IxDyn>], slice: Slice| {
        arrays.iter().map(|array| array.slice_axis(Axis(0), slice).to_owned().into()).collect::<Vec<_>>()
    };
    let parts = |slice: Slice| (part(&data.x, slice), part(&data.y, slice));
    let ((x, y), (held_x, held_y)) = (parts(Slice::from(..first)), parts(Slice::from(first..)));
    let mut weights = data.weights;
    let held: Vec<Vec<E>> = weights.iter_mut().map(|w| w.split_off(w.len() / data.samples * first)).collect();
    Ok((
        Data { samples: first, x, y, weights },
        Data { samples: data.samples - first, x: held_x, y: held_y, weights: held },
    ))
}

/// Weights of the rows of all samples, one vector an output; none where all are 1.
pub(super) fn row_weights<E: Scalar, B: DenseBackend<Elem = E>>(
    outputs: &[Output<B>],
    data: &Data<'_, E>,
    sample_weight: &[ArrayViewD<'_, E>],
    class_weight: &[(usize, f64)],
) -> Result<Vec<Vec<E>>> {
    if sample_weight.is_empty() && class_weight.is_empty() {
        return Ok(Vec::new());
    }
    if sample_weight.len() > 1 && sample_weight.len() != outputs.len() {
        return Err(Error::shape(
            "sample_weight",
            format!("one array for all outputs, or {}, one an output", outputs.len()),
            format!("{} arrays", sample_weight.len()),
        ));
    }
    if !class_weight.is_empty() && outputs.len() != 1 {
        return Err(Error::option("class_weight", "a model with one output", format!("{}", outputs.len())));
    }
    if let Some((class, weight)) = class_weight.iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0)) {
        return Err(Error::option(format!("class_weight[{class}]"), "a finite number, not below zero", weight));
    }
    let mut all = Vec::new();
    for (index, (output, y)) in outputs.iter().zip(&data.y).enumerate() {
        let rows = output.rows();
        let mut weights = vec![E::one(); data.samples * rows];
        if let Some(given) = sample_weight.get(index).or(sample_weight.first()) {
            fill_rows(&mut weights, given, data.samples, rows)?;
        }
        if !class_weight.is_empty() {
            let targets = flat("y", y)?;
            let width = output.target_size() / rows;
            for (row, target) in weights.iter_mut().zip(targets.chunks(width.max(1))) {
                let class = class_of(target);
                let factor = class_weight.iter().find(|(c, _)| *c == class).map_or(1.0, |(_, weight)| *weight);
                *row *= E::of(factor);
            }
        }
        all.push(weights);
    }
    Ok(all)
}

/// Weights of samples, or of steps of samples, as weights of rows.
fn fill_rows<E: Scalar>(weights: &mut [E], given: &ArrayViewD<'_, E>, samples: usize, rows: usize) -> Result<()> {
    let repeat = match given.shape() {
        [n] if *n == samples => rows,
        [n, steps] if *n == samples && *steps == rows => 1,
        shape => {
            return Err(Error::shape(
                "sample_weight",
                format!("[{samples}], or [{samples}, {rows}]"),
                format!("{shape:?}"),
            ));
        }
    };
    if let Some((i, bad)) = given.iter().enumerate().find(|(_, w)| !w.is_finite() || **w < E::zero()) {
        return Err(Error::NonFinite {
            tensor: "sample_weight".to_owned(),
            got: bad.wide(),
            position: format!("element {i}"),
            help: "give weights that are finite and not below zero".to_owned(),
        });
    }
    for (row, weight) in weights.iter_mut().zip(given.iter().flat_map(|w| std::iter::repeat_n(w, repeat))) {
        *row = *weight;
    }
    Ok(())
}
