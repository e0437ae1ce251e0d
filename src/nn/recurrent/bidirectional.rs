//! [`Bidirectional`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::LayerConfig;
use crate::nn::builder::{Builder, Value};
use crate::nn::masking::KeepRows;
use crate::nn::merge::{Add, Concatenate, Multiply, scaled};
use crate::nn::recurrent::{RecurrentOptions, stacked};

/// How the outputs of both directions become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeMode {
    /// Side by side, the forward one first.
    #[default]
    Concat,
    /// Their sum.
    Sum,
    /// Their product.
    Mul,
    /// Their mean.
    Ave,
}

/// A recurrent layer in both directions of time, each with weights of its own, Keras's
/// [`Bidirectional`](https://keras.io/api/layers/recurrent_layers/bidirectional/). Outputs of the second stay at the steps they belong to;
/// those of steps that a mask says are absent are zero.
/// Without `return_sequences` the output is each direction's last step. With `return_state` the states follow, those of the first direction before
/// those of the second; initial states are given in that order too.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Bidirectional, Lstm, MergeMode}};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(Bidirectional::new(Lstm::new(16).return_sequences(true)))?;
/// assert_eq!(model.output_shape(), [20, 32]); // forwards and backwards, side by side
/// model.add(Bidirectional::new(Lstm::new(16)).merge_mode(MergeMode::Sum))?;
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bidirectional {
    /// The layer: `SimpleRNN`, `LSTM`, `GRU` or another recurrent one.
    pub layer: Box<LayerConfig>,
    /// How outputs become one.
    #[serde(default)]
    pub merge_mode: MergeMode,
}

impl Bidirectional {
    /// `layer` in both directions, outputs side by side.
    pub fn new(layer: impl Into<LayerConfig>) -> Self {
        Bidirectional { layer: Box::new(layer.into()), merge_mode: MergeMode::Concat }
    }

    /// Sets how outputs become one.
    #[must_use]
    pub fn merge_mode(self, merge_mode: MergeMode) -> Self {
        Bidirectional { merge_mode, ..self }
    }

    pub(in crate::nn) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        match self.layer.as_recurrent().map(|layer| layer.options()) {
            Some(options) if options.num_layers != 1 => {
                stacked(builder, inputs, options, |builder, inputs, options| {
                    let mut layer = self.clone();
                    if let Some(inner) = layer.layer.as_recurrent_mut() {
                        // Both directions of every layer are those of the first.
                        let backwards = inner.options().go_backwards;
                        *inner.options_mut() = RecurrentOptions { go_backwards: backwards, ..options };
                    }
                    layer.build_one(builder, inputs)
                })
            }
            _ => self.build_one(builder, inputs),
        }
    }

    /// One layer in both directions.
    fn build_one(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let Some((x, states)) = inputs.split_first() else {
            return Err(Error::shape(builder.name(), "inputs of shape [seq_len, features]", "none"));
        };
        if states.len() % 2 != 0 {
            let expected = "as many initial states for each direction";
            return Err(Error::shape(builder.name(), expected, format!("{} states", states.len())));
        }
        let (forward, backward) = states.split_at(states.len() / 2);
        let given = |states: &[Value]| [std::slice::from_ref(x), states].concat();
        let mut a = self.direction(builder, "forward", &given(forward), false)?;
        let mut b = self.direction(builder, "backward", &given(backward), true)?;
        let (first, second) = (a.remove(0), b.remove(0));
        let pair = [first, second];
        let merged = match self.merge_mode {
            MergeMode::Concat => Concatenate::new().build(builder, &pair)?,
            MergeMode::Sum => Add::new().build(builder, &pair)?,
            MergeMode::Mul => Multiply::new().build(builder, &pair)?,
            MergeMode::Ave => {
                let sum = Add::new().build(builder, &pair)?;
                sum.iter().map(|sum| scaled(builder, sum, 0.5)).collect::<Result<_>>()?
            }
        };
        // As in Keras, whose wrapper sets zero_output_for_mask. Both directions are zero there, and so is what is made of them.
        let merged = match (&merged[..], x.mask()) {
            ([y], Some(mask)) if y.shape().len() == 2 => {
                vec![builder.op1(KeepRows, &[y, mask], y.shape(), 0..0)?.with_mask(y.mask())]
            }
            _ => merged,
        };
        Ok([merged, a, b].concat())
    }

    /// One direction: the layer as it is, or the other way round.
    fn direction(&self, builder: &mut Builder, name: &str, inputs: &[Value], opposite: bool) -> Result<Vec<Value>> {
        let mut layer = (*self.layer).clone();
        match layer.as_recurrent_mut() {
            Some(recurrent) => recurrent.options_mut().go_backwards ^= opposite,
            None => {
                let expected = "a recurrent layer, as a SimpleRNN, LSTM or GRU";
                return Err(Error::option(format!("layer of {}", builder.name()), expected, format!("{layer:?}")));
            }
        }
        builder.scope(name, |builder| match layer.as_recurrent() {
            Some(layer) => layer.in_direction(builder, inputs, opposite),
            None => Ok(Vec::new()),
        })
    }
}
