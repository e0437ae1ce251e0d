//! Choices of a schedule: random ones (SplitMix64), or one list of choices after another until all have been made.

/// Where choices come from.
#[derive(Clone, Debug)]
pub enum Random {
    Seeded(u64),
    #[cfg_attr(not(test), expect(dead_code, reason = "only the litmus tests make every choice"))]
    Listed(Choices),
}

/// A list of choices, each with how many there were to choose from.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    made: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    /// The next list, in the order of the choices; nothing after the last.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the litmus tests make every choice"))]
    pub fn next(mut self) -> Option<Self> {
        while let Some((choice, of)) = self.made.pop() {
            if choice + 1 < of {
                self.made.push((choice + 1, of));
                self.at = 0;
                return Some(self);
            }
        }
        None
    }
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random::Seeded(seed)
    }

    /// Whether all choices are to be made in turn.
    pub fn is_exhaustive(&self) -> bool {
        matches!(self, Random::Listed(_))
    }

    /// Below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        match self {
            Random::Seeded(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mixed = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
                ((mixed ^ mixed >> 31) >> 33) as usize % bound.max(1)
            }
            Random::Listed(_) if bound <= 1 => 0,
            Random::Listed(choices) => {
                if choices.at == choices.made.len() {
                    choices.made.push((0, bound));
                }
                choices.at += 1;
                choices.made[choices.at - 1].0
            }
        }
    }

    /// Once in `times`; of listed choices both ways.
    pub fn once_in(&mut self, times: usize) -> bool {
        match self {
            Random::Seeded(_) => self.below(times) == 0,
            Random::Listed(_) => self.below(2) == 1,
        }
    }
}
