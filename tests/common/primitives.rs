//! Every primitive of `kernels/prims.cuh`: inputs, launches, and what must come out, computed here and not by the kernels'
//! code. `kernels/primitives_test.cu` has the entry points.

use bytemuck::{Pod, Zeroable, cast_slice};
use fused_rnn::Result;
use fused_rnn::backend::cuda::DeviceBuffer;
use fused_rnn::backend::cuda::device::{Device, Launch};
use std::sync::Arc;

use super::Rng;

/// `PrimitiveParams` of `kernels/params.cuh`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    input: [u64; 2],
    output: [u64; 2],
    extra: u64,
    flags: u64,
    n: u32,
    mode: u32,
}

/// How near an output must come to what is expected, and a GPU's to the host's.
#[derive(Clone, Copy, Debug)]
pub enum Within {
    /// The same bytes.
    Bits,
    /// f32 or f64: this far, relative to the larger magnitude, or this far absolutely. NaN matches NaN alone, infinities
    /// themselves alone.
    F32(f64, f64),
    F64(f64, f64),
}

/// A launch, its buffers, and what must be in them afterwards.
pub struct Case {
    pub kernel: &'static str,
    pub launch: Launch,
    pub min_compute: u32,
    pub inputs: [Vec<u8>; 2],
    /// Contents before the launch.
    pub outputs: [Vec<u8>; 2],
    /// Scratch of this many bytes, all 0xff.
    pub extra: usize,
    pub flags: Vec<u32>,
    pub n: u32,
    pub mode: u32,
    pub expected: [(Vec<u8>, Within); 2],
    pub expected_flags: Vec<u32>,
}

/// What a launch left behind.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub outputs: [Vec<u8>; 2],
    pub flags: Vec<u32>,
}

impl Case {
    /// A case without inputs and outputs, of one block.
    pub fn new(kernel: &'static str, blocks: u32, threads: u32) -> Self {
        Case {
            kernel,
            launch: Launch::new([blocks, 1, 1], threads),
            min_compute: 75,
            inputs: Default::default(),
            outputs: Default::default(),
            extra: 0,
            flags: vec![0; 4],
            n: 0,
            mode: 0,
            expected: [(Vec::new(), Within::Bits), (Vec::new(), Within::Bits)],
            expected_flags: vec![0; 4],
        }
    }

    fn input<T: Pod>(mut self, k: usize, values: &[T]) -> Self {
        self.inputs[k] = cast_slice(values).to_vec();
        self
    }

    /// What output `k` must become; before the launch it is all 0xff.
    fn expect<T: Pod>(mut self, k: usize, values: &[T], within: Within) -> Self {
        self.expected[k] = (cast_slice(values).to_vec(), within);
        self.outputs[k] = vec![0xff; size_of_val(values)];
        self
    }

    /// Runs it. A fault of the kernel is an error.
    #[allow(unsafe_code, reason = "launching a kernel vouches for its parameters")]
    pub fn run<D: Device>(&self, device: &Arc<D>, stream: &D::Stream) -> Result<Outcome> {
        let kernel = device.kernel(self.kernel)?;
        let buffer = |what: &str, bytes: &[u8]| DeviceBuffer::<u8, D>::from_slice(device, stream, what, bytes);
        let inputs = [buffer("in0", &self.inputs[0])?, buffer("in1", &self.inputs[1])?];
        let outputs = [buffer("out0", &self.outputs[0])?, buffer("out1", &self.outputs[1])?];
        let extra = buffer("extra", &vec![0xff; self.extra])?;
        let flags = buffer("flags", cast_slice(&self.flags))?;
        let params = Params {
            input: [inputs[0].pointer().0, inputs[1].pointer().0],
            output: [outputs[0].pointer().0, outputs[1].pointer().0],
            extra: extra.pointer().0,
            flags: flags.pointer().0,
            n: self.n,
            mode: self.mode,
        };
        // SAFETY: the struct is the kernel's own, and every buffer has the size that `primitives_test.cu` says.
        unsafe { device.launch(stream, &kernel, &self.launch, bytemuck::bytes_of(&params))? };
        let mut outcome = Outcome { outputs: self.outputs.clone(), flags: self.flags.clone() };
        for (buffer, values) in outputs.iter().zip(&mut outcome.outputs) {
            buffer.read(stream, values)?;
        }
        flags.read(stream, bytemuck::cast_slice_mut(&mut outcome.flags))?;
        Ok(outcome)
    }

    /// Compares what came out with what must. What is wrong, or nothing.
    pub fn check(&self, outcome: &Outcome) -> Result<(), String> {
        let expected = [&self.expected[0].0, &self.expected[1].0].map(Vec::as_slice);
        self.compare(outcome, expected, &self.expected_flags)
    }

    /// Compares two outcomes, within the same bounds.
    pub fn compare_outcomes(&self, a: &Outcome, b: &Outcome) -> Result<(), String> {
        self.compare(a, [&b.outputs[0], &b.outputs[1]], &b.flags)
    }

    fn compare(&self, outcome: &Outcome, expected: [&[u8]; 2], flags: &[u32]) -> Result<(), String> {
        for k in 0..2 {
            let (got, within) = (&outcome.outputs[k], self.expected[k].1);
            differs(got, expected[k], within).map_or(Ok(()), |what| Err(format!("{}, out{k}: {what}", self.kernel)))?;
        }
        if outcome.flags != flags {
            return Err(format!("{}: flags {:?}, expected {flags:?}", self.kernel, outcome.flags));
        }
        Ok(())
    }
}

/// The values that bytes of any alignment stand for.
pub fn values_of<T: Pod>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

fn differs(got: &[u8], expected: &[u8], within: Within) -> Option<String> {
    if got.len() != expected.len() {
        return Some(format!("{} bytes, expected {}", got.len(), expected.len()));
    }
    let values = |bytes: &[u8]| -> Vec<f64> {
        match within {
            Within::F64(..) => values_of::<f64>(bytes),
            _ => values_of::<f32>(bytes).into_iter().map(f64::from).collect(),
        }
    };
    let (relative, absolute) = match within {
        Within::Bits => {
            let i = got.iter().zip(expected).position(|(a, b)| a != b)?;
            return Some(format!("byte {i} is {:#04x}, expected {:#04x}", got[i], expected[i]));
        }
        Within::F32(relative, absolute) | Within::F64(relative, absolute) => (relative, absolute),
    };
    values(got).into_iter().zip(values(expected)).enumerate().find_map(|(i, (a, b))| {
        let near = (a - b).abs() <= absolute.max(relative * a.abs().max(b.abs()));
        let same = a == b || (a.is_nan() && b.is_nan()) || (a.is_finite() && b.is_finite() && near);
        (!same).then(|| format!("[{i}] is {a:e}, expected {b:e}"))
    })
}

/// Numbers that rounding and functions get wrong first, then random ones of every magnitude.
fn floats(n: usize, rng: &mut Rng) -> Vec<f32> {
    let mut values =
        vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::MAX, f32::MIN_POSITIVE];
    values.extend([65504.0, 65519.99, 65520.0, 65536.0, -65520.0, 1e-45, -1e-45, 6.0e-8, 2.98e-8, 2.981e-8, 6.1e-5]);
    // Ties of f16, bf16 and TF32, and their neighbours.
    for ulp in [1.0f32 / 1024.0, 1.0 / 128.0] {
        for half in 0..8 {
            let tie = 1.0 + ulp * (half as f32 + 0.5);
            values.extend([tie, -tie, f32::from_bits(tie.to_bits() + 1), f32::from_bits(tie.to_bits() - 1)]);
        }
    }
    while values.len() < n {
        values.push(match values.len() % 3 {
            0 => f32::from_bits(rng.bits() as u32),
            1 => rng.uniform(-4.0, 4.0) as f32,
            _ => (rng.uniform(-1.0, 1.0) * 10f64.powf(rng.uniform(-9.0, 6.0))) as f32,
        });
    }
    values.truncate(n);
    values
}

fn words(n: usize, rng: &mut Rng) -> Vec<u32> {
    (0..n).map(|_| rng.bits() as u32).collect()
}

/// To ten bits of mantissa, ties away from zero, in wider arithmetic.
fn tf32(x: f32) -> u32 {
    if x.is_nan() {
        return 0x7fff_ffff;
    }
    if x.is_infinite() || x == 0.0 {
        return x.to_bits();
    }
    let exponent = ((x.to_bits() >> 23 & 0xff) as i32).max(1) - 127;
    let ulp = 2f64.powi(exponent - 10);
    // `f64::round` takes ties away from zero. What rounds beyond the largest number is infinite.
    let rounded = (f64::from(x) / ulp).round() * ulp;
    (rounded as f32).to_bits()
}

fn f16_bits(x: f32) -> u16 {
    if x.is_nan() { 0x7fff } else { half::f16::from_f32(x).to_bits() }
}

fn bf16_bits(x: f32) -> u16 {
    if x.is_nan() { 0x7fff } else { half::bf16::from_f32(x).to_bits() }
}

/// All primitives.
pub fn cases() -> Vec<Case> {
    let mut rng = Rng::new(20);
    let mut all = vec![convert(&mut rng), approximate(&mut rng)];
    all.extend([accurate_f32(&mut rng), accurate_f64(&mut rng), philox(&mut rng), warp_reductions(&mut rng)]);
    all.extend([shuffles(&mut rng), named_barriers(&mut rng), hand_off(&mut rng), spin_gives_up()]);
    all.extend([loads_once(&mut rng), cp_async(&mut rng), ldmatrix(&mut rng)]);
    all.extend([mma_16(&mut rng, "test_mma_f16"), mma_16(&mut rng, "test_mma_bf16"), mma_tf32(&mut rng)]);
    all.extend([cluster(&mut rng), store_async(&mut rng), reduction(&mut rng, 0)]);
    all
}

fn convert(rng: &mut Rng) -> Case {
    let n = 1 << 16;
    let values = floats(n, rng);
    let pair = |f: fn(f32) -> u16, x: f32| u32::from(f(x)) | u32::from(f(-x)) << 16;
    let narrow: Vec<u32> = values
        .iter()
        .flat_map(|&x| [f16_bits(x).into(), bf16_bits(x).into(), tf32(x), pair(bf16_bits, x), pair(f16_bits, x)])
        .collect();
    let wide: Vec<f32> = (0..n)
        .flat_map(|i| [half::f16::from_bits(i as u16).to_f32(), half::bf16::from_bits(i as u16).to_f32()])
        .collect();
    let mut case = Case::new("test_convert", 512, 128).input(0, &values).expect(0, &narrow, Within::Bits);
    case = case.expect(1, &wide, Within::F32(0.0, 0.0)); // NaNs may have any bits
    case.n = n as u32;
    case
}

/// Each function of `accurate_test` in f64.
fn accurate(x: f64) -> [f64; 6] {
    [x.exp(), x.exp_m1(), x.abs().ln(), x.abs().ln_1p(), x.tanh(), x.abs().sqrt()]
}

fn accurate_f32(rng: &mut Rng) -> Case {
    let values = floats(4096, rng);
    let expected: Vec<f32> = values.iter().flat_map(|&x| accurate(x.into()).map(|y| y as f32)).collect();
    // At most 2 ulp by CUDA's guide; the smallest subnormal numbers may differ by one.
    let mut case = Case::new("test_accurate_f32", 32, 128).input(0, &values);
    case = case.expect(0, &expected, Within::F32(3.0e-7, 3e-45));
    case.n = 4096;
    case
}

fn accurate_f64(rng: &mut Rng) -> Case {
    let values: Vec<f64> = floats(4096, rng).into_iter().map(|x| f64::from(x) * 1.000_000_1).collect();
    let expected: Vec<f64> = values.iter().flat_map(|&x| accurate(x)).collect();
    let mut case = Case::new("test_accurate_f64", 32, 128).input(0, &values);
    case = case.expect(0, &expected, Within::F64(5.0e-16, 1e-323));
    case.n = 4096;
    case
}

fn approximate(rng: &mut Rng) -> Case {
    let values: Vec<f32> = (0..4096).map(|_| rng.uniform(-20.0, 20.0) as f32).collect();
    let expected: Vec<f32> = values.iter().flat_map(|&x| [x.exp2(), 1.0 / x, x.tanh()]).collect();
    let mut case = Case::new("test_approximate", 32, 128).input(0, &values);
    // 2^-10.9 is what PTX says of tanh.approx, the coarsest of the three.
    case = case.expect(0, &expected, Within::F32(2f64.powf(-10.9), 0.0));
    case.n = 4096;
    case
}

fn philox(rng: &mut Rng) -> Case {
    let counters = words(256 * 6, rng);
    let expected: Vec<u32> = counters
        .chunks_exact(6)
        .flat_map(|c| {
            let key = u64::from(c[4]) | u64::from(c[5]) << 32;
            fused_rnn::rnn::dropout::philox4x32([c[0], c[1], c[2], c[3]], key)
        })
        .collect();
    let mut case = Case::new("test_philox", 2, 128).input(0, &counters).expect(0, &expected, Within::Bits);
    case.n = 256;
    case
}

fn warp_reductions(rng: &mut Rng) -> Case {
    let values: Vec<f32> = (0..128).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    let (mut singles, mut doubles) = (Vec::new(), Vec::new());
    for warp in values.chunks_exact(32) {
        // Lanes 16 apart first, then 8, 4, 2, 1: the same bits as the kernel's.
        fn tree<T: Copy + std::ops::Add<Output = T>>(mut v: Vec<T>) -> T {
            while v.len() > 1 {
                let half = v.len() / 2;
                v = (0..half).map(|i| v[i] + v[i + half]).collect();
            }
            v[0]
        }
        let sum = tree(warp.to_vec());
        let largest = warp.iter().copied().fold(f32::MIN, f32::max);
        let squares = tree(warp.iter().map(|x| f64::from(*x) * f64::from(*x)).collect());
        for _ in 0..32 {
            singles.extend([sum, largest]);
            doubles.push(squares);
        }
    }
    let case = Case::new("test_warp_reductions", 2, 64).input(0, &values);
    case.expect(0, &singles, Within::Bits).expect(1, &doubles, Within::Bits)
}

fn shuffles(rng: &mut Rng) -> Case {
    let values = words(128, rng);
    let mut expected = Vec::new();
    for (i, &own) in values.iter().enumerate() {
        let (warp, lane) = (&values[i / 32 * 32..][..32], i % 32);
        let within = |source: usize, width: usize| if source / width == lane / width { warp[source] } else { own };
        expected.extend([warp[5], warp[lane / 8 * 8 + (lane + 1) % 8], warp[lane ^ 3], warp[lane ^ 16]]);
        expected.extend([if lane + 3 < 32 { warp[lane + 3] } else { own }, within((lane + 1).min(31), 8)]);
        expected.extend([if lane >= 2 { warp[lane - 2] } else { own }, within(lane.max(1) - 1, 4)]);
        expected.push((0..32).map(|k| (warp[k] & 1) << k).sum());
        expected.push(warp.iter().any(|x| x & 15 == 0).into());
        expected.push(warp.iter().all(|x| x & 15 != 0).into());
        expected.push(if lane < 16 { warp[lane ^ 1] } else { 0 });
    }
    Case::new("test_shuffles", 2, 64).input(0, &values).expect(0, &expected, Within::Bits)
}

fn named_barriers(rng: &mut Rng) -> Case {
    let values = words(128, rng);
    let sum = |i: usize| values[i].wrapping_add(values[127 - i].wrapping_mul(3));
    let expected: Vec<u32> = (0..64).map(|i| sum(63 - i)).collect();
    let mut case = Case::new("test_named_barriers", 1, 128).input(0, &values).expect(0, &expected, Within::Bits);
    case.launch.shared_bytes = 768;
    case
}

fn hand_off(rng: &mut Rng) -> Case {
    // One more must not be the sentinel.
    let values: Vec<u32> = words(512, rng).into_iter().map(|x| x & 0x7fff_ffff).collect();
    let back: Vec<u32> = values.iter().map(|x| x + 1).collect();
    let mut case = Case::new("test_hand_off", 2, 128).input(0, &values);
    case = case.expect(0, &back, Within::Bits).expect(1, &values, Within::Bits);
    case.launch.cooperative = true;
    case.extra = 512 * 4;
    case.expected_flags = vec![0, 1, 128 * 5, 0];
    case
}

fn spin_gives_up() -> Case {
    // Threads 0, 2, … pass the first wait; of those 0, 4, … the second.
    let expected: Vec<u32> = (0..128)
        .flat_map(|i| [u32::from(i % 2 == 0), u32::from(i % 4 == 0) + if i % 4 == 0 { 0 } else { 2 }])
        .collect();
    let mut case = Case::new("test_spin_gives_up", 1, 128).expect(0, &expected, Within::Bits);
    case.expected_flags = vec![42, 0, 0, 0];
    case
}

fn loads_once(rng: &mut Rng) -> Case {
    let values = words(256 * 4, rng);
    let expected: Vec<u32> = values.chunks_exact(4).flat_map(|v| [v[0] ^ v[3], v[1], v[2], v[3]]).collect();
    Case::new("test_loads_once", 2, 128).input(0, &values).expect(0, &expected, Within::Bits)
}

fn cp_async(rng: &mut Rng) -> Case {
    let values: Vec<u8> = (0..64 * 36).map(|_| rng.bits() as u8).collect();
    let mut expected = Vec::new();
    for i in 0..64 {
        expected.extend(&values[(63 - i) * 16..][..16]);
    }
    for (size, first, cut) in [(16, 64 * 16, 17), (4, 128 * 16, 5)] {
        for i in 0..64 {
            expected.extend((0..size).map(|k| if k < i % cut { values[first + i * size + k] } else { 0 }));
        }
    }
    let mut case = Case::new("test_cp_async", 1, 64).input(0, &values).expect(0, &expected, Within::Bits);
    case.launch.shared_bytes = 64 * 36;
    case
}

fn ldmatrix(rng: &mut Rng) -> Case {
    let rows: Vec<u16> = (0..32 * 8).map(|_| rng.bits() as u16).collect();
    let element = |matrix: usize, row: usize, column: usize| u32::from(rows[(matrix * 8 + row) * 8 + column]);
    let registers = |two: &dyn Fn(usize, usize, usize) -> [u32; 2]| -> Vec<u32> {
        let of_lane = |lane: usize| [0, 1, 2, 3].map(|matrix| two(matrix, lane / 4, lane % 4 * 2));
        (0..32).flat_map(of_lane).map(|[low, high]| low | high << 16).collect()
    };
    let stored = registers(&|matrix, row, column| [0, 1].map(|next| element(matrix, row, column + next)));
    let transposed = registers(&|matrix, column, row| [0, 1].map(|next| element(matrix, row + next, column)));
    let mut case = Case::new("test_ldmatrix", 1, 32).input(0, &rows).expect(0, &stored, Within::Bits);
    case = case.expect(1, &transposed, Within::Bits);
    case.launch.shared_bytes = 512;
    case
}

/// c + a b for a of 16 rows, b of 8 columns, in f64.
fn product(a: &[f64], b: &[f64], c: &[f32], depth: usize) -> Vec<f32> {
    (0..16 * 8)
        .map(|i| {
            let (row, column) = (i / 8, i % 8);
            let sum: f64 = (0..depth).map(|k| a[row * depth + k] * b[k * 8 + column]).sum();
            (f64::from(c[i]) + sum) as f32
        })
        .collect()
}

/// Products are exact in f32; sixteen of at most 4 are added to at most 2, with an error of half an ulp of 64 each at worst,
/// of one for a GPU that truncates.
const MMA_BOUND: Within = Within::F32(0.0, 17.0 * 64.0 / 8_388_608.0);

fn mma_16(rng: &mut Rng, kernel: &'static str) -> Case {
    let (a, b) = (rng.vector(16 * 16, 2.0), rng.vector(16 * 8, 2.0));
    let c: Vec<f32> = (0..16 * 8).map(|_| rng.uniform(-2.0, 2.0) as f32).collect();
    let bits = |x: &f64| if kernel.ends_with("bf16") { bf16_bits(*x as f32) } else { f16_bits(*x as f32) };
    let value = |bits: &u16| {
        if kernel.ends_with("bf16") {
            half::bf16::from_bits(*bits).to_f64()
        } else {
            half::f16::from_bits(*bits).to_f64()
        }
    };
    let (a, b): (Vec<u16>, Vec<u16>) = (a.iter().map(bits).collect(), b.iter().map(bits).collect());
    let exact = |m: &[u16]| m.iter().map(value).collect::<Vec<f64>>();
    let expected = product(&exact(&a), &exact(&b), &c, 16);
    let mut case = Case::new(kernel, 1, 32).input(0, &a).input(1, &b).expect(0, &expected, MMA_BOUND);
    case.outputs[0] = cast_slice(&c).to_vec();
    case.min_compute = 80;
    case
}

fn mma_tf32(rng: &mut Rng) -> Case {
    let single = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let (a, b, c) = (single(rng.vector(16 * 8, 2.0)), single(rng.vector(8 * 8, 2.0)), single(rng.vector(16 * 8, 2.0)));
    let exact = |m: &[f32]| m.iter().map(|x| f64::from(f32::from_bits(tf32(*x)))).collect::<Vec<f64>>();
    let expected = product(&exact(&a), &exact(&b), &c, 8);
    let mut case = Case::new("test_mma_tf32", 1, 32).input(0, &a).input(1, &b).expect(0, &expected, MMA_BOUND);
    case.outputs[0] = cast_slice(&c).to_vec();
    case.min_compute = 80;
    case
}

fn cluster(rng: &mut Rng) -> Case {
    let values: Vec<f32> = (0..8 * 64).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    let held = |block: usize, i: usize| values[block * 64 + i];
    let (mut seen, mut ranks) = (Vec::new(), Vec::new());
    for block in 0..8 {
        let (first, rank) = (block / 4 * 4, block % 4);
        ranks.extend([rank as u32, 4]);
        for i in 0..64 {
            seen.extend([held(first + (rank + 1) % 4, i), held(first + (rank + 3) % 4, 63 - i) + 0.5]);
        }
    }
    let mut case = Case::new("test_cluster", 8, 64).input(0, &values);
    case = case.expect(0, &seen, Within::Bits).expect(1, &ranks, Within::Bits);
    case.launch.cluster = 4;
    case.launch.shared_bytes = 512;
    case.min_compute = 90;
    case
}

fn store_async(rng: &mut Rng) -> Case {
    let (steps, block) = (11, 64 * 7);
    let values = words(4 * block, rng);
    // After `steps` passes each block has what started `steps` blocks before it.
    let expected: Vec<u32> = (0..4 * block)
        .map(|i| values[(i / block + 4 * steps - steps) % 4 * block + i % block].wrapping_add(steps as u32))
        .collect();
    let mut case = Case::new("test_store_async", 4, 64).input(0, &values).expect(0, &expected, Within::Bits);
    case.launch.cluster = 4;
    case.launch.shared_bytes = 2 * 64 * 28 + 32;
    case.min_compute = 90;
    case.n = steps as u32;
    case
}

/// Sums with a reused buffer; with `mode` 1 the barrier that makes the reuse safe is missing.
pub fn reduction(rng: &mut Rng, mode: u32) -> Case {
    let steps = 24;
    // Small integers, so that every order of adding gives the same bits.
    let values: Vec<f32> = (0..steps * 128).map(|_| rng.below(1000) as f32).collect();
    let expected: Vec<f32> = values.chunks_exact(128).flat_map(|row| [row.iter().sum::<f32>(); 128]).collect();
    let mut case = Case::new("test_reduction", 1, 128).input(0, &values).expect(0, &expected, Within::Bits);
    case.launch.shared_bytes = 16;
    case.n = steps as u32;
    case.mode = mode;
    case
}

/// Launches of `test_order` on a GPU of compute capability 9.0 that are refused: geometry, bytes of parameters, and what the error says.
pub fn refused_launches() -> Vec<(Launch, usize, &'static str)> {
    let good = Launch::new([1, 1, 1], 64);
    vec![
        (good, 55, "its parameters have 56 bytes, but 55 were given"),
        (Launch { block: 128, ..good }, 56, "it has 64 threads a block, but 128 were given"),
        (
            Launch { shared_bytes: 232_449, ..good },
            56,
            "232449 bytes of shared memory: compute capability 9.0 has 232448",
        ),
        (Launch { grid: [0, 1, 1], ..good }, 56, "a grid of 0 x 1 x 1 blocks"),
        (Launch { grid: [1, 65536, 1], ..good }, 56, "a grid of 1 x 65536 x 1 blocks"),
        (Launch { grid: [6, 1, 1], cluster: 4, ..good }, 56, "6 blocks along x is not whole clusters of 4"),
        (Launch { grid: [32, 1, 1], cluster: 32, ..good }, 56, "a cluster of 32 blocks, where there are at most 16"),
        (
            Launch { grid: [65, 1, 1], cooperative: true, ..good },
            56,
            "65 blocks are to be resident together, where 64 can be",
        ),
    ]
}
