/* The transforms of F(m,r) per axis by Cook-Toom interpolation at n = m + r - 1 points: +-p0, +-p1, ..., infinity and, if n is even, 0
   (n = 1: no transform along that axis). Channels lie in vectors. */

/* For pairs of points +-p: the polynomial of x^2 that vanishes at all pairs, those that vanish at all pairs but one, the latter times p,
   and the powers of p; coefficients from the lowest on, the highest being 1. */
typedef struct {
    T all[4], even[3][3], odd[3][3], power[3][6];
} FN(points);

static FN(points) FN(make_points)(const conv_blocking *b, int n) {
    FN(points) c = {0};
    const int count = (n - 1) / 2;
    for (int i = 0; i <= count; i++) { /* pair i is left out, if there is one */
        double f[5] = {1};
        for (int k = 0, terms = 1; k < count; k++) {
            if (k == i) continue;
            for (int t = terms++; t >= 0; t--) f[t] = (t ? f[t - 1] : 0) - b->point[k] * b->point[k] * f[t];
        }
        for (int t = 0; t < (i < count ? count : count + 1); t++) {
            if (i == count) c.all[t] = (T)f[t];
            else {
                c.even[i][t] = (T)f[t];
                c.odd[i][t] = (T)(b->point[i] * f[t]);
            }
        }
    }
    for (int i = 0; i < count; i++) {
        double power = 1;
        for (int k = 0; k < 6; k++, power *= b->point[i]) c.power[i][k] = (T)power;
    }
    return c;
}

/* The sum of every other element of d times a coefficient. */
INLINE VEC FN(every_other)(const T *c, const int terms, const int monic, const VEC *d, const int ds) {
    VEC sum = monic ? d[2 * (terms - 1) * ds] : c[terms - 1] * d[2 * (terms - 1) * ds];
    UNROLL for (int t = terms - 2; t >= 0; t--) sum += c[t] * d[2 * t * ds];
    return sum;
}

/* Row i of B^T holds the coefficients of the product of (x - a_j) over the other points j; the last row, of the full
   product. Rows of +p and -p share their even and odd halves. */
INLINE void FN(to_points)(const int n, const FN(points) *c, const VEC *d, const int ds, VEC *o, const int os) {
    if (n == 1) {
        o[0] = d[0];
        return;
    }
    const int pairs = (n - 1) / 2;
    if (n % 2 == 0) { /* the other rows have the factor x, of the point 0 */
        o[0] = FN(every_other)(c->all, pairs + 1, 1, d, ds);
        d += ds;
        o += os;
    }
    UNROLL for (int i = 0; i < pairs; i++) {
        const VEC even = FN(every_other)(c->even[i], pairs, 1, d + ds, ds), odd = FN(every_other)(c->odd[i], pairs, 0, d, ds);
        o[2 * i * os] = even + odd;
        o[(2 * i + 1) * os] = even - odd;
    }
    o[2 * pairs * os] = FN(every_other)(c->all, pairs + 1, 1, d, ds);
}

/* Row i of A^T holds the i-th powers of the points; infinity adds to the last row only. */
INLINE void FN(from_points)(const int n, const int m, const FN(points) *c, const VEC *d, const int ds, VEC *o, const int os) {
    if (n == 1) {
        o[0] = d[0];
        return;
    }
    const int pairs = (n - 1) / 2, zero = n % 2 == 0;
    VEC half[2][3]; /* of even and of odd powers */
    UNROLL for (int i = 0; i < pairs; i++) {
        const VEC plus = d[(zero + 2 * i) * ds], minus = d[(zero + 2 * i + 1) * ds];
        half[0][i] = plus + minus;
        half[1][i] = plus - minus;
    }
    UNROLL for (int j = 0; j < m; j++) {
        const VEC *h = half[j % 2];
        VEC sum = j ? c->power[0][j] * h[0] : h[0];
        UNROLL for (int i = 1; i < pairs; i++) sum += j ? c->power[i][j] * h[i] : h[i];
        if (zero && j == 0) sum += d[0];
        if (j == m - 1) sum += d[(n - 1) * ds];
        o[j * os] = sum;
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
    long row, pixel, y0, y1, x0, x1, pt, pl, stride, channels;
} FN(tile_source);

/* Elements [i0, i1) x [j0, j1) of a tile lie inside the image. */
typedef struct {
    long i0, i1, j0, j1;
} FN(tile_part);

/* Transforms one tile of VL channels; what lies outside `part` (NULL: the whole tile) is padding. What is to be written `ahead` of it, if anything, is
   fetched, for the CPU does not foresee stores: where tiles follow each other, each point of the next one is a line in another page. */
INLINE void FN(input_tile)(const int nh, const int nw, const FN(tile_order) *order, const T *from, long row, long pixel, const FN(tile_part) *part, long ahead, T *to) {
    VEC d[FN(TILE)], e[FN(TILE2)];
    UNROLL for (int j = 0; j < nw; j++) {
        UNROLL for (int i = 0; i < nh; i++) {
            const int inside = !part || (i >= part->i0 && i < part->i1 && j >= part->j0 && j < part->j1);
            d[i] = inside ? LOAD(from + i * row + j * pixel) : (VEC){0};
        }
        FN(input_1d)(nh, order->points, d, 1, e + j, nw);
    }
    UNROLL for (int i = 0; i < nh; i++) {
        FN(input_1d)(nw, order->points, e + i * nw, 1, d, 1);
        UNROLL for (int j = 0; j < nw; j++) STORE(to + (i * nw + j) * order->matrix, d[j]);
        if (ahead) UNROLL for (int j = 0; j < nw; j++) __builtin_prefetch(to + (i * nw + j) * order->matrix + ahead, 1);
    }
}

/* A copy of `lanes` channels of the part, of a tile of nw elements a row, that reads nothing beyond them. */
static void FN(copy_tile)(const FN(tile_part) *part, const T *from, long row, long pixel, long lanes, long nw, T *to) {
    for (long i = part->i0; i < part->i1; i++)
        for (long j = part->j0; j < part->j1; j++) STORE(to + (i * nw + j) * VL, FN(load_part)(from + i * row + j * pixel, lanes));
}

/* V of some tiles, tile by tile: the channels of a pixel lie side by side. */
INLINE void FN(input_tiles)(const int nh, const int nw, const FN(tile_order) *order, const FN(tile_rect) *b, const FN(tile_source) *s, T *v) {
    T copy[FN(TILE2) * VL] __attribute__((aligned(64)));
    const long ahead = s->channels <= VL ? order->row : 0; /* more vectors of a tile lie side by side */
    for (long ty = b->ty0; ty < b->ty1; ty++)
        for (long tx = b->tx0; tx < b->tx1; tx++, v += order->row) {
            const long iy = ty * b->mh * s->stride - s->pt, ix = tx * b->mw * s->stride - s->pl;
            const FN(tile_part) part = {MAX(0, s->y0 - iy), MIN(nh, s->y1 - iy), MAX(0, s->x0 - ix), MIN(nw, s->x1 - ix)};
            const int whole = part.i0 == 0 && part.i1 == nh && part.j0 == 0 && part.j1 == nw, none = part.i0 >= part.i1 || part.j0 >= part.j1;
            const T *from = s->image + (iy - s->y0) * s->row + (ix - s->x0) * s->pixel, *last = from + (part.i1 - 1) * s->row + (part.j1 - 1) * s->pixel;
            for (long c = 0; c < s->channels; c += VL) {
                const int near_end = !none && s->end - (last + c) < VL;
                if (near_end) FN(copy_tile)(&part, from + c, s->row, s->pixel, MIN(VL, s->channels - c), nw, copy);
                if (whole && !near_end) FN(input_tile)(nh, nw, order, from + c, s->row, s->pixel, NULL, ahead, v + c);
                else FN(input_tile)(nh, nw, order, near_end ? copy : from + c, near_end ? nw * VL : s->row, near_end ? VL : s->pixel, &part, ahead, v + c);
            }
        }
}

/* Channel-last pixels: pixel (y0, x0) at y; those at or past (oh, ow) are dropped; residual, or NULL, lies like y. */
typedef struct {
    T *y;
    const T *residual, *bias;
    long row, pixel, y0, x0, oh, ow, lanes;
    conv_activation act;
    int stream; /* past the caches */
} FN(tile_target);

/* `count` pixels of a row of a tile, with whatever the epilogue asks for. */
static __attribute__((noinline)) void FN(finish_tile_row)(const FN(tile_target) *t, const VEC *o, long count, long at) {
    for (long j = 0; j < count; j++, at += t->pixel) {
        VEC r = o[j];
        if (t->residual) r += t->lanes == VL ? LOAD(t->residual + at) : FN(load_part)(t->residual + at, t->lanes);
        r = FN(activated)(t->act, r);
        if (t->stream) STREAM(t->y + at, r);
        else if (t->lanes == VL) STORE(t->y + at, r);
        else FN(store_part)(t->y + at, r, t->lanes);
    }
}

/* The inverse transform of VL output channels, of which `lanes` exist, of some tiles. */
INLINE void FN(output_tiles)(const int nh, const int nw, const int mh, const int mw, const FN(tile_order) *order, const FN(tile_rect) *b, const T *m,
                             const FN(tile_target) *t) {
    const VEC start = t->lanes == VL ? LOAD(t->bias) : FN(load_part)(t->bias, t->lanes);
    const int plain = t->lanes == VL && !t->residual && t->act.kind == ACT_NONE;
    for (long ty = b->ty0; ty < b->ty1; ty++)
        for (long tx = b->tx0; tx < b->tx1; tx++, m += order->row) {
            VEC d[FN(TILE)], e[FN(TILE2)], o[FN(TILE)];
            UNROLL for (int j = 0; j < nw; j++) {
                UNROLL for (int i = 0; i < nh; i++) d[i] = LOAD(m + (i * nw + j) * order->matrix);
                FN(output_1d)(nh, mh, order->points, d, 1, e + j, nw);
            }
            const long h = MIN(mh, t->oh - ty * mh), w = MIN(mw, t->ow - tx * mw);
            long at = (ty * mh - t->y0) * t->row + (tx * mw - t->x0) * t->pixel;
            UNROLL for (int i = 0; i < mh; i++, at += t->row) {
                if (i == h) break;
                FN(output_1d)(nw, mw, order->points, e + i * nw, 1, o, 1);
                UNROLL for (int j = 0; j < mw; j++) o[j] += start;
                if (plain && w == mw) {
                    if (t->stream) UNROLL for (int j = 0; j < mw; j++) STREAM(t->y + at + j * t->pixel, o[j]);
                    else UNROLL for (int j = 0; j < mw; j++) STORE(t->y + at + j * t->pixel, o[j]);
                } else {
                    VEC row[FN(TILE)];
                    UNROLL for (int j = 0; j < mw; j++) row[j] = o[j];
                    FN(finish_tile_row)(t, row, w, at);
                }
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
