//! Buffers: contents that do not matter, results and inputs that may be absent.

use super::passes::{default_training, infer, train};
use crate::common::run::{Setup, get, same_bits, same_bits_of};
use crate::common::truth::{Named, settled};
use crate::common::{Number, Recipe, Rng, for_random_problems};
use fused_rnn::backend::HostBackend;

pub fn contents_of_buffers_do_not_matter<E: Number, B: HostBackend<E>>(backend: &B) {
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

pub fn optional_results_may_be_absent<E: Number, B: HostBackend<E>>(backend: &B) {
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
pub fn absent_inputs_are_their_defaults<E: Number, B: HostBackend<E>>(backend: &B) {
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
