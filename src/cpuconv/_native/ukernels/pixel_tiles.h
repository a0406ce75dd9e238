/* Few input channels, NHWC, not grouped. A band of the input is copied once, padded. A tile is a run of output pixels, which then lie at one distance
   from each other in the copy, against a few vectors of output channels: pixels are broadcast, the weight is read in vectors. With so few products to
   sum, tall tiles without any bookkeeping of rows, taps and edges matter more than anything else. */
#if NV_MAX == 4
enum { FN(TILE_WIDTH) = 4 };
INLINE int FN(tile_pixels)(int nv) { return nv == 1 ? 16 : nv < 4 ? 8 : 6; }
#else
enum { FN(TILE_WIDTH) = 2 };
INLINE int FN(tile_pixels)(int nv) { return nv == 1 ? 8 : 6; }
#endif

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    long bands;
} FN(pixels_job);

/* Vectors of a panel of output channels; where there is no whole number of panels, the last one overlaps the one before. */
INLINE int FN(panel_width)(const conv_geometry *g) {
    const long vectors = ceil_div(g->oc, VL);
    return (int)MIN(g->oc / VL, ceil_div(vectors, ceil_div(vectors, FN(TILE_WIDTH))));
}
INLINE long FN(panel_start)(const conv_geometry *g, long index) {
    const long columns = FN(panel_width)(g) * VL;
    return MIN(index * columns, g->oc - columns);
}

typedef struct {
    const long *taps; /* where they and their channels lie, from an output pixel's place */
    long count, step; /* step: between pixels of the copy */
    const T *weight, *bias;
    T *y;
    const T *residual; /* lies like y, or NULL */
    long y_pixel, n;   /* n: pixels that exist */
    conv_activation act;
} FN(pixel_tile);

INLINE void FN(pixel_tile_of)(const int nv, const FN(pixel_tile) *t, const T *a) {
    const int mr = FN(tile_pixels)(nv);
    const long step = t->step;
    const T *w = t->weight;
    VEC acc[16][4];
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = LOAD(t->bias + j * VL);
    for (const long *tap = t->taps, *last = tap + t->count; tap < last; tap++, w += nv * VL) {
        const T *const low = a + *tap, *const high = low + 8 * step;
        VEC wv[4];
        UNROLL for (int j = 0; j < nv; j++) wv[j] = LOAD(w + j * VL);
        UNROLL for (int i = 0; i < mr; i++) {
            const T s = i < 8 ? low[i * step] : high[(i - 8) * step];
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] += s * wv[j];
        }
    }
    if (t->n == mr && !t->residual && t->act.kind <= ACT_CLIP) {
        T *const y = t->y;
        const long y_pixel = t->y_pixel;
        if (t->act.kind == ACT_CLIP) {
            const VEC least = SPLAT(t->act.a), most = SPLAT(t->act.b);
            UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = FN(vmin)(most, FN(vmax)(least, acc[i][j]));
        }
        UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) STORE(y + i * y_pixel + j * VL, acc[i][j]);
        return;
    }
    VEC made[16][4]; /* acc stays in registers only if never indexed by a variable */
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) made[i][j] = acc[i][j];
    for (long i = 0; i < t->n; i++)
        for (long j = 0; j < nv; j++) {
            const long at = i * t->y_pixel + j * VL;
            STORE(t->y + at, FN(activated)(t->act, t->residual ? made[i][j] + LOAD(t->residual + at) : made[i][j]));
        }
}
static void FN(pixel_tile_1)(const FN(pixel_tile) *t, const T *a) { FN(pixel_tile_of)(1, t, a); }
static void FN(pixel_tile_2)(const FN(pixel_tile) *t, const T *a) { FN(pixel_tile_of)(2, t, a); }
#if NV_MAX == 4
static void FN(pixel_tile_3)(const FN(pixel_tile) *t, const T *a) { FN(pixel_tile_of)(3, t, a); }
static void FN(pixel_tile_4)(const FN(pixel_tile) *t, const T *a) { FN(pixel_tile_of)(4, t, a); }
#endif
static void (*const FN(pixel_ukernels)[])(const FN(pixel_tile) *, const T *) = {
    FN(pixel_tile_1), FN(pixel_tile_2),
#if NV_MAX == 4
    FN(pixel_tile_3), FN(pixel_tile_4),
#endif
};

/* `rows` rows of the padded image from row iy on (negative: padding), `pitch` elements each. */
static void FN(pad_rows)(const conv_geometry *g, const T *image, const conv_strides *xs, long iy, long rows, long pitch, T *to) {
    const long lead = MAX(0, g->pl), skip = lead - g->pl, pixels = MIN(g->iw - skip, pitch / g->ic - lead);
    for (; rows > 0; rows--, iy++, to += pitch) {
        if (iy < 0 || iy >= g->ih || pixels <= 0) {
            FN(zero)(to, pitch);
            continue;
        }
        const T *from = image + iy * xs->row + skip * xs->pixel;
        FN(zero)(to, lead * g->ic);
        if (xs->pixel == g->ic) FN(copy)(to + lead * g->ic, from, pixels * g->ic);
        else for (long p = 0; p < pixels; p++) FN(copy)(to + (lead + p) * g->ic, from + p * xs->pixel, g->ic);
        FN(zero)(to + (lead + pixels) * g->ic, pitch - (lead + pixels) * g->ic);
    }
}

/* A band of output rows. */
static int FN(pixels_task)(void *context, long index) {
    const FN(pixels_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *in = job->tensors;
    const long image = index / job->bands, band = index % job->bands, oy0 = part(g->oh, job->bands, band), rows = part(g->oh, job->bands, band + 1) - oy0;
    const int nv = FN(panel_width)(g), mr = FN(tile_pixels)(nv);
    const long k = g->kh * g->kw * g->ic, panels = ceil_div(g->oc, nv * VL);
    /* tiles read whole, also where fewer pixels exist */
    const long pitch = ((MAX(g->ow, mr) - 1) * g->sw + (g->kw - 1) * g->dw + 1) * g->ic, in_rows = (rows - 1) * g->sh + (g->kh - 1) * g->dh + 1;
    const size_t copy_bytes = (size_t)(in_rows * pitch) * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(copy_bytes) + (size_t)k * sizeof(long))};
    if (!s.next) return OUT_OF_MEMORY;
    T *copy = take(&s, copy_bytes);
    long *taps = take(&s, (size_t)k * sizeof(long)), *tap = taps;
    for (long ky = 0; ky < g->kh; ky++)
        for (long kx = 0; kx < g->kw; kx++)
            for (long c = 0; c < g->ic; c++) *tap++ = ky * g->dh * pitch + kx * g->dw * g->ic + c;
    const T *x = (const T *)in->x + image * in->xs.image;
    const long chunk = ceil_div(g->iw * in->xs.pixel, ceil_div(g->ow, mr)); /* of an input row, for each tile of an output row */

    FN(pixel_tile) t = {.taps = taps, .count = k, .step = g->sw * g->ic, .y_pixel = in->ys.pixel, .n = MIN(mr, g->ow), .act = job->act};
    for (long row = 0, filled = 0; row < rows; row++) {
        const long end = in_rows - (rows - 1 - row) * g->sh, iy = oy0 * g->sh - g->pt;
        FN(pad_rows)(g, x, &in->xs, iy + filled, end - filled, pitch, copy + filled * pitch);
        filled = end;
        const T *coming = x + MIN(g->ih - 1, MAX(0, iy + end)) * in->xs.row;
        for (long left = 0; left < g->ow; left += mr, coming += chunk) {
            for (long i = 0; row < rows - 1 && i < g->sh; i++)
                for (long j = 0; j < chunk; j += 64 / (long)sizeof(T)) __builtin_prefetch(coming + i * in->xs.row + j);
            const long ox = MAX(0, MIN(left, g->ow - mr)), at = image * in->ys.image + (oy0 + row) * in->ys.row + ox * in->ys.pixel; /* a narrow last tile overlaps */
            for (long p = 0; p < panels; p++) {
                const long c = FN(panel_start)(g, p);
                t.weight = (const T *)in->weight + p * k * nv * VL;
                t.bias = (const T *)in->bias + c;
                t.y = (T *)in->y + at + c;
                t.residual = in->residual ? (const T *)in->residual + at + c : NULL;
                FN(pixel_ukernels)[nv - 1](&t, copy + row * g->sh * pitch + ox * t.step);
            }
        }
    }
    return 0;
}

/* Weight HWIO to [panel][kh kw ic][columns]. */
static void FN(pixels_pack)(const conv_geometry *g, const T *w, T *to) {
    const long columns = FN(panel_width)(g) * VL, k = g->kh * g->kw * g->ic;
    for (long p = 0; p < ceil_div(g->oc, columns); p++)
        for (long i = 0; i < k; i++, to += columns) FN(copy)(to, w + i * g->oc + FN(panel_start)(g, p), columns);
}
static long FN(pixels_packed_size)(const conv_geometry *g) {
    const long columns = FN(panel_width)(g) * VL;
    return ceil_div(g->oc, columns) * columns * g->kh * g->kw * g->ic;
}

static int FN(pixel_tiles)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    const long enough = threads > 1 ? MIN(g->oh, ceil_div(4 * threads, g->n)) : 1; /* for all threads to end together */
    FN(pixels_job) job = {g, tensors, act, MAX(ceil_div(g->oh, blocking->block), enough)};
    return pool_run(FN(pixels_task), &job, g->n * job.bands, threads);
}
