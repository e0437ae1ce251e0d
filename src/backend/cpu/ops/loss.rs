//! The categorical cross-entropy of scores, on vectors of `f64` and on threads.
//!
//! Numbers are `f64` whatever the elements are, as in the oracle, whose exponentials of the mathematics library are most of its time. Rows are taken in
//! [`PARTS`] parts whatever the threads, and their sums are added in order.

use super::parts::{Read, Write, by_rows};
use super::softmax::fold;
use crate::backend::cpu::CpuElement;
use crate::backend::cpu::activation::exp_of_negative;
use crate::backend::cpu::threads::Threads;
use crate::backend::host_ops::HostLoss;
use crate::dtype::{Scalar, least_magnitude};
use crate::error::Result;
use crate::simd::{Isa, Kernel, Simd};

/// Parts of the rows whose losses are summed apart.
const PARTS: usize = 64;

/// Columns whose exponentials are kept. Those of a longer row are computed again for its gradient.
const CHUNK: usize = 256;

/// What an element takes in the unit of [`Threads::worth`]: two exponentials.
const ELEMENT: f64 = 100.0;

/// The loss: the mean over the rows, each times its weight. The gradient is set (`=`).
pub(super) fn categorical<E: CpuElement>(isa: Isa, threads: &Threads, of: HostLoss<'_, E>) -> Result<f64> {
    let HostLoss { loss, columns, targets, predictions, weights, gradient } = of;
    let rows = predictions.len() / columns;
    let of_part = rows.div_ceil(PARTS);
    let parts = rows.div_ceil(of_part);
    let mut sums = [0.0; PARTS];
    let width = if loss.is_sparse() { 1 } else { columns };
    let data = (
        Read(targets, of_part * width),
        Read(predictions, of_part * columns),
        weights.map(|weights| Read(weights, of_part)),
        gradient.map(|gradient| Write(gradient, of_part * columns)),
        Write(&mut sums[..parts], 1),
    );
    let operations = ELEMENT * (of_part * columns) as f64;
    by_rows(threads, parts, operations, data, |_, (targets, predictions, weights, gradient, sums)| {
        let (weights, gradient) = (weights.map(|weights| weights.0), gradient.map(|gradient| gradient.0));
        let (targets, predictions) = (targets.0, predictions.0);
        let (sparse, sums) = (loss.is_sparse(), sums.0);
        isa.run(CategoricalRows { sparse, columns, rows, of_part, targets, predictions, weights, gradient, sums });
    })?;
    Ok(sums.iter().sum::<f64>() / rows as f64)
}

/// Some parts of the rows. With p the softmax of a row's scores and t its targets: `-Σ t ln p`, whose gradient is `p Σ t - t`.
struct CategoricalRows<'a, E> {
    /// Whether a target is the number of a class, rather than a probability for each column.
    sparse: bool,
    columns: usize,
    /// Of the whole call.
    rows: usize,
    of_part: usize,
    targets: &'a [E],
    predictions: &'a [E],
    weights: Option<&'a [E]>,
    gradient: Option<&'a mut [E]>,
    /// Of each part.
    sums: &'a mut [f64],
}

impl<E: CpuElement> Kernel<f64> for CategoricalRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<f64>>(self, s: S) {
        let CategoricalRows { sparse, columns, rows, of_part, targets, predictions, weights, mut gradient, sums } =
            self;
        let width = if sparse { 1 } else { columns };
        let mut values = [0.0; CHUNK];
        for (row, (t, x)) in targets.chunks_exact(width).zip(predictions.chunks_exact(columns)).enumerate() {
            // A NaN is not larger, and makes the total NaN.
            let largest = fold(x, E::neg_infinity(), |a, b| if b > a { b } else { a }).wide();
            let mut total = 0.0;
            for x in x.chunks(CHUNK) {
                exponentials(s, x, largest, &mut values);
                total += fold(&values[..x.len()], 0.0, |a, b| a + b);
            }
            let log = |x: &E| x.wide() - largest - total.ln();
            // Checked before: a class is below the number of columns.
            let class = if sparse { t[0].wide() as usize } else { columns };
            let (value, all) = match sparse {
                true => (-log(&x[class]), 1.0),
                false => {
                    t.iter().zip(x).fold((0.0, 0.0), |(value, all), (t, x)| (value - t.wide() * log(x), all + t.wide()))
                }
            };
            let weight = weights.map_or(1.0, |weights| weights[row].wide());
            sums[row / of_part] += weight * value;
            let Some(gradient) = &mut gradient else { continue };
            let (factor, scale, least) = (all / total, weight / rows as f64, least_magnitude::<E>().wide());
            let gradient = &mut gradient[row * columns..][..columns];
            for (chunk, (g, x)) in gradient.chunks_mut(CHUNK).zip(x.chunks(CHUNK)).enumerate() {
                let first = chunk * CHUNK;
                if columns > CHUNK {
                    exponentials(s, x, largest, &mut values);
                }
                let slopes = &mut values[..x.len()];
                slopes.iter_mut().for_each(|slope| *slope *= factor);
                if !sparse {
                    slopes.iter_mut().zip(&t[first..]).for_each(|(slope, t)| *slope -= t.wide());
                } else if (first..first + slopes.len()).contains(&class) {
                    slopes[class - first] -= 1.0;
                }
                // What is cut is cut before it becomes a denormal number of `E`.
                for (g, slope) in g.iter_mut().zip(slopes) {
                    let slope = *slope * scale;
                    *g = E::of(if slope.abs() < least { 0.0 } else { slope });
                }
            }
        }
    }
}

/// `exp(x - largest)` of at most [`CHUNK`] elements.
#[inline(always)]
fn exponentials<E: Scalar, S: Simd<f64>>(s: S, x: &[E], largest: f64, values: &mut [f64; CHUNK]) {
    values.iter_mut().zip(x).for_each(|(value, x)| *value = x.wide() - largest);
    // Whole vectors; what is beyond the last element is not read.
    for values in values[..x.len().next_multiple_of(S::LANES)].chunks_exact_mut(S::LANES) {
        let e = exp_of_negative(s, s.load(values));
        s.store(values, e);
    }
}
