//! Every kernel entry point, once: build.rs compiles what stands here, the backend looks it up here.
//!
//! This file is included by `build.rs` and by `src/backend/cuda/catalog.rs`; it must not use anything but `std`.
//! A `.cu` file holds templates only. Its entry points are generated from these rows, as
//! `KERNEL(name, params, threads, body)` (the macro stands in `prims.cuh`), for the GPU and for the host alike.

/// One entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Symbol.
    pub name: String,
    /// File under `kernels/` with the template.
    pub source: &'static str,
    /// Type of the only parameter, in `params.cuh`.
    pub params: &'static str,
    /// Statement that runs the template on the parameter `p`.
    pub body: String,
    /// Threads of a block.
    pub threads: u32,
    /// Lowest compute capability, times ten, that has it.
    pub min_compute: u32,
    /// `rnn`, `lstm`, `gru`, or empty.
    pub cell: &'static str,
    /// `f32`, `f64`, `f16`, `bf16`, `tf32`, or empty.
    pub dtype: &'static str,
    /// What tells it from its siblings, for people: `forward`, `backward`, `nt`, …
    pub variant: String,
}

/// The cells: name on the command line and type in `cells/`.
pub const CELLS: [(&str, &str); 3] = [("rnn", "Rnn"), ("lstm", "Lstm"), ("gru", "Gru")];
/// Element types: name and storage type in `prims.cuh`.
pub const DTYPES: [(&str, &str); 4] = [("f32", "f32"), ("f64", "f64"), ("f16", "f16"), ("bf16", "bf16")];

/// All entry points.
pub fn entries() -> Vec<Entry> {
    Vec::new()
}
