/* The transforms of F(m,r) per axis by Cook-Toom interpolation at n = m + r - 1 points: +-p0, +-p1, ..., infinity and, if n is even, 0
   (n = 1: no transform along that axis). Channels lie in vectors. */

/* Squares, and elementary symmetric polynomials of the squares, of the points. */
typedef struct {
    T p[3], q[3], sum, product, sum2, others[3], pairs[3];
} FN(points);

static FN(points) FN(make_points)(const conv_blocking *b, int n) {
    FN(points) c = {0};
    const int count = (n - 1) / 2;
    double q[3] = {0};
    for (int i = 0; i < count; i++) {
        q[i] = b->point[i] * b->point[i];
        c.p[i] = (T)b->point[i];
        c.q[i] = (T)q[i];
    }
    if (count == 2) {
        c.sum = (T)(q[0] + q[1]);
        c.product = (T)(q[0] * q[1]);
    }
    if (count == 3) {
        c.sum = (T)(q[0] + q[1] + q[2]);
        c.sum2 = (T)(q[0] * q[1] + q[0] * q[2] + q[1] * q[2]);
        c.product = (T)(q[0] * q[1] * q[2]);
        for (int i = 0; i < 3; i++) {
            const double a = q[(i + 1) % 3], b2 = q[(i + 2) % 3];
            c.others[i] = (T)(a + b2);
            c.pairs[i] = (T)(a * b2);
        }
    }
    return c;
}

/* Row i of B^T holds the coefficients of the product of (x - a_j) over the other points j; the last row, of the full
   product. Rows of +p and -p share their even and odd halves. */
INLINE void FN(to_points)(const int n, const FN(points) *c, const VEC *d, const int ds, VEC *o, const int os) {
    if (n == 1) {
        o[0] = d[0];
    } else if (n == 4) {
        o[0] = d[2 * ds] - c->q[0] * d[0];
        const VEC odd = c->p[0] * d[ds];
        o[os] = d[2 * ds] + odd;
        o[2 * os] = d[2 * ds] - odd;
        o[3 * os] = d[3 * ds] - c->q[0] * d[ds];
    } else if (n == 6) {
        o[0] = c->product * d[0] + (d[4 * ds] - c->sum * d[2 * ds]);
        UNROLL for (int i = 0; i < 2; i++) {
            const VEC even = d[4 * ds] - c->q[1 - i] * d[2 * ds], odd = c->p[i] * (d[3 * ds] - c->q[1 - i] * d[ds]);
            o[(1 + 2 * i) * os] = even + odd;
            o[(2 + 2 * i) * os] = even - odd;
        }
        o[5 * os] = c->product * d[ds] + (d[5 * ds] - c->sum * d[3 * ds]);
    } else {
        if (n == 8) { /* 0 apart, the rows are those of n = 7 on the elements from the second on */
            o[0] = (d[6 * ds] - c->sum * d[4 * ds]) + (c->sum2 * d[2 * ds] - c->product * d[0]);
            d += ds;
            o += os;
        }
        UNROLL for (int i = 0; i < 3; i++) {
            const VEC even = c->pairs[i] * d[ds] + (d[5 * ds] - c->others[i] * d[3 * ds]);
            const VEC odd = c->p[i] * (c->pairs[i] * d[0] + (d[4 * ds] - c->others[i] * d[2 * ds]));
            o[2 * i * os] = even + odd;
            o[(2 * i + 1) * os] = even - odd;
        }
        o[6 * os] = (d[6 * ds] - c->sum * d[4 * ds]) + (c->sum2 * d[2 * ds] - c->product * d[0]);
    }
}

/* Stride 2 and three taps (n = 11): y_k = (w_0 x_2k + w_2 x_2k+2) + w_1 x_2k+1, so the even elements pass through F(5,2), and the odd ones,
   under their one tap, as they are. */
INLINE void FN(input_1d)(const int n, const FN(points) *c, const VEC *d, const int ds, VEC *o, const int os) {
    if (n != 11) {
        FN(to_points)(n, c, d, ds, o, os);
        return;
    }
    FN(to_points)(6, c, d, 2 * ds, o, os);
    UNROLL for (int i = 0; i < 5; i++) o[(6 + i) * os] = d[(2 * i + 1) * ds];
}

/* Row i of A^T holds the i-th powers of the points; infinity adds to the last row only. */
INLINE void FN(from_points)(const int n, const int m, const FN(points) *c, const VEC *d, const int ds, VEC *o, const int os) {
    if (n == 1) {
        o[0] = d[0];
        return;
    }
    const int zero = n % 2 == 0;
    const VEC *pairs = d + zero * ds;
    VEC even[3], odd[3];
    UNROLL for (int i = 0; i < (n - 1) / 2; i++) {
        even[i] = pairs[2 * i * ds] + pairs[(2 * i + 1) * ds];
        odd[i] = c->p[i] * (pairs[2 * i * ds] - pairs[(2 * i + 1) * ds]);
    }
    UNROLL for (int j = 0; j < m; j++) {
        VEC *half = j % 2 ? odd : even, sum = half[0];
        UNROLL for (int i = 1; i < (n - 1) / 2; i++) sum += half[i];
        if (zero && j == 0) sum += d[0];
        if (j == m - 1) sum += d[(n - 1) * ds];
        o[j * os] = sum;
        UNROLL for (int i = 0; i < (n - 1) / 2; i++) half[i] *= c->q[i];
    }
}

INLINE void FN(output_1d)(const int n, const int m, const FN(points) *c, const VEC *d, const int ds, VEC *o, const int os) {
    if (n != 11) {
        FN(from_points)(n, m, c, d, ds, o, os);
        return;
    }
    FN(from_points)(6, 5, c, d, ds, o, os);
    UNROLL for (int i = 0; i < 5; i++) o[i * os] += d[(6 + i) * ds];
}

/* Elements of a tile at most, along an axis and in all. */
enum { FN(TILE) = 11, FN(TILE2) = 121 };

/* Where tiles lie: `matrix` elements between the matrices that the n*n coordinates of a tile go to (or come from), `row` between tiles. */
typedef struct {
    const FN(points) *points;
    long matrix, row;
} FN(tile_order);

/* A rectangle of tiles [ty0,ty1) x [tx0,tx1) of one image, each mh x mw outputs. */
typedef struct {
    long ty0, ty1, tx0, tx1, mh, mw;
} FN(tile_rect);

/* Channel-last pixels: pixel (y0, x0) at `image`; those outside [y0,y1) x [x0,x1) are padding; nothing at or past `end` is read. Tile (0, 0)
   begins at pixel (-pt, -pl). */
typedef struct {
    const T *image, *end;
    long row, pixel, y0, y1, x0, x1, pt, pl, stride, lanes;
} FN(tile_source);

/* Transforms one tile of VL channels. */
INLINE void FN(input_tile)(const int nh, const int nw, const FN(tile_order) *order, const T *from, long row, long pixel, T *to) {
    VEC d[FN(TILE)], e[FN(TILE2)];
    UNROLL for (int j = 0; j < nw; j++) {
        UNROLL for (int i = 0; i < nh; i++) d[i] = LOAD(from + i * row + j * pixel);
        FN(input_1d)(nh, order->points, d, 1, e + j, nw);
    }
    UNROLL for (int i = 0; i < nh; i++) {
        FN(input_1d)(nw, order->points, e + i * nw, 1, d, 1);
        UNROLL for (int j = 0; j < nw; j++) STORE(to + (i * nw + j) * order->matrix, d[j]);
    }
}

/* V of VL channels, of which `lanes` exist, of some tiles. */
INLINE void FN(input_tiles)(const int nh, const int nw, const FN(tile_order) *order, const FN(tile_rect) *b, const FN(tile_source) *s, T *v) {
    T patch[FN(TILE2) * VL] __attribute__((aligned(64)));
    for (long ty = b->ty0; ty < b->ty1; ty++)
        for (long tx = b->tx0; tx < b->tx1; tx++, v += order->row) {
            const long iy = ty * b->mh * s->stride - s->pt, ix = tx * b->mw * s->stride - s->pl;
            const T *from = s->image + (iy - s->y0) * s->row + (ix - s->x0) * s->pixel;
            const int inside = iy >= s->y0 && iy + nh <= s->y1 && ix >= s->x0 && ix + nw <= s->x1;
            if (inside && s->end - (from + (nh - 1) * s->row + (nw - 1) * s->pixel) >= VL) {
                FN(input_tile)(nh, nw, order, from, s->row, s->pixel, v);
                continue;
            }
            for (int i = 0; i < nh; i++)
                for (int j = 0; j < nw; j++) {
                    const T *at = from + i * s->row + j * s->pixel;
                    VEC d = {0};
                    if (iy + i >= s->y0 && iy + i < s->y1 && ix + j >= s->x0 && ix + j < s->x1) d = s->end - at >= VL ? LOAD(at) : FN(load_part)(at, s->lanes);
                    STORE(patch + (i * nw + j) * VL, d);
                }
            FN(input_tile)(nh, nw, order, patch, nw * VL, VL, v);
        }
}

/* Channel-last pixels: pixel (y0, x0) at y; those at or past (oh, ow) are dropped; residual, or NULL, lies like y. */
typedef struct {
    T *y;
    const T *residual, *bias;
    long row, pixel, y0, x0, oh, ow, lanes;
    conv_activation act;
} FN(tile_target);

/* The inverse transform of VL output channels, of which `lanes` exist, of some tiles. */
INLINE void FN(output_tiles)(const int nh, const int nw, const int mh, const int mw, const FN(tile_order) *order, const FN(tile_rect) *b, const T *m,
                             const FN(tile_target) *t) {
    const VEC start = t->lanes == VL ? LOAD(t->bias) : FN(load_part)(t->bias, t->lanes);
    for (long ty = b->ty0; ty < b->ty1; ty++)
        for (long tx = b->tx0; tx < b->tx1; tx++, m += order->row) {
            VEC d[FN(TILE)], e[FN(TILE2)], o[64];
            UNROLL for (int j = 0; j < nw; j++) {
                UNROLL for (int i = 0; i < nh; i++) d[i] = LOAD(m + (i * nw + j) * order->matrix);
                FN(output_1d)(nh, mh, order->points, d, 1, e + j, nw);
            }
            UNROLL for (int i = 0; i < mh; i++) FN(output_1d)(nw, mw, order->points, e + i * nw, 1, o + i * mw, 1);
            const long h = MIN(mh, t->oh - ty * mh), w = MIN(mw, t->ow - tx * mw);
            const long at = (ty * mh - t->y0) * t->row + (tx * mw - t->x0) * t->pixel;
            if (h == mh && w == mw && t->lanes == VL && !t->residual && t->act.kind == ACT_NONE) {
                UNROLL for (int i = 0; i < mh; i++) UNROLL for (int j = 0; j < mw; j++) STORE(t->y + at + i * t->row + j * t->pixel, o[i * mw + j] + start);
                continue;
            }
            for (long i = 0; i < h; i++)
                for (long j = 0; j < w; j++) {
                    const long p = at + i * t->row + j * t->pixel;
                    VEC r = o[i * mw + j] + start;
                    if (t->residual) r += t->lanes == VL ? LOAD(t->residual + p) : FN(load_part)(t->residual + p, t->lanes);
                    r = FN(activated)(t->act, r);
                    if (t->lanes == VL) STORE(t->y + p, r);
                    else FN(store_part)(t->y + p, r, t->lanes);
                }
        }
}

/* One instance for each kind of tile, of which nh, nw, mh, mw are constants. */
typedef void (*FN(input_transform))(const FN(tile_order) *, const FN(tile_rect) *, const FN(tile_source) *, T *);
typedef void (*FN(output_transform))(const FN(tile_order) *, const FN(tile_rect) *, const T *, const FN(tile_target) *);
#define INPUT(NH, NW)                                                                                                                         \
    static __attribute__((noinline)) void FN(input_##NH##x##NW)(const FN(tile_order) *o, const FN(tile_rect) *b, const FN(tile_source) *s, T *v) { \
        FN(input_tiles)(NH, NW, o, b, s, v);                                                                                                  \
    }
#define OUTPUT(NH, NW, MH, MW)                                                                                                                \
    static __attribute__((noinline)) void FN(output_##NH##x##NW##_##MH##x##MW)(const FN(tile_order) *o, const FN(tile_rect) *b, const T *m,   \
                                                                                const FN(tile_target) *t) {                                   \
        FN(output_tiles)(NH, NW, MH, MW, o, b, m, t);                                                                                         \
    }
/* Tiles of n points along both axes, or one. */
#define INPUTS(N) INPUT(N, N) INPUT(N, 1) INPUT(1, N)
#define OUTPUTS(N, M) OUTPUT(N, N, M, M) OUTPUT(N, 1, M, 1) OUTPUT(1, N, 1, M)
INPUTS(4) INPUTS(6) INPUTS(7) INPUTS(8) INPUT(11, 11)
OUTPUTS(4, 2) OUTPUTS(6, 2) OUTPUTS(6, 3) OUTPUTS(6, 4) OUTPUTS(6, 5) OUTPUTS(7, 5) OUTPUTS(8, 2) OUTPUTS(8, 4) OUTPUTS(8, 6) OUTPUT(11, 11, 5, 5)
#undef INPUT
#undef OUTPUT
#undef INPUTS
#undef OUTPUTS

typedef struct {
    int nh, nw, mh, mw;
    FN(input_transform) input;
    FN(output_transform) output;
} FN(winograd_tile);

INLINE const FN(winograd_tile) *FN(tile_of)(int nh, int nw, int mh, int mw) {
#define TILE(NH, NW, MH, MW) {NH, NW, MH, MW, FN(input_##NH##x##NW), FN(output_##NH##x##NW##_##MH##x##MW)}
#define TILES(N, M) TILE(N, N, M, M), TILE(N, 1, M, 1), TILE(1, N, 1, M)
    static const FN(winograd_tile) tiles[] = {TILES(4, 2), TILES(6, 2), TILES(6, 3), TILES(6, 4), TILES(6, 5), TILES(7, 5), TILES(8, 2), TILES(8, 4), TILES(8, 6), TILE(11, 11, 5, 5)};
#undef TILE
#undef TILES
    const FN(winograd_tile) *t = tiles;
    while (t->nh != nh || t->nw != nw || t->mh != mh || t->mw != mw) t++;
    return t;
}
