//! How good a model is on sequences whose classes or numbers are known: as text, and as a picture.

use std::path::Path;

use fused_rnn::data::TimeSeriesSet;
use fused_rnn::figures::rounded;
use fused_rnn::metrics::{Average, ConfusionMatrix, ZeroDivision};
use fused_rnn::model::{SequenceModel, SequencePredictions, SequenceTarget};
use fused_rnn::plot::{self, Colour, Curve, DEFAULT_SIZE, LinePlot};
use fused_rnn::{Result, metrics};
use ndarray::{Array2, ArrayView1};

use crate::errors::Errors;
use crate::output::{WIDEST, plain};
use crate::pictures::of_target;

/// How good a model is on sequences whose classes or numbers are known.
pub enum Report {
    Classes { matrix: ConfusionMatrix, names: Vec<String>, of: &'static str, target: Option<String> },
    Numbers { errors: Errors, r2: Option<f64>, truth: Vec<f64>, said: Vec<f64> },
}

/// Most classes whose confusion matrix is written as text.
const MOST_IN_TEXT: usize = 50;
/// Most classes that can be told apart in a picture.
pub const MOST_IN_PICTURE: usize = 1000;

/// The number that needs no model.
const MEAN: &str = "naive (the mean)";

impl Report {
    /// Measures it.
    pub fn of(model: &mut SequenceModel, set: &TimeSeriesSet) -> Result<Self> {
        match model.config().target.clone() {
            SequenceTarget::Classes(names) => {
                let truth = model.classes(set)?;
                let said = model.predict_classes(&set.sequences)?;
                let of = if model.config().rows.is_some() { "windows" } else { "sequences" };
                let target = model.config().rows.as_ref().map(|rows| rows.target.clone());
                Ok(Report::Classes { matrix: ConfusionMatrix::new(&truth, &said, names.len())?, names, of, target })
            }
            SequenceTarget::Number(scaler) => {
                let truth = model.numbers(set)?;
                let said = match model.predict(&set.sequences)? {
                    SequencePredictions::Numbers(numbers) => numbers,
                    SequencePredictions::Classes(_) => Vec::new(),
                };
                // The mean of what was learned from.
                let mean = vec![scaler.inverse(0.0); truth.len()];
                let [t, s, m] = [&truth, &said, &mean].map(|values| ArrayView1::from(&values[..]));
                let errors = Errors {
                    rmse: metrics::rmse(t, s)?,
                    mae: metrics::mae(t, s)?,
                    naive_rmse: metrics::rmse(t, m)?,
                    naive_mae: metrics::mae(t, m)?,
                };
                // One number alone has no spread to explain.
                let r2 = if t.len() < 2 { None } else { Some(metrics::r2(t, s)?) };
                Ok(Report::Numbers { errors, r2, truth, said })
            }
        }
    }

    /// As text; the brief one is without the scores of each class and the confusion matrix.
    pub fn text(&self, part: &str, name: &str, brief: bool) -> Result<String> {
        match self {
            Report::Numbers { errors, r2, truth, .. } => {
                let mut text = errors.table(&format!("{part} error, {} sequences", truth.len()), name, MEAN);
                if let Some(r2) = r2 {
                    text += &format!("coefficient of determination R2 {}\n", rounded(*r2, 4));
                }
                Ok(text)
            }
            Report::Classes { matrix, names, of, .. } => {
                let average = matrix.average(Average::Macro, ZeroDivision::Zero);
                let head = format!("{part}, {} {of}", matrix.counts().sum());
                let width = head.len().max(name.len()).min(WIDEST);
                let mut text = format!(
                    "\n{head:<width$}  {:>9}  {:>9}  {:>9}  {:>9}\n{name:<width$}  {:>9.4}  {:>9.4}  {:>9.4}  {:>9.4}\n",
                    "accuracy",
                    "precision",
                    "recall",
                    "F1",
                    matrix.accuracy(),
                    average.precision,
                    average.recall,
                    average.f1,
                );
                text += "Precision, recall and F1 are means over the classes.\n";
                if !brief {
                    let names: Vec<String> = names.iter().map(|name| plain(name)).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    text += &format!("\n{}", matrix.report(Some(&names), 4, ZeroDivision::Zero)?);
                    text += "\nconfusion matrix (row: the class, column: what the model says)\n";
                    if names.len() <= MOST_IN_TEXT {
                        text += &grid(matrix, &names);
                    } else {
                        text += &format!("of {} classes: too wide for text, see the picture\n", names.len());
                    }
                }
                Ok(text)
            }
        }
    }

    /// Draws it: the confusion matrix, or what the model says over the truth, of a file of data.
    pub fn save_picture(&self, name: &str, data: &Path, path: &Path) -> Result<()> {
        let file = plain(&data.file_name().unwrap_or(data.as_os_str()).to_string_lossy());
        match self {
            Report::Classes { matrix, names, of, target } => {
                let counts: Array2<u64> = matrix.counts().mapv(|count| count as u64);
                let average = matrix.average(Average::Macro, ZeroDivision::Zero);
                let subtitle =
                    format!("{name}, {} {of}: accuracy {:.4}, F1 {:.4}", counts.sum(), matrix.accuracy(), average.f1);
                let side = u32::try_from(names.len()).unwrap_or(u32::MAX).clamp(4, 40);
                // Names longer than a cell is wide need room beside the cells, and stand upright below them.
                let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(20) as u32;
                let room = 7 * longest.saturating_sub(6);
                // The size of other pictures, and of many classes what they need.
                let (width, height) = DEFAULT_SIZE;
                let title = format!("{file}: confusion matrix{}", of_target(target.as_deref()));
                plot::confusion_matrix(title, names, counts.view())?
                    .subtitle(subtitle)
                    .size((340 + 48 * side + room).max(width), (160 + 36 * side + room).max(height))
                    .save(path)
            }
            Report::Numbers { errors, truth, said, .. } => {
                let (least, most) = truth
                    .iter()
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(*v), most.max(*v)));
                LinePlot::new(format!("{file}: prediction and truth"))
                    .subtitle(format!(
                        "{name}, {} sequences: RMSE {}, MAE {}",
                        truth.len(),
                        rounded(errors.rmse, 4),
                        rounded(errors.mae, 4)
                    ))
                    .x_label("truth")
                    .y_label("prediction")
                    .curve(Curve::new("right", [(least, least), (most, most)]).colour(Colour::GREY))
                    .curve(
                        Curve::new("model", truth.iter().copied().zip(said.iter().copied()))
                            .colour(Colour::VERMILLION)
                            .dots(),
                    )
                    .save(path)
            }
        }
    }
}

/// The counts under each other.
fn grid(matrix: &ConfusionMatrix, names: &[&str]) -> String {
    let length = |text: &str| text.chars().count();
    let first = names.iter().map(|name| length(name)).max().unwrap_or(0);
    let widths: Vec<usize> = (matrix.counts().columns().into_iter().zip(names))
        .map(|(column, name)| column.iter().map(|count| count.to_string().len()).max().unwrap_or(0).max(length(name)))
        .collect();
    let row = |head: &str, cells: &[String]| {
        let cells: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:>width$}")).collect();
        format!("{head:>first$}{}\n", cells.concat())
    };
    let mut text = row("", &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    for (name, counts) in names.iter().zip(matrix.counts().rows()) {
        text += &row(name, &counts.iter().map(f64::to_string).collect::<Vec<_>>());
    }
    text
}
