//! The weights of an operator: one flat buffer, and [`WeightLayout`] which says what stands where.
//!
//! Names, shapes, gate order and sequence are PyTorch's (`torch.nn.LSTM._flat_weights`): for each layer, for each
//! direction, `weight_ih`, `weight_hh`, the biases, then `weight_hr` where there is a projection and, ours, `weight_peephole`.
//! `weight_ih` and `weight_hh` hold a gate's rows as one block, the gates in the order of [`CellSpec::gates`](crate::cell::CellSpec).

use std::ops::Range;

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::rnn::shape::{check_len, checked_len};
use crate::rnn::{Bias, InputKind, RnnDescriptor};

/// What a weight tensor is. `G` gates, `K` the layer's input size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightKind {
    /// `weight_ih`, `[G * H, K]`: `W`, applied to the input; absent where the input is gates.
    InputHidden,
    /// `weight_hh`, `[G * H, P]`: `R`, applied to the previous output; with several heads `[G, heads, H / heads, H / heads]`.
    HiddenHidden,
    /// `bias_ih`, `[G * H]`.
    InputBias,
    /// `bias_hh`, `[G * H]`.
    HiddenBias,
    /// `weight_hr`, `[P, H]`: the projection.
    Projection,
    /// `weight_peephole`, `[3 * H]`: gates i, f, o.
    Peephole,
}

impl WeightKind {
    /// PyTorch's name without layer and direction.
    pub fn stem(self) -> &'static str {
        match self {
            WeightKind::InputHidden => "weight_ih",
            WeightKind::HiddenHidden => "weight_hh",
            WeightKind::InputBias => "bias_ih",
            WeightKind::HiddenBias => "bias_hh",
            WeightKind::Projection => "weight_hr",
            WeightKind::Peephole => "weight_peephole",
        }
    }
}

/// One weight tensor within the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightEntry {
    /// PyTorch's name: `weight_ih_l0`, `bias_hh_l1_reverse`, …
    pub name: String,
    /// What it is.
    pub kind: WeightKind,
    /// Layer, from 0.
    pub layer: usize,
    /// Direction number within the layer, from 0.
    pub direction: usize,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Elements of the flat buffer that it takes.
    pub range: Range<usize>,
}

/// Where each weight stands in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightLayout {
    entries: Vec<WeightEntry>,
    num_directions: usize,
    /// Tensors of a layer and direction, of which each has the same ones.
    per_direction: usize,
}

impl WeightLayout {
    /// The layout of an operator's weights.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for a size of zero; [`Error::InvalidOption`] for an option out of range or one that the cell has not;
    /// [`Error::SizeOverflow`] where the number of weights overflows.
    pub fn new(descriptor: &RnnDescriptor) -> Result<Self> {
        descriptor.validate()?;
        let gates = ("gates", descriptor.cell.gates());
        let hidden = ("hidden_size", descriptor.hidden_size);
        let output = ("output_size", descriptor.output_size());
        let head = ("head_size", descriptor.head_size());
        // Bound the table itself before building it: a hostile num_layers must not exhaust memory.
        checked_len(
            "weights",
            &[("num_layers", descriptor.num_layers), gates, hidden, ("row", hidden.1.saturating_add(4))],
        )?;
        if descriptor.num_layers > 1 << 16 {
            return Err(Error::option("num_layers", "at most 65536", descriptor.num_layers));
        }
        let mut entries = Vec::new();
        let mut offset = 0usize;
        for layer in 0..descriptor.num_layers {
            let input = ("layer input", descriptor.layer_input_size(layer));
            for direction in 0..descriptor.num_directions() {
                let suffix = if descriptor.direction.is_reverse(direction) { "_reverse" } else { "" };
                let mut push = |kind: WeightKind, sizes: &[(&'static str, usize)], shape: Vec<usize>| -> Result<()> {
                    let name = format!("{}_l{layer}{suffix}", kind.stem());
                    let len = checked_len(&name, sizes)?;
                    let end = checked_len("weights", &[("elements", offset.saturating_add(len))])?;
                    entries.push(WeightEntry { name, kind, layer, direction, shape, range: offset..end });
                    offset = end;
                    Ok(())
                };
                let rows = || checked_len("weights", &[gates, hidden]);
                if descriptor.input == InputKind::Features {
                    push(WeightKind::InputHidden, &[gates, hidden, input], vec![rows()?, input.1])?;
                }
                let recurrent = match descriptor.heads {
                    1 => vec![rows()?, output.1],
                    heads => vec![gates.1, heads, head.1, head.1],
                };
                push(WeightKind::HiddenHidden, &[gates, hidden, head], recurrent)?;
                if descriptor.bias != Bias::None {
                    push(WeightKind::InputBias, &[gates, hidden], vec![rows()?])?;
                }
                if descriptor.bias == Bias::Double {
                    push(WeightKind::HiddenBias, &[gates, hidden], vec![rows()?])?;
                }
                if descriptor.proj_size.is_some() {
                    push(WeightKind::Projection, &[output, hidden], vec![output.1, hidden.1])?;
                }
                if descriptor.peepholes {
                    let count = ("peepholes", descriptor.cell.spec().peepholes.len());
                    push(WeightKind::Peephole, &[count, hidden], vec![count.1 * hidden.1])?;
                }
            }
        }
        let num_directions = descriptor.num_directions();
        let per_direction = entries.len() / descriptor.num_layers / num_directions;
        Ok(WeightLayout { entries, num_directions, per_direction })
    }

    /// All tensors in the order in which they stand.
    pub fn entries(&self) -> &[WeightEntry] {
        &self.entries
    }

    /// Elements of the flat buffer.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |e| e.range.end)
    }

    /// Whether there are no weights; never the case for a valid descriptor.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tensor with PyTorch's `name`.
    pub fn find(&self, name: &str) -> Option<&WeightEntry> {
        self.entries.iter().find(|e| e.name == name)
    }

    /// The tensors of a flat buffer, where they stand, each with its entry.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the buffer is not [`len`](Self::len) elements long.
    pub fn tensors<'a, E>(&'a self, flat: &'a [E]) -> Result<impl Iterator<Item = (&'a WeightEntry, &'a [E])>> {
        self.check("weights", flat.len())?;
        Ok(self.entries.iter().map(|entry| (entry, flat.get(entry.range.clone()).unwrap_or_default())))
    }

    /// Copies tensors that stand apart, as a framework keeps them, into the flat buffer; they are given in the order of
    /// [`entries`](Self::entries).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for another number of tensors, a tensor (by its name) or a buffer of another length.
    pub fn join<E: Copy>(&self, tensors: &[&[E]], flat: &mut [E]) -> Result<()> {
        self.check("weights", flat.len())?;
        self.check_tensors(tensors.iter().map(|tensor| tensor.len()))?;
        for (entry, tensor) in self.entries.iter().zip(tensors) {
            let to = flat.iter_mut().skip(entry.range.start);
            to.zip(*tensor).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    /// Copies the parts of a flat buffer, such as the gradients of weights, to tensors that stand apart, given in the order of
    /// [`entries`](Self::entries).
    ///
    /// # Errors
    ///
    /// As for [`join`](Self::join).
    pub fn split<E: Copy>(&self, flat: &[E], tensors: &mut [&mut [E]]) -> Result<()> {
        self.check("weights", flat.len())?;
        self.check_tensors(tensors.iter().map(|tensor| tensor.len()))?;
        for (entry, tensor) in self.entries.iter().zip(tensors) {
            tensor.iter_mut().zip(flat.iter().skip(entry.range.start)).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    /// Checks the lengths of tensors that stand apart.
    fn check_tensors(&self, lens: impl ExactSizeIterator<Item = usize>) -> Result<()> {
        if lens.len() != self.entries.len() {
            let names: Vec<_> = self.entries.iter().map(|entry| entry.name.as_str()).collect();
            let expected = format!("{} tensors ({})", names.len(), names.join(", "));
            return Err(Error::shape("weights", expected, format!("{} tensors", lens.len())));
        }
        self.entries.iter().zip(lens).try_for_each(|(entry, len)| check_len(&entry.name, &entry.shape, len))
    }

    /// Checks a flat buffer's length.
    pub(crate) fn check(&self, tensor: &str, got: usize) -> Result<()> {
        check_len(tensor, &[self.len()], got)
    }

    fn of_layer(&self, layer: usize, direction: usize) -> &[WeightEntry] {
        let start = (layer * self.num_directions + direction) * self.per_direction;
        self.entries.get(start..start + self.per_direction).unwrap_or_default()
    }

    /// Where the weights of one layer and direction begin in the flat buffer; none for a tensor that the operator has not.
    #[cfg(feature = "cuda")]
    pub(crate) fn offsets(&self, layer: usize, direction: usize) -> LayerWeights<Option<usize>> {
        let mut offsets = LayerWeights::default();
        for entry in self.of_layer(layer, direction) {
            *offsets.slot(entry.kind) = Some(entry.range.start);
        }
        offsets
    }

    /// The weights of one layer and direction, as views into a flat buffer of [`len`](Self::len) elements.
    pub(crate) fn view<'a, E: Scalar>(&self, flat: &'a [E], layer: usize, direction: usize) -> LayerWeights<&'a [E]> {
        let mut view = LayerWeights::default();
        for entry in self.of_layer(layer, direction) {
            *view.slot(entry.kind) = flat.get(entry.range.clone()).unwrap_or_default();
        }
        view
    }

    /// The same views, mutable.
    pub(crate) fn view_mut<'a, E: Scalar>(
        &self,
        flat: &'a mut [E],
        layer: usize,
        direction: usize,
    ) -> LayerWeights<&'a mut [E]> {
        let entries = self.of_layer(layer, direction);
        let mut view = LayerWeights::default();
        let (mut rest, mut offset) = (flat, 0);
        for entry in entries {
            let (_, tail) = std::mem::take(&mut rest).split_at_mut(entry.range.start - offset);
            let (tensor, tail) = tail.split_at_mut(entry.range.len());
            *view.slot(entry.kind) = tensor;
            (rest, offset) = (tail, entry.range.end);
        }
        view
    }
}

/// Views of the weights of one layer and direction; a tensor that the operator has not is empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LayerWeights<V> {
    /// `weight_ih`, `[G * H, K]`, or empty.
    pub(crate) input_hidden: V,
    /// `weight_hh`, `[G * H, head_size]`: a row for every unit of every gate.
    pub(crate) hidden_hidden: V,
    /// `bias_ih`, `[G * H]`, or empty.
    pub(crate) input_bias: V,
    /// `bias_hh`, `[G * H]`, or empty.
    pub(crate) hidden_bias: V,
    /// `weight_hr`, `[P, H]`, or empty.
    pub(crate) projection: V,
    /// `weight_peephole`, `[3 * H]`, or empty.
    pub(crate) peephole: V,
}

impl<V> LayerWeights<V> {
    fn slot(&mut self, kind: WeightKind) -> &mut V {
        match kind {
            WeightKind::InputHidden => &mut self.input_hidden,
            WeightKind::HiddenHidden => &mut self.hidden_hidden,
            WeightKind::InputBias => &mut self.input_bias,
            WeightKind::HiddenBias => &mut self.hidden_bias,
            WeightKind::Projection => &mut self.projection,
            WeightKind::Peephole => &mut self.peephole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rnn::Direction;

    /// Tensors that stand apart become the flat buffer and come back from it; what does not fit is named.
    #[test]
    fn tensors_are_joined_and_split() {
        let descriptor = RnnDescriptor::gru(3, 4).num_layers(2).direction(Direction::Bidirectional);
        let layout = WeightLayout::new(&descriptor).unwrap();
        let flat: Vec<u32> = (0..layout.len() as u32).collect();
        let mut apart: Vec<Vec<u32>> = layout.tensors(&flat).unwrap().map(|(_, tensor)| tensor.to_vec()).collect();
        let mut joined = vec![0; flat.len()];
        layout.join(&apart.iter().map(|tensor| &tensor[..]).collect::<Vec<_>>(), &mut joined).unwrap();
        assert_eq!(joined, flat);
        apart.iter_mut().for_each(|tensor| tensor.fill(0));
        layout.split(&flat, &mut apart.iter_mut().map(|tensor| &mut tensor[..]).collect::<Vec<_>>()).unwrap();
        assert_eq!(apart.concat(), flat);

        let says = |error: Error, words: &[&str]| {
            let error = error.to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        let mut tensors: Vec<_> = apart.iter().map(|tensor| &tensor[..]).collect();
        tensors[1] = &tensors[1][..5];
        says(layout.join(&tensors, &mut joined).unwrap_err(), &["weight_hh_l0", "48", "5 elements"]);
        says(layout.join(&tensors[..3], &mut joined).unwrap_err(), &["16 tensors", "weight_ih_l0", "3 tensors"]);
        says(layout.join(&tensors, &mut joined[1..]).unwrap_err(), &["weights", &flat.len().to_string()]);
        assert!(layout.tensors(&flat[1..]).is_err());
    }
}
