//! What a model keeps of each output to train it, and what training tells of itself.

use std::borrow::{Borrow, BorrowMut};

use crate::backend::dense::{RECORD_LEN, Report};
use crate::backend::{DenseBackend, Memory, Storage};
use crate::error::Result;
use crate::model::graph::Source;
use crate::nn::{Loss, Scratch, Value};

/// What training tells about itself, where it computes.
pub(super) struct Record<B: Memory> {
    tensor: B::Owned<f64>,
}

impl<B: Memory> Record<B> {
    pub fn new(backend: &B) -> Result<Self> {
        Ok(Record { tensor: backend.allocate("record", RECORD_LEN)? })
    }

    pub fn get_mut(&mut self) -> &mut B::Tensor<f64> {
        self.tensor.borrow_mut()
    }

    /// Whether reading costs nothing.
    pub fn is_on_host(&self) -> bool {
        let tensor: &B::Tensor<f64> = self.tensor.borrow();
        tensor.on_host().is_some()
    }

    /// Waits for all work given so far, and tells.
    pub fn read(&self, backend: &B) -> Result<Report> {
        let mut numbers = [0.0; RECORD_LEN];
        backend.download(self.tensor.borrow(), &mut numbers)?;
        Ok(Report::new(&numbers))
    }

    /// Everything zero.
    pub fn clear(&mut self, backend: &B) -> Result<()> {
        backend.upload(&[0.0; RECORD_LEN], self.tensor.borrow_mut())
    }
}

/// An output with its part of the loss.
pub(super) struct Output<B: DenseBackend> {
    pub source: Source,
    pub value: Value,
    pub loss: Loss,
    /// What its loss is multiplied with in the sum.
    pub loss_weight: f64,
    /// Targets of a batch.
    pub targets: Scratch<B>,
    /// Weights of the rows of a batch, where samples have some.
    pub sample_weights: Scratch<B>,
    /// What the mask says of the rows of a batch.
    pub mask_weights: Scratch<B>,
    /// The product of both.
    pub row_weights: Scratch<B>,
    /// Mean of the mask.
    pub valid: Scratch<B>,
}

impl<B: DenseBackend> Output<B> {
    pub fn new(source: Source, value: Value) -> Self {
        Output {
            source,
            value,
            loss: Loss::default(),
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

    /// Sample shape of the targets.
    pub fn target_shape(&self) -> &[usize] {
        let shape = self.value.shape();
        if self.loss.is_sparse() { &shape[..shape.len().saturating_sub(1)] } else { shape }
    }

    pub fn target_size(&self) -> usize {
        self.target_shape().iter().product()
    }

    /// Weights of the rows of a batch, as its loss has them.
    #[allow(clippy::type_complexity)]
    pub fn weights<'a>(
        &'a self,
        backend: &B,
        batch: usize,
        weighted: bool,
    ) -> Result<Option<<B as Memory>::View<'a, B::Elem>>>
    where
        B: 'a,
    {
        let weights = match (self.mask().is_some(), weighted) {
            (true, true) => &self.row_weights,
            (false, true) => &self.sample_weights,
            (true, false) => &self.mask_weights,
            (false, false) => return Ok(None),
        };
        weights.get(backend, batch * self.rows()).map(Some)
    }

    /// The mask, where it says something about each row.
    pub fn mask(&self) -> Option<&Value> {
        self.value.mask().filter(|mask| mask.size() == self.rows())
    }
}
