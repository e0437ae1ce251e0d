//! Layers beside candle_nn's own of the same variables, and what a layer of candle must do: inference without a graph, gradients more
//! than once, dropout in training alone, errors that say what was wrong.

use candle_core::{DType, Device, ModuleT, Result, Tensor, Var};
use candle_nn::rnn::{Direction, GRUConfig, LSTMConfig, RNN};
use candle_nn::{VarBuilder, VarMap};
use fused_rnn_candle::fused_rnn::rnn::RnnDescriptor;
use fused_rnn_candle::{Call, Gru, Lstm, LstmState, Options, Recurrent, Rnn, States, gru, lstm};

const CPU: Device = Device::Cpu;

fn variables() -> (VarMap, VarBuilder<'static>) {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    (map, vb)
}

fn largest(difference: &Tensor) -> Result<f64> {
    difference.abs()?.flatten_all()?.max(0)?.to_dtype(DType::F64)?.to_scalar()
}

fn close(got: &Tensor, expected: &Tensor) -> Result<()> {
    assert_eq!(got.dims(), expected.dims());
    let difference = largest(&(got - expected)?)?;
    assert!(difference < 2e-5, "off by {difference:e}");
    Ok(())
}

/// Outputs and all gradients of two computations on the same variables.
fn same(
    map: &VarMap,
    x: &Var,
    ours: impl Fn(&Tensor) -> Result<Tensor>,
    theirs: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let (ours, theirs) = (ours(x)?, theirs(x)?);
    close(&ours, &theirs)?;
    let factors = Tensor::randn(0f32, 1.0, theirs.shape(), &CPU)?;
    let expected = (theirs * &factors)?.sum_all()?.backward()?;
    let got = (ours * &factors)?.sum_all()?.backward()?;
    let mut tensors: Vec<Tensor> = map.all_vars().iter().map(|variable| variable.as_tensor().clone()).collect();
    tensors.push(x.as_tensor().clone());
    for tensor in &tensors {
        match (got.get(tensor), expected.get(tensor)) {
            (Some(got), Some(expected)) => close(got, expected)?,
            (got, expected) => assert_eq!((got.is_some(), expected.is_some()), (true, true)),
        }
    }
    Ok(())
}

#[test]
fn lstm_in_place_of_candle_nn() -> Result<()> {
    let (map, vb) = variables();
    let theirs = candle_nn::lstm(5, 7, LSTMConfig::default(), vb.clone())?;
    let ours = lstm(5, 7, LSTMConfig::default(), vb)?;
    let x = Var::randn(0f32, 1.0, (3, 6, 5), &CPU)?;
    same(&map, &x, |x| ours.states_to_tensor(&ours.seq(x)?), |x| theirs.states_to_tensor(&theirs.seq(x)?))?;
    // States that are not those of one sequence in order are stacked.
    let reversed = |states: Vec<LstmState>| states.into_iter().rev().collect::<Vec<_>>();
    let theirs_reversed = |x: &Tensor| theirs.states_to_tensor(&theirs.seq(x)?.into_iter().rev().collect::<Vec<_>>());
    same(&map, &x, |x| ours.states_to_tensor(&reversed(ours.seq(x)?)), theirs_reversed)?;
    // From states of steps, and cell states in mid-sequence.
    let step = x.narrow(1, 0, 1)?.squeeze(1)?;
    let start = (ours.step(&step, &ours.zero_state(3)?)?, theirs.step(&step, &theirs.zero_state(3)?)?);
    let c = |x: &Tensor| ours.seq_init(x, &start.0)?[2].c().cloned();
    same(&map, &x, c, |x| Ok(theirs.seq_init(x, &start.1)?[2].c().clone()))?;
    same(&map, &x, |x| Ok(ours.seq(x)?[5].c()?.clone()), |x| Ok(theirs.seq(x)?[5].c().clone()))
}

#[test]
fn gru_in_place_of_candle_nn() -> Result<()> {
    let (map, vb) = variables();
    let theirs = candle_nn::gru(5, 7, GRUConfig::default(), vb.clone())?;
    let ours = gru(5, 7, GRUConfig::default(), vb)?;
    let x = Var::randn(0f32, 1.0, (3, 6, 5), &CPU)?;
    same(&map, &x, |x| ours.states_to_tensor(&ours.seq(x)?), |x| theirs.states_to_tensor(&theirs.seq(x)?))?;
    let step = x.narrow(1, 0, 1)?.squeeze(1)?;
    let start = (ours.step(&step, &ours.zero_state(3)?)?, theirs.step(&step, &theirs.zero_state(3)?)?);
    let h = |x: &Tensor| Ok(ours.seq_init(x, &start.0)?[4].h().clone());
    same(&map, &x, h, |x| Ok(theirs.seq_init(x, &start.1)?[4].h().clone()))
}

#[test]
fn names_and_biases_of_candle_nn() -> Result<()> {
    let (map, vb) = variables();
    let config = LSTMConfig { layer_idx: 2, direction: Direction::Backward, b_ih_init: None, ..LSTMConfig::default() };
    let theirs = candle_nn::lstm(5, 7, config, vb.clone())?;
    let ours = lstm(5, 7, config, vb)?;
    let x = Var::randn(0f32, 1.0, (3, 6, 5), &CPU)?;
    same(&map, &x, |x| ours.states_to_tensor(&ours.seq(x)?), |x| theirs.states_to_tensor(&theirs.seq(x)?))?;
    let mut names: Vec<_> = map.data().lock().map(|data| data.keys().cloned().collect()).unwrap_or_default();
    names.sort();
    assert_eq!(names, ["bias_hh_l2_reverse", "weight_hh_l2_reverse", "weight_ih_l2_reverse"]);
    let (_, vb) = variables();
    assert!(gru(5, 7, GRUConfig::default_no_bias(), vb).is_ok());
    Ok(())
}

#[test]
fn sequence_major_layers_have_the_trait_too() -> Result<()> {
    let (map, vb) = variables();
    let theirs = candle_nn::lstm(5, 7, LSTMConfig::default(), vb.clone())?;
    let ours = Lstm::new(5, 7, &Options::default().batch_first(false), vb)?;
    let x = Var::randn(0f32, 1.0, (3, 6, 5), &CPU)?;
    same(&map, &x, |x| ours.states_to_tensor(&ours.seq(x)?), |x| theirs.states_to_tensor(&theirs.seq(x)?))
}

#[test]
fn inputs_need_not_be_contiguous() -> Result<()> {
    let (map, vb) = variables();
    let theirs = candle_nn::lstm(5, 7, LSTMConfig::default(), vb.clone())?;
    let ours = lstm(5, 7, LSTMConfig::default(), vb)?;
    let x = Var::randn(0f32, 1.0, (6, 3, 5), &CPU)?;
    let turned = |x: &Tensor| x.transpose(0, 1)?.narrow(1, 1, 4);
    same(&map, &x, |x| ours.forward(&turned(x)?), |x| theirs.states_to_tensor(&theirs.seq(&turned(x)?)?))
}

#[test]
fn nothing_is_tracked_without_variables() -> Result<()> {
    let (map, vb) = variables();
    let layer = Lstm::new(3, 4, &Options::default(), vb)?;
    let x = Tensor::randn(0f32, 1.0, (2, 5, 3), &CPU)?;
    assert!(layer.forward(&x)?.track_op());
    let frozen = layer.frozen()?;
    let before = frozen.run(&x, &Call::default())?;
    assert!(!before.y.track_op());
    assert_eq!(largest(&(&before.y - layer.forward(&x)?)?)?, 0.0);

    // A frozen layer keeps its weights; the layer itself sees the change.
    for variable in map.all_vars() {
        variable.set(&(variable.as_tensor() * 2.0)?)?;
    }
    assert_eq!(largest(&(&before.y - frozen.forward(&x)?)?)?, 0.0);
    assert!(largest(&(&before.y - layer.forward(&x)?)?)? > 1e-3);

    // Gradients go through a frozen layer, to its inputs alone.
    let x = Var::from_tensor(&x)?;
    let gradients = frozen.forward(&x)?.sum_all()?.backward()?;
    assert!(gradients.get(&x).is_some());
    assert!(map.all_vars().iter().all(|variable| gradients.get(variable).is_none()));

    // The last cell state of a sequence, and one before it.
    let x = x.detach();
    let (states, expected) = (frozen.seq(&x)?, layer.seq(&x)?);
    let layers_own = layer.frozen()?.seq(&x)?;
    close(layers_own[4].c()?, expected[4].c()?)?;
    close(layers_own[2].c()?, expected[2].c()?)?;
    assert!(!states[4].c()?.track_op());

    // Steps give what the sequence gives.
    let mut state = frozen.zero_state(2)?;
    for step in 0..5 {
        state = frozen.step(&x.narrow(1, step, 1)?.squeeze(1)?, &state)?;
        close(state.h(), &before.y.narrow(1, step, 1)?.squeeze(1)?)?;
    }
    Ok(())
}

#[test]
fn gradients_come_again_after_the_weights_have_changed() -> Result<()> {
    let (map, vb) = variables();
    let options = Options::default().num_layers(2).dropout(0.5);
    let layer = Lstm::new(3, 4, &options, vb)?;
    let x = Var::randn(0f32, 1.0, (2, 5, 3), &CPU)?;
    let loss = layer.forward_t(&x, true)?.sqr()?.sum_all()?;
    let first = loss.backward()?;
    for variable in map.all_vars() {
        variable.set(&(variable.as_tensor() * 2.0)?)?;
    }
    let second = loss.backward()?;
    for variable in map.all_vars().iter().chain([&x]) {
        match (first.get(variable), second.get(variable)) {
            (Some(first), Some(second)) => assert_eq!(largest(&(first - second)?)?, 0.0),
            _ => panic!("a gradient is missing"),
        }
    }
    Ok(())
}

#[test]
fn one_graph_may_use_a_layer_twice() -> Result<()> {
    let (map, vb) = variables();
    let theirs = candle_nn::gru(4, 4, GRUConfig::default(), vb.clone())?;
    let ours = Gru::new(4, 4, &Options::default(), vb)?;
    let x = Var::randn(0f32, 1.0, (2, 5, 4), &CPU)?;
    let twice = |x: &Tensor| {
        let y = theirs.states_to_tensor(&theirs.seq(x)?)?.reshape((2, 5, 4))?;
        theirs.states_to_tensor(&theirs.seq(&y)?)?.reshape((2, 5, 4))
    };
    same(&map, &x, |x| ours.forward(&ours.forward(x)?), twice)
}

#[test]
fn dropout_is_for_training() -> Result<()> {
    let (_, vb) = variables();
    let layer = Rnn::new(3, 64, &Options::default().num_layers(2).dropout(0.5), vb)?;
    let x = Tensor::randn(0f32, 1.0, (2, 5, 3), &CPU)?;
    let differ = |a: &Tensor, b: &Tensor| Ok::<_, candle_core::Error>(largest(&(a - b)?)? > 0.0);
    assert!(!differ(&layer.forward(&x)?, &layer.forward_t(&x, false)?)?);
    assert!(differ(&layer.forward(&x)?, &layer.forward_t(&x, true)?)?);
    assert!(differ(&layer.forward_t(&x, true)?, &layer.forward_t(&x, true)?)?);
    let seeded = |seed| layer.run(&x, &Call::default().train(true).seed(seed)).map(|out| out.y);
    assert!(!differ(&seeded(1)?, &seeded(1)?)?);
    assert!(differ(&seeded(1)?, &seeded(2)?)?);
    // Where nothing is tracked too.
    let frozen = layer.frozen()?;
    assert!(differ(&frozen.forward(&x)?, &frozen.forward_t(&x, true)?)?);
    Ok(())
}

#[test]
fn resets_begin_a_sequence_anew() -> Result<()> {
    let (_, vb) = variables();
    let layer = Lstm::new(3, 4, &Options::default(), vb)?;
    let x = Tensor::randn(0f32, 1.0, (1, 4, 3), &CPU)?;
    let y = layer.run(&x, &Call::default().resets(&[0, 0, 1, 0]))?.y;
    close(&y.narrow(1, 0, 2)?, &layer.forward(&x.narrow(1, 0, 2)?)?)?;
    close(&y.narrow(1, 2, 2)?, &layer.forward(&x.narrow(1, 2, 2)?)?)
}

#[test]
fn cells_that_pytorch_has_not() -> Result<()> {
    let (map, vb) = variables();
    let layer = Recurrent::from_descriptor(RnnDescriptor::slstm(3, 4), vb)?;
    let x = Tensor::randn(0f32, 1.0, (5, 2, 3), &CPU)?; // sequence-major, the descriptor's default
    let out = layer.run(&x, &Call::default())?;
    assert_eq!(out.y.dims(), [5, 2, 4]);
    let again = layer.run(&x, &Call::default().states(&out.states))?;
    let gradients = again.y.sum_all()?.backward()?;
    assert!(map.all_vars().iter().all(|variable| gradients.get(variable).is_some()));
    Ok(())
}

/// The first line: candle adds a backtrace where the environment asks for one.
fn message<T>(result: Result<T>) -> String {
    let text = result.err().map(|error| error.to_string()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn errors_say_what_was_wrong() -> Result<()> {
    let (_, vb) = variables();
    let layer = Lstm::new(3, 4, &Options::default().num_layers(2), vb.clone())?;
    let x = Tensor::zeros((2, 5, 3), DType::F32, &CPU)?;
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, DType::F32, &CPU);

    assert_eq!(
        message(layer.forward(&zeros((2, 5, 4))?)),
        "x: expected [batch, seq_len, input_size] with input_size 3, got [2, 5, 4]"
    );
    assert!(message(layer.forward(&zeros((2, 0, 3))?)).contains("seq_len is 0"));
    assert!(message(layer.forward(&x.to_dtype(DType::F64)?)).contains("dtype"));
    assert!(!message(layer.forward(&x.narrow(0, 0, 1)?.squeeze(0)?)).is_empty());
    assert_eq!(message(layer.run(&x, &Call::default().lengths(&[5, 6]))), "lengths[1]: expected 1..=5, got 6");
    assert!(message(layer.run(&x, &Call::default().lengths(&[5]))).contains("lengths"));
    assert!(message(layer.run(&x, &Call::default().resets(&[1]))).contains("resets"));
    let states = States { h: zeros((2, 2, 4))?, c: None };
    assert!(
        message(layer.run(&x, &Call::default().states(&states))).contains("states.c: this cell has states beside h")
    );
    let states = States { h: zeros((1, 2, 4))?, c: Some(zeros((2, 2, 4))?) };
    assert!(message(layer.run(&x, &Call::default().states(&states))).contains("states.h: expected"));
    assert!(message(layer.seq(&x)).contains("one layer that runs forward; use run"));

    let (_, other) = variables();
    let new = |options: Options| message(Gru::new(3, 4, &options, other.clone()));
    assert!(new(Options::default().relu(true)).contains("only the RNN has it"));
    assert!(new(Options::default().proj_size(Some(2))).contains("proj_size"));
    assert!(new(Options::default().dropout(1.5)).contains("dropout"));
    assert!(new(Options::default().num_layers(0)).contains("num_layers is 0"));
    assert!(message(Lstm::new(3, 4, &Options::default(), vb.to_dtype(DType::F16))).contains("f32 and f64"));
    assert!(message(Lstm::new(4, 4, &Options::default(), vb)).contains("shape mismatch"));
    Ok(())
}

#[test]
fn layers_go_from_thread_to_thread() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug>() {}
    check::<Lstm>();
    check::<Recurrent>();
    check::<LstmState>();
    check::<fused_rnn_candle::GruState>();
}
