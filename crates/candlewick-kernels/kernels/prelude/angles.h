// What turns pairs of elements: the sine and the cosine of any angle.

struct SinCos {
    f32 sin;
    f32 cos;
};

// To 1e-7, whatever the angle. An angle a beyond pi / 4 is M 2^e with a whole M: of 2 / pi 2^e those 64 bits that stand
// for quarters of a turn below four are multiplied by M modulo four quarters (Payne and Hanek, 1983), here in integers.
// The rest is within pi / 4 of zero, where Taylor's polynomials of degree 9 and 10 are off by less than 2e-9.
FUNCTION SinCos sin_cos(f32 angle) {
    const u32 bits = bits_of(angle), exponent = bits >> 23 & 0xffu;
    f32 r = f32_of_bits(bits & 0x7fffffffu);
    u32 quarter = 0;
    if (exponent == 0xffu) {
        // Infinity minus itself.
        r = r - r;
    } else if (exponent >= 126) {
        // 2 / pi, rounded down, in units of 2^-192.
        const u64 high = 0xa2f9836e4e441529ul, middle = 0xfc2757d1f534ddc0ul, low = 0xdb6295993c439041ul;
        const u64 mantissa = (bits & 0x7fffffu) | 0x800000u;
        // e = exponent - 150, and the unit of the window is 2^-62 quarters.
        const u32 shift = 280 - exponent, by = shift % 64;
        const u64 above = shift < 64 ? middle : shift < 128 ? high : 0;
        const u64 below = shift < 64 ? low : shift < 128 ? middle : high;
        const u64 turns = mantissa * (by == 0 ? below : below >> by | above << (64 - by));
        quarter = u32((turns + (u64(1) << 61)) >> 62);
        r = f32(i64(turns - (u64(quarter) << 62))) * 3.4061215800865545e-19f;
    }
    const f32 s = r * r;
    const f32 sin = r + r * s * (-1.6666667e-1f + s * (8.3333333e-3f + s * (-1.9841270e-4f + s * 2.7557319e-6f)));
    const f32 cos = 1.0f
        + s * (-0.5f + s * (4.1666667e-2f + s * (-1.3888889e-3f + s * (2.4801587e-5f + s * -2.7557319e-7f))));
    SinCos turned;
    turned.sin = (quarter & 1) != 0 ? cos : sin;
    turned.cos = (quarter & 1) != 0 ? sin : cos;
    turned.sin = ((quarter & 2) != 0) != ((bits >> 31) != 0) ? -turned.sin : turned.sin;
    turned.cos = ((quarter + 1) & 2) != 0 ? -turned.cos : turned.cos;
    return turned;
}
