// Temporary.
use super::ops::*;
use super::tensor::*;
use super::WeightGrad;
use crate::cell::Activation;
use crate::loss::Loss;
use crate::rnn::Dropout;
use crate::error::Result;
#[allow(unused_variables)]
impl<E: crate::Scalar> Operations for super::reference::ReferenceBackend<E> {
    fn workspace(&self, call: Workspace) -> usize { todo!() }
    fn matmul(
        &self,
        product: MatMul,
        alpha: f64,
        a: TensorRef<'_>,
        b: TensorRef<'_>,
        c: TensorMut<'_>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn sum_axis(
        &self,
        sizes: [usize; 3],
        alpha: f64,
        x: TensorRef<'_>,
        y: TensorMut<'_>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn copy(&self, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        self.scale_add(1.0, x, 0.0, y)
    }

    /// Sets every element to `value`.
    ///
    /// # Errors
    ///
    /// Those of the device.
    fn fill(&self, x: TensorMut<'_>, value: f64) -> Result<()> { todo!() }
    fn scale_add(&self, alpha: f64, x: TensorRef<'_>, beta: f64, y: TensorMut<'_>) -> Result<()> { todo!() }
    fn scale(&self, alpha: f64, x: TensorMut<'_>) -> Result<()> { todo!() }
    fn strided_copy(
        &self,
        shape: [usize; 4],
        from: TensorRef<'_>,
        from_layout: Strides,
        to: TensorMut<'_>,
        to_layout: Strides,
        grad: WeightGrad,
    ) -> Result<()> { todo!() }
    fn multiply(&self, a: TensorRef<'_>, b: TensorRef<'_>, out: TensorMut<'_>) -> Result<()> { todo!() }
    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<TensorRef<'_>>,
        values: TensorMut<'_>,
        inputs: Option<TensorMut<'_>>,
    ) -> Result<()> { todo!() }
    fn activation_gradient(
        &self,
        activation: Activation,
        dy: TensorRef<'_>,
        values: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn gather(
        &self,
        width: usize,
        table: TensorRef<'_>,
        rows: TensorRef<'_>,
        out: TensorMut<'_>,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> { todo!() }
    fn scatter_add(
        &self,
        width: usize,
        rows: TensorRef<'_>,
        dout: TensorRef<'_>,
        dtable: TensorMut<'_>,
        grad: WeightGrad,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> { todo!() }
    fn max_axis(
        &self,
        sizes: [usize; 3],
        x: TensorRef<'_>,
        mask: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
        position: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn max_axis_gradient(
        &self,
        sizes: [usize; 3],
        dy: TensorRef<'_>,
        position: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn scale_rows(&self, factors: TensorRef<'_>, inverse: bool, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> { todo!() }
    fn select_rows(
        &self,
        mask: TensorRef<'_>,
        a: TensorRef<'_>,
        b: Option<TensorRef<'_>>,
        out: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn softmax(
        &self,
        columns: usize,
        x: TensorRef<'_>,
        valid: SoftmaxMask<'_>,
        y: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn softmax_gradient(
        &self,
        columns: usize,
        y: TensorRef<'_>,
        dy: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn layer_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: TensorRef<'_>,
        gamma: Option<TensorRef<'_>>,
        beta: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
        statistics: TensorMut<'_>,
    ) -> Result<()> { todo!() }
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
    ) -> Result<()> { todo!() }
    fn column_moments(
        &self,
        columns: usize,
        x: TensorRef<'_>,
        weights: Option<TensorRef<'_>>,
        mean: TensorMut<'_>,
        variance: TensorMut<'_>,
    ) -> Result<()> { todo!() }
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
    ) -> Result<()> { todo!() }
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
    ) -> Result<()> { todo!() }
    fn mask_not_equal(&self, columns: usize, x: TensorRef<'_>, value: f64, mask: TensorMut<'_>) -> Result<()> { todo!() }
    fn mask_order(&self, steps: usize, reverse: bool, mask: TensorRef<'_>, order: MaskOrder<'_>) -> Result<()> { todo!() }
    fn hold_gradient(
        &self,
        steps: usize,
        width: usize,
        hold: TensorRef<'_>,
        dy: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn indices(
        &self,
        rows: usize,
        x: TensorRef<'_>,
        out: TensorMut<'_>,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> { todo!() }
    fn dropout(
        &self,
        dropout: &Dropout,
        layer: usize,
        batch: usize,
        features: usize,
        x: TensorRef<'_>,
        y: TensorMut<'_>,
    ) -> Result<()> { todo!() }
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
    ) -> Result<()> { todo!() }
    fn adam(
        &self,
        step: AdamStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        m: TensorMut<'_>,
        v: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn sgd(
        &self,
        step: SgdStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        velocity: Option<TensorMut<'_>>,
    ) -> Result<()> { todo!() }
    fn rmsprop(
        &self,
        step: RmsPropStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        mean_square: TensorMut<'_>,
        mean: Option<TensorMut<'_>>,
        velocity: Option<TensorMut<'_>>,
    ) -> Result<()> { todo!() }
    fn adagrad(
        &self,
        step: AdagradStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        sums: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn sum_of_squares(&self, x: TensorRef<'_>, sum: TensorMut<'_>, workspace: TensorMut<'_>)
    -> Result<()> { todo!() }

    /// Scales `x` so that its norm, the root of `sum_of_squares[0]`, is at most `most`. A norm that is NaN makes all of it NaN.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn clip_by_norm(&self, most: f64, sum_of_squares: TensorRef<'_>, x: TensorMut<'_>) -> Result<()> { todo!() }
    fn clip_by_value(&self, most: f64, x: TensorMut<'_>) -> Result<()> { todo!() }
    fn check_finite(&self, x: TensorRef<'_>, code: u32, status: TensorMut<'_>) -> Result<()> { todo!() }
}
#[allow(unused_variables)]
impl<E: super::cpu::CpuElement> Operations for super::cpu::CpuBackend<E> {
    fn workspace(&self, call: Workspace) -> usize { todo!() }
    fn matmul(
        &self,
        product: MatMul,
        alpha: f64,
        a: TensorRef<'_>,
        b: TensorRef<'_>,
        c: TensorMut<'_>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn sum_axis(
        &self,
        sizes: [usize; 3],
        alpha: f64,
        x: TensorRef<'_>,
        y: TensorMut<'_>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn copy(&self, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        self.scale_add(1.0, x, 0.0, y)
    }

    /// Sets every element to `value`.
    ///
    /// # Errors
    ///
    /// Those of the device.
    fn fill(&self, x: TensorMut<'_>, value: f64) -> Result<()> { todo!() }
    fn scale_add(&self, alpha: f64, x: TensorRef<'_>, beta: f64, y: TensorMut<'_>) -> Result<()> { todo!() }
    fn scale(&self, alpha: f64, x: TensorMut<'_>) -> Result<()> { todo!() }
    fn strided_copy(
        &self,
        shape: [usize; 4],
        from: TensorRef<'_>,
        from_layout: Strides,
        to: TensorMut<'_>,
        to_layout: Strides,
        grad: WeightGrad,
    ) -> Result<()> { todo!() }
    fn multiply(&self, a: TensorRef<'_>, b: TensorRef<'_>, out: TensorMut<'_>) -> Result<()> { todo!() }
    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<TensorRef<'_>>,
        values: TensorMut<'_>,
        inputs: Option<TensorMut<'_>>,
    ) -> Result<()> { todo!() }
    fn activation_gradient(
        &self,
        activation: Activation,
        dy: TensorRef<'_>,
        values: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn gather(
        &self,
        width: usize,
        table: TensorRef<'_>,
        rows: TensorRef<'_>,
        out: TensorMut<'_>,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> { todo!() }
    fn scatter_add(
        &self,
        width: usize,
        rows: TensorRef<'_>,
        dout: TensorRef<'_>,
        dtable: TensorMut<'_>,
        grad: WeightGrad,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> { todo!() }
    fn max_axis(
        &self,
        sizes: [usize; 3],
        x: TensorRef<'_>,
        mask: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
        position: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn max_axis_gradient(
        &self,
        sizes: [usize; 3],
        dy: TensorRef<'_>,
        position: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn scale_rows(&self, factors: TensorRef<'_>, inverse: bool, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> { todo!() }
    fn select_rows(
        &self,
        mask: TensorRef<'_>,
        a: TensorRef<'_>,
        b: Option<TensorRef<'_>>,
        out: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn softmax(
        &self,
        columns: usize,
        x: TensorRef<'_>,
        valid: SoftmaxMask<'_>,
        y: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn softmax_gradient(
        &self,
        columns: usize,
        y: TensorRef<'_>,
        dy: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn layer_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: TensorRef<'_>,
        gamma: Option<TensorRef<'_>>,
        beta: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
        statistics: TensorMut<'_>,
    ) -> Result<()> { todo!() }
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
    ) -> Result<()> { todo!() }
    fn column_moments(
        &self,
        columns: usize,
        x: TensorRef<'_>,
        weights: Option<TensorRef<'_>>,
        mean: TensorMut<'_>,
        variance: TensorMut<'_>,
    ) -> Result<()> { todo!() }
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
    ) -> Result<()> { todo!() }
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
    ) -> Result<()> { todo!() }
    fn mask_not_equal(&self, columns: usize, x: TensorRef<'_>, value: f64, mask: TensorMut<'_>) -> Result<()> { todo!() }
    fn mask_order(&self, steps: usize, reverse: bool, mask: TensorRef<'_>, order: MaskOrder<'_>) -> Result<()> { todo!() }
    fn hold_gradient(
        &self,
        steps: usize,
        width: usize,
        hold: TensorRef<'_>,
        dy: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn indices(
        &self,
        rows: usize,
        x: TensorRef<'_>,
        out: TensorMut<'_>,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> { todo!() }
    fn dropout(
        &self,
        dropout: &Dropout,
        layer: usize,
        batch: usize,
        features: usize,
        x: TensorRef<'_>,
        y: TensorMut<'_>,
    ) -> Result<()> { todo!() }
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
    ) -> Result<()> { todo!() }
    fn adam(
        &self,
        step: AdamStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        m: TensorMut<'_>,
        v: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn sgd(
        &self,
        step: SgdStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        velocity: Option<TensorMut<'_>>,
    ) -> Result<()> { todo!() }
    fn rmsprop(
        &self,
        step: RmsPropStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        mean_square: TensorMut<'_>,
        mean: Option<TensorMut<'_>>,
        velocity: Option<TensorMut<'_>>,
    ) -> Result<()> { todo!() }
    fn adagrad(
        &self,
        step: AdagradStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        sums: TensorMut<'_>,
    ) -> Result<()> { todo!() }
    fn sum_of_squares(&self, x: TensorRef<'_>, sum: TensorMut<'_>, workspace: TensorMut<'_>)
    -> Result<()> { todo!() }

    /// Scales `x` so that its norm, the root of `sum_of_squares[0]`, is at most `most`. A norm that is NaN makes all of it NaN.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn clip_by_norm(&self, most: f64, sum_of_squares: TensorRef<'_>, x: TensorMut<'_>) -> Result<()> { todo!() }
    fn clip_by_value(&self, most: f64, x: TensorMut<'_>) -> Result<()> { todo!() }
    fn check_finite(&self, x: TensorRef<'_>, code: u32, status: TensorMut<'_>) -> Result<()> { todo!() }
}
