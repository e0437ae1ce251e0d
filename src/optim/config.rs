//! An optimizer as data.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::optim::{Adadelta, Adagrad, Adam, AdamW, Adamax, Nadam, Optimizer, RmsProp, Sgd};

/// A rule with all its constants, as files hold it; [`Optimizer::config`] gives it, [`build`](Self::build) the rule again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class")]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// [`Sgd`].
    Sgd(Sgd),
    /// [`RmsProp`].
    RmsProp(RmsProp),
    /// [`Adam`].
    Adam(Adam),
    /// [`AdamW`].
    AdamW(AdamW),
    /// [`Adagrad`].
    Adagrad(Adagrad),
    /// [`Nadam`].
    Nadam(Nadam),
    /// [`Adamax`].
    Adamax(Adamax),
    /// [`Adadelta`].
    Adadelta(Adadelta),
}

impl OptimizerConfig {
    /// The optimizer with these constants.
    ///
    /// ```
    /// use fused_rnn::model::Sequential;
    /// use fused_rnn::nn::{Dense, Loss};
    /// use fused_rnn::optim::{Adam, OptimizerConfig, Sgd};
    /// fn compile(model: &mut Sequential, name: &str) -> fused_rnn::Result<()> {
    ///     let chosen = match name {
    ///         "sgd" => OptimizerConfig::Sgd(Sgd::new(0.01)?),
    ///         _ => OptimizerConfig::Adam(Adam::default()),
    ///     };
    ///     model.compile(chosen.build()?, Loss::MeanSquaredError)?;
    ///     Ok(())
    /// }
    /// let mut model = Sequential::new(fused_rnn::Device::cpu(), &[3], 1)?;
    /// model.add(Dense::new(1))?;
    /// compile(&mut model, "sgd")?;
    /// # Ok::<(), fused_rnn::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a constant that it cannot have.
    pub fn build(self) -> Result<Box<dyn Optimizer>> {
        let rule: Box<dyn Optimizer> = match self {
            OptimizerConfig::Sgd(rule) => Box::new(rule),
            OptimizerConfig::RmsProp(rule) => Box::new(rule),
            OptimizerConfig::Adam(rule) => Box::new(rule),
            OptimizerConfig::AdamW(rule) => Box::new(rule),
            OptimizerConfig::Adagrad(rule) => Box::new(rule),
            OptimizerConfig::Nadam(rule) => Box::new(rule),
            OptimizerConfig::Adamax(rule) => Box::new(rule),
            OptimizerConfig::Adadelta(rule) => Box::new(rule),
        };
        rule.validate()?;
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{TensorMut, TensorRef};
    use crate::dtype::DType;
    use crate::optim::testing::{states, update};

    /// Every rule, with constants that no default has.
    fn all() -> Vec<Box<dyn Optimizer>> {
        // Numbers whose shortest decimal form a careless reader gets wrong in the last bit.
        let (rate, small) = (0.1 + 0.2, 1.0 / 3.0 * 1e-5);
        vec![
            Box::new(Sgd::new(rate).unwrap().momentum(2.0 / 3.0, true).unwrap()),
            Box::new(RmsProp::new(rate).unwrap().with(0.7 + 0.1, 0.3 + 0.3, true).unwrap().epsilon(small).unwrap()),
            Box::new(Adam::new(rate).unwrap().with(0.7, 0.8 + 0.1, small).unwrap()),
            Box::new(AdamW::new(rate).unwrap().with(0.7, 0.95, small).unwrap().weight_decay(1.0 / 7.0).unwrap()),
            Box::new(Adagrad::new(rate).unwrap().with(1.0 / 7.0, small).unwrap()),
            Box::new(Nadam::new(rate).unwrap().with(0.7, 0.8 + 0.1, small).unwrap()),
            Box::new(Adamax::new(rate).unwrap().with(0.7, 0.8 + 0.1, small).unwrap()),
            Box::new(Adadelta::new(rate).unwrap().with(0.7 + 0.1, small).unwrap()),
        ]
    }

    #[test]
    fn a_file_gives_the_same_rule() {
        for rule in all() {
            let text = serde_json::to_string(&rule.config()).unwrap();
            let read: OptimizerConfig = serde_json::from_str(&text).unwrap();
            assert_eq!(read, rule.config(), "{text}");
            // Boxed, as a model takes it.
            let mut built: Box<dyn Optimizer> = Box::new(read.build().unwrap());
            built.validate().unwrap();
            assert_eq!((0..2).map(|i| built.initial(i)).collect::<Vec<_>>(), [rule.initial(0), rule.initial(1)]);
            assert_eq!(built.config(), rule.config(), "{text}");
            assert_eq!(built.states(), rule.states(), "{text}");
            built.set_learning_rate(0.625).unwrap();
            assert_eq!(built.learning_rate(), 0.625, "{text}");
            assert_ne!(built.config(), rule.config(), "{text}");
            let (mut a, mut b) = (vec![1.0f64], vec![1.0f64]);
            let states = || states(&*rule, DType::F64, 1);
            update(&*rule, 1, TensorMut::of(&mut a), TensorRef::of(&[0.3f64]), &mut states()).unwrap();
            update(&*read.build().unwrap(), 1, TensorMut::of(&mut b), TensorRef::of(&[0.3f64]), &mut states()).unwrap();
            assert!(a == b && a != [1.0], "{text}: {a:?} {b:?}");
            let mut too_many = states();
            too_many.extend((0..4).flat_map(|_| crate::optim::testing::states(&Adam::default(), DType::F64, 1)));
            assert!(
                update(&*rule, 1, TensorMut::of(&mut a), TensorRef::of(&[0.3f64]), &mut too_many).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn every_number_survives_a_file() {
        // Doubles of all magnitudes, from a congruential generator.
        let mut bits = 1u64;
        for _ in 0..2000 {
            bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let learning_rate = f64::from_bits(bits >> 1);
            if learning_rate.is_finite() {
                let config = OptimizerConfig::Adagrad(Adagrad { learning_rate, ..Adagrad::default() });
                let text = serde_json::to_string(&config).unwrap();
                assert_eq!(serde_json::from_str::<OptimizerConfig>(&text).unwrap(), config, "{text}");
            }
        }
    }

    #[test]
    fn refuses_what_no_rule_has() {
        for text in [
            r#"{"class": "Sgd", "learning_rate": 0.0, "momentum": 0.0, "nesterov": false}"#,
            r#"{"class": "Sgd", "learning_rate": 0.1, "momentum": 1.0, "nesterov": false}"#,
            r#"{"class": "RmsProp", "learning_rate": 0.1, "rho": 0.9, "momentum": 0.0, "epsilon": -1.0, "centered": false}"#,
            r#"{"class": "Adam", "learning_rate": 0.1, "beta_1": 0.9, "beta_2": 1.5, "epsilon": 1e-7}"#,
            r#"{"class": "AdamW", "learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.9, "epsilon": 0.0, "weight_decay": -1.0}"#,
            r#"{"class": "Adagrad", "learning_rate": 0.1, "initial_accumulator_value": -0.1, "epsilon": 0.0}"#,
        ] {
            let config: OptimizerConfig = serde_json::from_str(text).unwrap();
            assert!(config.build().is_err(), "{text}");
        }
        for text in [
            r#"{"class": "Magic"}"#,
            r#"{"class": "Sgd", "learning_rate": 0.1}"#,
            r#"{"class": "Sgd", "x": 1}"#,
            r#"{"class": "Sgd", "learning_rate": 0.1, "momentum": 0.0, "nesterov": false, "x": 1}"#,
        ] {
            assert!(serde_json::from_str::<OptimizerConfig>(text).is_err(), "{text}");
        }
    }
}
