/* Depthwise 3x3 convolution of NCHW planes, of stride 1 or 2. Vectors hold VL pixels of a row. A block of VL columns of a plane is made from top to
   bottom: each input row is loaded once, for all output rows that read it, and the nine weights stay in registers. Rows outside the image are zeros;
   columns outside it are masked. */
enum { FN(PLANE_TAPS) = 3 };

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    long columns;      /* of the packed weight */
    long bands, tasks; /* bands of a plane's rows; tasks of an image's bands */
} FN(planes_job);

/* Taps that read beyond the sides of the image: none, the first, the first and the last, or all. */
enum { FN(NO_TAP), FN(FIRST_TAP), FN(END_TAPS), FN(ALL_TAPS), FN(TAP_KINDS) };

/* Output columns [x, x + VL): the first input pixel of their first tap, and which pixels of each tap are in the image. */
typedef struct {
    long x, from;
    FN(mask) inside[FN(PLANE_TAPS)];
    int beyond;
} FN(plane_columns);

/* The least kind that has tap k. */
INLINE int FN(beyond_at)(int k) { return k == 0 ? FN(FIRST_TAP) : k == FN(PLANE_TAPS) - 1 ? FN(END_TAPS) : FN(ALL_TAPS); }

/* The last columns begin early enough to be whole, where the plane is wide enough. */
static void FN(make_columns)(const conv_geometry *g, long block, FN(plane_columns) *c) {
    c->x = MAX(0, MIN(block * VL, g->ow - VL));
    c->from = c->x * g->sw - g->pl;
    c->beyond = FN(NO_TAP);
    for (long k = 0; k < FN(PLANE_TAPS); k++) {
        T_INT inside[VL];
        for (long l = 0; l < VL; l++) {
            const long ix = c->from + l * g->sw + k;
            inside[l] = ix >= 0 && ix < g->iw ? -1 : 0;
            if (!inside[l] && c->x + l < g->ow) c->beyond = MAX(c->beyond, FN(beyond_at)((int)k));
        }
        VEC mask;
        __builtin_memcpy(&mask, inside, sizeof inside);
        c->inside[k] = (FN(mask))(g->sw == 1 ? mask : FN(in_order)(mask)); /* as row_taps has the pixels */
    }
}

/* Elements of an input row that a block reads from its first one on. */
INLINE long FN(plane_reach)(const conv_geometry *g) { return g->sw == 1 ? VL + 2 : 2 * VL + 1; }

/* The pixels of the taps of row iy; x: the block's first pixel of row 0; alone: the block is the row's only one, with a lane to spare. */
INLINE void FN(row_taps)(const int s, const int beyond, const int alone, const conv_geometry *g, const T *x, long x_row, long iy, const FN(mask) *inside, VEC *tap) {
    if (iy < 0 || iy >= g->ih) {
        UNROLL for (int k = 0; k < FN(PLANE_TAPS); k++) tap[k] = (VEC){0};
        return;
    }
    x += iy * x_row;
    if (s == 1) UNROLL for (int k = 0; k < FN(PLANE_TAPS); k++) tap[k] = LOAD(x + k);
    else {
        const VEC a = LOAD(x), b = LOAD(x + VL);
        __asm__("" : : : "memory"); /* they are loaded once */
        tap[0] = FN(evens)(a, b);
        tap[1] = FN(odds)(a, b);
        tap[2] = alone ? FN(later)(tap[0]) : FN(odds)(LOAD(x + 1), LOAD(x + VL + 1));
    }
    UNROLL for (int k = 0; k < FN(PLANE_TAPS); k++) {
        if (beyond >= FN(beyond_at)(k)) tap[k] = (VEC)((FN(mask))tap[k] & inside[k]);
    }
}

/* Output rows [oy, oy + rows) of a block of columns, with no activation or a clip. Each row of pixels is added to all outputs that it belongs to: so
   the sums of a few of them are under way, in chains of three, and their latency is hidden. */
INLINE VEC FN(row_sum)(VEC v, const VEC *tap, const VEC *w) {
    UNROLL for (int k = 0; k < FN(PLANE_TAPS); k++) v += tap[k] * w[k];
    return v;
}
INLINE void FN(plane_block)(const int s, const int beyond, const int alone, const conv_geometry *g, const T *x, long x_row, long oy, long rows, const FN(mask) *columns,
                            const T *weight, long step, conv_activation act, T *y, long y_row) {
    VEC w[FN(PLANE_TAPS)][FN(PLANE_TAPS)], tap[FN(PLANE_TAPS)];
    UNROLL for (int k = 0; k < 9; k++) w[k / 3][k % 3] = SPLAT(weight[k * step]);
    const VEC bias = SPLAT(weight[9 * step]), low = SPLAT(act.a), high = SPLAT(act.b);
    const FN(mask) inside[FN(PLANE_TAPS)] = {columns[0], columns[1], columns[2]};
    long iy = oy * s - g->pt;
    FN(row_taps)(s, beyond, alone, g, x, x_row, iy++, inside, tap);
    VEC first = FN(row_sum)(bias, tap, w[0]), second; /* sums of outputs, up to their first and second row */
    if (s == 1) {
        FN(row_taps)(s, beyond, alone, g, x, x_row, iy++, inside, tap);
        second = FN(row_sum)(first, tap, w[1]);
        first = FN(row_sum)(bias, tap, w[0]);
    }
    for (; rows > 0; rows--, y += y_row) {
        if (s == 2) {
            FN(row_taps)(s, beyond, alone, g, x, x_row, iy++, inside, tap);
            second = FN(row_sum)(first, tap, w[1]);
        }
        FN(row_taps)(s, beyond, alone, g, x, x_row, iy++, inside, tap);
        VEC v = FN(row_sum)(second, tap, w[2]);
        if (s == 1) second = FN(row_sum)(first, tap, w[1]);
        else v = FN(in_order)(v);
        first = FN(row_sum)(bias, tap, w[0]);
        STORE(y, act.kind == ACT_NONE ? v : FN(vmin)(high, FN(vmax)(low, v)));
    }
}

#define PLANE_KERNEL(name)                                                                                                                               \
    name(const conv_geometry *g, const T *x, long x_row, long oy, long rows, const FN(mask) *columns, const T *weight, long step, conv_activation act, T *y, \
         long y_row)
#define KERNEL(S, BEYOND, ALONE)                                                                                    \
    static void PLANE_KERNEL(FN(plane_##S##_##BEYOND##_##ALONE)) {                                                  \
        FN(plane_block)(S, FN(BEYOND), ALONE, g, x, x_row, oy, rows, columns, weight, step, act, y, y_row);         \
    }
#define KERNELS(S, ALONE) KERNEL(S, NO_TAP, ALONE) KERNEL(S, FIRST_TAP, ALONE) KERNEL(S, END_TAPS, ALONE) KERNEL(S, ALL_TAPS, ALONE)
KERNELS(1, 0) KERNELS(2, 0) KERNELS(2, 1)
#undef KERNELS
#undef KERNEL
/* By stride - 1, or 2 where a block is alone; by kind of taps. */
static void PLANE_KERNEL((*const FN(plane_kernels)[3][FN(TAP_KINDS)])) = {
#define KERNELS(S, ALONE) {FN(plane_##S##_NO_TAP_##ALONE), FN(plane_##S##_FIRST_TAP_##ALONE), FN(plane_##S##_END_TAPS_##ALONE), FN(plane_##S##_ALL_TAPS_##ALONE)}
    KERNELS(1, 0), KERNELS(2, 0), KERNELS(2, 1)
#undef KERNELS
};
#undef PLANE_KERNEL

/* y = activation(v + residual) of n columns; `free`: what follows in y up to there is to be written later. */
static void FN(finish_row)(VEC v, long n, const conv_strides *s, const T *residual, conv_activation act, T *y, const T *free) {
    if (residual) v += s->pixel != 1 ? FN(gather)(residual, s->pixel, n) : n == VL ? LOAD(residual) : FN(load_part)(residual, n);
    v = FN(activated)(act, v);
    if (s->pixel != 1) FN(scatter)(y, s->pixel, v, n);
    else if (n == VL || free - y >= VL) STORE(y, v);
    else FN(store_part)(y, v, n);
}

/* Rows [oy, oy + rows) of one plane, of channel c. scratch: [rows][VL]. */
static void FN(plane_rows)(const FN(planes_job) *job, const FN(plane_columns) *columns, const T *x, long x_row, long c, long oy, long rows, const T *residual, T *y, const T *free,
                           T *scratch) {
    const conv_geometry *g = job->g;
    const conv_strides *s = &job->tensors->ys;
    const T *weight = (const T *)job->tensors->weight + c;
    const int kernel = g->sw == 1 ? 0 : PAIRS_IN_ORDER && g->ow < VL ? 2 : 1;
    for (const FN(plane_columns) *end = columns + ceil_div(g->ow, VL); columns < end; columns++) {
        const long n = MIN(VL, g->ow), at = oy * s->row + columns->x * s->pixel;
        const int direct = s->pixel == 1 && !residual && job->act.kind <= ACT_CLIP && (n == VL || free - (y + at + (rows - 1) * s->row) >= VL);
        const conv_activation act = direct ? job->act : (conv_activation){0};
        T *to = direct ? y + at : scratch;
        const long to_row = direct ? s->row : VL;
        FN(plane_kernels)[kernel][columns->beyond](g, x + columns->from, x_row, oy, rows, columns->inside, weight, job->columns, act, to, to_row);
        if (direct) continue;
        for (long i = 0; i < rows; i++) FN(finish_row)(LOAD(scratch + i * VL), n, s, residual ? residual + at + i * s->row : NULL, job->act, y + at + i * s->row, free);
    }
}

/* A run of bands of an image's planes. */
static int FN(planes_task)(void *context, long index) {
    const FN(planes_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *t = job->tensors;
    const long image = index / job->tasks, units = g->ic * job->bands, first = part(units, job->tasks, index % job->tasks), last = part(units, job->tasks, index % job->tasks + 1);
    const long before = g->pl, after = MAX(0, g->ow - VL) * g->sw - g->pl + FN(plane_reach)(g); /* of a row's first pixel: elements read */
    const long most = ceil_div(g->oh, job->bands), reach = MIN(g->ih, (most - 1) * g->sh + g->kh); /* rows of a band, and those it reads */
    const size_t copy_bytes = (size_t)(before + reach * g->iw + after) * sizeof(T), made_bytes = (size_t)(most * VL) * sizeof(T);
    const long blocks = ceil_div(g->ow, VL);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(copy_bytes) + aligned_size(made_bytes) + (size_t)blocks * sizeof(FN(plane_columns)))};
    if (!s.next) return OUT_OF_MEMORY;
    T *copy = (T *)take(&s, copy_bytes) + before, *made = take(&s, made_bytes);
    FN(plane_columns) *columns = take(&s, 0);
    for (long i = 0; i < blocks; i++) FN(make_columns)(g, i, columns + i);
    const int dense = t->ys.row == g->ow && t->ys.channel == g->oh * g->ow && t->ys.pixel == 1;
    const long end_row = part(g->oh, job->bands, last % job->bands);
    T *y = (T *)t->y + image * t->ys.image;
    const T *free = dense ? y + last / job->bands * t->ys.channel + end_row * g->ow : y;
    long c = first / job->bands, band = first % job->bands, oy = part(g->oh, job->bands, band), rows;
    for (long i = first; i < last; i++, oy += rows, band++) {
        if (band == job->bands) {
            band = oy = 0;
            c++;
        }
        rows = part(g->oh, job->bands, band + 1) - oy;
        const T *x = (const T *)t->x + image * t->xs.image + c * t->xs.channel;
        long x_row = t->xs.row;
        if (t->xs.pixel != 1 || x - (const T *)t->x < before || (const T *)t->x_end - (x + (g->ih - 1) * x_row) < after) { /* vectors would read past the ends of x */
            const long iy = oy * g->sh - g->pt, top = MIN(g->ih, MAX(0, iy)), bottom = MIN(g->ih, iy + (rows - 1) * g->sh + g->kh);
            for (long y = top; y < bottom; y++)
                for (long ix = 0; ix < g->iw; ix++) copy[(y - top) * g->iw + ix] = x[y * x_row + ix * t->xs.pixel];
            x_row = g->iw;
            x = copy - top * x_row;
        }
        FN(plane_rows)(job, columns, x, x_row, c, oy, rows, t->residual ? (const T *)t->residual + image * t->ys.image + c * t->ys.channel : NULL, y + c * t->ys.channel, free, made);
    }
    return 0;
}
