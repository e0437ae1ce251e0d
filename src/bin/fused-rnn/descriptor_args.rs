//! The flags that describe an operator, for every subcommand that takes one.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use fused_rnn::cell::{Activation, Activations, CellKind};
use fused_rnn::rnn::{Bias, Direction, ForgetGate, GruReset, Layout, Memory, PaddedOutput, RnnDescriptor, RnnShape};

/// A flag with one value for each name.
fn choice<T: Copy + Send + Sync + 'static>(names: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names.iter().map(|(name, _)| *name)).try_map(move |given| {
        let found = names.iter().find(|(name, _)| *name == given);
        found.map(|(_, value)| *value).ok_or_else(|| format!("{given} is none of the possible values"))
    })
}

pub const DIRECTIONS: &[(&str, Direction)] =
    &[("forward", Direction::Forward), ("reverse", Direction::Reverse), ("bidirectional", Direction::Bidirectional)];
const BIASES: &[(&str, Bias)] = &[("none", Bias::None), ("single", Bias::Single), ("double", Bias::Double)];
const RESETS: &[(&str, GruReset)] = &[("after", GruReset::After), ("before", GruReset::Before)];
const FORGET_GATES: &[(&str, ForgetGate)] =
    &[("sigmoid", ForgetGate::Sigmoid), ("exponential", ForgetGate::Exponential)];

/// An operator and its sizes.
#[derive(clap::Args)]
#[command(next_help_heading = "Operator")]
pub struct DescriptorArgs {
    /// Cell: rnn, lstm, gru or another that `info` lists
    #[arg(long, default_value = "lstm")]
    pub cell: CellKind,
    /// Time steps T
    #[arg(long, default_value_t = 5, value_name = "T")]
    pub seq_len: usize,
    /// Sequences B
    #[arg(long, default_value_t = 3, value_name = "B")]
    pub batch: usize,
    /// Input features I
    #[arg(long, default_value_t = 4, value_name = "I")]
    pub input_size: usize,
    /// Units H of every layer and direction
    #[arg(long, default_value_t = 5, value_name = "H")]
    pub hidden_size: usize,
    /// Blocks of the recurrent weights; as many as units for an IndRNN
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub heads: usize,
    /// Stacked layers L
    #[arg(long, default_value_t = 1, value_name = "L")]
    pub layers: usize,
    /// Direction of every layer
    #[arg(long, default_value = "forward", value_parser = choice(DIRECTIONS))]
    pub direction: Direction,
    #[command(flatten)]
    pub options: OptionArgs,
}

/// What an operator has besides cell, sizes and direction.
#[derive(clap::Args)]
#[command(next_help_heading = "Operator")]
pub struct OptionArgs {
    /// x holds the gates W x themselves; the input size follows from the others
    #[arg(long)]
    pub gates_input: bool,
    /// Bias vectors
    #[arg(long, default_value = "double", value_parser = choice(BIASES))]
    pub bias: Bias,
    /// Activation of the gates, as NAME[:ALPHA[:BETA]]
    #[arg(long, default_value = "sigmoid", value_name = "ACTIVATION")]
    pub gate_activation: Activation,
    /// Activation of the candidate state, and of the simple RNN
    #[arg(long, default_value = "tanh", value_name = "ACTIVATION")]
    pub state_activation: Activation,
    /// LSTM: activation of the cell state on its way to the output
    #[arg(long, default_value = "tanh", value_name = "ACTIVATION")]
    pub output_activation: Activation,
    /// Bidirectional: gate activation of the reverse direction, if another
    #[arg(long, value_name = "ACTIVATION")]
    pub reverse_gate_activation: Option<Activation>,
    /// Bidirectional: state activation of the reverse direction, if another
    #[arg(long, value_name = "ACTIVATION")]
    pub reverse_state_activation: Option<Activation>,
    /// Bidirectional LSTM: output activation of the reverse direction, if another
    #[arg(long, value_name = "ACTIVATION")]
    pub reverse_output_activation: Option<Activation>,
    /// GRU: whether the reset gate acts after the recurrent product or before it
    #[arg(long, default_value = "after", value_parser = choice(RESETS))]
    pub reset: GruReset,
    /// sLSTM: the function of the forget gate
    #[arg(long, default_value = "sigmoid", value_parser = choice(FORGET_GATES))]
    pub forget_gate: ForgetGate,
    /// Probability of dropping an element between layers, in training
    #[arg(long, default_value_t = 0.0, value_name = "PROBABILITY")]
    pub dropout: f64,
    /// LSTM: project the output to this size
    #[arg(long, value_name = "P")]
    pub proj_size: Option<usize>,
    /// LSTM: peepholes
    #[arg(long)]
    pub peepholes: bool,
    /// LSTM: couple the forget gate to the input gate
    #[arg(long)]
    pub coupled: bool,
    /// Clamp every pre-activation to this magnitude
    #[arg(long, value_name = "BOUND")]
    pub gate_clip: Option<f64>,
    /// LSTM: clamp the cell state to this magnitude
    #[arg(long, value_name = "BOUND")]
    pub cell_clip: Option<f64>,
    /// Repeat the last output after a sequence's end, instead of zeros
    #[arg(long)]
    pub hold: bool,
    /// Training keeps the states before every N-th step and computes the others again; 0 to keep all that backward reads
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub checkpoints: usize,
    /// x and y are [batch, time, features]
    #[arg(long)]
    pub batch_major: bool,
}

/// What of an operator a sweep varies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    pub cell: CellKind,
    pub input_size: usize,
    pub hidden_size: usize,
    pub heads: usize,
    pub layers: usize,
    pub direction: Direction,
}

impl DescriptorArgs {
    /// The operator. Not validated yet.
    pub fn descriptor(&self) -> RnnDescriptor {
        let DescriptorArgs { cell, input_size, hidden_size, heads, layers, direction, .. } = *self;
        self.options.descriptor(Sizes { cell, input_size, hidden_size, heads, layers, direction })
    }

    /// How much of it.
    pub fn shape(&self) -> RnnShape {
        RnnShape { seq_len: self.seq_len, batch: self.batch }
    }
}

impl OptionArgs {
    /// The operator of these sizes. Not validated yet.
    pub fn descriptor(&self, sizes: Sizes) -> RnnDescriptor {
        let mut descriptor = RnnDescriptor::new(sizes.cell, sizes.input_size, sizes.hidden_size);
        descriptor.num_layers = sizes.layers;
        descriptor.heads = sizes.heads;
        descriptor.direction = sizes.direction;
        descriptor.bias = self.bias;
        descriptor.layout = if self.batch_major { Layout::BatchMajor } else { Layout::SequenceMajor };
        descriptor.activations =
            Activations { gate: self.gate_activation, state: self.state_activation, output: self.output_activation };
        let (gate, state, output) =
            (self.reverse_gate_activation, self.reverse_state_activation, self.reverse_output_activation);
        if gate.is_some() || state.is_some() || output.is_some() {
            descriptor.reverse_activations = Some(Activations {
                gate: gate.unwrap_or(self.gate_activation),
                state: state.unwrap_or(self.state_activation),
                output: output.unwrap_or(self.output_activation),
            });
        }
        descriptor.reset = self.reset;
        descriptor.forget_gate = self.forget_gate;
        descriptor.dropout = self.dropout;
        descriptor.proj_size = self.proj_size;
        descriptor.peepholes = self.peepholes;
        descriptor.coupled_input_forget = self.coupled;
        descriptor.gate_clip = self.gate_clip;
        descriptor.cell_clip = self.cell_clip;
        descriptor.padded_output = if self.hold { PaddedOutput::Hold } else { PaddedOutput::Zero };
        if self.checkpoints > 0 {
            descriptor.memory = Memory::Checkpoints { every: self.checkpoints };
        }
        if self.gates_input { descriptor.of_gates() } else { descriptor }
    }
}
