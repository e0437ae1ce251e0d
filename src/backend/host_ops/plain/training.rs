//! Losses, optimizers, norms of gradients.

use crate::backend::host_ops::HostLoss;
use crate::backend::ops::{
    AdagradStep, AdamStep, BAD_GRADIENT, BAD_LOSS, BAD_VALUE, LOSS, LossEntry, RmsPropStep, SgdStep, TOTAL,
};
use crate::dtype::{Scalar, least_magnitude};
use crate::error::Result;

/// See [`Operations::loss`](crate::backend::Operations::loss).
pub(crate) fn loss<E: Scalar>(of: HostLoss<'_, E>, entry: LossEntry, status: &mut [f64]) -> Result<()> {
    let HostLoss { loss, columns, targets, predictions, weights, gradient } = of;
    let value = match (weights, gradient) {
        (None, None) => loss.value(columns, targets, predictions)?,
        (Some(weights), None) => loss.weighted(columns, targets, predictions, weights, None)?,
        (weights, Some(gradient)) => {
            let value = match weights {
                None => loss.gradient(columns, targets, predictions, gradient)?,
                Some(weights) => loss.weighted(columns, targets, predictions, weights, Some(gradient))?,
            };
            let least = least_magnitude::<E>();
            gradient.iter_mut().for_each(|slope| *slope = cut(*slope, least));
            value
        }
    };
    note_loss(value, entry, status);
    Ok(())
}

/// Checks the targets where they are numbers of classes.
pub(crate) fn check_loss<E: Scalar>(of: &HostLoss<'_, E>) -> Result<()> {
    of.loss.check_classes(of.columns, of.targets)
}

/// Puts a loss into the status.
pub(crate) fn note_loss(value: f64, entry: LossEntry, status: &mut [f64]) {
    status[LOSS] = value;
    status[TOTAL] += value * entry.weight;
    if !value.is_finite() && status[BAD_LOSS] == 0.0 {
        status[BAD_LOSS] = f64::from(entry.code);
        status[BAD_VALUE] = value;
    }
}

/// Zero for magnitudes below `least`. A NaN stays.
#[inline(always)]
fn cut<E: Scalar>(value: E, least: E) -> E {
    if value.abs() < least { E::zero() } else { value }
}

/// Zero for denormal numbers: moments of a converged model decay into them, where arithmetic is many times slower.
#[inline(always)]
pub(crate) fn flush<E: Scalar>(value: E) -> E {
    cut(value, E::min_positive_value())
}

/// The smallest factor whose product with `constant` is no denormal number. A product that is one takes a hundred times as long as another,
/// even where it is then added to a large number, so that what is smaller is [cut] before it is multiplied.
#[inline(always)]
fn least_factor<E: Scalar>(constant: f64) -> E {
    E::of(E::min_positive_value().wide() / constant)
}

/// The same for a square.
#[inline(always)]
fn least_root<E: Scalar>(constant: f64) -> E {
    E::of((E::min_positive_value().wide() / constant).sqrt())
}

/// See [`Operations::adam`](crate::backend::Operations::adam).
#[inline(always)]
pub(crate) fn adam<E: Scalar>(step: AdamStep, parameters: &mut [E], gradients: &[E], m: &mut [E], v: &mut [E]) {
    let (rate, epsilon) = (E::of(step.rate), E::of(step.epsilon));
    let (keep_m, take_m) = (E::of(step.beta_1), E::of(1.0 - step.beta_1));
    let (keep_v, take_v) = (E::of(step.beta_2), E::of(1.0 - step.beta_2));
    // Without decay a multiplication by one, which changes no bit.
    let decayed = E::of(1.0 - step.decay);
    let (least_g, least_root) = (least_factor(1.0 - step.beta_1), least_root(1.0 - step.beta_2));
    let least_m = least_factor(step.rate);
    for ((w, g), (m, v)) in parameters.iter_mut().zip(gradients).zip(m.iter_mut().zip(v)) {
        // Both loads before both stores, and none after: where the tensors lie a multiple of 4 KiB apart but for a few lines, a load
        // would wait for the stores before it.
        let first = flush(keep_m * *m + take_m * cut(*g, least_g));
        let root = cut(*g, least_root);
        let second = flush(keep_v * *v + take_v * root * root);
        *w = decayed * *w - rate * cut(first, least_m) / (second.sqrt() + epsilon);
        *m = first;
        *v = second;
    }
}

/// See [`Operations::sgd`](crate::backend::Operations::sgd).
#[inline(always)]
pub(crate) fn sgd<E: Scalar>(step: SgdStep, parameters: &mut [E], gradients: &[E], velocity: Option<&mut [E]>) {
    let (rate, momentum) = (E::of(step.rate), E::of(step.momentum));
    let least = least_factor(step.rate);
    let Some(velocity) = velocity else {
        parameters.iter_mut().zip(gradients).for_each(|(w, g)| *w -= rate * cut(*g, least));
        return;
    };
    for ((w, g), v) in parameters.iter_mut().zip(gradients).zip(velocity) {
        let change = rate * cut(*g, least);
        *v = flush(momentum * *v - change);
        *w += if step.nesterov { momentum * *v - change } else { *v };
    }
}

/// See [`Operations::rmsprop`](crate::backend::Operations::rmsprop).
#[inline(always)]
pub(crate) fn rmsprop<E: Scalar>(
    step: RmsPropStep,
    parameters: &mut [E],
    gradients: &[E],
    mean_square: &mut [E],
    mut mean: Option<&mut [E]>,
    mut velocity: Option<&mut [E]>,
) {
    let (rate, momentum, epsilon) = (E::of(step.rate), E::of(step.momentum), E::of(step.epsilon));
    let (keep, take) = (E::of(step.rho), E::of(1.0 - step.rho));
    let (least, least_taken, least_root) =
        (least_factor(step.rate), least_factor(1.0 - step.rho), least_root(1.0 - step.rho));
    for (i, ((w, g), square)) in parameters.iter_mut().zip(gradients).zip(mean_square).enumerate() {
        let root = cut(*g, least_root);
        *square = flush(keep * *square + take * root * root);
        let mut variance = *square;
        if let Some(mean) = mean.as_deref_mut() {
            mean[i] = flush(keep * mean[i] + take * cut(*g, least_taken));
            variance -= mean[i] * mean[i];
        }
        let mut change = rate * cut(*g, least) / (variance + epsilon).sqrt();
        if let Some(velocity) = velocity.as_deref_mut() {
            change += momentum * velocity[i];
            velocity[i] = flush(change);
        }
        *w -= change;
    }
}

/// See [`Operations::adagrad`](crate::backend::Operations::adagrad).
#[inline(always)]
pub(crate) fn adagrad<E: Scalar>(step: AdagradStep, parameters: &mut [E], gradients: &[E], sums: &mut [E]) {
    let (rate, epsilon) = (E::of(step.rate), E::of(step.epsilon));
    let (least, least_root) = (least_factor(step.rate), least_root(1.0));
    for ((w, g), sum) in parameters.iter_mut().zip(gradients).zip(sums) {
        let root = cut(*g, least_root);
        *sum += root * root;
        *w -= rate * cut(*g, least) / (*sum + epsilon).sqrt();
    }
}

/// The sum of squares, in eight parts so that the compiler may use vectors; the order is fixed.
#[inline(always)]
pub(crate) fn sum_of_squares<E: Scalar>(x: &[E]) -> f64 {
    let mut sums = [0.0; 8];
    for chunk in x.chunks(8) {
        sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += v.wide() * v.wide());
    }
    sums.iter().sum()
}

/// What scales `x` to a norm of at most `most`; absent where it has that.
pub(crate) fn clipping_factor(most: f64, sum_of_squares: f64) -> Option<f64> {
    let norm = sum_of_squares.sqrt();
    // Not `norm > most`: a NaN shall make all of it NaN.
    if norm <= most { None } else { Some(most / norm) }
}

/// See [`Operations::clip_by_value`](crate::backend::Operations::clip_by_value).
pub(crate) fn clip_by_value<E: Scalar>(most: f64, x: &mut [E]) {
    let most = E::of(most);
    for v in x {
        if *v > most {
            *v = most;
        } else if *v < -most {
            *v = -most;
        }
    }
}

/// Notes the first value that is NaN or infinite; see [`Operations::check_finite`](crate::backend::Operations::check_finite).
pub(crate) fn check_finite<E: Scalar>(x: &[E], code: u32, status: &mut [f64]) {
    if let Some(value) = x.iter().find(|value| !value.is_finite())
        && status[BAD_GRADIENT] == 0.0
    {
        status[BAD_GRADIENT] = f64::from(code);
        if status[BAD_LOSS] == 0.0 {
            status[BAD_VALUE] = value.wide();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is cut, no bit of a step changes whose products are normal numbers.
    #[test]
    fn small_gradients_are_cut_and_no_others() {
        let adam_step = AdamStep { rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, decay: 0.0 };
        let sgd_step = SgdStep { rate: 0.01, momentum: 0.0, nesterov: false };
        let (keep_m, take_m, keep_v, take_v) = (0.9f32, (1.0 - 0.9f64) as f32, 0.999f32, (1.0 - 0.999f64) as f32);
        for power in -43..20 {
            for sign in [1.0, -1.0] {
                let g = sign * 1.37 * 10f64.powi(power) as f32;
                let (mut w, mut m, mut v) = ([0.3f32], [1e-9f32], [1e-9f32]);
                adam(adam_step, &mut w, &[g], &mut m, &mut v);
                let (first, second) = (keep_m * 1e-9 + take_m * g, keep_v * 1e-9 + take_v * g * g);
                assert_eq!((m, v), ([first], [second]), "{g}");
                assert_eq!(w, [1.0 * 0.3 - 1e-3 * first / (second.sqrt() + 1e-7)], "{g}");
                let mut w = [0.3f32];
                sgd(sgd_step, &mut w, &[g], None);
                assert_eq!(w, [0.3 - 0.01 * g], "{g}");
                // Beside nothing, what would be a denormal number is nothing.
                let mut w = [0.0f32];
                sgd(sgd_step, &mut w, &[g], None);
                assert!(w[0] == 0.0 || w[0].is_normal(), "{g}");
                let (mut w, mut m, mut v) = ([0.0f32], [0.0f32], [0.0f32]);
                adam(adam_step, &mut w, &[g], &mut m, &mut v);
                assert!([w[0], m[0], v[0]].iter().all(|value| *value == 0.0 || value.is_normal()), "{g}");
            }
        }
        let mut w = [0.3f32];
        sgd(sgd_step, &mut w, &[f32::NAN], None);
        assert!(w[0].is_nan());
    }
}
