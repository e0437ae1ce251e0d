//! [`TimeDistributed`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::{Layer, LayerConfig, one_input};

/// A layer for every step alike, with the same weights, Keras's
/// [`TimeDistributed`](https://keras.io/api/layers/recurrent_layers/time_distributed/): `[steps, …]` to `[steps, …]`. The steps become rows
/// of one batch, so that nothing is done a step at a time. A mask passes by.
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
        let rows = builder.steps_as_rows(x)?;
        let layer: &dyn Layer = &*self.layer;
        let outputs = builder.scope(layer.stem(), |builder| layer.build(builder, &[rows]))?;
        let [y] = &outputs[..] else {
            return Err(Error::shape(builder.name(), "a layer with one output", outputs.len().to_string()));
        };
        Ok(vec![builder.rows_as_steps(y, steps)?.with_mask(x.mask())])
    }
}
