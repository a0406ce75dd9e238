/* Depthwise 3x3 convolution of NCHW planes, of stride 1 or 2. Vectors hold VL pixels of a row. A block of VL columns of a plane is made from top to
   bottom: each input row is loaded once, for all output rows that read it, and the nine weights stay in registers. Rows outside the image are zeros;
   columns outside it are masked. Of narrow planes, two are made at a time, side by side. */
enum { FN(PLANE_TAPS) = 3, FN(FETCHED) = 4 * VB / (int)sizeof(T) }; /* pixels of stride 2 of a vector of results */

/* What a vector holds: VL pixels of a wider row, the same where they are a cache line of results that goes past the caches, a whole row with a lane to
   spare, or rows of two planes, a quarter to a half of it each. */
enum { FN(PART), FN(LINE), FN(ROW), FN(PAIR), FN(HOLDINGS) };

/* Whether rows of two planes fit in a vector, and an input row of each in one of its own; whole planes are made, so they are to be short. Only AVX-512
   has vectors that such rows leave half empty. */
INLINE int FN(narrow)(const conv_geometry *g) { return VB == 64 && 2 * g->ow <= VL && 4 * g->ow >= VL && g->iw <= VL && g->ih <= 4 * VL && g->ic > 1; }

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    long columns;      /* of the packed weight */
    long bands, tasks; /* bands of a plane's rows; tasks of an image's bands */
    int stream;        /* as in conv_blocking */
} FN(planes_job);

/* Taps that read beyond the sides of the image: none, the first, the first and the last, or all. */
enum { FN(NO_TAP), FN(FIRST_TAP), FN(END_TAPS), FN(ALL_TAPS), FN(TAP_KINDS) };

/* Output columns [x, x + VL): the first input pixel of their first tap, and which pixels of each tap are in the image. Of pairs: where each lane's
   pixel is among those of both input rows, and (tail) where a quarter of a vector finds the ends of both output rows. fetched: of the rows that come
   next, those of stride 2 are prefetched from here on, of each row of these columns as much as it takes to fetch all; or -1. */
typedef struct {
    long x, from, fetched;
    FN(mask) inside[FN(PLANE_TAPS)], lane[FN(PLANE_TAPS)], tail;
    int beyond;
} FN(plane_columns);

/* The least kind that has tap k. */
INLINE int FN(beyond_at)(int k) { return k == 0 ? FN(FIRST_TAP) : k == FN(PLANE_TAPS) - 1 ? FN(END_TAPS) : FN(ALL_TAPS); }

/* The last columns begin early enough to be whole, where the plane is wide enough. */
static void FN(make_columns)(const conv_geometry *g, long block, FN(plane_columns) *c) {
    c->x = MAX(0, MIN(block * VL, g->ow - VL));
    c->fetched = g->sw == 2 && g->n * g->ic * g->ih * g->iw * (long)sizeof(T) > FAR ? block * FN(FETCHED) : -1;
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

/* A pair's columns. */
static void FN(make_pair)(const conv_geometry *g, FN(plane_columns) *c) {
    c->x = c->from = 0;
    c->beyond = FN(NO_TAP);
    for (long l = 0; VB == 64 && l < VL; l++) c->tail[l] = (T_INT)(l / (VL / 2) * (VL / 2) + g->ow - VL / 4 + l % MAX(1, VL / 4));
    for (long k = 0; k < FN(PLANE_TAPS); k++) {
        T_INT inside[VL], lane[VL];
        for (long l = 0; l < VL; l++) {
            const long second = l / (VL / 2), ox = l % (VL / 2), ix = ox * g->sw - g->pl + k;
            inside[l] = ix >= 0 && ix < g->iw ? -1 : 0;
            lane[l] = inside[l] ? (T_INT)(second * VL + ix) : 0;
            if (!inside[l] && ox < g->ow) c->beyond = MAX(c->beyond, FN(beyond_at)((int)k));
        }
        __builtin_memcpy(c->inside + k, inside, sizeof inside);
        __builtin_memcpy(c->lane + k, lane, sizeof lane);
    }
}

/* Elements of an input row that a block reads from its first one on. */
INLINE long FN(plane_reach)(const conv_geometry *g) { return g->sw == 1 ? VL + 2 : 2 * VL + 1; }

/* The pixels of the taps of row iy; x: the block's first pixel of row 0; apart: from there to a pair's second plane. */
INLINE void FN(row_taps)(const int s, const int beyond, const int holds, const conv_geometry *g, const T *x, long x_row, long apart, long iy, const FN(mask) *inside, const FN(mask) *lane,
                         VEC *tap) {
    if (iy < 0 || iy >= g->ih) {
        UNROLL for (int k = 0; k < FN(PLANE_TAPS); k++) tap[k] = (VEC){0};
        return;
    }
    x += iy * x_row;
    if (holds == FN(PAIR)) {
        const VEC a = LOAD(x), b = LOAD(x + apart);
        __asm__("" : : : "memory"); /* they are loaded once */
        UNROLL for (int k = 0; k < FN(PLANE_TAPS); k++) tap[k] = FN(choose)(a, b, lane[k]);
    } else if (s == 1) UNROLL for (int k = 0; k < FN(PLANE_TAPS); k++) tap[k] = LOAD(x + k);
    else {
        const VEC a = LOAD(x), b = LOAD(x + VL);
        __asm__("" : : : "memory");
        tap[0] = FN(evens)(a, b);
        tap[1] = FN(odds)(a, b);
        tap[2] = holds == FN(ROW) ? FN(later)(tap[0]) : FN(odds)(LOAD(x + 1), LOAD(x + VL + 1));
    }
    UNROLL for (int k = 0; k < FN(PLANE_TAPS); k++) {
        if (beyond >= FN(beyond_at)(k)) tap[k] = (VEC)((FN(mask))tap[k] & inside[k]);
    }
}

/* Each row of pixels is added to all outputs that it belongs to: so the sums of a few of them are under way, in chains of three, and their latency is
   hidden. */
INLINE VEC FN(row_sum)(VEC v, const VEC *tap, const VEC *w) {
    UNROLL for (int k = 0; k < FN(PLANE_TAPS); k++) v += tap[k] * w[k];
    return v;
}
/* A number of a plane's weight, or of a pair's, in their lanes. */
INLINE VEC FN(plane_weight)(const int holds, const T *weight) {
    if (holds != FN(PAIR)) return SPLAT(*weight);
    FN(mask) second = {0};
    for (long l = VL / 2; l < VL; l++) second[l] = -1;
    return SELECT(FN(mask), second, SPLAT(weight[1]), SPLAT(weight[0]));
}

/* Rows of results of a pair. What follows is written later, but not of the last: its ends are stored apart, and overlap (copies through memory took a
   quarter of the time). */
INLINE void FN(store_pair)(const int last, const conv_geometry *g, VEC v, const FN(mask) *tail, T *y, long apart) {
#if VB == 64
    typedef T quarter __attribute__((vector_size(VB / 4), aligned(sizeof(T)), may_alias));
    if (!last) {
        *(FN(halfu) *)y = ((const FN(halfu) *)&v)[0];
        *(FN(halfu) *)(y + apart) = ((const FN(halfu) *)&v)[1];
        return;
    }
    const VEC ends = FN(choose)(v, v, *tail);
    const long rest = g->ow - VL / 4;
    *(quarter *)y = ((const quarter *)&v)[0];
    *(quarter *)(y + rest) = ((const quarter *)&ends)[0];
    *(quarter *)(y + apart) = ((const quarter *)&v)[2];
    *(quarter *)(y + apart + rest) = ((const quarter *)&ends)[2];
#endif
}

/* Output rows [oy, oy + rows) of a block of columns, and where they are: x, of its first pixel in row 0; y, of output row oy; x_apart, y_apart, between a
   pair's planes. */
typedef struct {
    const T *x;
    long x_row, x_apart, oy, rows;
    T *y;
    long y_row, y_apart;
    const T *weight; /* `step` between taps */
    long step;
    conv_activation act;
    long planes, x_step, y_step; /* as many planes, or pairs, of consecutive weights: what one call ends with and the next begins with overlaps */
} FN(plane_part);

/* A plane_part, with no activation or a clip. */
INLINE void FN(plane_block)(const int s, const int beyond, const int holds, const conv_geometry *g, const FN(plane_columns) *c, const FN(plane_part) *part) {
    const long x_row = part->x_row, x_apart = part->x_apart, y_row = part->y_row, y_apart = part->y_apart, step = part->step;
    const T *x = part->x, *weight = part->weight;
    const int clip = part->act.kind != ACT_NONE;
    const VEC low = SPLAT(part->act.a), high = SPLAT(part->act.b);
    const FN(mask) inside[FN(PLANE_TAPS)] = {c->inside[0], c->inside[1], c->inside[2]}, lane[FN(PLANE_TAPS)] = {c->lane[0], c->lane[1], c->lane[2]};
    const int far = s == 2 && holds != FN(PAIR) && c->fetched >= 0;
    T *first_y = part->y;
#define NEXT_TAPS FN(row_taps)(s, beyond, holds, g, x, x_row, x_apart, iy++, inside, lane, tap)
    for (long planes = part->planes; planes > 0; planes--, x += part->x_step, first_y += part->y_step, weight += holds == FN(PAIR) ? 2 : 1) {
        VEC w[FN(PLANE_TAPS)][FN(PLANE_TAPS)], tap[FN(PLANE_TAPS)];
        UNROLL for (int k = 0; k < 9; k++) w[k / 3][k % 3] = FN(plane_weight)(holds, weight + k * step);
        const VEC bias = FN(plane_weight)(holds, weight + 9 * step);
        long rows = part->rows, iy = part->oy * s - g->pt;
        const T *fetched = x - c->from + (part->oy + rows) * s * x_row + rows * c->fetched;
        NEXT_TAPS;
        VEC first = FN(row_sum)(bias, tap, w[0]), second; /* sums of outputs, up to their first and second row */
        if (s == 1) {
            NEXT_TAPS;
            second = FN(row_sum)(first, tap, w[1]);
            first = FN(row_sum)(bias, tap, w[0]);
        }
        for (T *y = first_y; rows > 0; rows--, y += y_row) {
            if (s == 2) {
                NEXT_TAPS;
                second = FN(row_sum)(first, tap, w[1]);
            }
            NEXT_TAPS;
            VEC v = FN(row_sum)(second, tap, w[2]);
            if (s == 1) second = FN(row_sum)(first, tap, w[1]);
            else v = FN(in_order)(v);
            first = FN(row_sum)(bias, tap, w[0]);
            if (far) {
                UNROLL for (int i = 0; i < FN(FETCHED); i += LINE_BYTES / (int)sizeof(T)) __builtin_prefetch(fetched + i, 0, 2);
                fetched += FN(FETCHED);
            }
            if (clip) v = FN(vmin)(high, FN(vmax)(low, v));
            if (holds == FN(LINE)) STREAM(y, v);
            else if (holds != FN(PAIR)) STORE(y, v);
            else if (rows > 1) FN(store_pair)(0, g, v, NULL, y, y_apart);
            else {
                FN(store_pair)(1, g, v, &c->tail, y, y_apart);
                break;
            }
        }
    }
#undef NEXT_TAPS
}

#define PLANE_KERNEL(name) name(const conv_geometry *g, const FN(plane_columns) *columns, const FN(plane_part) *part)
#define KERNEL(S, BEYOND, HOLDS, PLACE)                                    \
    PLACE static void PLANE_KERNEL(FN(plane_##S##_##BEYOND##_##HOLDS)) {   \
        FN(plane_block)(S, FN(BEYOND), FN(HOLDS), g, columns, part);       \
    }
/* Stride 2 has two rows' pointers more (IN_MEMORY: 1.0 to 1.09 times as fast; of stride 1 0.96 to 1.01 times). */
#define KERNELS(S, HOLDS, PLACE) KERNEL(S, NO_TAP, HOLDS, PLACE) KERNEL(S, FIRST_TAP, HOLDS, PLACE) KERNEL(S, END_TAPS, HOLDS, PLACE) KERNEL(S, ALL_TAPS, HOLDS, PLACE)
KERNELS(1, PART, ) KERNELS(2, PART, IN_MEMORY) KERNELS(2, ROW, IN_MEMORY)
#if VB == 64
KERNELS(1, LINE, ) KERNELS(2, LINE, IN_MEMORY) KERNELS(1, PAIR, ) KERNELS(2, PAIR, IN_MEMORY)
#endif
#undef KERNELS
#undef KERNEL
/* By stride - 1, what a vector holds, and kind of taps. */
static void PLANE_KERNEL((*const FN(plane_kernels)[2][FN(HOLDINGS)][FN(TAP_KINDS)])) = {
#define KERNELS(S, HOLDS) {FN(plane_##S##_NO_TAP_##HOLDS), FN(plane_##S##_FIRST_TAP_##HOLDS), FN(plane_##S##_END_TAPS_##HOLDS), FN(plane_##S##_ALL_TAPS_##HOLDS)}
#if VB == 64
#define WIDE(S, HOLDS) KERNELS(S, HOLDS)
#else
#define WIDE(S, HOLDS) {0}
#endif
    {KERNELS(1, PART), WIDE(1, LINE), KERNELS(1, PART), WIDE(1, PAIR)}, {KERNELS(2, PART), WIDE(2, LINE), KERNELS(2, ROW), WIDE(2, PAIR)},
#undef WIDE
#undef KERNELS
};
#undef PLANE_KERNEL

/* Whether the kernels may write y. */
INLINE int FN(direct)(const FN(planes_job) *job) { return job->tensors->ys.pixel == 1 && !job->tensors->residual && job->act.kind <= ACT_CLIP; }

/* y = activation(v + residual) of n columns; `free`: what follows in y up to there is to be written later. */
static void FN(finish_row)(VEC v, long n, const conv_strides *s, const T *residual, conv_activation act, T *y, const T *free) {
    if (residual) v += s->pixel != 1 ? FN(gather)(residual, s->pixel, n) : n == VL ? LOAD(residual) : FN(load_part)(residual, n);
    v = FN(activated)(act, v);
    if (s->pixel != 1) FN(scatter)(y, s->pixel, v, n);
    else if (n == VL || free - y >= VL) STORE(y, v);
    else FN(store_part)(y, v, n);
}

/* Rows [oy, oy + rows) of `planes` planes, of channel c and the next ones; of one, where results are not written in place. scratch: [rows][VL]. */
static void FN(plane_rows)(const FN(planes_job) *job, const FN(plane_columns) *columns, const T *x, long x_row, long c, long planes, long oy, long rows, const T *residual, T *y,
                           const T *free, T *scratch) {
    const conv_geometry *g = job->g;
    const conv_strides *s = &job->tensors->ys;
    const int holds = PAIRS_IN_ORDER && g->ow < VL ? FN(ROW) : FN(PART);
    FN(plane_part) part = {.x_row = x_row, .oy = oy, .rows = rows, .weight = (const T *)job->tensors->weight + c, .step = job->columns,
                           .planes = planes, .x_step = job->tensors->xs.channel, .y_step = s->channel};
    for (const FN(plane_columns) *end = columns + ceil_div(g->ow, VL); columns < end; columns++) {
        const long n = MIN(VL, g->ow), at = oy * s->row + columns->x * s->pixel;
        const int direct = FN(direct)(job) && (n == VL || free - (y + at + (rows - 1) * s->row) >= VL);
        part.x = x + columns->from;
        part.y = direct ? y + at : scratch;
        part.y_row = direct ? s->row : VL;
        part.act = direct ? job->act : (conv_activation){0};
        const int lines = job->stream && direct && FN(whole_lines)(part.y, VB == LINE_BYTES ? VL : 1, part.y_step, part.y_row);
        FN(plane_kernels)[g->sw - 1][lines ? FN(LINE) : holds][columns->beyond](g, columns, &part);
        if (direct) continue;
        for (long i = 0; i < rows; i++) FN(finish_row)(LOAD(scratch + i * VL), n, s, residual ? residual + at + i * s->row : NULL, job->act, y + at + i * s->row, free);
    }
}

/* Of the planes (at most `most`) from the one at x and y on, those that a call makes in place, reading and writing nothing outside, while L1 keeps their
   lines from one block of columns to the next. */
INLINE long FN(planes_at_once)(const FN(planes_job) *job, long most, const T *x, long after, const T *y, const T *free) {
    const conv_geometry *g = job->g;
    const conv_strides *xs = &job->tensors->xs, *ys = &job->tensors->ys;
    const long bytes = (g->ih * g->iw + g->oh * g->ow) * (long)sizeof(T), kept = g->ow > VL ? IN_L1 / bytes : most;
    if (job->bands > 1 || !FN(direct)(job) || kept <= 1 || xs->channel <= 0) return 1;
    const long readable = (const T *)job->tensors->x_end - after - (x + (g->ih - 1) * xs->row), writable = free - VL - (y + (g->oh - 1) * ys->row);
    if (g->ow >= VL) return MIN(MIN(most, kept), 1 + readable / xs->channel);
    return writable < 0 ? 1 : MIN(most, 1 + MIN(readable / xs->channel, writable / ys->channel));
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
    for (long i = first, planes; i < last; i += planes) {
        const long c = i / job->bands, band = i % job->bands, oy = part(g->oh, job->bands, band), rows = part(g->oh, job->bands, band + 1) - oy;
        planes = 1;
        const T *x = (const T *)t->x + image * t->xs.image + c * t->xs.channel;
        long x_row = t->xs.row;
        if (t->xs.pixel != 1 || x - (const T *)t->x_begin < before || (const T *)t->x_end - (x + (g->ih - 1) * x_row) < after) { /* vectors would read past the ends of x */
            const long iy = oy * g->sh - g->pt, top = MIN(g->ih, MAX(0, iy)), bottom = MIN(g->ih, iy + (rows - 1) * g->sh + g->kh);
            for (long y = top; y < bottom; y++)
                for (long ix = 0; ix < g->iw; ix++) copy[(y - top) * g->iw + ix] = x[y * x_row + ix * t->xs.pixel];
            x_row = g->iw;
            x = copy - top * x_row;
        } else planes = FN(planes_at_once)(job, last - i, x, after, y + c * t->ys.channel, free);
        FN(plane_rows)(job, columns, x, x_row, c, planes, oy, rows, t->residual ? (const T *)t->residual + image * t->ys.image + c * t->ys.channel : NULL, y + c * t->ys.channel, free, made);
    }
    return 0;
}

/* A run of pairs of an image's planes; of an odd number the last one is made twice. */
static int FN(pairs_task)(void *context, long index) {
    const FN(planes_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *t = job->tensors;
    const long image = index / job->tasks, pairs = ceil_div(g->ic, 2), first = part(pairs, job->tasks, index % job->tasks), last = part(pairs, job->tasks, index % job->tasks + 1);
    const size_t copy_bytes = (size_t)(2 * g->ih * g->iw + VL) * sizeof(T), made_bytes = (size_t)(g->oh * VL + VL) * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(copy_bytes) + aligned_size(made_bytes))};
    if (!s.next) return OUT_OF_MEMORY;
    T *copy = take(&s, copy_bytes), *made = take(&s, made_bytes);
    FN(plane_columns) columns;
    FN(make_pair)(g, &columns);
    const int direct = t->ys.row == g->ow && t->ys.channel == g->oh * g->ow && FN(direct)(job);
    for (long i = first, some; i < last; i += some) {
        const long c = MIN(2 * i, g->ic - 2), at = image * t->ys.image + c * t->ys.channel;
        FN(plane_part) part = {.x = (const T *)t->x + image * t->xs.image + c * t->xs.channel, .x_row = t->xs.row, .x_apart = t->xs.channel, .rows = g->oh,
                               .weight = (const T *)t->weight + c, .step = job->columns, .planes = 1, .x_step = 2 * t->xs.channel, .y_step = 2 * g->oh * g->ow};
        const long readable = (const T *)t->x_end - VL - (part.x + part.x_apart + (g->ih - 1) * part.x_row);
        some = 1;
        if (t->xs.pixel != 1 || readable < 0) { /* vectors would read past the end of x */
            for (long y = 0; y < 2 * g->ih; y++)
                for (long ix = 0; ix < g->iw; ix++) copy[y * g->iw + ix] = part.x[y / g->ih * part.x_apart + y % g->ih * part.x_row + ix * t->xs.pixel];
            part.x = copy;
            part.x_row = g->iw;
            part.x_apart = g->ih * g->iw;
        } else if (direct && c == 2 * i) part.planes = some = MAX(1, MIN(1 + readable / MAX(1, part.x_step), MIN(last, g->ic / 2) - i));
        T *y = (T *)t->y + at;
        part.y = direct ? y : made;
        part.y_row = direct ? g->ow : VL / 2;
        part.y_apart = g->oh * part.y_row;
        part.act = direct ? job->act : (conv_activation){0};
        FN(plane_kernels)[g->sw - 1][FN(PAIR)][columns.beyond](g, &columns, &part);
        if (direct) continue;
        for (long r = 0; r < 2 * g->oh; r++) {
            const long row = r / g->oh * t->ys.channel + r % g->oh * t->ys.row;
            FN(finish_row)(LOAD(made + r * (VL / 2)), g->ow, &t->ys, t->residual ? (const T *)t->residual + at + row : NULL, job->act, y + row, y + row);
        }
    }
    return 0;
}
