//! Pictures: what they hold, that they are well-formed whatever their labels are, and what is refused.

use fused_rnn::Error;
use fused_rnn::plot::{CellText, Colour, Curve, HeatMap, LinePlot, Panels, attention_map, confusion_matrix, history};
use ndarray::{Array2, array};
use roxmltree::Document;

/// Markup, quotes, control characters, what XML does not allow, other scripts, and a text that is far too long.
const HOSTILE: [&str; 9] = [
    "<script>alert(1)</script>",
    "a & b &amp; c",
    "\"double\" and 'single'",
    "nul \0 bell \u{7} escape \u{1b} end",
    "line\nbreak\ttab",
    "\u{fffe}\u{ffff}",
    "損失 потеря خسارة 🦀",
    "]]> <!-- -->",
    "long long long long long long long long long long long long long long long long long long long long long long",
];

/// What a text is in a picture that had room for it.
fn shown(text: &str) -> String {
    let shown = text.chars().map(|c| match c {
        '\n' | '\t' => ' ',
        c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => '\u{fffd}',
        c => c,
    });
    shown.collect()
}

/// Texts of a picture, after it was parsed.
fn texts(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap_or_else(|e| panic!("{e}\n{svg}"));
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "svg");
    assert_eq!(root.tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
    let nodes = document.descendants().filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "text")));
    nodes.filter_map(|n| n.text()).map(|t| t.trim_matches('\n').to_owned()).collect()
}

fn has(texts: &[String], wanted: &str) -> bool {
    texts.iter().any(|t| t.trim() == wanted.trim())
}

/// Everything that is drawn stands within the picture.
fn assert_inside(svg: &str) {
    let document = Document::parse(svg).unwrap();
    let size: Vec<f64> =
        document.root_element().attribute("viewBox").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    for node in document.descendants() {
        for (name, limit) in [("x", size[2]), ("y", size[3]), ("cx", size[2]), ("cy", size[3])] {
            if let Some(value) = node.attribute(name) {
                let value: f64 = value.parse().unwrap();
                assert!((0.0..=limit).contains(&value), "{name} {value} of {:?}", node.tag_name());
            }
        }
        for point in node.attribute("points").unwrap_or_default().split_whitespace() {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((0.0..=size[2]).contains(&x) && (0.0..=size[3]).contains(&y), "{point}");
        }
    }
}

fn polylines(svg: &str, colour: &str) -> usize {
    let document = Document::parse(svg).unwrap();
    document.descendants().filter(|n| n.attribute("stroke") == Some(colour)).count()
}

fn ramp(name: &str) -> Curve {
    Curve::new(name, (1..=20).map(|i| (f64::from(i), f64::from(i * i))))
}

#[test]
fn a_line_plot_says_what_it_shows() {
    let plot = LinePlot::new("Title").subtitle("and more").x_label("time [s]").y_label("speed [m/s]");
    let svg = plot.curve(ramp("fast")).mark(7.0, "here").size(640, 360).svg().unwrap();
    let texts = texts(&svg);
    for text in ["Title", "and more", "time [s]", "speed [m/s]", "fast", "here", "10", "400"] {
        assert!(has(&texts, text), "{text} in {texts:?}");
    }
    assert!(svg.starts_with("<svg width=\"640\" height=\"360\""), "{}", &svg[..80]);
    assert_inside(&svg);
}

#[test]
fn a_curve_is_broken_where_a_number_is_not_finite() {
    let green = Colour::new(1, 2, 3);
    let draw = |gaps: &[(usize, f64)]| {
        let mut values: Vec<f64> = (0..30).map(f64::from).collect();
        for (place, value) in gaps {
            values[*place] = *value;
        }
        LinePlot::new("").curve(Curve::of_values("", &values).colour(green)).svg().unwrap()
    };
    assert_eq!(polylines(&draw(&[]), "#010203"), 1);
    assert_eq!(polylines(&draw(&[(10, f64::NAN)]), "#010203"), 2);
    assert_eq!(polylines(&draw(&[(0, f64::NAN), (10, f64::INFINITY), (20, f64::NEG_INFINITY)]), "#010203"), 3);
    // What is left between two gaps is a dot.
    let svg = draw(&[(10, f64::NAN), (12, f64::NAN)]);
    assert_eq!((polylines(&svg, "#010203"), svg.matches("<circle").count()), (2, 1));
    assert_inside(&svg);
}

#[test]
fn a_logarithmic_axis_counts_in_powers_of_ten() {
    let curve = || Curve::new("", (0..=6).map(|i| (f64::from(i), 10f64.powi(-i))));
    let texts = texts(&LinePlot::new("").log_y(true).curve(curve()).svg().unwrap());
    for text in ["1", "0.1", "0.01", "0.001", "1e-4", "1e-5", "1e-6"] {
        assert!(has(&texts, text), "{text} in {texts:?}");
    }
    for bad in [0.0, -1.0] {
        let error = LinePlot::new("").log_y(true).curve(Curve::of_values("loss", &[1.0, bad])).svg().unwrap_err();
        assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "log_y"), "{error}");
        assert!(error.to_string().contains("\"loss\""), "{error}");
    }
}

#[test]
fn both_axes_count_in_powers_of_ten() {
    let curve = |from: f64| Curve::new("time", [(from, 1.0), (1.0, 1e3), (1e4, 1e6)]);
    let plot = |from| LinePlot::new("").log_x(true).log_y(true).curve(curve(from));
    let texts = texts(&plot(0.01).svg().unwrap());
    for text in ["0.01", "0.1", "100", "10000", "100000", "1e6"] {
        assert!(has(&texts, text), "{text} in {texts:?}");
    }
    for bad in [0.0, -1.0] {
        let error = plot(bad).svg().unwrap_err();
        assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "log_x"), "{error}");
        assert!(error.to_string().contains("\"time\""), "{error}");
    }
    assert!(plot(0.01).mark(0.0, "nothing").svg().is_err_and(|error| error.to_string().contains("\"nothing\"")));
}

#[test]
fn hostile_labels_are_text() {
    for text in HOSTILE {
        let plot = LinePlot::new(text).subtitle(text).x_label(text).y_label(text).curve(ramp(text)).mark(3.0, text);
        let line = plot.svg().unwrap();
        let labels = [text, "other"];
        let matrix = array![[1.0, 2.0], [3.0, 4.0]];
        let heat = HeatMap::new(text, matrix.view()).row_labels(labels).column_labels(labels).subtitle(text);
        let heat = heat.x_label(text).y_label(text).value_label(text).svg().unwrap();
        let confusion = confusion_matrix(text, labels, array![[1, 2], [3, 4]].view()).unwrap().svg().unwrap();
        let history = history(&[(text, &[1.0, 2.0])], None).unwrap().svg().unwrap();
        for svg in [line, heat, confusion, history] {
            let texts = texts(&svg);
            let is_cut = |t: &String| t.ends_with('…') && text.starts_with(t.trim_end_matches('…'));
            assert!(has(&texts, &shown(text)) || texts.iter().any(is_cut), "{text:?} in {texts:?}");
            assert_inside(&svg);
        }
    }
}

#[test]
fn hostile_numbers_are_drawn_or_refused_but_never_hang() {
    let numbers =
        [0.0, -0.0, 5e-324, 1e-310, 1e-290, 1e-9, 1.0, 1.0 + f64::EPSILON, 1e15, 1e16, 1e300, -1e300, f64::MAX];
    for a in numbers {
        for b in numbers {
            let may_fail = a.abs() > 1e300 || b.abs() > 1e300;
            let plot = LinePlot::new("").curve(Curve::new("", [(a, b), (b, a)]));
            let matrix = array![[a, b]];
            let is_positive = a > 0.0 && b > 0.0;
            let both = plot.clone().log_x(is_positive).log_y(is_positive);
            for drawn in [plot.svg(), plot.log_y(is_positive).svg(), both.svg(), HeatMap::new("", matrix.view()).svg()]
            {
                match drawn {
                    Ok(svg) => assert_inside(&svg),
                    Err(error) => assert!(may_fail && matches!(error, Error::InvalidOption { .. }), "{a} {b}: {error}"),
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let refused = |plot: LinePlot| plot.svg().unwrap_err();
    assert!(matches!(refused(LinePlot::new("")), Error::ZeroSize { .. }));
    assert!(matches!(refused(LinePlot::new("").curve(Curve::of_values("", &[]))), Error::ZeroSize { .. }));
    let error = refused(LinePlot::new("").curve(Curve::of_values("loss", &[f64::NAN, f64::INFINITY])));
    assert!(matches!(&error, Error::NonFinite { got, .. } if got.is_nan()), "{error}");
    assert!(error.to_string().contains("loss"), "{error}");
    let error = refused(LinePlot::new("").curve(ramp("")).mark(f64::NAN, "word"));
    assert!(matches!(&error, Error::NonFinite { tensor, .. } if tensor.contains("word")), "{error}");
    for width in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(refused(LinePlot::new("").curve(ramp("").width(width))), Error::InvalidOption { .. }));
    }
    for (width, height) in [(0, 0), (u32::MAX, 300), (300, u32::MAX), (159, 300)] {
        let error = refused(LinePlot::new("").curve(ramp("")).size(width, height));
        assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
    }
    assert!(matches!(Panels::new("").svg().unwrap_err(), Error::ZeroSize { .. }));
    let empty = Panels::new("").panel(LinePlot::new(""));
    assert!(matches!(empty.svg().unwrap_err(), Error::ZeroSize { .. }));
}

#[test]
fn the_least_size_has_room_for_everything() {
    let line = LinePlot::new("T").x_label("x").y_label("y").curve(ramp("a")).curve(ramp("b")).mark(2.0, "m");
    let matrix = Array2::from_shape_fn((30, 30), |(i, j)| (i * j) as f64);
    let heat = HeatMap::new("T", matrix.view()).x_label("x").y_label("y").value_label("v");
    for svg in [line.clone().size(160, 160).svg(), heat.clone().size(160, 160).svg()] {
        assert_inside(&svg.unwrap());
    }
    let panels = (0..7).fold(Panels::new("T"), |panels, _| panels.panel(line.clone()).panel(heat.clone()));
    assert_inside(&panels.svg().unwrap());
    assert_inside(&panels.size(160, 160).svg().unwrap());
}

#[test]
fn a_legend_of_many_curves_says_how_many_more_there_are() {
    let plot = (0..50).fold(LinePlot::new("many"), |plot, i| plot.curve(ramp(&format!("curve {i}"))));
    let texts = texts(&plot.svg().unwrap());
    let named = texts.iter().filter(|t| t.starts_with("curve ")).count();
    assert!(named >= 4 && has(&texts, &format!("and {} more", 50 - named)), "{texts:?}");
}

#[test]
fn a_long_curve_is_a_short_file() {
    let plot = LinePlot::new("long").curve(Curve::new("", (0..1_000_000).map(|i| (f64::from(i), f64::from(i % 97)))));
    assert!(plot.svg().unwrap().len() < 500_000);
}

#[test]
fn a_history_has_a_panel_for_each_quantity() {
    let (loss, accuracy) = ([0.9, 0.5, 0.4], [0.3, 0.6, 0.7]);
    let quantities: [(&str, &[f64]); 4] =
        [("loss", &loss), ("accuracy", &accuracy), ("val_loss", &[1.0, f64::NAN, 0.6]), ("val_accuracy", &[])];
    let texts = texts(&history(&quantities, Some(3)).unwrap().svg().unwrap());
    for text in ["loss", "val_loss", "accuracy", "epoch", "best epoch: 3"] {
        assert!(has(&texts, text), "{text} in {texts:?}");
    }
    assert!(!has(&texts, "val_accuracy"), "{texts:?}");

    let error = history(&[("loss", &loss), ("val_loss", &[1.0])], None).unwrap_err();
    assert!(matches!(&error, Error::Shape { tensor, .. } if tensor == "val_loss"), "{error}");
    for best in [0, 4] {
        let error = history(&[("loss", &loss)], Some(best)).unwrap_err();
        assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "best_epoch"), "{error}");
    }
    assert!(matches!(history(&[], None).unwrap_err(), Error::ZeroSize { .. }));
    assert!(matches!(history(&[("loss", &[])], None).unwrap_err(), Error::ZeroSize { .. }));
    let error = history(&[("loss", &[f64::NAN])], None).unwrap().svg().unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    assert_inside(&history(&[("loss", &[0.5])], Some(1)).unwrap().svg().unwrap());
}

#[test]
fn a_heat_map_shows_its_numbers_where_they_fit() {
    let matrix = array![[0.5, -1.25], [f64::NAN, 1e-7]];
    let map = HeatMap::new("", matrix.view()).row_labels(["r0", "r1"]).column_labels(["c0", "c1"]);
    let shown = texts(&map.svg().unwrap());
    for text in ["r0", "r1", "c0", "c1", "0.5", "-1.25", "–", "1e-7"] {
        assert!(has(&shown, text), "{text} in {shown:?}");
    }
    assert!(!has(&texts(&map.clone().cell_text(CellText::Never).svg().unwrap()), "-1.25"));
    let large = Array2::from_elem((100, 100), 0.12875);
    assert!(!has(&texts(&HeatMap::new("", large.view()).svg().unwrap()), "0.129"));

    let refused = |map: HeatMap| map.svg().unwrap_err();
    assert!(matches!(refused(map.clone().row_labels(["one"])), Error::Shape { .. }));
    assert!(matches!(refused(map.clone().column_labels(["1", "2", "3"])), Error::Shape { .. }));
    assert!(matches!(refused(map.clone().range(1.0, 1.0)), Error::InvalidOption { .. }));
    assert!(matches!(refused(map.range(f64::NAN, 1.0)), Error::InvalidOption { .. }));
    for shape in [(0, 3), (3, 0)] {
        let empty = Array2::zeros(shape);
        assert!(matches!(refused(HeatMap::new("", empty.view())), Error::ZeroSize { .. }));
    }
    let missing = Array2::from_elem((2, 2), f64::NAN);
    assert!(matches!(refused(HeatMap::new("", missing.view())), Error::NonFinite { .. }));
    let huge = Array2::zeros((1, 1001));
    assert!(matches!(refused(HeatMap::new("", huge.view())), Error::InvalidOption { .. }));
}

#[test]
fn a_confusion_matrix_has_counts_and_shares_of_rows() {
    let counts = array![[6, 2, 0], [0, 0, 0], [1, 0, 99_999]];
    let shown = texts(&confusion_matrix("Test", ["a", "b", "c"], counts.view()).unwrap().svg().unwrap());
    for text in ["6", "75 %", "25 %", "99999", ">99.9 %", "<0.1 %", "–"] {
        assert!(has(&shown, text), "{text} in {shown:?}");
    }
    assert!(has(&shown, "100005 of 100008 right (>99.9 %); grey: no samples of the class"), "{shown:?}");
    let all = texts(&confusion_matrix("Test", ["a", "b"], array![[1, 0], [0, 1]].view()).unwrap().svg().unwrap());
    assert!(has(&all, "2 of 2 right (100 %)"), "{all:?}");
    let not_square = confusion_matrix("", ["a", "b"], array![[1, 2]].view()).unwrap_err();
    assert!(matches!(not_square, Error::Shape { .. }), "{not_square}");
    let nothing = confusion_matrix("", ["a", "b"], array![[0, 0], [0, 0]].view()).unwrap_err();
    assert!(matches!(nothing, Error::ZeroSize { .. }), "{nothing}");
    let labels = confusion_matrix("", ["a"], array![[1, 0], [0, 1]].view()).unwrap().svg().unwrap_err();
    assert!(matches!(labels, Error::Shape { .. }), "{labels}");
    let most = array![[u64::MAX, u64::MAX], [0, u64::MAX]];
    texts(&confusion_matrix("", ["a", "b"], most.view()).unwrap().svg().unwrap());
}

#[test]
fn an_attention_map_has_the_names_of_steps() {
    let weights = array![[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]];
    let map = attention_map("", ["le", "chat"], ["the", "black", "cat"], weights.view()).unwrap();
    let shown = texts(&map.svg().unwrap());
    for text in ["le", "chat", "the", "black", "cat", "0.9", "0.5"] {
        assert!(has(&shown, text), "{text} in {shown:?}");
    }
    let error = attention_map("", ["q"], ["k"], array![[-0.5]].view()).unwrap_err();
    assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "weights[0, 0]"), "{error}");
    texts(&attention_map("", ["q"], ["k"], array![[0.0]].view()).unwrap().svg().unwrap());
}

/// Where the labels of fifty steps would collide, round numbers are shown, and every so many names.
#[test]
fn labels_of_a_map_do_not_collide() {
    let weights = Array2::from_elem((50, 50), 0.02);
    let numbers = || (1..=50).map(|i| i.to_string());
    let shown = texts(&attention_map("", numbers(), numbers(), weights.view()).unwrap().svg().unwrap());
    let numbers: Vec<u32> = shown.iter().filter_map(|text| text.parse().ok()).filter(|number| *number > 0).collect();
    assert!(numbers.iter().all(|number| number % 2 == 0 || number % 5 == 0), "{shown:?}");
    assert!((20..=52).contains(&numbers.len()), "{shown:?}");
    let names = || (0..50).map(|i| format!("word{i}"));
    let map = attention_map("", names(), names(), weights.view()).unwrap();
    for size in [(800, 450), (300, 300), (2000, 2000)] {
        let svg = map.clone().size(size.0, size.1).svg().unwrap();
        assert_inside(&svg);
        let shown = texts(&svg).iter().filter(|text| text.starts_with("word")).count();
        assert!(shown <= (size.0 + size.1) as usize / 14, "{shown} names at {size:?}");
    }
    let one = attention_map("", ["last"], names(), weights.slice(ndarray::s![..1, ..])).unwrap();
    assert_inside(&one.svg().unwrap());
}

/// A mark at the first place stands beside the axis, not on it.
#[test]
fn a_best_epoch_of_one_can_be_seen() {
    let loss = [0.5, 0.6, 0.7];
    let with = history(&[("loss", &loss)], Some(1)).unwrap().svg().unwrap();
    let without = history(&[("loss", &loss)], None).unwrap().svg().unwrap();
    let first = |svg: &str| {
        let line =
            svg.split("<polyline").find(|part| part.contains("#0072B2") && part.matches(',').count() > 2).unwrap();
        let points = line.split("points=\"").nth(1).unwrap();
        points.split(',').next().unwrap().parse::<i32>().unwrap()
    };
    // In quarters of a pixel.
    assert!(first(&with) - first(&without) > 20, "{} {}", first(&with), first(&without));
}

#[test]
fn a_picture_is_saved_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plot.svg");
    let plot = LinePlot::new("saved").curve(ramp("a"));
    plot.save(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), plot.svg().unwrap());
    assert!(LinePlot::new("").save(&path).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), plot.svg().unwrap());
    assert!(matches!(plot.save(folder.path()).unwrap_err(), Error::Io { .. }));
}

/// Labels of dates are long, and the last one stands near the edge; a caption that is too long for a line has two.
#[test]
fn what_is_long_is_not_cut() {
    let year = 1.0 / 12.0;
    let curve = || Curve::new("sales", (0..=18).map(|month| (2019.0 + f64::from(month) * year, f64::from(month))));
    let caption = "LSTM(50), one step ahead, on the part held back: RMSE 123456.7890 (naive (last value) 123456.7890)";
    let caption = format!("{caption}; shaded: 80 % and 95 %; grey: no samples of the class");
    let plot = LinePlot::new("sales").x_dates(true).curve(curve()).subtitle(&caption);
    for width in (400..1000).step_by(37) {
        let svg = plot.clone().size(width, 400).svg().unwrap();
        assert_inside(&svg);
        let document = Document::parse(&svg).unwrap();
        let labels = document.descendants().filter(|n| {
            n.has_tag_name(("http://www.w3.org/2000/svg", "text"))
                && n.text().is_some_and(|t| t.trim().starts_with("20"))
        });
        let mut end = 0.0;
        for label in labels {
            // A digit of DejaVu Sans is 0.64 of the size wide; coordinates are four times as fine as pixels.
            let half = label.text().unwrap().trim().len() as f64 * 0.6 * 11.5 * 0.5;
            let middle: f64 = label.attribute("x").unwrap().parse::<f64>().unwrap() / 4.0;
            assert!(middle + half <= f64::from(width) && middle - half >= end, "{width}: {middle} {half} {end}");
            end = middle + half;
        }
        assert!(end > 0.0);
    }
    let texts = texts(&plot.svg().unwrap());
    assert!(!texts.iter().any(|text| text.contains('…')), "{texts:?}");
    let lines: Vec<&str> = texts.iter().map(|text| text.trim()).filter(|text| caption.contains(text)).collect();
    assert!(lines.iter().any(|line| line.starts_with("LSTM")), "{texts:?}");
    assert!(lines.iter().any(|line| line.ends_with("of the class")), "{texts:?}");
}

/// An interval of one step is seen, and a single date stands in its year.
#[test]
fn a_single_step_has_its_interval_and_its_year() {
    let date = 2020.0 + 2.0 / 365.0;
    let plot = || LinePlot::new("").x_dates(true).curve(Curve::new("truth", [(date, 5.0)]));
    let svg = plot().svg().unwrap();
    assert!(has(&texts(&svg), "2020-01") && !has(&texts(&svg), "2200"), "{:?}", texts(&svg));
    let shaded = |svg: &str| svg.matches("opacity=\"0.2\"").count();
    assert_eq!(shaded(&svg), 0);
    let svg = plot().band([(date, 4.0, 6.0)], Colour::GREEN).band([(date, 3.0, 7.0)], Colour::GREEN).svg().unwrap();
    assert_eq!(shaded(&svg), 2);
    assert!(has(&texts(&svg), "7"), "{:?}", texts(&svg));
    assert_inside(&svg);
    // One of no width, and one that is not finite, are nothing to be seen.
    let svg = plot().band([(date, f64::NAN, 6.0)], Colour::GREEN).svg().unwrap();
    assert_eq!(shaded(&svg), 0);
}
