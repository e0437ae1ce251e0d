//! Models of other programs with axes of any length: read for several numbers of steps, and put together from what these have in common.
//!
//! A file says shapes of tensors, and this crate's layers take them: the same graph is followed for two numbers of steps. Layers that are equal
//! then do not depend on it. Of the others, some say the same for any length in other words: a [`Reshape`] whose only unequal axis is what is left,
//! a [`Slice`] counted from the end. What remains is named. Further numbers guard against graphs that go
//! another way there, and against margins that depend on remainders.

use crate::backend::Device;
use crate::error::{Error, Result};
use crate::model::{Graph, GraphConfig, Model};
use crate::nn::{Layer as _, LayerConfig, Part, Reshape, Slice};

/// Further numbers of steps, of different remainders by strides and pools. One for which a graph cannot be followed, as it needs more, is left
/// away.
pub(super) const FEW_STEPS: [usize; 4] = [29, 31, 33, 34];

/// The numbers of steps for which a file is read.
pub(super) fn probes() -> [usize; 2] {
    Model::open_steps()
}

/// A graph for one number of steps.
pub(super) struct Probe {
    config: GraphConfig,
    graph: Graph,
}

impl Probe {
    /// What a configuration says, with lengths in it.
    pub fn new(config: GraphConfig) -> Result<Self> {
        let (graph, _) = Graph::of_config(Device::cpu(), &config)?;
        Ok(Probe { config, graph })
    }
}

/// Why two graphs do not go together: the layer in the way.
pub(super) struct Depends(pub String);

impl Depends {
    /// As an error, for a file: `option` is how a length is said.
    pub fn error(&self, file: impl std::fmt::Display, option: &str) -> Error {
        Error::unsupported(
            format!("{file}: axes of any length, with {}", self.0),
            format!("it is another one for each length; say which: {option}"),
        )
    }
}

/// The configuration whose inputs have these axes, that is each of the probes for its number of steps.
pub(super) fn combine(
    [one, other]: [&Probe; 2],
    few: &[(usize, Probe)],
    axes: &[Vec<Option<usize>>],
) -> Result<GraphConfig, Depends> {
    let [steps, others] = probes();
    let mut config = joined(one, other)?;
    for (_, few) in few {
        let same = joined(one, few)?;
        if same.layers != config.layers || same.calls != config.calls || same.outputs != config.outputs {
            let mut layers = same.layers.iter().zip(&config.layers);
            let name = layers.find(|(a, b)| a != b).map_or("its structure", |(a, _)| &a.name);
            return Err(Depends(name.to_owned()));
        }
    }
    for (input, axes) in config.inputs.iter_mut().zip(axes) {
        input.shape.clone_from(axes);
    }
    // It must have the shapes of each.
    let all = [(steps, one), (others, other)].into_iter().chain(few.iter().map(|(steps, probe)| (*steps, probe)));
    for (steps, probe) in all {
        let mut fixed = config.clone();
        for input in &mut fixed.inputs {
            input.shape.iter_mut().for_each(|axis| *axis = Some(axis.unwrap_or(steps)));
        }
        let same = Probe::new(fixed).map_err(|error| Depends(error.to_string()))?;
        if same.graph.call_shapes() != probe.graph.call_shapes() {
            return Err(Depends("shapes of tensors".to_owned()));
        }
    }
    Ok(config)
}

/// What two configurations have in common, where layers are the same, or say the same for any length.
fn joined(one: &Probe, other: &Probe) -> Result<GraphConfig, Depends> {
    let structure = || Depends("its structure".to_owned());
    let (a, b) = (&one.config, &other.config);
    if a.calls != b.calls
        || a.outputs != b.outputs
        || a.layers.len() != b.layers.len()
        || a.inputs.len() != b.inputs.len()
    {
        return Err(structure());
    }
    let mut config = a.clone();
    for (index, (layer, (a_layer, b_layer))) in config.layers.iter_mut().zip(a.layers.iter().zip(&b.layers)).enumerate()
    {
        if a_layer == b_layer {
            continue;
        }
        let named = || Depends(format!("layer {} ({})", a_layer.name, a_layer.layer.class_name()));
        if a_layer.name != b_layer.name || a_layer.trainable != b_layer.trainable {
            return Err(structure());
        }
        // Length of the axis in each of its uses.
        let lengths = |axis: usize| {
            let uses = a.calls.iter().filter(|call| call.layer == index).filter_map(|call| call.inputs.first());
            let length = |probe: &Probe, source| probe.graph.shape_of(source).get(axis.checked_sub(1)?).copied();
            uses.map(|source| Some((length(one, *source)?, length(other, *source)?))).collect::<Option<Vec<_>>>()
        };
        layer.layer = match (&a_layer.layer, &b_layer.layer) {
            (LayerConfig::Reshape(a), LayerConfig::Reshape(b)) => reshape(a, b).ok_or_else(named)?.into(),
            (LayerConfig::Slice(a), LayerConfig::Slice(b)) if a.axis == b.axis && a.parts.len() == b.parts.len() => {
                let lengths = lengths(a.axis).ok_or_else(named)?;
                let parts =
                    a.parts.iter().zip(&b.parts).map(|(a, b)| part(*a, *b, &lengths)).collect::<Option<Vec<_>>>();
                Slice::of_parts(a.axis, &parts.ok_or_else(named)?).into()
            }
            _ => return Err(named()),
        };
    }
    Ok(config)
}

/// The only axis that differs is what is left.
fn reshape(a: &Reshape, b: &Reshape) -> Option<Reshape> {
    if a.target_shape.len() != b.target_shape.len() {
        return None;
    }
    let same = |(a, b): (&i64, &i64)| if a == b { *a } else { -1 };
    let target: Vec<i64> = a.target_shape.iter().zip(&b.target_shape).map(same).collect();
    (target.iter().filter(|n| **n == -1).count() == 1).then(|| Reshape::new(&target))
}

/// A part that is `a` of axes of the first lengths, and `b` of those of the second.
fn part(a: Part, b: Part, lengths: &[(usize, usize)]) -> Option<Part> {
    if a == b {
        return Some(a);
    }
    let (Part::Steps { start, step, count }, Part::Steps { start: b_start, step: b_step, count: b_count }) = (a, b)
    else {
        return None;
    };
    let &(len, b_len) = lengths.first()?;
    // One element has no step to the next.
    let step = if count == 1 { if b_count == 1 { 1 } else { b_step } } else { step };
    let place = |at: usize| isize::try_from(at).ok();
    // Counted from the beginning, from the end, or by itself.
    let ways = |at: isize, b_at: isize| -> Option<Vec<Option<isize>>> {
        let (len, b_len) = (place(len)?, place(b_len)?);
        let mut ways = Vec::new();
        if at == b_at && at >= 0 {
            ways.push(Some(at));
        }
        if at - len == b_at - b_len && at < len {
            ways.push(Some(at - len));
        }
        ways.push(None);
        Some(ways)
    };
    let end = |start: usize, step: isize, count: usize| {
        let last = place(count.checked_sub(1)?)?.checked_mul(step)?.checked_add(place(start)?)?;
        Some(last + step.signum())
    };
    let starts = ways(place(start)?, place(b_start)?)?;
    let mut stops = ways(end(start, step, count)?, end(b_start, b_step, b_count)?)?;
    // The end itself first: every second element until there are no more may end before the last one.
    stops.rotate_right(1);
    let wanted = |part: Part, len: usize| match part {
        Part::Steps { count: 1, start, .. } => Some((start, 0, 1)),
        Part::Steps { start, step, count } if start < len => Some((start, step, count)),
        _ => None,
    };
    let fits = |part: &Part| {
        lengths.iter().all(|(len, b_len)| {
            let of = |len: usize| part.resolved(len).and_then(|part| wanted(part, len));
            of(*len).is_some() && of(*len) == wanted(a, *len) && of(*b_len) == wanted(b, *b_len)
        })
    };
    let mut ranges =
        starts.iter().flat_map(|start| stops.iter().map(|stop| Part::Range { start: *start, stop: *stop, step }));
    ranges.find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_from_either_end() {
        let steps = |start, step, count| Part::Steps { start, step, count };
        let range = |start, stop, step| Some(Part::Range { start, stop, step });
        let lengths = [(100, 200)];
        // x[-1:], x[1:], x[:-1], x[::-1], x[::2], x[-3:-1], x[2:5]
        assert_eq!(part(steps(99, 1, 1), steps(199, 1, 1), &lengths), range(Some(-1), None, 1));
        assert_eq!(part(steps(1, 1, 99), steps(1, 1, 199), &lengths), range(Some(1), None, 1));
        assert_eq!(part(steps(0, 1, 99), steps(0, 1, 199), &lengths), range(Some(0), Some(-1), 1));
        assert_eq!(part(steps(99, -1, 100), steps(199, -1, 200), &lengths), range(Some(-1), None, -1));
        assert_eq!(part(steps(0, 2, 50), steps(0, 2, 100), &lengths), range(Some(0), None, 2));
        assert_eq!(part(steps(97, 1, 2), steps(197, 1, 2), &lengths), range(Some(-3), Some(-1), 1));
        assert_eq!(part(steps(2, 1, 3), steps(2, 1, 3), &lengths), Some(steps(2, 1, 3)));
        // Halves are none of these.
        assert_eq!(part(steps(0, 1, 50), steps(0, 1, 100), &lengths), None);
        assert_eq!(part(steps(50, 1, 50), steps(100, 1, 100), &lengths), None);
        let target = |a: &[i64], b: &[i64]| reshape(&Reshape::new(a), &Reshape::new(b)).map(|layer| layer.target_shape);
        assert_eq!(target(&[100, 2, 4], &[200, 2, 4]), Some(vec![-1, 2, 4]));
        assert_eq!(target(&[100, 100], &[200, 200]), None);
        assert_eq!(target(&[100, -1], &[200, -1]), None);
    }
}
