// What turns pairs of elements: the sine and the cosine of any angle.

struct SinCos {
    f32 sin;
    f32 cos;
};

// An angle as quarters of a turn, modulo four, and a rest within pi / 4 of zero; without its sign.
struct Quarters {
    f32 rest;
    u32 count;
};

#define NEAR_ANGLE 8192.0f
// Of an angle below NEAR_ANGLE, less than 2^13 quarters. The first two parts of pi / 2 have 11 bits, so that their products
// and differences are exact (Cody and Waite, 1980). Added to 1.5 2^23, a number is rounded to a whole one, which its lower
// bits are.
FUNCTION Quarters near_quarters(f32 r) {
    const f32 sum = r * 0.63661977f + 12582912.0f, quarters = sum - 12582912.0f;
    Quarters of;
    of.count = bits_of(sum) & 3;
    of.rest = ((r - quarters * 1.5703125f) - quarters * 4.83751297e-4f) - quarters * 7.54978995e-8f;
    return of;
}

// Of any.
FUNCTION Quarters quarters_of(f32 r) {
    const u32 bits = bits_of(r), exponent = bits >> 23;
    if (r < NEAR_ANGLE) {
        return near_quarters(r);
    }
    Quarters of;
    if (exponent == 0xffu) {
        // Infinity minus itself.
        of.count = 0;
        of.rest = r - r;
        return of;
    }
    // The angle is M 2^e with a whole M: of 2 / pi 2^e those 64 bits that stand for quarters below four are multiplied by M
    // modulo four quarters (Payne and Hanek, 1983), here in integers. 2 / pi, rounded down, in units of 2^-192:
    const u64 high = 0xa2f9836e4e441529ul, middle = 0xfc2757d1f534ddc0ul, low = 0xdb6295993c439041ul;
    const u64 mantissa = (bits & 0x7fffffu) | 0x800000u;
    // e = exponent - 150, and the unit of the window is 2^-62 quarters.
    const u32 shift = 280 - exponent, by = shift % 64;
    const u64 above = shift < 64 ? middle : shift < 128 ? high : 0;
    const u64 below = shift < 64 ? low : shift < 128 ? middle : high;
    const u64 turns = mantissa * (by == 0 ? below : below >> by | above << (64 - by));
    of.count = u32((turns + (u64(1) << 61)) >> 62);
    of.rest = f32(i64(turns - (u64(of.count) << 62))) * 3.4061215800865545e-19f;
    return of;
}

// Taylor's polynomials of degree 9 and 10, off by less than 2e-9 there.
FUNCTION SinCos sin_cos_of(Quarters of, bool negative) {
    const f32 r = of.rest, s = r * r;
    const f32 sin = r + r * s * (-1.6666667e-1f + s * (8.3333333e-3f + s * (-1.9841270e-4f + s * 2.7557319e-6f)));
    const f32 cos = 1.0f
        + s * (-0.5f + s * (4.1666667e-2f + s * (-1.3888889e-3f + s * (2.4801587e-5f + s * -2.7557319e-7f))));
    SinCos turned;
    turned.sin = (of.count & 1) != 0 ? cos : sin;
    turned.cos = (of.count & 1) != 0 ? sin : cos;
    turned.sin = ((of.count & 2) != 0) != negative ? -turned.sin : turned.sin;
    turned.cos = ((of.count + 1) & 2) != 0 ? -turned.cos : turned.cos;
    return turned;
}

// To 1e-7, whatever the angle.
FUNCTION SinCos sin_cos(f32 angle) {
    const u32 bits = bits_of(angle);
    return sin_cos_of(quarters_of(f32_of_bits(bits & 0x7fffffffu)), (bits >> 31) != 0);
}
