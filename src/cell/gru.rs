//! The gru cell.
