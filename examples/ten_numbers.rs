//! The numbers 1 to 10, scaled to 0…1, in windows of three: a training on the smallest data set, epoch by epoch. Twenty epochs of seven
//! windows are too few to learn to count; the loss shows how far they get.
//!
//! ```text
//! cargo run --release --example ten_numbers
//! ```
//!
//! It prints
//!
//! ```text
//! epoch  1: loss 0.4159
//! epoch  2: loss 0.3134
//! epoch  3: loss 0.2196
//! epoch  4: loss 0.1410
//! epoch  5: loss 0.0821
//! epoch  6: loss 0.0370
//! epoch  7: loss 0.0100
//! epoch  8: loss 0.0031
//! epoch  9: loss 0.0051
//! epoch 10: loss 0.0046
//! epoch 11: loss 0.0029
//! epoch 12: loss 0.0021
//! epoch 13: loss 0.0021
//! epoch 14: loss 0.0020
//! epoch 15: loss 0.0016
//! epoch 16: loss 0.0014
//! epoch 17: loss 0.0013
//! epoch 18: loss 0.0012
//! epoch 19: loss 0.0010
//! epoch 20: loss 0.0009
//!
//! numbers      next   predicted
//! 1, 2, 3         4        4.50
//! 2, 3, 4         5        5.32
//! 3, 4, 5         6        6.16
//! 4, 5, 6         7        7.03
//! 5, 6, 7         8        7.92
//! 6, 7, 8         9        8.83
//! 7, 8, 9        10        9.75
//! trained in 0.013 s
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::data::{Scaler, split_sequence};
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{Dense, Loss, Lstm};
use fused_rnn::optim::Adam;
use ndarray::Axis;

fn main() -> Result<()> {
    let options = common::options("ten_numbers");
    let device = options.device()?;
    let numbers: Vec<f64> = (1..=10).map(f64::from).collect();
    let scaler = Scaler::min_max(&numbers)?;
    let scaled: Vec<f32> = numbers.iter().map(|v| scaler.transform(*v) as f32).collect();
    let (x, y) = split_sequence(&scaled, 3)?;
    let x = x.insert_axis(Axis(2));

    let mut model = Sequential::new(device, &[3, 1], options.seed)?;
    model.add(Lstm::new(50))?.add(Dense::new(1))?;
    model.compile(Adam::default(), Loss::MeanSquaredError)?;
    let epochs = if options.short { 5 } else { 20 };
    let start = Instant::now();
    let history = model.fit(&x, &y, FitOptions { epochs, batch_size: 1, ..FitOptions::default() })?;
    let seconds = start.elapsed().as_secs_f64();

    for (epoch, loss) in history.loss.iter().enumerate() {
        println!("epoch {:2}: loss {loss:.4}", epoch + 1);
    }
    println!("\nnumbers      next   predicted");
    for (window, (next, predicted)) in x.outer_iter().zip(y.iter().zip(&model.predict(&x)?)) {
        let words: Vec<String> = window.iter().map(|v| format!("{:.0}", scaler.inverse(f64::from(*v)))).collect();
        let [next, predicted] = [*next, *predicted].map(|v| scaler.inverse(f64::from(v)));
        println!("{:10}  {next:5.0}   {predicted:9.2}", words.join(", "));
    }
    println!("trained in {seconds:.3} s");
    common::result("ten_numbers", "LSTM", "loss", model.evaluate(&x, &y)?, seconds);
    Ok(())
}
