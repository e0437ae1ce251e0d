//! Learning rates by step: [`Schedule`].

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A learning rate that is a function of the steps done so far: Keras's
/// [schedules](https://keras.io/api/optimizers/learning_rate_schedules/), whose equations and names these are. `t` is the number of steps
/// done before the one that uses the rate; see [`Model::schedule`](crate::model::Model::schedule).
///
/// ```
/// use fused_rnn::optim::Schedule;
/// let warm = Schedule::cosine(0.0, 1000, 0.0)?.warm_up(0.01, 100)?;
/// assert_eq!((warm.rate(0), warm.rate(50), warm.rate(100)), (0.0, 0.005, 0.01));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// `initial_learning_rate decay_rate^(t / decay_steps)`
    ExponentialDecay {
        /// Rate of the first step.
        initial_learning_rate: f64,
        /// Steps in which the rate decays by `decay_rate`.
        decay_steps: u64,
        /// See there.
        decay_rate: f64,
        /// Whether the quotient is rounded down.
        staircase: bool,
    },
    /// `initial_learning_rate / (1 + decay_rate t / decay_steps)`
    InverseTimeDecay {
        /// Rate of the first step.
        initial_learning_rate: f64,
        /// Steps in which the divisor grows by `decay_rate`.
        decay_steps: u64,
        /// See there.
        decay_rate: f64,
        /// Whether the quotient is rounded down.
        staircase: bool,
    },
    /// `(initial_learning_rate - end_learning_rate) (1 - t / decay_steps)^power + end_learning_rate`, where t is no more than
    /// `decay_steps`; or with `cycle` `decay_steps` is so many times itself that it is no less than t.
    PolynomialDecay {
        /// Rate of the first step.
        initial_learning_rate: f64,
        /// Steps until the end.
        decay_steps: u64,
        /// Rate at the end.
        end_learning_rate: f64,
        /// 1 for a straight line.
        power: f64,
        /// Whether it starts again and again.
        cycle: bool,
    },
    /// From `initial_learning_rate`, or with a target from `warmup_target`, down to `alpha` times that by half a cosine of
    /// `decay_steps`; before, with a target, `warmup_steps` on a straight line from `initial_learning_rate` to it
    /// ([Loshchilov and Hutter 2017](https://arxiv.org/abs/1608.03983)).
    CosineDecay {
        /// Rate of the first step.
        initial_learning_rate: f64,
        /// Steps of the cosine.
        decay_steps: u64,
        /// What is left of the rate in the end.
        alpha: f64,
        /// Rate at the end of the warm-up, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warmup_target: Option<f64>,
        /// Steps of the warm-up.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// Half cosines one after the other, each `t_mul` times as long as the one before and from `m_mul` times as high, down to `alpha`.
    CosineDecayRestarts {
        /// Rate of the first step.
        initial_learning_rate: f64,
        /// Steps of the first cosine.
        first_decay_steps: u64,
        /// How much longer the next one is.
        t_mul: f64,
        /// How much higher the next one starts.
        m_mul: f64,
        /// What is left of the initial rate in the end of each.
        alpha: f64,
    },
    /// `values[i]` for the first i whose `boundaries[i]` is no less than t, else the last.
    PiecewiseConstantDecay {
        /// Steps after which the rate changes, rising.
        boundaries: Vec<u64>,
        /// Rates, one more than boundaries.
        values: Vec<f64>,
    },
}

impl Schedule {
    /// [`ExponentialDecay`](Self::ExponentialDecay).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for numbers that are not finite or below zero; [`Error::ZeroSize`] for no steps.
    pub fn exponential(initial_learning_rate: f64, decay_steps: u64, decay_rate: f64) -> Result<Self> {
        Schedule::ExponentialDecay { initial_learning_rate, decay_steps, decay_rate, staircase: false }.validated()
    }

    /// The same in steps: the quotient `t / decay_steps` is rounded down, Keras's `staircase=True`.
    ///
    /// ```
    /// use fused_rnn::optim::Schedule;
    /// let halved = Schedule::exponential(0.1, 1000, 0.5)?.staircase()?;
    /// assert_eq!((halved.rate(999), halved.rate(1000)), (0.1, 0.05));
    /// # Ok::<(), fused_rnn::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a schedule that is neither an exponential nor an inverse-time decay.
    pub fn staircase(mut self) -> Result<Self> {
        match &mut self {
            Schedule::ExponentialDecay { staircase, .. } | Schedule::InverseTimeDecay { staircase, .. } => {
                *staircase = true;
                Ok(self)
            }
            other => {
                Err(Error::option("staircase", "an ExponentialDecay or an InverseTimeDecay", format!("{other:?}")))
            }
        }
    }

    /// [`CosineDecay`](Self::CosineDecay) without a warm-up.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for numbers that are not finite or below zero; [`Error::ZeroSize`] for no steps.
    pub fn cosine(initial_learning_rate: f64, decay_steps: u64, alpha: f64) -> Result<Self> {
        let (warmup_target, warmup_steps) = (None, 0);
        Schedule::CosineDecay { initial_learning_rate, decay_steps, alpha, warmup_target, warmup_steps }.validated()
    }

    /// [`PiecewiseConstantDecay`](Self::PiecewiseConstantDecay).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for rates that are not finite or below zero, or boundaries that do not rise; [`Error::Shape`] for another
    /// number of rates than one more than boundaries.
    pub fn piecewise(boundaries: &[u64], values: &[f64]) -> Result<Self> {
        Schedule::PiecewiseConstantDecay { boundaries: boundaries.to_vec(), values: values.to_vec() }.validated()
    }

    /// A cosine with a warm-up of so many steps before it, which ends in `target`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for numbers that are not finite or below zero, or for a schedule that is no cosine; [`Error::ZeroSize`] for
    /// no steps.
    pub fn warm_up(self, target: f64, steps: u64) -> Result<Self> {
        match self {
            Schedule::CosineDecay { initial_learning_rate, decay_steps, alpha, .. } => {
                let (warmup_target, warmup_steps) = (Some(target), steps);
                Schedule::CosineDecay { initial_learning_rate, decay_steps, alpha, warmup_target, warmup_steps }
                    .validated()
            }
            other => Err(Error::option("warmup_steps", "a CosineDecay", format!("{other:?}"))),
        }
    }

    fn validated(self) -> Result<Self> {
        self.validate()?;
        Ok(self)
    }

    /// Refuses constants that make no rates.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for numbers that are not finite or below zero, a `t_mul` below 1, or boundaries that do not rise;
    /// [`Error::ZeroSize`] for no steps; [`Error::Shape`] for another number of rates than one more than boundaries.
    pub fn validate(&self) -> Result<()> {
        let numbers = |numbers: &[(&str, f64)]| {
            numbers.iter().try_for_each(|(name, value)| super::check_at_least_zero(name, *value))
        };
        let steps = |name: &'static str, steps: u64| if steps == 0 { Err(Error::ZeroSize { name }) } else { Ok(()) };
        match self {
            Schedule::ExponentialDecay { initial_learning_rate, decay_steps, decay_rate, .. }
            | Schedule::InverseTimeDecay { initial_learning_rate, decay_steps, decay_rate, .. } => {
                steps("decay_steps", *decay_steps)?;
                numbers(&[("initial_learning_rate", *initial_learning_rate), ("decay_rate", *decay_rate)])
            }
            Schedule::PolynomialDecay { initial_learning_rate, decay_steps, end_learning_rate, power, .. } => {
                steps("decay_steps", *decay_steps)?;
                let ends =
                    [("initial_learning_rate", *initial_learning_rate), ("end_learning_rate", *end_learning_rate)];
                numbers(&ends)?;
                numbers(&[("power", *power)])
            }
            Schedule::CosineDecay { initial_learning_rate, decay_steps, alpha, warmup_target, .. } => {
                steps("decay_steps", *decay_steps)?;
                numbers(&[("initial_learning_rate", *initial_learning_rate), ("alpha", *alpha)])?;
                numbers(&[("warmup_target", warmup_target.unwrap_or(0.0))])
            }
            Schedule::CosineDecayRestarts { initial_learning_rate, first_decay_steps, t_mul, m_mul, alpha } => {
                steps("first_decay_steps", *first_decay_steps)?;
                numbers(&[("initial_learning_rate", *initial_learning_rate), ("m_mul", *m_mul), ("alpha", *alpha)])?;
                if t_mul.is_finite() && *t_mul >= 1.0 {
                    return Ok(());
                }
                Err(Error::option("t_mul", "a finite number, 1 or above", t_mul))
            }
            Schedule::PiecewiseConstantDecay { boundaries, values } => {
                if values.len() != boundaries.len() + 1 {
                    return Err(Error::shape(
                        "values",
                        format!("{}, one more than boundaries", boundaries.len() + 1),
                        values.len().to_string(),
                    ));
                }
                if boundaries.array_windows().any(|[a, b]| a >= b) {
                    return Err(Error::option("boundaries", "steps that rise", format!("{boundaries:?}")));
                }
                values.iter().try_for_each(|value| super::check_at_least_zero("values", *value))
            }
        }
    }

    /// The rate of the step after `step` others.
    pub fn rate(&self, step: u64) -> f64 {
        let part = |steps: u64, staircase: bool| {
            let quotient = step as f64 / steps as f64;
            if staircase { quotient.floor() } else { quotient }
        };
        match self {
            Schedule::ExponentialDecay { initial_learning_rate, decay_steps, decay_rate, staircase } => {
                initial_learning_rate * decay_rate.powf(part(*decay_steps, *staircase))
            }
            Schedule::InverseTimeDecay { initial_learning_rate, decay_steps, decay_rate, staircase } => {
                initial_learning_rate / (1.0 + decay_rate * part(*decay_steps, *staircase))
            }
            Schedule::PolynomialDecay { initial_learning_rate, decay_steps, end_learning_rate, power, cycle } => {
                let times = if *cycle { part(*decay_steps, false).ceil().max(1.0) } else { 1.0 };
                let done = (part(*decay_steps, false) / times).min(1.0);
                (initial_learning_rate - end_learning_rate) * (1.0 - done).powf(*power) + end_learning_rate
            }
            Schedule::CosineDecay { initial_learning_rate, decay_steps, alpha, warmup_target, warmup_steps } => {
                let (from, after) = match warmup_target {
                    None => (*initial_learning_rate, step),
                    Some(target) if step < *warmup_steps => {
                        let rise = target - initial_learning_rate;
                        return initial_learning_rate + rise * (step as f64 / *warmup_steps as f64);
                    }
                    Some(target) => (*target, step - warmup_steps),
                };
                let done = (after as f64 / *decay_steps as f64).min(1.0);
                from * ((1.0 - alpha) * half_cosine(done) + alpha)
            }
            Schedule::CosineDecayRestarts { initial_learning_rate, first_decay_steps, t_mul, m_mul, alpha } => {
                // In cosines: how many are over, and how much of the present one.
                let passed = part(*first_decay_steps, false);
                let (restarts, done) = if *t_mul == 1.0 {
                    (passed.floor(), passed.fract())
                } else {
                    let restarts = ((1.0 - passed * (1.0 - t_mul)).ln() / t_mul.ln()).floor();
                    let before = (1.0 - t_mul.powf(restarts)) / (1.0 - t_mul);
                    (restarts, (passed - before) / t_mul.powf(restarts))
                };
                let height = m_mul.powf(restarts) * half_cosine(done);
                initial_learning_rate * ((1.0 - alpha) * height + alpha)
            }
            Schedule::PiecewiseConstantDecay { boundaries, values } => {
                let index = boundaries.iter().position(|boundary| step <= *boundary).unwrap_or(boundaries.len());
                values.get(index).copied().unwrap_or(0.0)
            }
        }
    }
}

/// From 1 to 0.
fn half_cosine(done: f64) -> f64 {
    0.5 * (1.0 + (PI * done).cos())
}
