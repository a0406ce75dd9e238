/* Few columns of a product, which would leave most lanes of a panel empty: dot products instead. Few output channels of NHWC are such; the last pixels
   of planes are, too, but with several columns (dot_columns in channel_rows.h). A vector holds channels; VL pixels are summed at once, each in the lanes
   of its own accumulator, which are added up at the end. */

/* Whether an image is computed so; the packed weight is then [oc][kh kw icg]. */
INLINE int FN(few_outputs)(const conv_geometry *g) {
#ifdef T_IS_FLOAT /* not of integers */
    return g->nhwc && g->oc / g->groups <= 2 && g->ic / g->groups % VL == 0;
#else
    return (void)g, 0;
#endif
}

/* Lane i: the sum of the lanes of v[i]. */
#define HALVE(sums, n) UNROLL for (int i = 0; i < (n); i++) v[i] = FN(sums)(v[2 * i], v[2 * i + 1])
INLINE VEC FN(lane_sums)(VEC *v) {
    HALVE(pair_sums, VL / 2);
    if (sizeof(T) == 4) HALVE(pair_sums, VL / 4);
    if (VB == 64) HALVE(block_sums, 2);
    if (VB >= 32) HALVE(block_sums, 1);
    return v[0];
}
#undef HALVE

INLINE long FN(row_at)(const long *offsets, long i, long step) { return offsets ? offsets[i] : i * step; }

/* Rows at t->aoff, or evenly a_step apart, times one column, k numbers at t->b, to numbers at t->coff, or c_step apart. Rows that are not evenly spaced
   are copied. */
IN_MEMORY static void FN(dot_rows)(const FN(tile) *t, long rows, long k, conv_activation act, T *copy) {
    for (long row = 0; row < rows; row += VL) {
        const long some = MIN(VL, rows - row), at = FN(row_at)(t->aoff, row, t->a_step), apart = FN(row_at)(t->aoff, row + (some > 1), t->a_step) - at;
        const int even = some == VL && FN(row_at)(t->aoff, row + VL - 1, t->a_step) - at == (VL - 1) * apart;
        for (long i = 0; !even && i < some; i++)
            for (long j = 0; j < t->count; j++)
                FN(copy)(copy + i * k + t->segments[j].b, t->a + FN(row_at)(t->aoff, row + i, t->a_step) + t->segments[j].a, t->segments[j].length);
        const long step = even ? apart : k, to = FN(row_at)(t->coff, row, t->c_step);
        const T *first = even ? t->a + at : copy;
        const segment *run = t->segments;
        VEC acc[VL];
        UNROLL for (int i = 0; i < VL; i++) acc[i] = (VEC){0};
        for (long left = t->count; left > 0; left--, run++) {
            const T *b = t->b + run->b, *a = first + (even ? run->a : run->b);
            for (const T *end = b + run->length; b < end; a += VL, b += VL) {
                const VEC w = LOAD(b);
                const T *four = a; /* pixels, for want of registers for more */
                UNROLL for (int i = 0; i < VL; i++) {
                    acc[i] += w * LOAD(four + i % 4 * step);
                    if (i % 4 == 3) four += 4 * step;
                }
            }
        }
        VEC y = FN(lane_sums)(acc) + SPLAT(*t->bias_n);
        if (t->z) {
            VEC z = {0}; /* of a loop gcc makes gathers, which the microcode against Gather Data Sampling slows down */
            UNROLL for (int i = 0; i < VL; i++) if (i < some) z[i] = t->z[FN(row_at)(t->coff, row + i, t->c_step)];
            y += z;
        }
        y = FN(activated)(act, y);
        if (some == VL && FN(row_at)(t->coff, row + VL - 1, t->c_step) - to == VL - 1) STORE(t->c + to, y);
        else
            for (long i = 0; i < some; i++) t->c[FN(row_at)(t->coff, row + i, t->c_step)] = y[i];
    }
}
