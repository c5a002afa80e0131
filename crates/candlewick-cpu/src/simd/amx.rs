//! Intel's matrix unit, AMX: eight tiles of 16 rows by 64 bytes, and an instruction that multiplies two tiles of bf16 and
//! adds the result to a third, in f32. Its intrinsics are unstable, so this is assembly.
//!
//! Subnormal inputs and sums count as zero.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid, __cpuid_count, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_storeu_si512, _xgetbv,
};
use std::sync::OnceLock;

/// Most rows of a block: two tiles.
pub const ROWS: usize = 32;
/// Columns of a block: two tiles of f32, or one panel.
pub const COLS: usize = 32;
/// Steps of k that one tile of A, or of B, holds.
pub const DEPTH: usize = 32;
/// Bytes of a row of a tile.
const TILE: usize = 64;
/// Bytes of a row of pairs of B.
const ROW_BYTES: usize = 4 * COLS;
/// Bytes that a step asks for ahead.
pub const AHEAD: usize = 256;

/// What one call of [`MatrixUnit::multiply`] multiplies: `sums = A B`, or `sums += A B`.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Rows of A and of the sums, 1 to [`ROWS`].
    pub rows: usize,
    /// Columns of A and rows of B, in units of [`DEPTH`]; not zero.
    pub steps: usize,
    /// A in bf16, contiguous along k.
    pub a: *const u8,
    /// Bytes from one row of A to the next.
    pub a_row_bytes: usize,
    /// A panel of pairs of B: `[steps * DEPTH / 2][COLS][2]`, in bf16.
    pub b: *const u8,
    /// [`COLS`] of each row.
    pub sums: *mut f32,
    /// Bytes from one row of sums to the next.
    pub sums_row_bytes: usize,
    /// Whether to add to what the sums are.
    pub add: bool,
    /// What to bring into the second-level cache meanwhile: [`AHEAD`] bytes for each step. Need not be valid.
    pub ahead: *const u8,
}

/// A unit that multiplies blocks: the real one, or in tests a model of it.
pub trait MatrixUnit {
    /// Prepares this thread's unit for blocks of so many rows, 1 to [`ROWS`].
    /// # Safety
    /// The CPU has the unit, and the process may use it.
    unsafe fn configure(rows: usize);
    /// The product of a block.
    /// # Safety
    /// The last call of `configure` on this thread was for as many rows, and `release` was not called since; every element
    /// of the block is valid.
    unsafe fn multiply(block: &Block);
    /// Writes `alpha` times rows of [`COLS`] sums as bf16, rounded to nearest, ties to even.
    /// # Safety
    /// The CPU has the unit; there are so many rows of sums, and room for as many, `c_row` elements apart, at `c`.
    unsafe fn narrow(rows: usize, alpha: f32, sums: *const f32, c: *mut u8, c_row: usize);
    /// Ends the use of the unit: a thread that holds no tiles costs the system less to switch.
    /// # Safety
    /// That of `configure`.
    unsafe fn release();
}

/// The unit of this CPU.
#[derive(Clone, Copy, Debug)]
pub struct Amx;

/// Whether this CPU has tiles of bf16, converts to bf16, and the system lets this process use the tiles; asks it to on the
/// first call.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && is_x86_feature_detected!("avx512bf16") && permitted())
}

/// Whether the CPU has AMX-TILE and AMX-BF16 and the system saves the tiles. Needs a CPU with XSAVE.
fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATE: u64 = 0b11 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: OSXSAVE says that the instruction is there.
    let saved = unsafe { _xgetbv(0) };
    __cpuid_count(7, 0).edx & (BF16 | TILES) == BF16 | TILES && saved & TILE_STATE == TILE_STATE
}

/// Asks Linux for the use of tiles: they enlarge every signal frame, so it gives them only to processes that ask. All
/// threads get it, those that run and those to come.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call takes two numbers and touches no memory of this process; `syscall` overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// What `ldtilecfg` reads: byte 0 is the palette, bytes 16..32 are each tile's bytes per row, 48..56 its rows.
#[repr(C, align(64))]
struct Config([u8; 64]);

impl Config {
    /// Tiles 0 to 3 are the sums, two by two; 4 and 5 are A, one above the other; 6 and 7 are B, side by side. Those of
    /// the lower half are left out where one tile holds all rows.
    fn new(rows: usize) -> Config {
        debug_assert!((1..=ROWS).contains(&rows));
        let upper = rows.min(16) as u8;
        let lower = rows.saturating_sub(16) as u8;
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for (tile, rows) in [upper, upper, lower, lower, upper, lower, 16, 16].into_iter().enumerate() {
            bytes[16 + 2 * tile] = if rows > 0 { TILE as u8 } else { 0 };
            bytes[48 + tile] = rows;
        }
        Config(bytes)
    }
}

/// Assembly that says which tiles it overwrites; whatever they held before and after does not matter.
macro_rules! tiles {
    ($($argument:tt)+) => {
        asm!(
            $($argument)+,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

impl MatrixUnit for Amx {
    #[inline]
    unsafe fn configure(rows: usize) {
        let config = Config::new(rows);
        // SAFETY: the configuration is valid. It stays in force after this, which no compiled code can notice: none uses
        // tiles but the assembly in this file.
        unsafe { tiles!("ldtilecfg [{config}]", config = in(reg) &raw const config) }
    }

    #[inline]
    unsafe fn multiply(block: &Block) {
        let Block { rows, steps, a, a_row_bytes, b, sums, sums_row_bytes, add, ahead } = *block;
        debug_assert!(steps > 0);
        // SAFETY: the caller's contract. A load of a tile touches as many rows as are configured, of 64 bytes each, and a
        // request for a cache line never fails.
        unsafe {
            if rows > 16 {
                tiles!(
                    "test {add}, {add}",
                    "jnz 3f",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "jmp 2f",
                    "3:",
                    "tileloadd tmm0, [{sums} + {sums_row} * 1]",
                    "tileloadd tmm1, [{sums} + {sums_row} * 1 + 64]",
                    "tileloadd tmm2, [{lower} + {sums_row} * 1]",
                    "tileloadd tmm3, [{lower} + {sums_row} * 1 + 64]",
                    "2:",
                    "prefetcht1 [{ahead}]",
                    "tileloadd tmm6, [{b} + {row} * 1]",
                    "tileloadd tmm4, [{a} + {a_row} * 1]",
                    "prefetcht1 [{ahead} + 64]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b} + {row} * 1 + 64]",
                    "prefetcht1 [{ahead} + 128]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a_lower} + {a_row} * 1]",
                    "prefetcht1 [{ahead} + 192]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a}, 64",
                    "add {a_lower}, 64",
                    "add {b}, 2048",
                    "add {ahead}, 256",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {sums_row} * 1], tmm0",
                    "tilestored [{sums} + {sums_row} * 1 + 64], tmm1",
                    "tilestored [{lower} + {sums_row} * 1], tmm2",
                    "tilestored [{lower} + {sums_row} * 1 + 64], tmm3",
                    add = in(reg) usize::from(add),
                    sums = in(reg) sums,
                    lower = in(reg) sums.byte_add(16 * sums_row_bytes),
                    sums_row = in(reg) sums_row_bytes,
                    row = in(reg) ROW_BYTES,
                    a = inout(reg) a => _,
                    a_lower = inout(reg) a.add(16 * a_row_bytes) => _,
                    a_row = in(reg) a_row_bytes,
                    b = inout(reg) b => _,
                    ahead = inout(reg) ahead => _,
                    steps = inout(reg) steps => _
                );
            } else {
                tiles!(
                    "test {add}, {add}",
                    "jnz 3f",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "jmp 2f",
                    "3:",
                    "tileloadd tmm0, [{sums} + {sums_row} * 1]",
                    "tileloadd tmm1, [{sums} + {sums_row} * 1 + 64]",
                    "2:",
                    "prefetcht1 [{ahead}]",
                    "prefetcht1 [{ahead} + 64]",
                    "tileloadd tmm4, [{a} + {a_row} * 1]",
                    "tileloadd tmm6, [{b} + {row} * 1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "prefetcht1 [{ahead} + 128]",
                    "prefetcht1 [{ahead} + 192]",
                    "tileloadd tmm7, [{b} + {row} * 1 + 64]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "add {a}, 64",
                    "add {b}, 2048",
                    "add {ahead}, 256",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {sums_row} * 1], tmm0",
                    "tilestored [{sums} + {sums_row} * 1 + 64], tmm1",
                    add = in(reg) usize::from(add),
                    sums = in(reg) sums,
                    sums_row = in(reg) sums_row_bytes,
                    row = in(reg) ROW_BYTES,
                    a = inout(reg) a => _,
                    a_row = in(reg) a_row_bytes,
                    b = inout(reg) b => _,
                    ahead = inout(reg) ahead => _,
                    steps = inout(reg) steps => _
                );
            }
        }
    }

    #[inline]
    unsafe fn narrow(rows: usize, alpha: f32, sums: *const f32, c: *mut u8, c_row: usize) {
        // SAFETY: the caller's contract; what has the unit has these.
        unsafe { narrow_rows(rows, alpha, sums, c.cast(), c_row) }
    }

    #[inline]
    unsafe fn release() {
        // SAFETY: the caller's contract.
        unsafe { tiles!("tilerelease") }
    }
}

/// # Safety
/// That of [`MatrixUnit::narrow`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn narrow_rows(rows: usize, alpha: f32, sums: *const f32, c: *mut u16, c_row: usize) {
    let alpha = _mm512_set1_ps(alpha);
    for i in 0..rows {
        // SAFETY: the caller's contract; a vector of bf16 is 64 bytes, as one of integers.
        unsafe {
            let from = sums.add(i * COLS);
            let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
            let both = _mm512_cvtne2ps_pbh(_mm512_mul_ps(alpha, high), _mm512_mul_ps(alpha, low));
            _mm512_storeu_si512(c.add(i * c_row).cast(), std::mem::transmute::<__m512bh, __m512i>(both));
        }
    }
}

/// Asks for a cache line to be written to, which need not be valid.
#[inline(always)]
pub fn ask_to_write(line: *const u8) {
    // SAFETY: this changes nothing but caches.
    unsafe { asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly)) }
}

/// Floating-point operations of one step of [`multiply`].
pub const FLOPS_PER_STEP: usize = 4 * 2 * 16 * 16 * DEPTH;

/// `steps` times, four tiles of sums each get a product added: what the multipliers can do at most.
///
/// # Safety
/// [`available`] said yes.
pub unsafe fn multiply(steps: usize) -> f32 {
    // 0x3a83 is about a thousandth.
    let factors = [0x3a83u16; 16 * DEPTH];
    let mut sums = [0f32; 16 * 16];
    // SAFETY: the caller's contract; tiles are 16 rows of 64 bytes, as long as the arrays.
    unsafe {
        Amx::configure(ROWS);
        tiles!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{factors} + {row} * 1]",
            "tileloadd tmm5, [{factors} + {row} * 1]",
            "tileloadd tmm6, [{factors} + {row} * 1]",
            "tileloadd tmm7, [{factors} + {row} * 1]",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {row} * 1], tmm3",
            factors = in(reg) factors.as_ptr(),
            sums = in(reg) sums.as_mut_ptr(),
            row = in(reg) TILE,
            steps = inout(reg) steps.max(1) => _
        );
        Amx::release();
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_has_the_layout_of_the_manual() {
        let Config(full) = Config::new(32);
        assert_eq!(full[..16], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(full[16..32], [64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0]);
        assert_eq!(full[32..], [[0; 16], [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0]].concat());
        let Config(few) = Config::new(17);
        assert_eq!(few[48..56], [16, 16, 1, 1, 16, 1, 16, 16]);
        // A tile without rows has no columns either.
        let Config(one) = Config::new(5);
        assert_eq!(one[16..32], [64, 0, 64, 0, 0, 0, 0, 0, 64, 0, 0, 0, 64, 0, 64, 0]);
        assert_eq!(one[48..56], [5, 5, 0, 0, 5, 0, 16, 16]);
    }

    #[test]
    fn multiplying_tiles_gives_the_sum() {
        if crate::simd::Isa::Amx.is_available() {
            let factor = f64::from(f32::from_bits(0x3a83 << 16));
            // SAFETY: the CPU has the unit.
            let sum = f64::from(unsafe { multiply(100) });
            assert!((sum / (100.0 * 32.0 * factor * factor) - 1.0).abs() < 1e-4, "{sum}");
        }
    }
}
