//! Which metrics there are, their names and options: [`Metric`].

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::metrics::auc::Curve;
use crate::metrics::classification::Average;

/// One of [Keras's metrics](https://keras.io/api/metrics/), of targets and predictions `[rows, columns]`. Of several time steps or other
/// axes, each is a row. [`FromStr`] knows Keras's names and abbreviations (`"mse"`).
///
/// ```
/// use fused_rnn::metrics::Metric;
/// use fused_rnn::model::Sequential;
/// use fused_rnn::nn::{ActivationFunction, Dense, Loss};
/// use fused_rnn::{Device, optim::Adam};
/// use ndarray::array;
///
/// let mut model = Sequential::new(Device::cpu(), &[2], 1)?;
/// model.add(Dense::new(1).activation(ActivationFunction::Sigmoid))?;
/// model.compile(Adam::default(), Loss::BinaryCrossentropy { from_logits: false })?;
/// model.metrics(&[Metric::Accuracy, Metric::Precision { threshold: 0.5 }, "recall".parse()?]);
/// let values = model.evaluate_metrics(&array![[0.0f32, 1.0], [1.0, 0.0]], &array![[0.0f32], [1.0]])?;
/// let names: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
/// assert_eq!(names, ["loss", "accuracy", "precision", "recall"]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Metric {
    /// Keras's `"accuracy"`: which one, the loss says ([`for_loss`](Metric::for_loss)).
    Accuracy,
    /// The fraction of elements on the right side of a threshold; [`binary_accuracy`](crate::metrics::binary_accuracy).
    BinaryAccuracy {
        /// 0.5 in Keras; 0 for logits.
        threshold: f64,
    },
    /// The fraction of rows whose largest prediction is at the largest target;
    /// [`categorical_accuracy`](crate::metrics::categorical_accuracy).
    CategoricalAccuracy,
    /// The same for targets that are the classes themselves, one a row;
    /// [`sparse_categorical_accuracy`](crate::metrics::sparse_categorical_accuracy).
    SparseCategoricalAccuracy,
    /// The fraction of rows where the largest target is at one of the `k` largest predictions;
    /// [`top_k_categorical_accuracy`](crate::metrics::top_k_categorical_accuracy).
    TopKCategoricalAccuracy {
        /// 5 in Keras.
        k: usize,
    },
    /// The same for targets that are the classes themselves;
    /// [`sparse_top_k_categorical_accuracy`](crate::metrics::sparse_top_k_categorical_accuracy).
    SparseTopKCategoricalAccuracy {
        /// 5 in Keras.
        k: usize,
    },
    /// `mean((target - prediction)²)`.
    MeanSquaredError,
    /// The root of the mean squared error of all batches together.
    RootMeanSquaredError,
    /// `mean(|target - prediction|)`.
    MeanAbsoluteError,
    /// `100 mean(|target - prediction| / max(|target|, 1e-7))`: a percentage, other than [`mape`](crate::metrics::mape).
    MeanAbsolutePercentageError,
    /// [`r2`](crate::metrics::r2), the mean over columns; NaN for fewer than two rows.
    R2Score,
    /// Of the elements predicted above the threshold, the fraction whose target is 1; 0 where there are none. Targets are 0 or 1, or the
    /// classes themselves, one a row.
    Precision {
        /// 0.5 in Keras; 0 for logits.
        threshold: f64,
    },
    /// Of the elements whose target is 1, the fraction predicted above the threshold; 0 where there are none. Targets as for `Precision`.
    Recall {
        /// 0.5 in Keras; 0 for logits.
        threshold: f64,
    },
    /// The average over columns of `2 hits / (predicted + true)`; 0 for a column without either. Targets as for `Precision`.
    F1Score {
        /// How columns become one number.
        average: Average,
        /// A column is predicted where it is above the threshold. Without one, the largest of a row is, of equal ones the first; that
        /// takes two columns at least.
        threshold: Option<f64>,
    },
    /// The area under a curve, of all elements together, by thresholds evenly spread over 0 to 1: what [`roc_auc`](crate::metrics::roc_auc)
    /// has exactly, without keeping predictions. Targets as for `Precision`; predictions are probabilities.
    Auc {
        /// Under which.
        curve: Curve,
        /// How many; 200 in Keras, two at least.
        thresholds: usize,
        /// Whether predictions are logits, whose sigmoid is taken.
        from_logits: bool,
    },
    /// `sum(t p)` of a row, both divided by their norms: from -1 to 1, alike. The loss of this name has the other sign.
    CosineSimilarity,
    /// The mean of a [`Loss`], such as `Metric::Loss(Loss::LogCosh)`. Of a row; targets as the loss has them.
    Loss(Loss),
}

impl Metric {
    /// What `Accuracy` means beside a loss and predictions of so many columns; any other metric is itself.
    ///
    /// Cross-entropies say it: binary, categorical or sparse, binary logits being compared with 0. (Keras looks at shapes alone, so that a
    /// binary cross-entropy of several columns gets a categorical accuracy there, and logits are compared with 0.5.) Other losses go by
    /// the shape as in Keras: binary for one column, else categorical.
    pub fn for_loss(self, loss: Loss, columns: usize) -> Metric {
        match (self, loss) {
            (Metric::Accuracy, Loss::BinaryCrossentropy { from_logits }) => {
                Metric::BinaryAccuracy { threshold: if from_logits { 0.0 } else { 0.5 } }
            }
            (Metric::Accuracy, Loss::CategoricalCrossentropy { .. }) => Metric::CategoricalAccuracy,
            (Metric::Accuracy, Loss::SparseCategoricalCrossentropy { .. }) => Metric::SparseCategoricalAccuracy,
            (Metric::Accuracy, _) if columns == 1 => Metric::BinaryAccuracy { threshold: 0.5 },
            (Metric::Accuracy, _) => Metric::CategoricalAccuracy,
            _ => self,
        }
    }

    /// Keras's name, as in the history of training: `"accuracy"`, `"mean_squared_error"`, ….
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::BinaryAccuracy { .. } => "binary_accuracy",
            Metric::CategoricalAccuracy => "categorical_accuracy",
            Metric::SparseCategoricalAccuracy => "sparse_categorical_accuracy",
            Metric::TopKCategoricalAccuracy { .. } => "top_k_categorical_accuracy",
            Metric::SparseTopKCategoricalAccuracy { .. } => "sparse_top_k_categorical_accuracy",
            Metric::MeanSquaredError => "mean_squared_error",
            Metric::RootMeanSquaredError => "root_mean_squared_error",
            Metric::MeanAbsoluteError => "mean_absolute_error",
            Metric::MeanAbsolutePercentageError => "mean_absolute_percentage_error",
            Metric::R2Score => "r2_score",
            Metric::Precision { .. } => "precision",
            Metric::Recall { .. } => "recall",
            Metric::F1Score { .. } => "f1_score",
            Metric::Auc { .. } => "auc",
            Metric::CosineSimilarity => "cosine_similarity",
            Metric::Loss(loss) => loss.name(),
        }
    }

    /// Whether of two models the one with the greater value is better: so it is but for errors.
    pub fn more_is_better(self) -> bool {
        match self {
            Metric::MeanSquaredError
            | Metric::RootMeanSquaredError
            | Metric::MeanAbsoluteError
            | Metric::MeanAbsolutePercentageError
            | Metric::Loss(_) => false,
            Metric::Accuracy
            | Metric::BinaryAccuracy { .. }
            | Metric::CategoricalAccuracy
            | Metric::SparseCategoricalAccuracy
            | Metric::TopKCategoricalAccuracy { .. }
            | Metric::SparseTopKCategoricalAccuracy { .. }
            | Metric::R2Score
            | Metric::Precision { .. }
            | Metric::Recall { .. }
            | Metric::F1Score { .. }
            | Metric::Auc { .. }
            | Metric::CosineSimilarity => true,
        }
    }

    /// Whether targets must be the numbers of classes, one a row.
    pub(super) fn is_sparse(self) -> bool {
        match self {
            Metric::SparseCategoricalAccuracy | Metric::SparseTopKCategoricalAccuracy { .. } => true,
            Metric::Loss(loss) => loss.has_one_target_a_row(),
            _ => false,
        }
    }

    /// Whether targets may be the numbers of classes.
    pub(super) fn may_be_sparse(self) -> bool {
        matches!(self, Metric::Precision { .. } | Metric::Recall { .. } | Metric::F1Score { .. } | Metric::Auc { .. })
    }

    pub(super) fn check(self) -> Result<()> {
        match self {
            Metric::Accuracy => Err(Error::option(
                "metric",
                "binary_accuracy, categorical_accuracy or sparse_categorical_accuracy where there is no loss to choose among them",
                self,
            )),
            Metric::TopKCategoricalAccuracy { k: 0 } | Metric::SparseTopKCategoricalAccuracy { k: 0 } => {
                Err(Error::ZeroSize { name: "k" })
            }
            Metric::BinaryAccuracy { threshold }
            | Metric::Precision { threshold }
            | Metric::Recall { threshold }
            | Metric::F1Score { threshold: Some(threshold), .. }
                if !threshold.is_finite() =>
            {
                Err(Error::option(format!("threshold of {self}"), "a finite number", threshold))
            }
            Metric::Auc { thresholds, .. } if !(2..=MOST_THRESHOLDS).contains(&thresholds) => {
                Err(Error::option("thresholds of auc", format!("2 to {MOST_THRESHOLDS}"), thresholds))
            }
            Metric::Loss(loss) => loss.validate(),
            _ => Ok(()),
        }
    }
}

/// Most thresholds of an area, which bounds memory.
pub(super) const MOST_THRESHOLDS: usize = 1 << 20;

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = Error;

    /// Keras's names and abbreviations, with Keras's defaults; an F1 score is the macro average.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "accuracy" | "acc" => Metric::Accuracy,
            "binary_accuracy" => Metric::BinaryAccuracy { threshold: 0.5 },
            "categorical_accuracy" => Metric::CategoricalAccuracy,
            "sparse_categorical_accuracy" => Metric::SparseCategoricalAccuracy,
            "top_k_categorical_accuracy" => Metric::TopKCategoricalAccuracy { k: 5 },
            "sparse_top_k_categorical_accuracy" => Metric::SparseTopKCategoricalAccuracy { k: 5 },
            "mean_squared_error" | "mse" => Metric::MeanSquaredError,
            "root_mean_squared_error" | "rmse" => Metric::RootMeanSquaredError,
            "mean_absolute_error" | "mae" => Metric::MeanAbsoluteError,
            "mean_absolute_percentage_error" | "mape" => Metric::MeanAbsolutePercentageError,
            "r2_score" => Metric::R2Score,
            "precision" => Metric::Precision { threshold: 0.5 },
            "recall" => Metric::Recall { threshold: 0.5 },
            "f1_score" => Metric::F1Score { average: Average::Macro, threshold: None },
            "auc" => Metric::Auc { curve: Curve::Roc, thresholds: 200, from_logits: false },
            "cosine_similarity" => Metric::CosineSimilarity,
            "mean_squared_logarithmic_error" | "msle" => Metric::Loss(Loss::MeanSquaredLogarithmicError),
            "log_cosh" | "logcosh" => Metric::Loss(Loss::LogCosh),
            "kl_divergence" | "kld" => Metric::Loss(Loss::KlDivergence),
            "poisson" => Metric::Loss(Loss::Poisson),
            "hinge" => Metric::Loss(Loss::Hinge),
            "squared_hinge" => Metric::Loss(Loss::SquaredHinge),
            "categorical_hinge" => Metric::Loss(Loss::CategoricalHinge),
            "binary_crossentropy" | "bce" => Metric::Loss(Loss::BinaryCrossentropy { from_logits: false }),
            "categorical_crossentropy" => Metric::Loss(Loss::CategoricalCrossentropy { from_logits: false }),
            "sparse_categorical_crossentropy" => {
                Metric::Loss(Loss::SparseCategoricalCrossentropy { from_logits: false })
            }
            _ => {
                return Err(Error::option(
                    "metric",
                    "one of Keras's names: accuracy, binary_accuracy, categorical_accuracy, sparse_categorical_accuracy, \
                     top_k_categorical_accuracy, sparse_top_k_categorical_accuracy, mse, rmse, mae, mape, r2_score, precision, recall, \
                     f1_score, auc, cosine_similarity, msle, log_cosh, kl_divergence, poisson, hinge, squared_hinge, categorical_hinge, \
                     binary_crossentropy, categorical_crossentropy, sparse_categorical_crossentropy",
                    text,
                ));
            }
        })
    }
}
