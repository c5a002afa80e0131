//! Metal's objects by short names, and which of them may change threads.

use candlewick_core::{Error, Result};
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSError, NSOperatingSystemVersion, NSProcessInfo};
use objc2_metal::{
    MTLBuffer, MTLCommandBuffer, MTLCommandQueue, MTLComputeCommandEncoder, MTLComputePipelineState, MTLDevice,
    MTLEvent, MTLFence, MTLResidencySet, MTLSharedEvent,
};

pub(crate) type MetalDevice = ProtocolObject<dyn MTLDevice>;
pub(crate) type MetalBuffer = ProtocolObject<dyn MTLBuffer>;
pub(crate) type Queue = ProtocolObject<dyn MTLCommandQueue>;
pub(crate) type CommandBuffer = ProtocolObject<dyn MTLCommandBuffer>;
pub(crate) type ComputeEncoder = ProtocolObject<dyn MTLComputeCommandEncoder>;
pub(crate) type Pipeline = ProtocolObject<dyn MTLComputePipelineState>;
pub(crate) type Event = ProtocolObject<dyn MTLEvent>;
pub(crate) type SharedEvent = ProtocolObject<dyn MTLSharedEvent>;
pub(crate) type Fence = ProtocolObject<dyn MTLFence>;
pub(crate) type ResidencySet = ProtocolObject<dyn MTLResidencySet>;

/// The device's name in errors.
pub(crate) const DEVICE: &str = "metal";

/// An object that may change threads, as the one who wraps it says.
pub(crate) struct Sendable<T>(T);

impl<T> Sendable<T> {
    /// Wraps an object.
    ///
    /// # Safety
    /// Whoever holds the wrapper may use the object from the thread it is on: the object is safe from several threads,
    /// or only one thread at a time can reach it.
    pub(crate) unsafe fn new(object: T) -> Self {
        Sendable(object)
    }
}

impl<T> std::ops::Deref for Sendable<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

// SAFETY: promised in `new`.
unsafe impl<T> Send for Sendable<T> {}
// SAFETY: promised in `new`.
unsafe impl<T> Sync for Sendable<T> {}

/// What the driver said, as an error.
pub(crate) fn failed(doing: &str, error: &NSError) -> Error {
    Error::Backend { device: DEVICE.into(), message: format!("{doing}: {}", error.localizedDescription()) }
}

/// An object that the driver promises.
pub(crate) fn some<T>(what: &str, object: Option<T>) -> Result<T> {
    let none = || Error::Backend { device: DEVICE.into(), message: format!("the driver made no {what}") };
    object.ok_or_else(none)
}

/// Whether the system is at least this macOS.
pub(crate) fn macos(major: isize, minor: isize) -> bool {
    let version = NSOperatingSystemVersion { majorVersion: major, minorVersion: minor, patchVersion: 0 };
    NSProcessInfo::processInfo().isOperatingSystemAtLeastVersion(version)
}
