//! Passes of a model: predictions, losses and gradients of data that fit it.

use ndarray::{ArrayD, IxDyn};

use crate::backend::ops::{LossEntry, Workspace};
use crate::backend::{Tensor, TensorMut, WeightGrad};
use crate::dtype::{DType, Element, Scalar};
use crate::error::{Error, Result};
use crate::loss::{Loss, LossFunction};
use crate::memory;
use crate::model::Model;
use crate::model::arrays::{AnyArray, Arrays, Data, Part, any, check_arrays, download, read_as};
use crate::model::host_loss::{self, HostLoss};
use crate::model::output::Output;
use crate::rnn::dropout::philox4x32;

impl Model {
    /// The output for each sample of `x` `[samples, input shape…]`: `[samples, output shape…]`, in the type of `x`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for a number
    /// beyond the range of the type it is converted to; [`Error::Unsupported`] for a model with several outputs, or where the device cannot
    /// do it or memory is short, [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn predict<'a, A: Arrays<'a>>(&mut self, x: A) -> Result<ArrayD<A::Elem>> {
        let mut outputs = self.predict_all(x)?;
        match outputs.len() {
            1 => Ok(outputs.remove(0)),
            n => Err(Error::unsupported(format!("one array for {n} outputs"), "call predict_all")),
        }
    }

    /// All outputs for each sample.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for a number
    /// beyond the range of the type it is converted to; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn predict_all<'a, A: Arrays<'a>>(&mut self, x: A) -> Result<Vec<ArrayD<A::Elem>>> {
        let data = self.check_data("", any(x), None)?;
        let mut outputs = Vec::new();
        for output in &self.outputs {
            outputs.push(memory::filled::<A::Elem>(
                "output",
                data.samples * output.value.size(),
                num_traits::Zero::zero(),
            )?);
        }
        self.predict_to(&data, outputs.iter_mut().map(|values| TensorMut::of(values)).collect())?;
        let array = |(output, values): (&Output, Vec<A::Elem>)| {
            let shape = with_samples(data.samples, output.value.shape());
            ArrayD::from_shape_vec(IxDyn(&shape), values)
                .map_err(|e| Error::shape("output", format!("{shape:?}"), e.to_string()))
        };
        self.outputs.iter().zip(outputs).map(array).collect()
    }

    fn predict_to(&mut self, data: &Data<'_>, mut to: Vec<TensorMut<'_>>) -> Result<()> {
        let most = self.prediction_batch(data.samples)?;
        self.allocate(most, false)?;
        let Model { device, topology, network, outputs, .. } = self;
        for first in (0..data.samples).step_by(most) {
            let batch = most.min(data.samples - first);
            let samples = first..first + batch;
            for (input, x) in topology.inputs.iter().zip(data.part(samples)?.x) {
                device.upload_tensor(x, network.value_mut(&input.value, batch)?)?;
            }
            network.forward(device, batch, false, 0)?;
            for (output, to) in outputs.iter().zip(&mut to) {
                let size = output.value.size();
                let to = to.reborrow().part(first * size..(first + batch) * size)?;
                let shape = with_samples(batch, output.value.shape());
                download(device, "output", &shape, network.value(&output.value, batch)?, to)?;
            }
        }
        network.check(device)
    }

    /// The loss of a batch and its gradient by all weights, laid out as [`flat_weights`](Self::flat_weights), in the type of `x`; weights
    /// stay.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for a number
    /// beyond the range of the type it is converted to; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn loss_gradient<'a, A: Arrays<'a>>(&mut self, x: A, y: impl Arrays<'a>) -> Result<(f64, Vec<A::Elem>)> {
        let loss = self.differentiate(any(x), any(y), false)?;
        let gradients = self.network.gradients.get();
        Ok((loss, read_as(&self.device, "gradient", &[gradients.len()], gradients)?))
    }

    /// The loss of a batch and its gradient by each input, in the type of `x`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for a number
    /// beyond the range of the type it is converted to; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn input_gradients<'a, A: Arrays<'a>>(
        &mut self,
        x: A,
        y: impl Arrays<'a>,
    ) -> Result<(f64, Vec<ArrayD<A::Elem>>)> {
        let x = any(x);
        let shapes: Vec<Vec<usize>> = x.iter().map(|x| x.shape().to_vec()).collect();
        let loss = self.differentiate(x, any(y), true)?;
        let factor = A::Elem::of(1.0 / self.scale());
        let mut gradients = Vec::new();
        for (shape, input) in shapes.iter().zip(&self.topology.inputs) {
            let gradient = self.network.gradient(&input.value, shape.first().copied().unwrap_or(0))?;
            let mut gradient: Vec<A::Elem> = read_as(&self.device, "gradient", shape, gradient)?;
            gradient.iter_mut().for_each(|g| *g *= factor);
            gradients.push(
                ArrayD::from_shape_vec(IxDyn(shape), gradient)
                    .map_err(|e| Error::shape("gradient", format!("{shape:?}"), e.to_string()))?,
            );
        }
        Ok((loss, gradients))
    }

    fn differentiate(&mut self, x: Vec<AnyArray<'_>>, y: Vec<AnyArray<'_>>, of_inputs: bool) -> Result<f64> {
        let data = self.check_data("", x, Some(y))?;
        self.allocate(data.samples, true)?;
        self.place_part(&data.part(0..data.samples)?)?;
        self.status.clear(&self.device)?;
        let seed = self.step_seed();
        self.run_training(data.samples, LossEntry { weight: 1.0, code: 1 }, false, seed, of_inputs)?;
        self.network.check(&self.device)?;
        Ok(self.status.read(&self.device)?.total)
    }

    /// Puts samples where the passes read them; there must be room. Says whether they have weights.
    pub(super) fn place_part(&mut self, part: &Part<'_>) -> Result<bool> {
        let Model { device, topology, network, outputs, .. } = self;
        for (input, x) in topology.inputs.iter().zip(&part.x) {
            device.upload_tensor(*x, network.value_mut(&input.value, part.samples)?)?;
        }
        for (output, y) in outputs.iter_mut().zip(&part.y) {
            device.upload_tensor(*y, output.targets.get_mut(y.len())?)?;
        }
        for (output, weights) in outputs.iter_mut().zip(&part.weights) {
            output.sample_weights.grow(device, "weights of rows", weights.len())?;
            device.upload_tensor(*weights, output.sample_weights.get_mut(weights.len())?)?;
        }
        Ok(!part.weights.is_empty())
    }

    /// Checks arrays against the model, and converts them to its device's type; inputs of any length are as long as these arrays from here
    /// on. `prefix` names them in errors: `"validation "`, or nothing.
    pub(super) fn check_data<'a>(
        &mut self,
        prefix: &str,
        x: Vec<AnyArray<'a>>,
        y: Option<Vec<AnyArray<'a>>>,
    ) -> Result<Data<'a>> {
        if self.topology.layers.is_empty() || self.outputs.is_empty() {
            return Err(Error::Presence {
                tensor: "layers".to_owned(),
                problem: "the model has none; add one first".to_owned(),
            });
        }
        let lengths = self.lengths_of(prefix, &x)?;
        self.take_lengths(&lengths)?;
        let inputs = self.topology.inputs.iter().map(|input| (input.name.as_str(), input.value.shape()));
        let inputs: Vec<_> = inputs.collect();
        let (samples, x) = check_arrays(&format!("{prefix}x"), "the model's input shape", x, &inputs, self.dtype())?;
        let y = match y {
            None => Vec::new(),
            Some(y) => {
                let name = |output: &Output| self.topology.name_of(output.source);
                self.outputs.iter().try_for_each(|output| output.check_mask(name(output)))?;
                let shapes = self.outputs.iter().map(|o| Ok((name(o), o.target_shape()?)));
                let shapes: Vec<_> = shapes.collect::<Result<_>>()?;
                // Who has never compiled the model does not know of its loss.
                let is_default =
                    |output: &Output| matches!(output.loss, LossFunction::BuiltIn(loss) if loss == Loss::default());
                let what = match self.outputs.iter().all(is_default) {
                    true => {
                        "the shape of the model's targets by its loss, the mean squared error unless `compile` gives another"
                    }
                    false => "the shape of the model's targets",
                };
                let tensor = format!("{prefix}y");
                let (targets, y) = check_arrays(&tensor, what, y, &shapes, self.dtype())?;
                if samples != targets {
                    return Err(Error::shape(
                        tensor,
                        format!("{samples} samples, as {prefix}x has"),
                        format!("{targets} samples"),
                    ));
                }
                for (output, y) in self.outputs.iter().zip(&y) {
                    check_targets(&tensor, output, y)?;
                }
                y
            }
        };
        Ok(Data { samples, lengths, x, y, weights: Vec::new() })
    }

    /// Makes the buffers large enough for `batch` samples.
    pub(super) fn allocate(&mut self, batch: usize, training: bool) -> Result<()> {
        self.allocate_penalties(batch, training)?;
        let device = &self.device;
        self.network.allocate(device, batch, training)?;
        let scratch = [Workspace::Loss, Workspace::SumOfSquares].map(|call| device.workspace(call));
        self.workspace.grow(device, "workspace", scratch[0].max(scratch[1]))?;
        for output in &mut self.outputs {
            output.targets.grow(device, "targets", batch * output.target_size()?)?;
            if output.mask().is_some() {
                output.mask_weights.grow(device, "weights of rows", batch * output.rows())?;
                output.row_weights.grow(device, "weights of rows", batch * output.rows())?;
                output.valid.grow(device, "mean of a mask", 1)?;
            }
        }
        if training {
            for index in self.states.len()..self.optimizer.states() {
                self.states.push(self.initial_state(index)?);
            }
        }
        Ok(())
    }

    /// A tensor of the optimizer's memory before the first step.
    pub(super) fn initial_state(&self, index: usize) -> Result<Tensor> {
        let mut state = self.device.allocate("optimizer's memory", self.network.builder.parameters)?;
        let initial = self.optimizer.initial(index);
        if initial != 0.0 {
            self.device.fill(state.view_mut(), initial)?;
        }
        Ok(state)
    }

    /// What the random numbers of the next step come from.
    pub(super) fn step_seed(&self) -> u64 {
        let step = self.batches_trained;
        // The third word keeps clear of the streams of weights and of orders of samples, the last of dropout's layers.
        let bits = philox4x32([step as u32, (step >> 32) as u32, u32::MAX, u32::MAX], self.seed);
        u64::from(bits[0]) | u64::from(bits[1]) << 32
    }

    /// What a loss is multiplied with before it is differentiated.
    pub(super) fn scale(&self) -> f64 {
        self.loss_scale.map_or(1.0, |scale| scale.scale())
    }

    /// The losses of a batch whose outputs and targets are there, into the status; with `gradients` their gradients too, times the scale.
    pub(super) fn run_losses(&mut self, batch: usize, entry: LossEntry, weighted: bool, gradients: bool) -> Result<()> {
        let scale = self.scale();
        let Model { device, network, outputs, status, workspace, .. } = self;
        let device = &*device;
        for output in outputs {
            let (columns, rows, loss, factor) =
                (output.columns(), output.rows(), output.built_in(), output.loss_weight);
            let len = batch * rows;
            if let Some(mask) = output.value.mask().filter(|mask| mask.size() == rows && !output.is_by_sample()) {
                // As Keras has it: a mean over the valid rows.
                let mask = network.value(mask, batch)?;
                let sizes = [1, len, 1];
                workspace.grow(device, "workspace", device.workspace(Workspace::SumAxis(sizes)))?;
                let valid = output.valid.get_mut(1)?;
                device.sum_axis(sizes, 1.0 / len as f64, mask, valid, WeightGrad::Set, workspace.all()?)?;
                device.scale_rows(output.valid.get(1)?, true, mask, output.mask_weights.get_mut(len)?)?;
                if weighted {
                    let (of_mask, given) = (output.mask_weights.get(len)?, output.sample_weights.get(len)?);
                    device.multiply(of_mask, given, output.row_weights.get_mut(len)?)?;
                }
            }
            let weights = output.weights(batch, weighted)?;
            let targets = output.targets.get(batch * output.target_size()?)?;
            let entry = LossEntry { weight: entry.weight * factor, ..entry };
            if let Some(loss) = output.loss_is_on_host(device) {
                let mask = output.value.mask().filter(|mask| mask.size() == rows && output.is_by_sample());
                let mask = mask.map(|mask| network.value(mask, batch)).transpose()?;
                let mask = mask.map(|mask| host_loss::read(device, mask)).transpose()?;
                let of = HostLoss { loss, samples: batch, rows, columns, targets, weights, mask, entry };
                let status = status.get_mut();
                if gradients {
                    network.give_gradient(device, &output.value, batch, |y, mut dy| {
                        of.run(device, y, Some(dy.reborrow()), status)?;
                        let factor = factor * scale;
                        if factor == 1.0 { Ok(()) } else { device.scale(factor, dy) }
                    })?;
                } else {
                    of.run(device, network.value(&output.value, batch)?, None, status)?;
                }
                continue;
            }
            let (workspace, status) = (workspace.all()?, status.get_mut());
            if gradients {
                network.give_gradient(device, &output.value, batch, |y, mut dy| {
                    let gradient = Some(dy.reborrow());
                    device.loss(loss, columns, targets, y, weights, gradient, entry, status, workspace)?;
                    let factor = factor * scale;
                    if factor == 1.0 { Ok(()) } else { device.scale(factor, dy) }
                })?;
            } else {
                let y = network.value(&output.value, batch)?;
                device.loss(loss, columns, targets, y, weights, None, entry, status, workspace)?;
            }
        }
        Ok(())
    }

    /// Loss and gradients of a batch whose inputs and targets are there; those of values between layers are still scaled. Where the loss
    /// is not finite and the host knows, the gradients are not computed; [`Status::read`] tells.
    pub(super) fn run_training(
        &mut self,
        batch: usize,
        entry: LossEntry,
        weighted: bool,
        seed: u64,
        of_inputs: bool,
    ) -> Result<()> {
        self.network.forward(&self.device, batch, true, seed)?;
        self.network.start_backward();
        self.run_losses(batch, entry, weighted, true)?;
        self.run_output_penalties(batch, entry, true)?;
        if self.status.is_on_host() && self.status.read(&self.device)?.bad_loss.is_some() {
            return Ok(());
        }
        self.network.backward(&self.device, batch, seed, of_inputs)?;
        match self.scale() {
            1.0 => {}
            scale => self.device.scale(1.0 / scale, self.network.gradients.get_mut())?,
        }
        self.run_weight_penalties(entry, true)
    }
}

/// Whether a loss takes such targets, where that is known without computing it: before training, which says which sample of all it is.
fn check_targets(tensor: &str, output: &Output, y: &AnyArray<'_>) -> Result<()> {
    fn first<E: Scalar>(loss: crate::loss::Loss, columns: usize, values: &[E]) -> Option<(usize, f64, String)> {
        let refused = |v: f64| loss.refuses(v).map(str::to_owned).or_else(|| loss.refuses_class(columns, v));
        values.iter().enumerate().find_map(|(i, v)| refused(v.wide()).map(|expected| (i, v.wide(), expected)))
    }
    fn own<E: Scalar>(loss: &LossFunction, shape: &[usize], in_sample: usize, values: &[E]) -> Result<()> {
        let mut sample = Vec::new();
        for (i, values) in values.chunks_exact(in_sample).enumerate() {
            sample.clear();
            sample.extend(values.iter().map(|v| v.wide()));
            loss.check_targets(&sample, shape).map_err(|error| error.of_option(&format!(" of sample {i}")))?;
        }
        Ok(())
    }
    let (loss, values) = (&output.loss, y.values());
    let in_sample = (values.len() / y.shape().first().copied().unwrap_or(1).max(1)).max(1);
    let Some(built_in) = loss.built_in() else {
        let shape = output.value.shape();
        let checked = match values.dtype() {
            DType::F64 => own::<f64>(loss, shape, in_sample, values.host()?),
            _ => own::<f32>(loss, shape, in_sample, values.host()?),
        };
        return checked.map_err(|error| error.of_option(&format!(" of {tensor} (targets of {})", loss.name())));
    };
    if !built_in.has_bounded_targets() {
        return Ok(());
    }
    let bad = match values.dtype() {
        DType::F64 => first::<f64>(built_in, output.columns(), values.host()?),
        _ => first::<f32>(built_in, output.columns(), values.host()?),
    };
    let Some((i, value, expected)) = bad else { return Ok(()) };
    Err(Error::option(format!("{tensor}, sample {} (targets of {})", i / in_sample, built_in.name()), expected, value))
}

/// A shape with the samples in front.
fn with_samples(samples: usize, shape: &[usize]) -> Vec<usize> {
    std::iter::once(samples).chain(shape.iter().copied()).collect()
}
