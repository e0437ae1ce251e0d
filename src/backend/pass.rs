//! Whole passes of a host backend with buffers of their own: [`infer`] and [`train`] for parity checks, gradient checks and
//! tests, where convenience matters more than allocation, and [`Pass`] to run one again and again.

use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, HostBackend, Reserve, WeightGrad,
};
use crate::dtype::Element;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::memory;
use crate::rnn::shape::check_len;
use crate::rnn::{RnnDescriptor, RnnShape, WeightLayout};

/// What a pass reads; shapes as in [`TensorShapes`](crate::rnn::TensorShapes), flat and row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs<E> {
    /// All weights, as [`WeightLayout`] says.
    pub weights: Vec<E>,
    /// Input.
    pub x: Vec<E>,
    /// Initial output state.
    pub h0: Option<Vec<E>>,
    /// Initial cell state.
    pub c0: Option<Vec<E>>,
    /// Valid steps of each sequence.
    pub lengths: Option<Vec<u32>>,
    /// Reset mask `[T, B]`.
    pub resets: Option<Vec<u8>>,
    /// Seed of the dropout masks.
    pub dropout_seed: u64,
}

/// What forward gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs<E> {
    /// Output.
    pub y: Vec<E>,
    /// Final output state.
    pub hn: Vec<E>,
    /// Final states beside h, of cells that have such.
    pub cn: Option<Vec<E>>,
}

/// Gradients of the outputs; absent means zeros.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputGradients<E> {
    /// Of `y`.
    pub dy: Option<Vec<E>>,
    /// Of `hn`.
    pub dhn: Option<Vec<E>>,
    /// Of `cn`.
    pub dcn: Option<Vec<E>>,
}

/// Gradients of everything a pass reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputGradients<E> {
    /// Of `x`.
    pub dx: Vec<E>,
    /// Of `h0`, whether or not it was given.
    pub dh0: Vec<E>,
    /// Of `c0`, of cells that have it.
    pub dc0: Option<Vec<E>>,
    /// Of the weights, laid out as they are.
    pub dweights: Vec<E>,
}

/// Buffers start with this, so that an element a backend forgets to write is seen.
fn unwritten<E: Element>(len: usize) -> Result<Vec<E>> {
    memory::filled("a buffer", len, E::of(f64::NAN))
}

/// Checks what everything else is proportional to, before anything is allocated for sizes that the data do not bear out.
fn check_inputs<E>(descriptor: &RnnDescriptor, shape: RnnShape, inputs: &Inputs<E>) -> Result<()> {
    check_len("x", &shape.tensors(descriptor)?.x, inputs.x.len())?;
    WeightLayout::new(descriptor)?.check("weights", inputs.weights.len())
}

/// Forward in inference mode.
///
/// # Errors
///
/// [`Error::Shape`], [`Error::SequenceLength`] and [`Error::Presence`] for inputs that do not fit the operator; [`Error::ZeroSize`],
/// [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes and options that no operator has; [`Error::Unsupported`] where the
/// backend cannot do it or memory is short.
pub fn infer<E: Element, B: HostBackend<E>>(
    backend: &B,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    inputs: &Inputs<E>,
) -> Result<Outputs<E>> {
    let gradients = OutputGradients::default();
    let mut pass = Pass::new(backend, descriptor, shape, ForwardMode::Inference, inputs, &gradients)?;
    pass.run()?;
    Ok(pass.outputs)
}

/// Training forward and both backward passes. Between them the workspace is filled with NaN: nothing in it may survive.
///
/// # Errors
///
/// [`Error::Shape`], [`Error::SequenceLength`] and [`Error::Presence`] for inputs and gradients that do not fit the operator;
/// [`Error::ZeroSize`], [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes and options that no operator has;
/// [`Error::Unsupported`] where the backend cannot do it or memory is short.
pub fn train<E: Element, B: HostBackend<E>>(
    backend: &B,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    inputs: &Inputs<E>,
    gradients: &OutputGradients<E>,
) -> Result<(Outputs<E>, InputGradients<E>)> {
    let mut pass = Pass::new(backend, descriptor, shape, ForwardMode::Training, inputs, gradients)?;
    pass.train(|workspace| workspace.fill(E::of(f64::NAN)))?;
    Ok((pass.outputs, pass.input_gradients))
}

/// A pass with all its buffers, to be run as often as one likes. Every run gives the same.
pub struct Pass<'a, E: Element, B: HostBackend<E>> {
    backend: &'a B,
    plan: B::Plan,
    mode: ForwardMode,
    inputs: &'a Inputs<E>,
    gradients: &'a OutputGradients<E>,
    workspace: Vec<E>,
    reserve: Vec<E>,
    outputs: Outputs<E>,
    /// Empty in inference.
    input_gradients: InputGradients<E>,
}

impl<'a, E: Element, B: HostBackend<E>> Pass<'a, E, B> {
    /// Allocates everything. `gradients` are for training only.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for `x` and weights of the wrong length; [`Error::ZeroSize`], [`Error::SizeOverflow`] and [`Error::InvalidOption`]
    /// for sizes and options that no operator has; [`Error::Unsupported`] where the backend cannot do it or memory is short.
    pub fn new(
        backend: &'a B,
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        mode: ForwardMode,
        inputs: &'a Inputs<E>,
        gradients: &'a OutputGradients<E>,
    ) -> Result<Self> {
        let plan = backend.plan(descriptor, shape, mode)?;
        check_inputs(descriptor, shape, inputs)?;
        let space = backend.temp_space(&plan);
        let tensors = shape.tensors(descriptor)?;
        let gradient = |sizes: &[usize]| match mode {
            ForwardMode::Inference => Ok(Vec::new()),
            ForwardMode::Training => unwritten(sizes.iter().product()),
        };
        Ok(Pass {
            workspace: unwritten(space.workspace)?,
            reserve: unwritten(space.reserve)?,
            outputs: Outputs::unwritten(descriptor, shape)?,
            input_gradients: InputGradients {
                dx: gradient(&tensors.x)?,
                dh0: gradient(&tensors.h)?,
                dc0: descriptor.cell.has_cell_state().then(|| gradient(&tensors.c)).transpose()?,
                dweights: gradient(&[inputs.weights.len()])?,
            },
            backend,
            plan,
            mode,
            inputs,
            gradients,
        })
    }

    /// Runs it: forward, and in training both backward passes.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], [`Error::SequenceLength`] and [`Error::Presence`] for inputs and gradients that do not fit the operator.
    pub fn run(&mut self) -> Result<()> {
        match self.mode {
            ForwardMode::Inference => {
                self.backend.forward(&self.plan, self.outputs.args(self.inputs, &mut self.workspace))
            }
            ForwardMode::Training => self.train(|_| ()),
        }
    }

    /// What the last run gave.
    pub fn outputs(&self) -> &Outputs<E> {
        &self.outputs
    }

    /// What the last run in training gave.
    pub fn input_gradients(&self) -> &InputGradients<E> {
        &self.input_gradients
    }

    fn train(&mut self, between: impl Fn(&mut [E])) -> Result<()> {
        let Pass { backend, plan, inputs, gradients, workspace, reserve, outputs, input_gradients, .. } = self;
        let args = outputs.args(inputs, workspace);
        let reserve = backend.forward_training(plan, args, Reserve::new(reserve.as_mut_slice()))?;
        between(workspace);
        let args = BackwardDataArgs::<B> {
            weights: &inputs.weights,
            x: &inputs.x,
            y: &outputs.y,
            h0: inputs.h0.as_deref(),
            c0: inputs.c0.as_deref(),
            lengths: inputs.lengths.as_deref(),
            resets: inputs.resets.as_deref(),
            dy: gradients.dy.as_deref(),
            dhn: gradients.dhn.as_deref(),
            dcn: gradients.dcn.as_deref(),
            dx: Some(&mut input_gradients.dx),
            dh0: Some(&mut input_gradients.dh0),
            dc0: input_gradients.dc0.as_deref_mut(),
            workspace,
        };
        let mut reserve = backend.backward_data(plan, args, reserve)?;
        between(workspace);
        let args = BackwardWeightsArgs::<B> {
            x: &inputs.x,
            y: &outputs.y,
            h0: inputs.h0.as_deref(),
            c0: inputs.c0.as_deref(),
            lengths: inputs.lengths.as_deref(),
            resets: inputs.resets.as_deref(),
            dweights: &mut input_gradients.dweights,
            workspace,
        };
        backend.backward_weights(plan, args, &mut reserve, WeightGrad::Set)
    }
}

impl<E: Element> Outputs<E> {
    fn unwritten(descriptor: &RnnDescriptor, shape: RnnShape) -> Result<Self> {
        let tensors = shape.tensors(descriptor)?;
        let len = |sizes: &[usize]| sizes.iter().product::<usize>();
        Ok(Outputs {
            y: unwritten(len(&tensors.y))?,
            hn: unwritten(len(&tensors.h))?,
            cn: descriptor.cell.has_cell_state().then(|| unwritten(len(&tensors.c))).transpose()?,
        })
    }

    fn args<'a, B: HostBackend<E>>(&'a mut self, inputs: &'a Inputs<E>, workspace: &'a mut [E]) -> ForwardArgs<'a, B> {
        ForwardArgs {
            weights: &inputs.weights,
            x: &inputs.x,
            h0: inputs.h0.as_deref(),
            c0: inputs.c0.as_deref(),
            lengths: inputs.lengths.as_deref(),
            resets: inputs.resets.as_deref(),
            y: &mut self.y,
            hn: Some(&mut self.hn),
            cn: self.cn.as_deref_mut(),
            workspace,
            dropout_seed: inputs.dropout_seed,
        }
    }
}
