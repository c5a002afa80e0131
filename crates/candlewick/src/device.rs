//! Devices by name.

use crate::backends::on_each;
use crate::{Buffer, DType, Decision, DeviceInfo, Engine, Error, Limits, Op, Result, Stream};
use candlewick_core::backend::Device as _;

/// A device: a cheap handle, shared by threads.
#[derive(Clone)]
#[non_exhaustive]
pub enum Device {
    /// The CPU.
    Cpu(candlewick_cpu::Device),
    /// Does nothing: measures the cost of the contract itself.
    Empty(candlewick_empty::Device),
    /// Apple's GPU.
    #[cfg(metal)]
    Metal(candlewick_metal::Device),
    /// An NVIDIA GPU.
    #[cfg(cuda)]
    Cuda(candlewick_cuda::Device),
}

impl Device {
    /// Whether a packed weight lies in another order than a plain one: GPUs read both alike.
    pub(crate) fn packs(&self) -> bool {
        matches!(self, Device::Cpu(_) | Device::Empty(_))
    }

    /// The CPU with all its cores.
    pub fn cpu() -> Self {
        Device::Cpu(candlewick_cpu::Device::new())
    }

    /// The CPU with at most `threads` threads per operation.
    pub fn cpu_with_threads(threads: usize) -> Self {
        Device::Cpu(candlewick_cpu::Device::with_threads(threads))
    }

    /// Apple's GPU.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with the reason.
    pub fn metal() -> Result<Self> {
        #[cfg(metal)]
        return candlewick_metal::Device::open().map(Device::Metal);
        #[cfg(not(metal))]
        return Err(candlewick_metal::absent());
    }

    /// The NVIDIA GPU of this number, from 0.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with what is missing: the driver, NVRTC, or that GPU.
    pub fn cuda(ordinal: usize) -> Result<Self> {
        #[cfg(cuda)]
        return candlewick_cuda::Device::open(ordinal).map(Device::Cuda);
        #[cfg(not(cuda))]
        return Err(Error::NoDevice {
            wanted: format!("cuda:{ordinal}"),
            reason: "NVIDIA has no driver for this system".into(),
        });
    }

    /// By the name that users type: `cpu`, `cpu:1` (one thread), `metal`, `cuda`, `cuda:1` (the second), `empty`; with what
    /// was measured of it, see [`crate::profile`].
    ///
    /// # Errors
    /// [`Error::NoDevice`] with the reason, or with what names there are.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_default(name).map(Self::profiled)
    }

    /// As [`Device::open`], without a profile: engines in the backend's own order.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_default(name: &str) -> Result<Self> {
        let threads = name.strip_prefix("cpu:").and_then(|threads| threads.parse().ok()).filter(|&threads| threads > 0);
        let ordinal = name.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok());
        match (name, threads) {
            ("cpu", _) => Ok(Self::cpu()),
            ("metal", _) => Self::metal(),
            ("cuda", _) => Self::cuda(0),
            _ if ordinal.is_some() => Self::cuda(ordinal.unwrap_or(0)),
            ("empty", _) => Ok(Device::Empty(candlewick_empty::Device)),
            (_, Some(threads)) => Ok(Self::cpu_with_threads(threads)),
            _ => Err(Error::NoDevice {
                wanted: name.into(),
                reason:
                    "there are cpu, cpu:N (N threads), metal, cuda, cuda:N (number N, from 0) and empty (does nothing)"
                        .into(),
            }),
        }
    }

    /// As [`Device::open`], with memory of its own for every tensor of a GPU, so that a memory checker (compute-sanitizer,
    /// Metal's validation) sees where each ends. Slow.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_unpooled(name: &str) -> Result<Self> {
        let device = Self::open(name)?;
        match device {
            #[cfg(metal)]
            Device::Metal(_) => {
                let options = candlewick_metal::Options { block_bytes: 0, ..candlewick_metal::Options::default() };
                candlewick_metal::Device::with_options(options).map(Device::Metal)
            }
            #[cfg(cuda)]
            Device::Cuda(_) => {
                let ordinal = name.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()).unwrap_or(0);
                let options = candlewick_cuda::Options { block_bytes: 0, ..candlewick_cuda::Options::default() };
                candlewick_cuda::Device::with_options(ordinal, options).map(Device::Cuda)
            }
            device => Ok(device),
        }
    }

    /// Every device of this machine.
    pub fn all() -> Vec<Self> {
        #[cfg(cuda)]
        let gpus = 0..candlewick_cuda::Device::count().unwrap_or(0);
        #[cfg(not(cuda))]
        let gpus = 0..0;
        [Ok(Self::cpu()), Self::metal()].into_iter().chain(gpus.map(Self::cuda)).flatten().collect()
    }

    /// The devices that this machine lacks, with the reason: name, then why.
    pub fn absent() -> Vec<(&'static str, Error)> {
        [("metal", Self::metal()), ("cuda", Self::cuda(0))]
            .into_iter()
            .filter_map(|(name, device)| Some((name, device.err()?)))
            .collect()
    }

    /// What the device is.
    pub fn info(&self) -> DeviceInfo {
        on_each!(Device, self, device => device.info())
    }

    /// The engines that can run `op` here, the one that `prepare` would choose first.
    pub fn engines(&self, op: impl Into<Op>) -> Vec<Engine> {
        let op = op.into();
        on_each!(Device, self, device => device.engines(&op))
    }

    /// The engine that `prepare` would choose for `op`, and why. Nothing on the device that does nothing.
    pub fn decide(&self, op: impl Into<Op>) -> Option<Decision> {
        let op = op.into();
        match self {
            Device::Cpu(device) => device.decide(&op),
            Device::Empty(_) => None,
            #[cfg(metal)]
            Device::Metal(device) => device.decide(&op),
            #[cfg(cuda)]
            Device::Cuda(device) => device.decide(&op),
        }
    }

    /// Memory for `elements` numbers, all zero.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn alloc(&self, dtype: DType, elements: usize) -> Result<Buffer> {
        on_each!(Device => Buffer, self, device => device.alloc(dtype, elements))
    }

    /// A new stream.
    ///
    /// # Errors
    /// What the driver says.
    pub fn stream(&self) -> Result<Stream> {
        on_each!(Device => Stream, self, device => device.stream())
    }

    /// Measures the rates that nothing here exceeds, with at most `threads` host threads. Takes up to a second.
    ///
    /// # Errors
    /// What the driver says.
    pub fn measure_limits(&self, threads: usize) -> Result<Limits> {
        on_each!(Device, self, device => device.measure_limits(threads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        assert_eq!(Device::open("cpu").unwrap().info().id, "cpu");
        assert!(matches!(Device::open("cpu:1").unwrap(), Device::Cpu(device) if device.threads() == 1));
        for wrong in ["cpu:0", "cpu:x", "", "gpu"] {
            let Err(error) = Device::open(wrong) else { panic!("{wrong} opened") };
            assert!(error.to_string().contains("there are cpu, cpu:N"), "{error}");
        }
    }

    /// Whatever a user asks for is a device, or says why it is none.
    #[test]
    fn a_gpu_is_there_or_says_why_not() {
        for (name, id) in [("metal", "metal"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0")] {
            match Device::open(name) {
                Ok(device) => assert_eq!(device.info().id, id),
                Err(error) => assert!(error.to_string().starts_with(&format!("no device {id} here")), "{error}"),
            }
        }
        let found = |start: &str| Device::all().iter().any(|device| device.info().id.starts_with(start));
        assert!(found("cpu"));
        for (name, _) in Device::absent() {
            assert!(!found(name), "{name} is absent");
        }
    }
}
