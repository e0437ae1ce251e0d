//! What the driver says of the GPUs.

use std::ffi::c_int;
use std::fmt;

use cudarc::driver::sys;

use super::super::Properties;
use super::library::{call, library, no_gpu};
use crate::error::{Error, Result};

/// Oldest compute capability that the kernels' PTX runs on.
pub(super) const OLDEST_COMPUTE: (u32, u32) = (7, 5);

/// Number of GPUs that this process may see.
pub(super) fn count() -> Result<usize> {
    library()?;
    let mut count: c_int = 0;
    // SAFETY: the driver is initialised; the pointer is valid for the call.
    unsafe { call!(cuDeviceGetCount(&mut count)) }?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The driver and all its GPUs.
pub(super) fn describe() -> Result<Description> {
    let version = library()?.version;
    let gpus = (0..count()?).map(|ordinal| properties(device(ordinal)?)).collect::<Result<_>>()?;
    Ok(Description { cuda_version: (version as u32 / 1000, version as u32 % 1000 / 10), gpus })
}

/// What [`Driver::describe`](super::Driver::describe) found. Its `Display` is a line for the driver and one for every GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Newest CUDA version that the driver can run: `(12, 8)`.
    pub cuda_version: (u32, u32),
    /// All GPUs, by number.
    pub gpus: Vec<Properties>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver for CUDA {}.{}", self.cuda_version.0, self.cuda_version.1)?;
        if self.gpus.is_empty() {
            write!(f, "; {}", no_gpu())?;
        }
        for (ordinal, gpu) in self.gpus.iter().enumerate() {
            let (major, minor) = gpu.compute_capability;
            write!(
                f,
                "\nGPU {ordinal}: {}, compute capability {major}.{minor}, {} SMs at {:.2} GHz, {:.0} GiB, {} KiB shared memory a \
                 block, clusters of up to {}{}",
                gpu.name,
                gpu.multiprocessors,
                f64::from(gpu.clock_khz) * 1e-6,
                gpu.memory_bytes as f64 / f64::from(1 << 30),
                gpu.shared_bytes_per_block / 1024,
                gpu.max_cluster,
                if gpu.compute_capability < OLDEST_COMPUTE { "; too old for the kernels" } else { "" },
            )?;
        }
        Ok(())
    }
}

/// Whether this machine has what [`Driver::open`](super::Driver::open) needs, and if not, why and the way out.
pub fn status() -> String {
    match describe() {
        Ok(description) => description.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Handle of GPU number `ordinal`.
pub(super) fn device(ordinal: usize) -> Result<sys::CUdevice> {
    let count = count()?;
    if count == 0 {
        return Err(Error::unsupported("the CUDA backend", no_gpu()));
    }
    let number = c_int::try_from(ordinal).ok().filter(|_| ordinal < count).ok_or_else(|| {
        let expected = if count == 1 { "0, the only GPU here".to_owned() } else { format!("0..={}", count - 1) };
        Error::option("device", expected, ordinal)
    })?;
    let mut device = 0;
    // SAFETY: the driver is initialised; the pointer is valid for the call.
    unsafe { call!(cuDeviceGet(&mut device, number)) }?;
    Ok(device)
}

/// What the driver says of a GPU. Needs no context.
pub(super) fn properties(device: sys::CUdevice) -> Result<Properties> {
    use sys::CUdevice_attribute as Attribute;
    let attribute = |attribute: Attribute| -> Result<u32> {
        let mut value: c_int = 0;
        // SAFETY: the device exists; the pointer is valid for the call.
        unsafe { call!(cuDeviceGetAttribute(&mut value, attribute, device)) }?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let mut name = [0; 256];
    // SAFETY: the buffer is as long as said.
    unsafe { call!(cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device)) }?;
    let name = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect::<Vec<_>>();
    let mut memory = 0;
    // SAFETY: the device exists; the pointer is valid for the call.
    unsafe { call!(cuDeviceTotalMem_v2(&mut memory, device)) }?;
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    // Eight blocks are portable; 9.0 and 10.x take at most sixteen where the kernel allows it. How many a given kernel may have on this
    // very GPU, which may be a part of one, is for `largest_cluster` to ask.
    let max_cluster = match attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH)? {
        0 => 1,
        _ if matches!(capability.0, 9 | 10) => 16,
        _ => 8,
    };
    Ok(Properties {
        name: String::from_utf8_lossy(&name).into_owned(),
        compute_capability: capability,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        max_cluster,
        cooperative: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
        clock_khz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
        memory_bytes: memory as u64,
    })
}
