//! Dropout masks from counters: nothing is stored, and every backend draws the same bits.
//!
//! The generator is Philox4x32-10 ([Salmon et al. 2011](https://doi.org/10.1145/2063384.2063405)), keyed by the call's
//! seed and counted by (feature / 4, batch, step, layer): a mask depends neither on layout, threads nor backend.
#![expect(clippy::indexing_slicing, reason = "of arrays of four words and four blocks")]

use crate::dtype::Scalar;

/// One block of Philox4x32 with ten rounds: 128 random bits for a 128-bit counter and a 64-bit key.
pub fn philox4x32(mut counter: [u32; 4], key: u64) -> [u32; 4] {
    let mut key = [key as u32, (key >> 32) as u32];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

/// [`philox4x32`] of `N` counters at once, so that the compiler may use vectors: word w of counter i is `counters[w][i]`.
#[inline(always)]
fn philox_blocks<const N: usize>(mut counters: [[u32; N]; 4], key: u64) -> [[u32; N]; 4] {
    let mut key = [key as u32, (key >> 32) as u32];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let mut next = [[0; N]; 4];
        for i in 0..N {
            let a = u64::from(counters[0][i]) * 0xD251_1F53;
            let b = u64::from(counters[2][i]) * 0xCD9E_8D57;
            next[0][i] = (b >> 32) as u32 ^ counters[1][i] ^ key[0];
            next[1][i] = b as u32;
            next[2][i] = (a >> 32) as u32 ^ counters[3][i] ^ key[1];
            next[3][i] = a as u32;
        }
        counters = next;
    }
    counters
}

/// Blocks of the generator that are drawn at once.
const BLOCKS: usize = 16;

/// The inter-layer dropout of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    seed: u64,
    /// An element is kept when its 32 random bits are at or above this.
    threshold: u64,
    scale: f64,
}

impl Dropout {
    /// None, as in inference.
    pub(crate) const NONE: Dropout = Dropout { seed: 0, threshold: 0, scale: 1.0 };

    /// Dropout with probability `probability` of zeroing an element; kept ones are scaled by `1 / (1 - probability)`.
    /// [`RnnDescriptor::validate`](crate::rnn::RnnDescriptor::validate) has checked that it is in `0.0..=1.0`; here what is
    /// below or NaN counts as 0, what is above as 1.
    pub fn new(probability: f64, seed: u64) -> Self {
        let probability = if probability.is_nan() { 0.0 } else { probability.clamp(0.0, 1.0) };
        let threshold = (probability * 4_294_967_296.0).round() as u64;
        // Where the probability is too small for 32 bits to drop anything, nothing is scaled either: `is_active` says all.
        let scale = if threshold == 0 {
            1.0
        } else if probability < 1.0 {
            1.0 / (1.0 - probability)
        } else {
            0.0
        };
        Dropout { seed, threshold, scale }
    }

    /// Whether masks have any effect.
    pub fn is_active(&self) -> bool {
        self.threshold > 0
    }

    /// The key of the generator.
    #[cfg(feature = "cuda")]
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// An element is kept when its 32 random bits are at or above this.
    #[cfg(feature = "cuda")]
    pub(crate) fn threshold(&self) -> u64 {
        self.threshold
    }

    /// What kept elements are multiplied with.
    #[cfg(feature = "cuda")]
    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }

    /// Multiplies `row` (the features of one step of one sequence, the input of `layer`) by its mask.
    #[inline(always)]
    pub fn apply<E: Scalar>(&self, row: &mut [E], layer: usize, step: usize, sequence: usize) {
        let scale = E::of(self.scale);
        let Ok(threshold) = u32::try_from(self.threshold) else {
            return row.fill(E::zero());
        };
        let (many, rest) = row.as_chunks_mut::<{ 4 * BLOCKS }>();
        let first = many.len() * BLOCKS;
        for (at, values) in many.iter_mut().enumerate() {
            let mut counters = [[0; BLOCKS], [sequence as u32; BLOCKS], [step as u32; BLOCKS], [layer as u32; BLOCKS]];
            for (i, block) in counters[0].iter_mut().enumerate() {
                *block = (at * BLOCKS + i) as u32;
            }
            let bits = philox_blocks(counters, self.seed);
            let mut in_order = [0; 4 * BLOCKS];
            for i in 0..BLOCKS {
                for word in 0..4 {
                    in_order[4 * i + word] = bits[word][i];
                }
            }
            for (value, random) in values.iter_mut().zip(in_order) {
                *value = if random >= threshold { *value * scale } else { E::zero() };
            }
        }
        for (block, four) in rest.chunks_mut(4).enumerate() {
            let block = first + block;
            let bits = philox4x32([block as u32, sequence as u32, step as u32, layer as u32], self.seed);
            for (value, random) in four.iter_mut().zip(bits) {
                *value = if random >= threshold { *value * scale } else { E::zero() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the reference implementation (Random123, `kat_vectors`).
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox4x32([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([!0; 4], !0), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], 0x299f_31d0_a409_3822),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// Blocks at once and one by one draw the same, at every length.
    #[test]
    fn rows_have_the_bits_of_their_blocks() {
        let dropout = Dropout::new(0.4, 0x1234_5678_9ABC_DEF0);
        for len in [1, 4, 63, 64, 65, 131, 260] {
            let mut row = vec![3.0f32; len];
            dropout.apply(&mut row, 7, 5, 3);
            for (i, value) in row.into_iter().enumerate() {
                let bits = philox4x32([(i / 4) as u32, 3, 5, 7], 0x1234_5678_9ABC_DEF0)[i % 4];
                let kept = u64::from(bits) >= dropout.threshold;
                assert_eq!(value, if kept { 3.0 * dropout.scale as f32 } else { 0.0 }, "element {i} of {len}");
            }
        }
    }

    #[test]
    fn mask_has_its_probability_and_keeps_the_mean() {
        let (len, most) = if cfg!(miri) { (1000, 0.1) } else { (100_000, 0.01) };
        let mut row = vec![1.0f64; len];
        Dropout::new(0.3, 7).apply(&mut row, 1, 2, 3);
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let dropped = row.iter().filter(|v| **v == 0.0).count() as f64 / row.len() as f64;
        assert!((mean - 1.0).abs() < most, "{mean}");
        assert!((dropped - 0.3).abs() < most, "{dropped}");
    }

    #[test]
    fn extreme_probabilities() {
        let mut row = vec![2.0f32; 9];
        Dropout::new(0.0, 7).apply(&mut row, 1, 2, 3);
        assert_eq!(row, vec![2.0; 9]);
        Dropout::new(1.0, 7).apply(&mut row, 1, 2, 3);
        assert_eq!(row, vec![0.0; 9]);
    }
}
