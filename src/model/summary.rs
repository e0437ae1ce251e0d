//! Keras's summary table.

use std::fmt::Write;

use crate::backend::DenseBackend;
use crate::dtype::Scalar;
use crate::model::Sequential;

/// `10400` as `10,400`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `41984` as `41.00 KB`.
fn bytes(number: usize) -> String {
    let mut value = number as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 1024.0 {
            return format!("{value:.2} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.2} TB")
}

impl<E: Scalar, B: DenseBackend<Elem = E> + 'static> Sequential<E, B>
where
    B::Plan: 'static,
{
    /// A table of layers, output shapes and numbers of weights, as Keras prints it.
    pub fn summary(&self) -> String {
        let rows: Vec<[String; 3]> = self
            .layers
            .iter()
            .map(|named| {
                let axes: Vec<_> = named.layer.output_shape().iter().map(|n| format!(", {n}")).collect();
                [
                    format!("{} ({})", named.name, named.layer.class_name()),
                    format!("(None{})", axes.concat()),
                    grouped(named.range.len()),
                ]
            })
            .collect();
        let header = ["Layer (type)", "Output Shape", "Param #"];
        let minimum = [31, 22, 13];
        let width = |column: usize| {
            let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            longest.max(minimum[column])
        };
        let widths = [width(0), width(1), width(2)];
        let rule = |left: &str, line: &str, middle: &str, right: &str| {
            let parts = widths.map(|w| line.repeat(w + 2));
            format!("{left}{}{right}\n", parts.join(middle))
        };
        let line = |edge: &str, cells: [&str; 3]| {
            let [a, b, c] = widths;
            format!("{edge} {:<a$} {edge} {:<b$} {edge} {:>c$} {edge}\n", cells[0], cells[1], cells[2])
        };
        let mut text = String::from("Model: \"sequential\"\n");
        text += &rule("┏", "━", "┳", "┓");
        text += &line("┃", header);
        text += &rule("┡", "━", "╇", "┩");
        for (i, row) in rows.iter().enumerate() {
            if i > 0 {
                text += &rule("├", "─", "┼", "┤");
            }
            text += &line("│", [&row[0], &row[1], &row[2]]);
        }
        text += &rule("└", "─", "┴", "┘");
        let count = self.count_params();
        let size = |count: usize| format!("{} ({})", grouped(count), bytes(count * E::DTYPE.size()));
        // Writing to a String cannot fail.
        let _ = writeln!(text, " Total params: {}", size(count));
        let _ = writeln!(text, " Trainable params: {}", size(count));
        let _ = writeln!(text, " Non-trainable params: {}", size(0));
        text
    }
}
