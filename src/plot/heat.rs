//! Matrices as colours.
#![expect(clippy::indexing_slicing, reason = "rows and columns of the matrix that is drawn, and of texts of its shape")]

use std::path::Path;

use ndarray::{Array2, ArrayView2};

use crate::error::{Error, Result};
use crate::files;
use crate::plot::axis::{Axis, extent, short, widened};
use crate::plot::canvas::{Anchor, Canvas, Font, Frame, render};
use crate::plot::line::heading;
use crate::plot::{Colour, DEFAULT_SIZE};
use crate::svg::{shortened, text_width};

const TICK: Font = Font::new(11.5, Colour::SOFT);
const LABEL: Font = Font::new(12.5, Colour::INK);
const CELL: Font = Font::new(11.5, Colour::INK);
/// Most rows, and most columns: more could not be told apart.
const MOST: usize = 1000;
/// Of a cell that is not finite.
const MISSING: Colour = Colour::new(209, 213, 219);
/// From the least value to the greatest; lightness falls all the way, so that it reads in grey too.
const SEQUENTIAL: [Colour; 6] = [
    Colour::new(247, 251, 255),
    Colour::new(208, 225, 242),
    Colour::new(148, 196, 223),
    Colour::new(74, 152, 201),
    Colour::new(23, 100, 171),
    Colour::new(8, 48, 107),
];
/// From below zero over zero to above: vermillion, white, blue.
const DIVERGING: [Colour; 5] = [
    Colour::new(166, 65, 0),
    Colour::new(236, 152, 92),
    Colour::new(250, 250, 250),
    Colour::new(96, 166, 209),
    Colour::new(0, 79, 128),
];

/// Whether cells of a [`HeatMap`] show their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CellText {
    /// Where all of them fit.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// A matrix as colours, with a colour bar. Cells are light where they are low and dark where they are high; where some are negative
/// and some positive, zero is white, and the two sides have two colours. Cells that are not finite are grey.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    title: String,
    subtitle: String,
    values: Array2<f64>,
    /// What stands in the cells, where it is not the value: lines, of which later ones are left out where they do not fit.
    texts: Option<Array2<[String; 2]>>,
    row_labels: Vec<String>,
    column_labels: Vec<String>,
    x_label: String,
    y_label: String,
    value_label: String,
    missing_label: String,
    range: Option<(f64, f64)>,
    cell_text: CellText,
    size: (u32, u32),
}

impl HeatMap {
    /// The picture of a matrix `[rows, columns]`; the first row stands on top.
    pub fn new(title: impl Into<String>, values: ArrayView2<'_, f64>) -> Self {
        HeatMap {
            title: title.into(),
            subtitle: String::new(),
            values: values.to_owned(),
            texts: None,
            row_labels: Vec::new(),
            column_labels: Vec::new(),
            x_label: String::new(),
            y_label: String::new(),
            value_label: String::new(),
            missing_label: String::new(),
            range: None,
            cell_text: CellText::Auto,
            size: DEFAULT_SIZE,
        }
    }

    /// Stands below the title, smaller.
    pub fn subtitle(self, subtitle: impl Into<String>) -> Self {
        HeatMap { subtitle: subtitle.into(), ..self }
    }

    /// Names of the rows, not their numbers from 0.
    pub fn row_labels(self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        HeatMap { row_labels: labels.into_iter().map(Into::into).collect(), ..self }
    }

    /// Names of the columns, not their numbers from 0.
    pub fn column_labels(self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        HeatMap { column_labels: labels.into_iter().map(Into::into).collect(), ..self }
    }

    /// What the columns are.
    pub fn x_label(self, label: impl Into<String>) -> Self {
        HeatMap { x_label: label.into(), ..self }
    }

    /// What the rows are.
    pub fn y_label(self, label: impl Into<String>) -> Self {
        HeatMap { y_label: label.into(), ..self }
    }

    /// What the values are, with their unit; stands beside the colour bar.
    pub fn value_label(self, label: impl Into<String>) -> Self {
        HeatMap { value_label: label.into(), ..self }
    }

    /// What it means that a value is not finite; stands behind the subtitle where there is such a value.
    pub fn missing_label(self, label: impl Into<String>) -> Self {
        HeatMap { missing_label: label.into(), ..self }
    }

    /// The values at the two ends of the colours, so that several pictures can be compared. Without, those of the matrix. Cells beyond
    /// have the colour of the end.
    pub fn range(self, low: f64, high: f64) -> Self {
        HeatMap { range: Some((low, high)), ..self }
    }

    /// Whether cells show their numbers; without, where all fit.
    pub fn cell_text(self, cell_text: CellText) -> Self {
        HeatMap { cell_text, ..self }
    }

    /// Width and height in pixels, not 800 and 450.
    pub fn size(self, width: u32, height: u32) -> Self {
        HeatMap { size: (width, height), ..self }
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// The picture as an SVG document.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without rows or columns; [`Error::Shape`] where the number of labels is another than that of rows or
    /// columns; [`Error::NonFinite`] where no value is finite; [`Error::InvalidOption`] for more than 1000 rows or columns, values
    /// beyond ±1e300, a range that does not rise, or a size out of range.
    pub fn svg(&self) -> Result<String> {
        render(self.size, &self.title, |canvas, frame| self.draw(canvas, frame, 17.0))
    }

    /// Writes [`svg`](Self::svg) to a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be written; [`Error::ZeroSize`], [`Error::Shape`], [`Error::NonFinite`] and
    /// [`Error::InvalidOption`] for a matrix that cannot be drawn, listed at [`svg`](Self::svg).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        files::write_atomic(path, self.svg()?.as_bytes())
    }

    /// Checks everything and returns the values at the ends of the colours.
    fn checked_range(&self) -> Result<(f64, f64)> {
        let parts = [
            ("row labels", "number of rows", "row", self.values.nrows(), &self.row_labels),
            ("column labels", "number of columns", "column", self.values.ncols(), &self.column_labels),
        ];
        for (labels_name, name, one, count, labels) in parts {
            if count == 0 {
                return Err(Error::ZeroSize { name });
            }
            if count > MOST {
                return Err(Error::option(name, format!("at most {MOST}; take a part, or means of several"), count));
            }
            if !labels.is_empty() && labels.len() != count {
                return Err(Error::shape(labels_name, format!("{count}, one a {one}"), labels.len().to_string()));
            }
        }
        let found = extent(self.values.iter().copied(), "values")?;
        let Some((low, high)) = found else {
            return Err(Error::NonFinite {
                tensor: "values".to_owned(),
                got: self.values.first().copied().unwrap_or(f64::NAN),
                position: "[0, 0], and no value of the matrix is finite".to_owned(),
                help: "there is nothing to draw".to_owned(),
            });
        };
        match self.range {
            Some((low, high)) if low < high && low.abs().max(high.abs()) <= 1e300 => Ok(widened((low, high), None)),
            Some((low, high)) => {
                Err(Error::option("range", "two finite numbers, the second greater", format!("{low}, {high}")))
            }
            None if low < 0.0 && high > 0.0 => Ok((-high.max(-low), high.max(-low))),
            None => Ok(widened((low, high), None)),
        }
    }

    pub(super) fn draw(&self, canvas: &Canvas<'_>, frame: Frame, title_size: f64) -> Result<()> {
        let (low, high) = self.checked_range()?;
        let colours: &[Colour] = if low < 0.0 && high > 0.0 { &DIVERGING } else { &SEQUENTIAL };
        let colour = |value: f64| blend(colours, (value - low) / (high - low));
        let (rows, columns) = self.values.dim();
        let edge = 20.0;
        let is_explained = !self.missing_label.is_empty() && self.values.iter().any(|value| !value.is_finite());
        let missing = if is_explained { format!("grey: {}", self.missing_label) } else { String::new() };
        let words: Vec<&str> =
            [&self.subtitle, &missing].into_iter().map(|text| text.as_str()).filter(|text| !text.is_empty()).collect();
        let top = frame.top + heading(canvas, frame, (&self.title, title_size), &words.join("; "))? + 6.0;

        let numbers = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
        let row_labels = if self.row_labels.is_empty() { numbers(rows) } else { self.row_labels.clone() };
        let column_labels = if self.column_labels.is_empty() { numbers(columns) } else { self.column_labels.clone() };
        let widest = |labels: &[String]| labels.iter().map(|l| text_width(l, TICK.size)).fold(0.0, f64::max);

        // From the edges inwards: the colour bar on the right, labels on the left and below, cells in what is left.
        let bar_axis = Axis::linear(low, high, ((frame.height - top) / 50.0).clamp(2.0, 6.0) as usize, false);
        let bar_labels = bar_axis.ticks.iter().map(|t| text_width(&t.1, TICK.size)).fold(0.0, f64::max);
        let bar_width = 16.0 + 14.0 + 8.0 + bar_labels + if self.value_label.is_empty() { 0.0 } else { 22.0 };
        let row_room = widest(&row_labels).min(frame.width * 0.25);
        let left = frame.left + edge * 0.5 + row_room + 10.0 + if self.y_label.is_empty() { 0.0 } else { 20.0 };
        let room = (frame.right() - edge - bar_width - left).max(20.0);
        let x_title = if self.x_label.is_empty() { 0.0 } else { 20.0 };

        let cell_width_at_most = room / columns as f64;
        // Numbers lie, and some are left out; names stand where they do not fit.
        let is_upright = widest(&column_labels) + 6.0 > cell_width_at_most && numbers_of(&column_labels).is_none();
        let column_room =
            if is_upright { widest(&column_labels).min(frame.height * 0.3) + 8.0 } else { TICK.size + 8.0 };
        let height = (frame.bottom() - 12.0 - x_title - column_room - top).max(20.0);
        // Cells are at most about twice as wide as high, or as high as wide: a matrix should look like one.
        let cell_height_at_most = height / rows as f64;
        let cell_width = cell_width_at_most.min((cell_height_at_most * 2.2).max(18.0));
        let cell_height = cell_height_at_most.min((cell_width_at_most * 1.5).max(24.0));
        let inner = Frame { left, top, width: cell_width * columns as f64, height: cell_height * rows as f64 };

        self.draw_cells(canvas, inner, colour)?;
        canvas.outline(inner, Colour::SOFT)?;

        for (i, label) in shown(&row_labels, (TICK.size + 3.0) / cell_height) {
            let middle = inner.top + (i as f64 + 0.5) * cell_height;
            canvas.text(&shortened(label, TICK.size, row_room + 1.0), (inner.left - 6.0, middle), TICK, Anchor::End)?;
        }
        let across = if is_upright { TICK.size + 3.0 } else { widest(&column_labels) + 4.0 };
        for (i, label) in shown(&column_labels, across / cell_width) {
            let middle = inner.left + (i as f64 + 0.5) * cell_width;
            if is_upright {
                let label = shortened(label, TICK.size, column_room - 7.0);
                canvas.text(&label, (middle, inner.bottom() + 6.0), TICK.upright(), Anchor::End)?;
            } else {
                canvas.text(label, (middle, inner.bottom() + 6.0 + TICK.size * 0.5), TICK, Anchor::Middle)?;
            }
        }
        let x_label = shortened(&self.x_label, LABEL.size, room);
        let below = inner.bottom() + column_room + 10.0;
        canvas.text(&x_label, (inner.left + inner.width * 0.5, below), LABEL, Anchor::Middle)?;
        let y_label = shortened(&self.y_label, LABEL.size, height);
        let beside = inner.left - row_room - 20.0;
        // Beside few rows a long word reaches below them, not into the title.
        let middle = inner.height.max(text_width(&y_label, LABEL.size)) * 0.5;
        canvas.text(&y_label, (beside, inner.top + middle), LABEL.upright(), Anchor::Middle)?;

        let least = text_width(&self.value_label, LABEL.size).max(80.0);
        let bar = Frame {
            left: inner.right() + 16.0,
            top,
            width: 14.0,
            height: inner.height.max(least).min(height.max(20.0)),
        };
        self.draw_bar(canvas, bar, &bar_axis, bar_labels, colour)
    }

    fn draw_cells(&self, canvas: &Canvas<'_>, inner: Frame, colour: impl Fn(f64) -> Colour) -> Result<()> {
        let (rows, columns) = self.values.dim();
        let (width, height) = (inner.width / columns as f64, inner.height / rows as f64);
        let shade = |value: f64| if value.is_finite() { colour(value) } else { MISSING };
        let frame = |row: usize, from: usize, count: usize| Frame {
            left: inner.left + from as f64 * width,
            top: inner.top + row as f64 * height,
            width: width * count as f64,
            height,
        };
        for (row, values) in self.values.rows().into_iter().enumerate() {
            // Neighbours of one colour are one rectangle: large maps are mostly such. Each reaches under those to the right and below,
            // which are drawn later: else hairs of white would show between them.
            let shades: Vec<_> = values.iter().map(|v| shade(*v)).collect();
            let mut from = 0;
            for run in shades.chunk_by(|a, b| a == b) {
                let exact = frame(row, from, run.len());
                let (right, bottom) =
                    (inner.right().min(exact.right() + 0.5), inner.bottom().min(exact.bottom() + 0.5));
                let wider = Frame { width: right - exact.left, height: bottom - exact.top, ..exact };
                if let Some(shade) = run.first() {
                    canvas.fill(wider, *shade, 1.0)?;
                }
                from += run.len();
            }
        }
        let texts = |row: usize, column: usize| -> [String; 2] {
            let value = self.values[[row, column]];
            match &self.texts {
                Some(texts) => texts[[row, column]].clone(),
                None if value.is_finite() => [short(value), String::new()],
                None => ["–".to_owned(), String::new()],
            }
        };
        // More could not fit, and need not be measured.
        if self.cell_text == CellText::Never || height < CELL.size + 2.0 || width < CELL.size {
            return Ok(());
        }
        let fits = |line: usize| {
            let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
            cells.into_iter().all(|(row, column)| text_width(&texts(row, column)[line], CELL.size) + 6.0 <= width)
        };
        if !fits(0) {
            return Ok(());
        }
        let has_second = height > 2.0 * CELL.size + 8.0 && fits(1);
        for row in 0..rows {
            for column in 0..columns {
                let [first, second] = texts(row, column);
                let cell = frame(row, column, 1);
                let (x, y) = (cell.left + width * 0.5, cell.top + height * 0.5);
                let is_dark = shade(self.values[[row, column]]).luminance() < 0.3;
                let font = Font { colour: if is_dark { Colour::WHITE } else { Colour::INK }, ..CELL };
                if has_second && !second.is_empty() {
                    canvas.text(&first, (x, y - 7.5), font.bold(), Anchor::Middle)?;
                    canvas.text(&second, (x, y + 7.5), Font { size: CELL.size - 1.0, ..font }, Anchor::Middle)?;
                } else {
                    canvas.text(&first, (x, y), font, Anchor::Middle)?;
                }
            }
        }
        Ok(())
    }

    fn draw_bar(
        &self,
        canvas: &Canvas<'_>,
        bar: Frame,
        axis: &Axis,
        labels: f64,
        colour: impl Fn(f64) -> Colour,
    ) -> Result<()> {
        let steps = 64;
        // From the top: each reaches down to the end, and the next covers all of it but its own part.
        for step in 0..steps {
            let from = f64::from(step) / f64::from(steps);
            let part = Frame { top: bar.top + from * bar.height, height: (1.0 - from) * bar.height, ..bar };
            let share = 1.0 - (f64::from(step) + 0.5) / f64::from(steps);
            canvas.fill(part, colour(axis.low + share * (axis.high - axis.low)), 1.0)?;
        }
        canvas.outline(bar, Colour::SOFT)?;
        for (place, label) in &axis.ticks {
            let height = bar.bottom() - axis.share(*place) * bar.height;
            canvas.line(&[(bar.right(), height), (bar.right() + 4.0, height)], Colour::SOFT, 1.0)?;
            canvas.text(label, (bar.right() + 8.0, height), TICK, Anchor::Start)?;
        }
        let label = shortened(&self.value_label, LABEL.size, bar.height);
        let beside = bar.right() + 8.0 + labels + 14.0;
        canvas.text(&label, (beside, bar.top + bar.height * 0.5), LABEL.upright(), Anchor::Middle)
    }
}

impl Colour {
    /// How bright it is, from 0 to 1 ([WCAG](https://www.w3.org/TR/WCAG22/#dfn-relative-luminance)).
    fn luminance(self) -> f64 {
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }
}

/// The colour at a share of the way along the colours.
fn blend(colours: &[Colour], share: f64) -> Colour {
    let steps = colours.len().saturating_sub(1);
    let place = share.clamp(0.0, 1.0) * steps as f64;
    let from = (place.floor() as usize).min(steps.saturating_sub(1));
    let part = place - from as f64;
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    let mut around = colours.iter().skip(from);
    let (Some(a), Some(b)) = (around.next(), around.next()) else { return Colour::WHITE };
    Colour::new(mix(a.red, b.red), mix(a.green, b.green), mix(a.blue, b.blue))
}

/// The labels as whole numbers, where all are.
fn numbers_of(labels: &[String]) -> Option<Vec<u32>> {
    labels.iter().map(|label| label.parse().ok()).collect()
}

/// The labels that there is room for, with their places, where one needs the room of `cells` cells: numbers are those that 2, 5, 10, …
/// divides, names every second, third, …
fn shown(labels: &[String], cells: f64) -> impl Iterator<Item = (usize, &String)> {
    let least = cells.ceil().max(1.0) as usize;
    let numbers =
        numbers_of(labels).filter(|numbers| numbers.array_windows().all(|[a, b]| a.checked_add(1) == Some(*b)));
    let round = (0..4).flat_map(|power| [1, 2, 5].map(|digit| digit * 10usize.pow(power)));
    let every = round.into_iter().find(|n| numbers.is_some() && *n >= least).unwrap_or(least);
    let first = numbers.and_then(|numbers| numbers.first().map(|first| *first as usize)).unwrap_or(0);
    labels.iter().enumerate().filter(move |(i, _)| (first + i).is_multiple_of(every))
}

/// How often each class was taken for each: `counts[true class, predicted class]`. Cells show the count and its share of the row,
/// that is of all samples of the true class; the colour is that share, so that rare classes are seen as well as frequent ones. A
/// class that never occurred has a grey row, and the picture says so.
///
/// ```
/// use ndarray::array;
/// let picture = fused_rnn::plot::confusion_matrix("Test", ["cat", "dog"], array![[8, 2], [1, 9]].view())?;
/// assert!(picture.svg()?.contains("80 %"));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::ZeroSize`] where nothing was counted; [`Error::Shape`] where the matrix is not square. A wrong number of classes is an
/// error when the picture is drawn.
pub fn confusion_matrix(
    title: impl Into<String>,
    classes: impl IntoIterator<Item = impl Into<String>>,
    counts: ArrayView2<'_, u64>,
) -> Result<HeatMap> {
    if !counts.is_square() {
        return Err(Error::shape("counts", "[classes, classes]", format!("{:?}", counts.shape())));
    }
    // In floating point: the sum of counts must not overflow.
    let total: f64 = counts.iter().map(|n| *n as f64).sum();
    if total == 0.0 {
        return Err(Error::ZeroSize { name: "number of samples counted" });
    }
    let mut shares = Array2::from_elem(counts.raw_dim(), f64::NAN);
    let mut texts = Array2::from_elem(counts.raw_dim(), [String::new(), String::new()]);
    for ((numbers, mut shares), mut texts) in counts.rows().into_iter().zip(shares.rows_mut()).zip(texts.rows_mut()) {
        let sum: f64 = numbers.iter().map(|n| *n as f64).sum();
        for ((number, to), text) in numbers.iter().zip(&mut shares).zip(&mut texts) {
            let share = *number as f64 / sum;
            *to = share;
            let percent = if share.is_finite() { format!("{} %", percent(share)) } else { "–".to_owned() };
            *text = [number.to_string(), percent];
        }
    }
    let right: f64 = counts.diag().iter().map(|n| *n as f64).sum();
    let classes: Vec<String> = classes.into_iter().map(Into::into).collect();
    let map = HeatMap::new(title, shares.view())
        .subtitle(format!("{right} of {total} right ({} %)", percent(right / total)))
        .row_labels(classes.clone())
        .column_labels(classes)
        .x_label("predicted class")
        .y_label("true class")
        .value_label("share of the true class")
        .missing_label("no samples of the class")
        .range(0.0, 1.0);
    Ok(HeatMap { texts: Some(texts), ..map })
}

/// A share in percent, such that what is not all never reads 100 and what is not nothing never reads 0.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p == 0.0 || p == 100.0 => format!("{p:.0}"),
        p if p < 0.1 => "<0.1".to_owned(),
        p if p > 99.9 => ">99.9".to_owned(),
        p => format!("{p:.1}").trim_end_matches(".0").to_owned(),
    }
}

/// How much each step of an output (a row, a query) looks at each step of an input (a column, a key): `weights[queries, keys]`, of
/// [Bahdanau et al. 2015](https://arxiv.org/abs/1409.0473) (figure 3) and [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762).
/// The colours begin at 0.
///
/// # Errors
///
/// [`Error::InvalidOption`] for a negative weight. Wrong numbers of labels are an error when the picture is drawn.
pub fn attention_map(
    title: impl Into<String>,
    queries: impl IntoIterator<Item = impl Into<String>>,
    keys: impl IntoIterator<Item = impl Into<String>>,
    weights: ArrayView2<'_, f64>,
) -> Result<HeatMap> {
    if let Some(((query, key), weight)) = weights.indexed_iter().find(|(_, w)| **w < 0.0) {
        return Err(Error::option(format!("weights[{query}, {key}]"), "at least 0, as a softmax gives", weight));
    }
    let most = weights.iter().copied().filter(|w| w.is_finite()).fold(0.0, f64::max);
    let map = HeatMap::new(title, weights)
        .row_labels(queries)
        .column_labels(keys)
        .x_label("input (key)")
        .y_label("output (query)")
        .value_label("attention weight");
    Ok(if most > 0.0 { map.range(0.0, most) } else { map })
}
