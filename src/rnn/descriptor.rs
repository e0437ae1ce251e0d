//! What a recurrent operator computes: [`RnnDescriptor`].

use crate::cell::{Activations, Candidate, CellKind, CellOption};
use crate::error::{Error, Result};
use crate::rnn::Memory;

/// Direction of the time loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// From the first step to the last.
    #[default]
    Forward,
    /// From the last valid step (`lengths[b] - 1`) to the first. Outputs stay at the step they belong to.
    Reverse,
    /// Both, independently; `y` holds the forward features first, then the reverse ones.
    Bidirectional,
}

impl Direction {
    /// Number of directions `D`: 1 or 2.
    pub fn count(self) -> usize {
        if self == Direction::Bidirectional { 2 } else { 1 }
    }

    /// Whether direction number `index` (`0..count()`) runs from the last step to the first.
    pub fn is_reverse(self, index: usize) -> bool {
        self == Direction::Reverse || index == 1
    }
}

/// Which bias vectors a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Bias {
    /// None.
    None,
    /// `bias_ih` only, as Keras's LSTM, SimpleRNN and GRU with `reset_after=False`.
    Single,
    /// `bias_ih` and `bias_hh`, as PyTorch and ONNX.
    #[default]
    Double,
}

/// Order of the axes of `x`, `y` and their gradients. States, masks and the reserve are always sequence-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// `[seq_len, batch, features]`, PyTorch's default.
    #[default]
    SequenceMajor,
    /// `[batch, seq_len, features]`, PyTorch's `batch_first`, Keras.
    BatchMajor,
}

/// Where the GRU applies its reset gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum GruReset {
    /// `n = g(W_n x + b_in + r * (R_n h + b_hn))`: PyTorch, cuDNN, Keras's default, ONNX `linear_before_reset = 1`.
    #[default]
    After,
    /// `n = g(W_n x + b_in + R_n (r * h) + b_hn)`: the original paper, ONNX's default.
    Before,
}

/// The forget gate of the sLSTM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ForgetGate {
    /// `sigmoid(a)`
    #[default]
    Sigmoid,
    /// `exp(a)`
    Exponential,
}

/// What `x` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum InputKind {
    /// Features, which the operator multiplies with `weight_ih`.
    #[default]
    Features,
    /// `W x` of every gate, computed elsewhere: a row of `x` holds `D * G * H` elements, direction by direction the gates in the
    /// order of the weights' rows. There is no `weight_ih`; the biases are as [`RnnDescriptor::bias`] says. `dx` is the gradient
    /// of the gates' pre-activations. One layer only.
    Gates,
}

/// What `y` holds at steps past a sequence's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum PaddedOutput {
    /// Zeros, as PyTorch and ONNX.
    #[default]
    Zero,
    /// The previous output in the order of processing, as Keras: forward, that of the last valid step; in the reverse
    /// direction padding comes before every valid step, so there it is zero.
    Hold,
}

/// What the recurrent product of the last gate is, with the descriptor's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CandidateTerm {
    /// `R h_prev`, added to `W x` as of every gate.
    Summed,
    /// `q = R h_prev + b_hh`, kept apart from `W x + b_ih`, since a gate is multiplied with it alone.
    Apart,
    /// `R q`, where q is `h_prev` after a gate has acted on it: a second product in every step.
    Second,
}

/// A recurrent operator: the cell, its options, and the sizes that its weights have.
///
/// Make one with [`RnnDescriptor::rnn`], [`RnnDescriptor::lstm`], [`RnnDescriptor::gru`] … and set what differs from
/// PyTorch's defaults:
///
/// ```
/// use fused_rnn::rnn::{Direction, RnnDescriptor};
/// let mut descriptor = RnnDescriptor::lstm(64, 128).num_layers(2).direction(Direction::Bidirectional);
/// descriptor.dropout = 0.1; // its fields are public too
/// descriptor.validate()?;
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// # What one layer and direction computes
///
/// With `x_t` the layer's input, `h` the previous output (`proj_size` wide when there is a projection), each gate's
/// pre-activation is `a = W x_t + b_ih + R h + b_hh` (`R` block-diagonal where there are several heads), clamped to `±gate_clip` before its activation; the cells' own
/// equations stand in [`crate::cell`]. Around them:
///
/// - **lengths**: sequence `b` takes part in steps `0..lengths[b]` only; its final state is that of its last valid step.
/// - **resets**: where the mask is set at `(t, b)`, the state is set to the initial state (`h0`, `c0`, or zero) before step
///   `t` is processed, in the order of the time loop.
/// - **dropout**: in training, the input of every layer but the first is multiplied by a mask of zeros and
///   `1 / (1 - dropout)` from [`crate::rnn::dropout`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RnnDescriptor {
    /// The cell.
    pub cell: CellKind,
    /// Features of `x`; where the input is gates, `D * G * H`.
    pub input_size: usize,
    /// What `x` holds.
    pub input: InputKind,
    /// Units of every layer and direction.
    pub hidden_size: usize,
    /// Blocks of the recurrent weights, 1 for full ones: with more, a unit sees the previous output of its own head's
    /// `hidden_size / heads` units alone, and `weight_hh` is `[G, heads, hidden_size / heads, hidden_size / heads]`. With as
    /// many heads as units every unit sees only itself. Not together with a projection.
    pub heads: usize,
    /// Stacked layers; each reads the one below (both directions of it, concatenated).
    pub num_layers: usize,
    /// Direction of every layer.
    pub direction: Direction,
    /// Bias vectors of every layer.
    pub bias: Bias,
    /// Axes of `x` and `y`.
    pub layout: Layout,
    /// Activation functions.
    pub activations: Activations,
    /// Activation functions of the second direction of a bidirectional operator, where they differ (ONNX allows it).
    pub reverse_activations: Option<Activations>,
    /// GRU only: where the reset gate acts.
    pub reset: GruReset,
    /// sLSTM only: the function of the forget gate.
    pub forget_gate: ForgetGate,
    /// Probability of dropping an element of a layer's input, for layers after the first, in training. `0.0..=1.0`.
    pub dropout: f64,
    /// LSTM only: the output is `weight_hr` `[proj_size, hidden_size]` times `h` ([Sak et al. 2014](https://arxiv.org/abs/1402.1128)).
    pub proj_size: Option<usize>,
    /// LSTM only: `c` enters the gates i, f (previous step) and o (this step) through `weight_peephole` `[3 * hidden_size]`.
    pub peepholes: bool,
    /// LSTM only: `f = 1 - i`. The rows of the forget gate stay in the weights, unused, with zero gradients.
    pub coupled_input_forget: bool,
    /// Every pre-activation is clamped to `±gate_clip`, ONNX's `clip`.
    pub gate_clip: Option<f64>,
    /// LSTM only: `c` is clamped to `±cell_clip` after its update, cuDNN's and TensorFlow's cell clip.
    pub cell_clip: Option<f64>,
    /// `y` past a sequence's length.
    pub padded_output: PaddedOutput,
    /// What training keeps from forward to backward.
    pub memory: Memory,
}

/// A method for each option, which sets it.
macro_rules! setters {
    ($($option:ident: $type:ty;)*) => {
        impl RnnDescriptor {
            $(
                #[doc = concat!("The same operator with [`", stringify!($option), "`](Self#structfield.", stringify!($option), ").")]
                #[must_use]
                pub fn $option(mut self, $option: $type) -> Self {
                    self.$option = $option;
                    self
                }
            )*
        }
    };
}

setters! {
    heads: usize;
    num_layers: usize;
    direction: Direction;
    bias: Bias;
    layout: Layout;
    activations: Activations;
    reverse_activations: Option<Activations>;
    reset: GruReset;
    forget_gate: ForgetGate;
    dropout: f64;
    proj_size: Option<usize>;
    peepholes: bool;
    coupled_input_forget: bool;
    gate_clip: Option<f64>;
    cell_clip: Option<f64>;
    padded_output: PaddedOutput;
    memory: Memory;
}

impl RnnDescriptor {
    /// One forward layer of `cell` with PyTorch's defaults.
    pub fn new(cell: CellKind, input_size: usize, hidden_size: usize) -> Self {
        RnnDescriptor {
            cell,
            input_size,
            input: InputKind::default(),
            hidden_size,
            heads: 1,
            num_layers: 1,
            direction: Direction::default(),
            bias: Bias::default(),
            layout: Layout::default(),
            activations: Activations::default(),
            reverse_activations: None,
            reset: GruReset::default(),
            forget_gate: ForgetGate::default(),
            dropout: 0.0,
            proj_size: None,
            peepholes: false,
            coupled_input_forget: false,
            gate_clip: None,
            cell_clip: None,
            padded_output: PaddedOutput::default(),
            memory: Memory::default(),
        }
    }

    /// A simple RNN with tanh.
    pub fn rnn(input_size: usize, hidden_size: usize) -> Self {
        Self::new(CellKind::Rnn, input_size, hidden_size)
    }

    /// An LSTM.
    pub fn lstm(input_size: usize, hidden_size: usize) -> Self {
        Self::new(CellKind::Lstm, input_size, hidden_size)
    }

    /// A GRU, reset gate after the recurrent product.
    pub fn gru(input_size: usize, hidden_size: usize) -> Self {
        Self::new(CellKind::Gru, input_size, hidden_size)
    }

    /// An sLSTM, whose forget gate is a sigmoid.
    pub fn slstm(input_size: usize, hidden_size: usize) -> Self {
        Self::new(CellKind::Slstm, input_size, hidden_size)
    }

    /// An independently recurrent network ([Li et al. 2018](https://arxiv.org/abs/1803.04831)): a simple RNN whose units see no
    /// other's state, that is with as many heads as units; `weight_hh` is `[1, hidden_size, 1, 1]`. With tanh, as in Haste; the
    /// paper has relu.
    pub fn ind_rnn(input_size: usize, hidden_size: usize) -> Self {
        let mut descriptor = Self::rnn(input_size, hidden_size);
        descriptor.heads = hidden_size;
        descriptor
    }

    /// The same operator on gates that are computed elsewhere, see [`InputKind::Gates`]. Set the direction before.
    #[must_use]
    pub fn of_gates(mut self) -> Self {
        self.input = InputKind::Gates;
        self.input_size = self.gates_size();
        self
    }

    /// Width `D * G * H` of the gates of all directions.
    pub(crate) fn gates_size(&self) -> usize {
        self.num_directions().saturating_mul(self.cell.gates()).saturating_mul(self.hidden_size)
    }

    /// Elements of a row of `weight_hh`: the part of the previous output that a unit sees.
    pub fn head_size(&self) -> usize {
        self.output_size() / self.heads.max(1)
    }

    /// What the recurrent product of the last gate is.
    pub(crate) fn candidate(&self) -> CandidateTerm {
        match (self.cell.spec().candidate, self.reset) {
            (Candidate::Plain, _) => CandidateTerm::Summed,
            (Candidate::Reset, GruReset::After) => CandidateTerm::Apart,
            (Candidate::Reset, GruReset::Before) | (Candidate::Gated, _) => CandidateTerm::Second,
        }
    }

    /// Number of directions `D`.
    pub fn num_directions(&self) -> usize {
        self.direction.count()
    }

    /// Width `P` of one direction's output `h`: `proj_size`, or `hidden_size` without projection.
    pub fn output_size(&self) -> usize {
        self.proj_size.unwrap_or(self.hidden_size)
    }

    /// Features of the input of layer `layer`: `input_size`, above it `D * P`.
    pub fn layer_input_size(&self, layer: usize) -> usize {
        if layer == 0 { self.input_size } else { self.num_directions().saturating_mul(self.output_size()) }
    }

    /// The activation functions of direction number `direction`.
    pub fn activations_of(&self, direction: usize) -> Activations {
        match self.reverse_activations {
            Some(other) if direction == 1 => other,
            _ => self.activations,
        }
    }

    /// Checks every option alone and beside the others.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for a size of zero; [`Error::InvalidOption`] for an option out of range or one that this cell
    /// has not.
    pub fn validate(&self) -> Result<()> {
        self.memory.validate()?;
        for (name, size) in [
            ("input_size", self.input_size),
            ("hidden_size", self.hidden_size),
            ("num_layers", self.num_layers),
            ("proj_size", self.output_size()),
        ] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        if !(0.0..=1.0).contains(&self.dropout) {
            return Err(Error::option("dropout", "a probability in 0.0..=1.0", self.dropout));
        }
        for (name, clip) in [("gate_clip", self.gate_clip), ("cell_clip", self.cell_clip)] {
            if let Some(clip) = clip.filter(|c| !(c.is_finite() && *c > 0.0)) {
                return Err(Error::option(name, "a finite number above zero", clip));
            }
        }
        if let Some(proj_size) = self.proj_size.filter(|p| *p >= self.hidden_size) {
            return Err(Error::option("proj_size", format!("less than hidden_size {}", self.hidden_size), proj_size));
        }
        for option in CellOption::ALL {
            if self.uses(option) && !self.cell.has(option) {
                let having = CellKind::ALL.into_iter().filter(|cell| cell.has(option));
                let titles: Vec<_> = having.map(|cell| cell.spec().title).collect();
                return Err(Error::option(
                    option.name(),
                    format!("the default, since only the {} has it", titles.join(" and the ")),
                    format!("another one for the {}", self.cell),
                ));
            }
        }
        if self.heads == 0 || !self.hidden_size.is_multiple_of(self.heads) {
            return Err(Error::option("heads", format!("a divisor of hidden_size {}", self.hidden_size), self.heads));
        }
        if self.heads > 1 && self.proj_size.is_some() {
            return Err(Error::option(
                "heads",
                "1 with a projection, whose output no head can call its own",
                self.heads,
            ));
        }
        if self.input == InputKind::Gates {
            if self.num_layers > 1 {
                return Err(Error::option(
                    "num_layers",
                    "1 where the input is gates, since a layer above needs weights of its own",
                    self.num_layers,
                ));
            }
            if self.input_size != self.gates_size() {
                let (d, g, h) = (self.num_directions(), self.cell.gates(), self.hidden_size);
                return Err(Error::option(
                    "input_size",
                    format!("directions {d} * gates {g} * hidden_size {h}, since the input is gates (see of_gates)"),
                    self.input_size,
                ));
            }
        }
        if self.reverse_activations.is_some() && self.direction != Direction::Bidirectional {
            return Err(Error::option("reverse_activations", "none unless the direction is bidirectional", "some"));
        }
        for (set, prefix) in
            [(Some(self.activations), "activations"), (self.reverse_activations, "reverse_activations")]
        {
            if let Some(set) = set {
                set.gate.validate(&format!("{prefix}.gate"))?;
                set.state.validate(&format!("{prefix}.state"))?;
                set.output.validate(&format!("{prefix}.output"))?;
            }
        }
        Ok(())
    }

    /// Whether an option that only some cells have is set to something but its default.
    fn uses(&self, option: CellOption) -> bool {
        match option {
            CellOption::Projection => self.proj_size.is_some(),
            CellOption::Peepholes => self.peepholes,
            CellOption::CoupledInputForget => self.coupled_input_forget,
            CellOption::CellClip => self.cell_clip.is_some(),
            CellOption::Reset => self.reset != GruReset::default(),
            CellOption::ForgetGate => self.forget_gate != ForgetGate::default(),
        }
    }
}
