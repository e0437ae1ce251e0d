//! Element types: [`DType`] names one at run time, [`Element`] is one that tensors are stored in, [`Scalar`] one that the host
//! backends compute in.

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
}

impl DType {
    /// The name used on the command line and in files: `f32`, `f64`, `f16`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
        }
    }

    /// Bytes an element takes.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 => 8,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// The distance from 1 to the next larger value.
    pub fn epsilon(self) -> f64 {
        match self {
            DType::F32 => f64::from(f32::EPSILON),
            DType::F64 => f64::EPSILON,
            DType::F16 => 1.0 / 1024.0,
            DType::Bf16 => 1.0 / 128.0,
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

/// An element type that tensors are stored in: `f32`, `f64`, [`half::f16`] and [`half::bf16`].
pub trait Element: bytemuck::Pod + Default + PartialEq + fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// This type's run-time name.
    const DTYPE: DType;

    /// The nearest value of this type.
    fn of(value: f64) -> Self;

    /// The same value in `f64`, exactly.
    fn wide(self) -> f64;
}

macro_rules! element {
    ($type:ty, $dtype:ident, $of:expr, $wide:expr) => {
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;

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
element!(half::f16, F16, half::f16::from_f64, half::f16::to_f64);
element!(half::bf16, Bf16, half::bf16::from_f64, half::bf16::to_f64);

/// An element type that the host computes in: `f32` and `f64`.
pub trait Scalar:
    Element + crate::backend::cpu::CpuElement + num_traits::Float + num_traits::NumAssign + std::iter::Sum
{
}

impl Scalar for f32 {}
impl Scalar for f64 {}
