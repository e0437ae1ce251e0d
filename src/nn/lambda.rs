//! A function of one's own as a layer: [`Lambda`].

use std::fmt;
use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use crate::backend::{Device, TensorMut, TensorRef};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::elementwise::typed;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Layer, LayerConfig, one_input};

type Function = dyn Fn(ArrayViewD<'_, f64>) -> ArrayD<f64> + Send + Sync;
type Derivative = dyn Fn(ArrayViewD<'_, f64>, ArrayViewD<'_, f64>) -> ArrayD<f64> + Send + Sync;

/// A function as a layer, Keras's [`Lambda`](https://keras.io/api/layers/core_layers/lambda/), with its derivative, for there is nothing here that
/// would find it. It goes into a model by [`Sequential::add_own`](crate::model::Sequential::add_own) or
/// [`Graph::own_layer`](crate::model::Graph::own_layer), and [`gradcheck::model`](crate::gradcheck::model) says whether the derivative is right:
///
/// ```
/// use fused_rnn::model::Sequential;
/// use fused_rnn::nn::{Dense, Lambda};
/// use fused_rnn::{DType, Device, gradcheck};
/// # use ndarray::{ArrayD, IxDyn};
/// let mut model = Sequential::new(Device::cpu().with_dtype(DType::F64)?, &[3], 1)?;
/// let square = Lambda::new("square", |x| x.mapv(|x| x * x), |x, dy| 2.0 * &x * &dy);
/// model.add_own(square)?.add(Dense::new(2))?;
/// # let x = ArrayD::from_shape_fn(IxDyn(&[4, 3]), |i| (i[0] * 3 + i[1]) as f64 / 7.0 - 0.8);
/// # let y = ArrayD::<f64>::zeros(IxDyn(&[4, 2]));
/// let report = gradcheck::model(&mut model, &[x.view()], &[y.view()], |_, _| true)?;
/// assert!(report.worst < 1e-7);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// The function is given an array `[samples, sample shape…]` and gives one with as many samples, each a function of its own sample alone; its
/// derivative is given the same array and the gradient of the function's, and gives the gradient of the array. What shape comes out is found
/// with one sample of ones. Both compute in `f64` on the host, to which a device's values are brought and from which they go back. A mask ends
/// here. A model file cannot hold it: [`save_weights`](crate::model::Model::save_weights) saves the weights alone.
#[derive(Clone)]
pub struct Lambda {
    name: String,
    forward: Arc<Function>,
    backward: Arc<Derivative>,
}

impl fmt::Debug for Lambda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lambda").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Lambda {
    /// A layer called `name` that applies `forward`, whose derivative is `backward`, of the array and the gradient of what `forward` made of it.
    pub fn new(
        name: &str,
        forward: impl Fn(ArrayViewD<'_, f64>) -> ArrayD<f64> + Send + Sync + 'static,
        backward: impl Fn(ArrayViewD<'_, f64>, ArrayViewD<'_, f64>) -> ArrayD<f64> + Send + Sync + 'static,
    ) -> Self {
        Lambda { name: name.to_owned(), forward: Arc::new(forward), backward: Arc::new(backward) }
    }
}

impl Layer for Lambda {
    fn class_name(&self) -> &str {
        "Lambda"
    }

    fn stem(&self) -> &str {
        &self.name
    }

    fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let shape = [&[1], x.shape()].concat();
        let made = (self.forward)(ArrayD::ones(IxDyn(&shape)).view());
        let Some((&1, output)) = made.shape().split_first() else {
            let got = format!("{:?}", made.shape());
            return Err(Error::shape(builder.name(), "an array of one sample, as it was given", got));
        };
        let op =
            Applied { layer: self.clone(), name: builder.name(), input: x.shape().to_vec(), output: output.to_vec() };
        Ok(vec![builder.op1(op, &[x], output, 0..0)?])
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}

struct Applied {
    layer: Lambda,
    name: String,
    input: Vec<usize>,
    output: Vec<usize>,
}

/// A tensor of the device as an array.
fn read(device: &Device, what: &str, tensor: TensorRef<'_>, batch: usize, shape: &[usize]) -> Result<ArrayD<f64>> {
    fn wide<E: Scalar>(device: &Device, tensor: TensorRef<'_>) -> Result<Vec<f64>> {
        Ok(device.read::<E>(tensor)?.iter().map(|value| value.wide()).collect())
    }
    let values = typed!(device, wide(device, tensor))?;
    let shape = [&[batch], shape].concat();
    ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|e| Error::shape(what, format!("{shape:?}"), e.to_string()))
}

/// An array as a tensor of the device.
fn write(device: &Device, what: &str, array: &ArrayD<f64>, shape: &[usize], to: TensorMut<'_>) -> Result<()> {
    fn narrow<E: Scalar>(device: &Device, array: &ArrayD<f64>, to: TensorMut<'_>) -> Result<()> {
        device.upload(&array.iter().map(|value| E::of(*value)).collect::<Vec<_>>(), to)
    }
    if array.shape() != shape {
        return Err(Error::shape(what, format!("{shape:?}"), format!("{:?}", array.shape())));
    }
    typed!(device, narrow(device, array, to))
}

impl Op for Applied {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let x = read(device, &self.name, pass.inputs.get(0)?, pass.batch, &self.input)?;
        let what = format!("what the function of {} gives", self.name);
        let shape = [&[pass.batch], &self.output[..]].concat();
        write(device, &what, &(self.layer.forward)(x.view()), &shape, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let Some(dx) = pass.dinputs.optional(0) else { return Ok(()) };
        let x = read(device, &self.name, pass.inputs.get(0)?, pass.batch, &self.input)?;
        let dy = read(device, &self.name, pass.doutputs.get(0)?, pass.batch, &self.output)?;
        let what = format!("what the derivative of {} gives", self.name);
        write(device, &what, &(self.layer.backward)(x.view(), dy.view()), x.shape(), dx)
    }
}
