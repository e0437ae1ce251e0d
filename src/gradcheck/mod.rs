//! Checks of gradients by finite differences, in `f64`: of a backend's operator, of whole models ([`model()`]), and of custom cells
//! ([`cell()`]).
//!
//! [`GradCheck`] says which operator, sizes and optional tensors; [`GradCheck::run`] draws a problem from a seed, asks the
//! backend for the gradients of
//!
//! ```text
//! L = sum(y * dy) + sum(hn * dhn) + sum(cn * dcn)
//! ```
//!
//! and compares every element of them with a difference quotient of the same backend's training forward (so that dropout
//! is in it, with the same masks on both sides).
//!
//! # The difference quotient
//!
//! With `D(s) = L(v + s) - L(v)`, summed over the outputs' differences so that nothing cancels between large sums, and
//! `c(s) = (D(s) - D(-s)) / 2s`, the estimate is the central one of sixth order, from `h`, `2h` and `4h`:
//!
//! ```text
//! e(s)  = (4 c(s) - c(2s)) / 3
//! slope = (16 e(h) - e(2h)) / 15
//! ```
//!
//! It means nothing where `L` has a kink within `4h` of `v` (relu, hard sigmoid, clips, …). Two quantities vanish with `h` as
//! fast as the estimate's error where `L` is smooth, and stay as large as the kink where it is not: `e(h) - e(2h)`; and the jump
//! of the slope at `v` itself, from the second differences `q(s) = (D(s) + D(-s)) / s` and `j(s) = 2 q(s) - q(2s)` as
//! `(8 j(h) - j(2h)) / 7`. The larger of the two is an element's *roughness*: a single kink or jump, wherever it is, makes an
//! error of less than 1.2 times the roughness. As long as that is above [`SMOOTH`] of the tensor's scale, `h` is divided by eight,
//! from 2^-9 down to 2^-21. If it is still above then, the whole problem is drawn again, which the report counts; if that does not
//! help either, the report counts the elements and does not pass.
#![expect(
    clippy::indexing_slicing,
    reason = "of buffers and gradients made here for one problem, and of quotients as many as are compared"
)]

#[cfg(feature = "model")]
mod model;

#[cfg(feature = "model")]
pub use model::{ModelReport, cell, model};

use crate::backend::pass::{self, InputGradients, Inputs, OutputGradients, Outputs};
use crate::backend::{ForwardArgs, ForwardMode, HostBackend, Reserve};
use crate::error::{Error, Result};
use crate::rnn::dropout::philox4x32;
use crate::rnn::{RnnDescriptor, RnnShape, TensorShapes, WeightKind, WeightLayout};

/// Roughness, relative to the tensor's scale, up to which a difference quotient counts as smooth.
pub const SMOOTH: f64 = 2e-7;
/// What of the largest gradient of all tensors a tensor's scale is at least: differences resolve nothing below.
const FLOOR: f64 = 1e-4;
/// Values of `h`, tried one after the other.
const STEPS: [f64; 5] = [1.0 / 512.0, 1.0 / 4096.0, 1.0 / 32_768.0, 1.0 / 262_144.0, 1.0 / 2_097_152.0];
/// Problems drawn before giving up on finding one without a kink.
const MAX_DRAWS: usize = 16;
/// Elements to perturb, and elements of the reserve, beyond which a check is refused.
const MAX_ELEMENTS: usize = 1 << 26;

/// The lengths of the sequences of a drawn problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SequenceLengths {
    /// No lengths are given: all sequences have `seq_len` steps.
    #[default]
    Full,
    /// Drawn from `1..=seq_len`.
    Random,
    /// These.
    Given(Vec<u32>),
}

/// Which of the tensors that may be absent a drawn problem has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalTensors {
    /// Initial output state. Its gradient is checked in any case; where it is absent, at zero.
    pub h0: bool,
    /// Initial states beside h, of cells that have such. Its gradient is checked in any case.
    pub c0: bool,
    /// Lengths of the sequences.
    pub lengths: SequenceLengths,
    /// Resets, at about a quarter of all steps.
    pub resets: bool,
    /// Gradient of `y`.
    pub dy: bool,
    /// Gradient of `hn`.
    pub dhn: bool,
    /// Gradient of `cn`; of no effect where the cell has none.
    pub dcn: bool,
}

impl Default for OptionalTensors {
    /// Initial states and all gradients, but neither lengths nor resets.
    fn default() -> Self {
        OptionalTensors {
            h0: true,
            c0: true,
            lengths: SequenceLengths::Full,
            resets: false,
            dy: true,
            dhn: true,
            dcn: true,
        }
    }
}

/// What to check.
#[derive(Clone, Debug, PartialEq)]
pub struct GradCheck {
    /// The operator.
    pub descriptor: RnnDescriptor,
    /// Its sizes.
    pub shape: RnnShape,
    /// The tensors it gets.
    pub optional: OptionalTensors,
    /// Seed of all random values, the dropout masks among them.
    pub seed: u64,
}

/// What a check found for one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// `x`, `h0`, `c0`, or the weight's name.
    pub name: String,
    /// Number of elements, all of them compared.
    pub elements: usize,
    /// The largest `|analytic - numeric|` over the tensor's scale: the largest magnitude of its numeric gradient, but at least 1e-4
    /// of the largest of all tensors. Infinite if some analytic value is not a number.
    pub worst_relative_error: f64,
    /// Flat index of the element that has it.
    pub worst_index: usize,
    /// The backend's gradient there.
    pub analytic: f64,
    /// The difference quotient there.
    pub numeric: f64,
    /// The largest magnitude of the numeric gradient. Where it is zero, nothing depends on the tensor.
    pub largest: f64,
    /// Elements for which there is no difference quotient, because of a kink. They are compared all the same.
    pub kinks: usize,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct GradReport {
    /// Each differentiated tensor: `x`, `h0`, `c0` where the cell has it, and the weights in their order.
    pub tensors: Vec<TensorReport>,
    /// How many problems were drawn and thrown away because of a kink, before the one reported.
    pub redraws: usize,
}

impl GradReport {
    /// The tensor with the largest error.
    pub fn worst(&self) -> Option<&TensorReport> {
        self.tensors.iter().max_by(|a, b| a.worst_relative_error.total_cmp(&b.worst_relative_error))
    }

    /// Whether every element of every tensor could be checked and none is off by more than `tolerance`.
    pub fn passes(&self, tolerance: f64) -> bool {
        self.tensors.iter().all(|t| t.kinks == 0 && t.worst_relative_error <= tolerance)
    }
}

impl GradCheck {
    /// A check of `descriptor` with the tensors of [`OptionalTensors::default`].
    pub fn new(descriptor: RnnDescriptor, seq_len: usize, batch: usize) -> Self {
        GradCheck { descriptor, shape: RnnShape { seq_len, batch }, optional: OptionalTensors::default(), seed: 0 }
    }

    /// Draws the problem's tensors. `draw` counts the problems of one seed.
    ///
    /// Weights are uniform with a variance of one over the row's length, other values uniform in -1..1, `x` in -1.5..1.5: small
    /// enough that nothing saturates, large enough that clips of about one act on some elements and not on others. States that are
    /// above zero are 0.5 to 1.5.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`], [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes and options that no operator has, or a problem
    /// too large to be checked by finite differences.
    pub fn draw(&self, draw: u32) -> Result<(Inputs<f64>, OutputGradients<f64>)> {
        let tensors = self.shape.tensors(&self.descriptor)?;
        let layout = WeightLayout::new(&self.descriptor)?;
        self.check_size(&tensors, &layout)?;
        let mut random = Random::new(self.seed, draw);
        let has_cell_state = self.descriptor.cell.has_cell_state();

        let mut weights = Vec::with_capacity(layout.len());
        for entry in layout.entries() {
            let scale = match entry.kind {
                WeightKind::InputHidden | WeightKind::HiddenHidden | WeightKind::Projection => {
                    (3.0 / entry.shape.last().copied().unwrap_or(1) as f64).sqrt()
                }
                WeightKind::InputBias | WeightKind::HiddenBias | WeightKind::Peephole => 0.5,
            };
            weights.extend(random.uniform(entry.range.len(), scale));
        }
        let x = random.uniform(len(&tensors.x), 1.5);
        let h0 = random.uniform(len(&tensors.h), 1.0);
        let mut c0 = random.uniform(len(&tensors.c), 1.0);
        self.make_positive(&mut c0);
        let lengths = match &self.optional.lengths {
            SequenceLengths::Full => None,
            SequenceLengths::Given(lengths) => Some(lengths.clone()),
            SequenceLengths::Random => {
                Some((0..self.shape.batch).map(|_| 1 + random.below(self.shape.seq_len)).collect())
            }
        };
        // Any value but zero is a reset.
        let resets = (0..len(&tensors.resets))
            .map(|_| if random.below(4) == 0 { 1 + random.below(255) as u8 } else { 0 })
            .collect();
        let dropout_seed = u64::from(random.bits()) << 32 | u64::from(random.bits());
        let inputs = Inputs {
            weights,
            x,
            h0: self.optional.h0.then_some(h0),
            c0: (self.optional.c0 && has_cell_state).then_some(c0),
            lengths,
            resets: self.optional.resets.then_some(resets),
            dropout_seed,
        };
        let gradients = OutputGradients {
            dy: self.optional.dy.then(|| random.uniform(len(&tensors.y), 1.0)),
            dhn: self.optional.dhn.then(|| random.uniform(len(&tensors.h), 1.0)),
            dcn: (self.optional.dcn && has_cell_state).then(|| random.uniform(len(&tensors.c), 1.0)),
        };
        Ok((inputs, gradients))
    }

    /// Moves states that are above zero there.
    fn make_positive(&self, c: &mut [f64]) {
        let spec = self.descriptor.cell.spec();
        for (block, values) in c.chunks_mut(self.descriptor.hidden_size).enumerate() {
            if spec.positive.contains(&spec.states[1 + block % self.descriptor.cell.other_states()]) {
                values.iter_mut().for_each(|v| *v = v.abs() + 0.5);
            }
        }
    }

    /// Checks `backend`.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`], [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes and options that no operator has, or a problem
    /// too large; [`Error::Unsupported`] where the backend cannot do it or memory is short; [`Error::NonFinite`] if an output is not
    /// finite, so that there is nothing to differentiate.
    pub fn run<B: HostBackend<f64>>(&self, backend: &B) -> Result<GradReport> {
        let mut redraws = 0;
        loop {
            let report = self.run_draw(backend, redraws)?;
            if redraws + 1 == MAX_DRAWS || report.tensors.iter().all(|t| t.kinks == 0) {
                return Ok(report);
            }
            redraws += 1;
        }
    }

    fn run_draw<B: HostBackend<f64>>(&self, backend: &B, draw: usize) -> Result<GradReport> {
        let (inputs, gradients) = self.draw(draw as u32)?;
        let (_, analytic) = pass::train(backend, &self.descriptor, self.shape, &inputs, &gradients)?;
        let mut differences = Differences::new(self, backend, inputs, &gradients)?;

        let mut tensors = Vec::new();
        for (at, analytic) in self.tensors(&analytic)? {
            let mut quotients = Vec::with_capacity(analytic.len());
            for index in 0..analytic.len() {
                quotients.push(differences.quotient(at.buffer, at.start + index, STEPS[0])?);
            }
            tensors.push((at, analytic, quotients));
        }

        // Scales for judging roughness: of the quotients that are smooth by themselves, and of the analytic gradient.
        let scale_of = |analytic: &[f64], quotients: &[Quotient]| {
            let smooth = quotients.iter().filter(|q| q.roughness <= 1e-4 * q.slope.abs()).map(|q| q.slope);
            largest(analytic.iter().copied().chain(smooth))
        };
        let largest_scale = largest(tensors.iter().map(|(_, analytic, quotients)| scale_of(analytic, quotients)));
        for (at, analytic, quotients) in &mut tensors {
            let limit = SMOOTH * scale_of(analytic, quotients).max(FLOOR * largest_scale);
            for (index, quotient) in quotients.iter_mut().enumerate() {
                for step in &STEPS[1..] {
                    if quotient.roughness <= limit {
                        break;
                    }
                    let finer = differences.quotient(at.buffer, at.start + index, *step)?;
                    if finer.roughness < quotient.roughness {
                        *quotient = finer;
                    }
                }
                quotient.is_kink = quotient.roughness > limit;
            }
        }

        let largest_slope = largest(tensors.iter().map(|(_, _, quotients)| slopes(quotients)));
        let tensors = tensors
            .iter()
            .map(|(at, analytic, quotients)| {
                let scale = slopes(quotients).max(FLOOR * largest_slope).max(f64::MIN_POSITIVE);
                compare(&at.name, analytic, quotients, scale)
            })
            .collect();
        Ok(GradReport { tensors, redraws: draw })
    }

    /// The differentiated tensors and their analytic gradients.
    fn tensors<'g>(&self, gradients: &'g InputGradients<f64>) -> Result<Vec<(TensorAt, &'g [f64])>> {
        let whole = |name: &str, buffer| TensorAt { name: name.to_owned(), buffer, start: 0 };
        let mut tensors =
            vec![(whole("x", Buffer::X), gradients.dx.as_slice()), (whole("h0", Buffer::H0), gradients.dh0.as_slice())];
        if let Some(dc0) = &gradients.dc0 {
            tensors.push((whole("c0", Buffer::C0), dc0));
        }
        for entry in WeightLayout::new(&self.descriptor)?.entries() {
            let at = TensorAt { name: entry.name.clone(), buffer: Buffer::Weights, start: entry.range.start };
            tensors.push((at, &gradients.dweights[entry.range.clone()]));
        }
        Ok(tensors)
    }

    fn check_size(&self, tensors: &TensorShapes, layout: &WeightLayout) -> Result<()> {
        let steps = self.shape.seq_len.saturating_mul(self.shape.batch);
        let units = self.descriptor.hidden_size.saturating_mul(self.descriptor.num_layers);
        for (what, elements) in [
            ("x", len(&tensors.x)),
            ("y", len(&tensors.y)),
            ("the weights", layout.len()),
            ("the reserve", steps.saturating_mul(units).saturating_mul(32)),
        ] {
            if elements > MAX_ELEMENTS {
                return Err(Error::option(
                    "sizes",
                    format!(
                        "at most {MAX_ELEMENTS} elements of {what}, since every one costs six forward passes or more"
                    ),
                    elements,
                ));
            }
        }
        Ok(())
    }
}

fn len(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The largest finite magnitude, or zero.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).filter(|v| v.is_finite()).fold(0.0, f64::max)
}

/// The largest slope.
fn slopes(quotients: &[Quotient]) -> f64 {
    largest(quotients.iter().map(|q| q.slope))
}

fn compare(name: &str, analytic: &[f64], quotients: &[Quotient], scale: f64) -> TensorReport {
    let error_of = |index: usize| {
        let error = (analytic[index] - quotients[index].slope).abs() / scale;
        if error.is_nan() { f64::INFINITY } else { error }
    };
    let worst_index = (0..analytic.len()).max_by(|a, b| error_of(*a).total_cmp(&error_of(*b))).unwrap_or(0);
    TensorReport {
        name: name.to_owned(),
        elements: analytic.len(),
        worst_relative_error: error_of(worst_index),
        worst_index,
        analytic: analytic[worst_index],
        numeric: quotients[worst_index].slope,
        largest: slopes(quotients),
        kinks: quotients.iter().filter(|q| q.is_kink).count(),
    }
}

/// Where a tensor stands.
#[derive(Clone, Copy)]
enum Buffer {
    X,
    H0,
    C0,
    Weights,
}

/// A tensor, by its name and where it is.
struct TensorAt {
    name: String,
    buffer: Buffer,
    /// Where it starts in its buffer.
    start: usize,
}

/// A difference quotient.
struct Quotient {
    slope: f64,
    roughness: f64,
    is_kink: bool,
}

impl Quotient {
    /// From `change(s) = L(v + s) - L(v)`; see the [module](self).
    fn new(h: f64, mut change: impl FnMut(f64) -> Result<f64>) -> Result<Self> {
        let mut central = [0.0; 3];
        let mut second = [0.0; 3];
        for (k, step) in [h, 2.0 * h, 4.0 * h].into_iter().enumerate() {
            let (right, left) = (change(step)?, change(-step)?);
            central[k] = (right - left) / (2.0 * step);
            second[k] = (right + left) / step;
        }
        let estimate = |k: usize| (4.0 * central[k] - central[k + 1]) / 3.0;
        let jump = |k: usize| 2.0 * second[k] - second[k + 1];
        let roughness = (estimate(0) - estimate(1)).abs().max(((8.0 * jump(0) - jump(1)) / 7.0).abs());
        // Beside a finite loss there may be one that is not.
        let roughness = if roughness.is_nan() { f64::INFINITY } else { roughness };
        let slope = (16.0 * estimate(0) - estimate(1)) / 15.0;
        Ok(Quotient { slope, roughness, is_kink: false })
    }
}

/// Evaluates the loss beside a point.
struct Differences<'a, B: HostBackend<f64>> {
    backend: &'a B,
    plan: B::Plan,
    inputs: Inputs<f64>,
    gradients: &'a OutputGradients<f64>,
    base: Outputs<f64>,
    outputs: Outputs<f64>,
    workspace: Vec<f64>,
    reserve: Vec<f64>,
}

impl<'a, B: HostBackend<f64>> Differences<'a, B> {
    fn new(
        check: &GradCheck,
        backend: &'a B,
        mut inputs: Inputs<f64>,
        gradients: &'a OutputGradients<f64>,
    ) -> Result<Self> {
        let tensors = check.shape.tensors(&check.descriptor)?;
        let plan = backend.plan(&check.descriptor, check.shape, ForwardMode::Training)?;
        let space = backend.temp_space(&plan);
        let has_cell_state = check.descriptor.cell.has_cell_state();
        // Absent states are zeros; here they must be there to be perturbed.
        inputs.h0.get_or_insert_with(|| vec![0.0; len(&tensors.h)]);
        if has_cell_state {
            inputs.c0.get_or_insert_with(|| vec![0.0; len(&tensors.c)]);
        }
        let outputs = Outputs {
            y: vec![f64::NAN; len(&tensors.y)],
            hn: vec![f64::NAN; len(&tensors.h)],
            cn: has_cell_state.then(|| vec![f64::NAN; len(&tensors.c)]),
        };
        let mut differences = Differences {
            backend,
            plan,
            inputs,
            gradients,
            base: outputs.clone(),
            outputs,
            workspace: vec![f64::NAN; space.workspace],
            reserve: vec![f64::NAN; space.reserve],
        };
        differences.forward()?;
        differences.base = differences.outputs.clone();
        for (tensor, values) in
            [("y", Some(&differences.base.y)), ("hn", Some(&differences.base.hn)), ("cn", differences.base.cn.as_ref())]
        {
            let values = values.map_or(&[][..], |v| v);
            if let Some(position) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::NonFinite {
                    tensor: tensor.to_owned(),
                    got: values[position],
                    position: format!("element {position}"),
                    help: "the operator itself overflows with these options; use fewer steps or layers".to_owned(),
                });
            }
        }
        Ok(differences)
    }

    fn forward(&mut self) -> Result<()> {
        let args = ForwardArgs::<B> {
            weights: &self.inputs.weights,
            x: &self.inputs.x,
            h0: self.inputs.h0.as_deref(),
            c0: self.inputs.c0.as_deref(),
            lengths: self.inputs.lengths.as_deref(),
            resets: self.inputs.resets.as_deref(),
            y: &mut self.outputs.y,
            hn: Some(&mut self.outputs.hn),
            cn: self.outputs.cn.as_deref_mut(),
            workspace: &mut self.workspace,
            dropout_seed: self.inputs.dropout_seed,
        };
        let reserve = Reserve::new(self.reserve.as_mut_slice());
        self.backend.forward_training(&self.plan, args, reserve).map(|_| ())
    }

    /// `L(v + step) - L(v)` for one element `v`.
    fn loss_change(&mut self, buffer: Buffer, index: usize, step: f64) -> Result<f64> {
        let value = *self.element(buffer, index);
        *self.element(buffer, index) = value + step;
        let outcome = self.forward();
        *self.element(buffer, index) = value;
        outcome?;
        let (new, base) = (&self.outputs, &self.base);
        Ok(weighted_change(self.gradients.dy.as_deref(), &new.y, &base.y)
            + weighted_change(self.gradients.dhn.as_deref(), &new.hn, &base.hn)
            + match (&new.cn, &base.cn) {
                (Some(new), Some(base)) => weighted_change(self.gradients.dcn.as_deref(), new, base),
                _ => 0.0,
            })
    }

    fn element(&mut self, buffer: Buffer, index: usize) -> &mut f64 {
        let values = match buffer {
            Buffer::X => &mut self.inputs.x,
            Buffer::H0 => self.inputs.h0.get_or_insert_default(),
            Buffer::C0 => self.inputs.c0.get_or_insert_default(),
            Buffer::Weights => &mut self.inputs.weights,
        };
        &mut values[index]
    }

    fn quotient(&mut self, buffer: Buffer, index: usize, h: f64) -> Result<Quotient> {
        Quotient::new(h, |step| self.loss_change(buffer, index, step))
    }
}

/// `sum((new - base) * gradient)`, zero for an absent gradient.
fn weighted_change(gradient: Option<&[f64]>, new: &[f64], base: &[f64]) -> f64 {
    let Some(gradient) = gradient else { return 0.0 };
    (0..gradient.len()).map(|k| (new[k] - base[k]) * gradient[k]).sum()
}

/// Random numbers from Philox, the generator that the crate has.
struct Random {
    seed: u64,
    draw: u32,
    block: u32,
    bits: Vec<u32>,
}

impl Random {
    fn new(seed: u64, draw: u32) -> Self {
        Random { seed, draw, block: 0, bits: Vec::new() }
    }

    fn bits(&mut self) -> u32 {
        if self.bits.is_empty() {
            self.bits.extend(philox4x32([self.block, self.draw, 0, 0], self.seed));
            self.block += 1;
        }
        self.bits.pop().unwrap_or_default()
    }

    /// `0..bound`
    fn below(&mut self, bound: usize) -> u32 {
        ((u64::from(self.bits()) * bound as u64) >> 32) as u32
    }

    /// Values of `-scale..scale`, none of them zero.
    fn uniform(&mut self, len: usize, scale: f64) -> Vec<f64> {
        (0..len).map(|_| scale * ((f64::from(self.bits()) + 0.5) / 2_147_483_648.0 - 1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quotient at zero of a function that is zero there.
    fn quotient(h: f64, f: impl Fn(f64) -> f64) -> Quotient {
        Quotient::new(h, |s| Ok(f(s))).unwrap()
    }

    #[test]
    fn smooth_functions() {
        for (f, slope) in [(f64::sin as fn(f64) -> f64, 1.0), (f64::exp_m1, 1.0), (|s| (1.0 + s).powi(7) - 1.0, 7.0)] {
            let q = quotient(STEPS[0], f);
            assert!((q.slope - slope).abs() < 1e-12, "{}", q.slope);
            assert!(q.roughness < 1e-7, "{}", q.roughness);
        }
    }

    /// What the module promises of kinks: jumps of the function, of its slope and of its second and third derivatives.
    #[test]
    fn error_at_a_kink_is_below_roughness() {
        for power in 0..=3 {
            for k in -5000..5000 {
                let at = (f64::from(k) + 0.5) / 1000.0;
                let f = |s: f64| if s > at { (s - at).powi(power) } else { 0.0 };
                let slope = if at < 0.0 && power > 0 { f64::from(power) * (-at).powi(power - 1) } else { 0.0 };
                let q = quotient(1.0, |s| f(s) - f(0.0));
                assert!((q.slope - slope).abs() <= 1.2 * q.roughness + 1e-9, "power {power} at {at}");
            }
        }
    }

    #[test]
    fn not_finite_is_rough() {
        for f in [|s: f64| 1.0 / (s - 1.0).max(0.0), |_| f64::NAN] {
            assert_eq!(quotient(1.0, f).roughness, f64::INFINITY);
        }
    }

    #[test]
    fn random_numbers() {
        let values = Random::new(3, 0).uniform(100_000, 2.0);
        let mean = values.iter().sum::<f64>() / 1e5;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 4.0 / 3.0).abs() < 0.02, "{mean} {variance}");
        assert!(values.iter().all(|v| v.abs() < 2.0 && *v != 0.0));
        assert_ne!(values, Random::new(3, 1).uniform(100_000, 2.0));
        assert_ne!(values, Random::new(4, 0).uniform(100_000, 2.0));
    }
}
