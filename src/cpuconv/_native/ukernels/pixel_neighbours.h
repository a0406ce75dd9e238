/* First layers of pictures in NHWC: three channels and taps, stride 2, a panel of one vector. Of such a panel each multiply-add needs a number of the image,
   so that loads take longer than multiply-adds. Here the numbers that two neighbours share are loaded once, and the weights of a row of taps for a whole
   tile (3-16 at 640x640 takes 0.86 to 0.88 of the time on an Intel Xeon). */

enum { FN(NEIGHBOURS) = 12, FN(CHAINS) = 3, FN(APART) = 6, FN(ROW_OF_TAPS) = 9, FN(OVERLAP) = FN(ROW_OF_TAPS) - FN(APART) };

/* A tile; CHAINS of neighbours are under way at once, so that their latency is hidden. Each sum has the order of the other kernels. */
INLINE void FN(neighbours_tile)(const FN(tile) *t, const T *a, T *c, long y_pixel) {
    enum { EACH = FN(NEIGHBOURS) / FN(CHAINS) };
    VEC acc[FN(NEIGHBOURS)];
    UNROLL for (int i = 0; i < FN(NEIGHBOURS); i++) acc[i] = t->bias_n ? LOAD(t->bias_n) : (VEC){0};
    for (const segment *run = t->segments, *end = run + t->count; run < end; run++) {
        const T *row = a + run->a, *weight = t->b + run->b * VL;
        VEC w[FN(ROW_OF_TAPS)];
        UNROLL for (int k = 0; k < FN(ROW_OF_TAPS); k++) w[k] = LOAD(weight + k * VL);
        UNROLL for (int p = 0; p < EACH; p++) UNROLL for (int k = 0; k < FN(APART); k++) UNROLL for (int i = p; i < FN(NEIGHBOURS); i += EACH) {
            const VEC x = SPLAT(row[i * FN(APART) + k]);
            if (p && k < FN(OVERLAP)) acc[i - 1] += x * w[FN(APART) + k];
            acc[i] += x * w[k];
        }
        UNROLL for (int k = FN(APART); k < FN(ROW_OF_TAPS); k++) UNROLL for (int i = EACH - 1; i < FN(NEIGHBOURS); i += EACH) acc[i] += row[i * FN(APART) + k] * w[k];
    }
    const VEC low = SPLAT(t->low), high = SPLAT(t->high);
    UNROLL for (int i = 0; i < FN(NEIGHBOURS); i++) {
        if (t->clip) acc[i] = FN(vmin)(high, FN(vmax)(low, acc[i]));
        if (t->stream) STREAM(c + i * y_pixel, acc[i]);
        else STORE(c + i * y_pixel, acc[i]);
    }
}

/* Of a row of pixels the first ones, as many as fill tiles, if they are of that kind; returns their number. */
IN_MEMORY static long FN(gemm_neighbours)(const FN(tile) *t, const FN(panel) *p, long pixels, long x_pixel, long y_pixel) {
    if (p->nv != 1 || p->valid < p->nr || x_pixel != FN(APART) || t->z) return 0;
    for (long i = 0; i < t->count; i++)
        if (t->segments[i].length != FN(ROW_OF_TAPS)) return 0;
    long done = 0;
    for (; pixels - done >= FN(NEIGHBOURS); done += FN(NEIGHBOURS)) FN(neighbours_tile)(t, t->a + done * x_pixel, t->c + done * y_pixel, y_pixel);
    return done;
}
