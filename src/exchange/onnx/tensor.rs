//! Tensors that the model computes, as ONNX sees them: [`Data`]. This crate has the batch first in every tensor; ONNX has it anywhere, and
//! may have it in one axis with others.

use crate::exchange::onnx::constant::{Count, Kind};
use crate::model::GraphTensor;

/// An axis as ONNX has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// So many elements of each sample.
    Fixed(usize),
    /// The samples, with elements of each in the same axis: element `(b * samples + s) * after + a` is `(b, a)` of sample s.
    Batch {
        /// Elements of a sample that stand before the samples in it.
        before: usize,
        /// Elements of a sample that stand after them.
        after: usize,
    },
}

/// The samples alone.
pub(super) const BATCH: Axis = Axis::Batch { before: 1, after: 1 };

impl Axis {
    /// Its length.
    pub fn count(self) -> Count {
        match self {
            Axis::Fixed(n) => Count::fixed(n as i64),
            Axis::Batch { before, after } => Count { batch: (before * after) as i64, fixed: 0 },
        }
    }

    /// Axes of a sample that it stands for.
    pub fn of_sample(self) -> impl Iterator<Item = usize> {
        let (first, second) = match self {
            Axis::Fixed(n) => (Some(n), None),
            Axis::Batch { before, after } => (Some(before).filter(|n| *n != 1), Some(after).filter(|n| *n != 1)),
        };
        first.into_iter().chain(second)
    }
}

/// A tensor that the model computes: one of its graph, and the axes as ONNX has them. The tensor's own shape may be another one for as
/// many elements.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub tensor: GraphTensor,
    pub axes: Vec<Axis>,
    pub kind: Kind,
}

impl Data {
    /// Which axis has the samples.
    pub fn batch_axis(&self) -> usize {
        self.axes.iter().position(|axis| matches!(axis, Axis::Batch { .. })).unwrap_or(0)
    }

    /// Whether that axis has nothing else.
    pub fn is_plain(&self) -> bool {
        self.axes.contains(&BATCH)
    }

    /// The shape of a sample: the axes, without the samples.
    pub fn sample(&self) -> Vec<usize> {
        self.axes.iter().flat_map(|axis| axis.of_sample()).collect()
    }

    /// The axes of [`sample`](Self::sample) that an axis stands for.
    pub fn sample_axes(&self, axis: usize) -> std::ops::Range<usize> {
        let start = self.axes[..axis].iter().flat_map(|axis| axis.of_sample()).count();
        start..start + self.axes[axis].of_sample().count()
    }

    /// Elements of a sample that stand before and after the samples.
    pub fn around_batch(&self) -> (usize, usize) {
        let at = self.batch_axis();
        let size = |axes: &[Axis]| axes.iter().flat_map(|axis| axis.of_sample()).product::<usize>();
        let (before, after) = match self.axes.get(at) {
            Some(Axis::Batch { before, after }) => (*before, *after),
            _ => (1, 1),
        };
        (size(&self.axes[..at]) * before, after * size(&self.axes[at + 1..]))
    }

    /// How errors write its shape.
    pub fn described(&self) -> String {
        let axes: Vec<_> = self.axes.iter().map(|axis| axis.count().to_string()).collect();
        format!("[{}]", axes.join(", "))
    }
}

/// The axes of a tensor whose samples have `before` and `after` elements around them, under the shape `target`, of which one element may be -1.
/// `literal` is how many samples a file was written for, if it was for a fixed number; `near` the axis that is preferred among several that could
/// hold the samples. `None` where there is no such shape.
pub(super) fn reshaped(
    (before, after): (usize, usize),
    target: &[Count],
    literal: Option<usize>,
    near: usize,
) -> Option<Vec<Axis>> {
    let minus_one = Count::fixed(-1);
    if target.iter().filter(|n| **n == minus_one).count() > 1 {
        return None;
    }
    let elements = before.checked_mul(after)?;
    let fixed = |n: &Count| n.known().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    // For each axis that could hold the samples: how many elements of a sample it holds besides, and the axes.
    let mut best: Option<((usize, usize), Vec<Axis>)> = None;
    for (at, n) in target.iter().enumerate() {
        let others = || target.iter().enumerate().filter(|(axis, n)| *axis != at && **n != minus_one);
        let known = others().try_fold(1usize, |product, (_, n)| product.checked_mul(fixed(n)?));
        let Some(known) = known.filter(|known| elements % known == 0) else { continue };
        let open = target.contains(&minus_one) && *n != minus_one;
        let held = match (n.batch, n.fixed) {
            (0, -1) => Some(elements / known),
            (0, n) => {
                literal.and_then(|literal| usize::try_from(n).ok().filter(|n| n % literal == 0).map(|n| n / literal))
            }
            (batch, 0) => usize::try_from(batch).ok(),
            _ => None,
        };
        let Some(held) = held.filter(|held| *held > 0) else { continue };
        let Some(all) = held.checked_mul(known).filter(|all| elements % all == 0) else { continue };
        let inferred = elements / all;
        if !open && inferred != 1 {
            continue;
        }
        let length = |n: &Count| if *n == minus_one { inferred } else { fixed(n).unwrap_or(1) };
        let front: usize = target[..at].iter().map(length).product();
        let back: usize = target[at + 1..].iter().map(length).product();
        if before % front != 0 || after % back != 0 || (before / front) * (after / back) != held {
            continue;
        }
        let axes = target.iter().enumerate().map(|(axis, n)| match axis == at {
            true => Axis::Batch { before: before / front, after: after / back },
            false => Axis::Fixed(length(n)),
        });
        let rank = (held, at.abs_diff(near));
        if best.as_ref().is_none_or(|(other, _)| rank < *other) {
            best = Some((rank, axes.collect()));
        }
    }
    best.map(|(_, axes)| axes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(around: (usize, usize), target: &[i64], literal: Option<usize>) -> Option<Vec<Axis>> {
        // Zero stands for the number of samples.
        let count = |n: &i64| if *n == 0 { Count { batch: 1, fixed: 0 } } else { Count::fixed(*n) };
        reshaped(around, &target.iter().map(count).collect::<Vec<_>>(), literal, 0)
    }

    #[test]
    fn the_samples_keep_their_place() {
        use Axis::Fixed;
        // An LSTM's output [10, samples, 2, 8], its directions side by side.
        assert_eq!(shape((10, 16), &[10, 0, 16], None), Some(vec![Fixed(10), BATCH, Fixed(16)]));
        assert_eq!(shape((10, 16), &[10, 0, -1], None), Some(vec![Fixed(10), BATCH, Fixed(16)]));
        assert_eq!(shape((10, 16), &[10, 2, 16], Some(2)), Some(vec![Fixed(10), BATCH, Fixed(16)]));
        assert_eq!(shape((2, 3), &[2, 2, 3], Some(2)), Some(vec![Fixed(2), BATCH, Fixed(3)]));
        // Steps of samples as rows, and back.
        assert_eq!(shape((1, 30), &[-1, 3], None), Some(vec![Axis::Batch { before: 1, after: 10 }, Fixed(3)]));
        assert_eq!(shape((10, 3), &[-1, 3], None), Some(vec![Axis::Batch { before: 10, after: 1 }, Fixed(3)]));
        assert_eq!(shape((1, 30), &[-1, 10, 3], None), Some(vec![BATCH, Fixed(10), Fixed(3)]));
        assert_eq!(shape((1, 30), &[2, -1], Some(2)), Some(vec![BATCH, Fixed(30)]));
        // Elements of different samples do not mix.
        assert_eq!(shape((3, 4), &[0, 12], None), None);
        assert_eq!(shape((1, 30), &[-1, 7], None), None);
        assert_eq!(shape((1, 30), &[-1, -1], None), None);
    }
}
