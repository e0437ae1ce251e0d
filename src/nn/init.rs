//! Random numbers for the initializers of weights, drawn from Philox so that a seed gives the same weights everywhere; the two that
//! layers start with unless told otherwise. The choice of an initializer is [`Initializer`](crate::nn::Initializer).
#![expect(
    clippy::indexing_slicing,
    reason = "rows and columns whose product is the length, as `orthogonal` checks; words of a block of four"
)]

use crate::error::{Error, Result};
use crate::memory;
use crate::rnn::dropout::philox4x32;

/// A stream of random numbers: [Philox4x32](crate::rnn::dropout::philox4x32) keyed by a seed. Streams of one seed are independent.
#[derive(Clone, Debug)]
pub struct Random {
    seed: u64,
    stream: u32,
    block: u64,
    bits: [u32; 4],
    used: usize,
}

impl Random {
    /// Stream number `stream` of `seed`.
    pub fn new(seed: u64, stream: u32) -> Self {
        Random { seed, stream, block: 0, bits: [0; 4], used: 4 }
    }

    fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            // The last word keeps clear of dropout masks, which count layers there.
            self.bits = philox4x32([self.block as u32, (self.block >> 32) as u32, self.stream, u32::MAX], self.seed);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.bits[self.used - 1]
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// Uniform in `[0, 1)`, with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and standard deviation 1
    /// ([Box and Muller 1958](https://doi.org/10.1214/aoms/1177706645)).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A permutation of `items`, each equally likely (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // The bias of the multiplication is below 2^-32 for any slice that fits in memory.
            let pick = (u128::from(self.next_u64()) * (last as u128 + 1)) >> 64;
            items.swap(last, pick as usize);
        }
    }
}

/// Keras's [`GlorotUniform`](https://keras.io/api/layers/initializers/#glorotuniform-class): uniform in `±sqrt(6 / (fan_in + fan_out))`
/// ([Glorot and Bengio 2010](https://proceedings.mlr.press/v9/glorot10a.html)).
pub fn glorot_uniform(weights: &mut [f64], fan_in: usize, fan_out: usize, random: &mut Random) {
    let limit = (6.0 / (fan_in as f64 + fan_out as f64)).sqrt();
    weights.iter_mut().for_each(|w| *w = (2.0 * random.uniform() - 1.0) * limit);
}

/// Keras's [`Orthogonal`](https://keras.io/api/layers/initializers/#orthogonal-class) ([Saxe et al. 2014](https://arxiv.org/abs/1312.6120)):
/// `weights` `[rows, columns]` gets orthonormal columns, or rows where those are fewer. They are the Q of a QR decomposition of a normal
/// matrix with R's diagonal made positive, which is what Gram–Schmidt gives.
///
/// # Errors
///
/// [`Error::Shape`] where `weights` has another length; [`Error::Unsupported`] where memory is short.
pub fn orthogonal(weights: &mut [f64], rows: usize, columns: usize, random: &mut Random) -> Result<()> {
    if rows.checked_mul(columns) != Some(weights.len()) {
        let expected = format!("{rows} rows of {columns} elements");
        return Err(Error::shape("orthogonal weights", expected, format!("{} elements", weights.len())));
    }
    let (count, len) = (rows.min(columns), rows.max(columns));
    let mut vectors = memory::filled("orthogonal weights", weights.len(), 0.0)?;
    for i in 0..count {
        let (before, rest) = vectors.split_at_mut(i * len);
        let vector = &mut rest[..len];
        // Almost never repeated: a draw that lies in the span of those before it has no direction left.
        loop {
            vector.iter_mut().for_each(|v| *v = random.normal());
            let drawn = dot(vector, vector);
            // Twice, since once loses digits where a draw is close to that span.
            for _ in 0..2 {
                for other in before.chunks_exact(len) {
                    let along = dot(vector, other);
                    vector.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
                }
            }
            let left = dot(vector, vector);
            if left > 1e-16 * drawn {
                let norm = left.sqrt();
                vector.iter_mut().for_each(|v| *v /= norm);
                break;
            }
        }
    }
    for (i, weight) in weights.iter_mut().enumerate() {
        let (row, column) = (i / columns, i % columns);
        *weight = vectors[if rows >= columns { column * len + row } else { row * len + column }];
    }
    Ok(())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Eight sums, so that the compiler may use vector registers; the order is fixed.
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_either_way_up() {
        for (rows, columns) in [(12, 3), (3, 12), (5, 5), (1, 1)] {
            let mut weights = vec![0.0f64; rows * columns];
            orthogonal(&mut weights, rows, columns, &mut Random::new(1, 0)).unwrap();
            let (count, len) = (rows.min(columns), rows.max(columns));
            let entry =
                |i: usize, k: usize| if rows >= columns { weights[k * columns + i] } else { weights[i * columns + k] };
            for i in 0..count {
                for j in 0..count {
                    let product: f64 = (0..len).map(|k| entry(i, k) * entry(j, k)).sum();
                    assert!(
                        (product - f64::from(u8::from(i == j))).abs() < 1e-12,
                        "{rows}x{columns} {i} {j} {product}"
                    );
                }
            }
        }
    }

    #[test]
    fn orthogonal_of_another_length_is_refused() {
        for (rows, columns, len) in [(2, 3, 5), (0, 3, 1), (3, 0, 1), (usize::MAX, 2, 4)] {
            let text = orthogonal(&mut vec![0.0; len], rows, columns, &mut Random::new(1, 0)).unwrap_err().to_string();
            assert!(text.contains("orthogonal weights"), "{text}");
        }
        orthogonal(&mut [], 0, 0, &mut Random::new(1, 0)).unwrap();
    }

    #[test]
    fn glorot_fills_its_range() {
        let mut weights = vec![0.0f64; 10_000];
        glorot_uniform(&mut weights, 1, 5, &mut Random::new(3, 2));
        let (min, max) = weights.iter().fold((f64::MAX, f64::MIN), |(a, b), w| (a.min(*w), b.max(*w)));
        assert!((-1.0..-0.99).contains(&min) && (0.99..1.0).contains(&max), "{min} {max}");
        assert!((weights.iter().sum::<f64>() / 1e4).abs() < 0.02);
    }

    #[test]
    fn normal_has_its_moments() {
        let mut random = Random::new(5, 0);
        let values: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let moment = |power: i32| values.iter().map(|v| v.powi(power)).sum::<f64>() / values.len() as f64;
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.02 && (moment(4) - 3.0).abs() < 0.15);
    }

    #[test]
    fn shuffle_is_a_seeded_permutation() {
        let shuffled = |seed, stream| {
            let mut items: Vec<u32> = (0..100).collect();
            Random::new(seed, stream).shuffle(&mut items);
            items
        };
        let mut sorted = shuffled(1, 0);
        assert_eq!(sorted, shuffled(1, 0));
        assert_ne!(sorted, shuffled(1, 1));
        assert_ne!(sorted, shuffled(2, 0));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
