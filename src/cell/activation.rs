//! Activation functions of gates and states, with their derivatives.
//!
//! Names, parameters and defaults are those of the
//! [ONNX RNN/LSTM/GRU operators](https://onnx.ai/onnx/operators/onnx__LSTM.html); [`Activation::HardSigmoid`] and
//! [`Activation::Elu`] carry their constants, so that [Keras's definitions](https://keras.io/api/layers/activations/) are
//! values of the same variants.

use std::fmt;
use std::str::FromStr;

use crate::dtype::Scalar;
use crate::error::{Error, Result};

/// An elementwise function `y = f(x)`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `tanh(x)`
    Tanh,
    /// `max(x, 0)`
    Relu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `clamp(alpha * x + beta, 0, 1)`; ONNX: 0.2 and 0.5, Keras 3: 1/6 and 0.5.
    HardSigmoid {
        /// Slope.
        alpha: f64,
        /// Value at zero.
        beta: f64,
    },
    /// `x / (1 + |x|)`
    Softsign,
    /// `ln(1 + exp(x))`
    Softplus,
    /// `x` above zero, `alpha * (exp(x) - 1)` below; default 1.
    Elu {
        /// Scale of the negative side.
        alpha: f64,
    },
    /// `gamma * x` above zero, `gamma * alpha * (exp(x) - 1)` below, with the constants of
    /// [Klambauer et al. 2017](https://arxiv.org/abs/1706.02515).
    Selu,
    /// `x` above zero, `alpha * x` below; ONNX: 0.01, Keras 3: 0.2.
    LeakyRelu {
        /// Slope of the negative side.
        alpha: f64,
    },
    /// `x` above `alpha`, else zero; default 1.
    ThresholdedRelu {
        /// The threshold.
        alpha: f64,
    },
    /// `alpha * tanh(beta * x)`; default 1 and 1.
    ScaledTanh {
        /// Scale of the output.
        alpha: f64,
        /// Scale of the input.
        beta: f64,
    },
    /// `alpha * x + beta`; default 1 and 0.
    Affine {
        /// Slope.
        alpha: f64,
        /// Offset.
        beta: f64,
    },
    /// `x`
    Linear,
}

const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_GAMMA: f64 = 1.050_700_987_355_480_5;

impl Activation {
    /// Keras 3's `hard_sigmoid`: `relu6(x + 3) / 6`.
    pub const KERAS_HARD_SIGMOID: Activation = Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };
    /// ONNX's `HardSigmoid` with its default constants.
    pub const ONNX_HARD_SIGMOID: Activation = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };

    /// One of each variant with ONNX's default constants.
    pub const ALL: [Activation; 13] = [
        Activation::Tanh,
        Activation::Relu,
        Activation::Sigmoid,
        Activation::ONNX_HARD_SIGMOID,
        Activation::Softsign,
        Activation::Softplus,
        Activation::Elu { alpha: 1.0 },
        Activation::Selu,
        Activation::LeakyRelu { alpha: 0.01 },
        Activation::ThresholdedRelu { alpha: 1.0 },
        Activation::ScaledTanh { alpha: 1.0, beta: 1.0 },
        Activation::Affine { alpha: 1.0, beta: 0.0 },
        Activation::Linear,
    ];

    /// The name without constants: `tanh`, `hard_sigmoid`, …
    pub fn name(self) -> &'static str {
        match self {
            Activation::Tanh => "tanh",
            Activation::Relu => "relu",
            Activation::Sigmoid => "sigmoid",
            Activation::HardSigmoid { .. } => "hard_sigmoid",
            Activation::Softsign => "softsign",
            Activation::Softplus => "softplus",
            Activation::Elu { .. } => "elu",
            Activation::Selu => "selu",
            Activation::LeakyRelu { .. } => "leaky_relu",
            Activation::ThresholdedRelu { .. } => "thresholded_relu",
            Activation::ScaledTanh { .. } => "scaled_tanh",
            Activation::Affine { .. } => "affine",
            Activation::Linear => "linear",
        }
    }

    /// The constants, for those variants that have them.
    pub fn constants(self) -> (Option<f64>, Option<f64>) {
        match self {
            Activation::HardSigmoid { alpha, beta }
            | Activation::ScaledTanh { alpha, beta }
            | Activation::Affine { alpha, beta } => (Some(alpha), Some(beta)),
            Activation::Elu { alpha } | Activation::LeakyRelu { alpha } | Activation::ThresholdedRelu { alpha } => {
                (Some(alpha), None)
            }
            _ => (None, None),
        }
    }

    /// The same function with other constants; those the variant has not are ignored.
    pub fn with_constants(self, new_alpha: Option<f64>, new_beta: Option<f64>) -> Self {
        let mut changed = self;
        match &mut changed {
            Activation::HardSigmoid { alpha, beta }
            | Activation::ScaledTanh { alpha, beta }
            | Activation::Affine { alpha, beta } => {
                *alpha = new_alpha.unwrap_or(*alpha);
                *beta = new_beta.unwrap_or(*beta);
            }
            Activation::Elu { alpha } | Activation::LeakyRelu { alpha } | Activation::ThresholdedRelu { alpha } => {
                *alpha = new_alpha.unwrap_or(*alpha);
            }
            _ => {}
        }
        changed
    }

    /// `f(x)`
    pub fn apply<E: Scalar>(self, x: E) -> E {
        let (zero, one) = (E::zero(), E::one());
        // Comparisons are written so that NaN stays NaN.
        match self {
            Activation::Tanh => x.tanh(),
            Activation::Relu => {
                if x <= zero {
                    zero
                } else {
                    x
                }
            }
            Activation::Sigmoid => one / (one + (-x).exp()),
            Activation::HardSigmoid { alpha, beta } => {
                let line = E::of(alpha) * x + E::of(beta);
                if line < zero {
                    zero
                } else if line > one {
                    one
                } else {
                    line
                }
            }
            Activation::Softsign => {
                if x.is_infinite() {
                    x.signum()
                } else {
                    x / (one + x.abs())
                }
            }
            Activation::Softplus => {
                if x > zero {
                    x + (-x).exp().ln_1p()
                } else {
                    x.exp().ln_1p()
                }
            }
            Activation::Elu { alpha } => {
                if x > zero {
                    x
                } else {
                    E::of(alpha) * x.exp_m1()
                }
            }
            Activation::Selu => {
                if x > zero {
                    E::of(SELU_GAMMA) * x
                } else {
                    E::of(SELU_GAMMA * SELU_ALPHA) * x.exp_m1()
                }
            }
            Activation::LeakyRelu { alpha } => {
                if x > zero {
                    x
                } else {
                    E::of(alpha) * x
                }
            }
            Activation::ThresholdedRelu { alpha } => {
                if x <= E::of(alpha) {
                    zero
                } else {
                    x
                }
            }
            Activation::ScaledTanh { alpha, beta } => E::of(alpha) * (E::of(beta) * x).tanh(),
            Activation::Affine { alpha, beta } => E::of(alpha) * x + E::of(beta),
            Activation::Linear => x,
        }
    }

    /// `f'(x)`, given `x` (anything, where [`derivative_needs_input`](Self::derivative_needs_input) is false) and `y = f(x)`. At a kink it is the derivative of the left side, as in PyTorch and Keras.
    pub fn derivative<E: Scalar>(self, x: E, y: E) -> E {
        let (zero, one) = (E::zero(), E::one());
        let step = |on: bool, above: E, below: E| if on { above } else { below };
        match self {
            Activation::Tanh => one - y * y,
            Activation::Relu => step(y > zero, one, zero),
            Activation::Sigmoid => y * (one - y),
            Activation::HardSigmoid { alpha, .. } => step(y > zero && y < one, E::of(alpha), zero),
            Activation::Softsign => {
                let inverse = one - y.abs();
                inverse * inverse
            }
            Activation::Softplus => one / (one + (-x).exp()),
            Activation::Elu { alpha } => step(x > zero, one, E::of(alpha) * x.exp()),
            Activation::Selu => step(x > zero, E::of(SELU_GAMMA), E::of(SELU_GAMMA * SELU_ALPHA) * x.exp()),
            Activation::LeakyRelu { alpha } => step(x > zero, one, E::of(alpha)),
            Activation::ThresholdedRelu { alpha } => step(x > E::of(alpha), one, zero),
            Activation::ScaledTanh { alpha, beta } => {
                let t = (E::of(beta) * x).tanh();
                E::of(alpha * beta) * (one - t * t)
            }
            Activation::Affine { alpha, .. } => E::of(alpha),
            Activation::Linear => one,
        }
    }

    /// Whether `f'(x)` can be had from `y = f(x)` alone, so that training need not keep `x`.
    pub fn derivative_needs_input(self) -> bool {
        !matches!(
            self,
            Activation::Tanh
                | Activation::Relu
                | Activation::Sigmoid
                | Activation::HardSigmoid { .. }
                | Activation::Softsign
                | Activation::Affine { .. }
                | Activation::Linear
        )
    }

    /// Whether every constant is finite.
    pub(crate) fn validate(self, option: &str) -> Result<()> {
        let (alpha, beta) = self.constants();
        for (constant, value) in [("alpha", alpha), ("beta", beta)] {
            if let Some(value) = value.filter(|v| !v.is_finite()) {
                return Err(Error::option(format!("{option}.{constant}"), "a finite number", value));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.constants() {
            (Some(alpha), Some(beta)) => write!(f, "{}:{alpha}:{beta}", self.name()),
            (Some(alpha), None) => write!(f, "{}:{alpha}", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}

/// `NAME`, `NAME:ALPHA` or `NAME:ALPHA:BETA`, with ONNX's default constants; `keras_hard_sigmoid` is Keras's.
impl FromStr for Activation {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let mut parts = s.split(':');
        let name = parts.next().unwrap_or_default();
        let base = if name == "keras_hard_sigmoid" {
            Some(Activation::KERAS_HARD_SIGMOID)
        } else {
            Activation::ALL.into_iter().find(|a| a.name() == name)
        };
        let base = base.ok_or_else(|| {
            let names: Vec<_> = Activation::ALL.iter().map(|a| a.name()).collect();
            Error::option("activation", format!("one of {}, keras_hard_sigmoid", names.join(", ")), s)
        })?;
        let constants = parts
            .map(|p| p.parse::<f64>().map_err(|_| Error::option("activation", "NAME:ALPHA:BETA with numbers", s)))
            .collect::<Result<Vec<_>>>()?;
        let (alpha, beta) = base.constants();
        let allowed = usize::from(alpha.is_some()) + usize::from(beta.is_some());
        if constants.len() > allowed {
            return Err(Error::option("activation", format!("at most {allowed} constants for {name}"), s));
        }
        let parsed = base.with_constants(constants.first().copied(), constants.get(1).copied());
        parsed.validate("activation")?;
        Ok(parsed)
    }
}

/// The functions a cell uses, in ONNX's terms `f`, `g` and `h`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activations {
    /// Of the gates (`f`): LSTM i, f, o; GRU r, z. The simple RNN has none.
    pub gate: Activation,
    /// Of the candidate state (`g`): LSTM g, GRU n; the only one of the simple RNN.
    pub state: Activation,
    /// Of the LSTM's cell state on its way to the output (`h`). Other cells have none.
    pub output: Activation,
}

impl Default for Activations {
    fn default() -> Self {
        Activations { gate: Activation::Sigmoid, state: Activation::Tanh, output: Activation::Tanh }
    }
}
