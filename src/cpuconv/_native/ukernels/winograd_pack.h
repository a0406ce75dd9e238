/* Packing the weight for Winograd. */

/* Points of the transformed weight along an axis: those of F(m,k), or of F(m,2) and one for the tap between at stride 2. */
INLINE long FN(weight_points)(long k, long m, long stride) { return stride == 2 ? m + 2 : m + k - 1; }

static long FN(winograd_packed_size)(const conv_geometry *g, const conv_blocking *b) {
    return FN(weight_points)(g->kh, b->mh, g->sh) * FN(weight_points)(g->kw, b->mw, g->sw) * g->ic * FN(padded)(g->oc / g->groups);
}

/* U = G_h w G_w^T in double, rounded once. */
static void FN(winograd_pack)(const conv_geometry *g, const conv_blocking *b, const double *gh, const double *gw, const conv_weight *weight, void *packed) {
    enum { LANES = 8 };
    const long kh = g->kh, kw = g->kw, uh = FN(weight_points)(kh, b->mh, g->sh), uw = FN(weight_points)(kw, b->mw, g->sw), icg = g->ic / g->groups, ocg = g->oc / g->groups;
    T *to = packed;
    for (long group = 0; group < g->groups; group++)
        for (long i = 0; i < FN(panel_count)(ocg); i++) {
            const FN(panel) p = FN(panel_at)(ocg, i);
            for (long c = 0; c < icg; c++)
                for (long j = 0; j < p.nr; j += LANES) {
                    const T *w = (const T *)weight->first + c * weight->channel + (group * ocg + p.column + j) * weight->output;
                    const long lanes = MIN(LANES, p.nr - j);
                    double columns[8][8][LANES], in[LANES];
                    for (long l = 0; l < LANES; l++) in[l] = 0;
                    for (long y = 0; y < uh; y++)
                        for (long v = 0; v < kw; v++)
                            for (long l = 0; l < LANES; l++) columns[y][v][l] = 0;
                    for (long u = 0; u < kh; u++)
                        for (long v = 0; v < kw; v++) {
                            for (long l = 0; l < MIN(LANES, p.valid - j); l++) in[l] = w[u * weight->row + v * weight->column + l * weight->output];
                            for (long y = 0; y < uh; y++)
                                for (long l = 0; l < LANES; l++) columns[y][v][l] += gh[y * kh + u] * in[l];
                        }
                    for (long y = 0; y < uh; y++)
                        for (long x = 0; x < uw; x++) {
                            double sum[LANES] = {0};
                            for (long v = 0; v < kw; v++)
                                for (long l = 0; l < LANES; l++) sum[l] += gw[x * kw + v] * columns[y][v][l];
                            T *at = to + ((y * uw + x) * icg + c) * p.nr + j;
                            for (long l = 0; l < lanes; l++) at[l] = (T)sum[l];
                        }
                }
            to += uh * uw * icg * p.nr;
        }
}
