//! The oracle's operations: the plain loops that are the defaults.

use super::ReferenceBackend;
use crate::backend::host_ops::HostOperations;
use crate::dtype::Scalar;

impl<E: Scalar> HostOperations for ReferenceBackend<E> {
    type Element = E;
}

impl<E: Scalar> ReferenceBackend<E> {
    /// The same for another element type.
    pub(crate) fn cast<F: Scalar>(&self) -> ReferenceBackend<F> {
        ReferenceBackend::new()
    }
}
