// The conversions to bfloat that clang calls: not all versions of libgcc have them.
#include <stdint.h>
#include "state.h"

extern "C" HIDDEN __bf16 __truncsfbf2(float value) {
    uint32_t bits = __builtin_bit_cast(uint32_t, value);
    if (value != value) return __builtin_bit_cast(__bf16, uint16_t(bits >> 16 | 0x40));  // a quiet NaN
    bits += 0x7FFF + (bits >> 16 & 1);                                                  // ties to even
    return __builtin_bit_cast(__bf16, uint16_t(bits >> 16));
}

extern "C" HIDDEN __bf16 __truncdfbf2(double value) {
    float rounded = float(value);
    uint32_t bits = __builtin_bit_cast(uint32_t, rounded);
    // Rounded to odd in between, so that rounding twice is the same as rounding once.
    if (double(rounded) != value && value == value) {
        if (__builtin_fabs(double(rounded)) > __builtin_fabs(value)) bits--;
        bits |= 1;
    }
    return __truncsfbf2(__builtin_bit_cast(float, bits));
}
