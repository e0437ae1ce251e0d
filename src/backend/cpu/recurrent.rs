//! The recurrent weights in the products of a step: full, in blocks where there are heads, or a diagonal.
//!
//! With heads, the block of a gate and a head multiplies that head's part of the state alone. A block is a product of its own, packed
//! like any other; blocks of one element are a multiplication of vectors, which reads the weights where they lie.

use super::Call;
use super::gemm::gemv::Operand;
use super::gemm::{self, Panels, Start};
use super::geometry::Recurrent;
use super::products::Room;
use crate::backend::cpu::CpuElement;
use crate::simd::{Kernel, Simd, load_part, store_part};

/// Some rows of `weight_hh`, as a step multiplies with them.
#[derive(Clone, Copy)]
pub(super) struct RecurrentWeights<'a, E> {
    part: Recurrent,
    storage: Storage<'a, E>,
}

#[derive(Clone, Copy)]
enum Storage<'a, E> {
    /// One head.
    Full(Operand<'a, E>),
    /// A packed block for every gate and head.
    Blocks(&'a [E]),
    /// One weight a unit, as they lie.
    Diagonal(&'a [E]),
}

impl<'a, E: CpuElement> RecurrentWeights<'a, E> {
    /// Those of one head, where they are packed.
    pub(super) fn panels(&self) -> Option<(Recurrent, Panels<'a, E>)> {
        match self.storage {
            Storage::Full(Operand::Packed(panels)) => Some((self.part, panels)),
            _ => None,
        }
    }
}

impl<E: CpuElement> Call<'_, E> {
    /// Prepares rows of `weight_hh` for [`multiply_state`](Self::multiply_state).
    pub(super) fn pack_state<'o>(
        &self,
        weights: &'o [E],
        part: Recurrent,
        out: Room<'o, E>,
    ) -> RecurrentWeights<'o, E> {
        let size = self.geometry.head_size();
        let storage = match self.geometry.heads {
            1 => Storage::Full(Operand::Packed(
                self.pack_columns(size, part.rows, out, |column| self.used_row(weights, part.row + column, size)),
            )),
            _ if size == 1 => Storage::Diagonal(&weights[part.row..part.row + part.rows]),
            heads => {
                let blocks = heads * (part.rows / self.geometry.hidden);
                Storage::Blocks(out.fill(blocks * self.block_len(), |out| {
                    for (block, out) in out.chunks_exact_mut(self.block_len()).enumerate() {
                        let first = part.row + block * size;
                        let columns = 0..size.div_ceil(2 * self.isa.lanes::<E>());
                        let column = |column| self.used_row(weights, first + column, size);
                        gemm::pack_columns(self.isa, size, size, columns, column, out);
                    }
                }))
            }
        };
        RecurrentWeights { part, storage }
    }

    /// Prepares rows of `weight_hh` for [`multiply_gradient`](Self::multiply_gradient).
    pub(super) fn pack_state_transposed<'o>(
        &self,
        weights: &'o [E],
        part: Recurrent,
        out: &'o mut [E],
    ) -> RecurrentWeights<'o, E> {
        let size = self.geometry.head_size();
        let storage = match self.geometry.heads {
            1 => Storage::Full(self.step_operand(weights, part.row, part.rows, size, out)),
            _ if size == 1 => Storage::Diagonal(&weights[part.row..part.row + part.rows]),
            _ => {
                for (block, out) in out.chunks_exact_mut(self.block_len()).enumerate() {
                    let first = part.row + block * size;
                    let columns = 0..size.div_ceil(2 * self.isa.lanes::<E>());
                    let row = |row| self.used_row(weights, first + row, size);
                    gemm::pack_rows(self.isa, size, size, columns, row, out);
                }
                Storage::Blocks(out)
            }
        };
        RecurrentWeights { part, storage }
    }

    /// Elements of a packed block.
    fn block_len(&self) -> usize {
        let size = self.geometry.head_size();
        gemm::panels_len::<E>(self.isa, size, size)
    }

    /// `gates += R h` at step `t`, in the columns of the part. Row `i` of the state is `state(i)`; `gates` holds rows of gates.
    pub(super) fn multiply_state<'s>(
        &self,
        t: usize,
        rows: usize,
        state: impl Fn(usize) -> &'s [E] + Sync,
        weights: RecurrentWeights<'_, E>,
        gates: &mut [E],
        scratch: &mut [E],
    ) where
        E: 's,
    {
        let g = &self.geometry;
        let (width, hidden, size) = (g.gate_width, g.hidden, g.head_size());
        let part = weights.part;
        match weights.storage {
            Storage::Full(operand) => {
                self.step_product(t, rows, state, operand, gates, (width, part.column), Start::Add, scratch);
            }
            Storage::Blocks(blocks) => {
                for (index, block) in blocks.chunks_exact(self.block_len()).enumerate() {
                    let head = index % g.heads * size;
                    let column = part.column + index * size;
                    let operand = Operand::Packed(Panels::new(block, size, size));
                    let state = |row: usize| &state(row)[head..head + size];
                    self.step_product(t, rows, state, operand, gates, (width, column), Start::Add, scratch);
                }
            }
            Storage::Diagonal(weights) => {
                for row in 0..rows {
                    for (gate, weights) in weights.chunks_exact(hidden).enumerate() {
                        if self.is_unused_row(part.row + gate * hidden) {
                            continue;
                        }
                        let out = &mut gates[row * width + part.column + gate * hidden..][..hidden];
                        self.isa.run(AddProduct { a: weights, b: state(row), out });
                    }
                }
            }
        }
    }

    /// `dh = start + R^T da` at step `t`, with `da` in the columns of the part in rows of `gradients`, `stride` apart; `dh` is
    /// `[rows, P]`.
    #[allow(clippy::too_many_arguments)] // a product has many sizes, and each is another thing
    pub(super) fn multiply_gradient(
        &self,
        t: usize,
        rows: usize,
        (gradients, stride): (&[E], usize),
        weights: RecurrentWeights<'_, E>,
        dh: &mut [E],
        start: Start<'_, E>,
        scratch: &mut [E],
    ) {
        let g = &self.geometry;
        let (hidden, output, size) = (g.hidden, g.output, g.head_size());
        let part = weights.part;
        let gradient = |row: usize, first: usize, len: usize| &gradients[row * stride + part.column + first..][..len];
        match weights.storage {
            Storage::Full(operand) => {
                let gradient = |row: usize| gradient(row, 0, part.rows);
                self.step_product(t, rows, gradient, operand, dh, (output, 0), start, scratch);
            }
            Storage::Blocks(blocks) => {
                for (index, block) in blocks.chunks_exact(self.block_len()).enumerate() {
                    let (gate, head) = (index / g.heads, index % g.heads * size);
                    let operand = Operand::Packed(Panels::new(block, size, size));
                    let gradient = |row: usize| gradient(row, index * size, size);
                    let start = if gate == 0 { start } else { Start::Add };
                    self.step_product(t, rows, gradient, operand, dh, (output, head), start, scratch);
                }
            }
            Storage::Diagonal(weights) => {
                if let Start::Set = start {
                    dh[..rows * output].fill(E::zero());
                }
                for row in 0..rows {
                    for (gate, weights) in weights.chunks_exact(hidden).enumerate() {
                        if self.is_unused_row(part.row + gate * hidden) {
                            continue;
                        }
                        let out = &mut dh[row * output..][..output];
                        self.isa.run(AddProduct { a: weights, b: gradient(row, gate * hidden, hidden), out });
                    }
                }
            }
        }
    }
}

/// `out += a * b`
pub(super) struct AddProduct<'a, E> {
    pub(super) a: &'a [E],
    pub(super) b: &'a [E],
    pub(super) out: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for AddProduct<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let AddProduct { a, b, out } = self;
        for j in (0..out.len()).step_by(S::LANES) {
            let n = S::LANES.min(out.len() - j);
            let sum = s.mul_add(load_part(s, a, j, n), load_part(s, b, j, n), load_part(s, out, j, n));
            store_part(s, out, j, n, sum);
        }
    }
}
