/* Bands of an 8-bit image as channel-last strips of elements: padded with the zero point on all sides, so that every output has all its
   products, and along the channels, with zeros, to whole lanes. */

#ifdef __clang__
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLED(a, b, ...) __builtin_shuffle(a, b, (__typeof__(a)){__VA_ARGS__})
#endif

/* How bytes become elements: e = (x ^ flip) - zero, `flip` turning one signedness into the other. */
typedef struct {
    uint8_t flip;
    int zero;
    element pad; /* what the zero point becomes */
} int8_reading;

static int8_reading int8_reading_of(int x_signed, int x_zero) {
#if DOT_LENGTH == 4
    const uint8_t flip = x_signed != X_SIGNED ? 0x80 : 0;
    return (int8_reading){flip, 0, (uint8_t)x_zero ^ flip};
#else
    return (int8_reading){x_signed ? 0x80 : 0, x_zero + (x_signed ? 128 : 0), 0};
#endif
}

INLINE void read_elements(const int8_reading how, const uint8_t *restrict from, long n, element *restrict to) {
    for (long i = 0; i < n; i++) to[i] = (element)((from[i] ^ how.flip) - how.zero);
}

INLINE void fill_pixels(const int8_reading how, long pixels, long channels, long padded, element *to) {
    for (long p = 0; p < pixels; p++, to += padded)
        for (long c = 0; c < padded; c++) to[c] = c < channels ? how.pad : 0;
}

/* `pixels` pixels of one row, NHWC: `step` bytes apart. */
static void pixels_to_strip(const int8_reading how, const uint8_t *from, long step, long pixels, long channels, long padded, element *to) {
    if (step == channels && padded == channels) {
        read_elements(how, from, pixels * channels, to);
        return;
    }
    long p = 0;
#if DOT_LENGTH == 4
    if (channels == 3 && step == 3) { /* first layers: four pixels of a vector at once, which reads four bytes beyond them */
        typedef uint8_t quad __attribute__((vector_size(16)));
        const uint8_t f = how.flip;
        const quad flip = {f, f, f, 0, f, f, f, 0, f, f, f, 0, f, f, f, 0};
        for (; p + 6 <= pixels; p += 4, from += 12, to += 16) {
            quad v;
            __builtin_memcpy(&v, from, 16);
            v = SHUFFLED(v, (quad){0}, 0, 1, 2, 16, 3, 4, 5, 16, 6, 7, 8, 16, 9, 10, 11, 16) ^ flip;
            __builtin_memcpy(to, &v, 16);
        }
    }
#endif
    for (; p < pixels; p++, from += step, to += padded) {
        read_elements(how, from, channels, to);
        for (long c = channels; c < padded; c++) to[c] = 0;
    }
}

/* VL pixels of DOT_LENGTH planes as lanes. */
typedef uint8_t u8x __attribute__((vector_size(VB / 4)));
INLINE VEC planes_to_lanes(const int8_reading how, const uint8_t *const *at, long p, const VEC mask) {
    VEC lanes = {0};
    UNROLL for (int c = 0; c < DOT_LENGTH; c++) {
        u8x bytes;
        __builtin_memcpy(&bytes, at[c] + p, sizeof bytes);
        VEC e = __builtin_convertvector(bytes ^ how.flip, VEC) - how.zero;
        if (c < DOT_LENGTH - 1) e &= (1 << 32 / DOT_LENGTH) - 1;
        lanes |= e << 32 / DOT_LENGTH * c;
    }
    return lanes & mask;
}

/* The lanes of a row of pixels of planes, `step` bytes apart: DOT_LENGTH channels, of which `some` exist. */
static void row_to_lanes(const int8_reading how, const uint8_t *from, long plane, long step, long pixels, long some, int32_t *restrict to) {
    const uint8_t *at[DOT_LENGTH];
    for (long c = 0; c < DOT_LENGTH; c++) at[c] = from + MIN(c, some - 1) * plane;
    const int32_t mask = some == DOT_LENGTH ? -1 : (int32_t)((1u << 32 / DOT_LENGTH * some) - 1);
    if (step == 1 && pixels >= VL) {
        long p = 0;
#ifdef PANEL_BYTES
        for (; some == DOT_LENGTH && p + 4 * VL <= pixels; p += 4 * VL) {
            VEC quarters[4]; /* lanes of 128 bits of each are to be a vector */
            rows_to_panel(how.flip * 0x01010101u, from + p, plane, quarters);
            UNROLL for (int i = 0; i < 4; i++) {
                VEC pair, rest, both;
                UNROLL for (int l = 0; l < VL; l++) {
                    pair[l] = l / 4 % 2 * VL + i * 4 + l % 4;
                    both[l] = l / 8 * VL + l % 8;
                }
                rest = i32_choose(quarters[2], quarters[3], pair);
                STORE(to + p + i * VL, i32_choose(i32_choose(quarters[0], quarters[1], pair), rest, both));
            }
        }
#endif
        for (; p < pixels; p += VL) {
            const long begin = MIN(p, pixels - VL); /* the last vector overlaps the one before */
            STORE(to + begin, planes_to_lanes(how, at, begin, SPLAT(mask)));
        }
        return;
    }
    for (long p = 0; p < pixels; p++) {
        element e[DOT_LENGTH];
        int32_t lane;
        for (long c = 0; c < DOT_LENGTH; c++) e[c] = (element)((at[c][p * step] ^ how.flip) - how.zero);
        __builtin_memcpy(&lane, e, sizeof lane);
        to[p] = lane & mask;
    }
}

/* A row of planes. `lanes` is scratch for the row. */
static void planes_to_strip(const int8_reading how, const uint8_t *from, long plane, long step, long pixels, long channels, int32_t *lanes, element *to) {
    const long count = ceil_div(channels, DOT_LENGTH);
    for (long l = 0; l < count; l++) {
        const long some = MIN(DOT_LENGTH, channels - l * DOT_LENGTH);
        const uint8_t *x = from + l * DOT_LENGTH * plane;
        row_to_lanes(how, x, plane, step, pixels, some, lanes + l * pixels);
    }
    i32_image_to_pixels(lanes, pixels, count, pixels, lanes + count * pixels, (int32_t *)to);
}

/* Rows [iy0, iy0 + rows) and columns [ix0, ix0 + columns) of one slice and group, whatever of them lies outside it; x: its first
   element, NULL for a slice of padding. The strip has room for VL lanes more. */
static void slice_to_strip(const conv_geometry *g, const conv_strides *s, const int8_reading how, const uint8_t *x, long iy0, long rows, long ix0, long columns,
                           int32_t *lanes, element *to) {
    const long channels = g->ic / g->groups, padded = ceil_div(channels, DOT_LENGTH) * DOT_LENGTH;
    const long left = MIN(columns, MAX(0, -ix0)), inside = MAX(0, MIN(columns, g->iw - ix0) - left), right = columns - left - inside;
    for (long y = iy0; y < iy0 + rows; y++, to += columns * padded) {
        if (!x || y < 0 || y >= g->ih || !inside) {
            fill_pixels(how, columns, channels, padded, to);
            continue;
        }
        const uint8_t *from = x + y * s->row + (ix0 + left) * s->pixel;
        element *at = to + left * padded;
        if (g->nhwc) pixels_to_strip(how, from, s->pixel, inside, channels, padded, at);
        else planes_to_strip(how, from, s->channel, s->pixel, inside, channels, lanes, at);
        fill_pixels(how, left, channels, padded, to);
        fill_pixels(how, right, channels, padded, at + inside * padded);
    }
}
