//! The rectifier whose slope is learned: [`PRelu`].

use serde::{Deserialize, Serialize};

use crate::cell;
use crate::error::{Error, Result};
use crate::nn::activation::elementwise;
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::repeat::broadcast;
use crate::nn::weight::weight;
use crate::nn::weight_options::{KerasShape, weight_words};
use crate::nn::{WeightOptions, merge, one_input};

/// `x` above zero and `alpha x` below, with a slope `alpha` of its own for every element of a sample, Keras's
/// [`PReLU`](https://keras.io/api/layers/activation_layers/prelu/) ([He et al. 2015](https://arxiv.org/abs/1502.01852)). Weights `alpha` of
/// the input's sample shape (zeros), with 1 for the axes that share one. Shapes pass through; a mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Dense, PRelu}};
///
/// let mut model = Sequential::new(Device::cpu(), &[10, 3], 1)?;
/// model.add(Dense::new(4))?.add(PRelu::new().shared_axes(&[1]))?; // slopes of 4 features, for all steps
/// assert_eq!(model.count_params(), 3 * 4 + 4 + 4);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PRelu {
    /// Axes along which all elements have one slope, counted from 1 as the batch is axis 0: `[1]` for one an element of a step; none.
    #[serde(default)]
    pub shared_axes: Vec<usize>,
    /// Initializer, regularizer and constraint of the slopes.
    #[serde(default, skip_serializing_if = "WeightOptions::is_default")]
    pub alpha: WeightOptions,
}

impl PRelu {
    /// A layer with a slope for every element.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the axes along which all elements have one slope, counted from 1.
    #[must_use]
    pub fn shared_axes(self, shared_axes: &[usize]) -> Self {
        PRelu { shared_axes: shared_axes.to_vec(), ..self }
    }

    weight_words! {
        [alpha] alpha_initializer alpha_regularizer alpha_constraint, "the slope";
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let mut shape = x.shape().to_vec();
        for axis in &self.shared_axes {
            let Some(shared) = axis.checked_sub(1).and_then(|axis| shape.get_mut(axis)) else {
                let expected = format!("axes from 1 to {}", x.shape().len());
                return Err(Error::option(format!("shared_axes of {}", builder.name()), expected, axis));
            };
            *shared = 1;
        }
        let (name, zeros) = (("alpha", "alpha"), Init::Constant(0.0));
        let weights = self.alpha.declare(builder, name, &shape, zeros, KerasShape::Same, None)?;
        let alpha = weight(builder, x, &shape, weights)?;
        let alpha = broadcast(builder, &alpha, x.shape())?;
        let above = elementwise(builder, x, cell::Activation::Relu)?;
        let negated = elementwise(builder, x, cell::Activation::Affine { alpha: -1.0, beta: 0.0 })?;
        let below = elementwise(builder, &negated, cell::Activation::Relu)?;
        let below = merge::product(builder, &alpha, &below)?;
        Ok(vec![merge::difference(builder, &above, &below)?])
    }
}
