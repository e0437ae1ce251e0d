//! Small programs of well-known tutorials, each as long as with Keras. One is named, or all run:
//!
//! ```text
//! cargo run --release --example tutorials -- addition
//! ```
//!
//! `weather`, half a day ahead, from batches of windows; `reviews`, whether they like a film; `addition` of digits as text; an LSTM
//! `autoencoder`; a `cnn_lstm`; `multi_step` forecasts of parallel series; `ctc`, tones as in speech, whose times are not labelled; `text`, word
//! by word. Their data are made here.

mod common;

use std::time::Instant;

use fused_rnn::data::{
    CharVocabulary, Padding, Sampler, SequenceTargets, TimeseriesDataset, Tokenizer, TokenizerOptions, pad_sequences,
    split_sequences_multi_step, windows,
};
use fused_rnn::loss::{Ctc, CtcStrategy, ctc_decode};
use fused_rnn::metrics::argmax_rows;
use fused_rnn::model::{Batches, EarlyStopping, FitOptions, Sequential};
use fused_rnn::nn::{
    ActivationFunction, Bidirectional, Conv1D, Dense, Embedding, Loss, Lstm, MaxPooling1D, Random, RepeatVector,
    Reshape, TimeDistributed,
};
use fused_rnn::optim::{Adam, Nadam};
use fused_rnn::{Error, Result};
use ndarray::{Array2, Array3, Axis, Ix3, s};

use common::Options;

/// A program of a tutorial: the name of a figure, and its value.
type Tutorial = fn(&Options) -> Result<(&'static str, f64)>;

fn main() -> Result<()> {
    let options = common::options("tutorials");
    let all: [(&str, Tutorial); 8] = [
        ("weather", weather),
        ("reviews", reviews),
        ("addition", addition),
        ("autoencoder", autoencoder),
        ("cnn_lstm", cnn_lstm),
        ("multi_step", multi_step),
        ("ctc", ctc),
        ("text", text),
    ];
    if let Some(other) = options.rest.iter().find(|name| !all.iter().any(|(known, _)| known == name)) {
        let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
        return Err(Error::InvalidOption {
            option: "tutorial".to_owned(),
            expected: names.join(", "),
            got: other.clone(),
        });
    }
    for (name, run) in all.iter().filter(|(name, _)| options.rest.is_empty() || options.rest.iter().any(|n| n == name))
    {
        println!("\n{name}");
        let start = Instant::now();
        let (metric, value) = run(&options)?;
        common::result("tutorials", name, metric, value, start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn fit<'a>(epochs: usize) -> FitOptions<'a> {
    FitOptions { epochs, batch_size: 32, ..FitOptions::default() }
}

/// Keras's `timeseries_weather_forecasting`: five days of every ten minutes, hour by hour, and the temperature twelve hours later.
fn weather(options: &Options) -> Result<(&'static str, f64)> {
    let (rows, epochs) = if options.short { (4000, 1) } else { (30_000, 10) };
    let mut random = Random::new(options.seed, 0);
    let (mut front, mut data) = (0.0, Array2::<f32>::zeros((rows, 3)));
    for (t, mut row) in data.outer_iter_mut().enumerate() {
        let (day, year) = (t as f64 / 144.0 * std::f64::consts::TAU, t as f64 / 52_560.0 * std::f64::consts::TAU);
        front = 0.998 * front + 0.06 * random.normal();
        let temperature = front + 0.8 * (day - 2.0).sin() - 1.5 * year.cos();
        row[0] = temperature as f32;
        row[1] = (-0.7 * front + 0.1 * random.normal()) as f32; // pressure
        row[2] = (0.5 * front - 0.6 * (day - 2.0).sin() + 0.1 * random.normal()) as f32; // humidity
    }
    const PAST: usize = 720;
    const FUTURE: usize = 72;
    let y = data.slice(s![PAST + FUTURE.., ..1]);
    let windows = TimeseriesDataset::new(data.view(), PAST / 6).sampling_rate(6).targets(y);
    let split = rows * 7 / 10;
    let (train, test) = (windows.clone().rows(0..split).shuffle(options.seed), windows.rows(split..rows));
    let mut model = Sequential::new(options.device()?, &[PAST / 6, 3], options.seed)?;
    model.add(Lstm::new(32))?.add(Dense::new(1))?.compile(Adam::new(0.001)?, Loss::MeanSquaredError)?;
    let stop = EarlyStopping { patience: 3, min_delta: 0.0, restore_best_weights: true };
    let validation = Batches::new(|_| test.batches(256));
    let more = FitOptions { validation_batches: Some(validation), early_stopping: Some(stop), ..fit(epochs) };
    model.fit_batches(|epoch| train.batches_of(256, epoch as u32), more)?;
    let (mut squares, mut naive, mut count) = (0.0, 0.0, 0);
    for batch in test.batches(256)? {
        let (x, y) = batch?;
        let (predicted, now) = (model.predict(&x)?, x.slice(s![.., -1, 0]));
        for ((y, p), now) in y.iter().zip(&predicted).zip(now) {
            (squares, naive, count) = (squares + (y - p).powi(2), naive + (y - now).powi(2), count + 1);
        }
    }
    println!(
        "mean squared error {:.4}, of the temperature staying {:.4}",
        squares / count as f32,
        naive / count as f32
    );
    Ok(("mse_over_naive", f64::from(squares / naive)))
}

/// Keras's `bidirectional_lstm_imdb`: reviews as numbers of words, filled up with zeros that are masked.
fn reviews(options: &Options) -> Result<(&'static str, f64)> {
    let (samples, epochs) = if options.short { (64, 1) } else { (1200, 8) };
    let words = [["great", "moving", "funny", "clever"], ["dull", "awful", "clumsy", "boring"]];
    let nouns = ["plot", "acting", "music", "ending", "dialogue"];
    let mut random = Random::new(options.seed, 0);
    let mut below = |most: usize| ((most as f64 * random.uniform()) as usize).min(most - 1);
    let (mut texts, mut y) = (Vec::new(), Array2::zeros((samples, 1)));
    for sample in 0..samples {
        let liked = sample % 2;
        let sentence = |_| {
            let negated = below(3) == 0;
            let word = words[(1 - liked) ^ usize::from(negated)][below(4)];
            format!("The {} was {}{word}.", nouns[below(5)], if negated { "not " } else { "" })
        };
        texts.push((0..2 + sample % 7).map(sentence).collect::<Vec<_>>().join(" "));
        y[[sample, 0]] = liked as f32;
    }
    let tokenizer = Tokenizer::from_texts(&texts, TokenizerOptions { max_tokens: Some(100), ..Default::default() })?;
    let numbers: Vec<Vec<usize>> = texts.iter().map(|text| tokenizer.encode(text)).collect();
    let x = pad_sequences(&numbers, &Padding { maxlen: Some(40), ..Padding::default() })?.0.mapv(|word| word as f32);
    let mut model = Sequential::new(options.device()?, &[40], options.seed)?;
    model.add(Embedding::new(tokenizer.len(), 16).mask_zero(true))?;
    model.add(Bidirectional::new(Lstm::new(16).return_sequences(true)))?.add(Bidirectional::new(Lstm::new(16)))?;
    model.add(Dense::new(1).activation(ActivationFunction::Sigmoid))?;
    model.compile(Adam::new(0.003)?, Loss::BinaryCrossentropy { from_logits: false })?.metrics(&["accuracy".parse()?]);
    let history = model.fit(&x, &y, FitOptions { validation_split: 0.25, ..fit(epochs) })?;
    Ok(("val_accuracy", history.get("val_accuracy").and_then(<[f64]>::last).copied().unwrap_or(f64::NAN)))
}

/// Keras's `addition_rnn`: "12+7 " to "19 ", a vector of states repeated for each character of the answer.
fn addition(options: &Options) -> Result<(&'static str, f64)> {
    let (samples, epochs) = if options.short { (64, 1) } else { (8000, 30) };
    let vocabulary = CharVocabulary::from_text("0123456789+ ")?;
    let mut random = Random::new(options.seed, 0);
    let mut sums = Vec::new();
    for _ in 0..samples + samples / 4 {
        let (a, b) = ((100.0 * random.uniform()) as u32, (100.0 * random.uniform()) as u32);
        sums.push((format!("{:<5}", format!("{a}+{b}")), format!("{:<3}", a + b)));
    }
    let mut x = Array2::zeros((sums.len(), 5));
    let mut y = Array2::zeros((sums.len(), 3));
    for (n, (question, answer)) in sums.iter().enumerate() {
        x.row_mut(n).iter_mut().zip(vocabulary.encode(question)?).for_each(|(to, c)| *to = c as f32);
        y.row_mut(n).iter_mut().zip(vocabulary.encode(answer)?).for_each(|(to, c)| *to = c as f32);
    }
    let mut model = Sequential::new(options.device()?, &[5], options.seed)?;
    model.add(Embedding::new(vocabulary.len(), vocabulary.len()))?.add(Lstm::new(128))?.add(RepeatVector::new(3))?;
    model.add(Lstm::new(128).return_sequences(true))?.add(Dense::new(vocabulary.len()))?;
    model.compile(Adam::new(0.003)?, Loss::SparseCategoricalCrossentropy { from_logits: true })?;
    model.fit(x.slice(s![..samples, ..]), y.slice(s![..samples, ..]), fit(epochs))?;
    let predicted = model.predict(x.slice(s![samples.., ..]))?;
    let mut right = 0;
    for (n, (scores, (question, answer))) in predicted.axis_iter(Axis(0)).zip(&sums[samples..]).enumerate() {
        let got = vocabulary.decode(&argmax_rows(common::rows(&scores.to_owned()).view())?)?;
        if n < 3 {
            println!("{question} = {got}");
        }
        right += usize::from(got == *answer);
    }
    Ok(("answers_right", right as f64 / (samples / 4) as f64))
}

/// An autoencoder that gives a sequence back from a vector.
fn autoencoder(options: &Options) -> Result<(&'static str, f64)> {
    let epochs = if options.short { 2 } else { 300 };
    let x = Array3::from_shape_fn((16, 9, 1), |(n, t, _)| ((n + t) as f32 * 0.4).sin());
    let mut model = Sequential::new(options.device()?, &[9, 1], options.seed)?;
    model.add(Lstm::new(50))?.add(RepeatVector::new(9))?.add(Lstm::new(50).return_sequences(true))?;
    model.add(TimeDistributed::new(Dense::new(1)))?.compile(Adam::new(0.005)?, Loss::MeanSquaredError)?;
    model.fit(&x, &x, FitOptions { batch_size: 16, ..fit(epochs) })?;
    Ok(("mse", model.evaluate(&x, &x)?))
}

/// Convolutions over each of two subsequences, an LSTM over what they give.
fn cnn_lstm(options: &Options) -> Result<(&'static str, f64)> {
    let epochs = if options.short { 2 } else { 100 };
    let series: Vec<f32> = (0..140).map(|t| (t as f32 * 0.3).sin() + 0.3 * (t as f32 * 0.11).cos()).collect();
    let (x, y) = windows(&series, 8, 1)?;
    let mut model = Sequential::new(options.device()?, &[8, 1], options.seed)?;
    model.add(Reshape::new(&[2, 4, 1]))?;
    model.add(TimeDistributed::new(Conv1D::new(32, 2).activation(ActivationFunction::Relu)))?;
    model.add(TimeDistributed::new(MaxPooling1D::new(2)))?.add(Reshape::new(&[2, 32]))?;
    model.add(Lstm::new(32))?.add(Dense::new(1))?.compile(Nadam::new(0.003)?, Loss::LogCosh)?;
    model.metrics(&["mae".parse()?]).fit(&x, &y, fit(epochs))?;
    let figures = model.evaluate_metrics(&x, &y)?;
    Ok(("mae", figures.last().map_or(f64::NAN, |(_, mae)| *mae)))
}

/// Two steps ahead of three series, by an encoder and a decoder.
fn multi_step(options: &Options) -> Result<(&'static str, f64)> {
    let epochs = if options.short { 2 } else { 200 };
    let series = Array2::from_shape_fn((60, 3), |(t, c)| [0.01, 0.015, 0.025][c] * t as f32 + 0.1 * c as f32);
    let (x, y) = split_sequences_multi_step(series.view(), 3, 2, SequenceTargets::After { columns: 3 })?;
    let mut model = Sequential::new(options.device()?, &[3, 3], options.seed)?;
    model.add(Lstm::new(50))?.add(RepeatVector::new(2))?.add(Lstm::new(50).return_sequences(true))?;
    model.add(Dense::new(3))?.compile(Adam::new(0.003)?, Loss::MeanSquaredError)?;
    model.fit(&x, &y, fit(epochs))?;
    println!("{:.3}\n{:.3}", model.predict(x.slice(s![-1.., .., ..]))?, y.index_axis(Axis(0), y.shape()[0] - 1));
    Ok(("mse", model.evaluate(&x, &y)?))
}

/// Tones of unknown beginnings and lengths, as phonemes in speech, from a noisy spectrum.
fn ctc(options: &Options) -> Result<(&'static str, f64)> {
    let (samples, epochs) = if options.short { (64, 1) } else { (600, 25) };
    const STEPS: usize = 20;
    let mut random = Random::new(options.seed, 0);
    let mut x = Array3::from_shape_fn((samples, STEPS, 5), |_| 0.3 * random.normal() as f32);
    let mut tones = Vec::new();
    for mut spectrum in x.outer_iter_mut() {
        let (mut step, mut row) = (0, Vec::new());
        for _ in 0..3 {
            let (tone, begin) = (1 + (4.0 * random.uniform()) as usize, step + 1 + (3.0 * random.uniform()) as usize);
            step = begin + 2 + (2.0 * random.uniform()) as usize;
            spectrum.slice_mut(s![begin..step, tone]).mapv_inplace(|v| v + 1.5);
            row.push(tone);
        }
        tones.push(row);
    }
    let y = pad_sequences(&tones, &Padding::at_end(Some(3), 0))?.0.mapv(|tone| tone as f32);
    let mut model = Sequential::new(options.device()?, &[STEPS, 5], options.seed)?;
    model.add(Bidirectional::new(Lstm::new(32).return_sequences(true)))?.add(Dense::new(5))?;
    model.compile(Adam::new(0.005)?, Ctc::new(0, 3)?)?;
    let train = samples * 4 / 5;
    model.fit(x.slice(s![..train, .., ..]), y.slice(s![..train, ..]), fit(epochs))?;
    let logits = model.predict(x.slice(s![train.., .., ..]))?.into_dimensionality::<Ix3>();
    let logits = logits.map_err(|e| Error::Shape {
        tensor: "logits".to_owned(),
        expected: "three axes".to_owned(),
        got: e.to_string(),
    })?;
    let search = CtcStrategy::BeamSearch { width: 10, top_paths: 1 };
    let decoded = ctc_decode(logits.view(), &vec![STEPS; samples - train], 0, search)?;
    let right = decoded.iter().zip(&tones[train..]).filter(|(paths, tones)| paths[0].labels == **tones).count();
    Ok(("sequences_right", right as f64 / decoded.len() as f64))
}

/// The next word of a text from the five before it, and a text that goes on by itself.
fn text(options: &Options) -> Result<(&'static str, f64)> {
    let epochs = if options.short { 1 } else { 40 };
    let text =
        "the cat sat on the mat and the dog sat on the log while the bird sang to the cat and the dog ".repeat(4);
    let tokenizer = Tokenizer::from_texts([&text], TokenizerOptions::default())?;
    let numbers: Vec<f32> = tokenizer.encode(&text).into_iter().map(|number| number as f32).collect();
    let (x, y) = windows(&numbers, 5, 1)?;
    let mut model = Sequential::new(options.device()?, &[5], options.seed)?;
    model.add(Embedding::new(tokenizer.len(), 16))?.add(Lstm::new(32))?.add(Dense::new(tokenizer.len()))?;
    model.compile(Adam::new(0.01)?, Loss::SparseCategoricalCrossentropy { from_logits: true })?;
    let history = model.fit(x.index_axis(Axis(2), 0), y.index_axis(Axis(1), 0), fit(epochs))?;
    let (mut written, mut random) = (tokenizer.encode("the cat sat on the"), Random::new(options.seed, 1));
    let sampler = Sampler { temperature: 0.5, top_k: Some(5), top_p: None };
    for _ in 0..15 {
        let last = Array2::from_shape_fn((1, 5), |(_, step)| written[written.len() - 5 + step] as f32);
        let scores: Vec<f32> = model.predict(&last)?.into_iter().collect();
        written.push(sampler.sample(&scores, &mut random)?);
    }
    println!("{}", tokenizer.decode(&written)?);
    Ok(("loss", history.loss.last().copied().unwrap_or(f64::NAN)))
}
