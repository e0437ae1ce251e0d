//! A launch in the driver's form.

use std::ffi::c_uint;

use cudarc::driver::sys;

use super::super::Launch;

/// The driver's form of a launch. The attributes must outlive the configuration, so they are made by the caller.
pub(super) fn configuration(
    launch: &Launch,
    stream: sys::CUstream,
    attributes: &mut [sys::CUlaunchAttribute; 2],
) -> sys::CUlaunchConfig {
    use sys::CUlaunchAttributeID as Id;
    let mut count = 0;
    if launch.cooperative {
        attributes[count].id = Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        attributes[count].value.cooperative = 1;
        count += 1;
    }
    if launch.cluster > 1 {
        attributes[count].id = Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attributes[count].value.clusterDim.x = launch.cluster;
        attributes[count].value.clusterDim.y = 1;
        attributes[count].value.clusterDim.z = 1;
        count += 1;
    }
    sys::CUlaunchConfig {
        gridDimX: launch.grid[0],
        gridDimY: launch.grid[1],
        gridDimZ: launch.grid[2],
        blockDimX: launch.block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.shared_bytes,
        hStream: stream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: count as c_uint,
    }
}

/// Attributes that say nothing, to be filled by [`configuration`].
pub(super) fn no_attributes() -> [sys::CUlaunchAttribute; 2] {
    let none = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_IGNORE,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { pad: [0; 64] },
    };
    [none; 2]
}

/// A launch in words, for errors.
pub(super) fn describe(name: &str, launch: &Launch) -> String {
    let [x, y, z] = launch.grid;
    format!(
        "{name}, grid {x}x{y}x{z}, {} threads, clusters of {}, {} bytes of shared memory{}",
        launch.block,
        launch.cluster,
        launch.shared_bytes,
        if launch.cooperative { ", cooperative" } else { "" }
    )
}
