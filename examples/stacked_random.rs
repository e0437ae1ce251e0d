//! Two stacked LSTM layers on noise, as a `Sequential` and as a graph: the history that `fit` returns. As there is nothing to learn, both
//! losses fall to the variance of the noise, 1/12 = 0.083: the best prediction is its mean.
//!
//! ```text
//! cargo run --release --example stacked_random
//! ```
//!
//! It prints
//!
//! ```text
//! Model: "sequential"
//! ┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
//! ┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
//! ┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
//! │ lstm (LSTM)                     │ (None, 10, 50)         │        10,400 │
//! ├─────────────────────────────────┼────────────────────────┼───────────────┤
//! │ lstm_1 (LSTM)                   │ (None, 50)             │        20,200 │
//! ├─────────────────────────────────┼────────────────────────┼───────────────┤
//! │ dense (Dense)                   │ (None, 1)              │            51 │
//! └─────────────────────────────────┴────────────────────────┴───────────────┘
//!  Total params: 30,651 (119.73 KB)
//!  Trainable params: 30,651 (119.73 KB)
//!  Non-trainable params: 0 (0.00 B)
//!
//! Sequential
//! history: loss, val_loss
//! epoch     loss  val_loss
//!     1   0.1430    0.0802
//!     2   0.0905    0.0785
//!     3   0.0883    0.0788
//!     4   0.0874    0.0783
//!     5   0.0865    0.0777
//!     6   0.0902    0.0771
//!     7   0.0867    0.0795
//!     8   0.0862    0.0768
//!     9   0.0873    0.0778
//!    10   0.0866    0.0787
//! trained in 0.31 s
//!
//! Graph
//! history: loss, val_loss
//! epoch     loss  val_loss
//!     1   0.1430    0.0802
//!     2   0.0905    0.0785
//!     3   0.0883    0.0788
//!     4   0.0874    0.0783
//!     5   0.0865    0.0777
//!     6   0.0902    0.0771
//!     7   0.0867    0.0795
//!     8   0.0862    0.0768
//!     9   0.0873    0.0778
//!    10   0.0866    0.0787
//! trained in 0.36 s
//! ```

mod common;

use std::time::Instant;

use common::Options;
use fused_rnn::Result;
use fused_rnn::model::{FitOptions, Graph, Model, Sequential};
use fused_rnn::nn::{Dense, Loss, Lstm, Random};
use fused_rnn::optim::Adam;
use ndarray::{Array2, Array3};

fn main() -> Result<()> {
    let options = common::options("stacked_random");
    let device = options.device()?;
    let mut sequential = Sequential::new(device.clone(), &[10, 1], options.seed)?;
    sequential.add(Lstm::new(50).return_sequences(true))?.add(Lstm::new(50))?.add(Dense::new(1))?;
    println!("{}", sequential.summary());
    train("Sequential", sequential.into_model(), &options)?;

    // The same layers; each use names its inputs.
    let mut graph = Graph::new(device, options.seed);
    let input = graph.input("noise", &[10, 1])?;
    let below = graph.add(Lstm::new(50).return_sequences(true), &[&input])?;
    let above = graph.add(Lstm::new(50), &[&below])?;
    let output = graph.add(Dense::new(1), &[&above])?;
    train("Graph", graph.model(&[&output])?, &options)
}

fn train(name: &str, mut model: Model, options: &Options) -> Result<()> {
    let mut random = Random::new(options.seed, 0);
    let samples = if options.short { 100 } else { 1000 };
    let x = Array3::from_shape_simple_fn((samples, 10, 1), || random.uniform() as f32);
    let y = Array2::from_shape_simple_fn((samples, 1), || random.uniform() as f32);

    model.compile(Adam::default(), Loss::MeanSquaredError)?;
    let epochs = if options.short { 2 } else { 10 };
    let start = Instant::now();
    let fit = FitOptions { epochs, batch_size: 32, validation_split: 0.2, ..FitOptions::default() };
    let history = model.fit(&x, &y, fit)?;
    let seconds = start.elapsed().as_secs_f64();

    println!("{name}\nhistory: loss, val_loss\nepoch     loss  val_loss");
    for (epoch, (loss, val_loss)) in history.loss.iter().zip(&history.val_loss).enumerate() {
        println!("{:5}  {loss:7.4}  {val_loss:8.4}", epoch + 1);
    }
    println!("trained in {seconds:.2} s");
    common::result("stacked_random", name, "loss", history.loss[epochs - 1], seconds);
    common::result("stacked_random", name, "val_loss", history.val_loss[epochs - 1], seconds);
    picture!(options, &format!("{name}.svg"), |path| {
        let losses = [("loss", &history.loss[..]), ("val_loss", &history.val_loss[..])];
        fused_rnn::plot::history(&losses, history.best_epoch)?.save(path)
    })?;
    println!();
    Ok(())
}
