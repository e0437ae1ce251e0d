//! A tensor of steps that threads write, some positions each: [`Steps`].
//!
//! The rows of one position lie far apart, between those of the others, so what a thread writes is no slice. This is a view of three
//! axes that can be split along the positions; its parts never share an element.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use crate::backend::cpu::CpuElement;
use crate::rnn::{Layout, RnnShape};

/// A tensor `[T, positions, width]` to write: element `(t, position, k)` stands at `t * step + position * row + k` from the first.
///
/// Invariant: every such element lies inside of the borrowed slice, and no other view has it.
pub(crate) struct Steps<'a, E> {
    first: *mut E,
    steps: usize,
    positions: usize,
    width: usize,
    step: usize,
    row: usize,
    tensor: PhantomData<&'a mut [E]>,
}

// SAFETY: a view is the only way to its elements, as `&mut [E]` is, which may be sent where `E` may.
unsafe impl<E: Send> Send for Steps<'_, E> {}

impl<'a, E: CpuElement> Steps<'a, E> {
    /// An internal tensor.
    pub(crate) fn inner(data: &'a mut [E], shape: RnnShape, width: usize) -> Self {
        Steps::outer(data, shape, width, Layout::SequenceMajor)
    }

    /// An internal tensor that may be absent, and then is empty.
    pub(crate) fn if_any(data: &'a mut [E], shape: RnnShape, width: usize) -> Option<Self> {
        (!data.is_empty()).then(|| Steps::inner(data, shape, width))
    }

    /// A tensor of the caller, whose order of sequences must be that of the positions.
    pub(crate) fn outer(data: &'a mut [E], shape: RnnShape, width: usize, layout: Layout) -> Self {
        let (steps, positions) = (shape.seq_len, shape.batch);
        // As many elements as the view has, or a panic: the invariant rests on it.
        let data = &mut data[..steps * positions * width];
        let (step, row) = match layout {
            Layout::SequenceMajor => (positions * width, width),
            Layout::BatchMajor => (width, steps * width),
        };
        Steps { first: data.as_mut_ptr(), steps, positions, width, step, row, tensor: PhantomData }
    }

    /// The same, borrowed for a while.
    pub(crate) fn reborrow(&mut self) -> Steps<'_, E> {
        Steps { ..*self }
    }

    /// The first features, and the others.
    pub(crate) fn split_features(mut self, first: usize) -> (Self, Self) {
        (self.take_features(first), self)
    }

    /// The first features, which it then has no more.
    pub(crate) fn take_features(&mut self, first: usize) -> Self {
        assert!(first <= self.width, "features within the tensor's");
        let taken = Steps { width: first, ..*self };
        self.first = self.first.wrapping_add(first);
        self.width -= first;
        taken
    }

    /// The first positions, and the others.
    pub(crate) fn split(self, positions: usize) -> (Self, Self) {
        assert!(positions <= self.positions, "positions within the tensor's");
        let others = Steps {
            first: self.first.wrapping_add(positions * self.row),
            positions: self.positions - positions,
            ..self
        };
        (Steps { positions, ..self }, others)
    }

    /// The first `rows` positions of step `t` of an internal tensor, one after the other.
    pub(crate) fn block(&mut self, t: usize, rows: usize) -> &mut [E] {
        assert!(t < self.steps && rows <= self.positions && self.row == self.width, "rows of an internal tensor");
        // SAFETY: the rows are one after the other (`row == width`), inside of the tensor and of this view alone (the invariant); the
        // borrow of `self` keeps others from being made meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(t * self.step), rows * self.width) }
    }

    /// The features of one step at one position.
    pub(crate) fn row(&mut self, t: usize, position: usize) -> &mut [E] {
        assert!(t < self.steps && position < self.positions, "a row of the tensor");
        // SAFETY: the row is inside of the tensor and of this view alone (the invariant); the borrow of `self` keeps others from being
        // made meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(t * self.step + position * self.row), self.width) }
    }
}

/// The same of a single position, some units of each of the blocks of features: element `(t, block, unit)` stands at `t * step + block * units_of_all + unit`.
///
/// Invariant: as above.
pub(crate) struct Units<'a, E> {
    first: *mut E,
    steps: usize,
    blocks: usize,
    units_of_all: usize,
    units: usize,
    step: usize,
    tensor: PhantomData<&'a mut [E]>,
}

// SAFETY: as above.
unsafe impl<E: Send> Send for Units<'_, E> {}

impl<'a, E: CpuElement> Steps<'a, E> {
    /// A view of one position whose features are blocks of `units` elements.
    pub(crate) fn units(self, units: usize) -> Units<'a, E> {
        assert!(self.positions == 1 && self.width.is_multiple_of(units), "blocks of units of one position");
        let Steps { first, steps, width, step, tensor, .. } = self;
        Units { first, steps, blocks: width / units, units_of_all: units, units, step, tensor }
    }
}

impl<E: CpuElement> Units<'_, E> {
    /// The first units of every block, and the others.
    pub(crate) fn split(self, units: usize) -> (Self, Self) {
        assert!(units <= self.units, "units of the view");
        let others = Units { first: self.first.wrapping_add(units), units: self.units - units, ..self };
        (Units { units, ..self }, others)
    }

    /// The units of a block at a step.
    pub(crate) fn block(&mut self, t: usize, block: usize) -> &mut [E] {
        assert!(t < self.steps && block < self.blocks, "a block of the view");
        // SAFETY: the units are inside of the tensor and of this view alone (the invariant); the borrow of `self` keeps others from being made meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(t * self.step + block * self.units_of_all), self.units) }
    }
}
