//! Segments of a backend whose tensors are slices.

use std::marker::PhantomData;
use std::ops::Range;

use super::segment::{Carried, Lengths, Mask, Read, SegmentBackend, Turn, Write};
use super::{Segment, Window};
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, HostBackend, HostPlan, TempSpace, WeightGrad,
};
use crate::dtype::Scalar;
use crate::error::Result;
use crate::rnn::Dropout;

/// h and the states beside it that a segment's first step starts from, where those are not the initial ones.
pub(crate) type Start<'a, E> = Option<[&'a [E]; 2]>;

/// Passes of a host backend under an ordinary plan for training, with tensors of the right sizes and, in segments, lengths that may be 0.
pub(crate) trait HostPasses<E: Scalar>: HostBackend<E> {
    fn run_forward(
        &self,
        plan: &Self::Plan,
        args: ForwardArgs<'_, Self>,
        start: Start<'_, E>,
        reserve: &mut [E],
    ) -> Result<()>;

    /// The states beside h after every step, from the reserve of a plan for one layer and direction, without lengths.
    fn copy_states(&self, plan: &Self::Plan, reserve: &[E], to: &mut [E]);

    /// In segments from and to the gradients of states in `carried`, and not from `dhn` and `dcn` to `dh0` and `dc0`.
    fn run_backward_data(
        &self,
        plan: &Self::Plan,
        args: BackwardDataArgs<'_, Self>,
        start: Start<'_, E>,
        carried: Option<Carried<&mut [E]>>,
        reserve: &mut [E],
        dropout_seed: u64,
    ) -> Result<()>;

    fn run_backward_weights(
        &self,
        plan: &Self::Plan,
        args: BackwardWeightsArgs<'_, Self>,
        start: Start<'_, E>,
        reserve: &mut [E],
        dropout_seed: u64,
        grad: WeightGrad,
    ) -> Result<()>;
}

/// A host backend and the plan of the whole.
pub(crate) struct HostSegments<'a, E, B> {
    backend: &'a B,
    plan: &'a HostPlan,
    element: PhantomData<E>,
}

impl<'a, E: Scalar, B: HostPasses<E>> HostSegments<'a, E, B> {
    pub(crate) fn new(backend: &'a B, plan: &'a HostPlan) -> Self {
        HostSegments { backend, plan, element: PhantomData }
    }
}

/// Rows of a window, each with its step, its sequence and where it begins in the whole tensor.
fn rows(window: &Window) -> impl Iterator<Item = usize> + '_ {
    (0..window.steps).flat_map(move |t| (0..window.batch).map(move |b| window.row(t, b)))
}

/// `out += addend`
fn add<E: Scalar>(out: &mut [E], addend: &[E]) {
    for (out, addend) in out.iter_mut().zip(addend) {
        *out += *addend;
    }
}

/// Sequences that are reset at step `t` of a segment.
fn restarted<'a>(
    resets: &'a [u8],
    lengths: Option<&'a [u32]>,
    t: usize,
    batch: usize,
) -> impl Iterator<Item = usize> + 'a {
    let valid = move |b: usize| lengths.is_none_or(|lengths| t < lengths[b] as usize);
    (0..batch).filter(move |b| resets[t * batch + b] != 0 && valid(*b))
}

/// Steps past the lengths, each with its sequence, of `rows` rows `[steps, B]`.
fn padded(lengths: &[u32], rows: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> + '_ {
    let batch = lengths.len();
    (0..rows).filter(move |row| row / batch >= lengths[row % batch] as usize).map(move |row| (row, row % batch))
}

impl<E: Scalar, B: HostPasses<E>> SegmentBackend for HostSegments<'_, E, B> {
    type Given = B;
    type Plan = B::Plan;

    fn temp_space(&self, plan: &B::Plan) -> TempSpace {
        self.backend.temp_space(plan)
    }

    fn part<'s>(&self, tensor: &'s &[E], range: Range<usize>) -> &'s [E] {
        &tensor[range]
    }

    fn part_mut<'s>(&self, tensor: &'s mut &mut [E], range: Range<usize>) -> &'s mut [E] {
        &mut tensor[range]
    }

    fn view<'s>(&self, tensor: &'s &mut [E], range: Range<usize>) -> &'s [E] {
        &tensor[range]
    }

    fn split<'s, const N: usize>(&self, tensor: &'s mut &mut [E], lens: [usize; N]) -> [&'s mut [E]; N] {
        let mut rest = &mut **tensor;
        lens.map(|len| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(len);
            rest = others;
            part
        })
    }

    fn part_of_mask<'s>(&self, mask: &'s &[u8], range: Range<usize>) -> &'s [u8] {
        &mask[range]
    }

    fn reborrow<'s>(&self, lengths: &'s &[u32]) -> &'s [u32] {
        lengths
    }

    fn set(&self, from: Option<Read<'_, Self>>, to: Write<'_, Self>) -> Result<()> {
        match from {
            Some(from) => to.copy_from_slice(from),
            None => to.fill(E::zero()),
        }
        Ok(())
    }

    fn set_wide(&self, from: Option<Read<'_, Self>>, to: Write<'_, Self>) -> Result<()> {
        self.set(from, to)
    }

    fn widen(&self, from: Option<Read<'_, Self>>, to: Write<'_, Self>) -> Result<()> {
        self.set(from, to)
    }

    fn gather(&self, from: Read<'_, Self>, window: &Window, to: Write<'_, Self>) -> Result<()> {
        for (row, to) in rows(window).zip(to.chunks_exact_mut(window.width)) {
            to.copy_from_slice(&from[row..row + window.width]);
        }
        Ok(())
    }

    fn scatter(&self, from: Read<'_, Self>, to: Write<'_, Self>, window: &Window, add_to: bool) -> Result<()> {
        for (row, from) in rows(window).zip(from.chunks_exact(window.width)) {
            let to = &mut to[row..row + window.width];
            if add_to {
                add(to, from);
            } else {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn lengths<'s>(
        &self,
        lengths: &Lengths<'_, Self>,
        segment: Segment,
        to: Write<'s, Self>,
    ) -> Result<Lengths<'s, Self>> {
        let to = &mut bytemuck::cast_slice_mut::<E, u32>(to)[..lengths.len()];
        for (to, length) in to.iter_mut().zip(*lengths) {
            *to = (*length as usize).saturating_sub(segment.first).min(segment.steps) as u32;
        }
        Ok(to)
    }

    fn hold(&self, lengths: &&[u32], h: Read<'_, Self>, y: Write<'_, Self>) -> Result<()> {
        let width = h.len() / lengths.len();
        for (row, b) in padded(lengths, y.len() / width) {
            y[row * width..][..width].copy_from_slice(&h[b * width..][..width]);
        }
        Ok(())
    }

    fn restart(
        &self,
        resets: &Mask<'_, Self>,
        lengths: Option<&Lengths<'_, Self>>,
        t: usize,
        initial: [Option<Read<'_, Self>>; 2],
        states: [Write<'_, Self>; 2],
        _: Write<'_, Self>,
    ) -> Result<()> {
        let batch = self.plan.shape.batch;
        for (initial, state) in initial.into_iter().zip(states) {
            let width = state.len() / batch;
            for b in restarted(resets, lengths.copied(), t, batch) {
                let own = b * width..(b + 1) * width;
                match initial {
                    Some(initial) => state[own.clone()].copy_from_slice(&initial[own]),
                    None => state[own].fill(E::zero()),
                }
            }
        }
        Ok(())
    }

    /// Its passes have done that: a reset at the first step is to them as any other.
    fn restart_gradients(
        &self,
        _: &Mask<'_, Self>,
        _: Option<&Lengths<'_, Self>>,
        _: usize,
        _: Carried<Write<'_, Self>>,
    ) -> Result<()> {
        Ok(())
    }

    fn drop_out(&self, tensor: Write<'_, Self>, features: usize, layer: usize, seed: u64) -> Result<()> {
        let (dropout, batch) = (Dropout::new(self.plan.descriptor.dropout, seed), self.plan.shape.batch);
        for (row, values) in tensor.chunks_exact_mut(features).enumerate() {
            dropout.apply(values, layer, row / batch, row % batch);
        }
        Ok(())
    }

    fn add_gradient(&self, sums: Read<'_, Self>, to: Write<'_, Self>, grad: WeightGrad) -> Result<()> {
        match grad {
            WeightGrad::Set => to.copy_from_slice(sums),
            WeightGrad::Add => add(to, sums),
        }
        Ok(())
    }

    fn copy_states(&self, plan: &B::Plan, reserve: Read<'_, Self>, to: Write<'_, Self>) -> Result<()> {
        self.backend.copy_states(plan, reserve, to);
        Ok(())
    }

    fn forward(
        &self,
        plan: &B::Plan,
        args: ForwardArgs<'_, B>,
        start: Start<'_, E>,
        end: Option<Write<'_, Self>>,
        reserve: Write<'_, Self>,
    ) -> Result<()> {
        let ForwardArgs { weights, x, h0, c0, lengths, resets, y, hn, cn, workspace, dropout_seed } = args;
        let cn = end.or(cn);
        let args = ForwardArgs { weights, x, h0, c0, lengths, resets, y, hn, cn, workspace, dropout_seed };
        self.backend.run_forward(plan, args, start, reserve)
    }

    fn backward_data(
        &self,
        plan: &B::Plan,
        mut args: BackwardDataArgs<'_, B>,
        start: Start<'_, E>,
        carried: Carried<Write<'_, Self>>,
        turn: Turn,
        reserve: Write<'_, Self>,
    ) -> Result<()> {
        let Carried { dh, dc, dh_reset, dc_reset } = carried;
        if turn.begins {
            self.set(args.dhn.take(), &mut *dh)?;
            self.set(args.dcn.take(), &mut *dc)?;
            dh_reset.fill(E::zero());
            dc_reset.fill(E::zero());
        }
        if let (true, Some(lengths), Some(dy)) = (turn.held, args.lengths, args.dy) {
            let width = dh.len() / lengths.len();
            // From the last step to the first, as an ordinary pass goes.
            for (row, b) in padded(lengths, dy.len() / width).rev() {
                add(&mut dh[b * width..][..width], &dy[row * width..][..width]);
            }
        }
        let (initial, has_resets) = ([args.dh0.take(), args.dc0.take()], args.resets.is_some());
        let within = Carried { dh: &mut *dh, dc: &mut *dc, dh_reset: &mut *dh_reset, dc_reset: &mut *dc_reset };
        // A part has no dropout.
        self.backend.run_backward_data(plan, args, start, Some(within), reserve, 0)?;
        for (to, (left, reset)) in initial.into_iter().zip([(dh, dh_reset), (dc, dc_reset)]) {
            if let Some(to) = to {
                to.copy_from_slice(left);
                if has_resets {
                    add(to, reset);
                }
            }
        }
        Ok(())
    }

    fn backward_weights(
        &self,
        plan: &B::Plan,
        args: BackwardWeightsArgs<'_, B>,
        start: Start<'_, E>,
        reserve: Write<'_, Self>,
        grad: WeightGrad,
    ) -> Result<()> {
        self.backend.run_backward_weights(plan, args, start, reserve, 0, grad)
    }
}
