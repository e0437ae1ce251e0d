//! What a recurrent operator computes: [`RnnDescriptor`].

use crate::cell::{Activations, CellKind};
use crate::error::{Error, Result};

/// Which way a layer walks through time.
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

    /// Whether direction number `index` (`0..count()`) walks backwards in time.
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

/// A recurrent operator: the cell, its options, and the sizes that its weights have.
///
/// Make one with [`RnnDescriptor::rnn`], [`RnnDescriptor::lstm`] or [`RnnDescriptor::gru`] and set what differs from
/// PyTorch's defaults:
///
/// ```
/// use fused_rnn::rnn::{Direction, RnnDescriptor};
/// let mut descriptor = RnnDescriptor::lstm(64, 128);
/// descriptor.num_layers = 2;
/// descriptor.direction = Direction::Bidirectional;
/// descriptor.validate()?;
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// # What one layer and direction computes
///
/// With `x_t` the layer's input, `h` the previous output (`proj_size` wide when there is a projection), each gate's
/// pre-activation is `a = W x_t + b_ih + R h + b_hh`, clamped to `±gate_clip` before its activation; the cells' own
/// equations stand in [`crate::cell`]. Around them:
///
/// - **lengths**: sequence `b` takes part in steps `0..lengths[b]` only; its final state is that of its last valid step.
/// - **resets**: where the mask is set at `(t, b)`, the state is set to the initial state (`h0`, `c0`, or zero) before step
///   `t` is processed, in whichever direction the layer walks.
/// - **dropout**: in training, the input of every layer but the first is multiplied by a mask of zeros and
///   `1 / (1 - dropout)` from [`crate::rnn::dropout`].
#[derive(Clone, Debug, PartialEq)]
pub struct RnnDescriptor {
    /// The cell.
    pub cell: CellKind,
    /// Features of `x`.
    pub input_size: usize,
    /// Units of every layer and direction.
    pub hidden_size: usize,
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
    /// Those of the second direction of a bidirectional operator, where they differ (ONNX allows it).
    pub reverse_activations: Option<Activations>,
    /// GRU only: where the reset gate acts.
    pub reset: GruReset,
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
}

impl RnnDescriptor {
    /// One forward layer of `cell` with PyTorch's defaults.
    pub fn new(cell: CellKind, input_size: usize, hidden_size: usize) -> Self {
        RnnDescriptor {
            cell,
            input_size,
            hidden_size,
            num_layers: 1,
            direction: Direction::default(),
            bias: Bias::default(),
            layout: Layout::default(),
            activations: Activations::default(),
            reverse_activations: None,
            reset: GruReset::default(),
            dropout: 0.0,
            proj_size: None,
            peepholes: false,
            coupled_input_forget: false,
            gate_clip: None,
            cell_clip: None,
            padded_output: PaddedOutput::default(),
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
        if self.cell != CellKind::Lstm {
            for (name, used) in [
                ("proj_size", self.proj_size.is_some()),
                ("peepholes", self.peepholes),
                ("coupled_input_forget", self.coupled_input_forget),
                ("cell_clip", self.cell_clip.is_some()),
            ] {
                if used {
                    return Err(Error::option(
                        name,
                        "to be off, since only the LSTM has it",
                        format!("{} on", self.cell),
                    ));
                }
            }
        }
        if self.cell != CellKind::Gru && self.reset != GruReset::default() {
            return Err(Error::option("reset", "the default, since only the GRU has it", format!("{:?}", self.reset)));
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
}
