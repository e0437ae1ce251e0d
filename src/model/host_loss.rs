//! Losses that the host computes wherever the model is: those of one's own, and those that a device has no kernel for.

use crate::backend::note_loss;
use crate::backend::ops::LossEntry;
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::{DType, Scalar};
use crate::error::Result;
use crate::loss::{Batch, LossFunction};
use crate::model::arrays::read_as;

/// A loss of a batch, and what it is of besides predictions.
pub(super) struct HostLoss<'a> {
    pub loss: &'a LossFunction,
    pub samples: usize,
    /// Of a sample.
    pub rows: usize,
    pub columns: usize,
    pub targets: TensorRef<'a>,
    pub weights: Option<TensorRef<'a>>,
    pub mask: Option<Vec<f64>>,
    pub entry: LossEntry,
}

fn round<E: Scalar>(from: &[f64], to: &mut [E]) {
    from.iter().zip(to).for_each(|(from, to)| *to = E::of(*from));
}

/// The numbers of a tensor.
pub(super) fn read(device: &Device, tensor: TensorRef<'_>) -> Result<Vec<f64>> {
    read_as(device, "loss", &[tensor.len()], tensor)
}

impl HostLoss<'_> {
    /// The loss into the status, and the gradient where one is asked for, set.
    pub fn run(
        &self,
        device: &Device,
        predictions: TensorRef<'_>,
        gradient: Option<TensorMut<'_>>,
        mut status: TensorMut<'_>,
    ) -> Result<()> {
        let (targets, predictions) = (read(device, self.targets)?, read(device, predictions)?);
        let weights = self.weights.map(|weights| read(device, weights)).transpose()?;
        let batch = Batch {
            samples: self.samples,
            rows: self.rows,
            columns: self.columns,
            targets: &targets,
            predictions: &predictions,
            weights: weights.as_deref(),
            mask: self.mask.as_deref(),
        };
        let mut slopes = vec![0.0; if gradient.is_some() { predictions.len() } else { 0 }];
        let value = self.loss.of_batch(&batch, gradient.is_some().then_some(&mut slopes[..]))?;
        if let Some(gradient) = gradient {
            // A slope beyond the type becomes infinite, and training says so.
            let mut rounded = Tensor::on_host("gradient", gradient.dtype(), slopes.len())?;
            match rounded.dtype() {
                DType::F64 => round(&slopes, rounded.view_mut().host::<f64>()?),
                _ => round(&slopes, rounded.view_mut().host::<f32>()?),
            }
            device.upload_tensor(rounded.view(), gradient)?;
        }
        let mut numbers = read(device, status.view())?;
        note_loss(value, self.entry, &mut numbers);
        device.upload(&numbers, status.reborrow())
    }
}
