//! What optimizers without kernels have in common: they compute on the host alone.

use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;

/// A step of a rule that remembers two tensors, on slices.
pub(super) trait HostRule {
    /// Its name in messages.
    const NAME: &'static str;

    /// Changes the weights and what is remembered.
    fn step<E: Scalar>(&self, t: u64, weights: &mut [E], gradients: &[E], first: &mut [E], second: &mut [E]);
}

/// Runs a rule where the weights are in the host's memory.
///
/// # Errors
///
/// [`Error::Unsupported`] on a device; [`Error::Shape`] for another number of states than two, or of other lengths.
pub(super) fn update<R: HostRule>(
    rule: &R,
    device: &Device,
    t: u64,
    parameters: TensorMut<'_>,
    gradients: TensorRef<'_>,
    states: &mut [Tensor],
) -> Result<()> {
    if !device.is_host() {
        let why = "it has no kernel; use Sgd, RmsProp, Adam, AdamW or Adagrad, or train on the CPU";
        return Err(Error::unsupported(format!("{} on a GPU", R::NAME), why));
    }
    let [first, second] = states else { return Err(super::wrong_states(R::NAME, 2, states.len())) };
    for (name, len) in [("gradients", gradients.len()), ("first state", first.len()), ("second state", second.len())] {
        check_len(name, &[parameters.len()], len)?;
    }
    match parameters.dtype() {
        DType::F64 => rule.step::<f64>(
            t,
            parameters.host()?,
            gradients.host()?,
            first.view_mut().host()?,
            second.view_mut().host()?,
        ),
        _ => rule.step::<f32>(
            t,
            parameters.host()?,
            gradients.host()?,
            first.view_mut().host()?,
            second.view_mut().host()?,
        ),
    }
    Ok(())
}

/// Zero for denormal numbers, which decaying moments become and which are many times slower.
#[inline(always)]
pub(super) fn flush<E: Scalar>(value: E) -> E {
    if value.abs() < E::min_positive_value() { E::zero() } else { value }
}
