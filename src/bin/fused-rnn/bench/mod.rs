//! `fused-rnn bench`: how long operators take, over whatever is swept, beside other implementations.
//!
//! | file | what |
//! |---|---|
//! | `values`, `point`, `grid` | lists and ranges; a point; the points of a sweep |
//! | `machine`, `ceilings` | the machine, and what it can do at most |
//! | `subject`, `train_step`, `cuda` | what is called and timed at a point |
//! | `timing` | samples, medians, ratios |
//! | `peers`, `comparison` | helpers that run other implementations; their results against ours |
//! | `measure`, `record` | measuring a point; what was found there |
//! | `table`, `plots` | records for people |
#![expect(clippy::indexing_slicing, reason = "of results and grids made by the measurement itself")]

mod ceilings;
mod comparison;
#[cfg_attr(not(feature = "cuda"), path = "no_cuda.rs")]
mod cuda;
mod grid;
mod machine;
mod measure;
mod peers;
mod plots;
mod point;
mod record;
mod round_trip;
mod subject;
mod table;
mod timing;
mod train_step;
mod values;

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fused_rnn::{Error, Result, files};
use indicatif::{ProgressBar, ProgressStyle};

use crate::descriptor_args::OptionArgs;
use crate::interrupt;
use crate::output::{note, print};

use measure::Session;
use peers::{Peer, Programs};
use point::Point;
use record::Record;

/// Time operators over whatever is swept: one point, lists and ranges, or the lines of a file.
///
/// Exit code 0: everything that was asked was measured, and peers computed the same; 1: something was not; 2: the request is mistaken.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    axes: grid::Axes,
    #[command(flatten)]
    operator: OptionArgs,
    /// cuda: replay a CUDA graph of the call instead of making it
    #[arg(long)]
    graph: bool,
    /// cuda: what computes large matrix products: kernels, the crate's own, or cublaslt, in builds with that feature
    #[arg(long, default_value = "kernels")]
    matmul: String,
    /// Time whole passes only, not also without the product of x and the input weights
    #[arg(long)]
    whole: bool,
    /// How long to time each program in each round
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Rounds in which each program is timed in turn [default: 3; with peers 7]
    #[arg(long)]
    rounds: Option<usize>,
    /// Other implementations to run on the same points, in the same rounds: torch, onnxruntime, keras, candle, burn
    #[arg(long, value_name = "NAMES")]
    peers: Option<String>,
    /// The Python that has them
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// The program that has candle and burn
    #[arg(long, value_name = "PROGRAM", default_value = "benches/peers/rust/target/release/fused-rnn-peers")]
    rust_peers: PathBuf,
    /// Largest relative error of a peer's results [default: 1e-3 in f32, 1e-9 in f64]
    #[arg(long)]
    tolerance: Option<f64>,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Write everything that was measured as a CSV file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the table as a Markdown file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write pictures as SVG into a folder: times along each axis that was swept, roofline, ratios over peers
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
    /// Then read more lists of these arguments from standard input, one a line, and measure each; what cannot be is a line of JSON with
    /// `error`
    #[arg(long)]
    lines: bool,
}

/// What a line of standard input holds.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    args: Args,
}

pub fn run(args: Args) -> Result<ExitCode> {
    interrupt::listen();
    let mut session = Session::default();
    let mut worst = args.sweep(&mut session)?;
    if !args.lines {
        return Ok(worst);
    }
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|source| Error::Io { action: "read", path: "standard input".into(), source })?;
        let swept = Line::try_parse_from(line.split_whitespace())
            .map_err(|error| Error::InvalidOption {
                option: line.clone(),
                expected: "the arguments of bench".into(),
                got: error.to_string(),
            })
            .and_then(|line| line.args.sweep(&mut session));
        match swept {
            Ok(code) if code == ExitCode::SUCCESS => {}
            Ok(code) => worst = code,
            Err(error) => {
                print(&format!("{}\n", serde_json::json!({ "arguments": line, "error": error.to_string() })))?;
                worst = ExitCode::from(1);
            }
        }
    }
    Ok(worst)
}

impl Args {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.peers.is_some() { 7 } else { 3 })
    }

    fn check(&self) -> Result<()> {
        let invalid = |option: &str, expected: &str, got: String| Error::InvalidOption {
            option: option.into(),
            expected: expected.into(),
            got,
        };
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            return Err(invalid("seconds", "a number in 0..=3600 above 0", self.seconds.to_string()));
        }
        if !(1..=1000).contains(&self.rounds()) {
            return Err(invalid("rounds", "1..=1000", self.rounds().to_string()));
        }
        match self.tolerance {
            Some(tolerance) if !(tolerance.is_finite() && tolerance > 0.0) => {
                Err(invalid("tolerance", "a finite number above zero", tolerance.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn sweep(&self, session: &mut Session) -> Result<ExitCode> {
        self.check()?;
        let points = self.axes.points()?;
        let kinds = self.peers.as_deref().map(peers::parse).transpose()?.unwrap_or_default();
        let programs = Programs { python: &self.python, rust: &self.rust_peers };
        session.peers = kinds.iter().map(|kind| Peer::start(*kind, programs)).collect();
        for missing in session.peers.iter().filter_map(|peer| peer.missing.as_ref()) {
            note(missing);
        }
        let mut failed = session.peers.iter().any(|peer| peer.missing.is_some());
        let present = session.peers.iter().filter(|peer| peer.missing.is_none());
        let (names, versions): (Vec<_>, Vec<_>) =
            present.map(|peer| (peer.kind.name, format!("{} {}", peer.kind.name, peer.version))).unzip();
        let machine = [vec![machine::description()], versions].concat().join(", ");

        let show = Show::new(points.len());
        if !self.json {
            show.print(&self.introduction(session, &machine, &points))?;
            show.print(&table::header(&names))?;
        }
        let (mut records, mut said) = (Vec::<Record>::new(), table::Said::default());
        for point in &points {
            if interrupt::is_asked() {
                break;
            }
            let tell = |doing: &str| show.tell(point, doing);
            let record = session.measure(self, point, &tell);
            failed |= record.is_failure();
            let text = if self.json { record.json(&machine, &names) } else { table::line(&record, &names, &mut said) };
            show.print(&text)?;
            show.step();
            records.push(record);
        }
        show.finish();
        if !self.json {
            let summary = table::summary(&records, &names);
            print(&if summary.is_empty() { summary } else { format!("\n{summary}") })?;
        }
        self.write(&records, &machine, &names)?;
        if interrupt::is_asked() {
            note(&format!("stopped after {} of {} points", records.len(), points.len()));
            return Ok(interrupt::exit_code());
        }
        Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
    }

    /// What stands above the table.
    fn introduction(&self, session: &mut Session, machine: &str, points: &[Point]) -> String {
        let mut text = format!("{machine}\n");
        let mut seen = Vec::new();
        for point in points.iter().filter(|point| point.is_on_host()) {
            let key = (point.used_threads(), point.number.dtype);
            if !seen.contains(&key) {
                seen.push(key);
                let found = session.ceilings.on(key.0, key.1);
                text += &format!(
                    "ceilings on {} threads, {}: {:.1} GFLOP/s multiply-adds in registers, {:.1} GB/s read from memory\n",
                    key.0, key.1, found.gflops, found.gbytes
                );
            }
        }
        let rounds = self.rounds();
        text + &format!(
            "medians of {rounds} rounds of {} s, after warming up; spread from 10 % to 90 % of all calls\n\n",
            self.seconds
        )
    }

    /// The files that were asked for.
    fn write(&self, records: &[Record], machine: &str, peers: &[&'static str]) -> Result<()> {
        if let Some(path) = &self.csv {
            files::write_atomic(path, &record::csv(records, machine, peers)?)?;
        }
        if let Some(path) = &self.markdown {
            let (table, summary) = (table::markdown(records, peers), table::summary(records, peers));
            let list: String = summary.lines().map(|line| format!("- {line}\n")).collect();
            files::write_atomic(path, format!("{machine}.\n\n{table}\n{list}").as_bytes())?;
        }
        if let Some(folder) = &self.plots {
            let written = plots::save(folder, records, machine)?;
            if !self.json {
                print(&format!("wrote {} pictures to {}\n", written.len(), folder.display()))?;
            }
        }
        Ok(())
    }
}

/// The progress line, where standard error is a terminal.
struct Show(Option<ProgressBar>);

impl Show {
    fn new(points: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Show(None);
        }
        let bar = ProgressBar::new(points as u64);
        let template = "{bar:20.cyan/dim} {pos}/{len} {msg}  {elapsed} (about {eta} left)";
        // The template is fixed; should it ever not parse, the plain bar does as well.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━━─"));
        Show(Some(bar))
    }

    fn tell(&self, point: &Point, doing: &str) {
        if let Show(Some(bar)) = self {
            bar.set_message(format!("{} {}: {doing}", point.label(), point.pass_name()));
            bar.tick();
        }
    }

    /// Standard output, beside the line.
    fn print(&self, text: &str) -> Result<()> {
        match self {
            Show(Some(bar)) => bar.suspend(|| print(text)),
            Show(None) => print(text),
        }
    }

    fn step(&self) {
        if let Show(Some(bar)) = self {
            bar.inc(1);
        }
    }

    fn finish(&self) {
        if let Show(Some(bar)) = self {
            bar.finish_and_clear();
        }
    }
}
