//! Quantised weights in panels of sixteen rows: a lane has a row, and four successive columns lie side by side in it.
//!
//! A panel is walked from its first byte to its last, in groups of 32 columns, and has as many bytes as its rows have in
//! the file: four-bit numbers stay four bits, scales stay as they are. Columns 4j..4j+4 of a group are word j of eight.
//!
//! | format | bytes of a group (of sixteen rows) |
//! |---|---|
//! | Q4_0 | 4 x 64 of nibbles (words j and j + 4), 16 scales in f16 |
//! | Q4_1 | the same, and 16 minima in f16 |
//! | Q8_0 | 8 x 64 signed, 16 scales in f16 |
//! | Q4_K | per block of 256: 16 d, 16 dmin in f16, 12 x 16 of scales and minima as in the file; then 8 x 256 of nibbles |
//! | Q6_K | 8 x (256 of nibbles, 2 x 64 of two bits of four words each, 2 x 16 scales); then per block of 256 16 d in f16 |

use crate::simd::Simd;
use candlewick_core::Quant;

/// Rows of a panel.
pub const PANEL: usize = 16;
/// Columns of a group.
pub const GROUP: usize = 32;
/// Words of a lane in a group.
pub(super) const WORDS: usize = GROUP / 4;
/// Bytes of a word of every row.
pub(super) const LINE: usize = 4 * PANEL;

/// The scales that a group of 32 columns has in each row.
pub const fn scales_of(format: Quant) -> usize {
    if matches!(format, Quant::Q6K) { 2 } else { 1 }
}

/// Where the numbers of panels are: in a format's own bytes, or unpacked. A number is scale · byte + offset.
pub(super) trait Groups {
    /// Bytes of a group, its share of a block's included, of what is read from memory; zero of what was unpacked just now.
    const BYTES: usize;
    /// Bits of a byte that may be set.
    const BITS: u32;
    /// Scales of a group in each row: each has its share of the words.
    const SCALES: usize;
    /// Whether the offset of a number is its scale times a whole number, the same for all: [`bias_of`].
    const BIASED: bool;

    /// The bytes of `LANES` rows, from row `part * LANES` on. `SIGNED`: bytes of eight bits are signed.
    ///
    /// # Safety
    /// The panel has the group and the part; the CPU has the instruction set.
    unsafe fn words<S: Simd, const SIGNED: bool>(panel: *const u8, group: usize, part: usize) -> [S::I; WORDS];

    /// Scale and offset `nth` of the same rows.
    ///
    /// # Safety
    /// As above.
    unsafe fn scale<S: Simd, const SIGNED: bool>(
        panel: *const u8,
        group: usize,
        nth: usize,
        part: usize,
    ) -> (S::V, S::V);
}

pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q8_0;
pub(super) struct Q4K;
pub(super) struct Q6K;
/// Bytes as the dot product takes them, scales and offsets in f32: what [`super::int8`] makes of a panel that many rows of x
/// meet.
pub(super) struct Unpacked<const BITS: u32, const SCALES: usize, const BIASED: bool>;

impl<const BITS: u32, const SCALES: usize, const BIASED: bool> Unpacked<BITS, SCALES, BIASED> {
    /// Bytes of a group.
    const STEP: usize = WORDS * LINE + 2 * SCALES * LINE;
}

/// Words j and j + 4 of four lines of nibbles.
///
/// # Safety
/// The lines are valid; the CPU has the instruction set.
#[inline(always)]
unsafe fn nibbles<S: Simd>(lines: *const u8, part: usize) -> [S::I; WORDS] {
    // SAFETY: the caller's contract.
    unsafe {
        let mut words = [S::load_words(lines.add(part * 4 * S::LANES)); WORDS];
        for j in 0..WORDS / 2 {
            let both = S::load_words(lines.add(j * LINE + part * 4 * S::LANES));
            words[j] = S::and_bits(both, 0x0f0f_0f0f);
            words[j + WORDS / 2] = S::and_bits(S::shift_right::<4>(both), 0x0f0f_0f0f);
        }
        words
    }
}

/// Sixteen f16 at `p`, those of a part.
///
/// # Safety
/// They are there; the CPU has the instruction set.
#[inline(always)]
unsafe fn halves<S: Simd>(p: *const u8, part: usize) -> S::V {
    // SAFETY: the caller's contract; loads need no alignment.
    unsafe { S::from_f16(S::load_half(p.add(2 * part * S::LANES).cast())) }
}

/// What is taken from every byte of W, for formats without minima. `signed`: bytes of eight bits are signed.
pub const fn bias_of(format: Quant, signed: bool) -> Option<i32> {
    match format {
        Quant::Q4_0 => Some(8),
        Quant::Q8_0 => Some(if signed { 0 } else { 128 }),
        Quant::Q6K => Some(32),
        Quant::Q4_1 | Quant::Q4K => None,
    }
}

impl Groups for Q4_0 {
    const BYTES: usize = 288;
    const BITS: u32 = 4;
    const SCALES: usize = 1;
    const BIASED: bool = true;

    #[inline(always)]
    unsafe fn words<S: Simd, const SIGNED: bool>(panel: *const u8, group: usize, part: usize) -> [S::I; WORDS] {
        // SAFETY: the caller's contract.
        unsafe { nibbles::<S>(panel.add(group * 288), part) }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd, const SIGNED: bool>(
        panel: *const u8,
        group: usize,
        _nth: usize,
        part: usize,
    ) -> (S::V, S::V) {
        // SAFETY: the caller's contract.
        unsafe {
            let d = halves::<S>(panel.add(group * 288 + 256), part);
            (d, S::mul(d, S::splat(-8.0)))
        }
    }
}

impl Groups for Q4_1 {
    const BYTES: usize = 320;
    const BITS: u32 = 4;
    const SCALES: usize = 1;
    const BIASED: bool = false;

    #[inline(always)]
    unsafe fn words<S: Simd, const SIGNED: bool>(panel: *const u8, group: usize, part: usize) -> [S::I; WORDS] {
        // SAFETY: the caller's contract.
        unsafe { nibbles::<S>(panel.add(group * 320), part) }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd, const SIGNED: bool>(
        panel: *const u8,
        group: usize,
        _nth: usize,
        part: usize,
    ) -> (S::V, S::V) {
        // SAFETY: the caller's contract.
        unsafe {
            let p = panel.add(group * 320 + 256);
            (halves::<S>(p, part), halves::<S>(p.add(32), part))
        }
    }
}

impl Groups for Q8_0 {
    const BYTES: usize = 544;
    const BITS: u32 = 8;
    const SCALES: usize = 1;
    const BIASED: bool = true;

    #[inline(always)]
    unsafe fn words<S: Simd, const SIGNED: bool>(panel: *const u8, group: usize, part: usize) -> [S::I; WORDS] {
        // SAFETY: the caller's contract.
        unsafe {
            let lines = panel.add(group * 544 + part * 4 * S::LANES);
            let mut words = [S::load_words(lines); WORDS];
            for (j, word) in words.iter_mut().enumerate() {
                let bytes = S::load_words(lines.add(j * LINE));
                *word = if SIGNED { bytes } else { S::xor_bits(bytes, 0x8080_8080_u32 as i32) };
            }
            words
        }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd, const SIGNED: bool>(
        panel: *const u8,
        group: usize,
        _nth: usize,
        part: usize,
    ) -> (S::V, S::V) {
        // SAFETY: the caller's contract.
        unsafe {
            let d = halves::<S>(panel.add(group * 544 + 512), part);
            (d, S::mul(d, S::splat(if SIGNED { 0.0 } else { -128.0 })))
        }
    }
}

impl Groups for Q4K {
    const BYTES: usize = 288;
    const BITS: u32 = 4;
    const SCALES: usize = 1;
    const BIASED: bool = false;

    #[inline(always)]
    unsafe fn words<S: Simd, const SIGNED: bool>(panel: *const u8, group: usize, part: usize) -> [S::I; WORDS] {
        // SAFETY: the caller's contract.
        unsafe { nibbles::<S>(panel.add(group / 8 * 2304 + 256 + group % 8 * 256), part) }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd, const SIGNED: bool>(
        panel: *const u8,
        group: usize,
        _nth: usize,
        part: usize,
    ) -> (S::V, S::V) {
        // SAFETY: the caller's contract.
        unsafe {
            let block = panel.add(group / 8 * 2304);
            // Bytes 0..4 of the twelve have the scales of four groups and high bits of the others', bytes 4..8 the minima
            // alike, bytes 8..12 the low bits of the other groups' scales and minima.
            let byte = |nth: usize| S::load_bytes(block.add(64 + nth * PANEL + part * S::LANES));
            let nth = group % 4;
            let (scale, min) = if group % 8 < 4 {
                (S::and_bits(byte(nth), 63), S::and_bits(byte(4 + nth), 63))
            } else {
                let low = byte(8 + nth);
                let above = |v| S::and_bits(S::shift_right::<2>(v), 48);
                let scale = S::or_bits(S::and_bits(low, 15), above(byte(nth)));
                (scale, S::or_bits(S::shift_right::<4>(low), above(byte(4 + nth))))
            };
            let (d, least) = (halves::<S>(block, part), halves::<S>(block.add(32), part));
            let min = S::mul(least, S::from_integers(min));
            (S::mul(d, S::from_integers(scale)), S::sub(S::splat(0.0), min))
        }
    }
}

impl Groups for Q6K {
    const BYTES: usize = 420;
    const BITS: u32 = 6;
    const SCALES: usize = 2;
    const BIASED: bool = true;

    #[inline(always)]
    unsafe fn words<S: Simd, const SIGNED: bool>(panel: *const u8, group: usize, part: usize) -> [S::I; WORDS] {
        // SAFETY: the caller's contract.
        unsafe {
            let lines = panel.add(group / 8 * 3360 + group % 8 * 416);
            let mut words = nibbles::<S>(lines, part);
            for half in 0..2 {
                let pairs = S::load_words(lines.add((4 + half) * LINE + part * 4 * S::LANES));
                let high = [
                    S::shift_left::<4>(S::and_bits(pairs, 0x0303_0303)),
                    S::shift_left::<2>(S::and_bits(pairs, 0x0c0c_0c0c)),
                    S::and_bits(pairs, 0x3030_3030),
                    S::and_bits(S::shift_right::<2>(pairs), 0x3030_3030),
                ];
                for (j, high) in high.into_iter().enumerate() {
                    words[4 * half + j] = S::or_bits(words[4 * half + j], high);
                }
            }
            words
        }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd, const SIGNED: bool>(
        panel: *const u8,
        group: usize,
        nth: usize,
        part: usize,
    ) -> (S::V, S::V) {
        // SAFETY: the caller's contract.
        unsafe {
            let block = panel.add(group / 8 * 3360);
            let scales = block.add(group % 8 * 416 + 384 + nth * PANEL + part * S::LANES);
            let scale = S::mul(halves::<S>(block.add(3328), part), S::from_integers(S::load_signed_bytes(scales)));
            (scale, S::mul(scale, S::splat(-32.0)))
        }
    }
}

impl<const BITS: u32, const SCALES: usize, const BIASED: bool> Groups for Unpacked<BITS, SCALES, BIASED> {
    const BYTES: usize = 0;
    const BITS: u32 = BITS;
    const SCALES: usize = SCALES;
    const BIASED: bool = BIASED;

    #[inline(always)]
    unsafe fn words<S: Simd, const SIGNED: bool>(panel: *const u8, group: usize, part: usize) -> [S::I; WORDS] {
        // SAFETY: the caller's contract.
        unsafe {
            let lines = panel.add(group * Self::STEP + part * 4 * S::LANES);
            let mut words = [S::load_words(lines); WORDS];
            for (j, word) in words.iter_mut().enumerate().skip(1) {
                *word = S::load_words(lines.add(j * LINE));
            }
            words
        }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd, const SIGNED: bool>(
        panel: *const u8,
        group: usize,
        nth: usize,
        part: usize,
    ) -> (S::V, S::V) {
        // SAFETY: the caller's contract.
        unsafe {
            let p = panel.add(group * Self::STEP + (WORDS + 2 * nth) * LINE + part * 4 * S::LANES).cast::<f32>();
            (S::load(p), S::load(p.add(PANEL)))
        }
    }
}

/// Unpacks a panel for a kind of dot product.
///
/// # Safety
/// The panel has `groups` groups, and `to` has room for as many unpacked ones; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd, F: Groups, const SIGNED: bool>(panel: *const u8, groups: usize, to: *mut u8) {
    let bytes = (WORDS + 2 * F::SCALES) * LINE;
    // SAFETY: the caller's contract.
    unsafe {
        for group in 0..groups {
            for part in 0..PANEL / S::LANES {
                let to = to.add(group * bytes + part * 4 * S::LANES);
                for (j, word) in F::words::<S, SIGNED>(panel, group, part).into_iter().enumerate() {
                    S::store_words(to.add(j * LINE), word);
                }
                for nth in 0..F::SCALES {
                    let (scale, offset) = F::scale::<S, SIGNED>(panel, group, nth, part);
                    let to = to.add((WORDS + 2 * nth) * LINE).cast::<f32>();
                    S::store(to, scale);
                    S::store(to.add(PANEL), offset);
                }
            }
        }
    }
}

/// Brings up to sixteen rows of blocks into a panel; rows that are missing are zeros.
///
/// # Panics
/// Where the slices are shorter than `rows` rows of blocks and a whole panel.
pub fn pack_panel(format: Quant, rows: usize, cols: usize, blocks: &[u8], panel: &mut [u8]) {
    let (row_bytes, bytes) = (format.row_bytes(cols), format.bytes());
    let panel = &mut panel[..PANEL * row_bytes];
    panel.fill(0);
    for row in 0..rows {
        let blocks = blocks[row * row_bytes..][..row_bytes].chunks_exact(bytes);
        for (block, panel) in blocks.zip(panel.chunks_exact_mut(PANEL * bytes)) {
            match format {
                Quant::Q4_0 => {
                    put_nibbles(row, nibble_of(&block[2..]), panel);
                    put(&block[..2], row, &mut panel[256..]);
                }
                Quant::Q4_1 => {
                    put_nibbles(row, nibble_of(&block[4..]), panel);
                    put(&block[..2], row, &mut panel[256..]);
                    put(&block[2..4], row, &mut panel[288..]);
                }
                Quant::Q8_0 => {
                    for (word, bytes) in block[2..].chunks_exact(4).enumerate() {
                        put(bytes, row, &mut panel[word * LINE..]);
                    }
                    put(&block[..2], row, &mut panel[512..]);
                }
                Quant::Q4K => {
                    put(&block[..2], row, panel);
                    put(&block[2..4], row, &mut panel[32..]);
                    for (nth, byte) in block[4..16].chunks_exact(1).enumerate() {
                        put(byte, row, &mut panel[64 + nth * PANEL..]);
                    }
                    for group in 0..8 {
                        let bytes = &block[16 + group / 2 * 32..];
                        let nibble = |col: usize| bytes[col] >> (4 * (group % 2)) & 15;
                        put_nibbles(row, nibble, &mut panel[256 + group * 256..]);
                    }
                }
                Quant::Q6K => {
                    for group in 0..8 {
                        let (part, quarter) = (group / 4, group % 4);
                        let nibble = |col: usize| block[part * 64 + quarter % 2 * 32 + col] >> (4 * (quarter / 2)) & 15;
                        let to = &mut panel[group * 416..];
                        put_nibbles(row, nibble, to);
                        for col in 0..GROUP {
                            let pair = block[128 + part * 32 + col] >> (2 * quarter) & 3;
                            let line = 256 + col / 16 * LINE;
                            to[line + row * 4 + col % 4] |= pair << (2 * (col / 4 % 4));
                        }
                        for nth in 0..2 {
                            to[384 + nth * PANEL + row] = block[192 + part * 8 + quarter * 2 + nth];
                        }
                    }
                    put(&block[208..210], row, &mut panel[3328..]);
                }
            }
        }
    }
}

/// The numbers of a block of 32: the first half in the low nibbles, the second in the high ones.
fn nibble_of(bytes: &[u8]) -> impl Fn(usize) -> u8 {
    move |col| bytes[col % 16] >> (col / 16 * 4) & 15
}

/// Writes a row's nibbles of a group into its lines.
fn put_nibbles(row: usize, nibble: impl Fn(usize) -> u8, lines: &mut [u8]) {
    for col in 0..16 {
        lines[col / 4 * LINE + row * 4 + col % 4] = nibble(col) | nibble(col + 16) << 4;
    }
}

/// Writes a row's bytes beside those of the other rows.
fn put(bytes: &[u8], row: usize, to: &mut [u8]) {
    to[row * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
}
