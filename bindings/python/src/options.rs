//! An operator's description from Python's keyword arguments, which have the names of the crate's fields.

use std::str::FromStr;

use fused_rnn::cell::{Activation, CellKind};
use fused_rnn::rnn::{Bias, Direction, ForgetGate, GruReset, InputKind, Layout, Memory, PaddedOutput, RnnDescriptor};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::{Error, raised};

/// One of some names.
fn choice<T: Copy>(option: &str, value: &Bound<'_, PyAny>, choices: &[(&str, T)]) -> PyResult<T> {
    let given: String = value.extract()?;
    choices.iter().find(|(name, _)| *name == given).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        Error::new_err(format!("option {option}: expected one of {}, got {given:?}", names.join(", ")))
    })
}

fn activation(value: &Bound<'_, PyAny>) -> PyResult<Activation> {
    let name: String = value.extract()?;
    Activation::from_str(&name).map_err(|error| raised(error.into()))
}

/// `full`, or `checkpoints`, `light` or `within` with a number after a colon.
fn memory(value: &Bound<'_, PyAny>) -> PyResult<Memory> {
    let given: String = value.extract()?;
    let (kind, number) = given.split_once(':').unwrap_or((&given, ""));
    match (kind, number.parse::<usize>()) {
        ("full", _) if number.is_empty() => Ok(Memory::Full),
        ("checkpoints", Ok(every)) => Ok(Memory::Checkpoints { every }),
        ("light", Ok(every)) => Ok(Memory::Light { every }),
        ("within", Ok(bytes)) => Ok(Memory::Within { bytes }),
        _ => Err(Error::new_err(format!(
            "option memory: expected \"full\", \"checkpoints:STEPS\", \"light:STEPS\" or \"within:BYTES\", got {given:?}"
        ))),
    }
}

/// The description with these options.
pub(crate) fn descriptor(
    cell: &str,
    input_size: usize,
    hidden_size: usize,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<RnnDescriptor> {
    let kind =
        CellKind::from_str(if cell == "ind_rnn" { "rnn" } else { cell }).map_err(|error| raised(error.into()))?;
    let mut d = RnnDescriptor::new(kind, input_size, hidden_size);
    if cell == "ind_rnn" {
        d.heads = hidden_size;
    }
    let mut reverse = d.activations;
    let mut has_reverse = false;
    for (name, value) in options.into_iter().flat_map(|options| options.iter()) {
        let name: String = name.extract()?;
        let value = &value;
        if value.is_none() {
            continue;
        }
        match name.as_str() {
            "num_layers" => d.num_layers = value.extract()?,
            "heads" => d.heads = value.extract()?,
            "direction" => {
                let all = [
                    ("forward", Direction::Forward),
                    ("reverse", Direction::Reverse),
                    ("bidirectional", Direction::Bidirectional),
                ];
                d.direction = choice(&name, value, &all)?;
            }
            "bias" => {
                d.bias =
                    choice(&name, value, &[("double", Bias::Double), ("single", Bias::Single), ("none", Bias::None)])?
            }
            "batch_first" => {
                d.layout = if value.extract()? { Layout::BatchMajor } else { Layout::SequenceMajor };
            }
            "input" => {
                d.input = choice(&name, value, &[("features", InputKind::Features), ("gates", InputKind::Gates)])?
            }
            "gate_activation" => d.activations.gate = activation(value)?,
            "activation" => d.activations.state = activation(value)?,
            "output_activation" => d.activations.output = activation(value)?,
            "reverse_gate_activation" => (reverse.gate, has_reverse) = (activation(value)?, true),
            "reverse_activation" => (reverse.state, has_reverse) = (activation(value)?, true),
            "reverse_output_activation" => (reverse.output, has_reverse) = (activation(value)?, true),
            "reset" => d.reset = choice(&name, value, &[("after", GruReset::After), ("before", GruReset::Before)])?,
            "forget_gate" => {
                let all = [("sigmoid", ForgetGate::Sigmoid), ("exponential", ForgetGate::Exponential)];
                d.forget_gate = choice(&name, value, &all)?;
            }
            "dropout" => d.dropout = value.extract()?,
            "proj_size" => d.proj_size = Some(value.extract::<usize>()?).filter(|size| *size > 0),
            "peepholes" => d.peepholes = value.extract()?,
            "coupled_input_forget" => d.coupled_input_forget = value.extract()?,
            "gate_clip" => d.gate_clip = Some(value.extract()?),
            "cell_clip" => d.cell_clip = Some(value.extract()?),
            "padded_output" => {
                d.padded_output = choice(&name, value, &[("zero", PaddedOutput::Zero), ("hold", PaddedOutput::Hold)])?;
            }
            "memory" => d.memory = memory(value)?,
            _ => return Err(PyTypeError::new_err(format!("no option {name:?}"))),
        }
    }
    d.reverse_activations = has_reverse.then_some(reverse);
    d.validate().map_err(|error| raised(error.into()))?;
    Ok(d)
}
