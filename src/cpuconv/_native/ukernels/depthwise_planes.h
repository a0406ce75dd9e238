/* Depthwise convolution of NCHW planes, for the common kernels. Vectors hold pixels. A band of rows of one plane is copied into scratch with its
   padding and split into the phases of the stride, [s][s][rows][pitch], so that a tap of any output (y, x) is the element (y, x) of a phase,
   shifted: every load is contiguous. Four output rows by one or two vectors stay in registers. */
enum { FN(PLANE_ROWS) = 4 };

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    long bands, tasks; /* bands of a plane; tasks of an image: runs of bands, in the order of memory */
} FN(planes_job);

/* A band in scratch, and where its outputs go. */
typedef struct {
    T *in;
    long pitch, phase;   /* between rows; between phases */
    long count, columns; /* output rows and columns */
    T *out;
    long out_row;
    int clip;      /* of values stored */
    T low, high;
    const T *next;  /* what the next band is made from: fetched ahead, `fetch` elements with each block */
    long fetch;
} FN(plane_band);

/* `rows` output rows from `in` on, at column offsets c[0] and c[1]; all but the pointers are constants. */
INLINE void FN(plane_block)(const int kh, const int kw, const int s, const int rows, const int nv, const FN(plane_band) *b, const T *in, const T *w, T *out,
                            const long *c) {
    const long pitch = b->pitch, phase = b->phase;
    VEC acc[FN(PLANE_ROWS)][2];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int j = 0; j < nv; j++) acc[r][j] = SPLAT(w[kh * kw]);
    UNROLL for (int py = 0; py < s; py++)
        UNROLL for (int i = 0; i < rows + (kh - 1 - py) / s; i++)
            UNROLL for (int kx = 0; kx < kw; kx++) {
                const T *at = in + (py * s + kx % s) * phase + i * pitch + kx / s;
                VEC v[2];
                UNROLL for (int j = 0; j < nv; j++) v[j] = LOAD(at + c[j]);
                UNROLL for (int r = 0; r < rows; r++) {
                    const int ky = (i - r) * s + py;
                    if (i >= r && ky < kh) UNROLL for (int j = 0; j < nv; j++) acc[r][j] += v[j] * w[ky * kw + kx];
                }
            }
    if (b->clip) {
        const VEC low = SPLAT(b->low), high = SPLAT(b->high);
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int j = 0; j < nv; j++) acc[r][j] = FN(vmin)(high, FN(vmax)(low, acc[r][j]));
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int j = 0; j < nv; j++) STORE(out + r * b->out_row + c[j], acc[r][j]);
}

/* All rows of a band, at two column offsets; the last four rows may repeat some. */
INLINE void FN(plane_columns)(const int kh, const int kw, const int s, const int nv, FN(plane_band) *b, const T *w, const long *c) {
    if (b->count < FN(PLANE_ROWS))
        for (long y = 0; y < b->count; y++)
            FN(plane_block)(kh, kw, s, 1, nv, b, b->in + y * b->pitch, w, b->out + y * b->out_row, c);
    else
        for (long y = 0; y < b->count; y += FN(PLANE_ROWS)) {
            const long row = MIN(y, b->count - FN(PLANE_ROWS));
            for (const T *end = b->next + b->fetch; b->next < end; b->next += 64 / sizeof(T)) __builtin_prefetch(b->next, 0, 2);
            FN(plane_block)(kh, kw, s, FN(PLANE_ROWS), nv, b, b->in + row * b->pitch, w, b->out + row * b->out_row, c);
        }
}

typedef void (*FN(plane_kernel))(FN(plane_band) *b, const T *w, const long *c);
#define PLANE(K, S, N) static void FN(plane_##K##_##S##_##N)(FN(plane_band) *b, const T *w, const long *c) { FN(plane_columns)(K, K, S, N, b, w, c); }
#define PLANES(K, S) PLANE(K, S, 1) PLANE(K, S, 2)
PLANES(3, 1) PLANES(3, 2) PLANES(5, 1) PLANES(5, 2) PLANES(7, 1)
#undef PLANES
#undef PLANE

/* Kernels for one vector and for two; NULL where channel-last strips serve: NHWC, other kernels, and maps that would leave vectors half empty. */
INLINE const FN(plane_kernel) *FN(plane_kernels)(const conv_geometry *g) {
#define PLANES(K, S) {FN(plane_##K##_##S##_1), FN(plane_##K##_##S##_2)}
    static const FN(plane_kernel) kernels[][2] = {PLANES(3, 1), PLANES(3, 2), PLANES(5, 1), PLANES(5, 2), PLANES(7, 1)};
#undef PLANES
    if (g->nhwc || g->kh != g->kw || g->sh != g->sw || g->dh != 1 || g->dw != 1 || 2 * g->ow <= VL) return NULL;
    if (g->kh == 3 || g->kh == 5) return g->sh == 1 || g->sh == 2 ? kernels[g->kh - 3 + g->sh - 1] : NULL;
    return g->kh == 7 && g->sh == 1 ? kernels[4] : NULL;
}

/* All of a band. The last vectors begin early enough to be whole, where the map is wide enough. */
static void FN(plane_rows)(const FN(plane_kernel) *kernels, FN(plane_band) *b, const T *w) {
    const long last = MAX(0, b->columns - VL);
    for (long x = 0; x < b->columns; x += 2 * VL) {
        const long c[2] = {MIN(x, last), MIN(x + VL, last)};
        kernels[x + VL < b->columns](b, w, c);
    }
}

/* `count` elements, every `step`-th of `from`, in whole vectors: up to VL too many are written, none at or past `end` read. */
INLINE void FN(copy_plus)(T *to, const T *from, long step, long count, const T *end) {
    long i = 0;
    if (step == 1)
        for (; i < count && end - (from + i) >= VL; i += VL) STORE(to + i, LOAD(from + i));
    for (; i < count; i++) to[i] = from[i * step];
}

/* `count` elements from each of even and odd places, as copy_plus. */
INLINE void FN(split_plus)(T *even, T *odd, const T *from, long step, long count, const T *end) {
    long i = 0;
    if (step == 1)
        for (; i < count && end - (from + 2 * i) >= 2 * VL; i += VL) {
            const VEC a = LOAD(from + 2 * i), b = LOAD(from + 2 * i + VL);
            STORE(even + i, FN(evens)(a, b));
            STORE(odd + i, FN(odds)(a, b));
        }
    for (; i < count; i++) {
        even[i] = from[2 * i * step];
        if (from + (2 * i + 1) * step < end) odd[i] = from[(2 * i + 1) * step];
    }
}

/* Zeros, in whole vectors: up to VL elements too many are written. */
INLINE void FN(zeros)(T *to, long count) {
    for (long i = 0; i < count; i += VL) STORE(to + i, (VEC){0});
}

/* The rows of the image that output rows from oy on need, into their phases: the image from element `first` of a phase on, and zeros from
   `last` of one row to `first` of the next. What is written too much behind a row lies in rows to come. */
INLINE void FN(fill_rows)(const conv_geometry *g, const int s, const FN(plane_band) *b, const T *plane, const conv_strides *strides, const long step,
                          const T *end, long oy) {
    long first[2], last[2];
    UNROLL for (int p = 0; p < s; p++) {
        first[p] = MIN(b->pitch, MAX(0, ceil_div(g->pl - p, s)));
        last[p] = MAX(first[p], MIN(b->pitch, ceil_div(g->iw + g->pl - p, s)));
        UNROLL for (int y = 0; y < s; y++) FN(zeros)(b->in + (y * s + p) * b->phase, first[p]);
    }
    const int even = s == 2 ? (int)(g->pl % 2) : 0; /* the phase of column 0 */
    for (long i = 0, iy = oy * s - g->pt; i < (b->count - 1) * s + g->kh; i++, iy++) {
        T *to = b->in + i % s * s * b->phase + i / s * b->pitch;
        if (iy < 0 || iy >= g->ih) {
            UNROLL for (int p = 0; p < s; p++) FN(zeros)(to + p * b->phase + first[p], b->pitch);
            continue;
        }
        const T *from = plane + iy * strides->row;
        if (s == 1) FN(copy_plus)(to + first[0], from, step, last[0] - first[0], end);
        else FN(split_plus)(to + even * b->phase + first[even], to + (1 - even) * b->phase + first[1 - even], from, step, last[even] - first[even], end);
        UNROLL for (int p = 0; p < s; p++) FN(zeros)(to + p * b->phase + last[p], b->pitch - last[p] + first[p]);
    }
}
static const T *FN(fill_band)(const conv_geometry *g, const FN(plane_band) *b, const T *plane, const conv_strides *s, const T *end, long oy) {
    if (s->pixel != 1) FN(fill_rows)(g, (int)g->sw, b, plane, s, s->pixel, end, oy);
    else if (g->sw == 1) FN(fill_rows)(g, 1, b, plane, s, 1, end, oy);
    else FN(fill_rows)(g, 2, b, plane, s, 1, end, oy);
    return plane + MIN(g->ih, (oy + b->count) * g->sh) * s->row;
}

/* y = activation(b->out + residual), row by row. Up to `free`, what lies behind a row is to be written later, and so may be overwritten. */
static void FN(finish_band)(const FN(plane_band) *b, const conv_strides *s, const T *residual, conv_activation act, T *y, const T *free) {
    for (long r = 0; r < b->count; r++, y += s->row, residual = residual ? residual + s->row : NULL)
        for (long x = 0; x < b->columns; x += VL) {
            const long n = MIN(VL, b->columns - x), at = x * s->pixel;
            VEC v = LOAD(b->out + r * b->out_row + x);
            if (residual) v += n == VL && s->pixel == 1 ? LOAD(residual + at) : FN(gather)(residual + at, s->pixel, n);
            v = FN(activated)(act, v);
            if (s->pixel == 1 && (n == VL || y + at + VL <= free)) STORE(y + at, v);
            else FN(scatter)(y + at, s->pixel, v, n);
        }
}

/* First output row of a band: bands divide the blocks of PLANE_ROWS, so that only the last one has a block to repeat. */
INLINE long FN(band_row)(const FN(planes_job) *job, long band) {
    return MIN(job->g->oh, FN(PLANE_ROWS) * part(ceil_div(job->g->oh, FN(PLANE_ROWS)), job->bands, band));
}

/* A run of bands of an image's planes. */
static int FN(planes_task)(void *context, long index) {
    const FN(planes_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *t = job->tensors;
    const long image = index / job->tasks, taps = g->kh * g->kw, most = FN(band_row)(job, 1), plane = g->oh * g->ow;
    const FN(plane_kernel) *kernels = FN(plane_kernels)(g);
    FN(plane_band) b = {.pitch = g->ow + (g->kw - 1) / g->sw, .columns = g->ow};
    b.phase = (most + (g->kh - 1) / g->sh) * b.pitch + g->pl + VL; /* what is written too much behind a phase */
    const long out_row = ceil_div(g->ow, VL) * VL;
    const size_t in_bytes = (size_t)(g->sh * g->sw * b.phase + 5 * VL) * sizeof(T), out_bytes = (size_t)(most * out_row) * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(in_bytes) + out_bytes)};
    if (!s.next) return OUT_OF_MEMORY;
    b.in = take(&s, in_bytes);
    T *const out = take(&s, out_bytes);
    const T *residual = t->residual, *x = (const T *)t->x + image * t->xs.image, *w = t->weight;
    /* Rows follow each other in memory through the band, and through all planes if that is the whole of them. */
    const int plain = t->ys.pixel == 1 && !residual && job->act.kind <= ACT_CLIP;
    const conv_activation none = {ACT_NONE, 0, 0};
    b.clip = plain && job->act.kind == ACT_CLIP;
    b.low = (T)job->act.a;
    b.high = (T)job->act.b;
    const int rows_follow = t->ys.row == g->ow && !residual, planes_follow = rows_follow && job->bands == 1 && t->ys.channel == plane && plane >= VL;
    const long first = part(g->oc * job->bands, job->tasks, index % job->tasks), last = part(g->oc * job->bands, job->tasks, index % job->tasks + 1);
    for (long i = first; i < last; i++) {
        const long c = i / job->bands, oy = FN(band_row)(job, i % job->bands);
        const long at = image * t->ys.image + c * t->ys.channel + oy * t->ys.row;
        const int in_place = plain && (g->ow >= VL || (planes_follow && i < last - 1));
        T *y = (T *)t->y + at;
        b.count = FN(band_row)(job, i % job->bands + 1) - oy;
        b.next = FN(fill_band)(g, &b, x + c * t->xs.channel, &t->xs, t->x_end, oy);
        b.fetch = g->iw * g->sh * FN(PLANE_ROWS) / ceil_div(g->ow, 2 * VL);
        b.out = in_place ? y : out;
        b.out_row = in_place ? t->ys.row : out_row;
        FN(plane_rows)(kernels, &b, w + c * (taps + 1));
        if (!in_place) {
            const long follow = planes_follow ? (last - i) * plane : rows_follow ? b.count * g->ow : 0;
            FN(finish_band)(&b, &t->ys, residual ? residual + at : NULL, plain ? none : job->act, y, y + follow);
        }
    }
    return 0;
}
