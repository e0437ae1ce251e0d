//! The options of `fused-rnn train`, and where its results go.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use fused_rnn::data::Gaps;
use fused_rnn::files::{self, FolderLock};
use fused_rnn::model::Ranks;
use fused_rnn::{Error, Result};

use super::checkpoints::Checkpoints;
use crate::device::{DeviceKind, Precision};
use crate::network::Network;
use crate::reading::ReadingArgs;

/// Rows of a window where nothing else is asked for.
pub const WINDOW: usize = 36;

/// Seconds from one checkpoint to the next where nothing else is asked for.
pub const CHECKPOINT_EVERY: f64 = 60.0;

/// What the model reads and forecasts.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Learn {
    /// What a simple forecast leaves over, where a forecast of one column or several is trained; the same as correction.
    Auto,
    /// What a combination of seasonal, linear and smoothed forecasts leaves over, chosen by rolling origins before the test part.
    Correction,
    /// The values, scaled to the range from 0 to 1.
    Values,
    /// The changes from each value to the next, scaled to mean 0 and standard deviation 1.
    Changes,
}

/// Whether something is done that helps some series.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// As rolling origins do better.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Choice {
    /// What was told, if anything.
    pub fn told(choice: Option<Choice>) -> Option<bool> {
        choice.filter(|choice| *choice != Choice::Auto).map(|choice| choice == Choice::On)
    }
}

/// What a model learns to say.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TaskKind {
    /// A number.
    Regression,
    /// One of several classes.
    Classification,
}

/// Reads one column of a CSV file, or several, as a series in time order, trains recurrent layers and a dense one to say the next value
/// from the last ones, and writes model.safetensors, loss.svg and forecast.svg. With --task classification it learns from a CSV file to
/// say the class of a row from the window of rows that ends in it; from a .ts file of sequences, the class or the number of a whole
/// sequence; and writes confusion.svg. The same data, options and seed give the same model file. Ctrl-C stops training and keeps the best
/// model so far (exit code 130); --resume goes on.
#[derive(clap::Args)]
pub struct Args {
    /// CSV file, however it is written (docs/csv.md); or .ts file of sequences, each with its class or number.
    pub data: PathBuf,
    /// Column by name, or by number counted from 1 [default: the last column of numbers].
    #[arg(long, value_name = "NAME", conflicts_with_all = ["columns", "target"])]
    pub column: Option<String>,
    /// Columns that the model reads, by name or number, with commas between; one of text is read as its categories [default with --target:
    /// all columns of numbers, for classes all others].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub columns: Option<Vec<String>>,
    /// Column that it forecasts; it is read too [default: the last of --columns]. With --task classification the column of each row's
    /// class, any text or number; it is not read.
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Missing values of a CSV file: error, drop, interpolate or forward-fill [default: error].
    #[arg(long, value_name = "POLICY")]
    pub gaps: Option<Gaps>,
    /// Train one model over all series of a panel: the column that names the series of each row.
    #[arg(long, value_name = "COLUMN")]
    pub panel: Option<String>,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// What the model learns to say [default: what the file has; of a CSV file, a number].
    #[arg(long, value_enum, value_name = "TASK")]
    pub task: Option<TaskKind>,
    #[command(flatten)]
    pub network: Network,
    /// Values that the model reads to forecast the next; or rows, to say the class of the last [default: 36, of a series a season and at most
    /// a third of what it learns from].
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Values that it forecasts at once, none of them from another [default: a season of at most 60 where dates and data show one, else 1].
    #[arg(long, value_name = "N")]
    pub horizon: Option<usize>,
    /// Values of a season, 1 for none [default: what dates and data show].
    #[arg(long, value_name = "N")]
    pub season: Option<usize>,
    /// Columns whose future is known when the model forecasts, as holidays or prices that are set, by name or number, with commas between.
    /// Of the file to predict from, rows after the last value of the series have them.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub known: Vec<String>,
    /// Whether days of the week and the time of the year are read too, where dates are of days and the season is another: on, off or auto,
    /// as rolling origins before the test part do better [default: auto].
    #[arg(long, value_enum)]
    pub calendar: Option<Choice>,
    /// Whether logarithms are forecast: on, off or auto, as rolling origins before the test part do better [default: auto].
    #[arg(long, value_enum)]
    pub log: Option<Choice>,
    /// Parts of what comes that the intervals around forecasts shall hold, with commas between.
    #[arg(long, value_name = "LEVELS", value_delimiter = ',', default_values_t = [0.8, 0.95])]
    pub intervals: Vec<f64>,
    /// What the model reads and forecasts [default: auto].
    #[arg(long, value_enum)]
    pub learn: Option<Learn>,
    /// Most steps of a sequence of a .ts file [default: those of the longest].
    #[arg(long, value_name = "N")]
    pub length: Option<usize>,
    /// Most passes over the training part.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub epochs: usize,
    /// Stop after so many epochs without a lower validation loss.
    #[arg(long, default_value_t = 10, value_name = "EPOCHS")]
    pub patience: usize,
    /// Windows of one training step [default: 32, or as many as there are].
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Learning rate of Adam.
    #[arg(long, default_value_t = 1e-3, value_name = "RATE")]
    pub learning_rate: f64,
    /// Last part of the series, or of the sequences a random part, held back to measure the error.
    #[arg(long, default_value_t = 0.2, value_name = "FRACTION")]
    pub test_fraction: f64,
    /// Part before it, held back to know when to stop.
    #[arg(long, default_value_t = 0.1, value_name = "FRACTION")]
    pub validation_fraction: f64,
    /// .ts file of sequences to measure the error on, instead of a part of the first.
    #[arg(long, value_name = "FILE", conflicts_with = "test_fraction")]
    pub test: Option<PathBuf>,
    /// Seed of everything random: starting weights, order of windows, random parts.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Trainings of a series from as many seeds, --seed and the next ones, whose mean is the model.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seeds: usize,
    /// Folder for the results, made where it does not exist; what an earlier run left there, forecasts with its model too, is replaced or
    /// removed [default: out/ and the name of the data file].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where to train: cpu, cuda, emulated, ptx or reference. The same options give the same model file on the same kind of device.
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    pub device: DeviceKind,
    /// What a GPU multiplies: f32, f32 rounded to tf32, or in mixed precision bf16 or f16.
    #[arg(long, value_enum, default_value_t = Precision::F32, value_name = "TYPE")]
    pub precision: Precision,
    /// Train together with the other processes of an MPI program, as in mpirun -n 2 fused-rnn train DATA --mpi: each takes its part of every
    /// batch, --batch-size windows; the first writes the results. Needs a build with the feature mpi.
    #[arg(long)]
    pub mpi: bool,
    /// The processes that train together.
    #[arg(skip)]
    pub ranks: Option<Rc<dyn Ranks>>,
    /// Go on with the training that did not come to its end in the folder of the results, whatever ended it: a signal, kill -9, a loss of power. The
    /// results have the bits of those without an interruption. Options and data must be the same, but for --epochs, which may be more. Where there is
    /// none, training begins.
    #[arg(long)]
    pub resume: bool,
    /// Seconds after which a training saves where it stands, for --resume; 0 for only where a signal stops it.
    #[arg(long, default_value_t = CHECKPOINT_EVERY, value_name = "SECONDS")]
    pub checkpoint_every: f64,
    /// What --resume compares of the options.
    #[arg(skip)]
    pub settings: Vec<(String, String)>,
    /// Where this training saves how it stands.
    #[arg(skip)]
    pub checkpoints: Option<Checkpoints>,
    /// Print only the test error.
    #[arg(short, long)]
    pub quiet: bool,
}

/// What commands write beside a model. What an earlier run left of it tells nothing of the new model.
const RESULTS: [&str; 7] =
    ["loss.svg", "forecast.svg", "confusion.svg", "test.svg", "prediction.csv", "prediction.svg", "model.svg"];

/// Where the results go.
pub struct Outputs {
    pub model: PathBuf,
    pub loss: PathBuf,
    /// The picture of the test part.
    pub test: PathBuf,
    /// Whether an earlier run left a model there; else what is in the folder is no result of one.
    has_earlier: bool,
    /// Keeps other trainings out of the folder.
    _lock: FolderLock,
}

impl Outputs {
    /// Makes the folder and finds out whether its files can be written, before anything takes time.
    pub fn prepare(args: &Args, test: &str) -> Result<Self> {
        let folder =
            args.out.clone().unwrap_or_else(|| Path::new("out").join(args.data.file_stem().unwrap_or_default()));
        std::fs::create_dir_all(&folder).map_err(|source| Error::Io {
            action: "create",
            path: folder.clone(),
            source,
        })?;
        let lock = FolderLock::take(&folder)?;
        files::remove_leftovers(&folder);
        let model = folder.join("model.safetensors");
        let has_earlier = model.is_file();
        let (loss, test) = (folder.join("loss.svg"), folder.join(test));
        let outputs = Outputs { model, loss, test, has_earlier, _lock: lock };
        for path in [&outputs.model, &outputs.loss, &outputs.test] {
            files::check_writable(path)?;
        }
        Ok(outputs)
    }

    /// Removes what an earlier run left in the folder and this one did not write anew; says what that was.
    pub fn remove_others(&self, written: &[&PathBuf]) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for name in RESULTS.into_iter().filter(|_| self.has_earlier) {
            let path = self.model.with_file_name(name);
            if written.contains(&&path) || !path.is_file() {
                continue;
            }
            match std::fs::remove_file(&path) {
                Ok(()) => removed.push(name.to_owned()),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Io { action: "remove", path, source }),
            }
        }
        Ok(removed)
    }
}

impl Args {
    /// Refuses options that say nothing about such data.
    pub fn refuse(&self, given: &[(&str, bool)], why: &str) -> Result<()> {
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => {
                Err(Error::Unsupported { what: format!("--{option} for {}", self.data.display()), why: why.to_owned() })
            }
        }
    }
}
