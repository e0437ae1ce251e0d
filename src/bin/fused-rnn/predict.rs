//! `fused-rnn predict`: a trained model continues a series, or says the classes or numbers of sequences, or the classes of rows.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fused_rnn::data::{Gaps, TimeAxis};
use fused_rnn::metrics::argmax_rows;
use fused_rnn::model::{Forecaster, RowsConfig, SequenceModel, SequencePredictions, SequenceTarget, Trained};
use fused_rnn::plot::{Colour, Curve, LinePlot};
use fused_rnn::{Error, Result, files};

use crate::classified;
use crate::data_file::{ROWS, holds_sequences, in_file, no_task, read_sequences, wrong_data};
use crate::device::DeviceKind;
use crate::output::{listed, print};
use crate::pictures::{PLOT_SIZE, x_label};
use crate::reading::ReadingArgs;
use crate::rows::Rows;

/// Continues a column of a CSV file with a model that `train` wrote: into a CSV file with the dates going on where there are any,
/// and a plot. Steps beyond the model's own horizon are forecast from its earlier forecasts, unless it reads several columns. With a model
/// of sequences, says the class or number of each sequence of a .ts file, and with one of rows the class of each row of a CSV file from the
/// first whole window on, into a CSV file.
#[derive(clap::Args)]
pub struct Args {
    /// The model, a file that `train` wrote.
    model: PathBuf,
    /// CSV file with the series to continue, or with rows, or .ts file of sequences, with or without their classes or numbers.
    data: PathBuf,
    /// Values to forecast [default: 12, or of a model that reads several columns as many as it forecasts at once].
    #[arg(long, value_name = "N")]
    horizon: Option<usize>,
    /// Column by name, or by number counted from 1 [default: the one that the model was trained on].
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Missing values: error, drop, interpolate or forward-fill [default: as in training].
    #[arg(long, value_name = "POLICY")]
    gaps: Option<Gaps>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Where to run the model: cpu, cuda, emulated, ptx or reference.
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    device: DeviceKind,
    /// CSV file to write [default: prediction.csv beside the model].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// SVG file to write [default: prediction.svg beside the model].
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Most values that may be asked for; each is a row of a file and a point of a plot.
const MOST: usize = 1_000_000;

pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(horizon) = args.horizon.filter(|horizon| !(1..=MOST).contains(horizon)) {
        return Err(Error::InvalidOption {
            option: "horizon".to_owned(),
            expected: format!("1 to {MOST}"),
            got: horizon.to_string(),
        });
    }
    match Trained::load(args.device.open()?, &args.model)? {
        Trained::Forecaster(forecaster) => forecast(forecaster, args),
        Trained::Sequences(model) => say(model, args),
        Trained::Model(_) => Err(no_task(&args.model)),
    }
}

impl Args {
    fn out(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| self.model.with_file_name("prediction.csv"))
    }
}

/// Writes a CSV file.
fn write_csv(path: &Path, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<()> {
    let failed = |e: String| Error::Format { path: path.to_owned(), format: "CSV", problem: e };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header).map_err(|e| failed(e.to_string()))?;
    for row in rows {
        writer.write_record(row).map_err(|e| failed(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.to_string()))?;
    files::write_atomic(path, &bytes)
}

/// The classes or numbers of sequences.
fn say(mut model: SequenceModel, args: Args) -> Result<ExitCode> {
    if let Some(rows) = model.config().rows.clone() {
        return say_rows(model, &rows, args);
    }
    if !holds_sequences(&args.data) {
        return Err(wrong_data(&args.model, &args.data, "sequences in a .ts file, not a series"));
    }
    for (option, given) in [
        ("horizon", args.horizon.is_some()),
        ("column", args.column.is_some()),
        ("gaps", args.gaps.is_some()),
        ("plot", args.plot.is_some()),
    ]
    .into_iter()
    .chain(args.reading.given())
    {
        if given {
            return Err(Error::Unsupported {
                what: format!("--{option} for {}", args.data.display()),
                why: "it is for a series in a CSV file".to_owned(),
            });
        }
    }
    let out = args.out();
    files::check_writable(&out)?;
    let set = read_sequences(&args.data)?;
    let predictions = model.predict(&set.sequences).map_err(in_file(&args.data))?;
    match (predictions, &model.config().target) {
        (SequencePredictions::Classes(probabilities), SequenceTarget::Classes(names)) => {
            let header: Vec<&str> = ["sequence", "class"].into_iter().chain(names.iter().map(String::as_str)).collect();
            let classes = argmax_rows(probabilities.view())?;
            let rows = classes.iter().zip(probabilities.rows()).enumerate().map(|(i, (class, row))| {
                let said = [(i + 1).to_string(), names[*class].clone()];
                said.into_iter().chain(row.iter().map(f32::to_string)).collect()
            });
            write_csv(&out, &header, rows)?;
        }
        (SequencePredictions::Numbers(numbers), _) => {
            let rows = numbers.iter().enumerate().map(|(i, number)| vec![(i + 1).to_string(), number.to_string()]);
            write_csv(&out, &["sequence", "number"], rows)?;
        }
        (SequencePredictions::Classes(_), SequenceTarget::Number(_)) => return Err(no_task(&args.model)),
    }
    print(&format!("wrote {}\n", out.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The classes of rows.
fn say_rows(mut model: SequenceModel, config: &RowsConfig, args: Args) -> Result<ExitCode> {
    if holds_sequences(&args.data) {
        return Err(wrong_data(&args.model, &args.data, ROWS));
    }
    for (option, given) in
        [("horizon", args.horizon.is_some()), ("column", args.column.is_some()), ("plot", args.plot.is_some())]
    {
        if given {
            return Err(Error::Unsupported {
                what: format!("--{option} for {}", args.data.display()),
                why: format!(
                    "it is for a model that forecasts a series; this one says classes of rows from the columns {}",
                    listed(&config.columns)
                ),
            });
        }
    }
    let out = args.out();
    files::check_writable(&out)?;
    let rows = classified::of_model(&args.data, config, args.gaps, &args.reading, false)?;
    let set = classified::windows(&rows, 0..rows.values.nrows(), model.config())?;
    let window = model.config().steps;
    let (SequencePredictions::Classes(probabilities), SequenceTarget::Classes(names)) =
        (model.predict(&set.sequences).map_err(in_file(&args.data))?, &model.config().target)
    else {
        return Err(no_task(&args.model));
    };
    let label = rows.label_name.as_deref();
    let header: Vec<&str> =
        ["line"].into_iter().chain(label).chain(["class"]).chain(names.iter().map(String::as_str)).collect();
    let classes = argmax_rows(probabilities.view())?;
    let said = classes.iter().zip(probabilities.rows()).zip(window - 1..).map(|((class, probabilities), row)| {
        let place = [rows.lines[row].to_string()].into_iter().chain(label.map(|_| rows.labels[row].clone()));
        place.chain([names[*class].clone()]).chain(probabilities.iter().map(f32::to_string)).collect()
    });
    write_csv(&out, &header, said)?;
    print(&format!(
        "wrote {}: the class of {} rows, each from the window of {window} that ends in it, from line {} on\n",
        out.display(),
        classes.len(),
        rows.lines[window - 1]
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What follows a series.
fn forecast(mut forecaster: Forecaster, args: Args) -> Result<ExitCode> {
    if holds_sequences(&args.data) {
        return Err(wrong_data(&args.model, &args.data, "a series in a CSV file, not sequences"));
    }
    let out = args.out();
    let plot = args.plot.clone().unwrap_or_else(|| args.model.with_file_name("prediction.svg"));
    files::check_writable(&out)?;
    files::check_writable(&plot)?;
    let config = forecaster.config();
    let horizon = args.horizon.unwrap_or(if config.inputs.is_empty() { 12 } else { config.horizon });
    let Rows { series, complete, values: columns, .. } =
        Rows::of_model(&args.data, config, args.column, args.gaps, &args.reading)?;
    let (values, axis) = (&complete.values, TimeAxis::new(&complete.labels));
    if values.len() < forecaster.config().context() {
        return Err(Error::Data {
            source_name: series.source_name,
            line: None,
            problem: format!(
                "too few rows: {} values, but the model reads {}",
                values.len(),
                forecaster.config().context()
            ),
        });
    }
    let ahead = forecaster.forecast(&columns, horizon)?;

    let label = series.label_name.as_deref().filter(|_| axis.is_labelled()).unwrap_or("step");
    let step = |i: usize| if axis.is_labelled() { axis.label(values.len() + i) } else { (i + 1).to_string() };
    let rows = ahead.iter().enumerate().map(|(i, value)| vec![step(i), value.to_string()]);
    write_csv(&out, &[label, &series.name], rows)?;

    // As much of the past as tells the future's shape, and at least two windows of it.
    let tail = values.len().min((4 * horizon).max(2 * forecaster.config().window));
    let start = values.len() - tail;
    let point = |(i, value): (usize, &f64)| (axis.position(i), *value);
    let last = (values.len() - 1, &values[values.len() - 1]);
    let known = (start..).zip(&values[start..]).map(point);
    let forecast = std::iter::once(last).chain((values.len()..).zip(&ahead)).map(point);
    // The folder is of no interest to whoever is shown the picture.
    let file = args.data.file_name().map_or(series.source_name.clone(), |name| name.to_string_lossy().into_owned());
    LinePlot::new("Forecast")
        .subtitle(format!("{horizon} values after the end of {file}"))
        .x_label(x_label(&series, &axis))
        .x_dates(axis.is_date())
        .y_label(series.name.clone())
        .curve(Curve::new("known", known).colour(Colour::GREY))
        .curve(Curve::new("forecast", forecast).colour(Colour::VERMILLION))
        .size(PLOT_SIZE.0, PLOT_SIZE.1)
        .save(&plot)?;
    print(&format!("wrote {} and {}\n", out.display(), plot.display()))?;
    Ok(ExitCode::SUCCESS)
}
