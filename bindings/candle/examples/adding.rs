//! The adding problem (Hochreiter and Schmidhuber 1997): a sequence of random numbers, two of which are marked; the LSTM is to give
//! their sum after the last step. Sequences have different lengths.
//!
//!     cargo run --release --example adding
//!
//! Predicting 1 always has a mean squared error of 1/6; the example ends with an error if the trained one is not far below.

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{Linear, Optimizer, VarBuilder, VarMap, linear, loss::mse};
use fused_rnn_candle::{Call, Lstm, Options};

const STEPS: usize = 20;
const BATCH: usize = 32;
const UNITS: usize = 16;

struct Adder {
    lstm: Lstm,
    head: Linear,
}

impl Adder {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Adder {
            lstm: Lstm::new(2, UNITS, &Options::default(), vb.pp("lstm"))?,
            head: linear(UNITS, 1, vb.pp("head"))?,
        })
    }

    fn forward(&self, batch: &Batch) -> Result<Tensor> {
        let out = self.lstm.run(&batch.x, &Call::default().lengths(&batch.lengths))?;
        self.head.forward(&out.states.h.squeeze(0)?)
    }
}

/// Sequences, each with its length, and what the marked numbers sum to.
struct Batch {
    x: Tensor,
    lengths: Vec<u32>,
    sums: Tensor,
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * end as u64) >> 32) as usize
    }

    fn unit(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 24) as f32
    }
}

fn batch(random: &mut Random) -> Result<Batch> {
    let (mut x, mut lengths, mut sums) = (vec![0.0; BATCH * STEPS * 2], Vec::new(), Vec::new());
    for sequence in x.chunks_mut(STEPS * 2) {
        let length = STEPS / 2 + random.below(STEPS / 2 + 1);
        for step in sequence.chunks_mut(2).take(length) {
            step[0] = random.unit();
        }
        let (first, second) = (random.below(length / 2), length / 2 + random.below(length - length / 2));
        for marked in [first, second] {
            sequence[2 * marked + 1] = 1.0;
        }
        sums.push(sequence[2 * first] + sequence[2 * second]);
        lengths.push(length as u32);
    }
    let x = Tensor::from_vec(x, (BATCH, STEPS, 2), &Device::Cpu)?;
    Ok(Batch { x, lengths, sums: Tensor::from_vec(sums, (BATCH, 1), &Device::Cpu)? })
}

fn main() -> Result<()> {
    let start = std::time::Instant::now();
    let variables = VarMap::new();
    let model = Adder::new(VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    let parameters = candle_nn::ParamsAdamW { lr: 0.01, weight_decay: 0.0, ..Default::default() };
    let mut optimizer = candle_nn::AdamW::new(variables.all_vars(), parameters)?;
    let mut random = Random(1);
    let mut error = f32::INFINITY;
    for step in 1..=2000 {
        let batch = batch(&mut random)?;
        let loss = mse(&model.forward(&batch)?, &batch.sums)?;
        optimizer.backward_step(&loss)?;
        if step % 100 == 0 {
            error = loss.to_scalar()?;
            println!("step {step}: mean squared error {error:.5}");
            if error < 0.005 {
                break;
            }
        }
    }
    println!("trained in {:.1} s", start.elapsed().as_secs_f64());
    match error < 0.02 {
        true => Ok(()),
        false => candle_core::bail!("the mean squared error is still {error}, but should be below 0.02"),
    }
}
