/* The micro-kernels C[mr][nv vectors] = A B + bias + z, one function for each mr up to MR(nv). Included once per vector
   width W (a letter): full vectors, and half ones for narrow tails. Rows of A and C are addressed by offsets, so that A
   is read in place (NHWC pixels, OIHW weights, Winograd tiles); B is a packed panel; the summation runs over segments.
   gcc keeps acc[][] in registers only where every index is a constant: check the assembly after each change. */
INLINE void UK(body)(const int mr, const int nv, const FN(tile) *t, const long *aoff, const long *coff, const long *zoff, const long valid) {
    const long nr = nv * UVL, ldb = t->ldb, step = t->step;
    UVEC acc[8][4];
    const T *a[8];
    T edge[8 * 4 * UVL];
    const int whole = valid == nr;
    UNROLL for (int i = 0; i < mr; i++) a[i] = t->a + aoff[i];
    UNROLL for (int j = 0; j < nv; j++) {
        const UVEC start = t->bias_n ? *(const UVECU *)(t->bias_n + j * UVL) : (UVECU){0};
        UNROLL for (int i = 0; i < mr; i++) acc[i][j] = start;
    }
    if (t->bias_m) UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] += t->bias_m[i];
    for (const segment *run = t->segments, *last = run + t->count; run < last; run++) {
        const T *b = t->b + run->b * ldb;
        for (long k = run->a, end = k + run->length * step; k < end; k += step, b += ldb) {
            UVEC bv[4];
            UNROLL for (int j = 0; j < nv; j++) bv[j] = *(const UVECU *)(b + j * UVL);
            UNROLL for (int i = 0; i < mr; i++) {
                const T s = a[i][k];
                UNROLL for (int j = 0; j < nv; j++) acc[i][j] = MULTIPLY_ADD(acc[i][j], s, bv[j]);
            }
        }
    }
    /* What C already holds is added last: a long summation cut into pieces so errs less than one long chain would. */
    if (t->z) {
        if (whole)
            UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] += *(const UVECU *)(t->z + zoff[i] + j * UVL);
        else {
            for (int i = 0; i < mr; i++) {
                for (long j = valid; j < nr; j++) edge[i * nr + j] = 0;
                for (long j = 0; j < valid; j++) edge[i * nr + j] = t->z[zoff[i] + j];
            }
            UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] += *(const UVECU *)(edge + i * nr + j * UVL);
        }
    }
    if (t->clip) {
        const UVEC low = (UVEC){0} + t->low, high = (UVEC){0} + t->high;
        UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) {
            acc[i][j] = SELECT(UMASK, low > acc[i][j], low, acc[i][j]);
            acc[i][j] = SELECT(UMASK, high < acc[i][j], high, acc[i][j]);
        }
    }
    if (whole)
        UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) *(UVECU *)(t->c + coff[i] + j * UVL) = acc[i][j];
    else {
        UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) *(UVECU *)(edge + i * nr + j * UVL) = acc[i][j];
        for (int i = 0; i < mr; i++)
            for (long j = 0; j < valid; j++) t->c[coff[i] + j] = edge[i * nr + j];
    }
}
#define UKERNEL(mr, nv) \
    static void UK(mr##x##nv)(const FN(tile) *t, const long *aoff, const long *coff, const long *zoff, long valid) { UK(body)(mr, nv, t, aoff, coff, zoff, valid); }
UKERNEL(1, 1) UKERNEL(2, 1) UKERNEL(3, 1) UKERNEL(4, 1) UKERNEL(5, 1) UKERNEL(6, 1) UKERNEL(7, 1) UKERNEL(8, 1)
#if UNV >= 2
UKERNEL(1, 2) UKERNEL(2, 2) UKERNEL(3, 2) UKERNEL(4, 2) UKERNEL(5, 2) UKERNEL(6, 2)
#endif
#if UNV >= 4
UKERNEL(7, 2) UKERNEL(8, 2)
UKERNEL(1, 3) UKERNEL(2, 3) UKERNEL(3, 3) UKERNEL(4, 3) UKERNEL(5, 3) UKERNEL(6, 3) UKERNEL(7, 3) UKERNEL(8, 3)
UKERNEL(1, 4) UKERNEL(2, 4) UKERNEL(3, 4) UKERNEL(4, 4) UKERNEL(5, 4) UKERNEL(6, 4)
#endif
#undef UKERNEL
