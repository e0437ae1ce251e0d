//! `kernels/catalog.rs`, where every kernel entry point stands once.

include!("../../../kernels/catalog.rs");
