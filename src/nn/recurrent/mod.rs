//! The recurrent layers with Keras's words and defaults.
//!
//! | file | what |
//! |---|---|
//! | this | what the layers of the crate's cells have in common, and which of the two operations below computes them; [`SimpleRnn`], [`Lstm`], [`Gru`] |
//! | `ind_rnn`, `slstm` | [`IndRnn`], [`Slstm`] |
//! | `usual` | the layers that follow from a row of the table of cells |
//! | `sequence` | all steps by the fused operator of a [`RecurrentBackend`](crate::backend::RecurrentBackend) |
//! | [`cell`] | a step at a time by a [`Cell`]: what the fused operator has not, and custom cells with [`Rnn`] |
//! | `regularized`, `normalized` | cells with recurrent dropout and zoneout, and with layer normalisation |
//! | `operator` | [`RecurrentOperator`]: options that Keras has not |
//! | [`bidirectional`] | [`Bidirectional`] |
#![expect(
    clippy::indexing_slicing,
    reason = "there is an input, as `sequence_shape` checks; entries of kernels have two axes"
)]

pub mod bidirectional;
pub mod cell;
mod ind_rnn;
mod normalized;
mod operator;
mod regularized;
mod sequence;
mod slstm;
mod usual;

pub use bidirectional::{Bidirectional, MergeMode};
pub use cell::{Cell, CellBackward, CellForward, Rnn};
pub use ind_rnn::IndRnn;
pub use operator::RecurrentOperator;
pub(super) use regularized::StepDropout;
pub use slstm::Slstm;
pub use usual::*;

use serde::{Deserialize, Serialize};

use crate::backend::{Device, TensorRef};
use crate::cell::{Activations, CellKind};
use crate::error::{Error, Result};
use crate::interop::keras::bias_of;
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::dropout::check_rate;
use crate::nn::masking::row_mask;
use crate::nn::recurrent::cell::steps;
use crate::nn::recurrent::normalized::Normalized;
use crate::nn::recurrent::regularized::Regularized;
use crate::nn::recurrent::sequence::Sequence;
use crate::nn::shape::reversed;
use crate::nn::weight_options::{KerasShape, regularize};
use crate::nn::{ActivationFunction, Regularizer, Scratch, WeightOptions};
use crate::rnn::{
    Bias, Direction, GruReset, Layout, Memory, PaddedOutput, RnnDescriptor, RnnShape, WeightKind, WeightLayout,
};

/// Options of all recurrent layers of this crate, besides those of their cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecurrentOptions {
    /// Whether the output is that of every step rather than of the last; needed below another recurrent layer.
    pub return_sequences: bool,
    /// Whether the last states are outputs too: h, and of a cell with more states the others side by side (of an LSTM c).
    pub return_state: bool,
    /// Whether time runs backwards: the last step comes first, in the output too.
    pub go_backwards: bool,
    /// Whether the states at the end of a batch are where the next one starts, sample by sample; all batches then have one size.
    pub stateful: bool,
    /// Probability of dropping an input feature in training, for all steps of a sequence alike.
    pub dropout: f64,
    /// Probability of dropping a unit of the previous output in training, for all steps of a sequence alike
    /// ([Gal and Ghahramani 2016](https://arxiv.org/abs/1512.05287)).
    pub recurrent_dropout: f64,
    /// Probability that an element of the states keeps its value over a step in training; without training, states are mixed in that
    /// proportion ([Krueger et al. 2017](https://arxiv.org/abs/1606.01305)).
    pub zoneout: f64,
    /// Whether products with the input and with the state, and an LSTM's cell state on its way out, are brought to mean 0 and variance 1
    /// over the units, then scaled and shifted ([Ba et al. 2016](https://arxiv.org/abs/1607.06450), supplement). SimpleRNN, LSTM and GRU.
    pub layer_norm: bool,
    /// Blocks of the recurrent weights, 1 for full ones: with more, a unit sees the previous output of its own head's
    /// `units / heads` units alone ([`RnnDescriptor::heads`]).
    #[serde(skip_serializing_if = "is_one")]
    pub heads: usize,
    /// In training, steps between states that are kept; those between are computed again by backward ([`Memory::Checkpoints`]). With
    /// about the root of the steps, very long sequences fit. 0 keeps everything. Not together with recurrent dropout, zoneout or
    /// layer normalisation, which are computed a step at a time.
    #[serde(skip_serializing_if = "is_zero")]
    pub time_checkpoints: usize,
    /// Layers one above the other, each with these options and this many units, as PyTorch's `num_layers`; 1. Only the first goes backwards;
    /// inside of [`Bidirectional`] every layer has both directions. States, in and out, are those of the first layer, then of the next.
    #[serde(skip_serializing_if = "is_one")]
    pub num_layers: usize,
    /// Whether a SimpleRNN or an LSTM has two biases, which are added up, as PyTorch's; no. A GRU has them where its reset gate acts on a
    /// product. Not together with layer normalisation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub double_bias: bool,
    /// Initializer, regularizer and constraint of the weights of the input.
    #[serde(skip_serializing_if = "WeightOptions::is_default")]
    pub kernel: WeightOptions,
    /// The same of the weights of the state.
    #[serde(skip_serializing_if = "WeightOptions::is_default")]
    pub recurrent: WeightOptions,
    /// The same of the bias; of both, where there are two.
    #[serde(skip_serializing_if = "WeightOptions::is_default")]
    pub bias: WeightOptions,
    /// What the outputs add to the loss; nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity_regularizer: Option<Regularizer>,
}

/// Layers one above the other, at most: each is an operation of its own.
const MOST_LAYERS: usize = 1024;

/// Whether there is one head: files then say nothing of heads, as those of versions without them.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(heads: &usize) -> bool {
    *heads == 1
}

/// Whether nothing is computed again: files then say nothing of it, as those of versions without.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(steps: &usize) -> bool {
    *steps == 0
}

impl Default for RecurrentOptions {
    fn default() -> Self {
        RecurrentOptions {
            return_sequences: false,
            return_state: false,
            go_backwards: false,
            stateful: false,
            dropout: 0.0,
            recurrent_dropout: 0.0,
            zoneout: 0.0,
            layer_norm: false,
            heads: 1,
            time_checkpoints: 0,
            num_layers: 1,
            double_bias: false,
            kernel: WeightOptions::default(),
            recurrent: WeightOptions::default(),
            bias: WeightOptions::default(),
            activity_regularizer: None,
        }
    }
}

/// What the layers of the crate's cells have in common.
pub(crate) trait RecurrentLayer {
    fn cell(&self) -> CellKind;
    fn units(&self) -> usize;
    /// The biases that the operator has.
    fn bias(&self) -> Bias;
    fn options(&self) -> &RecurrentOptions;
    fn options_mut(&mut self) -> &mut RecurrentOptions;

    /// Puts the layer behind its inputs; as the second direction of a bidirectional layer `in_place`: then the output stays at the
    /// steps it belongs to.
    fn in_direction(&self, builder: &mut Builder, inputs: &[Value], in_place: bool) -> Result<Vec<Value>>;
}

/// The words that all layers have. Besides, a layer has `configure`, which sets what its descriptor has besides sizes and biases,
/// and `operator_bias`.
macro_rules! recurrent_layer {
    ($layer:ident of $cell:ident { $($field:ident: $value:expr),* }) => {
        impl $layer {
            /// A layer with `units` units that returns the output of the last step.
            pub fn new(units: usize) -> Self {
                $layer {
                    units,
                    activation: $crate::nn::ActivationFunction::Tanh,
                    use_bias: true,
                    $($field: $value,)*
                    options: RecurrentOptions::default(),
                }
            }

            /// Sets the function of the candidate state, and of an LSTM's output.
            #[must_use]
            pub fn activation(self, activation: $crate::nn::ActivationFunction) -> Self {
                $layer { activation, ..self }
            }

            /// Sets whether there are biases.
            #[must_use]
            pub fn use_bias(self, use_bias: bool) -> Self {
                $layer { use_bias, ..self }
            }

            recurrent_layer! { @options
                /// Sets whether the output of every step is returned.
                return_sequences: bool,
                /// Sets whether the last states are outputs too.
                return_state: bool,
                /// Sets whether time runs backwards.
                go_backwards: bool,
                /// Sets whether states go on from batch to batch.
                stateful: bool,
                /// Sets the probability of dropping an input feature.
                dropout: f64,
                /// Sets the probability of dropping a unit of the previous output.
                recurrent_dropout: f64,
                /// Sets the probability that an element of the states keeps its value.
                zoneout: f64,
                /// Sets whether the cell is normalised.
                layer_norm: bool,
                /// Sets the number of blocks of the recurrent weights.
                heads: usize,
                /// Sets the steps between states that training keeps.
                time_checkpoints: usize,
                /// Sets the number of layers one above the other.
                num_layers: usize,
                /// Sets whether there are two biases that are added up.
                double_bias: bool,
            }

            $crate::nn::weight_options::weight_words! {
                [options.kernel] kernel_initializer kernel_regularizer kernel_constraint, "the weight of the input";
                [options.recurrent] recurrent_initializer recurrent_regularizer recurrent_constraint,
                    "the weight of the state";
                [options.bias] bias_initializer bias_regularizer bias_constraint, "the bias";
            }

            $crate::nn::weight_options::activity_word!(options.activity_regularizer);

            pub(in crate::nn) fn build(
                &self,
                builder: &mut $crate::nn::Builder,
                inputs: &[$crate::nn::Value],
            ) -> $crate::error::Result<Vec<$crate::nn::Value>> {
                $crate::nn::recurrent::RecurrentLayer::in_direction(self, builder, inputs, false)
            }
        }

        impl $crate::nn::recurrent::RecurrentLayer for $layer {
            fn cell(&self) -> $crate::cell::CellKind {
                $crate::cell::CellKind::$cell
            }

            fn units(&self) -> usize {
                self.units
            }

            fn bias(&self) -> $crate::rnn::Bias {
                match self.operator_bias() {
                    $crate::rnn::Bias::Single if self.options.double_bias => $crate::rnn::Bias::Double,
                    bias => bias,
                }
            }

            fn options(&self) -> &RecurrentOptions {
                &self.options
            }

            fn options_mut(&mut self) -> &mut RecurrentOptions {
                &mut self.options
            }

            fn in_direction(
                &self,
                builder: &mut $crate::nn::Builder,
                inputs: &[$crate::nn::Value],
                in_place: bool,
            ) -> $crate::error::Result<Vec<$crate::nn::Value>> {
                if self.options.num_layers != 1 {
                    return $crate::nn::recurrent::stacked(builder, inputs, &self.options, |builder, inputs, options| {
                        $layer { options, ..self.clone() }.in_direction(builder, inputs, in_place)
                    });
                }
                let mut descriptor = $crate::nn::recurrent::plain(builder, inputs, self)?;
                let unit_forget_bias = self.configure(&builder.name(), &mut descriptor)?;
                $crate::nn::recurrent::recurrent(builder, inputs, descriptor, &self.options, unit_forget_bias, in_place)
            }
        }
    };
    (@options $($(#[$doc:meta])* $option:ident: $type:ty,)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $option(mut self, $option: $type) -> Self {
                self.options.$option = $option;
                self
            }
        )*
    };
}

use recurrent_layer;

/// The simple recurrence, Keras's [`SimpleRNN`](https://keras.io/api/layers/recurrent_layers/simple_rnn/): `h = f(W x + R h + b)`.
///
/// `[seq_len, features]` to `[units]`, the output of the last step, or with `return_sequences` to `[seq_len, units]`. Further inputs are
/// the initial states. Kernel Glorot uniform, recurrent kernel orthogonal, as in Keras; names, shapes and gate order of the weights are
/// PyTorch's. Steps that a mask says are absent are left out; the output there is the one before. (Keras 3 forgets the mask where
/// initial states are given; here it counts.) With `go_backwards` the mask of the output is turned round with it, which Keras's is not.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{ActivationFunction, SimpleRnn}};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(SimpleRnn::new(16).activation(ActivationFunction::Relu))?;
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimpleRnn {
    /// Width of the state and the output.
    pub units: usize,
    /// f; tanh.
    pub activation: ActivationFunction,
    /// Whether there is a bias; yes.
    pub use_bias: bool,
    /// Further options.
    #[serde(default)]
    pub options: RecurrentOptions,
}

recurrent_layer!(SimpleRnn of Rnn {});

impl SimpleRnn {
    fn operator_bias(&self) -> Bias {
        bias_of(CellKind::Rnn, self.use_bias, false)
    }

    fn configure(&self, layer: &str, descriptor: &mut RnnDescriptor) -> Result<bool> {
        descriptor.activations.state = self.activation.of_elements(layer, "activation")?;
        Ok(false)
    }
}

/// Long short-term memory, Keras's [`LSTM`](https://keras.io/api/layers/recurrent_layers/lstm/), with one bias. Shapes, weights and masks
/// are as [`SimpleRnn`] has them; its states are h and c.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Lstm};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(Lstm::new(32).return_sequences(true))?; // every step, for the layer above
/// assert_eq!(model.output_shape(), [20, 32]);
/// model.add(Lstm::new(16).dropout(0.2).recurrent_dropout(0.1))?;
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lstm {
    /// Width of the states and the output.
    pub units: usize,
    /// Of the candidate and of the cell state on its way out; tanh.
    pub activation: ActivationFunction,
    /// Whether there is a bias; yes.
    pub use_bias: bool,
    /// Of the gates; sigmoid.
    pub recurrent_activation: ActivationFunction,
    /// Whether the bias of the forget gate starts at 1 rather than 0, which lets gradients through; yes.
    pub unit_forget_bias: bool,
    /// Further options.
    #[serde(default)]
    pub options: RecurrentOptions,
}

recurrent_layer!(Lstm of Lstm { recurrent_activation: ActivationFunction::Sigmoid, unit_forget_bias: true });

impl Lstm {
    /// Sets the function of the gates.
    #[must_use]
    pub fn recurrent_activation(self, recurrent_activation: ActivationFunction) -> Self {
        Lstm { recurrent_activation, ..self }
    }

    /// Sets whether the bias of the forget gate starts at 1.
    #[must_use]
    pub fn with_unit_forget_bias(self, unit_forget_bias: bool) -> Self {
        Lstm { unit_forget_bias, ..self }
    }

    fn operator_bias(&self) -> Bias {
        bias_of(CellKind::Lstm, self.use_bias, false)
    }

    fn configure(&self, layer: &str, descriptor: &mut RnnDescriptor) -> Result<bool> {
        let state = self.activation.of_elements(layer, "activation")?;
        let gate = self.recurrent_activation.of_elements(layer, "recurrent_activation")?;
        descriptor.activations = Activations { gate, state, output: state };
        Ok(self.unit_forget_bias)
    }
}

/// The gated recurrent unit, Keras's [`GRU`](https://keras.io/api/layers/recurrent_layers/gru/), with two biases, or one where the reset
/// gate acts before the product. Shapes, weights and masks are as [`SimpleRnn`] has them.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Gru};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(Gru::new(16).num_layers(2))?; // two, one above the other
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gru {
    /// Width of the state and the output.
    pub units: usize,
    /// Of the candidate; tanh.
    pub activation: ActivationFunction,
    /// Whether there are biases; yes.
    pub use_bias: bool,
    /// Of the gates; sigmoid.
    pub recurrent_activation: ActivationFunction,
    /// Whether the reset gate acts on the product with the state rather than on the state; yes.
    pub reset_after: bool,
    /// Further options.
    #[serde(default)]
    pub options: RecurrentOptions,
}

recurrent_layer!(Gru of Gru { recurrent_activation: ActivationFunction::Sigmoid, reset_after: true });

impl Gru {
    /// Sets the function of the gates.
    #[must_use]
    pub fn recurrent_activation(self, recurrent_activation: ActivationFunction) -> Self {
        Gru { recurrent_activation, ..self }
    }

    /// Sets whether the reset gate acts on the product with the state.
    #[must_use]
    pub fn reset_after(self, reset_after: bool) -> Self {
        Gru { reset_after, ..self }
    }

    fn operator_bias(&self) -> Bias {
        bias_of(CellKind::Gru, self.use_bias, self.reset_after)
    }

    fn configure(&self, layer: &str, descriptor: &mut RnnDescriptor) -> Result<bool> {
        descriptor.reset = if self.reset_after { GruReset::After } else { GruReset::Before };
        descriptor.activations.state = self.activation.of_elements(layer, "activation")?;
        descriptor.activations.gate = self.recurrent_activation.of_elements(layer, "recurrent_activation")?;
        Ok(false)
    }
}

/// The operator of one layer for these inputs, with the usual functions.
fn plain(builder: &Builder, inputs: &[Value], layer: &dyn RecurrentLayer) -> Result<RnnDescriptor> {
    let (_, features) = sequence_shape(builder, inputs)?;
    let mut descriptor = RnnDescriptor::new(layer.cell(), features, layer.units());
    descriptor.layout = Layout::BatchMajor;
    descriptor.padded_output = PaddedOutput::Zero;
    descriptor.heads = layer.options().heads;
    descriptor.bias = layer.bias();
    Ok(descriptor)
}

/// Steps and features of the first input.
fn sequence_shape(builder: &Builder, inputs: &[Value]) -> Result<(usize, usize)> {
    match inputs.first().map(Value::shape) {
        Some(&[seq_len, features]) => Ok((seq_len, features)),
        other => Err(Error::shape(
            builder.name(),
            "inputs of shape [seq_len, features] (below a recurrent layer, set return_sequences)",
            format!("{:?}", other.unwrap_or_default()),
        )),
    }
}

/// Several layers one above the other: `build` puts one of them behind its inputs, with options for one. Gives the output of the last, then
/// the states of all. The weights of the first have the names of those of a single layer; those of further ones stand under `layer_1`, ….
fn stacked(
    builder: &mut Builder,
    inputs: &[Value],
    options: &RecurrentOptions,
    mut build: impl FnMut(&mut Builder, &[Value], RecurrentOptions) -> Result<Vec<Value>>,
) -> Result<Vec<Value>> {
    let layers = options.num_layers;
    if layers == 0 {
        return Err(Error::ZeroSize { name: "num_layers" });
    }
    if layers > MOST_LAYERS {
        let option = format!("num_layers of {}", builder.name());
        return Err(Error::option(option, format!("at most {MOST_LAYERS}"), layers));
    }
    let Some((x, states)) = inputs.split_first() else {
        return Err(Error::shape(builder.name(), "inputs of shape [seq_len, features]", "none"));
    };
    if !states.len().is_multiple_of(layers) {
        let expected = format!("as many initial states for each of {layers} layers");
        return Err(Error::shape(builder.name(), expected, format!("{} states", states.len())));
    }
    let each = states.len() / layers;
    let (mut x, mut given_back) = (x.clone(), Vec::new());
    for layer in 0..layers {
        let one = RecurrentOptions {
            num_layers: 1,
            return_sequences: options.return_sequences || layer + 1 < layers,
            go_backwards: options.go_backwards && layer == 0,
            ..options.clone()
        };
        let own = states.iter().skip(layer * each).take(each);
        let inputs: Vec<Value> = std::iter::once(&x).chain(own).cloned().collect();
        let mut outputs = match layer {
            0 => build(builder, &inputs, one)?,
            _ => builder.scope(&format!("layer_{layer}"), |builder| build(builder, &inputs, one))?,
        };
        x = outputs.remove(0);
        given_back.extend(outputs);
    }
    given_back.insert(0, x);
    Ok(given_back)
}

/// The weights of the operator, each with its name; a range of all.
fn weights(
    builder: &mut Builder,
    descriptor: &RnnDescriptor,
    unit_forget_bias: bool,
    options: &RecurrentOptions,
) -> Result<std::ops::Range<usize>> {
    let units = descriptor.hidden_size;
    let mut range = 0..0;
    for (i, entry) in WeightLayout::new(descriptor)?.entries().iter().enumerate() {
        // Two biases are one tensor in Keras, or are not there.
        let of_bias = if descriptor.bias == Bias::Double { KerasShape::Part } else { KerasShape::Same };
        let (of_state, one_head) = (&options.recurrent, descriptor.heads == 1);
        let (given, word, keras, init) = match entry.kind {
            WeightKind::InputHidden => {
                let init = Init::GlorotUniform { fan_in: entry.shape[1], fan_out: entry.shape[0] };
                (&options.kernel, "kernel", KerasShape::Transposed, init)
            }
            WeightKind::HiddenHidden if one_head => (of_state, "recurrent", KerasShape::Transposed, Init::Orthogonal),
            // A unit of its own, with a weight of its own.
            WeightKind::HiddenHidden if descriptor.head_size() == 1 => {
                (of_state, "recurrent", KerasShape::None, Init::Uniform(1.0))
            }
            WeightKind::HiddenHidden => (of_state, "recurrent", KerasShape::None, Init::OrthogonalHeads),
            // The gates begin with i, f.
            WeightKind::InputBias if unit_forget_bias => {
                (&options.bias, "bias", of_bias, Init::OnesIn(units..2 * units))
            }
            _ => (&options.bias, "bias", of_bias, Init::Constant(0.0)),
        };
        let ones = if let Init::OnesIn(ones) = &init { Some(ones.clone()) } else { None };
        let part = given.declare(builder, (&entry.name, word), &entry.shape, init, keras, ones)?;
        range = if i == 0 { part } else { range.start..part.end };
    }
    Ok(range)
}

/// A layer of a cell: its output, and with `return_state` its last states.
fn recurrent(
    builder: &mut Builder,
    inputs: &[Value],
    mut descriptor: RnnDescriptor,
    options: &RecurrentOptions,
    unit_forget_bias: bool,
    in_place: bool,
) -> Result<Vec<Value>> {
    let (seq_len, features) = sequence_shape(builder, inputs)?;
    let units = descriptor.hidden_size;
    for (option, rate) in
        [("dropout", options.dropout), ("recurrent_dropout", options.recurrent_dropout), ("zoneout", options.zoneout)]
    {
        check_rate(builder, option, rate)?;
    }
    if options.go_backwards {
        descriptor.direction = Direction::Reverse;
    }
    if options.zoneout > 0.0 && !descriptor.cell.spec().positive.is_empty() {
        return Err(Error::unsupported(
            format!("zoneout of {}", builder.name()),
            "this cell's states are scaled together, and mean nothing where some are kept; leave it at 0",
        ));
    }
    if options.layer_norm && options.double_bias {
        return Err(Error::option(format!("double_bias of {}", builder.name()), "off with layer normalisation", "on"));
    }
    let by_steps = options.layer_norm || options.recurrent_dropout > 0.0 || options.zoneout > 0.0;
    if options.time_checkpoints > 0 {
        if by_steps {
            return Err(Error::unsupported(
                format!("time_checkpoints of {}", builder.name()),
                "with recurrent dropout, zoneout or layer normalisation it is computed a step at a time; leave them at 0",
            ));
        }
        descriptor.memory = Memory::Checkpoints { every: options.time_checkpoints };
    }
    let given = [&options.kernel, &options.recurrent, &options.bias];
    if options.layer_norm && given.iter().any(|given| !given.is_default()) {
        return Err(Error::unsupported(
            format!("initializers, regularizers and constraints of {} with layer normalisation", builder.name()),
            "its weights are drawn as the paper has them; leave them out, or layer_norm off",
        ));
    }
    // The weights first: a size that is too large for them is named as itself.
    WeightLayout::new(&descriptor)?;
    RnnShape { seq_len, batch: 1 }.tensors(&descriptor)?;
    let states = initial_states(builder, &inputs[1..], &descriptor, options)?;
    let mask = row_mask(builder, &inputs[0])?.cloned();
    let mut x = inputs[0].clone();
    if options.dropout > 0.0 {
        let number = builder.op_number();
        let op = regularized::StepDropout::new(options.dropout, number, seq_len, features);
        x = builder.op1(op, &[&x], &[seq_len, features], 0..0)?;
    }
    let outputs = if by_steps {
        let (cell, range): (Box<dyn Cell>, _) = if options.layer_norm {
            let (cell, range) = Normalized::build(builder, &descriptor, unit_forget_bias)?;
            (Box::new(cell), range)
        } else {
            let range = weights(builder, &descriptor, unit_forget_bias, options)?;
            (Box::new(regularized::Operator::new(&descriptor)), range)
        };
        let cell = Regularized::new(cell, options.recurrent_dropout, options.zoneout, builder);
        steps(builder, Box::new(cell), &x, mask.as_ref(), &states, range, options)?
    } else {
        let range = weights(builder, &descriptor, unit_forget_bias, options)?;
        let others = [descriptor.cell.other_states() * units];
        let states_wanted = options.return_state;
        let mut shapes: Vec<&[usize]> = Vec::new();
        let (every, last) = ([seq_len, units], [units]);
        shapes.push(if options.return_sequences { &every } else { &last });
        if states_wanted {
            shapes.push(&last);
            if descriptor.cell.has_cell_state() {
                shapes.push(&others);
            }
        }
        let lookup = x.lookup().filter(|(numbers, _)| numbers.shape() == [seq_len]);
        let op = Sequence::new(builder.name(), descriptor, seq_len, options).of_rows(lookup.map(|(_, rows)| rows));
        let inputs = [Some(&x), mask.as_ref(), states.first(), states.get(1), lookup.map(|(numbers, _)| numbers)];
        builder.op(op, &inputs, &shapes, range, 0..0)?
    };
    let mut outputs = outputs;
    if options.return_sequences {
        let mask = inputs[0].mask();
        let y = outputs.remove(0);
        let y = match options.go_backwards && !in_place {
            false => y.with_mask(mask),
            true => {
                let mask = mask.map(|mask| reversed(builder, mask)).transpose()?;
                reversed(builder, &y)?.with_mask(mask.as_ref())
            }
        };
        outputs.insert(0, y);
    }
    regularize(builder, &outputs, options.activity_regularizer)?;
    Ok(outputs)
}

/// The initial states given behind the input, checked.
fn initial_states(
    builder: &Builder,
    given: &[Value],
    descriptor: &RnnDescriptor,
    options: &RecurrentOptions,
) -> Result<Vec<Value>> {
    let count = if descriptor.cell.has_cell_state() { 2 } else { 1 };
    if given.is_empty() {
        return Ok(Vec::new());
    }
    if given.len() != count {
        let expected = format!("the sequence, and then none or {count} initial states");
        return Err(Error::shape(builder.name(), expected, format!("{} states", given.len())));
    }
    if options.stateful {
        return Err(Error::option(
            format!("stateful of {}", builder.name()),
            "false where initial states are given",
            "true",
        ));
    }
    let units = descriptor.hidden_size;
    for (state, width) in given.iter().zip([units, descriptor.cell.other_states() * units]) {
        if state.shape() != [width] {
            let expected = format!("initial states of shape [{width}]");
            return Err(Error::shape(builder.name(), expected, format!("{:?}", state.shape())));
        }
    }
    Ok(given.to_vec())
}

/// Refuses another number of carried tensors than a layer has.
pub(super) fn wrong_states(layer: &str, expected: usize, got: usize) -> Error {
    Error::shape(layer, format!("{expected} tensors of states"), got.to_string())
}

/// A tensor that is kept from batch to batch, zeros before the first.
pub(super) struct Carried {
    pub tensor: Scratch,
    pub batch: Option<usize>,
    /// Elements of a sample.
    width: usize,
}

impl Carried {
    pub fn new() -> Self {
        Carried { tensor: Scratch::new(), batch: None, width: 0 }
    }

    /// What is kept, if anything.
    pub fn view(&self) -> Option<TensorRef<'_>> {
        self.tensor.get(self.batch? * self.width).ok()
    }

    /// Keeps these values, in the host's memory, of a batch of this size.
    pub fn set(&mut self, device: &Device, layer: &str, batch: usize, width: usize, from: TensorRef<'_>) -> Result<()> {
        let len = batch.saturating_mul(width);
        if from.len() != len || batch == 0 {
            let expected = format!("states of {batch} samples with {width} elements each");
            return Err(Error::shape(layer, expected, format!("{} elements", from.len())));
        }
        self.tensor.grow(device, "states", len)?;
        device.upload_tensor(from, self.tensor.get_mut(len)?)?;
        (self.batch, self.width) = (Some(batch), width);
        Ok(())
    }

    /// Makes it ready for a batch of this size, `width` elements a sample.
    pub fn prepare(&mut self, device: &Device, layer: &str, batch: usize, width: usize) -> Result<()> {
        match self.batch {
            Some(known) if known == batch => Ok(()),
            Some(known) => Err(Error::shape(
                layer,
                format!("batches of {known} samples, since it is stateful (or reset_states first)"),
                format!("{batch} samples"),
            )),
            None => {
                self.tensor.grow(device, "states", batch * width)?;
                device.fill(self.tensor.get_mut(batch * width)?, 0.0)?;
                (self.batch, self.width) = (Some(batch), width);
                Ok(())
            }
        }
    }
}
