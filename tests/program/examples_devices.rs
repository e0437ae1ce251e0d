//! The model of `examples/sine_forecast.rs`, in its short form, gives the same numbers on the CPU and on a device.

use crate::common::cpu;
use fused_rnn::data::{Scaler, create_dataset};
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{Dense, Gru, LayerConfig, Loss, Lstm, SimpleRnn};
use fused_rnn::optim::Adam;
use fused_rnn::{DType, Device};
use ndarray::Axis;

fn emulated(dtype: DType) -> Device {
    Device::emulated().unwrap().with_dtype(dtype).unwrap()
}

/// What the example prints, and the losses of its epochs: the test loss, the next value (unscaled), then the losses.
fn sine_forecast(device: Device, layer: &LayerConfig) -> Vec<f64> {
    let series: Vec<f64> = (0..100).map(|i| (100.0 * f64::from(i) / 999.0).sin()).collect();
    let scaler = Scaler::min_max(&series).unwrap();
    // The same numbers for every type.
    let scaled: Vec<f64> = series.iter().map(|v| f64::from(scaler.transform(*v) as f32)).collect();
    let (x, y) = create_dataset(&scaled, 10).unwrap();
    let x = x.insert_axis(Axis(2));
    let ((x_train, x_test), (y_train, y_test)) = (x.view().split_at(Axis(0), 71), y.view().split_at(Axis(0), 71));
    let mut model = Sequential::new(device, &[10, 1], 1).unwrap();
    model.add(layer.clone()).unwrap().add(Dense::new(1)).unwrap();
    model.compile(Adam::default(), Loss::MeanSquaredError).unwrap();
    let history =
        model.fit(x_train, y_train, FitOptions { epochs: 2, batch_size: 1, ..FitOptions::default() }).unwrap();
    let next = model.predict(x_test).unwrap()[[y_test.len() - 1, 0]];
    let mut numbers = vec![model.evaluate(x_test, y_test).unwrap(), scaler.inverse(next)];
    numbers.extend(history.loss);
    numbers
}

/// In f64 both differ by roundings, which 142 steps of Adam carry on: each step moves a weight by at most about the rate, 0.001, whatever
/// its gradient's size, so that a relative error of a gradient becomes at most as much of 0.001 in a weight. 142 steps of 0.001, by sums of
/// some hundred terms of 2e-16 each, by some hundred weights into a unit: below 1e-11 in any number here. In f32 the device strays from
/// the f64 numbers no further than four times as far as the CPU does in f32, or than 256 roundings of a number of magnitude 1.
fn same_on_both(layer: impl Into<LayerConfig>) {
    let layer = layer.into();
    let truth = sine_forecast(cpu(DType::F64), &layer);
    let wide = sine_forecast(emulated(DType::F64), &layer);
    let (cpu, narrow) = (sine_forecast(cpu(DType::F32), &layer), sine_forecast(emulated(DType::F32), &layer));
    assert!(truth.iter().all(|v| v.is_finite()));
    assert_eq!(truth.len(), 4);
    let largest = |numbers: &[f64]| {
        numbers.iter().zip(&truth).map(|(a, b)| (a - b).abs()).fold(0.0, |m: f64, d| if d <= m { m } else { d })
    };
    assert!(largest(&wide) < 1e-11, "{layer:?}: {wide:?}, on the CPU {truth:?}");
    let allowed = (4.0 * largest(&cpu)).max(256.0 * f64::from(f32::EPSILON));
    assert!(largest(&narrow) <= allowed, "{layer:?}: {narrow:?}, in f64 {truth:?}, on the CPU {cpu:?}");
    println!("{layer:?}: f64 {:.1e}, f32 {:.1e} (CPU {:.1e})", largest(&wide), largest(&narrow), largest(&cpu));
}

#[test]
fn simple_rnn() {
    same_on_both(SimpleRnn::new(50));
}

#[test]
fn lstm() {
    same_on_both(Lstm::new(50));
}

#[test]
fn gru() {
    same_on_both(Gru::new(50));
}
