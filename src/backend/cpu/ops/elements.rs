//! Elements and optimizers, compiled for the widest vectors of the machine. No operation is fused, so that the bits are the plain loops'
//! on every instruction set.

use crate::backend::cpu::CpuElement;
use crate::backend::host_ops::plain::{self, training};
use crate::backend::ops::{AdagradStep, AdamStep, RmsPropStep, SgdStep};
use crate::cell::Activation;
use crate::rnn::Dropout;
use crate::simd::{Kernel, MAX_LANES, Simd};

/// `y = alpha x + beta y`, or `y = alpha x` where `beta` is absent.
pub(super) struct ScaleAdd<'a, E> {
    pub alpha: E,
    pub x: &'a [E],
    pub beta: Option<E>,
    pub y: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for ScaleAdd<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let ScaleAdd { alpha, x, beta, y } = self;
        match beta {
            None => y.iter_mut().zip(x).for_each(|(y, x)| *y = alpha * *x),
            Some(beta) => y.iter_mut().zip(x).for_each(|(y, x)| *y = alpha * *x + beta * *y),
        }
    }
}

/// The plain loops: `y = a + alpha b`.
pub(super) struct Sum<'a, E> {
    pub a: &'a [E],
    pub alpha: f64,
    pub b: &'a [E],
    pub y: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for Sum<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        plain::elements::sum(self.a, self.alpha, self.b, self.y);
    }
}

/// Whether all are numbers, none of them infinite.
pub(super) struct AllFinite<'a, E>(pub &'a [E]);

impl<E: CpuElement> Kernel<E> for AllFinite<'_, E> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) -> bool {
        /// Sums side by side, so that none waits for its addition.
        const SUMS: usize = 8;
        // Zero times a finite number is zero, times any other NaN, and sums keep NaN: no branch until the end.
        let zero = s.splat(E::zero());
        let mut sums = [zero; SUMS];
        let blocks = self.0.len() / (SUMS * S::LANES);
        for block in 0..blocks {
            for i in 0..SUMS {
                sums[i] = s.mul_add(s.load(&self.0[(block * SUMS + i) * S::LANES..]), zero, sums[i]);
            }
        }
        let mut lanes = [E::zero(); MAX_LANES];
        sums.into_iter().all(|sum| {
            s.store(&mut lanes, sum);
            lanes.iter().all(|v| v.is_finite())
        }) && self.0[blocks * SUMS * S::LANES..].iter().all(|v| v.is_finite())
    }
}

/// `values = activation(values + bias)`.
pub(super) struct AddBiasActivate<'a, E> {
    pub activation: Activation,
    pub bias: Option<&'a [E]>,
    pub values: &'a mut [E],
    pub inputs: Option<&'a mut [E]>,
}

impl<E: CpuElement> Kernel<E> for AddBiasActivate<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let AddBiasActivate { activation, bias, values, inputs } = self;
        if let Some(bias) = bias {
            for row in values.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(v, b)| *v += *b);
            }
        }
        if let Some(inputs) = inputs {
            inputs.copy_from_slice(values);
        }
        // What is `Activation::apply` but for its call stands here, and becomes vectors.
        let zero = E::zero();
        match activation {
            Activation::Linear => {}
            Activation::Relu => values.iter_mut().for_each(|v| *v = if *v <= zero { zero } else { *v }),
            Activation::LeakyRelu { alpha } => {
                let alpha = E::of(alpha);
                values.iter_mut().for_each(|v| *v = if *v > zero { *v } else { alpha * *v });
            }
            other => values.iter_mut().for_each(|v| *v = other.apply(*v)),
        }
    }
}

/// `dx = dy activation'`.
pub(super) struct ActivationGradient<'a, E> {
    pub activation: Activation,
    pub dy: &'a [E],
    pub values: &'a [E],
    pub dx: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for ActivationGradient<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let ActivationGradient { activation, dy, values, dx } = self;
        let (zero, one) = (E::zero(), E::one());
        let all = dx.iter_mut().zip(dy).zip(values);
        // As above, for `Activation::derivative`.
        match activation {
            Activation::Linear => dx.copy_from_slice(dy),
            Activation::Relu => all.for_each(|((dx, dy), y)| *dx = *dy * if *y > zero { one } else { zero }),
            Activation::Tanh => all.for_each(|((dx, dy), y)| *dx = *dy * (one - *y * *y)),
            Activation::Sigmoid => all.for_each(|((dx, dy), y)| *dx = *dy * (*y * (one - *y))),
            other if other.derivative_needs_input() => {
                all.for_each(|((dx, dy), x)| *dx = *dy * other.derivative(*x, other.apply(*x)));
            }
            other => all.for_each(|((dx, dy), y)| *dx = *dy * other.derivative(*y, *y)),
        }
    }
}

/// The plain loops, for the rows from `first` on.
pub(super) struct Dropped<'a, E> {
    pub dropout: &'a Dropout,
    pub layer: usize,
    pub batch: usize,
    pub features: usize,
    pub first: usize,
    pub x: &'a [E],
    pub y: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for Dropped<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let Dropped { dropout, layer, batch, features, first, x, y } = self;
        plain::elements::dropout(dropout, layer, batch, features, first, x, y);
    }
}

/// The plain loops.
pub(super) struct Adam<'a, E> {
    pub step: AdamStep,
    pub parameters: &'a mut [E],
    pub gradients: &'a [E],
    pub m: &'a mut [E],
    pub v: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for Adam<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        training::adam(self.step, self.parameters, self.gradients, self.m, self.v);
    }
}

/// The plain loops.
pub(super) struct Sgd<'a, E> {
    pub step: SgdStep,
    pub parameters: &'a mut [E],
    pub gradients: &'a [E],
    pub velocity: Option<&'a mut [E]>,
}

impl<E: CpuElement> Kernel<E> for Sgd<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        training::sgd(self.step, self.parameters, self.gradients, self.velocity);
    }
}

/// The plain loops.
pub(super) struct RmsProp<'a, E> {
    pub step: RmsPropStep,
    pub parameters: &'a mut [E],
    pub gradients: &'a [E],
    pub mean_square: &'a mut [E],
    pub mean: Option<&'a mut [E]>,
    pub velocity: Option<&'a mut [E]>,
}

impl<E: CpuElement> Kernel<E> for RmsProp<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let RmsProp { step, parameters, gradients, mean_square, mean, velocity } = self;
        training::rmsprop(step, parameters, gradients, mean_square, mean, velocity);
    }
}

/// The plain loops.
pub(super) struct Adagrad<'a, E> {
    pub step: AdagradStep,
    pub parameters: &'a mut [E],
    pub gradients: &'a [E],
    pub sums: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for Adagrad<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        training::adagrad(self.step, self.parameters, self.gradients, self.sums);
    }
}

/// The plain loops; the sum.
pub(super) struct SumOfSquares<'a, E>(pub &'a [E]);

impl<E: CpuElement> Kernel<E> for SumOfSquares<'_, E> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) -> f64 {
        training::sum_of_squares(self.0)
    }
}
