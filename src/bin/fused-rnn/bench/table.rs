//! Records for people: a table on the terminal, the same as Markdown, and how peers compare over all points.

use super::plots::threads;
use super::point::{PASSES, Point};
use super::record::{Compared, Ours, Record, Theirs};

/// Name and unit of every column; peers add two each.
fn head(peers: &[&'static str]) -> Vec<String> {
    let ours = [
        "point",
        "pass",
        "µs a step",
        "10 %",
        "90 %",
        "without input",
        "GFLOP/s",
        "of compute",
        "of memory",
        "round trip",
        "workspace",
        "reserve",
        "memory",
    ];
    let mut head: Vec<String> = ours.map(str::to_owned).into();
    for peer in peers {
        head.extend([(*peer).to_owned(), "ratio".to_owned()]);
    }
    head
}

const LABEL: usize = 42;
const COLUMN: usize = 11;

/// The columns of the terminal's table that hold words.
const WORDS: usize = 2;

fn row(cells: &[String]) -> String {
    let mut line = String::new();
    for (index, cell) in cells.iter().enumerate() {
        match index {
            0 => line += &format!("{cell:<LABEL$}"),
            1 => line += &format!(" {cell:<COLUMN$}"),
            _ => line += &format!(" {cell:>width$}", width = COLUMN.max(if index == 5 { 13 } else { 0 })),
        }
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

/// Three digits.
fn digits(value: f64) -> String {
    match value {
        value if !value.is_finite() => "-".to_owned(),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn share(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| "-".to_owned(), |value| format!("{:.1} %", value * 100.0))
}

fn bytes(count: usize) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{} {}", digits(value), units[unit]) }
}

fn cells(record: &Record, peers: &[&'static str]) -> Vec<String> {
    let mut cells = vec![label(&record.point), record.point.pass_name().to_owned()];
    match &record.ours {
        Err(error) => cells.push(format!("error: {error}")),
        Ok(ours) => {
            let step = |us: f64| digits(record.per_step(us));
            cells.extend([
                step(ours.times.median()),
                step(ours.times.quantile(0.1)),
                step(ours.times.quantile(0.9)),
                ours.without_input.as_ref().map_or("-".to_owned(), |times| step(times.median())),
                digits(ours.gflops()),
                share(ours.compute_share()),
                share(ours.memory_share()),
                ours.round_trip().map_or("-".to_owned(), |ns| format!("{} ns", digits(ns))),
                bytes(ours.workspace_bytes),
                bytes(ours.reserve_bytes),
                bytes(ours.memory_bytes),
            ]);
            for peer in peers {
                let theirs = record.theirs.iter().find(|theirs| theirs.peer == *peer);
                cells.extend(match theirs.map(|theirs| (theirs.timed(ours), &theirs.outcome)) {
                    Some((Some((times, ratio)), _)) => [step(times.median()), format!("{ratio:.2}")],
                    Some((None, Compared::Mismatch { .. })) => ["mismatch".to_owned(), "-".to_owned()],
                    Some((None, Compared::Failed(_))) => ["error".to_owned(), "-".to_owned()],
                    _ => ["-".to_owned(), "-".to_owned()],
                });
            }
        }
    }
    cells
}

/// The point, with what is not usual of who computes it.
fn label(point: &Point) -> String {
    let mut label = point.label();
    if point.number_name() != "f32" {
        label += &format!(", {}", point.number_name());
    }
    if point.backend_name() != "cpu" {
        label += &format!(", {}", point.backend_name());
    } else if point.used_threads() != std::thread::available_parallelism().map_or(1, usize::from) {
        label += &format!(", {}", threads(point.used_threads()));
    }
    label
}

/// The first line of the terminal's table.
pub fn header(peers: &[&'static str]) -> String {
    row(&head(peers))
}

/// What was said below a line before, and need not be said again.
#[derive(Default)]
pub struct Said {
    plan: String,
    unsupported: Vec<String>,
}

/// A record's line, and below it what is to be said of it: the plan where it is another than before, and why peers have no time.
pub fn line(record: &Record, peers: &[&'static str], said: &mut Said) -> String {
    let mut text = row(&cells(record, peers));
    if let Ok(ours) = &record.ours {
        let plan = format!("{}, {} threads: {}", ours.plan, record.point.used_threads(), ours.why);
        if plan != said.plan {
            text += &format!("    plan: {plan}\n");
            said.plan = plan;
        }
    }
    for theirs in &record.theirs {
        let Some(note) = theirs.note() else { continue };
        let note = format!("    {}: {note}\n", theirs.peer);
        if !theirs.is_failure() {
            if said.unsupported.contains(&note) {
                continue;
            }
            said.unsupported.push(note.clone());
        }
        text += &note;
    }
    text
}

/// All records as a Markdown table.
pub fn markdown(records: &[Record], peers: &[&'static str]) -> String {
    let (head, line) = (head(peers), |cells: &[String]| format!("| {} |\n", cells.join(" | ")));
    let mut text = line(&head);
    let rules: Vec<String> = (0..head.len()).map(|i| if i < WORDS { "---" } else { "--:" }.to_owned()).collect();
    text += &line(&rules);
    for record in records {
        let mut cells = cells(record, peers);
        cells.resize(head.len(), String::new());
        text += &line(&cells.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>());
    }
    text
}

/// How every peer compares, a line for each pass: the geometric mean of the ratios, the least of them, and how many are below 1.
pub fn summary(records: &[Record], peers: &[&'static str]) -> String {
    let mut text = String::new();
    for peer in peers {
        for (name, pass) in PASSES {
            let ratio = |record: &Record| {
                let (ours, theirs): (&Ours, &Theirs) =
                    (record.ours.as_ref().ok()?, record.theirs.iter().find(|theirs| theirs.peer == *peer)?);
                Some((theirs.timed(ours)?.1, label(&record.point)))
            };
            let found: Vec<_> = records.iter().filter(|record| record.point.pass == *pass).filter_map(ratio).collect();
            let Some((least, point)) = found.iter().min_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
            let mean = (found.iter().map(|(ratio, _)| ratio.ln()).sum::<f64>() / found.len() as f64).exp();
            let slower = found.iter().filter(|(ratio, _)| *ratio < 1.0).count();
            text += &format!(
                "{peer}, {name}: its time over ours {mean:.2} in the geometric mean of {} points, least {least:.2} ({point}), {slower} below 1\n",
                found.len(),
            );
        }
    }
    text
}
