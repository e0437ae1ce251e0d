//! Element types: [`DType`] names one at run time, [`Stored`] is one that tensors can hold, [`Element`] one of floating-point
//! numbers, [`Scalar`] one that the host backends compute in.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16 ([`half::f16`]).
    F16,
    /// bfloat16 ([`half::bf16`]).
    Bf16,
    /// Whole numbers of 32 bits: lengths, and numbers of rows. Nothing is computed in it.
    U32,
    /// Bytes: masks of resets. Nothing is computed in it.
    U8,
}

impl DType {
    /// The name used on the command line and in files: `f32`, `f64`, `f16`, `bf16`; `u32`, `u8`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::U32 => "u32",
            DType::U8 => "u8",
        }
    }

    /// Bytes an element takes.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F64 => 8,
            DType::F16 | DType::Bf16 => 2,
            DType::U8 => 1,
        }
    }

    /// The distance from 1 to the next larger value, which of floating-point types is the relative error of rounding, doubled.
    pub fn epsilon(self) -> f64 {
        match self {
            DType::F32 => f64::from(f32::EPSILON),
            DType::F64 => f64::EPSILON,
            DType::F16 => 1.0 / 1024.0,
            DType::Bf16 => 1.0 / 128.0,
            DType::U32 | DType::U8 => 1.0,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        [DType::F32, DType::F64, DType::F16, DType::Bf16]
            .into_iter()
            .find(|d| d.name() == s)
            .ok_or_else(|| Error::option("dtype", "f32, f64, f16 or bf16", s))
    }
}

/// A type that tensors are stored in: an [`Element`], `u32` or `u8`.
pub trait Stored: bytemuck::Pod + Send + Sync + 'static {
    /// This type's run-time name.
    const DTYPE: DType;
}

impl Stored for u32 {
    const DTYPE: DType = DType::U32;
}

impl Stored for u8 {
    const DTYPE: DType = DType::U8;
}

/// A floating-point type that tensors are stored in: `f32`, `f64`, [`half::f16`] and [`half::bf16`].
pub trait Element: Stored + Default + PartialEq + fmt::Debug + fmt::Display {
    /// The nearest value of this type.
    fn of(value: f64) -> Self;

    /// The same value in `f64`, exactly.
    fn wide(self) -> f64;
}

macro_rules! element {
    ($type:ty, $dtype:ident, $of:expr, $wide:expr) => {
        impl Stored for $type {
            const DTYPE: DType = DType::$dtype;
        }

        impl Element for $type {
            fn of(value: f64) -> Self {
                $of(value)
            }

            fn wide(self) -> f64 {
                $wide(self)
            }
        }
    };
}

element!(f32, F32, |value| value as f32, f64::from);
element!(f64, F64, |value| value, |value| value);
element!(half::f16, F16, |value| half::f16::from_f32(rounded_to_odd(value)), half::f16::to_f64);
element!(half::bf16, Bf16, |value| half::bf16::from_f32(rounded_to_odd(value)), half::bf16::to_f64);

/// The value as `f32`, and where that has not all of it, the neighbour whose last bit is set: rounding it further then gives what
/// rounding the value once would, since a value beside the middle of two numbers of 16 bits never becomes the middle
/// ([Boldo and Melquiond 2008](https://doi.org/10.1109/TC.2007.70819)). `half`'s own conversion drops the lower half of the bits first.
fn rounded_to_odd(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || !near.is_finite() {
        return near;
    }
    let toward_zero = if f64::from(near).abs() > value.abs() { near.to_bits() - 1 } else { near.to_bits() };
    f32::from_bits(toward_zero | 1)
}

/// An element type that the host computes in: `f32` and `f64`.
pub trait Scalar: Element + num_traits::Float + num_traits::NumAssign + std::iter::Sum {}

impl Scalar for f32 {}
impl Scalar for f64 {}

/// The smallest magnitude that states and gradients have on the host, `2^-90` in `f32` and `2^-986` in `f64`; smaller ones are zero. They change nothing that is
/// learnt, and what is made of them (factors of weights and of derivatives, 36 bits) would be denormal numbers, with which a step takes ten times as long and
/// more: a gradient on its way through a long sequence, a classifier that is sure of its classes, or a target of zero that is met better at each step, comes there.
pub(crate) fn least_magnitude<E: Scalar>() -> E {
    E::min_positive_value() * E::of(2.0f64.powi(36))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest of the two neighbours that the type has, ties to even, found by going through all numbers of 16 bits.
    fn nearest<E: Element>(value: f64, all: &[E]) -> f64 {
        let after = all.partition_point(|v| v.wide() < value).clamp(1, all.len() - 1);
        let (low, high) = (all[after - 1].wide(), all[after].wide());
        match (value - low).partial_cmp(&(high - value)) {
            Some(std::cmp::Ordering::Less) => low,
            Some(std::cmp::Ordering::Greater) => high,
            // Positions in the list of non-negative numbers are their bits: even ones are even.
            _ if after.is_multiple_of(2) => high,
            _ => low,
        }
    }

    fn rounds_once<E: Element>(all: Vec<E>) {
        for pair in all.windows(2).step_by(7) {
            let (low, high) = (pair[0].wide(), pair[1].wide());
            let middle = (low + high) / 2.0;
            // Beside the middle by one part in 2^24 (which f32 shows in its last bits) and in 2^50 (which it does not show), and on it.
            for (nudge, name) in [(0.0, "tie"), (2f64.powi(-24), "f32"), (2f64.powi(-50), "f64")] {
                for value in [middle * (1.0 + nudge), middle * (1.0 - nudge), middle * (1.0 + 3.0 * nudge)] {
                    let expected = nearest(value, &all);
                    assert_eq!(E::of(value).wide(), expected, "{name}: {value:e} between {low:e} and {high:e}");
                    assert_eq!(E::of(-value).wide(), -expected, "{name}: -{value:e}");
                }
            }
        }
        assert!(E::of(f64::NAN).wide().is_nan());
        assert_eq!(E::of(f64::INFINITY).wide(), f64::INFINITY);
        assert_eq!(E::of(-1e300).wide(), f64::NEG_INFINITY);
        assert_eq!(E::of(-0.0).wide().to_bits(), (-0.0f64).to_bits());
        assert_eq!(E::of(1e-300).wide().to_bits(), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "of all numbers of 16 bits, which takes an hour there")]
    fn sixteen_bits_round_to_nearest() {
        rounds_once((0..0x7c00).map(half::f16::from_bits).collect());
        // Without the last binade, whose products with the nudges overflow nothing but come close.
        rounds_once((0..0x7f00).map(half::bf16::from_bits).collect());
    }
}
