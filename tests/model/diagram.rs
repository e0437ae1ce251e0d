//! Diagrams of models: what they hold, where it stands, and what is refused.

use fused_rnn::Error;
use fused_rnn::model::diagram::{DiagramNode, diagram};
use proptest::prelude::*;
use roxmltree::{Document, Node};

fn node(name: &str, inputs: &[usize]) -> DiagramNode {
    let shapes = |count: usize| vec![vec![None, Some(10), Some(3)]; count];
    DiagramNode {
        name: name.to_owned(),
        class_name: "Dense".to_owned(),
        input_shapes: shapes(inputs.len().max(1)),
        output_shapes: shapes(1),
        inputs: inputs.to_vec(),
    }
}

fn number(node: Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).unwrap().parse().unwrap()
}

/// Left, top, right and bottom of the boxes, in the order of their names, with the names.
fn boxes(svg: &str) -> Vec<(String, [f64; 4])> {
    let document = Document::parse(svg).unwrap_or_else(|e| panic!("{e}\n{svg}"));
    let groups = document.descendants().filter(|n| n.tag_name().name() == "g");
    let mut boxes: Vec<_> = groups
        .map(|group| {
            let child = |name: &str| group.children().find(|n| n.tag_name().name() == name).unwrap();
            let outer = child("rect");
            let (x, y) = (number(outer, "x"), number(outer, "y"));
            let corners = [x, y, x + number(outer, "width"), y + number(outer, "height")];
            (child("title").text().unwrap().to_owned(), corners)
        })
        .collect();
    boxes.sort_by(|a, b| a.0.cmp(&b.0));
    boxes
}

fn texts(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|n| n.tag_name().name() == "text");
    texts.filter_map(|n| n.text()).map(str::to_owned).collect()
}

/// No two boxes overlap, all stand within the picture, and what is read stands above what reads it.
fn assert_laid_out(nodes: &[DiagramNode], svg: &str) {
    let boxes = boxes(svg);
    assert_eq!(boxes.len(), nodes.len());
    let document = Document::parse(svg).unwrap();
    let (width, height) = (number(document.root_element(), "width"), number(document.root_element(), "height"));
    for (i, (name, [left, top, right, bottom])) in boxes.iter().enumerate() {
        // Sizes are rounded to whole pixels, corners to tenths.
        assert!(*left >= 0.0 && *top >= 0.0 && *right <= width + 0.6 && *bottom <= height + 0.6, "{name}");
        for (other, [l, t, r, b]) in &boxes[..i] {
            assert!(right < l || r < left || bottom < t || b < top, "{name} overlaps {other}");
        }
    }
    let find = |node: &DiagramNode| {
        let title = format!("{} ({})", node.name, node.class_name);
        boxes.iter().find(|(name, _)| *name == title).unwrap().1
    };
    for node in nodes {
        for input in &node.inputs {
            assert!(find(&nodes[*input])[3] < find(node)[1], "{} reads {}", node.name, nodes[*input].name);
        }
    }
}

#[test]
fn a_box_says_what_the_layer_is() {
    let mut nodes = [node("input", &[]), node("lstm_1", &[0]), node("dense", &[1])];
    nodes[1].class_name = "LSTM".to_owned();
    nodes[1].output_shapes = vec![vec![None, Some(50)], vec![None]];
    let svg = diagram(&nodes).unwrap();
    let texts = texts(&svg);
    for text in ["lstm_1 (LSTM)", "dense (Dense)", "(None, 10, 3)", "(None, 50)", "(None,)", "input", "output"] {
        assert!(texts.iter().any(|t| t == text), "{text} in {texts:?}");
    }
    assert_laid_out(&nodes, &svg);
    // A chain is a straight line.
    let middles: Vec<_> = boxes(&svg).iter().map(|(_, [left, _, right, _])| (left + right) / 2.0).collect();
    assert!(middles.iter().all(|m| (m - middles[0]).abs() < 0.2), "{middles:?}");
}

#[test]
fn two_branches_stand_beside_one_another_and_do_not_cross() {
    // In an order in which drawing them as they come would cross.
    let nodes = [node("a", &[]), node("b", &[]), node("c", &[1]), node("d", &[0]), node("e", &[2, 3])];
    let svg = diagram(&nodes).unwrap();
    assert_laid_out(&nodes, &svg);
    let left: Vec<f64> = boxes(&svg).iter().map(|(_, corners)| corners[0]).collect();
    assert_eq!(left[0] < left[1], left[3] < left[2], "{left:?}");
}

#[test]
fn an_input_that_is_needed_late_stands_near() {
    let nodes = [node("early", &[]), node("late", &[]), node("b", &[0]), node("c", &[2]), node("d", &[3, 1])];
    let svg = diagram(&nodes).unwrap();
    assert_laid_out(&nodes, &svg);
    let boxes = boxes(&svg);
    let top = |name: &str| boxes.iter().find(|b| b.0.starts_with(name)).unwrap().1[1];
    assert_eq!(top("late"), top("c"));
}

#[test]
fn a_layer_that_is_read_twice_by_one_has_one_arrow() {
    let arrows = |nodes: &[DiagramNode]| diagram(nodes).unwrap().matches("Z\"").count();
    assert_eq!(arrows(&[node("a", &[]), node("b", &[0, 0])]), 1);
    assert_eq!(arrows(&[node("a", &[]), node("b", &[0]), node("c", &[0, 1, 0])]), 3);
}

#[test]
fn hostile_names_are_text() {
    let long = "x".repeat(500);
    for name in ["<script>&'\"", "nul \0", "\u{fffe}", "層 слой 🦀", "", "]]>", "a\nb", long.as_str()] {
        let mut nodes = [node(name, &[]), node("other", &[0])];
        nodes[0].class_name = name.to_owned();
        nodes[0].output_shapes = vec![vec![Some(usize::MAX); 40]; 40];
        nodes[1].input_shapes.clear();
        nodes[1].output_shapes = vec![vec![]];
        let svg = diagram(&nodes).unwrap();
        let shown: String = name.chars().map(|c| if c == '\n' { ' ' } else { c }).collect();
        let shown = shown.replace(['\0', '\u{fffe}'], "\u{fffd}");
        let titles: Vec<_> = boxes(&svg).into_iter().map(|b| b.0).collect();
        assert!(titles.contains(&format!("{shown} ({shown})")), "{name:?}: {titles:?}");
        let document = Document::parse(&svg).unwrap();
        assert!(number(document.root_element(), "width") < 1000.0, "{name:?}");
    }
}

#[test]
fn what_is_no_model_is_refused() {
    assert!(matches!(diagram(&[]).unwrap_err(), Error::ZeroSize { .. }));
    let error = diagram(&[node("a", &[]), node("b", &[2])]).unwrap_err();
    assert!(matches!(&error, Error::InvalidOption { got, .. } if got == "2"), "{error}");
    assert!(error.to_string().contains("\"b\""), "{error}");
    let itself = diagram(&[node("a", &[0])]).unwrap_err();
    assert!(itself.to_string().contains("\"a\" reads \"a\""), "{itself}");
    let nodes = [node("in", &[]), node("p", &[0, 3]), node("q", &[1]), node("r", &[2]), node("out", &[3])];
    let circle = diagram(&nodes).unwrap_err();
    assert!(matches!(&circle, Error::InvalidOption { option, .. } if option == "nodes"), "{circle}");
    let text = circle.to_string();
    assert!(
        ["\"p\" reads \"r\"", "\"q\" reads \"p\"", "\"r\" reads \"q\""].iter().filter(|t| text.contains(**t)).count()
            >= 2,
        "{text}"
    );
    assert!(!text.contains("\"in\"") && !text.contains("\"out\""), "{text}");
    // Every layer reads all before it: more places than can be drawn.
    let dense: Vec<_> = (0..400).map(|i| node(&format!("n{i}"), &(0..i).collect::<Vec<_>>())).collect();
    assert!(matches!(diagram(&dense).unwrap_err(), Error::Unsupported { .. }));
}

#[test]
fn a_deep_model_is_no_trouble() {
    let nodes: Vec<_> =
        (0..1000usize).map(|i| node(&format!("n{i}"), &i.checked_sub(1).into_iter().collect::<Vec<_>>())).collect();
    assert_eq!(boxes(&diagram(&nodes).unwrap()).len(), 1000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_model_is_laid_out(links in proptest::collection::vec(proptest::collection::vec(any::<proptest::sample::Index>(), 0..4), 1..40)) {
        let inputs = |i: usize, links: &[proptest::sample::Index]| -> Vec<usize> {
            if i == 0 { Vec::new() } else { links.iter().map(|link| link.index(i)).collect() }
        };
        let nodes: Vec<_> = links.iter().enumerate().map(|(i, l)| node(&format!("layer_{i:02}"), &inputs(i, l))).collect();
        assert_laid_out(&nodes, &diagram(&nodes).unwrap());
    }
}
