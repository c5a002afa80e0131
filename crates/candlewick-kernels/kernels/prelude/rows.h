// Rows that stay in the registers of the threads that share them: each has some shares of a row, one every `lanes` shares.

// Up to 32 lanes of a team share a row. Lanes of rows behind the last only take part in the reductions.
struct LanesRow {
    u32 row;
    u32 lane;
    u32 lanes;

    FUNCTION f32 sum(f32 x) const {
        return lanes_sum(x, lanes);
    }
    FUNCTION f32 max(f32 x) const {
        return lanes_max(x, lanes);
    }
    FUNCTION void sum_both(LOCAL f32 &a, LOCAL f32 &b) const {
        a = lanes_sum(a, lanes);
        b = lanes_sum(b, lanes);
    }
};
FUNCTION LanesRow lanes_row(u32 lanes, Here here) {
    LanesRow at;
    at.row = here.group * (here.threads / lanes) + here.index / lanes;
    at.lane = here.index % lanes;
    at.lanes = lanes;
    return at;
}

// A group shares a row. `parts` is group memory for two numbers per team: each reduction has its own, so that none waits
// for the one before it to be read. There are at most two.
struct GroupRow {
    u32 row;
    u32 lane;
    u32 lanes;
    GROUP_POINTER(f32) parts;
    Here here;

    FUNCTION f32 sum(f32 x) {
        give(lanes_sum(x, 32), 0);
        group_barrier();
        x = lanes_sum(taken(0, 0.0f), 32);
        parts += 32;
        return x;
    }
    FUNCTION f32 max(f32 x) {
        give(lanes_max(x, 32), 0);
        group_barrier();
        x = lanes_max(taken(0, -infinity()), 32);
        parts += 32;
        return x;
    }
    FUNCTION void sum_both(LOCAL f32 &a, LOCAL f32 &b) {
        give(lanes_sum(a, 32), 0);
        give(lanes_sum(b, 32), 32);
        group_barrier();
        a = lanes_sum(taken(0, 0.0f), 32);
        b = lanes_sum(taken(32, 0.0f), 32);
    }
    FUNCTION void give(f32 x, u32 first) {
        if (here.lane == 0) {
            parts[first + here.team] = x;
        }
    }
    FUNCTION f32 taken(u32 first, f32 fill) const {
        return here.lane < lanes / 32 ? parts[first + here.lane] : fill;
    }
};
FUNCTION GroupRow group_row(GROUP_POINTER(f32) parts, Here here) {
    GroupRow at;
    at.row = here.group;
    at.lane = here.index;
    at.lanes = here.threads;
    at.parts = parts;
    at.here = here;
    return at;
}

// Of `count` elements, those from `first` on.
FUNCTION u32 from_on(u32 count, u32 first) {
    return count > first ? count - first : 0;
}

// A share as it lies in memory, two elements of 16 bits in a word: they take half the registers that they take in f32.
template <typename T>
struct Kept {
    u32 words[4];
};
template <>
struct Kept<f32> {
    f32 elements[8];
};
// `fill` is behind the last element.
template <bool WIDE>
FUNCTION void keep_share(const GLOBAL f32 *row, u32 lane, u32 lanes, u32 count, f32 fill, LOCAL Kept<f32> &kept) {
    load_share<f32, WIDE>(row, lane, lanes, count, fill, kept.elements);
}
template <bool WIDE, typename T>
FUNCTION void keep_share(const GLOBAL T *row, u32 lane, u32 lanes, u32 count, f32 fill, LOCAL Kept<T> &kept) {
    if (WIDE) {
        const f32 fills[2] = { fill, fill };
        uint4 words;
        words.x = words.y = words.z = words.w = pack_2<T>(fills);
        if (lane * 8 < count) {
            words = *(const GLOBAL uint4 *)(row + lane * 8);
        }
        kept.words[0] = words.x, kept.words[1] = words.y, kept.words[2] = words.z, kept.words[3] = words.w;
    } else {
        f32 share[8];
        load_share<T, WIDE>(row, lane, lanes, count, fill, share);
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            kept.words[i] = pack_2<T>(share + 2 * i);
        }
    }
}
// Elements 2 i and 2 i + 1.
FUNCTION void pair_of_kept(const LOCAL Kept<f32> &kept, u32 i, LOCAL f32 *pair) {
    pair[0] = kept.elements[2 * i], pair[1] = kept.elements[2 * i + 1];
}
template <typename T>
FUNCTION void pair_of_kept(const LOCAL Kept<T> &kept, u32 i, LOCAL f32 *pair) {
    unpack_2<T>(kept.words[i], pair);
}
FUNCTION void keep_pair(const LOCAL f32 *pair, u32 i, LOCAL Kept<f32> &kept) {
    kept.elements[2 * i] = pair[0], kept.elements[2 * i + 1] = pair[1];
}
template <typename T>
FUNCTION void keep_pair(const LOCAL f32 *pair, u32 i, LOCAL Kept<T> &kept) {
    kept.words[i] = pack_2<T>(pair);
}
template <typename T>
FUNCTION void share_of_kept(const LOCAL Kept<T> &kept, LOCAL f32 *share) {
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        pair_of_kept(kept, i, share + 2 * i);
    }
}
template <bool WIDE>
FUNCTION void store_kept(const LOCAL Kept<f32> &kept, GLOBAL f32 *row, u32 lane, u32 lanes, u32 count) {
    store_share<f32, WIDE>(kept.elements, row, lane, lanes, count);
}
template <bool WIDE, typename T>
FUNCTION void store_kept(const LOCAL Kept<T> &kept, GLOBAL T *row, u32 lane, u32 lanes, u32 count) {
    if (WIDE) {
        if (lane * 8 < count) {
            uint4 words;
            words.x = kept.words[0], words.y = kept.words[1], words.z = kept.words[2], words.w = kept.words[3];
            *(GLOBAL uint4 *)(row + lane * 8) = words;
        }
    } else {
        f32 share[8];
        share_of_kept(kept, share);
        store_share<T, WIDE>(share, row, lane, lanes, count);
    }
}
