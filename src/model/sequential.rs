//! A stack of layers.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::backend::Device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::graph::{Topology, builder};
use crate::model::input_shape::InputShape;
use crate::model::lengths::ANY_STEPS;
use crate::nn::{Layer, LayerConfig};

/// A stack of layers on one device: Keras's [`Sequential`](https://keras.io/api/models/sequential/). Once it has a layer it is a
/// [`Model`] with one input and one output.
///
/// ```
/// use fused_rnn::model::{FitOptions, Sequential};
/// use fused_rnn::nn::{Dense, Loss, Lstm};
/// use fused_rnn::{Device, optim::Adam};
/// use ndarray::{Array2, Array3};
///
/// // The sum of ten numbers.
/// let x = Array3::from_shape_fn((64, 10, 1), |(sample, step, _)| ((7 * sample + 3 * step) % 11) as f32 / 11.0);
/// let y = Array2::from_shape_fn((64, 1), |(sample, _)| (0..10).map(|step| x[[sample, step, 0]]).sum::<f32>());
///
/// let mut model = Sequential::new(Device::cpu(), &[10, 1], 42)?; // samples of 10 steps with one feature
/// model.add(Lstm::new(16))?.add(Dense::new(1))?;
/// model.compile(Adam::new(0.01)?, Loss::MeanSquaredError)?;
/// let history = model.fit(&x, &y, FitOptions { epochs: 30, batch_size: 16, ..FitOptions::default() })?;
/// assert!(history.loss[29] < history.loss[0]);
/// assert_eq!(model.predict(&x)?.shape(), [64, 1]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
pub struct Sequential {
    model: Model,
}

impl Sequential {
    /// A model without layers, for samples of shape `input_shape` (without the batch), `&[29, 12]`, or with any number of steps
    /// [`&[None, Some(12)]`](InputShape).
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for an axis of zero or no axes; [`Error::InvalidOption`] for `None` in several axes; [`Error::SizeOverflow`] where the number of elements overflows;
    /// [`Error::Unsupported`] where a kernel cannot be had, or the device's element type is none that models have.
    pub fn new(device: Device, input_shape: impl InputShape, seed: u64) -> Result<Self> {
        let (mut builder, mut topology) = (builder(), Topology::new());
        topology.input(&mut builder, "input_layer", &input_shape.axes(), ANY_STEPS)?;
        Ok(Sequential { model: Model::from_parts(device, builder, topology, &[], seed)? })
    }

    /// Puts a layer on top, with freshly drawn weights.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] naming the layer where it cannot take the output below it, or has several outputs; [`Error::ZeroSize`],
    /// [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes and options that it cannot have; [`Error::Unsupported`] where memory
    /// is short, [`Error::Driver`] where the GPU's driver fails.
    pub fn add(&mut self, layer: impl Into<LayerConfig>) -> Result<&mut Self> {
        self.add_own(layer.into())
    }

    /// The same for a layer that may be none of this crate's.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] naming the layer where it cannot take the output below it, or has several outputs; [`Error::ZeroSize`],
    /// [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes and options that it cannot have; [`Error::Unsupported`] where memory
    /// is short, [`Error::Driver`] where the GPU's driver fails.
    pub fn add_own(&mut self, layer: impl Layer + 'static) -> Result<&mut Self> {
        self.model.stack(Arc::new(layer))?;
        Ok(self)
    }

    /// The model itself.
    pub fn into_model(self) -> Model {
        self.model
    }

    /// A model as a stack.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a model with several inputs or outputs.
    pub fn from_model(model: Model) -> Result<Self> {
        if model.input_shapes().count() == 1 && model.output_shapes().count() == 1 {
            return Ok(Sequential { model });
        }
        Err(Error::unsupported("a stack with several inputs or outputs", "use Model"))
    }

    /// Sample shape of the input. Any number of steps is that of the last call, 5040 before one; see [`input_axes`](Model::input_axes).
    pub fn input_shape(&self) -> &[usize] {
        self.model.input_shapes().next().unwrap_or_default()
    }

    /// Sample shape of the output, with the steps of the input: of the top layer, or without one of the input.
    pub fn output_shape(&self) -> &[usize] {
        self.model.output_shapes().next().unwrap_or(self.input_shape())
    }
}

impl Deref for Sequential {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

impl DerefMut for Sequential {
    fn deref_mut(&mut self) -> &mut Model {
        &mut self.model
    }
}
