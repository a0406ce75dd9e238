/* The micro-kernels C[mr][nv vectors] = A B + bias + z, one function for each mr up to MR(nv). Included once per vector
   width: full vectors, and half ones for narrow tails. Rows of A and C are addressed by offsets, so that A is read in
   place (NHWC pixels, OIHW weights, Winograd tiles); B is a packed panel; the summation runs over segments. `far`: what B or A is next is prefetched.
   `copying`: B, read in place, is left in a packed panel for the tiles that follow.
   Tiles that lie as far from each other are done in one call: what starts a tile then overlaps with the end of the one before.
   gcc keeps acc[][] in registers only where every index is a constant: check the assembly after each change. */
INLINE void UK(body)(const int mr, const int nv, const int far, const int copying, const FN(tile) *t) {
    const T *first = t->a + t->aoff[0], *panel = t->b, *z = t->z, *bias_n = t->bias_n, *bias_m = t->bias_m;
    T *c = t->c;
    long next[MR_MAX]; /* from the first row to each */
    UNROLL for (int i = 1; i < mr; i++) next[i] = t->aoff[i] - t->aoff[0];
    for (long tiles = t->repeat; tiles > 0; tiles--) {
        UVEC acc[MR_MAX][4];
        UNROLL for (int j = 0; j < nv; j++) {
            const UVEC start = bias_n ? *(const UVECU *)(bias_n + j * UVL) : (UVECU){0};
            UNROLL for (int i = 0; i < mr; i++) acc[i][j] = start;
        }
        if (bias_m) UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] += bias_m[i];
        const segment *run = t->segments;
        const T *fetched = far ? first + run->a + t->ahead : NULL;
        const long each = far ? t->each : 0, more = each - VL;
        T *copy = copying ? t->copy : NULL;
        for (long left = t->count; left > 0; left--, run++) {
            const long step = t->step, ldb = t->ldb;
            const T *a = first + run->a, *b = panel + run->b * ldb;
            for (const T *end = a + run->length * step; a < end; a += step, b += ldb) {
                if (far) {
                    __builtin_prefetch(fetched, 0, 2);
                    __builtin_prefetch(fetched + more, 0, 2); /* the same line, or one more */
                    fetched += each;
                }
                UVEC bv[4];
                UNROLL for (int j = 0; j < nv; j++) bv[j] = *(const UVECU *)(b + j * UVL);
                if (copying) {
                    UNROLL for (int j = 0; j < nv; j++) *(UVECU *)(copy + j * UVL) = bv[j];
                    copy += nv * UVL;
                }
                UNROLL for (int i = 0; i < mr; i++) {
                    const T s = i ? a[next[i]] : *a;
                    UNROLL for (int j = 0; j < nv; j++) acc[i][j] = MULTIPLY_ADD(acc[i][j], s, bv[j]);
                }
            }
        }
        /* What C already holds is added last: a long summation cut into pieces so errs less than one long chain would. */
        if (z) {
            UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] += *(const UVECU *)(z + t->zoff[i] + j * UVL);
            z += t->c_step;
        }
        if (t->clip) {
            const UVEC low = t->low - (UVEC){0}, high = t->high - (UVEC){0};
            UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) {
                acc[i][j] = SELECT(UMASK, low > acc[i][j], low, acc[i][j]);
                acc[i][j] = SELECT(UMASK, high < acc[i][j], high, acc[i][j]);
            }
        }
        T *const to = c;
#ifdef FINISH
        const T *const rows = bias_m;
#endif
        const long *const coff = t->coff; /* read with each row's stores: ahead of them, gcc parks those of 5 to 12 in mask registers, and a store costs a Zen 4 three cycles */
        first += t->a_step;
        panel += t->b_step;
        c += t->c_step;
        if (bias_n) bias_n += t->bias_n_step;
        if (bias_m) bias_m += t->bias_m_step;
#ifdef FINISH
        if (nv == 4 && t->finish) {
            UNROLL for (int i = 0; i < mr; i++) FINISH(t->finish, acc[i], to + coff[i], rows + i);
            continue;
        }
#endif
#if UNV > 1 && HALF_VECTORS
        if (nv >= 2 && t->narrow) {
            UNROLL for (int i = 0; i < mr; i++) {
                T *const row = to + coff[i];
                UNROLL for (int j = 0; j < nv - 1; j++) *(UVECU *)(row + j * UVL) = acc[i][j];
                const UVEC last = acc[i][nv - 1];
                __builtin_memcpy(row + (nv - 1) * UVL, &last, VB / 2);
            }
            continue;
        }
#endif
#if UNV > 1
        if (t->stream) {
            UNROLL for (int i = 0; i < mr; i++) {
                T *const row = to + coff[i];
                UNROLL for (int j = 0; j < nv; j++) STREAM(row + j * UVL, acc[i][j]);
            }
            continue;
        }
#endif
        UNROLL for (int i = 0; i < mr; i++) {
            T *const row = to + coff[i];
            UNROLL for (int j = 0; j < nv; j++) *(UVECU *)(row + j * UVL) = acc[i][j];
        }
    }
}
#define UKERNEL(mr, nv)                                                               \
    IN_MEMORY static void UK(mr##x##nv)(const FN(tile) *t) { UK(body)(mr, nv, 0, 0, t); } \
    IN_MEMORY static void UK(far_##mr##x##nv)(const FN(tile) *t) { UK(body)(mr, nv, 1, 0, t); }
UKERNEL(1, 1) UKERNEL(2, 1) UKERNEL(3, 1) UKERNEL(4, 1) UKERNEL(5, 1) UKERNEL(6, 1) UKERNEL(7, 1) UKERNEL(8, 1)
#if VB == 64 && UNV >= 4
UKERNEL(9, 1) UKERNEL(10, 1) UKERNEL(11, 1) UKERNEL(12, 1)
#endif
#if UNV >= 2
UKERNEL(1, 2) UKERNEL(2, 2) UKERNEL(3, 2) UKERNEL(4, 2) UKERNEL(5, 2) UKERNEL(6, 2)
#endif
#if UNV >= 3
UKERNEL(1, 3) UKERNEL(2, 3) UKERNEL(3, 3) UKERNEL(4, 3)
#endif
#if UNV >= 4
UKERNEL(7, 2) UKERNEL(8, 2) UKERNEL(5, 3) UKERNEL(6, 3) UKERNEL(7, 3) UKERNEL(8, 3)
UKERNEL(1, 4) UKERNEL(2, 4) UKERNEL(3, 4) UKERNEL(4, 4) UKERNEL(5, 4) UKERNEL(6, 4)
#endif
#undef UKERNEL
#if UNV >= 2 && defined(T_IS_FLOAT)
#define COPYING(mr) IN_MEMORY static void UK(copying_##mr)(const FN(tile) *t) { UK(body)(mr, FN(COPIED), 0, 1, t); }
COPYING(1) COPYING(2) COPYING(3) COPYING(4) COPYING(5) COPYING(6)
#undef COPYING
#endif
