//! `fused-rnn export`: a model of ours as a file of other programs.

use std::path::PathBuf;
use std::process::ExitCode;

use fused_rnn::exchange::{keras, onnx, torch};
use fused_rnn::model::Model;
use fused_rnn::{Device, Error, Result};

use crate::output::{one_line, print};

/// Writes a model as a file of another program, which the file's name says: .onnx for ONNX Runtime, .keras or .weights.h5 for Keras,
/// .safetensors for PyTorch's load_state_dict.
#[derive(clap::Args)]
pub struct Args {
    /// The model, a file that `train`, `import` or `Model::save` wrote.
    model: PathBuf,
    /// The file to write.
    out: PathBuf,
    /// For .safetensors: which module of PyTorch's a layer here becomes, as in lstm=lstm,fc=dense.
    #[arg(long, value_name = "MODULE=LAYER,…", value_delimiter = ',')]
    map: Vec<String>,
    /// For .safetensors: a state_dict whose modules it has the names of, instead of --map.
    #[arg(long, value_name = "FILE", conflicts_with = "map")]
    like: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let name = args.out.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let is_state_dict = name.ends_with(".safetensors");
    let wrong = |option: &str, expected: &str, got: String| {
        Err(Error::InvalidOption { option: option.to_owned(), expected: expected.to_owned(), got })
    };
    let known = [".onnx", ".keras", ".weights.h5", ".safetensors"];
    if !known.iter().any(|end| name.ends_with(end)) {
        return wrong(
            "OUT",
            "a name that ends in .onnx, .keras, .weights.h5 or .safetensors",
            args.out.display().to_string(),
        );
    }
    if !is_state_dict && (args.like.is_some() || !args.map.is_empty()) {
        return wrong("--map, --like", "a file that ends in .safetensors", args.out.display().to_string());
    }
    let mut map = Vec::new();
    for pair in &args.map {
        let Some((module, layer)) = pair.split_once('=') else {
            return wrong("--map", "pairs such as lstm=lstm,fc=dense", pair.clone());
        };
        map.push((module.to_owned(), layer.to_owned()));
    }
    let model = Model::load(Device::cpu(), &args.model)?;
    if let Some(like) = &args.like {
        map = torch::map(&model, like)?;
    }
    if is_state_dict && map.is_empty() {
        let layers: Vec<_> = model.config()?.layers.into_iter().map(|layer| layer.name).collect();
        let expected = format!("modules of PyTorch's for the layers {}, or --like FILE", layers.join(", "));
        return wrong("--map", &expected, "none".to_owned());
    }
    let pairs: Vec<_> = map.iter().map(|(module, layer)| (module.as_str(), layer.as_str())).collect();
    match () {
        () if is_state_dict => torch::save(&model, &args.out, &pairs)?,
        () if name.ends_with(".keras") => keras::write(&model, &args.out)?,
        () if name.ends_with(".weights.h5") => keras::write_weights(&model, &args.out)?,
        () => onnx::write(&model, &args.out)?,
    }
    print(&format!("{}\n", one_line(&format!("{} -> {}", args.model.display(), args.out.display()))))?;
    Ok(ExitCode::SUCCESS)
}
