//! The inputs that the fuzzer has kept (`fuzz/corpus`), and those that have once broken something, through the same targets; and a few changes of
//! each, the same in every run.
//!
//! Another program than the other tests, since its allocator counts.

#![allow(unsafe_code, reason = "the allocator's module says it of itself")]

use std::path::{Path, PathBuf};

#[path = "../fuzz/src/mutate/mod.rs"]
mod mutate;
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

#[global_allocator]
static ALLOCATOR: targets::memory::Measuring = targets::memory::Measuring;

/// Changes of each input.
const CHANGES: u32 = 3;

/// Says which file it was, and which change of it, where a target panics.
struct Current(PathBuf, Option<u32>);

impl Drop for Current {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input: {}, changed by seed {:?}", self.0.display(), self.1);
        }
    }
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn replay(target: &str) {
    let target = targets::named(target).expect("a target");
    let (mut taken, mut refused) = (0, 0);
    for path in files(&folder(target.name)) {
        let mut current = Current(path, None);
        let bytes = std::fs::read(&current.0).expect("the file");
        match (target.run)(&bytes) {
            true => taken += 1,
            false => refused += 1,
        }
        for seed in 0..CHANGES {
            current.1 = Some(seed);
            if let Some(changed) = mutate::changed(target.form, &bytes, target.longest, seed) {
                (target.run)(&changed);
            }
        }
    }
    println!("{}: {taken} taken, {refused} refused", target.name);
    assert!(taken > 0, "the readers take none of the corpus: the target tries nothing behind them");
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let all: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
            assert_eq!(all, [$(stringify!($name)),*]);
        }
    };
}

replayed! {
    configuration model weights checkpoint csv times ts tokenizer parity onnx keras keras_weights state_dict npz safetensors
}

mod first_inputs {
    //! What the fuzzer begins with: recorded cases, models of other programs as they were read, a model of each layer.

    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use fused_rnn::Device;
    use fused_rnn::data::{ColumnsChoice, CsvTable, Gaps, Scaler, Tokenizer, TokenizerOptions, ts};
    use fused_rnn::exchange::onnx::ImportOptions;
    use fused_rnn::exchange::{Imported, keras, onnx};
    use fused_rnn::interop::safetensors::TensorFile;
    use fused_rnn::loss::Loss;
    use fused_rnn::model::{FitOptions, ForecastConfig, Forecaster, SequenceConfig, SequenceModel, Sequential};
    use fused_rnn::nn::*;
    use fused_rnn::optim::Adam;

    use super::files;
    use super::targets::checkpoint;

    fn put(target: &str, name: &str, bytes: &[u8]) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/first").join(target);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(name), bytes).expect("written");
    }

    /// A model file, and the description in it.
    fn put_model(path: &Path, name: &str) {
        let file = TensorFile::read(path).expect("a model file");
        put("configuration", name, file.metadata("fused-rnn").expect("a description").as_bytes());
        put("model", name, &std::fs::read(path).expect("the file"));
    }

    fn layers() -> Vec<LayerConfig> {
        let tanh = ActivationFunction::Tanh;
        let lstm = || Lstm::new(3).return_sequences(true);
        vec![
            lstm().dropout(0.1).recurrent_dropout(0.1).into(),
            Lstm::new(3).stateful(true).into(),
            Lstm::new(2).num_layers(2).go_backwards(true).into(),
            Gru::new(3).reset_after(false).into(),
            SimpleRnn::new(3).zoneout(0.1).into(),
            Slstm::new(2).into(),
            Mgu::new(2).into(),
            IndRnn::new(2).into(),
            Bidirectional::new(lstm()).into(),
            TimeDistributed::new(Dense::new(2)).into(),
            Conv1D::new(2, 2).into(),
            Conv1DTranspose::new(2, 2).into(),
            Cropping1D::new(1, 1).into(),
            ZeroPadding1D::new(1, 2).into(),
            UpSampling1D::new(2).into(),
            MaxPooling1D::new(2).into(),
            AveragePooling1D::new(2).into(),
            GlobalMaxPooling1D::new().into(),
            GlobalAveragePooling1D::new().into(),
            BatchNormalization::new().into(),
            LayerNormalization::new().into(),
            UnitNormalization::new().into(),
            Normalization::new().into(),
            Masking::new(0.0).into(),
            Dropout::new(0.2).into(),
            SpatialDropout1D::new(0.2).into(),
            GaussianNoise::new(0.2).into(),
            GaussianDropout::new(0.2).into(),
            ActivationLayer::new(tanh).into(),
            Softmax::new().into(),
            PRelu::new().into(),
            Flatten::new().into(),
            Permute::new(&[2, 1]).into(),
            Reshape::new(&[2, -1]).into(),
            Slice::new(1, 1, 2).into(),
            Reduce::new(Reduction::Mean, &[1]).into(),
            Elementwise::new(Function::Exp).into(),
            PositionalEncoding::new().into(),
            TransformerEncoder::new(2, 2, 3).into(),
        ]
    }

    fn models(scratch: &Path) {
        for (number, layer) in layers().into_iter().enumerate() {
            let mut model = Sequential::new(Device::cpu(), &[5, 4], 1).expect("a model");
            let name = format!("layer_{number}");
            model.add(layer).expect(&name);
            if model.output_shape().len() > 1 {
                model.add(Flatten::new()).expect("flat");
            }
            model.add(Dense::new(1)).expect("a layer");
            model.save(scratch).expect("saved");
            put_model(scratch, &name);
        }
        let mut model = Sequential::new(Device::cpu(), &[4, 2], 1).expect("a model");
        model.add(Lstm::new(3)).and_then(|model| model.add(Dense::new(1))).expect("layers");
        model.save_weights(scratch).expect("saved");
        put("weights", "weights", &std::fs::read(scratch).expect("the file"));
        model.compile(Adam::default(), Loss::MeanSquaredError).expect("compiled");
        let (x, y) = (ndarray::Array3::<f32>::ones((3, 4, 2)), ndarray::Array2::<f32>::zeros((3, 1)));
        model.fit(&x, &y, FitOptions::default()).expect("trained");
        model.save(scratch).expect("saved");
        put_model(scratch, "trained");
    }

    fn purposes(scratch: &Path) {
        let values: Vec<f64> = (0..40).map(|t| f64::from(t % 7)).collect();
        let config = ForecastConfig {
            column: "v".to_owned(),
            inputs: Vec::new(),
            known: Vec::new(),
            panel: None,
            gaps: Gaps::Error,
            window: 4,
            horizon: 2,
            difference: true,
            scaler: Scaler::standard(&values).expect("a scaler"),
            reading: Default::default(),
            correction: None,
        };
        let forecaster = Forecaster::new(Device::cpu(), config, Lstm::new(2), 1).expect("a model");
        forecaster.save(scratch).expect("saved");
        put_model(scratch, "forecast");
        let set = b"@problemName p\n@timeStamps false\n@classLabel true a b\n@data\n1,2:3,4:a\n2,1:0,1:b\n";
        put("ts", "classes", set);
        put("ts", "numbers", b"@univariate true\n@missing true\n@targetLabel true\n@data\n1,?,3:0.5\n4,5,6:-1\n");
        let set = ts::parse_ts(set, "d", Default::default()).expect("a set");
        let config = SequenceConfig::fitted(&set, 2).expect("a configuration");
        let model = SequenceModel::new(Device::cpu(), config, [LayerConfig::from(Gru::new(2))], 1).expect("a model");
        model.save(scratch).expect("saved");
        put_model(scratch, "sequences");
        let text = ["the cat sat", "a dog"];
        Tokenizer::from_texts(text, TokenizerOptions::default()).and_then(|t| t.save(scratch)).expect("saved");
        put("tokenizer", "words", &std::fs::read(scratch).expect("the file"));
    }

    fn fixtures(scratch: &Path) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let all = |folder: &str| -> BTreeMap<String, PathBuf> {
            let paths = files(&root.join(folder)).into_iter().filter(|path| path.is_file());
            paths.map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path)).collect()
        };
        let save = |imported: fused_rnn::Result<Imported>, name: &str| {
            if let Ok(imported) = imported {
                imported.save(scratch).expect("saved");
                put_model(scratch, name);
            }
        };
        for (name, path) in all("exchange").into_iter().chain(all("onnx")) {
            let bytes = std::fs::read(&path).expect("a fixture");
            if bytes.len() > 20_000 && !name.ends_with(".h5") {
                continue;
            }
            if name.ends_with(".keras") {
                put("keras", &name, &bytes);
                save(keras::read_with_steps(Device::cpu(), &path, 3), &name);
            } else if name.ends_with(".onnx") {
                put("onnx", &name, &bytes);
                save(onnx::read(Device::cpu(), &path, &ImportOptions::default()), &name);
            } else if name.ends_with(".npz") {
                put("npz", &name, &bytes);
            } else if name.ends_with(".state_dict.safetensors") {
                put("state_dict", &name, &bytes);
                put("safetensors", &name, &bytes);
            }
        }
        for (name, path) in all("saved").iter().filter(|(name, _)| name.ends_with(".safetensors")) {
            if std::fs::metadata(path).expect("a fixture").len() < 10_000 {
                put_model(path, name);
            }
        }
        for (name, path) in all("parity") {
            put("parity", &name, &std::fs::read(&path).expect("a fixture"));
        }
    }

    fn weights_of_others(scratch: &Path) {
        let mut stack = Sequential::new(Device::cpu(), &[6, 3], 1).expect("a model");
        stack.add(Conv1D::new(4, 3)).and_then(|m| m.add(BatchNormalization::new())).expect("layers");
        stack.add(Gru::new(5)).and_then(|m| m.add(Dense::new(1))).expect("layers");
        keras::write_weights(&stack, scratch).expect("written");
        put("keras_weights", "convolved", &std::fs::read(scratch).expect("the file"));
        let mut stack = Sequential::new(Device::cpu(), &[5, 3], 1).expect("a model");
        let lstm = Lstm::new(4).return_sequences(true);
        stack.add(Bidirectional::new(lstm)).and_then(|m| m.add(LayerNormalization::new())).expect("layers");
        stack.add(Dense::new(8)).and_then(|m| m.add(Dense::new(2))).expect("layers");
        keras::write_weights(&stack, scratch).expect("written");
        put("keras_weights", "stack", &std::fs::read(scratch).expect("the file"));
    }

    fn texts() {
        let tables = [
            "month,passengers\n1949-01,112\n1949-02,118\n1949-03,132\n",
            "{\"delimiter\":\";\",\"decimal\":\"comma\"}\nDatum;Wert\n31.12.2019;1.234,5\n01.01.2020;2,5\n",
            "{\"time\":\"t\",\"order\":\"sort\",\"missing\":[\"-9\"]}\nt,a,b\n3,1,x\n1,-9,y\n2,5,x\n",
            "{\"only\":[[\"k\",\"a\"]],\"header\":true}\nt,k,v\n1,a,2\n1,b,3\n2,a,4\n2,b,5\n",
            "Title\n\n\"a\"\t\"b \"\"q\"\"\"\n1\t2\n\t3\nSource: x\n",
            "date,open,class\n2024-03-07 00:00:00-05:00,\"1,234\",up\n2024-03-08 00:00:00-05:00,NA,down\n",
        ];
        for (number, table) in tables.iter().enumerate() {
            put("csv", &number.to_string(), table.as_bytes());
            let _ = CsvTable::parse(table.as_bytes(), "d", &Default::default())
                .map(|t| t.columns(&ColumnsChoice::AllNumeric));
        }
        put("csv", "utf16", b"\xff\xfea\0,\0b\0\n\x001\0,\x002\0\n\0");
        let times = [
            "1700\n1701",
            "1749-01\n1749-02",
            "2021-05-01 22:00:00+00:00\n2021-05-01 23:00:00+00:00",
            "31.12.2019\n01.01.2020",
            "12/30/2019\n12/31/2019",
            "Jan-1995\nFeb-1995",
            "01JAN1995\n02JAN1995",
            "2019Q3\n2019Q4",
            "1995M11\n1995M12",
            "2020-W52\n2020-W53",
            "Tuesday, March 3, 2020\nWednesday, March 4, 2020",
            "1949\n1949.083\n1949.167",
            "1/12/2020 11:00 PM\n1/13/2020 11:00 PM",
            "2020022822\n2020022823",
            "20200228\n20200229",
            "3Q19\n4Q19",
        ];
        for (number, labels) in times.iter().enumerate() {
            put("times", &number.to_string(), labels.as_bytes());
        }
    }

    /// After a batch of the second epoch, and after all of them.
    fn checkpoints() {
        for batches in [1, 3] {
            let whole = checkpoint::written(batches);
            put("checkpoint", &format!("after_{batches}"), &checkpoint::opened(&whole).expect("a checkpoint"));
            put("checkpoint", &format!("whole_after_{batches}"), &whole);
        }
    }

    #[test]
    #[ignore = "writes fuzz/first"]
    fn first_inputs() {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = folder.path().join("model.safetensors");
        models(&scratch);
        purposes(&scratch);
        fixtures(&scratch);
        weights_of_others(&scratch);
        checkpoints();
        texts();
    }
}
