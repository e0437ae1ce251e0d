//! Checkpoints with a right fingerprint whose content cannot be.

use std::ops::ControlFlow;
use std::path::Path;

use ndarray::{Array2, Array3};

use super::position::{self, Bits, Position};
use super::{BackupAndRestore, SaveFrequency};
use crate::backend::{Device, Tensor};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::metrics::Metric;
use crate::model::{BatchEnd, Callback, FitOptions, History, Outcome, ReduceLearningRate, Sequential, Training};
use crate::nn::{Dense, Lstm};

struct StopAfter(usize);

impl Callback for StopAfter {
    fn on_batch_end(&mut self, state: &BatchEnd<'_>) -> ControlFlow<()> {
        if state.epoch == 2 && state.batch == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Three epochs of four batches, with states, a metric and a callback that waits. What is refused leaves all as it was.
fn fit(path: &Path, stop: usize) -> Result<History> {
    let x = Array3::from_shape_fn((8, 3, 1), |(n, t, _)| (n * 3 + t) as f64 / 24.0);
    let y = Array2::from_elem((8, 1), 0.5);
    let mut model = Sequential::new(Device::cpu().with_dtype(DType::F64)?, &[3, 1], 1)?;
    model.add(Lstm::new(2).stateful(true))?.add(Dense::new(1))?;
    model.metrics(&[Metric::R2Score]);
    let (mut plateau, mut stop) = (ReduceLearningRate::new(0.5, 1)?, StopAfter(stop));
    let backup = BackupAndRestore::new(path).save_freq(SaveFrequency::Epochs(100));
    let callbacks: Vec<&mut dyn Callback> = vec![&mut plateau, &mut stop];
    let options = FitOptions { epochs: 3, batch_size: 2, backup: Some(backup), callbacks, ..FitOptions::default() };
    let before = format!("{:?}", model.flat_weights::<f64>()?);
    let trained = model.fit(&x, &y, options);
    if trained.is_err() {
        assert_eq!(before, format!("{:?}", model.flat_weights::<f64>()?));
        assert_eq!(model.learning_rate(), 0.001);
        assert_eq!(plateau.state(), ReduceLearningRate::new(0.5, 1)?.state());
        assert!(model.network.carried_batches().next().is_none());
    }
    trained
}

/// The tensors of a checkpoint.
type Tensors = Vec<(String, Tensor)>;

#[test]
fn what_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    fit(&path, 2).unwrap();
    let good = std::fs::read(&path).unwrap();
    let refused = |what: &str, change: &dyn Fn(&mut Position, &mut Tensors)| {
        std::fs::write(&path, &good).unwrap();
        let (mut position, file) = position::read(&path).unwrap().unwrap();
        let tensor = |name: &str| {
            let len = file.shape(name).unwrap()[0];
            (name.to_owned(), position::tensor(&file, name, DType::F64, len).unwrap())
        };
        let mut tensors: Tensors = file.names().map(tensor).collect();
        change(&mut position, &mut tensors);
        let views: Vec<_> = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.view())).collect();
        position::write(&path, &position, &views).unwrap();
        let again = fit(&path, usize::MAX);
        assert!(
            matches!(again, Err(Error::Format { .. } | Error::Presence { .. } | Error::InvalidOption { .. })),
            "{what}: {again:?}"
        );
    };
    refused("another version", &|p, _| p.version = 2);
    refused("an epoch too many", &|p, _| p.history.loss.push(Bits(0.0)));
    refused("a best epoch that is none", &|p, _| p.history.best_epoch = Some(7));
    refused("more epochs than there are", &|p, _| {
        let metrics = p.history.metrics.iter_mut().map(|(_, values)| values);
        [&mut p.history.loss, &mut p.history.learning_rate].into_iter().chain(metrics).for_each(|values| {
            values.resize_with(4, || Bits(0.0));
        });
    });
    refused("other samples than batches", &|p, _| p.begun.as_mut().unwrap().samples = 3);
    refused("more batches than there are", &|p, _| p.begun.as_mut().unwrap().batches = 100);
    refused("endless batches", &|p, _| p.begun.as_mut().unwrap().batches = usize::MAX);
    refused("no metric", &|p, _| p.begun.as_mut().unwrap().metrics.clear());
    refused("a metric of no sums", &|p, _| p.begun.as_mut().unwrap().metrics[0][0].clear());
    refused("a metric of half a sum", &|p, _| {
        p.begun.as_mut().unwrap().metrics[0][0].pop();
    });
    refused("steps without number", &|p, _| p.steps = u64::MAX);
    refused("batches without number", &|p, _| p.batches = u64::MAX);
    refused("a rate that is none", &|p, _| p.learning_rate = Bits(f64::NAN));
    refused("a callback's other words", &|p, _| p.callbacks[0] = Some("1 2".to_owned()));
    refused("a callback's large number", &|p, _| p.callbacks[0] = Some("1 2 99999999999999999999".to_owned()));
    refused("no carried states", &|p, _| p.carried.clear());
    refused("other carried states", &|p, _| p.carried[0] = Some((2, 1)));
    refused("carried states without number", &|p, _| p.carried[0] = Some((2, usize::MAX)));
    refused("carried states of many rows", &|p, _| p.carried[0] = Some((usize::MAX, 2)));
    refused("carried states of no rows", &|p, _| p.carried[0] = Some((0, 2)));
    refused("carried states of half a batch", &|p, tensors| {
        p.carried[0] = p.carried[0].map(|(_, count)| (1, count));
        let half = || Tensor::on_host("carried", DType::F64, 2).unwrap();
        tensors.iter_mut().filter(|(name, _)| name.starts_with("carried.0")).for_each(|(_, tensor)| *tensor = half());
    });
    refused("epochs without number", &|p, _| p.epochs = u32::MAX);
    refused("a loss scale of none", &|p, _| p.loss_scale = Some(Default::default()));
    refused("a metric of another name", &|p, _| p.history.metrics[0].0 = "mae".to_owned());
    refused("a validation", &|p, _| p.history.val_loss = vec![Bits(0.0)]);
    refused("an end in the middle", &|p, _| p.ended = true);
    refused("an end that is an interruption", &|p, _| {
        (p.ended, p.begun) = (true, None);
        p.history.outcome = Outcome::Interrupted;
    });
    refused("an epoch of no batches", &|p, _| p.begun.as_mut().unwrap().batches = 0);
    refused("a look ahead", &|p, _| p.begun.as_mut().unwrap().looked = 3);
    refused("a loss that is none", &|p, _| p.begun.as_mut().unwrap().status[1] = Bits(f64::NAN));
    refused("a loss that was bad", &|p, _| p.begun.as_mut().unwrap().status[2] = Bits(1.0));
    refused("a metric of other columns", &|p, _| p.begun.as_mut().unwrap().metrics[0][0][0] = Bits(2.0));
    refused("a metric of half a row", &|p, _| p.begun.as_mut().unwrap().metrics[0][0][1] = Bits(1.5));
    for name in ["weights", "best.weights"] {
        refused("weights that are none", &|_, tensors| {
            let (_, tensor) = tensors.iter_mut().find(|(other, _)| other == name).unwrap();
            tensor.view_mut().host::<f64>().unwrap()[1] = f64::INFINITY;
        });
    }
    refused("no weights", &|_, tensors| tensors.retain(|(name, _)| name != "weights"));
    refused("no memory of the optimizer", &|_, tensors| tensors.retain(|(name, _)| name != "optimizer.1"));
    refused("other best weights", &|_, tensors| {
        let other = || Tensor::on_host("best", DType::F64, 3).unwrap();
        tensors.iter_mut().filter(|(name, _)| name == "best.weights").for_each(|(_, tensor)| *tensor = other());
    });
    std::fs::write(&path, &good).unwrap();
    assert_eq!(fit(&path, usize::MAX).unwrap().loss.len(), 3);
}
