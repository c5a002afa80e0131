//! Orders that can be drawn again: each choice is a function of the seed and of what is chosen.

/// A well-mixed number for choice `index` under `seed`: splitmix64 (Steele, Lea and Flood, 2014).
pub fn draw(seed: u64, index: u64) -> u64 {
    let mut z = (seed ^ index.rotate_left(32)).wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
