//! Attention: [`Attention`] (dot product), [`AdditiveAttention`], [`MultiHeadAttention`]. Steps that a mask says are absent are not looked
//! at; a query that may look at none gets zeros.
#![expect(clippy::indexing_slicing, reason = "inputs have two axes, as `parts` checks")]

use serde::{Deserialize, Serialize};

use crate::backend::ops::{
    AttentionGradients, AttentionInputs, AttentionShape, MatMul, Orientation, SoftmaxMask, Strides, Workspace,
};
use crate::backend::{Device, TensorMut, TensorRef, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::dense::linear;
use crate::nn::dropout::dropped;
use crate::nn::masking::{KeepRows, row_mask};
use crate::nn::op::{Backward, Forward, Inputs, Op};
use crate::nn::shape::permuted;
use crate::nn::{ActivationFunction, Scratch};
use crate::rnn::shape::checked_len;

/// Query, value and key: `[queries, features]`, `[keys, value_features]`, `[keys, features]`.
struct Parts<'a> {
    query: &'a Value,
    value: &'a Value,
    key: &'a Value,
    queries: usize,
    keys: usize,
}

fn parts<'a>(builder: &Builder, inputs: &'a [Value], same_width: bool) -> Result<Parts<'a>> {
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

/// Value and key of one mask, as Keras has it: a step must be there in both.
fn with_one_mask(builder: &mut Builder, value: &Value, key: &Value) -> Result<Value> {
    let (Some(of_value), Some(of_key)) = (row_mask(builder, value)?, row_mask(builder, key)?) else {
        return Ok(value.clone());
    };
    if of_value == of_key {
        return Ok(value.clone());
    }
    let both = builder.constant_op(KeepRows, &[of_value, of_key], of_value.shape())?;
    Ok(value.clone().with_mask(Some(&both)))
}

/// What the query may look at: the mask of the value, or else of the key.
fn key_mask<'a>(parts: &Parts<'a>) -> Option<&'a Value> {
    parts.value.mask().or(parts.key.mask())
}

/// Weights of the keys from scores, and their mixture of the value.
fn attend(
    builder: &mut Builder,
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
    let op = BatchedProduct::new(1, Orientation::Nn, [queries, width, keys], 1.0);
    let y = builder.op1(op, &[&used, parts.value], &[queries, width], 0..0)?;
    Ok((kept(builder, parts, y)?, weights))
}

/// Zeros for the queries that a mask says are absent, with that mask.
fn kept(builder: &mut Builder, parts: &Parts<'_>, y: Value) -> Result<Value> {
    let Some(mask) = parts.query.mask() else { return Ok(y) };
    let shape = y.shape().to_vec();
    Ok(builder.op1(KeepRows, &[&y, mask], &shape, 0..0)?.with_mask(Some(mask)))
}

/// The mixtures `[queries, heads * value_dim]` of the values of each head by the softmax of `alpha query · key`, in one operation.
fn fused(
    builder: &mut Builder,
    parts: &Parts<'_>,
    [query, key, value]: [&Value; 3],
    heads: usize,
    alpha: f64,
    causal: bool,
) -> Result<Value> {
    let (queries, keys) = (parts.queries, parts.keys);
    let (key_dim, value_dim) = (query.size() / queries / heads, value.size() / keys / heads);
    let shape = AttentionShape { batch: 0, heads, queries, keys, key_dim, value_dim, causal };
    let op = FusedAttention { shape, alpha, statistics: Scratch::new(), workspace: Scratch::new() };
    let inputs = [Some(query), Some(key), Some(value), key_mask(parts)];
    Ok(builder.op(op, &inputs, &[&[queries, heads * value_dim]], 0..0, 0..0)?.remove(0))
}

/// Dot-product attention, Keras's [`Attention`](https://keras.io/api/layers/attention_layers/attention/)
/// ([Luong et al. 2015](https://arxiv.org/abs/1508.04025)): inputs query `[queries, features]`, value `[keys, value_features]` and perhaps key
/// `[keys, features]` (else the value), output `softmax(query keyᵀ) value` `[queries, value_features]`. Queries that a mask says are absent
/// give zeros.
///
/// ```
/// use fused_rnn::{Device, model::Graph, nn::Attention};
///
/// let mut graph = Graph::new(Device::cpu(), 1);
/// let query = graph.input("query", &[4, 8])?;
/// let value = graph.input("value", &[9, 8])?;
/// let y = graph.add(Attention::new(), &[&query, &value])?;
/// assert_eq!(y.shape(), [4, 8]); // each of the 4 steps looks at all 9
/// # Ok::<(), fused_rnn::Error>(())
/// ```
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

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let parts = parts(builder, inputs, true)?;
        let (queries, keys, width) = (parts.queries, parts.keys, parts.query.shape()[1]);
        if !self.use_scale && self.dropout == 0.0 && !self.return_attention_scores {
            let y = fused(builder, &parts, [parts.query, parts.key, parts.value], 1, 1.0, self.causal)?;
            return Ok(vec![kept(builder, &parts, y)?]);
        }
        let op = BatchedProduct::new(1, Orientation::Nt, [queries, keys, width], 1.0);
        let mut scores = builder.op1(op, &[parts.query, parts.key], &[queries, keys], 0..0)?;
        if self.use_scale {
            let scale = builder.parameter("scale", &[1], Init::Constant(1.0))?;
            let op = ScalarProduct { size: queries * keys, products: Scratch::new(), workspace: Scratch::new() };
            scores = builder.op1(op, &[&scores], &[queries, keys], scale)?;
        }
        let (y, weights) = attend(builder, &parts, &scores, self.causal, self.dropout)?;
        Ok(if self.return_attention_scores { vec![y, weights] } else { vec![y] })
    }
}

/// Additive attention, Keras's [`AdditiveAttention`](https://keras.io/api/layers/attention_layers/additive_attention/)
/// ([Bahdanau et al. 2015](https://arxiv.org/abs/1409.0473)): as [`Attention`], with scores `Σ scale tanh(query + key)`; `scale` `[features]`
/// starts Glorot uniform.
///
/// ```
/// use fused_rnn::{Device, model::Graph, nn::AdditiveAttention};
///
/// let mut graph = Graph::new(Device::cpu(), 1);
/// let query = graph.input("query", &[4, 8])?;
/// let value = graph.input("value", &[9, 8])?;
/// let y = graph.add_all(AdditiveAttention::new().return_attention_scores(true), &[&query, &value])?;
/// assert_eq!((y[0].shape(), y[1].shape()), (&[4, 8][..], &[4, 9][..]));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
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

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let parts = parts(builder, inputs, true)?;
        let (queries, keys, width) = (parts.queries, parts.keys, parts.query.shape()[1]);
        let shape = [queries, keys, width];
        let op = EachPair { queries, keys, width, workspace: Scratch::new() };
        let sums = builder.op1(op, &[parts.query, parts.key], &shape, 0..0)?;
        let tanh = ActivationFunction::Tanh.apply(builder, sums)?;
        let scores = if self.use_scale {
            let init = Init::GlorotUniform { fan_in: width, fan_out: width };
            let scale = builder.parameter("scale", &[width], init)?;
            let column = linear(builder, &tanh, 1, scale)?;
            builder.reshaped(&column, &[queries, keys])?
        } else {
            builder.op1(Sum { columns: width, workspace: Scratch::new() }, &[&tanh], &[queries, keys], 0..0)?
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
///
/// ```
/// use fused_rnn::{Device, model::Graph, nn::MultiHeadAttention};
///
/// let mut graph = Graph::new(Device::cpu(), 1);
/// let x = graph.input("x", &[9, 16])?;
/// let y = graph.add(MultiHeadAttention::new(4, 8).causal(true), &[&x, &x])?; // attention of a sequence to itself
/// assert_eq!(y.shape(), [9, 16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
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

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let mut parts = parts(builder, inputs, false)?;
        let value = with_one_mask(builder, parts.value, parts.key)?;
        parts.value = &value;
        let (heads, key_dim) = (self.num_heads, self.key_dim);
        let value_dim = self.value_dim.unwrap_or(key_dim);
        for (size, name) in [(heads, "num_heads"), (key_dim, "key_dim"), (value_dim, "value_dim")] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        for (x, width) in [(parts.query, key_dim), (parts.key, key_dim), (parts.value, value_dim)] {
            let steps = x.shape().iter().product::<usize>();
            checked_len(&builder.name(), &[("num_heads", heads), ("width", width), ("elements", steps)])?;
        }
        let scores = [("num_heads", heads), ("queries", parts.query.shape()[0]), ("keys", parts.key.shape()[0])];
        checked_len(&builder.name(), &scores)?;
        // Keras draws a kernel [features, heads, width] with fans that count the features as its field.
        let mut project = |name: &str, x: &Value, width: usize| {
            let features = x.shape()[1];
            let init = Init::GlorotUniform { fan_in: features * heads, fan_out: features * width };
            self.projection(builder, name, x, heads * width, init)
        };
        let query = project("query", parts.query, key_dim)?;
        let key = project("key", parts.key, key_dim)?;
        let value = project("value", parts.value, value_dim)?;
        let alpha = 1.0 / (key_dim as f64).sqrt();
        let projected = [&query, &key, &value];
        let (joined, weights) = if self.dropout == 0.0 && !self.return_attention_scores {
            (fused(builder, &parts, projected, heads, alpha, self.causal)?, None)
        } else {
            let (joined, weights) = self.weighed(builder, &parts, projected, alpha)?;
            (joined, self.return_attention_scores.then_some(weights))
        };
        let output = self.output_dim.unwrap_or(parts.query.shape()[1]);
        let init = Init::GlorotUniform { fan_in: heads * value_dim, fan_out: heads.saturating_mul(output) };
        let y = self.projection(builder, "attention_output", &joined, output, init)?;
        let y = y.with_mask(parts.query.mask());
        Ok(std::iter::once(y).chain(weights).collect())
    }

    /// The mixtures `[queries, num_heads * value_dim]` of projected values, and the weights `[num_heads, queries, keys]`, which are an output or have
    /// dropout, and so must be there.
    fn weighed(
        &self,
        builder: &mut Builder,
        parts: &Parts<'_>,
        [query, key, value]: [&Value; 3],
        alpha: f64,
    ) -> Result<(Value, Value)> {
        let (heads, queries, keys) = (self.num_heads, parts.queries, parts.keys);
        let (key_dim, value_dim) = (self.key_dim, self.value_dim.unwrap_or(self.key_dim));
        let mut apart = |x: &Value, steps: usize, width: usize| {
            let split = builder.reshaped(x, &[steps, heads, width])?;
            permuted(builder, &split, &[1, 0, 2])
        };
        let query = apart(query, queries, key_dim)?;
        let key = apart(key, keys, key_dim)?;
        let value = apart(value, keys, value_dim)?;
        let scores = BatchedProduct::new(heads, Orientation::Nt, [queries, keys, key_dim], alpha);
        let scores = builder.op1(scores, &[&query, &key], &[heads, queries, keys], 0..0)?;
        let softmax = MaskedSoftmax { columns: keys, rows: heads * queries, causal: self.causal.then_some(queries) };
        let shape = [heads, queries, keys];
        let weights = builder.op(softmax, &[Some(&scores), key_mask(parts)], &[&shape], 0..0, 0..0)?.remove(0);
        let used = dropped(builder, &weights, self.dropout)?;
        let mixture = BatchedProduct::new(heads, Orientation::Nn, [queries, value_dim, keys], 1.0);
        let mixture = builder.op1(mixture, &[&used, &value], &[heads, queries, value_dim], 0..0)?;
        let mixture = permuted(builder, &mixture, &[1, 0, 2])?;
        Ok((builder.reshaped(&mixture, &[queries, heads * value_dim])?, weights))
    }

    fn projection(&self, builder: &mut Builder, name: &str, x: &Value, units: usize, init: Init) -> Result<Value> {
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

/// Attention in one operation of the device: queries, keys and values, inputs 0 to 2, with the heads of a step side by side; input 3 is perhaps a mask
/// of the keys.
struct FusedAttention {
    /// With the batch left out.
    shape: AttentionShape,
    alpha: f64,
    statistics: Scratch,
    workspace: Scratch,
}

impl FusedAttention {
    fn shape(&self, batch: usize) -> (AttentionShape, usize) {
        let shape = AttentionShape { batch, ..self.shape };
        (shape, batch * shape.queries * shape.heads * 2)
    }
}

fn attention_inputs<'a>(inputs: &Inputs<'a>) -> Result<AttentionInputs<'a>> {
    let (query, key, value) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
    Ok(AttentionInputs { query, key, value, mask: inputs.optional(3) })
}

impl Op for FusedAttention {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (shape, len) = self.shape(pass.batch);
        self.statistics.grow(device, "statistics of an attention", len)?;
        let workspace = self.workspace.for_call(device, Workspace::Attention(shape))?;
        let (of, statistics) = (attention_inputs(&pass.inputs)?, self.statistics.get_mut(len)?);
        device.attention(shape, self.alpha, of, pass.outputs.get(0)?, statistics, workspace)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (shape, len) = self.shape(pass.batch);
        let workspace = self.workspace.for_call(device, Workspace::AttentionGradient(shape))?;
        let (of, statistics) = (attention_inputs(&pass.inputs)?, self.statistics.get(len)?);
        let [query, key, value, ..] = pass.dinputs.each();
        let to = AttentionGradients { query, key, value };
        let (y, dy) = (pass.outputs.get(0)?, pass.doutputs.get(0)?);
        device.attention_gradient(shape, self.alpha, of, y, statistics, dy, to, workspace)
    }
}

/// `product.count` products a sample of matrices that stand one after the other: `alpha a bᵀ` or `alpha a b`.
struct BatchedProduct {
    product: MatMul,
    alpha: f64,
    workspace: Scratch,
}

impl BatchedProduct {
    fn new(count: usize, orientation: Orientation, [m, n, k]: [usize; 3], alpha: f64) -> Self {
        BatchedProduct { product: MatMul { count, orientation, m, n, k }, alpha, workspace: Scratch::new() }
    }

    fn run(
        &mut self,
        device: &Device,
        product: MatMul,
        a: TensorRef<'_>,
        b: TensorRef<'_>,
        c: TensorMut<'_>,
    ) -> Result<()> {
        let workspace = self.workspace.for_call(device, Workspace::MatMul(product))?;
        device.matmul(product, self.alpha, a, b, c, WeightGrad::Set, workspace)
    }
}

impl Op for BatchedProduct {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let product = MatMul { count: pass.batch * self.product.count, ..self.product };
        self.run(device, product, pass.inputs.get(0)?, pass.inputs.get(1)?, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let MatMul { count, orientation, m, n, k } = self.product;
        let count = pass.batch * count;
        let (a, b, dc) = (pass.inputs.get(0)?, pass.inputs.get(1)?, pass.doutputs.get(0)?);
        let transposed = orientation == Orientation::Nt;
        let [da, db, ..] = pass.dinputs.each();
        if let Some(da) = da {
            let orientation = if transposed { Orientation::Nn } else { Orientation::Nt };
            self.run(device, MatMul { count, orientation, m, n: k, k: n }, dc, b, da)?;
        }
        let Some(db) = db else { return Ok(()) };
        let orientation = Orientation::Tn;
        match transposed {
            // b [n, k]: dcᵀ a
            true => self.run(device, MatMul { count, orientation, m: n, n: k, k: m }, dc, a, db),
            // b [k, n]: aᵀ dc
            false => self.run(device, MatMul { count, orientation, m: k, n, k: m }, a, dc, db),
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

impl Op for MaskedSoftmax {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let keys = pass.inputs.optional(1).map(|mask| (mask, self.rows));
        let valid = SoftmaxMask { keys, causal: self.causal };
        device.softmax(self.columns, pass.inputs.get(0)?, valid, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        device.softmax_gradient(self.columns, pass.outputs.get(0)?, pass.doutputs.get(0)?, pass.dinputs.get(0)?)
    }
}

/// A tensor times a weight of one element.
struct ScalarProduct {
    /// Elements of a sample.
    size: usize,
    products: Scratch,
    workspace: Scratch,
}

impl Op for ScalarProduct {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        device.scale_rows(pass.parameters, false, pass.inputs.get(0)?, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (x, dy, len) = (pass.inputs.get(0)?, pass.doutputs.get(0)?, self.size * pass.batch);
        self.products.grow(device, "products", len)?;
        device.multiply(x, dy, self.products.get_mut(len)?)?;
        let workspace = self.workspace.for_call(device, Workspace::SumAxis([1, len, 1]))?;
        device.sum_axis([1, len, 1], 1.0, self.products.get(len)?, pass.dparameters, pass.grad, workspace)?;
        match pass.dinputs.optional(0) {
            Some(dx) => device.scale_rows(pass.parameters, false, dy, dx),
            None => Ok(()),
        }
    }
}

/// `y[i, j, :] = a[i, :] + b[j, :]`
struct EachPair {
    queries: usize,
    keys: usize,
    width: usize,
    workspace: Scratch,
}

impl Op for EachPair {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (q, k, w) = (self.queries as isize, self.keys as isize, self.width as isize);
        let shape = [pass.batch, self.queries, self.keys, self.width];
        let to = Strides { offset: 0, strides: [q * k * w, k * w, w, 1] };
        let mut y = pass.outputs.get(0)?;
        let a = Strides { offset: 0, strides: [q * w, w, 0, 1] };
        device.strided_copy(shape, pass.inputs.get(0)?, a, y.reborrow(), to, WeightGrad::Set)?;
        let b = Strides { offset: 0, strides: [k * w, 0, w, 1] };
        device.strided_copy(shape, pass.inputs.get(1)?, b, y, to, WeightGrad::Add)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let dy = pass.doutputs.get(0)?;
        let [da, db, ..] = pass.dinputs.each();
        let over_keys = [pass.batch * self.queries, self.keys, self.width];
        let over_queries = [pass.batch, self.queries, self.keys * self.width];
        for (sizes, to) in [(over_keys, da), (over_queries, db)] {
            let Some(to) = to else { continue };
            let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
            device.sum_axis(sizes, 1.0, dy, to, WeightGrad::Set, workspace)?;
        }
        Ok(())
    }
}

/// Sums of the rows.
struct Sum {
    columns: usize,
    workspace: Scratch,
}

impl Op for Sum {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        let sizes = [y.len(), self.columns, 1];
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
        device.sum_axis(sizes, 1.0, x, y, WeightGrad::Set, workspace)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (dy, dx) = (pass.doutputs.get(0)?, pass.dinputs.get(0)?);
        let shape = [1, 1, dy.len(), self.columns];
        let from = Strides { offset: 0, strides: [0, 0, 1, 0] };
        let to = Strides { offset: 0, strides: [0, 0, self.columns as isize, 1] };
        device.strided_copy(shape, dy, from, dx, to, WeightGrad::Set)
    }
}
