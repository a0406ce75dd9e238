/* Few input channels (of a group) in NCHW, or few channels of either kind in NHWC, which are parted and joined again. Vectors hold output pixels, the
   rows of a tile are output channels. A band of the input is copied once, padded, and with the rows and columns of each residue of the stride (a phase)
   apart. A tap then lies at one distance from all output pixels, so vectors of it are loaded as they lie there. Pixels of several narrow rows form one
   run, in which only the columns of padding between rows are wasted; the results go to their places from a copy. Rows of whole vectors and wide ones, whose
   last vector overlaps with the one before, are written in place, and where they need neither padding nor phases, read in place. */
enum { FN(SHIFTED_HEIGHT) = NV_MAX == 4 ? 8 : 6, FN(SHIFTED_WIDTH) = NV_MAX == 4 ? 3 : 2, FN(SHIFTED_RUN) = 24 };

typedef struct {
    const conv_geometry *g;
    const conv_tensors *tensors;
    conv_activation act;
    long bands, groups; /* groups of a task: all, where they share cache lines */
} FN(shifted_job);

/* Of the copy: rows of a phase; elements between its rows, phases and channels; rows and columns of phases. */
typedef struct {
    long rows, pitch, phase, channel, down, across;
} FN(shifted_copy);

/* Zeros that begin every row of the copy; they serve the row above as padding at its end. */
INLINE long FN(shifted_lead)(const conv_geometry *g) { return MAX(0, g->pl) / g->sw; }

/* Of a band of `rows` output rows. */
INLINE FN(shifted_copy) FN(shifted_copy_of)(const conv_geometry *g, long rows) {
    const long needed = g->ow + (g->kw - 1) * g->dw / g->sw, data = (g->iw - 1 + g->pl) / g->sw + 1;
    const long pitch = MAX(g->ow, MAX(needed - FN(shifted_lead)(g), MIN(data, needed)));
    const long all = rows + (g->kh - 1) * g->dh / g->sh, gap = FN(shifted_lead)(g) + VL; /* the gap is zero, too, and lets vectors end late */
    const long phase = all * pitch + gap, down = MIN(g->sh, (g->kh - 1) * g->dh + 1), across = MIN(g->sw, (g->kw - 1) * g->dw + 1);
    return (FN(shifted_copy)){all, pitch, phase, down * across * phase, down, across};
}

/* Whether rows of so many pixels are written in place, where nothing is added to them and their pixels are side by side. */
INLINE int FN(shifted_wide)(long ow) { return ow % VL == 0 || ow >= 4 * VL; }

/* Whether the image itself has the form of the copy: no tap falls on padding, and no stride parts the pixels. */
INLINE int FN(shifted_in_place)(const conv_geometry *g, const conv_strides *xs) {
    const int inside = !g->pt && !g->pl && g->oh + (g->kh - 1) * g->dh <= g->ih && g->ow + (g->kw - 1) * g->dw <= g->iw;
    return inside && g->sh == 1 && g->sw == 1 && xs->pixel == 1;
}

/* Vectors of zeros and of n elements, a step apart, that stay below `end`. What they write too much is written again later. */
INLINE void FN(shifted_zeros)(T *to, long n) {
    for (long t = 0; t < n; t += VL) STORE(to + t, (VEC){0});
}
INLINE void FN(shifted_every)(const T *from, const int step, long n, const T *end, T *to) {
    long t = 0;
    for (; t < n && end - (from + t * step) >= step * VL; t += VL) STORE(to + t, FN(load_every)(from + t * step, step));
    for (; t < n; t++) to[t] = from[t * step];
}

/* Of the rows of one phase: columns [first, last) come from the image, from element `from` of its row on; the others are zero. */
typedef struct {
    long first, last, from;
} FN(shifted_span);

INLINE void FN(shifted_spans)(const conv_geometry *g, const FN(shifted_copy) *s, FN(shifted_span) *spans) {
    for (long b = 0; b < s->across; b++) {
        const long first = MIN(s->pitch, ceil_div(MAX(0, g->pl - b), g->sw)), last = MIN(s->pitch, (g->iw - 1 + g->pl - b + g->sw) / g->sw);
        spans[b] = (FN(shifted_span)){first, MAX(first, last), first * g->sw + b - g->pl};
    }
}

/* A row of the image, `step` elements between pixels, to the row of its phases. */
INLINE void FN(shifted_split)(const conv_geometry *g, const FN(shifted_copy) *s, const FN(shifted_span) *spans, const T *row, long step, const T *end, T *to) {
    const long apart = g->sw * step;
    for (const FN(shifted_span) *p = spans; p < spans + s->across; p++, to += s->phase) {
        const long n = p->last - p->first;
        const T *from = row + p->from * step;
        FN(shifted_zeros)(to, p->first);
        if (apart == 1) FN(shifted_every)(from, 1, n, end, to + p->first);
        else if (apart == 2) FN(shifted_every)(from, 2, n, end, to + p->first);
        else if (apart == 3) FN(shifted_every)(from, 3, n, end, to + p->first);
        else if (apart == 4) FN(shifted_every)(from, 4, n, end, to + p->first);
        else for (long t = 0; t < n; t++) to[p->first + t] = from[t * apart];
        FN(shifted_zeros)(to + p->last, s->pitch - p->last);
    }
}

/* The band's rows of some channels, from output row oy on, as they lie in memory: planes, or each row of all channels. */
static void FN(shifted_fill)(const conv_geometry *g, const FN(shifted_copy) *s, FN(shifted_span) *spans, const T *x, const conv_tensors *in, long channels, long oy, T *to) {
    FN(shifted_spans)(g, s, spans);
    const long together = g->nhwc ? channels : 1;
    for (T *const end = to + channels * s->channel; to < end; to += together * s->channel, x += together * in->xs.channel) {
        for (long t = 0, iy = oy * g->sh - g->pt; t < s->rows; t++, iy += g->sh)
            for (long i = 0; i < s->down * together; i++) {
                const long a = i / together, c = i % together;
                T *row = to + c * s->channel + a * s->across * s->phase + t * s->pitch;
                if (iy + a >= 0 && iy + a < g->ih) FN(shifted_split)(g, s, spans, x + c * in->xs.channel + (iy + a) * in->xs.row, in->xs.pixel, in->x_end, row);
                else for (long b = 0; b < s->across; b++) FN(shifted_zeros)(row + b * s->phase, s->pitch);
            }
        for (long i = 0; i < together * s->down * s->across; i++) FN(zero)(to + i * s->phase + s->rows * s->pitch, s->phase - s->rows * s->pitch);
    }
}

typedef struct {
    const long *taps; /* where they lie, from an output pixel's place */
    long count;
    const T *weight, *bias; /* [taps][mr], [mr] */
    long row;               /* of c */
    int fetch;              /* whether what the fourth tile from here reads is prefetched: of one or two rows, tiles take less time than their data */
    conv_activation act;    /* none or clip */
} FN(shifted_tile);

/* `count` tiles side by side: what starts one overlaps with the end of the one before. */
INLINE void FN(shifted_body)(const int mr, const int nv, const FN(shifted_tile) *t, const T *b, T *c, long count) {
    for (; count > 0; count--, b += nv * VL, c += nv * VL) {
        VEC acc[8][4];
        const T *w = t->weight;
        UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) __builtin_prefetch(c + i * t->row + j * VL, 1);
        UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = SPLAT(t->bias[i]);
        for (const long *tap = t->taps, *last = tap + t->count; tap < last; tap++, w += mr) {
            const T *from = b + *tap;
            VEC bv[4];
            if (mr <= 2 && t->fetch) UNROLL for (int j = 0; j < nv; j += LINE_BYTES / VB) __builtin_prefetch(from + (4 * nv + j) * VL);
            UNROLL for (int j = 0; j < nv; j++) bv[j] = LOAD(from + j * VL);
            UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] += w[i] * bv[j];
        }
        if (t->act.kind == ACT_CLIP) {
            const VEC low = SPLAT(t->act.a), high = SPLAT(t->act.b);
            UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = FN(vmin)(high, FN(vmax)(low, acc[i][j]));
        }
        const long row = t->row; /* loaded before the first store, which to the compiler might change it */
        UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) STORE(c + i * row + j * VL, acc[i][j]);
    }
}
#define SHIFTED(mr, nv) static void FN(shifted_##mr##x##nv)(const FN(shifted_tile) *t, const T *b, T *c, long count) { FN(shifted_body)(mr, nv, t, b, c, count); }
#define SHIFTED6(nv) SHIFTED(1, nv) SHIFTED(2, nv) SHIFTED(3, nv) SHIFTED(4, nv) SHIFTED(5, nv) SHIFTED(6, nv)
#define SHIFTED8(nv) SHIFTED6(nv) SHIFTED(7, nv) SHIFTED(8, nv)
#define ROW6(nv) FN(shifted_1x##nv), FN(shifted_2x##nv), FN(shifted_3x##nv), FN(shifted_4x##nv), FN(shifted_5x##nv), FN(shifted_6x##nv)
#define ROW8(nv) ROW6(nv), FN(shifted_7x##nv), FN(shifted_8x##nv)
#if NV_MAX == 4
SHIFTED8(1) SHIFTED8(2) SHIFTED8(3)
#else
SHIFTED6(1) SHIFTED6(2)
#endif
static void (*const FN(shifted_ukernels)[][FN(SHIFTED_HEIGHT)])(const FN(shifted_tile) *, const T *, T *, long) = {
#if NV_MAX == 4
    {ROW8(1)}, {ROW8(2)}, {ROW8(3)},
#else
    {ROW6(1)}, {ROW6(2)},
#endif
};
#undef SHIFTED
#undef SHIFTED6
#undef SHIFTED8
#undef ROW6
#undef ROW8

/* Whether nothing but a clip follows, which the kernel does. */
INLINE int FN(shifted_simple)(const FN(shifted_job) *job) { return !job->tensors->residual && job->act.kind <= ACT_CLIP; }

/* y = activation(c + residual) of one channel's rows; `free`: what follows y up to there is written later. */
static void FN(shifted_finish)(const FN(shifted_job) *job, const T *c, long pitch, long rows, const T *residual, T *y, const T *free) {
    const long ow = job->g->ow, n = MIN(VL, ow), last = MAX(0, ow - VL); /* the last vector is whole, and overlaps */
    const conv_strides *s = &job->tensors->ys;
    const int simple = FN(shifted_simple)(job);
    for (long row = 0; row < rows; row++, c += pitch, y += s->row, residual = residual ? residual + s->row : NULL) {
        if (simple && s->pixel == 1 && (ow >= VL || free - y >= VL)) {
            for (long x = 0; x < last; x += VL) STORE(y + x, LOAD(c + x));
            STORE(y + last, LOAD(c + last));
        } else
            for (long x = 0; x < ow; x += VL) {
                const long i = MIN(x, last);
                FN(finish_row)(LOAD(c + i), n, s, residual ? residual + i * s->pixel : NULL, simple ? (conv_activation){ACT_NONE, 0, 0} : job->act, y + i * s->pixel, free);
            }
    }
}

/* As shifted_finish, of all channels of an NHWC image, c_row elements apart in c. */
static void FN(shifted_join)(const FN(shifted_job) *job, const T *c, long c_row, long pitch, long rows, const T *residual, T *y, const T *free) {
    const long oc = job->g->oc, ow = job->g->ow;
    const conv_strides *s = &job->tensors->ys;
    const int dense = s->channel == 1 && s->pixel == oc && FN(shifted_simple)(job);
    if (dense && oc >= 2 && oc <= 4) {
        for (long row = 0; row < rows; row++, c += pitch, y += s->row) {
            if (oc == 2) FN(interleave)(c, c_row, 2, ow, y);
            else if (oc == 3) FN(interleave)(c, c_row, 3, ow, y);
            else FN(interleave)(c, c_row, 4, ow, y);
        }
        return;
    }
    for (long o = 0; o < oc; o++)
        FN(shifted_finish)(job, c + o * c_row, pitch, rows, residual ? residual + o * s->channel : NULL, y + o * s->channel, free);
}

/* A band of output rows of one group, or of all. */
static int FN(shifted_task)(void *context, long index) {
    const FN(shifted_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *in = job->tensors;
    const long band = index % job->bands, parts = g->groups / job->groups, group0 = index / job->bands % parts * job->groups, image = index / (job->bands * parts);
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, k = icg * g->kh * g->kw, tiles = ceil_div(ocg, FN(SHIFTED_HEIGHT));
    const long oy0 = part(g->oh, job->bands, band), rows = part(g->oh, job->bands, band + 1) - oy0;
    const int simple = FN(shifted_simple)(job), in_place = !in->residual && in->ys.pixel == 1 && FN(shifted_wide)(g->ow), copied = !in_place || !FN(shifted_in_place)(g, &in->xs);
    const FN(shifted_copy) copy = copied ? FN(shifted_copy_of)(g, rows) : (FN(shifted_copy)){.pitch = in->xs.row, .channel = in->xs.channel, .across = 1};
    const long runs = in_place ? rows : MIN(rows, ceil_div(rows * copy.pitch, FN(SHIFTED_RUN) * VL)), together = ceil_div(rows, runs);
    const long c_row = ceil_div(together * copy.pitch, VL) * VL + VL;
    const long c_rows = in_place ? 0 : g->nhwc ? g->oc : FN(SHIFTED_HEIGHT);
    const size_t b_bytes = copied ? (size_t)(job->groups * icg * copy.channel) * sizeof(T) : 0, c_bytes = (size_t)(c_row * c_rows) * sizeof(T);
    const size_t span_bytes = (size_t)copy.across * sizeof(FN(shifted_span)), tap_bytes = (size_t)k * sizeof(long);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(b_bytes) + aligned_size(c_bytes) + aligned_size(span_bytes) + tap_bytes)};
    if (!s.next) return OUT_OF_MEMORY;
    T *filled = take(&s, b_bytes), *c = take(&s, c_bytes);
    FN(shifted_span) *spans = take(&s, span_bytes);
    long *taps = take(&s, tap_bytes), *tap = taps;

    const T *x = (const T *)in->x + image * in->xs.image + group0 * icg * in->xs.channel, *const b = copied ? filled : x + oy0 * in->xs.row;
    if (copied) FN(shifted_fill)(g, &copy, spans, x, in, job->groups * icg, oy0, filled);
    for (long i = 0; i < icg; i++)
        for (long ky = 0; ky < g->kh; ky++)
            for (long kx = 0; kx < g->kw; kx++) {
                const long down = ky * g->dh, across = kx * g->dw;
                *tap++ = i * copy.channel + (down % g->sh * copy.across + across % g->sw) * copy.phase + down / g->sh * copy.pitch + across / g->sw;
            }

    const long at = image * in->ys.image + group0 * ocg * in->ys.channel + oy0 * in->ys.row;
    T *y = (T *)in->y + at;
    const T *residual = in->residual ? (const T *)in->residual + at : NULL;
    const conv_activation none = {ACT_NONE, 0, 0};
    /* each tap of 1x1 reads lines of its own */
    const int fetch = !copied && g->kh * g->kw == 1 && g->n * g->ic * g->ih * g->iw * (long)sizeof(T) > FAR;
    FN(shifted_tile) t = {.taps = taps, .count = k, .row = in_place ? in->ys.channel : c_row, .fetch = fetch, .act = simple ? job->act : none};
    for (long run = 0; run < runs; run++) {
        const long row = part(rows, runs, run), some = part(rows, runs, run + 1) - row, vectors = in_place ? g->ow / VL : ceil_div((some - 1) * copy.pitch + g->ow, VL);
        const long panels = ceil_div(vectors, FN(SHIFTED_WIDTH));
        for (long i = 0; i < job->groups * tiles; i++) {
            const long group = i / tiles, o = part(ocg, tiles, i % tiles), height = part(ocg, tiles, i % tiles + 1) - o, at = group * ocg + o; /* of the task */
            t.weight = (const T *)in->weight + (group0 * ocg + at) * k;
            t.bias = (const T *)in->bias + group0 * ocg + at;
            T *to = in_place ? y + at * in->ys.channel + row * in->ys.row : g->nhwc ? c + at * c_row : c;
            const T *from = b + group * icg * copy.channel + row * copy.pitch;
            const long width = vectors / panels, wider = vectors % panels, rest = wider * (width + 1) * VL;
            if (wider) FN(shifted_ukernels)[width][height - 1](&t, from, to, wider);
            FN(shifted_ukernels)[width - 1][height - 1](&t, from + rest, to + rest, panels - wider);
            if (in_place && g->ow % VL) FN(shifted_ukernels)[0][height - 1](&t, from + g->ow - VL, to + g->ow - VL, 1);
            for (long j = 0; in_place && !simple && j < height; j++) FN(activate)(job->act, to + j * in->ys.channel, g->ow);
            for (long j = 0; !in_place && !g->nhwc && j < height; j++) {
                const long channel_at = (at + j) * in->ys.channel, row_at = channel_at + row * in->ys.row;
                const T *free = in->ys.row == g->ow ? y + channel_at + rows * g->ow : y + row_at;
                FN(shifted_finish)(job, c + j * c_row, copy.pitch, some, residual ? residual + row_at : NULL, y + row_at, free);
            }
        }
        const long row_at = row * in->ys.row;
        if (!in_place && g->nhwc) FN(shifted_join)(job, c, c_row, copy.pitch, some, residual ? residual + row_at : NULL, y + row_at, y + row_at);
    }
    return 0;
}

/* Weight OIHW or HWIO to [group][tile of output channels][icg kh kw][channels of the tile]. */
static void FN(few_channels_pack)(const conv_geometry *g, const void *weight, void *packed) {
    const T *w = weight;
    T *to = packed;
    const long ocg = g->oc / g->groups, icg = g->ic / g->groups, taps = g->kh * g->kw, tiles = ceil_div(ocg, FN(SHIFTED_HEIGHT));
    const long output = g->nhwc ? 1 : icg * taps, channel = g->nhwc ? g->oc : taps, tap = g->nhwc ? icg * g->oc : 1;
    for (long group = 0; group < g->groups; group++)
        for (long i = 0; i < tiles; i++)
            for (long j = 0; j < icg * taps; j++)
                for (long o = part(ocg, tiles, i); o < part(ocg, tiles, i + 1); o++) *to++ = w[(group * ocg + o) * output + j / taps * channel + j % taps * tap];
}

/* Of 1x1, rows that follow each other in memory become longer ones, as long as `enough` are left and L1 holds all channels of one; narrow ones become
   wide in any case. */
static void FN(shifted_join_rows)(conv_geometry *g, conv_tensors *t, long enough) {
    const int follow = t->xs.pixel == 1 && t->xs.row == g->iw && t->ys.pixel == 1 && t->ys.row == g->ow;
    if (g->kh * g->kw > 1 || !follow || g->ow != g->iw || g->oh != g->ih || !FN(shifted_in_place)(g, &t->xs)) return;
    const long most = MIN(32 * VL, IN_L1 / (g->ic / g->groups * (long)sizeof(T)));
    long some = MAX(1, MIN(g->oh / enough, most / g->ow));
    while (g->oh % some) some--;
    while (some < g->oh && (g->oh % some || !FN(shifted_wide)(some * g->ow))) some++;
    g->oh = g->ih /= some;
    g->ow = g->iw *= some;
    t->xs.row *= some;
    t->ys.row *= some;
}

static int FN(shifted_rows)(const conv_geometry *geometry, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    conv_geometry joined = *geometry, *const g = &joined;
    conv_tensors t = *tensors;
    FN(shifted_job) job = {g, &t, act, 1, g->nhwc ? g->groups : 1};
    const long parts = g->n * (g->groups / job.groups), enough = threads > 1 ? ceil_div(4 * threads, MAX(1, parts)) : 1; /* for all threads to end together */
    if (!t.residual) FN(shifted_join_rows)(g, &t, enough);
    job.bands = MAX(ceil_div(g->oh, blocking->block), MIN(g->oh, enough));
    return pool_run(FN(shifted_task), &job, parts * job.bands, threads);
}
