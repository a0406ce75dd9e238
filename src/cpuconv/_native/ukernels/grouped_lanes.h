/* Few channels a group: whole groups of output channels fill a vector. NHWC is read in place, NCHW passes through strips of VL channels. For each j, the lanes of a pixel's input channels are put in place
   so that every output channel meets input channel j of its group; then it is a depthwise convolution, and the groups' convolution is the sum of these. A block of
   one or two rows of LANE_PIXELS output pixels stays in registers meanwhile; it finds its input pixels through a table of pointers, those of
   padding at zeros. */
#if NV_MAX == 4
#define LANE_PIXELS 8
#else
#define LANE_PIXELS 4
#endif

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    long bands, parts; /* of one image's rows, and of its vectors of output channels */
} FN(lanes_job);

/* Some pixels of one vector of output channels. */
typedef struct {
    const conv_geometry *g;
    const T *const *table; /* [rows][columns] input pixels */
    long columns, channel; /* channel: the first that is loaded */
    FN(mask) lanes;        /* of it and its successors, where input channel 0 of each output channel's group is */
    long icg;
    const T *w;            /* [kh][icg][kw][VL] */
    VEC bias;
    long rows, n;          /* output rows and pixels */
    T *y;
    const T *residual;     /* lies like y, or NULL */
    long y_row, y_pixel;
    conv_activation act;
} FN(lanes_block);

INLINE void FN(lanes_store)(const FN(lanes_block) *s, const VEC *acc, T *y, const T *residual) {
    if (s->n == LANE_PIXELS && !residual && s->act.kind <= ACT_CLIP) {
        const VEC low = SPLAT(s->act.a), high = SPLAT(s->act.b);
        const long y_pixel = s->y_pixel;
        if (s->act.kind == ACT_NONE) UNROLL for (int b = 0; b < LANE_PIXELS; b++) STORE(y + b * y_pixel, acc[b]);
        else UNROLL for (int b = 0; b < LANE_PIXELS; b++) STORE(y + b * y_pixel, FN(vmin)(high, FN(vmax)(low, acc[b])));
        return;
    }
    VEC made[LANE_PIXELS]; /* acc stays in registers only if never indexed by a variable */
    UNROLL for (int b = 0; b < LANE_PIXELS; b++) made[b] = acc[b];
    for (long b = 0; b < s->n; b++) STORE(y + b * s->y_pixel, FN(activated)(s->act, residual ? made[b] + LOAD(residual + b * s->y_pixel) : made[b]));
}

/* One row of input pixels into the upper output row (taps w0), the lower one (w1), or both; each pixel loaded serves all its taps. */
INLINE void FN(lanes_row)(const int kw, const int sw, const int upper, const int lower, const T *const *r, long c, FN(mask) lanes, const T *w0, const T *w1, VEC *acc0, VEC *acc1) {
    VEC wv0[3], wv1[3];
    if (upper) UNROLL for (int k = 0; k < kw; k++) wv0[k] = LOAD(w0 + k * VL);
    if (lower) UNROLL for (int k = 0; k < kw; k++) wv1[k] = LOAD(w1 + k * VL);
    UNROLL for (int i = 0; i < (LANE_PIXELS - 1) * sw + kw; i++) {
        const VEC v = FN(permute)(LOAD(r[i] + c), lanes);
        UNROLL for (int k = 0; k < kw; k++)
            if (i >= k && (i - k) % sw == 0 && (i - k) / sw < LANE_PIXELS) {
                if (upper) acc0[(i - k) / sw] += v * wv0[k];
                if (lower) acc1[(i - k) / sw] += v * wv1[k];
            }
    }
}

/* As lanes_row, for each input channel of the group in turn. */
INLINE void FN(lanes_rows)(const int kw, const int sw, const int upper, const int lower, const FN(lanes_block) *s, const T *const *r, const T *w0, const T *w1, VEC *acc0, VEC *acc1) {
    FN(mask) lanes = s->lanes;
    for (long j = 0; j < s->icg; j++, lanes += 1) FN(lanes_row)(kw, sw, upper, lower, r, s->channel, lanes, w0 + j * kw * VL, w1 + j * kw * VL, acc0, acc1);
}

/* kw and sw (= sh) are constants, dilation is 1; rows of the table are consecutive rows of the image. */
INLINE void FN(lanes_of)(const int kw, const int sw, const FN(lanes_block) *s) {
    const long kh = s->g->kh, w_row = s->icg * kw * VL;
    const T *const *r = s->table, *w = s->w;
    VEC acc0[LANE_PIXELS], acc1[LANE_PIXELS];
    UNROLL for (int b = 0; b < LANE_PIXELS; b++) acc0[b] = acc1[b] = s->bias;
    if (s->rows == 1)
        for (long k = 0; k < kh; k++, r += s->columns) FN(lanes_rows)(kw, sw, 1, 0, s, r, w + k * w_row, w, acc0, NULL);
    else {
        long k = 0;
        for (; k < sw; k++, r += s->columns) FN(lanes_rows)(kw, sw, 1, 0, s, r, w + k * w_row, w, acc0, NULL);
        for (; k < kh; k++, r += s->columns) FN(lanes_rows)(kw, sw, 1, 1, s, r, w + k * w_row, w + (k - sw) * w_row, acc0, acc1);
        for (; k < kh + sw; k++, r += s->columns) FN(lanes_rows)(kw, sw, 0, 1, s, r, w, w + (k - sw) * w_row, NULL, acc1);
        FN(lanes_store)(s, acc1, s->y + s->y_row, s->residual ? s->residual + s->y_row : NULL);
    }
    FN(lanes_store)(s, acc0, s->y, s->residual);
}

typedef void (*FN(lanes_kernel))(const FN(lanes_block) *);
#define LANES_OF(KW, SW) static void FN(lanes_##KW##_##SW)(const FN(lanes_block) *s) { FN(lanes_of)(KW, SW, s); }
LANES_OF(1, 1) LANES_OF(3, 1) LANES_OF(3, 2)
#undef LANES_OF

/* Any kernel size, stride and dilation; one output row, rows of the table are rows of taps. */
static void FN(lanes_any)(const FN(lanes_block) *s) {
    const conv_geometry *g = s->g;
    const T *w = s->w;
    FN(mask) lanes = s->lanes;
    VEC acc[LANE_PIXELS];
    UNROLL for (int b = 0; b < LANE_PIXELS; b++) acc[b] = s->bias;
    for (long ky = 0; ky < g->kh; ky++, lanes -= (T_INT)s->icg)
        for (long j = 0; j < s->icg; j++, lanes += 1)
            for (long kx = 0; kx < g->kw; kx++, w += VL) {
                const T *const *r = s->table + ky * s->columns + kx * g->dw;
                const VEC wv = LOAD(w);
                UNROLL for (int b = 0; b < LANE_PIXELS; b++) acc[b] += wv * FN(permute)(LOAD(r[b * g->sw] + s->channel), lanes);
            }
    FN(lanes_store)(s, acc, s->y, s->residual);
}

/* The kernel for a geometry; NULL stands for lanes_any. */
INLINE FN(lanes_kernel) FN(lanes_kernel_of)(const conv_geometry *g) {
    if (g->dh != 1 || g->dw != 1 || g->sh != g->sw || g->kh < g->sh) return NULL;
    if (g->kw == 1 && g->sw == 1) return FN(lanes_1_1);
    return g->kw == 3 ? g->sw == 1 ? FN(lanes_3_1) : g->sw == 2 ? FN(lanes_3_2) : NULL : NULL;
}

/* First output channel of vector `index`: the last one begins early enough to be whole. */
INLINE long FN(lanes_start)(const conv_geometry *g, long index) { return MIN(index * VL, g->oc - VL); }

/* Channel-last pixels that a task reads, from row 0 of the image and channel c0 on, and writes, from output row oy0 and channel o0 on; residual, or NULL, lies like y. */
typedef struct {
    const T *x, *residual;
    T *y;
    long x_row, x_pixel, y_row, y_pixel, c0, o0, channels; /* channels: read */
    conv_activation act;
} FN(lanes_view);

INLINE long FN(lanes_columns)(const conv_geometry *g) { return (LANE_PIXELS - 1) * g->sw + (g->kw - 1) * g->dw + 1; }

/* Bytes of scratch that lanes_band takes. */
INLINE size_t FN(lanes_scratch)(const conv_geometry *g, long channels) {
    return aligned_size((size_t)channels * sizeof(T)) + (size_t)((g->kh + g->sh) * FN(lanes_columns)(g)) * sizeof(T *);
}

/* Output rows [oy0, oy0 + count), vectors [v0, v1) of output channels. */
static void FN(lanes_band)(const FN(lanes_job) *job, const FN(lanes_view) *view, long oy0, long count, long v0, long v1, scratch s) {
    const conv_geometry *g = job->g;
    const FN(lanes_kernel) kernel = FN(lanes_kernel_of)(g);
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, height = kernel ? MIN(2, count) : 1;
    const long rows = g->kh + (kernel ? (height - 1) * g->sh : 0), step = kernel ? 1 : g->dh, columns = FN(lanes_columns)(g), x_pixel = view->x_pixel;
    T *zeros = take(&s, (size_t)view->channels * sizeof(T));
    const T **table = take(&s, (size_t)(rows * columns) * sizeof(T *));
    FN(zero)(zeros, view->channels);
    FN(mask) lanes;
    for (long l = 0; l < VL; l++) lanes[l] = (T_INT)(l / ocg * icg);

    FN(lanes_block) b = {.g = g, .table = table, .columns = columns, .icg = icg, .rows = height, .n = MIN(LANE_PIXELS, g->ow), .y_row = view->y_row, .y_pixel = view->y_pixel, .act = view->act};
    for (long oy = oy0; oy < oy0 + count; oy += height) {
        oy = MIN(oy, oy0 + count - height); /* an odd last pair overlaps the one before, as does a narrow last block */
        for (long left = 0; left < g->ow; left += LANE_PIXELS) {
            const long ox = MAX(0, MIN(left, g->ow - LANE_PIXELS)), ix = ox * g->sw - g->pl;
            for (long r = 0; r < rows; r++) {
                const long iy = oy * g->sh - g->pt + r * step;
                const T **to = table + r * columns, *from = view->x + iy * view->x_row + ix * x_pixel;
                if (iy < 0 || iy >= g->ih) for (long i = 0; i < columns; i++) to[i] = zeros;
                else if (ix >= 0 && ix + columns <= g->iw) for (long i = 0; i < columns; i++) to[i] = from + i * x_pixel;
                else for (long i = 0; i < columns; i++) to[i] = ix + i >= 0 && ix + i < g->iw ? from + i * x_pixel : zeros;
            }
            for (long v = v0; v < v1; v++) {
                const long o = FN(lanes_start)(g, v), c = o / ocg * icg, at = (oy - oy0) * view->y_row + ox * view->y_pixel + o - view->o0;
                const long first = MIN(c, g->ic - VL); /* that is loaded */
                b.channel = first - view->c0;
                b.lanes = lanes + (T_INT)(c - first);
                b.w = (const T *)job->tensors->weight + v * icg * g->kh * g->kw * VL;
                b.bias = LOAD((const T *)job->tensors->bias + o);
                b.y = view->y + at;
                b.residual = view->residual ? view->residual + at : NULL;
                if (kernel) kernel(&b);
                else FN(lanes_any)(&b);
            }
        }
    }
}

/* NHWC: a band of output rows, some vectors of output channels. */
static int FN(lanes_task)(void *context, long index) {
    const FN(lanes_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *t = job->tensors;
    const long which = index % job->parts, band = index / job->parts % job->bands, image = index / (job->parts * job->bands), vectors = ceil_div(g->oc, VL);
    const long oy0 = part(g->oh, job->bands, band), count = part(g->oh, job->bands, band + 1) - oy0, at = image * t->ys.image + oy0 * t->ys.row;
    scratch s = {pool_arena(TASK_ARENA, FN(lanes_scratch)(g, g->ic))};
    if (!s.next) return OUT_OF_MEMORY;
    const FN(lanes_view) view = {(const T *)t->x + image * t->xs.image, t->residual ? (const T *)t->residual + at : NULL, (T *)t->y + at,
                                 t->xs.row, t->xs.pixel, t->ys.row, t->ys.pixel, 0, 0, g->ic, job->act};
    FN(lanes_band)(job, &view, oy0, count, part(vectors, job->parts, which), part(vectors, job->parts, which + 1), s);
    return 0;
}

/* NCHW: a band of output rows, one vector of output channels. */
static int FN(lanes_strip_task)(void *context, long index) {
    const FN(lanes_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *t = job->tensors;
    const long v = index % job->parts, band = index / job->parts % job->bands, image = index / (job->parts * job->bands);
    const long oy0 = part(g->oh, job->bands, band), count = part(g->oh, job->bands, band + 1) - oy0, o = FN(lanes_start)(g, v);
    const long c = MIN(o / (g->oc / g->groups) * (g->ic / g->groups), g->ic - VL);
    const long top = MIN(g->ih, MAX(0, oy0 * g->sh - g->pt)), rows = MAX(0, MIN(g->ih, (oy0 + count - 1) * g->sh - g->pt + (g->kh - 1) * g->dh + 1) - top);
    const size_t in_bytes = (size_t)(rows * g->iw * VL) * sizeof(T), out_bytes = (size_t)(count * g->ow * VL) * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(in_bytes) + aligned_size(out_bytes) + FN(lanes_scratch)(g, VL))};
    if (!s.next) return OUT_OF_MEMORY;
    T *in = take(&s, in_bytes), *out = take(&s, out_bytes);
    const long at = image * t->ys.image + o * t->ys.channel + oy0 * t->ys.row;
    const T *residual = t->residual ? (const T *)t->residual + at : NULL;
    const conv_activation none = {ACT_NONE, 0, 0};
    FN(band_to_pixels)((const T *)t->x + image * t->xs.image + c * t->xs.channel + top * t->xs.row, &t->xs, VL, rows, g->iw, t->x_end, in, VL);
    const FN(lanes_view) view = {in - top * g->iw * VL, NULL, out, g->iw * VL, VL, g->ow * VL, VL, c, o, VL, residual ? none : job->act};
    FN(lanes_band)(job, &view, oy0, count, v, v + 1, s);
    FN(pixels_to_band)(out, VL, &t->ys, VL, count, g->ow, residual, residual ? job->act : none, (T *)t->y + at);
    return 0;
}

static long FN(grouped_lanes_packed_size)(const conv_geometry *g) { return ceil_div(g->oc, VL) * VL * (g->ic / g->groups) * g->kh * g->kw; }

/* Weight HWIO or OIHW to [vector][kh][icg][kw][VL]. */
static void FN(grouped_lanes_pack)(const conv_geometry *g, const void *weight, void *packed) {
    const T *w = weight;
    T *to = packed;
    const long icg = g->ic / g->groups, taps = g->kh * g->kw;
    for (long v = 0; v < ceil_div(g->oc, VL); v++)
        for (long ky = 0; ky < g->kh; ky++)
            for (long j = 0; j < icg; j++)
                for (long kx = 0; kx < g->kw; kx++, to += VL) {
                    const long o = FN(lanes_start)(g, v), tap = ky * g->kw + kx;
                    if (g->nhwc) STORE(to, LOAD(w + (tap * icg + j) * g->oc + o));
                    else for (long l = 0; l < VL; l++) to[l] = w[((o + l) * icg + j) * taps + tap];
                }
}

static int FN(grouped_lanes)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    FN(lanes_job) job = {g, tensors, act, ceil_div(g->oh, blocking->block), 1};
    const long vectors = ceil_div(g->oc, VL);
    if (!g->nhwc) job.parts = vectors;
    else if (threads > 1) job.parts = MIN(vectors, ceil_div(4 * threads, MAX(1, g->n * job.bands)));
    return pool_run(g->nhwc ? FN(lanes_task) : FN(lanes_strip_task), &job, g->n * job.bands * job.parts, threads);
}
#undef LANE_PIXELS
