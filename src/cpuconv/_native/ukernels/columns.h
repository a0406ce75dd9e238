/* Blocks of the column matrix (im2col) of an NCHW image: row k is one (tap, channel), a column is one output pixel. */

/* `count` columns from `to` on: image elements from `from` on (in steps of the stride), or zeros where from < 0. */
typedef struct {
    long to, from, count;
} FN(run);

/* The runs of the output pixels [p0, p1) for one tap; they are the same for all channels. Returns their number, at most 3 for each row
   of pixels. */
INLINE long FN(column_runs)(const conv_geometry *g, const conv_strides *s, long p0, long p1, long ky, long kx, FN(run) *runs) {
    long y = p0 / g->ow, x = p0 % g->ow, count = 0, to = 0, first, last;
    outputs_of_tap(kx, g->ow, g->sw, g->pl, g->dw, g->iw, &first, &last);
    for (long left = p1 - p0; left > 0; y++, x = 0) {
        const long n = MIN(left, g->ow - x), iy = y * g->sh - g->pt + ky * g->dh, ix = x * g->sw - g->pl + kx * g->dw;
        /* of the n columns, [before, inside) read the image */
        const int above = iy < 0 || iy >= g->ih;
        const long before = above ? n : MIN(n, MAX(0, first - x)), inside = above ? n : MAX(before, MIN(n, last - x));
        const FN(run) pieces[3] = {{to, -1, before}, {to + before, iy * s->row + (ix + before * g->sw) * s->pixel, inside - before}, {to + inside, -1, n - inside}};
        for (int i = 0; i < 3; i++) {
            if (!pieces[i].count) continue;
            FN(run) *last = runs + count - 1;
            const int same = count && (pieces[i].from < 0 ? last->from < 0 : last->from >= 0 && last->from + last->count * g->sw * s->pixel == pieces[i].from);
            if (same) last->count += pieces[i].count;
            else runs[count++] = pieces[i];
        }
        to += n;
        left -= n;
    }
    return count;
}

/* n elements, a step apart, of an array that ends at `end`. */
INLINE void FN(copy_every)(const T *from, const int step, long n, const T *end, T *to) {
    for (; n >= VL && end - from >= step * VL; n -= VL, from += step * VL, to += VL) STORE(to, FN(load_every)(from, step));
    for (; n > 0; n--, from += step) *to++ = *from;
}

/* One row of the column matrix, from the plane of one channel, of an array that ends at `end`. */
INLINE void FN(column_row)(const FN(run) *runs, long count, long step, const T *plane, const T *end, T *to) {
    for (const FN(run) *r = runs; r < runs + count; r++) {
        T *at = to + r->to;
        const T *from = plane + r->from;
        if (r->from < 0) FN(zero)(at, r->count);
        else if (step == 1) FN(copy)(at, from, r->count);
        else if (step == 2) FN(copy_every)(from, 2, r->count, end, at);
        else if (step == 4) FN(copy_every)(from, 4, r->count, end, at);
        else
            for (long i = 0; i < r->count; i++) at[i] = from[i * step];
    }
}
