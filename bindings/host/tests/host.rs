//! The operator that doors share, beside the whole passes of the library.

use std::sync::Arc;

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::pass;
use fused_rnn::rnn::{Direction, RnnDescriptor, RnnShape};
use fused_rnn::{Error, Result};
use fused_rnn_host::{Gradients, Operands, Operator, Outputs, Wanted, set_threads, threads};

/// Numbers without order, of moderate size.
fn numbers(len: usize, mut state: u32) -> Vec<f64> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24) - 0.5
    };
    (0..len).map(|_| next()).collect()
}

fn problem() -> (RnnDescriptor, RnnShape) {
    let mut descriptor = RnnDescriptor::lstm(3, 4);
    descriptor.num_layers = 2;
    descriptor.direction = Direction::Bidirectional;
    descriptor.dropout = 0.5;
    (descriptor, RnnShape { seq_len: 5, batch: 2 })
}

#[test]
fn backward_runs_again_with_the_same_masks() -> Result<()> {
    let (descriptor, shape) = problem();
    let operator = Arc::new(Operator::<f64>::new(descriptor.clone())?);
    let shapes = operator.shapes(shape)?;
    let size = |shape: [usize; 3]| shape.into_iter().product::<usize>();
    let inputs = pass::Inputs {
        weights: numbers(operator.weights().len(), 1),
        x: numbers(size(shapes.x), 2),
        lengths: Some(vec![5, 3]),
        dropout_seed: 7,
        ..pass::Inputs::default()
    };
    let dy = numbers(size(shapes.y), 3);
    let gradients = pass::OutputGradients { dy: Some(dy.clone()), ..pass::OutputGradients::default() };
    let backend = CpuBackend::<f64>::new();
    let (outputs, expected) = pass::train(&backend, &descriptor, shape, &inputs, &gradients)?;

    let operands =
        Operands { weights: &inputs.weights, x: &inputs.x, lengths: inputs.lengths.as_deref(), ..Operands::default() };
    let mut y = vec![0.0; dy.len()];
    let saved = operator.forward_training(shape, operands, Outputs { y: &mut y, hn: None, cn: None }, Some(7))?;
    assert_eq!(y, outputs.y);
    for _ in 0..3 {
        let (mut dx, mut dweights) = (vec![0.0; inputs.x.len()], vec![0.0; inputs.weights.len()]);
        let wanted = Wanted { dx: Some(&mut dx), dweights: Some(&mut dweights), ..Wanted::default() };
        saved.backward(operands, &y, Gradients { dy: Some(&dy), ..Gradients::default() }, wanted)?;
        assert_eq!((dx, dweights), (expected.dx.clone(), expected.dweights.clone()));
    }
    Ok(())
}

#[test]
fn backward_runs_on_several_threads_at_once() -> Result<()> {
    let (descriptor, shape) = problem();
    let operator = Arc::new(Operator::<f64>::new(descriptor)?);
    let weights = numbers(operator.weights().len(), 1);
    let (x, dy) = (numbers(5 * 2 * 3, 2), numbers(5 * 2 * 8, 3));
    let operands = Operands { weights: &weights, x: &x, ..Operands::default() };
    let mut y = vec![0.0; dy.len()];
    let saved = operator.forward_training(shape, operands, Outputs { y: &mut y, hn: None, cn: None }, Some(7))?;
    let gradient = || {
        let mut dweights = vec![0.0; weights.len()];
        let wanted = Wanted { dweights: Some(&mut dweights), ..Wanted::default() };
        saved.backward(operands, &y, Gradients { dy: Some(&dy), ..Gradients::default() }, wanted).map(|()| dweights)
    };
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(gradient)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(Vec::new()))).collect::<Result<Vec<_>>>()
    })?;
    let expected = gradient()?;
    assert!(all.iter().all(|dweights| *dweights == expected));
    Ok(())
}

#[test]
fn packed_weights_give_the_same_bits_for_every_shape() -> Result<()> {
    let (descriptor, _) = problem();
    let operator = Operator::<f64>::new(descriptor)?;
    let weights = numbers(operator.weights().len(), 1);
    let packed = operator.pack(weights.clone())?;
    // More shapes than plans are kept, twice.
    for seq_len in (1..=20).chain(1..=20) {
        let shape = RnnShape { seq_len, batch: 2 };
        let x = numbers(seq_len * 2 * 3, 2);
        let (mut y, mut again) = (vec![0.0; seq_len * 2 * 8], vec![1.0; seq_len * 2 * 8]);
        let operands = Operands { weights: &weights, x: &x, ..Operands::default() };
        operator.forward(shape, operands, Outputs { y: &mut y, hn: None, cn: None }, None)?;
        let operands = Operands { weights: &[], ..operands };
        operator.forward(shape, operands, Outputs { y: &mut again, hn: None, cn: None }, Some(&packed))?;
        assert_eq!(y, again);
    }
    Ok(())
}

#[test]
fn wrong_sizes_are_typed_errors() -> Result<()> {
    let (descriptor, shape) = problem();
    let operator = Operator::<f64>::new(descriptor)?;
    assert!(matches!(operator.pack(vec![0.0; 3]), Err(Error::Shape { tensor, .. }) if tensor == "weights"));
    let weights = numbers(operator.weights().len(), 1);
    let operands = Operands { weights: &weights, x: &[0.0; 7], ..Operands::default() };
    let mut y = vec![0.0; 5 * 2 * 8];
    let result = operator.forward(shape, operands, Outputs { y: &mut y, hn: None, cn: None }, None);
    assert!(matches!(result, Err(Error::Shape { tensor, .. }) if tensor == "x"));
    operator.free();
    Ok(())
}

#[test]
fn threads_are_settled_once() {
    assert!(matches!(set_threads(0), Err(Error::InvalidOption { option, .. }) if option == "threads"));
    assert!(threads() >= 1);
    // The other tests of this program may have settled it already; after this call it is settled in any case.
    let _ = set_threads(threads());
    assert!(matches!(set_threads(1), Err(Error::InvalidOption { got, .. }) if got.contains("settled")));
}
