//! The weights of the forward pass as it multiplies with them: packed in every call, or once for many, in [`PackedWeights`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::gemm::Panels;
use super::gemm::gemv::Operand;
use super::geometry::{OperandSpace, Parts, Sizes, padded};
use super::products::Room;
use super::recurrent::RecurrentWeights;
use super::unit_groups::UnitGroups;
use super::{Call, CpuPlan};
use crate::backend::ForwardMode;
use crate::backend::cpu::{CpuBackend, CpuElement};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory;
use crate::rnn::{CandidateTerm, Dropout, LayerWeights};
use crate::simd::Isa;

/// How a step is computed.
#[derive(Clone, Copy)]
pub(super) enum Step<'a, E> {
    /// The products of all units, then their cells.
    ByProducts { recurrent: RecurrentWeights<'a, E>, candidate: Option<RecurrentWeights<'a, E>> },
    /// Some units after others.
    ByUnits(UnitGroups<'a, E>),
}

/// The weights of a layer and direction.
#[derive(Clone, Copy)]
pub(super) struct Operands<'o, E> {
    pub(super) step: Step<'o, E>,
    /// Those of the product with the inputs of all steps, where they are packed.
    pub(super) panels: Option<Panels<'o, E>>,
    pub(super) projection: Option<Operand<'o, E>>,
    pub(super) bias: &'o [E],
    pub(super) candidate_bias: &'o [E],
}

/// Where the operands of a layer and direction are, or will be.
pub(super) struct Rooms<'o, E> {
    input_weights: Room<'o, E>,
    recurrent_weights: Room<'o, E>,
    candidate_weights: Room<'o, E>,
    projection: Room<'o, E>,
    bias: Room<'o, E>,
    unit_bias: Room<'o, E>,
}

impl<'o, E: CpuElement> Rooms<'o, E> {
    /// In a buffer of [`OperandSpace::total`] elements.
    pub(super) fn empty(buffer: &'o mut [E], space: &OperandSpace) -> Self {
        let mut parts = Parts::of(buffer);
        let [input_weights, recurrent_weights, candidate_weights, projection, bias, unit_bias] =
            space.lens().map(|len| Room::Empty(parts.next(len)));
        Rooms { input_weights, recurrent_weights, candidate_weights, projection, bias, unit_bias }
    }

    /// In a buffer that was filled before.
    pub(super) fn filled(mut buffer: &'o [E], space: &OperandSpace) -> Self {
        let [input_weights, recurrent_weights, candidate_weights, projection, bias, unit_bias] =
            space.lens().map(|len| {
                let (part, rest) = buffer.split_at(padded(len));
                buffer = rest;
                Room::Filled(part)
            });
        Rooms { input_weights, recurrent_weights, candidate_weights, projection, bias, unit_bias }
    }
}

impl<E: CpuElement> Call<'_, E> {
    /// Whether the product of a layer's inputs with their weights is one of numbers with a vector each, which reads the weights where they
    /// lie: there is one feature, and too little to compute for threads to share.
    pub(super) fn takes_one_feature(&self, layer: usize) -> bool {
        let g = &self.geometry;
        let is_whole = !g.of_gates && !g.on_tiles && !self.plan.descriptor.coupled_input_forget;
        is_whole && g.layer_input(layer) == 1 && self.sizes.workers == 1
    }

    /// The number of step `t` among those that read the weights one after another: from the first to the last, then back.
    pub(super) fn turn(&self, t: usize) -> usize {
        t.wrapping_add(self.packed.map_or(0, |packed| packed.turn))
    }

    /// Packs the weights of a layer and direction, unless the rooms hold them.
    pub(super) fn pack_layer<'o>(
        &self,
        layer: usize,
        weights: &LayerWeights<&'o [E]>,
        rooms: Rooms<'o, E>,
    ) -> Operands<'o, E> {
        let g = &self.geometry;
        let width = g.layer_input(layer);
        let biases = rooms.bias.fill(g.gate_rows + g.hidden, |out| self.add_biases(weights, out));
        let (unit_inputs, panels) = match self.sizes.groups {
            Some(units) if units.take_inputs => {
                (Some(self.pack_unit_inputs(units.sizes, weights, width, rooms.input_weights)), None)
            }
            _ if g.of_gates || self.takes_one_feature(layer) => (None, None),
            _ => {
                let column = |column| self.used_row(weights.input_hidden, g.input_row(column), width);
                let panels = self.pack_columns(width, g.gate_rows, rooms.input_weights, column);
                (None, Some(panels.at_step(self.turn(0))))
            }
        };
        let step = match self.sizes.groups {
            Some(units) => {
                let bias = (biases, rooms.unit_bias);
                Step::ByUnits(self.pack_units(units.sizes, weights, unit_inputs, rooms.recurrent_weights, bias))
            }
            None => Step::ByProducts {
                recurrent: self.pack_state(weights.hidden_hidden, g.recurrent(), rooms.recurrent_weights),
                candidate: g
                    .candidate()
                    .map(|part| self.pack_state(weights.hidden_hidden, part, rooms.candidate_weights)),
            },
        };
        let projection = g.projected.then(|| {
            let column = |column: usize| Some(&weights.projection[column * g.hidden..][..g.hidden]);
            Operand::Packed(self.pack_columns(g.hidden, g.output, rooms.projection, column))
        });
        let (bias, candidate_bias) = biases.split_at(g.gate_rows);
        Operands { step, panels, projection, bias, candidate_bias }
    }

    /// `bias_ih + bias_hh` in the order of the gates' columns, then the `bias_hh` of a candidate that is reset after its
    /// product, `[H]`.
    fn add_biases(&self, weights: &LayerWeights<&[E]>, out: &mut [E]) {
        let g = &self.geometry;
        let (sums, candidate) = out.split_at_mut(g.gate_rows);
        let separate = g.candidate == CandidateTerm::Apart;
        let of = |bias: &[E], row: usize| bias.get(row).copied().unwrap_or(E::zero());
        for (column, sum) in sums.iter_mut().enumerate() {
            let row = g.input_row(column);
            *sum = of(weights.input_bias, row);
            if !(separate && column < g.hidden) {
                *sum += of(weights.hidden_bias, row);
            }
            if self.is_unused_row(row) {
                *sum = E::zero();
            }
        }
        for (unit, value) in candidate.iter_mut().enumerate() {
            *value = if separate { of(weights.hidden_bias, g.gate_rows - g.hidden + unit) } else { E::zero() };
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Weights that were packed once, with a copy of them as they were given: single weights of a unit and peepholes are read there.
#[derive(Clone)]
pub(super) struct PackedWeights {
    /// Numbers of `dtype`: the weights, then from a cache line on the operands of each layer and direction.
    storage: Arc<Vec<f64>>,
    weights: usize,
    directions: usize,
    dtype: DType,
    isa: Isa,
    threads: usize,
    /// Calls of this plan and its clones: see [`Packed::turn`].
    calls: Arc<AtomicUsize>,
}

impl fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedWeights({} {})", self.weights, self.dtype)
    }
}

/// The same in a call.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a, E> {
    pub(super) weights: &'a [E],
    operands: &'a [E],
    directions: usize,
    /// Which of many calls this is: every other one reads the weights from the end, where the one before left them in the cache.
    pub(super) turn: usize,
}

impl<'a, E: CpuElement> Packed<'a, E> {
    /// The weights of a call, which may give none.
    pub(super) fn instead_of(&self, given: &[E]) -> Result<&'a [E]> {
        if given.is_empty() {
            return Ok(self.weights);
        }
        Err(Error::option(
            "weights",
            "none, since the plan has its weights",
            format!("{} elements; give an empty slice, or the plan that with_weights was called with", given.len()),
        ))
    }

    /// The operands of a layer and direction.
    pub(super) fn rooms(&self, place: (usize, usize), sizes: &Sizes) -> Rooms<'a, E> {
        Rooms::filled(&self.operands[place_of(place, self.directions, sizes)..], sizes.operands(place.0))
    }
}

/// Where the operands of a layer and direction begin: those of layers stand one after another, and in a layer those of its directions.
fn place_of((layer, direction): (usize, usize), directions: usize, sizes: &Sizes) -> usize {
    // All layers above the first are alike.
    let below = match layer {
        0 => 0,
        _ => (sizes.operands(0).total() + (layer - 1) * sizes.operands(1).total()) * directions,
    };
    match direction {
        0 => below,
        _ => below + direction * sizes.operands(layer).total(),
    }
}

impl PackedWeights {
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.storage[..])
    }

    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a backend of another element type, with other vectors or another number of threads.
    pub(super) fn of<E: CpuElement>(&self, backend: &CpuBackend<E>) -> Result<Packed<'_, E>> {
        if (self.dtype, self.isa, self.threads) != (E::DTYPE, backend.isa, backend.threads()) {
            let of = |dtype: DType, isa: Isa, threads: usize| format!("{dtype}, {}, {threads} threads", isa.name());
            return Err(Error::option(
                "plan",
                format!("weights packed for this backend ({})", of(E::DTYPE, backend.isa, backend.threads())),
                of(self.dtype, self.isa, self.threads),
            ));
        }
        let storage: &[E] = bytemuck::cast_slice(&self.storage);
        let (weights, operands) = storage[storage.as_ptr().align_offset(LINE)..].split_at(padded(self.weights));
        // Calls at once may count as one: a number is as good as another.
        let turn = self.calls.load(Ordering::Relaxed);
        self.calls.store(turn.wrapping_add(1), Ordering::Relaxed);
        Ok(Packed { weights: &weights[..self.weights], operands, directions: self.directions, turn })
    }
}

impl<E: CpuElement> CpuBackend<E> {
    /// A plan for calls with these weights, which it packs once: [`forward`](crate::backend::RecurrentBackend::forward) takes none then, but an empty slice. Packing is most of
    /// what a call of few steps costs. Results are the same bits.
    ///
    /// ```
    /// use fused_rnn::backend::cpu::CpuBackend;
    /// use fused_rnn::backend::{ForwardArgs, ForwardMode, RecurrentBackend};
    /// use fused_rnn::cell::CellKind;
    /// use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};
    ///
    /// let backend = CpuBackend::<f32>::new();
    /// let lstm = RnnDescriptor::new(CellKind::Lstm, 4, 8);
    /// let weights = vec![0.1; WeightLayout::new(&lstm)?.len()];
    /// let plan = backend.plan(&lstm, RnnShape { seq_len: 1, batch: 1 }, ForwardMode::Inference)?;
    /// let plan = backend.with_weights(&plan, &weights)?;
    ///
    /// let mut workspace = vec![0.0; backend.temp_space(&plan).workspace];
    /// let (mut h, mut c, mut y) = ([0.0; 8], [0.0; 8], [0.0; 8]);
    /// for step in 0..3 {
    ///     let (h0, c0) = (h, c);
    ///     let x = [step as f32; 4];
    ///     let args = ForwardArgs::new(&[][..], &x[..], &mut y[..], &mut workspace[..]);
    ///     backend.forward(&plan, args.h0(&h0[..]).c0(&c0[..]).hn(&mut h[..]).cn(&mut c[..]))?;
    /// }
    /// # Ok::<(), fused_rnn::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a plan for training, whose weights change; an error of the weights' length as in a call; [`Error::Unsupported`] where memory
    /// or threads are short.
    pub fn with_weights(&self, plan: &CpuPlan, weights: &[E]) -> Result<CpuPlan> {
        if plan.mode != ForwardMode::Inference {
            return Err(Error::option("mode", "a plan for Inference in with_weights", format!("{:?}", plan.mode)));
        }
        plan.weights.check("weights", weights.len())?;
        let sizes = &*self.sizes(plan);
        let (layers, directions) = (plan.descriptor.num_layers, plan.descriptor.num_directions());
        let first = padded(weights.len());
        let len = first + place_of((layers, 0), directions, sizes);
        // Operands begin at a cache line, wherever the buffer does.
        let words = (len * size_of::<E>() + LINE).div_ceil(size_of::<f64>());
        let mut storage: Vec<f64> = memory::filled("packed weights", words, 0.0)?;
        let buffer: &mut [E] = bytemuck::cast_slice_mut(&mut storage);
        let skip = buffer.as_ptr().align_offset(LINE);
        let (copy, operands) = buffer[skip..].split_at_mut(first);
        copy[..weights.len()].copy_from_slice(weights);
        self.threads.start(sizes.workers)?;
        let call = self.call(plan, sizes, (None, None), None, None, Dropout::NONE);
        for (layer, direction) in (0..layers).flat_map(|layer| (0..directions).map(move |direction| (layer, direction)))
        {
            let view = plan.weights.view(weights, layer, direction);
            let operands = &mut operands[place_of((layer, direction), directions, sizes)..];
            call.pack_layer(layer, &view, Rooms::empty(operands, sizes.operands(layer)));
        }
        let mut packed = plan.clone();
        packed.sizes = sizes.without_operands();
        packed.packed = Some(PackedWeights {
            storage: Arc::new(storage),
            weights: weights.len(),
            directions,
            dtype: E::DTYPE,
            isa: self.isa,
            threads: self.threads(),
            calls: Arc::default(),
        });
        Ok(packed)
    }
}
