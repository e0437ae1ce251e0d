//! The description of an operator as a C struct.

use fused_rnn::cell::{Activation, Activations, CellKind};
use fused_rnn::rnn::{Bias, Direction, ForgetGate, GruReset, InputKind, Layout, Memory, PaddedOutput, RnnDescriptor};

use crate::status::{Failure, Result, Status};

/// The cells.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The simple RNN.
    Rnn = 0,
    /// LSTM.
    Lstm = 1,
    /// GRU.
    Gru = 2,
    /// sLSTM, of xLSTM.
    Slstm = 3,
    /// The minimal gated unit.
    Mgu = 4,
}

/// Types of elements. The CPU has the first two.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits.
    F32 = 0,
    /// 64 bits.
    F64 = 1,
    /// IEEE's 16 bits.
    F16 = 2,
    /// The upper half of 32 bits.
    Bf16 = 3,
}

/// What a plan is for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forward only; no dropout, no reserve.
    Inference = 0,
    /// Forward with dropout and a reserve, then backward.
    Training = 1,
}

/// Direction of the time loop.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directions {
    /// From the first step to the last.
    Forward = 0,
    /// From the last valid step to the first.
    Reverse = 1,
    /// Both; `y` holds the forward features first.
    Bidirectional = 2,
}

/// Which bias vectors a layer has.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Biases {
    /// `bias_ih` and `bias_hh`, as PyTorch and ONNX.
    Double = 0,
    /// `bias_ih` only, as Keras.
    Single = 1,
    /// None.
    None = 2,
}

/// Order of the axes of `x`, `y` and their gradients.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// `[seq_len, batch, features]`.
    SequenceMajor = 0,
    /// `[batch, seq_len, features]`.
    BatchMajor = 1,
}

/// What `x` holds.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Features.
    Features = 0,
    /// `W x` of every gate, computed elsewhere; there is no `weight_ih`.
    Gates = 1,
}

/// Where the GRU applies its reset gate.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// After the recurrent product: PyTorch, Keras's default.
    After = 0,
    /// Before it: ONNX's default.
    Before = 1,
}

/// The forget gate of the sLSTM.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// `sigmoid(a)`.
    Sigmoid = 0,
    /// `exp(a)`.
    Exponential = 1,
}

/// What `y` holds past the end of a sequence.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padded {
    /// Zeros.
    Zero = 0,
    /// The last valid output.
    Hold = 1,
}

/// What training keeps from forward to backward.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything.
    Full = 0,
    /// The states before every `memory_value`-th step.
    Checkpoints = 1,
    /// Also the states beside h of every step.
    Light = 2,
    /// What fits `memory_value` bytes.
    Within = 3,
}

/// Activation functions, with ONNX's names and constants.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `tanh(x)`.
    Tanh = 0,
    /// `1 / (1 + exp(-x))`.
    Sigmoid = 1,
    /// `max(x, 0)`.
    Relu = 2,
    /// `clamp(alpha * x + beta, 0, 1)`.
    HardSigmoid = 3,
    /// `x / (1 + |x|)`.
    Softsign = 4,
    /// `ln(1 + exp(x))`.
    Softplus = 5,
    /// `x` above zero, `alpha * (exp(x) - 1)` below.
    Elu = 6,
    /// The ELU with the constants of its paper.
    Selu = 7,
    /// `x` above zero, `alpha * x` below.
    LeakyRelu = 8,
    /// `x` above `alpha`, else zero.
    ThresholdedRelu = 9,
    /// `alpha * tanh(beta * x)`.
    ScaledTanh = 10,
    /// `alpha * x + beta`.
    Affine = 11,
    /// `x`.
    Linear = 12,
}

/// What operands of products of f32 are rounded to on a GPU.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Not at all.
    Exact = 0,
    /// To tf32, for the tensor cores.
    Tf32 = 1,
    /// Mixed precision in bf16.
    Bf16 = 2,
    /// Mixed precision in f16.
    F16 = 3,
}

/// From a number to the choice that it stands for. Fields and parameters of the interface are `uint32_t`, so that a number which an option
/// has not is an error.
macro_rules! numbered {
    ($($name:ident $option:literal: $($variant:ident = $number:literal),*;)*) => {$(
        impl $name {
            /// The choice with this number.
            ///
            /// # Errors
            ///
            /// [`Status::InvalidOption`] for a number that is none's.
            pub fn of(number: u32) -> Result<Self> {
                const ALL: &[(u32, $name, &str)] = &[$(($number, $name::$variant, stringify!($variant))),*];
                // A number that stands for another variant than the enum says does not compile.
                const { $(assert!($name::$variant as u32 == $number);)* }
                if let Some((_, choice, _)) = ALL.iter().find(|(of, ..)| *of == number) {
                    return Ok(*choice);
                }
                let all: Vec<_> = ALL.iter().map(|(of, _, name)| format!("{of} ({name})")).collect();
                let problem = format!("option {}: expected one of {}, got {number}", $option, all.join(", "));
                Err(Failure::new(Status::InvalidOption, problem))
            }
        }
    )*};
}

numbered! {
    Rounding "compute": Exact = 0, Tf32 = 1, Bf16 = 2, F16 = 3;
    Cell "cell": Rnn = 0, Lstm = 1, Gru = 2, Slstm = 3, Mgu = 4;
    Dtype "dtype": F32 = 0, F64 = 1, F16 = 2, Bf16 = 3;
    Mode "mode": Inference = 0, Training = 1;
    Directions "direction": Forward = 0, Reverse = 1, Bidirectional = 2;
    Biases "bias": Double = 0, Single = 1, None = 2;
    Axes "layout": SequenceMajor = 0, BatchMajor = 1;
    Input "input": Features = 0, Gates = 1;
    Reset "reset": After = 0, Before = 1;
    Forget "forget_gate": Sigmoid = 0, Exponential = 1;
    Padded "padded_output": Zero = 0, Hold = 1;
    Keep "memory": Full = 0, Checkpoints = 1, Light = 2, Within = 3;
    Function "activation": Tanh = 0, Sigmoid = 1, Relu = 2, HardSigmoid = 3, Softsign = 4, Softplus = 5, Elu = 6, Selu = 7, LeakyRelu = 8, ThresholdedRelu = 9, ScaledTanh = 10, Affine = 11, Linear = 12;
}

/// An activation function: one of `frnn_function`, and its constants where it has such.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ActivationOption {
    /// One of `frnn_function`.
    pub function: u32,
    /// Its first constant.
    pub alpha: f64,
    /// Its second constant.
    pub beta: f64,
}

/// The functions of a cell.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ActivationOptions {
    /// Of the gates.
    pub gate: ActivationOption,
    /// Of the candidate state.
    pub state: ActivationOption,
    /// Of the LSTM's cell state on its way to the output.
    pub output: ActivationOption,
}

/// An operator: its cell, its options, and the sizes that its weights have. `frnn_descriptor_default` fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Bytes of this struct, as the caller was compiled with it.
    pub size: usize,
    /// One of `frnn_cell`.
    pub cell: u32,
    /// One of `frnn_input`.
    pub input: u32,
    /// Features of `x`; where the input is gates, directions * gates * `hidden_size`.
    pub input_size: usize,
    /// Units of every layer and direction.
    pub hidden_size: usize,
    /// Blocks of the recurrent weights; 1 for full ones, as many as units for the IndRNN.
    pub heads: usize,
    /// Stacked layers.
    pub num_layers: usize,
    /// Width of the LSTM's projection, or 0 for none.
    pub proj_size: usize,
    /// One of `frnn_directions`.
    pub direction: u32,
    /// One of `frnn_biases`.
    pub bias: u32,
    /// One of `frnn_axes`.
    pub layout: u32,
    /// GRU: one of `frnn_reset`.
    pub reset: u32,
    /// sLSTM: one of `frnn_forget`.
    pub forget_gate: u32,
    /// One of `frnn_padded`.
    pub padded_output: u32,
    /// LSTM: 1 for peepholes.
    pub peepholes: u32,
    /// LSTM: 1 for `f = 1 - i`.
    pub coupled_input_forget: u32,
    /// One of `frnn_keep`.
    pub memory: u32,
    /// 1 where the second direction has `reverse_activations`.
    pub has_reverse_activations: u32,
    /// Steps between checkpoints, or bytes.
    pub memory_value: usize,
    /// Activation functions.
    pub activations: ActivationOptions,
    /// Those of the second direction, where `has_reverse_activations` is 1.
    pub reverse_activations: ActivationOptions,
    /// Probability of dropping an element between layers, in training.
    pub dropout: f64,
    /// Bound of the pre-activations, or 0 for none.
    pub gate_clip: f64,
    /// LSTM: bound of the cell state, or 0 for none.
    pub cell_clip: f64,
}

fn activation(option: ActivationOption) -> Result<Activation> {
    let base = match Function::of(option.function)? {
        Function::Tanh => Activation::Tanh,
        Function::Sigmoid => Activation::Sigmoid,
        Function::Relu => Activation::Relu,
        Function::HardSigmoid => Activation::ONNX_HARD_SIGMOID,
        Function::Softsign => Activation::Softsign,
        Function::Softplus => Activation::Softplus,
        Function::Elu => Activation::Elu { alpha: 1.0 },
        Function::Selu => Activation::Selu,
        Function::LeakyRelu => Activation::LeakyRelu { alpha: 0.01 },
        Function::ThresholdedRelu => Activation::ThresholdedRelu { alpha: 1.0 },
        Function::ScaledTanh => Activation::ScaledTanh { alpha: 1.0, beta: 1.0 },
        Function::Affine => Activation::Affine { alpha: 1.0, beta: 0.0 },
        Function::Linear => Activation::Linear,
    };
    Ok(base.with_constants(Some(option.alpha), Some(option.beta)))
}

fn activations(options: ActivationOptions) -> Result<Activations> {
    Ok(Activations {
        gate: activation(options.gate)?,
        state: activation(options.state)?,
        output: activation(options.output)?,
    })
}

fn flag(name: &str, number: u32) -> Result<bool> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::new(Status::InvalidOption, format!("option {name}: expected 0 or 1, got {number}"))),
    }
}

impl Descriptor {
    /// One forward layer with PyTorch's defaults.
    pub fn new(cell: u32, input_size: usize, hidden_size: usize) -> Self {
        let option = |function: Function| ActivationOption { function: function as u32, alpha: 0.0, beta: 0.0 };
        let (gate, state, output) = (option(Function::Sigmoid), option(Function::Tanh), option(Function::Tanh));
        let activations = ActivationOptions { gate, state, output };
        Descriptor {
            size: size_of::<Descriptor>(),
            cell,
            input: 0,
            input_size,
            hidden_size,
            heads: 1,
            num_layers: 1,
            proj_size: 0,
            direction: 0,
            bias: 0,
            layout: 0,
            reset: 0,
            forget_gate: 0,
            padded_output: 0,
            peepholes: 0,
            coupled_input_forget: 0,
            memory: 0,
            has_reverse_activations: 0,
            memory_value: 0,
            activations,
            reverse_activations: activations,
            dropout: 0.0,
            gate_clip: 0.0,
            cell_clip: 0.0,
        }
    }

    /// The operator.
    ///
    /// # Errors
    ///
    /// [`Status::InvalidOption`] for a number that an option has not; what
    /// [`RnnDescriptor::validate`] returns.
    pub fn operator(&self) -> Result<RnnDescriptor> {
        let cell = match Cell::of(self.cell)? {
            Cell::Rnn => CellKind::Rnn,
            Cell::Lstm => CellKind::Lstm,
            Cell::Gru => CellKind::Gru,
            Cell::Slstm => CellKind::Slstm,
            Cell::Mgu => CellKind::Mgu,
        };
        let mut operator = RnnDescriptor::new(cell, self.input_size, self.hidden_size);
        operator.heads = self.heads;
        operator.num_layers = self.num_layers;
        operator.proj_size = (self.proj_size > 0).then_some(self.proj_size);
        operator.direction = match Directions::of(self.direction)? {
            Directions::Forward => Direction::Forward,
            Directions::Reverse => Direction::Reverse,
            Directions::Bidirectional => Direction::Bidirectional,
        };
        operator.input = match Input::of(self.input)? {
            Input::Features => InputKind::Features,
            Input::Gates => InputKind::Gates,
        };
        operator.bias = match Biases::of(self.bias)? {
            Biases::Double => Bias::Double,
            Biases::Single => Bias::Single,
            Biases::None => Bias::None,
        };
        operator.layout = match Axes::of(self.layout)? {
            Axes::SequenceMajor => Layout::SequenceMajor,
            Axes::BatchMajor => Layout::BatchMajor,
        };
        operator.reset = match Reset::of(self.reset)? {
            Reset::After => GruReset::After,
            Reset::Before => GruReset::Before,
        };
        operator.forget_gate = match Forget::of(self.forget_gate)? {
            Forget::Sigmoid => ForgetGate::Sigmoid,
            Forget::Exponential => ForgetGate::Exponential,
        };
        operator.padded_output = match Padded::of(self.padded_output)? {
            Padded::Zero => PaddedOutput::Zero,
            Padded::Hold => PaddedOutput::Hold,
        };
        operator.memory = match Keep::of(self.memory)? {
            Keep::Full => Memory::Full,
            Keep::Checkpoints => Memory::Checkpoints { every: self.memory_value },
            Keep::Light => Memory::Light { every: self.memory_value },
            Keep::Within => Memory::Within { bytes: self.memory_value },
        };
        operator.peepholes = flag("peepholes", self.peepholes)?;
        operator.coupled_input_forget = flag("coupled_input_forget", self.coupled_input_forget)?;
        operator.activations = activations(self.activations)?;
        if flag("has_reverse_activations", self.has_reverse_activations)? {
            operator.reverse_activations = Some(activations(self.reverse_activations)?);
        }
        operator.dropout = self.dropout;
        operator.gate_clip = (self.gate_clip != 0.0).then_some(self.gate_clip);
        operator.cell_clip = (self.cell_clip != 0.0).then_some(self.cell_clip);
        operator.validate()?;
        Ok(operator)
    }
}
