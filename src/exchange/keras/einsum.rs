//! Keras's `EinsumDense`: a [`Dense`] between changes of axes.

use super::layers::Known;
use super::options::Options;
use super::program::{Arrays, Input, Layout, Program};
use crate::error::Result;
use crate::nn::*;

/// What axes of a tensor are called: a letter, or a place within the ellipsis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Letter(char),
    Dots(usize),
}

/// Letters of one operand, of so many axes; `None` where one stands twice.
fn labels(text: &str, rank: usize) -> Option<Vec<Label>> {
    let mut found = Vec::new();
    let dots = match text.split_once("...") {
        Some((before, after)) => {
            let dots = rank.checked_sub(before.chars().count() + after.chars().count())?;
            found.extend(before.chars().map(Label::Letter));
            found.extend((0..dots).map(Label::Dots));
            found.extend(after.chars().map(Label::Letter));
            true
        }
        None => {
            found.extend(text.chars().map(Label::Letter));
            false
        }
    };
    let twice = found.iter().enumerate().any(|(i, label)| found.get(..i).is_some_and(|before| before.contains(label)));
    let letters = text.chars().filter(|c| !(dots && *c == '.')).all(|c| c.is_ascii_alphabetic());
    (letters && !twice && found.len() == rank).then_some(found)
}

/// An equation taken apart.
struct Equation {
    /// Axes of a sample of the input.
    x: Vec<Label>,
    kernel: Vec<Label>,
    /// Axes of a sample of the output.
    y: Vec<Label>,
}

impl Equation {
    /// `abc,cd->abd`, for an input of so many axes with the samples, which stand first.
    fn parse(text: &str, rank: usize) -> Option<Self> {
        let text: String = text.split_whitespace().collect();
        let (from, to) = text.split_once("->")?;
        let (x, kernel) = from.split_once(',')?;
        let x = labels(x, rank)?;
        let kernel = labels(kernel, kernel.chars().count())?;
        let dots = x.iter().filter(|label| matches!(label, Label::Dots(_))).count();
        let letters = to.chars().filter(|c| *c != '.').count();
        let y = labels(to, letters + if to.contains("...") { dots } else { 0 })?;
        let ((batch, x), (first, y)) = (x.split_first()?, y.split_first()?);
        (batch == first && !kernel.contains(batch)).then(|| Equation { x: x.to_vec(), kernel, y: y.to_vec() })
    }
}

/// Places of labels among others.
fn places(labels: &[Label], among: &[Label]) -> Option<Vec<usize>> {
    labels.iter().map(|label| among.iter().position(|other| other == label)).collect()
}

/// Whether an order changes nothing.
fn stays(order: &[usize]) -> bool {
    order.iter().enumerate().all(|(i, place)| i == *place)
}

pub(super) fn translate(o: &mut Options<'_>, known: &Known) -> Result<Program> {
    let shape = known.first(o, "equation")?.to_vec();
    let refused = |o: &Options<'_>| {
        o.unsupported(
            "equation",
            "sums over axes of the input and the kernel are read, whose other axes stand in the output once",
        )
    };
    let equation = Equation::parse(o.text("equation", "")?, shape.len() + 1).ok_or_else(|| refused(o))?;
    let Equation { x, kernel, y } = &equation;
    let summed: Vec<Label> = x.iter().copied().filter(|label| kernel.contains(label) && !y.contains(label)).collect();
    let rest: Vec<Label> = x.iter().copied().filter(|label| !kernel.contains(label)).collect();
    let new: Vec<Label> = kernel.iter().copied().filter(|label| !x.contains(label)).collect();
    let whole = [&rest[..], &new].concat();
    let fits = rest.len() + summed.len() == x.len()
        && new.len() + summed.len() == kernel.len()
        && whole.len() == y.len()
        && !whole.is_empty();
    let (Some(behind), true) = (places(y, &whole), fits) else { return Err(refused(o)) };

    // The sizes of the kernel's own axes stand in the output's shape, counted from its end.
    let given = o.take("output_shape");
    let given: Vec<_> = match given.and_then(serde_json::Value::as_array) {
        Some(list) => list.iter().collect(),
        None => given.into_iter().collect(),
    };
    let size_of_new = |label: &Label| {
        let from_end = y.len().checked_sub(y.iter().position(|other| other == label)?)?;
        usize::try_from(given.get(given.len().checked_sub(from_end)?)?.as_u64()?).ok()
    };
    let sizes = new.iter().map(size_of_new).collect::<Option<Vec<usize>>>();
    let sizes = sizes.ok_or_else(|| o.invalid("output_shape", "the lengths of the axes that are the kernel's"))?;
    let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |all, n| all.checked_mul(*n));
    let of_x = |labels: &[Label]| -> Option<Vec<usize>> {
        places(labels, x)?.into_iter().map(|place| shape.get(place).copied()).collect()
    };
    let (Some(front), Some(inner)) = (of_x(&rest), of_x(&summed)) else { return Err(refused(o)) };
    let (Some(inner), Some(units)) = (product(&inner), product(&sizes)) else {
        return Err(o.invalid("output_shape", "smaller lengths"));
    };
    let bias: Option<Vec<Label>> =
        o.take("bias_axes").and_then(serde_json::Value::as_str).map(|text| text.chars().map(Label::Letter).collect());
    // The bias of the kernel's own axes, in their order, is that of the dense layer.
    let of_units: Vec<Label> = y.iter().copied().filter(|label| new.contains(label)).collect();
    let same = bias
        .as_ref()
        .is_some_and(|bias| of_units == new && bias.len() == new.len() && bias.iter().all(|label| new.contains(label)));
    let (activation, functions) = o.any_activation("activation")?;

    let mut program = Program::new();
    let order = [&rest[..], &summed].concat();
    let order = places(&order, x).ok_or_else(|| refused(o))?;
    let permute = |order: &[usize]| Permute::new(&order.iter().map(|place| place + 1).collect::<Vec<_>>());
    let mut at = Input::Call(0);
    if !stays(&order) {
        at = program.add(permute(&order), &[at]);
    }
    if summed.len() != 1 {
        at = program.reshape(at, &[&front[..], &[inner]].concat());
    }
    let of_kernel = [&summed[..], &new].concat();
    let layout = Layout::Matrix { order: places(&of_kernel, kernel).ok_or_else(|| refused(o))?, columns: units };
    let arrays = Arrays::Part { group: String::new(), first: 0, count: 1 + usize::from(same), layout };
    at = program.add_with(Dense::new(units).use_bias(same), &[at], arrays);
    if new.len() != 1 {
        at = program.reshape(at, &[&front[..], &sizes].concat());
    }
    if !stays(&behind) {
        at = program.add(permute(&behind), &[at]);
    }
    if let (Some(bias), false) = (&bias, same) {
        // From its first axis on; those that it has not are 1 long.
        let lengths: Vec<usize> = front.iter().chain(&sizes).copied().collect();
        let first = y.iter().position(|label| bias.contains(label)).ok_or_else(|| refused(o))?;
        let axes = y.iter().zip(&behind).skip(first);
        let of_bias: Vec<usize> = axes
            .map(|(label, place)| if bias.contains(label) { lengths.get(*place).copied().unwrap_or(1) } else { 1 })
            .collect();
        let arrays = Arrays::Part { group: String::new(), first: 1, count: 1, layout: Layout::Same };
        let bias = program.add_with(Weight::new(&of_bias), &[Input::Call(0)], arrays);
        at = program.add(Pairwise::new(Combination::Sum), &[at, bias]);
    }
    if activation != ActivationFunction::Linear {
        at = program.add(ActivationLayer::new(activation), &[at]);
    }
    for function in functions {
        at = program.add(function, &[at]);
    }
    Ok(program.giving(&[at]))
}
