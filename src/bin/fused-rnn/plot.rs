//! The pictures: loss curves and forecasts, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Size as shown, in pixels.
const SIZE: (u32, u32) = (1000, 500);
/// Everything is drawn this many times as large and shown smaller, since the SVG backend rounds coordinates to whole numbers.
const FINE: i32 = 4;
const INK: RGBColor = RGBColor(31, 41, 55);
const SOFT: RGBColor = RGBColor(107, 114, 128);
const GRID: RGBColor = RGBColor(229, 231, 235);
/// Colour of what is known.
pub const KNOWN: RGBColor = RGBColor(100, 116, 139);
/// Colour of what a model says.
pub const MODEL: RGBColor = RGBColor(234, 88, 12);
/// Colour of a second curve of the same kind.
pub const SECOND: RGBColor = RGBColor(37, 99, 235);

/// A curve of a picture.
pub struct Curve<'a> {
    pub name: &'a str,
    pub colour: RGBColor,
    /// In half pixels.
    pub width: u32,
    pub points: Vec<(f64, f64)>,
}

/// A picture of curves over a common axis.
pub struct Plot<'a> {
    pub title: &'a str,
    /// Stands below the title, smaller.
    pub subtitle: String,
    pub x_label: String,
    pub y_label: String,
    pub curves: Vec<Curve<'a>>,
    /// A vertical line with a word beside it.
    pub mark: Option<(f64, &'a str)>,
    /// Whether the y axis counts in powers of ten.
    pub log_y: bool,
}

impl Plot<'_> {
    /// The picture as an SVG document.
    pub fn svg(&self) -> Result<String, String> {
        let mut text = String::new();
        let drawn = (SIZE.0 * FINE as u32, SIZE.1 * FINE as u32);
        {
            let root = SVGBackend::with_string(&mut text, drawn).into_drawing_area();
            self.draw(&root).map_err(|e| e.to_string())?;
            root.present().map_err(|e| e.to_string())?;
        }
        let size = |(width, height): (u32, u32)| format!("width=\"{width}\" height=\"{height}\"");
        Ok(text.replacen(&size(drawn), &size(SIZE), 1))
    }

    fn range(&self, value: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let values = self.curves.iter().flat_map(|c| &c.points).map(value);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(v), max.max(v)))
    }

    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        root.fill(&WHITE)?;
        let bold = font(21).style(FontStyle::Bold).color(&INK);
        root.draw(&Text::new(self.title.to_owned(), (24 * FINE, 18 * FINE), bold))?;
        root.draw(&Text::new(self.subtitle.clone(), (24 * FINE, 46 * FINE), font(14).color(&SOFT)))?;

        let (x_min, x_max) = self.range(|p| p.0);
        let (y_min, y_max) = self.range(|p| p.1);
        // Curves of one point, or of one value, still need an axis of some length.
        let x_range = if x_max > x_min { x_min..x_max } else { x_min - 0.5..x_max + 0.5 };
        let slack = if y_max > y_min { (y_max - y_min) * 0.06 } else { y_max.abs().max(1.0) * 0.1 };
        let y_range =
            if y_min >= 0.0 && y_min < 2.0 * slack { 0.0..y_max + slack } else { y_min - slack..y_max + slack };

        let mut builder = ChartBuilder::on(root);
        builder.margin_top(80 * FINE).margin_right(28 * FINE).margin_left(16 * FINE).margin_bottom(14 * FINE);
        builder.x_label_area_size(46 * FINE).y_label_area_size(66 * FINE);
        let x_number = |x: &f64| number(*x, x_range.end - x_range.start);
        if self.log_y {
            let logarithmic = (y_min * 0.85..y_max * 1.15).log_scale();
            let mut chart = builder.build_cartesian_2d(x_range.clone(), logarithmic)?;
            mesh(&mut chart.configure_mesh(), self, &x_number, &short)?;
            for curve in &self.curves {
                let style = curve.colour.stroke_width(curve.width * FINE as u32 / 2);
                chart.draw_series(LineSeries::new(curve.points.iter().copied(), style))?;
            }
            if let Some((x, word)) = self.mark {
                self.draw_mark(
                    root,
                    chart.backend_coord(&(x, y_max * 1.15)),
                    chart.backend_coord(&(x, y_min * 0.85)),
                    word,
                )?;
            }
        } else {
            let height = y_range.end - y_range.start;
            let y_number = |y: &f64| number(*y, height);
            let mut chart = builder.build_cartesian_2d(x_range.clone(), y_range.clone())?;
            mesh(&mut chart.configure_mesh(), self, &x_number, &y_number)?;
            for curve in &self.curves {
                let style = curve.colour.stroke_width(curve.width * FINE as u32 / 2);
                chart.draw_series(LineSeries::new(curve.points.iter().copied(), style))?;
            }
            if let Some((x, word)) = self.mark {
                self.draw_mark(
                    root,
                    chart.backend_coord(&(x, y_range.end)),
                    chart.backend_coord(&(x, y_range.start)),
                    word,
                )?;
            }
        }
        self.draw_legend(root)
    }

    fn draw_mark<B: DrawingBackend>(
        &self,
        root: &DrawingArea<B, Shift>,
        top: (i32, i32),
        bottom: (i32, i32),
        word: &str,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        for y in (top.1..bottom.1).step_by(8 * FINE as usize) {
            let dash = [(top.0, y), (top.0, (y + 4 * FINE).min(bottom.1))];
            root.draw(&PathElement::new(dash, SOFT.stroke_width(FINE as u32)))?;
        }
        // The word stands on the side that has room for it.
        let is_right = top.0 > (SIZE.0 as i32 - 180) * FINE;
        let (x, side) = if is_right { (top.0 - 6 * FINE, HPos::Right) } else { (top.0 + 6 * FINE, HPos::Left) };
        let style = font(13).color(&SOFT).pos(Pos::new(side, VPos::Top));
        root.draw(&Text::new(word.to_owned(), (x, top.1 + 2 * FINE), style))
    }

    /// In the line of the subtitle, from the right: it never covers a curve.
    fn draw_legend<B: DrawingBackend>(
        &self,
        root: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let mut right = (SIZE.0 as i32 - 28) * FINE;
        for curve in self.curves.iter().rev() {
            let name = right - curve.name.chars().count() as i32 * 8 * FINE;
            root.draw(&Text::new(curve.name.to_owned(), (name, 46 * FINE), font(14).color(&INK)))?;
            let line = [(name - 30 * FINE, 54 * FINE), (name - 8 * FINE, 54 * FINE)];
            root.draw(&PathElement::new(line, curve.colour.stroke_width(3 * FINE as u32)))?;
            right = name - 50 * FINE;
        }
        Ok(())
    }
}

/// `size` in pixels as shown.
fn font(size: i32) -> FontDesc<'static> {
    ("sans-serif", f64::from(size * FINE)).into_font()
}

fn mesh<'a, 'b, X, Y, B>(
    mesh: &mut plotters::chart::MeshStyle<'a, 'b, X, Y, B>,
    plot: &Plot<'_>,
    x_number: &'b dyn Fn(&f64) -> String,
    y_number: &'b dyn Fn(&f64) -> String,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>>
where
    X: plotters::coord::ranged1d::Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    Y: plotters::coord::ranged1d::Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    B: DrawingBackend,
{
    let labels = font(13).color(&SOFT);
    mesh.disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(FINE as u32))
        .axis_style(SOFT.stroke_width(FINE as u32))
        .set_all_tick_mark_size(5 * FINE)
        .x_labels(10)
        .y_labels(7)
        .x_label_formatter(x_number)
        .y_label_formatter(y_number)
        .x_label_style(labels.clone())
        .y_label_style(labels)
        .axis_desc_style(font(14).color(&INK))
        .x_desc(plot.x_label.clone())
        .y_desc(plot.y_label.clone())
        .draw()
}

/// With as many decimals as the ticks of an axis of this length need.
fn number(value: f64, length: f64) -> String {
    if !(1e-4..1e7).contains(&length) {
        return short(&value);
    }
    let decimals = (1.0 - length.log10().floor()).clamp(0.0, 6.0) as usize;
    trimmed(format!("{value:.decimals$}"))
}

/// Three digits, with an exponent where that is shorter.
fn short(value: &f64) -> String {
    if *value == 0.0 || (1e-3..1e5).contains(&value.abs()) {
        let decimals = (2.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 5.0) as usize;
        trimmed(format!("{value:.decimals$}"))
    } else {
        format!("{value:.2e}")
    }
}

/// Without zeros at the end of the decimals.
fn trimmed(text: String) -> String {
    let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}
