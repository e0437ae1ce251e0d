//! Pooling over time: [`GlobalAveragePooling1D`], [`GlobalMaxPooling1D`], [`AveragePooling1D`], [`MaxPooling1D`].

use std::borrow::{Borrow, BorrowMut};

use serde::{Deserialize, Serialize};

use crate::backend::tensor::Strides;
use crate::backend::{DenseBackend, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};

fn steps_and_features<B: DenseBackend + 'static>(builder: &Builder<B>, x: &Value) -> Result<(usize, usize)> {
    match x.shape() {
        &[steps, features] => Ok((steps, features)),
        shape => Err(Error::shape(builder.name(), "inputs of shape [steps, features]", format!("{shape:?}"))),
    }
}

/// The mean over the steps, Keras's
/// [`GlobalAveragePooling1D`](https://keras.io/api/layers/pooling_layers/global_average_pooling1d/): `[steps, features]` to `[features]`.
/// Steps that a mask says are absent are left out; the mean of none is zero. The mask ends here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalAveragePooling1D {}

impl GlobalAveragePooling1D {
    /// The layer.
    pub fn new() -> Self {
        Self {}
    }

    pub(super) fn build<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (steps, features) = steps_and_features(builder, x)?;
        let op = Mean::<B> { steps, features, kept: Scratch::new(), count: Scratch::new() };
        Ok(vec![builder.op(op, &[Some(x), x.mask()], &[&[features]], 0..0, 0..0)?.remove(0)])
    }
}

/// Mean over the steps; input 1, where it is there, is the mask.
struct Mean<B: DenseBackend> {
    steps: usize,
    features: usize,
    /// Valid steps, or sums, depending on the pass; only with a mask.
    kept: Scratch<B>,
    count: Scratch<B>,
}

impl<B: DenseBackend> Op<B> for Mean<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let (batch, steps, features) = (pass.batch, self.steps, self.features);
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        let Some(mask) = pass.inputs.optional(1) else {
            return backend.sum_axis([batch, steps, features], 1.0 / steps as f64, x, y, WeightGrad::Set);
        };
        self.kept.grow(backend, "valid steps", batch * steps * features)?;
        self.count.grow(backend, "number of valid steps", batch)?;
        let mut count = self.count.get_mut(backend, batch)?;
        backend.sum_axis([batch, steps, 1], 1.0, mask, &mut count, WeightGrad::Set)?;
        let mut kept = self.kept.get_mut(backend, batch * steps * features)?;
        backend.select_rows(mask, x, None, &mut kept)?;
        // The first step's place is free once all are summed; a tensor of its own would be as large as y.
        backend.sum_axis([batch, steps, features], 1.0, &kept, y, WeightGrad::Set)?;
        drop(kept);
        let mut sums = self.kept.get_mut(backend, batch * features)?;
        backend.copy(y, &mut sums)?;
        backend.scale_rows(&count, true, &sums, y)
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let (batch, steps, features) = (pass.batch, self.steps, self.features);
        let (dy, dx) = (pass.doutputs.get(0)?, pass.dinputs.get(0)?);
        let (f, size) = (features as isize, (steps * features) as isize);
        let shape = [1, batch, steps, features];
        let (once, every) =
            (Strides { offset: 0, strides: [0, f, 0, 1] }, Strides { offset: 0, strides: [0, size, f, 1] });
        let Some(mask) = pass.inputs.optional(1) else {
            backend.strided_copy(shape, dy, once, dx, every, WeightGrad::Set)?;
            return backend.scale(1.0 / steps as f64, dx);
        };
        let count = self.count.get(backend, batch)?;
        let mut part = self.kept.get_mut(backend, batch * features)?;
        backend.scale_rows(&count, true, dy, &mut part)?;
        drop(part);
        // Repeated over the steps in dx, then those that count.
        backend.strided_copy(shape, &*self.kept.get(backend, batch * features)?, once, dx, every, WeightGrad::Set)?;
        let mut all = self.kept.get_mut(backend, batch * steps * features)?;
        backend.copy(dx, &mut all)?;
        backend.select_rows(mask, &all, None, dx)
    }
}

/// The largest of each feature over the steps, Keras's
/// [`GlobalMaxPooling1D`](https://keras.io/api/layers/pooling_layers/global_max_pooling1d/): `[steps, features]` to `[features]`. Steps that
/// a mask says are absent are left out (Keras looks at them too); the largest of none is zero. The mask ends here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalMaxPooling1D {}

impl GlobalMaxPooling1D {
    /// The layer.
    pub fn new() -> Self {
        Self {}
    }

    pub(super) fn build<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (steps, features) = steps_and_features(builder, x)?;
        let op = Largest::<B> { windows: 1, steps, features, positions: None };
        Ok(vec![builder.op(op, &[Some(x), x.mask()], &[&[features]], 0..0, 0..0)?.remove(0)])
    }
}

/// The largest of each feature in each window of steps, windows standing one after the other; input 1, where it is there, is the mask.
struct Largest<B: DenseBackend> {
    windows: usize,
    steps: usize,
    features: usize,
    positions: Option<(usize, B::Owned<u32>)>,
}

impl<B: DenseBackend> Op<B> for Largest<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let rows = pass.batch * self.windows;
        let len = rows * self.features;
        if self.positions.as_ref().is_none_or(|(most, _)| *most < len) {
            self.positions = Some((len, backend.allocate("positions", len)?));
        }
        let Some((_, positions)) = &mut self.positions else { return Ok(()) };
        let mut positions = backend.view_mut(positions.borrow_mut(), 0..len)?;
        let sizes = [rows, self.steps, self.features];
        let mask = pass.inputs.optional(1);
        backend.max_axis(sizes, pass.inputs.get(0)?, mask, pass.outputs.get(0)?, &mut positions)
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let rows = pass.batch * self.windows;
        let Some((_, positions)) = &self.positions else {
            let problem = "backward needs a forward pass before it".to_owned();
            return Err(Error::Presence { tensor: "positions of maxima".to_owned(), problem });
        };
        let positions = backend.view(positions.borrow(), 0..rows * self.features)?;
        let sizes = [rows, self.steps, self.features];
        backend.max_axis_gradient(sizes, pass.doutputs.get(0)?, &positions, pass.dinputs.get(0)?)
    }
}

/// What both windowed layers have in common.
macro_rules! windowed {
    ($(#[$doc:meta])* $layer:ident, $mean:literal) => {
        $(#[$doc])*
        /// Windows of `pool_size` steps, one every `strides`, as many as fit: `[steps, features]` to
        /// `[(steps - pool_size) / strides + 1, features]`. A mask ends here.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $layer {
            /// Steps of a window.
            pub pool_size: usize,
            /// Steps from one window to the next; as many as a window has.
            #[serde(default)]
            pub strides: Option<usize>,
        }

        impl $layer {
            /// Windows of `pool_size` steps side by side.
            pub fn new(pool_size: usize) -> Self {
                $layer { pool_size, strides: None }
            }

            /// Sets the steps from one window to the next.
            #[must_use]
            pub fn strides(self, strides: usize) -> Self {
                $layer { strides: Some(strides), ..self }
            }

            pub(super) fn build<B: DenseBackend + 'static>(
                &self,
                builder: &mut Builder<B>,
                inputs: &[Value],
            ) -> Result<Vec<Value>> {
                let x = one_input(builder, inputs)?;
                Ok(vec![windows(builder, x, self.pool_size, self.strides.unwrap_or(self.pool_size), $mean)?])
            }
        }
    };
}

windowed! {
    /// The mean of each window, Keras's [`AveragePooling1D`](https://keras.io/api/layers/pooling_layers/average_pooling1d/).
    AveragePooling1D, true
}
windowed! {
    /// The largest of each feature in each window, Keras's [`MaxPooling1D`](https://keras.io/api/layers/pooling_layers/max_pooling1d/).
    MaxPooling1D, false
}

fn windows<B: DenseBackend + 'static>(
    builder: &mut Builder<B>,
    x: &Value,
    size: usize,
    strides: usize,
    mean: bool,
) -> Result<Value> {
    let (steps, features) = steps_and_features(builder, x)?;
    for (size, name) in [(size, "pool_size"), (strides, "strides")] {
        if size == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    if size > steps {
        return Err(Error::shape(builder.name(), format!("at least pool_size {size} steps"), format!("{steps} steps")));
    }
    let count = (steps - size) / strides + 1;
    let all = Windows { count, size, strides, steps, features };
    let windows = builder.op1(all, &[x], &[count, size, features], 0..0)?;
    let pooled: Value = if mean {
        builder.op1(WindowMean { count, size, features }, &[&windows], &[count, features], 0..0)?
    } else {
        let op = Largest::<B> { windows: count, steps: size, features, positions: None };
        builder.op1(op, &[&windows], &[count, features], 0..0)?
    };
    Ok(pooled)
}

/// The steps of each window, which may overlap.
struct Windows {
    count: usize,
    size: usize,
    strides: usize,
    steps: usize,
    features: usize,
}

impl Windows {
    /// Window number `window` of all samples.
    fn layouts(&self, batch: usize, window: usize) -> ([usize; 4], Strides, Strides) {
        let (sample, row) = ((self.steps * self.features) as isize, self.features as isize);
        let of_window = self.size * self.features;
        let from = Strides { offset: window * self.strides * self.features, strides: [0, sample, row, 1] };
        let to = Strides { offset: window * of_window, strides: [0, (self.count * of_window) as isize, row, 1] };
        ([1, batch, self.size, self.features], from, to)
    }
}

impl<B: DenseBackend> Op<B> for Windows {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        for window in 0..self.count {
            let (shape, from, to) = self.layouts(pass.batch, window);
            backend.strided_copy(shape, pass.inputs.get(0)?, from, pass.outputs.get(0)?, to, WeightGrad::Set)?;
        }
        Ok(())
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let dx = pass.dinputs.get(0)?;
        backend.fill(dx, 0.0)?;
        for window in 0..self.count {
            let (shape, from, to) = self.layouts(pass.batch, window);
            backend.strided_copy(shape, pass.doutputs.get(0)?, to, dx, from, WeightGrad::Add)?;
        }
        Ok(())
    }
}

/// The mean of each window.
struct WindowMean {
    count: usize,
    size: usize,
    features: usize,
}

impl<B: DenseBackend> Op<B> for WindowMean {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let sizes = [pass.batch * self.count, self.size, self.features];
        let scale = 1.0 / self.size as f64;
        backend.sum_axis(sizes, scale, pass.inputs.get(0)?, pass.outputs.get(0)?, WeightGrad::Set)
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let (f, window) = (self.features as isize, (self.size * self.features) as isize);
        let shape = [1, pass.batch * self.count, self.size, self.features];
        let once = Strides { offset: 0, strides: [0, f, 0, 1] };
        let every = Strides { offset: 0, strides: [0, window, f, 1] };
        let dx = pass.dinputs.get(0)?;
        backend.strided_copy(shape, pass.doutputs.get(0)?, once, dx, every, WeightGrad::Set)?;
        backend.scale(1.0 / self.size as f64, dx)
    }
}
