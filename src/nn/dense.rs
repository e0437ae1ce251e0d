//! The fully connected layer.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeError};
use serde::{Deserialize, Serialize};

use crate::backend::HostBackend;
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::nn::{Backward, Forward, Layer, Parameter, Random, init};
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

    pub(super) fn build(&self, name: &str, input_shape: &[usize]) -> Result<DenseLayer> {
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
        Ok(DenseLayer {
            features,
            units: self.units,
            rows: checked_len(name, &leading.iter().map(|n| ("axis", *n)).collect::<Vec<_>>())?,
            output_shape,
            parameters: vec![
                Parameter { name: "weight".to_owned(), shape: vec![self.units, features], range: 0..weight },
                Parameter { name: "bias".to_owned(), shape: vec![self.units], range: weight..weight + self.units },
            ],
        })
    }
}

impl From<Dense> for super::LayerConfig {
    fn from(config: Dense) -> Self {
        super::LayerConfig::Dense(config)
    }
}

pub(super) struct DenseLayer {
    features: usize,
    units: usize,
    /// Rows of `features` in one sample.
    rows: usize,
    output_shape: Vec<usize>,
    parameters: Vec<Parameter>,
}

/// Below this many products, plain loops are faster than packing for a matrix product.
const SMALL: usize = 1 << 13;

fn mismatch(e: ShapeError) -> Error {
    Error::shape("Dense", "buffers of the layer's sizes", e.to_string())
}

impl<E: Scalar, B: HostBackend<E>> Layer<E, B> for DenseLayer {
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

    fn forward(&mut self, _backend: &B, pass: Forward<'_, E>) -> Result<()> {
        let (features, units, rows) = (self.features, self.units, self.rows * pass.batch);
        let (weight, bias) = pass.parameters.split_at(units * features);
        pass.y.chunks_exact_mut(units).for_each(|row| row.copy_from_slice(bias));
        if rows * units * features <= SMALL {
            for (x, y) in pass.x.chunks_exact(features).zip(pass.y.chunks_exact_mut(units)) {
                for (y, w) in y.iter_mut().zip(weight.chunks_exact(features)) {
                    *y += dot(x, w);
                }
            }
            return Ok(());
        }
        let x = ArrayView2::from_shape((rows, features), pass.x).map_err(mismatch)?;
        let w = ArrayView2::from_shape((units, features), weight).map_err(mismatch)?;
        let mut y = ArrayViewMut2::from_shape((rows, units), pass.y).map_err(mismatch)?;
        general_mat_mul(E::one(), &x, &w.t(), E::one(), &mut y);
        Ok(())
    }

    fn backward(&mut self, _backend: &B, pass: Backward<'_, E>) -> Result<()> {
        let (features, units, rows) = (self.features, self.units, self.rows * pass.batch);
        let weight = &pass.parameters[..units * features];
        let (dweight, dbias) = pass.dparameters.split_at_mut(units * features);
        dbias.fill(E::zero());
        for dy in pass.dy.chunks_exact(units) {
            dbias.iter_mut().zip(dy).for_each(|(db, d)| *db += *d);
        }
        if rows * units * features <= SMALL {
            dweight.fill(E::zero());
            for (x, dy) in pass.x.chunks_exact(features).zip(pass.dy.chunks_exact(units)) {
                for (dw, d) in dweight.chunks_exact_mut(features).zip(dy) {
                    dw.iter_mut().zip(x).for_each(|(dw, x)| *dw += *d * *x);
                }
            }
            if let Some(dx) = pass.dx {
                for (dx, dy) in dx.chunks_exact_mut(features).zip(pass.dy.chunks_exact(units)) {
                    dx.fill(E::zero());
                    for (w, d) in weight.chunks_exact(features).zip(dy) {
                        dx.iter_mut().zip(w).for_each(|(dx, w)| *dx += *d * *w);
                    }
                }
            }
            return Ok(());
        }
        let x = ArrayView2::from_shape((rows, features), pass.x).map_err(mismatch)?;
        let dy = ArrayView2::from_shape((rows, units), pass.dy).map_err(mismatch)?;
        let mut dw = ArrayViewMut2::from_shape((units, features), dweight).map_err(mismatch)?;
        general_mat_mul(E::one(), &dy.t(), &x, E::zero(), &mut dw);
        if let Some(dx) = pass.dx {
            let w = ArrayView2::from_shape((units, features), weight).map_err(mismatch)?;
            let mut dx = ArrayViewMut2::from_shape((rows, features), dx).map_err(mismatch)?;
            general_mat_mul(E::one(), &dy, &w, E::zero(), &mut dx);
        }
        Ok(())
    }
}

fn dot<E: Scalar>(a: &[E], b: &[E]) -> E {
    // Eight sums, so that the compiler may use vector registers; the order is fixed.
    let mut sums = [E::zero(); 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: E = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| *x * *y).sum();
    for (x, y) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.into_iter().sum::<E>() + tail
}
