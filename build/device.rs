//! The images for GPUs, and their index.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::catalog;
use crate::compile::{Arch, Failure, Job, Output, Sources, TARGETS, Unit, parallel, write_whole};
use crate::nvrtc::{self, Nvrtc, NvrtcError};

/// A variable that cargo shall watch.
pub fn variable(name: &str) -> Option<OsString> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Whether a variable is set to `1`.
pub fn switched_on(name: &str) -> bool {
    variable(name).is_some_and(|value| value == "1")
}

/// A variable that cargo always sets.
pub fn cargo_variable(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {name}"))
}

/// The folder where results are kept.
pub fn cache() -> Result<PathBuf, String> {
    let folder = match variable("FUSED_RNN_KERNEL_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => cargo_variable("OUT_DIR")?.join("kernel-cache"),
    };
    fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    Ok(folder)
}

/// How many compilations may run at a time.
pub fn threads() -> usize {
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

pub fn build() -> Result<(), String> {
    let folder = cargo_variable("CARGO_MANIFEST_DIR")?.join("kernels");
    println!("cargo::rerun-if-changed={}", folder.display());
    nvrtc::VARIABLES.iter().for_each(|name| drop(variable(name)));
    let required = switched_on("FUSED_RNN_REQUIRE_NVRTC");
    let targets = targets()?;
    let sources = Sources::read(&folder).map_err(|error| format!("cannot read the kernels: {error}"))?;

    let nvrtc = match Nvrtc::find() {
        Ok(nvrtc) => Some(nvrtc),
        Err(error @ NvrtcError::NotFound(_)) if !required => {
            println!(
                "cargo::warning=CUDA kernels are not compiled now but at first use, for want of libnvrtc: {error}. \
                 Then build again (setting NVRTC_PATH is enough to make cargo look)."
            );
            None
        }
        Err(error) => return Err(format!("CUDA kernels cannot be compiled: {error}")),
    };
    let units = Unit::all(catalog::entries());
    let images = match &nvrtc {
        Some(nvrtc) => {
            println!("cargo::rerun-if-changed={}", nvrtc.path().display());
            compile(nvrtc, &units, &known(&targets, nvrtc), &sources)?
        }
        None => Vec::new(),
    };
    index(nvrtc.as_ref(), &images, &sources, &folder)
}

fn targets() -> Result<Vec<Arch>, String> {
    let listed = variable("FUSED_RNN_CUDA_ARCHS").map(|list| list.to_string_lossy().into_owned());
    let mut list = listed.unwrap_or_else(|| TARGETS.join(","));
    // For the interpreter: the PTX that the machine code of the GPU which it stands for is made from. It is compiled anyway.
    if cfg!(feature = "ptx") && list.contains("sm_90a") {
        list += ",compute_90a";
    }
    let parse = |name: &str| name.trim().parse().map_err(|error| format!("FUSED_RNN_CUDA_ARCHS: {error}"));
    list.split(',').map(parse).collect()
}

/// The targets without those that this libnvrtc does not know, which is said.
fn known(targets: &[Arch], nvrtc: &Nvrtc) -> Vec<Arch> {
    let (known, unknown): (Vec<Arch>, Vec<Arch>) =
        targets.iter().partition(|target| nvrtc.architectures().contains(&target.compute));
    if !unknown.is_empty() {
        let (major, minor) = nvrtc.version();
        let unknown: Vec<_> = unknown.iter().map(Arch::to_string).collect();
        println!(
            "cargo::warning=libnvrtc {major}.{minor} ({}) does not know {}: no images for it",
            nvrtc.path().display(),
            unknown.join(", ")
        );
    }
    known
}

/// An image to embed.
struct Built {
    unit: String,
    arch: Arch,
    output: Output,
}

impl Built {
    /// What a device loads, and the extension of a file with it.
    fn code(&self) -> (&str, &[u8]) {
        let compiled = &self.output.compiled;
        if self.arch.machine { ("cubin", &compiled.cubin) } else { ("ptx", &compiled.ptx) }
    }
}

fn compile(nvrtc: &Nvrtc, units: &[Unit], targets: &[Arch], sources: &Sources) -> Result<Vec<Built>, String> {
    let start = Instant::now();
    let cache = cache()?;
    let jobs: Vec<Job<'_>> = units.iter().flat_map(|unit| Job::plan(unit, targets)).collect();
    let results = parallel(&jobs, threads(), |job| job.run(nvrtc, sources, Some(&cache)));

    let (mut images, mut failures, mut warnings) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (job, result) in jobs.iter().zip(results) {
        match result {
            Ok(output) => {
                warnings.extend(output.warnings.iter().map(|line| format!("{}: {line}", job.unit.name)));
                for (wanted, machine) in [(job.cubin, true), (job.ptx, false)] {
                    if wanted {
                        let arch = Arch { machine, ..job.arch };
                        images.push(Built { unit: job.unit.name.clone(), arch, output: output.clone() });
                    }
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    if !failures.is_empty() {
        return Err(described(&failures));
    }
    warnings.iter().for_each(|line| println!("cargo::warning={line}"));
    let made = images.iter().filter(|image| !image.output.reused).count();
    // Not shown, but in the build script's output.
    println!("{} images, {made} of them made now, in {:.1} s", images.len(), start.elapsed().as_secs_f64());
    if !cache.starts_with(cargo_variable("OUT_DIR")?) {
        return Ok(images);
    }
    // A cache that is this build's own is not to grow for ever.
    let current: BTreeSet<_> = images.iter().map(|image| image.output.cache_name.as_str()).collect();
    for file in fs::read_dir(&cache).into_iter().flatten().flatten().map(|file| file.path()) {
        let is = |extensions: &[&str]| file.extension().is_some_and(|e| extensions.iter().any(|known| e == *known));
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        if is(&["ptx", "cubin", "log"]) && !current.contains(stem.as_ref()) {
            // It is in nobody's way if it stays.
            let _ = fs::remove_file(&file);
        }
    }
    Ok(images)
}

/// Failures as people read them. What is wrong in one unit on one architecture is so in most: it is shown once.
fn described(failures: &[Failure]) -> String {
    // NVRTC ends its log with the unit's name.
    let essence = |failure: &Failure| failure.problem.lines().take(2).map(str::to_owned).collect::<Vec<_>>();
    let mut seen = BTreeMap::<Vec<String>, Vec<&Failure>>::new();
    failures.iter().for_each(|failure| seen.entry(essence(failure)).or_default().push(failure));
    let mut text = String::new();
    for alike in seen.values() {
        let [first, rest @ ..] = alike.as_slice() else { continue };
        let _ = writeln!(text, "{first}");
        if !rest.is_empty() {
            let rest: Vec<_> = rest.iter().map(|failure| format!("{} for {}", failure.unit, failure.arch)).collect();
            let _ = writeln!(text, "The same holds of {}.", rest.join(", "));
        }
    }
    text
}

/// How hard images are packed: the level beyond which packing, in a build script that is not optimised, takes long.
const PACKING: u8 = 3;

/// `images.rs` in `OUT_DIR`, which the library includes.
fn index(nvrtc: Option<&Nvrtc>, images: &[Built], sources: &Sources, folder: &Path) -> Result<(), String> {
    let out = cargo_variable("OUT_DIR")?;
    let embedded = out.join("images");
    fs::create_dir_all(&embedded).map_err(|error| format!("cannot create {}: {error}", embedded.display()))?;
    let paths = parallel(images, threads(), |image| {
        let (extension, bytes) = image.code();
        // The name says what is in it: what is there need not be packed again.
        let path = embedded.join(format!("{}.{extension}.z", image.output.cache_name));
        if path.is_file() {
            return Ok(path);
        }
        let packed = miniz_oxide::deflate::compress_to_vec(bytes, PACKING);
        write_whole(&path, &packed).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(path)
    });
    let paths: Vec<PathBuf> = paths.into_iter().collect::<Result<_, String>>()?;
    for file in fs::read_dir(&embedded).into_iter().flatten().flatten().map(|file| file.path()) {
        if !paths.contains(&file) {
            // It is in nobody's way if it stays.
            let _ = fs::remove_file(&file);
        }
    }

    let mut text = String::from("// Generated by build.rs.\n");
    let _ = writeln!(text, "const BUILT_WITH: Option<(u32, u32)> = {:?};", nvrtc.map(Nvrtc::version));
    let _ = writeln!(text, "const SOURCE_FILES: &[(&str, &str)] = &[");
    for (name, _) in sources.iter() {
        let _ = writeln!(text, "    ({name:?}, include_str!({:?})),", folder.join(name));
    }
    let _ = writeln!(text, "];\nstatic IMAGES: [Image; {}] = [", images.len());
    for (image, path) in images.iter().zip(&paths) {
        let Built { unit, arch, output } = image;
        let size = image.code().1.len();
        let _ = writeln!(text, "    Image {{\n        unit: Cow::Borrowed({unit:?}),\n        arch: {arch:?},");
        let _ = writeln!(text, "        entries: Cow::Borrowed(&[");
        for (name, resources) in &output.resources {
            let _ =
                writeln!(text, "            ImageEntry {{ name: Cow::Borrowed({name:?}), resources: {resources:?} }},");
        }
        let _ = writeln!(text, "        ]),\n        size: {size},\n        packed: include_bytes!({path:?}),");
        let _ = writeln!(text, "        unpacked: OnceLock::new(),\n    }},");
    }
    text += "];\n";
    let path = out.join("images.rs");
    write_whole(&path, text.as_bytes()).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
