//! Files of arrays: `.npz`, safetensors.

use std::path::Path;

use fused_rnn::exchange::arrays;
use fused_rnn::interop::safetensors::TensorFile;

use super::{read, refused};

/// Arrays of NumPy's.
pub fn npz(bytes: &[u8]) -> bool {
    let Some(arrays) = read(bytes.len(), || arrays::parse(bytes, Path::new("d.npz"))) else { return false };
    arrays.values().for_each(|array| assert_eq!(array.len(), array.shape().iter().product::<usize>()));
    true
}

/// Every tensor of a file, as all that it could be.
pub fn safetensors(bytes: &[u8]) -> bool {
    let parsed = read(bytes.len(), || TensorFile::parse(bytes, Path::new("d.safetensors")));
    let Some(file) = parsed else { return false };
    for name in file.names() {
        let shape = file.shape(name).expect("its own tensor");
        let elements: usize = shape.iter().product();
        for (read, len) in [
            file.floats::<f32>(name).map(|(shape, values)| (shape, values.len())),
            file.floats::<f64>(name).map(|(shape, values)| (shape, values.len())),
            file.integers(name).map(|(shape, values)| (shape, values.len())),
        ]
        .into_iter()
        .filter_map(|read| read.inspect_err(refused).ok())
        {
            assert!(read == shape && len == elements);
        }
    }
    true
}
