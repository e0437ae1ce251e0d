//! Layout of the workspace and the reserve.
//!
//! Both are arrays of bytes to the kernels; every tensor in them begins at a multiple of [`ALIGNMENT`](super::super::device::arena::ALIGNMENT). `A` is the
//! accumulators' type (f32; f64 for f64), `E` the elements'.
//!
//! | tensor | shape | training | inference |
//! |---|---|---|---|
//! | `wx` | A `[T, B, G*H]` | where `gates` are packed workspace, of one layer; else in their place | workspace, of one layer |
//! | `gates`, each layer and direction | A `[T, B, G*H]`; packed (`kernels/saved.cuh`) 8 bytes `[T, B, H]` | reserve | – |
//! | `cell_state` (cells with S states beside h) | A `[T, B, S*H]`; inference `[B, S*H]` | reserve | workspace |
//! | `h_prev` | E `[slots, rows, stride]` | reserve, `T` slots | workspace |
//! | `q` (GRU, reset after) | A `[T, B, H]`; packed with `gates` | reserve | – |
//! | `reset_h` (a second product's vector: GRU, reset before), `u` (projection) | E `[T, B, H]`; inference `[B, H]` | reserve | workspace |
//! | `hidden`, outputs of all layers but the last | E `[T, B, D*P]` | reserve | workspace, two in turn |
//! | `dgates` | E `[T, B, slots*H]` | reserve | – |
//! | `dh_step` (projection) | E `[T, B, P]` | reserve | – |
//! | a step's products, dropout's copy of an input, gradients between layers, partial sums | see [`Workspace`] | workspace | workspace |

use super::super::device::DevicePtr;
use super::super::device::arena::{Arena, Place};
use super::super::kernel::gemm::Room;
use super::super::kernel::params::SavedGates;
use super::cell::gradient_slots;
use crate::backend::ForwardMode;
use crate::dtype::DType;
use crate::error::Result;
use crate::rnn::{CandidateTerm, RnnDescriptor, RnnShape};

/// Bytes of a unit's packed gates.
const PACKED_BYTES: usize = 8;

/// How `h_prev` is laid out, which the kernel of the time loop decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HPrevLayout {
    pub(crate) slots: usize,
    pub(crate) rows: usize,
    pub(crate) stride: usize,
}

/// Sizes that places follow from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes<'a> {
    pub(crate) descriptor: &'a RnnDescriptor,
    pub(crate) shape: RnnShape,
    pub(crate) mode: ForwardMode,
    pub(crate) dtype: DType,
    pub(crate) h_prev: HPrevLayout,
    /// Whether backward exchanges gates' gradients through memory (a persistent kernel of the grid family).
    pub(crate) exchange: bool,
}

impl Sizes<'_> {
    /// Bytes of an element.
    pub(crate) fn element(&self) -> usize {
        self.dtype.size()
    }

    /// Bytes of an accumulator.
    pub(crate) fn accumulator(&self) -> usize {
        self.dtype.size().max(4)
    }

    /// Whether training keeps gates, and q, packed: apart from W x then.
    fn packed(&self) -> bool {
        self.mode == ForwardMode::Training && SavedGates::of_training(self.descriptor, self.dtype) == SavedGates::Packed
    }

    /// Features of a layer's output, both directions.
    fn features(&self) -> usize {
        self.descriptor.num_directions() * self.descriptor.output_size()
    }
}

/// What one direction of a layer keeps, in the reserve (training) or the workspace (inference).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DirectionSpace {
    /// Nowhere where it is in the workspace of forward.
    pub(crate) wx: Place,
    pub(crate) gates: Place,
    pub(crate) cell_state: Place,
    pub(crate) h_prev: Place,
    pub(crate) q: Place,
    pub(crate) reset_h: Place,
    pub(crate) u: Place,
    pub(crate) dgates: Place,
    pub(crate) dh_step: Place,
}

/// What one layer keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LayerSpace {
    pub(crate) direction: [DirectionSpace; 2],
    /// Its output, `[T, B, D*P]`; nowhere for the last layer, whose output is `y`.
    pub(crate) hidden: Place,
}

impl DirectionSpace {
    fn new(arena: &mut Arena, sizes: &Sizes<'_>) -> Result<Self> {
        let (descriptor, element, accumulator) = (sizes.descriptor, sizes.element(), sizes.accumulator());
        let (t, b, h) = (sizes.shape.seq_len, sizes.shape.batch, descriptor.hidden_size);
        let gates = descriptor.cell.gates();
        let training = sizes.mode == ForwardMode::Training;
        // Training keeps every step, inference the last.
        let kept = if training { t } else { 1 };
        let second = descriptor.candidate() == CandidateTerm::Second;
        let apart = descriptor.candidate() == CandidateTerm::Apart;
        let others = descriptor.cell.other_states();
        let projection = descriptor.proj_size.is_some();
        let mut take_if = |wanted: bool, name: &str, shape: &[usize], size: usize| {
            if wanted { arena.take(name, shape, size) } else { Ok(Place::default()) }
        };
        let layout = sizes.h_prev;
        let packed = sizes.packed();
        let wx = take_if(!packed, "gates", &[t, b, gates, h], accumulator)?;
        Ok(DirectionSpace {
            wx,
            gates: if packed { take_if(true, "gates", &[t, b, h], PACKED_BYTES)? } else { wx },
            cell_state: take_if(others > 0, "cell_state", &[kept, b, others, h], accumulator)?,
            h_prev: take_if(true, "h_prev", &[layout.slots, layout.rows, layout.stride], element)?,
            q: take_if(apart && training && !packed, "q", &[t, b, h], accumulator)?,
            reset_h: take_if(second, "reset_h", &[kept, b, h], element)?,
            u: take_if(projection, "u", &[kept, b, h], element)?,
            dgates: take_if(training, "dgates", &[t, b, gradient_slots(descriptor.cell), h], element)?,
            dh_step: take_if(training && projection, "dh_step", &[t, b, descriptor.output_size()], element)?,
        })
    }
}

/// Places of everything that layers keep: in the reserve for training, in the workspace for inference, where layers take turns.
pub(crate) fn layers(arena: &mut Arena, sizes: &Sizes<'_>) -> Result<Vec<LayerSpace>> {
    let descriptor = sizes.descriptor;
    let hidden_shape = [sizes.shape.seq_len, sizes.shape.batch, sizes.features()];
    let layer = |arena: &mut Arena| -> Result<LayerSpace> {
        let mut space = LayerSpace::default();
        for direction in &mut space.direction[..descriptor.num_directions()] {
            *direction = DirectionSpace::new(arena, sizes)?;
        }
        Ok(space)
    };
    let last = descriptor.num_layers - 1;
    if sizes.mode == ForwardMode::Training {
        return (0..=last)
            .map(|index| {
                let mut space = layer(arena)?;
                if index < last {
                    space.hidden = arena.take("hidden", &hidden_shape, sizes.element())?;
                }
                Ok(space)
            })
            .collect();
    }
    let shared = layer(arena)?;
    let mut hidden = [Place::default(); 2];
    for place in hidden.iter_mut().take(last.min(2)) {
        *place = arena.take("hidden", &hidden_shape, sizes.element())?;
    }
    Ok((0..=last)
        .map(|index| LayerSpace { hidden: if index < last { hidden[index % 2] } else { Place::default() }, ..shared })
        .collect())
}

/// Scratch of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DirectionScratch {
    /// Forward, where training keeps packed gates: A `[T, B, G*H]`, of the layer at work.
    pub(crate) wx: Place,
    /// Forward: A `[B, G*H]`.
    pub(crate) recurrent: Place,
    /// Forward with projection: A `[B, P]`.
    pub(crate) projected: Place,
    /// Backward: A `[B, P]`, `[B, S*H]`.
    pub(crate) dh: Place,
    pub(crate) dc: Place,
    pub(crate) dh_reset: Place,
    pub(crate) dc_reset: Place,
    /// Backward with projection: A `[B, H]`.
    pub(crate) du: Place,
    /// Backward of a candidate with a second product: A `[B, H]`.
    pub(crate) dq: Place,
    /// Backward in the grid family: E `[T, B, G * stride]`.
    pub(crate) exchange: Place,
}

/// Scratch of a call. Forward, backward-data and backward-weights each lay theirs out from the workspace's beginning; forward in
/// inference, after what layers keep.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) direction: [DirectionScratch; 2],
    /// A layer's input after dropout, E `[T, B, D*P]`.
    pub(crate) dropped: Place,
    /// Backward-data: gradients of two layers' outputs in turn, E `[T, B, D*P]`.
    pub(crate) dhidden: [Place; 2],
    /// Partial sums of products, A, or what a library needs for them, and how many numbers.
    pub(crate) partial: Place,
    pub(crate) partials: usize,
    /// Bytes of each direction's `exchange`.
    pub(crate) exchange_bytes: usize,
}

impl Workspace {
    /// Where products may leave partial sums, or a library what it needs.
    pub(crate) fn room(&self, workspace: DevicePtr) -> Room {
        Room { address: self.partial.of(workspace), len: self.partials }
    }

    /// The same with room for `partials` partial sums.
    fn with_partials(self, arena: &mut Arena, sizes: &Sizes<'_>, partials: usize) -> Result<Self> {
        if partials == 0 {
            return Ok(self);
        }
        Ok(Workspace { partial: arena.take("partial", &[partials], sizes.accumulator())?, partials, ..self })
    }

    fn dropped(arena: &mut Arena, sizes: &Sizes<'_>) -> Result<Place> {
        if sizes.mode == ForwardMode::Training && sizes.descriptor.num_layers > 1 && sizes.descriptor.dropout > 0.0 {
            arena.take("dropped", &[sizes.shape.seq_len, sizes.shape.batch, sizes.features()], sizes.element())
        } else {
            Ok(Place::default())
        }
    }

    /// Of forward, with room for `partials` partial sums.
    pub(crate) fn forward(arena: &mut Arena, sizes: &Sizes<'_>, partials: usize) -> Result<Self> {
        let (descriptor, accumulator, b) = (sizes.descriptor, sizes.accumulator(), sizes.shape.batch);
        let mut space = Workspace { dropped: Self::dropped(arena, sizes)?, ..Workspace::default() };
        for scratch in &mut space.direction[..descriptor.num_directions()] {
            let rows = [b, descriptor.cell.gates(), descriptor.hidden_size];
            if sizes.packed() {
                let all = [sizes.shape.seq_len, b, descriptor.cell.gates(), descriptor.hidden_size];
                scratch.wx = arena.take("wx", &all, accumulator)?;
            }
            scratch.recurrent = arena.take("recurrent", &rows, accumulator)?;
            if descriptor.proj_size.is_some() {
                scratch.projected = arena.take("projected", &[b, descriptor.output_size()], accumulator)?;
            }
        }
        space.with_partials(arena, sizes, partials)
    }

    /// Of backward-data, with room for `partials` partial sums.
    pub(crate) fn backward_data(arena: &mut Arena, sizes: &Sizes<'_>, partials: usize) -> Result<Self> {
        let (descriptor, accumulator, b) = (sizes.descriptor, sizes.accumulator(), sizes.shape.batch);
        let (outputs, units) = ([b, descriptor.output_size()], [b, descriptor.hidden_size]);
        let mut space = Workspace::default();
        for scratch in &mut space.direction[..descriptor.num_directions()] {
            scratch.dh = arena.take("dh", &outputs, accumulator)?;
            scratch.dh_reset = arena.take("dh_reset", &outputs, accumulator)?;
            if descriptor.cell.has_cell_state() {
                let states = [b, descriptor.cell.other_states(), descriptor.hidden_size];
                scratch.dc = arena.take("dc", &states, accumulator)?;
                scratch.dc_reset = arena.take("dc_reset", &states, accumulator)?;
            }
            if descriptor.proj_size.is_some() {
                scratch.du = arena.take("du", &units, accumulator)?;
            }
            if descriptor.candidate() == CandidateTerm::Second {
                scratch.dq = arena.take("dq", &units, accumulator)?;
            }
            if sizes.exchange {
                let shape = [sizes.shape.seq_len, b, descriptor.cell.gates(), sizes.h_prev.stride];
                scratch.exchange = arena.take("exchange", &shape, sizes.element())?;
                space.exchange_bytes = shape.iter().product::<usize>() * sizes.element();
            }
        }
        for place in space.dhidden.iter_mut().take((descriptor.num_layers - 1).min(2)) {
            *place =
                arena.take("dhidden", &[sizes.shape.seq_len, sizes.shape.batch, sizes.features()], sizes.element())?;
        }
        space.with_partials(arena, sizes, partials)
    }

    /// Of backward-weights, with room for `partials` partial sums.
    pub(crate) fn backward_weights(arena: &mut Arena, sizes: &Sizes<'_>, partials: usize) -> Result<Self> {
        let space = Workspace { dropped: Self::dropped(arena, sizes)?, ..Workspace::default() };
        space.with_partials(arena, sizes, partials)
    }
}
