//! Where the samples stand in another program's arrays: [`Port`].

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::InputShape;

/// An input or an output of an imported model, as the other program has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Port {
    /// Its name there.
    pub name: String,
    /// Which of its axes has the samples; the model has them first.
    pub batch_axis: usize,
    /// The other axes there, `None` for one of any length.
    pub shape: Vec<Option<usize>>,
    /// Elements of each sample that stand in the samples' axis too, before and after them: `[1, 1]` where it has nothing else. With
    /// `[1, steps]` it is `samples * steps` long, all steps of a sample together.
    #[serde(default = "alone", skip_serializing_if = "is_alone")]
    pub within: [usize; 2],
}

fn alone() -> [usize; 2] {
    [1, 1]
}

fn is_alone(within: &[usize; 2]) -> bool {
    *within == [1, 1]
}

impl Port {
    /// A port of this name whose samples are in axis `batch_axis`; `shape` is that of the other axes, with `None` for any length.
    pub fn new(name: &str, batch_axis: usize, shape: impl InputShape) -> Self {
        Port { name: name.to_owned(), batch_axis, shape: shape.axes(), within: alone() }
    }

    /// Whether the model's arrays are the same.
    pub fn is_plain(&self) -> bool {
        self.batch_axis == 0 && is_alone(&self.within)
    }

    /// Whether its arrays have as many elements as those of another, and can be turned into them: what a file says may be anything.
    pub(super) fn may_be(&self, own: &Port) -> bool {
        let known =
            |port: &Port| port.shape.iter().flatten().try_fold(1usize, |product, size| product.checked_mul(*size));
        let open = |port: &Port| port.shape.iter().filter(|axis| axis.is_none()).count();
        let elements = known(self).and_then(|known| known.checked_mul(self.within[0])?.checked_mul(self.within[1]));
        self.batch_axis <= self.shape.len()
            && !self.within.contains(&0)
            && elements.is_some()
            && elements == known(own)
            && open(self) == open(own)
    }

    /// Whether axes without the samples are this port's.
    fn fits(&self, shape: &[usize]) -> bool {
        shape.len() == self.shape.len()
            && shape.iter().zip(&self.shape).all(|(n, axis)| axis.is_none_or(|axis| axis == *n))
    }

    fn wrong(&self, got: &[usize]) -> Error {
        let mut axes: Vec<String> =
            self.shape.iter().map(|axis| axis.map_or_else(|| "any".to_owned(), |n| n.to_string())).collect();
        let held: usize = self.within.iter().product();
        let samples = if held == 1 { "samples".to_owned() } else { format!("samples * {held}") };
        axes.insert(self.batch_axis.min(axes.len()), samples);
        Error::shape(&self.name, format!("[{}]", axes.join(", ")), format!("{got:?}"))
    }

    /// An array as it is there, as the model takes it: samples first.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where it is none of this port's.
    pub fn taken_in<E: Copy>(&self, array: &ArrayViewD<'_, E>) -> Result<ArrayD<E>> {
        let wrong = || self.wrong(array.shape());
        let mut shape = array.shape().to_vec();
        if self.batch_axis >= shape.len() {
            return Err(wrong());
        }
        let [before, after] = self.within;
        let held = shape.remove(self.batch_axis);
        if !self.fits(&shape) || before * after == 0 || !held.is_multiple_of(before * after) {
            return Err(wrong());
        }
        let samples = held / (before * after);
        let mut whole = array.shape().to_vec();
        whole.splice(self.batch_axis..=self.batch_axis, [before, samples, after]);
        let values: Vec<E> = array.iter().copied().collect();
        let whole = ArrayD::from_shape_vec(IxDyn(&whole), values).map_err(|_| wrong())?;
        let order: Vec<usize> = std::iter::once(self.batch_axis + 1)
            .chain((0..whole.ndim()).filter(|axis| *axis != self.batch_axis + 1))
            .collect();
        let moved = whole.permuted_axes(IxDyn(&order));
        let (front, back) = shape.split_at_checked(self.batch_axis).ok_or_else(wrong)?;
        let mut shape = vec![samples];
        shape.extend(front);
        shape.extend([before, after].iter().filter(|n| **n != 1));
        shape.extend(back);
        if shape.len() == 1 {
            shape.push(1);
        }
        ArrayD::from_shape_vec(IxDyn(&shape), moved.iter().copied().collect()).map_err(|_| wrong())
    }

    /// An array as the model gives it, samples first, as it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where it is none of this port's.
    pub fn given_out<E: Copy>(&self, array: &ArrayViewD<'_, E>) -> Result<ArrayD<E>> {
        let wrong = || self.wrong(array.shape());
        let [before, after] = self.within;
        let samples = *array.shape().first().ok_or_else(wrong)?;
        // The other axes, as the array has them.
        let held = [before, after].into_iter().filter(|n| *n != 1).count();
        let mut shape = array.shape().get(1..).unwrap_or_default().to_vec();
        if self.shape.is_empty() && held == 0 {
            shape.clear();
        }
        if self.batch_axis > self.shape.len() || shape.len() != self.shape.len() + held {
            return Err(wrong());
        }
        shape.drain(self.batch_axis..self.batch_axis + held);
        if !self.fits(&shape) {
            return Err(wrong());
        }
        let mut whole = vec![samples];
        whole.extend(shape.iter().take(self.batch_axis));
        whole.extend([before, after]);
        whole.extend(shape.iter().skip(self.batch_axis));
        let values: Vec<E> = array.iter().copied().collect();
        let whole = ArrayD::from_shape_vec(IxDyn(&whole), values).map_err(|_| wrong())?;
        let mut order: Vec<usize> = (1..whole.ndim()).collect();
        order.insert(self.batch_axis + 1, 0);
        let moved = whole.permuted_axes(IxDyn(&order));
        shape.insert(self.batch_axis, before * samples * after);
        ArrayD::from_shape_vec(IxDyn(&shape), moved.iter().copied().collect()).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_go_in_and_come_out() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        for (batch_axis, shape, within) in [
            (0, vec![3, 4], [1, 1]),
            (1, vec![3, 4], [1, 1]),
            (2, vec![3, 4], [1, 1]),
            (0, vec![4], [3, 1]),
            (1, vec![2], [1, 3]),
        ] {
            let port = Port { within, ..Port::new("x", batch_axis, &shape) };
            let mut there = shape.clone();
            let rest: usize = shape.iter().product();
            there.insert(batch_axis, 24 / rest);
            let array = ArrayD::from_shape_vec(IxDyn(&there), values.clone()).unwrap();
            let inside = port.taken_in(&array.view()).unwrap();
            assert_eq!(inside.shape()[0], 24 / rest / (within[0] * within[1]));
            assert_eq!(port.given_out(&inside.view()).unwrap(), array, "{port:?}");
        }
        let port = Port::new("x", 1, &[3, 4]);
        let array = ArrayD::from_shape_vec(IxDyn(&[3, 2, 4]), values).unwrap();
        // The same with a length that may be any.
        let open = Port::new("x", 1, &[None, Some(4)]);
        assert_eq!(open.taken_in(&array.view()).unwrap(), port.taken_in(&array.view()).unwrap());
        assert_eq!(open.given_out(&open.taken_in(&array.view()).unwrap().view()).unwrap(), array);
        let text = Port::new("x", 1, &[None, Some(5)]).taken_in(&array.view()).unwrap_err().to_string();
        assert_eq!(text, "x: expected [any, samples, 5], got [3, 2, 4]");
        // Element (step 1, sample 1, feature 0).
        assert_eq!(port.taken_in(&array.view()).unwrap()[[1, 1, 0]], array[[1, 1, 0]]);
        let text = Port::new("x", 1, &[3, 5]).taken_in(&array.view()).unwrap_err().to_string();
        assert_eq!(text, "x: expected [3, samples, 5], got [3, 2, 4]");
        // A single number a sample is an axis of one here.
        let port = Port::new("x", 0, &[0usize; 0]);
        let array = ArrayD::from_shape_vec(IxDyn(&[2]), vec![1.0, 2.0]).unwrap();
        let inside = port.taken_in(&array.view()).unwrap();
        assert_eq!(inside.shape(), [2, 1]);
        assert_eq!(port.given_out(&inside.view()).unwrap(), array);
    }

    #[test]
    fn what_a_file_says_of_a_port_fits_or_is_refused() {
        let own = Port::new("x", 0, &[3, 4]);
        for (batch_axis, shape, within, fits) in [
            (2, vec![4, 3], [1, 1], true),
            (0, vec![4], [3, 1], true),
            (3, vec![3, 4], [1, 1], false),
            (0, vec![3, 5], [1, 1], false),
            (0, vec![3, 4], [0, 1], false),
            (0, vec![12], [1 << 63, 2], false),
            (0, vec![usize::MAX, 2], [1, 1], false),
        ] {
            let port = Port { within, ..Port::new("x", batch_axis, &shape) };
            assert_eq!(port.may_be(&own), fits, "{port:?}");
        }
        let open = Port::new("x", 0, &[None, Some(4)]);
        assert!(Port::new("x", 1, &[None, Some(4)]).may_be(&open));
        assert!(!Port::new("x", 0, &[Some(1), Some(4)]).may_be(&open) && !open.may_be(&own));
    }
}
