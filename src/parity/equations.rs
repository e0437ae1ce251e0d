//! Cases of the cells' equations, written out and differentiated elsewhere: layouts are native, and every cell and option has a name.

use super::Problem;
use super::fields::{Fields, Tensors};
use super::torch;
use crate::cell::CellKind;
use crate::error::Result;
use crate::rnn::{Bias, Direction, ForgetGate, GruReset, InputKind, RnnDescriptor, RnnShape};

pub(super) fn read(fields: &mut Fields, tensors: &mut Tensors<'_>) -> Result<Problem> {
    let cell: CellKind = fields.required_text("cell")?.parse()?;
    let shape = RnnShape { seq_len: fields.required_size("T")?, batch: fields.required_size("B")? };
    let mut descriptor = RnnDescriptor::new(cell, fields.required_size("I")?, fields.required_size("H")?);
    descriptor.num_layers = fields.size("L")?.unwrap_or(1);
    descriptor.heads = fields.size("heads")?.unwrap_or(1);
    if fields.flag("bi", false)? {
        descriptor.direction = Direction::Bidirectional;
    }
    descriptor.bias =
        choice(fields, "bias", &[("double", Bias::Double), ("single", Bias::Single), ("none", Bias::None)])?;
    descriptor.input = choice(fields, "input", &[("features", InputKind::Features), ("gates", InputKind::Gates)])?;
    descriptor.reset = choice(fields, "reset", &[("after", GruReset::After), ("before", GruReset::Before)])?;
    descriptor.forget_gate =
        choice(fields, "forget_gate", &[("sigmoid", ForgetGate::Sigmoid), ("exponential", ForgetGate::Exponential)])?;
    if let Some(activation) = fields.text("activation")? {
        descriptor.activations.state = activation.parse()?;
    }
    let lengths = fields.integers("lengths")?;
    torch::problem(tensors, descriptor, shape, lengths)
}

/// The value of a key that has one of a few; the first is the default.
fn choice<T: Copy>(fields: &mut Fields, key: &'static str, values: &[(&str, T)]) -> Result<T> {
    let text = fields.text(key)?;
    match values.iter().find(|(name, _)| text.as_ref().is_none_or(|text| *name == text.as_str())) {
        Some((_, value)) => Ok(*value),
        None => {
            let text = text.unwrap_or_default();
            let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
            Err(fields.error(key, &format!("one of {}", names.join(", ")), format!("{text:?}")))
        }
    }
}
