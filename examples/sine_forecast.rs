//! The next value of a sine wave from the ten before it, by a SimpleRNN, an LSTM and a GRU of 50 units: the first model of many tutorials.
//!
//! `sin` at 1,000 points from 0 to 100, scaled to 0…1, in windows of 10; training on the first 80 % of the windows, batch size 1, for 50
//! epochs of Adam on the mean squared error. Results: the loss on the other 20 %, and the value after the last window, unscaled.
//!
//! With batches of one sample the loss of a trained model varies from epoch to epoch, and so from seed to seed, by a factor of a hundred.
//! Over twelve seeds the LSTM ended between 2e-8 and 2e-5, with a median of 2.5e-7.
//!
//! ```text
//! cargo run --release --example sine_forecast
//! ```
//!
//! It prints
//!
//! ```text
//! 791 windows to train on, 198 to test; the value after the last is -0.5900
//!
//! model      test MSE   Keras's, by seed   next value   training      a step
//! SimpleRNN    3.2e-7   3.6e-7 … 7e-4         -0.5909     0.40 s     10.0 µs
//! LSTM         1.3e-7   1e-8 … 3e-7           -0.5905     1.02 s     25.9 µs
//! GRU          3.5e-6   1e-6 … 2e-6           -0.5895     0.85 s     21.4 µs
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::data::{Scaler, create_dataset};
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{Dense, Gru, LayerConfig, Loss, Lstm, SimpleRnn};
use fused_rnn::optim::Adam;
use ndarray::Axis;

fn main() -> Result<()> {
    let options = common::options("sine_forecast");
    let device = options.device()?;
    let (points, epochs) = if options.short { (100, 2) } else { (1000, 50) };
    let series: Vec<f64> = (0..points).map(|i| (100.0 * i as f64 / 999.0).sin()).collect();
    let scaler = Scaler::min_max(&series)?;
    let scaled: Vec<f32> = series.iter().map(|v| scaler.transform(*v) as f32).collect();

    // [989, 10] and [989]; layers have features in the last axis.
    let (x, y) = create_dataset(&scaled, 10)?;
    let x = x.insert_axis(Axis(2));
    let train = x.len_of(Axis(0)) * 8 / 10;
    let ((x_train, x_test), (y_train, y_test)) = (x.view().split_at(Axis(0), train), y.view().split_at(Axis(0), train));
    let next = scaler.inverse(f64::from(y_test[y_test.len() - 1]));
    println!("{train} windows to train on, {} to test; the value after the last is {next:.4}\n", y_test.len());

    println!("model      test MSE   Keras's, by seed   next value   training      a step");
    let layers: [(&str, LayerConfig, &str); 3] = [
        ("SimpleRNN", SimpleRnn::new(50).into(), "3.6e-7 … 7e-4"),
        ("LSTM", Lstm::new(50).into(), "1e-8 … 3e-7"),
        ("GRU", Gru::new(50).into(), "1e-6 … 2e-6"),
    ];
    let (mut forecasts, mut losses) = (Vec::new(), Vec::new());
    for (name, layer, reference) in layers {
        let mut model = Sequential::new(device.clone(), &[10, 1], options.seed)?;
        model.add(layer)?.add(Dense::new(1))?;
        model.compile(Adam::default(), Loss::MeanSquaredError)?;
        let start = Instant::now();
        let history = model.fit(x_train, y_train, FitOptions { epochs, batch_size: 1, ..FitOptions::default() })?;
        let seconds = start.elapsed().as_secs_f64();

        let loss = model.evaluate(x_test, y_test)?;
        let forecast: Vec<f64> = model.predict(x_test)?.iter().map(|v| scaler.inverse(f64::from(*v))).collect();
        let next = forecast[forecast.len() - 1];
        let step = seconds / (epochs * train) as f64 * 1e6;
        println!("{name:9}  {loss:8.1e}   {reference:16}   {next:10.4}   {seconds:6.2} s   {step:6.1} µs");
        common::result("sine_forecast", name, "test_mse", loss, seconds);
        common::result("sine_forecast", name, "next_value", next, seconds);
        forecasts.push((name, forecast));
        losses.push((name, history.loss));
    }
    picture!(options, "forecast.svg", |path| {
        use fused_rnn::plot::{Colour, Curve, LinePlot};
        let truth: Vec<f64> = y_test.iter().map(|v| scaler.inverse(f64::from(*v))).collect();
        let truth = Curve::of_values("truth", &truth).colour(Colour::GREY).width(6.0);
        let plot =
            LinePlot::new("The next value of a sine").x_label("window of the test").y_label("value").curve(truth);
        let coloured = forecasts.iter().zip([Colour::BLUE, Colour::VERMILLION, Colour::GREEN]);
        let curve = |name: &str, values, colour| Curve::of_values(name, values).colour(colour);
        coloured.fold(plot, |plot, ((name, values), colour)| plot.curve(curve(name, values, colour))).save(path)
    })?;
    picture!(options, "losses.svg", |path| {
        use fused_rnn::plot::{Curve, LinePlot};
        let plot = LinePlot::new("Training").x_label("epoch").y_label("mean squared error").log_y(true);
        let points =
            |values: &[f64]| (1..).zip(values).map(|(epoch, loss)| (f64::from(epoch), *loss)).collect::<Vec<_>>();
        losses.iter().fold(plot, |plot, (name, values)| plot.curve(Curve::new(*name, points(values)))).save(path)
    })
}
