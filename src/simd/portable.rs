//! Vectors as small arrays, which the compiler turns into whatever the target always has (NEON on aarch64).

use super::Simd;

/// `FUSED` forces a fused multiply-add even where it is a library call.
#[derive(Clone, Copy)]
pub(super) struct Portable<const FUSED: bool>;

const LANES: usize = 4;

/// Targets on which `mul_add` would be a slow library call.
const NO_FMA: bool = cfg!(all(any(target_arch = "x86", target_arch = "x86_64"), not(target_feature = "fma")));

macro_rules! portable {
    ($E:ty, $bits:ty, $mantissa:literal, $bias:literal) => {
        impl<const FUSED: bool> Simd<$E> for Portable<FUSED> {
            type V = [$E; LANES];
            const LANES: usize = LANES;
            const ROWS: usize = if cfg!(target_arch = "aarch64") && size_of::<$E>() == 4 { 12 } else { 6 };

            #[inline(always)]
            fn prefetch(self, _: &$E) {}

            #[inline(always)]
            fn prefetch_ahead(self, _: &[$E], _: usize) {}
            #[inline(always)]
            fn splat(self, value: $E) -> Self::V {
                [value; LANES]
            }
            #[inline(always)]
            fn load(self, from: &[$E]) -> Self::V {
                [from[0], from[1], from[2], from[3]]
            }
            #[inline(always)]
            fn load_head(self, from: &[$E]) -> Self::V {
                std::array::from_fn(|i| from.get(i).copied().unwrap_or(0.0))
            }
            #[inline(always)]
            fn store(self, to: &mut [$E], v: Self::V) {
                to[..LANES].copy_from_slice(&v);
            }
            #[inline(always)]
            fn store_head(self, to: &mut [$E], v: Self::V) {
                to.iter_mut().zip(v).for_each(|(to, v)| *to = v);
            }
            #[inline(always)]
            fn transpose_four(self, from: [&[$E; 4]; 4], to: &mut [$E], stride: usize) {
                for i in 0..4 {
                    to[i * stride..][..4].copy_from_slice(&[from[0][i], from[1][i], from[2][i], from[3][i]]);
                }
            }
            #[inline(always)]
            fn add(self, a: Self::V, b: Self::V) -> Self::V {
                std::array::from_fn(|i| a[i] + b[i])
            }
            #[inline(always)]
            fn sub(self, a: Self::V, b: Self::V) -> Self::V {
                std::array::from_fn(|i| a[i] - b[i])
            }
            #[inline(always)]
            fn mul(self, a: Self::V, b: Self::V) -> Self::V {
                std::array::from_fn(|i| a[i] * b[i])
            }
            #[inline(always)]
            fn div(self, a: Self::V, b: Self::V) -> Self::V {
                std::array::from_fn(|i| a[i] / b[i])
            }
            #[inline(always)]
            fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                std::array::from_fn(|i| if NO_FMA && !FUSED { a[i] * b[i] + c[i] } else { a[i].mul_add(b[i], c[i]) })
            }
            #[inline(always)]
            fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                std::array::from_fn(|i| if NO_FMA && !FUSED { c[i] - a[i] * b[i] } else { (-a[i]).mul_add(b[i], c[i]) })
            }
            #[inline(always)]
            fn min(self, a: Self::V, b: Self::V) -> Self::V {
                std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
            }
            #[inline(always)]
            fn max(self, a: Self::V, b: Self::V) -> Self::V {
                std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
            }
            #[inline(always)]
            fn zero_where_less(self, a: Self::V, b: Self::V, v: Self::V) -> Self::V {
                std::array::from_fn(|i| if a[i] < b[i] { 0.0 } else { v[i] })
            }
            #[inline(always)]
            fn exp2_of_rounded(self, rounded: Self::V) -> Self::V {
                let one: $bits = $bias << $mantissa;
                std::array::from_fn(|i| <$E>::from_bits((rounded[i].to_bits() << $mantissa).wrapping_add(one)))
            }
        }
    };
}

portable!(f32, u32, 23, 127);
portable!(f64, u64, 52, 1023);
