//! Linear forecasts of every step ahead from the last values: [`Ridge`].
#![expect(
    clippy::indexing_slicing,
    reason = "of sums with a row for each feature and a matrix for each group, made here"
)]

use ndarray::{Array1, Array2, ArrayView2, s};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::forecast::baseline::before;
use crate::memory;

/// What a linear forecast is a change of. A stronger penalty draws the forecast towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// The mean of the part that is learned from.
    Mean,
    /// The last value.
    Last,
    /// The value a season before.
    Season,
    /// That value, changed as the last one was over a season.
    SeasonalChange,
    /// The mean course of the last seasons about their means, around the mean of the last one.
    SeasonalMean,
}

impl Anchor {
    /// All of them.
    pub const ALL: [Anchor; 5] =
        [Anchor::Mean, Anchor::Last, Anchor::Season, Anchor::SeasonalChange, Anchor::SeasonalMean];

    /// Whether it is of a season.
    pub fn is_seasonal(self) -> bool {
        !matches!(self, Anchor::Mean | Anchor::Last)
    }

    /// Its name in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Anchor::Mean => "the mean",
            Anchor::Last => "the last value",
            Anchor::Season => "the last season",
            Anchor::SeasonalChange => "the last season and the change over it",
            Anchor::SeasonalMean => "the mean season",
        }
    }
}

/// Numbers that a regression reads, at most. Seconds for the many that are tried on a series.
const MOST_FEATURES: usize = 600;

/// Bytes into which a product of matrices copies parts of both, at most; it cannot say that there are none.
const PACKED: usize = 4 << 20;

/// Seasons whose mean course [`Anchor::SeasonalMean`] takes.
const SEASONS: usize = 5;

/// Ridge regression of each step ahead on the last values of all columns, and on the values of known columns at that step: a linear
/// forecast of all steps at once, none of which is made from another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ridge {
    /// What it is a change of.
    pub anchor: Anchor,
    /// Values of a season; 1 for none.
    pub season: usize,
    /// Values of the column itself that it reads, the newest last.
    pub lags: usize,
    /// Columns beside it.
    pub inputs: usize,
    /// Values of each of those.
    pub input_lags: usize,
    /// Columns whose future is known, after those.
    pub known: usize,
    /// For each step ahead, the constant and a coefficient of each feature.
    pub coefficients: Vec<Vec<f64>>,
}

/// What a regression is of: everything of [`Ridge`] but its coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RidgeShape {
    /// What it is a change of.
    pub anchor: Anchor,
    /// Values of a season; 1 for none.
    pub season: usize,
    /// Values of the column itself that it reads.
    pub lags: usize,
    /// Columns beside it.
    pub inputs: usize,
    /// Values of each of those.
    pub input_lags: usize,
    /// Columns whose future is known.
    pub known: usize,
}

impl RidgeShape {
    /// Values before the first that it can forecast.
    pub fn context(&self) -> usize {
        let of_season = match self.anchor {
            Anchor::Mean | Anchor::Last => 1,
            Anchor::SeasonalChange => self.season.saturating_add(1),
            Anchor::Season | Anchor::SeasonalMean => self.season,
        };
        self.lags.max(self.input_lags).max(of_season).max(1)
    }

    /// Columns of what it reads.
    fn columns(&self) -> usize {
        self.inputs.saturating_add(self.known).saturating_add(1)
    }

    fn shared(&self) -> usize {
        self.lags.saturating_add(self.inputs.saturating_mul(self.input_lags))
    }

    /// The features of an origin that all steps ahead share.
    fn features(&self, rows: ArrayView2<'_, f64>, origin: usize, to: &mut [f64]) {
        let centre = if self.anchor == Anchor::Mean { 0.0 } else { rows[[origin - 1, 0]] };
        for lag in 0..self.lags {
            to[lag] = rows[[origin - 1 - lag, 0]] - centre;
        }
        for input in 0..self.inputs {
            for lag in 0..self.input_lags {
                to[self.lags + input * self.input_lags + lag] = rows[[origin - 1 - lag, 1 + input]];
            }
        }
        if self.anchor != Anchor::Mean && self.lags > 0 {
            // The newest value less itself says nothing; in its place the level, weakly, would undo the anchor.
            to[0] = 0.0;
        }
    }

    /// The anchor at a step ahead of an origin.
    fn anchor_at(&self, rows: ArrayView2<'_, f64>, origin: usize, ahead: usize) -> f64 {
        let last = rows[[origin - 1, 0]];
        let season = || rows[[origin - before(ahead, self.season, origin), 0]];
        match self.anchor {
            Anchor::Mean => 0.0,
            Anchor::Last => last,
            Anchor::Season => season(),
            Anchor::SeasonalChange => season() + last - rows[[origin - 1 - self.season, 0]],
            Anchor::SeasonalMean => {
                let back = before(ahead, self.season, origin);
                let seasons = (origin / self.season).min(SEASONS);
                let mean = |number: usize| {
                    let end = origin - number * self.season;
                    rows.slice(s![end - self.season..end, 0]).sum() / self.season as f64
                };
                let about = (0..seasons).map(|number| rows[[origin - back - number * self.season, 0]] - mean(number));
                mean(0) + about.sum::<f64>() / seasons as f64
            }
        }
    }
}

/// Normal equations of a regression: what is learned from is summed up once for all penalties.
pub struct RidgeSums {
    shape: RidgeShape,
    horizon: usize,
    count: f64,
    /// Of the features and the known values of each step, with a one before them: `[1 + features, 1 + features]` for each group of steps
    /// that share it.
    products: Vec<Array2<f64>>,
    /// With the targets, `[1 + features, horizon]`.
    targets: Array2<f64>,
}

impl RidgeSums {
    /// Of all origins of the `series` (`[rows, columns]`: the column itself, inputs, known ones) whose values to be forecast lie before
    /// `end(i)` of series `i`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where a series has fewer columns, or none is long enough for a forecast; [`Error::ZeroSize`] for a season of zero;
    /// [`Error::Unsupported`] for more than 600 numbers of which each is made, and where memory is short.
    pub fn of(
        shape: RidgeShape,
        series: &[ArrayView2<'_, f64>],
        end: impl Fn(usize) -> usize,
        horizon: usize,
    ) -> Result<Self> {
        if shape.season == 0 {
            return Err(Error::ZeroSize { name: "season" });
        }
        let columns = shape.columns();
        if let Some(rows) = series.iter().find(|rows| rows.ncols() < columns) {
            return Err(Error::shape("series", format!("[rows, {columns}]"), format!("{:?}", rows.shape())));
        }
        let needed = shape.context().saturating_add(horizon);
        let is_long = |(i, rows): (usize, &ArrayView2<'_, f64>)| end(i).min(rows.nrows()) >= needed;
        if horizon == 0 || !series.iter().enumerate().any(is_long) {
            return Err(Error::shape(
                "series",
                format!("at least {needed} values to learn linear forecasts from"),
                "fewer",
            ));
        }
        let width = shape.shared().saturating_add(shape.known).saturating_add(1);
        if width > MOST_FEATURES {
            return Err(Error::unsupported(
                format!("a linear forecast of {width} numbers"),
                format!("at most {MOST_FEATURES}, since its time grows with their cube; take fewer columns or lags"),
            ));
        }
        let groups = if shape.known == 0 { 1 } else { horizon };
        // All of them together, before the first is made.
        let bytes = width.saturating_mul(width).saturating_mul(groups).saturating_mul(size_of::<f64>());
        memory::check("normal equations of linear forecasts", bytes.saturating_add(PACKED))?;
        let mut sums = RidgeSums {
            shape,
            horizon,
            count: 0.0,
            products: (0..groups)
                .map(|_| memory::array_of("sums of products", (width, width), 0.0))
                .collect::<Result<_>>()?,
            targets: memory::array_of("sums of products", (width, horizon), 0.0)?,
        };
        for (i, rows) in series.iter().enumerate() {
            let end = end(i).min(rows.nrows());
            let first = shape.context();
            let Some(count) = (end + 1).checked_sub(first + horizon).filter(|count| *count > 0) else { continue };
            sums.count += count as f64;
            // In pieces, so that the matrix of all features never stands in memory.
            const PIECE: usize = 512;
            for start in (0..count).step_by(PIECE) {
                let piece = start..(start + PIECE).min(count);
                let mut x = memory::array_of("features", (piece.len(), width), 0.0)?;
                let mut y = memory::array_of("values ahead", (piece.len(), horizon), 0.0)?;
                for (row, n) in piece.enumerate() {
                    let origin = first + n;
                    let mut features = vec![0.0; shape.shared()];
                    shape.features(*rows, origin, &mut features);
                    x[[row, 0]] = 1.0;
                    x.slice_mut(s![row, 1..1 + features.len()]).assign(&Array1::from(features));
                    for ahead in 0..horizon {
                        y[[row, ahead]] = rows[[origin + ahead, 0]] - shape.anchor_at(*rows, origin, ahead);
                    }
                }
                for group in 0..groups {
                    for known in 0..shape.known {
                        let column = 1 + shape.inputs + known;
                        for (row, n) in (start..(start + PIECE).min(count)).enumerate() {
                            x[[row, width - shape.known + known]] = rows[[first + n + group, column]];
                        }
                    }
                    sums.products[group] += &x.t().dot(&x);
                    let mut to = if shape.known == 0 {
                        sums.targets.slice_mut(s![.., ..])
                    } else {
                        sums.targets.slice_mut(s![.., group..=group])
                    };
                    let of = if shape.known == 0 { y.slice(s![.., ..]) } else { y.slice(s![.., group..=group]) };
                    to += &x.t().dot(&of);
                }
            }
        }
        Ok(sums)
    }

    /// The regression with a penalty, in units of the mean square of the features.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] where the values are too large or too alike to solve for it.
    pub fn solve(&self, penalty: f64) -> Result<Ridge> {
        let width = self.targets.nrows();
        let bytes = width.saturating_mul(self.horizon).saturating_mul(size_of::<f64>());
        memory::check("coefficients of linear forecasts", bytes)?;
        let mut coefficients = vec![vec![0.0; width]; self.horizon];
        for (group, products) in self.products.iter().enumerate() {
            let of_mean = |a: usize, b: usize| products[[0, a]] * products[[0, b]] / self.count;
            let mut matrix = memory::array_of("products", (width - 1, width - 1), 0.0)?;
            for ((a, b), to) in matrix.indexed_iter_mut() {
                *to = (products[[a + 1, b + 1]] - of_mean(a + 1, b + 1)) / self.count;
            }
            let mean = matrix.diag().sum() / (width - 1).max(1) as f64;
            let ridge = (penalty * mean).max(1e-12 * mean).max(f64::MIN_POSITIVE * 1e8);
            matrix.diag_mut().iter_mut().for_each(|d| *d += ridge);
            let factor = cholesky(matrix)?;
            let steps = if self.shape.known == 0 { 0..self.horizon } else { group..group + 1 };
            for ahead in steps {
                let mean = self.targets[[0, ahead]] / self.count;
                let mut right: Vec<f64> = (1..width)
                    .map(|a| self.targets[[a, ahead]] / self.count - products[[0, a]] / self.count * mean)
                    .collect();
                solve_cholesky(&factor, &mut right);
                let constant =
                    mean - right.iter().enumerate().map(|(a, c)| c * products[[0, a + 1]] / self.count).sum::<f64>();
                coefficients[ahead][0] = constant;
                coefficients[ahead][1..].copy_from_slice(&right);
            }
        }
        if let Some(got) = coefficients.iter().flatten().find(|c| !c.is_finite()) {
            return Err(not_solved(*got));
        }
        let RidgeShape { anchor, season, lags, inputs, input_lags, known } = self.shape;
        Ok(Ridge { anchor, season, lags, inputs, input_lags, known, coefficients })
    }
}

fn not_solved(got: f64) -> Error {
    Error::NonFinite {
        tensor: "coefficients of linear forecasts".to_owned(),
        got,
        position: "the solution".to_owned(),
        help: "rescale the data".to_owned(),
    }
}

impl Ridge {
    /// What it is a regression of.
    pub fn shape(&self) -> RidgeShape {
        RidgeShape {
            anchor: self.anchor,
            season: self.season,
            lags: self.lags,
            inputs: self.inputs,
            input_lags: self.input_lags,
            known: self.known,
        }
    }

    /// The values from each of the `origins` on, from those before it, and from the known columns at the steps themselves:
    /// `[origins, horizon]`. NaN where an origin is before [`RidgeShape::context`] or rows are not there, or columns, and where the
    /// coefficients are not those of its sizes.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where memory is short.
    pub fn forecasts(&self, rows: ArrayView2<'_, f64>, origins: &[usize]) -> Result<Array2<f64>> {
        let mut forecasts = memory::array_of("forecasts", (origins.len(), self.coefficients.len()), f64::NAN)?;
        for (origin, mut forecasts) in origins.iter().zip(forecasts.outer_iter_mut()) {
            self.forecast(rows, *origin, |ahead, value| {
                if let Some(forecast) = forecasts.get_mut(ahead) {
                    *forecast = value;
                }
            });
        }
        Ok(forecasts)
    }

    /// The values from an origin on, none where they cannot be.
    pub(super) fn forecast(&self, rows: ArrayView2<'_, f64>, origin: usize, mut to: impl FnMut(usize, f64)) {
        let (shape, horizon) = (self.shape(), self.coefficients.len());
        let reaches = origin.saturating_add(if self.known > 0 { horizon } else { 0 });
        let (shared, context) = (shape.shared(), shape.context());
        let width = shared.saturating_add(self.known).saturating_add(1);
        if origin < context
            || origin > rows.nrows()
            || reaches > rows.nrows()
            || rows.ncols() < shape.columns()
            || self.season == 0
            || self.coefficients.is_empty()
            || self.coefficients.iter().any(|of| of.len() != width)
        {
            return;
        }
        let mut features = vec![0.0; shared];
        shape.features(rows, origin, &mut features);
        for (ahead, of) in self.coefficients.iter().enumerate() {
            let Some((constant, of)) = of.split_first() else { continue };
            let (of_features, of_known) = of.split_at(shared);
            let mut value = shape.anchor_at(rows, origin, ahead) + constant;
            value += features.iter().zip(of_features).map(|(f, c)| f * c).sum::<f64>();
            for (known, coefficient) in of_known.iter().enumerate() {
                value += rows[[origin + ahead, 1 + self.inputs + known]] * coefficient;
            }
            to(ahead, value);
        }
    }

    pub(crate) fn validate(&self, horizon: usize) -> Result<()> {
        if self.season == 0 {
            return Err(Error::ZeroSize { name: "season" });
        }
        let width = self.shape().shared().saturating_add(self.known).saturating_add(1);
        if self.coefficients.len() != horizon || self.coefficients.iter().any(|of| of.len() != width) {
            let got: Vec<usize> = self.coefficients.iter().map(Vec::len).collect();
            return Err(Error::shape(
                "coefficients of linear forecasts",
                format!("[{horizon}, {width}]"),
                format!("{got:?}"),
            ));
        }
        match self.coefficients.iter().flatten().find(|c| !c.is_finite()) {
            Some(got) => Err(not_solved(*got)),
            None => Ok(()),
        }
    }
}

/// The lower triangle whose product with its transpose is the matrix.
fn cholesky(mut a: Array2<f64>) -> Result<Array2<f64>> {
    let n = a.nrows();
    for j in 0..n {
        for k in 0..j {
            let factor = a[[j, k]];
            if factor != 0.0 {
                for i in j..n {
                    a[[i, j]] -= factor * a[[i, k]];
                }
            }
        }
        let pivot = a[[j, j]];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return Err(not_solved(pivot));
        }
        let root = pivot.sqrt();
        for i in j..n {
            a[[i, j]] /= root;
        }
    }
    Ok(a)
}

fn solve_cholesky(factor: &Array2<f64>, x: &mut [f64]) {
    let n = x.len();
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| factor[[i, k]] * x[k]).sum();
        x[i] = (x[i] - sum) / factor[[i, i]];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| factor[[k, i]] * x[k]).sum();
        x[i] = (x[i] - sum) / factor[[i, i]];
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    fn shape(anchor: Anchor) -> RidgeShape {
        RidgeShape { anchor, season: 4, lags: 5, inputs: 0, input_lags: 0, known: 0 }
    }

    #[test]
    fn a_linear_series_is_learned_exactly() {
        // x[t] = 1.2 x[t-1] - 0.7 x[t-2] + 0.3.
        let next = |s: &mut (f64, f64), _| {
            let next = 1.2 * s.1 - 0.7 * s.0 + 0.3;
            *s = (s.1, next);
            Some(next)
        };
        let exact: Vec<f64> = (0..60).scan((1.0, 2.0), next).collect();
        let rows = Array2::from_shape_vec((60, 1), exact.clone()).unwrap();
        // The mean season is of more values than the lags hold.
        for anchor in Anchor::ALL.into_iter().filter(|anchor| *anchor != Anchor::SeasonalMean) {
            let ridge = RidgeSums::of(shape(anchor), &[rows.view()], |_| 40, 3).unwrap().solve(0.0).unwrap();
            let ahead = ridge.forecasts(rows.view(), &[40, 50]).unwrap();
            for (row, origin) in [40, 50].into_iter().enumerate() {
                for step in 0..3 {
                    let error = (ahead[[row, step]] - exact[origin + step]).abs();
                    assert!(error < 1e-3, "{anchor:?} {error}");
                }
            }
        }
    }

    #[test]
    fn a_strong_penalty_leaves_the_anchor_and_the_mean_change() {
        let values: Vec<f64> = (0..40).map(|t| t as f64 + [0.0, 3.0, 1.0, -2.0][t % 4]).collect();
        let rows = Array2::from_shape_vec((40, 1), values).unwrap();
        let ridge = RidgeSums::of(shape(Anchor::Season), &[rows.view()], |_| 40, 4).unwrap().solve(1e9).unwrap();
        let ahead = ridge.forecasts(rows.view(), &[40]).unwrap();
        for step in 0..4 {
            assert!((ahead[[0, step]] - (40 + step) as f64 - [0.0, 3.0, 1.0, -2.0][step]).abs() < 1e-6, "{ahead}");
        }
        let ridge = RidgeSums::of(shape(Anchor::SeasonalMean), &[rows.view()], |_| 40, 4).unwrap().solve(1e9).unwrap();
        assert!((ridge.forecasts(rows.view(), &[40]).unwrap()[[0, 1]] - 44.0).abs() < 1e-6);
    }

    #[test]
    fn known_columns_are_read_at_the_step_itself() {
        let known = |t: usize| f64::from(u8::from(t * 7 % 11 < 4));
        let rows = Array2::from_shape_fn((80, 2), |(t, column)| if column == 0 { 2.0 * known(t) } else { known(t) });
        let shape = RidgeShape { known: 1, ..shape(Anchor::Mean) };
        let ridge = RidgeSums::of(shape, &[rows.view()], |_| 60, 3).unwrap().solve(1e-9).unwrap();
        ridge.validate(3).unwrap();
        let ahead = ridge.forecasts(rows.view(), &[60, 70]).unwrap();
        for (row, origin) in [60, 70].into_iter().enumerate() {
            for step in 0..3 {
                assert!((ahead[[row, step]] - rows[[origin + step, 0]]).abs() < 1e-3, "{ahead}");
            }
        }
    }

    #[test]
    fn what_cannot_be_solved() {
        let rows = Array2::from_elem((40, 1), 3.0);
        let ridge = RidgeSums::of(shape(Anchor::Last), &[rows.view()], |_| 40, 2).unwrap().solve(0.1).unwrap();
        assert_eq!(ridge.forecasts(rows.view(), &[40]).unwrap(), ndarray::array![[3.0, 3.0]]);
        assert!(RidgeSums::of(shape(Anchor::Last), &[rows.view()], |_| 6, 2).is_err());
        let huge = Array2::from_shape_fn((40, 1), |(t, _)| if t % 2 == 0 { 1e200 } else { -1e200 });
        assert!(
            RidgeSums::of(shape(Anchor::Mean), &[huge.view()], |_| 40, 2).and_then(|sums| sums.solve(0.1)).is_err()
        );
        let bad = Ridge { coefficients: vec![vec![0.0; 3]], ..ridge.clone() };
        assert!(bad.validate(2).is_err());
        for bad in [
            bad,
            Ridge { season: 0, anchor: Anchor::SeasonalMean, ..ridge.clone() },
            Ridge { lags: usize::MAX, ..ridge.clone() },
            Ridge { lags: usize::MAX, coefficients: Vec::new(), ..ridge.clone() },
            Ridge { inputs: usize::MAX, input_lags: usize::MAX, known: usize::MAX, ..ridge },
        ] {
            let ahead = bad.forecasts(rows.view(), &[0, 40, 41, usize::MAX]).unwrap();
            assert!(ahead.iter().all(|value| value.is_nan()), "{bad:?}");
        }
        let season = RidgeShape { season: 0, ..shape(Anchor::SeasonalMean) };
        assert!(matches!(RidgeSums::of(season, &[rows.view()], |_| 40, 2), Err(Error::ZeroSize { .. })));
        let lags = RidgeShape { lags: usize::MAX, ..shape(Anchor::Last) };
        assert!(RidgeSums::of(lags, &[rows.view()], |_| 40, 2).is_err());
    }
}
