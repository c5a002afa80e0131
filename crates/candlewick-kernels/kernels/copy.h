// Rows that lie apart, side by side: how a frozen operand is packed.
struct CopyParams {
    u64 from_row;
    u32 rows;
    u32 cols;
};

// A group copies 1024 elements of a row.
template <typename T>
FUNCTION void copy_rows(const GLOBAL T *from, GLOBAL T *to, PARAMS_OF(CopyParams, p), Here here) {
    const u32 blocks = (p.cols + 1023) / 1024;
    const u32 row = here.group / blocks, first = here.group % blocks * 1024;
    const u32 end = p.cols - first < 1024 ? p.cols : first + 1024;
    for (u32 col = first + here.index; col < end; col += here.threads) {
        to[u64(row) * p.cols + col] = from[row * p.from_row + col];
    }
}

#define COPY(suffix, T)                                                                               \
    KERNEL(copy_rows_##suffix, 256, IN(T, from, 0), OUT(T, to, 1), PARAMS(CopyParams, p, 2)) {        \
        copy_rows<T>(from, to, p, HERE);                                                              \
    }

FOR_EACH_DTYPE(COPY)
// Blocks of quantised weights, which may begin at any byte.
COPY(u8, u8)
