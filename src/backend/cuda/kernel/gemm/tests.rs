//! Every kernel of matrix products on the emulated device, beside a product in f64 and bit for bit beside each other.

use std::sync::Arc;

use bytemuck::Zeroable;
use half::{bf16, f16};

use super::super::super::device::emulated::{Emulated, EmulatedStream, Schedule};
use super::super::super::device::memory::DeviceBuffer;
use super::super::super::device::{Device, DevicePtr};
use super::super::super::options::Matmul;
use super::super::params::{GemmParams, GemmProblem, GemmTerm, Rows};
use super::{Gemm, GemmKernel, Orientation, ProductShape, Room, launch, step_tile, sum_launch};
use crate::dtype::{Element, Stored};

/// What a product is like. Sums have `terms` terms of `k` numbers each; rows of operands and results stand in groups of `group`.
#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    terms: usize,
    problems: usize,
    /// Products of the same problem, one after the other.
    count: usize,
    splits: usize,
    group: usize,
    lengths: bool,
    accumulate: bool,
    alpha: f64,
    bias: bool,
}

impl Case {
    const fn new(m: usize, n: usize, k: usize) -> Self {
        Case {
            m,
            n,
            k,
            terms: 1,
            problems: 1,
            count: 1,
            splits: 1,
            group: 1,
            lengths: false,
            accumulate: false,
            alpha: 1.0,
            bias: false,
        }
    }
}

/// Numbers whose products and short sums are exact, so that a wrong one stands out, and in another order of every seed.
fn number(seed: usize, i: usize) -> f64 {
    ((i * 37 + seed * 101 + i / 7) % 33) as f64 / 8.0 - 2.0
}

/// A device with a stream.
struct On<D: Device> {
    device: Arc<D>,
    stream: D::Stream,
}

impl On<Emulated> {
    fn emulated(schedule: Schedule) -> Self {
        On { device: Arc::new(Emulated::new(schedule).unwrap()), stream: EmulatedStream }
    }
}

/// A matrix in memory: rows in groups, columns padded, and NaN wherever no element is.
struct Matrix<E: Stored, D: Device> {
    buffer: DeviceBuffer<E, D>,
    values: Vec<f64>,
    rows: Rows,
    columns: usize,
    /// Elements from one product to the next.
    apart: usize,
}

impl<E: Element, D: Device> Matrix<E, D> {
    fn new(on: &On<D>, [products, rows, columns]: [usize; 3], group: usize, seed: usize) -> Self {
        let width = columns.next_multiple_of(8) + 8;
        let outer = width * group + 16;
        let apart = rows.div_ceil(group) * outer;
        let at = |row: usize| row / group * outer + row % group * width;
        let mut memory = vec![E::of(f64::NAN); products * apart];
        let values: Vec<f64> = (0..products * rows * columns).map(|i| number(seed, i)).collect();
        for (i, value) in values.iter().enumerate() {
            let (product, row, column) = (i / columns / rows, i / columns % rows, i % columns);
            memory[product * apart + at(row) + column] = E::of(*value);
        }
        let buffer = DeviceBuffer::from_slice(&on.device, &on.stream, "operand", &memory).unwrap();
        let rows = Rows {
            data: buffer.pointer(),
            outer_stride: outer as u64,
            inner_stride: width as u64,
            inner: group as u32,
            unused: 0,
        };
        Matrix { buffer, values, rows, columns, apart }
    }
}

/// Runs a case on one kernel, or as the kernels' caller does: what it leaves in c, padding included, beside what the sums should be.
fn run<E: Element, C: Element, D: Device>(
    on: &On<D>,
    gemm: &Gemm<D>,
    kernel: Option<&GemmKernel<D>>,
    case: Case,
) -> Vec<u8> {
    let On { device, stream } = on;
    let orientation = gemm.orientation;
    let name = kernel.map_or("launch", |kernel| &kernel.name);
    let Case { m, n, k, terms, problems, count, splits, group, lengths, .. } = case;
    let times = k.div_ceil(group);
    let lens: Vec<u32> = (0..group).map(|b| ((b * 5 + 1) % (times + 1)) as u32).collect();
    let lens_buffer = DeviceBuffer::from_slice(device, stream, "lengths", &lens).unwrap();
    let inside = |l: usize| !lengths || l / group < lens[l % group] as usize;
    let mut params = GemmParams {
        problems: problems as u32,
        count: (problems * count) as u32,
        splits: splits as u32,
        accumulate: case.accumulate.into(),
        wide: (C::DTYPE != E::DTYPE).into(),
        lengths: if lengths { lens_buffer.pointer() } else { DevicePtr::NULL },
        alpha: case.alpha,
        ..Zeroable::zeroed()
    };
    let partial = vec![f32::NAN; if splits > 1 { problems * count * splits * m * n } else { 0 }];
    let partial = DeviceBuffer::from_slice(device, stream, "partial", &partial).unwrap();
    (params.partial, params.partial_apart) = (partial.pointer(), (m * n) as u64);
    let (mut kept, mut results, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for problem in 0..problems {
        let mut sums = vec![0.0; count * m * n];
        let mut description = GemmProblem { terms: terms as u32, m: m as u32, n: n as u32, ..Zeroable::zeroed() };
        for term in 0..terms {
            let seed = problem * 16 + term * 4;
            let k_inner = |rows: usize| [count, rows, k];
            let k_outer = |columns: usize| [count, k, columns];
            let (tn, nt) = (orientation == Orientation::Tn, orientation == Orientation::Nt);
            // Weights have rows in groups of one.
            let b_group = if kernel.is_some() || tn { group } else { 1 };
            let a = Matrix::<E, D>::new(on, if tn { k_outer(m) } else { k_inner(m) }, group, seed);
            let b = Matrix::<E, D>::new(on, if nt { k_inner(n) } else { k_outer(n) }, b_group, seed + 1);
            for (i, sum) in sums.iter_mut().enumerate() {
                let (product, row, column) = (i / n / m, i / n % m, i % n);
                let value = |matrix: &Matrix<E, D>, k_outer: bool, line: usize, l: usize| {
                    let (r, c, rows) =
                        if k_outer { (l, line, k) } else { (line, l, matrix.values.len() / count / k.max(1)) };
                    matrix.values[(product * rows + r) * matrix.columns + c]
                };
                *sum += (0..k)
                    .filter(|l| inside(*l))
                    .map(|l| value(&a, tn, row, l) * value(&b, !nt, column, l))
                    .sum::<f64>();
            }
            description.term[term] = GemmTerm { a: a.rows, b: b.rows, k: k as u32, unused: 0 };
            (params.a_apart, params.b_apart) = (a.apart as u64, b.apart as u64);
            kept.push((a, b));
        }
        let c = Matrix::<C, D>::new(on, [count, m, n], group, 99);
        (description.c, params.c_apart) = (c.rows, c.apart as u64);
        let bias = Matrix::<C, D>::new(on, [1, 1, n], 1, problem * 16 + 60);
        if case.bias {
            description.bias = bias.rows.data;
        }
        params.problem[problem] = description;
        results.push((c, bias));
        expected.push(sums);
    }
    if problems > 1 {
        (params.a_apart, params.b_apart, params.c_apart) = (0, 0, 0);
    }
    if let Some(kernel) = kernel {
        let launch = launch(&kernel.tile, &params);
        kernel.kernel.launch(device, stream, &launch, &params).unwrap();
        if splits > 1 {
            gemm.sum.launch(device, stream, &sum_launch(&params), &params).unwrap();
        }
    } else {
        let room = DeviceBuffer::from_slice(device, stream, "room", &[0.0f32; 250]).unwrap();
        gemm.launch(device, stream, &params, Room { address: room.pointer(), len: 250 }).unwrap();
    }
    drop(kept);

    let mut bytes = Vec::new();
    for ((c, bias), sums) in results.iter().zip(&expected) {
        let at = |i: usize| {
            let (product, row, column) = (i / n / m, i / n % m, i % n);
            let rows = &c.rows;
            product * c.apart
                + row / group * rows.outer_stride as usize
                + row % group * rows.inner_stride as usize
                + column
        };
        let mut memory = vec![C::default(); count * c.apart];
        c.buffer.read(stream, &mut memory).unwrap();
        let mut untouched = vec![true; memory.len()];
        for (i, sum) in sums.iter().enumerate() {
            let before = if case.accumulate { c.values[i] } else { 0.0 };
            untouched[at(i)] = false;
            let bias = if case.bias { bias.values[i % n] } else { 0.0 };
            let (got, wanted) = (memory[at(i)].wide(), case.alpha * sum + bias + before);
            // One rounding of c; the sums themselves are exact but for those of many terms, which f32 rounds.
            let allowed = (C::DTYPE.epsilon() + 1e-6) * wanted.abs().max(before.abs()).max(1.0) + 1e-6 * k as f64;
            assert!(
                (got - wanted).abs() <= allowed,
                "{name} {orientation:?} {case:?}: element {i} is {got} instead of {wanted}"
            );
        }
        for (value, untouched) in memory.iter().zip(untouched) {
            assert!(!untouched || value.wide().is_nan(), "{name} {case:?}: what is not c is written");
        }
        bytes.extend_from_slice(bytemuck::cast_slice(&memory));
    }
    bytes
}

fn cases() -> Vec<Case> {
    let plain = Case::new;
    let mut cases = vec![
        plain(1, 1, 1),
        plain(7, 9, 8),
        plain(64, 64, 64),
        plain(65, 63, 33),
        plain(40, 130, 97),
        plain(130, 24, 31),
        plain(20, 20, 0),
        plain(13, 40, 1200),
        plain(32, 17, 300),
        Case { accumulate: true, alpha: -0.5, ..plain(33, 47, 50) },
        Case { terms: 3, problems: 2, ..plain(30, 65, 40) },
        Case { count: 3, alpha: 0.25, accumulate: true, ..plain(17, 35, 20) },
        Case { splits: 3, ..plain(35, 50, 200) },
        Case { splits: 7, ..plain(9, 5, 100) },
        Case { splits: 4, ..plain(24, 40, 300) },
        Case { splits: 2, problems: 2, terms: 2, ..plain(20, 33, 90) },
        Case { bias: true, ..plain(31, 43, 40) },
        Case { bias: true, problems: 2, alpha: 0.5, accumulate: true, ..plain(66, 37, 33) },
        Case { bias: true, splits: 2, count: 3, ..plain(9, 130, 80) },
        Case { splits: 3, count: 2, alpha: -0.5, accumulate: true, ..plain(18, 20, 110) },
    ];
    for group in [2, 3, 5, 40] {
        cases.push(Case { group, ..plain(37, 30, 71) });
        cases.push(Case { group, lengths: true, ..plain(21, 70, 131) });
        cases.push(Case { group, lengths: true, splits: 2, terms: 2, ..plain(12, 20, 140) });
    }
    cases
}

/// Every kernel on those of the cases that it takes.
fn check<E: Element, D: Device>(on: &On<D>, math: &str, cases: &[Case]) {
    for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
        let gemm = Gemm::load(&*on.device, orientation, math, Matmul::Kernels).unwrap();
        for case in cases.iter().copied() {
            if case.lengths && orientation != Orientation::Tn {
                continue;
            }
            // All on products that they take; what takes few rows alone, on those.
            let takes = |tile: &super::GemmTile| {
                let step = case.terms == 1 && case.group == 1;
                case.m <= tile.most_rows as usize && (!tile.step || step)
            };
            let kernels = || gemm.kernels.iter().filter(|kernel| takes(&kernel.tile));
            let both = |wide: bool| -> Vec<Vec<u8>> {
                let each = |kernel: &GemmKernel<D>| match wide {
                    true => run::<E, f32, D>(on, &gemm, Some(kernel), case),
                    false => run::<E, E, D>(on, &gemm, Some(kernel), case),
                };
                kernels().map(each).collect()
            };
            for wide in [false, true] {
                if wide && E::DTYPE.size() != 2 {
                    continue;
                }
                let results = both(wide);
                for (kernel, result) in kernels().zip(&results) {
                    let what = &kernel.tile.name;
                    let same = kernel.tile.step || result == results.last().unwrap();
                    assert!(same, "{math} {orientation:?} {case:?}: {what} gives other bits");
                }
            }
        }
    }
}

#[test]
fn products_in_bf16() {
    check::<bf16, _>(&On::emulated(Schedule { seed: 0, starve: false }), "bf16", &cases());
}

#[test]
fn products_in_f16_under_another_order_of_threads() {
    check::<f16, _>(&On::emulated(Schedule { seed: 5, starve: true }), "f16", &cases());
}

#[test]
fn products_in_tf32() {
    check::<f32, _>(&On::emulated(Schedule { seed: 6, starve: false }), "tf32", &cases());
}

#[test]
fn products_in_f32() {
    check::<f32, _>(&On::emulated(Schedule { seed: 7, starve: true }), "f32", &cases());
}

/// The kernels as PTX: pieces of k, biases, several problems and terms, rows in groups with lengths.
#[cfg(feature = "ptx")]
#[test]
fn products_through_ptx() {
    use crate::backend::cuda::device::ptx::{Ptx, PtxStream, Schedule};

    let plain = Case::new;
    let cases = [
        Case { bias: true, ..plain(9, 13, 40) },
        Case { bias: true, splits: 3, alpha: -0.5, accumulate: true, ..plain(18, 33, 100) },
        Case { splits: 2, problems: 2, terms: 2, ..plain(20, 24, 70) },
        Case { group: 3, lengths: true, splits: 2, ..plain(12, 20, 70) },
    ];
    let on = |seed| On { device: Arc::new(Ptx::new(Schedule { seed }).unwrap()), stream: PtxStream };
    if let Err(error) = on(1).device.kernel("sum_pieces_f32") {
        // Not built with libnvrtc, and there is none now.
        assert!(std::env::var_os("FUSED_RNN_REQUIRE_NVRTC").is_none(), "{error}");
        // Past the capture of what tests print.
        let _ =
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED products_through_ptx: {error}\n"));
        return;
    }
    check::<bf16, _>(&on(1), "bf16", &cases);
    check::<f32, _>(&on(2), "f32", &cases);
    check::<f32, _>(&on(3), "tf32", &cases);
}

/// The choice is by sizes and alignment.
#[test]
fn odd_alignments_have_a_kernel_of_their_own() {
    let device = Emulated::new(Schedule { seed: 0, starve: false }).unwrap();
    let gemm = Gemm::load(&device, Orientation::Nt, "bf16", Matmul::Kernels).unwrap();
    let name = |m: u32, n: u32, address: u64, stride: usize| {
        let mut params = GemmParams { problems: 1, count: 1, splits: 1, ..Zeroable::zeroed() };
        let problem = &mut params.problem[0];
        (problem.m, problem.n, problem.terms, problem.c) = (m, n, 1, Rows::plain(DevicePtr(8192), n as usize));
        problem.term[0] = GemmTerm {
            a: Rows::plain(DevicePtr(address), stride),
            b: Rows::plain(DevicePtr(4096), 64),
            k: 64,
            unused: 0,
        };
        gemm.choose(&params, 1).unwrap().tile.name
    };
    assert_eq!(name(16384, 3072, 4096, 64), "pipelined_wide");
    assert_eq!(name(16384, 3072, 4096, 72), "pipelined_wide");
    assert_eq!(name(16384, 3072, 4098, 64), "large");
    assert_eq!(name(16384, 3072, 4096, 65), "large");
    assert_eq!(name(64, 3072, 4096, 64), "pipelined_medium");
    assert_eq!(name(16, 3072, 4096, 64), "few_rows");
    assert_eq!(name(16, 3072, 4096, 65), "small");
    let shape =
        ProductShape { m: 16384, n: 3072, k: 64, strides: [64, 64], terms: 1, count: 1, groups: 1, wide: false };
    assert_eq!(gemm.kernel_of(&shape).unwrap(), ("gemm_nt_bf16_pipelined_wide".to_owned(), 1));
    // The plan's estimate of a step is of the kernel that computes it.
    for (m, n, k) in [(1, 64, 64), (16, 3072, 768), (16, 3072, 769), (33, 96, 32), (64, 4096, 1024), (2048, 4096, 1024)]
    {
        let plain = |stride| Rows::plain(DevicePtr(4096), stride);
        let mut params = GemmParams { problems: 1, count: 1, splits: 1, ..Zeroable::zeroed() };
        let problem = &mut params.problem[0];
        (problem.m, problem.n, problem.terms, problem.c) = (m as u32, n as u32, 1, plain(n));
        problem.term[0] = GemmTerm { a: plain(k), b: plain(k), k: k as u32, unused: 0 };
        let tile = step_tile(device.properties(), "bf16", m as u32, n as u32, k).unwrap();
        assert_eq!(gemm.choose(&params, 1).unwrap().tile, tile, "{m} by {n} over {k}");
    }
    let turing = Emulated::with_compute_capability((7, 5), Schedule { seed: 0, starve: false }).unwrap();
    for math in ["bf16", "f32"] {
        let kernels = Gemm::load(&turing, Orientation::Nt, math, Matmul::Kernels).unwrap().kernels;
        assert!(kernels.iter().all(|kernel| ["small", "large"].contains(&kernel.tile.name)));
    }
    let refused = Gemm::load(&turing, Orientation::Nt, "tf32", Matmul::Kernels).unwrap_err().to_string();
    assert!(refused.contains("needs 8.0"), "{refused}");
}

/// Products whose results alone give few multiprocessors work are computed in pieces; others, and those of short sums, are not.
#[test]
fn long_sums_of_few_results_fall_into_pieces() {
    let device = Emulated::new(Schedule { seed: 0, starve: false }).unwrap();
    let splits = |orientation, math: &str, [m, n, k]: [usize; 3], terms, count| {
        let strides = match orientation {
            Orientation::Nt => [k, k],
            Orientation::Nn => [k, n],
            Orientation::Tn => [m, n],
        };
        let shape = ProductShape { m, n, k, strides, terms, count, groups: 1, wide: false };
        let gemm = Gemm::load(&device, orientation, math, Matmul::Kernels).unwrap();
        let (kernel, splits) = gemm.kernel_of(&shape).unwrap();
        assert_eq!(gemm.room_for(&shape).unwrap(), if splits > 1 { splits * count * m * n } else { 0 });
        (kernel, splits)
    };
    let (nt, nn, tn) = (Orientation::Nt, Orientation::Nn, Orientation::Tn);
    // W x of a short sequence of wide inputs, dx of the same, a dense layer after it.
    assert_eq!(splits(nt, "bf16", [64, 512, 4096], 1, 1), ("gemm_nt_bf16_pipelined_medium".into(), 13));
    assert_eq!(splits(nn, "bf16", [128, 256, 4096], 1, 1), ("gemm_nn_bf16_pipelined_medium".into(), 13));
    assert_eq!(splits(nn, "bf16", [128, 256, 8192], 2, 1), ("gemm_nn_bf16_pipelined_medium".into(), 16));
    assert_eq!(splits(nt, "bf16", [16, 64, 32768], 1, 1), ("gemm_nt_bf16_few_rows".into(), 32));
    assert_eq!(splits(nt, "f32", [64, 512, 4096], 1, 1), ("gemm_nt_f32_exact_medium".into(), 16));
    // Two directions give twice the blocks.
    assert_eq!(splits(nt, "bf16", [64, 512, 4096], 1, 2), ("gemm_nt_bf16_pipelined_medium".into(), 8));
    // A step's product takes less time than another launch; large results and short sums need no pieces.
    assert_eq!(splits(nt, "bf16", [16, 3072, 768], 1, 1), ("gemm_nt_bf16_few_rows".into(), 1));
    assert_eq!(splits(nt, "bf16", [64, 1024, 256], 1, 1).1, 1);
    assert_eq!(splits(nt, "bf16", [16384, 3072, 768], 1, 1).1, 1);
    // Gradients of weights.
    assert_eq!(splits(tn, "bf16", [3072, 768, 16384], 1, 1), ("gemm_tn_bf16_pipelined_wide".into(), 4));
    assert_eq!(splits(tn, "bf16", [256, 64, 16384], 1, 1).1, 32);
}

/// The pieces that a launch has are those that there is room for, and the same bits come every time.
#[test]
fn pieces_depend_on_sizes_and_room_alone() {
    let device = Arc::new(Emulated::new(Schedule { seed: 3, starve: false }).unwrap());
    let gemm = Gemm::load(&*device, Orientation::Nt, "f32", Matmul::Kernels).unwrap();
    let (m, n, k) = (40, 24, 2048);
    let values = |len: usize, seed: usize| (0..len).map(|i| number(seed, i) as f32 / 3.0).collect::<Vec<_>>();
    let tensor = |values: &[f32]| DeviceBuffer::from_slice(&device, &EmulatedStream, "tensor", values).unwrap();
    let (a, b) = (tensor(&values(m * k, 1)), tensor(&values(n * k, 2)));
    let shape = ProductShape { m, n, k, strides: [k, k], terms: 1, count: 1, groups: 1, wide: false };
    let wanted = gemm.room_for(&shape).unwrap();
    assert!(wanted >= 8 * m * n, "{wanted}");
    let mut results = Vec::new();
    for (len, launches) in [(wanted, 2), (wanted, 2), (wanted + 1, 2), (2 * m * n, 2), (m * n, 1), (0, 1)] {
        let (partial, c) = (tensor(&vec![f32::NAN; len]), tensor(&vec![f32::NAN; m * n]));
        let mut params = GemmParams { problems: 1, count: 1, splits: 1, alpha: 1.0, ..Zeroable::zeroed() };
        let problem = &mut params.problem[0];
        (problem.m, problem.n, problem.terms) = (m as u32, n as u32, 1);
        problem.c = Rows::plain(c.pointer(), n);
        let (a, b) = (Rows::plain(a.pointer(), k), Rows::plain(b.pointer(), k));
        problem.term[0] = GemmTerm { a, b, k: k as u32, unused: 0 };
        let before = device.launches();
        gemm.launch(&device, &EmulatedStream, &params, Room { address: partial.pointer(), len }).unwrap();
        assert_eq!(device.launches() - before, launches, "{len} numbers of room");
        let mut result = vec![0.0; m * n];
        c.read(&EmulatedStream, &mut result).unwrap();
        results.push(result);
    }
    assert!(results[0] == results[1] && results[0] == results[2] && results[4] == results[5]);
    assert!(results[0] != results[4], "rounded sums of several pieces are others than those of one");
    // Sums of 2048 products of at most 0.44 each, rounded in other places.
    let close = |(x, y): (&f32, &f32)| (x - y).abs() <= 0.05;
    assert!(results.iter().all(|result| result.iter().zip(&results[0]).all(close)));
}

/// What the emulated device computes as NVIDIA's documentation says of cuBLASLt is what the kernels compute, for products of every
/// orientation with rows in groups, batches, biases and factors; those that the library does not take are the kernels'.
#[cfg(feature = "cublaslt")]
#[test]
fn products_by_cublaslt() {
    fn check<E: Element>(math: &str, least: u64) {
        let on = On::emulated(Schedule { seed: 0, starve: false });
        let (mut by_library, mut by_kernels) = (0, 0);
        for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
            let gemm = Gemm::load(&*on.device, orientation, math, Matmul::CublasLt).unwrap();
            for case in cases() {
                if case.lengths && orientation != Orientation::Tn || case.m * case.n * case.k > 200_000 {
                    continue;
                }
                // The caller splits sums; rows in groups are whole groups but where k is grouped.
                let m = if orientation == Orientation::Tn { case.m } else { case.m.next_multiple_of(case.group) };
                let case = Case { splits: 1, m, ..case };
                let launches = on.device.launches();
                run::<E, E, _>(&on, &gemm, None, case);
                if E::DTYPE.size() == 2 {
                    run::<E, f32, _>(&on, &gemm, None, case);
                }
                if on.device.launches() == launches { by_library += 1 } else { by_kernels += 1 }
            }
        }
        assert!(by_library >= least && by_kernels > 0, "{by_library} by the library, {by_kernels} by kernels");
    }
    check::<f32>("f32", 20);
    check::<f64>("f64", 20);
    check::<bf16>("bf16", 20);
}

/// A step's product, and sums that the library would round in between or whose sequences have lengths, are the kernels'.
#[cfg(feature = "cublaslt")]
#[test]
fn which_products_are_by_cublaslt() {
    let device = Emulated::new(Schedule { seed: 0, starve: false }).unwrap();
    let kernel_of = |orientation, [m, n, k]: [usize; 3], terms, groups, wide| {
        let gemm = Gemm::load(&device, orientation, "bf16", Matmul::CublasLt).unwrap();
        let strides = if orientation == Orientation::Tn { [m, n] } else { [k, k] };
        let shape = ProductShape { m, n, k, strides, terms, count: 1, groups, wide };
        assert!(gemm.room_for(&shape).unwrap() < 1 << 30);
        gemm.kernel_of(&shape).unwrap().0
    };
    let (nt, nn, tn) = (Orientation::Nt, Orientation::Nn, Orientation::Tn);
    assert_eq!(kernel_of(nt, [16384, 3072, 768], 1, 1, true), "cublaslt as documented");
    assert_eq!(kernel_of(nt, [16384, 3072, 768], 1, 16, true), "cublaslt as documented");
    assert_eq!(kernel_of(nn, [16384, 768, 3072], 1, 1, false), "cublaslt as documented");
    assert_eq!(kernel_of(nt, [16, 3072, 768], 1, 1, true), "gemm_nt_bf16_few_rows");
    assert_eq!(kernel_of(nn, [16384, 768, 3072], 2, 1, false), "gemm_nn_bf16_pipelined_wide");
    let with_lengths = "cublaslt as documented (with lengths: gemm_tn_bf16_pipelined_wide)";
    assert_eq!(kernel_of(tn, [3072, 768, 16384], 1, 1, true), with_lengths);
    assert_eq!(kernel_of(tn, [3072, 768, 16384], 1, 16, true), "gemm_tn_bf16_pipelined_wide");
}

#[cfg(not(feature = "cublaslt"))]
#[test]
fn a_build_without_cublaslt_says_so() {
    let device = Emulated::new(Schedule { seed: 0, starve: false }).unwrap();
    let refused = Gemm::load(&device, Orientation::Nt, "f32", Matmul::CublasLt).unwrap_err().to_string();
    assert!(refused.contains("feature `cublaslt`") && refused.contains("Matmul::Kernels"), "{refused}");
}
