/* im2col and a BLAS. A task makes a block of the column matrix that stays in L2 and calls the single-threaded BLAS on it. */
typedef void (*FN(cblas_gemm))(int order, int trans_a, int trans_b, int m, int n, int k, T alpha, const T *a, int lda, const T *b, int ldb, T beta, T *c,
                               int ldc);
enum { FN(ROW_MAJOR) = 101, FN(NO_TRANSPOSE) = 111 };

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    const conv_blas *blas;
    long count; /* blocks of an image */
} FN(im2col_job);

/* Column rows [pixel][kh kw icg] of an NHWC block. */
static void FN(rows_of_pixels)(const conv_geometry *g, long p0, long p1, const T *image, T *to) {
    const long icg = g->ic / g->groups;
    const int whole_rows = g->dw == 1 && g->groups == 1;
    for (long p = p0; p < p1; p++) {
        const long iy = p / g->ow * g->sh - g->pt, ix = p % g->ow * g->sw - g->pl;
        const long before = ix >= 0 ? 0 : MIN(g->kw, -ix), inside = ix >= g->iw ? before : MAX(before, MIN(g->kw, g->iw - ix));
        for (long ky = 0; ky < g->kh; ky++) {
            const long y = iy + ky * g->dh;
            if (whole_rows && y >= 0 && y < g->ih) { /* the taps of a row are contiguous */
                FN(zero)(to, before * icg);
                FN(copy)(to + before * icg, image + (y * g->iw + ix + before) * g->ic, (inside - before) * icg);
                FN(zero)(to + inside * icg, (g->kw - inside) * icg);
                to += g->kw * icg;
                continue;
            }
            for (long kx = 0; kx < g->kw; kx++, to += icg) {
                const long x = ix + kx * g->dw;
                if (y < 0 || y >= g->ih || x < 0 || x >= g->iw) FN(zero)(to, icg);
                else FN(copy)(to, image + (y * g->iw + x) * g->ic, icg);
            }
        }
    }
}

static int FN(im2col_task)(void *context, long index) {
    const FN(im2col_job) *job = context;
    const conv_geometry *g = job->g;
    const FN(cblas_gemm) gemm = (FN(cblas_gemm))job->blas->gemm;
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, k = g->kh * g->kw * icg, plane = g->oh * g->ow;
    const long group = index / job->count % g->groups, image = index / (job->count * g->groups);
    const long p0 = part(plane, job->count, index % job->count), p1 = part(plane, job->count, index % job->count + 1), pixels = p1 - p0;
    const int pointwise = g->kh == 1 && g->kw == 1 && g->sh == 1 && g->sw == 1 && g->oh == g->ih && g->ow == g->iw && !g->pt && !g->pl;
    const size_t column_bytes = pointwise ? 0 : (size_t)(pixels * k) * sizeof(T), run_bytes = 3 * (size_t)pixels * sizeof(FN(run));
    scratch s = {pool_arena(TASK_ARENA, aligned_size(column_bytes) + run_bytes)};
    if (!s.next) return OUT_OF_MEMORY;
    T *columns = take(&s, column_bytes);
    FN(run) *runs = take(&s, run_bytes);
    const T *bias = (const T *)job->tensors->bias + group * ocg, *residual = job->tensors->residual;
    if (g->nhwc) {
        const T *x = (const T *)job->tensors->x + image * g->ih * g->iw * g->ic + group * icg;
        const long at = (image * plane + p0) * g->oc + group * ocg;
        T *y = (T *)job->tensors->y + at;
        for (long p = 0; p < pixels; p++)
            for (long o = 0; o < ocg; o++) y[p * g->oc + o] = residual ? bias[o] + residual[at + p * g->oc + o] : bias[o];
        if (!pointwise) FN(rows_of_pixels)(g, p0, p1, x, columns);
        gemm(FN(ROW_MAJOR), FN(NO_TRANSPOSE), FN(NO_TRANSPOSE), (int)pixels, (int)ocg, (int)k, 1, pointwise ? x + p0 * g->ic : columns,
             (int)(pointwise ? g->ic : k), (const T *)job->tensors->weight + group * ocg, (int)g->oc, 1, y, (int)g->oc);
        if (job->act.kind)
            for (long p = 0; p < pixels; p++) FN(activate)(job->act, y + p * g->oc, ocg);
        return 0;
    }
    const T *x = (const T *)job->tensors->x + (image * g->ic + group * icg) * g->ih * g->iw;
    const long at = (image * g->oc + group * ocg) * plane + p0;
    T *y = (T *)job->tensors->y + at;
    for (long o = 0; o < ocg; o++)
        for (long p = 0; p < pixels; p++) y[o * plane + p] = residual ? bias[o] + residual[at + o * plane + p] : bias[o];
    if (!pointwise)
        for (long ky = 0; ky < g->kh; ky++)
            for (long kx = 0; kx < g->kw; kx++) {
                const long count = FN(column_runs)(g, &job->tensors->xs, p0, p1, ky, kx, runs);
                for (long c = 0; c < icg; c++)
                    FN(column_row)(runs, count, g->sw, x + c * g->ih * g->iw, job->tensors->x_end, columns + ((c * g->kh + ky) * g->kw + kx) * pixels);
            }
    gemm(FN(ROW_MAJOR), FN(NO_TRANSPOSE), FN(NO_TRANSPOSE), (int)ocg, (int)pixels, (int)k, 1, (const T *)job->tensors->weight + group * ocg * k, (int)k,
         pointwise ? x + p0 : columns, (int)(pointwise ? plane : pixels), 1, y, (int)plane);
    if (job->act.kind)
        for (long o = 0; o < ocg; o++) FN(activate)(job->act, y + o * plane, pixels);
    return 0;
}

static int FN(im2col)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, const conv_blas *blas, int threads) {
    FN(im2col_job) job = {g, tensors, act, blas, ceil_div(g->oh * g->ow, blocking->block)};
    return pool_run(FN(im2col_task), &job, job.count * g->groups * g->n, threads);
}
