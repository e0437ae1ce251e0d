//! The fully connected layer.

use serde::{Deserialize, Serialize};

use crate::backend::dense::{DenseCall, Orientation, Product};
use crate::backend::{DenseBackend, WeightGrad};
use crate::cell::Activation;
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::nn::{Backward, Forward, Layer, Parameter, Random, Scratch, init};
use crate::rnn::shape::checked_len;

/// `y = x Wᵀ + b` along the last axis, Keras's [`Dense`](https://keras.io/api/layers/core_layers/dense/) without activation:
/// `[…, features]` to `[…, units]`. Weights `weight` `[units, features]` (Glorot uniform) and `bias` `[units]` (zeros).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Width of the output.
    pub units: usize,
}

impl Dense {
    /// A layer with `units` outputs.
    pub fn new(units: usize) -> Self {
        Dense { units }
    }

    pub(super) fn build<E: Scalar, B: DenseBackend<Elem = E> + 'static>(
        &self,
        name: &str,
        input_shape: &[usize],
    ) -> Result<Box<dyn Layer<E, B>>> {
        let Some((&features, leading)) = input_shape.split_last() else {
            return Err(Error::shape(name, "inputs of at least one axis", "none"));
        };
        for (size, name) in [(self.units, "units"), (features, "features")] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        let weight = checked_len(name, &[("units", self.units), ("features", features)])?;
        checked_len(name, &[("elements", weight.saturating_add(self.units))])?;
        let mut output_shape = input_shape.to_vec();
        output_shape[leading.len()] = self.units;
        Ok(Box::new(DenseLayer::<B> {
            features,
            units: self.units,
            rows: checked_len(name, &leading.iter().map(|n| ("axis", *n)).collect::<Vec<_>>())?,
            output_shape,
            parameters: vec![
                Parameter { name: "weight".to_owned(), shape: vec![self.units, features], range: 0..weight },
                Parameter { name: "bias".to_owned(), shape: vec![self.units], range: weight..weight + self.units },
            ],
            workspace: Scratch::new(),
        }))
    }
}

impl From<Dense> for super::LayerConfig {
    fn from(config: Dense) -> Self {
        super::LayerConfig::Dense(config)
    }
}

struct DenseLayer<B: DenseBackend> {
    features: usize,
    units: usize,
    /// Rows of `features` in one sample.
    rows: usize,
    output_shape: Vec<usize>,
    parameters: Vec<Parameter>,
    workspace: Scratch<B>,
}

impl<B: DenseBackend> DenseLayer<B> {
    fn product(&self, orientation: Orientation, batch: usize) -> Product {
        let (rows, units, features) = (self.rows * batch, self.units, self.features);
        match orientation {
            Orientation::Nt => Product { orientation, m: rows, n: units, k: features },
            Orientation::Nn => Product { orientation, m: rows, n: features, k: units },
            Orientation::Tn => Product { orientation, m: units, n: features, k: rows },
        }
    }
}

impl<E: Scalar, B: DenseBackend<Elem = E>> Layer<E, B> for DenseLayer<B> {
    fn class_name(&self) -> &'static str {
        "Dense"
    }

    fn output_shape(&self) -> &[usize] {
        &self.output_shape
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn initialize(&self, parameters: &mut [E], random: &mut Random) {
        let (weight, bias) = parameters.split_at_mut(self.units * self.features);
        init::glorot_uniform(weight, self.features, self.units, random);
        bias.fill(E::zero());
    }

    fn forward(&mut self, backend: &B, pass: Forward<'_, B>) -> Result<()> {
        let split = self.units * self.features;
        let product = self.product(Orientation::Nt, pass.batch);
        self.workspace.grow(backend, "workspace", backend.dense_workspace(DenseCall::Gemm(product)))?;
        let weight = backend.view(pass.parameters, 0..split)?;
        let bias = backend.view(pass.parameters, split..split + self.units)?;
        backend.gemm(product, pass.x, &weight, pass.y, WeightGrad::Set, self.workspace.all()?)?;
        backend.add_bias_activate(Activation::Linear, Some(&bias), pass.y, None)
    }

    fn backward(&mut self, backend: &B, pass: Backward<'_, B>) -> Result<()> {
        let split = self.units * self.features;
        let of_weight = self.product(Orientation::Tn, pass.batch);
        let of_input = self.product(Orientation::Nn, pass.batch);
        let sums = DenseCall::ColumnSums { rows: self.rows * pass.batch, columns: self.units };
        let calls = [DenseCall::Gemm(of_weight), DenseCall::Gemm(of_input), sums];
        let most = calls.into_iter().map(|call| backend.dense_workspace(call)).max().unwrap_or(0);
        self.workspace.grow(backend, "workspace", most)?;
        let workspace = self.workspace.all()?;
        let mut dbias = backend.view_mut(pass.dparameters, split..split + self.units)?;
        backend.column_sums(pass.dy, &mut dbias, WeightGrad::Set, workspace)?;
        drop(dbias);
        let mut dweight = backend.view_mut(pass.dparameters, 0..split)?;
        backend.gemm(of_weight, pass.dy, pass.x, &mut dweight, WeightGrad::Set, workspace)?;
        match pass.dx {
            Some(dx) => {
                let weight = backend.view(pass.parameters, 0..split)?;
                backend.gemm(of_input, pass.dy, &weight, dx, WeightGrad::Set, workspace)
            }
            None => Ok(()),
        }
    }
}
