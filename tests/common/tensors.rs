//! Tensors of a device, and how results are judged: what the tests of operations share.

use std::cell::RefCell;

use fused_rnn::backend::WeightGrad;
#[cfg(feature = "emulated")]
use fused_rnn::backend::cuda::{
    CudaBackend,
    emulated::{Emulated, EmulatedStream, Schedule},
};
use fused_rnn::backend::ops::{IndexStatus, Report, STATUS_LEN, Workspace};
use fused_rnn::backend::tensor::{self, TensorMut, TensorRef};
use fused_rnn::{DType, Device, Element};

use super::Rng;

/// Small ones, primes, and one less and one more than tiles, warps and blocks.
pub const SIZES: [usize; 14] = [1, 2, 3, 7, 31, 32, 33, 64, 65, 127, 129, 257, 1031, 4099];

/// A number as the type holds it.
pub fn rounded_to(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::F64 => value,
        DType::F16 => half::f16::from_f64(value).to_f64(),
        DType::Bf16 => half::bf16::from_f64(value).to_f64(),
        other => panic!("{other} is not computed in"),
    }
}

/// A number as the device holds it.
pub fn rounded(device: &Device, value: f64) -> f64 {
    rounded_to(device.dtype(), value)
}

thread_local! {
    /// Bits of all results that this thread has looked at, while they are collected.
    static SEEN: RefCell<Option<Vec<u64>>> = const { RefCell::new(None) };
}

/// The bits of all results that `run` looks at.
pub fn bits_seen(run: impl FnOnce()) -> Vec<u64> {
    SEEN.set(Some(Vec::new()));
    run();
    SEEN.take().unwrap_or_default()
}

fn see(bits: impl IntoIterator<Item = u64>) {
    SEEN.with_borrow_mut(|seen| {
        if let Some(seen) = seen {
            seen.extend(bits);
        }
    });
}

/// A tensor of a device.
pub struct Tensor {
    device: Device,
    tensor: tensor::Tensor,
}

impl Tensor {
    /// Numbers of the device's element type.
    pub fn new(device: &Device, values: &[f64]) -> Self {
        Self::of_type(device, device.dtype(), values)
    }

    pub fn of_type(device: &Device, dtype: DType, values: &[f64]) -> Self {
        fn of<E: Element>(device: &Device, values: &[f64]) -> fused_rnn::Result<tensor::Tensor> {
            device.tensor("tensor", &values.iter().map(|v| E::of(*v)).collect::<Vec<_>>())
        }
        let tensor = match dtype {
            DType::F32 => of::<f32>(device, values),
            DType::F64 => of::<f64>(device, values),
            DType::F16 => of::<half::f16>(device, values),
            DType::Bf16 => of::<half::bf16>(device, values),
            other => panic!("{other} holds no such numbers"),
        };
        Tensor { device: device.clone(), tensor: tensor.unwrap() }
    }

    /// What a forgotten element would be seen by.
    pub fn poisoned(device: &Device, len: usize) -> Self {
        Self::new(device, &vec![f64::NAN; len])
    }

    pub fn get(&self) -> TensorRef<'_> {
        self.tensor.view()
    }

    pub fn get_mut(&mut self) -> TensorMut<'_> {
        self.tensor.view_mut()
    }

    pub fn values(&self) -> Vec<f64> {
        fn read<E: Element>(of: &Tensor) -> Vec<f64> {
            of.device.read::<E>(of.get()).unwrap().into_iter().map(Element::wide).collect()
        }
        let values = match self.tensor.dtype() {
            DType::F32 => read::<f32>(self),
            DType::F64 => read::<f64>(self),
            DType::F16 => read::<half::f16>(self),
            DType::Bf16 => read::<half::bf16>(self),
            other => panic!("{other} is not computed in"),
        };
        see(values.iter().map(|v| v.to_bits()));
        values
    }
}

/// Indices of a device.
pub struct Rows {
    device: Device,
    tensor: tensor::Tensor,
}

impl Rows {
    pub fn new(device: &Device, values: &[u32]) -> Self {
        Rows { device: device.clone(), tensor: device.tensor("rows", values).unwrap() }
    }

    /// What no call may leave.
    pub fn poisoned(device: &Device, len: usize) -> Self {
        Self::new(device, &vec![0xdead_beef; len])
    }

    pub fn get(&self) -> TensorRef<'_> {
        self.tensor.view()
    }

    pub fn get_mut(&mut self) -> TensorMut<'_> {
        self.tensor.view_mut()
    }

    pub fn values(&self) -> Vec<u32> {
        let values = self.device.read(self.get()).unwrap();
        see(values.iter().map(|v| u64::from(*v)));
        values
    }
}

/// A status, zeros at first.
pub struct Status {
    device: Device,
    tensor: tensor::Tensor,
}

impl Status {
    pub fn new(device: &Device) -> Self {
        let tensor = device.allocate_as("status", DType::F64, STATUS_LEN).unwrap();
        Status { device: device.clone(), tensor }
    }

    pub fn get_mut(&mut self) -> TensorMut<'_> {
        self.tensor.view_mut()
    }

    /// For a call that checks indices.
    pub fn of_indices(&mut self, code: u32) -> Option<IndexStatus<'_>> {
        Some(IndexStatus { code, status: self.tensor.view_mut() })
    }

    pub fn read(&self) -> Report {
        let mut numbers = [f64::NAN; STATUS_LEN];
        self.device.download(self.tensor.view(), &mut numbers).unwrap();
        see(numbers.iter().map(|v| v.to_bits()));
        Report::new(&numbers)
    }
}

/// Workspace, poisoned, of exactly the size asked for.
pub fn workspace(device: &Device, call: Workspace) -> Tensor {
    Tensor::poisoned(device, device.workspace(call))
}

/// Numbers as the device holds them.
pub fn numbers(device: &Device, rng: &mut Rng, len: usize, bound: f64) -> Vec<f64> {
    rng.vector(len, bound).into_iter().map(|v| rounded(device, v)).collect()
}

/// Half the distance from 1 to the next number, of results and of what sums are taken in.
pub fn unit(device: &Device) -> f64 {
    device.dtype().epsilon() / 2.0
}

pub fn sum_unit(device: &Device) -> f64 {
    if device.dtype() == DType::F64 { f64::EPSILON / 2.0 } else { f64::from(f32::EPSILON) / 2.0 }
}

/// Below the normal numbers of f16 there is a fixed distance.
pub fn floor(device: &Device) -> f64 {
    if device.dtype() == DType::F16 { 2f64.powi(-24) } else { 0.0 }
}

/// Asserts that each value is the expected one to its own rounding and to what went wrong before, `slack`. NaN is never right.
#[track_caller]
pub fn close(device: &Device, got: &[f64], expected: &[f64], slack: impl Fn(usize) -> f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let allowed = unit(device) * expected.abs() * 1.001 + slack(i) + floor(device);
        assert!((got - expected).abs() <= allowed, "{what}, element {i}: {got}, not {expected} (± {allowed:e})");
    }
}

/// The same values, NaN where NaN.
#[track_caller]
pub fn same(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(got == expected || got.is_nan() && expected.is_nan(), "{what}, element {i}: {got}, not {expected}");
    }
}

pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most: f64, v| most.max(v.abs()))
}

pub fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    terms.sum()
}

pub fn add_to(grad: WeightGrad, before: f64, sum: f64) -> f64 {
    if grad == WeightGrad::Add { before + sum } else { sum }
}

/// What an output is filled with before a call that sets it or adds to it.
pub fn start(grad: WeightGrad, before: &[f64]) -> Vec<f64> {
    if grad == WeightGrad::Add { before.to_vec() } else { vec![f64::NAN; before.len()] }
}

pub const GRADS: [WeightGrad; 2] = [WeightGrad::Set, WeightGrad::Add];

/// The kernels on the emulated GPU, under a schedule.
#[cfg(feature = "emulated")]
pub fn emulated<E: Element>(seed: u64, starve: bool) -> Device
where
    Device: From<CudaBackend<E, Emulated>>,
{
    let device = Emulated::new(Schedule { seed, starve }).expect("there is such a device");
    Device::from(CudaBackend::<E, _>::with_options(device.into(), EmulatedStream, Default::default()))
}
