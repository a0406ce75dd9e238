/* Between channel-first planes and channel-last pixels: VL x VL register transposes in log2(VL) rounds of shuffles. */
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (FN(mask)){__VA_ARGS__})
#endif
/* Round s exchanges the s x s blocks off the diagonal: the low row takes b's lanes where bit s of the lane is set. */
#define LOW(s, l) (((l) & (s)) ? VB / (int)sizeof(T) + (l) - (s) : (l))
#define HIGH(s, l) (((l) & (s)) ? VB / (int)sizeof(T) + (l) : (l) + (s))
#define LANES2(f, s, l) f(s, l), f(s, l + 1)
#define LANES4(f, s, l) LANES2(f, s, l), LANES2(f, s, l + 2)
#define LANES8(f, s, l) LANES4(f, s, l), LANES4(f, s, l + 4)
#define LANES16(f, s, l) LANES8(f, s, l), LANES8(f, s, l + 8)
#define ROUND(s, LANES)                                                             \
    UNROLL for (int i = 0; i < VB / (int)sizeof(T); i++) if (!(i & (s))) {          \
        const VEC low = r[i], high = r[i + (s)];                                    \
        r[i] = SHUFFLE(low, high, LANES(LOW, s, 0));                                \
        r[i + (s)] = SHUFFLE(low, high, LANES(HIGH, s, 0));                         \
    }
#if VL_IS(2)
#define ROUNDS ROUND(1, LANES2)
#elif VL_IS(4)
#define ROUNDS ROUND(1, LANES4) ROUND(2, LANES4)
#elif VL_IS(8)
#define ROUNDS ROUND(1, LANES8) ROUND(2, LANES8) ROUND(4, LANES8)
#else
#define ROUNDS ROUND(1, LANES16) ROUND(2, LANES16) ROUND(4, LANES16) ROUND(8, LANES16)
#endif
/* Lane j of vector i and lane i of vector j change places. */
INLINE void FN(transpose)(VEC *r) { ROUNDS }

#if VL_IS(2)
#define LANES(f) LANES2(f, 0, 0)
#elif VL_IS(4)
#define LANES(f) LANES4(f, 0, 0)
#elif VL_IS(8)
#define LANES(f) LANES8(f, 0, 0)
#else
#define LANES(f) LANES16(f, 0, 0)
#endif
/* In each 16 bytes elements 0, 2, ... of those of a, then of b; and elements 1, 3, ... */
#define BLOCK (16 / (int)sizeof(T))
#define FIRST(s, l) ((l) / BLOCK * BLOCK + (l) % (BLOCK / 2) * 2 + ((l) % BLOCK < BLOCK / 2 ? 0 : VB / (int)sizeof(T)))
#define SECOND(s, l) (FIRST(s, l) + 1)
INLINE VEC FN(pair_firsts)(VEC a, VEC b) { return SHUFFLE(a, b, LANES(FIRST)); }
INLINE VEC FN(pair_seconds)(VEC a, VEC b) { return SHUFFLE(a, b, LANES(SECOND)); }

/* Elements 0, 2, 4, ... of a and b side by side, and elements 1, 3, 5, ...: in an order that in_order makes good, which is its own inverse, for shuffles
   of AVX2 stay within 16 bytes. */
#define PAIRS_IN_ORDER (VB != 32)
#if !PAIRS_IN_ORDER
#define ORDER(s, l) ((l) / (BLOCK / 2) == 1 ? (l) + BLOCK / 2 : (l) / (BLOCK / 2) == 2 ? (l) - BLOCK / 2 : (l))
INLINE VEC FN(evens)(VEC a, VEC b) { return FN(pair_firsts)(a, b); }
INLINE VEC FN(odds)(VEC a, VEC b) { return FN(pair_seconds)(a, b); }
INLINE VEC FN(in_order)(VEC a) { return SHUFFLE(a, a, LANES(ORDER)); }
#undef ORDER
#else
#define EVEN(s, l) (2 * (l))
#define ODD(s, l) (2 * (l) + 1)
INLINE VEC FN(evens)(VEC a, VEC b) { return SHUFFLE(a, b, LANES(EVEN)); }
INLINE VEC FN(odds)(VEC a, VEC b) { return SHUFFLE(a, b, LANES(ODD)); }
INLINE VEC FN(in_order)(VEC a) { return a; }
#undef EVEN
#undef ODD
#endif
/* Each element where the one before it was; the last one is any. */
#define LATER(s, l) ((l) + 1)
INLINE VEC FN(later)(VEC a) { return SHUFFLE(a, a, LANES(LATER)); }
#undef LATER

/* Sums of neighbours: in each 16 bytes those of a, then those of b; and of neighbouring 16 bytes, those of a, then those of b. */
#define EVEN_BLOCK(s, l) ((l) / BLOCK * 2 * BLOCK + (l) % BLOCK)
#define ODD_BLOCK(s, l) (EVEN_BLOCK(s, l) + BLOCK)
INLINE VEC FN(pair_sums)(VEC a, VEC b) { return FN(pair_firsts)(a, b) + FN(pair_seconds)(a, b); }
INLINE VEC FN(block_sums)(VEC a, VEC b) { return SHUFFLE(a, b, LANES(EVEN_BLOCK)) + SHUFFLE(a, b, LANES(ODD_BLOCK)); }
#undef BLOCK
#undef FIRST
#undef SECOND
#undef EVEN_BLOCK
#undef ODD_BLOCK
#undef LANES

/* Elements of a by number. */
INLINE VEC FN(permute)(VEC a, FN(mask) lanes) {
#ifdef __clang__
    VEC v;
    for (int l = 0; l < VB / (int)sizeof(T); l++) v[l] = a[lanes[l]];
    return v;
#else
    return __builtin_shuffle(a, lanes);
#endif
}

/* Elements of a and b side by side, by number. */
INLINE VEC FN(choose)(VEC a, VEC b, FN(mask) lanes) {
#ifdef __clang__
    VEC v;
    for (int l = 0; l < VB / (int)sizeof(T); l++) v[l] = lanes[l] < VL ? a[lanes[l]] : b[lanes[l] - VL];
    return v;
#else
    return __builtin_shuffle(a, b, lanes);
#endif
}

INLINE VEC FN(every_second)(const T *from) { return FN(in_order)(FN(evens)(LOAD(from), LOAD(from + VL))); }

/* VL elements, a step apart, of which `step` VL may be read. */
INLINE VEC FN(load_every)(const T *from, const int step) {
    if (step == 1) return LOAD(from);
    if (step == 2) return FN(every_second)(from);
    if (step == 3) {
        FN(mask) first, last;
        UNROLL for (int l = 0; l < VB / (int)sizeof(T); l++) {
            first[l] = 3 * l < 2 * VL ? 3 * l : 0;
            last[l] = 3 * l < 2 * VL ? l : 3 * l - VL;
        }
        return FN(choose)(FN(choose)(LOAD(from), LOAD(from + VL), first), LOAD(from + 2 * VL), last);
    }
    return FN(in_order)(FN(evens)(FN(every_second)(from), FN(every_second)(from + 2 * VL)));
}

INLINE VEC FN(gather)(const T *from, long step, long n) {
    T v[VL] = {0};
    for (long i = 0; i < n; i++) v[i] = from[i * step];
    return LOAD(v);
}
INLINE void FN(scatter)(T *to, long step, VEC v, long n) {
    for (long i = 0; i < n; i++) to[i * step] = v[i];
}

/* to[p][c] = from[c][p step] for `pixels` pixels of `channels` <= VL planes; to has `stride` elements a pixel. Whole vectors are written:
   what lies beyond the channels is overwritten, up to VL past the last pixel. Whole vectors are read past the last pixel, but never
   at or past `end`, the end of the array. */
INLINE void FN(spaced_planes_to_pixels)(const T *from, long plane, const int step, long channels, long pixels, const T *end, T *to, long stride) {
    for (long p = 0; p < pixels; p += VL) {
        const long n = MIN(VL, pixels - p);
        VEC r[VL], part[VL]; /* r stays in registers only if never indexed by a variable */
        if (n <= VL / 8) { /* too few for a transpose to pay */
            for (long i = 0; i < n; i++) STORE(to + (p + i) * stride, FN(gather)(from + (p + i) * step, plane, channels));
            continue;
        }
        if (channels == VL && end - (from + (VL - 1) * plane + p * step) >= step * VL)
            UNROLL for (int c = 0; c < VL; c++) r[c] = FN(load_every)(from + c * plane + p * step, step);
        else {
            for (long c = 0; c < VL; c++) {
                const T *at = from + c * plane + p * step;
                part[c] = c >= channels ? (VEC){0} : end - at >= step * VL ? FN(load_every)(at, step) : step == 1 ? FN(load_part)(at, n) : FN(gather)(at, step, n);
            }
            UNROLL for (int c = 0; c < VL; c++) r[c] = part[c];
        }
        FN(transpose)(r);
        if (n == VL) {
            UNROLL for (int i = 0; i < VL; i++) STORE(to + (p + i) * stride, r[i]);
        } else {
            UNROLL for (int i = 0; i < VL; i++) part[i] = r[i];
            for (long i = 0; i < n; i++) STORE(to + (p + i) * stride, part[i]);
        }
    }
}

static void FN(planes_to_pixels)(const T *from, long plane, long channels, long pixels, const T *end, T *to, long stride) {
    FN(spaced_planes_to_pixels)(from, plane, 1, channels, pixels, end, to, stride);
}
static void FN(every_second_to_pixels)(const T *from, long plane, long channels, long pixels, const T *end, T *to, long stride) {
    FN(spaced_planes_to_pixels)(from, plane, 2, channels, pixels, end, to, stride);
}

/* As planes_to_pixels, for so few channels that transposing vectors would mostly move padding. */
INLINE void FN(interleave)(const T *restrict from, long plane, const long channels, long pixels, T *restrict to) {
    for (long p = 0; p < pixels; p++)
        UNROLL for (long c = 0; c < channels; c++) to[p * channels + c] = from[c * plane + p];
}

/* All channels of a run of pixels; what a narrow last vector writes too much is written again by its successors. */
static void FN(image_to_pixels)(const T *from, long plane, long channels, long pixels, const T *end, T *to) {
    const long whole = channels / VL * VL;
    switch (channels) {
    case 1: FN(interleave)(from, plane, 1, pixels, to); return;
    case 2: FN(interleave)(from, plane, 2, pixels, to); return;
    case 3: FN(interleave)(from, plane, 3, pixels, to); return;
    case 4: FN(interleave)(from, plane, 4, pixels, to); return;
    }
    if (whole < channels) FN(planes_to_pixels)(from + whole * plane, plane, channels - whole, pixels, end, to + whole, channels);
    for (long c = 0; c < whole; c += VL) FN(planes_to_pixels)(from + c * plane, plane, VL, pixels, end, to + c, channels);
}

/* to[p][c] = from[p][c] where channels lie side by side; what lies beyond them in `to` becomes 0. */
INLINE void FN(pixels_to_pixels)(const T *restrict from, long step, long channels, long pixels, T *restrict to, long stride) {
    for (long p = 0; p < pixels; p++, from += step, to += stride) {
        FN(copy)(to, from, channels);
        FN(zero)(to + channels, stride - channels);
    }
}

/* A band of rows of the image `from` to [rows][columns][stride], stride being `channels` or (planes) any number >= VL. What lies
   beyond the channels in their last vector becomes 0; planes are written and read beyond as planes_to_pixels says. */
static void FN(band_to_pixels)(const T *from, const conv_strides *s, long channels, long rows, long columns, const T *end, T *to, long stride) {
    if (s->row == columns * s->pixel || rows == 1) {
        columns *= rows;
        rows = 1;
    }
    for (long y = 0; y < rows; y++, from += s->row, to += columns * stride) {
        if (s->channel == 1) FN(pixels_to_pixels)(from, s->pixel, channels, columns, to, stride);
        else if (s->pixel == 2)
            for (long c = (channels - 1) / VL * VL; c >= 0; c -= VL) FN(every_second_to_pixels)(from + c * s->channel, s->channel, MIN(VL, channels - c), columns, end, to + c, stride);
        else if (s->pixel != 1) {
            for (long p = 0; p < columns; p++) {
                for (long c = 0; c < channels; c++) to[p * stride + c] = from[c * s->channel + p * s->pixel];
                for (long c = channels; c < stride; c++) to[p * stride + c] = 0;
            }
        } else if (stride == channels) FN(image_to_pixels)(from, s->channel, channels, columns, end, to);
        else
            for (long c = 0; c < channels; c += VL) FN(planes_to_pixels)(from + c * s->channel, s->channel, MIN(VL, channels - c), columns, end, to + c, stride);
    }
}

/* to[c][p] = activation(from[p][c] + residual[c][p]); residual lies like `to`, or is NULL; from has `stride` elements a pixel,
   a plane has `step`. */
static void FN(pixels_to_planes)(const T *from, long stride, long plane, long step, long channels, long pixels, const T *residual, conv_activation act, T *to) {
    for (long p = 0; p < pixels; p += VL) {
        const long n = MIN(VL, pixels - p);
        VEC r[VL], made[VL];
        if (n == VL) {
            UNROLL for (int i = 0; i < VL; i++) r[i] = LOAD(from + (p + i) * stride);
        } else {
            for (long i = 0; i < VL; i++) made[i] = i < n ? LOAD(from + (p + i) * stride) : (VEC){0};
            UNROLL for (int i = 0; i < VL; i++) r[i] = made[i];
        }
        FN(transpose)(r);
        if (n == VL && step == 1 && channels == VL && !residual && act.kind == ACT_NONE) {
            UNROLL for (int c = 0; c < VL; c++) STORE(to + c * plane + p, r[c]);
            continue;
        }
        UNROLL for (int c = 0; c < VL; c++) made[c] = r[c];
        for (long c = 0; c < channels; c++) {
            const long at = c * plane + p * step;
            VEC v = made[c];
            if (residual) v += step != 1 ? FN(gather)(residual + at, step, n) : n == VL ? LOAD(residual + at) : FN(load_part)(residual + at, n);
            v = FN(activated)(act, v);
            if (step != 1) FN(scatter)(to + at, step, v, n);
            else if (n == VL) STORE(to + at, v);
            else FN(store_part)(to + at, v, n);
        }
    }
}

/* As pixels_to_planes, for a band of rows of the image `to`. */
static void FN(pixels_to_band)(const T *from, long stride, const conv_strides *s, long channels, long rows, long columns, const T *residual, conv_activation act, T *to) {
    if (s->pixel == 1 && (s->row == columns || rows == 1)) {
        columns *= rows;
        rows = 1;
    }
    for (long y = 0; y < rows; y++, from += columns * stride, to += s->row, residual = residual ? residual + s->row : NULL)
        FN(pixels_to_planes)(from, stride, s->channel, s->pixel, channels, columns, residual, act, to);
}
#undef SHUFFLE
#undef LOW
#undef HIGH
#undef LANES2
#undef LANES4
#undef LANES8
#undef LANES16
#undef ROUND
#undef ROUNDS
