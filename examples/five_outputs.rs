//! Multi-step forecast: five numbers in, 0.1 to 0.5, the next five out at once. The output layer has a unit for each step ahead.
//!
//! ```text
//! cargo run --release --example five_outputs
//! ```
//!
//! It prints
//!
//! ```text
//! Model: "sequential"
//! ┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
//! ┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
//! ┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
//! │ lstm (LSTM)                     │ (None, 50)             │        10,400 │
//! ├─────────────────────────────────┼────────────────────────┼───────────────┤
//! │ dense (Dense)                   │ (None, 5)              │           255 │
//! └─────────────────────────────────┴────────────────────────┴───────────────┘
//!  Total params: 10,655 (41.62 KB)
//!  Trainable params: 10,655 (41.62 KB)
//!  Non-trainable params: 0 (0.00 B)
//!
//! target     [[0.60, 0.70, 0.80, 0.90, 1.00]]
//! predicted  [[0.60, 0.69, 0.79, 0.88, 1.00]]
//! the furthest is 0.0156 away (Keras: within 0.03)
//! loss: 8.7e-5; trained in 0.012 s
//! ```

mod common;

use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::model::{FitOptions, Sequential};
use fused_rnn::nn::{Dense, Loss, Lstm};
use fused_rnn::optim::Adam;
use ndarray::{Array3, array};

fn main() -> Result<()> {
    let options = common::options("five_outputs");
    let device = options.device()?;
    let x: Array3<f32> = array![[[0.1], [0.2], [0.3], [0.4], [0.5]]];
    let y = array![[0.6, 0.7, 0.8, 0.9, 1.0]];

    let mut model = Sequential::new(device, &[5, 1], options.seed)?;
    model.add(Lstm::new(50))?.add(Dense::new(5))?;
    model.compile(Adam::default(), Loss::MeanSquaredError)?;
    println!("{}", model.summary());
    let epochs = if options.short { 10 } else { 100 };
    let start = Instant::now();
    let history = model.fit(&x, &y, FitOptions { epochs, batch_size: 1, ..FitOptions::default() })?;
    let seconds = start.elapsed().as_secs_f64();

    let predicted = model.predict(&x)?;
    let furthest = predicted.iter().zip(&y).map(|(p, t)| f64::from((p - t).abs())).fold(0.0, f64::max);
    println!("target     {y:.2}\npredicted  {predicted:.2}");
    println!("the furthest is {furthest:.4} away (Keras: within 0.03)");
    println!("loss: {:.1e}; trained in {seconds:.3} s", history.loss[epochs - 1]);
    common::result("five_outputs", "LSTM", "largest_error", furthest, seconds);
    Ok(())
}
