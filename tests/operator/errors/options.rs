//! Options and sizes: what is invalid is named, and overflows are refused before anything is allocated.

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::backend::{ForwardMode, RecurrentBackend};
use fused_rnn::cell::{Activation, Activations, CellKind};
use fused_rnn::rnn::{
    Bias, Direction, ForgetGate, GruReset, InputKind, Layout, PaddedOutput, RnnDescriptor, RnnShape, WeightLayout,
};
use fused_rnn::{Error, Result};

fn all_options() -> RnnDescriptor {
    let mut d = RnnDescriptor::lstm(3, 4);
    d.num_layers = 2;
    d.direction = Direction::Bidirectional;
    d.bias = Bias::Double;
    d.layout = Layout::BatchMajor;
    d.reverse_activations = Some(Activations { gate: Activation::ONNX_HARD_SIGMOID, ..Activations::default() });
    d.dropout = 0.5;
    d.proj_size = Some(2);
    d.peepholes = true;
    d.coupled_input_forget = true;
    d.gate_clip = Some(3.0);
    d.cell_clip = Some(1.0);
    d.padded_output = PaddedOutput::Hold;
    d
}

/// The option that an error is about.
fn refused_option(result: Result<()>) -> String {
    match result.expect_err("should be refused") {
        Error::InvalidOption { option, expected, got } => {
            assert!(!expected.is_empty() && !got.is_empty(), "{option}: {expected}, {got}");
            option
        }
        Error::ZeroSize { name } => name.to_owned(),
        other => panic!("expected an invalid option, got {other:?}"),
    }
}

#[test]
fn all_options_together_are_valid() {
    all_options().validate().expect("valid");
    for cell in CellKind::ALL {
        RnnDescriptor::new(cell, 1, 1).validate().expect("valid");
    }
}

#[test]
fn an_invalid_option_is_named_alone_and_beside_valid_ones() {
    type Change = fn(&mut RnnDescriptor);
    let cases: &[(&str, Change)] = &[
        ("input_size", |d| d.input_size = 0),
        ("hidden_size", |d| {
            d.hidden_size = 0;
            d.proj_size = None;
        }),
        ("num_layers", |d| d.num_layers = 0),
        ("proj_size", |d| d.proj_size = Some(0)),
        ("proj_size", |d| d.proj_size = Some(d.hidden_size)),
        ("proj_size", |d| d.proj_size = Some(d.hidden_size + 1)),
        ("proj_size", |d| d.proj_size = Some(usize::MAX)),
        ("dropout", |d| d.dropout = f64::NAN),
        ("dropout", |d| d.dropout = -1.0),
        ("dropout", |d| d.dropout = -f64::MIN_POSITIVE),
        ("dropout", |d| d.dropout = 1.0 + f64::EPSILON),
        ("dropout", |d| d.dropout = 2.0),
        ("dropout", |d| d.dropout = f64::INFINITY),
        ("gate_clip", |d| d.gate_clip = Some(0.0)),
        ("gate_clip", |d| d.gate_clip = Some(-1.0)),
        ("gate_clip", |d| d.gate_clip = Some(f64::NAN)),
        ("gate_clip", |d| d.gate_clip = Some(f64::INFINITY)),
        ("cell_clip", |d| d.cell_clip = Some(0.0)),
        ("cell_clip", |d| d.cell_clip = Some(-0.0)),
        ("cell_clip", |d| d.cell_clip = Some(f64::NAN)),
        ("cell_clip", |d| d.cell_clip = Some(f64::NEG_INFINITY)),
        ("activations.gate.alpha", |d| d.activations.gate = Activation::HardSigmoid { alpha: f64::NAN, beta: 0.5 }),
        ("activations.state.beta", |d| {
            d.activations.state = Activation::ScaledTanh { alpha: 1.0, beta: f64::INFINITY }
        }),
        ("activations.output.alpha", |d| d.activations.output = Activation::Elu { alpha: f64::NEG_INFINITY }),
        ("activations.output.alpha", |d| d.activations.output = Activation::LeakyRelu { alpha: f64::NAN }),
        ("activations.output.alpha", |d| d.activations.output = Activation::ThresholdedRelu { alpha: f64::NAN }),
        ("activations.gate.beta", |d| d.activations.gate = Activation::Affine { alpha: 1.0, beta: f64::NAN }),
        ("reverse_activations.gate.alpha", |d| {
            d.direction = Direction::Bidirectional;
            d.reverse_activations =
                Some(Activations { gate: Activation::Elu { alpha: f64::NAN }, ..Activations::default() })
        }),
        ("reset", |d| d.reset = GruReset::Before),
        ("forget_gate", |d| d.forget_gate = ForgetGate::Exponential),
        ("heads", |d| d.heads = 0),
        ("heads", |d| d.heads = 3),
        ("heads", |d| d.heads = usize::MAX),
        ("heads", |d| (d.heads, d.proj_size) = (2, Some(1))),
        ("num_layers", |d| (d.num_layers, d.input, d.proj_size) = (2, InputKind::Gates, None)),
        ("input_size", |d| (d.num_layers, d.input, d.proj_size) = (1, InputKind::Gates, None)),
        ("reverse_activations", |d| {
            d.direction = Direction::Forward;
            d.reverse_activations = Some(Activations::default());
        }),
        ("reverse_activations", |d| {
            d.direction = Direction::Reverse;
            d.reverse_activations = Some(Activations::default());
        }),
    ];
    for (option, change) in cases {
        for start in [RnnDescriptor::lstm(3, 4), all_options()] {
            let mut d = start;
            change(&mut d);
            assert_eq!(&refused_option(d.validate()), option, "{d:?}");
            // The same answer wherever a descriptor enters.
            let shape = RnnShape { seq_len: 2, batch: 2 };
            assert_eq!(&refused_option(shape.tensors(&d).map(drop)), option);
            assert_eq!(&refused_option(WeightLayout::new(&d).map(drop)), option);
            for mode in [ForwardMode::Inference, ForwardMode::Training] {
                host_backends!(backend => assert_eq!(&refused_option(backend.plan(&d, shape, mode).map(drop)), option));
            }
        }
    }
}

#[test]
fn options_of_another_cell_are_refused() {
    type Change = fn(&mut RnnDescriptor);
    let lstm_only: &[(&str, Change)] = &[
        ("proj_size", |d| d.proj_size = Some(2)),
        ("peepholes", |d| d.peepholes = true),
        ("coupled_input_forget", |d| d.coupled_input_forget = true),
        ("cell_clip", |d| d.cell_clip = Some(1.0)),
    ];
    for cell in CellKind::ALL.into_iter().filter(|cell| *cell != CellKind::Lstm) {
        for (option, change) in lstm_only {
            let mut d = RnnDescriptor::new(cell, 3, 4);
            change(&mut d);
            assert_eq!(&refused_option(d.validate()), option);
            let text = d.validate().expect_err("refused").to_string();
            assert!(text.contains(option) && text.contains(cell.spec().name), "{text}");
        }
    }
    for cell in CellKind::ALL.into_iter().filter(|cell| *cell != CellKind::Gru) {
        let mut d = RnnDescriptor::new(cell, 3, 4);
        d.reset = GruReset::Before;
        assert_eq!(refused_option(d.validate()), "reset");
    }
}

#[test]
fn sizes_of_zero_are_named() {
    for (name, seq_len, batch) in [("seq_len", 0, 1), ("batch", 1, 0), ("seq_len", 0, 0)] {
        let shape = RnnShape { seq_len, batch };
        let d = all_options();
        assert!(matches!(shape.tensors(&d), Err(Error::ZeroSize { name: n }) if n == name));
        host_backends!(backend => {
            let refused = backend.plan(&d, shape, ForwardMode::Training).map(drop);
            assert!(matches!(refused, Err(Error::ZeroSize { name: n }) if n == name));
        });
        assert_eq!(Error::ZeroSize { name: "seq_len" }.to_string(), "seq_len is 0, but must be at least 1");
    }
}

/// Every size at values around the limits of the address space, alone, in pairs and all together: always a typed answer, and never an
/// allocation of that size.
#[test]
fn sizes_that_overflow_are_refused_without_allocating() {
    let huge = [
        1usize << 20,
        1 << 31,
        (1 << 31) + 1,
        1 << 32,
        1 << 40,
        1 << 58,
        1 << 60,
        (1 << 61) - 1,
        1 << 62,
        isize::MAX as usize,
        1 << 63,
        usize::MAX - 4,
        usize::MAX - 1,
        usize::MAX,
    ];
    let bases = {
        let mut both = RnnDescriptor::gru(2, 3);
        both.direction = Direction::Bidirectional;
        [RnnDescriptor::rnn(2, 3), both, all_options()]
    };
    let set = |d: &mut RnnDescriptor, s: &mut RnnShape, which: usize, size: usize| match which {
        0 => d.input_size = size,
        1 => d.hidden_size = size,
        2 => d.num_layers = size,
        3 => d.proj_size = d.proj_size.map(|_| size),
        4 => s.seq_len = size,
        _ => s.batch = size,
    };
    let (mut accepted, mut refused) = (0, 0);
    for base in bases {
        for size in huge {
            for first in 0..6 {
                for second in first..6 {
                    let (mut d, mut shape) = (base.clone(), RnnShape { seq_len: 2, batch: 2 });
                    set(&mut d, &mut shape, first, size);
                    set(&mut d, &mut shape, second, size);
                    // What the plan says, and that asking for it does not fail.
                    let _ = (d.layer_input_size(0), d.layer_input_size(1), d.output_size(), d.num_directions());
                    for mode in [ForwardMode::Inference, ForwardMode::Training] {
                        host_backends!(backend => match backend.plan(&d, shape, mode) {
                            Ok(plan) => {
                                accepted += 1;
                                let space = backend.temp_space(&plan);
                                assert!(space.workspace <= isize::MAX as usize && space.reserve <= isize::MAX as usize);
                            }
                            Err(error) => {
                                refused += 1;
                                assert!(
                                    matches!(error, Error::SizeOverflow { .. } | Error::InvalidOption { .. }),
                                    "{error:?}"
                                );
                            }
                        });
                    }
                }
            }
        }
    }
    assert!(accepted > 0 && refused > 100, "{accepted} accepted, {refused} refused");
}

/// Sizes that are possible, but that the tensors given do not have, are refused before anything of that size is allocated.
#[test]
fn sizes_that_the_data_do_not_bear_out_are_refused_without_allocating() {
    let shape = RnnShape { seq_len: 1 << 30, batch: 1 << 20 };
    let inputs = Inputs { weights: vec![0.0f32; 3], x: vec![0.0; 4], ..Inputs::default() };
    for d in [RnnDescriptor::gru(2, 3), RnnDescriptor::rnn(1 << 26, 1 << 27)] {
        for shape in [shape, RnnShape { seq_len: 1, batch: 2 }] {
            let infer = pass::infer(&ReferenceBackend::new(), &d, shape, &inputs).map(drop);
            let train = pass::train(&CpuBackend::new(), &d, shape, &inputs, &OutputGradients::default()).map(drop);
            for refused in [infer, train] {
                let error = refused.expect_err("sizes that are not there");
                assert!(
                    matches!(&error, Error::Shape { tensor, .. } | Error::SizeOverflow { tensor, .. }
                        if ["x", "weights", "reserve"].contains(&tensor.as_str()))
                        || matches!(error, Error::InvalidOption { .. }),
                    "{error:?}"
                );
            }
        }
    }
}

#[test]
fn an_overflow_names_the_tensor_and_the_product() {
    let shape = RnnShape { seq_len: usize::MAX, batch: 2 };
    let text = shape.tensors(&RnnDescriptor::rnn(3, 4)).expect_err("overflows").to_string();
    assert_eq!(
        text,
        format!(
            "x: seq_len {} * batch 2 * input_size 3 elements overflow the address space; use smaller sizes",
            usize::MAX
        )
    );
    let refused = WeightLayout::new(&RnnDescriptor::rnn(usize::MAX, 4));
    assert!(matches!(refused, Err(Error::SizeOverflow { tensor, .. }) if tensor == "weight_ih_l0"));
}
