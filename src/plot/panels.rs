//! Several plots in one picture.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::plot::canvas::{Canvas, Frame, render};
use crate::plot::line::heading;
use crate::plot::{DEFAULT_SIZE, HeatMap, LinePlot};

/// A part of [`Panels`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Panel {
    /// Curves.
    Line(LinePlot),
    /// A matrix.
    Heat(HeatMap),
}

impl From<LinePlot> for Panel {
    fn from(plot: LinePlot) -> Self {
        Panel::Line(plot)
    }
}

impl From<HeatMap> for Panel {
    fn from(map: HeatMap) -> Self {
        Panel::Heat(map)
    }
}

impl Panel {
    fn draw(&self, canvas: &Canvas<'_>, frame: Frame, title_size: f64) -> Result<()> {
        match self {
            Panel::Line(plot) => plot.draw(canvas, frame, title_size),
            Panel::Heat(map) => map.draw(canvas, frame, title_size),
        }
    }
}

/// Several plots in one picture, two beside one another, then the next two below. The sizes of the plots themselves do not count.
#[derive(Clone, Debug, PartialEq)]
pub struct Panels {
    title: String,
    panels: Vec<Panel>,
    size: Option<(u32, u32)>,
}

impl Panels {
    /// A picture without panels yet. Without a title none stands above them.
    pub fn new(title: impl Into<String>) -> Self {
        Panels { title: title.into(), panels: Vec::new(), size: None }
    }

    /// Adds a panel.
    pub fn panel(mut self, panel: impl Into<Panel>) -> Self {
        self.panels.push(panel.into());
        self
    }

    /// Width and height in pixels; without, 800 and 450, and 350 more for each further row.
    pub fn size(self, width: u32, height: u32) -> Self {
        Panels { size: Some((width, height)), ..self }
    }

    /// The picture as an SVG document.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without a panel, [`Error::InvalidOption`] for a size out of range; [`Error::ZeroSize`], [`Error::Shape`],
    /// [`Error::NonFinite`] and [`Error::InvalidOption`] for a panel that cannot be drawn, listed at [`LinePlot::svg`] and
    /// [`HeatMap::svg`].
    pub fn svg(&self) -> Result<String> {
        let Some(first) = self.panels.first() else { return Err(Error::ZeroSize { name: "number of panels" }) };
        let columns = self.panels.len().min(2);
        let rows = self.panels.len().div_ceil(columns);
        let height = u32::try_from(rows - 1).unwrap_or(u32::MAX).saturating_mul(350).saturating_add(DEFAULT_SIZE.1);
        let title = match (&self.title, first) {
            (title, _) if !title.is_empty() => title.as_str(),
            (_, Panel::Line(plot)) => plot.title(),
            (_, Panel::Heat(map)) => map.title(),
        };
        render(self.size.unwrap_or((DEFAULT_SIZE.0, height)), title, |canvas, frame| {
            let used = if self.title.is_empty() { 0.0 } else { heading(canvas, frame, (&self.title, 17.0), "")? };
            let (width, height) = (frame.width / columns as f64, (frame.height - used) / rows as f64);
            for (i, panel) in self.panels.iter().enumerate() {
                let (row, column) = ((i / columns) as f64, (i % columns) as f64);
                let part = Frame { left: column * width, top: used + row * height, width, height };
                panel.draw(canvas, part, if self.title.is_empty() { 17.0 } else { 14.0 })?;
            }
            Ok(())
        })
    }

    /// Writes [`svg`](Self::svg) to a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be written; [`Error::ZeroSize`], [`Error::Shape`], [`Error::NonFinite`] and
    /// [`Error::InvalidOption`] for a picture that cannot be drawn, listed at [`svg`](Self::svg).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        files::write_atomic(path, self.svg()?.as_bytes())
    }
}
