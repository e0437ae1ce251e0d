//! [Attention](https://onnx.ai/onnx/operators/onnx__Attention.html) as one operator, of opset 23, as the products and the softmax that it is.

use crate::error::Result;
use crate::exchange::onnx::constant::{Constant, Count, Elements, Kind};
use crate::exchange::onnx::import::{Importer, Value, fixed, required};
use crate::exchange::onnx::proto::Node;
use crate::exchange::onnx::tensor::Data;
use crate::nn::{ActivationFunction, Combination, Function};

impl<'f> Importer<'f> {
    pub(super) fn attention(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
        for (index, what) in [(4, "past keys"), (5, "past values"), (6, "lengths of keys")] {
            if inputs.get(index).is_some_and(Option::is_some) {
                return Err(node.unsupported(format!("with {what}")));
            }
        }
        if node.float("softcap").is_some_and(|cap| cap != 0.0)
            || node.int("qk_matmul_output_mode").is_some_and(|m| m != 0)
        {
            return Err(node.unsupported("with softcap or qk_matmul_output_mode"));
        }
        let three = required(node, inputs, 0)?.rank() == 3;
        let mut heads = Vec::new();
        for (index, count) in [(0, "q_num_heads"), (1, "kv_num_heads"), (2, "kv_num_heads")] {
            let value = required(node, inputs, index)?;
            let data = self.data(node, value)?;
            heads.push(match three {
                true => self.split_heads(node, data, count)?,
                false => data,
            });
        }
        let [q, k, v] = &heads[..] else { return Err(node.wrong("it has no three inputs")) };
        if q.axes.len() != 4 || k.axes.len() != 4 || v.axes.len() != 4 {
            return Err(node.wrong("inputs that have neither three axes nor four"));
        }
        let (steps, width, keys) = (fixed(node, q.axes[2])?, fixed(node, q.axes[3])?, fixed(node, k.axes[2])?);
        if q.axes[1] != k.axes[1] || k.axes[1] != v.axes[1] {
            return Err(node.unsupported("fewer heads of keys and values than of queries"));
        }
        let scale = node.float("scale").unwrap_or(1.0 / (width as f64).sqrt());
        let q = self.map(node, q, Function::Affine { alpha: scale, beta: 0.0 })?;
        let turned = self.permuted(node, k, &[0, 1, 3, 2])?;
        let mut scores = self.products(node, Value::Data(q), Value::Data(turned))?;
        let constant = |shape: Vec<usize>, elements: Elements, number: usize| {
            Value::Constant(Constant::new(shape, elements, node.lineage(&[number as u64], number)))
        };
        let never = || constant(vec![1], Elements::Floats(vec![f64::NEG_INFINITY]), 1);
        if node.flag("is_causal") {
            self.budget(node, &[steps, keys])?;
            let seen = (0..steps).flat_map(|step| (0..keys).map(move |key| key <= step)).collect();
            let seen = constant(vec![steps, keys], Elements::Bools(seen), 2);
            scores = self.choose(node, &[Some(seen), Some(scores), Some(never())])?;
        }
        if let Some(mask) = inputs.get(3).cloned().flatten() {
            scores = match mask.kind() {
                Kind::Bool => self.choose(node, &[Some(mask), Some(scores), Some(never())])?,
                _ => self.pairwise(node, Combination::Sum, scores, mask)?,
            };
        }
        let scores = self.data(node, scores)?;
        let weights = self.softmax_along(node, &scores, 3, ActivationFunction::Softmax)?;
        let y = self.products(node, Value::Data(weights), Value::Data(v.clone()))?;
        if !three {
            return Ok(vec![y]);
        }
        let y = self.data(node, y)?;
        let y = self.permuted(node, &y, &[0, 2, 1, 3])?;
        let counts: Vec<Count> = y.axes.iter().map(|axis| axis.count()).collect();
        let wide = fixed(node, y.axes[2])?.saturating_mul(fixed(node, y.axes[3])?);
        let target = [counts[0], counts[1], Count::fixed(wide as i64)];
        Ok(vec![self.reshape_to(node, Value::Data(y), &target)?])
    }

    /// `[samples, steps, heads * width]` as `[samples, heads, steps, width]`.
    fn split_heads(&mut self, node: Node<'f>, data: Data, count: &str) -> Result<Data> {
        let counts: Vec<Count> = data.axes.iter().map(|axis| axis.count()).collect();
        let heads = node.int(count).filter(|n| *n > 0).ok_or_else(|| node.wrong(format!("it has no {count}")))?;
        let width = counts.get(2).and_then(|width| width.known()).filter(|width| width % heads == 0);
        let width = width.ok_or_else(|| node.wrong(format!("{} in {heads} heads", data.described())))?;
        let target = [counts[0], counts[1], Count::fixed(heads), Count::fixed(width / heads)];
        let split = self.reshape_to(node, Value::Data(data), &target)?;
        let split = self.data(node, split)?;
        self.permuted(node, &split, &[0, 2, 1, 3])
    }

    /// The elements on one side of a diagonal, zeros elsewhere.
    pub(super) fn triangle(&mut self, node: Node<'f>, value: Value, diagonal: i64) -> Result<Value> {
        let shape = value.shape();
        let [.., rows, columns] = &shape[..] else { return Err(node.wrong("an input of fewer than two axes")) };
        let (Some(rows), Some(columns)) = (rows.known(), columns.known()) else {
            return Err(node.unsupported("a diagonal across the samples"));
        };
        let shape = vec![usize::try_from(rows).unwrap_or(0), usize::try_from(columns).unwrap_or(0)];
        self.budget(node, &shape)?;
        let ones = Elements::Bools(vec![true; shape.iter().product()]);
        let kept = Constant::new(shape, ones, node.lineage(&[], 1)).triangle(node, diagonal)?;
        let zero = Constant::new(vec![1], Elements::Floats(vec![0.0]), node.lineage(&[], 2));
        self.choose(node, &[Some(Value::Constant(kept)), Some(value), Some(Value::Constant(zero))])
    }
}
