//! `fused-rnn import`: models of other programs, read, checked and saved as ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fused_rnn::exchange::onnx::ImportOptions;
use fused_rnn::exchange::{self, Imported, arrays};
use fused_rnn::{Device, Error, Result};
use ndarray::ArrayD;

use crate::output::{WIDEST, one_line, print};

/// Reads models of other programs and saves them as models of this one, or checks them against recorded results.
///
/// Reads ONNX's .onnx, Keras's .keras, and weights alone, .weights.h5 and PyTorch's state_dicts as .safetensors, with --model. Without --check each becomes NAME.model.safetensors beside it, or where --out says. With --check each is run on
/// the arrays in_* of NAME.npz beside it, and compared with its out_*.
#[derive(clap::Args)]
#[command(after_help = "With --check the exit code is 0 if all files passed, 1 if any failed or could not be read.")]
pub struct Args {
    /// Models.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where to write the model, or the folder to write all of them to.
    #[arg(long, value_name = "FILE|FOLDER", conflicts_with = "check")]
    out: Option<PathBuf>,
    /// For files that hold weights alone: what the model is.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Compare each model with the recorded results beside it instead of saving it.
    #[arg(long)]
    check: bool,
    /// Largest relative error that passes.
    #[arg(long, value_name = "X", default_value_t = 1e-5, requires = "check")]
    tolerance: f64,
    /// For PyTorch's weights: which layer of the model gets a module, as in lstm=lstm,fc=dense.
    #[arg(long, value_name = "MODULE=LAYER,…", value_delimiter = ',', requires = "model")]
    map: Vec<String>,
    /// Which axis of an input has the samples, where the file does not say it.
    #[arg(long, value_name = "INPUT=AXIS")]
    batch_axis: Vec<String>,
    /// Length of an axis that has a name instead. With --check the arrays say it.
    #[arg(long, value_name = "NAME=LENGTH")]
    dim: Vec<String>,
    /// Length of axes of any length in a Keras file. With --check the arrays say it.
    #[arg(long, value_name = "LENGTH")]
    steps: Option<usize>,
    /// Value of an input that is always the same.
    #[arg(long, value_name = "INPUT=VALUE")]
    set: Vec<String>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let options = options(&args)?;
    if args.check {
        return check(&args, &options);
    }
    let folder = match &args.out {
        Some(out) if out.is_dir() => Some(out.clone()),
        Some(out) if args.files.len() > 1 => {
            return Err(Error::InvalidOption {
                option: "out".to_owned(),
                expected: "a folder that is there, since there are several files".to_owned(),
                got: out.display().to_string(),
            });
        }
        _ => None,
    };
    for file in &args.files {
        let imported = read(file, args.model.as_deref(), &args, &options)?;
        let target = match (&folder, &args.out) {
            (Some(folder), _) => folder.join(saved_name(file)),
            (None, Some(out)) => out.clone(),
            (None, None) => file.with_file_name(saved_name(file)),
        };
        imported.save(&target)?;
        let weights = imported.model.count_params();
        let line = format!("{} -> {}: {weights} weights{}", file.display(), target.display(), left_out(&imported));
        print(&format!("{}\n", one_line(&line)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a file, or the weights in it by a map.
fn read(file: &Path, model: Option<&Path>, args: &Args, options: &ImportOptions) -> Result<Imported> {
    let map = &args.map;
    let is_keras = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("keras"));
    if let (Some(steps), None, true) = (args.steps, model, is_keras) {
        return exchange::keras::read_with_steps(Device::cpu(), file, steps);
    }
    let (Some(model), false) = (model, map.is_empty()) else {
        return exchange::read_with(Device::cpu(), file, model, options);
    };
    let pairs = map.iter().map(|pair| pair.split_once('=')).collect::<Option<Vec<_>>>();
    let pairs = pairs.ok_or_else(|| Error::InvalidOption {
        option: "map".to_owned(),
        expected: "pairs such as lstm=lstm,fc=dense".to_owned(),
        got: map.join(","),
    })?;
    let is_saved = model.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"));
    let mut imported = match is_saved {
        true => Imported::load(Device::cpu(), model)?,
        false => exchange::read_with(Device::cpu(), model, None, options)?,
    };
    exchange::torch::load(&mut imported.model, file, &pairs)?;
    Ok(imported)
}

fn left_out(imported: &Imported) -> String {
    let mut text = String::new();
    if !imported.unused.is_empty() {
        text += &format!("; without inputs that nothing depends on: {}", imported.unused.join(", "));
    }
    if !imported.left_out.is_empty() {
        text += &format!("; of its training is left out: {}", imported.left_out.join("; "));
    }
    text
}

/// `NAME=NUMBER` as its two halves.
fn pair<T: std::str::FromStr>(option: &str, text: &str) -> Result<(String, T)> {
    let parsed = text.rsplit_once('=').and_then(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)));
    parsed.ok_or_else(|| Error::InvalidOption {
        option: option.to_owned(),
        expected: "NAME=NUMBER".to_owned(),
        got: text.to_owned(),
    })
}

fn options(args: &Args) -> Result<ImportOptions> {
    let mut options = ImportOptions::default();
    for text in &args.batch_axis {
        let (name, axis) = pair("batch-axis", text)?;
        options = options.batch_axis(&name, axis);
    }
    for text in &args.dim {
        let (name, length) = pair("dim", text)?;
        options = options.dim(&name, length);
    }
    for text in &args.set {
        let (name, value) = pair("set", text)?;
        options = options.constant(&name, value);
    }
    Ok(options)
}

/// What is left of a file's name without what says its kind.
fn stem(file: &Path) -> String {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let known = [".onnx", ".keras", ".weights.h5", ".safetensors", ".h5"];
    known.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name).to_owned()
}

fn saved_name(file: &Path) -> String {
    format!("{}.model.safetensors", stem(file))
}

/// The recorded arrays for a file: `NAME.npz` beside it, where NAME is the longest beginning of its own name up to an underscore or the end.
fn recorded(file: &Path) -> Option<PathBuf> {
    let whole = stem(file);
    let mut name = whole.as_str();
    loop {
        let candidate = file.with_file_name(format!("{name}.npz"));
        if candidate.is_file() {
            return Some(candidate);
        }
        name = name.rsplit_once(['_', '.'])?.0;
    }
}

/// What says the architecture of a file that holds weights alone: the ONNX or Keras file of the same name beside it.
fn architecture(file: &Path, given: Option<&Path>) -> Option<PathBuf> {
    let name = file.to_string_lossy();
    if given.is_some() || !(name.ends_with(".safetensors") || name.ends_with(".weights.h5")) {
        return given.map(Path::to_owned);
    }
    let beside = [".keras", ".onnx"].map(|end| file.with_file_name(format!("{}{end}", stem(file))));
    beside.into_iter().find(|path| path.is_file())
}

/// The worst of a file's outputs.
struct Worst {
    error: f64,
    output: String,
    note: String,
}

fn check(args: &Args, options: &ImportOptions) -> Result<ExitCode> {
    let names: Vec<String> = args
        .files
        .iter()
        .map(|file| file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()))
        .collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(WIDEST);
    let mut failed = 0;
    for (file, name) in args.files.iter().zip(&names) {
        let worst = check_file(file, args, options);
        let (passed, rest) = match &worst {
            Ok(worst) => {
                (worst.error <= args.tolerance, format!("{:9.2e}  {}{}", worst.error, worst.output, worst.note))
            }
            Err(error) => (false, format!("error: {error}")),
        };
        failed += usize::from(!passed);
        let line = format!("{name:width$}  {}  {rest}", if passed { "PASS" } else { "FAIL" });
        print(&format!("{}\n", one_line(&line)))?;
    }
    print(&format!("{} passed, {failed} failed\n", args.files.len() - failed))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_file(file: &Path, args: &Args, options: &ImportOptions) -> Result<Worst> {
    let model = args.model.as_deref();
    let architecture = architecture(file, model);
    let missing = |problem: String| Error::Data { source_name: file.display().to_string(), line: None, problem };
    let arrays = recorded(file).map(|recorded| arrays::read(&recorded)).transpose()?;
    let inputs = arrays.as_ref().map(|arrays| numbered(arrays, "in_")).unwrap_or_default();
    // They say how long axes are that the file gives no length.
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|(_, array)| array.shape().to_vec()).collect();
    let mut imported = read(file, architecture.as_deref(), args, &options.clone().shapes(&shapes))?;
    let arrays =
        arrays.as_ref().ok_or_else(|| missing(format!("there is no {}.npz beside it to compare with", stem(file))))?;
    let outputs = numbered(arrays, "out_");
    // Arrays are numbered as the file's inputs are, of which some may not be the model's.
    let given: Vec<&ArrayD<f64>> = match inputs.len() == imported.inputs.len() {
        true => inputs.iter().map(|(_, array)| *array).collect(),
        false => {
            let own = |name: &String| inputs.iter().find(|(other, _)| *other == name).map(|(_, array)| *array);
            let found: Option<Vec<_>> = imported.inputs.iter().map(|port| own(&port.name)).collect();
            found
                .ok_or_else(|| missing(format!("{} inputs, but {} arrays in_*", imported.inputs.len(), inputs.len())))?
        }
    };
    if outputs.is_empty() || outputs.len() > imported.outputs.len() {
        return Err(missing(format!("{} outputs, but {} arrays out_*", imported.outputs.len(), outputs.len())));
    }
    let single: Vec<ArrayD<f32>> = given.iter().map(|array| array.mapv(|value| value as f32)).collect();
    let results = imported.predict(&single.iter().map(|array| array.view()).collect::<Vec<_>>())?;
    let mut worst = Worst { error: -1.0, output: String::new(), note: left_out(&imported) };
    if let (Some(architecture), None) = (&architecture, model) {
        worst.note += &format!("; what it is: {}", architecture.display());
    }
    for ((name, expected), result) in outputs.iter().zip(&results) {
        if expected.shape() != result.shape() {
            return Err(missing(format!(
                "{name}: recorded with shape {:?}, computed with {:?}",
                expected.shape(),
                result.shape()
            )));
        }
        // Relative to the tensor's largest element: a difference of two numbers that cancel has the error of both.
        let scale = expected.iter().fold(0f64, |most, value| most.max(value.abs())).max(f64::MIN_POSITIVE);
        let error = expected.iter().zip(result).fold(0f64, |most, (a, b)| {
            let error = (a - f64::from(*b)).abs() / scale;
            if error.is_nan() { f64::INFINITY } else { most.max(error) }
        });
        if error > worst.error {
            (worst.error, worst.output) = (error, (*name).clone());
        }
    }
    Ok(worst)
}

/// Arrays whose names begin so, in the order of the numbers that follow.
fn numbered<'a>(arrays: &'a BTreeMap<String, ArrayD<f64>>, prefix: &str) -> Vec<(&'a String, &'a ArrayD<f64>)> {
    let number = |name: &str| name.strip_prefix(prefix)?.parse::<usize>().ok();
    let mut found: Vec<_> = arrays.iter().filter(|(name, _)| name.starts_with(prefix)).collect();
    found.sort_by_key(|(name, _)| number(name).unwrap_or(usize::MAX));
    found
}
