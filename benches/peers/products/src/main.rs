//! The products of dense layers and their gradients, on two threads, beside the crates `gemm` and `rten-gemm`: whether ours earn their place.
//! Prints a table; the time of the others over ours, medians of rounds that take turns.

use std::error::Error;
use std::time::Instant;

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::ops::{MatMul, Operations, Orientation, Workspace};
use fused_rnn::backend::{TensorMut, TensorRef, WeightGrad};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB};
use rten_tensor::NdTensorView;

const THREADS: usize = 2;
const ROUNDS: usize = 15;

/// Operations of a round, about.
const ROUND: f64 = 2e8;

/// Layers' forward (`Nt`, weights by rows), gradients of their inputs (`Nn`) and of their weights (`Tn`); rows, columns, terms.
const PRODUCTS: [(Orientation, usize, usize, usize); 13] = [
    (Orientation::Nt, 2560, 60, 128),
    (Orientation::Nn, 2560, 128, 60),
    (Orientation::Tn, 60, 128, 2560),
    (Orientation::Nt, 64, 64, 64),
    (Orientation::Nt, 512, 256, 64),
    (Orientation::Nn, 512, 64, 256),
    (Orientation::Tn, 256, 64, 512),
    (Orientation::Nt, 32, 128, 128),
    (Orientation::Nt, 4096, 512, 512),
    (Orientation::Tn, 512, 512, 4096),
    (Orientation::Nn, 1024, 1024, 1024),
    (Orientation::Nt, 1, 1000, 512),
    (Orientation::Nt, 32, 10_000, 256),
];

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.4).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let ours = CpuBackend::<f32>::with_threads(THREADS)?;
    let rten = GemmExecutor::<f32>::new();
    println!("{}, {THREADS} threads; rten-gemm: {}\n", ours.instruction_set(), rten.kernel_name());
    println!("| product | rows × columns, terms | ours, µs | GFLOP/s | gemm by ours | rten-gemm by ours |");
    println!("|---|---|--:|--:|--:|--:|");
    for (orientation, m, n, k) in PRODUCTS {
        let (a, b) = (numbers(m * k), numbers(n * k));
        let mut results = [0; 3].map(|_| vec![0.0_f32; m * n]);
        let product = MatMul::single(orientation, m, n, k);
        let mut workspace = vec![0.0_f32; ours.workspace(Workspace::MatMul(product))];
        // Elements from row to row and from column to column.
        let a_strides = if orientation == Orientation::Tn { [1, m] } else { [k, 1] };
        let b_strides = if orientation == Orientation::Nt { [1, k] } else { [n, 1] };
        let operations = 2.0 * (m * n * k) as f64;
        let repeats = ((ROUND / operations) as usize).clamp(3, 3000);
        let mut seconds = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (which, c) in results.iter_mut().enumerate() {
                let start = Instant::now();
                for _ in 0..repeats {
                    match which {
                        0 => {
                            let (a, b, c) = (TensorRef::of(&a), TensorRef::of(&b), TensorMut::of(c));
                            let workspace = TensorMut::of(&mut workspace);
                            ours.matmul(product, 1.0, a, b, c, WeightGrad::Set, workspace)?;
                        }
                        1 => {
                            let [a_row, a_column] = a_strides.map(|stride| stride as isize);
                            let [b_row, b_column] = b_strides.map(|stride| stride as isize);
                            let threads = gemm::Parallelism::Rayon(THREADS);
                            // SAFETY: sizes and strides are those of the three slices.
                            unsafe {
                                gemm::gemm(
                                    m,
                                    n,
                                    k,
                                    c.as_mut_ptr(),
                                    1,
                                    n as isize,
                                    false,
                                    a.as_ptr(),
                                    a_column,
                                    a_row,
                                    b.as_ptr(),
                                    b_column,
                                    b_row,
                                    0.0,
                                    1.0,
                                    false,
                                    false,
                                    false,
                                    threads,
                                );
                            }
                        }
                        _ => {
                            let a = NdTensorView::from_data_with_strides([m, k], &a[..], a_strides)?;
                            let b = NdTensorView::from_data_with_strides([k, n], &b[..], b_strides)?;
                            let (a, b) = (GemmInputA::Unpacked(a), GemmInputB::Unpacked(b));
                            rten.gemm(c, a, b, Default::default()).map_err(|error| format!("rten-gemm: {error:?}"))?;
                        }
                    }
                }
                seconds[which].push(start.elapsed().as_secs_f64() / repeats as f64);
            }
        }
        let median = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[ROUNDS / 2]
        });
        let [own, others @ ..] = &results;
        for (name, other) in ["gemm", "rten-gemm"].iter().zip(others) {
            let worst = own.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            if worst > 1e-5 * k as f32 {
                return Err(format!("{name} differs by {worst} in {product:?}").into());
            }
        }
        println!(
            "| {orientation:?} | {m}×{n}, {k} | {:.1} | {:.0} | {:.2} | {:.2} |",
            median[0] * 1e6,
            operations / median[0] / 1e9,
            median[1] / median[0],
            median[2] / median[0]
        );
    }
    Ok(())
}
