// Row slots[i] of the cache = row i of x; a slot beyond the cache is skipped.
struct CopyRowsParams {
    u64 x_row;    // elements between rows of x
    u32 rows;
    u32 width;
    u32 capacity; // rows of the cache
    u32 lanes;    // threads that share a block of a row
};

template <typename T, bool WIDE>
FUNCTION void copy_to_slots(
    const GLOBAL T *x, const GLOBAL u32 *slots, GLOBAL T *cache, PARAMS_OF(CopyRowsParams, p), Here here) {
    const Share at = share_of(p.rows, p.width, p.lanes, here);
    if (at.left == 0) {
        return;
    }
    const u32 slot = slots[at.row];
    if (slot < p.capacity) {
        copy_share<T, WIDE>(
            x + at.row * p.x_row + at.first, cache + u64(slot) * p.width + at.first, at.lane, p.lanes, at.left);
    }
}

#define COPY_ROWS(suffix, T, WIDE)                                                                                   \
    KERNEL(                                                                                                          \
        copy_to_slots_##suffix, 256, IN(T, x, 0), IN(u32, slots, 1), OUT(T, cache, 2), PARAMS(CopyRowsParams, p, 3)) { \
        copy_to_slots<T, WIDE>(x, slots, cache, p, HERE);                                                            \
    }

FOR_EACH_DTYPE_AND_ACCESS(COPY_ROWS)
