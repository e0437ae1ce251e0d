//! The same point for peers: what they are given, and how far their results are from ours.

use std::io::Write;
use std::path::Path;

use fused_rnn::rnn::{Direction, RnnDescriptor, WeightLayout};
use fused_rnn::{DType, Element, Error, Result, files};
use serde_json::{Value, json};

use super::point::{Pass, Point};
use super::subject::{Data, Subject, Values};
use super::train_step::LEARNING_RATE;

/// Largest relative error that passes, where the option does not say.
pub fn usual_tolerance(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-9 } else { 1e-3 }
}

/// Why no peer has this point, if none has.
pub fn unsupported(point: &Point, descriptor: &RnnDescriptor) -> Option<&'static str> {
    let s = point.sizes;
    let mut plain = RnnDescriptor::new(s.cell, s.input_size, s.hidden_size);
    (plain.num_layers, plain.direction) = (s.layers, s.direction);
    let reasons = [
        (!point.is_on_host(), "peers run on the processor; benches/gpu compares GPUs"),
        (!point.is_usual_cell(), "peers have rnn, lstm and gru with one head"),
        (s.direction == Direction::Reverse, "peers have no layer that only goes backwards"),
        (*descriptor != plain, "peers are compared without options"),
        (point.pass == Pass::TrainStepAdam, "peers take steps of gradient descent: pass train-step"),
    ];
    reasons.into_iter().find(|(holds, _)| *holds).map(|(_, why)| why)
}

/// Writes the data of a point into a folder, and makes the request that asks for it.
pub fn request(point: &Point, descriptor: &RnnDescriptor, data: &Data, ours: &Subject, folder: &Path) -> Result<Value> {
    let dtype = point.number.dtype;
    let mut weights = Vec::new();
    match ours {
        Subject::TrainStep(step) => {
            let mut all = Vec::new();
            for (name, shape, values) in &step.weights {
                weights.push(json!({ "name": name, "shape": shape, "offset": all.len() }));
                all.extend_from_slice(values);
            }
            write(folder, "weights", dtype, all.into_iter())?;
            let (rows, batch) = (data.x.len, point.shape.batch);
            write(folder, "x", dtype, Values::new(rows, 1.0, 3).iter())?;
            write(folder, "dy", dtype, Values::new(batch, 1.0, 4).iter())?;
        }
        _ => {
            for entry in WeightLayout::new(descriptor)?.entries() {
                weights.push(json!({ "name": entry.name, "shape": entry.shape, "offset": entry.range.start }));
            }
            write(folder, "weights", dtype, data.weights.iter())?;
            write(folder, "x", dtype, data.x.iter())?;
            if point.pass == Pass::ForwardBackward {
                write(folder, "dy", dtype, data.dy.iter())?;
            }
        }
    }
    Ok(json!({
        "do": "prepare",
        "folder": folder.display().to_string(),
        "pass": point.pass_name(),
        "cell": point.sizes.cell.to_string(),
        "seq_len": point.shape.seq_len,
        "batch": point.shape.batch,
        "input_size": point.sizes.input_size,
        "hidden_size": point.sizes.hidden_size,
        "layers": point.sizes.layers,
        "directions": descriptor.num_directions(),
        "dtype": dtype.name(),
        "threads": point.threads,
        "lengths": data.lengths,
        "learning_rate": LEARNING_RATE,
        "weights": weights,
    }))
}

fn write(folder: &Path, name: &str, dtype: DType, values: impl Iterator<Item = f64>) -> Result<()> {
    let path = folder.join(name);
    let io = |source| Error::Io { action: "write", path: path.clone(), source };
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).map_err(io)?);
    for value in values {
        let written = match dtype {
            DType::F64 => file.write_all(&value.to_le_bytes()),
            _ => file.write_all(&f32::of(value).to_le_bytes()),
        };
        written.map_err(io)?;
    }
    file.flush().map_err(io)
}

fn read(path: &Path, dtype: DType) -> Result<Vec<f64>> {
    let bytes = files::read(path)?;
    Ok(match dtype {
        DType::F64 => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        _ => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect(),
    })
}

/// How far a peer's results are from ours.
pub struct Difference {
    /// The largest over all results: the largest difference over the largest magnitude of ours.
    pub error: f64,
    /// The result where it is.
    pub worst: String,
}

/// Compares the results that a peer has written.
///
/// # Errors
///
/// [`Error::Shape`] for a result that we have not, or of another length; [`Error::Io`] for a file that is not there.
pub fn compare(ours: &[(&'static str, Vec<f64>)], names: &[String], dtype: DType, folder: &Path) -> Result<Difference> {
    let mut found = Difference { error: 0.0, worst: String::new() };
    for name in names {
        let Some((_, expected)) = ours.iter().find(|(ours, _)| ours == name) else {
            let known: Vec<_> = ours.iter().map(|(name, _)| *name).collect();
            return Err(Error::Shape {
                tensor: "a peer's result".to_owned(),
                expected: format!("one of {}", known.join(", ")),
                got: name.clone(),
            });
        };
        let theirs = read(&folder.join(format!("{name}.out")), dtype)?;
        if theirs.len() != expected.len() {
            return Err(Error::Shape {
                tensor: format!("a peer's {name}"),
                expected: format!("{} elements", expected.len()),
                got: theirs.len().to_string(),
            });
        }
        let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let differences = expected.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
        // A NaN is the largest difference of all.
        let difference = differences.fold(0.0, |most: f64, d| if d.is_nan() { f64::INFINITY } else { most.max(d) });
        let error = if difference == 0.0 { 0.0 } else { difference / largest.max(f64::MIN_POSITIVE) };
        if found.worst.is_empty() || error > found.error {
            found = Difference { error, worst: name.clone() };
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_compared_by_their_largest_magnitude() {
        let folder = tempfile::tempdir().unwrap();
        let ours = [("y", vec![2.0, -4.0]), ("hn", vec![0.5])];
        write(folder.path(), "y.out", DType::F32, [2.0, -4.4].into_iter()).unwrap();
        write(folder.path(), "hn.out", DType::F32, [0.5].into_iter()).unwrap();
        let names = ["y".to_owned(), "hn".to_owned()];
        let found = compare(&ours, &names, DType::F32, folder.path()).unwrap();
        assert!((found.error - 0.1).abs() < 1e-6 && found.worst == "y", "{} in {}", found.error, found.worst);
        write(folder.path(), "hn.out", DType::F32, [f64::NAN].into_iter()).unwrap();
        assert_eq!(compare(&ours, &names, DType::F32, folder.path()).unwrap().error, f64::INFINITY);
        write(folder.path(), "hn.out", DType::F32, [0.5, 1.0].into_iter()).unwrap();
        assert!(compare(&ours, &names, DType::F32, folder.path()).is_err_and(|e| e.to_string().contains("peer's hn")));
        assert!(compare(&ours, &["dz".to_owned()], DType::F32, folder.path()).is_err());
    }
}
