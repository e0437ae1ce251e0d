//! Weights of burn's own layers.

use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData};
use burn_core as burn;
use burn_nn::activation::Activation;
use burn_nn::{GateController, Linear};
use fused_rnn::{Error, Result};

use crate::layers::{Gru, GruConfig, Lstm, LstmConfig, Rnn, RnnConfig};

fn unsupported(what: String) -> Error {
    Error::Unsupported { what, why: "fused-rnn-burn cannot convert this layer; go on with burn's own".to_owned() }
}

/// Checks that an activation is the usual one.
fn expect(name: &str, activation: &Activation, is_usual: bool) -> Result<()> {
    match is_usual {
        true => Ok(()),
        false => Err(unsupported(format!("{name} {activation:?}"))),
    }
}

/// One part of each gate, as `[d_output, d_input]`.
fn matrices<'a>(gates: impl Iterator<Item = &'a Linear>) -> TensorData {
    // burn's weights are `[d_input, d_output]`.
    let rows = gates.map(|linear| linear.weight.val().inner().transpose());
    Tensor::cat(rows.collect::<Vec<Tensor<2>>>(), 0).into_data()
}

fn vectors<'a>(gates: impl Iterator<Item = &'a Linear>) -> Option<TensorData> {
    let parts: Option<Vec<Tensor<1>>> =
        gates.map(|linear| linear.bias.as_ref().map(|bias| bias.val().inner())).collect();
    parts.map(|parts| Tensor::cat(parts, 0).into_data())
}

/// The weights of gates in PyTorch's order, under PyTorch's names.
fn named(gates: &[&GateController], suffix: &str) -> HashMap<String, TensorData> {
    let inputs = || gates.iter().map(|gate| &gate.input_transform);
    let states = || gates.iter().map(|gate| &gate.hidden_transform);
    let mut weights = HashMap::from([
        (format!("weight_ih_l0{suffix}"), matrices(inputs())),
        (format!("weight_hh_l0{suffix}"), matrices(states())),
    ]);
    for (name, bias) in [("bias_ih", vectors(inputs())), ("bias_hh", vectors(states()))] {
        weights.extend(bias.map(|bias| (format!("{name}_l0{suffix}"), bias)));
    }
    weights
}

impl Lstm {
    /// burn's layer with its weights and options.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for other activations than an LSTM's usual ones.
    pub fn from_burn(layer: &burn_nn::Lstm) -> Result<Self> {
        expect("gate_activation", &layer.gate_activation, matches!(layer.gate_activation, Activation::Sigmoid(_)))?;
        expect("cell_activation", &layer.cell_activation, matches!(layer.cell_activation, Activation::Tanh(_)))?;
        expect("hidden_activation", &layer.hidden_activation, matches!(layer.hidden_activation, Activation::Tanh(_)))?;
        let input = &layer.input_gate.input_transform;
        let device = input.weight.val().device();
        let config = LstmConfig::new(width(input), layer.d_hidden, input.bias.is_some())
            .with_batch_first(layer.batch_first)
            .with_reverse(layer.reverse)
            .with_clip(layer.clip)
            .with_input_forget(layer.input_forget);
        // The rows of a forget gate that is computed from the input gate are not used.
        let forget = layer.forget_gate.as_ref().unwrap_or(&layer.input_gate);
        let gates = [&layer.input_gate, forget, &layer.cell_gate, &layer.output_gate];
        config.init(&device)?.with_weights(named(&gates, if layer.reverse { "_reverse" } else { "" }), &device)
    }
}

impl Gru {
    /// burn's layer with its weights and options.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for other activations than a GRU's usual ones and for a clipped hidden state.
    pub fn from_burn(layer: &burn_nn::Gru) -> Result<Self> {
        expect("gate_activation", &layer.gate_activation, matches!(layer.gate_activation, Activation::Sigmoid(_)))?;
        expect("hidden_activation", &layer.hidden_activation, matches!(layer.hidden_activation, Activation::Tanh(_)))?;
        if layer.clip.is_some() {
            return Err(unsupported(format!("clip {:?} of a GRU's hidden state", layer.clip)));
        }
        let input = &layer.reset_gate.input_transform;
        let device = input.weight.val().device();
        let config =
            GruConfig::new(width(input), layer.d_hidden, input.bias.is_some()).with_reset_after(layer.reset_after);
        let gates = [&layer.reset_gate, &layer.update_gate, &layer.new_gate];
        config.init(&device)?.with_weights(named(&gates, ""), &device)
    }
}

impl Rnn {
    /// burn's layer with its weights and options.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for another activation than tanh and relu and for a clipped hidden state.
    pub fn from_burn(layer: &burn_nn::Rnn) -> Result<Self> {
        let activation = &layer.hidden_activation;
        let relu = matches!(activation, Activation::Relu(_));
        expect("hidden_activation", activation, relu || matches!(activation, Activation::Tanh(_)))?;
        if layer.clip.is_some() {
            return Err(unsupported(format!("clip {:?} of an RNN's hidden state", layer.clip)));
        }
        let input = &layer.gate.input_transform;
        let device = input.weight.val().device();
        let config = RnnConfig::new(width(input), layer.d_hidden, input.bias.is_some())
            .with_batch_first(layer.batch_first)
            .with_reverse(layer.reverse)
            .with_relu(relu);
        let suffix = if layer.reverse { "_reverse" } else { "" };
        config.init(&device)?.with_weights(named(&[&layer.gate], suffix), &device)
    }
}

fn width(input: &Linear) -> usize {
    let [d_input, _] = input.weight.dims();
    d_input
}
