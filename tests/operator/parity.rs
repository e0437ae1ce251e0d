//! Parity with PyTorch, Keras, ONNX and ONNX Runtime: the shipped cases on every backend, and damaged cases.

use crate::common::cases::{Draft, fixture, fixtures, parse};
use fused_rnn::backend::HostBackend;
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::parity::Case;
use fused_rnn::{DType, Device, Error, Scalar};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// Every fixture on one backend.
fn all_pass<E: Scalar, B: HostBackend<E>>(backend: &B) {
    let files = fixtures();
    for prefix in ["torch_", "keras_", "onnx_", "ort_", "equations_"] {
        let count = files.iter().filter(|f| f.file_name().unwrap().to_string_lossy().starts_with(prefix)).count();
        assert!(count >= 15, "only {count} cases of {prefix}");
    }
    for file in files {
        let case = Case::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let report = case.run(backend, None).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(report.tensors.len(), case.expected().count());
        let worst = report.worst().unwrap();
        assert!(report.passed(), "{} {} {}: {worst:?}", backend.name(), E::DTYPE, case.name());
        let expected = if E::DTYPE == DType::F32 || case.name().starts_with('o') { 2e-5 } else { 1e-10 };
        assert_eq!(report.tolerance(), Some(expected), "{}", case.name());
    }
}

#[test]
fn fixtures_pass_on_the_reference() {
    all_pass(&ReferenceBackend::<f64>::new());
    all_pass(&ReferenceBackend::<f32>::new());
}

#[test]
fn fixtures_pass_on_the_cpu_backend() {
    all_pass(&CpuBackend::<f64>::new());
    all_pass(&CpuBackend::<f32>::new());
}

/// Every expected tensor is compared: one wrong element in any of them fails, and is named.
#[test]
fn any_wrong_result_fails_and_is_named() {
    for file in fixtures() {
        let draft = Draft::of(&file);
        let case = draft.read().unwrap();
        let amount = 10.0 * case.tolerance(DType::F64);
        for name in case.expected() {
            for (label, change) in [("off", None), ("NaN", Some(f64::NAN)), ("infinite", Some(f64::INFINITY))] {
                let mut changed = draft.clone();
                let wrong = |value: f64| change.unwrap_or(value + draft.largest(name) * amount);
                changed.map(name, |i, value| if i == 0 { wrong(value) } else { value });
                let report = changed.run().unwrap();
                assert!(!report.passed(), "{}: {name} {label}", case.name());
                assert_eq!(report.worst().unwrap().tensor, name, "{} {label}", case.name());
            }
        }
    }
}

/// Every input is used: a change to any of them changes some result. (In single precision it need not fail: some of ONNX's
/// node tests saturate.)
#[test]
fn any_wrong_input_shows() {
    for file in fixtures() {
        let draft = Draft::of(&file);
        let case = draft.read().unwrap();
        let before = draft.run().unwrap();
        let expected: Vec<_> = case.expected().map(str::to_owned).collect();
        // A single step from zeros has nothing to multiply R with; some of ONNX's node tests are like that.
        let unused =
            (case.shape().seq_len == 1 && case.inputs().h0.iter().flatten().all(|v| *v == 0.0)).then_some("in.R");
        for name in draft.floats().iter().filter(|name| !expected.contains(name) && Some(name.as_str()) != unused) {
            let mut changed = draft.clone();
            changed.map(name, |i, value| value + 0.01 * (1 + i % 3) as f64);
            let after = changed.run().unwrap();
            assert_ne!(after, before, "{}: {name} has no effect", file.display());
            assert!(!after.passed() || after.tolerance() > Some(1e-10), "{}: {name} has no effect", file.display());
        }
    }
}

#[test]
fn lengths_and_options_have_an_effect() {
    let with = |name: &str, pointer: &str, value: Value| {
        let mut draft = Draft::of(&fixture(name));
        assert!(draft.run().unwrap().passed());
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        draft.case.pointer_mut(parent).unwrap()[key] = value;
        assert!(!draft.run().unwrap().passed(), "{name} {pointer}");
    };
    with("torch_gru_lengths_unsorted", "/lengths", json!([2, 5, 1, 4]));
    with("torch_rnn_tanh", "/cell", json!("rnn_relu"));
    with("keras_lstm", "/activation", json!("relu"));
    with("keras_lstm", "/recurrent_activation", json!("hard_sigmoid"));
    with("keras_lstm", "/go_backwards", json!(true));
    with("keras_lstm_mask_states", "/go_backwards", json!(true));
    with("keras_lstm_bi_mul_mask", "/bidirectional", json!("ave"));
    with("keras_gru_bi_backwards_mask", "/go_backwards", json!(false));
    with("ort_lstm_peepholes_clip", "/attrs/clip", json!(0.55));
    with("ort_lstm_input_forget", "/attrs/input_forget", json!(0));
    with("ort_gru_after", "/attrs/linear_before_reset", json!(0));
    with("ort_gru_reverse_lengths", "/attrs/direction", json!("forward"));
    with("ort_rnn_bi_activations", "/attrs/activation_alpha", json!([0.5, 0.9]));
    with("ort_rnn_bi_activations", "/attrs/activations", json!(["Affine", "Affine"]));
    // Defaults differ between the two: ONNX Runtime's threshold is 0, ONNX's is 1.
    with("ort_rnn_thresholded_relu", "/source", json!("onnx 1"));
}

/// Keys that repeat a default change nothing, and neither does `null`.
#[test]
fn defaults_are_those_of_the_frameworks() {
    let with = |name: &str, changes: Value| {
        let mut draft = Draft::of(&fixture(name));
        let before = draft.run().unwrap();
        for (key, value) in changes.as_object().unwrap() {
            draft.case[key] = value.clone();
        }
        assert_eq!(draft.run().unwrap(), before, "{name} {changes}");
    };
    with(
        "torch_lstm",
        json!({"proj": null, "lengths": null, "L": null, "bi": null, "bias": null, "source": "pytorch"}),
    );
    with("torch_lstm", json!({"proj": 0, "lengths": [5, 5]}));
    with("keras_lstm", json!({"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": true}));
    with("keras_lstm", json!({"unit_forget_bias": false, "go_backwards": false}));
    with("keras_gru", json!({"reset_after": true}));
    with("ort_gru_clip", json!({"source": "ort"}));
    let mut draft = Draft::of(&fixture("ort_gru_clip"));
    let before = draft.run().unwrap();
    draft.case["attrs"]["linear_before_reset"] = json!(0);
    draft.case["attrs"]["layout"] = json!(0);
    draft.case["attrs"]["direction"] = json!("forward");
    draft.case["attrs"]["activations"] = json!(["Sigmoid", "Tanh"]);
    draft.case["attrs"].as_object_mut().unwrap().remove("hidden_size");
    assert_eq!(draft.run().unwrap(), before);
}

#[test]
fn gradients_may_be_partly_absent() {
    let mut draft = Draft::of(&fixture("torch_lstm"));
    for name in ["dcn", "dhn", "dx", "dw.weight_ih_l0", "hn", "y"] {
        draft.tensors.remove(name);
    }
    // With no upstream gradient of the states, the rest is another loss; zeros say the same as absence.
    let absent = draft.run().unwrap();
    let shape = draft.tensors["h0"].1.clone();
    for name in ["dhn", "dcn"] {
        draft.replace(name, &shape, &vec![0.0; shape.iter().product()]);
    }
    assert_eq!(draft.run().unwrap(), absent);
    draft.tensors.remove("dy");
    draft.tensors.remove("dhn");
    draft.tensors.remove("dcn");
    assert!(draft.run().unwrap_err().to_string().contains("none of dy, dhn and dcn is given"));
}

/// Each change of a good case, and what the error must say.
#[test]
fn malformed_cases_name_what_is_wrong() {
    type Change = Box<dyn Fn(&mut Draft)>;
    fn key(pointer: &'static str, value: Value) -> Change {
        Box::new(move |draft| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            draft.case.pointer_mut(parent).unwrap()[key] = value.clone();
        })
    }
    fn no_key(key: &'static str) -> Change {
        Box::new(move |draft| {
            draft.case.as_object_mut().unwrap().remove(key);
        })
    }
    fn no_tensor(name: &'static str) -> Change {
        Box::new(move |draft| {
            draft.tensors.remove(name);
        })
    }
    fn tensor(name: &'static str, shape: &'static [usize]) -> Change {
        Box::new(move |draft| draft.replace(name, shape, &vec![0.5; shape.iter().product()]))
    }
    let (torch, keras, ort) = ("torch_lstm", "keras_gru_mask_last", "ort_lstm_bi_activations");
    let table: Vec<(&str, Change, &str)> = vec![
        // Keys.
        (torch, no_key("source"), "case.source: expected a string, got nothing"),
        (torch, key("/source", json!("mxnet 1")), "expected torch, keras, onnx, onnxruntime or equations"),
        (torch, key("/source", json!(1)), "case.source: expected a string, got 1"),
        (torch, key("/cell", json!("rwkv")), "case.cell: expected rnn_tanh, rnn_relu, lstm or gru, got \"rwkv\""),
        (torch, no_key("T"), "case.T: expected a whole number of at least 1, got nothing"),
        (torch, key("/T", json!(0)), "case.T: expected a whole number of at least 1, got 0"),
        (torch, key("/T", json!(-5)), "case.T"),
        (torch, key("/T", json!(5.5)), "case.T"),
        (torch, key("/T", json!("5")), "case.T"),
        (torch, key("/T", json!(6)), "x: expected [6, 2, 3], got [5, 2, 3]"),
        (torch, key("/I", json!(1u64 << 40)), "x: expected"),
        (torch, key("/H", json!(u64::MAX)), "elements overflow"),
        (torch, key("/H", json!(1u64 << 31)), "a case may need"),
        (torch, key("/L", json!(1u64 << 20)), "num_layers"),
        (torch, key("/L", json!(2)), "w.weight_ih_l1 is missing"),
        (torch, key("/bi", json!(1)), "case.bi: expected true or false, got 1"),
        (torch, key("/bi", json!(true)), "w.weight_ih_l0_reverse is missing"),
        (torch, key("/bias", json!(false)), "tensor dw.bias_hh_l0"),
        (torch, key("/proj", json!(4)), "proj_size"),
        (torch, key("/proj", json!(-1)), "case.proj"),
        (torch, key("/proj", json!([])), "case.proj"),
        ("torch_gru", key("/proj", json!(2)), "only the LSTM"),
        (torch, key("/lengths", json!([5])), "lengths: expected [B = 2], got [1]"),
        (torch, key("/lengths", json!([5, 0])), "lengths[1]: expected 1..=5, got 0"),
        (torch, key("/lengths", json!([6, 5])), "lengths[0]: expected 1..=5, got 6"),
        (torch, key("/lengths", json!([-1, 5])), "lengths[0]: expected 1..=5, got -1"),
        (torch, key("/lengths", json!([1.5, 5])), "case.lengths[0]: expected a whole number, got 1.5"),
        (torch, key("/lengths", json!(5)), "case.lengths: expected a list, got 5"),
        (
            torch,
            key("/batch_first", json!(true)),
            "case.batch_first: there is no such key here; this kind of case has B, H",
        ),
        (keras, key("/layer", json!("ConvLSTM2D")), "case.layer: expected SimpleRNN, LSTM or GRU"),
        (keras, key("/activation", json!("gelu")), "Keras's activation \"gelu\" (case.activation) is not supported"),
        (keras, key("/activation", json!(3)), "case.activation"),
        (keras, key("/bidirectional", json!("max")), "case.bidirectional: expected null, concat, sum, mul or ave"),
        (keras, key("/bidirectional", json!("sum")), "w.forward.kernel is missing"),
        (keras, key("/unit_forget_bias", json!(true)), "case.unit_forget_bias: there is no such key"),
        (keras, key("/reset_after", json!(false)), "w.bias: expected [9], got [2, 9]"),
        (keras, key("/use_bias", json!(false)), "tensor dw.bias"),
        (keras, key("/mask", json!(false)), "tensor lengths"),
        (keras, key("/return_sequences", json!(true)), "dy: expected [3, 5, 3], got [3, 3]"),
        (keras, key("/layer", json!("SimpleRNN")), "w.kernel: expected [2, 3], got [2, 9]"),
        ("keras_simplernn", key("/recurrent_activation", json!("tanh")), "case.recurrent_activation"),
        (ort, key("/op", json!("Conv")), "case.op: expected RNN, LSTM or GRU"),
        (ort, key("/attrs", json!([])), "case.attrs: expected an object, got a list of 0"),
        (ort, key("/attrs/direction", json!("up")), "case.attrs.direction"),
        (ort, key("/attrs/layout", json!(2)), "case.attrs.layout: expected 0 or 1, got 2"),
        (ort, key("/attrs/layout", json!(1)), "in.sequence_lens: expected [5], got [3]"),
        (ort, key("/attrs/clip", json!("x")), "case.attrs.clip: expected a number"),
        (ort, key("/attrs/clip", json!(-1.0)), "gate_clip"),
        (ort, key("/attrs/clip", json!(1e300)), "gate_clip"),
        (ort, key("/attrs/hidden_size", json!(4)), "in.W: expected [2, 16, 2], got [2, 12, 2]"),
        (ort, key("/attrs/linear_before_reset", json!(1)), "case.attrs.linear_before_reset: there is no such key"),
        (ort, key("/attrs/activations", json!(["Tanh"])), "3 names for each of 2 directions, got 1"),
        (ort, key("/attrs/activations", json!([1, 2, 3])), "case.attrs.activations[0]: expected a string, got 1"),
        (
            ort,
            key("/attrs/activations", json!(["Selu", "Tanh", "Tanh", "Tanh", "Tanh", "Tanh"])),
            "ONNX's activation \"Selu\"",
        ),
        (ort, key("/attrs/activation_alpha", json!(["x"])), "case.attrs.activation_alpha[0]: expected a number"),
        (ort, key("/attrs/activation_alpha", json!([1e300])), "activations.gate.alpha"),
        (ort, key("/T", json!(5)), "case.T: there is no such key"),
        (
            "ort_rnn_bi_activations",
            Box::new(|draft| {
                draft.case["source"] = json!("onnx 1.23.2");
                draft.case["attrs"]["activation_beta"] = json!([0.1]);
            }),
            "ONNX gives it no default",
        ),
        // Tensors.
        (torch, no_tensor("x"), "x is missing; it should be [5, 2, 3]"),
        (torch, no_tensor("w.bias_hh_l0"), "w.bias_hh_l0 is missing"),
        (torch, tensor("w.weight_ih_l0", &[3, 16]), "w.weight_ih_l0: expected [16, 3], got [3, 16]"),
        (torch, tensor("y", &[5, 2, 3]), "y: expected [5, 2, 4], got [5, 2, 3]"),
        (torch, tensor("dhn", &[2, 4]), "dhn: expected [1, 2, 4], got [2, 4]"),
        (
            torch,
            tensor("attention", &[1]),
            "tensor attention: this case has no such input, and its results are cn, dc0",
        ),
        ("torch_gru", tensor("c0", &[1, 2, 4]), "tensor c0"),
        (keras, no_tensor("lengths"), "lengths is missing"),
        (keras, tensor("lengths", &[3]), "lengths: expected i64 or i32"),
        (keras, tensor("w.forward.kernel", &[2, 9]), "tensor w.forward.kernel"),
        (ort, no_tensor("in.X"), "in.X is missing"),
        (ort, tensor("in.X", &[5, 3]), "in.X: expected 3 axes, got [5, 3]"),
        (ort, no_tensor("in.R"), "in.R is missing"),
        (ort, tensor("in.P", &[2, 8]), "in.P: expected [2, 9], got [2, 8]"),
        (ort, tensor("out.Y", &[5, 3, 6]), "out.Y: expected [5, 2, 3, 3], got [5, 3, 6]"),
        ("ort_gru_after", tensor("in.P", &[1, 9]), "tensor in.P"),
        ("ort_gru_no_bias_last", no_tensor("out.Y_h"), "it expects no result; give at least one of out.Y, out.Y_h"),
    ];
    for (name, change, message) in table {
        let mut draft = Draft::of(&fixture(name));
        change(&mut draft);
        let error = draft.run().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(message), "{name}: expected {message:?} in {error:?}");
    }
}

#[test]
fn wrong_dtypes_and_metadata_are_errors() {
    let good = Draft::of(&fixture("torch_lstm"));
    for (text, message) in [
        ("{", "case: not JSON"),
        ("[1]", "case: expected an object, got a list of 1"),
        ("{\"T\": NaN}", "case: not JSON"),
        ("null", "case: expected an object"),
        (&"[".repeat(100_000), "case: not JSON"),
    ] {
        let error = parse(&good.bytes_with(text)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let mut draft = good.clone();
    let (_, shape, data) = draft.tensors["x"].clone();
    draft.tensors.insert("x".into(), (Dtype::I64, shape, data));
    let error = draft.read().unwrap_err();
    assert!(matches!(error, Error::Format { .. }));
    assert!(error.to_string().contains("x: expected f64, f32, f16 or bf16, got I64"), "{error}");

    let views = [("x", TensorView::new(Dtype::F64, vec![1], &[0; 8]).unwrap())];
    let error = parse(&safetensors::serialize(views, None).unwrap()).unwrap_err().to_string();
    assert!(error.contains("its metadata has no entry case"), "{error}");
}

/// To the bit.
#[test]
fn a_device_gives_what_its_backend_gives() {
    for name in ["torch_lstm", "keras_gru", "onnx_rnn"] {
        let file = fixtures().into_iter().find(|file| file.file_name().unwrap().to_string_lossy().starts_with(name));
        let case = Case::read(file.unwrap()).unwrap();
        let device = Device::cpu();
        assert_eq!(case.run_on(&device, None).unwrap(), case.run(&CpuBackend::<f32>::new(), None).unwrap(), "{name}");
        let wide = device.with_dtype(DType::F64).unwrap();
        assert_eq!(case.run_on(&wide, None).unwrap(), case.run(&CpuBackend::<f64>::new(), None).unwrap(), "{name}");
    }
}

/// Half precision is stored by some exporters; such a case is read, and counts as single precision.
#[test]
fn cases_in_other_float_types_are_read() {
    let mut draft = Draft::of(&fixture("torch_lstm"));
    for name in draft.floats() {
        let (dtype, _, data) = draft.tensors.get_mut(&name).unwrap();
        let halves = data.chunks_exact(8).map(|e| half::f16::from_f64(f64::from_le_bytes(e.try_into().unwrap())));
        *data = halves.flat_map(f16_bytes).collect();
        *dtype = Dtype::F16;
    }
    let case = draft.read().unwrap();
    assert_eq!(case.tolerance(DType::F64), 2e-5);
    assert!(case.run(&ReferenceBackend::<f64>::new(), Some(0.02)).unwrap().passed());
}

fn f16_bytes(value: half::f16) -> [u8; 2] {
    value.to_le_bytes()
}

/// Whatever the bytes, reading and running ends with a result or an error.
#[test]
fn damaged_files_never_panic() {
    let attempt = |bytes: &[u8]| {
        if let Ok(case) = parse(bytes) {
            let _ = case.run(&ReferenceBackend::<f32>::new(), None);
        }
    };
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    for name in ["torch_lstm_proj", "keras_gru_bi_backwards_mask", "ort_lstm_bi_activations"] {
        let good = std::fs::read(fixture(name)).unwrap();
        let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        for end in (0..good.len()).step_by(37) {
            attempt(&good[..end]);
        }
        for _ in 0..2000 {
            let mut bytes = good.clone();
            for _ in 0..=random(3) {
                // The header is where a change does most.
                let end = if random(4) > 0 { header } else { bytes.len() };
                let position = random(end);
                bytes[position] =
                    if random(2) == 0 { b"0123456789-.,:\"[]{}etn"[random(22)] } else { random(256) as u8 };
            }
            attempt(&bytes);
        }
        let draft = Draft::of(&fixture(name));
        let mut places: Vec<String> = draft.case.as_object().unwrap().keys().map(|key| format!("/{key}")).collect();
        places.extend(
            draft.case["attrs"].as_object().into_iter().flat_map(|a| a.keys()).map(|key| format!("/attrs/{key}")),
        );
        for place in places {
            for value in [
                json!(null),
                json!(-1),
                json!(0),
                json!(1),
                json!(2),
                json!(1u64 << 33),
                json!(u64::MAX),
                json!(1e308),
                json!(""),
                json!("lstm"),
                json!([]),
                json!([[]]),
                json!([1e300, -1e300]),
                json!({}),
                json!(true),
            ] {
                let mut changed = draft.clone();
                *changed.case.pointer_mut(&place).unwrap() = value;
                attempt(&changed.bytes());
            }
        }
    }
}

#[test]
fn tolerances_must_be_usable() {
    let case = Case::read(fixture("torch_gru")).unwrap();
    let backend = ReferenceBackend::<f64>::new();
    for tolerance in [f64::NAN, f64::INFINITY, -1e-9] {
        let error = case.run(&backend, Some(tolerance)).unwrap_err();
        assert!(error.to_string().starts_with("option tolerance: expected a finite number"), "{error}");
    }
    assert!(!case.run(&backend, Some(0.0)).unwrap().passed());
    assert!(case.run(&backend, Some(1.0)).unwrap().passed());
}
