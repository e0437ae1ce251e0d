//! Vectors of `f32` or `f64`, whose instruction set is chosen at run time. A leaf: it knows no backend. All of the CPU's `unsafe` is here.
//!
//! A [`Kernel`] is a leaf computation written once over the trait [`Simd`]; `Isa::run` compiles it for each instruction
//! set and calls the best that the machine has. Everything a kernel calls must be `#[inline(always)]`, so that it is
//! compiled with the instruction set's features.
//!
//! Every operation gives the same bits on every instruction set with fused multiply-add: lanes never mix, nothing is
//! approximated, and the order of operations is the kernel's. Only x86 processors without FMA (before 2013) round twice in
//! [`Simd::mul_add`].
#![expect(
    clippy::indexing_slicing,
    reason = "of arrays as long as a vector, by its lanes; loads and stores check the lengths of their slices"
)]
#![allow(unsafe_code)]

pub(crate) mod amx;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use crate::dtype::Scalar;
use crate::error::{Error, Result};

/// The environment variable that chooses an instruction set: to test one that a machine would not use, or to compare with it.
const CHOICE: &str = "FUSED_RNN_INSTRUCTION_SET";

/// Most lanes that any vector has.
pub(crate) const MAX_LANES: usize = 16;

/// A computation to be compiled for every instruction set. Implementations are `#[inline(always)]`.
pub trait Kernel<E: Scalar> {
    /// What it gives.
    type Output;
    /// Runs with the vectors of `simd`.
    fn run<S: Simd<E>>(self, simd: S) -> Self::Output;
}

/// Vectors of `E`. A value is a proof that the machine has the instructions.
pub trait Simd<E: Scalar>: Copy {
    /// One vector.
    type V: Copy;
    /// Elements of a vector, at most 16.
    const LANES: usize;
    /// Most rows of a matrix tile two vectors wide that fit the registers.
    const ROWS: usize;

    /// Asks for the cache line of an element that will be needed soon.
    fn prefetch(self, from: &E);
    /// The same, for the element `ahead` after the first of a slice, which need not be there.
    fn prefetch_ahead(self, from: &[E], ahead: usize);
    /// All lanes `value`.
    fn splat(self, value: E) -> Self::V;
    /// The first [`LANES`](Self::LANES) elements.
    fn load(self, from: &[E]) -> Self::V;
    /// All elements of a slice shorter than a vector, then zeros.
    fn load_head(self, from: &[E]) -> Self::V;
    /// Writes all lanes.
    fn store(self, to: &mut [E], v: Self::V);
    /// Fills a slice shorter than a vector from the first lanes.
    fn store_head(self, to: &mut [E], v: Self::V);
    /// The transpose of a square: `to[i * stride..][..4]` is element `i` of each row of `from`.
    fn transpose_four(self, from: [&[E; 4]; 4], to: &mut [E], stride: usize);
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`, correctly rounded.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`, rounded once.
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a` where it is smaller, else `b`: a NaN in `b` stays.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where it is larger, else `b`: a NaN in `b` stays.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `v`, but zero where `a < b`. A NaN is not less.
    fn zero_where_less(self, a: Self::V, b: Self::V, v: Self::V) -> Self::V;
    /// `2^n`, where `rounded` is `n` plus the constant that pushes an integer into the lowest bits of the mantissa.
    fn exp2_of_rounded(self, rounded: Self::V) -> Self::V;
}

/// `from[at..at + n]`, zeros beyond; `n` is at most a vector.
#[inline(always)]
pub(crate) fn load_part<E: Scalar, S: Simd<E>>(s: S, from: &[E], at: usize, n: usize) -> S::V {
    if n == S::LANES { s.load(&from[at..at + S::LANES]) } else { s.load_head(&from[at..at + n]) }
}

/// Writes `to[at..at + n]`; `n` is at most a vector.
#[inline(always)]
pub(crate) fn store_part<E: Scalar, S: Simd<E>>(s: S, to: &mut [E], at: usize, n: usize, v: S::V) {
    if n == S::LANES { s.store(&mut to[at..at + S::LANES], v) } else { s.store_head(&mut to[at..at + n], v) }
}

/// What element types need: a way to every instruction set. Implemented for `f32` and `f64`, and sealed.
pub trait SimdElement: Scalar {
    /// Runs `kernel` under `isa`.
    #[doc(hidden)]
    fn dispatch<K: Kernel<Self>>(isa: Isa, kernel: K) -> K::Output;
    /// Constants of the exponential function.
    #[doc(hidden)]
    const EXP: ExpConstants<Self>;
}

/// Constants of `expm1`.
pub struct ExpConstants<E: 'static> {
    /// `1.5 * 2^(mantissa bits)`: added and subtracted it rounds to an integer.
    pub(crate) round: E,
    /// High part of ln 2; times any exponent it is exact.
    pub(crate) ln2_high: E,
    /// ln 2 less its high part.
    pub(crate) ln2_low: E,
    /// Largest magnitude whose exponential is a normal number.
    pub(crate) limit: E,
    /// Argument of tanh, doubled, beyond which it rounds to one.
    pub(crate) tanh_limit: E,
    /// `(e^r - 1 - r) / r^2` for `|r| <= ln(2) / 2`, lowest power first.
    pub(crate) polynomial: &'static [E],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// AVX-512 vectors, and AMX for large products.
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
    /// The portable vectors with `mul_add` from the mathematics library where the processor has none: slow, for tests.
    #[cfg(test)]
    PortableFused,
}

/// An instruction set that this machine is known to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

impl Isa {
    /// The widest vectors of this machine, and its matrix unit.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
            {
                static HAS_TILES: OnceLock<bool> = OnceLock::new();
                return Isa(if *HAS_TILES.get_or_init(amx::is_available) { Level::Amx } else { Level::Avx512 });
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa(Level::Avx2);
            }
        }
        Isa(Level::Portable)
    }

    /// Those of this machine, the best first.
    fn all() -> Vec<Self> {
        let best = Isa::detect();
        #[cfg(target_arch = "x86_64")]
        let all = [Level::Amx, Level::Avx512, Level::Avx2, Level::Portable];
        #[cfg(not(target_arch = "x86_64"))]
        let all = [Level::Portable];
        all.into_iter().map(Isa).skip_while(|isa| *isa != best).collect()
    }

    /// The same vectors without the matrix unit.
    pub(crate) fn without_tiles(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        if self.0 == Level::Amx {
            return Isa(Level::Avx512);
        }
        self
    }

    /// Whether there is a matrix unit, for products of `f32`.
    pub(crate) fn has_tiles(self) -> bool {
        self != self.without_tiles()
    }

    /// The matrix unit, if there is one.
    pub(crate) fn tiles(self) -> Option<amx::Tiles> {
        // SAFETY: a value with the unit is made by `Isa::detect`, which has found it, and by `Isa::all` from what that found.
        self.has_tiles().then(|| unsafe { amx::Tiles::found() })
    }

    /// What the environment variable [`CHOICE`] says, which must be one of this machine's; the best where it is not set.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::error::Error::InvalidOption) for any other value.
    pub(crate) fn chosen() -> Result<Self> {
        static CHOSEN: OnceLock<std::result::Result<Isa, String>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| match std::env::var_os(CHOICE) {
            None => Ok(Isa::detect()),
            Some(name) => Isa::named(&name.to_string_lossy()),
        });
        chosen.clone().map_err(|name| {
            let all: Vec<_> = Isa::all().into_iter().map(Isa::name).collect();
            Error::option(CHOICE, format!("{}, which this machine has, or unset", all.join(", ")), name)
        })
    }

    fn named(name: &str) -> std::result::Result<Self, String> {
        Isa::all().into_iter().find(|isa| isa.name() == name).ok_or_else(|| name.to_owned())
    }

    /// Every instruction set of this machine that has fused multiply-add, and so must give the same bits.
    #[cfg(test)]
    pub(crate) fn all_fused() -> Vec<Self> {
        let mut all = vec![Isa(Level::PortableFused)];
        #[cfg(target_arch = "x86_64")]
        match Isa::detect().0 {
            Level::Amx | Level::Avx512 => all.extend([Isa(Level::Avx2), Isa(Level::Avx512)]),
            Level::Avx2 => all.push(Isa(Level::Avx2)),
            _ => {}
        }
        all
    }

    /// Name, for reports.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            Level::Portable => "portable",
            #[cfg(test)]
            Level::PortableFused => "portable with fused multiply-add",
        }
    }

    /// Runs `kernel` with this instruction set.
    #[inline]
    pub(crate) fn run<E: SimdElement, K: Kernel<E>>(self, kernel: K) -> K::Output {
        E::dispatch(self, kernel)
    }

    /// Lanes of a vector of `E`.
    pub(crate) fn lanes<E: SimdElement>(self) -> usize {
        struct Lanes;
        impl<E: Scalar> Kernel<E> for Lanes {
            type Output = usize;
            #[inline(always)]
            fn run<S: Simd<E>>(self, _: S) -> usize {
                S::LANES
            }
        }
        self.run::<E, _>(Lanes)
    }

    /// Most rows of a matrix tile of `E`.
    pub(crate) fn rows<E: SimdElement>(self) -> usize {
        struct Rows;
        impl<E: Scalar> Kernel<E> for Rows {
            type Output = usize;
            #[inline(always)]
            fn run<S: Simd<E>>(self, _: S) -> usize {
                S::ROWS
            }
        }
        self.run::<E, _>(Rows)
    }
}

/// Computes `repeats` times twelve independent vectors of fused multiply-adds, as fast as one core can: for measuring how fast that is.
/// Returns the number of floating-point operations, two a multiply-add, and a sum of what was computed, so that it is not left out.
pub fn multiply_adds<E: SimdElement>(repeats: usize) -> (f64, f64) {
    struct MultiplyAdds(usize);

    impl<E: Scalar> Kernel<E> for MultiplyAdds {
        type Output = (f64, f64);

        #[inline(always)]
        fn run<S: Simd<E>>(self, s: S) -> (f64, f64) {
            const CHAINS: usize = 12; // Twice as many as a latency of four clocks and two units need, less than there are registers.
            let (factor, term) = (s.splat(E::of(0.999_9)), s.splat(E::of(1e-4)));
            let mut chains = [s.splat(E::of(0.5)); CHAINS];
            for _ in 0..self.0 {
                for chain in &mut chains {
                    *chain = s.mul_add(*chain, factor, term);
                }
            }
            let (mut lanes, mut sum) = ([E::of(0.0); MAX_LANES], 0.0);
            for chain in chains {
                s.store(&mut lanes, chain);
                sum += lanes[0].wide();
            }
            ((2 * CHAINS * S::LANES) as f64 * self.0 as f64, sum)
        }
    }

    Isa::chosen().unwrap_or_else(|_| Isa::detect()).run::<E, _>(MultiplyAdds(repeats))
}

macro_rules! element {
    ($E:ty, $exp:expr) => {
        impl SimdElement for $E {
            #[inline]
            fn dispatch<K: Kernel<Self>>(isa: Isa, kernel: K) -> K::Output {
                match isa.0 {
                    // SAFETY: these values are made by `Isa::detect`, which found the features, and by `Isa::all` from what that found.
                    #[cfg(target_arch = "x86_64")]
                    Level::Amx | Level::Avx512 => unsafe { x86::run_avx512::<$E, K>(kernel) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => unsafe { x86::run_avx2::<$E, K>(kernel) },
                    Level::Portable => kernel.run(portable::Portable::<false>),
                    #[cfg(test)]
                    Level::PortableFused => kernel.run(portable::Portable::<true>),
                }
            }

            const EXP: ExpConstants<$E> = $exp;
        }
    };
}

element!(
    f32,
    ExpConstants {
        round: 12_582_912.0,
        ln2_high: 0.693_359_4,
        ln2_low: -2.121_944_4e-4,
        limit: 87.33,
        tanh_limit: 40.0,
        // Weighted least-maximum fit; relative error of expm1 1.4e-8.
        polynomial: &[0.5, 0.166_665_43, 0.041_666_28, 0.008_366_611, 0.001_394_649_7],
    }
);

element!(
    f64,
    ExpConstants {
        round: 6_755_399_441_055_744.0,
        ln2_high: 6.931_471_803_691_238e-1,
        ln2_low: 1.908_214_929_270_587_7e-10,
        limit: 708.39,
        tanh_limit: 80.0,
        // Taylor: the first term left out is below 4e-18 of the sum.
        polynomial: &[
            1.0 / 2.0,
            1.0 / 6.0,
            1.0 / 24.0,
            1.0 / 120.0,
            1.0 / 720.0,
            1.0 / 5_040.0,
            1.0 / 40_320.0,
            1.0 / 362_880.0,
            1.0 / 3_628_800.0,
            1.0 / 39_916_800.0,
            1.0 / 479_001_600.0,
            1.0 / 6_227_020_800.0,
        ],
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_sets_are_found_by_name() {
        for isa in Isa::all() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
        assert_eq!(Isa::all()[0], Isa::detect());
        for name in ["", "AVX2", "avx1024", "avx2 "] {
            assert_eq!(Isa::named(name), Err(name.to_owned()));
        }
    }
}
