//! The arity table: how many gates and states each cell has, in which order, and what training saves.
//!
//! This is the only place where these facts stand; every layout in the crate is derived from it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CellKind {
    /// The simple (Elman) recurrence, [`crate::cell::rnn`].
    Rnn,
    /// Long short-term memory, [`crate::cell::lstm`].
    Lstm,
    /// Gated recurrent unit, [`crate::cell::gru`].
    Gru,
}

/// One row of the arity table.
#[derive(Debug, PartialEq, Eq)]
pub struct CellSpec {
    /// Lower-case name, as on the command line.
    pub name: &'static str,
    /// The gates in the order in which their rows stand in `weight_ih`, `weight_hh` and the biases (PyTorch's order).
    pub gates: &'static [&'static str],
    /// The states carried from step to step; the first is the output `h`.
    pub states: &'static [&'static str],
    /// The gates that have a peephole row, in the order of those rows.
    pub peepholes: &'static [&'static str],
    /// What a training forward must keep of every step besides `h`, `hidden_size` elements each: activated gates, the LSTM's
    /// cell state, and of the GRU what its reset gate is multiplied with or into (`q` in [`crate::cell::gru`]).
    pub saved: &'static [&'static str],
}

impl CellKind {
    /// All cells.
    pub const ALL: [CellKind; 3] = [CellKind::Rnn, CellKind::Lstm, CellKind::Gru];

    /// This cell's row of the arity table.
    pub fn spec(self) -> &'static CellSpec {
        match self {
            CellKind::Rnn => &CellSpec { name: "rnn", gates: &["h"], states: &["h"], peepholes: &[], saved: &[] },
            CellKind::Lstm => &CellSpec {
                name: "lstm",
                gates: &["i", "f", "g", "o"],
                states: &["h", "c"],
                peepholes: &["i", "f", "o"],
                saved: &["i", "f", "g", "o", "c"],
            },
            CellKind::Gru => &CellSpec {
                name: "gru",
                gates: &["r", "z", "n"],
                states: &["h"],
                peepholes: &[],
                saved: &["r", "z", "n", "rn"],
            },
        }
    }

    /// Number of gates `G`: `weight_ih` is `[G * hidden_size, input_size]`.
    pub fn gates(self) -> usize {
        self.spec().gates.len()
    }

    /// Whether the cell carries a second state `c`.
    pub fn has_cell_state(self) -> bool {
        self.spec().states.len() > 1
    }
}

impl fmt::Display for CellKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().name)
    }
}

impl FromStr for CellKind {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        CellKind::ALL
            .into_iter()
            .find(|c| c.spec().name == s)
            .ok_or_else(|| Error::option("cell", "rnn, lstm or gru", s))
    }
}
