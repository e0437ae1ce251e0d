//! From the scores of a model to a next token or a sequence of them: [`Sampler`], [`greedy_decode`], [`beam_decode`].

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::nn::Random;

/// Draws a token by the scores (logits) of all: from the softmax of `scores / temperature`, of the `top_k` most likely alone, and of the
/// fewest of those whose probabilities add up to `top_p` ([Holtzman et al. 2020](https://arxiv.org/abs/1904.09751)).
///
/// ```
/// use fused_rnn::data::Sampler;
/// use fused_rnn::nn::Random;
/// let sampler = Sampler { temperature: 0.7, top_k: Some(2), top_p: None };
/// let token = sampler.sample(&[0.1f32, 3.0, 2.5], &mut Random::new(1, 0))?;
/// assert!(token == 1 || token == 2);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// What scores are divided by; 1. Below 1 likely tokens become likelier; above zero.
    pub temperature: f64,
    /// How many of the most likely tokens may be drawn; all.
    pub top_k: Option<usize>,
    /// The sum of probabilities that the tokens to draw from reach; above 0, at most 1; all.
    pub top_p: Option<f64>,
}

impl Default for Sampler {
    fn default() -> Self {
        Sampler { temperature: 1.0, top_k: None, top_p: None }
    }
}

impl Sampler {
    /// A token's number.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a temperature that is not finite and above zero, or a `top_p` that is not above 0 and at most 1;
    /// [`Error::ZeroSize`] for `top_k` of zero or no scores; [`Error::NonFinite`] for scores that are NaN, infinite, or all minus infinity.
    pub fn sample<E: Scalar>(&self, scores: &[E], random: &mut Random) -> Result<usize> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Error::option("temperature", "a finite number above zero", self.temperature));
        }
        if let Some(top_p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return Err(Error::option("top_p", "a number above 0, at most 1", top_p));
        }
        if self.top_k == Some(0) {
            return Err(Error::ZeroSize { name: "top_k" });
        }
        let scores: Vec<f64> = scores.iter().map(|score| score.wide()).collect();
        check_scores(&scores)?;
        let mut order = by_score(&scores);
        order.truncate(self.top_k.unwrap_or(usize::MAX));
        let most = order.first().map_or(0.0, |(_, most)| *most);
        let mut weights: Vec<f64> = order.iter().map(|(_, score)| ((score - most) / self.temperature).exp()).collect();
        if let Some(top_p) = self.top_p {
            let enough = top_p * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let kept = weights.iter().position(|weight| {
                sum += weight;
                sum >= enough
            });
            weights.truncate(kept.map_or(weights.len(), |last| last + 1));
        }
        let mut left = random.uniform() * weights.iter().sum::<f64>();
        let mut last = Err(Error::ZeroSize { name: "number of scores" });
        for (weight, (token, _)) in weights.iter().zip(&order) {
            last = Ok(*token);
            left -= weight;
            if left < 0.0 {
                return last;
            }
        }
        // Rounding may leave a little.
        last
    }
}

/// Tokens and their scores, the highest first; of equal scores the first comes first.
fn by_score(scores: &[f64]) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    order
}

fn check_scores(scores: &[f64]) -> Result<()> {
    let bad = scores.iter().position(|score| score.is_nan() || *score == f64::INFINITY);
    let bad = bad.or_else(|| scores.iter().all(|score| *score == f64::NEG_INFINITY).then_some(0));
    match bad {
        _ if scores.is_empty() => Err(Error::ZeroSize { name: "number of scores" }),
        None => Ok(()),
        Some(i) => Err(Error::NonFinite {
            tensor: "scores".to_owned(),
            got: scores.get(i).copied().unwrap_or(f64::NAN),
            position: format!("token {i}"),
            help: "no token follows from it; lower the learning rate, clip gradients, or check the data".to_owned(),
        }),
    }
}

/// A sequence of tokens, and the logarithm of its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Without the end.
    pub tokens: Vec<usize>,
    /// With that of the end, where it was reached.
    pub log_probability: f64,
}

/// The most likely token of each step, until `end` or so many tokens. `step` gets the state and the token before, `start` at first, and
/// gives the logarithms of the probabilities of all tokens, and the next state.
///
/// # Errors
///
/// What `step` returns; [`Error::ZeroSize`] and [`Error::NonFinite`] for what is no list of logarithms.
pub fn greedy_decode<S: Clone>(
    state: S,
    start: usize,
    end: usize,
    most: usize,
    step: impl FnMut(&S, usize) -> Result<(Vec<f64>, S)>,
) -> Result<Decoded> {
    let mut found = beam_decode(state, start, end, most, 1, step)?;
    found.pop().ok_or(Error::ZeroSize { name: "width of the beam" })
}

/// The most likely sequences that a beam of `width` finds, the most likely first: as [`greedy_decode`], but so many sequences go on from step
/// to step. Those that have ended stay.
///
/// # Errors
///
/// As [`greedy_decode`]; [`Error::ZeroSize`] for a width of zero.
pub fn beam_decode<S: Clone>(
    state: S,
    start: usize,
    end: usize,
    most: usize,
    width: usize,
    mut step: impl FnMut(&S, usize) -> Result<(Vec<f64>, S)>,
) -> Result<Vec<Decoded>> {
    if width == 0 {
        return Err(Error::ZeroSize { name: "width of the beam" });
    }
    struct Path<S> {
        decoded: Decoded,
        /// None where it has ended.
        open: Option<(S, usize)>,
    }
    let mut paths =
        vec![Path { decoded: Decoded { tokens: Vec::new(), log_probability: 0.0 }, open: Some((state, start)) }];
    for _ in 0..most {
        if paths.iter().all(|path| path.open.is_none()) {
            break;
        }
        let mut next = Vec::new();
        for path in paths {
            let Some((state, token)) = path.open else {
                next.push(path);
                continue;
            };
            let (scores, state) = step(&state, token)?;
            check_scores(&scores)?;
            for (token, score) in by_score(&scores).into_iter().take(width) {
                let mut tokens = path.decoded.tokens.clone();
                let open = if token == end { None } else { Some((state.clone(), token)) };
                if open.is_some() {
                    tokens.push(token);
                }
                let log_probability = path.decoded.log_probability + score;
                next.push(Path { decoded: Decoded { tokens, log_probability }, open });
            }
        }
        // Stable, so that equally likely ones are taken alike every time.
        next.sort_by(|a, b| b.decoded.log_probability.total_cmp(&a.decoded.log_probability));
        next.truncate(width);
        paths = next;
    }
    Ok(paths.into_iter().map(|path| path.decoded).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let scores = [1.0f64, 2.0, 0.0, -1.0];
        let count = |sampler: Sampler| {
            let mut random = Random::new(3, 0);
            let mut counts = [0.0f64; 4];
            for _ in 0..20_000 {
                counts[sampler.sample(&scores, &mut random).unwrap()] += 1.0 / 20_000.0;
            }
            counts
        };
        let close = |got: [f64; 4], weights: [f64; 4]| {
            let total: f64 = weights.iter().sum();
            got.iter().zip(weights).for_each(|(got, w)| assert!((got - w / total).abs() < 0.02, "{got} {w}"));
        };
        let e = |v: f64| v.exp();
        close(count(Sampler::default()), [e(1.0), e(2.0), e(0.0), e(-1.0)]);
        close(count(Sampler { temperature: 0.5, ..Sampler::default() }), [e(2.0), e(4.0), e(0.0), e(-2.0)]);
        close(count(Sampler { top_k: Some(2), ..Sampler::default() }), [e(1.0), e(2.0), 0.0, 0.0]);
        // 0.64, 0.24, 0.09, 0.03: two are needed for 0.7, one for 0.6.
        close(count(Sampler { top_p: Some(0.7), ..Sampler::default() }), [e(1.0), e(2.0), 0.0, 0.0]);
        close(count(Sampler { top_p: Some(0.6), ..Sampler::default() }), [0.0, 1.0, 0.0, 0.0]);
        close(count(Sampler { temperature: 1e-300, ..Sampler::default() }), [0.0, 1.0, 0.0, 0.0]);
        let mut random = Random::new(1, 0);
        for (temperature, top_k, top_p) in [
            (0.0, None, None),
            (f64::NAN, None, None),
            (1.0, Some(0), None),
            (1.0, None, Some(0.0)),
            (1.0, None, Some(1.5)),
        ] {
            assert!(Sampler { temperature, top_k, top_p }.sample(&scores, &mut random).is_err());
        }
        for scores in [&[][..], &[f64::NAN, 1.0], &[f64::INFINITY], &[f64::NEG_INFINITY; 2]] {
            assert!(Sampler::default().sample(scores, &mut random).is_err(), "{scores:?}");
        }
    }

    /// Token 0 is the likeliest first, but what follows it is not: a beam of two finds the better sequence.
    #[test]
    fn a_beam_sees_further_than_greed() {
        let step = |(): &(), before: usize| {
            let probabilities: [f64; 4] = match before {
                0 => [0.25, 0.25, 0.25, 0.25],
                1 => [0.0, 0.0, 0.1, 0.9],
                2 => [0.0, 0.0, 0.0, 1.0],
                _ => [0.5, 0.4, 0.1, 0.0],
            };
            Ok((probabilities.map(f64::ln).to_vec(), ()))
        };
        let greedy = greedy_decode((), 9, 3, 10, step).unwrap();
        assert_eq!(greedy.tokens[0], 0);
        let found = beam_decode((), 9, 3, 10, 3, step).unwrap();
        assert_eq!(found[0].tokens, [1]);
        assert!((found[0].log_probability - 0.36f64.ln()).abs() < 1e-12 && found.len() == 3);
        assert!(found[0].log_probability > greedy.log_probability);
        // No more tokens than asked for; a step's error comes through.
        assert_eq!(greedy_decode((), 9, 3, 2, |(), _| Ok((vec![0.0, -1.0, -1.0, -9.0], ()))).unwrap().tokens, [0, 0]);
        assert!(
            beam_decode((), 9, 3, 2, 0, step).is_err() && greedy_decode((), 9, 3, 2, |(), _| Ok((vec![], ()))).is_err()
        );
    }
}
