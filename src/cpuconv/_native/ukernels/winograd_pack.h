/* Packing the weight for Winograd. */

/* Points of the transformed weight along an axis: those of F(m,k), or of F(m,2) and one for the tap between at stride 2. */
INLINE long FN(weight_points)(long k, long m, long stride) { return stride == 2 ? m + 2 : m + k - 1; }

static long FN(winograd_packed_size)(const conv_geometry *g, const conv_blocking *b) {
    return FN(weight_points)(g->kh, b->mh, g->sh) * FN(weight_points)(g->kw, b->mw, g->sw) * g->ic * FN(padded)(outputs_of(g));
}

typedef double FN(doubles) __attribute__((vector_size(VB)));
typedef T FN(rounded) __attribute__((vector_size(VB / sizeof(double) * sizeof(T)), aligned(sizeof(T)), may_alias));
enum { FN(DOUBLES) = VB / sizeof(double), FN(MOST_TAPS) = 7, FN(MOST_POINTS) = 8 };

/* Transforms an axis: `count` times taps to points, which lie `step` and `out_step` apart; the next ones follow at `next` and `out_next`. g is
   [points][taps]. */
INLINE void FN(weight_axis_of)(const int taps, const double *g, long points, long count, const FN(doubles) *in, long step, long next, FN(doubles) *out, long out_step, long out_next) {
    for (; count > 0; count--, in += next, out += out_next) {
        FN(doubles) v[FN(MOST_TAPS)];
        UNROLL for (int t = 0; t < taps; t++) v[t] = in[t * step];
        const double *h = g;
        FN(doubles) *to = out;
        for (const double *end = g + points * taps; h < end; h += taps, to += out_step) {
            FN(doubles) sum = h[0] * v[0];
            UNROLL for (int t = 1; t < taps; t++) sum += h[t] * v[t];
            *to = sum;
        }
    }
}
static void FN(weight_axis)(long taps, const double *g, long points, long count, const FN(doubles) *in, long step, long next, FN(doubles) *out, long out_step, long out_next) {
    switch (taps) {
#define TAPS(n) FN(weight_axis_of)(n, g, points, count, in, step, next, out, out_step, out_next); return
    case 1: TAPS(1);
    case 2: TAPS(2);
    case 3: TAPS(3);
    case 4: TAPS(4);
    case 5: TAPS(5);
    default: TAPS(7);
#undef TAPS
    }
}

/* A tap's numbers of `valid` output channels, and zeros. */
INLINE FN(doubles) FN(tap_lanes)(const T *w, long output, long valid) {
    if (output == 1 && valid >= FN(DOUBLES)) return __builtin_convertvector(*(const FN(rounded) *)w, FN(doubles));
    double lanes[FN(DOUBLES)] __attribute__((aligned(VB))) = {0};
    if (valid >= FN(DOUBLES)) UNROLL for (int l = 0; l < FN(DOUBLES); l++) lanes[l] = w[l * output];
    else
        for (long l = 0; l < valid; l++) lanes[l] = w[l * output];
    return *(const FN(doubles) *)lanes;
}

/* U = G_h w G_w^T in double, rounded once; w: `valid` output channels of an input channel, of which a panel has some more. U goes to [uh][uw][step].
   fetch: where output channels lie side by side, a panel's are a few lines in a page of each tap; the core does not foresee which, so they are prefetched
   (F(2x2,3x3) of 512-512 channels: 0.6 of the time on a Zen 5; further ahead is slower). */
static void FN(transform_kernels)(const conv_geometry *g, const conv_weight *weight, const T *w, const int fetch, long valid, long lanes, const double *gh, const double *gw, long uh, long uw, long step, T *to) {
    const long kh = g->kh, kw = g->kw;
    FN(doubles) taps[FN(MOST_TAPS) * FN(MOST_TAPS)], columns[FN(MOST_POINTS) * FN(MOST_TAPS)], points[FN(MOST_POINTS) * FN(MOST_POINTS)];
    for (long u = 0; u < kh; u++)
        for (long v = 0; v < kw; v++) {
            const T *tap = w + u * weight->row + v * weight->column;
            if (fetch) __builtin_prefetch(tap + 2 * weight->channel);
            taps[u * kw + v] = FN(tap_lanes)(tap, weight->output, valid);
        }
    FN(weight_axis)(kh, gh, uh, kw, taps, kw, 1, columns, kw, 1);
    FN(weight_axis)(kw, gw, uw, uh, columns, 1, kw, points, 1, uw);
    for (long i = 0; i < uh * uw; i++, to += step) {
        const FN(rounded) v = __builtin_convertvector(points[i], FN(rounded));
        if (lanes >= FN(DOUBLES)) *(FN(rounded) *)to = v;
        else
            for (long l = 0; l < lanes; l++) to[l] = v[l];
    }
}

/* Points of a kernel lie far apart in the packed weight, many in one set of L1: so those of some channels are gathered first. */
static void FN(winograd_pack)(const conv_geometry *g, const conv_blocking *b, const double *gh, const double *gw, const conv_weight *weight, void *packed) {
    enum { RUN = 256 / sizeof(T) }; /* elements of a point that are written together: of one channel at least */
    const long uh = FN(weight_points)(g->kh, b->mh, g->sh), uw = FN(weight_points)(g->kw, b->mw, g->sw), icg = g->ic / g->groups, ocg = g->oc / g->groups;
    const conv_columns outputs = outputs_of(g);
    T points[FN(MOST_POINTS) * FN(MOST_POINTS) * RUN] __attribute__((aligned(64)));
    T *to = packed;
    for (long group = 0; group < g->groups; group++)
        for (long i = 0; i < FN(panel_count)(outputs); i++) {
            const FN(panel) p = FN(panel_at)(outputs, i);
            const long together = RUN / p.nr;
            for (long c0 = 0; c0 < icg; c0 += together) {
                const long channels = MIN(together, icg - c0);
                for (long c = 0; c < channels; c++)
                    for (long j = 0; j < p.nr; j += FN(DOUBLES)) {
                        const int fetch = weight->output == 1 && j * (long)sizeof(T) % LINE_BYTES == 0;
                        const T *w = (const T *)weight->first + (c0 + c) * weight->channel + (group * ocg + p.column + j) * weight->output;
                        FN(transform_kernels)(g, weight, w, fetch, p.valid - j, p.nr - j, gh, gw, uh, uw, RUN, points + c * p.nr + j);
                    }
                for (long point = 0; point < uh * uw; point++) FN(copy)(to + (point * icg + c0) * p.nr, points + point * RUN, channels * p.nr);
            }
            to += uh * uw * icg * p.nr;
        }
}
