//! What is known of a GPU before anything runs on it.

use candlewick_kernels::GpuLimits;

/// A GPU's kind and size.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Chip {
    /// As its maker calls it.
    pub(crate) name: String,
    /// The compute capability: (9, 0) for an H100.
    pub(crate) capability: (u32, u32),
    /// Streaming multiprocessors.
    pub(crate) multiprocessors: u32,
    /// The most shared memory of a block, with the kernel's consent.
    pub(crate) shared_bytes: u32,
    /// The level-two cache.
    pub(crate) l2_bytes: u32,
    /// All of its memory.
    pub(crate) memory_bytes: usize,
}

impl Chip {
    /// What the geometry of `candlewick-kernels` depends on.
    pub(crate) fn limits(&self) -> GpuLimits {
        GpuLimits::nvidia(self.multiprocessors)
    }

    /// The architecture to compile for, of those that the compiler knows (`supported`: 80, 90, ..): this chip's machine
    /// code where it can, with the instructions of this chip alone from 9.0 on; else the newest older one's PTX, which
    /// the driver translates.
    pub(crate) fn architecture(&self, supported: &[u32]) -> String {
        let (major, minor) = self.capability;
        let own = major * 10 + minor;
        if supported.is_empty() || supported.contains(&own) {
            let suffix = if own >= 90 { "a" } else { "" };
            return format!("sm_{own}{suffix}");
        }
        let older = supported.iter().copied().filter(|&known| known < own).max().unwrap_or(own);
        format!("compute_{older}")
    }
}

#[cfg(test)]
pub(crate) fn h100() -> Chip {
    Chip {
        name: "NVIDIA H100 80GB HBM3".into(),
        capability: (9, 0),
        multiprocessors: 132,
        shared_bytes: 232_448,
        l2_bytes: 50 << 20,
        memory_bytes: 80 << 30,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_that_the_compiler_does_not_know_gets_the_newest_older_ptx() {
        let known = [75, 80, 86, 89, 90];
        assert_eq!(h100().architecture(&known), "sm_90a");
        assert_eq!(Chip { capability: (8, 0), ..h100() }.architecture(&known), "sm_80");
        assert_eq!(Chip { capability: (10, 0), ..h100() }.architecture(&known), "compute_90");
        assert_eq!(Chip { capability: (8, 7), ..h100() }.architecture(&known), "compute_86");
    }
}
