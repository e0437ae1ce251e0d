//! Pooling over time: [`GlobalAveragePooling1D`], [`GlobalMaxPooling1D`], [`AveragePooling1D`], [`MaxPooling1D`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::{Strides, Workspace};
use crate::backend::{Device, WeightGrad};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};

fn steps_and_features(builder: &Builder, x: &Value) -> Result<(usize, usize)> {
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

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (steps, features) = steps_and_features(builder, x)?;
        let (kept, count, workspace) = (Scratch::new(), Scratch::new(), Scratch::new());
        let op = Mean { steps, features, kept, count, workspace };
        Ok(vec![builder.op(op, &[Some(x), x.mask()], &[&[features]], 0..0, 0..0)?.remove(0)])
    }
}

/// Mean over the steps; input 1, where it is there, is the mask.
struct Mean {
    steps: usize,
    features: usize,
    /// Valid steps, or sums, depending on the pass; only with a mask.
    kept: Scratch,
    count: Scratch,
    workspace: Scratch,
}

impl Op for Mean {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (batch, steps, features) = (pass.batch, self.steps, self.features);
        let (x, mut y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        let sizes = [batch, steps, features];
        let Some(mask) = pass.inputs.optional(1) else {
            let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
            return device.sum_axis(sizes, 1.0 / steps as f64, x, y, WeightGrad::Set, workspace);
        };
        self.kept.grow(device, "valid steps", batch * steps * features)?;
        self.count.grow(device, "number of valid steps", batch)?;
        let of_mask = [batch, steps, 1];
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(of_mask))?;
        device.sum_axis(of_mask, 1.0, mask, self.count.get_mut(batch)?, WeightGrad::Set, workspace)?;
        device.select_rows(mask, x, None, self.kept.get_mut(batch * steps * features)?)?;
        let kept = self.kept.get(batch * steps * features)?;
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
        device.sum_axis(sizes, 1.0, kept, y.reborrow(), WeightGrad::Set, workspace)?;
        // The first step's place is free once all are summed; a tensor of its own would be as large as y.
        device.copy(y.view(), self.kept.get_mut(batch * features)?)?;
        device.scale_rows(self.count.get(batch)?, true, self.kept.get(batch * features)?, y)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (batch, steps, features) = (pass.batch, self.steps, self.features);
        let (dy, mut dx) = (pass.doutputs.get(0)?, pass.dinputs.get(0)?);
        let (shape, once, every) = repeated_layouts(batch, steps, features);
        let Some(mask) = pass.inputs.optional(1) else {
            device.strided_copy(shape, dy, once, dx.reborrow(), every, WeightGrad::Set)?;
            return device.scale(1.0 / steps as f64, dx);
        };
        device.scale_rows(self.count.get(batch)?, true, dy, self.kept.get_mut(batch * features)?)?;
        // Repeated over the steps in dx, then those that count.
        let part = self.kept.get(batch * features)?;
        device.strided_copy(shape, part, once, dx.reborrow(), every, WeightGrad::Set)?;
        device.copy(dx.view(), self.kept.get_mut(batch * steps * features)?)?;
        device.select_rows(mask, self.kept.get(batch * steps * features)?, None, dx)
    }
}

/// How `[count, features]` is copied to each of the steps of `[count, steps, features]`.
fn repeated_layouts(count: usize, steps: usize, features: usize) -> ([usize; 4], Strides, Strides) {
    let (f, size) = (features as isize, (steps * features) as isize);
    let once = Strides { offset: 0, strides: [0, f, 0, 1] };
    ([1, count, steps, features], once, Strides { offset: 0, strides: [0, size, f, 1] })
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

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (steps, features) = steps_and_features(builder, x)?;
        let op = Largest { windows: 1, steps, features, positions: Scratch::new() };
        Ok(vec![builder.op(op, &[Some(x), x.mask()], &[&[features]], 0..0, 0..0)?.remove(0)])
    }
}

/// The largest of each feature in each window of steps, windows standing one after the other; input 1, where it is there, is the mask.
struct Largest {
    windows: usize,
    steps: usize,
    features: usize,
    positions: Scratch,
}

impl Op for Largest {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let rows = pass.batch * self.windows;
        let len = rows * self.features;
        self.positions.grow_as(device, "positions", DType::U32, len)?;
        let sizes = [rows, self.steps, self.features];
        let mask = pass.inputs.optional(1);
        device.max_axis(sizes, pass.inputs.get(0)?, mask, pass.outputs.get(0)?, self.positions.get_mut(len)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let rows = pass.batch * self.windows;
        if self.positions.is_empty() {
            let problem = "backward needs a forward pass before it".to_owned();
            return Err(Error::Presence { tensor: "positions of maxima".to_owned(), problem });
        }
        let positions = self.positions.get(rows * self.features)?;
        let sizes = [rows, self.steps, self.features];
        device.max_axis_gradient(sizes, pass.doutputs.get(0)?, positions, pass.dinputs.get(0)?)
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

            pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
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

fn windows(builder: &mut Builder, x: &Value, size: usize, strides: usize, mean: bool) -> Result<Value> {
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
        let op = WindowMean { count, size, features, workspace: Scratch::new() };
        builder.op1(op, &[&windows], &[count, features], 0..0)?
    } else {
        let op = Largest { windows: count, steps: size, features, positions: Scratch::new() };
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

impl Op for Windows {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        for window in 0..self.count {
            let (shape, from, to) = self.layouts(pass.batch, window);
            device.strided_copy(shape, pass.inputs.get(0)?, from, pass.outputs.get(0)?, to, WeightGrad::Set)?;
        }
        Ok(())
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let mut dx = pass.dinputs.get(0)?;
        device.fill(dx.reborrow(), 0.0)?;
        for window in 0..self.count {
            let (shape, from, to) = self.layouts(pass.batch, window);
            device.strided_copy(shape, pass.doutputs.get(0)?, to, dx.reborrow(), from, WeightGrad::Add)?;
        }
        Ok(())
    }
}

/// The mean of each window.
struct WindowMean {
    count: usize,
    size: usize,
    features: usize,
    workspace: Scratch,
}

impl Op for WindowMean {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let sizes = [pass.batch * self.count, self.size, self.features];
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
        let scale = 1.0 / self.size as f64;
        device.sum_axis(sizes, scale, pass.inputs.get(0)?, pass.outputs.get(0)?, WeightGrad::Set, workspace)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (shape, once, every) = repeated_layouts(pass.batch * self.count, self.size, self.features);
        let mut dx = pass.dinputs.get(0)?;
        device.strided_copy(shape, pass.doutputs.get(0)?, once, dx.reborrow(), every, WeightGrad::Set)?;
        device.scale(1.0 / self.size as f64, dx)
    }
}
