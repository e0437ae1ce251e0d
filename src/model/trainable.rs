//! Layers whose weights training leaves as they are: Keras's `layer.trainable = False`.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::nn::network::{Network, Place};

impl Model {
    /// Sets whether training changes the weights of the layer called `layer`, Keras's
    /// [`trainable`](https://keras.io/guides/transfer_learning/); a new layer's it does. It holds from the next step on, and is part of a
    /// model file.
    ///
    /// The weights of a frozen layer have no gradient and no place in the optimizer's memory, are none of
    /// [`count_params`](Self::count_params) or [`flat_weights`](Self::flat_weights), and add no penalty to the loss; layers below it still
    /// learn through it, and where there are none that learn, nothing is computed backwards. A frozen
    /// [`BatchNormalization`](crate::nn::BatchNormalization) uses its moving averages in training too, and keeps them. Dropout still drops.
    ///
    /// The optimizer starts anew, and stateful layers forget their states.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such layer; [`Error::Unsupported`] where memory is short, [`Error::Driver`] where the
    /// GPU's driver fails. The model then is as it was.
    pub fn set_trainable(&mut self, layer: &str, trainable: bool) -> Result<&mut Self> {
        let index = self.topology.layers.iter().position(|named| named.name == layer).ok_or_else(|| {
            let names: Vec<_> = self.topology.layers.iter().map(|named| named.name.as_str()).collect();
            Error::option("layer", format!("one of {}", names.join(", ")), layer)
        })?;
        self.rebuild(|number, was| if number == index { trainable } else { was })
    }

    /// The same for all layers.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where memory is short, [`Error::Driver`] where the GPU's driver fails. The model then is as it was.
    pub fn set_all_trainable(&mut self, trainable: bool) -> Result<&mut Self> {
        self.rebuild(|_, _| trainable)
    }

    /// Whether training changes the weights of the layer called `layer`, if it has some.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such layer.
    pub fn is_trainable(&self, layer: &str) -> Result<bool> {
        match self.topology.layers.iter().find(|named| named.name == layer) {
            Some(named) => Ok(named.trainable),
            None => Err(Error::option("layer", "the name of a layer of the model", layer)),
        }
    }

    /// Weights that training does not change by their gradient: those of frozen layers, and what layers keep themselves.
    pub fn count_non_trainable(&self) -> usize {
        self.network.builder.statistics + self.network.builder.frozen
    }

    /// Builds the layers anew, of which `trainable` says by number and what it was whether each is, with the weights that they have.
    fn rebuild(&mut self, trainable: impl Fn(usize, bool) -> bool) -> Result<&mut Self> {
        let mut layers = self.topology.layers.clone();
        let mut changed = false;
        for (number, named) in layers.iter_mut().enumerate() {
            let new = trainable(number, named.trainable);
            changed |= new != named.trainable;
            named.trainable = new;
        }
        if !changed {
            return Ok(self);
        }
        let (builder, topology) = self.topology.rebuilt(layers, &self.topology.lengths)?;
        let missing = || Error::Presence { tensor: "outputs".to_owned(), problem: "they were not built".to_owned() };
        let value = |source| topology.tensor(source).map(|tensor| tensor.value).ok_or_else(missing);
        let values = self.outputs.iter().map(|output| value(output.source)).collect::<Result<Vec<_>>>()?;
        let mut network = Network::new(&self.device, builder)?;
        for place in Place::ALL {
            self.network.place_mut(place).refresh(&self.device)?;
        }
        network.adopt(&self.device, &self.network)?;
        for (output, value) in self.outputs.iter_mut().zip(values) {
            output.set_value(value);
        }
        self.programs.clear();
        (self.network, self.topology) = (network, topology);
        self.forget();
        Ok(self)
    }
}
