//! Layers of the tests' own: they give a value a mask, take it away, show it, and watch what passes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fused_rnn::nn::{Backward, Builder, Forward, Layer, LayerConfig, Op, Value};
use fused_rnn::{Device, Error, Result};

/// Its input as it is.
struct Copied(Option<Arc<Mutex<Vec<f64>>>>);

impl Op for Copied {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let x = pass.inputs.get(0)?;
        if let Some(seen) = &self.0 {
            *seen.lock().unwrap() = device.read(x)?;
        }
        device.copy(x, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        match pass.dinputs.optional(0) {
            Some(dx) => device.copy(pass.doutputs.get(0)?, dx),
            None => Ok(()),
        }
    }
}

/// Inputs x and a mask: x with it.
pub struct GiveMask;

impl Layer for GiveMask {
    fn class_name(&self) -> &str {
        "GiveMask"
    }

    fn stem(&self) -> &str {
        "give_mask"
    }

    fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let [x, mask] = inputs else {
            return Err(Error::Shape {
                tensor: builder.name(),
                expected: "x and a mask".to_owned(),
                got: inputs.len().to_string(),
            });
        };
        let mask = builder.constant_op(Copied(None), &[mask], mask.shape())?;
        Ok(vec![x.clone().with_mask(Some(&mask))])
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}

/// Its input as it is; `seen` is what the last pass, in training or not, has brought.
pub struct Watch {
    pub seen: Arc<Mutex<Vec<f64>>>,
    /// Whether the mask stays, which then leaves steps out of the loss.
    pub keep_mask: bool,
}

impl Layer for Watch {
    fn class_name(&self) -> &str {
        "Watch"
    }

    fn stem(&self) -> &str {
        "watch"
    }

    fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let shape = inputs[0].shape().to_vec();
        let y = builder.op1(Copied(Some(self.seen.clone())), &[&inputs[0]], &shape, 0..0)?;
        Ok(vec![y.with_mask(inputs[0].mask().filter(|_| self.keep_mask))])
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}

/// The mask of its input as a tensor, or the input where there is none; `found` says which.
pub struct ShowMask {
    pub found: Arc<AtomicBool>,
}

impl Layer for ShowMask {
    fn class_name(&self) -> &str {
        "ShowMask"
    }

    fn stem(&self) -> &str {
        "show_mask"
    }

    fn build(&self, _: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        self.found.store(inputs[0].mask().is_some(), Ordering::Relaxed);
        Ok(vec![inputs[0].mask().unwrap_or(&inputs[0]).clone()])
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}

/// Its input without its mask.
pub struct TakeMask;

impl Layer for TakeMask {
    fn class_name(&self) -> &str {
        "TakeMask"
    }

    fn stem(&self) -> &str {
        "take_mask"
    }

    fn build(&self, _: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        Ok(vec![inputs[0].clone().with_mask(None)])
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}

/// The first input with the mask of the second.
pub struct GiveMaskOf;

impl Layer for GiveMaskOf {
    fn class_name(&self) -> &str {
        "GiveMaskOf"
    }

    fn stem(&self) -> &str {
        "give_mask_of"
    }

    fn build(&self, _: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        Ok(vec![inputs[0].clone().with_mask(inputs[1].mask())])
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}
