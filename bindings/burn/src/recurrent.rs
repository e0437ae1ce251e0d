//! [`Recurrent`]: a module of any operator.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::{Flag, Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_core as burn;
use burn_nn::Initializer;
use fused_rnn::rnn::{Layout, RnnDescriptor, RnnShape, WeightEntry, WeightKind, WeightLayout};
use fused_rnn::{Error, Result};
use fused_rnn_host::{Operator, Packed};

use crate::op::{Float, Op, Sizes};

/// States of all layers and directions: initial ones, or final ones. `L` num_layers, `D` directions, `B` batch.
#[derive(Clone, Debug)]
pub struct States {
    /// Outputs, `[L * D, B, d_hidden]`, or `proj_size` instead of `d_hidden`.
    pub h: Tensor<3>,
    /// States beside h, of cells that have such: an LSTM's cell states `[L * D, B, d_hidden]`.
    pub c: Option<Tensor<3>>,
}

/// What a call gives.
#[derive(Clone, Debug)]
pub struct Output {
    /// Outputs of the last layer, `[batch, seq_len, D * d_hidden]` batch-major, else `[seq_len, batch, …]`. Zero past a sequence's
    /// length.
    pub y: Tensor<3>,
    /// States after the last step of each sequence.
    pub states: States,
}

/// What a call needs besides `x`. The default: zero initial states, full lengths.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Call {
    states: Option<States>,
    lengths: Option<Vec<u32>>,
    resets: Option<Vec<u8>>,
    seed: Option<u64>,
}

impl Call {
    /// Begins with these states. Gradients reach them.
    #[must_use]
    pub fn states(mut self, states: &States) -> Self {
        self.states = Some(states.clone());
        self
    }

    /// Valid steps of each sequence, `[batch]`, each in `1..=seq_len`, in any order.
    #[must_use]
    pub fn lengths(mut self, lengths: &[u32]) -> Self {
        self.lengths = Some(lengths.to_vec());
        self
    }

    /// `[seq_len, batch]`, non-zero where a state is set to the initial one before the step.
    #[must_use]
    pub fn resets(mut self, resets: &[u8]) -> Self {
        self.resets = Some(resets.to_vec());
        self
    }

    /// The seed of this call's dropout masks, instead of the layer's own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// The weights of a layer and direction, with PyTorch's names and gate order. `G` gates, `P` the output's width.
#[derive(Module, Debug)]
pub struct Weights {
    /// `[G * d_hidden, width of the layer's input]`
    pub weight_ih: Param<Tensor<2>>,
    /// `[G * d_hidden, P]`
    pub weight_hh: Param<Tensor<2>>,
    /// `[G * d_hidden]`
    pub bias_ih: Option<Param<Tensor<1>>>,
    /// `[G * d_hidden]`
    pub bias_hh: Option<Param<Tensor<1>>>,
    /// `[P, d_hidden]`: the projection.
    pub weight_hr: Option<Param<Tensor<2>>>,
}

/// A recurrent module: what [`Lstm`](crate::Lstm), [`Gru`](crate::Gru) and [`Rnn`](crate::Rnn) are made of.
#[derive(Module, Debug)]
pub struct Recurrent {
    /// The weights of layer `l` and direction `d` at `l * D + d`.
    pub layers: Vec<Weights>,
    /// Whether there is dropout where a backward pass is possible, as burn's `Dropout` has it: cleared by `freeze`.
    pub training: Param<Flag>,
    #[module(skip)]
    shared: Shared,
}

/// What clones of a module share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    single: Arc<Operator<f32>>,
    double: Arc<Operator<f64>>,
    first_seed: u64,
    calls: Arc<AtomicU64>,
}

/// Numbers of layers, so that each has dropout masks of its own.
static LAYERS: AtomicU64 = AtomicU64::new(0);

impl Shared {
    fn new(descriptor: &RnnDescriptor) -> Result<Self> {
        Ok(Shared {
            single: Arc::new(Operator::new(descriptor.clone())?),
            double: Arc::new(Operator::new(descriptor.clone())?),
            first_seed: LAYERS.fetch_add(1, Ordering::Relaxed) << 32,
            calls: Arc::default(),
        })
    }

    fn next_seed(&self) -> u64 {
        // The golden ratio's odd neighbour spreads consecutive numbers over all bits; the operator mixes them further.
        let call = self.calls.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.first_seed.wrapping_add(call)
    }

    fn descriptor(&self) -> &RnnDescriptor {
        self.single.descriptor()
    }
}

impl Recurrent {
    /// A module of the operator that `descriptor` describes, its weights made by `initializer`, gate by gate as burn's own.
    ///
    /// # Errors
    ///
    /// Of the operator for options that it has not. [`Error::Unsupported`] for heads, peepholes and gates as input, whose weights this module
    /// has no place for.
    pub fn init(descriptor: &RnnDescriptor, initializer: &Initializer, device: &Device) -> Result<Self> {
        let shared = Shared::new(descriptor)?;
        let layout = WeightLayout::new(descriptor)?;
        let places = descriptor.num_layers * descriptor.num_directions();
        let mut layers = Vec::new();
        for place in 0..places {
            let entries: Vec<&WeightEntry> = layout
                .entries()
                .iter()
                .filter(|entry| entry.layer * descriptor.num_directions() + entry.direction == place)
                .collect();
            let find = |kind| entries.iter().copied().find(|entry| entry.kind == kind);
            // Each gate begins as a linear layer of burn does: what goes in is a row's width, what comes out is one gate's units.
            let hidden = descriptor.hidden_size;
            let matrix = |kind| match find(kind).map(|entry| entry.shape.as_slice()) {
                Some(&[rows, columns]) => {
                    Some(initializer.init_with([rows, columns], Some(columns), Some(rows.min(hidden)), device))
                }
                _ => None,
            };
            let vector = |kind, columns| match find(kind).map(|entry| entry.shape.as_slice()) {
                Some(&[rows]) => Some(initializer.init_with([rows], Some(columns), Some(hidden), device)),
                _ => None,
            };
            let input = descriptor.layer_input_size(place / descriptor.num_directions());
            let known = [
                WeightKind::InputHidden,
                WeightKind::HiddenHidden,
                WeightKind::InputBias,
                WeightKind::HiddenBias,
                WeightKind::Projection,
            ];
            let unknown = entries.iter().find(|entry| !known.contains(&entry.kind));
            let (Some(weight_ih), Some(weight_hh), None) =
                (matrix(WeightKind::InputHidden), matrix(WeightKind::HiddenHidden), unknown)
            else {
                return Err(Error::Unsupported {
                    what: "heads, peepholes or gates as input in fused-rnn-burn".to_owned(),
                    why:
                        "its module has no place for their weights; use the operator itself (fused_rnn_burn::fused_rnn)"
                            .to_owned(),
                });
            };
            layers.push(Weights {
                weight_ih,
                weight_hh,
                bias_ih: vector(WeightKind::InputBias, input),
                bias_hh: vector(WeightKind::HiddenBias, descriptor.output_size()),
                weight_hr: matrix(WeightKind::Projection),
            });
        }
        Ok(Recurrent { layers, training: Param::from_bool(true), shared })
    }

    /// What the module computes.
    pub fn descriptor(&self) -> &RnnDescriptor {
        self.shared.descriptor()
    }

    /// The module with other weights, under PyTorch's names: `weight_ih_l0`, `bias_hh_l1_reverse`, … All have one type, `f32` or `f64`, which is
    /// that of the module from then on.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] for a name that `weights` has not, [`Error::Shape`] for a tensor of another shape.
    pub fn with_weights(mut self, mut weights: HashMap<String, TensorData>, device: &Device) -> Result<Self> {
        let layout = self.shared.single.weights().clone();
        let directions = self.descriptor().num_directions();
        for entry in layout.entries() {
            let data = weights.remove(&entry.name).ok_or_else(|| Error::Presence {
                tensor: entry.name.clone(),
                problem: "it is not among the weights given; names are PyTorch's, without the layer's own name"
                    .to_owned(),
            })?;
            if data.shape().as_slice() != entry.shape.as_slice() {
                return Err(Error::Shape {
                    tensor: entry.name.clone(),
                    expected: format!("{:?}", entry.shape),
                    got: format!("{:?}", data.shape()),
                });
            }
            let dtype = data.dtype();
            if !matches!(dtype, DType::F32 | DType::F64) {
                return Err(other_type(&entry.name, dtype));
            }
            let Some(layer) = self.layers.get_mut(entry.layer * directions + entry.direction) else { continue };
            let matrix = |data| Param::from_tensor(Tensor::<2>::from_data(data, (device, dtype)));
            let vector = |data| Param::from_tensor(Tensor::<1>::from_data(data, (device, dtype)));
            match entry.kind {
                WeightKind::InputHidden => layer.weight_ih = matrix(data),
                WeightKind::HiddenHidden => layer.weight_hh = matrix(data),
                WeightKind::InputBias => layer.bias_ih = Some(vector(data)),
                WeightKind::HiddenBias => layer.bias_hh = Some(vector(data)),
                _ => layer.weight_hr = Some(matrix(data)),
            }
        }
        match weights.keys().min() {
            None => Ok(self),
            Some(name) => Err(Error::Presence {
                tensor: name.clone(),
                problem:
                    "this layer has no such weight; leave it out, or give the layer the options that it belongs to"
                        .to_owned(),
            }),
        }
    }

    /// The layer with the weights as they are now, packed once for inference: for calls of few steps, packing is most of the time.
    /// Results are the same bits.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run) for weights elsewhere than on burn's CPU backend.
    pub fn frozen(&self) -> Result<Frozen> {
        let flat = self.flat()?.inner();
        let shape = |error| Error::Unsupported { what: "these weights".to_owned(), why: format!("{error:?}") };
        let packed = match flat.dtype() {
            DType::F32 => Kept::Single(Arc::new(self.shared.single.pack(flat.to_data().try_to_vec().map_err(shape)?)?)),
            DType::F64 => Kept::Double(Arc::new(self.shared.double.pack(flat.to_data().try_to_vec().map_err(shape)?)?)),
            other => return Err(other_type("weights", other)),
        };
        Ok(Frozen { shared: self.shared.clone(), flat, packed })
    }

    /// Outputs and final states. `x` is `[batch, seq_len, d_input]` in a batch-major layer, else `[seq_len, batch, d_input]`.
    ///
    /// Where no backward pass is possible, because no tensor is of an autodiff device or none is tracked, nothing is kept for one.
    /// There is dropout where burn's own `Dropout` would: on an autodiff device, unless the module is frozen.
    ///
    /// # Errors
    ///
    /// Each names tensor or option: [`Error::Shape`] for another width of `x`, states, lengths and resets that do not fit;
    /// [`Error::SequenceLength`]; [`Error::Presence`] for states that the cell has not, or lacks; [`Error::Unsupported`] for tensors that are
    /// not on burn's CPU backend or of another type than the weights, and where memory is short.
    pub fn run(&self, x: Tensor<3>, call: &Call) -> Result<Output> {
        let (y, states) = self.call(x, call, true)?;
        states.map(|states| Output { y, states }).ok_or_else(no_states)
    }

    /// [`run`](Self::run) for `y` alone.
    pub(crate) fn outputs(&self, x: Tensor<3>, call: &Call) -> Result<Tensor<3>> {
        Ok(self.call(x, call, false)?.0)
    }

    fn call(&self, x: Tensor<3>, call: &Call, with_states: bool) -> Result<(Tensor<3>, Option<States>)> {
        let drops = self.descriptor().dropout > 0.0 && self.training.is_enabled() && x.device().is_autodiff();
        let seed = drops.then(|| call.seed.unwrap_or_else(|| self.shared.next_seed()));
        let flat = self.flat()?;
        match flat.dtype() {
            DType::F32 => call_typed(&self.shared.single, None, flat, x, call, seed, with_states),
            DType::F64 => call_typed(&self.shared.double, None, flat, x, call, seed, with_states),
            other => Err(other_type("weights", other)),
        }
    }

    /// All weights in one tensor, in the operator's order.
    fn flat(&self) -> Result<Tensor<1>> {
        let mut parts: Vec<Tensor<1>> = Vec::new();
        for layer in &self.layers {
            let Weights { weight_ih, weight_hh, bias_ih, bias_hh, weight_hr } = layer;
            parts.push(weight_ih.val().flatten(0, 1));
            parts.push(weight_hh.val().flatten(0, 1));
            parts.extend([bias_ih, bias_hh].into_iter().flatten().map(|bias| bias.val()));
            parts.extend(weight_hr.iter().map(|weight| weight.val().flatten(0, 1)));
        }
        if let Some((first, others)) = parts.split_first()
            && let Some(other) = others.iter().find(|part| part.dtype() != first.dtype())
        {
            return Err(Error::Unsupported {
                what: format!("a layer with weights in {:?} and {:?}", first.dtype(), other.dtype()),
                why: "all its weights have one type".to_owned(),
            });
        }
        Ok(Tensor::cat(parts, 0))
    }
}

/// A layer for inference, its weights packed once: see [`Recurrent::frozen`].
#[derive(Clone, Debug)]
pub struct Frozen {
    shared: Shared,
    flat: Tensor<1>,
    packed: Kept,
}

#[derive(Clone, Debug)]
enum Kept {
    Single(Arc<Packed<f32>>),
    Double(Arc<Packed<f64>>),
}

impl Frozen {
    /// Outputs and final states, as [`Recurrent::run`].
    ///
    /// # Errors
    ///
    /// As [`Recurrent::run`].
    pub fn run(&self, x: Tensor<3>, call: &Call) -> Result<Output> {
        let (flat, shared) = (self.flat.clone(), &self.shared);
        let (y, states) = match &self.packed {
            Kept::Single(packed) => call_typed(&shared.single, Some(packed), flat, x, call, None, true)?,
            Kept::Double(packed) => call_typed(&shared.double, Some(packed), flat, x, call, None, true)?,
        };
        states.map(|states| Output { y, states }).ok_or_else(no_states)
    }
}

fn no_states() -> Error {
    Error::Presence { tensor: "states".to_owned(), problem: "the call gave none".to_owned() }
}

fn other_type(name: &str, dtype: DType) -> Error {
    Error::Unsupported {
        what: format!("{name} in {dtype:?}"),
        why: "fused-rnn-burn computes in f32 and f64; cast the weights to one of these".to_owned(),
    }
}

fn call_typed<E: Float>(
    operator: &Arc<Operator<E>>,
    packed: Option<&Arc<Packed<E>>>,
    weights: Tensor<1>,
    x: Tensor<3>,
    call: &Call,
    dropout_seed: Option<u64>,
    with_states: bool,
) -> Result<(Tensor<3>, Option<States>)> {
    let descriptor = operator.descriptor();
    let [outer, middle, width] = x.dims();
    let (batch, seq_len, axes) = match descriptor.layout {
        Layout::BatchMajor => (outer, middle, "[batch, seq_len, d_input]"),
        Layout::SequenceMajor => (middle, outer, "[seq_len, batch, d_input]"),
    };
    if width != descriptor.input_size {
        return Err(Error::Shape {
            tensor: "x".to_owned(),
            expected: format!("{axes} with d_input {}", descriptor.input_size),
            got: format!("{:?}", x.dims()),
        });
    }
    let shape = RnnShape { seq_len, batch };
    let shapes = operator.shapes(shape)?;
    let size = |shape: [usize; 3]| shape.into_iter().product::<usize>();
    let c = descriptor.cell.has_cell_state().then_some(shapes.c);
    let sizes = Sizes { y: size(shapes.y), h: size(shapes.h), c: c.map_or(0, size) };
    let states = match &call.states {
        Some(states) => flat_states(states, shapes.h, c)?,
        None => Tensor::zeros([0], (&x.device(), weights.dtype())),
    };
    let op = Op {
        operator: Arc::clone(operator),
        shape,
        sizes,
        with_states,
        lengths: call.lengths.clone(),
        resets: call.resets.clone(),
        dropout_seed,
        packed: packed.map(Arc::clone),
    };
    let out = op.apply(x, states, weights)?;
    if !with_states {
        return Ok((out.reshape(shapes.y), None));
    }
    let part = |start: usize, len: usize, shape: [usize; 3]| out.clone().narrow(0, start, len).reshape(shape);
    let h = part(sizes.y, sizes.h, shapes.h);
    let c = c.map(|shape| part(sizes.y + sizes.h, sizes.c, shape));
    Ok((part(0, sizes.y, shapes.y), Some(States { h, c })))
}

fn flat_states(states: &States, h: [usize; 3], c: Option<[usize; 3]>) -> Result<Tensor<1>> {
    let check = |name: &str, tensor: &Tensor<3>, shape: [usize; 3]| {
        if tensor.dims() == shape {
            return Ok(tensor.clone().flatten::<1>(0, 2));
        }
        Err(Error::Shape {
            tensor: name.to_owned(),
            expected: format!("[num_layers * directions, batch, size] {shape:?}"),
            got: format!("{:?}", tensor.dims()),
        })
    };
    let absent = |problem: &str| Error::Presence { tensor: "states.c".to_owned(), problem: problem.to_owned() };
    match (&states.c, c) {
        (None, None) => check("states.h", &states.h, h),
        (Some(given), Some(c)) => {
            Ok(Tensor::cat(vec![check("states.h", &states.h, h)?, check("states.c", given, c)?], 0))
        }
        (None, Some(_)) => Err(absent("this cell has states beside h; give both, or none")),
        (Some(_), None) => Err(absent("this cell has no states beside h; give h alone")),
    }
}
