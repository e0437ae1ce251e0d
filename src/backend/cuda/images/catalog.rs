//! The kernels' entry points: `kernels/catalog.rs`, which `build.rs` includes too.

#[path = "../../../../kernels/catalog.rs"]
mod rows;

pub use rows::*;

use crate::cell::for_each_cell;
use std::collections::HashMap;
use std::sync::OnceLock;

/// The struct that an entry point takes.
pub(crate) fn params(name: &str) -> Option<&'static str> {
    static PARAMS: OnceLock<HashMap<String, &'static str>> = OnceLock::new();
    let params = PARAMS.get_or_init(|| entries().into_iter().map(|entry| (entry.name, entry.params)).collect());
    params.get(name).copied()
}
