//! What a layer says of one of its weight tensors: [`WeightOptions`].

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init};
use crate::nn::{Constraint, Initializer, Regularizer};

/// Initializer, regularizer and constraint of a weight tensor of a layer; each as the layer has it unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightOptions {
    /// Where it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer: Option<Initializer>,
    /// What it adds to the loss; nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regularizer: Option<Regularizer>,
    /// What it is brought back to after every step; nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
}

/// How Keras has a weight tensor that a layer has here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KerasShape {
    /// With the same axes.
    Same,
    /// A matrix whose axes are the other way round.
    Transposed,
    /// As a part of a larger tensor.
    Part,
    /// Not at all: recurrent weights by heads, `[gates, heads, n, n]`.
    None,
}

impl WeightOptions {
    /// Whether nothing is said: files then say nothing of it either, as those of versions without.
    pub(crate) fn is_default(&self) -> bool {
        *self == WeightOptions::default()
    }

    /// Declares the tensor, which starts at `init` unless an initializer is given. `ones` are elements that start at 1 all the same.
    pub(super) fn declare(
        &self,
        builder: &mut Builder,
        (name, word): (&str, &str),
        shape: &[usize],
        init: Init,
        keras: KerasShape,
        ones: Option<Range<usize>>,
    ) -> Result<Range<usize>> {
        if self.is_default() {
            return builder.parameter(name, shape, init);
        }
        let layer = builder.name();
        let option = |what: &str| format!("{word}_{what} of {layer}");
        let init = match self.initializer {
            None => init,
            Some(initializer) => {
                let option = option("initializer");
                initializer.validate(&option, shape)?;
                let matrix = matches!(initializer, Initializer::Orthogonal { .. } | Initializer::Identity { .. });
                let square = shape.first() == shape.last();
                let identity = matches!(initializer, Initializer::Identity { .. });
                if keras == KerasShape::None && matrix || word == "recurrent" && identity && !square {
                    let expected = "another one: an identity is of one gate, and heads start orthogonal of themselves";
                    return Err(Error::option(option, expected, format!("{initializer:?}")));
                }
                Init::By { initializer, fans: fans(shape, keras), ones }
            }
        };
        if let Some(regularizer) = self.regularizer {
            regularizer.validate(&option("regularizer"))?;
        }
        let constraint = match self.constraint.clone() {
            None => None,
            Some(constraint) => {
                let option = option("constraint");
                constraint.validate(&option, shape.len())?;
                Some(match (keras, constraint.axes().map(<[usize]>::to_vec)) {
                    (KerasShape::Transposed, Some(axes)) => {
                        constraint.with_axes(axes.into_iter().map(|axis| 1 - axis).collect())
                    }
                    (KerasShape::Part | KerasShape::None, Some(_)) => {
                        let expected =
                            "none of norms, which Keras takes of a tensor that this layer has not as a whole";
                        return Err(Error::option(option, expected, format!("{constraint:?}")));
                    }
                    _ => constraint,
                })
            }
        };
        let range = builder.parameter(name, shape, init)?;
        builder.refine(&range, self.regularizer, constraint);
        Ok(range)
    }
}

/// Inputs and outputs of a unit, as Keras counts them.
fn fans(shape: &[usize], keras: KerasShape) -> [usize; 2] {
    let product = |axes: &[usize]| axes.iter().fold(1usize, |product, n| product.saturating_mul(*n));
    match (keras, shape) {
        (KerasShape::Transposed, &[outputs, inputs]) | (_, &[inputs, outputs]) => [inputs, outputs],
        (_, &[n]) => [n, n],
        (_, &[gates, _, rows, columns]) if keras == KerasShape::None => [columns, gates.saturating_mul(rows)],
        (_, [field @ .., inputs, outputs]) => {
            let field = product(field);
            [field.saturating_mul(*inputs), field.saturating_mul(*outputs)]
        }
        (_, []) => [1, 1],
    }
}

/// Keras's words for the options of a layer's weights: methods that set them, by the path of the field that holds them.
macro_rules! weight_words {
    ($(
        [$($field:ident).+] $initializer:ident $regularizer:ident $constraint:ident, $what:literal;
    )*) => {
        $(
            #[doc = concat!("Sets where ", $what, " starts.")]
            #[must_use]
            pub fn $initializer(mut self, initializer: $crate::nn::Initializer) -> Self {
                self.$($field).+.initializer = Some(initializer);
                self
            }

            #[doc = concat!("Sets what ", $what, " adds to the loss.")]
            #[must_use]
            pub fn $regularizer(mut self, regularizer: $crate::nn::Regularizer) -> Self {
                self.$($field).+.regularizer = Some(regularizer);
                self
            }

            #[doc = concat!("Sets what ", $what, " is brought back to after every step.")]
            #[must_use]
            pub fn $constraint(mut self, constraint: $crate::nn::Constraint) -> Self {
                self.$($field).+.constraint = Some(constraint);
                self
            }
        )*
    };
}
pub(super) use weight_words;

/// `activity_regularizer`, by the path of its field.
macro_rules! activity_word {
    ($($field:ident).+) => {
        /// Sets what the output adds to the loss, divided by the number of samples.
        #[must_use]
        pub fn activity_regularizer(mut self, regularizer: $crate::nn::Regularizer) -> Self {
            self.$($field).+ = Some(regularizer);
            self
        }
    };
}
pub(super) use activity_word;

/// The regularizer of an output, validated, and noted for each output.
pub(super) fn regularize(
    builder: &mut Builder,
    outputs: &[crate::nn::Value],
    regularizer: Option<Regularizer>,
) -> Result<()> {
    let Some(regularizer) = regularizer else { return Ok(()) };
    regularizer.validate(&format!("activity_regularizer of {}", builder.name()))?;
    outputs.iter().for_each(|output| builder.regularize(output, regularizer));
    Ok(())
}
