//! [`TimeDistributed`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::masking::{KeepRows, NotEqual, unfit};
use crate::nn::{Layer, LayerConfig, one_input};

/// A layer for every step alike, with the same weights, Keras's
/// [`TimeDistributed`](https://keras.io/api/layers/recurrent_layers/time_distributed/): `[steps, …]` to `[steps, …]`. The steps become rows
/// of one batch, so that nothing is done a step at a time.
///
/// A mask of steps passes by. One that goes on inside of the steps, as of words of padded characters `[words, characters]`, is given to
/// the layer for each step; where that ends it, a step is absent if all within it is: the empty words, for the layers above.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Embedding, Gru, Lstm, TimeDistributed}};
///
/// let mut model = Sequential::new(Device::cpu(), &[6, 12], 1)?;
/// // Sentences of 6 words of 12 characters: a GRU reads each word, an LSTM the words.
/// model.add(Embedding::new(100, 8).mask_zero(true))?;
/// assert_eq!(model.output_shape(), [6, 12, 8]);
/// model.add(TimeDistributed::new(Gru::new(16)))?;
/// assert_eq!(model.output_shape(), [6, 16]);
/// model.add(Lstm::new(32))?;
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeDistributed {
    /// What is done with each step.
    pub layer: Box<LayerConfig>,
}

impl TimeDistributed {
    /// `layer` for every step.
    pub fn new(layer: impl Into<LayerConfig>) -> Self {
        TimeDistributed { layer: Box::new(layer.into()) }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let &[steps, _, ..] = x.shape() else {
            return Err(Error::shape(builder.name(), "inputs of shape [steps, …]", format!("{:?}", x.shape())));
        };
        let mut rows = builder.steps_as_rows(x)?;
        let inside = x.mask().filter(|mask| mask.shape().len() > 1);
        if let Some(mask) = x.mask() {
            if !x.shape().starts_with(mask.shape()) {
                return Err(unfit(&builder.name(), mask, x.shape()));
            }
            if inside.is_some() {
                let mask = builder.steps_as_rows(mask)?;
                rows = rows.with_mask(Some(&mask));
            }
        }
        let layer: &dyn Layer = &*self.layer;
        let outputs = builder.scope(layer.stem(), |builder| layer.build(builder, &[rows]))?;
        let [y] = &outputs[..] else {
            return Err(Error::shape(builder.name(), "a layer with one output", outputs.len().to_string()));
        };
        let mask = match (y.mask(), x.mask()) {
            (Some(own), outer) => {
                let own = builder.rows_as_steps(own, steps)?;
                match (inside, outer) {
                    // What the layer found within the steps, of those that are there.
                    (None, Some(outer)) => {
                        let shape = own.shape().to_vec();
                        Some(builder.constant_op(KeepRows, &[&own, outer], &shape)?)
                    }
                    _ => Some(own),
                }
            }
            (None, Some(mask)) if inside.is_some() => {
                let any = NotEqual { columns: mask.size() / steps, value: 0.0 };
                Some(builder.constant_op(any, &[mask], &[steps])?)
            }
            (None, outer) => outer.cloned(),
        };
        Ok(vec![builder.rows_as_steps(y, steps)?.with_mask(mask.as_ref())])
    }
}
