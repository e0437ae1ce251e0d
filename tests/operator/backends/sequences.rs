//! Time and batch: state carried over, resets, sequences on their own, padding, NaN.

use super::parts::{rows, sequences_of, states_of, steps_of};
use super::passes::{default_training, infer, is_weight, train, without_weights};
use crate::common::run::{Setup, get, same_bits, same_bits_of};
use crate::common::truth::{Named, Truth, settled};
use crate::common::{Number, Problem, Recipe, Rng, Verdict, for_random_problems};
use fused_rnn::backend::HostBackend;
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::rnn::{Direction, PaddedOutput};

/// The part of `problem`'s true results that the sequences chosen have, tensor by tensor; the weights' gradients as they are.
fn judge_sequences<E: Number>(problem: &Problem, truth: &Truth, chosen: &[usize], got: &Named<E>) -> Verdict {
    let part = sequences_of(problem, chosen);
    let tensors = problem.shape.tensors(&problem.descriptor).expect("valid");
    got.iter().try_for_each(|(name, got)| {
        let all = truth.values(name).to_vec();
        let expected = match name.as_str() {
            "y" => rows(&part, tensors.y[2], |t, b| (&all, problem.row(t, chosen[b]))),
            "dx" => rows(&part, tensors.x[2], |t, b| (&all, problem.row(t, chosen[b]))),
            "hn" | "dh0" => states_of(&all, tensors.h, chosen),
            "cn" | "dc0" => states_of(&all, tensors.c, chosen),
            _ => all,
        };
        truth.judge_as(name, &expected, got)
    })
}

fn no_dropout(recipe: &mut Recipe) {
    recipe.descriptor.dropout = 0.0;
}

/// Two calls with the state carried over are one call (burn's issue 2701), and backpropagation through both is that through one.
pub fn state_is_carried_from_call_to_call<E: Number, B: HostBackend<E>>(backend: &B) {
    let carried = |r: &mut Recipe| {
        no_dropout(r);
        r.descriptor.direction = Direction::Forward;
        r.descriptor.reverse_activations = None;
        (r.lengths, r.resets) = (false, false);
        r.shape.seq_len = r.shape.seq_len.max(2);
    };
    for_random_problems::<E>(60, carried, |problem| {
        let (problem, truth) = &*settled(&problem.recipe);
        let seq_len = problem.shape.seq_len;
        let cut = 1 + problem.recipe.seed as usize % (seq_len - 1);
        let (mut first, mut second) = (steps_of(problem, 0, cut), steps_of(problem, cut, seq_len));
        let wide = |values: &[E]| values.iter().map(|v| v.wide()).collect::<Vec<f64>>();
        (first.output_gradients.dhn, first.output_gradients.dcn) = (None, None);
        let before = default_training::<E, B>(backend, &first)?;
        let has_c = problem.descriptor.cell.has_cell_state();
        second.inputs.h0 = Some(wide(get(&before, "hn")));
        second.inputs.c0 = has_c.then(|| wide(get(&before, "cn")));
        let after = default_training::<E, B>(backend, &second)?;
        first.output_gradients.dhn = Some(wide(get(&after, "dh0")));
        first.output_gradients.dcn = has_c.then(|| wide(get(&after, "dc0")));
        let weights: Vec<E> = after.iter().filter(|(n, _)| is_weight(n)).flat_map(|(_, v)| v.clone()).collect();
        let before = train(backend, &first, &Setup { add_to: Some(weights), ..Setup::default() })?;

        let joined = |name: &str| {
            let (a, b) = (get(&before, name).to_vec(), get(&after, name).to_vec());
            let features = a.len() / (cut * problem.shape.batch);
            rows(problem, features, |t, s| if t < cut { (&a, first.row(t, s)) } else { (&b, second.row(t - cut, s)) })
        };
        truth.judge("y", &joined("y"))?;
        truth.judge("dx", &joined("dx"))?;
        for (name, got) in &after {
            if name == "hn" || name == "cn" {
                truth.judge(name, got)?;
            }
        }
        before.iter().filter(|(n, _)| n == "dh0" || n == "dc0" || is_weight(n)).try_for_each(|(n, v)| truth.judge(n, v))
    });
}

/// A reset starts anew from `h0`, `c0`: the parts before and after it are two calls, whose gradients of the initial states add.
pub fn a_reset_is_a_new_call<E: Number, B: HostBackend<E>>(backend: &B) {
    let reset = |r: &mut Recipe| {
        no_dropout(r);
        r.descriptor.num_layers = 1;
        if r.descriptor.direction == Direction::Bidirectional {
            r.descriptor.direction = Direction::Forward;
            r.descriptor.reverse_activations = None;
        }
        (r.lengths, r.resets) = (false, true);
        r.shape.seq_len = r.shape.seq_len.max(2);
    };
    for_random_problems::<E>(60, reset, |problem| {
        let mut problem = problem.clone();
        let (seq_len, batch) = (problem.shape.seq_len, problem.shape.batch);
        let cut = 1 + problem.recipe.seed as usize % (seq_len - 1);
        // In the reverse direction the step before the cut is the first of the second pass.
        let reverse = problem.descriptor.direction == Direction::Reverse;
        let at = if reverse { cut - 1 } else { cut };
        problem.inputs.resets = Some((0..seq_len * batch).map(|i| u8::from(i / batch == at)).collect());
        let Some(truth) = Truth::of(&problem) else { return Ok(()) };
        let (mut early, mut late) = (steps_of(&problem, 0, cut), steps_of(&problem, cut, seq_len));
        (early.inputs.resets, late.inputs.resets) = (None, None);
        let first = if reverse { &mut late } else { &mut early };
        (first.output_gradients.dhn, first.output_gradients.dcn) = (None, None);
        let (early_results, late_results) =
            (default_training::<E, B>(backend, &early)?, default_training::<E, B>(backend, &late)?);
        for (name, features) in [("y", problem.descriptor.output_size()), ("dx", problem.descriptor.input_size)] {
            let (a, b) = (get(&early_results, name).to_vec(), get(&late_results, name).to_vec());
            let joined =
                rows(
                    &problem,
                    features,
                    |t, s| if t < cut { (&a, early.row(t, s)) } else { (&b, late.row(t - cut, s)) },
                );
            truth.judge(name, &joined)?;
        }
        let last = if reverse { &early_results } else { &late_results };
        for (name, got) in last {
            if name == "hn" || name == "cn" {
                truth.judge(name, got)?;
            } else if name == "dh0" || name == "dc0" || is_weight(name) {
                let other = get(if reverse { &late_results } else { &early_results }, name);
                let sum: Vec<E> = got.iter().zip(other).map(|(a, b)| a.plus(*b)).collect();
                truth.judge(name, &sum)?;
            }
        }
        Ok(())
    });
}

/// A batch is its sequences: each alone, and all in another order, have the same results. Lengths need no sorting.
pub fn sequences_are_independent<E: Number, B: HostBackend<E>>(backend: &B) {
    let batch = |r: &mut Recipe| {
        no_dropout(r);
        r.shape.batch = r.shape.batch.max(2);
    };
    for_random_problems::<E>(60, batch, |problem| {
        let (problem, truth) = &*settled(&problem.recipe);
        let mut rng = Rng::new(problem.recipe.seed);
        let mut order: Vec<usize> = (0..problem.shape.batch).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, rng.below(i + 1));
        }
        let permuted = default_training::<E, B>(backend, &sequences_of(problem, &order))?;
        judge_sequences(problem, truth, &order, &permuted)?;
        for chosen in [vec![order[0]], vec![problem.shape.batch - 1], order[..problem.shape.batch / 2].to_vec()] {
            let part = default_training::<E, B>(backend, &sequences_of(problem, &chosen))?;
            judge_sequences(problem, truth, &chosen, &without_weights(part))?;
        }
        Ok(())
    });
}

/// What stands past a sequence's end is never read, whatever it is; `y` there is as asked for, `dx` zero.
pub fn padding_does_not_matter<E: Number, B: HostBackend<E>>(backend: &B) {
    let padded = |r: &mut Recipe| {
        r.lengths = true;
        r.dy = true;
        r.shape.seq_len = r.shape.seq_len.max(2);
    };
    for_random_problems::<E>(80, padded, |problem| {
        let d = &problem.descriptor;
        let base = default_training::<E, B>(backend, problem)?;
        let (inputs, outputs) = (d.input_size, d.num_directions() * d.output_size());
        let mut other = problem.clone();
        for b in 0..problem.shape.batch {
            for t in problem.length(b)..problem.shape.seq_len {
                let row = problem.row(t, b);
                other.inputs.x[row * inputs..(row + 1) * inputs].fill(f64::NAN);
                if let Some(resets) = &mut other.inputs.resets {
                    resets[t * problem.shape.batch + b] ^= 1;
                }
                let dy = other.output_gradients.dy.as_mut().ok_or("dy is given")?;
                for direction in 0..d.num_directions() {
                    let start = row * outputs + direction * d.output_size();
                    if d.padded_output == PaddedOutput::Zero || d.direction.is_reverse(direction) {
                        dy[start..start + d.output_size()].fill(f64::NAN);
                    }
                    let part = |row: usize| {
                        let start = row * outputs + direction * d.output_size();
                        &get(&base, "y")[start..start + d.output_size()]
                    };
                    if d.padded_output == PaddedOutput::Hold && !d.direction.is_reverse(direction) {
                        let last = part(problem.row(problem.length(b) - 1, b));
                        same_bits_of("last valid and padded output", "y", last, part(row))?;
                    } else if part(row).iter().any(|v| *v != E::zero()) {
                        return Err(format!("y is not zero at padded step {t} of sequence {b}"));
                    }
                }
                if get(&base, "dx")[row * inputs..(row + 1) * inputs].iter().any(|v| *v != E::zero()) {
                    return Err(format!("dx is not zero at padded step {t} of sequence {b}"));
                }
            }
        }
        same_bits("numbers and NaN in padding", &base, &default_training(backend, &other)?)?;
        let inferred = infer(backend, problem, &Setup::default())?;
        same_bits("numbers and NaN in padding, inference", &inferred, &infer(backend, &other, &Setup::default())?)
    });
}

/// NaN in one sequence shows in its outputs exactly where the oracle has it, and nowhere else.
pub fn nan_stays_where_it_belongs<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(
        80,
        |r| r.shape.batch = r.shape.batch.max(2),
        |problem| {
            let mut rng = Rng::new(problem.recipe.seed);
            let poisoned = rng.below(problem.shape.batch);
            let others: Vec<usize> = (0..problem.shape.batch).filter(|b| *b != poisoned).collect();
            let mut other = problem.clone();
            let step = rng.below(problem.length(poisoned));
            let place = problem.row(step, poisoned) * problem.descriptor.input_size;
            other.inputs.x[place + rng.below(problem.descriptor.input_size)] = f64::NAN;
            let (base, with_nan) =
                (default_training::<E, B>(backend, problem)?, default_training::<E, B>(backend, &other)?);
            let tensors = problem.shape.tensors(&problem.descriptor).map_err(|e| e.to_string())?;
            let part = sequences_of(problem, &others);
            for (name, a) in without_weights(base) {
                let b = get(&with_nan, &name).to_vec();
                let pick = |values: &Vec<E>| match name.as_str() {
                    "y" => rows(&part, tensors.y[2], |t, b| (values, problem.row(t, others[b]))),
                    "dx" => rows(&part, tensors.x[2], |t, b| (values, problem.row(t, others[b]))),
                    "hn" | "dh0" => states_of(values, tensors.h, &others),
                    _ => states_of(values, tensors.c, &others),
                };
                same_bits_of("sequences beside one without and with NaN", &name, &pick(&a), &pick(&b))?;
            }
            let oracle = ReferenceBackend::<f64>::new();
            for (expected, got) in [
                (default_training::<f64, _>(&oracle, &other)?, with_nan),
                (infer(&oracle, &other, &Setup::default())?, infer(backend, &other, &Setup::default())?),
            ] {
                for name in ["y", "hn", "cn"].iter().filter(|n| expected.iter().any(|(e, _)| e == *n)) {
                    let (expected, got) = (get(&expected, name), get(&got, name));
                    if let Some(i) = (0..got.len()).find(|i| expected[*i].is_nan() != got[*i].is_nan()) {
                        return Err(format!("{name}[{i}]: the oracle has {}, this {}", expected[i], got[i]));
                    }
                }
            }
            Ok(())
        },
    );
}
