//! Older values of words that several blocks access at once: what a relaxed load may still read.
//!
//! A load may read any version of a word that is not older than one its warp has read before, or knows to be replaced.

use std::collections::HashMap;

use super::clock::WarpClock;
use super::random::Random;

/// Versions of a word that are kept besides the newest.
const KEPT: usize = 4;

#[derive(Clone, Debug, Default)]
struct Word {
    /// Number of the first version that is kept.
    first: u32,
    /// Values, each with who replaced it: warp, clock, lane.
    replaced: Vec<(u32, (u32, u32, u32))>,
}

/// Older values, by address.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    words: HashMap<u64, Word>,
    /// The version that a warp read last, by warp and address.
    read: HashMap<(u32, u64), u32>,
}

impl Versions {
    pub fn clear(&mut self) {
        self.words.clear();
        self.read.clear();
    }

    /// The word at `address`, which was `value`, is replaced by a store of `lane`.
    pub fn replace(&mut self, address: u64, value: u32, clock: &WarpClock, lane: u32) {
        let word = self.words.entry(address).or_default();
        word.replaced.push((value, (clock.id, clock.now, lane)));
        if word.replaced.len() > KEPT {
            word.replaced.remove(0);
            word.first += 1;
        }
    }

    /// What a relaxed load of `lane` reads where the newest value is `newest`.
    pub fn load(&mut self, address: u64, newest: u32, clock: &WarpClock, lane: u32, random: &mut Random) -> u32 {
        let Some(word) = self.words.get(&address) else { return newest };
        let last = word.first + word.replaced.len() as u32;
        let seen = self.read.entry((clock.id, address)).or_insert(0);
        let known =
            word.replaced.iter().rposition(|(_, (who, when, author))| clock.ordered(lane, *who, *when, 1 << *author));
        let oldest = (*seen).max(word.first).max(known.map_or(0, |index| word.first + index as u32 + 1));
        if oldest < last && random.once_in(3) {
            let version = oldest + random.below((last - oldest) as usize) as u32;
            *seen = version;
            return word.replaced[(version - word.first) as usize].0;
        }
        *seen = last;
        newest
    }
}
