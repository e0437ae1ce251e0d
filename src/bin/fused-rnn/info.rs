//! `fused-rnn info`: what this build and this machine can do.

use std::process::ExitCode;

use fused_rnn::Result;
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::cell::CellKind;

use crate::output::print;

/// Say what this build and this machine can do.
#[derive(clap::Args)]
pub struct Args {
    /// List every compiled kernel, with its registers on each architecture.
    #[arg(long)]
    kernels: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let cpu = CpuBackend::<f32>::new();
    let on = |enabled: bool| if enabled { "on" } else { "off" };
    let plural = if cpu.threads() == 1 { "" } else { "s" };
    print(&format!(
        "fused-rnn {version} ({arch} {os})
features   cuda {cuda_feature}, emulated {emulated_feature}, cli on
cells      {cells}

backends
  reference  f32, f64; the oracle: every option, one thread, no speed
  cpu        f32, f64; every option; {isa} instructions, {threads} thread{plural}
  cuda       {gpu}

kernels    {kernels}
",
        version = env!("CARGO_PKG_VERSION"),
        arch = std::env::consts::ARCH,
        os = std::env::consts::OS,
        cuda_feature = on(cfg!(feature = "cuda")),
        emulated_feature = on(cfg!(feature = "emulated")),
        cells = CellKind::ALL.map(|cell| cell.spec().name).join(", "),
        isa = cpu.instruction_set(),
        threads = cpu.threads(),
        gpu = cuda::gpu().replace('\n', "\n             "),
        kernels = cuda::images(),
    ))?;
    if args.kernels {
        print(&cuda::registers())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What to say of GPUs and kernels in a build that has neither.
#[cfg(not(feature = "cuda"))]
mod cuda {
    pub fn gpu() -> String {
        "this build lacks the feature `cuda`".to_owned()
    }

    pub fn images() -> String {
        "none".to_owned()
    }

    pub fn registers() -> String {
        String::new()
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;

    use fused_rnn::backend::cuda::compile::Arch;
    use fused_rnn::backend::cuda::{driver, images};

    /// The driver and the GPUs.
    pub fn gpu() -> String {
        driver::status()
    }

    /// Which images there are, and who made them.
    pub fn images() -> String {
        let images = images::images();
        let Some((major, minor)) = images::built_with() else {
            return "compiled at first use: libnvrtc was absent when this was built".to_owned();
        };
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let mut text = format!(
            "{} images, {:.1} MiB ({:.1} MiB in the program), made by NVRTC {major}.{minor}",
            images.len(),
            mib(images.iter().map(|image| image.size()).sum()),
            mib(images.iter().map(|image| image.packed_size()).sum()),
        );
        for arch in images.iter().map(|image| image.arch()).collect::<BTreeSet<_>>() {
            let of_arch: Vec<_> = images.iter().filter(|image| image.arch() == arch).collect();
            let entries = || of_arch.iter().flat_map(|image| image.entries());
            let spilled = entries().filter(|entry| entry.resources.spill_stores + entry.resources.spill_loads > 0);
            let _ = write!(
                text,
                "\n  {:<11}{:>4} entry points in {} images; up to {} registers, {} spill",
                arch.to_string(),
                entries().count(),
                of_arch.len(),
                entries().map(|entry| entry.resources.registers).max().unwrap_or(0),
                spilled.count(),
            );
        }
        text
    }

    /// A table: registers of every entry point on every architecture; local memory after a `+`, bytes.
    pub fn registers() -> String {
        let mut table = BTreeMap::<&str, BTreeMap<Arch, String>>::new();
        for image in images::images() {
            for entry in image.entries() {
                let local = entry.resources.stack_bytes;
                let mut cell = entry.resources.registers.to_string();
                if local > 0 {
                    let _ = write!(cell, "+{local}");
                }
                table.entry(&entry.name).or_default().insert(image.arch(), cell);
            }
        }
        let archs: BTreeSet<Arch> = images::images().iter().map(|image| image.arch()).collect();
        let width = table.keys().map(|name| name.len()).max().unwrap_or(0);
        let mut text = format!("\n{:width$}", "registers");
        for arch in &archs {
            let _ = write!(text, "{:>12}", arch.to_string());
        }
        text.push('\n');
        for (name, cells) in &table {
            let _ = write!(text, "{name:width$}");
            for arch in &archs {
                let _ = write!(text, "{:>12}", cells.get(arch).map_or("-", String::as_str));
            }
            text.push('\n');
        }
        text
    }
}
