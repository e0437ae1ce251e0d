//! The PTX interpreter itself: every primitive of the kernels as its PTX computes it, against plain computations; and whether the interpreter
//! finds what it says it finds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::Rng;
use crate::common::primitives::{Case, cases, reduction, refused_launches};
use crate::common::ptx::ptx;
use fused_rnn::Error;
use fused_rnn::backend::cuda::device::{Device, DevicePtr, Launch};
use fused_rnn::backend::cuda::ptx::{Ptx, PtxStream, Schedule, source};

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
    for (geometry, bytes, says) in refused_launches() {
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

/// Text that is no PTX any more is refused, or is another program: reading it never panics.
#[test]
fn damaged_text_is_read_or_refused() {
    let Some(_) = ptx(0) else { return };
    let (mut read, mut refused) = (0, 0);
    for name in ["test_order", "test_hand_off", "test_cluster"] {
        let whole = source(name, (9, 0)).unwrap();
        // The entry with the module's head, so that damage meets it.
        let start = whole.find(&format!(".entry {name}(")).unwrap();
        let end = start + whole[start..].find("\n}\n").unwrap() + 3;
        let module = [&whole[..whole.find(".visible").unwrap()], ".visible ", &whole[start..end]].concat();
        for seed in 0..1500 {
            let rng = &mut Rng::new(seed);
            let mut text = module.clone().into_bytes();
            for _ in 0..1 + rng.below(4) {
                let digits: Vec<usize> = (0..text.len()).filter(|i| text[*i].is_ascii_digit()).collect();
                if digits.is_empty() {
                    break;
                }
                let at = rng.below(text.len());
                let until = at + rng.below((text.len() - at).min(40) + 1);
                match rng.below(5) {
                    0 => text[at] = rng.pick(b"0123456789{}[]()<>,;:.+-@!%_|xr \n"),
                    1 => drop(text.drain(at..until)),
                    2 => {
                        let copy = text[at..until].to_vec();
                        text.splice(at..at, copy);
                    }
                    3 => text.truncate(at + 1),
                    _ => {
                        let number = rng.pick(&["0", "4294967295", "18446744073709551615", "-1", "0x7fffffffffffffff"]);
                        let place = digits[rng.below(digits.len())];
                        text.splice(place..=place, number.bytes());
                    }
                }
            }
            let text = String::from_utf8(text).unwrap();
            match Ptx::new(Schedule::default()).unwrap().with_kernel(name, &text) {
                Ok(_) => read += 1,
                Err(error) => {
                    assert!(matches!(error, Error::PtxFault { .. }), "{name}, seed {seed}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 100 && refused > 1000, "{read} read, {refused} refused");
}
