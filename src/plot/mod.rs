//! Pictures as SVG: curves, the history of a training, matrices of numbers. Needs the feature `plot`.
//!
//! | kind | for |
//! |---|---|
//! | [`LinePlot`] | curves over a common axis, with a legend and marks |
//! | [`history`] | losses and metrics over epochs, each with its counterpart on validation data |
//! | [`HeatMap`] | a matrix as colours, with its numbers where they fit |
//! | [`confusion_matrix`], [`attention_map`] | heat maps with what belongs to those |
//! | [`Panels`] | several of these in one picture |
//!
//! Every kind has `svg`, the document as text, and `save`, which writes it whole or not at all. The colours are those of
//! [Okabe and Ito](https://jfly.uni-koeln.de/color/), which people with any kind of colour vision can tell apart.
//!
//! ```
//! use fused_rnn::plot::{Curve, LinePlot};
//! let sine = (0..=100).map(|i| (f64::from(i) / 10.0, (f64::from(i) / 10.0).sin()));
//! let plot = LinePlot::new("A sine").x_label("time [s]").y_label("height [m]").curve(Curve::new("sine", sine));
//! assert!(plot.svg()?.starts_with("<svg"));
//! # Ok::<(), fused_rnn::Error>(())
//! ```

mod axis;
mod canvas;
mod heat;
mod history;
mod line;
mod panels;

pub use heat::{CellText, HeatMap, attention_map, confusion_matrix};
pub use history::history;
pub use line::{Curve, LinePlot};
pub use panels::{Panel, Panels};

/// Width and height of a picture in pixels where nothing else is said.
pub const DEFAULT_SIZE: (u32, u32) = (1000, 500);

/// A colour on the screen ([sRGB](https://www.w3.org/TR/css-color-4/#predefined-sRGB)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// Red, from 0 to 255.
    pub red: u8,
    /// Green, from 0 to 255.
    pub green: u8,
    /// Blue, from 0 to 255.
    pub blue: u8,
}

impl Colour {
    /// A colour by its parts.
    pub const fn new(red: u8, green: u8, blue: u8) -> Self {
        Colour { red, green, blue }
    }

    /// The colours of curves for which none is chosen, in this order: blue, vermillion, bluish green, reddish purple, orange, sky
    /// blue, black. Beyond them they begin again with dashes.
    pub const PALETTE: [Colour; 7] = [
        Colour::BLUE,
        Colour::VERMILLION,
        Colour::GREEN,
        Colour::new(204, 121, 167),
        Colour::new(230, 159, 0),
        Colour::new(86, 180, 233),
        Colour::new(0, 0, 0),
    ];
    /// Blue.
    pub const BLUE: Colour = Colour::new(0, 114, 178);
    /// Vermillion, a red that differs from green in lightness too.
    pub const VERMILLION: Colour = Colour::new(213, 94, 0);
    /// A green that leans to blue.
    pub const GREEN: Colour = Colour::new(0, 158, 115);
    /// Grey, for what is known beside what a model says.
    pub const GREY: Colour = Colour::new(100, 116, 139);

    /// Of text.
    const INK: Colour = Colour::new(31, 41, 55);
    /// Of text of less weight, and of axes.
    const SOFT: Colour = Colour::new(86, 95, 108);
    /// Of lines in the background.
    const GRID: Colour = Colour::new(229, 231, 235);
    const WHITE: Colour = Colour::new(255, 255, 255);
}
