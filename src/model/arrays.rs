//! Arrays that go into a model: [`Arrays`] and [`AnyArray`], their checks, and the weights of their samples.
//!
//! Only here are arrays typed. A model sees them as flat tensors of its device's element type, in the host's memory.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array, ArrayView, ArrayViewD, Dimension};

use crate::backend::device::{Placed, copy_on_host};
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::{DType, Element, Scalar, Stored};
use crate::error::{Error, Result};
use crate::memory;
use crate::model::output::Output;
use crate::rnn::shape::check_len;

/// Arrays of one element type for the inputs of a model, or for its outputs: one array for one, a `Vec` or an array of views for
/// several. A model whose device computes in the other of `f32` and `f64` converts them once, rounding to the nearest.
pub trait Arrays<'a> {
    /// Element type.
    type Elem: Scalar;

    /// The arrays in order.
    fn arrays(self) -> Vec<ArrayViewD<'a, Self::Elem>>;
}

impl<'a, E: Scalar, D: Dimension> Arrays<'a> for ArrayView<'a, E, D> {
    type Elem = E;

    fn arrays(self) -> Vec<ArrayViewD<'a, E>> {
        vec![self.into_dyn()]
    }
}

impl<'a, E: Scalar, D: Dimension> Arrays<'a> for &'a Array<E, D> {
    type Elem = E;

    fn arrays(self) -> Vec<ArrayViewD<'a, E>> {
        vec![self.view().into_dyn()]
    }
}

impl<'a, E: Scalar> Arrays<'a> for Vec<ArrayViewD<'a, E>> {
    type Elem = E;

    fn arrays(self) -> Vec<ArrayViewD<'a, E>> {
        self
    }
}

impl<'a, E: Scalar, const N: usize> Arrays<'a> for [ArrayViewD<'a, E>; N] {
    type Elem = E;

    fn arrays(self) -> Vec<ArrayViewD<'a, E>> {
        self.into()
    }
}

/// An array of `f32` or `f64` with any number of axes, from any view (`x.view().into()`) or array (`(&x).into()`, or `x.into()`, which
/// keeps it): for [`FitOptions`](crate::model::FitOptions) and [`Batch`](crate::model::Batch), where arrays of both types may stand side by
/// side. One that is not in standard layout is copied.
#[derive(Clone)]
pub struct AnyArray<'a> {
    shape: Vec<usize>,
    values: Values<'a>,
}

#[derive(Clone)]
enum Values<'a> {
    Borrowed(TensorRef<'a>),
    Owned(Arc<dyn HostValues>),
}

/// A vector without its type.
trait HostValues: Send + Sync {
    fn values(&self) -> TensorRef<'_>;
}

impl<E: Stored> HostValues for Vec<E> {
    fn values(&self) -> TensorRef<'_> {
        TensorRef::of(self)
    }
}

impl HostValues for Tensor {
    fn values(&self) -> TensorRef<'_> {
        self.view()
    }
}

impl<'a, E: Scalar, D: Dimension> From<ArrayView<'a, E, D>> for AnyArray<'a> {
    fn from(array: ArrayView<'a, E, D>) -> Self {
        let values = match array.to_slice() {
            Some(slice) => Values::Borrowed(TensorRef::of(slice)),
            None => Values::Owned(Arc::new(array.iter().copied().collect::<Vec<E>>())),
        };
        AnyArray { shape: array.shape().to_vec(), values }
    }
}

impl<'a, E: Scalar, D: Dimension> From<&'a Array<E, D>> for AnyArray<'a> {
    fn from(array: &'a Array<E, D>) -> Self {
        array.view().into()
    }
}

impl<E: Scalar, D: Dimension> From<Array<E, D>> for AnyArray<'_> {
    /// The array itself, which is not copied where it is in standard layout.
    fn from(array: Array<E, D>) -> Self {
        let shape = array.shape().to_vec();
        let values: Vec<E> = match array.is_standard_layout() {
            true => {
                let len = array.len();
                let (mut values, offset) = array.into_raw_vec_and_offset();
                // Slicing may have left elements before and after.
                values.drain(..offset.unwrap_or(0).min(values.len()));
                values.truncate(len);
                values
            }
            false => array.iter().copied().collect(),
        };
        AnyArray { shape, values: Values::Owned(Arc::new(values)) }
    }
}

impl fmt::Debug for AnyArray<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyArray({:?} of {})", self.shape, self.dtype())
    }
}

impl<'a> AnyArray<'a> {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        self.values().dtype()
    }

    /// Its elements, row-major.
    pub fn values(&self) -> TensorRef<'_> {
        match &self.values {
            Values::Borrowed(values) => *values,
            Values::Owned(values) => values.values(),
        }
    }

    /// The same in another element type.
    pub(super) fn in_dtype(self, name: &str, dtype: DType) -> Result<Self> {
        if self.dtype() == dtype {
            return Ok(self);
        }
        let mut tensor = Tensor::on_host(name, dtype, self.values().len())?;
        convert(name, &self.shape, self.values(), tensor.view_mut())?;
        Ok(AnyArray { shape: self.shape, values: Values::Owned(Arc::new(tensor)) })
    }
}

/// Arrays without their type.
pub(super) fn any<'a>(arrays: impl Arrays<'a>) -> Vec<AnyArray<'a>> {
    arrays.arrays().into_iter().map(AnyArray::from).collect()
}

/// Elements of a tensor of this `shape` in another type of floating-point numbers, rounded to the nearest; both in the host's memory.
///
/// # Errors
///
/// [`Error::NonFinite`] for a finite element that is beyond the other type's range; [`Error::Shape`] for other lengths or types.
/// Nothing is written then.
pub(super) fn convert(name: &str, shape: &[usize], from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
    fn each<A: Scalar, B: Scalar>(name: &str, from: &[A], to: &mut [B]) -> Result<()> {
        check_len(name, &[from.len()], to.len())?;
        from.iter().zip(to).for_each(|(from, to)| *to = B::of(from.wide()));
        Ok(())
    }
    check_range(name, shape, from, to.dtype())?;
    match (from.dtype(), to.dtype()) {
        (DType::F32, DType::F64) => each::<f32, f64>(name, from.host()?, to.host()?),
        (DType::F64, DType::F32) => each::<f64, f32>(name, from.host()?, to.host()?),
        _ => copy_on_host(from, to),
    }
}

/// Refuses elements of a tensor in the host's memory that are finite and beyond the range of `to`.
///
/// # Errors
///
/// [`Error::NonFinite`].
pub(super) fn check_range(name: &str, shape: &[usize], from: TensorRef<'_>, to: DType) -> Result<()> {
    let (DType::F64, DType::F32) = (from.dtype(), to) else { return Ok(()) };
    let from = from.host::<f64>()?;
    match from.iter().position(|value| value.is_finite() && !<f32 as Element>::of(*value).is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::NonFinite {
            tensor: name.to_owned(),
            got: from.get(at).copied().unwrap_or(f64::NAN),
            position: format!("element {:?}, in {to}", indices(at, shape)),
            help: "it is beyond that type's range; scale the values, or use a device in f64".to_owned(),
        }),
    }
}

/// The indices of element `i` of a tensor of this shape.
fn indices(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut indices = vec![0; shape.len()];
    for (index, n) in indices.iter_mut().zip(shape).rev() {
        (*index, i) = (i % n.max(&1), i / n.max(&1));
    }
    indices
}

/// Values of the host or of the device as `E`.
///
/// # Errors
///
/// [`Error::NonFinite`] for a finite element that is beyond the range of `E`; [`Error::Unsupported`] where memory is short;
/// [`Error::Driver`] where the GPU's driver fails, or reports a fault of earlier work.
pub(super) fn read_as<E: Scalar>(device: &Device, name: &str, shape: &[usize], from: TensorRef<'_>) -> Result<Vec<E>> {
    let mut values = memory::filled(name, from.len(), E::zero())?;
    download(device, name, shape, from, TensorMut::of(&mut values))?;
    Ok(values)
}

/// Copies values of the host or of the device to the host, in the type of `to`.
pub(super) fn download(
    device: &Device,
    name: &str,
    shape: &[usize],
    from: TensorRef<'_>,
    to: TensorMut<'_>,
) -> Result<()> {
    if from.is_on_host() {
        return convert(name, shape, from, to);
    }
    if from.dtype() == to.dtype() {
        return device.download_tensor(from, to);
    }
    let mut copy = Tensor::on_host(name, from.dtype(), from.len())?;
    device.download_tensor(from, copy.view_mut())?;
    convert(name, shape, copy.view(), to)
}

/// Values of the host in `f64`, which holds those of both types.
fn wide(values: TensorRef<'_>) -> Result<Vec<f64>> {
    let mut wide = memory::filled("values", values.len(), 0.0)?;
    convert("values", &[values.len()], values, TensorMut::of(&mut wide))?;
    Ok(wide)
}

/// Data that fit the model, of the device's element type, in the host's memory.
pub(super) struct Data<'a> {
    pub samples: usize,
    /// Steps of those inputs that may have any number.
    pub lengths: Vec<usize>,
    /// One array an input.
    pub x: Vec<AnyArray<'a>>,
    /// One array an output; none for inference.
    pub y: Vec<AnyArray<'a>>,
    /// Weights of the rows, `[samples, rows]` an output, or empty.
    pub weights: Vec<Tensor>,
}

/// Some samples of a tensor of all.
pub(super) fn rows(values: TensorRef<'_>, all: usize, samples: Range<usize>) -> Result<TensorRef<'_>> {
    let width = values.len() / all;
    values.part(samples.start * width..samples.end * width)
}

impl Data<'_> {
    /// Some of the samples.
    pub fn part(&self, samples: Range<usize>) -> Result<Part<'_>> {
        let rows = |values| rows(values, self.samples, samples.clone());
        Ok(Part {
            samples: samples.len(),
            lengths: &self.lengths,
            x: self.x.iter().map(|x| rows(x.values())).collect::<Result<_>>()?,
            y: self.y.iter().map(|y| rows(y.values())).collect::<Result<_>>()?,
            weights: self.weights.iter().map(|weights| rows(weights.view())).collect::<Result<_>>()?,
        })
    }

    /// The samples to train on, and those held back, the last `fraction`.
    pub fn split(&self, fraction: f64) -> Result<(Part<'_>, Part<'_>)> {
        if !(0.0..1.0).contains(&fraction) {
            return Err(Error::option(
                "validation_split",
                "a fraction of the samples, at least 0 and below 1",
                fraction,
            ));
        }
        // Keras's rounding.
        let first = (self.samples as f64 * (1.0 - fraction)).floor() as usize;
        if first == 0 || first == self.samples {
            return Err(Error::option(
                "validation_split",
                format!("a fraction that leaves some of the {} samples to train on and some to validate", self.samples),
                fraction,
            ));
        }
        Ok((self.part(0..first)?, self.part(first..self.samples)?))
    }
}

/// Some samples of [`Data`], one after the other.
pub(super) struct Part<'d> {
    pub samples: usize,
    /// Steps of those inputs that may have any number.
    pub lengths: &'d [usize],
    pub x: Vec<TensorRef<'d>>,
    pub y: Vec<TensorRef<'d>>,
    pub weights: Vec<TensorRef<'d>>,
}

impl<'d> Part<'d> {
    /// Whether a sample has an element that is NaN or infinite.
    pub fn is_bad(&self, sample: usize) -> bool {
        fn finite<E: Scalar>(values: &[E]) -> bool {
            values.iter().all(|value| value.is_finite())
        }
        self.x.iter().chain(&self.y).any(|values| {
            let Ok(row) = rows(*values, self.samples, sample..sample + 1) else { return false };
            !match row.dtype() {
                DType::F64 => row.host().is_ok_and(finite::<f64>),
                _ => row.host().is_ok_and(finite::<f32>),
            }
        })
    }

    /// The samples where the device computes. `prefix` is before the arrays' names in errors.
    pub fn place(&self, device: &Device, prefix: &str) -> Result<PlacedData<'d>> {
        let place = |name: &str, tensors: &[TensorRef<'d>]| -> Result<Vec<Placed<'d>>> {
            let one = |values: &TensorRef<'d>| {
                if device.is_host() {
                    return Ok(Placed::Here(*values));
                }
                let mut copy = device.allocate_as(&format!("{prefix}{name}"), values.dtype(), values.len())?;
                device.upload_tensor(*values, copy.view_mut())?;
                Ok(Placed::Copied(copy))
            };
            tensors.iter().map(one).collect()
        };
        Ok(PlacedData { x: place("x", &self.x)?, y: place("y", &self.y)?, weights: place("weights", &self.weights)? })
    }
}

/// Samples where the device computes.
pub(super) struct PlacedData<'d> {
    pub x: Vec<Placed<'d>>,
    pub y: Vec<Placed<'d>>,
    pub weights: Vec<Placed<'d>>,
}

/// Arrays in the element type `dtype` with the number of their samples; a last axis of 1 may be left out, or be there in excess.
pub(super) fn check_arrays<'a>(
    tensor: &str,
    what: &str,
    arrays: Vec<AnyArray<'a>>,
    expected: &[(&str, &[usize])],
    dtype: DType,
) -> Result<(usize, Vec<AnyArray<'a>>)> {
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
        let fits = match array.shape.split_first() {
            Some((_, rest)) => {
                let without = |long: &[usize], short: &[usize]| long.split_last() == Some((&1, short));
                rest == *shape || without(shape, rest) || without(rest, shape)
            }
            None => false,
        };
        let count = array.shape.first().copied().unwrap_or(0);
        if !fits {
            let axes: Vec<_> = shape.iter().map(|n| format!(", {n}")).collect();
            return Err(Error::shape(
                tensor,
                format!("[samples{}] (samples, then {what})", axes.concat()),
                format!("{:?}", array.shape),
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
        checked.push(array.in_dtype(&tensor, dtype)?);
    }
    Ok((samples.unwrap_or(0), checked))
}

/// The class that a target stands for: its largest element, or itself.
fn class_of(target: &[f64]) -> usize {
    match target {
        [class] => class.max(0.0) as usize,
        [first, others @ ..] => {
            let larger = |best: (usize, f64), other: (usize, &f64)| {
                if *other.1 > best.1 { (other.0 + 1, *other.1) } else { best }
            };
            others.iter().enumerate().fold((0, *first), larger).0
        }
        [] => 0,
    }
}

/// Weights of the rows of all samples, one tensor an output; none where all are 1.
///
/// `prefix` is before `sample_weight` in errors.
pub(super) fn row_weights(
    prefix: &str,
    outputs: &[Output],
    data: &Data<'_>,
    sample_weight: &[AnyArray<'_>],
    class_weight: &[(usize, f64)],
    dtype: DType,
) -> Result<Vec<Tensor>> {
    if sample_weight.is_empty() && class_weight.is_empty() {
        return Ok(Vec::new());
    }
    if sample_weight.len() > 1 && sample_weight.len() != outputs.len() {
        return Err(Error::shape(
            format!("{prefix}sample_weight"),
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
    // In f64 a product of two f32 is exact, so that rounding it gives what a product in f32 is.
    let rounded = |value: f64| if dtype == DType::F32 { f64::from(value as f32) } else { value };
    let mut all = Vec::new();
    for (index, (output, y)) in outputs.iter().zip(&data.y).enumerate() {
        let rows = output.weight_rows();
        let mut weights = memory::filled("weights of rows", data.samples * rows, 0.0)?;
        weights.fill(1.0);
        if let Some(given) = sample_weight.get(index).or(sample_weight.first()) {
            let tensor = format!("{prefix}sample_weight");
            let given = given.clone().in_dtype(&tensor, dtype)?;
            fill_rows(&mut weights, &tensor, &given, data.samples, rows)?;
        }
        if !class_weight.is_empty() {
            let targets = wide(y.values())?;
            if output.is_by_sample() {
                let got = output.loss.name();
                return Err(Error::option("class_weight", "a loss of rows, whose targets are classes", got));
            }
            let width = output.target_size()? / rows;
            for (row, target) in weights.iter_mut().zip(targets.chunks(width.max(1))) {
                let class = class_of(target);
                let factor = class_weight.iter().find(|(c, _)| *c == class).map_or(1.0, |(_, weight)| *weight);
                *row *= rounded(factor);
            }
        }
        let mut tensor = Tensor::on_host("weights of rows", dtype, weights.len())?;
        convert("weights of rows", &[data.samples, rows], TensorRef::of(&weights), tensor.view_mut())?;
        all.push(tensor);
    }
    Ok(all)
}

/// Weights of samples, or of steps of samples, as weights of rows.
fn fill_rows(weights: &mut [f64], tensor: &str, given: &AnyArray<'_>, samples: usize, rows: usize) -> Result<()> {
    let repeat = match given.shape[..] {
        [n] if n == samples => rows,
        [n, steps] if n == samples && steps == rows => 1,
        _ => {
            return Err(Error::shape(
                tensor,
                format!("[{samples}], or [{samples}, {rows}]"),
                format!("{:?}", given.shape),
            ));
        }
    };
    let given = wide(given.values())?;
    if let Some((i, bad)) = given.iter().enumerate().find(|(_, w)| !w.is_finite() || **w < 0.0) {
        return Err(Error::NonFinite {
            tensor: tensor.to_owned(),
            got: *bad,
            position: format!("element {i}"),
            help: "give weights that are finite and not below zero".to_owned(),
        });
    }
    for (row, weight) in weights.iter_mut().zip(given.iter().flat_map(|w| std::iter::repeat_n(w, repeat))) {
        *row = *weight;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, array};

    #[test]
    fn arrays_become_tensors() {
        let matrix = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let (whole, turned) = (AnyArray::from(&matrix), AnyArray::from(matrix.t()));
        assert_eq!((whole.shape(), whole.dtype()), (&[2, 3][..], DType::F32));
        assert_eq!(whole.values().host::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!((turned.shape(), turned.values().host::<f32>().unwrap()[1]), (&[3, 2][..], 4.0));
        // The whole array is read where it is.
        assert_eq!(whole.values().host::<f32>().unwrap().as_ptr(), matrix.as_ptr());
        let column = AnyArray::from(matrix.index_axis(Axis(1), 2));
        assert_eq!(column.values().host::<f32>().unwrap(), [3.0, 6.0]);
    }

    #[test]
    fn owned_arrays_become_tensors() {
        let matrix = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]];
        let at = matrix.as_ptr();
        let whole = AnyArray::from(matrix.clone());
        assert_eq!((whole.shape(), whole.values().host::<f32>().unwrap().len()), (&[3, 3][..], 9));
        let kept = AnyArray::from(matrix);
        assert_eq!(kept.values().host::<f32>().unwrap().as_ptr(), at, "nothing is copied");
        let rows = || array![[1.0f64, 2.0], [3.0, 4.0], [5.0, 6.0]];
        let middle = AnyArray::from(rows().slice_move(ndarray::s![1..2, ..]));
        assert_eq!((middle.shape(), middle.values().host::<f64>().unwrap()), (&[1, 2][..], &[3.0, 4.0][..]));
        let turned = AnyArray::from(rows().reversed_axes());
        assert_eq!(turned.values().host::<f64>().unwrap(), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        assert!(AnyArray::from(rows().slice_move(ndarray::s![1..1, ..])).values().is_empty());
    }

    #[test]
    fn another_type_is_rounded_once() {
        let given = array![[0.1f64, 1.0 / 3.0], [f64::NAN, f64::INFINITY]];
        let single = AnyArray::from(&given).in_dtype("x", DType::F32).unwrap();
        let values = single.values().host::<f32>().unwrap();
        assert_eq!(values[..2], [0.1f32, 1.0 / 3.0]);
        // What is no number on the caller's side is not our business.
        assert!(values[2].is_nan() && values[3] == f32::INFINITY);
        let double = single.in_dtype("x", DType::F64).unwrap();
        assert_eq!(double.values().host::<f64>().unwrap()[0], f64::from(0.1f32));
        let large = array![[1.0f64, 2.0, 3.0], [4.0, -1e300, 6.0]];
        let error = AnyArray::from(&large).in_dtype("x", DType::F32).unwrap_err();
        let Error::NonFinite { tensor, got, position, .. } = &error else { panic!("{error}") };
        assert_eq!((tensor.as_str(), *got), ("x", -1e300));
        assert!(position.contains("[1, 1]"), "{position}");
    }
}
