//! `fused-rnn predict`: a trained model continues a series.

use std::path::PathBuf;
use std::process::ExitCode;

use fused_rnn::backend::DenseBackend;
use fused_rnn::data::{ColumnChoice, Gaps, TimeAxis, read_series};
use fused_rnn::model::Forecaster;
use fused_rnn::plot::{Colour, Curve, LinePlot};
use fused_rnn::{Error, Result, files};

use crate::device::{Device, Work};
use crate::output::print;
use crate::train::{PLOT_SIZE, x_label};

/// Continues a column of a CSV file with a model that `train` wrote: into a CSV file with the dates going on where there are any,
/// and a plot. Steps beyond the model's own horizon are forecast from its earlier forecasts.
#[derive(clap::Args)]
pub struct Args {
    /// The model, a file that `train` wrote.
    model: PathBuf,
    /// CSV file with the series to continue.
    data: PathBuf,
    /// Values to forecast.
    #[arg(long, default_value_t = 12, value_name = "N")]
    horizon: usize,
    /// Column by name, or by number counted from 1 [default: the one that the model was trained on].
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Missing values: error, drop, interpolate or forward-fill [default: as in training].
    #[arg(long, value_name = "POLICY")]
    gaps: Option<Gaps>,
    /// Where to run the model: cpu, cuda or emulated.
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
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
    if !(1..=MOST).contains(&args.horizon) {
        return Err(Error::InvalidOption {
            option: "horizon".to_owned(),
            expected: format!("1 to {MOST}"),
            got: args.horizon.to_string(),
        });
    }
    let device = args.device;
    device.run(args)
}

impl Work for Args {
    type Output = ExitCode;

    fn on<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(self, backend: B) -> Result<ExitCode> {
        predict(backend, self)
    }
}

fn predict<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(backend: B, args: Args) -> Result<ExitCode> {
    let out = args.out.clone().unwrap_or_else(|| args.model.with_file_name("prediction.csv"));
    let plot = args.plot.clone().unwrap_or_else(|| args.model.with_file_name("prediction.svg"));
    let mut forecaster = Forecaster::load(backend, &args.model)?;
    files::check_writable(&out)?;
    files::check_writable(&plot)?;
    let config = forecaster.config().clone();
    let series = read_series(&args.data, &ColumnChoice::Named(args.column.unwrap_or(config.column)))?;
    let complete = args.gaps.unwrap_or(config.gaps).close(&series)?;
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
    let ahead = forecaster.forecast(values, args.horizon)?;

    let label = series.label_name.as_deref().filter(|_| axis.is_labelled()).unwrap_or("step");
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |e: String| Error::Format { path: out.clone(), format: "CSV", problem: e };
    writer.write_record([label, &series.name]).map_err(|e| failed(e.to_string()))?;
    for (i, value) in ahead.iter().enumerate() {
        let step = if axis.is_labelled() { axis.label(values.len() + i) } else { (i + 1).to_string() };
        writer.write_record([step, value.to_string()]).map_err(|e| failed(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.to_string()))?;
    files::write_atomic(&out, &bytes)?;

    // As much of the past as tells the future's shape, and at least two windows of it.
    let tail = values.len().min((4 * args.horizon).max(2 * forecaster.config().window));
    let start = values.len() - tail;
    let point = |(i, value): (usize, &f64)| (axis.position(i), *value);
    let last = (values.len() - 1, &values[values.len() - 1]);
    let known = (start..).zip(&values[start..]).map(point);
    let forecast = std::iter::once(last).chain((values.len()..).zip(&ahead)).map(point);
    LinePlot::new("Forecast")
        .subtitle(format!("{} values after the end of {}", args.horizon, series.source_name))
        .x_label(x_label(&series, &axis))
        .y_label(series.name.clone())
        .curve(Curve::new("known", known).colour(Colour::GREY))
        .curve(Curve::new("forecast", forecast).colour(Colour::VERMILLION))
        .size(PLOT_SIZE.0, PLOT_SIZE.1)
        .save(&plot)?;
    print(&format!("wrote {} and {}\n", out.display(), plot.display()))?;
    Ok(ExitCode::SUCCESS)
}
