//! Rows of a product in blocks that are packed at once.

/// About how many rows are packed at once for [`multiply`](super::multiply).
pub(super) const BLOCK_ROWS: usize = 112;

/// Blocks that [`Blocks`] holds at most: of [`BLOCK_ROWS`] rows, for the lowest tile.
pub(super) const MAX_BLOCKS: usize = BLOCK_ROWS.div_ceil(6) + 1;

/// A block of rows, one tile high.
#[derive(Clone, Copy, Default)]
pub(super) struct Block {
    /// First row.
    pub(super) at: usize,
    /// Rows that it takes.
    pub(super) taken: usize,
    /// Rows of its tile: those taken, rounded up to 1 or an even number.
    pub(super) width: usize,
    /// Rows of all tiles before it.
    pub(super) before: usize,
}

/// Rows cut into blocks of nearly equal size.
pub(super) struct Blocks {
    pub(super) blocks: [Block; MAX_BLOCKS],
    pub(super) count: usize,
}

impl Blocks {
    /// Cuts `rows`, at most [`BLOCK_ROWS`], into blocks of at most `most`.
    pub(super) fn new(rows: usize, most: usize) -> Self {
        let mut blocks = [Block::default(); MAX_BLOCKS];
        let (mut count, mut at, mut before) = (0, 0, 0);
        let wanted = rows.div_ceil(most);
        while at < rows {
            let share = (rows - at).div_ceil(wanted - count);
            let width = if share == 1 { 1 } else { share.next_multiple_of(2) };
            let taken = width.min(rows - at);
            blocks[count] = Block { at, taken, width, before };
            (count, at, before) = (count + 1, at + taken, before + width);
        }
        Blocks { blocks, count }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Block> {
        self.blocks[..self.count].iter()
    }
}
