//! Modules beside recorded cases of torch.nn: outputs, final states, and every gradient. `bindings/fixtures/generate_torch.py` makes them.

use std::collections::HashMap;
use std::path::Path;

use burn_core::tensor::{DType, Device, Gradients, Tensor, TensorData};
use fused_rnn_burn::{Call, GruConfig, LstmConfig, Recurrent, RnnConfig, States};

type Failure = Box<dyn std::error::Error>;

/// The tensors of a case.
struct Case(HashMap<String, TensorData>);

impl Case {
    fn load(name: &str) -> Result<Self, Failure> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors")))?;
        let tensors = safetensors::SafeTensors::deserialize(&bytes)?;
        let data = |view: safetensors::tensor::TensorView| {
            let numbers =
                view.data().chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap_or_default()));
            TensorData::new(numbers.collect::<Vec<f64>>(), view.shape().to_vec())
        };
        Ok(Case(tensors.tensors().into_iter().map(|(name, view)| (name, data(view))).collect()))
    }

    fn weights(&self) -> HashMap<String, TensorData> {
        let is_weight = |name: &str| name.starts_with("weight") || name.starts_with("bias");
        self.0.iter().filter(|(name, _)| is_weight(name)).map(|(name, data)| (name.clone(), data.clone())).collect()
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        Tensor::from_data(self.0[name].clone(), (&device(), DType::F64))
    }

    fn close<const D: usize>(&self, name: &str, got: Option<Tensor<D>>) -> Result<(), Failure> {
        let expected = &self.0[name];
        let got = got.ok_or_else(|| format!("{name} is missing"))?.into_data();
        assert_eq!(expected.shape(), got.shape(), "{name}");
        for (got, expected) in got.as_slice::<f64>()?.iter().zip(expected.as_slice::<f64>()?) {
            assert!((got - expected).abs() < 1e-12, "{name}: {got}, but should be {expected}");
        }
        Ok(())
    }

    /// Runs the module on the case's input, and compares what comes out, and the gradients of the case's loss.
    fn check(&self, module: Recurrent, lengths: &[u32]) -> Result<(), Failure> {
        let module = module.with_weights(self.weights(), &device())?;
        let tracked = |name: &str| self.0.contains_key(name).then(|| self.tensor::<3>(name).require_grad());
        let x = self.tensor::<3>("x").require_grad();
        let states = States { h: self.tensor::<3>("h0").require_grad(), c: tracked("c0") };
        let mut call = Call::default().states(&states);
        if !lengths.is_empty() {
            call = call.lengths(lengths);
        }
        let out = module.run(x.clone(), &call)?;
        self.close("y", Some(out.y.clone()))?;
        self.close("hn", Some(out.states.h.clone()))?;
        let mut loss = (out.y * self.tensor("factor.y")).sum() + (out.states.h * self.tensor("factor.hn")).sum();
        if let Some(c) = out.states.c {
            self.close("cn", Some(c.clone()))?;
            loss = loss + (c * self.tensor("factor.cn")).sum();
        }
        let gradients = loss.backward();
        self.close("gradient.x", x.grad(&gradients))?;
        self.close("gradient.h0", states.h.grad(&gradients))?;
        if let Some(c) = states.c {
            self.close("gradient.c0", c.grad(&gradients))?;
        }
        self.check_weights(&module, &gradients)
    }

    fn check_weights(&self, module: &Recurrent, gradients: &Gradients) -> Result<(), Failure> {
        let directions = module.descriptor().num_directions();
        let mut count = 0;
        for (place, weights) in module.layers.iter().enumerate() {
            let suffix = format!("_l{}{}", place / directions, if place % directions == 1 { "_reverse" } else { "" });
            let name = |stem: &str| format!("gradient.{stem}{suffix}");
            self.close(&name("weight_ih"), weights.weight_ih.val().grad(gradients))?;
            self.close(&name("weight_hh"), weights.weight_hh.val().grad(gradients))?;
            for (stem, bias) in [("bias_ih", &weights.bias_ih), ("bias_hh", &weights.bias_hh)] {
                if let Some(bias) = bias {
                    self.close(&name(stem), bias.val().grad(gradients))?;
                    count += 1;
                }
            }
            if let Some(weight) = &weights.weight_hr {
                self.close(&name("weight_hr"), weight.val().grad(gradients))?;
                count += 1;
            }
            count += 2;
        }
        assert_eq!(count, self.weights().len());
        Ok(())
    }
}

fn device() -> Device {
    Device::flex().autodiff()
}

#[test]
fn lstm() -> Result<(), Failure> {
    Case::load("lstm")?.check(LstmConfig::new(3, 4, true).init(&device())?.recurrent, &[])
}

#[test]
fn lstm_of_two_layers_and_directions_with_lengths() -> Result<(), Failure> {
    let config = LstmConfig::new(3, 4, true).with_num_layers(2).with_bidirectional(true);
    Case::load("lstm_bidirectional_lengths")?.check(config.init(&device())?.recurrent, &[4, 6, 1])
}

#[test]
fn projected_lstm() -> Result<(), Failure> {
    let config = LstmConfig::new(3, 4, true).with_num_layers(2).with_proj_size(Some(2));
    Case::load("lstm_projected")?.check(config.init(&device())?.recurrent, &[])
}

#[test]
fn lstm_without_bias() -> Result<(), Failure> {
    Case::load("lstm_no_bias")?.check(LstmConfig::new(3, 4, false).init(&device())?.recurrent, &[])
}

#[test]
fn gru() -> Result<(), Failure> {
    Case::load("gru")?.check(GruConfig::new(3, 4, true).init(&device())?.recurrent, &[])
}

#[test]
fn gru_of_two_layers_and_directions_with_lengths() -> Result<(), Failure> {
    let config = GruConfig::new(3, 4, true).with_num_layers(2).with_bidirectional(true);
    Case::load("gru_bidirectional_lengths")?.check(config.init(&device())?.recurrent, &[4, 6, 1])
}

#[test]
fn rnn() -> Result<(), Failure> {
    Case::load("rnn_bidirectional")?
        .check(RnnConfig::new(3, 4, true).with_bidirectional(true).init(&device())?.recurrent, &[])
}

#[test]
fn rnn_with_relu() -> Result<(), Failure> {
    let config = RnnConfig::new(3, 4, true).with_num_layers(2).with_relu(true);
    Case::load("rnn_relu")?.check(config.init(&device())?.recurrent, &[])
}
