//! The operator as one of burn's operations, with a backward pass of its own: `(x, states, weights)` to one flat tensor.
//!
//! burn's autodiff has one output an operation. So initial states are handed over as one flat tensor `h0 | c0`, which is empty where
//! there are none, weights as one that burn concatenates, and what comes out is `y | hn | cn`, or `y` alone.

use std::marker::PhantomData;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{BalancedCheckpointing, CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients as GradientStore;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, DispatchKindConversion, DispatchTensor, Flex};
use burn::tensor::{DType, Device, Element, GradientCheckpointingStrategy, Tensor, TensorData};
use burn_core as burn;
use fused_rnn::rnn::RnnShape;
use fused_rnn::{Error, Result};
use fused_rnn_host::{Gradients, Number, Operands, Operator, Outputs, Packed, Saved, Wanted};

/// `f32` and `f64`, known to both sides.
pub(crate) trait Float: Number + Element {
    /// All elements of a tensor's storage, where it has this type.
    fn storage(tensor: &FlexTensor) -> Option<&[Self]>;
}

impl Float for f32 {
    fn storage(tensor: &FlexTensor) -> Option<&[f32]> {
        (tensor.dtype() == DType::F32).then(|| tensor.storage())
    }
}

impl Float for f64 {
    fn storage(tensor: &FlexTensor) -> Option<&[f64]> {
        (tensor.dtype() == DType::F64).then(|| tensor.storage())
    }
}

/// How many elements the parts of the flat tensors have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) y: usize,
    pub(crate) h: usize,
    /// Zero for a cell that has no states beside h.
    pub(crate) c: usize,
}

/// One call of the operator.
#[derive(Debug)]
pub(crate) struct Op<E: Number> {
    pub(crate) operator: Arc<Operator<E>>,
    pub(crate) shape: RnnShape,
    pub(crate) sizes: Sizes,
    /// Whether the output has the final states too.
    pub(crate) with_states: bool,
    pub(crate) lengths: Option<Vec<u32>>,
    pub(crate) resets: Option<Vec<u8>>,
    pub(crate) dropout_seed: Option<u64>,
    pub(crate) packed: Option<Arc<Packed<E>>>,
}

/// What the operation reads, contiguous.
#[derive(Clone, Debug)]
struct Inputs {
    x: FlexTensor,
    states: FlexTensor,
    weights: FlexTensor,
}

/// What backward needs.
#[derive(Debug)]
struct State<E: Number> {
    op: Op<E>,
    inputs: Inputs,
    out: FlexTensor,
    saved: Saved<E>,
}

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

fn elements<'a, E: Float>(name: &str, tensor: &'a FlexTensor) -> Result<&'a [E]> {
    let all = E::storage(tensor).ok_or_else(|| Error::Unsupported {
        what: format!("{name} in {:?} beside weights in {}", tensor.dtype(), E::DTYPE),
        why: "all tensors of a call have the type of the weights; cast it (Tensor::cast)".to_owned(),
    })?;
    tensor.layout().contiguous_offsets().and_then(|(start, end)| all.get(start..end)).ok_or_else(|| Error::Shape {
        tensor: name.to_owned(),
        expected: "a contiguous tensor within its storage".to_owned(),
        got: format!("{:?} of {} elements", tensor.layout(), all.len()),
    })
}

/// Initial states out of their flat tensor.
fn initial<E>(states: &[E], sizes: Sizes) -> (Option<&[E]>, Option<&[E]>) {
    match states.split_at_checked(sizes.h) {
        Some((h, c)) if !h.is_empty() => (Some(h), (!c.is_empty()).then_some(c)),
        _ => (None, None),
    }
}

fn tensor<E: Float>(elements: Vec<E>, shape: impl Into<burn::tensor::Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(elements, shape))
}

impl<E: Float> Op<E> {
    fn operands<'a>(&'a self, inputs: &'a Inputs) -> Result<Operands<'a, E>> {
        let (h0, c0) = initial(elements("states", &inputs.states)?, self.sizes);
        Ok(Operands {
            weights: elements("weights", &inputs.weights)?,
            x: elements("x", &inputs.x)?,
            h0,
            c0,
            lengths: self.lengths.as_deref(),
            resets: self.resets.as_deref(),
        })
    }

    fn run<R>(&self, call: impl FnOnce(Outputs<'_, E>) -> Result<R>) -> Result<(FlexTensor, R)> {
        let Sizes { y, h, c } = self.sizes;
        let len = if self.with_states { y + h + c } else { y };
        let mut out = vec![E::zero(); len];
        let (y, states) = out.split_at_mut(y);
        let (hn, cn) = states.split_at_mut(if self.with_states { h } else { 0 });
        let outputs = Outputs {
            y,
            hn: if hn.is_empty() { None } else { Some(hn) },
            cn: if cn.is_empty() { None } else { Some(cn) },
        };
        let result = call(outputs)?;
        Ok((tensor(out, [len]), result))
    }

    fn without_gradients(&self, inputs: &Inputs) -> Result<FlexTensor> {
        if self.dropout_seed.is_some() {
            return Ok(self.with_gradients(inputs)?.0);
        }
        let mut operands = self.operands(inputs)?;
        if self.packed.is_some() {
            operands.weights = &[];
        }
        let packed = self.packed.as_deref();
        Ok(self.run(|outputs| self.operator.forward(self.shape, operands, outputs, packed))?.0)
    }

    fn with_gradients(&self, inputs: &Inputs) -> Result<(FlexTensor, Saved<E>)> {
        let operands = self.operands(inputs)?;
        self.run(|outputs| self.operator.forward_training(self.shape, operands, outputs, self.dropout_seed))
    }

    /// Runs the operation; gradients reach those of its inputs that are tracked.
    pub(crate) fn apply(self, x: Tensor<3>, states: Tensor<1>, weights: Tensor<1>) -> Result<Tensor<1>> {
        let strategies = [
            weights.gradient_checkpointing_strategy(),
            x.gradient_checkpointing_strategy(),
            states.gradient_checkpointing_strategy(),
        ];
        match strategies.into_iter().flatten().next() {
            None => {
                let inputs = Inputs { x: plain(x)?, states: plain(states)?, weights: plain(weights)? };
                Ok(Tensor::from_primitive::<Flex>(self.without_gradients(&inputs)?))
            }
            Some(GradientCheckpointingStrategy::Disabled) => self.tracked::<NoCheckpointing>(x, states, weights),
            Some(GradientCheckpointingStrategy::Balanced) => self.tracked::<BalancedCheckpointing>(x, states, weights),
        }
    }

    fn tracked<C: CheckpointStrategy>(self, x: Tensor<3>, states: Tensor<1>, weights: Tensor<1>) -> Result<Tensor<1>>
    where
        DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
    {
        let (x, x_node) = lift::<3, C>(x)?.into_parts();
        let (states, states_node) = lift::<1, C>(states)?.into_parts();
        let (weights, weights_node) = lift::<1, C>(weights)?.into_parts();
        let inputs = Inputs { x: contiguous(x), states: contiguous(states), weights: contiguous(weights) };
        let step = Fused::<E>(PhantomData);
        let out = match step.prepare::<C>([x_node, states_node, weights_node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (out, saved) = self.with_gradients(&inputs)?;
                let state = State { op: self, inputs, out: out.clone(), saved };
                prepared.finish(Arc::new(state), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(self.without_gradients(&inputs)?),
        };
        Ok(Tensor::from_primitive::<Autodiff<Flex, C>>(out))
    }
}

/// The error for a tensor that lives elsewhere than on burn's CPU backend.
fn elsewhere(device: &Device, problem: impl std::fmt::Debug) -> Error {
    Error::Unsupported {
        what: format!("a recurrent layer of fused-rnn-burn on {device:?}"),
        why: format!(
            "it computes on burn's CPU backend, Device::flex(), alone; move the layer and its tensors there ({problem:?})"
        ),
    }
}

/// A tensor without gradients.
fn plain<const D: usize>(tensor: Tensor<D>) -> Result<FlexTensor> {
    let device = tensor.device();
    let primitive = tensor.try_into_primitive::<Flex>().map_err(|error| elsewhere(&device, error))?;
    Ok(contiguous(primitive))
}

/// A tensor in the graph; one that has no gradients is a constant there.
fn lift<const D: usize, C: CheckpointStrategy>(tensor: Tensor<D>) -> Result<FloatTensor<Autodiff<Flex, C>>>
where
    DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
{
    if tensor.gradient_checkpointing_strategy().is_none() {
        return Ok(<Autodiff<Flex, C> as AutodiffBackend>::from_inner(plain(tensor)?));
    }
    let device = tensor.device();
    tensor.try_into_primitive::<Autodiff<Flex, C>>().map_err(|error| elsewhere(&device, error))
}

/// The backward step.
#[derive(Debug)]
struct Fused<E>(PhantomData<E>);

impl<E: Float> Backward<Flex, 3> for Fused<E> {
    type State = Arc<State<E>>;

    /// # Panics
    ///
    /// Where the operator fails, which after its forward pass it does for want of memory alone: burn's backward has no errors.
    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut GradientStore, _: &mut Checkpointer) {
        let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        match ops.state.gradients(&gradient, wanted) {
            Ok(of_parents) => {
                for (parent, gradient) in ops.parents.into_iter().zip(of_parents) {
                    if let (Some(parent), Some(gradient)) = (parent, gradient) {
                        gradients.register::<Flex>(parent.id, gradient);
                    }
                }
            }
            Err(error) => panic!("backward of a recurrent layer of fused-rnn-burn: {error}"),
        }
    }
}

impl<E: Float> State<E> {
    /// Gradients of `x`, states and weights, of those that are wanted.
    fn gradients(&self, gradient: &FlexTensor, wanted: [bool; 3]) -> Result<[Option<FlexTensor>; 3]> {
        let (op, inputs) = (&self.op, &self.inputs);
        let tensors = [&inputs.x, &inputs.states, &inputs.weights];
        let mut room = wanted.into_iter().zip(tensors).map(|(wanted, tensor)| {
            let len = tensor.layout().num_elements();
            wanted.then(|| vec![E::zero(); len])
        });
        let (mut dx, mut dstates, mut dweights) = (room.next().flatten(), room.next().flatten(), room.next().flatten());
        let (y, _) = elements::<E>("y", &self.out)?.split_at(op.sizes.y);
        let (dy, dfinal) = elements::<E>("gradient", gradient)?.split_at(op.sizes.y);
        let (dhn, dcn) = initial(dfinal, op.sizes);
        let (dh0, dc0) = match dstates.as_deref_mut().filter(|states| !states.is_empty()) {
            Some(dstates) => {
                let (dh0, dc0) = dstates.split_at_mut(op.sizes.h);
                (Some(dh0), (op.sizes.c > 0).then_some(dc0))
            }
            None => (None, None),
        };
        let wanted = Wanted { dx: dx.as_deref_mut(), dh0, dc0, dweights: dweights.as_deref_mut() };
        self.saved.backward(op.operands(inputs)?, y, Gradients { dy: Some(dy), dhn, dcn }, wanted)?;
        let shaped = |elements: Option<Vec<E>>, like: &FlexTensor| {
            elements.map(|elements| tensor(elements, like.layout().shape().clone()))
        };
        Ok([shaped(dx, &inputs.x), shaped(dstates, &inputs.states), shaped(dweights, &inputs.weights)])
    }
}
