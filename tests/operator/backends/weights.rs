//! Gradients of weights: set, added, computed again, never left out.

use super::passes::{default_training, label, train, without_weights};
use crate::common::run::{self, Setup, get, same_bits, same_bits_of};
use crate::common::truth::{self, settled};
use crate::common::{Number, Recipe, Rng, convert, for_random_problems};
use fused_rnn::backend::{ForwardMode, HostBackend, Reserve, WeightGrad};
use fused_rnn::cell::{CellKind, CellOption};
use fused_rnn::rnn::{Direction, RnnDescriptor, RnnShape, WeightLayout};

pub fn weight_gradients_are_set_or_added<E: Number, B: HostBackend<E>>(backend: &B) {
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
pub fn weight_gradients_can_be_computed_again<E: Number, B: HostBackend<E>>(backend: &B) {
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

pub fn weight_gradients_are_not_zero<E: Number, B: HostBackend<E>>(backend: &B) {
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
