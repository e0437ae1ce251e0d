//! Times on a GPU, taken by the GPU.

use std::sync::Arc;

use fused_rnn::backend::ForwardMode;
use fused_rnn::backend::cuda::driver::{Driver, DriverStream, Graph, Timer};
use fused_rnn::backend::cuda::{Compute, CudaBackend, CudaOptions};
use fused_rnn::rnn::{RnnDescriptor, RnnShape};
use fused_rnn::{Device, Error, Result};

use super::point::Point;
use super::subject::Subject;

/// Short calls are timed together: as many as take about this long.
const SAMPLE_US: f64 = 1000.0;
/// But not more than this, since streams take only so many launches before they make the caller wait.
const MOST_CALLS: f64 = 64.0;

/// The GPU of the last point, with its loaded kernels.
#[derive(Default)]
pub struct Gpu(Option<Arc<Driver>>);

/// A device on a stream of its own, and its clock.
pub struct Opened {
    pub device: Device,
    driver: Arc<Driver>,
    stream: DriverStream,
    timer: Timer,
}

impl Gpu {
    pub fn open(&mut self, point: &Point, matmul: &str) -> Result<Opened> {
        let driver = match &self.0 {
            Some(driver) if driver.ordinal() == point.device => Arc::clone(driver),
            _ => Arc::clone(self.0.insert(Driver::open(point.device)?)),
        };
        let (stream, timer) = (DriverStream::new(&driver)?, Timer::new(&driver)?);
        let compute = if point.number.tf32 { Compute::Tf32 } else { Compute::Exact };
        let options = CudaOptions { compute, matmul: matmul.parse()?, ..CudaOptions::default() };
        let backend = CudaBackend::<f32, _>::with_options(Arc::clone(&driver), stream.clone(), options);
        Ok(Opened { device: Device::from(backend).with_dtype(point.number.dtype)?, driver, stream, timer })
    }
}

/// Which kernels, and why these.
pub fn plan(
    device: &Device,
    shape: RnnShape,
    descriptor: &RnnDescriptor,
    mode: ForwardMode,
) -> Result<(String, String)> {
    let plan = device.plan(descriptor, shape, mode)?;
    let first = plan.time_loops().into_iter().next();
    Ok(first.map_or_else(Default::default, |forward| (format!("{} kernels", forward.family), forward.why)))
}

/// Calls of a subject on a GPU.
pub struct Calls<'a> {
    opened: &'a Opened,
    subject: Subject,
    graph: Option<Graph>,
    /// Calls of a sample; none before the first was taken.
    together: Option<usize>,
}

impl<'a> Calls<'a> {
    pub fn new(opened: &'a Opened, mut subject: Subject, point: &Point, as_graph: bool) -> Result<Self> {
        if as_graph && point.pass.is_train_step() {
            return Err(Error::Unsupported {
                what: format!("pass {} as a CUDA graph", point.pass_name()),
                why: "the loss is read after every step; leave --graph out".to_owned(),
            });
        }
        let graph = match as_graph {
            true => Some(Graph::capture(&opened.driver, &opened.stream, || subject.call())?),
            false => None,
        };
        Ok(Calls { opened, subject, graph, together: None })
    }

    /// Microseconds a call, of some calls one after the other.
    fn timed(&mut self, calls: usize) -> Result<f64> {
        let Opened { stream, timer, .. } = self.opened;
        timer.start(stream)?;
        for _ in 0..calls {
            match &self.graph {
                // SAFETY: the subject, which owns all memory of the graph, is alive until the stream is done below.
                #[allow(unsafe_code)]
                Some(graph) => unsafe { graph.launch(stream) }?,
                None => self.subject.call()?,
            }
        }
        timer.stop(stream)?;
        Ok(timer.microseconds()? / calls as f64)
    }

    /// A sample, after warming up where it is the first.
    pub fn sample(&mut self) -> Result<f64> {
        let together = match self.together {
            Some(together) => together,
            None => {
                self.timed(1)?;
                let calls = (SAMPLE_US / self.timed(1)?.max(1.0)).clamp(1.0, MOST_CALLS).round() as usize;
                *self.together.insert(calls)
            }
        };
        self.timed(together)
    }
}
