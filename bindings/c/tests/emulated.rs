//! The CUDA plans, on the host's emulation of a GPU: addresses of device memory give the numbers of the CPU. With the feature `emulated`.
#![cfg(feature = "emulated")]

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::cuda::DeviceBuffer;
use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream};
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::backend::{ForwardMode, WeightGrad};
use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};
use fused_rnn_c::engine::{Backward, Forward};
use fused_rnn_c::{Backend, Dtype, Gradients, In, Out, Plan, Reserve, Status, Weights};

type Buffer = DeviceBuffer<f32, Emulated>;

fn numbers(len: usize, scale: f32) -> Vec<f32> {
    (0..len).map(|i| scale * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect()
}

fn read(buffer: &Buffer) -> In {
    In { data: buffer.pointer().0 as *const _, len: buffer.len() }
}

fn write(buffer: &Buffer) -> Out {
    Out { data: buffer.pointer().0 as *mut _, len: buffer.len() }
}

#[test]
fn addresses_of_device_memory_give_the_numbers_of_the_cpu() {
    let (operator, shape) = (RnnDescriptor::lstm(7, 13), RnnShape { seq_len: 5, batch: 3 });
    let weights = numbers(WeightLayout::new(&operator).unwrap().len(), 0.4);
    let inputs = Inputs { weights, x: numbers(5 * 3 * 7, 1.0), ..Inputs::default() };
    let gradients = OutputGradients { dy: Some(numbers(5 * 3 * 13, 1.0)), ..OutputGradients::default() };
    let cpu = CpuBackend::<f32>::new();
    let (outputs, expected) = pass::train(&cpu, &operator, shape, &inputs, &gradients).unwrap();

    let (backend, device) = Backend::emulated().unwrap();
    let plan = Plan::new(&backend, &operator, Dtype::F32, shape, ForwardMode::Training, 0).unwrap();
    let up = |values: &[f32]| Buffer::from_slice(&device, &EmulatedStream, "tensor", values).unwrap();
    let empty = |len: usize| up(&vec![f32::NAN; len]);
    let down = |buffer: &Buffer| {
        let mut values = vec![0.0; buffer.len()];
        buffer.read(&EmulatedStream, &mut values).unwrap();
        values
    };
    let (w, x, dy) = (up(&inputs.weights), up(&inputs.x), up(gradients.dy.as_ref().unwrap()));
    let (y, dx, dw) = (empty(outputs.y.len()), empty(inputs.x.len()), empty(inputs.weights.len()));
    let (workspace, storage) = (empty(plan.space().workspace), empty(plan.space().reserve));
    let weights = Weights { data: read(&w).data, tensors: std::ptr::null(), len: w.len() };
    let none = In::NONE;
    let forward = Forward {
        weights,
        x: read(&x),
        h0: none,
        c0: none,
        lengths: none,
        resets: none,
        y: write(&y),
        hn: Out::NONE,
        cn: Out::NONE,
        workspace: write(&workspace),
        dropout_seed: 0,
        stream: 0,
    };
    let backward = Backward {
        weights,
        x: read(&x),
        y: read(&y),
        h0: none,
        c0: none,
        lengths: none,
        resets: none,
        dy: read(&dy),
        dhn: none,
        dcn: none,
        dx: write(&dx),
        dh0: Out::NONE,
        dc0: Out::NONE,
        dweights: Gradients { data: write(&dw).data, len: dw.len(), ..Gradients::NONE },
        workspace: write(&workspace),
        stream: 0,
    };
    assert_eq!(plan.reserve().unwrap_err().status, Status::Unsupported);
    // SAFETY: every address is that of a live buffer of the size that the plan says, and none overlap.
    unsafe {
        let reserve = Reserve::of(write(&storage));
        plan.forward_training(&forward, &reserve).unwrap();
        plan.backward_data(&backward, &reserve).unwrap();
        plan.backward_weights(&backward, &reserve, WeightGrad::Set).unwrap();
        assert_eq!(plan.backward_data(&backward, &reserve).unwrap_err().status, Status::ReserveStage);
        let overlapping = Forward { y: write(&dx), x: read(&dx), ..forward };
        assert_eq!(plan.forward_training(&overlapping, &reserve).unwrap_err().status, Status::Overlap);
    }
    plan.check(0).unwrap();
    for (name, got, expected) in
        [("y", down(&y), &outputs.y), ("dx", down(&dx), &expected.dx), ("dweights", down(&dw), &expected.dweights)]
    {
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{name}: {got} {expected}");
        }
    }
}
