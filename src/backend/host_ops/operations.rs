//! [`Operations`] for every [`HostOperations`]: lengths are checked here, and tensors become slices.

use super::plain::norms::{Moments, NormGradients};
use super::plain::rows::HostMaskOrder;
use super::plain::training::clipping_factor;
use super::{HostAttention, HostAttentionGradients, HostLoss, HostOperations, HostSoftmaxMask};
use crate::backend::WeightGrad;
use crate::backend::ops::{
    AdagradStep, AdamStep, AttentionGradients, AttentionInputs, AttentionShape, IndexStatus, LossEntry, MaskOrder,
    MatMul, Operations, RmsPropStep, SgdStep, SoftmaxMask, Strides, Workspace, check,
};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::cell::Activation;
use crate::dtype::{Scalar, Stored};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::rnn::Dropout;
use crate::rnn::shape::check_len;

/// The elements of a tensor that may be absent.
fn host<T: Stored>(tensor: Option<TensorRef<'_>>) -> Result<Option<&[T]>> {
    tensor.map(TensorRef::host).transpose()
}

/// The same, to be written.
fn host_mut<T: Stored>(tensor: Option<TensorMut<'_>>) -> Result<Option<&mut [T]>> {
    tensor.map(TensorMut::host).transpose()
}

fn len<T>(tensor: &Option<&[T]>) -> Option<usize> {
    tensor.map(<[T]>::len)
}

fn len_mut<T>(tensor: &Option<&mut [T]>) -> Option<usize> {
    tensor.as_ref().map(|tensor| tensor.len())
}

fn host_attention<'a, E: Stored>(
    shape: AttentionShape,
    alpha: f64,
    of: AttentionInputs<'a>,
) -> Result<HostAttention<'a, E>> {
    let AttentionInputs { query, key, value, mask } = of;
    let (query, key, value, mask) = (query.host()?, key.host()?, value.host()?, host(mask)?);
    Ok(HostAttention { shape, alpha, query, key, value, mask })
}

/// A wrong index is an error at once, so that the status stays as it is; but it must be one.
fn check_index_status(status: Option<IndexStatus<'_>>) -> Result<()> {
    status.map_or(Ok(()), |status| check::status(status.status.host::<f64>()?.len()))
}

impl<E: Scalar, B: HostOperations<Element = E>> Operations for B {
    fn workspace(&self, call: Workspace) -> usize {
        HostOperations::workspace(self, call)
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
        check::matmul(&product, a.len(), b.len(), c.len())?;
        check::workspace(HostOperations::workspace(self, Workspace::MatMul(product)), workspace.len())?;
        HostOperations::matmul(self, product, alpha, a.host()?, b.host()?, c.host()?, grad, workspace.host()?)
    }

    fn sum_axis(
        &self,
        sizes: [usize; 3],
        alpha: f64,
        x: TensorRef<'_>,
        y: TensorMut<'_>,
        grad: WeightGrad,
        _: TensorMut<'_>,
    ) -> Result<()> {
        check::axis(sizes, x.len(), y.len())?;
        HostOperations::sum_axis(self, sizes, alpha, x.host()?, y.host()?, grad)
    }

    fn copy(&self, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        check::same(x.len(), &[("y", Some(y.len()))])?;
        HostOperations::copy(self, x.host()?, y.host()?)
    }

    fn sum(&self, a: TensorRef<'_>, alpha: f64, b: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        check::same(a.len(), &[("b", Some(b.len())), ("y", Some(y.len()))])?;
        HostOperations::sum(self, a.host()?, alpha, b.host()?, y.host()?)
    }

    fn fill(&self, x: TensorMut<'_>, value: f64) -> Result<()> {
        x.host::<E>()?.fill(E::of(value));
        Ok(())
    }

    fn scale_add(&self, alpha: f64, x: TensorRef<'_>, beta: f64, y: TensorMut<'_>) -> Result<()> {
        check::same(x.len(), &[("y", Some(y.len()))])?;
        HostOperations::scale_add(self, alpha, x.host()?, beta, y.host()?)
    }

    fn scale(&self, alpha: f64, x: TensorMut<'_>) -> Result<()> {
        HostOperations::scale(self, alpha, x.host()?)
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
        let (from, to) = (from.host()?, to.host()?);
        if !check::strided(shape, (from_layout, from.len()), (to_layout, to.len()))? {
            return Ok(());
        }
        HostOperations::strided_copy(self, shape, from, from_layout, to, to_layout, grad)
    }

    fn multiply(&self, a: TensorRef<'_>, b: TensorRef<'_>, out: TensorMut<'_>) -> Result<()> {
        check::same(a.len(), &[("b", Some(b.len())), ("out", Some(out.len()))])?;
        HostOperations::multiply(self, a.host()?, b.host()?, out.host()?)
    }

    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<TensorRef<'_>>,
        values: TensorMut<'_>,
        inputs: Option<TensorMut<'_>>,
    ) -> Result<()> {
        if let Some(bias) = bias {
            check::rows("values", values.len(), bias.len())?;
        }
        check::same(values.len(), &[("inputs", inputs.as_ref().map(TensorMut::len))])?;
        HostOperations::add_bias_activate(self, activation, host(bias)?, values.host()?, host_mut(inputs)?)
    }

    fn activation_gradient(
        &self,
        activation: Activation,
        dy: TensorRef<'_>,
        values: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> {
        check::same(dy.len(), &[("values", Some(values.len())), ("dx", Some(dx.len()))])?;
        HostOperations::activation_gradient(self, activation, dy.host()?, values.host()?, dx.host()?)
    }

    fn gather(
        &self,
        width: usize,
        table: TensorRef<'_>,
        rows: TensorRef<'_>,
        out: TensorMut<'_>,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> {
        check::gather(width, table.len(), rows.len(), out.len())?;
        check_index_status(status)?;
        HostOperations::gather(self, width, table.host()?, rows.host()?, out.host()?)
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
        check::gather(width, dtable.len(), rows.len(), dout.len())?;
        check_index_status(status)?;
        HostOperations::scatter_add(self, width, rows.host()?, dout.host()?, dtable.host()?, grad)
    }

    fn max_axis(
        &self,
        sizes: [usize; 3],
        x: TensorRef<'_>,
        mask: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
        position: TensorMut<'_>,
    ) -> Result<()> {
        let [outer, count, inner] = sizes;
        check::axis(sizes, x.len(), y.len())?;
        check_len("position", &[outer, inner], position.len())?;
        if let Some(mask) = mask {
            check_len("mask", &[outer, count], mask.len())?;
        }
        HostOperations::max_axis(self, sizes, x.host()?, host(mask)?, y.host()?, position.host()?)
    }

    fn max_axis_gradient(
        &self,
        sizes: [usize; 3],
        dy: TensorRef<'_>,
        position: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> {
        let [outer, _, inner] = sizes;
        check::axis(sizes, dx.len(), dy.len())?;
        check_len("position", &[outer, inner], position.len())?;
        HostOperations::max_axis_gradient(self, sizes, dy.host()?, position.host()?, dx.host()?)
    }

    fn scale_rows(&self, factors: TensorRef<'_>, inverse: bool, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        let columns = check::by_rows(factors.len(), x.len())?;
        check::same(x.len(), &[("y", Some(y.len()))])?;
        let (factors, x, y) = (factors.host()?, x.host()?, y.host()?);
        if columns == 0 {
            return Ok(());
        }
        HostOperations::scale_rows(self, columns, factors, inverse, x, y)
    }

    fn select_rows(
        &self,
        mask: TensorRef<'_>,
        a: TensorRef<'_>,
        b: Option<TensorRef<'_>>,
        out: TensorMut<'_>,
    ) -> Result<()> {
        let columns = check::by_rows(mask.len(), a.len())?;
        check::same(a.len(), &[("b", b.map(|b| b.len())), ("out", Some(out.len()))])?;
        HostOperations::select_rows(self, columns, mask.host()?, a.host()?, host(b)?, out.host()?)
    }

    fn softmax(&self, columns: usize, x: TensorRef<'_>, valid: SoftmaxMask<'_>, y: TensorMut<'_>) -> Result<()> {
        let rows = check::rows("x", x.len(), columns)?;
        check::same(x.len(), &[("y", Some(y.len()))])?;
        let SoftmaxMask { keys, causal } = valid;
        check::softmax(rows, columns, keys.map(|(keys, by)| (keys.len(), by)), causal)?;
        let keys = keys.map(|(keys, by)| Ok::<_, Error>((keys.host()?, by))).transpose()?;
        HostOperations::softmax(self, columns, x.host()?, HostSoftmaxMask { keys, causal }, y.host()?)
    }

    fn softmax_gradient(&self, columns: usize, y: TensorRef<'_>, dy: TensorRef<'_>, dx: TensorMut<'_>) -> Result<()> {
        check::rows("y", y.len(), columns)?;
        check::same(y.len(), &[("dy", Some(dy.len())), ("dx", Some(dx.len()))])?;
        HostOperations::softmax_gradient(self, columns, y.host()?, dy.host()?, dx.host()?)
    }

    fn attention(
        &self,
        shape: AttentionShape,
        alpha: f64,
        of: AttentionInputs<'_>,
        y: TensorMut<'_>,
        statistics: TensorMut<'_>,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        let lens = [of.query.len(), of.key.len(), of.value.len(), y.len(), statistics.len()];
        check::attention(&shape, lens, of.mask.map(|mask| mask.len()), [("", None); 4])?;
        check::workspace(HostOperations::workspace(self, Workspace::Attention(shape)), workspace.len())?;
        let of = host_attention(shape, alpha, of)?;
        let (y, statistics, workspace) = (y.host()?, statistics.host()?, workspace.host()?);
        if shape.batch == 0 { Ok(()) } else { HostOperations::attention(self, of, y, statistics, workspace) }
    }

    fn attention_gradient(
        &self,
        shape: AttentionShape,
        alpha: f64,
        of: AttentionInputs<'_>,
        y: TensorRef<'_>,
        statistics: TensorRef<'_>,
        dy: TensorRef<'_>,
        to: AttentionGradients<'_>,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        let lens = [of.query.len(), of.key.len(), of.value.len(), y.len(), statistics.len()];
        let (dquery, dkey, dvalue) = (host_mut(to.query)?, host_mut(to.key)?, host_mut(to.value)?);
        let others = [
            ("dy", Some(dy.len())),
            ("gradient of query", len_mut(&dquery)),
            ("gradient of key", len_mut(&dkey)),
            ("gradient of value", len_mut(&dvalue)),
        ];
        check::attention(&shape, lens, of.mask.map(|mask| mask.len()), others)?;
        check::workspace(HostOperations::workspace(self, Workspace::AttentionGradient(shape)), workspace.len())?;
        let of = host_attention(shape, alpha, of)?;
        let to = HostAttentionGradients { dquery, dkey, dvalue };
        let (y, statistics, dy, workspace) = (y.host()?, statistics.host()?, dy.host()?, workspace.host()?);
        if shape.batch == 0 {
            return Ok(());
        }
        HostOperations::attention_gradient(self, of, y, statistics, dy, to, workspace)
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
        let (gamma, beta) = (host(gamma)?, host(beta)?);
        let vectors = [("gamma", len(&gamma)), ("beta", len(&beta))];
        let rows = check::normalized(columns, x.len(), &[("y", Some(y.len()))], &vectors)?;
        check_len("statistics", &[rows, 2], statistics.len())?;
        HostOperations::layer_norm(self, columns, epsilon, x.host()?, gamma, beta, y.host()?, statistics.host()?)
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
        _: TensorMut<'_>,
    ) -> Result<()> {
        let gamma = host(gamma)?;
        let (dx, dgamma, dbeta) = (host_mut(dx)?, host_mut(dgamma)?, host_mut(dbeta)?);
        let others = [("dy", Some(dy.len())), ("dx", len_mut(&dx))];
        let vectors = [("gamma", len(&gamma)), ("dgamma", len_mut(&dgamma)), ("dbeta", len_mut(&dbeta))];
        let rows = check::normalized(columns, x.len(), &others, &vectors)?;
        check_len("statistics", &[rows, 2], statistics.len())?;
        let to = NormGradients { dx, dgamma, dbeta, grad };
        HostOperations::layer_norm_gradient(self, columns, x.host()?, gamma, statistics.host()?, dy.host()?, to)
    }

    fn column_moments(
        &self,
        columns: usize,
        x: TensorRef<'_>,
        weights: Option<TensorRef<'_>>,
        mean: TensorMut<'_>,
        variance: TensorMut<'_>,
    ) -> Result<()> {
        let vectors = [("mean", Some(mean.len())), ("variance", Some(variance.len()))];
        let rows = check::normalized(columns, x.len(), &[], &vectors)?;
        check::same(rows, &[("weights", weights.map(|w| w.len()))])?;
        HostOperations::column_moments(self, columns, x.host()?, host(weights)?, mean.host()?, variance.host()?)
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
        let (gamma, beta) = (host(gamma)?, host(beta)?);
        let moments = Moments { epsilon, mean: mean.host()?, variance: variance.host()? };
        let vectors = [
            ("mean", Some(mean.len())),
            ("variance", Some(variance.len())),
            ("gamma", len(&gamma)),
            ("beta", len(&beta)),
        ];
        check::normalized(columns, x.len(), &[("y", Some(y.len()))], &vectors)?;
        HostOperations::batch_norm(self, x.host()?, moments, gamma, beta, y.host()?)
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
        _: TensorMut<'_>,
    ) -> Result<()> {
        let (gamma, weights) = (host(gamma)?, host(weights)?);
        let (dx, dgamma, dbeta) = (host_mut(dx)?, host_mut(dgamma)?, host_mut(dbeta)?);
        let moments = Moments { epsilon, mean: mean.host()?, variance: variance.host()? };
        let others = [("dy", Some(dy.len())), ("dx", len_mut(&dx))];
        let vectors = [
            ("mean", Some(mean.len())),
            ("variance", Some(variance.len())),
            ("gamma", len(&gamma)),
            ("dgamma", len_mut(&dgamma)),
            ("dbeta", len_mut(&dbeta)),
        ];
        let rows = check::normalized(columns, x.len(), &others, &vectors)?;
        check::same(rows, &[("weights", len(&weights))])?;
        let to = NormGradients { dx, dgamma, dbeta, grad };
        HostOperations::batch_norm_gradient(self, x.host()?, weights, moments, gamma, dy.host()?, to)
    }

    fn mask_not_equal(&self, columns: usize, x: TensorRef<'_>, value: f64, mask: TensorMut<'_>) -> Result<()> {
        let rows = check::rows("x", x.len(), columns)?;
        check_len("mask", &[rows], mask.len())?;
        HostOperations::mask_not_equal(self, columns, x.host()?, value, mask.host()?)
    }

    fn mask_order(&self, steps: usize, reverse: bool, mask: TensorRef<'_>, order: MaskOrder<'_>) -> Result<()> {
        let order = HostMaskOrder::<E>::new(order)?;
        let parts = [("rows", order.rows.len()), ("inverse", order.inverse.len()), ("hold", order.hold.len())];
        let by_sample = [("lengths", order.lengths.len()), ("any", order.any.len())];
        check::order(steps, mask.len(), parts, by_sample)?;
        HostOperations::mask_order(self, steps, reverse, mask.host()?, order)
    }

    fn hold_gradient(
        &self,
        steps: usize,
        width: usize,
        hold: TensorRef<'_>,
        dy: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> {
        let batch = check::rows("hold", hold.len(), steps)?;
        check_len("dy", &[batch, steps, width], dy.len())?;
        check_len("dx", &[batch, steps, width], dx.len())?;
        HostOperations::hold_gradient(self, width, hold.host()?, dy.host()?, dx.host()?)
    }

    fn indices(
        &self,
        rows: usize,
        x: TensorRef<'_>,
        out: TensorMut<'_>,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()> {
        check::same(x.len(), &[("out", Some(out.len()))])?;
        check_index_status(status)?;
        HostOperations::indices(self, rows, x.host()?, out.host()?)
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
        if batch == 0 {
            return Err(Error::ZeroSize { name: "batch" });
        }
        let rows = check::rows("x", x.len(), features)?;
        check::rows("x", rows, batch)?;
        check::same(x.len(), &[("y", Some(y.len()))])?;
        HostOperations::dropout(self, dropout, layer, batch, features, x.host()?, y.host()?)
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
        _: TensorMut<'_>,
    ) -> Result<()> {
        let (weights, gradient) = (host(weights)?, host_mut(gradient)?);
        check::loss(loss, columns, targets.len(), predictions.len(), len(&weights), len_mut(&gradient))?;
        check::status(status.len())?;
        let (targets, predictions) = (targets.host()?, predictions.host()?);
        let of = HostLoss { loss, columns, targets, predictions, weights, gradient };
        HostOperations::loss(self, of, entry, status.host()?)
    }

    fn adam(
        &self,
        step: AdamStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        m: TensorMut<'_>,
        v: TensorMut<'_>,
    ) -> Result<()> {
        let others = [("gradients", Some(gradients.len())), ("m", Some(m.len())), ("v", Some(v.len()))];
        check::same(parameters.len(), &others)?;
        HostOperations::adam(self, step, parameters.host()?, gradients.host()?, m.host()?, v.host()?)
    }

    fn sgd(
        &self,
        step: SgdStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        velocity: Option<TensorMut<'_>>,
    ) -> Result<()> {
        let velocity = host_mut(velocity)?;
        let others = [("gradients", Some(gradients.len())), ("velocity", len_mut(&velocity))];
        check::same(parameters.len(), &others)?;
        HostOperations::sgd(self, step, parameters.host()?, gradients.host()?, velocity)
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
        let (mean, velocity) = (host_mut(mean)?, host_mut(velocity)?);
        let others = [
            ("gradients", Some(gradients.len())),
            ("mean_square", Some(mean_square.len())),
            ("mean", len_mut(&mean)),
            ("velocity", len_mut(&velocity)),
        ];
        check::same(parameters.len(), &others)?;
        let (parameters, gradients) = (parameters.host()?, gradients.host()?);
        HostOperations::rmsprop(self, step, parameters, gradients, mean_square.host()?, mean, velocity)
    }

    fn adagrad(
        &self,
        step: AdagradStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        sums: TensorMut<'_>,
    ) -> Result<()> {
        check::same(parameters.len(), &[("gradients", Some(gradients.len())), ("sums", Some(sums.len()))])?;
        HostOperations::adagrad(self, step, parameters.host()?, gradients.host()?, sums.host()?)
    }

    fn sum_of_squares(&self, x: TensorRef<'_>, sum: TensorMut<'_>, _: TensorMut<'_>) -> Result<()> {
        check_len("sum", &[1], sum.len())?;
        sum.host::<f64>()?[0] = HostOperations::sum_of_squares(self, x.host()?);
        Ok(())
    }

    fn clip_by_norm(&self, most: f64, sum_of_squares: TensorRef<'_>, x: TensorMut<'_>) -> Result<()> {
        check_len("sum_of_squares", &[1], sum_of_squares.len())?;
        let x = x.host()?;
        match clipping_factor(most, sum_of_squares.host::<f64>()?[0]) {
            None => Ok(()),
            Some(factor) => HostOperations::scale(self, factor, x),
        }
    }

    fn clip_by_value(&self, most: f64, x: TensorMut<'_>) -> Result<()> {
        HostOperations::clip_by_value(self, most, x.host()?)
    }

    fn check_finite(&self, x: TensorRef<'_>, code: u32, status: TensorMut<'_>) -> Result<()> {
        check::status(status.len())?;
        HostOperations::check_finite(self, x.host()?, code, status.host()?)
    }
}
