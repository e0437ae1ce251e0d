//! Records as pictures: times along whatever was swept, the roofline, ratios over peers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fused_rnn::plot::{Colour, Curve, LinePlot};
use fused_rnn::{Error, Result};

use super::point::Point;
use super::record::{Ours, Record};

/// Fit for a column of a paper, and wide enough for what the line below the title names.
const SIZE: (u32, u32) = (700, 420);
/// What our own curves are called.
const OURS: &str = "fused-rnn";

/// An axis along which times are drawn: the column, its label, and its place in a point.
type SweptAxis = (&'static str, &'static str, fn(&mut Point) -> &mut usize);

const AXES: [SweptAxis; 5] = [
    ("seq-len", "sequence length T", |point| &mut point.shape.seq_len),
    ("batch", "batch B", |point| &mut point.shape.batch),
    ("hidden-size", "hidden size H", |point| &mut point.sizes.hidden_size),
    ("input-size", "input size I", |point| &mut point.sizes.input_size),
    ("threads", "threads", |point| &mut point.threads),
];

/// Draws all into a folder, which is made where it is not there; the files written.
///
/// # Errors
///
/// [`Error::Io`].
pub fn save(folder: &Path, records: &[Record], machine: &str) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        action: "create",
        path: folder.to_owned(),
        source,
    })?;
    // Without the versions, for which a line below a title has no room.
    let machine = machine.split(';').next().unwrap_or(machine);
    let mut pictures = Vec::new();
    for axis in &AXES {
        pictures.extend(along(axis, records, machine));
    }
    pictures.extend(rooflines(records, machine));
    pictures.extend(ratios(records, machine));
    let (mut written, mut names) = (Vec::new(), BTreeMap::<String, usize>::new());
    for (name, picture) in pictures {
        // What differs in nothing that a name says, such as two lists of lengths, is numbered.
        let number = names.entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
        let path = folder.join(if *number == 1 { format!("{name}.svg") } else { format!("{name}-{number}.svg") });
        picture.save(&path)?;
        written.push(path);
    }
    Ok(written)
}

/// A word fit for a file's name.
fn slug(text: &str) -> String {
    let plain: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

fn measured(records: &[Record]) -> impl Iterator<Item = (&Record, &Ours)> {
    records.iter().filter_map(|record| Some((record, record.ours.as_ref().ok()?)))
}

/// Microseconds of a step for every provider of a record.
fn steps<'a>(record: &'a Record, ours: &'a Ours) -> impl Iterator<Item = (&'static str, f64)> + 'a {
    let peers = record.theirs.iter().filter_map(move |theirs| Some((theirs.peer, theirs.timed(ours)?.0.median())));
    [(OURS, ours.times.median())].into_iter().chain(peers).map(|(name, us)| (name, record.per_step(us)))
}

/// Places of a picture by provider.
type Curves<'a> = BTreeMap<&'a str, Vec<(f64, f64)>>;
/// One of several points that are the same but for the axis: its value there, and what was found.
type Measured<'a> = (usize, &'a Record, &'a Ours);

/// A picture for all points that differ along this axis alone.
fn along(axis: &SweptAxis, records: &[Record], machine: &str) -> Vec<(String, LinePlot)> {
    let (column, label, place) = axis;
    let mut groups: Vec<(Point, Vec<Measured>)> = Vec::new();
    for (record, ours) in measured(records) {
        let mut rest = record.point.clone();
        let value = std::mem::take(place(&mut rest));
        match groups.iter_mut().find(|(point, _)| *point == rest) {
            Some((_, found)) => found.push((value, record, ours)),
            None => groups.push((rest, vec![(value, record, ours)])),
        }
    }
    let mut pictures = Vec::new();
    for (rest, mut found) in groups {
        found.sort_by_key(|(value, _, _)| *value);
        found.dedup_by_key(|(value, _, _)| *value);
        if found.len() < 2 {
            continue;
        }
        let mut curves = Curves::new();
        for (value, record, ours) in &found {
            for (provider, us) in steps(record, ours) {
                curves.entry(provider).or_default().push((*value as f64, us));
            }
        }
        let fixed = fixed(&rest, column);
        let title = format!("Time a step by {label}");
        let mut plot = LinePlot::new(title)
            .subtitle(format!("{fixed}; {machine}"))
            .x_label(*label)
            .y_label("time a step [µs]")
            .log_x(true)
            .log_y(true)
            .size(SIZE.0, SIZE.1);
        for (provider, points) in providers(curves) {
            // Points of so few are seen better with a dot each.
            plot = plot.curve(Curve::new(provider, points.clone()).colour(colour(provider)));
            plot = plot.curve(Curve::new("", points).colour(colour(provider)).dots());
        }
        pictures.push((format!("us-per-step-by-{column}-{}", slug(&fixed)), plot));
    }
    pictures
}

/// What a picture holds fixed, without the column that is swept.
fn fixed(rest: &Point, column: &str) -> String {
    let mut parts = vec![rest.sizes.cell.to_string().to_uppercase(), rest.pass_name().to_owned()];
    let sizes = [
        ("seq-len", "T", rest.shape.seq_len),
        ("batch", "B", rest.shape.batch),
        ("input-size", "I", rest.sizes.input_size),
        ("hidden-size", "H", rest.sizes.hidden_size),
    ];
    parts.extend(
        sizes.iter().filter(|(name, _, _)| *name != column).map(|(_, letter, size)| format!("{letter} {size}")),
    );
    let ones = [("layers", rest.sizes.layers), ("heads", rest.sizes.heads)];
    parts.extend(ones.iter().filter(|(_, count)| *count > 1).map(|(name, count)| format!("{count} {name}")));
    let words = [(rest.direction_name(), "forward"), (rest.number_name(), "f32"), (rest.backend_name(), "cpu")];
    parts.extend(words.iter().filter(|(word, usual)| word != usual).map(|(word, _)| (*word).to_owned()));
    let lengths = rest.lengths.to_string();
    parts.extend(
        (lengths != "full").then(|| format!("lengths {}", if lengths == "random" { "random" } else { "given" })),
    );
    if column != "threads" {
        parts.push(threads(rest.threads));
    }
    parts.join(", ")
}

pub fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}

/// Ours first.
fn providers<T>(curves: BTreeMap<&str, T>) -> Vec<(&str, T)> {
    let mut ordered: Vec<_> = curves.into_iter().collect();
    ordered.sort_by_key(|(provider, _)| *provider != OURS);
    ordered
}

/// The same for a provider in every picture.
fn colour(provider: &str) -> Colour {
    match provider {
        OURS => Colour::BLUE,
        "torch" => Colour::VERMILLION,
        "onnxruntime" => Colour::GREEN,
        "keras" => Colour::PALETTE[3],
        "candle" => Colour::PALETTE[4],
        _ => Colour::PALETTE[5],
    }
}

/// Operations a second against operations a byte that must be moved, below what the machine can do: a picture for each number of
/// threads and element type.
fn rooflines(records: &[Record], machine: &str) -> Vec<(String, LinePlot)> {
    let mut groups: BTreeMap<(usize, &str), Vec<(&Record, &Ours)>> = BTreeMap::new();
    for (record, ours) in measured(records).filter(|(_, ours)| ours.ceilings.is_some()) {
        groups.entry((record.point.used_threads(), record.point.number_name())).or_default().push((record, ours));
    }
    let mut pictures = Vec::new();
    for ((count, number), found) in groups {
        let Some(ceilings) = found[0].1.ceilings.filter(|c| c.gflops.is_finite() && c.gbytes.is_finite()) else {
            continue;
        };
        let mut dots = Curves::new();
        for (record, ours) in &found {
            for (provider, us) in steps(record, ours) {
                let gflops = ours.operations / (us * record.point.shape.seq_len as f64) * 1e-3;
                dots.entry(provider).or_default().push((ours.intensity(), gflops));
            }
        }
        let all = dots.values().flatten().map(|(intensity, _)| *intensity);
        let (low, high) = all.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), x| (low.min(x), high.max(x)));
        let ridge = ceilings.gflops / ceilings.gbytes;
        let (low, high) = (low.min(ridge) * 0.5, high.max(ridge) * 2.0);
        let roof = [low, ridge, high].map(|x| (x, ceilings.gflops.min(x * ceilings.gbytes)));
        let mut plot = LinePlot::new("Roofline")
            .subtitle(format!("{}, {number}; {machine}", threads(count)))
            .x_label("operations a byte of weights, x, y, gradients and reserve [FLOP/byte]")
            .y_label("operations a second [GFLOP/s]")
            .log_x(true)
            .log_y(true)
            .size(SIZE.0, SIZE.1);
        let name = format!("ceilings: {:.0} GFLOP/s, {:.0} GB/s", ceilings.gflops, ceilings.gbytes);
        plot = plot.curve(Curve::new(name, roof).colour(Colour::GREY));
        for (provider, points) in providers(dots) {
            plot = plot.curve(Curve::new(provider, points).colour(colour(provider)).dots());
        }
        pictures.push((format!("roofline-{}-{number}", slug(&threads(count))), plot));
    }
    pictures
}

/// A peer's time over ours at every point, in the order of the table: a picture for each pass.
fn ratios(records: &[Record], machine: &str) -> Vec<(String, LinePlot)> {
    let mut passes: BTreeMap<&str, Curves> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (record, ours) in measured(records) {
        let pass = record.point.pass_name();
        let number = counts.entry(pass).or_default();
        *number += 1;
        for theirs in &record.theirs {
            if let Some((_, ratio)) = theirs.timed(ours) {
                passes.entry(pass).or_default().entry(theirs.peer).or_default().push((*number as f64, ratio));
            }
        }
    }
    let mut pictures = Vec::new();
    for (pass, peers) in passes {
        let last = counts.get(pass).copied().unwrap_or(1) as f64;
        let mut plot = LinePlot::new(format!("Time of peers over ours, {pass}"))
            .subtitle(format!("above 1 ours is faster; {machine}"))
            .x_label("point, in the order of the table")
            .y_label("peer / ours")
            .log_y(true)
            .size(SIZE.0, SIZE.1);
        plot = plot.curve(Curve::new("", [(1.0, 1.0), (last.max(2.0), 1.0)]).colour(Colour::GREY).dashed().width(1.5));
        for (peer, points) in providers(peers) {
            plot = plot.curve(Curve::new(peer, points).colour(colour(peer)).width(3.0).dots());
        }
        pictures.push((format!("ratio-{}", slug(pass)), plot));
    }
    pictures
}
