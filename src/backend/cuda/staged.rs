//! The CUDA backend on slices of the host: [`Staged`].

use std::borrow::BorrowMut;

use super::backend::CudaBackend;
use super::device::Device;
use super::device::memory::DeviceBuffer;
use super::options::CudaOptions;
use super::recurrent::CudaPlan;
use crate::backend::host::check_at_least;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, Differentiated, Empty, Filled, ForwardArgs, ForwardMode, RecurrentBackend,
    Reserve, TempSpace, WeightGrad,
};
use crate::dtype::Element;
use crate::error::Result;
use crate::rnn::{RnnDescriptor, RnnShape};

/// A [`CudaBackend`] that takes slices of the host: every call allocates device memory, copies in, runs, and copies out.
///
/// For checks and for comparing backends; a program that computes more than once keeps its tensors on the device.
#[derive(Clone, Debug)]
pub struct Staged<E: Element, D: Device> {
    backend: CudaBackend<E, D>,
}

impl<E: Element, D: Device> Staged<E, D> {
    /// Around a backend.
    pub fn new(backend: CudaBackend<E, D>) -> Self {
        Staged { backend }
    }

    /// The backend inside.
    pub fn inner(&self) -> &CudaBackend<E, D> {
        &self.backend
    }

    /// How it computes.
    pub fn options(&self) -> &CudaOptions {
        self.backend.options()
    }

    fn up<T: bytemuck::Pod>(&self, what: &str, values: &[T]) -> Result<DeviceBuffer<T, D>> {
        DeviceBuffer::from_slice(self.backend.device(), self.backend.stream(), what, values)
    }

    fn up_some<T: bytemuck::Pod>(&self, what: &str, values: Option<&[T]>) -> Result<Option<DeviceBuffer<T, D>>> {
        values.map(|values| self.up(what, values)).transpose()
    }

    /// A copy on the device of something that a call writes: what was there before goes along, so that a kernel that
    /// leaves elements out is seen.
    fn out<'a>(&self, what: &str, values: &'a mut [E]) -> Result<Output<'a, E, D>> {
        Ok(Output { device: self.up(what, values)?, host: values })
    }

    fn out_some<'a>(&self, what: &str, values: Option<&'a mut [E]>) -> Result<Option<Output<'a, E, D>>> {
        values.map(|values| self.out(what, values)).transpose()
    }
}

/// A tensor on the device and where it goes on the host.
struct Output<'a, E: Element, D: Device> {
    device: DeviceBuffer<E, D>,
    host: &'a mut [E],
}

impl<E: Element, D: Device> Output<'_, E, D> {
    fn down(self, stream: &D::Stream) -> Result<()> {
        self.device.read(stream, self.host)
    }
}

/// Copies everything back.
fn down_all<'a, E: Element, D: Device>(
    stream: &D::Stream,
    outputs: impl IntoIterator<Item = Option<Output<'a, E, D>>>,
) -> Result<()> {
    outputs.into_iter().flatten().try_for_each(|output| output.down(stream))
}

impl<E: Element, D: Device> Staged<E, D> {
    /// Forward in either mode; `reserve` in training.
    fn run_forward(&self, plan: &CudaPlan<D>, args: ForwardArgs<'_, Self>, reserve: Option<&mut [E]>) -> Result<()> {
        let weights = self.up("weights", args.weights)?;
        let x = self.up("x", args.x)?;
        let (h0, c0) = (self.up_some("h0", args.h0)?, self.up_some("c0", args.c0)?);
        let (lengths, resets) = (self.up_some("lengths", args.lengths)?, self.up_some("resets", args.resets)?);
        let mut y = self.out("y", args.y)?;
        let (mut hn, mut cn) = (self.out_some("hn", args.hn)?, self.out_some("cn", args.cn)?);
        let mut workspace = self.up("workspace", args.workspace)?;
        let on_device = ForwardArgs::<CudaBackend<E, D>> {
            weights: &weights,
            x: &x,
            h0: h0.as_ref(),
            c0: c0.as_ref(),
            lengths: lengths.as_ref(),
            resets: resets.as_ref(),
            y: &mut y.device,
            hn: hn.as_mut().map(|hn| &mut hn.device),
            cn: cn.as_mut().map(|cn| &mut cn.device),
            workspace: &mut workspace,
            dropout_seed: args.dropout_seed,
        };
        let stream = self.backend.stream();
        match reserve {
            None => self.backend.forward(plan, on_device)?,
            Some(host) => {
                let reserve = self.up("reserve", host)?;
                let reserve = self.backend.forward_training(plan, on_device, Reserve::new(reserve))?.release();
                reserve.read(stream, host)?;
            }
        }
        down_all(stream, [Some(y), hn, cn])?;
        self.backend.check(plan)
    }
}

impl<E: Element, D: Device> RecurrentBackend for Staged<E, D> {
    type Elem = E;
    type Buffer = [E];
    type Lengths = [u32];
    type Mask = [u8];
    type Plan = CudaPlan<D>;

    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<CudaPlan<D>> {
        self.backend.plan(descriptor, shape, mode)
    }

    fn temp_space(&self, plan: &CudaPlan<D>) -> TempSpace {
        plan.temp_space
    }

    fn forward(&self, plan: &CudaPlan<D>, args: ForwardArgs<'_, Self>) -> Result<()> {
        plan.host.check_forward(ForwardMode::Inference, plan.temp_space.workspace, &args)?;
        self.run_forward(plan, args, None)
    }

    fn forward_training<S: BorrowMut<[E]>>(
        &self,
        plan: &CudaPlan<D>,
        args: ForwardArgs<'_, Self>,
        mut reserve: Reserve<S, Empty>,
    ) -> Result<Reserve<S, Filled>> {
        plan.host.check_forward(ForwardMode::Training, plan.temp_space.workspace, &args)?;
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", plan.temp_space.reserve, storage.len())?;
        let dropout_seed = args.dropout_seed;
        self.run_forward(plan, args, Some(storage))?;
        Ok(reserve.filled(plan.host.fingerprint(), dropout_seed))
    }

    fn backward_data<S: BorrowMut<[E]>>(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardDataArgs<'_, Self>,
        mut reserve: Reserve<S, Filled>,
    ) -> Result<Reserve<S, Differentiated>> {
        reserve.check_plan(plan.host.fingerprint())?;
        plan.host.check_backward_data(plan.temp_space.workspace, &args)?;
        let dropout_seed = reserve.dropout_seed();
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", plan.temp_space.reserve, storage.len())?;
        let weights = self.up("weights", args.weights)?;
        let (x, y) = (self.up("x", args.x)?, self.up("y", args.y)?);
        let (h0, c0) = (self.up_some("h0", args.h0)?, self.up_some("c0", args.c0)?);
        let (lengths, resets) = (self.up_some("lengths", args.lengths)?, self.up_some("resets", args.resets)?);
        let dy = self.up_some("dy", args.dy)?;
        let (dhn, dcn) = (self.up_some("dhn", args.dhn)?, self.up_some("dcn", args.dcn)?);
        let mut dx = self.out_some("dx", args.dx)?;
        let (mut dh0, mut dc0) = (self.out_some("dh0", args.dh0)?, self.out_some("dc0", args.dc0)?);
        let mut workspace = self.up("workspace", args.workspace)?;
        let on_device = BackwardDataArgs::<CudaBackend<E, D>> {
            weights: &weights,
            x: &x,
            y: &y,
            h0: h0.as_ref(),
            c0: c0.as_ref(),
            lengths: lengths.as_ref(),
            resets: resets.as_ref(),
            dy: dy.as_ref(),
            dhn: dhn.as_ref(),
            dcn: dcn.as_ref(),
            dx: dx.as_mut().map(|dx| &mut dx.device),
            dh0: dh0.as_mut().map(|dh0| &mut dh0.device),
            dc0: dc0.as_mut().map(|dc0| &mut dc0.device),
            workspace: &mut workspace,
        };
        let on_reserve = Reserve::new(self.up("reserve", storage)?).filled(plan.host.fingerprint(), dropout_seed);
        let on_reserve = self.backend.backward_data(plan, on_device, on_reserve)?.release();
        let stream = self.backend.stream();
        on_reserve.read(stream, storage)?;
        down_all(stream, [dx, dh0, dc0])?;
        self.backend.check(plan)?;
        Ok(reserve.differentiated())
    }

    fn backward_weights<S: BorrowMut<[E]>>(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardWeightsArgs<'_, Self>,
        reserve: &mut Reserve<S, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        reserve.check_plan(plan.host.fingerprint())?;
        plan.host.check_backward_weights(plan.temp_space.workspace, &args)?;
        let dropout_seed = reserve.dropout_seed();
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", plan.temp_space.reserve, storage.len())?;
        let (x, y) = (self.up("x", args.x)?, self.up("y", args.y)?);
        let (h0, c0) = (self.up_some("h0", args.h0)?, self.up_some("c0", args.c0)?);
        let (lengths, resets) = (self.up_some("lengths", args.lengths)?, self.up_some("resets", args.resets)?);
        let mut dweights = self.out("dweights", args.dweights)?;
        let mut workspace = self.up("workspace", args.workspace)?;
        let on_device = BackwardWeightsArgs::<CudaBackend<E, D>> {
            x: &x,
            y: &y,
            h0: h0.as_ref(),
            c0: c0.as_ref(),
            lengths: lengths.as_ref(),
            resets: resets.as_ref(),
            dweights: &mut dweights.device,
            workspace: &mut workspace,
        };
        let on_reserve = Reserve::new(self.up("reserve", storage)?).filled(plan.host.fingerprint(), dropout_seed);
        let mut on_reserve = on_reserve.differentiated();
        self.backend.backward_weights(plan, on_device, &mut on_reserve, grad)?;
        let stream = self.backend.stream();
        on_reserve.release().read(stream, storage)?;
        dweights.down(stream)
    }
}
