//! Weights and tensors of other frameworks.
//!
//! Every converter names the other framework's gate order in our gates' names and looks the permutation up in the arity
//! table ([`CellSpec::gates`](crate::cell::CellSpec::gates)); no table of indices stands anywhere.
//!
//! | framework | LSTM | GRU | peepholes |
//! |---|---|---|---|
//! | native, PyTorch | i, f, g, o | r, z, n | i, f, o |
//! | [Keras](keras) (c is our g, h our n) | i, f, c, o | z, r, h | |
//! | [ONNX](onnx) (c is our g, h our n) | i, o, f, c | z, r, h | i, o, f |

pub mod keras;
pub mod onnx;
pub mod safetensors;

/// For each of the native `gates`, the position of its block in a framework that orders them as `source`.
pub(crate) fn gate_positions(gates: &[&str], source: &[&str]) -> Vec<usize> {
    gates.iter().filter_map(|gate| source.iter().position(|other| other == gate)).collect()
}

#[cfg(test)]
mod tests {
    use super::gate_positions;
    use crate::cell::CellKind;

    #[test]
    fn every_order_is_a_permutation_of_the_table() {
        for cell in CellKind::ALL {
            let spec = cell.spec();
            for (native, source) in [
                (spec.gates, super::keras::gate_order(cell)),
                (spec.gates, super::onnx::gate_order(cell)),
                (spec.peepholes, super::onnx::peephole_order(cell)),
            ] {
                let Some(source) = source else { continue };
                let mut positions = gate_positions(native, source);
                positions.sort_unstable();
                assert_eq!(positions, (0..native.len()).collect::<Vec<_>>(), "{cell}: {source:?}");
                assert_eq!(native.len(), source.len());
            }
        }
    }
}
