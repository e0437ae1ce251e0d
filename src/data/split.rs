//! Random divisions of samples into those to learn from and those to judge by. Where samples follow each other in time, use
//! [`TimeSplit`](crate::data::TimeSplit): a random division lets a model see the future.

use crate::error::{Error, Result};
use crate::memory;
use crate::nn::Random;

/// The stream of a seed's random numbers that divisions draw from; weights and training use others.
const SPLIT_STREAM: u32 = 0x5b11_7000;

/// Samples divided at random; both lists are in random order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomSplit {
    /// Indices of the samples to learn from.
    pub train: Vec<usize>,
    /// Indices of the samples to judge by.
    pub test: Vec<usize>,
}

/// Divides `samples` samples at random, as scikit-learn's
/// [`train_test_split`](https://scikit-learn.org/stable/modules/generated/sklearn.model_selection.train_test_split.html) does, with its
/// sizes (the test part is rounded up) but draws of its own. One seed gives one division everywhere.
///
/// ```
/// use fused_rnn::data::train_test_split;
/// use ndarray::{Array2, Axis};
/// let x = Array2::<f32>::zeros((10, 3));
/// let split = train_test_split(x.nrows(), 0.25, 42)?;
/// let (train, test) = (x.select(Axis(0), &split.train), x.select(Axis(0), &split.test));
/// assert_eq!((train.nrows(), test.nrows()), (7, 3));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::InvalidOption`] for a fraction that is not above 0 and below 1, or that leaves no sample to train on;
/// [`Error::Unsupported`] where memory is short.
pub fn train_test_split(samples: usize, test_fraction: f64, seed: u64) -> Result<RandomSplit> {
    let test = test_count(samples, test_fraction)?;
    let mut order: Vec<usize> = Vec::new();
    // Twice, for the two parts.
    if order.try_reserve_exact(samples).is_err() || Vec::<usize>::new().try_reserve_exact(samples - test).is_err() {
        let why = "there is not enough memory for their numbers; split fewer";
        return Err(Error::unsupported(format!("a split of {samples} samples"), why));
    }
    order.extend(0..samples);
    Random::new(seed, SPLIT_STREAM).shuffle(&mut order);
    let train = order.split_off(test);
    Ok(RandomSplit { train, test: order })
}

/// As [`train_test_split`], but both parts have each class as often as all samples have it, up to rounding: scikit-learn's `stratify`.
/// `classes` has the class of each sample. Where rounding leaves places, they go to the classes that lost most by it, of equal ones to
/// the lower.
///
/// # Errors
///
/// [`Error::InvalidOption`] for a fraction that is not above 0 and below 1, or that leaves no sample to train on; for a class, which it
/// names, that has only one sample; and where a part is smaller than the number of classes.
pub fn stratified_train_test_split(classes: &[usize], test_fraction: f64, seed: u64) -> Result<RandomSplit> {
    let samples = classes.len();
    let test = test_count(samples, test_fraction)?;
    let mut by_class: std::collections::BTreeMap<usize, Vec<usize>> = std::collections::BTreeMap::new();
    for (sample, class) in classes.iter().enumerate() {
        by_class.entry(*class).or_default().push(sample);
    }
    if let Some((class, _)) = by_class.iter().find(|(_, members)| members.len() < 2) {
        return Err(Error::option("classes", "at least two samples of each class", format!("one of class {class}")));
    }
    if test.min(samples - test) < by_class.len() {
        return Err(Error::option(
            "test_fraction",
            format!("at least {} samples in each part, one for each class", by_class.len()),
            format!("{test_fraction}: {} to train on and {test} to test", samples - test),
        ));
    }
    // Largest remainders, in whole numbers.
    let share = |members: &Vec<usize>| members.len() as u128 * test as u128;
    let mut counts: Vec<usize> = by_class.values().map(|members| (share(members) / samples as u128) as usize).collect();
    let left = test - counts.iter().sum::<usize>();
    let remainders = by_class.values().map(|members| share(members) % samples as u128);
    let mut by_remainder: Vec<(u128, &mut usize)> = remainders.zip(&mut counts).collect();
    by_remainder.sort_by_key(|(remainder, _)| std::cmp::Reverse(*remainder));
    by_remainder.into_iter().take(left).for_each(|(_, count)| *count += 1);

    let mut random = Random::new(seed, SPLIT_STREAM);
    let mut split = RandomSplit {
        train: memory::room("samples to train on", samples - test)?,
        test: memory::room("samples to test", test)?,
    };
    for (mut members, count) in by_class.into_values().zip(counts) {
        random.shuffle(&mut members);
        split.train.extend(members.iter().skip(count));
        split.test.extend(members.iter().take(count));
    }
    random.shuffle(&mut split.train);
    random.shuffle(&mut split.test);
    Ok(split)
}

/// The size of the test part.
fn test_count(samples: usize, fraction: f64) -> Result<usize> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::option("test_fraction", "a fraction of the samples, above 0 and below 1", fraction));
    }
    let test = (samples as f64 * fraction).ceil() as usize;
    if test >= samples {
        return Err(Error::option(
            "test_fraction",
            format!("a fraction that leaves some of the {samples} samples to train on"),
            fraction,
        ));
    }
    Ok(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(split: &RandomSplit) -> Vec<usize> {
        let mut all = [&split.train[..], &split.test[..]].concat();
        all.sort_unstable();
        all
    }

    #[test]
    fn every_sample_once_and_the_same_for_a_seed() {
        let split = train_test_split(101, 0.2, 7).unwrap();
        assert_eq!((split.train.len(), split.test.len()), (80, 21));
        assert_eq!(sorted(&split), (0..101).collect::<Vec<_>>());
        assert_eq!(split, train_test_split(101, 0.2, 7).unwrap());
        assert_ne!(split, train_test_split(101, 0.2, 8).unwrap());
        assert!(!split.test.is_sorted() && !split.train.is_sorted());
    }

    #[test]
    fn strata_keep_their_shares() {
        let classes: Vec<usize> = (0..100).map(|i| if i < 60 { 5 } else { 7 + usize::from(i >= 90) }).collect();
        let split = stratified_train_test_split(&classes, 0.2, 3).unwrap();
        assert_eq!(sorted(&split), (0..100).collect::<Vec<_>>());
        let count = |part: &[usize], class| part.iter().filter(|i| classes[**i] == class).count();
        assert_eq!([5, 7, 8].map(|class| count(&split.test, class)), [12, 6, 2]);
        assert_eq!([5, 7, 8].map(|class| count(&split.train, class)), [48, 24, 8]);
        assert_eq!(split, stratified_train_test_split(&classes, 0.2, 3).unwrap());
        assert_ne!(split, stratified_train_test_split(&classes, 0.2, 4).unwrap());
        // 7 and 6 of 13 for a part of 4: 2.15 and 1.85.
        let classes: Vec<usize> = (0..13).map(|i| usize::from(i >= 7)).collect();
        let split = stratified_train_test_split(&classes, 0.3, 0).unwrap();
        assert_eq!(split.test.iter().filter(|i| classes[**i] == 1).count(), 2);
    }

    #[test]
    fn what_cannot_be_divided() {
        for fraction in [0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert!(matches!(train_test_split(10, fraction, 0), Err(Error::InvalidOption { .. })), "{fraction}");
        }
        for samples in [0, 1] {
            assert!(train_test_split(samples, 0.5, 0).is_err());
            assert!(stratified_train_test_split(&vec![0; samples], 0.5, 0).is_err());
        }
        let message = stratified_train_test_split(&[0, 0, 3, 0, 0], 0.4, 0).unwrap_err().to_string();
        assert!(message.contains("one of class 3"), "{message}");
        let message = stratified_train_test_split(&[0, 1, 2, 0, 1, 2], 0.3, 0).unwrap_err().to_string();
        assert!(message.contains("at least 3 samples"), "{message}");
    }
}
