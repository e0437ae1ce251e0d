//! Parity cases.

use std::path::Path;

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::interop::safetensors::TensorFile;
use fused_rnn::parity::Case;

use super::{read, refused};

/// A case, run on three backends.
pub fn case(bytes: &[u8]) -> bool {
    let parsed = read(bytes.len(), || Case::from_file(&TensorFile::parse(bytes, Path::new("case.safetensors"))?));
    let Some(case) = parsed else { return false };
    let (shape, descriptor) = (case.shape(), case.descriptor());
    let work = [shape.seq_len, shape.batch, descriptor.hidden_size + descriptor.input_size, descriptor.hidden_size];
    if work.into_iter().fold(1usize, usize::saturating_mul) > 1_000_000 || descriptor.num_layers > 8 {
        return true;
    }
    let oracle = case.run(&ReferenceBackend::<f64>::new(), None);
    let double = case.run(&CpuBackend::<f64>::with_threads(1).expect("one thread"), None);
    let single = case.run(&CpuBackend::<f32>::with_threads(1).expect("one thread"), None);
    assert!(oracle.is_ok() == double.is_ok() && oracle.is_ok() == single.is_ok(), "only some backends can run it");
    match oracle {
        Ok(report) => assert!(!report.tensors.is_empty()),
        Err(error) => refused(&error),
    }
    true
}
