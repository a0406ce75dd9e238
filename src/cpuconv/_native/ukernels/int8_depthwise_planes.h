/* Depthwise convolution of 8-bit integers, NCHW: by the floating kernels, in whose 24 bits the sum of 258 products of such integers is exact. Some planes,
   or a band of the rows of one, become floats, less the zero point, so that padding is 0. */

enum { AROUND = 4 * VL /* floats that kernels may read on either side of planes */ };

typedef struct {
    const conv_geometry *g;
    const int8_tensors *t;
    const conv_family *floats;
    long bands, channels; /* of an image's rows; planes at a time, a power of two that is at most VL */
} int8_planes_job;

INLINE f32x floats_of(const uint8_t *from, uint8_t flip, int32_t zero) {
    u8x bytes;
    __builtin_memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(__builtin_convertvector(bytes ^ flip, VEC) - zero, f32x);
}

/* n bytes to floats. */
static void bytes_to_floats(const int8_tensors *t, const uint8_t *restrict from, long n, float *restrict to) {
    const uint8_t flip = t->x_signed ? 0x80 : 0;
    const int32_t zero = t->x_zero + flip;
    long i = 0;
    for (; i + VL <= n; i += VL) *(f32xu *)(to + i) = floats_of(from + i, flip, zero);
    if (i && i < n) *(f32xu *)(to + n - VL) = floats_of(from + n - VL, flip, zero);
    else for (; i < n; i++) to[i] = (float)((from[i] ^ flip) - zero);
}

/* VL sums, of which floats have all but the bias. */
INLINE VEC sums_of(const float *sums, VEC bias) { return __builtin_convertvector(*(const f32xu *)sums, VEC) + bias; }

/* The first n < VB bytes. (Not store_some: with more callers gcc makes it call memcpy, and then the loops of int8_depthwise.h, which hardly ever call it,
   keep fewer vectors in registers: they took 1.1 times as long.) */
INLINE void store_first(uint8_t *y, VEC bytes, long n) {
    i32_store_part((int32_t *)y, bytes, n / 4);
    for (long i = n / 4 * 4; i < n; i++) y[i] = ((const uint8_t *)&bytes)[i];
}

/* n sums of one channel to bytes, or as they are; there is room for VB of them. */
static void put_bytes(const int8_range range, const float *restrict sums, long n, int32_t bias, float scale, uint8_t *restrict y) {
    const f32xu s = scale - (f32x){0};
    for (long p = 0; p < n; p += VB) {
        const long i = n < VB ? 0 : MIN(p, n - VB); /* the last ones overlap those before */
        VEC sum[4];
        UNROLL for (int j = 0; j < 4; j++) sum[j] = sums_of(sums + i + j * VL, SPLAT(bias));
        const VEC bytes = bytes_in_order(requantized_lanes(range, sum, &s, 0));
        if (n < VB) store_first(y, bytes, n);
        else STORE((int32_t *)(y + i), bytes);
    }
}
static void put_words(const float *restrict sums, long n, int32_t bias, int32_t *restrict y) {
    const VEC b = SPLAT(bias);
    long i = 0;
    for (; i + VL <= n; i += VL) STORE(y + i, sums_of(sums + i, b));
    if (i && i < n) STORE(y + n - VL, sums_of(sums + n - VL, b));
    else if (i < n) i32_store_part(y, sums_of(sums, b), n);
}

/* The geometry of output rows [oy, end) of planes [c, c + channels); returns the first input row. */
static long planes_part(const conv_geometry *g, long c, long channels, long oy, long end, conv_geometry *part) {
    const long first = oy * g->sh - g->pt, top = MIN(g->ih, MAX(0, first));
    *part = *g;
    part->n = 1;
    part->ic = part->oc = part->groups = MIN(channels, g->ic - c);
    part->oh = end - oy;
    part->ih = MAX(top, MIN(g->ih, first + (part->oh - 1) * g->sh + (g->kh - 1) * g->dh + 1)) - top;
    part->pt = top - first;
    return top;
}

/* Arrays are contiguous. weight: floats [blocks of VL channels][kh kw + 1][VL]; the last row of each, which would be the bias, is 0. */
static int int8_planes_task(void *context, long index) {
    const int8_planes_job *job = context;
    const conv_geometry *g = job->g;
    const int8_tensors *t = job->t;
    const long parts = ceil_div(g->ic, job->channels), band = index % job->bands, c = index / job->bands % parts * job->channels, image = index / (job->bands * parts);
    const long oy = part(g->oh, job->bands, band);
    conv_geometry f;
    const long top = planes_part(g, c, job->channels, oy, part(g->oh, job->bands, band + 1), &f), in = f.ih * g->iw, out = f.oh * g->ow;
    float *const memory = pool_arena(BAND_ARENA, (size_t)(f.ic * (in + out) + 3 * AROUND) * sizeof(float));
    if (!memory) return OUT_OF_MEMORY;
    float *const x = memory + AROUND, *const y = x + f.ic * in + AROUND;
    const uint8_t *from = (const uint8_t *)t->x + (image * g->ic + c) * g->ih * g->iw + top * g->iw;
    if (f.ih == g->ih) bytes_to_floats(t, from, f.ic * in, x);
    else for (long i = 0; i < f.ic; i++) bytes_to_floats(t, from + i * g->ih * g->iw, in, x + i * in);
    const conv_blocking blocking = {.block = f.oh, .channels = VL};
    const conv_tensors floats = {.x = x, .x_begin = x - AROUND, .x_end = x + f.ic * in + AROUND, .weight = (const float *)t->weight + c / VL * VL * (g->kh * g->kw + 1) + c % VL,
                                 .y = y, .xs = {0, in, g->iw, 1}, .ys = {0, out, g->ow, 1}};
    const int status = job->floats->depthwise(&f, &blocking, &floats, (conv_activation){0}, 1);
    if (status) return status;
    const int8_range range = int8_range_of(t->y_signed, t->y_zero);
    for (long i = 0; i < f.ic; i++) {
        const long at = ((image * g->ic + c + i) * g->oh + oy) * g->ow;
        if (t->scale) put_bytes(range, y + i * out, out, t->bias[c + i], t->scale[c + i], (uint8_t *)t->y + at);
        else put_words(y + i * out, out, t->bias[c + i], (int32_t *)t->y + at);
    }
    return 0;
}

static int int8_depthwise(const int8_geometry *q, const int8_tensors *t, const conv_family *floats, const conv_blocking *blocking, int threads) {
    const conv_geometry *g = &q->g;
    const long bands = ceil_div(g->oh, blocking->block);
    if (g->nhwc) {
        const uint8_t *x_end = (const uint8_t *)t->x + (g->n - 1) * t->xs.image + (g->ih - 1) * t->xs.row + (g->iw - 1) * t->xs.pixel + (g->ic - 1) * t->xs.channel + 1;
        int8_depthwise_job job = {g, t, int8_reading_of(t->x_signed, t->x_zero), bands, x_end};
        return pool_run(int8_depthwise_task, &job, job.bands * g->n, threads);
    }
    const long parts = g->n * ceil_div(g->ic, blocking->channels), enough = threads == 1 ? 1 : MIN(ceil_div(g->oh, 8), ceil_div(4 * threads, parts));
    int8_planes_job job = {g, t, floats, MAX(bands, enough), blocking->channels};
    return pool_run(int8_planes_task, &job, parts * job.bands, threads);
}
