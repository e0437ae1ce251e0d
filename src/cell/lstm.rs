//! The lstm cell.
