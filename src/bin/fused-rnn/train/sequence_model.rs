//! Training on sequences that have been prepared, from a `.ts` file or as windows of rows of a CSV file, and the report on it.

use std::process::ExitCode;
use std::time::Instant;

use fused_rnn::data::TimeSeriesSet;
use fused_rnn::metrics::Metric;
use fused_rnn::model::{SequenceConfig, SequenceModel, SequenceTarget};
use fused_rnn::optim::Adam;
use fused_rnn::{Error, Result};

use super::checkpoints::Checkpoints;
use super::options::{Args, Outputs};
use super::run::{ending, finish, fit, loss_plot, report, settle};
use crate::data_file::in_file;
use crate::interrupt;
use crate::output::{note, print};
use crate::progress::Progress;
use crate::report::{MOST_IN_PICTURE, Report};

/// Sequences, prepared for training.
pub struct SequenceTraining {
    pub args: Args,
    pub train: TimeSeriesSet,
    pub validation: Option<TimeSeriesSet>,
    pub test: Option<TimeSeriesSet>,
    pub config: SequenceConfig,
    pub outputs: Outputs,
    /// What is said of the data before training.
    pub description: String,
}

/// Everything that the results of a training depend on, as bytes: how sequences are learned, and their values.
fn numbers(config: &SequenceConfig, sets: [Option<&TimeSeriesSet>; 3]) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(config).map_err(Error::other)?;
    for set in sets.into_iter().flatten() {
        let lengths = set.sequences.iter().map(|sequence| sequence.nrows());
        bytes.extend(lengths.chain(set.labels.iter().copied()).flat_map(|number| number.to_le_bytes()));
        let values = set.sequences.iter().flatten().chain(&set.targets);
        bytes.extend(values.flat_map(|value| value.to_le_bytes()));
        set.classes.iter().for_each(|class| bytes.extend(class.as_bytes()));
    }
    Ok(bytes)
}

impl SequenceTraining {
    /// Trains, reports, and writes the results.
    pub fn run(self) -> Result<ExitCode> {
        let SequenceTraining { args, train, validation, test, config, outputs, description } = self;
        let data = numbers(&config, [Some(&train), validation.as_ref(), test.as_ref()])?;
        let args = Args { checkpoints: Checkpoints::prepare(&args, &outputs, &data)?, ..args };
        let device = args.device.open_in(args.precision)?;
        let optimizer = Adam::new(args.learning_rate)?;
        let mut model = SequenceModel::new(device, config, args.network.layers()?, args.seed)?;
        let loss = model.loss();
        model.model().compile(optimizer, loss)?;
        if let SequenceTarget::Classes(_) = model.config().target {
            model.model().metrics(&[Metric::Accuracy]);
        }
        let samples = |set: &TimeSeriesSet| Ok::<_, Error>((model.inputs(&set.sequences)?, model.targets(set)?));
        let (x, y) = samples(&train).map_err(in_file(&args.data))?;
        let validation = validation.as_ref().map(samples).transpose().map_err(in_file(&args.data))?;
        if let Some(test) = &test {
            // Whatever is wrong with it is said before anything takes time.
            samples(test).map_err(in_file(args.test.as_ref().unwrap_or(&args.data)))?;
        }
        // From here on there is something to keep.
        interrupt::listen();
        if !args.quiet {
            print(&description)?;
            print(&format!("{}\n", model.model().summary()))?;
        }

        let mut progress = Progress::new(args.epochs, args.quiet);
        let started = Instant::now();
        let validation = validation.as_ref().map(|(x, y)| (x.view().into_dyn(), y.view()));
        let trained = fit(model.model(), &args, x.view().into_dyn(), y.view(), validation, &mut progress, 0);
        let Some(outcome) = settle(trained, &progress, &args, &outputs.model, || model.save(&outputs.model))? else {
            return Ok(interrupt::exit_code());
        };
        report(&outputs, || {
            let target = model.config().rows.as_ref().map(|rows| rows.target.as_str());
            let (loss, of) = match model.config().target {
                SequenceTarget::Classes(_) => ("cross-entropy", ""),
                SequenceTarget::Number(_) => ("mean squared error", " of scaled numbers"),
            };
            loss_plot(&args, target, (loss, of), &progress).save(&outputs.loss)?;
            if !args.quiet {
                print(&format!("{}\n", ending(&outcome, &progress, started)))?;
            }
            let mut written = vec![&outputs.model, &outputs.loss];
            if let Some(test) = &test {
                let (report, name) = (Report::of(&mut model, test)?, args.network.name());
                print(&report.text("test", &name, args.quiet)?)?;
                if train.classes.len() > MOST_IN_PICTURE {
                    note(&format!(
                        "no confusion matrix is drawn: {} classes are too many to be told apart",
                        train.classes.len()
                    ));
                } else {
                    report.save_picture(&name, args.test.as_ref().unwrap_or(&args.data), &outputs.test)?;
                    written.push(&outputs.test);
                }
            }
            finish(&args, &written, &outcome, &outputs)
        })
    }
}
