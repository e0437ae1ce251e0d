//! Names that are parsed, and functions that take any number.

use fused_rnn::DType;
use fused_rnn::cell::{Activation, CellKind};
use fused_rnn::rnn::Dropout;

#[test]
fn names_that_are_not_known_are_refused_with_those_that_are() {
    for bad in ["", "F32", "f32 ", "float", "\u{0}", "f 32"] {
        let error = bad.parse::<DType>().expect_err(bad).to_string();
        // What acts on a terminal is shown escaped.
        let shown = fused_rnn::error::OneLine(bad).to_string();
        assert!(error.contains("dtype") && error.contains("bf16") && error.contains(&shown), "{error}");
        assert!(!error.contains('\0'), "{error:?}");
    }
    for bad in ["", "LSTM", "elman", "rnn,lstm"] {
        let error = bad.parse::<CellKind>().expect_err(bad).to_string();
        assert!(error.contains("rnn, lstm, gru") && error.contains(bad), "{error}");
    }
    for bad in ["", ":", "swish", "Tanh", "tanh:", "tanh:1", "elu:", "elu:x", "elu:1:2", "affine:1:2:3", "elu::", "::"]
    {
        let error = bad.parse::<Activation>().expect_err(bad).to_string();
        assert!(error.contains("activation"), "{error}");
    }
    for bad in ["elu:nan", "elu:inf", "affine:1:-inf", "hard_sigmoid:1e999"] {
        let error = bad.parse::<Activation>().expect_err(bad).to_string();
        assert!(error.contains("a finite number"), "{error}");
    }
}

#[test]
fn names_survive_printing_and_parsing() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
        assert_eq!(dtype.to_string().parse::<DType>().expect("known"), dtype);
    }
    for cell in CellKind::ALL {
        assert_eq!(cell.to_string().parse::<CellKind>().expect("known"), cell);
    }
    let mut rng = crate::common::Rng::new(1);
    let keras = std::iter::once(Activation::KERAS_HARD_SIGMOID);
    let random = (0..200).map(|_| crate::common::random_activation(&mut rng));
    for activation in Activation::ALL.into_iter().chain(keras).chain(random) {
        assert_eq!(activation.to_string().parse::<Activation>().expect("known"), activation);
    }
    assert_eq!("keras_hard_sigmoid".parse::<Activation>().expect("known"), Activation::KERAS_HARD_SIGMOID);
}

#[test]
fn a_derivative_that_needs_no_input_ignores_it() {
    for activation in Activation::ALL.into_iter().filter(|a| !a.derivative_needs_input()) {
        for x in [-3.0, -0.5, 0.0, 1e-300, 0.3, 2.0, 4.0f64] {
            let y = activation.apply(x);
            assert_eq!(activation.derivative(x, y), activation.derivative(f64::NAN, y), "{activation} at {x}");
        }
    }
}

#[test]
fn dropout_takes_any_number() {
    for (probability, kept) in
        [(f64::NAN, 1.0), (-1.0, 1.0), (2.0, 0.0), (f64::INFINITY, 0.0), (f64::NEG_INFINITY, 1.0), (1.0, 0.0)]
    {
        let dropout = Dropout::new(probability, 3);
        let mut row = [1.0f64; 9];
        dropout.apply(&mut row, 1, 2, 3);
        assert_eq!(row, [kept; 9], "{probability}");
        assert_eq!(dropout.is_active(), kept == 0.0);
    }
    Dropout::new(0.5, u64::MAX).apply(&mut [1.0f32; 3], usize::MAX, usize::MAX, usize::MAX);
    Dropout::new(0.5, 0).apply::<f32>(&mut [], 0, 0, 0);
}
