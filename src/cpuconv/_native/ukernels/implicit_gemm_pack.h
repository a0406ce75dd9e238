/* Packing the weight for implicit GEMM: all of it ahead, or a piece when its turn comes. */

INLINE const T *FN(tap_of)(const conv_geometry *g, const conv_weight *w, long tap) { return (const T *)w->first + tap / g->kw * w->row + tap % g->kw * w->column; }

/* `length` numbers that lie side by side in each of `channels` <= VL output channels, to rows of a panel of nr columns, by transposing. The rows
   are `step` apart, and every `inner` of them begin one row after the last that did. */
static void FN(pack_run)(const T *from, long output, long channels, long length, const T *end, long inner, long step, T *to, long nr) {
    const long width = MIN(VL, nr);
    T block[VL * VL] __attribute__((aligned(64)));
#define NEXT_ROW                           \
    if (done++ == inner) {                 \
        done = 1;                          \
        to += (1 - inner * step) * nr;     \
    }
    for (long i = 0, done = 0; i < length; i += VL) {
        const long n = MIN(VL, length - i);
        if (n == VL && channels == VL && width == VL) {
            VEC r[VL];
            UNROLL for (int l = 0; l < VL; l++) r[l] = LOAD(from + i + l * output);
            FN(transpose)(r);
            UNROLL for (int l = 0; l < VL; l++, to += step * nr) {
                NEXT_ROW
                STORE(to, r[l]);
            }
            continue;
        }
        FN(planes_to_pixels)(from + i, output, channels, n, end, block, VL);
        for (long l = 0; l < n; l++, to += step * nr) {
            NEXT_ROW
            FN(copy)(to, block + l * VL, width);
        }
    }
#undef NEXT_ROW
}

/* Panels of a group's weight whose output channels lie side by side (HWIO), some at a time: of one alone, each row would be a line in a page of its own. */
static void FN(pack_side_by_side)(const conv_geometry *g, const conv_weight *w, long group, T *to) {
    enum { TOGETHER = 4 };
    const conv_columns outputs = outputs_of(g);
    const long taps = g->kh * g->kw, icg = g->ic / g->groups, ocg = outputs.count, panels = FN(panel_count)(outputs);
    for (long i = 0; i < panels; i += TOGETHER) {
        const long count = MIN(TOGETHER, panels - i);
        FN(panel) p[TOGETHER];
        T *row[TOGETHER];
        for (long j = 0; j < count; j++) {
            p[j] = FN(panel_at)(outputs, i + j);
            row[j] = to + taps * icg * p[j].column;
        }
        for (long t = 0; t < taps; t++) {
            const T *from = FN(tap_of)(g, w, t) + group * ocg;
            for (long c = 0; c < icg; c++, from += w->channel)
                for (long j = 0; j < count; row[j] += p[j].nr, j++) {
                    long l = 0;
                    for (; l + VL <= p[j].valid; l += VL) STORE(row[j] + l, LOAD(from + p[j].column + l));
                    for (; l < p[j].nr; l++) row[j][l] = l < p[j].valid ? from[p[j].column + l] : 0;
                }
        }
    }
}

/* `valid` output channels of a weight from o on to rows [kh kw icg] of a panel. Side by side lie numbers of one output channel
   (OIHW), its taps, turned round perhaps, or its channels (the weight of the input's gradient, of OIHW and of HWIO). */
static void FN(pack_panel)(const conv_geometry *g, const conv_weight *w, long o, long valid, T *to, long nr) {
    const long taps = g->kh * g->kw, icg = g->ic / g->groups, step = w->column;
    const int by_taps = taps > 1 && (step == 1 || step == -1) && (g->kh == 1 || w->row == g->kw * step), whole = by_taps && step == 1 && w->channel == taps;
    const long runs = whole ? 1 : by_taps ? icg : w->channel == 1 ? taps : 0, tap = step < 0 ? taps - 1 : 0;
    for (long run = 0; run < runs; run++)
        for (long j = 0; j < valid; j += VL) {
            const T *from = FN(tap_of)(g, w, by_taps ? tap : run) + (o + j) * w->output;
            const long channels = MIN(VL, valid - j);
            if (whole) FN(pack_run)(from, w->output, channels, taps * icg, w->end, taps, icg, to + j, nr);
            else if (by_taps) FN(pack_run)(from + run * w->channel, w->output, channels, taps, w->end, taps, step * icg, to + (tap * icg + run) * nr + j, nr);
            else FN(pack_run)(from, w->output, channels, icg, w->end, icg, 1, to + run * icg * nr + j, nr);
        }
    if (runs) return;
    for (long c = 0; c < icg; c++)
        for (long t = 0; t < taps; t++) {
            const T *from = FN(tap_of)(g, w, t) + c * w->channel + o * w->output;
            T *row = to + (t * icg + c) * nr;
            for (long j = 0; j < valid; j++) row[j] = from[j * w->output];
            FN(zero)(row + valid, nr - valid);
        }
}

/* Weight to panels [group][panel][kh kw icg][nr], or for channel rows and few outputs to [oc][kh kw icg]. */
static void FN(gemm_pack)(const conv_geometry *g, const conv_weight *w, void *packed) {
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, taps = g->kh * g->kw, k = taps * icg;
    const conv_columns outputs = outputs_of(g);
    T *to = packed;
    if (FN(channel_rows)(g) || FN(few_outputs)(g)) {
        if (taps == 1 && w->output == 1 && w->channel != 1) FN(image_to_pixels)(w->first, w->channel, icg, g->oc, w->end, to);
        else
            for (long o = 0; o < g->oc; o++)
                for (long t = 0; t < taps; t++, to += icg) {
                    const T *from = FN(tap_of)(g, w, t) + o * w->output;
                    if (w->channel == 1) FN(copy)(to, from, icg);
                    else
                        for (long c = 0; c < icg; c++) to[c] = from[c * w->channel];
                }
        return;
    }
    for (long group = 0; group < g->groups; group++, to += k * FN(padded)(outputs)) {
        if (w->output == 1) FN(pack_side_by_side)(g, w, group, to);
        else
            for (long i = 0; i < FN(panel_count)(outputs); i++) {
                const FN(panel) p = FN(panel_at)(outputs, i);
                FN(pack_panel)(g, w, group * ocg + p.column, p.valid, to + k * p.column, p.nr);
            }
    }
}

/* Elements of the packed weight (transposing writes whole vectors), and columns to which each group's bias is padded (0: not at all). */
static long FN(gemm_weight_size)(const conv_geometry *g) {
    const long k = g->kh * g->kw * (g->ic / g->groups);
    return FN(channel_rows)(g) || FN(few_outputs)(g) ? g->oc * k + VL : g->groups * k * FN(padded)(outputs_of(g));
}
static long FN(gemm_bias_columns)(const conv_geometry *g) { return FN(channel_rows)(g) || FN(few_outputs)(g) ? 0 : FN(padded)(outputs_of(g)); }

/* `rows` rows of nv vectors each, `row` apart, to one after the other. */
INLINE void FN(copy_vectors)(const int nv, const T *from, long row, long rows, T *to) {
    for (; rows > 0; rows--, from += row, to += nv * VL) UNROLL for (int j = 0; j < nv; j++) STORE(to + j * VL, LOAD(from + j * VL));
}

/* Rows of a weight whose output channels lie side by side to those of a panel. */
static void FN(copy_rows)(const FN(panel) *p, const T *from, long row, long rows, T *to) {
    switch (p->valid == p->nr ? p->nv : 0) { /* in the general way a row takes 10 cycles more, as long as some tiles */
    case 1: FN(copy_vectors)(1, from, row, rows, to); return;
    case 2: FN(copy_vectors)(2, from, row, rows, to); return;
    case 3: FN(copy_vectors)(3, from, row, rows, to); return;
    case 4: FN(copy_vectors)(4, from, row, rows, to); return;
    }
    for (; rows > 0; rows--, from += row, to += p->nr) {
        FN(copy)(to, from, p->valid);
        FN(zero)(to + p->valid, p->nr - p->valid);
    }
}

/* The rows of a piece of an unpacked weight, HWIO or [oc][ic], from output channel o on, to a panel, where the piece is then found. */
static void FN(pack_piece)(const conv_geometry *g, const T *weight, long o, segment *piece, long count, const FN(panel) *p, T *to) {
    const long icg = g->ic / g->groups;
    long rows = 0;
    for (segment *s = piece; s < piece + count; s++, to += s[-1].length * p->nr) {
        for (long j = 0; !g->nhwc && j < p->valid; j += VL)
            FN(pack_run)(weight + (o + j) * icg + s->b, icg, MIN(VL, p->valid - j), s->length, weight + g->oc * icg, s->length, 1, to + j, p->nr);
        if (g->nhwc) FN(copy_rows)(p, weight + s->b * g->oc + o, g->oc, s->length, to);
        s->b = rows;
        rows += s->length;
    }
}
