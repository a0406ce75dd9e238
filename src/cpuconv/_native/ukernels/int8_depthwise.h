/* Depthwise convolution of 8-bit integers: a lane holds DOT_LENGTH taps of a kernel row, so a row of three takes one dot product. With vectors of
   channels (NHWC) or of pixels (NCHW); zero points are dealt with as in int8_gemm.h. */
enum { ELEMENT_BITS = 32 / DOT_LENGTH };

static long tap_lanes(const conv_geometry *g) { return ceil_div(g->kw, DOT_LENGTH); }

/* The element 1 in all taps of lane j that exist. */
static int32_t tap_ones(const conv_geometry *g, long j) {
    int32_t ones = 0;
    for (int i = 0; i < MIN(DOT_LENGTH, g->kw - j * DOT_LENGTH); i++) ones |= 1 << ELEMENT_BITS * i;
    return ones;
}

/* One input row of VL channels: to[t] has columns t - (DOT_LENGTH - 1) dw to t, in steps of dw, for t in [0, columns); NULL for a row of padding. */
static void row_to_tap_lanes(const conv_geometry *g, const int8_reading how, const uint8_t *pad, const uint8_t *row, long step, long channels, long columns, VEC *to) {
    typedef uint32_t u32x __attribute__((vector_size(VB)));
    uint8_t some[VL] = {0};
    for (long t = 0; t < columns; t++) {
        const long ix = t - g->pl;
        const uint8_t *at = row && ix >= 0 && ix < g->iw ? row + ix * step : pad;
        if (channels < VL) {
            for (long c = 0; c < channels; c++) some[c] = at[c];
            at = some;
        }
        u8x bytes;
        __builtin_memcpy(&bytes, at, sizeof bytes);
        const VEC e = (__builtin_convertvector(bytes ^ how.flip, VEC) - how.zero) << (32 - ELEMENT_BITS);
        to[t] = t < g->dw ? e : e | (VEC)((u32x)to[t - g->dw] >> ELEMENT_BITS);
    }
}

/* `some` <= 4 outputs of a row, `channels` of them from c on; x: their first lane, in rows `row` apart; at: of the first in y. */
INLINE void dot_pixels(const conv_geometry *g, const int8_tensors *t, const int8_range range, const VEC *x, long row, long c, long channels, long padded, const int some, long at_y) {
    const long lanes = tap_lanes(g);
    VEC sum[4], y[4];
    UNROLL for (int i = 0; i < some; i++) sum[i] = (VEC){0}, y[i] = LOAD(t->bias + c);
    for (long ky = 0; ky < g->kh; ky++)
        for (long j = 0; j < lanes; j++) {
            const VEC *at = x + ky * g->dh * row + j * DOT_LENGTH * g->dw;
            const VEC w = LOAD(t->weight + (ky * lanes + j) * padded + c);
            UNROLL for (int i = 0; i < some; i++) y[i] = dot(y[i], at[i * g->sw], w);
            if (t->w_zero) UNROLL for (int i = 0; i < some; i++) sum[i] = dot(sum[i], at[i * g->sw], SPLAT(tap_ones(g, j)));
        }
    if (t->w_zero) UNROLL for (int i = 0; i < some; i++) y[i] -= sum[i] * LOAD(t->w_zero + c);
    UNROLL for (int i = 0; i < some; i++) {
        const long to = at_y + i * t->ys.pixel;
        if (t->scale) store_bytes((uint8_t *)t->y + to, requantized(range, y[i], *(const f32xu *)(t->scale + c)), channels);
        else if (channels == VL) STORE((int32_t *)t->y + to, y[i]);
        else i32_store_part((int32_t *)t->y + to, y[i], channels);
    }
}

typedef struct {
    const conv_geometry *g;
    const int8_tensors *t;
    int8_reading how;
    long bands;
} int8_depthwise_job;

/* A band of rows of an NHWC image, VL channels at a time; the last ones may overlap those before. */
static int int8_depthwise_task(void *context, long index) {
    const int8_depthwise_job *job = context;
    const conv_geometry *g = job->g;
    const int8_tensors *t = job->t;
    const long band = index % job->bands, image = index / job->bands, padded = ceil_div(g->ic, VL) * VL;
    const long oy0 = part(g->oh, job->bands, band), oy1 = part(g->oh, job->bands, band + 1), rows = (oy1 - oy0 - 1) * g->sh + (g->kh - 1) * g->dh + 1;
    const long columns = (g->ow - 1) * g->sw + tap_lanes(g) * DOT_LENGTH * g->dw;
    VEC *lanes = pool_arena(TASK_ARENA, (size_t)(rows * columns) * sizeof(VEC));
    if (!lanes) return OUT_OF_MEMORY;
    uint8_t pad[VL];
    memset(pad, (uint8_t)t->x_zero, sizeof pad);
    const int8_range range = int8_range_of(t->y_signed, t->y_zero);
    for (long block = 0; block < g->ic; block += VL) {
        const long c = g->ic < VL ? 0 : MIN(block, g->ic - VL), channels = MIN(VL, g->ic);
        for (long i = 0; i < rows; i++) {
            const long iy = oy0 * g->sh - g->pt + i;
            const uint8_t *row = iy < 0 || iy >= g->ih ? NULL : (const uint8_t *)t->x + image * t->xs.image + iy * t->xs.row + c;
            row_to_tap_lanes(g, job->how, pad, row, t->xs.pixel, channels, columns, lanes + i * columns);
        }
        for (long y = oy0; y < oy1; y++)
            for (long x = 0; x < g->ow; x += 4) {
                const VEC *at = lanes + (y - oy0) * g->sh * columns + x * g->sw + (DOT_LENGTH - 1) * g->dw;
                const long some = MIN(4, g->ow - x);
                const long to = image * t->ys.image + y * t->ys.row + x * t->ys.pixel + c;
                if (some == 4) dot_pixels(g, t, range, at, columns, c, channels, padded, 4, to);
                else
                    for (long i = 0; i < some; i++) dot_pixels(g, t, range, at + i * g->sw, columns, c, channels, padded, 1, to + i * t->ys.pixel);
            }
    }
    return 0;
}

/* A band of rows of one plane. Its input rows are copied, padded, into sw phases of every sw-th byte, from which lanes for all outputs of a row
   come side by side. */
static int int8_depthwise_plane_task(void *context, long index) {
    const int8_depthwise_job *job = context;
    const conv_geometry *g = job->g;
    const int8_tensors *t = job->t;
    const long band = index % job->bands, channel = index / job->bands % g->ic, image = index / (job->bands * g->ic), count = tap_lanes(g);
    const long oy0 = part(g->oh, job->bands, band), oy1 = part(g->oh, job->bands, band + 1), rows = (oy1 - oy0 - 1) * g->sh + (g->kh - 1) * g->dh + 1;
    const long width = ceil_div(g->ow, VL) * VL, phase = width + ceil_div(count * DOT_LENGTH * g->dw, g->sw);
    const size_t lane_bytes = (size_t)(rows * count * width) * 4, phase_bytes = (size_t)(phase * g->sw);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(lane_bytes) + phase_bytes)};
    if (!s.next) return OUT_OF_MEMORY;
    int32_t *lanes = take(&s, lane_bytes);
    uint8_t *phases = take(&s, phase_bytes);
    const uint8_t *plane = (const uint8_t *)t->x + image * t->xs.image + channel * t->xs.channel;
    for (long i = 0; i < rows; i++) {
        const long iy = oy0 * g->sh - g->pt + i;
        memset(phases, (uint8_t)t->x_zero, phase_bytes);
        if (iy >= 0 && iy < g->ih) {
            const uint8_t *row = plane + iy * t->xs.row;
            const long last = MIN(g->iw, phase * g->sw - g->pl);
            if (g->sw == 1 && t->xs.pixel == 1) memcpy(phases + g->pl, row, (size_t)MAX(0, last));
            else
                for (long f = 0; f < g->sw; f++) {
                    uint8_t *to = phases + f * phase;
                    const long first = g->pl > f ? ceil_div(g->pl - f, g->sw) : 0; /* of the phase, in the image */
                    for (long i = first, from = first * g->sw + f - g->pl; from < last; i++, from += g->sw) to[i] = row[from * t->xs.pixel];
                }
        }
        for (long j = 0; j < count; j++) {
            const uint8_t *at[DOT_LENGTH];
            for (long e = 0; e < DOT_LENGTH; e++) {
                const long p = (j * DOT_LENGTH + e) * g->dw;
                at[e] = phases + p % g->sw * phase + p / g->sw;
            }
            for (long x = 0; x < width; x += VL) STORE(lanes + (i * count + j) * width + x, planes_to_lanes(job->how, at, x, SPLAT(-1)));
        }
    }
    const int8_range range = int8_range_of(t->y_signed, t->y_zero);
    const int32_t *weight = t->weight + channel * g->kh * count;
    for (long y = oy0; y < oy1; y++)
        for (long x = 0; x < g->ow; x += VL) {
            VEC acc = SPLAT(t->bias[channel]), sum = {0};
            for (long ky = 0; ky < g->kh; ky++)
                for (long j = 0; j < count; j++) {
                    const VEC v = LOAD(lanes + (((y - oy0) * g->sh + ky * g->dh) * count + j) * width + x);
                    acc = dot(acc, v, SPLAT(weight[ky * count + j]));
                    if (t->w_zero) sum = dot(sum, v, SPLAT(tap_ones(g, j)));
                }
            if (t->w_zero) acc -= sum * t->w_zero[channel];
            const long to = image * t->ys.image + channel * t->ys.channel + y * t->ys.row + x * t->ys.pixel, some = MIN(VL, g->ow - x);
            if (t->scale) store_bytes((uint8_t *)t->y + to, requantized(range, acc, (f32x){0} + t->scale[channel]), some);
            else if (some == VL) STORE((int32_t *)t->y + to, acc);
            else i32_store_part((int32_t *)t->y + to, acc, some);
        }
    return 0;
}

static int int8_depthwise(const int8_geometry *q, const int8_tensors *t, long rows, int threads) {
    const conv_geometry *g = &q->g;
    const int8_depthwise_job job = {g, t, int8_reading_of(t->x_signed, t->x_zero), ceil_div(g->oh, rows)};
    if (g->nhwc) return pool_run(int8_depthwise_task, (void *)&job, job.bands * g->n, threads);
    return pool_run(int8_depthwise_plane_task, (void *)&job, job.bands * g->ic * g->n, threads);
}
