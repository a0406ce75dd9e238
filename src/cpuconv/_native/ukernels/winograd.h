/* F(m,r) per axis by Cook-Toom interpolation at 0, +-p0, +-p1, ..., infinity (n = m + r - 1 points, n even; n = 1: no
   transform along that axis). Channels lie in vectors: tiles of the input become V[a][tile][channel], a batch of n*n GEMMs on
   transformed weights U[panel][a][channel][nr] makes M[a][tile][nr], and the inverse transform makes output pixels.
   A block of tiles stays in L2. NCHW images pass through channel-last strips of VL channels. */

/* Squares, and elementary symmetric polynomials of the squares, of the points. */
typedef struct {
    T p[3], q[3], sum, product, sum2, others[3], pairs[3];
} FN(points);

static FN(points) FN(make_points)(const conv_blocking *b, int n) {
    FN(points) c = {0};
    const int count = (n - 2) / 2;
    double q[3] = {0};
    for (int i = 0; i < count; i++) {
        q[i] = b->point[i] * b->point[i];
        c.p[i] = (T)b->point[i];
        c.q[i] = (T)q[i];
    }
    if (count == 2) {
        c.sum = (T)(q[0] + q[1]);
        c.product = (T)(q[0] * q[1]);
    }
    if (count == 3) {
        c.sum = (T)(q[0] + q[1] + q[2]);
        c.sum2 = (T)(q[0] * q[1] + q[0] * q[2] + q[1] * q[2]);
        c.product = (T)(q[0] * q[1] * q[2]);
        for (int i = 0; i < 3; i++) {
            const double a = q[(i + 1) % 3], b2 = q[(i + 2) % 3];
            c.others[i] = (T)(a + b2);
            c.pairs[i] = (T)(a * b2);
        }
    }
    return c;
}

/* Row i of B^T holds the coefficients of the product of (x - a_j) over the other points j; the last row, of the full
   product. Rows of +p and -p share their even and odd halves. */
INLINE void FN(input_1d)(const int n, const FN(points) *c, const VEC *d, const int ds, VEC *o, const int os) {
    if (n == 1) {
        o[0] = d[0];
    } else if (n == 4) {
        o[0] = d[2 * ds] - c->q[0] * d[0];
        const VEC odd = c->p[0] * d[ds];
        o[os] = d[2 * ds] + odd;
        o[2 * os] = d[2 * ds] - odd;
        o[3 * os] = d[3 * ds] - c->q[0] * d[ds];
    } else if (n == 6) {
        o[0] = c->product * d[0] + (d[4 * ds] - c->sum * d[2 * ds]);
        UNROLL for (int i = 0; i < 2; i++) {
            const VEC even = d[4 * ds] - c->q[1 - i] * d[2 * ds], odd = c->p[i] * (d[3 * ds] - c->q[1 - i] * d[ds]);
            o[(1 + 2 * i) * os] = even + odd;
            o[(2 + 2 * i) * os] = even - odd;
        }
        o[5 * os] = c->product * d[ds] + (d[5 * ds] - c->sum * d[3 * ds]);
    } else {
        o[0] = (d[6 * ds] - c->sum * d[4 * ds]) + (c->sum2 * d[2 * ds] - c->product * d[0]);
        UNROLL for (int i = 0; i < 3; i++) {
            const VEC even = c->pairs[i] * d[2 * ds] + (d[6 * ds] - c->others[i] * d[4 * ds]);
            const VEC odd = c->p[i] * (c->pairs[i] * d[ds] + (d[5 * ds] - c->others[i] * d[3 * ds]));
            o[(1 + 2 * i) * os] = even + odd;
            o[(2 + 2 * i) * os] = even - odd;
        }
        o[7 * os] = (d[7 * ds] - c->sum * d[5 * ds]) + (c->sum2 * d[3 * ds] - c->product * d[ds]);
    }
}

/* Row i of A^T holds the i-th powers of the points; infinity adds to the last row only. */
INLINE void FN(output_1d)(const int n, const int m, const FN(points) *c, const VEC *d, const int ds, VEC *o, const int os) {
    if (n == 1) {
        o[0] = d[0];
        return;
    }
    VEC even[3], odd[3];
    UNROLL for (int i = 0; i < (n - 2) / 2; i++) {
        even[i] = d[(1 + 2 * i) * ds] + d[(2 + 2 * i) * ds];
        odd[i] = c->p[i] * (d[(1 + 2 * i) * ds] - d[(2 + 2 * i) * ds]);
    }
    UNROLL for (int j = 0; j < m; j++) {
        VEC *half = j % 2 ? odd : even, sum = half[0];
        UNROLL for (int i = 1; i < (n - 2) / 2; i++) sum += half[i];
        if (j == 0) sum += d[0];
        if (j == m - 1) sum += d[(n - 1) * ds];
        o[j * os] = sum;
        UNROLL for (int i = 0; i < (n - 2) / 2; i++) half[i] *= c->q[i];
    }
}

typedef struct {
    const conv_geometry *g;
    const conv_blocking *blocking;
    const conv_tensors *tensors;
    conv_activation act;
    FN(points) points;
    int nh, nw;
    long tiles_y, tiles_x, blocks_y, blocks_x; /* of one image */
    long most;                                 /* tiles in the largest block */
    long v_stride, m_stride, channels;         /* between the matrices of V and of M; channels of V with padding */
    T *shared;                                 /* V of all threads, where one block is worked on by all */
    long image, group, block;                  /* that block */
} FN(winograd_job);

typedef struct {
    long ty0, ty1, tx0, tx1, tiles;
} FN(tile_block);

/* With few blocks, their number becomes a multiple of the threads where there are rows of tiles enough. */
static FN(winograd_job) FN(winograd_job_of)(const conv_geometry *g, const conv_blocking *b, int threads) {
    FN(winograd_job) job = {.g = g, .blocking = b};
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups;
    job.nh = b->mh + (int)g->kh - 1;
    job.nw = b->mw + (int)g->kw - 1;
    job.points = FN(make_points)(b, MAX(job.nh, job.nw));
    job.tiles_y = ceil_div(g->oh, b->mh);
    job.tiles_x = ceil_div(g->ow, b->mw);
    job.blocks_x = ceil_div(job.tiles_x, b->block);
    job.blocks_y = job.blocks_x > 1 ? job.tiles_y : ceil_div(job.tiles_y, MAX(1, b->block / job.tiles_x));
    const long others = MAX(1, g->n * g->groups * job.blocks_x), tasks = others * job.blocks_y;
    if (tasks < 8 * threads) job.blocks_y = MIN(job.tiles_y, ceil_div(ceil_div(tasks, threads) * threads, others));
    job.most = ceil_div(job.tiles_y, job.blocks_y) * ceil_div(job.tiles_x, job.blocks_x);
    job.channels = ceil_div(icg, VL) * VL;
    /* One more vector, lest the matrices of V (or M) fall on the same cache sets. */
    job.v_stride = job.most * job.channels + VL;
    job.m_stride = job.most * FN(panel_at)(ocg, 0).nr + VL;
    return job;
}

INLINE FN(tile_block) FN(block_at)(const FN(winograd_job) *job, long index) {
    const long y = index / job->blocks_x, x = index % job->blocks_x;
    FN(tile_block) b = {part(job->tiles_y, job->blocks_y, y), part(job->tiles_y, job->blocks_y, y + 1),
                        part(job->tiles_x, job->blocks_x, x), part(job->tiles_x, job->blocks_x, x + 1), 0};
    b.tiles = (b.ty1 - b.ty0) * (b.tx1 - b.tx0);
    return b;
}

/* Transforms one tile of VL channels. */
INLINE void FN(input_tile)(const int nh, const int nw, const FN(points) *points, const T *from, long row, long pixel, T *to, long stride) {
    VEC d[8], e[64];
    UNROLL for (int j = 0; j < nw; j++) {
        UNROLL for (int i = 0; i < nh; i++) d[i] = LOAD(from + i * row + j * pixel);
        FN(input_1d)(nh, points, d, 1, e + j, nw);
    }
    UNROLL for (int i = 0; i < nh; i++) {
        FN(input_1d)(nw, points, e + i * nw, 1, d, 1);
        UNROLL for (int j = 0; j < nw; j++) STORE(to + (i * nw + j) * stride, d[j]);
    }
}

/* V of channels [c, c + VL) of a block. `image` is channel-last: pixel (y0, x0) at `image`, rows and pixels at strides;
   pixels outside [y0,y1) x [x0,x1) are padding; nothing at or past `end` is read. */
INLINE void FN(input_block)(const FN(winograd_job) *job, const int nh, const int nw, const FN(tile_block) *b, const T *image, long row, long pixel,
                            long y0, long y1, long x0, long x1, long lanes, const T *end, T *v) {
    const conv_geometry *g = job->g;
    T patch[64 * VL] __attribute__((aligned(64)));
    for (long ty = b->ty0; ty < b->ty1; ty++)
        for (long tx = b->tx0; tx < b->tx1; tx++, v += job->channels) {
            const long iy = ty * job->blocking->mh - g->pt, ix = tx * job->blocking->mw - g->pl;
            const T *from = image + (iy - y0) * row + (ix - x0) * pixel;
            const int inside = iy >= y0 && iy + nh <= y1 && ix >= x0 && ix + nw <= x1;
            if (inside && end - (from + (nh - 1) * row + (nw - 1) * pixel) >= VL) {
                FN(input_tile)(nh, nw, &job->points, from, row, pixel, v, job->v_stride);
                continue;
            }
            for (int i = 0; i < nh; i++)
                for (int j = 0; j < nw; j++) {
                    const T *at = from + i * row + j * pixel;
                    VEC d = {0};
                    if (iy + i >= y0 && iy + i < y1 && ix + j >= x0 && ix + j < x1) d = end - at >= VL ? LOAD(at) : FN(load_part)(at, lanes);
                    STORE(patch + (i * nw + j) * VL, d);
                }
            FN(input_tile)(nh, nw, &job->points, patch, nw * VL, VL, v, job->v_stride);
        }
}

/* Inverse transform of VL output channels of a block, to channel-last pixels; pixel (y0, x0) at `to`. Pixels at or past
   (oh, ow) are dropped. residual and activation apply where `to` is y itself. */
INLINE void FN(output_block)(const FN(winograd_job) *job, const int nh, const int nw, const int mh, const int mw, const FN(tile_block) *b, const T *m,
                             long nr, const T *bias, long lanes, long y0, long x0, long row, long pixel, T *to, const T *residual, conv_activation act) {
    const conv_geometry *g = job->g;
    const VEC start = lanes == VL ? LOAD(bias) : FN(load_part)(bias, lanes);
    for (long ty = b->ty0; ty < b->ty1; ty++)
        for (long tx = b->tx0; tx < b->tx1; tx++, m += nr) {
            VEC d[8], e[64], o[64];
            UNROLL for (int j = 0; j < nw; j++) {
                UNROLL for (int i = 0; i < nh; i++) d[i] = LOAD(m + (i * nw + j) * job->m_stride);
                FN(output_1d)(nh, mh, &job->points, d, 1, e + j, nw);
            }
            UNROLL for (int i = 0; i < mh; i++) FN(output_1d)(nw, mw, &job->points, e + i * nw, 1, o + i * mw, 1);
            const long h = MIN(mh, g->oh - ty * mh), w = MIN(mw, g->ow - tx * mw);
            const long at = (ty * mh - y0) * row + (tx * mw - x0) * pixel;
            if (h == mh && w == mw && lanes == VL && !residual && act.kind == ACT_NONE) {
                UNROLL for (int i = 0; i < mh; i++) UNROLL for (int j = 0; j < mw; j++) STORE(to + at + i * row + j * pixel, o[i * mw + j] + start);
                continue;
            }
            for (long i = 0; i < h; i++)
                for (long j = 0; j < w; j++) {
                    const long p = at + i * row + j * pixel;
                    VEC r = o[i * mw + j] + start;
                    if (residual) r += lanes == VL ? LOAD(residual + p) : FN(load_part)(residual + p, lanes);
                    r = FN(activated)(act, r);
                    if (lanes == VL) STORE(to + p, r);
                    else FN(store_part)(to + p, r, lanes);
                }
        }
}

/* One instance for each kind of tile: nh, nw, mh, mw are constants in it. */
#define WINOGRAD(NH, NW, MH, MW)                                                                                                             \
    static __attribute__((noinline)) void FN(input_##NH##x##NW##_##MH##x##MW)(const FN(winograd_job) *job, const FN(tile_block) *b,          \
            const T *image, long row, long pixel, long y0, long y1, long x0, long x1, long lanes, const T *end, T *v) {                      \
        FN(input_block)(job, NH, NW, b, image, row, pixel, y0, y1, x0, x1, lanes, end, v);                                                   \
    }                                                                                                                                        \
    static __attribute__((noinline)) void FN(output_##NH##x##NW##_##MH##x##MW)(const FN(winograd_job) *job, const FN(tile_block) *b,         \
            const T *m, long nr, const T *bias, long lanes, long y0, long x0, long row, long pixel, T *to, const T *residual, conv_activation act) { \
        FN(output_block)(job, NH, NW, MH, MW, b, m, nr, bias, lanes, y0, x0, row, pixel, to, residual, act);                                 \
    }
WINOGRAD(4, 4, 2, 2)
WINOGRAD(6, 6, 4, 4)
WINOGRAD(8, 8, 6, 6)
#undef WINOGRAD

typedef struct {
    int nh, nw, mh, mw;
    void (*input)(const FN(winograd_job) *, const FN(tile_block) *, const T *, long, long, long, long, long, long, long, const T *, T *);
    void (*output)(const FN(winograd_job) *, const FN(tile_block) *, const T *, long, const T *, long, long, long, long, long, T *, const T *, conv_activation);
} FN(winograd_tile);
#define WINOGRAD(NH, NW, MH, MW) {NH, NW, MH, MW, FN(input_##NH##x##NW##_##MH##x##MW), FN(output_##NH##x##NW##_##MH##x##MW)}
static const FN(winograd_tile) FN(winograd_tiles)[] = {WINOGRAD(4, 4, 2, 2), WINOGRAD(6, 6, 4, 4), WINOGRAD(8, 8, 6, 6)};
#undef WINOGRAD

INLINE const FN(winograd_tile) *FN(tile_of)(const FN(winograd_job) *job) {
    const FN(winograd_tile) *t = FN(winograd_tiles);
    while (t->nh != job->nh || t->nw != job->nw || t->mh != job->blocking->mh || t->mw != job->blocking->mw) t++;
    return t;
}

/* Input pixels that a block touches, within the image. */
INLINE tap_rect FN(block_input)(const FN(winograd_job) *job, const FN(tile_block) *b) {
    const conv_geometry *g = job->g;
    const long mh = job->blocking->mh, mw = job->blocking->mw;
    return (tap_rect){.oy0 = MIN(g->ih, MAX(0, b->ty0 * mh - g->pt)), .oy1 = MAX(0, MIN(g->ih, b->ty1 * mh + g->kh - 1 - g->pt)),
                      .ox0 = MIN(g->iw, MAX(0, b->tx0 * mw - g->pl)), .ox1 = MAX(0, MIN(g->iw, b->tx1 * mw + g->kw - 1 - g->pl))};
}

/* Elements of the channel-last strips of NCHW: the larger of input and output. */
static long FN(strip_size)(const FN(winograd_job) *job) {
    const conv_geometry *g = job->g;
    if (g->nhwc) return 0;
    const long rows = ceil_div(job->tiles_y, job->blocks_y) * job->blocking->mh + g->kh - 1;
    const long columns = ceil_div(job->tiles_x, job->blocks_x) * job->blocking->mw + g->kw - 1;
    return MAX(MIN(rows, g->ih) * MIN(columns, g->iw), MIN(rows, g->oh) * MIN(columns, g->ow)) * VL;
}

/* Vectors [c0, c1) of the channels of a block into V. */
static void FN(input_stage)(const FN(winograd_job) *job, long image, long group, const FN(tile_block) *b, long c0, long c1, T *strip, T *v) {
    const conv_geometry *g = job->g;
    const FN(winograd_tile) *t = FN(tile_of)(job);
    const long icg = g->ic / g->groups;
    const T *x = job->tensors->x, *end = x + g->n * g->ic * g->ih * g->iw;
    if (g->nhwc) {
        x += image * g->ih * g->iw * g->ic + group * icg;
        for (long c = c0; c < c1; c++)
            t->input(job, b, x + c * VL, g->iw * g->ic, g->ic, 0, g->ih, 0, g->iw, MIN(VL, icg - c * VL), end, v + c * VL);
        return;
    }
    const tap_rect in = FN(block_input)(job, b);
    const long rows = MAX(0, in.oy1 - in.oy0), columns = MAX(0, in.ox1 - in.ox0), plane = g->ih * g->iw;
    for (long c = c0; c < c1; c++) {
        const long lanes = MIN(VL, icg - c * VL);
        const T *from = x + (image * g->ic + group * icg + c * VL) * plane + in.oy0 * g->iw + in.ox0;
        if (columns == g->iw) FN(planes_to_pixels)(from, plane, lanes, rows * columns, end, strip, VL);
        else
            for (long y = 0; y < rows; y++) FN(planes_to_pixels)(from + y * g->iw, plane, lanes, columns, end, strip + y * columns * VL, VL);
        t->input(job, b, strip, columns * VL, VL, in.oy0, in.oy1, in.ox0, in.ox1, VL, strip + rows * columns * VL, v + c * VL);
    }
}

/* GEMMs and inverse transform of one panel of output channels of a block. */
static void FN(output_stage)(const FN(winograd_job) *job, long image, long group, const FN(tile_block) *b, long index, const T *v, const long *offsets, T *strip, T *m) {
    const conv_geometry *g = job->g;
    const FN(winograd_tile) *t = FN(tile_of)(job);
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, matrices = job->nh * job->nw, plane = g->oh * g->ow;
    const FN(panel) p = FN(panel_at)(ocg, index);
    const T *u = (const T *)job->tensors->weight + matrices * icg * (group * FN(padded)(ocg) + p.column);
    const FN(panel) whole = {p.nv, 0, p.nr, p.nr};
    const long passes = ceil_div(icg, job->blocking->kc);
    const long *vo = offsets, *mo = offsets + job->most * (1 + p.nv);
    for (long a = 0; a < matrices; a++) {
        FN(tile) tile = {.a = v + a * job->v_stride, .b = u + a * icg * p.nr, .ldb = p.nr, .c = m + a * job->m_stride, .count = 1};
        for (long pass = 0; pass < passes; pass++) {
            const long k0 = part(icg, passes, pass);
            const segment piece = {k0, k0, part(icg, passes, pass + 1) - k0};
            tile.segments = &piece;
            FN(gemm_rows)(&tile, &whole, b->tiles, vo, mo, mo);
            tile.z = tile.c;
        }
    }
    const long oy = b->ty0 * job->blocking->mh, ox = b->tx0 * job->blocking->mw;
    const long rows = MIN(g->oh, b->ty1 * job->blocking->mh) - oy, columns = MIN(g->ow, b->tx1 * job->blocking->mw) - ox;
    const T *residual = job->tensors->residual;
    for (long c = 0; c < p.valid; c += VL) {
        const long lanes = MIN(VL, p.valid - c), channel = group * ocg + p.column + c;
        const T *bias = (const T *)job->tensors->bias + channel;
        if (g->nhwc) {
            const long at = (image * plane + oy * g->ow + ox) * g->oc + channel;
            t->output(job, b, m + c, p.nr, bias, lanes, oy, ox, g->ow * g->oc, g->oc, (T *)job->tensors->y + at, residual ? residual + at : NULL, job->act);
            continue;
        }
        const conv_activation none = {ACT_NONE, 0, 0};
        T padded_bias[VL];
        for (long l = 0; l < VL; l++) padded_bias[l] = l < lanes ? bias[l] : 0;
        t->output(job, b, m + c, p.nr, padded_bias, VL, oy, ox, columns * VL, VL, strip, NULL, none);
        const long at = (image * g->oc + channel) * plane + oy * g->ow + ox;
        T *y = (T *)job->tensors->y + at;
        if (columns == g->ow) FN(pixels_to_planes)(strip, VL, plane, lanes, rows * columns, residual ? residual + at : NULL, job->act, y);
        else
            for (long i = 0; i < rows; i++)
                FN(pixels_to_planes)(strip + i * columns * VL, VL, plane, lanes, columns, residual ? residual + at + i * g->ow : NULL, job->act, y + i * g->ow);
    }
}

typedef struct {
    T *v, *m, *strip;
    long *offsets;
} FN(winograd_scratch);

/* Bytes of scratch; with `s`, a thread's, from its arena (zero if memory is short). V only where the block is not shared. */
static size_t FN(winograd_arena)(const FN(winograd_job) *job, int with_v, FN(winograd_scratch) *s) {
    const size_t matrices = (size_t)job->nh * (size_t)job->nw;
    const size_t v = with_v ? matrices * (size_t)job->v_stride * sizeof(T) : 0, m = (matrices * (size_t)job->m_stride + VL) * sizeof(T);
    const size_t strip = (size_t)FN(strip_size)(job) * sizeof(T), offsets = (size_t)job->most * (NV_MAX + 2) * sizeof(long);
    const size_t bytes = aligned_size(v) + aligned_size(m) + aligned_size(strip) + aligned_size(offsets);
    if (!s) return bytes;
    scratch memory = {pool_arena(TASK_ARENA, bytes)};
    if (!memory.next) return 0;
    s->v = take(&memory, v);
    s->m = take(&memory, m);
    s->strip = take(&memory, strip);
    s->offsets = take(&memory, offsets);
    /* rows of V, then rows of M for each width of panel */
    for (long i = 0; i < job->most; i++) {
        s->offsets[i] = i * job->channels;
        for (long nv = 0; nv <= NV_MAX; nv++) s->offsets[job->most * (1 + nv) + i] = i * (nv ? nv * VL : VL / 2);
    }
    return bytes;
}

static int FN(winograd_task)(void *context, long index) {
    const FN(winograd_job) *job = context;
    FN(winograd_scratch) s;
    if (!FN(winograd_arena)(job, 1, &s)) return OUT_OF_MEMORY;
    const long blocks = job->blocks_y * job->blocks_x, group = index / blocks % job->g->groups, image = index / (blocks * job->g->groups);
    const FN(tile_block) b = FN(block_at)(job, index % blocks);
    FN(input_stage)(job, image, group, &b, 0, job->channels / VL, s.strip, s.v);
    for (long i = 0; i < FN(panel_count)(job->g->oc / job->g->groups); i++) FN(output_stage)(job, image, group, &b, i, s.v, s.offsets, s.strip, s.m);
    return 0;
}

static int FN(winograd_shared_input)(void *context, long index) {
    const FN(winograd_job) *job = context;
    FN(winograd_scratch) s;
    if (!FN(winograd_arena)(job, 0, &s)) return OUT_OF_MEMORY;
    const FN(tile_block) b = FN(block_at)(job, job->block);
    FN(input_stage)(job, job->image, job->group, &b, index, index + 1, s.strip, job->shared);
    return 0;
}

static int FN(winograd_shared_output)(void *context, long index) {
    const FN(winograd_job) *job = context;
    FN(winograd_scratch) s;
    if (!FN(winograd_arena)(job, 0, &s)) return OUT_OF_MEMORY;
    const FN(tile_block) b = FN(block_at)(job, job->block);
    FN(output_stage)(job, job->image, job->group, &b, index, job->shared, s.offsets, s.strip, s.m);
    return 0;
}

/* Whether the threads had better share each block, dividing its panels of output channels, than take whole blocks: they do if few or
   uneven blocks would leave threads idle, or if the blocks would be too small to repay reading the weight. */
static int FN(share_blocks)(const FN(winograd_job) *job, int threads) {
    const conv_geometry *g = job->g;
    const long tasks = g->n * g->groups * job->blocks_y * job->blocks_x, panels = FN(panel_count)(g->oc / g->groups);
    if (threads == 1 || tasks >= 8 * threads || panels < threads) return 0;
    if (job->most < 12) return 1;
    const long rounds = ceil_div(tasks, threads), tiles = g->n * g->groups * job->tiles_y * job->tiles_x;
    const double whole = (double)tiles / (double)(threads * rounds * job->most), shared = 0.93 * (double)panels / (double)(threads * ceil_div(panels, threads));
    return shared > whole;
}

static int FN(winograd)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    FN(winograd_job) job = FN(winograd_job_of)(g, blocking, threads);
    const int share = FN(share_blocks)(&job, threads);
    if (share) job = FN(winograd_job_of)(g, blocking, 1); /* whole blocks: each reads the weight once */
    job.tensors = tensors;
    job.act = act;
    const long blocks = job.blocks_y * job.blocks_x, tasks = g->n * g->groups * blocks;
    if (!share) return pool_run(FN(winograd_task), &job, tasks, threads);
    job.shared = pool_arena(CALL_ARENA, (size_t)job.nh * (size_t)job.nw * (size_t)job.v_stride * sizeof(T));
    if (!job.shared) return OUT_OF_MEMORY;
    int status = 0;
    for (long i = 0; i < tasks && !status; i++) {
        job.block = i % blocks;
        job.group = i / blocks % g->groups;
        job.image = i / (blocks * g->groups);
        status = pool_run(FN(winograd_shared_input), &job, job.channels / VL, threads);
        if (!status) status = pool_run(FN(winograd_shared_output), &job, FN(panel_count)(g->oc / g->groups), threads);
    }
    return status;
}

static long FN(winograd_workspace)(const conv_geometry *g, const conv_blocking *blocking) {
    const FN(winograd_job) job = FN(winograd_job_of)(g, blocking, 1);
    return (long)FN(winograd_arena)(&job, 1, NULL);
}

static long FN(winograd_packed_size)(const conv_geometry *g, const conv_blocking *b) {
    const long matrices = (b->mh + g->kh - 1) * (b->mw + g->kw - 1);
    return matrices * (g->ic / g->groups) * g->groups * FN(padded)(g->oc / g->groups);
}

/* U = G_h w G_w^T in double, rounded once. */
static void FN(winograd_pack)(const conv_geometry *g, const conv_blocking *b, const double *gh, const double *gw, const void *weight, void *packed) {
    enum { LANES = 8 };
    const long kh = g->kh, kw = g->kw, nh = b->mh + kh - 1, nw = b->mw + kw - 1, icg = g->ic / g->groups, ocg = g->oc / g->groups;
    const long tap = g->nhwc ? icg * g->oc : 1, channel = g->nhwc ? g->oc : kh * kw, output = g->nhwc ? 1 : icg * kh * kw;
    T *to = packed;
    for (long group = 0; group < g->groups; group++)
        for (long i = 0; i < FN(panel_count)(ocg); i++) {
            const FN(panel) p = FN(panel_at)(ocg, i);
            for (long c = 0; c < icg; c++)
                for (long j = 0; j < p.nr; j += LANES) {
                    const T *w = (const T *)weight + c * channel + (group * ocg + p.column + j) * output;
                    const long lanes = MIN(LANES, p.nr - j);
                    double columns[8][8][LANES], in[LANES];
                    for (long l = 0; l < LANES; l++) in[l] = 0;
                    for (long y = 0; y < nh; y++)
                        for (long v = 0; v < kw; v++)
                            for (long l = 0; l < LANES; l++) columns[y][v][l] = 0;
                    for (long u = 0; u < kh; u++)
                        for (long v = 0; v < kw; v++) {
                            for (long l = 0; l < MIN(LANES, p.valid - j); l++) in[l] = w[(u * kw + v) * tap + l * output];
                            for (long y = 0; y < nh; y++)
                                for (long l = 0; l < LANES; l++) columns[y][v][l] += gh[y * kh + u] * in[l];
                        }
                    for (long y = 0; y < nh; y++)
                        for (long x = 0; x < nw; x++) {
                            double sum[LANES] = {0};
                            for (long v = 0; v < kw; v++)
                                for (long l = 0; l < LANES; l++) sum[l] += gw[x * kw + v] * columns[y][v][l];
                            T *at = to + ((y * nw + x) * icg + c) * p.nr + j;
                            for (long l = 0; l < lanes; l++) at[l] = (T)sum[l];
                        }
                }
            to += nh * nw * icg * p.nr;
        }
}
