// What turns pairs of elements: the sine and the cosine of any angle.

struct SinCos {
    f32 sin;
    f32 cos;
};

// To 1e-7, whatever the angle. Quarters of a turn are taken off until the rest is within pi / 4 of zero, where Taylor's
// polynomials of degree 9 and 10 are off by less than 2e-9.
FUNCTION SinCos sin_cos(f32 angle) {
    const u32 bits = bits_of(angle), exponent = bits >> 23 & 0xffu;
    f32 r = f32_of_bits(bits & 0x7fffffffu);
    u32 quarter;
    if (r < 8192.0f) {
        // Less than 2^13 quarters. The first two parts of pi / 2 have 11 bits, so that their products and differences are
        // exact (Cody and Waite, 1980). Added to 1.5 2^23, a number is rounded to a whole one, which its lower bits are.
        const f32 sum = r * 0.63661977f + 12582912.0f, quarters = sum - 12582912.0f;
        quarter = bits_of(sum) & 3;
        r = ((r - quarters * 1.5703125f) - quarters * 4.83751297e-4f) - quarters * 7.54978995e-8f;
    } else if (exponent == 0xffu) {
        // Infinity minus itself.
        quarter = 0;
        r = r - r;
    } else {
        // The angle is M 2^e with a whole M: of 2 / pi 2^e those 64 bits that stand for quarters below four are multiplied
        // by M modulo four quarters (Payne and Hanek, 1983), here in integers. 2 / pi, rounded down, in units of 2^-192:
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
