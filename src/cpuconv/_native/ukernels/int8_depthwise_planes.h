/* Depthwise convolution of 8-bit integers, NCHW: pixels in vectors. The input rows of a band are copied, with padding, to flat images, one for each phase
   of the strides, so that a tap is an offset into one of them whatever the row; there, lanes are as in int8_depthwise.h, with pixels for channels. */

/* n bytes, and no more, are read and written. */
INLINE void copy_bytes(uint8_t *restrict to, const uint8_t *restrict from, long n) {
    long i = 0;
    if (n >= 16) {
        for (; i + 16 <= n; i += 16) __builtin_memcpy(to + i, from + i, 16);
        __builtin_memcpy(to + n - 16, from + n - 16, 16);
        return;
    }
    if (n >= 8) {
        __builtin_memcpy(to, from, 8);
        __builtin_memcpy(to + n - 8, from + n - 8, 8);
        return;
    }
    for (; i < n; i++) to[i] = from[i];
}

/* Every second byte of n, from the first on and from the second. */
INLINE void split_bytes(const uint8_t *restrict from, long n, uint8_t *restrict first, uint8_t *restrict second) {
    typedef uint16_t pairs __attribute__((vector_size(16)));
    typedef uint8_t halves __attribute__((vector_size(8)));
    for (long p = 0; p + 2 <= n && n >= 16; p += 16) {
        const long i = MIN(p, (n - 16) / 2 * 2); /* the last ones overlap those before */
        pairs v;
        __builtin_memcpy(&v, from + i, 16);
        const halves low = __builtin_convertvector(v & 255, halves), high = __builtin_convertvector(v >> 8, halves);
        __builtin_memcpy(first + i / 2, &low, 8);
        __builtin_memcpy(second + i / 2, &high, 8);
    }
    for (long i = n < 16 ? 0 : n / 2 * 2; i < n; i++) (i % 2 ? second : first)[i / 2] = from[i];
}

/* The flat images of a band. */
typedef struct {
    long phases, pitch, reach; /* of the columns; bytes between rows; offset of the last column of the kernel */
    long rows, below, size;    /* of outputs; offset in rows of the last row of the kernel; bytes of an image */
    long lanes;                /* of each of the four vectors that an image becomes */
} flat_band;

INLINE flat_band flat_band_of(const conv_geometry *g, long rows) {
    const long across = (g->kw - 1) * g->dw, below = (g->kh - 1) * g->dh / g->sh, pitch = g->ow + across / g->sw;
    const long size = ceil_div((rows + below) * pitch + across / g->sw, VB) * VB + 2 * VB;
    return (flat_band){MIN(g->sw, across + 1), pitch, across / g->sw, rows, below, size, ceil_div(rows * pitch + across / g->sw, VB) * VL + VL};
}

/* images: [sh][phases][size] */
static void fill_flat(const conv_geometry *g, const conv_strides *s, const flat_band *b, const uint8_t *plane, long oy0, int pad, uint8_t *images) {
    memset(images, pad, (size_t)(g->sh * b->phases * b->size));
    uint8_t *to = images;
    const long n = MIN(g->iw, b->pitch * g->sw - g->pl); /* columns that are read */
    for (long i = 0, phase = 0; i < (b->rows - 1) * g->sh + (g->kh - 1) * g->dh + 1; i++, to += b->phases * b->size) {
        const long iy = oy0 * g->sh - g->pt + i;
        if (phase++ == g->sh) {
            phase = 1;
            to += b->pitch - g->sh * b->phases * b->size;
        }
        if (iy < 0 || iy >= g->ih || n <= 0) continue;
        const uint8_t *row = plane + iy * s->row;
        if (g->sw == 1 && s->pixel == 1) copy_bytes(to + g->pl, row, n);
        else if (g->sw == 2 && b->phases == 2 && s->pixel == 1)
            split_bytes(row, n, to + g->pl % 2 * b->size + g->pl / 2, to + (g->pl + 1) % 2 * b->size + (g->pl + 1) / 2);
        else
            for (long ix = 0, at = g->pl; ix < n; ix++, at++)
                if (at % g->sw < b->phases) to[at % g->sw * b->size + at / g->sw] = row[ix * s->pixel];
    }
}

/* All flat images to lanes: [lanes of a column][phase][4][lanes]. */
static void flat_to_lanes(const conv_geometry *g, const int8_reading how, const flat_band *b, const uint8_t *images, int32_t *to) {
    const long length = b->lanes;
    for (long l = 0; l < tap_lanes(g); l++)
        for (long phase = 0; phase < b->phases; phase++, to += 4 * length) {
            const uint8_t *rows[DOT_LENGTH];
            for (long r = 0; r < DOT_LENGTH; r++) {
                const long ky = MIN(l * DOT_LENGTH + r, g->kh - 1) * g->dh; /* what is beyond has a weight of zero */
                rows[r] = images + (ky % g->sh * b->phases + phase) * b->size + ky / g->sh * b->pitch;
            }
            for (long i = 0; i < b->rows * b->pitch + b->reach; i += VB) {
                u32x t[DOT_LENGTH];
                VEC v[4];
                UNROLL for (int r = 0; r < DOT_LENGTH; r++) t[r] = (u32x)LOAD((const int32_t *)(rows[r] + i));
                rows_to_lanes(how, t, v);
                UNROLL for (int j = 0; j < 4; j++) STORE(to + j * length + i / 4, v[j]);
            }
        }
}

/* Adds to the sums of VB outputs, of which x has the first lanes, the products with all taps; `at`: of each tap and vector, where its lanes are. */
INLINE void dot_flat(const long taps, const int32_t *x, const long *at, const int32_t *weight, VEC *sum) {
    for (long k = 0; k < taps; k++) {
        const VEC w = SPLAT(weight[k]);
        UNROLL for (int j = 0; j < 4; j++) sum[j] = dot(sum[j], LOAD(x + at[4 * k + j]), w);
    }
}

/* Outputs of one channel, as a flat image. */
static void flat_outputs(const int8_tensors *t, const int8_range range, const flat_band *b, long taps, const int32_t *lanes, const long *at, const int32_t *ones, long channel,
                         void *made) {
    const int32_t *weight = t->weight + channel * taps, bias = t->bias[channel];
    const f32xu scales = (t->scale ? t->scale[channel] : 0) - (f32x){0};
    for (long i = 0; i < b->rows * b->pitch; i += VB) {
        VEC sum[4] = {SPLAT(bias), SPLAT(bias), SPLAT(bias), SPLAT(bias)};
        dot_flat(taps, lanes + i / 4, at, weight, sum);
        if (t->w_zero) {
            VEC all[4] = {{0}};
            dot_flat(taps, lanes + i / 4, at, ones, all);
            UNROLL for (int j = 0; j < 4; j++) sum[j] -= all[j] * t->w_zero[channel];
        }
        if (t->scale) STORE((int32_t *)((uint8_t *)made + i), requantized_lanes(range, sum, &scales, 0));
        else {
            VEC v[4];
            in_order(sum, v);
            UNROLL for (int j = 0; j < 4; j++) STORE((int32_t *)made + i + j * VL, v[j]);
        }
    }
}

/* A flat image of numbers of so many bytes to rows of y. */
static void put_flat(const conv_geometry *g, const conv_strides *s, const flat_band *b, const uint8_t *from, uint8_t *to, const long size) {
    for (long y = 0; y < b->rows; y++, from += b->pitch * size, to += s->row * size) {
        if (s->pixel == 1) copy_bytes(to, from, g->ow * size);
        else
            for (long x = 0; x < g->ow; x++) __builtin_memcpy(to + x * s->pixel * size, from + x * size, (size_t)size);
    }
}

/* Where the lanes of tap kx are in each vector of a phase, and the elements that exist. */
static void find_taps(const conv_geometry *g, const flat_band *b, long *at, int32_t *ones) {
    for (long l = 0; l < tap_lanes(g); l++)
        for (long kx = 0; kx < g->kw; kx++, at += 4) {
            const long column = kx * g->dw, offset = column / g->sw;
            for (long j = 0; j < 4; j++) at[j] = ((l * b->phases + column % g->sw) * 4 + (j + offset) % 4) * b->lanes + (j + offset) / 4;
            *ones++ = tap_ones(g, 0, l);
        }
}

/* Some planes, in bands whose lanes stay in L1, or several planes at once: what is stored in one way and read in another had better wait a little. */
static int int8_depthwise_planes_task(void *context, long index) {
    const int8_depthwise_job *job = context;
    const conv_geometry *g = job->g;
    const int8_tensors *t = job->t;
    const flat_band row = flat_band_of(g, 1);
    const long bytes = 4 * row.pitch * row.phases * tap_lanes(g), rows = MIN(g->oh, MAX(1, LANES_BYTES / bytes)), bands = ceil_div(g->oh, rows);
    const flat_band most = flat_band_of(g, ceil_div(g->oh, bands));
    const long taps = tap_lanes(g) * g->kw, images = g->sh * most.phases * most.size, lanes = tap_lanes(g) * most.phases * 4 * most.lanes, outputs = most.lanes * 4;
    const long group = MAX(1, LANES_BYTES / (4 * lanes)), size = t->scale ? 1 : 4, planes = g->n * g->ic;
    scratch s = {pool_arena(TASK_ARENA, (size_t)(group * (images + 4 * lanes + outputs * size)) + 2 * aligned_size((size_t)taps * 4 * sizeof(long)) + 512)};
    if (!s.next) return OUT_OF_MEMORY;
    int32_t *x = take(&s, (size_t)(4 * group * lanes)), *ones = take(&s, (size_t)taps * 4);
    long *at = take(&s, (size_t)taps * 4 * sizeof(long));
    uint8_t *flat = take(&s, (size_t)(group * images)), *made = take(&s, (size_t)(group * outputs * size));
    const int8_range range = int8_range_of(t->y_signed, t->y_zero);
    for (long band = 0; band < bands; band++) {
        const long oy0 = part(g->oh, bands, band), end = part(planes, job->bands, index + 1);
        const flat_band b = flat_band_of(g, part(g->oh, bands, band + 1) - oy0);
        find_taps(g, &b, at, ones);
        for (long plane = part(planes, job->bands, index), some; plane < end; plane += some) {
            some = MIN(group, end - plane);
            for (long p = 0; p < some; p++) {
                const uint8_t *from = (const uint8_t *)t->x + (plane + p) / g->ic * t->xs.image + (plane + p) % g->ic * t->xs.channel;
                fill_flat(g, &t->xs, &b, from, oy0, (uint8_t)t->x_zero, flat + p * images);
            }
            for (long p = 0; p < some; p++) flat_to_lanes(g, job->how, &b, flat + p * images, x + p * lanes);
            for (long p = 0; p < some; p++) flat_outputs(t, range, &b, taps, x + p * lanes, at, ones, (plane + p) % g->ic, made + p * outputs * size);
            for (long p = 0; p < some; p++) {
                const long to = (plane + p) / g->ic * t->ys.image + (plane + p) % g->ic * t->ys.channel + oy0 * t->ys.row;
                if (t->scale) put_flat(g, &t->ys, &b, made + p * outputs, (uint8_t *)t->y + to, 1);
                else put_flat(g, &t->ys, &b, made + p * outputs * 4, (uint8_t *)t->y + to * 4, 4);
            }
        }
    }
    return 0;
}

static int int8_depthwise(const int8_geometry *q, const int8_tensors *t, long rows, int threads) {
    const conv_geometry *g = &q->g;
    const uint8_t *x_end = (const uint8_t *)t->x + (g->n - 1) * t->xs.image + (g->ih - 1) * t->xs.row + (g->iw - 1) * t->xs.pixel + (g->ic - 1) * t->xs.channel + 1;
    int8_depthwise_job job = {g, t, int8_reading_of(t->x_signed, t->x_zero), ceil_div(g->oh, rows), x_end};
    if (g->nhwc) return pool_run(int8_depthwise_task, (void *)&job, job.bands * g->n, threads);
    job.bands = ceil_div(g->n * g->ic, MAX(1, PLANE_TASK / (g->oh * g->ow)));
    return pool_run(int8_depthwise_planes_task, (void *)&job, job.bands, threads);
}
