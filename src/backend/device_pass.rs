//! Whole passes on a [`Device`]: [`DevicePass`], to run one again and again, [`infer`] and [`train`]. What [`pass`](super::pass) is
//! to a backend on slices of the host.
//!
//! Values come and go in `f64`: rounded to the device's element type on the way in, exact on the way out.

use super::device::{OnDevice, Plan};
use super::pass::{InputGradients, Inputs, OutputGradients, Outputs};
use super::tensor::{Tensor, TensorRef};
use super::{BackwardDataArgs, BackwardWeightsArgs, Device, Filled, ForwardArgs, ForwardMode, Reserve, WeightGrad};
use crate::error::Result;
use crate::rnn::shape::check_len;
use crate::rnn::{RnnDescriptor, RnnShape, WeightLayout};

/// What a pass reads, where its device computes; shapes as in [`TensorShapes`](crate::rnn::TensorShapes), flat and row-major. The same
/// as [`Inputs`] on the host.
pub struct DeviceInputs {
    /// All weights, as [`WeightLayout`] says.
    pub weights: Tensor,
    /// Input.
    pub x: Tensor,
    /// Initial output state.
    pub h0: Option<Tensor>,
    /// Initial cell state.
    pub c0: Option<Tensor>,
    /// Valid steps of each sequence, `u32`; a device other than the host cannot check them.
    pub lengths: Option<Tensor>,
    /// Reset mask `[T, B]`, `u8`.
    pub resets: Option<Tensor>,
    /// Seed of the dropout masks.
    pub dropout_seed: u64,
}

impl DeviceInputs {
    /// A copy of values of the host.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow) where the number of bytes overflows;
    /// [`Error::Unsupported`](crate::Error::Unsupported) where memory is short; [`Error::Driver`](crate::Error::Driver) where the GPU's
    /// driver fails.
    pub fn new(device: &Device, inputs: &Inputs<f64>) -> Result<Self> {
        let place = |what: &str, values: Option<&Vec<f64>>| copy(device, what, values);
        Ok(DeviceInputs {
            weights: device.rounded("weights", inputs.weights.len(), inputs.weights.iter().copied())?,
            x: device.rounded("x", inputs.x.len(), inputs.x.iter().copied())?,
            h0: place("h0", inputs.h0.as_ref())?,
            c0: place("c0", inputs.c0.as_ref())?,
            lengths: inputs.lengths.as_ref().map(|lengths| device.tensor("lengths", lengths)).transpose()?,
            resets: inputs.resets.as_ref().map(|resets| device.tensor("resets", resets)).transpose()?,
            dropout_seed: inputs.dropout_seed,
        })
    }
}

/// Gradients of the outputs, where a device computes; absent means zeros. The same as [`OutputGradients`] on the host.
#[derive(Default)]
pub struct DeviceGradients {
    /// Of `y`.
    pub dy: Option<Tensor>,
    /// Of `hn`.
    pub dhn: Option<Tensor>,
    /// Of `cn`.
    pub dcn: Option<Tensor>,
}

impl DeviceGradients {
    /// A copy of values of the host.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow) where the number of bytes overflows;
    /// [`Error::Unsupported`](crate::Error::Unsupported) where memory is short; [`Error::Driver`](crate::Error::Driver) where the GPU's
    /// driver fails.
    pub fn new(device: &Device, gradients: &OutputGradients<f64>) -> Result<Self> {
        Ok(DeviceGradients {
            dy: copy(device, "dy", gradients.dy.as_ref())?,
            dhn: copy(device, "dhn", gradients.dhn.as_ref())?,
            dcn: copy(device, "dcn", gradients.dcn.as_ref())?,
        })
    }
}

fn copy(device: &Device, what: &str, values: Option<&Vec<f64>>) -> Result<Option<Tensor>> {
    values.map(|values| device.rounded(what, values.len(), values.iter().copied())).transpose()
}

/// Forward in inference mode.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for inputs that do not fit the operator; [`Error::Unsupported`](crate::Error::Unsupported) where
/// the device cannot do it or memory is short, [`Error::Driver`](crate::Error::Driver) and
/// [`Error::KernelFault`](crate::Error::KernelFault) where the GPU fails; all are listed at [`Device::plan`], [`Device::forward`] and
/// [`Device::check`].
pub fn infer(
    device: &Device,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    inputs: &Inputs<f64>,
) -> Result<Outputs<f64>> {
    let (inputs, gradients) = (DeviceInputs::new(device, inputs)?, DeviceGradients::default());
    let mut pass = DevicePass::new(device, descriptor, shape, ForwardMode::Inference, inputs, gradients)?;
    pass.run()?;
    pass.check()?;
    pass.outputs()
}

/// Training forward and both backward passes. Between them the workspace is filled with NaN: nothing in it may survive.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for inputs and gradients that do not fit the operator;
/// [`Error::Unsupported`](crate::Error::Unsupported) where the device cannot do it or memory is short,
/// [`Error::Driver`](crate::Error::Driver) and [`Error::KernelFault`](crate::Error::KernelFault) where the GPU fails; all are listed at
/// [`Device::plan`], [`Device::forward_training`], [`Device::backward_data`] and [`Device::check`].
pub fn train(
    device: &Device,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    inputs: &Inputs<f64>,
    gradients: &OutputGradients<f64>,
) -> Result<(Outputs<f64>, InputGradients<f64>)> {
    let (inputs, gradients) = (DeviceInputs::new(device, inputs)?, DeviceGradients::new(device, gradients)?);
    let mut pass = DevicePass::new(device, descriptor, shape, ForwardMode::Training, inputs, gradients)?;
    pass.run_and(|device, workspace| device.forget(workspace.view_mut()))?;
    pass.check()?;
    // A pass in training has them.
    Ok((pass.outputs()?, pass.input_gradients()?.unwrap_or_default()))
}

/// A pass with all its tensors where its device computes, to be run as often as one likes: for measuring, for graphs and for
/// checks. Every run gives the same.
pub struct DevicePass {
    device: Device,
    plan: Plan,
    inputs: DeviceInputs,
    y: Tensor,
    hn: Tensor,
    cn: Option<Tensor>,
    workspace: Tensor,
    /// Inference has none.
    training: Option<Training>,
}

/// What the backward passes need beyond forward's tensors.
struct Training {
    given: DeviceGradients,
    dx: Tensor,
    dh0: Tensor,
    dc0: Option<Tensor>,
    dweights: Tensor,
    /// Lost by a run that failed.
    reserve: Option<Tensor>,
}

impl DevicePass {
    /// Plans and allocates. `gradients` are for training only.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) for `x` and weights of the wrong length; [`Error::ZeroSize`](crate::Error::ZeroSize),
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow) and [`Error::InvalidOption`](crate::Error::InvalidOption) for sizes and options
    /// that no operator has; [`Error::Unsupported`](crate::Error::Unsupported) where the device cannot do it or memory is short,
    /// [`Error::Driver`](crate::Error::Driver) where the GPU's driver fails. Other tensors of wrong lengths show in [`run`](Self::run).
    pub fn new(
        device: &Device,
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        mode: ForwardMode,
        inputs: DeviceInputs,
        gradients: DeviceGradients,
    ) -> Result<Self> {
        let plan = device.plan(descriptor, shape, mode)?;
        let space = plan.temp_space();
        let tensors = shape.tensors(descriptor)?;
        // What everything else is proportional to, before anything is allocated for sizes that the data do not bear out.
        check_len("x", &tensors.x, inputs.x.len())?;
        WeightLayout::new(descriptor)?.check("weights", inputs.weights.len())?;
        let unwritten = |what: &str, len: usize| -> Result<Tensor> {
            let mut tensor = device.allocate(what, len)?;
            device.forget(tensor.view_mut())?;
            Ok(tensor)
        };
        let len = |sizes: &[usize]| sizes.iter().product::<usize>();
        let has_c = descriptor.cell.has_cell_state();
        let training = match mode {
            ForwardMode::Inference => None,
            ForwardMode::Training => Some(Training {
                given: gradients,
                dx: unwritten("dx", len(&tensors.x))?,
                dh0: unwritten("dh0", len(&tensors.h))?,
                dc0: has_c.then(|| unwritten("dc0", len(&tensors.c))).transpose()?,
                dweights: unwritten("dweights", inputs.weights.len())?,
                reserve: Some(unwritten("reserve", space.reserve)?),
            }),
        };
        Ok(DevicePass {
            y: unwritten("y", len(&tensors.y))?,
            hn: unwritten("hn", len(&tensors.h))?,
            cn: has_c.then(|| unwritten("cn", len(&tensors.c))).transpose()?,
            workspace: unwritten("workspace", space.workspace)?,
            training,
            inputs,
            device: device.clone(),
            plan,
        })
    }

    /// How it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Gives it to the device: forward, and in training both backward passes. Does not wait where the device is not the host.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) and [`Error::Presence`](crate::Error::Presence) for inputs and gradients that do not fit the
    /// plan; [`Error::SequenceLength`](crate::Error::SequenceLength) for a length outside `1..=seq_len` that the host can read;
    /// [`Error::Unsupported`](crate::Error::Unsupported) for those of another device; [`Error::Driver`](crate::Error::Driver) where the
    /// GPU's driver fails.
    pub fn run(&mut self) -> Result<()> {
        self.run_and(|_, _| Ok(()))
    }

    /// Gives its forward pass alone to the device; in training that keeps what backward reads.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn run_forward(&mut self) -> Result<()> {
        if let Some(reserve) = self.forward()? {
            self.keep(reserve.release());
        }
        Ok(())
    }

    /// The forward pass; in training what it has filled.
    fn forward(&mut self) -> Result<Option<Reserve<Tensor, Filled>>> {
        let DevicePass { device, plan, inputs, y, hn, cn, workspace, training } = self;
        let args = ForwardArgs::<OnDevice> {
            weights: inputs.weights.view(),
            x: inputs.x.view(),
            h0: view(&inputs.h0),
            c0: view(&inputs.c0),
            lengths: view(&inputs.lengths),
            resets: view(&inputs.resets),
            y: y.view_mut(),
            hn: Some(hn.view_mut()),
            cn: cn.as_mut().map(Tensor::view_mut),
            workspace: workspace.view_mut(),
            dropout_seed: inputs.dropout_seed,
        };
        let Some(training) = training else { return device.forward(plan, args).map(|()| None) };
        let reserve = match training.reserve.take() {
            Some(reserve) => reserve,
            None => device.allocate("reserve", plan.temp_space().reserve)?,
        };
        device.forward_training(plan, args, Reserve::new(reserve)).map(Some)
    }

    fn keep(&mut self, reserve: Tensor) {
        if let Some(training) = &mut self.training {
            training.reserve = Some(reserve);
        }
    }

    /// All passes, doing something to the workspace between them.
    fn run_and(&mut self, between: impl Fn(&Device, &mut Tensor) -> Result<()>) -> Result<()> {
        let filled = self.forward()?;
        let DevicePass { device, plan, inputs, y, workspace, training, .. } = self;
        let (Some(reserve), Some(training)) = (filled, training) else { return Ok(()) };
        between(device, workspace)?;
        let args = BackwardDataArgs::<OnDevice> {
            weights: inputs.weights.view(),
            x: inputs.x.view(),
            y: y.view(),
            h0: view(&inputs.h0),
            c0: view(&inputs.c0),
            lengths: view(&inputs.lengths),
            resets: view(&inputs.resets),
            dy: view(&training.given.dy),
            dhn: view(&training.given.dhn),
            dcn: view(&training.given.dcn),
            dx: Some(training.dx.view_mut()),
            dh0: Some(training.dh0.view_mut()),
            dc0: training.dc0.as_mut().map(Tensor::view_mut),
            workspace: workspace.view_mut(),
        };
        let mut reserve = device.backward_data(plan, args, reserve)?;
        between(device, workspace)?;
        let args = BackwardWeightsArgs::<OnDevice> {
            x: inputs.x.view(),
            y: y.view(),
            h0: view(&inputs.h0),
            c0: view(&inputs.c0),
            lengths: view(&inputs.lengths),
            resets: view(&inputs.resets),
            dweights: training.dweights.view_mut(),
            workspace: workspace.view_mut(),
        };
        device.backward_weights(plan, args, &mut reserve, WeightGrad::Set)?;
        self.keep(reserve.release());
        Ok(())
    }

    /// Waits for the runs given so far, and says whether they have ended as they should.
    ///
    /// # Errors
    ///
    /// [`Error::KernelFault`](crate::Error::KernelFault) where a kernel gave up, whose results are then garbage;
    /// [`Error::Driver`](crate::Error::Driver) where the GPU's driver fails, or reports a fault of earlier work.
    pub fn check(&self) -> Result<()> {
        self.device.check(&self.plan)
    }

    /// Fills everything that a run writes with NaN, after the runs given so far, so that it is seen what the next one writes.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`](crate::Error::Driver) where the GPU's driver fails.
    pub fn forget(&mut self) -> Result<()> {
        let mut written = vec![&mut self.y, &mut self.hn, &mut self.workspace];
        written.extend(&mut self.cn);
        if let Some(training) = &mut self.training {
            written.extend([&mut training.dx, &mut training.dh0, &mut training.dweights]);
            written.extend(training.dc0.iter_mut().chain(&mut training.reserve));
        }
        written.into_iter().try_for_each(|tensor| self.device.forget(tensor.view_mut()))
    }

    /// Waits, and copies what the last run gave.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) where memory is short; [`Error::Driver`](crate::Error::Driver) where the GPU's
    /// driver fails, or reports a fault of the run.
    pub fn outputs(&self) -> Result<Outputs<f64>> {
        let cn = self.cn.as_ref().map(|cn| self.device.read_wide(cn.view())).transpose()?;
        Ok(Outputs { y: self.device.read_wide(self.y.view())?, hn: self.device.read_wide(self.hn.view())?, cn })
    }

    /// Waits, and copies the gradients that the last run gave; `None` in inference.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) where memory is short; [`Error::Driver`](crate::Error::Driver) where the GPU's
    /// driver fails, or reports a fault of the run.
    pub fn input_gradients(&self) -> Result<Option<InputGradients<f64>>> {
        let Some(training) = &self.training else { return Ok(None) };
        Ok(Some(InputGradients {
            dx: self.device.read_wide(training.dx.view())?,
            dh0: self.device.read_wide(training.dh0.view())?,
            dc0: training.dc0.as_ref().map(|dc0| self.device.read_wide(dc0.view())).transpose()?,
            dweights: self.device.read_wide(training.dweights.view())?,
        }))
    }
}

fn view(tensor: &Option<Tensor>) -> Option<TensorRef<'_>> {
    tensor.as_ref().map(Tensor::view)
}
