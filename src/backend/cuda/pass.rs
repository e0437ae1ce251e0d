//! Whole passes in a device's memory: [`DevicePass`].

use bytemuck::Pod;

use super::backend::CudaBackend;
use super::device::Device;
use super::device::memory::DeviceBuffer;
use super::recurrent::CudaPlan;
use crate::backend::pass::{InputGradients, Inputs, OutputGradients, Outputs};
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, RecurrentBackend, Reserve, WeightGrad,
};
use crate::dtype::Element;
use crate::error::Result;
use crate::rnn::{RnnDescriptor, RnnShape};

/// A pass with all its tensors in the device's memory, to be run as often as one likes: for measuring, for graphs and for
/// checks. Every run gives the same. What [`Pass`](crate::backend::pass::Pass) is on the host.
pub struct DevicePass<E: Element, D: Device> {
    backend: CudaBackend<E, D>,
    plan: CudaPlan<D>,
    weights: DeviceBuffer<E, D>,
    x: DeviceBuffer<E, D>,
    h0: Option<DeviceBuffer<E, D>>,
    c0: Option<DeviceBuffer<E, D>>,
    lengths: Option<DeviceBuffer<u32, D>>,
    resets: Option<DeviceBuffer<u8, D>>,
    dropout_seed: u64,
    y: DeviceBuffer<E, D>,
    hn: DeviceBuffer<E, D>,
    cn: Option<DeviceBuffer<E, D>>,
    workspace: DeviceBuffer<E, D>,
    /// Inference has none.
    training: Option<Training<E, D>>,
}

/// What the backward passes need beyond forward's tensors.
struct Training<E: Element, D: Device> {
    dy: Option<DeviceBuffer<E, D>>,
    dhn: Option<DeviceBuffer<E, D>>,
    dcn: Option<DeviceBuffer<E, D>>,
    dx: DeviceBuffer<E, D>,
    dh0: DeviceBuffer<E, D>,
    dc0: Option<DeviceBuffer<E, D>>,
    dweights: DeviceBuffer<E, D>,
    reserve: DeviceBuffer<E, D>,
}

impl<E: Element, D: Device> DevicePass<E, D> {
    /// Plans, allocates, and copies what is read. `gradients` are for training only.
    ///
    /// # Errors
    ///
    /// Those of the plan and of the device. Tensors of wrong lengths show in [`run`](Self::run).
    pub fn new(
        backend: &CudaBackend<E, D>,
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        mode: ForwardMode,
        inputs: &Inputs<E>,
        gradients: &OutputGradients<E>,
    ) -> Result<Self> {
        let plan = backend.plan(descriptor, shape, mode)?;
        let space = backend.temp_space(&plan);
        let tensors = shape.tensors(descriptor)?;
        let len = |sizes: &[usize]| sizes.iter().product::<usize>();
        let has_c = descriptor.cell.has_cell_state();
        let training = match mode {
            ForwardMode::Inference => None,
            ForwardMode::Training => Some(Training {
                dy: copy_if(backend, "dy", gradients.dy.as_deref())?,
                dhn: copy_if(backend, "dhn", gradients.dhn.as_deref())?,
                dcn: copy_if(backend, "dcn", gradients.dcn.as_deref())?,
                dx: unwritten(backend, "dx", len(&tensors.x))?,
                dh0: unwritten(backend, "dh0", len(&tensors.h))?,
                dc0: has_c.then(|| unwritten(backend, "dc0", len(&tensors.c))).transpose()?,
                dweights: unwritten(backend, "dweights", inputs.weights.len())?,
                reserve: unwritten(backend, "reserve", space.reserve)?,
            }),
        };
        Ok(DevicePass {
            weights: copy(backend, "weights", &inputs.weights)?,
            x: copy(backend, "x", &inputs.x)?,
            h0: copy_if(backend, "h0", inputs.h0.as_deref())?,
            c0: copy_if(backend, "c0", inputs.c0.as_deref())?,
            lengths: copy_if(backend, "lengths", inputs.lengths.as_deref())?,
            resets: copy_if(backend, "resets", inputs.resets.as_deref())?,
            dropout_seed: inputs.dropout_seed,
            y: unwritten(backend, "y", len(&tensors.y))?,
            hn: unwritten(backend, "hn", len(&tensors.h))?,
            cn: has_c.then(|| unwritten(backend, "cn", len(&tensors.c))).transpose()?,
            workspace: unwritten(backend, "workspace", space.workspace)?,
            training,
            backend: backend.clone(),
            plan,
        })
    }

    /// How it runs.
    pub fn plan(&self) -> &CudaPlan<D> {
        &self.plan
    }

    /// Gives it to the backend's stream: forward, and in training both backward passes. Does not wait.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub fn run(&mut self) -> Result<()> {
        let DevicePass { backend, plan, .. } = self;
        let args = ForwardArgs::<CudaBackend<E, D>> {
            weights: &self.weights,
            x: &self.x,
            h0: self.h0.as_ref(),
            c0: self.c0.as_ref(),
            lengths: self.lengths.as_ref(),
            resets: self.resets.as_ref(),
            y: &mut self.y,
            hn: Some(&mut self.hn),
            cn: self.cn.as_mut(),
            workspace: &mut self.workspace,
            dropout_seed: self.dropout_seed,
        };
        let Some(training) = &mut self.training else { return backend.forward(plan, args) };
        let reserve = backend.forward_training(plan, args, Reserve::new(&mut training.reserve))?;
        let args = BackwardDataArgs::<CudaBackend<E, D>> {
            weights: &self.weights,
            y: &self.y,
            h0: self.h0.as_ref(),
            c0: self.c0.as_ref(),
            lengths: self.lengths.as_ref(),
            resets: self.resets.as_ref(),
            dy: training.dy.as_ref(),
            dhn: training.dhn.as_ref(),
            dcn: training.dcn.as_ref(),
            dx: Some(&mut training.dx),
            dh0: Some(&mut training.dh0),
            dc0: training.dc0.as_mut(),
            workspace: &mut self.workspace,
        };
        let mut reserve = backend.backward_data(plan, args, reserve)?;
        let args = BackwardWeightsArgs::<CudaBackend<E, D>> {
            x: &self.x,
            y: &self.y,
            h0: self.h0.as_ref(),
            c0: self.c0.as_ref(),
            lengths: self.lengths.as_ref(),
            resets: self.resets.as_ref(),
            dweights: &mut training.dweights,
            workspace: &mut self.workspace,
        };
        backend.backward_weights(plan, args, &mut reserve, WeightGrad::Set)
    }

    /// Fills everything that a run writes with NaN, in the order of the stream, so that it is seen what the next one writes.
    ///
    /// # Errors
    ///
    /// Those of the device.
    pub fn forget(&mut self) -> Result<()> {
        let mut written = vec![&mut self.y, &mut self.hn, &mut self.workspace];
        written.extend(&mut self.cn);
        if let Some(training) = &mut self.training {
            written.extend([&mut training.dx, &mut training.dh0, &mut training.dweights, &mut training.reserve]);
            written.extend(&mut training.dc0);
        }
        written.into_iter().try_for_each(|buffer| buffer.fill_bytes(self.backend.stream(), NAN))
    }

    /// Waits, and copies what the last run gave.
    ///
    /// # Errors
    ///
    /// Those of the device, of the run too.
    pub fn outputs(&self) -> Result<Outputs<E>> {
        let cn = self.cn.as_ref().map(|cn| self.read(cn)).transpose()?;
        Ok(Outputs { y: self.read(&self.y)?, hn: self.read(&self.hn)?, cn })
    }

    /// Waits, and copies the gradients that the last run gave; `None` in inference.
    ///
    /// # Errors
    ///
    /// Those of the device, of the run too.
    pub fn input_gradients(&self) -> Result<Option<InputGradients<E>>> {
        let Some(training) = &self.training else { return Ok(None) };
        Ok(Some(InputGradients {
            dx: self.read(&training.dx)?,
            dh0: self.read(&training.dh0)?,
            dc0: training.dc0.as_ref().map(|dc0| self.read(dc0)).transpose()?,
            dweights: self.read(&training.dweights)?,
        }))
    }

    fn read(&self, buffer: &DeviceBuffer<E, D>) -> Result<Vec<E>> {
        let mut values = vec![E::default(); buffer.len()];
        buffer.read(self.backend.stream(), &mut values)?;
        Ok(values)
    }
}

/// Byte that makes a NaN of every element type.
const NAN: u8 = 0xff;

fn copy<E: Element, T: Pod, D: Device>(
    backend: &CudaBackend<E, D>,
    what: &str,
    values: &[T],
) -> Result<DeviceBuffer<T, D>> {
    DeviceBuffer::from_slice(backend.device(), backend.stream(), what, values)
}

fn copy_if<E: Element, T: Pod, D: Device>(
    backend: &CudaBackend<E, D>,
    what: &str,
    values: Option<&[T]>,
) -> Result<Option<DeviceBuffer<T, D>>> {
    values.map(|values| copy(backend, what, values)).transpose()
}

fn unwritten<E: Element, D: Device>(backend: &CudaBackend<E, D>, what: &str, len: usize) -> Result<DeviceBuffer<E, D>> {
    let mut buffer = DeviceBuffer::new(backend.device(), what, len)?;
    buffer.fill_bytes(backend.stream(), NAN)?;
    Ok(buffer)
}
