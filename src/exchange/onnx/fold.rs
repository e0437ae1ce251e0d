//! What is known before the model runs: shape arithmetic and the like, folded.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::error::Result;
use crate::exchange::onnx::constant::{Arithmetic, Constant, Count, Elements, Kind, indices, size, strides};
use crate::exchange::onnx::proto::Node;
use crate::nn::{Combination, Function};

/// The function of a node of one input, with its constants.
pub(super) fn function(node: Node<'_>) -> Option<Function> {
    let alpha = |default: f64| node.float("alpha").unwrap_or(default);
    Some(match node.op() {
        "Tanh" => Function::Tanh,
        "Relu" => Function::Relu,
        "Sigmoid" => Function::Sigmoid,
        "HardSigmoid" => Function::HardSigmoid { alpha: alpha(0.2), beta: node.float("beta").unwrap_or(0.5) },
        "Softsign" => Function::Softsign,
        "Softplus" => Function::Softplus,
        "Elu" => Function::Elu { alpha: alpha(1.0) },
        "LeakyRelu" => Function::LeakyRelu { alpha: alpha(0.01) },
        "ThresholdedRelu" => Function::ThresholdedRelu { alpha: alpha(1.0) },
        // Other constants than these are no SELU; then it is refused.
        "Selu"
            if node.float("alpha").is_none_or(|a| (a - 1.673_263_2).abs() < 1e-6)
                && node.float("gamma").is_none_or(|g| (g - 1.050_701).abs() < 1e-6) =>
        {
            Function::Selu
        }
        "Celu" => Function::Celu { alpha: alpha(1.0) },
        "Gelu" => Function::Gelu { approximate: node.text("approximate") == Some("tanh") },
        "HardSwish" => Function::HardSwish,
        "Mish" => Function::Mish,
        "Swish" if node.float("alpha").is_none_or(|a| a == 1.0) => Function::Silu,
        "Exp" => Function::Exp,
        "Log" => Function::Log,
        "Sqrt" => Function::Sqrt,
        "Reciprocal" => Function::Reciprocal,
        "Abs" => Function::Absolute,
        "Erf" => Function::Erf,
        "Sin" => Function::Sin,
        "Cos" => Function::Cos,
        "Sign" => Function::Sign,
        "Floor" => Function::Floor,
        "Ceil" => Function::Ceiling,
        "Round" => Function::Round,
        "Not" => Function::IsZero,
        "IsNaN" => Function::IsNan,
        "Neg" => Function::Affine { alpha: -1.0, beta: 0.0 },
        _ => return None,
    })
}

/// What a node of two inputs makes of them.
pub(super) fn combination(node: Node<'_>) -> Option<Combination> {
    Some(match node.op() {
        "Add" => Combination::Sum,
        "Sub" => Combination::Difference,
        "Mul" => Combination::Product,
        "Div" => Combination::Quotient,
        "Pow" => Combination::Power,
        "Max" => Combination::Maximum,
        "Min" => Combination::Minimum,
        "Mod" if node.flag("fmod") => Combination::Remainder,
        "Mod" => Combination::Modulo,
        "Equal" => Combination::Equal,
        "Less" => Combination::Less,
        "LessOrEqual" => Combination::LessOrEqual,
        "Greater" => Combination::Greater,
        "GreaterOrEqual" => Combination::GreaterOrEqual,
        "And" => Combination::And,
        "Or" => Combination::Or,
        "Xor" => Combination::Xor,
        _ => return None,
    })
}

/// The kind of what a combination gives.
pub(super) fn kind_of(how: Combination, a: Kind, b: Kind) -> Kind {
    match (how.is_step(), a, b) {
        (true, ..) => Kind::Bool,
        (false, Kind::Float, _) | (false, _, Kind::Float) => Kind::Float,
        _ => Kind::Int,
    }
}

/// The shape that NumPy's rule gives for two.
pub(super) fn common_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let axes = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(axes).map_or(1, |own| shape[own]);
    (0..axes)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (a, b) if a == b => Some(a),
            (1, n) | (n, 1) => Some(n),
            _ => None,
        })
        .collect()
}

/// What a `Slice` node takes of an axis: the first element, the step, how many.
pub(super) fn range(start: i64, end: i64, step: i64, len: usize) -> Option<(usize, isize, usize)> {
    let n = i64::try_from(len).ok()?;
    let from_end = |at: i64| if at < 0 { at.saturating_add(n) } else { at };
    let step_size = isize::try_from(step).ok()?;
    if step > 0 {
        let (start, end) = (from_end(start).clamp(0, n), from_end(end).clamp(0, n));
        let count = end.checked_sub(start)?.max(0);
        let count = count / step + i64::from(count % step != 0);
        return Some((usize::try_from(start).ok()?, step_size, usize::try_from(count).ok()?));
    }
    if step == 0 || n == 0 {
        return (step != 0).then_some((0, step_size, 0));
    }
    let (start, end) = (from_end(start).clamp(-1, n - 1), from_end(end).clamp(-1, n - 1));
    let span = start.checked_sub(end)?.max(0);
    let size = i64::try_from(step.unsigned_abs()).ok()?;
    let count = span / size + i64::from(span % size != 0);
    Some((usize::try_from(start.max(0)).ok()?, step_size, usize::try_from(count).ok()?))
}

impl Constant {
    /// A value of its own, made by a node.
    fn made(node: Node<'_>, shape: Vec<usize>, elements: Elements) -> Self {
        Constant::new(shape, elements, node.lineage(&[], 0))
    }

    /// The function of every element.
    pub fn mapped(&self, node: Node<'_>, function: Function) -> Result<Constant> {
        let elements = match (&*self.elements, function) {
            (Elements::Ints(values), Function::Affine { alpha: -1.0, .. }) => {
                let zero = Count::fixed(0);
                let negated = values.iter().map(|value| zero.combine(Arithmetic::Difference, *value));
                Elements::Ints(negated.collect::<Option<_>>().ok_or_else(|| node.wrong("a whole number overflows"))?)
            }
            (Elements::Ints(values), Function::Absolute) => {
                let absolute = |value: &Count| match value.known() {
                    Some(known) => known.checked_abs().map(Count::fixed),
                    None => value.order(Count::fixed(-1)).filter(|order| order.is_gt()).map(|_| *value),
                };
                let values = values.iter().map(absolute).collect::<Option<_>>();
                Elements::Ints(values.ok_or_else(|| depends(node))?)
            }
            (_, Function::IsZero | Function::IsNan) => {
                let values = self.floats().ok_or_else(|| depends(node))?;
                Elements::Bools(values.into_iter().map(|value| function.apply(value) != 0.0).collect())
            }
            (elements, _) => {
                let kind = elements.kind();
                let values = self.floats().ok_or_else(|| depends(node))?;
                let mapped = values.into_iter().map(|value| function.apply(value));
                match kind {
                    Kind::Int => Elements::Ints(mapped.map(|value| Count::fixed(value as i64)).collect()),
                    _ => Elements::Floats(mapped.collect()),
                }
            }
        };
        Ok(Constant { elements: Rc::new(elements), lineage: node.lineage(&[self.lineage], 0), ..self.clone() })
    }

    /// What two are combined to.
    pub fn combined(node: Node<'_>, how: Combination, a: &Constant, b: &Constant) -> Result<Constant> {
        let shape = common_shape(&a.shape, &b.shape)
            .ok_or_else(|| node.wrong(format!("shapes {:?} and {:?} do not go together", a.shape, b.shape)))?;
        let wide =
            |constant: &Constant| constant.broadcast(&shape).ok_or_else(|| node.wrong("shapes do not go together"));
        let (left, right) = (wide(a)?, wide(b)?);
        let batch_axis = match (left.batch_axis, right.batch_axis) {
            (Some(one), Some(other)) if one != other => {
                return Err(node.wrong("the samples stand in different axes of its inputs"));
            }
            (one, other) => one.or(other),
        };
        let floating = left.kind() == Kind::Float || right.kind() == Kind::Float;
        let elements = if floating {
            let (x, y) = (left.floats().ok_or_else(|| depends(node))?, right.floats().ok_or_else(|| depends(node))?);
            let values = x.into_iter().zip(y).map(|(x, y)| how.apply(x, y));
            match how.is_step() {
                true => Elements::Bools(values.map(|value| value != 0.0).collect()),
                false => Elements::Floats(values.collect()),
            }
        } else {
            let counts = |constant: &Constant| constant.counts().ok_or_else(|| depends(node));
            let pairs = counts(&left)?.into_iter().zip(counts(&right)?);
            match truth(how) {
                Some(holds) => {
                    let truths = pairs.map(|(x, y)| holds(x, y)).collect::<Option<Vec<bool>>>();
                    Elements::Bools(truths.ok_or_else(|| depends(node))?)
                }
                None => {
                    let arithmetic = arithmetic(how).ok_or_else(|| depends(node))?;
                    let values = pairs.map(|(x, y)| x.combine(arithmetic, y)).collect::<Option<Vec<Count>>>();
                    Elements::Ints(values.ok_or_else(|| depends(node))?)
                }
            }
        };
        Ok(Constant {
            shape,
            batch_axis,
            elements: Rc::new(elements),
            lineage: node.lineage(&[a.lineage, b.lineage], 0),
            is_weight: a.is_weight || b.is_weight,
        })
    }

    /// The elements as another kind.
    pub fn cast(&self, node: Node<'_>, kind: Kind) -> Result<Constant> {
        let elements = match (&*self.elements, kind) {
            (elements, kind) if elements.kind() == kind => return Ok(self.clone()),
            (_, Kind::Float) => Elements::Floats(self.floats().ok_or_else(|| depends(node))?),
            (Elements::Floats(values), Kind::Int) => {
                Elements::Ints(values.iter().map(|value| Count::fixed(*value as i64)).collect())
            }
            (_, Kind::Int) => Elements::Ints(self.counts().ok_or_else(|| depends(node))?),
            (Elements::Ints(values), Kind::Bool) => {
                let truth = |value: &Count| match value.known() {
                    Some(known) => Some(known != 0),
                    None => value.order(Count::fixed(0)).map(|order| order.is_ne()),
                };
                Elements::Bools(values.iter().map(truth).collect::<Option<_>>().ok_or_else(|| depends(node))?)
            }
            (_, Kind::Bool) => {
                let values = self.floats().ok_or_else(|| depends(node))?;
                Elements::Bools(values.into_iter().map(|value| value != 0.0).collect())
            }
        };
        Ok(Constant { elements: Rc::new(elements), ..self.clone() })
    }

    /// The sum, product, largest or smallest over axes.
    pub fn reduced(&self, node: Node<'_>, axes: &[usize], keep: bool) -> Result<Constant> {
        let how = match node.op() {
            "ReduceSum" | "ReduceMean" => Combination::Sum,
            "ReduceProd" => Combination::Product,
            "ReduceMax" => Combination::Maximum,
            "ReduceMin" => Combination::Minimum,
            _ => return Err(node.unsupported("it is not computed for constants")),
        };
        if self.batch_axis.is_some_and(|axis| axes.contains(&axis)) {
            return Err(depends(node));
        }
        let kept: Vec<usize> = (0..self.shape.len()).filter(|axis| !axes.contains(axis)).collect();
        let order: Vec<usize> = kept.iter().chain(axes).copied().collect();
        let moved = self.permuted(&order).ok_or_else(|| node.wrong("its axes are not those of its input"))?;
        let count: usize = axes.iter().map(|axis| self.shape[*axis]).product();
        if count == 0 {
            return Err(node.wrong("it goes over an axis without elements"));
        }
        let elements = match &*moved.elements {
            Elements::Ints(values) => {
                let arithmetic = arithmetic(how).ok_or_else(|| depends(node))?;
                let fold = |row: &[Count]| {
                    row[1..].iter().try_fold(row[0], |sum, value| sum.combine(arithmetic, *value)).and_then(|sum| {
                        match node.op() {
                            "ReduceMean" => sum.combine(Arithmetic::Quotient, Count::fixed(count as i64)),
                            _ => Some(sum),
                        }
                    })
                };
                let values = values.chunks_exact(count).map(fold).collect::<Option<Vec<_>>>();
                Elements::Ints(values.ok_or_else(|| depends(node))?)
            }
            _ => {
                let values = moved.floats().ok_or_else(|| depends(node))?;
                let scale = if node.op() == "ReduceMean" { 1.0 / count as f64 } else { 1.0 };
                let fold = |row: &[f64]| scale * row[1..].iter().fold(row[0], |sum, value| how.apply(sum, *value));
                Elements::Floats(values.chunks_exact(count).map(fold).collect())
            }
        };
        let axis = |axis: usize| if axes.contains(&axis) { 1 } else { self.shape[axis] };
        let shape: Vec<usize> = (0..self.shape.len()).filter(|a| keep || !axes.contains(a)).map(axis).collect();
        let batch_axis =
            self.batch_axis.map(|axis| if keep { axis } else { axis - axes.iter().filter(|a| **a < axis).count() });
        Ok(Constant {
            shape,
            batch_axis,
            elements: Rc::new(elements),
            lineage: node.lineage(&[self.lineage], 0),
            is_weight: self.is_weight,
        })
    }

    /// The product of two matrices.
    pub fn product(node: Node<'_>, a: &Constant, b: &Constant) -> Result<Constant> {
        let (&[m, k], &[inner, n]) = (&a.shape[..], &b.shape[..]) else {
            return Err(node.unsupported("a product of two constants is computed for matrices alone"));
        };
        let (Some(x), Some(y)) = (a.floats(), b.floats()) else { return Err(depends(node)) };
        if k != inner || size(&[m, n]).is_none() {
            return Err(node.wrong(format!("shapes {:?} and {:?} do not go together", a.shape, b.shape)));
        }
        let element = |i: usize, j: usize| (0..k).map(|l| x[i * k + l] * y[l * n + j]).sum::<f64>();
        let values = (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| element(i, j)).collect();
        Ok(Constant {
            batch_axis: a.batch_axis.filter(|axis| *axis == 0),
            is_weight: a.is_weight || b.is_weight,
            ..Constant::new(vec![m, n], Elements::Floats(values), node.lineage(&[a.lineage, b.lineage], 0))
        })
    }

    /// Whole numbers from a start to an end.
    pub fn counted(
        node: Node<'_>,
        start: &Constant,
        limit: &Constant,
        step: &Constant,
        most: usize,
    ) -> Result<Constant> {
        let one = |constant: &Constant| constant.floats().and_then(|values| values.first().copied());
        let (Some(first), Some(limit), Some(step_size)) = (one(start), one(limit), one(step)) else {
            return Err(depends(node));
        };
        let count = ((limit - first) / step_size).ceil().max(0.0);
        if !count.is_finite() || count > most as f64 {
            return Err(node.wrong(format!("a range of {count} numbers, more than a file of this size may have")));
        }
        let values = (0..count as usize).map(|i| first + step_size * i as f64);
        let elements = match start.kind() {
            Kind::Int => Elements::Ints(values.map(|value| Count::fixed(value as i64)).collect()),
            _ => Elements::Floats(values.collect()),
        };
        Ok(Constant::made(node, vec![count as usize], elements))
    }

    /// The lower or the upper triangle of the last two axes, the others zero.
    pub fn triangle(&self, node: Node<'_>, diagonal: i64) -> Result<Constant> {
        let [.., rows, columns] = self.shape[..] else { return Err(node.wrong("an input of fewer than two axes")) };
        let upper = node.int("upper").unwrap_or(1) != 0;
        let values = self.floats().ok_or_else(|| depends(node))?;
        let kept = values.into_iter().enumerate().map(|(i, value)| {
            let (row, column) = ((i / columns.max(1) % rows.max(1)) as i64, (i % columns.max(1)) as i64);
            let distance = column.saturating_sub(row);
            if if upper { distance >= diagonal } else { distance <= diagonal } { value } else { 0.0 }
        });
        let elements = match self.kind() {
            Kind::Float => Elements::Floats(kept.collect()),
            Kind::Int => Elements::Ints(kept.map(|value| Count::fixed(value as i64)).collect()),
            Kind::Bool => Elements::Bools(kept.map(|value| value != 0.0).collect()),
        };
        Ok(Constant { elements: Rc::new(elements), lineage: node.lineage(&[self.lineage], 0), ..self.clone() })
    }

    /// Several side by side along an axis.
    pub fn joined(node: Node<'_>, parts: &[&Constant], axis: usize) -> Result<Constant> {
        let first = parts.first().ok_or_else(|| node.wrong("it has no inputs"))?;
        let mut shape = first.shape.clone();
        shape[axis] = 0;
        for part in parts {
            let alike = part.shape.len() == shape.len()
                && part.shape.iter().zip(&shape).enumerate().all(|(i, (n, m))| i == axis || n == m);
            let same_batch = part.batch_axis == first.batch_axis && part.batch_axis != Some(axis);
            if !alike || !same_batch {
                let got = format!("{:?} beside {:?}", part.shape, first.shape);
                return Err(node.wrong(format!("inputs that differ in other axes than {axis}: {got}")));
            }
            shape[axis] = shape[axis].saturating_add(part.shape[axis]);
        }
        size(&shape).ok_or_else(|| node.wrong("more elements than can be counted"))?;
        let kind = match parts.iter().map(|part| part.kind()).collect::<Vec<_>>() {
            kinds if kinds.contains(&Kind::Float) => Kind::Float,
            kinds if kinds.contains(&Kind::Int) => Kind::Int,
            _ => Kind::Bool,
        };
        let parts = parts.iter().map(|part| part.cast(node, kind)).collect::<Result<Vec<_>>>()?;
        let outer: usize = shape[..axis].iter().product();
        fn gather<T: Copy>(parts: &[(&[T], usize)], outer: usize) -> Vec<T> {
            (0..outer)
                .flat_map(|o| parts.iter().flat_map(move |(part, n)| part[o * n..(o + 1) * n].iter().copied()))
                .collect()
        }
        let width = |part: &Constant| part.len().checked_div(outer).unwrap_or(0);
        let elements = match kind {
            Kind::Float => {
                let all: Vec<_> = parts
                    .iter()
                    .filter_map(|p| match &*p.elements {
                        Elements::Floats(values) => Some((values.as_slice(), width(p))),
                        _ => None,
                    })
                    .collect();
                Elements::Floats(gather(&all, outer))
            }
            Kind::Int => {
                let all: Vec<_> = parts
                    .iter()
                    .filter_map(|p| match &*p.elements {
                        Elements::Ints(values) => Some((values.as_slice(), width(p))),
                        _ => None,
                    })
                    .collect();
                Elements::Ints(gather(&all, outer))
            }
            Kind::Bool => {
                let all: Vec<_> = parts
                    .iter()
                    .filter_map(|p| match &*p.elements {
                        Elements::Bools(values) => Some((values.as_slice(), width(p))),
                        _ => None,
                    })
                    .collect();
                Elements::Bools(gather(&all, outer))
            }
        };
        let lineages: Vec<u64> = parts.iter().map(|part| part.lineage).collect();
        Ok(Constant {
            batch_axis: first.batch_axis,
            is_weight: parts.iter().any(|part| part.is_weight),
            ..Constant::new(shape, elements, node.lineage(&lineages, 0))
        })
    }

    /// The same with every axis repeated so many times.
    pub fn tiled(&self, node: Node<'_>, repeats: &[usize]) -> Result<Constant> {
        let shape: Vec<usize> = self.shape.iter().zip(repeats).map(|(n, times)| n.saturating_mul(*times)).collect();
        let own = strides(&self.shape);
        let mut places = vec![0];
        for ((n, times), stride) in self.shape.iter().zip(repeats).zip(own) {
            places = places
                .into_iter()
                .flat_map(|place| (0..n * times).map(move |i| place + i % n.max(&1) * stride))
                .collect();
        }
        self.pick(shape, places.into_iter()).ok_or_else(|| node.wrong("its repeats are not those of its input"))
    }

    /// Elements of the first where a condition holds, else of the second.
    pub fn chosen(node: Node<'_>, condition: &Constant, a: &Constant, b: &Constant) -> Result<Constant> {
        let wrong = || node.wrong("its inputs' shapes do not go together");
        let shape = common_shape(&condition.shape, &a.shape).and_then(|shape| common_shape(&shape, &b.shape));
        let shape = shape.ok_or_else(wrong)?;
        let holds = condition.broadcast(&shape).ok_or_else(wrong)?.cast(node, Kind::Bool)?;
        let Elements::Bools(holds) = &*holds.elements else { return Err(wrong()) };
        let kind = if a.kind() == Kind::Float || b.kind() == Kind::Float { Kind::Float } else { a.kind() };
        let wide = |constant: &Constant| constant.broadcast(&shape).ok_or_else(wrong)?.cast(node, kind);
        let (x, y) = (wide(a)?, wide(b)?);
        let elements = match (&*x.elements, &*y.elements) {
            (Elements::Floats(x), Elements::Floats(y)) => Elements::Floats(choose(holds, x, y)),
            (Elements::Ints(x), Elements::Ints(y)) => Elements::Ints(choose(holds, x, y)),
            (Elements::Bools(x), Elements::Bools(y)) => Elements::Bools(choose(holds, x, y)),
            _ => return Err(wrong()),
        };
        Ok(Constant {
            batch_axis: x.batch_axis.or(y.batch_axis),
            is_weight: a.is_weight || b.is_weight,
            ..Constant::new(shape, elements, node.lineage(&[condition.lineage, a.lineage, b.lineage], 0))
        })
    }

    /// Places of the elements that are not zero, `[axes, places]`.
    pub fn places(&self, node: Node<'_>) -> Result<Constant> {
        let values = self.floats().ok_or_else(|| depends(node))?;
        let strides = strides(&self.shape);
        let found: Vec<usize> = (0..values.len()).filter(|i| values[*i] != 0.0).collect();
        let coordinate = |axis: usize, place: usize| (place / strides[axis].max(1)) % self.shape[axis].max(1);
        let places = (0..self.shape.len()).flat_map(|axis| found.iter().map(move |place| (axis, *place)));
        let counts = places.map(|(axis, place)| Count::fixed(coordinate(axis, place) as i64)).collect();
        Ok(Constant::made(node, vec![self.shape.len(), found.len()], Elements::Ints(counts)))
    }

    /// A tensor of one value.
    pub fn filled(node: Node<'_>, shape: Vec<usize>, value: &Constant, batch_axis: Option<usize>) -> Option<Constant> {
        let none = vec![0; shape.len()];
        let sources = indices(&shape, &none);
        let picked = value.pick(shape.clone(), sources)?;
        let lineage = node.lineage(&[value.lineage, size(&shape)? as u64], 0);
        Some(Constant { batch_axis, lineage, is_weight: false, ..picked })
    }
}

fn choose<T: Copy>(holds: &[bool], x: &[T], y: &[T]) -> Vec<T> {
    holds.iter().zip(x).zip(y).map(|((holds, x), y)| if *holds { *x } else { *y }).collect()
}

/// What a comparison or a connective says of whole numbers, where that does not depend on the number of samples.
fn truth(how: Combination) -> Option<fn(Count, Count) -> Option<bool>> {
    fn nonzero(value: Count) -> Option<bool> {
        match value.known() {
            Some(known) => Some(known != 0),
            None => value.order(Count::fixed(0)).map(Ordering::is_ne),
        }
    }
    Some(match how {
        Combination::Equal => |a, b| if a == b { Some(true) } else { a.order(b).map(Ordering::is_eq) },
        Combination::Less => |a, b| a.order(b).map(Ordering::is_lt),
        Combination::LessOrEqual => |a, b| a.order(b).map(Ordering::is_le),
        Combination::Greater => |a, b| a.order(b).map(Ordering::is_gt),
        Combination::GreaterOrEqual => |a, b| a.order(b).map(Ordering::is_ge),
        Combination::And => |a, b| Some(nonzero(a)? && nonzero(b)?),
        Combination::Or => |a, b| Some(nonzero(a)? || nonzero(b)?),
        Combination::Xor => |a, b| Some(nonzero(a)? != nonzero(b)?),
        _ => return None,
    })
}

fn arithmetic(how: Combination) -> Option<Arithmetic> {
    Some(match how {
        Combination::Sum => Arithmetic::Sum,
        Combination::Difference => Arithmetic::Difference,
        Combination::Product => Arithmetic::Product,
        Combination::Quotient => Arithmetic::Quotient,
        Combination::Modulo => Arithmetic::Modulo,
        Combination::Remainder => Arithmetic::Remainder,
        Combination::Power => Arithmetic::Power,
        Combination::Maximum => Arithmetic::Maximum,
        Combination::Minimum => Arithmetic::Minimum,
        _ => return None,
    })
}

/// A result that is not the same for every number of samples.
pub(super) fn depends(node: Node<'_>) -> crate::Error {
    node.unsupported(
        "what it gives depends on the number of samples, and is needed before that is known; export the model for a number of samples that \
         may change, or say which axis has the samples",
    )
}
