//! Functions of elements, and arithmetic of two tensors, as nodes.

use crate::cell::Activation;
use crate::error::Result;
use crate::exchange::onnx::export::{Attribute, Exporter, Tensor};
use crate::nn::{ActivationFunction, Combination, Function};

/// ONNX's name of a function: of the operator that computes it, or of cells, which have two more and lack SELU.
pub(super) fn name_of(function: Activation) -> &'static str {
    match function {
        Activation::Tanh => "Tanh",
        Activation::Relu => "Relu",
        Activation::Sigmoid => "Sigmoid",
        Activation::HardSigmoid { .. } => "HardSigmoid",
        Activation::Softsign => "Softsign",
        Activation::Softplus => "Softplus",
        Activation::Elu { .. } => "Elu",
        Activation::Selu => "Selu",
        Activation::LeakyRelu { .. } => "LeakyRelu",
        Activation::ThresholdedRelu { .. } => "ThresholdedRelu",
        Activation::ScaledTanh { .. } => "ScaledTanh",
        Activation::Affine { .. } | Activation::Linear => "Affine",
    }
}

impl Exporter {
    pub(super) fn cast(&mut self, x: &str, to: i64) -> String {
        self.one("Cast", &[x], &[("to", Attribute::Int(to))])
    }

    pub(super) fn number(&mut self, value: f64) -> String {
        self.floats("number", &[], &[value])
    }

    pub(super) fn activation(&mut self, x: &str, function: ActivationFunction) -> Result<String> {
        let axis = [("axis", Attribute::Int(-1))];
        match (function, function.elementwise()) {
            (ActivationFunction::Linear, _) => Ok(x.to_owned()),
            (ActivationFunction::LogSoftmax, _) => Ok(self.one("LogSoftmax", &[x], &axis)),
            (ActivationFunction::Softmax, _) => Ok(self.one("Softmax", &[x], &axis)),
            (_, Some(activation)) => self.elementwise(x, activation),
            (other, None) => match other.function() {
                Some(function) => self.function(x, function),
                None => Err(self.unsupported(&format!("{other:?}"), "ONNX has no such function")),
            },
        }
    }

    fn elementwise(&mut self, x: &str, activation: Activation) -> Result<String> {
        let (alpha, beta) = activation.constants();
        match activation {
            Activation::Linear => return Ok(x.to_owned()),
            Activation::Affine { alpha, beta } => {
                let alpha = self.number(alpha);
                let y = self.one("Mul", &[x, &alpha], &[]);
                if beta == 0.0 {
                    return Ok(y);
                }
                let beta = self.number(beta);
                return Ok(self.one("Add", &[&y, &beta], &[]));
            }
            Activation::ScaledTanh { alpha, beta } => {
                let (alpha, beta) = (self.number(alpha), self.number(beta));
                let inner = self.one("Mul", &[x, &beta], &[]);
                let t = self.one("Tanh", &[&inner], &[]);
                return Ok(self.one("Mul", &[&t, &alpha], &[]));
            }
            _ => {}
        }
        let attributes: Vec<(&str, Attribute<'_>)> = [("alpha", alpha), ("beta", beta)]
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, Attribute::Float(value))))
            .collect();
        Ok(self.one(name_of(activation), &[x], &attributes))
    }

    pub(super) fn function(&mut self, x: &str, function: Function) -> Result<String> {
        if let Some(activation) = function.activation() {
            return self.elementwise(x, activation);
        }
        let op = match function {
            Function::Exp => "Exp",
            Function::Log => "Log",
            Function::Sqrt => "Sqrt",
            Function::Reciprocal => "Reciprocal",
            Function::Absolute => "Abs",
            Function::Erf => "Erf",
            Function::Sin => "Sin",
            Function::Cos => "Cos",
            Function::Sign => "Sign",
            Function::Floor => "Floor",
            Function::Ceiling => "Ceil",
            Function::Round => "Round",
            Function::HardSwish => "HardSwish",
            Function::Mish => "Mish",
            Function::Celu { alpha } => return Ok(self.one("Celu", &[x], &[("alpha", Attribute::Float(alpha))])),
            Function::Power { exponent } => {
                let exponent = self.number(exponent);
                return Ok(self.one("Pow", &[x, &exponent], &[]));
            }
            Function::Clip { low, high } => {
                let (low, high) = (self.number(low), self.number(high));
                return Ok(self.one("Clip", &[x, &low, &high], &[]));
            }
            Function::Silu => {
                let gate = self.one("Sigmoid", &[x], &[]);
                return Ok(self.one("Mul", &[x, &gate], &[]));
            }
            Function::Truncate => {
                let whole = self.cast(x, 7);
                return Ok(self.cast(&whole, 1));
            }
            Function::IsZero => {
                let zero = self.number(0.0);
                let holds = self.one("Equal", &[x, &zero], &[]);
                return Ok(self.cast(&holds, 1));
            }
            Function::IsNan => {
                let holds = self.one("IsNaN", &[x], &[]);
                return Ok(self.cast(&holds, 1));
            }
            Function::Gelu { approximate } => {
                let half = self.number(0.5);
                let one = self.number(1.0);
                let inner = if approximate {
                    let (cubic, scale) = (self.number(0.044_715), self.number((2.0 / std::f64::consts::PI).sqrt()));
                    let square = self.one("Mul", &[x, x], &[]);
                    let cube = self.one("Mul", &[&square, x], &[]);
                    let term = self.one("Mul", &[&cube, &cubic], &[]);
                    let sum = self.one("Add", &[x, &term], &[]);
                    let scaled = self.one("Mul", &[&sum, &scale], &[]);
                    self.one("Tanh", &[&scaled], &[])
                } else {
                    let scale = self.number(std::f64::consts::FRAC_1_SQRT_2);
                    let scaled = self.one("Mul", &[x, &scale], &[]);
                    self.one("Erf", &[&scaled], &[])
                };
                let sum = self.one("Add", &[&inner, &one], &[]);
                let product = self.one("Mul", &[x, &sum], &[]);
                return Ok(self.one("Mul", &[&product, &half], &[]));
            }
            other => return Err(self.unsupported(&format!("{other:?}"), "it has no form there yet")),
        };
        Ok(self.one(op, &[x], &[]))
    }

    /// Inputs with as many axes as the one that has most, so that ONNX's rule, which counts the samples' axis too, is that of samples.
    pub(super) fn aligned(&mut self, inputs: &[Tensor]) -> Vec<String> {
        let most = inputs.iter().map(|input| input.shape.len()).max().unwrap_or(0);
        let mut names = Vec::new();
        for input in inputs {
            let mut shape = vec![1; most - input.shape.len()];
            shape.extend(&input.shape);
            names.push(if input.shape.len() == most { input.name.clone() } else { self.reshaped(&input.name, &shape) });
        }
        names
    }

    pub(super) fn pairwise(&mut self, how: Combination, inputs: &[Tensor]) -> Result<String> {
        let aligned = self.aligned(inputs);
        let [a, b] = &aligned[..] else { return Err(self.unsupported("a combination", "it takes two inputs")) };
        let op = match how {
            Combination::Sum => "Add",
            Combination::Difference => "Sub",
            Combination::Product => "Mul",
            Combination::Quotient => "Div",
            Combination::Power => "Pow",
            Combination::Maximum => "Max",
            Combination::Minimum => "Min",
            Combination::Remainder => return Ok(self.one("Mod", &[a, b], &[("fmod", Attribute::Int(1))])),
            Combination::Modulo => {
                let quotient = self.one("Div", &[a, b], &[]);
                let whole = self.one("Floor", &[&quotient], &[]);
                let product = self.one("Mul", &[b, &whole], &[]);
                return Ok(self.one("Sub", &[a, &product], &[]));
            }
            Combination::Equal => "Equal",
            Combination::Less => "Less",
            Combination::LessOrEqual => "LessOrEqual",
            Combination::Greater => "Greater",
            Combination::GreaterOrEqual => "GreaterOrEqual",
            Combination::And | Combination::Or | Combination::Xor => {
                let op = match how {
                    Combination::And => "And",
                    Combination::Or => "Or",
                    _ => "Xor",
                };
                let (a, b) = (self.cast(a, 9), self.cast(b, 9));
                let holds = self.one(op, &[&a, &b], &[]);
                return Ok(self.cast(&holds, 1));
            }
        };
        let y = self.one(op, &[a, b], &[]);
        Ok(if how.is_step() { self.cast(&y, 1) } else { y })
    }
}
