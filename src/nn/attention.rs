//! Attention: [`Attention`] (dot product), [`AdditiveAttention`], [`MultiHeadAttention`]. Steps that a mask says are absent are not looked
//! at; a query that may look at none gets zeros.

use serde::{Deserialize, Serialize};

use crate::backend::dense::{Orientation, Product};
use crate::backend::tensor::{SoftmaxMask, Strides};
use crate::backend::{DenseBackend, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::dense::linear;
use crate::nn::dropout::dropped;
use crate::nn::masking::KeepRows;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::shape::permuted;
use crate::nn::{ActivationFunction, Scratch};

/// Query, value and key: `[queries, features]`, `[keys, value_features]`, `[keys, features]`.
struct Parts<'a> {
    query: &'a Value,
    value: &'a Value,
    key: &'a Value,
    queries: usize,
    keys: usize,
}

fn parts<'a, B: DenseBackend>(builder: &Builder<B>, inputs: &'a [Value], same_width: bool) -> Result<Parts<'a>> {
    let (query, value, key) = match inputs {
        [both] => (both, both, both),
        [query, value] => (query, value, value),
        [query, value, key] => (query, value, key),
        _ => {
            let expected = "query and value, and perhaps key";
            return Err(Error::shape(builder.name(), expected, format!("{} inputs", inputs.len())));
        }
    };
    let (&[queries, width], &[keys, _], &[key_steps, key_width]) = (query.shape(), value.shape(), key.shape()) else {
        let shapes: Vec<_> = inputs.iter().map(|input| format!("{:?}", input.shape())).collect();
        return Err(Error::shape(builder.name(), "inputs of shape [steps, features]", shapes.join(", ")));
    };
    if key_steps != keys || same_width && key_width != width {
        let expected = format!("a key of shape [{keys}, {width}], as value and query have");
        return Err(Error::shape(builder.name(), expected, format!("{:?}", key.shape())));
    }
    Ok(Parts { query, value, key, queries, keys })
}

/// What the query may look at: the mask of the value, or else of the key.
fn key_mask<'a>(parts: &Parts<'a>) -> Option<&'a Value> {
    parts.value.mask().or(parts.key.mask())
}

/// Weights of the keys from scores, and their mixture of the value.
fn attend<B: DenseBackend + 'static>(
    builder: &mut Builder<B>,
    parts: &Parts<'_>,
    scores: &Value,
    causal: bool,
    dropout: f64,
) -> Result<(Value, Value)> {
    let (queries, keys) = (parts.queries, parts.keys);
    let softmax = MaskedSoftmax { columns: keys, rows: queries, causal: causal.then_some(queries) };
    let weights = builder.op(softmax, &[Some(scores), key_mask(parts)], &[&[queries, keys]], 0..0, 0..0)?.remove(0);
    let used = dropped(builder, &weights, dropout)?;
    let width = parts.value.shape()[1];
    let product = Product { orientation: Orientation::Nn, m: queries, n: width, k: keys };
    let mut y = builder.op1(
        BatchedProduct { count: 1, product, alpha: 1.0 },
        &[&used, parts.value],
        &[queries, width],
        0..0,
    )?;
    if let Some(mask) = parts.query.mask() {
        y = builder.op1(KeepRows, &[&y, mask], &[queries, width], 0..0)?;
    }
    Ok((y.with_mask(parts.query.mask()), weights))
}

/// Dot-product attention, Keras's [`Attention`](https://keras.io/api/layers/attention_layers/attention/)
/// ([Luong et al. 2015](https://arxiv.org/abs/1508.04025)): inputs query `[queries, features]`, value `[keys, value_features]` and perhaps key
/// `[keys, features]` (else the value), output `softmax(query keyᵀ) value` `[queries, value_features]`. Queries that a mask says are absent
/// give zeros.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attention {
    /// Whether scores are multiplied by a weight, `scale`, which starts at 1; no.
    pub use_scale: bool,
    /// Probability of dropping a weight of a key in training.
    pub dropout: f64,
    /// Whether a query sees only the keys up to its own place; no.
    pub causal: bool,
    /// Whether the weights `[queries, keys]` are a second output; no.
    pub return_attention_scores: bool,
}

impl Attention {
    /// With Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether scores are multiplied by a weight.
    #[must_use]
    pub fn use_scale(self, use_scale: bool) -> Self {
        Attention { use_scale, ..self }
    }

    /// Sets the probability of dropping a weight of a key.
    #[must_use]
    pub fn dropout(self, dropout: f64) -> Self {
        Attention { dropout, ..self }
    }

    /// Sets whether a query sees only the keys up to its own place.
    #[must_use]
    pub fn causal(self, causal: bool) -> Self {
        Attention { causal, ..self }
    }

    /// Sets whether the weights of the keys are a second output.
    #[must_use]
    pub fn return_attention_scores(self, return_attention_scores: bool) -> Self {
        Attention { return_attention_scores, ..self }
    }

    pub(super) fn build<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let parts = parts(builder, inputs, true)?;
        let (queries, keys, width) = (parts.queries, parts.keys, parts.query.shape()[1]);
        let product = Product { orientation: Orientation::Nt, m: queries, n: keys, k: width };
        let op = BatchedProduct { count: 1, product, alpha: 1.0 };
        let mut scores = builder.op1(op, &[parts.query, parts.key], &[queries, keys], 0..0)?;
        if self.use_scale {
            let scale = builder.parameter("scale", &[1], Init::Constant(1.0))?;
            let op = ScalarProduct::<B> { size: queries * keys, products: Scratch::new() };
            scores = builder.op1(op, &[&scores], &[queries, keys], scale)?;
        }
        let (y, weights) = attend(builder, &parts, &scores, self.causal, self.dropout)?;
        Ok(if self.return_attention_scores { vec![y, weights] } else { vec![y] })
    }
}

/// Additive attention, Keras's [`AdditiveAttention`](https://keras.io/api/layers/attention_layers/additive_attention/)
/// ([Bahdanau et al. 2015](https://arxiv.org/abs/1409.0473)): as [`Attention`], with scores `Σ scale tanh(query + key)`; `scale` `[features]`
/// starts Glorot uniform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdditiveAttention {
    /// Whether there is a `scale`; yes.
    pub use_scale: bool,
    /// Probability of dropping a weight of a key in training.
    pub dropout: f64,
    /// Whether a query sees only the keys up to its own place; no.
    pub causal: bool,
    /// Whether the weights `[queries, keys]` are a second output; no.
    pub return_attention_scores: bool,
}

impl Default for AdditiveAttention {
    fn default() -> Self {
        AdditiveAttention { use_scale: true, dropout: 0.0, causal: false, return_attention_scores: false }
    }
}

impl AdditiveAttention {
    /// With Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether there is a scale.
    #[must_use]
    pub fn use_scale(self, use_scale: bool) -> Self {
        AdditiveAttention { use_scale, ..self }
    }

    /// Sets whether a query sees only the keys up to its own place.
    #[must_use]
    pub fn causal(self, causal: bool) -> Self {
        AdditiveAttention { causal, ..self }
    }

    /// Sets whether the weights of the keys are a second output.
    #[must_use]
    pub fn return_attention_scores(self, return_attention_scores: bool) -> Self {
        AdditiveAttention { return_attention_scores, ..self }
    }

    pub(super) fn build<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let parts = parts(builder, inputs, true)?;
        let (queries, keys, width) = (parts.queries, parts.keys, parts.query.shape()[1]);
        let shape = [queries, keys, width];
        let sums = builder.op1(EachPair { queries, keys, width }, &[parts.query, parts.key], &shape, 0..0)?;
        let tanh = ActivationFunction::Tanh.apply(builder, sums)?;
        let scores = if self.use_scale {
            let init = Init::GlorotUniform { fan_in: width, fan_out: width };
            let scale = builder.parameter("scale", &[width], init)?;
            let column = linear(builder, &tanh, 1, scale)?;
            builder.reshaped(&column, &[queries, keys])?
        } else {
            builder.op1(Sum { columns: width }, &[&tanh], &[queries, keys], 0..0)?
        };
        let (y, weights) = attend(builder, &parts, &scores, self.causal, self.dropout)?;
        Ok(if self.return_attention_scores { vec![y, weights] } else { vec![y] })
    }
}

/// Several attentions side by side on projections of the inputs, Keras's
/// [`MultiHeadAttention`](https://keras.io/api/layers/attention_layers/multi_head_attention/)
/// ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762)): inputs query `[queries, features]`, value and perhaps key (one input is all
/// three), output `[queries, output]`, as wide as the query unless said otherwise.
///
/// Weights `query.weight`, `key.weight` `[num_heads * key_dim, features]`, `value.weight` `[num_heads * value_dim, features]`,
/// `attention_output.weight` `[output, num_heads * value_dim]` and their biases; heads stand one after the other.
/// Queries that a mask says are absent look at the keys as the others do, and their outputs keep the mask; in Keras they look at all keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiHeadAttention {
    /// Attentions side by side.
    pub num_heads: usize,
    /// Width of a head's queries and keys.
    pub key_dim: usize,
    /// Width of a head's values; as `key_dim`.
    #[serde(default)]
    pub value_dim: Option<usize>,
    /// Width of the output; as the query.
    #[serde(default)]
    pub output_dim: Option<usize>,
    /// Probability of dropping a weight of a key in training.
    #[serde(default)]
    pub dropout: f64,
    /// Whether projections have biases; yes.
    pub use_bias: bool,
    /// Whether a query sees only the keys up to its own place; no.
    #[serde(default)]
    pub causal: bool,
    /// Whether the weights `[num_heads, queries, keys]` are a second output; no.
    #[serde(default)]
    pub return_attention_scores: bool,
}

impl MultiHeadAttention {
    /// `num_heads` attentions on projections `key_dim` wide.
    pub fn new(num_heads: usize, key_dim: usize) -> Self {
        MultiHeadAttention {
            num_heads,
            key_dim,
            value_dim: None,
            output_dim: None,
            dropout: 0.0,
            use_bias: true,
            causal: false,
            return_attention_scores: false,
        }
    }

    /// Sets the width of a head's values.
    #[must_use]
    pub fn value_dim(self, value_dim: usize) -> Self {
        MultiHeadAttention { value_dim: Some(value_dim), ..self }
    }

    /// Sets the probability of dropping a weight of a key.
    #[must_use]
    pub fn dropout(self, dropout: f64) -> Self {
        MultiHeadAttention { dropout, ..self }
    }

    /// Sets whether a query sees only the keys up to its own place.
    #[must_use]
    pub fn causal(self, causal: bool) -> Self {
        MultiHeadAttention { causal, ..self }
    }

    /// Sets whether the weights of the keys are a second output.
    #[must_use]
    pub fn return_attention_scores(self, return_attention_scores: bool) -> Self {
        MultiHeadAttention { return_attention_scores, ..self }
    }

    pub(super) fn build<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let parts = parts(builder, inputs, false)?;
        let (heads, key_dim) = (self.num_heads, self.key_dim);
        let value_dim = self.value_dim.unwrap_or(key_dim);
        for (size, name) in [(heads, "num_heads"), (key_dim, "key_dim"), (value_dim, "value_dim")] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        let (queries, keys) = (parts.queries, parts.keys);
        // Keras draws a kernel [features, heads, width] with fans that count the features as its field.
        let mut project = |name: &str, x: &Value, steps: usize, width: usize| {
            let features = x.shape()[1];
            let init = Init::GlorotUniform { fan_in: features * heads, fan_out: features * width };
            let projected = self.projection(builder, name, x, heads * width, init)?;
            let split = builder.reshaped(&projected, &[steps, heads, width])?;
            permuted(builder, &split, &[1, 0, 2])
        };
        let query = project("query", parts.query, queries, key_dim)?;
        let key = project("key", parts.key, keys, key_dim)?;
        let value = project("value", parts.value, keys, value_dim)?;
        let product = Product { orientation: Orientation::Nt, m: queries, n: keys, k: key_dim };
        let scores = BatchedProduct { count: heads, product, alpha: 1.0 / (key_dim as f64).sqrt() };
        let scores = builder.op1(scores, &[&query, &key], &[heads, queries, keys], 0..0)?;
        let softmax = MaskedSoftmax { columns: keys, rows: heads * queries, causal: self.causal.then_some(queries) };
        let shape = [heads, queries, keys];
        let weights = builder.op(softmax, &[Some(&scores), key_mask(&parts)], &[&shape], 0..0, 0..0)?.remove(0);
        let used = dropped(builder, &weights, self.dropout)?;
        let product = Product { orientation: Orientation::Nn, m: queries, n: value_dim, k: keys };
        let mixture = BatchedProduct { count: heads, product, alpha: 1.0 };
        let mixture = builder.op1(mixture, &[&used, &value], &[heads, queries, value_dim], 0..0)?;
        let mixture = permuted(builder, &mixture, &[1, 0, 2])?;
        let joined = builder.reshaped(&mixture, &[queries, heads * value_dim])?;
        let output = self.output_dim.unwrap_or(parts.query.shape()[1]);
        let init = Init::GlorotUniform { fan_in: heads * value_dim, fan_out: heads * output };
        let y = self.projection(builder, "attention_output", &joined, output, init)?;
        let y = y.with_mask(parts.query.mask());
        Ok(if self.return_attention_scores { vec![y, weights] } else { vec![y] })
    }

    fn projection<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        name: &str,
        x: &Value,
        units: usize,
        init: Init,
    ) -> Result<Value> {
        let features = x.shape()[1];
        builder.scope(name, |builder| {
            let weight = builder.parameter("weight", &[units, features], init)?;
            let end = match self.use_bias {
                true => builder.parameter("bias", &[units], Init::Constant(0.0))?.end,
                false => weight.end,
            };
            linear(builder, x, units, weight.start..end)
        })
    }
}

/// `count` products a sample of matrices that stand one after the other: `alpha a bᵀ` or `alpha a b`.
struct BatchedProduct {
    count: usize,
    product: Product,
    alpha: f64,
}

impl<B: DenseBackend> Op<B> for BatchedProduct {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let count = pass.batch * self.count;
        let (a, b) = (pass.inputs.get(0)?, pass.inputs.get(1)?);
        backend.batched_gemm(count, self.product, self.alpha, a, b, pass.outputs.get(0)?, WeightGrad::Set)
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let count = pass.batch * self.count;
        let Product { orientation, m, n, k } = self.product;
        let (a, b, dc) = (pass.inputs.get(0)?, pass.inputs.get(1)?, pass.doutputs.get(0)?);
        let transposed = orientation == Orientation::Nt;
        let [da, db, ..] = pass.dinputs.each();
        if let Some(da) = da {
            let orientation = if transposed { Orientation::Nn } else { Orientation::Nt };
            let product = Product { orientation, m, n: k, k: n };
            backend.batched_gemm(count, product, self.alpha, dc, b, da, WeightGrad::Set)?;
        }
        let Some(db) = db else { return Ok(()) };
        match transposed {
            // b [n, k]: dcᵀ a
            true => {
                let product = Product { orientation: Orientation::Tn, m: n, n: k, k: m };
                backend.batched_gemm(count, product, self.alpha, dc, a, db, WeightGrad::Set)
            }
            // b [k, n]: aᵀ dc
            false => {
                let product = Product { orientation: Orientation::Tn, m: k, n, k: m };
                backend.batched_gemm(count, product, self.alpha, a, dc, db, WeightGrad::Set)
            }
        }
    }
}

/// The softmax of each row over the columns that input 1, a mask `[columns]` a sample, and causality leave.
struct MaskedSoftmax {
    columns: usize,
    /// Rows of a sample.
    rows: usize,
    causal: Option<usize>,
}

impl<B: DenseBackend> Op<B> for MaskedSoftmax {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let keys = pass.inputs.optional(1).map(|mask| (mask, self.rows));
        let valid = SoftmaxMask { keys, causal: self.causal };
        backend.softmax(self.columns, pass.inputs.get(0)?, valid, pass.outputs.get(0)?)
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        backend.softmax_gradient(self.columns, pass.outputs.get(0)?, pass.doutputs.get(0)?, pass.dinputs.get(0)?)
    }
}

/// A tensor times a weight of one element.
struct ScalarProduct<B: DenseBackend> {
    /// Elements of a sample.
    size: usize,
    products: Scratch<B>,
}

impl<B: DenseBackend> Op<B> for ScalarProduct<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        backend.scale_rows(pass.parameters, false, pass.inputs.get(0)?, pass.outputs.get(0)?)
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let (x, dy, len) = (pass.inputs.get(0)?, pass.doutputs.get(0)?, self.size * pass.batch);
        self.products.grow(backend, "products", len)?;
        let mut products = self.products.get_mut(backend, len)?;
        backend.multiply(x, dy, &mut products)?;
        backend.sum_axis([1, len, 1], 1.0, &products, pass.dparameters, pass.grad)?;
        match pass.dinputs.optional(0) {
            Some(dx) => backend.scale_rows(pass.parameters, false, dy, dx),
            None => Ok(()),
        }
    }
}

/// `y[i, j, :] = a[i, :] + b[j, :]`
struct EachPair {
    queries: usize,
    keys: usize,
    width: usize,
}

impl<B: DenseBackend> Op<B> for EachPair {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let (q, k, w) = (self.queries as isize, self.keys as isize, self.width as isize);
        let shape = [pass.batch, self.queries, self.keys, self.width];
        let to = Strides { offset: 0, strides: [q * k * w, k * w, w, 1] };
        let y = pass.outputs.get(0)?;
        let a = Strides { offset: 0, strides: [q * w, w, 0, 1] };
        backend.strided_copy(shape, pass.inputs.get(0)?, a, y, to, WeightGrad::Set)?;
        let b = Strides { offset: 0, strides: [k * w, 0, w, 1] };
        backend.strided_copy(shape, pass.inputs.get(1)?, b, y, to, WeightGrad::Add)
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let dy = pass.doutputs.get(0)?;
        let [da, db, ..] = pass.dinputs.each();
        if let Some(da) = da {
            backend.sum_axis([pass.batch * self.queries, self.keys, self.width], 1.0, dy, da, WeightGrad::Set)?;
        }
        match db {
            Some(db) => {
                backend.sum_axis([pass.batch, self.queries, self.keys * self.width], 1.0, dy, db, WeightGrad::Set)
            }
            None => Ok(()),
        }
    }
}

/// Sums of the rows.
struct Sum {
    columns: usize,
}

impl<B: DenseBackend> Op<B> for Sum {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        use crate::backend::Storage;
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        backend.sum_axis([y.elements(), self.columns, 1], 1.0, x, y, WeightGrad::Set)
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        use crate::backend::Storage;
        let (dy, dx) = (pass.doutputs.get(0)?, pass.dinputs.get(0)?);
        let shape = [1, 1, dy.elements(), self.columns];
        let from = Strides { offset: 0, strides: [0, 0, 1, 0] };
        let to = Strides { offset: 0, strides: [0, 0, self.columns as isize, 1] };
        backend.strided_copy(shape, dy, from, dx, to, WeightGrad::Set)
    }
}
