//! `fused-rnn train` on columns of a CSV file: a model that continues a series, and its error beside those of simple
//! forecasts.

use std::process::ExitCode;
use std::time::Instant;

use fused_rnn::data::{ColumnChoice, Scaler, Series, TimeAxis, TimeSplit, has_trend};
use fused_rnn::forecast::Reference;
use fused_rnn::model::{
    Correction, ForecastConfig, Forecaster, History, InputColumn, Known, KnownColumn, Outcome, SeenSeries,
};
use fused_rnn::nn::Loss;
use fused_rnn::optim::Adam;
use fused_rnn::{Error, Result};
use ndarray::{Array2, Array3, s};

use super::checkpoints::Checkpoints;
use super::options::{Args, Choice, Learn, Outputs, WINDOW};
use super::run::{ending, finish, fit, loss_plot, report, settle};
use crate::baselines::season;
use crate::calendar;
use crate::future::check_learned;
use crate::interrupt;
use crate::output::{listed, plain, print, remark};
use crate::pictures::{compare, coverage, forecast_plot};
use crate::progress::Progress;
use crate::rows::Rows;

/// A series, prepared for training.
struct SeriesTraining {
    args: Args,
    rows: Rows,
    prepared: Prepared,
    outputs: Outputs,
}

/// Reads the series, trains on it, and reports.
pub fn train(args: Args) -> Result<ExitCode> {
    args.refuse(
        &[("test", args.test.is_some()), ("length", args.length.is_some())],
        "it is for .ts files of sequences; the last part of a CSV file is held back with --test-fraction",
    )?;
    let rows = read(&args)?;
    let split = TimeSplit::new(rows.values.nrows(), args.validation_fraction, args.test_fraction)?;
    let prepared = prepare(&args, &rows, split)?;
    let outputs = Outputs::prepare(&args, "forecast.svg")?;
    let data = numbers(&prepared.config, [&prepared.values].into_iter())?;
    let args = Args { checkpoints: Checkpoints::prepare(&args, &outputs, &data)?, ..args };
    SeriesTraining { rows, prepared, outputs, args }.run()
}

/// Everything that the results of a training depend on, as bytes: how series are learned, and their values.
pub fn numbers<'v>(config: &ForecastConfig, values: impl Iterator<Item = &'v Array2<f64>>) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(config).map_err(Error::other)?;
    values.for_each(|values| bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())));
    Ok(bytes)
}

/// Reads the columns that the options name.
pub fn read(args: &Args) -> Result<Rows> {
    let gaps = args.gaps.unwrap_or_default();
    let reading = args.reading.options()?;
    let rows = if args.columns.is_some() || args.target.is_some() {
        Rows::choose(&args.data, args.columns.as_deref(), args.target.as_deref(), &args.known, gaps, &reading)?
    } else {
        let choice = args.column.clone().map_or(ColumnChoice::LastNumeric, ColumnChoice::Named);
        Rows::read(&args.data, &choice, &[], &args.known, gaps, &reading)?
    };
    check_learned(std::iter::once(&rows))?;
    Ok(rows)
}

/// Longest season that is forecast where no horizon is asked for.
pub const LONGEST_SEASON: usize = 60;

/// Most seeds: each is a training.
pub const MOST_SEEDS: usize = 100;

/// How a series is learned.
pub struct Prepared {
    pub split: TimeSplit,
    pub config: ForecastConfig,
    /// All columns that the model reads: those of the file, then those of the calendar.
    pub values: Array2<f64>,
    /// The reference fitted to all before the test part, where one is corrected.
    pub fitted_to_all: Option<Reference>,
    /// Values of a season; 1 for none.
    pub season: usize,
    /// Why one value is forecast at once though there is a season.
    pub why_one: Option<String>,
}

/// Chooses what is not told, on the values before the test part alone.
pub fn prepare(args: &Args, rows: &Rows, mut split: TimeSplit) -> Result<Prepared> {
    let learn = args.learn.unwrap_or(Learn::Auto);
    let corrects = matches!(learn, Learn::Auto | Learn::Correction);
    if args.season == Some(0) {
        return Err(Error::ZeroSize { name: "season" });
    }
    let end = split.test.start;
    let axis = TimeAxis::new(&rows.complete.labels);
    let seen = rows.values.slice(s![..end, 0]).to_vec();
    let (detected, is_of_calendar) = season(&axis, &seen, rows.values.nrows());
    let season = args.season.unwrap_or(detected);
    let usual = if corrects && is_of_calendar && season <= LONGEST_SEASON { season } else { 1 };
    let fits = |horizon: usize| 5 * horizon <= end && (split.test.is_empty() || horizon <= split.test.len());
    let horizon = args.horizon.unwrap_or(if fits(usual) { usual } else { 1 });
    let why_one = (args.horizon.is_none() && usual > 1 && !fits(usual)).then(|| why_one(usual, end, split.test.len()));
    // What the horizon is measured on must hold several forecasts of it.
    let validation = match split.validation.len() {
        0 => 0,
        _ if !corrects => split.validation.len(),
        some => some.max(2 * horizon.min(end)).min((end / 3).max(some)),
    };
    split.train.end = end - validation;
    split.validation = end - validation..end;
    let usual = WINDOW.max(if season <= LONGEST_SEASON { season } else { 1 });
    let usual = if corrects { usual.min((split.train.len() / 3).max(1)) } else { WINDOW };
    let learned = |column: usize| rows.values.slice(s![split.train.clone(), column]).to_vec();
    let difference = |values: &[f64]| match learn {
        Learn::Values => false,
        Learn::Changes => true,
        Learn::Auto | Learn::Correction => has_trend(values),
    };
    let values = learned(0);
    let mut config = ForecastConfig {
        column: rows.column.clone(),
        inputs: Vec::new(),
        known: Vec::new(),
        panel: None,
        gaps: args.gaps.unwrap_or_default(),
        window: args.window.unwrap_or(usual),
        horizon,
        difference: difference(&values),
        scaler: Scaler::IDENTITY,
        correction: None,
        reading: rows.reading.clone(),
    };
    let others: Vec<_> = (1..).zip(&rows.others).map(|(i, name)| (name, learned(i))).collect();
    let unfitted = |(name, values): &(&String, Vec<f64>)| InputColumn {
        column: (*name).clone(),
        difference: difference(values),
        scaler: Scaler::IDENTITY,
    };
    config.inputs = others.iter().map(unfitted).collect();
    check_length(args, &rows.series, &config, &split)?;
    let scaler = |difference| if difference || corrects { Scaler::standard } else { Scaler::min_max };
    for (input, (_, values)) in config.inputs.iter_mut().zip(&others) {
        *input = InputColumn::fitted(&input.column, input.difference, scaler(input.difference), values)?;
    }
    for (i, name) in rows.known.iter().enumerate() {
        let scaler = Scaler::standard(&learned(1 + rows.others.len() + i))?;
        config.known.push(KnownColumn { source: Known::Column(name.clone()), scaler });
    }
    let told = Choice::told(args.calendar);
    let features = if told == Some(false) { Vec::new() } else { calendar::features(&axis, season, end) };
    if told == Some(true) && features.is_empty() {
        return Err(Error::Unsupported {
            what: "--calendar on".to_owned(),
            why: format!(
                "{} has no dates of days over a week or two years, or its season of {season} says as much",
                rows.series.source_name
            ),
        });
    }
    let with_calendar = ForecastConfig { known: [&config.known[..], &features].concat(), ..config.clone() };
    if !corrects {
        config.fit_scaler(scaler(config.difference), &values)?;
        if told == Some(true) {
            config.known = with_calendar.known;
        }
        let values = rows.for_model(&config)?;
        return Ok(Prepared { split, config, values, fitted_to_all: None, season, why_one });
    }
    let mut best: Option<Prepared> = None;
    let mut least = f64::INFINITY;
    let without = (told != Some(true)).then_some(config);
    for mut config in without.into_iter().chain((!features.is_empty()).then_some(with_calendar)) {
        let values = rows.for_model(&config)?;
        let seen = SeenSeries { values: values.view(), end };
        let chosen = config.choose_correction(&[seen], validation, season, Choice::told(args.log))?;
        if best.is_none() || chosen.error < least {
            least = chosen.error;
            let fitted_to_all = Some(chosen.fitted_to_all);
            best = Some(Prepared {
                split: split.clone(),
                config,
                values,
                fitted_to_all,
                season,
                why_one: why_one.clone(),
            });
        }
    }
    let prepared = best.ok_or(Error::ZeroSize { name: "number of values" })?;
    check_length(args, &rows.series, &prepared.config, &prepared.split)?;
    Ok(prepared)
}

/// Why a season is not forecast at once where no horizon is asked for.
pub fn why_one(season: usize, end: usize, test: usize) -> String {
    let before = 5 * season;
    let test =
        if test > 0 && test < season { format!(", and {season} in it, which has {test}") } else { String::new() };
    format!(
        "a whole season is forecast at once where there are {before} values before the test part, of which there are {end}{test}; \
         --horizon {season} asks for it"
    )
}

/// Says of intervals that they are no better than the largest of a few `errors`.
pub fn say_rough(correction: Option<&Correction>, errors: usize) {
    let levels = correction.and_then(|correction| correction.intervals.as_ref()).map_or(&[][..], |of| &of.levels);
    let needed = |level: f64| (level / (1.0 - level)).ceil();
    let rough: Vec<String> = levels
        .iter()
        .filter(|level| needed(**level) > errors as f64)
        .map(|level| format!("of {} % (which need {:.0})", (1000.0 * level).round() / 10.0, needed(*level)))
        .collect();
    if errors > 0 && !rough.is_empty() {
        remark(&format!(
            "intervals {} are rough: they are as wide as the largest of {errors} errors of the validation part; a larger \
             --validation-fraction has more",
            rough.join(" and ")
        ));
    }
}

/// What a network learns from, and what it is validated on: windows, and what the network is to say of each.
pub struct Samples {
    pub train: (Array3<f32>, Array2<f32>),
    pub validation: Option<(Array3<f32>, Array2<f32>)>,
}

/// Trains a network on what was prepared, and lets it settle. Without a progress that was interrupted, the outcome is of the whole training.
pub fn fit_forecaster(
    args: &Args,
    prepared: &Prepared,
    progress: &mut Progress,
    described: impl FnOnce(&mut Forecaster) -> Result<()>,
) -> Result<(Forecaster, Result<History>)> {
    let Prepared { split, config, values, fitted_to_all, .. } = prepared;
    let samples = |forecaster: &mut Forecaster| {
        let validation = match split.validation.is_empty() {
            true => None,
            false => Some(forecaster.samples(values, split.validation.clone())?),
        };
        Ok(Samples { train: forecaster.samples(values, split.train.clone())?, validation })
    };
    fit_members(args, config, fitted_to_all.as_ref(), progress, samples, described)
}

/// Trains from each of the seeds, makes one model of them, and lets it settle.
pub fn fit_members(
    args: &Args,
    config: &ForecastConfig,
    fitted_to_all: Option<&Reference>,
    progress: &mut Progress,
    samples: impl FnOnce(&mut Forecaster) -> Result<Samples>,
    described: impl FnOnce(&mut Forecaster) -> Result<()>,
) -> Result<(Forecaster, Result<History>)> {
    if !(1..=MOST_SEEDS).contains(&args.seeds) {
        return Err(Error::InvalidOption {
            option: "seeds".to_owned(),
            expected: format!("1 to {MOST_SEEDS}"),
            got: args.seeds.to_string(),
        });
    }
    let device = args.device.open_in(args.precision)?;
    let start = |seed: u64| {
        let layers = args.network.layers()?;
        let mut forecaster = Forecaster::with_layers(device.clone(), config.clone(), layers, seed)?;
        forecaster.model().compile(Adam::new(args.learning_rate)?, Loss::MeanSquaredError)?;
        Ok::<_, Error>(forecaster)
    };
    let mut first = start(args.seed)?;
    let Samples { train: (x, y), validation } = samples(&mut first)?;
    // From here on there is something to keep.
    interrupt::listen();
    described(&mut first)?;
    let train = |forecaster: &mut Forecaster, progress: &mut Progress, member: usize| {
        let validation = validation.as_ref().map(|(x, y)| (x.view().into_dyn(), y.view().into_dyn()));
        fit(forecaster.model(), args, x.view().into_dyn(), y.view().into_dyn(), validation, progress, member)
    };
    let mut trained = train(&mut first, progress, 0);
    let scale = first.config().correction.as_ref().map(|correction| correction.transform);
    let mut members = vec![first];
    for number in 1..args.seeds {
        if !trained.as_ref().is_ok_and(|history| history.outcome != Outcome::Interrupted) {
            break;
        }
        let seed = args.seed.wrapping_add(number as u64);
        let (mut member, mut silent) = (start(seed)?, Progress::silent());
        if let Some(scale) = scale {
            member.scale_by(scale);
        }
        match train(&mut member, &mut silent, number) {
            // What was cut short is left out: the others are as good without it.
            Ok(history) if history.outcome == Outcome::Interrupted => trained = Ok(history),
            Ok(_) => members.push(member),
            Err(error) => trained = Err(error),
        }
    }
    let mut forecaster = Forecaster::ensemble(members)?;
    if let (Some(all), Ok(_)) = (fitted_to_all, &trained) {
        let validation = validation.as_ref().map(|(x, y)| (x.view(), y.view()));
        forecaster.settle(validation, &args.intervals, all.clone())?;
    }
    Ok((forecaster, trained))
}

impl SeriesTraining {
    /// Trains, reports, and writes the results.
    fn run(self) -> Result<ExitCode> {
        let SeriesTraining { args, rows, prepared, outputs } = self;
        let mut progress = Progress::new(args.epochs, args.quiet);
        let started = Instant::now();
        let (mut forecaster, trained) = fit_forecaster(&args, &prepared, &mut progress, |forecaster| {
            if args.quiet {
                return Ok(());
            }
            print(&describe(&rows, &prepared, &args))?;
            print(&format!("{}\n", forecaster.model().summary()))
        })?;
        let Some(outcome) = settle(trained, &progress, &args, &outputs.model, || forecaster.save(&outputs.model))?
        else {
            return Ok(interrupt::exit_code());
        };
        report(&outputs, || {
            let validation = prepared.split.validation.len();
            say_rough(
                forecaster.config().correction.as_ref(),
                (validation + 1).saturating_sub(prepared.config.horizon),
            );
            loss_plot(&args, Some(&rows.series.name), ("mean squared error", " of scaled values"), &progress)
                .save(&outputs.loss)?;
            if !args.quiet {
                print(&format!("{}\n", ending(&outcome, &progress, started)))?;
                if let Some(correction) = &forecaster.config().correction {
                    let part = 100.0 * correction.share;
                    print(&format!(
                        "{part:.0} % of the network's correction is taken, the part that does best on the validation part\n"
                    ))?;
                }
            }
            let mut written = vec![&outputs.model, &outputs.loss];
            let test = &prepared.split.test;
            if !test.is_empty() {
                let backtest = forecaster.backtest(&prepared.values, test.clone())?;
                let name = name(&args);
                let comparison =
                    compare(&name, &rows, &backtest, forecaster.config(), prepared.season, Some(test.start))?;
                print(&comparison.table(&format!("test error, {} forecasts", backtest.truth.nrows()))?)?;
                print(&coverage(forecaster.config(), &backtest)?)?;
                forecast_plot(&name, "the part held back", &rows, &backtest, &comparison, forecaster.config())?
                    .save(&outputs.test)?;
                written.push(&outputs.test);
            }
            finish(&args, &written, &outcome, &outputs)
        })
    }
}

/// What the model is called in tables, as in `LSTM(50)` or `5 seeds of LSTM(50)`.
pub fn name(args: &Args) -> String {
    let one = args.network.name();
    if args.seeds == 1 { one } else { format!("{} seeds of {one}", args.seeds) }
}

/// Refuses a series whose parts hold no window, in the words of the command line.
fn check_length(args: &Args, series: &Series, config: &ForecastConfig, split: &TimeSplit) -> Result<()> {
    for (name, size) in [("window", config.window), ("horizon", config.horizon), ("epochs", args.epochs)] {
        if size == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    let fail = |problem: String| Err(Error::Data { source_name: series.source_name.clone(), line: None, problem });
    let total = split.test.end;
    let needed = config.context().saturating_add(config.horizon);
    if split.train.len() < needed {
        return fail(format!(
            "too few rows: of {total} values {} are left to train on, but {} + horizon {} need {needed}; use a smaller \
             --window, or smaller --test-fraction and --validation-fraction",
            split.train.len(),
            config.described_context(),
            config.horizon
        ));
    }
    for (name, part) in [("validation", &split.validation), ("test", &split.test)] {
        if !part.is_empty() && part.len() < config.horizon {
            return fail(format!(
                "too few rows: of {total} values the {name} part has {}, but --horizon {} needs at least as many; use a larger \
                 --{name}-fraction, or 0 to do without",
                part.len(),
                config.horizon
            ));
        }
    }
    Ok(())
}

fn describe(rows: &Rows, prepared: &Prepared, args: &Args) -> String {
    let Prepared { split, config, season, why_one, .. } = prepared;
    let why_one = why_one.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    let Rows { series, complete, others, .. } = rows;
    let learned = match (&config.correction, args.learn.unwrap_or(Learn::Auto)) {
        (Some(correction), _) => format!(
            "what is left over by {}{}",
            correction.reference.described(),
            if correction.transform.floor.is_some() { ", of logarithms" } else { "" }
        ),
        (None, Learn::Changes) => "changes".to_owned(),
        (None, _) => "values".to_owned(),
    };
    let of_season = match season {
        1 => "no season".to_owned(),
        some => format!("a season of {some}"),
    };
    let mut beside = if others.is_empty() { String::new() } else { format!(", read beside {}", listed(others)) };
    if !config.known.is_empty() {
        let names: Vec<&str> = config.known.iter().map(|known| known.source.name()).collect();
        beside += &format!(", with {} known ahead", names.join(", "));
    }
    let span = match (complete.labels.first(), complete.labels.last()) {
        (Some(first), Some(last)) if !first.is_empty() => format!(", {} to {}", plain(first), plain(last)),
        _ => String::new(),
    };
    let gaps = match complete.filled {
        0 => String::new(),
        n => format!(", {n} missing ({})", config.gaps),
    };
    format!(
        "{}: {} values of column {}{beside}{span}{gaps}\n\
         {of_season}; {} to train on, {} to validate, {} to test; forecasts {} at once from windows of {}{why_one}\n\
         learns {learned}\n\n",
        series.source_name,
        complete.values.len(),
        plain(&series.name),
        split.train.len(),
        split.validation.len(),
        split.test.len(),
        config.horizon,
        config.window
    )
}
