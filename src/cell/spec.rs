//! The table of cells: what each is, apart from its equations.
//!
//! This is the only place where these facts stand; every layout in the crate is derived from it, and every list of cells from
//! its rows. A cell is four things: its row here, its equations with their derivative (`src/cell/NAME.rs`, the oracle's
//! arithmetic), its step on the CPU (`src/backend/cpu/cells/NAME.rs`) and its step on a GPU (`kernels/cells/NAME.cuh`).
//!
//! `build.rs` includes this file to know which kernels there are, so it uses nothing but `core`.

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct CellSpec {
    /// Lower-case name, as on the command line.
    pub name: &'static str,
    /// The name in sentences.
    pub title: &'static str,
    /// The gates in the order in which their rows stand in `weight_ih`, `weight_hh` and the biases (PyTorch's order, where
    /// PyTorch has the cell).
    pub gates: &'static [&'static str],
    /// Keras's layer of this cell, with its order of the gates.
    pub keras: Option<Foreign>,
    /// ONNX's operator of this cell, with its order of the gates.
    pub onnx: Option<Foreign>,
    /// The gates that have a peephole row, in the order of those rows; the states they see are `c` of the step before, and of
    /// this step for the last.
    pub peepholes: &'static [&'static str],
    /// What the recurrent product of the last gate, the candidate, is.
    pub candidate: Candidate,
    /// The states carried from step to step: the output `h`, then the others, which stand side by side in `c0`, `cn` and their
    /// gradients.
    pub states: &'static [&'static str],
    /// States that are above zero, as a normaliser is: an initial state should be, too.
    pub positive: &'static [&'static str],
    /// What a training forward must keep of every step besides `h`, `hidden_size` elements each: activated gates, then what
    /// the candidate's product is multiplied with or into (`q` in [`crate::cell::gru`]), last the states but `h`.
    pub saved: &'static [&'static str],
    /// The functions of [`Activations`](crate::cell::Activations) that the cell uses.
    pub functions: Functions,
    /// Whether the derivative needs the pre-activations, whatever the activation functions are.
    pub needs_inputs: bool,
    /// The options that only some cells have.
    pub options: &'static [CellOption],
}

/// What another framework calls a cell, and its order of the gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The layer or operator.
    pub name: &'static str,
    /// The gates in the framework's order, by the names of [`CellSpec::gates`].
    pub gates: &'static [&'static str],
    /// The gates that have a peephole, in the framework's order.
    pub peepholes: &'static [&'static str],
}

/// What the recurrent product of the last gate, the candidate, is. All other gates' is `R h_prev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// `R h_prev`, as of every gate.
    Plain,
    /// A gate acts on it, before the product or after it, as [`RnnDescriptor::reset`](crate::rnn::RnnDescriptor::reset) says.
    Reset,
    /// `R q`, where q is `h_prev` after a gate has acted on it: a second product in every step.
    Gated,
}

/// Which of a cell's three activation functions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Functions {
    /// Of the gates.
    pub gate: bool,
    /// Of the candidate state.
    pub state: bool,
    /// Of the cell state on its way to the output.
    pub output: bool,
}

/// An option of [`RnnDescriptor`](crate::rnn::RnnDescriptor) that only some cells have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellOption {
    /// `proj_size`
    Projection,
    /// `peepholes`
    Peepholes,
    /// `coupled_input_forget`
    CoupledInputForget,
    /// `cell_clip`
    CellClip,
    /// `reset`
    Reset,
    /// `forget_gate`
    ForgetGate,
}

impl CellOption {
    /// All options.
    pub const ALL: [CellOption; 6] = [
        CellOption::Projection,
        CellOption::Peepholes,
        CellOption::CoupledInputForget,
        CellOption::CellClip,
        CellOption::Reset,
        CellOption::ForgetGate,
    ];

    /// The descriptor's field.
    pub const fn name(self) -> &'static str {
        match self {
            CellOption::Projection => "proj_size",
            CellOption::Peepholes => "peepholes",
            CellOption::CoupledInputForget => "coupled_input_forget",
            CellOption::CellClip => "cell_clip",
            CellOption::Reset => "reset",
            CellOption::ForgetGate => "forget_gate",
        }
    }
}

const ALL_FUNCTIONS: Functions = Functions { gate: true, state: true, output: true };
const GATE_AND_STATE: Functions = Functions { gate: true, state: true, output: false };

/// Makes [`CellKind`] of the rows, and `for_each_cell!`, which calls a macro with `(Kind module Layer "class" "stem" form)` of every row:
/// so all that has one thing a cell (modules, dispatch, kernels, layers) follows from them. The first argument is a dollar sign, which
/// a macro within a macro cannot write.
///
/// `module` is the name of the cell's file in the oracle and in the CPU backend; `layer` says what its layer is called: the type in
/// [`crate::nn`], its class name in files, the stem of names of such layers. A `usual` layer has the options that all layers have and
/// follows from this row; one that is its `own` is written out in `src/nn/recurrent/`.
macro_rules! cells {
    ($dollar:tt $(
        $(#[$doc:meta])*
        $kind:ident in $module:ident, $form:ident layer $layer:ident $class:literal $stem:literal: $spec:expr;
    )*) => {
        /// A recurrent cell.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CellKind {
            $($(#[$doc])* $kind,)*
        }

        impl CellKind {
            /// All cells.
            pub const ALL: [CellKind; [$(CellKind::$kind),*].len()] = [$(CellKind::$kind),*];

            /// This cell's row of the table.
            pub const fn spec(self) -> &'static CellSpec {
                match self {
                    $(CellKind::$kind => {
                        const SPEC: CellSpec = $spec;
                        &SPEC
                    })*
                }
            }
        }

        #[allow(unused_macros, reason = "build.rs includes this file without the feature cuda, too")]
        macro_rules! for_each_cell {
            ($dollar callback:ident) => {
                $dollar callback! { $(($kind $module $layer $class $stem $form))* }
            };
        }
    };
}

cells! { $
    /// The simple (Elman) recurrence, [`crate::cell::rnn`].
    Rnn in rnn, own layer SimpleRnn "SimpleRNN" "simple_rnn": CellSpec {
        name: "rnn",
        title: "RNN",
        gates: &["h"],
        keras: Some(Foreign { name: "SimpleRNN", gates: &["h"], peepholes: &[] }),
        onnx: Some(Foreign { name: "RNN", gates: &["h"], peepholes: &[] }),
        peepholes: &[],
        candidate: Candidate::Plain,
        states: &["h"],
        positive: &[],
        saved: &[],
        functions: Functions { gate: false, state: true, output: false },
        needs_inputs: false,
        options: &[],
    };

    /// Long short-term memory, [`crate::cell::lstm`].
    Lstm in lstm, own layer Lstm "LSTM" "lstm": CellSpec {
        name: "lstm",
        title: "LSTM",
        gates: &["i", "f", "g", "o"],
        keras: Some(Foreign { name: "LSTM", gates: &["i", "f", "g", "o"], peepholes: &[] }),
        onnx: Some(Foreign { name: "LSTM", gates: &["i", "o", "f", "g"], peepholes: &["i", "o", "f"] }),
        peepholes: &["i", "f", "o"],
        candidate: Candidate::Plain,
        states: &["h", "c"],
        positive: &[],
        saved: &["i", "f", "g", "o", "c"],
        functions: ALL_FUNCTIONS,
        needs_inputs: false,
        options: &[
            CellOption::Projection,
            CellOption::Peepholes,
            CellOption::CoupledInputForget,
            CellOption::CellClip,
        ],
    };

    /// Gated recurrent unit, [`crate::cell::gru`].
    Gru in gru, own layer Gru "GRU" "gru": CellSpec {
        name: "gru",
        title: "GRU",
        gates: &["r", "z", "n"],
        keras: Some(Foreign { name: "GRU", gates: &["z", "r", "n"], peepholes: &[] }),
        onnx: Some(Foreign { name: "GRU", gates: &["z", "r", "n"], peepholes: &[] }),
        peepholes: &[],
        candidate: Candidate::Reset,
        states: &["h"],
        positive: &[],
        saved: &["r", "z", "n", "q"],
        functions: GATE_AND_STATE,
        needs_inputs: false,
        options: &[CellOption::Reset],
    };

    /// Long short-term memory with exponential gates, [`crate::cell::slstm`].
    Slstm in slstm, own layer Slstm "SLSTM" "slstm": CellSpec {
        name: "slstm",
        title: "sLSTM",
        gates: &["i", "f", "z", "o"],
        keras: None,
        onnx: None,
        peepholes: &[],
        candidate: Candidate::Plain,
        states: &["h", "c", "n", "m"],
        positive: &["n"],
        saved: &["i", "f", "z", "o", "c", "n", "m"],
        functions: GATE_AND_STATE,
        needs_inputs: true,
        options: &[CellOption::ForgetGate],
    };

    /// Minimal gated unit, [`crate::cell::mgu`].
    Mgu in mgu, usual layer Mgu "MGU" "mgu": CellSpec {
        name: "mgu",
        title: "MGU",
        gates: &["f", "n"],
        keras: None,
        onnx: None,
        peepholes: &[],
        candidate: Candidate::Gated,
        states: &["h"],
        positive: &[],
        saved: &["f", "n", "q"],
        functions: GATE_AND_STATE,
        needs_inputs: false,
        options: &[],
    };
}

#[allow(
    clippy::single_component_path_imports,
    reason = "in the build script, which has this file too, the path is short"
)]
pub(crate) use for_each_cell;

impl CellKind {
    /// Number of gates `G`: `weight_ih` is `[G * hidden_size, input_size]`.
    pub const fn gates(self) -> usize {
        self.spec().gates.len()
    }

    /// Number of states beside `h`: `c0` is `[L * D, B, other_states * hidden_size]`.
    pub const fn other_states(self) -> usize {
        self.spec().states.len() - 1
    }

    /// Whether the cell carries states beside `h`.
    pub const fn has_cell_state(self) -> bool {
        self.other_states() > 0
    }

    /// Whether the cell has an option that only some cells have.
    pub fn has(self, option: CellOption) -> bool {
        self.spec().options.contains(&option)
    }
}
