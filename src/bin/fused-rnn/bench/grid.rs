//! The points of a sweep, from the options and from a file.

use std::path::Path;

use fused_rnn::rnn::RnnShape;
use fused_rnn::{Error, Result, files};

use crate::descriptor_args::{DIRECTIONS, Sizes};

use super::point::{BACKENDS, Lengths, NUMBERS, PASSES, Point};
use super::values::{MOST, invalid, numbers, parts, short, words};

/// The grid of the tables in the documentation, which `benches/recurrent.rs` reads too.
const BUILTIN: &str = include_str!("../../../../benches/grid.csv");

/// What a sweep varies; each option holds a list.
#[derive(clap::Args)]
#[command(next_help_heading = "Sweep (lists: 16,64,256; ranges: 16..4096:x2, 16..64:+16)")]
pub struct Axes {
    /// Cells: rnn, lstm, gru or others that `info` lists [default: lstm]
    #[arg(long, value_name = "CELLS")]
    cell: Option<String>,
    /// Time steps T [default: 5]
    #[arg(long, value_name = "T")]
    seq_len: Option<String>,
    /// Sequences B [default: 3]
    #[arg(long, value_name = "B")]
    batch: Option<String>,
    /// Input features I [default: 4]
    #[arg(long, value_name = "I")]
    input_size: Option<String>,
    /// Units H of every layer and direction [default: 5]
    #[arg(long, value_name = "H")]
    hidden_size: Option<String>,
    /// Stacked layers L [default: 1]
    #[arg(long, value_name = "L")]
    layers: Option<String>,
    /// forward, reverse, bidirectional [default: forward]
    #[arg(long, value_name = "DIRECTIONS")]
    direction: Option<String>,
    /// Blocks of the recurrent weights [default: 1]
    #[arg(long, value_name = "N")]
    heads: Option<String>,
    /// Element types: f32, f64; on the cuda backend tf32, bf16, f16 too [default: f32]
    #[arg(long, value_name = "DTYPES")]
    dtype: Option<String>,
    /// Who computes: cpu, reference, cuda [default: cpu]
    #[arg(long, value_name = "BACKENDS")]
    backend: Option<String>,
    /// Numbers of the cuda backend's GPUs [default: 0]
    #[arg(long, value_name = "GPUS")]
    device: Option<String>,
    /// Threads of the cpu backend and of peers [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// What is timed: infer, fwd, fwd+bwd, train-step, train-step-adam, stream [default: infer,fwd+bwd]
    #[arg(long, value_name = "PASSES")]
    pass: Option<String>,
    /// Valid steps of the sequences: full, random, or each as 5/3/1 [default: full]
    #[arg(long, value_name = "LENGTHS")]
    lengths: Option<String>,
    /// Sweep the lines of a CSV file, whose columns are named as these options, or `builtin`; an option given besides is the value of lines
    /// that have none
    #[arg(long, value_name = "FILE")]
    grid: Option<String>,
    /// Only points whose name in the table, followed by what is timed, has this text in it
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// The columns of a file, named as the options.
pub const COLUMNS: [&str; 14] = [
    "cell",
    "seq-len",
    "batch",
    "input-size",
    "hidden-size",
    "layers",
    "direction",
    "heads",
    "dtype",
    "backend",
    "device",
    "threads",
    "pass",
    "lengths",
];

/// The text of every column.
type Line = [String; COLUMNS.len()];

impl Axes {
    /// All points, in the order of lines, and within them with the last column the fastest.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for what is mistyped and for more than [`MOST`] points; [`Error::Data`] for a file that is no grid;
    /// [`Error::Io`] where it cannot be read.
    pub fn points(&self) -> Result<Vec<Point>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
        let usual = |given: &Option<String>, usual: &str| given.clone().unwrap_or_else(|| usual.to_owned());
        let line: Line = [
            usual(&self.cell, "lstm"),
            usual(&self.seq_len, "5"),
            usual(&self.batch, "3"),
            usual(&self.input_size, "4"),
            usual(&self.hidden_size, "5"),
            usual(&self.layers, "1"),
            usual(&self.direction, "forward"),
            usual(&self.heads, "1"),
            usual(&self.dtype, "f32"),
            usual(&self.backend, "cpu"),
            usual(&self.device, "0"),
            usual(&self.threads, &cores),
            usual(&self.pass, "infer,fwd+bwd"),
            usual(&self.lengths, "full"),
        ];
        let mut points = Vec::new();
        match self.grid.as_deref() {
            None => expand(&line, &mut points)?,
            Some("builtin") => lines("the built-in grid", BUILTIN, &line, &mut points)?,
            Some(path) => {
                let bytes = files::read(Path::new(path))?;
                let text = String::from_utf8(bytes).map_err(|_| unusable(path, None, "it is not UTF-8 text"))?;
                lines(path, &text, &line, &mut points)?;
            }
        }
        if let Some(only) = &self.only {
            points.retain(|point| format!("{} {}", point.label(), point.pass_name()).contains(only.as_str()));
            if points.is_empty() {
                return Err(invalid("only", "text that the name of a point has in it, such as \"LSTM 128×32\"", only));
            }
        }
        Ok(points)
    }
}

fn unusable(file: &str, line: Option<u64>, problem: impl Into<String>) -> Error {
    Error::Data { source_name: file.to_owned(), line, problem: problem.into() }
}

/// The points of a file's lines.
fn lines(file: &str, text: &str, usual: &Line, points: &mut Vec<Point>) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let malformed = |error: csv::Error| {
        let line = error.position().map(csv::Position::line);
        unusable(file, line, error.to_string())
    };
    let mut columns = Vec::new();
    for name in reader.headers().map_err(malformed)? {
        let found = COLUMNS.iter().position(|column| *column == name);
        let column = found.ok_or_else(|| {
            let problem =
                format!("column {:?} is no option of a sweep; possible are {}", short(name), COLUMNS.join(", "));
            unusable(file, Some(1), problem)
        })?;
        if columns.contains(&column) {
            return Err(unusable(file, Some(1), format!("column {name:?} is there twice")));
        }
        columns.push(column);
    }
    let before = points.len();
    for record in reader.records() {
        let record = record.map_err(malformed)?;
        let mut line = usual.clone();
        for (column, value) in columns.iter().zip(&record).filter(|(_, value)| !value.is_empty()) {
            line[*column] = value.to_owned();
        }
        let number = record.position().map(csv::Position::line);
        expand(&line, points).map_err(|error| unusable(file, number, error.to_string()))?;
    }
    if points.len() == before {
        return Err(unusable(file, None, "it has no line below its header"));
    }
    Ok(())
}

/// Adds every combination of the values of a line.
fn expand(line: &Line, points: &mut Vec<Point>) -> Result<()> {
    let number = |column: usize| numbers(COLUMNS[column], &line[column]);
    let cells = parts(&line[0]).map(str::parse).collect::<Result<Vec<_>>>()?;
    let (seq_lens, batches, input_sizes, hidden_sizes, layers) =
        (number(1)?, number(2)?, number(3)?, number(4)?, number(5)?);
    let directions = words(COLUMNS[6], &line[6], DIRECTIONS)?;
    let heads = number(7)?;
    let element_types = words(COLUMNS[8], &line[8], NUMBERS)?;
    let backends = words(COLUMNS[9], &line[9], BACKENDS)?;
    let one_device = |text: &str| {
        text.parse::<usize>().map_err(|_| invalid("device", "numbers of GPUs from 0, separated by commas", text))
    };
    let devices = parts(&line[10]).map(one_device).collect::<Result<Vec<_>>>()?;
    let threads = number(11)?;
    if let Some(many) = threads.iter().find(|threads| **threads > usize::from(u16::MAX)) {
        return Err(invalid("threads", format!("at most {}", u16::MAX), &many.to_string()));
    }
    let passes = words(COLUMNS[12], &line[12], PASSES)?;
    let lengths = parts(&line[13]).map(Lengths::parse).collect::<Result<Vec<_>>>()?;

    let counts = [
        cells.len(),
        seq_lens.len(),
        batches.len(),
        input_sizes.len(),
        hidden_sizes.len(),
        layers.len(),
        directions.len(),
        heads.len(),
        element_types.len(),
        backends.len(),
        devices.len(),
        threads.len(),
        passes.len(),
        lengths.len(),
    ];
    let total = counts.into_iter().fold(1, usize::saturating_mul);
    if total.saturating_add(points.len()) > MOST {
        let got = format!("{} values each", counts.map(|count| count.to_string()).join(" × "));
        return Err(Error::InvalidOption {
            option: "sweep".to_owned(),
            expected: format!("at most {MOST} points in all"),
            got,
        });
    }
    for index in 0..total {
        // The last column is the fastest.
        let mut rest = index;
        let mut at = counts;
        for (place, count) in at.iter_mut().zip(counts).rev() {
            *place = rest % count;
            rest /= count;
        }
        points.push(Point {
            sizes: Sizes {
                cell: cells[at[0]],
                input_size: input_sizes[at[3]],
                hidden_size: hidden_sizes[at[4]],
                heads: heads[at[7]],
                layers: layers[at[5]],
                direction: directions[at[6]],
            },
            shape: RnnShape { seq_len: seq_lens[at[1]], batch: batches[at[2]] },
            number: element_types[at[8]],
            backend: backends[at[9]],
            device: devices[at[10]],
            threads: threads[at[11]],
            pass: passes[at[12]],
            lengths: lengths[at[13]].clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_built_in_grid_has_what_it_promises() {
        let axes = Axes::parse_from_words("--grid builtin --threads 2");
        let points = axes.points().unwrap();
        assert_eq!(points.len(), 64);
        let has = |what: &dyn Fn(&Point) -> bool| points.iter().any(what);
        assert!(has(&|p| p.shape.seq_len == 8192) && has(&|p| p.sizes.layers == 2));
        assert!(has(&|p| p.lengths == Lengths::Random) && has(&|p| p.pass_name() == "stream"));
        assert!(has(&|p| p.direction_name() == "bidirectional"));
        assert!(points.iter().all(|point| point.threads == 2));
    }

    #[test]
    fn outer_options_are_defaults_of_lines() {
        let axes = Axes::parse_from_words("--hidden-size 8,16 --cell gru --pass infer");
        assert_eq!(axes.points().unwrap().len(), 2);
        let mut points = Vec::new();
        let line: Line = ["gru", "5", "1", "4", "8,16", "1", "forward", "1", "f32", "cpu", "0", "1", "infer", "full"]
            .map(str::to_owned);
        lines("grid", "seq-len,hidden-size\n# a comment\n7,\n9..10:+1,4\n", &line, &mut points).unwrap();
        let sizes: Vec<_> = points.iter().map(|p| (p.shape.seq_len, p.sizes.hidden_size)).collect();
        assert_eq!(sizes, [(7, 8), (7, 16), (9, 4), (10, 4)]);
        for (text, part) in [
            ("units\n4\n", "column \"units\""),
            ("batch,batch\n4,4\n", "twice"),
            ("batch\n", "no line"),
            ("batch\nx\n", "line 2: option batch"),
            ("batch,layers\n4\n", "grid, line 2"),
        ] {
            let error = lines("grid", text, &line, &mut points).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    /// A value as people mistype it, or as somebody would who wants to break the program.
    fn any_value() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "",
            "lstm",
            "gru",
            "4",
            "0",
            "-1",
            "1..4:+1",
            "1..18446744073709551615:x2",
            "1..18446744073709551615:+1",
            "9..3:+1",
            "1..",
            "..:x",
            "1..9:x1",
            "f32",
            "cuda",
            "infer",
            "fwd+bwd",
            "full",
            "random",
            "5/3/1",
            "/",
            "4294967296",
            "\"",
            "\n",
            "#",
            "é",
            "\u{0}",
        ]);
        prop_oneof![
            4 => prop::collection::vec(word, 1..4).prop_map(|words| words.join(",")),
            1 => any::<String>(),
        ]
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a file says, it gives points, at most as many as may be, or an error that names it.
        #[test]
        fn no_file_breaks_the_reader(
            columns in prop::sample::subsequence(COLUMNS.to_vec(), 1..=4),
            cells in prop::collection::vec(prop::collection::vec(any_value(), 1..5), 0..4),
            quoted in any::<bool>(),
        ) {
            let row = |cells: &Vec<String>| {
                let cells: Vec<_> = cells.iter().map(|cell| if quoted { format!("\"{cell}\"") } else { cell.clone() }).collect();
                cells.join(",")
            };
            let text = format!("{}\n{}\n", columns.join(","), cells.iter().map(row).collect::<Vec<_>>().join("\n"));
            let usual: Line = ["gru", "5", "1", "4", "8,16", "1", "forward", "1", "f32", "cpu", "0", "1", "infer", "full"].map(str::to_owned);
            let mut points = Vec::new();
            match lines("grid", &text, &usual, &mut points) {
                Ok(()) => {
                    prop_assert!((1..=MOST).contains(&points.len()));
                    for point in points.iter().filter(|point| point.shape.batch < 1000) {
                        let _ = (point.label(), point.valid_steps());
                    }
                }
                Err(error) => prop_assert!(matches!(&error, Error::Data { source_name, .. } if source_name == "grid"), "{error:?}"),
            }
        }
    }

    #[test]
    fn lengths_of_many_sequences_stand_once_for_all_points() {
        let axes = Axes::parse_from_words(&format!(
            "--seq-len 1..10000:+1 --batch 10000 --pass infer --lengths {}1",
            "1/".repeat(9_999)
        ));
        let points = axes.points().unwrap();
        assert_eq!(points.len(), 10_000);
        let given = |point: &Point| match &point.lengths {
            Lengths::Given(lengths) => lengths.as_ptr(),
            _ => std::ptr::null(),
        };
        assert!(points.iter().all(|point| given(point) == given(&points[0])));
    }

    impl Axes {
        fn parse_from_words(words: &str) -> Axes {
            #[derive(clap::Parser)]
            #[command(no_binary_name = true)]
            struct Words {
                #[command(flatten)]
                axes: Axes,
            }
            <Words as clap::Parser>::parse_from(words.split_whitespace()).axes
        }
    }
}
