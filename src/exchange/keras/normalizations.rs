//! Normalizations of Keras, along other axes than the last too.

use ndarray::{ArrayD, IxDyn};

use super::layers::Known;
use super::merges::{axis_of, range_of};
use super::options::Options;
use super::program::{Arrays, Input, Layout, Masks, Program};
use crate::error::Result;
use crate::nn::*;

/// Translates a layer.
pub(super) fn translate(class: &str, o: &mut Options<'_>, known: &Known) -> Result<Program> {
    match class {
        "BatchNormalization" => batch(o, known),
        "LayerNormalization" => layer(o, known),
        "GroupNormalization" => group(o, known),
        "RMSNormalization" => root_mean_square(o, known),
        "UnitNormalization" => {
            let axes = o.axes("axis")?.unwrap_or_else(|| vec![-1]);
            Ok(Program::one(UnitNormalization::new().axes(&axes), &[]))
        }
        _ => standard(o, known),
    }
}

/// Whether axes by Keras's numbers are the last one alone.
fn is_last(axes: &[i64], known: &Known) -> bool {
    let last = known.rank.and_then(|rank| i64::try_from(rank).ok()).map(|rank| rank - 1);
    matches!(axes, [axis] if *axis == -1 || Some(*axis) == last)
}

fn batch(o: &mut Options<'_>, known: &Known) -> Result<Program> {
    for key in ["synchronized", "renorm", "renorm_clipping", "renorm_momentum"] {
        o.take(key);
    }
    let axes = o.axes("axis")?.unwrap_or_else(|| vec![-1]);
    let layer = BatchNormalization {
        momentum: o.number("momentum", 0.99)?,
        epsilon: o.number("epsilon", 1e-3)?,
        center: o.flag("center", true)?,
        scale: o.flag("scale", true)?,
    };
    if is_last(&axes, known) {
        return Ok(Program::one(layer, &[""]));
    }
    let rank = known.first(o, "axis")?.len();
    let at = match axes[..] {
        [axis] => axis_of(axis, rank),
        _ => None,
    };
    let at = at.ok_or_else(|| o.unsupported("axis", "one axis of a sample"))?;
    // The axis changes places with the last one, and back.
    let mut order: Vec<usize> = (1..=rank).collect();
    order.swap(at, rank - 1);
    let mut program = Program::new();
    let y = program.add(Permute::new(&order), &[Input::Call(0)]);
    let y = program.add_with(layer, &[y], Arrays::of(&[""]));
    let y = program.add(Permute::new(&order), &[y]);
    Ok(program.giving(&[y]).masks(Masks::Refused("another axis than the last")))
}

fn layer(o: &mut Options<'_>, known: &Known) -> Result<Program> {
    let axes = o.axes("axis")?.unwrap_or_else(|| vec![-1]);
    if o.flag("rms_scaling", false)? {
        return Err(o.unsupported("rms_scaling", "only without"));
    }
    let layer = LayerNormalization {
        epsilon: o.number("epsilon", 1e-3)?,
        center: o.flag("center", true)?,
        scale: o.flag("scale", true)?,
    };
    if is_last(&axes, known) {
        return Ok(Program::one(layer, &[""]));
    }
    let shape = known.first(o, "axis")?.to_vec();
    let range = range_of(&axes, shape.len()).filter(|range| range.end == shape.len());
    let range = range.ok_or_else(|| o.unsupported("axis", "the last axes"))?;
    let size = |axes: std::ops::Range<usize>| shape.get(axes).unwrap_or_default().iter().product::<usize>();
    let flat = [size(0..range.start), size(range.clone())];
    let count = usize::from(layer.center) + usize::from(layer.scale);
    let mut program = Program::new();
    let y = program.reshape(Input::Call(0), &flat);
    let arrays = match count {
        0 => Arrays::of(&[]),
        _ => Arrays::Part { group: String::new(), first: 0, count, layout: Layout::Flat },
    };
    let y = program.add_with(layer, &[y], arrays);
    let y = program.reshape(y, &shape);
    Ok(program.giving(&[y]).masks(Masks::Refused("several axes")))
}

/// `y` times, or plus, an array of the layer's group for each feature.
fn with_array(program: &mut Program, y: Input, features: usize, number: usize, how: Combination) -> Input {
    let arrays = Arrays::Part { group: String::new(), first: number, count: 1, layout: Layout::Flat };
    let weight = program.add_with(Weight::new(&[features]), &[Input::Call(0)], arrays);
    program.add(Pairwise::new(how), &[y, weight])
}

fn group(o: &mut Options<'_>, known: &Known) -> Result<Program> {
    let axes = o.axes("axis")?.unwrap_or_else(|| vec![-1]);
    if !is_last(&axes, known) {
        return Err(o.unsupported("axis", "only the last axis"));
    }
    let shape = known.first(o, "groups")?.to_vec();
    let features = shape.last().copied().unwrap_or(1);
    let steps = shape.iter().rev().skip(1).fold(1usize, |steps, n| steps.saturating_mul(*n));
    // Keras's -1 is a group for each feature.
    let groups = match o.take("groups").and_then(serde_json::Value::as_i64) {
        None | Some(-1) => features,
        Some(n) => usize::try_from(n).unwrap_or(0),
    };
    if groups == 0 || !features.is_multiple_of(groups) {
        return Err(o.invalid("groups", &format!("a divisor of the {features} features")));
    }
    let epsilon = o.number("epsilon", 1e-3)?;
    let (center, scale) = (o.flag("center", true)?, o.flag("scale", true)?);
    let mut program = Program::new();
    let y = program.reshape(Input::Call(0), &[steps, groups, features / groups]);
    let y = program.add(Permute::new(&[2, 1, 3]), &[y]);
    let y = program.reshape(y, &[groups, steps.saturating_mul(features / groups)]);
    let y = program.add(LayerNormalization { epsilon, center: false, scale: false }, &[y]);
    let y = program.reshape(y, &[groups, steps, features / groups]);
    let y = program.add(Permute::new(&[2, 1, 3]), &[y]);
    let mut y = program.reshape(y, &shape);
    if scale {
        y = with_array(&mut program, y, features, 0, Combination::Product);
    }
    if center {
        y = with_array(&mut program, y, features, usize::from(scale), Combination::Sum);
    }
    Ok(program.giving(&[y]).masks(Masks::Refused("groups of features over all steps")))
}

fn root_mean_square(o: &mut Options<'_>, known: &Known) -> Result<Program> {
    let axes = o.axes("axis")?.unwrap_or_else(|| vec![-1]);
    if !is_last(&axes, known) {
        return Err(o.unsupported("axis", "only the last axis"));
    }
    let shape = known.first(o, "axis")?.to_vec();
    let features = shape.last().copied().unwrap_or(1);
    let epsilon = o.number("epsilon", 1e-6)?;
    let mut kept = shape.clone();
    kept.iter_mut().rev().take(1).for_each(|last| *last = 1);
    let mut program = Program::new();
    let x = Input::Call(0);
    let y = program.add(Multiply::new(), &[x, x]);
    let y = program.add(Reduce::new(Reduction::Mean, &[shape.len()]), &[y]);
    let y = program.add(Elementwise::new(Function::Affine { alpha: 1.0, beta: epsilon }), &[y]);
    let y = program.add(Elementwise::new(Function::Power { exponent: -0.5 }), &[y]);
    let y = program.reshape(y, &kept);
    let y = program.add(Pairwise::new(Combination::Product), &[x, y]);
    let y = with_array(&mut program, y, features, 0, Combination::Product);
    Ok(program.giving(&[y]).masks(Masks::Refused("a scale by the root of the mean square")))
}

/// With a mean and a variance that the file has as weights, or the configuration says.
fn standard(o: &mut Options<'_>, known: &Known) -> Result<Program> {
    let by_feature = match o.axes("axis")?.as_deref() {
        None | Some([]) => false,
        Some(axes) if is_last(axes, known) => true,
        _ => return Err(o.unsupported("axis", "the last axis, or null")),
    };
    let (mean, variance) = (o.numbers("mean")?, o.numbers("variance")?);
    let invert = o.flag("invert", false)?;
    let layer = Normalization::new().by_feature(by_feature);
    let (Some(mean), Some(variance)) = (mean, variance) else {
        if invert {
            return Err(o.unsupported("invert", "with mean and variance in the configuration"));
        }
        return Ok(Program::one(layer, &[""]));
    };
    // Numbers that are one for all stay so: how many features there are is the input's to say, not the arrays'.
    let count = mean.len().max(variance.len());
    let layer = layer.by_feature(by_feature && count > 1);
    let features = known.shapes.first().and_then(|shape| shape.last()).copied();
    if count > 1 && (!by_feature || features.is_some_and(|features| features != count)) {
        return Err(o.invalid("mean", "a number, or one for each feature"));
    }
    let mut arrays = Vec::new();
    for (key, values) in [("mean", &mean), ("variance", &variance)] {
        let wide: Vec<f64> = match values[..] {
            [one] => vec![one; count],
            _ if values.len() == count => values.clone(),
            _ => return Err(o.invalid(key, &format!("{count} numbers"))),
        };
        arrays.push(wide);
    }
    if invert && let [mean, variance] = &mut arrays[..] {
        // x d + m = (x - (-m / d)) / (1 / d), with d the deviation.
        for (mean, variance) in mean.iter_mut().zip(variance) {
            let deviation = variance.sqrt().max(1e-7);
            (*mean, *variance) = (-*mean / deviation, (deviation * deviation).recip());
        }
    }
    let arrays = arrays.into_iter().map(|values| ArrayD::from_shape_vec(IxDyn(&[count]), values));
    let arrays: Vec<ArrayD<f64>> = arrays.collect::<Result<_, _>>().map_err(|_| o.invalid("mean", "numbers"))?;
    let mut program = Program::new();
    let y = program.add_with(layer, &[Input::Call(0)], Arrays::Given(arrays));
    Ok(program.giving(&[y]))
}

/// `x scale + offset`, numbers or one for each feature.
pub(super) fn rescaling(o: &mut Options<'_>) -> Result<Program> {
    let scale = o.numbers("scale")?.unwrap_or_else(|| vec![1.0]);
    let offset = o.numbers("offset")?.unwrap_or_else(|| vec![0.0]);
    if let ([alpha], [beta]) = (&scale[..], &offset[..]) {
        let function = Function::Affine { alpha: *alpha, beta: *beta };
        return Ok(Program::one(Elementwise::new(function), &[]));
    }
    let mut program = Program::new();
    let mut y = Input::Call(0);
    for (key, values, how) in [("scale", scale, Combination::Product), ("offset", offset, Combination::Sum)] {
        let count = values.len();
        let array = ArrayD::from_shape_vec(IxDyn(&[count]), values).map_err(|_| o.invalid(key, "numbers"))?;
        let weight = Weight::new(&[count]).trainable(false);
        let weight = program.add_with(weight, &[Input::Call(0)], Arrays::Given(vec![array]));
        y = program.add(Pairwise::new(how), &[y, weight]);
    }
    Ok(program.giving(&[y]).masks(Masks::Refused("a scale for each feature")))
}
