//! The layers that follow from a row of the table of cells.
#![allow(unused_imports, reason = "without a usual layer, none is used")]

use serde::{Deserialize, Serialize};

use crate::cell::{CellKind, for_each_cell};
use crate::error::Result;
use crate::interop::keras::bias_of;
use crate::nn::ActivationFunction;
use crate::nn::recurrent::{RecurrentOptions, recurrent_layer};
use crate::rnn::{Bias, RnnDescriptor};

/// The layer of a cell whose row says that it is a usual one; nothing for the others.
macro_rules! usual_layer {
    ($kind:ident $module:ident $layer:ident $class:literal own) => {};
    ($kind:ident $module:ident $layer:ident $class:literal usual) => {
        #[doc = concat!("The layer `", $class, "` of the cell that [`crate::cell::", stringify!($module), "`] describes.")]
        /// Shapes, weights and masks are as [`SimpleRnn`](crate::nn::SimpleRnn) has them.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $layer {
            /// Width of the states and the output.
            pub units: usize,
            /// Of the candidate; tanh.
            pub activation: ActivationFunction,
            /// Whether there are biases; yes.
            pub use_bias: bool,
            /// Of the gates; sigmoid.
            pub recurrent_activation: ActivationFunction,
            /// Further options.
            #[serde(default)]
            pub options: RecurrentOptions,
        }

        recurrent_layer!($layer of $kind { recurrent_activation: ActivationFunction::Sigmoid });

        impl $layer {
            /// Sets the function of the gates.
            #[must_use]
            pub fn recurrent_activation(self, recurrent_activation: ActivationFunction) -> Self {
                $layer { recurrent_activation, ..self }
            }

            fn operator_bias(&self) -> Bias {
                bias_of(CellKind::$kind, self.use_bias, true)
            }

            fn configure(&self, layer: &str, descriptor: &mut RnnDescriptor) -> Result<bool> {
                descriptor.activations.state = self.activation.of_elements(layer, "activation")?;
                descriptor.activations.gate = self.recurrent_activation.of_elements(layer, "recurrent_activation")?;
                descriptor.activations.output = descriptor.activations.state;
                Ok(false)
            }
        }
    };
}

/// One for each row.
macro_rules! usual_layers {
    ($(($kind:ident $module:ident $layer:ident $class:literal $stem:literal $form:ident))*) => {
        $(usual_layer!($kind $module $layer $class $form);)*
    };
}
for_each_cell!(usual_layers);
