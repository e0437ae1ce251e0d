//! Keras's weight layouts.
//!
//! A Keras layer ([LSTM](https://keras.io/api/layers/recurrent_layers/lstm/),
//! [GRU](https://keras.io/api/layers/recurrent_layers/gru/),
//! [SimpleRNN](https://keras.io/api/layers/recurrent_layers/simple_rnn/)) keeps its matrices transposed, gates side by side
//! in its own order ([`cell::spec`](crate::cell::spec) has it), and adds one bias vector; only the GRU with `reset_after=True` has two:
//!
//! | Keras | shape | native |
//! |---|---|---|
//! | `kernel` | `[K, G * H]` | `weight_ih` `[G * H, K]` |
//! | `recurrent_kernel` | `[H, G * H]` | `weight_hh` `[G * H, H]` |
//! | `bias` | `[G * H]` ([`Bias::Single`]) | `bias_ih` |
//! | `bias` | `[2, G * H]` ([`Bias::Double`]) | `bias_ih`, `bias_hh` |
//!
//! [`import`] and [`export`] convert the weights of an operator, [`import_layer`] and [`export_layer`] those of any layer.

mod layers;

pub use layers::{export_layer, import_layer};

use crate::cell::{Candidate, CellKind};
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::interop::gate_positions;
use crate::rnn::shape::check_len;
use crate::rnn::{Bias, InputKind, RnnDescriptor, WeightLayout};

/// The weights of one Keras layer, or of one side of a `Bidirectional` one, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KerasWeights<E> {
    /// `[K, G * H]`, with `K` the layer's input size.
    pub kernel: Vec<E>,
    /// `[H, G * H]`.
    pub recurrent_kernel: Vec<E>,
    /// `[G * H]`, `[2, G * H]`, or absent with `use_bias=False`.
    pub bias: Option<Vec<E>>,
}

/// Keras's gate order by the names of the table: LSTM i, f, c, o; GRU z, r, h. `None` for cells that Keras has not.
pub fn gate_order(cell: CellKind) -> Option<&'static [&'static str]> {
    cell.spec().keras.map(|keras| keras.gates)
}

/// The bias vectors that a layer of this cell has, given `use_bias` and the GRU's `reset_after`: two where a gate is multiplied with a
/// product and its bias, in Keras the GRU's.
pub fn bias_of(cell: CellKind, use_bias: bool, reset_after: bool) -> Bias {
    match (use_bias, cell.spec().candidate) {
        (false, _) => Bias::None,
        (true, Candidate::Reset) if reset_after => Bias::Double,
        (true, _) => Bias::Single,
    }
}

/// Where Keras has our gates; refuses what Keras has not.
fn gate_source(descriptor: &RnnDescriptor) -> Result<Vec<usize>> {
    let cell = descriptor.cell;
    let Some(order) = gate_order(cell) else {
        return Err(Error::unsupported(format!("Keras's weights of the {cell}"), "Keras has no such layer"));
    };
    for (option, used) in [
        ("proj_size", descriptor.proj_size.is_some()),
        ("peepholes", descriptor.peepholes),
        ("heads", descriptor.heads > 1),
        ("input", descriptor.input != InputKind::Features),
    ] {
        if used {
            return Err(Error::option(option, "off, since Keras's layers have none", "on"));
        }
    }
    Ok(gate_positions(cell.spec().gates, order))
}

/// Native weights ([`WeightLayout`]) from those of Keras layers: one entry for each layer and direction, in the order
/// layer 0 forward, layer 0 reverse, layer 1 forward, …
///
/// # Errors
///
/// [`Error::Unsupported`] and [`Error::InvalidOption`] for cells and options that Keras has not (a projection, peepholes, heads);
/// [`Error::Shape`] and [`Error::Presence`] naming the tensor as `layer 0 direction 1 kernel`; [`Error::ZeroSize`], [`Error::SizeOverflow`]
/// and [`Error::InvalidOption`] for sizes and options that no operator has.
#[expect(clippy::indexing_slicing, reason = "`check_len` compares every tensor with the sizes that the loops run over")]
pub fn import<E: Scalar>(descriptor: &RnnDescriptor, layers: &[KerasWeights<E>]) -> Result<Vec<E>> {
    let source = gate_source(descriptor)?;
    let layout = WeightLayout::new(descriptor)?;
    let directions = descriptor.num_directions();
    check_len("layers", &[descriptor.num_layers, directions], layers.len())?;
    let (hidden, gates) = (descriptor.hidden_size, descriptor.cell.gates());
    let rows = gates * hidden;

    let name =
        |index: usize, tensor: &str| format!("layer {} direction {} {tensor}", index / directions, index % directions);
    // Before anything is allocated for sizes that the tensors may not bear out.
    for (index, from) in layers.iter().enumerate() {
        let inputs = descriptor.layer_input_size(index / directions);
        check_len(&name(index, "kernel"), &[inputs, rows], from.kernel.len())?;
        check_len(&name(index, "recurrent_kernel"), &[hidden, rows], from.recurrent_kernel.len())?;
    }
    let mut flat = vec![E::zero(); layout.len()];
    for (index, from) in layers.iter().enumerate() {
        let (layer, direction) = (index / directions, index % directions);
        let inputs = descriptor.layer_input_size(layer);
        let name = |tensor: &str| name(index, tensor);
        let bias = match (&from.bias, descriptor.bias) {
            (None, Bias::None) => &[][..],
            (Some(bias), Bias::Single) => {
                check_len(&name("bias"), &[rows], bias.len())?;
                bias
            }
            (Some(bias), Bias::Double) => {
                check_len(&name("bias"), &[2, rows], bias.len())?;
                bias
            }
            (found, expected) => {
                let problem = format!("the descriptor says bias {expected:?}, but it is {}", presence(found.is_some()));
                return Err(Error::Presence { tensor: name("bias"), problem });
            }
        };

        let to = layout.view_mut(&mut flat, layer, direction);
        for gate in 0..gates {
            for unit in 0..hidden {
                let (row, column) = (gate * hidden + unit, source[gate] * hidden + unit);
                for k in 0..inputs {
                    to.input_hidden[row * inputs + k] = from.kernel[k * rows + column];
                }
                for k in 0..hidden {
                    to.hidden_hidden[row * hidden + k] = from.recurrent_kernel[k * rows + column];
                }
                if let Some(value) = bias.get(column) {
                    to.input_bias[row] = *value;
                }
                if let Some(value) = bias.get(rows + column) {
                    to.hidden_bias[row] = *value;
                }
            }
        }
    }
    Ok(flat)
}

/// The reverse of [`import`]: Keras's tensors from native weights, or from gradients laid out as the weights.
///
/// # Errors
///
/// [`Error::Unsupported`] and [`Error::InvalidOption`] for cells and options that Keras has not (a projection, peepholes, heads);
/// [`Error::Shape`] for a buffer of the wrong length; [`Error::ZeroSize`], [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes
/// and options that no operator has.
#[expect(clippy::indexing_slicing, reason = "the layout checks the weights; what is written is allocated here")]
pub fn export<E: Scalar>(descriptor: &RnnDescriptor, weights: &[E]) -> Result<Vec<KerasWeights<E>>> {
    let source = gate_source(descriptor)?;
    let layout = WeightLayout::new(descriptor)?;
    layout.check("weights", weights.len())?;
    let (hidden, gates) = (descriptor.hidden_size, descriptor.cell.gates());
    let rows = gates * hidden;

    let mut layers = Vec::new();
    for layer in 0..descriptor.num_layers {
        let inputs = descriptor.layer_input_size(layer);
        for direction in 0..descriptor.num_directions() {
            let from = layout.view(weights, layer, direction);
            let bias_len = from.input_bias.len() + from.hidden_bias.len();
            let mut to = KerasWeights {
                kernel: vec![E::zero(); inputs * rows],
                recurrent_kernel: vec![E::zero(); hidden * rows],
                bias: (bias_len > 0).then(|| vec![E::zero(); bias_len]),
            };
            for gate in 0..gates {
                for unit in 0..hidden {
                    let (row, column) = (gate * hidden + unit, source[gate] * hidden + unit);
                    for k in 0..inputs {
                        to.kernel[k * rows + column] = from.input_hidden[row * inputs + k];
                    }
                    for k in 0..hidden {
                        to.recurrent_kernel[k * rows + column] = from.hidden_hidden[row * hidden + k];
                    }
                    if let Some(bias) = &mut to.bias {
                        bias[column] = from.input_bias[row];
                        if let Some(value) = from.hidden_bias.get(row) {
                            bias[rows + column] = *value;
                        }
                    }
                }
            }
            layers.push(to);
        }
    }
    Ok(layers)
}

fn presence(present: bool) -> &'static str {
    if present { "present" } else { "absent" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rnn::Direction;

    #[test]
    fn round_trip_of_every_cell_and_bias() {
        for cell in CellKind::ALL.into_iter().filter(|cell| gate_order(*cell).is_some()) {
            for bias in [Bias::None, Bias::Single, Bias::Double] {
                let mut descriptor = RnnDescriptor::new(cell, 3, 5);
                descriptor.direction = Direction::Bidirectional;
                descriptor.num_layers = 2;
                descriptor.bias = bias;
                let len = WeightLayout::new(&descriptor).unwrap().len();
                let native: Vec<f64> = (0..len).map(|i| i as f64).collect();
                let layers = export(&descriptor, &native).unwrap();
                assert_eq!(layers.len(), 4);
                assert_eq!(import(&descriptor, &layers).unwrap(), native);
            }
        }
    }

    #[test]
    fn gru_blocks_land_where_keras_has_them() {
        let mut descriptor = RnnDescriptor::gru(1, 1);
        descriptor.bias = Bias::Double;
        let keras = KerasWeights {
            kernel: vec![1.0, 2.0, 3.0], // z, r, h
            recurrent_kernel: vec![4.0, 5.0, 6.0],
            bias: Some(vec![7.0, 8.0, 9.0, 10.0, 11.0, 12.0]),
        };
        let native = import(&descriptor, &[keras]).unwrap();
        assert_eq!(native, [2.0, 1.0, 3.0, 5.0, 4.0, 6.0, 8.0, 7.0, 9.0, 11.0, 10.0, 12.0]); // r, z, n
    }

    #[test]
    fn errors_name_the_tensor() {
        let mut descriptor = RnnDescriptor::lstm(3, 5);
        descriptor.bias = Bias::Single;
        let good = export(&descriptor, &vec![0.0f32; WeightLayout::new(&descriptor).unwrap().len()]).unwrap();
        let message = |layers: &[KerasWeights<f32>]| import(&descriptor, layers).unwrap_err().to_string();
        let mut layer = good[0].clone();
        layer.kernel.pop();
        assert!(message(&[layer]).starts_with("layer 0 direction 0 kernel: expected 60 elements"));
        let mut layer = good[0].clone();
        layer.bias = None;
        assert!(message(&[layer]).starts_with("layer 0 direction 0 bias: "));
        assert!(message(&[]).starts_with("layers: "));
        descriptor.proj_size = Some(2);
        assert!(import::<f32>(&descriptor, &good).is_err());
        assert!(export::<f32>(&descriptor, &[]).is_err());
    }
}
