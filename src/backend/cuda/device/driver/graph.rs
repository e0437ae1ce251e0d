//! Recorded work ([`Graph`]) and time on the device ([`Timer`]).

use std::sync::Arc;

use cudarc::driver::sys;

use super::context::{Context, Handle};
use super::gpu::Driver;
use super::library::{call, failure, library};
use super::stream::DriverStream;
use crate::error::Result;

/// Work of a stream, recorded once and replayed as a whole: a CUDA graph.
///
/// A replay costs one call for all launches in it. Whatever the launches were given (addresses, sizes, seeds) is recorded
/// too: a replay reads and writes the same memory.
pub struct Graph {
    executable: Handle<sys::CUgraphExec>,
    context: Arc<Context>,
}

impl Graph {
    /// Records what `work` gives to `stream`. Nothing of it runs.
    ///
    /// # Errors
    ///
    /// What `work` returns; [`Error::Driver`](crate::Error::Driver) where the driver refuses a call, as it does where `work` did something
    /// that cannot be recorded (a copy, an allocation, waiting).
    pub fn capture(driver: &Driver, stream: &DriverStream, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let context = Arc::clone(&driver.context);
        let _current = context.enter()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive, and its context current.
        unsafe { call!(cuStreamBeginCapture_v2(stream.raw(), mode)) }?;
        let worked = work();
        let mut graph: sys::CUgraph = std::ptr::null_mut();
        // SAFETY: the capture was begun above; the pointer is valid for the call. It must end whatever `work` returned.
        let ended = unsafe { call!(cuStreamEndCapture(stream.raw(), &mut graph)) };
        let mut executable: sys::CUgraphExec = std::ptr::null_mut();
        let made = worked.and(ended).and_then(|()| {
            // SAFETY: `graph` was just recorded; the pointer is valid for the call.
            unsafe { call!(cuGraphInstantiateWithFlags(&mut executable, graph, 0)) }
        });
        if !graph.is_null() {
            // SAFETY: the executable graph does not refer to it. An error here could only be one of earlier work.
            let _ = unsafe { call!(cuGraphDestroy(graph)) };
        }
        made?;
        Ok(Graph { executable: Handle(executable), context })
    }

    /// Replays the work on `stream`, after everything given to it before.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`](crate::Error::Driver) where the driver refuses the call; a fault inside a kernel shows at a later one.
    ///
    /// # Safety
    ///
    /// All memory that the recorded work reads and writes must still be valid, and nothing else may write there meanwhile.
    pub unsafe fn launch(&self, stream: &DriverStream) -> Result<()> {
        let _current = self.context.enter()?;
        // SAFETY: the graph and the stream are alive; the memory is the caller's promise.
        unsafe { call!(cuGraphLaunch(self.executable.0, stream.raw())) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.enter() {
            // SAFETY: made by `capture`, destroyed once. The driver waits for replays under way.
            let _ = unsafe { call!(cuGraphExecDestroy(self.executable.0)) };
        }
    }
}

/// Time between two points of a stream, taken by the device.
pub struct Timer {
    start: Handle<sys::CUevent>,
    stop: Handle<sys::CUevent>,
    context: Arc<Context>,
}

impl Timer {
    /// A timer for streams of `driver`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`](crate::Error::Driver) where the driver refuses the call.
    pub fn new(driver: &Driver) -> Result<Self> {
        let context = Arc::clone(&driver.context);
        let _current = context.enter()?;
        let mut timer = Timer { start: Handle(std::ptr::null_mut()), stop: Handle(std::ptr::null_mut()), context };
        for event in [&mut timer.start, &mut timer.stop] {
            // SAFETY: the context is current; the pointer is valid for the call. Flags 0: with time.
            unsafe { call!(cuEventCreate(&mut event.0, 0)) }?;
        }
        Ok(timer)
    }

    /// Marks the beginning, after everything given to `stream` so far.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`](crate::Error::Driver) where the driver refuses the call.
    pub fn start(&self, stream: &DriverStream) -> Result<()> {
        let _current = self.context.enter()?;
        // SAFETY: the event and the stream are alive.
        unsafe { call!(cuEventRecord(self.start.0, stream.raw())) }
    }

    /// Marks the end, after everything given to `stream` so far.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`](crate::Error::Driver) where the driver refuses the call.
    pub fn stop(&self, stream: &DriverStream) -> Result<()> {
        let _current = self.context.enter()?;
        // SAFETY: the event and the stream are alive.
        unsafe { call!(cuEventRecord(self.stop.0, stream.raw())) }
    }

    /// Waits for the end, and gives the microseconds from the beginning to it. The driver's clock ticks about twice a
    /// microsecond, so time many calls together.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`](crate::Error::Driver) where the driver refuses the call, as it does where the two were not marked, or reports a
    /// fault of earlier work.
    pub fn microseconds(&self) -> Result<f64> {
        let _current = self.context.enter()?;
        // SAFETY: the events are alive.
        unsafe { call!(cuEventSynchronize(self.stop.0)) }?;
        let mut milliseconds = 0.0f32;
        // SAFETY: the events are alive; the pointer is valid for the call.
        match unsafe { (library()?.elapsed_time)(&mut milliseconds, self.start.0, self.stop.0) } {
            0 => Ok(f64::from(milliseconds) * 1e3),
            code => Err(failure("cuEventElapsedTime", code as u32)),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.enter() {
            for event in [self.start.0, self.stop.0] {
                if !event.is_null() {
                    // SAFETY: made by `new`, destroyed once.
                    let _ = unsafe { call!(cuEventDestroy_v2(event)) };
                }
            }
        }
    }
}
