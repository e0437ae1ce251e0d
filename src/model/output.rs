//! Outputs of a model in training: targets, losses and metrics of each, and the status that a device leaves.

use crate::backend::ops::{Report, STATUS_LEN};
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::loss::{Loss, LossFunction, LossUnit};
use crate::model::graph::Source;
use crate::nn::{Scratch, Value};

/// A status, in which [operations](crate::backend::Operations) say how training goes, where they compute.
pub(super) struct Status {
    tensor: Tensor,
}

impl Status {
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Status { tensor: device.allocate_as("status", DType::F64, STATUS_LEN)? })
    }

    pub fn get_mut(&mut self) -> TensorMut<'_> {
        self.tensor.view_mut()
    }

    /// Whether reading costs nothing.
    pub fn is_on_host(&self) -> bool {
        self.tensor.is_on_host()
    }

    /// Waits for all work given so far, and tells.
    pub fn read(&self, device: &Device) -> Result<Report> {
        Ok(Report::new(&self.numbers(device)?))
    }

    /// The numbers themselves, for [`set`](Self::set).
    pub fn numbers(&self, device: &Device) -> Result<[f64; STATUS_LEN]> {
        let mut numbers = [0.0; STATUS_LEN];
        device.download(self.tensor.view(), &mut numbers)?;
        Ok(numbers)
    }

    /// Takes the numbers of another.
    pub fn set(&mut self, device: &Device, numbers: &[f64; STATUS_LEN]) -> Result<()> {
        device.upload(numbers, self.tensor.view_mut())
    }

    /// Everything zero.
    pub fn clear(&mut self, device: &Device) -> Result<()> {
        device.upload(&[0.0; STATUS_LEN], self.tensor.view_mut())
    }
}

/// An output with its part of the loss.
pub(super) struct Output {
    pub source: Source,
    pub value: Value,
    pub loss: LossFunction,
    /// Sample shape of the targets; none where the loss cannot be of such an output.
    target_shape: Option<Vec<usize>>,
    /// What its loss is multiplied with in the sum.
    pub loss_weight: f64,
    /// Targets of a batch.
    pub targets: Scratch,
    /// Weights of the rows of a batch, where samples have some.
    pub sample_weights: Scratch,
    /// What the mask says of the rows of a batch.
    pub mask_weights: Scratch,
    /// The product of both.
    pub row_weights: Scratch,
    /// Mean of the mask.
    pub valid: Scratch,
}

impl Output {
    pub fn new(source: Source, value: Value, loss: LossFunction) -> Self {
        Output {
            source,
            target_shape: loss.target_shape(value.shape()).ok(),
            value,
            loss,
            loss_weight: 1.0,
            targets: Scratch::new(),
            sample_weights: Scratch::new(),
            mask_weights: Scratch::new(),
            row_weights: Scratch::new(),
            valid: Scratch::new(),
        }
    }

    /// Width of the rows that the loss is of: the last axis.
    pub fn columns(&self) -> usize {
        self.value.shape().last().copied().unwrap_or(1)
    }

    /// Such rows in a sample.
    pub fn rows(&self) -> usize {
        self.value.size() / self.columns()
    }

    /// Takes the same output for other lengths of the inputs.
    pub fn set_value(&mut self, value: Value) {
        self.target_shape = self.loss.target_shape(value.shape()).ok();
        self.value = value;
    }

    /// Takes another loss, which must fit.
    pub fn set_loss(&mut self, loss: LossFunction, weight: f64) -> Result<()> {
        loss.validate()?;
        self.target_shape = Some(loss.target_shape(self.value.shape())?);
        (self.loss, self.loss_weight) = (loss, weight);
        Ok(())
    }

    /// Whether the loss is computed on the host, wherever the model is: its own arithmetic, or one that the device has no kernel for.
    pub fn loss_is_on_host(&self, device: &Device) -> Option<&LossFunction> {
        match &self.loss {
            LossFunction::BuiltIn(loss) if device.is_host() || loss.has_kernel() => None,
            loss => Some(loss),
        }
    }

    /// The loss where an operation computes it.
    pub fn built_in(&self) -> Loss {
        self.loss.built_in().unwrap_or_default()
    }

    /// Sample shape of the targets.
    pub fn target_shape(&self) -> Result<&[usize]> {
        match &self.target_shape {
            Some(shape) => Ok(shape),
            // It tells what is wrong.
            None => self.loss.target_shape(self.value.shape()).map(|_| self.value.shape()),
        }
    }

    pub fn target_size(&self) -> Result<usize> {
        Ok(self.target_shape()?.iter().product())
    }

    /// Whether the loss is of whole samples.
    pub fn is_by_sample(&self) -> bool {
        self.loss.unit() == LossUnit::Sample
    }

    /// Weights that a sample has: one for each row, or for a loss of whole samples one.
    pub fn weight_rows(&self) -> usize {
        if self.is_by_sample() { 1 } else { self.rows() }
    }

    /// Weights of the rows of a batch, as its loss has them.
    pub fn weights(&self, batch: usize, weighted: bool) -> Result<Option<TensorRef<'_>>> {
        let weights = match (self.mask().is_some(), weighted) {
            (true, true) => &self.row_weights,
            (false, true) => &self.sample_weights,
            (true, false) => &self.mask_weights,
            (false, false) => return Ok(None),
        };
        weights.get(batch * self.weight_rows()).map(Some)
    }

    /// Refuses a mask that says nothing about the rows of the loss. `name` is that of the layer.
    pub fn check_mask(&self, name: &str) -> Result<()> {
        match self.value.mask().filter(|mask| mask.size() != self.rows()) {
            None => Ok(()),
            Some(mask) => Err(Error::shape(
                format!("mask of the output of {name}"),
                format!(
                    "one of each of its {} rows, as the output has shape {:?}; end the mask with a Reshape to the same shape",
                    self.rows(),
                    self.value.shape()
                ),
                format!("{:?}", mask.shape()),
            )),
        }
    }

    /// The mask, where it says something about each row, and rows have losses of their own.
    pub fn mask(&self) -> Option<&Value> {
        self.value.mask().filter(|mask| mask.size() == self.rows() && !self.is_by_sample())
    }
}
