/* As shifted_rows.h, for one output channel (of a group), whose tiles there load a vector for each multiply-add. Here the rows of a tile are rows of
   pixels, and each row of the input is loaded once for all of them that read it. Input channels come one after the
   other, and add to what the one before has left in y: the rows of all of them would be more streams than a CPU prefetches. NCHW is read in place; a
   tile that reads padding reads a copy. The sums have the same order as there. */
enum { FN(TILE_ROWS) = 6, FN(TILE_VECTORS) = 2, FN(MIXED_ROWS) = NV_MAX == 4 ? 6 : 4, FN(MIXED_VECTORS) = 3 };

typedef struct {
    const T *weight, *bias; /* of one input channel [kw][kh], [1]; mixed: of each number three vectors, as the lanes of a tile need them */
    int first;              /* whether the sums begin with the bias, or with what y holds */
    long kh, kw;
    const long *across; /* where the taps of a row lie, from an output pixel's place */
    long x_row, y_row;
    conv_activation act; /* none or clip */
    int stream;          /* past the caches */
} FN(row_tile);

/* A row of the input into the rows [first, end) of a tile of nv vectors; w: the taps of row 0, those of row r lie r before. */
INLINE void FN(row_into)(const int mixed, const int nv, const int rows, const int first, const int end, const FN(row_tile) *t, const T *row, const T *w, long kh, VEC (*acc)[3]) {
    enum { AHEAD = 4 * LINE_BYTES };
    const long each = mixed ? nv * VL : 1;
    UNROLL for (int i = 0; i < nv * VB; i += LINE_BYTES) __builtin_prefetch((const char *)row + AHEAD + i);
    for (const long *tap = t->across, *last = tap + t->kw; tap < last; tap++, w += kh * each) {
        VEC v[3];
        UNROLL for (int j = 0; j < nv; j++) v[j] = LOAD(row + *tap + j * VL);
        UNROLL for (int r = 0; r < rows; r++)
            if (r >= first && r < end) UNROLL for (int j = 0; j < nv; j++) acc[r][j] += (mixed ? LOAD(w - r * each + j * VL) : SPLAT(w[-r])) * v[j];
    }
}

/* `count` tiles side by side; kh: a constant, or 0 for any of at least the tile's height. */
INLINE void FN(row_tiles_of)(const int mixed, const int nv, const int rows, const int kh, const FN(row_tile) *t, const T *x, T *y, long count) {
    const long x_row = t->x_row, y_row = t->y_row, each = mixed ? nv * VL : 1;
    for (; count > 0; count--, x += nv * VL, y += nv * VL) {
        VEC acc[6][3];
        if (t->first) UNROLL for (int r = 0; r < rows; r++) UNROLL for (int j = 0; j < nv; j++) acc[r][j] = mixed ? LOAD(t->bias + j * VL) : SPLAT(*t->bias);
        else UNROLL for (int r = 0; r < rows; r++) UNROLL for (int j = 0; j < nv; j++) acc[r][j] = LOAD(y + r * y_row + j * VL);
        const T *row = x, *w = t->weight;
        if (kh) {
            UNROLL for (int i = 0; i < rows + kh - 1; i++, row += x_row)
                FN(row_into)(mixed, nv, rows, MAX(0, i - kh + 1), MIN(rows, i + 1), t, row, w + i * each, kh, acc);
        } else {
            UNROLL for (int i = 0; i < rows - 1; i++, row += x_row) FN(row_into)(mixed, nv, rows, 0, i + 1, t, row, w + i * each, t->kh, acc);
            for (long i = rows - 1; i < t->kh; i++, row += x_row) FN(row_into)(mixed, nv, rows, 0, rows, t, row, w + i * each, t->kh, acc);
            UNROLL for (int i = 0; i < rows - 1; i++, row += x_row) FN(row_into)(mixed, nv, rows, i + 1, rows, t, row, w + (t->kh + i) * each, t->kh, acc);
        }
        if (t->act.kind == ACT_CLIP) {
            const VEC low = SPLAT(t->act.a), high = SPLAT(t->act.b);
            UNROLL for (int r = 0; r < rows; r++) UNROLL for (int j = 0; j < nv; j++) acc[r][j] = FN(vmin)(high, FN(vmax)(low, acc[r][j]));
        }
        if (t->stream) UNROLL for (int r = 0; r < rows; r++) UNROLL for (int j = 0; j < nv; j++) STREAM(y + r * y_row + j * VL, acc[r][j]);
        else UNROLL for (int r = 0; r < rows; r++) UNROLL for (int j = 0; j < nv; j++) STORE(y + r * y_row + j * VL, acc[r][j]);
    }
}
typedef void (*FN(row_ukernel))(const FN(row_tile) *, const T *, T *, long);
#define ROW_TILES(name, kh)                                                                                                               \
    static void FN(row_tiles_##name)(const FN(row_tile) *t, const T *x, T *y, long count) {                                               \
        FN(row_tiles_of)(0, FN(TILE_VECTORS), FN(TILE_ROWS), kh, t, x, y, count);                                                         \
    }                                                                                                                                     \
    static void FN(mixed_tiles_##name)(const FN(row_tile) *t, const T *x, T *y, long count) {                                             \
        FN(row_tiles_of)(1, FN(MIXED_VECTORS), FN(MIXED_ROWS), kh, t, x, y, count);                                                       \
    }
ROW_TILES(3, 3) ROW_TILES(5, 5) ROW_TILES(any, 0)
#undef ROW_TILES

/* What such tiles make: a job of shifted_rows.h, and their form. `mixed`: the channels of an NHWC image, mixed in the lanes of one plane of rows as wide
   as all of them; geometry and tensors are then of that plane. */
typedef struct {
    FN(shifted_job) of;
    long mixed; /* channels, or 0 */
    long rows, width;
    FN(row_ukernel) kernel;
    int stream; /* as in conv_blocking */
} FN(tiles_job);

INLINE FN(tiles_job) FN(tiles_job_of)(FN(shifted_job) of, long mixed) {
    static const FN(row_ukernel) kernels[2][3] = {{FN(row_tiles_3), FN(row_tiles_5), FN(row_tiles_any)}, {FN(mixed_tiles_3), FN(mixed_tiles_5), FN(mixed_tiles_any)}};
    const long kh = of.g->kh, which = kh == 3 ? 0 : kh == 5 ? 1 : 2;
    return (FN(tiles_job)){of, mixed, mixed ? FN(MIXED_ROWS) : FN(TILE_ROWS), (mixed ? FN(MIXED_VECTORS) : FN(TILE_VECTORS)) * VL, kernels[mixed > 0][which]};
}

/* Whether they do it. With half a tile's columns made twice they are no faster; nor with two output channels, which shifted_rows.h has side by side. */
INLINE int FN(in_row_tiles)(const conv_geometry *g, long mixed) {
    const int tall = g->kh == 3 || g->kh == 5 || g->kh >= FN(TILE_ROWS);
    return g->oc == g->groups && tall && g->sh == 1 && g->dh == 1 && g->oh >= FN(TILE_ROWS) && 2 * g->ow >= 3 * VL * (mixed ? FN(MIXED_VECTORS) : FN(TILE_VECTORS));
}

/* Makes one plane of the few channels of an NHWC image, where they lie side by side and every tile begins with the same one. */
INLINE int FN(mix_channels)(conv_geometry *g, conv_tensors *t) {
    const long c = g->ic;
    const int dense = t->xs.channel == 1 && t->xs.pixel == c && t->ys.channel == 1 && t->ys.pixel == c;
    if (!g->nhwc || c == 1 || g->groups != c || g->oc != c || g->sw > 1 || FN(MIXED_VECTORS) * VL % c || !dense) return 0;
    g->ic = g->oc = g->groups = 1;
    g->iw *= c, g->ow *= c, g->pl *= c, g->dw *= c;
    t->xs.pixel = t->ys.pixel = 1;
    return FN(in_row_tiles)(g, c);
}

/* What the tiles of an output channel read: planes of the input, or padded copies of a band, from the first pixel that its first output row reads. */
typedef struct {
    const T *x;
    long row, channel;
    int in_place;
    T *copy; /* of what a tile reads that reads padding */
} FN(tile_input);

/* Elements of a row that a tile reads. */
INLINE long FN(tile_reach)(const FN(tiles_job) *job) { return job->width + (job->of.g->kw - 1) * job->of.g->dw; }

/* What the tile of output rows from oy and columns from ox on reads of a plane, with zeros for padding. */
static void FN(tile_fill)(const FN(tiles_job) *job, const T *plane, long x_row, long oy, long ox, T *to) {
    const conv_geometry *g = job->of.g;
    const long reach = FN(tile_reach)(job), ix = ox - g->pl, first = MIN(reach, MAX(0, -ix)), last = MAX(first, MIN(reach, g->iw - ix));
    for (long iy = oy - g->pt, end = iy + job->rows + g->kh - 1; iy < end; iy++, to += reach) {
        const int inside = iy >= 0 && iy < g->ih && first < last;
        FN(zero)(to, inside ? first : reach);
        if (!inside) continue;
        FN(copy)(to + first, plane + iy * x_row + ix + first, last - first);
        FN(zero)(to + last, reach - last);
    }
}

/* Columns [first, end), whole tiles, of output rows from oy on, of a plane that is read in place. */
static void FN(tiles_in_place)(const FN(tiles_job) *job, FN(row_tile) *t, const T *plane, long x_row, long oy, long first, long end, T *copy, T *y) {
    const conv_geometry *g = job->of.g;
    const long reach = FN(tile_reach)(job), iy = oy - g->pt, inside = iy >= 0 && iy + job->rows + g->kh - 1 <= g->ih;
    for (long ox = first, count; ox < end; ox += count * job->width) {
        const long ix = ox - g->pl, whole = inside && ix >= 0 ? MIN(end - ox, g->iw - ix - reach + job->width) / job->width : 0;
        count = MAX(1, whole);
        t->x_row = whole > 0 ? x_row : reach;
        if (whole <= 0) FN(tile_fill)(job, plane, x_row, oy, ox, copy);
        job->kernel(t, whole > 0 ? plane + iy * x_row + ix : copy, y + ox, count);
    }
}

/* Rows of tiles of one output channel, from output row oy on; weight: of each input channel. */
static void FN(row_of_tiles)(const FN(tiles_job) *job, FN(row_tile) *t, const FN(tile_input) *in, const T *weight, conv_activation act, long oy, T *y) {
    const conv_geometry *g = job->of.g;
    const long icg = g->ic / g->groups, whole = g->ow / job->width * job->width;
    for (long first = 0, end = whole; first < g->ow; first = end == g->ow ? end : g->ow - job->width, end = g->ow) /* the last columns overlap */
        for (long c = 0; c < icg; c++) {
            t->first = c == 0;
            t->act = c == icg - 1 ? act : (conv_activation){0};
            t->weight = weight + c * g->kh * g->kw;
            t->x_row = in->row;
            const T *plane = in->x + c * in->channel;
            if (in->in_place) FN(tiles_in_place)(job, t, plane, in->row, oy, first, end, in->copy, y);
            else job->kernel(t, plane + first, y + first, (end - first) / job->width);
        }
}

/* Packed weight of some outputs [outputs][icg][kh][kw] to [outputs][icg][kw][kh]; mixed, to vectors of lanes, as is the bias. */
static void FN(row_tiles_weight)(const FN(tiles_job) *job, const T *w, const T *bias, long outputs, T *to, T *to_bias) {
    const conv_geometry *g = job->of.g;
    const long taps = g->kh * g->kw, lanes = job->mixed ? job->width : 1;
    for (long i = 0; i < outputs * (g->ic / g->groups); i++)
        for (long kx = 0; kx < g->kw; kx++)
            for (long ky = 0; ky < g->kh; ky++)
                for (long l = 0; l < lanes; l++) *to++ = w[(i + l % MAX(1, job->mixed)) * taps + ky * g->kw + kx];
    for (long i = 0; i < outputs; i++)
        for (long l = 0; l < lanes; l++) *to_bias++ = bias[i + l % MAX(1, job->mixed)];
}

/* First row of a band, of which all have a tile's rows at least. */
INLINE long FN(tiles_band)(const FN(tiles_job) *job, long band) {
    const long oh = job->of.g->oh;
    return band == job->of.bands ? oh : part(oh / job->rows, job->of.bands, band) * job->rows;
}

/* A band of output rows of one group, or of all. */
static int FN(row_tiles_task)(void *context, long index) {
    const FN(tiles_job) *job = context;
    const conv_geometry *g = job->of.g;
    const conv_tensors *in = job->of.tensors;
    const long band = index % job->of.bands, outputs = job->of.groups, parts = g->groups / outputs, group0 = index / job->of.bands % parts * outputs, image = index / (job->of.bands * parts);
    const long icg = g->ic / g->groups, k = icg * g->kh * g->kw, oy0 = FN(tiles_band)(job, band), rows = FN(tiles_band)(job, band + 1) - oy0;
    const int simple = FN(shifted_simple)(&job->of), written = !in->residual && in->ys.pixel == 1, read = in->xs.pixel == 1 && g->sw == 1;
    const FN(shifted_copy) copy = read ? (FN(shifted_copy)){.across = 1} : FN(shifted_copy_of)(g, rows);
    const long c_row = job->rows * g->ow, lanes = job->mixed ? job->width : 1;
    const size_t x_bytes = (size_t)(read ? FN(tile_reach)(job) * (job->rows + g->kh - 1) : outputs * icg * copy.channel) * sizeof(T);
    const size_t c_bytes = written ? 0 : (size_t)(c_row * (g->nhwc ? outputs : 1)) * sizeof(T), span_bytes = (size_t)copy.across * sizeof(FN(shifted_span));
    const size_t tap_bytes = (size_t)g->kw * sizeof(long), weight_bytes = (size_t)(outputs * k * lanes) * sizeof(T), bias_bytes = (size_t)(outputs * lanes) * sizeof(T);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(x_bytes) + aligned_size(c_bytes) + aligned_size(span_bytes) + aligned_size(tap_bytes) + aligned_size(weight_bytes) + bias_bytes)};
    if (!s.next) return OUT_OF_MEMORY;
    T *filled = take(&s, x_bytes), *c = take(&s, c_bytes);
    FN(shifted_span) *spans = take(&s, span_bytes);
    long *across = take(&s, tap_bytes);
    T *weight = take(&s, weight_bytes), *bias = take(&s, bias_bytes);

    const T *x = (const T *)in->x + image * in->xs.image + group0 * icg * in->xs.channel;
    if (!read) FN(shifted_fill)(g, &copy, spans, x, in, outputs * icg, oy0, filled);
    for (long kx = 0; kx < g->kw; kx++) across[kx] = kx * g->dw % g->sw * copy.phase + kx * g->dw / g->sw;
    FN(row_tiles_weight)(job, (const T *)in->weight + group0 * k, (const T *)in->bias + group0, outputs, weight, bias);

    const long at = image * in->ys.image + group0 * in->ys.channel + oy0 * in->ys.row;
    T *y = (T *)in->y + at;
    const T *residual = in->residual ? (const T *)in->residual + at : NULL;
    FN(row_tile) t = {.kh = g->kh, .kw = g->kw, .across = across, .y_row = written ? in->ys.row : g->ow};
    /* Rows of whole lines, as the last tile ends with them; input channels after the first add to what is there. */
    t.stream = job->stream && simple && written && icg == 1 && g->ow * (long)sizeof(T) % LINE_BYTES == 0 && FN(whole_lines)(y, job->width, 0, in->ys.row);
    for (long next = 0; next < rows; next += job->rows) {
        const long row = MIN(next, rows - job->rows); /* the last rows overlap */
        for (long o = 0; o < outputs; o++) {
            const long row_at = o * in->ys.channel + row * in->ys.row;
            const FN(tile_input) planes = read ? (FN(tile_input)){x + o * icg * in->xs.channel, in->xs.row, in->xs.channel, 1, filled}
                                               : (FN(tile_input)){filled + o * icg * copy.channel + row * copy.pitch, copy.pitch, copy.channel, 0, NULL};
            T *to = written ? y + row_at : g->nhwc ? c + o * c_row : c;
            t.bias = bias + o * lanes;
            FN(row_of_tiles)(job, &t, &planes, weight + o * k, simple ? job->of.act : (conv_activation){0}, oy0 + row, to);
            for (long i = 0; written && !simple && i < job->rows; i++) FN(activate)(job->of.act, to + i * in->ys.row, g->ow);
            if (!written && !g->nhwc) FN(shifted_finish)(&job->of, c, g->ow, job->rows, residual ? residual + row_at : NULL, y + row_at, y + row_at);
        }
        if (!written && g->nhwc) FN(shifted_join)(&job->of, c, c_row, g->ow, job->rows, residual ? residual + row * in->ys.row : NULL, y + row * in->ys.row, y);
    }
    return 0;
}

static int FN(row_tiles)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, long mixed, int threads) {
    FN(tiles_job) job = FN(tiles_job_of)((FN(shifted_job)){g, tensors, act, 1, g->nhwc ? g->groups : 1}, mixed);
    const long parts = g->n * (g->groups / job.of.groups), enough = threads > 1 ? ceil_div(4 * threads, MAX(1, parts)) : 1; /* for all threads to end together */
    job.stream = blocking->stream;
    job.of.bands = MIN(g->oh / job.rows, MAX(ceil_div(g->oh, blocking->block), enough));
    return pool_run(FN(row_tiles_task), &job, parts * job.of.bands, threads);
}
