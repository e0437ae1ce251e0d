//! A model of whole sequences of any length, with everything needed to say the class or the number of new ones: [`SequenceModel`].

use std::path::Path;

use ndarray::{Array1, Array2, Array3, ArrayD, ArrayView2, Axis, Ix2, s};
use serde::{Deserialize, Serialize};

use crate::backend::Device;
use crate::data::{ColumnScaler, CsvOptions, Gaps, Scaler, TimeSeriesSet};
use crate::error::{Error, Result};
use crate::memory;
use crate::metrics::argmax_rows;
use crate::model::{Model, Purpose, Sequential, file};
use crate::nn::{ActivationFunction, Dense, LayerConfig, Loss, Masking};

/// What the features of a step after the end of a sequence are. No scaled value comes near it; it is exact in every precision.
const ABSENT: f64 = -1267650600228229401496703205376.0; // -2^100

/// How sequences become samples, and a model's outputs classes or numbers again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceConfig {
    /// Most steps of a sequence; shorter ones are filled up at the end, and what is filled up is masked.
    pub steps: usize,
    /// Scale of each feature.
    pub scaler: ColumnScaler,
    /// What the model says of a sequence.
    pub target: SequenceTarget,
    /// Where a sequence is a window of `steps` rows of a CSV file, which columns it is made of; what the model says is then the class of
    /// the window's last row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowsConfig>,
}

/// What a model of the rows of a CSV file reads, and what it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsConfig {
    /// The columns that are read, by name or number as for [`ColumnChoice::Named`](crate::data::ColumnChoice::Named), in the order of the
    /// model's features.
    pub columns: Vec<String>,
    /// The column of classes, by name or number.
    pub target: String,
    /// What was done about missing values of the columns that are read.
    pub gaps: Gaps,
    /// How the file was read, and new ones are.
    #[serde(default, skip_serializing_if = "CsvOptions::is_default")]
    pub reading: CsvOptions,
}

/// What a model says of a sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SequenceTarget {
    /// Its class, one of these.
    Classes(Vec<String>),
    /// A number with this scale.
    Number(Scaler),
}

impl SequenceConfig {
    /// The configuration for the classes, or else the numbers, of `train`, for sequences of at most `steps` steps. Each feature, and
    /// numbers to be said, are scaled to mean 0 and standard deviation 1 over `train`.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] for a set with neither classes nor numbers; [`Error::ZeroSize`] without steps, sequences or features;
    /// [`Error::NonFinite`] for a value, or a range of values, that is not finite; [`Error::Shape`] where sequences have different numbers
    /// of features; [`Error::InvalidOption`] for a class that is there twice.
    pub fn fitted(train: &TimeSeriesSet, steps: usize) -> Result<Self> {
        let target = match (train.classes.is_empty(), train.targets.is_empty()) {
            (false, _) => SequenceTarget::Classes(train.classes.clone()),
            (true, false) => {
                let numbers: Vec<f64> = train.targets.iter().copied().map(f64::from).collect();
                SequenceTarget::Number(Scaler::standard(&numbers)?)
            }
            (true, true) => {
                let problem = "the set has neither classes nor numbers to learn; give it @classLabel or @targetLabel";
                return Err(Error::Presence { tensor: "targets".to_owned(), problem: problem.to_owned() });
            }
        };
        let views: Vec<_> = train.sequences.iter().map(|sequence| sequence.view()).collect();
        if views.is_empty() {
            return Err(Error::ZeroSize { name: "number of sequences" });
        }
        let all = ndarray::concatenate(Axis(0), &views)
            .map_err(|e| Error::shape("sequences", "as many features in each", e.to_string()))?;
        let config = SequenceConfig { steps, scaler: ColumnScaler::standard(all.view())?, target, rows: None };
        config.validate()?;
        Ok(config)
    }

    /// The configuration for windows of `window` rows, each of which says which of `classes` its last row is of. Each column is scaled to
    /// mean 0 and standard deviation 1 over `train` `[rows, columns]`, the rows to be learned from.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without a window, classes, rows or columns; [`Error::NonFinite`] naming row and column where a value, or the
    /// column where its range, is not finite; [`Error::Shape`] where `rows` names another number of columns than `train` has;
    /// [`Error::InvalidOption`] for a class or column there twice, or a target that is read too.
    pub fn for_rows(train: ArrayView2<'_, f64>, window: usize, classes: Vec<String>, rows: RowsConfig) -> Result<Self> {
        let config = SequenceConfig {
            steps: window,
            scaler: ColumnScaler::standard(train)?,
            target: SequenceTarget::Classes(classes),
            rows: Some(rows),
        };
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        if self.steps == 0 {
            return Err(Error::ZeroSize { name: "number of steps" });
        }
        self.scaler.validate()?;
        if let Some(rows) = &self.rows {
            rows.validate(self.features())?;
        }
        match &self.target {
            SequenceTarget::Number(_) if self.rows.is_some() => {
                Err(Error::option("target", "classes, where sequences are windows of rows", "a number"))
            }
            SequenceTarget::Number(scaler) => scaler.validate(),
            SequenceTarget::Classes(names) if names.is_empty() => Err(Error::ZeroSize { name: "number of classes" }),
            SequenceTarget::Classes(names) => each_once("classes", names),
        }
    }

    fn features(&self) -> usize {
        self.scaler.columns().len()
    }

    fn outputs(&self) -> usize {
        match &self.target {
            SequenceTarget::Classes(names) => names.len(),
            SequenceTarget::Number(_) => 1,
        }
    }
}

impl RowsConfig {
    fn validate(&self, features: usize) -> Result<()> {
        if self.columns.len() != features {
            return Err(Error::shape(
                "columns",
                format!("{features} names, one for each feature"),
                format!("{} names", self.columns.len()),
            ));
        }
        each_once("columns", &self.columns)?;
        if self.columns.contains(&self.target) {
            let expected = "a column of classes that is not read too";
            return Err(Error::option("target", expected, format!("{:?}", self.target)));
        }
        Ok(())
    }
}

/// Refuses names of which one is there twice.
fn each_once(option: &str, names: &[String]) -> Result<()> {
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort_unstable();
    match sorted.array_windows().find(|[a, b]| a == b) {
        None => Ok(()),
        Some(pair) => Err(Error::option(option, "each name once", format!("{:?} twice", pair[0]))),
    }
}

/// What a model says of sequences.
#[derive(Clone, Debug, PartialEq)]
pub enum SequencePredictions {
    /// How probable each class is: `[sequences, classes]`.
    Classes(Array2<f32>),
    /// The number of each.
    Numbers(Vec<f64>),
}

/// Recurrent layers on whole sequences, which say a class or a number of each.
pub struct SequenceModel {
    config: SequenceConfig,
    model: Sequential,
}

impl SequenceModel {
    /// A model not yet trained: a [`Masking`] of what is filled up, `layers`, the last of which gives one output for a sequence, and a
    /// [`Dense`] with a softmax over the classes, or one linear unit for a number. Its loss is to be [`loss`](Self::loss).
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without steps, features or classes; [`Error::Shape`], [`Error::SizeOverflow`] and [`Error::InvalidOption`] for
    /// layers that do not fit each other or the configuration; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] where the GPU's driver fails.
    pub fn new(
        device: Device,
        config: SequenceConfig,
        layers: impl IntoIterator<Item = LayerConfig>,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        let mut model = Sequential::new(device, &[config.steps, config.features()], seed)?;
        model.add(Masking::new(ABSENT))?;
        for layer in layers {
            model.add(layer)?;
        }
        let top = Dense::new(config.outputs());
        model.add(match config.target {
            SequenceTarget::Classes(_) => top.activation(ActivationFunction::Softmax),
            SequenceTarget::Number(_) => top,
        })?;
        let model = SequenceModel { config, model };
        model.check_shapes()?;
        Ok(model)
    }

    /// How sequences become samples.
    pub fn config(&self) -> &SequenceConfig {
        &self.config
    }

    /// The model itself, to train it.
    pub fn model(&mut self) -> &mut Sequential {
        &mut self.model
    }

    /// The loss to compile it with.
    pub fn loss(&self) -> Loss {
        match self.config.target {
            SequenceTarget::Classes(_) => Loss::SparseCategoricalCrossentropy { from_logits: false },
            SequenceTarget::Number(_) => Loss::MeanSquaredError,
        }
    }

    /// Sequences `[steps, features]` as the model's inputs `[sequences, steps, features]`, scaled and filled up.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without sequences; [`Error::Shape`] naming a sequence that has no steps, more than the model reads, or another
    /// number of features; [`Error::NonFinite`] naming a value that is not finite or whose scaled value is far out of range;
    /// [`Error::SizeOverflow`].
    pub fn inputs(&self, sequences: &[Array2<f32>]) -> Result<Array3<f32>> {
        let (steps, features) = (self.config.steps, self.config.features());
        if sequences.is_empty() {
            return Err(Error::ZeroSize { name: "number of sequences" });
        }
        let mut x = memory::array_of("sequences", (sequences.len(), steps, features), ABSENT as f32)?;
        for (n, sequence) in sequences.iter().enumerate() {
            let (len, columns) = sequence.dim();
            if columns != features || !(1..=steps).contains(&len) {
                return Err(Error::shape(
                    format!("sequences[{n}]"),
                    format!("[1 to {steps} steps, {features} features], as the model was made for"),
                    format!("{:?}", sequence.shape()),
                ));
            }
            let scalers = self.config.scaler.columns().iter().cycle();
            for ((((step, feature), value), scaler), to) in
                sequence.indexed_iter().zip(scalers).zip(x.index_axis_mut(Axis(0), n).iter_mut())
            {
                let scaled = scaler.transform(f64::from(*value));
                // What is filled up must not be mistaken for values, nor values for it.
                if scaled.is_nan() || scaled.abs() >= -ABSENT / 2.0 {
                    return Err(Error::NonFinite {
                        tensor: format!("sequences[{n}]"),
                        got: f64::from(*value),
                        position: format!("step {step}, feature {feature} (from 0)"),
                        help: "it must be finite, and of the magnitude of what the model learned from".to_owned(),
                    });
                }
                *to = scaled as f32;
            }
        }
        Ok(x)
    }

    /// The classes of a set by the model's numbers, by their names.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] where the model says no classes or the set has none; [`Error::InvalidOption`] for a class in the set that the
    /// model does not know, or a label that is no class of the set.
    pub fn classes(&self, set: &TimeSeriesSet) -> Result<Vec<usize>> {
        let SequenceTarget::Classes(names) = &self.config.target else {
            return Err(absent("the model says numbers, not classes"));
        };
        if set.labels.is_empty() {
            return Err(absent("the sequences have no classes (@classLabel)"));
        }
        let class = |label: &usize| {
            let name = set.classes.get(*label).ok_or_else(|| {
                let expected = format!("the number of one of the set's {} classes", set.classes.len());
                Error::option("label", expected, label)
            })?;
            names.iter().position(|known| known == name).ok_or_else(|| {
                let shown: Vec<_> = names.iter().take(20).map(String::as_str).collect();
                Error::option("class", format!("one that the model knows ({})", shown.join(", ")), format!("{name:?}"))
            })
        };
        set.labels.iter().map(class).collect()
    }

    /// The numbers of a set, as they are.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] where the model says classes or the set has no numbers.
    pub fn numbers(&self, set: &TimeSeriesSet) -> Result<Vec<f64>> {
        match self.config.target {
            SequenceTarget::Classes(_) => Err(absent("the model says classes, not numbers")),
            SequenceTarget::Number(_) if set.targets.is_empty() => {
                Err(absent("the sequences have no numbers (@targetLabel)"))
            }
            SequenceTarget::Number(_) => Ok(set.targets.iter().copied().map(f64::from).collect()),
        }
    }

    /// What the model is to learn of a set, for [`fit`](Model::fit): the numbers of the classes `[sequences]`, or the scaled numbers
    /// `[sequences, 1]`.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] where the set has not what the model says, classes or numbers; [`Error::InvalidOption`] for a class in the set
    /// that the model does not know.
    pub fn targets(&self, set: &TimeSeriesSet) -> Result<ArrayD<f32>> {
        Ok(match &self.config.target {
            SequenceTarget::Classes(_) => {
                self.classes(set)?.iter().map(|class| *class as f32).collect::<Array1<f32>>().into_dyn()
            }
            SequenceTarget::Number(scaler) => {
                let scaled: Array1<f32> = self.numbers(set)?.iter().map(|v| scaler.transform(*v) as f32).collect();
                scaled.insert_axis(Axis(1)).into_dyn()
            }
        })
    }

    /// What the model says of sequences.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without sequences; [`Error::Shape`] naming one of the wrong size; [`Error::NonFinite`] for a value that is far
    /// out of range, or an output that is not finite; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn predict(&mut self, sequences: &[Array2<f32>]) -> Result<SequencePredictions> {
        let x = self.inputs(sequences)?;
        let outputs = self.model.predict(x.view())?;
        let outputs = outputs
            .into_dimensionality::<Ix2>()
            .map_err(|e| Error::shape("model output", "[sequences, outputs]", e.to_string()))?;
        if let Some(((n, _), value)) = outputs.indexed_iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::NonFinite {
                tensor: "prediction".to_owned(),
                got: f64::from(*value),
                position: format!("sequence {n} (from 0)"),
                help: "the sequence lies too far outside of what the model learned from".to_owned(),
            });
        }
        Ok(match &self.config.target {
            SequenceTarget::Classes(_) => SequencePredictions::Classes(outputs),
            SequenceTarget::Number(scaler) => SequencePredictions::Numbers(
                outputs.slice(s![.., 0]).iter().map(|v| scaler.inverse(f64::from(*v))).collect(),
            ),
        })
    }

    /// The most probable class of each sequence.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without sequences; [`Error::Shape`] naming one of the wrong size; [`Error::NonFinite`] for a value that is far
    /// out of range, or an output that is not finite; [`Error::Presence`] where the model says numbers; [`Error::Unsupported`] where the
    /// device cannot do it or memory is short, [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn predict_classes(&mut self, sequences: &[Array2<f32>]) -> Result<Vec<usize>> {
        match self.predict(sequences)? {
            SequencePredictions::Classes(probabilities) => argmax_rows(probabilities.view()),
            SequencePredictions::Numbers(_) => Err(absent("the model says numbers, not classes")),
        }
    }

    /// Writes the model with its configuration, atomically. The same model gives the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        file::save(&self.model, Some(&Purpose::Sequences(self.config.clone())), path)
    }

    /// Reads what [`save`](Self::save) wrote. The file is checked in every part before anything is allocated for it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be read; [`Error::Format`] where it is no model of sequences; [`Error::Unsupported`] for several
    /// inputs or outputs; [`Error::NonFinite`] for weights that are NaN or infinite; all are listed at [`Model::load`].
    pub fn load(device: Device, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match file::load(device, path)? {
            (model, Some(Purpose::Sequences(config))) => Self::from_parts(model, config, path),
            (_, Some(Purpose::Forecast(_))) => {
                Err(file::format_error(path, "its model forecasts a series; it is not one of whole sequences"))
            }
            (_, None) => Err(file::format_error(path, "it holds a model, but not what its inputs and outputs mean")),
        }
    }

    /// Puts together what a file says.
    pub(super) fn from_parts(model: Model, config: SequenceConfig, path: &Path) -> Result<Self> {
        let model = Sequential::from_model(model)?;
        config.validate().map_err(|e| file::format_error(path, e.to_string()))?;
        let model = SequenceModel { config, model };
        model.check_shapes().map_err(|e| file::format_error(path, e.to_string()))?;
        Ok(model)
    }

    fn check_shapes(&self) -> Result<()> {
        let (input, output) = ([self.config.steps, self.config.features()], [self.config.outputs()]);
        for (tensor, expected, got) in [
            ("model input", &input[..], self.model.input_shape()),
            ("model output", &output[..], self.model.output_shape()),
        ] {
            if expected != got {
                return Err(Error::shape(tensor, format!("{expected:?}"), format!("{got:?}")));
            }
        }
        Ok(())
    }
}

fn absent(problem: &str) -> Error {
    Error::Presence { tensor: "targets".to_owned(), problem: problem.to_owned() }
}
