//! Work on rows that know nothing of each other, divided among threads.
//!
//! A row is whatever is computed on its own: an element, a row of a matrix, a column of sums. Its results do not depend on which thread
//! computes it beside which others.

use crate::backend::cpu::threads::{Divide, Threads, share};
use crate::error::Result;

/// Tensors that can be cut between two rows.
pub(super) trait Part: Send + Sized {
    fn split_at(self, row: usize) -> (Self, Self);
}

/// What is read: so many elements a row.
pub(super) struct Read<'a, E>(pub(super) &'a [E], pub(super) usize);

/// What is written: so many elements a row.
pub(super) struct Write<'a, E>(pub(super) &'a mut [E], pub(super) usize);

impl<E: Sync> Part for Read<'_, E> {
    fn split_at(self, row: usize) -> (Self, Self) {
        let (first, second) = self.0.split_at(row * self.1);
        (Read(first, self.1), Read(second, self.1))
    }
}

impl<E: Send> Part for Write<'_, E> {
    fn split_at(self, row: usize) -> (Self, Self) {
        let (first, second) = self.0.split_at_mut(row * self.1);
        (Write(first, self.1), Write(second, self.1))
    }
}

impl<P: Part> Part for Option<P> {
    fn split_at(self, row: usize) -> (Self, Self) {
        self.map(|part| part.split_at(row)).unzip()
    }
}

macro_rules! tuple {
    ($($part:ident),*) => {
        impl<$($part: Part),*> Part for ($($part,)*) {
            #[allow(non_snake_case)]
            fn split_at(self, row: usize) -> (Self, Self) {
                let ($($part,)*) = self;
                $(let $part = $part.split_at(row);)*
                (($($part.0,)*), ($($part.1,)*))
            }
        }
    };
}

tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, F);

/// Calls `work` with the number of a part's first row and the part, for parts that together are all `rows`. `operations` is what a row
/// takes, in the unit of [`Threads::worth`].
pub(super) fn by_rows<P: Part, W: Fn(usize, P) + Sync>(
    threads: &Threads,
    rows: usize,
    operations: f64,
    parts: P,
    work: W,
) -> Result<()> {
    let workers = threads.worth(operations * rows as f64).min(rows.max(1));
    if workers == 1 {
        work(0, parts);
        return Ok(());
    }
    threads.start(workers)?;
    threads.workers(workers).divide(Rows { first: 0, count: rows, parts, work: &work });
    Ok(())
}

struct Rows<'w, P, W> {
    first: usize,
    count: usize,
    parts: P,
    work: &'w W,
}

impl<P: Part, W: Fn(usize, P) + Sync> Divide for Rows<'_, P, W> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let Rows { first, count, parts, work } = self;
        let middle = share(count, left, of);
        let (parts_left, parts_right) = parts.split_at(middle);
        let part = |first, count, parts| Rows { first, count, parts, work };
        (part(first, middle, parts_left), part(first + middle, count - middle, parts_right))
    }

    fn run(self) {
        (self.work)(self.first, self.parts);
    }
}
