//! The dense operations on slices of the host.

use std::ops::Range;

use bytemuck::Pod;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeError};

use super::{
    AdagradStep, AdamStep, BAD_GRADIENT, BAD_LOSS, BAD_VALUE, Columns, DenseBackend, DenseCall, LOSS, LossEntry,
    Memory, Orientation, Product, RmsPropStep, SgdStep, TOTAL, check,
};
use crate::backend::cpu::simd::{Isa, Kernel, Simd};
use crate::backend::{HostBackend, RecurrentBackend, WeightGrad};
use crate::cell::Activation;
use crate::dtype::{Element, Scalar};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::rnn::Dropout;
use crate::rnn::shape::check_len;

impl<E: Element, B: RecurrentBackend<Elem = E> + HostBackend<E>> Memory for B {
    type Tensor<T: Pod> = [T];
    type Owned<T: Pod> = Vec<T>;
    type View<'a, T: Pod>
        = &'a [T]
    where
        B: 'a;
    type ViewMut<'a, T: Pod>
        = &'a mut [T]
    where
        B: 'a;

    fn allocate<T: Pod>(&self, what: &str, len: usize) -> Result<Vec<T>> {
        let mut values = Vec::new();
        values.try_reserve_exact(len).map_err(|_| {
            Error::unsupported(format!("{what} of {len} elements"), "there is not enough memory; use smaller sizes")
        })?;
        values.resize(len, T::zeroed());
        Ok(values)
    }

    fn take<T: Pod>(&self, _: &str, values: Vec<T>) -> Result<Vec<T>> {
        Ok(values)
    }

    fn place<'a, T: Pod>(&self, _: &str, values: &'a [T]) -> Result<&'a [T]>
    where
        B: 'a,
    {
        Ok(values)
    }

    fn upload<T: Pod>(&self, from: &[T], to: &mut [T]) -> Result<()> {
        check_len("tensor", &[from.len()], to.len())?;
        to.copy_from_slice(from);
        Ok(())
    }

    fn download<T: Pod>(&self, from: &[T], to: &mut [T]) -> Result<()> {
        check_len("tensor", &[from.len()], to.len())?;
        to.copy_from_slice(from);
        Ok(())
    }

    fn view<'a, T: Pod>(&self, tensor: &'a [T], range: Range<usize>) -> Result<&'a [T]>
    where
        B: 'a,
    {
        let len = tensor.len();
        tensor.get(range.clone()).ok_or_else(|| out_of_range(range, len))
    }

    fn view_mut<'a, T: Pod>(&self, tensor: &'a mut [T], range: Range<usize>) -> Result<&'a mut [T]>
    where
        B: 'a,
    {
        let len = tensor.len();
        tensor.get_mut(range.clone()).ok_or_else(|| out_of_range(range, len))
    }

    fn split_mut<'a, T: Pod>(&self, tensor: &'a mut [T], at: usize) -> Result<(&'a mut [T], &'a mut [T])>
    where
        B: 'a,
    {
        let len = tensor.len();
        tensor.split_at_mut_checked(at).ok_or_else(|| out_of_range(0..at, len))
    }
}

fn out_of_range(range: Range<usize>, len: usize) -> Error {
    Error::shape("view", format!("a tensor with elements {range:?}"), format!("{len} elements"))
}

/// Up to so many products, plain loops are faster than packing for a matrix product.
const SMALL: usize = 1 << 13;

fn mismatch(e: ShapeError) -> Error {
    Error::shape("matrix", "a buffer of its size", e.to_string())
}

fn dot<E: Scalar>(a: &[E], b: &[E]) -> E {
    // Eight sums, so that the compiler may use vector registers; the order is fixed.
    let mut sums = [E::zero(); 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: E = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| *x * *y).sum();
    for (x, y) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.into_iter().sum::<E>() + tail
}

/// Few products: plain loops.
fn small_gemm<E: Scalar>(product: Product, a: &[E], b: &[E], c: &mut [E], add: bool) {
    let Product { orientation, m, n, k } = product;
    if !add {
        c.fill(E::zero());
    }
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    match orientation {
        Orientation::Nt => {
            for (a, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
                c.iter_mut().zip(b.chunks_exact(k)).for_each(|(c, b)| *c += dot(a, b));
            }
        }
        Orientation::Nn => {
            for (a, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
                for (b, a) in b.chunks_exact(n).zip(a) {
                    c.iter_mut().zip(b).for_each(|(c, b)| *c += *a * *b);
                }
            }
        }
        Orientation::Tn => {
            for (a, b) in a.chunks_exact(m).zip(b.chunks_exact(n)) {
                for (c, a) in c.chunks_exact_mut(n).zip(a) {
                    c.iter_mut().zip(b).for_each(|(c, b)| *c += *a * *b);
                }
            }
        }
    }
}

/// Classes must be whole numbers below the columns.
fn check_classes<E: Scalar>(columns: usize, targets: &[E]) -> Result<()> {
    let is_class = |t: f64| t >= 0.0 && t < columns as f64 && t.fract() == 0.0;
    match targets.iter().position(|t| !is_class(t.wide())) {
        None => Ok(()),
        Some(i) => {
            let expected = format!("a class, a whole number below the {columns} of the output");
            Err(Error::option(format!("target {i} of the batch"), expected, targets[i]))
        }
    }
}

fn index_error(position: usize, rows: usize, got: u32) -> Error {
    Error::option(format!("indices[{position}]"), format!("below the {rows} rows of the table"), got)
}

impl<E: Scalar, B> DenseBackend for B
where
    B: RecurrentBackend<Elem = E> + HostBackend<E>,
{
    fn prepare_dense(&self) -> Result<()> {
        Ok(())
    }

    fn dense_workspace(&self, _: DenseCall) -> usize {
        0
    }

    fn gemm(&self, product: Product, a: &[E], b: &[E], c: &mut [E], grad: WeightGrad, _: &mut [E]) -> Result<()> {
        check::gemm(&product, a.len(), b.len(), c.len())?;
        let Product { orientation, m, n, k } = product;
        if m * n * k <= SMALL {
            small_gemm(product, a, b, c, grad == WeightGrad::Add);
            return Ok(());
        }
        let matrix = |rows, columns, data| ArrayView2::from_shape((rows, columns), data).map_err(mismatch);
        let mut c = ArrayViewMut2::from_shape((m, n), c).map_err(mismatch)?;
        let beta = if grad == WeightGrad::Add { E::one() } else { E::zero() };
        match orientation {
            Orientation::Nt => general_mat_mul(E::one(), &matrix(m, k, a)?, &matrix(n, k, b)?.t(), beta, &mut c),
            Orientation::Nn => general_mat_mul(E::one(), &matrix(m, k, a)?, &matrix(k, n, b)?, beta, &mut c),
            Orientation::Tn => general_mat_mul(E::one(), &matrix(k, m, a)?.t(), &matrix(k, n, b)?, beta, &mut c),
        }
        Ok(())
    }

    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<&[E]>,
        values: &mut [E],
        inputs: Option<&mut [E]>,
    ) -> Result<()> {
        if let Some(bias) = bias {
            check::rows("values", values.len(), bias.len())?;
        }
        check::same(values.len(), &[("inputs", inputs.as_ref().map(|i| i.len()))])?;
        if let Some(bias) = bias {
            for row in values.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(v, b)| *v += *b);
            }
        }
        if let Some(inputs) = inputs {
            inputs.copy_from_slice(values);
        }
        if activation != Activation::Linear {
            values.iter_mut().for_each(|v| *v = activation.apply(*v));
        }
        Ok(())
    }

    fn activation_gradient(&self, activation: Activation, dy: &[E], values: &[E], dx: &mut [E]) -> Result<()> {
        check::same(dy.len(), &[("values", Some(values.len())), ("dx", Some(dx.len()))])?;
        let from_input = activation.derivative_needs_input();
        for ((dx, dy), v) in dx.iter_mut().zip(dy).zip(values) {
            let y = if from_input { activation.apply(*v) } else { *v };
            *dx = *dy * activation.derivative(*v, y);
        }
        Ok(())
    }

    fn column_sums(&self, x: &[E], sums: &mut [E], grad: WeightGrad, _: &mut [E]) -> Result<()> {
        check::rows("x", x.len(), sums.len())?;
        if grad == WeightGrad::Set {
            sums.fill(E::zero());
        }
        for row in x.chunks_exact(sums.len()) {
            sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += *v);
        }
        Ok(())
    }

    fn dropout(
        &self,
        dropout: &Dropout,
        layer: usize,
        batch: usize,
        features: usize,
        x: &[E],
        y: &mut [E],
    ) -> Result<()> {
        if batch == 0 {
            return Err(Error::ZeroSize { name: "batch" });
        }
        let rows = check::rows("x", x.len(), features)?;
        check::rows("x", rows, batch)?;
        check::same(x.len(), &[("y", Some(y.len()))])?;
        y.copy_from_slice(x);
        for (r, row) in y.chunks_exact_mut(features).enumerate() {
            dropout.apply(row, layer, r / batch, r % batch);
        }
        Ok(())
    }

    fn loss(
        &self,
        loss: Loss,
        columns: usize,
        targets: &[E],
        predictions: &[E],
        weights: Option<&[E]>,
        gradient: Option<&mut [E]>,
        entry: LossEntry,
        record: &mut [f64],
        _: &mut [E],
    ) -> Result<()> {
        let gradient_len = gradient.as_ref().map(|g| g.len());
        check::loss(loss, columns, targets.len(), predictions.len(), weights.map(<[E]>::len), gradient_len)?;
        check::record(record.len())?;
        if loss.is_sparse() {
            check_classes(columns, targets)?;
        }
        let value = match (weights, gradient) {
            (None, Some(gradient)) => loss.gradient(columns, targets, predictions, gradient),
            (None, None) => loss.value(columns, targets, predictions),
            (Some(weights), gradient) => loss.weighted(columns, targets, predictions, weights, gradient),
        };
        record[LOSS] = value;
        record[TOTAL] += value * entry.weight;
        if !value.is_finite() && record[BAD_LOSS] == 0.0 {
            record[BAD_LOSS] = f64::from(entry.code);
            record[BAD_VALUE] = value;
        }
        Ok(())
    }

    fn adam(&self, step: AdamStep, parameters: &mut [E], gradients: &[E], m: &mut [E], v: &mut [E]) -> Result<()> {
        let len = parameters.len();
        check::same(len, &[("gradients", Some(gradients.len())), ("m", Some(m.len())), ("v", Some(v.len()))])?;
        Isa::detect().run(Adam {
            rate: E::of(step.rate),
            keep: (E::of(step.beta_1), E::of(step.beta_2)),
            take: (E::of(1.0 - step.beta_1), E::of(1.0 - step.beta_2)),
            epsilon: E::of(step.epsilon),
            decayed: E::of(1.0 - step.decay),
            parameters,
            gradients,
            m,
            v,
        });
        Ok(())
    }

    fn sgd(&self, step: SgdStep, parameters: &mut [E], gradients: &[E], velocity: Option<&mut [E]>) -> Result<()> {
        let velocity_len = velocity.as_ref().map(|v| v.len());
        check::same(parameters.len(), &[("gradients", Some(gradients.len())), ("velocity", velocity_len)])?;
        let (rate, momentum) = (E::of(step.rate), E::of(step.momentum));
        let Some(velocity) = velocity else {
            parameters.iter_mut().zip(gradients).for_each(|(w, g)| *w -= rate * *g);
            return Ok(());
        };
        for ((w, g), v) in parameters.iter_mut().zip(gradients).zip(velocity) {
            let change = rate * *g;
            *v = flush(momentum * *v - change);
            *w += if step.nesterov { momentum * *v - change } else { *v };
        }
        Ok(())
    }

    fn rmsprop(
        &self,
        step: RmsPropStep,
        parameters: &mut [E],
        gradients: &[E],
        mean_square: &mut [E],
        mean: Option<&mut [E]>,
        velocity: Option<&mut [E]>,
    ) -> Result<()> {
        check::same(
            parameters.len(),
            &[
                ("gradients", Some(gradients.len())),
                ("mean_square", Some(mean_square.len())),
                ("mean", mean.as_ref().map(|m| m.len())),
                ("velocity", velocity.as_ref().map(|v| v.len())),
            ],
        )?;
        let (rate, momentum, epsilon) = (E::of(step.rate), E::of(step.momentum), E::of(step.epsilon));
        let (keep, take) = (E::of(step.rho), E::of(1.0 - step.rho));
        let (mut mean, mut velocity) = (mean, velocity);
        for (i, (w, g)) in parameters.iter_mut().zip(gradients).enumerate() {
            let square = &mut mean_square[i];
            *square = flush(keep * *square + take * *g * *g);
            let mut variance = *square;
            if let Some(mean) = mean.as_deref_mut() {
                mean[i] = flush(keep * mean[i] + take * *g);
                variance -= mean[i] * mean[i];
            }
            let mut change = rate * *g / (variance + epsilon).sqrt();
            if let Some(velocity) = velocity.as_deref_mut() {
                change += momentum * velocity[i];
                velocity[i] = flush(change);
            }
            *w -= change;
        }
        Ok(())
    }

    fn adagrad(&self, step: AdagradStep, parameters: &mut [E], gradients: &[E], sums: &mut [E]) -> Result<()> {
        check::same(parameters.len(), &[("gradients", Some(gradients.len())), ("sums", Some(sums.len()))])?;
        let (rate, epsilon) = (E::of(step.rate), E::of(step.epsilon));
        for ((w, g), sum) in parameters.iter_mut().zip(gradients).zip(sums) {
            *sum += *g * *g;
            *w -= rate * *g / (*sum + epsilon).sqrt();
        }
        Ok(())
    }

    fn sum_of_squares(&self, x: &[E], sum: &mut [f64], _: &mut [E]) -> Result<()> {
        check_len("sum", &[1], sum.len())?;
        let mut sums = [0.0; 8];
        for chunk in x.chunks(8) {
            sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += v.wide() * v.wide());
        }
        sum[0] = sums.iter().sum();
        Ok(())
    }

    fn clip_by_norm(&self, most: f64, sum_of_squares: &[f64], x: &mut [E]) -> Result<()> {
        check_len("sum_of_squares", &[1], sum_of_squares.len())?;
        let norm = sum_of_squares[0].sqrt();
        if norm <= most {
            return Ok(());
        }
        let scale = E::of(most / norm);
        x.iter_mut().for_each(|v| *v *= scale);
        Ok(())
    }

    fn clip_by_value(&self, most: f64, x: &mut [E]) -> Result<()> {
        let most = E::of(most);
        for v in x {
            if *v > most {
                *v = most;
            } else if *v < -most {
                *v = -most;
            }
        }
        Ok(())
    }

    fn check_finite(&self, x: &[E], code: u32, record: &mut [f64]) -> Result<()> {
        check::record(record.len())?;
        if let Some(value) = non_finite(x)
            && record[BAD_GRADIENT] == 0.0
        {
            record[BAD_GRADIENT] = f64::from(code);
            if record[BAD_LOSS] == 0.0 {
                record[BAD_VALUE] = value;
            }
        }
        Ok(())
    }

    fn gather(&self, width: usize, table: &[E], indices: &[u32], out: &mut [E], _: u32, _: &mut [f64]) -> Result<()> {
        let rows = check::gather(width, table.len(), indices.len(), out.len())?;
        for (i, (row, &index)) in out.chunks_exact_mut(width).zip(indices).enumerate() {
            let from = index as usize;
            if from >= rows {
                return Err(index_error(i, rows, index));
            }
            row.copy_from_slice(&table[from * width..][..width]);
        }
        Ok(())
    }

    fn scatter_add(
        &self,
        width: usize,
        indices: &[u32],
        dout: &[E],
        dtable: &mut [E],
        grad: WeightGrad,
        _: u32,
        _: &mut [f64],
    ) -> Result<()> {
        let rows = check::gather(width, dtable.len(), indices.len(), dout.len())?;
        if let Some(i) = indices.iter().position(|index| *index as usize >= rows) {
            return Err(index_error(i, rows, indices[i]));
        }
        if grad == WeightGrad::Set {
            dtable.fill(E::zero());
        }
        for (row, &index) in dout.chunks_exact(width).zip(indices) {
            dtable[index as usize * width..][..width].iter_mut().zip(row).for_each(|(to, from)| *to += *from);
        }
        Ok(())
    }

    fn add(&self, a: &[E], b: &[E], out: &mut [E]) -> Result<()> {
        check::same(a.len(), &[("b", Some(b.len())), ("out", Some(out.len()))])?;
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = *a + *b);
        Ok(())
    }

    fn multiply(&self, a: &[E], b: &[E], out: &mut [E]) -> Result<()> {
        check::same(a.len(), &[("b", Some(b.len())), ("out", Some(out.len()))])?;
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = *a * *b);
        Ok(())
    }

    fn copy_columns(
        &self,
        count: usize,
        from: &[E],
        from_columns: Columns,
        to: &mut [E],
        to_columns: Columns,
    ) -> Result<()> {
        let rows = check::copy_columns(count, from.len(), from_columns, to.len(), to_columns)?;
        for row in 0..rows {
            let from = &from[row * from_columns.width + from_columns.first..][..count];
            to[row * to_columns.width + to_columns.first..][..count].copy_from_slice(from);
        }
        Ok(())
    }

    fn fill(&self, x: &mut [E], value: f64) -> Result<()> {
        x.fill(E::of(value));
        Ok(())
    }
}

/// One update of Adam: plain loops, compiled for the widest vectors of the machine. No operation is fused, so the bits are the same
/// on all.
struct Adam<'a, E> {
    rate: E,
    keep: (E, E),
    take: (E, E),
    epsilon: E,
    decayed: E,
    parameters: &'a mut [E],
    gradients: &'a [E],
    m: &'a mut [E],
    v: &'a mut [E],
}

impl<E: Scalar> Kernel<E> for Adam<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let Adam { rate, keep, take, epsilon, decayed, parameters, gradients, m, v } = self;
        for ((w, g), (m, v)) in parameters.iter_mut().zip(gradients).zip(m.iter_mut().zip(v)) {
            // Both loads before both stores, and none after: where the tensors lie a multiple of 4 KiB apart but for a few lines, a load
            // would wait for the stores before it.
            let first = flush(keep.0 * *m + take.0 * *g);
            let second = flush(keep.1 * *v + take.1 * *g * *g);
            // Without decay a multiplication by one, which changes no bit.
            *w = decayed * *w - rate * first / (second.sqrt() + epsilon);
            *m = first;
            *v = second;
        }
    }
}

/// Zero for denormal numbers: moments of a converged model decay into them, where arithmetic is many times slower.
#[inline(always)]
fn flush<E: Scalar>(value: E) -> E {
    if value.abs() < E::min_positive_value() { E::zero() } else { value }
}

/// The first value that is NaN or infinite.
fn non_finite<E: Scalar>(values: &[E]) -> Option<f64> {
    // Zero times a finite number is zero, times any other NaN, and sums keep NaN: no branch until the end.
    let mut sums = [E::zero(); 16];
    let chunks = values.chunks_exact(16);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += *value * E::zero();
        }
    }
    let is_clean = sums.iter().chain(tail).all(|v| v.is_finite());
    if is_clean { None } else { values.iter().find(|v| !v.is_finite()).map(|v| v.wide()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_what_is_not_finite() {
        for len in [0, 1, 15, 16, 17, 100] {
            assert_eq!(super::non_finite(&vec![1.5f32; len]), None);
            for at in 0..len {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = vec![1.5f32; len];
                    values[at] = bad;
                    assert!(super::non_finite(&values).is_some_and(|v| !v.is_finite()), "{len} {at}");
                }
            }
        }
    }
}
