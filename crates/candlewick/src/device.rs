//! Devices by name.

use crate::{Buffer, DType, DeviceInfo, Engine, Error, Limits, Op, Result, Stream};
use candlewick_core::backend::Device as _;

/// A device: a cheap handle, shared by threads.
#[derive(Clone)]
#[non_exhaustive]
pub enum Device {
    /// The CPU.
    Cpu(candlewick_cpu::Device),
    /// Does nothing: measures the cost of the contract itself.
    Empty(candlewick_empty::Device),
}

impl Device {
    /// The CPU with all its cores.
    pub fn cpu() -> Self {
        Device::Cpu(candlewick_cpu::Device::new())
    }

    /// The CPU with at most `threads` threads per operation.
    pub fn cpu_with_threads(threads: usize) -> Self {
        Device::Cpu(candlewick_cpu::Device::with_threads(threads))
    }

    /// By the name that users type: `cpu`, `cpu:1` (one thread), `empty`.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with what there is.
    pub fn open(name: &str) -> Result<Self> {
        let threads = name.strip_prefix("cpu:").and_then(|threads| threads.parse().ok()).filter(|&threads| threads > 0);
        match (name, threads) {
            ("cpu", _) => Ok(Self::cpu()),
            ("empty", _) => Ok(Device::Empty(candlewick_empty::Device)),
            (_, Some(threads)) => Ok(Self::cpu_with_threads(threads)),
            _ => Err(Error::NoDevice {
                wanted: name.into(),
                reason: "this build has cpu, cpu:N (N threads) and empty (does nothing, measures the contract)".into(),
            }),
        }
    }

    /// Every device of this machine.
    pub fn all() -> Vec<Self> {
        vec![Self::cpu()]
    }

    /// What the device is.
    pub fn info(&self) -> DeviceInfo {
        match self {
            Device::Cpu(device) => device.info(),
            Device::Empty(device) => device.info(),
        }
    }

    /// The engines that can run `op` here, the one that `prepare` would choose first.
    pub fn engines(&self, op: impl Into<Op>) -> Vec<Engine> {
        let op = op.into();
        match self {
            Device::Cpu(device) => device.engines(&op),
            Device::Empty(device) => device.engines(&op),
        }
    }

    /// Memory for `elements` numbers, all zero.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn alloc(&self, dtype: DType, elements: usize) -> Result<Buffer> {
        match self {
            Device::Cpu(device) => device.alloc(dtype, elements).map(Buffer::Cpu),
            Device::Empty(device) => device.alloc(dtype, elements).map(Buffer::Empty),
        }
    }

    /// A new stream.
    ///
    /// # Errors
    /// What the driver says.
    pub fn stream(&self) -> Result<Stream> {
        match self {
            Device::Cpu(device) => device.stream().map(Stream::Cpu),
            Device::Empty(device) => device.stream().map(Stream::Empty),
        }
    }

    /// Measures the rates that nothing here exceeds, with at most `threads` host threads. Takes up to a second.
    ///
    /// # Errors
    /// What the driver says.
    pub fn measure_limits(&self, threads: usize) -> Result<Limits> {
        match self {
            Device::Cpu(device) => device.measure_limits(threads),
            Device::Empty(device) => device.measure_limits(threads),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        assert_eq!(Device::open("cpu").unwrap().info().id, "cpu");
        assert!(matches!(Device::open("cpu:1").unwrap(), Device::Cpu(device) if device.threads() == 1));
        for wrong in ["cpu:0", "cpu:x", "", "cuda"] {
            let Err(error) = Device::open(wrong) else { panic!("{wrong} opened") };
            assert!(error.to_string().contains("this build has cpu"), "{error}");
        }
    }
}
