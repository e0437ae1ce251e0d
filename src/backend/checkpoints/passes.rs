//! The passes over segments, the same for all backends.

use std::ops::Range;

use super::segment::{Before, Given, Read, SegmentBackend, Write, all, read_window, whole, write_window};
use super::{Checkpoints, check_resets};
use crate::backend::Extent;
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, WeightGrad};
use crate::error::Result;
use crate::rnn::InputKind;

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
                let [done_h, mut next_h] = backend.split(&mut saved_h, part.until(k, space.h, inner));
                let [done_c, mut next_c] = backend.split(&mut saved_c, part.until(k, space.c, inner));
                let h0 = start(backend, &h0, &done_h, (&part.h, part.checkpoint(k, space.h, &part.h)), k);
                let c0 = start(backend, &c0, &done_c, (&part.c, part.checkpoint(k, space.c, &part.c)), k);
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
                    let last = [Some(whole(backend, &mut hn)), cn.as_mut().map(|cn| whole(backend, cn))];
                    let args = given.forward(backend, whole(backend, y), last, whole(backend, &mut scratch));
                    let (segment_plan, _) = plan.plan(layer, direction, segment);
                    backend.forward(segment_plan, args, whole(backend, &mut kept))?;
                    if plan.light && has_c && given.lengths.is_none() {
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
/// [`Error::Unsupported`](crate::Error::Unsupported) for resets; what the backend's passes return.
pub(crate) fn backward_data<S: SegmentBackend>(
    backend: &S,
    plan: &Checkpoints<S::Plan>,
    args: BackwardDataArgs<'_, S::Given>,
    mut reserve: Write<'_, S>,
    dropout_seed: u64,
) -> Result<()> {
    check_resets(args.resets.is_some())?;
    let BackwardDataArgs { weights, x, y: outputs, h0, c0, lengths, dy, dhn, dcn, .. } = args;
    let (mut dx, mut dh0, mut dc0, mut workspace) = (args.dx, args.dh0, args.dc0, args.workspace);
    let space = plan.space(|plan| backend.temp_space(plan));
    let [mut scratch, mut kept, mut x_copy, mut y, mut dx_copy, mut dy_copy, mut steps, rest @ ..] =
        backend.split(&mut workspace, space.workspace());
    let [mut dh_even, mut dh_odd, mut dc_even, mut dc_odd, mut all_h, mut all_c, mut dbetween] = rest;
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
            let (h, c, has_c) = (0..part.h.len(), 0..part.c.len(), !part.c.is_empty());
            // Both directions read the same features, unless these are gates.
            let add = direction > 0 && plan.descriptor.input == InputKind::Features;
            let last = dhn.as_ref().map(|dhn| backend.part(dhn, part.h.clone()));
            backend.set(last, backend.part_mut(&mut dh_even, h.clone()))?;
            if has_c {
                let last = dcn.as_ref().map(|dcn| backend.part(dcn, part.c.clone()));
                backend.set(last, backend.part_mut(&mut dc_even, c.clone()))?;
            }
            for k in (0..segments).rev() {
                let segment = plan.segment(direction, k);
                let (segment_plan, at_once) = plan.plan(layer, direction, segment);
                let window = plan.output(layer, direction, segment);
                let h0 = start(backend, &h0, &saved_h, (&part.h, part.checkpoint(k, space.h, &part.h)), k);
                let c0 = start(backend, &c0, &saved_c, (&part.c, part.checkpoint(k, space.c, &part.c)), k);
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
                let again = backend.part_mut(&mut y, 0..window.len());
                match (at_once, &output, &given.lengths) {
                    (Some(at_once), Some(output), None) => {
                        let reverse = plan.descriptor.direction.is_reverse(direction);
                        let before = Before { window, c: part.c.len(), reverse };
                        let steps = segment.first..segment.first + segment.steps;
                        let states =
                            has_c.then(|| backend.view(&states, plan.states(layer, direction, space.states, steps)));
                        before.read(backend, &given, output, states, [&mut all_h, &mut all_c])?;
                        let given = Given::<S> {
                            weights: all(backend, &given.weights),
                            x: all(backend, &given.x),
                            h0: Some(backend.view(&all_h, 0..window.len())),
                            c0: has_c.then(|| backend.view(&all_c, 0..segment.steps * part.c.len())),
                            lengths: None,
                        };
                        let args = given.forward(backend, again, [None, None], whole(backend, &mut scratch));
                        backend.forward(at_once, args, whole(backend, &mut kept))?;
                    }
                    _ => {
                        let args = given.forward(backend, again, [None, None], whole(backend, &mut scratch));
                        backend.forward(segment_plan, args, whole(backend, &mut kept))?;
                    }
                }

                let (dhn, dh0) = turn(&mut dh_even, &mut dh_odd, segments - 1 - k);
                let (dcn, dc0) = turn(&mut dc_even, &mut dc_odd, segments - 1 - k);
                let dy = match &doutput {
                    Some(dy) => Some(read_window(backend, dy, &window, &mut dy_copy)?),
                    None => None,
                };
                if let (true, Some(lengths), Some(dy)) = (plan.holds(layer, direction), &given.lengths, &dy) {
                    backend.add_held(lengths, all(backend, dy), backend.part_mut(dhn, h.clone()))?;
                }
                let y = backend.view(&y, 0..window.len());
                let mut backward_data = |mut dx: Option<Write<'_, S>>| {
                    let after = [
                        dy.as_ref().map(|dy| all(backend, dy)),
                        Some(backend.view(dhn, h.clone())),
                        has_c.then(|| backend.view(dcn, c.clone())),
                    ];
                    let dc0 = if has_c { Some(backend.part_mut(dc0, c.clone())) } else { None };
                    let dx = dx.as_mut().map(|dx| whole(backend, dx));
                    let before = [dx, Some(backend.part_mut(dh0, h.clone())), dc0];
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
                backend.set(Some(backend.view(left_h, h)), backend.part_mut(dh0, part.h))?;
            }
            if let Some(dc0) = &mut dc0 {
                backend.set(Some(backend.view(left_c, c)), backend.part_mut(dc0, part.c))?;
            }
        }
        if layer > 0 && plan.descriptor.dropout > 0.0 {
            backend.drop_out(backend.part_mut(below, 0..len), plan.features(), layer, dropout_seed)?;
        }
    }
    Ok(())
}

/// The state that segment `k` starts from: of the caller's where a part has its own, or the checkpoint before it. Absent where the cell
/// has no such state, or the caller gives none.
fn start<'s, S: SegmentBackend>(
    backend: &S,
    given: &'s Option<Read<'_, S>>,
    saved: &'s Write<'_, S>,
    (own, checkpoint): (&Range<usize>, Range<usize>),
    k: usize,
) -> Option<Read<'s, S>> {
    match k {
        0 => given.as_ref().map(|state| backend.part(state, own.clone())),
        _ => (!own.is_empty()).then(|| backend.view(saved, checkpoint)),
    }
}

/// What a turn reads and what it writes.
fn turn<'t, T>(even: &'t mut T, odd: &'t mut T, number: usize) -> (&'t mut T, &'t mut T) {
    if number.is_multiple_of(2) { (even, odd) } else { (odd, even) }
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
    let [.., gradient, _] = backend.split(&mut reserve, space.reserve());
    let sums = plan.all_gradients();
    backend.add_gradient(backend.view(&gradient, sums), args.dweights, grad)
}
