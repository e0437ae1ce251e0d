//! Speaker classification: recordings of nine speakers saying a Japanese "ae", 7 to 29 steps of 12 channels, classified by an LSTM, a GRU
//! and a bidirectional LSTM with dropout, each after a layer that masks the padding.
//!
//! 270 training and 370 test utterances; 50 epochs in batches of 16. Accuracy, precision, recall, F1 and the confusion matrix on the test
//! set, that of the last model also as a picture.
//!
//! ```text
//! cargo run --release --example japanese_vowels
//! ```
//!
//! ```text
//! 270 utterances to train on, 370 to test; 9 speakers, up to 29 steps of 12 channels
//!
//! LSTM(100): … s; Keras's accuracy by seed is 0.938 … 0.951
//! accuracy 0.9432, precision 0.9394, recall 0.9453, F1 0.9417 (means of the speakers)
//! …
//! GRU(100): … s; Keras's accuracy by seed is 0.935 … 0.957
//! accuracy 0.9568, precision 0.9535, recall 0.9584, F1 0.9552 (means of the speakers)
//! …
//! Bidirectional(LSTM(64)), Dropout(0.3): … s; Keras's accuracy by seed is 0.968 … 0.970
//! accuracy 0.9676, precision 0.9650, recall 0.9685, F1 0.9662 (means of the speakers)
//! speaker said to be 1   2   3   4   5   6   7   8   9
//!                1  29   0   0   0   0   1   0   1   0
//!                2   0  33   0   0   0   0   0   2   0
//!                3   0   2  85   0   0   0   0   1   0
//!                4   0   2   0  41   0   0   1   0   0
//!                5   0   0   0   0  29   0   0   0   0
//!                6   0   0   0   0   0  24   0   0   0
//!                7   0   0   0   0   0   0  39   0   1
//!                8   0   0   0   0   0   0   0  50   0
//!                9   0   0   0   0   1   0   0   0  28
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::data::{MissingValues, TimeSeriesSet, read_ts};
use fused_rnn::metrics::{Average, ConfusionMatrix, ZeroDivision, argmax_rows};
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{ActivationFunction, Bidirectional, Dense, Dropout, Gru, LayerConfig, Loss, Lstm, Masking};
use fused_rnn::optim::Adam;
use ndarray::{Array1, Array3};

/// The padding after the end of an utterance, a value that no channel has.
const PADDING: f32 = -100.0;

fn main() -> Result<()> {
    let options = common::options("japanese_vowels");
    let device = options.device()?;
    let epochs = if options.short { 2 } else { 50 };
    let train = read_ts(common::data("JapaneseVowels_TRAIN.ts"), MissingValues::Error)?;
    let test = read_ts(common::data("JapaneseVowels_TEST.ts"), MissingValues::Error)?;
    let longest = train.sequences.iter().chain(&test.sequences).map(|s| s.nrows()).max().unwrap_or(0);
    let ((x_train, y_train), (x_test, _)) = (arrays(&train, longest)?, arrays(&test, longest)?);
    let classes = train.classes.len();
    println!(
        "{} utterances to train on, {} to test; {classes} speakers, up to {longest} steps of {} channels",
        train.labels.len(),
        test.labels.len(),
        train.dimensions
    );

    let models: [(&str, &str, LayerConfig, f64); 3] = [
        ("LSTM(100)", "0.938 … 0.951", Lstm::new(100).into(), 0.0),
        ("GRU(100)", "0.935 … 0.957", Gru::new(100).into(), 0.0),
        ("Bidirectional(LSTM(64)), Dropout(0.3)", "0.968 … 0.970", Bidirectional::new(Lstm::new(64)).into(), 0.3),
    ];
    for (name, keras, layer, dropout) in models {
        let mut model = Sequential::new(device.clone(), &[longest, train.dimensions], options.seed)?;
        model.add(Masking::new(f64::from(PADDING)))?.add(layer)?;
        if dropout > 0.0 {
            model.add(Dropout::new(dropout))?;
        }
        model.add(Dense::new(classes).activation(ActivationFunction::Softmax))?;
        model.compile(Adam::default(), Loss::SparseCategoricalCrossentropy { from_logits: false })?;
        let start = Instant::now();
        model.fit(&x_train, &y_train, FitOptions { epochs, batch_size: 16, ..FitOptions::default() })?;
        let seconds = start.elapsed().as_secs_f64();

        let predicted = argmax_rows(common::rows(&model.predict(&x_test)?).view())?;
        let matrix = ConfusionMatrix::new(&test.labels, &predicted, classes)?;
        let scores = matrix.average(Average::Macro, ZeroDivision::Zero);
        println!("\n{name}: {seconds:.2} s; Keras's accuracy by seed is {keras}");
        println!(
            "accuracy {:.4}, precision {:.4}, recall {:.4}, F1 {:.4} (means of the speakers)",
            matrix.accuracy(),
            scores.precision,
            scores.recall,
            scores.f1
        );
        println!("speaker said to be {}", train.classes.join("   "));
        for (class, row) in train.classes.iter().zip(matrix.counts().rows()) {
            println!("{class:>16} {}", row.iter().map(|count| format!("{count:3}")).collect::<Vec<_>>().join(" "));
        }
        common::result("japanese_vowels", name, "test_accuracy", matrix.accuracy(), seconds);
        if dropout > 0.0 {
            picture!(options, "confusion_matrix.svg", |path| {
                let title = format!("Who said it? {name}");
                let counts = matrix.counts().mapv(|count| count as u64);
                fused_rnn::plot::confusion_matrix(title, &train.classes, counts.view())?.save(path)
            })?;
        }
    }
    Ok(())
}

/// The utterances `[samples, longest, channels]`, padded at the end, and the indices of their speakers.
fn arrays(set: &TimeSeriesSet, longest: usize) -> Result<(Array3<f32>, Array1<f32>)> {
    let (x, _) = set.padded(Some(longest), PADDING)?;
    Ok((x, set.labels.iter().map(|&label| label as f32).collect()))
}
