//! The device behind NVIDIA's driver, on a stand-in for it (`fake_driver/libcuda.c`) that needs no GPU: this program runs itself with it
//! and looks at the errors, the contexts and the launches that reach the driver.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::passes::{
    KERNEL, Memory, capture_and_replay, copies_and_fills, on, refused_launches, threads, too_little_memory,
};
use fused_rnn::Error;
use fused_rnn::backend::cuda::device::{Device, Launch};
use fused_rnn::backend::cuda::driver::{self, Driver, DriverStream, Graph, Timer};
use fused_rnn::backend::{ForwardMode, RecurrentBackend};
use fused_rnn::rnn::{RnnDescriptor, RnnShape};

/// Runs `scenario` in a process of its own that finds `library` as libcuda; returns the stand-in's log.
fn run(scenario: &str, library: &Path, variables: &[(&str, &str)]) -> String {
    let log = library.parent().unwrap().join(format!("{scenario}.log"));
    let mut path = std::ffi::OsString::from(library.parent().unwrap());
    if let Some(before) = std::env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(before);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "driver::scenario", "--ignored", "--nocapture"])
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

/// The stand-in for the driver, by the name that a driver installs, compiled into a folder of its own; `None` where there is no C compiler.
fn stand_in(test: &str, flags: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcuda.so.1");
    let source = "tests/cuda/fake_driver/libcuda.c";
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

/// A toolkit's stub beside it has the name that linkers look for.
#[test]
fn the_driver_comes_before_a_stub() {
    let Some((folder, library)) = stand_in("the_driver_comes_before_a_stub", &["-DSTUB"]) else { return };
    std::fs::rename(&library, folder.path().join("libcuda.so")).unwrap();
    run("stub", &library, &[]);
    let Some((driver, library)) = stand_in("the_driver_comes_before_a_stub", &[]) else { return };
    std::fs::copy(folder.path().join("libcuda.so"), driver.path().join("libcuda.so")).unwrap();
    let log = run("work", &library, &[("FAKE_GPUS", "2")]);
    assert!(log.contains("release context 1"), "{log}");
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

/// What the driver says of clusters decides about one family, not about the plan.
#[test]
fn a_refused_question_refuses_a_family() {
    let Some((_folder, library)) = stand_in("a_refused_question_refuses_a_family", &[]) else { return };
    let chosen = |fail: (&str, &str)| run("families", &library, &[fail]);
    if chosen(("FAKE_GPUS", "1")).contains("no image") {
        let _ = writeln!(std::io::stderr(), "SKIPPED a_refused_question_refuses_a_family: this build has no kernels");
        return;
    }
    for (variable, value, why) in [
        ("FAKE_FAIL", "cuOccupancyMaxActiveClusters:912", "not cluster: the driver does not say"),
        ("FAKE_FAIL", "cuOccupancyMaxPotentialClusterSize:1", "not cluster: the driver does not say"),
        ("FAKE_CLUSTER", "4", "not cluster: a cluster of 8 blocks is over the GPU's 4 of this kernel"),
        ("FAKE_FAIL", "cuOccupancyMaxActiveBlocksPerMultiprocessor:701", "not grid: the driver does not say"),
    ] {
        let loops = chosen((variable, value));
        assert_eq!(loops.matches(why).count(), 2, "forward and backward with {value}: {loops}");
    }
    let loops = chosen(("FAKE_GPUS", "1"));
    assert!(!loops.contains("not cluster") && !loops.contains("not grid"), "{loops}");
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
        .args(["bench", "--backend", "cuda", "--json", "--lines", "--rounds", "1", "--seconds", "0.01"])
        .env("LD_LIBRARY_PATH", folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = "--backend cuda --dtype bf16 --graph --cell gru --pass infer --json --seconds 0.01\n\
                 --backend cuda --device 3 --json\n--no-such-flag\n--backend cuda --dtype tf32 --pass fwd --json --seconds 0.01\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answers: Vec<serde_json::Value> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(output.status.code(), Some(1), "one of them was wrong");
    // Inference and training of the first line and of the one with a GPU that is not there.
    assert_eq!(answers.len(), 7, "{answers:?}");
    // Every pair of events is a quarter of a millisecond apart on the stand-in, and short calls are timed together.
    let text = |index: usize, name: &str| answers[index][name].as_str().unwrap_or_default().to_owned();
    assert_eq!((text(0, "backend"), text(0, "dtype"), text(0, "pass")), ("cuda".into(), "f32".into(), "infer".into()));
    assert_eq!(text(1, "pass"), "fwd+bwd");
    for index in [0, 1, 2, 6] {
        assert!(
            answers[index]["us_per_step"].as_f64() > Some(0.0) && text(index, "plan").ends_with("kernels"),
            "{answers:?}"
        );
        assert!(answers[index]["us_per_step_without_input"].as_f64() > Some(0.0), "{answers:?}");
    }
    assert_eq!(
        (text(2, "cell"), answers[2]["graph"].as_bool(), text(2, "pass")),
        ("gru".into(), Some(true), "infer".into())
    );
    assert!(text(3, "error").contains("option device") && text(4, "error").contains("option device"), "{answers:?}");
    assert!(text(5, "error").contains("--no-such-flag"), "{answers:?}");
    assert_eq!((text(6, "dtype"), text(6, "pass")), ("tf32".into(), "fwd".into()));
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
    use std::sync::Arc;

    use super::passes::{bits, each_pass, passes_on_threads, primitives, repeats, replays};
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    use fused_rnn::backend::cuda::{CudaBackend, CudaOptions};

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
    let mut case = crate::common::primitives::Case::new("test_misuse", 4, 64);
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
            assert!(message.contains("cuInit") && message.contains("stub of libcuda"), "{message}");
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
            assert_eq!(driver.largest_cluster(&kernel, &plain).unwrap(), 16);
            refused_launches(&driver);
        }
        Ok("families") => {
            let (descriptor, shape) = (RnnDescriptor::lstm(64, 256), RnnShape { seq_len: 8, batch: 8 });
            match on::<half::bf16>(&Driver::open(0).unwrap()).plan(&descriptor, shape, ForwardMode::Training) {
                Ok(plan) => {
                    let loops = plan.time_loops();
                    let why: Vec<String> = loops.iter().map(|one| format!("{}: {}", one.family, one.why)).collect();
                    std::fs::write(std::env::var("FAKE_LOG").unwrap(), why.join("\n")).unwrap();
                }
                Err(error) => {
                    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
                    std::fs::write(std::env::var("FAKE_LOG").unwrap(), "no image").unwrap();
                }
            }
        }
        #[cfg(feature = "emulated")]
        Ok("engine") => engine(),
        Ok(other) => panic!("no such scenario: {other}"),
    }
}
