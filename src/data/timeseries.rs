//! Windows of long series, made batch by batch: [`TimeseriesDataset`].

use ndarray::{Array2, Array3, ArrayView2};

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::memory;
use crate::nn::Random;

/// Windows of rows `[len, features]`, of which no more than a batch is copied at a time: Keras's
/// [`timeseries_dataset_from_array`](https://keras.io/api/data_loading/timeseries/#timeseries_dataset_from_array-function), with its
/// defaults. Window `n` begins at row `start + n sequence_stride` and takes every `sampling_rate`-th row; its target is row
/// `start + n sequence_stride` of the targets, so that they are shifted by whoever gives them.
///
/// ```
/// use fused_rnn::data::TimeseriesDataset;
/// use ndarray::{Array2, s};
/// let series = Array2::from_shape_fn((100, 1), |(t, _)| t as f32);
/// // Ten values each, and the one after them.
/// let windows = TimeseriesDataset::new(series.slice(s![..-10, ..]), 10).targets(series.slice(s![10.., ..]));
/// assert_eq!(windows.len()?, 81);
/// let (x, y) = windows.batches(32)?.next().unwrap()?;
/// assert_eq!((x.shape(), y.shape(), y[[0, 0]]), (&[32, 10, 1][..], &[32, 1][..], 10.0));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TimeseriesDataset<'a, E> {
    data: ArrayView2<'a, E>,
    targets: Option<ArrayView2<'a, E>>,
    /// Rows of a window.
    pub sequence_length: usize,
    /// Rows from the beginning of one window to that of the next; 1.
    pub sequence_stride: usize,
    /// Rows from one to the next in a window; 1.
    pub sampling_rate: usize,
    /// The first row; 0.
    pub start: usize,
    /// The row after the last; all.
    pub end: Option<usize>,
    /// Whether windows come in an order drawn from this seed; in order of time.
    pub shuffle: Option<u64>,
}

impl<'a, E: Scalar> TimeseriesDataset<'a, E> {
    /// Windows of so many rows, one from each row on.
    pub fn new(data: ArrayView2<'a, E>, sequence_length: usize) -> Self {
        TimeseriesDataset {
            data,
            targets: None,
            sequence_length,
            sequence_stride: 1,
            sampling_rate: 1,
            start: 0,
            end: None,
            shuffle: None,
        }
    }

    /// With targets `[len, columns]`, a row for each row that a window may begin at. Without, batches have targets of no columns.
    pub fn targets(self, targets: ArrayView2<'a, E>) -> Self {
        TimeseriesDataset { targets: Some(targets), ..self }
    }

    /// With windows that begin so many rows apart.
    pub fn sequence_stride(self, sequence_stride: usize) -> Self {
        TimeseriesDataset { sequence_stride, ..self }
    }

    /// With every so-many-th row.
    pub fn sampling_rate(self, sampling_rate: usize) -> Self {
        TimeseriesDataset { sampling_rate, ..self }
    }

    /// Of these rows alone: Keras's `start_index` and `end_index`.
    pub fn rows(self, rows: std::ops::Range<usize>) -> Self {
        TimeseriesDataset { start: rows.start, end: Some(rows.end), ..self }
    }

    /// In an order drawn from a seed.
    pub fn shuffle(self, seed: u64) -> Self {
        TimeseriesDataset { shuffle: Some(seed), ..self }
    }

    /// How many windows there are; at least one.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for a length, a stride or a rate of zero; [`Error::InvalidOption`] for rows that are not there;
    /// [`Error::Shape`] where there are too few for a window.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> Result<usize> {
        for (name, size) in [
            ("sequence_length", self.sequence_length),
            ("sequence_stride", self.sequence_stride),
            ("sampling_rate", self.sampling_rate),
        ] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        let rows = self.data.nrows();
        let end = self.end.unwrap_or(rows);
        if end > rows || self.start >= end {
            let got = format!("{}..{end}", self.start);
            return Err(Error::option("rows", format!("some of 0..{rows}"), got));
        }
        let span = (self.sequence_length - 1).saturating_mul(self.sampling_rate).saturating_add(1);
        let mut begins = (end - self.start).saturating_sub(span - 1);
        if let Some(targets) = &self.targets {
            begins = begins.min(targets.nrows().saturating_sub(self.start));
        }
        if begins == 0 {
            return Err(Error::shape(
                "data",
                format!(
                    "at least {span} rows (sequence_length {} every {} rows), and a target for the first",
                    self.sequence_length, self.sampling_rate
                ),
                format!("{} rows, {} targets", end - self.start, self.targets.map_or(0, |targets| targets.nrows())),
            ));
        }
        Ok(begins.div_ceil(self.sequence_stride))
    }

    /// These windows, by their numbers, `[windows, sequence_length, features]`, and their targets `[windows, columns]`.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len); [`Error::InvalidOption`] for a number that is no window's; [`Error::SizeOverflow`] and [`Error::Unsupported`] for arrays beyond memory.
    pub fn windows(&self, numbers: &[usize]) -> Result<(Array3<E>, Array2<E>)> {
        let len = self.len()?;
        if let Some(number) = numbers.iter().find(|number| **number >= len) {
            return Err(Error::option("window", format!("a number below {len}"), number));
        }
        // Below the number of rows, as the numbers are below `len`.
        let begin = |n: usize| self.start + numbers.get(n).map_or(0, |number| number * self.sequence_stride);
        let (steps, features) = (self.sequence_length, self.data.ncols());
        let mut x = memory::array_of("windows", (numbers.len(), steps, features), E::zero())?;
        for (at, mut to) in x.rows_mut().into_iter().enumerate() {
            let row = begin(at / steps) + at % steps * self.sampling_rate;
            to.assign(&self.data.row(row));
        }
        let columns = self.targets.map_or(0, |targets| targets.ncols());
        let y = memory::array_from("targets of windows", (numbers.len(), columns), |(n, column)| {
            self.targets.and_then(|targets| targets.get([begin(n), column]).copied()).unwrap_or(E::zero())
        })?;
        Ok((x, y))
    }

    /// All windows in batches of so many; the last may be smaller. Each is copied when it is asked for. An order drawn from a seed is the
    /// same in every call; `pass` in [`batches_of`](Self::batches_of) draws others.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len); [`Error::ZeroSize`] for a batch of none.
    pub fn batches(&self, batch_size: usize) -> Result<TimeseriesBatches<'_, 'a, E>> {
        self.batches_of(batch_size, 0)
    }

    /// The same in the order of one of many passes over the windows, where they are shuffled.
    ///
    /// # Errors
    ///
    /// As [`batches`](Self::batches); [`Error::Unsupported`] where memory is too short for the order.
    pub fn batches_of(&self, batch_size: usize, pass: u32) -> Result<TimeseriesBatches<'_, 'a, E>> {
        if batch_size == 0 {
            return Err(Error::ZeroSize { name: "batch_size" });
        }
        let len = self.len()?;
        let mut order = Vec::new();
        if let Some(seed) = self.shuffle {
            order = memory::collected("an order of windows", 0..len)?;
            Random::new(seed, pass).shuffle(&mut order);
        }
        Ok(TimeseriesBatches { dataset: self, order, next: 0, len, batch_size })
    }
}

/// The batches of a [`TimeseriesDataset`].
#[derive(Clone, Debug)]
pub struct TimeseriesBatches<'d, 'a, E> {
    dataset: &'d TimeseriesDataset<'a, E>,
    /// Empty where they come in order of time.
    order: Vec<usize>,
    next: usize,
    len: usize,
    batch_size: usize,
}

impl<E: Scalar> Iterator for TimeseriesBatches<'_, '_, E> {
    type Item = Result<(Array3<E>, Array2<E>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.len {
            return None;
        }
        let end = self.next.saturating_add(self.batch_size).min(self.len);
        let numbers = (self.next..end).map(|n| self.order.get(n).copied().unwrap_or(n));
        let numbers = memory::collected("windows of a batch", numbers);
        self.next = end;
        Some(numbers.and_then(|numbers| self.dataset.windows(&numbers)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.len - self.next).div_ceil(self.batch_size);
        (left, Some(left))
    }
}

impl<E: Scalar> ExactSizeIterator for TimeseriesBatches<'_, '_, E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{array, s};

    fn series(len: usize) -> Array2<f64> {
        Array2::from_shape_fn((len, 2), |(t, c)| (10 * t + c) as f64)
    }

    /// The windows that Keras's documentation names, and a grid of options against its definition written out.
    #[test]
    fn windows_are_kerass() {
        // Its example: sequence_length=10, sampling_rate=2, sequence_stride=3 on 100 steps: the first begins at 0, the last at 81.
        let data = series(100);
        let dataset = TimeseriesDataset::new(data.view(), 10).sampling_rate(2).sequence_stride(3);
        assert_eq!(dataset.len().unwrap(), 28);
        let (x, y) = dataset.windows(&[0, 27]).unwrap();
        assert_eq!((x[[0, 9, 0]], x[[1, 0, 0]], x[[1, 9, 1]], y.dim()), (180.0, 810.0, 991.0, (2, 0)));
        for (length, stride, rate, start, end, of_targets) in [
            (1, 1, 1, 0, 20, 20),
            (3, 2, 4, 0, 20, 20),
            (5, 1, 1, 3, 17, 20),
            (4, 3, 2, 1, 20, 9),
            (20, 1, 1, 0, 20, 1),
        ] {
            let (data, targets) = (series(20), series(of_targets));
            let dataset = TimeseriesDataset::new(data.view(), length)
                .targets(targets.view())
                .sequence_stride(stride)
                .sampling_rate(rate)
                .rows(start..end);
            // Keras: arange(0, end - start - (length - 1) rate, stride), no more than there are targets.
            let begins = (end - start - (length - 1) * rate).min(of_targets - start);
            let expected: Vec<usize> = (0..begins).step_by(stride).collect();
            let batches: Vec<_> = dataset.batches(3).unwrap().map(|batch| batch.unwrap()).collect();
            assert_eq!(batches.len(), expected.len().div_ceil(3));
            let mut found = 0;
            for (x, y) in &batches {
                for (x, y) in x.outer_iter().zip(y.outer_iter()) {
                    let begin = start + expected[found];
                    assert_eq!(y, targets.row(begin));
                    for (step, row) in x.outer_iter().enumerate() {
                        assert_eq!(row, data.row(begin + step * rate));
                    }
                    found += 1;
                }
            }
            assert_eq!(found, expected.len());
        }
    }

    #[test]
    fn an_order_is_a_permutation_and_another_in_every_pass() {
        let data = series(40);
        let dataset = TimeseriesDataset::new(data.view(), 5).shuffle(7);
        let order = |pass| -> Vec<f64> {
            dataset
                .batches_of(8, pass)
                .unwrap()
                .flat_map(|batch| batch.unwrap().0.slice(s![.., 0, 0]).to_vec())
                .collect()
        };
        let mut first = order(0);
        assert_eq!(first, order(0));
        assert_ne!(first, order(1));
        first.sort_by(f64::total_cmp);
        assert_eq!(first, (0..36).map(|t| 10.0 * f64::from(t)).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_window_is_refused() {
        let data = array![[1.0f32], [2.0], [3.0]];
        let of = |length| TimeseriesDataset::new(data.view(), length);
        assert!(of(0).len().is_err() && of(4).len().is_err() && of(3).len().is_ok());
        assert!(of(2).sampling_rate(3).len().is_err() && of(2).sampling_rate(0).len().is_err());
        assert!(of(1).sequence_stride(0).len().is_err() && of(usize::MAX).sampling_rate(usize::MAX).len().is_err());
        assert!(of(1).rows(2..2).len().is_err() && of(1).rows(0..4).len().is_err());
        let backwards = std::ops::Range { start: 5, end: 2 };
        assert!(of(1).rows(backwards).len().is_err());
        assert!(of(1).batches(0).is_err() && of(1).windows(&[3]).is_err());
        let none = Array2::<f32>::zeros((0, 1));
        assert!(of(1).targets(none.view()).len().is_err());
    }
}
