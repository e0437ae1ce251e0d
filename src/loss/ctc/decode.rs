//! From the predictions of a network trained with [`Ctc`](super::Ctc) to labels: [`ctc_decode`].

use std::collections::BTreeMap;

use ndarray::{ArrayView2, ArrayView3, Axis, Slice};

use super::{check_lengths, log_probabilities, log_sum};
use crate::dtype::Scalar;
use crate::error::{Error, Result};

/// Labels, and how likely they are.
#[derive(Clone, Debug, PartialEq)]
pub struct CtcDecoded {
    /// Without blanks.
    pub labels: Vec<usize>,
    /// The logarithm of their probability: of the most likely way alone (greedy), or of all ways that the search has kept.
    pub log_probability: f64,
}

/// How [`ctc_decode`] finds labels; greedily by default, as in Keras.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CtcStrategy {
    /// The most likely class of each step; equal ones in a row are one label.
    #[default]
    Greedy,
    /// Prefix beam search ([Graves and Jaitly 2014](https://proceedings.mlr.press/v32/graves14.html)): the most likely beginnings are kept
    /// at each step.
    BeamSearch {
        /// How many beginnings are kept; 100 in Keras.
        width: usize,
        /// How many results each sample gets, at most; no more than the width.
        top_paths: usize,
    },
}

/// The likely labels of each sample, the most likely first: Keras's
/// [`ctc_decode`](https://keras.io/api/ops/nn/). `logits` are `[batch, steps, classes]`, logits or logarithms of probabilities, of which
/// the first `input_lengths` of a sample are input; `blank` is the class that stands for no label.
///
/// ```
/// use fused_rnn::loss::ctc::{CtcStrategy, ctc_decode};
/// use ndarray::array;
/// let logits = array![[[0.0f32, 5.0, 0.0], [0.0, 5.0, 0.0], [5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]]];
/// let decoded = ctc_decode(logits.view(), &[5], 0, CtcStrategy::default())?;
/// assert_eq!(decoded[0][0].labels, [1, 1, 2]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Shape`] for another number of lengths than samples; [`Error::SequenceLength`] for a length that is zero or beyond the steps;
/// [`Error::InvalidOption`] for a blank that is no class, or more `top_paths` than the width; [`Error::ZeroSize`] for none;
/// [`Error::NonFinite`] for NaN, +inf, and a step all of whose classes are at -inf.
pub fn ctc_decode<E: Scalar>(
    logits: ArrayView3<'_, E>,
    input_lengths: &[usize],
    blank: usize,
    strategy: CtcStrategy,
) -> Result<Vec<Vec<CtcDecoded>>> {
    let (batch, steps, classes) = logits.dim();
    check_lengths(batch, steps, input_lengths)?;
    if blank >= classes {
        return Err(Error::option("blank", format!("a class below {classes}"), blank));
    }
    if let CtcStrategy::BeamSearch { width, top_paths } = strategy {
        for (name, size) in [("width of the beam", width), ("top_paths", top_paths)] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        if top_paths > width {
            return Err(Error::option("top_paths", format!("at most the width of the beam, {width}"), top_paths));
        }
    }
    let mut all = Vec::with_capacity(batch);
    for (sample, (logits, length)) in logits.outer_iter().zip(input_lengths).enumerate() {
        let rows: ArrayView2<'_, E> = logits.slice_axis(Axis(0), Slice::from(..*length));
        let values: Vec<f64> = rows.iter().map(|v| v.wide()).collect();
        // A class may be impossible, at -inf, but not all of a step, and none be infinitely likely.
        let is_nothing = |row: &[f64]| row.iter().all(|v| *v == f64::NEG_INFINITY);
        let bad = values.iter().position(|v| v.is_nan() || *v == f64::INFINITY);
        if let Some(i) = bad.or_else(|| Some(classes * values.chunks(classes).position(is_nothing)?)) {
            let position = format!("sample {sample}, step {}, class {}", i / classes, i % classes);
            let help = "lower the learning rate, clip gradients, or check the data".to_owned();
            let got = values.get(i).copied().unwrap_or(f64::NAN);
            return Err(Error::NonFinite { tensor: "logits".to_owned(), got, position, help });
        }
        let log = log_probabilities(&values, classes);
        all.push(match strategy {
            CtcStrategy::Greedy => vec![greedy(&log, classes, blank)],
            CtcStrategy::BeamSearch { width, top_paths } => beam(&log, classes, blank, width, top_paths),
        });
    }
    Ok(all)
}

fn greedy(log: &[f64], classes: usize, blank: usize) -> CtcDecoded {
    let (mut labels, mut log_probability, mut last) = (Vec::new(), 0.0, blank);
    for row in log.chunks_exact(classes) {
        let first = (0, f64::NEG_INFINITY);
        let (best, of_best) =
            row.iter().copied().enumerate().fold(first, |best, other| if other.1 > best.1 { other } else { best });
        log_probability += of_best;
        if best != blank && best != last {
            labels.push(best);
        }
        last = best;
    }
    CtcDecoded { labels, log_probability }
}

/// The logarithms of the probabilities of a beginning that ends in a blank, and in its last label.
#[derive(Clone, Copy)]
struct Beginning {
    blank: f64,
    label: f64,
}

const NOTHING: Beginning = Beginning { blank: f64::NEG_INFINITY, label: f64::NEG_INFINITY };

impl Beginning {
    fn total(self) -> f64 {
        log_sum(&[self.blank, self.label])
    }
}

#[expect(clippy::indexing_slicing, reason = "rows have so many classes, and blank and labels are classes, as checked")]
fn beam(log: &[f64], classes: usize, blank: usize, width: usize, top_paths: usize) -> Vec<CtcDecoded> {
    let mut kept = vec![(Vec::new(), Beginning { blank: 0.0, ..NOTHING })];
    for row in log.chunks_exact(classes) {
        // An order of its own, so that equally likely ones are taken alike every time.
        let mut next: BTreeMap<Vec<usize>, Beginning> = BTreeMap::new();
        for (labels, beginning) in &kept {
            let total = beginning.total();
            let same = next.entry(labels.clone()).or_insert(NOTHING);
            same.blank = log_sum(&[same.blank, total + row[blank]]);
            if let Some(last) = labels.last() {
                same.label = log_sum(&[same.label, beginning.label + row[*last]]);
            }
            for class in (0..classes).filter(|class| *class != blank) {
                // Behind an equal label only after a blank is it another one.
                let from = if labels.last() == Some(&class) { beginning.blank } else { total };
                if from + row[class] == f64::NEG_INFINITY {
                    continue;
                }
                let mut longer = Vec::with_capacity(labels.len() + 1);
                longer.extend_from_slice(labels);
                longer.push(class);
                let entry = next.entry(longer).or_insert(NOTHING);
                entry.label = log_sum(&[entry.label, from + row[class]]);
            }
        }
        kept = next.into_iter().collect();
        kept.sort_by(|(_, a), (_, b)| b.total().total_cmp(&a.total()));
        kept.truncate(width);
    }
    let decoded =
        |(labels, beginning): (Vec<usize>, Beginning)| CtcDecoded { labels, log_probability: beginning.total() };
    kept.into_iter().take(top_paths).map(decoded).collect()
}
