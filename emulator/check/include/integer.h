// Integer functions (Metal Shading Language Specification, 6.3).
#pragma once

#define MSL_INTEGERS(DECLARE)                                                                        \
  MSL_WIDTHS(DECLARE, char) MSL_WIDTHS(DECLARE, uchar) MSL_WIDTHS(DECLARE, short)                    \
  MSL_WIDTHS(DECLARE, ushort) MSL_WIDTHS(DECLARE, int) MSL_WIDTHS(DECLARE, uint)                     \
  MSL_WIDTHS(DECLARE, long) MSL_WIDTHS(DECLARE, ulong)

namespace metal {
#define MSL_INTEGER(T)                                                                                          \
  T abs(T); T absdiff(T, T); T addsat(T, T); T subsat(T, T); T clamp(T, T, T); T clz(T); T ctz(T); T popcount(T); \
  T hadd(T, T); T rhadd(T, T); T max(T, T); T min(T, T); T max3(T, T, T); T min3(T, T, T); T median3(T, T, T);  \
  T mulhi(T, T); T madhi(T, T, T); T madsat(T, T, T); T rotate(T, T); T reverse_bits(T);                        \
  T extract_bits(T, uint, uint); T insert_bits(T, T, uint, uint);
MSL_INTEGERS(MSL_INTEGER)
int mul24(int, int); uint mul24(uint, uint); int mad24(int, int, int); uint mad24(uint, uint, uint);
#undef MSL_INTEGER
}  // namespace metal
