/* Few channels a group, NHWC: whole groups of output channels fill a vector. For each j, the lanes of a pixel's input channels are put in place
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

/* A band of output rows, some vectors of output channels. */
static int FN(lanes_task)(void *context, long index) {
    const FN(lanes_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *t = job->tensors;
    const FN(lanes_kernel) kernel = FN(lanes_kernel_of)(g);
    const long which = index % job->parts, band = index / job->parts % job->bands, image = index / (job->parts * job->bands);
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, vectors = ceil_div(g->oc, VL), v0 = part(vectors, job->parts, which), v1 = part(vectors, job->parts, which + 1);
    const long oy0 = part(g->oh, job->bands, band), count = part(g->oh, job->bands, band + 1) - oy0, height = kernel ? MIN(2, count) : 1;
    const long rows = g->kh + (kernel ? (height - 1) * g->sh : 0), step = kernel ? 1 : g->dh, columns = (LANE_PIXELS - 1) * g->sw + (g->kw - 1) * g->dw + 1;
    const size_t zero_bytes = (size_t)g->ic * sizeof(T), table_bytes = (size_t)(rows * columns) * sizeof(T *);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(zero_bytes) + table_bytes)};
    if (!s.next) return OUT_OF_MEMORY;
    T *zeros = take(&s, zero_bytes);
    const T **table = take(&s, table_bytes), *x = (const T *)t->x + image * t->xs.image, *residual = t->residual;
    FN(zero)(zeros, g->ic);
    FN(mask) lanes;
    for (long l = 0; l < VL; l++) lanes[l] = (T_INT)(l / ocg * icg);

    FN(lanes_block) b = {.g = g, .table = table, .columns = columns, .icg = icg, .rows = height, .n = MIN(LANE_PIXELS, g->ow), .y_row = t->ys.row, .y_pixel = t->ys.pixel, .act = job->act};
    for (long oy = oy0; oy < oy0 + count; oy += height) {
        oy = MIN(oy, oy0 + count - height); /* an odd last pair overlaps the one before, as does a narrow last block */
        for (long left = 0; left < g->ow; left += LANE_PIXELS) {
            const long ox = MAX(0, MIN(left, g->ow - LANE_PIXELS)), ix = ox * g->sw - g->pl;
            for (long r = 0; r < rows; r++) {
                const long iy = oy * g->sh - g->pt + r * step;
                const T **to = table + r * columns, *from = x + iy * t->xs.row + ix * t->xs.pixel;
                if (iy < 0 || iy >= g->ih) for (long i = 0; i < columns; i++) to[i] = zeros;
                else if (ix >= 0 && ix + columns <= g->iw) for (long i = 0; i < columns; i++) to[i] = from + i * t->xs.pixel;
                else for (long i = 0; i < columns; i++) to[i] = ix + i >= 0 && ix + i < g->iw ? from + i * t->xs.pixel : zeros;
            }
            for (long v = v0; v < v1; v++) {
                const long c = FN(lanes_start)(g, v), first = c / ocg * icg, at = image * t->ys.image + oy * t->ys.row + ox * t->ys.pixel + c;
                b.channel = MIN(first, g->ic - VL);
                b.lanes = lanes + (T_INT)(first - b.channel);
                b.w = (const T *)t->weight + v * icg * g->kh * g->kw * VL;
                b.bias = LOAD((const T *)t->bias + c);
                b.y = (T *)t->y + at;
                b.residual = residual ? residual + at : NULL;
                if (kernel) kernel(&b);
                else FN(lanes_any)(&b);
            }
        }
    }
    return 0;
}

/* Weight HWIO to [vector][kh][icg][kw][VL]. */
static void FN(lanes_pack)(const conv_geometry *g, const T *w, T *to) {
    const long icg = g->ic / g->groups;
    for (long v = 0; v < ceil_div(g->oc, VL); v++)
        for (long ky = 0; ky < g->kh; ky++)
            for (long j = 0; j < icg; j++)
                for (long kx = 0; kx < g->kw; kx++, to += VL) STORE(to, LOAD(w + ((ky * g->kw + kx) * icg + j) * g->oc + FN(lanes_start)(g, v)));
}

static int FN(grouped_lanes)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    FN(lanes_job) job = {g, tensors, act, ceil_div(g->oh, blocking->block), 1};
    if (threads > 1) job.parts = MIN(ceil_div(g->oc, VL), ceil_div(4 * threads, MAX(1, g->n * job.bands)));
    return pool_run(FN(lanes_task), &job, g->n * job.bands * job.parts, threads);
}
#undef LANE_PIXELS
