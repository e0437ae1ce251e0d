//! The rnn cell.
