//! `fused-rnn predict`: a trained model continues a series, or says the classes or numbers of sequences, or the classes of rows.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fused_rnn::data::{Gaps, TimeAxis};
use fused_rnn::figures::shortest;
use fused_rnn::forecast::Baseline;
use fused_rnn::metrics::argmax_rows;
use fused_rnn::model::{
    ForecastConfig, Forecaster, RowsConfig, SequenceModel, SequencePredictions, SequenceTarget, Trained,
};
use fused_rnn::plot::{Colour, Curve, LinePlot};
use fused_rnn::{Error, Result, files};

use crate::classified;
use crate::data_file::{ROWS, check_order, holds_sequences, in_file, no_task, read_sequences, say_pipe, wrong_data};
use crate::device::DeviceKind;
use crate::output::{counted, listed, plain, print};
use crate::panel::{self, OneSeries};
use crate::pictures::{file_name, shaded, x_label};
use crate::reading::ReadingArgs;
use crate::rows::{Rows, known_in_file};

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
    /// Values to forecast [default: as many as the model forecasts at once, or 12 where that is one and no other column is read].
    #[arg(long, value_name = "N")]
    horizon: Option<usize>,
    /// Column by name, or by number counted from 1 [default: the one that the model was trained on].
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Missing values: error, drop, interpolate or forward-fill [default: as in training].
    #[arg(long, value_name = "POLICY")]
    gaps: Option<Gaps>,
    /// Series of several in the file that the picture shows, by what the column says that names them [default: the first].
    #[arg(long, value_name = "KEY")]
    series: Option<String>,
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
    say_pipe(&args.data);
    if let Some(horizon) = args.horizon.filter(|horizon| !(1..=MOST).contains(horizon)) {
        return Err(Error::InvalidOption {
            option: "horizon".to_owned(),
            expected: format!("1 to {MOST}"),
            got: horizon.to_string(),
        });
    }
    check_order(&args.model, &args.data)?;
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
                let said = [(i + 1).to_string(), names.get(*class).cloned().unwrap_or_default()];
                said.into_iter().chain(row.iter().map(|p| shortest(*p))).collect()
            });
            write_csv(&out, &header, rows)?;
        }
        (SequencePredictions::Numbers(numbers), _) => {
            let rows = numbers.iter().enumerate().map(|(i, number)| vec![(i + 1).to_string(), shortest(*number)]);
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
        let line = rows.lines.get(row).map_or(String::new(), u64::to_string);
        let label = label.map(|_| rows.labels.get(row).cloned().unwrap_or_default());
        let class = names.get(*class).cloned().unwrap_or_default();
        [line].into_iter().chain(label).chain([class]).chain(probabilities.iter().map(|p| shortest(*p))).collect()
    });
    write_csv(&out, &header, said)?;
    print(&format!(
        "wrote {}: the class of {} rows, each from the window of {window} that ends in it, from line {} on\n",
        out.display(),
        classes.len(),
        rows.lines.get(window - 1).unwrap_or(&0)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What follows a series, or each of several.
fn forecast(mut forecaster: Forecaster, args: Args) -> Result<ExitCode> {
    if holds_sequences(&args.data) {
        return Err(wrong_data(&args.model, &args.data, "a series in a CSV file, not sequences"));
    }
    let out = args.out();
    let plot = args.plot.clone().unwrap_or_else(|| args.model.with_file_name("prediction.svg"));
    files::check_writable(&out)?;
    files::check_writable(&plot)?;
    let config = forecaster.config().clone();
    // The calendar goes on by itself.
    let is_alone = config.inputs.is_empty() && known_in_file(&config).is_empty();
    let horizon = args.horizon.unwrap_or(if is_alone && config.horizon == 1 { 12 } else { config.horizon });
    let levels = config.correction.as_ref().and_then(|c| c.intervals.as_ref()).map_or(&[][..], |i| &i.levels);
    let of_levels = levels
        .iter()
        .flat_map(|level| ["lower", "upper"].map(|side| format!("{side} {} %", (1000.0 * level).round() / 10.0)));
    let label_of = |continued: &Continued| {
        let label = continued.rows.series.label_name.as_deref();
        label.filter(|_| continued.axis.is_labelled()).unwrap_or("step").to_owned()
    };
    if let Some(series) = panel::of_model(&args.data, &config, args.gaps, &args.reading)? {
        if let Some(column) = args.column {
            let expected = format!("none, for the model reads the series of column {}", plain(&config.column));
            return Err(Error::InvalidOption { option: "column".to_owned(), expected, got: column });
        }
        let needed = config.context();
        let is_long = |one: &OneSeries| one.rows.values.nrows() >= needed;
        let series =
            panel::long_enough(series, &args.data, is_long, &format!("the {needed} values that the model reads"))?;
        let shown = match &args.series {
            None => 0,
            Some(key) => series.iter().position(|one| one.key == *key).ok_or_else(|| {
                let keys: Vec<String> = series.iter().map(|one| one.key.clone()).collect();
                Error::InvalidOption {
                    option: "series".to_owned(),
                    expected: format!("one of {}", listed(&keys)),
                    got: key.clone(),
                }
            })?,
        };
        let mut lines: Vec<Vec<String>> = Vec::new();
        let mut label = String::new();
        for (place, one) in series.into_iter().enumerate() {
            panel::scale(&mut forecaster, &one.key, &one.rows.complete.values)?;
            let continued = Continued::of(&mut forecaster, one.rows, horizon)?;
            lines.extend(continued.lines().map(|line| [vec![one.key.clone()], line].concat()));
            if place == shown {
                label = label_of(&continued);
                continued.picture(forecaster.config())?.save(&plot)?;
            }
        }
        let panel = config.panel.as_ref().map_or("series", |panel| panel.column.as_str());
        let header = [panel.to_owned(), label, config.column.clone()].into_iter().chain(of_levels).collect::<Vec<_>>();
        write_csv(&out, &header.iter().map(String::as_str).collect::<Vec<_>>(), lines)?;
    } else {
        if let Some(key) = &args.series {
            return Err(Error::Unsupported {
                what: format!("--series {key} for {}", args.model.display()),
                why: "the model is for one series".to_owned(),
            });
        }
        let rows = Rows::of_model(&args.data, &config, args.column, args.gaps, &args.reading)?;
        let continued = Continued::of(&mut forecaster, rows, horizon)?;
        let header: Vec<String> =
            [label_of(&continued), continued.rows.series.name.clone()].into_iter().chain(of_levels).collect();
        write_csv(&out, &header.iter().map(String::as_str).collect::<Vec<_>>(), continued.lines())?;
        continued.picture(&config)?.save(&plot)?;
    }
    print(&format!("wrote {} and {}\n", out.display(), plot.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// A series, and what follows it.
struct Continued {
    rows: Rows,
    axis: TimeAxis,
    ahead: Vec<f64>,
    /// Lower and upper bound of each level, of each value.
    bounds: Vec<Vec<(f64, f64)>>,
}

impl Continued {
    fn of(forecaster: &mut Forecaster, rows: Rows, horizon: usize) -> Result<Self> {
        let config = forecaster.config();
        if rows.values.nrows() < config.context() {
            return Err(Error::Data {
                source_name: rows.series.source_name,
                line: None,
                problem: format!(
                    "too few rows: column {} has {} values, but the model reads {}",
                    plain(&rows.series.name),
                    rows.values.nrows(),
                    config.context()
                ),
            });
        }
        let (values, future, axis) = (rows.for_model(config)?, rows.future_for(config, horizon)?, rows.axis());
        let ahead = forecaster.forecast_known(&values, future.view(), horizon)?;
        let correction = forecaster.config().correction.as_ref();
        let bounds =
            ahead.iter().enumerate().map(|(i, value)| correction.map_or(Vec::new(), |c| c.bounds(*value, i))).collect();
        Ok(Continued { rows, axis, ahead, bounds })
    }

    /// The rows of a file: the date or the number of the step, the value, the bounds.
    fn lines(&self) -> impl Iterator<Item = Vec<String>> {
        let known = self.rows.complete.values.len();
        self.ahead.iter().zip(&self.bounds).enumerate().map(move |(i, (value, bounds))| {
            let step = if self.axis.is_labelled() { self.axis.label(known + i) } else { (i + 1).to_string() };
            let sides = bounds.iter().flat_map(|(lower, upper)| [shortest(*lower), shortest(*upper)]);
            [step, shortest(*value)].into_iter().chain(sides).collect()
        })
    }

    fn picture(&self, config: &ForecastConfig) -> Result<LinePlot> {
        let Continued { rows, axis, ahead, bounds } = self;
        let (series, values, horizon) = (&rows.series, &rows.complete.values, ahead.len());
        // As much of the past as tells the future's shape, and at least two windows of it.
        let tail = values.len().min((4 * horizon).max(2 * config.window));
        let start = values.len() - tail;
        let point = |(i, value): (usize, &f64)| (axis.position(i), *value);
        let last = values.iter().enumerate().next_back();
        let known = values.iter().enumerate().skip(start).map(point);
        let forecast = last.into_iter().chain((values.len()..).zip(ahead)).map(point);
        let file = file_name(series);
        let mut picture = LinePlot::new(format!("{file}: forecast of {}", plain(&series.name)))
            .subtitle(format!("{} after the end of {file}{}", counted(horizon, "value"), shaded(config)))
            .x_label(x_label(series, axis))
            .x_dates(axis.is_date())
            .y_label(series.name.clone());
        for level in (0..bounds.first().map_or(0, Vec::len)).rev() {
            let points = bounds
                .iter()
                .enumerate()
                .filter_map(|(i, of)| of.get(level).map(|of| (axis.position(values.len() + i), of.0, of.1)));
            picture = picture.band(points, Colour::VERMILLION);
        }
        picture = picture.curve(Curve::new("known", known).colour(Colour::GREY));
        if let Some(season) = config.correction.as_ref().map(|c| c.season).filter(|season| *season > 1) {
            let simple = Baseline::SeasonalNaive.forecast(values, season, horizon)?;
            let points = simple.iter().enumerate().map(|(i, value)| (axis.position(values.len() + i), *value));
            picture = picture.curve(Curve::new("seasonal naive", points).colour(Colour::BLUE).dashed().width(1.5));
        }
        Ok(picture
            .curve(Curve::new("forecast", forecast).colour(Colour::VERMILLION))
            .mark(axis.position(values.len()), "forecast from here"))
    }
}
