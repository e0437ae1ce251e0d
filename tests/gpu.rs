//! The device behind NVIDIA's driver.
//!
//! Two kinds of test. Those on a stand-in for the driver (`fake_driver/libcuda.c`) run anywhere: this program runs itself
//! with it and looks at the errors, the contexts and the launches that reach the driver. Those on a GPU say loudly that they
//! were skipped where there is none; with `FUSED_RNN_REQUIRE_GPU=1` a skip is a failure.
#![cfg(feature = "cuda")]
#![allow(unsafe_code)]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::Rng;
use common::gpu::gpu;
use fused_rnn::backend::ForwardMode;
use fused_rnn::backend::cuda::device::{Device, DevicePtr, Launch};
use fused_rnn::backend::cuda::driver::{self, Driver, DriverStream, Graph, Timer};
use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, DevicePass};
use fused_rnn::backend::pass::{Inputs, OutputGradients};
use fused_rnn::cell::CellKind;
use fused_rnn::rnn::{Direction, RnnDescriptor, RnnShape, WeightLayout};
use fused_rnn::{Element, Error};

/// A kernel that every image has.
const KERNEL: &str = "dropout_f32";

/// Memory of a test, given back at its end.
struct Memory {
    driver: Arc<Driver>,
    at: DevicePtr,
    bytes: usize,
}

impl Memory {
    fn new(driver: &Arc<Driver>, bytes: usize) -> Self {
        let at = driver.allocate("a test's memory", bytes).unwrap();
        Memory { driver: Arc::clone(driver), at, bytes }
    }

    fn upload(&self, stream: &DriverStream, from: &[u8]) {
        assert!(from.len() <= self.bytes);
        // SAFETY: the memory is as long as checked.
        unsafe { self.driver.upload(stream, self.at, from) }.unwrap();
    }

    fn download(&self, stream: &DriverStream) -> Vec<u8> {
        let mut to = vec![0x5a; self.bytes];
        // SAFETY: the memory is as long as the vector.
        unsafe { self.driver.download(stream, self.at, &mut to) }.unwrap();
        to
    }

    fn fill(&self, stream: &DriverStream, offset: usize, value: u8, bytes: usize) -> fused_rnn::Result<()> {
        assert!(offset + bytes <= self.bytes);
        // SAFETY: the memory is as long as checked, and lives until `self` is dropped, after the test has synchronised.
        unsafe { self.driver.fill(stream, self.at.offset(offset), value, bytes) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, released once.
        unsafe { self.driver.release(self.at, self.bytes) };
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(167).wrapping_add(seed * 31) >> 3) as u8).collect()
}

/// Copies and fills of awkward lengths, at awkward offsets, come back as they went.
fn copies_and_fills(driver: &Arc<Driver>) {
    let stream = DriverStream::new(driver).unwrap();
    for len in [1, 2, 255, 256, 257, 4099, 1 << 20] {
        let memory = Memory::new(driver, len);
        assert_eq!(memory.at.0 % 256, 0, "allocations are aligned to 256 bytes");
        let sent = pattern(len, len);
        memory.upload(&stream, &sent);
        assert_eq!(memory.download(&stream), sent, "{len} bytes");
        let (offset, count) = (len / 3, len / 2);
        memory.fill(&stream, offset, 0xff, count).unwrap();
        let mut expected = sent;
        expected[offset..offset + count].fill(0xff);
        assert_eq!(memory.download(&stream), expected, "{count} bytes filled from {offset} of {len}");
    }
    let empty = Memory::new(driver, 0);
    assert_eq!(empty.at, DevicePtr::NULL);
    empty.upload(&stream, &[]);
    assert!(empty.download(&stream).is_empty());
}

/// What was recorded is done by each replay, and not before.
fn capture_and_replay(driver: &Arc<Driver>) {
    let stream = DriverStream::new(driver).unwrap();
    let memory = Memory::new(driver, 64);
    memory.upload(&stream, &pattern(64, 1));
    let graph = Graph::capture(driver, &stream, || {
        memory.fill(&stream, 0, 1, 64)?;
        memory.fill(&stream, 16, 2, 32)
    })
    .unwrap();
    assert_eq!(memory.download(&stream), pattern(64, 1), "capturing does not run");
    let mut expected = vec![1; 64];
    expected[16..48].fill(2);
    for round in 0..3 {
        memory.upload(&stream, &pattern(64, round));
        // SAFETY: the memory outlives the replay: `download` waits.
        unsafe { graph.launch(&stream) }.unwrap();
        assert_eq!(memory.download(&stream), expected, "replay {round}");
    }
    // What cannot be recorded is an error, and the stream works afterwards.
    let mut refused = false;
    let captured = Graph::capture(driver, &stream, || {
        let error = driver.synchronize(&stream).expect_err("waiting cannot be recorded");
        refused = matches!(&error, Error::Driver { code: 900..=908, .. });
        Err(error)
    });
    assert!(captured.is_err() && refused);
    memory.fill(&stream, 0, 7, 64).unwrap();
    assert_eq!(memory.download(&stream), vec![7; 64]);
}

/// Threads with a driver, a context and a stream each do not disturb one another.
fn threads(ordinals: &[usize]) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let driver = Driver::open(ordinals[thread % ordinals.len()]).unwrap();
                let stream = DriverStream::new(&driver).unwrap();
                let memory = Memory::new(&driver, 4096);
                for round in 0..50 {
                    let sent = pattern(4096, thread * 1000 + round);
                    memory.upload(&stream, &sent);
                    memory.fill(&stream, round, thread as u8, 1000).unwrap();
                    let mut expected = sent;
                    expected[round..round + 1000].fill(thread as u8);
                    assert_eq!(memory.download(&stream), expected, "thread {thread}, round {round}");
                }
            });
        }
    });
}

/// Launches that no device takes are refused before anything runs, and say which kernel and what geometry.
fn refused_launches(driver: &Arc<Driver>) {
    let stream = DriverStream::new(driver).unwrap();
    let kernel = driver.kernel(KERNEL).unwrap();
    let good = Launch::new([1, 1, 1], 128);
    assert!(driver.resident_blocks(&kernel, &good).unwrap() >= driver.properties().multiprocessors);
    let bad = [
        Launch { grid: [0, 1, 1], ..good },
        Launch { block: 2048, ..good },
        Launch { shared_bytes: driver.properties().shared_bytes_per_block + 1024, ..good },
        Launch { cluster: 32, grid: [32, 1, 1], ..good },
    ];
    for launch in bad {
        // Nothing reads them, as no launch gets that far.
        let params = vec![0u8; kernel.params_bytes().unwrap_or(4096)];
        // SAFETY: the driver refuses the geometry, so that no kernel runs.
        match unsafe { driver.launch(&stream, &kernel, &launch, &params) } {
            Err(error) => assert!(error.to_string().contains(KERNEL), "{error}"),
            Ok(()) => panic!("{launch:?} was accepted"),
        }
    }
    if let Some(bytes) = kernel.params_bytes() {
        // SAFETY: as above.
        let error = unsafe { driver.launch(&stream, &kernel, &good, &vec![0; bytes + 8]) }.unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error:?}");
    }
    driver.synchronize(&stream).unwrap();
    let unknown = driver.kernel("no_such_kernel").unwrap_err().to_string();
    assert!(unknown.contains("no_such_kernel"), "{unknown}");
}

/// More memory than there is: an error that names the tensor and the amounts.
fn too_little_memory(driver: &Driver) {
    let error = driver.allocate("the reserve", 1 << 50).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("the reserve") && message.contains("free"), "{message}");
}

/// A pass with as much in it as fits: two bidirectional layers with dropout, lengths, resets, initial states.
fn pass<E: Element, D: Device>(backend: &CudaBackend<E, D>, cell: CellKind, mode: ForwardMode) -> DevicePass<E, D> {
    let mut descriptor = RnnDescriptor::new(cell, 9, 21);
    descriptor.num_layers = 2;
    descriptor.direction = Direction::Bidirectional;
    descriptor.dropout = 0.3;
    let shape = RnnShape { seq_len: 7, batch: 5 };
    let tensors = shape.tensors(&descriptor).unwrap();
    let mut rng = Rng::new(11);
    let mut draw =
        |sizes: &[usize]| -> Vec<E> { (0..sizes.iter().product()).map(|_| E::of(rng.uniform(-0.7, 0.7))).collect() };
    let has_c = cell.has_cell_state();
    let inputs = Inputs {
        weights: draw(&[WeightLayout::new(&descriptor).unwrap().len()]),
        x: draw(&tensors.x),
        h0: Some(draw(&tensors.h)),
        c0: has_c.then(|| draw(&tensors.c)),
        lengths: Some(vec![7, 1, 4, 7, 6]),
        resets: Some((0..35).map(|i| u8::from(i % 11 == 8)).collect()),
        dropout_seed: 5,
    };
    let gradients = OutputGradients {
        dy: Some(draw(&tensors.y)),
        dhn: Some(draw(&tensors.h)),
        dcn: has_c.then(|| draw(&tensors.c)),
    };
    DevicePass::new(backend, &descriptor, shape, mode, &inputs, &gradients).unwrap()
}

/// All that a run gave, as bytes.
fn bits<E: Element, D: Device>(pass: &DevicePass<E, D>) -> Vec<u8> {
    let outputs = pass.outputs().unwrap();
    let mut all = [outputs.y, outputs.hn, outputs.cn.unwrap_or_default()].concat();
    if let Some(gradients) = pass.input_gradients().unwrap() {
        all.extend([gradients.dx, gradients.dh0, gradients.dc0.unwrap_or_default(), gradients.dweights].concat());
    }
    assert!(all.iter().all(|value| value.wide().is_finite()), "something was not written");
    bytemuck::cast_slice(&all).to_vec()
}

fn each_pass<E: Element, D: Device>(backend: &CudaBackend<E, D>, mut check: impl FnMut(&str, DevicePass<E, D>)) {
    for cell in CellKind::ALL {
        for mode in [ForwardMode::Inference, ForwardMode::Training] {
            check(&format!("{cell}, {}, {mode:?}", E::DTYPE), pass(backend, cell, mode));
        }
    }
}

/// The same bits in every run, whatever stood in the outputs, the workspace and the reserve.
fn repeats<E: Element, D: Device>(backend: &CudaBackend<E, D>, runs: usize) {
    each_pass(backend, |what, mut pass| {
        pass.run().unwrap();
        let first = bits(&pass);
        for run in 1..runs {
            pass.forget().unwrap();
            pass.run().unwrap();
            assert!(bits(&pass) == first, "{what}: run {run} differs from the first");
        }
    });
}

/// A replay gives the bits of a call.
fn replays<E: Element>(driver: &Arc<Driver>) {
    let backend = on(driver);
    each_pass::<E, _>(&backend, |what, mut pass| {
        pass.run().unwrap();
        let direct = bits(&pass);
        let graph = Graph::capture(driver, backend.stream(), || pass.run()).unwrap();
        for _ in 0..3 {
            pass.forget().unwrap();
            // SAFETY: the pass owns the graph's memory, and is alive until `bits` has waited.
            unsafe { graph.launch(backend.stream()) }.unwrap();
            assert!(bits(&pass) == direct, "{what}: a replay differs from the call");
        }
    });
}

/// Four threads on four streams, with one driver and with one each, get what one thread gets alone.
fn passes_on_threads(driver: &Arc<Driver>, rounds: usize) {
    let mut alone = Vec::new();
    each_pass::<f32, _>(&on(driver), |_, mut pass| {
        pass.run().unwrap();
        alone.push(bits(&pass));
    });
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let alone = &alone;
            scope.spawn(move || {
                let driver = if thread % 2 == 0 { Arc::clone(driver) } else { Driver::open(0).unwrap() };
                for _ in 0..rounds {
                    let mut expected = alone.iter();
                    each_pass::<f32, _>(&on(&driver), |what, mut pass| {
                        pass.run().unwrap();
                        assert!(Some(&bits(&pass)) == expected.next(), "{what} on thread {thread}");
                    });
                }
            });
        }
    });
}

/// A backend on a stream of its own.
fn on<E: Element>(driver: &Arc<Driver>) -> CudaBackend<E, Driver> {
    let stream = DriverStream::new(driver).unwrap();
    CudaBackend::with_options(Arc::clone(driver), stream, CudaOptions::default())
}

#[cfg(feature = "emulated")]
#[test]
fn emulated_passes_repeat() {
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    for seed in 0..2 {
        let device = Arc::new(Emulated::new(Schedule { seed, starve: seed > 0 }).unwrap());
        let options = CudaOptions::default;
        repeats::<f32, _>(&CudaBackend::with_options(Arc::clone(&device), EmulatedStream, options()), 3);
        repeats::<half::bf16, _>(&CudaBackend::with_options(device, EmulatedStream, options()), 3);
    }
}

// ---- with a GPU

#[test]
fn gpu_copies_and_fills() {
    let Some(driver) = gpu("gpu_copies_and_fills") else { return };
    copies_and_fills(&driver);
}

#[test]
fn gpu_capture_and_replay() {
    let Some(driver) = gpu("gpu_capture_and_replay") else { return };
    capture_and_replay(&driver);
}

#[test]
fn gpu_threads() {
    if gpu("gpu_threads").is_none() {
        return;
    }
    let ordinals: Vec<usize> = (0..Driver::count().unwrap()).collect();
    threads(&ordinals);
}

#[test]
fn gpu_refused_launches() {
    let Some(driver) = gpu("gpu_refused_launches") else { return };
    refused_launches(&driver);
}

#[test]
fn gpu_too_little_memory() {
    let Some(driver) = gpu("gpu_too_little_memory") else { return };
    too_little_memory(&driver);
}

#[test]
fn gpu_passes_repeat() {
    let Some(driver) = gpu("gpu_passes_repeat") else { return };
    repeats::<f32, _>(&on(&driver), 20);
    repeats::<f64, _>(&on(&driver), 20);
    repeats::<half::f16, _>(&on(&driver), 20);
    repeats::<half::bf16, _>(&on(&driver), 20);
}

#[test]
fn gpu_passes_replay() {
    let Some(driver) = gpu("gpu_passes_replay") else { return };
    replays::<f32>(&driver);
    replays::<f64>(&driver);
    replays::<half::f16>(&driver);
    replays::<half::bf16>(&driver);
}

#[test]
fn gpu_passes_on_threads() {
    let Some(driver) = gpu("gpu_passes_on_threads") else { return };
    passes_on_threads(&driver, 5);
}

/// Every primitive of `prims.cuh` gives what it must, and what its host version gives. A wait that never ends gives up.
#[cfg(feature = "emulated")]
fn primitives(driver: &Arc<Driver>, rounds: usize) {
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    let emulated = Arc::new(Emulated::new(Schedule::default()).unwrap());
    let stream = DriverStream::new(driver).unwrap();
    let (major, minor) = driver.properties().compute_capability;
    for case in common::primitives::cases() {
        if major * 10 + minor < case.min_compute {
            let _ = writeln!(std::io::stderr(), "SKIPPED {}: the GPU is too old for it", case.kernel);
            continue;
        }
        let host = case.run(&emulated, &EmulatedStream).unwrap();
        for _ in 0..rounds {
            let outcome = case.run(driver, &stream).unwrap_or_else(|error| panic!("{}: {error}", case.kernel));
            case.check(&outcome).unwrap_or_else(|what| panic!("{what}"));
            case.compare_outcomes(&outcome, &host).unwrap_or_else(|what| panic!("beside the host version: {what}"));
        }
    }
}

#[cfg(feature = "emulated")]
#[test]
fn gpu_primitives() {
    let Some(driver) = gpu("gpu_primitives") else { return };
    primitives(&driver, 20);
}

/// As little as reaches every kernel, since compute-sanitizer takes its time.
#[test]
#[ignore = "for compute-sanitizer"]
fn gpu_small_passes() {
    let Some(driver) = gpu("gpu_small_passes") else { return };
    repeats::<f32, _>(&on(&driver), 1);
    repeats::<f64, _>(&on(&driver), 1);
    repeats::<half::f16, _>(&on(&driver), 1);
    repeats::<half::bf16, _>(&on(&driver), 1);
}

#[cfg(feature = "emulated")]
#[test]
#[ignore = "for compute-sanitizer"]
fn gpu_small_primitives() {
    let Some(driver) = gpu("gpu_small_primitives") else { return };
    primitives(&driver, 1);
}

#[test]
fn gpu_description() {
    if gpu("gpu_description").is_none() {
        return;
    }
    let description = Driver::describe().unwrap();
    assert_eq!(description.gpus.len(), Driver::count().unwrap());
    assert!(!description.gpus[0].name.is_empty() && description.gpus[0].memory_bytes > 1 << 30);
    assert_eq!(driver::status(), description.to_string());
    let _ = writeln!(std::io::stderr(), "{description}");
}

// ---- with a stand-in for the driver

/// Runs `scenario` in a process of its own that finds `library` as libcuda; returns the stand-in's log.
fn run(scenario: &str, library: &Path, variables: &[(&str, &str)]) -> String {
    let log = library.parent().unwrap().join(format!("{scenario}.log"));
    let mut path = std::ffi::OsString::from(library.parent().unwrap());
    if let Some(before) = std::env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(before);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "scenario", "--ignored", "--nocapture"])
        .env("LD_LIBRARY_PATH", path)
        .env("FUSED_RNN_SCENARIO", scenario)
        .env("FAKE_LOG", &log)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{scenario}: {said}");
    std::fs::read_to_string(log).unwrap_or_default()
}

/// The stand-in for the driver, compiled into a folder of its own; `None` where there is no C compiler.
fn stand_in(test: &str, flags: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcuda.so");
    let source = "tests/fake_driver/libcuda.c";
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    match Command::new(&compiler)
        .args(["-std=c11", "-O1", "-shared", "-fPIC", "-pthread", "-o"])
        .arg(&library)
        .args(flags)
        .arg(source)
        .output()
    {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some((folder, library))
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no C compiler ({compiler}: {error})");
            None
        }
    }
}

#[test]
fn a_missing_driver_is_an_error() {
    if !cfg!(target_os = "linux") {
        return;
    }
    // Files that are no libraries hide the real one, where there is one.
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    run("no driver", &folder.path().join("libcuda.so"), &[]);
}

#[test]
fn an_old_driver_is_an_error() {
    let Some((_folder, library)) = stand_in("an_old_driver_is_an_error", &[]) else { return };
    run("old driver", &library, &[("FAKE_VERSION", "11040")]);
    let Some((_folder, library)) = stand_in("an_old_driver_is_an_error", &["-DWITHOUT_CLUSTERS"]) else { return };
    run("driver without clusters", &library, &[]);
}

#[test]
fn what_cannot_be_opened_is_an_error() {
    let Some((_folder, library)) = stand_in("what_cannot_be_opened_is_an_error", &[]) else { return };
    run("no GPU", &library, &[("FAKE_GPUS", "0")]);
    run("number out of range", &library, &[("FAKE_GPUS", "2")]);
    run("old GPU", &library, &[("FAKE_CAPABILITY", "70")]);
    run("stub", &library, &[("FAKE_FAIL", "cuInit:34")]);
    run("no context", &library, &[("FAKE_FAIL", "cuDevicePrimaryCtxRetain:2")]);
}

#[test]
fn a_fault_is_an_error() {
    let Some((_folder, library)) = stand_in("a_fault_is_an_error", &[]) else { return };
    run("fault", &library, &[("FAKE_FAIL", "cuStreamSynchronize:700")]);
    run("unknown code", &library, &[("FAKE_FAIL", "cuMemcpyDtoHAsync_v2:998")]);
}

#[test]
fn work_reaches_the_driver_as_meant() {
    let Some((_folder, library)) = stand_in("work_reaches_the_driver_as_meant", &[]) else { return };
    let log = run("work", &library, &[("FAKE_GPUS", "2")]);
    for device in 0..2 {
        assert!(log.contains(&format!("release context {device}, 0 left")), "a context was kept: {log}");
    }
    assert!(log.contains("destroy stream") && log.contains("destroy graph"), "{log}");
}

#[test]
fn launches_reach_the_driver_as_meant() {
    let Some((_folder, library)) = stand_in("launches_reach_the_driver_as_meant", &[]) else { return };
    let log = run("launch", &library, &[("FAKE_PARAMS", "8")]);
    if log.contains("no image") {
        let _ = writeln!(std::io::stderr(), "SKIPPED launches_reach_the_driver_as_meant: this build has no kernels");
        return;
    }
    let launches: Vec<&str> = log.lines().filter(|line| line.starts_with("launch ")).collect();
    let expected = [
        "grid 7,2,3 block 128,1,1 cluster 1 cooperative 0 shared 0 params 01020304",
        "grid 32,1,1 block 128,1,1 cluster 16 cooperative 0 shared 200000 params 01020304",
        "grid 132,1,1 block 128,1,1 cluster 1 cooperative 1 shared 1024 params 01020304",
        "grid 8,1,1 block 128,1,1 cluster 4 cooperative 1 shared 0 params 01020304",
    ];
    // Once directly, then twice by a replay.
    let expected: Vec<String> =
        expected.iter().cycle().take(12).map(|rest| format!("launch {KERNEL} on 0 {rest}")).collect();
    assert_eq!(launches, expected);
    assert!(log.contains(&format!("load function {KERNEL}")), "loaded before the first launch: {log}");
    assert_eq!(log.matches("unload module").count(), log.matches("load module").count() / 2, "{log}");
}

/// `fused-rnn bench --backend cuda`, with lists of arguments on standard input: a line of JSON each, also for what is wrong.
#[cfg(feature = "cli")]
#[test]
fn the_cli_times_on_the_device() {
    let Some((folder, _library)) = stand_in("the_cli_times_on_the_device", &[]) else { return };
    if fused_rnn::backend::cuda::images::images().is_empty() {
        let _ = writeln!(std::io::stderr(), "SKIPPED the_cli_times_on_the_device: this build has no kernels");
        return;
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_fused-rnn"))
        .args(["bench", "--backend", "cuda", "--json", "--lines", "--seconds", "0.01"])
        .env("LD_LIBRARY_PATH", folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = "--backend cuda --dtype bf16 --graph --cell gru --inference --json --seconds 0.01\n\
                 --backend cuda --device 3\n--no-such-flag\n--backend cuda --tf32 --json --seconds 0.01\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answers: Vec<serde_json::Value> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(output.status.code(), Some(1), "one of them was wrong");
    assert_eq!(answers.len(), 5, "{answers:?}");
    // Every pair of events is a quarter of a millisecond apart on the stand-in, and short calls are timed together.
    assert_eq!((&answers[0]["backend"], &answers[0]["dtype"]), (&"cuda".into(), &"f32".into()));
    assert!(answers[0]["forward_us"].as_f64() > Some(0.0) && answers[0]["train_us"].as_f64() > Some(0.0));
    assert_eq!((&answers[1]["cell"], &answers[1]["graph"]), (&"gru".into(), &true.into()));
    assert!(answers[1].get("train_us").is_none(), "not asked for");
    assert!(answers[2]["error"].as_str().unwrap().contains("option device"), "{answers:?}");
    assert!(answers[3]["error"].as_str().unwrap().contains("--no-such-flag"), "{answers:?}");
    assert_eq!(answers[4]["tf32"], true);
}

#[cfg(feature = "emulated")]
#[test]
fn kernels_run_behind_the_driver() {
    let Some((_folder, library)) = stand_in("kernels_run_behind_the_driver", &[]) else { return };
    let log = run("engine", &library, &[]);
    assert!(!log.contains("emulated GPU"), "a kernel failed: {log}");
}

/// The emulated GPU behind the stand-in for the driver: all that is checked on a GPU, and the same bits as without a driver.
#[cfg(feature = "emulated")]
fn engine() {
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};

    unsafe extern "C" {
        static fused_rnn_host_kernels: u8;
        static fused_rnn_host_kernel_count: u32;
        fn fused_rnn_host_launch();
    }
    let launch = fused_rnn_host_launch as unsafe extern "C" fn() as usize;
    let (kernels, count) = (&raw const fused_rnn_host_kernels, &raw const fused_rnn_host_kernel_count);
    // SAFETY: this process has one test, and this is its thread.
    unsafe { std::env::set_var("FAKE_ENGINE", format!("{:x},{:x},{launch:x}", kernels as usize, count as usize)) };
    let driver = match Driver::open(0).and_then(|driver| driver.kernel(KERNEL).map(|_| driver)) {
        Ok(driver) => driver,
        Err(error) => {
            assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
            let _ = writeln!(std::io::stderr(), "SKIPPED: this build has no kernels to load ({error})");
            return;
        }
    };
    refused_launches(&driver);
    primitives(&driver, 1);
    repeats::<f64, _>(&on(&driver), 2);
    replays::<f32>(&driver);
    replays::<half::bf16>(&driver);
    passes_on_threads(&driver, 1);
    let emulated = Arc::new(Emulated::new(Schedule::default()).unwrap());
    let mut without = Vec::new();
    let backend = CudaBackend::<half::f16, _>::with_options(emulated, EmulatedStream, CudaOptions::default());
    each_pass(&backend, |_, mut pass| {
        pass.run().unwrap();
        without.push(bits(&pass));
    });
    let mut expected = without.iter();
    each_pass::<half::f16, _>(&on(&driver), |what, mut pass| {
        pass.run().unwrap();
        assert!(Some(&bits(&pass)) == expected.next(), "{what}: other bits than without a driver");
    });
    // A kernel's fault is an error of a later call, and of every one after it.
    let mut case = common::primitives::Case::new("test_misuse", 4, 64);
    case.inputs[0] = vec![0; 1024];
    case.outputs[0] = vec![0; 64 * 4];
    case.launch.shared_bytes = 1024;
    case.mode = 1; // not every thread comes to the barrier
    let stream = DriverStream::new(&driver).unwrap();
    for _ in 0..2 {
        let error = case.run(&driver, &stream).unwrap_err();
        assert!(matches!(&error, Error::Driver { code: 719, .. }), "{error:?}");
        assert!(error.to_string().contains("the context is lost"), "{error}");
    }
    std::fs::remove_file(std::env::var("FAKE_LOG").unwrap()).unwrap();
}

/// What the tests above run in a process of its own.
#[test]
#[ignore = "run by other tests, with a stand-in for the driver"]
fn scenario() {
    let unsupported = |parts: &[&str]| {
        for error in [Driver::open(0).unwrap_err(), Driver::count().unwrap_err(), Driver::describe().unwrap_err()] {
            assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
            let message = error.to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            assert!(message.contains("use the cpu backend"), "{message}");
        }
        assert!(driver::status().contains(parts[0]), "{}", driver::status());
    };
    match std::env::var("FUSED_RNN_SCENARIO").as_deref() {
        Err(_) => {} // run by hand, without a parent
        Ok("no driver") => unsupported(&["NVIDIA's driver is not there", "libcuda.so"]),
        Ok("old driver") => unsupported(&["the driver is too old", "CUDA 11.4", "11.8"]),
        Ok("driver without clusters") => unsupported(&["the driver is too old", "CUDA 12.4", "cuLaunchKernelEx"]),
        Ok("no GPU") => unsupported(&["the driver finds no GPU", "nvidia-smi"]),
        Ok("number out of range") => {
            let error = Driver::open(2).unwrap_err();
            assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "device"), "{error:?}");
            assert!(error.to_string().contains("0..=1"), "{error}");
            assert!(Driver::open(usize::MAX).is_err());
            assert_eq!(Driver::open(1).unwrap().ordinal(), 1);
        }
        Ok("old GPU") => {
            let message = Driver::open(0).unwrap_err().to_string();
            assert!(message.contains("Fake GPU 0 (compute capability 7.0)") && message.contains("7.5"), "{message}");
            assert!(driver::status().contains("too old for the kernels"), "{}", driver::status());
        }
        Ok("stub") => {
            let message = Driver::open(0).unwrap_err().to_string();
            assert!(message.contains("cuInit") && message.contains("stubs"), "{message}");
        }
        Ok("no context") => {
            let error = Driver::open(0).unwrap_err();
            assert!(matches!(&error, Error::Driver { code: 2, .. }), "{error:?}");
            assert!(error.to_string().contains("CUDA_ERROR_OUT_OF_MEMORY"), "{error}");
        }
        Ok("fault") => {
            let driver = Driver::open(0).unwrap();
            let stream = DriverStream::new(&driver).unwrap();
            let error = driver.synchronize(&stream).unwrap_err();
            assert!(matches!(&error, Error::Driver { code: 700, .. }), "{error:?}");
            let message = error.to_string();
            assert!(message.contains("CUDA_ERROR_ILLEGAL_ADDRESS") && message.contains("context is lost"), "{message}");
        }
        Ok("unknown code") => {
            let driver = Driver::open(0).unwrap();
            let stream = DriverStream::new(&driver).unwrap();
            let memory = Memory::new(&driver, 16);
            let mut to = [0; 16];
            // SAFETY: as long as the memory.
            let error = unsafe { driver.download(&stream, memory.at, &mut to) }.unwrap_err();
            assert!(matches!(&error, Error::Driver { code: 998, .. }), "{error:?}");
        }
        Ok("work") => {
            assert_eq!(Driver::count().unwrap(), 2);
            let driver = Driver::open(0).unwrap();
            copies_and_fills(&driver);
            capture_and_replay(&driver);
            too_little_memory(&driver);
            threads(&[0, 1]);
            let (stream, timer) = (DriverStream::new(&driver).unwrap(), Timer::new(&driver).unwrap());
            assert!(timer.microseconds().is_err(), "nothing was timed yet");
            timer.start(&stream).unwrap();
            timer.stop(&stream).unwrap();
            assert_eq!(timer.microseconds().unwrap(), 250.0);
            // A stream of another GPU is refused; the default ones are always there.
            let other = Driver::open(1).unwrap();
            assert!(matches!(other.synchronize(&stream), Err(Error::Driver { code: 400, .. })));
            for default in [0, DriverStream::LEGACY_DEFAULT, DriverStream::PER_THREAD_DEFAULT] {
                // SAFETY: the default streams belong to every context and live as long as it.
                let stream = unsafe { DriverStream::from_raw(default) };
                assert_eq!(stream.as_raw(), default);
                other.synchronize(&stream).unwrap();
            }
            let description = Driver::describe().unwrap();
            assert_eq!(description.cuda_version, (12, 4));
            assert!(description.to_string().contains("GPU 1: Fake GPU 1, compute capability 9.0, 132 SMs"));
        }
        Ok("launch") => {
            let driver = Driver::open(0).unwrap();
            let kernel = match driver.kernel(KERNEL) {
                Ok(kernel) => kernel,
                Err(error) => {
                    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
                    std::fs::write(std::env::var("FAKE_LOG").unwrap(), "no image").unwrap();
                    return;
                }
            };
            let stream = DriverStream::new(&driver).unwrap();
            let plain = Launch::new([7, 2, 3], 128);
            let launches = [
                plain,
                Launch { grid: [32, 1, 1], cluster: 16, shared_bytes: 200_000, ..plain },
                Launch { grid: [132, 1, 1], cooperative: true, shared_bytes: 1024, ..plain },
                Launch { grid: [8, 1, 1], cluster: 4, cooperative: true, ..plain },
            ];
            let give_all = || {
                launches.iter().try_for_each(|launch| {
                    // SAFETY: the stand-in runs no kernels.
                    unsafe { driver.launch(&stream, &kernel, launch, &[1, 2, 3, 4, 5, 6, 7, 8]) }
                })
            };
            give_all().unwrap();
            let graph = Graph::capture(&driver, &stream, give_all).unwrap();
            for _ in 0..2 {
                // SAFETY: as above.
                unsafe { graph.launch(&stream) }.unwrap();
            }
            assert_eq!(driver.resident_blocks(&kernel, &launches[0]).unwrap(), 264);
            assert_eq!(driver.resident_blocks(&kernel, &launches[1]).unwrap(), 132 / 16 * 16);
            refused_launches(&driver);
        }
        #[cfg(feature = "emulated")]
        Ok("engine") => engine(),
        Ok(other) => panic!("no such scenario: {other}"),
    }
}
