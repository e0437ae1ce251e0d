//! A memory task: a long sequence of symbols, three of them marked with a colour each; the last step asks which symbol had one of the
//! colours.

use fused_rnn::nn::Random;
use ndarray::{Array1, Array3};

/// Number of different symbols.
pub const SYMBOLS: usize = 8;
/// Number of colours; each marks one step.
pub const COLOURS: usize = 3;
/// Values of a step: its symbol and its colour, if any, one-hot. The last step has only the colour in question.
pub const FEATURES: usize = SYMBOLS + COLOURS;

/// Sequences and their targets.
pub struct Recall {
    /// `[samples, steps, FEATURES]`
    pub x: Array3<f32>,
    /// The symbol that had the colour in question.
    pub y: Array1<f32>,
    /// The step of that symbol.
    pub asked: Vec<usize>,
}

/// Random sequences, from stream `stream` of the random numbers of `seed`.
pub fn sequences(samples: usize, steps: usize, seed: u64, stream: u32) -> Recall {
    let mut random = Random::new(seed, stream);
    let (mut x, mut y) = (Array3::zeros((samples, steps, FEATURES)), Array1::zeros(samples));
    let mut asked = Vec::new();
    let mut places: Vec<usize> = (0..steps - 1).collect();
    for sample in 0..samples {
        // The first places get the colours.
        random.shuffle(&mut places);
        let colour = (random.uniform() * COLOURS as f64) as usize;
        for (number, &step) in places.iter().enumerate() {
            let symbol = (random.uniform() * SYMBOLS as f64) as usize;
            x[[sample, step, symbol]] = 1.0;
            if number < COLOURS {
                x[[sample, step, SYMBOLS + number]] = 1.0;
            }
            if number == colour {
                y[sample] = symbol as f32;
                asked.push(step);
            }
        }
        x[[sample, steps - 1, SYMBOLS + colour]] = 1.0;
    }
    Recall { x, y, asked }
}
