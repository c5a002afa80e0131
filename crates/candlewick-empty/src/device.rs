//! The device that does nothing.

use crate::{Buffer, Stream};
use candlewick_core::backend::{self, DeviceInfo, Engine, Limits};
use candlewick_core::{DType, Op, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// The only engine: it does nothing.
pub const NOTHING: Engine = Engine::new("empty", "nothing");

/// A device that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Device;

static STREAMS: AtomicU64 = AtomicU64::new(0);

impl backend::Device for Device {
    type Buffer = Buffer;
    type Stream = Stream;

    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            id: "empty".into(),
            name: "does nothing; measures the cost of the contract".into(),
            facts: Vec::new(),
            asynchronous: true,
            engines: vec![NOTHING],
        }
    }

    fn engines(&self, _: &Op) -> Vec<Engine> {
        vec![NOTHING]
    }

    fn alloc(&self, dtype: DType, elements: usize) -> Result<Buffer> {
        Ok(Buffer { dtype, elements, packing: None })
    }

    fn stream(&self) -> Result<Stream> {
        Ok(Stream::new(STREAMS.fetch_add(1, Ordering::Relaxed)))
    }

    fn measure_limits(&self, _: usize) -> Result<Limits> {
        let flops = DType::ALL.map(|dtype| (dtype, f64::INFINITY));
        Ok(Limits { threads: 1, flops, bandwidth: Vec::new(), wake: 0.0 })
    }
}
