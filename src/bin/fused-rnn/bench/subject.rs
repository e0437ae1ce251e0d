//! What is timed at a point, on any device: a pass of the operator, a streaming loop, or a training step of a model.

use fused_rnn::backend::device::{OnDevice, Plan};
use fused_rnn::backend::device_pass::{DeviceGradients, DeviceInputs, DevicePass};
use fused_rnn::backend::{ForwardArgs, ForwardMode, TempSpace, Tensor};
use fused_rnn::rnn::dropout::philox4x32;
use fused_rnn::rnn::{Direction, Layout, RnnDescriptor, RnnShape, WeightLayout};
use fused_rnn::{Device, Error, Result};

use super::machine::available_memory;
use super::point::{Backend, Pass, Point};
use super::train_step::TrainStep;

/// Values that come again after a prime number of them, since drawing many would take longer than what is timed.
pub struct Values {
    drawn: Vec<f64>,
    pub len: usize,
}

impl Values {
    /// Uniform in `-scale..scale`, the same every time; exact in f32.
    pub fn new(len: usize, scale: f64, stream: u64) -> Self {
        let draw = |i: u32| {
            f64::from(((f64::from(philox4x32([i, 0, 0, 0], stream)[0]) / 2_147_483_648.0 - 1.0) * scale) as f32)
        };
        Values { drawn: (0..65_521.min(len) as u32).map(draw).collect(), len }
    }

    pub fn iter(&self) -> impl Iterator<Item = f64> {
        self.drawn.iter().copied().cycle().take(self.len)
    }
}

/// What a point reads, the same for everyone.
pub struct Data {
    pub weights: Values,
    pub x: Values,
    /// Gradient of y, or the targets of a training step.
    pub dy: Values,
    pub lengths: Option<Vec<u32>>,
}

pub fn len(sizes: &[usize]) -> usize {
    sizes.iter().product()
}

impl Data {
    /// # Errors
    ///
    /// Those of the point's sizes and lengths.
    pub fn new(point: &Point, descriptor: &RnnDescriptor) -> Result<Self> {
        let tensors = point.shape.tensors(descriptor)?;
        let scale = 1.0 / (descriptor.hidden_size as f64).sqrt();
        let weights = WeightLayout::new(descriptor)?.len();
        Ok(Data {
            weights: Values::new(weights, scale, 1),
            x: Values::new(len(&tensors.x), 1.0, 3),
            dy: Values::new(len(&tensors.y), 1.0, 4),
            lengths: point.lengths()?,
        })
    }
}

/// Elements of everything that a point needs.
#[derive(Clone, Copy, Debug)]
pub struct Elements {
    /// Weights, x, y, states, in training their gradients, workspace and reserve.
    pub all: usize,
    /// What must be read or written whatever is computed, each once a call: weights, x, y, in training their gradients, and the reserve
    /// when it is written and when it is read; in streaming the weights at every step.
    pub moved: f64,
}

impl Elements {
    pub fn new(point: &Point, descriptor: &RnnDescriptor, space: TempSpace) -> Result<Self> {
        let tensors = point.shape.tensors(descriptor)?;
        let weights = WeightLayout::new(descriptor)?.len();
        let (x, y, states) = (len(&tensors.x), len(&tensors.y), len(&tensors.h).saturating_add(len(&tensors.c)));
        let values = [weights, x, y, states, states].into_iter().fold(0usize, usize::saturating_add);
        let gradients = if point.pass.has_backward() { values } else { 0 };
        let all = [values, gradients, space.workspace, space.reserve].into_iter().fold(0usize, usize::saturating_add);
        let once = weights as f64 + x as f64 + y as f64;
        let moved = match point.pass {
            Pass::Infer => once,
            Pass::Forward => once + space.reserve as f64,
            Pass::ForwardBackward | Pass::TrainStep | Pass::TrainStepAdam => 2.0 * (once + space.reserve as f64),
            Pass::Stream => once + weights as f64 * (point.shape.seq_len as f64 - 1.0),
        };
        Ok(Elements { all, moved })
    }

    /// Checks that all of it fits into the memory that the machine has left, before anything is allocated.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`].
    pub fn check(&self, element_bytes: usize) -> Result<()> {
        let needed = self.all.saturating_mul(element_bytes);
        match available_memory().unwrap_or(1 << 33) {
            available if needed > available => Err(Error::Unsupported {
                what: format!("a point that needs {:.1} GiB", needed as f64 / f64::from(1 << 30)),
                why: format!("{:.1} GiB of memory are left; use smaller sizes", available as f64 / f64::from(1 << 30)),
            }),
            _ => Ok(()),
        }
    }
}

/// Floating-point operations of the matrix products of a call, two a multiply-add: nothing else is counted.
pub fn operations(point: &Point, descriptor: &RnnDescriptor) -> Result<f64> {
    let d = descriptor;
    let has_input = d.input == fused_rnn::rnn::InputKind::Features;
    let layer = |layer: usize| {
        let input = if layer == 0 && !has_input { 0 } else { d.layer_input_size(layer) };
        let gates = (d.cell.gates() * d.hidden_size) as f64 * (input + d.head_size()) as f64;
        let projection = d.proj_size.map_or(0.0, |size| size as f64 * d.hidden_size as f64);
        2.0 * d.num_directions() as f64 * (gates + projection)
    };
    let forward = (0..d.num_layers).map(layer).sum::<f64>() * point.valid_steps()?;
    Ok(forward * if point.pass.has_backward() { 3.0 } else { 1.0 })
}

/// Something to call again and again.
pub enum Subject {
    Operator { pass: Box<DevicePass>, forward_only: bool },
    Stream(Box<Stream>),
    TrainStep(Box<TrainStep>),
}

pub fn mode(pass: Pass) -> ForwardMode {
    match pass {
        Pass::Infer | Pass::Stream => ForwardMode::Inference,
        Pass::Forward | Pass::ForwardBackward | Pass::TrainStep | Pass::TrainStepAdam => ForwardMode::Training,
    }
}

impl Subject {
    /// # Errors
    ///
    /// Whatever planning and allocating it say.
    pub fn new(device: &Device, point: &Point, descriptor: &RnnDescriptor, data: &Data) -> Result<Self> {
        match point.pass {
            Pass::TrainStep | Pass::TrainStepAdam => {
                Ok(Subject::TrainStep(Box::new(TrainStep::new(device, point, descriptor)?)))
            }
            Pass::Stream => Ok(Subject::Stream(Box::new(Stream::new(device, point, descriptor, data)?))),
            pass => {
                let tensors = point.shape.tensors(descriptor)?;
                let has_c = descriptor.cell.has_cell_state();
                let place = |what: &str, values: &Values| device.rounded(what, values.len, values.iter());
                let inputs = DeviceInputs {
                    weights: place("weights", &data.weights)?,
                    x: place("x", &data.x)?,
                    h0: Some(device.allocate("h0", len(&tensors.h))?),
                    c0: has_c.then(|| device.allocate("c0", len(&tensors.c))).transpose()?,
                    lengths: data.lengths.as_ref().map(|lengths| device.tensor("lengths", lengths)).transpose()?,
                    resets: None,
                    dropout_seed: 0,
                };
                let dy = (pass == Pass::ForwardBackward).then(|| place("dy", &data.dy)).transpose()?;
                let gradients = DeviceGradients { dy, ..DeviceGradients::default() };
                let made = DevicePass::new(device, descriptor, point.shape, mode(pass), inputs, gradients)?;
                Ok(Subject::Operator { pass: Box::new(made), forward_only: pass == Pass::Forward })
            }
        }
    }

    /// # Errors
    ///
    /// Those of the pass.
    pub fn call(&mut self) -> Result<()> {
        match self {
            Subject::Operator { pass, forward_only: true } => pass.run_forward(),
            Subject::Operator { pass, .. } => pass.run(),
            Subject::Stream(stream) => stream.run(),
            Subject::TrainStep(step) => step.run().map(drop),
        }
    }

    /// What is compared with peers, by name: of a new subject, which it changes.
    ///
    /// # Errors
    ///
    /// Those of the pass.
    pub fn results(&mut self) -> Result<Vec<(&'static str, Vec<f64>)>> {
        match self {
            Subject::Operator { pass, forward_only } => {
                if *forward_only { pass.run_forward() } else { pass.run() }?;
                pass.check()?;
                let outputs = pass.outputs()?;
                let mut found = vec![("y", outputs.y), ("hn", outputs.hn)];
                found.extend(outputs.cn.map(|cn| ("cn", cn)));
                if let Some(gradients) = pass.input_gradients()?.filter(|_| !*forward_only) {
                    found.extend([("dx", gradients.dx), ("dh0", gradients.dh0), ("dweights", gradients.dweights)]);
                    found.extend(gradients.dc0.map(|dc0| ("dc0", dc0)));
                }
                Ok(found)
            }
            Subject::Stream(stream) => {
                stream.run()?;
                Ok(vec![("y", stream.device.read_wide(stream.y.view())?)])
            }
            Subject::TrainStep(step) => Ok(vec![("losses", step.losses()?)]),
        }
    }
}

/// Inference of a sequence step by step. Every call takes the states of the one before; the first begins with zeros.
pub struct Stream {
    device: Device,
    plan: Plan,
    steps: usize,
    weights: Tensor,
    x: Tensor,
    y: Tensor,
    /// States before and after a step, by turns.
    h: [Tensor; 2],
    c: Option<[Tensor; 2]>,
    workspace: Tensor,
}

impl Stream {
    fn new(device: &Device, point: &Point, descriptor: &RnnDescriptor, data: &Data) -> Result<Self> {
        if descriptor.direction != Direction::Forward
            || data.lengths.is_some()
            || descriptor.layout == Layout::BatchMajor
        {
            return Err(Error::Unsupported {
                what: "pass stream backwards, with lengths, or batch-major".to_owned(),
                why: "steps come one after the other; choose direction forward and lengths full, and leave --batch-major out"
                    .to_owned(),
            });
        }
        let shape = RnnShape { seq_len: 1, ..point.shape };
        let plan = device.plan(descriptor, shape, ForwardMode::Inference)?;
        let mut weights = device.rounded("weights", data.weights.len, data.weights.iter())?;
        let plan = match point.backend {
            // Packed once, as whoever streams does.
            Backend::Cpu => {
                let plan = device.with_weights(&plan, weights.view())?;
                weights = device.allocate("weights", 0)?;
                plan
            }
            _ => plan,
        };
        let (tensors, steps) = (shape.tensors(descriptor)?, point.shape.seq_len);
        let state =
            |sizes: &[usize]| Ok::<_, Error>([device.allocate("h", len(sizes))?, device.allocate("h", len(sizes))?]);
        Ok(Stream {
            weights,
            x: device.rounded("x", data.x.len, data.x.iter())?,
            y: device.allocate("y", data.dy.len)?,
            h: state(&tensors.h)?,
            c: descriptor.cell.has_cell_state().then(|| state(&tensors.c)).transpose()?,
            workspace: device.allocate("workspace", plan.temp_space().workspace)?,
            device: device.clone(),
            plan,
            steps,
        })
    }

    fn run(&mut self) -> Result<()> {
        let (inputs, outputs) = (self.x.len() / self.steps, self.y.len() / self.steps);
        self.device.fill(self.h[0].view_mut(), 0.0)?;
        if let Some([c, _]) = &mut self.c {
            self.device.fill(c.view_mut(), 0.0)?;
        }
        for step in 0..self.steps {
            let [h0, hn] = &mut self.h;
            let (h0, hn) = if step % 2 == 0 { (h0, hn) } else { (hn, h0) };
            let states = self.c.as_mut().map(|[c0, cn]| if step % 2 == 0 { (c0, cn) } else { (cn, c0) });
            let (c0, cn) = states.map_or((None, None), |(c0, cn)| (Some(c0.view()), Some(cn.view_mut())));
            let args = ForwardArgs::<OnDevice>::new(
                self.weights.view(),
                self.x.view().part(step * inputs..(step + 1) * inputs)?,
                self.y.view_mut().part(step * outputs..(step + 1) * outputs)?,
                self.workspace.view_mut(),
            )
            .h0(h0.view())
            .c0(c0)
            .hn(hn.view_mut())
            .cn(cn);
            self.device.forward(&self.plan, args)?;
        }
        Ok(())
    }
}
