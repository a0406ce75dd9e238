/* Depthwise convolution of 8-bit integers, NHWC: VB channels at a time. A lane holds DOT_LENGTH taps of a kernel column, one below the other, so a row
   of outputs needs its input rows in lanes once, whatever the columns of the kernel. Zero points are dealt with as in int8_gemm.h. */
enum { ELEMENT_BITS = 32 / DOT_LENGTH, LANES_BYTES = 16384 /* of a piece of a row in lanes, to stay in L1 */ };

/* Lanes of taps in a column of the kernel, and rows of outputs that they serve: where a lane has room, the next row takes its elements with the
   weight moved on by one. */
static long tap_lanes(const conv_geometry *g) { return ceil_div(g->kh, DOT_LENGTH); }
static long rows_together(const conv_geometry *g) { return g->sh == 1 && g->dh == 1 ? tap_lanes(g) * DOT_LENGTH - g->kh + 1 : 1; }

/* The element 1 in all taps of lane l that exist, of output row r of those together. */
static int32_t tap_ones(const conv_geometry *g, long r, long l) {
    int32_t ones = 0;
    for (long i = 0; i < DOT_LENGTH; i++)
        if (l * DOT_LENGTH + i >= r && l * DOT_LENGTH + i < r + g->kh) ones |= 1 << ELEMENT_BITS * i;
    return ones;
}

typedef struct {
    const conv_geometry *g;
    const int8_tensors *t;
    int8_reading how;
    long bands;
    const uint8_t *x_end;
} int8_depthwise_job;

/* A vector of the bytes of `channels` channels from its byte `first` on: no others are read. */
static __attribute__((noinline)) u32x some_bytes(const uint8_t *from, long first, long channels) {
    u32x v = {0};
    memcpy((uint8_t *)&v + first, from, (size_t)channels);
    return v;
}
static __attribute__((noinline)) void store_some(void *to, VEC v, long bytes) { memcpy(to, &v, (size_t)bytes); }

/* Columns [ix, ix + columns) of so many rows to lanes; rows of padding are NULL. */
INLINE void columns_to_lanes(const int8_depthwise_job *job, const int count, const uint8_t *const *rows, long ix, long columns, long channels, VEC *to) {
    const long left = MIN(columns, MAX(0, -ix)), right = MAX(left, MIN(columns, job->g->iw - ix));
    const u32x padding = (u32x){0} + (uint8_t)job->t->x_zero * 0x01010101u;
    u32x t[DOT_LENGTH] = {0};
    VEC pad[4];
    const uint8_t *at[DOT_LENGTH];
    long step[DOT_LENGTH];
    for (int r = 0; r < count; r++) {
        at[r] = rows[r] ? rows[r] + (ix + left) * job->t->xs.pixel : (const uint8_t *)&padding;
        step[r] = rows[r] ? job->t->xs.pixel : 0;
    }
    UNROLL for (int r = 0; r < count; r++) t[r] = padding;
    rows_to_lanes(job->how, t, pad);
    for (long c = 0; c < left; c++) UNROLL for (int j = 0; j < 4; j++) to[c * 4 + j] = pad[j];
    for (long c = left; c < right; c++) {
        UNROLL for (int r = 0; r < count; r++) {
            t[r] = channels == VB || !step[r] || job->x_end - at[r] >= VB ? (u32x)LOAD((const int32_t *)at[r]) : some_bytes(at[r], 0, channels);
            at[r] += step[r];
        }
        rows_to_lanes(job->how, t, to + c * 4);
    }
    for (long c = right; c < columns; c++) UNROLL for (int j = 0; j < 4; j++) to[c * 4 + j] = pad[j];
}

/* As columns_to_lanes, of VB / 2 channels: half a vector has columns from ix on, the other half those `apart` columns on. */
static void halves_to_lanes(const int8_depthwise_job *job, const uint8_t *const *rows, long ix, long apart, long columns, VEC *to) {
    enum { HALF = VB / 2 };
    const u32x padding = (u32x){0} + (uint8_t)job->t->x_zero * 0x01010101u;
    const uint8_t *begin = job->t->x;
    u32x low = {0}, t[DOT_LENGTH];
    UNROLL for (int l = 0; l < VB / 8; l++) low[l] = ~0u;
    for (long c = ix; c < ix + columns; c++, to += 4) {
        const int first = c >= 0 && c < job->g->iw, second = c + apart >= 0 && c + apart < job->g->iw;
        UNROLL for (int r = 0; r < DOT_LENGTH; r++) {
            const uint8_t *at = rows[r] + c * job->t->xs.pixel, *other = at + apart * job->t->xs.pixel;
            u32x a = padding, b = padding;
            if (rows[r] && first) a = job->x_end - at >= VB ? (u32x)LOAD((const int32_t *)at) : some_bytes(at, 0, HALF);
            if (rows[r] && second) b = other - begin >= HALF ? (u32x)LOAD((const int32_t *)(other - HALF)) : some_bytes(other, HALF, HALF);
            t[r] = b ^ ((a ^ b) & low);
        }
        rows_to_lanes(job->how, t, to);
    }
}

/* Half `h` of the numbers of a and b by turns. */
INLINE VEC riffled(VEC a, VEC b, const int h) {
    VEC lanes;
    UNROLL for (int l = 0; l < VB / 4; l++) lanes[l] = h * (VB / 8) + l / 2 + l % 2 * (VB / 4);
    return i32_choose(a, b, lanes);
}

/* VB sums in four vectors of lanes to the order of channels. */
INLINE void in_order(const VEC *v, VEC *to) {
    const VEC w[4] = {riffled(v[0], v[2], 0), riffled(v[1], v[3], 0), riffled(v[0], v[2], 1), riffled(v[1], v[3], 1)};
    UNROLL for (int i = 0; i < 4; i++) to[i] = riffled(w[i & 2], w[(i & 2) + 1], i & 1);
}

/* `some` outputs of a row (number r of those together) from their first lanes on, of `channels` <= VB channels: bias and scale from c on. `other`: where
   the second of halves goes, from the first on. */
INLINE void dot_pixels(const conv_geometry *g, const int8_tensors *t, const int8_range range, const VEC *x, const VEC *weight, long r, long row, long c, long channels, const int some,
                       const int zero, const long lanes, const long kw, const long sw, const long dw, long to, const int halves, long other) {
    const int32_t *bias = t->bias + c;
    VEC sum[4][4];
    UNROLL for (int j = 0; j < 4; j++) UNROLL for (int i = 0; i < some; i++) sum[i][j] = LOAD(bias + j * VL);
    for (long l = 0; l < lanes; l++)
        for (long kx = 0; kx < kw; kx++, weight += 4) {
            const VEC *at = x + (l * row + kx * dw) * 4;
            VEC w[4];
            UNROLL for (int j = 0; j < 4; j++) w[j] = LOAD((const int32_t *)(weight + j));
            UNROLL for (int i = 0; i < some; i++) UNROLL for (int j = 0; j < 4; j++) sum[i][j] = dot(sum[i][j], at[i * sw * 4 + j], w[j]);
        }
    if (zero)
        UNROLL for (int i = 0; i < some; i++) UNROLL for (int j = 0; j < 4; j++) {
            VEC all = {0};
            for (long l = 0; l < lanes; l++)
                for (long kx = 0; kx < kw; kx++) all = dot(all, x[(l * row + kx * dw + i * sw) * 4 + j], SPLAT(tap_ones(g, r, l)));
            sum[i][j] -= all * LOAD(t->w_zero + c + j * VL);
        }
    UNROLL for (int i = 0; i < some; i++, to += t->ys.pixel) {
        if (t->scale) {
            const VEC bytes = requantized_lanes(range, sum[i], (const f32xu *)(t->scale + c), 1);
            if (halves) {
                __builtin_memcpy((uint8_t *)t->y + to, &bytes, VB / 2);
                __builtin_memcpy((uint8_t *)t->y + to + other, (const char *)&bytes + VB / 2, VB / 2);
            } else if (channels == VB) STORE((int32_t *)((uint8_t *)t->y + to), bytes);
            else store_some((uint8_t *)t->y + to, bytes, channels);
            continue;
        }
        VEC v[4];
        in_order(sum[i], v);
        UNROLL for (int j = 0; j < 4; j++) {
            if (halves) STORE((int32_t *)t->y + to + j % 2 * VL + (j < 2 ? 0 : other), v[j]);
            else if (channels >= (j + 1) * VL) STORE((int32_t *)t->y + to + j * VL, v[j]);
            else if (channels > j * VL) store_some((int32_t *)t->y + to + j * VL, v[j], (channels - j * VL) * 4);
        }
    }
}

/* A row of outputs. */
INLINE void dot_row(const conv_geometry *g, const int8_tensors *t, const int8_range range, const VEC *x, const VEC *weight, long r, long row, long c, long channels,
                    long outputs, long to, const int halves, long other) {
    const long lanes = tap_lanes(g), kw = g->kw, sw = g->sw, dw = g->dw;
    const int usual = lanes == 1 && kw == 3 && sw == 1 && dw == 1;
    long i = 0;
    for (; !t->w_zero && i + 4 <= outputs; i += 4, x += sw * 16, to += 4 * t->ys.pixel) {
        if (usual) dot_pixels(g, t, range, x, weight, r, row, c, channels, 4, 0, 1, 3, 1, 1, to, halves, other);
        else dot_pixels(g, t, range, x, weight, r, row, c, channels, 4, 0, lanes, kw, sw, dw, to, halves, other);
    }
    for (; i < outputs; i++, x += sw * 4, to += t->ys.pixel) {
        if (t->w_zero) dot_pixels(g, t, range, x, weight, r, row, c, channels, 1, 1, lanes, kw, sw, dw, to, halves, other);
        else dot_pixels(g, t, range, x, weight, r, row, c, channels, 1, 0, lanes, kw, sw, dw, to, halves, other);
    }
}
static void dot_row_of_whole(const conv_geometry *g, const int8_tensors *t, const int8_range range, const VEC *x, const VEC *weight, long r, long row, long c, long channels,
                             long outputs, long to) {
    dot_row(g, t, range, x, weight, r, row, c, channels, outputs, to, 0, 0);
}
static void dot_row_of_halves(const conv_geometry *g, const int8_tensors *t, const int8_range range, const VEC *x, const VEC *weight, long r, long row, long c, long outputs,
                              long to, long other) {
    dot_row(g, t, range, x, weight, r, row, c, VB / 2, outputs, to, 1, other);
}

/* A band of rows of an image, VB channels at a time; the last ones may overlap those before. */
static int int8_depthwise_task(void *context, long index) {
    const int8_depthwise_job *job = context;
    const conv_geometry *g = job->g;
    const int8_tensors *t = job->t;
    const long band = index % job->bands, image = index / job->bands, lanes = tap_lanes(g), reach = (g->kw - 1) * g->dw;
    const long fitting = MAX(4, (LANES_BYTES / (4 * VB * lanes) - reach - 1) / g->sw + 1), longest = (MIN(g->ow, fitting) - 1) * g->sw + reach + 1;
    VEC *x = pool_arena(TASK_ARENA, (size_t)(lanes * longest) * 4 * VB);
    if (!x) return OUT_OF_MEMORY;
    const int8_range range = int8_range_of(t->y_signed, t->y_zero);
    const long together = rows_together(g), end = part(g->oh, job->bands, band + 1), slots = MIN(DOT_LENGTH * lanes, g->kh + together - 1);
    for (long block = 0; block * VB < g->ic; block++) {
        /* A half block, where that is enough, does both halves of a row at once. */
        const int halves = g->ic - block * VB <= VB / 2 && g->ic >= VB / 2 && g->ow > 1;
        const long channels = MIN(halves ? VB / 2 : VB, g->ic), c = MIN(block * VB, g->ic - channels);
        const long width = halves ? ceil_div(g->ow, 2) : g->ow, apart = g->ow - width, pieces = ceil_div(width, fitting);
        const VEC *weight = (const VEC *)t->weight + block * together * lanes * g->kw * 4;
        for (long y = part(g->oh, job->bands, band); y < end; y += together)
            for (long p = 0; p < pieces; p++) {
                const long x0 = part(width, pieces, p), x1 = part(width, pieces, p + 1), columns = (x1 - x0 - 1) * g->sw + reach + 1;
                for (long l = 0; l < lanes; l++) {
                    const uint8_t *rows[DOT_LENGTH];
                    const long left = slots - l * DOT_LENGTH, ix = x0 * g->sw - g->pl;
                    for (long i = 0; i < DOT_LENGTH; i++) {
                        const long iy = y * g->sh - g->pt + (l * DOT_LENGTH + i) * g->dh;
                        rows[i] = i < left && iy >= 0 && iy < g->ih ? (const uint8_t *)t->x + image * t->xs.image + iy * t->xs.row + c : NULL;
                    }
                    if (halves) halves_to_lanes(job, rows, ix, apart * g->sw, columns, x + l * columns * 4);
                    else if (left == 3) columns_to_lanes(job, MIN(3, DOT_LENGTH), rows, ix, columns, channels, x + l * columns * 4);
                    else if (left == 1) columns_to_lanes(job, 1, rows, ix, columns, channels, x + l * columns * 4);
                    else columns_to_lanes(job, DOT_LENGTH, rows, ix, columns, channels, x + l * columns * 4);
                }
                for (long r = 0; r < MIN(together, end - y); r++) {
                    const VEC *w = weight + r * lanes * g->kw * 4;
                    const long to = image * t->ys.image + (y + r) * t->ys.row + x0 * t->ys.pixel + c;
                    if (halves) dot_row_of_halves(g, t, range, x, w, r, columns, block * VB, x1 - x0, to, apart * t->ys.pixel);
                    else dot_row_of_whole(g, t, range, x, w, r, columns, block * VB, channels, x1 - x0, to);
                }
            }
    }
    return 0;
}
