//! What is done with a model that was read: it predicts, trains, is saved and read again.

use std::path::Path;

use fused_rnn::Result;
use fused_rnn::model::{Clip, FitOptions, Model};
use ndarray::{ArrayD, ArrayViewD, IxDyn};

use super::{device, refused, scratch};

const SAMPLES: usize = 3;

/// Numbers for axes of these lengths, open ones three long; small whole numbers, so that they are indices as well.
fn numbers(axes: &[Option<usize>]) -> ArrayD<f32> {
    let shape: Vec<usize> = std::iter::once(SAMPLES).chain(axes.iter().map(|axis| axis.unwrap_or(3))).collect();
    let mut next = 0u32;
    ArrayD::from_shape_simple_fn(IxDyn(&shape), || {
        next = (next + 1) % 5;
        (next % 4) as f32
    })
}

fn views(arrays: &[ArrayD<f32>]) -> Vec<ArrayViewD<'_, f32>> {
    arrays.iter().map(|array| array.view()).collect()
}

/// Elements of all these axes, open ones three long.
fn elements<'a>(axes: impl Iterator<Item = &'a [Option<usize>]>) -> usize {
    let of_one = |axes: &[Option<usize>]| axes.iter().fold(1usize, |n, axis| n.saturating_mul(axis.unwrap_or(3)));
    axes.map(of_one).fold(0, usize::saturating_add)
}

/// Whether using the model takes no longer than an input of the fuzzer may.
fn is_small(model: &Model) -> bool {
    elements(model.input_axes()) <= 4000 && elements(model.output_axes()) <= 20_000 && model.count_params() <= 100_000
}

fn same(one: &[ArrayD<f32>], other: &[ArrayD<f32>]) -> bool {
    let bits = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.shape() == other.shape() && one.iter().zip(other).all(bits))
}

/// Uses a model. What was read can be saved and read again, and is the same then; so is what was trained on, where it is saved.
pub fn model(model: &mut Model) {
    let _ = (model.summary().to_string(), model.count_params());
    let diagram = model.diagram();
    assert!(diagram.map_or(true, |diagram| !diagram.is_empty()));
    let path = scratch("used.safetensors");
    model.save(&path).expect("what was read can be saved");
    let mut again = load(&path).expect("what was saved can be read");
    if !is_small(model) {
        return;
    }
    let x: Vec<ArrayD<f32>> = model.input_axes().map(numbers).collect();
    model.reset_states();
    let first = match model.predict_all(views(&x)) {
        Ok(first) => first,
        Err(error) => return refused(&error),
    };
    again.reset_states();
    let second = again.predict_all(views(&x)).expect("the same model predicts");
    assert!(same(&first, &second), "another prediction after it was saved and read");
    let before = std::fs::read(&path).expect("the file");
    again.save(&path).expect("saved");
    assert!(before == std::fs::read(&path).expect("the file"), "other bytes after it was saved and read");
    trained(&mut again, &x, &first, &path);
}

/// Trains for two epochs on targets of the outputs' shapes, then on classes; whatever comes of it, what is saved can be read.
fn trained(model: &mut Model, x: &[ArrayD<f32>], outputs: &[ArrayD<f32>], path: &Path) {
    let numbers: Vec<ArrayD<f32>> = outputs.iter().map(|y| ArrayD::from_elem(y.raw_dim(), 0.25)).collect();
    let classes: Vec<ArrayD<f32>> =
        outputs.iter().map(|y| ArrayD::zeros(IxDyn(&y.shape()[..y.ndim().saturating_sub(1)]))).collect();
    for y in [numbers, classes] {
        model.reset_states();
        let options = FitOptions { batch_size: 3, epochs: 2, clip: Some(Clip::Norm(1.0)), ..FitOptions::default() };
        match model.fit(views(x), views(&y), options) {
            Ok(_) => break,
            Err(error) => refused(&error),
        }
    }
    match model.save(path) {
        Ok(()) => drop(load(path).expect("what was trained on and saved can be read")),
        Err(error) => refused(&error),
    }
}

fn load(path: &Path) -> Result<Model> {
    Model::load(device(), path)
}
