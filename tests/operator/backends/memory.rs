//! What training keeps: checkpoints over time and the light mode give the results of an ordinary pass.

use super::passes::{default_training, is_weight};
use crate::common::run::{get, same_bits_of};
use crate::common::truth::settled;
use crate::common::{Number, Recipe, for_random_problems};
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::backend::{ForwardMode, HostBackend, RecurrentBackend, longest};
use fused_rnn::rnn::{Direction, Memory, RnnDescriptor, RnnShape, WeightLayout};
use fused_rnn::{DType, Error};

fn with_steps(recipe: &mut Recipe) {
    recipe.resets = false;
    recipe.descriptor.memory = Memory::Full;
    recipe.shape.seq_len = recipe.shape.seq_len.max(2);
}

/// Segments of every size: gradients are the oracle's, outputs and last states have the bits of the ordinary pass, where states are
/// handed on in the type that they are computed in.
pub fn checkpoints_change_no_result<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(60, with_steps, |problem| {
        let (problem, truth) = &*settled(&problem.recipe);
        let ordinary = default_training(backend, problem)?;
        let seq_len = problem.shape.seq_len;
        // A GPU may run one direction by other kernels than two.
        let same_kernels =
            ["cpu", "reference"].contains(&backend.name()) || problem.descriptor.direction != Direction::Bidirectional;
        let exact = same_kernels && matches!(E::DTYPE, DType::F32 | DType::F64);
        // One step a segment, a last segment that is shorter, two halves, one segment: the ordinary pass.
        let every = [1, 3, seq_len.div_ceil(2), seq_len];
        let checkpoints = every.map(|every| (every, Memory::Checkpoints { every }));
        for (every, memory) in checkpoints.into_iter().chain(every.map(|every| (every, Memory::Light { every }))) {
            let mut problem = problem.clone();
            problem.descriptor.memory = memory;
            let what = format!("{memory:?} of {seq_len} steps");
            let results = default_training(backend, &problem)?;
            truth.judge_all(&results).map_err(|e| format!("{what}: {e}"))?;
            for (name, values) in &results {
                let outputs = ["y", "hn", "cn"].contains(&name.as_str());
                if every == seq_len || (exact && outputs) {
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

/// What a segment cannot do is an error that says what can be done instead.
#[test]
fn resets_are_refused_with_checkpoints() {
    let (mut descriptor, shape) = (RnnDescriptor::gru(2, 3), RnnShape { seq_len: 4, batch: 1 });
    descriptor.memory = Memory::Checkpoints { every: 2 };
    let weights = WeightLayout::new(&descriptor).expect("valid").len();
    let inputs =
        Inputs { weights: vec![0.1f64; weights], x: vec![0.5; 8], resets: Some(vec![0; 4]), ..Inputs::default() };
    let train = |descriptor: &RnnDescriptor| {
        pass::train(&CpuBackend::<f64>::new(), descriptor, shape, &inputs, &OutputGradients::default())
    };
    let error = train(&descriptor).expect_err("refused");
    assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains("resets")), "{error}");
    assert!(error.to_string().contains("Memory::Full"), "{error}");
    // One segment is an ordinary pass.
    descriptor.memory = Memory::Checkpoints { every: 4 };
    train(&descriptor).expect("an ordinary pass");
    descriptor.memory = Memory::Checkpoints { every: 0 };
    let error = train(&descriptor).expect_err("refused");
    assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "memory"), "{error}");
}

/// The stated budget: a sequence of 100,000 steps of an LSTM with 512 units trains in 32 MiB of workspace and reserve, of which an
/// ordinary pass needs more than 1 GiB.
#[test]
fn long_sequences_train_within_the_stated_budget() {
    let (mut descriptor, shape) = (RnnDescriptor::lstm(64, 512), RnnShape { seq_len: 100_000, batch: 1 });
    let backend = CpuBackend::<f32>::with_threads(2).expect("valid");
    let bytes = |descriptor: &RnnDescriptor| {
        let plan = backend.plan(descriptor, shape, ForwardMode::Training).expect("valid");
        let space = backend.temp_space(&plan);
        4 * (space.workspace + space.reserve)
    };
    assert!(bytes(&descriptor) > 1 << 30);
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
        let (descriptor, shape) = (RnnDescriptor { memory, ..descriptor.clone() }, RnnShape { seq_len, batch });
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
