//! Operations in the host's memory: [`HostOperations`], which the host's backends implement on slices, and through it
//! [`Operations`](super::Operations) for them.
//!
//! Its methods are those of [`Operations`](super::Operations), on slices whose lengths have been checked. Each has a
//! default, the plain loops of [`plain`]: they are the oracle, and a faster backend replaces those for which it has something better.
#![expect(clippy::indexing_slicing, reason = "each operation checks the lengths of its tensors before its loops")]

mod operations;
pub(crate) mod plain;

use super::WeightGrad;
use super::ops::{AdagradStep, AdamStep, AttentionShape, LossEntry, MatMul, RmsPropStep, SgdStep, Strides, Workspace};
use crate::cell::Activation;
use crate::dtype::Scalar;
use crate::error::Result;
use crate::loss::Loss;
use crate::rnn::Dropout;
use plain::norms::{Moments, NormGradients};
use plain::rows::HostMaskOrder;
use plain::{attention, elements, norms, rows, sums, training};

/// [`SoftmaxMask`](super::ops::SoftmaxMask) in the host's memory.
#[derive(Clone, Copy)]
pub struct HostSoftmaxMask<'a, E> {
    /// The mask `[groups, columns]`, and how many rows share one of its rows.
    pub(crate) keys: Option<(&'a [E], usize)>,
    pub(crate) causal: Option<usize>,
}

impl<E: Scalar> HostSoftmaxMask<'_, E> {
    /// Whether all columns of all rows take part.
    pub(crate) fn is_full(&self) -> bool {
        self.keys.is_none() && self.causal.is_none()
    }

    /// Whether a column of a row takes part.
    #[inline(always)]
    pub(crate) fn contains(&self, columns: usize, row: usize, column: usize) -> bool {
        self.causal.is_none_or(|queries| column <= row % queries)
            && self.keys.is_none_or(|(mask, by)| mask[row / by * columns + column] != E::zero())
    }
}

/// What [`HostOperations::attention`] is of: [`AttentionInputs`](super::ops::AttentionInputs) in the host's memory. No size is zero.
#[derive(Clone, Copy)]
pub struct HostAttention<'a, E> {
    pub(crate) shape: AttentionShape,
    pub(crate) alpha: f64,
    pub(crate) query: &'a [E],
    pub(crate) key: &'a [E],
    pub(crate) value: &'a [E],
    pub(crate) mask: Option<&'a [E]>,
}

/// [`AttentionGradients`](super::ops::AttentionGradients) in the host's memory.
pub struct HostAttentionGradients<'a, E> {
    pub(crate) dquery: Option<&'a mut [E]>,
    pub(crate) dkey: Option<&'a mut [E]>,
    pub(crate) dvalue: Option<&'a mut [E]>,
}

/// What [`HostOperations::loss`] is of.
pub struct HostLoss<'a, E> {
    pub(crate) loss: Loss,
    pub(crate) columns: usize,
    pub(crate) targets: &'a [E],
    pub(crate) predictions: &'a [E],
    pub(crate) weights: Option<&'a [E]>,
    pub(crate) gradient: Option<&'a mut [E]>,
}

/// [`Operations`](super::Operations) on slices. See the [module](self).
#[allow(clippy::too_many_arguments)]
pub trait HostOperations: Send + Sync {
    type Element: Scalar;

    fn workspace(&self, _: Workspace) -> usize {
        0
    }

    fn matmul(
        &self,
        product: MatMul,
        alpha: f64,
        a: &[Self::Element],
        b: &[Self::Element],
        c: &mut [Self::Element],
        grad: WeightGrad,
        _workspace: &mut [Self::Element],
    ) -> Result<()> {
        sums::matmul(product, alpha, a, b, c, grad);
        Ok(())
    }

    fn sum_axis(
        &self,
        sizes: [usize; 3],
        alpha: f64,
        x: &[Self::Element],
        y: &mut [Self::Element],
        grad: WeightGrad,
    ) -> Result<()> {
        sums::sum_axis(sizes, alpha, x, y, grad);
        Ok(())
    }

    fn scale_add(&self, alpha: f64, x: &[Self::Element], beta: f64, y: &mut [Self::Element]) -> Result<()> {
        elements::scale_add(alpha, x, beta, y);
        Ok(())
    }

    fn copy(&self, x: &[Self::Element], y: &mut [Self::Element]) -> Result<()> {
        y.copy_from_slice(x);
        Ok(())
    }

    fn sum(&self, a: &[Self::Element], alpha: f64, b: &[Self::Element], y: &mut [Self::Element]) -> Result<()> {
        elements::sum(a, alpha, b, y);
        Ok(())
    }

    fn scale(&self, alpha: f64, x: &mut [Self::Element]) -> Result<()> {
        elements::scale(alpha, x);
        Ok(())
    }

    fn strided_copy(
        &self,
        shape: [usize; 4],
        from: &[Self::Element],
        from_layout: Strides,
        to: &mut [Self::Element],
        to_layout: Strides,
        grad: WeightGrad,
    ) -> Result<()> {
        elements::strided_copy(shape, from, from_layout, to, to_layout, grad);
        Ok(())
    }

    fn multiply(&self, a: &[Self::Element], b: &[Self::Element], out: &mut [Self::Element]) -> Result<()> {
        elements::multiply(a, b, out);
        Ok(())
    }

    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<&[Self::Element]>,
        values: &mut [Self::Element],
        inputs: Option<&mut [Self::Element]>,
    ) -> Result<()> {
        elements::add_bias_activate(activation, bias, values, inputs);
        Ok(())
    }

    fn activation_gradient(
        &self,
        activation: Activation,
        dy: &[Self::Element],
        values: &[Self::Element],
        dx: &mut [Self::Element],
    ) -> Result<()> {
        elements::activation_gradient(activation, dy, values, dx);
        Ok(())
    }

    fn gather(&self, width: usize, table: &[Self::Element], of: &[u32], out: &mut [Self::Element]) -> Result<()> {
        rows::gather(width, table, of, out)
    }

    fn scatter_add(
        &self,
        width: usize,
        of: &[u32],
        dout: &[Self::Element],
        dtable: &mut [Self::Element],
        grad: WeightGrad,
    ) -> Result<()> {
        rows::scatter_add(width, of, dout, dtable, grad)
    }

    fn max_axis(
        &self,
        sizes: [usize; 3],
        x: &[Self::Element],
        mask: Option<&[Self::Element]>,
        y: &mut [Self::Element],
        position: &mut [u32],
    ) -> Result<()> {
        sums::max_axis(sizes, x, mask, y, position);
        Ok(())
    }

    fn max_axis_gradient(
        &self,
        sizes: [usize; 3],
        dy: &[Self::Element],
        position: &[u32],
        dx: &mut [Self::Element],
    ) -> Result<()> {
        sums::max_axis_gradient(sizes, dy, position, dx);
        Ok(())
    }

    fn scale_rows(
        &self,
        columns: usize,
        factors: &[Self::Element],
        inverse: bool,
        x: &[Self::Element],
        y: &mut [Self::Element],
    ) -> Result<()> {
        rows::scale_rows(columns, factors, inverse, x, y);
        Ok(())
    }

    fn select_rows(
        &self,
        columns: usize,
        mask: &[Self::Element],
        a: &[Self::Element],
        b: Option<&[Self::Element]>,
        out: &mut [Self::Element],
    ) -> Result<()> {
        rows::select_rows(columns, mask, a, b, out);
        Ok(())
    }

    fn softmax(
        &self,
        columns: usize,
        x: &[Self::Element],
        mask: HostSoftmaxMask<'_, Self::Element>,
        y: &mut [Self::Element],
    ) -> Result<()> {
        rows::softmax(columns, x, |row, c| mask.contains(columns, row, c), y);
        Ok(())
    }

    fn softmax_gradient(
        &self,
        columns: usize,
        y: &[Self::Element],
        dy: &[Self::Element],
        dx: &mut [Self::Element],
    ) -> Result<()> {
        rows::softmax_gradient(columns, y, dy, dx);
        Ok(())
    }

    fn attention(
        &self,
        of: HostAttention<'_, Self::Element>,
        y: &mut [Self::Element],
        statistics: &mut [Self::Element],
        _workspace: &mut [Self::Element],
    ) -> Result<()> {
        attention::attention(of, y, statistics);
        Ok(())
    }

    fn attention_gradient(
        &self,
        of: HostAttention<'_, Self::Element>,
        y: &[Self::Element],
        statistics: &[Self::Element],
        dy: &[Self::Element],
        to: HostAttentionGradients<'_, Self::Element>,
        _workspace: &mut [Self::Element],
    ) -> Result<()> {
        attention::attention_gradient(of, y, statistics, dy, to);
        Ok(())
    }

    fn layer_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: &[Self::Element],
        gamma: Option<&[Self::Element]>,
        beta: Option<&[Self::Element]>,
        y: &mut [Self::Element],
        statistics: &mut [Self::Element],
    ) -> Result<()> {
        norms::layer_norm(columns, epsilon, x, gamma, beta, y, statistics);
        Ok(())
    }

    fn layer_norm_gradient(
        &self,
        columns: usize,
        x: &[Self::Element],
        gamma: Option<&[Self::Element]>,
        statistics: &[Self::Element],
        dy: &[Self::Element],
        to: NormGradients<'_, Self::Element>,
    ) -> Result<()> {
        norms::layer_norm_gradient(columns, x, gamma, statistics, dy, to);
        Ok(())
    }

    fn column_moments(
        &self,
        columns: usize,
        x: &[Self::Element],
        weights: Option<&[Self::Element]>,
        mean: &mut [Self::Element],
        variance: &mut [Self::Element],
    ) -> Result<()> {
        norms::column_moments(columns, x, weights, mean, variance);
        Ok(())
    }

    fn batch_norm(
        &self,
        x: &[Self::Element],
        moments: Moments<'_, Self::Element>,
        gamma: Option<&[Self::Element]>,
        beta: Option<&[Self::Element]>,
        y: &mut [Self::Element],
    ) -> Result<()> {
        norms::batch_norm(x, moments, gamma, beta, y);
        Ok(())
    }

    fn batch_norm_gradient(
        &self,
        x: &[Self::Element],
        weights: Option<&[Self::Element]>,
        moments: Moments<'_, Self::Element>,
        gamma: Option<&[Self::Element]>,
        dy: &[Self::Element],
        to: NormGradients<'_, Self::Element>,
    ) -> Result<()> {
        norms::batch_norm_gradient(x, weights, moments, gamma, dy, to);
        Ok(())
    }

    fn mask_not_equal(
        &self,
        columns: usize,
        x: &[Self::Element],
        value: f64,
        mask: &mut [Self::Element],
    ) -> Result<()> {
        rows::mask_not_equal(columns, x, value, mask);
        Ok(())
    }

    fn mask_order(
        &self,
        steps: usize,
        reverse: bool,
        mask: &[Self::Element],
        order: HostMaskOrder<'_, Self::Element>,
    ) -> Result<()> {
        rows::mask_order(steps, reverse, mask, order);
        Ok(())
    }

    fn hold_gradient(&self, width: usize, hold: &[u32], dy: &[Self::Element], dx: &mut [Self::Element]) -> Result<()> {
        rows::hold_gradient(width, hold, dy, dx)
    }

    fn indices(&self, rows: usize, x: &[Self::Element], out: &mut [u32]) -> Result<()> {
        rows::indices(rows, x, out)
    }

    fn dropout(
        &self,
        dropout: &Dropout,
        layer: usize,
        batch: usize,
        features: usize,
        x: &[Self::Element],
        y: &mut [Self::Element],
    ) -> Result<()> {
        elements::dropout(dropout, layer, batch, features, 0, x, y);
        Ok(())
    }

    fn loss(&self, of: HostLoss<'_, Self::Element>, entry: LossEntry, status: &mut [f64]) -> Result<()> {
        training::loss(of, entry, status)
    }

    fn adam(
        &self,
        step: AdamStep,
        parameters: &mut [Self::Element],
        gradients: &[Self::Element],
        m: &mut [Self::Element],
        v: &mut [Self::Element],
    ) -> Result<()> {
        training::adam(step, parameters, gradients, m, v);
        Ok(())
    }

    fn sgd(
        &self,
        step: SgdStep,
        parameters: &mut [Self::Element],
        gradients: &[Self::Element],
        velocity: Option<&mut [Self::Element]>,
    ) -> Result<()> {
        training::sgd(step, parameters, gradients, velocity);
        Ok(())
    }

    fn rmsprop(
        &self,
        step: RmsPropStep,
        parameters: &mut [Self::Element],
        gradients: &[Self::Element],
        mean_square: &mut [Self::Element],
        mean: Option<&mut [Self::Element]>,
        velocity: Option<&mut [Self::Element]>,
    ) -> Result<()> {
        training::rmsprop(step, parameters, gradients, mean_square, mean, velocity);
        Ok(())
    }

    fn adagrad(
        &self,
        step: AdagradStep,
        parameters: &mut [Self::Element],
        gradients: &[Self::Element],
        sums: &mut [Self::Element],
    ) -> Result<()> {
        training::adagrad(step, parameters, gradients, sums);
        Ok(())
    }

    fn sum_of_squares(&self, x: &[Self::Element]) -> f64 {
        training::sum_of_squares(x)
    }

    fn clip_by_value(&self, most: f64, x: &mut [Self::Element]) -> Result<()> {
        training::clip_by_value(most, x);
        Ok(())
    }

    fn check_finite(&self, x: &[Self::Element], code: u32, status: &mut [f64]) -> Result<()> {
        training::check_finite(x, code, status);
        Ok(())
    }
}
