//! Pooling over time: [`GlobalAveragePooling1D`], [`GlobalMaxPooling1D`], [`AveragePooling1D`], [`MaxPooling1D`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::{Strides, Workspace};
use crate::backend::{Device, WeightGrad};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::masking::row_mask;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::windows::{Padding, Windows};
use crate::nn::{Scratch, one_input};

/// The shape of an input `[steps, features]`.
pub(super) fn steps_and_features(builder: &Builder, x: &Value) -> Result<(usize, usize)> {
    match x.shape() {
        &[steps, features] => Ok((steps, features)),
        shape => Err(Error::shape(builder.name(), "inputs of shape [steps, features]", format!("{shape:?}"))),
    }
}

/// The mean over the steps, Keras's
/// [`GlobalAveragePooling1D`](https://keras.io/api/layers/pooling_layers/global_average_pooling1d/): `[steps, features]` to `[features]`.
/// Steps that a mask says are absent are left out; the mean of none is zero. The mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::GlobalAveragePooling1D};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[3, 1], 1)?;
/// model.add(GlobalAveragePooling1D::new())?;
/// assert_eq!(model.predict(&array![[[1.0f32], [2.0], [6.0]]])?, array![[3.0f32]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
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
        Ok(vec![builder.op(op, &[Some(x), row_mask(builder, x)?], &[&[features]], 0..0, 0..0)?.remove(0)])
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
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::GlobalMaxPooling1D};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[3, 1], 1)?;
/// model.add(GlobalMaxPooling1D::new())?;
/// assert_eq!(model.predict(&array![[[1.0f32], [2.0], [6.0]]])?, array![[6.0f32]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
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
        Ok(vec![builder.op(op, &[Some(x), row_mask(builder, x)?], &[&[features]], 0..0, 0..0)?.remove(0)])
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
        /// Windows of `pool_size` steps, one every `strides`: `[steps, features]` to `[windows, features]`. Steps of padding do not count. A
        /// mask ends here.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $layer {
            /// Steps of a window.
            pub pool_size: usize,
            /// Steps from one window to the next; as many as a window has.
            #[serde(default)]
            pub strides: Option<usize>,
            /// What stands before the first step and after the last; nothing, so that there are as many windows as fit.
            #[serde(default, skip_serializing_if = "Padding::is_valid")]
            pub padding: Padding,
        }

        impl $layer {
            /// Windows of `pool_size` steps side by side.
            pub fn new(pool_size: usize) -> Self {
                $layer { pool_size, strides: None, padding: Padding::Valid }
            }

            /// Sets the steps from one window to the next.
            #[must_use]
            pub fn strides(self, strides: usize) -> Self {
                $layer { strides: Some(strides), ..self }
            }

            /// Sets what stands before the first step and after the last.
            #[must_use]
            pub fn padding(self, padding: Padding) -> Self {
                $layer { padding, ..self }
            }

            pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
                let x = one_input(builder, inputs)?;
                let strides = self.strides.unwrap_or(self.pool_size);
                Ok(vec![pooled(builder, x, self.pool_size, strides, self.padding, $mean)?])
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

fn pooled(
    builder: &mut Builder,
    x: &Value,
    size: usize,
    strides: usize,
    padding: Padding,
    mean: bool,
) -> Result<Value> {
    let (steps, features) = steps_and_features(builder, x)?;
    let name = builder.name();
    match padding {
        Padding::Causal => {
            return Err(Error::option(format!("padding of {name}"), "valid, same or steps", "causal"));
        }
        // A window of padding alone would have no largest, and no mean.
        Padding::Steps { before, after } if before.max(after) >= size.max(1) => {
            let expected = format!("fewer steps on each side than pool_size {size}");
            return Err(Error::option(format!("padding of {name}"), expected, before.max(after)));
        }
        _ => {}
    }
    let windows = Windows::new(&name, "pool_size", [steps, features], size, strides, 1, padding)?;
    let count = windows.count;
    let absent = if mean { 0.0 } else { f64::NEG_INFINITY };
    let steps = builder.op1(WindowSteps { windows, absent }, &[x], &[count, size, features], 0..0)?;
    if mean {
        let op = WindowMean {
            windows,
            ones: Scratch::new(),
            valid: Scratch::new(),
            counts: Scratch::new(),
            sums: Scratch::new(),
            workspace: Scratch::new(),
        };
        builder.op1(op, &[&steps], &[count, features], 0..0)
    } else {
        let op = Largest { windows: count, steps: size, features, positions: Scratch::new() };
        builder.op1(op, &[&steps], &[count, features], 0..0)
    }
}

/// The steps of each window, which may overlap; `absent` for padding.
struct WindowSteps {
    windows: Windows,
    absent: f64,
}

impl Op for WindowSteps {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        self.windows.gather(device, pass.batch, pass.inputs.get(0)?, pass.outputs.get(0)?, self.absent)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        self.windows.scatter(device, pass.batch, pass.doutputs.get(0)?, pass.dinputs.get(0)?)
    }
}

/// The mean of each window, of the steps in it that are no padding.
struct WindowMean {
    windows: Windows,
    /// Ones for every step, the same in windows, and how many each window has; only with padding.
    ones: Scratch,
    valid: Scratch,
    counts: Scratch,
    sums: Scratch,
    workspace: Scratch,
}

impl WindowMean {
    /// Counts the steps of each window that are no padding.
    fn count(&mut self, device: &Device, batch: usize) -> Result<()> {
        let of_steps = Windows { features: 1, ..self.windows };
        let (steps, windows) = (batch * of_steps.steps, batch * of_steps.count);
        self.ones.grow(device, "steps", steps)?;
        device.fill(self.ones.get_mut(steps)?, 1.0)?;
        let len = of_steps.len(batch);
        self.valid.grow(device, "valid steps", len)?;
        of_steps.gather(device, batch, self.ones.get(steps)?, self.valid.get_mut(len)?, 0.0)?;
        self.counts.grow(device, "number of valid steps", windows)?;
        let sizes = [windows, of_steps.size, 1];
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
        device.sum_axis(sizes, 1.0, self.valid.get(len)?, self.counts.get_mut(windows)?, WeightGrad::Set, workspace)
    }
}

impl Op for WindowMean {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (rows, features) = (pass.batch * self.windows.count, self.windows.features);
        let sizes = [rows, self.windows.size, features];
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        if !self.windows.padded() {
            let scale = 1.0 / self.windows.size as f64;
            let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
            return device.sum_axis(sizes, scale, x, y, WeightGrad::Set, workspace);
        }
        self.count(device, pass.batch)?;
        self.sums.grow(device, "sums of windows", rows * features)?;
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
        device.sum_axis(sizes, 1.0, x, self.sums.get_mut(rows * features)?, WeightGrad::Set, workspace)?;
        device.scale_rows(self.counts.get(rows)?, true, self.sums.get(rows * features)?, y)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (rows, features) = (pass.batch * self.windows.count, self.windows.features);
        let (shape, once, every) = repeated_layouts(rows, self.windows.size, features);
        let (dy, mut dx) = (pass.doutputs.get(0)?, pass.dinputs.get(0)?);
        if !self.windows.padded() {
            device.strided_copy(shape, dy, once, dx.reborrow(), every, WeightGrad::Set)?;
            return device.scale(1.0 / self.windows.size as f64, dx);
        }
        device.scale_rows(self.counts.get(rows)?, true, dy, self.sums.get_mut(rows * features)?)?;
        device.strided_copy(shape, self.sums.get(rows * features)?, once, dx, every, WeightGrad::Set)
    }
}
