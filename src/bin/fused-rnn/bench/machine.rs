//! The machine that measures: its processor, its memory, and the devices of a sweep, each opened once.

use std::collections::HashMap;

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::{ForwardMode, RecurrentBackend};
use fused_rnn::rnn::{RnnDescriptor, RnnShape};
use fused_rnn::{DType, Device, Error, Result};

use super::point::{Backend, Point};

/// The processor's name, as the system gives it.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// What a run was made on and by, in a sentence.
pub fn description() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (isa, version, system) =
        (CpuBackend::<f32>::new().instruction_set(), env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    format!("{}, {cores} cores, {isa}, {system}; fused-rnn {version}", processor())
}

/// A value in kB of a line of a file of Linux's /proc, in bytes.
fn proc_bytes(file: &str, name: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(1024)
}

/// Memory that programs can still have, where the system says it.
pub fn available_memory() -> Option<usize> {
    proc_bytes("/proc/meminfo", "MemAvailable:")
}

/// Forgets the most memory that this program had so far, where the system can.
pub fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that this program has had since.
pub fn resident_peak() -> Option<usize> {
    proc_bytes("/proc/self/status", "VmHWM:")
}

/// Host devices, each made once, so that threads start once.
#[derive(Default)]
pub struct HostDevices(HashMap<(bool, usize, bool), Device>);

impl HostDevices {
    /// # Errors
    ///
    /// [`Error::Unsupported`] for an element type that the host does not compute in.
    pub fn open(&mut self, point: &Point) -> Result<Device> {
        let wide = match (point.number.dtype, point.number.tf32) {
            (DType::F32, false) => false,
            (DType::F64, _) => true,
            _ => {
                return Err(Error::Unsupported {
                    what: format!("dtype {} on the {} backend", point.number_name(), point.backend_name()),
                    why: "the host computes in f32 and f64; choose --backend cuda, or one of these".to_owned(),
                });
            }
        };
        let (is_cpu, threads) = (point.backend == Backend::Cpu, point.threads);
        let key = (is_cpu, if is_cpu { threads } else { 1 }, wide);
        if let Some(device) = self.0.get(&key) {
            return Ok(device.clone());
        }
        let device = if is_cpu { Device::from(CpuBackend::<f32>::with_threads(threads)?) } else { Device::reference() };
        let device = if wide { device.with_dtype(DType::F64)? } else { device };
        self.0.insert(key, device.clone());
        Ok(device)
    }
}

/// How a host backend runs an operator.
pub fn host_plan(point: &Point, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<String> {
    fn of<E: fused_rnn::backend::cpu::CpuElement>(
        threads: usize,
        (descriptor, shape): (&RnnDescriptor, RnnShape),
        mode: ForwardMode,
    ) -> Result<String> {
        let backend = CpuBackend::<E>::with_threads(threads)?;
        Ok(backend.describe(&backend.plan(descriptor, shape, mode)?))
    }
    match (point.backend, point.number.dtype) {
        (Backend::Cpu, DType::F64) => of::<f64>(point.threads, (descriptor, shape), mode),
        (Backend::Cpu, _) => of::<f32>(point.threads, (descriptor, shape), mode),
        _ => Ok("plain loops on 1 thread: the oracle of the tests".to_owned()),
    }
}
