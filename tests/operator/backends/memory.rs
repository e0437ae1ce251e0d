//! What training keeps: checkpoints over time and the light mode give the results of an ordinary pass.

use super::passes::{default_training, is_weight};
use crate::common::run::{get, same_bits_of};
use crate::common::truth::settled;
use crate::common::{Number, Recipe, Rng, for_random_problems};
use fused_rnn::Error;
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::backend::{ForwardMode, HostBackend, RecurrentBackend, longest};
use fused_rnn::rnn::{Direction, Layout, Memory, PaddedOutput, RnnDescriptor, RnnShape, WeightLayout};

fn with_steps(recipe: &mut Recipe) {
    recipe.descriptor.memory = Memory::Full;
    recipe.shape.seq_len = recipe.shape.seq_len.max(2);
}

/// Segments of every size, with resets and lengths: gradients of weights, which are summed segment by segment, are the oracle's; everything
/// else has the bits of the ordinary pass.
pub fn checkpoints_change_no_result<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(60, with_steps, |problem| {
        let (problem, truth) = &*settled(&problem.recipe);
        let ordinary = default_training(backend, problem)?;
        let seq_len = problem.shape.seq_len;
        // A GPU may run one direction by other kernels than two, and the products of fewer rows by other kernels than those of more. Up to
        // 32 rows without gaps have the same.
        let few_rows = problem.descriptor.layout == Layout::SequenceMajor && seq_len * problem.shape.batch <= 32;
        let same_kernels = ["cpu", "reference"].contains(&backend.name())
            || few_rows && problem.descriptor.direction != Direction::Bidirectional;
        // One step a segment, a last segment that is shorter, two halves, one segment: the ordinary pass.
        let every = [1, 3, seq_len.div_ceil(2), seq_len];
        let checkpoints = every.map(|every| (every, Memory::Checkpoints { every }));
        for (every, memory) in checkpoints.into_iter().chain(every.map(|every| (every, Memory::Light { every }))) {
            let mut problem = problem.clone();
            problem.descriptor.memory = memory;
            let what = format!("{memory:?} of {seq_len} steps");
            let results = default_training(backend, &problem)?;
            truth.judge_all(&results).map_err(|e| format!("{what}: {e}"))?;
            // The oracle adds held gradients to the last output's before it adds that to the state's. The light mode's gates come from
            // another product.
            let light = matches!(memory, Memory::Light { .. });
            let held = problem.recipe.lengths && problem.descriptor.padded_output == PaddedOutput::Hold;
            let other_order = light || held && backend.name() == "reference";
            for (name, values) in &results {
                let output = ["y", "hn", "cn"].contains(&name.as_str());
                let exact = same_kernels && !is_weight(name) && (output || !other_order);
                if every == seq_len || exact {
                    same_bits_of(&what, name, get(&ordinary, name), values)?;
                }
                if is_weight(name) && values.len() != get(&ordinary, name).len() {
                    return Err(format!("{what}: {name} has {} elements", values.len()));
                }
            }
        }
        Ok(())
    });
}

/// A number of bytes is kept: an ordinary plan where that fits, else checkpoints that do.
pub fn memory_is_kept_within<E: Number, B: HostBackend<E>>(backend: &B) {
    let (mut descriptor, shape) = (RnnDescriptor::lstm(3, 8), RnnShape { seq_len: 500, batch: 2 });
    let bytes = |descriptor: &RnnDescriptor| {
        let space = backend.temp_space(&backend.plan(descriptor, shape, ForwardMode::Training)?);
        Ok::<_, fused_rnn::Error>((space.workspace + space.reserve) * size_of::<E>())
    };
    let full = bytes(&descriptor).expect("valid");
    descriptor.memory = Memory::Checkpoints { every: 22 };
    let near_the_root = bytes(&descriptor).expect("valid");
    assert!(near_the_root < full / 2, "{near_the_root} bytes with checkpoints, {full} without");
    for most in [full, full - 1, full / 2, near_the_root * 2] {
        descriptor.memory = Memory::Within { bytes: most };
        let taken = bytes(&descriptor).expect("it fits");
        assert!(taken <= most, "{taken} bytes of {most}");
        assert!(most < full || taken == full, "an ordinary plan fits {most} bytes");
    }
    descriptor.memory = Memory::Within { bytes: 1000 };
    let refused = bytes(&descriptor).expect_err("too little").to_string();
    assert!(refused.contains("memory") && refused.contains("1000 bytes"), "{refused}");
    let least = refused.split_whitespace().find_map(|word| word.parse::<usize>().ok()).expect("a number of bytes");
    descriptor.memory = Memory::Within { bytes: least };
    assert_eq!(bytes(&descriptor).expect("what the error says"), least);
}

/// A reset at a segment's first step, within one, and at its last: each goes back to the initial state, and its gradient with it.
#[test]
fn resets_fall_anywhere_in_a_segment() {
    let shape = RnnShape { seq_len: 7, batch: 3 };
    for direction in [Direction::Forward, Direction::Reverse] {
        let mut descriptor = RnnDescriptor::lstm(2, 3).direction(direction);
        let mut rng = Rng::new(1);
        let mut values = |len: usize| rng.vector(len, 0.8);
        let inputs = Inputs {
            weights: values(WeightLayout::new(&descriptor).expect("valid").len()),
            x: values(42),
            h0: Some(values(9)),
            c0: Some(values(9)),
            // A step for each sequence; none for the last one.
            resets: Some((0..21).map(|i| u8::from(i % 3 < 2 && i / 3 == 3 - i % 3)).collect()),
            ..Inputs::default()
        };
        let gradients = OutputGradients { dy: Some(values(63)), dhn: Some(values(9)), dcn: Some(values(9)) };
        let backend = CpuBackend::<f64>::new();
        let mut train = |memory: Memory| {
            descriptor.memory = memory;
            pass::train(&backend, &descriptor, shape, &inputs, &gradients).expect("valid")
        };
        let (outputs, all) = train(Memory::Full);
        for every in 1..7 {
            let (segmented, gradients) = train(Memory::Checkpoints { every });
            assert_eq!(segmented.y, outputs.y, "{direction:?}, every {every}");
            assert_eq!((&gradients.dx, &gradients.dh0), (&all.dx, &all.dh0), "{direction:?}, every {every}");
            assert_eq!(gradients.dc0, all.dc0, "{direction:?}, every {every}");
        }
    }
}

#[test]
fn checkpoints_are_a_step_apart_or_more() {
    let (mut descriptor, shape) = (RnnDescriptor::gru(2, 3), RnnShape { seq_len: 4, batch: 1 });
    descriptor.memory = Memory::Checkpoints { every: 0 };
    let planned = CpuBackend::<f64>::new().plan(&descriptor, shape, ForwardMode::Training);
    let error = planned.map(drop).expect_err("refused");
    assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "memory"), "{error}");
}

/// The stated budget: a sequence of 100,000 steps of an LSTM with 512 units trains in 32 MiB of workspace and reserve, of which an
/// ordinary pass needs more than 1 GB.
#[test]
fn long_sequences_train_within_the_stated_budget() {
    let (mut descriptor, shape) = (RnnDescriptor::lstm(64, 512), RnnShape { seq_len: 100_000, batch: 1 });
    let backend = CpuBackend::<f32>::with_threads(2).expect("valid");
    let bytes = |descriptor: &RnnDescriptor| {
        let plan = backend.plan(descriptor, shape, ForwardMode::Training).expect("valid");
        let space = backend.temp_space(&plan);
        4 * (space.workspace + space.reserve)
    };
    assert!(bytes(&descriptor) > 1_000_000_000);
    descriptor.memory = Memory::Checkpoints { every: 316 };
    let needed = bytes(&descriptor);
    assert!(needed <= 32 << 20, "{needed} bytes");
}

/// The longest sequences fit, and longer ones do not.
#[test]
fn the_longest_sequences_fit() {
    let (descriptor, batch, bytes) = (RnnDescriptor::lstm(3, 8), 2, 1 << 20);
    let backend = CpuBackend::<f32>::with_threads(2).expect("valid");
    let found = longest(&backend, &descriptor, batch, bytes).expect("valid");
    assert!(found.checkpoints > 2 * found.full && found.every < found.checkpoints, "{found:?}");
    let needed = |seq_len: usize, memory: Memory| {
        let (descriptor, shape) = (descriptor.clone().memory(memory), RnnShape { seq_len, batch });
        let space = backend.temp_space(&backend.plan(&descriptor, shape, ForwardMode::Training).expect("valid"));
        let weights = WeightLayout::new(&descriptor).expect("valid").len();
        // x and y of every step, h0, hn, c0, cn; all with their gradients.
        let tensors = 2 * (weights + seq_len * batch * (3 + 8) + 4 * batch * 8);
        4 * (space.workspace + space.reserve + tensors)
    };
    assert!(needed(found.full, Memory::Full) <= bytes && needed(found.full + 1, Memory::Full) > bytes, "{found:?}");
    assert!(needed(found.checkpoints, Memory::Checkpoints { every: found.every }) <= bytes, "{found:?}");
    let nothing = longest(&backend, &descriptor, batch, 1000).expect("valid");
    assert_eq!((nothing.full, nothing.checkpoints, nothing.every), (0, 0, 0));
    longest(&backend, &RnnDescriptor::lstm(0, 8), batch, bytes).expect_err("no such operator");
}
