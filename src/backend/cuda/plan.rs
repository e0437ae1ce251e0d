//! How an operator of given sizes runs on a device: [`CudaPlan`].

use std::sync::{Arc, Mutex, PoisonError};

use super::device::{Device, DevicePtr, Properties};
use super::gemm::{GemmKernel, LARGE_TILE_ROWS, weight_splits};
use super::launch::{Kernel, bias_pieces};
use super::memory::DeviceBuffer;
use super::mixed::{Compute, Converters, Kept, Mixed, Passing};
use super::params::{
    BackwardParams, BiasGradientParams, DropoutParams, ForwardParams, GemmParams, PeepholeGradientParams,
    StepBackwardParams, StepForwardParams, SumPartialsParams,
};
use super::space::{self, Arena, HPrevLayout, LayerSpace, Sizes, Workspace};
use super::walk::{Family, FamilyChoice, Walk};
use crate::backend::ops::Orientation;
use crate::backend::{ForwardMode, HostPlan, TempSpace};
use crate::cell::CellKind;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::rnn::{GruReset, RnnDescriptor, RnnShape};

/// What may be chosen about how a backend computes; nothing of it changes what is computed, but for rounding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// f32 only: what operands of products are rounded to, for the tensor cores.
    pub compute: Compute,
    /// Which kernels walk through time.
    pub family: FamilyChoice,
}

/// Slots of `dgates`, times `hidden_size`: the gates, and for the GRU what R_n gets.
pub(crate) fn gradient_slots(cell: CellKind) -> usize {
    match cell {
        CellKind::Rnn | CellKind::Lstm => cell.gates(),
        CellKind::Gru => cell.gates() + 1,
    }
}

/// Kernels of a plan, loaded.
#[derive(Debug)]
pub(crate) struct Kernels<D: Device> {
    pub(crate) begin_forward: Kernel<D, ForwardParams>,
    pub(crate) step_forward: Kernel<D, StepForwardParams>,
    pub(crate) dropout: Kernel<D, DropoutParams>,
    gemm_nt: [GemmKernel<D, GemmParams>; 2],
    pub(crate) backward: Option<BackwardKernels<D>>,
}

/// Those of training alone.
#[derive(Debug)]
pub(crate) struct BackwardKernels<D: Device> {
    pub(crate) begin: Kernel<D, BackwardParams>,
    pub(crate) step: Kernel<D, StepBackwardParams>,
    pub(crate) finish: Kernel<D, BackwardParams>,
    pub(crate) bias_gradient: Kernel<D, BiasGradientParams>,
    pub(crate) peephole_gradient: Kernel<D, PeepholeGradientParams>,
    pub(crate) sum_partials: Kernel<D, SumPartialsParams>,
    gemm_nn: [GemmKernel<D, GemmParams>; 2],
    gemm_tn: GemmKernel<D, GemmParams>,
}

impl<D: Device> Kernels<D> {
    fn load(
        device: &D,
        descriptor: &RnnDescriptor,
        (dtype, gradient, math): (DType, DType, &str),
        mode: ForwardMode,
    ) -> Result<Self> {
        let cell = descriptor.cell.spec().name;
        let gemm = |orientation: &str, tile: usize| GemmKernel::single(device, orientation, math, tile);
        let backward = || -> Result<BackwardKernels<D>> {
            Ok(BackwardKernels {
                begin: Kernel::load(device, &format!("begin_backward_{dtype}"))?,
                step: Kernel::load(device, &format!("step_backward_{cell}_{dtype}"))?,
                finish: Kernel::load(device, &format!("finish_backward_{dtype}"))?,
                bias_gradient: Kernel::load(device, &format!("bias_gradient_{dtype}"))?,
                peephole_gradient: Kernel::load(device, &format!("peephole_gradient_{dtype}"))?,
                sum_partials: Kernel::load(device, &format!("sum_partials_{gradient}"))?,
                gemm_nn: [gemm("nn", 0)?, gemm("nn", 1)?],
                gemm_tn: gemm("tn", 0)?,
            })
        };
        Ok(Kernels {
            begin_forward: Kernel::load(device, &format!("begin_forward_{dtype}"))?,
            step_forward: Kernel::load(device, &format!("step_forward_{cell}_{dtype}"))?,
            dropout: Kernel::load(device, &format!("dropout_{dtype}"))?,
            gemm_nt: [gemm("nt", 0)?, gemm("nt", 1)?],
            backward: (mode == ForwardMode::Training).then(backward).transpose()?,
        })
    }

    /// The kernel of a product with `m` rows.
    pub(crate) fn gemm(&self, orientation: Orientation, m: usize) -> Result<&GemmKernel<D, GemmParams>> {
        let tile = usize::from(m < LARGE_TILE_ROWS);
        Ok(match orientation {
            Orientation::Nt => &self.gemm_nt[tile],
            Orientation::Nn => &self.backward()?.gemm_nn[tile],
            Orientation::Tn => &self.backward()?.gemm_tn,
        })
    }

    /// Those of training; the checks of a call have made sure that the plan is for it.
    pub(crate) fn backward(&self) -> Result<&BackwardKernels<D>> {
        self.backward.as_ref().ok_or_else(|| Error::option("mode", "a plan for training", "one for inference"))
    }
}

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
    pub(crate) math: &'static str,
    pub(crate) forward_walk: Walk<D>,
    /// Training only.
    pub(crate) backward_walk: Option<Walk<D>>,
    /// Not 0 where a persistent kernel's wait gave up.
    status: Mutex<DeviceBuffer<u32, D>>,
    /// Its address.
    pub(crate) status_pointer: DevicePtr,
    pub(crate) h_prev: HPrevLayout,
    pub(crate) layers: Vec<LayerSpace>,
    pub(crate) forward: Workspace,
    pub(crate) backward_data: Workspace,
    pub(crate) backward_weights: Workspace,
    pub(crate) temp_space: TempSpace,
    pub(crate) multiprocessors: usize,
    pub(crate) kernels: Kernels<D>,
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
        if options.compute != Compute::Exact && given != DType::F32 {
            let expected = format!("Exact for {given}, since the others are ways to multiply f32");
            return Err(Error::option("compute", expected, format!("{:?}", options.compute)));
        }
        let (dtype, math) = options.compute.of(given);
        let is_mixed = dtype != given;
        shape.tensors(descriptor)?;
        check_limits(descriptor, shape)?;
        let training = mode == ForwardMode::Training;
        let walk = |forward| Walk::choose(&**device, options.family, descriptor, shape, math, forward);
        let forward_walk = walk(true)?;
        let backward_walk = training.then(|| walk(false)).transpose()?;
        let any_persistent =
            forward_walk.persistent.is_some() || backward_walk.as_ref().is_some_and(|walk| walk.persistent.is_some());
        let every_step = training || forward_walk.family == Family::Grid;
        let h_prev = HPrevLayout {
            // The step family turns between two; the others keep the state to themselves after the first step.
            slots: match (every_step, &forward_walk.persistent) {
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
        let status = DeviceBuffer::from_slice(device, stream, "status", &[0])?;
        let backend = format!("{} {given} {math} {} {h_prev:?}", D::NAME, forward_walk.family);
        let host = HostPlan::new(&backend, descriptor, shape, mode)?;
        let exchange = backward_walk.as_ref().is_some_and(|walk| walk.family == Family::Grid);
        let sizes = Sizes { descriptor, shape, mode, dtype, h_prev, exchange };
        let properties = device.properties();

        let mut kept = Arena::default();
        let layers = space::layers(&mut kept, &sizes)?;
        let (mut mixed_kept, mut mixed_forward, mut mixed_backward) = Default::default();
        if is_mixed {
            mixed_kept = Kept::new(&mut kept, host.tensors(), host.weights(), dtype.size())?;
        }
        let reserve = if training { kept.bytes() } else { 0 };
        let mut arena = if training { Arena::default() } else { kept };
        let forward = Workspace::forward(&mut arena, &sizes)?;
        if is_mixed {
            mixed_forward = Passing::new(&mut arena, host.tensors(), false, dtype.size())?;
        }
        let mut workspace = arena.bytes();
        let (mut backward_data, mut backward_weights) = (Workspace::default(), Workspace::default());
        if training {
            let mut arena = Arena::default();
            backward_data = Workspace::backward_data(&mut arena, &sizes)?;
            if is_mixed {
                mixed_backward = Passing::new(&mut arena, host.tensors(), true, dtype.size())?;
            }
            workspace = workspace.max(arena.bytes());
            let mut arena = Arena::default();
            let partials = partials(descriptor, shape, properties, math);
            backward_weights = Workspace::backward_weights(&mut arena, &sizes, partials)?;
            workspace = workspace.max(arena.bytes());
        }
        let temp_space =
            TempSpace { workspace: workspace.div_ceil(given.size()), reserve: reserve.div_ceil(given.size()) };
        let mixed =
            |converters| Mixed { converters, kept: mixed_kept, forward: mixed_forward, backward_data: mixed_backward };
        Ok(CudaPlan {
            dtype,
            gradient: given,
            mixed: is_mixed.then(|| Converters::load(&**device, dtype)).transpose()?.map(mixed),
            math,
            h_prev,
            layers,
            forward,
            backward_data,
            backward_weights,
            temp_space,
            multiprocessors: properties.multiprocessors as usize,
            kernels: Kernels::load(&**device, descriptor, (dtype, given, math), mode)?,
            forward_walk,
            backward_walk,
            status_pointer: status.pointer(),
            status: Mutex::new(status),
            host,
        })
    }

    /// The operator.
    pub fn descriptor(&self) -> &RnnDescriptor {
        self.host.descriptor()
    }

    /// Its sizes.
    pub fn shape(&self) -> RnnShape {
        self.host.shape()
    }

    /// Which kernels walk through time in the forward pass.
    pub fn family(&self) -> Family {
        self.forward_walk.family
    }

    /// Why these.
    pub fn why(&self) -> &str {
        &self.forward_walk.why
    }

    /// See [`RecurrentBackend::check`](crate::backend::RecurrentBackend::check).
    pub(crate) fn check(&self, stream: &D::Stream) -> Result<()> {
        let walks = [Some(&self.forward_walk), self.backward_walk.as_ref()];
        let kernels: Vec<_> =
            walks.into_iter().flatten().filter_map(|w| Some(w.persistent.as_ref()?.about.name.clone())).collect();
        if kernels.is_empty() {
            return Ok(());
        }
        // A panic elsewhere leaves the buffer as it was.
        let mut buffer = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let mut status = [0];
        buffer.read(stream, &mut status)?;
        if status == [0] {
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

    /// How the forward pass walks through time, and in training the backward pass.
    pub fn walks(&self) -> Vec<WalkReport> {
        let walks = [("forward", Some(&self.forward_walk)), ("backward", self.backward_walk.as_ref())];
        walks.into_iter().filter_map(|(pass, walk)| Some(WalkReport::new(pass, walk?))).collect()
    }
}

/// What a plan says of one of its walks through time.
#[derive(Clone, Debug, PartialEq)]
pub struct WalkReport {
    /// `forward` or `backward`.
    pub pass: &'static str,
    /// Which kernels.
    pub family: Family,
    /// Why these, and why not the others.
    pub why: String,
    /// Predicted time of a step, nanoseconds; an estimate that has not been measured.
    pub predicted_ns: f64,
    /// What the persistent kernel's launch is; none in the step family.
    pub persistent: Option<PersistentReport>,
}

/// What a plan says of a persistent launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentReport {
    /// Entry point.
    pub kernel: String,
    /// Blocks of the launch, and threads of each.
    pub blocks: u32,
    /// See `blocks`.
    pub threads: u32,
    /// Blocks of a cluster, 1 for none.
    pub cluster: u32,
    /// Blocks that the device holds at a time.
    pub resident_blocks: u32,
    /// Tiles of eight sequences that a group of blocks works on one after another.
    pub tiles: u32,
    /// Bytes of the recurrent weights that a block keeps in registers and shared memory.
    pub resident_bytes: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
}

impl WalkReport {
    fn new<D: Device>(pass: &'static str, walk: &Walk<D>) -> Self {
        WalkReport {
            pass,
            family: walk.family,
            why: walk.why.clone(),
            predicted_ns: walk.predicted_ns,
            persistent: walk.persistent.as_ref().map(|persistent| PersistentReport {
                kernel: persistent.about.name.clone(),
                blocks: persistent.blocks(),
                threads: persistent.launch.block,
                cluster: persistent.launch.cluster,
                resident_blocks: persistent.resident_blocks,
                tiles: persistent.tiles,
                resident_bytes: persistent.resident_bytes(),
                shared_bytes: persistent.launch.shared_bytes,
            }),
        }
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

/// Partial sums that backward-weights needs room for at a time.
fn partials(descriptor: &RnnDescriptor, shape: RnnShape, properties: &Properties, math: &str) -> usize {
    let rows = shape.seq_len * shape.batch;
    let (hidden, output) = (descriptor.hidden_size, descriptor.output_size());
    let gates = descriptor.cell.gates() * hidden;
    let of_product = |m: usize, n: usize| {
        m.saturating_mul(n).saturating_mul(weight_splits(m, n, rows, 1, properties.multiprocessors as usize, math))
    };
    let mut most = bias_pieces(rows) * (gradient_slots(descriptor.cell).max(3) * hidden);
    for layer in 0..descriptor.num_layers.min(2) {
        // A GRU's products are of the rows of r and z and of those of n, which split differently.
        for m in [gates, 2 * hidden, hidden] {
            most = most.max(of_product(m, descriptor.layer_input_size(layer)));
        }
    }
    for m in [gates, 2 * hidden, hidden] {
        most = most.max(of_product(m, output));
    }
    most.max(of_product(output, hidden))
}

/// Whether a step has a second product within it: LSTM with projection, GRU with the reset gate before the product.
pub(crate) fn has_second_product(descriptor: &RnnDescriptor) -> bool {
    descriptor.proj_size.is_some() || (descriptor.cell == CellKind::Gru && descriptor.reset == GruReset::Before)
}
