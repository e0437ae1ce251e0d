//! How an operator of given sizes runs on a device: [`CudaPlan`].

use std::sync::{Arc, Mutex, PoisonError};

use super::super::device::arena::Arena;
use super::super::device::memory::DeviceBuffer;
use super::super::device::{Device, DevicePtr, Properties};
use super::super::kernel::convert::Converters;
use super::super::kernel::launch::{bias_pieces, head_pieces};
use super::super::kernel::params::{PersistentBackwardParams, PersistentForwardParams};
use super::super::options::{Compute, CudaOptions, Family};
use super::cell::gradient_slots;
use super::copies::{Kept, Mixed, Passing};
use super::family::TimeLoop;
use super::kernels::Kernels;
use super::products::{self, Pass, Steps};
use super::report::{self, ProductReport, TimeLoopReport};
use super::segments::Segmented;
use super::space::{self, HPrevLayout, LayerSpace, Sizes, Workspace};
use crate::backend::{ForwardMode, HostPlan, TempSpace};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::rnn::{InputKind, RnnDescriptor, RnnShape};

/// How an operator of given sizes runs on a device. Holds the loaded kernels; making one may load modules, running one never does.
#[derive(Debug)]
pub struct CudaPlan<D: Device> {
    pub(crate) host: HostPlan,
    /// What kernels compute on.
    pub(crate) dtype: DType,
    /// The weights' gradients.
    pub(crate) gradient: DType,
    /// Where the caller's tensors are floats and kernels compute on 16 bits.
    pub(super) mixed: Option<Mixed<D>>,
    pub(crate) forward_loop: TimeLoop<D, PersistentForwardParams>,
    /// Training only.
    pub(crate) backward_loop: Option<TimeLoop<D, PersistentBackwardParams>>,
    /// Not 0 where a persistent kernel's wait gave up.
    fault: Mutex<DeviceBuffer<u32, D>>,
    /// Its address.
    pub(crate) fault_address: DevicePtr,
    pub(crate) h_prev: HPrevLayout,
    pub(crate) layers: Vec<LayerSpace>,
    pub(crate) forward: Workspace,
    pub(crate) backward_data: Workspace,
    pub(crate) backward_weights: Workspace,
    pub(crate) temp_space: TempSpace,
    pub(crate) multiprocessors: usize,
    pub(crate) kernels: Kernels<D>,
    /// Where training keeps checkpoints: the passes are then those of their segments, and of this plan only its description counts.
    pub(super) checkpoints: Option<Box<Segmented<D>>>,
}

impl<D: Device> CudaPlan<D> {
    pub(crate) fn new(
        device: &Arc<D>,
        stream: &D::Stream,
        options: &CudaOptions,
        given: DType,
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        mode: ForwardMode,
    ) -> Result<Self> {
        let mut plan = Self::at_once(device, stream, options, (given, given), descriptor, shape, mode)?;
        let segmented = Segmented::of(&**device, &plan, |part, shape| {
            // Gradients of weights are summed over segments in the accumulators' type.
            let gradient = if given.size() < 4 { DType::F32 } else { given };
            Self::at_once(device, stream, options, (given, gradient), part, shape, mode)
        })?;
        if let Some(segmented) = segmented {
            plan.temp_space = segmented.temp_space();
            plan.checkpoints = Some(Box::new(segmented));
        }
        Ok(plan)
    }

    /// The plan without checkpoints, for tensors of a type and gradients of weights of another.
    fn at_once(
        device: &Arc<D>,
        stream: &D::Stream,
        options: &CudaOptions,
        (given, gradient): (DType, DType),
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        mode: ForwardMode,
    ) -> Result<Self> {
        if options.compute != Compute::Exact && given != DType::F32 {
            let expected = format!("Exact for {given}, since the others are ways to multiply f32");
            return Err(Error::option("compute", expected, format!("{:?}", options.compute)));
        }
        let (dtype, math) = options.compute.of(given);
        let is_mixed = dtype != given;
        shape.tensors(descriptor)?;
        check_limits(descriptor, shape)?;
        let training = mode == ForwardMode::Training;
        let forward_loop =
            TimeLoop::<D, PersistentForwardParams>::choose(&**device, options.family, descriptor, shape, math)?;
        let choose = || TimeLoop::choose(&**device, options.family, descriptor, shape, math);
        let backward_loop: Option<TimeLoop<D, PersistentBackwardParams>> = training.then(choose).transpose()?;
        let any_persistent = forward_loop.persistent.is_some()
            || backward_loop.as_ref().is_some_and(|chosen| chosen.persistent.is_some());
        let every_step = training || forward_loop.family == Family::Grid;
        let h_prev = HPrevLayout {
            // The step family turns between two; the others keep the state to themselves after the first step.
            slots: match (every_step, &forward_loop.persistent) {
                (true, _) => shape.seq_len,
                (false, None) => shape.seq_len.min(2),
                (false, Some(_)) => 1,
            },
            rows: shape.batch,
            // Persistent kernels read and exchange whole lines.
            stride: if any_persistent {
                descriptor.output_size().next_multiple_of(32)
            } else {
                descriptor.output_size()
            },
        };
        let fault = DeviceBuffer::from_slice(device, stream, "fault", &[0])?;
        let backend = format!("{} {given} {math} {} {h_prev:?}", D::NAME, forward_loop.family);
        let host = HostPlan::new(&backend, descriptor, shape, mode)?;
        let exchange = backward_loop.as_ref().is_some_and(|chosen| chosen.family == Family::Grid);
        let sizes = Sizes { descriptor, shape, mode, dtype, h_prev, exchange };
        let properties = device.properties();
        let kernels = Kernels::load(&**device, descriptor, (dtype, gradient, math, options.matmul), mode)?;
        let steps = steps(&forward_loop, backward_loop.as_ref());
        let partials = |pass| partials(&kernels, &sizes, gradient, steps, pass);

        let mut kept = Arena::default();
        let layers = space::layers(&mut kept, &sizes)?;
        let (mut mixed_kept, mut mixed_forward, mut mixed_backward) = Default::default();
        if is_mixed {
            mixed_kept = Kept::new(&mut kept, host.tensors(), host.weights(), dtype.size())?;
        }
        let reserve = if training { kept.bytes() } else { 0 };
        let mut arena = if training { Arena::default() } else { kept };
        let forward = Workspace::forward(&mut arena, &sizes, partials(Pass::Forward)?)?;
        if is_mixed {
            mixed_forward = Passing::new(&mut arena, host.tensors(), false, dtype.size())?;
        }
        let mut workspace = arena.bytes();
        let (mut backward_data, mut backward_weights) = (Workspace::default(), Workspace::default());
        if training {
            let mut arena = Arena::default();
            backward_data = Workspace::backward_data(&mut arena, &sizes, partials(Pass::BackwardData)?)?;
            if is_mixed {
                mixed_backward = Passing::new(&mut arena, host.tensors(), true, dtype.size())?;
            }
            workspace = workspace.max(arena.bytes());
            let mut arena = Arena::default();
            let others = other_partials(descriptor, shape, properties);
            let partials = partials(Pass::BackwardWeights)?.max(others);
            backward_weights = Workspace::backward_weights(&mut arena, &sizes, partials)?;
            workspace = workspace.max(arena.bytes());
        }
        let temp_space =
            TempSpace { workspace: workspace.div_ceil(given.size()), reserve: reserve.div_ceil(given.size()) };
        let mixed =
            |converters| Mixed { converters, kept: mixed_kept, forward: mixed_forward, backward_data: mixed_backward };
        Ok(CudaPlan {
            dtype,
            gradient,
            mixed: is_mixed.then(|| Converters::load(&**device, dtype)).transpose()?.map(mixed),
            h_prev,
            layers,
            forward,
            backward_data,
            backward_weights,
            temp_space,
            multiprocessors: properties.multiprocessors as usize,
            kernels,
            forward_loop,
            backward_loop,
            fault_address: fault.pointer(),
            fault: Mutex::new(fault),
            host,
            checkpoints: None,
        })
    }

    /// Whether the time loop of a layer's forward pass computes `W x` itself, in calls without lengths and resets.
    pub(super) fn input_in_loop(&self, layer: usize) -> bool {
        let descriptor = self.descriptor();
        let one = descriptor.input == InputKind::Features && descriptor.layer_input_size(layer) == 1;
        one && self.forward_loop.persistent.as_ref().is_some_and(|chosen| chosen.about.one_input && chosen.tiles == 1)
    }

    /// The operator.
    pub fn descriptor(&self) -> &RnnDescriptor {
        self.host.descriptor()
    }

    /// Its sizes.
    pub fn shape(&self) -> RnnShape {
        self.host.shape()
    }

    /// Which kernels run the time loop of the forward pass.
    pub fn family(&self) -> Family {
        self.forward_loop.family
    }

    /// Why these.
    pub fn why(&self) -> &str {
        &self.forward_loop.why
    }

    /// See [`RecurrentBackend::check`](crate::backend::RecurrentBackend::check).
    pub(crate) fn check(&self, stream: &D::Stream) -> Result<()> {
        if let Some(segmented) = &self.checkpoints {
            return segmented.plans().try_for_each(|plan| plan.check(stream));
        }
        let names = [
            self.forward_loop.persistent_name(),
            self.backward_loop.as_ref().and_then(|backward| backward.persistent_name()),
        ];
        let kernels: Vec<&str> = names.into_iter().flatten().collect();
        if kernels.is_empty() {
            return Ok(());
        }
        // A panic elsewhere leaves the buffer as it was.
        let mut buffer = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fault = [0];
        buffer.read(stream, &mut fault)?;
        if fault == [0] {
            return Ok(());
        }
        buffer.write(stream, &[0])?;
        Err(Error::KernelFault {
            kernel: kernels.join(" or "),
            problem: "a block waited in vain for another one, and the results of the pass are garbage; leave the GPU to this \
                      process alone, or ask for the step family"
                .to_owned(),
        })
    }

    /// What places follow from.
    pub(super) fn sizes(&self) -> Sizes<'_> {
        let exchange = self.backward_loop.as_ref().is_some_and(|chosen| chosen.family == Family::Grid);
        let HostPlan { descriptor, shape, mode, .. } = &self.host;
        Sizes { descriptor, shape: *shape, mode: *mode, dtype: self.dtype, h_prev: self.h_prev, exchange }
    }

    /// Which time loops launch products.
    pub(super) fn steps(&self) -> Steps {
        steps(&self.forward_loop, self.backward_loop.as_ref())
    }

    /// The matrix products of the first layer; with checkpoints those of its segments.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for one that is too wide for the kernels.
    pub fn products(&self) -> Result<Vec<ProductReport>> {
        report::products(self.checkpoints.as_ref().and_then(|segmented| segmented.plans().next()).unwrap_or(self))
    }

    /// The time loop of the forward pass, and in training that of the backward pass; with checkpoints those of the first layer's segments.
    pub fn time_loops(&self) -> Vec<TimeLoopReport> {
        if let Some(plan) = self.checkpoints.as_ref().and_then(|segmented| segmented.plans().next()) {
            return plan.time_loops();
        }
        let forward = TimeLoopReport::new("forward", &self.forward_loop, self.input_in_loop(0));
        let backward = self.backward_loop.as_ref().map(|chosen| TimeLoopReport::new("backward", chosen, false));
        [Some(forward), backward].into_iter().flatten().collect()
    }
}

/// Kernels count rows, columns and steps in 32 bits, and a grid has at most 65535 blocks along y.
fn check_limits(descriptor: &RnnDescriptor, shape: RnnShape) -> Result<()> {
    let rows = shape.seq_len.saturating_mul(shape.batch);
    let widest = (descriptor.num_directions() * descriptor.output_size())
        .max(descriptor.input_size)
        .max((descriptor.cell.gates() + 1).saturating_mul(descriptor.hidden_size));
    for (name, size, most) in
        [("seq_len * batch", rows, i32::MAX as usize), ("the widest of input, output and gates", widest, 32 * 65_535)]
    {
        if size > most {
            return Err(Error::unsupported(
                format!("{name} = {size}"),
                format!("the CUDA kernels take at most {most}; split the batch, or use the cpu backend"),
            ));
        }
    }
    Ok(())
}

fn steps<D: Device>(
    forward: &TimeLoop<D, PersistentForwardParams>,
    backward: Option<&TimeLoop<D, PersistentBackwardParams>>,
) -> Steps {
    Steps {
        forward: forward.persistent.is_none(),
        backward: backward.is_some_and(|chosen| chosen.persistent.is_none()),
    }
}

/// Accumulators that the products of a pass need room for at a time. Layers from the second on are alike.
fn partials<D: Device>(
    kernels: &Kernels<D>,
    sizes: &Sizes<'_>,
    gradient: DType,
    steps: Steps,
    pass: Pass,
) -> Result<usize> {
    let layers = 0..sizes.descriptor.num_layers.min(2);
    let products = layers.flat_map(|layer| products::products(sizes, gradient, steps, layer));
    products
        .filter(|product| product.pass == pass)
        .try_fold(0, |most, product| Ok(most.max(kernels.gemm(product.orientation)?.room_for(&product.shape)?)))
}

/// The same of what backward-weights sums up besides products: gradients of biases, peepholes and recurrent weights in heads.
fn other_partials(descriptor: &RnnDescriptor, shape: RnnShape, properties: &Properties) -> usize {
    let rows = shape.seq_len * shape.batch;
    let hidden = descriptor.hidden_size;
    let of_bias = bias_pieces(rows) * (gradient_slots(descriptor.cell).max(3) * hidden);
    if descriptor.heads == 1 {
        return of_bias;
    }
    let gates = descriptor.cell.gates() * hidden;
    // Those of a candidate and of the other gates split differently.
    let of_heads = [gates, gates - hidden, hidden].into_iter().filter(|rows| *rows > 0).map(|m| {
        let elements = m.saturating_mul(descriptor.head_size());
        elements.saturating_mul(head_pieces(elements, rows, properties.multiprocessors as usize))
    });
    of_heads.fold(of_bias, usize::max)
}
