//! Layers beside recorded cases of torch.nn: outputs, final states, and every gradient. `bindings/fixtures/generate_torch.py` makes them.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use fused_rnn_candle::{Call, Gru, Lstm, Options, Output, Rnn, States};

struct Case {
    tensors: HashMap<String, Tensor>,
    variables: HashMap<String, Var>,
}

impl Case {
    fn load(name: &str) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        let tensors = candle_core::safetensors::load(folder.join(format!("{name}.safetensors")), &Device::Cpu)?;
        let variables = tensors.iter().filter(|(name, _)| tensors.contains_key(&format!("gradient.{name}")));
        let variables = variables.map(|(name, tensor)| Ok((name.clone(), Var::from_tensor(tensor)?)));
        let variables = variables.collect::<Result<HashMap<_, _>>>()?;
        Ok(Case { tensors, variables })
    }

    fn vb(&self) -> VarBuilder<'static> {
        let tensors = self.variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone()));
        VarBuilder::from_tensors(tensors.collect(), DType::F64, &Device::Cpu)
    }

    fn close(&self, name: &str, got: &Tensor) -> Result<()> {
        let expected = &self.tensors[name];
        assert_eq!(expected.dims(), got.dims(), "{name}");
        let largest = (got - expected)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
        assert!(largest < 1e-12, "{name}: off by {largest:e}");
        Ok(())
    }

    /// Runs the layer on the case's input, compares what comes out, and the gradients of the case's loss, twice.
    fn check(&self, lengths: &[u32], run: impl Fn(&Tensor, &Call) -> Result<Output>) -> Result<()> {
        let variable = |name: &str| self.variables.get(name).map(|variable| variable.as_tensor().clone());
        let states = States { h: self.variables["h0"].as_tensor().clone(), c: variable("c0") };
        let mut call = Call::default().states(&states);
        if !lengths.is_empty() {
            call = call.lengths(lengths);
        }
        let out = run(&self.variables["x"], &call)?;
        let mut loss = (&out.y * &self.tensors["factor.y"])?.sum_all()?;
        self.close("y", &out.y)?;
        self.close("hn", &out.states.h)?;
        loss = (loss + (&out.states.h * &self.tensors["factor.hn"])?.sum_all()?)?;
        if let Some(c) = &out.states.c {
            self.close("cn", c)?;
            loss = (loss + (c * &self.tensors["factor.cn"])?.sum_all()?)?;
        }
        for _ in 0..2 {
            let gradients = loss.backward()?;
            for (name, variable) in &self.variables {
                let gradient = gradients.get(variable);
                assert!(gradient.is_some(), "{name} has no gradient");
                gradient.map(|gradient| self.close(&format!("gradient.{name}"), gradient)).transpose()?;
            }
        }
        Ok(())
    }
}

#[test]
fn lstm() -> Result<()> {
    let case = Case::load("lstm")?;
    let layer = Lstm::new(3, 4, &Options::default(), case.vb())?;
    case.check(&[], |x, call| layer.run(x, call))
}

#[test]
fn lstm_of_two_layers_and_directions_with_lengths() -> Result<()> {
    let case = Case::load("lstm_bidirectional_lengths")?;
    let layer = Lstm::new(3, 4, &Options::default().num_layers(2).bidirectional(true), case.vb())?;
    case.check(&[4, 6, 1], |x, call| layer.run(x, call))
}

#[test]
fn sequence_major() -> Result<()> {
    let case = Case::load("lstm_bidirectional_lengths")?;
    let options = Options::default().num_layers(2).bidirectional(true).batch_first(false);
    let layer = Lstm::new(3, 4, &options, case.vb())?;
    case.check(&[4, 6, 1], |x, call| {
        let out = layer.run(&x.transpose(0, 1)?, call)?;
        Ok(Output { y: out.y.transpose(0, 1)?, ..out })
    })
}

#[test]
fn projected_lstm() -> Result<()> {
    let case = Case::load("lstm_projected")?;
    let layer = Lstm::new(3, 4, &Options::default().num_layers(2).proj_size(Some(2)), case.vb())?;
    case.check(&[], |x, call| layer.run(x, call))
}

#[test]
fn lstm_without_bias() -> Result<()> {
    let case = Case::load("lstm_no_bias")?;
    let layer = Lstm::new(3, 4, &Options::default().bias(false), case.vb())?;
    case.check(&[], |x, call| layer.run(x, call))
}

#[test]
fn gru() -> Result<()> {
    let case = Case::load("gru")?;
    let layer = Gru::new(3, 4, &Options::default(), case.vb())?;
    case.check(&[], |x, call| layer.run(x, call))
}

#[test]
fn gru_of_two_layers_and_directions_with_lengths() -> Result<()> {
    let case = Case::load("gru_bidirectional_lengths")?;
    let layer = Gru::new(3, 4, &Options::default().num_layers(2).bidirectional(true), case.vb())?;
    case.check(&[4, 6, 1], |x, call| layer.run(x, call))
}

#[test]
fn rnn() -> Result<()> {
    let case = Case::load("rnn_bidirectional")?;
    let layer = Rnn::new(3, 4, &Options::default().bidirectional(true), case.vb())?;
    case.check(&[], |x, call| layer.run(x, call))
}

#[test]
fn rnn_with_relu() -> Result<()> {
    let case = Case::load("rnn_relu")?;
    let layer = Rnn::new(3, 4, &Options::default().num_layers(2).relu(true), case.vb())?;
    case.check(&[], |x, call| layer.run(x, call))
}
