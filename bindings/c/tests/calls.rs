//! The interface called as C calls it: the numbers are those of the crate, and every misuse is a status.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::cell::CellKind;
use fused_rnn::rnn::{Direction, RnnDescriptor, RnnShape, WeightLayout};
use fused_rnn_c::*;

const T: usize = 6;
const B: usize = 3;
const I: usize = 5;
const H: usize = 8;

fn numbers(len: usize, scale: f64) -> Vec<f64> {
    (0..len).map(|i| scale * ((i * 37 % 101) as f64 / 50.0 - 1.0)).collect()
}

fn input<E>(values: &[E]) -> In {
    In { data: values.as_ptr().cast(), len: values.len() }
}

fn output<E>(values: &mut [E]) -> Out {
    Out { data: values.as_mut_ptr().cast(), len: values.len() }
}

fn last_error() -> String {
    // SAFETY: the text lives until this thread's next failure.
    unsafe { CStr::from_ptr(frnn_last_error()) }.to_string_lossy().into_owned()
}

#[track_caller]
fn ok(status: Status) {
    assert_eq!(status, Status::Ok, "{}", last_error());
}

#[track_caller]
fn refused(status: Status, expected: Status, part: &str) {
    assert_eq!(status, expected, "{}", last_error());
    assert!(last_error().contains(part), "{}", last_error());
}

/// A bidirectional operator of two layers in f64, its buffers, and what the crate computes.
struct Fixture {
    backend: *mut Backend,
    plan: *mut PlanHandle,
    reserve: *mut Reserve,
    layout: WeightLayout,
    inputs: Inputs<f64>,
    lengths: Vec<u32>,
    y: Vec<f64>,
    dy: Vec<f64>,
    dx: Vec<f64>,
    dweights: Vec<f64>,
    workspace: Vec<f64>,
}

impl Fixture {
    fn new() -> Self {
        let mut descriptor = Descriptor::new(1, I, H);
        (descriptor.num_layers, descriptor.direction, descriptor.dropout) = (2, 2, 0.25);
        let layout = WeightLayout::new(&descriptor.operator().unwrap()).unwrap();
        let (mut backend, mut plan, mut reserve) = (null_mut(), null_mut(), null_mut());
        let mut sizes = Sizes { size: size_of::<Sizes>(), ..zeroed() };
        // SAFETY: every pointer shows to a live value.
        unsafe {
            ok(frnn_backend_cpu(2, &mut backend));
            ok(frnn_plan_new(backend, &descriptor, 1, T, B, 1, 0, &mut plan));
            ok(frnn_plan_sizes(plan, &mut sizes));
            ok(frnn_reserve_new(plan, Out::NONE, &mut reserve));
        }
        let lengths = vec![6, 2, 5];
        let inputs = Inputs {
            weights: numbers(layout.len(), 0.4),
            x: numbers(sizes.x, 1.0),
            lengths: Some(lengths.clone()),
            dropout_seed: 77,
            ..Inputs::default()
        };
        let (y, dy) = (vec![0.0; sizes.y], numbers(sizes.y, 1.0));
        let (dx, dweights, workspace) = (vec![0.0; sizes.x], vec![0.0; layout.len()], vec![0.0; sizes.workspace]);
        Fixture { backend, plan, reserve, layout, inputs, lengths, y, dy, dx, dweights, workspace }
    }

    fn forward(&mut self) -> ForwardArguments {
        ForwardArguments {
            size: size_of::<ForwardArguments>(),
            dropout_seed: 77,
            stream: 0,
            weights: Weights {
                data: self.inputs.weights.as_ptr().cast(),
                tensors: null(),
                len: self.inputs.weights.len(),
            },
            x: input(&self.inputs.x),
            h0: In::NONE,
            c0: In::NONE,
            lengths: input(&self.lengths),
            resets: In::NONE,
            y: output(&mut self.y),
            hn: Out::NONE,
            cn: Out::NONE,
            workspace: output(&mut self.workspace),
        }
    }

    fn backward(&mut self) -> BackwardArguments {
        let ForwardArguments { weights, x, lengths, workspace, .. } = self.forward();
        BackwardArguments {
            size: size_of::<BackwardArguments>(),
            stream: 0,
            weights,
            x,
            y: input(&self.y),
            h0: In::NONE,
            c0: In::NONE,
            lengths,
            resets: In::NONE,
            dy: input(&self.dy),
            dhn: In::NONE,
            dcn: In::NONE,
            dx: output(&mut self.dx),
            dh0: Out::NONE,
            dc0: Out::NONE,
            dweights: Gradients {
                data: self.dweights.as_mut_ptr().cast(),
                tensors: null(),
                len: self.dweights.len(),
                accumulate: 0,
            },
            workspace,
        }
    }

    /// Output and gradients as the crate computes them.
    fn expected(&self) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let mut descriptor = RnnDescriptor::new(CellKind::Lstm, I, H);
        (descriptor.num_layers, descriptor.direction, descriptor.dropout) = (2, Direction::Bidirectional, 0.25);
        let gradients = OutputGradients { dy: Some(self.dy.clone()), ..OutputGradients::default() };
        let backend = CpuBackend::<f64>::new();
        let shape = RnnShape { seq_len: T, batch: B };
        let (outputs, gradients) = pass::train(&backend, &descriptor, shape, &self.inputs, &gradients).unwrap();
        (outputs.y, gradients.dx, gradients.dweights)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // SAFETY: live handles; the backend may go first.
        unsafe {
            frnn_backend_free(self.backend);
            frnn_plan_free(self.plan);
            frnn_reserve_free(self.reserve);
        }
    }
}

/// A struct of numbers and addresses, all zero.
fn zeroed() -> Sizes {
    // SAFETY: nothing but numbers.
    unsafe { std::mem::zeroed() }
}

#[test]
fn the_numbers_are_those_of_the_crate() {
    let mut f = Fixture::new();
    let (y, dx, dweights) = f.expected();
    let (forward, mut backward) = (f.forward(), f.backward());
    // SAFETY: live handles and buffers.
    unsafe {
        ok(frnn_forward_training(f.plan, &forward, f.reserve));
        assert_eq!(f.y, y);
        ok(frnn_backward_data(f.plan, &backward, f.reserve));
        ok(frnn_backward_weights(f.plan, &backward, f.reserve));
        assert_eq!(f.dx, dx);
        assert_eq!(f.dweights, dweights);
        backward.dweights.accumulate = 1;
        ok(frnn_backward_weights(f.plan, &backward, f.reserve));
    }
    for (twice, once) in f.dweights.iter().zip(&dweights) {
        assert!((twice - 2.0 * once).abs() <= 1e-12 * once.abs().max(1.0), "{twice} {once}");
    }
}

#[test]
fn weights_may_be_given_tensor_by_tensor() {
    let mut f = Fixture::new();
    let (y, dx, dweights) = f.expected();
    let (mut forward, mut backward) = (f.forward(), f.backward());
    let ranges: Vec<_> = f.layout.entries().iter().map(|entry| entry.range.clone()).collect();
    let tensors: Vec<Vec<f64>> = ranges.iter().map(|range| f.inputs.weights[range.clone()].to_vec()).collect();
    let mut gradients: Vec<Vec<f64>> = ranges.iter().map(|range| vec![1.0; range.len()]).collect();
    let addresses: Vec<*const c_void> = tensors.iter().map(|tensor| tensor.as_ptr().cast()).collect();
    let gradient_addresses: Vec<*mut c_void> = gradients.iter_mut().map(|tensor| tensor.as_mut_ptr().cast()).collect();
    forward.weights = Weights { data: null(), tensors: addresses.as_ptr(), len: addresses.len() };
    backward.weights = forward.weights;
    backward.dweights =
        Gradients { data: null_mut(), tensors: gradient_addresses.as_ptr(), len: addresses.len(), accumulate: 1 };
    // SAFETY: live handles and buffers.
    unsafe {
        ok(frnn_forward_training(f.plan, &forward, f.reserve));
        ok(frnn_backward_data(f.plan, &backward, f.reserve));
        ok(frnn_backward_weights(f.plan, &backward, f.reserve));
        assert_eq!(f.y, y);
        assert_eq!(f.dx, dx);
        for (gradient, range) in gradients.iter().zip(&ranges) {
            let expected: Vec<_> = dweights[range.clone()].iter().map(|value| 1.0 + value).collect();
            assert_eq!(gradient, &expected);
        }
        forward.weights.len -= 1;
        refused(frnn_forward_training(f.plan, &forward, f.reserve), Status::Shape, "16 tensors, got 15");
        let mut broken = addresses.clone();
        broken[3] = null();
        forward.weights = Weights { data: null(), tensors: broken.as_ptr(), len: broken.len() };
        refused(frnn_forward_training(f.plan, &forward, f.reserve), Status::NullPointer, "bias_hh_l0");
    }
}

#[test]
fn a_backward_that_runs_twice_is_refused_until_forward_runs_again() {
    let mut f = Fixture::new();
    let (_, dx, _) = f.expected();
    let (forward, backward) = (f.forward(), f.backward());
    let mut small = forward;
    small.workspace.len -= 1;
    let mut other = null_mut();
    // SAFETY: live handles and buffers.
    unsafe {
        refused(frnn_backward_data(f.plan, &backward, f.reserve), Status::ReserveStage, "no forward pass");
        refused(frnn_backward_weights(f.plan, &backward, f.reserve), Status::ReserveStage, "frnn_backward_data");
        ok(frnn_forward_training(f.plan, &forward, f.reserve));
        refused(frnn_backward_weights(f.plan, &backward, f.reserve), Status::ReserveStage, "frnn_backward_data");
        // A refused call uses nothing up.
        let mut wrong = backward;
        wrong.dx.len += 1;
        refused(frnn_backward_data(f.plan, &wrong, f.reserve), Status::Shape, "dx");
        ok(frnn_backward_data(f.plan, &backward, f.reserve));
        refused(frnn_backward_data(f.plan, &backward, f.reserve), Status::ReserveStage, "again");
        ok(frnn_forward_training(f.plan, &forward, f.reserve));
        f.dx.fill(f64::NAN);
        ok(frnn_backward_data(f.plan, &backward, f.reserve));
        assert_eq!(f.dx, dx);
        // A forward that is refused leaves nothing to differentiate.
        refused(frnn_forward_training(f.plan, &small, f.reserve), Status::Shape, "workspace");
        refused(frnn_backward_data(f.plan, &backward, f.reserve), Status::ReserveStage, "no forward pass");
        // Another plan's reserve.
        ok(frnn_forward_training(f.plan, &forward, f.reserve));
        let descriptor = Descriptor::new(1, I, H);
        ok(frnn_plan_new(f.backend, &descriptor, 1, T, B, 1, 0, &mut other));
        refused(frnn_backward_data(other, &backward, f.reserve), Status::ReserveMismatch, "another plan");
        frnn_plan_free(other);
    }
}

#[test]
fn misuse_is_a_status() {
    let mut f = Fixture::new();
    let forward = f.forward();
    let plan = f.plan;
    let call = |change: &dyn Fn(&mut ForwardArguments)| {
        let mut changed = forward;
        change(&mut changed);
        // SAFETY: live handles; changed pointers are null, refused or within a live buffer.
        unsafe { frnn_forward_training(plan, &changed, f.reserve) }
    };
    refused(call(&|args| args.x.data = null()), Status::NullPointer, "x");
    refused(call(&|args| args.x = In::NONE), Status::NullPointer, "x");
    refused(call(&|args| args.y = Out::NONE), Status::NullPointer, "y");
    refused(call(&|args| args.weights = Weights::NONE), Status::NullPointer, "weights");
    refused(call(&|args| args.workspace = Out::NONE), Status::Shape, "workspace");
    refused(call(&|args| args.x.len -= 1), Status::Shape, "x: expected 90 elements");
    refused(call(&|args| args.weights.len = 1), Status::Shape, "weights");
    refused(call(&|args| args.lengths.len = 2), Status::Shape, "lengths");
    refused(call(&|args| args.x.data = (args.x.data as usize + 1) as *const c_void), Status::Alignment, "x");
    refused(call(&|args| args.x.len = usize::MAX), Status::SizeOverflow, "x");
    refused(call(&|args| args.h0 = In { data: args.y.data, len: 4 * B * H }), Status::Overlap, "h0 and y overlap");
    refused(call(&|args| args.size = 8), Status::StructSize, "sizeof");
    refused(call(&|args| args.lengths.data = [7u32, 1, 1].as_ptr().cast()), Status::SequenceLength, "lengths[0]");
    // SAFETY: null is allowed everywhere, as are live handles.
    unsafe {
        refused(frnn_forward(plan, &forward), Status::InvalidOption, "mode");
        refused(frnn_forward(null(), &forward), Status::NullPointer, "plan");
        refused(frnn_forward_training(plan, null(), f.reserve), Status::NullPointer, "arguments");
        refused(frnn_forward_training(plan, &forward, null()), Status::NullPointer, "reserve");
        refused(frnn_plan_check(null(), 0), Status::NullPointer, "plan");
        ok(frnn_plan_check(plan, 0));
        refused(frnn_backend_cpu(1 << 20, &mut null_mut()), Status::InvalidOption, "threads");
        refused(frnn_backend_cpu(1, null_mut()), Status::NullPointer, "backend");
        refused(frnn_plan_sizes(plan, null_mut()), Status::NullPointer, "sizes");
        refused(frnn_plan_sizes(plan, &mut zeroed()), Status::StructSize, "sizes.size");
        refused(frnn_descriptor_default(null_mut(), 1000, 1, 1, 1), Status::NullPointer, "descriptor");
        if cfg!(not(feature = "cuda")) {
            refused(frnn_backend_cuda(0, 0, &mut null_mut()), Status::Unsupported, "--features cuda");
        }
        frnn_backend_free(null_mut());
        frnn_plan_free(null_mut());
        frnn_reserve_free(null_mut());
    }
}

#[test]
fn options_are_those_of_the_crate() {
    let mut d = Descriptor::new(1, I, H);
    (d.proj_size, d.peepholes, d.coupled_input_forget, d.gate_clip, d.cell_clip) = (3, 1, 1, 2.0, 4.0);
    (d.layout, d.bias, d.padded_output, d.memory, d.memory_value) = (1, 1, 1, 1, 4);
    d.activations.gate = ActivationOption { function: 3, alpha: 0.2, beta: 0.5 };
    let operator = d.operator().unwrap();
    let mut expected = RnnDescriptor::lstm(I, H);
    expected.proj_size = Some(3);
    (expected.peepholes, expected.coupled_input_forget) = (true, true);
    (expected.gate_clip, expected.cell_clip) = (Some(2.0), Some(4.0));
    expected.layout = fused_rnn::rnn::Layout::BatchMajor;
    expected.bias = fused_rnn::rnn::Bias::Single;
    expected.padded_output = fused_rnn::rnn::PaddedOutput::Hold;
    expected.memory = fused_rnn::rnn::Memory::Checkpoints { every: 4 };
    expected.activations.gate = fused_rnn::cell::Activation::ONNX_HARD_SIGMOID;
    assert_eq!(operator, expected);
    for (number, cell) in
        [CellKind::Rnn, CellKind::Lstm, CellKind::Gru, CellKind::Slstm, CellKind::Mgu].into_iter().enumerate()
    {
        assert_eq!(Descriptor::new(number as u32, I, H).operator().unwrap(), RnnDescriptor::new(cell, I, H));
    }
    assert_eq!(CellKind::ALL.len(), 5, "a cell that the interface has not");
    assert_eq!(fused_rnn::cell::Activation::ALL.len(), 13, "an activation that the interface has not");
    let broken = |change: fn(&mut Descriptor), part: &str| {
        let mut d = Descriptor::new(1, I, H);
        change(&mut d);
        let failure = d.operator().unwrap_err();
        assert!(failure.message.contains(part), "{}", failure.message);
    };
    broken(|d| d.cell = 9, "option cell: expected one of 0 (Rnn)");
    broken(|d| d.direction = 3, "direction");
    broken(|d| d.peepholes = 2, "peepholes");
    broken(|d| d.hidden_size = 0, "hidden_size");
    broken(|d| d.gate_clip = f64::NAN, "gate_clip");
    broken(|d| d.activations.state.function = 77, "activation");
    broken(|d| d.reset = 1, "reset");
}
