//! Recurrent layers a step at a time: the trait [`Cell`], and the layer [`Rnn`] over one.
#![expect(clippy::indexing_slicing, reason = "there is an input, as `sequence_shape` checks")]

use serde::{Deserialize, Serialize};
use std::ops::Range;

use crate::backend::ops::Strides;
use crate::backend::{Device, TensorMut, TensorRef, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::masking::row_mask;
use crate::nn::op::{Backward, Forward, Op, States};
use crate::nn::recurrent::{Carried, RecurrentOptions, wrong_states};
use crate::nn::shape::{Columns, copy_columns, reversed};
use crate::nn::{Layer, LayerConfig, Scratch};

/// A step forward. Tensors are row-major with the batch first.
pub struct CellForward<'a> {
    /// The cell's weights, in the order of [`Cell::parameters`].
    pub parameters: TensorRef<'a>,
    /// Input of the step, `[batch, input_size]`.
    pub x: TensorRef<'a>,
    /// State before it, `[batch, state_size]`.
    pub state: TensorRef<'a>,
    /// State after it, every element to be written; its first `output_size` columns are the step's output.
    pub new_state: TensorMut<'a>,
    /// Room for what the step backward needs besides, `[batch, saved_size]`.
    pub saved: TensorMut<'a>,
    /// Sequences.
    pub batch: usize,
    /// Number of the step, in the order of processing.
    pub step: usize,
    /// Whether a step backward follows.
    pub training: bool,
    /// Seed of what is random in this batch.
    pub seed: u64,
}

/// A step backward. What it has in common with the step forward is as it was there.
pub struct CellBackward<'a> {
    /// The cell's weights.
    pub parameters: TensorRef<'a>,
    /// Input of the step.
    pub x: TensorRef<'a>,
    /// State before it.
    pub state: TensorRef<'a>,
    /// State after it.
    pub new_state: TensorRef<'a>,
    /// What the step forward has saved.
    pub saved: TensorRef<'a>,
    /// Gradient of the state after the step; that of the output is already in it.
    pub dnew_state: TensorRef<'a>,
    /// Gradient of the input, to be set (`=`).
    pub dx: TensorMut<'a>,
    /// Gradient of the state before the step, to be set (`=`).
    pub dstate: TensorMut<'a>,
    /// Gradient of the weights, to be added to (`+=`).
    pub dparameters: TensorMut<'a>,
    /// Sequences.
    pub batch: usize,
    /// Number of the step.
    pub step: usize,
    /// Seed of what is random in this batch.
    pub seed: u64,
}

/// One step of a recurrence with its derivative. By [`Rnn`] it is a layer with everything a layer has, and
/// [`gradcheck::cell`](crate::gradcheck::cell) says whether the derivative is right.
///
/// Written with the device's [operations](crate::backend::Operations) it computes on every device. One for the host alone may look at
/// the elements instead. A leaky accumulator, `h = a h + (1 - a) w x`, in `f64`:
///
/// ```
/// use fused_rnn::nn::{Cell, CellBackward, CellForward, Init};
/// use fused_rnn::{DType, Device};
/// #[derive(Clone)]
/// struct Leaky { units: usize, keep: f64 }
/// impl Cell for Leaky {
///     fn output_size(&self) -> usize { self.units }
///     fn parameters(&self, input_size: usize) -> Vec<(String, Vec<usize>, Init)> {
///         let init = Init::GlorotUniform { fan_in: input_size, fan_out: self.units };
///         vec![("weight".to_owned(), vec![self.units, input_size], init)]
///     }
///     fn forward(&mut self, _: &Device, s: CellForward<'_>) -> fused_rnn::Result<()> {
///         let (w, x, state): (&[f64], &[f64], &[f64]) = (s.parameters.host()?, s.x.host()?, s.state.host()?);
///         let inputs = x.len() / s.batch;
///         for (i, new) in s.new_state.host::<f64>()?.iter_mut().enumerate() {
///             let (b, u) = (i / self.units, i % self.units);
///             let wx: f64 = (0..inputs).map(|k| w[u * inputs + k] * x[b * inputs + k]).sum();
///             *new = self.keep * state[i] + (1.0 - self.keep) * wx;
///         }
///         Ok(())
///     }
///     fn backward(&mut self, _: &Device, s: CellBackward<'_>) -> fused_rnn::Result<()> {
///         let (w, x): (&[f64], &[f64]) = (s.parameters.host()?, s.x.host()?);
///         let (dw, dx): (&mut [f64], &mut [f64]) = (s.dparameters.host()?, s.dx.host()?);
///         let dstate: &mut [f64] = s.dstate.host()?;
///         let inputs = x.len() / s.batch;
///         dx.fill(0.0);
///         for (i, d) in s.dnew_state.host::<f64>()?.iter().enumerate() {
///             let (b, u) = (i / self.units, i % self.units);
///             dstate[i] = self.keep * d;
///             for k in 0..inputs {
///                 dx[b * inputs + k] += (1.0 - self.keep) * d * w[u * inputs + k];
///                 dw[u * inputs + k] += (1.0 - self.keep) * d * x[b * inputs + k];
///             }
///         }
///         Ok(())
///     }
/// }
/// let device = Device::reference().with_dtype(DType::F64)?;
/// let report = fused_rnn::gradcheck::cell(&device, Leaky { units: 3, keep: 0.7 }, 2)?;
/// assert!(report.worst < 1e-7, "{report:?}");
/// # Ok::<(), fused_rnn::Error>(())
/// ```
pub trait Cell: Send {
    /// Width of the output.
    fn output_size(&self) -> usize;

    /// Width of the state, of which the output is the first part: as wide as the output unless said otherwise.
    fn state_size(&self) -> usize {
        self.output_size()
    }

    /// Elements that a step of a sequence saves for its derivative; none unless said otherwise.
    fn saved_size(&self) -> usize {
        0
    }

    /// Names, shapes and starting points of the weights.
    fn parameters(&self, input_size: usize) -> Vec<(String, Vec<usize>, Init)>;

    /// The step.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`] where the GPU's driver fails.
    fn forward(&mut self, device: &Device, step: CellForward<'_>) -> Result<()>;

    /// Its derivative.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`] where the GPU's driver fails.
    fn backward(&mut self, device: &Device, step: CellBackward<'_>) -> Result<()>;

    /// Waits for the steps given so far, and says whether they have ended as they should.
    ///
    /// # Errors
    ///
    /// [`Error::KernelFault`] where a kernel gave up, whose results are then garbage; [`Error::Driver`] where the GPU's driver fails, or
    /// reports a fault of earlier work.
    fn check(&self, _device: &Device) -> Result<()> {
        Ok(())
    }
}

/// A recurrent layer over a custom cell, Keras's [`RNN`](https://keras.io/api/layers/recurrent_layers/rnn/): `[seq_len, features]` to
/// `[output_size]`, or with `return_sequences` to `[seq_len, output_size]`; with `return_state` the last state `[state_size]` besides. A
/// second input is the initial state. Masks are taken as by [`Lstm`](crate::nn::Lstm). A model file cannot hold it: save the weights alone.
#[derive(Clone, Debug)]
pub struct Rnn<C> {
    cell: C,
    options: RnnOptions,
}

/// Options of an [`Rnn`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct RnnOptions {
    return_sequences: bool,
    return_state: bool,
    go_backwards: bool,
    stateful: bool,
}

impl<C> Rnn<C> {
    /// A layer over `cell` that returns the output of the last step.
    pub fn new(cell: C) -> Self {
        Rnn { cell, options: RnnOptions::default() }
    }

    /// Sets whether the output of every step is returned.
    #[must_use]
    pub fn return_sequences(mut self, return_sequences: bool) -> Self {
        self.options.return_sequences = return_sequences;
        self
    }

    /// Sets whether the last state is an output too.
    #[must_use]
    pub fn return_state(mut self, return_state: bool) -> Self {
        self.options.return_state = return_state;
        self
    }

    /// Sets whether time runs backwards.
    #[must_use]
    pub fn go_backwards(mut self, go_backwards: bool) -> Self {
        self.options.go_backwards = go_backwards;
        self
    }

    /// Sets whether states go on from batch to batch.
    #[must_use]
    pub fn stateful(mut self, stateful: bool) -> Self {
        self.options.stateful = stateful;
        self
    }
}

impl<C: Cell + Clone + Sync + 'static> Layer for Rnn<C> {
    fn class_name(&self) -> &str {
        "RNN"
    }

    fn stem(&self) -> &str {
        "rnn"
    }

    fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let (_, features) = super::sequence_shape(builder, inputs)?;
        let cell: Box<dyn Cell> = Box::new(self.cell.clone());
        if inputs.len() > 2 {
            let expected = "the sequence, and then none or one initial state";
            return Err(Error::shape(builder.name(), expected, format!("{} inputs", inputs.len())));
        }
        if let Some(state) = inputs.get(1).filter(|state| state.shape() != [cell.state_size()]) {
            let expected = format!("an initial state of shape [{}]", cell.state_size());
            return Err(Error::shape(builder.name(), expected, format!("{:?}", state.shape())));
        }
        let range = parameters(builder, &*cell, features)?;
        let RnnOptions { return_sequences, return_state, go_backwards, stateful } = self.options;
        let options =
            RecurrentOptions { return_sequences, return_state, go_backwards, stateful, ..RecurrentOptions::default() };
        let mask = row_mask(builder, &inputs[0])?;
        let mut outputs = steps_with(builder, cell, &inputs[0], mask, inputs.get(1), range, &options)?;
        if return_sequences {
            let y = outputs.remove(0);
            let y = match go_backwards {
                false => y.with_mask(mask),
                true => {
                    let mask = mask.map(|mask| reversed(builder, mask)).transpose()?;
                    reversed(builder, &y)?.with_mask(mask.as_ref())
                }
            };
            outputs.insert(0, y);
        }
        Ok(outputs)
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}

/// The weights of a cell; a range of all.
pub(super) fn parameters(builder: &mut Builder, cell: &dyn Cell, input_size: usize) -> Result<Range<usize>> {
    let mut range = 0..0;
    for (i, (name, shape, init)) in cell.parameters(input_size).into_iter().enumerate() {
        let part = builder.parameter(&name, &shape, init)?;
        range = if i == 0 { part } else { range.start..part.end };
    }
    Ok(range)
}

/// The output of a cell of this crate, whose states may be given as h and the others, and its last states likewise.
pub(super) fn steps(
    builder: &mut Builder,
    cell: Box<dyn Cell>,
    x: &Value,
    mask: Option<&Value>,
    states: &[Value],
    range: Range<usize>,
    options: &RecurrentOptions,
) -> Result<Vec<Value>> {
    let initial = match states {
        [] => None,
        [one] => Some(one.clone()),
        [h, c, ..] => Some(crate::nn::merge::concatenated(builder, h, c)?),
    };
    let units = cell.output_size();
    let others = cell.state_size() - units;
    let mut outputs = steps_with(builder, cell, x, mask, initial.as_ref(), range, options)?;
    if options.return_state && others > 0 {
        let state = outputs.remove(1);
        outputs.push(crate::nn::shape::columns(builder, &state, 0, units)?);
        outputs.push(crate::nn::shape::columns(builder, &state, units, others)?);
    }
    Ok(outputs)
}

fn steps_with(
    builder: &mut Builder,
    cell: Box<dyn Cell>,
    x: &Value,
    mask: Option<&Value>,
    initial: Option<&Value>,
    range: Range<usize>,
    options: &RecurrentOptions,
) -> Result<Vec<Value>> {
    let &[seq_len, features] = x.shape() else {
        return Err(Error::shape(builder.name(), "inputs of shape [seq_len, features]", format!("{:?}", x.shape())));
    };
    let (output, state) = (cell.output_size(), cell.state_size());
    if output == 0 || state < output {
        let expected = "an output of at least 1 column, and a state that holds it";
        return Err(Error::shape(builder.name(), expected, format!("output_size {output}, state_size {state}")));
    }
    let (every, last, states) = ([seq_len, output], [output], [state]);
    let mut shapes: Vec<&[usize]> = vec![if options.return_sequences { &every } else { &last }];
    if options.return_state {
        shapes.push(&states);
    }
    let op = Steps {
        name: builder.name(),
        seq_len,
        features,
        output,
        state,
        saved: cell.saved_size(),
        cell,
        return_sequences: options.return_sequences,
        go_backwards: options.go_backwards,
        stateful: options.stateful,
        inputs: Scratch::new(),
        dinputs: Scratch::new(),
        states: Scratch::new(),
        computed: Scratch::new(),
        saves: Scratch::new(),
        outputs: Scratch::new(),
        masks: Scratch::new(),
        dstate: Scratch::new(),
        dnew: Scratch::new(),
        part: Scratch::new(),
        dout: Scratch::new(),
        carried: Carried::new(),
    };
    builder.op(op, &[Some(x), mask, initial], &shapes, range, 0..0)
}

/// Inputs: x `[seq_len, features]`, mask `[seq_len]` or none, initial state `[state]` or none. Outputs: of every step or the last; with
/// `return_state` the state.
struct Steps {
    name: String,
    cell: Box<dyn Cell>,
    seq_len: usize,
    features: usize,
    output: usize,
    state: usize,
    saved: usize,
    return_sequences: bool,
    go_backwards: bool,
    stateful: bool,
    /// `[seq_len, batch, features]`, in the order of processing.
    inputs: Scratch,
    dinputs: Scratch,
    /// `[seq_len + 1, batch, state]`: the initial state, then that after each step.
    states: Scratch,
    /// `[seq_len, batch, state]`: what the cell gave, before absent steps keep the state.
    computed: Scratch,
    /// `[seq_len, batch, saved]`
    saves: Scratch,
    /// `[2, batch, output]`: the last output, and the one before.
    outputs: Scratch,
    /// `[seq_len, batch]`
    masks: Scratch,
    dstate: Scratch,
    dnew: Scratch,
    part: Scratch,
    dout: Scratch,
    carried: Carried,
}

impl Steps {
    /// Layouts of `[batch, seq_len, width]` in memory and of `[seq_len, batch, width]` in the order of processing.
    fn layouts(&self, batch: usize, width: usize) -> ([usize; 4], Strides, Strides) {
        let (w, t) = (width as isize, self.seq_len as isize);
        let (offset, step) = if self.go_backwards { ((self.seq_len - 1) * width, -w) } else { (0, w) };
        let batch_major = Strides { offset, strides: [0, step, t * w, 1] };
        let time_major = Strides { offset: 0, strides: [0, batch as isize * w, w, 1] };
        ([1, self.seq_len, batch, width], batch_major, time_major)
    }
}

impl Op for Steps {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (batch, steps, width) = (pass.batch, self.seq_len, self.state * pass.batch);
        let (len_x, len_out, len_saved) = (batch * self.features, batch * self.output, batch * self.saved);
        self.inputs.grow(device, "inputs of steps", steps * len_x)?;
        self.states.grow(device, "states", (steps + 1) * width)?;
        self.computed.grow(device, "states", steps * width)?;
        self.saves.grow(device, "saved", steps * len_saved)?;
        self.outputs.grow(device, "outputs", 2 * len_out)?;
        let (shape, there, here) = self.layouts(batch, self.features);
        let inputs = self.inputs.get_mut(steps * len_x)?;
        device.strided_copy(shape, pass.inputs.get(0)?, there, inputs, here, WeightGrad::Set)?;
        let mask = pass.inputs.optional(1);
        if let Some(mask) = mask {
            let (shape, there, here) = self.layouts(batch, 1);
            self.masks.grow(device, "masks of steps", steps * batch)?;
            let masks = self.masks.get_mut(steps * batch)?;
            device.strided_copy(shape, mask, there, masks, here, WeightGrad::Set)?;
            self.part.grow(device, "output", len_out)?;
        }
        if self.stateful {
            self.carried.prepare(device, &self.name, batch, self.state)?;
        }
        let first = self.states.get_mut(width)?;
        match pass.inputs.optional(2) {
            Some(initial) => device.copy(initial, first)?,
            None if self.stateful => device.copy(self.carried.tensor.get(width)?, first)?,
            None => device.fill(first, 0.0)?,
        }
        let (mut current, mut previous) = self.outputs.get_mut(2 * len_out)?.split_at(len_out)?;
        if mask.is_some() {
            device.fill(current.reborrow(), 0.0)?;
        }
        let (of_state, of_output) = (Columns::all(self.state), Columns::all(self.output));
        for step in 0..steps {
            let (before, after) = self.states.part_mut(step * width..(step + 2) * width)?.split_at(width)?;
            let mut new_state = self.computed.part_mut(step * width..(step + 1) * width)?;
            self.cell.forward(
                device,
                CellForward {
                    parameters: pass.parameters,
                    x: self.inputs.part(step * len_x..(step + 1) * len_x)?,
                    state: before.view(),
                    new_state: new_state.reborrow(),
                    saved: self.saves.part_mut(step * len_saved..(step + 1) * len_saved)?,
                    batch,
                    step,
                    training: pass.training,
                    seed: pass.seed,
                },
            )?;
            let new_state = new_state.view();
            if mask.is_some() {
                // An absent step keeps the state, and repeats the output before it.
                let valid = self.masks.part(step * batch..(step + 1) * batch)?;
                device.select_rows(valid, new_state, Some(before.view()), after)?;
                device.copy(current.view(), previous.reborrow())?;
                copy_columns(device, self.output, new_state, of_state, self.part.get_mut(len_out)?, of_output)?;
                device.select_rows(valid, self.part.get(len_out)?, Some(previous.view()), current.reborrow())?;
            } else {
                device.copy(new_state, after)?;
                copy_columns(device, self.output, new_state, of_state, current.reborrow(), of_output)?;
            }
            if self.return_sequences {
                let at = if self.go_backwards { steps - 1 - step } else { step };
                let to = Columns { width: steps * self.output, first: at * self.output };
                copy_columns(device, self.output, current.view(), of_output, pass.outputs.get(0)?, to)?;
            } else if step + 1 == steps {
                device.copy(current.view(), pass.outputs.get(0)?)?;
            }
        }
        let last = self.states.part(steps * width..(steps + 1) * width)?;
        if let Some(state) = pass.outputs.optional(1) {
            device.copy(last, state)?;
        }
        if self.stateful {
            device.copy(last, self.carried.tensor.get_mut(width)?)?;
        }
        Ok(())
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (batch, steps, width) = (pass.batch, self.seq_len, self.state * pass.batch);
        let (len_x, len_out, len_saved) = (batch * self.features, batch * self.output, batch * self.saved);
        self.dinputs.grow(device, "dx", steps * len_x)?;
        for (scratch, len) in [
            (&mut self.dstate, width),
            (&mut self.dnew, width),
            (&mut self.part, width.max(len_out)),
            (&mut self.dout, len_out),
        ] {
            scratch.grow(device, "gradients of states", len)?;
        }
        if pass.grad == WeightGrad::Set {
            device.fill(pass.dparameters.reborrow(), 0.0)?;
        }
        let layouts = self.layouts(batch, self.features);
        let mut dstate = self.dstate.get_mut(width)?;
        match pass.doutputs.optional(1) {
            Some(given) => device.copy(given, dstate.reborrow())?,
            None => device.fill(dstate.reborrow(), 0.0)?,
        }
        // The gradient of the output of a step: its own, and that of absent steps after it, which repeat it.
        let mut dout = self.dout.get_mut(len_out)?;
        let dy = pass.doutputs.optional(0);
        match dy {
            Some(dy) if !self.return_sequences => device.copy(dy, dout.reborrow())?,
            _ => device.fill(dout.reborrow(), 0.0)?,
        }
        let masked = pass.inputs.optional(1).is_some();
        let plain = |offset: usize, width: usize| Strides { offset, strides: [0, 0, width as isize, 1] };
        let shape = [1, 1, batch, self.output];
        for step in (0..steps).rev() {
            if let (Some(dy), true) = (dy, self.return_sequences) {
                let at = if self.go_backwards { steps - 1 - step } else { step };
                let (from, to) = (plain(at * self.output, steps * self.output), plain(0, self.output));
                device.strided_copy(shape, dy, from, dout.reborrow(), to, WeightGrad::Add)?;
            }
            let valid = match masked {
                true => Some(self.masks.part(step * batch..(step + 1) * batch)?),
                false => None,
            };
            // What the cell gave is the state, and its first columns the output.
            let mut dnew = self.dnew.get_mut(width)?;
            let (from, to) = (plain(0, self.output), plain(0, self.state));
            match valid {
                Some(valid) => {
                    device.select_rows(valid, dstate.view(), None, dnew.reborrow())?;
                    let mut taken = self.part.get_mut(len_out)?;
                    device.select_rows(valid, dout.view(), None, taken.reborrow())?;
                    device.strided_copy(shape, taken.view(), from, dnew.reborrow(), to, WeightGrad::Add)?;
                    // What absent steps leave for the step before.
                    device.scale_add(-1.0, taken.view(), 1.0, dout.reborrow())?;
                }
                None => {
                    device.copy(dstate.view(), dnew.reborrow())?;
                    device.strided_copy(shape, dout.view(), from, dnew.reborrow(), to, WeightGrad::Add)?;
                    device.fill(dout.reborrow(), 0.0)?;
                }
            }
            let mut before = self.part.get_mut(width)?;
            self.cell.backward(
                device,
                CellBackward {
                    parameters: pass.parameters,
                    x: self.inputs.part(step * len_x..(step + 1) * len_x)?,
                    state: self.states.part(step * width..(step + 1) * width)?,
                    new_state: self.computed.part(step * width..(step + 1) * width)?,
                    saved: self.saves.part(step * len_saved..(step + 1) * len_saved)?,
                    dnew_state: dnew.view(),
                    dx: self.dinputs.part_mut(step * len_x..(step + 1) * len_x)?,
                    dstate: before.reborrow(),
                    dparameters: pass.dparameters.reborrow(),
                    batch,
                    step,
                    seed: pass.seed,
                },
            )?;
            match valid {
                // Where the step was absent the gradient of the state passes by the cell, which was given none.
                Some(valid) => {
                    device.copy(dstate.view(), dnew.reborrow())?;
                    device.select_rows(valid, before.view(), Some(dnew.view()), dstate.reborrow())?;
                }
                None => device.copy(before.view(), dstate.reborrow())?,
            }
        }
        if let Some(initial) = pass.dinputs.optional(2) {
            device.copy(dstate.view(), initial)?;
        }
        if let Some(dx) = pass.dinputs.optional(0) {
            let (shape, there, here) = layouts;
            device.strided_copy(shape, self.dinputs.get(steps * len_x)?, here, dx, there, WeightGrad::Set)?;
        }
        Ok(())
    }

    fn check(&self, device: &Device) -> Result<()> {
        self.cell.check(device)
    }

    fn is_stateful(&self) -> bool {
        self.stateful
    }

    fn carried_batch(&self) -> Option<usize> {
        self.carried.batch
    }

    fn reset_states(&mut self) {
        self.carried.batch = None;
    }

    fn take_states(&mut self) -> Option<States> {
        let carried = std::mem::replace(&mut self.carried, Carried::new());
        carried.batch.is_some().then(|| Box::new(carried) as States)
    }

    fn give_states(&mut self, states: States) {
        if let Ok(states) = states.downcast::<Carried>() {
            self.carried = *states;
        }
    }

    fn carried_states(&self) -> Option<Vec<TensorRef<'_>>> {
        Some(self.carried.view().into_iter().collect())
    }

    fn carry_states(&mut self, device: &Device, rows: usize, states: &[TensorRef<'_>]) -> Result<()> {
        match states {
            [state] => self.carried.set(device, &self.name, rows, self.state, *state),
            _ => Err(wrong_states(&self.name, 1, states.len())),
        }
    }
}
