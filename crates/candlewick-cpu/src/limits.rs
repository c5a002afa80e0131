//! What nothing on this CPU exceeds: the rate of its multipliers, and how fast it reads data of each size.

use crate::pool::Pool;
use crate::simd::{Isa, Simd};
use candlewick_core::DType;
use candlewick_core::backend::Limits;
use std::time::{Duration, Instant};

/// Sizes at which reading is measured, per thread: within each level of cache, and beyond.
const SIZES: [usize; 8] = [16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 16 << 20, 128 << 20];
/// How long each figure is measured.
const EACH: Duration = Duration::from_millis(12);
/// Multiply-adds that do not wait for each other; vectors per step of reading.
const CHAINS: usize = 12;

/// A loop of so many steps.
type Multiply = unsafe fn(usize) -> f32;

/// Measures the limits with `threads` threads.
pub(crate) fn measure(pool: &Pool, threads: usize) -> Limits {
    let probe = Probe::best();
    let rate = |multiply: Multiply, flops_per_step: usize| {
        best_rate(pool, threads, |_| {
            let steps = 20_000;
            // SAFETY: the probe is one of this CPU's.
            std::hint::black_box(unsafe { multiply(steps) });
            (steps * flops_per_step) as f64
        })
    };
    let lanes = CHAINS * probe.lanes;
    let f32_rate = rate(probe.multiply, 2 * lanes);
    let bf16_rate = match (probe.multiply_tiles, probe.multiply_pairs) {
        (Some((multiply_tiles, flops_per_step)), _) => rate(multiply_tiles, flops_per_step),
        (None, Some(multiply_pairs)) => rate(multiply_pairs, 4 * lanes),
        (None, None) => f32_rate,
    };
    let memory = vec![1f32; SIZES[SIZES.len() - 1] / 4 * threads];
    let bandwidth = SIZES.map(|size| {
        let own = memory.len() / threads;
        let rate = best_rate(pool, threads, |thread| {
            let part = &memory[thread * own..][..size / 4];
            let passes = ((1 << 20) / size).max(1);
            for _ in 0..passes {
                // SAFETY: the probe is one of this CPU's, and reads within the slice.
                std::hint::black_box(unsafe { (probe.read)(part.as_ptr(), part.len()) });
            }
            (passes * size) as f64
        });
        ((size * threads) as f64, rate)
    });
    let flops = [(DType::F32, f32_rate), (DType::F16, f32_rate), (DType::BF16, bf16_rate)];
    Limits { threads, flops, bandwidth: bandwidth.to_vec(), wake: wake(pool, threads) }
}

/// Whether instructions on bf16 pairs are faster here than widening and multiplying in f32: measured once, in a tenth of
/// a millisecond. Zen 5 runs two of them at a time, Sapphire Rapids one at half the rate of an f32 multiply-add.
pub(crate) fn pairs_pay() -> bool {
    static PAY: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *PAY.get_or_init(|| {
        let probe = Probe::best();
        let Some(multiply_pairs) = probe.multiply_pairs else { return false };
        let least = |multiply: Multiply| {
            let time = |_| {
                let start = Instant::now();
                // SAFETY: the probe is one of this CPU's.
                std::hint::black_box(unsafe { multiply(300) });
                start.elapsed()
            };
            (0..9).map(time).min().unwrap_or_default()
        };
        // A pair is two multiply-adds. Widening costs a fifth, so a little slower would still be faster.
        least(multiply_pairs).as_secs_f64() < 1.8 * least(probe.multiply).as_secs_f64()
    })
}

/// The median time of a job whose tasks do nothing.
fn wake(pool: &Pool, threads: usize) -> f64 {
    let mut samples = [0.0; 1001];
    for sample in &mut samples {
        let start = Instant::now();
        pool.run(threads, threads, &|task, _| {
            std::hint::black_box(task);
        });
        *sample = start.elapsed().as_secs_f64();
    }
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The best of several runs of all threads at once, in units per second; `work` returns how many units it did.
fn best_rate(pool: &Pool, threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    let mut best = 0f64;
    let begin = Instant::now();
    while begin.elapsed() < EACH || best == 0.0 {
        let start = Instant::now();
        let units = std::sync::Mutex::new(0.0);
        // One task per thread; a thread that comes late finds its task done by another, in the same total time.
        pool.run(threads, threads, &|task, _| {
            let done = work(task);
            *units.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += done;
        });
        let units = *units.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        best = best.max(units / start.elapsed().as_secs_f64());
    }
    best
}

/// The two loops, compiled for an instruction set.
#[derive(Clone, Copy)]
struct Probe {
    lanes: usize,
    multiply: Multiply,
    /// Each lane multiplies and adds up two pairs of bf16.
    multiply_pairs: Option<Multiply>,
    /// The matrix unit's loop, and the floating-point operations of its steps.
    multiply_tiles: Option<(Multiply, usize)>,
    read: unsafe fn(*const f32, usize) -> f32,
}

impl Probe {
    fn best() -> Probe {
        match Isa::best() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx => {
                use crate::simd::amx;
                let pairs: Multiply = multiply_pairs;
                let tiles: Multiply = amx::multiply;
                Probe {
                    multiply_pairs: Isa::Avx512Bf16.is_available().then_some(pairs),
                    multiply_tiles: Isa::Amx.is_available().then_some((tiles, amx::FLOPS_PER_STEP)),
                    ..avx512::PROBE
                }
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => avx2::PROBE,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => neon::PROBE,
            _ => portable::PROBE,
        }
    }
}

/// `steps` times one multiply-add in each of the chains.
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn multiply<S: Simd>(steps: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (S::splat(std::hint::black_box(0.999)), S::splat(std::hint::black_box(1e-3)));
        let mut sums = [a; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = S::fma(*sum, a, b);
            }
        }
        sums.iter().fold(0.0, |total, &sum| total + S::reduce_add(sum))
    }
}

/// As `multiply`, on pairs of bf16.
///
/// # Safety
/// The CPU has these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn multiply_pairs(steps: usize) -> f32 {
    use crate::simd::{PairDot, avx512::Avx512};
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (Avx512::splat(std::hint::black_box(1e-3)), Avx512::splat(std::hint::black_box(1e-3)));
        let mut sums = [a; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = Avx512::dot_pairs(a, b, *sum);
            }
        }
        sums.iter().fold(0.0, |total, &sum| total + Avx512::reduce_add(sum))
    }
}

/// Reads `len` f32, a multiple of the vectors of a step.
///
/// # Safety
/// They are there; the CPU has the instruction set.
#[inline(always)]
unsafe fn read<S: Simd>(from: *const f32, len: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [S::splat(0.0); 8];
        let step = 8 * S::LANES;
        for i in 0..len / step {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = S::add(*sum, S::load(from.add(i * step + j * S::LANES)));
            }
        }
        sums.iter().fold(0.0, |total, &sum| total + S::reduce_add(sum))
    }
}

macro_rules! probe {
    ($name:ident, $simd:ty, $(#[$features:meta])*) => {
        mod $name {
            use super::Probe;
            use crate::simd::Simd;

            /// # Safety
            /// The CPU has these features.
            $(#[$features])*
            unsafe fn multiply(steps: usize) -> f32 {
                // SAFETY: the caller's promise.
                unsafe { super::multiply::<$simd>(steps) }
            }

            /// # Safety
            /// The CPU has these features, and the memory is there.
            $(#[$features])*
            unsafe fn read(from: *const f32, len: usize) -> f32 {
                // SAFETY: the caller's promise.
                unsafe { super::read::<$simd>(from, len) }
            }

            pub(super) const PROBE: Probe =
                Probe { lanes: <$simd>::LANES, multiply, multiply_pairs: None, multiply_tiles: None, read };
        }
    };
}

probe!(portable, crate::simd::portable::Portable,);
#[cfg(target_arch = "aarch64")]
probe!(neon, crate::simd::neon::Neon, #[target_feature(enable = "neon")]);
#[cfg(target_arch = "x86_64")]
probe!(avx2, crate::simd::avx2::Avx2, #[target_feature(enable = "avx2,fma,f16c")]);
#[cfg(target_arch = "x86_64")]
probe!(avx512, crate::simd::avx512::Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_plausible() {
        let limits = measure(Pool::global(), 1);
        assert!(limits.flops.iter().all(|&(_, rate)| rate > 1e8), "{limits:?}");
        assert!(limits.bandwidth.iter().all(|&(_, rate)| rate > 1e8), "{limits:?}");
        assert!(limits.bandwidth.is_sorted_by(|a, b| a.0 < b.0), "{limits:?}");
    }
}
