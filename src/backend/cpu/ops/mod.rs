//! What models compute besides the recurrent operator, on vectors and threads.
//!
//! | file | what |
//! |---|---|
//! | `matmul` | products of matrices as they lie, one or many |
//! | `softmax` | rows of a softmax |
//! | `attention` | attention by blocks of queries |
//! | `loss` | the categorical cross-entropy of scores |
//! | `norms` | sums and normalization by rows and by columns |
//! | `elements` | activations; optimizers, whose arithmetic is in `host_ops/plain/training.rs` |
//! | `parts` | rows divided among threads |
//!
//! What is not here is the plain loops'. Threads help where the work is worth them; results are the same bits without.

mod attention;
mod elements;
mod loss;
mod matmul;
mod norms;
mod parts;
mod softmax;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{CpuBackend, CpuElement};
use crate::backend::WeightGrad;
use crate::backend::host_ops::plain::norms::{Moments, NormGradients};
use crate::backend::host_ops::plain::{self, training};
use crate::backend::host_ops::{HostAttention, HostAttentionGradients, HostLoss, HostOperations, HostSoftmaxMask};
use crate::backend::ops::{AdagradStep, AdamStep, LossEntry, MatMul, RmsPropStep, SgdStep, Workspace};
use crate::cell::Activation;
use crate::error::Result;
use crate::loss::Loss;
use crate::rnn::Dropout;
use crate::simd::Isa;
use matmul::Products;
use parts::{Part, Read, Write, by_rows};

/// What an element takes in the unit of [`Threads::worth`](super::threads::Threads::worth), a few of which take a nanosecond's
/// hundredth: read and written once.
const STREAM: f64 = 20.0;
/// With a root and a quotient, or several passes.
const SOME_PASSES: f64 = 60.0;
/// With a function of the mathematics library, or random bits.
const FUNCTION: f64 = 400.0;

impl<E: CpuElement> CpuBackend<E> {
    fn by_rows<P: Part>(&self, rows: usize, operations: f64, parts: P, work: impl Fn(usize, P) + Sync) -> Result<()> {
        by_rows(&self.threads, rows, operations, parts, work)
    }
}

fn cost(activation: Activation) -> f64 {
    match activation {
        Activation::Linear | Activation::Relu | Activation::LeakyRelu { .. } => STREAM,
        _ => FUNCTION,
    }
}

impl<E: CpuElement> HostOperations for CpuBackend<E> {
    type Element = E;

    fn workspace(&self, call: Workspace) -> usize {
        match call {
            Workspace::MatMul(product) if matmul::is_small(&product) => 0,
            Workspace::MatMul(product) => Products::new(self.isa, &self.threads, product).workspace::<E>(),
            Workspace::Attention(shape) => attention::workspace::<E>(self.isa, &self.threads, &shape),
            Workspace::AttentionGradient(shape) => attention::gradient_workspace::<E>(self.isa, &self.threads, &shape),
            _ => 0,
        }
    }

    fn matmul(
        &self,
        product: MatMul,
        alpha: f64,
        a: &[E],
        b: &[E],
        c: &mut [E],
        grad: WeightGrad,
        workspace: &mut [E],
    ) -> Result<()> {
        Isa::chosen()?;
        if matmul::is_small(&product) {
            matmul::small(&product, E::of(alpha), a, b, c, grad);
            return Ok(());
        }
        Products::new(self.isa, &self.threads, product).run(&self.threads, alpha, a, b, c, grad, workspace)
    }

    fn sum_axis(&self, sizes: [usize; 3], alpha: f64, x: &[E], y: &mut [E], grad: WeightGrad) -> Result<()> {
        let [outer, count, inner] = sizes;
        if grad == WeightGrad::Set {
            y.fill(E::zero());
        }
        if outer * count * inner == 0 {
            return Ok(());
        }
        let (isa, is_bias, alpha) = (self.isa, outer == 1 && alpha == 1.0, E::of(alpha));
        let operations = STREAM * count as f64;
        if inner == 1 && !is_bias {
            let parts = (Read(x, count), Write(y, 1));
            return self.by_rows(outer, operations, parts, |_, (x, y)| {
                isa.run(norms::SumRows { alpha, columns: count, x: x.0, y: y.0 });
            });
        }
        if outer == 1 {
            return self.by_rows(inner, operations, Write(y, 1), |first, y| {
                isa.run(norms::SumColumns { alpha, columns: inner, first, x, y: y.0 });
            });
        }
        let parts = (Read(x, count * inner), Write(y, inner));
        self.by_rows(outer, operations * inner as f64, parts, |_, (x, y)| {
            for (x, y) in x.0.chunks_exact(count * inner).zip(y.0.chunks_exact_mut(inner)) {
                isa.run(norms::SumColumns { alpha, columns: inner, first: 0, x, y });
            }
        })
    }

    fn scale_add(&self, alpha: f64, x: &[E], beta: f64, y: &mut [E]) -> Result<()> {
        let (alpha, beta) = (E::of(alpha), (beta != 0.0).then_some(E::of(beta)));
        self.by_rows(x.len(), STREAM, (Read(x, 1), Write(y, 1)), |_, (x, y)| {
            self.isa.run(elements::ScaleAdd { alpha, x: x.0, beta, y: y.0 });
        })
    }

    fn copy(&self, x: &[E], y: &mut [E]) -> Result<()> {
        self.by_rows(x.len(), STREAM, (Read(x, 1), Write(y, 1)), |_, (x, y)| y.0.copy_from_slice(x.0))
    }

    fn sum(&self, a: &[E], alpha: f64, b: &[E], y: &mut [E]) -> Result<()> {
        let parts = (Read(a, 1), Read(b, 1), Write(y, 1));
        self.by_rows(a.len(), STREAM, parts, |_, (a, b, y)| {
            self.isa.run(elements::Sum { a: a.0, alpha, b: b.0, y: y.0 });
        })
    }

    fn scale(&self, alpha: f64, x: &mut [E]) -> Result<()> {
        self.by_rows(x.len(), STREAM, Write(x, 1), |_, x| plain::elements::scale(alpha, x.0))
    }

    fn multiply(&self, a: &[E], b: &[E], out: &mut [E]) -> Result<()> {
        let parts = (Read(a, 1), Read(b, 1), Write(out, 1));
        self.by_rows(a.len(), STREAM, parts, |_, (a, b, out)| plain::elements::multiply(a.0, b.0, out.0))
    }

    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<&[E]>,
        values: &mut [E],
        inputs: Option<&mut [E]>,
    ) -> Result<()> {
        let columns = bias.map_or(1, <[E]>::len);
        let rows = values.len() / columns;
        let parts = (Write(values, columns), inputs.map(|inputs| Write(inputs, columns)));
        self.by_rows(rows, cost(activation) * columns as f64, parts, |_, (values, inputs)| {
            let inputs = inputs.map(|inputs| inputs.0);
            self.isa.run(elements::AddBiasActivate { activation, bias, values: values.0, inputs });
        })
    }

    fn activation_gradient(&self, activation: Activation, dy: &[E], values: &[E], dx: &mut [E]) -> Result<()> {
        let operations = if activation.derivative_needs_input() { cost(activation) } else { STREAM };
        let parts = (Read(dy, 1), Read(values, 1), Write(dx, 1));
        self.by_rows(dy.len(), operations, parts, |_, (dy, values, dx)| {
            self.isa.run(elements::ActivationGradient { activation, dy: dy.0, values: values.0, dx: dx.0 });
        })
    }

    fn softmax(&self, columns: usize, x: &[E], mask: HostSoftmaxMask<'_, E>, y: &mut [E]) -> Result<()> {
        let parts = (Read(x, columns), Write(y, columns));
        self.by_rows(x.len() / columns, SOME_PASSES * columns as f64, parts, |first, (x, y)| {
            y.0.copy_from_slice(x.0);
            let valid = |row: usize, c: usize| mask.contains(columns, first + row, c);
            let valid = (!mask.is_full()).then_some(valid);
            self.isa.run(softmax::Rows { columns, values: y.0, valid });
        })
    }

    fn softmax_gradient(&self, columns: usize, y: &[E], dy: &[E], dx: &mut [E]) -> Result<()> {
        let parts = (Read(y, columns), Read(dy, columns), Write(dx, columns));
        self.by_rows(y.len() / columns, STREAM * columns as f64, parts, |_, (y, dy, dx)| {
            self.isa.run(softmax::GradientRows { columns, y: y.0, dy: dy.0, dx: dx.0 });
        })
    }

    fn attention(
        &self,
        of: HostAttention<'_, E>,
        y: &mut [E],
        statistics: &mut [E],
        workspace: &mut [E],
    ) -> Result<()> {
        attention::attention(self.isa, &self.threads, of, y, statistics, workspace)
    }

    fn attention_gradient(
        &self,
        of: HostAttention<'_, E>,
        y: &[E],
        statistics: &[E],
        dy: &[E],
        to: HostAttentionGradients<'_, E>,
        workspace: &mut [E],
    ) -> Result<()> {
        attention::attention_gradient(self.isa, &self.threads, of, y, statistics, dy, to, workspace)
    }

    fn layer_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: &[E],
        gamma: Option<&[E]>,
        beta: Option<&[E]>,
        y: &mut [E],
        statistics: &mut [E],
    ) -> Result<()> {
        let epsilon = E::of(epsilon);
        let parts = (Read(x, columns), Write(y, columns), Write(statistics, 2));
        self.by_rows(x.len() / columns, SOME_PASSES * columns as f64, parts, |_, (x, y, statistics)| {
            let (x, y, statistics) = (x.0, y.0, statistics.0);
            self.isa.run(norms::LayerNorm { columns, epsilon, x, gamma, beta, y, statistics });
        })
    }

    fn layer_norm_gradient(
        &self,
        columns: usize,
        x: &[E],
        gamma: Option<&[E]>,
        statistics: &[E],
        dy: &[E],
        to: NormGradients<'_, E>,
    ) -> Result<()> {
        let NormGradients { dx, mut dgamma, mut dbeta, grad } = to;
        let rows = x.len() / columns;
        if grad == WeightGrad::Set {
            for gradient in [&mut dgamma, &mut dbeta].into_iter().flatten() {
                gradient.fill(E::zero());
            }
        }
        let parts = (dgamma.map(|d| Write(d, 1)), dbeta.map(|d| Write(d, 1)));
        self.by_rows(columns, SOME_PASSES * rows as f64, parts, |first, (dgamma, dbeta)| {
            let (dgamma, dbeta) = (dgamma.map(|d| d.0), dbeta.map(|d| d.0));
            self.isa.run(norms::LayerNormParameters { columns, first, x, statistics, dy, dgamma, dbeta });
        })?;
        let Some(dx) = dx else { return Ok(()) };
        let parts = (Read(x, columns), Read(statistics, 2), Read(dy, columns), Write(dx, columns));
        self.by_rows(rows, SOME_PASSES * columns as f64, parts, |_, (x, statistics, dy, dx)| {
            let (x, statistics, dy, dx) = (x.0, statistics.0, dy.0, dx.0);
            self.isa.run(norms::LayerNormGradient { columns, x, gamma, statistics, dy, dx });
        })
    }

    fn column_moments(
        &self,
        columns: usize,
        x: &[E],
        weights: Option<&[E]>,
        mean: &mut [E],
        variance: &mut [E],
    ) -> Result<()> {
        let rows = x.len() / columns;
        let total: E = (0..rows).map(|row| weights.map_or(E::one(), |weights| weights[row])).sum();
        if total == E::zero() {
            mean.fill(E::zero());
            variance.fill(E::zero());
            return Ok(());
        }
        let parts = (Write(mean, 1), Write(variance, 1));
        self.by_rows(columns, SOME_PASSES * rows as f64, parts, |first, (mean, variance)| {
            let (mean, variance) = (mean.0, variance.0);
            self.isa.run(norms::ColumnMoments { columns, first, x, weights, total, mean, variance });
        })
    }

    fn batch_norm(
        &self,
        x: &[E],
        moments: Moments<'_, E>,
        gamma: Option<&[E]>,
        beta: Option<&[E]>,
        y: &mut [E],
    ) -> Result<()> {
        let columns = moments.mean.len();
        let parts = (Read(x, columns), Write(y, columns));
        self.by_rows(x.len() / columns, SOME_PASSES * columns as f64, parts, |_, (x, y)| {
            self.isa.run(norms::BatchNorm { x: x.0, moments, gamma, beta, y: y.0 });
        })
    }

    fn batch_norm_gradient(
        &self,
        x: &[E],
        weights: Option<&[E]>,
        moments: Moments<'_, E>,
        gamma: Option<&[E]>,
        dy: &[E],
        to: NormGradients<'_, E>,
    ) -> Result<()> {
        let NormGradients { dx, dgamma, dbeta, grad } = to;
        let rows = x.len() / moments.mean.len();
        let total: E = (0..rows).map(|row| weights.map_or(E::one(), |weights| weights[row])).sum();
        self.isa.run(norms::BatchNormGradient { x, weights, total, moments, gamma, dy, dx, dgamma, dbeta, grad });
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
        let parts = (Read(x, features), Write(y, features));
        self.by_rows(x.len() / features, SOME_PASSES * features as f64, parts, |first, (x, y)| {
            self.isa.run(elements::Dropped { dropout, layer, batch, features, first, x: x.0, y: y.0 });
        })
    }

    fn loss(&self, of: HostLoss<'_, E>, entry: LossEntry, status: &mut [f64]) -> Result<()> {
        match of.loss {
            Loss::CategoricalCrossentropy { from_logits: true }
            | Loss::SparseCategoricalCrossentropy { from_logits: true } => {
                training::check_loss(&of)?;
                let value = loss::categorical(self.isa, &self.threads, of)?;
                training::note_loss(value, entry, status);
                Ok(())
            }
            _ => training::loss(of, entry, status),
        }
    }

    fn adam(&self, step: AdamStep, parameters: &mut [E], gradients: &[E], m: &mut [E], v: &mut [E]) -> Result<()> {
        let parts = (Write(parameters, 1), Read(gradients, 1), Write(m, 1), Write(v, 1));
        self.by_rows(gradients.len(), SOME_PASSES, parts, |_, (parameters, gradients, m, v)| {
            let (parameters, gradients, m, v) = (parameters.0, gradients.0, m.0, v.0);
            self.isa.run(elements::Adam { step, parameters, gradients, m, v });
        })
    }

    fn sgd(&self, step: SgdStep, parameters: &mut [E], gradients: &[E], velocity: Option<&mut [E]>) -> Result<()> {
        let parts = (Write(parameters, 1), Read(gradients, 1), velocity.map(|v| Write(v, 1)));
        self.by_rows(gradients.len(), STREAM, parts, |_, (parameters, gradients, velocity)| {
            let (parameters, gradients, velocity) = (parameters.0, gradients.0, velocity.map(|v| v.0));
            self.isa.run(elements::Sgd { step, parameters, gradients, velocity });
        })
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
        let (mean, velocity) = (mean.map(|m| Write(m, 1)), velocity.map(|v| Write(v, 1)));
        let parts = (Write(parameters, 1), Read(gradients, 1), Write(mean_square, 1), mean, velocity);
        self.by_rows(gradients.len(), SOME_PASSES, parts, |_, (parameters, gradients, mean_square, mean, velocity)| {
            let (parameters, gradients, mean_square) = (parameters.0, gradients.0, mean_square.0);
            let (mean, velocity) = (mean.map(|m| m.0), velocity.map(|v| v.0));
            self.isa.run(elements::RmsProp { step, parameters, gradients, mean_square, mean, velocity });
        })
    }

    fn adagrad(&self, step: AdagradStep, parameters: &mut [E], gradients: &[E], sums: &mut [E]) -> Result<()> {
        let parts = (Write(parameters, 1), Read(gradients, 1), Write(sums, 1));
        self.by_rows(gradients.len(), SOME_PASSES, parts, |_, (parameters, gradients, sums)| {
            let (parameters, gradients, sums) = (parameters.0, gradients.0, sums.0);
            self.isa.run(elements::Adagrad { step, parameters, gradients, sums });
        })
    }

    fn sum_of_squares(&self, x: &[E]) -> f64 {
        self.isa.run(elements::SumOfSquares(x))
    }

    fn check_finite(&self, x: &[E], code: u32, status: &mut [f64]) -> Result<()> {
        let all_finite = AtomicBool::new(true);
        self.by_rows(x.len(), STREAM, Read(x, 1), |_, x| {
            if !self.isa.run(elements::AllFinite(x.0)) {
                all_finite.store(false, Relaxed);
            }
        })?;
        if !all_finite.into_inner() {
            training::check_finite(x, code, status);
        }
        Ok(())
    }

    fn clip_by_value(&self, most: f64, x: &mut [E]) -> Result<()> {
        self.by_rows(x.len(), STREAM, Write(x, 1), |_, x| training::clip_by_value(most, x.0))
    }
}

impl<E: CpuElement> CpuBackend<E> {
    /// The same threads and instruction set for another element type.
    pub(crate) fn cast<F: CpuElement>(&self) -> CpuBackend<F> {
        CpuBackend { isa: self.isa, threads: self.threads.clone(), element: std::marker::PhantomData }
    }
}
