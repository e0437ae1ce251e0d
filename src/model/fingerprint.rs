//! Whether bytes are those that they were: [`Fingerprint`].

/// A number that other bytes do not have, but for chance: a change within eight bytes always changes it. Fast, and no protection against those who
/// want to deceive. The same on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// The constants of FNV-1a of 64 bits, here on words.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

impl Fingerprint {
    /// That of nothing.
    pub fn new() -> Self {
        Fingerprint(START)
    }

    /// Adds bytes, and how many they are.
    pub fn add(&mut self, bytes: &[u8]) -> &mut Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut hash = self.0;
        for word in words {
            // Each step is one to one, so that no later one undoes a difference; the turn carries high bits down.
            hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME).rotate_left(29);
        }
        for byte in rest {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME).rotate_left(29);
        }
        self.0 = (hash ^ bytes.len() as u64).wrapping_mul(PRIME).rotate_left(29);
        self
    }

    /// Of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        *Fingerprint::new().add(bytes)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_have_another() {
        let bytes: Vec<u8> = (0..100).collect();
        let whole = Fingerprint::of(&bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert_ne!(Fingerprint::of(&other), whole, "{at} {bit}");
            }
            assert_ne!(Fingerprint::of(&bytes[..at]), whole);
        }
        assert_ne!(Fingerprint::new().add(&bytes[..8]).add(&bytes[8..]).get(), whole.get());
        assert_ne!(Fingerprint::of(&[0; 8]), Fingerprint::of(&[0; 16]));
    }
}
