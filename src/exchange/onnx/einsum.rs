//! Einstein's sums: products of tensors as letters for their axes say, by transposes, reductions and matrix products.

use crate::error::Result;
use crate::exchange::onnx::constant::{Arithmetic, Constant, Count};
use crate::exchange::onnx::fold::depends;
use crate::exchange::onnx::import::{Importer, Value};
use crate::exchange::onnx::proto::Node;
use crate::nn::Reduction;

/// What stands for an axis: a letter, or one of those that "..." is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// Counted from the last one.
    Dots(usize),
    Letter(char),
}

/// A tensor with what its axes are called.
struct Operand {
    value: Value,
    labels: Vec<Label>,
}

/// The labels of one side of an equation, for a tensor of `rank` axes, or of as many as `dots` says.
fn labels(text: &str, dots: usize) -> Option<Vec<Label>> {
    let mut labels = Vec::new();
    let (before, after) = match text.split_once("...") {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    };
    let letters = |text: &str| text.chars().map(|c| c.is_ascii_alphabetic().then_some(Label::Letter(c))).collect();
    let before: Option<Vec<Label>> = letters(before);
    labels.extend(before?);
    if let Some(after) = after {
        labels.extend((0..dots).rev().map(Label::Dots));
        let after: Option<Vec<Label>> = letters(after);
        labels.extend(after?);
    }
    let distinct = labels.iter().enumerate().all(|(i, label)| !labels[..i].contains(label));
    distinct.then_some(labels)
}

impl<'f> Importer<'f> {
    /// Axes of several tensors that the result has stay side by side, those that it has not are summed over.
    pub(super) fn einsum(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let equation: String = node.text("equation").unwrap_or_default().split_whitespace().collect();
        let wrong = || node.wrong(format!("the equation {equation:?} for inputs of other axes"));
        let refused = |why: &str| node.unsupported(format!("the equation {equation:?}, {why}"));
        let (from, to) = match equation.split_once("->") {
            Some((from, to)) => (from, Some(to)),
            None => (equation.as_str(), None),
        };
        let texts: Vec<&str> = from.split(',').collect();
        let values: Vec<Value> = inputs.iter().flatten().cloned().collect();
        if texts.len() != values.len() || values.is_empty() {
            return Err(wrong());
        }
        let mut operands = Vec::new();
        let mut most_dots = 0;
        for (text, value) in texts.iter().zip(values) {
            let letters = text.chars().filter(|c| *c != '.').count();
            let dots = if text.contains("...") { value.rank().checked_sub(letters).ok_or_else(wrong)? } else { 0 };
            most_dots = most_dots.max(dots);
            let labels = labels(text, dots).ok_or_else(|| refused("which has an axis twice in one input"))?;
            if labels.len() != value.rank() {
                return Err(wrong());
            }
            operands.push(Operand { value, labels });
        }
        let to = match to {
            Some(to) => labels(to, most_dots).ok_or_else(|| refused("which has an axis of the result twice"))?,
            None => {
                // Those that stand in one input alone, by the alphabet.
                let all: Vec<Label> = operands.iter().flat_map(|operand| operand.labels.iter().copied()).collect();
                let once = |label: &Label| all.iter().filter(|other| *other == label).count() == 1;
                let mut kept: Vec<Label> = (0..most_dots).rev().map(Label::Dots).collect();
                let mut letters: Vec<Label> =
                    all.iter().copied().filter(|l| matches!(l, Label::Letter(_)) && once(l)).collect();
                letters.sort_unstable();
                kept.extend(letters);
                kept
            }
        };
        if to.iter().any(|label| !operands.iter().any(|operand| operand.labels.contains(label))) {
            return Err(wrong());
        }
        let mut operands = operands.into_iter();
        let mut result = operands.next().ok_or_else(wrong)?;
        while let Some(next) = operands.next() {
            let rest: Vec<Label> = operands.as_slice().iter().flat_map(|operand| operand.labels.clone()).collect();
            let needed = |label: &Label| to.contains(label) || rest.contains(label);
            let left = self.summed(node, result, |label| needed(label) || next.labels.contains(label))?;
            let right = self.summed(node, next, |label| needed(label) || left.labels.contains(label))?;
            result = self.contracted(node, left, right, needed)?;
        }
        let result = self.summed(node, result, |label| to.contains(label))?;
        let order = to.iter().map(|label| result.labels.iter().position(|other| other == label));
        let order = order.collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        self.turned(node, result.value, &order)
    }

    /// A value with its axes in another order.
    fn turned(&mut self, node: Node<'f>, value: Value, order: &[usize]) -> Result<Value> {
        match value {
            Value::Constant(constant) => {
                self.budget(node, &constant.shape)?;
                let moved = constant.permuted(order).ok_or_else(|| node.wrong("axes that its input has not"))?;
                let key: Vec<u64> = order.iter().map(|axis| *axis as u64).chain([constant.lineage]).collect();
                let lineage = node.lineage(&key, 0);
                self.made_of(constant.lineage, lineage);
                Ok(Value::Constant(Constant { lineage, ..moved }))
            }
            value => {
                let data = self.data(node, value)?;
                Ok(Value::Data(self.permuted(node, &data, order)?))
            }
        }
    }

    /// Without the axes that are not kept: sums over them.
    fn summed(&mut self, node: Node<'f>, operand: Operand, kept: impl Fn(&Label) -> bool) -> Result<Operand> {
        let axes: Vec<usize> = (0..operand.labels.len()).filter(|axis| !kept(&operand.labels[*axis])).collect();
        if axes.is_empty() {
            return Ok(operand);
        }
        if operand.value.constant().is_some() {
            return Err(node.unsupported("an equation that sums over an axis of a constant alone"));
        }
        let data = self.data(node, operand.value)?;
        let value = Value::Data(self.reduced(node, &data, &axes, Reduction::Sum, false)?);
        Ok(Operand { value, labels: operand.labels.into_iter().filter(kept).collect() })
    }

    /// The product of two tensors, each of whose axes the other or the result has.
    fn contracted(
        &mut self,
        node: Node<'f>,
        mut left: Operand,
        mut right: Operand,
        needed: impl Fn(&Label) -> bool,
    ) -> Result<Operand> {
        let (a, b) = (left.labels.clone(), right.labels.clone());
        let both: Vec<Label> = a.iter().copied().filter(|label| b.contains(label) && needed(label)).collect();
        let summed: Vec<Label> = a.iter().copied().filter(|label| b.contains(label) && !needed(label)).collect();
        let of_a: Vec<Label> = a.iter().copied().filter(|label| !b.contains(label)).collect();
        let of_b: Vec<Label> = b.iter().copied().filter(|label| !a.contains(label)).collect();
        let length = |operand: &Operand, label: &Label| {
            let axis = operand.labels.iter().position(|other| other == label);
            axis.and_then(|axis| operand.value.shape().get(axis).copied()).unwrap_or(Count::fixed(1))
        };
        if let Some(label) = a.iter().filter(|label| b.contains(label)).find(|l| length(&left, l) != length(&right, l))
        {
            let (one, other) = (length(&left, label), length(&right, label));
            return Err(node.unsupported(format!("an axis that is {one} long in one input and {other} in another")));
        }
        let product = |operand: &Operand, labels: &[Label]| {
            let product = labels
                .iter()
                .try_fold(Count::fixed(1), |all, label| all.combine(Arithmetic::Product, length(operand, label)));
            product.ok_or_else(|| depends(node))
        };
        let ends = [product(&left, &of_a)?, product(&left, &summed)?, product(&right, &of_b)?];
        let leading: Vec<Count> = both.iter().map(|label| length(&left, label)).collect();
        let lengths: Vec<Count> = leading
            .iter()
            .copied()
            .chain(of_a.iter().map(|label| length(&left, label)))
            .chain(of_b.iter().map(|label| length(&right, label)))
            .collect();
        let labels = [&both[..], &of_a, &of_b].concat();
        let mut matrices = Vec::new();
        for (operand, order, last) in [
            (&mut left, [&both[..], &of_a, &summed].concat(), [ends[0], ends[1]]),
            (&mut right, [&both[..], &summed, &of_b].concat(), [ends[1], ends[2]]),
        ] {
            let axes: Vec<usize> =
                order.iter().filter_map(|label| operand.labels.iter().position(|other| other == label)).collect();
            let value = self.resolved(node, operand.value.clone())?;
            let turned = self.turned(node, value, &axes)?;
            matrices.push(self.reshape_to(node, turned, &[&leading[..], &last].concat())?);
        }
        let (Some(b), Some(a)) = (matrices.pop(), matrices.pop()) else { return Err(depends(node)) };
        let product = self.products(node, a, b)?;
        let product = self.resolved(node, product)?;
        let value = self.reshape_to(node, product, &lengths)?;
        Ok(Operand { value, labels })
    }
}
