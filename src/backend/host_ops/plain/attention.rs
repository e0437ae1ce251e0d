//! Attention, query by query.

use super::rows;
use crate::backend::host_ops::{HostAttention, HostAttentionGradients};
use crate::backend::ops::AttentionShape;
use crate::dtype::Scalar;

/// Elements `[…, heads, width]` of a head at a row.
fn part<E>(x: &[E], heads: usize, width: usize, row: usize, head: usize) -> &[E] {
    &x[(row * heads + head) * width..][..width]
}

fn part_mut<E>(x: &mut [E], heads: usize, width: usize, row: usize, head: usize) -> &mut [E] {
    &mut x[(row * heads + head) * width..][..width]
}

fn dot<E: Scalar>(a: &[E], b: &[E]) -> E {
    a.iter().zip(b).map(|(a, b)| *a * *b).sum()
}

fn add<E: Scalar>(factor: E, x: &[E], to: &mut [E]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * *x);
}

impl<E: Scalar> HostAttention<'_, E> {
    /// Whether a query of a sample sees a key.
    fn sees(&self, sample: usize, query: usize, key: usize) -> bool {
        (!self.shape.causal || key <= query)
            && self.mask.is_none_or(|mask| mask[sample * self.shape.keys + key] != E::zero())
    }

    /// For every query of every head: its sample, its number among all queries, its head, and its weights of the keys.
    fn for_each(&self, mut with: impl FnMut(usize, usize, usize, &[E])) {
        let AttentionShape { batch, heads, queries, keys, key_dim, .. } = self.shape;
        let (mut scores, mut weights) = (vec![E::zero(); keys], vec![E::zero(); keys]);
        for row in 0..batch * queries {
            let sample = row / queries;
            for head in 0..heads {
                let query = part(self.query, heads, key_dim, row, head);
                for (j, score) in scores.iter_mut().enumerate() {
                    *score = E::of(self.alpha) * dot(query, part(self.key, heads, key_dim, sample * keys + j, head));
                }
                rows::softmax(keys, &scores, |_, j| self.sees(sample, row % queries, j), &mut weights);
                with(sample, row, head, &weights);
            }
        }
    }
}

/// See [`Operations::attention`](crate::backend::Operations::attention). It needs no statistics.
pub(crate) fn attention<E: Scalar>(of: HostAttention<'_, E>, y: &mut [E], statistics: &mut [E]) {
    let AttentionShape { heads, keys, value_dim, .. } = of.shape;
    y.fill(E::zero());
    statistics.fill(E::zero());
    of.for_each(|sample, row, head, weights| {
        let y = part_mut(y, heads, value_dim, row, head);
        for (j, weight) in weights.iter().enumerate() {
            add(*weight, part(of.value, heads, value_dim, sample * keys + j, head), y);
        }
    });
}

/// See [`Operations::attention_gradient`](crate::backend::Operations::attention_gradient). The weights are computed again.
pub(crate) fn attention_gradient<E: Scalar>(
    of: HostAttention<'_, E>,
    _y: &[E],
    _statistics: &[E],
    dy: &[E],
    mut to: HostAttentionGradients<'_, E>,
) {
    let AttentionShape { heads, keys, key_dim, value_dim, .. } = of.shape;
    for gradient in [&mut to.dquery, &mut to.dkey, &mut to.dvalue].into_iter().flatten() {
        gradient.fill(E::zero());
    }
    let (mut dweights, mut dscores) = (vec![E::zero(); keys], vec![E::zero(); keys]);
    of.for_each(|sample, row, head, weights| {
        let dy = part(dy, heads, value_dim, row, head);
        for (j, d) in dweights.iter_mut().enumerate() {
            *d = dot(dy, part(of.value, heads, value_dim, sample * keys + j, head));
        }
        rows::softmax_gradient(keys, weights, &dweights, &mut dscores);
        for (j, (weight, d)) in weights.iter().zip(&dscores).enumerate() {
            let (at, d) = (sample * keys + j, E::of(of.alpha) * *d);
            if let Some(dquery) = &mut to.dquery {
                add(d, part(of.key, heads, key_dim, at, head), part_mut(dquery, heads, key_dim, row, head));
            }
            if let Some(dkey) = &mut to.dkey {
                add(d, part(of.query, heads, key_dim, row, head), part_mut(dkey, heads, key_dim, at, head));
            }
            if let Some(dvalue) = &mut to.dvalue {
                add(*weight, dy, part_mut(dvalue, heads, value_dim, at, head));
            }
        }
    });
}
