//! `fused-rnn plot`: a picture of a trained model's layers.

use std::path::PathBuf;
use std::process::ExitCode;

use fused_rnn::model::Trained;
use fused_rnn::{Device, Result, files};

use crate::output::print;

/// Draws a model as Keras's `plot_model` does: a box for each layer with its name, kind and shapes.
#[derive(clap::Args)]
pub struct Args {
    /// The model, a file that `train` or `Model::save` wrote.
    model: PathBuf,
    /// SVG file to write [default: the model's name with .svg, beside it].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let out = args.out.unwrap_or_else(|| args.model.with_extension("svg"));
    let mut trained = Trained::load(Device::cpu(), &args.model)?;
    let picture = trained.model().diagram()?;
    files::write_atomic(&out, picture.as_bytes())?;
    print(&format!("wrote {}\n", out.display()))?;
    Ok(ExitCode::SUCCESS)
}
