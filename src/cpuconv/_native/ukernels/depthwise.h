/* Depthwise convolution (one input channel an output channel), any kernel size, stride and dilation. A vector holds VL channels
   of a pixel; a block of two rows of XB output pixels stays in registers while the taps pass. A block finds its input pixels
   through a table of pointers, as in XNNPACK, made once for all channels; those of padding point at zeros. NHWC is read in
   place; fewer than VL channels, and NCHW that the kernels of depthwise_planes.h do not do, pass through strips of VL channels. */
#if NV_MAX == 4
#define XB 8
#else
#define XB 4
#endif

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    long bands, parts; /* of one image's rows, and of its vectors of channels (NHWC) */
} FN(depthwise_job);

/* Up to two rows of XB output pixels, of which n exist, of one vector of channels, of which `lanes` exist. */
typedef struct {
    const T *const *table; /* [rows][columns] input pixels */
    long columns, c;       /* c: first channel */
    const T *w;            /* [kh][kw][VL] */
    VEC bias;
    long rows, n, lanes;
    T *y;
    const T *residual;     /* lies like y, or NULL */
    long y_row, y_pixel;
    conv_activation act;
} FN(dw_block);

INLINE void FN(store_row)(const FN(dw_block) *s, const VEC *acc, T *y, const T *residual) {
    if (s->n == XB && s->lanes == VL && !residual && s->act.kind <= ACT_CLIP) {
        const VEC low = SPLAT(s->act.a), high = SPLAT(s->act.b);
        if (s->act.kind == ACT_NONE) UNROLL for (int b = 0; b < XB; b++) STORE(y + b * s->y_pixel, acc[b]);
        else UNROLL for (int b = 0; b < XB; b++) STORE(y + b * s->y_pixel, FN(vmin)(high, FN(vmax)(low, acc[b])));
        return;
    }
    VEC made[XB]; /* acc stays in registers only if never indexed by a variable */
    UNROLL for (int b = 0; b < XB; b++) made[b] = acc[b];
    for (long b = 0; b < s->n; b++) {
        const long at = b * s->y_pixel;
        VEC v = made[b];
        if (residual) v += s->lanes == VL ? LOAD(residual + at) : FN(load_part)(residual + at, s->lanes);
        v = FN(activated)(s->act, v);
        if (s->lanes == VL) STORE(y + at, v);
        else FN(store_part)(y + at, v, s->lanes);
    }
}

/* One row of input pixels into the upper output row (taps w0), the lower one (w1), or both; each pixel loaded serves all its taps. */
INLINE void FN(tap_row)(const int kw, const int sw, const int upper, const int lower, const T *const *r, long c, const T *w0, const T *w1, VEC *acc0, VEC *acc1) {
    VEC wv0[7], wv1[7];
    if (upper) UNROLL for (int k = 0; k < kw; k++) wv0[k] = LOAD(w0 + k * VL);
    if (lower) UNROLL for (int k = 0; k < kw; k++) wv1[k] = LOAD(w1 + k * VL);
    UNROLL for (int i = 0; i < (XB - 1) * sw + kw; i++) {
        const VEC v = LOAD(r[i] + c);
        UNROLL for (int k = 0; k < kw; k++)
            if (i >= k && (i - k) % sw == 0 && (i - k) / sw < XB) {
                if (upper) acc0[(i - k) / sw] += v * wv0[k];
                if (lower) acc1[(i - k) / sw] += v * wv1[k];
            }
    }
}

/* kw and sw (= sh) are constants, dilation is 1; rows of the table are consecutive rows of the image. */
INLINE void FN(block_of)(const int kw, const int sw, const long kh, const FN(dw_block) *s) {
    const T *const *r = s->table;
    const long w_row = kw * VL;
    VEC acc0[XB], acc1[XB];
    UNROLL for (int b = 0; b < XB; b++) acc0[b] = acc1[b] = s->bias;
    if (s->rows == 1)
        for (long k = 0; k < kh; k++, r += s->columns) FN(tap_row)(kw, sw, 1, 0, r, s->c, s->w + k * w_row, NULL, acc0, NULL);
    else {
        long k = 0;
        for (; k < sw; k++, r += s->columns) FN(tap_row)(kw, sw, 1, 0, r, s->c, s->w + k * w_row, NULL, acc0, NULL);
        for (; k < kh; k++, r += s->columns) FN(tap_row)(kw, sw, 1, 1, r, s->c, s->w + k * w_row, s->w + (k - sw) * w_row, acc0, acc1);
        for (; k < kh + sw; k++, r += s->columns) FN(tap_row)(kw, sw, 0, 1, r, s->c, NULL, s->w + (k - sw) * w_row, NULL, acc1);
        FN(store_row)(s, acc1, s->y + s->y_row, s->residual ? s->residual + s->y_row : NULL);
    }
    FN(store_row)(s, acc0, s->y, s->residual);
}

typedef void (*FN(block_kernel))(const conv_geometry *g, const FN(dw_block) *s);
#define BLOCK(KW, SW) static void FN(block_##KW##_##SW)(const conv_geometry *g, const FN(dw_block) *s) { FN(block_of)(KW, SW, g->kh, s); }
BLOCK(3, 1) BLOCK(3, 2) BLOCK(5, 1) BLOCK(5, 2) BLOCK(7, 1)
#undef BLOCK

/* Any kernel size, stride and dilation; one output row, rows of the table are rows of taps. */
static void FN(block_any)(const conv_geometry *g, const FN(dw_block) *s) {
    VEC acc[XB];
    UNROLL for (int b = 0; b < XB; b++) acc[b] = s->bias;
    const T *w = s->w;
    for (long ky = 0; ky < g->kh; ky++)
        for (long kx = 0; kx < g->kw; kx++, w += VL) {
            const T *const *r = s->table + ky * s->columns + kx * g->dw;
            const VEC wv = LOAD(w);
            UNROLL for (int b = 0; b < XB; b++) acc[b] += wv * LOAD(r[b * g->sw] + s->c);
        }
    FN(store_row)(s, acc, s->y, s->residual);
}

/* The kernel for a geometry; NULL stands for block_any. */
INLINE FN(block_kernel) FN(block_kernel_of)(const conv_geometry *g) {
    if (g->dh != 1 || g->dw != 1 || g->sh != g->sw || g->kh < g->sh) return NULL;
    if (g->kw == 3) return g->sw == 1 ? FN(block_3_1) : g->sw == 2 ? FN(block_3_2) : NULL;
    if (g->kw == 5) return g->sw == 1 ? FN(block_5_1) : g->sw == 2 ? FN(block_5_2) : NULL;
    return g->kw == 7 && g->sw == 1 ? FN(block_7_1) : NULL;
}

INLINE long FN(table_columns)(const conv_geometry *g) { return (XB - 1) * g->sw + (g->kw - 1) * g->dw + 1; }
INLINE long FN(table_rows)(const conv_geometry *g) { return g->kh + g->sh; }

/* Channels of vector `index`: the last one begins early enough to be whole, where there are that many channels. */
INLINE long FN(vector_start)(const conv_geometry *g, long index) { return MAX(0, MIN(index * VL, g->ic - VL)); }

/* Output rows [oy, oy + count), of which `s` has the rest: vectors [v0, v1), from channel-last pixels at `image` whose row
   `top` is the first. s->y is pixel (oy, 0) of channel 0. */
static void FN(depthwise_rows)(const FN(depthwise_job) *job, FN(dw_block) s, const T *image, long row, long pixel, long top, long oy, long count, long v0, long v1,
                               const T *zeros, const T **table) {
    const conv_geometry *g = job->g;
    const FN(block_kernel) kernel = FN(block_kernel_of)(g);
    const long taps = g->kh * g->kw, height = kernel ? MIN(2, count) : 1, step = kernel ? 1 : g->dh, blocks = ceil_div(g->ow, XB);
    const long rows = kernel ? g->kh + (height - 1) * g->sh : g->kh;
    FN(dw_block) b = s;
    b.table = table;
    b.columns = FN(table_columns)(g);
    b.rows = height;
    b.n = MIN(XB, g->ow);
    for (long i = 0; i < count; i += height) {
        i = MIN(i, count - height); /* an odd last pair overlaps the one before, as does a narrow last block */
        for (long block = 0; block < blocks; block++) {
            const long ox = MAX(0, MIN(block * XB, g->ow - XB)), ix = ox * g->sw - g->pl;
            for (long r = 0; r < rows; r++) {
                const long iy = (oy + i) * g->sh - g->pt + r * step;
                const T **to = table + r * b.columns, *from = image + (iy - top) * row + ix * pixel;
                if (iy < 0 || iy >= g->ih) for (long x = 0; x < b.columns; x++) to[x] = zeros;
                else if (ix >= 0 && ix + b.columns <= g->iw) for (long x = 0; x < b.columns; x++) to[x] = from + x * pixel;
                else for (long x = 0; x < b.columns; x++) to[x] = ix + x >= 0 && ix + x < g->iw ? from + x * pixel : zeros;
            }
            const long at = i * s.y_row + ox * s.y_pixel;
            for (long v = v0; v < v1; v++) {
                const long c = s.lanes ? 0 : FN(vector_start)(g, v);
                b.c = c;
                b.lanes = s.lanes ? s.lanes : VL;
                b.w = (const T *)job->tensors->weight + v * (taps + 1) * VL;
                b.bias = LOAD(b.w + taps * VL);
                b.y = s.y + at + c;
                b.residual = s.residual ? s.residual + at + c : NULL;
                if (kernel) kernel(g, &b);
                else FN(block_any)(g, &b);
            }
        }
    }
}

/* NHWC: a band of rows, in place. */
static int FN(depthwise_task)(void *context, long index) {
    const FN(depthwise_job) *job = context;
    const conv_geometry *g = job->g;
    const long vectors = ceil_div(g->ic, VL), which = index % job->parts, band = index / job->parts % job->bands, image = index / (job->parts * job->bands);
    const size_t zero_bytes = (size_t)g->ic * sizeof(T), table_bytes = (size_t)(FN(table_rows)(g) * FN(table_columns)(g)) * sizeof(T *);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(zero_bytes) + table_bytes)};
    if (!s.next) return OUT_OF_MEMORY;
    T *zeros = take(&s, zero_bytes);
    const T **table = take(&s, table_bytes);
    FN(zero)(zeros, g->ic);
    const conv_tensors *t = job->tensors;
    const long oy = part(g->oh, job->bands, band), count = part(g->oh, job->bands, band + 1) - oy, at = image * t->ys.image + oy * t->ys.row;
    const T *residual = t->residual;
    const FN(dw_block) block = {.y = (T *)t->y + at, .residual = residual ? residual + at : NULL, .y_row = t->ys.row, .y_pixel = t->ys.pixel, .act = job->act};
    FN(depthwise_rows)(job, block, (const T *)t->x + image * t->xs.image, t->xs.row, t->xs.pixel, 0, oy, count,
                       part(vectors, job->parts, which), part(vectors, job->parts, which + 1), zeros, table);
    return 0;
}

/* NCHW that the planes' kernels do not do, or fewer than VL channels: a band of rows of one vector of channels, through strips. */
static int FN(depthwise_strip_task)(void *context, long index) {
    const FN(depthwise_job) *job = context;
    const conv_geometry *g = job->g;
    const long vectors = ceil_div(g->ic, VL), v = index % vectors, band = index / vectors % job->bands, image = index / (vectors * job->bands);
    const long c = v * VL, lanes = MIN(VL, g->ic - c), oy = part(g->oh, job->bands, band), count = part(g->oh, job->bands, band + 1) - oy;
    const long top = MIN(g->ih, MAX(0, oy * g->sh - g->pt)), rows = MAX(0, MIN(g->ih, (oy + count - 1) * g->sh - g->pt + (g->kh - 1) * g->dh + 1) - top);
    const size_t in_bytes = (size_t)(rows * g->iw * VL) * sizeof(T), out_bytes = g->nhwc ? 0 : (size_t)(count * g->ow * VL) * sizeof(T);
    const size_t table_bytes = (size_t)(FN(table_rows)(g) * FN(table_columns)(g)) * sizeof(T *), zero_bytes = (size_t)VL * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(in_bytes) + aligned_size(out_bytes) + aligned_size(table_bytes) + aligned_size(zero_bytes))};
    if (!s.next) return OUT_OF_MEMORY;
    T *in = take(&s, in_bytes), *out = take(&s, out_bytes), *zeros = take(&s, zero_bytes);
    const T **table = take(&s, table_bytes);
    FN(zero)(zeros, VL);
    const conv_tensors *t = job->tensors;
    const T *x = (const T *)t->x + image * t->xs.image + top * t->xs.row + c * t->xs.channel, *residual = t->residual;
    const long at = image * t->ys.image + oy * t->ys.row + c * t->ys.channel;
    FN(dw_block) block = {.lanes = lanes};
    if (g->nhwc) {
        for (long y = 0; y < rows; y++)
            for (long i = 0; i < g->iw; i++) STORE(in + (y * g->iw + i) * VL, FN(load_part)(x + y * t->xs.row + i * t->xs.pixel, lanes));
        block.y = (T *)t->y + at;
        block.residual = residual ? residual + at : NULL;
        block.y_row = t->ys.row;
        block.y_pixel = t->ys.pixel;
        block.act = job->act;
        FN(depthwise_rows)(job, block, in, g->iw * VL, VL, top, oy, count, v, v + 1, zeros, table);
        return 0;
    }
    FN(band_to_pixels)(x, &t->xs, lanes, rows, g->iw, t->x_end, in, VL);
    block.y = out;
    block.y_row = g->ow * VL;
    block.y_pixel = block.lanes = VL;
    FN(depthwise_rows)(job, block, in, g->iw * VL, VL, top, oy, count, v, v + 1, zeros, table);
    FN(pixels_to_band)(out, VL, &t->ys, lanes, count, g->ow, residual ? residual + at : NULL, job->act, (T *)t->y + at);
    return 0;
}

static int FN(depthwise)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    const long bands = ceil_div(g->oh, blocking->block), vectors = ceil_div(g->ic, VL);
    if (FN(plane_kernel_of)(g)) {
        const long groups = g->oc * ceil_div(g->oh, FN(group_rows)(g));
        const long repaid = MIN(8 * threads, g->oc * g->oh * g->ow / PLANE_TASK); /* tasks that repay their start */
        FN(planes_job) job = {g, tensors, act, threads == 1 ? 1 : MAX(1, MIN(groups, repaid))};
        return pool_run(FN(planes_task), &job, g->n * job.tasks, threads);
    }
    FN(depthwise_job) job = {g, tensors, act, bands, 1};
    if (!g->nhwc || g->ic < VL) return pool_run(FN(depthwise_strip_task), &job, g->n * vectors * bands, threads);
    if (threads > 1) job.parts = MIN(vectors, ceil_div(4 * threads, MAX(1, g->n * bands)));
    return pool_run(FN(depthwise_task), &job, g->n * bands * job.parts, threads);
}

/* Weight (HWIO or OIHW) and bias to [vector][kh kw + 1][VL], or for planes to [channel][kh kw + 1]: the bias comes last. */
static void FN(depthwise_pack)(const conv_geometry *g, const void *weight, const void *bias, void *packed) {
    const long taps = g->kh * g->kw, width = FN(plane_kernel_of)(g) ? 1 : VL;
    const int shifted = g->nhwc && g->ic >= VL;
    T *to = packed;
    for (long v = 0; v < ceil_div(g->ic, width); v++) {
        const long c = shifted ? FN(vector_start)(g, v) : v * width;
        for (long t = 0; t < taps; t++)
            for (long l = 0; l < width; l++) *to++ = c + l >= g->ic ? 0 : ((const T *)weight)[g->nhwc ? t * g->oc + c + l : (c + l) * taps + t];
        for (long l = 0; l < width; l++) *to++ = c + l >= g->ic ? 0 : ((const T *)bias)[c + l];
    }
}
static int FN(depthwise_by_planes)(const conv_geometry *g) { return FN(plane_kernel_of)(g) != NULL; }
static long FN(depthwise_packed_size)(const conv_geometry *g) {
    const long width = FN(plane_kernel_of)(g) ? 1 : VL;
    return ceil_div(g->ic, width) * width * (g->kh * g->kw + 1);
}
#undef XB
