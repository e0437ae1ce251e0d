//! Kernels become images: a small unit through libnvrtc, what is wrong with one is said, and only what changed is made again.
//!
//! Where libnvrtc is absent these tests say so and pass; `FUSED_RNN_REQUIRE_NVRTC=1`, as in CI, makes that a failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Output as Finished};

use fused_rnn::backend::cuda::catalog::{self, Entry};
use fused_rnn::backend::cuda::compile::{Arch, Failure, Job, Output, Sources, TARGETS, Unit, parallel};
use fused_rnn::backend::cuda::images;
use fused_rnn::backend::cuda::nvrtc::{Nvrtc, NvrtcError};

const PRIMS: &str = r#"#pragma once
#define KERNEL(name, Params, threads, body) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Params p) { body }
"#;
const SCALE: &str = r#"#pragma once
#include "../prims.cuh"
struct ScaleParams { const void* from; void* to; float factor; };
"#;
const TINY: &str = r#"#include "prims.cuh"
#include "parts/scale.cuh"
template <typename E> __device__ void scale(const ScaleParams& p) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    static_cast<E*>(p.to)[i] = static_cast<const E*>(p.from)[i] * E(p.factor);
}
"#;

/// `None`, said loudly, where there is no libnvrtc and none is demanded.
fn nvrtc() -> Option<Nvrtc> {
    match Nvrtc::find() {
        Ok(nvrtc) => Some(nvrtc),
        Err(error @ NvrtcError::NotFound(_)) if std::env::var_os("FUSED_RNN_REQUIRE_NVRTC").is_none() => {
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn entry(name: &str, source: &'static str, body: &str, dtype: &'static str, min_compute: u32) -> Entry {
    Entry {
        name: name.into(),
        source,
        params: "ScaleParams",
        body: body.into(),
        threads: 256,
        min_compute,
        cell: "",
        dtype,
        variant: String::new(),
    }
}

fn sources(tiny: &str) -> Sources {
    Sources::new([("prims.cuh", PRIMS), ("parts/scale.cuh", SCALE), ("tiny.cu", tiny), ("other.cu", TINY)])
}

fn targets() -> Vec<Arch> {
    TARGETS.iter().map(|target| target.parse().unwrap()).collect()
}

/// The one unit of these entries, compiled for sm_80.
fn compile(nvrtc: &Nvrtc, tiny: &str, entries: Vec<Entry>, cache: Option<&Path>) -> Result<Output, Failure> {
    let [unit]: [Unit; 1] = Unit::all(entries).try_into().unwrap();
    Job::plan(&unit, &[Arch::sm(80)]).remove(0).run(nvrtc, &sources(tiny), cache)
}

fn problem(nvrtc: &Nvrtc, tiny: &str, body: &str) -> String {
    compile(nvrtc, tiny, vec![entry("bad", "tiny.cu", body, "f32", 75)], None).unwrap_err().to_string()
}

#[test]
fn units_are_cut_by_source_and_dtype() {
    let units = Unit::all([
        entry("b", "tiny.cu", "scale<double>(p)", "f64", 75),
        entry("a", "tiny.cu", "scale<float>(p)", "f32", 75),
        entry("c", "tiny.cu", "scale<float>(p)", "f32", 90),
        entry("d", "parts/other.cu", "d(p)", "", 75),
    ]);
    let names: Vec<_> = units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(names, ["parts.other", "tiny.f32", "tiny.f64"]);
    let text = "#include \"tiny.cu\"\nKERNEL(a, ScaleParams, 256, scale<float>(p);)\nKERNEL(c, ScaleParams, 256, scale<float>(p);)\n";
    assert_eq!(units[1].text(&units[1].entries), text);
}

#[test]
fn assembly_holds_each_entry_once_for_the_lowest_gpu_that_has_it() {
    let unit = |computes: &[u32]| {
        let row = |compute: &u32| entry(&format!("k{compute}"), "tiny.cu", "", "f32", *compute);
        Unit::all(computes.iter().map(row)).remove(0)
    };
    let plan = |unit: &Unit| -> Vec<String> {
        let line = |job: &Job<'_>| {
            format!(
                "{} {:?}{}{}",
                job.arch,
                job.entries,
                if job.cubin { " cubin" } else { "" },
                if job.ptx { " ptx" } else { "" }
            )
        };
        Job::plan(unit, &targets()).iter().map(line).collect()
    };
    assert_eq!(
        plan(&unit(&[75, 80, 90])),
        [
            r#"sm_80 {"k75", "k80"} cubin"#,
            r#"sm_90a {"k75", "k80", "k90"} cubin"#,
            r#"sm_100 {"k75", "k80", "k90"} cubin"#,
            r#"sm_75 {"k75"} ptx"#,
            r#"sm_80 {"k80"} ptx"#,
            r#"sm_90 {"k90"} ptx"#,
        ]
    );
    // One compilation where machine code and assembly have the same entries.
    assert_eq!(
        plan(&unit(&[80])),
        [r#"sm_80 {"k80"} cubin ptx"#, r#"sm_90a {"k80"} cubin"#, r#"sm_100 {"k80"} cubin"#]
    );
    assert_eq!(plan(&unit(&[90])), [r#"sm_90a {"k90"} cubin"#, r#"sm_100 {"k90"} cubin"#, r#"sm_90 {"k90"} ptx"#]);
}

#[test]
fn a_unit_includes_what_its_includes_include_and_no_more() {
    let sources = sources(TINY);
    let closure = sources.closure("tiny.cu");
    assert!(closure.keys().eq(["parts/scale.cuh", "prims.cuh", "tiny.cu"].iter()), "{closure:?}");
    // Relative to the including file or to the root; one name for one file in what NVRTC sees.
    assert!(closure["parts/scale.cuh"].contains("#include \"prims.cuh\"\n"), "{closure:?}");
    assert!(sources.closure("absent.cu").is_empty());
}

#[test]
fn architectures_are_read_and_written() {
    for text in ["sm_80", "sm_90a", "compute_75", "sm_120"] {
        assert_eq!(text.parse::<Arch>().unwrap().to_string(), text);
    }
    for text in ["", "sm80", "sm_", "sm_9", "ptx_80", "sm_80b", "sm_-80"] {
        assert!(text.parse::<Arch>().unwrap_err().contains("expected one like sm_80"), "{text}");
    }
    let runs = |arch: &str, gpu| arch.parse::<Arch>().unwrap().runs_on(gpu);
    assert!(runs("sm_80", (8, 9)) && !runs("sm_80", (9, 0)) && !runs("sm_86", (8, 0)));
    assert!(runs("sm_90a", (9, 0)) && !runs("sm_90a", (10, 0)) && !runs("sm_100a", (10, 3)) && runs("sm_100", (10, 3)));
    assert!(runs("compute_75", (12, 0)) && !runs("compute_80", (7, 5)));
}

#[test]
fn work_in_parallel_keeps_its_order() {
    let items: Vec<usize> = (0..100).collect();
    assert_eq!(parallel(&items, 7, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
    assert!(parallel(&[] as &[usize], 0, |item| *item).is_empty());
}

#[test]
fn a_unit_becomes_images_with_all_its_entries() {
    let Some(nvrtc) = nvrtc() else { return };
    let units = Unit::all([
        entry("scale_f32", "tiny.cu", "scale<float>(p)", "f32", 75),
        entry("scale_f32_80", "tiny.cu", "scale<float>(p)", "f32", 80),
    ]);
    let jobs = Job::plan(&units[0], &targets());
    let known: Vec<_> = jobs.into_iter().filter(|job| nvrtc.architectures().contains(&job.arch.compute)).collect();
    assert!(known.len() >= 4, "{known:?}");
    for (job, output) in known.iter().zip(parallel(&known, 2, |job| job.run(&nvrtc, &sources(TINY), None))) {
        let output = output.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(output.compiled.cubin.starts_with(b"\x7fELF"), "{}", job.arch);
        let version = format!(".target {}", job.arch);
        let ptx = String::from_utf8_lossy(&output.compiled.ptx).into_owned();
        assert!(ptx.contains(&version), "{ptx}");
        assert_eq!(ptx.matches(".entry").count(), job.entries.len());
        assert_eq!(output.compiled.ptx.last(), Some(&0), "cuModuleLoadData needs the zero byte");
        assert!(output.resources.keys().eq(job.entries.iter()));
        for (name, entry) in &output.resources {
            assert!((4..64).contains(&entry.registers), "{name}: {entry:?}");
        }
        assert!(output.warnings.is_empty(), "{:?}", output.warnings);
    }
}

#[test]
fn what_does_not_compile_is_shown_as_the_compiler_shows_it() {
    let Some(nvrtc) = nvrtc() else { return };
    let message = problem(&nvrtc, TINY, "scale<floot>(p)");
    assert!(message.starts_with("kernel tiny.f32 for sm_80: it does not compile:\n"), "{message}");
    assert!(message.contains("identifier \"floot\" is undefined"), "{message}");
    let message = problem(&nvrtc, &format!("{TINY}\n#include \"absent.cuh\"\n"), "scale<float>(p)");
    assert!(message.contains("tiny.cu(8)") && message.contains("absent.cuh"), "{message}");
    // Only the assembler sees this.
    let inline = TINY.replace("const unsigned i", "asm(\"no.such.instruction;\");\n    const unsigned i");
    let message = problem(&nvrtc, &inline, "scale<float>(p)");
    assert!(message.contains("no.such.instruction") || message.contains("ptxas"), "{message}");
}

#[test]
fn an_entry_that_an_image_lacks_is_named() {
    let Some(nvrtc) = nvrtc() else { return };
    // As when the body of a macro, or the whole file, is behind an `#if` on the architecture.
    let guarded = format!("{TINY}#if __CUDA_ARCH__ < 900\n#undef KERNEL\n#define KERNEL(...)\n#endif\n");
    let message = problem(&nvrtc, &guarded, "scale<float>(p)");
    assert!(message.contains("the cubin lacks the entry point bad"), "{message}");
    assert!(message.contains("the PTX lacks the entry point bad"), "{message}");
}

#[test]
fn a_spill_is_refused() {
    let Some(nvrtc) = nvrtc() else { return };
    let hungry = r#"#include "parts/scale.cuh"
__device__ void hungry(const ScaleParams& p) {
    const volatile float* from = static_cast<const volatile float*>(p.from);
    float values[400];
    #pragma unroll
    for (int i = 0; i < 400; ++i) values[i] = from[i];
    #pragma unroll 1
    for (int step = 0; step < p.factor; ++step) {
        #pragma unroll
        for (int i = 0; i < 400; ++i) values[i] = values[i] * values[(i + 1) % 400] + from[i];
    }
    float sum = 0;
    #pragma unroll
    for (int i = 0; i < 400; ++i) sum += values[i];
    static_cast<float*>(p.to)[threadIdx.x] = sum;
}
"#;
    let message = problem(&nvrtc, hungry, "hungry(p)");
    assert!(message.contains("bad spills: ") && message.contains("bytes of loads"), "{message}");
}

#[test]
fn static_shared_memory_is_refused() {
    let Some(nvrtc) = nvrtc() else { return };
    let shared = r#"#include "parts/scale.cuh"
__device__ void mirror(const ScaleParams& p) {
    __shared__ float tile[256];
    tile[threadIdx.x] = static_cast<const float*>(p.from)[threadIdx.x];
    __syncthreads();
    static_cast<float*>(p.to)[threadIdx.x] = tile[255 - threadIdx.x];
}
"#;
    let message = problem(&nvrtc, shared, "mirror(p)");
    assert!(message.contains("bad has 1024 bytes of static shared memory"), "{message}");
}

#[test]
fn only_what_changed_is_made_again() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().unwrap();
    let make = |tiny: &str, source: &'static str, body: &str| {
        let entries = vec![entry("scale_f32", source, body, "f32", 75)];
        compile(&nvrtc, tiny, entries, Some(folder.path())).unwrap_or_else(|failure| panic!("{failure}"))
    };
    let first = make(TINY, "tiny.cu", "scale<float>(p)");
    assert!(!first.reused);
    let again = make(TINY, "tiny.cu", "scale<float>(p)");
    assert!(again.reused);
    assert_eq!(again.compiled.cubin, first.compiled.cubin);
    assert_eq!(again.resources, first.resources);
    assert!(!make(TINY, "other.cu", "scale<float>(p)").reused, "another unit");
    let edited = format!("{TINY}// edited\n");
    assert!(make(&edited, "other.cu", "scale<float>(p)").reused, "that unit does not include what was edited");
    assert!(!make(&edited, "tiny.cu", "scale<float>(p)").reused, "this one does");
    assert!(!make(TINY, "tiny.cu", "scale<unsigned>(p)").reused, "another body");
    // A result half written, or damaged, is made again.
    std::fs::remove_file(folder.path().join(format!("{}.log", first.cache_name))).unwrap();
    assert!(!make(TINY, "tiny.cu", "scale<float>(p)").reused);
}

#[test]
fn the_index_is_complete() {
    if images::built_with().is_none() {
        assert!(std::env::var_os("FUSED_RNN_REQUIRE_NVRTC").is_none(), "built without libnvrtc");
        eprintln!("SKIPPED: built without libnvrtc");
        return;
    }
    let units = Unit::all(catalog::entries());
    for unit in &units {
        for target in ["sm_80", "sm_90a", "sm_100"] {
            let arch: Arch = target.parse().unwrap();
            let expected: Vec<_> =
                unit.entries.iter().filter(|e| e.min_compute <= arch.compute).map(|e| e.name.as_str()).collect();
            let image = images::images().iter().find(|image| image.unit() == unit.name && image.arch() == arch);
            let mut got: Vec<_> =
                image.map(|image| image.entries().iter().map(|entry| &*entry.name).collect()).unwrap_or_default();
            got.sort_unstable();
            let mut expected = expected;
            expected.sort_unstable();
            assert_eq!(got, expected, "{} for {target}", unit.name);
        }
    }
}

// ---- the build script itself ----------------------------------------------------------------------------------------

/// A copy of `kernels/` to damage, and a place for what the build script makes of it.
struct Crate {
    folder: tempfile::TempDir,
}

impl Crate {
    /// `None`, said loudly, where the build script is gone: in a test program that was taken to another machine.
    fn copy() -> Option<Self> {
        if !Path::new(env!("FUSED_RNN_BUILD_SCRIPT")).is_file() {
            eprintln!("SKIPPED: this is not the machine that the tests were built on");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut pending = vec![PathBuf::from("kernels")];
        while let Some(name) = pending.pop() {
            std::fs::create_dir_all(folder.path().join(&name)).unwrap();
            for child in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(&name)).unwrap() {
                let child = child.unwrap();
                let name = name.join(child.file_name());
                if child.path().is_dir() {
                    pending.push(name);
                } else {
                    std::fs::copy(child.path(), folder.path().join(name)).unwrap();
                }
            }
        }
        std::fs::create_dir(folder.path().join("out")).unwrap();
        std::fs::create_dir(folder.path().join("cache")).unwrap();
        Some(Crate { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, kernel: &str, text: &str) {
        let path = self.path(kernel);
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, before + text).unwrap();
    }

    /// The build script as cargo would start it, for assembly alone and without optimisation: what is made matters here, not how fast
    /// it would run.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("FUSED_RNN_BUILD_SCRIPT"));
        command
            .current_dir(self.folder.path())
            .env("CARGO_MANIFEST_DIR", self.folder.path())
            .env("OUT_DIR", self.path("out"))
            .env("FUSED_RNN_KERNEL_CACHE", self.path("cache"))
            .env("FUSED_RNN_CUDA_ARCHS", "compute_75")
            .env("CXXFLAGS", "-O0")
            .env("NUM_JOBS", "2")
            .env("TARGET", env!("FUSED_RNN_TARGET"))
            .env("HOST", env!("FUSED_RNN_TARGET"))
            .env("OPT_LEVEL", "0")
            .env("DEBUG", "false")
            .env_remove("FUSED_RNN_REQUIRE_NVRTC")
            .env_remove("FUSED_RNN_HOST_SANITIZE");
        command
    }
}

fn run(command: &mut Command) -> (Finished, String) {
    let finished = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&finished.stdout).into_owned();
    (finished, stdout)
}

/// The numbers in `10 images, 3 of them made now`.
fn made(stdout: &str, what: &str) -> (usize, usize) {
    let line = stdout.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no `{what}` in {stdout}"));
    let numbers: Vec<usize> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

#[test]
fn an_nvrtc_path_that_does_not_work_stops_the_build() {
    let Some(copy) = Crate::copy() else { return };
    for (path, reason) in [("absent", "there is no such file or folder"), ("cache", "the folder has no libnvrtc")] {
        let (finished, stdout) = run(copy.command().env("NVRTC_PATH", copy.path(path)));
        assert!(!finished.status.success(), "{stdout}");
        let error = stdout.lines().find_map(|line| line.strip_prefix("cargo::error=")).unwrap_or_default();
        assert!(error.contains(path) && error.contains(reason) && error.contains("NVRTC_PATH"), "{stdout}");
    }
}

#[test]
fn an_architecture_that_is_none_stops_the_build() {
    let Some(copy) = Crate::copy() else { return };
    let (finished, stdout) = run(copy.command().env("FUSED_RNN_CUDA_ARCHS", "sm_80,turing"));
    assert!(!finished.status.success(), "{stdout}");
    assert!(stdout.contains("cargo::error=FUSED_RNN_CUDA_ARCHS: `turing` is no architecture"), "{stdout}");
}

/// Without a `PATH` there is no Python to ask. The feature `emulated` needs one for its compiler.
#[cfg(not(feature = "emulated"))]
#[test]
fn without_libnvrtc_the_build_says_so_once_and_succeeds() {
    use fused_rnn::backend::cuda::nvrtc::VARIABLES;
    let Some(copy) = Crate::copy() else { return };
    let bare = || {
        let mut command = copy.command();
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.env("PATH", copy.path("cache"));
        command
    };
    let (finished, stdout) = run(&mut bare());
    assert!(finished.status.success(), "{stdout}");
    let index = std::fs::read_to_string(copy.path("out/images.rs")).unwrap();
    if stdout.contains(" images, ") {
        eprintln!("SKIPPED: this machine has libnvrtc in a system folder");
        return;
    }
    let warnings: Vec<_> = stdout.lines().filter(|line| line.starts_with("cargo::warning=")).collect();
    assert_eq!(warnings.len(), 1, "{stdout}");
    assert!(warnings[0].contains("pip install nvidia-cuda-nvrtc-cu12"), "{stdout}");
    assert!(index.contains("BUILT_WITH: Option<(u32, u32)> = None"), "{index}");
    assert!(index.contains("gemm.cu"), "the sources are embedded: {index}");

    let (finished, stdout) = run(bare().env("FUSED_RNN_REQUIRE_NVRTC", "1"));
    assert!(!finished.status.success(), "{stdout}");
    assert!(stdout.contains("cargo::error=CUDA kernels cannot be compiled: no libnvrtc found"), "{stdout}");
}

#[test]
fn an_edited_kernel_is_made_again_and_a_broken_one_shown() {
    if nvrtc().is_none() {
        return;
    }
    let Some(copy) = Crate::copy() else { return };
    let (finished, stdout) = run(&mut copy.command());
    assert!(finished.status.success(), "{stdout}");
    let (all, first) = made(&stdout, " images, ");
    assert!(all > 0 && all == first, "{stdout}");
    let mut host = (0, 0);
    if cfg!(feature = "emulated") {
        host = made(&stdout, " objects for the host, ");
        assert!(host.0 > 0 && host.0 == host.1, "{stdout}");
    }

    let (_, stdout) = run(&mut copy.command());
    assert_eq!(made(&stdout, " images, "), (all, 0));

    copy.append("kernels/dropout.cu", "// edited\n");
    let (_, stdout) = run(&mut copy.command());
    let edited = Unit::all(catalog::entries()).iter().filter(|unit| unit.source == "dropout.cu").count();
    assert!(edited > 0 && edited < all);
    assert_eq!(made(&stdout, " images, "), (all, edited));
    if cfg!(feature = "emulated") {
        assert_eq!(made(&stdout, " objects for the host, "), (host.0, edited));
    }

    copy.append("kernels/dropout.cu", "static int broken = \"no number\";\n");
    let (finished, stdout) = run(&mut copy.command());
    assert!(!finished.status.success(), "{stdout}");
    let errors: Vec<_> = stdout.lines().filter_map(|line| line.strip_prefix("cargo::error=")).collect();
    assert!(errors[0].starts_with("kernel dropout."), "{errors:?}");
    assert!(errors.iter().any(|line| line.starts_with("dropout.cu(") && line.contains("error")), "{errors:?}");
    assert!(errors.iter().any(|line| line.contains("static int broken = \"no number\";")), "unescaped: {errors:?}");
    assert!(!stdout.contains("gemm"), "{stdout}");
}
