//! The operations of a model as launches, one file for each kind of operation: each checks its tensors and fills its kernels' structs.
#![allow(clippy::too_many_arguments, reason = "they are those of the operations")]

mod arguments;
mod elementwise;
mod loss;
mod matmul;
mod norm;
mod optimizer;
mod params;
mod rows;
#[cfg(all(test, feature = "emulated"))]
mod tests;

use super::backend::CudaBackend;
use super::device::Device;
use crate::backend::WeightGrad;
use crate::backend::ops::{
    AdagradStep, AdamStep, IndexStatus, LossEntry, MaskOrder, MatMul, Operations, RmsPropStep, SgdStep, SoftmaxMask,
    Strides, Workspace, attention, check,
};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::cell::Activation;
use crate::dtype::Element;
use crate::error::Result;
use crate::loss::Loss;
use crate::rnn::Dropout;

/// Loads the kernels of all operations.
pub(super) fn load<E: Element, D: Device>(gpu: &CudaBackend<E, D>) -> Result<()> {
    matmul::kernels(gpu)?;
    elementwise::kernels(gpu)?;
    rows::kernels(gpu)?;
    norm::kernels(gpu)?;
    loss::kernels(gpu)?;
    optimizer::kernels(gpu)?;
    Ok(())
}

impl<E: Element, D: Device> Operations for CudaBackend<E, D> {
    fn workspace(&self, call: Workspace) -> usize {
        match call {
            Workspace::MatMul(product) => matmul::workspace(self, &product),
            Workspace::SumAxis(sizes) => rows::sum_workspace::<E>(sizes),
            Workspace::Normalization { rows, columns } => norm::workspace::<E>(rows, columns),
            Workspace::Attention(shape) => attention::workspace(self, &shape),
            Workspace::AttentionGradient(shape) => attention::gradient_workspace(self, &shape),
            Workspace::Loss => loss::workspace::<E>(),
            Workspace::SumOfSquares => optimizer::sum_of_squares_workspace::<E>(),
        }
    }

    fn matmul(
        &self,
        product: MatMul,
        alpha: f64,
        a: TensorRef<'_>,
        b: TensorRef<'_>,
        c: TensorMut<'_>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        matmul::matmul(self, product, alpha, a, b, None, c, grad, workspace)
    }

    /// In the launches of the product alone: its kernel adds the bias.
    fn matmul_bias(
        &self,
        product: MatMul,
        a: TensorRef<'_>,
        b: TensorRef<'_>,
        bias: TensorRef<'_>,
        c: TensorMut<'_>,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        check::bias(&product, bias.len())?;
        matmul::matmul(self, product, 1.0, a, b, Some(bias), c, WeightGrad::Set, workspace)
    }

    fn sum_axis(
        &self,
        sizes: [usize; 3],
        alpha: f64,
        x: TensorRef<'_>,
        y: TensorMut<'_>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        rows::sum_axis(self, sizes, alpha, x, y, grad, workspace)
    }

    fn fill(&self, x: TensorMut<'_>, value: f64) -> Result<()> {
        elementwise::fill(self, x, value)
    }

    fn scale_add(&self, alpha: f64, x: TensorRef<'_>, beta: f64, y: TensorMut<'_>) -> Result<()> {
        elementwise::scale_add(self, alpha, x, beta, y)
    }

    fn scale(&self, alpha: f64, x: TensorMut<'_>) -> Result<()> {
        elementwise::scale(self, alpha, x)
    }

    fn strided_copy(
        &self,
        shape: [usize; 4],
        from: TensorRef<'_>,
        from_layout: Strides,
        to: TensorMut<'_>,
        to_layout: Strides,
        grad: WeightGrad,
    ) -> Result<()> {
        elementwise::strided_copy(self, shape, from, from_layout, to, to_layout, grad)
    }

    fn multiply(&self, a: TensorRef<'_>, b: TensorRef<'_>, out: TensorMut<'_>) -> Result<()> {
        elementwise::multiply(self, a, b, out)
    }

    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<TensorRef<'_>>,
        values: TensorMut<'_>,
        inputs: Option<TensorMut<'_>>,
    ) -> Result<()> {
        elementwise::add_bias_activate(self, activation, bias, values, inputs)
    }

    fn activation_gradient(
        &self,
        activation: Activation,
        dy: TensorRef<'_>,
        values: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> {
        elementwise::activation_gradient(self, activation, dy, values, dx)
    }

    fn gather(
        &self,
        width: usize,
        table: TensorRef<'_>,
        rows: TensorRef<'_>,
        out: TensorMut<'_>,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> {
        rows::gather(self, width, table, rows, out, status)
    }

    fn scatter_add(
        &self,
        width: usize,
        rows: TensorRef<'_>,
        dout: TensorRef<'_>,
        dtable: TensorMut<'_>,
        grad: WeightGrad,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> {
        rows::scatter_add(self, width, rows, dout, dtable, grad, status)
    }

    fn max_axis(
        &self,
        sizes: [usize; 3],
        x: TensorRef<'_>,
        mask: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
        position: TensorMut<'_>,
    ) -> Result<()> {
        rows::max_axis(self, sizes, x, mask, y, position)
    }

    fn max_axis_gradient(
        &self,
        sizes: [usize; 3],
        dy: TensorRef<'_>,
        position: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> {
        rows::max_axis_gradient(self, sizes, dy, position, dx)
    }

    fn scale_rows(&self, factors: TensorRef<'_>, inverse: bool, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        elementwise::scale_rows(self, factors, inverse, x, y)
    }

    fn select_rows(
        &self,
        mask: TensorRef<'_>,
        a: TensorRef<'_>,
        b: Option<TensorRef<'_>>,
        out: TensorMut<'_>,
    ) -> Result<()> {
        elementwise::select_rows(self, mask, a, b, out)
    }

    fn softmax(&self, columns: usize, x: TensorRef<'_>, valid: SoftmaxMask<'_>, y: TensorMut<'_>) -> Result<()> {
        norm::softmax(self, columns, x, valid, y)
    }

    fn softmax_gradient(&self, columns: usize, y: TensorRef<'_>, dy: TensorRef<'_>, dx: TensorMut<'_>) -> Result<()> {
        norm::softmax_gradient(self, columns, y, dy, dx)
    }

    fn layer_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: TensorRef<'_>,
        gamma: Option<TensorRef<'_>>,
        beta: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
        statistics: TensorMut<'_>,
    ) -> Result<()> {
        norm::layer_norm(self, columns, epsilon, x, gamma, beta, y, statistics)
    }

    fn layer_norm_gradient(
        &self,
        columns: usize,
        x: TensorRef<'_>,
        gamma: Option<TensorRef<'_>>,
        statistics: TensorRef<'_>,
        dy: TensorRef<'_>,
        dx: Option<TensorMut<'_>>,
        dgamma: Option<TensorMut<'_>>,
        dbeta: Option<TensorMut<'_>>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        norm::layer_norm_gradient(self, columns, x, gamma, statistics, dy, dx, dgamma, dbeta, grad, workspace)
    }

    fn column_moments(
        &self,
        columns: usize,
        x: TensorRef<'_>,
        weights: Option<TensorRef<'_>>,
        mean: TensorMut<'_>,
        variance: TensorMut<'_>,
    ) -> Result<()> {
        norm::column_moments(self, columns, x, weights, mean, variance)
    }

    fn batch_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: TensorRef<'_>,
        mean: TensorRef<'_>,
        variance: TensorRef<'_>,
        gamma: Option<TensorRef<'_>>,
        beta: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
    ) -> Result<()> {
        norm::batch_norm(self, columns, epsilon, x, mean, variance, gamma, beta, y)
    }

    fn batch_norm_gradient(
        &self,
        columns: usize,
        epsilon: f64,
        x: TensorRef<'_>,
        weights: Option<TensorRef<'_>>,
        mean: TensorRef<'_>,
        variance: TensorRef<'_>,
        gamma: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
        dx: Option<TensorMut<'_>>,
        dgamma: Option<TensorMut<'_>>,
        dbeta: Option<TensorMut<'_>>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        norm::batch_norm_gradient(
            self, columns, epsilon, x, weights, mean, variance, gamma, dy, dx, dgamma, dbeta, grad, workspace,
        )
    }

    fn mask_not_equal(&self, columns: usize, x: TensorRef<'_>, value: f64, mask: TensorMut<'_>) -> Result<()> {
        rows::mask_not_equal(self, columns, x, value, mask)
    }

    fn mask_order(&self, steps: usize, reverse: bool, mask: TensorRef<'_>, order: MaskOrder<'_>) -> Result<()> {
        rows::mask_order(self, steps, reverse, mask, order)
    }

    fn hold_gradient(
        &self,
        steps: usize,
        width: usize,
        hold: TensorRef<'_>,
        dy: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> {
        rows::hold_gradient(self, steps, width, hold, dy, dx)
    }

    fn indices(
        &self,
        rows: usize,
        x: TensorRef<'_>,
        out: TensorMut<'_>,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> {
        rows::indices(self, rows, x, out, status)
    }

    fn dropout(
        &self,
        dropout: &Dropout,
        layer: usize,
        batch: usize,
        features: usize,
        x: TensorRef<'_>,
        y: TensorMut<'_>,
    ) -> Result<()> {
        elementwise::dropout(self, dropout, layer, batch, features, x, y)
    }

    fn loss(
        &self,
        loss: Loss,
        columns: usize,
        targets: TensorRef<'_>,
        predictions: TensorRef<'_>,
        weights: Option<TensorRef<'_>>,
        gradient: Option<TensorMut<'_>>,
        entry: LossEntry,
        status: TensorMut<'_>,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        loss::loss(self, loss, columns, targets, predictions, weights, gradient, entry, status, workspace)
    }

    fn adam(
        &self,
        step: AdamStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        m: TensorMut<'_>,
        v: TensorMut<'_>,
    ) -> Result<()> {
        optimizer::adam(self, step, parameters, gradients, m, v)
    }

    fn sgd(
        &self,
        step: SgdStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        velocity: Option<TensorMut<'_>>,
    ) -> Result<()> {
        optimizer::sgd(self, step, parameters, gradients, velocity)
    }

    fn rmsprop(
        &self,
        step: RmsPropStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        mean_square: TensorMut<'_>,
        mean: Option<TensorMut<'_>>,
        velocity: Option<TensorMut<'_>>,
    ) -> Result<()> {
        optimizer::rmsprop(self, step, parameters, gradients, mean_square, mean, velocity)
    }

    fn adagrad(
        &self,
        step: AdagradStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        sums: TensorMut<'_>,
    ) -> Result<()> {
        optimizer::adagrad(self, step, parameters, gradients, sums)
    }

    fn sum_of_squares(&self, x: TensorRef<'_>, sum: TensorMut<'_>, workspace: TensorMut<'_>) -> Result<()> {
        optimizer::sum_of_squares(self, x, sum, workspace)
    }

    fn clip_by_norm(&self, most: f64, sum_of_squares: TensorRef<'_>, x: TensorMut<'_>) -> Result<()> {
        optimizer::clip_by_norm(self, most, sum_of_squares, x)
    }

    fn clip_by_value(&self, most: f64, x: TensorMut<'_>) -> Result<()> {
        optimizer::clip_by_value(self, most, x)
    }

    fn check_finite(&self, x: TensorRef<'_>, code: u32, status: TensorMut<'_>) -> Result<()> {
        optimizer::check_finite(self, x, code, status)
    }
}
