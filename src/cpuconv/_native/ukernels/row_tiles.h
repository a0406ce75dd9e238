/* As shifted_rows.h, for one or two output channels (of a group), whose tiles there load a vector for each multiply-add or two. Here the rows of a tile
   are rows of pixels of one output channel, and each row of the input is loaded once for all of them that read it. Input channels come one after the
   other, and add to what the one before has left in y: the rows of all of them would be more streams than a CPU prefetches. NCHW is read in place; a
   tile that reads padding reads a copy. The sums have the same order as there. */
enum { FN(TILE_ROWS) = 6, FN(TILE_VECTORS) = 2, FN(TILE_WIDTH) = FN(TILE_VECTORS) * VB / (int)sizeof(T) };

typedef struct {
    const T *weight; /* [kw][kh], of one channel */
    T bias;
    int first; /* whether the sums begin with the bias, or with what y holds */
    long kh, kw;
    const long *across; /* where the taps of a row lie, from an output pixel's place */
    long x_row, y_row;
    conv_activation act; /* none or clip */
} FN(row_tile);

/* A row of the input into the rows [first, end) of the tile; w: the taps of row 0, those of row r lie r before. */
INLINE void FN(row_into)(const int first, const int end, const FN(row_tile) *t, const T *row, const T *w, long kh, VEC (*acc)[FN(TILE_VECTORS)]) {
    enum { AHEAD = 4 * LINE_BYTES };
    UNROLL for (int i = 0; i < FN(TILE_VECTORS) * VB; i += LINE_BYTES) __builtin_prefetch((const char *)row + AHEAD + i);
    for (const long *tap = t->across, *last = tap + t->kw; tap < last; tap++, w += kh) {
        VEC v[FN(TILE_VECTORS)];
        UNROLL for (int j = 0; j < FN(TILE_VECTORS); j++) v[j] = LOAD(row + *tap + j * VL);
        UNROLL for (int r = 0; r < FN(TILE_ROWS); r++)
            if (r >= first && r < end) UNROLL for (int j = 0; j < FN(TILE_VECTORS); j++) acc[r][j] += w[-r] * v[j];
    }
}

/* `count` tiles side by side; kh: a constant, or 0 for any of at least the tile's height. */
INLINE void FN(row_tiles_of)(const int kh, const FN(row_tile) *t, const T *x, T *y, long count) {
    enum { HEIGHT = FN(TILE_ROWS) };
    const long x_row = t->x_row, y_row = t->y_row;
    for (; count > 0; count--, x += FN(TILE_WIDTH), y += FN(TILE_WIDTH)) {
        VEC acc[HEIGHT][FN(TILE_VECTORS)];
        if (t->first) UNROLL for (int r = 0; r < HEIGHT; r++) UNROLL for (int j = 0; j < FN(TILE_VECTORS); j++) acc[r][j] = SPLAT(t->bias);
        else UNROLL for (int r = 0; r < HEIGHT; r++) UNROLL for (int j = 0; j < FN(TILE_VECTORS); j++) acc[r][j] = LOAD(y + r * y_row + j * VL);
        const T *row = x, *w = t->weight;
        if (kh) UNROLL for (int i = 0; i < HEIGHT + kh - 1; i++, row += x_row) FN(row_into)(MAX(0, i - kh + 1), MIN(HEIGHT, i + 1), t, row, w + i, kh, acc);
        else {
            UNROLL for (int i = 0; i < HEIGHT - 1; i++, row += x_row) FN(row_into)(0, i + 1, t, row, w + i, t->kh, acc);
            for (long i = HEIGHT - 1; i < t->kh; i++, row += x_row) FN(row_into)(0, HEIGHT, t, row, w + i, t->kh, acc);
            UNROLL for (int i = 0; i < HEIGHT - 1; i++, row += x_row) FN(row_into)(i + 1, HEIGHT, t, row, w + t->kh + i, t->kh, acc);
        }
        if (t->act.kind == ACT_CLIP) {
            const VEC low = SPLAT(t->act.a), high = SPLAT(t->act.b);
            UNROLL for (int r = 0; r < HEIGHT; r++) UNROLL for (int j = 0; j < FN(TILE_VECTORS); j++) acc[r][j] = FN(vmin)(high, FN(vmax)(low, acc[r][j]));
        }
        UNROLL for (int r = 0; r < HEIGHT; r++) UNROLL for (int j = 0; j < FN(TILE_VECTORS); j++) STORE(y + r * y_row + j * VL, acc[r][j]);
    }
}
static void FN(row_tiles_3)(const FN(row_tile) *t, const T *x, T *y, long count) { FN(row_tiles_of)(3, t, x, y, count); }
static void FN(row_tiles_5)(const FN(row_tile) *t, const T *x, T *y, long count) { FN(row_tiles_of)(5, t, x, y, count); }
static void FN(row_tiles_any)(const FN(row_tile) *t, const T *x, T *y, long count) { FN(row_tiles_of)(0, t, x, y, count); }
typedef void (*FN(row_ukernel))(const FN(row_tile) *, const T *, T *, long);

/* Whether such tiles do it. With half a tile's columns made twice they are no faster; nor with two output channels, which shifted_rows.h has side by side. */
INLINE int FN(in_row_tiles)(const conv_geometry *g) {
    const int tall = g->kh == 3 || g->kh == 5 || g->kh >= FN(TILE_ROWS);
    return g->oc == g->groups && tall && g->sh == 1 && g->dh == 1 && g->oh >= FN(TILE_ROWS) && 2 * g->ow >= 3 * FN(TILE_WIDTH);
}

/* What the tiles of an output channel read: planes of the input, or padded copies of a band, from the first pixel that its first output row reads. */
typedef struct {
    const T *x;
    long row, channel;
    int in_place;
    T *copy; /* of what a tile reads that reads padding */
} FN(tile_input);

/* Elements of a row that a tile reads. */
INLINE long FN(tile_reach)(const conv_geometry *g) { return FN(TILE_WIDTH) + (g->kw - 1) * g->dw; }

/* What the tile of output rows from oy and columns from ox on reads of a plane, with zeros for padding. */
static void FN(tile_fill)(const conv_geometry *g, const T *plane, long x_row, long oy, long ox, T *to) {
    const long reach = FN(tile_reach)(g), ix = ox - g->pl, first = MIN(reach, MAX(0, -ix)), last = MAX(first, MIN(reach, g->iw - ix));
    for (long iy = oy - g->pt, end = iy + FN(TILE_ROWS) + g->kh - 1; iy < end; iy++, to += reach) {
        const int inside = iy >= 0 && iy < g->ih && first < last;
        FN(zero)(to, inside ? first : reach);
        if (!inside) continue;
        FN(copy)(to + first, plane + iy * x_row + ix + first, last - first);
        FN(zero)(to + last, reach - last);
    }
}

/* Columns [first, end), whole tiles, of output rows from oy on, of a plane that is read in place. */
static void FN(tiles_in_place)(const conv_geometry *g, FN(row_ukernel) kernel, FN(row_tile) *t, const T *plane, long x_row, long oy, long first, long end, T *copy, T *y) {
    const long reach = FN(tile_reach)(g), iy = oy - g->pt, inside = iy >= 0 && iy + FN(TILE_ROWS) + g->kh - 1 <= g->ih;
    for (long ox = first, count; ox < end; ox += count * FN(TILE_WIDTH)) {
        const long ix = ox - g->pl, whole = inside && ix >= 0 ? MIN(end - ox, g->iw - ix - reach + FN(TILE_WIDTH)) / FN(TILE_WIDTH) : 0;
        count = MAX(1, whole);
        t->x_row = whole > 0 ? x_row : reach;
        if (whole <= 0) FN(tile_fill)(g, plane, x_row, oy, ox, copy);
        kernel(t, whole > 0 ? plane + iy * x_row + ix : copy, y + ox, count);
    }
}

/* Rows of tiles of one output channel, from output row oy on; weight: [channels][kw][kh]. */
static void FN(row_of_tiles)(const conv_geometry *g, FN(row_tile) *t, const FN(tile_input) *in, const T *weight, conv_activation act, long oy, T *y) {
    const FN(row_ukernel) kernel = g->kh == 3 ? FN(row_tiles_3) : g->kh == 5 ? FN(row_tiles_5) : FN(row_tiles_any);
    const long icg = g->ic / g->groups, whole = g->ow / FN(TILE_WIDTH) * FN(TILE_WIDTH);
    for (long first = 0, end = whole; first < g->ow; first = end == g->ow ? end : g->ow - FN(TILE_WIDTH), end = g->ow) /* the last columns overlap */
        for (long c = 0; c < icg; c++) {
            t->first = c == 0;
            t->act = c == icg - 1 ? act : (conv_activation){0};
            t->weight = weight + c * g->kh * g->kw;
            t->x_row = in->row;
            const T *plane = in->x + c * in->channel;
            if (in->in_place) FN(tiles_in_place)(g, kernel, t, plane, in->row, oy, first, end, in->copy, y);
            else kernel(t, plane + first, y + first, (end - first) / FN(TILE_WIDTH));
        }
}

/* Packed weight of a group [icg kh kw][outputs] to [outputs][icg][kw][kh]. */
INLINE void FN(row_tiles_weight)(const conv_geometry *g, const T *w, T *to) {
    const long taps = g->kh * g->kw, icg = g->ic / g->groups, outputs = g->oc / g->groups;
    for (long o = 0; o < outputs; o++)
        for (long i = 0; i < icg; i++)
            for (long kx = 0; kx < g->kw; kx++)
                for (long ky = 0; ky < g->kh; ky++) *to++ = w[(i * taps + ky * g->kw + kx) * outputs + o];
}

/* First row of a band, of which all have a tile's rows at least. */
INLINE long FN(tiles_band)(const conv_geometry *g, long bands, long band) {
    return band == bands ? g->oh : part(g->oh / FN(TILE_ROWS), bands, band) * FN(TILE_ROWS);
}

/* A band of output rows of one group, or of all. */
static int FN(row_tiles_task)(void *context, long index) {
    const FN(shifted_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *in = job->tensors;
    const long band = index % job->bands, parts = g->groups / job->groups, group0 = index / job->bands % parts * job->groups, image = index / (job->bands * parts);
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, k = icg * g->kh * g->kw, oy0 = FN(tiles_band)(g, job->bands, band), rows = FN(tiles_band)(g, job->bands, band + 1) - oy0;
    const int simple = FN(shifted_simple)(job), written = !in->residual && in->ys.pixel == 1, read = in->xs.pixel == 1 && g->sw == 1;
    const FN(shifted_copy) copy = read ? (FN(shifted_copy)){.across = 1} : FN(shifted_copy_of)(g, rows);
    const size_t x_bytes = (size_t)(read ? FN(tile_reach)(g) * (FN(TILE_ROWS) + g->kh - 1) : job->groups * icg * copy.channel) * sizeof(T);
    const size_t c_bytes = written ? 0 : (size_t)(FN(TILE_ROWS) * g->ow * (g->nhwc ? g->oc : 1)) * sizeof(T);
    const size_t span_bytes = (size_t)copy.across * sizeof(FN(shifted_span)), tap_bytes = (size_t)g->kw * sizeof(long), weight_bytes = (size_t)(job->groups * ocg * k) * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(x_bytes) + aligned_size(c_bytes) + aligned_size(span_bytes) + aligned_size(tap_bytes) + weight_bytes)};
    if (!s.next) return OUT_OF_MEMORY;
    T *filled = take(&s, x_bytes), *c = take(&s, c_bytes);
    FN(shifted_span) *spans = take(&s, span_bytes);
    long *across = take(&s, tap_bytes);
    T *weight = take(&s, weight_bytes);

    const T *x = (const T *)in->x + image * in->xs.image + group0 * icg * in->xs.channel, *bias = (const T *)in->bias + group0 * ocg;
    if (!read) FN(shifted_fill)(g, &copy, spans, x, in, job->groups * icg, oy0, filled);
    for (long kx = 0; kx < g->kw; kx++) across[kx] = kx * g->dw % g->sw * copy.phase + kx * g->dw / g->sw;
    for (long i = 0; i < job->groups; i++) FN(row_tiles_weight)(g, (const T *)in->weight + (group0 + i) * ocg * k, weight + i * ocg * k);

    const long at = image * in->ys.image + group0 * ocg * in->ys.channel + oy0 * in->ys.row, c_row = FN(TILE_ROWS) * g->ow;
    T *y = (T *)in->y + at;
    const T *residual = in->residual ? (const T *)in->residual + at : NULL;
    FN(row_tile) t = {.kh = g->kh, .kw = g->kw, .across = across, .y_row = written ? in->ys.row : g->ow};
    for (long next = 0; next < rows; next += FN(TILE_ROWS)) {
        const long row = MIN(next, rows - FN(TILE_ROWS)); /* the last rows overlap */
        for (long o = 0; o < job->groups * ocg; o++) {
            const long group = o / ocg * icg, row_at = o * in->ys.channel + row * in->ys.row;
            const FN(tile_input) planes = read ? (FN(tile_input)){x + group * in->xs.channel, in->xs.row, in->xs.channel, 1, filled}
                                               : (FN(tile_input)){filled + group * copy.channel + row * copy.pitch, copy.pitch, copy.channel, 0, NULL};
            T *to = written ? y + row_at : g->nhwc ? c + o * c_row : c;
            t.bias = bias[o];
            FN(row_of_tiles)(g, &t, &planes, weight + o * k, simple ? job->act : (conv_activation){0}, oy0 + row, to);
            for (long i = 0; written && !simple && i < FN(TILE_ROWS); i++) FN(activate)(job->act, to + i * in->ys.row, g->ow);
            if (!written && !g->nhwc) FN(shifted_finish)(job, c, g->ow, FN(TILE_ROWS), residual ? residual + row_at : NULL, y + row_at, y + row_at);
        }
        if (!written && g->nhwc) FN(shifted_join)(job, c, c_row, g->ow, FN(TILE_ROWS), residual ? residual + row * in->ys.row : NULL, y + row * in->ys.row, y);
    }
    return 0;
}

static int FN(row_tiles)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    FN(shifted_job) job = {g, tensors, act, 1, g->nhwc ? g->groups : 1};
    const long parts = g->n * (g->groups / job.groups), enough = threads > 1 ? ceil_div(4 * threads, MAX(1, parts)) : 1; /* for all threads to end together */
    job.bands = MIN(g->oh / FN(TILE_ROWS), MAX(ceil_div(g->oh, blocking->block), enough));
    return pool_run(FN(row_tiles_task), &job, parts * job.bands, threads);
}
