//! [`Operator`]: a recurrent operator on slices, with its plans and its scratch.

use std::sync::{Arc, Mutex, PoisonError};

use fused_rnn::backend::cpu::{CpuBackend, CpuPlan};
use fused_rnn::backend::{ForwardArgs, ForwardMode, RecurrentBackend, Reserve};
use fused_rnn::rnn::{RnnDescriptor, RnnShape, TensorShapes, WeightLayout};
use fused_rnn::{Error, Result};

use crate::buffers::Spare;
use crate::saved::Saved;
use crate::threads::Number;

/// What a call reads; shapes as in [`TensorShapes`], flat and row-major.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operands<'a, E> {
    /// All weights, as [`WeightLayout`] says. Empty where the call is given [`Packed`] ones.
    pub weights: &'a [E],
    /// Input.
    pub x: &'a [E],
    /// Initial output state; absent means zeros.
    pub h0: Option<&'a [E]>,
    /// Initial states beside h, of cells that have such; absent means zeros.
    pub c0: Option<&'a [E]>,
    /// Valid steps of each sequence; absent means all.
    pub lengths: Option<&'a [u32]>,
    /// Resets, `[T, B]`; absent means nowhere.
    pub resets: Option<&'a [u8]>,
}

/// What a forward call writes, every element of it.
#[derive(Debug)]
pub struct Outputs<'a, E> {
    /// Output.
    pub y: &'a mut [E],
    /// Final output state; absent if not wanted.
    pub hn: Option<&'a mut [E]>,
    /// Final states beside h, of cells that have such.
    pub cn: Option<&'a mut [E]>,
}

/// A recurrent operator on host memory. It makes a plan for each shape once, and keeps scratch between calls; calls may run at the same
/// time.
#[derive(Debug)]
pub struct Operator<E> {
    descriptor: RnnDescriptor,
    layout: WeightLayout,
    plans: Mutex<Vec<(Key, Arc<CpuPlan>)>>,
    pub(crate) workspaces: Spare<E>,
    pub(crate) reserves: Spare<E>,
}

/// Plans kept: a model that meets more shapes than these in turn makes plans again, which takes microseconds.
const PLANS_KEPT: usize = 16;

/// What a plan depends on besides the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    shape: RnnShape,
    mode: ForwardMode,
    dropout: bool,
}

/// Weights that were packed once, for inference. They are those given; where they change later, these do not.
#[derive(Debug)]
pub struct Packed<E> {
    weights: Vec<E>,
    plans: Mutex<Vec<(RnnShape, Arc<CpuPlan>)>>,
}

impl<E: Number> Operator<E> {
    /// An operator.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`], [`Error::InvalidOption`] and [`Error::SizeOverflow`] for sizes and options that no operator has.
    pub fn new(descriptor: RnnDescriptor) -> Result<Self> {
        let layout = WeightLayout::new(&descriptor)?;
        let (plans, workspaces, reserves) = (Mutex::default(), Spare::default(), Spare::default());
        Ok(Operator { descriptor, layout, plans, workspaces, reserves })
    }

    /// Its description.
    pub fn descriptor(&self) -> &RnnDescriptor {
        &self.descriptor
    }

    /// Where its weights stand in one flat buffer.
    pub fn weights(&self) -> &WeightLayout {
        &self.layout
    }

    /// Shapes of the tensors of a call.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] and [`Error::SizeOverflow`] for sizes that no call has.
    pub fn shapes(&self, shape: RnnShape) -> Result<TensorShapes> {
        shape.tensors(&self.descriptor)
    }

    /// Frees the scratch that is kept between calls.
    pub fn free(&self) {
        self.workspaces.clear();
        self.reserves.clear();
    }

    /// Packs weights for many calls of [`forward`](Self::forward).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for weights of the wrong length.
    pub fn pack(&self, weights: Vec<E>) -> Result<Packed<E>> {
        let (expected, got) = (self.layout.len(), weights.len());
        if expected != got {
            return Err(Error::Shape {
                tensor: "weights".to_owned(),
                expected: format!("{expected} elements"),
                got: format!("{got} elements"),
            });
        }
        Ok(Packed { weights, plans: Mutex::default() })
    }

    /// Inference: no dropout, nothing kept.
    ///
    /// # Errors
    ///
    /// Those of [`RecurrentBackend::plan`] and [`RecurrentBackend::forward`].
    pub fn forward(
        &self,
        shape: RnnShape,
        operands: Operands<'_, E>,
        outputs: Outputs<'_, E>,
        packed: Option<&Packed<E>>,
    ) -> Result<()> {
        let backend = E::backend()?;
        let plan = match packed {
            Some(packed) => self.plan_of(packed, shape)?,
            None => self.plan(shape, ForwardMode::Inference, false)?,
        };
        let mut workspace = self.workspaces.take(backend.temp_space(&plan).workspace)?;
        let result = backend.forward(&plan, arguments(operands, outputs, &mut workspace, 0));
        self.workspaces.give(workspace);
        result
    }

    /// Forward, keeping what backward needs. With a seed the input of every layer but the first is dropped out as the descriptor says;
    /// without one it is not.
    ///
    /// # Errors
    ///
    /// Those of [`RecurrentBackend::plan`] and [`RecurrentBackend::forward_training`].
    pub fn forward_training(
        self: &Arc<Self>,
        shape: RnnShape,
        operands: Operands<'_, E>,
        outputs: Outputs<'_, E>,
        dropout_seed: Option<u64>,
    ) -> Result<Saved<E>> {
        let plan = self.plan(shape, ForwardMode::Training, dropout_seed.is_some())?;
        let seed = dropout_seed.unwrap_or_default();
        let saved = Saved::new(Arc::clone(self), plan, seed);
        saved.fill(operands, outputs)?;
        Ok(saved)
    }

    fn plan(&self, shape: RnnShape, mode: ForwardMode, dropout: bool) -> Result<Arc<CpuPlan>> {
        let dropout = dropout && self.descriptor.dropout > 0.0;
        kept(&self.plans, Key { shape, mode, dropout }, || {
            if dropout || self.descriptor.dropout == 0.0 {
                return E::backend()?.plan(&self.descriptor, shape, mode);
            }
            let mut descriptor = self.descriptor.clone();
            descriptor.dropout = 0.0;
            E::backend()?.plan(&descriptor, shape, mode)
        })
    }

    fn plan_of(&self, packed: &Packed<E>, shape: RnnShape) -> Result<Arc<CpuPlan>> {
        kept(&packed.plans, shape, || {
            let plan = self.plan(shape, ForwardMode::Inference, false)?;
            E::backend()?.with_weights(&plan, &packed.weights)
        })
    }
}

impl<E> Packed<E> {
    /// The weights as they were given.
    pub fn weights(&self) -> &[E] {
        &self.weights
    }
}

/// The plan under `key`, made if there is none. The least recently used one makes room.
fn kept<K: Copy + PartialEq>(
    plans: &Mutex<Vec<(K, Arc<CpuPlan>)>>,
    key: K,
    make: impl FnOnce() -> Result<CpuPlan>,
) -> Result<Arc<CpuPlan>> {
    let mut plans = plans.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = match plans.iter().position(|(of, _)| *of == key) {
        Some(at) => plans.remove(at).1,
        None => Arc::new(make()?),
    };
    if plans.len() == PLANS_KEPT {
        plans.remove(0);
    }
    plans.push((key, Arc::clone(&plan)));
    Ok(plan)
}

pub(crate) fn arguments<'a, E: Number>(
    operands: Operands<'a, E>,
    outputs: Outputs<'a, E>,
    workspace: &'a mut [E],
    dropout_seed: u64,
) -> ForwardArgs<'a, CpuBackend<E>> {
    let Operands { weights, x, h0, c0, lengths, resets } = operands;
    let Outputs { y, hn, cn } = outputs;
    let args = ForwardArgs::new(weights, x, y, workspace).h0(h0).c0(c0).lengths(lengths).resets(resets);
    args.hn(hn).cn(cn).dropout_seed(dropout_seed)
}

impl<E: Number> Operator<E> {
    pub(crate) fn reserve(&self, plan: &CpuPlan) -> Result<Reserve<Vec<E>>> {
        Ok(Reserve::new(self.reserves.take(E::backend()?.temp_space(plan).reserve)?))
    }
}
