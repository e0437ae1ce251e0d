//! The even numbers from 2 to 200, unscaled, in windows of three: why the choice of the target matters.
//!
//! The tutorial behind this example uses the last value of each window as its target, not the value after it, and still calls the
//! prediction a forecast. Its model learns to repeat: for the last training window, 194, 196, 198, it predicts 198. With the value after
//! each window as the target, the same model predicts 202 for 196, 198, 200.
//!
//! ```text
//! cargo run --release --example even_numbers
//! ```
//!
//! It prints
//!
//! ```text
//! tutorial's target: 2 4 6 → 6
//!   loss 0.0120 after 200 epochs, 0.11 s
//!   after 194 196 198: 197.87 (Keras: 198 ± 0.3)
//! right target: 2 4 6 → 8
//!   loss 0.0219 after 200 epochs, 0.10 s
//!   after 196 198 200: 202.01 (Keras: 202)
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::data::split_sequence;
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{ActivationFunction, Dense, Loss, Lstm};
use fused_rnn::optim::Adam;
use ndarray::{Array3, Axis, array, s};

fn main() -> Result<()> {
    let options = common::options("even_numbers");
    let device = options.device()?;
    let numbers: Vec<f32> = (1..=100).map(|i| 2.0 * i as f32).collect();
    let (x, next) = split_sequence(&numbers, 3)?;
    let last = x.slice(s![.., 2]).to_owned();
    let x = x.insert_axis(Axis(2));
    let epochs = if options.short { 20 } else { 200 };
    let questions: [(&str, _, Array3<f32>, &str); 2] = [
        ("tutorial's target", last, array![[[194.0], [196.0], [198.0]]], "198 ± 0.3"),
        ("right target", next, array![[[196.0], [198.0], [200.0]]], "202"),
    ];
    for (name, y, question, reference) in questions {
        println!("{name}: {} {} {} → {}", x[[0, 0, 0]], x[[0, 1, 0]], x[[0, 2, 0]], y[0]);
        let mut model = Sequential::new(device.clone(), &[3, 1], options.seed)?;
        model.add(Lstm::new(50).activation(ActivationFunction::Relu))?.add(Dense::new(1))?;
        model.compile(Adam::default(), Loss::MeanSquaredError)?;
        let start = Instant::now();
        let history = model.fit(&x, &y, FitOptions { epochs, ..FitOptions::default() })?;
        let seconds = start.elapsed().as_secs_f64();
        let answer = model.predict(&question)?[[0, 0]];
        println!("  loss {:.4} after {epochs} epochs, {seconds:.2} s", history.loss[epochs - 1]);
        println!(
            "  after {} {} {}: {answer:.2} (Keras: {reference})",
            question[[0, 0, 0]],
            question[[0, 1, 0]],
            question[[0, 2, 0]]
        );
        common::result("even_numbers", name, "prediction", answer.into(), seconds);
    }
    Ok(())
}
