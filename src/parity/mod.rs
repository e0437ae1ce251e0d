//! Parity cases: recurrent operators that another implementation ran, to check a backend against.
//!
//! A case is one [safetensors](https://github.com/huggingface/safetensors) file with everything needed to repeat the run:
//! inputs, weights, outputs and, where the other implementation differentiates, gradients of
//!
//! ```text
//! L = sum(y * dy) + sum(hn * dhn) + sum(cn * dcn)
//! ```
//!
//! [`Case::read`] turns it into a native problem, [`Case::run`] computes that on a backend and compares every tensor that
//! the file expects, in the other implementation's own layout. The command is `fused-rnn parity FILE...`; a generator that
//! makes such files from PyTorch, Keras, ONNX and ONNX Runtime stands in `tests/fixtures/generate_parity.py`.
//!
//! # The file
//!
//! The metadata entry `case` is a JSON object that says what the operator is. Its key `source` names the implementation and,
//! after a space, its version: `torch`, `keras`, `onnx`, `onnxruntime` (`ort` for short), or `equations`. A key that is `null` counts as
//! absent, except that Keras's activation `null` is the linear one. A key, a value or a tensor that is not described here
//! is an error: nothing is skipped.
//!
//! Tensors are f64, f32, f16 or bf16, row-major; lengths are i32 or i64. `w.NAME` is a weight and `dw.NAME` its gradient.
//! Inputs, weights and gradients of outputs (`dy`, `dhn`, `dcn`, absent means zero) go in; all other tensors are expected
//! results. Any result may be absent, but not all. `L` layers, `D` directions, `P` is `proj` or else `H`:
//!
//! | tensor | shape (torch, equations, keras) | |
//! |---|---|---|
//! | `x`, `dx` | torch `[T, B, I]`, keras `[B, T, I]` | |
//! | `y`, `dy` | torch `[T, B, D * P]`, keras `[B, T, H]` | see below for keras's variants |
//! | `h0`, `hn`, `dh0`, `dhn` | `[L * D, B, P]` | `h0` absent means zero |
//! | `c0`, `cn`, `dc0`, `dcn` | `[L * D, B, H]` | LSTM; with more states beside h `[L * D, B, (S - 1) * H]` |
//!
//! ## torch
//!
//! Of [`torch.nn.RNN`](https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html),
//! [`LSTM`](https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html) and
//! [`GRU`](https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html); weights under their `state_dict` names, such as
//! `w.weight_ih_l0`, `w.weight_hh_l0_reverse`, `w.bias_ih_l1`, `w.weight_hr_l0`. Gate order LSTM i, f, g, o; GRU r, z, n.
//!
//! | key | |
//! |---|---|
//! | `cell` | `rnn_tanh`, `rnn_relu`, `lstm` or `gru` |
//! | `T`, `B`, `I`, `H` | sequence length, batch, input and hidden size |
//! | `L` | layers, default 1 |
//! | `bi` | bidirectional, default false |
//! | `bias` | default true |
//! | `lengths` | list of `B` lengths in any order: the input was packed; outputs past a sequence's end are zero, and `hn`, `cn` are those of its last valid step |
//! | `proj` | `proj_size`, LSTM only |
//!
//! ## equations
//!
//! A cell's equations, written out in some program and differentiated there: for what no framework has. Layouts are those of
//! [`WeightLayout`](crate::rnn::WeightLayout) and [`TensorShapes`](crate::rnn::TensorShapes), weights under those names
//! (`w.weight_hh_l0`).
//!
//! | key | |
//! |---|---|
//! | `cell` | the cell's name on the command line: `rnn`, `lstm`, … |
//! | `T`, `B`, `I`, `H`, `L`, `bi`, `lengths` | as of torch |
//! | `bias` | `double` (default), `single` or `none` |
//! | `heads` | default 1 |
//! | `input` | `features` (default) or `gates`, and then `I` is `D * G * H` |
//! | `reset` | GRU: `after` (default) or `before` |
//! | `forget_gate` | sLSTM: `sigmoid` (default) or `exponential` |
//! | `activation` | of the candidate state; default `tanh` |
//!
//! ## keras
//!
//! Of [`SimpleRNN`](https://keras.io/api/layers/recurrent_layers/simple_rnn/),
//! [`LSTM`](https://keras.io/api/layers/recurrent_layers/lstm/) and
//! [`GRU`](https://keras.io/api/layers/recurrent_layers/gru/), alone or in
//! [`Bidirectional`](https://keras.io/api/layers/recurrent_layers/bidirectional/). Weights `w.kernel`, `w.recurrent_kernel`,
//! `w.bias`, in a Bidirectional layer `w.forward.kernel`, `w.backward.kernel`, …; shapes and gate order as in
//! [`crate::interop::keras`].
//!
//! | key | |
//! |---|---|
//! | `layer` | `SimpleRNN`, `LSTM` or `GRU` |
//! | `B`, `T`, `I`, `H` | batch, sequence length, input size, units |
//! | `return_sequences` | default false: then `y` is `[B, H]`, the last output |
//! | `mask` | default false; true: the tensor `lengths` `[B]` holds each row's valid length, and the steps after it are masked |
//! | `bidirectional` | `null`, or the merge mode: `concat` (`y` is twice as wide), `sum`, `mul`, `ave` |
//! | `activation` | `tanh`, `relu`, `sigmoid`, `hard_sigmoid`, `softsign`, `softplus`, `elu`, `selu`, `leaky_relu`, `linear`, or `null` for linear; default `tanh` |
//! | `recurrent_activation` | the same; LSTM and GRU; default `sigmoid` |
//! | `use_bias` | default true |
//! | `unit_forget_bias` | LSTM; without effect, since the weights are given |
//! | `reset_after` | GRU; default true |
//! | `go_backwards` | default false |
//!
//! What Keras 3 does with them, found by experiment on its TensorFlow and PyTorch backends:
//!
//! - At a masked step the state stays and the output repeats the previous one (zero before the first valid step). A layer
//!   in Bidirectional with `return_sequences` gives zeros there instead.
//! - `go_backwards` reverses the whole padded sequence, padding first, and its outputs stand in the order of processing:
//!   last step first. Bidirectional turns the backward layer's outputs round again before it merges them.
//! - `go_backwards` in Bidirectional needs an explicit backward layer that goes forward; then both outputs, and so the
//!   merged one, stand last step first.
//! - The slope of `leaky_relu` is 0.2 rounded to single precision, as on the TensorFlow backend. (The PyTorch and JAX
//!   backends of Keras 3.15 compute parts of these layers in single precision even where everything is float64; such cases
//!   need a `--tolerance` of about 1e-6.)
//! - The states `h0`, `hn`, … have the forward layer's row before the backward layer's.
//!
//! ## onnx, onnxruntime
//!
//! Of the operators [RNN](https://onnx.ai/onnx/operators/onnx__RNN.html), [LSTM](https://onnx.ai/onnx/operators/onnx__LSTM.html)
//! and [GRU](https://onnx.ai/onnx/operators/onnx__GRU.html), outputs only. Tensors are the node's inputs `in.X`, `in.W`,
//! `in.R`, `in.B`, `in.sequence_lens`, `in.initial_h`, `in.initial_c`, `in.P` and its outputs `out.Y`, `out.Y_h`, `out.Y_c`;
//! shapes as the operators' pages say, gate order as in [`crate::interop::onnx`].
//!
//! | key | |
//! |---|---|
//! | `op` | `RNN`, `LSTM` or `GRU` |
//! | `attrs` | the node's attributes: `activations`, `activation_alpha`, `activation_beta`, `clip`, `direction`, `hidden_size`, `input_forget` (LSTM), `layout` (1: batch first), `linear_before_reset` (GRU, default 0) |
//!
//! `activations` lists one function for RNN, two for GRU (f, g) and three for LSTM (f, g, h), for each direction; names in any
//! case. `activation_alpha` and `activation_beta` hold constants of those functions only that have one, in the order of the
//! list, and when they run out the function's default applies. For `ThresholdedRelu`, `ScaledTanh` and `Affine` ONNX Runtime
//! takes 0 then, ONNX's `ThresholdedRelu` takes 1, and the other two are an error in ONNX. `clip` clamps what goes into
//! every gate's activation, after bias and peephole; with `linear_before_reset` that is the whole sum, not its recurrent
//! part; `c` itself is not clamped.
//!
//! # Comparison
//!
//! The error of a tensor is its largest difference, relative to the largest magnitude expected: `max|ours - theirs| /
//! max|theirs|`. See [`relative_error`] for tensors of zeros and values that are not finite.

mod equations;
mod fields;
mod keras;
mod onnx;
mod torch;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::Path;

use crate::backend::device_pass;
use crate::backend::pass::{self, InputGradients, Inputs, OutputGradients, Outputs};
use crate::backend::reference::ReferenceBackend;
use crate::backend::{Device, HostBackend};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::interop::safetensors::TensorFile;
use crate::rnn::dropout::philox4x32;
use crate::rnn::{RnnDescriptor, RnnShape};
use fields::{Fields, Tensors, case_error};

/// Largest relative error that passes where everything is double precision.
pub const TOLERANCE_F64: f64 = 1e-10;

/// Largest relative error that passes where the case or the run is single precision.
pub const TOLERANCE_F32: f64 = 2e-5;

/// Times the effect of rounding all inputs that a run with 16 bits may be off.
pub const ROUNDINGS: f64 = 4.0;

/// Roundings of the inputs that are tried.
const NEIGHBOURS: u32 = 6;

/// A temporary tensor larger than this many elements is refused: a case is a check, and a damaged file must not exhaust memory.
const MAX_ELEMENTS: usize = 1 << 30;

/// The other implementation: how its tensors differ from ours.
#[derive(Clone, Debug)]
enum Source {
    /// PyTorch, or equations written out: not at all.
    Native,
    Keras(keras::Layer),
    Onnx(onnx::Node),
}

/// The native operator of a case, and what goes into it.
#[derive(Clone, Debug)]
struct Problem {
    descriptor: RnnDescriptor,
    shape: RnnShape,
    inputs: Inputs<f64>,
    /// Gradients of the outputs in the source's layout; none where the case has none.
    gradients: Option<OutputGradients<f64>>,
}

/// Tensors under the source's names.
type Named<T> = BTreeMap<String, T>;

/// A parity case, read and checked. See the [module](self).
#[derive(Clone, Debug)]
pub struct Case {
    name: String,
    source: Source,
    problem: Problem,
    expected: Named<Vec<f64>>,
    single_precision: bool,
}

/// How far one tensor is from what was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorError {
    /// The tensor under the source's name: `y`, `dw.kernel`, `out.Y_h`, …
    pub tensor: String,
    /// See [`relative_error`].
    pub relative_error: f64,
    /// The largest that passes.
    pub tolerance: f64,
}

/// The comparison of every expected tensor of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// One entry a tensor, in the order of their names; never empty.
    pub tensors: Vec<TensorError>,
}

impl Report {
    /// The tensor with the largest error beside its tolerance; NaN counts as larger than anything.
    pub fn worst(&self) -> Option<&TensorError> {
        let beside = |t: &TensorError| t.relative_error / t.tolerance.max(f64::MIN_POSITIVE);
        self.tensors.iter().max_by(|a, b| beside(a).total_cmp(&beside(b)))
    }

    /// The tolerance of the [worst](Self::worst) tensor.
    pub fn tolerance(&self) -> Option<f64> {
        self.worst().map(|worst| worst.tolerance)
    }

    /// Whether every tensor is within the tolerance.
    pub fn passed(&self) -> bool {
        !self.tensors.is_empty() && self.tensors.iter().all(|t| t.relative_error <= t.tolerance)
    }
}

/// `max|ours - theirs| / max|theirs|`, over all elements.
///
/// - A tensor that is zero throughout has no magnitude; its differences are taken as they are. The same holds below the
///   magnitude at which `dtype` begins to lose digits to underflow.
/// - Infinite elements and NaN must stand in the same places with the same sign: then they count as equal, and as no
///   magnitude. Otherwise the error is infinite, or NaN where a NaN is on one side alone.
/// - Tensors of different lengths have an infinite error.
pub fn relative_error(ours: &[f64], theirs: &[f64], dtype: DType) -> f64 {
    if ours.len() != theirs.len() {
        return f64::INFINITY;
    }
    let floor = match dtype {
        DType::F64 => f64::MIN_POSITIVE / f64::EPSILON,
        _ => f64::from(f32::MIN_POSITIVE / f32::EPSILON),
    };
    let magnitude = theirs.iter().filter(|v| v.is_finite()).fold(0.0f64, |largest, v| largest.max(v.abs()));
    let scale = if magnitude < floor { 1.0 } else { magnitude };
    let mut worst = 0.0f64;
    for (a, b) in ours.iter().zip(theirs) {
        if a == b || (a.is_nan() && b.is_nan()) {
            continue;
        }
        let error = match (a.is_nan() || b.is_nan(), a.is_finite() && b.is_finite()) {
            (true, _) => return f64::NAN,
            (_, false) => f64::INFINITY,
            // Halves, since the difference itself may overflow.
            _ => (a / 2.0 - b / 2.0).abs() / scale * 2.0,
        };
        worst = worst.max(error);
    }
    worst
}

fn convert<A: Element, B: Element>(values: &[A]) -> Vec<B> {
    values.iter().map(|v| B::of(v.wide())).collect()
}

fn convert_some<A: Element, B: Element>(values: &Option<Vec<A>>) -> Option<Vec<B>> {
    values.as_deref().map(convert)
}

impl Case {
    /// Reads a case file. The case is named after it, without folder and extension.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Format`] where it is not a safetensors file or its `case` cannot be understood (the message
    /// names the key or tensor); [`Error::Shape`], [`Error::Presence`], [`Error::SequenceLength`], [`Error::InvalidOption`]
    /// where the parts do not fit each other; [`Error::Unsupported`] for an activation that this crate has not.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // Reading a device or a pipe might never end.
        let metadata =
            std::fs::metadata(path).map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
        if !metadata.is_file() {
            return Err(case_error(path, "it is not a regular file; name files, not folders"));
        }
        Self::from_file(&TensorFile::read(path)?)
    }

    /// The case in a safetensors file that has been read already.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] where the `case` cannot be understood (the message names the key or tensor); [`Error::Shape`],
    /// [`Error::Presence`], [`Error::SequenceLength`], [`Error::InvalidOption`] where the parts do not fit each other;
    /// [`Error::Unsupported`] for an activation that this crate has not.
    pub fn from_file(file: &TensorFile) -> Result<Self> {
        let path = file.path();
        let mut fields = Fields::of_case(file)?;
        let mut tensors = Tensors::new(file);
        let source = fields.required_text("source")?;
        let (source, problem) = match source.split([' ', '-', '=']).next().unwrap_or_default() {
            "torch" | "pytorch" => (Source::Native, torch::read(&mut fields, &mut tensors)?),
            "equations" => (Source::Native, equations::read(&mut fields, &mut tensors)?),
            "keras" => {
                let (layer, problem) = keras::read(&mut fields, &mut tensors)?;
                (Source::Keras(layer), problem)
            }
            name @ ("onnx" | "onnxruntime" | "ort") => {
                let (node, problem) = onnx::read(&mut fields, &mut tensors, name != "onnx")?;
                (Source::Onnx(node), problem)
            }
            _ => {
                let problem = format!(
                    "case.source: expected torch, keras, onnx, onnxruntime or equations and a version, got {source:?}"
                );
                return Err(case_error(path, problem));
            }
        };
        fields.finish()?;
        let shapes = source.result_shapes(&problem)?;
        let single_precision = tensors.single_precision();
        let expected = tensors.finish(&shapes)?;
        if expected.is_empty() {
            let names: Vec<_> = shapes.keys().map(String::as_str).collect();
            let problem = format!("it expects no result; give at least one of {}", names.join(", "));
            return Err(case_error(path, problem));
        }
        if problem.gradients.is_none()
            && let Some(name) = expected.keys().find(|name| is_gradient(name))
        {
            let problem = format!("{name}: a gradient is expected, but none of dy, dhn and dcn is given");
            return Err(case_error(path, problem));
        }
        let name = path.file_stem().map_or_else(|| path.to_string_lossy(), |stem| stem.to_string_lossy()).into_owned();
        Ok(Case { name, source, problem, expected, single_precision })
    }

    /// The file's name without folder and extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The native operator.
    pub fn descriptor(&self) -> &RnnDescriptor {
        &self.problem.descriptor
    }

    /// Its sizes.
    pub fn shape(&self) -> RnnShape {
        self.problem.shape
    }

    /// What goes into it, in the native layout.
    pub fn inputs(&self) -> &Inputs<f64> {
        &self.problem.inputs
    }

    /// Names of the expected tensors, sorted.
    pub fn expected(&self) -> impl Iterator<Item = &str> {
        self.expected.keys().map(String::as_str)
    }

    /// The tolerance for a run in `f64` or `f32`: [`TOLERANCE_F64`], or [`TOLERANCE_F32`] where the case or the run is single
    /// precision. With 16 bits each tensor has one of its own, see [`run`](Self::run).
    pub fn tolerance(&self, dtype: DType) -> f64 {
        if dtype == DType::F64 && !self.single_precision { TOLERANCE_F64 } else { TOLERANCE_F32 }
    }

    /// Runs the case on a backend, forward in inference mode and, where there are gradients, in training mode too, and
    /// compares every expected tensor. `tolerance` overrides [`Case::tolerance`].
    ///
    /// With 16 bits, inputs are rounded to them, and a tensor's tolerance follows from how much rounding matters in this case: the
    /// oracle in `f64` is run on inputs moved by half a unit in the last place, up and down; the error may be [`ROUNDINGS`] times as
    /// much as that moves the tensor, since states and gradients are rounded on the way as well, and that many units in the
    /// last place of its largest magnitude.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a tolerance that is negative or not finite; [`Error::Unsupported`] where the backend cannot do it or
    /// memory is short.
    pub fn run<E: Element, B: HostBackend<E>>(&self, backend: &B, tolerance: Option<f64>) -> Result<Report> {
        self.run_by(&OnSlices::<E, B>::new(backend), tolerance)
    }

    /// The same on a device, in its element type.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a tolerance that is negative or not finite; [`Error::Unsupported`] where the device cannot do it or
    /// memory is short, [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn run_on(&self, device: &Device, tolerance: Option<f64>) -> Result<Report> {
        self.run_by(device, tolerance)
    }

    fn run_by(&self, by: &dyn Computes, tolerance: Option<f64>) -> Result<Report> {
        let (given, dtype) = (tolerance.map(check_tolerance).transpose()?, by.dtype());
        let results = self.results(by, &self.problem.inputs)?;
        let errors = self.errors(&results, dtype);
        let derived = match (given, dtype) {
            (None, DType::F16 | DType::Bf16) => Some(self.derived_tolerances(dtype)?),
            _ => None,
        };
        let tolerance_of = |name: &String| match &derived {
            Some(derived) => derived.get(name).copied().unwrap_or(0.0),
            None => given.unwrap_or_else(|| self.tolerance(dtype)),
        };
        let tensors: Vec<_> = errors
            .into_iter()
            .map(|(tensor, relative_error)| TensorError { tolerance: tolerance_of(&tensor), tensor, relative_error })
            .collect();
        Ok(Report { tensors })
    }

    /// All results of who computes, in the source's layout: of inference, then of training.
    fn results(&self, by: &dyn Computes, inputs: &Inputs<f64>) -> Result<Vec<Named<Vec<f64>>>> {
        let Problem { descriptor, shape, gradients, .. } = &self.problem;
        let outputs = by.infer(descriptor, *shape, inputs)?;
        let mut results = vec![self.source.results(&self.problem, &outputs, None)?];
        if let Some(gradients) = gradients {
            let native = self.source.output_gradients(&self.problem, gradients, &outputs)?;
            let (outputs, gradients) = by.train(descriptor, *shape, inputs, &native)?;
            results.push(self.source.results(&self.problem, &outputs, Some(&gradients))?);
        }
        Ok(results)
    }

    /// The relative error of every expected tensor.
    fn errors(&self, results: &[Named<Vec<f64>>], dtype: DType) -> Named<f64> {
        let error = |name: &String, theirs: &Vec<f64>| {
            results
                .iter()
                .filter_map(|results| results.get(name))
                .map(|ours| relative_error(ours, theirs, dtype))
                .max_by(f64::total_cmp)
                // Reading has matched the names with those of the results, so this says that a result got lost.
                .unwrap_or(f64::NAN)
        };
        self.expected.iter().map(|(name, theirs)| (name.clone(), error(name, theirs))).collect()
    }

    /// See [`run`](Self::run).
    fn derived_tolerances(&self, dtype: DType) -> Result<Named<f64>> {
        let oracle = ReferenceBackend::<f64>::new();
        let mut tolerances: Named<f64> = self.expected.keys().map(|name| (name.clone(), dtype.epsilon())).collect();
        for neighbour in 0..NEIGHBOURS {
            let mut inputs = self.problem.inputs.clone();
            let states = inputs.h0.iter_mut().chain(inputs.c0.iter_mut());
            for (tensor, values) in [&mut inputs.weights, &mut inputs.x].into_iter().chain(states).enumerate() {
                for (block, four) in values.chunks_mut(4).enumerate() {
                    let bits = philox4x32([block as u32, tensor as u32, neighbour, 0], 0);
                    for (value, bits) in four.iter_mut().zip(bits) {
                        let half_ulp = dtype.epsilon() / 2.0;
                        *value *= if bits & 1 == 0 { 1.0 + half_ulp } else { 1.0 - half_ulp };
                    }
                }
            }
            let errors = self.errors(&self.results(&OnSlices::<f64, _>::new(&oracle), &inputs)?, dtype);
            for (name, tolerance) in &mut tolerances {
                *tolerance = errors.get(name).map_or(*tolerance, |error| error.max(*tolerance));
            }
        }
        tolerances.values_mut().for_each(|tolerance| *tolerance *= ROUNDINGS);
        Ok(tolerances)
    }
}

/// Who computes a case: values are rounded to its element type on the way in.
trait Computes {
    fn dtype(&self) -> DType;

    fn infer(&self, descriptor: &RnnDescriptor, shape: RnnShape, inputs: &Inputs<f64>) -> Result<Outputs<f64>>;

    fn train(
        &self,
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        inputs: &Inputs<f64>,
        gradients: &OutputGradients<f64>,
    ) -> Result<(Outputs<f64>, InputGradients<f64>)>;
}

impl Computes for Device {
    fn dtype(&self) -> DType {
        Device::dtype(self)
    }

    fn infer(&self, descriptor: &RnnDescriptor, shape: RnnShape, inputs: &Inputs<f64>) -> Result<Outputs<f64>> {
        device_pass::infer(self, descriptor, shape, inputs)
    }

    fn train(
        &self,
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        inputs: &Inputs<f64>,
        gradients: &OutputGradients<f64>,
    ) -> Result<(Outputs<f64>, InputGradients<f64>)> {
        device_pass::train(self, descriptor, shape, inputs, gradients)
    }
}

/// A backend on slices of the host.
struct OnSlices<'a, E, B> {
    backend: &'a B,
    element: PhantomData<E>,
}

impl<'a, E: Element, B: HostBackend<E>> OnSlices<'a, E, B> {
    fn new(backend: &'a B) -> Self {
        OnSlices { backend, element: PhantomData }
    }
}

impl<E: Element, B: HostBackend<E>> Computes for OnSlices<'_, E, B> {
    fn dtype(&self) -> DType {
        E::DTYPE
    }

    fn infer(&self, descriptor: &RnnDescriptor, shape: RnnShape, inputs: &Inputs<f64>) -> Result<Outputs<f64>> {
        Ok(widen(&pass::infer(self.backend, descriptor, shape, &round::<E>(inputs))?))
    }

    fn train(
        &self,
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        inputs: &Inputs<f64>,
        gradients: &OutputGradients<f64>,
    ) -> Result<(Outputs<f64>, InputGradients<f64>)> {
        let gradients = OutputGradients::<E> {
            dy: convert_some(&gradients.dy),
            dhn: convert_some(&gradients.dhn),
            dcn: convert_some(&gradients.dcn),
        };
        let (outputs, gradients) = pass::train(self.backend, descriptor, shape, &round(inputs), &gradients)?;
        let gradients = InputGradients::<f64> {
            dx: convert(&gradients.dx),
            dh0: convert(&gradients.dh0),
            dc0: convert_some(&gradients.dc0),
            dweights: convert(&gradients.dweights),
        };
        Ok((widen(&outputs), gradients))
    }
}

fn round<E: Element>(inputs: &Inputs<f64>) -> Inputs<E> {
    Inputs {
        weights: convert(&inputs.weights),
        x: convert(&inputs.x),
        h0: convert_some(&inputs.h0),
        c0: convert_some(&inputs.c0),
        lengths: inputs.lengths.clone(),
        resets: inputs.resets.clone(),
        dropout_seed: inputs.dropout_seed,
    }
}

fn widen<E: Element>(outputs: &Outputs<E>) -> Outputs<f64> {
    Outputs { y: convert(&outputs.y), hn: convert(&outputs.hn), cn: convert_some(&outputs.cn) }
}

/// Returns a tolerance that is usable.
///
/// # Errors
///
/// [`Error::InvalidOption`] for one that is negative or not finite.
pub fn check_tolerance(tolerance: f64) -> Result<f64> {
    if tolerance.is_finite() && tolerance >= 0.0 {
        Ok(tolerance)
    } else {
        Err(Error::option("tolerance", "a finite number of at least 0", tolerance))
    }
}

/// Whether a result of this name needs a backward pass.
fn is_gradient(name: &str) -> bool {
    name.starts_with('d')
}

impl Source {
    /// Every result that the source can have, with its shape.
    fn result_shapes(&self, problem: &Problem) -> Result<Named<Vec<usize>>> {
        match self {
            Source::Native => torch::result_shapes(problem),
            Source::Keras(layer) => layer.result_shapes(problem),
            Source::Onnx(node) => node.result_shapes(problem),
        }
    }

    /// Our results in the source's layout.
    fn results(
        &self,
        problem: &Problem,
        outputs: &Outputs<f64>,
        gradients: Option<&InputGradients<f64>>,
    ) -> Result<Named<Vec<f64>>> {
        match self {
            Source::Native => torch::results(problem, outputs, gradients),
            Source::Keras(layer) => layer.results(problem, outputs, gradients),
            Source::Onnx(node) => Ok(node.results(problem, outputs)),
        }
    }

    /// The source's gradients of its outputs as gradients of ours. `outputs` are ours.
    fn output_gradients(
        &self,
        problem: &Problem,
        gradients: &OutputGradients<f64>,
        outputs: &Outputs<f64>,
    ) -> Result<OutputGradients<f64>> {
        match self {
            Source::Native | Source::Onnx(_) => Ok(gradients.clone()),
            Source::Keras(layer) => Ok(layer.output_gradients(problem, gradients, outputs)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_largest_magnitude() {
        assert_eq!(relative_error(&[1.0, 4.0], &[1.5, 4.0], DType::F64), 0.125);
        assert_eq!(relative_error(&[0.0, 1e-3], &[0.0, 0.0], DType::F64), 1e-3);
        assert_eq!(relative_error(&[0.0], &[1e-35], DType::F32), 1e-35);
        assert_eq!(relative_error(&[0.0], &[1e-35], DType::F64), 1.0);
        assert_eq!(relative_error(&[f64::MAX], &[-f64::MAX], DType::F64), 2.0);
        assert_eq!(relative_error(&[1.0], &[1.0, 1.0], DType::F64), f64::INFINITY);
    }

    #[test]
    fn not_a_number_sticks() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        assert!(relative_error(&[nan, 1.0], &[2.0, 1.0], DType::F64).is_nan());
        assert!(relative_error(&[2.0, 1.0], &[nan, 1.0], DType::F64).is_nan());
        assert!(relative_error(&[inf], &[nan], DType::F64).is_nan());
        assert_eq!(relative_error(&[nan, 1.0], &[nan, 2.0], DType::F64), 0.5);
        assert_eq!(relative_error(&[inf, 1.0], &[inf, 2.0], DType::F64), 0.5);
        assert_eq!(relative_error(&[inf], &[-inf], DType::F64), inf);
        assert_eq!(relative_error(&[1.0], &[inf], DType::F64), inf);

        let tensor = |relative_error| TensorError { tensor: "y".into(), relative_error, tolerance: 2.0 };
        let report = Report { tensors: vec![tensor(nan), tensor(1.0)] };
        assert!(!report.passed());
        assert!(report.worst().unwrap().relative_error.is_nan());
        assert!(!Report { tensors: vec![] }.passed());
    }
}
