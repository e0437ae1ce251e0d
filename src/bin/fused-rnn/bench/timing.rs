//! Times of calls: samples, their median and spread.

use std::time::{Duration, Instant};

use fused_rnn::Result;

/// Microseconds a call, of every call that was timed.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// In order of size.
    samples: Vec<f64>,
    /// The median of each round.
    pub rounds: Vec<f64>,
}

impl Times {
    /// Adds the samples of a round; one without any adds nothing.
    pub fn add(&mut self, mut round: Vec<f64>) {
        round.sort_unstable_by(f64::total_cmp);
        if round.is_empty() {
            return;
        }
        self.rounds.push(quantile(&round, 0.5));
        self.samples.extend(round);
        self.samples.sort_unstable_by(f64::total_cmp);
    }

    pub fn count(&self) -> usize {
        self.samples.len()
    }

    /// The median of all calls.
    pub fn median(&self) -> f64 {
        quantile(&self.samples, 0.5)
    }

    /// The time that this part of all calls reaches.
    pub fn quantile(&self, part: f64) -> f64 {
        quantile(&self.samples, part)
    }

    pub fn best(&self) -> f64 {
        quantile(&self.samples, 0.0)
    }
}

/// Of numbers in order of size; NaN of none.
fn quantile(ordered: &[f64], part: f64) -> f64 {
    let last = ordered.len().saturating_sub(1) as f64;
    ordered.get((last * part).round() as usize).copied().unwrap_or(f64::NAN)
}

/// The median over rounds of `peer / ours`: above 1 ours is faster.
pub fn ratio(ours: &Times, peer: &Times) -> f64 {
    let mut ratios: Vec<_> = ours.rounds.iter().zip(&peer.rounds).map(|(ours, peer)| peer / ours).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    quantile(&ratios, 0.5)
}

pub fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The times of as many calls as fit `seconds`, and at least `least`; `call` gives microseconds.
pub fn sample(seconds: f64, least: usize, mut call: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < least || start.elapsed().as_secs_f64() < seconds {
        times.push(call()?);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let (mut ours, mut peer) = (Times::default(), Times::default());
        for (a, b) in [(vec![3.0, 1.0, 2.0], vec![4.0]), (vec![10.0], vec![30.0]), (vec![4.0], vec![4.0])] {
            ours.add(a);
            peer.add(b);
        }
        assert_eq!((ours.count(), ours.median(), ours.best(), ours.quantile(1.0)), (5, 3.0, 1.0, 10.0));
        assert_eq!(ratio(&ours, &peer), 2.0);
        assert!(Times::default().median().is_nan() && ratio(&ours, &Times::default()).is_nan());
    }
}
