//! What the host backends share: the plan, the checks of every buffer, and the order of the time loop.

use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, Extent, ForwardArgs, ForwardMode, RecurrentBackend, Tensors,
};
use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;
use crate::rnn::{Layout, RnnDescriptor, RnnShape, TensorShapes, WeightLayout};

/// The plan of a host backend: the operator, its sizes and layouts, checked once.
#[derive(Clone, Debug)]
pub struct HostPlan {
    pub(crate) descriptor: RnnDescriptor,
    pub(crate) shape: RnnShape,
    pub(crate) mode: ForwardMode,
    pub(crate) tensors: TensorShapes,
    pub(crate) weights: WeightLayout,
    fingerprint: u64,
}

impl HostPlan {
    pub(crate) fn new(backend: &str, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<Self> {
        let tensors = shape.tensors(descriptor)?;
        let weights = WeightLayout::new(descriptor)?;
        // FNV-1a of everything that decides the reserve's layout.
        let fingerprint = format!("{backend} {descriptor:?} {shape:?} {mode:?}")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(HostPlan { descriptor: descriptor.clone(), shape, mode, tensors, weights, fingerprint })
    }

    /// The operator.
    pub fn descriptor(&self) -> &RnnDescriptor {
        &self.descriptor
    }

    /// Its sizes.
    pub fn shape(&self) -> RnnShape {
        self.shape
    }

    /// Shapes of all tensors.
    pub fn tensors(&self) -> &TensorShapes {
        &self.tensors
    }

    /// Layout of the weights.
    pub fn weights(&self) -> &WeightLayout {
        &self.weights
    }

    /// Identifies the plan in a [`Reserve`](crate::backend::Reserve).
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Row of `x` or `y` that holds step `t` of sequence `b`.
    pub(crate) fn row(&self, t: usize, b: usize) -> usize {
        match self.descriptor.layout {
            Layout::SequenceMajor => t * self.shape.batch + b,
            Layout::BatchMajor => b * self.shape.seq_len + t,
        }
    }

    fn check_states<S: Extent>(&self, names: (&str, &str), h: Option<&S>, c: Option<&S>) -> Result<()> {
        if let Some(h) = h {
            check_len(names.0, &self.tensors.h, h.elements())?;
        }
        if let Some(c) = c {
            self.check_cell_state(names.1, c.elements())?;
        }
        Ok(())
    }

    fn check_cell_state(&self, tensor: &str, len: usize) -> Result<()> {
        if !self.descriptor.cell.has_cell_state() {
            return Err(Error::Presence {
                tensor: tensor.to_owned(),
                problem: format!("the {} has no cell state; pass None", self.descriptor.cell),
            });
        }
        check_len(tensor, &self.tensors.c, len)
    }

    fn check_sequences<T: Tensors>(
        &self,
        lengths: Option<&T::Lengths<'_>>,
        resets: Option<&T::Mask<'_>>,
    ) -> Result<()> {
        if let Some(lengths) = lengths {
            check_len("lengths", &[self.shape.batch], lengths.elements())?;
            for (index, &length) in T::lengths_on_host(lengths).unwrap_or_default().iter().enumerate() {
                if length == 0 || length as usize > self.shape.seq_len {
                    return Err(Error::SequenceLength { index, got: length.into(), seq_len: self.shape.seq_len });
                }
            }
        }
        if let Some(resets) = resets {
            check_len("resets", &self.tensors.resets, resets.elements())?;
        }
        Ok(())
    }

    fn check_mode(&self, mode: ForwardMode, call: &str, way_out: &str) -> Result<()> {
        if self.mode == mode {
            return Ok(());
        }
        Err(Error::option("mode", format!("a plan for {mode:?} in {call}"), format!("{:?}; {way_out}", self.mode)))
    }

    pub(crate) fn check_forward<T: Tensors>(
        &self,
        mode: ForwardMode,
        workspace: usize,
        args: &ForwardArgs<'_, T>,
    ) -> Result<()> {
        match mode {
            ForwardMode::Inference => self.check_mode(mode, "forward", "call forward_training")?,
            ForwardMode::Training => self.check_mode(mode, "forward_training", "call forward")?,
        }
        self.weights.check("weights", args.weights.elements())?;
        check_len("x", &self.tensors.x, args.x.elements())?;
        check_len("y", &self.tensors.y, args.y.elements())?;
        self.check_states(("h0", "c0"), args.h0.as_ref(), args.c0.as_ref())?;
        self.check_states(("hn", "cn"), args.hn.as_ref(), args.cn.as_ref())?;
        self.check_sequences::<T>(args.lengths.as_ref(), args.resets.as_ref())?;
        check_at_least("workspace", workspace, args.workspace.elements())
    }

    pub(crate) fn check_backward_data<T: Tensors>(
        &self,
        workspace: usize,
        args: &BackwardDataArgs<'_, T>,
    ) -> Result<()> {
        // A reserve may claim to belong to a plan that has none, since backends outside this crate can mark it.
        self.check_mode(ForwardMode::Training, "backward_data", "plan for training")?;
        self.weights.check("weights", args.weights.elements())?;
        check_len("x", &self.tensors.x, args.x.elements())?;
        check_len("y", &self.tensors.y, args.y.elements())?;
        self.check_states(("h0", "c0"), args.h0.as_ref(), args.c0.as_ref())?;
        self.check_sequences::<T>(args.lengths.as_ref(), args.resets.as_ref())?;
        if let Some(dy) = &args.dy {
            check_len("dy", &self.tensors.y, dy.elements())?;
        }
        if let Some(dhn) = &args.dhn {
            check_len("dhn", &self.tensors.h, dhn.elements())?;
        }
        if let Some(dcn) = &args.dcn {
            self.check_cell_state("dcn", dcn.elements())?;
        }
        if let Some(dx) = &args.dx {
            check_len("dx", &self.tensors.x, dx.elements())?;
        }
        if let Some(dh0) = &args.dh0 {
            check_len("dh0", &self.tensors.h, dh0.elements())?;
        }
        if let Some(dc0) = &args.dc0 {
            self.check_cell_state("dc0", dc0.elements())?;
        }
        check_at_least("workspace", workspace, args.workspace.elements())
    }

    pub(crate) fn check_backward_weights<T: Tensors>(
        &self,
        workspace: usize,
        args: &BackwardWeightsArgs<'_, T>,
    ) -> Result<()> {
        // A reserve may claim to belong to a plan that has none, since backends outside this crate can mark it.
        self.check_mode(ForwardMode::Training, "backward_weights", "plan for training")?;
        check_len("x", &self.tensors.x, args.x.elements())?;
        check_len("y", &self.tensors.y, args.y.elements())?;
        self.check_states(("h0", "c0"), args.h0.as_ref(), args.c0.as_ref())?;
        self.check_sequences::<T>(args.lengths.as_ref(), args.resets.as_ref())?;
        self.weights.check("dweights", args.dweights.elements())?;
        check_at_least("workspace", workspace, args.workspace.elements())
    }
}

/// Checks a buffer that may be larger than needed.
pub(crate) fn check_at_least(tensor: &str, needed: usize, got: usize) -> Result<()> {
    if got >= needed {
        Ok(())
    } else {
        Err(Error::shape(tensor, format!("at least {needed} elements (see temp_space)"), format!("{got} elements")))
    }
}

/// A backend whose buffers are slices in host memory.
pub trait HostBackend<E: Element>: RecurrentBackend<Elem = E, Buffer = [E], Lengths = [u32], Mask = [u8]> {}

impl<E: Element, B> HostBackend<E> for B where
    B: RecurrentBackend<Elem = E, Buffer = [E], Lengths = [u32], Mask = [u8]> + ?Sized
{
}
