//! How many values a season has: [`detect_season`], from the data, and [`seasonal_strength`], how much of it a season explains.
#![expect(
    clippy::indexing_slicing,
    reason = "lags and halves of a season are bounded by the number of values before they are used"
)]

/// Least part of the variance about the trend that a season must explain.
const LEAST_STRENGTH: f64 = 0.15;
/// Seasons that there must be to tell one.
const LEAST_SEASONS: usize = 3;

/// The season of a series, in values: the shortest of `candidates` that explains some of it ([`seasonal_strength`] above 0.15). Without
/// candidates, as where nothing says how often there is a value, the shortest of the pronounced periods of its autocorrelation. `None` where there is
/// no season, or not three of them.
pub fn detect_season(values: &[f64], candidates: &[usize]) -> Option<usize> {
    if candidates.is_empty() {
        return detect_period(values);
    }
    let mut candidates = candidates.to_vec();
    candidates.sort_unstable();
    candidates.into_iter().find(|season| seasonal_strength(values, *season) > LEAST_STRENGTH)
}

/// The part, from 0 to 1, of the variance about the trend that the places within a season explain, less what they would explain of noise.
/// The trend is the mean of a season around each value. Zero where there are not three seasons.
pub fn seasonal_strength(values: &[f64], season: usize) -> f64 {
    if season < 2 || values.len() < season.saturating_mul(LEAST_SEASONS) {
        return 0.0;
    }
    let detrended = without_trend(values, season);
    let mut sums = vec![(0.0, 0usize); season];
    for (i, value) in detrended.iter().enumerate() {
        let (sum, count) = &mut sums[i % season];
        (*sum, *count) = (*sum + value, *count + 1);
    }
    let total: f64 = detrended.iter().map(|v| v * v).sum();
    let explained: f64 = sums.iter().map(|(sum, count)| sum * sum / (*count).max(1) as f64).sum();
    let free = detrended.len() as f64 - season as f64;
    if total <= f64::MIN_POSITIVE || free < 1.0 || !total.is_finite() {
        return 0.0;
    }
    (1.0 - (1.0 - explained / total) * (detrended.len() as f64 - 1.0) / free).max(0.0)
}

/// The values less the mean of the season around each: those for which there is one, and with mean zero.
fn without_trend(values: &[f64], season: usize) -> Vec<f64> {
    let half = season / 2;
    let mut sums = Vec::with_capacity(values.len() + 1);
    let mut sum = 0.0;
    sums.push(sum);
    for value in values {
        sum += value;
        sums.push(sum);
    }
    let inner = half..values.len().saturating_sub(half);
    let mut detrended: Vec<f64> = inner
        .map(|i| {
            // Of an even season the first and the last value count half.
            let around = match season % 2 {
                0 => sums[i + half] - sums[i - half] + (values[i + half] - values[i - half]) / 2.0,
                _ => sums[i + half + 1] - sums[i - half],
            };
            values[i] - around / season as f64
        })
        .collect();
    let mean = detrended.iter().sum::<f64>() / detrended.len().max(1) as f64;
    detrended.iter_mut().for_each(|v| *v -= mean);
    detrended
}

/// How much higher than a season's the autocorrelation of a longer one is.
const HIGHER: f64 = 0.1;

/// A longer season beside one of so many values, as the week beside the day: the multiple of it, up to 400 values, whose autocorrelation
/// is highest, where that is above the season's own by more than 0.1. `None` where there is none, or not four of them.
pub fn longer_season(values: &[f64], season: usize) -> Option<usize> {
    let n = values.len();
    if season < 2 || season > n / 8 {
        return None;
    }
    let rest = without_line(values);
    let variance: f64 = rest.iter().map(|v| v * v).sum::<f64>() / n as f64;
    if variance <= f64::MIN_POSITIVE || !variance.is_finite() {
        return None;
    }
    let correlation =
        |lag: usize| rest.iter().zip(&rest[lag..]).map(|(a, b)| a * b).sum::<f64>() / (n - lag) as f64 / variance;
    let multiples = (2 * season..=LONGEST.min(n / 4)).step_by(season);
    let (longer, highest) =
        multiples.map(|lag| (lag, correlation(lag))).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
    (highest > correlation(season) + HIGHER).then_some(longer)
}

/// How high a shorter period's peak is, to the highest, to be taken in its place.
const ALMOST: f64 = 0.8;

/// Longest period that is looked for.
const LONGEST: usize = 400;

/// The shortest period with about the highest peak of the autocorrelation, of the values without their linear trend.
fn detect_period(values: &[f64]) -> Option<usize> {
    let n = values.len();
    let most = (n / LEAST_SEASONS).min(LONGEST);
    if most < 3 {
        return None;
    }
    let rest = without_line(values);
    let variance: f64 = rest.iter().map(|v| v * v).sum();
    if variance <= f64::MIN_POSITIVE || !variance.is_finite() {
        return None;
    }
    let correlation: Vec<f64> = (0..=most + 1)
        .map(|lag| rest.iter().zip(&rest[lag.min(n)..]).map(|(a, b)| a * b).sum::<f64>() / variance)
        .collect();
    // A peak must stand out of the trough before it, too: a slow wander has high correlations everywhere.
    let least = 0.2f64.max(2.0 / (n as f64).sqrt());
    let is_peak = |lag: &usize| {
        let trough = correlation[..*lag].iter().copied().fold(f64::INFINITY, f64::min);
        correlation[*lag] >= correlation[lag - 1]
            && correlation[*lag] > correlation[lag + 1]
            && correlation[*lag] > least
            && correlation[*lag] - trough > 0.3
    };
    // Multiples of a season are about as high, and by chance higher.
    let peaks: Vec<usize> = (2..=most).filter(is_peak).collect();
    let highest = peaks.iter().map(|lag| correlation[*lag]).fold(0.0, f64::max);
    peaks.into_iter().find(|lag| correlation[*lag] >= ALMOST * highest)
}

/// The values less their linear trend.
fn without_line(values: &[f64]) -> Vec<f64> {
    let n = values.len();
    let (mean_t, mean) = (n.saturating_sub(1) as f64 / 2.0, values.iter().sum::<f64>() / n as f64);
    let spread: f64 = (0..n).map(|t| (t as f64 - mean_t).powi(2)).sum();
    let slope = values.iter().enumerate().map(|(t, v)| (t as f64 - mean_t) * (v - mean)).sum::<f64>() / spread;
    values.iter().enumerate().map(|(t, v)| v - mean - slope * (t as f64 - mean_t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> impl Iterator<Item = f64> {
        let mut state = 12345u64;
        (0..n).map(move |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as f64 / 2f64.powi(31) - 0.5
        })
    }

    #[test]
    fn sizes_that_overflow_are_no_seasons() {
        let values = [1.0, 2.0].repeat(50);
        for season in [0, 1, usize::MAX / 2 + 1, usize::MAX] {
            assert_eq!((longer_season(&values, season), seasonal_strength(&values, season)), (None, 0.0), "{season}");
            assert_eq!((longer_season(&[], season), detect_season(&[], &[season])), (None, None), "{season}");
        }
    }

    #[test]
    fn seasons_of_series_that_have_one() {
        let wave = |t: usize| (t as f64 * std::f64::consts::TAU / 12.0).sin();
        let monthly: Vec<f64> = noise(120).enumerate().map(|(t, e)| 0.3 * t as f64 + wave(t) + 0.5 * e).collect();
        assert_eq!(detect_season(&monthly, &[12]), Some(12));
        assert!(seasonal_strength(&monthly, 12) > 0.8 && seasonal_strength(&monthly, 7) < 0.1);
        assert_eq!(detect_season(&monthly, &[]), Some(12));
        // Days of which every second is a little stronger.
        let days: Vec<f64> =
            noise(400).enumerate().map(|(t, e)| (1.0 + 0.1 * (t / 12 % 2) as f64) * wave(t) + 0.2 * e).collect();
        assert_eq!(detect_season(&days, &[]), Some(12));
        // The shortest that explains something.
        assert_eq!(detect_season(&monthly, &[24, 7, 12]), Some(12));
    }

    #[test]
    fn a_week_beside_a_day() {
        let wave = |t: usize, season: usize| (t as f64 * std::f64::consts::TAU / season as f64).sin();
        let hours: Vec<f64> = noise(600)
            .enumerate()
            .map(|(t, e)| if t / 24 % 7 < 5 { 2.0 * wave(t, 24) } else { 0.0 } + 0.3 * e)
            .collect();
        assert_eq!((detect_season(&hours, &[24, 168]), longer_season(&hours, 24)), (Some(24), None), "not four weeks");
        let hours: Vec<f64> = hours.iter().chain(&hours[..504]).copied().collect();
        assert_eq!(longer_season(&hours[..1000], 24), Some(168));
        let days: Vec<f64> = noise(600).enumerate().map(|(t, e)| wave(t, 24) + e).collect();
        assert_eq!(
            (longer_season(&days, 24), longer_season(&days, 1), longer_season(&[1.0; 50], 2)),
            (None, None, None)
        );
    }

    #[test]
    fn none_where_there_is_none() {
        let noise: Vec<f64> = noise(200).collect();
        let walk: Vec<f64> = noise
            .iter()
            .scan(0.0, |sum, e| {
                *sum += e;
                Some(*sum)
            })
            .collect();
        let line: Vec<f64> = (0..100).map(f64::from).collect();
        for values in [
            &noise[..],
            &walk,
            &line,
            &[3.0; 50],
            &[],
            &[1.0],
            &[1.0, f64::MAX, -f64::MAX, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        ] {
            assert_eq!(detect_season(values, &[4, 12]), None, "{values:?}");
            assert_eq!(detect_season(values, &[]), None, "{values:?}");
        }
        assert_eq!(seasonal_strength(&noise, 0), 0.0);
        assert_eq!(seasonal_strength(&noise, usize::MAX), 0.0);
    }
}
