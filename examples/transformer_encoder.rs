//! A Transformer encoder on the task of `attention`: which symbol of a hundred had the colour in question.
//!
//! No recurrence: a dense layer, a sinusoidal positional encoding, an encoder block with multi-head attention, the mean over the steps,
//! and a dense layer for the scores.
//!
//! ```text
//! cargo run --release --example transformer_encoder
//! ```
//!
//! After 40 epochs:
//!
//! ```text
//! test accuracy 0.928 after … s (by chance 0.125)
//! loss by epoch 2.13 2.10 2.10 2.09 2.09 1.94 1.71 1.47 1.24 1.11 1.05 0.98 0.94 0.89 … 0.05 0.05 0.04 0.03
//! ```

mod common;

use std::time::Instant;

use common::recall::{FEATURES, SYMBOLS, sequences};
use fused_rnn::Result;
use fused_rnn::metrics::{accuracy, argmax_rows};
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{Dense, GlobalAveragePooling1D, Loss, PositionalEncoding, TransformerEncoder};
use fused_rnn::optim::Adam;

fn main() -> Result<()> {
    let options = common::options("transformer_encoder");
    let device = options.device()?;
    let (samples, steps, epochs) = if options.short { (64, 20, 1) } else { (2000, 100, 40) };
    let (train, test) = (sequences(samples, steps, options.seed, 0), sequences(samples / 4, steps, options.seed, 1));
    let truth: Vec<usize> = test.y.iter().map(|&symbol| symbol as usize).collect();

    let mut model = Sequential::new(device, &[steps, FEATURES], options.seed)?;
    model
        .add(Dense::new(32))?
        .add(PositionalEncoding::new())?
        .add(TransformerEncoder::new(4, 8, 64).dropout(0.1))?
        .add(GlobalAveragePooling1D::new())?
        .add(Dense::new(SYMBOLS))?;
    model.compile(Adam::new(0.003)?, Loss::SparseCategoricalCrossentropy { from_logits: true })?;
    println!("{}", model.summary());
    let start = Instant::now();
    let history = model.fit(&train.x, &train.y, FitOptions { epochs, ..FitOptions::default() })?;
    let seconds = start.elapsed().as_secs_f64();

    let predicted = argmax_rows(common::rows(&model.predict(&test.x)?).view())?;
    let right = accuracy(&truth, &predicted)?;
    let losses: Vec<String> = history.loss.iter().map(|loss| format!("{loss:.2}")).collect();
    println!("test accuracy {right:.3} after {seconds:.1} s (by chance {:.3})", 1.0 / SYMBOLS as f64);
    println!("loss by epoch {}", losses.join(" "));
    common::result("transformer_encoder", "TransformerEncoder", "test_accuracy", right, seconds);
    Ok(())
}
