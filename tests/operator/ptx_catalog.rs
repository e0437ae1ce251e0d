//! Every persistent kernel of the catalog as PTX, the large ones at layers that no smaller one takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::run::{self, Setup};
use crate::common::truth::Truth;
use crate::common::{Number, Recipe, ptx};
use fused_rnn::backend::cuda::ptx::{Ptx, PtxStream, Schedule};
use fused_rnn::backend::cuda::{Compute, CudaBackend, CudaOptions, FamilyChoice, Staged};
use fused_rnn::cell::CellKind;
use fused_rnn::rnn::{Direction, GruReset, RnnDescriptor, RnnShape};

const CELLS: [CellKind; 3] = [CellKind::Rnn, CellKind::Lstm, CellKind::Gru];
/// Blocks of a group of a layer of 33 units in the grid family.
const GROUP: u32 = 4;

/// The names of all, from the table of their machine code, which is compared with the catalog in CI.
fn catalog() -> BTreeSet<&'static str> {
    let table = include_str!("../../benches/machine_code/loops.tsv");
    let names = table.lines().skip(1).filter_map(|line| line.split('\t').next());
    // Rows of a kernel's loop for an input of one number.
    names.filter(|name| !name.ends_with(" one input")).collect()
}

/// Trains a layer of this family with every cell, in numbers judged as `J`, and tells which kernels of `all` ran.
fn run<E: Number, J: Number>(
    family: &str,
    (hidden_size, batch): (usize, usize),
    compute: Compute,
    all: &BTreeSet<&'static str>,
) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    // A large layer has 66 to 130 blocks, all resident at once. Of more than 8 sequences, one group of a small one.
    let resident = if batch > 8 { GROUP } else { 160 };
    let device = Ptx::new(Schedule { seed: hidden_size as u64 }).expect("valid").with_resident_limit(resident);
    let device = Arc::new(device);
    let family = FamilyChoice::Require(family.parse().expect("a family"));
    let options = CudaOptions { family, compute, ..CudaOptions::default() };
    let backend = Staged::new(CudaBackend::<E, _>::with_options(Arc::clone(&device), PtxStream, options));
    for cell in CELLS {
        let mut descriptor = RnnDescriptor::new(cell, 2, hidden_size);
        (descriptor.direction, descriptor.reset) = (Direction::Forward, GruReset::After);
        let shape = RnnShape { seq_len: 3, batch };
        let given = Recipe { h0: true, c0: true, dy: true, dhn: true, dcn: true, ..Recipe::random(5) };
        let gain = 0.5;
        let recipe = Recipe { descriptor, shape, lengths: false, resets: false, gain, ..given };
        let problem = recipe.judged_in(J::DTYPE).problem();
        let truth = Truth::of(&problem).expect("no kinks");
        let (inputs, gradients) = (problem.inputs::<E>(), problem.output_gradients::<E>());
        let results = run::train(&backend, &problem.descriptor, shape, &inputs, &gradients, &Setup::default());
        let what = format!("{cell} with {hidden_size} units, {batch} sequences, {family:?}, {}", E::DTYPE);
        let results = results.unwrap_or_else(|error| panic!("{what}: {error}"));
        let judged = |values: &Vec<E>| values.iter().map(|value| J::of(value.wide())).collect::<Vec<J>>();
        let judged = results.iter().map(|(name, values)| (name.clone(), judged(values))).collect();
        truth.judge_all(&judged).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    seen.extend(all.iter().filter(|name| device.executed(name) > 0));
    seen
}

#[test]
fn every_persistent_kernel_runs() {
    use half::{bf16, f16};

    if ptx::ptx(0).is_none() {
        return;
    }
    let (all, exact) = (catalog(), Compute::Exact);
    let mut seen = BTreeSet::new();
    // One unit more than the capacity of the kernel before in the catalog; in a group that has tiles of 16, one sequence less, none and more.
    for (family, sizes) in [
        ("block", (33, 2)),
        ("block", (65, 2)),
        ("cluster", (33, 2)),
        ("grid", (33, 2)),
        ("grid", (1025, 2)),
        ("grid", (33, 15)),
        ("grid", (33, 16)),
        ("grid", (33, 19)),
    ] {
        seen.extend(run::<bf16, bf16>(family, sizes, exact, &all));
        seen.extend(run::<f16, f16>(family, sizes, exact, &all));
    }
    for (family, hidden_size) in [("block", 33), ("grid", 33), ("grid", 513)] {
        seen.extend(run::<f32, f32>(family, (hidden_size, 2), exact, &all));
    }
    // Operands are rounded to as many bits as f16 has.
    seen.extend(run::<f32, f16>("grid", (33, 2), Compute::Tf32, &all));
    let missing: Vec<_> = all.difference(&seen).collect();
    assert!(missing.is_empty() && all.len() > 80, "{missing:?} of {} kernels did not run", all.len());
}
