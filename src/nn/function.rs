//! Functions of elements beside the activations that Keras names: [`Function`], [`Combination`], as plain arithmetic.

use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

use serde::{Deserialize, Deserializer, Serialize};

use crate::cell::Activation;

/// A function of one element, with [ONNX's names and constants](https://onnx.ai/onnx/operators/).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Function {
    /// `tanh(x)`
    Tanh,
    /// `max(x, 0)`
    Relu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `clamp(alpha x + beta, 0, 1)`
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
    /// `x` above zero, `alpha (exp(x) - 1)` below.
    Elu {
        /// Scale of the negative side.
        alpha: f64,
    },
    /// [Klambauer et al. 2017](https://arxiv.org/abs/1706.02515).
    Selu,
    /// `x` above zero, `alpha x` below.
    LeakyRelu {
        /// Slope of the negative side.
        alpha: f64,
    },
    /// `x` above `alpha`, else zero.
    ThresholdedRelu {
        /// The threshold.
        alpha: f64,
    },
    /// `alpha x + beta`
    Affine {
        /// Slope.
        alpha: f64,
        /// Offset.
        beta: f64,
    },
    /// `max(x, 0) + min(0, alpha (exp(x / alpha) - 1))`
    Celu {
        /// Scale of the negative side.
        alpha: f64,
    },
    /// `x Φ(x)`, or with `approximate` `0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))` ([Hendrycks and Gimpel 2016](https://arxiv.org/abs/1606.08415)).
    Gelu {
        /// Whether Φ is approximated by a tanh.
        approximate: bool,
    },
    /// `x / (1 + exp(-x))`
    Silu,
    /// `x clamp(x / 6 + 1/2, 0, 1)`
    HardSwish,
    /// `x tanh(ln(1 + exp(x)))` ([Misra 2019](https://arxiv.org/abs/1908.08681)).
    Mish,
    /// `exp(x)`
    Exp,
    /// `ln(x)`
    Log,
    /// The square root.
    Sqrt,
    /// `1 / x`
    Reciprocal,
    /// `|x|`
    Absolute,
    /// The error function.
    Erf,
    /// `sin(x)`
    Sin,
    /// `cos(x)`
    Cos,
    /// `x^exponent`
    Power {
        /// The exponent.
        exponent: f64,
    },
    /// `min(max(x, low), high)`
    Clip {
        /// The least value; infinite for none, which files write as null.
        #[serde(deserialize_with = "lower_bound")]
        low: f64,
        /// The largest.
        #[serde(deserialize_with = "upper_bound")]
        high: f64,
    },
    /// -1, 0 or 1. Its gradient is zero, as is that of the functions below.
    Sign,
    /// The whole number towards zero.
    Truncate,
    /// The largest whole number that is not above.
    Floor,
    /// The smallest whole number that is not below.
    Ceiling,
    /// The nearest whole number, of two the even one.
    Round,
    /// 1 for zero, else 0: "not" of a truth value.
    IsZero,
    /// 1 where x is not a number, else 0.
    IsNan,
}

/// JSON has no infinite numbers.
fn lower_bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NEG_INFINITY))
}

fn upper_bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// Error function to full precision: a series of positive terms near zero, a continued fraction far from it
/// ([Abramowitz and Stegun](https://personal.math.ubc.ca/~cbm/aands/page_297.htm) 7.1.6, 7.1.14).
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        let mut n = 1.0;
        while term > sum * 1e-17 {
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return (FRAC_2_SQRT_PI * (-a * a).exp() * sum).copysign(x);
    }
    if a > 6.0 {
        return 1f64.copysign(x);
    }
    let mut tail = a;
    for k in (1..60).rev() {
        tail = a + f64::from(k) / 2.0 / tail;
    }
    (1.0 - (-a * a).exp() / (PI.sqrt() * tail)).copysign(x)
}

/// The standard normal distribution's density.
fn normal_density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * PI).sqrt()
}

fn sigmoid(x: f64) -> f64 {
    Activation::Sigmoid.apply(x)
}

impl Function {
    /// The same function, where recurrent cells have it too: then every device computes it.
    pub fn activation(self) -> Option<Activation> {
        Some(match self {
            Function::Tanh => Activation::Tanh,
            Function::Relu => Activation::Relu,
            Function::Sigmoid => Activation::Sigmoid,
            Function::HardSigmoid { alpha, beta } => Activation::HardSigmoid { alpha, beta },
            Function::Softsign => Activation::Softsign,
            Function::Softplus => Activation::Softplus,
            Function::Elu { alpha } => Activation::Elu { alpha },
            Function::Selu => Activation::Selu,
            Function::LeakyRelu { alpha } => Activation::LeakyRelu { alpha },
            Function::ThresholdedRelu { alpha } => Activation::ThresholdedRelu { alpha },
            Function::Affine { alpha, beta } => Activation::Affine { alpha, beta },
            _ => return None,
        })
    }

    /// Its constants, to be checked.
    pub(super) fn constants(self) -> [f64; 2] {
        match self {
            Function::HardSigmoid { alpha, beta } | Function::Affine { alpha, beta } => [alpha, beta],
            Function::Elu { alpha }
            | Function::LeakyRelu { alpha }
            | Function::ThresholdedRelu { alpha }
            | Function::Celu { alpha } => [alpha, 0.0],
            Function::Power { exponent } => [exponent, 0.0],
            // Infinite bounds are none, where they leave something between them.
            Function::Clip { low, high } => {
                let leaves = low <= high && low != f64::INFINITY && high != f64::NEG_INFINITY;
                [if leaves { 0.0 } else { f64::NAN }, 0.0]
            }
            _ => [0.0; 2],
        }
    }

    /// Whether its gradient is zero everywhere.
    pub fn is_step(self) -> bool {
        use Function::{Ceiling, Floor, IsNan, IsZero, Round, Sign, Truncate};
        matches!(self, Sign | Truncate | Floor | Ceiling | Round | IsZero | IsNan)
    }

    /// `f(x)`
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Function::Celu { alpha } => {
                if x > 0.0 {
                    x
                } else {
                    alpha * (x / alpha).exp_m1()
                }
            }
            Function::Gelu { approximate: false } => 0.5 * x * (1.0 + erf(x / SQRT_2)),
            Function::Gelu { approximate: true } => 0.5 * x * (1.0 + gelu_argument(x).tanh()),
            Function::Silu => x * sigmoid(x),
            Function::HardSwish => x * Activation::KERAS_HARD_SIGMOID.apply(x),
            Function::Mish => x * Activation::Softplus.apply(x).tanh(),
            Function::Exp => x.exp(),
            Function::Log => x.ln(),
            Function::Sqrt => x.sqrt(),
            Function::Reciprocal => x.recip(),
            Function::Absolute => x.abs(),
            Function::Erf => erf(x),
            Function::Sin => x.sin(),
            Function::Cos => x.cos(),
            Function::Power { exponent } => x.powf(exponent),
            Function::Clip { low, high } => {
                if x < low {
                    low
                } else if x > high {
                    high
                } else {
                    x
                }
            }
            Function::Sign => {
                if x == 0.0 || x.is_nan() {
                    x
                } else {
                    x.signum()
                }
            }
            Function::Truncate => x.trunc(),
            Function::Floor => x.floor(),
            Function::Ceiling => x.ceil(),
            Function::Round => x.round_ties_even(),
            Function::IsZero => f64::from(x == 0.0),
            Function::IsNan => f64::from(x.is_nan()),
            _ => self.activation().map_or(x, |activation| activation.apply(x)),
        }
    }

    /// `f'(x)`, with `y = f(x)`; at a kink that of the left side.
    pub fn derivative(self, x: f64, y: f64) -> f64 {
        match self {
            Function::Celu { alpha } => {
                if x > 0.0 {
                    1.0
                } else {
                    (x / alpha).exp()
                }
            }
            Function::Gelu { approximate: false } => 0.5 * (1.0 + erf(x / SQRT_2)) + x * normal_density(x),
            Function::Gelu { approximate: true } => {
                let t = gelu_argument(x).tanh();
                let slope = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044_715 * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
            }
            Function::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
            Function::HardSwish => {
                let h = Activation::KERAS_HARD_SIGMOID.apply(x);
                h + x * Activation::KERAS_HARD_SIGMOID.derivative(x, h)
            }
            Function::Mish => {
                let t = Activation::Softplus.apply(x).tanh();
                t + x * (1.0 - t * t) * sigmoid(x)
            }
            Function::Exp => y,
            Function::Log => x.recip(),
            Function::Sqrt => 0.5 / y,
            Function::Reciprocal => -y * y,
            Function::Absolute => {
                if x > 0.0 {
                    1.0
                } else if x < 0.0 {
                    -1.0
                } else {
                    0.0
                }
            }
            Function::Erf => FRAC_2_SQRT_PI * (-x * x).exp(),
            Function::Sin => x.cos(),
            Function::Cos => -x.sin(),
            Function::Power { exponent } => exponent * x.powf(exponent - 1.0),
            Function::Clip { low, high } => f64::from(x > low && x <= high),
            _ if self.is_step() => 0.0,
            _ => self.activation().map_or(1.0, |activation| activation.derivative(x, y)),
        }
    }
}

fn gelu_argument(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044_715 * x * x * x)
}

/// A number, or a truth value as 1 or 0, made of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Combination {
    /// `a + b`
    Sum,
    /// `a - b`
    Difference,
    /// `a b`
    Product,
    /// `a / b`
    Quotient,
    /// `a^b`
    Power,
    /// The larger; of equals a.
    Maximum,
    /// The smaller; of equals a.
    Minimum,
    /// `a - b floor(a / b)`, which has the sign of b.
    Modulo,
    /// What is left of `a / b`, with the sign of a.
    Remainder,
    /// 1 where they are equal.
    Equal,
    /// 1 where a is less.
    Less,
    /// 1 where a is less or equal.
    LessOrEqual,
    /// 1 where a is greater.
    Greater,
    /// 1 where a is greater or equal.
    GreaterOrEqual,
    /// 1 where both are not zero.
    And,
    /// 1 where one is not zero.
    Or,
    /// 1 where one is not zero and the other is.
    Xor,
}

impl Combination {
    /// Whether its gradients are zero everywhere.
    pub fn is_step(self) -> bool {
        use Combination::{And, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Or, Xor};
        matches!(self, Equal | Less | LessOrEqual | Greater | GreaterOrEqual | And | Or | Xor)
    }

    /// The value for `a` and `b`.
    pub fn apply(self, a: f64, b: f64) -> f64 {
        let holds = |truth: bool| f64::from(truth);
        match self {
            Combination::Sum => a + b,
            Combination::Difference => a - b,
            Combination::Product => a * b,
            Combination::Quotient => a / b,
            Combination::Power => a.powf(b),
            // NaN stays NaN.
            Combination::Maximum => {
                if b > a || b.is_nan() {
                    b
                } else {
                    a
                }
            }
            Combination::Minimum => {
                if b < a || b.is_nan() {
                    b
                } else {
                    a
                }
            }
            Combination::Modulo => a - b * (a / b).floor(),
            Combination::Remainder => a % b,
            Combination::Equal => holds(a == b),
            Combination::Less => holds(a < b),
            Combination::LessOrEqual => holds(a <= b),
            Combination::Greater => holds(a > b),
            Combination::GreaterOrEqual => holds(a >= b),
            Combination::And => holds(a != 0.0 && b != 0.0),
            Combination::Or => holds(a != 0.0 || b != 0.0),
            Combination::Xor => holds((a != 0.0) != (b != 0.0)),
        }
    }

    /// Its derivatives by `a` and by `b`, with `y` its value.
    pub fn derivatives(self, a: f64, b: f64, y: f64) -> (f64, f64) {
        match self {
            Combination::Sum => (1.0, 1.0),
            Combination::Difference => (1.0, -1.0),
            Combination::Product => (b, a),
            Combination::Quotient => (b.recip(), -y / b),
            Combination::Power => (b * a.powf(b - 1.0), if y == 0.0 { 0.0 } else { y * a.ln() }),
            Combination::Maximum => {
                if b > a {
                    (0.0, 1.0)
                } else {
                    (1.0, 0.0)
                }
            }
            Combination::Minimum => {
                if b < a {
                    (0.0, 1.0)
                } else {
                    (1.0, 0.0)
                }
            }
            Combination::Modulo => (1.0, -(a / b).floor()),
            Combination::Remainder => (1.0, -(a / b).trunc()),
            _ => (0.0, 0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_has_full_precision() {
        // Python's math.erf; 2.99 and 3.01 stand on either side of the change of method.
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (2.99, 0.999_976_474_396_919_4),
            (3.01, 0.999_979_261_036_362_9),
            (4.0, 0.999_999_984_582_742_1),
            (7.0, 1.0),
        ] {
            assert!((erf(x) - expected).abs() < 1e-15, "{x}: {} {expected}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!(erf(f64::NAN).is_nan());
    }
}
