//! Convolution over time: [`Conv1D`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::{MatMul, Orientation, Strides, Workspace};
use crate::backend::{Device, TensorRef, WeightGrad};
use crate::cell;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::defaults;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::pooling::steps_and_features;
use crate::nn::weight_options::{KerasShape, activity_word, regularize, weight_words};
use crate::nn::windows::{Padding, Windows};
use crate::nn::{ActivationFunction, Regularizer, Scratch, WeightOptions, one_input};

/// A convolution over the steps, Keras's [`Conv1D`](https://keras.io/api/layers/convolution_layers/convolution1d/) with
/// `data_format="channels_last"`: `[steps, features]` to `[windows, filters]`. Weights `kernel` `[kernel_size, features / groups, filters]`
/// (Glorot uniform) and `bias` `[filters]` (zeros). A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Conv1D, Padding}};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(Conv1D::new(16, 5).padding(Padding::Causal))?;
/// assert_eq!(model.output_shape(), [20, 16]);
/// model.add(Conv1D::new(8, 4).strides(2))?;
/// assert_eq!(model.output_shape(), [9, 8]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv1D {
    /// Width of the output.
    pub filters: usize,
    /// Steps that a window has.
    pub kernel_size: usize,
    /// Steps from one window to the next; 1.
    #[serde(default = "defaults::one")]
    pub strides: usize,
    /// What stands before the first step and after the last; nothing.
    #[serde(default)]
    pub padding: Padding,
    /// Steps from one step of a window to the next; 1.
    #[serde(default = "defaults::one")]
    pub dilation_rate: usize,
    /// Parts of the features that are convolved each by itself, with as many parts of the filters; 1.
    #[serde(default = "defaults::one")]
    pub groups: usize,
    /// The function of the output; linear.
    #[serde(default)]
    pub activation: ActivationFunction,
    /// Whether there is a bias; yes.
    #[serde(default = "defaults::yes")]
    pub use_bias: bool,
    /// Initializer, regularizer and constraint of the kernel.
    #[serde(default, skip_serializing_if = "WeightOptions::is_default")]
    pub kernel: WeightOptions,
    /// The same of the bias.
    #[serde(default, skip_serializing_if = "WeightOptions::is_default")]
    pub bias: WeightOptions,
    /// What the output adds to the loss; nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity_regularizer: Option<Regularizer>,
}

impl Conv1D {
    /// A layer with `filters` outputs at each window of `kernel_size` steps.
    pub fn new(filters: usize, kernel_size: usize) -> Self {
        Conv1D {
            filters,
            kernel_size,
            strides: 1,
            padding: Padding::Valid,
            dilation_rate: 1,
            groups: 1,
            activation: ActivationFunction::Linear,
            use_bias: true,
            kernel: WeightOptions::default(),
            bias: WeightOptions::default(),
            activity_regularizer: None,
        }
    }

    weight_words! {
        [kernel] kernel_initializer kernel_regularizer kernel_constraint, "the kernel";
        [bias] bias_initializer bias_regularizer bias_constraint, "the bias";
    }

    activity_word!(activity_regularizer);

    /// Sets the steps from one window to the next.
    #[must_use]
    pub fn strides(self, strides: usize) -> Self {
        Conv1D { strides, ..self }
    }

    /// Sets what stands before the first step and after the last.
    #[must_use]
    pub fn padding(self, padding: Padding) -> Self {
        Conv1D { padding, ..self }
    }

    /// Sets the steps from one step of a window to the next.
    #[must_use]
    pub fn dilation_rate(self, dilation_rate: usize) -> Self {
        Conv1D { dilation_rate, ..self }
    }

    /// Sets the number of parts that are convolved each by itself.
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Conv1D { groups, ..self }
    }

    /// Sets the function of the output.
    #[must_use]
    pub fn activation(self, activation: ActivationFunction) -> Self {
        Conv1D { activation, ..self }
    }

    /// Sets whether there is a bias.
    #[must_use]
    pub fn use_bias(self, use_bias: bool) -> Self {
        Conv1D { use_bias, ..self }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (steps, features) = steps_and_features(builder, x)?;
        for (size, name) in [(self.filters, "filters"), (self.groups, "groups")] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        for (number, what) in [(features, "features"), (self.filters, "filters")] {
            if !number.is_multiple_of(self.groups) {
                let option = format!("groups of {}", builder.name());
                return Err(Error::option(option, format!("a divisor of the {number} {what}"), self.groups));
            }
        }
        let (size, width) = (self.kernel_size, features / self.groups);
        let windows = Windows::new(
            &builder.name(),
            "kernel_size",
            [steps, features],
            size,
            self.strides,
            self.dilation_rate,
            self.padding,
        )?;
        let fan = |n: usize| size.saturating_mul(n);
        let init = Init::GlorotUniform { fan_in: fan(width), fan_out: fan(self.filters) };
        let (name, shape) = (("kernel", "kernel"), [size, width, self.filters]);
        let kernel = self.kernel.declare(builder, name, &shape, init, KerasShape::Same, None)?;
        let (name, zeros) = (("bias", "bias"), Init::Constant(0.0));
        let end = match self.use_bias {
            true => self.bias.declare(builder, name, &[self.filters], zeros, KerasShape::Same, None)?.end,
            false => kernel.end,
        };
        // The functions of elements that can be undone from their output need no operation, and no tensor, of their own.
        let inside = self.activation.elementwise().filter(|f| !f.derivative_needs_input());
        let op = ConvolutionOp {
            windows: Windows { groups: self.groups, ..windows },
            filters: self.filters,
            use_bias: self.use_bias,
            activation: inside.unwrap_or(cell::Activation::Linear),
            patches: Scratch::new(),
            dpatches: Scratch::new(),
            kernel: Scratch::new(),
            parts: Scratch::new(),
            dz: Scratch::new(),
            workspace: Scratch::new(),
        };
        let y = builder.op1(op, &[x], &[windows.count, self.filters], kernel.start..end)?;
        let outputs = vec![if inside.is_some() { y } else { self.activation.apply(builder, y)? }];
        regularize(builder, &outputs, self.activity_regularizer)?;
        Ok(outputs)
    }
}

/// A product of windows, laid out as rows, with the kernel; with several groups as many products.
struct ConvolutionOp {
    windows: Windows,
    filters: usize,
    use_bias: bool,
    activation: cell::Activation,
    /// The windows, kept for the gradient of the kernel.
    patches: Scratch,
    dpatches: Scratch,
    /// The kernel by groups, `[groups, kernel_size * features / groups, filters / groups]`, or its gradient.
    kernel: Scratch,
    /// The output by groups, `[groups, rows, filters / groups]`, or its gradient.
    parts: Scratch,
    /// Gradient of what goes into the activation.
    dz: Scratch,
    workspace: Scratch,
}

impl ConvolutionOp {
    /// Terms of each sum.
    fn terms(&self) -> usize {
        self.windows.size * (self.windows.features / self.windows.groups)
    }

    fn product(&self, orientation: Orientation, batch: usize) -> MatMul {
        let groups = self.windows.groups;
        let (rows, filters, terms) = (batch * self.windows.count, self.filters / groups, self.terms());
        let (m, n, k) = match orientation {
            Orientation::Nn => (rows, filters, terms),
            Orientation::Nt => (rows, terms, filters),
            Orientation::Tn => (terms, filters, rows),
        };
        MatMul { count: groups, orientation, m, n, k }
    }

    /// How columns of `[rows, filters]` lie by groups, `[groups, rows, filters / groups]`.
    fn by_groups(&self, rows: usize) -> ([usize; 4], Strides, Strides) {
        let (groups, width) = (self.windows.groups, self.filters / self.windows.groups);
        let together = Strides { offset: 0, strides: [0, width as isize, self.filters as isize, 1] };
        let apart = Strides { offset: 0, strides: [0, (rows * width) as isize, width as isize, 1] };
        ([1, groups, rows, width], together, apart)
    }

    /// Whether the windows are the input as it is.
    fn is_pointwise(&self) -> bool {
        let w = &self.windows;
        w.size == 1 && w.strides == 1 && w.groups == 1 && w.count == w.steps && !w.padded()
    }
}

impl Op for ConvolutionOp {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let batch = pass.batch;
        let (rows, split) = (batch * self.windows.count, self.terms() * self.filters);
        let (x, mut y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        let kernel = pass.parameters.part(0..split)?;
        let bias = if self.use_bias { Some(pass.parameters.part(split..split + self.filters)?) } else { None };
        let len = self.windows.len(batch);
        let patches = if self.is_pointwise() {
            x
        } else {
            self.patches.grow(device, "windows", len)?;
            self.windows.gather(device, batch, x, self.patches.get_mut(len)?, 0.0)?;
            self.patches.get(len)?
        };
        let product = self.product(Orientation::Nn, batch);
        let (of_kernel, of_output) = (self.by_groups(self.terms()), self.by_groups(rows));
        let workspace = self.workspace.for_call(device, Workspace::MatMul(product))?;
        let linear = self.activation == cell::Activation::Linear;
        if self.windows.groups == 1 {
            if let (Some(bias), true) = (bias, linear) {
                return device.matmul_bias(product, patches, kernel, bias, y, workspace);
            }
            device.matmul(product, 1.0, patches, kernel, y.reborrow(), WeightGrad::Set, workspace)?;
        } else {
            let (shape, together, apart) = of_kernel;
            self.kernel.grow(device, "kernel by groups", split)?;
            device.strided_copy(shape, kernel, together, self.kernel.get_mut(split)?, apart, WeightGrad::Set)?;
            let kernel = self.kernel.get(split)?;
            let (shape, together, apart) = of_output;
            self.parts.grow(device, "output by groups", rows * self.filters)?;
            let parts = self.parts.get_mut(rows * self.filters)?;
            device.matmul(product, 1.0, patches, kernel, parts, WeightGrad::Set, workspace)?;
            let parts = self.parts.get(rows * self.filters)?;
            device.strided_copy(shape, parts, apart, y.reborrow(), together, WeightGrad::Set)?;
        }
        if bias.is_some() || !linear { device.add_bias_activate(self.activation, bias, y, None) } else { Ok(()) }
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let batch = pass.batch;
        let (rows, split) = (batch * self.windows.count, self.terms() * self.filters);
        let out = rows * self.filters;
        let dy = if self.activation == cell::Activation::Linear {
            pass.doutputs.get(0)?
        } else {
            self.dz.grow(device, "dz", out)?;
            let dz = self.dz.get_mut(out)?;
            device.activation_gradient(self.activation, pass.doutputs.get(0)?, pass.outputs.get(0)?, dz)?;
            self.dz.get(out)?
        };
        let (mut dkernel, dbias) = pass.dparameters.split_at(split)?;
        if self.use_bias {
            let sizes = [1, rows, self.filters];
            let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
            device.sum_axis(sizes, 1.0, dy, dbias, pass.grad, workspace)?;
        }
        let (kernel, len, one) = (pass.parameters.part(0..split)?, self.windows.len(batch), self.windows.groups == 1);
        let pointwise = self.is_pointwise();
        let patches: TensorRef<'_> = if pointwise { pass.inputs.get(0)? } else { self.patches.get(len)? };
        let dy = if one {
            dy
        } else {
            let (shape, together, apart) = self.by_groups(rows);
            self.parts.grow(device, "output by groups", out)?;
            device.strided_copy(shape, dy, together, self.parts.get_mut(out)?, apart, WeightGrad::Set)?;
            self.parts.get(out)?
        };
        let of_kernel = self.product(Orientation::Tn, batch);
        let (shape, together, apart) = self.by_groups(self.terms());
        let workspace = self.workspace.for_call(device, Workspace::MatMul(of_kernel))?;
        if one {
            device.matmul(of_kernel, 1.0, patches, dy, dkernel.reborrow(), pass.grad, workspace)?;
        } else {
            let scratch = self.kernel.get_mut(split)?;
            device.matmul(of_kernel, 1.0, patches, dy, scratch, WeightGrad::Set, workspace)?;
            device.strided_copy(shape, self.kernel.get(split)?, apart, dkernel, together, pass.grad)?;
        }
        let Some(mut dx) = pass.dinputs.optional(0) else { return Ok(()) };
        let kernel = if one {
            kernel
        } else {
            device.strided_copy(shape, kernel, together, self.kernel.get_mut(split)?, apart, WeightGrad::Set)?;
            self.kernel.get(split)?
        };
        let of_input = self.product(Orientation::Nt, batch);
        let workspace = self.workspace.for_call(device, Workspace::MatMul(of_input))?;
        if pointwise {
            return device.matmul(of_input, 1.0, dy, kernel, dx, WeightGrad::Set, workspace);
        }
        self.dpatches.grow(device, "gradient of windows", len)?;
        device.matmul(of_input, 1.0, dy, kernel, self.dpatches.get_mut(len)?, WeightGrad::Set, workspace)?;
        self.windows.scatter(device, batch, self.dpatches.get(len)?, dx.reborrow())
    }
}
