//! The fully connected layer.

use serde::{Deserialize, Serialize};

use crate::backend::dense::{DenseCall, Orientation, Product};
use crate::backend::{DenseBackend, WeightGrad};
use crate::cell;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{ActivationFunction, Scratch, one_input};

/// `y = f(x Wᵀ + b)` along the last axis, Keras's [`Dense`](https://keras.io/api/layers/core_layers/dense/): `[…, features]` to
/// `[…, units]`. Weights `weight` `[units, features]` (Glorot uniform) and `bias` `[units]` (zeros). A mask passes through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Width of the output.
    pub units: usize,
    /// f; linear.
    #[serde(default)]
    pub activation: ActivationFunction,
    /// Whether there is a bias; yes.
    #[serde(default = "yes")]
    pub use_bias: bool,
}

fn yes() -> bool {
    true
}

impl Dense {
    /// A layer with `units` outputs.
    pub fn new(units: usize) -> Self {
        Dense { units, activation: ActivationFunction::Linear, use_bias: true }
    }

    /// Sets the activation function.
    #[must_use]
    pub fn activation(self, activation: ActivationFunction) -> Self {
        Dense { activation, ..self }
    }

    /// Sets whether there is a bias.
    #[must_use]
    pub fn use_bias(self, use_bias: bool) -> Self {
        Dense { use_bias, ..self }
    }

    pub(super) fn build<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        Ok(vec![self.apply(builder, x)?])
    }

    /// The layer's output for `x`, as a part of a layer too.
    pub(super) fn apply<B: DenseBackend + 'static>(&self, builder: &mut Builder<B>, x: &Value) -> Result<Value> {
        let Some((&features, leading)) = x.shape().split_last() else {
            return Err(Error::shape(builder.name(), "inputs of at least one axis", "none"));
        };
        if self.units == 0 {
            return Err(Error::ZeroSize { name: "units" });
        }
        let shape: Vec<usize> = leading.iter().copied().chain([self.units]).collect();
        let init = Init::GlorotUniform { fan_in: features, fan_out: self.units };
        let weight = builder.parameter("weight", &[self.units, features], init)?;
        let end = match self.use_bias {
            true => builder.parameter("bias", &[self.units], Init::Constant(0.0))?.end,
            false => weight.end,
        };
        // The functions of elements that can be undone from their output need no operation, and no tensor, of their own.
        let inside = self.activation.elementwise().filter(|f| !f.derivative_needs_input());
        let op = DenseOp {
            features,
            units: self.units,
            rows: leading.iter().product(),
            use_bias: self.use_bias,
            activation: inside.unwrap_or(cell::Activation::Linear),
            dz: Scratch::new(),
            workspace: Scratch::new(),
        };
        let y = builder.op1(op, &[x], &shape, weight.start..end)?.with_mask(x.mask());
        if inside.is_some() { Ok(y) } else { self.activation.apply(builder, y) }
    }
}

/// `x Wᵀ`, with a bias where the weights `[units, features]` are followed by one.
pub(super) fn linear<B: DenseBackend + 'static>(
    builder: &mut Builder<B>,
    x: &Value,
    units: usize,
    weights: std::ops::Range<usize>,
) -> Result<Value> {
    let (features, leading) = match x.shape().split_last() {
        Some((&features, leading)) => (features, leading),
        None => return Err(Error::shape(builder.name(), "inputs of at least one axis", "none")),
    };
    let op = DenseOp {
        features,
        units,
        rows: leading.iter().product(),
        use_bias: weights.len() > units * features,
        activation: cell::Activation::Linear,
        dz: Scratch::new(),
        workspace: Scratch::new(),
    };
    let shape: Vec<usize> = leading.iter().copied().chain([units]).collect();
    Ok(builder.op1(op, &[x], &shape, weights)?.with_mask(x.mask()))
}

struct DenseOp<B: DenseBackend> {
    features: usize,
    units: usize,
    /// Rows of `features` in one sample.
    rows: usize,
    use_bias: bool,
    activation: cell::Activation,
    /// Gradient of what goes into the activation.
    dz: Scratch<B>,
    workspace: Scratch<B>,
}

impl<B: DenseBackend> DenseOp<B> {
    fn product(&self, orientation: Orientation, batch: usize) -> Product {
        let (rows, units, features) = (self.rows * batch, self.units, self.features);
        match orientation {
            Orientation::Nt => Product { orientation, m: rows, n: units, k: features },
            Orientation::Nn => Product { orientation, m: rows, n: features, k: units },
            Orientation::Tn => Product { orientation, m: units, n: features, k: rows },
        }
    }
}

impl<B: DenseBackend> Op<B> for DenseOp<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let split = self.units * self.features;
        let product = self.product(Orientation::Nt, pass.batch);
        self.workspace.grow(backend, "workspace", backend.dense_workspace(DenseCall::Gemm(product)))?;
        let weight = backend.view(pass.parameters, 0..split)?;
        let y = pass.outputs.get(0)?;
        backend.gemm(product, pass.inputs.get(0)?, &weight, y, WeightGrad::Set, self.workspace.all()?)?;
        if self.use_bias {
            let bias = backend.view(pass.parameters, split..split + self.units)?;
            backend.add_bias_activate(self.activation, Some(&bias), y, None)
        } else if self.activation != cell::Activation::Linear {
            backend.add_bias_activate(self.activation, None, y, None)
        } else {
            Ok(())
        }
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let split = self.units * self.features;
        let rows = self.rows * pass.batch;
        let of_weight = self.product(Orientation::Tn, pass.batch);
        let of_input = self.product(Orientation::Nn, pass.batch);
        let sums = DenseCall::ColumnSums { rows, columns: self.units };
        let calls = [DenseCall::Gemm(of_weight), DenseCall::Gemm(of_input), sums];
        let most = calls.into_iter().map(|call| backend.dense_workspace(call)).max().unwrap_or(0);
        self.workspace.grow(backend, "workspace", most)?;
        let dz;
        let dy = if self.activation == cell::Activation::Linear {
            pass.doutputs.get(0)?
        } else {
            self.dz.grow(backend, "dz", rows * self.units)?;
            let mut to = self.dz.get_mut(backend, rows * self.units)?;
            backend.activation_gradient(self.activation, pass.doutputs.get(0)?, pass.outputs.get(0)?, &mut to)?;
            drop(to);
            dz = self.dz.get(backend, rows * self.units)?;
            &*dz
        };
        let workspace = self.workspace.all()?;
        if self.use_bias {
            let mut dbias = backend.view_mut(pass.dparameters, split..split + self.units)?;
            backend.column_sums(dy, &mut dbias, pass.grad, workspace)?;
        }
        let mut dweight = backend.view_mut(pass.dparameters, 0..split)?;
        backend.gemm(of_weight, dy, pass.inputs.get(0)?, &mut dweight, pass.grad, workspace)?;
        match pass.dinputs.optional(0) {
            Some(dx) => {
                let weight = backend.view(pass.parameters, 0..split)?;
                backend.gemm(of_input, dy, &weight, dx, WeightGrad::Set, workspace)
            }
            None => Ok(()),
        }
    }
}
