//! The operator as one of candle's operations: `(x, states, weights)` to one flat tensor.
//!
//! candle's own operations have at most three inputs and one output. So initial states are handed over as one flat tensor `h0 | c0`,
//! which is empty where there are none, weights as one that candle concatenates, and what comes out is `y | hn | cn`, or `y` alone.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Device, Error, Layout, Result, Shape, Storage, Tensor, WithDType};
use fused_rnn::rnn::RnnShape;
use fused_rnn_host::{Gradients, Number, Operands, Operator, Outputs, Packed, Saved, Wanted};

/// `f32` and `f64`, known to both sides.
pub(crate) trait Float: Number + WithDType {}

impl Float for f32 {}
impl Float for f64 {}

/// How many elements the parts of the flat tensors have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) y: usize,
    pub(crate) h: usize,
    /// Zero for a cell that has no states beside h.
    pub(crate) c: usize,
}

/// What the call is for.
pub(crate) enum Purpose<E> {
    /// Outputs alone.
    Inference { packed: Option<Arc<Packed<E>>> },
    /// Outputs, and gradients later; with dropout where there is a seed.
    Gradients { dropout_seed: Option<u64> },
}

pub(crate) struct Op<E: Number> {
    pub(crate) operator: Arc<Operator<E>>,
    pub(crate) shape: RnnShape,
    pub(crate) sizes: Sizes,
    /// The shape of `y`; without it the output is flat and has the final states too.
    pub(crate) y_alone: Option<[usize; 3]>,
    pub(crate) purpose: Purpose<E>,
    pub(crate) lengths: Option<Vec<u32>>,
    pub(crate) resets: Option<Vec<u8>>,
    /// What backward needs, from forward to the end of the graph.
    pub(crate) saved: Mutex<Option<Arc<Saved<E>>>>,
}

/// An error of the operator as one of candle.
pub(crate) fn wrap(error: fused_rnn::Error) -> Error {
    Error::wrap(error)
}

fn elements<'a, E: Float>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [E]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::RequiresContiguous { op: "fused-rnn" }.bt());
    };
    let all = storage.as_slice::<E>()?;
    all.get(start..end).ok_or_else(|| {
        Error::msg(format!("fused-rnn: a view of elements {start}..{end} of a storage of {}", all.len()))
    })
}

/// Runs `f` on a tensor's elements.
pub(crate) fn with_elements<E: Float, R>(tensor: &Tensor, f: impl FnOnce(&[E]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(elements(storage, layout)?),
        Storage::Cuda(_) | Storage::Metal(_) => Err(not_on_the_cpu(tensor.device())),
    }
}

/// The error for a tensor that is elsewhere.
pub(crate) fn not_on_the_cpu(device: &Device) -> Error {
    wrap(fused_rnn::Error::Unsupported {
        what: format!("a recurrent layer of fused-rnn-candle on {:?}", device.location()),
        why: "it computes on the CPU only; give it tensors and a VarBuilder of Device::Cpu (Tensor::to_device), or use candle_nn's layer"
            .to_owned(),
    })
}

/// Initial states out of their flat tensor.
fn initial<E>(states: &[E], sizes: Sizes) -> (Option<&[E]>, Option<&[E]>) {
    match states.split_at_checked(sizes.h) {
        Some((h, c)) if !h.is_empty() => (Some(h), (!c.is_empty()).then_some(c)),
        _ => (None, None),
    }
}

impl<E: Float> Op<E> {
    fn operands<'a>(&'a self, x: &'a [E], states: &'a [E], weights: &'a [E]) -> Operands<'a, E> {
        let (h0, c0) = initial(states, self.sizes);
        Operands { weights, x, h0, c0, lengths: self.lengths.as_deref(), resets: self.resets.as_deref() }
    }

    fn saved(&self) -> Option<Arc<Saved<E>>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<E: Float> CustomOp3 for Op<E> {
    fn name(&self) -> &'static str {
        "fused-rnn"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        states: &CpuStorage,
        states_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, states) = (elements::<E>(x, x_layout)?, elements::<E>(states, states_layout)?);
        let operands = self.operands(x, states, elements::<E>(weights, weights_layout)?);
        let Sizes { y, h, c } = self.sizes;
        let len = if self.y_alone.is_some() { y } else { y + h + c };
        let mut out = vec![E::zero(); len];
        let (y, final_states) = out.split_at_mut(y);
        let (hn, cn) = final_states.split_at_mut(if final_states.is_empty() { 0 } else { h });
        let outputs = Outputs {
            y,
            hn: if hn.is_empty() { None } else { Some(hn) },
            cn: if cn.is_empty() { None } else { Some(cn) },
        };
        match &self.purpose {
            Purpose::Inference { packed: None } => self.operator.forward(self.shape, operands, outputs, None),
            Purpose::Inference { packed: Some(packed) } => {
                let operands = Operands { weights: &[], ..operands };
                self.operator.forward(self.shape, operands, outputs, Some(packed))
            }
            Purpose::Gradients { dropout_seed } => {
                self.operator.forward_training(self.shape, operands, outputs, *dropout_seed).map(|saved| {
                    *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(saved));
                })
            }
        }
        .map_err(wrap)?;
        let shape = match self.y_alone {
            Some(shape) => Shape::from(shape.to_vec()),
            None => Shape::from(len),
        };
        Ok((E::to_cpu_storage_owned(out), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        states: &Tensor,
        weights: &Tensor,
        out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(saved) = self.saved() else {
            return Err(Error::BackwardNotSupported { op: "fused-rnn without a tracked input" }.bt());
        };
        let gradient = gradient.contiguous()?;
        let room = |tensor: &Tensor| tensor.track_op().then(|| vec![E::zero(); tensor.elem_count()]);
        let (mut dx, mut dstates, mut dweights) = (room(x), room(states), room(weights));
        with_elements::<E, _>(x, |x| {
            with_elements::<E, _>(states, |states| {
                with_elements::<E, _>(weights, |weights| {
                    with_elements::<E, _>(out, |out| {
                        with_elements::<E, _>(&gradient, |gradient| {
                            let operands = self.operands(x, states, weights);
                            let (y, _) = out.split_at(self.sizes.y);
                            let (dy, dstates_n) = gradient.split_at(self.sizes.y);
                            let (dhn, dcn) = initial(dstates_n, self.sizes);
                            let (dh0, dc0) = match dstates.as_deref_mut() {
                                Some(dstates) => {
                                    let (dh0, dc0) = dstates.split_at_mut(self.sizes.h);
                                    (Some(dh0), (self.sizes.c > 0).then_some(dc0))
                                }
                                None => (None, None),
                            };
                            let wanted = Wanted { dx: dx.as_deref_mut(), dh0, dc0, dweights: dweights.as_deref_mut() };
                            saved.backward(operands, y, Gradients { dy: Some(dy), dhn, dcn }, wanted).map_err(wrap)
                        })
                    })
                })
            })
        })?;
        let tensor = |elements: Option<Vec<E>>, like: &Tensor| {
            elements.map(|elements| Tensor::from_vec(elements, like.shape(), &Device::Cpu)).transpose()
        };
        Ok((tensor(dx, x)?, tensor(dstates, states)?, tensor(dweights, weights)?))
    }
}
