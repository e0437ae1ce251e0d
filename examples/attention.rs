//! What attention is for: a sequence of 100 steps, three of its symbols marked with a colour each, and at its end a colour: which symbol
//! had it?
//!
//! An LSTM alone has to carry three symbols and their colours to the end in its state, and when training begins next to nothing comes
//! through a hundred steps to learn from. With attention its last state, which knows the question, looks back at all steps, and none is
//! further away than another. The picture shows where it looks: at the step that is asked for, as nobody told it to.
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

use common::Options;
use common::recall::{FEATURES, SYMBOLS, sequences};
use fused_rnn::Result;
use fused_rnn::backend::DenseBackend;
use fused_rnn::metrics::{accuracy, argmax_rows};
use fused_rnn::model::{FitOptions, Graph, Model};
use fused_rnn::nn::{Attention, Concatenate, Dense, Flatten, Loss, Lstm, Reshape};
use fused_rnn::optim::Adam;
use ndarray::{Array2, s};

const UNITS: usize = 32;

fn main() -> Result<()> {
    let options = common::options("attention");
    on_device!(options.device, |backend| run(&options, backend))
}

fn run<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(options: &Options, backend: impl Fn() -> B) -> Result<()> {
    let (samples, steps, epochs) = if options.short { (64, 20, 1) } else { (2000, 100, 20) };
    let (train, test) = (sequences(samples, steps, options.seed, 0), sequences(samples / 4, steps, options.seed, 1));
    let truth: Vec<usize> = test.y.iter().map(|&symbol| symbol as usize).collect();
    println!("{samples} sequences of {steps} steps, {SYMBOLS} symbols; by chance {:.3}\n", 1.0 / SYMBOLS as f64);

    for (name, attention) in [("LSTM", false), ("LSTM with attention", true)] {
        let mut model = build(backend(), steps, attention, false, options.seed)?;
        model.compile(Adam::new(0.005)?, Loss::SparseCategoricalCrossentropy { from_logits: true });
        let start = Instant::now();
        let history = model.fit(&train.x, &train.y, FitOptions { epochs, ..FitOptions::default() })?;
        let seconds = start.elapsed().as_secs_f64();

        let predicted = argmax_rows(common::rows(&model.predict(&test.x)?).view())?;
        let right = accuracy(&truth, &predicted)?;
        let losses: Vec<String> = history.loss.iter().map(|loss| format!("{loss:.2}")).collect();
        println!("{name}: test accuracy {right:.3} after {seconds:.1} s; loss by epoch {}", losses.join(" "));
        common::result("attention", name, "test_accuracy", right, seconds);

        if attention {
            // The same model with one output more: where it looks.
            let mut watched = build(backend(), steps, true, true, options.seed)?;
            watched.set_flat_weights(model.flat_weights())?;
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

/// Scores of the symbols from a sequence; when `watched`, also the weights `[1, steps]` of attention.
fn build<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(
    backend: B,
    steps: usize,
    attention: bool,
    watched: bool,
    seed: u64,
) -> Result<Model<f32, B>> {
    let mut graph = Graph::new();
    let x = graph.input("sequence", &[steps, FEATURES])?;
    if !attention {
        let last = graph.add(Lstm::new(UNITS), &[&x])?;
        let scores = graph.add(Dense::new(SYMBOLS), &[&last])?;
        return graph.model(backend, &[&scores], seed);
    }
    let last = graph.add(Lstm::new(UNITS), &[&x])?;
    // One query, from the last state, for a vector of every step.
    let query = graph.add(Reshape::new(&[1, UNITS as i64]), &[&last])?;
    let every = graph.add(Dense::new(UNITS), &[&x])?;
    let mut looked = graph.add_all(Attention::new().return_attention_scores(watched), &[&query, &every])?;
    let found = graph.add(Flatten::new(), &[&looked[0]])?;
    let both = graph.add(Concatenate::new(), &[&found, &last])?;
    let scores = graph.add(Dense::new(SYMBOLS), &[&both])?;
    match looked.pop().filter(|_| watched) {
        Some(weights) => graph.model(backend, &[&scores, &weights], seed),
        None => graph.model(backend, &[&scores], seed),
    }
}
