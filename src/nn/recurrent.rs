//! The recurrent layers with Keras's words and defaults, computed by a [`RecurrentBackend`](crate::backend::RecurrentBackend).

use serde::{Deserialize, Serialize};

use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, DenseBackend, Filled, ForwardArgs, ForwardMode, Reserve, TempSpace,
};
use crate::cell::CellKind;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};
use crate::rnn::{Bias, Layout, RnnDescriptor, RnnShape, WeightKind, WeightLayout};

/// One type for each of Keras's recurrent layers: their options will differ, their shapes do not.
macro_rules! recurrent_layer {
    ($(#[$doc:meta])* $layer:ident, $class_name:literal, $cell:ident, $bias:ident) => {
        $(#[$doc])*
        ///
        /// `[seq_len, features]` to `[units]`, the output of the last step, or with `return_sequences` to `[seq_len, units]`. Kernel
        /// Glorot uniform, recurrent kernel orthogonal, as in Keras; names, shapes and gate order of the weights are PyTorch's.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $layer {
            /// Width of the state and the output.
            pub units: usize,
            /// Whether the output is that of every step rather than of the last; needed below another recurrent layer.
            #[serde(default)]
            pub return_sequences: bool,
        }

        impl $layer {
            /// A layer with `units` units that returns the output of the last step.
            pub fn new(units: usize) -> Self {
                $layer { units, return_sequences: false }
            }

            /// Sets whether the output of every step is returned.
            pub fn return_sequences(self, return_sequences: bool) -> Self {
                $layer { return_sequences, ..self }
            }

            pub(super) fn build<B: DenseBackend + 'static>(
                &self,
                builder: &mut Builder<B>,
                inputs: &[Value],
            ) -> Result<Vec<Value>>
            where
                B::Plan: 'static,
            {
                let x = one_input(builder, inputs)?;
                let &[seq_len, features] = x.shape() else {
                    return Err(Error::shape(
                        builder.name(),
                        "inputs of shape [seq_len, features] (below a recurrent layer, set return_sequences)",
                        format!("{:?}", x.shape()),
                    ));
                };
                let mut descriptor = RnnDescriptor::new(CellKind::$cell, features, self.units);
                descriptor.bias = Bias::$bias;
                descriptor.layout = Layout::BatchMajor;
                recurrent(builder, x, descriptor, seq_len, self.return_sequences)
            }
        }
    };
}

recurrent_layer! {
    /// The simple recurrence with tanh, Keras's [`SimpleRNN`](https://keras.io/api/layers/recurrent_layers/simple_rnn/).
    SimpleRnn, "SimpleRNN", Rnn, Single
}
recurrent_layer! {
    /// Long short-term memory with one bias that starts at 1 for the forget gate and at 0 elsewhere, Keras's
    /// [`LSTM`](https://keras.io/api/layers/recurrent_layers/lstm/).
    Lstm, "LSTM", Lstm, Single
}
recurrent_layer! {
    /// The gated recurrent unit, reset gate after the recurrent product, with two biases, Keras's
    /// [`GRU`](https://keras.io/api/layers/recurrent_layers/gru/).
    Gru, "GRU", Gru, Double
}

/// Plans kept: batches of training and validation with their smaller last ones, for training and for inference.
const PLANS: usize = 8;

struct Planned<P> {
    batch: usize,
    mode: ForwardMode,
    plan: P,
    space: TempSpace,
}

fn recurrent<B: DenseBackend + 'static>(
    builder: &mut Builder<B>,
    x: &Value,
    descriptor: RnnDescriptor,
    seq_len: usize,
    return_sequences: bool,
) -> Result<Vec<Value>>
where
    B::Plan: 'static,
{
    let units = descriptor.hidden_size;
    let weights = WeightLayout::new(&descriptor)?;
    RnnShape { seq_len, batch: 1 }.tensors(&descriptor)?;
    let mut range = 0..0;
    for (i, entry) in weights.entries().iter().enumerate() {
        let init = match (entry.kind, descriptor.cell) {
            (WeightKind::InputHidden, _) => Init::GlorotUniform { fan_in: entry.shape[1], fan_out: entry.shape[0] },
            (WeightKind::HiddenHidden, _) => Init::Orthogonal,
            // Gate order i, f, g, o; a forget gate that starts open lets gradients through (Keras's unit_forget_bias).
            (WeightKind::InputBias, CellKind::Lstm) => Init::OnesIn(units..2 * units),
            _ => Init::Constant(0.0),
        };
        let part = builder.parameter(&entry.name, &entry.shape, init)?;
        range = if i == 0 { part } else { range.start..part.end };
    }
    let output_shape = if return_sequences { vec![seq_len, units] } else { vec![units] };
    let op = RecurrentOp::<B> {
        descriptor,
        seq_len,
        return_sequences,
        plans: Vec::new(),
        sequence: Scratch::new(),
        workspace: Scratch::new(),
        reserve: Scratch::new(),
        filled: None,
    };
    Ok(vec![builder.op1(op, &[x], &output_shape, range)?])
}

struct RecurrentOp<B: DenseBackend> {
    descriptor: RnnDescriptor,
    seq_len: usize,
    return_sequences: bool,
    plans: Vec<Planned<B::Plan>>,
    /// Outputs of all steps where only the last is returned.
    sequence: Scratch<B>,
    workspace: Scratch<B>,
    reserve: Scratch<B>,
    /// The reserve between forward and backward.
    filled: Option<Reserve<B::Owned<B::Elem>, Filled>>,
}

impl<B: DenseBackend> RecurrentOp<B> {
    /// Position of the plan in the cache, and the buffers made large enough for it.
    fn prepare(&mut self, backend: &B, batch: usize, mode: ForwardMode) -> Result<usize> {
        let known = self.plans.iter().position(|p| p.batch == batch && p.mode == mode);
        let index = match known {
            Some(index) => index,
            None => {
                let shape = RnnShape { seq_len: self.seq_len, batch };
                let plan = backend.plan(&self.descriptor, shape, mode)?;
                let space = backend.temp_space(&plan);
                if self.plans.len() == PLANS {
                    self.plans.remove(0);
                }
                self.plans.push(Planned { batch, mode, plan, space });
                self.plans.len() - 1
            }
        };
        let space = self.plans[index].space;
        self.workspace.grow(backend, "workspace", space.workspace)?;
        if mode == ForwardMode::Training {
            self.reserve.grow(backend, "reserve", space.reserve)?;
        }
        if !self.return_sequences {
            self.sequence.grow(backend, "y", batch * self.seq_len * self.descriptor.hidden_size)?;
        }
        Ok(index)
    }
}

impl<B: DenseBackend> Op<B> for RecurrentOp<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let mode = if pass.training { ForwardMode::Training } else { ForwardMode::Inference };
        if let Some(unused) = self.filled.take() {
            self.reserve.put(unused.release());
        }
        let index = self.prepare(backend, pass.batch, mode)?;
        let plan = &self.plans[index].plan;
        let mut sequence;
        let (y, hn) = if self.return_sequences {
            (pass.outputs.get(0)?, None)
        } else {
            let len = pass.batch * self.seq_len * self.descriptor.hidden_size;
            sequence = self.sequence.get_mut(backend, len)?;
            (&mut *sequence, Some(pass.outputs.get(0)?))
        };
        let args = ForwardArgs {
            weights: pass.parameters,
            x: pass.inputs.get(0)?,
            h0: None,
            c0: None,
            lengths: None,
            resets: None,
            y,
            hn,
            cn: None,
            workspace: self.workspace.all()?,
            dropout_seed: 0,
        };
        match mode {
            ForwardMode::Inference => backend.forward(plan, args),
            ForwardMode::Training => {
                let reserve = Reserve::new(self.reserve.take()?);
                self.filled = Some(backend.forward_training(plan, args, reserve)?);
                Ok(())
            }
        }
    }

    fn check(&self, backend: &B) -> Result<()> {
        self.plans.iter().try_for_each(|planned| backend.check(&planned.plan))
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let no_forward = || Error::Presence {
            tensor: format!("reserve of the {} layer", self.descriptor.cell),
            problem: "backward needs a forward pass in training mode before it, with as many samples".to_owned(),
        };
        let reserve = self.filled.take().ok_or_else(no_forward)?;
        let batch = pass.batch;
        let planned = self.plans.iter().find(|p| p.batch == batch && p.mode == ForwardMode::Training);
        let plan = &planned.ok_or_else(no_forward)?.plan;
        let sequence;
        let (y, dy, dhn) = if self.return_sequences {
            (pass.outputs.get(0)?, Some(pass.doutputs.get(0)?), None)
        } else {
            sequence = self.sequence.get(backend, batch * self.seq_len * self.descriptor.hidden_size)?;
            (&*sequence, None, Some(pass.doutputs.get(0)?))
        };
        let args = BackwardDataArgs {
            weights: pass.parameters,
            y,
            h0: None,
            c0: None,
            lengths: None,
            resets: None,
            dy,
            dhn,
            dcn: None,
            dx: pass.dinputs.optional(0),
            dh0: None,
            dc0: None,
            workspace: self.workspace.all()?,
        };
        let mut reserve = backend.backward_data(plan, args, reserve)?;
        let args = BackwardWeightsArgs {
            x: pass.inputs.get(0)?,
            y,
            h0: None,
            c0: None,
            lengths: None,
            resets: None,
            dweights: pass.dparameters,
            workspace: self.workspace.all()?,
        };
        backend.backward_weights(plan, args, &mut reserve, pass.grad)?;
        self.reserve.put(reserve.release());
        Ok(())
    }
}
