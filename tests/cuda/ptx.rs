//! The PTX interpreter itself: every primitive of the kernels as its PTX computes it, against plain computations; and whether the interpreter
//! finds what it says it finds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::Rng;
use crate::common::primitives::{Case, cases, reduction};
use crate::common::ptx::ptx;
use fused_rnn::Error;
use fused_rnn::backend::cuda::device::{Device, DevicePtr, Launch};
use fused_rnn::backend::cuda::ptx::{Ptx, PtxStream};

const STREAM: PtxStream = PtxStream;

#[test]
fn primitives() {
    for seed in 0..3 {
        let Some(device) = ptx(seed) else { return };
        // Conversions of every number take longest, and no other thread has a part in them.
        for case in cases().iter().filter(|case| seed == 0 || case.kernel != "test_convert") {
            let outcome = case.run(&device, &STREAM).unwrap_or_else(|error| panic!("{}: {error}", case.kernel));
            case.check(&outcome).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        }
        assert_eq!(device.allocated(), 0);
    }
}

/// A lagging warp writes a buffer that others still read: found under every order of warps, whether it shows or not.
#[test]
fn a_reused_buffer_is_a_race() {
    for seed in 0..4 {
        let Some(device) = ptx(seed) else { return };
        reduction(&mut Rng::new(seed), 0).run(&device, &STREAM).unwrap();
        let message = reduction(&mut Rng::new(seed), 1).run(&device, &STREAM).unwrap_err().to_string();
        assert!(
            message.contains("data race") && message.contains("expected something that orders the two"),
            "{message}"
        );
    }
}

fn misuse(device: &Arc<Ptx>, mode: u32, cluster: u32) -> Result<(), Error> {
    let mut case = Case::new("test_misuse", 4, 64);
    case.inputs[0] = vec![0; 1024];
    case.outputs[0] = vec![0; 64 * 4];
    case.launch.shared_bytes = 1024;
    case.launch.cluster = cluster;
    case.mode = mode;
    case.run(device, &STREAM).map(drop)
}

#[test]
fn mistakes_are_errors() {
    for seed in 0..3 {
        let Some(device) = ptx(seed) else { return };
        for (mode, cluster, says) in [
            (1, 1, &["deadlock"][..]),
            (2, 1, &["deadlock"]),
            (3, 1, &["executed by a part of a warp"]),
            (4, 1, &["executed by a part of a warp"]),
            (5, 1, &["executed by a part of a warp"]),
            (6, 1, &["executed by a part of a warp"]),
            (8, 1, &["misaligned access"]),
            (9, 1, &["misused barrier"]),
            (10, 2, &["misused mbarrier"]),
            (11, 2, &["misused mbarrier"]),
            // By the order of warps: the block has ended, or only might have.
            (12, 2, &["misused asynchronous operation", "data race"]),
            (14, 2, &["access out of bounds"]),
        ] {
            let start = Instant::now();
            let error = misuse(&device, mode, cluster).expect_err("a mistake");
            let Error::PtxFault { kernel, line, fault, .. } = &error else { panic!("mode {mode}: {error}") };
            assert_eq!(kernel, "test_misuse");
            assert!(*line > 0 && says.iter().any(|text| fault.contains(text)), "mode {mode}, seed {seed}: {error}");
            assert!(start.elapsed() < Duration::from_secs(10), "mode {mode} took {:?}", start.elapsed());
            // The next launch finds everything in order.
            misuse(&device, 0, cluster).unwrap();
        }
    }
}

#[test]
fn launches_obey_limits() {
    let Some(device) = ptx(0) else { return };
    let kernel = device.kernel("test_order").unwrap();
    let params = [0u8; 56];
    let launch = |launch: Launch, params: &[u8]| {
        // SAFETY: every one of these is refused before the kernel runs.
        unsafe { device.launch(&STREAM, &kernel, &launch, params) }.unwrap_err().to_string()
    };
    let good = Launch::new([1, 1, 1], 64);
    for (geometry, bytes, says) in [
        (good, 55, "its parameters have 56 bytes, but 55 were given"),
        (Launch { block: 128, ..good }, 56, "it has 64 threads a block, but 128 were given"),
        (Launch { shared_bytes: 232_449, ..good }, 56, "232449 bytes of shared memory"),
        (Launch { grid: [0, 1, 1], ..good }, 56, "a grid of 0 x 1 x 1 blocks"),
        (Launch { grid: [6, 1, 1], cluster: 4, ..good }, 56, "clusters of 4 blocks in a grid of 6"),
        (
            Launch { grid: [65, 1, 1], cooperative: true, ..good },
            56,
            "65 blocks are to be resident together, where 64 can be",
        ),
    ] {
        let message = launch(geometry, &params[..bytes]);
        assert!(message.contains(says), "{message}");
    }
    assert!(device.kernel("no_such_kernel").unwrap_err().to_string().contains("has no such entry point"));
}

#[test]
fn memory_is_exact_and_poisoned() {
    let Some(device) = ptx(0) else { return };
    let pointer = device.allocate("a tensor", 1000).unwrap();
    let mut bytes = [0u8; 1000];
    // SAFETY: what is within the allocation; the rest is refused.
    unsafe {
        device.download(&STREAM, pointer, &mut bytes).unwrap();
        assert!(bytes.iter().all(|b| *b == 0xff));
        device.fill(&STREAM, pointer.offset(10), 7, 990).unwrap();
        device.download(&STREAM, pointer, &mut bytes).unwrap();
        assert_eq!((bytes[9], bytes[10], bytes[999]), (0xff, 7, 7));
        for refused in [
            device.download(&STREAM, pointer.offset(1), &mut bytes),
            device.upload(&STREAM, pointer.offset(999), &[1, 2]),
            device.fill(&STREAM, DevicePtr(64), 0, 1),
        ] {
            assert!(refused.unwrap_err().to_string().contains("are not within memory that this device allocated"));
        }
        device.release(pointer, 1000);
        assert!(device.download(&STREAM, pointer, &mut bytes).is_err());
    }
    assert_eq!(device.allocated(), 0);
    assert!(device.allocate("everything", usize::MAX / 2).is_err());
}
