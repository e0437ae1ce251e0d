//! Trainings that are interrupted and go on from their checkpoint end with the bits of those that are not.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::{common, cpu};
use fused_rnn::metrics::Metric;
use fused_rnn::model::*;
use fused_rnn::nn::*;
use fused_rnn::optim::{Adam, RmsProp, Schedule, Sgd};
use fused_rnn::{DType, Device, Error, Result};
use ndarray::{Array2, Array3, s};

/// Stops training after so many batches, or fails after so many epochs, of this process.
#[derive(Default)]
struct Interruption {
    after_batches: Option<usize>,
    after_epochs: Option<usize>,
    failing_after_epochs: Option<usize>,
}

impl Callback for Interruption {
    fn on_batch_end(&mut self, _: &BatchEnd<'_>) -> ControlFlow<()> {
        if let Some(left) = &mut self.after_batches {
            *left -= 1;
            if *left == 0 {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn on_epoch_end(&mut self, _: &EpochEnd, _: &mut dyn Training) -> Result<ControlFlow<()>> {
        if let Some(left) = &mut self.failing_after_epochs {
            *left -= 1;
            if *left == 0 {
                return Err(Error::other("the machine fails"));
            }
        }
        if let Some(left) = &mut self.after_epochs {
            *left -= 1;
            if *left == 0 {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A training: a model, and how it is fit with a backup and a further callback.
struct Case {
    name: &'static str,
    make: fn() -> Model,
    fit: fn(&mut Model, &Path, Option<BackupAndRestore>, &mut Interruption) -> Result<History>,
}

fn data(samples: usize) -> (Array3<f64>, Array2<f64>) {
    let x = Array3::from_shape_fn((samples, 5, 2), |(n, t, f)| ((n * 7 + t * 3 + f) as f64 * 0.37).sin());
    let y = Array2::from_shape_fn((samples, 1), |(n, _)| f64::from(u8::from(x[[n, 4, 0]] + x[[n, 2, 1]] > 0.3)));
    (x, y)
}

fn stack(layers: Vec<LayerConfig>) -> Model {
    stack_on(cpu(), layers)
}

fn stack_on(device: Device, layers: Vec<LayerConfig>) -> Model {
    let mut model = Graph::new(device, 11);
    let mut tensor = model.input("input", &[5, 2]).unwrap();
    for layer in layers {
        tensor = model.add(layer, &[&tensor]).unwrap();
    }
    model.model(&[&tensor]).unwrap()
}

/// Random numbers, statistics, the best weights, waiting callbacks, sums of all kinds of metrics.
fn with_everything() -> Model {
    let mut model = stack(vec![
        Lstm::new(6).return_sequences(true).into(),
        BatchNormalization::new().into(),
        Dropout::new(0.3).into(),
        Gru::new(4).recurrent_dropout(0.2).into(),
        GaussianNoise::new(0.1).into(),
        Dense::new(1).activation(ActivationFunction::Sigmoid).into(),
    ]);
    model.compile(Adam::new(0.02).unwrap(), Loss::BinaryCrossentropy { from_logits: false }).unwrap();
    model.metrics(&["accuracy", "auc", "precision", "r2_score", "f1_score", "mae"].map(|name| {
        let metric: Metric = name.parse().unwrap();
        match metric {
            Metric::F1Score { average, .. } => Metric::F1Score { average, threshold: Some(0.5) },
            metric => metric,
        }
    }));
    model.set_loss_scale(Some(LossScale::new(256.0, 7).unwrap()));
    model
}

fn fit_everything(
    model: &mut Model,
    folder: &Path,
    backup: Option<BackupAndRestore>,
    interruption: &mut Interruption,
) -> Result<History> {
    let (x, y) = data(37);
    let weights = Array2::from_shape_fn((37, 1), |(n, _)| 0.5 + (n % 3) as f64);
    let mut plateau = ReduceLearningRate::new(0.6, 1)?;
    plateau.cooldown = 1;
    let mut log = CsvLog::new(folder.join("log.csv"));
    let mut best = Checkpoint::new(folder.join("best.safetensors")).best_only(true);
    let options = FitOptions {
        epochs: 9,
        batch_size: 8,
        validation_split: 0.2,
        sample_weight: vec![(&weights).into()],
        early_stopping: Some(EarlyStopping { patience: 4, min_delta: 0.001, restore_best_weights: true }),
        callbacks: vec![&mut plateau, &mut log, &mut best, interruption],
        backup,
        ..FitOptions::default()
    };
    model.fit(&x, &y, options)
}

/// States that go from batch to batch, from epoch to epoch, through the validation too.
fn stateful() -> Model {
    let mut model = stack(vec![
        Lstm::new(3).stateful(true).return_sequences(true).into(),
        Gru::new(3).stateful(true).zoneout(0.2).into(),
        Dense::new(1).into(),
    ]);
    model.compile(RmsProp::new(0.01).unwrap(), Loss::MeanSquaredError).unwrap();
    model
}

fn fit_stateful(
    model: &mut Model,
    _: &Path,
    backup: Option<BackupAndRestore>,
    interruption: &mut Interruption,
) -> Result<History> {
    let (x, y) = data(24);
    let (held, held_y) = (x.slice(s![..8, .., ..]), y.slice(s![..8, ..]));
    let options = FitOptions {
        epochs: 5,
        batch_size: 4,
        shuffle: false,
        validation_data: Some((vec![held.into()], vec![held_y.into()])),
        clip: Some(Clip::Norm(0.5)),
        callbacks: vec![interruption],
        backup,
        ..FitOptions::default()
    };
    model.fit(&x, &y, options)
}

/// A schedule by steps, and batches that an iterator gives, of two lengths, without saying how many.
fn of_any_length() -> Model {
    let mut graph = Graph::new(cpu(), 3);
    let input = graph.input("input", &[None, Some(2)]).unwrap();
    let states = graph.add(Lstm::new(4).stateful(true), &[&input]).unwrap();
    let dropped = graph.add(Dropout::new(0.4), &[&states]).unwrap();
    let output = graph.add(Dense::new(1), &[&dropped]).unwrap();
    let mut model = graph.model(&[&output]).unwrap();
    model.compile(Sgd::new(0.1).unwrap().momentum(0.9, true).unwrap(), Loss::MeanSquaredError).unwrap();
    model.schedule(Schedule::exponential(0.1, 5, 0.8).unwrap()).unwrap();
    model
}

fn fit_batches(
    model: &mut Model,
    folder: &Path,
    backup: Option<BackupAndRestore>,
    interruption: &mut Interruption,
) -> Result<History> {
    let (x, y) = data(24);
    let mut log = CsvLog::new(folder.join("log.csv"));
    let options = FitOptions { epochs: 5, callbacks: vec![&mut log, interruption], backup, ..FitOptions::default() };
    let batches = |epoch: usize| {
        let (x, y) = (x.clone(), y.clone());
        let numbers = (0..6).filter(move |number| !(number + epoch).is_multiple_of(6));
        Ok(numbers.map(move |number| {
            let samples = number * 4..(number + 1) * 4;
            let steps = if number % 2 == 0 { 5 } else { 3 };
            Ok((x.slice(s![samples.clone(), ..steps, ..]).to_owned(), y.slice(s![samples, ..]).to_owned()))
        }))
    };
    model.fit_batches(batches, options)
}

/// Its loss scale is too large in `f32` for the first batches, which make no step.
fn scaled() -> Model {
    let mut model = stack_on(common::cpu(DType::F32), vec![Lstm::new(3).into(), Dense::new(1).into()]);
    model.compile(Adam::new(0.01).unwrap(), Loss::MeanSquaredError).unwrap();
    model.set_loss_scale(Some(LossScale::new(1e30, 7).unwrap()));
    model
}

fn fit_scaled(
    model: &mut Model,
    _: &Path,
    backup: Option<BackupAndRestore>,
    interruption: &mut Interruption,
) -> Result<History> {
    let (x, y) = data(24);
    let options =
        FitOptions { epochs: 3, batch_size: 4, callbacks: vec![interruption], backup, ..FitOptions::default() };
    model.fit(&x, &(y + 1e10), options)
}

const CASES: [Case; 4] = [
    Case { name: "everything", make: with_everything, fit: fit_everything },
    Case { name: "stateful", make: stateful, fit: fit_stateful },
    Case { name: "batches", make: of_any_length, fit: fit_batches },
    Case { name: "scaled", make: scaled, fit: fit_scaled },
];

/// Everything that a training leaves: files, and the history.
fn left(case: &Case, model: &Model, history: &History, folder: &Path) -> Vec<(String, Vec<u8>)> {
    model.save(folder.join("model.safetensors")).unwrap();
    let mut all = vec![(format!("history of {}", case.name), format!("{history:?}").into_bytes())];
    for name in ["model.safetensors", "log.csv", "best.safetensors"] {
        all.push((name.to_owned(), std::fs::read(folder.join(name)).unwrap_or_default()));
    }
    all
}

fn uninterrupted(case: &Case) -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let mut model = (case.make)();
    let history = (case.fit)(&mut model, folder.path(), None, &mut Interruption::default()).unwrap();
    left(case, &model, &history, folder.path())
}

/// Trains in as many processes as it takes, and says what is left and how many those were.
fn interrupted(
    case: &Case,
    backup: impl Fn(BackupAndRestore) -> BackupAndRestore,
    interruption: impl Fn(usize) -> Interruption,
) -> (Vec<(String, Vec<u8>)>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    for process in 0..100 {
        let mut model = (case.make)();
        let backup = Some(backup(BackupAndRestore::new(&path)));
        match (case.fit)(&mut model, folder.path(), backup, &mut interruption(process)) {
            Ok(history) if history.outcome == Outcome::Interrupted => assert!(path.exists()),
            Ok(history) => {
                assert!(!path.exists(), "{}: the checkpoint is left", case.name);
                return (left(case, &model, &history, folder.path()), process);
            }
            Err(error) => assert!(matches!(error, Error::Other(_)), "{}: {error}", case.name),
        }
    }
    panic!("{}: it never ended", case.name);
}

fn assert_same(got: &[(String, Vec<u8>)], expected: &[(String, Vec<u8>)], how: &str) {
    for ((name, got), (_, expected)) in got.iter().zip(expected) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(2000).collect::<String>();
        assert!(got == expected, "{how}: {name} differs:\n{}\n{}", text(got), text(expected));
    }
}

#[test]
fn interrupted_trainings_end_with_the_same_bits() {
    for case in &CASES {
        let expected = uninterrupted(case);
        // A backup changes nothing.
        let (got, processes) = interrupted(case, |backup| backup, |_| Interruption::default());
        assert_eq!(processes, 0);
        assert_same(&got, &expected, "with a backup");
        for every in [1, 2, 3, 7] {
            let stop = |_| Interruption { after_batches: Some(every), ..Interruption::default() };
            let (got, processes) = interrupted(case, |backup| backup, stop);
            assert!(processes > 1);
            assert_same(&got, &expected, &format!("stopped after every {every} batches"));
        }
        let stop = |_| Interruption { after_epochs: Some(2), ..Interruption::default() };
        assert_same(&interrupted(case, |backup| backup, stop).0, &expected, "stopped after every second epoch");
        // What fails writes nothing more: it goes on from the last checkpoint that was due.
        let fail = |process| Interruption {
            failing_after_epochs: (process < 4).then_some(1 + process),
            ..Interruption::default()
        };
        for save_freq in [
            SaveFrequency::Epochs(1),
            SaveFrequency::Epochs(2),
            SaveFrequency::Batches(3),
            SaveFrequency::Time(Duration::ZERO),
            SaveFrequency::Time(Duration::MAX),
        ] {
            let (got, _) = interrupted(case, |backup| backup.save_freq(save_freq), fail);
            assert_same(&got, &expected, &format!("failing, saved after {save_freq:?}"));
        }
    }
}

/// As in a notebook: the model is the one that was interrupted.
#[test]
fn a_model_at_hand_goes_on_too() {
    for case in &CASES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let mut model = (case.make)();
        let mut stop = Interruption { after_batches: Some(8), ..Interruption::default() };
        let backup = || Some(BackupAndRestore::new(&path));
        (case.fit)(&mut model, folder.path(), backup(), &mut stop).unwrap();
        let history = (case.fit)(&mut model, folder.path(), backup(), &mut Interruption::default()).unwrap();
        assert_same(&left(case, &model, &history, folder.path()), &uninterrupted(case), "in one process");
    }
}

#[test]
fn a_checkpoint_that_stays_holds_the_end() {
    let case = &CASES[0];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let backup = || Some(BackupAndRestore::new(&path).delete_checkpoint(false));
    let mut first = (case.make)();
    let history = (case.fit)(&mut first, folder.path(), backup(), &mut Interruption::default()).unwrap();
    let expected = left(case, &first, &history, folder.path());
    let mut again = (case.make)();
    // Nothing is trained.
    let mut stop = Interruption { after_batches: Some(1), ..Interruption::default() };
    let history = (case.fit)(&mut again, folder.path(), backup(), &mut stop).unwrap();
    assert_same(&left(case, &again, &history, folder.path()), &expected, "from the end");
}

/// A stack with a frozen layer.
fn half_frozen() -> Sequential {
    let mut model = Sequential::new(cpu(), &[2], 1).unwrap();
    model.add(Dense::new(3)).unwrap().add(Dense::new(1)).unwrap();
    model.set_trainable("dense", false).unwrap();
    model
}

type Change = fn(&mut Sequential, &mut FitOptions<'_>, &mut Array2<f64>);

/// Three epochs of it with a change, stopped after so many.
fn fit_changed(path: &Path, cell: &str, change: Change, epochs: usize) -> Result<History> {
    let mut x = Array2::from_shape_fn((6, 2), |(n, f)| (n * 2 + f) as f64 / 12.0);
    let y = Array2::from_elem((6, 1), 0.5);
    let mut model = half_frozen();
    let mut stop = Interruption { after_epochs: Some(epochs), ..Interruption::default() };
    let backup = Some(BackupAndRestore::new(path).setting("--cell", cell).setting_of_bytes("file", b"1,2\n"));
    let mut options = FitOptions { epochs: 3, backup, ..FitOptions::default() };
    change(&mut model, &mut options, &mut x);
    options.callbacks.push(&mut stop);
    model.fit(&x, &y, options)
}

#[test]
fn other_settings_are_refused_by_their_name() {
    let cases: [(&str, Change); 15] = [
        ("option batch_size: expected 32, as in the training that", |_, options, _| options.batch_size = 2),
        ("option shuffle: expected true", |_, options, _| options.shuffle = false),
        ("option clip: expected None", |_, options, _| options.clip = Some(Clip::Value(1.0))),
        ("option validation_split", |_, options, _| options.validation_split = 0.5),
        ("option monitor", |_, options, _| options.monitor = Some("loss")),
        ("option early_stopping", |_, options, _| options.early_stopping = Some(EarlyStopping::new(3))),
        ("option x: expected [6, 2], 96 bytes with the fingerprint", |_, _, x| x[[5, 1]] += 1e-12),
        ("option layers: expected 2", |model, _, _| {
            model.add(Dense::new(1)).unwrap();
        }),
        ("option layers: expected 2", |model, _, _| {
            model.set_all_trainable(true).unwrap();
        }),
        ("option frozen weights", |model, _, _| {
            model.set_weight("dense.weight", &[0.5; 6]).unwrap();
        }),
        ("option losses", |model, _, _| {
            model.compile(Adam::default(), Loss::MeanAbsoluteError).unwrap();
        }),
        ("option optimizer", |model, _, _| {
            model.compile(Sgd::new(0.001).unwrap(), Loss::MeanSquaredError).unwrap();
        }),
        ("option learning_rate: expected 0.001, as", |model, _, _| {
            model.compile(Adam::new(0.5).unwrap(), Loss::MeanSquaredError).unwrap();
        }),
        ("option schedule: expected null", |model, _, _| {
            model.schedule(Schedule::exponential(0.1, 5, 0.5).unwrap()).unwrap();
        }),
        ("option metrics: expected []", |model, _, _| {
            model.metrics(&[Metric::MeanAbsoluteError]);
        }),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    fit_changed(&path, "lstm", |_, _, _| (), 1).unwrap();
    let before = std::fs::read(&path).unwrap();
    let check = |error: Error, expected: &str| {
        let text = error.to_string();
        assert!(matches!(error, Error::InvalidOption { .. }) && text.contains(expected), "{expected}: {text}");
        assert!(text.contains("remove that file to begin anew"), "{text}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    };
    for (expected, change) in cases {
        check(fit_changed(&path, "lstm", change, 1).unwrap_err(), expected);
    }
    check(fit_changed(&path, "gru", |_, _, _| (), 1).unwrap_err(), "option --cell: expected lstm, as in");
    // It is still good for the right training.
    assert_eq!(fit_changed(&path, "lstm", |_, _, _| (), 9).unwrap().outcome, Outcome::Finished);
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    fit_changed(&path, "lstm", |_, _, _| (), 1).unwrap();
    let good = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = fit_changed(&path, "lstm", |_, _, _| (), 1).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains("not a usable checkpoint file") && text.contains("remove it to begin anew"), "{text}");
    };
    for at in (0..good.len()).step_by(11) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes, &format!("bit at {at}"));
        refused(&good[..at], &format!("cut at {at}"));
    }
    half_frozen().save(&path).unwrap();
    refused(&std::fs::read(&path).unwrap(), "a model");
    std::fs::write(&path, good).unwrap();
    fit_changed(&path, "lstm", |_, _, _| (), 9).unwrap();
}

#[test]
fn what_cannot_be_kept_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let refused = |change: Change, expected: &str| {
        let text = fit_changed(&path, "lstm", change, 1).unwrap_err().to_string();
        assert!(text.contains(expected) && !path.exists(), "{text}");
    };
    refused(
        |_, options, _| options.backup = Some(BackupAndRestore::new("no/such/folder/checkpoint")),
        "cannot create a file beside no/such/folder/checkpoint",
    );
    refused(
        |_, options, _| {
            options.backup = Some(BackupAndRestore::new("checkpoint").save_freq(SaveFrequency::Epochs(0)));
        },
        "save_freq",
    );
    // The other has gone: it is not waited for.
    let first = thread_ranks(2).unwrap().swap_remove(0);
    let (x, y) = data(8);
    let backup = Some(BackupAndRestore::new(&path));
    let options = FitOptions { backup, ranks: Some(&first), ..FitOptions::default() };
    let error = stateful().fit(&x, &y, options).unwrap_err();
    assert!(error.to_string().contains("backup of a training on several ranks is not supported"), "{error}");
}

/// A training that diverges does so again from its checkpoint, and its model has the weights of the best epoch both times.
#[test]
fn a_training_that_diverges_does_so_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let (x, y) = data(8);
    let mut results = Vec::new();
    for backup in [false, true, true] {
        let mut model = stateful();
        model.compile(Sgd::new(1e3).unwrap(), Loss::MeanSquaredError).unwrap();
        let backup = backup.then(|| BackupAndRestore::new(&path));
        let error =
            model.fit(&x, &(&y * 1e30), FitOptions { epochs: 50, backup, ..FitOptions::default() }).unwrap_err();
        assert!(matches!(error, Error::Diverged { .. }), "{error}");
        results.push((error.to_string(), crate::weights(&model)));
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

/// The oracle and single precision keep their bits too.
#[test]
fn other_devices_go_on_too() {
    for device in [common::cpu(DType::F32), common::reference(DType::F32), common::reference(DType::F64)] {
        let (x, y) = data(12);
        let train = |path: Option<&Path>, batches: Option<usize>| {
            let mut model = Sequential::new(device.clone(), &[5, 2], 2).unwrap();
            model.add(Gru::new(3)).unwrap().add(Dropout::new(0.5)).unwrap().add(Dense::new(1)).unwrap();
            let mut stop = Interruption { after_batches: batches, ..Interruption::default() };
            let backup = path.map(BackupAndRestore::new);
            let options = FitOptions { epochs: 4, batch_size: 5, backup, ..FitOptions::default() };
            let history = model.fit(&x, &y, FitOptions { callbacks: vec![&mut stop], ..options }).unwrap();
            (crate::weights(&model), history)
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        train(Some(&path), Some(5));
        assert_eq!(train(Some(&path), None), train(None, None));
    }
}

/// A training of so many epochs with all that a checkpoint keeps, stopped after so many batches of this process: its weights and its history.
fn of_epochs(path: Option<&Path>, epochs: usize, patience: usize, batches: Option<usize>) -> (Vec<f64>, History) {
    let (x, y) = data(20);
    let mut model = stack(vec![
        Lstm::new(3).into(),
        BatchNormalization::new().into(),
        Dropout::new(0.3).into(),
        Dense::new(1).into(),
    ]);
    model.compile(Adam::new(0.02).unwrap(), Loss::MeanSquaredError).unwrap();
    let mut stop = Interruption { after_batches: batches, ..Interruption::default() };
    let options = FitOptions {
        epochs,
        batch_size: 8,
        validation_split: 0.2,
        // So much better no epoch is.
        early_stopping: Some(EarlyStopping { patience, min_delta: 1e3, restore_best_weights: true }),
        callbacks: vec![&mut stop],
        backup: path.map(|path| BackupAndRestore::new(path).delete_checkpoint(false)),
        ..FitOptions::default()
    };
    let history = model.fit(&x, &y, options).unwrap();
    (crate::weights(&model), history)
}

/// As with Keras's callback one may go on to more epochs, to the bits of a training that had them from the beginning.
#[test]
fn more_epochs_than_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let expected = of_epochs(None, 9, 100, None);
    // From the end, from the middle of an epoch, from the end of one; to fewer than were asked for too.
    for (before, batches) in [(4, None), (4, Some(5)), (4, Some(4)), (50, Some(7))] {
        of_epochs(Some(&path), before, 100, batches);
        assert_eq!(of_epochs(Some(&path), 9, 100, None), expected, "after {before} epochs, {batches:?}");
        // Once more it is there at once, and goes on from there.
        assert_eq!(of_epochs(Some(&path), 9, 100, Some(1)), expected);
        assert_eq!(of_epochs(Some(&path), 11, 100, None), of_epochs(None, 11, 100, None));
        std::fs::remove_file(&path).unwrap();
    }
    // A training that would have ended before does so: whether it had no more epochs, or was stopped just there.
    let expected = of_epochs(None, 9, 2, None);
    assert_eq!((expected.1.outcome, expected.1.loss.len()), (Outcome::EarlyStopped, 3));
    for batches in [None, Some(6)] {
        let first = of_epochs(Some(&path), 3, 2, batches).1;
        assert_ne!(first.outcome, Outcome::EarlyStopped);
        assert_eq!(of_epochs(Some(&path), 9, 2, None), expected, "{batches:?}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn no_fewer_epochs_than_are_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    for (stopped, done) in [(2, "expected at least 2, as in the training that"), (1, "")] {
        fit_changed(&path, "lstm", |_, _, _| (), stopped).unwrap();
        let again = fit_changed(&path, "lstm", |_, options, _| options.epochs = 1, 9);
        match again {
            Ok(history) => assert_eq!((done, history.loss.len()), ("", 1)),
            Err(error) => assert!(!done.is_empty() && error.to_string().contains(done), "{error}"),
        }
        let _ = std::fs::remove_file(&path);
    }
}
