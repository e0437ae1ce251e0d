//! The layers: [`Recurrent`], any operator, and the three that PyTorch has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, ModuleT, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use fused_rnn::cell::CellKind;
use fused_rnn::rnn::{Layout, RnnDescriptor, RnnShape, WeightEntry};
use fused_rnn_host::{Operator, Packed};

use crate::op::{Float, Op, Purpose, Sizes, not_on_the_cpu, with_elements, wrap};
use crate::options::Options;

/// States of all layers and directions: initial ones, or final ones. `L` num_layers, `D` directions, `B` batch.
#[derive(Clone, Debug)]
pub struct States {
    /// Outputs, `[L * D, B, hidden_size]`, or `proj_size` instead of `hidden_size`.
    pub h: Tensor,
    /// States beside h, of cells that have such: an LSTM's cell states `[L * D, B, hidden_size]`.
    pub c: Option<Tensor>,
}

/// What a call gives.
#[derive(Clone, Debug)]
pub struct Output {
    /// Outputs of the last layer, `[batch, seq_len, D * hidden_size]` batch-major, else `[seq_len, batch, …]`. Zero past a
    /// sequence's length.
    pub y: Tensor,
    /// States after the last step of each sequence.
    pub states: States,
}

/// What a call needs besides `x`. The default: zero initial states, full lengths, no dropout.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Call {
    states: Option<States>,
    lengths: Option<Vec<u32>>,
    resets: Option<Vec<u8>>,
    train: bool,
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

    /// Whether the call is for training: with the layer's dropout, another mask in every call.
    #[must_use]
    pub fn train(mut self, train: bool) -> Self {
        self.train = train;
        self
    }

    /// The seed of this call's dropout masks, instead of the layer's own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// The operator in the layer's element type.
#[derive(Clone, Debug)]
enum Typed {
    F32(Inner<f32>),
    F64(Inner<f64>),
}

#[derive(Clone, Debug)]
struct Inner<E> {
    operator: Arc<Operator<E>>,
    /// Of a frozen layer.
    packed: Option<Arc<Packed<E>>>,
}

/// Numbers of layers, so that each has dropout masks of its own.
static LAYERS: AtomicU64 = AtomicU64::new(0);

/// Seeds of dropout masks: another one for every call.
#[derive(Debug)]
struct Seeds {
    first: u64,
    calls: AtomicU64,
}

impl Seeds {
    fn next(&self) -> u64 {
        // The golden ratio's odd neighbour spreads consecutive numbers over all bits; the operator mixes them further.
        let call = self.calls.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.first.wrapping_add(call)
    }
}

/// A recurrent layer of any cell with any options: what [`Lstm`], [`Gru`] and [`Rnn`] are made of.
#[derive(Clone, Debug)]
pub struct Recurrent {
    descriptor: RnnDescriptor,
    typed: Typed,
    /// In the order of the layout; one flat tensor in a frozen layer.
    weights: Vec<Tensor>,
    /// Where a call has no initial states.
    no_states: Tensor,
    seeds: Arc<Seeds>,
}

impl Recurrent {
    /// A layer of the operator that `descriptor` describes. Variables have the names and shapes of
    /// [`WeightLayout`](fused_rnn::rnn::WeightLayout), which are PyTorch's where PyTorch has them; those that `vb` makes anew begin as
    /// in PyTorch, evenly distributed in `±1 / sqrt(hidden_size)`.
    ///
    /// # Errors
    ///
    /// Of candle for a variable that is missing or has another shape. Of the operator for an option that it has not, for a
    /// `VarBuilder` of another device than the CPU or another type than `f32` and `f64`.
    pub fn from_descriptor(descriptor: RnnDescriptor, vb: VarBuilder) -> Result<Self> {
        let bound = 1.0 / (descriptor.hidden_size as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        Self::with_variables(descriptor, &vb, 0, |entry| vb.get_with_hints(entry.shape.as_slice(), &entry.name, init))
    }

    /// A layer whose variables `variable` gets.
    pub(crate) fn with_variables(
        descriptor: RnnDescriptor,
        vb: &VarBuilder,
        seed: u64,
        variable: impl FnMut(&WeightEntry) -> Result<Tensor>,
    ) -> Result<Self> {
        if !vb.device().is_cpu() {
            return Err(not_on_the_cpu(vb.device()));
        }
        let typed = match vb.dtype() {
            DType::F32 => Typed::F32(Inner::new(&descriptor)?),
            DType::F64 => Typed::F64(Inner::new(&descriptor)?),
            other => {
                return Err(wrap(fused_rnn::Error::Unsupported {
                    what: format!("a recurrent layer of fused-rnn-candle in {}", other.as_str()),
                    why: "it computes in f32 and f64; give it a VarBuilder of one of these (VarBuilder::to_dtype)"
                        .to_owned(),
                }));
            }
        };
        let layout = match &typed {
            Typed::F32(inner) => inner.operator.weights(),
            Typed::F64(inner) => inner.operator.weights(),
        };
        let weights = layout.entries().iter().map(variable).collect::<Result<Vec<_>>>()?;
        let layer = LAYERS.fetch_add(1, Ordering::Relaxed);
        let seeds = Arc::new(Seeds { first: seed.wrapping_add(layer << 32), calls: AtomicU64::new(0) });
        let no_states = Tensor::zeros(0, vb.dtype(), &Device::Cpu)?;
        Ok(Recurrent { descriptor, typed, weights, no_states, seeds })
    }

    /// What the layer computes.
    pub fn descriptor(&self) -> &RnnDescriptor {
        &self.descriptor
    }

    /// The same layer with the weights as they are now, packed once for inference. It does not see later changes of the variables,
    /// and no gradients reach them. Results are the same bits.
    ///
    /// # Errors
    ///
    /// Of candle where memory is short.
    pub fn frozen(&self) -> Result<Self> {
        let flat = self.flat_weights()?.detach();
        let typed = match &self.typed {
            Typed::F32(inner) => Typed::F32(inner.frozen(&flat)?),
            Typed::F64(inner) => Typed::F64(inner.frozen(&flat)?),
        };
        Ok(Recurrent { typed, weights: vec![flat], ..self.clone() })
    }

    /// Outputs for `x`, without dropout: [`Output::y`] of [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.call(x, &Call::default(), false)?.0)
    }

    /// Outputs and final states. `x` is `[batch, seq_len, input_size]` in a batch-major layer, else `[seq_len, batch, input_size]`.
    ///
    /// Where none of `x`, the initial states and the weights is a variable or computed from one, nothing is kept for gradients.
    ///
    /// # Errors
    ///
    /// Of candle for tensors of another type or rank. Of the operator, each naming tensor or option: for another width of `x`, for states,
    /// lengths and resets that do not fit, for tensors that are not on the CPU, and where memory is short.
    pub fn run(&self, x: &Tensor, call: &Call) -> Result<Output> {
        let (y, states) = self.call(x, call, true)?;
        let states = states.ok_or_else(|| candle_core::Error::msg("fused-rnn: a call without final states"))?;
        Ok(Output { y, states })
    }

    /// [`run`](Self::run) for `y` alone, whose gradient candle then need not put together with those of states.
    pub(crate) fn outputs(&self, x: &Tensor, call: &Call) -> Result<Tensor> {
        Ok(self.call(x, call, false)?.0)
    }

    /// Whether gradients of a call can be asked for.
    pub(crate) fn is_tracked(&self, x: &Tensor, states: Option<&States>) -> bool {
        let states = states.into_iter().flat_map(|states| [Some(&states.h), states.c.as_ref()]).flatten();
        self.weights.iter().chain([x]).chain(states).any(Tensor::track_op)
    }

    fn call(&self, x: &Tensor, call: &Call, with_states: bool) -> Result<(Tensor, Option<States>)> {
        match &self.typed {
            Typed::F32(inner) => self.call_typed(inner, x, call, with_states),
            Typed::F64(inner) => self.call_typed(inner, x, call, with_states),
        }
    }

    fn call_typed<E: Float>(
        &self,
        inner: &Inner<E>,
        x: &Tensor,
        call: &Call,
        with_states: bool,
    ) -> Result<(Tensor, Option<States>)> {
        if !x.device().is_cpu() {
            return Err(not_on_the_cpu(x.device()));
        }
        let (outer, middle, width) = x.dims3()?;
        let (batch, seq_len, axes) = match self.descriptor.layout {
            Layout::BatchMajor => (outer, middle, "[batch, seq_len, input_size]"),
            Layout::SequenceMajor => (middle, outer, "[seq_len, batch, input_size]"),
        };
        if width != self.descriptor.input_size {
            return Err(wrap(fused_rnn::Error::Shape {
                tensor: "x".to_owned(),
                expected: format!("{axes} with input_size {}", self.descriptor.input_size),
                got: format!("{:?}", x.dims()),
            }));
        }
        let shape = RnnShape { seq_len, batch };
        let shapes = inner.operator.shapes(shape).map_err(wrap)?;
        let size = |shape: [usize; 3]| shape.into_iter().product::<usize>();
        let has_c = self.descriptor.cell.has_cell_state();
        let sizes = Sizes { y: size(shapes.y), h: size(shapes.h), c: if has_c { size(shapes.c) } else { 0 } };
        let states = match &call.states {
            Some(states) => self.flat_states(states, shapes.h, has_c.then_some(shapes.c))?,
            None => self.no_states.clone(),
        };
        let (x, weights) = (x.contiguous()?, self.flat_weights()?);
        // candle's tensors do not know whether their gradients will be asked for, but whether they can be.
        let tracked = [&x, &states, &weights].into_iter().any(Tensor::track_op);
        let dropout = call.train && self.descriptor.dropout > 0.0;
        let purpose = match tracked || dropout {
            true => {
                Purpose::Gradients { dropout_seed: dropout.then(|| call.seed.unwrap_or_else(|| self.seeds.next())) }
            }
            false => Purpose::Inference { packed: inner.packed.clone() },
        };
        let op = Op {
            operator: Arc::clone(&inner.operator),
            shape,
            sizes,
            y_alone: (!with_states).then_some(shapes.y),
            purpose,
            lengths: call.lengths.clone(),
            resets: call.resets.clone(),
            saved: Mutex::default(),
        };
        let out = x.apply_op3(&states, &weights, op)?;
        if !with_states {
            return Ok((out, None));
        }
        let part = |start: usize, len: usize, shape: [usize; 3]| out.narrow(0, start, len)?.reshape(shape.as_slice());
        let y = part(0, sizes.y, shapes.y)?;
        let h = part(sizes.y, sizes.h, shapes.h)?;
        let c = has_c.then(|| part(sizes.y + sizes.h, sizes.c, shapes.c)).transpose()?;
        Ok((y, Some(States { h, c })))
    }

    pub(crate) fn dtype(&self) -> DType {
        self.no_states.dtype()
    }

    fn flat_weights(&self) -> Result<Tensor> {
        match self.weights.as_slice() {
            [flat] => flat.flatten_all(),
            weights => Tensor::cat(&weights.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?, 0),
        }
    }

    fn flat_states(&self, states: &States, h: [usize; 3], c: Option<[usize; 3]>) -> Result<Tensor> {
        let axes = "[num_layers * directions, batch, size]";
        let check = |name: &str, tensor: &Tensor, shape: [usize; 3]| {
            if tensor.dims() == shape {
                return tensor.flatten_all();
            }
            Err(wrap(fused_rnn::Error::Shape {
                tensor: name.to_owned(),
                expected: format!("{axes} {shape:?}"),
                got: format!("{:?}", tensor.dims()),
            }))
        };
        let absent = |problem: &str| {
            wrap(fused_rnn::Error::Presence { tensor: "states.c".to_owned(), problem: problem.to_owned() })
        };
        match (&states.c, c) {
            (None, None) => check("states.h", &states.h, h),
            (Some(given), Some(c)) => Tensor::cat(&[check("states.h", &states.h, h)?, check("states.c", given, c)?], 0),
            (None, Some(_)) => Err(absent("this cell has states beside h; give both, or none")),
            (Some(_), None) => Err(absent("this cell has no states beside h; give h alone")),
        }
    }
}

impl<E: Float> Inner<E> {
    fn new(descriptor: &RnnDescriptor) -> Result<Self> {
        Ok(Inner { operator: Arc::new(Operator::new(descriptor.clone()).map_err(wrap)?), packed: None })
    }

    fn frozen(&self, flat: &Tensor) -> Result<Self> {
        let weights = with_elements::<E, _>(flat, |weights| Ok(weights.to_vec()))?;
        let packed = self.operator.pack(weights).map_err(wrap)?;
        Ok(Inner { operator: Arc::clone(&self.operator), packed: Some(Arc::new(packed)) })
    }
}

impl ModuleT for Recurrent {
    /// Outputs for `x`, in training with the layer's dropout.
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        Ok(self.call(x, &Call::default().train(train), false)?.0)
    }
}

macro_rules! layers {
    ($($name:ident $cell:ident $what:literal),*) => {
        $(
            #[doc = concat!("PyTorch's ", $what, ", in candle.")]
            #[derive(Clone, Debug)]
            pub struct $name(pub(crate) Recurrent);

            impl $name {
                /// A layer with PyTorch's names of variables, which begin as in PyTorch where `vb` makes them anew: evenly
                /// distributed in `±1 / sqrt(hidden_size)`.
                ///
                /// # Errors
                ///
                /// As [`Recurrent::from_descriptor`].
                pub fn new(input_size: usize, hidden_size: usize, options: &Options, vb: VarBuilder) -> Result<Self> {
                    let descriptor = options.descriptor(CellKind::$cell, input_size, hidden_size).map_err(wrap)?;
                    let mut layer = Recurrent::from_descriptor(descriptor, vb)?;
                    layer.seeds = Arc::new(Seeds {
                        first: layer.seeds.first.wrapping_add(options.seed),
                        calls: AtomicU64::new(0),
                    });
                    Ok($name(layer))
                }

                /// The layer with the weights as they are now, packed once: see [`Recurrent::frozen`].
                ///
                /// # Errors
                ///
                /// As [`Recurrent::frozen`].
                pub fn frozen(&self) -> Result<Self> {
                    Ok($name(self.0.frozen()?))
                }

                /// Outputs for `x`, without dropout: see [`Recurrent::forward`].
                ///
                /// # Errors
                ///
                /// As [`Recurrent::run`].
                pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
                    self.0.forward(x)
                }

                /// Outputs and final states: see [`Recurrent::run`].
                ///
                /// # Errors
                ///
                /// As [`Recurrent::run`].
                pub fn run(&self, x: &Tensor, call: &Call) -> Result<Output> {
                    self.0.run(x, call)
                }

                /// What the layer computes.
                pub fn descriptor(&self) -> &RnnDescriptor {
                    self.0.descriptor()
                }
            }

            impl ModuleT for $name {
                /// Outputs for `x`, in training with the layer's dropout.
                fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
                    self.0.forward_t(x, train)
                }
            }
        )*
    };
}

layers!(Rnn Rnn "RNN", Lstm Lstm "LSTM", Gru Gru "GRU");
