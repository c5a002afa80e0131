// Rotary position embedding of a head as matrix instructions leave it: lane 4 g + t has columns 2 t and 2 t + 1 of each
// tile of 8, of rows g and g + 8. A pair is an element and the one half a head further on: one thread has both.

// Angles from zero to here are within 2^-21 of what they should be, which is enough for results of 16 bits. Turns are taken
// off in two parts, the first of 8 bits, so that its products are exact; then the special functions' unit is as good.
#define NEAR_ANGLE 8192.0f
FUNCTION SinCos near_sin_cos(float angle) {
    const float turns = __fmaf_rn(angle, 0.15915494f, 12582912.0f) - 12582912.0f;
    const float rest = __fmaf_rn(turns, -1.9353072e-3f, __fmaf_rn(turns, -6.28125f, angle));
    return { __sinf(rest), __cosf(rest) };
}
// Any other: many more instructions, which stand once, as hardly any model turns that far.
static __device__ __noinline__ SinCos far_sin_cos(float angle) {
    return sin_cos(angle);
}

struct Rotation {
    const u32 *positions; // of the rows; none: nothing is turned
    const float *frequencies;
    float direction; // 1, or -1 for gradients

    template <bool NEAR> FUNCTION void turn_pair(float &first, float &second, float angle) const {
        const SinCos by = NEAR ? near_sin_cos(angle) : far_sin_cos(angle);
        const float sin = by.sin * direction, x = first;
        first = x * by.cos - second * sin;
        second = x * sin + second * by.cos;
    }
    template <bool NEAR, int TILES>
    FUNCTION void turn_by(float4 (&head)[TILES], const float2 (&by)[TILES / 2], float above, float below) const {
        UNROLL
        for (int i = 0; i < TILES / 2; i++) {
            float4 &first = head[i], &second = head[i + TILES / 2];
            turn_pair<NEAR>(first.x, second.x, above * by[i].x), turn_pair<NEAR>(first.y, second.y, above * by[i].y);
            turn_pair<NEAR>(first.z, second.z, below * by[i].x), turn_pair<NEAR>(first.w, second.w, below * by[i].y);
        }
    }

    // Turns rows `row` and `row + 8`, as far as they come before `end`.
    template <int TILES> FUNCTION void turn(float4 (&head)[TILES], u32 row, u32 end) const {
        const float above = row < end ? float(positions[row]) : 0.0f;
        const float below = row + 8 < end ? float(positions[row + 8]) : 0.0f;
        float2 by[TILES / 2];
        float least = 0.0f, most = 0.0f;
        UNROLL
        for (int i = 0; i < TILES / 2; i++) {
            by[i] = *(const float2 *)(frequencies + i * 8 + threadIdx.x % 4 * 2);
            least = fminf(least, fminf(by[i].x, by[i].y)), most = fmaxf(most, fmaxf(by[i].x, by[i].y));
        }
        // What is no number is not smaller.
        if (__all_sync(0xffffffffu, fmaxf(above, below) * most < NEAR_ANGLE && least >= 0.0f)) {
            turn_by<true>(head, by, above, below);
        } else {
            turn_by<false>(head, by, above, below);
        }
    }
};
