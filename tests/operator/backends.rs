//! One suite for every backend and element type: each agrees with the oracle in `f64` within derived tolerances (see
//! [`truth`]), and keeps the contracts of [`fused_rnn::backend::RecurrentBackend`].
//!
//! A backend enters by one line at the end. Failures are simplified and print the seed that repeats them.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::run::{self, Setup, get, same_bits, same_bits_of};
use crate::common::truth::{self, Named, Truth, settled};
use crate::common::{Number, Problem, Recipe, Rng, Verdict, convert, for_random_problems};
use fused_rnn::backend::cpu::{CpuBackend, CpuElement};
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::backend::{ForwardMode, HostBackend, Reserve, WeightGrad};
use fused_rnn::cell::{Activation, CellKind, CellOption};
use fused_rnn::rnn::{
    Bias, Direction, Dropout, GruReset, InputKind, Layout, PaddedOutput, RnnDescriptor, RnnShape, WeightEntry,
    WeightKind, WeightLayout,
};

fn infer<E: Number, B: HostBackend<E>>(backend: &B, problem: &Problem, setup: &Setup<E>) -> Result<Named<E>, String> {
    run::infer(backend, &problem.descriptor, problem.shape, &problem.inputs(), setup).map_err(|e| e.to_string())
}

fn train<E: Number, B: HostBackend<E>>(backend: &B, problem: &Problem, setup: &Setup<E>) -> Result<Named<E>, String> {
    run::train(backend, &problem.descriptor, problem.shape, &problem.inputs(), &problem.output_gradients(), setup)
        .map_err(|e| e.to_string())
}

fn default_training<E: Number, B: HostBackend<E>>(backend: &B, problem: &Problem) -> Result<Named<E>, String> {
    train(backend, problem, &Setup::default())
}

/// All but the weights' gradients.
fn without_weights<E: Number>(all: Named<E>) -> Named<E> {
    all.into_iter().filter(|(name, _)| !is_weight(name)).collect()
}

fn is_weight(name: &str) -> bool {
    name.starts_with("dweight") || name.starts_with("dbias")
}

/// `f32` and `f64` in one name, for messages.
fn label<E: Number, B: HostBackend<E>>(backend: &B) -> String {
    format!("{} {}", backend.name(), E::DTYPE)
}

// Agreement with the oracle.

fn agrees<E: Number, B: HostBackend<E>>(backend: &B) {
    let (problems, kinked, redraws) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let ratios = std::sync::Mutex::new(Vec::new());
    for_random_problems::<E>(
        250,
        |_| {},
        |problem| {
            let (problem, truth) = &*settled(&problem.recipe);
            problems.fetch_add(1, Ordering::Relaxed);
            kinked.fetch_add(u32::from(problem.recipe.is_kinked()), Ordering::Relaxed);
            redraws.fetch_add(truth.redraws(), Ordering::Relaxed);
            let (outputs, gradients) = pass::train(
                backend,
                &problem.descriptor,
                problem.shape,
                &problem.inputs::<E>(),
                &problem.output_gradients::<E>(),
            )
            .map_err(|e| e.to_string())?;
            let results = truth::named(&problem.descriptor, &outputs, Some(&gradients));
            truth.judge_all(&results)?;
            let ratio = |(name, got): &(String, Vec<E>)| truth.ratio(name, got);
            ratios.lock().map_err(|e| e.to_string())?.extend(results.iter().filter_map(ratio));
            Ok(())
        },
    );
    let (problems, kinked, redraws) = (problems.into_inner(), kinked.into_inner(), redraws.into_inner());
    let ratios: Vec<f64> = ratios.into_inner().expect("no panic held it");
    let average = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let largest = ratios.iter().fold(0.0, |most: f64, ratio| most.max(*ratio));
    println!(
        "{}: {problems} problems, {kinked} with kinks, {redraws} draws discarded; error beside a naive implementation's: \
         {average:.2} times on average, at most {largest:.2}",
        label(backend)
    );
    assert!(average <= truth::AVERAGE, "{}: on average {average} times a naive implementation's error", label(backend));
    assert!(redraws <= problems / 3, "{redraws} draws discarded of {problems} problems: too near to kinks to say much");
}

/// Sizes around the edges of blocks and tiles, and long sequences, with the usual functions.
fn agrees_at_large_sizes<E: Number, B: HostBackend<E>>(backend: &B) {
    let sizes = [
        (3, 33, 65, 131, 1),
        (2, 17, 130, 96, 1),
        (5, 1, 3, 200, 2),
        (4, 1, 257, 129, 1),
        (3, 131, 9, 20, 2),
        (300, 2, 3, 9, 1),
        (1, 1, 530, 64, 1),
        (2, 1, 520, 64, 1),
        (1, 200, 1, 1, 1),
        (64, 8, 1, 50, 1),
    ];
    for (index, (seq_len, batch, input_size, hidden_size, num_layers)) in sizes.into_iter().enumerate() {
        for cell in CellKind::ALL {
            for reset in [GruReset::After, GruReset::Before] {
                if cell != CellKind::Gru && reset == GruReset::Before {
                    continue;
                }
                let mut descriptor = RnnDescriptor::new(cell, input_size, hidden_size);
                descriptor.num_layers = num_layers;
                descriptor.reset = reset;
                descriptor.layout = if index % 2 == 0 { Layout::SequenceMajor } else { Layout::BatchMajor };
                // Heads of several sizes, one and two of them the edges.
                if index % 3 == 1 {
                    let divisors: Vec<usize> = (1..=hidden_size).filter(|n| hidden_size.is_multiple_of(*n)).collect();
                    descriptor.heads = divisors[index * 7 % divisors.len()];
                }
                let recipe = Recipe {
                    descriptor,
                    shape: RnnShape { seq_len, batch },
                    lengths: index % 3 == 2,
                    resets: index % 4 == 3,
                    ..Recipe::random(index as u64)
                };
                let (problem, truth) = &*settled(&Recipe { gain: 1.0, dy: true, ..recipe }.judged_in(E::DTYPE));
                let judged = default_training(backend, problem).and_then(|results| truth.judge_all(&results));
                judged.unwrap_or_else(|e| panic!("{}: {e} of {:?}", label(backend), problem.recipe));
            }
        }
    }
}

/// Every activation in every place of every cell, both ways.
fn agrees_with_every_activation<E: Number, B: HostBackend<E>>(backend: &B) {
    for (index, activation) in Activation::ALL.into_iter().chain([Activation::KERAS_HARD_SIGMOID]).enumerate() {
        for cell in CellKind::ALL {
            for place in 0..3 {
                let mut descriptor = RnnDescriptor::new(cell, 3, 5);
                descriptor.direction = Direction::Bidirectional;
                let mut set = descriptor.activations;
                let used = cell.spec().functions;
                match place {
                    0 if used.state => set.state = activation,
                    1 if used.gate => set.gate = activation,
                    2 if used.output => set.output = activation,
                    _ => continue,
                }
                // In the one direction alone first, so that a direction mixed up is seen.
                for reversed in [false, true] {
                    if reversed {
                        descriptor.activations = RnnDescriptor::new(cell, 3, 5).activations;
                        descriptor.reverse_activations = Some(set);
                    } else {
                        descriptor.activations = set;
                        descriptor.reverse_activations = Some(RnnDescriptor::new(cell, 3, 5).activations);
                    }
                    let recipe = Recipe {
                        descriptor: descriptor.clone(),
                        shape: RnnShape { seq_len: 4, batch: 3 },
                        dy: true,
                        gain: 0.8,
                        ..Recipe::random(1000 + index as u64)
                    };
                    let (problem, truth) = &*settled(&recipe);
                    let judged = default_training(backend, problem).and_then(|results| truth.judge_all(&results));
                    judged.unwrap_or_else(|e| panic!("{}: {e} of {:?}", label(backend), problem.recipe));
                }
            }
        }
    }
}

/// Inputs so large that every gate saturates: values as the oracle's, gradients finite.
fn saturates_without_nan<E: Number, B: HostBackend<E>>(backend: &B) {
    let usual = |r: &mut Recipe| {
        r.descriptor.activations = RnnDescriptor::rnn(1, 1).activations;
        r.descriptor.reverse_activations = None;
        (r.descriptor.gate_clip, r.descriptor.cell_clip, r.gain) = (None, None, 1.0);
        if r.seed.is_multiple_of(3) {
            r.descriptor.activations.state = Activation::Softsign;
        }
        r.shape.seq_len = r.shape.seq_len.min(8);
    };
    for_random_problems::<E>(40, usual, |problem| {
        let mut problem = problem.clone();
        let mut rng = Rng::new(problem.recipe.seed);
        for row in problem.inputs.x.chunks_mut(problem.descriptor.input_size) {
            if rng.chance(0.7) {
                let huge = 10f64.powf(rng.uniform(0.5, 30.0));
                row[rng.below(row.len())] = f64::from((if rng.chance(0.5) { huge } else { -huge }) as f32);
            }
        }
        let truth = Truth::of(&problem).ok_or("no kinks here")?;
        for (name, got) in default_training(backend, &problem)? {
            match name.as_str() {
                "y" | "hn" | "cn" => truth.judge(&name, &got)?,
                _ if got.iter().any(|v| v.is_nan()) => return Err(format!("{name} has NaN")),
                _ => {}
            }
        }
        Ok(())
    });
}

// Inference.

fn inference_is_training_without_dropout<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(
        80,
        |r| r.descriptor.dropout = 0.0,
        |problem| {
            let (problem, truth) = &*settled(&problem.recipe);
            let inferred = infer(backend, problem, &Setup::default())?;
            truth.judge_all(&inferred)?;
            let trained = default_training(backend, problem)?;
            same_bits("forward and forward_training", &inferred, &trained[..inferred.len()].to_vec())?;
            let mut dropping = problem.clone();
            (dropping.descriptor.dropout, dropping.inputs.dropout_seed) = (0.7, 99);
            same_bits("inference with and without dropout", &inferred, &infer(backend, &dropping, &Setup::default())?)
        },
    );
}

// Buffers.

fn contents_of_buffers_do_not_matter<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(
        60,
        |_| {},
        |problem| {
            let nan = default_training(backend, problem)?;
            if problem.recipe.gain == 1.0 {
                let written = |(name, values): &(String, Vec<E>)| match values.iter().position(|v| v.is_nan()) {
                    Some(i) => Err(format!("{name}[{i}] was not written, or read what was never written")),
                    None => Ok(()),
                };
                nan.iter().try_for_each(written)?;
            }
            let inferred = infer(backend, problem, &Setup::default())?;
            for (outputs, scratch) in [(1e3, 0.0), (-7.0, 1e30), (0.0, -1.0), (1.0, f64::INFINITY)] {
                let setup = Setup {
                    outputs: E::of(outputs),
                    workspace: E::of(scratch),
                    reserve: E::of(scratch),
                    ..Setup::default()
                };
                let what = format!("NaN or {outputs} in outputs, {scratch} in workspace and reserve");
                same_bits(&what, &nan, &train(backend, problem, &setup)?)?;
                same_bits(&what, &inferred, &infer(backend, problem, &setup)?)?;
            }
            let larger = Setup { extra: 1 + problem.recipe.seed as usize % 40, ..Setup::default() };
            same_bits("larger workspace and reserve", &nan, &train(backend, problem, &larger)?)?;
            same_bits("a larger workspace", &inferred, &infer(backend, problem, &larger)?)
        },
    );
}

fn optional_results_may_be_absent<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(
        40,
        |_| {},
        |problem| {
            let all = default_training(backend, problem)?;
            for bits in 0..7 {
                let setup =
                    Setup { finals: bits & 1 != 0, dx: bits & 2 != 0, initials: bits & 4 != 0, ..Setup::default() };
                let some = train(backend, problem, &setup)?;
                let same: Named<E> = all.iter().filter(|(n, _)| some.iter().any(|(s, _)| s == n)).cloned().collect();
                if same.len() == all.len() {
                    return Err(format!("nothing is absent in {setup:?}"));
                }
                same_bits(&format!("{setup:?}"), &same, &some)?;
            }
            let all = infer(backend, problem, &Setup::default())?;
            let some = infer(backend, problem, &Setup { finals: false, ..Setup::default() })?;
            same_bits_of("inference without final states", "y", get(&all, "y"), get(&some, "y"))
        },
    );
}

/// Absent inputs are zeros, full lengths, no resets.
fn absent_inputs_are_their_defaults<E: Number, B: HostBackend<E>>(backend: &B) {
    let absent = |r: &mut Recipe| {
        let mut rng = Rng::new(r.seed);
        (r.h0, r.c0, r.lengths, r.resets) = (rng.chance(0.3), rng.chance(0.3), rng.chance(0.3), rng.chance(0.3));
        (r.dy, r.dhn, r.dcn) = (rng.chance(0.5), rng.chance(0.5), rng.chance(0.5));
    };
    for_random_problems::<E>(60, absent, |problem| {
        let (problem, truth) = &*settled(&problem.recipe);
        let tensors = problem.shape.tensors(&problem.descriptor).map_err(|e| e.to_string())?;
        let zeros = |sizes: &[usize]| vec![0.0; sizes.iter().product()];
        let has_c = problem.descriptor.cell.has_cell_state();
        let mut explicit = problem.clone();
        let (inputs, gradients) = (&mut explicit.inputs, &mut explicit.output_gradients);
        inputs.h0.get_or_insert_with(|| zeros(&tensors.h));
        inputs.lengths.get_or_insert_with(|| vec![problem.shape.seq_len as u32; problem.shape.batch]);
        inputs.resets.get_or_insert_with(|| vec![0; tensors.resets.iter().product()]);
        gradients.dy.get_or_insert_with(|| zeros(&tensors.y));
        gradients.dhn.get_or_insert_with(|| zeros(&tensors.h));
        if has_c {
            inputs.c0.get_or_insert_with(|| zeros(&tensors.c));
            gradients.dcn.get_or_insert_with(|| zeros(&tensors.c));
        }
        truth.judge_all(&default_training::<E, B>(backend, problem)?)?;
        truth.judge_all(&default_training::<E, B>(backend, &explicit)?)
    });
}

fn weight_gradients_are_set_or_added<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(
        60,
        |_| {},
        |problem| {
            let (problem, truth) = &*settled(&problem.recipe);
            let d = &problem.descriptor;
            let set = default_training::<E, B>(backend, problem)?;
            let len = WeightLayout::new(d).map_err(|e| e.to_string())?.len();
            let start = Rng::new(problem.recipe.seed).vector(len, 1.0);
            let setup = Setup { add_to: Some(convert::<E>(&start)), ..Setup::default() };
            let added = train(backend, problem, &setup)?;
            same_bits("Set and Add", &without_weights(set.clone()), &without_weights(added.clone()))?;
            // Whatever the order of the additions, each of them rounds a sum no larger than all of them together.
            let additions = (problem.shape.seq_len * problem.shape.batch + 1) as f64;
            for (name, before) in truth::split_weights(d, &start) {
                let (set, added) = (get(&set, &name), get(&added, &name));
                for i in 0..set.len() {
                    let expected = before[i] + truth.values(&name)[i];
                    let total = 1.0 + truth.magnitude(&name);
                    let tolerance = truth.tolerance::<E>(&name) + additions * total * E::DTYPE.epsilon();
                    let error = (added[i].wide() - expected).abs();
                    if error.is_nan() || error > tolerance {
                        return Err(format!(
                            "{name}[{i}]: {} with Set; Add to {} gives {}, error {error:e}, tolerance {tolerance:e}",
                            set[i], before[i], added[i]
                        ));
                    }
                }
            }
            Ok(())
        },
    );
}

/// The reserve stays usable after the gradients of the weights were computed.
fn weight_gradients_can_be_computed_again<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(
        30,
        |_| {},
        |problem| {
            let (problem, truth) = &*settled(&problem.recipe);
            let (d, shape) = (&problem.descriptor, problem.shape);
            let (inputs, gradients) = (problem.inputs::<E>(), problem.output_gradients::<E>());
            let outcome = || -> fused_rnn::Result<(Vec<E>, Vec<E>, Vec<E>)> {
                let plan = backend.plan(d, shape, ForwardMode::Training)?;
                let space = backend.temp_space(&plan);
                let mut buffers = run::Buffers::new(d, shape, &Setup::default())?;
                let mut workspace = vec![E::nan(); space.workspace];
                let mut storage = vec![E::nan(); space.reserve];
                let args = buffers.forward::<B>(&inputs, &mut workspace);
                // The caller's storage may be borrowed as well as owned.
                let reserve = backend.forward_training(&plan, args, Reserve::new(&mut storage[..]))?;
                let args = buffers.backward_data::<B>(&inputs, &gradients, &mut workspace);
                let mut reserve = backend.backward_data(&plan, args, reserve)?;
                let mut weight_gradient = |grad| -> fused_rnn::Result<Vec<E>> {
                    workspace.fill(E::nan());
                    let args = buffers.backward_weights::<B>(&inputs, &mut workspace);
                    backend.backward_weights(&plan, args, &mut reserve, grad)?;
                    Ok(buffers.dweights.clone())
                };
                let first = weight_gradient(WeightGrad::Set)?;
                Ok((first, weight_gradient(WeightGrad::Set)?, weight_gradient(WeightGrad::Add)?))
            };
            let (first, second, doubled) = outcome().map_err(|e| e.to_string())?;
            same_bits_of("Set twice", "dweights", &first, &second)?;
            let halves: Vec<E> = doubled.into_iter().map(|v| E::of(v.wide() * 0.5)).collect();
            truth.judge_all(&truth::split_weights(d, &halves))
        },
    );
}

fn weight_gradients_are_not_zero<E: Number, B: HostBackend<E>>(backend: &B) {
    for cell in CellKind::ALL {
        let mut descriptor = RnnDescriptor::new(cell, 3, 9);
        descriptor.num_layers = 2;
        descriptor.direction = Direction::Bidirectional;
        if cell.has(CellOption::Projection) {
            descriptor.peepholes = true;
            descriptor.proj_size = Some(4);
        } else {
            descriptor.heads = 3;
        }
        let recipe = Recipe {
            descriptor,
            shape: RnnShape { seq_len: 3, batch: 2 },
            lengths: false,
            resets: false,
            dy: true,
            // Without it the bias of the sLSTM's input gate would scale c and n alike, and have no gradient.
            c0: cell.has_cell_state(),
            gain: 1.0,
            ..Recipe::random(11)
        };
        for (name, values) in default_training(backend, &recipe.problem()).expect("valid") {
            // Of a maximum, one side has no gradient.
            if name == "dc0" && cell.other_states() > 1 {
                continue;
            }
            let zeros = values.iter().filter(|v| **v == E::zero()).count();
            assert_eq!(zeros, 0, "{}: {zeros} of {} elements of {name} are zero", label(backend), values.len());
        }
    }
}

// Repeatability.

fn gives_the_same_bits_every_time<E: Number, B: HostBackend<E> + Sync>(backend: &B) {
    for_random_problems::<E>(
        40,
        |_| {},
        |problem| {
            let first = default_training(backend, problem)?;
            let inferred = infer(backend, problem, &Setup::default())?;
            // Something else in between, so that nothing can be left over from last time.
            let between = Recipe::random(problem.recipe.seed + 1).problem();
            default_training(backend, &between)?;
            same_bits("first and second time", &first, &default_training(backend, problem)?)?;
            same_bits("first and second inference", &inferred, &infer(backend, problem, &Setup::default())?)?;
            let (a, b) = std::thread::scope(|scope| {
                let a = scope.spawn(|| default_training(backend, problem));
                let b = scope.spawn(|| default_training(backend, problem));
                (a.join(), b.join())
            });
            for result in [a, b] {
                same_bits("alone and beside another thread", &first, &result.map_err(|_| "panicked")??)?;
            }
            Ok(())
        },
    );
}

// Time and batch.

/// A problem with some of the steps: rows of `x`, `y`, `dy` and the resets.
fn steps_of(problem: &Problem, from: usize, to: usize) -> Problem {
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
fn rows<'a, E: Copy + 'a>(
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
fn states_of<E: Copy>(states: &[E], shape: [usize; 3], chosen: &[usize]) -> Vec<E> {
    let [_, batch, features] = shape;
    let row = |state: &[E], b: usize| state[b * features..(b + 1) * features].to_vec();
    states.chunks(batch * features).flat_map(|state| chosen.iter().flat_map(move |b| row(state, *b))).collect()
}

/// A problem with the sequences chosen, in that order.
fn sequences_of(problem: &Problem, chosen: &[usize]) -> Problem {
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
fn state_is_carried_from_call_to_call<E: Number, B: HostBackend<E>>(backend: &B) {
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
fn a_reset_is_a_new_call<E: Number, B: HostBackend<E>>(backend: &B) {
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
        // In the reverse direction the step before the cut is the first of the second walk.
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
fn sequences_are_independent<E: Number, B: HostBackend<E>>(backend: &B) {
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
fn padding_does_not_matter<E: Number, B: HostBackend<E>>(backend: &B) {
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
fn nan_stays_where_it_belongs<E: Number, B: HostBackend<E>>(backend: &B) {
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

// Directions and layouts.

/// With weights of one, no bias and no squashing, the state counts the steps since the start.
fn linear_counter(direction: Direction, padded_output: PaddedOutput) -> RnnDescriptor {
    let mut d = RnnDescriptor::rnn(1, 1);
    (d.direction, d.padded_output, d.bias) = (direction, padded_output, Bias::None);
    d.activations.state = Activation::Linear;
    d
}

/// Closed forms: where each direction starts, what a reset does, which gradients padded outputs pass on.
fn counts_steps<E: Number, B: HostBackend<E>>(backend: &B) {
    let (seq_len, lengths) = (5usize, [3u32, 5, 1]);
    let shape = RnnShape { seq_len, batch: 3 };
    // Sequence 1 is reset before its step 2.
    let resets: Vec<u8> = (0..seq_len * 3).map(|i| u8::from(i == 2 * 3 + 1)).collect();
    for hold in [false, true] {
        let padded_output = if hold { PaddedOutput::Hold } else { PaddedOutput::Zero };
        let d = linear_counter(Direction::Bidirectional, padded_output);
        let inputs = Inputs {
            weights: vec![E::one(); 4],
            x: vec![E::one(); seq_len * 3],
            h0: Some(vec![E::of(10.0), E::of(10.0), E::of(10.0), E::of(20.0), E::of(20.0), E::of(20.0)]),
            lengths: Some(lengths.to_vec()),
            resets: Some(resets.clone()),
            ..Inputs::default()
        };
        let dy = Some(vec![E::one(); seq_len * 3 * 2]);
        let gradients = OutputGradients { dy, ..OutputGradients::default() };
        let (outputs, input_gradients) = pass::train(backend, &d, shape, &inputs, &gradients).expect("valid");
        let number = |v: E| v.wide();
        for (b, length) in lengths.into_iter().enumerate() {
            let length = length as usize;
            for t in 0..seq_len {
                let i = t * 3 + b;
                let (forward, reverse) = (number(outputs.y[2 * i]), number(outputs.y[2 * i + 1]));
                let place = format!("{}: step {t} of sequence {b}, hold {hold}", label(backend));
                // Steps walked since the start or the reset, this one included.
                let walked = |t: usize| if b == 1 && t >= 2 { t - 1 } else { t + 1 };
                let walked_back = if b == 1 && t <= 2 { 3 - t } else { length.saturating_sub(t) };
                if t < length {
                    assert_eq!(forward, 10.0 + walked(t) as f64, "{place}, forward");
                    assert_eq!(reverse, 20.0 + walked_back as f64, "{place}, reverse");
                } else {
                    assert_eq!(forward, if hold { 10.0 + walked(length - 1) as f64 } else { 0.0 }, "{place}, forward");
                    assert_eq!(reverse, 0.0, "{place}, reverse");
                }
                // Each output that x reaches has gradient one.
                let later = if b == 1 && t < 2 { 2 - t } else { length.saturating_sub(t) };
                let repeats = if hold && !(b == 1 && t < 2) { seq_len - length } else { 0 };
                let earlier = if b == 1 && t > 2 { t - 2 } else { t + 1 };
                let dx = if t < length { later + repeats + earlier } else { 0 };
                assert_eq!(number(input_gradients.dx[i]), dx as f64, "{place}, dx");
            }
            assert_eq!(number(outputs.hn[b]), 10.0 + if b == 1 { 3.0 } else { length as f64 }, "hn of {b}");
            assert_eq!(number(outputs.hn[3 + b]), 20.0 + if b == 1 { 3.0 } else { length as f64 }, "reverse hn of {b}");
            let held = if hold { seq_len } else { length };
            assert_eq!(number(input_gradients.dh0[b]), held as f64, "dh0 of {b}");
            assert_eq!(number(input_gradients.dh0[3 + b]), length as f64, "reverse dh0 of {b}");
        }
    }
}

/// A bidirectional layer is a forward and a reverse one, and a reverse one is a forward one on the sequence turned around.
fn directions_are_what_they_say<E: Number, B: HostBackend<E>>(backend: &B) {
    let one_layer = |r: &mut Recipe| {
        r.descriptor.num_layers = 1;
        r.descriptor.direction = Direction::Bidirectional;
        r.descriptor.padded_output = PaddedOutput::Zero;
        if r.descriptor.input == InputKind::Gates {
            // Each direction has its own.
            (r.descriptor.input, r.descriptor.input_size) = (InputKind::Features, 7);
        }
        r.dy = true;
    };
    for_random_problems::<E>(60, one_layer, |problem| {
        let (problem, truth) = &*settled(&problem.recipe);
        let d = &problem.descriptor;
        let width = d.output_size();
        let tensors = problem.shape.tensors(d).map_err(|e| e.to_string())?;
        let mut dx: Vec<f64> = vec![0.0; problem.inputs.x.len()];
        for direction in 0..2 {
            let mut single = problem.clone();
            single.descriptor.direction = [Direction::Forward, Direction::Reverse][direction];
            single.descriptor.activations = d.activations_of(direction);
            single.descriptor.reverse_activations = None;
            let half =
                |values: &[f64]| values[direction * values.len() / 2..(direction + 1) * values.len() / 2].to_vec();
            let columns = |values: &[f64]| -> Vec<f64> { values.chunks(2 * width).flat_map(half).collect() };
            single.inputs.weights = half(&problem.inputs.weights);
            for state in [
                &mut single.inputs.h0,
                &mut single.inputs.c0,
                &mut single.output_gradients.dhn,
                &mut single.output_gradients.dcn,
            ] {
                *state = state.as_deref().map(half);
            }
            single.output_gradients.dy = problem.output_gradients.dy.as_deref().map(columns);
            let results = default_training::<E, B>(backend, &single)?;
            for (name, got) in &results {
                match name.as_str() {
                    "y" => truth.judge_as("y", &columns(truth.values("y")), got)?,
                    "hn" | "cn" | "dh0" | "dc0" => truth.judge_as(name, &half(truth.values(name)), got)?,
                    "dx" => dx.iter_mut().zip(got).for_each(|(sum, v)| *sum += v.wide()),
                    weight => {
                        let stem = weight.trim_end_matches("_reverse");
                        let whole = if direction == 0 { stem.to_owned() } else { format!("{stem}_reverse") };
                        truth.judge_as(&whole, truth.values(&whole), got)?;
                    }
                }
            }
            if direction == 1 {
                let turn = |t: usize, b: usize| {
                    if t < problem.length(b) { problem.length(b) - 1 - t } else { t }
                };
                let turned = |values: &Vec<f64>, features: usize| {
                    rows(&single, features, |t, b| (values, single.row(turn(t, b), b)))
                };
                let mut forward = single.clone();
                forward.descriptor.direction = Direction::Forward;
                forward.inputs.x = turned(&single.inputs.x, tensors.x[2]);
                forward.output_gradients.dy = single.output_gradients.dy.as_ref().map(|dy| turned(dy, width));
                forward.inputs.resets = single.inputs.resets.as_ref().map(|resets| {
                    let batch = single.shape.batch;
                    (0..resets.len()).map(|i| resets[turn(i / batch, i % batch) * batch + i % batch]).collect()
                });
                let forward = default_training::<E, B>(backend, &forward)?;
                truth.judge_as("y", &turned(&columns(truth.values("y")), width), get(&forward, "y"))?;
                for name in ["hn", "dh0"] {
                    truth.judge_as(name, &half(truth.values(name)), get(&forward, name))?;
                }
                for (name, got) in forward.iter().filter(|(n, _)| is_weight(n)) {
                    let whole = format!("{name}_reverse");
                    truth.judge_as(&whole, truth.values(&whole), got)?;
                }
            }
        }
        truth.judge("dx", &convert::<E>(&dx))
    });
}

fn layouts_hold_the_same_values<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(
        40,
        |_| {},
        |problem| {
            let (problem, truth) = &*settled(&problem.recipe);
            let tensors = problem.shape.tensors(&problem.descriptor).map_err(|e| e.to_string())?;
            let mut other = problem.clone();
            other.descriptor.layout = match problem.descriptor.layout {
                Layout::SequenceMajor => Layout::BatchMajor,
                Layout::BatchMajor => Layout::SequenceMajor,
            };
            let target = other.clone();
            let moved =
                |values: &Vec<f64>, features: usize| rows(&target, features, |t, b| (values, problem.row(t, b)));
            other.inputs.x = moved(&problem.inputs.x, tensors.x[2]);
            other.output_gradients.dy = problem.output_gradients.dy.as_ref().map(|dy| moved(dy, tensors.y[2]));
            for (name, got) in default_training::<E, B>(backend, &other)? {
                let expected = truth.values(&name).to_vec();
                let expected = match name.as_str() {
                    "y" => moved(&expected, tensors.y[2]),
                    "dx" => moved(&expected, tensors.x[2]),
                    _ => expected,
                };
                truth.judge_as(&name, &expected, &got)?;
            }
            Ok(())
        },
    );
}

// Dropout.

/// Layers that pass their input on unchanged show the masks themselves, scale and all, forwards and backwards.
fn dropout_masks_are_philox<E: Number, B: HostBackend<E>>(backend: &B) {
    let mut rng = Rng::new(5);
    for probability in [0.1, 0.3, 0.5, 0.9, 1.0, 1e-12] {
        for width in [1, 2, 4, 5, 17, 40] {
            let layers = 3;
            let mut d = RnnDescriptor::rnn(width, width);
            (d.num_layers, d.bias, d.dropout) = (layers, Bias::None, probability);
            d.activations.state = Activation::Linear;
            d.direction = rng.pick(&[Direction::Forward, Direction::Reverse]);
            d.layout = rng.pick(&[Layout::SequenceMajor, Layout::BatchMajor]);
            let shape = RnnShape { seq_len: 1 + rng.below(6), batch: 1 + rng.below(5) };
            let layout = WeightLayout::new(&d).expect("valid");
            let mut weights = vec![E::zero(); layout.len()];
            for layer in 0..layers {
                let reads_x = |e: &&WeightEntry| e.layer == layer && e.kind == WeightKind::InputHidden;
                let start = layout.entries().iter().find(reads_x).expect("every layer has it").range.start;
                (0..width).for_each(|i| weights[start + i * width + i] = E::one());
            }
            let seed = rng.bits();
            let x = convert::<E>(&rng.vector(shape.seq_len * shape.batch * width, 4.0));
            let dy = convert::<E>(&rng.vector(x.len(), 4.0));
            let inputs = Inputs { weights, x: x.clone(), dropout_seed: seed, ..Inputs::default() };
            let gradients = OutputGradients { dy: Some(dy.clone()), ..OutputGradients::default() };
            let (outputs, input_gradients) = pass::train(backend, &d, shape, &inputs, &gradients).expect("valid");
            let masked = |values: &[E]| {
                let mut values: Vec<f64> = values.iter().map(|v| v.wide()).collect();
                let dropout = Dropout::new(probability, seed);
                for layer in 1..layers {
                    for (row, values) in values.chunks_mut(width).enumerate() {
                        let (t, b) = match d.layout {
                            Layout::SequenceMajor => (row / shape.batch, row % shape.batch),
                            Layout::BatchMajor => (row % shape.seq_len, row / shape.seq_len),
                        };
                        dropout.apply(values, layer, t, b);
                    }
                }
                values
            };
            let what = format!("{}: p {probability}, width {width}", label(backend));
            for (name, expected, got) in [("y", masked(&x), &outputs.y), ("dx", masked(&dy), &input_gradients.dx)] {
                for i in 0..got.len() {
                    // A dropped element is zero exactly; a kept one may have its factors multiplied in another order.
                    let near = 4.0 * E::DTYPE.epsilon() * expected[i].abs();
                    assert!(
                        (expected[i] - got[i].wide()).abs() <= near,
                        "{what}, {name}[{i}]: {} and {}",
                        expected[i],
                        got[i]
                    );
                }
            }
            let inferred = pass::infer(backend, &d, shape, &inputs).expect("valid");
            assert_eq!(inferred.y, x, "{what}: inference");
            if (0.1..=0.5).contains(&probability) && x.len() > 60 {
                let reseeded = Inputs { dropout_seed: seed ^ (1 << 40), ..inputs };
                let (other, _) = pass::train(backend, &d, shape, &reseeded, &gradients).expect("valid");
                assert_ne!(other.y, outputs.y, "{what}: another seed");
            }
        }
    }
}

/// What the tolerances come to: in single precision, the usual operators are checked to a few digits less than it has.
#[test]
fn tolerances_are_tight() {
    let mut all = Vec::new();
    for seed in 0..60 {
        let mut recipe = Recipe::random(seed);
        recipe.descriptor.direction = Direction::Forward;
        (recipe.descriptor.input, recipe.descriptor.input_size) = (InputKind::Features, 17);
        recipe.descriptor.activations = RnnDescriptor::rnn(1, 1).activations;
        recipe.descriptor.reverse_activations = None;
        (recipe.descriptor.gate_clip, recipe.descriptor.cell_clip, recipe.gain) = (None, None, 1.0);
        let (_, truth) = &*settled(&recipe);
        for name in ["y", "dx", "dweight_ih_l0"] {
            if truth.magnitude(name) > 0.0 {
                all.push(truth.tolerance::<f32>(name) / truth.magnitude(name));
            }
        }
    }
    all.sort_by(f64::total_cmp);
    let (median, largest) = (all[all.len() / 2], all[all.len() - 1]);
    println!("f32 tolerance relative to a tensor's largest magnitude: median {median:.1e}, largest {largest:.1e}");
    assert!(median < 5e-6 && largest < 1e-4, "median {median:e}, largest {largest:e}");
}

macro_rules! suite {
    ($module:ident, $element:ty, $backend:expr, [$($property:ident),* $(,)?]) => {
        mod $module {
            $(
                #[test]
                fn $property() {
                    super::$property::<$element, _>(&$backend);
                }
            )*
        }
    };
    ($module:ident, $element:ty, $backend:expr) => {
        suite!($module, $element, $backend, [
            agrees,
            agrees_at_large_sizes,
            agrees_with_every_activation,
            saturates_without_nan,
            inference_is_training_without_dropout,
            contents_of_buffers_do_not_matter,
            optional_results_may_be_absent,
            absent_inputs_are_their_defaults,
            weight_gradients_are_set_or_added,
            weight_gradients_can_be_computed_again,
            weight_gradients_are_not_zero,
            gives_the_same_bits_every_time,
            state_is_carried_from_call_to_call,
            a_reset_is_a_new_call,
            sequences_are_independent,
            padding_does_not_matter,
            nan_stays_where_it_belongs,
            counts_steps,
            directions_are_what_they_say,
            layouts_hold_the_same_values,
            dropout_masks_are_philox,
        ]);
    };
}

suite!(reference_f32, f32, fused_rnn::backend::reference::ReferenceBackend::<f32>::new());
suite!(reference_f64, f64, fused_rnn::backend::reference::ReferenceBackend::<f64>::new());
suite!(cpu_f32, f32, fused_rnn::backend::cpu::CpuBackend::<f32>::new());
suite!(cpu_f64, f64, fused_rnn::backend::cpu::CpuBackend::<f64>::new());

/// The CUDA kernels, run on the host: in which family, in which order of threads.
#[cfg(feature = "emulated")]
mod emulated {
    use super::Number;
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, Family, FamilyChoice, Staged};

    pub fn with<E: Number>(family: FamilyChoice, schedule: Schedule) -> Staged<E, Emulated> {
        let device = Emulated::new(schedule).expect("valid");
        let options = CudaOptions { family, ..CudaOptions::default() };
        Staged::new(CudaBackend::with_options(device.into(), EmulatedStream, options))
    }

    /// As plans choose, in the natural order of threads.
    pub fn usual<E: Number>() -> Staged<E, Emulated> {
        with(FamilyChoice::Fastest, Schedule::default())
    }

    pub fn preferring<E: Number>(family: Family) -> Staged<E, Emulated> {
        with(FamilyChoice::Prefer(family), Schedule::default())
    }

    /// In random orders of threads, one warp or block lagging.
    pub fn shuffled<E: Number>(family: Family, seed: u64) -> Staged<E, Emulated> {
        with(FamilyChoice::Prefer(family), Schedule { seed, starve: true })
    }
}

#[cfg(feature = "emulated")]
suite!(emulated_f32, f32, super::emulated::usual());
#[cfg(feature = "emulated")]
suite!(emulated_f64, f64, super::emulated::usual());
#[cfg(feature = "emulated")]
suite!(
    emulated_grid_f32,
    f32,
    super::emulated::preferring(fused_rnn::backend::cuda::Family::Grid),
    [
        agrees,
        agrees_at_large_sizes,
        inference_is_training_without_dropout,
        contents_of_buffers_do_not_matter,
        gives_the_same_bits_every_time,
        padding_does_not_matter,
        nan_stays_where_it_belongs,
    ]
);
// Tests of 16 bits leave out what needs more: kinks, large inputs, and results put together from several passes.
#[cfg(feature = "emulated")]
macro_rules! suite_of_16_bits {
    ($module:ident, $element:ty, $backend:expr) => {
        suite!(
            $module,
            $element,
            $backend,
            [
                agrees,
                agrees_at_large_sizes,
                inference_is_training_without_dropout,
                contents_of_buffers_do_not_matter,
                optional_results_may_be_absent,
                absent_inputs_are_their_defaults,
                weight_gradients_are_set_or_added,
                weight_gradients_are_not_zero,
                gives_the_same_bits_every_time,
                sequences_are_independent,
                padding_does_not_matter,
                nan_stays_where_it_belongs,
                counts_steps,
                layouts_hold_the_same_values,
                dropout_masks_are_philox,
            ]
        );
    };
}
#[cfg(feature = "emulated")]
suite_of_16_bits!(emulated_bf16, half::bf16, super::emulated::usual());
#[cfg(feature = "emulated")]
suite_of_16_bits!(emulated_f16, half::f16, super::emulated::usual());
#[cfg(feature = "emulated")]
suite_of_16_bits!(
    emulated_cluster_bf16,
    half::bf16,
    super::emulated::preferring(fused_rnn::backend::cuda::Family::Cluster)
);
#[cfg(feature = "emulated")]
suite_of_16_bits!(emulated_grid_bf16, half::bf16, super::emulated::preferring(fused_rnn::backend::cuda::Family::Grid));
#[cfg(feature = "emulated")]
suite!(shuffled_step_f32, f32, super::emulated::shuffled(fused_rnn::backend::cuda::Family::Step, 1), [agrees]);
#[cfg(feature = "emulated")]
suite!(
    shuffled_block_f32,
    f32,
    super::emulated::shuffled(fused_rnn::backend::cuda::Family::Block, 2),
    [agrees, agrees_at_large_sizes]
);
#[cfg(feature = "emulated")]
suite!(
    shuffled_grid_f32,
    f32,
    super::emulated::shuffled(fused_rnn::backend::cuda::Family::Grid, 3),
    [agrees, agrees_at_large_sizes]
);
#[cfg(feature = "emulated")]
suite!(
    shuffled_cluster_f16,
    half::f16,
    super::emulated::shuffled(fused_rnn::backend::cuda::Family::Cluster, 4),
    [agrees, agrees_at_large_sizes]
);
#[cfg(feature = "emulated")]
suite!(
    shuffled_grid_f16,
    half::f16,
    super::emulated::shuffled(fused_rnn::backend::cuda::Family::Grid, 5),
    [agrees, agrees_at_large_sizes]
);

/// Products on tensor cores round the operands of f32 to ten bits of mantissa, as many as f16 has: it is judged as that.
#[cfg(feature = "emulated")]
#[test]
fn emulated_tf32_agrees() {
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    use fused_rnn::backend::cuda::{Compute, CudaBackend, CudaOptions, Family, FamilyChoice, Staged};
    let (exact, rounded) = (emulated::usual::<f32>(), AtomicU32::new(0));
    for family in [Family::Step, Family::Grid] {
        let device = Emulated::new(Schedule::default()).expect("valid").into();
        let options = CudaOptions { compute: Compute::Tf32, family: FamilyChoice::Prefer(family) };
        let backend = Staged::new(CudaBackend::<f32, _>::with_options(device, EmulatedStream, options));
        for_random_problems::<half::f16>(
            80,
            |_| {},
            |problem| {
                let (problem, truth) = &*settled(&problem.recipe);
                let results = default_training::<f32, _>(&backend, problem)?;
                let judged = results.iter().map(|(name, values)| {
                    (name.clone(), values.iter().map(|v| half::f16::from_f32(*v)).collect::<Vec<_>>())
                });
                truth.judge_all(&judged.collect())?;
                let differs = default_training::<f32, _>(&exact, problem)? != results;
                rounded.fetch_add(u32::from(differs), Ordering::Relaxed);
                Ok(())
            },
        );
    }
    let rounded = rounded.into_inner();
    assert!(rounded > 100, "only {rounded} of 160 problems show that operands are rounded");
}

/// The CUDA backend on a GPU: `cargo test --test operator backends::cuda_ -- --ignored`.
#[cfg(feature = "cuda")]
mod on_gpu {
    use super::Number;
    use fused_rnn::backend::cuda::driver::{Driver, DriverStream};
    use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, Family, FamilyChoice, Staged};

    pub fn backend<E: Number>(family: Option<Family>) -> Staged<E, Driver> {
        let driver = crate::common::gpu::gpu();
        let stream = DriverStream::new(&driver).expect("a stream");
        let family = family.map_or(FamilyChoice::Fastest, FamilyChoice::Prefer);
        let options = CudaOptions { family, ..CudaOptions::default() };
        Staged::new(CudaBackend::with_options(driver, stream, options))
    }
}

#[cfg(feature = "cuda")]
macro_rules! gpu_suite {
    ($module:ident, $element:ty, $family:expr, [$($property:ident),* $(,)?]) => {
        mod $module {
            $(
                #[test]
                #[ignore = "needs a GPU"]
                fn $property() {
                    super::$property::<$element, _>(&super::on_gpu::backend($family));
                }
            )*
        }
    };
    ($module:ident, $element:ty, $family:expr) => {
        gpu_suite!($module, $element, $family, [
            agrees,
            agrees_at_large_sizes,
            inference_is_training_without_dropout,
            contents_of_buffers_do_not_matter,
            weight_gradients_are_set_or_added,
            gives_the_same_bits_every_time,
            sequences_are_independent,
            padding_does_not_matter,
            nan_stays_where_it_belongs,
            counts_steps,
            dropout_masks_are_philox,
        ]);
    };
}
#[cfg(feature = "cuda")]
gpu_suite!(cuda_f32, f32, None);
#[cfg(feature = "cuda")]
gpu_suite!(cuda_f64, f64, None);
#[cfg(feature = "cuda")]
gpu_suite!(cuda_bf16, half::bf16, None);
#[cfg(feature = "cuda")]
gpu_suite!(cuda_f16, half::f16, None);
#[cfg(feature = "cuda")]
gpu_suite!(cuda_step_f32, f32, Some(fused_rnn::backend::cuda::Family::Step));
#[cfg(feature = "cuda")]
gpu_suite!(cuda_grid_f32, f32, Some(fused_rnn::backend::cuda::Family::Grid));
#[cfg(feature = "cuda")]
gpu_suite!(cuda_cluster_bf16, half::bf16, Some(fused_rnn::backend::cuda::Family::Cluster));
#[cfg(feature = "cuda")]
gpu_suite!(cuda_grid_bf16, half::bf16, Some(fused_rnn::backend::cuda::Family::Grid));

/// The CPU backend promises more than repeatability: the same bits for any number of threads.
fn threads_do_not_change_bits<E: CpuElement>() {
    let alone = CpuBackend::<E>::with_threads(1).expect("valid");
    for threads in [2, 3, 7] {
        let together = CpuBackend::<E>::with_threads(threads).expect("valid");
        for_random_problems::<E>(
            25,
            |_| {},
            |problem| {
                same_bits("threads", &default_training(&alone, problem)?, &default_training(&together, problem)?)?;
                let plain = &Setup::default();
                same_bits("threads, inference", &infer(&alone, problem, plain)?, &infer(&together, problem, plain)?)
            },
        );
        // Large enough that threads pay.
        for cell in CellKind::ALL {
            let mut descriptor = RnnDescriptor::new(cell, 130, 190);
            descriptor.direction = Direction::Bidirectional;
            let shape = RnnShape { seq_len: 9, batch: 41 };
            let recipe = Recipe { descriptor, shape, lengths: true, dy: true, gain: 1.0, ..Recipe::random(3) };
            let problem = recipe.problem();
            let (a, b) = (default_training(&alone, &problem), default_training(&together, &problem));
            let same = a.and_then(|a| same_bits("threads", &a, &b?));
            same.unwrap_or_else(|e| panic!("{cell} on {threads} threads: {e}"));
        }
    }
}

#[test]
fn cpu_threads_do_not_change_bits() {
    threads_do_not_change_bits::<f32>();
    threads_do_not_change_bits::<f64>();
    for threads in [0, usize::MAX] {
        let refused = fused_rnn::backend::cpu::CpuBackend::<f32>::with_threads(threads).map(drop);
        assert!(matches!(refused, Err(fused_rnn::Error::InvalidOption { .. })), "{refused:?}");
    }
}
