/* Involution: a convolution whose weight differs from pixel to pixel and is shared by the channels of a group (D. Li et al., "Involution:
   Inverting the Inherence of Convolution for Visual Recognition", 2021). Vectors hold channels of a group, a block of four neighbouring
   outputs shares their taps. Channels are read in place where they lie side by side and fill vectors; else through a channel-last strip. */
enum { FN(INVOLUTION_PIXELS) = 4 };

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors; /* weight: [n][groups][kh kw][oh][ow], in NHWC [n][oh][ow][groups][kh kw] */
    long bands;
} FN(involution_job);

/* Elements between neighbours: in x between pixels, in the weight between taps, in all three between outputs of a row and of a column. */
typedef struct {
    const T *x, *w, *bias;
    T *y;
    long x_row, x_pixel, w_tap, w_row, w_pixel, y_row, y_pixel, channels;
} FN(involution_view);

/* `pixels` outputs, `x_step`, `w_step` and `y_step` apart, of `nv` vectors of channels; all constants but the steps. */
INLINE void FN(involution_block)(const int pixels, const int nv, const conv_geometry *g, const tap_rect *r, const FN(involution_view) *v, const T *x, long x_step,
                                 const T *w, long w_step, T *y, long y_step, const T *bias, long lanes) {
    VEC acc[FN(INVOLUTION_PIXELS)][2];
    UNROLL for (int p = 0; p < pixels; p++) UNROLL for (int j = 0; j < nv; j++) acc[p][j] = (VEC){0};
    for (long ky = r->ky0; ky < r->ky1; ky++)
        for (long kx = r->kx0; kx < r->kx1; kx++) {
            const T *at = x + ky * g->dh * v->x_row + kx * g->dw * v->x_pixel, *tap = w + (ky * g->kw + kx) * v->w_tap;
            UNROLL for (int p = 0; p < pixels; p++) UNROLL for (int j = 0; j < nv; j++) acc[p][j] += tap[p * w_step] * LOAD(at + p * x_step + j * VL);
        }
    UNROLL for (int p = 0; p < pixels; p++) UNROLL for (int j = 0; j < nv; j++) {
        const long n = MIN(VL, lanes - j * VL);
        if (n == VL) STORE(y + p * y_step + j * VL, acc[p][j] + LOAD(bias + j * VL));
        else FN(store_part)(y + p * y_step + j * VL, acc[p][j] + FN(load_part)(bias + j * VL, n), n);
    }
}

/* The outputs of a rectangle, along its longer side in blocks. */
static void FN(involution_rect)(const conv_geometry *g, const tap_rect *r, const FN(involution_view) *v) {
    const int upright = r->oy1 - r->oy0 > r->ox1 - r->ox0;
    const long xs[2] = {g->sw * v->x_pixel, g->sh * v->x_row}, ws[2] = {v->w_pixel, v->w_row}, ys[2] = {v->y_pixel, v->y_row};
    const long inner = upright ? r->oy1 - r->oy0 : r->ox1 - r->ox0, outer = upright ? r->ox1 - r->ox0 : r->oy1 - r->oy0;
    const T *x = v->x + (r->oy0 * g->sh - g->pt) * v->x_row + (r->ox0 * g->sw - g->pl) * v->x_pixel, *w = v->w + r->oy0 * v->w_row + r->ox0 * v->w_pixel;
    T *y = v->y + r->oy0 * v->y_row + r->ox0 * v->y_pixel;
    for (long i = 0; i < outer; i++)
        for (long j = 0, step; j < inner; j += step) {
            const T *xp = x + i * xs[!upright] + j * xs[upright], *wp = w + i * ws[!upright] + j * ws[upright];
            T *yp = y + i * ys[!upright] + j * ys[upright];
            step = inner - j >= FN(INVOLUTION_PIXELS) ? FN(INVOLUTION_PIXELS) : 1;
            for (long c = 0; c < v->channels; c += 2 * VL) {
                const long lanes = MIN(2 * VL, v->channels - c);
#define BLOCK(P, NV) FN(involution_block)(P, NV, g, r, v, xp + c, xs[upright], wp, ws[upright], yp + c, ys[upright], v->bias + c, lanes)
                if (step == 1 && lanes <= VL) BLOCK(1, 1);
                else if (step == 1) BLOCK(1, 2);
                else if (lanes <= VL) BLOCK(FN(INVOLUTION_PIXELS), 1);
                else BLOCK(FN(INVOLUTION_PIXELS), 2);
#undef BLOCK
            }
        }
}

/* A band of output rows of a group. */
static int FN(involution_task)(void *context, long index) {
    const FN(involution_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *t = job->tensors;
    const long group = index % g->groups, band = index / g->groups % job->bands, image = index / (g->groups * job->bands);
    const long channels = g->ic / g->groups, taps = g->kh * g->kw, plane = g->oh * g->ow, oy0 = part(g->oh, job->bands, band), oy1 = part(g->oh, job->bands, band + 1);
    const long top = MIN(g->ih, MAX(0, oy0 * g->sh - g->pt)), rows = MAX(0, MIN(g->ih, (oy1 - 1) * g->sh - g->pt + (g->kh - 1) * g->dh + 1) - top);
    const long wide = ceil_div(channels, VL) * VL; /* channels of a strip */
    const int in_place = g->nhwc && wide == channels;
    const size_t rect_bytes = (size_t)tap_rects(g, oy0, oy1, NULL) * sizeof(tap_rect);
    const size_t in_bytes = in_place ? 0 : (size_t)((rows * g->iw + 1) * wide) * sizeof(T), out_bytes = g->nhwc ? 0 : (size_t)((oy1 - oy0) * g->ow * wide) * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(rect_bytes) + aligned_size(in_bytes) + out_bytes)};
    if (!s.next) return OUT_OF_MEMORY;
    tap_rect *rects = take(&s, rect_bytes);
    const long count = tap_rects(g, oy0, oy1, rects);
    const T *x = (const T *)t->x + image * t->xs.image + top * t->xs.row + group * channels * t->xs.channel, *w = t->weight;
    T *y = (T *)t->y + image * t->ys.image + oy0 * t->ys.row + group * channels * t->ys.channel, *strip = take(&s, in_bytes), *out = take(&s, out_bytes);
    FN(involution_view) v = {.bias = (const T *)t->bias + group * channels, .channels = channels};
    if (g->nhwc) {
        v.w = w + (image * plane * g->groups + group) * taps;
        v.w_tap = 1;
        v.w_pixel = g->groups * taps;
        v.w_row = g->ow * v.w_pixel;
        v.y = y;
        v.y_row = t->ys.row;
        v.y_pixel = t->ys.pixel;
    } else {
        v.w = w + (image * g->groups + group) * taps * plane;
        v.w_tap = plane;
        v.w_pixel = 1;
        v.w_row = g->ow;
        v.y = out;
        v.y_pixel = wide;
        v.y_row = g->ow * wide;
    }
    if (in_place) {
        v.x = x;
        v.x_row = t->xs.row;
        v.x_pixel = t->xs.pixel;
    } else {
        v.x = strip;
        v.x_pixel = wide;
        v.x_row = g->iw * wide;
        if (g->nhwc)
            for (long i = 0; i < rows; i++)
                for (long j = 0; j < g->iw; j++) {
                    FN(copy)(strip + (i * g->iw + j) * wide, x + i * t->xs.row + j * t->xs.pixel, channels);
                    FN(zero)(strip + (i * g->iw + j) * wide + channels, wide - channels);
                }
        else
            for (long c = 0; c < channels; c += VL)
                FN(band_to_pixels)(x + c * t->xs.channel, &t->xs, MIN(VL, channels - c), rows, g->iw, t->x_end, strip + c, wide);
    }
    v.x -= top * v.x_row; /* input rows are counted from the image's first, output rows from the band's */
    v.y -= oy0 * v.y_row;
    for (long i = 0; i < count; i++) FN(involution_rect)(g, rects + i, &v);
    if (!g->nhwc)
        for (long c = 0; c < channels; c += VL)
            FN(pixels_to_band)(out + c, wide, &t->ys, MIN(VL, channels - c), oy1 - oy0, g->ow, NULL, (conv_activation){ACT_NONE, 0, 0}, y + c * t->ys.channel);
    return 0;
}

static int FN(involution)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    (void)act;
    FN(involution_job) job = {g, tensors, ceil_div(g->oh, blocking->block)};
    return pool_run(FN(involution_task), &job, g->n * job.bands * g->groups, threads);
}
