//! Tiles of 16 sequences of the persistent kernels: which plans have them, and that what they compute is right.

use std::sync::Arc;

use crate::common::run::{self, Setup};
use crate::common::truth::Truth;
use crate::common::{Number, Recipe};
use fused_rnn::DType;
use fused_rnn::backend::RecurrentBackend;
use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, Family, FamilyChoice, Staged};
use fused_rnn::backend::{ForwardMode, HostBackend};
use fused_rnn::cell::CellKind;
use fused_rnn::rnn::{Direction, GruReset, PaddedOutput, RnnDescriptor, RnnShape};
use half::{bf16, f16};

const CELLS: [CellKind; 3] = [CellKind::Rnn, CellKind::Lstm, CellKind::Gru];

/// The grid family on a GPU that holds so many of its blocks.
fn grid<E: Number>(resident: u32, schedule: Schedule) -> Staged<E, Emulated> {
    let device = Arc::new(Emulated::new(schedule).expect("valid").with_resident_limit(resident));
    let options = CudaOptions { family: FamilyChoice::Require(Family::Grid), ..CudaOptions::default() };
    Staged::new(CudaBackend::with_options(device, EmulatedStream, options))
}

/// Sequences of a tile, and tiles of a group, of training: forward and backward.
fn tiles<E: Number>(backend: &Staged<E, Emulated>, descriptor: &RnnDescriptor, shape: RnnShape) -> [(u32, u32); 2] {
    let plan = backend.plan(descriptor, shape, ForwardMode::Training).expect("the family takes it");
    let loops = plan.time_loops();
    [0, 1].map(|pass| {
        let launch = loops[pass].persistent.as_ref().expect("a persistent kernel");
        (launch.tile_sequences, launch.tiles)
    })
}

/// A layer of 33 to 64 units has four blocks a group and direction.
const BLOCKS: u32 = 4;

fn descriptor(cell: CellKind, direction: Direction) -> RnnDescriptor {
    let mut descriptor = RnnDescriptor::new(cell, 3, 40);
    (descriptor.direction, descriptor.reset) = (direction, GruReset::After);
    descriptor
}

/// Groups of more than 8 sequences get tiles of 16, in the passes that have such kernels; others do not.
#[test]
fn plans_have_tiles_of_16_for_groups_of_more_than_8() {
    let at = |batch| RnnShape { seq_len: 5, batch };
    for cell in CELLS {
        let layer = descriptor(cell, Direction::Forward);
        let backward = |wide: (u32, u32), usual: (u32, u32)| if cell == CellKind::Lstm { usual } else { wide };
        // One group.
        let one = grid::<bf16>(BLOCKS, Schedule::default());
        for batch in 1..=8 {
            assert_eq!(tiles(&one, &layer, at(batch)), [(8, 1); 2], "{cell}, {batch}");
        }
        for batch in 9..=16 {
            assert_eq!(tiles(&one, &layer, at(batch)), [(16, 1), backward((16, 1), (8, 2))], "{cell}, {batch}");
        }
        assert_eq!(tiles(&one, &layer, at(17)), [(16, 2), backward((16, 2), (8, 3))], "{cell}");
        assert_eq!(tiles(&one, &layer, at(64)), [(16, 4), backward((16, 4), (8, 8))], "{cell}");
        // Two: 16 sequences are 8 a group.
        let two = grid::<f16>(2 * BLOCKS, Schedule::default());
        assert_eq!(tiles(&two, &layer, at(16)), [(8, 1); 2], "{cell}");
        assert_eq!(tiles(&two, &layer, at(17)), [(16, 1), backward((16, 1), (8, 2))], "{cell}");
        assert_eq!(tiles(&two, &layer, at(33)), [(16, 2), backward((16, 2), (8, 3))], "{cell}");
        // Two directions share the GPU.
        let both = descriptor(cell, Direction::Bidirectional);
        assert_eq!(tiles(&two, &both, at(16)), [(16, 1), backward((16, 1), (8, 2))], "{cell}");
        // Layers and types that have no such kernels.
        let mut large = layer.clone();
        large.hidden_size = 1040;
        let few = grid::<bf16>(66, Schedule::default());
        assert_eq!(tiles(&few, &large, at(16)), [(8, 2); 2], "{cell}");
        let exact = grid::<f32>(BLOCKS, Schedule::default());
        assert_eq!(tiles(&exact, &layer, at(16)), [(8, 2); 2], "{cell}");
    }
}

/// Trains and infers, and compares with the oracle.
fn agree<E: Number, B: HostBackend<E>>(backend: &B, recipe: &Recipe) -> Result<(), String> {
    let problem = recipe.clone().judged_in(E::DTYPE).problem();
    let truth = Truth::of(&problem).ok_or("no kinks here")?;
    let (inputs, gradients) = (problem.inputs::<E>(), problem.output_gradients::<E>());
    let (d, shape) = (&problem.descriptor, problem.shape);
    let trained = run::train(backend, d, shape, &inputs, &gradients, &Setup::default()).map_err(|e| e.to_string())?;
    truth.judge_all(&trained)?;
    let inferred = run::infer(backend, d, shape, &inputs, &Setup::default()).map_err(|e| e.to_string())?;
    truth.judge_all(&inferred)
}

/// Batches that fill tiles, lack a sequence and have one more; plain problems, with lengths, with resets and with both; one group and two; under
/// orders of threads in which someone lags.
#[test]
fn tiles_of_16_agree() {
    fn check<E: Number>(number: usize, cell: CellKind, batch: usize, direction: Direction) {
        let (lengths, resets) = (number % 4 % 2 == 1, number % 4 / 2 == 1);
        let mut layer = descriptor(cell, direction);
        layer.hidden_size = [40, 33, 64][number % 3];
        layer.padded_output = if number % 8 < 4 { PaddedOutput::Zero } else { PaddedOutput::Hold };
        let shape = RnnShape { seq_len: 6, batch };
        let start = !number.is_multiple_of(5); // initial states
        let all = Recipe { dy: true, dhn: true, dcn: true, gain: 1.0, ..Recipe::random(number as u64) };
        let recipe = Recipe { descriptor: layer.clone(), shape, lengths, resets, h0: start, c0: start, ..all };
        for groups in [1, 2] {
            if batch <= 8 * groups {
                continue;
            }
            let seed = (number + groups) as u64 % 5;
            let resident = BLOCKS * (groups * direction.count()) as u32;
            let backend = grid::<E>(resident, Schedule { seed, starve: seed > 1 });
            let what = format!("{cell} {direction:?}, {batch} sequences in {groups} groups, {}, {number}", E::DTYPE);
            let [forward, backward] = tiles(&backend, &layer, shape);
            assert_eq!((forward.0, backward.0), (16, if cell == CellKind::Lstm { 8 } else { 16 }), "{what}");
            agree(&backend, &recipe).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }

    let directions = [Direction::Forward, Direction::Reverse, Direction::Bidirectional];
    let mut number = 0;
    for batch in [9, 15, 16, 17, 31, 32, 33, 49] {
        for direction in directions {
            for cell in CELLS {
                check::<bf16>(number, cell, batch, direction);
                check::<f16>(number + 2, cell, batch, direction);
                number += 1;
            }
            number += 1; // so that a cell does not have the same options throughout
        }
    }
}

/// A sequence's results do not hang on which others are in its tile, nor on its place there: the bits are the same.
#[test]
fn places_in_a_tile_are_alike() {
    for cell in CELLS {
        let shape = RnnShape { seq_len: 6, batch: 16 };
        let layer = descriptor(cell, Direction::Bidirectional);
        let all = Recipe { h0: true, c0: true, dy: true, dhn: true, dcn: true, gain: 1.0, ..Recipe::random(3) };
        let recipe = Recipe { descriptor: layer.clone(), shape, lengths: false, resets: false, ..all };
        let problem = recipe.judged_in(DType::Bf16).problem();
        let backend = grid::<bf16>(2 * BLOCKS, Schedule::default());
        assert_eq!(tiles(&backend, &layer, shape)[0], (16, 1), "{cell}");
        // Every sequence as the first, and the first as every one.
        let mut alike = problem.inputs::<bf16>();
        let columns = |values: &mut Vec<bf16>, width: usize| {
            for row in values.chunks_mut(16 * width) {
                for b in 1..16 {
                    row.copy_within(..width, b * width);
                }
            }
        };
        columns(&mut alike.x, layer.input_size);
        for state in [&mut alike.h0, &mut alike.c0].into_iter().flatten() {
            columns(state, layer.hidden_size);
        }
        let results = run::infer(&backend, &layer, shape, &alike, &Setup::default()).expect("sound");
        for (name, values) in &results {
            let width = if name == "y" { 2 * layer.hidden_size } else { layer.hidden_size };
            for row in values.chunks(16 * width) {
                for (b, own) in row.chunks(width).enumerate() {
                    assert!(own == &row[..width], "{cell}, {name}: sequence {b} is not as the first");
                }
            }
        }
    }
}
