//! The same on slices of the host.

use super::{MaskOrder, NO_ROW, SoftmaxMask, Strides, TensorBackend, check, softmax};
use crate::backend::cpu::simd::Isa;
use crate::backend::dense::{Product, check as dense};
use crate::backend::{DenseBackend, HostBackend, RecurrentBackend, WeightGrad};
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;

impl<E: Scalar, B> TensorBackend for B
where
    B: RecurrentBackend<Elem = E> + HostBackend<E>,
{
    fn scale_add(&self, alpha: f64, x: &[E], beta: f64, y: &mut [E]) -> Result<()> {
        dense::same(x.len(), &[("y", Some(y.len()))])?;
        let (alpha, factor) = (E::of(alpha), E::of(beta));
        if beta == 0.0 {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = alpha * *x);
        } else {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = alpha * *x + factor * *y);
        }
        Ok(())
    }

    fn scale(&self, alpha: f64, x: &mut [E]) -> Result<()> {
        let alpha = E::of(alpha);
        x.iter_mut().for_each(|x| *x *= alpha);
        Ok(())
    }

    fn strided_copy(
        &self,
        shape: [usize; 4],
        from: &[E],
        from_layout: Strides,
        to: &mut [E],
        to_layout: Strides,
        grad: WeightGrad,
    ) -> Result<()> {
        if !check::strided(shape, (from_layout, from.len()), (to_layout, to.len()))? {
            return Ok(());
        }
        let [n0, n1, n2, n3] = shape;
        let (f, t) = (from_layout.strides, to_layout.strides);
        for i in 0..n0 as isize {
            for j in 0..n1 as isize {
                for k in 0..n2 as isize {
                    let at = |layout: Strides, s: [isize; 4]| layout.offset as isize + i * s[0] + j * s[1] + k * s[2];
                    let (read, write) = (at(from_layout, f), at(to_layout, t));
                    if (f[3], t[3]) == (1, 1) {
                        let source = &from[read as usize..][..n3];
                        let target = &mut to[write as usize..][..n3];
                        match grad {
                            WeightGrad::Set => target.copy_from_slice(source),
                            WeightGrad::Add => target.iter_mut().zip(source).for_each(|(to, from)| *to += *from),
                        }
                        continue;
                    }
                    for l in 0..n3 as isize {
                        let value = from[(read + l * f[3]) as usize];
                        let target = &mut to[(write + l * t[3]) as usize];
                        *target = if grad == WeightGrad::Add { *target + value } else { value };
                    }
                }
            }
        }
        Ok(())
    }

    fn sum_axis(&self, sizes: [usize; 3], alpha: f64, x: &[E], y: &mut [E], grad: WeightGrad) -> Result<()> {
        check::axis(sizes, x.len(), y.len())?;
        let [_, count, inner] = sizes;
        if grad == WeightGrad::Set {
            y.fill(E::zero());
        }
        if count * inner == 0 {
            return Ok(());
        }
        let alpha = E::of(alpha);
        if inner == 1 {
            for (x, y) in x.chunks_exact(count).zip(y) {
                *y += alpha * x.iter().copied().sum::<E>();
            }
            return Ok(());
        }
        for (x, y) in x.chunks_exact(count * inner).zip(y.chunks_exact_mut(inner)) {
            for x in x.chunks_exact(inner) {
                y.iter_mut().zip(x).for_each(|(y, x)| *y += alpha * *x);
            }
        }
        Ok(())
    }

    fn max_axis(
        &self,
        sizes: [usize; 3],
        x: &[E],
        mask: Option<&[E]>,
        y: &mut [E],
        position: &mut [u32],
    ) -> Result<()> {
        check::axis(sizes, x.len(), y.len())?;
        let [outer, count, inner] = sizes;
        check_len("position", &[outer, inner], position.len())?;
        if let Some(mask) = mask {
            check_len("mask", &[outer, count], mask.len())?;
        }
        y.fill(E::zero());
        position.fill(NO_ROW);
        for o in 0..outer {
            for c in (0..count).filter(|c| mask.is_none_or(|mask| mask[o * count + c] != E::zero())) {
                for i in 0..inner {
                    let value = x[(o * count + c) * inner + i];
                    let at = o * inner + i;
                    // Not `>` alone: NaN shall win, and the first of them.
                    if position[at] == NO_ROW || value > y[at] || value.is_nan() && !y[at].is_nan() {
                        (y[at], position[at]) = (value, c as u32);
                    }
                }
            }
        }
        Ok(())
    }

    fn max_axis_gradient(&self, sizes: [usize; 3], dy: &[E], position: &[u32], dx: &mut [E]) -> Result<()> {
        let [outer, count, inner] = sizes;
        check::axis(sizes, dx.len(), dy.len())?;
        check_len("position", &[outer, inner], position.len())?;
        dx.fill(E::zero());
        for (at, (dy, c)) in dy.iter().zip(position).enumerate() {
            if (*c as usize) < count {
                dx[(at / inner * count + *c as usize) * inner + at % inner] = *dy;
            }
        }
        Ok(())
    }

    fn scale_rows(&self, factors: &[E], inverse: bool, x: &[E], y: &mut [E]) -> Result<()> {
        let columns = check::by_rows(factors.len(), x.len())?;
        dense::same(x.len(), &[("y", Some(y.len()))])?;
        if columns == 0 {
            return Ok(());
        }
        for ((x, y), factor) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)).zip(factors) {
            match (inverse, *factor == E::zero()) {
                (false, _) => y.iter_mut().zip(x).for_each(|(y, x)| *y = *x * *factor),
                (true, false) => y.iter_mut().zip(x).for_each(|(y, x)| *y = *x / *factor),
                (true, true) => y.fill(E::zero()),
            }
        }
        Ok(())
    }

    fn select_rows(&self, mask: &[E], a: &[E], b: Option<&[E]>, out: &mut [E]) -> Result<()> {
        let columns = check::by_rows(mask.len(), a.len())?;
        dense::same(a.len(), &[("b", b.map(<[E]>::len)), ("out", Some(out.len()))])?;
        for (row, valid) in mask.iter().enumerate() {
            let range = row * columns..(row + 1) * columns;
            let to = &mut out[range.clone()];
            match (*valid != E::zero(), b) {
                (true, _) => to.copy_from_slice(&a[range]),
                (false, Some(b)) => to.copy_from_slice(&b[range]),
                (false, None) => to.fill(E::zero()),
            }
        }
        Ok(())
    }

    fn softmax(&self, columns: usize, x: &[E], valid: SoftmaxMask<'_, B>, y: &mut [E]) -> Result<()> {
        let rows = dense::rows("x", x.len(), columns)?;
        dense::same(x.len(), &[("y", Some(y.len()))])?;
        let keys = check::softmax(rows, columns, valid.keys.map(|(keys, rows)| (keys.len(), rows)), valid.causal)?;
        y.copy_from_slice(x);
        let is_valid = |row: usize, c: usize| {
            let seen = valid.causal.map_or(columns, |queries| columns.min(row % queries + 1));
            c < seen && valid.keys.is_none_or(|(mask, _)| mask[row / keys * columns + c] != E::zero())
        };
        let is_masked = valid.causal.is_some() || valid.keys.is_some();
        Isa::detect().run(softmax::Rows { columns, values: y, valid: is_masked.then_some(is_valid) });
        Ok(())
    }

    fn softmax_gradient(&self, columns: usize, y: &[E], dy: &[E], dx: &mut [E]) -> Result<()> {
        dense::rows("y", y.len(), columns)?;
        dense::same(y.len(), &[("dy", Some(dy.len())), ("dx", Some(dx.len()))])?;
        Isa::detect().run(softmax::GradientRows { columns, y, dy, dx });
        Ok(())
    }

    fn batched_gemm(
        &self,
        count: usize,
        product: Product,
        alpha: f64,
        a: &[E],
        b: &[E],
        c: &mut [E],
        grad: WeightGrad,
    ) -> Result<()> {
        let Product { m, n, k, .. } = product;
        for (name, sizes, len) in
            [("a", [count, m, k], a.len()), ("b", [count, n, k], b.len()), ("c", [count, m, n], c.len())]
        {
            check_len(name, &sizes, len)?;
        }
        // The factor goes to a copy of the smaller operand's share of each product; products of attention are small.
        let mut scaled = Vec::new();
        for i in 0..count {
            let (a, b) = (&a[i * m * k..][..m * k], &b[i * n * k..][..n * k]);
            let c = &mut c[i * m * n..][..m * n];
            let a = if alpha == 1.0 {
                a
            } else {
                let alpha = E::of(alpha);
                scaled.clear();
                scaled.extend(a.iter().map(|v| alpha * *v));
                &scaled[..]
            };
            self.gemm(product, a, b, c, grad, &mut [])?;
        }
        Ok(())
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
        let vectors = [("gamma", gamma.map(<[E]>::len)), ("beta", beta.map(<[E]>::len))];
        let rows = check::normalized(columns, x.len(), &[("y", Some(y.len()))], &vectors)?;
        check_len("statistics", &[rows, 2], statistics.len())?;
        let (count, epsilon) = (E::of(columns as f64), E::of(epsilon));
        for ((x, y), statistics) in
            x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)).zip(statistics.chunks_exact_mut(2))
        {
            let mean = x.iter().copied().sum::<E>() / count;
            let variance = x.iter().map(|x| (*x - mean) * (*x - mean)).sum::<E>() / count;
            let inverse = E::one() / (variance + epsilon).sqrt();
            statistics.copy_from_slice(&[mean, inverse]);
            for (c, (y, x)) in y.iter_mut().zip(x).enumerate() {
                let scaled = (*x - mean) * inverse * gamma.map_or(E::one(), |gamma| gamma[c]);
                *y = scaled + beta.map_or(E::zero(), |beta| beta[c]);
            }
        }
        Ok(())
    }

    fn layer_norm_gradient(
        &self,
        columns: usize,
        x: &[E],
        gamma: Option<&[E]>,
        statistics: &[E],
        dy: &[E],
        mut dx: Option<&mut [E]>,
        mut dgamma: Option<&mut [E]>,
        mut dbeta: Option<&mut [E]>,
        grad: WeightGrad,
        _: &mut [E],
    ) -> Result<()> {
        let others = [("dy", Some(dy.len())), ("dx", dx.as_ref().map(|dx| dx.len()))];
        let vectors = [
            ("gamma", gamma.map(<[E]>::len)),
            ("dgamma", dgamma.as_ref().map(|d| d.len())),
            ("dbeta", dbeta.as_ref().map(|d| d.len())),
        ];
        let rows = check::normalized(columns, x.len(), &others, &vectors)?;
        check_len("statistics", &[rows, 2], statistics.len())?;
        if grad == WeightGrad::Set {
            if let Some(dgamma) = dgamma.as_deref_mut() {
                dgamma.fill(E::zero());
            }
            if let Some(dbeta) = dbeta.as_deref_mut() {
                dbeta.fill(E::zero());
            }
        }
        let count = E::of(columns as f64);
        for row in 0..rows {
            let range = row * columns..(row + 1) * columns;
            let (x, dy) = (&x[range.clone()], &dy[range.clone()]);
            let (mean, inverse) = (statistics[2 * row], statistics[2 * row + 1]);
            // With n the normalised x and g = dy gamma: dx = (g - mean(g) - n mean(g n)) / deviation.
            let slope = |c: usize| dy[c] * gamma.map_or(E::one(), |gamma| gamma[c]);
            let normal = |c: usize| (x[c] - mean) * inverse;
            if let Some(dgamma) = dgamma.as_deref_mut() {
                dgamma.iter_mut().enumerate().for_each(|(c, d)| *d += dy[c] * normal(c));
            }
            if let Some(dbeta) = dbeta.as_deref_mut() {
                dbeta.iter_mut().zip(dy).for_each(|(d, dy)| *d += *dy);
            }
            if let Some(dx) = dx.as_deref_mut() {
                let first = (0..columns).map(slope).sum::<E>() / count;
                let second = (0..columns).map(|c| slope(c) * normal(c)).sum::<E>() / count;
                for (c, dx) in dx[range].iter_mut().enumerate() {
                    *dx = (slope(c) - first - normal(c) * second) * inverse;
                }
            }
        }
        Ok(())
    }

    fn column_moments(
        &self,
        columns: usize,
        x: &[E],
        weights: Option<&[E]>,
        mean: &mut [E],
        variance: &mut [E],
    ) -> Result<()> {
        let vectors = [("mean", Some(mean.len())), ("variance", Some(variance.len()))];
        let rows = check::normalized(columns, x.len(), &[], &vectors)?;
        dense::same(rows, &[("weights", weights.map(<[E]>::len))])?;
        let weight = |row: usize| weights.map_or(E::one(), |weights| weights[row]);
        let total: E = (0..rows).map(weight).sum();
        mean.fill(E::zero());
        variance.fill(E::zero());
        if total == E::zero() {
            return Ok(());
        }
        for (row, x) in x.chunks_exact(columns).enumerate() {
            mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += weight(row) * *x);
        }
        mean.iter_mut().for_each(|mean| *mean /= total);
        for (row, x) in x.chunks_exact(columns).enumerate() {
            let w = weight(row);
            variance
                .iter_mut()
                .zip(mean.iter())
                .zip(x)
                .for_each(|((v, mean), x)| *v += w * (*x - *mean) * (*x - *mean));
        }
        variance.iter_mut().for_each(|v| *v /= total);
        Ok(())
    }

    fn batch_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: &[E],
        mean: &[E],
        variance: &[E],
        gamma: Option<&[E]>,
        beta: Option<&[E]>,
        y: &mut [E],
    ) -> Result<()> {
        let vectors = [
            ("mean", Some(mean.len())),
            ("variance", Some(variance.len())),
            ("gamma", gamma.map(<[E]>::len)),
            ("beta", beta.map(<[E]>::len)),
        ];
        check::normalized(columns, x.len(), &[("y", Some(y.len()))], &vectors)?;
        let epsilon = E::of(epsilon);
        for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)) {
            for c in 0..columns {
                let normal = (x[c] - mean[c]) / (variance[c] + epsilon).sqrt();
                y[c] = normal * gamma.map_or(E::one(), |g| g[c]) + beta.map_or(E::zero(), |b| b[c]);
            }
        }
        Ok(())
    }

    fn batch_norm_gradient(
        &self,
        columns: usize,
        epsilon: f64,
        x: &[E],
        weights: Option<&[E]>,
        mean: &[E],
        variance: &[E],
        gamma: Option<&[E]>,
        dy: &[E],
        dx: Option<&mut [E]>,
        dgamma: Option<&mut [E]>,
        dbeta: Option<&mut [E]>,
        grad: WeightGrad,
        _: &mut [E],
    ) -> Result<()> {
        let others = [("dy", Some(dy.len())), ("dx", dx.as_ref().map(|dx| dx.len()))];
        let vectors = [
            ("mean", Some(mean.len())),
            ("variance", Some(variance.len())),
            ("gamma", gamma.map(<[E]>::len)),
            ("dgamma", dgamma.as_ref().map(|d| d.len())),
            ("dbeta", dbeta.as_ref().map(|d| d.len())),
        ];
        let rows = check::normalized(columns, x.len(), &others, &vectors)?;
        dense::same(rows, &[("weights", weights.map(<[E]>::len))])?;
        let (mut dx, mut dgamma, mut dbeta) = (dx, dgamma, dbeta);
        let weight = |row: usize| weights.map_or(E::one(), |weights| weights[row]);
        let total: E = (0..rows).map(weight).sum();
        for c in 0..columns {
            let inverse = E::one() / (variance[c] + E::of(epsilon)).sqrt();
            let normal = |row: usize| (x[row * columns + c] - mean[c]) * inverse;
            let slope = |row: usize| dy[row * columns + c];
            let sum: E = (0..rows).map(slope).sum();
            let product: E = (0..rows).map(|row| slope(row) * normal(row)).sum();
            let added = |before: E, value: E| if grad == WeightGrad::Add { before + value } else { value };
            if let Some(dbeta) = dbeta.as_deref_mut() {
                dbeta[c] = added(dbeta[c], sum);
            }
            if let Some(dgamma) = dgamma.as_deref_mut() {
                dgamma[c] = added(dgamma[c], product);
            }
            if let Some(dx) = dx.as_deref_mut() {
                // dx = gamma / deviation (dy - w / Σw (Σ dy + n Σ dy n)).
                let factor = gamma.map_or(E::one(), |gamma| gamma[c]) * inverse;
                for row in 0..rows {
                    let share = if total == E::zero() { E::zero() } else { weight(row) / total };
                    dx[row * columns + c] = factor * (slope(row) - share * (sum + normal(row) * product));
                }
            }
        }
        Ok(())
    }

    fn mask_not_equal(&self, columns: usize, x: &[E], value: f64, mask: &mut [E]) -> Result<()> {
        let rows = dense::rows("x", x.len(), columns)?;
        check_len("mask", &[rows], mask.len())?;
        let value = E::of(value);
        for (mask, x) in mask.iter_mut().zip(x.chunks_exact(columns)) {
            *mask = if x.iter().any(|x| *x != value) { E::one() } else { E::zero() };
        }
        Ok(())
    }

    fn mask_order(&self, steps: usize, reverse: bool, mask: &[E], order: MaskOrder<'_, B>) -> Result<()> {
        let MaskOrder { rows, inverse, hold, lengths, any } = order;
        let parts = [("rows", rows.len()), ("inverse", inverse.len()), ("hold", hold.len())];
        let batch = check::order(steps, mask.len(), parts, [("lengths", lengths.len()), ("any", any.len())])?;
        for b in 0..batch {
            let first = b * steps;
            let mut count = 0;
            for t in first..first + steps {
                inverse[t] = NO_ROW;
                if mask[t] != E::zero() {
                    rows[first + count] = t as u32;
                    inverse[t] = (first + count) as u32;
                    count += 1;
                }
            }
            rows[first + count..first + steps].fill(NO_ROW);
            let mut last = NO_ROW;
            for step in 0..steps {
                let t = first + if reverse { steps - 1 - step } else { step };
                if inverse[t] != NO_ROW {
                    last = inverse[t];
                }
                hold[t] = last;
            }
            lengths[b] = count.max(1) as u32;
            any[b] = if count > 0 { E::one() } else { E::zero() };
        }
        Ok(())
    }

    fn pick_rows(&self, width: usize, from: &[E], rows: &[u32], out: &mut [E]) -> Result<()> {
        let count = dense::gather(width, from.len(), rows.len(), out.len())?;
        for (i, (row, to)) in rows.iter().zip(out.chunks_exact_mut(width)).enumerate() {
            match *row {
                NO_ROW => to.fill(E::zero()),
                row if (row as usize) < count => to.copy_from_slice(&from[row as usize * width..][..width]),
                row => return Err(Error::option(format!("rows[{i}]"), format!("below the {count} rows"), row)),
            }
        }
        Ok(())
    }

    fn hold_gradient(&self, steps: usize, width: usize, hold: &[u32], dy: &[E], dx: &mut [E]) -> Result<()> {
        let batch = dense::rows("hold", hold.len(), steps)?;
        check_len("dy", &[batch, steps, width], dy.len())?;
        check_len("dx", &[batch, steps, width], dx.len())?;
        dx.fill(E::zero());
        for (i, (row, dy)) in hold.iter().zip(dy.chunks_exact(width)).enumerate() {
            if *row == NO_ROW {
                continue;
            }
            let Some(to) = dx.get_mut(*row as usize * width..(*row as usize + 1) * width) else {
                return Err(Error::option(format!("hold[{i}]"), format!("below the {} rows", batch * steps), row));
            };
            to.iter_mut().zip(dy).for_each(|(to, from)| *to += *from);
        }
        Ok(())
    }

    fn indices(&self, rows: usize, x: &[E], out: &mut [u32], _: u32, _: &mut [f64]) -> Result<()> {
        dense::same(x.len(), &[("out", Some(out.len()))])?;
        for (i, (x, out)) in x.iter().zip(out).enumerate() {
            let value = x.wide();
            if !(value >= 0.0 && value < rows as f64 && value.fract() == 0.0) {
                return Err(Error::option(format!("element {i}"), format!("a whole number below {rows}"), value));
            }
            *out = value as u32;
        }
        Ok(())
    }
}
