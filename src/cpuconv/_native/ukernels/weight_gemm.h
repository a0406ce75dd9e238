/* The gradient of a weight as matrix products whose sum runs over pixels: dW[tap][ic][oc] = sum over p of x[p + tap][ic] dy[p][oc].
   Pixels are summed in blocks. A block of x becomes channel-last strips of a few channels, halo and all, in which a tap is an offset; a
   block of dy becomes panels; so all taps and channels of a task read them from cache. Segments of the sum are rows of pixels, without
   those whose tap falls on padding. Where channels are few, a row of A is a (kx, channel), and columns of padding are stored as zeros.
   A task has some input channels, some output channels and a range of blocks; its accumulators stay in cache. */
#define STRIP ((long)(64 / sizeof(T))) /* channels of a strip: a cache line a pixel */

/* Pixels are divided into blocks of some whole images, or of a part of one. Images of 3-D problems are slices of y. */
typedef struct {
    long all, images, down, across, count; /* images; images of a block; parts of an image; blocks */
} FN(sum_blocks);

INLINE FN(sum_blocks) FN(divide_sum)(const conv_geometry *g, long all, long size) {
    const long images = MAX(1, size / (g->oh * g->ow)), across = ceil_div(g->ow, size);
    const long down = images > 1 ? 1 : ceil_div(g->oh, MAX(1, size / ceil_div(g->ow, across)));
    return (FN(sum_blocks)){all, images, down, across, ceil_div(all, images) * down * across};
}

typedef struct {
    const conv_geometry *g;
    const conv_gradient *in;
    T *partial; /* [chunks - 1] gradients, to be added to the first, which is in its place */
    FN(sum_blocks) blocks;
    long mblocks, nblocks, chunks; /* parts of the input channels, of the output channels, of the blocks of pixels */
} FN(weight_job);

/* A block: images [n0, n1), output pixels [oy0, oy1) x [ox0, ox1) of each. */
typedef struct {
    long n0, n1, oy0, oy1, ox0, ox1;
} FN(sum_block);

INLINE FN(sum_block) FN(sum_block_at)(const conv_geometry *g, const FN(sum_blocks) *d, long index) {
    const long x = index % d->across, y = index / d->across % d->down, n = index / (d->across * d->down) * d->images;
    return (FN(sum_block)){n, MIN(d->all, n + d->images), part(g->oh, d->down, y), part(g->oh, d->down, y + 1), part(g->ow, d->across, x), part(g->ow, d->across, x + 1)};
}

/* Of the outputs [o0, o1) of an axis those whose tap at `offset` from their first reads the image. */
INLINE void FN(outputs_inside)(long o0, long o1, long stride, long offset, long size, long *first, long *last) {
    *first = MIN(o1, offset >= 0 ? o0 : MAX(o0, ceil_div(-offset, stride)));
    *last = offset >= size ? *first : MAX(*first, MIN(o1, (size - 1 - offset) / stride + 1));
}

/* The slice of x that tap kz of output slice n (of all images) reads, or -1. */
INLINE long FN(slice_of)(const conv_axis *depth, long n, long kz) {
    const long slice = n % depth->out * depth->stride - depth->pad + kz * depth->dilation;
    return slice < depth->in ? slice : -1;
}

/* What a task knows of its strips: rows, columns and elements a pixel of an image's strip; elements of a whole one. */
typedef struct {
    long rows, columns, pitch, size;
    int merged; /* rows of A are (kx, channel) */
} FN(strip_shape);

INLINE FN(strip_shape) FN(strip_of)(const conv_geometry *g, long images, long height, long width) {
    const long icg = g->ic / g->groups;
    FN(strip_shape) s = {(height - 1) * g->sh + (g->kh - 1) * g->dh + 1, (width - 1) * g->sw + (g->kw - 1) * g->dw + 1, MIN(icg, STRIP), 0, icg < STRIP};
    s.size = (size_t)aligned_size((size_t)(images * s.rows * s.columns * s.pitch + VL) * sizeof(T)) / sizeof(T);
    return s;
}

/* Channels [c, c + channels) of a block's input to a strip. Rows that no tap reads, and those of padding, are left out. */
static void FN(fill_strip)(const conv_geometry *g, const conv_gradient *in, const FN(sum_block) *b, const FN(strip_shape) *s, long kz, long c, long channels, T *to) {
    const long iy0 = b->oy0 * g->sh - g->pt, ix0 = b->ox0 * g->sw - g->pl;
    const long left = MIN(s->columns, MAX(0, -ix0)), right = MAX(left, MIN(s->columns, g->iw - ix0));
    for (long n = b->n0; n < b->n1; n++) {
        const long slice = FN(slice_of)(&in->depth, n, kz);
        if (slice < 0) {
            to += s->rows * s->columns * s->pitch;
            continue;
        }
        const T *x = (const T *)in->x + n / in->depth.out * in->xs.image + slice * in->x_slice + c * in->xs.channel + (ix0 + left) * in->xs.pixel;
        if (g->kh == 1 && g->sh == 1 && left == 0 && right == s->columns && iy0 >= 0 && iy0 + s->rows <= g->ih) {
            FN(band_to_pixels)(x + iy0 * in->xs.row, &in->xs, channels, s->rows, s->columns, in->x_end, to, s->pitch);
            to += s->rows * s->columns * s->pitch;
            continue;
        }
        for (long r = 0; r < s->rows; r++, to += s->columns * s->pitch) {
            int used = 0;
            for (long ky = 0; ky < g->kh && !used; ky++) used = r >= ky * g->dh && (r - ky * g->dh) % g->sh == 0;
            if (!used || iy0 + r < 0 || iy0 + r >= g->ih) continue;
            if (s->merged) FN(zero)(to, left * s->pitch);
            FN(band_to_pixels)(x + (iy0 + r) * in->xs.row, &in->xs, channels, 1, right - left, in->x_end, to + left * s->pitch, s->pitch);
            if (s->merged) FN(zero)(to + right * s->pitch, (s->columns - right) * s->pitch);
        }
    }
}

/* Columns of panel `p` of a block's dy, of a group whose first channel is o. */
static void FN(fill_panel)(const conv_gradient *in, const FN(sum_block) *b, const FN(panel) *p, long o, T *to) {
    const long height = b->oy1 - b->oy0, width = b->ox1 - b->ox0;
    for (long n = b->n0; n < b->n1; n++, to += height * width * p->nr)
        FN(band_to_pixels)((const T *)in->dy + n / in->depth.out * in->ys.image + n % in->depth.out * in->y_slice + b->oy0 * in->ys.row + b->ox0 * in->ys.pixel + (o + p->column) * in->ys.channel,
                           &in->ys, p->valid, height, width, in->dy_end, to, p->nr);
}

/* The rows of pixels of a block whose tap (kz, ky, kx) reads the image, as segments; returns their number. */
static long FN(tap_segments)(const conv_geometry *g, const conv_axis *depth, const FN(sum_block) *b, const FN(strip_shape) *s, long kz, long ky, long kx, segment *list) {
    const long step = g->sw * s->pitch, width = b->ox1 - b->ox0;
    long y0, y1, x0 = b->ox0, x1 = b->ox1, count = 0;
    FN(outputs_inside)(b->oy0, b->oy1, g->sh, ky * g->dh - g->pt, g->ih, &y0, &y1);
    if (!s->merged) FN(outputs_inside)(b->ox0, b->ox1, g->sw, kx * g->dw - g->pl, g->iw, &x0, &x1);
    if (x0 == x1) return 0;
    for (long n = 0; n < b->n1 - b->n0; n++)
        for (long y = y0 - b->oy0; y < y1 - b->oy0 && FN(slice_of)(depth, b->n0 + n, kz) >= 0; y++) {
            const long a = ((n * s->rows + y * g->sh + ky * g->dh) * s->columns + (x0 - b->ox0) * g->sw + kx * g->dw) * s->pitch;
            const long at = (n * (b->oy1 - b->oy0) + y) * width + x0 - b->ox0;
            segment *last = list + count - 1;
            if (count && last->a + last->length * step == a && last->b + last->length == at) last->length += x1 - x0;
            else list[count++] = (segment){a, at, x1 - x0};
        }
    return count;
}

/* Accumulators [rows][columns] of input channels [c0, c1) and panels [first, last) to their places in dW. */
static void FN(deliver)(const conv_geometry *g, long taps, const T *acc, long columns, long group, long c0, long c1, long first, long last, T *dw) {
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, start = FN(panel_at)(ocg, first).column;
    const conv_activation none = {ACT_NONE, 0, 0};
    for (long i = first; i < last; i++) {
        const FN(panel) p = FN(panel_at)(ocg, i);
        const T *from = acc + p.column - start;
        const long o = group * ocg + p.column;
        if (g->nhwc)
            for (long t = 0; t < taps; t++)
                for (long c = c0; c < c1; c++) FN(copy)(dw + (t * icg + c) * g->oc + o, from + (t * (c1 - c0) + c - c0) * columns, p.valid);
        else
            for (long j = 0; j < p.valid; j += VL)
                FN(pixels_to_planes)(from + j, columns, icg * taps, 1, MIN(VL, p.valid - j), (c1 - c0) * taps, NULL, none, dw + (o + j) * icg * taps + c0 * taps);
    }
}

static int FN(weight_task)(void *context, long index) {
    const FN(weight_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_gradient *in = job->in;
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, taps = in->depth.taps * g->kh * g->kw;
    const long chunk = index % job->chunks, n = index / job->chunks % job->nblocks, m = index / (job->chunks * job->nblocks) % job->mblocks;
    const long group = index / (job->chunks * job->nblocks * job->mblocks);
    const long strips = ceil_div(icg, STRIP), s0 = part(strips, job->mblocks, m), s1 = part(strips, job->mblocks, m + 1);
    const long c0 = s0 * STRIP, c1 = MIN(icg, s1 * STRIP), panels = FN(panel_count)(ocg), first = part(panels, job->nblocks, n), last = part(panels, job->nblocks, n + 1);
    const FN(panel) left = FN(panel_at)(ocg, first), right = FN(panel_at)(ocg, last - 1);
    const long columns = right.column + right.nr - left.column;
    /* rows of the accumulators, as dW has them: [tap][channel] or [channel][tap] */
    const long row_tap = g->nhwc ? c1 - c0 : 1, row_channel = g->nhwc ? 1 : taps;

    const FN(sum_block) full = FN(sum_block_at)(g, &job->blocks, 0); /* the largest */
    const long images = full.n1 - full.n0, height = full.oy1 - full.oy0, width = full.ox1 - full.ox0;
    const FN(strip_shape) most = FN(strip_of)(g, images, height, width);
    const long rows = most.merged ? g->kw * icg : STRIP, taps_a_call = most.merged ? g->kw : 1, calls = g->kh * g->kw / taps_a_call;
    const long most_segments = images * height;
    const size_t acc_bytes = (size_t)((c1 - c0) * taps * columns) * sizeof(T), strip_bytes = (size_t)((s1 - s0) * most.size) * sizeof(T);
    const size_t panel_bytes = (size_t)(images * height * width * columns + VL) * sizeof(T), list_bytes = (size_t)(calls * most_segments) * sizeof(segment);
    const size_t offset_bytes = (size_t)rows * sizeof(long), count_bytes = (size_t)calls * sizeof(long);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(acc_bytes) + aligned_size(strip_bytes) + aligned_size(panel_bytes) + aligned_size(list_bytes) +
                                            2 * aligned_size(offset_bytes) + aligned_size(count_bytes))};
    if (!s.next) return OUT_OF_MEMORY;
    T *acc = take(&s, acc_bytes), *strip = take(&s, strip_bytes), *panel = take(&s, panel_bytes);
    segment *segments = take(&s, list_bytes);
    long *aoff = take(&s, offset_bytes), *coff = take(&s, offset_bytes), *counts = take(&s, count_bytes);
    for (long r = 0; r < rows; r++) {
        const long kx = most.merged ? r / icg : 0, c = most.merged ? r % icg : r;
        aoff[r] = kx * g->dw * most.pitch + c;
        coff[r] = (kx * row_tap + c * row_channel) * columns;
    }

    const long b0 = part(job->blocks.count, job->chunks, chunk), b1 = part(job->blocks.count, job->chunks, chunk + 1);
    if (b0 == b1) FN(zero)(acc, (c1 - c0) * taps * columns);
    for (long i = b0; i < b1; i++) {
        const FN(sum_block) b = FN(sum_block_at)(g, &job->blocks, i);
        const long pixels = (b.n1 - b.n0) * (b.oy1 - b.oy0) * (b.ox1 - b.ox0);
        const FN(strip_shape) shape = FN(strip_of)(g, b.n1 - b.n0, b.oy1 - b.oy0, b.ox1 - b.ox0);
        for (long j = first; j < last; j++) {
            const FN(panel) p = FN(panel_at)(ocg, j);
            FN(fill_panel)(in, &b, &p, group * ocg, panel + (p.column - left.column) * pixels);
        }
        for (long kz = 0; kz < in->depth.taps; kz++) {
            for (long k = s0; k < s1; k++)
                FN(fill_strip)(g, in, &b, &shape, kz, group * icg + k * STRIP, MIN(STRIP, icg - k * STRIP), strip + (k - s0) * shape.size);
            for (long call = 0; call < calls; call++)
                counts[call] = FN(tap_segments)(g, &in->depth, &b, &shape, kz, call * taps_a_call / g->kw, call * taps_a_call % g->kw, segments + call * most_segments);
            for (long j = first; j < last; j++) {
                FN(panel) p = FN(panel_at)(ocg, j);
                p.valid = p.nr;
                FN(tile) t = {.b = panel + (p.column - left.column) * pixels, .ldb = p.nr, .step = g->sw * shape.pitch};
                for (long k = s0; k < s1; k++)
                    for (long call = 0; call < calls; call++) {
                        if (!counts[call] && i > b0) continue;
                        const long row = (kz * g->kh * g->kw + call * taps_a_call) * row_tap + (k - s0) * STRIP * row_channel;
                        t.a = strip + (k - s0) * shape.size;
                        t.segments = segments + call * most_segments;
                        t.count = counts[call];
                        t.c = acc + row * columns + p.column - left.column;
                        t.z = i > b0 ? t.c : NULL;
                        FN(gemm_rows)(&t, &p, most.merged ? rows : MIN(STRIP, icg - k * STRIP), aoff, coff, coff);
                    }
            }
        }
    }
    T *dw = in->dw;
    FN(deliver)(g, taps, acc, columns, group, c0, c1, first, last, chunk ? job->partial + (chunk - 1) * taps * icg * g->oc : dw);
    return 0;
}

INLINE long FN(gradient_size)(const conv_geometry *g, const conv_axis *depth) { return depth->taps * g->kh * g->kw * (g->ic / g->groups) * g->oc; }

/* Adds the partial sums, in order, to part `index` of the gradient. */
#define PART 16384
static int FN(add_task)(void *context, long index) {
    const FN(weight_job) *job = context;
    const long size = FN(gradient_size)(job->g, &job->in->depth), first = index * PART, last = MIN(size, first + PART);
    T *to = job->in->dw;
    for (long chunk = 0; chunk < job->chunks - 1; chunk++) {
        const T *from = job->partial + chunk * size;
        for (long i = first; i < last; i++) to[i] += from[i];
    }
    return 0;
}

static int FN(weight_gemm)(const conv_geometry *g, const conv_blocking *blocking, const conv_gradient *in, int threads) {
    const long strips = ceil_div(g->ic / g->groups, STRIP), panels = FN(panel_count)(g->oc / g->groups), size = FN(gradient_size)(g, &in->depth);
    const FN(weight_job) job = {
        .g = g, .in = in, .blocks = FN(divide_sum)(g, g->n * in->depth.out, blocking->block), .chunks = blocking->chunks,
        .mblocks = ceil_div(strips * STRIP, blocking->channels), .nblocks = MIN(panels, ceil_div(panels * NV_MAX * VL, blocking->channels)),
        .partial = blocking->chunks > 1 ? pool_arena(CALL_ARENA, (size_t)((blocking->chunks - 1) * size) * sizeof(T)) : NULL,
    };
    if (blocking->chunks > 1 && !job.partial) return OUT_OF_MEMORY;
    const int status = pool_run(FN(weight_task), (void *)&job, g->groups * job.mblocks * job.nblocks * job.chunks, threads);
    return status || job.chunks == 1 ? status : pool_run(FN(add_task), (void *)&job, ceil_div(size, PART), threads);
}
#undef STRIP
#undef PART
