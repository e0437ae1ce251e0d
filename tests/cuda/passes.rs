//! What a device behind the driver must do, for a GPU (`gpu.rs`) and for a stand-in (`driver.rs`): copies, graphs, threads, launches
//! that are refused, and passes of the operator that repeat to the bit.

#[cfg(feature = "emulated")]
use std::io::Write;
use std::sync::Arc;

use crate::common::Rng;
use fused_rnn::backend::ForwardMode;
use fused_rnn::backend::cuda::device::{Device, DevicePtr, Launch};
use fused_rnn::backend::cuda::driver::{Driver, DriverStream, Graph};
use fused_rnn::backend::cuda::{CudaBackend, CudaOptions};
use fused_rnn::backend::device_pass::{DeviceGradients, DeviceInputs, DevicePass};
use fused_rnn::backend::pass::{Inputs, OutputGradients};
use fused_rnn::cell::CellKind;
use fused_rnn::rnn::{Direction, RnnDescriptor, RnnShape, WeightLayout};
use fused_rnn::{Element, Error};

/// A kernel that every image has.
pub const KERNEL: &str = "dropout_f32";

/// Memory of a test, given back at its end.
pub struct Memory {
    driver: Arc<Driver>,
    pub at: DevicePtr,
    bytes: usize,
}

impl Memory {
    pub fn new(driver: &Arc<Driver>, bytes: usize) -> Self {
        let at = driver.allocate("a test's memory", bytes).unwrap();
        Memory { driver: Arc::clone(driver), at, bytes }
    }

    pub fn upload(&self, stream: &DriverStream, from: &[u8]) {
        assert!(from.len() <= self.bytes);
        // SAFETY: the memory is as long as checked.
        unsafe { self.driver.upload(stream, self.at, from) }.unwrap();
    }

    pub fn download(&self, stream: &DriverStream) -> Vec<u8> {
        let mut to = vec![0x5a; self.bytes];
        // SAFETY: the memory is as long as the vector.
        unsafe { self.driver.download(stream, self.at, &mut to) }.unwrap();
        to
    }

    pub fn fill(&self, stream: &DriverStream, offset: usize, value: u8, bytes: usize) -> fused_rnn::Result<()> {
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

pub fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(167).wrapping_add(seed * 31) >> 3) as u8).collect()
}

/// Copies and fills of awkward lengths, at awkward offsets, come back as they went.
pub fn copies_and_fills(driver: &Arc<Driver>) {
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
pub fn capture_and_replay(driver: &Arc<Driver>) {
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
pub fn threads(ordinals: &[usize]) {
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
pub fn refused_launches(driver: &Arc<Driver>) {
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
pub fn too_little_memory(driver: &Driver) {
    let error = driver.allocate("the reserve", 1 << 50).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("the reserve") && message.contains("free"), "{message}");
}

/// A pass with as much in it as fits: two bidirectional layers with dropout, lengths, resets, initial states.
pub fn pass(device: &fused_rnn::Device, cell: CellKind, mode: ForwardMode) -> DevicePass {
    let mut descriptor = RnnDescriptor::new(cell, 9, 21);
    descriptor.num_layers = 2;
    descriptor.direction = Direction::Bidirectional;
    descriptor.dropout = 0.3;
    let shape = RnnShape { seq_len: 7, batch: 5 };
    let tensors = shape.tensors(&descriptor).unwrap();
    let mut rng = Rng::new(11);
    let mut draw =
        |sizes: &[usize]| -> Vec<f64> { (0..sizes.iter().product()).map(|_| rng.uniform(-0.7, 0.7)).collect() };
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
    let inputs = DeviceInputs::new(device, &inputs).unwrap();
    let gradients = DeviceGradients::new(device, &gradients).unwrap();
    DevicePass::new(device, &descriptor, shape, mode, inputs, gradients).unwrap()
}

/// All that a run gave, as bytes.
pub fn bits(pass: &DevicePass) -> Vec<u8> {
    let outputs = pass.outputs().unwrap();
    let mut all = [outputs.y, outputs.hn, outputs.cn.unwrap_or_default()].concat();
    if let Some(gradients) = pass.input_gradients().unwrap() {
        all.extend([gradients.dx, gradients.dh0, gradients.dc0.unwrap_or_default(), gradients.dweights].concat());
    }
    assert!(all.iter().all(|value| value.is_finite()), "something was not written");
    bytemuck::cast_slice(&all).to_vec()
}

pub fn each_pass<E: Element, D: Device>(backend: &CudaBackend<E, D>, mut check: impl FnMut(&str, DevicePass)) {
    let device = fused_rnn::Device::of(backend.clone());
    for cell in CellKind::ALL {
        for mode in [ForwardMode::Inference, ForwardMode::Training] {
            check(&format!("{cell}, {}, {mode:?}", E::DTYPE), pass(&device, cell, mode));
        }
    }
}

/// The same bits in every run, whatever stood in the outputs, the workspace and the reserve.
pub fn repeats<E: Element, D: Device>(backend: &CudaBackend<E, D>, runs: usize) {
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
pub fn replays<E: Element>(driver: &Arc<Driver>) {
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
pub fn passes_on_threads(driver: &Arc<Driver>, rounds: usize) {
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
pub fn on<E: Element>(driver: &Arc<Driver>) -> CudaBackend<E, Driver> {
    let stream = DriverStream::new(driver).unwrap();
    CudaBackend::with_options(Arc::clone(driver), stream, CudaOptions::default())
}

/// Every primitive of `prims.cuh` gives what it must, and what its host version gives. A wait that never ends gives up.
#[cfg(feature = "emulated")]
pub fn primitives(driver: &Arc<Driver>, rounds: usize) {
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    let emulated = Arc::new(Emulated::new(Schedule::default()).unwrap());
    let stream = DriverStream::new(driver).unwrap();
    let (major, minor) = driver.properties().compute_capability;
    for case in crate::common::primitives::cases() {
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
fn repeat_on_the_emulated_gpu() {
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    for seed in 0..2 {
        let device = Arc::new(Emulated::new(Schedule { seed, starve: seed > 0 }).unwrap());
        let options = CudaOptions::default;
        repeats::<f32, _>(&CudaBackend::with_options(Arc::clone(&device), EmulatedStream, options()), 3);
        repeats::<half::bf16, _>(&CudaBackend::with_options(device, EmulatedStream, options()), 3);
    }
}
