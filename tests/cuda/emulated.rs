//! The emulated GPU itself: its primitives against plain computations, and whether it finds what it says it finds.
#![allow(unsafe_code, reason = "launching a kernel vouches for its parameters")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::Rng;
use crate::common::primitives::{Case, cases, reduction, refused_launches, values_of};
use fused_rnn::backend::cuda::DeviceBuffer;
use fused_rnn::backend::cuda::device::{Device, DevicePtr, Launch};
use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};

const STREAM: EmulatedStream = EmulatedStream;

fn device(seed: u64, starve: bool) -> Arc<Emulated> {
    Arc::new(Emulated::new(Schedule { seed, starve }).unwrap())
}

/// The natural order, random orders, and random orders in which someone lags.
fn schedules() -> impl Iterator<Item = (u64, bool)> {
    (0..4).map(|seed| (seed, false)).chain((1..5).map(|seed| (seed, true)))
}

#[test]
fn primitives() {
    for (seed, starve) in schedules() {
        let device = device(seed, starve);
        for case in cases() {
            let outcome = case.run(&device, &STREAM).unwrap_or_else(|error| panic!("{}: {error}", case.kernel));
            case.check(&outcome).unwrap_or_else(|what| panic!("seed {seed}, starve {starve}: {what}"));
        }
        assert_eq!(device.allocated(), 0);
    }
}

#[test]
fn primitives_are_checked_sharply() {
    // Each output of each case matters: one damaged byte of any of them is seen.
    let device = device(0, false);
    for case in cases() {
        let outcome = case.run(&device, &STREAM).unwrap();
        for k in 0..2 {
            if outcome.outputs[k].is_empty() {
                continue;
            }
            let mut damaged = case.run(&device, &STREAM).unwrap();
            let last = damaged.outputs[k].len() - 1;
            damaged.outputs[k][last] ^= 0x40;
            assert!(case.check(&damaged).is_err(), "{}, out{k}", case.kernel);
            assert!(case.compare_outcomes(&damaged, &outcome).is_err(), "{}, out{k}", case.kernel);
        }
    }
}

fn order(seed: u64, starve: bool) -> Vec<u32> {
    let mut case = Case::new("test_order", 3, 64);
    case.outputs[0] = vec![0xff; 3 * 64 * 4];
    let outcome = case.run(&device(seed, starve), &STREAM).unwrap();
    values_of(&outcome.outputs[0])
}

#[test]
fn seeds_choose_the_order() {
    let natural: Vec<u32> = (0..192).collect();
    assert_eq!(order(0, false), natural);
    let mut orders = HashSet::new();
    for seed in 0..8 {
        let got = order(seed, false);
        assert_eq!(got, order(seed, false), "the same seed gives the same order");
        let mut sorted = got.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, natural, "every thread comes by once");
        orders.insert(got);
    }
    assert_eq!(orders.len(), 8);
}

#[test]
fn a_lagging_warp_exposes_a_reused_buffer() {
    let mut found = 0;
    for seed in 1..21 {
        let device = device(seed, true);
        let right = reduction(&mut Rng::new(seed), 0);
        right.check(&right.run(&device, &STREAM).unwrap()).unwrap();
        let racy = reduction(&mut Rng::new(seed), 1);
        found += u32::from(racy.check(&racy.run(&device, &STREAM).unwrap()).is_err());
    }
    assert!(found >= 15, "the race was seen under {found} of 20 seeds");
}

fn misuse(device: &Arc<Emulated>, mode: u32, cluster: u32) -> Result<(), String> {
    let mut case = Case::new("test_misuse", 4, 64);
    case.inputs[0] = vec![0; 1024];
    case.outputs[0] = vec![0; 64 * 4];
    case.launch.shared_bytes = 1024;
    case.launch.cluster = cluster;
    case.mode = mode;
    case.run(device, &STREAM).map(drop).map_err(|error| error.to_string())
}

#[test]
fn mistakes_are_errors() {
    for (seed, starve) in schedules() {
        let device = device(seed, starve);
        for (mode, cluster, says) in [
            (1, 1, "deadlock: no thread can go on"),
            (2, 1, "livelock: every thread that can run is in a wait loop"),
            (3, 1, "deadlock: no thread can go on"),
            (4, 1, "a shuffle reads lane 20, which does not take part in it"),
            (5, 1, "is not in its own mask 0xffff"),
            (6, 1, "other lanes of the warp are at"),
            (7, 1, "copies that it never waited for"),
            (8, 1, "an address is not aligned to 16 bytes"),
            (9, 1, "meets one for"),
            (10, 2, "it is not initialised"),
            (11, 2, "more arrivals than the barrier's 1"),
            (12, 2, "block 1 of the cluster has returned"),
            (13, 2, "between arriving at the cluster's barrier and waiting for it"),
            (14, 2, "rank 5 in a cluster of 2"),
        ] {
            let start = Instant::now();
            let message = misuse(&device, mode, cluster).expect_err("a mistake");
            assert!(message.contains(says), "mode {mode}, seed {seed}: {message}");
            assert!(message.contains("kernel test_misuse on the emulated GPU"), "{message}");
            assert!(start.elapsed() < Duration::from_secs(5), "mode {mode} took {:?}", start.elapsed());
            // The next launch finds everything in order.
            misuse(&device, 0, cluster).unwrap();
        }
    }
}

#[test]
fn messages_name_the_place() {
    let message = misuse(&device(0, false), 1, 1).unwrap_err();
    assert!(
        message.contains("32 threads, the first is 0, at __syncthreads (") && message.contains("primitives_test.cu:"),
        "{message}"
    );
}

#[test]
fn launches_obey_limits() {
    let device = device(0, false);
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
    let old = Emulated::with_compute_capability((7, 5), Schedule::default()).unwrap();
    assert_eq!(old.properties().max_cluster, 1);
    let message = old.kernel("test_cluster").unwrap_err().to_string();
    assert!(message.contains("it needs compute capability 9.0, this is 7.5"), "{message}");
    assert!(Emulated::with_compute_capability((1, 0), Schedule::default()).is_err());
    let (good, small) =
        (Launch::new([1, 1, 1], 64), Emulated::new(Schedule::default()).unwrap().with_resident_limit(10));
    let kernel = small.kernel("test_order").unwrap();
    assert_eq!(small.resident_blocks(&kernel, &Launch { cluster: 4, ..good }).unwrap(), 8);
    assert_eq!(small.resident_blocks(&kernel, &Launch { shared_bytes: 1 << 20, ..good }).unwrap(), 0);
}

#[test]
fn memory_is_exact_and_poisoned() {
    let device = device(0, false);
    let pointer = device.allocate("a tensor", 1000).unwrap();
    assert_eq!(pointer.0 % 256, 0);
    let mut bytes = [0u8; 1000];
    // SAFETY: what is within the allocation; the rest is refused.
    unsafe {
        device.download(&STREAM, pointer, &mut bytes).unwrap();
        assert!(bytes.iter().all(|b| *b == 0xff));
        device.fill(&STREAM, pointer.offset(10), 7, 990).unwrap();
        device.upload(&STREAM, pointer, &[1, 2, 3]).unwrap();
        device.download(&STREAM, pointer, &mut bytes).unwrap();
        assert_eq!((bytes[2], bytes[3], bytes[9], bytes[10], bytes[999]), (3, 0xff, 0xff, 7, 7));
        for refused in [
            device.download(&STREAM, pointer.offset(1), &mut bytes),
            device.upload(&STREAM, pointer.offset(999), &[1, 2]),
            device.fill(&STREAM, pointer, 0, 1001),
            device.fill(&STREAM, DevicePtr(64), 0, 1),
        ] {
            assert!(refused.unwrap_err().to_string().contains("are not within memory that this device allocated"));
        }
        device.release(pointer, 1000);
        assert!(device.download(&STREAM, pointer, &mut bytes).is_err());
        device.release(DevicePtr::NULL, 0);
    }
    assert_eq!(device.allocated(), 0);
    assert_eq!(device.allocate("nothing", 0).unwrap(), DevicePtr::NULL);
    let too_much = device.allocate("everything", usize::MAX / 2).unwrap_err().to_string();
    assert!(too_much.contains("everything"), "{too_much}");
    drop(DeviceBuffer::<f32, Emulated>::new(&device, "a tensor", 10).unwrap());
    assert_eq!(device.allocated(), 0);
}

#[test]
fn threads_launch_at_once() {
    let device = &device(3, true);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    for case in cases().iter().filter(|case| case.kernel != "test_convert") {
                        case.check(&case.run(device, &STREAM).unwrap()).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
