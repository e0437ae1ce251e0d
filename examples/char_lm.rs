//! A character-level language model: an LSTM learns "Alice's Adventures in Wonderland" and then generates text.
//!
//! It is trained to predict the next character at each step of windows of 64. The perplexity, the exponential of the loss, is the number
//! of equally likely characters that would be as hard to predict. For generation a second, stateful model with the same weights takes one
//! character at a time; the temperature divides the scores before the softmax.
//!
//! ```text
//! cargo run --release --example char_lm
//! ```
//!
//! ```text
//! 148476 characters, 72 different; 2319 windows of 64
//!
//! epoch   perplexity   of unseen text
//!     1        23.34            17.92
//!     2        12.79            10.32
//!     3         9.09             8.33
//!     …
//!    12         4.68             5.12
//!
//! temperature 0.3
//! Alice and the King to be a whing to be a little thing a little that the Dormouse the Queen the Queen the Mouse a little that go a li …
//!
//! temperature 0.7
//! Alice in a congiture that it was the side"in, and
//! out of the condy.  `Then't back you know.
//!
//!
//! temperature 1
//! Alice aftured to some and, and never went
//! sptaghinning for ligt the had branch hardrs.'
//!
//! …
//! ```

mod common;

use std::time::Instant;

use fused_rnn::data::{CharVocabulary, Sampler};
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{Dense, Embedding, Loss, Lstm, Random};
use fused_rnn::optim::Adam;
use fused_rnn::{Error, Result};
use ndarray::{Array2, Axis, array};

const STEPS: usize = 64;
const UNITS: usize = 128;

fn main() -> Result<()> {
    let options = common::options("char_lm");
    let device = options.device()?;
    let (most, epochs, written) = if options.short { (6_000, 2, 40) } else { (usize::MAX, 12, 300) };
    let path = common::data("alice.txt");
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { action: "read", path, source })?;
    let text: String = text.chars().take(most).collect();
    let vocabulary = CharVocabulary::from_text(&text)?;
    let numbers: Vec<f32> = vocabulary.encode(&text)?.into_iter().map(|number| number as f32).collect();

    // Consecutive windows, and the same shifted by one character; the last tenth is for validation.
    let windows = (numbers.len() - 1) / STEPS;
    let x = Array2::from_shape_fn((windows, STEPS), |(window, step)| numbers[window * STEPS + step]);
    let y = Array2::from_shape_fn((windows, STEPS), |(window, step)| numbers[window * STEPS + step + 1]);
    let ((x_train, x_test), (y_train, y_test)) =
        (x.view().split_at(Axis(0), windows * 9 / 10), y.view().split_at(Axis(0), windows * 9 / 10));
    println!("{} characters, {} different; {} windows of {STEPS}\n", numbers.len(), vocabulary.len(), windows);

    let build = |steps: usize, stateful: bool| -> Result<Sequential> {
        let mut model = Sequential::new(device.clone(), &[steps], options.seed)?;
        model
            .add(Embedding::new(vocabulary.len(), 32))?
            .add(Lstm::new(UNITS).return_sequences(true).stateful(stateful))?
            .add(Dense::new(vocabulary.len()))?;
        Ok(model)
    };
    let mut model = build(STEPS, false)?;
    model.compile(Adam::new(0.005)?, Loss::SparseCategoricalCrossentropy { from_logits: true })?;
    let start = Instant::now();
    let fit = FitOptions {
        epochs,
        validation_data: Some((vec![x_test.into()], vec![y_test.into()])),
        ..FitOptions::default()
    };
    let history = model.fit(x_train, y_train, fit)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("epoch   perplexity   of unseen text");
    for (epoch, (loss, val_loss)) in history.loss.iter().zip(&history.val_loss).enumerate() {
        println!("{:5}   {:10.2}   {:14.2}", epoch + 1, loss.exp(), val_loss.exp());
    }
    println!("{seconds:.1} s");
    let last = history.val_loss.last().copied().unwrap_or(f64::NAN);
    common::result("char_lm", "LSTM(128)", "val_perplexity", last.exp(), seconds);

    let mut writer = build(1, true)?;
    writer.set_flat_weights(&model.flat_weights::<f32>()?)?;
    let mut random = Random::new(options.seed, 1);
    for temperature in [0.3, 0.7, 1.0] {
        let sampler = Sampler { temperature, ..Sampler::default() };
        let mut written_text = "Alice ".to_owned();
        let mut scores: Vec<f32> = Vec::new();
        writer.reset_states();
        for number in vocabulary.encode(&written_text)? {
            scores = writer.predict(&array![[number as f32]])?.into_iter().collect();
        }
        for _ in 0..written {
            let number = sampler.sample(&scores, &mut random)?;
            written_text += &vocabulary.decode(&[number])?;
            scores = writer.predict(&array![[number as f32]])?.into_iter().collect();
        }
        println!("\ntemperature {temperature}\n{}", written_text.trim_end());
    }
    Ok(())
}
