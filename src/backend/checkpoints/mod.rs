//! Checkpoints over time: an operator computed segment by segment, so that training keeps the states at a segment's start and not what
//! every step's derivative reads ([`Memory`]; [Chen et al. 2016](https://arxiv.org/abs/1604.06174)).
//!
//! Each layer and direction is an operator of its own, a part, and a segment is that part for `every` steps: an ordinary plan of the
//! backend. Forward runs the segments in the order of processing and keeps the states between them. Backward takes them in the other
//! order: it runs a segment's forward once more from the states kept, then its backward passes, and hands the gradients of the states
//! on. So everything that a backend can do in one pass it can do here, with the same arithmetic: `y` has the same bits; gradients of
//! weights are summed segment by segment, from the last processed to the first.
//!
//! In the light mode the states of all steps are known to backward, h from y and the others kept. What a segment's reserve holds is then
//! rebuilt by a forward pass of one step for as many sequences as the segment has steps and sequences: its rows are the same ones in the
//! same order, and its products are over all of them.
//!
//! What is handed from segment to segment has the type that a pass computes it in: h that of an element, which it is rounded to in every
//! step, the states beside it and all gradients of states that of accumulators. So outputs, final states, and the gradients of inputs and initial states have the
//! bits of an ordinary pass by the same kernels.
//!
//! Resets go back to the caller's initial states, wherever the segment starts from: its passes are given both. A reset at a segment's
//! first step is done between segments, and so is the way back of its gradient.
//!
//! Two more things differ from a call for a whole sequence, and backends allow them under the plan of a segment: a length may be 0, of a
//! sequence that has ended or not begun; and padded outputs are zero there, since those that are held come from the state.
//!
//! | what | elements | where |
//! |---|---|---|
//! | h between segments, of every part | `[segments - 1, B, P]` | reserve |
//! | the states beside h between segments, accumulators | `[segments - 1, B, (S - 1) * H]` | reserve |
//! | outputs of all layers but the last, dropout applied | `[T, B, D * P]` each | reserve |
//! | gradients of the weights, which backward-data sums, accumulators | as the weights | reserve |
//! | in the light mode the states beside h of every step, of every part, accumulators | `[T, B, (S - 1) * H]` | reserve |
//! | workspace and reserve of a segment | as its plan says | workspace |
//! | a segment's x, y and their gradients where the caller's tensors have other strides; its lengths | | workspace |
//! | gradients of the states, and what resets sent to the initial ones, accumulators | `[B, P]`, `[B, (S - 1) * H]`, twice | workspace |
//! | gradients of the outputs of two layers in turn | `[T, B, D * P]` each | workspace |
//!
//! `passes` is the passes, over what a backend must give them, `segment::SegmentBackend`; `host` is that of backends on slices, and
//! `cuda::recurrent::segments` the GPU's.
#![expect(
    clippy::indexing_slicing,
    reason = "tensors are checked against the shape as in every call; segments are parts of it"
)]

mod host;
mod passes;
mod segment;

pub(crate) use host::{HostPasses, HostSegments, Start};
pub(crate) use passes::{backward_data, backward_weights, forward};
pub(crate) use segment::Carried;
#[cfg(feature = "cuda")]
pub(crate) use segment::{Lengths, Mask, Read, SegmentBackend, Turn, Write};

use std::ops::Range;

use crate::backend::{ForwardMode, TempSpace};
use crate::error::{Error, Result};
use crate::rnn::{Direction, InputKind, Layout, Memory, PaddedOutput, RnnDescriptor, RnnShape, WeightLayout};

/// Parts of workspace and reserve begin at multiples of so many elements, of 16 bytes at least.
const ALIGNMENT: usize = 64;

/// How an operator is computed segment by segment, by plans `P` of a backend.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints<P> {
    descriptor: RnnDescriptor,
    shape: RnnShape,
    /// Steps of every segment but the last.
    every: usize,
    /// Of the first layer's directions, then of a layer above; each for `every` steps and then for the last segment's, where they differ.
    plans: Vec<P>,
    /// In the light mode, beside each plan one for as many sequences as it has steps and sequences, of one step each: it rebuilds what
    /// the segment's reserve holds, at once. Absent where the reserve would be another.
    at_once: Vec<Option<P>>,
    /// Whether the states beside h of every step are kept.
    light: bool,
    /// Where the weights of each layer and direction stand.
    weights: Vec<Range<usize>>,
    /// Bytes of an element.
    element: usize,
    /// Elements that an accumulator takes.
    accumulator: usize,
}

/// What a backend says of itself, and its ordinary plans.
pub(crate) struct Planner<'a, P> {
    /// Bytes of an element.
    pub(crate) element: usize,
    /// Bytes of an accumulator: what sums, and the states beside h, are computed in.
    pub(crate) accumulator: usize,
    /// Space of the ordinary plan.
    pub(crate) full: TempSpace,
    /// The plan of a segment.
    pub(crate) plan: &'a dyn Fn(&RnnDescriptor, RnnShape) -> Result<P>,
    /// Its space.
    pub(crate) space: &'a dyn Fn(&P) -> TempSpace,
    /// Whether the reserve of a plan for some steps and sequences is that of a plan for as many sequences of one step.
    pub(crate) same_reserve: &'a dyn Fn(&P, &P) -> bool,
}

/// Steps that are computed at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Its first time.
    pub(crate) first: usize,
    pub(crate) steps: usize,
}

/// Some steps and features of a tensor of all, as rows `[steps, B, width]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The first element.
    pub(crate) start: usize,
    pub(crate) time_stride: usize,
    pub(crate) batch_stride: usize,
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) width: usize,
}

impl Window {
    /// Its elements.
    pub(crate) fn len(&self) -> usize {
        self.steps * self.batch * self.width
    }

    /// The elements of the whole tensor that it is, where they stand one after the other in its own order.
    pub(crate) fn range(&self) -> Option<Range<usize>> {
        let dense = (self.batch == 1 || self.batch_stride == self.width)
            && (self.steps == 1 || self.time_stride == self.batch * self.width);
        dense.then_some(self.start..self.start + self.len())
    }

    /// Where the row of a step and sequence begins.
    pub(crate) fn row(&self, t: usize, b: usize) -> usize {
        self.start + t * self.time_stride + b * self.batch_stride
    }
}

/// Elements of every part of workspace and reserve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// Of the largest segment.
    passes: TempSpace,
    x: usize,
    y: usize,
    lengths: usize,
    /// A state, and the states beside it; the gradient of a state, that of the states beside it being as these.
    h: usize,
    c: usize,
    dh: usize,
    /// A layer's output.
    between: usize,
    layers_below: usize,
    /// Checkpoints of all parts.
    checkpoints: usize,
    weights: usize,
    /// In the light mode: states beside h of all steps, and how many parts have them; h and these before every step of a segment.
    states: usize,
    parts: usize,
    all_h: usize,
    all_c: usize,
}

impl Space {
    /// Parts of the workspace: a segment's workspace and reserve; its x, y, dx, dy; lengths; the gradient of h, and what resets sent to
    /// h0; the same of the states beside h; the states before every step; gradients of two layers' outputs.
    fn workspace(&self) -> [usize; 14] {
        let dbetween = self.between.saturating_mul(self.layers_below.min(2));
        let TempSpace { workspace, reserve } = self.passes;
        let (x, y) = (self.x, self.y);
        [
            workspace,
            reserve,
            x,
            y,
            x,
            y,
            self.lengths,
            self.dh,
            self.dh,
            self.c,
            self.c,
            self.all_h,
            self.all_c,
            dbetween,
        ]
    }

    /// Parts of the reserve: checkpoints of h; of the states beside it; outputs between layers; gradients of the weights; the states
    /// beside h of every step.
    fn reserve(&self) -> [usize; 5] {
        let count = self.checkpoints;
        let between = self.between.saturating_mul(self.layers_below);
        let states = self.states.saturating_mul(self.parts);
        [self.h.saturating_mul(count), self.c.saturating_mul(count), between, self.weights, states]
    }

    /// The last part of the workspace: the two gradients between layers.
    fn turns(&self) -> [usize; 2] {
        [1, 2].map(|most| if self.layers_below >= most { self.between } else { 0 })
    }

    /// What the caller must give.
    pub(crate) fn total(&self) -> TempSpace {
        let sum = |parts: &[usize]| parts.iter().fold(0usize, |sum, part| sum.saturating_add(*part));
        TempSpace { workspace: sum(&self.workspace()), reserve: sum(&self.reserve()) }
    }
}

/// Where a layer and direction have theirs in tensors of all.
#[derive(Clone, Debug)]
struct Part {
    weights: Range<usize>,
    /// In `h0`, and in `c0`, where it is empty for cells without other states.
    h: Range<usize>,
    c: Range<usize>,
    /// Number of its first checkpoint.
    first: usize,
}

impl Part {
    /// The checkpoint before segment `k`, which the first has not, of checkpoints `stride` elements apart, each of `len` elements.
    fn checkpoint(&self, k: usize, stride: usize, len: usize) -> Range<usize> {
        let start = (self.first + k).saturating_sub(1) * stride;
        start..start + len
    }

    /// Elements of the checkpoints up to the one before segment `k`, and of the one after it, where there is one.
    fn until(&self, k: usize, stride: usize, after: usize) -> [usize; 2] {
        [(self.first + k) * stride, after * stride]
    }
}

/// Up to the next beginning of a part.
fn padded(len: usize) -> usize {
    len.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX)
}

impl<P> Checkpoints<P> {
    /// What the descriptor asks for: nothing where the ordinary plan does.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where no distance of checkpoints fits the memory; [`Error::SizeOverflow`] where a number of bytes
    /// overflows; what planning a segment returns.
    pub(crate) fn of(
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        mode: ForwardMode,
        planner: &Planner<'_, P>,
    ) -> Result<Option<Self>> {
        if mode == ForwardMode::Inference {
            return Ok(None);
        }
        let bytes = |space: TempSpace| space.workspace.saturating_add(space.reserve).saturating_mul(planner.element);
        match descriptor.memory {
            Memory::Checkpoints { every } | Memory::Light { every } if every < shape.seq_len => {
                let light = matches!(descriptor.memory, Memory::Light { .. });
                let checkpoints = Self::new(descriptor, shape, every, light, planner)?;
                if bytes(checkpoints.space(planner.space).total()) > isize::MAX as usize {
                    let expression = format!("checkpoints every {every} steps of {descriptor:?}");
                    return Err(Error::SizeOverflow { tensor: "reserve".to_owned(), expression });
                }
                Ok(Some(checkpoints))
            }
            Memory::Within { bytes: most } if bytes(planner.full) > most => {
                let (mut every, mut least) = (shape.seq_len, bytes(planner.full));
                while every > 1 {
                    every = every.div_ceil(2);
                    let checkpoints = Self::new(descriptor, shape, every, false, planner)?;
                    let needed = bytes(checkpoints.space(planner.space).total());
                    if needed <= most {
                        return Ok(Some(checkpoints));
                    }
                    least = least.min(needed);
                }
                let expected = format!("at least {least} bytes for a sequence of {} steps", shape.seq_len);
                Err(Error::option("memory", expected, format!("{most} bytes")))
            }
            _ => Ok(None),
        }
    }

    fn new(
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        every: usize,
        light: bool,
        planner: &Planner<'_, P>,
    ) -> Result<Self> {
        let layout = WeightLayout::new(descriptor)?;
        let mut weights = Vec::new();
        for layer in 0..descriptor.num_layers {
            for direction in 0..descriptor.num_directions() {
                let mut own = layout.entries().iter().filter(|e| (e.layer, e.direction) == (layer, direction));
                let first = own.next().map_or(0..0, |entry| entry.range.clone());
                weights.push(first.start..own.next_back().map_or(first.end, |entry| entry.range.end));
            }
        }
        let (mut plans, mut at_once) = (Vec::new(), Vec::new());
        for layer in 0..descriptor.num_layers.min(2) {
            for direction in 0..descriptor.num_directions() {
                let part = part(descriptor, layer, direction);
                for steps in [every, shape.seq_len % every].into_iter().filter(|steps| *steps > 0) {
                    let plan = (planner.plan)(&part, RnnShape { seq_len: steps, batch: shape.batch })?;
                    let one_step = RnnShape { seq_len: 1, batch: steps * shape.batch };
                    let rebuilding = if light { Some((planner.plan)(&part, one_step)?) } else { None };
                    at_once.push(rebuilding.filter(|rebuilding| (planner.same_reserve)(&plan, rebuilding)));
                    plans.push(plan);
                }
            }
        }
        let (element, accumulator) = (planner.element, planner.accumulator.div_ceil(planner.element));
        let descriptor = descriptor.clone();
        Ok(Checkpoints { descriptor, shape, every, plans, at_once, light, weights, element, accumulator })
    }

    /// Elements of everything, where `space` is that of a plan.
    pub(crate) fn space(&self, space: impl Fn(&P) -> TempSpace) -> Space {
        let (descriptor, batch) = (&self.descriptor, self.shape.batch);
        let mut passes = TempSpace { workspace: 0, reserve: 0 };
        for plan in self.plans() {
            let TempSpace { workspace, reserve } = space(plan);
            passes.workspace = passes.workspace.max(padded(workspace));
            passes.reserve = passes.reserve.max(padded(reserve));
        }
        let rows = self.every * batch;
        let above = if descriptor.num_layers > 1 { self.input_width(1) } else { 0 };
        let (x, y) = (self.input_width(0).max(above), descriptor.output_size());
        let parts = descriptor.num_layers * descriptor.num_directions();
        let others = self.other_states();
        let if_light = |len: usize| if self.light { padded(len) } else { 0 };
        Space {
            passes,
            x: padded(rows.saturating_mul(x)),
            y: padded(rows.saturating_mul(y)),
            lengths: padded((batch * size_of::<u32>()).div_ceil(self.element)),
            h: padded(batch * y),
            c: padded(self.wide(batch * others)),
            dh: padded(self.wide(batch * y)),
            between: padded(self.between_len()),
            layers_below: descriptor.num_layers - 1,
            checkpoints: parts.saturating_mul(self.segments() - 1),
            weights: padded(self.wide(self.weights.last().map_or(0, |own| own.end))),
            states: if_light(self.wide(self.shape.seq_len.saturating_mul(batch).saturating_mul(others))),
            parts,
            all_h: if_light(rows.saturating_mul(y)),
            all_c: if_light(self.wide(rows.saturating_mul(others))),
        }
    }

    /// All plans that its passes run: those of segments, the first layer's first, then those that rebuild a reserve.
    pub(crate) fn plans(&self) -> impl Iterator<Item = &P> {
        self.plans.iter().chain(self.at_once.iter().flatten())
    }

    /// Where the rows of a segment stand in a mask `[T, B]`.
    fn mask(&self, segment: Segment) -> Range<usize> {
        segment.first * self.shape.batch..(segment.first + segment.steps) * self.shape.batch
    }

    /// The step of a segment that is processed first.
    fn first_step(&self, direction: usize, segment: Segment) -> usize {
        if self.descriptor.direction.is_reverse(direction) { segment.steps - 1 } else { 0 }
    }

    /// Elements that so many accumulators take.
    fn wide(&self, accumulators: usize) -> usize {
        accumulators.saturating_mul(self.accumulator)
    }

    fn segments(&self) -> usize {
        self.shape.seq_len.div_ceil(self.every)
    }

    fn directions(&self) -> usize {
        self.descriptor.num_directions()
    }

    /// Elements of the states beside h of one sequence.
    fn other_states(&self) -> usize {
        self.descriptor.cell.other_states() * self.descriptor.hidden_size
    }

    /// Width of a layer's output.
    fn features(&self) -> usize {
        self.directions() * self.descriptor.output_size()
    }

    /// Elements of a layer's output.
    fn between_len(&self) -> usize {
        self.shape.seq_len.saturating_mul(self.shape.batch).saturating_mul(self.features())
    }

    /// The segment that is processed as number `k`.
    fn segment(&self, direction: usize, k: usize) -> Segment {
        let index = if self.descriptor.direction.is_reverse(direction) { self.segments() - 1 - k } else { k };
        let first = index * self.every;
        Segment { first, steps: self.every.min(self.shape.seq_len - first) }
    }

    /// The plan of a segment, and the one that rebuilds its reserve at once.
    fn plan(&self, layer: usize, direction: usize, segment: Segment) -> (&P, Option<&P>) {
        let sizes = 1 + usize::from(!self.shape.seq_len.is_multiple_of(self.every));
        let part = layer.min(1) * self.directions() + direction;
        let index = part * sizes + usize::from(segment.steps < self.every);
        (&self.plans[index], self.at_once[index].as_ref())
    }

    /// Where the states beside h of steps of a part stand among those of all, `stride` elements a part.
    fn states(&self, layer: usize, direction: usize, stride: usize, steps: Range<usize>) -> Range<usize> {
        let start = (layer * self.directions() + direction) * stride;
        let step = self.wide(self.shape.batch * self.other_states());
        start + steps.start * step..start + steps.end * step
    }

    fn part(&self, layer: usize, direction: usize) -> Part {
        let index = layer * self.directions() + direction;
        let rows = |width: usize| {
            let len = self.shape.batch * width;
            index * len..(index + 1) * len
        };
        Part {
            weights: self.weights[index].clone(),
            h: rows(self.descriptor.output_size()),
            c: rows(self.other_states()),
            first: index * (self.segments() - 1),
        }
    }

    /// Where gradients of the weights of a layer and direction are summed, in elements.
    fn gradient(&self, layer: usize, direction: usize) -> Range<usize> {
        let own = &self.weights[layer * self.directions() + direction];
        self.wide(own.start)..self.wide(own.end)
    }

    /// Where all of them are.
    fn all_gradients(&self) -> Range<usize> {
        0..self.wide(self.weights.last().map_or(0, |own| own.end))
    }

    /// Features that a direction of a layer reads.
    fn input_width(&self, layer: usize) -> usize {
        match self.descriptor.input {
            InputKind::Gates => self.descriptor.cell.gates() * self.descriptor.hidden_size,
            InputKind::Features => self.descriptor.layer_input_size(layer),
        }
    }

    /// A direction's input of a layer in a segment, and its gradient.
    fn input(&self, layer: usize, direction: usize, segment: Segment) -> Window {
        let width = self.input_width(layer);
        let of_gates = self.descriptor.input == InputKind::Gates;
        let first = if of_gates { direction * width } else { 0 };
        let features = if layer == 0 { self.descriptor.input_size } else { self.features() };
        self.window(layer == 0, features, first, width, segment)
    }

    /// A direction's output of a layer in a segment, and its gradient.
    fn output(&self, layer: usize, direction: usize, segment: Segment) -> Window {
        let width = self.descriptor.output_size();
        let top = layer + 1 == self.descriptor.num_layers;
        self.window(top, self.features(), direction * width, width, segment)
    }

    /// Features from `first` on of a tensor of the caller's, or of one between layers.
    fn window(&self, outer: bool, features: usize, first: usize, width: usize, segment: Segment) -> Window {
        let RnnShape { seq_len, batch } = self.shape;
        let (time_stride, batch_stride) = match self.descriptor.layout {
            Layout::BatchMajor if outer => (features, seq_len * features),
            _ => (batch * features, features),
        };
        let start = segment.first * time_stride + first;
        Window { start, time_stride, batch_stride, steps: segment.steps, batch, width }
    }

    /// Whether padded outputs repeat the last one.
    fn holds(&self, layer: usize, direction: usize) -> bool {
        let descriptor = &self.descriptor;
        layer + 1 == descriptor.num_layers
            && descriptor.padded_output == PaddedOutput::Hold
            && !descriptor.direction.is_reverse(direction)
    }
}

/// One direction of a layer as an operator of its own.
fn part(descriptor: &RnnDescriptor, layer: usize, direction: usize) -> RnnDescriptor {
    let reverse = descriptor.direction.is_reverse(direction);
    let part = RnnDescriptor {
        input_size: descriptor.layer_input_size(layer),
        num_layers: 1,
        direction: if reverse { Direction::Reverse } else { Direction::Forward },
        layout: Layout::SequenceMajor,
        activations: descriptor.activations_of(direction),
        reverse_activations: None,
        dropout: 0.0,
        padded_output: PaddedOutput::Zero,
        memory: Memory::Full,
        ..descriptor.clone()
    };
    if descriptor.input == InputKind::Gates { part.of_gates() } else { part }
}
