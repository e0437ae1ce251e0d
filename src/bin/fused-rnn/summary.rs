//! `fused-rnn summary`: what a trained model is made of, and what it is for.

use std::path::PathBuf;
use std::process::ExitCode;

use fused_rnn::model::{ForecastConfig, SequenceConfig, SequenceTarget, Trained};
use fused_rnn::{Device, Result};

use crate::output::{listed, plain, print};

/// Prints a model's layers with their numbers of weights, and what it reads and says.
#[derive(clap::Args)]
pub struct Args {
    /// The model, a file that `train` or `Model::save` wrote.
    model: PathBuf,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let mut trained = Trained::load(Device::cpu(), &args.model)?;
    print(&format!("{}\n{}\n", trained.model().summary(), described(&trained)))?;
    Ok(ExitCode::SUCCESS)
}

fn described(trained: &Trained) -> String {
    match trained {
        Trained::Forecaster(forecaster) => forecast(forecaster.config()),
        Trained::Sequences(model) => sequences(model.config()),
        Trained::Model(_) => "The file does not say what the model is for.".to_owned(),
    }
}

fn forecast(config: &ForecastConfig) -> String {
    let values = |count: usize, one: &str| if count == 1 { format!("the {one}") } else { format!("{count} {one}s") };
    let of = |difference: bool| if difference { "changes" } else { "values" };
    let mut text = format!(
        "Forecasts {} of column {} from windows of {} {}; gaps: {}.",
        values(config.horizon, "next value"),
        plain(&config.column),
        config.window,
        of(config.difference && config.correction.is_none()),
        config.gaps,
    );
    if let Some(correction) = &config.correction {
        text += &format!(
            "\nCorrects, by {:.0} % of what the network says, {}{}.",
            100.0 * correction.share,
            correction.reference.described(),
            if correction.transform.floor.is_some() { ", of logarithms" } else { "" },
        );
    }
    if let Some(panel) = &config.panel {
        let keys: Vec<String> = panel.series.iter().map(|series| series.key.clone()).collect();
        text += &format!("\nIs for the series that column {} names: {}.", plain(&panel.column), listed(&keys));
    }
    for known in &config.known {
        text += &format!("\nReads {} a horizon ahead.", plain(known.source.name()));
    }
    for input in &config.inputs {
        text += &format!("\nReads {} of column {} beside them.", of(input.difference), plain(&input.column));
    }
    text
}

fn sequences(config: &SequenceConfig) -> String {
    if let (Some(rows), SequenceTarget::Classes(names)) = (&config.rows, &config.target) {
        return format!(
            "Says the class of a row, as column {} has it ({}), from the window of {} rows that ends in it, of columns {}; gaps: {}.",
            plain(&rows.target),
            listed(names),
            config.steps,
            listed(&rows.columns),
            rows.gaps,
        );
    }
    let says = match &config.target {
        SequenceTarget::Classes(names) => format!("the class of a sequence ({})", listed(names)),
        SequenceTarget::Number(_) => "the number of a sequence".to_owned(),
    };
    format!("Says {says} of at most {} steps with {} features.", config.steps, config.scaler.columns().len())
}
