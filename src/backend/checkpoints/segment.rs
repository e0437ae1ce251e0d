//! A segment as a backend runs it: [`SegmentBackend`], what a backend gives the passes; what a segment's passes read.

use std::ops::Range;

use super::{Segment, Window};
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, Extent, ForwardArgs, TempSpace, Tensors, WeightGrad};
use crate::error::Result;

/// A tensor that is read, as a backend takes it.
pub(crate) type Read<'a, S> = <<S as SegmentBackend>::Given as Tensors>::Read<'a>;
/// A tensor that is written.
pub(crate) type Write<'a, S> = <<S as SegmentBackend>::Given as Tensors>::Write<'a>;
/// Lengths of sequences.
pub(crate) type Lengths<'a, S> = <<S as SegmentBackend>::Given as Tensors>::Lengths<'a>;

/// A mask of resets.
pub(crate) type Mask<'a, S> = <<S as SegmentBackend>::Given as Tensors>::Mask<'a>;

/// Gradients of the states that go from segment to segment, in tensors `W` of accumulators: of h and of the states beside it; and what
/// resets sent to the initial ones.
pub(crate) struct Carried<W> {
    pub(crate) dh: W,
    pub(crate) dc: W,
    pub(crate) dh_reset: W,
    pub(crate) dc_reset: W,
}

/// What is special about a segment in backward.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    /// It is the last one processed: the gradients of its last states are the call's, and resets have sent nothing yet.
    pub(crate) begins: bool,
    /// Gradients of padded outputs belong to the last state.
    pub(crate) held: bool,
}

/// What a backend gives the passes over segments: its own passes, parts of tensors, and what is done to rows between them. Ranges are in
/// elements; every tensor has been checked to be as large as the plan of the whole says.
pub(crate) trait SegmentBackend {
    /// The way of giving tensors to its passes.
    type Given: Tensors;
    /// Its ordinary plan.
    type Plan;

    /// Space of an ordinary plan.
    fn temp_space(&self, plan: &Self::Plan) -> TempSpace;

    /// Part of a tensor.
    fn part<'s>(&self, tensor: &'s Read<'_, Self>, range: Range<usize>) -> Read<'s, Self>;
    /// Part of a tensor that is written.
    fn part_mut<'s>(&self, tensor: &'s mut Write<'_, Self>, range: Range<usize>) -> Write<'s, Self>;
    /// Part of a mask.
    fn part_of_mask<'s>(&self, mask: &'s Mask<'_, Self>, range: Range<usize>) -> Mask<'s, Self>;
    /// Lengths again, for as long as they are needed.
    fn reborrow<'s>(&self, lengths: &'s Lengths<'_, Self>) -> Lengths<'s, Self>;
    /// Part of a tensor that has been written.
    fn view<'s>(&self, tensor: &'s Write<'_, Self>, range: Range<usize>) -> Read<'s, Self>;
    /// The first parts of a tensor, one after the other, of so many elements.
    fn split<'s, const N: usize>(&self, tensor: &'s mut Write<'_, Self>, lens: [usize; N]) -> [Write<'s, Self>; N];

    /// `to = from`, or zero.
    fn set(&self, from: Option<Read<'_, Self>>, to: Write<'_, Self>) -> Result<()>;
    /// The same of accumulators.
    fn set_wide(&self, from: Option<Read<'_, Self>>, to: Write<'_, Self>) -> Result<()>;
    /// Accumulators of elements, or zero.
    fn widen(&self, from: Option<Read<'_, Self>>, to: Write<'_, Self>) -> Result<()>;
    /// `to = the window`, dense.
    fn gather(&self, from: Read<'_, Self>, window: &Window, to: Write<'_, Self>) -> Result<()>;
    /// `the window = from` or `+=`.
    fn scatter(&self, from: Read<'_, Self>, to: Write<'_, Self>, window: &Window, add: bool) -> Result<()>;
    /// Steps of every sequence within a segment, 0 where there are none.
    fn lengths<'s>(
        &self,
        lengths: &Lengths<'_, Self>,
        segment: Segment,
        to: Write<'s, Self>,
    ) -> Result<Lengths<'s, Self>>;
    /// `y = h` at steps past the lengths; `y` is `[steps, B, P]`, `h` `[B, P]`.
    fn hold(&self, lengths: &Lengths<'_, Self>, h: Read<'_, Self>, y: Write<'_, Self>) -> Result<()>;
    /// Puts the initial states, or zero, where step `t` of a segment is reset: h, elements, and the states beside it, accumulators.
    /// `scratch` is the workspace of a segment.
    fn restart(
        &self,
        resets: &Mask<'_, Self>,
        lengths: Option<&Lengths<'_, Self>>,
        t: usize,
        initial: [Option<Read<'_, Self>>; 2],
        states: [Write<'_, Self>; 2],
        scratch: Write<'_, Self>,
    ) -> Result<()>;
    /// Sends the gradients of these states to the initial ones there.
    fn restart_gradients(
        &self,
        resets: &Mask<'_, Self>,
        lengths: Option<&Lengths<'_, Self>>,
        t: usize,
        carried: Carried<Write<'_, Self>>,
    ) -> Result<()>;
    /// Dropout of the input of `layer`, `[T, B, features]`, in place.
    fn drop_out(&self, tensor: Write<'_, Self>, features: usize, layer: usize, seed: u64) -> Result<()>;
    /// `to = sums` or `+=`, of gradients of weights.
    fn add_gradient(&self, sums: Read<'_, Self>, to: Write<'_, Self>, grad: WeightGrad) -> Result<()>;

    /// `to = the states beside h` after every step that forward left in an ordinary plan's reserve, accumulators
    /// `[steps, B, (S - 1) * H]`; without lengths.
    fn copy_states(&self, plan: &Self::Plan, reserve: Read<'_, Self>, to: Write<'_, Self>) -> Result<()>;

    /// Training forward under an ordinary plan. `start`: h, elements, and the states beside it, accumulators, that the first step starts
    /// from, where those are not the initial ones, to which resets go. `end`: where the last states beside h go, accumulators.
    fn forward(
        &self,
        plan: &Self::Plan,
        args: ForwardArgs<'_, Self::Given>,
        start: Option<[Read<'_, Self>; 2]>,
        end: Option<Write<'_, Self>>,
        reserve: Write<'_, Self>,
    ) -> Result<()>;
    /// Backward-data under an ordinary plan: from the gradients of the segment's last states to those of the states that it starts from, in
    /// `carried`; and from there to `dh0` and `dc0`, where these are wanted.
    fn backward_data(
        &self,
        plan: &Self::Plan,
        args: BackwardDataArgs<'_, Self::Given>,
        start: Option<[Read<'_, Self>; 2]>,
        carried: Carried<Write<'_, Self>>,
        turn: Turn,
        reserve: Write<'_, Self>,
    ) -> Result<()>;
    /// Backward-weights under an ordinary plan.
    fn backward_weights(
        &self,
        plan: &Self::Plan,
        args: BackwardWeightsArgs<'_, Self::Given>,
        start: Option<[Read<'_, Self>; 2]>,
        reserve: Write<'_, Self>,
        grad: WeightGrad,
    ) -> Result<()>;
}

/// A tensor's window as the passes of a segment read it: in place, or a dense copy in `copy`.
pub(super) fn read_window<'s, S: SegmentBackend>(
    backend: &S,
    tensor: &'s Read<'_, S>,
    window: &Window,
    copy: &'s mut Write<'_, S>,
) -> Result<Read<'s, S>> {
    match window.range() {
        Some(range) => Ok(backend.part(tensor, range)),
        None => {
            backend.gather(all(backend, tensor), window, backend.part_mut(copy, 0..window.len()))?;
            Ok(backend.view(copy, 0..window.len()))
        }
    }
}

/// Runs `pass` on a tensor's window: in place, or on a dense copy in `copy`, which is then brought to it.
pub(super) fn write_window<S: SegmentBackend>(
    backend: &S,
    tensor: &mut Write<'_, S>,
    window: &Window,
    copy: &mut Write<'_, S>,
    add: bool,
    pass: impl FnOnce(&mut Write<'_, S>) -> Result<()>,
) -> Result<()> {
    if let (Some(range), false) = (window.range(), add) {
        return pass(&mut backend.part_mut(tensor, range));
    }
    let dense = 0..window.len();
    pass(&mut backend.part_mut(copy, dense.clone()))?;
    backend.scatter(backend.view(copy, dense), whole(backend, tensor), window, add)
}

/// All of a tensor.
pub(super) fn all<'s, S: SegmentBackend>(backend: &S, tensor: &'s Read<'_, S>) -> Read<'s, S> {
    backend.part(tensor, 0..tensor.elements())
}

/// All of a tensor that is written.
pub(super) fn whole<'s, S: SegmentBackend>(backend: &S, tensor: &'s mut Write<'_, S>) -> Write<'s, S> {
    let range = 0..tensor.elements();
    backend.part_mut(tensor, range)
}

/// What the passes of a segment read.
pub(super) struct Given<'i, S: SegmentBackend> {
    pub(super) weights: Read<'i, S>,
    pub(super) x: Read<'i, S>,
    /// The initial states.
    pub(super) h0: Option<Read<'i, S>>,
    pub(super) c0: Option<Read<'i, S>>,
    /// Those that it starts from, where they are others; accumulators beside h.
    pub(super) start: Option<[Read<'i, S>; 2]>,
    pub(super) lengths: Option<Lengths<'i, S>>,
    pub(super) resets: Option<Mask<'i, S>>,
}

impl<S: SegmentBackend> Given<'_, S> {
    fn states<'a>(&'a self, backend: &S) -> [Option<Read<'a, S>>; 2] {
        [&self.h0, &self.c0].map(|state| state.as_ref().map(|state| all(backend, state)))
    }

    /// What its first step starts from, where that is not the initial states.
    pub(super) fn start<'a>(&'a self, backend: &S) -> Option<[Read<'a, S>; 2]> {
        self.start.as_ref().map(|start| start.each_ref().map(|state| all(backend, state)))
    }

    fn resets<'a>(&'a self, backend: &S) -> Option<Mask<'a, S>> {
        self.resets.as_ref().map(|resets| backend.part_of_mask(resets, 0..resets.elements()))
    }

    pub(super) fn forward<'a>(
        &'a self,
        backend: &S,
        y: Write<'a, S>,
        [hn, cn]: [Option<Write<'a, S>>; 2],
        workspace: Write<'a, S>,
    ) -> ForwardArgs<'a, S::Given> {
        let [h0, c0] = self.states(backend);
        ForwardArgs {
            weights: all(backend, &self.weights),
            x: all(backend, &self.x),
            h0,
            c0,
            lengths: self.lengths.as_ref().map(|lengths| backend.reborrow(lengths)),
            resets: self.resets(backend),
            y,
            hn,
            cn,
            workspace,
            dropout_seed: 0, // a part has no dropout
        }
    }

    pub(super) fn backward_data<'a>(
        &'a self,
        backend: &S,
        y: Read<'a, S>,
        [dy, dhn, dcn]: [Option<Read<'a, S>>; 3],
        [dx, dh0, dc0]: [Option<Write<'a, S>>; 3],
        workspace: Write<'a, S>,
    ) -> BackwardDataArgs<'a, S::Given> {
        let [h0, c0] = self.states(backend);
        BackwardDataArgs {
            weights: all(backend, &self.weights),
            x: all(backend, &self.x),
            y,
            h0,
            c0,
            lengths: self.lengths.as_ref().map(|lengths| backend.reborrow(lengths)),
            resets: self.resets(backend),
            dy,
            dhn,
            dcn,
            dx,
            dh0,
            dc0,
            workspace,
        }
    }

    pub(super) fn backward_weights<'a>(
        &'a self,
        backend: &S,
        y: Read<'a, S>,
        dweights: Write<'a, S>,
        workspace: Write<'a, S>,
    ) -> BackwardWeightsArgs<'a, S::Given> {
        let [h0, c0] = self.states(backend);
        BackwardWeightsArgs {
            x: all(backend, &self.x),
            y,
            h0,
            c0,
            lengths: self.lengths.as_ref().map(|lengths| backend.reborrow(lengths)),
            resets: self.resets(backend),
            dweights,
            workspace,
        }
    }
}

/// Where every step of a segment starts from.
pub(super) struct Before {
    /// The segment's outputs.
    pub(super) window: Window,
    /// Elements that the states beside h of all sequences take, accumulators.
    pub(super) c: usize,
    pub(super) reverse: bool,
}

impl Before {
    /// Brings h and the states beside it before every step to `[h, c]`: those that the segment starts from, then those after every step
    /// but the last.
    pub(super) fn read<S: SegmentBackend>(
        &self,
        backend: &S,
        given: &Given<'_, S>,
        outputs: &Read<'_, S>,
        states: Option<Read<'_, S>>,
        [h, c]: [&mut Write<'_, S>; 2],
    ) -> Result<()> {
        let steps = self.window.steps;
        // Of the steps in time: that which is processed first, those before another, and those after another.
        let (first, done, later) =
            if self.reverse { (steps - 1, 1..steps, 0..steps - 1) } else { (0, 0..steps - 1, 1..steps) };
        let step = self.window.len() / steps;
        let [start_h, start_c] = match given.start(backend) {
            Some(start) => start.map(Some),
            None => [None, None],
        };
        let start_h = start_h.or_else(|| given.h0.as_ref().map(|h0| all(backend, h0)));
        backend.set(start_h, backend.part_mut(h, first * step..(first + 1) * step))?;
        if !done.is_empty() {
            let start = self.window.start + done.start * self.window.time_stride;
            let window = Window { start, steps: done.len(), ..self.window };
            backend.gather(
                all(backend, outputs),
                &window,
                backend.part_mut(h, later.start * step..later.end * step),
            )?;
        }
        let Some(states) = states else { return Ok(()) };
        let step = self.c;
        let to = backend.part_mut(c, first * step..(first + 1) * step);
        match start_c {
            Some(start_c) => backend.set_wide(Some(start_c), to)?,
            None => backend.widen(given.c0.as_ref().map(|c0| all(backend, c0)), to)?,
        }
        if !done.is_empty() {
            let done = backend.part(&states, done.start * step..done.end * step);
            backend.set_wide(Some(done), backend.part_mut(c, later.start * step..later.end * step))?;
        }
        Ok(())
    }
}
