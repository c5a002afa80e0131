// What the operations on elements share: which eight elements are a thread's, and copies of them.

// A thread's share of a row. `lanes` (a power of two) threads side by side have a block of 8 lanes elements.
struct Share {
    u32 row;
    u32 first; // the block's first column
    u32 lane;  // in the block
    u32 left;  // columns of the row from `first` on; none where there is no such row
};
FUNCTION Share share_of(u32 rows, u32 cols, u32 lanes, Here here) {
    const u32 blocks = (cols + lanes * 8 - 1) / (lanes * 8);
    const u32 block = here.group * (here.threads / lanes) + here.index / lanes;
    Share share;
    share.row = block / blocks;
    share.first = block % blocks * lanes * 8;
    share.lane = here.index % lanes;
    share.left = share.row < rows ? cols - share.first : 0;
    return share;
}

// A thread's share of a vector: groups have 8 elements per thread, one group's behind the other's.
struct VectorShare {
    u64 first; // the group's first element
    u32 left;  // elements from `first` on, as far as the group goes
};
FUNCTION VectorShare vector_share(u64 elements, Here here) {
    const u32 most = here.threads * 8;
    VectorShare share;
    share.first = u64(here.group) * most;
    share.left = elements - share.first < most ? u32(elements - share.first) : most;
    return share;
}

// Bit by bit.
FUNCTION void copy_8(const GLOBAL f32 *from, GLOBAL f32 *to) {
    const uint4 a = ((const GLOBAL uint4 *)from)[0], b = ((const GLOBAL uint4 *)from)[1];
    ((GLOBAL uint4 *)to)[0] = a;
    ((GLOBAL uint4 *)to)[1] = b;
}
template <typename T>
FUNCTION void copy_8(const GLOBAL T *from, GLOBAL T *to) {
    *(GLOBAL uint4 *)to = *(const GLOBAL uint4 *)from;
}
template <typename T, bool WIDE>
FUNCTION void copy_share(const GLOBAL T *from, GLOBAL T *to, u32 lane, u32 lanes, u32 count) {
    if (WIDE) {
        if (lane * 8 < count) {
            copy_8(from + lane * 8, to + lane * 8);
        }
    } else {
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            const u32 at = place_of<WIDE>(i, lane, lanes);
            if (at < count) {
                to[at] = from[at];
            }
        }
    }
}
