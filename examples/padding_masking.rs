//! Sequences of different lengths in one array: why padding has to be masked.
//!
//! The target is the mean of the last three values of a sequence of 5 to 40 steps. Without a mask an LSTM reads padding after the end of
//! all but the longest sequences, and has to carry its state through it; after `Masking` it stops at the end of each sequence. Then the
//! amount of padding does not matter: both models predict once more with 20 more steps of padding.
//!
//! ```text
//! cargo run --release --example padding_masking
//! ```
//!
//! ```text
//! 1000 sequences, of 5 to 40 steps in the test set
//!
//! without a mask: test MSE 2.60e-2 after … s; 20 more steps of padding change predictions by up to 2.0e-1
//! with Masking: test MSE 1.43e-4 after … s; 20 more steps of padding change predictions by up to 0.0e0
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::data::{Padding, pad_feature_sequences};
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{Dense, Loss, Lstm, Masking, Random};
use fused_rnn::optim::Adam;
use ndarray::{Array1, Array2};

/// The padding after the end; values are from 0 to 1.
const PADDING: f32 = -1.0;
const LONGEST: usize = 40;

fn main() -> Result<()> {
    let options = common::options("padding_masking");
    let device = options.device()?;
    let (samples, epochs) = if options.short { (100, 1) } else { (1000, 20) };
    let (train, y_train) = sequences(samples, options.seed, 0);
    let (test, y_test) = sequences(samples / 4, options.seed, 1);
    // [samples, LONGEST, 1], and the same with more padding.
    let (x_train, _) = pad_feature_sequences(&train, &Padding::at_end(Some(LONGEST), PADDING))?;
    let (x_test, lengths) = pad_feature_sequences(&test, &Padding::at_end(Some(LONGEST), PADDING))?;
    let (x_wide, _) = pad_feature_sequences(&test, &Padding::at_end(Some(LONGEST + 20), PADDING))?;
    let (shortest, longest) = (lengths.iter().min().unwrap_or(&0), lengths.iter().max().unwrap_or(&0));
    println!("{samples} sequences, of {shortest} to {longest} steps in the test set\n");

    for (name, masked) in [("without a mask", false), ("with Masking", true)] {
        let build = |steps: usize| -> Result<Sequential> {
            let mut model = Sequential::new(device.clone(), &[steps, 1], options.seed)?;
            if masked {
                model.add(Masking::new(f64::from(PADDING)))?;
            }
            model.add(Lstm::new(32))?.add(Dense::new(1))?;
            Ok(model)
        };
        let mut model = build(LONGEST)?;
        model.compile(Adam::new(0.005)?, Loss::MeanSquaredError)?;
        let start = Instant::now();
        model.fit(&x_train, &y_train, FitOptions { epochs, ..FitOptions::default() })?;
        let seconds = start.elapsed().as_secs_f64();
        let loss = model.evaluate(&x_test, &y_test)?;

        let mut wide = build(LONGEST + 20)?;
        wide.set_flat_weights(&model.flat_weights::<f32>()?)?;
        let difference = wide.predict(&x_wide)? - model.predict(&x_test)?;
        let most = difference.iter().fold(0.0, |most: f32, d| most.max(d.abs()));
        println!(
            "{name}: test MSE {loss:.2e} after {seconds:.1} s; 20 more steps of padding change predictions by up to {most:.1e}"
        );
        common::result("padding_masking", name, "test_mse", loss, seconds);
    }
    Ok(())
}

/// Sequences `[steps, 1]` of random values, and the mean of the last three of each.
fn sequences(samples: usize, seed: u64, stream: u32) -> (Vec<Array2<f32>>, Array1<f32>) {
    let mut random = Random::new(seed, stream);
    let mut all = Vec::new();
    for _ in 0..samples {
        let steps = 5 + (random.uniform() * (LONGEST - 4) as f64) as usize;
        all.push(Array2::from_shape_fn((steps, 1), |_| random.uniform() as f32));
    }
    let targets = all.iter().map(|sequence| sequence.column(0).iter().rev().take(3).sum::<f32>() / 3.0).collect();
    (all, targets)
}
