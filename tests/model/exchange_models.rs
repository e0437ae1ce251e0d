//! Whole models of Keras and PyTorch: they give here what they gave there, and go back. `tests/fixtures/generate_exchange.py` made the files.

use std::path::{Path, PathBuf};

use fused_rnn::backend::TensorRef;
use fused_rnn::exchange::{self, Imported, keras, torch};
use fused_rnn::interop::safetensors::{self, TensorFile};
use fused_rnn::model::{Graph, Model, Sequential};
use fused_rnn::nn::*;
use fused_rnn::{Device, Error};
use ndarray::{ArrayD, IxDyn};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exchange").join(name)
}

/// Inputs, or outputs, of a case.
fn arrays(case: &str, kind: &str) -> Vec<ArrayD<f32>> {
    let file = TensorFile::read(fixture(&format!("{case}.safetensors"))).expect("a case");
    let read = |name: String| {
        let (shape, values) = file.floats::<f32>(&name).expect("floats");
        ArrayD::from_shape_vec(IxDyn(&shape), values).expect("a shape")
    };
    (0..).map(|i| format!("{kind}_{i}")).take_while(|name| file.contains(name)).map(read).collect()
}

/// What a model gives for the inputs of a case.
fn outputs(model: &mut Model, case: &str) -> Vec<ArrayD<f32>> {
    let inputs = arrays(case, "in");
    model.predict_all(inputs.iter().map(|x| x.view()).collect::<Vec<_>>()).expect("outputs")
}

fn views(arrays: &[ArrayD<f32>]) -> Vec<ndarray::ArrayViewD<'_, f32>> {
    arrays.iter().map(|array| array.view()).collect()
}

#[track_caller]
fn assert_close(case: &str, got: &[ArrayD<f32>]) {
    let expected = arrays(case, "out");
    assert_eq!(got.len(), expected.len(), "{case}: outputs");
    for (number, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_eq!(got.shape(), expected.shape(), "{case}: output {number}");
        let largest = expected.iter().fold(1f32, |largest, v| largest.max(v.abs()));
        for (a, b) in got.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-6 * largest, "{case}: output {number}: {a} and {b}");
        }
    }
}

fn read(case: &str) -> Imported {
    keras::read(Device::cpu(), fixture(&format!("{case}.keras"))).expect("a Keras model")
}

const KERAS: [&str; 14] = [
    "keras_sequential",
    "keras_masked",
    "keras_encoder_decoder",
    "keras_nested",
    "keras_attention",
    "keras_windows",
    "keras_normalized",
    "keras_directions",
    "keras_operations",
    "keras_training",
    "keras_handed_on",
    "keras_sums",
    "keras_any_length",
    "keras_mask_tensor",
];

#[test]
fn keras_models_give_what_they_gave_in_keras() {
    for case in KERAS {
        let mut imported = read(case);
        assert_close(case, &outputs(&mut imported.model, case));
        assert!(imported.inputs.iter().chain(&imported.outputs).all(|port| port.batch_axis == 0));
    }
    let names = |ports: &[fused_rnn::exchange::Port]| ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    let nested = read("keras_nested");
    assert_eq!(names(&nested.inputs), ["a"]);
    assert_eq!(names(&nested.outputs), ["first", "last", "second", "third"]);
    assert_eq!(names(&read("keras_masked").inputs), ["words", "steps"]);
}

/// Models that were read are models: they are saved in the crate's own format, and trained on.
#[test]
fn keras_models_are_saved_and_trained() {
    let folder = tempfile::tempdir().expect("a folder");
    for case in KERAS {
        let mut model = read(case).model;
        let path = folder.path().join("model.safetensors");
        model.save(&path).expect("saved");
        assert_close(case, &outputs(&mut Model::load(Device::cpu(), &path).expect("loaded"), case));
        let (x, y) = (arrays(case, "in"), arrays(case, "out"));
        let views = |arrays: &'_ [ArrayD<f32>]| arrays.iter().map(|a| a.clone().into_shared()).collect::<Vec<_>>();
        let (x, y) = (views(&x), views(&y));
        let (loss, gradient) = model
            .loss_gradient(
                x.iter().map(|x| x.view()).collect::<Vec<_>>(),
                y.iter().map(|y| y.view()).collect::<Vec<_>>(),
            )
            .expect("a gradient");
        assert!(loss.is_finite() && gradient.len() == model.count_params(), "{case}");
    }
}

/// The losses of steps on the arrays of `keras_training`.
fn losses(model: &mut Model) -> Vec<f64> {
    let (x, y) = (arrays("keras_training", "in"), arrays("keras_training", "y"));
    (0..4).map(|_| model.train_on_batch(views(&x), views(&y)).expect("a step")).collect()
}

/// Optimizer, learning rates, losses, regularizers, constraints and frozen layers: steps have the losses that they have in Keras.
#[test]
fn training_goes_on_as_in_keras() {
    let recorded = TensorFile::read(fixture("keras_training.safetensors")).expect("a case");
    let (_, expected) = recorded.floats::<f64>("loss").expect("losses");
    let mut imported = read("keras_training");
    assert_eq!(imported.left_out, [""; 0]);
    assert!(
        !imported.model.is_trainable("frozen").expect("a layer")
            && imported.model.is_trainable("gru").expect("a layer")
    );
    let bytes = keras::to_bytes(&imported.model, Path::new("training.keras")).expect("written");
    let mut again = keras::parse(Device::cpu(), &bytes, Path::new("training.keras")).expect("read again");
    assert_eq!(again.left_out, [""; 0]);
    let frozen = imported.model.weight::<f32>("frozen.weight").expect("weights");
    for model in [&mut imported.model, &mut again.model] {
        let losses = losses(model);
        for (loss, expected) in losses.iter().zip(&expected) {
            assert!((loss - expected).abs() < 2e-5 * expected, "{losses:?} and {expected}");
        }
    }
    assert_eq!(frozen, imported.model.weight::<f32>("frozen.weight").expect("weights"));
}

/// What a model here does not keep of its training is told.
#[test]
fn what_is_left_out_of_training_is_told() {
    let left_out = read("keras_left_out").left_out;
    let starts = [
        "layer gru (GRU): bias_constraint {",
        "layer dense (Dense): kernel_regularizer {",
        "optimizer {",
        "loss {",
        "metrics [",
    ];
    assert_eq!(left_out.len(), starts.len(), "{left_out:?}");
    assert!(left_out.iter().zip(starts).all(|(text, start)| text.starts_with(start)), "{left_out:?}");
}

/// A model of any number of steps, with parts counted from the end of its sequences, takes other lengths, and so does what is saved of it.
#[test]
fn keras_models_stay_of_any_length() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut imported = read("keras_any_length");
    let path = folder.path().join("model.safetensors");
    imported.save(&path).expect("saved");
    let mut loaded = Imported::load(Device::cpu(), &path).expect("loaded");
    for imported in [&mut imported, &mut loaded] {
        assert_eq!(imported.inputs[0].shape, [None, Some(4)]);
        assert_close(
            "keras_any_length",
            &imported.predict(&views(&arrays("keras_any_length", "in"))).expect("outputs"),
        );
        let outputs = imported.predict(&[ArrayD::<f32>::zeros(IxDyn(&[3, 12, 4])).view()]).expect("outputs");
        let steps = [1, 2, 3, 4, 5].map(|output: usize| outputs[output].shape()[1]);
        assert_eq!(steps, [12, 11, 10, 6, 3]);
    }
    // One of a fixed length is none of this kind.
    let fixed = keras::read_with_steps(Device::cpu(), fixture("keras_any_length.keras"), 7).expect("a model");
    assert_eq!(fixed.inputs[0].shape, [Some(7), Some(4)]);
}

/// Arrays say how long axes are that the file leaves open, each input's its own; and one number for each sample has no axis.
#[test]
fn keras_ports_are_as_they_are_there() {
    let path = fixture("keras_open.keras");
    // Without, they stay open: each call may have others.
    let mut imported = read("keras_open");
    assert_eq!(imported.inputs[0].shape, [None, Some(4)]);
    assert_eq!(imported.outputs[0].shape, [None, Some(2)]);
    assert_close("keras_open", &imported.predict(&views(&arrays("keras_open", "in"))).expect("outputs"));
    let longer = [ArrayD::<f32>::zeros(IxDyn(&[1, 9, 4])), ArrayD::zeros(IxDyn(&[1, 2, 3]))];
    assert_eq!(imported.predict(&views(&longer)).expect("outputs")[0].shape(), [1, 2, 2]);
    let inputs = arrays("keras_open", "in");
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|x| x.shape().to_vec()).collect();
    let mut imported = keras::read_with_shapes(Device::cpu(), &path, &shapes).expect("a model");
    assert_close("keras_open", &outputs(&mut imported.model, "keras_open"));
    let mut imported = read("keras_numbers");
    let inputs = arrays("keras_numbers", "in");
    assert_close("keras_numbers", &imported.predict(&[inputs[0].view()]).expect("outputs"));
    assert_eq!(imported.outputs.iter().map(|port| port.shape.len()).collect::<Vec<_>>(), [0, 0, 1]);
}

/// Keras's layers of Python code are named, with what to do.
#[test]
fn python_code_is_refused_with_the_way_out() {
    let bytes = std::fs::read(fixture("keras_numbers.keras")).expect("a file");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&bytes)).expect("an archive");
    let mut config = String::new();
    std::io::Read::read_to_string(&mut archive.by_name("config.json").expect("a member"), &mut config).expect("text");
    let changed = config.replacen("\"class_name\": \"Dense\"", "\"class_name\": \"Lambda\"", 1);
    assert_ne!(changed, config);
    let mut weights = Vec::new();
    std::io::Read::read_to_end(&mut archive.by_name("model.weights.h5").expect("a member"), &mut weights)
        .expect("bytes");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in [("config.json", changed.as_bytes()), ("model.weights.h5", &weights)] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("a member");
        std::io::Write::write_all(&mut zip, content).expect("written");
    }
    let bytes = zip.finish().expect("an archive").into_inner();
    let text = keras::parse(Device::cpu(), &bytes, Path::new("lambda.keras")).err().expect("refused").to_string();
    assert!(text.contains("(Lambda)") && text.contains("keras.ops.sum"), "{text}");
}

#[test]
fn weights_alone_go_into_the_same_layers() {
    let (architecture, weights) = (fixture("keras_sequential.keras"), fixture("keras_sequential.weights.h5"));
    let mut imported = keras::read_with_weights(Device::cpu(), &architecture, &weights).expect("both files");
    assert_close("keras_sequential", &outputs(&mut imported.model, "keras_sequential"));
    // Into a model that has lost its own, by names: those of the file's layers.
    let folder = tempfile::tempdir().expect("a folder");
    for case in ["keras_masked", "keras_encoder_decoder"] {
        let mut model = read(case).model;
        let zeros = vec![0f32; model.count_params()];
        model.set_flat_weights(&zeros).expect("zeros");
        keras::read_weights(&mut model, fixture(&format!("{case}.keras"))).expect("weights");
        assert_close(case, &outputs(&mut model, case));
    }
    // Of layers without names of their own, by the order of the layers.
    let stack = |seed| {
        let mut model = Sequential::new(Device::cpu(), &[5, 3], seed).expect("a model");
        model.add(Lstm::new(4).return_sequences(true)).and_then(|m| m.add(Lstm::new(2))).expect("layers");
        model.add(Dense::new(2)).expect("a layer");
        model.into_model()
    };
    let (first, mut second) = (stack(1), stack(2));
    let path = folder.path().join("stack.weights.h5");
    keras::write_weights(&first, &path).expect("written");
    keras::read_weights(&mut second, &path).expect("read");
    assert_eq!(first.flat_weights::<f32>().expect("weights"), second.flat_weights::<f32>().expect("weights"));
    // Another model is told what is missing, and stays as it was.
    let mut other = Sequential::new(Device::cpu(), &[5, 3], 3).expect("a model");
    other.add(Lstm::new(4).return_sequences(true)).expect("a layer").add(Gru::new(2)).expect("a layer");
    let before = other.flat_weights::<f32>().expect("weights");
    let text = keras::read_weights(&mut other, &path).expect_err("another model").to_string();
    assert!(text.contains("gru") && text.contains("layers/gru/cell"), "{text}");
    assert_eq!(before, other.flat_weights::<f32>().expect("weights"));
}

/// What is written is read again with the same outputs; with the environment's `FUSED_RNN_WRITTEN` the files stay in that folder, and
/// `generate_exchange.py --check` has Keras read them.
#[test]
fn written_models_are_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = std::env::var_os("FUSED_RNN_WRITTEN").map(PathBuf::from);
    let folder = kept.as_deref().unwrap_or(folder.path());
    for case in [
        "keras_sequential",
        "keras_masked",
        "keras_encoder_decoder",
        "keras_attention",
        "keras_windows",
        "keras_normalized",
        "keras_training",
        "keras_handed_on",
    ] {
        let model = read(case).model;
        let path = folder.join(format!("{case}.keras"));
        keras::write(&model, &path).expect("written");
        assert_eq!(std::fs::read(&path).expect("a file"), keras::to_bytes(&model, &path).expect("the same bytes"));
        let weights = folder.join(format!("{case}.weights.h5"));
        keras::write_weights(&model, &weights).expect("written");
        let mut again = keras::read(Device::cpu(), &path).expect("read again").model;
        assert_close(case, &outputs(&mut again, case));
        let mut again = keras::read_with_weights(Device::cpu(), &path, &weights).expect("read again").model;
        assert_close(case, &outputs(&mut again, case));
        std::fs::copy(fixture(&format!("{case}.safetensors")), folder.join(format!("{case}.safetensors")))
            .expect("copied");
    }
    // What Keras has not is named.
    let mut model = Sequential::new(Device::cpu(), &[4, 3], 1).expect("a model");
    model.add(Slstm::new(3)).expect("a layer");
    let error = keras::write(&model, folder.join("none.keras")).expect_err("Keras has no such layer");
    assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains("slstm")), "{error}");
    assert!(!folder.join("none.keras").exists());
}

/// A convolution, recurrent layers of both kinds of PyTorch's biases, a head; as they would be written here.
fn stacked(double_bias: bool) -> Model {
    let mut model = Sequential::new(Device::cpu(), &[5, 3], 1).expect("a model");
    let lstm = Lstm::new(4).double_bias(double_bias).return_sequences(true);
    if double_bias {
        model.add(Bidirectional::new(lstm.num_layers(2))).expect("a layer");
    } else {
        model.add(Bidirectional::new(lstm.clone())).and_then(|m| m.add(Bidirectional::new(lstm))).expect("layers");
    }
    model.add(Slice::new(1, 4, 1)).and_then(|m| m.add(LayerNormalization::new())).expect("layers");
    model.add(Dense::new(8).activation(ActivationFunction::Relu)).and_then(|m| m.add(Dense::new(2))).expect("layers");
    model.into_model()
}

fn convolved(normalized: bool) -> Model {
    let mut model = Sequential::new(Device::cpu(), &[6, 3], 1).expect("a model");
    model.add(Conv1D::new(5, 3).padding(Padding::Same)).expect("a layer");
    if normalized {
        model.add(BatchNormalization { epsilon: 1e-5, ..BatchNormalization::new() }).expect("a layer");
    }
    model
        .add(Gru::new(4).return_sequences(true))
        .and_then(|m| m.add(TimeDistributed::new(Dense::new(2))))
        .expect("layers");
    model.into_model()
}

fn tagger(num_layers: usize) -> Model {
    let mut graph = Graph::new(Device::cpu(), 1);
    let words = graph.input("words", &[5]).expect("an input");
    let y = graph.add(Embedding::new(7, 4), &[&words]).expect("a layer");
    let attention = MultiHeadAttention { value_dim: Some(2), output_dim: Some(4), ..MultiHeadAttention::new(2, 2) };
    let mut y = graph.add(attention, &[&y, &y, &y]).expect("a layer");
    for _ in 0..3 / num_layers {
        let rnn = SimpleRnn::new(3).activation(ActivationFunction::Relu).use_bias(false).return_sequences(true);
        y = graph.add(rnn.num_layers(num_layers), &[&y]).expect("a layer");
    }
    let y = graph.add(Dense::new(2).use_bias(false), &[&y]).expect("a layer");
    graph.model(&[&y]).expect("a model")
}

fn state_dict(case: &str) -> PathBuf {
    fixture(&format!("{case}.state_dict.safetensors"))
}

#[test]
fn state_dicts_give_what_they_gave_in_pytorch() {
    let load = |mut model: Model, case: &str, map: &[(&str, &str)]| {
        model.load_torch(state_dict(case), map).expect("weights");
        assert_close(case, &outputs(&mut model, case));
        model
    };
    let one = [("rnn", "bidirectional"), ("head.0", "layer_normalization"), ("head.1", "dense"), ("head.3", "dense_1")];
    let two = [&[("rnn", "bidirectional"), ("rnn", "bidirectional_1")], &one[1..]].concat();
    let one_layer = load(stacked(true), "torch_stacked", &one);
    let two_layers = load(stacked(false), "torch_stacked", &two);
    load(stacked(true), "torch_stacked", &[]);
    load(stacked(false), "torch_stacked", &[]);
    let folded = [("conv", "conv1d"), ("norm", "conv1d"), ("gru", "gru"), ("out", "time_distributed")];
    let apart = [("conv", "conv1d"), ("norm", "batch_normalization"), ("gru", "gru"), ("out", "time_distributed")];
    let without = load(convolved(false), "torch_convolved", &folded);
    load(convolved(false), "torch_convolved", &[]);
    let normalized = load(convolved(true), "torch_convolved", &apart);
    load(convolved(true), "torch_convolved", &[]);
    let map =
        [("embedding", "embedding"), ("attention", "multi_head_attention"), ("rnn", "simple_rnn"), ("out", "dense")];
    let tagged = load(tagger(3), "torch_tagger", &map);
    load(tagger(3), "torch_tagger", &[]);
    load(tagger(1), "torch_tagger", &[]);

    // And back: the same tensors under the same names.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("back.safetensors");
    for (model, map, case) in [
        (&one_layer, &one[..], "torch_stacked"),
        (&two_layers, &two, "torch_stacked"),
        (&normalized, &apart, "torch_convolved"),
        (&tagged, &map, "torch_tagger"),
    ] {
        model.save_torch(&path, map).expect("saved");
        let (ours, theirs) =
            (TensorFile::read(&path).expect("ours"), TensorFile::read(state_dict(case)).expect("theirs"));
        let names = |file: &TensorFile| {
            file.names().filter(|name| !name.ends_with("num_batches_tracked")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names(&ours), names(&theirs), "{case}");
        for name in names(&ours) {
            let (a, b) = (ours.floats::<f32>(&name).expect("floats"), theirs.floats::<f32>(&name).expect("floats"));
            assert_eq!(a.0, b.0, "{name}");
            // One bias is the sum of PyTorch's two.
            let summed = std::ptr::eq(model, &two_layers) && name.contains("bias_");
            assert!(summed || a.1 == b.1, "{case}: {name}");
        }
        let mut again = match case {
            "torch_stacked" => stacked(std::ptr::eq(model, &one_layer)),
            "torch_convolved" => convolved(true),
            _ => tagger(3),
        };
        again.load_torch(&path, map).expect("read again");
        assert_close(case, &outputs(&mut again, case));
    }
    // A normalization that a convolution has in its weights goes back as one that changes nothing.
    without.save_torch(&path, &folded).expect("saved");
    let names = |file: &TensorFile| file.names().filter(|name| !name.ends_with("tracked")).count();
    assert_eq!(
        names(&TensorFile::read(&path).expect("ours")),
        names(&TensorFile::read(state_dict("torch_convolved")).expect("theirs"))
    );
    load_back(convolved(true), &path, &apart);
    load_back(convolved(false), &path, &folded);
    let twice = [("conv", "conv1d"), ("gru", "gru"), ("norm", "conv1d"), ("out", "time_distributed")];
    let text = without.save_torch(&path, &twice).expect_err("refused").to_string();
    assert!(text.contains("conv1d twice"), "{text}");
}

/// Each normalization is taken into its own convolution, whose name may begin as another one's.
#[test]
fn normalizations_go_into_their_own_layers() {
    let mut model = Sequential::new(Device::cpu(), &[7, 3], 1).expect("a model");
    model.add(Conv1D::new(4, 3).activation(ActivationFunction::Relu)).expect("a layer");
    model.add(Conv1D::new(5, 2)).expect("a layer");
    let map = [("one", "conv1d"), ("norm", "conv1d"), ("two", "conv1d_1"), ("norm_two", "conv1d_1")];
    for map in [&map[..], &[]] {
        let mut model =
            Model::from_config(Device::cpu(), &model.config().expect("a configuration"), 2).expect("a model");
        model.load_torch(state_dict("torch_folded"), map).expect("weights");
        assert_close("torch_folded", &outputs(&mut model, "torch_folded"));
    }
}

/// A model with weights from a file has the outputs recorded for it.
fn load_back(mut model: Model, path: &Path, map: &[(&str, &str)]) {
    model.load_torch(path, map).expect("weights");
    assert_close("torch_convolved", &outputs(&mut model, "torch_convolved"));
}

/// One call for whatever kind of file it is; weights alone need the model that they are for.
#[test]
fn files_are_read_by_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let saved = folder.path().join("model.safetensors");
    stacked(false).save(&saved).expect("saved");
    let sequential = fixture("keras_sequential.keras");
    for (file, architecture, case) in [
        (sequential.clone(), None, "keras_sequential"),
        (fixture("keras_sequential.weights.h5"), Some(&sequential), "keras_sequential"),
        (state_dict("torch_stacked"), Some(&saved), "torch_stacked"),
    ] {
        let mut imported = exchange::read(Device::cpu(), &file, architecture.map(PathBuf::as_path)).expect("a model");
        let inputs = arrays(case, "in");
        assert_close(case, &imported.predict(&inputs.iter().map(|x| x.view()).collect::<Vec<_>>()).expect("outputs"));
    }
    let refused = |file: &Path, architecture: Option<&Path>| match exchange::read(Device::cpu(), file, architecture) {
        Ok(_) => panic!("{} was read", file.display()),
        Err(error) => error.to_string(),
    };
    let text = refused(&state_dict("torch_stacked"), None);
    assert!(text.contains("whose weights these are"), "{text}");
    assert!(refused(&sequential, Some(&saved)).contains("says what it is"));
    assert!(refused(Path::new("model.pt"), None).contains(".weights.h5"));
}

#[test]
fn state_dicts_that_do_not_fit_say_what_would() {
    let text = |mut model: Model, case: &str, map: &[(&str, &str)]| {
        let before = model.flat_weights::<f32>().expect("weights");
        let text = model.load_torch(state_dict(case), map).expect_err("it does not fit").to_string();
        assert_eq!(before, model.flat_weights::<f32>().expect("weights"), "the model has changed");
        text
    };
    let wrong = text(stacked(true), "torch_stacked", &[("rnn", "bidirectional"), ("head.0", "dense")]);
    assert!(wrong.contains("head.0.weight has the shape [8], but dense.weight needs [8, 8]"), "{wrong}");
    let fitting =
        r#"[("rnn", "bidirectional"), ("head.0", "layer_normalization"), ("head.1", "dense"), ("head.3", "dense_1")]"#;
    assert!(wrong.contains(fitting), "{wrong}");
    let left = text(stacked(true), "torch_stacked", &[("rnn", "bidirectional"), ("head.1", "dense")]);
    assert!(left.contains("no module for the layers layer_normalization"), "{left}");
    assert!(left.contains("no layer for the modules head.0") && left.contains(fitting), "{left}");
    let begun = text(stacked(false), "torch_stacked", &[("rnn", "bidirectional")]);
    assert!(begun.contains("no layer for the layers from 1 on of module rnn"), "{begun}");
    let unknown = text(stacked(true), "torch_stacked", &[("lstm", "bidirectional")]);
    assert!(unknown.contains("it has no module lstm, but head.0, head.1, head.3, rnn"), "{unknown}");
    let layer = text(stacked(true), "torch_stacked", &[("rnn", "lstm")]);
    assert!(layer.contains("one of the layers with weights, bidirectional, layer_normalization"), "{layer}");
    let other = text(convolved(true), "torch_stacked", &[]);
    assert!(other.contains("no module for the layers conv1d"), "{other}");
    // PyTorch has no such functions.
    let mut model = Sequential::new(Device::cpu(), &[4, 3], 1).expect("a model");
    model.add(Lstm::new(3).activation(ActivationFunction::Relu)).expect("a layer");
    let error = model.save_torch(Path::new("none.safetensors"), &[("lstm", "lstm")]).expect_err("no such module");
    assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains("lstm")), "{error}");
    let error = torch::save(&stacked(true), Path::new("none.safetensors"), &[]).expect_err("no map");
    assert!(error.to_string().contains("none for bidirectional"), "{error}");
}

/// Layers that came with whole models go to PyTorch's modules and back, and lengths with directions become weights.
#[test]
fn further_modules_of_pytorch() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state_dict.safetensors");
    let model = |seed: u64| {
        let mut model = Sequential::new(Device::cpu(), &[5, 3], seed).expect("a model");
        model
            .add(Conv1DTranspose::new(4, 2).strides(2))
            .expect("a layer")
            .add(PRelu::new().shared_axes(&[1]))
            .expect("one");
        model.into_model()
    };
    let map = [("up", "conv1d_transpose"), ("slope", "p_re_lu")];
    let mut first = model(1);
    first.set_weight("p_re_lu.alpha", &[0.1f32, 0.2, 0.3, 0.4]).expect("slopes");
    first.save_torch(&path, &map).expect("saved");
    let file = TensorFile::read(&path).expect("a file");
    assert_eq!(file.shape("up.weight"), Some(&[3, 4, 2][..]));
    assert_eq!(file.shape("slope.weight"), Some(&[4][..]));
    for map in [&map[..], &[]] {
        let mut other = model(2);
        other.load_torch(&path, map).expect("weights");
        assert_eq!(other.flat_weights::<f32>().expect("weights"), first.flat_weights::<f32>().expect("weights"));
    }
    let (lengths, directions) = ([10f32, 3.0], [3f32, 4.0, 0.0, 2.0]);
    let tensor = |values: &'static [f32]| TensorRef::of(values);
    for (length, direction) in [
        ("fc.parametrizations.weight.original0", "fc.parametrizations.weight.original1"),
        ("fc.weight_g", "fc.weight_v"),
    ] {
        let tensors = [
            (length, vec![2, 1], TensorRef::of(&lengths)),
            (direction, vec![2, 2], TensorRef::of(&directions)),
            ("fc.bias", vec![2], tensor(&[0.5, 1.0])),
        ];
        safetensors::write(&path, "format", "pt", &tensors).expect("written");
        let mut dense = Sequential::new(Device::cpu(), &[2], 1).expect("a model");
        dense.add(Dense::new(2)).expect("a layer");
        dense.load_torch(&path, &[("fc", "dense")]).expect("weights");
        assert_eq!(dense.weight::<f32>("dense.weight").expect("weights"), [6.0, 8.0, 0.0, 3.0]);
    }
}

/// Modules of the same shapes go where their names or their numbers say; where neither does, the map is asked for.
#[test]
fn the_alphabet_is_no_order_of_layers() {
    let model = |seed: u64| {
        let mut model = Sequential::new(Device::cpu(), &[5, 4], seed).expect("a model");
        model.add(Gru::new(4).return_sequences(true)).expect("a layer").add(Gru::new(4)).expect("a layer");
        model.into_model()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state_dict.safetensors");
    let first = model(1);
    let weights = first.flat_weights::<f32>().expect("weights");
    first.save_torch(&path, &[("encoder", "gru"), ("decoder", "gru_1")]).expect("saved");
    let mut other = model(2);
    let text = other.load_torch(&path, &[]).expect_err("refused").to_string();
    assert!(["layer gru ", "decoder, encoder", "--map"].iter().all(|word| text.contains(word)), "{text}");
    other.load_torch(&path, &[("encoder", "gru"), ("decoder", "gru_1")]).expect("weights");
    assert_eq!(other.flat_weights::<f32>().expect("weights"), weights);
    for names in [["gru9", "gru10"], ["blocks.0.rnn", "blocks.1.rnn"]] {
        first.save_torch(&path, &[(names[0], "gru"), (names[1], "gru_1")]).expect("saved");
        let mut numbered = model(3);
        numbered.load_torch(&path, &[]).expect("weights");
        assert_eq!(numbered.flat_weights::<f32>().expect("weights"), weights);
    }
}
