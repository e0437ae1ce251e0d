//! Products by cuBLASLt: which it takes, and how it is asked for them.
//!
//! Its matrices stand by columns, so it computes `cᵀ = op(b)ᵀ op(a)ᵀ`: its A is b, its B is a, and a matrix of this crate, by rows, is its
//! transpose to it.
//!
//! It takes products of every size and alignment. Others remain for the crate's kernels: those of a step, of at most 32 rows; sums of
//! several products that would be rounded in between; gradients of weights whose sequences have lengths, or whose rows are grouped.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::super::device::cublaslt::{CublasLt, LtCompute, LtMatrix, LtProduct, LtTensors, PlannedProduct};
use super::super::super::device::{Device, DevicePtr};
use super::super::super::images::catalog;
use super::super::params::{GemmParams, GemmProblem, GemmTerm, Rows};
use super::{ALIGNED, Orientation, Room};
use crate::dtype::DType;
use crate::error::Result;

/// Most workspace that an algorithm may need where a plan makes room for it, bytes: what NVIDIA recommends for an H100.
const MOST_WORKSPACE: usize = 32 << 20;

/// cuBLASLt with the products that it has chosen algorithms for.
pub(super) struct Library<S> {
    lt: Arc<dyn CublasLt<S>>,
    /// Of operands.
    element: DType,
    compute: LtCompute,
    planned: Mutex<HashMap<LtProduct, Arc<dyn PlannedProduct<S>>>>,
}

/// A product as one call after the other.
pub(super) struct Product<S>(Vec<(Arc<dyn PlannedProduct<S>>, LtTensors)>);

impl<S> fmt::Debug for Library<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cuBLASLt")
    }
}

impl<S> Library<S> {
    /// For products that multiply in the way `math`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) where the device has no cuBLASLt; it says where it was looked for.
    pub(super) fn load<D: Device<Stream = S>>(device: &D, math: &str) -> Result<Self> {
        let compute = match math {
            "f64" => LtCompute::F64,
            "tf32" => LtCompute::Tf32,
            _ => LtCompute::F32,
        };
        let element = catalog::gemm_element(math).parse()?;
        Ok(Library { lt: device.cublaslt()?, element, compute, planned: Mutex::default() })
    }

    /// A product with its algorithms, of which the first call for a product asks the library and later ones do not. `room` is how many
    /// bytes of workspace there are; `usize::MAX` where room is to be made. None for those that the library does not take.
    ///
    /// # Errors
    ///
    /// Those of [`CublasLt::plan`].
    pub(super) fn product(
        &self,
        orientation: Orientation,
        params: &GemmParams,
        room: usize,
    ) -> Result<Option<Product<S>>> {
        let Some(calls) = calls(orientation, self.element, self.compute, params) else { return Ok(None) };
        let planned = |(product, tensors): (LtProduct, LtTensors)| Ok((self.planned(product, room)?, tensors));
        calls.into_iter().map(planned).collect::<Result<_>>().map(|calls| Some(Product(calls)))
    }

    fn planned(&self, product: LtProduct, room: usize) -> Result<Arc<dyn PlannedProduct<S>>> {
        // What a panic elsewhere has left is whole: entries are inserted at once.
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = planned.get(&product).filter(|found| found.workspace_bytes() <= room) {
            return Ok(Arc::clone(found));
        }
        // One that no plan has made room for, since its tensors are not aligned as others are, takes what there is.
        let product = LtProduct { most_workspace: room.min(MOST_WORKSPACE), ..product };
        if let Some(found) = planned.get(&product) {
            return Ok(Arc::clone(found));
        }
        let found = self.lt.plan(&product)?;
        planned.insert(product, Arc::clone(&found));
        Ok(found)
    }
}

impl<S> Product<S> {
    /// Its algorithm.
    pub(super) fn name(&self) -> String {
        self.0.first().map_or_else(String::new, |(planned, _)| planned.name().to_owned())
    }

    pub(super) fn workspace_bytes(&self) -> usize {
        self.0.iter().map(|(planned, _)| planned.workspace_bytes()).max().unwrap_or(0)
    }

    /// # Errors
    ///
    /// Those of [`PlannedProduct::launch`].
    pub(super) fn launch(&self, stream: &S, room: Room) -> Result<()> {
        for (planned, tensors) in &self.0 {
            let tensors = LtTensors { workspace: room.address, ..*tensors };
            // SAFETY: as in `Kernel::launch`: the addresses are those of tensors that the caller has borrowed for the call, or answers for,
            // of the sizes that stand beside them in the parameters, which the calls were made from. The workspace is as large as `room`
            // says, and the algorithm was chosen for at most that.
            unsafe { planned.launch(stream, &tensors) }?;
        }
        Ok(())
    }
}

/// Groups of rows as matrices of a batch: how many there are, and rows with distances from a row of a group to the next, and from a
/// group to the next.
fn grouped(rows: &Rows, groups: u32) -> Option<(u64, u64)> {
    match rows.inner {
        1 => Some((rows.outer_stride * u64::from(groups), if groups == 1 { 0 } else { rows.outer_stride })),
        inner if inner == groups => Some((rows.outer_stride, rows.inner_stride)),
        _ => None,
    }
}

/// The calls of a product, or none where it is not for the library.
pub(super) fn calls(
    orientation: Orientation,
    element: DType,
    compute: LtCompute,
    params: &GemmParams,
) -> Option<Vec<(LtProduct, LtTensors)>> {
    if params.lengths != DevicePtr::NULL {
        return None;
    }
    let mut calls = Vec::new();
    for problem in &params.problem[..params.problems as usize] {
        for (i, term) in problem.term[..problem.terms as usize].iter().enumerate() {
            let call = call(orientation, element, compute, params, problem, term, i == 0)?;
            calls.push(call);
        }
    }
    Some(calls)
}

fn call(
    orientation: Orientation,
    element: DType,
    compute: LtCompute,
    params: &GemmParams,
    problem: &GemmProblem,
    term: &GemmTerm,
    first: bool,
) -> Option<(LtProduct, LtTensors)> {
    let (tn, nt) = (orientation == Orientation::Tn, orientation == Orientation::Nt);
    let (m, n, k) = (problem.m, problem.n, term.k);
    // Once for each sum.
    let has_bias = first && problem.bias != DevicePtr::NULL;
    let of_result = match (params.wide != 0, element) {
        (true, DType::F64) => DType::F64,
        (true, _) => DType::F32,
        (false, element) => element,
    };
    let rounded = problem.terms > 1 && of_result.size() < 4;
    if m == 0 || n == 0 || k == 0 || rounded {
        return None;
    }
    // Rows m in groups, of a and of c, are matrices of a batch; rows k must be in groups of one.
    let a = term.a.ungrouped(if tn { k } else { m });
    let (b, c) = (term.b.ungrouped(if nt { n } else { k }), problem.c.ungrouped(m));
    let groups = if tn { c.inner } else { a.inner.max(c.inner) };
    let products = if params.problems > 1 { 1 } else { params.count };
    if b.inner > 1 || tn && (a.inner > 1 || groups > 1) || !m.is_multiple_of(groups) || groups > 1 && products > 1 {
        return None;
    }
    let [(a_leading, a_group), (c_leading, c_group)] = [grouped(&a, groups)?, grouped(&c, groups)?];
    let apart = |of_group: u64, of_product: u64| if products > 1 { of_product } else { of_group };
    let (m, n, k) = (u64::from(m / groups), u64::from(n), u64::from(k));
    let matrix = |dtype, rows, columns, leading, apart| LtMatrix { dtype, rows, columns, leading, apart };
    let its_a = if nt { (k, n) } else { (n, k) };
    let its_b = if tn { (m, k) } else { (k, m) };
    let product = LtProduct {
        a: matrix(element, its_a.0, its_a.1, b.outer_stride, apart(0, params.b_apart)),
        b: matrix(element, its_b.0, its_b.1, a_leading, apart(a_group, params.a_apart)),
        d: matrix(of_result, n, m, c_leading, apart(c_group, params.c_apart)),
        transposed: [nt, tn],
        batch: groups * products,
        compute,
        bias: has_bias,
        alignment: 0,
        most_workspace: MOST_WORKSPACE,
    };
    // The largest power of two that every row of every matrix begins at a multiple of.
    let bytes = [(product.a, b.data), (product.b, a.data), (product.d, c.data)].map(|(matrix, DevicePtr(address))| {
        let size = matrix.dtype.size() as u64;
        address | (matrix.leading * size) | (matrix.apart * size)
    });
    let alignment = 1 << (bytes[0] | bytes[1] | bytes[2] | ALIGNED).trailing_zeros();
    let tensors = LtTensors {
        a: b.data,
        b: a.data,
        d: c.data,
        bias: if has_bias { problem.bias } else { DevicePtr::NULL },
        workspace: DevicePtr::NULL,
        alpha: params.alpha,
        beta: if params.accumulate != 0 || !first { 1.0 } else { 0.0 },
    };
    Some((LtProduct { alignment, ..product }, tensors))
}
