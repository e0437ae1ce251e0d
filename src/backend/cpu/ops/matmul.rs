//! Products of matrices as they lie in memory, one or many.
//!
//! Small products are plain loops. For others the right operand is packed into panels, block by block of its columns, and the rows of
//! the left one are divided among threads; or where there are many products, these are. Sums are those of [`gemm`](crate::backend::cpu::gemm),
//! in an order that neither the blocks nor the threads change.

use std::ops::Range;

use crate::backend::WeightGrad;
use crate::backend::cpu::CpuElement;
use crate::backend::cpu::gemm::{self, Columns, Panels, Right, Start, gemv};
use crate::backend::cpu::threads::{Divide, Threads, Workers, share, unzip};
use crate::backend::ops::{MatMul, Orientation};
use crate::dtype::Scalar;
use crate::error::Result;
use crate::simd::Isa;

/// Up to so many products, plain loops are faster than packing.
const SMALL: usize = 1 << 13;

/// Elements of the right operand that are packed at once: what stays in a core's second cache.
const PACKED: usize = 1 << 18;

/// Rows for each thread, below which columns are divided instead, and how many rows that are at most.
const ROWS_FOR_A_THREAD: usize = 4;
const MOST_ROWS: usize = 8;

/// Elements of the right operand that a thread packs at once for so few rows: they are used while they are in the nearest caches. A packed operand that is written
/// out and read again for one row takes four times as long as the row.
const PACKED_FOR_FEW: usize = 1 << 14;

/// Rows up to which the right operand is read where it lies, if it is given by rows.
const FEW_ROWS: usize = 2;

/// Rows of a small product with one column whose sums are taken at once.
const ROWS_AT_ONCE: usize = 8;

/// Whether a product is not worth a plan.
pub(super) fn is_small(product: &MatMul) -> bool {
    let MatMul { count, m, n, k, .. } = *product;
    count.saturating_mul(m).saturating_mul(n).saturating_mul(k) <= SMALL
}

/// A call, and how it is divided.
#[derive(Clone, Copy)]
pub(super) struct Products {
    isa: Isa,
    product: MatMul,
    /// Threads that share the products among them.
    across: usize,
    /// Threads that share each product.
    within: usize,
}

impl Products {
    pub(super) fn new(isa: Isa, threads: &Threads, product: MatMul) -> Self {
        let MatMul { orientation, count, m, n, k } = product;
        // Packing an element takes about as long as ten operations.
        let packing = if orientation == Orientation::Tn { 0.0 } else { 10.0 };
        let operations = (2.0 * m as f64 + packing) * n as f64 * k as f64;
        let across = threads.worth(operations * count as f64).min(count.max(1));
        let within = threads.worth(operations);
        // Whole products need not wait for one another.
        let (across, within) = if across >= within { (across, 1) } else { (1, within) };
        Products { isa: isa.without_tiles(), product, across, within }
    }

    /// Whether the right operand is not packed.
    fn is_in_place(&self) -> bool {
        self.product.orientation == Orientation::Nn && self.product.m <= FEW_ROWS
    }

    /// Whether threads divide the columns, of which each packs its own.
    fn has_few_rows(&self) -> bool {
        let MatMul { orientation, m, .. } = self.product;
        orientation != Orientation::Tn && (m == 1 || m < (ROWS_FOR_A_THREAD * self.within).min(MOST_ROWS + 1))
    }

    /// Columns of the right operand that are packed at once.
    fn block<E: CpuElement>(&self) -> usize {
        let width = 2 * self.isa.lanes::<E>();
        let packed = if self.has_few_rows() { PACKED_FOR_FEW } else { PACKED };
        let most = self.product.n.checked_next_multiple_of(width).unwrap_or(usize::MAX).max(width);
        (packed / self.product.k.max(1) / width * width).clamp(width, most)
    }

    /// Scratch of one thread within a product, beside the packed operand.
    fn scratch_within<E: CpuElement>(&self) -> usize {
        let MatMul { orientation, m, n, k, .. } = self.product;
        let rows = m.div_ceil(self.within);
        match orientation {
            Orientation::Tn => gemm::multiply_transposed_scratch::<E>(self.isa, rows, &[n], k),
            _ => gemm::multiply_scratch::<E>(self.isa, rows, k),
        }
    }

    /// Scratch of a product.
    fn scratch<E: CpuElement>(&self) -> usize {
        let MatMul { orientation, m, n, k, .. } = self.product;
        if is_small(&MatMul::single(orientation, m, n, k)) {
            return 0;
        }
        if self.is_in_place() {
            return m.saturating_mul(k);
        }
        let packed = match orientation {
            Orientation::Tn => 0,
            _ => gemm::panels_len::<E>(self.isa, k, self.block::<E>()),
        };
        if self.has_few_rows() {
            return self.within.saturating_mul(packed);
        }
        packed.saturating_add(self.within.saturating_mul(self.scratch_within::<E>()))
    }

    /// Scratch of the call.
    pub(super) fn workspace<E: CpuElement>(&self) -> usize {
        self.across.saturating_mul(self.scratch::<E>())
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn run<E: CpuElement>(
        self,
        threads: &Threads,
        alpha: f64,
        a: &[E],
        b: &[E],
        c: &mut [E],
        grad: WeightGrad,
        scratch: &mut [E],
    ) -> Result<()> {
        let k = self.product.k;
        if c.is_empty() {
            return Ok(());
        }
        if k == 0 {
            if grad == WeightGrad::Set {
                c.fill(E::zero());
            }
            return Ok(());
        }
        let scratch = &mut scratch[..self.workspace::<E>()];
        threads.start(self.across.max(self.within))?;
        let within = threads.workers(self.within);
        let batch = Batch { all: self, within, alpha: E::of(alpha), a, b, c, grad, scratch };
        threads.workers(self.across).divide(batch);
        Ok(())
    }
}

/// Some products, one after the other.
struct Batch<'a, E> {
    all: Products,
    within: Workers<'a>,
    alpha: E,
    a: &'a [E],
    b: &'a [E],
    c: &'a mut [E],
    grad: WeightGrad,
    /// As much for each thread.
    scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for Batch<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let Batch { all, within, alpha, a, b, c, grad, scratch } = self;
        let MatMul { m, n, k, .. } = all.product;
        let count = share(c.len() / (m * n), left, of);
        let (a_left, a_right) = a.split_at(count * m * k);
        let (b_left, b_right) = b.split_at(count * n * k);
        let (c_left, c_right) = c.split_at_mut(count * m * n);
        let (scratch_left, scratch_right) = scratch.split_at_mut(scratch.len() / of * left);
        let part = |a, b, c, scratch| Batch { all, within, alpha, a, b, c, grad, scratch };
        (part(a_left, b_left, c_left, scratch_left), part(a_right, b_right, c_right, scratch_right))
    }

    fn run(self) {
        let Batch { all, within, alpha, a, b, c, grad, scratch } = self;
        let MatMul { orientation, m, n, k, .. } = all.product;
        let single = MatMul::single(orientation, m, n, k);
        if is_small(&single) {
            return small(&MatMul { count: c.len() / (m * n), ..single }, alpha, a, b, c, grad);
        }
        for ((a, b), c) in a.chunks_exact(m * k).zip(b.chunks_exact(n * k)).zip(c.chunks_exact_mut(m * n)) {
            if all.is_in_place() {
                let a = scaled(alpha, a, scratch);
                for (a, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
                    within.divide(SomeColumns { isa: all.isa, a, b, n, first: 0, c, start: start(grad) });
                }
            } else {
                Product { all, within, alpha, a, b, grad }.run(c, scratch);
            }
        }
    }
}

fn start<'a, E>(grad: WeightGrad) -> Start<'a, E> {
    if grad == WeightGrad::Add { Start::Add } else { Start::Set }
}

/// Some columns of a row times a matrix as it lies.
struct SomeColumns<'a, E> {
    isa: Isa,
    a: &'a [E],
    b: &'a [E],
    n: usize,
    first: usize,
    c: &'a mut [E],
    start: Start<'a, E>,
}

impl<E: CpuElement> Divide for SomeColumns<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let SomeColumns { isa, a, b, n, first, c, start } = self;
        let count = share(c.len(), left, of);
        let (c_left, c_right) = c.split_at_mut(count);
        let part = |first, c| SomeColumns { isa, a, b, n, first, c, start };
        (part(first, c_left), part(first + count, c_right))
    }

    fn run(self) {
        let SomeColumns { isa, a, b, n, first, c, start } = self;
        gemv::multiply_columns(isa, a, b, n, first, c, start);
    }
}

/// `alpha a`, in scratch unless that is `a` itself.
fn scaled<'s, E: Scalar>(alpha: E, a: &'s [E], scratch: &'s mut [E]) -> &'s [E] {
    if alpha == E::one() {
        return a;
    }
    let scratch = &mut scratch[..a.len()];
    scratch.iter_mut().zip(a).for_each(|(to, a)| *to = alpha * *a);
    scratch
}

/// The sum of `alpha a b`.
fn dot<E: Scalar>(alpha: E, a: &[E], b: &[E]) -> E {
    // Eight sums, so that the compiler may use vector registers; the order is fixed.
    let mut sums = [E::zero(); 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: E = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| alpha * *x * *y).sum();
    for (x, y) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += alpha * x[lane] * y[lane];
        }
    }
    sums.into_iter().sum::<E>() + tail
}

/// Plain loops, without scratch.
pub(super) fn small<E: Scalar>(product: &MatMul, alpha: E, a: &[E], b: &[E], c: &mut [E], grad: WeightGrad) {
    let MatMul { orientation, m, n, k, .. } = *product;
    if grad == WeightGrad::Set {
        c.fill(E::zero());
    }
    if c.is_empty() || k == 0 {
        return;
    }
    for ((a, b), c) in a.chunks_exact(m * k).zip(b.chunks_exact(n * k)).zip(c.chunks_exact_mut(m * n)) {
        small_one(orientation, [m, n, k], alpha, a, b, c);
    }
}

/// `c += alpha op(a) op(b)`. No size is zero.
fn small_one<E: Scalar>(orientation: Orientation, [m, n, k]: [usize; 3], alpha: E, a: &[E], b: &[E], c: &mut [E]) {
    match orientation {
        // One column, with the additions of several rows at once: the order is the same.
        Orientation::Nn if n == 1 => {
            let blocks = m / ROWS_AT_ONCE * ROWS_AT_ONCE;
            for (a, c) in a.chunks_exact(ROWS_AT_ONCE * k).zip(c.chunks_exact_mut(ROWS_AT_ONCE)) {
                let mut sums = [E::zero(); ROWS_AT_ONCE];
                sums.copy_from_slice(c);
                for (l, b) in b.iter().enumerate() {
                    for r in 0..ROWS_AT_ONCE {
                        sums[r] += alpha * a[r * k + l] * *b;
                    }
                }
                c.copy_from_slice(&sums);
            }
            for (a, c) in a[blocks * k..].chunks_exact(k).zip(&mut c[blocks..]) {
                a.iter().zip(b).for_each(|(a, b)| *c += alpha * *a * *b);
            }
        }
        Orientation::Tn if n == 1 => {
            for (a, b) in a.chunks_exact(m).zip(b) {
                c.iter_mut().zip(a).for_each(|(c, a)| *c += alpha * *a * *b);
            }
        }
        Orientation::Nt => {
            for (a, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
                c.iter_mut().zip(b.chunks_exact(k)).for_each(|(c, b)| *c += dot(alpha, a, b));
            }
        }
        Orientation::Nn => {
            for (a, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
                for (b, a) in b.chunks_exact(n).zip(a) {
                    c.iter_mut().zip(b).for_each(|(c, b)| *c += alpha * *a * *b);
                }
            }
        }
        Orientation::Tn => {
            for (a, b) in a.chunks_exact(m).zip(b.chunks_exact(n)) {
                for (c, a) in c.chunks_exact_mut(n).zip(a) {
                    c.iter_mut().zip(b).for_each(|(c, b)| *c += alpha * *a * *b);
                }
            }
        }
    }
}

/// One product that is not small.
#[derive(Clone, Copy)]
struct Product<'a, E> {
    all: Products,
    within: Workers<'a>,
    alpha: E,
    a: &'a [E],
    b: &'a [E],
    grad: WeightGrad,
}

impl<E: CpuElement> Product<'_, E> {
    fn run(&self, c: &mut [E], scratch: &mut [E]) {
        let within = self.within;
        let Products { isa, product, .. } = self.all;
        let MatMul { orientation, m, n, k, .. } = product;
        if orientation == Orientation::Tn {
            within.divide(SomeRows { of: self, rows: 0..m, columns: 0..n, panels: Panels::new(&[], k, n), c, scratch });
            return;
        }
        if self.all.has_few_rows() {
            let mut rows = c.chunks_exact_mut(n);
            let c = std::array::from_fn(|_| rows.next().unwrap_or_default());
            return within.divide(FewRows { of: self, columns: 0..n, c, scratch });
        }
        let block = self.all.block::<E>();
        let (packed, scratch) = scratch.split_at_mut(gemm::panels_len::<E>(isa, k, block));
        for first in (0..n).step_by(block) {
            let columns = first..n.min(first + block);
            let packed = &mut packed[..gemm::panels_len::<E>(isa, k, columns.len())];
            let panels = 0..columns.len().div_ceil(2 * isa.lanes::<E>());
            within.divide(Packing { of: self, columns: columns.clone(), panels, out: &mut *packed });
            let panels = Panels::new(packed, k, columns.len());
            within.divide(SomeRows { of: self, rows: 0..m, columns, panels, c: &mut *c, scratch: &mut *scratch });
        }
    }

    /// Some rows of the result, which `c` begins with, by some columns.
    fn rows(&self, rows: Range<usize>, columns: &Range<usize>, panels: Panels<'_, E>, c: &mut [E], scratch: &mut [E]) {
        let Products { isa, product, .. } = self.all;
        let MatMul { orientation, m, n, k, .. } = product;
        let first = rows.start;
        if orientation == Orientation::Tn {
            let a_row = |l: usize| &self.a[l * m..][..m];
            let b_row = |l: usize| Some(&self.b[l * n..][..n]);
            let (right, start) = ([Right { n, row: &b_row }], start(self.grad));
            let columns = &mut [Columns { first, count: rows.len(), c: [c], sums: &mut [] }];
            gemm::multiply_transposed(isa, k, self.alpha, a_row, right, columns, start, scratch);
        } else {
            let row = |i: usize| &self.a[i * k..][..k];
            let offset = |i: usize| (i - first) * n;
            let c = &mut c[columns.start..];
            gemm::multiply(isa, rows, row, panels, c, offset, start(self.grad), scratch, Workers::ONE);
        }
    }
}

/// Some columns of a result with few rows.
struct FewRows<'a, E> {
    of: &'a Product<'a, E>,
    columns: Range<usize>,
    /// These columns of each row; of rows that the result has not, none.
    c: [&'a mut [E]; MOST_ROWS],
    /// As much for each thread.
    scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for FewRows<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let FewRows { of: product, columns, c, scratch } = self;
        let width = 2 * product.all.isa.lanes::<E>();
        let count = (share(columns.len().div_ceil(width), left, of) * width).min(columns.len());
        let middle = columns.start + count;
        let (c, rest) = unzip(c.map(|c| if c.is_empty() { Default::default() } else { c.split_at_mut(count) }));
        let (scratch_left, scratch_right) = scratch.split_at_mut(scratch.len() / of * left);
        (
            FewRows { of: product, columns: columns.start..middle, c, scratch: scratch_left },
            FewRows { of: product, columns: middle..columns.end, c: rest, scratch: scratch_right },
        )
    }

    fn run(self) {
        let FewRows { of, columns, mut c, scratch } = self;
        let Products { isa, product: MatMul { k, .. }, .. } = of.all;
        let block = of.all.block::<E>();
        for first in columns.clone().step_by(block) {
            let some = first..columns.end.min(first + block);
            let packed = &mut scratch[..gemm::panels_len::<E>(isa, k, some.len())];
            let panels = 0..some.len().div_ceil(2 * isa.lanes::<E>());
            Packing { of, columns: some.clone(), panels, out: &mut *packed }.run();
            let panels = Panels::new(packed, k, some.len());
            for (a, c) in of.a.chunks_exact(k).zip(&mut c) {
                let c = &mut c[first - columns.start..][..some.len()];
                gemm::multiply(isa, 0..1, |_| a, panels, c, |_| 0, start(of.grad), &mut [], Workers::ONE);
            }
        }
    }
}

/// Panels of a block of columns of the right operand, packed and scaled.
struct Packing<'a, E> {
    of: &'a Product<'a, E>,
    columns: Range<usize>,
    panels: Range<usize>,
    out: &'a mut [E],
}

impl<E: CpuElement> Divide for Packing<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let Packing { of: product, columns, panels, out } = self;
        let count = share(panels.len(), left, of);
        let middle = panels.start + count;
        let panel_len = out.len() / panels.len().max(1);
        let (out_left, out_right) = out.split_at_mut(count * panel_len);
        let part = |panels, out| Packing { of: product, columns: columns.clone(), panels, out };
        (part(panels.start..middle, out_left), part(middle..panels.end, out_right))
    }

    fn run(self) {
        let Packing { of: &Product { all, alpha, b, .. }, columns, panels, out } = self;
        let MatMul { orientation, n, k, .. } = all.product;
        if orientation == Orientation::Nt {
            let column = |j: usize| Some(&b[(columns.start + j) * k..][..k]);
            gemm::pack_columns(all.isa, k, columns.len(), panels, column, out);
        } else {
            let row = |l: usize| Some(&b[l * n..][columns.clone()]);
            gemm::pack_rows(all.isa, k, columns.len(), panels, row, out);
        }
        if alpha != E::one() {
            out.iter_mut().for_each(|b| *b *= alpha);
        }
    }
}

/// Some rows of the result.
struct SomeRows<'a, E> {
    of: &'a Product<'a, E>,
    rows: Range<usize>,
    columns: Range<usize>,
    panels: Panels<'a, E>,
    /// Begins with these rows.
    c: &'a mut [E],
    /// As much for each thread.
    scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for SomeRows<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let SomeRows { of: product, rows, columns, panels, c, scratch } = self;
        let count = share(rows.len(), left, of);
        let middle = rows.start + count;
        let (c_left, c_right) = c.split_at_mut(count * product.all.product.n);
        let (scratch_left, scratch_right) = scratch.split_at_mut(scratch.len() / of * left);
        let part = |rows, c, scratch| SomeRows { of: product, rows, columns: columns.clone(), panels, c, scratch };
        (part(rows.start..middle, c_left, scratch_left), part(middle..rows.end, c_right, scratch_right))
    }

    fn run(self) {
        let SomeRows { of, rows, columns, panels, c, scratch } = self;
        if !rows.is_empty() {
            of.rows(rows, &columns, panels, c, scratch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::backend::host_ops::HostOperations;
    use crate::backend::ops::Workspace;
    use crate::backend::reference::ReferenceBackend;
    use crate::dtype::Element;

    const ORIENTATIONS: [Orientation; 3] = [Orientation::Nt, Orientation::Nn, Orientation::Tn];

    fn numbers<E: Scalar>(len: usize, seed: usize) -> Vec<E> {
        (0..len).map(|i| E::of(((i + seed) * 7919 % 1009) as f64 / 1009.0 - 0.4)).collect()
    }

    fn product<B: HostOperations>(
        backend: &B,
        product: MatMul,
        alpha: f64,
        grad: WeightGrad,
    ) -> Result<Vec<B::Element>> {
        let MatMul { count, m, n, k, .. } = product;
        let (a, b) = (numbers(count * m * k, 1), numbers(count * n * k, 5));
        let mut c = match grad {
            WeightGrad::Set => vec![B::Element::of(f64::NAN); count * m * n],
            WeightGrad::Add => numbers(count * m * n, 9),
        };
        let needed = HostOperations::workspace(backend, Workspace::MatMul(product));
        let mut space = vec![B::Element::of(f64::NAN); needed];
        HostOperations::matmul(backend, product, alpha, &a, &b, &mut c, grad, &mut space)?;
        Ok(c)
    }

    /// The oracle's sums up to rounding, and the same bits on every instruction set and any number of threads.
    fn agrees<E: CpuElement>(sizes: &[(usize, usize, usize, usize)], threads: &[usize]) {
        // The instruction set that only tests have is slow, and listed first: once is enough.
        let (slow, sets) = Isa::all_fused().split_first().map(|(slow, sets)| (*slow, sets.to_vec())).unwrap();
        let all = sets.into_iter().flat_map(|isa| threads.iter().map(move |threads| (isa, *threads)));
        let backends: Vec<CpuBackend<E>> =
            all.chain([(slow, 2)]).map(|(isa, threads)| CpuBackend::with_isa(isa, threads).unwrap()).collect();
        for &(count, m, n, k) in sizes {
            for orientation in ORIENTATIONS {
                for (grad, alpha) in [(WeightGrad::Set, 1.0), (WeightGrad::Add, 0.375)] {
                    let call = MatMul { count, orientation, m, n, k };
                    let expected = product(&ReferenceBackend::<f64>::new(), call, alpha, grad).unwrap();
                    let mut first: Option<Vec<E>> = None;
                    for backend in &backends {
                        let got = product(backend, call, alpha, grad).unwrap();
                        let name = format!("{call:?} {grad:?} {alpha} {backend:?}");
                        for (got, expected) in got.iter().zip(&expected) {
                            let allowed = E::epsilon().wide() * (k + 4) as f64;
                            assert!((got.wide() - expected).abs() <= allowed, "{name}: {got}, not {expected}");
                        }
                        match &first {
                            None => first = Some(got),
                            Some(first) => assert!(got == *first, "{name}: other bits than {:?}", backends[0]),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn small_and_large_ones_agree_with_the_oracle() {
        let sizes = [
            (1, 1, 1, 1),
            (3, 2, 3, 5),
            (1, 16, 32, 16),
            (5, 20, 20, 64),
            (1, 1, 257, 300),
            (1, 2, 130, 700),
            (1, 29, 1, 40),
            (1, 3, 65, 515),
            (1, 257, 1, 33),
            (2, 29, 65, 31),
            (1, 113, 33, 32),
            (1, 40, 70, 1025),
            (4, 0, 3, 2),
            (2, 3, 2, 0),
        ];
        agrees::<f32>(&sizes, &[1, 2]);
        agrees::<f64>(&sizes, &[1, 3]);
    }

    /// No product of any size, and sizes whose product overflows where another is zero.
    #[test]
    fn nothing_to_do() {
        let large = 1 << 40;
        for (count, m, n, k) in [(0, large, large, large), (0, 3, 2, 5), (1, 0, large, 0), (2, 0, 3, 4), (0, 0, 0, 0)] {
            for orientation in ORIENTATIONS {
                let call = MatMul { count, orientation, m, n, k };
                assert!(product(&CpuBackend::<f32>::new(), call, 0.5, WeightGrad::Set).unwrap().is_empty(), "{call:?}");
            }
        }
    }

    /// Products that are worth the threads: rows divided, columns divided, products divided.
    #[test]
    fn threads_do_not_change_bits() {
        agrees::<f32>(&[(1, 130, 301, 260), (1, 5, 2100, 700), (60, 33, 40, 64), (3, 70, 180, 200)], &[1, 2, 3, 7]);
        agrees::<f64>(&[(1, 1, 4003, 1000), (1, 67, 515, 129)], &[1, 7]);
    }

    /// A block of columns is not all of them.
    #[test]
    fn columns_in_blocks() {
        agrees::<f32>(&[(1, 2, 2 * PACKED / 600, 600)], &[1, 2]);
    }
}
