//! Activation functions on vectors. Every path of the backend uses these.
//!
//! Both are built on [`expm1`], so that tanh is accurate near zero. Largest error over all arguments, in units in the last
//! place of the exact result: f32 sigmoid 2.5, tanh 2.5; f64 sigmoid 2.5, tanh 3 (the tests below measure them). Results that
//! would be subnormal are zero. NaN stays NaN, and infinities give the limits.

use crate::backend::cpu::CpuElement;
use crate::cell::{Activation, Activations};
use crate::simd::{MAX_LANES, Simd};

/// `e^y - 1` for `|y|` up to [`ExpConstants::limit`](crate::simd::ExpConstants).
#[inline(always)]
pub(crate) fn expm1<E: CpuElement, S: Simd<E>>(s: S, y: S::V) -> S::V {
    // y = n ln 2 + r; e^y - 1 = 2^n (e^r - 1) + (2^n - 1).
    let (scale, q) = exp_parts(s, y);
    s.mul_add(scale, q, s.sub(scale, s.splat(E::one())))
}

/// `e^y` for y up to 0 and minus infinity: results that would be subnormal are zero, NaN stays NaN.
#[inline(always)]
pub(crate) fn exp_of_negative<E: CpuElement, S: Simd<E>>(s: S, y: S::V) -> S::V {
    let lowest = s.splat(-E::EXP.limit);
    let (scale, q) = exp_parts(s, s.max(lowest, y));
    s.zero_where_less(y, lowest, s.mul_add(scale, q, scale))
}

/// `2^n` and `e^r - 1`, where `y = n ln 2 + r`.
#[inline(always)]
fn exp_parts<E: CpuElement, S: Simd<E>>(s: S, y: S::V) -> (S::V, S::V) {
    let constants = &E::EXP;
    let round = s.splat(constants.round);
    let rounded = s.mul_add(y, s.splat(E::of(std::f64::consts::LOG2_E)), round);
    let n = s.sub(rounded, round);
    let r = s.neg_mul_add(n, s.splat(constants.ln2_high), y);
    let r = s.neg_mul_add(n, s.splat(constants.ln2_low), r);
    let mut p = s.splat(constants.polynomial[constants.polynomial.len() - 1]);
    for &coefficient in constants.polynomial[..constants.polynomial.len() - 1].iter().rev() {
        p = s.mul_add(p, r, s.splat(coefficient));
    }
    let q = s.mul_add(p, s.mul(r, r), r);
    (s.exp2_of_rounded(rounded), q)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid<E: CpuElement, S: Simd<E>>(s: S, x: S::V) -> S::V {
    let limit = s.splat(E::EXP.limit);
    let lowest = s.splat(-E::EXP.limit);
    let one = s.splat(E::one());
    let clamped = s.min(limit, s.max(lowest, x));
    let e = expm1(s, s.sub(s.splat(E::zero()), clamped));
    s.zero_where_less(x, lowest, s.div(one, s.add(e, s.splat(E::of(2.0)))))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<E: CpuElement, S: Simd<E>>(s: S, x: S::V) -> S::V {
    let limit = s.splat(E::EXP.tanh_limit);
    let doubled = s.mul(x, s.splat(E::of(2.0)));
    let clamped = s.min(limit, s.max(s.splat(-E::EXP.tanh_limit), doubled));
    // tanh x = (e^2x - 1) / (e^2x + 1)
    let e = expm1(s, clamped);
    s.div(e, s.add(e, s.splat(E::of(2.0))))
}

/// An activation function of a gate or a state, compiled into the cells' loops.
pub(crate) trait Function<E: CpuElement>: Copy {
    /// `f(x)`
    fn apply<S: Simd<E>>(self, s: S, x: S::V) -> S::V;
    /// `f'(x)`, given `x` (anything, unless [`Activation::derivative_needs_input`]) and `y = f(x)`.
    fn derivative<S: Simd<E>>(self, s: S, x: S::V, y: S::V) -> S::V;
}

/// The sigmoid, known at compile time.
#[derive(Clone, Copy)]
pub(crate) struct Sigmoid;

impl<E: CpuElement> Function<E> for Sigmoid {
    #[inline(always)]
    fn apply<S: Simd<E>>(self, s: S, x: S::V) -> S::V {
        sigmoid(s, x)
    }
    #[inline(always)]
    fn derivative<S: Simd<E>>(self, s: S, _: S::V, y: S::V) -> S::V {
        s.neg_mul_add(y, y, y)
    }
}

/// The hyperbolic tangent, known at compile time.
#[derive(Clone, Copy)]
pub(crate) struct Tanh;

impl<E: CpuElement> Function<E> for Tanh {
    #[inline(always)]
    fn apply<S: Simd<E>>(self, s: S, x: S::V) -> S::V {
        tanh(s, x)
    }
    #[inline(always)]
    fn derivative<S: Simd<E>>(self, s: S, _: S::V, y: S::V) -> S::V {
        s.neg_mul_add(y, y, s.splat(E::one()))
    }
}

/// Any function: the two above as vectors, the others lane by lane.
impl<E: CpuElement> Function<E> for Activation {
    #[inline(always)]
    fn apply<S: Simd<E>>(self, s: S, x: S::V) -> S::V {
        match self {
            Activation::Sigmoid => sigmoid(s, x),
            Activation::Tanh => tanh(s, x),
            Activation::Relu => s.max(s.splat(E::zero()), x),
            Activation::Linear => x,
            other => lanes(s, x, x, move |x, _| other.apply(x)),
        }
    }
    #[inline(always)]
    fn derivative<S: Simd<E>>(self, s: S, x: S::V, y: S::V) -> S::V {
        match self {
            Activation::Sigmoid => Sigmoid.derivative(s, x, y),
            Activation::Tanh => Tanh.derivative(s, x, y),
            Activation::Linear => s.splat(E::one()),
            // One less one where y is not above zero.
            Activation::Relu => {
                let one = s.splat(E::one());
                s.sub(one, s.zero_where_less(s.splat(E::zero()), y, one))
            }
            other => lanes(s, x, y, move |x, y| other.derivative(x, y)),
        }
    }
}

/// `f` of each pair of lanes.
#[inline(always)]
fn lanes<E: CpuElement, S: Simd<E>>(s: S, a: S::V, b: S::V, f: impl Fn(E, E) -> E) -> S::V {
    let mut left = [E::zero(); MAX_LANES];
    let mut right = [E::zero(); MAX_LANES];
    s.store(&mut left, a);
    s.store(&mut right, b);
    for lane in 0..S::LANES {
        left[lane] = f(left[lane], right[lane]);
    }
    s.load(&left)
}

/// Whether these are the functions that the fast loops are compiled for.
pub(crate) fn is_standard(activations: Activations) -> bool {
    activations == Activations::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Kernel};

    struct Map<'a, E>(Activation, &'a [E], &'a mut [E]);

    impl<E: CpuElement> Kernel<E> for Map<'_, E> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd<E>>(self, s: S) {
            for (x, y) in self.1.chunks(S::LANES).zip(self.2.chunks_mut(S::LANES)) {
                if x.len() == S::LANES {
                    s.store(y, Function::apply(self.0, s, s.load(x)));
                } else {
                    s.store_head(y, Function::apply(self.0, s, s.load_head(x)));
                }
            }
        }
    }

    fn map<E: CpuElement>(isa: Isa, activation: Activation, x: &[E]) -> Vec<E> {
        let mut y = vec![E::nan(); x.len()];
        isa.run(Map(activation, x, &mut y));
        y
    }

    /// Every 97th f32 and its neighbourhood.
    fn arguments() -> Vec<f32> {
        (0..=u32::MAX / 9973).map(|i| f32::from_bits(i * 9973)).filter(|x| !x.is_nan()).collect()
    }

    #[test]
    fn f32_functions_are_within_their_bound() {
        for (activation, exact) in [
            (Activation::Sigmoid, (|x| 1.0 / (1.0 + (-x).exp())) as fn(f64) -> f64),
            (Activation::Tanh, f64::tanh as fn(f64) -> f64),
        ] {
            let x = arguments();
            let mut worst = (0.0, 0.0);
            for (&x, y) in x.iter().zip(map(Isa::detect(), activation, &x)) {
                let exact = exact(f64::from(x));
                if exact.abs() < 1.2e-38 {
                    assert!(f64::from(y).abs() < 1.3e-38, "{activation} {x}: {y} for {exact}");
                    continue;
                }
                let rounded = exact as f32;
                let ulp = f64::from(f32::from_bits(rounded.abs().to_bits() + 1)) - f64::from(rounded.abs());
                let error = (f64::from(y) - exact).abs() / ulp;
                if error > worst.0 {
                    worst = (error, x);
                }
            }
            assert!(worst.0 <= 2.5, "{activation}: {} ulp at {}", worst.0, worst.1);
        }
    }

    /// The library's functions are within an ulp, which the bound includes.
    #[test]
    fn f64_functions_are_within_their_bound() {
        let x: Vec<f64> = (-80_000..80_000).map(|i| (f64::from(i) + 0.5) * 0.000_987_654_321).collect();
        let small: Vec<f64> = (1..300).map(|i| 10f64.powi(-i)).collect();
        for x in [x, small] {
            for activation in [Activation::Sigmoid, Activation::Tanh] {
                for (&x, y) in x.iter().zip(map(Isa::detect(), activation, &x)) {
                    let near: f64 = match activation {
                        // 1 + e^-x loses bits of its own only by rounding once.
                        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                        _ => x.tanh(),
                    };
                    let error = (y - near).abs() / (near.abs() * f64::EPSILON);
                    assert!(error <= 4.0, "{activation}({x}) = {y}, not {near}: {error} ulp");
                }
            }
        }
    }

    #[test]
    fn limits_nan_and_infinity() {
        fn check<E: CpuElement>() {
            let (inf, nan) = (E::infinity(), E::nan());
            let x = [inf, -inf, nan, E::zero(), E::max_value(), E::min_value(), -E::of(1000.0)];
            for isa in Isa::all_fused() {
                let y = map(isa, Activation::Sigmoid, &x);
                assert_eq!([y[0], y[1], y[3], y[4], y[5], y[6]].map(|v| v.wide()), [1.0, 0.0, 0.5, 1.0, 0.0, 0.0]);
                assert!(y[2].is_nan());
                let y = map(isa, Activation::Tanh, &x);
                assert_eq!([y[0], y[1], y[3], y[4], y[5], y[6]].map(|v| v.wide()), [1.0, -1.0, 0.0, 1.0, -1.0, -1.0]);
                assert!(y[2].is_nan());
            }
        }
        check::<f32>();
        check::<f64>();
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let x: Vec<f32> = arguments().into_iter().step_by(7).collect();
        let wide: Vec<f64> = (-40_003..40_000).map(|i| f64::from(i) * 0.019_876_543).collect();
        for activation in [Activation::Sigmoid, Activation::Tanh, Activation::Softplus] {
            let best: Vec<u32> = map(Isa::detect(), activation, &x).iter().map(|y| y.to_bits()).collect();
            let best_wide: Vec<u64> = map(Isa::detect(), activation, &wide).iter().map(|y| y.to_bits()).collect();
            for isa in Isa::all_fused() {
                let other: Vec<u32> = map(isa, activation, &x).iter().map(|y| y.to_bits()).collect();
                assert!(best == other, "{activation} differs on {}", isa.name());
                let other: Vec<u64> = map(isa, activation, &wide).iter().map(|y| y.to_bits()).collect();
                assert!(best_wide == other, "{activation} differs on {}", isa.name());
            }
        }
    }
}
