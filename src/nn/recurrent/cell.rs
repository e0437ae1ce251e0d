//! Recurrent layers a step at a time: the trait [`Cell`], and the layer [`Rnn`] over one.

use serde::{Deserialize, Serialize};
use std::ops::Range;

use crate::backend::tensor::Strides;
use crate::backend::{DenseBackend, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::recurrent::{Carried, RecurrentOptions};
use crate::nn::shape::reversed;
use crate::nn::{Layer, LayerConfig, Scratch};

/// A step forward. Tensors are row-major with the batch first.
pub struct CellForward<'a, B: DenseBackend> {
    /// The cell's weights, in the order of [`Cell::parameters`].
    pub parameters: &'a B::Buffer,
    /// Input of the step, `[batch, input_size]`.
    pub x: &'a B::Buffer,
    /// State before it, `[batch, state_size]`.
    pub state: &'a B::Buffer,
    /// State after it, every element to be written; its first `output_size` columns are the step's output.
    pub new_state: &'a mut B::Buffer,
    /// Room for what the step backward needs besides, `[batch, saved_size]`.
    pub saved: &'a mut B::Buffer,
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
pub struct CellBackward<'a, B: DenseBackend> {
    /// The cell's weights.
    pub parameters: &'a B::Buffer,
    /// Input of the step.
    pub x: &'a B::Buffer,
    /// State before it.
    pub state: &'a B::Buffer,
    /// State after it.
    pub new_state: &'a B::Buffer,
    /// What the step forward has saved.
    pub saved: &'a B::Buffer,
    /// Gradient of the state after the step; that of the output is already in it.
    pub dnew_state: &'a B::Buffer,
    /// Gradient of the input, to be set (`=`).
    pub dx: &'a mut B::Buffer,
    /// Gradient of the state before the step, to be set (`=`).
    pub dstate: &'a mut B::Buffer,
    /// Gradient of the weights, to be added to (`+=`).
    pub dparameters: &'a mut B::Buffer,
    /// Sequences.
    pub batch: usize,
    /// Number of the step.
    pub step: usize,
    /// Seed of what is random in this batch.
    pub seed: u64,
}

/// One step of a recurrence with its derivative. Written once, for one backend or for any, it is a layer by [`Rnn`] with everything a
/// layer has, and [`gradcheck::cell`](crate::gradcheck::cell) says whether the derivative is right.
///
/// Where the backend computes on the host, buffers are slices. A leaky accumulator, `h = a h + (1 - a) w x`:
///
/// ```
/// use fused_rnn::backend::reference::ReferenceBackend;
/// use fused_rnn::nn::{Cell, CellBackward, CellForward, Init};
/// #[derive(Clone)]
/// struct Leaky { units: usize, keep: f64 }
/// type B = ReferenceBackend<f64>;
/// impl Cell<B> for Leaky {
///     fn output_size(&self) -> usize { self.units }
///     fn parameters(&self, input_size: usize) -> Vec<(String, Vec<usize>, Init)> {
///         let init = Init::GlorotUniform { fan_in: input_size, fan_out: self.units };
///         vec![("weight".to_owned(), vec![self.units, input_size], init)]
///     }
///     fn forward(&mut self, _: &B, s: CellForward<'_, B>) -> fused_rnn::Result<()> {
///         let inputs = s.x.len() / s.batch;
///         for (i, new) in s.new_state.iter_mut().enumerate() {
///             let (b, u) = (i / self.units, i % self.units);
///             let wx: f64 = (0..inputs).map(|k| s.parameters[u * inputs + k] * s.x[b * inputs + k]).sum();
///             *new = self.keep * s.state[i] + (1.0 - self.keep) * wx;
///         }
///         Ok(())
///     }
///     fn backward(&mut self, _: &B, s: CellBackward<'_, B>) -> fused_rnn::Result<()> {
///         let inputs = s.x.len() / s.batch;
///         s.dx.fill(0.0);
///         for (i, d) in s.dnew_state.iter().enumerate() {
///             let (b, u) = (i / self.units, i % self.units);
///             s.dstate[i] = self.keep * d;
///             for k in 0..inputs {
///                 s.dx[b * inputs + k] += (1.0 - self.keep) * d * s.parameters[u * inputs + k];
///                 s.dparameters[u * inputs + k] += (1.0 - self.keep) * d * s.x[b * inputs + k];
///             }
///         }
///         Ok(())
///     }
/// }
/// let report = fused_rnn::gradcheck::cell(B::new(), Leaky { units: 3, keep: 0.7 }, 2)?;
/// assert!(report.worst < 1e-7, "{report:?}");
/// # Ok::<(), fused_rnn::Error>(())
/// ```
pub trait Cell<B: DenseBackend> {
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
    /// Those of the backend.
    fn forward(&mut self, backend: &B, step: CellForward<'_, B>) -> Result<()>;

    /// Its derivative.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn backward(&mut self, backend: &B, step: CellBackward<'_, B>) -> Result<()>;

    /// Waits for the steps given so far, and says whether they have ended as they should.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn check(&self, _backend: &B) -> Result<()> {
        Ok(())
    }
}

/// A recurrent layer over a cell of one's own, Keras's [`RNN`](https://keras.io/api/layers/recurrent_layers/rnn/): `[seq_len, features]` to
/// `[output_size]`, or with `return_sequences` to `[seq_len, output_size]`; with `return_state` the last state `[state_size]` besides. A
/// second input is the initial state. Masks are taken as by [`Lstm`](crate::nn::Lstm). A model file cannot hold it: save the weights alone.
#[derive(Clone, Debug)]
pub struct Rnn<C> {
    cell: C,
    options: RnnOptions,
}

/// What an [`Rnn`] can be told.
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

impl<B: DenseBackend + 'static, C: Cell<B> + Clone + 'static> Layer<B> for Rnn<C> {
    fn class_name(&self) -> &str {
        "RNN"
    }

    fn stem(&self) -> &str {
        "rnn"
    }

    fn build(&self, builder: &mut Builder<B>, inputs: &[Value]) -> Result<Vec<Value>> {
        let (_, features) = super::sequence_shape(builder, inputs)?;
        let cell: Box<dyn Cell<B>> = Box::new(self.cell.clone());
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
        let mask = inputs[0].mask();
        let mut outputs = steps_with(builder, cell, &inputs[0], mask, inputs.get(1), range, &options)?;
        if return_sequences {
            let y = outputs.remove(0);
            let y = if go_backwards { reversed(builder, &y)? } else { y.with_mask(mask) };
            outputs.insert(0, y);
        }
        Ok(outputs)
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}

/// The weights of a cell; a range of all.
pub(super) fn parameters<B: DenseBackend>(
    builder: &mut Builder<B>,
    cell: &dyn Cell<B>,
    input_size: usize,
) -> Result<Range<usize>> {
    let mut range = 0..0;
    for (i, (name, shape, init)) in cell.parameters(input_size).into_iter().enumerate() {
        let part = builder.parameter(&name, &shape, init)?;
        range = if i == 0 { part } else { range.start..part.end };
    }
    Ok(range)
}

/// The output of a cell of this crate, whose states may be given one by one, and its last states one by one.
pub(super) fn steps<B: DenseBackend + 'static>(
    builder: &mut Builder<B>,
    cell: Box<dyn Cell<B>>,
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
    let states = cell.state_size() / units;
    let mut outputs = steps_with(builder, cell, x, mask, initial.as_ref(), range, options)?;
    if options.return_state && states > 1 {
        let state = outputs.remove(1);
        for part in 0..states {
            outputs.push(crate::nn::shape::columns(builder, &state, part * units, units)?);
        }
    }
    Ok(outputs)
}

fn steps_with<B: DenseBackend + 'static>(
    builder: &mut Builder<B>,
    cell: Box<dyn Cell<B>>,
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
struct Steps<B: DenseBackend> {
    name: String,
    cell: Box<dyn Cell<B>>,
    seq_len: usize,
    features: usize,
    output: usize,
    state: usize,
    saved: usize,
    return_sequences: bool,
    go_backwards: bool,
    stateful: bool,
    /// `[seq_len, batch, features]`, in the order of processing.
    inputs: Scratch<B>,
    dinputs: Scratch<B>,
    /// `[seq_len + 1, batch, state]`: the initial state, then that after each step.
    states: Scratch<B>,
    /// `[seq_len, batch, state]`: what the cell gave, before absent steps keep the state.
    computed: Scratch<B>,
    /// `[seq_len, batch, saved]`
    saves: Scratch<B>,
    /// `[2, batch, output]`: the last output, and the one before.
    outputs: Scratch<B>,
    /// `[seq_len, batch]`
    masks: Scratch<B>,
    dstate: Scratch<B>,
    dnew: Scratch<B>,
    part: Scratch<B>,
    dout: Scratch<B>,
    carried: Carried<B>,
}

impl<B: DenseBackend> Steps<B> {
    /// Layouts of `[batch, seq_len, width]` in memory and of `[seq_len, batch, width]` in the order of processing.
    fn layouts(&self, batch: usize, width: usize) -> ([usize; 4], Strides, Strides) {
        let (w, t) = (width as isize, self.seq_len as isize);
        let (offset, step) = if self.go_backwards { ((self.seq_len - 1) * width, -w) } else { (0, w) };
        let batch_major = Strides { offset, strides: [0, step, t * w, 1] };
        let time_major = Strides { offset: 0, strides: [0, batch as isize * w, w, 1] };
        ([1, self.seq_len, batch, width], batch_major, time_major)
    }
}

impl<B: DenseBackend> Op<B> for Steps<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let (batch, steps, width) = (pass.batch, self.seq_len, self.state * pass.batch);
        let (len_x, len_out, len_saved) = (batch * self.features, batch * self.output, batch * self.saved);
        self.inputs.grow(backend, "inputs of steps", steps * len_x)?;
        self.states.grow(backend, "states", (steps + 1) * width)?;
        self.computed.grow(backend, "states", steps * width)?;
        self.saves.grow(backend, "saved", steps * len_saved)?;
        self.outputs.grow(backend, "outputs", 2 * len_out)?;
        self.masks.grow(backend, "masks of steps", steps * batch)?;
        let (shape, there, here) = self.layouts(batch, self.features);
        let x = pass.inputs.get(0)?;
        backend.strided_copy(
            shape,
            x,
            there,
            &mut *self.inputs.get_mut(backend, steps * len_x)?,
            here,
            WeightGrad::Set,
        )?;
        let mask = pass.inputs.optional(1);
        if let Some(mask) = mask {
            let (shape, there, here) = self.layouts(batch, 1);
            let mut to = self.masks.get_mut(backend, steps * batch)?;
            backend.strided_copy(shape, mask, there, &mut to, here, WeightGrad::Set)?;
        }
        if self.stateful {
            self.carried.prepare(backend, &self.name, batch, self.state)?;
        }
        {
            let mut states = self.states.get_mut(backend, (steps + 1) * width)?;
            let mut first = backend.view_mut(&mut states, 0..width)?;
            match pass.inputs.optional(2) {
                Some(initial) => backend.copy(initial, &mut first)?,
                None if self.stateful => backend.copy(&*self.carried.tensor.get(backend, width)?, &mut first)?,
                None => backend.fill(&mut first, 0.0)?,
            }
        }
        backend.fill(&mut *self.outputs.get_mut(backend, 2 * len_out)?, 0.0)?;
        let columns = |width| crate::backend::dense::Columns { width, first: 0 };
        for step in 0..steps {
            let inputs = self.inputs.get(backend, steps * len_x)?;
            let mut states = self.states.get_mut(backend, (step + 2) * width)?;
            let (before, mut after) = backend.split_mut(&mut states, (step + 1) * width)?;
            let before = backend.view(&before, step * width..(step + 1) * width)?;
            let mut computed = self.computed.get_mut(backend, steps * width)?;
            let mut new_state = backend.view_mut(&mut computed, step * width..(step + 1) * width)?;
            let mut saves = self.saves.get_mut(backend, steps * len_saved)?;
            self.cell.forward(
                backend,
                CellForward {
                    parameters: pass.parameters,
                    x: &*backend.view(&inputs, step * len_x..(step + 1) * len_x)?,
                    state: &before,
                    new_state: &mut new_state,
                    saved: &mut *backend.view_mut(&mut saves, step * len_saved..(step + 1) * len_saved)?,
                    batch,
                    step,
                    training: pass.training,
                    seed: pass.seed,
                },
            )?;
            // An absent step keeps the state, and repeats the output before it.
            let mut outputs = self.outputs.get_mut(backend, 2 * len_out)?;
            let (mut current, mut previous) = backend.split_mut(&mut outputs, len_out)?;
            if mask.is_some() {
                let masks = self.masks.get(backend, steps * batch)?;
                let valid = backend.view(&masks, step * batch..(step + 1) * batch)?;
                backend.select_rows(&valid, &new_state, Some(&before), &mut after)?;
                backend.copy(&current, &mut previous)?;
                self.part.grow(backend, "output", len_out)?;
                let mut out = self.part.get_mut(backend, len_out)?;
                backend.copy_columns(self.output, &new_state, columns(self.state), &mut out, columns(self.output))?;
                backend.select_rows(&valid, &out, Some(&previous), &mut current)?;
            } else {
                backend.copy(&new_state, &mut after)?;
                backend.copy_columns(
                    self.output,
                    &new_state,
                    columns(self.state),
                    &mut current,
                    columns(self.output),
                )?;
            }
            if self.return_sequences {
                let at = if self.go_backwards { steps - 1 - step } else { step };
                let (w, t) = (self.output as isize, steps as isize);
                let from = Strides { offset: 0, strides: [0, 0, w, 1] };
                let to = Strides { offset: at * self.output, strides: [0, 0, t * w, 1] };
                let shape = [1, 1, batch, self.output];
                backend.strided_copy(shape, &current, from, pass.outputs.get(0)?, to, WeightGrad::Set)?;
            } else if step + 1 == steps {
                backend.copy(&current, pass.outputs.get(0)?)?;
            }
        }
        let states = self.states.get(backend, (steps + 1) * width)?;
        let last = backend.view(&states, steps * width..(steps + 1) * width)?;
        if let Some(state) = pass.outputs.optional(1) {
            backend.copy(&last, state)?;
        }
        if self.stateful {
            backend.copy(&last, &mut *self.carried.tensor.get_mut(backend, width)?)?;
        }
        Ok(())
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let (batch, steps, width) = (pass.batch, self.seq_len, self.state * pass.batch);
        let (len_x, len_out, len_saved) = (batch * self.features, batch * self.output, batch * self.saved);
        self.dinputs.grow(backend, "dx", steps * len_x)?;
        for (scratch, len) in [
            (&mut self.dstate, width),
            (&mut self.dnew, width),
            (&mut self.part, width.max(len_out)),
            (&mut self.dout, 2 * len_out),
        ] {
            scratch.grow(backend, "gradients of states", len)?;
        }
        if pass.grad == WeightGrad::Set {
            backend.fill(pass.dparameters, 0.0)?;
        }
        let layouts = self.layouts(batch, self.features);
        let mut dstate = self.dstate.get_mut(backend, width)?;
        match pass.doutputs.optional(1) {
            Some(given) => backend.copy(given, &mut dstate)?,
            None => backend.fill(&mut dstate, 0.0)?,
        }
        // The gradient of the output of a step: its own, and that of absent steps after it, which repeat it.
        let mut douts = self.dout.get_mut(backend, 2 * len_out)?;
        let (mut dout, mut spare) = backend.split_mut(&mut douts, len_out)?;
        backend.fill(&mut dout, 0.0)?;
        let dy = pass.doutputs.optional(0);
        if let (Some(dy), false) = (dy, self.return_sequences) {
            backend.copy(dy, &mut dout)?;
        }
        let masked = pass.inputs.optional(1).is_some();
        for step in (0..steps).rev() {
            if let (Some(dy), true) = (dy, self.return_sequences) {
                let at = if self.go_backwards { steps - 1 - step } else { step };
                let (w, t) = (self.output as isize, steps as isize);
                let from = Strides { offset: at * self.output, strides: [0, 0, t * w, 1] };
                let to = Strides { offset: 0, strides: [0, 0, w, 1] };
                backend.strided_copy([1, 1, batch, self.output], dy, from, &mut dout, to, WeightGrad::Add)?;
            }
            let inputs = self.inputs.get(backend, steps * len_x)?;
            let states = self.states.get(backend, (steps + 1) * width)?;
            let computed = self.computed.get(backend, steps * width)?;
            let saves = self.saves.get(backend, steps * len_saved)?;
            let masks = self.masks.get(backend, steps * batch)?;
            let valid = match masked {
                true => Some(backend.view(&masks, step * batch..(step + 1) * batch)?),
                false => None,
            };
            // What the cell gave is the state, and its first columns the output.
            let mut dnew = self.dnew.get_mut(backend, width)?;
            match &valid {
                Some(valid) => backend.select_rows(valid, &dstate, None, &mut dnew)?,
                None => backend.copy(&dstate, &mut dnew)?,
            }
            let mut taken = self.part.get_mut(backend, width.max(len_out))?;
            {
                let mut taken = backend.view_mut(&mut taken, 0..len_out)?;
                match &valid {
                    Some(valid) => backend.select_rows(valid, &dout, None, &mut taken)?,
                    None => backend.copy(&dout, &mut taken)?,
                }
                let shape = [1, 1, batch, self.output];
                let from = Strides { offset: 0, strides: [0, 0, self.output as isize, 1] };
                let to = Strides { offset: 0, strides: [0, 0, self.state as isize, 1] };
                backend.strided_copy(shape, &taken, from, &mut dnew, to, WeightGrad::Add)?;
                // What absent steps leave for the step before: of the output and of the state.
                backend.copy(&dout, &mut spare)?;
                backend.scale_add(-1.0, &taken, 1.0, &mut spare)?;
                backend.copy(&spare, &mut dout)?;
            }
            let mut before = backend.view_mut(&mut taken, 0..width)?;
            let mut dinputs = self.dinputs.get_mut(backend, steps * len_x)?;
            let mut dx = backend.view_mut(&mut dinputs, step * len_x..(step + 1) * len_x)?;
            self.cell.backward(
                backend,
                CellBackward {
                    parameters: pass.parameters,
                    x: &*backend.view(&inputs, step * len_x..(step + 1) * len_x)?,
                    state: &*backend.view(&states, step * width..(step + 1) * width)?,
                    new_state: &*backend.view(&computed, step * width..(step + 1) * width)?,
                    saved: &*backend.view(&saves, step * len_saved..(step + 1) * len_saved)?,
                    dnew_state: &dnew,
                    dx: &mut dx,
                    dstate: &mut before,
                    dparameters: pass.dparameters,
                    batch,
                    step,
                    seed: pass.seed,
                },
            )?;
            match &valid {
                // Where the step was absent the gradient of the state passes by the cell, which was given none.
                Some(valid) => {
                    backend.copy(&dstate, &mut dnew)?;
                    backend.select_rows(valid, &before, Some(&dnew), &mut dstate)?;
                }
                None => backend.copy(&before, &mut dstate)?,
            }
        }
        if let Some(initial) = pass.dinputs.optional(2) {
            backend.copy(&dstate, initial)?;
        }
        if let Some(dx) = pass.dinputs.optional(0) {
            let (shape, there, here) = layouts;
            let from = self.dinputs.get(backend, steps * len_x)?;
            backend.strided_copy(shape, &from, here, dx, there, WeightGrad::Set)?;
        }
        Ok(())
    }

    fn check(&self, backend: &B) -> Result<()> {
        self.cell.check(backend)
    }

    fn is_stateful(&self) -> bool {
        self.stateful
    }

    fn reset_states(&mut self) {
        self.carried.batch = None;
    }
}
