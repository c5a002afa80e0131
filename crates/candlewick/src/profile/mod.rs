//! What `candlewick tune` measured on this machine: which engine is fastest at which sizes, and when a thread pays.
//!
//! [`Device::open`](crate::Device::open) reads the profile of its device, if there is one; `CANDLEWICK_PROFILE=off` makes
//! it not. A profile that is damaged, of another machine or of another version is ignored with a warning (of `tracing`):
//! the backend's own order decides then, or a built-in profile of the same chip. Results never depend on a profile beyond
//! rounding.

mod built_in;
mod file;

pub use file::{ProfileError, folder};

use crate::op::OpClass;
use crate::{DType, Device, DeviceInfo, DispatchTable, Engine};
use candlewick_core::dispatch::Bucket;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Measurements of one device, with what they were taken on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The machine.
    pub machine: Machine,
    /// The version of Candlewick whose engines were measured.
    pub candlewick: String,
    /// When it was measured, in UTC.
    pub date: String,
    /// How: what `candlewick tune` was told.
    pub settings: String,
    /// Seconds of work that every thread of an operation has at least; on a CPU with several.
    pub seconds_per_thread: Option<f64>,
    /// What that was derived from.
    pub threads: Vec<ThreadTimes>,
    /// Operations that a command buffer holds; on Metal.
    pub operations_per_command_buffer: Option<usize>,
    /// The engines' times.
    pub rows: Vec<Row>,
}

/// What a profile is of: it serves no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `cpu`, `cuda:0`, `metal`.
    pub device: String,
    /// What the hardware calls itself.
    pub name: String,
    /// Cores, instruction sets, driver: whatever changes times.
    pub facts: BTreeMap<String, String>,
}

/// The engines' times at one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The operation's class.
    pub op: String,
    /// Its dtype.
    pub dtype: String,
    /// What was measured, as [`crate::Op`] prints its sizes.
    pub shape: String,
    /// The sizes' exponents of two: the times speak for all shapes with these.
    pub bucket: [u8; 4],
    /// The least microseconds that the machine can take, by its measured limits.
    pub limit: f64,
    /// Fastest first.
    pub times: Vec<Time>,
    /// The operation on Candle's tensors, by [`CANDLEWICK`] and by [`CANDLE`]: what `candlewick-candle` chooses by. Empty
    /// where Candle does not have it, or was not there to be measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_candle_tensors: Vec<Time>,
}

/// Candle's own operation, on Candle's tensors.
pub const CANDLE: Engine = Engine::new("candle", "candle");
/// Candlewick's operation on Candle's tensors, on the engine that the device's own times choose.
pub const CANDLEWICK: Engine = Engine::new("candle", "candlewick");

/// One engine's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// Its name, as it is printed.
    pub engine: String,
    /// Median microseconds per operation.
    pub microseconds: f64,
    /// Samples behind it; few of an engine that was clearly slower.
    pub samples: usize,
}

/// An operation on one thread and on all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadTimes {
    /// The operation, as it is printed.
    pub op: String,
    /// Median microseconds on one thread.
    pub one: f64,
    /// Median microseconds on all, however small it is.
    pub all: f64,
}

/// Where a profile comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Measured on this machine.
    Measured(PathBuf),
    /// Measured on the same chip by those who make Candlewick: the profile's name.
    BuiltIn(&'static str),
}

/// Facts that say how a device was opened, not what it is.
const SETTINGS: [&str; 3] = ["threads per operation", "operations per command buffer", "compiled kernels"];

impl Machine {
    /// Of a device.
    pub fn of(info: &DeviceInfo) -> Self {
        let facts = info.facts.iter().filter(|(name, _)| !SETTINGS.contains(name));
        let facts = facts.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Machine { device: info.id.clone(), name: info.name.clone(), facts }
    }
}

impl Profile {
    /// The profile that serves a device, and where it comes from: measured here, or built in. `CANDLEWICK_PROFILE=off`:
    /// none.
    pub fn of(info: &DeviceInfo) -> Option<(Profile, Source)> {
        if std::env::var_os("CANDLEWICK_PROFILE").is_some_and(|value| value == "off") {
            return None;
        }
        let machine = Machine::of(info);
        if let Some(path) = Profile::path(info) {
            match Profile::load(&path, &machine) {
                Ok(Some(profile)) => return Some((profile, Source::Measured(path))),
                Ok(None) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let (profile, name) = built_in::of(&machine)?;
        Some((profile, Source::BuiltIn(name)))
    }

    /// The engines' times as the dispatcher reads them. Engines and operations that are not known here are left out.
    pub fn table(&self, engines: &[Engine]) -> DispatchTable {
        self.times_of(engines, |row| (Some(&row.shape), &row.times))
    }

    /// The times of [`CANDLEWICK`] and [`CANDLE`], of operations that both were measured at.
    pub fn table_on_candle_tensors(&self) -> DispatchTable {
        self.times_of(&[CANDLEWICK, CANDLE], |row| (None, &row.on_candle_tensors))
    }

    fn times_of(&self, engines: &[Engine], of: impl Fn(&Row) -> (Option<&String>, &[Time])) -> DispatchTable {
        let mut table = DispatchTable::new();
        for row in &self.rows {
            let class = OpClass::ALL.into_iter().find(|class| class.name() == row.op);
            let dtype = DType::ALL.into_iter().find(|dtype| dtype.name() == row.dtype);
            let (Some(class), Some(dtype)) = (class, dtype) else { continue };
            let key = (class, Bucket::from_exponents(row.bucket), dtype);
            let (shape, times) = of(row);
            for time in times.iter().filter(|time| time.microseconds.is_finite()) {
                if let Some(&engine) = engines.iter().find(|engine| engine.to_string() == time.engine) {
                    table.insert(key, shape.map(String::as_str), engine, time.microseconds as f32);
                }
            }
        }
        table
    }
}

impl Device {
    /// The same device, deciding by a profile.
    #[must_use]
    pub fn with_profile(self, profile: &Profile) -> Self {
        let table = profile.table(&self.info().engines);
        match self {
            Device::Cpu(device) => {
                if let Some(seconds) = profile.seconds_per_thread {
                    candlewick_cpu::threads::set_seconds_per_thread(seconds);
                }
                Device::Cpu(device.with_table(table))
            }
            Device::Empty(device) => Device::Empty(device),
            #[cfg(metal)]
            Device::Metal(device) => {
                let device = match profile.operations_per_command_buffer {
                    Some(operations) => device.with_operations_per_command_buffer(operations),
                    None => device,
                };
                Device::Metal(device.with_table(table))
            }
            #[cfg(cuda)]
            Device::Cuda(device) => Device::Cuda(device.with_table(table)),
        }
    }

    /// The same device with the profile that serves it, if there is one.
    pub(crate) fn profiled(self) -> Self {
        if matches!(self, Device::Empty(_)) {
            return self;
        }
        match Profile::of(&self.info()) {
            Some((profile, _)) => self.with_profile(&profile),
            None => self,
        }
    }
}
