//! Options, device, pictures and result lines of the examples.
#![allow(dead_code, reason = "not every example uses all of it")]

pub mod recall;

use std::path::PathBuf;

use fused_rnn::{Device, Error, Result};
use ndarray::{Array2, ArrayD};

/// Options common to all examples.
#[derive(Clone, Debug)]
pub struct Options {
    /// Few epochs or little data: the example runs, but its results mean little.
    pub short: bool,
    /// Name of the device: `cpu`, `cuda`, `emulated` or `ptx`.
    pub device: String,
    /// Folder for pictures.
    pub out: PathBuf,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The example's own arguments.
    pub rest: Vec<String>,
}

impl Options {
    /// The device of `--device`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where this build or this machine has no such device: an example never falls back to another one.
    pub fn device(&self) -> Result<Device> {
        match self.device.as_str() {
            "cpu" => Ok(Device::cpu()),
            #[cfg(feature = "cuda")]
            "cuda" => Device::cuda(0),
            #[cfg(feature = "emulated")]
            "emulated" => Device::emulated(),
            #[cfg(feature = "ptx")]
            "ptx" => Device::ptx(),
            name => Err(Error::Unsupported {
                what: format!("--device {name}"),
                why: format!("this build lacks it; build with `--features {name}`"),
            }),
        }
    }

    /// Path of a picture in the output folder, which is created.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the folder cannot be created.
    pub fn picture_path(&self, file: &str) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.out).map_err(|source| Error::Io {
            action: "create",
            path: self.out.clone(),
            source,
        })?;
        let path = self.out.join(file);
        println!("picture: {}", path.display());
        Ok(path)
    }
}

/// Reads `[--short] [--device cpu|cuda|emulated|ptx] [--out DIR] [--seed N]` and the example's own arguments.
pub fn options(example: &str) -> Options {
    let out = PathBuf::from("out").join(example);
    let mut options = Options { short: false, device: "cpu".to_owned(), out, seed: 1, rest: Vec::new() };
    let mut args = std::env::args().skip(1);
    let usage = |problem: String| -> ! {
        eprintln!(
            "error: {problem}\nusage: {example} [--short] [--device cpu|cuda|emulated|ptx] [--out DIR] [--seed N] …"
        );
        std::process::exit(2);
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| usage(format!("{arg} needs a value")));
        match arg.as_str() {
            "--short" => options.short = true,
            "--out" => options.out = value().into(),
            "--seed" => options.seed = value().parse().unwrap_or_else(|_| usage("--seed needs a number".to_owned())),
            "--device" => match value() {
                name if ["cpu", "cuda", "emulated", "ptx"].contains(&name.as_str()) => options.device = name,
                other => usage(format!("no device {other}")),
            },
            _ => options.rest.push(arg),
        }
    }
    options
}

/// Prints a machine-readable line `result: {…}`.
pub fn result(example: &str, model: &str, metric: &str, value: f64, seconds: f64) {
    println!(
        "result: {{\"example\":\"{example}\",\"model\":\"{model}\",\"metric\":\"{metric}\",\"value\":{value:e},\"seconds\":{seconds:.3}}}"
    );
}

/// A file of `examples/data`, wherever the example is run.
pub fn data(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "examples", "data", file].iter().collect()
}

/// A prediction of any shape as a matrix whose columns are the last axis.
pub fn rows(prediction: &ArrayD<f32>) -> Array2<f32> {
    let columns = prediction.shape().last().copied().unwrap_or(1);
    let values: Vec<f32> = prediction.iter().copied().collect();
    Array2::from_shape_fn((values.len() / columns, columns), |(row, column)| values[row * columns + column])
}

/// Draws into a file of the output folder, or prints that this build cannot draw.
#[macro_export]
macro_rules! picture {
    ($options:expr, $file:expr, |$path:ident| $draw:expr) => {{
        #[cfg(feature = "plot")]
        let drawn = $options.picture_path($file).and_then(|file| {
            let $path: &std::path::Path = &file;
            $draw
        });
        #[cfg(not(feature = "plot"))]
        let drawn = {
            println!("no picture {}: build with `--features plot`", $file);
            fused_rnn::Result::Ok(())
        };
        drawn
    }};
}
