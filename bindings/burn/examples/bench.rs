//! Times of these layers beside burn's own with the same weights, in one run.
//!
//!     cargo run --release --features bench --example bench
//!
//! The feature gives burn's CPU backend the threads and vectors that it has in a program with burn's default features. Times are the
//! least of several calls that take turns, since other work of the machine only ever adds. `frozen` has its weights packed once.

use std::time::{Duration, Instant};

use burn_core::module::Module;
use burn_core::tensor::{Device, Distribution, Tensor};
use fused_rnn_burn::fused_rnn::Result;
use fused_rnn_burn::{Call, Gru, Lstm};

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

fn report(name: &str, what: &str, times: &[f64]) {
    let [theirs, rest @ ..] = times else { return };
    let rest: Vec<String> =
        rest.iter().map(|time| format!("{:>10.1} µs ({:>5.1} times faster)", time * 1e6, theirs / time)).collect();
    println!("{name:<24} {what:<22} burn {:>10.1} µs   ours {}", theirs * 1e6, rest.join("   frozen "));
}

type Forward<'a> = &'a dyn Fn(Tensor<3>) -> Result<Tensor<3>>;

/// A training step's passes: forward, a loss, backward.
fn passes(theirs: Forward, ours: Forward, x: &Tensor<3>, factors: &Tensor<3>) -> Result<Vec<f64>> {
    let both = |forward: Forward| -> Result<()> {
        let y = forward(x.clone().require_grad())?;
        drop((y * factors.clone()).sum().backward());
        Ok(())
    };
    least(&mut [&mut || both(theirs), &mut || both(ours)])
}

fn main() -> Result<()> {
    println!("threads: {}", fused_rnn_burn::threads());
    if !cfg!(feature = "bench") {
        println!(
            "burn's backend has neither threads nor vectors in this build: add --features bench to compare with what programs use"
        );
    }
    let (plain, device) = (Device::flex(), Device::flex().autodiff());
    for (steps, batch, input, hidden) in [(128, 32, 64, 128), (10, 1, 1, 50)] {
        let x = Tensor::<3>::random([batch, steps, input], Distribution::Normal(0.0, 1.0), &plain);
        let factors = Tensor::<3>::random([batch, steps, hidden], Distribution::Normal(0.0, 1.0), &device);
        let tracked = Tensor::from_inner(x.clone());

        let name = format!("LSTM {steps}x{batch} {input}->{hidden}");
        let theirs = burn_nn::LstmConfig::new(input, hidden, true).init(&device);
        let ours = Lstm::from_burn(&theirs)?;
        let their = |x| Ok(theirs.forward(x, None).0);
        let times = passes(&their, &|x| Ok(ours.forward(x, None)?.0), &tracked, &factors)?;
        report(&name, "forward and backward", &times);
        let (theirs, ours, frozen) = (theirs.valid(), ours.valid(), ours.frozen()?);
        let times = least(&mut [
            &mut || {
                drop(theirs.forward(x.clone(), None));
                Ok(())
            },
            &mut || ours.forward(x.clone(), None).map(drop),
            &mut || frozen.run(x.clone(), &Call::default()).map(drop),
        ])?;
        report(&name, "forward", &times);

        let name = format!("GRU {steps}x{batch} {input}->{hidden}");
        let theirs = burn_nn::GruConfig::new(input, hidden, true).init(&device);
        let ours = Gru::from_burn(&theirs)?;
        let their = |x| Ok(theirs.forward(x, None));
        let times = passes(&their, &|x| ours.forward(x, None), &tracked, &factors)?;
        report(&name, "forward and backward", &times);
        let (theirs, ours, frozen) = (theirs.valid(), ours.valid(), ours.frozen()?);
        let times = least(&mut [
            &mut || {
                drop(theirs.forward(x.clone(), None));
                Ok(())
            },
            &mut || ours.forward(x.clone(), None).map(drop),
            &mut || frozen.run(x.clone(), &Call::default()).map(drop),
        ])?;
        report(&name, "forward", &times);
    }
    Ok(())
}
