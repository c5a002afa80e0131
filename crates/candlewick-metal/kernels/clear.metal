// Zeros in the rows of a matrix, and nothing between them: for C of an MPS product, which MPS may read.
struct ClearParams {
    ulong row;
    ulong batch;
    uint cols;
    uint rows;
};

template <typename T>
inline void clear(device T *c, constant ClearParams &p, uint3 at) {
    if (at.x < p.cols) {
        c[at.z * p.batch + at.y * p.row + at.x] = T(0);
    }
}

[[kernel]] void clear_4(
    device uint *c [[buffer(0)]], constant ClearParams &p [[buffer(1)]], uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]], uint threads [[threads_per_threadgroup]]) {
    clear<uint>(c, p, uint3(group.x * threads + thread_index, group.y, group.z));
}

[[kernel]] void clear_2(
    device ushort *c [[buffer(0)]], constant ClearParams &p [[buffer(1)]], uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]], uint threads [[threads_per_threadgroup]]) {
    clear<ushort>(c, p, uint3(group.x * threads + thread_index, group.y, group.z));
}
