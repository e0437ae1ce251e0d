//! The transpose of a convolution over time: [`Conv1DTranspose`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::{MatMul, Orientation, Workspace};
use crate::backend::{Device, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::defaults;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::pooling::steps_and_features;
use crate::nn::windows::{Padding, Windows};
use crate::nn::{ActivationFunction, Scratch, one_input};

/// Each step spread over a window of the output, windows added up where they overlap: the transpose of [`Conv1D`](crate::nn::Conv1D), Keras's
/// [`Conv1DTranspose`](https://keras.io/api/layers/convolution_layers/convolution1d_transpose/) with `data_format="channels_last"`.
/// `[steps, features]` to `[windows' steps, filters]`. Weights `kernel` `[kernel_size, filters, features]` (Glorot uniform) and `bias`
/// `[filters]` (zeros). A mask ends here.
///
/// With `reach` the steps that a window spans, `(kernel_size - 1) dilation_rate + 1`, the output has
///
/// | padding | steps |
/// |---|---|
/// | valid | `(steps - 1) strides + max(reach, strides)` |
/// | same | `steps strides` |
/// | steps | `(steps - 1) strides + reach + output_padding - before - after` |
/// | valid or same with an output padding | `(steps - 1) strides + reach + output_padding`, with `same` less `2 (reach / 2)` |
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Conv1D, Conv1DTranspose, Padding}};
///
/// let mut model = Sequential::new(Device::cpu(), &[10, 3], 1)?;
/// model.add(Conv1D::new(16, 3).strides(2).padding(Padding::Same))?;
/// assert_eq!(model.output_shape(), [5, 16]);
/// model.add(Conv1DTranspose::new(3, 3).strides(2).padding(Padding::Same))?; // back again
/// assert_eq!(model.output_shape(), [10, 3]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv1DTranspose {
    /// Width of the output.
    pub filters: usize,
    /// Steps that a window has.
    pub kernel_size: usize,
    /// Steps of the output from one window to the next; 1.
    #[serde(default = "defaults::one")]
    pub strides: usize,
    /// What is left out before the first step of the output and after the last; nothing.
    #[serde(default)]
    pub padding: Padding,
    /// Steps that the output has besides at its end; as many as the padding says.
    #[serde(default)]
    pub output_padding: Option<usize>,
    /// Steps from one step of a window to the next; 1.
    #[serde(default = "defaults::one")]
    pub dilation_rate: usize,
    /// The function of the output; linear.
    #[serde(default)]
    pub activation: ActivationFunction,
    /// Whether there is a bias; yes.
    #[serde(default = "defaults::yes")]
    pub use_bias: bool,
}

impl Conv1DTranspose {
    /// A layer that spreads each step over `kernel_size` steps of width `filters`.
    pub fn new(filters: usize, kernel_size: usize) -> Self {
        Conv1DTranspose {
            filters,
            kernel_size,
            strides: 1,
            padding: Padding::Valid,
            output_padding: None,
            dilation_rate: 1,
            activation: ActivationFunction::Linear,
            use_bias: true,
        }
    }

    /// Sets the steps from one window to the next.
    #[must_use]
    pub fn strides(self, strides: usize) -> Self {
        Conv1DTranspose { strides, ..self }
    }

    /// Sets what is left out at both ends.
    #[must_use]
    pub fn padding(self, padding: Padding) -> Self {
        Conv1DTranspose { padding, ..self }
    }

    /// Sets the steps that the output has besides.
    #[must_use]
    pub fn output_padding(self, output_padding: usize) -> Self {
        Conv1DTranspose { output_padding: Some(output_padding), ..self }
    }

    /// Sets the steps from one step of a window to the next.
    #[must_use]
    pub fn dilation_rate(self, dilation_rate: usize) -> Self {
        Conv1DTranspose { dilation_rate, ..self }
    }

    /// Sets the function of the output.
    #[must_use]
    pub fn activation(self, activation: ActivationFunction) -> Self {
        Conv1DTranspose { activation, ..self }
    }

    /// Sets whether there is a bias.
    #[must_use]
    pub fn use_bias(self, use_bias: bool) -> Self {
        Conv1DTranspose { use_bias, ..self }
    }

    /// Steps of the output, and how many of the first window's come before them; `None` where there are none, or too many.
    pub(crate) fn spread(&self, steps: usize) -> Option<(usize, usize)> {
        let reach = self.kernel_size.checked_sub(1)?.checked_mul(self.dilation_rate)?.checked_add(1)?;
        let spanned = steps.checked_sub(1)?.checked_mul(self.strides)?.checked_add(reach)?;
        let whole = spanned.checked_add(self.output_padding.unwrap_or(0))?;
        let (count, before) = match (self.padding, self.output_padding) {
            (Padding::Steps { before, after }, _) => (whole.checked_sub(before)?.checked_sub(after)?, before),
            (Padding::Valid, None) => (spanned.checked_add(self.strides.saturating_sub(reach))?, 0),
            (Padding::Valid, Some(_)) => (whole, 0),
            (Padding::Same, given) => {
                let count = match given {
                    None => steps.checked_mul(self.strides)?,
                    Some(_) => whole.checked_sub(2 * (reach / 2))?,
                };
                (count, spanned.saturating_sub(count) / 2)
            }
            (Padding::Causal, _) => return None,
        };
        // Places of elements are computed from it, be they cut off.
        isize::try_from(count.checked_add(spanned)?.checked_mul(self.filters.max(1))?).ok()?;
        Some((count, before)).filter(|(count, _)| *count > 0)
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (steps, features) = steps_and_features(builder, x)?;
        for (size, name) in [
            (self.filters, "filters"),
            (self.kernel_size, "kernel_size"),
            (self.strides, "strides"),
            (self.dilation_rate, "dilation_rate"),
        ] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        if self.padding == Padding::Causal {
            return Err(Error::option(format!("padding of {}", builder.name()), "valid, same or steps", "causal"));
        }
        let (count, before) = self.spread(steps).ok_or_else(|| {
            let expected = "options that leave at least one step of output, and not more than memory has addresses for";
            Error::option(format!("padding of {}", builder.name()), expected, format!("{self:?} for {steps} steps"))
        })?;
        let fan = |n: usize| self.kernel_size.saturating_mul(n);
        let init = Init::GlorotUniform { fan_in: fan(self.filters), fan_out: fan(features) };
        let kernel = builder.parameter("kernel", &[self.kernel_size, self.filters, features], init)?;
        let end = match self.use_bias {
            true => builder.parameter("bias", &[self.filters], Init::Constant(0.0))?.end,
            false => kernel.end,
        };
        let windows = Windows {
            steps: count,
            features: self.filters,
            groups: 1,
            size: self.kernel_size,
            // One window has no next one, however far away.
            strides: if steps == 1 { 1 } else { self.strides },
            dilation: self.dilation_rate,
            before,
            count: steps,
        };
        let op = TransposedOp {
            windows,
            features,
            use_bias: self.use_bias,
            spread: Scratch::new(),
            workspace: Scratch::new(),
        };
        let y = builder.op1(op, &[x], &[count, self.filters], kernel.start..end)?;
        Ok(vec![self.activation.apply(builder, y)?])
    }
}

/// A product of steps with the kernel, each row of which is a window of the output.
struct TransposedOp {
    /// The windows of the output, one for each step of the input.
    windows: Windows,
    /// Width of the input.
    features: usize,
    use_bias: bool,
    /// The windows, or their gradients.
    spread: Scratch,
    workspace: Scratch,
}

impl TransposedOp {
    /// Width of a window.
    fn width(&self) -> usize {
        self.windows.size * self.windows.features
    }

    fn product(&self, orientation: Orientation, batch: usize) -> MatMul {
        let (rows, width, features) = (batch * self.windows.count, self.width(), self.features);
        let (m, n, k) = match orientation {
            // Windows from steps, `x Kᵀ`; the gradient of steps, `dz K`; that of the kernel, `dzᵀ x`.
            Orientation::Nt => (rows, width, features),
            Orientation::Nn => (rows, features, width),
            Orientation::Tn => (width, features, rows),
        };
        MatMul { count: 1, orientation, m, n, k }
    }
}

impl Op for TransposedOp {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (batch, split, filters) = (pass.batch, self.width() * self.features, self.windows.features);
        let kernel = pass.parameters.part(0..split)?;
        let len = self.windows.len(batch);
        self.spread.grow(device, "windows", len)?;
        let product = self.product(Orientation::Nt, batch);
        let workspace = self.workspace.for_call(device, Workspace::MatMul(product))?;
        let spread = self.spread.get_mut(len)?;
        device.matmul(product, 1.0, pass.inputs.get(0)?, kernel, spread, WeightGrad::Set, workspace)?;
        let mut y = pass.outputs.get(0)?;
        self.windows.scatter(device, batch, self.spread.get(len)?, y.reborrow())?;
        if !self.use_bias {
            return Ok(());
        }
        let bias = pass.parameters.part(split..split + filters)?;
        device.add_bias_activate(crate::cell::Activation::Linear, Some(bias), y, None)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (batch, split, filters) = (pass.batch, self.width() * self.features, self.windows.features);
        let dy = pass.doutputs.get(0)?;
        let (dkernel, dbias) = pass.dparameters.split_at(split)?;
        if self.use_bias {
            let sizes = [1, batch * self.windows.steps, filters];
            let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
            device.sum_axis(sizes, 1.0, dy, dbias, pass.grad, workspace)?;
        }
        let len = self.windows.len(batch);
        self.spread.grow(device, "windows", len)?;
        // What a window has beyond the output has no gradient.
        device.fill(self.spread.get_mut(len)?, 0.0)?;
        self.windows.gather(device, batch, dy, self.spread.get_mut(len)?, 0.0)?;
        let spread = self.spread.get(len)?;
        let of_kernel = self.product(Orientation::Tn, batch);
        let workspace = self.workspace.for_call(device, Workspace::MatMul(of_kernel))?;
        device.matmul(of_kernel, 1.0, spread, pass.inputs.get(0)?, dkernel, pass.grad, workspace)?;
        let Some(dx) = pass.dinputs.optional(0) else { return Ok(()) };
        let of_input = self.product(Orientation::Nn, batch);
        let workspace = self.workspace.for_call(device, Workspace::MatMul(of_input))?;
        device.matmul(of_input, 1.0, spread, pass.parameters.part(0..split)?, dx, WeightGrad::Set, workspace)
    }
}
