//! What a recurrent network corrects: [`Reference`], a combination of simple forecasts that is chosen by rolling origins.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::forecast::baseline::check_horizon;
use crate::forecast::method::{Method, zeros};
use crate::forecast::ridge::{Anchor, RidgeShape, RidgeSums};
use crate::forecast::smoothing::Smoothing;
use crate::forecast::weights::combination;

/// A simple forecast with its weight in a [`Reference`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its part of the combination, from 0 to 1; together they are 1.
    pub weight: f64,
    /// The forecast.
    pub method: Method,
}

/// A combination of simple forecasts, the mean of its members with their weights.
///
/// It is fitted to series on a common scale ([`Transform`](crate::forecast::Transform)), `[rows, columns]`: the column to forecast, columns
/// that are read beside it, and columns whose future is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The forecasts that it is made of.
    pub members: Vec<Member>,
}

/// What a [`Reference`] is chosen for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceOptions {
    /// Values of a season; 1 for none.
    pub season: usize,
    /// Values of a longer season beside it, where there is one.
    pub longer: Option<usize>,
    /// Values to forecast at once.
    pub horizon: usize,
    /// Columns that are read beside the one to forecast.
    pub inputs: usize,
    /// Columns after those whose future is known.
    pub known: usize,
    /// Most values that a linear forecast reads; `None` for two seasons and one value.
    pub lags: Option<usize>,
    /// Values of the part of each series that the choice is measured on.
    pub validation: usize,
}

/// A series that a [`Reference`] is chosen on.
#[derive(Clone, Copy)]
pub struct ReferenceSeries<'a> {
    /// `[rows, columns]`.
    pub rows: ArrayView2<'a, f64>,
    /// The end of the part that may be seen.
    pub end: usize,
}

/// What [`Reference::choose`] has chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Fitted to all that may be seen but the validation part, so that its errors there are honest.
    pub of_training: Reference,
    /// The same, fitted to all that may be seen.
    pub of_all: Reference,
    /// Squared errors of rolling origins, measured as told.
    pub error: f64,
}

/// Penalties that are tried.
const PENALTIES: [f64; 6] = [0.0003, 0.003, 0.03, 0.3, 3.0, 30.0];
/// Most blocks of rolling origins, each as long as the validation part.
const MOST_BLOCKS: usize = 3;
/// Most origins of a block.
const MOST_ORIGINS: usize = 300;
/// Fewer values for a parameter than this make a linear forecast of fewer lags.
const VALUES_PER_LAG: usize = 3;

impl Reference {
    /// Naive or, with a season, seasonal naive alone.
    pub fn naive(season: usize) -> Self {
        Reference { members: vec![Member { weight: 1.0, method: Method::Season(season.max(1)) }] }
    }

    /// Values before the first that it can forecast.
    pub fn context(&self) -> usize {
        self.members.iter().map(|member| member.method.context()).max().unwrap_or(1)
    }

    /// The `horizon` values from each of the growing `origins` on, from the values before it: `[origins, horizon]`. Known columns reach
    /// `horizon` values further. NaN for an origin before [`context`](Self::context), where rows or columns are not there, and for steps
    /// beyond those that a linear member was fitted to.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a horizon of more than ten million values; [`Error::Unsupported`] where memory is short.
    pub fn forecasts(&self, rows: ArrayView2<'_, f64>, origins: &[usize], horizon: usize) -> Result<Array2<f64>> {
        check_horizon(horizon)?;
        let mut sum = zeros(origins.len(), horizon)?;
        for Member { weight, method } in &self.members {
            sum.scaled_add(*weight, &method.forecasts(rows, origins, horizon)?);
        }
        Ok(sum)
    }

    /// Its members in a sentence, the heaviest first.
    pub fn described(&self) -> String {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        let parts: Vec<String> = members.iter().map(|m| format!("{:.2} {}", m.weight, m.method.name())).collect();
        match members.as_slice() {
            [only] => only.method.name(),
            _ => parts.join(" + "),
        }
    }

    /// Fits simple forecasts and weighs them by their errors on rolling origins: blocks of the length of the validation part, at the end of
    /// what may be seen, each forecast by methods that were fitted to what lies before the block. Of each kind of linear forecast the
    /// penalty with the least error is taken. `measure(i, scaled forecast, scaled truth)` is the error of series `i` in the end, as for
    /// series that are scaled in different ways. Of several series errors count relative to those of the better of naive and seasonal naive, so that
    /// one of noise does not decide for the others. Where the series are too short for all of it, it is [`naive`](Self::naive).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where a series has fewer columns than the options say; [`Error::ZeroSize`] for a horizon or a longer season of
    /// zero; [`Error::InvalidOption`] for a horizon of more than ten million values;
    /// [`Error::NonFinite`] where the values are too large to compute with.
    pub fn choose(
        series: &[ReferenceSeries<'_>],
        options: ReferenceOptions,
        measure: impl Fn(usize, f64, f64) -> f64,
    ) -> Result<Chosen> {
        let columns = options.inputs.saturating_add(options.known).saturating_add(1);
        if let Some(of) = series.iter().find(|of| of.rows.ncols() < columns) {
            return Err(Error::shape("series", format!("[rows, {columns}]"), format!("{:?}", of.rows.shape())));
        }
        if options.horizon == 0 {
            return Err(Error::ZeroSize { name: "horizon" });
        }
        if options.longer == Some(0) {
            return Err(Error::ZeroSize { name: "longer season" });
        }
        check_horizon(options.horizon)?;
        let series: Vec<ReferenceSeries<'_>> =
            series.iter().map(|of| ReferenceSeries { end: of.end.min(of.rows.nrows()), ..*of }).collect();
        let series = &series[..];
        let blocks = Block::of(series, options);
        let naive = Reference::naive(options.season);
        let mut candidates: Vec<Candidate> = vec![Candidate::fixed(Method::Season(1))];
        if options.season > 1 {
            candidates.push(Candidate::fixed(Method::Season(options.season)));
        }
        candidates.extend(options.longer.map(|longer| Candidate::fixed(Method::Season(longer))));
        candidates.push(Candidate { kind: Kind::Smoothing(options.season), ..Candidate::default() });
        if options.season > 1 {
            candidates.push(Candidate { kind: Kind::Smoothing(1), ..Candidate::default() });
        }
        let naive_errors = NaiveErrors::of(&mut candidates, series, &blocks, options, &measure);
        let measure = |i: usize, forecast: f64, truth: f64| measure(i, forecast, truth) / naive_errors.measured(i);
        let shortest = blocks.iter().map(|block| block.ends.iter().copied().max().unwrap_or(0)).min().unwrap_or(0);
        for shape in shapes(options, shortest) {
            candidates.push(Candidate { kind: Kind::Ridge(shape), ..Candidate::default() });
        }
        // Errors of each candidate on all blocks, in one order.
        for candidate in candidates.iter_mut().filter(|candidate| candidate.errors.is_empty()) {
            candidate.measure(series, &blocks, options, &measure);
        }
        candidates.retain(|candidate| !candidate.errors.is_empty());
        if candidates.is_empty() {
            return Ok(Chosen { of_training: naive.clone(), of_all: naive, error: f64::INFINITY });
        }
        let errors: Vec<Vec<f64>> = candidates.iter().map(|candidate| naive_errors.relative(candidate)).collect();
        let weights = combination(&errors.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let error = combined_error(&candidates, &weights, series, &blocks, options, &measure);
        let fit = |ends: &dyn Fn(usize) -> usize| {
            let members = candidates.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0);
            let fitted: Vec<Member> = members
                .filter_map(|(candidate, weight)| {
                    let method = candidate.fit(series, ends, options).ok()?;
                    Some(Member { weight: *weight, method })
                })
                .collect();
            let sum: f64 = fitted.iter().map(|member| member.weight).sum();
            let members = fitted.into_iter().map(|m| Member { weight: m.weight / sum, ..m }).collect::<Vec<_>>();
            if members.is_empty() { naive.clone() } else { Reference { members } }
        };
        let training = |i: usize| blocks.first().map_or(0, |block| block.end(i));
        let all = |i: usize| series.get(i).map_or(0, |series| series.end);
        Ok(Chosen { of_training: fit(&training), of_all: fit(&all), error })
    }

    pub(crate) fn validate(&self, horizon: usize, inputs: usize, known: usize) -> Result<()> {
        if self.members.is_empty() {
            return Err(Error::ZeroSize { name: "number of members of a reference" });
        }
        for member in &self.members {
            if !(0.0..=1.0 + 1e-9).contains(&member.weight) {
                return Err(Error::option("weight of a reference's member", "0 to 1", member.weight));
            }
            match &member.method {
                Method::Season(0) => return Err(Error::ZeroSize { name: "season" }),
                Method::Season(_) => {}
                Method::Smoothing(smoothing) => smoothing.validate()?,
                Method::Ridge(ridge) if (ridge.inputs, ridge.known) != (inputs, known) => {
                    let said = |inputs: usize, known: usize| format!("{inputs} inputs and {known} known columns");
                    return Err(Error::shape("linear forecasts", said(inputs, known), said(ridge.inputs, ridge.known)));
                }
                Method::Ridge(ridge) => ridge.validate(horizon)?,
            }
        }
        Ok(())
    }
}

/// Lags of the linear forecasts of many.
const MANY_LAGS: usize = 100;
/// Most values of a column beside the one to forecast that a linear forecast reads.
const INPUT_LAGS: usize = 12;
/// Most values of all those columns together: what is solved grows with the cube of them. Where there are more columns, the network alone reads them.
const MOST_INPUT_VALUES: usize = 240;

/// The linear forecasts that are tried where the shortest part to learn from has so many values.
fn shapes(options: ReferenceOptions, shortest: usize) -> Vec<RidgeShape> {
    let season = options.season.max(1);
    let usual = if season > 1 { season.saturating_mul(2).saturating_add(1).max(12) } else { 36 };
    let usual = match season {
        ..40 => usual,
        40..MANY_LAGS => season + 8,
        // The year of daily values: those a season before are what the forecast is a change of.
        _ => 36,
    };
    let free = shortest.saturating_sub(options.horizon) / VALUES_PER_LAG;
    let lags = options.lags.unwrap_or(usual).min(free.max(2)).max(1);
    let shape = |anchor: Anchor, lags: usize| RidgeShape {
        anchor,
        season,
        lags,
        inputs: options.inputs,
        input_lags: lags.min(INPUT_LAGS).min(MOST_INPUT_VALUES / options.inputs.max(1)),
        known: options.known,
    };
    let mut shapes: Vec<RidgeShape> = Anchor::ALL
        .into_iter()
        .filter(|anchor| season > 1 || !anchor.is_seasonal())
        .map(|anchor| shape(anchor, lags))
        .collect();
    if let Some(longer) = options.longer {
        let of_longer = [Anchor::Season, Anchor::SeasonalChange, Anchor::SeasonalMean];
        shapes.extend(of_longer.map(|anchor| RidgeShape { season: longer, ..shape(anchor, lags) }));
    }
    // Cycles that are longer than a season, where there is enough to tell.
    let long = MANY_LAGS.min(free / 2);
    if options.lags.is_none() && 3 * lags <= long {
        shapes.extend([Anchor::Mean, Anchor::Last].map(|anchor| shape(anchor, long)));
    }
    shapes
}

/// A block of origins, and where what may be learned for it ends, in each series.
struct Block {
    ends: Vec<usize>,
    /// Origins `[series]`.
    origins: Vec<Vec<usize>>,
}

impl Block {
    /// Where what may be learned of a series ends.
    fn end(&self, series: usize) -> usize {
        self.ends.get(series).copied().unwrap_or(0)
    }

    /// The last first.
    fn of(series: &[ReferenceSeries<'_>], options: ReferenceOptions) -> Vec<Block> {
        let length = options.validation.max(options.horizon);
        let block = |number: usize| {
            let ends: Vec<usize> =
                series.iter().map(|s| s.end.saturating_sub(length.saturating_mul(number + 1))).collect();
            let origins = series.iter().zip(&ends).map(|(s, end)| {
                let last = s.end.saturating_sub(length.saturating_mul(number).saturating_add(options.horizon));
                let count = (last + 1).saturating_sub(*end);
                (*end..=last)
                    .step_by(count.div_ceil(MOST_ORIGINS).max(1))
                    .filter(|origin| *origin > 0 && last >= *end)
                    .collect()
            });
            Block { origins: origins.collect(), ends }
        };
        let blocks: Vec<Block> = (0..MOST_BLOCKS).map(block).collect();
        let longest = series.iter().map(|s| s.end).max().unwrap_or(0);
        // The last block is always there; further ones as long as half of what may be seen lies before them.
        blocks
            .into_iter()
            .enumerate()
            .filter(|(number, _)| *number == 0 || length.saturating_mul(2 * (number + 1)) <= longest)
            .map(|(_, block)| block)
            .collect()
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Season(usize),
    Smoothing(usize),
    Ridge(RidgeShape),
}

/// A method that is tried, with its errors on the rolling origins, none where it cannot be.
struct Candidate {
    kind: Kind,
    penalty: f64,
    errors: Vec<f64>,
    /// Its forecasts, block by block and series by series.
    forecasts: Vec<Vec<Array2<f64>>>,
}

impl Default for Candidate {
    fn default() -> Self {
        Candidate { kind: Kind::Season(1), penalty: 0.0, errors: Vec::new(), forecasts: Vec::new() }
    }
}

impl Candidate {
    fn fixed(method: Method) -> Self {
        let season = if let Method::Season(season) = method { season } else { 1 };
        Candidate { kind: Kind::Season(season), ..Candidate::default() }
    }

    fn fit(
        &self,
        series: &[ReferenceSeries<'_>],
        ends: &dyn Fn(usize) -> usize,
        options: ReferenceOptions,
    ) -> Result<Method> {
        Ok(match self.kind {
            Kind::Season(season) => Method::Season(season),
            Kind::Smoothing(season) => {
                let parts: Vec<_> =
                    series.iter().enumerate().map(|(i, s)| s.rows.slice_move(ndarray::s![..ends(i), 0])).collect();
                Method::Smoothing(Smoothing::fit(&parts, season)?)
            }
            Kind::Ridge(shape) => {
                let rows: Vec<_> = series.iter().map(|s| s.rows).collect();
                Method::Ridge(RidgeSums::of(shape, &rows, ends, options.horizon)?.solve(self.penalty)?)
            }
        })
    }

    /// Its forecasts of the blocks with the best penalty, and their errors.
    fn measure(
        &mut self,
        series: &[ReferenceSeries<'_>],
        blocks: &[Block],
        options: ReferenceOptions,
        measure: &impl Fn(usize, f64, f64) -> f64,
    ) {
        let Kind::Ridge(shape) = self.kind else {
            let methods: Result<Vec<Method>> =
                blocks.iter().map(|block| self.fit(series, &|i| block.end(i), options)).collect();
            if let Ok(methods) = methods {
                self.take(&methods, series, blocks, options);
            }
            return;
        };
        let rows: Vec<_> = series.iter().map(|s| s.rows).collect();
        let sums: Result<Vec<RidgeSums>> =
            blocks.iter().map(|block| RidgeSums::of(shape, &rows, |i| block.end(i), options.horizon)).collect();
        let Ok(sums) = sums else { return };
        let mut best = f64::INFINITY;
        let mut of_best = None;
        for penalty in PENALTIES {
            let methods: Result<Vec<Method>> =
                sums.iter().map(|sums| Ok(Method::Ridge(sums.solve(penalty)?))).collect();
            let Ok(methods) = methods else { continue };
            self.take(&methods, series, blocks, options);
            let error = combined_error(std::slice::from_ref(self), &[1.0], series, blocks, options, measure);
            if error < best && !self.errors.is_empty() {
                best = error;
                of_best = Some((penalty, std::mem::take(&mut self.errors), std::mem::take(&mut self.forecasts)));
            }
        }
        (self.penalty, self.errors, self.forecasts) = of_best.unwrap_or_default();
    }

    fn take(
        &mut self,
        methods: &[Method],
        series: &[ReferenceSeries<'_>],
        blocks: &[Block],
        options: ReferenceOptions,
    ) {
        (self.errors, self.forecasts) = (Vec::new(), Vec::new());
        for (method, block) in methods.iter().zip(blocks) {
            let mut of_block = Vec::new();
            for (s, origins) in series.iter().zip(&block.origins) {
                if origins.first().is_some_and(|first| *first < method.context()) {
                    (self.errors, self.forecasts) = (Vec::new(), Vec::new());
                    return;
                }
                let Ok(forecasts) = method.forecasts(s.rows, origins, options.horizon) else {
                    (self.errors, self.forecasts) = (Vec::new(), Vec::new());
                    return;
                };
                for (origin, forecasts) in origins.iter().zip(forecasts.outer_iter()) {
                    let truth = s.rows.column(0).into_iter().skip(*origin);
                    self.errors.extend(forecasts.iter().zip(truth).map(|(forecast, truth)| forecast - truth));
                }
                of_block.push(forecasts);
            }
            self.forecasts.push(of_block);
        }
        if self.errors.iter().any(|error| !error.is_finite()) {
            (self.errors, self.forecasts) = (Vec::new(), Vec::new());
        }
    }
}

/// How large the errors of the better of naive and seasonal naive are for each of several series, in the mean of squares; 1 for a single series.
struct NaiveErrors(Vec<NaiveError>);

struct NaiveError {
    /// On the common scale.
    scaled: f64,
    /// As they are measured in the end.
    measured: f64,
}

/// The least of these errors, as a part of the largest: a series that repeats itself exactly has none.
const LEAST_NAIVE_ERROR: f64 = 1e-4;

impl NaiveErrors {
    /// Measures the candidates, which are of fixed seasons among others, too.
    fn of(
        candidates: &mut [Candidate],
        series: &[ReferenceSeries<'_>],
        blocks: &[Block],
        options: ReferenceOptions,
        measure: &impl Fn(usize, f64, f64) -> f64,
    ) -> Self {
        let mut of = NaiveErrors(Vec::new());
        if series.len() < 2 {
            return of;
        }
        of.0.extend(series.iter().map(|_| NaiveError { scaled: f64::INFINITY, measured: f64::INFINITY }));
        for candidate in candidates.iter_mut().filter(|candidate| matches!(candidate.kind, Kind::Season(_))) {
            candidate.measure(series, blocks, options, measure);
            for (i, (one, to)) in series.iter().zip(&mut of.0).enumerate() {
                let (mut scaled, mut measured, mut count) = (0.0, 0.0, 0usize);
                for (forecasts, block) in candidate.forecasts.iter().zip(blocks) {
                    let (Some(forecasts), Some(origins)) = (forecasts.get(i), block.origins.get(i)) else { continue };
                    for (origin, forecasts) in origins.iter().zip(forecasts.outer_iter()) {
                        let truth = one.rows.column(0).into_iter().skip(*origin);
                        for (forecast, truth) in forecasts.iter().zip(truth) {
                            scaled += (forecast - truth).powi(2);
                            measured += measure(i, *forecast, *truth);
                            count += 1;
                        }
                    }
                }
                if count > 0 {
                    to.scaled = to.scaled.min(scaled / count as f64);
                    to.measured = to.measured.min(measured / count as f64);
                }
            }
        }
        let is_error = |value: f64| value.is_finite() && value > 0.0;
        let largest = |part: fn(&NaiveError) -> f64| of.0.iter().map(part).filter(|v| is_error(*v)).fold(0.0, f64::max);
        let (scaled, measured) = (largest(|error| error.scaled), largest(|error| error.measured));
        let bounded = |value: f64, largest: f64| match value.is_finite() && largest > 0.0 {
            true => value.max(LEAST_NAIVE_ERROR * largest),
            false => 1.0,
        };
        for error in &mut of.0 {
            *error = NaiveError { scaled: bounded(error.scaled, scaled), measured: bounded(error.measured, measured) };
        }
        of
    }

    fn measured(&self, series: usize) -> f64 {
        self.0.get(series).map_or(1.0, |error| error.measured)
    }

    /// The errors of a candidate, in units of those of each series.
    fn relative(&self, candidate: &Candidate) -> Vec<f64> {
        let mut errors = candidate.errors.clone();
        if self.0.is_empty() {
            return errors;
        }
        let mut rest = &mut errors[..];
        for (forecasts, error) in candidate.forecasts.iter().flat_map(|block| block.iter().zip(&self.0)) {
            let (of_series, after) = rest.split_at_mut(forecasts.len().min(rest.len()));
            of_series.iter_mut().for_each(|value| *value /= error.scaled.sqrt());
            rest = after;
        }
        errors
    }
}

/// The error of the weighted candidates.
fn combined_error(
    candidates: &[Candidate],
    weights: &[f64],
    series: &[ReferenceSeries<'_>],
    blocks: &[Block],
    options: ReferenceOptions,
    measure: &impl Fn(usize, f64, f64) -> f64,
) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for (number, block) in blocks.iter().enumerate() {
        for (i, (s, origins)) in series.iter().zip(&block.origins).enumerate() {
            for (row, origin) in origins.iter().enumerate() {
                for (ahead, truth) in s.rows.column(0).iter().skip(*origin).take(options.horizon).enumerate() {
                    let of = |candidate: &Candidate| {
                        let forecasts = candidate.forecasts.get(number).and_then(|block| block.get(i));
                        forecasts.and_then(|f| f.get([row, ahead]).copied()).unwrap_or(f64::NAN)
                    };
                    let forecast: f64 = candidates.iter().zip(weights).map(|(c, weight)| weight * of(c)).sum();
                    sum += measure(i, forecast, *truth);
                    count += 1;
                }
            }
        }
    }
    if count == 0 { f64::INFINITY } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(season: usize, horizon: usize) -> ReferenceOptions {
        ReferenceOptions { season, longer: None, horizon, inputs: 0, known: 0, lags: None, validation: 2 * horizon }
    }

    fn squared(_: usize, forecast: f64, truth: f64) -> f64 {
        (forecast - truth).powi(2)
    }

    #[test]
    fn a_series_that_repeats_is_forecast_exactly() {
        let values: Vec<f64> = (0..80).map(|t| [0.0, 3.0, -1.0, -2.0][t % 4]).collect();
        let rows = Array2::from_shape_vec((80, 1), values).unwrap();
        let series = [ReferenceSeries { rows: rows.view(), end: 80 }];
        let chosen = Reference::choose(&series, options(4, 4), squared).unwrap();
        let ahead = chosen.of_all.forecasts(rows.view(), &[80], 4).unwrap();
        // More steps than its linear members know.
        let further = chosen.of_all.forecasts(rows.view(), &[80], 6).unwrap();
        assert!(further.slice(ndarray::s![.., 4..]).iter().all(|value| value.is_nan()), "{further}");
        assert!(chosen.of_all.forecasts(rows.view(), &[], usize::MAX).is_err());
        let none = chosen.of_all.forecasts(rows.slice(ndarray::s![.., ..0]), &[80], 4).unwrap();
        assert!(none.iter().all(|value| value.is_nan()), "{none}");
        for step in 0..4 {
            assert!((ahead[[0, step]] - rows[[step, 0]]).abs() < 0.05, "{ahead} {}", chosen.of_all.described());
        }
        assert!(chosen.error < 1e-2, "{}", chosen.error);
        chosen.of_all.validate(4, 0, 0).unwrap();
        let text = serde_json::to_string(&chosen.of_all).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&text).unwrap(), chosen.of_all);
    }

    /// One series of noise among several that a season and a trend explain: they are forecast as without it.
    #[test]
    fn noise_does_not_decide_for_others() {
        let noise = |t: usize| (t as u32).wrapping_mul(2_654_435_761).wrapping_add(12_345) as f64 / 2f64.powi(31) - 1.0;
        let regular = |phase: f64| {
            Array2::from_shape_fn((96, 1), |(t, _)| {
                (t as f64 * std::f64::consts::TAU / 12.0 + phase).sin() + 0.01 * noise(t)
            })
        };
        let all = [regular(0.0), regular(1.0), Array2::from_shape_fn((96, 1), |(t, _)| 1.7 * noise(t * t))];
        let of = |count: usize| {
            let series: Vec<_> =
                all[..count].iter().map(|rows| ReferenceSeries { rows: rows.view(), end: 84 }).collect();
            let chosen = Reference::choose(&series, options(12, 12), squared).unwrap().of_all;
            let ahead = chosen.forecasts(all[0].view(), &[84], 12).unwrap();
            let truth = all[0].column(0);
            ahead.row(0).iter().zip(truth.iter().skip(84)).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / 12.0
        };
        let (without, with) = (of(2), of(3));
        assert!(without < 3e-3 && with < 4.0 * without, "{without} {with}");
    }

    /// Many columns beside it, of which a linear forecast reads few values or none.
    #[test]
    fn many_columns_are_no_more_work() {
        let rows = Array2::from_shape_fn((80, 2001), |(t, c)| (t as f64 * (0.1 + c as f64 * 1e-3)).sin());
        let options = ReferenceOptions { inputs: 2000, ..options(1, 2) };
        let chosen = Reference::choose(&[ReferenceSeries { rows: rows.view(), end: 70 }], options, squared).unwrap();
        chosen.of_all.validate(2, 2000, 0).unwrap();
        assert!(shapes(options, 70).iter().all(|shape| shape.input_lags == 0));
        assert!(shapes(ReferenceOptions { inputs: 20, ..options }, 200).iter().all(|shape| shape.input_lags == 12));
    }

    #[test]
    fn what_comes_after_the_end_is_not_seen() {
        let value = |t: usize| (t as f64 * 0.7).sin() + 0.1 * (t as f64 * 2.3).cos();
        let one = Array2::from_shape_fn((100, 1), |(t, _)| value(t));
        let other = Array2::from_shape_fn((100, 1), |(t, _)| if t < 70 { value(t) } else { 1e3 });
        let of = |rows: &Array2<f64>| {
            Reference::choose(&[ReferenceSeries { rows: rows.view(), end: 70 }], options(9, 5), squared).unwrap()
        };
        assert_eq!(of(&one), of(&other));
    }

    #[test]
    fn short_series_are_naive() {
        for n in 0..6 {
            let rows = Array2::from_shape_fn((n, 1), |(t, _)| t as f64);
            let series = [ReferenceSeries { rows: rows.view(), end: n }];
            let chosen = Reference::choose(&series, options(4, 3), squared).unwrap();
            assert!(chosen.of_all.validate(3, 0, 0).is_ok(), "{n}");
        }
    }

    #[test]
    fn hostile_sizes() {
        let rows = Array2::from_shape_fn((40, 1), |(t, _)| (t % 5) as f64);
        for end in [0, 7, 40, usize::MAX] {
            for (season, horizon, validation) in
                [(usize::MAX, 3, usize::MAX), (5, 100, 0), (0, 3, 3), (20, 39, 1), (5, 0, 5), (39, 1, 0)]
            {
                let of = ReferenceOptions { validation, ..options(season, horizon) };
                let series = [ReferenceSeries { rows: rows.view(), end }];
                if let Ok(chosen) = Reference::choose(&series, of, squared) {
                    for origin in [0, 1, 39, 40, 41, usize::MAX] {
                        let _ = chosen.of_all.forecasts(rows.view(), &[origin], horizon);
                    }
                }
                assert!(Reference::choose(&series, ReferenceOptions { inputs: 1, ..of }, squared).is_err());
            }
        }
        assert!(Reference::naive(3).forecasts(rows.view(), &[0, 50], 2).unwrap().iter().all(|value| value.is_nan()));
        let series = [ReferenceSeries { rows: rows.view(), end: 40 }];
        let of = |of: ReferenceOptions| Reference::choose(&series, of, squared);
        assert!(of(ReferenceOptions { longer: Some(0), ..options(5, 3) }).is_err());
        assert!(of(ReferenceOptions { longer: Some(usize::MAX), ..options(5, 3) }).is_ok());
        assert!(of(ReferenceOptions { horizon: usize::MAX, ..options(5, 3) }).is_err());
        assert!(of(ReferenceOptions { lags: Some(usize::MAX), ..options(5, 3) }).is_ok());
        assert!(of(ReferenceOptions { lags: Some(0), ..options(5, 3) }).is_ok());
    }
}
