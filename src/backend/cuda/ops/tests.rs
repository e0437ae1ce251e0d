//! Operations that take one of several kernels, on the emulated device.

use std::sync::Arc;

use super::super::backend::CudaBackend;
use super::super::device::emulated::{Emulated, EmulatedStream, Schedule};
use super::super::options::CudaOptions;
use crate::backend::Device;
use crate::backend::ops::{IndexStatus, MatMul, NO_ROW, Orientation, Report, STATUS_LEN, Workspace};
use crate::backend::{Tensor, TensorMut, WeightGrad};
use crate::cell::Activation;
use crate::dtype::DType;

fn device() -> Device {
    Device::emulated().unwrap().with_dtype(DType::F64).unwrap()
}

fn numbers(len: usize, seed: usize) -> Vec<f64> {
    (0..len).map(|i| ((i * 37 + seed * 11) % 101) as f64 / 50.0 - 1.0).collect()
}

fn workspace(device: &Device, call: Workspace) -> Tensor {
    device.allocate("workspace", device.workspace(call)).unwrap()
}

/// Checks what a call makes of a tensor of ones. `expected` is what it sets.
fn gives(what: &str, device: &Device, grad: WeightGrad, expected: &[f64], call: impl FnOnce(TensorMut<'_>)) {
    let mut tensor = device.tensor("out", &vec![1.0; expected.len()]).unwrap();
    call(tensor.view_mut());
    let before = if grad == WeightGrad::Add { 1.0 } else { 0.0 };
    let values: Vec<f64> = device.read(tensor.view()).unwrap();
    for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
        let expected = expected + before;
        assert!((value - expected).abs() <= 1e-11, "{what}: element {i} is {value} instead of {expected}");
    }
}

#[test]
fn products() {
    let device = device();
    for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
        for (count, m, n, k) in [(1, 3, 5, 7), (1, 65, 34, 40), (1, 4, 3, 900), (3, 3, 5, 7), (2, 33, 17, 20)] {
            for grad in [WeightGrad::Set, WeightGrad::Add] {
                let product = MatMul { count, orientation, m, n, k };
                let (a, b) = (numbers(count * m * k, 1), numbers(count * n * k, 2));
                let at = |p: usize, i: usize, l: usize| match orientation {
                    Orientation::Tn => a[(p * k + l) * m + i],
                    _ => a[(p * m + i) * k + l],
                };
                let bt = |p: usize, j: usize, l: usize| match orientation {
                    Orientation::Nt => b[(p * n + j) * k + l],
                    _ => b[(p * k + l) * n + j],
                };
                let mut expected = Vec::new();
                for (p, i, j) in (0..count * m * n).map(|c| (c / (m * n), c / n % m, c % n)) {
                    expected.push(0.5 * (0..k).map(|l| at(p, i, l) * bt(p, j, l)).sum::<f64>());
                }
                let (a, b) = (device.tensor("a", &a).unwrap(), device.tensor("b", &b).unwrap());
                let mut space = workspace(&device, Workspace::MatMul(product));
                gives(&format!("{product:?} {grad:?}"), &device, grad, &expected, |c| {
                    device.matmul(product, 0.5, a.view(), b.view(), c, grad, space.view_mut()).unwrap();
                });
            }
        }
    }
}

#[test]
fn products_with_a_bias() {
    let device = device();
    for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
        for (count, m, n, k) in [(1, 3, 5, 7), (1, 65, 34, 40), (1, 4, 3, 900), (3, 3, 5, 7), (1, 4, 6, 0)] {
            let product = MatMul { count, orientation, m, n, k };
            let (a, b, bias) = (numbers(count * m * k, 1), numbers(count * n * k, 2), numbers(n, 3));
            let tensor = |values: &[f64]| device.tensor("tensor", values).unwrap();
            let (a, b, bias) = (tensor(&a), tensor(&b), tensor(&bias));
            let mut space = workspace(&device, Workspace::MatMul(product));
            // A product, and after it another launch for the bias.
            let mut expected = device.tensor("c", &vec![f64::NAN; count * m * n]).unwrap();
            let set = WeightGrad::Set;
            device.matmul(product, 1.0, a.view(), b.view(), expected.view_mut(), set, space.view_mut()).unwrap();
            device.add_bias_activate(Activation::Linear, Some(bias.view()), expected.view_mut(), None).unwrap();
            let expected: Vec<f64> = device.read(expected.view()).unwrap();
            gives(&format!("{product:?}"), &device, set, &expected, |c| {
                device.matmul_bias(product, a.view(), b.view(), bias.view(), c, space.view_mut()).unwrap();
            });
            let mut c = device.allocate("c", count * m * n).unwrap();
            let short = device.allocate("bias", n - 1).unwrap();
            let refused = device.matmul_bias(product, a.view(), b.view(), short.view(), c.view_mut(), space.view_mut());
            assert!(refused.unwrap_err().to_string().contains("bias"));
        }
    }
}

/// A dense layer is one launch, with a long sum two; a launch for the bias besides is saved.
#[test]
fn a_bias_takes_no_launch() {
    let emulated = Arc::new(Emulated::new(Schedule::default()).unwrap());
    let gpu = CudaBackend::<f32, _>::with_options(Arc::clone(&emulated), EmulatedStream, CudaOptions::default());
    let device = Device::from(gpu);
    device.prepare().unwrap();
    for (k, launches) in [(40, 1), (4096, 2)] {
        let product = MatMul::single(Orientation::Nt, 40, 24, k);
        let zeros = |len: usize| device.tensor("zeros", &vec![0.0f32; len]).unwrap();
        let (a, b, bias, mut c) = (zeros(40 * k), zeros(24 * k), zeros(24), zeros(40 * 24));
        let mut space = workspace(&device, Workspace::MatMul(product));
        let before = emulated.launches();
        device.matmul_bias(product, a.view(), b.view(), bias.view(), c.view_mut(), space.view_mut()).unwrap();
        let at_once = emulated.launches() - before;
        let set = WeightGrad::Set;
        device.matmul(product, 1.0, a.view(), b.view(), c.view_mut(), set, space.view_mut()).unwrap();
        device.add_bias_activate(Activation::Linear, Some(bias.view()), c.view_mut(), None).unwrap();
        let apart = emulated.launches() - before - at_once;
        assert_eq!((at_once, apart), (launches, launches + 1), "{k}");
    }
}

#[test]
fn sums() {
    let device = device();
    for sizes in [[1, 700, 3], [1, 5, 40], [1, 40, 1], [4, 9, 6], [2, 50, 3], [3, 1, 1]] {
        for grad in [WeightGrad::Set, WeightGrad::Add] {
            let [outer, count, inner] = sizes;
            let x = numbers(outer * count * inner, 3);
            let sum = |o: usize, i: usize| (0..count).map(|c| x[(o * count + c) * inner + i]).sum::<f64>();
            let expected: Vec<_> = (0..outer * inner).map(|y| 0.25 * sum(y / inner, y % inner)).collect();
            let x = device.tensor("x", &x).unwrap();
            let mut space = workspace(&device, Workspace::SumAxis(sizes));
            gives(&format!("{sizes:?} {grad:?}"), &device, grad, &expected, |y| {
                device.sum_axis(sizes, 0.25, x.view(), y, grad, space.view_mut()).unwrap();
            });
        }
    }
}

#[test]
fn rows() {
    let (device, list) = (device(), [2, NO_ROW, 0, 2]);
    let indices = device.tensor("rows", &list).unwrap();
    let values = numbers(9, 4);
    let table = device.tensor("table", &values).unwrap();
    let row = |row: u32| (0..3).map(move |c| if row == NO_ROW { 0.0 } else { numbers(9, 4)[row as usize * 3 + c] });
    let expected: Vec<_> = list.into_iter().flat_map(row).collect();
    gives("gather", &device, WeightGrad::Set, &expected, |out| {
        device.gather(3, table.view(), indices.view(), out, None).unwrap();
    });
    // A table of fewer rows than indices, and of more.
    for table_rows in [3, 8] {
        for grad in [WeightGrad::Set, WeightGrad::Add] {
            let values = numbers(12, 5);
            let mut expected = vec![0.0; 3 * table_rows];
            for (i, row) in list.into_iter().enumerate().filter(|(_, row)| *row != NO_ROW) {
                (0..3).for_each(|c| expected[row as usize * 3 + c] += values[i * 3 + c]);
            }
            let dout = device.tensor("dout", &values).unwrap();
            let mut status = device.allocate_as("status", DType::F64, STATUS_LEN).unwrap();
            let noted = IndexStatus { code: 7, status: status.view_mut() };
            gives(&format!("scatter_add to {table_rows} rows, {grad:?}"), &device, grad, &expected, |dtable| {
                device.scatter_add(3, indices.view(), dout.view(), dtable, grad, Some(noted)).unwrap();
            });
            let status: Vec<f64> = device.read(status.view()).unwrap();
            assert_eq!(status, [0.0; STATUS_LEN], "no row is not outside the table");
        }
    }
}

#[test]
fn rows_outside_of_a_table() {
    let device = Device::emulated().unwrap();
    let table = device.tensor("table", &[1.0f32; 6]).unwrap();
    let rows = device.tensor("rows", &[1u32, 3]).unwrap();
    let mut out = device.allocate("out", 4).unwrap();
    device.gather(2, table.view(), rows.view(), out.view_mut(), None).unwrap();
    let mut status = device.allocate_as("status", DType::F64, STATUS_LEN).unwrap();
    let noted = IndexStatus { code: 5, status: status.view_mut() };
    device.gather(2, table.view(), rows.view(), out.view_mut(), Some(noted)).unwrap();
    let out: Vec<f32> = device.read(out.view()).unwrap();
    assert!(out[..2] == [1.0; 2] && out[2..].iter().all(|value| value.is_nan()), "{out:?}");
    let mut numbers = [0.0; STATUS_LEN];
    device.download(status.view(), &mut numbers).unwrap();
    assert_eq!(Report::new(&numbers).bad_index, Some(5));
}

#[test]
fn tensors_of_elsewhere_are_refused() {
    let (device, other) = (Device::emulated().unwrap(), Device::emulated().unwrap());
    let mut own = device.allocate("own", 2).unwrap();
    let strange = other.allocate("strange", 2).unwrap();
    let error = device.copy(strange.view(), own.view_mut()).unwrap_err();
    assert!(error.to_string().contains("another device"), "{error}");
    let wide = device.with_dtype(DType::F64).unwrap();
    let error = wide.scale(2.0, own.view_mut()).unwrap_err();
    assert!(error.to_string().contains("f64"), "{error}");
    let values = device.place("values", &[1.0f32, 2.0]).unwrap();
    device.copy(values.view(), own.view_mut()).unwrap();
    assert_eq!(device.read::<f32>(own.view()).unwrap(), [1.0, 2.0]);
}
