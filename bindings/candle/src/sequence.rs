//! candle_nn's trait `RNN`, and its functions `lstm` and `gru`.

use std::sync::{Arc, OnceLock};

use candle_core::{Error, IndexOp, Result, Tensor};
use candle_nn::rnn::{Direction, GRUConfig, LSTMConfig, RNN};
use candle_nn::{Init, VarBuilder};
use fused_rnn::rnn::{Direction as OurDirection, Layout, RnnDescriptor, WeightKind};

use crate::layer::{Call, Gru, Lstm, Recurrent, States};
use crate::op::wrap;

/// An LSTM layer from the arguments of [`candle_nn::lstm`](candle_nn::rnn::lstm), with the same variables and initial values.
///
/// # Errors
///
/// As [`Recurrent::from_descriptor`].
pub fn lstm(in_dim: usize, hidden_dim: usize, config: LSTMConfig, vb: VarBuilder) -> Result<Lstm> {
    let suffix = match config.direction {
        Direction::Forward => "",
        // As in candle_nn, only the names: the caller turns the sequence round.
        Direction::Backward => "_reverse",
    };
    let inits = Inits {
        weights: [config.w_ih_init, config.w_hh_init],
        biases: [config.b_ih_init, config.b_hh_init],
        suffix: format!("_l{}{suffix}", config.layer_idx),
    };
    Ok(Lstm(inits.layer(RnnDescriptor::lstm(in_dim, hidden_dim), &vb)?))
}

/// A GRU layer from the arguments of [`candle_nn::gru`](candle_nn::rnn::gru), with the same variables and initial values.
///
/// # Errors
///
/// As [`Recurrent::from_descriptor`].
pub fn gru(in_dim: usize, hidden_dim: usize, config: GRUConfig, vb: VarBuilder) -> Result<Gru> {
    let inits = Inits {
        weights: [config.w_ih_init, config.w_hh_init],
        biases: [config.b_ih_init, config.b_hh_init],
        suffix: "_l0".to_owned(),
    };
    Ok(Gru(inits.layer(RnnDescriptor::gru(in_dim, hidden_dim), &vb)?))
}

/// What candle_nn's configurations say.
struct Inits {
    weights: [Init; 2],
    biases: [Option<Init>; 2],
    suffix: String,
}

impl Inits {
    fn layer(&self, mut descriptor: RnnDescriptor, vb: &VarBuilder) -> Result<Recurrent> {
        descriptor.layout = Layout::BatchMajor;
        Recurrent::with_variables(descriptor, vb, 0, |entry| {
            let [w_ih, w_hh] = self.weights;
            let [b_ih, b_hh] = self.biases;
            let init = match entry.kind {
                WeightKind::InputHidden => Some(w_ih),
                WeightKind::HiddenHidden => Some(w_hh),
                WeightKind::InputBias => b_ih,
                _ => b_hh,
            };
            let name = format!("{}{}", entry.kind.stem(), self.suffix);
            match init {
                Some(init) => vb.get_with_hints(entry.shape.as_slice(), &name, init),
                None => Tensor::zeros(entry.shape.as_slice(), vb.dtype(), vb.device()),
            }
        })
    }
}

/// A step's outputs, and the whole sequence's, which it is a part of.
#[derive(Clone, Debug)]
struct Part {
    y: Tensor,
    step: usize,
}

/// The state of an [`Lstm`] in candle_nn's trait `RNN`.
#[derive(Clone, Debug)]
pub struct LstmState {
    h: Tensor,
    c: OnceLock<Tensor>,
    part: Option<(Part, Arc<Prefix>)>,
}

/// How the states beside h came about.
#[derive(Clone, Debug)]
struct Prefix {
    layer: Recurrent,
    /// `[batch, seq_len, input_size]`.
    x: Tensor,
    initial: Option<States>,
}

impl LstmState {
    /// A state of `h`, `[batch, hidden_size]` or, projected, `[batch, proj_size]`, and `c`, `[batch, hidden_size]`.
    pub fn new(h: Tensor, c: Tensor) -> Self {
        LstmState { h, c: OnceLock::from(c), part: None }
    }

    /// The output.
    pub fn h(&self) -> &Tensor {
        &self.h
    }

    /// The cell state. Within a sequence it is computed when it is first asked for, from the sequence's beginning: the operator hands
    /// out outputs of all steps, but cell states of the last, which is at hand where no gradients can be asked for.
    ///
    /// # Errors
    ///
    /// Of that computation.
    pub fn c(&self) -> Result<&Tensor> {
        if let Some(c) = self.c.get() {
            return Ok(c);
        }
        let Some((part, prefix)) = &self.part else {
            return Err(Error::msg("fused-rnn: a state without c"));
        };
        let (_, states) = run(&prefix.layer, &prefix.x.narrow(1, 0, part.step + 1)?, prefix.initial.as_ref())?;
        let c = row(states.c.as_ref())?;
        Ok(self.c.get_or_init(|| c))
    }
}

/// The state of a [`Gru`] in candle_nn's trait `RNN`.
#[derive(Clone, Debug)]
pub struct GruState {
    h: Tensor,
    part: Option<Part>,
}

impl GruState {
    /// A state of `h`, `[batch, hidden_size]`.
    pub fn new(h: Tensor) -> Self {
        GruState { h, part: None }
    }

    /// The output.
    pub fn h(&self) -> &Tensor {
        &self.h
    }
}

/// The states of the only layer and direction.
fn row(states: Option<&Tensor>) -> Result<Tensor> {
    states.ok_or_else(|| Error::msg("fused-rnn: an LSTM without cell states"))?.i(0)
}

/// Checks that the state of a step is one row, as the trait `RNN` has it.
fn check(layer: &Recurrent) -> Result<()> {
    let descriptor = layer.descriptor();
    if descriptor.num_layers == 1 && descriptor.direction == OurDirection::Forward {
        return Ok(());
    }
    Err(wrap(fused_rnn::Error::Unsupported {
        what: format!("candle_nn's trait RNN for {} layers, {:?}", descriptor.num_layers, descriptor.direction),
        why: "its states are those of one layer that runs forward; use run, whose states are those of all layers and directions"
            .to_owned(),
    }))
}

fn call(initial: Option<&States>) -> Call {
    initial.iter().fold(Call::default(), |call, states| call.states(states))
}

/// Outputs of a sequence `[batch, seq_len, input_size]`, batch-major, whatever the layer's own order of axes.
fn outputs(layer: &Recurrent, x: &Tensor, initial: Option<&States>) -> Result<Tensor> {
    check(layer)?;
    match layer.descriptor().layout {
        Layout::BatchMajor => layer.outputs(x, &call(initial)),
        Layout::SequenceMajor => layer.outputs(&x.transpose(0, 1)?, &call(initial))?.transpose(0, 1)?.contiguous(),
    }
}

/// The same with final states.
fn run(layer: &Recurrent, x: &Tensor, initial: Option<&States>) -> Result<(Tensor, States)> {
    check(layer)?;
    match layer.descriptor().layout {
        Layout::BatchMajor => layer.run(x, &call(initial)).map(|out| (out.y, out.states)),
        Layout::SequenceMajor => {
            let out = layer.run(&x.transpose(0, 1)?, &call(initial))?;
            Ok((out.y.transpose(0, 1)?.contiguous()?, out.states))
        }
    }
}

/// The zero state of a layer's `h`, or of its `c`.
fn zeros(batch: usize, width: usize, layer: &Recurrent) -> Result<Tensor> {
    Tensor::zeros((batch, width), layer.dtype(), &candle_core::Device::Cpu)
}

/// The outputs of all steps, where `parts` are those of one sequence in order.
fn whole<'a>(parts: impl ExactSizeIterator<Item = Option<&'a Part>>) -> Option<Tensor> {
    let count = parts.len();
    let mut all: Option<&Tensor> = None;
    for (step, part) in parts.enumerate() {
        let part = part?;
        let y = *all.get_or_insert(&part.y);
        if part.step != step || part.y.id() != y.id() {
            return None;
        }
    }
    all.filter(|y| y.dim(1).is_ok_and(|steps| steps == count)).cloned()
}

fn lstm_states(layer: &Lstm, x: &Tensor, initial: Option<States>) -> Result<Vec<LstmState>> {
    let layer = &layer.0;
    // With gradients, handing out final states besides y would cost candle copies of both on the way back, for a state that is
    // seldom asked for.
    let (y, last) = match layer.is_tracked(x, initial.as_ref()) {
        true => (outputs(layer, x, initial.as_ref())?, None),
        false => {
            let (y, states) = run(layer, x, initial.as_ref())?;
            (y, Some(row(states.c.as_ref())?))
        }
    };
    let steps = y.dim(1)?;
    let prefix = Arc::new(Prefix { layer: layer.clone(), x: x.clone(), initial });
    (0..steps)
        .map(|step| {
            let c = last.as_ref().filter(|_| step + 1 == steps).cloned().map_or_else(OnceLock::new, OnceLock::from);
            let part = Part { y: y.clone(), step };
            Ok(LstmState { h: y.i((.., step, ..))?, c, part: Some((part, Arc::clone(&prefix))) })
        })
        .collect()
}

impl RNN for Lstm {
    type State = LstmState;

    fn zero_state(&self, batch_dim: usize) -> Result<LstmState> {
        let descriptor = self.descriptor();
        let h = zeros(batch_dim, descriptor.output_size(), &self.0)?;
        Ok(LstmState::new(h, zeros(batch_dim, descriptor.hidden_size, &self.0)?))
    }

    fn step(&self, input: &Tensor, state: &LstmState) -> Result<LstmState> {
        let initial = States { h: state.h.unsqueeze(0)?, c: Some(state.c()?.unsqueeze(0)?) };
        let (_, last) = run(&self.0, &input.unsqueeze(1)?, Some(&initial))?;
        Ok(LstmState::new(last.h.i(0)?, row(last.c.as_ref())?))
    }

    fn seq(&self, input: &Tensor) -> Result<Vec<LstmState>> {
        lstm_states(self, input, None)
    }

    fn seq_init(&self, input: &Tensor, init_state: &LstmState) -> Result<Vec<LstmState>> {
        let initial = States { h: init_state.h.unsqueeze(0)?, c: Some(init_state.c()?.unsqueeze(0)?) };
        lstm_states(self, input, Some(initial))
    }

    /// `[batch, seq_len, hidden_size]`: the outputs of the whole sequence as they were computed, where `states` are its.
    fn states_to_tensor(&self, states: &[LstmState]) -> Result<Tensor> {
        match whole(states.iter().map(|state| state.part.as_ref().map(|(part, _)| part))) {
            Some(y) => Ok(y),
            None => Tensor::stack(&states.iter().map(|state| &state.h).collect::<Vec<_>>(), 1),
        }
    }
}

fn gru_states(layer: &Gru, x: &Tensor, initial: Option<States>) -> Result<Vec<GruState>> {
    let y = outputs(&layer.0, x, initial.as_ref())?;
    (0..y.dim(1)?)
        .map(|step| Ok(GruState { h: y.i((.., step, ..))?, part: Some(Part { y: y.clone(), step }) }))
        .collect()
}

impl RNN for Gru {
    type State = GruState;

    fn zero_state(&self, batch_dim: usize) -> Result<GruState> {
        Ok(GruState::new(zeros(batch_dim, self.descriptor().hidden_size, &self.0)?))
    }

    fn step(&self, input: &Tensor, state: &GruState) -> Result<GruState> {
        let initial = States { h: state.h.unsqueeze(0)?, c: None };
        let (_, last) = run(&self.0, &input.unsqueeze(1)?, Some(&initial))?;
        Ok(GruState::new(last.h.i(0)?))
    }

    fn seq(&self, input: &Tensor) -> Result<Vec<GruState>> {
        gru_states(self, input, None)
    }

    fn seq_init(&self, input: &Tensor, init_state: &GruState) -> Result<Vec<GruState>> {
        gru_states(self, input, Some(States { h: init_state.h.unsqueeze(0)?, c: None }))
    }

    /// `[batch, seq_len * hidden_size]`, as candle_nn's GRU gives it.
    fn states_to_tensor(&self, states: &[GruState]) -> Result<Tensor> {
        match whole(states.iter().map(|state| state.part.as_ref())) {
            Some(y) => y.flatten_from(1),
            None => Tensor::cat(&states.iter().map(|state| &state.h).collect::<Vec<_>>(), 1),
        }
    }
}
