//! Forecasters, models of sequences, data, metrics, losses, decoding: calls with random arguments.

use std::path::Path;

use fused_rnn::Device;
use fused_rnn::data::*;
use fused_rnn::forecast::{
    Baseline, Intervals, Measures, Smoothing, Transform, detect_season, longer_season, seasonal_change,
    seasonal_strength,
};
use fused_rnn::loss::{Ctc, CtcStrategy, ctc_decode};
use fused_rnn::metrics::*;
use fused_rnn::model::{FitOptions, ForecastConfig, Forecaster, InputColumn, SequenceConfig, SequenceModel};
use fused_rnn::nn::{Gru, Loss, Lstm, Random, init};
use fused_rnn::optim::{Adam, Schedule};
use ndarray::{Array1, Array2, Array3};

use crate::arguments::{HUGE, fit, name, number, rate, size, values};
use crate::common::Rng;
use crate::{Outcome, accepted, note_useful};

/// A size that is 0, small, or none that memory holds; a third of each.
fn any_size(rng: &mut Rng) -> usize {
    match rng.below(4) {
        0 => rng.pick(&HUGE),
        1 => 0,
        _ => 1 + rng.below(6),
    }
}

fn series(rng: &mut Rng) -> Vec<f64> {
    let len = rng.pick(&[0, 1, 2, 20, 40, 60]);
    let mut all = values(rng, len);
    if rng.chance(0.1) {
        all.iter_mut().for_each(|value| *value *= 1e300);
    }
    all
}

fn matrix(rng: &mut Rng) -> Array2<f64> {
    let (rows, columns) = (rng.pick(&[0, 1, 3, 10]), rng.below(4));
    Array2::from_shape_vec((rows, columns), values(rng, rows * columns)).expect("as many")
}

fn data(rng: &mut Rng) -> Outcome {
    let (values, n, m) = (series(rng), any_size(rng), any_size(rng));
    accepted(windows(&values, n, m))?;
    accepted(create_dataset(&values, n))?;
    accepted(split_sequence(&values, n))?;
    let matrix = matrix(rng);
    for targets in [SequenceTargets::AtEnd { columns: m }, SequenceTargets::After { columns: m }] {
        accepted(split_sequences(matrix.view(), n, targets))?;
        accepted(split_sequences_multi_step(matrix.view(), n, any_size(rng), targets))?;
    }
    accepted(train_test_split(n, rate(rng), rng.bits()))?;
    let classes: Vec<usize> = (0..rng.below(8)).map(|_| any_size(rng)).collect();
    accepted(stratified_train_test_split(&classes, rate(rng), rng.bits()))?;
    accepted(TimeSplit::new(n, rate(rng), rate(rng)))?;
    accepted(one_hot::<f32>(&classes, rng.chance(0.5).then_some(m)))?;
    let sequences: Vec<Vec<f32>> = (0..rng.below(4)).map(|_| vec![1.0; rng.below(4)]).collect();
    let end = |rng: &mut Rng| rng.pick(&[SequenceEnd::Pre, SequenceEnd::Post]);
    let padding = Padding {
        maxlen: rng.chance(0.7).then_some(n),
        padding: end(rng),
        truncating: end(rng),
        value: number(rng) as f32,
    };
    accepted(pad_sequences(&sequences, &padding))?;
    let of_features: Vec<Array2<f32>> = (0..rng.below(3)).map(|_| Array2::ones((rng.below(4), rng.below(3)))).collect();
    accepted(pad_feature_sequences(&of_features, &padding))?;
    let _ = has_trend(&values);

    let mut dataset = TimeseriesDataset::new(matrix.view(), n);
    if rng.chance(0.5) {
        dataset = dataset.sequence_stride(any_size(rng)).sampling_rate(any_size(rng));
    }
    if rng.chance(0.3) {
        let (start, end) = (any_size(rng), any_size(rng));
        dataset = dataset.rows(start..end);
    }
    if rng.chance(0.5) {
        dataset = dataset.targets(matrix.view()).shuffle(rng.bits());
    }
    accepted(dataset.len())?;
    accepted(dataset.windows(&[any_size(rng), 0]))?;
    if let Some(batches) = accepted(dataset.batches(any_size(rng)))? {
        for batch in batches.take(20) {
            accepted(batch)?;
        }
    }
    for scaler in
        [Scaler::min_max(&values), Scaler::standard(&values), Scaler::min_max_to(&values, number(rng), number(rng))]
    {
        if let Some(scaler) = accepted(scaler)? {
            accepted(scaler.validate())?;
            let off = values.iter().map(|v| scaler.inverse(scaler.transform(*v))).position(|v| !v.is_finite());
            if let Some(at) = off {
                return Err(format!(
                    "{scaler:?} makes {} of {}",
                    scaler.inverse(scaler.transform(values[at])),
                    values[at]
                ));
            }
        }
    }
    for scaler in [ColumnScaler::min_max(matrix.view()), ColumnScaler::standard(matrix.view())] {
        if let Some(scaler) = accepted(scaler)? {
            accepted(scaler.transform(matrix.view()))?;
            accepted(scaler.inverse(Array2::<f64>::ones((2, any_size(rng) % 7)).view()))?;
        }
    }
    let labels: Vec<String> = (0..rng.below(4))
        .map(|i| {
            rng.pick(&[
                "2000-01-01",
                "9999-12-31",
                "2000-02-30",
                "",
                "1",
                "2",
                "4503599627370495",
                "-4503599627370495",
                "2024-01",
            ])
            .to_owned()
                + if i > 5 { "x" } else { "" }
        })
        .collect();
    let axis = TimeAxis::new(&labels);
    let _ = (axis.position(n), axis.day(n), axis.label(n), axis.holes());
    let gaps = rng.pick(&Gaps::ALL);
    let column = Series {
        name: name(rng),
        values: values.iter().map(|v| rng.chance(0.8).then_some(*v)).collect(),
        labels: vec![String::new(); values.len()],
        label_name: None,
        lines: (0..values.len() as u64).collect(),
        source_name: name(rng),
    };
    accepted(gaps.close(&column))?;
    accepted(gaps.close_columns(&[column.clone(), column]))?;
    Ok(())
}

fn text(rng: &mut Rng) -> Outcome {
    let texts: Vec<String> = (0..rng.below(4)).map(|_| format!("{} {}", name(rng), name(rng))).collect();
    let options = TokenizerOptions {
        unit: rng.pick(&[TokenUnit::Word, TokenUnit::Character]),
        lower_case: rng.chance(0.5),
        strip_punctuation: rng.chance(0.5),
        max_tokens: rng.chance(0.5).then(|| any_size(rng)),
    };
    for tokenizer in [Tokenizer::from_texts(&texts, options), Tokenizer::new(options, texts.clone())] {
        let Some(tokenizer) = accepted(tokenizer)? else { continue };
        let numbers = tokenizer.encode(&name(rng));
        accepted(tokenizer.decode(&numbers))?.ok_or("what was encoded is not decoded")?;
        accepted(tokenizer.decode(&[any_size(rng)]))?;
        let saved = serde_json::to_string(&tokenizer).map_err(|e| e.to_string())?;
        let again: Tokenizer =
            serde_json::from_str(&saved).map_err(|e| format!("a tokenizer is not read back: {e}"))?;
        if again != tokenizer {
            return Err("another tokenizer is read back".to_owned());
        }
    }
    if let Some(vocabulary) = accepted(CharVocabulary::from_text(&texts.concat()))? {
        accepted(vocabulary.encode(&name(rng)))?;
        accepted(vocabulary.decode(&[any_size(rng)]))?;
    }
    let count = rng.below(5);
    let scores = values(rng, count);
    let sampler = Sampler {
        temperature: fit(rng, &[1.0, 0.5]),
        top_k: rng.chance(0.5).then(|| any_size(rng)),
        top_p: rng.chance(0.5).then(|| rate(rng)),
    };
    if let Some(token) = accepted(sampler.sample(&scores, &mut Random::new(rng.bits(), 0)))?
        && token >= scores.len()
    {
        return Err(format!("token {token} of {}", scores.len()));
    }
    let (start, end) = (any_size(rng), rng.below(3));
    accepted(greedy_decode((), start, end, rng.below(9), |(), _| Ok((scores.clone(), ()))))?;
    accepted(beam_decode((), start, end, rng.below(5), any_size(rng), |(), _| Ok((scores.clone(), ()))))?;
    Ok(())
}

fn measures(rng: &mut Rng) -> Outcome {
    let (one, other) = (matrix(rng), matrix(rng));
    let other = if rng.chance(0.7) { one.mapv(|v| v + 0.5) } else { other };
    accepted(mse(one.view(), other.view()))?;
    accepted(rmse(one.view(), other.view()))?;
    accepted(mae(one.view(), other.view()))?;
    accepted(mape(one.view(), other.view()))?;
    accepted(r2(one.view(), other.view()))?;
    accepted(binary_accuracy(one.view(), other.view(), number(rng)))?;
    accepted(categorical_accuracy(one.view(), other.view()))?;
    accepted(top_k_categorical_accuracy(one.view(), other.view(), any_size(rng)))?;
    let classes: Vec<usize> = (0..if rng.chance(0.7) { one.nrows() } else { rng.below(3) })
        .map(|_| if rng.chance(0.9) { rng.below(3) } else { any_size(rng) })
        .collect();
    accepted(sparse_categorical_accuracy(&classes, other.view()))?;
    accepted(sparse_top_k_categorical_accuracy(&classes, other.view(), any_size(rng)))?;
    accepted(argmax_rows(one.view()))?;
    let predicted: Vec<usize> = classes.iter().map(|_| rng.below(3)).collect();
    accepted(accuracy(&classes, &predicted))?;
    let count = if rng.chance(0.3) { any_size(rng) } else { 3 };
    let weights = values(rng, classes.len());
    for matrix in [
        ConfusionMatrix::new(&classes, &predicted, count),
        ConfusionMatrix::weighted(&classes, &predicted, count, &weights),
    ] {
        if let Some(matrix) = accepted(matrix)? {
            let division = rng.pick(&[ZeroDivision::Zero, ZeroDivision::One, ZeroDivision::NotANumber]);
            let _ = (matrix.accuracy(), matrix.scores(division), matrix.average(Average::Weighted, division));
            let names = [name(rng), name(rng), name(rng)];
            accepted(matrix.report(Some(&names.each_ref().map(|name| name.as_str())), any_size(rng), division))?;
            accepted(matrix.report(None, any_size(rng), division))?;
        }
    }
    let truth: Vec<bool> = (0..rng.below(5)).map(|_| rng.chance(0.5)).collect();
    accepted(roc_auc(&truth, &values(rng, truth.len())))?;
    let flat: Vec<f64> = one.iter().copied().collect();
    let of: Vec<f64> = other.iter().copied().collect();
    let loss = rng.pick(&[
        Loss::MeanSquaredError,
        Loss::Huber { delta: -1.0 },
        Loss::CategoricalCrossentropy { from_logits: true },
        Loss::SparseCategoricalCrossentropy { from_logits: false },
        Loss::KlDivergence,
        Loss::CosineSimilarity,
        Loss::Poisson,
        Loss::CategoricalHinge,
        Loss::CategoricalFocalCrossentropy { from_logits: true, alpha: 0.25, gamma: 2.0 },
    ]);
    let columns = if rng.chance(0.7) { one.ncols() } else { any_size(rng) };
    accepted(loss.value(columns, &flat, &of))?;
    let mut gradient = vec![0.0; if rng.chance(0.8) { of.len() } else { rng.below(4) }];
    accepted(loss.gradient(columns, &flat, &of, &mut gradient))?;
    accepted(loss.weighted(columns, &flat, &of, &weights, None))?;
    for metric in [
        Metric::R2Score,
        Metric::Auc { curve: Curve::Roc, thresholds: any_size(rng), from_logits: true },
        Metric::F1Score { average: Average::Macro, threshold: None },
    ] {
        if let Some(mut metric) = accepted(MetricAccumulator::new(metric))? {
            accepted(metric.update(&flat, &of, columns, rng.chance(0.5).then_some(&weights[..])))?;
            let _ = metric.result();
        }
    }
    Ok(())
}

fn ctc(rng: &mut Rng) -> Outcome {
    let (batch, steps, classes) = (rng.below(3), rng.below(5), rng.below(4));
    let logits =
        Array3::from_shape_vec((batch, steps, classes), values(rng, batch * steps * classes)).expect("as many");
    let lengths: Vec<usize> = (0..batch).map(|_| if rng.chance(0.8) { steps } else { any_size(rng) }).collect();
    let labels: Vec<Vec<usize>> = (0..batch)
        .map(|_| (0..rng.below(3)).map(|_| if rng.chance(0.8) { 1 } else { any_size(rng) }).collect())
        .collect();
    let blank = if rng.chance(0.8) { 0 } else { any_size(rng) };
    for strategy in [CtcStrategy::Greedy, CtcStrategy::BeamSearch { width: any_size(rng), top_paths: any_size(rng) }] {
        accepted(ctc_decode(logits.view(), &lengths, blank, strategy))?;
    }
    let Some(ctc) = accepted(Ctc::new(blank, any_size(rng)))? else { return Ok(()) };
    accepted(ctc.losses(logits.view(), &labels, &lengths))?;
    accepted(ctc.gradient(logits.view(), &labels, &lengths))?;
    let targets = matrix(rng);
    accepted(ctc.labels(targets.view(), classes))?;
    Ok(())
}

fn forecasts(rng: &mut Rng) -> Outcome {
    let (values, season, horizon) = (series(rng), any_size(rng), any_size(rng));
    for baseline in [Baseline::Naive, Baseline::SeasonalNaive, Baseline::Drift] {
        accepted(baseline.forecast(&values, season, horizon))?;
    }
    let matrices = (matrix(rng), matrix(rng));
    let levels = [rate(rng), rate(rng)];
    if let Some(intervals) = accepted(Intervals::fit(matrices.0.view(), &levels))? {
        let _ = intervals.width(any_size(rng), any_size(rng));
        accepted(intervals.coverage(matrices.0.view(), matrices.1.view()))?;
        accepted(intervals.validate(horizon))?;
    }
    accepted(Measures::of(matrices.0.view(), matrices.1.view(), Some(number(rng))))?;
    accepted(Measures::of_first_step(matrices.0.view(), matrices.1.view(), None))?;
    let _ = (
        seasonal_change(&values, season),
        seasonal_strength(&values, season),
        detect_season(&values, &[season, horizon]),
        longer_season(&values, season),
    );
    if let Some(smoothing) = accepted(Smoothing::fit(&[Array1::from(values.clone()).view()], season))? {
        let _ = smoothing.forecasts(Array1::from(values.clone()).view(), &[values.len()], 3);
    }
    if let Some(transform) = accepted(Transform::fit(&values, rng.chance(0.5)))? {
        let _ = transform.inverse(transform.apply(number(rng)));
    }
    let _ = Transform::may_be_log(&values);
    Ok(())
}

fn forecaster(rng: &mut Rng, folder: &Path) -> Outcome {
    let values = series(rng);
    let Some(scaler) = accepted(Scaler::standard(&values))? else { return Ok(()) };
    let usual = |rng: &mut Rng| if rng.chance(0.9) { 1 + rng.below(5) } else { any_size(rng) };
    let inputs = if rng.chance(0.3) {
        vec![InputColumn { column: name(rng), difference: rng.chance(0.5), scaler }]
    } else {
        Vec::new()
    };
    let columns = 1 + inputs.len();
    let config = ForecastConfig {
        column: name(rng),
        inputs,
        known: Vec::new(),
        panel: None,
        gaps: Gaps::Error,
        window: usual(rng),
        horizon: usual(rng),
        difference: rng.chance(0.5),
        scaler,
        reading: CsvOptions::default(),
        correction: None,
    };
    let layer = Gru::new(usual(rng)).return_sequences(rng.chance(0.1));
    let Some(mut forecaster) = accepted(Forecaster::new(Device::cpu(), config, layer, rng.bits()))? else {
        return Ok(());
    };
    let table = Array2::from_shape_fn((values.len(), columns), |(row, _)| values[row]);
    let targets = if rng.chance(0.8) { 0..values.len() } else { any_size(rng)..any_size(rng) };
    if let Some((x, y)) = accepted(forecaster.samples(&table, targets.clone()))? {
        accepted(forecaster.model().compile(Adam::default(), Loss::MeanSquaredError).map(drop))?;
        accepted(forecaster.model().fit(&x, &y, FitOptions { batch_size: 8, ..FitOptions::default() }))?;
    }
    accepted(forecaster.backtest(&table, targets))?;
    // So many as a series may have; more are computed as long as there is memory for them.
    let steps = if rng.chance(0.8) { rng.below(9) } else { rng.pick(&[0, usize::MAX]) };
    let before = if columns == 1 || steps < 9 { accepted(forecaster.forecast(&table, steps))? } else { None };
    let path = folder.join("forecaster.safetensors");
    forecaster.save(&path).map_err(|e| format!("a forecaster is not saved: {e}"))?;
    let mut loaded = Forecaster::load(Device::cpu(), &path).map_err(|e| format!("a forecaster is not loaded: {e}"))?;
    if steps < 9 && accepted(loaded.forecast(&table, steps))? != before {
        return Err("the loaded forecaster says other numbers".to_owned());
    }
    Ok(())
}

fn sequence_model(rng: &mut Rng, folder: &Path) -> Outcome {
    let count = rng.below(6);
    let dimensions = rng.below(3);
    let mut sequences: Vec<Array2<f32>> = Vec::new();
    for _ in 0..count {
        let steps = rng.below(4);
        let width = if rng.chance(0.95) { dimensions } else { rng.below(3) };
        sequences.push(
            Array2::from_shape_vec((steps, width), values(rng, steps * width).into_iter().map(|v| v as f32).collect())
                .expect("as many"),
        );
    }
    if rng.chance(0.8) {
        sequences.retain(|sequence| sequence.nrows() > 0);
    }
    let classified = rng.chance(0.6);
    let classes: Vec<String> = if classified { (0..rng.below(4)).map(|_| name(rng)).collect() } else { Vec::new() };
    let labels = sequences
        .iter()
        .map(|_| if rng.chance(0.9) { rng.below(classes.len().max(1)) } else { any_size(rng) })
        .collect();
    let targets = if classified && rng.chance(0.9) {
        Vec::new()
    } else {
        values(rng, sequences.len()).into_iter().map(|v| v as f32).collect()
    };
    let set = TimeSeriesSet { name: name(rng), dimensions, sequences, classes, labels, targets };
    accepted(set.padded(rng.chance(0.5).then(|| any_size(rng)), 0.0))?;
    let steps = if rng.chance(0.9) { 3 } else { any_size(rng) };
    let Some(config) = accepted(SequenceConfig::fitted(&set, steps))? else { return Ok(()) };
    let layer = Lstm::new(size(rng)).into();
    let Some(mut model) = accepted(SequenceModel::new(Device::cpu(), config, [layer], rng.bits()))? else {
        return Ok(());
    };
    let (x, y) = (accepted(model.inputs(&set.sequences))?, accepted(model.targets(&set))?);
    accepted(model.classes(&set))?;
    accepted(model.numbers(&set))?;
    if let (Some(x), Some(y)) = (x, y) {
        let loss = model.loss();
        accepted(model.model().compile(Adam::default(), loss).map(drop))?;
        accepted(model.model().fit(&x, &y, FitOptions { batch_size: 4, ..FitOptions::default() }))?;
    }
    let before = accepted(model.predict(&set.sequences))?;
    let path = folder.join("sequences.safetensors");
    model.save(&path).map_err(|e| format!("a model of sequences is not saved: {e}"))?;
    let mut loaded =
        SequenceModel::load(Device::cpu(), &path).map_err(|e| format!("a model of sequences is not loaded: {e}"))?;
    if format!("{:?}", accepted(loaded.predict(&set.sequences))?) != format!("{before:?}") {
        return Err("the loaded model of sequences says something else".to_owned());
    }
    Ok(())
}

fn others(rng: &mut Rng) -> Outcome {
    let mut weights = vec![0.0; rng.below(8)];
    accepted(init::orthogonal(&mut weights, any_size(rng), any_size(rng), &mut Random::new(1, 0)))?;
    for schedule in [
        Schedule::exponential(number(rng), any_size(rng) as u64, number(rng)),
        Schedule::cosine(number(rng), any_size(rng) as u64, number(rng))
            .and_then(|s| s.warm_up(number(rng), any_size(rng) as u64)),
        Schedule::piecewise(&[any_size(rng) as u64], &[number(rng), number(rng)]),
    ] {
        if let Some(schedule) = accepted(schedule)? {
            let _ = (schedule.rate(0), schedule.rate(u64::MAX));
        }
    }
    // What no constructor has checked.
    let unchecked = Schedule::PiecewiseConstantDecay { boundaries: vec![1], values: vec![] };
    let _ = unchecked.rate(any_size(rng) as u64);
    let dropout = fused_rnn::rnn::Dropout::new(number(rng), 1);
    dropout.apply(&mut [1.0f32; 3], any_size(rng), any_size(rng), any_size(rng));
    Ok(())
}

pub fn program(rng: &mut Rng, folder: &Path) -> Outcome {
    // Each makes some calls that are as they should be.
    note_useful();
    match rng.below(8) {
        0 => data(rng),
        1 => text(rng),
        2 => measures(rng),
        3 => ctc(rng),
        4 => forecasts(rng),
        5 => forecaster(rng, folder),
        6 => sequence_model(rng, folder),
        _ => others(rng),
    }
}
