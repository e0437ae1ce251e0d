//! The passes over segments, the same for all backends.

use std::ops::Range;

use super::{Checkpoints, Segment, Window, check_resets};
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, Extent, ForwardArgs, TempSpace, Tensors, WeightGrad};
use crate::error::Result;
use crate::rnn::InputKind;

/// A tensor that is read, as a backend takes it.
pub(crate) type Read<'a, S> = <<S as SegmentBackend>::Given as Tensors>::Read<'a>;
/// A tensor that is written.
pub(crate) type Write<'a, S> = <<S as SegmentBackend>::Given as Tensors>::Write<'a>;
/// Lengths of sequences.
pub(crate) type Lengths<'a, S> = <<S as SegmentBackend>::Given as Tensors>::Lengths<'a>;

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
    /// Lengths again, for as long as they are needed.
    fn reborrow<'s>(&self, lengths: &'s Lengths<'_, Self>) -> Lengths<'s, Self>;
    /// Part of a tensor that has been written.
    fn view<'s>(&self, tensor: &'s Write<'_, Self>, range: Range<usize>) -> Read<'s, Self>;
    /// The first parts of a tensor, one after the other, of so many elements.
    fn split<'s, const N: usize>(&self, tensor: &'s mut Write<'_, Self>, lens: [usize; N]) -> [Write<'s, Self>; N];

    /// `to = from`, or zero.
    fn set(&self, from: Option<Read<'_, Self>>, to: Write<'_, Self>) -> Result<()>;
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
    /// `dh += dy` of steps past the lengths.
    fn add_held(&self, lengths: &Lengths<'_, Self>, dy: Read<'_, Self>, dh: Write<'_, Self>) -> Result<()>;
    /// Dropout of the input of `layer`, `[T, B, features]`, in place.
    fn drop_out(&self, tensor: Write<'_, Self>, features: usize, layer: usize, seed: u64) -> Result<()>;
    /// `to = sums` or `+=`, of gradients of weights.
    fn add_gradient(&self, sums: Read<'_, Self>, to: Write<'_, Self>, grad: WeightGrad) -> Result<()>;

    /// Training forward under an ordinary plan.
    fn forward(&self, plan: &Self::Plan, args: ForwardArgs<'_, Self::Given>, reserve: Write<'_, Self>) -> Result<()>;
    /// Backward-data under an ordinary plan.
    fn backward_data(
        &self,
        plan: &Self::Plan,
        args: BackwardDataArgs<'_, Self::Given>,
        reserve: Write<'_, Self>,
    ) -> Result<()>;
    /// Backward-weights under an ordinary plan.
    fn backward_weights(
        &self,
        plan: &Self::Plan,
        args: BackwardWeightsArgs<'_, Self::Given>,
        reserve: Write<'_, Self>,
        grad: WeightGrad,
    ) -> Result<()>;
}

/// A tensor's window as the passes of a segment read it: in place, or a dense copy in `copy`.
fn read_window<'s, S: SegmentBackend>(
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
fn write_window<S: SegmentBackend>(
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
fn all<'s, S: SegmentBackend>(backend: &S, tensor: &'s Read<'_, S>) -> Read<'s, S> {
    backend.part(tensor, 0..tensor.elements())
}

/// All of a tensor that is written.
fn whole<'s, S: SegmentBackend>(backend: &S, tensor: &'s mut Write<'_, S>) -> Write<'s, S> {
    let range = 0..tensor.elements();
    backend.part_mut(tensor, range)
}

/// What the passes of a segment read.
struct Given<'i, S: SegmentBackend> {
    weights: Read<'i, S>,
    x: Read<'i, S>,
    /// The states that it starts from.
    h0: Option<Read<'i, S>>,
    c0: Option<Read<'i, S>>,
    lengths: Option<Lengths<'i, S>>,
}

impl<S: SegmentBackend> Given<'_, S> {
    fn states<'a>(&'a self, backend: &S) -> [Option<Read<'a, S>>; 2] {
        [&self.h0, &self.c0].map(|state| state.as_ref().map(|state| all(backend, state)))
    }

    fn forward<'a>(
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
            resets: None,
            y,
            hn,
            cn,
            workspace,
            dropout_seed: 0, // a part has no dropout
        }
    }

    fn backward_data<'a>(
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
            resets: None,
            dy,
            dhn,
            dcn,
            dx,
            dh0,
            dc0,
            workspace,
        }
    }

    fn backward_weights<'a>(
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
            resets: None,
            dweights,
            workspace,
        }
    }
}

/// Training forward: fills `reserve`.
///
/// # Errors
///
/// [`Error::Unsupported`](crate::Error::Unsupported) for resets; what the backend's passes return.
pub(crate) fn forward<S: SegmentBackend>(
    backend: &S,
    plan: &Checkpoints<S::Plan>,
    args: ForwardArgs<'_, S::Given>,
    mut reserve: Write<'_, S>,
) -> Result<()> {
    check_resets(args.resets.is_some())?;
    let ForwardArgs { weights, x, h0, c0, lengths, mut y, mut hn, mut cn, mut workspace, dropout_seed, .. } = args;
    let space = plan.space(|plan| backend.temp_space(plan));
    let [mut scratch, mut kept, mut x_copy, mut y_copy, _, _, mut steps, mut last_h, ..] =
        backend.split(&mut workspace, space.workspace());
    let [mut saved_h, mut saved_c, mut between, _] = backend.split(&mut reserve, space.reserve());
    let (layers, segments, len) = (plan.descriptor.num_layers, plan.segments(), plan.between_len());
    for layer in 0..layers {
        let top = layer + 1 == layers;
        let above = if top { 0 } else { space.between };
        let [below, mut above] = backend.split(&mut between, [layer * space.between, above]);
        let input = match layer {
            0 => all(backend, &x),
            _ => backend.view(&below, (layer - 1) * space.between..(layer - 1) * space.between + len),
        };
        for direction in 0..plan.directions() {
            let part = plan.part(layer, direction);
            let has_c = !part.c.is_empty();
            for k in 0..segments {
                let segment = plan.segment(direction, k);
                // From the checkpoint before to the one after; the first and the last segment lack one.
                let inner = usize::from(k + 1 < segments);
                let [done_h, mut next_h] = backend.split(&mut saved_h, part.until(k, space.h, inner));
                let [done_c, mut next_c] = backend.split(&mut saved_c, part.until(k, space.c, inner));
                let (h0, c0) = match k {
                    0 => (
                        h0.as_ref().map(|h0| backend.part(h0, part.h.clone())),
                        c0.as_ref().map(|c0| backend.part(c0, part.c.clone())),
                    ),
                    _ => (
                        Some(backend.view(&done_h, part.checkpoint(k, space.h, &part.h))),
                        has_c.then(|| backend.view(&done_c, part.checkpoint(k, space.c, &part.c))),
                    ),
                };
                let mut hn = match &mut hn {
                    _ if inner > 0 => backend.part_mut(&mut next_h, 0..part.h.len()),
                    Some(hn) => backend.part_mut(hn, part.h.clone()),
                    None => backend.part_mut(&mut last_h, 0..part.h.len()),
                };
                let mut cn = match &mut cn {
                    _ if !has_c => None,
                    _ if inner > 0 => Some(backend.part_mut(&mut next_c, 0..part.c.len())),
                    cn => cn.as_mut().map(|cn| backend.part_mut(cn, part.c.clone())),
                };
                let given = Given::<S> {
                    weights: backend.part(&weights, part.weights.clone()),
                    x: read_window(backend, &input, &plan.input(layer, direction, segment), &mut x_copy)?,
                    h0,
                    c0,
                    lengths: match &lengths {
                        Some(lengths) => Some(backend.lengths(lengths, segment, whole(backend, &mut steps))?),
                        None => None,
                    },
                };
                let window = plan.output(layer, direction, segment);
                let output = if top { &mut whole(backend, &mut y) } else { &mut whole(backend, &mut above) };
                write_window(backend, output, &window, &mut y_copy, false, |y| {
                    let states = [Some(whole(backend, &mut hn)), cn.as_mut().map(|cn| whole(backend, cn))];
                    let args = given.forward(backend, whole(backend, y), states, whole(backend, &mut scratch));
                    backend.forward(plan.plan(layer, direction, segment), args, whole(backend, &mut kept))?;
                    match &given.lengths {
                        Some(lengths) if plan.holds(layer, direction) => {
                            backend.hold(lengths, backend.view(&hn, 0..part.h.len()), whole(backend, y))
                        }
                        _ => Ok(()),
                    }
                })?;
            }
        }
        if !top && plan.descriptor.dropout > 0.0 {
            backend.drop_out(backend.part_mut(&mut above, 0..len), plan.features(), layer + 1, dropout_seed)?;
        }
    }
    Ok(())
}

/// Gradients of the data, and those of the weights, which stay in `reserve`.
///
/// # Errors
///
/// [`Error::Unsupported`](crate::Error::Unsupported) for resets; what the backend's passes return.
pub(crate) fn backward_data<S: SegmentBackend>(
    backend: &S,
    plan: &Checkpoints<S::Plan>,
    args: BackwardDataArgs<'_, S::Given>,
    mut reserve: Write<'_, S>,
    dropout_seed: u64,
) -> Result<()> {
    check_resets(args.resets.is_some())?;
    let BackwardDataArgs { weights, x, h0, c0, lengths, dy, dhn, dcn, mut dx, mut dh0, mut dc0, mut workspace, .. } =
        args;
    let space = plan.space(|plan| backend.temp_space(plan));
    let [mut scratch, mut kept, mut x_copy, mut y, mut dx_copy, mut dy_copy, mut steps, rest @ ..] =
        backend.split(&mut workspace, space.workspace());
    let [mut dh_even, mut dh_odd, mut dc_even, mut dc_odd, mut dbetween] = rest;
    let [saved_h, saved_c, between, mut gradient] = backend.split(&mut reserve, space.reserve());
    let (layers, segments, len) = (plan.descriptor.num_layers, plan.segments(), plan.between_len());
    for layer in (0..layers).rev() {
        // Gradients of the outputs of this layer and of the one below, by turns.
        let [mut even, mut odd] = backend.split(&mut dbetween, space.turns());
        let (above, below) = if layer % 2 == 0 { (&even, &mut odd) } else { (&odd, &mut even) };
        let doutput = match &dy {
            dy if layer + 1 == layers => dy.as_ref().map(|dy| all(backend, dy)),
            _ => Some(backend.view(above, 0..len)),
        };
        let input = match layer {
            0 => all(backend, &x),
            _ => backend.view(&between, (layer - 1) * space.between..(layer - 1) * space.between + len),
        };
        for direction in 0..plan.directions() {
            let part = plan.part(layer, direction);
            let (all_h, all_c, has_c) = (0..part.h.len(), 0..part.c.len(), !part.c.is_empty());
            // Both directions read the same features, unless these are gates.
            let add = direction > 0 && plan.descriptor.input == InputKind::Features;
            let last = dhn.as_ref().map(|dhn| backend.part(dhn, part.h.clone()));
            backend.set(last, backend.part_mut(&mut dh_even, all_h.clone()))?;
            if has_c {
                let last = dcn.as_ref().map(|dcn| backend.part(dcn, part.c.clone()));
                backend.set(last, backend.part_mut(&mut dc_even, all_c.clone()))?;
            }
            for k in (0..segments).rev() {
                let segment = plan.segment(direction, k);
                let segment_plan = plan.plan(layer, direction, segment);
                let output = plan.output(layer, direction, segment);
                let (h0, c0) = match k {
                    0 => (
                        h0.as_ref().map(|h0| backend.part(h0, part.h.clone())),
                        c0.as_ref().map(|c0| backend.part(c0, part.c.clone())),
                    ),
                    _ => (
                        Some(backend.view(&saved_h, part.checkpoint(k, space.h, &part.h))),
                        has_c.then(|| backend.view(&saved_c, part.checkpoint(k, space.c, &part.c))),
                    ),
                };
                let given = Given::<S> {
                    weights: backend.part(&weights, part.weights.clone()),
                    x: read_window(backend, &input, &plan.input(layer, direction, segment), &mut x_copy)?,
                    h0,
                    c0,
                    lengths: match &lengths {
                        Some(lengths) => Some(backend.lengths(lengths, segment, whole(backend, &mut steps))?),
                        None => None,
                    },
                };
                let again = backend.part_mut(&mut y, 0..output.len());
                let args = given.forward(backend, again, [None, None], whole(backend, &mut scratch));
                backend.forward(segment_plan, args, whole(backend, &mut kept))?;

                let (dhn, dh0) = turn(&mut dh_even, &mut dh_odd, segments - 1 - k);
                let (dcn, dc0) = turn(&mut dc_even, &mut dc_odd, segments - 1 - k);
                let dy = match &doutput {
                    Some(dy) => Some(read_window(backend, dy, &output, &mut dy_copy)?),
                    None => None,
                };
                if let (true, Some(lengths), Some(dy)) = (plan.holds(layer, direction), &given.lengths, &dy) {
                    backend.add_held(lengths, all(backend, dy), backend.part_mut(dhn, all_h.clone()))?;
                }
                let y = backend.view(&y, 0..output.len());
                let mut backward_data = |mut dx: Option<Write<'_, S>>| {
                    let after = [
                        dy.as_ref().map(|dy| all(backend, dy)),
                        Some(backend.view(dhn, all_h.clone())),
                        has_c.then(|| backend.view(dcn, all_c.clone())),
                    ];
                    let dc0 = if has_c { Some(backend.part_mut(dc0, all_c.clone())) } else { None };
                    let dx = dx.as_mut().map(|dx| whole(backend, dx));
                    let before = [dx, Some(backend.part_mut(dh0, all_h.clone())), dc0];
                    let scratch = whole(backend, &mut scratch);
                    let args = given.backward_data(backend, all(backend, &y), after, before, scratch);
                    backend.backward_data(segment_plan, args, whole(backend, &mut kept))
                };
                let window = plan.input(layer, direction, segment);
                let dinput = match &mut dx {
                    _ if layer > 0 => Some(backend.part_mut(below, 0..len)),
                    dx => dx.as_mut().map(|dx| whole(backend, dx)),
                };
                match dinput {
                    Some(mut dinput) => write_window(backend, &mut dinput, &window, &mut dx_copy, add, |dx| {
                        backward_data(Some(whole(backend, dx)))
                    })?,
                    None => backward_data(None)?,
                }

                let sums = backend.part_mut(&mut gradient, plan.gradient(layer, direction));
                let args = given.backward_weights(backend, all(backend, &y), sums, whole(backend, &mut scratch));
                let grad = if k + 1 == segments { WeightGrad::Set } else { WeightGrad::Add };
                backend.backward_weights(segment_plan, args, whole(backend, &mut kept), grad)?;
            }
            // Where the segment processed first has left them.
            let (left_h, _) = turn(&mut dh_even, &mut dh_odd, segments);
            let (left_c, _) = turn(&mut dc_even, &mut dc_odd, segments);
            if let Some(dh0) = &mut dh0 {
                backend.set(Some(backend.view(left_h, all_h)), backend.part_mut(dh0, part.h))?;
            }
            if let Some(dc0) = &mut dc0 {
                backend.set(Some(backend.view(left_c, all_c)), backend.part_mut(dc0, part.c))?;
            }
        }
        if layer > 0 && plan.descriptor.dropout > 0.0 {
            backend.drop_out(backend.part_mut(below, 0..len), plan.features(), layer, dropout_seed)?;
        }
    }
    Ok(())
}

/// What a turn reads and what it writes.
fn turn<'t, T>(even: &'t mut T, odd: &'t mut T, number: usize) -> (&'t mut T, &'t mut T) {
    if number % 2 == 0 { (even, odd) } else { (odd, even) }
}

/// Gradients of the weights, from `reserve` after backward-data.
///
/// # Errors
///
/// [`Error::Unsupported`](crate::Error::Unsupported) for resets; what the backend returns.
pub(crate) fn backward_weights<S: SegmentBackend>(
    backend: &S,
    plan: &Checkpoints<S::Plan>,
    args: BackwardWeightsArgs<'_, S::Given>,
    mut reserve: Write<'_, S>,
    grad: WeightGrad,
) -> Result<()> {
    check_resets(args.resets.is_some())?;
    let space = plan.space(|plan| backend.temp_space(plan));
    let [.., gradient] = backend.split(&mut reserve, space.reserve());
    let sums = plan.all_gradients();
    backend.add_gradient(backend.view(&gradient, sums), args.dweights, grad)
}
