/* Depthwise convolution of NCHW planes, for the common kernels. Vectors hold pixels of a row, in place: a few loads of an input row, shuffled at
   stride 2, give the vectors of all its taps, which go into four output rows. Of maps at most half a vector wide, a vector holds a pixel row and the fourth
   below. Rows outside the image are a row of zeros; pixels outside a row are masked. */
enum { FN(PLANE_ROWS) = 4, FN(PLANE_TAPS) = 7 };

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    long tasks; /* of an image: runs of planes, or of row groups where planes are few */
} FN(planes_job);

/* Columns [x, x + VL) of the output: for each tap, which of two vectors' elements are its pixels (stride 2 and pairs), and which are in the image. */
typedef struct {
    FN(mask) lanes[FN(PLANE_TAPS)], keep[FN(PLANE_TAPS)];
    long x, from; /* from: the first element of an input row that is loaded */
} FN(plane_columns);

/* Whether a vector holds two rows: it then begins at the image's first column. */
INLINE int FN(paired)(const conv_geometry *g) { return 2 * g->ow <= VL && g->iw <= VL; }

/* The last columns begin early enough to be whole, where the map is wide enough. */
static void FN(make_columns)(const conv_geometry *g, long block, FN(plane_columns) *c) {
    const int paired = FN(paired)(g);
    c->x = MAX(0, MIN(block * VL, g->ow - VL));
    c->from = paired ? 0 : c->x * g->sw - g->pl;
    for (long k = 0; k < g->kw; k++) {
        T_INT lanes[VL], keep[VL];
        for (long l = 0; l < VL; l++) {
            const long x = paired ? l % (VL / 2) : l, ix = (c->x + x) * g->sw + k - g->pl, at = ix - c->from;
            keep[l] = ix >= 0 && ix < g->iw ? -1 : 0;
            /* stride 2: the elements of the tap's parity of two vectors, then all of the third one */
            const long lane = paired ? at + l / (VL / 2) * VL : x + k / 2 < VL ? x + k / 2 : at - VL;
            lanes[l] = (T_INT)(keep[l] ? lane : 0);
        }
        __builtin_memcpy(&c->lanes[k], lanes, sizeof lanes);
        __builtin_memcpy(&c->keep[k], keep, sizeof keep);
    }
}

INLINE VEC FN(masked)(VEC v, FN(mask) keep) { return (VEC)((FN(mask))v & keep); }

/* The vectors of the taps of an input row; `other`: the fourth output row's, of paired rows. */
INLINE void FN(row_taps)(const int kw, const int s, const int paired, const T *row, const T *other, const FN(plane_columns) *c, VEC *tap) {
    if (paired) {
        const VEC a = LOAD(row), b = LOAD(other);
        UNROLL for (int k = 0; k < kw; k++) tap[k] = FN(masked)(FN(choose)(a, b, c->lanes[k]), c->keep[k]);
    } else if (s == 1) {
        UNROLL for (int k = 0; k < kw; k++) tap[k] = FN(masked)(LOAD(row + k), c->keep[k]);
    } else {
        const VEC a = LOAD(row), b = LOAD(row + VL), rest = LOAD(row + 2 * VL);
        tap[0] = FN(evens)(a, b);
        tap[1] = FN(odds)(a, b);
        UNROLL for (int k = 2; k < kw; k++) tap[k] = FN(choose)(tap[k % 2], rest, c->lanes[k]);
        UNROLL for (int k = 0; k < kw; k++) tap[k] = FN(masked)(tap[k], c->keep[k]);
    }
}

/* Four output rows (paired: eight) of VL columns. `rows`: the input rows. */
INLINE void FN(plane_block)(const int kh, const int kw, const int s, const int paired, const T *const *rows, const FN(plane_columns) *c, const T *w, VEC *out) {
    VEC acc[FN(PLANE_ROWS)];
    UNROLL for (int r = 0; r < FN(PLANE_ROWS); r++) acc[r] = SPLAT(w[kh * kw]);
    UNROLL for (int i = 0; i < (FN(PLANE_ROWS) - 1) * s + kh; i++) {
        VEC tap[FN(PLANE_TAPS)];
        FN(row_taps)(kw, s, paired, rows[i] + c->from, paired ? rows[i + FN(PLANE_ROWS) * s] + c->from : NULL, c, tap);
        UNROLL for (int r = 0; r < FN(PLANE_ROWS); r++)
            if (i >= r * s && i - r * s < kh) UNROLL for (int k = 0; k < kw; k++) acc[r] += tap[k] * w[(i - r * s) * kw + k];
    }
    UNROLL for (int r = 0; r < FN(PLANE_ROWS); r++) out[r] = acc[r];
}

/* Output rows made at once, and input rows that they read. */
INLINE long FN(group_rows)(const conv_geometry *g) { return FN(paired)(g) ? 2 * FN(PLANE_ROWS) : FN(PLANE_ROWS); }
INLINE long FN(input_rows)(const conv_geometry *g) { return (FN(group_rows)(g) - 1) * g->sh + g->kh; }

/* n < VL elements of v, of `to` and those behind it that are to be written later, up to `free`. */
INLINE void FN(store_some)(T *to, VEC v, long n, const T *free) {
    if (free - to >= VL) STORE(to, v);
    else FN(store_part)(to, v, n);
}

/* y = activation(v + residual) of n columns. */
static void FN(finish_row)(VEC v, long n, const conv_strides *s, const T *residual, conv_activation act, T *y, const T *free) {
    if (residual) v += s->pixel != 1 ? FN(gather)(residual, s->pixel, n) : n == VL ? LOAD(residual) : FN(load_part)(residual, n);
    v = FN(activated)(act, v);
    if (s->pixel != 1) FN(scatter)(y, s->pixel, v, n);
    else if (n == VL) STORE(y, v);
    else FN(store_some)(y, v, n, free);
}

/* Scratch of a task: rows that may be read as far as vectors reach. */
typedef struct {
    const T **rows;
    T *zeros, *copies;
    FN(plane_columns) *columns;
    FN(mask) swap;       /* of the halves of a vector */
    long before, length; /* of a copied row: elements before its first, and in all */
} FN(plane_scratch);

/* `rows` input rows, of output rows from oy on. */
INLINE void FN(find_rows)(const conv_geometry *g, const conv_tensors *t, const T *plane, const long rows, long oy, const FN(plane_scratch) *s) {
    const long iy = oy * g->sh - g->pt, top = MIN(rows, MAX(0, -iy)), bottom = MIN(rows, MAX(top, g->ih - iy));
    for (long i = 0; i < top; i++) s->rows[i] = s->zeros;
    for (long i = top; i < bottom; i++) s->rows[i] = plane + (iy + i) * t->xs.row;
    for (long i = bottom; i < rows; i++) s->rows[i] = s->zeros;
}

/* Copies those that are not contiguous, or that vectors would read past the ends of x. */
static void FN(copy_plane_rows)(const conv_geometry *g, const conv_tensors *t, const FN(plane_scratch) *s) {
    for (long i = 0; i < FN(input_rows)(g); i++) {
        const T *row = s->rows[i];
        if (row == s->zeros || (t->xs.pixel == 1 && row - (const T *)t->x >= s->before && (const T *)t->x_end - row >= s->length - s->before)) continue;
        T *to = s->copies + i * s->length + s->before;
        for (long x = 0; x < g->iw; x++) to[x] = row[x * t->xs.pixel];
        s->rows[i] = to;
    }
}

/* y = activation(out + residual), `n` columns of `count` rows. */
INLINE void FN(finish_rows)(const VEC *out, long count, long n, const conv_strides *s, const T *residual, conv_activation act, T *y, const T *free) {
    if (s->pixel == 1 && !residual && act.kind <= ACT_CLIP && (n == VL || free - (y + (count - 1) * s->row) >= VL)) {
        for (long r = 0; r < count; r++) STORE(y + r * s->row, FN(activated)(act, out[r]));
        return;
    }
    for (long r = 0; r < count; r++) FN(finish_row)(out[r], n, s, residual ? residual + r * s->row : NULL, act, y + r * s->row, free);
}

/* Of one plane: x, w, residual and y are its own; careful: vectors might read past the ends of x; `free`: what follows in y up to there is to be
   written later. */
typedef struct {
    const T *x, *w, *residual;
    T *y;
    const T *free;
    int careful;
} FN(plane);

/* Output rows from oy on of one plane. */
INLINE void FN(plane_group)(const int kh, const int kw, const int stride, const int paired, const FN(planes_job) *job, const FN(plane_scratch) *s, const FN(plane) *p, long oy) {
    const conv_geometry *g = job->g;
    const conv_strides *ys = &job->tensors->ys;
    const long blocks = ceil_div(g->ow, VL), n = MIN(VL, g->ow), rows = g->oh - oy;
    FN(find_rows)(g, job->tensors, p->x, (FN(PLANE_ROWS) * (1 + paired) - 1) * stride + kh, oy, s);
    if (p->careful) FN(copy_plane_rows)(g, job->tensors, s);
    for (long block = 0; block < blocks; block++) {
        const FN(plane_columns) *c = s->columns + block;
        VEC out[FN(PLANE_ROWS)];
        FN(plane_block)(kh, kw, stride, paired, s->rows, c, p->w, out);
        const long at = oy * ys->row + c->x * ys->pixel, below = at + FN(PLANE_ROWS) * ys->row;
        FN(finish_rows)(out, MIN(FN(PLANE_ROWS), rows), n, ys, p->residual ? p->residual + at : NULL, job->act, p->y + at, p->free);
        if (!paired || rows <= FN(PLANE_ROWS)) continue;
        UNROLL for (int r = 0; r < FN(PLANE_ROWS); r++) out[r] = FN(choose)(out[r], out[r], s->swap);
        FN(finish_rows)(out, MIN(FN(PLANE_ROWS), rows - FN(PLANE_ROWS)), n, ys, p->residual ? p->residual + below : NULL, job->act, p->y + below, p->free);
    }
}

typedef void (*FN(plane_kernel))(const FN(planes_job) *, const FN(plane_scratch) *, const FN(plane) *, long oy);
#define PLANES(K, S)                                                                                                                    \
    static void FN(plane_##K##_##S)(const FN(planes_job) *job, const FN(plane_scratch) *s, const FN(plane) *p, long oy) {              \
        FN(plane_group)(K, K, S, 0, job, s, p, oy);                                                                                     \
    }                                                                                                                                   \
    static void FN(plane_pair_##K##_##S)(const FN(planes_job) *job, const FN(plane_scratch) *s, const FN(plane) *p, long oy) {         \
        FN(plane_group)(K, K, S, 1, job, s, p, oy);                                                                                     \
    }
PLANES(3, 1) PLANES(3, 2) PLANES(5, 1) PLANES(5, 2) PLANES(7, 1)
#undef PLANES

/* NULL where channel-last strips serve: NHWC, other kernels, and those too wide for two short vectors. */
INLINE FN(plane_kernel) FN(plane_kernel_of)(const conv_geometry *g) {
#define PLANES(K, S) {FN(plane_##K##_##S), FN(plane_pair_##K##_##S)}
    static const FN(plane_kernel) kernels[][2] = {PLANES(3, 1), PLANES(3, 2), PLANES(5, 1), PLANES(5, 2), PLANES(7, 1)};
#undef PLANES
    if (g->nhwc || g->kh != g->kw || g->sh != g->sw || g->dh != 1 || g->dw != 1 || g->kw > VL + 1) return NULL;
    const int paired = FN(paired)(g);
    if (g->kh == 3 || g->kh == 5) return g->sh == 1 || g->sh == 2 ? kernels[g->kh - 3 + g->sh - 1][paired] : NULL;
    return g->kh == 7 && g->sh == 1 ? kernels[4][paired] : NULL;
}

/* A run of groups of rows of an image's planes. */
static int FN(planes_task)(void *context, long index) {
    const FN(planes_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *t = job->tensors;
    const FN(plane_kernel) kernel = FN(plane_kernel_of)(g);
    const long image = index / job->tasks, taps = g->kh * g->kw, blocks = ceil_div(g->ow, VL), each = FN(group_rows)(g), groups = ceil_div(g->oh, each);
    FN(plane_scratch) s = {.before = g->pl};
    s.length = s.before + MAX(g->iw, MAX(0, g->ow - VL) * g->sw) + 3 * VL;
    const size_t column_bytes = (size_t)blocks * sizeof(FN(plane_columns)), row_bytes = (size_t)(s.length) * sizeof(T), pointer_bytes = (size_t)FN(input_rows)(g) * sizeof(T *);
    scratch memory = {pool_arena(TASK_ARENA, aligned_size(column_bytes) + aligned_size(pointer_bytes) + aligned_size(row_bytes) + (size_t)FN(input_rows)(g) * row_bytes)};
    if (!memory.next) return OUT_OF_MEMORY;
    s.columns = take(&memory, column_bytes);
    s.rows = take(&memory, pointer_bytes);
    s.zeros = (T *)take(&memory, row_bytes) + s.before;
    s.copies = take(&memory, 0);
    for (long i = 0; i < s.length; i++) s.zeros[i - s.before] = 0;
    T_INT swap[VL];
    for (long l = 0; l < VL; l++) swap[l] = (T_INT)((l + VL / 2) % VL);
    __builtin_memcpy(&s.swap, swap, sizeof swap);
    for (long i = 0; i < blocks; i++) FN(make_columns)(g, i, s.columns + i);

    const T *x = (const T *)t->x + image * t->xs.image, *residual = t->residual ? (const T *)t->residual + image * t->ys.image : NULL;
    T *y = (T *)t->y + image * t->ys.image;
    const long plane = g->oh * g->ow, first = part(g->oc * groups, job->tasks, index % job->tasks), last = part(g->oc * groups, job->tasks, index % job->tasks + 1);
    const int rows_follow = t->ys.row == g->ow, planes_follow = rows_follow && t->ys.channel == plane;
    for (long i = first; i < last;) {
        const long c = i / groups, end = MIN(last, (c + 1) * groups);
        const T *from = x + c * t->xs.channel;
        FN(plane) p = {from, (const T *)t->weight + c * (taps + 1), residual ? residual + c * t->ys.channel : NULL, y + c * t->ys.channel, y,
                       t->xs.pixel != 1 || from - (const T *)t->x < s.before || (const T *)t->x_end - from < (g->ih - 1) * t->xs.row + s.length};
        if (planes_follow) p.free = y + last / groups * plane + MIN(g->oh, last % groups * each) * g->ow;
        else if (rows_follow) p.free = p.y + MIN(g->oh, (end - c * groups) * each) * g->ow;
        for (; i < end; i++) kernel(job, &s, &p, (i - c * groups) * each);
    }
    return 0;
}
