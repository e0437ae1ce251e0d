//! `fused-rnn export`: a model of ours as a file of other programs.

use std::path::PathBuf;
use std::process::ExitCode;

use fused_rnn::exchange::onnx;
use fused_rnn::model::Model;
use fused_rnn::{Device, Error, Result};

use crate::output::print;

/// Writes a model as an ONNX file, which ONNX Runtime runs to the same numbers.
#[derive(clap::Args)]
pub struct Args {
    /// The model, a file that `train`, `import` or `Model::save` wrote.
    model: PathBuf,
    /// The file to write; its name ends in .onnx.
    out: PathBuf,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if args.out.extension().is_none_or(|end| !end.eq_ignore_ascii_case("onnx")) {
        return Err(Error::InvalidOption {
            option: "out".to_owned(),
            expected: "a name that ends in .onnx".to_owned(),
            got: args.out.display().to_string(),
        });
    }
    let model = Model::load(Device::cpu(), &args.model)?;
    onnx::write(&model, &args.out)?;
    print(&format!("{} -> {}\n", args.model.display(), args.out.display()))?;
    Ok(ExitCode::SUCCESS)
}
