//! What weights and outputs of layers add to the loss, and what weights are brought back to: regularizers and constraints in training.
//!
//! The penalties are made of the device's losses: `Σw²` is as many times the mean squared error to zeros as there are elements, `Σ|w|` the mean
//! absolute error, with value, gradient and place in the status. So every device has them.

use crate::backend::Device;
use crate::backend::ops::LossEntry;
use crate::cell::Activation;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::nn::network::Network;
use crate::nn::{Constraint, Loss, Regularizer, Scratch};

/// Scratch of the penalties.
pub(super) struct Penalties {
    zeros: Scratch,
    /// Elements of it that are zeros.
    filled: usize,
    gradient: Scratch,
}

impl Penalties {
    pub fn new() -> Self {
        Penalties { zeros: Scratch::new(), filled: 0, gradient: Scratch::new() }
    }

    fn allocate(&mut self, device: &Device, len: usize, training: bool) -> Result<()> {
        if len > self.filled {
            self.filled = 0;
            self.zeros.grow(device, "targets of a penalty", len)?;
            device.fill(self.zeros.get_mut(len)?, 0.0)?;
            self.filled = len;
        }
        if training {
            self.gradient.grow(device, "gradient of a penalty", len)?;
        }
        Ok(())
    }
}

/// Both terms that are there, each as a loss, and what the mean over its elements counts.
fn terms(regularizer: Regularizer, len: usize) -> impl Iterator<Item = (Loss, f64)> {
    let terms = [(Loss::MeanAbsoluteError, regularizer.l1), (Loss::MeanSquaredError, regularizer.l2)];
    terms.into_iter().filter(|(_, factor)| *factor != 0.0).map(move |(loss, factor)| (loss, factor * len as f64))
}

impl Model {
    /// Room for the penalties of a batch of so many samples. Refuses constraints that the device cannot do.
    pub(super) fn allocate_penalties(&mut self, batch: usize, training: bool) -> Result<()> {
        let Model { device, network, penalties, .. } = self;
        let mut most = 0;
        for (layer, parameter) in network.tensors() {
            if parameter.regularizer.is_some() {
                most = most.max(parameter.range.len());
            }
            let of_norms = parameter.constraint.as_ref().filter(|constraint| **constraint != Constraint::NonNegative);
            if let (true, Some(constraint), false) = (training, of_norms, device.is_host()) {
                return Err(Error::unsupported(
                    format!("{constraint:?} of {layer}.{} on {}", parameter.name, device.name()),
                    "there is no kernel for it; train on a device on the host, as Device::cpu(), or use NonNegative",
                ));
            }
        }
        for (value, _) in &network.builder.penalties {
            most = most.max(network.len(value, batch));
        }
        if most > 0 { penalties.allocate(device, most, training) } else { Ok(()) }
    }

    /// What values between layers add to the loss of a batch whose values are there, divided by its samples; with `gradients` their
    /// gradients, times the scale of losses.
    pub(super) fn run_output_penalties(&mut self, batch: usize, entry: LossEntry, gradients: bool) -> Result<()> {
        if self.network.builder.penalties.is_empty() {
            return Ok(());
        }
        let scale = self.scale();
        let Model { device, network, penalties, status, workspace, .. } = self;
        let device = &*device;
        for number in 0..network.builder.penalties.len() {
            let Some((value, regularizer)) = network.builder.penalties.get(number).cloned() else { continue };
            let len = network.len(&value, batch);
            for (loss, factor) in terms(regularizer, len) {
                let factor = factor / batch as f64;
                let entry = LossEntry { weight: entry.weight * factor, ..entry };
                let zeros = penalties.zeros.get(len)?;
                let (workspace, status) = (workspace.all()?, status.get_mut());
                if gradients {
                    network.give_gradient(device, &value, batch, |y, mut dy| {
                        let gradient = Some(dy.reborrow());
                        device.loss(loss, 1, zeros, y, None, gradient, entry, status, workspace)?;
                        device.scale(factor * scale, dy)
                    })?;
                } else {
                    let y = network.value(&value, batch)?;
                    device.loss(loss, 1, zeros, y, None, None, entry, status, workspace)?;
                }
            }
        }
        Ok(())
    }

    /// What weights that are trained add to the loss; with `gradients` also to their gradients, which are there.
    pub(super) fn run_weight_penalties(&mut self, entry: LossEntry, gradients: bool) -> Result<()> {
        let Model { device, network, penalties, status, workspace, .. } = self;
        let Network { builder, parameters, gradients: of_weights, .. } = network;
        for parameter in builder.layers.iter().flat_map(|layer| &layer.parameters).filter(|p| p.trainable) {
            let Some(regularizer) = parameter.regularizer else { continue };
            let (range, len) = (parameter.range.clone(), parameter.range.len());
            for (loss, factor) in terms(regularizer, len) {
                let entry = LossEntry { weight: entry.weight * factor, ..entry };
                let (zeros, w) = (penalties.zeros.get(len)?, parameters.get().part(range.clone())?);
                let gradient = if gradients { Some(penalties.gradient.get_mut(len)?) } else { None };
                device.loss(loss, 1, zeros, w, None, gradient, entry, status.get_mut(), workspace.all()?)?;
                if gradients {
                    let to = of_weights.get_mut().part(range.clone())?;
                    device.scale_add(factor, penalties.gradient.get(len)?, 1.0, to)?;
                }
            }
        }
        Ok(())
    }

    /// Brings weights back to what their constraints say.
    pub(super) fn constrain(&mut self) -> Result<()> {
        let Model { device, network, .. } = self;
        let Network { builder, parameters, .. } = network;
        for parameter in builder.layers.iter().flat_map(|layer| &layer.parameters).filter(|p| p.trainable) {
            let Some(constraint) = &parameter.constraint else { continue };
            let weights = parameters.get_mut().part(parameter.range.clone())?;
            match (constraint, device.is_host(), device.dtype()) {
                (Constraint::NonNegative, ..) => device.add_bias_activate(Activation::Relu, None, weights, None)?,
                (_, true, DType::F64) => constraint.apply(&parameter.shape, weights.host::<f64>()?),
                // On another device the host's view of the tensor is refused; training has said so before.
                _ => constraint.apply(&parameter.shape, weights.host::<f32>()?),
            }
        }
        Ok(())
    }
}
