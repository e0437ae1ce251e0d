//! ONNX: files of PyTorch's two exporters and single nodes come in, train, go back, and are refused with a word where they must be.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use fused_rnn::backend::TensorRef;
use fused_rnn::exchange::onnx::{self, ImportOptions};
use fused_rnn::exchange::{self, Imported, arrays, keras};
use fused_rnn::gradcheck;
use fused_rnn::interop::safetensors;
use fused_rnn::model::{FitOptions, Graph, Model};
use fused_rnn::nn::*;
use fused_rnn::optim::Adam;
use fused_rnn::{DType, Device, Error};
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataLocation, DataType, Dimension, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor,
    ValueInfoProto,
};

use crate::common::Rng;
use crate::common::damage::{damaged, write_anew};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx")
}

fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "onnx"));
    files.sort();
    assert!(files.len() >= 15);
    files
}

fn double() -> Device {
    crate::cpu()
}

/// The recorded inputs or outputs of a file.
fn recorded(file: &Path, prefix: &str) -> Vec<ArrayD<f64>> {
    let stem = file.file_stem().unwrap().to_string_lossy().replace("_dynamo", "");
    let all = arrays::read(file.with_file_name(format!("{stem}.npz"))).unwrap();
    (0..).map_while(|i| all.get(&format!("{prefix}{i}")).cloned()).collect()
}

fn views(arrays: &[ArrayD<f64>]) -> Vec<ArrayViewD<'_, f64>> {
    arrays.iter().map(|array| array.view()).collect()
}

#[track_caller]
fn assert_close(name: &str, results: &[ArrayD<f64>], expected: &[ArrayD<f64>], tolerance: f64) {
    assert_eq!(results.len(), expected.len(), "{name}");
    for (i, (result, expected)) in results.iter().zip(expected).enumerate() {
        assert_eq!(result.shape(), expected.shape(), "{name}, output {i}");
        let scale = expected.iter().fold(0f64, |most, v| most.max(v.abs()));
        let worst = result.iter().zip(expected).fold(0f64, |most, (a, b)| most.max((a - b).abs()));
        assert!(worst <= tolerance * scale, "{name}, output {i}: {worst} of {scale}");
    }
}

#[test]
fn recorded_models_give_their_outputs() {
    for file in files() {
        let name = file.display().to_string();
        let mut imported = onnx::read(double(), &file, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let results = imported.predict(&views(&recorded(&file, "in_"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_close(&name, &results, &recorded(&file, "out_"), 1e-5);
        assert!(imported.unused.is_empty());
    }
}

/// Exported by this crate, imported again: the same outputs. What ONNX Runtime gives is compared by benches/peers/onnx_round_trip.py.
#[test]
fn imported_models_go_back() {
    for file in files() {
        let name = file.display().to_string();
        let mut imported = onnx::read(double(), &file, &ImportOptions::default()).unwrap();
        let inputs = recorded(&file, "in_");
        let taken: Vec<_> =
            imported.inputs.iter().zip(&inputs).map(|(port, array)| port.taken_in(&array.view()).unwrap()).collect();
        let expected = imported.model.predict_all(views(&taken)).unwrap();
        let bytes = onnx::bytes(&imported.model, &file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut again =
            onnx::parse(double(), &bytes, &file, &ImportOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let results = again.predict(&views(&taken)).unwrap();
        // Weights pass through f32.
        assert_close(&name, &results, &expected, 1e-6);
    }
}

/// Axes with names stay of any length, wherever they stand: the recorded arrays have other lengths than the exporter saw.
#[test]
fn models_stay_of_any_length() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gru", "last", "attentive"] {
        let file = self::folder().join("open_axes").join(format!("{name}.onnx"));
        let mut imported = onnx::read(double(), &file, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(imported.inputs.iter().all(|port| port.shape.contains(&None)), "{name}: {:?}", imported.inputs);
        let (inputs, expected) = (recorded(&file, "in_"), recorded(&file, "out_"));
        assert_close(name, &imported.predict(&views(&inputs)).unwrap(), &expected, 1e-5);
        let saved = folder.path().join("model.safetensors");
        imported.save(&saved).unwrap();
        let mut loaded = Imported::load(double(), &saved).unwrap();
        assert_eq!((&loaded.inputs, &loaded.outputs), (&imported.inputs, &imported.outputs));
        assert_close(name, &loaded.predict(&views(&inputs)).unwrap(), &expected, 1e-5);
        // And back.
        let taken: Vec<_> =
            imported.inputs.iter().zip(&inputs).map(|(port, array)| port.taken_in(&array.view()).unwrap()).collect();
        let bytes = onnx::bytes(&imported.model, &file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut again = onnx::parse(double(), &bytes, &file, &ImportOptions::default()).unwrap();
        assert!(again.inputs.iter().all(|port| port.shape.contains(&None)), "{name}: {:?}", again.inputs);
        let expected = imported.model.predict_all(views(&taken)).unwrap();
        assert_close(name, &again.predict(&views(&taken)).unwrap(), &expected, 1e-6);
        // They train, at any length.
        let y: Vec<ArrayD<f64>> = expected.iter().map(|y| y.mapv(|_| 0.0)).collect();
        imported.model.train_on_batch(views(&taken), views(&y)).unwrap();
    }
}

fn draw(shape: &[usize], stream: u32) -> ArrayD<f64> {
    let mut random = Random::new(11, stream);
    let values = (0..shape.iter().product()).map(|_| random.normal()).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values).unwrap()
}

/// Weights that start as zeros and ones would hide mistakes.
fn stirred(mut model: Model) -> Model {
    let mut random = Random::new(5, 9);
    let weights: Vec<f64> = model.flat_weights::<f64>().unwrap().iter().map(|w| w + 0.2 * random.normal()).collect();
    model.set_flat_weights(&weights).unwrap();
    model
}

#[track_caller]
fn goes_and_comes(model: Model, inputs: &[ArrayD<f64>]) {
    let mut model = stirred(model);
    let name = format!("{:?}", model.config().unwrap().layers);
    let expected = model.predict_all(views(inputs)).unwrap();
    let path = Path::new("exported.onnx");
    let bytes = onnx::bytes(&model, path).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut again =
        onnx::parse(double(), &bytes, path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_close(&name, &again.predict(&views(inputs)).unwrap(), &expected, 1e-5);
}

fn stack(input: &[usize], layers: &[LayerConfig]) -> Model {
    let mut graph = Graph::new(double(), 3);
    let mut tensor = graph.input("x", input).unwrap();
    for layer in layers {
        tensor = graph.add(layer.clone(), &[&tensor]).unwrap();
    }
    graph.model(&[&tensor]).unwrap()
}

#[test]
fn layers_go_and_come() {
    let x = draw(&[3, 6, 4], 1);
    let sequences = |layer: LayerConfig| vec![layer];
    let stacks: Vec<Vec<LayerConfig>> = vec![
        sequences(SimpleRnn::new(3).return_sequences(true).into()),
        sequences(SimpleRnn::new(3).activation(ActivationFunction::Linear).use_bias(false).into()),
        sequences(Lstm::new(3).into()),
        sequences(Lstm::new(3).return_sequences(true).go_backwards(true).into()),
        sequences(Lstm::new(3).go_backwards(true).recurrent_activation(ActivationFunction::HardSigmoid).into()),
        sequences(Gru::new(3).return_sequences(true).into()),
        sequences(Gru::new(3).reset_after(false).activation(ActivationFunction::Elu).into()),
        sequences(Bidirectional::new(Lstm::new(3)).into()),
        sequences(Bidirectional::new(Gru::new(3).return_sequences(true)).into()),
        sequences(Bidirectional::new(Gru::new(3)).merge_mode(MergeMode::Ave).into()),
        sequences(Bidirectional::new(SimpleRnn::new(3).return_sequences(true)).merge_mode(MergeMode::Mul).into()),
        sequences(Bidirectional::new(Lstm::new(3)).merge_mode(MergeMode::Sum).into()),
        vec![
            Dense::new(5).activation(ActivationFunction::Softmax).into(),
            Dropout::new(0.3).into(),
            Flatten::new().into(),
        ],
        vec![LayerNormalization::new().into(), BatchNormalization::new().into(), Permute::new(&[2, 1]).into()],
        vec![Conv1D::new(6, 3).padding(Padding::Causal).groups(2).activation(ActivationFunction::Relu).into()],
        vec![
            Conv1D::new(2, 2).padding(Padding::Same).strides(2).into(),
            ActivationLayer::new(ActivationFunction::LogSoftmax).into(),
        ],
        vec![AveragePooling1D::new(2).padding(Padding::Same).strides(1).into(), MaxPooling1D::new(3).into()],
        vec![GlobalAveragePooling1D::new().into(), RepeatVector::new(2).into(), GlobalMaxPooling1D::new().into()],
        vec![TimeDistributed::new(Dense::new(2)).into(), Reshape::new(&[3, -1]).into()],
        vec![Reshape::new(&[6, 2, 2]).into(), TimeDistributed::new(Conv1D::new(3, 2)).into()],
        vec![Reshape::new(&[3, 2, 4]).into(), TimeDistributed::new(Gru::new(5)).into()],
        vec![Reshape::new(&[3, 2, 4]).into(), TimeDistributed::new(Lstm::new(5).return_sequences(true)).into()],
        vec![Reshape::new(&[3, 2, 4]).into(), TimeDistributed::new(Bidirectional::new(Lstm::new(5))).into()],
        vec![
            Reshape::new(&[3, 2, 4]).into(),
            TimeDistributed::new(Bidirectional::new(SimpleRnn::new(5).return_sequences(true))).into(),
        ],
        vec![
            Conv1DTranspose::new(3, 4).strides(3).into(),
            Conv1DTranspose::new(2, 2).dilation_rate(2).use_bias(false).into(),
        ],
        vec![
            Conv1DTranspose::new(3, 2).strides(3).padding(Padding::Same).activation(ActivationFunction::Gelu).into(),
            Conv1DTranspose::new(2, 5)
                .strides(2)
                .padding(Padding::Steps { before: 1, after: 2 })
                .output_padding(1)
                .into(),
        ],
        vec![ZeroPadding1D::new(2, 1).into(), UpSampling1D::new(2).into(), Cropping1D::new(1, 3).into()],
        vec![PRelu::new().into(), Softmax { axis: 1 }.into(), PRelu::new().shared_axes(&[1]).into()],
        vec![Normalization::new().into(), UnitNormalization::new().axes(&[1]).into()],
        vec![Normalization::new().by_feature(false).into(), UnitNormalization::new().axes(&[1, -1]).into()],
        vec![
            Slice::of_parts(1, &[Part::Filled { value: 0.5, count: 1 }, Part::Steps { start: 4, step: -2, count: 3 }])
                .into(),
            Reduce::new(Reduction::Minimum, &[1]).into(),
            Broadcast::new(&[3, 4]).into(),
        ],
        vec![
            Slice::of_parts(
                2,
                &[
                    Part::Filled { value: 0.5, count: 1 },
                    Part::Filled { value: -2.0, count: 2 },
                    Part::Steps { start: 3, step: -1, count: 2 },
                    Part::Filled { value: 1.5, count: 3 },
                    Part::Filled { value: 2.5, count: 1 },
                    Part::Range { start: Some(1), stop: None, step: 2 },
                    Part::Filled { value: 3.0, count: 1 },
                ],
            )
            .into(),
        ],
        // Many more than the file has bytes.
        vec![
            Slice::of_parts(
                1,
                &[Part::Filled { value: 1.0, count: 300_000 }, Part::Steps { start: 0, step: 1, count: 6 }],
            )
            .into(),
        ],
    ];
    for layers in stacks {
        goes_and_comes(stack(&[6, 4], &layers), std::slice::from_ref(&x));
    }
    for function in [
        Function::Gelu { approximate: true },
        Function::Gelu { approximate: false },
        Function::Silu,
        Function::Mish,
        Function::HardSwish,
        Function::Celu { alpha: 1.5 },
        Function::Clip { low: -0.5, high: 0.5 },
        Function::Power { exponent: 2.0 },
        Function::Truncate,
        Function::IsZero,
        Function::Affine { alpha: 2.0, beta: 1.0 },
        Function::Exp,
        Function::ThresholdedRelu { alpha: 0.3 },
    ] {
        goes_and_comes(stack(&[6, 4], &[Elementwise::new(function).into()]), std::slice::from_ref(&x));
    }
    let embedded = stack(&[5], &[Embedding::new(7, 3).into(), Lstm::new(2).into()]);
    let numbers = ArrayD::from_shape_fn(IxDyn(&[3, 5]), |i| ((i[0] + 2 * i[1]) % 7) as f64);
    goes_and_comes(embedded, &[numbers]);
}

#[test]
fn graphs_go_and_come() {
    let mut graph = Graph::new(double(), 3);
    let (a, b) = (graph.input("a", &[5, 4]).unwrap(), graph.input("b", &[4]).unwrap());
    let encoder = graph.add_all(Lstm::new(4).return_sequences(true).return_state(true), &[&a]).unwrap();
    let decoder = graph.add(Lstm::new(4), &[&a, &encoder[1], &encoder[2]]).unwrap();
    let both = graph.add_all(Bidirectional::new(Gru::new(2).return_state(true)), &[&a]).unwrap();
    let start = graph.add(Weight::new(&[4]), &[&a]).unwrap();
    let mut tensors = vec![graph.add(Add::new(), &[&decoder, &both[0]]).unwrap()];
    tensors.push(graph.add(Concatenate::new(), &[&both[1], &both[2]]).unwrap());
    for combination in
        [Combination::Quotient, Combination::Less, Combination::And, Combination::Modulo, Combination::Remainder]
    {
        tensors.push(graph.add(Pairwise::new(combination), &[&encoder[0], &b]).unwrap());
    }
    tensors.push(graph.add(Where::new(), &[&tensors[3], &encoder[0], &start]).unwrap());
    let turned = graph.add(Permute::new(&[2, 1]), &[&encoder[0]]).unwrap();
    tensors.push(graph.add(MatMul::new(), &[&turned, &encoder[0]]).unwrap());
    tensors.push(graph.add(Dot::new(1, 1), &[&a, &encoder[0]]).unwrap());
    tensors.push(graph.add(Dot::new(-1, 2).normalize(true), &[&a, &encoder[0]]).unwrap());
    tensors.push(graph.add(Dot::new(1, 1), &[&b, &decoder]).unwrap());
    tensors.push(graph.add(Maximum::new(), &[&b, &decoder, &start]).unwrap());
    tensors.push(graph.add(Average::new(), &[&b, &decoder, &start]).unwrap());
    let model = graph.model(&tensors.iter().collect::<Vec<_>>()).unwrap();
    goes_and_comes(model, &[draw(&[3, 5, 4], 1), draw(&[3, 4], 2)]);
}

#[test]
fn what_has_no_form_is_named() {
    let refused = |layers: &[LayerConfig]| {
        let error = onnx::bytes(&stack(&[6, 4], layers), Path::new("x.onnx")).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        error.to_string()
    };
    assert!(refused(&[Slstm::new(4).into()]).contains("slstm"));
    assert!(refused(&[Masking::new(0.0).into(), Lstm::new(2).into()]).contains("Masking of layer masking"));
    assert!(refused(&[Lstm::new(2).layer_norm(true).into()]).contains("layer normalisation of layer lstm"));
}

#[test]
fn imported_weights_have_gradients() {
    for name in ["cells.onnx", "streaming.onnx", "translator_dynamo.onnx", "node_gru_reverse.onnx"] {
        let file = folder().join(name);
        let mut imported = onnx::read(double(), &file, &ImportOptions::default()).unwrap();
        let inputs = recorded(&file, "in_");
        let x: Vec<_> =
            imported.inputs.iter().zip(&inputs).map(|(port, array)| port.taken_in(&array.view()).unwrap()).collect();
        let shapes: Vec<Vec<usize>> =
            imported.model.output_shapes().map(|s| [&[x[0].shape()[0]], s].concat()).collect();
        let y: Vec<_> = shapes.iter().enumerate().map(|(i, shape)| draw(shape, 50 + i as u32)).collect();
        let report = gradcheck::model(&mut imported.model, &views(&x), &views(&y), |_, _| true).unwrap();
        assert!(report.worst < 1e-6 && report.checked > 0, "{name}: {report:?}");
    }
}

#[test]
fn an_unrolled_recurrence_shares_its_weights_and_trains() {
    let file = folder().join("cells.onnx");
    let mut imported = onnx::read(double(), &file, &ImportOptions::default()).unwrap();
    // Input and state product, the learned start, the output; the first step's bias stands by itself, since its state is zero.
    let names: Vec<String> = imported.model.weights().map(|(name, ..)| name).collect();
    let of_state = names.iter().filter(|name| name.ends_with(".weight")).count();
    assert!(of_state <= 6, "{names:?}");
    let (x, y) = (draw(&[16, 3, 2], 1), draw(&[16, 2], 2));
    let model = &mut imported.model;
    model.compile(Adam::new(0.05).unwrap(), Loss::MeanSquaredError).unwrap();
    let before = model.evaluate(&x, &y).unwrap();
    model.fit(&x, &y, FitOptions { epochs: 30, batch_size: 16, ..FitOptions::default() }).unwrap();
    let after = model.evaluate(&x, &y).unwrap();
    assert!(after < 0.9 * before, "{before} {after}");
}

#[test]
fn a_saved_model_keeps_its_ports() {
    let file = folder().join("streaming.onnx");
    let mut imported = onnx::read(Device::cpu(), &file, &ImportOptions::default()).unwrap();
    let axes: Vec<usize> = imported.inputs.iter().map(|port| port.batch_axis).collect();
    assert_eq!(axes, [1, 1]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("streaming.model.safetensors");
    imported.save(&path).unwrap();
    let mut loaded = Imported::load(Device::cpu(), &path).unwrap();
    assert_eq!((&loaded.inputs, &loaded.outputs), (&imported.inputs, &imported.outputs));
    let inputs = recorded(&file, "in_");
    let inputs: Vec<ArrayD<f32>> = inputs.iter().map(|array| array.mapv(|v| v as f32)).collect();
    let given: Vec<_> = inputs.iter().map(|array| array.view()).collect();
    assert_eq!(loaded.predict(&given).unwrap(), imported.predict(&given).unwrap());
    // The model by itself is one like others.
    assert_eq!(Model::load(Device::cpu(), &path).unwrap().count_params(), imported.model.count_params());
    assert_eq!(Graph::from_onnx(Device::cpu(), &file).unwrap().count_params(), imported.model.count_params());
}

// Files made here.

fn input(name: &str, dims: &[Option<i64>]) -> ValueInfoProto {
    let dim = |n: &Option<i64>| match n {
        Some(n) => Dimension { dim_value: Some(*n), dim_param: None },
        None => Dimension { dim_value: None, dim_param: Some("batch".to_owned()) },
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = TypeProtoTensor { elem_type: Some(DataType::FLOAT), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { tensor_type: Some(tensor), sequence: None }),
    }
}

fn output(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), r#type: None }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: Some(format!("the_{}", op.to_lowercase())),
        op_type: Some(op.to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::INT64),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(AttributeType::INT),
        ..AttributeProto::default()
    }
}

fn file(graph: GraphProto) -> Vec<u8> {
    let opset = OperatorSetIdProto { domain: None, version: Some(17) };
    let model =
        ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
    model.write_buf().unwrap()
}

fn graph(inputs: Vec<ValueInfoProto>, node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> GraphProto {
    GraphProto { node, initializer, input: inputs, output: vec![output("y")], value_info: Vec::new() }
}

#[track_caller]
fn refused(bytes: &[u8], options: &ImportOptions) -> String {
    match onnx::parse(Device::cpu(), bytes, Path::new("hostile.onnx"), options) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

/// Each tensor may be large, but not all of them: a model keeps them.
#[test]
fn graphs_of_little_bytes_do_not_ask_for_all_memory() {
    let mut nodes = vec![node("Tile", &["x", "repeats"], "n0")];
    let names: Vec<String> = (0..20).map(|n| format!("n{n}")).collect();
    nodes.extend(names.windows(2).map(|pair| node("Relu", &[&pair[0]], &pair[1])));
    nodes.push(node("Relu", &["n19"], "y"));
    let repeats = |times: i64| vec![ints("repeats", &[1, times])];
    let of = |times: i64| file(graph(vec![input("x", &[None, Some(4)])], nodes.clone(), repeats(times)));
    let text = refused(&of(10_000_000), &ImportOptions::default());
    assert!(text.contains("(Relu, output n") && text.contains("more than 268435456 elements"), "{text}");
    assert!(onnx::parse(Device::cpu(), &of(1000), Path::new("small.onnx"), &ImportOptions::default()).is_ok());
}

/// A name without characters is that of no tensor: a file with such an input is refused, a model with one gets another in a file.
#[test]
fn inputs_have_names() {
    let plain = ImportOptions::default();
    for name in [None, Some(String::new())] {
        let nameless = ValueInfoProto { name, ..input("x", &[None, Some(4)]) };
        let inputs = vec![input("x", &[None, Some(4)]), nameless];
        let text = refused(&file(graph(inputs, vec![node("Relu", &["x"], "y")], vec![])), &plain);
        assert!(text.contains("input number 1 has no name"), "{text}");
    }
    let mut graph = Graph::new(Device::cpu(), 3);
    let x = graph.input("", &[Some(4)]).unwrap();
    let y = graph.add(Dense::new(2), &[&x]).unwrap();
    let mut model = graph.model(&[&y, &x]).unwrap();
    let array = draw(&[3, 4], 1).mapv(|x| x as f32);
    let expected = model.predict_all(vec![array.view()]).unwrap();
    let path = Path::new("nameless");
    let as_onnx = onnx::parse(Device::cpu(), &onnx::bytes(&model, path).unwrap(), path, &plain).unwrap();
    assert_eq!(as_onnx.inputs[0].name, "input");
    let as_keras = keras::parse(Device::cpu(), &keras::to_bytes(&model, path).unwrap(), path).unwrap();
    for mut imported in [as_onnx, as_keras] {
        let found = imported.predict(&[array.view()]).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found} {expected}");
        }
    }
}

#[test]
fn refusals_name_the_node_and_the_way_out() {
    let plain = ImportOptions::default();
    let x = || vec![input("x", &[None, Some(3), Some(4)])];
    let text = refused(&file(graph(x(), vec![node("ArgMax", &["x"], "y")], vec![])), &plain);
    assert!(text.contains("node the_argmax (ArgMax, output y) of hostile.onnx"), "{text}");
    // Elements of different samples would meet.
    let reduce = NodeProto { attribute: vec![int("keepdims", 0)], ..node("ReduceSum", &["x", "axes"], "y") };
    let text = refused(&file(graph(x(), vec![reduce], vec![ints("axes", &[0])])), &plain);
    assert!(text.contains("the_reducesum") && text.contains("the samples"), "{text}");
    let text =
        refused(&file(graph(x(), vec![node("Reshape", &["x", "shape"], "y")], vec![ints("shape", &[5, -1])])), &plain);
    assert!(text.contains("mix samples"), "{text}");
    // Parts that are not the whole, as a file has them that was exported for another length.
    let split = |sizes: &[i64]| {
        let outputs = vec!["y".to_owned(), "z".to_owned()];
        let node =
            NodeProto { attribute: vec![int("axis", 1)], output: outputs, ..node("Split", &["x", "sizes"], "y") };
        file(graph(x(), vec![node], vec![ints("sizes", sizes)]))
    };
    let text = refused(&split(&[1, 1]), &plain);
    assert!(text.contains("the_split") && text.contains("parts of 2 elements, where axis 1 has 3"), "{text}");
    assert!(onnx::parse(Device::cpu(), &split(&[1, 2]), Path::new("x"), &plain).is_ok());
    // An axis without a length.
    let open = || ValueInfoProto { ..input("x", &[None, Some(0), Some(4)]) };
    let relu = || vec![node("Relu", &["x"], "y")];
    let imported =
        onnx::parse(Device::cpu(), &file(graph(vec![open()], relu(), vec![])), Path::new("x"), &plain).unwrap();
    assert_eq!((&imported.inputs[0].shape, &imported.outputs[0].shape), (&vec![None, Some(4)], &vec![None, Some(4)]));
    let five = || vec![node("Add", &["x", "five"], "y")];
    let table = || TensorProto {
        name: Some("five".to_owned()),
        dims: vec![5, 1],
        data_type: Some(DataType::FLOAT),
        float_data: vec![1.0; 5],
        ..TensorProto::default()
    };
    let text = refused(&file(graph(vec![open()], five(), vec![table()])), &plain);
    assert!(text.contains("--dim x.1=LENGTH"), "{text}");
    let dims = ImportOptions::default().dim("x.1", 6);
    let imported =
        onnx::parse(Device::cpu(), &file(graph(vec![open()], relu(), vec![])), Path::new("x"), &dims).unwrap();
    assert_eq!(imported.inputs[0].shape, [Some(6), Some(4)]);
    // A number that chooses between branches.
    let branch =
        |op: &str| GraphProto { node: vec![node(op, &["x"], "b")], output: vec![output("b")], ..GraphProto::default() };
    let graph_of = |name: &str, op: &str| AttributeProto {
        name: Some(name.to_owned()),
        g: Some(branch(op)),
        ..AttributeProto::default()
    };
    let choice = NodeProto {
        attribute: vec![graph_of("then_branch", "Tanh"), graph_of("else_branch", "Relu")],
        ..node("If", &["c"], "y")
    };
    let chosen = file(graph([x(), vec![input("c", &[])]].concat(), vec![choice], vec![]));
    let text = refused(&chosen, &plain);
    assert!(text.contains("--set c=VALUE"), "{text}");
    for (value, expected) in [(1.0, (-1f32).tanh()), (0.0, 0.0)] {
        let mut imported =
            onnx::parse(Device::cpu(), &chosen, Path::new("x"), &ImportOptions::default().constant("c", value))
                .unwrap();
        let x = ArrayD::from_elem(IxDyn(&[2, 3, 4]), -1f32);
        let y = imported.predict(&[x.view()]).unwrap();
        assert!((y[0][[0, 0, 0]] - expected).abs() < 1e-6);
    }
    assert!(refused(&chosen, &ImportOptions::default().constant("d", 1.0)).contains("constants"));
    assert!(refused(&chosen, &ImportOptions::default().batch_axis("x", 3)).contains("batch_axes"));
}

/// The lengths of axes that have names come from arrays, but for the samples'.
#[test]
fn arrays_say_the_lengths_of_named_axes() {
    let named = |name: &str, dims: &[&str]| {
        let dim = |n: &&str| match n.parse() {
            Ok(n) => Dimension { dim_value: Some(n), dim_param: None },
            Err(_) => Dimension { dim_value: None, dim_param: Some((*n).to_owned()) },
        };
        let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
        let tensor = TypeProtoTensor { elem_type: Some(DataType::FLOAT), shape: Some(shape) };
        ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: Some(TypeProto { tensor_type: Some(tensor), sequence: None }),
        }
    };
    let inputs = || vec![named("a", &["time", "batch", "4"]), named("b", &["batch", "4"])];
    let bytes = file(graph(inputs(), vec![node("Add", &["a", "b"], "y")], vec![]));
    let read = |shapes: &[Vec<usize>]| {
        onnx::parse(Device::cpu(), &bytes, Path::new("x.onnx"), &ImportOptions::default().shapes(shapes))
    };
    for shapes in [&[][..], &[vec![7, 3, 4], vec![3, 4]]] {
        let imported = read(shapes).unwrap();
        assert_eq!((imported.inputs[0].batch_axis, &imported.inputs[0].shape[..]), (1, &[None, Some(4)][..]));
    }
}

#[test]
fn a_name_stands_for_one_tensor() {
    let plain = ImportOptions::default();
    let x = || vec![input("x", &[None, Some(3)])];
    let floats = |name: &str| TensorProto {
        name: Some(name.to_owned()),
        dims: vec![3],
        data_type: Some(DataType::FLOAT),
        float_data: vec![1.0, 2.0, 3.0],
        ..TensorProto::default()
    };
    let add = || vec![node("Add", &["x", "w"], "y")];
    for graph in [
        graph(x(), add(), vec![floats("w"), floats("w")]),
        graph(x(), [add(), vec![node("Relu", &["x"], "w")]].concat(), vec![floats("w")]),
        graph(x(), [vec![node("Relu", &["x"], "w"), node("Tanh", &["x"], "w")], add()].concat(), vec![]),
    ] {
        let text = refused(&file(graph), &plain);
        assert!(text.contains("two tensors are called w"), "{text}");
    }
    let odd = "w\u{1b}[2J";
    let text = refused(&file(graph(x(), vec![node("Loop", &["x", odd], "y")], vec![floats(odd), floats(odd)])), &plain);
    assert!(text.contains(r"w\u{1b}[2J") && !text.contains('\u{1b}'), "{text:?}");
}

/// A state_dict of the module that an ONNX file was exported from, with other weights than the file's.
#[test]
fn state_dicts_go_into_unrolled_graphs() {
    let (file_path, weights) = (folder().join("unrolled.onnx"), folder().join("unrolled.state_dict.safetensors"));
    let mut imported = exchange::read(double(), &weights, Some(&file_path)).unwrap();
    let results = imported.predict(&views(&recorded(&file_path, "in_"))).unwrap();
    assert_close("unrolled", &results, &recorded(&file_path, "other_"), 1e-5);
    // What an exporter has computed of weights cannot be told from a constant.
    let folder = tempfile::tempdir().unwrap();
    let (model, dict) = (folder.path().join("m.onnx"), folder.path().join("m.safetensors"));
    let tensor = |name: &str, values: &[f32]| TensorProto {
        name: Some(name.to_owned()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::FLOAT),
        float_data: values.to_vec(),
        ..TensorProto::default()
    };
    let write = |nodes: Vec<NodeProto>, tensors: Vec<TensorProto>| {
        std::fs::write(&model, file(graph(vec![input("x", &[None, Some(3)])], nodes, tensors))).unwrap();
        exchange::read(Device::cpu(), &dict, Some(&model))
    };
    let values = TensorRef::of(&[4f32, 5.0, 6.0]);
    safetensors::write(&dict, "format", "pt", &[("w", vec![3], values)]).unwrap();
    let product = || node("Mul", &["x", "w"], "p");
    let mut read =
        write(vec![NodeProto { output: vec!["y".to_owned()], ..product() }], vec![tensor("w", &[1.0, 2.0, 3.0])])
            .unwrap();
    let x = ArrayD::from_elem(IxDyn(&[1, 3]), 1f32);
    assert_eq!(read.predict(&[x.view()]).unwrap()[0].iter().copied().collect::<Vec<_>>(), [4.0, 5.0, 6.0]);
    let sum = || node("Add", &["p", "folded"], "y");
    let error = write(vec![product(), sum()], vec![tensor("w", &[1.0, 2.0, 3.0]), tensor("folded", &[0.1, 0.7, 0.9])]);
    let text = error.err().unwrap().to_string();
    assert!(text.contains("the exporter may have computed it"), "{text}");
    // Equal constants are written once; which tensor each use means is not known.
    let twice = || node("Add", &["p", "w"], "y");
    let text = write(vec![product(), twice()], vec![tensor("w", &[1.0, 1.0, 1.0])]).err().unwrap().to_string();
    assert!(text.contains("constant w") && text.contains("read by several nodes"), "{text}");
}

#[test]
fn weights_may_stand_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..12).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::write(folder.path().join("weights.bin"), [&[0; 8][..], &values].concat()).unwrap();
    let entry =
        |key: &str, value: &str| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) };
    let tensor = |location: &str, length: &str| TensorProto {
        name: Some("w".to_owned()),
        dims: vec![4, 3],
        data_type: Some(DataType::FLOAT),
        external_data: vec![entry("location", location), entry("offset", "8"), entry("length", length)],
        data_location: Some(DataLocation::EXTERNAL),
        ..TensorProto::default()
    };
    let bytes = |location: &str, length: &str| {
        file(graph(
            vec![input("x", &[None, Some(4)])],
            vec![node("MatMul", &["x", "w"], "y")],
            vec![tensor(location, length)],
        ))
    };
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, bytes("weights.bin", "48")).unwrap();
    let mut model = Model::from_onnx(Device::cpu(), &path).unwrap();
    let x = ArrayD::from_elem(IxDyn(&[1, 4]), 1f32);
    assert_eq!(model.predict(x.view()).unwrap().iter().copied().collect::<Vec<_>>(), [18.0, 22.0, 26.0]);
    for (location, length) in [
        ("weights.bin", "480"),
        ("../weights.bin", "48"),
        ("/etc/passwd", "48"),
        ("absent", "48"),
        ("weights.bin", "44"),
    ] {
        std::fs::write(&path, bytes(location, length)).unwrap();
        let error = Model::from_onnx(Device::cpu(), &path).err().unwrap_or_else(|| panic!("{location} {length}"));
        assert!(matches!(error, Error::Format { .. } | Error::Io { .. }), "{error:?}");
    }

    // Of a file of a terabyte that part is read which the tensor needs.
    let huge = folder.path().join("huge.bin");
    let terabyte = 1u64 << 40;
    std::fs::File::create(&huge).unwrap().set_len(terabyte).unwrap();
    let at = |offset: u64, length: Option<&str>| {
        let mut tensor = tensor("huge.bin", "");
        tensor.external_data = vec![entry("location", "huge.bin"), entry("offset", &offset.to_string())];
        tensor.external_data.extend(length.map(|length| entry("length", length)));
        let nodes = vec![node("MatMul", &["x", "w"], "y")];
        std::fs::write(&path, file(graph(vec![input("x", &[None, Some(4)])], nodes, vec![tensor]))).unwrap();
        Model::from_onnx(Device::cpu(), &path)
    };
    for (offset, length) in [(terabyte - 48, None), (terabyte - 48, Some("48")), (1 << 39, Some("48"))] {
        assert_eq!(
            at(offset, length).unwrap().predict(x.view()).unwrap().iter().copied().collect::<Vec<_>>(),
            [0.0; 3]
        );
    }
    for (offset, length, problem) in [
        (8, None, "needs 48 bytes, but huge.bin has 1099511627768"),
        (0, Some("1099511627776"), "needs 48 bytes, but huge.bin has 1099511627776"),
        (terabyte - 44, Some("48"), "lie outside of huge.bin, which has 1099511627776"),
        (terabyte + 4, None, "lie outside of huge.bin"),
        (u64::MAX, Some("48"), "lie outside of huge.bin"),
    ] {
        let error = at(offset, length).err().unwrap().to_string();
        assert!(error.contains("tensor w") && error.contains(problem), "{offset} {length:?}: {error}");
    }
}

#[test]
fn tensors_that_stand_in_the_same_bytes_are_not_read_without_end() {
    let folder = tempfile::tempdir().unwrap();
    const LEN: usize = 1 << 18;
    std::fs::write(folder.path().join("weights.bin"), vec![0; 4 * LEN]).unwrap();
    let names: Vec<String> = (0..60).map(|i| format!("w{i}")).collect();
    let tensors = names.iter().map(|name| TensorProto {
        name: Some(name.clone()),
        dims: vec![LEN as i64],
        data_type: Some(DataType::FLOAT),
        external_data: vec![StringStringEntryProto {
            key: Some("location".to_owned()),
            value: Some("weights.bin".to_owned()),
        }],
        data_location: Some(DataLocation::EXTERNAL),
        ..TensorProto::default()
    });
    let nodes = (0..60).map(|i| {
        let from = if i == 0 { "x".to_owned() } else { format!("y{}", i - 1) };
        node("Add", &[&from, &names[i]], &if i == 59 { "y".to_owned() } else { format!("y{i}") })
    });
    let path = folder.path().join("model.onnx");
    let inputs = vec![input("x", &[None, Some(LEN as i64)])];
    std::fs::write(&path, file(graph(inputs, nodes.collect(), tensors.collect()))).unwrap();
    let error = Model::from_onnx(Device::cpu(), &path).err().unwrap();
    assert!(matches!(&error, Error::Format { problem, .. } if problem.contains("cannot need")), "{error:?}");
}

// Damaged files.

/// Whatever the bytes are, the answer is a model or a typed error.
fn survives(bytes: &[u8]) {
    if let Err(error) = onnx::parse(Device::cpu(), bytes, Path::new("hostile.onnx"), &ImportOptions::default()) {
        let typed = matches!(
            error,
            Error::Format { .. }
                | Error::Unsupported { .. }
                | Error::InvalidOption { .. }
                | Error::Io { .. }
                | Error::NonFinite { .. }
                | Error::Shape { .. }
                | Error::ZeroSize { .. }
                | Error::SizeOverflow { .. }
                | Error::Presence { .. }
        );
        assert!(typed, "{error:?}");
    }
}

#[test]
fn truncated_files_are_refused() {
    for name in ["cells_dynamo.onnx", "node_lstm_peepholes.onnx"] {
        let bytes = std::fs::read(folder().join(name)).unwrap();
        for length in (0..bytes.len()).step_by(7) {
            survives(&bytes[..length]);
        }
    }
}

#[test]
fn flipped_bytes_are_survived() {
    let rounds = if cfg!(debug_assertions) { 60 } else { 600 };
    let mut rng = Rng::new(17);
    for file in files() {
        let bytes = std::fs::read(&file).unwrap();
        for _ in 0..rounds {
            survives(&damaged(&bytes, &mut rng));
            let mut flipped = bytes.clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(flipped.len());
                flipped[at] ^= 1 << rng.below(8);
            }
            survives(&flipped);
        }
    }
}

/// Neither of the two files that make a model together is trusted.
#[test]
fn damaged_weights_for_a_graph_are_survived() {
    let scratch = tempfile::tempdir().unwrap();
    let (model, dict) = (scratch.path().join("m.onnx"), scratch.path().join("m.safetensors"));
    let graph = std::fs::read(folder().join("unrolled.onnx")).unwrap();
    let weights = std::fs::read(folder().join("unrolled.state_dict.safetensors")).unwrap();
    let mut rng = Rng::new(23);
    for round in 0..if cfg!(debug_assertions) { 200 } else { 600 } {
        write_anew(&model, &if round % 2 == 0 { graph.clone() } else { damaged(&graph, &mut rng) });
        write_anew(&dict, &if round % 3 == 0 { weights.clone() } else { damaged(&weights, &mut rng) });
        if let Err(error) = exchange::read(Device::cpu(), &dict, Some(&model)) {
            assert!(!matches!(error, Error::Driver { .. } | Error::KernelFault { .. }), "{error:?}");
        }
    }
}

#[test]
fn claims_beyond_the_file_are_refused() {
    let plain = ImportOptions::default();
    let x = || vec![input("x", &[None, Some(3)])];
    // A tensor of more elements than bytes.
    let huge = TensorProto {
        name: Some("w".to_owned()),
        dims: vec![1 << 40, 1 << 40],
        data_type: Some(DataType::FLOAT),
        raw_data: Some(RefCell::new(vec![0; 8])),
        ..TensorProto::default()
    };
    let text = refused(&file(graph(x(), vec![node("MatMul", &["x", "w"], "y")], vec![huge])), &plain);
    assert!(text.contains("tensor w"), "{text}");
    // Constants that a few bytes ask for.
    let fill = vec![node("ConstantOfShape", &["n"], "c"), node("Add", &["x", "c"], "y")];
    for n in [1 << 40, i64::MAX, -1] {
        refused(&file(graph(x(), fill.clone(), vec![ints("n", &[n, 3])])), &plain);
    }
    let einsum = |equation: &str| AttributeProto {
        name: Some("equation".to_owned()),
        s: Some(equation.to_owned()),
        r#type: Some(AttributeType::STRING),
        ..AttributeProto::default()
    };
    for equation in ["", "->", ",", "bi", "bi->ib,", "...->...", "bb->b", "bi->bj", "b\u{301}i->b", "bi,bi->bi", "bi->"]
    {
        let node = NodeProto { attribute: vec![einsum(equation)], ..node("Einsum", &["x"], "y") };
        survives(&file(graph(x(), vec![node], vec![])));
    }
    let wide = |n: i64| {
        let scales = TensorProto {
            name: Some("s".to_owned()),
            dims: vec![3],
            data_type: Some(DataType::INT64),
            int64_data: vec![1, 1, n],
            ..TensorProto::default()
        };
        let resize = node("Resize", &["x", "", "", "s"], "y");
        file(graph(vec![input("x", &[None, Some(2), Some(3)])], vec![resize], vec![scales]))
    };
    for n in [0, -1, 1 << 31, 1 << 40, i64::MAX] {
        refused(&wide(n), &plain);
    }
    let tile = vec![node("Tile", &["x", "n"], "y")];
    refused(&file(graph(x(), tile.clone(), vec![ints("n", &[1, 1 << 50])])), &plain);
    refused(&file(graph(x(), tile, vec![ints("n", &[1, 1 << 30])])), &plain);
    refused(&file(graph(vec![input("x", &[None, Some(i64::MAX)])], vec![node("Relu", &["x"], "y")], vec![])), &plain);
    // A cycle, a name of nothing, an output of nothing.
    let text = refused(
        &file(graph(
            x(),
            vec![node("Add", &["x", "b"], "a"), node("Add", &["x", "a"], "b"), node("Relu", &["b"], "y")],
            vec![],
        )),
        &plain,
    );
    assert!(text.contains("cycle"), "{text}");
    refused(&file(graph(x(), vec![], vec![])), &plain);
    // Branches within branches, deeper than a stack.
    let mut inner =
        GraphProto { node: vec![node("Relu", &["x"], "y")], output: vec![output("y")], ..GraphProto::default() };
    for depth in 0..60 {
        let branches = ["then_branch", "else_branch"].map(|name| AttributeProto {
            name: Some(name.to_owned()),
            g: Some(inner.clone()),
            ..AttributeProto::default()
        });
        let attribute = if depth < 3 { branches.to_vec() } else { branches[..1].to_vec() };
        inner = GraphProto {
            node: vec![NodeProto { attribute, ..node("If", &["c"], "y") }],
            output: vec![output("y")],
            ..GraphProto::default()
        };
    }
    let text = refused(&file(GraphProto { input: x(), ..inner }), &plain);
    assert!(text.contains("deep"), "{text}");
    // A length beyond all bytes.
    let text = refused(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &plain);
    assert!(text.contains("ends within a field"), "{text}");
    refused(b"not an ONNX file", &plain);
}

#[test]
fn arrays_of_numpy_are_read_or_refused() {
    let path = folder().join("streaming.npz");
    let bytes = std::fs::read(&path).unwrap();
    let whole = arrays::parse(&bytes, &path).unwrap();
    assert_eq!((whole["in_0"].shape(), whole["out_1"].shape()), (&[1, 2, 3][..], &[2, 2, 4][..]));
    let mut rng = Rng::new(3);
    for _ in 0..300 {
        if let Err(error) = arrays::parse(&damaged(&bytes, &mut rng), &path) {
            assert!(matches!(error, Error::Format { format: "npz", .. }), "{error:?}");
        }
    }
    assert_eq!(double().dtype(), DType::F64);
}
