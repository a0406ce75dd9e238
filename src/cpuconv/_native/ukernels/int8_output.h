/* From 32-bit sums to the output: as they are, or scaled, rounded half to even, and saturated to 8 bits. */
/* Adding 1.5 2^23 to a float of at most 22 bits rounds it, half to even, to an integer in the low bits. The bounds are integers, so clipping
   may come before rounding. Of y less its zero point, the last byte counts. */
INLINE VEC rounded(const int8_range r, VEC sum, f32x scale) {
    const f32x low = r.low - (f32x){0}, high = r.high - (f32x){0}, magic = 12582912.f - (f32x){0};
    f32x v = __builtin_convertvector(sum, f32x) * scale;
    v = float_min(high, float_max(low, v));
    return (VEC)(v + magic);
}
/* VB bytes that are in lanes, byte k of lane l being number k VL + l, in order. */
INLINE VEC bytes_in_order(VEC v) {
    typedef uint8_t bytes_of __attribute__((vector_size(VB)));
    bytes_of from = (bytes_of)v, order, to;
    VEC lanes;
    UNROLL for (int i = 0; i < VB; i++) order[i] = (uint8_t)(i / 16 * 16 + i % 4 * 4 + i / 4 % 4); /* in each 128 bits, then these */
    UNROLL for (int i = 0; i < VL; i++) lanes[i] = i % (VL / 4) * 4 + i / (VL / 4);
#ifdef __clang__
    for (int i = 0; i < VB; i++) to[i] = from[order[i]];
#else
    to = __builtin_shuffle(from, order);
#endif
    return i32_choose((VEC)to, (VEC)to, lanes);
}

/* The lowest byte of each lane. (Of vectors of 16 or 32 bytes gcc makes the conversion one by one.) */
INLINE i8x lowest_bytes(VEC v) {
#if VB == 64
    return __builtin_convertvector(v, i8x);
#else
    const VEC ordered = bytes_in_order(v);
    i8x bytes;
    __builtin_memcpy(&bytes, &ordered, sizeof bytes);
    return bytes;
#endif
}
INLINE i8x requantized(const int8_range r, VEC sum, f32x scale) { return lowest_bytes(rounded(r, sum, scale) + r.zero); }

/* Adds the zero point to the bytes of rounded numbers. */
INLINE VEC to_bytes(const int8_range r, VEC bytes) {
    typedef uint8_t bytes_of __attribute__((vector_size(VB)));
    return (VEC)((bytes_of)bytes + (uint8_t)r.zero);
}

INLINE void store_bytes(uint8_t *to, i8x v, long n) {
    if (n == VL) __builtin_memcpy(to, &v, sizeof v);
    else
        for (long i = 0; i < n; i++) to[i] = (uint8_t)v[i];
}

/* n sums to bytes; scale: one for each of them. Sums and scales have room for a whole vector. */
INLINE void requantize_channels(const int8_range r, const int32_t *sums, const float *scale, long n, uint8_t *to) {
    for (long p = 0; p < n; p += VL) {
        const long i = n < VL ? 0 : MIN(p, n - VL); /* the last vector overlaps the one before */
        store_bytes(to + i, requantized(r, LOAD(sums + i), *(const f32xu *)(scale + i)), MIN(VL, n));
    }
}

/* n sums of one channel, with room for a whole vector, to bytes `step` apart. */
INLINE void requantize_pixels(const int8_range r, const int32_t *sums, float scale, long n, uint8_t *to, long step) {
    for (long p = 0; p < n; p += VL) {
        const long i = n < VL ? 0 : MIN(p, n - VL), some = MIN(VL, n);
        const i8x v = requantized(r, LOAD(sums + i), scale - (f32x){0});
        if (step == 1) store_bytes(to + i, v, some);
        else
            for (long j = 0; j < some; j++) to[(i + j) * step] = (uint8_t)v[j];
    }
}

/* A band of rows of one channel, as requantize_pixels; `row` bytes between rows. */
static void requantize_band(const int8_range r, const int32_t *sums, float scale, long rows, long columns, uint8_t *to, long row, long step) {
    if (step == 1 && row == columns) {
        columns *= rows;
        rows = 1;
    }
    for (long y = 0; y < rows; y++) requantize_pixels(r, sums + y * columns, scale, columns, to + y * row, step);
}
