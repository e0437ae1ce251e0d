//! Drawing in pixels, on the SVG backend of plotters.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};
use crate::plot::Colour;
use crate::svg;

/// Everything is drawn this many times as large and shown smaller, since the SVG backend rounds coordinates to whole numbers.
const FINE: f64 = 4.0;
/// The SVG backend divides sizes of fonts by this.
const FONT_SCALE: f64 = 1.24;
/// Largest width or height, in pixels.
const LARGEST: u32 = 20_000;
/// Smallest width or height: below, there is no room for axes and their labels.
const SMALLEST: u32 = 160;

/// A part of a picture, in pixels from the upper left corner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Frame {
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

/// Which end of a text stands at its position.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub(super) struct Font {
    pub size: f64,
    pub colour: Colour,
    pub bold: bool,
    /// Whether it reads from the bottom up.
    pub upright: bool,
}

impl Font {
    pub const fn new(size: f64, colour: Colour) -> Self {
        Font { size, colour, bold: false, upright: false }
    }

    pub const fn bold(self) -> Self {
        Font { bold: true, ..self }
    }

    pub const fn upright(self) -> Self {
        Font { upright: true, ..self }
    }
}

/// Where a picture is drawn.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// Runs `draw` on an empty picture of this size, and returns the SVG document. `title` is for who cannot see it.
pub(super) fn render(
    (width, height): (u32, u32),
    title: &str,
    draw: impl FnOnce(&Canvas<'_>, Frame) -> Result<()>,
) -> Result<String> {
    for (name, size) in [("width", width), ("height", height)] {
        if !(SMALLEST..=LARGEST).contains(&size) {
            return Err(Error::option(name, format!("{SMALLEST} to {LARGEST} pixels"), size));
        }
    }
    let mut text = String::new();
    let drawn = (width * FINE as u32, height * FINE as u32);
    {
        let canvas = Canvas { area: SVGBackend::with_string(&mut text, drawn).into_drawing_area() };
        canvas.area.fill(&WHITE).map_err(failed)?;
        draw(&canvas, Frame { left: 0.0, top: 0.0, width: width.into(), height: height.into() })?;
        canvas.area.present().map_err(failed)?;
    }
    let size = |(width, height): (u32, u32)| format!("width=\"{width}\" height=\"{height}\"");
    let text = text.replacen(&size(drawn), &size((width, height)), 1);
    Ok(text.replacen(">\n", &format!(">\n<title>{}</title>\n", svg::escaped(title)), 1))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::unsupported("this picture", format!("drawing it failed: {error}"))
}

fn fine((x, y): (f64, f64)) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

fn paint(colour: Colour) -> RGBColor {
    RGBColor(colour.red, colour.green, colour.blue)
}

impl Canvas<'_> {
    /// A line through the points, `width` pixels wide.
    pub fn line(&self, points: &[(f64, f64)], colour: Colour, width: f64) -> Result<()> {
        let style = paint(colour).stroke_width((width * FINE).round().max(1.0) as u32);
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        self.area.draw(&PathElement::new(points, style)).map_err(failed)
    }

    /// A line of dashes of 5 pixels with gaps of 4.
    pub fn dashes(&self, points: &[(f64, f64)], colour: Colour, width: f64) -> Result<()> {
        for dash in dashed(points, 5.0, 4.0) {
            self.line(&dash, colour, width)?;
        }
        Ok(())
    }

    /// A filled rectangle; `opacity` is 1 where nothing shines through.
    pub fn fill(&self, frame: Frame, colour: Colour, opacity: f64) -> Result<()> {
        let corners = [fine((frame.left, frame.top)), fine((frame.right(), frame.bottom()))];
        self.area.draw(&Rectangle::new(corners, paint(colour).mix(opacity).filled())).map_err(failed)
    }

    /// A filled area within a line around it.
    pub fn area(&self, points: &[(f64, f64)], colour: Colour, opacity: f64) -> Result<()> {
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        self.area.draw(&Polygon::new(points, paint(colour).mix(opacity).filled())).map_err(failed)
    }

    /// The outline of a rectangle.
    pub fn outline(&self, frame: Frame, colour: Colour) -> Result<()> {
        let (left, top, right, bottom) = (frame.left, frame.top, frame.right(), frame.bottom());
        self.line(&[(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], colour, 1.0)
    }

    /// A filled circle.
    pub fn dot(&self, centre: (f64, f64), radius: f64, colour: Colour) -> Result<()> {
        let circle = Circle::new(fine(centre), (radius * FINE).round() as i32, paint(colour).filled());
        self.area.draw(&circle).map_err(failed)
    }

    /// A text in one line, its middle at the height of the position (for upright text: its end, middle or start there).
    pub fn text(&self, text: &str, position: (f64, f64), font: Font, anchor: Anchor) -> Result<()> {
        let side = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let mut description = ("sans-serif", font.size * FINE * FONT_SCALE).into_font();
        if font.bold {
            description = description.style(FontStyle::Bold);
        }
        if font.upright {
            description = description.transform(FontTransform::Rotate270);
        }
        let style = description.color(&paint(font.colour)).pos(Pos::new(side, VPos::Center));
        self.area.draw(&Text::new(svg::legible(text).into_owned(), fine(position), style)).map_err(failed)
    }
}

/// The pieces of a line through `points` that dashes of length `on` with gaps of `off` leave.
fn dashed(points: &[(f64, f64)], on: f64, off: f64) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = Vec::new();
    let (mut is_on, mut left) = (true, on);
    let mut piece: Vec<_> = points.first().copied().into_iter().collect();
    for [from, to] in points.array_windows() {
        let (mut from, to) = (*from, *to);
        loop {
            let rest = (to.0 - from.0).hypot(to.1 - from.1);
            if rest <= left {
                left -= rest;
                break;
            }
            let part = left / rest;
            from = (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
            if is_on {
                piece.push(from);
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece.push(from);
            }
            is_on = !is_on;
            left = if is_on { on } else { off };
        }
        if is_on {
            piece.push(to);
        }
    }
    if piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::dashed;

    #[test]
    fn dashes_go_round_corners() {
        let pieces = dashed(&[(0.0, 0.0), (4.0, 0.0), (4.0, 20.0)], 5.0, 4.0);
        let expected =
            [vec![(0.0, 0.0), (4.0, 0.0), (4.0, 1.0)], vec![(4.0, 5.0), (4.0, 10.0)], vec![(4.0, 14.0), (4.0, 19.0)]];
        assert_eq!(pieces, expected);
        assert!(dashed(&[], 5.0, 4.0).is_empty());
        assert!(dashed(&[(1.0, 1.0)], 5.0, 4.0).is_empty());
    }
}
