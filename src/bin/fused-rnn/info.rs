//! `fused-rnn info`: what this build and this machine can do.

use std::process::ExitCode;

use fused_rnn::backend::Longest;
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::cell::CellKind;
use fused_rnn::{DType, Result};

use crate::descriptor_args::DescriptorArgs;
use crate::longest::{self, MemorySize};
use crate::output::print;

/// Say what this build and this machine can do.
#[derive(clap::Args)]
pub struct Args {
    /// List every compiled kernel, with its registers on each architecture.
    #[arg(long)]
    kernels: bool,
    /// Say how the CUDA backend would compute the operator that the flags below describe.
    #[arg(long)]
    plan: bool,
    /// Say how long sequences of the operator that the flags below describe may be so that training fits this memory: bytes, or as
    /// 16GiB; --seq-len does not count.
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,
    /// --plan, --memory: element type: f32, f64, f16 or bf16.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: DType,
    /// --plan: multiply f32 on tensor cores, operands rounded to 10 bits.
    #[arg(long)]
    tf32: bool,
    /// --plan: block, cluster, grid or step, where it can take the operator [default: the fastest].
    #[arg(long, value_name = "FAMILY")]
    family: Option<String>,
    /// --plan: what computes large matrix products: kernels or cublaslt, which needs a GPU of this machine (--gpu).
    #[arg(long, default_value = "kernels")]
    matmul: String,
    /// --plan: for GPU number N of this machine, rather than for a usual one of --compute.
    #[arg(long, value_name = "N")]
    gpu: Option<usize>,
    /// --plan, --memory: compute capability of the GPU to plan for.
    #[arg(long, default_value = "9.0", value_name = "MAJOR.MINOR")]
    compute: String,
    #[command(flatten)]
    pub(crate) operator: DescriptorArgs,
}

/// The longest sequences on the usual GPU of the flags, in a build that has the backend.
pub(crate) fn longest_on_gpu(args: &Args, bytes: usize) -> Result<Option<(String, Longest)>> {
    cuda::longest(args, bytes)
}

pub fn run(args: Args) -> Result<ExitCode> {
    let cpu = CpuBackend::<f32>::new();
    let on = |enabled: bool| if enabled { "on" } else { "off" };
    let plural = if cpu.threads() == 1 { "" } else { "s" };
    print(&format!(
        "fused-rnn {version} ({arch} {os})
features   cuda {cuda_feature}, cublaslt {cublaslt_feature}, emulated {emulated_feature}, ptx {ptx_feature}, cli on
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
        cublaslt_feature = on(cfg!(feature = "cublaslt")),
        emulated_feature = on(cfg!(feature = "emulated")),
        ptx_feature = on(cfg!(feature = "ptx")),
        cells = CellKind::ALL.map(|cell| cell.spec().name).join(", "),
        isa = cpu.instruction_set(),
        threads = cpu.threads(),
        gpu = cuda::gpu().replace('\n', "\n             "),
        kernels = cuda::images(),
    ))?;
    if args.kernels {
        print(&cuda::registers())?;
    }
    if args.plan {
        print(&cuda::plan(&args)?)?;
    }
    if let Some(memory) = args.memory {
        print(&longest::report(&args, memory)?)?;
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

    pub fn longest(_: &super::Args, _: usize) -> fused_rnn::Result<Option<(String, fused_rnn::backend::Longest)>> {
        Ok(None)
    }

    pub fn plan(_: &super::Args) -> fused_rnn::Result<String> {
        Err(fused_rnn::Error::Unsupported {
            what: "--plan".to_owned(),
            why: "this build lacks the feature `cuda`; build with `--features cuda`".to_owned(),
        })
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::sync::Arc;

    use fused_rnn::backend::cuda::compile::Arch;
    use fused_rnn::backend::cuda::device::{Device as _, Properties};
    use fused_rnn::backend::cuda::driver::{Driver, DriverStream};
    use fused_rnn::backend::cuda::paper::Paper;
    use fused_rnn::backend::cuda::{
        Compute, CudaBackend, CudaOptions, FamilyChoice, ProductReport, TimeLoopReport, driver, images,
    };
    use fused_rnn::backend::{self, ForwardMode, Longest};
    use fused_rnn::{DType, Device, Element, Error, Result};

    use super::Args;

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

    /// What would run for the operator of the flags, and where.
    pub fn plan(args: &Args) -> Result<String> {
        match args.gpu {
            Some(ordinal) => {
                let driver = Driver::open(ordinal)?;
                let (properties, stream) = (driver.properties().clone(), DriverStream::new(&driver)?);
                let backend = CudaBackend::<f32, _>::with_options(driver, stream, options(args)?);
                describe(args, &Device::from(backend), &properties)
            }
            None => {
                let properties = properties(args)?;
                let paper = Arc::new(Paper::new(properties.clone()));
                let backend = CudaBackend::<f32, _>::with_options(paper, (), options(args)?);
                describe(args, &Device::of(backend), &properties)
            }
        }
    }

    /// Of the usual GPU of the flags.
    fn properties(args: &Args) -> Result<Properties> {
        let parts: Vec<u32> = args.compute.split('.').filter_map(|part| part.parse().ok()).collect();
        let &[major, minor] = parts.as_slice() else {
            return Err(Error::InvalidOption {
                option: "compute".to_owned(),
                expected: "MAJOR.MINOR, such as 9.0".to_owned(),
                got: args.compute.clone(),
            });
        };
        Properties::usual((major, minor))
    }

    /// The longest sequences of the operator of the flags on the usual GPU, and which that is.
    pub fn longest(args: &Args, bytes: usize) -> Result<Option<(String, Longest)>> {
        fn of<E: Element>(args: &Args, properties: &Properties, bytes: usize) -> Result<Longest> {
            let paper = Arc::new(Paper::new(properties.clone()));
            let backend = CudaBackend::<E, _>::with_options(paper, (), options(args)?);
            backend::longest(&backend, &args.operator.descriptor(), args.operator.batch, bytes)
        }
        let properties = properties(args)?;
        let found = match args.dtype {
            DType::F64 => of::<f64>(args, &properties, bytes),
            DType::F16 => of::<half::f16>(args, &properties, bytes),
            DType::Bf16 => of::<half::bf16>(args, &properties, bytes),
            _ => of::<f32>(args, &properties, bytes),
        }?;
        Ok(Some((format!("cuda {}", args.compute), found)))
    }

    fn options(args: &Args) -> Result<CudaOptions> {
        let family = match &args.family {
            Some(name) => FamilyChoice::Prefer(name.parse()?),
            None => FamilyChoice::Fastest,
        };
        let compute = if args.tf32 { Compute::Tf32 } else { Compute::Exact };
        Ok(CudaOptions { compute, family, matmul: args.matmul.parse()? })
    }

    fn describe(args: &Args, device: &Device, properties: &Properties) -> Result<String> {
        let device = device.with_dtype(args.dtype)?;
        let (descriptor, shape) = (args.operator.descriptor(), args.operator.shape());
        let math = if args.tf32 { "tf32".to_owned() } else { args.dtype.to_string() };
        let mut text = format!(
            "\nplan for {} {}, {} steps, batch {}, {} to {} units, {math}, on {} (compute capability {}.{}, {} multiprocessors)\n",
            if descriptor.direction.count() == 2 { "bidirectional" } else { "one-directional" },
            descriptor.cell,
            shape.seq_len,
            shape.batch,
            descriptor.input_size,
            descriptor.hidden_size,
            properties.name,
            properties.compute_capability.0,
            properties.compute_capability.1,
            properties.multiprocessors,
        );
        for (name, mode) in [("inference", ForwardMode::Inference), ("training", ForwardMode::Training)] {
            let plan = device.plan(&descriptor, shape, mode)?;
            let space = plan.temp_space();
            let bytes = |elements: usize| elements * args.dtype.size();
            let _ = writeln!(
                text,
                "{name}: workspace {} bytes, reserve {} bytes",
                bytes(space.workspace),
                bytes(space.reserve)
            );
            for time_loop in plan.time_loops() {
                text += &describe_loop(&time_loop);
            }
            for ProductReport { product, kernel, m, n, k, splits } in plan.products()? {
                let pieces = if splits > 1 { format!(", in {splits} pieces") } else { String::new() };
                let _ = writeln!(text, "  {product:<9}{kernel}: {m} x {n} of {k}{pieces}");
            }
        }
        text += "Predicted times come from a model whose constants have not been measured.\n";
        Ok(text)
    }

    fn describe_loop(time_loop: &TimeLoopReport) -> String {
        let mut text = format!(
            "  {:<9}{} family, {:.0} ns a step predicted\n           {}\n",
            time_loop.pass,
            time_loop.family,
            time_loop.predicted_ns,
            time_loop.why.replace("; ", "\n           ")
        );
        if let Some(launch) = &time_loop.persistent {
            let _ = writeln!(
                text,
                "           {}: {} blocks of {} threads{} (the GPU holds {}), {} tile{} of {} sequences each; a block keeps {} KiB of \
                 the recurrent weights, {} KiB of shared memory{}",
                launch.kernel,
                launch.blocks,
                launch.threads,
                if launch.cluster > 1 { format!(" in clusters of {}", launch.cluster) } else { String::new() },
                launch.resident_blocks,
                launch.tiles,
                if launch.tiles == 1 { "" } else { "s" },
                launch.tile_sequences,
                launch.resident_bytes / 1024,
                launch.shared_bytes / 1024,
                if launch.input_in_loop {
                    "; W x is computed in the loop, unless there are lengths or resets"
                } else {
                    ""
                },
            );
        }
        text
    }
}
