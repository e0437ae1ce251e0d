//! A model as a picture of boxes and arrows: Keras's `plot_model`.
#![expect(
    clippy::indexing_slicing,
    reason = "of nodes, rows and places by their own numbers, which the layout has given out"
)]

use std::collections::HashMap;
use std::fmt::Write;

use crate::error::{Error, Result};
use crate::svg::{escaped, legible, shortened, text_width};

/// A layer of a model, as [`diagram`] needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagramNode {
    /// The layer's name in its model.
    pub name: String,
    /// What kind of layer it is.
    pub class_name: String,
    /// Shape of each input, the batch first; `None` where any size goes.
    pub input_shapes: Vec<Vec<Option<usize>>>,
    /// Shape of each output.
    pub output_shapes: Vec<Vec<Option<usize>>>,
    /// Which layers it reads, as indices of nodes.
    pub inputs: Vec<usize>,
}

const NAME_SIZE: f64 = 13.0;
const SHAPE_SIZE: f64 = 11.5;
/// Widest text of a box.
const WIDEST: f64 = 300.0;
const HEADER: f64 = 26.0;
const LINE: f64 = 17.0;
const PADDING: f64 = 10.0;
/// Between boxes beside one another.
const ASIDE: f64 = 28.0;
/// Between rows.
const BETWEEN: f64 = 34.0;
/// Width of what an arrow takes that passes a row of boxes.
const PASSAGE: f64 = 10.0;
const EDGE: f64 = 16.0;
/// Most layers: a picture of more is megabytes, and nothing to look at.
const MOST_NODES: usize = 1000;
/// Most places of all rows together, arrows that pass a row counted too.
const MOST_PLACES: usize = 20_000;
/// How often the rows are put in order; more changes little.
const SWEEPS: usize = 24;

/// An SVG document with a box for each layer, its name, class and shapes, and arrows from the layers that it reads: what Keras's
/// [`plot_model`](https://keras.io/api/utils/model_plotting_utils/) draws with `show_shapes` and `show_layer_names`.
///
/// Rows are those of the longest path from an input; within a row boxes are ordered so that few arrows cross, by barycentres
/// ([Sugiyama et al. 1981](https://doi.org/10.1109/TSMC.1981.4308636)).
///
/// ```
/// use fused_rnn::model::diagram::{DiagramNode, diagram};
/// let node = |name: &str, class: &str, input: &[usize], output: &[usize], inputs: &[usize]| {
///     let shape = |sizes: &[usize]| std::iter::once(None).chain(sizes.iter().map(|n| Some(*n))).collect();
///     DiagramNode {
///         name: name.to_owned(),
///         class_name: class.to_owned(),
///         input_shapes: vec![shape(input)],
///         output_shapes: vec![shape(output)],
///         inputs: inputs.to_vec(),
///     }
/// };
/// let nodes = [node("lstm", "LSTM", &[10, 3], &[50], &[]), node("dense", "Dense", &[50], &[1], &[0])];
/// assert!(diagram(&nodes)?.contains("(None, 10, 3)"));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::ZeroSize`] without nodes; [`Error::InvalidOption`] where an input is no node, or layers read one another in a circle;
/// [`Error::Unsupported`] for more than 1000 nodes, or so many arrows past others that no picture shows them.
pub fn diagram(nodes: &[DiagramNode]) -> Result<String> {
    if nodes.is_empty() {
        return Err(Error::ZeroSize { name: "number of nodes" });
    }
    if nodes.len() > MOST_NODES {
        let why =
            format!("at most {MOST_NODES} are drawn; draw a part of them, or print Model::summary, which lists all");
        return Err(Error::unsupported(format!("a diagram of {} layers and inputs", nodes.len()), why));
    }
    for (i, node) in nodes.iter().enumerate() {
        if let Some(input) = node.inputs.iter().find(|input| **input >= nodes.len()) {
            let option = format!("nodes[{i}].inputs (layer {:?})", node.name);
            return Err(Error::option(option, format!("indices of nodes, below {}", nodes.len()), input));
        }
    }
    let boxes: Vec<_> = nodes.iter().map(LayerBox::new).collect();
    let layout = Layout::new(nodes, &boxes)?;
    Ok(layout.draw(nodes, &boxes))
}

/// What stands in a box.
struct LayerBox {
    title: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// Widths of the two columns of shapes.
    columns: [f64; 2],
    width: f64,
    height: f64,
}

/// As Keras writes it: `(None, 10, 3)`, `(None,)`.
fn shape_text(shape: &[Option<usize>]) -> String {
    let sizes: Vec<_> = shape.iter().map(|n| n.map_or("None".to_owned(), |n| n.to_string())).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    format!("({}{comma})", sizes.join(", "))
}

impl LayerBox {
    fn new(node: &DiagramNode) -> Self {
        // A long name is cut, not the class behind it.
        let class = format!(" ({})", shortened(&node.class_name, NAME_SIZE, WIDEST * 0.5));
        let title = shortened(&node.name, NAME_SIZE, WIDEST - text_width(&class, NAME_SIZE)) + &class;
        let texts = |what: &str, shapes: &[Vec<Option<usize>>]| -> Vec<String> {
            // A layer that reads dozens of others would be a tower: the first few say enough.
            let shown = shapes.iter().take(6).map(|s| shortened(&shape_text(s), SHAPE_SIZE, WIDEST * 0.5));
            let mut texts: Vec<_> = std::iter::once(what.to_owned()).chain(shown).collect();
            if shapes.len() > 6 {
                texts.push(format!("and {} more", shapes.len() - 6));
            }
            if shapes.is_empty() {
                texts.push("none".to_owned());
            }
            texts
        };
        let (inputs, outputs) = (texts("input", &node.input_shapes), texts("output", &node.output_shapes));
        let widest = |texts: &[String]| texts.iter().map(|t| text_width(t, SHAPE_SIZE)).fold(0.0, f64::max);
        let columns = [widest(&inputs) + 2.0 * PADDING, widest(&outputs) + 2.0 * PADDING];
        // Bold text is wider.
        let titled = text_width(&title, NAME_SIZE) * 1.1 + 2.0 * PADDING;
        let width = (columns[0] + columns[1]).max(titled);
        // What the title needs more goes to both columns.
        let more = (width - columns[0] - columns[1]) * 0.5;
        let height = HEADER + inputs.len().max(outputs.len()) as f64 * LINE + 8.0;
        LayerBox { title, inputs, outputs, columns: columns.map(|c| c + more), width, height }
    }
}

/// What takes a place in a row: a layer, or an arrow that passes.
struct Place {
    node: Option<usize>,
    row: usize,
    width: f64,
    /// Middle.
    x: f64,
    /// Places of the row above and of the row below that it is joined with.
    above: Vec<usize>,
    below: Vec<usize>,
}

struct Layout {
    places: Vec<Place>,
    /// Places of each row, from left to right.
    rows: Vec<Vec<usize>>,
    /// Each arrow's places, from the layer that is read to the one that reads.
    arrows: Vec<Vec<usize>>,
}

/// Each node after all that it reads.
fn topological_order(nodes: &[DiagramNode]) -> Result<Vec<usize>> {
    let mut readers = vec![Vec::new(); nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            readers[*input].push(i);
        }
    }
    let mut waiting: Vec<_> = nodes.iter().map(|node| node.inputs.len()).collect();
    let mut order: Vec<_> = (0..nodes.len()).filter(|i| waiting[*i] == 0).collect();
    let mut done = 0;
    while let Some(node) = order.get(done).copied() {
        done += 1;
        for reader in &readers[node] {
            waiting[*reader] -= 1;
            if waiting[*reader] == 0 {
                order.push(*reader);
            }
        }
    }
    let Some(stuck) = (0..nodes.len()).find(|i| waiting[*i] > 0) else { return Ok(order) };
    // From a node that waits there is always an input that waits too; after as many steps as nodes one has been met twice.
    let mut seen = vec![false; nodes.len()];
    let (mut at, mut circle) = (stuck, Vec::new());
    while !seen[at] {
        seen[at] = true;
        circle.push(at);
        match nodes[at].inputs.iter().find(|input| waiting[**input] > 0) {
            Some(input) => at = *input,
            None => break,
        }
    }
    let begin = circle.iter().position(|i| *i == at).unwrap_or(0);
    let mut names: Vec<_> = circle[begin..].iter().map(|i| format!("{:?}", nodes[*i].name)).collect();
    names.push(format!("{:?}", nodes[at].name));
    Err(Error::option(
        "nodes",
        "layers that read only layers before them",
        format!("{} in a circle", names.join(" reads ")),
    ))
}

impl Layout {
    fn new(nodes: &[DiagramNode], boxes: &[LayerBox]) -> Result<Self> {
        let order = topological_order(nodes)?;
        let mut row_of = vec![0; nodes.len()];
        let mut first_reader: Vec<Option<usize>> = vec![None; nodes.len()];
        let mut readers = vec![0; nodes.len()];
        for i in &order {
            row_of[*i] = nodes[*i].inputs.iter().map(|input| row_of[*input] + 1).max().unwrap_or(0);
        }
        // A node that more layers read than it reads goes down to its first reader: its arrows get shorter on the whole. So does an
        // input that is needed late.
        for i in order.iter().rev() {
            if let Some(reader) = first_reader[*i]
                && readers[*i] > nodes[*i].inputs.len()
            {
                row_of[*i] = reader - 1;
            }
            for input in &nodes[*i].inputs {
                first_reader[*input] = Some(first_reader[*input].map_or(row_of[*i], |row| row.min(row_of[*i])));
                readers[*input] += 1;
            }
        }

        let mut layout = Layout { places: Vec::new(), rows: Vec::new(), arrows: Vec::new() };
        let depth = row_of.iter().max().map_or(1, |row| row + 1);
        layout.rows = vec![Vec::new(); depth];
        // In topological order, which keeps what belongs together near already.
        let mut place_of = vec![0; nodes.len()];
        for i in &order {
            place_of[*i] = layout.add(Some(*i), row_of[*i], boxes[*i].width);
        }
        for i in &order {
            for (nth, input) in nodes[*i].inputs.iter().enumerate() {
                // Two outputs of one layer are read: one arrow says so.
                if nodes[*i].inputs[..nth].contains(input) {
                    continue;
                }
                let mut path = vec![place_of[*input]];
                for row in row_of[*input] + 1..row_of[*i] {
                    if layout.places.len() >= MOST_PLACES {
                        let why = "its layers and arrows take too many places; draw a part of it";
                        return Err(Error::unsupported("a diagram of this model", why));
                    }
                    path.push(layout.add(None, row, PASSAGE));
                }
                path.push(place_of[*i]);
                for pair in path.windows(2) {
                    layout.places[pair[0]].below.push(pair[1]);
                    layout.places[pair[1]].above.push(pair[0]);
                }
                layout.arrows.push(path);
            }
        }
        layout.reduce_crossings();
        layout.set_positions();
        Ok(layout)
    }

    fn add(&mut self, node: Option<usize>, row: usize, width: f64) -> usize {
        let index = self.places.len();
        self.places.push(Place { node, row, width, x: 0.0, above: Vec::new(), below: Vec::new() });
        self.rows[row].push(index);
        index
    }

    /// Orders each row by the mean position of what its places are joined with, downwards and upwards in turn, and keeps the best.
    fn reduce_crossings(&mut self) {
        let mut best = (self.crossings(), self.rows.clone());
        for sweep in 0..SWEEPS {
            if best.0 == 0 {
                break;
            }
            let downwards = sweep % 2 == 0;
            let depth = self.rows.len();
            let rows: Vec<usize> = if downwards { (1..depth).collect() } else { (0..depth - 1).rev().collect() };
            for row in rows {
                let next = if downwards { row - 1 } else { row + 1 };
                let position: HashMap<usize, usize> =
                    self.rows[next].iter().enumerate().map(|(position, place)| (*place, position)).collect();
                let mut keyed: Vec<(f64, usize)> = Vec::with_capacity(self.rows[row].len());
                for (here, place) in self.rows[row].iter().enumerate() {
                    let joined = if downwards { &self.places[*place].above } else { &self.places[*place].below };
                    let sum: usize = joined.iter().filter_map(|j| position.get(j)).sum();
                    // What is joined with nothing stays where it is.
                    let key = if joined.is_empty() { here as f64 } else { sum as f64 / joined.len() as f64 };
                    keyed.push((key, *place));
                }
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.rows[row] = keyed.into_iter().map(|(_, place)| place).collect();
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.rows.clone());
            }
        }
        self.rows = best.1;
    }

    /// How often arrows cross: inversions between the orders of two rows, counted with a Fenwick tree
    /// ([Barth et al. 2004](https://doi.org/10.7155/jgaa.00088)).
    fn crossings(&self) -> usize {
        let mut total = 0;
        for pair in self.rows.windows(2) {
            let position: HashMap<usize, usize> =
                pair[1].iter().enumerate().map(|(position, place)| (*place, position)).collect();
            let mut tree = vec![0usize; pair[1].len() + 1];
            let mut passed = 0;
            for place in &pair[0] {
                let mut ends: Vec<usize> =
                    self.places[*place].below.iter().filter_map(|b| position.get(b).copied()).collect();
                ends.sort_unstable();
                for end in &ends {
                    let (mut at, mut not_right) = (end + 1, 0);
                    while at > 0 {
                        not_right += tree[at];
                        at &= at - 1;
                    }
                    total += passed - not_right;
                }
                for end in ends {
                    let mut at = end + 1;
                    while at < tree.len() {
                        tree[at] += 1;
                        at += at & at.wrapping_neg();
                    }
                    passed += 1;
                }
            }
        }
        total
    }

    /// Moves each row so that places stand as near as the order allows to the mean of what they are joined with.
    fn set_positions(&mut self) {
        for row in &self.rows {
            let mut left = 0.0;
            for place in row {
                let place = &mut self.places[*place];
                place.x = left + place.width * 0.5;
                left += place.width + ASIDE;
            }
        }
        let depth = self.rows.len();
        for sweep in 0..SWEEPS {
            let downwards = sweep % 2 == 0;
            for i in 0..depth {
                let row = if downwards { i } else { depth - 1 - i };
                self.align(row);
            }
        }
        self.straighten();
        let left = self.places.iter().map(|p| p.x - p.width * 0.5).fold(f64::INFINITY, f64::min);
        for place in &mut self.places {
            place.x += EDGE - left;
        }
    }

    /// The least sum of squared distances to where places want to be, such that none overlaps: after subtracting what the widths need
    /// it is an isotonic regression, solved by pooling neighbours that are out of order.
    fn align(&mut self, row: usize) {
        struct Pool {
            wish: f64,
            weight: f64,
            count: usize,
        }
        let mut needed = Vec::with_capacity(self.rows[row].len());
        let mut pools: Vec<Pool> = Vec::new();
        let mut end = 0.0;
        for (i, index) in self.rows[row].iter().enumerate() {
            let place = &self.places[*index];
            end += if i == 0 { 0.0 } else { ASIDE + place.width * 0.5 };
            needed.push(end);
            let (mut sum, mut weight) = (0.0, 0.0);
            for other in place.above.iter().chain(&place.below) {
                let other = &self.places[*other];
                // Arrows that pass rows are kept straight first.
                let pull = match (place.node, other.node) {
                    (None, None) => 8.0,
                    (None, Some(_)) | (Some(_), None) => 2.0,
                    _ => 1.0,
                };
                sum += pull * other.x;
                weight += pull;
            }
            let wish = if weight > 0.0 { sum / weight } else { place.x };
            pools.push(Pool { wish: wish - end, weight: weight.max(1.0), count: 1 });
            end += place.width * 0.5;
            while let [.., before, last] = pools.as_mut_slice()
                && before.wish > last.wish
            {
                let weight = before.weight + last.weight;
                before.wish = (before.wish * before.weight + last.wish * last.weight) / weight;
                (before.weight, before.count) = (weight, before.count + last.count);
                pools.pop();
            }
        }
        let solved = pools.iter().flat_map(|pool| std::iter::repeat_n(pool.wish, pool.count));
        for ((index, position), needed) in self.rows[row].iter().zip(solved).zip(needed) {
            self.places[*index].x = position + needed;
        }
    }

    /// Makes the part of each arrow that passes rows one vertical line.
    ///
    /// Such a part, and each layer or chain of layers, is a block of one position. Their order within rows gives differences that must be kept. The
    /// least positions that keep them and are not left of where the blocks stand now, and the greatest that are not right of it, both
    /// keep them, and so does their mean; from there each block moves towards what it is joined with as far as its neighbours let it.
    fn straighten(&mut self) {
        let mut block_of: Vec<usize> = (0..self.places.len()).collect();
        for arrow in &self.arrows {
            for place in &arrow[1..arrow.len() - 1] {
                block_of[*place] = arrow[1];
            }
            // So is a chain of layers of which each has one reader and reads one. Arrows are in topological order: the block of the
            // first is known.
            if let [from, to] = arrow.as_slice()
                && self.places[*from].below.len() == 1
                && self.places[*to].above.len() == 1
            {
                block_of[*to] = block_of[*from];
            }
        }
        let (order, stuck) = self.block_order(&block_of);
        let order = match stuck.is_empty() {
            true => order,
            // Lines that cross one another while they pass rows cannot all be straight. Each of their places is a block of its own then.
            false => {
                for (place, block) in block_of.iter_mut().enumerate() {
                    if stuck[*block] {
                        *block = place;
                    }
                }
                self.block_order(&block_of).0
            }
        };
        let count = self.places.len();
        let (mut wish, mut members) = (vec![0.0; count], vec![0.0; count]);
        for (place, block) in block_of.iter().enumerate() {
            wish[*block] += self.places[place].x;
            members[*block] += 1.0;
        }
        for (wish, members) in wish.iter_mut().zip(&members).filter(|(_, members)| **members > 0.0) {
            *wish /= members;
        }
        // Neighbours of each block on its left and on its right, with the least distance.
        let (mut left_of, mut right_of) = (vec![Vec::new(); count], vec![Vec::new(); count]);
        for row in &self.rows {
            for pair in row.windows(2) {
                let distance = (self.places[pair[0]].width + self.places[pair[1]].width) * 0.5 + ASIDE;
                left_of[block_of[pair[1]]].push((block_of[pair[0]], distance));
                right_of[block_of[pair[0]]].push((block_of[pair[1]], distance));
            }
        }
        let at_least =
            |x: &[f64], block: usize| left_of[block].iter().map(|(b, d)| x[*b] + d).fold(f64::NEG_INFINITY, f64::max);
        let at_most =
            |x: &[f64], block: usize| right_of[block].iter().map(|(b, d)| x[*b] - d).fold(f64::INFINITY, f64::min);
        let (mut least, mut most) = (wish.clone(), wish);
        for block in &order {
            least[*block] = least[*block].max(at_least(&least, *block));
        }
        for block in order.iter().rev() {
            most[*block] = most[*block].min(at_most(&most, *block));
        }
        let mut x: Vec<f64> = least.iter().zip(&most).map(|(a, b)| (a + b) * 0.5).collect();

        let mut joined = vec![Vec::new(); count];
        for (place, block) in block_of.iter().enumerate() {
            let ends = self.places[place].above.iter().chain(&self.places[place].below).map(|other| block_of[*other]);
            joined[*block].extend(ends.filter(|other| other != block));
        }
        for sweep in 0..2 * SWEEPS {
            let mut step = |block: usize| {
                if !joined[block].is_empty() {
                    let mean = joined[block].iter().map(|other| x[*other]).sum::<f64>() / joined[block].len() as f64;
                    // Not `clamp`: rounding may leave the one a hair above the other.
                    x[block] = mean.max(at_least(&x, block)).min(at_most(&x, block));
                }
            };
            if sweep % 2 == 0 { order.iter().for_each(|b| step(*b)) } else { order.iter().rev().for_each(|b| step(*b)) }
        }
        for (place, block) in block_of.iter().enumerate() {
            self.places[place].x = x[*block];
        }
    }

    /// Blocks from left to right, such that in no row one comes before its left neighbour; and, where there is no such order, which
    /// blocks it would need to be otherwise for.
    fn block_order(&self, block_of: &[usize]) -> (Vec<usize>, Vec<bool>) {
        let mut after = vec![Vec::new(); block_of.len()];
        let mut waiting = vec![0usize; block_of.len()];
        for row in &self.rows {
            for pair in row.windows(2) {
                after[block_of[pair[0]]].push(block_of[pair[1]]);
                waiting[block_of[pair[1]]] += 1;
            }
        }
        let blocks = || (0..block_of.len()).filter(|block| block_of[*block] == *block);
        let mut order: Vec<_> = blocks().filter(|block| waiting[*block] == 0).collect();
        let mut done = 0;
        while let Some(block) = order.get(done).copied() {
            done += 1;
            for next in &after[block] {
                waiting[*next] -= 1;
                if waiting[*next] == 0 {
                    order.push(*next);
                }
            }
        }
        let stuck = if blocks().count() == order.len() { Vec::new() } else { waiting.iter().map(|n| *n > 0).collect() };
        (order, stuck)
    }

    fn draw(&self, nodes: &[DiagramNode], boxes: &[LayerBox]) -> String {
        let height_of = |row: &Vec<usize>| {
            row.iter().filter_map(|p| self.places[*p].node).map(|i| boxes[i].height).fold(0.0, f64::max)
        };
        let heights: Vec<f64> = self.rows.iter().map(height_of).collect();
        let mut tops = Vec::with_capacity(heights.len());
        let mut top = EDGE;
        for height in &heights {
            tops.push(top);
            top += height + BETWEEN;
        }
        let height = top - BETWEEN + EDGE;
        let width = self.places.iter().map(|p| p.x + p.width * 0.5).fold(0.0, f64::max) + EDGE;
        // Boxes of one row stand with their middles at one height.
        let span = |place: &Place| {
            let middle = tops[place.row] + heights[place.row] * 0.5;
            let half = place.node.map_or(heights[place.row], |i| boxes[i].height) * 0.5;
            (middle - half, middle + half)
        };

        let mut out = format!(
            "<svg width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.1} {height:.1}\" \
             xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\">\n<title>Model of {} layers</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            nodes.len()
        );
        // Writing to a String cannot fail.
        for path in &self.arrows {
            let _ = writeln!(out, "{}", self.arrow(path, &span));
        }
        for place in &self.places {
            if let Some(i) = place.node {
                draw_box(&mut out, &nodes[i], &boxes[i], place.x - boxes[i].width * 0.5, span(place).0);
            }
        }
        out + "</svg>\n"
    }

    /// Where on the edge of a box an arrow ends: side by side with the others, in their order.
    fn port(&self, at: usize, to: usize, below: bool) -> f64 {
        let place = &self.places[at];
        let joined = if below { &place.below } else { &place.above };
        if place.node.is_none() || joined.len() < 2 {
            return place.x;
        }
        let mut across: Vec<_> = joined.iter().map(|j| (self.places[*j].x, *j)).collect();
        across.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let index = across.iter().position(|(_, j)| *j == to).unwrap_or(0);
        let step = (place.width * 0.5 / (joined.len() - 1) as f64).min(18.0);
        place.x + (index as f64 - (joined.len() - 1) as f64 * 0.5) * step
    }

    fn arrow(&self, path: &[usize], span: &dyn Fn(&Place) -> (f64, f64)) -> String {
        let (first, last) = (path[0], path[path.len() - 1]);
        let mut y = span(&self.places[first]).1;
        let mut x = self.port(first, path[1], true);
        let mut line = format!("M{x:.1} {y:.1}");
        for pair in path.windows(2) {
            let place = &self.places[pair[1]];
            let (top, bottom) = span(place);
            let to = self.port(pair[1], pair[0], false);
            let end = if pair[1] == last { top - 7.0 } else { top };
            let middle = (y + end) * 0.5;
            let _ = write!(line, " C{x:.1} {middle:.1} {to:.1} {middle:.1} {to:.1} {end:.1}");
            if pair[1] != last {
                let _ = write!(line, " V{bottom:.1}");
            }
            (x, y) = (to, bottom);
        }
        let tip = span(&self.places[last]).0;
        format!(
            "<path d=\"{line}\" fill=\"none\" stroke=\"#56606c\" stroke-width=\"1.4\"/>\
             <path d=\"M{:.1} {:.1} L{x:.1} {tip:.1} L{:.1} {:.1} Z\" fill=\"#56606c\"/>",
            x - 4.5,
            tip - 9.0,
            x + 4.5,
            tip - 9.0
        )
    }
}

fn draw_box(out: &mut String, node: &DiagramNode, drawn: &LayerBox, left: f64, top: f64) {
    let (width, height) = (drawn.width, drawn.height);
    let full = escaped(&legible(&format!("{} ({})", node.name, node.class_name)));
    let _ = writeln!(out, "<g><title>{full}</title>");
    let rectangle = |top: f64, height: f64, look: &str| {
        format!("<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {look}/>")
    };
    let _ = writeln!(out, "{}", rectangle(top, height, "fill=\"#f8fafc\""));
    let _ = writeln!(out, "{}", rectangle(top, HEADER, "fill=\"#1f2937\""));
    let text = |x: f64, y: f64, size: f64, look: &str, text: &str| {
        let text = escaped(text);
        format!("<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"middle\" {look}>{text}</text>")
    };
    let middle = left + width * 0.5;
    let bold = "font-weight=\"bold\" fill=\"#ffffff\"";
    let _ = writeln!(out, "{}", text(middle, top + HEADER * 0.5 + NAME_SIZE * 0.35, NAME_SIZE, bold, &drawn.title));
    let divide = left + drawn.columns[0];
    let columns = [(left, divide, &drawn.inputs), (divide, left + width, &drawn.outputs)];
    for (from, to, texts) in columns {
        for (i, line) in texts.iter().enumerate() {
            let y = top + HEADER + 4.0 + (i as f64 + 0.5) * LINE + SHAPE_SIZE * 0.35;
            let look = if i == 0 { "fill=\"#56606c\"" } else { "fill=\"#1f2937\"" };
            let _ = writeln!(out, "{}", text((from + to) * 0.5, y, SHAPE_SIZE, look, line));
        }
    }
    let (begin, end) = (top + HEADER, top + height);
    let _ = writeln!(out, "<path d=\"M{divide:.1} {begin:.1} V{end:.1}\" stroke=\"#cbd5e1\" stroke-width=\"1\"/>");
    let _ = writeln!(out, "{}</g>", rectangle(top, height, "fill=\"none\" stroke=\"#1f2937\" stroke-width=\"1.2\""));
}
