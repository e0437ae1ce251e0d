//! Attention as products, a softmax and copies: what a device does that has no attention of its own. The weights of all keys are in the
//! workspace, and the gradients compute them again.

use super::arguments::{
    AttentionGradients, AttentionInputs, AttentionShape, MatMul, Orientation, SoftmaxMask, Strides, Workspace,
};
use super::{Operations, check};
use crate::backend::WeightGrad;
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::error::Result;

/// One tensor of an attention with its heads one after the other, `[batch, heads, steps, width]`, and side by side, `[batch, steps, heads, width]`.
#[derive(Clone, Copy)]
struct Heads([usize; 4]);

impl Heads {
    fn len(self) -> usize {
        self.0.into_iter().fold(1, usize::saturating_mul)
    }

    /// How the axes `[batch, heads, steps, width]` lie.
    fn layouts(self) -> (Strides, Strides) {
        let [_, heads, steps, width] = self.0.map(|n| n as isize);
        let apart = Strides { offset: 0, strides: [heads * steps * width, steps * width, width, 1] };
        let aside = Strides { offset: 0, strides: [heads * steps * width, width, heads * width, 1] };
        (apart, aside)
    }

    fn apart<O: Operations + ?Sized>(self, ops: &O, from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
        let (apart, aside) = self.layouts();
        ops.strided_copy(self.0, from, aside, to, apart, WeightGrad::Set)
    }

    fn aside<O: Operations + ?Sized>(self, ops: &O, from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
        let (apart, aside) = self.layouts();
        ops.strided_copy(self.0, from, apart, to, aside, WeightGrad::Set)
    }
}

/// The tensors and products of an attention.
struct Parts {
    query: Heads,
    key: Heads,
    value: Heads,
    y: Heads,
    /// Weights of all keys.
    weights: Heads,
    /// `query keyᵀ`, `weights value`; `dy valueᵀ`, `dscores key`, `dscoresᵀ query`, `weightsᵀ dy`.
    products: [MatMul; 6],
}

impl Parts {
    fn new(shape: &AttentionShape) -> Self {
        let AttentionShape { batch, heads, queries, keys, key_dim, value_dim, .. } = *shape;
        let product = |orientation, m, n, k| MatMul { count: batch.saturating_mul(heads), orientation, m, n, k };
        Parts {
            query: Heads([batch, heads, queries, key_dim]),
            key: Heads([batch, heads, keys, key_dim]),
            value: Heads([batch, heads, keys, value_dim]),
            y: Heads([batch, heads, queries, value_dim]),
            weights: Heads([batch, heads, queries, keys]),
            products: [
                product(Orientation::Nt, queries, keys, key_dim),
                product(Orientation::Nn, queries, value_dim, keys),
                product(Orientation::Nt, queries, keys, value_dim),
                product(Orientation::Nn, queries, key_dim, keys),
                product(Orientation::Tn, keys, key_dim, queries),
                product(Orientation::Tn, keys, value_dim, queries),
            ],
        }
    }

    /// Workspace of the products, and of tensors.
    fn workspace<O: Operations + ?Sized>(&self, ops: &O, products: &[MatMul], tensors: &[Heads]) -> usize {
        let largest = products.iter().map(|product| ops.workspace(Workspace::MatMul(*product))).max().unwrap_or(0);
        tensors.iter().fold(largest, |total, tensor| total.saturating_add(tensor.len()))
    }

    /// The heads of queries and keys apart, their scores, and the weights.
    fn weigh<O: Operations + ?Sized>(
        &self,
        ops: &O,
        shape: &AttentionShape,
        alpha: f64,
        of: &AttentionInputs<'_>,
        [mut query, mut key, mut scores, weights]: [TensorMut<'_>; 4],
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        self.query.apart(ops, of.query, query.reborrow())?;
        self.key.apart(ops, of.key, key.reborrow())?;
        ops.matmul(self.products[0], alpha, query.view(), key.view(), scores.reborrow(), WeightGrad::Set, workspace)?;
        let keys = of.mask.map(|mask| (mask, shape.heads * shape.queries));
        let valid = SoftmaxMask { keys, causal: shape.causal.then_some(shape.queries) };
        ops.softmax(shape.keys, scores.view(), valid, weights)
    }
}

/// The workspace of [`forward`].
pub(crate) fn workspace<O: Operations + ?Sized>(ops: &O, shape: &AttentionShape) -> usize {
    let p = Parts::new(shape);
    p.workspace(ops, &p.products[..2], &[p.query, p.key, p.value, p.y, p.weights, p.weights])
}

/// The workspace of [`backward`].
pub(crate) fn gradient_workspace<O: Operations + ?Sized>(ops: &O, shape: &AttentionShape) -> usize {
    let p = Parts::new(shape);
    let weights = p.weights;
    p.workspace(ops, &p.products, &[p.query, p.key, p.value, p.y, weights, weights, weights, p.query])
}

/// See [`Operations::attention`]. It needs no statistics.
pub(crate) fn forward<O: Operations + ?Sized>(
    ops: &O,
    shape: AttentionShape,
    alpha: f64,
    of: AttentionInputs<'_>,
    y: TensorMut<'_>,
    statistics: TensorMut<'_>,
    workspace: TensorMut<'_>,
) -> Result<()> {
    let lens = [of.query.len(), of.key.len(), of.value.len(), y.len(), statistics.len()];
    check::attention(&shape, lens, of.mask.map(|mask| mask.len()), [("", None); 4])?;
    check::workspace(self::workspace(ops, &shape), workspace.len())?;
    if shape.batch == 0 {
        return Ok(());
    }
    let p = Parts::new(&shape);
    let (query, rest) = workspace.split_at(p.query.len())?;
    let (key, rest) = rest.split_at(p.key.len())?;
    let (mut value, rest) = rest.split_at(p.value.len())?;
    let (mut mixture, rest) = rest.split_at(p.y.len())?;
    let (scores, rest) = rest.split_at(p.weights.len())?;
    let (mut weights, mut rest) = rest.split_at(p.weights.len())?;
    p.weigh(ops, &shape, alpha, &of, [query, key, scores, weights.reborrow()], rest.reborrow())?;
    p.value.apart(ops, of.value, value.reborrow())?;
    ops.matmul(p.products[1], 1.0, weights.view(), value.view(), mixture.reborrow(), WeightGrad::Set, rest)?;
    p.y.aside(ops, mixture.view(), y)
}

/// See [`Operations::attention_gradient`].
#[allow(clippy::too_many_arguments)] // those of the operation
pub(crate) fn backward<O: Operations + ?Sized>(
    ops: &O,
    shape: AttentionShape,
    alpha: f64,
    of: AttentionInputs<'_>,
    y: TensorRef<'_>,
    statistics: TensorRef<'_>,
    dy: TensorRef<'_>,
    to: AttentionGradients<'_>,
    workspace: TensorMut<'_>,
) -> Result<()> {
    let lens = [of.query.len(), of.key.len(), of.value.len(), y.len(), statistics.len()];
    let gradient = |tensor: &Option<TensorMut<'_>>| tensor.as_ref().map(TensorMut::len);
    let others = [
        ("dy", Some(dy.len())),
        ("gradient of query", gradient(&to.query)),
        ("gradient of key", gradient(&to.key)),
        ("gradient of value", gradient(&to.value)),
    ];
    check::attention(&shape, lens, of.mask.map(|mask| mask.len()), others)?;
    check::workspace(gradient_workspace(ops, &shape), workspace.len())?;
    if shape.batch == 0 {
        return Ok(());
    }
    let p = Parts::new(&shape);
    let (mut query, rest) = workspace.split_at(p.query.len())?;
    let (mut key, rest) = rest.split_at(p.key.len())?;
    let (mut value, rest) = rest.split_at(p.value.len())?;
    let (mut slope, rest) = rest.split_at(p.y.len())?;
    let (mut scores, rest) = rest.split_at(p.weights.len())?;
    let (mut weights, rest) = rest.split_at(p.weights.len())?;
    let (mut dscores, rest) = rest.split_at(p.weights.len())?;
    let (mut dquery, mut rest) = rest.split_at(p.query.len())?;
    let tensors = [query.reborrow(), key.reborrow(), scores.reborrow(), weights.reborrow()];
    p.weigh(ops, &shape, alpha, &of, tensors, rest.reborrow())?;
    p.value.apart(ops, of.value, value.reborrow())?;
    p.y.apart(ops, dy, slope.reborrow())?;
    // Where scores were are the gradients of the weights.
    let [_, _, of_weights, of_query, of_key, of_value] = p.products;
    let set = WeightGrad::Set;
    ops.matmul(of_weights, 1.0, slope.view(), value.view(), scores.reborrow(), set, rest.reborrow())?;
    ops.softmax_gradient(shape.keys, weights.view(), scores.view(), dscores.reborrow())?;
    if let Some(to) = to.value {
        ops.matmul(of_value, 1.0, weights.view(), slope.view(), value.reborrow(), set, rest.reborrow())?;
        p.value.aside(ops, value.view(), to)?;
    }
    if let Some(to) = to.query {
        ops.matmul(of_query, alpha, dscores.view(), key.view(), dquery.reborrow(), set, rest.reborrow())?;
        p.query.aside(ops, dquery.view(), to)?;
    }
    // Keys and values are needed no more where their gradients go.
    if let Some(to) = to.key {
        ops.matmul(of_key, alpha, dscores.view(), query.view(), key.reborrow(), set, rest)?;
        p.key.aside(ops, key.view(), to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Device, Tensor};
    use crate::dtype::DType;

    /// The oracle's numbers up to rounding, for all gradients at once and for each alone, without what was in the tensors before.
    #[test]
    fn parts_agree_with_the_oracle() {
        let oracle = Device::reference().with_dtype(DType::F64).unwrap();
        let tensor = |len: usize, seed: usize| {
            let values: Vec<f64> = (0..len).map(|i| ((i + seed) * 7919 % 1009) as f64 / 504.5 - 0.9).collect();
            oracle.tensor("numbers", &values).unwrap()
        };
        for (causal, masked) in [(false, false), (true, false), (false, true), (true, true)] {
            let (batch, heads, queries, keys, key_dim, value_dim) = (3, 2, 5, 7, 4, 3);
            let shape = AttentionShape { batch, heads, queries, keys, key_dim, value_dim, causal };
            let (rows, columns) = (batch * queries * heads, batch * keys * heads);
            let (query, key) = (tensor(rows * key_dim, 1), tensor(columns * key_dim, 2));
            let (value, dy) = (tensor(columns * value_dim, 3), tensor(rows * value_dim, 4));
            // The first keys are absent, and of the last sample all.
            let mask: Vec<f64> = (0..batch * keys).map(|i| f64::from(i % keys > 1 && i < (batch - 1) * keys)).collect();
            let mask = oracle.tensor("mask", &mask).unwrap();
            let of = || AttentionInputs {
                query: query.view(),
                key: key.view(),
                value: value.view(),
                mask: masked.then(|| mask.view()),
            };
            let nan = |len: usize| oracle.tensor("results", &vec![f64::NAN; len]).unwrap();
            let lens = [rows * key_dim, columns * key_dim, columns * value_dim];
            let run = |composed: bool, wanted: [bool; 3]| -> Vec<Vec<f64>> {
                let (mut y, mut statistics) = (nan(rows * value_dim), nan(rows * 2));
                let [mut dquery, mut dkey, mut dvalue] = lens.map(nan);
                let mut space = nan(gradient_workspace(&*oracle, &shape).max(workspace(&*oracle, &shape)));
                let (to, rows, space_of) = (y.view_mut(), statistics.view_mut(), space.view_mut());
                match composed {
                    true => forward(&*oracle, shape, 0.7, of(), to, rows, space_of),
                    false => oracle.attention(shape, 0.7, of(), to, rows, space_of),
                }
                .unwrap();
                let to = AttentionGradients {
                    query: wanted[0].then(|| dquery.view_mut()),
                    key: wanted[1].then(|| dkey.view_mut()),
                    value: wanted[2].then(|| dvalue.view_mut()),
                };
                let (y_of, rows, space) = (y.view(), statistics.view(), space.view_mut());
                match composed {
                    true => backward(&*oracle, shape, 0.7, of(), y_of, rows, dy.view(), to, space),
                    false => oracle.attention_gradient(shape, 0.7, of(), y_of, rows, dy.view(), to, space),
                }
                .unwrap();
                let read = |tensor: &Tensor| oracle.read::<f64>(tensor.view()).unwrap();
                vec![read(&y), read(&dquery), read(&dkey), read(&dvalue)]
            };
            for wanted in [[true; 3], [true, false, false], [false, true, false], [false, false, true]] {
                let (got, expected) = (run(true, wanted), run(false, wanted));
                for (i, (got, expected)) in got.iter().flatten().zip(expected.iter().flatten()).enumerate() {
                    let near = (got - expected).abs() < 1e-14 || got.is_nan() && expected.is_nan();
                    assert!(near, "{shape:?}, masked {masked}, wanted {wanted:?}, {i}: {got}, not {expected}");
                }
                let given = got[1..].iter().map(|gradient| gradient.iter().all(|v| !v.is_nan()));
                assert!(given.eq(wanted), "those that are wanted are written");
            }
        }
    }
}
