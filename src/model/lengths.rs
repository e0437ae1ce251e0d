//! One model for sequences of any length: the operations of each length, by turns, on the same weights.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::arrays::AnyArray;
use crate::model::graph::Topology;
use crate::model::input_shape::{fits, shown};
use crate::nn::Builder;

/// Steps that stand for any number while a model is put together: divided by each of 1 to 10, so that strides and pools meet no remainder.
pub(super) const ANY_STEPS: usize = 5040;
/// Another number, to tell what depends on it.
const OTHER_STEPS: usize = 2 * ANY_STEPS;
/// Lengths whose operations are kept, at most, those at hand among them.
const KEPT: usize = 8;
/// Elements of the tensors of all that are kept beside those at hand, at most: what operations remember grows with them.
const KEPT_ELEMENTS: usize = 1 << 26;

/// The operations of lengths that are not at hand, those used last at the end.
pub(super) struct Programs {
    others: Vec<Program>,
    /// The layers of a stack that grows, built for [`OTHER_STEPS`].
    longer: Option<Longer>,
}

/// The same layers where inputs of any length have [`OTHER_STEPS`].
type Longer = (Builder, Topology);

/// The operations for inputs of some lengths.
struct Program {
    builder: Builder,
    topology: Topology,
    /// Elements of the tensors of its last batch.
    elements: usize,
}

/// How many of these programs, by their elements, those used last at the end, are kept beside the one at hand.
fn kept(sizes: &[usize]) -> usize {
    let mut left = KEPT_ELEMENTS;
    let fits = |size: &&usize| match left.checked_sub(**size) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    sizes.iter().rev().take(KEPT - 1).take_while(fits).count()
}

impl Programs {
    pub fn new() -> Self {
        Programs { others: Vec::new(), longer: None }
    }

    /// [`check_any_length`] for a layer that has just been put on top of a stack: the layers below it are built once, and not for each one more.
    pub fn check_added(&mut self, builder: &Builder, topology: &mut Topology) -> Result<()> {
        if !topology.has_any_length() {
            return Ok(());
        }
        // What has changed otherwise in between, or does not fit, is looked at as a whole.
        if let Some((mut other, mut longer)) = self.longer.take()
            && longer.add_top_of(&mut other, topology).unwrap_or(false)
            && different_weights(builder, &other, topology.layers.len().saturating_sub(1)).is_none()
        {
            topology.compare_top_axes(&longer);
            self.longer = Some((other, longer));
            return Ok(());
        }
        self.longer = check_any_length(builder, topology)?;
        Ok(())
    }

    /// Forgets them: after layers have changed.
    pub fn clear(&mut self) {
        self.others.clear();
    }
}

impl Model {
    /// Steps of the inputs of any length, in the order of the inputs, as these arrays have them.
    pub(super) fn lengths_of(&self, prefix: &str, x: &[AnyArray<'_>]) -> Result<Vec<usize>> {
        let inputs = &self.topology.inputs;
        if x.len() != inputs.len() || !self.topology.has_any_length() {
            // Another number of arrays is refused where they are checked.
            return Ok(self.topology.lengths.clone());
        }
        let mut lengths = Vec::new();
        for (input, array) in inputs.iter().zip(x).filter(|(input, _)| input.axes.contains(&None)) {
            let tensor = || match inputs.len() {
                1 => format!("{prefix}x"),
                _ => format!("{prefix}x of {}", input.name),
            };
            if !fits(array.shape(), &input.axes) {
                let axes = shown(&input.axes);
                let axes = axes.strip_prefix('[').unwrap_or(&axes);
                let expected = format!("[samples, {axes} (samples, then the model's input shape, None for any length)");
                return Err(Error::shape(tensor(), expected, format!("{:?}", array.shape())));
            }
            // Behind the samples.
            let at = input.axes.iter().position(Option::is_none).map_or(1, |axis| axis + 1);
            match array.shape().get(at) {
                Some(0) | None => {
                    return Err(Error::shape(tensor(), "at least one step", format!("{:?}", array.shape())));
                }
                Some(steps) => lengths.push(*steps),
            }
        }
        Ok(lengths)
    }

    /// Waits for the passes given so far, at whatever lengths, and says whether they have ended as they should.
    pub(super) fn check_operations(&self) -> Result<()> {
        self.network.check(&self.device)?;
        self.programs.others.iter().try_for_each(|program| program.builder.check_operations(&self.device))
    }

    /// Makes the operations for inputs of these lengths those at hand. States that layers carry go with them.
    pub(super) fn take_lengths(&mut self, lengths: &[usize]) -> Result<()> {
        if self.topology.lengths == lengths {
            return Ok(());
        }
        let known = self.programs.others.iter().position(|program| program.topology.lengths == lengths);
        let mut program = match known {
            Some(index) => self.programs.others.remove(index),
            None => {
                let (builder, topology) = self.topology.rebuilt(self.topology.layers.clone(), lengths)?;
                if let Some(difference) = different_weights(&self.network.builder, &builder, 0) {
                    return Err(difference.error(&self.topology.lengths, lengths));
                }
                Program { builder, topology, elements: 0 }
            }
        };
        let values = self.outputs.iter().map(|output| program.topology.tensor(output.source).map(|t| t.value));
        let values = values.collect::<Option<Vec<_>>>().ok_or_else(|| Error::Presence {
            tensor: "outputs".to_owned(),
            problem: format!("they are not there with inputs of {lengths:?} steps"),
        })?;
        self.network.builder.hand_states_to(&mut program.builder)?;
        for (output, value) in self.outputs.iter_mut().zip(values) {
            output.set_value(value);
        }
        program.elements = self.network.elements();
        std::mem::swap(&mut self.network.builder, &mut program.builder);
        std::mem::swap(&mut self.topology, &mut program.topology);
        if program.elements == 0 {
            // It has computed nothing: the one of the steps that stand for any number.
            return Ok(());
        }
        self.programs.others.push(program);
        let sizes: Vec<usize> = self.programs.others.iter().map(|program| program.elements).collect();
        let gone = self.programs.others.len() - kept(&sizes);
        // A kernel that gave up in one of them is heard of before it goes.
        self.programs.others.drain(..gone).try_for_each(|program| program.builder.check_operations(&self.device))
    }

    /// Gives every input of any length so many steps from now on: for files of programs that know no other.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for no steps; [`Error::Shape`] naming the layer that cannot take so few. The model then is as it was.
    pub fn set_steps(&mut self, steps: usize) -> Result<&mut Self> {
        if steps == 0 {
            return Err(Error::ZeroSize { name: "steps" });
        }
        self.take_lengths(&vec![steps; self.topology.lengths.len()])?;
        self.topology.fix_lengths();
        self.programs.clear();
        Ok(self)
    }

    /// Sample shapes of the inputs, `None` for an axis of any length.
    pub fn input_axes(&self) -> impl Iterator<Item = &[Option<usize>]> {
        self.topology.inputs.iter().map(|input| input.axes.as_slice())
    }

    /// Sample shapes of the outputs, `None` for an axis whose length depends on that of an input of any length.
    pub fn output_axes(&self) -> impl Iterator<Item = &[Option<usize>]> {
        self.outputs.iter().map(|output| self.topology.axes_of(output.source))
    }
}

/// How a model is trained, for files of other programs.
#[cfg(feature = "exchange")]
pub(crate) struct Training<'a> {
    pub optimizer: crate::optim::OptimizerConfig,
    pub schedule: Option<&'a crate::optim::Schedule>,
    /// Of each output, and what it counts.
    pub losses: Vec<(&'a crate::loss::LossFunction, f64)>,
    pub metrics: &'a [crate::metrics::Metric],
    pub weighted_metrics: &'a [crate::metrics::Metric],
}

/// What writers of other programs' files ask.
#[cfg(feature = "exchange")]
impl Model {
    /// How it is trained.
    pub(crate) fn training(&self) -> Training<'_> {
        Training {
            optimizer: self.optimizer.config(),
            schedule: self.schedule.as_ref(),
            losses: self.outputs.iter().map(|output| (&output.loss, output.loss_weight)).collect(),
            metrics: &self.metrics,
            weighted_metrics: &self.weighted_metrics,
        }
    }

    /// Whether an input may have any number of steps.
    pub(crate) fn has_any_length(&self) -> bool {
        self.topology.has_any_length()
    }

    /// Two numbers of steps, to compare what is read or written for them.
    pub(crate) fn open_steps() -> [usize; 2] {
        [ANY_STEPS, OTHER_STEPS]
    }

    /// Shape of a tensor, `None` for an axis of any length.
    pub(crate) fn axes_of(&self, source: crate::model::Source) -> Vec<Option<usize>> {
        self.topology.axes_of(source).to_vec()
    }

    /// Sample shapes of the inputs, and of the outputs of every use of a layer, in the order of [`config`](Self::config), where inputs of
    /// any length have so many steps.
    #[allow(clippy::type_complexity, reason = "shapes of outputs of calls")]
    pub(crate) fn shapes_at(&self, steps: usize) -> Result<(Vec<Vec<usize>>, Vec<Vec<Vec<usize>>>)> {
        let lengths = vec![steps; self.topology.lengths.len()];
        let (_, topology) = self.topology.rebuilt(self.topology.layers.clone(), &lengths)?;
        let inputs = topology.inputs.iter().map(|input| input.value.shape().to_vec()).collect();
        let of_call = |call: &crate::model::graph::LayerCall| call.outputs.iter().map(|v| v.shape().to_vec()).collect();
        Ok((inputs, topology.calls.iter().map(of_call).collect()))
    }
}

/// Finds out which axes depend on the lengths of inputs of any length, and refuses layers whose weights do. Nothing of the size of a
/// sequence is allocated. Gives the layers for [`OTHER_STEPS`], where there is such an input.
pub(super) fn check_any_length(builder: &Builder, topology: &mut Topology) -> Result<Option<Longer>> {
    if !topology.has_any_length() {
        return Ok(None);
    }
    let others = vec![OTHER_STEPS; topology.lengths.len()];
    let (other, longer) = topology.rebuilt(topology.layers.clone(), &others)?;
    if let Some(difference) = different_weights(builder, &other, 0) {
        return Err(difference.error(&topology.lengths, &others));
    }
    topology.compare_axes(&longer);
    Ok(Some((other, longer)))
}

/// A layer whose weights are others in two networks of the same layers.
struct Difference {
    layer: String,
    weights: [String; 2],
}

impl Difference {
    fn error(&self, lengths: &[usize], others: &[usize]) -> Error {
        let [one, other] = &self.weights;
        let steps = |lengths: &[usize]| lengths.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Error::shape(
            &self.layer,
            "weights that do not depend on the number of steps, which may be any (None); take all steps together before it, as by \
             GlobalAveragePooling1D or a recurrent layer without return_sequences, or give the input a length",
            format!("{one} for {} steps, {other} for {}", steps(lengths), steps(others)),
        )
    }
}

/// The first difference from this layer on.
fn different_weights(one: &Builder, other: &Builder, from: usize) -> Option<Difference> {
    for (a, b) in one.layers.iter().zip(&other.layers).skip(from) {
        let (a_all, b_all) = (&a.parameters, &b.parameters);
        for at in 0..a_all.len().max(b_all.len()) {
            let shown = |parameter: Option<&crate::nn::Parameter>| match parameter {
                Some(parameter) => format!("{} {:?}", parameter.name, parameter.shape),
                None => "no further weights".to_owned(),
            };
            let (p, q) = (a_all.get(at), b_all.get(at));
            let same = matches!((p, q), (Some(p), Some(q))
                if p.name == q.name && p.shape == q.shape && p.range == q.range
                    && p.trainable == q.trainable && p.frozen == q.frozen);
            if !same {
                return Some(Difference { layer: a.name.clone(), weights: [shown(p), shown(q)] });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_small_ones_are_kept() {
        assert_eq!(kept(&[]), 0);
        assert_eq!(kept(&[10; 5]), 5);
        assert_eq!(kept(&[10; 9]), KEPT - 1);
        assert_eq!(kept(&[KEPT_ELEMENTS / 3; 5]), 3);
        // A large one is made again, and those before it go with it.
        assert_eq!(kept(&[10, usize::MAX]), 0);
        assert_eq!(kept(&[10, usize::MAX, 20]), 1);
    }
}
