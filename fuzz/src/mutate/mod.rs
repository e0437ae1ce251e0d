//! Changes that leave a file what it is: without them nearly all inputs end at a length or a checksum.

mod archive;
mod json;
mod messages;
mod tensors;

use crate::targets::Form;

/// An input, changed in what it says; `None` where its bytes shall be changed, as one time in four, and always where it is no such file.
pub fn changed(form: Form, bytes: &[u8], most: usize, seed: u32) -> Option<Vec<u8>> {
    let mut random = Random::new(seed);
    if random.below(4) == 0 {
        return None;
    }
    let changed = match form {
        Form::Text | Form::Bytes => None,
        Form::Json => json::changed(bytes, &mut random),
        Form::Tensors(key) => tensors::changed(bytes, key, &mut random),
        Form::Archive => archive::changed(bytes, &mut random),
        Form::Messages => messages::changed(bytes, &mut random),
    };
    changed.filter(|changed| !changed.is_empty() && changed.len() <= most)
}

/// Numbers from a seed ([xorshift*](https://vigna.di.unimi.it/ftp/papers/xorshift.pdf)).
pub struct Random(u64);

impl Random {
    fn new(seed: u32) -> Self {
        let mut random = Random(u64::from(seed) << 17 | 0x9e37_79b9);
        for _ in 0..4 {
            random.bits();
        }
        random
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 11) as usize % n.max(1)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).copied()
    }

    /// A number that readers may stumble over, or a small one.
    pub fn hostile(&mut self) -> u64 {
        match self.below(8) {
            0 => u64::MAX,
            1 => i64::MAX as u64,
            2 => u64::from(u32::MAX),
            3 => (1u64 << self.below(64)).wrapping_sub(self.below(3) as u64),
            4 => (u64::MAX / (1 + self.below(5) as u64)).wrapping_add(2),
            _ => self.below(9) as u64,
        }
    }
}
