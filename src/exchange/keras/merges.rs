//! Layers of Keras that combine several tensors.

use std::ops::Range;

use super::layers::Known;
use super::options::Options;
use super::program::{Input, Masks, Program};
use crate::error::Result;
use crate::nn::*;

/// Axes by Keras's numbers, where they are those of a sample side by side: as a range, counted from 0.
pub(super) fn range_of(axes: &[i64], rank: usize) -> Option<Range<usize>> {
    let mut found = axes.iter().map(|axis| axis_of(*axis, rank)).collect::<Option<Vec<_>>>()?;
    found.sort_unstable();
    found.dedup();
    let (first, last) = (*found.first()?, *found.last()?);
    (last - first + 1 == found.len()).then_some(first..last + 1)
}

/// An axis by Keras's number, which counts the batch: that of a sample, counted from 0.
pub(super) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let counted = if axis < 0 { axis.checked_add_unsigned(rank as u64 + 1)? } else { axis };
    usize::try_from(counted).ok()?.checked_sub(1).filter(|axis| *axis < rank)
}

/// Tensors side by side along any axis of a sample, counted from 0; `None` where shapes do not fit.
pub(super) fn joined(program: &mut Program, inputs: &[Input], shapes: &[Vec<usize>], axis: usize) -> Option<Input> {
    let first = shapes.first()?;
    let alike = |shape: &Vec<usize>| {
        shape.len() == first.len() && shape.iter().zip(first).enumerate().all(|(i, (a, b))| i == axis || a == b)
    };
    if axis >= first.len() || !shapes.iter().all(alike) || shapes.len() != inputs.len() {
        return None;
    }
    if inputs.len() == 1 {
        return inputs.first().copied();
    }
    if axis + 1 == first.len() {
        return Some(program.add(Concatenate::new(), inputs));
    }
    let outer: usize = first.get(..axis)?.iter().product();
    let mut flat = Vec::new();
    let mut whole = first.clone();
    let mut count = 0usize;
    for (input, shape) in inputs.iter().zip(shapes) {
        count = count.checked_add(*shape.get(axis)?)?;
        flat.push(program.reshape(*input, &[outer, shape.get(axis..)?.iter().product()]));
    }
    *whole.get_mut(axis)? = count;
    let y = program.add(Concatenate::new(), &flat);
    Some(program.reshape(y, &whole))
}

/// Translates a layer.
pub(super) fn translate(class: &str, o: &mut Options<'_>, known: &Known) -> Result<Program> {
    let inputs: Vec<Input> = (0..known.shapes.len()).map(Input::Call).collect();
    if class == "Concatenate" {
        let axis = o.axes("axis")?.and_then(|axes| axes.first().copied()).unwrap_or(-1);
        let rank = known.rank.unwrap_or(0).saturating_sub(1);
        if axis == -1 || (rank > 0 && axis_of(axis, rank) == Some(rank - 1)) {
            return Ok(Program::one(Concatenate::new(), &[]));
        }
        let mut program = Program::new();
        let at = axis_of(axis, rank).ok_or_else(|| o.unsupported("axis", "an axis of a sample"))?;
        let y = joined(&mut program, &inputs, &known.shapes, at);
        let y = y.ok_or_else(|| o.unsupported("axis", "inputs that differ in this axis alone"))?;
        return Ok(program.giving(&[y]).masks(Masks::Refused("inputs side by side along another axis than the last")));
    }
    let same = known.shapes.array_windows().all(|[a, b]| a == b);
    let layer: Option<LayerConfig> = match class {
        "Add" => Some(Add::new().into()),
        "Subtract" => Some(Subtract::new().into()),
        "Multiply" => Some(Multiply::new().into()),
        "Average" => Some(Average::new().into()),
        "Maximum" => Some(Maximum::new().into()),
        _ => None,
    };
    if let (Some(layer), true) = (layer, same) {
        return Ok(Program::one(layer, &[]));
    }
    // Inputs of other shapes are repeated to one; one after the other.
    let how = match class {
        "Add" | "Average" => Combination::Sum,
        "Subtract" => Combination::Difference,
        "Multiply" => Combination::Product,
        "Maximum" => Combination::Maximum,
        _ => Combination::Minimum,
    };
    let Some((first, others)) = inputs.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Ok(Program::one(Pairwise::new(how), &[]));
    };
    let mut program = Program::new();
    let mut y = *first;
    for other in others {
        y = program.add(Pairwise::new(how), &[y, *other]);
    }
    if class == "Average" {
        let function = Function::Affine { alpha: 1.0 / inputs.len() as f64, beta: 0.0 };
        y = program.add(Elementwise::new(function), &[y]);
    }
    let masks = if same { Masks::Alike } else { Masks::Refused("inputs of different shapes") };
    Ok(program.giving(&[y]).masks(masks))
}
