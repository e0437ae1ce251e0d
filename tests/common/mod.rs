//! Random problems for every backend's tests: a [`Recipe`] says what operator and which tensors, a [`Problem`] adds the
//! numbers. Both follow from a seed alone, so a failure is reported as one line and repeated with `FUSED_RNN_SEED`.
#![allow(dead_code, reason = "each test binary uses its own part")]

#[cfg(feature = "model")]
pub mod cases;
#[cfg(feature = "model")]
pub mod damage;
pub mod effort;
#[cfg(feature = "cuda")]
pub mod gpu;
#[cfg(feature = "cuda")]
pub mod primitives;
#[cfg(feature = "ptx")]
pub mod ptx;
pub mod run;
#[cfg(feature = "model")]
pub mod tensors;
pub mod truth;

use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(feature = "model")]
use fused_rnn::Device;
use fused_rnn::backend::pass::{Inputs, OutputGradients};
use fused_rnn::cell::{Activation, Activations, CellKind, CellOption};
use fused_rnn::rnn::{
    Bias, Direction, ForgetGate, GruReset, InputKind, Layout, Memory, PaddedOutput, RnnDescriptor, RnnShape,
    WeightKind, WeightLayout,
};
use fused_rnn::{DType, Element};

/// SplitMix64 ([Steele et al. 2014](https://doi.org/10.1145/2660193.2660195)): any seed is a good one.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In `low..high`, rounded to `f32`, so that all precisions see the same number.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        f64::from((low + (high - low) * self.unit()) as f32)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn vector(&mut self, len: usize, bound: f64) -> Vec<f64> {
        (0..len).map(|_| self.uniform(-bound, bound)).collect()
    }
}

/// The CPU, in a type of element.
#[cfg(feature = "model")]
pub fn cpu(dtype: DType) -> Device {
    Device::cpu().with_dtype(dtype).expect("a type that the CPU computes in")
}

/// The oracle, in a type of element.
#[cfg(feature = "model")]
pub fn reference(dtype: DType) -> Device {
    Device::reference().with_dtype(dtype).expect("a type that the oracle computes in")
}

/// What tests need of an element type.
pub trait Number: Element {
    fn nan() -> Self {
        Self::of(f64::NAN)
    }

    fn zero() -> Self {
        Self::of(0.0)
    }

    fn one() -> Self {
        Self::of(1.0)
    }

    fn is_nan(self) -> bool {
        self.wide().is_nan()
    }

    fn plus(self, other: Self) -> Self {
        Self::of(self.wide() + other.wide())
    }
}

impl<E: Element> Number for E {}

/// An operator, its sizes, and which of the optional tensors there are.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub seed: u64,
    /// Numbers are drawn so that this type has them.
    pub drawn_in: DType,
    pub descriptor: RnnDescriptor,
    pub shape: RnnShape,
    pub lengths: bool,
    pub resets: bool,
    pub h0: bool,
    pub c0: bool,
    pub dy: bool,
    pub dhn: bool,
    pub dcn: bool,
    /// Factor of all weights, lowered for operators whose state would grow without bound.
    pub gain: f64,
}

/// A recipe and its numbers.
#[derive(Clone, Debug)]
pub struct Problem {
    pub recipe: Recipe,
    pub descriptor: RnnDescriptor,
    pub shape: RnnShape,
    pub inputs: Inputs<f64>,
    pub output_gradients: OutputGradients<f64>,
}

/// One, primes, tile edges of every register and cache blocking in use, and their neighbours.
const FEATURES: [usize; 19] = [1, 1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65];
const BATCHES: [usize; 16] = [1, 1, 1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 65];

/// Whether the value is bounded, so that a recurrence cannot grow through it.
fn is_bounded(activation: Activation) -> bool {
    matches!(
        activation,
        Activation::Tanh
            | Activation::Sigmoid
            | Activation::HardSigmoid { .. }
            | Activation::Softsign
            | Activation::ScaledTanh { .. }
    )
}

/// Whether the derivative jumps somewhere: rounding may then put two precisions on two sides.
fn is_kinked(activation: Activation) -> bool {
    matches!(
        activation,
        Activation::Relu
            | Activation::HardSigmoid { .. }
            | Activation::Elu { .. }
            | Activation::Selu
            | Activation::LeakyRelu { .. }
            | Activation::ThresholdedRelu { .. }
    )
}

/// Any activation, with constants of its own.
pub fn random_activation(rng: &mut Rng) -> Activation {
    match rng.pick(&Activation::ALL) {
        Activation::HardSigmoid { .. } => rng.pick(&[
            Activation::ONNX_HARD_SIGMOID,
            Activation::KERAS_HARD_SIGMOID,
            Activation::HardSigmoid { alpha: 0.3, beta: 0.4 },
        ]),
        Activation::Elu { .. } => Activation::Elu { alpha: rng.uniform(0.3, 1.5) },
        Activation::LeakyRelu { .. } => Activation::LeakyRelu { alpha: rng.uniform(0.01, 0.5) },
        Activation::ThresholdedRelu { .. } => Activation::ThresholdedRelu { alpha: rng.uniform(0.05, 0.8) },
        Activation::ScaledTanh { .. } => {
            Activation::ScaledTanh { alpha: rng.uniform(0.5, 1.7), beta: rng.uniform(0.3, 1.2) }
        }
        Activation::Affine { .. } => Activation::Affine { alpha: rng.uniform(0.2, 0.9), beta: rng.uniform(-0.3, 0.3) },
        other => other,
    }
}

fn random_activations(rng: &mut Rng) -> Activations {
    let mut set = Activations::default();
    if rng.chance(0.6) {
        set.gate = random_activation(rng);
    }
    if rng.chance(0.6) {
        set.state = random_activation(rng);
    }
    if rng.chance(0.6) {
        set.output = random_activation(rng);
    }
    set
}

impl Recipe {
    /// The activation functions that take part.
    fn used_activations(&self) -> Vec<Activation> {
        let d = &self.descriptor;
        (0..d.num_directions())
            .flat_map(|direction| {
                let set = d.activations_of(direction);
                let used = d.cell.spec().functions;
                [(used.gate, set.gate), (used.state, set.state), (used.output, set.output)]
                    .into_iter()
                    .filter_map(|(used, function)| used.then_some(function))
            })
            .collect()
    }

    /// Whether some derivative of the operator jumps.
    pub fn is_kinked(&self) -> bool {
        let d = &self.descriptor;
        d.gate_clip.is_some()
            || d.cell_clip.is_some()
            || self.used_activations().into_iter().any(is_kinked)
            || (self.dcn && self.has_a_maximum())
    }

    /// Whether a state is a maximum: the output does not depend on which side of it is the larger, but that state does.
    fn has_a_maximum(&self) -> bool {
        self.descriptor.cell == CellKind::Slstm
    }

    fn is_bounded(&self) -> bool {
        self.used_activations().into_iter().all(is_bounded)
    }

    /// Pre-activations of all layers and steps.
    fn pre_activations(&self) -> usize {
        let d = &self.descriptor;
        d.num_layers * d.num_directions() * self.shape.seq_len * self.shape.batch * d.hidden_size * d.cell.gates()
    }

    /// Multiply-adds of a forward pass.
    fn work(&self) -> usize {
        let d = &self.descriptor;
        let of_gates = d.input == InputKind::Gates;
        let input = |layer: usize| if of_gates { 0 } else { d.layer_input_size(layer) };
        let inputs: usize = (0..d.num_layers).map(|layer| input(layer) + d.output_size()).sum();
        self.shape.seq_len * self.shape.batch * d.num_directions() * d.cell.gates() * d.hidden_size * inputs
    }

    /// Any operator, any sizes: everything that a descriptor can say.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
        let rng = &mut rng;
        let cell = rng.pick(&CellKind::ALL);
        let mut d = RnnDescriptor::new(cell, 1, 1);
        d.num_layers = rng.pick(&[1, 1, 1, 2, 2, 3]);
        d.direction = rng.pick(&[Direction::Forward, Direction::Reverse, Direction::Bidirectional]);
        d.bias = rng.pick(&[Bias::None, Bias::Single, Bias::Double, Bias::Double]);
        d.layout = rng.pick(&[Layout::SequenceMajor, Layout::BatchMajor]);
        // Half of the problems keep the usual functions: those have paths of their own in fast backends.
        if rng.chance(0.5) {
            d.activations = random_activations(rng);
        }
        if cell == CellKind::Rnn && rng.chance(0.3) {
            d.activations.state = Activation::Relu;
        }
        if d.direction == Direction::Bidirectional && rng.chance(0.25) {
            d.reverse_activations = Some(random_activations(rng));
        }
        if rng.chance(0.4) {
            d.dropout = rng.pick(&[0.1, 0.25, 0.5, 0.9, 1.0]);
        }
        let mut with_projection = false;
        for option in CellOption::ALL.into_iter().filter(|option| cell.has(*option)) {
            match option {
                CellOption::Projection => with_projection = rng.chance(0.3),
                CellOption::Peepholes => d.peepholes = rng.chance(0.3),
                CellOption::CoupledInputForget => d.coupled_input_forget = rng.chance(0.25),
                CellOption::CellClip => d.cell_clip = rng.chance(0.2).then(|| rng.uniform(0.1, 0.8)),
                CellOption::Reset => d.reset = rng.pick(&[GruReset::After, GruReset::Before]),
                CellOption::ForgetGate => d.forget_gate = rng.pick(&[ForgetGate::Sigmoid, ForgetGate::Exponential]),
            }
        }
        let (with_heads, of_gates) = (rng.chance(0.25), rng.chance(0.2));
        d.gate_clip = rng.chance(0.2).then(|| rng.uniform(0.3, 1.5));
        d.padded_output = rng.pick(&[PaddedOutput::Zero, PaddedOutput::Zero, PaddedOutput::Hold]);
        let mut recipe = Recipe {
            seed,
            drawn_in: DType::F32,
            descriptor: d,
            shape: RnnShape { seq_len: 1, batch: 1 },
            lengths: rng.chance(0.4),
            resets: rng.chance(0.3),
            h0: rng.chance(0.6),
            c0: rng.chance(0.6),
            dy: rng.chance(0.9),
            dhn: rng.chance(0.6),
            dcn: rng.chance(0.6),
            gain: 1.0,
        };
        // With a kink every pre-activation has a chance of lying on it, and states that nothing bounds grow with T.
        let (most_work, most_pre_activations) = if recipe.is_kinked() { (400_000, 3_000) } else { (1_000_000, 80_000) };
        let longest = if recipe.is_bounded() { 20 } else { 6 };
        loop {
            recipe.shape.seq_len = 1 + rng.below(longest);
            recipe.shape.batch = rng.pick(&BATCHES);
            recipe.descriptor.input_size = rng.pick(&FEATURES);
            recipe.descriptor.hidden_size = rng.pick(&FEATURES);
            let hidden = recipe.descriptor.hidden_size;
            recipe.descriptor.proj_size = (with_projection && hidden > 1).then(|| 1 + rng.below(hidden - 1));
            recipe.descriptor.heads = 1;
            if with_heads && recipe.descriptor.proj_size.is_none() {
                // Few, as many as there are units, or any.
                let divisors: Vec<usize> = (1..=hidden).filter(|heads| hidden.is_multiple_of(*heads)).collect();
                let any = rng.pick(&divisors);
                recipe.descriptor.heads = rng.pick(&[divisors[divisors.len() / 2], hidden, any]);
            }
            recipe.descriptor.input = InputKind::Features;
            if of_gates {
                recipe.descriptor.input = InputKind::Gates;
                recipe = recipe.fitted();
            }
            if recipe.work() <= most_work && recipe.pre_activations() <= most_pre_activations {
                break;
            }
        }
        if !recipe.is_bounded() {
            recipe.gain = 0.5;
        }
        // From numbers of its own, so that the other problems stay what they are.
        let mut rng = Rng::new(seed ^ 0x5e60_e475);
        if rng.chance(0.3) {
            let every = 1 + rng.below(recipe.shape.seq_len);
            recipe.descriptor.memory =
                if rng.chance(0.5) { Memory::Checkpoints { every } } else { Memory::Light { every } };
        }
        recipe
    }

    /// Makes the problem one that can be judged in `dtype`. With 16 bits that is one without kinks, since rounding crosses them in
    /// every problem, and with few steps, lest rounding errors grow to the size of the results.
    pub fn judged_in(mut self, dtype: DType) -> Self {
        if matches!(dtype, DType::F16 | DType::Bf16) {
            self.drawn_in = dtype;
            self.shape.seq_len = self.shape.seq_len.min(6);
            self.descriptor.num_layers = self.descriptor.num_layers.min(2);
            self.dcn &= !self.has_a_maximum();
            if self.is_kinked() || !self.is_bounded() {
                (self.descriptor.gate_clip, self.descriptor.cell_clip) = (None, None);
                self.descriptor.activations = Activations::default();
                self.descriptor.reverse_activations = None;
                self.gain = 1.0;
            }
        }
        self
    }

    /// Makes the rest fit after a change: gates are as many as the other sizes say.
    pub fn fitted(mut self) -> Self {
        if self.descriptor.input == InputKind::Gates {
            self.descriptor.num_layers = 1;
            self.descriptor = self.descriptor.of_gates();
        }
        self
    }

    /// Draws the numbers.
    pub fn problem(&self) -> Problem {
        let mut rng = Rng::new(self.seed ^ 0x00c0_ffee);
        let rng = &mut rng;
        let (d, shape) = (&self.descriptor, self.shape);
        let layout = WeightLayout::new(d).expect("a valid recipe");
        let tensors = shape.tensors(d).expect("a valid recipe");
        let len = |sizes: &[usize]| sizes.iter().product::<usize>();
        let mut weights = Vec::with_capacity(layout.len());
        for entry in layout.entries() {
            // Pre-activations of about one: into the bend of every activation, far from saturation.
            let fan_in = *entry.shape.last().expect("weights have axes") as f64;
            let bound = match entry.kind {
                WeightKind::InputHidden => 2.0 / fan_in.sqrt(),
                WeightKind::HiddenHidden | WeightKind::Projection => 1.6 / fan_in.sqrt(),
                _ => 0.6,
            };
            weights.extend(rng.vector(entry.range.len(), self.gain * bound));
        }
        let x = rng.vector(len(&tensors.x), 1.5);
        let h0 = rng.vector(len(&tensors.h), 0.8);
        let mut c0 = rng.vector(len(&tensors.c), 0.8);
        // States that are above zero.
        let spec = d.cell.spec();
        for (block, values) in c0.chunks_mut(d.hidden_size).enumerate() {
            if spec.positive.contains(&spec.states[1 + block % d.cell.other_states()]) {
                values.iter_mut().for_each(|v| *v = f64::from((v.abs() + 0.5) as f32));
            }
        }
        let mut lengths: Vec<u32> = (0..shape.batch).map(|_| 1 + rng.below(shape.seq_len) as u32).collect();
        // Some data at the last step, as users have it, but not always: a fully padded end is a case as well.
        if rng.chance(0.7) {
            lengths[rng.below(shape.batch)] = shape.seq_len as u32;
        }
        let resets = (0..len(&tensors.resets)).map(|_| if rng.chance(0.2) { 1 + rng.below(255) as u8 } else { 0 });
        let resets = resets.collect();
        let dy = rng.vector(len(&tensors.y), 1.0);
        let dhn = rng.vector(len(&tensors.h), 1.0);
        let dcn = rng.vector(len(&tensors.c), 1.0);
        let has_c = d.cell.has_cell_state();
        let round = |value: f64| match self.drawn_in {
            DType::F16 => half::f16::of(value).wide(),
            DType::Bf16 => half::bf16::of(value).wide(),
            _ => value,
        };
        let rounded = |values: Vec<f64>| values.into_iter().map(round).collect::<Vec<_>>();
        let [weights, x, h0, c0, dy, dhn, dcn] = [weights, x, h0, c0, dy, dhn, dcn].map(rounded);
        Problem {
            recipe: self.clone(),
            descriptor: d.clone(),
            shape,
            inputs: Inputs {
                weights,
                x,
                h0: self.h0.then_some(h0),
                c0: (self.c0 && has_c).then_some(c0),
                lengths: self.lengths.then_some(lengths),
                resets: self.resets.then_some(resets),
                dropout_seed: self.seed,
            },
            output_gradients: OutputGradients {
                dy: self.dy.then_some(dy),
                dhn: self.dhn.then_some(dhn),
                dcn: (self.dcn && has_c).then_some(dcn),
            },
        }
    }

    /// Recipes one step simpler than this one.
    fn simpler(&self) -> Vec<Recipe> {
        let mut all = Vec::new();
        let mut offer = |change: &dyn Fn(&mut Recipe)| {
            let mut recipe = self.clone();
            change(&mut recipe);
            let recipe = recipe.fitted();
            if format!("{recipe:?}") != format!("{self:?}") && recipe.descriptor.validate().is_ok() {
                all.push(recipe);
            }
        };
        let plain = RnnDescriptor::new(self.descriptor.cell, 1, 1);
        for divisor in [4, 2] {
            offer(&|r| r.shape.seq_len = r.shape.seq_len.div_ceil(divisor));
            offer(&|r| r.shape.batch = r.shape.batch.div_ceil(divisor));
            offer(&|r| r.descriptor.input_size = r.descriptor.input_size.div_ceil(divisor));
            offer(&|r| {
                r.descriptor.hidden_size = r.descriptor.hidden_size.div_ceil(divisor);
                r.descriptor.proj_size = r.descriptor.proj_size.map(|p| p.div_ceil(divisor));
            });
            offer(&|r| r.descriptor.heads = r.descriptor.heads.div_ceil(divisor));
        }
        offer(&|r| r.shape.seq_len -= usize::from(r.shape.seq_len > 1));
        offer(&|r| r.shape.batch -= usize::from(r.shape.batch > 1));
        offer(&|r| r.descriptor.input_size -= usize::from(r.descriptor.input_size > 1));
        offer(&|r| r.descriptor.hidden_size -= usize::from(r.descriptor.hidden_size > 1));
        offer(&|r| r.descriptor.num_layers -= usize::from(r.descriptor.num_layers > 1));
        offer(&|r| {
            r.descriptor.direction = Direction::Forward;
            r.descriptor.reverse_activations = None;
        });
        if self.descriptor.direction == Direction::Bidirectional {
            offer(&|r| {
                r.descriptor.direction = Direction::Reverse;
                r.descriptor.reverse_activations = None;
            });
        }
        offer(&|r| r.descriptor.reverse_activations = None);
        offer(&|r| r.descriptor.activations = Activations::default());
        offer(&|r| r.descriptor.bias = Bias::None);
        offer(&|r| r.descriptor.layout = Layout::SequenceMajor);
        offer(&|r| r.descriptor.reset = plain.reset);
        offer(&|r| r.descriptor.forget_gate = plain.forget_gate);
        offer(&|r| r.descriptor.heads = 1);
        offer(&|r| (r.descriptor.input, r.descriptor.input_size) = (InputKind::Features, 1));
        offer(&|r| r.descriptor.dropout = 0.0);
        offer(&|r| r.descriptor.proj_size = None);
        offer(&|r| r.descriptor.peepholes = false);
        offer(&|r| r.descriptor.coupled_input_forget = false);
        offer(&|r| r.descriptor.gate_clip = None);
        offer(&|r| r.descriptor.cell_clip = None);
        offer(&|r| r.descriptor.padded_output = PaddedOutput::Zero);
        offer(&|r| r.descriptor.memory = Memory::Full);
        offer(&|r| r.lengths = false);
        offer(&|r| r.resets = false);
        offer(&|r| r.h0 = false);
        offer(&|r| r.c0 = false);
        offer(&|r| r.dy = false);
        offer(&|r| r.dhn = false);
        offer(&|r| r.dcn = false);
        all
    }
}

impl Problem {
    /// The inputs in another precision.
    pub fn inputs<E: Element>(&self) -> Inputs<E> {
        let i = &self.inputs;
        Inputs {
            weights: convert(&i.weights),
            x: convert(&i.x),
            h0: i.h0.as_deref().map(convert),
            c0: i.c0.as_deref().map(convert),
            lengths: i.lengths.clone(),
            resets: i.resets.clone(),
            dropout_seed: i.dropout_seed,
        }
    }

    /// The gradients of the outputs in another precision.
    pub fn output_gradients<E: Element>(&self) -> OutputGradients<E> {
        let g = &self.output_gradients;
        OutputGradients {
            dy: g.dy.as_deref().map(convert),
            dhn: g.dhn.as_deref().map(convert),
            dcn: g.dcn.as_deref().map(convert),
        }
    }

    /// Valid steps of sequence `b`.
    pub fn length(&self, b: usize) -> usize {
        self.inputs.lengths.as_ref().map_or(self.shape.seq_len, |lengths| lengths[b] as usize)
    }

    /// Row of `x` or `y` that holds step `t` of sequence `b`.
    pub fn row(&self, t: usize, b: usize) -> usize {
        match self.descriptor.layout {
            Layout::SequenceMajor => t * self.shape.batch + b,
            Layout::BatchMajor => b * self.shape.seq_len + t,
        }
    }
}

pub fn convert<E: Element>(values: &[f64]) -> Vec<E> {
    values.iter().map(|v| E::of(*v)).collect()
}

/// Outcome of a property: what is wrong.
pub type Verdict = Result<(), String>;

fn judge(recipe: &Recipe, property: &dyn Fn(&Problem) -> Verdict) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| property(&recipe.problem()))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

/// Checks a property on `count` random problems, their recipes first changed by `adapt` to what the property is about.
/// A failure is simplified as far as it stays one, and reported with the seed that repeats it:
/// `FUSED_RNN_SEED=17 cargo test --test operator cpu_f32::agrees`. `FUSED_RNN_CASES=10` draws ten times as many problems.
pub fn for_random_problems<E: Element>(
    count: u64,
    adapt: impl Fn(&mut Recipe),
    property: impl Fn(&Problem) -> Verdict,
) {
    let adapt = |recipe: &mut Recipe| {
        adapt(recipe);
        effort::limit(recipe);
        *recipe = recipe.clone().judged_in(E::DTYPE).fitted();
    };
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a whole number"));
    let seeds = match number("FUSED_RNN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..effort::problems(count) * number("FUSED_RNN_CASES").unwrap_or(1),
    };
    for seed in seeds {
        let mut recipe = Recipe::random(seed);
        adapt(&mut recipe);
        let Err(mut problem) = judge(&recipe, &property) else { continue };
        let first = format!("{problem}\n  of {recipe:?}");
        // Adapting again keeps simplified recipes within what the property is about.
        'simplify: for _ in 0..200 {
            for mut candidate in recipe.simpler() {
                adapt(&mut candidate);
                if format!("{candidate:?}") == format!("{recipe:?}") {
                    continue;
                }
                if let Err(still) = judge(&candidate, &property) {
                    (recipe, problem) = (candidate, still);
                    continue 'simplify;
                }
            }
            break;
        }
        panic!("FUSED_RNN_SEED={seed}: {first}\nsimplified: {problem}\n  of {recipe:?}");
    }
}
