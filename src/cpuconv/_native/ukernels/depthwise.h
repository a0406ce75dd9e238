/* Depthwise convolution (one input channel an output channel), any kernel size, stride and dilation. A vector holds VL channels of a pixel. Blocks
   of BLOCK_ROWS rows of BLOCK output pixels of one vector stay in registers while the taps pass; each block of some neighbouring vectors comes
   before the next, a whole band of them before other vectors; in images that L2 does not hold, each block of all vectors. Taps in the padding are
   skipped: rows by the bounds of loops, columns by a bit each. NHWC is read in place; fewer than VL channels, and NCHW that the kernels of
   depthwise_planes.h do not do, pass through strips of VL channels. */
enum { FN(BLOCK) = 7, FN(BLOCK_ROWS) = NV_MAX / 2, FN(BAND_PIXELS) = 64 };

/* Keeps the compiler from making all addresses of an unrolled loop ahead, and from loading again what it has loaded. */
#define STEP(p, by)                               \
    {                                             \
        (p) += (by);                              \
        __asm__("" : "+r"(p) : : "memory");       \
    }

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    long bands, parts;   /* of one image's rows, and of its vectors of channels (NHWC) */
    long together;       /* vectors that a block does after one another (NHWC) */
    int far, stream;     /* as in conv_blocking */
    long vectors, shift; /* shift: the second vector's first channel, where it is not VL so that loads do not cross cache lines; else 0 */
} FN(depthwise_job);

/* Output rows [oy, oy + rows) of some vectors of channels, of which `lanes` exist in each. */
typedef struct {
    const conv_geometry *g;
    const T *x;            /* pixel (top, 0) of the image */
    T *y;                  /* pixel (oy, 0) */
    const T *residual;     /* lies like y, or NULL */
    const VEC *w;          /* of each vector [kh][kw], then the bias */
    const long *channel;   /* of each vector the first */
    long vectors;
    long x_row, x_pixel, y_row, y_pixel;
    long top, oy, rows, lanes;
    int stream;            /* past the caches */
    conv_activation act;
} FN(dw_rows);

INLINE void FN(store_pixels)(const FN(dw_rows) *d, const VEC *acc, long n, T *y, const T *residual) {
    if (d->lanes == VL && !residual && d->act.kind <= ACT_CLIP) {
        const VEC low = SPLAT(d->act.a), high = SPLAT(d->act.b);
#define STORED(PUT)                                                                                \
    UNROLL for (int b = 0; b < FN(BLOCK); b++) {                                                   \
        if (b >= n) return;                                                                        \
        PUT(y, d->act.kind == ACT_NONE ? acc[b] : FN(vmin)(high, FN(vmax)(low, acc[b])));          \
        STEP(y, d->y_pixel)                                                                        \
    }                                                                                              \
    return;
        if (d->stream) { STORED(STREAM) }
        STORED(STORE)
#undef STORED
    }
    VEC made[FN(BLOCK)]; /* acc stays in registers only if never indexed by a variable */
    UNROLL for (int b = 0; b < FN(BLOCK); b++) made[b] = acc[b];
    for (long b = 0; b < n; b++) {
        const long at = b * d->y_pixel;
        VEC v = made[b];
        if (residual) v += d->lanes == VL ? LOAD(residual + at) : FN(load_part)(residual + at, d->lanes);
        v = FN(activated)(d->act, v);
        if (d->lanes == VL) STORE(y + at, v);
        else FN(store_part)(y + at, v, d->lanes);
    }
}

/* A row of input pixels into the upper row of sums (taps w0), the lower one (w1), or both; each pixel is loaded once. `inside`: bit i is set where
   pixel i lies in the image; edge: where some may not. fetch: what is prefetched with each pixel; `ahead`: from a block to the next one. */
INLINE void FN(tap_row)(const int kw, const int sw, const int edge, const int fetch, const int upper, const int lower, const T *x, long pixel, long ahead, unsigned inside, const VEC *w0,
                        const VEC *w1, VEC *acc0, VEC *acc1) {
    VEC v0[7], v1[7];
    if (upper) UNROLL for (int k = 0; k < kw; k++) v0[k] = w0[k];
    if (lower) UNROLL for (int k = 0; k < kw; k++) v1[k] = w1[k];
    const int columns = (FN(BLOCK) - 1) * sw + kw;
    UNROLL for (int i = 0; i < columns; i++) {
        const int sure = edge == NO_EDGE || (edge == AT_ENDS && i >= kw / 2 && i < columns - kw / 2);
        VEC v;
        if (sure || inside >> i & 1) v = LOAD(x);
        if (fetch == NEXT_LINE && (sure || inside >> i & 1)) __builtin_prefetch(x + LINE_BYTES / sizeof(T));
        if (fetch == NEXT_BLOCK) __builtin_prefetch(x + ahead, 0, 2); /* into L2: L1 does not hold a block of many channels */
        STEP(x, pixel)
        if (sure || inside >> i & 1) {
            UNROLL for (int k = 0; k < kw; k++)
                if (i >= k && (i - k) % sw == 0 && (i - k) / sw < FN(BLOCK)) {
                    if (upper) acc0[(i - k) / sw] += v * v0[k];
                    if (lower) acc1[(i - k) / sw] += v * v1[k];
                }
        }
    }
}

/* Of one or two output rows, the rows of taps that read the image: [first, both) only for the upper one, [both, below) for both, [below, last)
   for the lower one. */
typedef struct {
    long rows, first, both, below, last;
} FN(dw_taps);

/* n pixels of one vector, from x and y on; kw and sw (= sh) are constants, dilation is 1. */
INLINE void FN(block_of)(const int kw, const int sw, const int edge, const int fetch, const FN(dw_rows) *d, const FN(dw_taps) *r, const VEC *w, const T *x, long pixel, long x_row, long ahead,
                         long at, long y_row, long n, unsigned inside) {
    const VEC bias = w[d->g->kh * kw];
    VEC acc0[FN(BLOCK)], acc1[FN(BLOCK)];
    UNROLL for (int b = 0; b < FN(BLOCK); b++) acc0[b] = acc1[b] = bias;
    long k = r->first;
    w += k * kw;
    for (; k < r->both; k++, x += x_row, w += kw) FN(tap_row)(kw, sw, edge, fetch, 1, 0, x, pixel, ahead, inside, w, NULL, acc0, NULL);
    if (FN(BLOCK_ROWS) > 1 && r->rows > 1) {
        for (; k < r->below; k++, x += x_row, w += kw) FN(tap_row)(kw, sw, edge, fetch, 1, 1, x, pixel, ahead, inside, w, w - sw * kw, acc0, acc1);
        for (; k < r->last; k++, x += x_row, w += kw) FN(tap_row)(kw, sw, edge, fetch, 0, 1, x, pixel, ahead, inside, NULL, w - sw * kw, NULL, acc1);
        FN(store_pixels)(d, acc1, n, d->y + at + y_row, d->residual ? d->residual + at + y_row : NULL);
    }
    FN(store_pixels)(d, acc0, n, d->y + at, d->residual ? d->residual + at : NULL);
}

/* Of `count` input pixels from ix on, those in the image. */
INLINE unsigned FN(columns_inside)(const conv_geometry *g, long ix, long count) {
    const long first = MIN(count, MAX(0, -ix)), last = MAX(first, MIN(count, g->iw - ix));
    return (1u << last) - (1u << first);
}

INLINE void FN(rows_of)(const int kw, const int sw, const int fetch, const FN(dw_rows) *d) {
    const conv_geometry *g = d->g;
    const long columns = (FN(BLOCK) - 1) * sw + kw, kh = g->kh, iw = g->iw, ow = g->ow, pl = g->pl, x_row = d->x_row, pixel = d->x_pixel, y_row = d->y_row, y_pixel = d->y_pixel;
    const long taps = kh * kw + 1;
    for (long oy = d->oy, end = d->oy + d->rows, rows; oy < end; oy += rows) {
        rows = MIN(FN(BLOCK_ROWS), end - oy);
        const long iy = oy * sw - g->pt, first = MAX(0, -iy), last = MIN(kh + (rows - 1) * sw, g->ih - iy);
        const FN(dw_taps) r = {rows, first, rows == 1 ? last : MIN(last, sw), MIN(last, kh), last};
        const T *x = d->x + (iy + first - d->top) * x_row - pl * pixel;
        const long y = (oy - d->oy) * y_row;
        for (long ox = 0; ox < ow; ox += FN(BLOCK)) {
            const long ix = ox * sw - pl, n = MIN(FN(BLOCK), ow - ox), at = y + ox * y_pixel;
            const T *block = x + ox * sw * pixel;
            const long ahead = ox + FN(BLOCK) < ow ? FN(BLOCK) * sw * pixel : FN(BLOCK_ROWS) * sw * x_row - ox * sw * pixel;
            const VEC *w = d->w;
            const long *c = d->channel, *all = c + d->vectors;
            if (ix >= 0 && ix + columns <= iw && n == FN(BLOCK))
                for (; c < all; c++, w += taps) FN(block_of)(kw, sw, NO_EDGE, fetch, d, &r, w, block + *c, pixel, x_row, ahead, at + *c, y_row, FN(BLOCK), 0);
            else {
                const unsigned inside = FN(columns_inside)(g, ix, (n - 1) * sw + kw);
                if (n == FN(BLOCK) && ix >= -(kw / 2) && ix + columns <= iw + kw / 2)
                    for (; c < all; c++, w += taps) FN(block_of)(kw, sw, AT_ENDS, fetch, d, &r, w, block + *c, pixel, x_row, ahead, at + *c, y_row, FN(BLOCK), inside);
                else
                    for (; c < all; c++, w += taps) FN(block_of)(kw, sw, ANYWHERE, fetch, d, &r, w, block + *c, pixel, x_row, ahead, at + *c, y_row, n, inside);
            }
        }
    }
}

typedef void (*FN(rows_kernel))(const FN(dw_rows) *d);
#define ROWS(fetch, KW, SW) static void FN(rows_##fetch##_##KW##_##SW)(const FN(dw_rows) *d) { FN(rows_of)(KW, SW, fetch, d); }
ROWS(NO_FETCH, 3, 1) ROWS(NO_FETCH, 3, 2) ROWS(NO_FETCH, 5, 1) ROWS(NO_FETCH, 5, 2) ROWS(NO_FETCH, 7, 1)
ROWS(NEXT_BLOCK, 3, 1) ROWS(NEXT_BLOCK, 3, 2) ROWS(NEXT_BLOCK, 5, 1) ROWS(NEXT_BLOCK, 5, 2) ROWS(NEXT_BLOCK, 7, 1)
#if VB == 32
ROWS(NEXT_LINE, 3, 1) ROWS(NEXT_LINE, 3, 2)
#endif
#undef ROWS

/* Any kernel size, stride and dilation: one row of one vector from ox on. */
static void FN(block_of_any)(const FN(dw_rows) *d, long v, long oy, long ox) {
    const conv_geometry *g = d->g;
    const long iy = oy * g->sh - g->pt, n = MIN(FN(BLOCK), g->ow - ox), at = d->channel[v] + (oy - d->oy) * d->y_row + ox * d->y_pixel;
    const VEC *w = d->w + v * (g->kh * g->kw + 1);
    VEC acc[FN(BLOCK)];
    UNROLL for (int b = 0; b < FN(BLOCK); b++) acc[b] = w[g->kh * g->kw];
    for (long ky = 0; ky < g->kh; ky++) {
        if (iy + ky * g->dh < 0 || iy + ky * g->dh >= g->ih) continue;
        const T *row = d->x + d->channel[v] + (iy + ky * g->dh - d->top) * d->x_row;
        for (long kx = 0; kx < g->kw; kx++) {
            const VEC s = w[ky * g->kw + kx];
            const long first = ox * g->sw - g->pl + kx * g->dw, step = g->sw * d->x_pixel;
            const T *x = row + first * d->x_pixel;
            if (first >= 0 && first + (FN(BLOCK) - 1) * g->sw < g->iw) {
                UNROLL for (int b = 0; b < FN(BLOCK); b++) {
                    acc[b] += s * LOAD(x);
                    STEP(x, step)
                }
                continue;
            }
            UNROLL for (int b = 0; b < FN(BLOCK); b++) {
                if (first + b * g->sw >= 0 && first + b * g->sw < g->iw) acc[b] += s * LOAD(x);
                STEP(x, step)
            }
        }
    }
    FN(store_pixels)(d, acc, n, d->y + at, d->residual ? d->residual + at : NULL);
}

static void FN(rows_any)(const FN(dw_rows) *d) {
    for (long oy = d->oy; oy < d->oy + d->rows; oy++)
        for (long ox = 0; ox < d->g->ow; ox += FN(BLOCK))
            for (long v = 0; v < d->vectors; v++) FN(block_of_any)(d, v, oy, ox);
}

/* What had better be prefetched with each pixel of an NHWC image. Of images (far) that no cache holds until the next call, what lies in its place in the
   next block: the CPU loses track of pixels far apart in so many rows (on a Zen 4, batches of 8 take down to 0.4 of the time, with AVX2 0.3). Of those that come
   from beyond L2, with AVX2, whose vectors are half a line, the next line: the core looks ahead no further. Pixels of a few lines are their own
   neighbours. */
INLINE int FN(fetched)(const conv_geometry *g, int far) {
    const long traffic = g->n * (g->ih * g->iw + g->oh * g->ow) * g->ic * (long)sizeof(T);
    if (!g->nhwc || g->ic < VL) return NO_FETCH;
    if (far) return NEXT_BLOCK;
    return VB == 32 && g->kw == 3 && g->ic * (long)sizeof(T) > 4 * LINE_BYTES && traffic * g->sw > FAR ? NEXT_LINE : NO_FETCH;
}

INLINE FN(rows_kernel) FN(rows_kernel_of)(const conv_geometry *g, int far) {
    static const FN(rows_kernel) kernels[][5] = {
#define KERNELS(fetch) {FN(rows_##fetch##_3_1), FN(rows_##fetch##_3_2), FN(rows_##fetch##_5_1), FN(rows_##fetch##_5_2), FN(rows_##fetch##_7_1)}
        [NO_FETCH] = KERNELS(NO_FETCH), [NEXT_BLOCK] = KERNELS(NEXT_BLOCK),
#undef KERNELS
#if VB == 32
        [NEXT_LINE] = {FN(rows_NEXT_LINE_3_1), FN(rows_NEXT_LINE_3_2)},
#endif
    };
    const int known = g->dh == 1 && g->dw == 1 && g->sh == g->sw && g->kh >= g->sh && (g->kw == 7 ? g->sw == 1 : (g->kw == 3 || g->kw == 5) && g->sw <= 2);
    return known ? kernels[FN(fetched)(g, far)][g->kw - 3 + g->sw - 1] : FN(rows_any);
}

/* Columns of the packed weight, a row for each tap. */
INLINE long FN(packed_columns)(const conv_geometry *g) { return ceil_div(g->ic, VL) * VL; }

/* The kernels read the weight of a vector in one piece. */
INLINE void FN(take_weight)(const FN(depthwise_job) *job, long c, VEC *w) {
    const conv_geometry *g = job->g;
    const long columns = FN(packed_columns)(g);
    const T *from = (const T *)job->tensors->weight + c;
    for (long i = 0; i <= g->kh * g->kw; i++, from += columns) w[i] = LOAD(from);
}
INLINE size_t FN(weight_bytes)(const conv_geometry *g) { return (size_t)(g->kh * g->kw + 1) * sizeof(VEC); }

/* First channel of vector `index`: the last one begins early enough to be whole, where there are that many channels. */
INLINE long FN(vector_start)(const conv_geometry *g, long index) { return MAX(0, MIN(index * VL, g->ic - VL)); }

/* First row of a band: all but the last have whole blocks. */
INLINE long FN(band_start)(const conv_geometry *g, long bands, long band) { return MIN(g->oh, part(ceil_div(g->oh, FN(BLOCK_ROWS)), bands, band) * FN(BLOCK_ROWS)); }

/* NHWC: a band of rows, in place. */
static int FN(depthwise_task)(void *context, long index) {
    const FN(depthwise_job) *job = context;
    const conv_geometry *g = job->g;
    const FN(rows_kernel) kernel = FN(rows_kernel_of)(g, job->far);
    const long which = index % job->parts, band = index / job->parts % job->bands, image = index / (job->parts * job->bands);
    const long first = part(job->vectors, job->parts, which), end = part(job->vectors, job->parts, which + 1), together = MIN(job->together, end - first);
    scratch s = {pool_arena(TASK_ARENA, aligned_size((size_t)together * FN(weight_bytes)(g)) + (size_t)together * sizeof(long))};
    if (!s.next) return OUT_OF_MEMORY;
    VEC *w = take(&s, (size_t)together * FN(weight_bytes)(g));
    long *channel = take(&s, (size_t)together * sizeof(long));
    const conv_tensors *t = job->tensors;
    const long oy = FN(band_start)(g, job->bands, band), count = FN(band_start)(g, job->bands, band + 1) - oy, at = image * t->ys.image + oy * t->ys.row;
    FN(dw_rows) d = {.g = g, .x = (const T *)t->x + image * t->xs.image, .y = (T *)t->y + at, .residual = t->residual ? (const T *)t->residual + at : NULL,
                     .w = w, .channel = channel, .x_row = t->xs.row, .x_pixel = t->xs.pixel, .y_row = t->ys.row, .y_pixel = t->ys.pixel,
                     .oy = oy, .rows = count, .lanes = VL, .act = job->act, .stream = job->stream && !job->shift && FN(whole_lines)((const T *)t->y + at, VL, t->ys.pixel, t->ys.row)};
    for (long v = first; v < end; v += together) {
        d.vectors = MIN(together, end - v);
        for (long i = 0; i < d.vectors; i++) {
            channel[i] = v + i && job->shift ? MIN(job->shift + (v + i - 1) * VL, g->ic - VL) : FN(vector_start)(g, v + i);
            FN(take_weight)(job, channel[i], w + i * (g->kh * g->kw + 1));
        }
        kernel(&d);
    }
    return 0;
}

/* NCHW, or fewer than VL channels: a band of rows of one vector of channels, through strips. */
static int FN(depthwise_strip_task)(void *context, long index) {
    const FN(depthwise_job) *job = context;
    const conv_geometry *g = job->g;
    const long v = index % job->vectors, band = index / job->vectors % job->bands, image = index / (job->vectors * job->bands);
    const long c = g->nhwc ? FN(vector_start)(g, v) : v * VL, lanes = MIN(VL, g->ic - c), oy = part(g->oh, job->bands, band), count = part(g->oh, job->bands, band + 1) - oy;
    const long top = MIN(g->ih, MAX(0, oy * g->sh - g->pt)), rows = MAX(0, MIN(g->ih, (oy + count - 1) * g->sh - g->pt + (g->kh - 1) * g->dh + 1) - top);
    const size_t in_bytes = (size_t)(rows * g->iw * VL) * sizeof(T), out_bytes = g->nhwc ? 0 : (size_t)(count * g->ow * VL) * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(in_bytes) + aligned_size(out_bytes) + FN(weight_bytes)(g))};
    if (!s.next) return OUT_OF_MEMORY;
    T *in = take(&s, in_bytes), *out = take(&s, out_bytes);
    VEC *w = take(&s, FN(weight_bytes)(g));
    FN(take_weight)(job, c, w);
    const conv_tensors *t = job->tensors;
    const long at = image * t->ys.image + oy * t->ys.row + c * t->ys.channel;
    const T *x = (const T *)t->x + image * t->xs.image + top * t->xs.row + c * t->xs.channel, *residual = t->residual ? (const T *)t->residual + at : NULL;
    T *y = (T *)t->y + at;
    FN(dw_rows) d = {.g = g, .x = in, .w = w, .channel = &(long){0}, .vectors = 1, .x_row = g->iw * VL, .x_pixel = VL, .top = top, .oy = oy, .rows = count};
    if (g->nhwc) {
        for (long i = 0; i < rows; i++)
            for (long j = 0; j < g->iw; j++) {
                const T *pixel = x + i * t->xs.row + j * t->xs.pixel;
                STORE(in + (i * g->iw + j) * VL, lanes == VL ? LOAD(pixel) : FN(load_part)(pixel, lanes));
            }
        d.y = y;
        d.residual = residual;
        d.y_row = t->ys.row;
        d.y_pixel = t->ys.pixel;
        d.lanes = lanes;
        d.act = job->act;
        FN(rows_kernel_of)(g, 0)(&d);
        return 0;
    }
    FN(band_to_pixels)(x, &t->xs, lanes, rows, g->iw, t->x_end, in, VL);
    d.y = out;
    d.y_row = g->ow * VL;
    d.y_pixel = d.lanes = VL;
    if (!residual) d.act = job->act; /* else it waits for the residual, which lies in planes */
    FN(rows_kernel_of)(g, 0)(&d);
    FN(pixels_to_band)(out, VL, &t->ys, lanes, count, g->ow, residual, residual ? job->act : (conv_activation){0}, y);
    return 0;
}

/* Where the first whole cache line of each pixel's channels begins, if all pixels have it there and it saves more than one more vector costs; else 0.
   Of the image, or, if each of its pixels is loaded but a few times, of the output: a store that crosses a line costs more than such a load. */
INLINE long FN(aligning_shift)(const conv_geometry *g, const conv_tensors *t) {
    const int output = g->sh * g->sw == 1;
    const conv_strides *s = output ? &t->ys : &t->xs;
    const long shift = (long)(-((uintptr_t)(output ? t->y : t->x) / sizeof(T)) % (uintptr_t)VL);
    const int alike = g->ic % VL == 0 && s->pixel % VL == 0 && s->row % VL == 0, repaid = 2 * g->sh * g->sw * (g->ic / VL) > g->kh * g->kw;
    return VB >= 64 && alike && repaid ? shift : 0;
}

/* Whether the kernels of depthwise_planes.h do it, in place: maps of which a vector would hold half a row or less are faster in strips, but for pairs. */
INLINE int FN(by_planes)(const conv_geometry *g) {
    const int plain = g->kh == 3 && g->kw == 3 && g->sh == g->sw && g->sw <= 2 && g->dh == 1 && g->dw == 1;
    return (!g->nhwc || g->ic == 1) && plain && (2 * g->ow > VL || FN(narrow)(g));
}

/* Whether pixels lie so many bytes apart, a power of two, that those of a few rows of one vector do not fit into the sets of L1 that they share. */
INLINE int FN(crowded)(const conv_geometry *g, const conv_tensors *t) { return t->xs.pixel * (long)sizeof(T) % (32 * VB * g->sw) == 0; }

static int FN(depthwise)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    if (FN(by_planes)(g)) {
        const long bands = MAX(ceil_div(g->oh, blocking->block), threads == 1 ? 1 : MIN(ceil_div(g->oh, 8), ceil_div(8 * threads, g->ic)));
        const long repaid = MIN(8 * threads, g->oc * g->oh * g->ow / PLANE_TASK); /* tasks that repay their start */
        FN(planes_job) job = {g, tensors, act, FN(packed_columns)(g), bands, threads == 1 ? 1 : MAX(1, MIN(g->ic * bands, repaid)), blocking->stream};
        return pool_run(FN(narrow)(g) ? FN(pairs_task) : FN(planes_task), &job, g->n * job.tasks, threads);
    }
    FN(depthwise_job) job = {g, tensors, act, ceil_div(g->oh, blocking->block), 1, MAX(1, ceil_div(blocking->channels, VL)), blocking->far, blocking->stream, ceil_div(g->ic, VL), 0};
    if (!g->nhwc || g->ic < VL || FN(crowded)(g, tensors)) return pool_run(FN(depthwise_strip_task), &job, g->n * job.vectors * job.bands, threads);
    job.shift = FN(aligning_shift)(g, tensors);
    job.vectors += job.shift > 0;
    if (threads > 1) { /* rows, where they repay that each band takes the weight anew, before channels, whose lines two cores would pass to and fro */
        const long repaid = MIN(g->oh / (2 * FN(BLOCK_ROWS)), g->oh * g->ow / FN(BAND_PIXELS));
        job.bands = MAX(job.bands, MIN(repaid, ceil_div(4 * threads, MAX(1, g->n))) / threads * threads);
        job.parts = MIN(job.vectors, ceil_div(4 * threads, MAX(1, g->n * job.bands)));
    }
    return pool_run(FN(depthwise_task), &job, g->n * job.bands * job.parts, threads);
}

/* Weight (HWIO or OIHW) and bias to [kh kw + 1][columns]: the bias comes last. */
static void FN(depthwise_pack)(const conv_geometry *g, const void *weight, const void *bias, void *packed) {
    const long taps = g->kh * g->kw, columns = FN(packed_columns)(g);
    T *to = packed;
    for (long t = 0; t <= taps; t++)
        for (long c = 0; c < columns; c++) {
            const T *from = t < taps ? (const T *)weight + (g->nhwc ? t * g->oc + c : c * taps + t) : (const T *)bias + c;
            *to++ = c < g->ic ? *from : 0;
        }
}
static long FN(depthwise_packed_size)(const conv_geometry *g) { return FN(packed_columns)(g) * (g->kh * g->kw + 1); }
#undef STEP
