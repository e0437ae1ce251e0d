//! Matrix products on packed operands.
//!
//! A product is cut into tiles of a few rows by two vectors that stay in registers. The right operand is packed into
//! *panels*, two vectors wide: `[panel][k][2 * LANES]`, zero beyond the last column. The left operand is packed block by
//! block into `[block][k][rows]` right before it is used.
//!
//! The sum of an output runs over `k` in ascending order with one accumulator for every [`DEPTH`] products, and the partial
//! sums are added to the output in order. So the bits depend neither on the tile's shape, nor on the instruction set, nor on
//! how rows are split among threads.
//!
//! | file | what |
//! |---|---|
//! | `tile` | a tile in registers |
//! | `blocks` | rows that are packed at once |
//! | `pack` | right operands in panels |
//! | `product` | rows times panels |
//! | `transposed` | a transposed left operand, over many rows, times several right ones |
//! | `outer` | the same over few rows |
//! | `gemv` | a time step's product; a single sequence reads the weights where they lie |
//! | `direct` | products of a few rows, which are read where they lie |
//! | `sums` | sums of rows |
//! | `amx` | rows times panels, and the transposed product, on the matrix unit |

pub(crate) mod amx;
mod blocks;
mod direct;
pub(crate) mod gemv;
mod outer;
mod pack;
mod product;
mod sums;
mod tile;
mod transposed;

pub(crate) use direct::{DirectProduct, DirectSums, Written};
pub(crate) use pack::{Panels, pack_columns, pack_rows, panel_len, panels_len};
pub(crate) use product::{multiply, multiply_scratch};
pub(crate) use sums::sum_rows;
pub(crate) use tile::Start;
pub(crate) use transposed::{Columns, Right, multiply_transposed, multiply_transposed_scratch};

/// Products that are summed in a register before the sum is added to the output.
pub(crate) const DEPTH: usize = 512;
