//! An encoder–decoder learns addition: "37+85" to "122", digit by digit.
//!
//! The encoder's last states are the decoder's initial states. In training the decoder reads the right digit before each one that it has
//! to predict (teacher forcing), so that all steps are computed at once; in inference it reads its own predictions, a step at a time, and
//! takes the most likely digit until the end symbol (greedy decoding). The inference models have the trained weights, layer by layer.
//!
//! ```text
//! cargo run --release --example seq2seq
//! ```
//!
//! ```text
//! loss by epoch 1.603 1.242 0.977 0.862 0.752 0.600 0.439 0.302 0.213 0.158 0.156 0.086 0.059 0.069 0.058 0.032 …
//!
//! 59 + 14 = 73
//! 63 + 22 = 85
//! 34 + 22 = 56
//! 99 + 33 = 132
//! 54 + 66 = 120
//! 87 + 86 = 173
//! 57 + 59 = 116
//! 41 + 82 = 123
//!
//! 995 of 1000 sums right that it had never seen, after … s of training on 8000
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::metrics::argmax_rows;
use fused_rnn::model::{FitOptions, Graph, GraphTensor, Model};
use fused_rnn::nn::{Dense, Embedding, Loss, Lstm, Random};
use fused_rnn::optim::Adam;
use ndarray::{Array2, Axis, Slice};

const UNITS: usize = 128;
const WIDTH: usize = 16;
/// Indices of the symbols: 0 is padding, then come the digits, the plus sign, the start and the end.
const PLUS: usize = 11;
const START: usize = 12;
const END: usize = 13;
const SYMBOLS: usize = 14;
/// Length of the longest question, 99+99, and of the longest answer with its end symbol, 198.
const QUESTION: usize = 5;
const ANSWER: usize = 4;

fn main() -> Result<()> {
    let options = common::options("seq2seq");
    let device = options.device()?;
    let (train, test, epochs) = if options.short { (256, 64, 1) } else { (8000, 1000, 30) };
    // Each sum of two numbers below 100 once, in random order.
    let mut sums: Vec<(usize, usize)> = (0..10_000).map(|i| (i / 100, i % 100)).collect();
    Random::new(options.seed, 0).shuffle(&mut sums);
    sums.truncate(train + test);
    let questions = symbols(sums.iter().map(|(a, b)| format!("{a}+{b}")), &[], QUESTION);
    let inputs = symbols(sums.iter().map(|(a, b)| (a + b).to_string()), &[START], ANSWER);
    let targets = symbols(sums.iter().map(|(a, b)| format!("{}e", a + b)), &[], ANSWER);
    let part = |array: &Array2<f32>| array.slice_axis(Axis(0), Slice::from(..train)).to_owned();

    let mut graph = Graph::new(device.clone(), options.seed);
    let (question, before) = (graph.input("question", &[QUESTION])?, graph.input("before", &[ANSWER])?);
    let (h, c) = encoder(&mut graph, &question)?;
    let (scores, _, _) = decoder(&mut graph, &before, &h, &c)?;
    let mut model = graph.model(&[&scores])?;
    model.compile(Adam::new(0.003)?, Loss::SparseCategoricalCrossentropy { from_logits: true })?;
    println!("{}", model.summary());
    let start = Instant::now();
    let (x, y) = ([part(&questions), part(&inputs)], part(&targets));
    let history = model.fit(
        [x[0].view().into_dyn(), x[1].view().into_dyn()],
        [y.view().into_dyn()],
        FitOptions { epochs, batch_size: 64, ..FitOptions::default() },
    )?;
    let seconds = start.elapsed().as_secs_f64();
    let losses: Vec<String> = history.loss.iter().map(|loss| format!("{loss:.3}")).collect();
    println!("loss by epoch {}\n", losses.join(" "));

    // For inference: the encoder alone, and the decoder for one step.
    let mut graph = Graph::new(device.clone(), 0);
    let question = graph.input("question", &[QUESTION])?;
    let (h, c) = encoder(&mut graph, &question)?;
    let mut encode = graph.model(&[&h, &c])?;
    let mut graph = Graph::new(device, 0);
    let before = graph.input("before", &[1])?;
    let (h, c) = (graph.input("h", &[UNITS])?, graph.input("c", &[UNITS])?);
    let (scores, h, c) = decoder(&mut graph, &before, &h, &c)?;
    let mut decode = graph.model(&[&scores, &h, &c])?;
    copy_weights(&model, &mut encode)?;
    copy_weights(&model, &mut decode)?;

    let unseen = questions.slice_axis(Axis(0), Slice::from(train..));
    let mut states = encode.predict_all(unseen)?;
    let mut answers = vec![String::new(); test];
    let mut done = vec![false; test];
    let mut last = vec![START; test];
    for _ in 0..ANSWER {
        let before = Array2::from_shape_fn((test, 1), |(row, _)| last[row] as f32);
        let views = [before.view().into_dyn(), states[0].view(), states[1].view()];
        let mut outputs = decode.predict_all(views)?;
        states = outputs.split_off(1);
        last = argmax_rows(common::rows(&outputs[0]).view())?;
        for row in 0..test {
            done[row] |= last[row] == END;
            if !done[row] {
                answers[row].push(letter(last[row]));
            }
        }
    }
    let right = answers.iter().zip(&sums[train..]).filter(|(answer, (a, b))| **answer == (a + b).to_string()).count();
    for (answer, (a, b)) in answers.iter().zip(&sums[train..]).take(8) {
        let verdict = if *answer == (a + b).to_string() { "" } else { "   wrong" };
        println!("{a:2} + {b:2} = {answer}{verdict}");
    }
    println!("\n{right} of {test} sums right that it had never seen, after {seconds:.1} s of training on {train}");
    common::result("seq2seq", "LSTM encoder-decoder", "answers_right", right as f64 / test as f64, seconds);
    Ok(())
}

/// The last states after the question; padding is masked.
fn encoder(graph: &mut Graph, question: &GraphTensor) -> Result<(GraphTensor, GraphTensor)> {
    let embedding = graph.named_layer("encoder_embedding", Embedding::new(SYMBOLS, WIDTH).mask_zero(true))?;
    let lstm = graph.named_layer("encoder", Lstm::new(UNITS).return_state(true))?;
    let embedded = graph.call(embedding, &[question])?;
    let outputs = graph.call_all(lstm, &[&embedded])?;
    Ok((outputs[1].clone(), outputs[2].clone()))
}

/// Scores of the next symbol at each step, and the last states, from the symbols before and the initial states.
fn decoder(
    graph: &mut Graph,
    before: &GraphTensor,
    h: &GraphTensor,
    c: &GraphTensor,
) -> Result<(GraphTensor, GraphTensor, GraphTensor)> {
    let embedding = graph.named_layer("decoder_embedding", Embedding::new(SYMBOLS, WIDTH).mask_zero(true))?;
    let lstm = graph.named_layer("decoder", Lstm::new(UNITS).return_sequences(true).return_state(true))?;
    let dense = graph.named_layer("scores", Dense::new(SYMBOLS))?;
    let embedded = graph.call(embedding, &[before])?;
    let outputs = graph.call_all(lstm, &[&embedded, h, c])?;
    let scores = graph.call(dense, &[&outputs[0]])?;
    Ok((scores, outputs[1].clone(), outputs[2].clone()))
}

/// Copies the weights of a model's layers from the layers of the same names in another.
fn copy_weights(from: &Model, to: &mut Model) -> Result<()> {
    let names: Vec<String> = to.weights().map(|(name, ..)| name).collect();
    names.iter().try_for_each(|name| to.set_weight(name, &from.weight::<f32>(name)?))
}

/// Texts as indices of symbols `[texts, length]`, each after `first`, padded at the end.
fn symbols(texts: impl ExactSizeIterator<Item = String>, first: &[usize], length: usize) -> Array2<f32> {
    let mut numbers = Array2::zeros((texts.len(), length));
    for (mut row, text) in numbers.rows_mut().into_iter().zip(texts) {
        let symbols = text.chars().map(|c| match c {
            '+' => PLUS,
            'e' => END,
            digit => 1 + digit as usize - '0' as usize,
        });
        row.iter_mut().zip(first.iter().copied().chain(symbols)).for_each(|(to, symbol)| *to = symbol as f32);
    }
    numbers
}

/// The character of a symbol.
fn letter(symbol: usize) -> char {
    match symbol {
        1..=10 => char::from(b'0' + (symbol - 1) as u8),
        PLUS => '+',
        _ => '?',
    }
}
