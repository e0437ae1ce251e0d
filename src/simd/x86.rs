//! AVX-512 and AVX2 with FMA.

use std::arch::x86_64::*;

use super::{Kernel, Simd};
use crate::dtype::Scalar;

/// Proof of AVX-512F; made only by [`run_avx512`].
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// Proof of AVX2 and FMA; made only by [`run_avx2`].
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// # Safety
///
/// The machine has AVX-512F, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn run_avx512<E: Scalar, K: Kernel<E>>(kernel: K) -> K::Output
where
    Avx512: Simd<E>,
{
    kernel.run(Avx512(()))
}

/// # Safety
///
/// The machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run_avx2<E: Scalar, K: Kernel<E>>(kernel: K) -> K::Output
where
    Avx2: Simd<E>,
{
    kernel.run(Avx2(()))
}

/// [`Simd::transpose_four`], with what every x86-64 processor has.
#[inline(always)]
fn transpose_f32(from: [&[f32; 4]; 4], to: &mut [f32], stride: usize) {
    // SAFETY: SSE is part of x86-64; every load has its four elements.
    let columns = unsafe {
        let (a, b) = (_mm_loadu_ps(from[0].as_ptr()), _mm_loadu_ps(from[1].as_ptr()));
        let (c, d) = (_mm_loadu_ps(from[2].as_ptr()), _mm_loadu_ps(from[3].as_ptr()));
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        [_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab), _mm_movelh_ps(ab_high, cd_high), _mm_movehl_ps(cd_high, ab_high)]
    };
    for (i, column) in columns.into_iter().enumerate() {
        let to = &mut to[i * stride..][..4];
        // SAFETY: SSE as above; the slice has four elements.
        unsafe { _mm_storeu_ps(to.as_mut_ptr(), column) }
    }
}

/// [`Simd::transpose_four`], with what every x86-64 processor has.
#[inline(always)]
fn transpose_f64(from: [&[f64; 4]; 4], to: &mut [f64], stride: usize) {
    for i in [0, 2] {
        let (first, second) = to[i * stride..].split_at_mut(stride);
        for r in [0, 2] {
            let (a, b) = (&from[r][i..i + 2], &from[r + 1][i..i + 2]);
            let (first, second) = (&mut first[r..r + 2], &mut second[r..r + 2]);
            // SAFETY: SSE2 is part of x86-64; all four slices have two elements.
            unsafe {
                let (a, b) = (_mm_loadu_pd(a.as_ptr()), _mm_loadu_pd(b.as_ptr()));
                _mm_storeu_pd(first.as_mut_ptr(), _mm_unpacklo_pd(a, b));
                _mm_storeu_pd(second.as_mut_ptr(), _mm_unpackhi_pd(a, b));
            }
        }
    }
}

macro_rules! arithmetic {
    ($V:ty, $E:ty, $add:ident, $sub:ident, $mul:ident, $div:ident, $fmadd:ident, $fnmadd:ident, $min:ident, $max:ident, $set1:ident, $load:ident, $store:ident, $transpose:ident) => {
        // SAFETY of every block in this macro: `self` proves that the machine has the instruction; loads and stores are
        // preceded by a check of the slice's length.
        #[inline(always)]
        fn prefetch(self, from: &$E) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(from).cast()) }
        }
        #[inline(always)]
        fn prefetch_ahead(self, from: &[$E], ahead: usize) {
            // A prefetch of an address that is not mapped does nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(ahead).cast()) }
        }
        #[inline(always)]
        fn splat(self, value: $E) -> $V {
            unsafe { $set1(value) }
        }
        #[inline(always)]
        fn load(self, from: &[$E]) -> $V {
            let from = &from[..<Self as Simd<$E>>::LANES];
            unsafe { $load(from.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, to: &mut [$E], v: $V) {
            let to = &mut to[..<Self as Simd<$E>>::LANES];
            unsafe { $store(to.as_mut_ptr(), v) }
        }
        #[inline(always)]
        fn transpose_four(self, from: [&[$E; 4]; 4], to: &mut [$E], stride: usize) {
            $transpose(from, to, stride);
        }
        #[inline(always)]
        fn add(self, a: $V, b: $V) -> $V {
            unsafe { $add(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: $V, b: $V) -> $V {
            unsafe { $sub(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: $V, b: $V) -> $V {
            unsafe { $mul(a, b) }
        }
        #[inline(always)]
        fn div(self, a: $V, b: $V) -> $V {
            unsafe { $div(a, b) }
        }
        #[inline(always)]
        fn mul_add(self, a: $V, b: $V, c: $V) -> $V {
            unsafe { $fmadd(a, b, c) }
        }
        #[inline(always)]
        fn neg_mul_add(self, a: $V, b: $V, c: $V) -> $V {
            unsafe { $fnmadd(a, b, c) }
        }
        #[inline(always)]
        fn min(self, a: $V, b: $V) -> $V {
            unsafe { $min(a, b) }
        }
        #[inline(always)]
        fn max(self, a: $V, b: $V) -> $V {
            unsafe { $max(a, b) }
        }
    };
}

macro_rules! avx512 {
    ($E:ty, $V:ty, $lanes:literal, $mask:ty, $maskz_load:ident, $mask_store:ident, $cmp:ident, $maskz_mov:ident, $($op:ident),*;
     $to_bits:ident, $from_bits:ident, $shift:ident, $mantissa:literal, $iadd:ident, $iset1:ident, $bias:expr) => {
        impl Simd<$E> for Avx512 {
            type V = $V;
            const LANES: usize = $lanes;
            const ROWS: usize = 14;

            arithmetic!($V, $E, $($op),*);

            #[inline(always)]
            fn load_head(self, from: &[$E]) -> $V {
                let len = from.len().min(<Self as Simd<$E>>::LANES - 1);
                // SAFETY: `self` proves the instruction; the mask keeps it within the slice.
                unsafe { $maskz_load((1 as $mask << len) - 1, from.as_ptr()) }
            }
            #[inline(always)]
            fn store_head(self, to: &mut [$E], v: $V) {
                let len = to.len().min(<Self as Simd<$E>>::LANES - 1);
                // SAFETY: as in `load_head`.
                unsafe { $mask_store(to.as_mut_ptr(), (1 as $mask << len) - 1, v) }
            }
            #[inline(always)]
            fn zero_where_less(self, a: $V, b: $V, v: $V) -> $V {
                // SAFETY: `self` proves the instructions.
                unsafe { $maskz_mov($cmp::<_CMP_NLT_UQ>(a, b), v) }
            }
            #[inline(always)]
            fn exp2_of_rounded(self, rounded: $V) -> $V {
                // SAFETY: `self` proves the instructions.
                unsafe { $from_bits($iadd($shift::<$mantissa>($to_bits(rounded)), $iset1($bias << $mantissa))) }
            }
        }
    };
}

avx512!(f32, __m512, 16, __mmask16, _mm512_maskz_loadu_ps, _mm512_mask_storeu_ps, _mm512_cmp_ps_mask, _mm512_maskz_mov_ps,
    _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps, _mm512_div_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_min_ps, _mm512_max_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, transpose_f32;
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_slli_epi32, 23, _mm512_add_epi32, _mm512_set1_epi32, 127);
avx512!(f64, __m512d, 8, __mmask8, _mm512_maskz_loadu_pd, _mm512_mask_storeu_pd, _mm512_cmp_pd_mask, _mm512_maskz_mov_pd,
    _mm512_add_pd, _mm512_sub_pd, _mm512_mul_pd, _mm512_div_pd, _mm512_fmadd_pd, _mm512_fnmadd_pd, _mm512_min_pd, _mm512_max_pd, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, transpose_f64;
    _mm512_castpd_si512, _mm512_castsi512_pd, _mm512_slli_epi64, 52, _mm512_add_epi64, _mm512_set1_epi64, 1023);

/// `$lanes` times all bits set, then as many zeros.
macro_rules! on_off {
    ($I:ty, $lanes:literal) => {{
        let mut table = [0 as $I; 2 * $lanes];
        let mut i = 0;
        while i < $lanes {
            table[i] = -1;
            i += 1;
        }
        table
    }};
}

macro_rules! avx2 {
    ($E:ty, $V:ty, $lanes:literal, $I:ty, $mask_load:ident, $mask_store:ident, $cmp:ident, $and:ident, $($op:ident),*;
     $to_bits:ident, $from_bits:ident, $shift:ident, $mantissa:literal, $iadd:ident, $iset1:ident, $bias:expr) => {
        impl Simd<$E> for Avx2 {
            type V = $V;
            const LANES: usize = $lanes;
            const ROWS: usize = 6;

            arithmetic!($V, $E, $($op),*);

            #[inline(always)]
            fn load_head(self, from: &[$E]) -> $V {
                const ON_OFF: [$I; 2 * $lanes] = on_off!($I, $lanes);
                let len = from.len().min(<Self as Simd<$E>>::LANES - 1);
                // SAFETY: `self` proves the instructions; the window of `ON_OFF` ends within it, and the mask keeps the
                // load within the slice.
                unsafe {
                    let mask = _mm256_loadu_si256(ON_OFF.as_ptr().add($lanes - len).cast());
                    $mask_load(from.as_ptr(), mask)
                }
            }
            #[inline(always)]
            fn store_head(self, to: &mut [$E], v: $V) {
                const ON_OFF: [$I; 2 * $lanes] = on_off!($I, $lanes);
                let len = to.len().min(<Self as Simd<$E>>::LANES - 1);
                // SAFETY: as in `load_head`.
                unsafe {
                    let mask = _mm256_loadu_si256(ON_OFF.as_ptr().add($lanes - len).cast());
                    $mask_store(to.as_mut_ptr(), mask, v)
                }
            }
            #[inline(always)]
            fn zero_where_less(self, a: $V, b: $V, v: $V) -> $V {
                // SAFETY: `self` proves the instructions.
                unsafe { $and($cmp::<_CMP_NLT_UQ>(a, b), v) }
            }
            #[inline(always)]
            fn exp2_of_rounded(self, rounded: $V) -> $V {
                // SAFETY: `self` proves the instructions.
                unsafe { $from_bits($iadd($shift::<$mantissa>($to_bits(rounded)), $iset1($bias << $mantissa))) }
            }
        }
    };
}

avx2!(f32, __m256, 8, i32, _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_cmp_ps, _mm256_and_ps,
    _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps, _mm256_div_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_min_ps, _mm256_max_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, transpose_f32;
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_slli_epi32, 23, _mm256_add_epi32, _mm256_set1_epi32, 127);
avx2!(f64, __m256d, 4, i64, _mm256_maskload_pd, _mm256_maskstore_pd, _mm256_cmp_pd, _mm256_and_pd,
    _mm256_add_pd, _mm256_sub_pd, _mm256_mul_pd, _mm256_div_pd, _mm256_fmadd_pd, _mm256_fnmadd_pd, _mm256_min_pd, _mm256_max_pd, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, transpose_f64;
    _mm256_castpd_si256, _mm256_castsi256_pd, _mm256_slli_epi64, 52, _mm256_add_epi64, _mm256_set1_epi64x, 1023);
