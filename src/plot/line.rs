//! Curves over a common axis.
#![expect(clippy::indexing_slicing, reason = "curves by their own number; colours modulo their number")]

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::plot::axis::{Axis, extent, widened};
use crate::plot::canvas::{Anchor, Canvas, Font, Frame, render};
use crate::plot::{Colour, DEFAULT_SIZE};
use crate::svg::{legible, shortened, text_width};

const TICK: Font = Font::new(11.5, Colour::SOFT);
const LABEL: Font = Font::new(12.5, Colour::INK);
const LEGEND: Font = Font::new(12.5, Colour::INK);
/// Rows of a legend; what does not fit is counted in its last entry.
const LEGEND_ROWS: usize = 4;
const ROW: f64 = 19.0;
/// Rows of words of marks, and their height.
const MARK_ROWS: usize = 3;
const MARK_ROW: f64 = 15.0;
/// Breadth of a band of one point.
const BAR: f64 = 14.0;
/// The least number above zero.
const LEAST: f64 = f64::from_bits(1);

/// A curve of a [`LinePlot`].
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
    colour: Option<Colour>,
    width: f64,
    is_dashed: bool,
    is_dots: bool,
}

impl Curve {
    /// A curve through `(x, y)` points, in this order. Where a number is NaN or infinite the curve is broken; a point between two
    /// breaks is drawn as a dot. The name stands in the legend; an empty one does not.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().collect();
        Curve { name: name.into(), points, colour: None, width: 2.0, is_dashed: false, is_dots: false }
    }

    /// A curve through values at 0, 1, 2, …
    pub fn of_values(name: impl Into<String>, values: &[f64]) -> Self {
        Curve::new(name, values.iter().enumerate().map(|(i, value)| (i as f64, *value)))
    }

    /// In this colour, not the next of [`Colour::PALETTE`].
    pub fn colour(self, colour: Colour) -> Self {
        Curve { colour: Some(colour), ..self }
    }

    /// So many pixels wide, not 2; from 0.25 to 50.
    pub fn width(self, width: f64) -> Self {
        Curve { width, ..self }
    }

    /// Dashed.
    pub fn dashed(self) -> Self {
        Curve { is_dashed: true, ..self }
    }

    /// A dot at each point, not joined.
    pub fn dots(self) -> Self {
        Curve { is_dots: true, ..self }
    }

    fn finite(&self) -> impl Iterator<Item = (f64, f64)> + Clone {
        self.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
    }
}

/// A shaded area between two curves of a [`LinePlot`].
#[derive(Clone, Debug, PartialEq)]
struct Band {
    /// `(x, lower, upper)`.
    points: Vec<(f64, f64, f64)>,
    colour: Colour,
}

/// A picture of curves over a common axis.
#[derive(Clone, Debug, PartialEq)]
pub struct LinePlot {
    title: String,
    subtitle: String,
    x_label: String,
    y_label: String,
    curves: Vec<Curve>,
    bands: Vec<Band>,
    marks: Vec<(f64, String)>,
    log_x: bool,
    log_y: bool,
    x_dates: bool,
    size: (u32, u32),
}

impl LinePlot {
    /// A picture without curves yet.
    pub fn new(title: impl Into<String>) -> Self {
        LinePlot {
            title: title.into(),
            subtitle: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            curves: Vec::new(),
            bands: Vec::new(),
            marks: Vec::new(),
            log_x: false,
            log_y: false,
            x_dates: false,
            size: DEFAULT_SIZE,
        }
    }

    /// Stands below the title, smaller.
    pub fn subtitle(self, subtitle: impl Into<String>) -> Self {
        LinePlot { subtitle: subtitle.into(), ..self }
    }

    /// What the horizontal axis counts, with its unit.
    pub fn x_label(self, label: impl Into<String>) -> Self {
        LinePlot { x_label: label.into(), ..self }
    }

    /// What the vertical axis counts, with its unit.
    pub fn y_label(self, label: impl Into<String>) -> Self {
        LinePlot { y_label: label.into(), ..self }
    }

    /// Adds a curve, drawn above those before.
    pub fn curve(mut self, curve: Curve) -> Self {
        self.curves.push(curve);
        self
    }

    /// Adds a shaded area below all curves, from `lower` to `upper` at each `(x, lower, upper)`; where areas lie on each other it is darker. A
    /// point with a number that is NaN or infinite is left out; a single one is a bar.
    pub fn band(mut self, points: impl IntoIterator<Item = (f64, f64, f64)>, colour: Colour) -> Self {
        let is_finite = |(x, lower, upper): &(f64, f64, f64)| x.is_finite() && lower.is_finite() && upper.is_finite();
        self.bands.push(Band { points: points.into_iter().filter(is_finite).collect(), colour });
        self
    }

    /// Adds a dashed vertical line at `x` with a word beside it.
    pub fn mark(mut self, x: f64, word: impl Into<String>) -> Self {
        self.marks.push((x, word.into()));
        self
    }

    /// Whether the horizontal axis counts in powers of ten.
    pub fn log_x(self, log_x: bool) -> Self {
        LinePlot { log_x, ..self }
    }

    /// Whether the numbers of the horizontal axis are years, as [`TimeAxis::position`](crate::data::TimeAxis::position) has them, and are written as
    /// dates. It has no say on an axis in powers of ten.
    pub fn x_dates(self, x_dates: bool) -> Self {
        LinePlot { x_dates, ..self }
    }

    /// Whether the vertical axis counts in powers of ten.
    pub fn log_y(self, log_y: bool) -> Self {
        LinePlot { log_y, ..self }
    }

    /// Width and height in pixels, not 800 and 450.
    pub fn size(self, width: u32, height: u32) -> Self {
        LinePlot { size: (width, height), ..self }
    }

    /// The picture as an SVG document.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without a curve or without a point; [`Error::NonFinite`] where no point is finite, or a mark is not;
    /// [`Error::InvalidOption`] for a number at or below zero on a logarithmic axis, one beyond ±1e300, a width of a curve or a size
    /// out of range.
    pub fn svg(&self) -> Result<String> {
        render(self.size, &self.title, |canvas, frame| self.draw(canvas, frame, 17.0))
    }

    /// Writes [`svg`](Self::svg) to a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be written; [`Error::ZeroSize`], [`Error::NonFinite`] and [`Error::InvalidOption`] for curves
    /// that cannot be drawn, listed at [`svg`](Self::svg).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        files::write_atomic(path, self.svg()?.as_bytes())
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    fn check(&self) -> Result<()> {
        if self.curves.is_empty() {
            return Err(Error::ZeroSize { name: "number of curves" });
        }
        if self.curves.iter().all(|c| c.points.is_empty()) {
            return Err(Error::ZeroSize { name: "number of points of the curves" });
        }
        if self.curves.iter().all(|c| c.finite().next().is_none()) {
            // One point exists, as was seen above, and in every one a number is not finite.
            let first = self.curves.iter().find_map(|c| c.points.first().map(|point| (c, *point)));
            let (name, (x, y)) = first.map_or(("", (f64::NAN, f64::NAN)), |(c, point)| (c.name.as_str(), point));
            return Err(Error::NonFinite {
                tensor: format!("curve {name:?}"),
                got: if x.is_finite() { y } else { x },
                position: "its first point, and no point of the picture is finite".to_owned(),
                help: "there is nothing to draw".to_owned(),
            });
        }
        for curve in &self.curves {
            if !(0.25..=50.0).contains(&curve.width) {
                return Err(Error::option(
                    format!("width of curve {:?}", curve.name),
                    "0.25 to 50 pixels",
                    curve.width,
                ));
            }
            if let Some((x, _)) = curve.finite().find(|(x, _)| self.log_x && *x <= 0.0) {
                let expected = format!("places above 0 on curve {:?}; use a linear axis, or NaN for a gap", curve.name);
                return Err(Error::option("log_x", expected, x));
            }
            if let Some((_, y)) = curve.finite().find(|(_, y)| self.log_y && *y <= 0.0) {
                let expected = format!("values above 0 on curve {:?}; use a linear axis, or NaN for a gap", curve.name);
                return Err(Error::option("log_y", expected, y));
            }
        }
        if let Some((x, word)) = self.marks.iter().find(|(x, _)| !x.is_finite()) {
            return Err(Error::NonFinite {
                tensor: format!("mark {word:?}"),
                got: *x,
                position: "its x".to_owned(),
                help: "leave the mark out".to_owned(),
            });
        }
        if let Some((x, word)) = self.marks.iter().find(|(x, _)| self.log_x && *x <= 0.0) {
            return Err(Error::option("log_x", format!("mark {word:?} above 0"), x));
        }
        Ok(())
    }

    /// The axes for an area of this size.
    fn axes(&self, width: f64, height: f64) -> Result<(Axis, Axis)> {
        let of_bands =
            || self.bands.iter().flat_map(|b| &b.points).flat_map(|(x, low, high)| [(*x, *low), (*x, *high)]);
        let points =
            || self.curves.iter().flat_map(Curve::finite).chain(of_bands().filter(|p| !self.log_y || p.1 > 0.0));
        let nothing = || Error::ZeroSize { name: "number of points of the curves" };
        let xs = points().map(|p| p.0).chain(self.marks.iter().map(|m| m.0));
        let is_whole = xs.clone().all(|x| x.fract() == 0.0);
        let x_extent = extent(xs, "x")?.ok_or_else(nothing)?;
        let x_count = (width / 75.0).clamp(2.0, 12.0) as usize;
        let x = if self.log_x {
            logarithmic(x_extent, x_count)
        } else {
            // A date alone stands in the middle of a year, not of a tenth of all history.
            let (low, high) = widened(x_extent, (is_whole || self.x_dates).then_some(0.5));
            // At an end a mark would be hidden by the axis, and half of a bar cut.
            let slack = (high - low) * 0.015;
            let is_bar = |end: f64| self.bands.iter().any(|b| matches!(b.points[..], [(x, _, _)] if x == end));
            let is_marked = |end: f64| self.marks.iter().any(|(x, _)| *x == end) || is_bar(end);
            let low = if is_marked(low) { low - slack } else { low };
            let high = if is_marked(high) { high + slack } else { high };
            let dates = self.x_dates.then(|| Axis::dates(low, high, x_count)).flatten();
            dates.unwrap_or_else(|| Axis::linear(low, high, x_count, is_whole))
        };

        let (low, high) = extent(points().map(|p| p.1), "y")?.ok_or_else(nothing)?;
        let count = (height / 42.0).clamp(2.0, 10.0) as usize;
        if self.log_y {
            return Ok((x, logarithmic((low, high), count)));
        }
        let (low, high, slack) = match widened((low, high), None) {
            same if same == (low, high) => (low, high, (high - low) * 0.06),
            (wider_low, wider_high) => (wider_low, wider_high, 0.0),
        };
        // Zero is where an axis begins if it is not far.
        let starts_at_zero = low >= 0.0 && low < 2.0 * slack;
        Ok((x, Axis::linear(if starts_at_zero { 0.0 } else { low - slack }, high + slack, count, false)))
    }

    pub(super) fn draw(&self, canvas: &Canvas<'_>, frame: Frame, title_size: f64) -> Result<()> {
        self.check()?;
        let edge = 20.0;
        let mut top = frame.top + heading(canvas, frame, (&self.title, title_size), &self.subtitle)?;
        top +=
            self.draw_legend(canvas, Frame { left: frame.left + edge, top, width: frame.width - 2.0 * edge, ..frame })?;

        // The labels of the vertical axis say how wide its margin is; how many there are depends on the height only.
        let below = 30.0 + if self.x_label.is_empty() { 0.0 } else { 20.0 };
        let area_height = |above: f64| (frame.bottom() - below - top - above).max(20.0);
        let (_, y) = self.axes(frame.width, area_height(6.0))?;
        let widest = y.ticks.iter().map(|t| text_width(&t.1, TICK.size)).fold(0.0, f64::max);
        let left = frame.left + edge * 0.5 + widest + 14.0 + if self.y_label.is_empty() { 0.0 } else { 20.0 };
        let width = (frame.right() - edge - left).max(20.0);
        let (x, _) = self.axes(width, area_height(6.0))?;
        let words = self.mark_words(left, width, &x);
        let rows = words.iter().map(|w| w.row + 1).max().unwrap_or(0);
        let above = 6.0 + rows as f64 * MARK_ROW;
        let inner = Frame { left, top: top + above, width, height: area_height(above) };
        let (x, y) = self.axes(inner.width, inner.height)?;

        self.draw_axes(canvas, frame, inner, &x, &y)?;
        for band in &self.bands {
            let place = |x_at: f64, y_at: f64| {
                (
                    inner.left + x.share(x_at) * inner.width,
                    inner.bottom() - y.share(y_at).clamp(0.0, 1.0) * inner.height,
                )
            };
            let upper = band.points.iter().map(|(x, _, high)| place(*x, *high));
            let lower = band.points.iter().rev().map(|(x, low, _)| place(*x, *low));
            let around: Vec<_> = upper.chain(lower).collect();
            match around[..] {
                // A point has no breadth: it becomes a bar.
                [(across, upper), (_, lower)] => {
                    let bar = Frame { left: across - BAR * 0.5, top: upper, width: BAR, height: lower - upper };
                    canvas.fill(bar, band.colour, 0.2)?;
                }
                _ if around.len() > 2 => canvas.area(&around, band.colour, 0.2)?,
                _ => {}
            }
        }
        for (i, curve) in self.curves.iter().enumerate() {
            draw_curve(canvas, inner, (&x, &y), curve, self.look(i))?;
        }
        self.draw_marks(canvas, inner, &words)
    }

    /// Colour of a curve, and whether it is dashed.
    fn look(&self, index: usize) -> (Colour, bool) {
        let curve = &self.curves[index];
        let chosen = curve.colour.unwrap_or(Colour::PALETTE[index % Colour::PALETTE.len()]);
        (chosen, curve.is_dashed || curve.colour.is_none() && index / Colour::PALETTE.len() % 2 == 1)
    }

    /// Above the curves, so that it never covers one; returns its height.
    fn draw_legend(&self, canvas: &Canvas<'_>, frame: Frame) -> Result<f64> {
        let (sample, gap) = (24.0, 18.0);
        let named = || self.curves.iter().enumerate().filter(|(_, c)| !c.name.is_empty());
        let (mut left, mut row) = (frame.left, 0);
        for (done, (i, curve)) in named().enumerate() {
            let missing = if curve.finite().next().is_none() { " (no finite value)" } else { "" };
            let name = shortened(&format!("{}{missing}", curve.name), LEGEND.size, (frame.width - sample).min(260.0));
            let width = sample + 6.0 + text_width(&name, LEGEND.size);
            let is_last_row = row + 1 == LEGEND_ROWS;
            // In the last row there must be room to say how many more there are.
            let reserved = if is_last_row && done + 1 < named().count() { 90.0 } else { 0.0 };
            if left > frame.left && left + width + reserved > frame.right() {
                if is_last_row {
                    let rest = format!("and {} more", named().count() - done);
                    let middle = frame.top + (row as f64 + 0.5) * ROW;
                    canvas.text(&rest, (left, middle), Font { colour: Colour::SOFT, ..LEGEND }, Anchor::Start)?;
                    break;
                }
                (left, row) = (frame.left, row + 1);
            }
            let middle = frame.top + (row as f64 + 0.5) * ROW;
            let line = [(left, middle), (left + sample, middle)];
            match self.look(i) {
                (colour, _) if curve.is_dots => canvas.dot((left + sample * 0.5, middle), dot_radius(curve), colour)?,
                (colour, true) => canvas.dashes(&line, colour, curve.width.max(2.0))?,
                (colour, false) => canvas.line(&line, colour, curve.width.max(2.0))?,
            }
            canvas.text(&name, (left + sample + 6.0, middle), LEGEND, Anchor::Start)?;
            left += width + gap;
        }
        Ok(if named().next().is_some() { (row + 1) as f64 * ROW } else { 0.0 })
    }

    fn draw_axes(&self, canvas: &Canvas<'_>, frame: Frame, inner: Frame, x: &Axis, y: &Axis) -> Result<()> {
        for (place, label) in &y.ticks {
            let height = inner.bottom() - y.share(*place) * inner.height;
            canvas.line(&[(inner.left, height), (inner.right(), height)], Colour::GRID, 1.0)?;
            canvas.line(&[(inner.left - 5.0, height), (inner.left, height)], Colour::SOFT, 1.0)?;
            canvas.text(label, (inner.left - 8.0, height), TICK, Anchor::End)?;
        }
        for place in &y.minor {
            let height = inner.bottom() - y.share(*place) * inner.height;
            canvas.line(&[(inner.left - 3.0, height), (inner.left, height)], Colour::SOFT, 0.75)?;
        }
        for (place, _) in &x.ticks {
            let across = inner.left + x.share(*place) * inner.width;
            canvas.line(&[(across, inner.bottom()), (across, inner.bottom() + 5.0)], Colour::SOFT, 1.0)?;
        }
        let centred = |(place, label): &(f64, String)| (inner.left + x.share(*place) * inner.width, label.clone());
        for (middle, label) in tick_labels(x.ticks.iter().map(centred), (frame.left + 2.0, frame.right() - 2.0)) {
            canvas.text(&label, (middle, inner.bottom() + 16.0), TICK, Anchor::Middle)?;
        }
        for place in &x.minor {
            let across = inner.left + x.share(*place) * inner.width;
            canvas.line(&[(across, inner.bottom()), (across, inner.bottom() + 3.0)], Colour::SOFT, 0.75)?;
        }
        let corner = (inner.left, inner.bottom());
        canvas.line(&[(inner.left, inner.top), corner, (inner.right(), inner.bottom())], Colour::SOFT, 1.0)?;
        let x_label = shortened(&self.x_label, LABEL.size, inner.width);
        canvas.text(&x_label, (inner.left + inner.width * 0.5, frame.bottom() - 14.0), LABEL, Anchor::Middle)?;
        let y_label = shortened(&self.y_label, LABEL.size, inner.height + 40.0);
        let middle = inner.top + inner.height * 0.5;
        canvas.text(&y_label, (frame.left + 16.0, middle), LABEL.upright(), Anchor::Middle)
    }

    /// Where the words of the marks stand: above the curves, so that they cover none, and in several rows where they would overlap.
    fn mark_words(&self, left: f64, width: f64, x: &Axis) -> Vec<MarkWord> {
        let mut ends: Vec<f64> = Vec::new();
        let mut words: Vec<_> =
            self.marks.iter().map(|(at, text)| (left + x.share(*at) * width, text.as_str())).collect();
        words.sort_by(|a, b| a.0.total_cmp(&b.0));
        let place = |(across, text): (f64, &str)| {
            let text = shortened(text, TICK.size, width * 0.45);
            let length = text_width(&text, TICK.size);
            let begin = (across - length * 0.5).clamp(left, (left + width - length).max(left));
            // What does not fit into the rows stands in the last one, over another.
            let free = ends.iter().position(|end| *end + 10.0 <= begin);
            let row = free.unwrap_or(ends.len()).min(MARK_ROWS - 1);
            ends.resize(ends.len().max(row + 1), 0.0);
            ends.iter_mut().skip(row).take(1).for_each(|end| *end = begin + length);
            MarkWord { text, across, middle: begin + length * 0.5, row }
        };
        words.into_iter().map(place).collect()
    }

    fn draw_marks(&self, canvas: &Canvas<'_>, inner: Frame, words: &[MarkWord]) -> Result<()> {
        for word in words {
            let top = inner.top - word.row as f64 * MARK_ROW;
            canvas.dashes(&[(word.across, top), (word.across, inner.bottom())], Colour::SOFT, 1.25)?;
            canvas.text(&word.text, (word.middle, top - MARK_ROW * 0.5), TICK, Anchor::Middle)?;
        }
        Ok(())
    }
}

/// An axis in powers of ten around a range above zero.
fn logarithmic((low, high): (f64, f64), count: usize) -> Axis {
    // In shares of the length as it is seen; a range that is none becomes a factor of 1.2 to either side.
    let slack = ((high.log10() - low.log10()) * 0.05).max(0.02);
    let slack = if high > low * (1.0 + 1e-9) { slack } else { 0.08 };
    Axis::logarithmic(10f64.powf(low.log10() - slack).max(LEAST), 10f64.powf(high.log10() + slack).min(f64::MAX), count)
}

/// The word of a mark, and where it stands.
struct MarkWord {
    text: String,
    /// Where the mark is.
    across: f64,
    /// Middle of the word.
    middle: f64,
    /// Counted from the curves upwards.
    row: usize,
}

/// Labels of a horizontal axis and the middles of their places, moved inwards where they would reach beyond the ends, and without those that
/// would then lie on another.
fn tick_labels(labels: impl Iterator<Item = (f64, String)>, (low, high): (f64, f64)) -> Vec<(f64, String)> {
    let mut kept: Vec<(f64, String)> = Vec::new();
    let mut end = f64::NEG_INFINITY;
    for (middle, label) in labels {
        let half = text_width(&label, TICK.size) * 0.5;
        let middle = middle.min(high - half).max(low + half);
        if middle - half >= end + 2.0 {
            end = middle + half;
            kept.push((middle, label));
        }
    }
    kept
}

/// A text in two lines where it is wider than `width` and can be broken between words.
fn broken(text: &str, size: f64, width: f64) -> Vec<String> {
    let (mut used, mut last_space) = (0.0, None);
    for (place, c) in text.char_indices() {
        if c == ' ' {
            last_space = Some(place);
        }
        used += text_width(c.encode_utf8(&mut [0; 4]), size);
        if used > width {
            let parts = last_space.and_then(|place| text.split_at_checked(place));
            return parts.map_or(vec![text.to_owned()], |(first, second)| {
                vec![first.to_owned(), second.trim_start().to_owned()]
            });
        }
    }
    vec![text.to_owned()]
}

/// Title and subtitle; returns the height that they take.
pub(super) fn heading(canvas: &Canvas<'_>, frame: Frame, title: (&str, f64), subtitle: &str) -> Result<f64> {
    let (edge, mut height) = (20.0, 10.0);
    let lines =
        [(title.0, Font::new(title.1, Colour::INK).bold(), 1.12), (subtitle, Font::new(12.5, Colour::SOFT), 1.0)];
    for (text, font, wider) in lines.into_iter().filter(|l| !l.0.is_empty()) {
        let line = font.size * 1.6;
        let room = frame.width - 2.0 * edge;
        for text in broken(&legible(text), font.size * wider, room) {
            let text = shortened(&text, font.size * wider, room);
            canvas.text(&text, (frame.left + edge, frame.top + height + line * 0.5), font, Anchor::Start)?;
            height += line;
        }
    }
    Ok(height + 2.0)
}

fn dot_radius(curve: &Curve) -> f64 {
    (curve.width * 1.25).max(1.5)
}

fn draw_curve(
    canvas: &Canvas<'_>,
    inner: Frame,
    (x, y): (&Axis, &Axis),
    curve: &Curve,
    (colour, is_dashed): (Colour, bool),
) -> Result<()> {
    let is_finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
    let place = |point: &(f64, f64)| {
        (inner.left + x.share(point.0) * inner.width, inner.bottom() - y.share(point.1) * inner.height)
    };
    for run in curve.points.split(|point| !is_finite(point)).filter(|run| !run.is_empty()) {
        let points = thinned(run.iter().map(place).collect());
        if curve.is_dots {
            for point in points {
                canvas.dot(point, dot_radius(curve), colour)?;
            }
        } else if let [point] = points.as_slice() {
            canvas.dot(*point, curve.width * 1.5, colour)?;
        } else if is_dashed {
            canvas.dashes(&points, colour, curve.width)?;
        } else {
            canvas.line(&points, colour, curve.width)?;
        }
    }
    Ok(())
}

/// At most four points for each quarter of a pixel in width, first, lowest, highest and last, which look the same: a long series
/// does not make a long file. Only where the points go from left to right.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let column = |point: &(f64, f64)| (point.0 * 4.0).floor();
    if points.len() < 2000 || points.array_windows().any(|[a, b]| b.0 < a.0) {
        return points;
    }
    let mut kept = Vec::new();
    for group in points.chunk_by(|a, b| column(a) == column(b)) {
        let places = || group.iter().enumerate();
        let low = places().min_by(|(_, a), (_, b)| a.1.total_cmp(&b.1));
        let high = places().max_by(|(_, a), (_, b)| a.1.total_cmp(&b.1));
        let mut chosen: Vec<_> = [places().next(), low, high, places().next_back()].into_iter().flatten().collect();
        chosen.sort_by_key(|(place, _)| *place);
        chosen.dedup_by_key(|(place, _)| *place);
        kept.extend(chosen.into_iter().map(|(_, point)| *point));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{broken, thinned, tick_labels};

    #[test]
    fn labels_stay_inside_and_apart() {
        let labels = |places: &[f64]| {
            let of = places.iter().map(|place| (*place, "2020-07-01".to_owned()));
            tick_labels(of, (0.0, 1000.0)).into_iter().map(|label| label.0).collect::<Vec<_>>()
        };
        let moved = labels(&[100.0, 200.0, 995.0]);
        assert_eq!(moved[..2], [100.0, 200.0]);
        assert!((960.0..970.0).contains(&moved[2]), "{moved:?}");
        assert_eq!(labels(&[900.0, 995.0]), [900.0]);
        assert!(labels(&[2.0])[0] > 30.0);
    }

    #[test]
    fn a_long_caption_has_two_lines() {
        assert_eq!(broken("one two", 10.0, 1000.0), ["one two"]);
        assert_eq!(broken("grün two three", 10.0, 60.0), ["grün two", "three"]);
        assert_eq!(broken("onetwothree", 10.0, 30.0), ["onetwothree"]);
    }

    #[test]
    fn a_long_curve_is_thinned_without_losing_its_peaks() {
        let peak = 123_457;
        let points: Vec<_> = (0..500_000).map(|i| (f64::from(i) / 1000.0, if i == peak { 9.0 } else { 0.0 })).collect();
        let kept = thinned(points.clone());
        assert!(kept.len() <= 4 * 4 * 501, "{}", kept.len());
        assert!(kept.contains(&points[peak as usize]));
        assert_eq!((kept.first(), kept.last()), (points.first(), points.last()));
        let back: Vec<_> = points.into_iter().rev().collect();
        assert_eq!(thinned(back.clone()), back);
    }
}
