//! The matrix unit of recent x86 processors (AMX), which multiplies tiles of bf16 numbers and sums in `f32`.
//!
//! An `f32` number is the sum of three bf16 terms, each the nearest to what the terms before it leave: 24 bits in all, as many as it has. Of the nine
//! products of two numbers' terms the six largest are summed; the others are below 2^-25 of the product. So a product of tiles is as exact as one
//! by multiply-adds, for six times the work of one in bf16.
//!
//! What differs: terms below 2^-126 count as zero, so that numbers below 2^-110 lose their last bits; and where a row has an infinite element, its
//! products are NaN.
//!
//! Layouts are those of [Intel's manual](https://www.intel.com/content/www/us/en/developer/articles/technical/intel-sdm.html), `TDPBF16PS`: a left tile has 16 rows
//! of 32 numbers along the sum; a right one 16 rows, each with a pair of neighbours along the sum for 16 columns.

use std::marker::PhantomData;

/// Rows of a tile, and columns of a product's.
pub(crate) const SIDE: usize = 16;

/// Products that one instruction sums.
pub(crate) const DEPTH: usize = 32;

/// Elements of storage of an operand of [`SIDE`] by [`DEPTH`] numbers: three tiles, one for each term.
pub(crate) const OPERAND: usize = 3 * TILE;

/// Elements of storage of a tile.
const TILE: usize = SIDE * DEPTH / 2;

/// Which operand of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// Its rows are the product's.
    Left,
    /// Its columns are the product's.
    Right,
}

/// Proof that this machine has the unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles(());

/// The tile registers of this thread, ready for products until this is dropped. A thread has one of these at a time.
pub(crate) struct Registers {
    /// A register belongs to its thread.
    thread: PhantomData<*const ()>,
}

/// Whether this machine has the unit and the system lets this process use it.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_available() -> bool {
    machine::is_available()
}

impl Tiles {
    /// # Safety
    ///
    /// [`is_available`] has said so.
    pub(super) unsafe fn found() -> Self {
        Tiles(())
    }

    /// Runs `products` of so many rows, which has the registers of this thread. Fewer rows than a tile has take less time.
    pub(crate) fn with_registers(self, rows: usize, products: impl FnOnce(&Registers)) {
        // SAFETY: `self` proves that the machine has them.
        unsafe { machine::configure(rows.clamp(1, SIDE) as u8) }
        products(&Registers { thread: PhantomData });
    }

    /// The terms of sixteen rows, or columns, of a matrix: each slice has up to 32 numbers along the sum, then zeros.
    pub(crate) fn split_along(self, operand: Operand, from: &[&[f32]; SIDE], to: &mut [f32]) {
        let to = &mut to[..OPERAND];
        // SAFETY: `self` proves that the machine has the instructions; `to` has the room.
        unsafe { machine::split_along(operand == Operand::Right, from, to) }
    }

    /// Asks for the cache lines of elements that will be needed soon.
    pub(crate) fn prefetch(self, from: &[f32]) {
        for line in from.chunks(64 / size_of::<f32>()) {
            machine::prefetch(&line[0]);
        }
    }

    /// The same, with each slice across the sum: up to 16 numbers of as many rows, or columns, then zeros. Gives the sum of the slices.
    pub(crate) fn split_across(self, operand: Operand, from: &[&[f32]; DEPTH], to: &mut [f32]) -> [f32; SIDE] {
        let to = &mut to[..OPERAND];
        // SAFETY: as above.
        unsafe { machine::split_across(operand == Operand::Left, from, to) }
    }
}

impl Registers {
    /// `sums = a b` for 16 rows of `a`, or 32 in two operands, and 32 columns of `b`. An operand is a sequence of [`OPERAND`] elements along the sum; in
    /// `b` those of the first and the second 16 columns take turns.
    pub(crate) fn multiply<const HIGH: usize>(
        &self,
        a: [&[f32]; HIGH],
        b: &[f32],
        sums: &mut [[f32; 2 * SIDE]; 2 * SIDE],
    ) {
        const { assert!(HIGH == 1 || HIGH == 2, "one or two tiles of rows") };
        let depth = b.len() / (2 * OPERAND);
        let a = a.map(|a| &a[..depth * OPERAND]);
        if depth == 0 {
            return sums.fill([0.0; 2 * SIDE]);
        }
        // SAFETY: `self` is made with the registers configured; `depth` operands of each of `a` and twice as many of `b` are there.
        unsafe {
            match a[..] {
                [low, high] => machine::multiply_two(depth, low.as_ptr(), high.as_ptr(), b.as_ptr(), sums),
                [low, ..] => machine::multiply_one(depth, low.as_ptr(), b.as_ptr(), sums),
                [] => {}
            }
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: made by `with_registers` alone.
        unsafe { machine::release() }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod machine {
    use std::arch::asm;
    use std::arch::x86_64::*;

    use super::{DEPTH, SIDE, TILE};

    pub(super) fn is_available() -> bool {
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        // Its state is saved by the system: tile configuration and data.
        const STATE: u32 = 0b11 << 17;
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        if !vectors || !is_x86_feature_detected!("xsave") || __cpuid(0).eax < 7 {
            return false;
        }
        if __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) != AMX_BF16 | AMX_TILE {
            return false;
        }
        let state: u32;
        // SAFETY: the processor and the system have XSAVE, of which this is a part.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") state, out("edx") _, options(nomem, nostack, preserves_flags)) }
        state & STATE == STATE && is_permitted()
    }

    /// Asks the system for the tile registers, which it saves for those processes alone that have asked.
    fn is_permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const TILE_DATA: u64 = 18;
        let result: i64;
        // SAFETY: a system call that touches no memory of this process; the kernel keeps all registers but these three.
        unsafe {
            asm!(
                "syscall",
                inout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") TILE_DATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    /// Eight registers of 16 rows of 64 bytes, but for those of the first tile of rows and of its sums, which have `rows`.
    ///
    /// # Safety
    ///
    /// [`is_available`], and 1 to 16 rows.
    pub(super) unsafe fn configure(rows: u8) {
        #[repr(C, align(64))]
        struct Configuration {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            row_bytes: [u16; 16],
            rows: [u8; 16],
        }
        let tiles = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [rows, rows, 16, 16, rows, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        // SAFETY: the processor has the instruction; the configuration is one of 64 bytes that it accepts.
        unsafe { asm!("ldtilecfg [{0}]", in(reg) &raw const tiles, options(nostack, readonly, preserves_flags)) }
    }

    /// # Safety
    ///
    /// [`is_available`].
    pub(super) unsafe fn release() {
        // SAFETY: the processor has the instruction.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }

    pub(super) fn prefetch(from: &f32) {
        // SAFETY: SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(from).cast()) }
    }

    /// The largest finite bf16 number: larger ones would be rounded to infinity.
    const LARGEST: f32 = f32::from_bits(0x7f7f_0000);

    /// The nearest bf16 number, in the upper half of 32 bits: of two as near the one farther from zero.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    fn round(v: __m512) -> __m512 {
        let farther = _mm512_add_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(0x8000));
        _mm512_castsi512_ps(_mm512_and_si512(farther, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
    }

    /// The three terms, in the upper halves of 32 bits. Each subtraction is exact, and what it leaves has half the bits; the third term is all of it. What is not
    /// finite leaves NaN.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    fn terms(v: __m512) -> [__m512; 3] {
        // The smaller magnitude, with the sign of `v`.
        let first = round(_mm512_range_ps::<0b0010>(v, _mm512_set1_ps(LARGEST)));
        let rest = _mm512_sub_ps(v, first);
        let second = round(rest);
        [first, second, _mm512_sub_ps(rest, second)]
    }

    /// Pairs of terms in 32 bits, the first below.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    fn pair(first: __m512, second: __m512) -> __m512i {
        let first = _mm512_srli_epi32::<16>(_mm512_castps_si512(first));
        _mm512_mask_blend_epi16(0xaaaa_aaaa, first, _mm512_castps_si512(second))
    }

    /// Up to 16 elements from `at` on, then zeros.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_part(from: &[f32], at: usize) -> __m512 {
        let from = from.get(at..).unwrap_or_default();
        let lanes = from.len().min(SIDE) as u32;
        let mask = ((1_u32 << lanes) - 1) as u16;
        // SAFETY: lanes outside of the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, from.as_ptr()) }
    }

    /// # Safety
    ///
    /// [`is_available`]; `to` has three tiles.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    pub(super) unsafe fn split_along(transposed: bool, from: &[&[f32]; SIDE], to: &mut [f32]) {
        // Even lanes of both vectors, then the odd ones.
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
        for (row, from) in from.iter().enumerate() {
            let (low, high) = (load_part(from, 0), load_part(from, SIDE));
            let first = _mm512_permutex2var_ps(low, even, high);
            store_terms(first, _mm512_permutex2var_ps(low, odd, high), row, to);
        }
        if transposed {
            to.chunks_exact_mut(TILE).for_each(|tile| transpose(tile));
        }
    }

    /// # Safety
    ///
    /// [`is_available`]; `to` has three tiles.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    pub(super) unsafe fn split_across(transposed: bool, from: &[&[f32]; DEPTH], to: &mut [f32]) -> [f32; SIDE] {
        let mut sum = _mm512_setzero_ps();
        for row in 0..SIDE {
            let (first, second) = (load_part(from[2 * row], 0), load_part(from[2 * row + 1], 0));
            sum = _mm512_add_ps(_mm512_add_ps(sum, first), second);
            store_terms(first, second, row, to);
        }
        if transposed {
            to.chunks_exact_mut(TILE).for_each(|tile| transpose(tile));
        }
        // SAFETY: both are 512 bits.
        unsafe { std::mem::transmute(sum) }
    }

    /// Writes the terms of pairs to a row of each of three tiles.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    fn store_terms(first: __m512, second: __m512, row: usize, to: &mut [f32]) {
        let terms = terms(first).into_iter().zip(terms(second));
        for ((first, second), tile) in terms.zip(to.chunks_exact_mut(TILE)) {
            let to = &mut tile[row * SIDE..][..SIDE];
            // SAFETY: the slice has sixteen elements.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), pair(first, second)) }
        }
    }

    /// Of a square of 32-bit elements.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    fn transpose(tile: &mut [f32]) {
        let mut rows = [_mm512_setzero_si512(); SIDE];
        for (row, from) in rows.iter_mut().zip(tile.chunks_exact(SIDE)) {
            // SAFETY: the slice has sixteen elements.
            *row = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
        }
        let mut pairs = rows;
        for i in (0..SIDE).step_by(2) {
            pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        let mut fours = pairs;
        for i in (0..SIDE).step_by(4) {
            for half in 0..2 {
                fours[i + 2 * half] = _mm512_unpacklo_epi64(pairs[i + half], pairs[i + 2 + half]);
                fours[i + 2 * half + 1] = _mm512_unpackhi_epi64(pairs[i + half], pairs[i + 2 + half]);
            }
        }
        // `fours[4 * q + i]` has columns `i`, `4 + i`, `8 + i`, `12 + i` of rows `4 * q..4 * q + 4`, four lanes each.
        let mut columns = fours;
        for i in 0..4 {
            let low = _mm512_shuffle_i32x4::<0x88>(fours[i], fours[4 + i]);
            let high = _mm512_shuffle_i32x4::<0xdd>(fours[i], fours[4 + i]);
            let low_above = _mm512_shuffle_i32x4::<0x88>(fours[8 + i], fours[12 + i]);
            let high_above = _mm512_shuffle_i32x4::<0xdd>(fours[8 + i], fours[12 + i]);
            columns[i] = _mm512_shuffle_i32x4::<0x88>(low, low_above);
            columns[4 + i] = _mm512_shuffle_i32x4::<0x88>(high, high_above);
            columns[8 + i] = _mm512_shuffle_i32x4::<0xdd>(low, low_above);
            columns[12 + i] = _mm512_shuffle_i32x4::<0xdd>(high, high_above);
        }
        for (column, to) in columns.into_iter().zip(tile.chunks_exact_mut(SIDE)) {
            // SAFETY: the slice has sixteen elements.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), column) }
        }
    }

    /// Registers 0 to 3 hold sums, 4 and 5 tiles of rows, 6 and 7 tiles of columns. The smallest products come first; each load serves as many products as
    /// can be.
    ///
    /// # Safety
    ///
    /// [`is_available`], the registers are configured, and `depth`, at least one, operands of `a` and twice as many of `b` are there.
    pub(super) unsafe fn multiply_two(
        depth: usize,
        low: *const f32,
        high: *const f32,
        b: *const f32,
        sums: &mut [[f32; 2 * SIDE]; 2 * SIDE],
    ) {
        // SAFETY: the caller's promise; the sums are 32 rows of 128 bytes.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                // Third terms of rows with first ones of columns.
                "tileloadd tmm4, [{low} + {row}*1 + 2048]",
                "tileloadd tmm6, [{b} + {row}*1]",
                "tileloadd tmm7, [{b} + {row}*1 + 3072]",
                "tileloadd tmm5, [{high} + {row}*1 + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm4, [{low} + {row}*1 + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm5, [{high} + {row}*1 + 1024]",
                // Second and first.
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b} + {row}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{b} + {row}*1 + 4096]",
                // Second and second.
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm4, [{low} + {row}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm5, [{high} + {row}*1]",
                // First and second.
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b} + {row}*1 + 2048]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{b} + {row}*1 + 5120]",
                // First and third.
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b} + {row}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{b} + {row}*1 + 3072]",
                // First and first.
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {low}, 3072",
                "add {high}, 3072",
                "add {b}, 6144",
                "dec {depth}",
                "jnz 2b",
                "tilestored [{sums} + {row}*2], tmm0",
                "tilestored [{sums} + {row}*2 + 64], tmm1",
                "tilestored [{sums} + {row}*2 + 2048], tmm2",
                "tilestored [{sums} + {row}*2 + 2112], tmm3",
                low = inout(reg) low => _,
                high = inout(reg) high => _,
                b = inout(reg) b => _,
                depth = inout(reg) depth => _,
                row = in(reg) 64_usize,
                sums = in(reg) sums.as_mut_ptr(),
                options(nostack),
            );
        }
    }

    /// The same for one tile of rows; the sums of others are left.
    ///
    /// # Safety
    ///
    /// As above.
    pub(super) unsafe fn multiply_one(
        depth: usize,
        low: *const f32,
        b: *const f32,
        sums: &mut [[f32; 2 * SIDE]; 2 * SIDE],
    ) {
        // SAFETY: as above.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm6, [{b} + {row}*1]",
                "tileloadd tmm7, [{b} + {row}*1 + 3072]",
                "tileloadd tmm4, [{low} + {row}*1 + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm4, [{low} + {row}*1 + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm2, [{b} + {row}*1 + 1024]",
                "tileloadd tmm3, [{b} + {row}*1 + 4096]",
                "tdpbf16ps tmm0, tmm4, tmm2",
                "tdpbf16ps tmm1, tmm4, tmm3",
                "tileloadd tmm4, [{low} + {row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm2",
                "tdpbf16ps tmm1, tmm4, tmm3",
                "tileloadd tmm2, [{b} + {row}*1 + 2048]",
                "tileloadd tmm3, [{b} + {row}*1 + 5120]",
                "tdpbf16ps tmm0, tmm4, tmm2",
                "tdpbf16ps tmm1, tmm4, tmm3",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {low}, 3072",
                "add {b}, 6144",
                "dec {depth}",
                "jnz 2b",
                "tilestored [{sums} + {row}*2], tmm0",
                "tilestored [{sums} + {row}*2 + 64], tmm1",
                low = inout(reg) low => _,
                b = inout(reg) b => _,
                depth = inout(reg) depth => _,
                row = in(reg) 64_usize,
                sums = in(reg) sums.as_mut_ptr(),
                options(nostack),
            );
        }
    }
}

/// Other machines.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod machine {
    use super::{DEPTH, SIDE};

    #[cfg(target_arch = "x86_64")]
    pub(super) fn is_available() -> bool {
        false
    }

    pub(super) unsafe fn configure(_: u8) {}

    pub(super) unsafe fn release() {}

    pub(super) fn prefetch(_: &f32) {}

    pub(super) unsafe fn split_along(_: bool, _: &[&[f32]; SIDE], _: &mut [f32]) {}

    pub(super) unsafe fn split_across(_: bool, _: &[&[f32]; DEPTH], _: &mut [f32]) -> [f32; SIDE] {
        [0.0; SIDE]
    }

    pub(super) unsafe fn multiply_two(
        _: usize,
        _: *const f32,
        _: *const f32,
        _: *const f32,
        _: &mut [[f32; 2 * SIDE]; 2 * SIDE],
    ) {
    }

    pub(super) unsafe fn multiply_one(_: usize, _: *const f32, _: *const f32, _: &mut [[f32; 2 * SIDE]; 2 * SIDE]) {}
}
