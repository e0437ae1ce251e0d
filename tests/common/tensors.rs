//! Tensors of any backend, and how results are judged: what the suites of dense and tensor operations share.

use std::borrow::{Borrow, BorrowMut};

use fused_rnn::backend::dense::{DenseCall, RECORD_LEN, Report};
use fused_rnn::backend::{DenseBackend, Memory, Storage, WeightGrad};
use fused_rnn::{DType, Element};

use super::Rng;

/// Small ones, primes, and one less and one more than tiles, warps and blocks.
pub const SIZES: [usize; 14] = [1, 2, 3, 7, 31, 32, 33, 64, 65, 127, 129, 257, 1031, 4099];

/// A tensor of a backend.
pub struct Tensor<B: DenseBackend>(pub B::Owned<B::Elem>);

impl<B: DenseBackend> Tensor<B> {
    pub fn new(backend: &B, values: &[f64]) -> Self {
        let values = values.iter().map(|v| B::Elem::of(*v)).collect();
        Tensor(backend.take("tensor", values).unwrap())
    }

    /// What a forgotten element would be seen by.
    pub fn poisoned(backend: &B, len: usize) -> Self {
        Self::new(backend, &vec![f64::NAN; len])
    }

    pub fn get(&self) -> &B::Buffer {
        self.0.borrow()
    }

    pub fn get_mut(&mut self) -> &mut B::Buffer {
        self.0.borrow_mut()
    }

    pub fn elements(&self, backend: &B) -> Vec<B::Elem> {
        let mut values = vec![B::Elem::default(); self.get().elements()];
        backend.download(self.get(), &mut values).unwrap();
        values
    }

    pub fn values(&self, backend: &B) -> Vec<f64> {
        self.elements(backend).into_iter().map(Element::wide).collect()
    }
}

/// Scratch space, poisoned, of exactly the size asked for.
pub fn workspace<B: DenseBackend>(backend: &B, call: DenseCall) -> Tensor<B> {
    Tensor::poisoned(backend, backend.dense_workspace(call))
}

pub struct Record<B: DenseBackend>(pub <B as Memory>::Owned<f64>);

impl<B: DenseBackend> Record<B> {
    pub fn new(backend: &B) -> Self {
        Record(backend.allocate("record", RECORD_LEN).unwrap())
    }

    pub fn read(&self, backend: &B) -> Report {
        let mut numbers = [f64::NAN; RECORD_LEN];
        backend.download(self.0.borrow(), &mut numbers).unwrap();
        Report::new(&numbers)
    }
}

/// Numbers as the element type holds them.
pub fn numbers<B: DenseBackend>(rng: &mut Rng, len: usize, bound: f64) -> Vec<f64> {
    rng.vector(len, bound).into_iter().map(|v| B::Elem::of(v).wide()).collect()
}

/// Half the distance from 1 to the next number, of results and of what sums are taken in.
pub fn unit<B: DenseBackend>() -> f64 {
    B::Elem::DTYPE.epsilon() / 2.0
}

pub fn sum_unit<B: DenseBackend>() -> f64 {
    if B::Elem::DTYPE == DType::F64 { f64::EPSILON / 2.0 } else { f64::from(f32::EPSILON) / 2.0 }
}

/// Below the normal numbers of f16 there is a fixed distance.
pub fn floor<B: DenseBackend>() -> f64 {
    if B::Elem::DTYPE == DType::F16 { 2f64.powi(-24) } else { 0.0 }
}

/// Asserts that each value is the expected one to its own rounding and to what went wrong before, `slack`. NaN is never right.
#[track_caller]
pub fn close<B: DenseBackend>(got: &[f64], expected: &[f64], slack: impl Fn(usize) -> f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let allowed = unit::<B>() * expected.abs() * 1.001 + slack(i) + floor::<B>();
        assert!((got - expected).abs() <= allowed, "{what}, element {i}: {got}, not {expected} (± {allowed:e})");
    }
}

pub fn add_to(grad: WeightGrad, before: f64, sum: f64) -> f64 {
    if grad == WeightGrad::Add { before + sum } else { sum }
}

pub const GRADS: [WeightGrad; 2] = [WeightGrad::Set, WeightGrad::Add];

/// The kernels on the emulated device, under a schedule.
#[cfg(feature = "emulated")]
pub fn emulated<E: Element>(
    seed: u64,
    starve: bool,
) -> fused_rnn::backend::cuda::CudaBackend<E, fused_rnn::backend::cuda::emulated::Emulated> {
    use fused_rnn::backend::cuda::CudaBackend;
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    let device = Emulated::new(Schedule { seed, starve }).expect("there is such a device");
    CudaBackend::with_options(device.into(), EmulatedStream, Default::default())
}
