//! The operators: what each makes of its inputs, in the file that has its kind.

use crate::error::Result;
use crate::exchange::onnx::constant::{Constant, Count, Elements, Kind};
use crate::exchange::onnx::fold::{combination, depends, function};
use crate::exchange::onnx::import::{Importer, Value, required, scalar_constant, shape_constant};
use crate::exchange::onnx::proto::Node;
use crate::exchange::onnx::tensor::Data;
use crate::nn::{Combination, Function, Reduction};

impl<'f> Importer<'f> {
    /// What a node gives.
    pub fn evaluate(&mut self, node: Node<'f>, mut inputs: Vec<Option<Value>>) -> Result<Vec<Value>> {
        // Products wait for their bias through what does not change them.
        let passes = matches!(node.op(), "Add" | "Identity" | "Cast");
        if !passes {
            for input in &mut inputs {
                *input = input.take().map(|value| self.resolved(node, value)).transpose()?;
            }
        }
        let first = || required(node, &inputs, 0);
        let one = match node.op() {
            "Constant" => self.constant(node)?,
            "Shape" => {
                let shape = first()?.shape();
                let rank = shape.len();
                let bound = |name: &str, default: i64| {
                    let at = node.int(name).unwrap_or(default);
                    let at = if at < 0 { at.saturating_add(rank as i64) } else { at };
                    usize::try_from(at.clamp(0, rank as i64)).unwrap_or(0)
                };
                let (start, end) = (bound("start", 0), bound("end", rank as i64));
                shape_constant(node, shape.get(start..end.max(start)).unwrap_or_default().to_vec())
            }
            "Size" => {
                let product = first()?
                    .shape()
                    .into_iter()
                    .try_fold(Count::fixed(1), |product, n| product.combine(super::constant::Arithmetic::Product, n));
                scalar_constant(node, product.ok_or_else(|| depends(node))?)
            }
            "ConstantOfShape" => self.constant_of_shape(node, &inputs)?,
            "Range" => {
                let constant = |index: usize| match required(node, &inputs, index)? {
                    Value::Constant(constant) => Ok(constant),
                    _ => Err(node.unsupported("its bounds depend on the samples")),
                };
                let most = self.most_elements();
                let counted = Constant::counted(node, &constant(0)?, &constant(1)?, &constant(2)?, most)?;
                self.budget(node, &counted.shape)?;
                Value::Constant(counted)
            }
            "Identity" => first()?,
            "Dropout" => return self.dropout(node, &inputs),
            "Cast" | "CastLike" => self.cast(node, &inputs)?,
            "Reshape" => self.reshape(node, &inputs)?,
            "Flatten" => self.flatten(node, first()?)?,
            "Squeeze" => self.squeeze(node, &inputs)?,
            "Unsqueeze" => self.unsqueeze(node, &inputs)?,
            "Transpose" => self.transpose(node, first()?)?,
            "Slice" => self.slice(node, &inputs)?,
            "Split" => return self.split(node, &inputs),
            "Concat" => self.concat(node, &inputs)?,
            "Gather" => self.gather(node, &inputs)?,
            "Expand" => self.expand(node, &inputs)?,
            "Tile" => self.tile(node, &inputs)?,
            "Pad" => self.pad(node, &inputs)?,
            "Where" => self.choose(node, &inputs)?,
            "Clip" => self.clip(node, &inputs)?,
            "PRelu" => self.prelu(node, &inputs)?,
            "Sum" | "Mean" => self.sums(node, &inputs)?,
            "Einsum" => self.einsum(node, &inputs)?,
            "Trilu" => {
                let k = self.ints(node, inputs.get(1).and_then(Option::as_ref), "k")?;
                let diagonal = k.and_then(|k| k.first().copied()).unwrap_or(0);
                match first()? {
                    Value::Constant(constant) => Value::Constant(constant.triangle(node, diagonal)?),
                    value => {
                        let value = self.resolved(node, value)?;
                        self.triangle(node, value, diagonal)?
                    }
                }
            }
            "GatherND" => self.gather_first(node, &inputs)?,
            "NonZero" => match first()? {
                Value::Constant(constant) => Value::Constant(constant.places(node)?),
                _ => return Err(node.unsupported("how many elements it gives depends on the samples")),
            },
            op if op.starts_with("Reduce") => self.reduce(node, &inputs)?,
            "GlobalAveragePool" => self.global_pool(node, first()?, Reduction::Mean)?,
            "GlobalMaxPool" => self.global_pool(node, first()?, Reduction::Maximum)?,
            "Max" | "Min" if inputs.len() != 2 => {
                let how = combination(node).unwrap_or(Combination::Maximum);
                let mut value = first()?;
                for index in 1..inputs.len() {
                    value = self.pairwise(node, how, value, required(node, &inputs, index)?)?;
                }
                value
            }
            _ => {
                if let Some(how) = combination(node) {
                    return Ok(vec![self.pairwise(node, how, first()?, required(node, &inputs, 1)?)?]);
                }
                if let Some(function) = function(node) {
                    return Ok(vec![match first()? {
                        Value::Constant(constant) => Value::Constant(constant.mapped(node, function)?),
                        value => {
                            let data = self.data(node, value)?;
                            let kind = if function.is_step() && matches!(node.op(), "Not" | "IsNaN") {
                                Kind::Bool
                            } else {
                                data.kind
                            };
                            Value::Data(Data { kind, ..self.map(node, &data, function)? })
                        }
                    }]);
                }
                return self.layer(node, &inputs);
            }
        };
        Ok(vec![one])
    }

    fn constant(&mut self, node: Node<'f>) -> Result<Value> {
        let lineage = node.lineage(&[], 0);
        if let Some(tensor) = node.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
            let constant = self.file.tensor(tensor)?;
            self.budget(node, &constant.shape)?;
            // Weights stand in initializers, or in constants of several elements.
            let is_weight = constant.kind() == Kind::Float && constant.len() > 1;
            return Ok(Value::Constant(Constant { lineage, is_weight, ..constant }));
        }
        let counts = |values: &[i64]| Elements::Ints(values.iter().map(|value| Count::fixed(*value)).collect());
        let (shape, elements) = if let Some(value) = node.float("value_float") {
            (vec![], Elements::Floats(vec![value]))
        } else if let Some(value) = node.int("value_int") {
            (vec![], counts(&[value]))
        } else if let Some(values) = node.ints("value_ints") {
            (vec![values.len()], counts(values))
        } else if let Some(attribute) = node.attribute("value_floats") {
            let values = attribute.floats.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
            (vec![values.len()], Elements::Floats(values))
        } else {
            return Err(node.unsupported("a constant that is neither a tensor nor numbers"));
        };
        Ok(Value::Constant(Constant::new(shape, elements, lineage)))
    }

    /// A shape as a constant's: which axis has the samples, and the others' lengths.
    pub(super) fn constant_shape(&self, node: Node<'_>, counts: &[Count]) -> Result<(Vec<usize>, Option<usize>)> {
        let batch = |count: &Count| count.batch == 1 && count.fixed == 0;
        let batch_axis = counts.iter().position(batch);
        let length = |(axis, count): (usize, &Count)| match count.known() {
            _ if batch_axis == Some(axis) => Ok(1),
            Some(n) => usize::try_from(n).map_err(|_| node.wrong(format!("an axis of {n}"))),
            None => Err(depends(node)),
        };
        Ok((counts.iter().enumerate().map(length).collect::<Result<_>>()?, batch_axis))
    }

    fn constant_of_shape(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let counts = self.counts(node, inputs.first().and_then(Option::as_ref), "shape")?;
        let counts = counts.ok_or_else(|| node.wrong("it has no shape"))?;
        let value = match node.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
            Some(tensor) => self.file.tensor(tensor)?,
            None => Constant::new(vec![1], Elements::Floats(vec![0.0]), 0),
        };
        let (shape, batch_axis) = self.constant_shape(node, &counts)?;
        self.budget(node, &shape)?;
        let filled = Constant::filled(node, shape, &value, batch_axis);
        Ok(Value::Constant(filled.ok_or_else(|| node.wrong("its value has no element"))?))
    }

    fn dropout(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
        let x = required(node, inputs, 0)?;
        let ratio = match inputs.get(1).and_then(Option::as_ref) {
            Some(value) => value.constant().and_then(Constant::floats).and_then(|values| values.first().copied()),
            None => Some(node.float("ratio").unwrap_or(0.5)),
        };
        let Value::Data(data) = &x else { return Ok(vec![x]) };
        Ok(vec![match ratio {
            Some(ratio) if ratio > 0.0 && ratio < 1.0 => {
                let tensor = self.add(node, crate::nn::Dropout::new(ratio), &[&data.tensor])?;
                Value::Data(Data { tensor, ..data.clone() })
            }
            _ => x,
        }])
    }

    fn cast(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let value = required(node, inputs, 0)?;
        let kind = match (node.op(), node.int("to")) {
            ("CastLike", _) => required(node, inputs, 1)?.kind(),
            (_, Some(1 | 10 | 11 | 16)) => Kind::Float,
            (_, Some(2..=7 | 12 | 13)) => Kind::Int,
            (_, Some(9)) => Kind::Bool,
            (_, to) => return Err(node.unsupported(format!("a cast to the type number {to:?}"))),
        };
        if let Value::Constant(constant) = &value {
            return Ok(Value::Constant(constant.cast(node, kind)?));
        }
        match (value.kind(), kind) {
            (from, to) if from == to => Ok(value),
            (Kind::Int | Kind::Bool, Kind::Float) | (Kind::Bool, Kind::Int) => {
                Ok(Value::Data(Data { kind, ..self.data(node, value)? }))
            }
            (_, Kind::Int) => {
                let data = self.data(node, value)?;
                Ok(Value::Data(Data { kind, ..self.map(node, &data, Function::Truncate)? }))
            }
            (_, _) => {
                let data = self.data(node, value)?;
                let zero = self.map(node, &data, Function::IsZero)?;
                Ok(Value::Data(Data { kind, ..self.map(node, &zero, Function::IsZero)? }))
            }
        }
    }

    // Repeats.
}
