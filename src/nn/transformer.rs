//! [`PositionalEncoding`] and [`TransformerEncoder`].

use serde::{Deserialize, Serialize};

use crate::backend::device::no_model_in;
use crate::backend::{Device, Tensor};
use crate::cell;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::dropout::dropped;
use crate::nn::merge::Add;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{ActivationFunction, Dense, LayerNormalization, MultiHeadAttention, one_input};

/// Sines and cosines of the place of each step, added to it ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.5), as
/// KerasHub's [`SinePositionEncoding`](https://keras.io/keras_hub/api/modeling_layers/sine_position_encoding/) added to its input:
/// `[steps, features]` to the same, feature `2i` of step t plus `sin(t / max_wavelength^(2i / features))`, feature `2i + 1` plus the cosine
/// of that. A mask passes through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Embedding, PositionalEncoding, TransformerEncoder}};
///
/// let mut model = Sequential::new(Device::cpu(), &[20], 1)?;
/// model.add(Embedding::new(1000, 32))?.add(PositionalEncoding::new())?.add(TransformerEncoder::new(4, 8, 64))?;
/// assert_eq!(model.output_shape(), [20, 32]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionalEncoding {
    /// The longest wave, over 2π; 10000.
    pub max_wavelength: f64,
}

impl Default for PositionalEncoding {
    fn default() -> Self {
        PositionalEncoding { max_wavelength: 10_000.0 }
    }
}

impl PositionalEncoding {
    /// With the paper's wavelengths.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let &[steps, features] = x.shape() else {
            return Err(Error::shape(builder.name(), "inputs of shape [steps, features]", format!("{:?}", x.shape())));
        };
        if !(self.max_wavelength.is_finite() && self.max_wavelength > 0.0) {
            let option = format!("max_wavelength of {}", builder.name());
            return Err(Error::option(option, "a finite number above zero", self.max_wavelength));
        }
        let op = AddTable { steps, features, max_wavelength: self.max_wavelength, table: None };
        Ok(vec![builder.op1(op, &[x], &[steps, features], 0..0)?.with_mask(x.mask())])
    }
}

/// A table `[steps, features]` of the waves, added to every sample.
struct AddTable {
    steps: usize,
    features: usize,
    max_wavelength: f64,
    table: Option<Tensor>,
}

impl AddTable {
    /// The table, in the device's element type.
    fn table(&self, device: &Device) -> Result<Tensor> {
        let value = |i: usize| {
            let (step, feature) = (i / self.features, i % self.features);
            let power = (feature / 2 * 2) as f64 / self.features as f64;
            let angle = step as f64 / self.max_wavelength.powf(power);
            if feature % 2 == 0 { angle.sin() } else { angle.cos() }
        };
        let values = (0..self.steps * self.features).map(value);
        match device.dtype() {
            DType::F32 => device.tensor("positions", &values.map(f32::of).collect::<Vec<_>>()),
            DType::F64 => device.tensor("positions", &values.collect::<Vec<_>>()),
            other => Err(no_model_in(other)),
        }
    }
}

impl Op for AddTable {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let table = match self.table.take() {
            Some(table) => table,
            None => self.table(device)?,
        };
        let mut y = pass.outputs.get(0)?;
        device.copy(pass.inputs.get(0)?, y.reborrow())?;
        let table = self.table.insert(table);
        device.add_bias_activate(cell::Activation::Linear, Some(table.view()), y, None)
    }

    fn passes_on(&self) -> Option<usize> {
        Some(0)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        device.copy(pass.doutputs.get(0)?, pass.dinputs.get(0)?)
    }
}

/// A block of a Transformer's encoder ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762)), as in Keras's
/// [text classification example](https://keras.io/examples/nlp/text_classification_with_transformer/): `[steps, features]` to the same,
///
/// ```text
/// a = LN(x + dropout(attention(x, x)))
/// y = LN(a + dropout(W_2 relu(W_1 a + b_1) + b_2))
/// ```
///
/// or with `norm_first` the normalisations before attention and products rather than after the sums. Absent steps are not looked at; the
/// mask passes through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerEncoder {
    /// Attentions side by side.
    pub num_heads: usize,
    /// Width of a head.
    pub key_dim: usize,
    /// Width between the two products.
    pub ff_dim: usize,
    /// Probability of dropping an element of what attention and products give, in training.
    pub dropout: f64,
    /// Whether normalisation comes first; no.
    pub norm_first: bool,
    /// Whether a step sees only those up to itself; no.
    pub causal: bool,
}

impl TransformerEncoder {
    /// `num_heads` attentions `key_dim` wide, and `ff_dim` units between the products.
    pub fn new(num_heads: usize, key_dim: usize, ff_dim: usize) -> Self {
        TransformerEncoder { num_heads, key_dim, ff_dim, dropout: 0.0, norm_first: false, causal: false }
    }

    /// Sets the probability of dropping an element.
    #[must_use]
    pub fn dropout(self, dropout: f64) -> Self {
        TransformerEncoder { dropout, ..self }
    }

    /// Sets whether normalisation comes first.
    #[must_use]
    pub fn norm_first(self, norm_first: bool) -> Self {
        TransformerEncoder { norm_first, ..self }
    }

    /// Sets whether a step sees only those up to itself.
    #[must_use]
    pub fn causal(self, causal: bool) -> Self {
        TransformerEncoder { causal, ..self }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let &[_, features] = x.shape() else {
            return Err(Error::shape(builder.name(), "inputs of shape [steps, features]", format!("{:?}", x.shape())));
        };
        let norm = LayerNormalization::new().epsilon(1e-6);
        let attention = MultiHeadAttention::new(self.num_heads, self.key_dim).causal(self.causal);
        let normalized = |builder: &mut Builder, name: &str, x: &Value| builder.scope(name, |b| norm.apply(b, x));

        let looked_at = if self.norm_first { normalized(builder, "norm_1", x)? } else { x.clone() };
        let attended = builder.scope("attention", |b| attention.build(b, &[looked_at]))?.remove(0);
        let attended = dropped(builder, &attended, self.dropout)?;
        let mut a = Add::new().build(builder, &[x.clone(), attended])?.remove(0);
        if !self.norm_first {
            a = normalized(builder, "norm_1", &a)?;
        }

        let inner = if self.norm_first { normalized(builder, "norm_2", &a)? } else { a.clone() };
        let wide = Dense::new(self.ff_dim).activation(ActivationFunction::Relu);
        let inner = builder.scope("feed_forward_1", |b| wide.apply(b, &inner))?;
        let inner = builder.scope("feed_forward_2", |b| Dense::new(features).apply(b, &inner))?;
        let inner = dropped(builder, &inner, self.dropout)?;
        let mut y = Add::new().build(builder, &[a, inner])?.remove(0);
        if !self.norm_first {
            y = normalized(builder, "norm_2", &y)?;
        }
        Ok(vec![y])
    }
}
