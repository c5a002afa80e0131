//! How threads share rows, in every kernel that works by rows: softmax, RMSNorm, their backwards.

use crate::program::{Alignment, GpuLimits};

/// Elements of a share of a row.
const SHARE: usize = 8;
/// The most shares that a lane keeps where a team has a row, and those that it keeps where a group has.
const TEAM_SHARES: usize = 4;
const GROUP_SHARES: usize = 2;

/// Who shares a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Up to 32 lanes; it stays in their registers, a share in each.
    Lanes,
    /// 32 lanes; it stays in their registers, two to four shares in each. (A kernel for exactly as many: what it would have
    /// to leave out takes its time too, a tenth of a small softmax on an H100, and its registers.)
    Team(u32),
    /// A group; it stays in its registers.
    Group,
    /// A group that walks over it.
    Looped,
    /// Several groups, in two launches.
    Split,
}

impl Way {
    /// The name of the variant.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Way::Lanes => "lanes",
            Way::Team(_) => "team",
            Way::Group => "group",
            Way::Looped => "looped",
            Way::Split => "split",
        }
    }
}

/// The entry points of a kernel for a way: `name` with the way behind it; `None` for `Way::Split`, which takes two.
macro_rules! by_way {
    ($name:literal, $way:expr) => {
        match $way {
            Way::Lanes => Some(names!($name, "_lanes")),
            Way::Team(2) => Some(names!($name, "_team_2")),
            Way::Team(3) => Some(names!($name, "_team_3")),
            Way::Team(_) => Some(names!($name, "_team_4")),
            Way::Group => Some(names!($name, "_group")),
            Way::Looped => Some(names!($name, "_looped")),
            Way::Split => None,
        }
    };
}
pub(crate) use by_way;

/// A grid over rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) groups: u64,
    pub(crate) threads: u32,
    /// That share a row, where it is not the whole group.
    pub(crate) lanes: u32,
    pub(crate) segments: u32,
    pub(crate) segment: u32,
}

/// The ways that fit rows of this length, the best guess first.
pub(crate) fn ways(rows: usize, cols: usize, limits: &GpuLimits, can_split: bool) -> Vec<Way> {
    let in_group = cols <= limits.threads_per_group as usize * GROUP_SHARES * SHARE;
    // So few rows that most of the GPU would idle, and long enough to be worth a second launch.
    let split_pays = can_split && 2 * rows <= limits.cores as usize && cols > 16 * 1024;
    let mut ways = Vec::with_capacity(4);
    if cols <= 32 * SHARE {
        ways.push(Way::Lanes);
    } else if cols <= 32 * TEAM_SHARES * SHARE {
        ways.push(Way::Team(cols.div_ceil(32 * SHARE) as u32));
    }
    if in_group {
        ways.push(Way::Group);
    }
    if split_pays {
        ways.push(Way::Split);
    }
    ways.push(Way::Looped);
    if can_split && !split_pays {
        ways.push(Way::Split);
    }
    ways
}

/// The grid of a way.
pub(crate) fn geometry(way: Way, rows: usize, cols: usize, limits: &GpuLimits) -> Geometry {
    let shares = cols.div_ceil(SHARE);
    let whole = Geometry { groups: rows as u64, threads: 0, lanes: 0, segments: 1, segment: 0 };
    let most = limits.threads_per_group as usize;
    if rows == 0 || cols == 0 {
        return Geometry { groups: 0, threads: 32, ..whole };
    }
    match way {
        Way::Lanes | Way::Team(_) => {
            let lanes = shares.next_power_of_two().min(32);
            // Small groups where rows are few, so that every core has some.
            let mut threads = if way == Way::Lanes { 256 } else { 128 };
            while threads > 32 && (rows * lanes).div_ceil(threads) < limits.cores as usize {
                threads /= 2;
            }
            let groups = rows.div_ceil(threads / lanes) as u64;
            Geometry { groups, threads: threads as u32, lanes: lanes as u32, ..whole }
        }
        Way::Group => Geometry { threads: shares.div_ceil(GROUP_SHARES).next_multiple_of(32) as u32, ..whole },
        Way::Looped => Geometry { threads: shares.next_multiple_of(32).min(most) as u32, ..whole },
        Way::Split => {
            let threads = 256.min(shares.next_multiple_of(32));
            let step = threads * SHARE;
            let wanted = (2 * limits.cores as usize).div_ceil(rows).clamp(1, 64);
            let segment = cols.div_ceil(wanted).next_multiple_of(step);
            let segments = cols.div_ceil(segment);
            Geometry {
                groups: rows as u64 * segments as u64,
                threads: threads as u32,
                segments: segments as u32,
                segment: segment as u32,
                ..whole
            }
        }
    }
}

/// Whether rows can go 16 bytes at a time: whole shares, each at a multiple of 16 bytes.
pub(crate) fn wide(alignment: Alignment, rows: usize, cols: usize, strides: &[usize]) -> bool {
    let aligned = |elements: &usize| elements.is_multiple_of(SHARE);
    alignment == Alignment::Sixteen && aligned(&cols) && (rows <= 1 || strides.iter().all(aligned))
}
