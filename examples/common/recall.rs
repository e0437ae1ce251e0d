//! A task for memory: to tell which symbol stood at the marked step of a long sequence.

use fused_rnn::nn::Random;
use ndarray::{Array1, Array3};

/// Symbols that there are.
pub const SYMBOLS: usize = 8;
/// Values of a step: a one at its symbol, and whether it is the marked one.
pub const FEATURES: usize = SYMBOLS + 1;

/// Sequences with what is to be recalled of each.
pub struct Recall {
    /// `[samples, steps, FEATURES]`
    pub x: Array3<f32>,
    /// The symbol at the marked step.
    pub y: Array1<f32>,
    /// The marked step.
    pub marked: Vec<usize>,
}

/// Random symbols, one step of each sequence marked. Streams of random numbers differ by their number.
pub fn sequences(samples: usize, steps: usize, seed: u64, stream: u32) -> Recall {
    let mut random = Random::new(seed, stream);
    let mut below = |most: usize| (random.uniform() * most as f64) as usize;
    let (mut x, mut y) = (Array3::zeros((samples, steps, FEATURES)), Array1::zeros(samples));
    let mut marked = Vec::new();
    for sample in 0..samples {
        let mark = below(steps);
        for step in 0..steps {
            let symbol = below(SYMBOLS);
            x[[sample, step, symbol]] = 1.0;
            if step == mark {
                x[[sample, step, SYMBOLS]] = 1.0;
                y[sample] = symbol as f32;
            }
        }
        marked.push(mark);
    }
    Recall { x, y, marked }
}
