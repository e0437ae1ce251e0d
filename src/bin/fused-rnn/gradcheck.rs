//! `fused-rnn gradcheck`: finite differences on an operator given by flags.

use std::process::ExitCode;
use std::str::FromStr;

use clap::ValueEnum;
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::gradcheck::{GradCheck, GradReport, OptionalTensors, SequenceLengths};
use fused_rnn::{Error, Result};

use crate::descriptor_args::DescriptorArgs;
use crate::output::print;

/// Whose gradients to check.
#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// The oracle.
    Reference,
    /// The fast CPU backend.
    Cpu,
}

/// Draws a random problem, and compares the gradient of every element of every input and weight with a central difference
/// quotient of sixth order, in f64. Exit code 0: they agree; 1: they do not; 2: it could not be tried.
#[derive(clap::Args)]
pub struct Args {
    /// Length of each sequence, as 5,3,1, or `random`
    #[arg(long, value_name = "LENGTHS", help_heading = "Tensors")]
    lengths: Option<Lengths>,
    /// Re-initialise the state at random steps
    #[arg(long, help_heading = "Tensors")]
    resets: bool,
    /// Give no initial output state
    #[arg(long, help_heading = "Tensors")]
    no_h0: bool,
    /// Give no initial cell state
    #[arg(long, help_heading = "Tensors")]
    no_c0: bool,
    /// Give no gradient of the output
    #[arg(long, help_heading = "Tensors")]
    no_dy: bool,
    /// Give no gradient of the final output state
    #[arg(long, help_heading = "Tensors")]
    no_dhn: bool,
    /// Give no gradient of the final cell state
    #[arg(long, help_heading = "Tensors")]
    no_dcn: bool,
    /// Whose gradients to check
    #[arg(long, value_enum, default_value = "reference")]
    backend: Backend,
    /// Seed of every random value
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Largest relative error that passes
    #[arg(long, default_value_t = 1e-6)]
    tolerance: f64,
    #[command(flatten)]
    operator: DescriptorArgs,
}

#[derive(Clone)]
struct Lengths(SequenceLengths);

impl FromStr for Lengths {
    type Err = String;

    fn from_str(given: &str) -> std::result::Result<Self, String> {
        if given == "random" {
            return Ok(Lengths(SequenceLengths::Random));
        }
        let parse = |length: &str| length.trim().parse().map_err(|_| format!("{length:?} is not a length"));
        given.split(',').map(parse).collect::<std::result::Result<_, _>>().map(|l| Lengths(SequenceLengths::Given(l)))
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    if !(args.tolerance.is_finite() && args.tolerance > 0.0) {
        return Err(Error::InvalidOption {
            option: "tolerance".to_owned(),
            expected: "a finite number above zero".to_owned(),
            got: args.tolerance.to_string(),
        });
    }
    let check = GradCheck {
        descriptor: args.operator.descriptor(),
        shape: args.operator.shape(),
        optional: OptionalTensors {
            h0: !args.no_h0,
            c0: !args.no_c0,
            lengths: args.lengths.map_or(SequenceLengths::Full, |lengths| lengths.0),
            resets: args.resets,
            dy: !args.no_dy,
            dhn: !args.no_dhn,
            dcn: !args.no_dcn,
        },
        seed: args.seed,
    };
    let report = match args.backend {
        Backend::Reference => check.run(&ReferenceBackend::new())?,
        Backend::Cpu => check.run(&CpuBackend::new())?,
    };
    print(&table(&report, args.tolerance))?;
    Ok(if report.passes(args.tolerance) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn table(report: &GradReport, tolerance: f64) -> String {
    let width = report.tensors.iter().map(|t| t.name.len()).max().unwrap_or(0).max("tensor".len());
    let mut table =
        format!("{:width$}  {:>8}  {:>16}  worst relative error\n", "tensor", "elements", "largest gradient");
    for t in &report.tensors {
        table += &format!("{:width$}  {:>8}  {:>16.3e}  {:.2e}", t.name, t.elements, t.largest, t.worst_relative_error);
        if t.worst_relative_error > tolerance {
            table += &format!("  at element {}: {:e}, by differences {:e}", t.worst_index, t.analytic, t.numeric);
        }
        if t.kinks > 0 {
            table += &format!("  {} elements at a kink; try another seed", t.kinks);
        }
        table.push('\n');
    }
    let verdict = if report.passes(tolerance) { "PASS" } else { "FAIL" };
    let worst = report.worst().map_or(String::new(), |t| format!("{:.2e} in {}", t.worst_relative_error, t.name));
    let redraws = report.redraws;
    table += &format!(
        "{verdict}  worst {worst}, tolerance {tolerance:e}, problems drawn again because of kinks: {redraws}\n"
    );
    table
}
