//! Matrix products of a warp, and loads of their fragments.

use super::execute::try_lanes;
use super::fault::Result;
use super::instruction::*;
use super::machine::Machine;
use super::memory;
use super::numbers::{bits, float, from_bf16, from_f16, from_tf32};
use super::registers::{FULL, Registers};
use super::text::Bank;
use super::warp::Warp;

/// Rows of A and D, columns of B and D.
const ROWS: usize = 16;
const COLUMNS: usize = 8;

/// `mma.sync`, M 16, N 8, K `depth`: D = A B + C in f32. Registers: D, A, B, C.
///
/// With g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix fragments"): C and D hold (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). 16-bit
/// registers of A hold two neighbours of k from 2t on, of rows g and g + 8, then the same 8 further in k; those of B from 2t on in column g,
/// then 8 further. In tf32 a register holds one element: A (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4), B (t, g), (t + 4, g).
pub fn multiply(registers: &mut Registers, r: &[u16; OPERANDS], elements: Matrix, depth: u8) {
    let depth = usize::from(depth);
    let a_registers = if elements == Matrix::Tf32 { depth / 2 } else { depth / 4 };
    let (a_at, b_at) = (4, 4 + a_registers);
    let c_at = b_at + a_registers / 2;
    let mut a = [[0f64; 16]; ROWS];
    let mut b = [[0f64; 16]; COLUMNS];
    let half = |word: u32, upper: bool| {
        let half = if upper { (word >> 16) as u16 } else { word as u16 };
        f64::from(if elements == Matrix::F16 { from_f16(half) } else { from_bf16(half) })
    };
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for i in 0..a_registers {
            let word = registers.word(r[a_at + i])[lane];
            let row = g + 8 * (i % 2);
            if elements == Matrix::Tf32 {
                a[row][t + 4 * (i / 2)] = from_tf32(word).into();
            } else {
                let k = 2 * t + 8 * (i / 2);
                (a[row][k], a[row][k + 1]) = (half(word, false), half(word, true));
            }
        }
        for i in 0..a_registers / 2 {
            let word = registers.word(r[b_at + i])[lane];
            if elements == Matrix::Tf32 {
                b[g][t + 4 * i] = from_tf32(word).into();
            } else {
                let k = 2 * t + 8 * i;
                (b[g][k], b[g][k + 1]) = (half(word, false), half(word, true));
            }
        }
    }
    // A product of anything undefined is, in all its elements: which ones it reaches is not followed.
    let inputs = &r[a_at..c_at + 4];
    let undefined = inputs.iter().fold(0, |lanes, register| lanes | registers.undefined(Bank::Word, *register));
    let undefined = if undefined == 0 { 0 } else { FULL };
    let mut results = [[0u32; 32]; 4];
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for (i, result) in results.iter_mut().enumerate() {
            let (row, column) = (g + 8 * (i / 2), 2 * t + i % 2);
            let start = f64::from(float(registers.word(r[c_at + i])[lane]));
            let sum = (0..depth).fold(start, |sum, k| sum + a[row][k] * b[column][k]);
            result[lane] = bits(sum as f32);
        }
    }
    for (result, register) in results.iter().zip(r) {
        registers.put_words(*register, result, FULL);
        registers.define(Bank::Word, *register, undefined, FULL);
    }
}

impl Machine<'_> {
    /// `ldmatrix`: matrices of 8 by 8 halves; lanes 8i to 8i + 7 give the addresses of the rows of matrix i, of 16 bytes. Lane l gets elements
    /// 2 (l % 4) and the next of row l / 4; transposed, of columns instead.
    pub fn load_matrix(
        &mut self,
        warp: &mut Warp,
        r: &[u16; OPERANDS],
        count: u8,
        transposed: bool,
        offset: i64,
        at: u32,
    ) -> Result<()> {
        let count = usize::from(count);
        let addresses = warp.registers.word(r[count]).map(|base| u64::from(base.wrapping_add(offset as u32)));
        let mut rows = [[0u16; 8]; 32];
        let mut undefined = 0;
        try_lanes(FULL >> (32 - 8 * count), |lane| {
            let target = self.target(warp, Space::Shared, addresses[lane], 16, lane as u32)?;
            undefined |= self.check_read(warp, target, 16, u32::MAX, Order::Weak, lane as u32, at)?;
            let bytes = self.bytes(target, 16).chunks_exact(2);
            rows[lane].iter_mut().zip(bytes).for_each(|(element, bytes)| *element = memory::load(bytes) as u16);
            Ok(())
        })?;
        for matrix in 0..count {
            let element = |row: usize, column: usize| {
                let (row, column) = if transposed { (column, row) } else { (row, column) };
                u32::from(rows[8 * matrix + row][column])
            };
            let values = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4, 2 * (lane % 4));
                element(row, column + 1) << 16 | element(row, column)
            });
            warp.registers.put_words(r[matrix], &values, FULL);
            warp.registers.define(Bank::Word, r[matrix], if undefined == 0 { 0 } else { FULL }, FULL);
        }
        Ok(())
    }
}
