//! Tensors whose values are known before the model runs: [`Constant`]. Whole numbers may depend on the number of samples: [`Count`].

use std::fmt;
use std::rc::Rc;

/// A whole number that may depend on the number of samples: `batch` times that, plus `fixed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Count {
    pub batch: i64,
    pub fixed: i64,
}

impl Count {
    pub fn fixed(fixed: i64) -> Self {
        Count { batch: 0, fixed }
    }

    /// The number, where it does not depend on the number of samples.
    pub fn known(self) -> Option<i64> {
        (self.batch == 0).then_some(self.fixed)
    }

    /// Two such numbers as one, where that is one too.
    pub fn combine(self, how: Arithmetic, other: Self) -> Option<Self> {
        let both = |f: fn(i64, i64) -> Option<i64>| {
            Some(Count { batch: f(self.batch, other.batch)?, fixed: f(self.fixed, other.fixed)? })
        };
        match how {
            Arithmetic::Sum => both(i64::checked_add),
            Arithmetic::Difference => both(i64::checked_sub),
            Arithmetic::Product => match (self.known(), other.known()) {
                (Some(factor), _) => other.times(factor),
                (_, Some(factor)) => self.times(factor),
                _ => None,
            },
            Arithmetic::Quotient => {
                let by = other.known().filter(|by| *by != 0)?;
                match self.known() {
                    Some(a) => a.checked_div(by).map(Count::fixed),
                    None if self.batch % by == 0 && self.fixed % by == 0 => {
                        Some(Count { batch: self.batch / by, fixed: self.fixed / by })
                    }
                    None => None,
                }
            }
            Arithmetic::Modulo => match (self.known()?, other.known()?) {
                (_, 0) => None,
                (a, b) => a.checked_rem(b).map(|r| Count::fixed(if r != 0 && (r < 0) != (b < 0) { r + b } else { r })),
            },
            Arithmetic::Remainder => self.known()?.checked_rem(other.known()?).map(Count::fixed),
            Arithmetic::Power => {
                let exponent = u32::try_from(other.known()?).ok()?;
                self.known()?.checked_pow(exponent).map(Count::fixed)
            }
            Arithmetic::Maximum | Arithmetic::Minimum => {
                if self == other {
                    return Some(self);
                }
                let larger = self.order(other)?.is_gt();
                Some(if larger == (how == Arithmetic::Maximum) { self } else { other })
            }
        }
    }

    fn times(self, factor: i64) -> Option<Self> {
        Some(Count { batch: self.batch.checked_mul(factor)?, fixed: self.fixed.checked_mul(factor)? })
    }

    /// How it compares with another, where that is so for every number of samples, which is at least one.
    pub fn order(self, other: Self) -> Option<std::cmp::Ordering> {
        let batch = self.batch.checked_sub(other.batch)?;
        let fixed = self.fixed.checked_sub(other.fixed)?;
        match batch {
            0 => Some(fixed.cmp(&0)),
            // The difference is at least (or at most) that for one sample.
            b if b > 0 && b.checked_add(fixed)? > 0 => Some(std::cmp::Ordering::Greater),
            b if b < 0 && b.checked_add(fixed)? < 0 => Some(std::cmp::Ordering::Less),
            _ => None,
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.batch, self.fixed) {
            (0, fixed) => write!(f, "{fixed}"),
            (1, 0) => f.write_str("samples"),
            (batch, 0) => write!(f, "{batch}*samples"),
            (batch, fixed) => write!(f, "{batch}*samples + {fixed}"),
        }
    }
}

/// Arithmetic of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Sum,
    Difference,
    Product,
    Quotient,
    Modulo,
    Remainder,
    Power,
    Maximum,
    Minimum,
}

/// What the elements of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Int,
    Bool,
}

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Elements {
    Floats(Vec<f64>),
    Ints(Vec<Count>),
    Bools(Vec<bool>),
}

impl Elements {
    pub fn len(&self) -> usize {
        match self {
            Elements::Floats(values) => values.len(),
            Elements::Ints(values) => values.len(),
            Elements::Bools(values) => values.len(),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Elements::Floats(_) => Kind::Float,
            Elements::Ints(_) => Kind::Int,
            Elements::Bools(_) => Kind::Bool,
        }
    }
}

/// A tensor that is known.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    pub shape: Vec<usize>,
    /// An axis of length 1 here that is as long as there are samples: all have the same values.
    pub batch_axis: Option<usize>,
    pub elements: Rc<Elements>,
    /// What it is made of: tensors of one lineage are the same weights.
    pub lineage: u64,
    /// Whether it, or what it is made of, is a weight of the file rather than a number of its arithmetic.
    pub is_weight: bool,
}

impl Constant {
    pub fn new(shape: Vec<usize>, elements: Elements, lineage: u64) -> Self {
        Constant { shape, batch_axis: None, elements: Rc::new(elements), lineage, is_weight: false }
    }

    pub fn len(&self) -> usize {
        self.elements.len()
    }

    pub fn kind(&self) -> Kind {
        self.elements.kind()
    }

    /// The elements as floating-point numbers; `None` where they depend on the number of samples.
    pub fn floats(&self) -> Option<Vec<f64>> {
        match &*self.elements {
            Elements::Floats(values) => Some(values.clone()),
            Elements::Ints(values) => values.iter().map(|value| value.known().map(|v| v as f64)).collect(),
            Elements::Bools(values) => Some(values.iter().map(|value| f64::from(*value)).collect()),
        }
    }

    /// The elements as whole numbers; `None` for floating-point numbers.
    pub fn counts(&self) -> Option<Vec<Count>> {
        match &*self.elements {
            Elements::Floats(_) => None,
            Elements::Ints(values) => Some(values.clone()),
            Elements::Bools(values) => Some(values.iter().map(|value| Count::fixed(i64::from(*value))).collect()),
        }
    }

    /// The value of all elements, where they have one.
    pub fn uniform(&self) -> Option<f64> {
        let all_same = |values: &[f64]| {
            let first = *values.first()?;
            values.iter().all(|value| *value == first).then_some(first)
        };
        match &*self.elements {
            Elements::Floats(values) => all_same(values),
            _ => all_same(&self.floats()?),
        }
    }

    /// A tensor of this shape whose elements are those that `sources` names. The caller has seen to it that there are as many as the shape has.
    pub fn pick(&self, shape: Vec<usize>, sources: impl Iterator<Item = usize>) -> Option<Constant> {
        fn picked<T: Copy>(values: &[T], sources: impl Iterator<Item = usize>) -> Option<Vec<T>> {
            sources.map(|source| values.get(source).copied()).collect()
        }
        let elements = match &*self.elements {
            Elements::Floats(values) => Elements::Floats(picked(values, sources)?),
            Elements::Ints(values) => Elements::Ints(picked(values, sources)?),
            Elements::Bools(values) => Elements::Bools(picked(values, sources)?),
        };
        Some(Constant { shape, elements: Rc::new(elements), ..self.clone() })
    }

    /// The elements along one axis that `positions` names.
    pub fn along(&self, axis: usize, positions: &[usize]) -> Option<Constant> {
        let length = *self.shape.get(axis)?;
        let outer: usize = self.shape[..axis].iter().product();
        let inner: usize = self.shape[axis + 1..].iter().product();
        let mut shape = self.shape.clone();
        shape[axis] = positions.len();
        if positions.iter().any(|position| *position >= length) {
            return None;
        }
        let sources = (0..outer)
            .flat_map(|o| positions.iter().flat_map(move |p| (0..inner).map(move |i| (o * length + p) * inner + i)));
        self.pick(shape, sources)
    }

    /// The same elements under another shape of as many elements.
    pub fn reshaped(&self, shape: Vec<usize>) -> Constant {
        Constant { shape, ..self.clone() }
    }

    /// The axes in another order.
    pub fn permuted(&self, order: &[usize]) -> Option<Constant> {
        let strides = strides(&self.shape);
        let shape: Vec<usize> = order.iter().map(|axis| self.shape.get(*axis).copied()).collect::<Option<_>>()?;
        let moved: Vec<usize> = order.iter().map(|axis| strides[*axis]).collect();
        let batch_axis = self.batch_axis.and_then(|axis| order.iter().position(|other| *other == axis));
        let picked = self.pick(shape.clone(), indices(&shape, &moved))?;
        Some(Constant { batch_axis, ..picked })
    }

    /// The same repeated to a shape by NumPy's rule; `None` where that is not possible.
    pub fn broadcast(&self, shape: &[usize]) -> Option<Constant> {
        let missing = shape.len().checked_sub(self.shape.len())?;
        let own = strides(&self.shape);
        let mut moved = vec![0; shape.len()];
        for (axis, n) in self.shape.iter().enumerate() {
            match (*n, shape[missing + axis]) {
                (n, to) if n == to => moved[missing + axis] = own[axis],
                (1, _) => {}
                _ => return None,
            }
        }
        let picked = self.pick(shape.to_vec(), indices(shape, &moved))?;
        Some(Constant { batch_axis: self.batch_axis.map(|axis| axis + missing), ..picked })
    }
}

/// Elements of a shape; `None` where they, or those without its empty axes, are too many to count.
pub(super) fn size(shape: &[usize]) -> Option<usize> {
    let most = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n.max(&1)))?;
    Some(if shape.contains(&0) { 0 } else { most })
}

/// Elements from one index of each axis to the next, row-major.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}

/// The places that these strides give for all indices of a shape, row-major.
pub(super) fn indices(shape: &[usize], strides: &[usize]) -> impl Iterator<Item = usize> {
    let len: usize = shape.iter().product();
    let (shape, strides) = (shape.to_vec(), strides.to_vec());
    let mut index = vec![0; shape.len()];
    let mut place = 0;
    (0..len).map(move |_| {
        let current = place;
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            place += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            place -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
        current
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering;

    #[test]
    fn numbers_that_depend_on_the_samples() {
        let (samples, three) = (Count { batch: 1, fixed: 0 }, Count::fixed(3));
        assert_eq!(samples.combine(Arithmetic::Product, three), Some(Count { batch: 3, fixed: 0 }));
        assert_eq!(samples.combine(Arithmetic::Product, samples), None);
        let twice = Count { batch: 6, fixed: 0 };
        assert_eq!(twice.combine(Arithmetic::Quotient, three), Some(Count { batch: 2, fixed: 0 }));
        assert_eq!(samples.combine(Arithmetic::Quotient, three), None);
        assert_eq!(samples.order(Count::fixed(0)), Some(Ordering::Greater));
        assert_eq!(samples.order(Count::fixed(-1)), Some(Ordering::Greater));
        assert_eq!(samples.order(Count::fixed(1)), None);
        assert_eq!(Count::fixed(-7).combine(Arithmetic::Modulo, three), Some(Count::fixed(2)));
        assert_eq!(Count::fixed(-7).combine(Arithmetic::Remainder, three), Some(Count::fixed(-1)));
        assert_eq!(Count::fixed(i64::MIN).combine(Arithmetic::Quotient, Count::fixed(-1)), None);
    }

    #[test]
    fn elements_move() {
        let tensor = Constant::new(vec![2, 3], Elements::Floats((0..6).map(f64::from).collect()), 0);
        assert_eq!(tensor.permuted(&[1, 0]).unwrap().floats().unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(tensor.along(1, &[2, 0]).unwrap().floats().unwrap(), [2.0, 0.0, 5.0, 3.0]);
        assert!(tensor.along(1, &[3]).is_none());
        let row = tensor.along(0, &[1]).unwrap();
        assert_eq!(row.broadcast(&[2, 2, 3]).unwrap().len(), 12);
        assert!(row.broadcast(&[2, 2]).is_none());
    }
}
