//! [`Dropout`].

use serde::{Deserialize, Serialize};

use crate::backend::{Device, TensorMut, TensorRef};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::one_input;
use crate::nn::op::{Backward, Forward, Op};
use crate::rnn::dropout::Dropout as Mask;

/// In training, elements zeroed at random and the others scaled up, so that sums stay as they are: Keras's
/// [`Dropout`](https://keras.io/api/layers/regularization_layers/dropout/) ([Srivastava et al. 2014](https://jmlr.org/papers/v15/srivastava14a.html)).
/// Masks are drawn from the model's seed and the number of the batch: the same on every device. Shapes and the sequence's mask pass
/// through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Dense, Dropout, Lstm}};
///
/// let mut model = Sequential::new(Device::cpu(), &[10, 3], 1)?;
/// model.add(Lstm::new(32))?.add(Dropout::new(0.2))?.add(Dense::new(1))?;
/// assert_eq!(model.output_shape(), [1]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Probability of zeroing an element.
    pub rate: f64,
}

impl Dropout {
    /// A layer that zeroes elements with probability `rate`.
    pub fn new(rate: f64) -> Self {
        Dropout { rate }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        Ok(vec![dropped(builder, x, self.rate)?])
    }
}

/// Refuses what is no probability of dropping.
pub(super) fn check_rate(builder: &Builder, option: &str, rate: f64) -> Result<()> {
    if (0.0..1.0).contains(&rate) {
        return Ok(());
    }
    Err(Error::option(format!("{option} of {}", builder.name()), "a probability, at least 0 and below 1", rate))
}

/// `x` with elements dropped in training.
pub(super) fn dropped(builder: &mut Builder, x: &Value, rate: f64) -> Result<Value> {
    check_rate(builder, "rate", rate)?;
    if rate == 0.0 {
        return Ok(x.clone());
    }
    let number = builder.op_number();
    let shape = x.shape().to_vec();
    let dropped = builder.op1(DropoutOp { rate, number, features: x.size() }, &[x], &shape, 0..0)?;
    Ok(dropped.with_mask(x.mask()))
}

struct DropoutOp {
    rate: f64,
    number: u32,
    features: usize,
}

impl DropoutOp {
    fn apply(&self, device: &Device, seed: u64, batch: usize, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        let mask = Mask::new(self.rate, seed);
        device.dropout(&mask, self.number as usize, batch, self.features, x, y)
    }
}

impl Op for DropoutOp {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let y = pass.outputs.get(0)?;
        match pass.training {
            true => self.apply(device, pass.seed, pass.batch, pass.inputs.get(0)?, y),
            false => device.copy(pass.inputs.get(0)?, y),
        }
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        self.apply(device, pass.seed, pass.batch, pass.doutputs.get(0)?, pass.dinputs.get(0)?)
    }
}
