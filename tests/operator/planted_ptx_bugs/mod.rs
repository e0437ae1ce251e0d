//! Planted bugs in PTX: each entry of `list.rs` changes a few lines of a kernel's PTX, which the interpreter then runs. What its checks and the comparison with
//! the oracle do not notice there, they would not notice in earnest.
//!
//! ```text
//! cargo test --features ptx --test operator -- --ignored --nocapture planted_ptx_bugs_are_caught
//! ```
//!
//! Prints caught or survived for each bug, what found it, and the score; fails where a bug survives. `FUSED_RNN_PLANTED_BUGS=text` plants only bugs whose
//! kernel or description contains the text.

mod list;

use std::io::Write;
use std::sync::Arc;

use crate::common::primitives;
use crate::common::run::{self, Setup};
use crate::common::truth::settled;
use crate::common::{Number, Recipe};
use fused_rnn::backend::cuda::images;
use fused_rnn::backend::cuda::ptx::{self, Ptx, PtxStream, Schedule};
use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, FamilyChoice, Staged};
use fused_rnn::rnn::{RnnDescriptor, RnnShape};
use list::{Edit, PTX_BUGS, PtxBug, Subject};

/// Orders of warps that are tried in turn.
const SEEDS: [u64; 4] = [0, 1, 2, 3];

/// A module in which lines of the kernel are changed; nothing where a line is not there.
fn damaged(module: &str, kernel: &str, edits: &[Edit]) -> Option<String> {
    let start = module.find(&format!(".entry {kernel}("))?;
    let end = start + module[start..].find("\n}\n")?;
    let mut lines: Vec<String> = module[start..end].lines().map(str::to_owned).collect();
    for edit in edits {
        let (Edit::Drop(mark, _)
        | Edit::DropAll(mark)
        | Edit::Replace(mark, ..)
        | Edit::ReplaceAll(mark, ..)
        | Edit::Swap(mark, ..)
        | Edit::Operand(mark, ..)) = *edit;
        let found: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].contains(mark)).collect();
        let of = |nth: usize| found.get(nth).copied();
        match *edit {
            Edit::Drop(_, nth) => lines[of(nth)?].clear(),
            Edit::DropAll(_) if found.is_empty() => return None,
            Edit::DropAll(_) => found.iter().for_each(|line| lines[*line].clear()),
            Edit::Replace(_, nth, from, to) => replace(&mut lines[of(nth)?], from, to)?,
            Edit::ReplaceAll(_, from, to) => {
                found.first()?;
                for line in found {
                    replace(&mut lines[line], from, to)?;
                }
            }
            Edit::Swap(_, nth, [a, b]) => {
                let line = &mut lines[of(nth)?];
                let ((a, first), (b, second)) = (register(line, a)?, register(line, b)?);
                let text =
                    format!("{}{second}{}{first}{}", &line[..a], &line[a + first.len()..b], &line[b + second.len()..]);
                *line = text;
            }
            Edit::Operand(_, nth, index, to) => {
                let line = &mut lines[of(nth)?];
                let (at, name) = register(line, index)?;
                line.replace_range(at..at + name.len(), to);
            }
        }
    }
    Some(format!("{}{}{}", &module[..start], lines.join("\n"), &module[end..]))
}

fn replace(line: &mut String, from: &str, to: &str) -> Option<()> {
    line.contains(from).then(|| *line = line.replacen(from, to, 1))
}

/// A register of a line, and where it stands.
fn register(line: &str, index: usize) -> Option<(usize, String)> {
    let (at, _) = line.match_indices('%').nth(index)?;
    let len = line[at + 1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(line.len() - at - 1);
    Some((at, line[at..=at + len].to_owned()))
}

/// Several blocks, a second tile of sequences, padding. Sequences of one length have an input of one number, whose time loop is the first in a kernel.
fn recipe(lengths: bool) -> Recipe {
    let mut descriptor = RnnDescriptor::lstm(if lengths { 5 } else { 1 }, 40);
    descriptor.num_layers = 1;
    Recipe {
        descriptor,
        shape: RnnShape { seq_len: 6, batch: 9 },
        lengths,
        resets: false,
        gain: 1.0,
        dy: true,
        ..Recipe::random(3)
    }
}

fn look_at<E: Number>(device: Arc<Ptx>, family: &str) -> Result<(), String> {
    let family = FamilyChoice::Require(family.parse().expect("a family's name"));
    let options = CudaOptions { family, ..CudaOptions::default() };
    let backend = Staged::new(CudaBackend::<E, _>::with_options(device, PtxStream, options));
    for lengths in [false, true] {
        let (problem, truth) = &*settled(&recipe(lengths).judged_in(E::DTYPE));
        let (inputs, gradients) = (problem.inputs::<E>(), problem.output_gradients::<E>());
        let results = run::train(&backend, &problem.descriptor, problem.shape, &inputs, &gradients, &Setup::default())
            .map_err(|e| e.to_string())?;
        truth.judge_all(&results)?;
    }
    Ok(())
}

/// What is found in a kernel's PTX under any order of warps.
fn look(kernel: &str, module: &str, subject: Subject) -> Result<(), String> {
    for seed in SEEDS {
        let device =
            Ptx::new(Schedule { seed }).expect("valid").with_kernel(kernel, module).map_err(|e| e.to_string())?;
        let device = Arc::new(device);
        match subject {
            Subject::Bf16(family) => look_at::<half::bf16>(device, family)?,
            Subject::F32(family) => look_at::<f32>(device, family)?,
            Subject::Primitive => {
                for case in primitives::cases().iter().filter(|case| case.kernel == kernel) {
                    case.check(&case.run(&device, &PtxStream).map_err(|e| e.to_string())?)?;
                }
            }
        }
    }
    Ok(())
}

fn module(kernel: &str) -> &'static str {
    ptx::source(kernel, (9, 0)).expect("PTX of the build, or libnvrtc")
}

/// Version of libnvrtc whose PTX has the lines of `list.rs`.
const NVRTC: (u32, u32) = (12, 9);

#[test]
fn every_ptx_bug_can_be_planted() {
    if images::built_with() != Some(NVRTC) {
        assert!(std::env::var_os("FUSED_RNN_REQUIRE_NVRTC").is_none(), "not built with libnvrtc {NVRTC:?}");
        let with = images::built_with();
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED every_ptx_bug_can_be_planted: built with libnvrtc {with:?}, not {NVRTC:?}"
        );
        return;
    }
    for PtxBug { what, kernel, edits, .. } in PTX_BUGS {
        let damaged =
            damaged(module(kernel), kernel, edits).unwrap_or_else(|| panic!("{kernel}, {what}: no such line"));
        assert_ne!(damaged, module(kernel), "{kernel}, {what}");
    }
    assert!(PTX_BUGS.len() >= 30);
}

#[test]
#[ignore = "takes a minute"]
fn planted_ptx_bugs_are_caught() {
    let wanted = std::env::var("FUSED_RNN_PLANTED_BUGS").unwrap_or_default();
    let bugs: Vec<&PtxBug> =
        PTX_BUGS.iter().filter(|bug| bug.kernel.contains(&wanted) || bug.what.contains(&wanted)).collect();
    let sound: std::collections::BTreeSet<_> = bugs.iter().map(|bug| (bug.kernel, bug.subject)).collect();
    for (kernel, subject) in sound {
        look(kernel, module(kernel), subject)
            .unwrap_or_else(|what| panic!("{kernel} fails without a planted bug: {what}"));
    }
    let mut survived = Vec::new();
    for bug in &bugs {
        let damaged = damaged(module(bug.kernel), bug.kernel, bug.edits).expect("checked by another test");
        match look(bug.kernel, &damaged, bug.subject) {
            Ok(()) => {
                println!("SURVIVED  {}: {}", bug.kernel, bug.what);
                survived.push(bug.what);
            }
            Err(what) => {
                println!("caught    {}: {}  ({})", bug.kernel, bug.what, what.chars().take(160).collect::<String>())
            }
        }
    }
    println!("{} of {} planted PTX bugs caught", bugs.len() - survived.len(), bugs.len());
    assert!(survived.is_empty(), "{survived:?}");
}
