//! Calls: tensors of the wrong length, plans for another call, reserves of another plan.

use crate::common::run::{Buffers, Setup};
use crate::common::{Problem, Recipe};
use fused_rnn::backend::pass::{Inputs, OutputGradients};
use fused_rnn::backend::{Empty, Filled, ForwardMode, HostBackend, Reserve, WeightGrad};
use fused_rnn::cell::{Activation, CellKind};
use fused_rnn::rnn::{Bias, Direction, Layout, PaddedOutput, RnnDescriptor, RnnShape};
use fused_rnn::{Error, Result, Scalar};

/// A problem that has every tensor, for the LSTM, and one for the GRU.
fn full_problem(cell: CellKind) -> Problem {
    let mut descriptor = RnnDescriptor::new(cell, 3, 4);
    descriptor.num_layers = 2;
    descriptor.direction = Direction::Bidirectional;
    if cell == CellKind::Lstm {
        descriptor.proj_size = Some(2);
    }
    Recipe {
        descriptor,
        shape: RnnShape { seq_len: 5, batch: 3 },
        lengths: true,
        resets: true,
        h0: true,
        c0: true,
        dy: true,
        dhn: true,
        dcn: true,
        ..Recipe::random(7)
    }
    .problem()
}

/// How one call goes wrong: the tensor, changed to a length.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    Inference,
    Training,
    BackwardData,
    BackwardWeights,
}

struct Everything<E> {
    inputs: Inputs<E>,
    gradients: OutputGradients<E>,
    buffers: Buffers<E>,
    workspace: Vec<E>,
}

impl<E: Scalar> Everything<E> {
    /// The length of a tensor, by name, and a way to change it.
    fn resize(&mut self, tensor: &str, len: usize) {
        fn some<T>(tensor: &mut Option<Vec<T>>) -> &mut Vec<T> {
            tensor.as_mut().expect("the full problem has it")
        }
        let one = E::one();
        match tensor {
            "weights" => self.inputs.weights.resize(len, one),
            "x" => self.inputs.x.resize(len, one),
            "h0" => some(&mut self.inputs.h0).resize(len, one),
            "c0" => some(&mut self.inputs.c0).resize(len, one),
            "lengths" => some(&mut self.inputs.lengths).resize(len, 1),
            "resets" => some(&mut self.inputs.resets).resize(len, 0),
            "y" => self.buffers.y.resize(len, one),
            "hn" => some(&mut self.buffers.hn).resize(len, one),
            "cn" => some(&mut self.buffers.cn).resize(len, one),
            "dy" => some(&mut self.gradients.dy).resize(len, one),
            "dhn" => some(&mut self.gradients.dhn).resize(len, one),
            "dcn" => some(&mut self.gradients.dcn).resize(len, one),
            "dx" => some(&mut self.buffers.dx).resize(len, one),
            "dh0" => some(&mut self.buffers.dh0).resize(len, one),
            "dc0" => some(&mut self.buffers.dc0).resize(len, one),
            "dweights" => self.buffers.dweights.resize(len, one),
            "workspace" => self.workspace.resize(len, one),
            other => panic!("no tensor {other}"),
        }
    }

    fn len(&self, tensor: &str) -> usize {
        let of = |tensor: &Option<Vec<E>>| tensor.as_ref().map_or(0, Vec::len);
        match tensor {
            "weights" => self.inputs.weights.len(),
            "x" => self.inputs.x.len(),
            "h0" => of(&self.inputs.h0),
            "c0" => of(&self.inputs.c0),
            "lengths" => self.inputs.lengths.as_ref().map_or(0, Vec::len),
            "resets" => self.inputs.resets.as_ref().map_or(0, Vec::len),
            "y" => self.buffers.y.len(),
            "hn" => of(&self.buffers.hn),
            "cn" => of(&self.buffers.cn),
            "dy" => of(&self.gradients.dy),
            "dhn" => of(&self.gradients.dhn),
            "dcn" => of(&self.gradients.dcn),
            "dx" => of(&self.buffers.dx),
            "dh0" => of(&self.buffers.dh0),
            "dc0" => of(&self.buffers.dc0),
            "dweights" => self.buffers.dweights.len(),
            "workspace" => self.workspace.len(),
            other => panic!("no tensor {other}"),
        }
    }
}

/// Runs up to `call`, and that one after `spoil` has changed something.
fn spoiled_call<E: Scalar, B: HostBackend<E>>(
    backend: &B,
    problem: &Problem,
    call: Call,
    spoil: impl FnOnce(&mut Everything<E>),
) -> Result<()> {
    let mode = if call == Call::Inference { ForwardMode::Inference } else { ForwardMode::Training };
    let plan = backend.plan(&problem.descriptor, problem.shape, mode)?;
    let space = backend.temp_space(&plan);
    let mut all = Everything {
        inputs: problem.inputs::<E>(),
        gradients: problem.output_gradients::<E>(),
        buffers: Buffers::new(&problem.descriptor, problem.shape, &Setup::default())?,
        workspace: vec![E::nan(); space.workspace],
    };
    let mut spoil = Some(spoil);
    let mut spoil_at = |at: Call, all: &mut Everything<E>| {
        if at == call {
            spoil.take().expect("once")(all);
        }
    };
    if call == Call::Inference {
        spoil_at(call, &mut all);
        return backend.forward(&plan, all.buffers.forward::<B>(&all.inputs, &mut all.workspace));
    }
    let reserve = Reserve::new(vec![E::nan(); space.reserve]);
    spoil_at(Call::Training, &mut all);
    let reserve =
        backend.forward_training(&plan, all.buffers.forward::<B>(&all.inputs, &mut all.workspace), reserve)?;
    spoil_at(Call::BackwardData, &mut all);
    let args = all.buffers.backward_data::<B>(&all.inputs, &all.gradients, &mut all.workspace);
    let mut reserve = backend.backward_data(&plan, args, reserve)?;
    spoil_at(Call::BackwardWeights, &mut all);
    let args = all.buffers.backward_weights::<B>(&all.inputs, &mut all.workspace);
    backend.backward_weights(&plan, args, &mut reserve, WeightGrad::Add)
}

fn every_wrong_length_is_named<E: Scalar, B: HostBackend<E>>(backend: &B) {
    let forward = &["weights", "x", "h0", "c0", "lengths", "resets", "y", "hn", "cn", "workspace"][..];
    let backward_data =
        &["weights", "y", "h0", "c0", "lengths", "resets", "dy", "dhn", "dcn", "dx", "dh0", "dc0", "workspace"][..];
    let backward_weights = &["x", "y", "h0", "c0", "lengths", "resets", "dweights", "workspace"][..];
    for cell in CellKind::ALL {
        let problem = full_problem(cell);
        for (call, tensors) in [
            (Call::Inference, forward),
            (Call::Training, forward),
            (Call::BackwardData, backward_data),
            (Call::BackwardWeights, backward_weights),
        ] {
            spoiled_call(backend, &problem, call, |_| {}).expect("an unspoiled call");
            for tensor in tensors.iter().filter(|t| cell.has_cell_state() || !t.contains('c')) {
                let mut len = 0;
                spoiled_call::<E, B>(backend, &problem, call, |all| len = all.len(tensor)).expect("unspoiled");
                // A workspace may be too large, and one that is empty cannot be too small.
                let wrong: Vec<usize> = match *tensor {
                    "workspace" if len == 0 => continue,
                    "workspace" => vec![0, len / 2, len - 1],
                    _ => vec![0, 1, len / 2, len - 1, len + 1, 2 * len],
                };
                for wrong in wrong.into_iter().filter(|wrong| *wrong != len) {
                    let refused = spoiled_call::<E, B>(backend, &problem, call, |all| all.resize(tensor, wrong));
                    let error = refused.expect_err(tensor);
                    let text = error.to_string();
                    let Error::Shape { tensor: named, expected, got } = error else { panic!("{tensor}: {text}") };
                    assert_eq!(&named, tensor);
                    assert_eq!(got, format!("{wrong} elements"));
                    assert!(expected.contains(&format!("{len} elements")), "{text}");
                    assert!(text.starts_with(&format!("{tensor}: expected ")), "{text}");
                }
            }
        }
    }
}

fn lengths_outside_the_sequence_are_named<E: Scalar, B: HostBackend<E>>(backend: &B) {
    for call in [Call::Inference, Call::Training, Call::BackwardData, Call::BackwardWeights] {
        for (index, bad) in [(0, 0), (2, 0), (1, 6), (2, u32::MAX), (0, 1 << 31)] {
            let spoil = |all: &mut Everything<E>| all.inputs.lengths.as_mut().expect("given")[index] = bad;
            let error = spoiled_call(backend, &full_problem(CellKind::Gru), call, spoil).expect_err("refused");
            assert_eq!(error.to_string(), format!("lengths[{index}]: expected 1..=5, got {bad}"));
            assert!(matches!(error, Error::SequenceLength { seq_len: 5, .. }));
        }
    }
}

fn cell_states_are_only_for_cells_that_have_them<E: Scalar, B: HostBackend<E>>(backend: &B) {
    for cell in CellKind::ALL.into_iter().filter(|cell| !cell.has_cell_state()) {
        let problem = full_problem(cell);
        let len = problem.inputs.h0.as_ref().expect("given").len();
        let state = || Some(vec![E::one(); len]);
        let c0 = |all: &mut Everything<E>| all.inputs.c0 = state();
        let cn = |all: &mut Everything<E>| all.buffers.cn = state();
        let dcn = |all: &mut Everything<E>| all.gradients.dcn = state();
        let dc0 = |all: &mut Everything<E>| all.buffers.dc0 = state();
        type Spoil<'a, E> = &'a dyn Fn(&mut Everything<E>);
        let cases: [(&str, Call, Spoil<'_, E>); 8] = [
            ("c0", Call::Inference, &c0),
            ("c0", Call::Training, &c0),
            ("c0", Call::BackwardData, &c0),
            ("c0", Call::BackwardWeights, &c0),
            ("cn", Call::Inference, &cn),
            ("cn", Call::Training, &cn),
            ("dcn", Call::BackwardData, &dcn),
            ("dc0", Call::BackwardData, &dc0),
        ];
        for (name, call, spoil) in cases {
            let error = spoiled_call(backend, &problem, call, spoil).expect_err(name);
            assert_eq!(error.to_string(), format!("{name}: the {cell} has no cell state; pass None"));
        }
    }
}

fn a_plan_is_for_its_mode_only<E: Scalar, B: HostBackend<E>>(backend: &B) {
    let problem = full_problem(CellKind::Lstm);
    let (d, shape) = (&problem.descriptor, problem.shape);
    let inputs = problem.inputs::<E>();
    let mut buffers = Buffers::new(d, shape, &Setup::default()).expect("valid");
    let training = backend.plan(d, shape, ForwardMode::Training).expect("valid");
    let mut workspace = vec![E::zero(); 1 << 16];
    let error = backend.forward(&training, buffers.forward::<B>(&inputs, &mut workspace)).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "option mode: expected a plan for Inference in forward, got Training; call forward_training"
    );
    let inference = backend.plan(d, shape, ForwardMode::Inference).expect("valid");
    let reserve = Reserve::new(vec![E::zero(); 1 << 16]);
    let args = buffers.forward::<B>(&inputs, &mut workspace);
    let error = backend.forward_training(&inference, args, reserve).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "option mode: expected a plan for Training in forward_training, got Inference; call forward"
    );
}

fn a_reserve_must_be_large_enough<E: Scalar, B: HostBackend<E>>(backend: &B) {
    for cell in CellKind::ALL {
        let problem = full_problem(cell);
        let (d, shape) = (&problem.descriptor, problem.shape);
        let inputs = problem.inputs::<E>();
        let plan = backend.plan(d, shape, ForwardMode::Training).expect("valid");
        let space = backend.temp_space(&plan);
        let mut workspace = vec![E::zero(); space.workspace];
        for len in [0, 1, space.reserve / 2, space.reserve - 1] {
            let mut buffers = Buffers::new(d, shape, &Setup::default()).expect("valid");
            let reserve: Reserve<Vec<E>, Empty> = Reserve::new(vec![E::zero(); len]);
            let args = buffers.forward::<B>(&inputs, &mut workspace);
            let error = backend.forward_training(&plan, args, reserve).expect_err("too small");
            let text = error.to_string();
            assert!(
                matches!(&error, Error::Shape { tensor, expected, got } if tensor == "reserve"
                    && expected.contains(&space.reserve.to_string()) && got == &format!("{len} elements")),
                "{text}"
            );
        }
    }
}

/// The markers are public, so that backends outside this crate can be written: a reserve may claim to be what it is not.
fn forged_reserves_are_refused_or_computed_on<E: Scalar, B>(backend: &B, fingerprint: impl Fn(&B::Plan) -> u64)
where
    B: HostBackend<E>,
{
    let problem = full_problem(CellKind::Lstm);
    let (d, shape) = (&problem.descriptor, problem.shape);
    let (inputs, gradients) = (problem.inputs::<E>(), problem.output_gradients::<E>());
    for mode in [ForwardMode::Inference, ForwardMode::Training] {
        let plan = backend.plan(d, shape, mode).expect("valid");
        let space = backend.temp_space(&plan);
        let mut workspace = vec![E::zero(); space.workspace + (1 << 16)];
        for len in [0, 1, space.reserve.saturating_sub(1), space.reserve] {
            let mut buffers = Buffers::new(d, shape, &Setup::default()).expect("valid");
            buffers.y.fill(E::zero());
            let forge = || Reserve::new(vec![E::nan(); len]).filled(fingerprint(&plan), 0);
            let args = buffers.backward_data::<B>(&inputs, &gradients, &mut workspace);
            let outcome = backend.backward_data(&plan, args, forge()).map(drop);
            let computable = mode == ForwardMode::Training && len == space.reserve;
            assert_eq!(outcome.is_ok(), computable, "{mode:?} {len}: {outcome:?}");
            let mut differentiated = forge().differentiated();
            let args = buffers.backward_weights::<B>(&inputs, &mut workspace);
            let outcome = backend.backward_weights(&plan, args, &mut differentiated, WeightGrad::Set);
            assert_eq!(outcome.is_ok(), computable, "{mode:?} {len}: {outcome:?}");
        }
    }
}

fn a_reserve_of_another_plan_is_refused<E: Scalar, B: HostBackend<E>>(backend: &B) {
    let problem = full_problem(CellKind::Lstm);
    let (d, shape) = (&problem.descriptor, problem.shape);
    let (inputs, gradients) = (problem.inputs::<E>(), problem.output_gradients::<E>());
    let plan = backend.plan(d, shape, ForwardMode::Training).expect("valid");
    let space = backend.temp_space(&plan);
    type Change = fn(&mut RnnDescriptor, &mut RnnShape);
    let others: &[Change] = &[
        |d, _| d.dropout = 0.25,
        |d, _| d.bias = Bias::None,
        |d, _| d.layout = Layout::BatchMajor,
        |d, _| d.activations.state = Activation::Softsign,
        |d, _| d.gate_clip = Some(2.0),
        |d, _| d.padded_output = PaddedOutput::Hold,
        |_, s| *s = RnnShape { seq_len: s.batch, batch: s.seq_len },
        |_, s| s.seq_len += 1,
    ];
    for change in others {
        let (mut other_d, mut other_shape) = (d.clone(), shape);
        change(&mut other_d, &mut other_shape);
        let other = backend.plan(&other_d, other_shape, ForwardMode::Training).expect("valid");
        let mut buffers = Buffers::new(d, shape, &Setup::default()).expect("valid");
        let mut workspace = vec![E::zero(); space.workspace];
        let args = buffers.forward::<B>(&inputs, &mut workspace);
        let reserve = backend
            .forward_training(&plan, args, Reserve::new(vec![E::zero(); 2 * space.reserve + (1 << 16)]))
            .expect("valid");
        // Whatever else is wrong with the other plan's sizes, the buffers are right for it.
        let mut other_problem = full_problem(CellKind::Lstm).recipe;
        (other_problem.descriptor, other_problem.shape) = (other_d.clone(), other_shape);
        let other_problem = other_problem.problem();
        let (other_inputs, other_gradients) = (other_problem.inputs::<E>(), other_problem.output_gradients::<E>());
        let mut other_buffers = Buffers::new(&other_d, other_shape, &Setup::default()).expect("valid");
        let mut other_workspace = vec![E::zero(); backend.temp_space(&other).workspace];
        let args = other_buffers.backward_data::<B>(&other_inputs, &other_gradients, &mut other_workspace);
        let error = backend.backward_data(&other, args, reserve).expect_err("another plan's");
        assert!(matches!(error, Error::ReserveMismatch { .. }), "{error:?}");
        assert!(error.to_string().contains("pass the plan that ran forward"), "{error}");

        let args = buffers.forward::<B>(&inputs, &mut workspace);
        let reserve = backend
            .forward_training(&plan, args, Reserve::new(vec![E::zero(); 2 * space.reserve + (1 << 16)]))
            .expect("valid");
        let args = buffers.backward_data::<B>(&inputs, &gradients, &mut workspace);
        let mut reserve = backend.backward_data(&plan, args, reserve).expect("valid");
        let args = other_buffers.backward_weights::<B>(&other_inputs, &mut other_workspace);
        let error = backend.backward_weights(&other, args, &mut reserve, WeightGrad::Add).expect_err("another plan's");
        assert!(matches!(error, Error::ReserveMismatch { .. }), "{error:?}");
    }
    // The same operator planned again is the same plan.
    let again = backend.plan(d, shape, ForwardMode::Training).expect("valid");
    let mut buffers = Buffers::new(d, shape, &Setup::default()).expect("valid");
    let mut workspace = vec![E::zero(); space.workspace];
    let args = buffers.forward::<B>(&inputs, &mut workspace);
    let reserve: Reserve<_, Filled> =
        backend.forward_training(&plan, args, Reserve::new(vec![E::zero(); space.reserve])).expect("valid");
    let args = buffers.backward_data::<B>(&inputs, &gradients, &mut workspace);
    backend.backward_data(&again, args, reserve).expect("the same plan");
}

macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[test]
            fn on_every_backend() {
                host_backends!(backend => super::$name(&backend));
            }
        }
    )*};
}

on_every_backend!(
    every_wrong_length_is_named,
    lengths_outside_the_sequence_are_named,
    cell_states_are_only_for_cells_that_have_them,
    a_plan_is_for_its_mode_only,
    a_reserve_must_be_large_enough,
    a_reserve_of_another_plan_is_refused,
);

#[test]
fn forged_reserves() {
    host_backends!(backend => forged_reserves_are_refused_or_computed_on(&backend, |plan| plan.fingerprint()));
}
