//! Times of these layers beside candle_nn's own on the same variables, in one run.
//!
//!     cargo run --release --example bench
//!
//! The least of several calls that take turns, since other work of the machine only ever adds. `frozen` has its weights packed once.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::rnn::{GRUConfig, LSTMConfig, RNN};
use candle_nn::{VarBuilder, VarMap};
use fused_rnn_candle::{gru, lstm};

/// Seconds of each of `calls`, the least of those that fit into a second and a half.
fn least(calls: &mut [&mut dyn FnMut() -> Result<()>]) -> Result<Vec<f64>> {
    let mut least = vec![f64::INFINITY; calls.len()];
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < 5 || start.elapsed() < Duration::from_millis(1500) {
        for (call, least) in calls.iter_mut().zip(&mut least) {
            let start = Instant::now();
            call()?;
            *least = least.min(start.elapsed().as_secs_f64());
        }
        rounds += 1;
    }
    Ok(least)
}

/// The layers of one cell, ours and theirs.
struct Layers<'a> {
    ours: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    theirs: &'a dyn Fn(&Tensor) -> Result<Tensor>,
}

fn report(name: &str, what: &str, times: &[f64]) {
    let [theirs, rest @ ..] = times else { return };
    let rest: Vec<String> =
        rest.iter().map(|time| format!("{:>10.1} µs ({:>5.1} times faster)", time * 1e6, theirs / time)).collect();
    println!("{name:<24} {what:<26} candle_nn {:>10.1} µs   ours {}", theirs * 1e6, rest.join("   frozen "));
}

fn main() -> Result<()> {
    println!("threads: {}", fused_rnn_candle::threads());
    for (steps, batch, input, hidden) in [(128, 32, 64, 128), (10, 1, 1, 50)] {
        let x = Tensor::randn(0f32, 1.0, (batch, steps, input), &Device::Cpu)?;
        for cell in ["LSTM", "GRU"] {
            let name = format!("{cell} {steps}x{batch} {input}->{hidden}");
            let map = VarMap::new();
            let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
            // Variables are tracked; the same tensors without them are not.
            let plain = |map: &VarMap| {
                let data = map.data().lock().map(|data| data.clone()).unwrap_or_default();
                let tensors = data.into_iter().map(|(name, variable)| (name, variable.as_tensor().detach()));
                VarBuilder::from_tensors(tensors.collect(), DType::F32, &Device::Cpu)
            };
            let target = Tensor::randn(0f32, 1.0, (batch, steps, hidden), &Device::Cpu)?;
            let passes = |layers: Layers| -> Result<Vec<f64>> {
                let input = Var::from_tensor(&x)?;
                let both = |forward: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<()> {
                    let y = forward(&input)?.reshape(target.shape())?;
                    (y * &target)?.sum_all()?.backward().map(drop)
                };
                least(&mut [&mut || both(layers.theirs), &mut || both(layers.ours)])
            };
            if cell == "LSTM" {
                let (config, make) = (LSTMConfig::default(), candle_nn::lstm);
                let (theirs, ours) = (make(input, hidden, config, vb.clone())?, lstm(input, hidden, config, vb)?);
                let their = |x: &Tensor| theirs.states_to_tensor(&theirs.seq(x)?);
                let times = passes(Layers { ours: &|x| ours.forward(x), theirs: &their })?;
                report(&name, "forward and backward", &times);
                let times = passes(Layers { ours: &|x| ours.states_to_tensor(&ours.seq(x)?), theirs: &their })?;
                report(&name, "the same by seq", &times);
                let vb = plain(&map);
                let (theirs, ours) = (make(input, hidden, config, vb.clone())?, lstm(input, hidden, config, vb)?);
                let frozen = ours.frozen()?;
                let times = least(&mut [
                    &mut || theirs.states_to_tensor(&theirs.seq(&x)?).map(drop),
                    &mut || ours.forward(&x).map(drop),
                    &mut || frozen.forward(&x).map(drop),
                ])?;
                report(&name, "forward", &times);
                let (step, state) = (x.narrow(1, 0, 1)?.squeeze(1)?, theirs.zero_state(batch)?);
                let our_state = ours.zero_state(batch)?;
                let times = least(&mut [
                    &mut || theirs.step(&step, &state).map(drop),
                    &mut || ours.step(&step, &our_state).map(drop),
                    &mut || frozen.step(&step, &our_state).map(drop),
                ])?;
                report(&name, "one step", &times);
            } else {
                let (config, make) = (GRUConfig::default(), candle_nn::gru);
                let (theirs, ours) = (make(input, hidden, config, vb.clone())?, gru(input, hidden, config, vb)?);
                let their = |x: &Tensor| theirs.states_to_tensor(&theirs.seq(x)?);
                let times = passes(Layers { ours: &|x| ours.forward(x), theirs: &their })?;
                report(&name, "forward and backward", &times);
                let vb = plain(&map);
                let (theirs, ours) = (make(input, hidden, config, vb.clone())?, gru(input, hidden, config, vb)?);
                let frozen = ours.frozen()?;
                let times = least(&mut [
                    &mut || theirs.states_to_tensor(&theirs.seq(&x)?).map(drop),
                    &mut || ours.forward(&x).map(drop),
                    &mut || frozen.forward(&x).map(drop),
                ])?;
                report(&name, "forward", &times);
            }
        }
    }
    Ok(())
}
