//! Training and evaluation on batches of an iterator: the bits of `fit` on arrays, and what is refused.

use std::cell::Cell;
use std::ops::ControlFlow;

use crate::{cpu, weights};
use fused_rnn::data::TimeseriesDataset;
use fused_rnn::metrics::Metric;
use fused_rnn::model::*;
use fused_rnn::nn::*;
use fused_rnn::optim::{Adam, Sgd};
use fused_rnn::{DType, Error, Result};
use ndarray::{Array1, Array2, Array3, Axis, Slice, s};

fn x(samples: usize) -> Array3<f64> {
    Array3::from_shape_fn((samples, 5, 2), |(n, t, c)| match (n + t) % 7 {
        0 => 0.0,
        _ => ((n * 10 + t * 2 + c) as f64 * 0.37).sin(),
    })
}

fn classes(samples: usize) -> Array1<f64> {
    Array1::from_shape_fn(samples, |n| ((n * 5 + 1) % 3) as f64)
}

/// Dropout, statistics, masks, penalties, metrics, a schedule.
fn model() -> Sequential {
    let mut model = Sequential::new(cpu(), &[5, 2], 3).unwrap();
    model.add(Masking::new(0.0)).unwrap().add(Dropout::new(0.2)).unwrap();
    model.add(Lstm::new(4).recurrent_regularizer(Regularizer::l2(1e-3))).unwrap();
    model.add(BatchNormalization::new()).unwrap();
    model.add(Dense::new(3).activation(ActivationFunction::Softmax)).unwrap();
    model.compile(Adam::default(), Loss::SparseCategoricalCrossentropy { from_logits: false }).unwrap();
    model.metrics(&[Metric::Accuracy]).weighted_metrics(&[Metric::Accuracy]);
    model
}

/// Samples in parts of so many.
fn parts<D: ndarray::RemoveAxis>(
    array: &ndarray::Array<f64, D>,
    size: usize,
) -> impl Iterator<Item = ndarray::Array<f64, D>> + Clone + '_ {
    let len = array.len_of(Axis(0));
    (0..len.div_ceil(size))
        .map(move |i| array.slice_axis(Axis(0), Slice::from(i * size..((i + 1) * size).min(len))).to_owned())
}

#[test]
fn batches_train_with_the_bits_of_arrays() {
    let (x, y, more, of_more) = (x(22), classes(22), x(9), classes(9));
    let sample_weight = Array1::from_shape_fn(22, |n| 0.5 + (n % 4) as f64 * 0.25);
    let folder = tempfile::tempdir().unwrap();
    let options = || FitOptions {
        epochs: 5,
        batch_size: 4,
        shuffle: false,
        class_weight: vec![(1, 2.0)],
        monitor: Some("val_accuracy"),
        early_stopping: Some(EarlyStopping { patience: 2, min_delta: 0.0, restore_best_weights: true }),
        clip: Some(Clip::Norm(1.0)),
        ..FitOptions::default()
    };
    let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
    let mut arrays = model();
    arrays.inference_batch_size(4).unwrap();
    let mut checkpoint = Checkpoint::new(&theirs);
    let history = arrays
        .fit(
            &x,
            &y,
            FitOptions {
                sample_weight: vec![(&sample_weight).into()],
                validation_data: Some((vec![(&more).into()], vec![(&of_more).into()])),
                callbacks: vec![&mut checkpoint],
                ..options()
            },
        )
        .unwrap();
    assert!(history.val_loss.len() > 2 && history.get("weighted_accuracy").is_some());

    let mut batches = model();
    batches.inference_batch_size(4).unwrap();
    let mut checkpoint = Checkpoint::new(&ours);
    let epochs = Cell::new(0);
    let given = batches
        .fit_batches(
            |epoch| {
                epochs.set(epochs.get() + 1);
                assert_eq!(epoch, epochs.get());
                let all = parts(&x, 4).zip(parts(&y, 4)).zip(parts(&sample_weight, 4));
                Ok(all.map(|((x, y), weights)| Ok((x, y, weights))))
            },
            FitOptions {
                validation_batches: Some(Batches::new(|_| Ok(parts(&more, 4).zip(parts(&of_more, 4)).map(Ok)))),
                callbacks: vec![&mut checkpoint],
                ..options()
            },
        )
        .unwrap();
    assert_eq!((given, weights(&batches)), (history.clone(), weights(&arrays)));
    assert_eq!(epochs.get(), history.loss.len());
    assert_eq!(std::fs::read(ours).unwrap(), std::fs::read(theirs).unwrap());

    // Validation on arrays beside batches, whose inputs are borrowed, in f32, of which the model makes its own type.
    let mut mixed = model();
    mixed.inference_batch_size(4).unwrap();
    let single = sample_weight.mapv(|w| w as f32);
    let given = mixed.fit_batches(
        |_| {
            Ok((0..22usize).step_by(4).map(|n| {
                let rows = s![n..(n + 4).min(22)];
                let x = x.slice_axis(Axis(0), Slice::from(n..(n + 4).min(22)));
                Ok(Batch::new(x, y.slice(rows)).sample_weight(single.slice(rows)))
            }))
        },
        FitOptions { validation_data: Some((vec![(&more).into()], vec![(&of_more).into()])), ..options() },
    );
    assert_eq!((given.unwrap(), weights(&mixed)), (history, weights(&arrays)));
}

#[test]
fn batches_of_several_inputs_and_outputs() {
    let build = || {
        let mut graph = Graph::new(cpu(), 5);
        let (a, b) = (graph.input("left", &[5, 2]).unwrap(), graph.input("right", &[3]).unwrap());
        let h = graph.add(Gru::new(4), &[&a]).unwrap();
        let both = graph.add(Concatenate::new(), &[&h, &b]).unwrap();
        let y = graph.add(Dense::new(2), &[&both]).unwrap();
        let z = graph.add(Dense::new(1), &[&both]).unwrap();
        let mut model = graph.model(&[&y, &z]).unwrap();
        model.compile(Sgd::new(0.1).unwrap(), Loss::MeanSquaredError).unwrap();
        model
    };
    let b = Array2::from_shape_fn((10, 3), |(n, c)| (n * c) as f64 * 0.1);
    let (y, z) = (Array2::from_elem((10, 2), 0.5), Array2::from_elem((10, 1), -0.5));
    let by_output = [Array1::from_elem(10, 2.0), Array1::from_elem(10, 0.5)];
    let a = x(10);
    let mut arrays = build();
    let options = || FitOptions { epochs: 2, batch_size: 3, shuffle: false, ..FitOptions::default() };
    let sample_weight = by_output.iter().map(Into::into).collect();
    let of = FitOptions { sample_weight, ..options() };
    let history =
        arrays.fit(vec![a.view().into_dyn(), b.view().into_dyn()], vec![y.view().into_dyn(), z.view().into_dyn()], of);
    let mut batches = build();
    let given = batches.fit_batches(
        |_| {
            let inputs = parts(&a, 3).zip(parts(&b, 3));
            let outputs = parts(&y, 3).zip(parts(&z, 3));
            let given = parts(&by_output[0], 3).zip(parts(&by_output[1], 3));
            Ok(inputs.zip(outputs).zip(given).map(|(((a, b), (y, z)), (u, v))| {
                let batch = Batch::of_many(vec![a.into(), b.into()], vec![y.into(), z.into()]);
                Ok(batch.sample_weights(vec![u.into(), v.into()]))
            }))
        },
        options(),
    );
    assert_eq!((given.unwrap(), weights(&batches)), (history.unwrap(), weights(&arrays)));

    let wrong = build()
        .fit_batches(
            |_| {
                Ok((0..3).map(|n| {
                    let b = Array2::<f64>::zeros((4, if n == 2 { 2 } else { 3 }));
                    let (y, z) = (Array2::<f64>::zeros((4, 2)), Array2::<f64>::zeros((4, 1)));
                    Ok(Batch::of_many(vec![x(4).into(), b.into()], vec![y.into(), z.into()]))
                }))
            },
            FitOptions::default(),
        )
        .unwrap_err();
    assert!(matches!(&wrong, Error::Shape { tensor, .. } if tensor == "epoch 1, batch 3: x of right"), "{wrong}");
}

#[test]
fn the_number_of_batches_is_told_as_soon_as_it_is_known() {
    #[derive(Default)]
    struct Watch(Vec<[usize; 2]>, Vec<usize>);
    impl Callback for Watch {
        fn on_epoch_begin(&mut self, state: &EpochBegin, _: &mut dyn Training) -> Result<()> {
            self.1.push(state.batches);
            Ok(())
        }

        fn on_batch_end(&mut self, state: &BatchEnd) -> ControlFlow<()> {
            self.0.push([state.batch, state.batches]);
            ControlFlow::Continue(())
        }
    }
    let (x, y) = (x(6), classes(6));
    let known = |filtered: bool| {
        let (mut watch, mut bar) = (Watch::default(), ProgressBar::to_writer(Vec::new(), true));
        let options = FitOptions { epochs: 2, callbacks: vec![&mut watch, &mut bar], ..FitOptions::default() };
        let all = || parts(&x, 4).zip(parts(&y, 4)).map(Ok);
        let mut model = model();
        match filtered {
            false => model.fit_batches(|_| Ok(all()), options),
            true => model.fit_batches(|_| Ok(all().filter(|_| true)), options),
        }
        .unwrap();
        (watch.0, watch.1)
    };
    assert_eq!(known(false), (vec![[1, 2], [2, 2], [1, 2], [2, 2]], vec![2, 2]));
    assert_eq!(known(true), (vec![[1, 0], [2, 0], [1, 2], [2, 2]], vec![0, 2]));
}

/// One epoch on batches that the closure changes.
fn refused(change: impl Fn(usize, Batch<'static>) -> Result<Batch<'static>>) -> (Error, Vec<f64>, Vec<f64>) {
    let mut model = model();
    let before = weights(&model);
    let error = model
        .fit_batches(|_| Ok((1..=3).map(|number| change(number, Batch::new(x(4), classes(4))))), FitOptions::default())
        .unwrap_err();
    (error, before, weights(&model))
}

#[test]
fn a_batch_that_cannot_be_is_named() {
    let at_two = |number: usize, batch, other: Batch<'static>| Ok(if number == 2 { other } else { batch });
    let shape = |other: Batch<'static>| refused(|number, batch| at_two(number, batch, other.clone())).0;
    let error = shape(Batch::new(Array3::<f64>::zeros((4, 6, 2)), classes(4)));
    assert_eq!(
        error.to_string(),
        "epoch 1, batch 2: x: expected [samples, 5, 2] (samples, then the model's input shape), got [4, 6, 2]"
    );
    let error = shape(Batch::new(x(4), Array2::<f64>::zeros((4, 2))));
    assert!(error.to_string().starts_with("epoch 1, batch 2: y: expected [samples]"), "{error}");
    let error = shape(Batch::new(x(4), classes(3)));
    assert!(error.to_string().starts_with("epoch 1, batch 2: y: expected 4 samples"), "{error}");
    let error = shape(Batch::new(x(0), classes(0)));
    assert_eq!(error.to_string(), "epoch 1, batch 2: x: expected at least one sample, got [0, 5, 2]");
    let error = shape(Batch::of_many(Vec::new(), vec![classes(4).into()]));
    assert!(error.to_string().starts_with("epoch 1, batch 2: x: expected 1 arrays"), "{error}");
    let error = shape(Batch::new(x(4), classes(4)).sample_weight(Array1::from_elem(4, f64::NAN)));
    assert!(error.to_string().starts_with("epoch 1, batch 2: sample_weight: NaN"), "{error}");
    let error = shape(Batch::new(x(4), classes(4)).sample_weight(Array1::from_elem(5, 1.0)));
    assert!(error.to_string().starts_with("epoch 1, batch 2: sample_weight: expected [4]"), "{error}");
    // The first batch was trained on, and its step stays.
    let (_, before, after) = refused(|n, batch| at_two(n, batch, Batch::new(x(0), classes(0))));
    assert_ne!(before, after);
    // In f32 a number may be too large.
    let mut single = Sequential::new(crate::common::cpu(DType::F32), &[1], 1).unwrap();
    single.add(Dense::new(1)).unwrap();
    let large = || (Array2::from_elem((2, 1), 1e300), Array2::from_elem((2, 1), 0.0));
    let error = single.fit_batches(|_| Ok([Ok(large())]), FitOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("epoch 1, batch 1: x: "), "{error}");
    // Of the validation too.
    let options = FitOptions {
        validation_batches: Some(Batches::new(|_| Ok([Ok((x(4), classes(3)))]))),
        ..FitOptions::default()
    };
    let error = model().fit_batches(|_| Ok([Ok((x(4), classes(4)))]), options).unwrap_err();
    assert!(error.to_string().starts_with("epoch 1, validation batch 1: y"), "{error}");
}

#[test]
fn what_the_caller_says_comes_through() {
    let (error, ..) = refused(|number, batch| match number {
        2 => Err(Error::other(std::io::Error::other("the disk is gone"))),
        _ => Ok(batch),
    });
    assert!(matches!(&error, Error::Other(source) if source.is::<std::io::Error>()), "{error}");
    let error = model()
        .fit_batches(
            |epoch| if epoch == 2 { Err(Error::other("closed")) } else { Ok([Ok((x(4), classes(4)))]) },
            FitOptions { epochs: 3, ..FitOptions::default() },
        )
        .unwrap_err();
    assert_eq!(error.to_string(), "closed");
}

#[test]
fn an_epoch_without_batches_is_refused() {
    // An iterator that is used up in the first epoch.
    let mut once = vec![(x(4), classes(4)), (x(4), classes(4))].into_iter().map(Ok);
    let options = FitOptions { epochs: 2, ..FitOptions::default() };
    let error = model().fit_batches(|_| Ok(std::iter::from_fn(|| once.next()).collect::<Vec<_>>()), options);
    let error = error.unwrap_err();
    assert!(error.to_string().starts_with("batches of epoch 2: there are none; "), "{error}");
    let error = model().evaluate_batches(Vec::<Result<Batch<'_>>>::new()).unwrap_err();
    assert!(matches!(error, Error::Presence { .. }), "{error}");
}

#[test]
fn options_of_arrays_are_refused_beside_batches() {
    let fit = |options: FitOptions<'_>| model().fit_batches(|_| Ok([Ok((x(4), classes(4)))]), options).unwrap_err();
    let error = fit(FitOptions { validation_split: 0.5, ..FitOptions::default() });
    assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "validation_split"), "{error}");
    let ones = Array1::<f64>::ones(4);
    let error = fit(FitOptions { sample_weight: vec![(&ones).into()], ..FitOptions::default() });
    assert!(matches!(&error, Error::Presence { tensor, .. } if tensor == "sample_weight"), "{error}");
    let (x, y) = (x(4), classes(4));
    let both = FitOptions {
        validation_data: Some((vec![(&x).into()], vec![(&y).into()])),
        validation_batches: Some(Batches::new(|_| Ok([Ok((&x, &y))]))),
        ..FitOptions::default()
    };
    let error = model().fit(&x, &y, both).unwrap_err();
    assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "validation"), "{error}");
}

/// A divergence names the batch, and its sample.
#[test]
fn a_value_that_is_no_number_is_found() {
    let (error, before, after) = refused(|number, mut batch| {
        if number == 3 {
            let mut bad = x(4);
            bad.slice_mut(s![2, .., ..]).fill(f64::NAN);
            batch = Batch::new(bad, classes(4));
        }
        Ok(batch)
    });
    let Error::Diverged { epoch: 1, batch: 3, what } = &error else { panic!("{error}") };
    assert!(what.contains("sample 2 of the batch"), "{what}");
    assert_eq!(before, after);
}

#[test]
fn states_go_on_from_batch_to_batch() {
    let build = || {
        let mut model = Sequential::new(cpu(), &[5, 2], 1).unwrap();
        model.add(Lstm::new(3).stateful(true)).unwrap().add(Dense::new(1)).unwrap();
        model
    };
    let (x, y) = (x(12), classes(12));
    let options = || FitOptions { epochs: 2, batch_size: 4, shuffle: false, ..FitOptions::default() };
    let validated = || FitOptions { validation_data: Some((vec![(&x).into()], vec![(&y).into()])), ..options() };
    let (mut arrays, mut batches) = (build(), build());
    let history = arrays.fit(&x, &y, validated()).unwrap();
    let given = batches.fit_batches(|_| Ok(parts(&x, 4).zip(parts(&y, 4)).map(Ok)), validated()).unwrap();
    assert_eq!((given, weights(&batches)), (history, weights(&arrays)));
    let error = build().fit_batches(|_| Ok(parts(&x, 5).zip(parts(&y, 5)).map(Ok)), options()).unwrap_err();
    let Error::Shape { tensor, expected, got } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), got.as_str()), ("epoch 1, batch 3: x", "2 samples"));
    assert!(expected.starts_with("5 samples"), "{error}");
}

#[test]
fn batches_are_evaluated_as_arrays_are() {
    let (x, y, sample_weight) = (x(11), classes(11), Array1::from_shape_fn(11, |n| n as f64));
    let mut model = model();
    model.inference_batch_size(4).unwrap();
    let of = |weights: bool, model: &mut Sequential| match weights {
        false => model.evaluate_batches(parts(&x, 4).zip(parts(&y, 4)).map(Ok)).unwrap(),
        true => {
            let all = parts(&x, 4).zip(parts(&y, 4)).zip(parts(&sample_weight, 4));
            model.evaluate_batches(all.map(|((x, y), w)| Ok((x, y, w)))).unwrap()
        }
    };
    assert_eq!(of(false, &mut model), model.evaluate_metrics(&x, &y).unwrap());
    assert_eq!(of(true, &mut model), model.evaluate_weighted(&x, &y, &sample_weight).unwrap());
}

#[test]
fn several_processes_take_their_parts_of_batches() {
    let (x, y) = (x(22), classes(22));
    let train = |as_batches: bool| {
        let (x, y) = (&x, &y);
        std::thread::scope(|scope| {
            let ranks: Vec<_> = thread_ranks(2).unwrap().into_iter().collect();
            let run = move |ranks: ThreadRanks| {
                let mut model = model();
                let options = FitOptions {
                    epochs: 2,
                    batch_size: 4,
                    shuffle: false,
                    ranks: Some(&ranks),
                    ..FitOptions::default()
                };
                let history = match as_batches {
                    false => model.fit(x, y, options),
                    true => model.fit_batches(|_| Ok(parts(x, 8).zip(parts(y, 8)).map(Ok)), options),
                };
                (history.unwrap(), weights(&model))
            };
            let threads: Vec<_> = ranks.into_iter().map(|ranks| scope.spawn(move || run(ranks))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        })
    };
    assert_eq!(train(true), train(false));
    // A batch of one sample is one of them's alone.
    let both: Vec<_> = std::thread::scope(|scope| {
        let run = |ranks: ThreadRanks| {
            let mut model = model();
            let options = FitOptions { epochs: 2, ranks: Some(&ranks), ..FitOptions::default() };
            let batches = |_| Ok([1, 5, 1].map(|n| Ok((self::x(n), classes(n)))));
            let history = model.fit_batches(batches, options).unwrap();
            (history, weights(&model))
        };
        let ranks = thread_ranks(2).unwrap().into_iter();
        let threads: Vec<_> = ranks.map(|ranks| scope.spawn(move || run(ranks))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(both[0], both[1]);
    // One of them has a batch less, or another: none waits for ever.
    for other in [&[4usize, 4][..], &[4, 3, 4]] {
        let errors: Vec<_> = std::thread::scope(|scope| {
            let ranks: Vec<_> = thread_ranks(2).unwrap().into_iter().collect();
            let run = move |ranks: ThreadRanks| {
                let own = if ranks.rank() == 0 { &[4, 4, 4][..] } else { other };
                let options = FitOptions { ranks: Some(&ranks), ..FitOptions::default() };
                let batches = |_| Ok(own.iter().map(|n| Ok((self::x(*n), classes(*n)))));
                model().fit_batches(batches, options).unwrap_err().to_string()
            };
            let threads: Vec<_> = ranks.into_iter().map(|ranks| scope.spawn(move || run(ranks))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(errors.iter().all(|error| error.contains("samples of a batch")), "{errors:?}");
    }
}

/// Windows cut when they are asked for give what all windows at once do.
#[test]
fn windows_are_cut_as_they_are_needed() {
    let series = Array2::from_shape_fn((60, 2), |(t, c)| ((t * (c + 2)) as f64 * 0.1).sin());
    let dataset = TimeseriesDataset::new(series.view(), 5).targets(series.slice(s![5.., ..]));
    let build = || {
        let mut model = Sequential::new(cpu(), &[5, 2], 1).unwrap();
        model.add(Gru::new(3)).unwrap().add(Dense::new(2)).unwrap();
        model
    };
    let all: Vec<usize> = (0..dataset.len().unwrap()).collect();
    let (x, y) = dataset.windows(&all).unwrap();
    let (mut arrays, mut batches) = (build(), build());
    let options = || FitOptions { epochs: 2, batch_size: 16, shuffle: false, ..FitOptions::default() };
    let history = arrays.fit(&x, &y, options()).unwrap();
    assert_eq!(batches.fit_batches(|_| dataset.batches(16), options()).unwrap(), history);
    assert_eq!(weights(&batches), weights(&arrays));
}

/// Options of callbacks that no training can go by.
#[test]
fn improvements_that_are_no_numbers_are_refused() {
    let (x, y) = (x(4), classes(4));
    for bad in [f64::NAN, f64::INFINITY, -0.1] {
        let early = EarlyStopping { patience: 1, min_delta: bad, restore_best_weights: false };
        let options = FitOptions { early_stopping: Some(early), ..FitOptions::default() };
        let error = model().fit(&x, &y, options).unwrap_err();
        let Error::InvalidOption { option, .. } = &error else { panic!("{error}") };
        assert_eq!(option, "min_delta of early_stopping");
        let changes: [fn(&mut ReduceLearningRate, f64); 3] =
            [|r, bad| r.min_delta = bad, |r, bad| r.min_rate = bad, |r, bad| r.factor = bad];
        for change in changes {
            let mut reduce = ReduceLearningRate::default();
            change(&mut reduce, bad);
            let mut model = model();
            let before = weights(&model);
            let options = FitOptions { callbacks: vec![&mut reduce], ..FitOptions::default() };
            let error = model.fit(&x, &y, options).unwrap_err();
            assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
            assert_eq!(weights(&model), before, "nothing is trained before it is refused");
        }
    }
}
