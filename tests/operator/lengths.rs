//! Tiles of the persistent kernels whose sequences have all ended, or in the reverse direction not begun: they cost next to nothing, and what
//! they leave is right.

use std::sync::Arc;

use crate::common::run::{self, Setup};
use crate::common::truth::Truth;
use crate::common::{Number, Problem, Recipe};
use fused_rnn::backend::HostBackend;
use fused_rnn::backend::cuda::{CudaOptions, FamilyChoice};
use fused_rnn::cell::CellKind;
use fused_rnn::rnn::{Direction, GruReset, PaddedOutput, RnnDescriptor, RnnShape};

/// A problem with these lengths.
fn problem(cell: CellKind, direction: Direction, shape: RnnShape, lengths: Vec<u32>, hold: bool) -> Problem {
    let mut descriptor = RnnDescriptor::new(cell, 3, 40);
    descriptor.direction = direction;
    descriptor.reset = GruReset::After;
    descriptor.padded_output = if hold { PaddedOutput::Hold } else { PaddedOutput::Zero };
    let all = Recipe { h0: true, c0: true, dy: true, dhn: true, dcn: true, ..Recipe::random(5) };
    let mut problem = Recipe { descriptor, shape, lengths: true, resets: hold, gain: 1.0, ..all }.problem();
    problem.inputs.lengths = Some(lengths);
    problem
}

fn options(family: &str) -> CudaOptions {
    CudaOptions { family: FamilyChoice::Require(family.parse().expect("a family")), ..CudaOptions::default() }
}

/// Trains and infers, and compares with the oracle.
fn agree<E: Number, B: HostBackend<E>>(backend: &B, problem: &Problem, truth: &Truth) -> Result<(), String> {
    let (inputs, gradients) = (problem.inputs::<E>(), problem.output_gradients::<E>());
    let (d, shape) = (&problem.descriptor, problem.shape);
    let trained = run::train(backend, d, shape, &inputs, &gradients, &Setup::default()).map_err(|e| e.to_string())?;
    truth.judge_all(&trained)?;
    let inferred = run::infer(backend, d, shape, &inputs, &Setup::default()).map_err(|e| e.to_string())?;
    truth.judge_all(&inferred)
}

/// Tiles that end and begin at any step, before or after others of their group, under orders of threads in which someone lags.
#[cfg(feature = "emulated")]
#[test]
fn tiles_that_end_early_agree() {
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    use fused_rnn::backend::cuda::{CudaBackend, Staged};

    fn check<E: Number>(family: &str, problem: &Problem, seed: u64) {
        let truth = Truth::of(problem).expect("no kinks");
        // Groups of one tile; and all tiles of a direction in one group, or nearly.
        for resident in [64, if family == "grid" { 8 } else { 4 }] {
            let schedule = Schedule { seed, starve: seed > 1 };
            let device = Arc::new(Emulated::new(schedule).expect("valid").with_resident_limit(resident));
            let backend = CudaBackend::<E, _>::with_options(device, EmulatedStream, options(family));
            agree(&Staged::new(backend), problem, &truth).unwrap_or_else(|what| {
                let (d, lengths) = (&problem.descriptor, &problem.inputs.lengths);
                panic!("{family}, {resident} resident, {seed}, {} {:?} {lengths:?}: {what}", d.cell, d.padded_output)
            });
        }
    }

    // The longest of each tile: in order, in reverse order, the same, all at the first step but one.
    let longest: [[u32; 3]; 5] = [[6, 4, 1], [2, 5, 6], [3, 3, 3], [1, 1, 1], [1, 5, 1]];
    for (index, longest) in longest.into_iter().enumerate() {
        // Three tiles of 8 sequences or of 16, of which three are in the last.
        let lengths = [8, 16].map(|tile| {
            let longest =
                (0..2 * tile + 3).map(|b| longest[b as usize / tile as usize].min(1 + (b * 5 + 5) % 6).max(1));
            longest.collect::<Vec<u32>>()
        });
        for (number, cell) in [CellKind::Rnn, CellKind::Lstm, CellKind::Gru].into_iter().enumerate() {
            let hold = (index + number) % 2 == 0;
            let seed = (index + number) as u64;
            let [small, large] = lengths.clone().map(|lengths| {
                let shape = RnnShape { seq_len: 6, batch: lengths.len() };
                let exact = problem(cell, Direction::Bidirectional, shape, lengths.clone(), hold);
                let mut rounded = exact.recipe.clone().judged_in(fused_rnn::DType::Bf16).problem();
                rounded.inputs.lengths = Some(lengths);
                (exact, rounded)
            });
            check::<f32>("block", &small.0, seed);
            check::<f32>("grid", &small.0, seed);
            for family in ["block", "cluster", "grid"] {
                check::<half::bf16>(family, &small.1, seed);
            }
            check::<half::bf16>("grid", &large.1, seed);
        }
    }
}

/// Instructions of the shipped PTX, forward and backward: what lengths of half the steps, or one of two tiles that ends at once, cost beside full ones, with
/// what does not depend on lengths taken off.
#[cfg(feature = "ptx")]
#[test]
fn ended_tiles_cost_next_to_nothing() {
    use fused_rnn::backend::cuda::ptx::{Ptx, PtxStream, Schedule};
    use fused_rnn::backend::cuda::{CudaBackend, Staged};

    /// `names`: what follows the family in the names of the kernels, forward and backward. `tile`: sequences that end together.
    fn check<E: Number>(family: &str, names: [&str; 2], tile: usize, direction: Direction, resident: u32) {
        let [forward, backward] = names;
        let kernels = [("forward", forward), ("backward", backward)]
            .map(|(pass, name)| format!("persistent_{pass}_lstm_{}_{family}_{name}", E::DTYPE));
        let shape = RnnShape { seq_len: 16, batch: 2 * tile };
        let count = |lengths: [u32; 2]| -> [f64; 2] {
            let lengths = (0..2 * tile).map(|b| lengths[b / tile]).collect();
            let problem = problem(CellKind::Lstm, direction, shape, lengths, false);
            let device = Ptx::new(Schedule::default()).expect("valid").with_resident_limit(resident);
            let device = Arc::new(device);
            let backend = CudaBackend::<E, _>::with_options(Arc::clone(&device), PtxStream, options(family));
            let (inputs, gradients) = (problem.inputs::<E>(), problem.output_gradients::<E>());
            let setup = Setup::default();
            run::train(&Staged::new(backend), &problem.descriptor, shape, &inputs, &gradients, &setup).expect("sound");
            kernels.each_ref().map(|name| device.executed(name) as f64)
        };
        let [short, half, one, full] = [[1, 1], [8, 8], [1, 16], [16, 16]].map(count);
        for pass in 0..2 {
            let share = |some: [f64; 2]| (some[pass] - short[pass]) / (full[pass] - short[pass]);
            let name = &kernels[pass];
            println!(
                "{name} {direction:?}, {resident} resident: all at 1 {}, half {:.2}, one tile {:.2} of {}",
                short[pass],
                share(half),
                share(one),
                full[pass]
            );
            assert!(share(half) < 0.6 && share(one) < 0.7, "{name}: {} {}", share(half), share(one));
            assert!(short[pass] < 0.4 * full[pass], "{name}: {} of {}", short[pass], full[pass]);
        }
    }

    if crate::common::ptx::ptx(0).is_none() {
        return;
    }
    for direction in [Direction::Forward, Direction::Reverse] {
        check::<half::bf16>("block", ["64"; 2], 8, direction, 64);
        check::<half::bf16>("cluster", ["512"; 2], 8, direction, 64);
        // Both tiles in one group, backward as four of 8 sequences; or each in a group of its own.
        check::<half::bf16>("grid", ["1024_16", "1024"], 16, direction, 4);
        check::<half::bf16>("grid", ["1024"; 2], 8, direction, 8);
        check::<f32>("grid", ["512"; 2], 8, direction, 64);
    }
}
