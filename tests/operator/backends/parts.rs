//! Parts of a problem: some of its steps, some of its sequences.

use crate::common::Problem;

/// A problem with some of the steps: rows of `x`, `y`, `dy` and the resets.
pub fn steps_of(problem: &Problem, from: usize, to: usize) -> Problem {
    let mut part = problem.clone();
    part.shape.seq_len = to - from;
    let tensors = problem.shape.tensors(&problem.descriptor).expect("valid");
    part.inputs.x = rows(&part, tensors.x[2], |t, b| (&problem.inputs.x, problem.row(from + t, b)));
    let dy = problem.output_gradients.dy.as_ref();
    part.output_gradients.dy = dy.map(|dy| rows(&part, tensors.y[2], |t, b| (dy, problem.row(from + t, b))));
    let batch = problem.shape.batch;
    part.inputs.resets = problem.inputs.resets.as_ref().map(|r| r[from * batch..to * batch].to_vec());
    part
}

/// A tensor `[T, B, features]` of `problem`'s layout, put together from rows of others.
pub fn rows<'a, E: Copy + 'a>(
    problem: &Problem,
    features: usize,
    source: impl Fn(usize, usize) -> (&'a Vec<E>, usize),
) -> Vec<E> {
    let (seq_len, batch) = (problem.shape.seq_len, problem.shape.batch);
    let mut places: Vec<_> = (0..seq_len).flat_map(|t| (0..batch).map(move |b| (t, b))).collect();
    places.sort_by_key(|(t, b)| problem.row(*t, *b));
    places
        .into_iter()
        .flat_map(|(t, b)| {
            let (tensor, row) = source(t, b);
            tensor[row * features..(row + 1) * features].to_vec()
        })
        .collect()
}

/// Rows of `[L * D, B, features]` that belong to the sequences chosen.
pub fn states_of<E: Copy>(states: &[E], shape: [usize; 3], chosen: &[usize]) -> Vec<E> {
    let [_, batch, features] = shape;
    let row = |state: &[E], b: usize| state[b * features..(b + 1) * features].to_vec();
    states.chunks(batch * features).flat_map(|state| chosen.iter().flat_map(move |b| row(state, *b))).collect()
}

/// A problem with the sequences chosen, in that order.
pub fn sequences_of(problem: &Problem, chosen: &[usize]) -> Problem {
    let mut part = problem.clone();
    part.shape.batch = chosen.len();
    let tensors = problem.shape.tensors(&problem.descriptor).expect("valid");
    part.inputs.x = rows(&part, tensors.x[2], |t, b| (&problem.inputs.x, problem.row(t, chosen[b])));
    let dy = problem.output_gradients.dy.as_ref();
    part.output_gradients.dy = dy.map(|dy| rows(&part, tensors.y[2], |t, b| (dy, problem.row(t, chosen[b]))));
    for (state, shape) in [
        (&mut part.inputs.h0, tensors.h),
        (&mut part.inputs.c0, tensors.c),
        (&mut part.output_gradients.dhn, tensors.h),
        (&mut part.output_gradients.dcn, tensors.c),
    ] {
        *state = state.as_ref().map(|s| states_of(s, shape, chosen));
    }
    part.inputs.lengths = part.inputs.lengths.map(|l| chosen.iter().map(|b| l[*b]).collect());
    let shape = [tensors.resets[0], tensors.resets[1], 1];
    part.inputs.resets = part.inputs.resets.map(|r| states_of(&r, shape, chosen));
    part
}
