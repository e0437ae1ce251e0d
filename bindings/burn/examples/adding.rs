//! The adding problem (Hochreiter and Schmidhuber 1997): a sequence of random numbers, two of which are marked; the LSTM is to give
//! their sum after the last step. Sequences have different lengths.
//!
//!     cargo run --release --example adding
//!
//! Predicting 1 always has a mean squared error of 1/6; the example ends with an error if the trained one is not far below.

use burn_core as burn;
use burn_core::module::Module;
use burn_core::tensor::{Device, Tensor, TensorData};
use burn_nn::loss::{MseLoss, Reduction};
use burn_nn::{Linear, LinearConfig};
use burn_optim::{AdamConfig, GradientsParams};
use fused_rnn_burn::{Call, Lstm, LstmConfig, fused_rnn};

const STEPS: usize = 20;
const BATCH: usize = 32;
const UNITS: usize = 16;

#[derive(Module, Debug)]
struct Adder {
    lstm: Lstm,
    head: Linear,
}

impl Adder {
    fn init(device: &Device) -> fused_rnn::Result<Self> {
        Ok(Adder {
            lstm: LstmConfig::new(2, UNITS, true).init(device)?,
            head: LinearConfig::new(UNITS, 1).init(device),
        })
    }

    fn forward(&self, batch: &Batch) -> fused_rnn::Result<Tensor<2>> {
        let out = self.lstm.run(batch.x.clone(), &Call::default().lengths(&batch.lengths))?;
        Ok(self.head.forward(out.states.h.squeeze_dim(0)))
    }
}

/// Sequences, each with its length, and what the marked numbers sum to.
struct Batch {
    x: Tensor<3>,
    lengths: Vec<u32>,
    sums: Tensor<2>,
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

fn batch(random: &mut Random, device: &Device) -> Batch {
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
    let x = Tensor::from_data(TensorData::new(x, [BATCH, STEPS, 2]), device);
    Batch { x, lengths, sums: Tensor::from_data(TensorData::new(sums, [BATCH, 1]), device) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = std::time::Instant::now();
    let device = Device::flex().autodiff();
    device.seed(1);
    let mut model = Adder::init(&device)?;
    let mut optimizer = AdamConfig::new().init();
    let mut random = Random(1);
    let mut error = f32::INFINITY;
    for step in 1..=2000 {
        let batch = batch(&mut random, &device);
        let loss = MseLoss::new().forward(model.forward(&batch)?, batch.sums, Reduction::Mean);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.01, model, gradients);
        if step % 100 == 0 {
            error = loss.inner().into_scalar();
            println!("step {step}: mean squared error {error:.5}");
            if error < 0.005 {
                break;
            }
        }
    }
    println!("trained in {:.1} s", start.elapsed().as_secs_f64());
    match error < 0.02 {
        true => Ok(()),
        false => Err(format!("the mean squared error is still {error}, but should be below 0.02").into()),
    }
}
