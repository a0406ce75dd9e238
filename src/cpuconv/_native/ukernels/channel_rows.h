/* The tasks of implicit_gemm.h by channel rows: planes of NCHW images, with the product turned round. */

/* Rows of consecutive pixels [p0, p0 + pixels) of planes of y or residual (`view` is the first plane), gathered to rows of `stride` or
   scattered from there. */
INLINE void FN(gapped_rows)(const conv_geometry *g, const conv_strides *s, T *restrict view, long p0, long pixels, long rows, T *restrict copy, long stride, const int scatter) {
    for (long p = 0, run; p < pixels; p += run) {
        const long y = (p0 + p) / g->ow, x = (p0 + p) % g->ow;
        run = MIN(g->ow - x, pixels - p);
        for (long i = 0; i < rows; i++) {
            T *const v = view + i * s->channel + y * s->row + x * s->pixel, *const c = copy + i * stride + p;
            if (scatter) for (long l = 0; l < run; l++) v[l * s->pixel] = c[l];
            else for (long l = 0; l < run; l++) c[l] = v[l * s->pixel];
        }
    }
}

/* Rows of nv vectors, `row` apart, to the rows of a panel. */
static void FN(pack_planes)(const T *from, long row, long rows, int nv, T *to, long nr) {
    for (const T *end = from + rows * row; from < end; from += row, to += nr) {
        if (nv >= 4) STORE(to + 3 * VL, LOAD(from + 3 * VL));
        if (nv >= 3) STORE(to + 2 * VL, LOAD(from + 2 * VL));
        if (nv >= 2) STORE(to + VL, LOAD(from + VL));
        if (nv) STORE(to, LOAD(from));
        else FN(copy)(to, from, VL / 2);
    }
}

/* Bytes of scratch that last_pixels takes. */
INLINE size_t FN(last_pixels_scratch)(long k) { return (size_t)FN(FEW_PIXELS) * aligned_size((size_t)k * sizeof(T)); }

/* Dot products of `rows` rows of A, k numbers each, with `columns` columns, which follow each other (a constant; `some` of them exist): VL of them at once,
   each in the lanes of its own accumulator, which are added up at the end. Of the last rows, some are made twice, but written once. */
INLINE void FN(dot_columns)(const int columns, const FN(tile) *t, long rows, long some, long k, long c_row, conv_activation act) {
    enum { MOST = VL };
    const long most = MOST / columns, height = rows < most ? 1 : most, step = rows < most ? 0 : k; /* fewer rows: one, as often as there are accumulators */
    T made[MOST] __attribute__((aligned(64)));
    for (long row = 0; row < rows; row += height) {
        const long start = MIN(row, rows - height), first = row - start;
        VEC acc[MOST];
        UNROLL for (int i = 0; i < MOST; i++) acc[i] = (VEC){t->bias_m[start + MIN(i / columns, height - 1)]};
        const T *a = t->a + start * k;
        for (long c = 0; c < k; c += VL) {
            const T *four = a + c; /* rows, for want of registers for more */
            VEC b[FN(FEW_PIXELS)];
            UNROLL for (int j = 0; j < columns; j++) b[j] = LOAD(t->b + j * t->ldb + c);
            UNROLL for (int i = 0; i < MOST / columns; i++) {
                UNROLL for (int j = 0; j < columns; j++) acc[i * columns + j] += LOAD(four + i % 4 * step) * b[j];
                if (i % 4 == 3) four += 4 * step;
            }
        }
        VEC y = FN(lane_sums)(acc);
        if (t->z) {
            for (long i = 0; i < MOST; i++) made[i] = i / columns >= first && i / columns < height && i % columns < some ? t->z[(start + i / columns) * c_row + i % columns] : 0;
            y += LOAD(made);
        }
        STORE(made, FN(activated)(act, y));
        for (long i = first; i < height; i++) {
            T *const to = t->c + (start + i) * c_row;
            if (some == columns) __builtin_memcpy(to, made + i * columns, (size_t)columns * sizeof(T));
            else for (long j = 0; j < some; j++) to[j] = made[i * columns + j];
        }
    }
}

/* Channel rows of 1x1: the few last pixels of a plane, from p on, of the image x; t: the weight, and where the first one's results go. The weight, which
   may fill L2, is read once for all of them. */
static void FN(last_pixels)(const conv_geometry *g, const conv_strides *xs, FN(tile) t, const T *x, long p, long rows, long k, long c_row, conv_activation act, T *columns) {
    const long some = g->oh * g->ow - p, lanes = some <= 2 ? some : FN(FEW_PIXELS);
    t.b = columns;
    t.ldb = (long)(aligned_size((size_t)k * sizeof(T)) / sizeof(T));
    for (long j = 0; j < lanes; j++) {
        const long pixel = p + MIN(j, some - 1);
        const T *from = x + pixel / g->ow * g->sh * xs->row + pixel % g->ow * g->sw * xs->pixel;
        for (long c = 0; c < k; c++) columns[j * t.ldb + c] = from[c * xs->channel];
    }
    if (lanes == 1) FN(dot_columns)(1, &t, rows, some, k, c_row, act);
    else if (lanes == 2) FN(dot_columns)(2, &t, rows, some, k, c_row, act);
    else FN(dot_columns)(FN(FEW_PIXELS), &t, rows, some, k, c_row, act);
}

/* Channel rows: a block of consecutive pixels of the output plane against some output channels. Where the pixels of y are not
   consecutive in memory, C is a copy. */
static int FN(channel_task)(void *context, long index) {
    const FN(gemm_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *in = job->tensors;
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, taps = g->kh * g->kw, k = taps * icg, kc = MIN(job->blocking->kc, k);
    const FN(gemm_part) share = FN(part_of)(job, index, ocg);
    const long plane = g->oh * g->ow, unit = NV_MAX == 3 ? 2 * VL : VL, units = ceil_div(plane, unit); /* divided between tasks, in panels' preferred widths */
    const long p0 = unit * part(units, job->count, share.piece), pixels = MIN(plane, unit * part(units, job->count, share.piece + 1)) - p0;
    /* Pixels of a 1x1 convolution are read in place, but for a narrow last panel, whose vectors would read too far; one or two pixels are no panel. */
    const int pointwise = taps == 1 && g->sh == 1 && g->sw == 1 && plane == g->ih * g->iw && !g->pt && !g->pl && in->xs.pixel == 1 && in->xs.row == g->iw;
    const conv_columns columns = pixel_columns(pixels);
    const FN(panel) final = FN(panel_at)(columns, FN(panel_count)(columns) - 1);
    const int few = !job->blocking->band && p0 + pixels == plane && final.valid == FN(few_pixels)(g);
    const long panels = FN(panel_count)(columns) - few, o0 = share.group * ocg + share.first, rows = share.last - share.first;
    const int gaps = in->ys.pixel != 1 || in->ys.row != g->ow;
    const long c_row = gaps ? pixels : in->ys.channel;
    const size_t b_bytes = (size_t)(kc * FN(padded)(columns)) * sizeof(T), run_bytes = 3 * (size_t)MIN(NV_MAX * VL, pixels) * sizeof(FN(run));
    const size_t c_bytes = gaps ? (size_t)(rows * pixels) * sizeof(T) : 0;
    scratch s = {pool_arena(TASK_ARENA, aligned_size(b_bytes) + aligned_size(run_bytes) + aligned_size(c_bytes) + FN(last_pixels_scratch)(k))};
    if (!s.next) return OUT_OF_MEMORY;
    T *b = take(&s, b_bytes);
    FN(run) *runs = take(&s, run_bytes);
    T *copy = take(&s, c_bytes);

    const T *x = (const T *)in->x + share.image * in->xs.image + share.group * icg * in->xs.channel;
    const long at = share.image * in->ys.image + o0 * in->ys.channel;
    T *y = gaps ? copy : (T *)in->y + at + p0;
    const T *z = in->residual ? gaps ? copy : (const T *)in->residual + at + p0 : NULL;
    if (gaps && z) FN(gapped_rows)(g, &in->ys, (T *)in->residual + at, p0, pixels, rows, copy, pixels, 0);
    /* Rows of planes lie in as many pages: for more than the TLB holds, a copy is faster from some number of uses on; sooner where they meet in few
       sets of L1. */
    const long lines = in->xs.channel * (long)sizeof(T) % 4096 / LINE_BYTES;
    const int repaid = (k >= 64 && rows >= 112) || (VB == 64 ? k >= 128 && rows >= 48 && lines % 16 == 0 : (k >= 256 && rows >= 64) || (rows >= (lines ? 32 : 24) && lines % 16 == 0));
    const int far = g->n * in->xs.image * (long)sizeof(T) > FAR;
    const long passes = ceil_div(k, kc);
    const int across = panels > 1 && ceil_div(k, passes) * FN(padded)(columns) * (long)sizeof(T) <= FN(ACROSS);
    const int worth = !across && (repaid || (VB == 64 && k >= 96 && rows >= 64)); /* a copy that the first tile makes is repaid sooner */
    const int streams = job->blocking->stream && passes == 1 && !gaps && job->act.kind <= ACT_CLIP;
    FN(tile) tiles[FN(KINDS)];
    FN(panel) each[FN(KINDS)];
    segment sum = {0, 0, 0};
    FN(tile) t = {.segments = &sum, .count = 1, .step = 1, .a = (const T *)in->weight + o0 * k};
    /* One panel after the other, but across them one piece of the sum after the other. Sums may be short: clearing t and divisions would take as long. */
    long j = 0, pass = 0, kinds = 0;
    for (long step = 0, *const inner = across ? &j : &pass, *const outer = across ? &pass : &j; step < panels * passes; step++) {
        if (step && ++*inner == (across ? panels : passes)) {
            *inner = 0;
            ++*outer;
        }
        const long k0 = passes == 1 ? 0 : part(k, passes, pass), k1 = passes == 1 ? k : part(k, passes, pass + 1);
        const FN(panel) p = FN(panel_at)(columns, j);
        const int whole = pointwise && p.valid == p.nr, copies = whole && worth && FN(copies)(&p, rows), in_place = whole && !repaid && !copies;
        const T *const from = x + k0 * in->xs.channel + p0 + p.column;
        if (whole && !in_place && !copies) FN(pack_planes)(from, in->xs.channel, k1 - k0, p.nv, b + p.column * kc, p.nr);
        for (long i = k0, run; !whole && i < k1; i += run) { /* one tap at a time, some of its channels */
            const long tap = i / icg, c = i % icg;
            const long n = FN(column_runs)(g, &in->xs, p0 + p.column, p0 + p.column + p.valid, tap / g->kw, tap % g->kw, runs);
            T *to = b + p.column * kc + (i - k0) * p.nr;
            run = MIN(icg - c, k1 - i);
            for (long l = 0; l < run; l++, to += p.nr) {
                FN(column_row)(runs, n, g->sw * in->xs.pixel, x + (c + l) * in->xs.channel, in->x_end, to);
                for (long e = p.valid; e < p.nr; e++) to[e] = 0;
            }
        }
        sum.a = k0;
        sum.length = k1 - k0;
        t.b = in_place ? from : b + p.column * kc;
        t.ldb = in_place ? in->xs.channel : p.nr;
        t.span = in_place ? 0 : (k1 - k0) * p.nr;
        if (whole && far) { /* what comes next: of these pixels, or of the next ones */
            t.next = (across || pass == passes - 1 ? from - k0 * in->xs.channel + p.nr : from + (k1 - k0) * in->xs.channel) - t.b;
            t.next_row = in->xs.channel;
        } else t.next = 0;
        t.copy = NULL;
        if (copies) {
            t.copy = b + p.column * kc;
            t.b = from;
            t.ldb = in->xs.channel;
        }
        if (pass == passes - 1) FN(set_clip)(&t, job->act);
        else t.clip = 0;
        t.bias_m = pass ? NULL : (const T *)in->bias + o0;
        t.c = y + p.column;
        t.z = pass ? t.c : z ? z + p.column : NULL;
        t.stream = streams && FN(whole_lines)(t.c, p.nr, c_row, 0);
        if (across) {
            t.b_step = in_place ? p.nr : p.nr * kc;
            FN(add_panel)(&t, &p, tiles, each, &kinds);
            if (j < panels - 1) continue;
            FN(gemm_across)(tiles, each, kinds, rows, NULL, NULL, k, c_row);
            kinds = 0;
        } else FN(gemm_even_rows)(&t, &p, rows, k, c_row);
        if (pass == passes - 1 && job->act.kind > ACT_CLIP)
            for (long i = 0; i < rows; i++) FN(activate)(job->act, across ? y + i * c_row : t.c + i * c_row, across ? pixels : p.valid);
    }
    if (few) {
        const FN(tile) t = {.a = (const T *)in->weight + o0 * k, .bias_m = (const T *)in->bias + o0, .c = y + final.column, .z = z ? z + final.column : NULL};
        FN(last_pixels)(g, &in->xs, t, x, p0 + final.column, rows, k, c_row, job->act, take(&s, 0));
    }
    if (gaps) FN(gapped_rows)(g, &in->ys, (T *)in->y + at, p0, pixels, rows, copy, pixels, 1);
    return 0;
}
