//! Losses beside outputs that they make no sense of: what is refused, and what is said where training comes to nothing.

use crate::error::{Error, Result};
use crate::loss::{Loss, LossFunction};
use crate::model::Model;
use crate::model::output::Output;

impl Loss {
    /// Whether targets are classes, each of which has a column.
    fn is_of_classes(self) -> bool {
        matches!(
            self,
            Loss::CategoricalCrossentropy { .. }
                | Loss::SparseCategoricalCrossentropy { .. }
                | Loss::SmoothedCategoricalCrossentropy { .. }
                | Loss::CategoricalFocalCrossentropy { .. }
        )
    }

    /// What predictions must be for it to be a number, where that is not every number.
    fn domain(self) -> Option<&'static str> {
        match self {
            Loss::Poisson => Some(
                "the Poisson loss takes logarithms of predictions, of which one is below zero; give the output an activation that never is, \
                 such as Softplus or Exponential",
            ),
            Loss::CategoricalCrossentropy { from_logits: false }
            | Loss::SparseCategoricalCrossentropy { from_logits: false }
            | Loss::SmoothedCategoricalCrossentropy { from_logits: false, .. }
            | Loss::CategoricalFocalCrossentropy { from_logits: false, .. } => Some(
                "the loss divides predictions by their sum, which must be probabilities; give the output the activation Softmax, or the \
                 loss from_logits: true",
            ),
            _ => None,
        }
    }
}

/// Refuses a loss of classes for an output of one column: softmax makes a 1 of any number, and a model learns nothing. Keras warns.
pub(super) fn check_classes(name: &str, output: &Output, loss: &LossFunction) -> Result<()> {
    match loss.built_in().filter(|loss| loss.is_of_classes() && output.columns() == 1) {
        None => Ok(()),
        Some(loss) => Err(Error::shape(
            format!("output {name}, of the loss {}", loss.name()),
            "a column for each class; of two classes in one column the loss is BinaryCrossentropy",
            "one column, whose loss is the same whatever it says",
        )),
    }
}

impl Model {
    /// The error of a training that has diverged, with what the loss needs, where nothing else is known to have made it a NaN.
    pub(super) fn explained(&self, error: Error) -> Error {
        let Error::Diverged { epoch, batch, mut what } = error else { return error };
        // A cause that is known stands in brackets.
        if what.ends_with("loss is NaN")
            && let Some(advice) = self.outputs.iter().find_map(|output| output.loss.built_in()?.domain())
        {
            what += &format!(" ({advice})");
        }
        Error::Diverged { epoch, batch, what }
    }
}
