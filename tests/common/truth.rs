//! What a problem's results are, and how far from them a result may be.
//!
//! # The tolerance
//!
//! Nothing is tuned. In the precision under test, two things say how large honest rounding errors are, both measured on the
//! very problem and tensor by tensor, and of each the largest of several samples is taken:
//!
//! - how far the oracle run in `f32` is from the oracle run in `f64`: a naive implementation's own error. One sample would often be zero by luck in a
//!   small tensor; so it is also measured on neighbours of the problem, whose inputs differ in the last place.
//! - how far the oracle's results move when every input and weight moves by half a unit in its last `f32` place: the error that
//!   even exact arithmetic on rounded inputs has (the problem's condition).
//!
//! On average over all tensors of all problems a backend's error may be [`AVERAGE`] times the larger of both: it sums in another
//! order, and has less precise functions. In no tensor may it be more than [`FACTOR`] times that, which is [`AVERAGE`] times what
//! functions with errors of 2.5 units in the last place (a vectorised exp or tanh; each backend states and tests its own bound) make of an error where the naive
//! implementation's functions, within one unit, are all there is; plus [`FLOOR`] units in the last place of the tensor's largest magnitude,
//! for the rounding and storing of results. In `f64` it is the same, scaled by the ratio of the precisions; since the oracle
//! has that precision as well, its own error is allowed for once more.
//!
//! # Kinks
//!
//! Where a derivative jumps (relu, clips, …), rounding can put two precisions on two sides, and gradients then differ by far more than
//! rounding errors, in every implementation. Such problems are recognised, not tolerated: moving the inputs by 16 times as much
//! must move the results by 16 times as much; if it moves them by more than twice that, a jump lies near, and other numbers
//! are drawn. The suite prints how often, and fails if it is often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use fused_rnn::backend::pass::{self, InputGradients, Inputs, Outputs};
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::rnn::{RnnDescriptor, WeightLayout};
use fused_rnn::{DType, Element, Scalar};

use super::{Problem, Recipe, Rng, Verdict};

/// Times a naive implementation's error in the same precision that a backend's may be, on average over all tensors.
pub const AVERAGE: f64 = 2.0;
/// The same for any one tensor.
pub const FACTOR: f64 = 2.5 * AVERAGE;
/// Units in the last place of a tensor's largest magnitude that a backend may have on top.
pub const FLOOR: f64 = 4.0;

/// A tensor of results, by name; the weight gradients one by one, so that a small one does not hide behind a large one.
pub type Named<E> = Vec<(String, Vec<E>)>;

/// The results of a pass as named tensors.
pub fn named<E: Element>(
    descriptor: &RnnDescriptor,
    outputs: &Outputs<E>,
    gradients: Option<&InputGradients<E>>,
) -> Named<E> {
    let mut all = vec![("y".to_owned(), outputs.y.clone()), ("hn".to_owned(), outputs.hn.clone())];
    all.extend(outputs.cn.clone().map(|cn| ("cn".to_owned(), cn)));
    if let Some(gradients) = gradients {
        all.push(("dx".to_owned(), gradients.dx.clone()));
        all.push(("dh0".to_owned(), gradients.dh0.clone()));
        all.extend(gradients.dc0.clone().map(|dc0| ("dc0".to_owned(), dc0)));
        all.extend(split_weights(descriptor, &gradients.dweights));
    }
    all
}

/// The gradient of the weights as `dweight_ih_l0`, ….
pub fn split_weights<E: Element>(descriptor: &RnnDescriptor, flat: &[E]) -> Named<E> {
    let layout = WeightLayout::new(descriptor).expect("a valid descriptor");
    layout.entries().iter().map(|e| (format!("d{}", e.name), flat[e.range.clone()].to_vec())).collect()
}

fn train_named<E: Scalar>(problem: &Problem, inputs: &Inputs<E>) -> Named<E> {
    let backend = ReferenceBackend::<E>::new();
    let gradients = problem.output_gradients();
    let (outputs, gradients) = pass::train(&backend, &problem.descriptor, problem.shape, inputs, &gradients)
        .unwrap_or_else(|e| panic!("the oracle refuses {:?}: {e}", problem.recipe));
    named(&problem.descriptor, &outputs, Some(&gradients))
}

/// The `f64` oracle's results and the scale of honest errors.
pub struct Truth {
    tensors: HashMap<String, TrueTensor>,
    /// How often other numbers had to be drawn.
    redraws: u32,
}

struct TrueTensor {
    values: Vec<f64>,
    magnitude: f64,
    /// What `f32` arithmetic does to this tensor.
    error_f32: f64,
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, v| if v.is_nan() || v.abs() > most { v.abs() } else { most })
}

fn distance<A: Element, B: Element>(a: &[A], b: &[B]) -> f64 {
    assert_eq!(a.len(), b.len());
    largest(a.iter().zip(b).map(|(a, b)| a.wide() - b.wide()))
}

/// The inputs with every number moved by `relative` of itself, up or down as `seed` says.
fn perturbed(inputs: &Inputs<f64>, relative: f64, seed: u64) -> Inputs<f64> {
    let mut rng = Rng::new(seed);
    mapped(inputs, |value| value * (1.0 + if rng.bits() & 1 == 0 { relative } else { -relative }))
}

fn rounded_to_f32(inputs: Inputs<f64>) -> Inputs<f64> {
    mapped(&inputs, |value| f64::from(value as f32))
}

fn mapped(inputs: &Inputs<f64>, mut map: impl FnMut(f64) -> f64) -> Inputs<f64> {
    let mut mapped = inputs.clone();
    let states = mapped.h0.iter_mut().chain(mapped.c0.iter_mut());
    for tensor in [&mut mapped.weights, &mut mapped.x].into_iter().chain(states) {
        tensor.iter_mut().for_each(|value| *value = map(*value));
    }
    mapped
}

const HALF_ULP_F32: f64 = 1.0 / (1u64 << 24) as f64;
/// How many neighbours of a problem are looked at.
const DIRECTIONS: u64 = 6;

impl Truth {
    /// The truth about a problem with these very numbers; none if a kink is too near to tell.
    pub fn of(problem: &Problem) -> Option<Self> {
        let base = train_named::<f64>(problem, &problem.inputs);
        let moved = |a: &Named<f64>, b: &Named<f64>| -> Vec<f64> {
            a.iter().zip(b).map(|((_, a), (_, b))| distance(a, b)).collect()
        };
        let naive_error = |inputs: &Inputs<f64>, exact: &Named<f64>| -> Vec<f64> {
            let rounded = Problem { inputs: inputs.clone(), ..problem.clone() }.inputs::<f32>();
            let naive = train_named::<f32>(problem, &rounded);
            exact.iter().zip(&naive).map(|((_, a), (_, b))| distance(a, b)).collect()
        };
        let mut error = naive_error(&problem.inputs, &base);
        for seed in 0..DIRECTIONS {
            let near = moved(&base, &train_named::<f64>(problem, &perturbed(&problem.inputs, HALF_ULP_F32, seed)));
            if problem.recipe.is_kinked() {
                let far = perturbed(&problem.inputs, 16.0 * HALF_ULP_F32, seed);
                let far = moved(&base, &train_named::<f64>(problem, &far));
                for (index, (near, far)) in near.iter().zip(&far).enumerate() {
                    let rounding = 1e-12 * largest(base[index].1.iter().copied());
                    if *far > 32.0 * near + rounding || 16.0 * near > 2.0 * far + rounding {
                        return None;
                    }
                }
            }
            // Neighbouring inputs have the same results but for a little, and rounding errors of their own.
            let neighbour = rounded_to_f32(perturbed(&problem.inputs, 2.0 * HALF_ULP_F32, DIRECTIONS + seed));
            let naive = naive_error(&neighbour, &train_named::<f64>(problem, &neighbour));
            for (error, sample) in error.iter_mut().zip(near.into_iter().zip(naive)) {
                *error = error.max(sample.0).max(sample.1);
            }
        }
        let tensors = base
            .into_iter()
            .zip(error)
            .map(|((name, values), error_f32)| {
                let magnitude = largest(values.iter().copied());
                (name, TrueTensor { values, magnitude, error_f32 })
            })
            .collect();
        Some(Truth { tensors, redraws: 0 })
    }

    /// Whether numbers are so large, or errors grow so much, that comparing says little.
    fn is_wild(&self, dtype: DType) -> bool {
        // In 16 bits, an error of an eighth still tells a result from another one.
        let limit = if dtype == DType::F32 { 1e-3 } else { 0.125 * f64::from(f32::EPSILON) / dtype.epsilon() };
        self.tensors.values().any(|t| !(t.magnitude < 1e4 && t.error_f32 <= limit * t.magnitude.max(1e-3)))
    }

    /// How far a tensor of type `E` may be from the truth.
    pub fn tolerance<E: Element>(&self, name: &str) -> f64 {
        let tensor = &self.tensors[name];
        let epsilon = E::DTYPE.epsilon();
        let factor = if E::DTYPE == DType::F64 { FACTOR + 1.0 } else { FACTOR };
        let scale = epsilon / f64::from(f32::EPSILON);
        factor * tensor.error_f32 * scale + FLOOR * epsilon * tensor.magnitude
    }

    /// A tensor's largest magnitude.
    pub fn magnitude(&self, name: &str) -> f64 {
        self.tensors[name].magnitude
    }

    /// The true values of a tensor.
    pub fn values(&self, name: &str) -> &[f64] {
        &self.tensors[name].values
    }

    /// Judges a tensor that should equal `truth`, with the tolerance of tensor `name`: for results whose elements
    /// stand elsewhere than in the problem itself.
    pub fn judge_as<E: Element>(&self, name: &str, truth: &[f64], got: &[E]) -> Verdict {
        if truth.len() != got.len() {
            return Err(format!("{name}: expected {} elements, got {}", truth.len(), got.len()));
        }
        let tolerance = self.tolerance::<E>(name);
        let worst = (0..got.len())
            .map(|i| (i, (got[i].wide() - truth[i]).abs()))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, error)| error.is_nan() || *error > tolerance);
        match worst {
            None => Ok(()),
            Some((i, error)) => Err(format!(
                "{name}[{i}] of {}: expected {}, got {}, error {error:.3e} but tolerance {tolerance:.3e}",
                got.len(),
                truth[i],
                got[i],
            )),
        }
    }

    /// Judges one of the problem's own tensors.
    pub fn judge<E: Element>(&self, name: &str, got: &[E]) -> Verdict {
        self.judge_as(name, self.values(name), got)
    }

    /// Judges all tensors given.
    pub fn judge_all<E: Element>(&self, results: &Named<E>) -> Verdict {
        results.iter().try_for_each(|(name, got)| self.judge(name, got))
    }

    /// The largest error as a multiple of what a naive implementation has, for averages; none where that has none.
    pub fn ratio<E: Element>(&self, name: &str, got: &[E]) -> Option<f64> {
        let naive = self.tensors[name].error_f32 * E::DTYPE.epsilon() / f64::from(f32::EPSILON);
        (naive > 0.0).then(|| distance(self.values(name), got) / naive)
    }

    /// How often other numbers had to be drawn to get away from kinks or runaway states.
    pub fn redraws(&self) -> u32 {
        self.redraws
    }
}

/// A problem of this recipe away from kinks and runaway states, and the truth about it.
fn settle(recipe: &Recipe) -> (Problem, Truth) {
    let mut recipe = recipe.clone();
    for redraws in 0..40 {
        let problem = recipe.problem();
        match Truth::of(&problem) {
            Some(truth) if !truth.is_wild(recipe.drawn_in) => return (problem, Truth { redraws, ..truth }),
            Some(_) => recipe.gain *= 0.7,
            None => recipe.seed = recipe.seed.wrapping_add(1 << 32),
        }
    }
    panic!("no numbers away from kinks found for {recipe:?}")
}

/// As [`settle`], once for all backends.
pub fn settled(recipe: &Recipe) -> Arc<(Problem, Truth)> {
    type Known = HashMap<String, Arc<OnceLock<Arc<(Problem, Truth)>>>>;
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    let key = format!("{recipe:?}");
    let cell =
        KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner()).entry(key).or_default().clone();
    cell.get_or_init(|| Arc::new(settle(recipe))).clone()
}
