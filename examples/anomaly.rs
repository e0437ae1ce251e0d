//! Anomaly detection by forecast error, on 260 years of monthly sunspots.
//!
//! An LSTM learns to forecast the first part of the series from windows of 24 months. Its errors on the second part, which it has not
//! seen, give the usual mean and standard deviation; a month of the last part whose error is more than four standard deviations from that
//! mean is an anomaly. The anomalies of the late 1950s belong to the most active cycle on record.
//!
//! ```text
//! cargo run --release --example anomaly
//! ```
//!
//! ```text
//! 1562 months to learn from, until 1879-02; 782 for what is usual, until 1944-04; 782 to watch
//! usual error -0.7 ± 14.0; an anomaly is more than 56.0 away from the mean
//!
//! month     sunspots   expected
//! 1947-05      201.3      136.1
//! 1948-04      189.7      107.9
//! 1949-02      182.3      115.1
//! 1957-09      235.8      154.3
//! 1957-10      253.8      190.9
//! 1957-12      239.4      183.5
//! 1959-08      199.6      140.8
//! 1978-09      138.2       78.7
//! 1988-12      179.2      121.4
//! 1989-06      196.2      140.6
//! 1990-08      200.3      132.5
//!
//! 11 anomalies
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::data::{ColumnChoice, Gaps, Scaler, TimeSplit, read_series, windows};
use fused_rnn::model::{EarlyStopping, FitOptions, Sequential};
use fused_rnn::nn::{Dense, Loss, Lstm};
use fused_rnn::optim::Adam;
use ndarray::s;

/// Months of a window.
const WINDOW: usize = 24;
/// Standard deviations of the usual errors beyond which an error is an anomaly.
const DEVIATIONS: f64 = 4.0;

#[cfg_attr(not(feature = "plot"), allow(unused_variables, reason = "some are for the pictures alone"))]
fn main() -> Result<()> {
    let options = common::options("anomaly");
    let device = options.device()?;
    let epochs = if options.short { 1 } else { 40 };
    let series = Gaps::Error.close(&read_series(common::data("sunspots_monthly.csv"), &ColumnChoice::LastNumeric)?)?;
    let split = TimeSplit::new(series.values.len(), 0.25, 0.25)?;
    let scaler = Scaler::min_max(&series.values[split.train.clone()])?;
    let scaled: Vec<f32> = series.values.iter().map(|&value| scaler.transform(value) as f32).collect();

    // Window n ends before month n + WINDOW, which is its target.
    let (x, y) = windows(&scaled, WINDOW, 1)?;
    let (train, validation) = (0..split.train.end - WINDOW, split.train.end - WINDOW..split.validation.end - WINDOW);
    let x_validation = x.slice(s![validation.clone(), .., ..]).into_dyn();
    let y_validation = y.slice(s![validation.clone(), ..]).into_dyn();
    let mut model = Sequential::new(device, &[WINDOW, 1], options.seed)?;
    model.add(Lstm::new(32))?.add(Dense::new(1))?;
    model.compile(Adam::new(0.003)?, Loss::MeanSquaredError)?;
    let start = Instant::now();
    let fit = FitOptions {
        epochs,
        validation_data: Some((vec![x_validation.into()], vec![y_validation.into()])),
        early_stopping: Some(EarlyStopping { patience: 8, min_delta: 0.0, restore_best_weights: true }),
        ..FitOptions::default()
    };
    model.fit(x.slice(s![train.clone(), .., ..]), y.slice(s![train, ..]), fit)?;
    let seconds = start.elapsed().as_secs_f64();

    let forecast: Vec<f64> = model.predict(&x)?.iter().map(|&value| scaler.inverse(f64::from(value))).collect();
    let errors: Vec<f64> = forecast.iter().zip(&series.values[WINDOW..]).map(|(ours, real)| real - ours).collect();
    let usual = &errors[validation];
    let mean = usual.iter().sum::<f64>() / usual.len() as f64;
    let deviation = (usual.iter().map(|error| (error - mean).powi(2)).sum::<f64>() / usual.len() as f64).sqrt();
    let threshold = DEVIATIONS * deviation;
    // Months of the last part.
    let anomalies: Vec<usize> =
        split.test.clone().filter(|month| (errors[month - WINDOW] - mean).abs() > threshold).collect();

    println!(
        "{} months to learn from, until {}; {} for what is usual, until {}; {} to watch",
        split.train.len(),
        series.labels[split.train.end - 1],
        split.validation.len(),
        series.labels[split.validation.end - 1],
        split.test.len()
    );
    println!("usual error {mean:.1} ± {deviation:.1}; an anomaly is more than {threshold:.1} away from the mean\n");
    println!("month     sunspots   expected");
    for &month in &anomalies {
        println!("{:7}   {:8.1}   {:8.1}", series.labels[month], series.values[month], forecast[month - WINDOW]);
    }
    println!("\n{} anomalies, {seconds:.1} s", anomalies.len());
    common::result("anomaly", "LSTM(32)", "usual_error", deviation, seconds);

    // Months since January 1749 as years.
    let year = |month: usize| 1749.0 + month as f64 / 12.0;
    let points = |value: &dyn Fn(usize) -> f64| -> Vec<(f64, f64)> {
        split.test.clone().map(|month| (year(month), value(month))).collect()
    };
    let flagged: Vec<(f64, f64)> = anomalies.iter().map(|&month| (year(month), series.values[month])).collect();
    picture!(options, "anomalies.svg", |path| {
        use fused_rnn::plot::{Colour, Curve, LinePlot};
        LinePlot::new("Monthly sunspots, and the months that nobody expected")
            .y_label("sunspots")
            .curve(Curve::new("sunspots", points(&|month| series.values[month])).colour(Colour::GREY).width(1.0))
            .curve(Curve::new("forecast", points(&|month| forecast[month - WINDOW])).colour(Colour::BLUE).width(1.0))
            .curve(Curve::new("anomaly", flagged).colour(Colour::VERMILLION).dots())
            .size(1000, 400)
            .save(path)
    })?;
    picture!(options, "errors.svg", |path| {
        use fused_rnn::plot::{Colour, Curve, LinePlot};
        LinePlot::new("Errors of the forecast, and what is usual")
            .y_label("real − forecast")
            .curve(Curve::new("error", points(&|month| errors[month - WINDOW])).colour(Colour::GREY).width(1.0))
            .curve(Curve::new("threshold", points(&|_| mean + threshold)).colour(Colour::VERMILLION).dashed())
            .curve(Curve::new("", points(&|_| mean - threshold)).colour(Colour::VERMILLION).dashed())
            .size(1000, 400)
            .save(path)
    })
}
