//! Forecast of two features: five rows 1 2, 2 3, …, 5 6, then 6 7.
//!
//! In the tutorial behind this example the model has one output, but the target has two numbers. Keras broadcasts the output and trains
//! silently towards their mean, so that the forecast is one number, wrong for both. Here `fit` returns an error with both shapes; with an
//! output for each feature the model learns what the tutorial describes.
//!
//! ```text
//! cargo run --release --example two_features
//! ```
//!
//! It prints
//!
//! ```text
//! Dense(1), as in the tutorial:
//!   refused: y: expected [samples, 1] (samples, then the model's output shape), got [1, 2]
//! Dense(2), one output a feature:
//!   after 1 2, 2 3, 3 4, 4 5, 5 6: 6.005 7.001 (it is 6 7)
//!   loss: 1.4e-5; trained in 0.016 s
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{ActivationFunction, Dense, Loss, Lstm};
use fused_rnn::optim::Adam;
use ndarray::{Array3, array};

fn main() -> Result<()> {
    let options = common::options("two_features");
    let device = options.device()?;
    // One sample of five steps of two features.
    let x: Array3<f32> = array![[[1.0, 2.0], [2.0, 3.0], [3.0, 4.0], [4.0, 5.0], [5.0, 6.0]]];
    let y = array![[6.0, 7.0]];
    let epochs = if options.short { 20 } else { 200 };
    let model = |outputs: usize| -> Result<_> {
        let mut model = Sequential::new(device.clone(), &[5, 2], options.seed)?;
        model.add(Lstm::new(50).activation(ActivationFunction::Relu))?.add(Dense::new(outputs))?;
        model.compile(Adam::default(), Loss::MeanSquaredError)?;
        Ok(model)
    };
    let fit = || FitOptions { epochs, batch_size: 1, ..FitOptions::default() };

    println!("Dense(1), as in the tutorial:");
    let error = model(1)?.fit(&x, &y, fit()).expect_err("one output for a target of two numbers");
    println!("  refused: {error}");

    println!("Dense(2), one output a feature:");
    let mut model = model(2)?;
    let start = Instant::now();
    let history = model.fit(&x, &y, fit())?;
    let seconds = start.elapsed().as_secs_f64();
    let predicted = model.predict(&x)?;
    println!("  after 1 2, 2 3, 3 4, 4 5, 5 6: {:.3} {:.3} (it is 6 7)", predicted[[0, 0]], predicted[[0, 1]]);
    println!("  loss: {:.1e}; trained in {seconds:.3} s", history.loss[epochs - 1]);
    common::result("two_features", "LSTM", "loss", history.loss[epochs - 1], seconds);
    Ok(())
}
