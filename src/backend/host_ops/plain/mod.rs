//! The operations as plain loops, to be read: what the oracle computes, and what a faster backend keeps where it has nothing better.
//!
//! Lengths have been checked. One file a subject.

pub(crate) mod attention;
pub(crate) mod elements;
pub(crate) mod norms;
pub(crate) mod rows;
pub(crate) mod sums;
pub(crate) mod training;
