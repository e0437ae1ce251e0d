//! Keras's summary table.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use crate::error::{OneLine, Result};
use crate::model::Model;
use crate::model::diagram::{DiagramNode, diagram};
use crate::model::graph::Source;

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

impl Model {
    /// A picture of the model as Keras's [`plot_model`](https://keras.io/api/utils/model_plotting_utils/) draws it, with names, kinds and
    /// shapes: an SVG document.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) for a model of more than 1000 layers and inputs, or otherwise too large to be drawn.
    pub fn diagram(&self) -> Result<String> {
        let shape = |axes: &[Option<usize>]| -> Vec<Option<usize>> {
            std::iter::once(None).chain(axes.iter().copied()).collect()
        };
        let mut nodes: Vec<DiagramNode> = self
            .topology
            .inputs
            .iter()
            .map(|input| DiagramNode {
                name: input.name.clone(),
                class_name: "InputLayer".to_owned(),
                input_shapes: vec![shape(&input.axes)],
                output_shapes: vec![shape(&input.axes)],
                inputs: Vec::new(),
            })
            .collect();
        let inputs = nodes.len();
        for call in &self.topology.calls {
            let Some(layer) = self.topology.layers.get(call.layer) else { continue };
            nodes.push(DiagramNode {
                name: layer.name.clone(),
                class_name: layer.layer.class_name().to_owned(),
                input_shapes: call.inputs.iter().map(|source| shape(self.topology.axes_of(*source))).collect(),
                output_shapes: call.axes.iter().map(|axes| shape(axes)).collect(),
                inputs: call
                    .inputs
                    .iter()
                    .map(|source| match source {
                        Source::Input(index) => *index,
                        Source::Call(index, _) => inputs + index,
                    })
                    .collect(),
            });
        }
        diagram(&nodes)
    }

    /// Names of the layers at which a mask ends without being used, so that those above take every step for one that is there: where Keras
    /// warns of a layer that "does not support masking and will therefore destroy the mask information".
    pub fn ended_masks(&self) -> Vec<&str> {
        let calls = self.topology.calls.iter().filter(|call| call.ends_mask);
        let ends: HashSet<usize> = calls.map(|call| call.layer).collect();
        let layers = self.topology.layers.iter().enumerate();
        layers.filter(|(index, _)| ends.contains(index)).map(|(_, named)| named.name.as_str()).collect()
    }

    /// A table of layers, output shapes and numbers of weights, as Keras prints it, and at which layers masks end unused.
    pub fn summary(&self) -> String {
        let params = |layer: usize| -> usize {
            let layer = self.network.builder.layers.get(layer);
            layer.map_or(0, |layer| layer.parameters.iter().map(|p| p.range.len()).sum())
        };
        // A shared layer stands once, with the shape of its first use.
        let mut first_use = HashMap::new();
        for call in &self.topology.calls {
            first_use.entry(call.layer).or_insert(&call.axes);
        }
        let rows: Vec<[String; 3]> = self
            .topology
            .layers
            .iter()
            .enumerate()
            .map(|(index, named)| {
                let outputs = first_use.get(&index).map_or(&[][..], |axes| axes);
                let shown = |axis: &Option<usize>| axis.map_or(", None".to_owned(), |n| format!(", {n}"));
                let shapes = outputs.iter().map(|axes| format!("(None{})", axes.iter().map(shown).collect::<String>()));
                let shapes: Vec<_> = shapes.collect();
                let shapes = if let [one] = &shapes[..] { one.clone() } else { format!("[{}]", shapes.join(", ")) };
                [
                    format!("{} ({})", OneLine(&named.name), OneLine(named.layer.class_name())),
                    shapes,
                    grouped(params(index)),
                ]
            })
            .collect();
        let header = ["Layer (type)", "Output Shape", "Param #"];
        let mut widths = [31, 22, 13];
        for row in &rows {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.chars().count().max(*width));
        }
        let rule = |left: &str, line: &str, middle: &str, right: &str| {
            let parts = widths.map(|w| line.repeat(w + 2));
            format!("{left}{}{right}\n", parts.join(middle))
        };
        let line = |edge: &str, cells: [&str; 3]| {
            let [a, b, c] = widths;
            // By hand, since a width in a format has a limit, beyond which it panics.
            let space = |cell: &str, width: usize| " ".repeat(width.saturating_sub(cell.chars().count()));
            let (a, b, c) = (space(cells[0], a), space(cells[1], b), space(cells[2], c));
            format!("{edge} {}{a} {edge} {}{b} {edge} {c}{} {edge}\n", cells[0], cells[1], cells[2])
        };
        let kind = if self.topology.is_stack() { "sequential" } else { "functional" };
        let mut text = format!("Model: \"{kind}\"\n");
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
        let (trainable, other) = (self.count_params(), self.count_non_trainable());
        let size = |count: usize| format!("{} ({})", grouped(count), bytes(count * self.dtype().size()));
        // Writing to a String cannot fail.
        let _ = writeln!(text, " Total params: {}", size(trainable + other));
        let _ = writeln!(text, " Trainable params: {}", size(trainable));
        let _ = writeln!(text, " Non-trainable params: {}", size(other));
        let ended = self.ended_masks();
        if !ended.is_empty() {
            let _ = writeln!(text, " Masks end at: {}", OneLine(ended.join(", ")));
        }
        text
    }
}
