//! The native part of the Python package `fused_rnn`: operators, plans and passes by the addresses of tensors, over the engine of the C
//! interface. It is for the package alone, which sees to it that addresses are those of live tensors; how many bytes each has comes with its
//! address, and is checked here against the plan.

mod options;
mod pool;

use std::ffi::c_void;

use fused_rnn::backend::{ForwardMode, WeightGrad};
use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};
use fused_rnn_c::engine::{Backward, Forward};
use fused_rnn_c::{Failure, Gradients, In, Out, Reserve, Stage, Weights};
use pyo3::create_exception;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use pool::Block;

create_exception!(fused_rnn, Error, PyRuntimeError, "What fused-rnn refuses, with what was expected and what to do.");

fn raised(failure: Failure) -> PyErr {
    Error::new_err(failure.message)
}

/// A recurrent operator: a cell, its options and sizes.
#[pyclass(frozen)]
struct Operator {
    descriptor: RnnDescriptor,
    layout: WeightLayout,
}

#[pymethods]
impl Operator {
    #[new]
    #[pyo3(signature = (cell, input_size, hidden_size, **options))]
    fn new(cell: &str, input_size: usize, hidden_size: usize, options: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let descriptor = options::descriptor(cell, input_size, hidden_size, options)?;
        let layout = WeightLayout::new(&descriptor).map_err(|error| raised(error.into()))?;
        Ok(Operator { descriptor, layout })
    }

    /// Name, shape and first element of each weight.
    fn weights(&self) -> Vec<(String, Vec<usize>, usize)> {
        let entries = self.layout.entries().iter();
        entries.map(|entry| (entry.name.clone(), entry.shape.clone(), entry.range.start)).collect()
    }

    /// Elements of all weights.
    #[getter]
    fn weights_len(&self) -> usize {
        self.layout.len()
    }

    /// Width of the states beside h, 0 where the cell has none.
    #[getter]
    fn cell_state(&self) -> usize {
        let one = RnnShape { seq_len: 1, batch: 1 };
        one.tensors(&self.descriptor).map_or(0, |tensors| tensors.c[2])
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.descriptor)
    }
}

/// Where plans run.
#[pyclass(frozen)]
struct Backend(fused_rnn_c::Backend);

#[pymethods]
impl Backend {
    /// The CPU with so many threads.
    #[staticmethod]
    fn cpu(threads: usize) -> PyResult<Self> {
        fused_rnn_c::Backend::cpu(threads).map(Backend).map_err(raised)
    }

    /// A GPU.
    #[staticmethod]
    fn cuda(ordinal: usize) -> PyResult<Self> {
        fused_rnn_c::Backend::cuda(ordinal, fused_rnn_c::descriptor::Rounding::Exact).map(Backend).map_err(raised)
    }
}

/// What training keeps, in pooled memory on the CPU or in a tensor's.
#[pyclass(frozen, name = "Reserve")]
struct Kept {
    reserve: Reserve,
    /// Kept for its memory.
    _block: Option<Block>,
}

/// Numbers and addresses that go to the thread which computes.
struct Sent<T>(T);

// SAFETY: addresses are of tensors that the calling Python function keeps alive until the call is done.
unsafe impl<T> Send for Sent<T> {}
// SAFETY: as above; the one thread that waits does not touch it.
unsafe impl<T> Sync for Sent<T> {}

impl<T> Sent<T> {
    fn get(&self) -> &T {
        &self.0
    }
}

/// A plan, and the sizes of its tensors.
#[pyclass(frozen)]
struct Plan {
    plan: fused_rnn_c::Plan,
    weights: usize,
    x: usize,
    y: usize,
    h: usize,
    c: usize,
    lengths: usize,
    resets: usize,
    workspace: usize,
    reserve: usize,
    on_cpu: bool,
}

/// Address and bytes of a tensor; none where it is absent.
type Span = Option<(usize, usize)>;

/// The address of a tensor that has the bytes of so many elements, and, unless it is scratch, no others.
fn address(name: &str, span: Span, len: usize, element: usize, scratch: bool) -> PyResult<usize> {
    let Some((address, bytes)) = span else { return Ok(0) };
    let expected = len.saturating_mul(element);
    let fits = if scratch { bytes >= expected } else { bytes == expected };
    if fits && (address != 0 || expected == 0) {
        return Ok(address);
    }
    let bytes = if address == 0 { 0 } else { bytes };
    Err(Error::new_err(format!(
        "{name}: expected {len} elements of {element} bytes, got {bytes} bytes of memory: its shape or its elements are not the plan's, or its \
         storage was resized"
    )))
}

fn read_of(name: &str, span: Span, len: usize, element: usize) -> PyResult<In> {
    let address = address(name, span, len, element, false)?;
    Ok(if address == 0 { In::NONE } else { In { data: address as *const c_void, len } })
}

impl Plan {
    fn of(plan: fused_rnn_c::Plan, on_cpu: bool) -> Self {
        let (tensors, space, shape) = (plan.tensors(), plan.space(), plan.shape());
        let count = |shape: &[usize]| shape.iter().product();
        Plan {
            weights: plan.weights().len(),
            x: count(&tensors.x),
            y: count(&tensors.y),
            h: count(&tensors.h),
            c: count(&tensors.c),
            lengths: shape.batch,
            resets: count(&tensors.resets),
            workspace: space.workspace,
            reserve: space.reserve,
            on_cpu,
            plan,
        }
    }

    fn read(&self, name: &str, span: Span, len: usize) -> PyResult<In> {
        read_of(name, span, len, self.plan.element())
    }

    fn write(&self, name: &str, span: Span, len: usize) -> PyResult<Out> {
        let address = address(name, span, len, self.plan.element(), false)?;
        Ok(if address == 0 { Out::NONE } else { Out { data: address as *mut c_void, len } })
    }

    fn weights_at(&self, span: Span) -> PyResult<Weights> {
        Ok(match self.read("weights", span, self.weights)? {
            In { data, .. } if data.is_null() => Weights::NONE,
            In { data, len } => Weights { data, tensors: std::ptr::null(), len },
        })
    }

    fn gradients_at(&self, span: Span) -> PyResult<Gradients> {
        Ok(match self.write("dweights", span, self.weights)? {
            Out { data, .. } if data.is_null() => Gradients::NONE,
            Out { data, len } => Gradients { data, len, ..Gradients::NONE },
        })
    }

    /// The workspace of a call: the tensor given, or pooled memory.
    fn workspace(&self, span: Span) -> PyResult<(Out, Option<Block>)> {
        if span.is_some() || !self.on_cpu {
            let address = address("workspace", span, self.workspace, self.plan.element(), true)?;
            return Ok((
                Out { data: address as *mut c_void, len: if address == 0 { 0 } else { self.workspace } },
                None,
            ));
        }
        let block = Block::take(self.workspace * self.plan.element())?;
        Ok((Out { data: block.address(), len: self.workspace }, Some(block)))
    }

    #[allow(clippy::too_many_arguments)]
    fn forward_call(
        &self,
        [weights, x, h0, c0, lengths, resets, y, hn, cn]: [Span; 9],
        workspace: Out,
        dropout_seed: u64,
        stream: u64,
    ) -> PyResult<Forward> {
        Ok(Forward {
            weights: self.weights_at(weights)?,
            x: self.read("x", x, self.x)?,
            h0: self.read("h0", h0, self.h)?,
            c0: self.read("c0", c0, self.c)?,
            lengths: read_of("lengths", lengths, self.lengths, size_of::<u32>())?,
            resets: read_of("resets", resets, self.resets, 1)?,
            y: self.write("y", y, self.y)?,
            hn: self.write("hn", hn, self.h)?,
            cn: self.write("cn", cn, self.c)?,
            workspace,
            dropout_seed,
            stream,
        })
    }
}

#[pymethods]
impl Plan {
    /// `dtype`: 0 f32, 1 f64, 2 f16, 3 bf16.
    #[new]
    #[pyo3(signature = (backend, operator, dtype, seq_len, batch, training, on_cpu=true, stream=0))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        backend: &Backend,
        operator: &Operator,
        dtype: u32,
        seq_len: usize,
        batch: usize,
        training: bool,
        on_cpu: bool,
        stream: u64,
    ) -> PyResult<Self> {
        let mode = if training { ForwardMode::Training } else { ForwardMode::Inference };
        let dtype = fused_rnn_c::Dtype::of(dtype).map_err(raised)?;
        let shape = RnnShape { seq_len, batch };
        let plan = fused_rnn_c::Plan::new(&backend.0, &operator.descriptor, dtype, shape, mode, stream);
        Ok(Plan::of(plan.map_err(raised)?, on_cpu))
    }

    /// The same with its weights, packed once.
    fn with_weights(&self, weights: Span) -> PyResult<Self> {
        let weights = self.weights_at(weights)?;
        // SAFETY: the address is of a live tensor, of the weights' size as checked just now.
        let plan = unsafe { self.plan.with_weights(weights, 0) };
        Ok(Plan::of(plan.map_err(raised)?, self.on_cpu))
    }

    #[getter]
    fn x_shape(&self) -> [usize; 3] {
        self.plan.tensors().x
    }

    #[getter]
    fn y_shape(&self) -> [usize; 3] {
        self.plan.tensors().y
    }

    #[getter]
    fn h_shape(&self) -> [usize; 3] {
        self.plan.tensors().h
    }

    #[getter]
    fn c_shape(&self) -> [usize; 3] {
        self.plan.tensors().c
    }

    #[getter]
    fn workspace_len(&self) -> usize {
        self.workspace
    }

    #[getter]
    fn reserve_len(&self) -> usize {
        self.reserve
    }

    /// An empty reserve: in a tensor, or in pooled memory.
    #[pyo3(signature = (memory=None))]
    fn new_reserve(&self, memory: Span) -> PyResult<Kept> {
        let given = address("reserve", memory, self.reserve, self.plan.element(), true)?;
        let block = match memory {
            None if self.on_cpu => Some(Block::take(self.reserve * self.plan.element())?),
            None => return Err(Error::new_err("reserve: expected memory of the GPU")),
            Some(_) => None,
        };
        let data = block.as_ref().map_or(given as *mut c_void, Block::address);
        // SAFETY: the block lives as long as the reserve; a tensor's memory by the package's promise.
        let reserve = unsafe { Reserve::of(Out { data, len: self.reserve }) };
        Ok(Kept { reserve, _block: block })
    }

    /// A reserve in a tensor that a training forward of such a plan filled before, with this seed.
    fn filled_reserve(&self, memory: Span, seed: u64) -> PyResult<Kept> {
        let kept = self.new_reserve(memory)?;
        // SAFETY: the package's promise.
        unsafe { kept.reserve.assume_filled(&self.plan, seed) }.map_err(raised)?;
        Ok(kept)
    }

    /// Inference.
    #[pyo3(signature = (weights, x, h0, c0, lengths, resets, y, hn, cn, workspace=None, stream=0))]
    #[allow(clippy::too_many_arguments)]
    fn forward(
        &self,
        py: Python<'_>,
        weights: Span,
        x: Span,
        h0: Span,
        c0: Span,
        lengths: Span,
        resets: Span,
        y: Span,
        hn: Span,
        cn: Span,
        workspace: Span,
        stream: u64,
    ) -> PyResult<()> {
        let (workspace, _block) = self.workspace(workspace)?;
        let spans = [weights, x, h0, c0, lengths, resets, y, hn, cn];
        let call = Sent(self.forward_call(spans, workspace, 0, stream)?);
        // SAFETY: the package's promise.
        py.detach(|| unsafe { self.plan.forward(call.get()) }).map_err(raised)
    }

    /// Training forward.
    #[pyo3(signature = (weights, x, h0, c0, lengths, resets, y, hn, cn, seed, reserve, workspace=None, stream=0))]
    #[allow(clippy::too_many_arguments)]
    fn forward_training(
        &self,
        py: Python<'_>,
        weights: Span,
        x: Span,
        h0: Span,
        c0: Span,
        lengths: Span,
        resets: Span,
        y: Span,
        hn: Span,
        cn: Span,
        seed: u64,
        reserve: &Kept,
        workspace: Span,
        stream: u64,
    ) -> PyResult<()> {
        let (workspace, _block) = self.workspace(workspace)?;
        let spans = [weights, x, h0, c0, lengths, resets, y, hn, cn];
        let call = Sent(self.forward_call(spans, workspace, seed, stream)?);
        // SAFETY: the package's promise.
        py.detach(|| unsafe { self.plan.forward_training(call.get(), &reserve.reserve) }).map_err(raised)
    }

    /// Gradients of the data, and of the weights where there is an address for them.
    #[pyo3(signature = (weights, x, y, h0, c0, lengths, resets, dy, dhn, dcn, dx, dh0, dc0, dweights, reserve, workspace=None, stream=0))]
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &self,
        py: Python<'_>,
        weights: Span,
        x: Span,
        y: Span,
        h0: Span,
        c0: Span,
        lengths: Span,
        resets: Span,
        dy: Span,
        dhn: Span,
        dcn: Span,
        dx: Span,
        dh0: Span,
        dc0: Span,
        dweights: Span,
        reserve: &Kept,
        workspace: Span,
        stream: u64,
    ) -> PyResult<()> {
        let (workspace, _block) = self.workspace(workspace)?;
        let (weights, dweights) = (self.weights_at(weights)?, self.gradients_at(dweights)?);
        let of_weights = !dweights.data.is_null();
        let call = Sent(Backward {
            weights,
            x: self.read("x", x, self.x)?,
            y: self.read("y", y, self.y)?,
            h0: self.read("h0", h0, self.h)?,
            c0: self.read("c0", c0, self.c)?,
            lengths: read_of("lengths", lengths, self.lengths, size_of::<u32>())?,
            resets: read_of("resets", resets, self.resets, 1)?,
            dy: self.read("dy", dy, self.y)?,
            dhn: self.read("dhn", dhn, self.h)?,
            dcn: self.read("dcn", dcn, self.c)?,
            dx: self.write("dx", dx, self.x)?,
            dh0: self.write("dh0", dh0, self.h)?,
            dc0: self.write("dc0", dc0, self.c)?,
            dweights,
            workspace,
            stream,
        });
        let passes = || {
            // SAFETY: the package's promise.
            unsafe { self.plan.backward_data(call.get(), &reserve.reserve) }?;
            match of_weights {
                false => Ok(()),
                // SAFETY: the package's promise.
                true => unsafe { self.plan.backward_weights(call.get(), &reserve.reserve, WeightGrad::Set) },
            }
        };
        py.detach(passes).map_err(raised)
    }

    /// Waits for the calls on a stream, and says whether they have ended as they should.
    fn check(&self, py: Python<'_>, stream: u64) -> PyResult<()> {
        py.detach(|| self.plan.check(stream)).map_err(raised)
    }

    /// Nanoseconds of a call of the crate alone, the least of `count`: what is left of a call in Python is the binding's. With gradients, of
    /// forward and backward.
    #[pyo3(signature = (weights, x, y, hn, cn, dy, dweights, count))]
    #[allow(clippy::too_many_arguments)]
    fn nanoseconds(
        &self,
        py: Python<'_>,
        weights: Span,
        x: Span,
        y: Span,
        hn: Span,
        cn: Span,
        dy: Span,
        dweights: Span,
        count: usize,
    ) -> PyResult<u64> {
        let (workspace, _block) = self.workspace(None)?;
        let spans = [weights, x, None, None, None, None, y, hn, cn];
        let call = Sent(self.forward_call(spans, workspace, 0, 0)?);
        let backward = Sent(Backward {
            weights: call.0.weights,
            x: call.0.x,
            y: self.read("y", y, self.y)?,
            h0: In::NONE,
            c0: In::NONE,
            lengths: In::NONE,
            resets: In::NONE,
            dy: self.read("dy", dy, self.y)?,
            dhn: In::NONE,
            dcn: In::NONE,
            dx: Out::NONE,
            dh0: Out::NONE,
            dc0: Out::NONE,
            dweights: self.gradients_at(dweights)?,
            workspace,
            stream: 0,
        });
        let kept = dweights.is_some().then(|| self.new_reserve(None)).transpose()?;
        let run = || -> fused_rnn_c::Result<u64> {
            let mut least = u64::MAX;
            for _ in 0..count {
                let start = std::time::Instant::now();
                // SAFETY: the package's promise.
                unsafe {
                    match &kept {
                        None => self.plan.forward(call.get())?,
                        Some(kept) => {
                            self.plan.forward_training(call.get(), &kept.reserve)?;
                            self.plan.backward_data(backward.get(), &kept.reserve)?;
                            self.plan.backward_weights(backward.get(), &kept.reserve, WeightGrad::Set)?;
                        }
                    }
                }
                least = least.min(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            Ok(least)
        };
        py.detach(run).map_err(raised)
    }
}

#[pymethods]
impl Kept {
    /// `empty`, `filled` or `differentiated`.
    #[getter]
    fn stage(&self) -> PyResult<&'static str> {
        Ok(match self.reserve.stage().map_err(raised)? {
            Stage::Empty => "empty",
            Stage::Filled => "filled",
            Stage::Differentiated => "differentiated",
        })
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("Error", module.py().get_type::<Error>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("has_cuda", cfg!(feature = "cuda"))?;
    module.add_class::<Operator>()?;
    module.add_class::<Backend>()?;
    module.add_class::<Plan>()?;
    module.add_class::<Kept>()
}
