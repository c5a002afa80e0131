// y = x in another dtype, rounded to nearest even: the entry's suffix is y's dtype.
struct CastParams {
    u64 elements;
};

template <typename From, typename To, bool WIDE>
FUNCTION void cast(const GLOBAL From *x, GLOBAL To *y, PARAMS_OF(CastParams, p), Here here) {
    const VectorShare at = vector_share(p.elements, here);
    f32 share[8];
    load_share<From, WIDE>(x + at.first, here.index, here.threads, at.left, 0.0f, share);
    store_share<To, WIDE>(share, y + at.first, here.index, here.threads, at.left);
}

#define CAST_FROM(suffix, From, To, WIDE)                                                                            \
    KERNEL(cast_##From##_to_##suffix, 256, IN(From, x, 0), OUT(To, y, 1), PARAMS(CastParams, p, 2)) {                \
        cast<From, To, WIDE>(x, y, p, HERE);                                                                         \
    }
#define CAST(suffix, To, WIDE)       \
    CAST_FROM(suffix, f32, To, WIDE) \
    CAST_FROM(suffix, f16, To, WIDE) \
    CAST_FROM(suffix, bf16, To, WIDE)

FOR_EACH_DTYPE_AND_ACCESS(CAST)
