//! Random numbers without a state: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

/// Four words for each of `N` counters, all with one key: word w of counter i is `[w][i]`. The same on every machine, in
/// any order; loops over the counters become vectors.
#[inline(always)]
pub fn philox<const N: usize>(counters: [[u32; N]; 4], key: [u32; 2]) -> [[u32; N]; 4] {
    let [mut a, mut b, mut c, mut d] = counters;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        for i in 0..N {
            let (p, q) = (u64::from(a[i]) * 0xD251_1F53, u64::from(c[i]) * 0xCD9E_8D57);
            a[i] = (q >> 32) as u32 ^ b[i] ^ k0;
            c[i] = (p >> 32) as u32 ^ d[i] ^ k1;
            b[i] = q as u32;
            d[i] = p as u32;
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123, the authors' own library (`kat_vectors`).
    #[test]
    fn known_answers() {
        let known = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in known {
            assert_eq!(philox(counter.map(|word| [word; 3]), key), words.map(|word| [word; 3]));
        }
    }
}
