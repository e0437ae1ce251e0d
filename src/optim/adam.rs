//! Adam.

use crate::backend::cpu::simd::{Isa, Kernel, Simd};
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::optim::Optimizer;

/// Adam ([Kingma and Ba 2015](https://arxiv.org/abs/1412.6980)) in [Keras's form](https://keras.io/api/optimizers/adam/) and with
/// its defaults. In step `t`, counted from 1, with `g` the gradient:
///
/// ```text
/// m = beta_1 m + (1 - beta_1) g
/// v = beta_2 v + (1 - beta_2) g²
/// w = w - learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)
/// ```
#[derive(Clone, Debug)]
pub struct Adam<E> {
    learning_rate: f64,
    beta_1: f64,
    beta_2: f64,
    epsilon: f64,
    step: u64,
    m: Vec<E>,
    v: Vec<E>,
}

impl<E: Scalar> Adam<E> {
    /// Keras's defaults: `beta_1` 0.9, `beta_2` 0.999, `epsilon` 1e-7.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        if !(learning_rate.is_finite() && learning_rate > 0.0) {
            return Err(Error::option("learning_rate", "a finite number above zero", learning_rate));
        }
        Ok(Adam { learning_rate, ..Self::default() })
    }
}

impl<E: Scalar> Default for Adam<E> {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        Adam { learning_rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, step: 0, m: Vec::new(), v: Vec::new() }
    }
}

impl<E: Scalar> Optimizer<E> for Adam<E> {
    fn update(&mut self, parameters: &mut [E], gradients: &[E]) {
        if self.m.len() != parameters.len() {
            self.m = vec![E::zero(); parameters.len()];
            self.v = vec![E::zero(); parameters.len()];
            self.step = 0;
        }
        self.step += 1;
        let t = self.step as f64;
        let step = Step {
            rate: E::of(self.learning_rate * (1.0 - self.beta_2.powf(t)).sqrt() / (1.0 - self.beta_1.powf(t))),
            keep: (E::of(self.beta_1), E::of(self.beta_2)),
            take: (E::of(1.0 - self.beta_1), E::of(1.0 - self.beta_2)),
            epsilon: E::of(self.epsilon),
            parameters,
            gradients,
            m: &mut self.m,
            v: &mut self.v,
        };
        Isa::detect().run(step);
    }
}

/// One update: plain loops, compiled for the widest vectors of the machine. No operation is fused, so the bits are the same on all.
struct Step<'a, E> {
    rate: E,
    keep: (E, E),
    take: (E, E),
    epsilon: E,
    parameters: &'a mut [E],
    gradients: &'a [E],
    m: &'a mut [E],
    v: &'a mut [E],
}

impl<E: Scalar> Kernel<E> for Step<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let Step { rate, keep, take, epsilon, parameters, gradients, m, v } = self;
        for ((w, g), (m, v)) in parameters.iter_mut().zip(gradients).zip(m.iter_mut().zip(v)) {
            *m = flush(keep.0 * *m + take.0 * *g);
            *v = flush(keep.1 * *v + take.1 * *g * *g);
            *w -= rate * *m / (v.sqrt() + epsilon);
        }
    }
}

/// Zero for denormal numbers: moments of a converged model decay into them, where arithmetic is many times slower.
#[inline(always)]
fn flush<E: Scalar>(value: E) -> E {
    if value.abs() < E::min_positive_value() { E::zero() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps on `w²/2 + 3w`, against the formula written out with Keras's bias correction.
    #[test]
    fn follows_the_formula() {
        let (mut w, mut m, mut v) = (0.5f64, 0.0, 0.0);
        let mut parameters = [0.5f64];
        let mut adam = Adam::new(0.01).unwrap();
        for t in 1..=3 {
            let g = w + 3.0;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            w -= 0.01 * m_hat / (v_hat.sqrt() + 1e-7 / (1.0 - 0.999f64.powi(t)).sqrt());
            let gradient = [parameters[0] + 3.0];
            adam.update(&mut parameters, &gradient);
            assert!((parameters[0] - w).abs() < 1e-15, "{t}: {} {w}", parameters[0]);
        }
    }

    #[test]
    fn the_first_step_is_the_learning_rate() {
        let mut parameters = [1.0f32, 1.0];
        Adam::default().update(&mut parameters, &[250.0, -0.03]);
        assert!((parameters[0] - 0.999).abs() < 1e-6 && (parameters[1] - 1.001).abs() < 1e-6, "{parameters:?}");
    }

    #[test]
    fn moments_do_not_stay_denormal() {
        let mut adam = Adam::<f32>::default();
        adam.update(&mut [0.0], &[1e-18]);
        for _ in 0..2000 {
            adam.update(&mut [0.0], &[0.0]);
        }
        assert_eq!((adam.m[0], adam.v[0]), (0.0, 0.0));
    }

    #[test]
    fn refuses_bad_learning_rates() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Adam::<f32>::new(rate).is_err());
        }
    }
}
