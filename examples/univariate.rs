//! A series of nine numbers, 10 to 90, in windows of three, and a forecast of the value after 70, 80, 90: the univariate LSTM of
//! [Brownlee's tutorial](https://machinelearningmastery.com/how-to-develop-lstm-models-for-time-series-forecasting/), unscaled, with relu.
//!
//! ```text
//! cargo run --release --example univariate
//! ```
//!
//! It prints
//!
//! ```text
//! [10, 20, 30] 40
//! [20, 30, 40] 50
//! [30, 40, 50] 60
//! [40, 50, 60] 70
//! [50, 60, 70] 80
//! [60, 70, 80] 90
//! loss: 3991.5495 after the first epoch, 0.1502 after the last
//! after 70, 80, 90: 101.60 (Keras: 100 to 103); trained in 0.020 s
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::data::split_sequence;
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{ActivationFunction, Dense, Loss, Lstm};
use fused_rnn::optim::Adam;
use ndarray::{Axis, array};

fn main() -> Result<()> {
    let options = common::options("univariate");
    let device = options.device()?;
    let series = [10.0_f32, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0];
    let (x, y) = split_sequence(&series, 3)?;
    for (window, next) in x.rows().into_iter().zip(&y) {
        println!("{window} {next}");
    }
    // [samples, steps] become [samples, steps, features].
    let x = x.insert_axis(Axis(2));

    let mut model = Sequential::new(device, &[3, 1], options.seed)?;
    model.add(Lstm::new(50).activation(ActivationFunction::Relu))?.add(Dense::new(1))?;
    model.compile(Adam::default(), Loss::MeanSquaredError)?;
    let epochs = if options.short { 20 } else { 200 };
    let start = Instant::now();
    let history = model.fit(&x, &y, FitOptions { epochs, batch_size: y.len(), ..FitOptions::default() })?;
    let seconds = start.elapsed().as_secs_f64();

    let next = model.predict(&array![[[70.0], [80.0], [90.0]]])?[[0, 0]];
    println!("loss: {:.4} after the first epoch, {:.4} after the last", history.loss[0], history.loss[epochs - 1]);
    println!("after 70, 80, 90: {next:.2} (Keras: 100 to 103); trained in {seconds:.3} s");
    common::result("univariate", "LSTM", "next_value", next, seconds);
    Ok(())
}
