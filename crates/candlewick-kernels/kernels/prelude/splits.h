// What groups that share the keys of a query leave of each head: its sum of rows of v weighed by exponentials, then the
// maximum of the scores and the sum of the exponentials.

struct Running {
    f32 max;
    f32 sum;
};
// In the place of the sum: the query sees no key at all. A sum that has a maximum is 1 at least.
#define NOTHING_SEEN -1.0f

// Numbers of a split: at a multiple of 16 bytes, where a head's length allows that.
FUNCTION u32 split_length(u32 head) {
    return head + 4;
}
FUNCTION GLOBAL f32 *partial_of(GLOBAL f32 *partial, u64 row, u32 split, u32 head, u32 splits) {
    return partial + (row * splits + split) * split_length(head);
}
FUNCTION const GLOBAL f32 *partial_of(const GLOBAL f32 *partial, u64 row, u32 split, u32 head, u32 splits) {
    return partial + (row * splits + split) * split_length(head);
}
