//! The native part of the Python package `fused_rnn`: operators, plans and passes by the addresses of tensors, over the engine of the C
//! interface. It is for the package alone, which sees to it that addresses are those of live tensors of the plan's sizes.

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

fn read(address: usize, len: usize) -> In {
    if address == 0 { In::NONE } else { In { data: address as *const c_void, len } }
}

fn write(address: usize, len: usize) -> Out {
    if address == 0 { Out::NONE } else { Out { data: address as *mut c_void, len } }
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

    fn weights_at(&self, address: usize) -> Weights {
        match address {
            0 => Weights::NONE,
            _ => Weights { data: address as *const c_void, tensors: std::ptr::null(), len: self.weights },
        }
    }

    /// The workspace of a call: the address given, or pooled memory.
    fn workspace(&self, address: usize) -> PyResult<(Out, Option<Block>)> {
        if address != 0 || !self.on_cpu {
            return Ok((write(address, self.workspace), None));
        }
        let block = Block::take(self.workspace * self.plan.element())?;
        Ok((Out { data: block.address(), len: self.workspace }, Some(block)))
    }

    #[allow(clippy::too_many_arguments)]
    fn forward_call(
        &self,
        [weights, x, h0, c0, lengths, resets, y, hn, cn]: [usize; 9],
        workspace: Out,
        dropout_seed: u64,
        stream: u64,
    ) -> Forward {
        Forward {
            weights: self.weights_at(weights),
            x: read(x, self.x),
            h0: read(h0, self.h),
            c0: read(c0, self.c),
            lengths: read(lengths, self.lengths),
            resets: read(resets, self.resets),
            y: write(y, self.y),
            hn: write(hn, self.h),
            cn: write(cn, self.c),
            workspace,
            dropout_seed,
            stream,
        }
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
    fn with_weights(&self, weights: usize) -> PyResult<Self> {
        // SAFETY: the address is of a live tensor of the weights' size.
        let plan = unsafe { self.plan.with_weights(self.weights_at(weights), 0) };
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

    /// An empty reserve: at an address, or in pooled memory.
    #[pyo3(signature = (address=0))]
    fn new_reserve(&self, address: usize) -> PyResult<Kept> {
        let block = match address {
            0 if self.on_cpu => Some(Block::take(self.reserve * self.plan.element())?),
            _ => None,
        };
        let data = block.as_ref().map_or(address as *mut c_void, Block::address);
        // SAFETY: the block lives as long as the reserve; a tensor's memory by the package's promise.
        let reserve = unsafe { Reserve::of(Out { data, len: self.reserve }) };
        Ok(Kept { reserve, _block: block })
    }

    /// A reserve at an address that a training forward of such a plan filled before, with this seed.
    fn filled_reserve(&self, address: usize, seed: u64) -> PyResult<Kept> {
        let kept = self.new_reserve(address)?;
        // SAFETY: the package's promise.
        unsafe { kept.reserve.assume_filled(&self.plan, seed) }.map_err(raised)?;
        Ok(kept)
    }

    /// Inference.
    #[pyo3(signature = (weights, x, h0, c0, lengths, resets, y, hn, cn, workspace=0, stream=0))]
    #[allow(clippy::too_many_arguments)]
    fn forward(
        &self,
        py: Python<'_>,
        weights: usize,
        x: usize,
        h0: usize,
        c0: usize,
        lengths: usize,
        resets: usize,
        y: usize,
        hn: usize,
        cn: usize,
        workspace: usize,
        stream: u64,
    ) -> PyResult<()> {
        let (workspace, _block) = self.workspace(workspace)?;
        let addresses = [weights, x, h0, c0, lengths, resets, y, hn, cn];
        let call = Sent(self.forward_call(addresses, workspace, 0, stream));
        // SAFETY: the package's promise.
        py.detach(|| unsafe { self.plan.forward(call.get()) }).map_err(raised)
    }

    /// Training forward.
    #[pyo3(signature = (weights, x, h0, c0, lengths, resets, y, hn, cn, seed, reserve, workspace=0, stream=0))]
    #[allow(clippy::too_many_arguments)]
    fn forward_training(
        &self,
        py: Python<'_>,
        weights: usize,
        x: usize,
        h0: usize,
        c0: usize,
        lengths: usize,
        resets: usize,
        y: usize,
        hn: usize,
        cn: usize,
        seed: u64,
        reserve: &Kept,
        workspace: usize,
        stream: u64,
    ) -> PyResult<()> {
        let (workspace, _block) = self.workspace(workspace)?;
        let addresses = [weights, x, h0, c0, lengths, resets, y, hn, cn];
        let call = Sent(self.forward_call(addresses, workspace, seed, stream));
        // SAFETY: the package's promise.
        py.detach(|| unsafe { self.plan.forward_training(call.get(), &reserve.reserve) }).map_err(raised)
    }

    /// Gradients of the data, and of the weights where there is an address for them.
    #[pyo3(signature = (weights, x, y, h0, c0, lengths, resets, dy, dhn, dcn, dx, dh0, dc0, dweights, reserve, workspace=0, stream=0))]
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &self,
        py: Python<'_>,
        weights: usize,
        x: usize,
        y: usize,
        h0: usize,
        c0: usize,
        lengths: usize,
        resets: usize,
        dy: usize,
        dhn: usize,
        dcn: usize,
        dx: usize,
        dh0: usize,
        dc0: usize,
        dweights: usize,
        reserve: &Kept,
        workspace: usize,
        stream: u64,
    ) -> PyResult<()> {
        let (workspace, _block) = self.workspace(workspace)?;
        let gradients = match dweights {
            0 => Gradients::NONE,
            _ => Gradients { data: dweights as *mut c_void, len: self.weights, ..Gradients::NONE },
        };
        let call = Sent(Backward {
            weights: self.weights_at(weights),
            x: read(x, self.x),
            y: read(y, self.y),
            h0: read(h0, self.h),
            c0: read(c0, self.c),
            lengths: read(lengths, self.lengths),
            resets: read(resets, self.resets),
            dy: read(dy, self.y),
            dhn: read(dhn, self.h),
            dcn: read(dcn, self.c),
            dx: write(dx, self.x),
            dh0: write(dh0, self.h),
            dc0: write(dc0, self.c),
            dweights: gradients,
            workspace,
            stream,
        });
        let passes = || {
            // SAFETY: the package's promise.
            unsafe { self.plan.backward_data(call.get(), &reserve.reserve) }?;
            match dweights {
                0 => Ok(()),
                // SAFETY: the package's promise.
                _ => unsafe { self.plan.backward_weights(call.get(), &reserve.reserve, WeightGrad::Set) },
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
        weights: usize,
        x: usize,
        y: usize,
        hn: usize,
        cn: usize,
        dy: usize,
        dweights: usize,
        count: usize,
    ) -> PyResult<u64> {
        let (workspace, _block) = self.workspace(0)?;
        let call = Sent(self.forward_call([weights, x, 0, 0, 0, 0, y, hn, cn], workspace, 0, 0));
        let mut backward = Backward {
            weights: call.0.weights,
            x: call.0.x,
            y: read(y, self.y),
            h0: In::NONE,
            c0: In::NONE,
            lengths: In::NONE,
            resets: In::NONE,
            dy: read(dy, self.y),
            dhn: In::NONE,
            dcn: In::NONE,
            dx: Out::NONE,
            dh0: Out::NONE,
            dc0: Out::NONE,
            dweights: Gradients::NONE,
            workspace,
            stream: 0,
        };
        backward.dweights = Gradients { data: dweights as *mut c_void, len: self.weights, ..Gradients::NONE };
        let backward = Sent(backward);
        let kept = (dweights != 0).then(|| self.new_reserve(0)).transpose()?;
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
