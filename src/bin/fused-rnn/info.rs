//! `fused-rnn info`: what this build and this machine can do.

use std::process::ExitCode;

use fused_rnn::Result;
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::cell::CellKind;

use crate::output::print;

/// Say what this build and this machine can do.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<ExitCode> {
    let cpu = CpuBackend::<f32>::new();
    let on = |enabled: bool| if enabled { "on" } else { "off" };
    let plural = if cpu.threads() == 1 { "" } else { "s" };
    print(&format!(
        "fused-rnn {version} ({arch} {os})
features   cuda {cuda_feature}, cli on
cells      {cells}

backends
  reference  f32, f64; the oracle: every option, one thread, no speed
  cpu        f32, f64; every option; {isa} instructions, {threads} thread{plural}
  cuda       {cuda}
",
        version = env!("CARGO_PKG_VERSION"),
        arch = std::env::consts::ARCH,
        os = std::env::consts::OS,
        cuda_feature = on(cfg!(feature = "cuda")),
        cells = CellKind::ALL.map(|cell| cell.spec().name).join(", "),
        isa = cpu.instruction_set(),
        threads = cpu.threads(),
        cuda = "being written",
    ))?;
    Ok(ExitCode::SUCCESS)
}
