/* The gradient of a depthwise weight: dW[tap][c] = sum over p of x[p + tap][c] dy[p][c]. A vector holds VL channels; the sums of a row of taps stay
   in registers along a row of pixels and are added to those of the rows before. NHWC is read in place where channels fill a vector; the
   rest, and NCHW, pass through strips of VL channels. A task sums some rows of all images; the sums of tasks are added in order. */
typedef struct {
    const conv_geometry *g;
    const conv_gradient *in;
    T *sums; /* [task][vector][kh kw][VL] */
    long tasks;
} FN(weight_planes_job);

/* One row of pixels against `taps` (a constant) taps of a row of x from `x` on: all of them inside. */
INLINE void FN(row_of_taps)(const int taps, const T *x, long x_step, long tap_step, const T *dy, long y_step, long pixels, T *sums) {
    VEC acc[8];
    UNROLL for (int k = 0; k < taps; k++) acc[k] = (VEC){0};
    for (long p = 0; p < pixels; p++, x += x_step, dy += y_step) {
        const VEC d = LOAD(dy);
        UNROLL for (int k = 0; k < taps; k++) acc[k] += LOAD(x + k * tap_step) * d;
    }
    UNROLL for (int k = 0; k < taps; k++) STORE(sums + k * VL, LOAD(sums + k * VL) + acc[k]);
}

/* Pixels [x0, x1) of an output row, whose input row begins at `x`, into sums [kw][VL]. */
static void FN(row_into_sums)(const conv_geometry *g, const T *x, long x_pixel, const T *dy, long y_pixel, T *sums) {
    long inner0 = 0, inner1 = g->ow; /* the pixels all of whose taps are inside */
    for (long k = 0; k < g->kw; k++) {
        long first, last;
        FN(outputs_inside)(0, g->ow, g->sw, k * g->dw - g->pl, g->iw, &first, &last);
        inner0 = MAX(inner0, first);
        inner1 = MIN(inner1, last);
    }
    inner1 = MAX(inner0, inner1);
    for (long k = 0; k < g->kw; k++) {
        long first, last;
        FN(outputs_inside)(0, g->ow, g->sw, k * g->dw - g->pl, g->iw, &first, &last);
        const T *from = x + (k * g->dw - g->pl) * x_pixel;
        const long left = MIN(last, inner0), right = MAX(first, inner1), step = g->sw * x_pixel;
        if (first < left) FN(row_of_taps)(1, from + first * step, step, 0, dy + first * y_pixel, y_pixel, left - first, sums + k * VL);
        if (right < last) FN(row_of_taps)(1, from + right * step, step, 0, dy + right * y_pixel, y_pixel, last - right, sums + k * VL);
    }
    if (inner0 == inner1) return;
    const long step = g->sw * x_pixel, tap = g->dw * x_pixel;
    dy += inner0 * y_pixel;
    x += inner0 * step - g->pl * x_pixel;
    for (long k = 0; k < g->kw;) {
        const T *from = x + k * tap;
        T *to = sums + k * VL;
        const long left = g->kw - k, some = left == 7 ? 7 : left >= 5 ? 5 : left >= 3 ? 3 : 1;
        if (some == 7) FN(row_of_taps)(7, from, step, tap, dy, y_pixel, inner1 - inner0, to);
        else if (some == 5) FN(row_of_taps)(5, from, step, tap, dy, y_pixel, inner1 - inner0, to);
        else if (some == 3) FN(row_of_taps)(3, from, step, tap, dy, y_pixel, inner1 - inner0, to);
        else FN(row_of_taps)(1, from, step, tap, dy, y_pixel, inner1 - inner0, to);
        k += some;
    }
}

static int FN(weight_planes_task)(void *context, long index) {
    const FN(weight_planes_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_gradient *in = job->in;
    const long vectors = ceil_div(g->ic, VL), taps = g->kh * g->kw, rows = g->n * g->oh;
    const int in_place = in->xs.channel == 1 && in->ys.channel == 1 && g->ic >= VL;
    T *sums = job->sums + index * vectors * taps * VL;
    FN(zero)(sums, vectors * taps * VL);
    const size_t x_bytes = (size_t)((g->iw + VL) * VL) * sizeof(T), y_bytes = (size_t)((g->ow + VL) * VL) * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(x_bytes) + aligned_size(y_bytes))};
    if (!s.next) return OUT_OF_MEMORY;
    T *x_strip = take(&s, x_bytes), *y_strip = take(&s, y_bytes);
    for (long row = part(rows, job->tasks, index), end = part(rows, job->tasks, index + 1); row < end; row++) {
        const long n = row / g->oh, oy = row % g->oh;
        for (long v = 0; v < vectors; v++) {
            const long c = in_place ? FN(vector_start)(g, v) : v * VL, lanes = MIN(VL, g->ic - c);
            const T *x = (const T *)in->x + n * in->xs.image + c * in->xs.channel, *dy = (const T *)in->dy + n * in->ys.image + oy * in->ys.row + c * in->ys.channel;
            if (!in_place) {
                FN(band_to_pixels)(dy, &in->ys, lanes, 1, g->ow, in->dy_end, y_strip, VL);
                dy = y_strip;
            }
            for (long ky = 0; ky < g->kh; ky++) {
                const long iy = oy * g->sh - g->pt + ky * g->dh;
                if (iy < 0 || iy >= g->ih) continue;
                const T *from = x + iy * in->xs.row;
                if (!in_place) {
                    FN(band_to_pixels)(from, &in->xs, lanes, 1, g->iw, in->x_end, x_strip, VL);
                    from = x_strip;
                }
                FN(row_into_sums)(g, from, in_place ? in->xs.pixel : VL, dy, in_place ? in->ys.pixel : VL, sums + (v * taps + ky * g->kw) * VL);
            }
        }
    }
    return 0;
}

static int FN(weight_depthwise)(const conv_geometry *g, const conv_blocking *blocking, const conv_gradient *in, int threads) {
    const long vectors = ceil_div(g->ic, VL), taps = g->kh * g->kw, size = vectors * taps * VL;
    const FN(weight_planes_job) job = {g, in, pool_arena(CALL_ARENA, (size_t)(blocking->chunks * size) * sizeof(T)), blocking->chunks};
    if (!job.sums) return OUT_OF_MEMORY;
    const int status = pool_run(FN(weight_planes_task), (void *)&job, job.tasks, threads);
    if (status) return status;
    const int in_place = in->xs.channel == 1 && in->ys.channel == 1 && g->ic >= VL;
    for (long task = 1; task < job.tasks; task++)
        for (long i = 0; i < size; i++) job.sums[i] += job.sums[task * size + i];
    T *dw = in->dw;
    for (long v = 0; v < vectors; v++)
        for (long t = 0; t < taps; t++)
            for (long l = 0, c = in_place ? FN(vector_start)(g, v) : v * VL; l < VL && c < g->ic; l++, c++)
                dw[g->nhwc ? t * g->ic + c : c * taps + t] = job.sums[(v * taps + t) * VL + l];
    return 0;
}
