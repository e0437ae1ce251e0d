//! A training step of a model: recurrent layers, a dense layer on the last output, mean squared error, gradient descent or Adam.

use fused_rnn::cell::CellKind;
use fused_rnn::loss::Loss;
use fused_rnn::model::Sequential;
use fused_rnn::nn::{Bidirectional, Dense, Gru, LayerConfig, Lstm, SimpleRnn};
use fused_rnn::optim::{Adam, Sgd};
use fused_rnn::rnn::{Direction, RnnDescriptor};
use fused_rnn::{DType, Device, Error, Result, Scalar};
use ndarray::{Array2, Array3};

use super::point::{Lengths, Pass, Point};
use super::subject::Values;

/// Small, so that training stays stable however long it is timed.
pub const LEARNING_RATE: f64 = 0.01;
/// Steps whose losses are compared.
const COMPARED: usize = 3;

/// The model, its batch and its targets.
pub struct TrainStep {
    step: Box<dyn FnMut() -> Result<f64>>,
    /// Name as PyTorch has it, shape and elements of every weight before the first step; last the dense layer's.
    pub weights: Vec<(String, Vec<usize>, Vec<f64>)>,
}

impl TrainStep {
    pub fn new(device: &Device, point: &Point, descriptor: &RnnDescriptor) -> Result<Self> {
        let s = point.sizes;
        let mut plain = RnnDescriptor::new(s.cell, s.input_size, s.hidden_size);
        (plain.num_layers, plain.direction) = (s.layers, s.direction);
        let is_usual = point.is_usual_cell() && s.direction != Direction::Reverse && point.lengths == Lengths::Full;
        if !is_usual || *descriptor != plain {
            return Err(Error::Unsupported {
                what: format!("pass {} with these options", point.pass_name()),
                why: "it trains plain rnn, lstm and gru layers, forward or bidirectional, one head, lengths full; time pass fwd+bwd"
                    .to_owned(),
            });
        }
        match device.dtype() {
            DType::F64 => Self::of::<f64>(device, point),
            _ => Self::of::<f32>(device, point),
        }
    }

    fn of<E: Scalar>(device: &Device, point: &Point) -> Result<Self> {
        let (s, shape) = (point.sizes, point.shape);
        let mut model = Sequential::new(device.clone(), &[shape.seq_len, s.input_size], 0)?;
        for layer in 0..s.layers {
            let sequences = layer + 1 < s.layers;
            let made: LayerConfig = match s.cell {
                CellKind::Lstm => Lstm::new(s.hidden_size).return_sequences(sequences).into(),
                CellKind::Gru => Gru::new(s.hidden_size).return_sequences(sequences).into(),
                _ => SimpleRnn::new(s.hidden_size).return_sequences(sequences).into(),
            };
            match s.direction {
                Direction::Bidirectional => model.add(Bidirectional::new(made))?,
                _ => model.add(made)?,
            };
        }
        model.add(Dense::new(1))?;
        let scale = 1.0 / (s.hidden_size as f64).sqrt();
        let count: usize = model.weights().map(|(_, _, values)| values.len()).sum();
        let values = Values::new(count, scale, 1);
        model.set_flat_weights::<E>(&values.iter().map(E::of).collect::<Vec<_>>())?;
        let (mut all, mut layers) = (values.iter(), Vec::new());
        let weights = model.weights().map(|(name, shape, values)| {
            (as_in_torch(&name, &mut layers), shape.to_vec(), all.by_ref().take(values.len()).collect())
        });
        let weights = weights.collect();
        match point.pass {
            Pass::TrainStepAdam => model.compile(Adam::default(), Loss::MeanSquaredError)?,
            _ => model.compile(Sgd::new(LEARNING_RATE)?, Loss::MeanSquaredError)?,
        };
        let sizes = (shape.batch, shape.seq_len, s.input_size);
        let inputs = Values::new(sizes.0.saturating_mul(sizes.1).saturating_mul(sizes.2), 1.0, 3);
        let targets = Values::new(shape.batch, 1.0, 4);
        let shaped = |error: ndarray::ShapeError| Error::Shape {
            tensor: "x".to_owned(),
            expected: "[batch, seq_len, input_size]".to_owned(),
            got: error.to_string(),
        };
        let x = Array3::from_shape_vec(sizes, inputs.iter().map(E::of).collect()).map_err(shaped)?;
        let y = Array2::from_shape_vec((shape.batch, 1), targets.iter().map(E::of).collect()).map_err(shaped)?;
        Ok(TrainStep { step: Box::new(move || model.train_on_batch(&x, &y)), weights })
    }

    /// One step; the loss before it.
    pub fn run(&mut self) -> Result<f64> {
        (self.step)()
    }

    /// The losses of the first steps.
    pub fn losses(&mut self) -> Result<Vec<f64>> {
        (0..COMPARED).map(|_| self.run()).collect()
    }
}

/// PyTorch's name of a weight of a stack: `bidirectional_1.backward.weight_ih_l0` is `weight_ih_l1_reverse`. `layers` are those seen
/// before.
fn as_in_torch(name: &str, layers: &mut Vec<String>) -> String {
    let layer = name.split('.').next().unwrap_or_default();
    if !layers.iter().any(|seen| seen == layer) {
        layers.push(layer.to_owned());
    }
    let own = name.rsplit('.').next().unwrap_or_default();
    let reverse = if name.contains(".backward.") { "_reverse" } else { "" };
    match own.split_once("_l0") {
        Some((stem, _)) => format!("{stem}_l{}{reverse}", layers.len() - 1),
        None => own.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::as_in_torch;

    #[test]
    fn weights_are_named_as_in_torch() {
        let mut layers = Vec::new();
        let names =
            ["lstm.weight_ih_l0", "lstm.bias_ih_l0", "bidirectional.backward.weight_hh_l0_reverse", "dense.kernel"];
        let found = names.map(|name| as_in_torch(name, &mut layers));
        assert_eq!(found, ["weight_ih_l0", "bias_ih_l0", "weight_hh_l1_reverse", "kernel"]);
    }
}
