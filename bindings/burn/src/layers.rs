//! [`Lstm`], [`Gru`] and [`Rnn`] with the configurations of burn's layers of these names, and more options.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_core as burn;
use burn_nn::{Initializer, LstmState, RnnState};
use fused_rnn::cell::{Activation, CellKind};
use fused_rnn::rnn::{Bias, Direction, GruReset, Layout, RnnDescriptor};
use fused_rnn::{Error, Result};

use crate::recurrent::{Call, Frozen, Output, Recurrent, States};

/// Configuration of an [`Lstm`]: burn's [`LstmConfig`](burn_nn::LstmConfig), with layers, both directions, dropout and a projection
/// besides. Activations are an LSTM's usual ones.
#[derive(Config, Debug)]
pub struct LstmConfig {
    /// Width of the input.
    pub d_input: usize,
    /// Units of every layer and direction.
    pub d_hidden: usize,
    /// Biases `bias_ih` and `bias_hh`.
    pub bias: bool,
    /// How weights begin.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// `x` and `y` are `[batch, seq_len, features]`, otherwise `[seq_len, batch, features]`.
    #[config(default = true)]
    pub batch_first: bool,
    /// From the last step to the first. Not together with both directions.
    #[config(default = false)]
    pub reverse: bool,
    /// Clamps the cell state to `±clip` after each step.
    pub clip: Option<f64>,
    /// The forget gate is one minus the input gate.
    #[config(default = false)]
    pub input_forget: bool,
    /// Stacked layers.
    #[config(default = 1)]
    pub num_layers: usize,
    /// Both directions.
    #[config(default = false)]
    pub bidirectional: bool,
    /// Probability of dropping an element of the input of every layer but the first, in training.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Width of the output, which is projected.
    pub proj_size: Option<usize>,
}

/// Configuration of a [`Gru`]: burn's [`GruConfig`](burn_nn::GruConfig), with layers, both directions and dropout besides. Activations
/// are a GRU's usual ones.
#[derive(Config, Debug)]
pub struct GruConfig {
    /// Width of the input.
    pub d_input: usize,
    /// Units of every layer and direction.
    pub d_hidden: usize,
    /// Biases `bias_ih` and `bias_hh`.
    pub bias: bool,
    /// The reset gate acts after the product with the recurrent weights, as in PyTorch.
    #[config(default = true)]
    pub reset_after: bool,
    /// How weights begin.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// `x` and `y` are `[batch, seq_len, features]`, otherwise `[seq_len, batch, features]`.
    #[config(default = true)]
    pub batch_first: bool,
    /// Stacked layers.
    #[config(default = 1)]
    pub num_layers: usize,
    /// Both directions.
    #[config(default = false)]
    pub bidirectional: bool,
    /// Probability of dropping an element of the input of every layer but the first, in training.
    #[config(default = 0.0)]
    pub dropout: f64,
}

/// Configuration of an [`Rnn`]: burn's [`RnnConfig`](burn_nn::RnnConfig), with layers, both directions and dropout besides.
#[derive(Config, Debug)]
pub struct RnnConfig {
    /// Width of the input.
    pub d_input: usize,
    /// Units of every layer and direction.
    pub d_hidden: usize,
    /// Biases `bias_ih` and `bias_hh`.
    pub bias: bool,
    /// How weights begin.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// `x` and `y` are `[batch, seq_len, features]`, otherwise `[seq_len, batch, features]`.
    #[config(default = true)]
    pub batch_first: bool,
    /// From the last step to the first. Not together with both directions.
    #[config(default = false)]
    pub reverse: bool,
    /// Relu instead of tanh.
    #[config(default = false)]
    pub relu: bool,
    /// Stacked layers.
    #[config(default = 1)]
    pub num_layers: usize,
    /// Both directions.
    #[config(default = false)]
    pub bidirectional: bool,
    /// Probability of dropping an element of the input of every layer but the first, in training.
    #[config(default = 0.0)]
    pub dropout: f64,
}

fn direction(reverse: bool, bidirectional: bool) -> Result<Direction> {
    match (reverse, bidirectional) {
        (false, false) => Ok(Direction::Forward),
        (true, false) => Ok(Direction::Reverse),
        (false, true) => Ok(Direction::Bidirectional),
        (true, true) => Err(Error::InvalidOption {
            option: "reverse".to_owned(),
            expected: "not set where the layer is bidirectional".to_owned(),
            got: "true".to_owned(),
        }),
    }
}

fn layout(batch_first: bool) -> Layout {
    if batch_first { Layout::BatchMajor } else { Layout::SequenceMajor }
}

fn bias(bias: bool) -> Bias {
    if bias { Bias::Double } else { Bias::None }
}

macro_rules! configs {
    ($($config:ident, $name:ident, $self:ident, $cell:ident => { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            impl $config {
                /// What the layer is to compute.
                ///
                /// # Errors
                ///
                /// [`Error::InvalidOption`] for options that exclude each other.
                pub fn descriptor(&self) -> Result<RnnDescriptor> {
                    let $self = self;
                    let mut descriptor = RnnDescriptor::new(CellKind::$cell, self.d_input, self.d_hidden);
                    descriptor.num_layers = self.num_layers;
                    descriptor.layout = layout(self.batch_first);
                    descriptor.bias = bias(self.bias);
                    descriptor.dropout = self.dropout;
                    $(descriptor.$field = $value;)*
                    Ok(descriptor)
                }

                /// The layer. Unlike burn's, this fails where an option is out of range.
                ///
                /// # Errors
                ///
                /// Those of [`Recurrent::init`], and of options that exclude each other.
                pub fn init(&self, device: &Device) -> Result<$name> {
                    Ok($name { recurrent: Recurrent::init(&self.descriptor()?, &self.initializer, device)? })
                }
            }
        )*
    };
}

configs! {
    LstmConfig, Lstm, config, Lstm => {
        direction: direction(config.reverse, config.bidirectional)?,
        cell_clip: config.clip,
        coupled_input_forget: config.input_forget,
        proj_size: config.proj_size,
    }
    GruConfig, Gru, config, Gru => {
        direction: direction(false, config.bidirectional)?,
        reset: if config.reset_after { GruReset::After } else { GruReset::Before },
    }
    RnnConfig, Rnn, config, Rnn => {
        direction: direction(config.reverse, config.bidirectional)?,
        activations: fused_rnn::cell::Activations {
            state: if config.relu { Activation::Relu } else { Activation::Tanh },
            ..Default::default()
        },
    }
}

macro_rules! layers {
    ($($name:ident $config:ident $what:literal),*) => {
        $(
            #[doc = concat!("The ", $what, " on burn's CPU backend, made by [`", stringify!($config), "`].")]
            #[derive(Module, Debug)]
            pub struct $name {
                /// Its weights.
                pub recurrent: Recurrent,
            }

            impl $name {
                /// Outputs and final states: see [`Recurrent::run`].
                ///
                /// # Errors
                ///
                /// As [`Recurrent::run`].
                pub fn run(&self, x: Tensor<3>, call: &Call) -> Result<Output> {
                    self.recurrent.run(x, call)
                }

                /// The layer with the weights as they are now, packed once: see [`Recurrent::frozen`].
                ///
                /// # Errors
                ///
                /// As [`Recurrent::frozen`].
                pub fn frozen(&self) -> Result<Frozen> {
                    self.recurrent.frozen()
                }

                /// The layer with other weights, under PyTorch's names: see [`Recurrent::with_weights`].
                ///
                /// # Errors
                ///
                /// As [`Recurrent::with_weights`].
                pub fn with_weights(
                    self,
                    weights: std::collections::HashMap<String, TensorData>,
                    device: &Device,
                ) -> Result<Self> {
                    Ok($name { recurrent: self.recurrent.with_weights(weights, device)? })
                }
            }
        )*
    };
}

layers!(Lstm LstmConfig "LSTM", Gru GruConfig "GRU", Rnn RnnConfig "RNN");

/// Checks that a state is one row, as burn's layers have it.
fn check(layer: &Recurrent) -> Result<()> {
    let descriptor = layer.descriptor();
    if descriptor.num_layers == 1 && descriptor.direction != Direction::Bidirectional {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("forward of {} layers, {:?}", descriptor.num_layers, descriptor.direction),
        why: "its states are those of one layer and direction, as burn's; use run, whose states are those of all"
            .to_owned(),
    })
}

/// A call from a state of one layer and direction.
fn from_state(h: Option<Tensor<2>>, c: Option<Tensor<2>>) -> Call {
    match h {
        Some(h) => Call::default().states(&States { h: h.unsqueeze(), c: c.map(|c| c.unsqueeze()) }),
        None => Call::default(),
    }
}

impl Lstm {
    /// Outputs and final state from an initial one, as [`burn_nn::Lstm::forward`]: states are `[batch, d_hidden]`.
    ///
    /// # Errors
    ///
    /// As [`Recurrent::run`]; [`Error::Unsupported`] for more than one layer or direction.
    pub fn forward(&self, x: Tensor<3>, state: Option<LstmState<2>>) -> Result<(Tensor<3>, LstmState<2>)> {
        check(&self.recurrent)?;
        let (c, h) = state.map(LstmState::unpack).unzip();
        let Output { y, states } = self.run(x, &from_state(h, c))?;
        match states.c {
            Some(c) => Ok((y, LstmState { cell: c.squeeze_dim(0), hidden: states.h.squeeze_dim(0) })),
            None => Err(Error::Presence { tensor: "cn".to_owned(), problem: "an LSTM has cell states".to_owned() }),
        }
    }
}

impl Gru {
    /// Outputs from an initial state `[batch, d_hidden]`, as [`burn_nn::Gru::forward`].
    ///
    /// # Errors
    ///
    /// As [`Recurrent::run`]; [`Error::Unsupported`] for more than one layer or direction where there is a state.
    pub fn forward(&self, x: Tensor<3>, state: Option<Tensor<2>>) -> Result<Tensor<3>> {
        if state.is_some() {
            check(&self.recurrent)?;
        }
        self.recurrent.outputs(x, &from_state(state, None))
    }
}

impl Rnn {
    /// Outputs and final state from an initial one, as [`burn_nn::Rnn::forward`]: states are `[batch, d_hidden]`.
    ///
    /// # Errors
    ///
    /// As [`Recurrent::run`]; [`Error::Unsupported`] for more than one layer or direction.
    pub fn forward(&self, x: Tensor<3>, state: Option<RnnState<2>>) -> Result<(Tensor<3>, RnnState<2>)> {
        check(&self.recurrent)?;
        let Output { y, states } = self.run(x, &from_state(state.map(|state| state.hidden), None))?;
        Ok((y, RnnState { hidden: states.h.squeeze_dim(0) }))
    }
}
