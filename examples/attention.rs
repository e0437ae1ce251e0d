//! LSTM with and without attention on a memory task: in a sequence of 100 steps three symbols are marked with a colour each, and the
//! last step asks which symbol had one of the colours.
//!
//! An LSTM alone has to carry three symbols and their colours to the end in its state, and at the start of training almost no gradient
//! passes through a hundred steps. With attention the last state, which knows the question, is a query over all steps, none further away
//! than another. The picture shows the attention weights: they learn to point at the step in question.
//!
//! ```text
//! cargo run --release --example attention
//! ```
//!
//! ```text
//! LSTM: test accuracy 0.124 after … s; loss by epoch 2.08 2.08 2.07 2.07 2.06 2.06 2.05 2.05 2.03 2.01 …
//! LSTM with attention: test accuracy 1.000 after … s; loss by epoch 2.09 2.07 2.07 2.06 0.83 0.01 0.00 …
//! steps asked for   [56, 80, 75, 77, 12, 67, 71, 46, 11, 24, 63, 53]
//! looks most at     [56, 80, 75, 77, 12, 67, 71, 46, 11, 24, 63, 53]
//! ```

mod common;

use std::time::Instant;

use common::recall::{FEATURES, SYMBOLS, sequences};
use fused_rnn::metrics::{accuracy, argmax_rows};
use fused_rnn::model::{FitOptions, Graph, Model};
use fused_rnn::nn::{Attention, Concatenate, Dense, Flatten, Loss, Lstm, Reshape};
use fused_rnn::optim::Adam;
use fused_rnn::{Device, Result};
use ndarray::{Array2, s};

const UNITS: usize = 32;

fn main() -> Result<()> {
    let options = common::options("attention");
    let device = options.device()?;
    let (samples, steps, epochs) = if options.short { (64, 20, 1) } else { (2000, 100, 20) };
    let (train, test) = (sequences(samples, steps, options.seed, 0), sequences(samples / 4, steps, options.seed, 1));
    let truth: Vec<usize> = test.y.iter().map(|&symbol| symbol as usize).collect();
    println!("{samples} sequences of {steps} steps, {SYMBOLS} symbols; by chance {:.3}\n", 1.0 / SYMBOLS as f64);

    for (name, attention) in [("LSTM", false), ("LSTM with attention", true)] {
        let mut model = build(&device, steps, attention, false, options.seed)?;
        model.compile(Adam::new(0.005)?, Loss::SparseCategoricalCrossentropy { from_logits: true })?;
        let start = Instant::now();
        let history = model.fit(&train.x, &train.y, FitOptions { epochs, ..FitOptions::default() })?;
        let seconds = start.elapsed().as_secs_f64();

        let predicted = argmax_rows(common::rows(&model.predict(&test.x)?).view())?;
        let right = accuracy(&truth, &predicted)?;
        let losses: Vec<String> = history.loss.iter().map(|loss| format!("{loss:.2}")).collect();
        println!("{name}: test accuracy {right:.3} after {seconds:.1} s; loss by epoch {}", losses.join(" "));
        common::result("attention", name, "test_accuracy", right, seconds);

        if attention {
            // The same model with the attention weights as a second output.
            let mut watched = build(&device, steps, true, true, options.seed)?;
            watched.set_flat_weights(&model.flat_weights::<f32>()?)?;
            let shown = 12.min(test.asked.len());
            let looks = common::rows(&watched.predict_all(test.x.slice(s![..shown, .., ..]))?[1]);
            let looks: Array2<f64> = looks.mapv(f64::from);
            let most: Vec<usize> = argmax_rows(looks.view())?;
            println!("steps asked for   {:?}\nlooks most at     {most:?}", &test.asked[..shown]);
            picture!(options, "attention_map.svg", |path| {
                let rows = test.asked.iter().take(shown).map(|mark| format!("asked: {mark}"));
                let columns = (0..steps).map(|step| step.to_string());
                let title = "Where the last state looks";
                fused_rnn::plot::attention_map(title, rows, columns, looks.view())?.size(1000, 380).save(path)
            })?;
        }
    }
    Ok(())
}

/// A model from a sequence to the scores of the symbols; when `watched`, also to the attention weights `[1, steps]`.
fn build(device: &Device, steps: usize, attention: bool, watched: bool, seed: u64) -> Result<Model> {
    let mut graph = Graph::new(device.clone(), seed);
    let x = graph.input("sequence", &[steps, FEATURES])?;
    if !attention {
        let last = graph.add(Lstm::new(UNITS), &[&x])?;
        let scores = graph.add(Dense::new(SYMBOLS), &[&last])?;
        return graph.model(&[&scores]);
    }
    let last = graph.add(Lstm::new(UNITS), &[&x])?;
    // One query, the last state; a key and value for every step.
    let query = graph.add(Reshape::new(&[1, UNITS as i64]), &[&last])?;
    let every = graph.add(Dense::new(UNITS), &[&x])?;
    let mut looked = graph.add_all(Attention::new().return_attention_scores(watched), &[&query, &every])?;
    let found = graph.add(Flatten::new(), &[&looked[0]])?;
    let both = graph.add(Concatenate::new(), &[&found, &last])?;
    let scores = graph.add(Dense::new(SYMBOLS), &[&both])?;
    match looked.pop().filter(|_| watched) {
        Some(weights) => graph.model(&[&scores, &weights]),
        None => graph.model(&[&scores]),
    }
}
