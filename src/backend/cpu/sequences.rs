//! Which rows take part in which step.
//!
//! Sequences are walked in the order of falling length, so that those still running at a step are always the first ones:
//! internal buffers are `[T, B]` rows by step and *position* in that order, and a finished sequence takes part in no product. The
//! caller's tensors keep their own order; [`Rows`] finds a row in either.

use std::ops::Range;

use crate::backend::cpu::CpuElement;
use crate::rnn::{Layout, RnnShape};

/// The sequences of one call.
#[derive(Clone, Copy)]
pub(crate) struct Sequences<'a> {
    pub(crate) shape: RnnShape,
    /// Sequence number of each position.
    order: &'a [u32],
    /// Number of sequences that reach each step.
    active: &'a [u32],
    /// Internal row numbers of all valid steps, ascending; absent where all are valid.
    valid: Option<&'a [u32]>,
    lengths: Option<&'a [u32]>,
    resets: Option<&'a [u8]>,
}

/// Numbers that [`Sequences`] keeps.
pub(crate) fn index_len(shape: RnnShape) -> usize {
    shape.batch + shape.seq_len + shape.batch * shape.seq_len
}

impl<'a> Sequences<'a> {
    pub(crate) fn new(
        shape: RnnShape,
        lengths: Option<&'a [u32]>,
        resets: Option<&'a [u8]>,
        storage: &'a mut [u32],
    ) -> Self {
        let (order, rest) = storage.split_at_mut(shape.batch);
        let (active, rest) = rest.split_at_mut(shape.seq_len);
        for (position, b) in order.iter_mut().enumerate() {
            *b = position as u32;
        }
        active.fill(shape.batch as u32);
        let mut valid = None;
        if let Some(lengths) = lengths {
            order.sort_unstable_by_key(|&b| (std::cmp::Reverse(lengths[b as usize]), b));
            let mut count = 0;
            for (t, active) in active.iter_mut().enumerate() {
                *active = order.partition_point(|&b| lengths[b as usize] as usize > t) as u32;
                for position in 0..*active as usize {
                    rest[count] = (t * shape.batch + position) as u32;
                    count += 1;
                }
            }
            let (rows, _) = rest.split_at_mut(count);
            valid = Some(&*rows);
        }
        Sequences { shape, order, active, valid, lengths, resets }
    }

    /// Sequence number at a position.
    pub(crate) fn at(&self, position: usize) -> usize {
        self.order[position] as usize
    }

    /// Valid steps of the sequence at a position.
    pub(crate) fn length(&self, position: usize) -> usize {
        self.lengths.map_or(self.shape.seq_len, |lengths| lengths[self.at(position)] as usize)
    }

    /// Number of valid steps of all sequences.
    pub(crate) fn valid_rows(&self) -> usize {
        self.rows().len()
    }

    /// Numbers of the valid steps that are of some time steps.
    pub(crate) fn valid_within(&self, steps: &Range<usize>) -> Range<usize> {
        let before = |t: usize| {
            let row = t * self.shape.batch;
            self.valid.map_or(row, |rows| rows.partition_point(|&valid| (valid as usize) < row))
        };
        before(steps.start)..before(steps.end)
    }

    /// Internal row number of the `index`-th valid step.
    pub(crate) fn valid_row(&self, index: usize) -> usize {
        self.rows().at(index)
    }

    /// All valid steps.
    pub(crate) fn rows(&self) -> ValidRows<'a> {
        match self.valid {
            Some(rows) => ValidRows::Listed(rows),
            None => {
                let RnnShape { seq_len, batch, .. } = self.shape;
                ValidRows::Whole { steps: seq_len, batch, first: 0, count: batch }
            }
        }
    }

    /// The valid steps of the first positions, and those of the others. `storage` has room for all.
    pub(crate) fn rows_in_two(&self, positions: usize, storage: &'a mut [u32]) -> [ValidRows<'a>; 2] {
        let RnnShape { seq_len, batch, .. } = self.shape;
        let Some(rows) = self.valid else {
            return [(0, positions), (positions, batch - positions)].map(|(first, count)| ValidRows::Whole {
                steps: seq_len,
                batch,
                first,
                count,
            });
        };
        let is_first = |row: &u32| (*row as usize % batch) < positions;
        let of_first = rows.iter().filter(|row| is_first(row)).count();
        let (first, others) = storage[..rows.len()].split_at_mut(of_first);
        let (mut at_first, mut at_others) = (first.iter_mut(), others.iter_mut());
        for row in rows {
            let place = if is_first(row) { at_first.next() } else { at_others.next() };
            place.into_iter().for_each(|place| *place = *row);
        }
        [ValidRows::Listed(first), ValidRows::Listed(others)]
    }

    /// Whether all sequences are as long as the longest possible.
    pub(crate) fn are_full(&self) -> bool {
        self.lengths.is_none()
    }

    pub(crate) fn have_resets(&self) -> bool {
        self.resets.is_some()
    }

    /// Whether the state is re-initialised before step `t`.
    pub(crate) fn is_reset(&self, t: usize, position: usize) -> bool {
        self.resets.is_some_and(|resets| resets[t * self.shape.batch + self.at(position)] != 0)
    }

    /// The time loop over some steps: each, in time or `backwards`, that some of the `positions` reach, and how many of them.
    pub(crate) fn steps(
        &self,
        backwards: bool,
        steps: Range<usize>,
        positions: Range<usize>,
    ) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let active = self.active;
        steps.clone().filter_map(move |step| {
            let t = if backwards { steps.end - 1 - (step - steps.start) } else { step };
            let rows = (active[t] as usize).saturating_sub(positions.start).min(positions.len());
            (rows > 0).then_some((t, rows))
        })
    }

    /// The step whose state step `t` starts from; `None` where that is the initial state.
    pub(crate) fn previous(&self, reverse: bool, t: usize, position: usize) -> Option<usize> {
        if self.is_reset(t, position) {
            None
        } else if reverse {
            (t + 1 < self.length(position)).then_some(t + 1)
        } else {
            t.checked_sub(1)
        }
    }
}

/// Internal row numbers of valid steps, ascending.
#[derive(Clone, Copy)]
pub(crate) enum ValidRows<'a> {
    /// Of every step those of `count` positions from `first` on.
    Whole { steps: usize, batch: usize, first: usize, count: usize },
    /// These.
    Listed(&'a [u32]),
}

impl ValidRows<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            ValidRows::Whole { steps, count, .. } => steps * count,
            ValidRows::Listed(rows) => rows.len(),
        }
    }

    #[inline]
    pub(crate) fn at(&self, index: usize) -> usize {
        match *self {
            ValidRows::Whole { batch, count, .. } if count == batch => index,
            ValidRows::Whole { batch, first, count, .. } => index / count * batch + first + index % count,
            ValidRows::Listed(rows) => rows[index] as usize,
        }
    }
}

/// Features `first..first + width` of a tensor of rows.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, E> {
    data: &'a [E],
    /// Elements from one row to the next.
    stride: usize,
    first: usize,
    width: usize,
    /// The layout of a tensor of the caller, whose sequences are in their own order; absent for internal tensors.
    layout: Option<Layout>,
}

impl<'a, E: CpuElement> Rows<'a, E> {
    /// A tensor of the caller.
    pub(crate) fn outer(data: &'a [E], stride: usize, layout: Layout) -> Self {
        Rows { data, stride, first: 0, width: stride, layout: Some(layout) }
    }

    /// An internal tensor.
    pub(crate) fn inner(data: &'a [E], stride: usize) -> Self {
        Rows { data, stride, first: 0, width: stride, layout: None }
    }

    /// Some of the features.
    pub(crate) fn features(self, first: usize, width: usize) -> Self {
        Rows { first: self.first + first, width, ..self }
    }

    /// The features of one step of one sequence.
    #[inline]
    pub(crate) fn row(&self, sequences: &Sequences<'_>, t: usize, position: usize) -> &'a [E] {
        let shape = sequences.shape;
        let index = match self.layout {
            None => t * shape.batch + position,
            Some(Layout::SequenceMajor) => t * shape.batch + sequences.at(position),
            Some(Layout::BatchMajor) => sequences.at(position) * shape.seq_len + t,
        };
        &self.data[index * self.stride + self.first..][..self.width]
    }

    /// The features of an internal row number.
    #[inline]
    pub(crate) fn at(&self, sequences: &Sequences<'_>, row: usize) -> &'a [E] {
        match self.layout {
            None => &self.data[row * self.stride + self.first..][..self.width],
            Some(_) => self.row(sequences, row / sequences.shape.batch, row % sequences.shape.batch),
        }
    }
}
