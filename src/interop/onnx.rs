//! ONNX's weight layouts.
//!
//! The inputs `W`, `R`, `B` and `P` of the [RNN](https://onnx.ai/onnx/operators/onnx__RNN.html),
//! [LSTM](https://onnx.ai/onnx/operators/onnx__LSTM.html) and [GRU](https://onnx.ai/onnx/operators/onnx__GRU.html)
//! operators: one layer, its directions along the first axis.
//!
//! | ONNX | shape | native |
//! |---|---|---|
//! | `W` | `[D, G * H, I]` | `weight_ih` `[G * H, I]` |
//! | `R` | `[D, G * H, H]` | `weight_hh` `[G * H, H]` |
//! | `B` | `[D, 2 * G * H]`: `Wb`, then `Rb` | `bias_ih`, `bias_hh` ([`Bias::Double`]) |
//! | `P` | `[D, 3 * H]` | `weight_peephole` `[3 * H]` |

use crate::cell::CellKind;
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::interop::gate_positions;
use crate::rnn::shape::check_len;
use crate::rnn::{Bias, InputKind, RnnDescriptor, WeightLayout};

/// The weights of an ONNX node, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxWeights<E> {
    /// `W`, `[D, G * H, I]`.
    pub w: Vec<E>,
    /// `R`, `[D, G * H, H]`.
    pub r: Vec<E>,
    /// `B`, `[D, 2 * G * H]`, or absent.
    pub b: Option<Vec<E>>,
    /// `P`, `[D, 3 * H]`, LSTM only, or absent.
    pub p: Option<Vec<E>>,
}

/// ONNX's gate order by the names of the table: LSTM i, o, f, c; GRU z, r, h. `None` for cells that ONNX has not.
pub fn gate_order(cell: CellKind) -> Option<&'static [&'static str]> {
    cell.spec().onnx.map(|onnx| onnx.gates)
}

/// ONNX's order of the peepholes: i, o, f. `None` for cells that ONNX has not.
pub fn peephole_order(cell: CellKind) -> Option<&'static [&'static str]> {
    cell.spec().onnx.map(|onnx| onnx.peepholes)
}

/// Where ONNX has our gates and peepholes; refuses what ONNX has not.
fn sources(descriptor: &RnnDescriptor) -> Result<(Vec<usize>, Vec<usize>)> {
    let spec = descriptor.cell.spec();
    let Some(onnx) = spec.onnx else {
        return Err(Error::unsupported(format!("ONNX's weights of the {}", spec.name), "ONNX has no such operator"));
    };
    for (option, used) in [("heads", descriptor.heads > 1), ("input", descriptor.input != InputKind::Features)] {
        if used {
            return Err(Error::option(option, "off, since ONNX's operators have none", "on"));
        }
    }
    if descriptor.num_layers != 1 {
        return Err(Error::option("num_layers", "1, since an ONNX node is one layer", descriptor.num_layers));
    }
    if descriptor.proj_size.is_some() {
        return Err(Error::option("proj_size", "off, since ONNX's LSTM has no projection", "on"));
    }
    if descriptor.bias == Bias::Single {
        return Err(Error::option("bias", "none or double, since ONNX's B holds both vectors", "single"));
    }
    Ok((gate_positions(spec.gates, onnx.gates), gate_positions(spec.peepholes, onnx.peepholes)))
}

/// Calls `copy(native index, ONNX index)` for every element of tensors whose gates are blocks of `block` elements and stand
/// at `positions` in ONNX.
fn move_blocks(positions: &[usize], block: usize, mut copy: impl FnMut(usize, usize)) {
    for (gate, position) in positions.iter().enumerate() {
        for element in 0..block {
            copy(gate * block + element, position * block + element);
        }
    }
}

/// Native weights ([`WeightLayout`]) from those of an ONNX node.
///
/// # Errors
///
/// [`Error::Unsupported`] and [`Error::InvalidOption`] for cells and options that ONNX has not (several layers, a projection, a single
/// bias); [`Error::Shape`] and [`Error::Presence`] naming the tensor; [`Error::ZeroSize`], [`Error::SizeOverflow`] and
/// [`Error::InvalidOption`] for sizes and options that no operator has.
#[expect(clippy::indexing_slicing, reason = "`check_len` compares every tensor with the sizes that the loops run over")]
pub fn import<E: Scalar>(descriptor: &RnnDescriptor, node: &OnnxWeights<E>) -> Result<Vec<E>> {
    let (gates, peepholes) = sources(descriptor)?;
    let layout = WeightLayout::new(descriptor)?;
    let (directions, hidden, inputs) = (descriptor.num_directions(), descriptor.hidden_size, descriptor.input_size);
    let rows = descriptor.cell.gates() * hidden;
    let peephole = peepholes.len() * hidden;
    let optional = |name: &str, tensor: &Option<Vec<E>>, used: bool, len: usize| match (tensor, used) {
        (Some(tensor), true) => check_len(name, &[directions, len], tensor.len()),
        (None, false) => Ok(()),
        (None, true) => Err(Error::Presence {
            tensor: name.to_owned(),
            problem: "the descriptor needs it, but it is absent".into(),
        }),
        (Some(_), false) => Err(Error::Presence {
            tensor: name.to_owned(),
            problem: "it is present, but the descriptor says that there is none".into(),
        }),
    };
    check_len("W", &[directions, rows, inputs], node.w.len())?;
    check_len("R", &[directions, rows, hidden], node.r.len())?;
    optional("B", &node.b, descriptor.bias == Bias::Double, 2 * rows)?;
    optional("P", &node.p, descriptor.peepholes, peephole)?;

    let mut flat = vec![E::zero(); layout.len()];
    for direction in 0..directions {
        let to = layout.view_mut(&mut flat, 0, direction);
        let w = &node.w[direction * rows * inputs..];
        move_blocks(&gates, hidden * inputs, |native, onnx| to.input_hidden[native] = w[onnx]);
        let r = &node.r[direction * rows * hidden..];
        move_blocks(&gates, hidden * hidden, |native, onnx| to.hidden_hidden[native] = r[onnx]);
        if let Some(b) = &node.b {
            let (wb, rb) = b[direction * 2 * rows..].split_at(rows);
            move_blocks(&gates, hidden, |native, onnx| to.input_bias[native] = wb[onnx]);
            move_blocks(&gates, hidden, |native, onnx| to.hidden_bias[native] = rb[onnx]);
        }
        if let Some(p) = &node.p {
            let p = &p[direction * peephole..];
            move_blocks(&peepholes, hidden, |native, onnx| to.peephole[native] = p[onnx]);
        }
    }
    Ok(flat)
}

/// The reverse of [`import`]: an ONNX node's tensors from native weights, or from gradients laid out as the weights.
///
/// # Errors
///
/// [`Error::Unsupported`] and [`Error::InvalidOption`] for cells and options that ONNX has not (several layers, a projection, a single
/// bias); [`Error::Shape`] for a buffer of the wrong length; [`Error::ZeroSize`], [`Error::SizeOverflow`] and [`Error::InvalidOption`] for
/// sizes and options that no operator has.
#[expect(clippy::indexing_slicing, reason = "the layout checks the weights; what is written is allocated here")]
pub fn export<E: Scalar>(descriptor: &RnnDescriptor, weights: &[E]) -> Result<OnnxWeights<E>> {
    let (gates, peepholes) = sources(descriptor)?;
    let layout = WeightLayout::new(descriptor)?;
    layout.check("weights", weights.len())?;
    let (directions, hidden, inputs) = (descriptor.num_directions(), descriptor.hidden_size, descriptor.input_size);
    let rows = descriptor.cell.gates() * hidden;
    let peephole = peepholes.len() * hidden;

    let zeros = |len: usize| vec![E::zero(); directions * len];
    let mut node = OnnxWeights {
        w: zeros(rows * inputs),
        r: zeros(rows * hidden),
        b: (descriptor.bias == Bias::Double).then(|| zeros(2 * rows)),
        p: descriptor.peepholes.then(|| zeros(peephole)),
    };
    for direction in 0..directions {
        let from = layout.view(weights, 0, direction);
        let w = &mut node.w[direction * rows * inputs..];
        move_blocks(&gates, hidden * inputs, |native, onnx| w[onnx] = from.input_hidden[native]);
        let r = &mut node.r[direction * rows * hidden..];
        move_blocks(&gates, hidden * hidden, |native, onnx| r[onnx] = from.hidden_hidden[native]);
        if let Some(b) = &mut node.b {
            let (wb, rb) = b[direction * 2 * rows..].split_at_mut(rows);
            move_blocks(&gates, hidden, |native, onnx| wb[onnx] = from.input_bias[native]);
            move_blocks(&gates, hidden, |native, onnx| rb[onnx] = from.hidden_bias[native]);
        }
        if let Some(p) = &mut node.p {
            let p = &mut p[direction * peephole..];
            move_blocks(&peepholes, hidden, |native, onnx| p[onnx] = from.peephole[native]);
        }
    }
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rnn::Direction;

    #[test]
    fn round_trip_of_every_cell() {
        for cell in CellKind::ALL.into_iter().filter(|cell| gate_order(*cell).is_some()) {
            for bias in [Bias::None, Bias::Double] {
                for direction in [Direction::Reverse, Direction::Bidirectional] {
                    let mut descriptor = RnnDescriptor::new(cell, 3, 5);
                    descriptor.direction = direction;
                    descriptor.bias = bias;
                    descriptor.peepholes = !cell.spec().peepholes.is_empty();
                    let len = WeightLayout::new(&descriptor).unwrap().len();
                    let native: Vec<f32> = (0..len).map(|i| i as f32).collect();
                    let node = export(&descriptor, &native).unwrap();
                    assert_eq!(import(&descriptor, &node).unwrap(), native);
                }
            }
        }
    }

    #[test]
    fn lstm_blocks_land_where_onnx_has_them() {
        let mut descriptor = RnnDescriptor::lstm(1, 1);
        descriptor.peepholes = true;
        let node = OnnxWeights {
            w: vec![1.0, 2.0, 3.0, 4.0], // i, o, f, c
            r: vec![5.0, 6.0, 7.0, 8.0],
            b: Some((9..17).map(f64::from).collect()),
            p: Some(vec![17.0, 18.0, 19.0]), // i, o, f
        };
        let native = import(&descriptor, &node).unwrap();
        let expected =
            [1.0, 3.0, 4.0, 2.0, 5.0, 7.0, 8.0, 6.0, 9.0, 11.0, 12.0, 10.0, 13.0, 15.0, 16.0, 14.0, 17.0, 19.0, 18.0];
        assert_eq!(native, expected); // i, f, g, o; peepholes i, f, o
    }

    #[test]
    fn errors_name_the_tensor() {
        let descriptor = RnnDescriptor::gru(3, 5);
        let good = export(&descriptor, &vec![0.0f32; WeightLayout::new(&descriptor).unwrap().len()]).unwrap();
        let message = |node: OnnxWeights<f32>| import(&descriptor, &node).unwrap_err().to_string();
        assert!(message(OnnxWeights { r: vec![0.0; 3], ..good.clone() }).starts_with("R: expected 75 elements"));
        assert!(message(OnnxWeights { b: None, ..good.clone() }).starts_with("B: "));
        assert!(message(OnnxWeights { p: Some(vec![]), ..good }).starts_with("P: "));
        let mut stacked = descriptor.clone();
        stacked.num_layers = 2;
        assert!(export::<f32>(&stacked, &[]).is_err());
    }
}
