//! Connectionist temporal classification: sequences of labels whose times are not known, as in speech ([`Ctc`]).

mod decode;

pub use decode::{CtcDecoded, CtcStrategy, ctc_decode};

use ndarray::{Array1, Array3, ArrayView2, ArrayView3};
use serde::{Deserialize, Serialize};

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::loss::{CustomLoss, LossUnit, Observation};
use crate::memory;
use crate::rnn::shape::check_len;

/// The loss of connectionist temporal classification ([Graves et al. 2006](https://doi.org/10.1145/1143844.1143891)): minus the logarithm of
/// the probability of a sequence of labels, which is the sum over all ways in which its labels, in order, may take the steps of the
/// input. A label may last for several steps, a blank may stand between labels and must between equal ones.
///
/// Predictions are logits `[steps, classes]`; logarithms of probabilities are such too, since they are what a log-softmax leaves as they are.
/// The value is that of Keras's [`CTC`](https://keras.io/api/losses/) and of PyTorch's
/// [`CTCLoss`](https://docs.pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html) with `reduction="none"`, all in `f64`; the gradient
/// is that by the logits.
///
/// In [`compile`](crate::model::Model::compile) it takes targets `[samples, labels]`: the labels of each sample, then padding, which is the
/// blank or any number below zero. Where the output has a mask, the steps that it leaves out are not part of the input. The loss of a
/// batch is the mean over its samples, as Keras's is.
///
/// ```
/// use fused_rnn::loss::Ctc;
/// use ndarray::array;
/// // Two steps, of which one must be the label: with the classes equally likely, 3 of the 4 ways are.
/// let loss = Ctc::new(0, 1)?.losses(array![[[0.0f32, 0.0], [0.0, 0.0]]].view(), &[vec![1]], &[2])?;
/// assert!((loss[0] - -(0.75f64.ln())).abs() < 1e-6);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ctc {
    /// The class that stands for no label: 0 in Keras and PyTorch, the last one in Keras's older `ctc_batch_cost`.
    pub blank: usize,
    /// Most labels of a sample: the columns of the targets that a model takes.
    pub labels: usize,
}

impl Ctc {
    /// A loss with this blank, of targets with so many columns.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for targets without columns.
    pub fn new(blank: usize, labels: usize) -> Result<Self> {
        let loss = Ctc { blank, labels };
        loss.validate().map(|()| loss)
    }

    /// The loss of each sample: `logits` `[batch, steps, classes]`, the labels of each sample, and how many of its steps are input.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for another number of labels or lengths than samples; [`Error::SequenceLength`] for a length that is zero or
    /// beyond the steps; [`Error::InvalidOption`] naming a label that is no class or the blank, a blank that is no class, and a sample
    /// whose labels need more steps than its input has.
    pub fn losses<E: Scalar>(
        &self,
        logits: ArrayView3<'_, E>,
        labels: &[Vec<usize>],
        input_lengths: &[usize],
    ) -> Result<Array1<f64>> {
        self.run(logits, labels, input_lengths, |_, _| ())
    }

    /// The same with the gradient of the sum of all losses by the logits, which is zero beyond the input of a sample.
    ///
    /// # Errors
    ///
    /// As [`losses`](Self::losses); [`Error::Unsupported`] where memory is short.
    pub fn gradient<E: Scalar>(
        &self,
        logits: ArrayView3<'_, E>,
        labels: &[Vec<usize>],
        input_lengths: &[usize],
    ) -> Result<(Array1<f64>, Array3<f64>)> {
        let mut gradient = Array3::zeros(logits.dim());
        let losses = self.run(logits, labels, input_lengths, |sample, slopes| {
            gradient.index_axis_mut(ndarray::Axis(0), sample).iter_mut().zip(slopes).for_each(|(to, from)| *to = *from);
        })?;
        Ok((losses, gradient))
    }

    fn run<E: Scalar>(
        &self,
        logits: ArrayView3<'_, E>,
        labels: &[Vec<usize>],
        input_lengths: &[usize],
        mut gradient: impl FnMut(usize, &[f64]),
    ) -> Result<Array1<f64>> {
        let (batch, steps, classes) = logits.dim();
        check_lengths(batch, steps, input_lengths)?;
        if labels.len() != batch {
            return Err(Error::shape("labels", format!("{batch}, one list a sample"), labels.len().to_string()));
        }
        let mut losses = Vec::with_capacity(batch);
        for (sample, ((logits, labels), length)) in logits.outer_iter().zip(labels).zip(input_lengths).enumerate() {
            let values: Vec<f64> = logits.iter().take(length * classes).map(|v| v.wide()).collect();
            self.check_labels(labels, classes).map_err(|error| error.of_option(&format!(" of sample {sample}")))?;
            let mut slopes = vec![0.0; values.len()];
            let value = one(&values, classes, labels, self.blank, Some(&mut slopes))
                .map_err(|error| error.of_option(&format!(" of sample {sample}")))?;
            losses.push(value);
            gradient(sample, &slopes);
        }
        Ok(Array1::from(losses))
    }

    fn check_labels(&self, labels: &[usize], classes: usize) -> Result<()> {
        if self.blank >= classes {
            return Err(Error::option("blank", format!("a class below {classes}"), self.blank));
        }
        match labels.iter().enumerate().find(|(_, label)| **label >= classes || **label == self.blank) {
            None => Ok(()),
            Some((i, label)) => {
                let expected = format!("a class below {classes} other than the blank, {}", self.blank);
                Err(Error::option(format!("labels[{i}]"), expected, label))
            }
        }
    }

    /// The labels of a row of targets, up to the first padding.
    fn labels_of(&self, targets: &[f64], classes: usize) -> Result<Vec<usize>> {
        let is_padding = |t: f64| t < 0.0 || t == self.blank as f64;
        let len = targets.iter().position(|t| is_padding(*t)).unwrap_or(targets.len());
        let mut labels = Vec::with_capacity(len);
        for (i, t) in targets.iter().enumerate() {
            if i >= len {
                if !is_padding(*t) {
                    let expected = format!("padding, {} or below zero, as what is before it", self.blank);
                    return Err(Error::option(format!("label {i}"), expected, t));
                }
                continue;
            }
            if t.fract() != 0.0 || *t >= classes as f64 || t.is_nan() {
                return Err(Error::option(format!("label {i}"), format!("a class, a whole number below {classes}"), t));
            }
            labels.push(*t as usize);
        }
        Ok(labels)
    }

    fn of(&self, of: &Observation<'_>, gradient: Option<&mut [f64]>) -> Result<f64> {
        if self.blank >= of.columns {
            return Err(Error::option("blank", format!("a class below {}", of.columns), self.blank));
        }
        if !of.predictions.len().is_multiple_of(of.columns) {
            let expected = format!("rows of {} columns", of.columns);
            return Err(Error::shape("predictions", expected, format!("{} elements", of.predictions.len())));
        }
        if let Some(gradient) = &gradient {
            check_len("gradient", &[of.predictions.len()], gradient.len())?;
        }
        if let Some(mask) = of.mask {
            check_len("mask", &[of.predictions.len() / of.columns], mask.len())?;
        }
        let labels = self.labels_of(of.targets, of.columns)?;
        match of.mask {
            None => one(of.predictions, of.columns, &labels, self.blank, gradient),
            Some(mask) => {
                let rows = || of.predictions.chunks_exact(of.columns).zip(mask);
                let valid: Vec<f64> = rows().filter(|(_, valid)| **valid).flat_map(|(row, _)| row).copied().collect();
                let Some(gradient) = gradient else { return one(&valid, of.columns, &labels, self.blank, None) };
                let mut slopes = vec![0.0; valid.len()];
                let value = one(&valid, of.columns, &labels, self.blank, Some(&mut slopes))?;
                let to = gradient.chunks_exact_mut(of.columns).zip(mask).filter(|(_, valid)| **valid);
                to.zip(slopes.chunks_exact(of.columns)).for_each(|((to, _), from)| to.copy_from_slice(from));
                Ok(value)
            }
        }
    }
}

impl CustomLoss for Ctc {
    fn name(&self) -> &str {
        "ctc"
    }

    fn unit(&self) -> LossUnit {
        LossUnit::Sample
    }

    fn validate(&self) -> Result<()> {
        if self.labels == 0 { Err(Error::ZeroSize { name: "labels of the CTC loss" }) } else { Ok(()) }
    }

    fn target_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        match *output {
            [_, classes] if self.blank < classes => Ok(vec![self.labels]),
            [_, classes] => Err(Error::option("blank", format!("a class below {classes}"), self.blank)),
            _ => Err(Error::shape("output for the CTC loss", "[steps, classes]", format!("{output:?}"))),
        }
    }

    /// That there are steps enough for the labels too; those that a mask leaves are counted when the loss is computed.
    fn check_targets(&self, targets: &[f64], output: &[usize]) -> Result<()> {
        let &[steps, classes] = output else { return Ok(()) };
        check_steps(steps, &self.labels_of(targets, classes)?)
    }

    fn value(&self, of: &Observation<'_>) -> Result<f64> {
        self.of(of, None)
    }

    fn gradient(&self, of: &Observation<'_>, gradient: &mut [f64]) -> Result<f64> {
        self.of(of, Some(gradient))
    }
}

/// Whether there is a length for each sample, none beyond the steps.
fn check_lengths(batch: usize, steps: usize, lengths: &[usize]) -> Result<()> {
    if lengths.len() != batch {
        return Err(Error::shape("input_lengths", format!("{batch}, one a sample"), lengths.len().to_string()));
    }
    match lengths.iter().enumerate().find(|(_, length)| **length == 0 || **length > steps) {
        None => Ok(()),
        Some((index, length)) => Err(Error::SequenceLength { index, got: *length as u64, seq_len: steps }),
    }
}

/// Equal labels in a row have a blank between them, which takes a step too.
fn check_steps(steps: usize, labels: &[usize]) -> Result<()> {
    let repeats = labels.array_windows().filter(|[a, b]| a == b).count();
    if labels.len() + repeats > steps {
        let expected = format!("at most {steps} labels and blanks between equal ones, as many as steps of input");
        return Err(Error::option("labels", expected, labels.len() + repeats));
    }
    Ok(())
}

/// The logarithm of a sum of exponentials.
fn log_sum(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, |m, v| if v > m || v.is_nan() { v } else { m });
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + values.iter().map(|v| (v - largest).exp()).sum::<f64>().ln()
}

/// Log-softmax of every row.
fn log_probabilities(logits: &[f64], classes: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(logits.len());
    for row in logits.chunks_exact(classes) {
        let total = log_sum(row);
        out.extend(row.iter().map(|v| v - total));
    }
    out
}

/// The loss of one sample by the forward-backward algorithm on logarithms, and its gradient by the logits `[steps, classes]`, set.
///
/// States are blank, label, blank, label, …, blank. With `a[t][s]` the logarithm of the probability of all ways that are in state s at
/// step t, and `b[t][s]` of all that go on from there, `exp(a + b)` over the total is the part of the ways through it.
#[expect(
    clippy::indexing_slicing,
    reason = "logits are whole rows of classes, the gradient as long, blank and labels classes: `of` and `run` check it"
)]
fn one(logits: &[f64], classes: usize, labels: &[usize], blank: usize, gradient: Option<&mut [f64]>) -> Result<f64> {
    let steps = logits.len() / classes;
    check_steps(steps, labels)?;
    let states = 2 * labels.len() + 1;
    let class = |state: usize| if state.is_multiple_of(2) { blank } else { labels[state / 2] };
    // Whether a state may be reached from the one before the last blank.
    let skips = |state: usize| state >= 2 && !state.is_multiple_of(2) && class(state) != class(state - 2);
    let log = log_probabilities(logits, classes);
    let size = steps.checked_mul(states).ok_or_else(|| Error::SizeOverflow {
        tensor: "CTC loss".to_owned(),
        expression: format!("steps {steps} * states {states}"),
    })?;
    if steps == 0 {
        return Ok(0.0);
    }
    let mut forward = memory::filled("states of CTC", size, f64::NEG_INFINITY)?;
    for state in 0..states.min(2) {
        forward[state] = log[class(state)];
    }
    for step in 1..steps {
        let (before, now) = forward.split_at_mut(step * states);
        let before = &before[(step - 1) * states..];
        for state in 0..states {
            let mut from = [before[state], f64::NEG_INFINITY, f64::NEG_INFINITY];
            if state >= 1 {
                from[1] = before[state - 1];
            }
            if skips(state) {
                from[2] = before[state - 2];
            }
            now[state] = log_sum(&from) + log[step * classes + class(state)];
        }
    }
    let last = &forward[(steps - 1) * states..];
    let total = log_sum(&last[states.saturating_sub(2)..]);
    let Some(gradient) = gradient else { return Ok(-total) };
    let mut after = vec![f64::NEG_INFINITY; states];
    after[states.saturating_sub(2)..].fill(0.0);
    for step in (0..steps).rev() {
        if step + 1 < steps {
            let next = &log[(step + 1) * classes..][..classes];
            // `after` of the next step, with its own probability.
            let onward: Vec<f64> = after.iter().enumerate().map(|(state, v)| v + next[class(state)]).collect();
            for (state, to) in after.iter_mut().enumerate() {
                let mut through = [onward[state], f64::NEG_INFINITY, f64::NEG_INFINITY];
                if state + 1 < states {
                    through[1] = onward[state + 1];
                }
                if state + 2 < states && skips(state + 2) {
                    through[2] = onward[state + 2];
                }
                *to = log_sum(&through);
            }
        }
        let slopes = &mut gradient[step * classes..][..classes];
        slopes.iter_mut().zip(&log[step * classes..][..classes]).for_each(|(slope, log)| *slope = log.exp());
        for state in 0..states {
            slopes[class(state)] -= (forward[step * states + state] + after[state] - total).exp();
        }
    }
    Ok(-total)
}

impl Ctc {
    /// The labels of targets `[samples, labels]`, without their padding: what [`losses`](Self::losses) takes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] naming a label that is no class, or one behind padding.
    pub fn labels<E: Scalar>(&self, targets: ArrayView2<'_, E>, classes: usize) -> Result<Vec<Vec<usize>>> {
        let row = |row: ndarray::ArrayView1<'_, E>| {
            let values: Vec<f64> = row.iter().map(|v| v.wide()).collect();
            self.labels_of(&values, classes)
        };
        targets.rows().into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_of_one_length_is_refused() {
        let ctc = Ctc::new(0, 2).unwrap();
        let (targets, predictions) = ([1.0, 2.0], [0.1; 12]);
        let of = Observation { targets: &targets, predictions: &predictions, columns: 3, mask: None };
        let mut gradient = [0.0; 12];
        assert!(CustomLoss::gradient(&ctc, &of, &mut gradient).is_ok());
        assert!(matches!(CustomLoss::gradient(&ctc, &of, &mut gradient[..11]), Err(Error::Shape { .. })));
        assert!(matches!(CustomLoss::gradient(&ctc, &of, &mut []), Err(Error::Shape { .. })));
        let uneven = Observation { columns: 5, ..of };
        assert!(matches!(CustomLoss::value(&ctc, &uneven), Err(Error::Shape { .. })));
        let masked = Observation { mask: Some(&[true; 3]), ..of };
        assert!(matches!(CustomLoss::value(&ctc, &masked), Err(Error::Shape { .. })));
        for columns in [0, usize::MAX] {
            assert!(CustomLoss::value(&ctc, &Observation { columns, ..of }).is_err(), "{columns}");
        }
        for bad in [f64::NAN, f64::INFINITY, 1.5, 3.0] {
            assert!(CustomLoss::value(&ctc, &Observation { targets: &[bad], ..of }).is_err(), "{bad}");
        }
    }
}
