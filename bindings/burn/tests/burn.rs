//! Modules beside burn's own with the same weights, and what a module of burn must do: inference without a graph, dropout in training
//! alone, records, both checkpointing strategies, errors that say what was wrong.

use burn_core::module::Module;
use burn_core::tensor::{DType, Device, Distribution, Tensor};
use burn_nn::{GateController, LstmState};
use fused_rnn_burn::fused_rnn::Error;
use fused_rnn_burn::{Call, Gru, GruConfig, Lstm, LstmConfig, Rnn, RnnConfig, States};

type Failure = Box<dyn std::error::Error>;

fn device() -> Device {
    Device::flex().autodiff()
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn largest<const D: usize>(difference: Tensor<D>) -> f64 {
    difference.abs().max().into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

fn close<const D: usize>(got: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(got.dims(), expected.dims());
    let difference = largest(got.inner() - expected.inner());
    assert!(difference < 2e-5, "off by {difference:e}");
}

/// The gradient of burn's gates, `[d_input, d_output]` each, as PyTorch has it in one tensor.
fn of_gates(gates: &[&GateController], gradients: &burn_core::tensor::Gradients) -> Result<Tensor<2>, Failure> {
    let gradient = |gate: &&GateController| gate.hidden_transform.weight.val().grad(gradients).map(Tensor::transpose);
    let all: Option<Vec<Tensor<2>>> = gates.iter().map(gradient).collect();
    Ok(Tensor::cat(all.ok_or("a gate has no gradient")?, 0))
}

fn lstm_like_burns(config: burn_nn::LstmConfig) -> Result<(), Failure> {
    let theirs = config.init(&device());
    let ours = Lstm::from_burn(&theirs)?;
    let x = random([3, 6, 5], &device()).require_grad();
    let batch = if config.batch_first { 3 } else { 6 };
    let state = || LstmState::<2>::new(Tensor::ones([batch, 7], &device()) * 0.5, Tensor::ones([batch, 7], &device()));
    let (y, last) = ours.forward(x.clone(), Some(state()))?;
    let (expected_y, expected_last) = theirs.forward(x.clone(), Some(state()));
    close(y.clone(), expected_y.clone());
    close(last.cell.clone(), expected_last.cell.clone());
    close(last.hidden, expected_last.hidden);
    let factors = random(y.dims(), &device());
    let got = ((y * factors.clone()).sum() + last.cell.sum()).backward();
    let expected = ((expected_y * factors).sum() + expected_last.cell.sum()).backward();
    close(x.grad(&got).ok_or("no gradient")?, x.grad(&expected).ok_or("no gradient")?);
    if let Some(forget) = &theirs.forget_gate {
        let gates = [&theirs.input_gate, forget, &theirs.cell_gate, &theirs.output_gate];
        let got = ours.recurrent.layers[0].weight_hh.val().grad(&got).ok_or("no gradient")?;
        close(got, of_gates(&gates, &expected)?);
    }
    Ok(())
}

#[test]
fn lstm_in_place_of_burns() -> Result<(), Failure> {
    lstm_like_burns(burn_nn::LstmConfig::new(5, 7, true))?;
    lstm_like_burns(burn_nn::LstmConfig::new(5, 7, false).with_batch_first(false))?;
    lstm_like_burns(burn_nn::LstmConfig::new(5, 7, true).with_reverse(true).with_clip(Some(0.4)))?;
    lstm_like_burns(burn_nn::LstmConfig::new(5, 7, true).with_input_forget(true))
}

#[test]
fn gru_in_place_of_burns() -> Result<(), Failure> {
    for reset_after in [true, false] {
        let theirs = burn_nn::GruConfig::new(5, 7, true).with_reset_after(reset_after).init(&device());
        let ours = Gru::from_burn(&theirs)?;
        let x = random([3, 6, 5], &device()).require_grad();
        let state = random([3, 7], &device());
        let y = ours.forward(x.clone(), Some(state.clone()))?;
        let expected_y = theirs.forward(x.clone(), Some(state));
        close(y.clone(), expected_y.clone());
        let factors = random(y.dims(), &device());
        let got = (y * factors.clone()).sum().backward();
        let expected = (expected_y * factors).sum().backward();
        close(x.grad(&got).ok_or("no gradient")?, x.grad(&expected).ok_or("no gradient")?);
        let gates = [&theirs.reset_gate, &theirs.update_gate, &theirs.new_gate];
        let got = ours.recurrent.layers[0].weight_hh.val().grad(&got).ok_or("no gradient")?;
        close(got, of_gates(&gates, &expected)?);
    }
    Ok(())
}

#[test]
fn rnn_in_place_of_burns() -> Result<(), Failure> {
    let theirs = burn_nn::RnnConfig::new(5, 7, true).with_reverse(true).init(&device());
    let ours = Rnn::from_burn(&theirs)?;
    let x = random([3, 6, 5], &device());
    let (y, last) = ours.forward(x.clone(), None)?;
    let (expected_y, expected_last) = theirs.forward(x, None);
    close(y, expected_y);
    close(last.hidden, expected_last.hidden);
    Ok(())
}

#[test]
fn layers_that_cannot_be_converted_say_so() {
    let relu = burn_nn::activation::ActivationConfig::Relu;
    let lstm = burn_nn::LstmConfig::new(5, 7, true).with_gate_activation(relu).init(&device());
    assert!(matches!(Lstm::from_burn(&lstm), Err(Error::Unsupported { what, .. }) if what.contains("gate_activation")));
    let gru = burn_nn::GruConfig::new(5, 7, true).with_clip(Some(1.0)).init(&device());
    assert!(matches!(Gru::from_burn(&gru), Err(Error::Unsupported { what, .. }) if what.contains("clip")));
}

#[test]
fn both_checkpointing_strategies_and_constants() -> Result<(), Failure> {
    let plain = Device::flex();
    let x = random([2, 5, 3], &plain);
    let mut expected = None;
    for device in [plain.clone().autodiff(), plain.clone().autodiff().gradient_checkpointing()] {
        let config = GruConfig::new(3, 4, true).with_initializer(burn_nn::Initializer::Constant { value: 0.1 });
        let layer = config.init(&device)?;
        // An input without gradients is a constant.
        let gradients = layer.forward(x.clone(), None)?.sum().backward();
        let gradient = layer.recurrent.layers[0].weight_ih.val().grad(&gradients).ok_or("no gradient")?;
        match &expected {
            Some(expected) => assert_eq!(largest(gradient - Tensor::clone(expected)), 0.0),
            None => expected = Some(gradient),
        }
    }
    Ok(())
}

#[test]
fn frozen_layers_keep_their_weights() -> Result<(), Failure> {
    let layer = LstmConfig::new(3, 4, true).with_num_layers(2).init(&device())?;
    let x = random([2, 5, 3], &Device::flex());
    let expected = layer.valid().run(x.clone(), &Call::default())?;
    let frozen = layer.frozen()?;
    let out = frozen.run(x.clone(), &Call::default())?;
    assert_eq!(largest(out.y.clone() - expected.y), 0.0);
    // Steps give what the sequence gives.
    let mut call = Call::default();
    for step in 0..5 {
        let next = frozen.run(x.clone().narrow(1, step, 1), &call)?;
        close(next.y, out.y.clone().narrow(1, step, 1));
        call = Call::default().states(&next.states);
    }
    Ok(())
}

#[test]
fn dropout_is_for_training() -> Result<(), Failure> {
    let layer = RnnConfig::new(3, 64, true).with_num_layers(2).with_dropout(0.5).init(&device())?;
    let x = random([2, 5, 3], &device());
    let run = |layer: &Rnn, call: &Call| layer.run(x.clone(), call).map(|out| out.y.inner());
    let valid = layer.valid().run(x.clone().inner(), &Call::default())?.y;
    let training = run(&layer, &Call::default())?;
    assert!(largest(training.clone() - valid.clone()) > 0.0);
    assert!(largest(training - run(&layer, &Call::default())?) > 0.0);
    let seeded = |seed| run(&layer, &Call::default().seed(seed));
    assert_eq!(largest(seeded(1)? - seeded(1)?), 0.0);
    assert!(largest(seeded(1)? - seeded(2)?) > 0.0);
    let frozen = layer.clone().freeze();
    assert_eq!(largest(run(&frozen, &Call::default())? - valid), 0.0);
    Ok(())
}

#[test]
fn records_bring_the_weights_back() -> Result<(), Failure> {
    let config = LstmConfig::new(3, 4, true).with_bidirectional(true);
    let (first, second) = (config.init(&Device::flex())?, config.init(&Device::flex())?);
    let x = random([2, 5, 3], &Device::flex());
    let y = |layer: &Lstm| layer.run(x.clone(), &Call::default()).map(|out| out.y);
    assert!(largest(y(&first)? - y(&second)?) > 0.0);
    let second = second.load_record(first.clone().into_record());
    assert_eq!(largest(y(&first)? - y(&second)?), 0.0);
    Ok(())
}

#[test]
fn resets_begin_a_sequence_anew() -> Result<(), Failure> {
    let layer = GruConfig::new(3, 4, true).init(&Device::flex())?;
    let x = random([1, 4, 3], &Device::flex());
    let y = layer.run(x.clone(), &Call::default().resets(&[0, 0, 1, 0]))?.y;
    close(y.clone().narrow(1, 0, 2), layer.forward(x.clone().narrow(1, 0, 2), None)?);
    close(y.narrow(1, 2, 2), layer.forward(x.narrow(1, 2, 2), None)?);
    Ok(())
}

#[test]
fn errors_say_what_was_wrong() -> Result<(), Failure> {
    let device = Device::flex();
    let layer = LstmConfig::new(3, 4, true).with_num_layers(2).init(&device)?;
    let x = Tensor::<3>::zeros([2, 5, 3], &device);
    let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
    let message =
        |x: Tensor<3>, call: Call| layer.run(x, &call).err().map(|error| error.to_string()).unwrap_or_default();

    assert_eq!(
        message(zeros([2, 5, 4]), Call::default()),
        "x: expected [batch, seq_len, d_input] with d_input 3, got [2, 5, 4]"
    );
    assert!(message(x.clone().cast(DType::F64), Call::default()).contains("have the type of the weights"));
    assert_eq!(message(x.clone(), Call::default().lengths(&[5, 6])), "lengths[1]: expected 1..=5, got 6");
    assert!(message(x.clone(), Call::default().resets(&[1])).contains("resets"));
    let states = States { h: zeros([2, 2, 4]), c: None };
    assert!(message(x.clone(), Call::default().states(&states)).contains("states.c: this cell has states beside h"));
    let states = States { h: zeros([1, 2, 4]), c: Some(zeros([2, 2, 4])) };
    assert!(message(x.clone(), Call::default().states(&states)).contains("states.h: expected"));
    assert!(matches!(layer.forward(x, None), Err(Error::Unsupported { why, .. }) if why.contains("use run")));

    let error = |config: LstmConfig| config.init(&device).err().map(|error| error.to_string()).unwrap_or_default();
    let config = || LstmConfig::new(3, 4, true);
    assert!(error(config().with_dropout(1.5)).contains("dropout"));
    assert!(error(config().with_num_layers(0)).contains("num_layers is 0"));
    assert!(error(config().with_proj_size(Some(9))).contains("proj_size"));
    assert!(error(config().with_reverse(true).with_bidirectional(true)).contains("reverse"));
    let named = config().init(&device)?.with_weights(Default::default(), &device);
    assert!(matches!(named, Err(Error::Presence { tensor, .. }) if tensor == "weight_ih_l0"));
    Ok(())
}
