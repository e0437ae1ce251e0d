//! Scaling values to a range that networks learn well in: [`Scaler`], and [`ColumnScaler`] with one for each column of a matrix.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::memory;

/// `scaled = (value - offset) / scale`, with offset and scale fitted to the part of the data that a model may see.
///
/// ```
/// use fused_rnn::data::Scaler;
/// let scaler = Scaler::min_max(&[10.0, 20.0, 30.0])?;
/// assert_eq!(scaler.transform(15.0), 0.25);
/// assert_eq!(scaler.inverse(0.25), 15.0);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    offset: f64,
    scale: f64,
}

impl Scaler {
    /// Changes nothing.
    pub const IDENTITY: Scaler = Scaler { offset: 0.0, scale: 1.0 };

    /// Maps the smallest of `values` to 0 and the largest to 1, as scikit-learn's
    /// [`MinMaxScaler`](https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.MinMaxScaler.html).
    /// Equal values all map to 0.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without values, [`Error::NonFinite`] where a value or their range is not finite.
    pub fn min_max(values: &[f64]) -> Result<Self> {
        Self::min_max_to(values, 0.0, 1.0)
    }

    /// Maps the smallest of `values` to `low` and the largest to `high`: the `feature_range` of scikit-learn's scaler. Equal values all
    /// map to `low`.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without values, [`Error::NonFinite`] where a value or their range is not finite; [`Error::InvalidOption`] where
    /// `low` is not below `high`, or either is not finite.
    pub fn min_max_to(values: &[f64], low: f64, high: f64) -> Result<Self> {
        if !(low.is_finite() && high.is_finite() && low < high) {
            return Err(Error::option("range", "a finite number and a larger one", format!("{low:e} and {high:e}")));
        }
        check(values)?;
        let (min, max) = range(values);
        let spread = if max == min { 1.0 } else { max - min };
        let scale = spread / (high - low);
        if !scale.is_normal() && spread.is_finite() {
            let expected = format!("a range to which numbers {spread:e} apart can be scaled");
            return Err(Error::option("range", expected, format!("{low:e} to {high:e}")));
        }
        Self::new(min - low * scale, scale)
    }

    /// Maps `values` to mean 0 and standard deviation 1 (that of the population, divided by `n`), as scikit-learn's
    /// [`StandardScaler`](https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.StandardScaler.html).
    /// Equal values all map to 0. Values whose spread is no more than the rounding of their mean count as equal, as they do there.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without values, [`Error::NonFinite`] where a value, their mean or their deviation is not finite.
    pub fn standard(values: &[f64]) -> Result<Self> {
        check(values)?;
        let (min, max) = range(values);
        if min == max {
            return Self::new(min, 1.0); // the mean, without the rounding of its sum
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
        let rounding = n * f64::EPSILON * variance + (n * mean * f64::EPSILON) * (n * mean * f64::EPSILON);
        Self::new(mean, if variance <= rounding { 1.0 } else { variance.sqrt() })
    }

    fn new(offset: f64, scale: f64) -> Result<Self> {
        let scaler = Scaler { offset, scale: if scale == 0.0 { 1.0 } else { scale } };
        scaler.validate()?;
        Ok(scaler)
    }

    /// Checks a scaler that was read from a file.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] where offset or scale is not finite, [`Error::InvalidOption`] where the scale is not above zero.
    pub fn validate(&self) -> Result<()> {
        for (position, got) in [("offset", self.offset), ("scale", self.scale)] {
            if !got.is_finite() {
                let help = "rescale the data to magnitudes that a double can square".to_owned();
                return Err(Error::NonFinite { tensor: "scaler".to_owned(), got, position: position.to_owned(), help });
            }
        }
        if self.scale <= 0.0 {
            return Err(Error::option("scaler.scale", "a number above zero", self.scale));
        }
        Ok(())
    }

    /// The scaled value.
    pub fn transform(&self, value: f64) -> f64 {
        (value - self.offset) / self.scale
    }

    /// The value that was scaled.
    pub fn inverse(&self, scaled: f64) -> f64 {
        scaled * self.scale + self.offset
    }
}

/// A [`Scaler`] for each column of a matrix `[rows, columns]`, fitted to that column alone: scikit-learn's scalers for several features.
/// In a file it is the list of its columns.
///
/// ```
/// use fused_rnn::data::ColumnScaler;
/// use ndarray::array;
/// let train = array![[10.0, 0.1], [20.0, 0.3], [30.0, 0.2]];
/// let scaler = ColumnScaler::min_max(train.view())?;
/// let scaled = scaler.transform(train.view())?;
/// assert_eq!(scaled.column(0), array![0.0, 0.5, 1.0]);
/// assert_eq!(scaler.inverse(scaled.view())?.column(0), array![10.0, 20.0, 30.0]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ColumnScaler {
    columns: Vec<Scaler>,
}

impl ColumnScaler {
    /// [`Scaler::min_max`] of each column.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without rows or columns; [`Error::NonFinite`] naming row and column where a value, or the column where its range,
    /// is not finite.
    pub fn min_max<E: Scalar>(matrix: ArrayView2<'_, E>) -> Result<Self> {
        Self::fit(matrix, Scaler::min_max)
    }

    /// [`Scaler::min_max_to`] of each column.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without rows or columns; [`Error::NonFinite`] naming row and column where a value, or the column where its
    /// range, is not finite; [`Error::InvalidOption`] where `low` is not below `high`, or either is not finite.
    pub fn min_max_to<E: Scalar>(matrix: ArrayView2<'_, E>, low: f64, high: f64) -> Result<Self> {
        Self::fit(matrix, |values| Scaler::min_max_to(values, low, high))
    }

    /// [`Scaler::standard`] of each column.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without rows or columns; [`Error::NonFinite`] naming row and column where a value, or the column where its mean
    /// or deviation, is not finite.
    pub fn standard<E: Scalar>(matrix: ArrayView2<'_, E>) -> Result<Self> {
        Self::fit(matrix, Scaler::standard)
    }

    fn fit<E: Scalar>(matrix: ArrayView2<'_, E>, fit: impl Fn(&[f64]) -> Result<Scaler>) -> Result<Self> {
        let (rows, columns) = matrix.dim();
        for (name, size) in [("rows", rows), ("columns", columns)] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        for ((row, column), value) in matrix.indexed_iter() {
            if !value.is_finite() {
                return Err(Error::NonFinite {
                    tensor: "matrix".to_owned(),
                    got: value.wide(),
                    position: format!("row {row}, column {column} (from 0)"),
                    help: "close gaps first".to_owned(),
                });
            }
        }
        let of_column = |(index, column): (usize, ndarray::ArrayView1<'_, E>)| {
            let values = memory::collected("values of a column", column.iter().map(|v| v.wide()))?;
            fit(&values).map_err(|error| in_column(error, index))
        };
        Ok(ColumnScaler { columns: matrix.columns().into_iter().enumerate().map(of_column).collect::<Result<_>>()? })
    }

    /// The columns' scalers; that of a target alone undoes the scale of its predictions.
    pub fn columns(&self) -> &[Scaler] {
        &self.columns
    }

    /// Checks a scaler that was read from a file.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without columns; naming the column, [`Error::NonFinite`] where an offset or a scale is not finite,
    /// [`Error::InvalidOption`] where a scale is not above zero.
    pub fn validate(&self) -> Result<()> {
        if self.columns.is_empty() {
            return Err(Error::ZeroSize { name: "number of columns of a scaler" });
        }
        self.columns
            .iter()
            .enumerate()
            .try_for_each(|(index, scaler)| scaler.validate().map_err(|error| in_column(error, index)))
    }

    /// The scaled matrix.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where it has not as many columns as the scaler was fitted to.
    pub fn transform<E: Scalar>(&self, matrix: ArrayView2<'_, E>) -> Result<Array2<E>> {
        self.map(matrix, Scaler::transform)
    }

    /// The matrix that was scaled.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where it has not as many columns as the scaler was fitted to.
    pub fn inverse<E: Scalar>(&self, scaled: ArrayView2<'_, E>) -> Result<Array2<E>> {
        self.map(scaled, Scaler::inverse)
    }

    fn map<E: Scalar>(&self, matrix: ArrayView2<'_, E>, f: impl Fn(&Scaler, f64) -> f64) -> Result<Array2<E>> {
        if matrix.ncols() != self.columns.len() {
            return Err(Error::shape(
                "matrix",
                format!("{} columns, as the scaler was fitted to", self.columns.len()),
                format!("{} columns", matrix.ncols()),
            ));
        }
        let mut scaled = memory::array_of("scaled values", matrix.dim(), E::of(0.0))?;
        for ((mut to, from), scaler) in scaled.columns_mut().into_iter().zip(matrix.columns()).zip(&self.columns) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = E::of(f(scaler, from.wide())));
        }
        Ok(scaled)
    }
}

/// The error of a scaler, naming the column of a matrix that it is for.
fn in_column(error: Error, column: usize) -> Error {
    match error {
        Error::NonFinite { tensor, got, position, help } => {
            Error::NonFinite { tensor: format!("{tensor} of column {column} (from 0)"), got, position, help }
        }
        Error::InvalidOption { option, expected, got } => {
            Error::InvalidOption { option: format!("{option} of column {column} (from 0)"), expected, got }
        }
        other => other,
    }
}

/// The smallest and the largest value.
fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(*v), max.max(*v)))
}

fn check(values: &[f64]) -> Result<()> {
    if values.is_empty() {
        return Err(Error::ZeroSize { name: "number of values to fit a scaler to" });
    }
    match values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some((i, got)) => Err(Error::NonFinite {
            tensor: "values".to_owned(),
            got: *got,
            position: format!("position {i}"),
            help: "close gaps first; where differences of values overflow, rescale the data".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn min_max_is_scikit_learns() {
        let values = [-1.0, -0.5, 0.0, 1.0];
        let scaler = Scaler::min_max(&values).unwrap();
        assert_eq!(values.map(|v| scaler.transform(v)), [0.0, 0.25, 0.5, 1.0]);
        assert_eq!(scaler.transform(2.0), 1.5);
    }

    #[test]
    fn standard_is_scikit_learns() {
        let values = [0.0, 0.0, 1.0, 1.0];
        let scaler = Scaler::standard(&values).unwrap();
        assert_eq!(values.map(|v| scaler.transform(v)), [-1.0, -1.0, 1.0, 1.0]);
        assert_eq!(scaler.transform(2.0), 3.0);
    }

    #[test]
    fn inverse_undoes_transform() {
        let values = [316.1, 317.3, 400.25, 290.0];
        for scaler in [Scaler::min_max(&values).unwrap(), Scaler::standard(&values).unwrap(), Scaler::IDENTITY] {
            for v in values {
                assert!((scaler.inverse(scaler.transform(v)) - v).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn constant_values_and_bad_ones() {
        let scaler = Scaler::min_max(&[7.0, 7.0]).unwrap();
        assert_eq!((scaler.transform(7.0), scaler.inverse(0.0)), (0.0, 7.0));
        let scaler = Scaler::standard(&[0.1; 3]).unwrap();
        assert_eq!((scaler.transform(0.1), scaler.inverse(0.0)), (0.0, 0.1));
        let scaler = Scaler::min_max_to(&[7.0, 7.0], -1.0, 1.0).unwrap();
        assert_eq!((scaler.transform(7.0), scaler.inverse(-1.0)), (-1.0, 7.0));
        for (low, high) in [(1.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            assert!(matches!(Scaler::min_max_to(&[1.0, 2.0], low, high), Err(Error::InvalidOption { .. })));
        }
        assert!(matches!(Scaler::standard(&[]), Err(Error::ZeroSize { .. })));
        assert!(matches!(Scaler::min_max(&[1.0, f64::NAN]), Err(Error::NonFinite { .. })));
        assert!(matches!(Scaler::min_max(&[-f64::MAX, f64::MAX]), Err(Error::NonFinite { .. })));
    }

    #[test]
    fn each_column_for_itself() {
        let matrix = array![[1.0f32, 10.0, 5.0], [2.0, -10.0, 5.0], [4.0, 0.0, 5.0]];
        let scaler = ColumnScaler::min_max_to(matrix.view(), -1.0, 1.0).unwrap();
        let scaled = scaler.transform(matrix.view()).unwrap();
        assert_eq!(scaled.column(1), array![1.0, -1.0, 0.0]);
        assert_eq!(scaled.column(2), array![-1.0, -1.0, -1.0]);
        assert_eq!(scaler.inverse(scaled.view()).unwrap(), matrix);
        assert_eq!(scaler.columns()[0], Scaler::min_max_to(&[1.0, 2.0, 4.0], -1.0, 1.0).unwrap());
        let text = serde_json::to_string(&scaler).unwrap();
        assert_eq!(serde_json::from_str::<ColumnScaler>(&text).unwrap(), scaler);
        let message = scaler.transform(array![[1.0f32, 2.0]].view()).unwrap_err().to_string();
        assert!(message.contains("3 columns") && message.contains("2 columns"), "{message}");
    }

    #[test]
    fn bad_matrices_name_the_place() {
        let message = ColumnScaler::standard(array![[1.0, 2.0], [3.0, f64::NAN]].view()).unwrap_err().to_string();
        assert!(message.contains("NaN at row 1, column 1"), "{message}");
        let message = ColumnScaler::min_max(array![[1.0, f64::MAX], [3.0, -f64::MAX]].view()).unwrap_err().to_string();
        assert!(message.contains("of column 1"), "{message}");
        for (rows, columns) in [(0, 2), (2, 0)] {
            let empty = Array2::<f32>::zeros((rows, columns));
            assert!(matches!(ColumnScaler::min_max(empty.view()), Err(Error::ZeroSize { .. })));
        }
        let read: ColumnScaler = serde_json::from_str(r#"[{"offset":0,"scale":1},{"offset":0,"scale":-1}]"#).unwrap();
        assert!(read.validate().unwrap_err().to_string().contains("of column 1"));
        assert!(serde_json::from_str::<ColumnScaler>("[]").unwrap().validate().is_err());
    }
}
