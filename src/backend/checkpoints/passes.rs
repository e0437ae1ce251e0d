//! The passes over segments, the same for all backends.

use std::ops::Range;

use super::segment::{Before, Carried, Given, SegmentBackend, Turn, Write, all, read_window, whole, write_window};
use super::{Checkpoints, Part};
use crate::backend::Extent;
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, WeightGrad};
use crate::error::Result;
use crate::rnn::InputKind;

/// Training forward: fills `reserve`.
///
/// # Errors
///
/// What the backend's passes return.
pub(crate) fn forward<S: SegmentBackend>(
    backend: &S,
    plan: &Checkpoints<S::Plan>,
    args: ForwardArgs<'_, S::Given>,
    mut reserve: Write<'_, S>,
) -> Result<()> {
    let ForwardArgs { weights, x, h0, c0, lengths, resets, mut y, mut hn, mut cn, mut workspace, dropout_seed } = args;
    let space = plan.space(|plan| backend.temp_space(plan));
    let [mut scratch, mut kept, mut x_copy, mut y_copy, _, _, mut steps, mut last_h, ..] =
        backend.split(&mut workspace, space.workspace());
    let [mut saved_h, mut saved_c, mut between, _, mut states] = backend.split(&mut reserve, space.reserve());
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
                let [mut done_h, mut next_h] = backend.split(&mut saved_h, part.until(k, space.h, inner));
                let [mut done_c, mut next_c] = backend.split(&mut saved_c, part.until(k, space.c, inner));
                let (at_h, at_c) = states_at(plan, &part, k, [space.h, space.c]);
                let [h0, c0] = [(&h0, &part.h), (&c0, &part.c)]
                    .map(|(initial, own)| initial.as_ref().map(|initial| backend.part(initial, own.clone())));
                let lengths = match &lengths {
                    Some(lengths) => Some(backend.lengths(lengths, segment, whole(backend, &mut steps))?),
                    None => None,
                };
                let resets = resets.as_ref().map(|resets| backend.part_of_mask(resets, plan.mask(segment)));
                if let (Some(resets), true) = (&resets, k > 0) {
                    let initial = [&h0, &c0].map(|state| state.as_ref().map(|state| all(backend, state)));
                    let states =
                        [backend.part_mut(&mut done_h, at_h.clone()), backend.part_mut(&mut done_c, at_c.clone())];
                    let (t, scratch) = (plan.first_step(direction, segment), whole(backend, &mut scratch));
                    backend.restart(resets, lengths.as_ref(), t, initial, states, scratch)?;
                }
                let start = (k > 0).then(|| [backend.view(&done_h, at_h), backend.view(&done_c, at_c)]);
                let mut hn = match &mut hn {
                    _ if inner > 0 => backend.part_mut(&mut next_h, 0..part.h.len()),
                    Some(hn) => backend.part_mut(hn, part.h.clone()),
                    None => backend.part_mut(&mut last_h, 0..part.h.len()),
                };
                let mut cn = match &mut cn {
                    cn if has_c && inner == 0 => cn.as_mut().map(|cn| backend.part_mut(cn, part.c.clone())),
                    _ => None,
                };
                let next_c = if has_c && inner > 0 {
                    Some(backend.part_mut(&mut next_c, 0..plan.wide(part.c.len())))
                } else {
                    None
                };
                let given = Given::<S> {
                    weights: backend.part(&weights, part.weights.clone()),
                    x: read_window(backend, &input, &plan.input(layer, direction, segment), &mut x_copy)?,
                    h0,
                    c0,
                    start,
                    lengths,
                    resets,
                };
                let window = plan.output(layer, direction, segment);
                let output = if top { &mut whole(backend, &mut y) } else { &mut whole(backend, &mut above) };
                write_window(backend, output, &window, &mut y_copy, false, |y| {
                    let last = [Some(whole(backend, &mut hn)), cn.as_mut().map(|cn| whole(backend, cn))];
                    let args = given.forward(backend, whole(backend, y), last, whole(backend, &mut scratch));
                    let (segment_plan, _) = plan.plan(layer, direction, segment);
                    let start = given.start(backend);
                    backend.forward(segment_plan, args, start, next_c, whole(backend, &mut kept))?;
                    if plan.light && has_c && given.lengths.is_none() && given.resets.is_none() {
                        let steps = segment.first..segment.first + segment.steps;
                        let to = backend.part_mut(&mut states, plan.states(layer, direction, space.states, steps));
                        backend.copy_states(segment_plan, backend.view(&kept, 0..kept.elements()), to)?;
                    }
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
/// What the backend's passes return.
pub(crate) fn backward_data<S: SegmentBackend>(
    backend: &S,
    plan: &Checkpoints<S::Plan>,
    args: BackwardDataArgs<'_, S::Given>,
    mut reserve: Write<'_, S>,
    dropout_seed: u64,
) -> Result<()> {
    let BackwardDataArgs { weights, x, y: outputs, h0, c0, lengths, resets, dy, dhn, dcn, .. } = args;
    let (mut dx, mut dh0, mut dc0, mut workspace) = (args.dx, args.dh0, args.dc0, args.workspace);
    let space = plan.space(|plan| backend.temp_space(plan));
    let [mut scratch, mut kept, mut x_copy, mut y, mut dx_copy, mut dy_copy, mut steps, rest @ ..] =
        backend.split(&mut workspace, space.workspace());
    let [mut dh, mut dh_reset, mut dc, mut dc_reset, mut all_h, mut all_c, mut dbetween] = rest;
    let [saved_h, saved_c, between, mut gradient, states] = backend.split(&mut reserve, space.reserve());
    let (layers, segments, len) = (plan.descriptor.num_layers, plan.segments(), plan.between_len());
    for layer in (0..layers).rev() {
        // Gradients of the outputs of this layer and of the one below, by turns.
        let [mut even, mut odd] = backend.split(&mut dbetween, space.turns());
        let (above, below) = if layer.is_multiple_of(2) { (&even, &mut odd) } else { (&odd, &mut even) };
        let doutput = match &dy {
            dy if layer + 1 == layers => dy.as_ref().map(|dy| all(backend, dy)),
            _ => Some(backend.view(above, 0..len)),
        };
        let input = match layer {
            0 => all(backend, &x),
            _ => backend.view(&between, (layer - 1) * space.between..(layer - 1) * space.between + len),
        };
        // This layer's output, where it is known: dropout is applied to that of a layer below another.
        let output = match layer {
            _ if layer + 1 == layers => Some(all(backend, &outputs)),
            _ if plan.descriptor.dropout > 0.0 => None,
            _ => Some(backend.view(&between, layer * space.between..layer * space.between + len)),
        };
        for direction in 0..plan.directions() {
            let part = plan.part(layer, direction);
            let (h, c, has_c) = (0..plan.wide(part.h.len()), 0..plan.wide(part.c.len()), !part.c.is_empty());
            // Both directions read the same features, unless these are gates.
            let add = direction > 0 && plan.descriptor.input == InputKind::Features;
            for k in (0..segments).rev() {
                let segment = plan.segment(direction, k);
                let (segment_plan, at_once) = plan.plan(layer, direction, segment);
                let window = plan.output(layer, direction, segment);
                let (at_h, at_c) = states_at(plan, &part, k, [space.h, space.c]);
                let given = Given::<S> {
                    weights: backend.part(&weights, part.weights.clone()),
                    x: read_window(backend, &input, &plan.input(layer, direction, segment), &mut x_copy)?,
                    h0: h0.as_ref().map(|h0| backend.part(h0, part.h.clone())),
                    c0: c0.as_ref().map(|c0| backend.part(c0, part.c.clone())),
                    start: (k > 0).then(|| [backend.view(&saved_h, at_h), backend.view(&saved_c, at_c)]),
                    lengths: match &lengths {
                        Some(lengths) => Some(backend.lengths(lengths, segment, whole(backend, &mut steps))?),
                        None => None,
                    },
                    resets: resets.as_ref().map(|resets| backend.part_of_mask(resets, plan.mask(segment))),
                };
                let again = backend.part_mut(&mut y, 0..window.len());
                match (at_once, &output, given.lengths.is_none() && given.resets.is_none()) {
                    (Some(at_once), Some(output), true) => {
                        let reverse = plan.descriptor.direction.is_reverse(direction);
                        let before = Before { window, c: c.len(), reverse };
                        let steps = segment.first..segment.first + segment.steps;
                        let states =
                            has_c.then(|| backend.view(&states, plan.states(layer, direction, space.states, steps)));
                        before.read(backend, &given, output, states, [&mut all_h, &mut all_c])?;
                        let given = Given::<S> {
                            weights: all(backend, &given.weights),
                            x: all(backend, &given.x),
                            h0: None,
                            c0: None,
                            start: Some([
                                backend.view(&all_h, 0..window.len()),
                                backend.view(&all_c, 0..segment.steps * c.len()),
                            ]),
                            lengths: None,
                            resets: None,
                        };
                        let args = given.forward(backend, again, [None, None], whole(backend, &mut scratch));
                        let start = given.start(backend);
                        backend.forward(at_once, args, start, None, whole(backend, &mut kept))?;
                    }
                    _ => {
                        let args = given.forward(backend, again, [None, None], whole(backend, &mut scratch));
                        let start = given.start(backend);
                        backend.forward(segment_plan, args, start, None, whole(backend, &mut kept))?;
                    }
                }

                let (begins, ends) = (k + 1 == segments, k == 0);
                let dy = match &doutput {
                    Some(dy) => Some(read_window(backend, dy, &window, &mut dy_copy)?),
                    None => None,
                };
                let turn = Turn { begins, held: plan.holds(layer, direction) && given.lengths.is_some() };
                let y = backend.view(&y, 0..window.len());
                let mut backward_data = |mut dx: Option<Write<'_, S>>| {
                    let last = [(&dhn, &part.h), (&dcn, &part.c)].map(|(last, own)| {
                        last.as_ref().filter(|_| begins).map(|last| backend.part(last, own.clone()))
                    });
                    let [dhn, dcn] = last;
                    let after = [dy.as_ref().map(|dy| all(backend, dy)), dhn, dcn];
                    let dx = dx.as_mut().map(|dx| whole(backend, dx));
                    let dh0 = dh0.as_mut().filter(|_| ends).map(|dh0| backend.part_mut(dh0, part.h.clone()));
                    let dc0 = dc0.as_mut().filter(|_| ends).map(|dc0| backend.part_mut(dc0, part.c.clone()));
                    let scratch = whole(backend, &mut scratch);
                    let args = given.backward_data(backend, all(backend, &y), after, [dx, dh0, dc0], scratch);
                    let start = given.start(backend);
                    backend.backward_data(
                        segment_plan,
                        args,
                        start,
                        Carried {
                            dh: backend.part_mut(&mut dh, h.clone()),
                            dc: backend.part_mut(&mut dc, c.clone()),
                            dh_reset: backend.part_mut(&mut dh_reset, h.clone()),
                            dc_reset: backend.part_mut(&mut dc_reset, c.clone()),
                        },
                        turn,
                        whole(backend, &mut kept),
                    )
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
                let grad = if begins { WeightGrad::Set } else { WeightGrad::Add };
                let start = given.start(backend);
                backend.backward_weights(segment_plan, args, start, whole(backend, &mut kept), grad)?;
                if let (Some(resets), true) = (&given.resets, k > 0) {
                    let carried = Carried {
                        dh: backend.part_mut(&mut dh, h.clone()),
                        dc: backend.part_mut(&mut dc, c.clone()),
                        dh_reset: backend.part_mut(&mut dh_reset, h.clone()),
                        dc_reset: backend.part_mut(&mut dc_reset, c.clone()),
                    };
                    let t = plan.first_step(direction, segment);
                    backend.restart_gradients(resets, given.lengths.as_ref(), t, carried)?;
                }
            }
        }
        if layer > 0 && plan.descriptor.dropout > 0.0 {
            backend.drop_out(backend.part_mut(below, 0..len), plan.features(), layer, dropout_seed)?;
        }
    }
    Ok(())
}

/// Where the states stand that segment `k` starts from, among checkpoints `strides` elements apart: h, and the states beside it.
fn states_at<P>(plan: &Checkpoints<P>, part: &Part, k: usize, strides: [usize; 2]) -> (Range<usize>, Range<usize>) {
    let [h, c] = strides;
    (part.checkpoint(k, h, part.h.len()), part.checkpoint(k, c, plan.wide(part.c.len())))
}

/// Gradients of the weights, from `reserve` after backward-data.
///
/// # Errors
///
/// What the backend returns.
pub(crate) fn backward_weights<S: SegmentBackend>(
    backend: &S,
    plan: &Checkpoints<S::Plan>,
    args: BackwardWeightsArgs<'_, S::Given>,
    mut reserve: Write<'_, S>,
    grad: WeightGrad,
) -> Result<()> {
    let space = plan.space(|plan| backend.temp_space(plan));
    let [.., gradient, _] = backend.split(&mut reserve, space.reserve());
    let sums = plan.all_gradients();
    backend.add_gradient(backend.view(&gradient, sums), args.dweights, grad)
}
