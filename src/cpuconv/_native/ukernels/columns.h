/* Blocks of the column matrix (im2col) of an NCHW image: row k is one (tap, channel), a column is one output pixel. */

/* Columns [p0, p1) of a rectangle's pixels for the tap (ky, kx) of one channel plane; padding becomes zeros. */
INLINE void FN(column_row)(const conv_geometry *g, const tap_rect *r, long p0, long p1, long ky, long kx, const T *plane, T *to) {
    const long width = r->ox1 - r->ox0;
    long y = r->oy0 + p0 / width, x = r->ox0 + p0 % width;
    for (long left = p1 - p0; left > 0; y++, x = r->ox0) {
        const long run = MIN(left, r->ox1 - x), iy = y * g->sh - g->pt + ky * g->dh, ix = x * g->sw - g->pl + kx * g->dw;
        left -= run;
        if (iy < 0 || iy >= g->ih) {
            FN(zero)(to, run);
            to += run;
            continue;
        }
        /* [before, inside) of the run reads the image */
        const long before = ix >= 0 ? 0 : MIN(run, ceil_div(-ix, g->sw));
        const long inside = ix >= g->iw ? before : MAX(before, MIN(run, (g->iw - 1 - ix) / g->sw + 1));
        const T *from = plane + iy * g->iw + ix;
        for (long i = 0; i < before; i++) to[i] = 0;
        if (g->sw == 1) FN(copy)(to + before, from + before, inside - before);
        else
            for (long i = before; i < inside; i++) to[i] = from[i * g->sw];
        for (long i = inside; i < run; i++) to[i] = 0;
        to += run;
    }
}
