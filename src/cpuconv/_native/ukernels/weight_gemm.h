/* The gradient of a weight as matrix products whose sum runs over pixels: dW[tap][ic][oc] = sum over p of x[p + tap][ic] dy[p][oc].
   Pixels are summed in blocks. The task's channels of a block of x become a channel-last strip, halo and all, in which a tap is an offset,
   and those of dy another; so all taps read them from cache. Segments of the sum are rows of pixels, without
   those whose tap falls on padding. Where channels are few, a row of A is a (kx, channel), and columns of padding are stored as zeros.
   A task has some input channels, some output channels and a range of blocks; its accumulators stay in cache. */
#define LINE ((long)(64 / sizeof(T))) /* channels that rows of A take together: a cache line a pixel */

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
    const long lines = ceil_div(g->ow, LINE); /* planes are read by whole lines */
    return (FN(sum_block)){n, MIN(d->all, n + d->images), part(g->oh, d->down, y), part(g->oh, d->down, y + 1),
                           part(lines, d->across, x) * LINE, MIN(g->ow, part(lines, d->across, x + 1) * LINE)};
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

/* Elements between pixels of a strip of so many channels: whole lines, an odd number of them lest pixels meet in one set of the cache. */
INLINE long FN(strip_pitch)(long channels) { return (ceil_div(channels, LINE) | 1) * LINE; }

/* What a task knows of its strip of x: rows and columns of an image, elements a pixel. */
typedef struct {
    long rows, columns, pitch;
    int merged; /* rows of A are (kx, channel) */
} FN(strip_shape);

INLINE FN(strip_shape) FN(strip_of)(const conv_geometry *g, long channels, long height, long width) {
    const int merged = g->ic / g->groups < LINE;
    return (FN(strip_shape)){(height - 1) * g->sh + (g->kh - 1) * g->dh + 1, (width - 1) * g->sw + (g->kw - 1) * g->dw + 1,
                             merged ? channels : FN(strip_pitch)(channels), merged};
}

INLINE const T *FN(image_of_x)(const conv_gradient *in, long n, long slice, long c) {
    return (const T *)in->x + n / in->depth.out * in->xs.image + slice * in->x_slice + c * in->xs.channel;
}
INLINE const T *FN(image_of_dy)(const conv_gradient *in, long n, long o) {
    return (const T *)in->dy + n / in->depth.out * in->ys.image + n % in->depth.out * in->y_slice + o * in->ys.channel;
}

/* Channels [c, c + channels) of a block's input to a strip, but for rows of padding. */
static void FN(fill_x)(const conv_geometry *g, const conv_gradient *in, const FN(sum_block) *b, const FN(strip_shape) *s, long kz, long c, long channels, T *to) {
    const long iy0 = b->oy0 * g->sh - g->pt, ix0 = b->ox0 * g->sw - g->pl;
    const long left = MIN(s->columns, MAX(0, -ix0)), right = MAX(left, MIN(s->columns, g->iw - ix0));
    const long above = MIN(s->rows, MAX(0, -iy0)), below = MAX(above, MIN(s->rows, g->ih - iy0)), row = s->columns * s->pitch;
    for (long n = b->n0; n < b->n1; n++, to += s->rows * row) {
        const long slice = FN(slice_of)(&in->depth, n, kz);
        if (slice < 0) continue;
        const T *x = FN(image_of_x)(in, n, slice, c) + (iy0 + above) * in->xs.row + (ix0 + left) * in->xs.pixel;
        if (right - left == s->columns) FN(band_to_pixels)(x, &in->xs, channels, below - above, s->columns, in->x_end, to + above * row, s->pitch);
        else
            for (long r = above; r < below; r++, x += in->xs.row) {
                if (s->merged) FN(zero)(to + r * row, left * s->pitch);
                FN(band_to_pixels)(x, &in->xs, channels, 1, right - left, in->x_end, to + r * row + left * s->pitch, s->pitch);
                if (s->merged) FN(zero)(to + r * row + right * s->pitch, (s->columns - right) * s->pitch);
            }
    }
}

/* Channels [o, o + channels) of a block's dy to a strip. */
static void FN(fill_dy)(const conv_gradient *in, const FN(sum_block) *b, long o, long channels, T *to, long pitch) {
    const long height = b->oy1 - b->oy0, width = b->ox1 - b->ox0;
    for (long n = b->n0; n < b->n1; n++, to += height * width * pitch)
        FN(band_to_pixels)(FN(image_of_dy)(in, n, o) + b->oy0 * in->ys.row + b->ox0 * in->ys.pixel, &in->ys, channels, height, width, in->dy_end, to, pitch);
}

/* Asks for part `index` of `parts` of a rectangle of an image, so that it is in the cache when its block comes. */
INLINE void FN(fetch)(const T *from, const conv_strides *s, long channels, long rows, long columns, long index, long parts) {
    const int last = s->channel == 1;
    const int whole = !last && s->row == columns;
    const long outer = last ? rows : channels, inner = last ? columns : whole ? 1 : rows, length = last ? channels : whole ? rows * columns : columns * s->pixel;
    const long outer_step = last ? s->row : s->channel, inner_step = last ? s->pixel : s->row;
    long i = part(outer * inner, parts, index), a = i / inner, b = i % inner;
    for (const long end = part(outer * inner, parts, index + 1); i < end; i++) {
        for (long l = 0; l < length; l += LINE) __builtin_prefetch(from + a * outer_step + b * inner_step + l, 0, 2);
        if (++b == inner) b = 0, a++;
    }
}

/* The same of all that a task reads for block `b`. Inline, for gcc drops calls of functions that only prefetch. */
INLINE void FN(fetch_block)(const conv_geometry *g, const conv_gradient *in, const FN(sum_block) *b, long c, long channels, long o, long outputs, long index, long parts) {
    const long y0 = MAX(0, b->oy0 * g->sh - g->pt), y1 = MIN(g->ih, (b->oy1 - 1) * g->sh - g->pt + (g->kh - 1) * g->dh + 1);
    const long x0 = MAX(0, b->ox0 * g->sw - g->pl), x1 = MIN(g->iw, (b->ox1 - 1) * g->sw - g->pl + (g->kw - 1) * g->dw + 1);
    for (long n = b->n0; n < b->n1; n++) {
        const long slice = FN(slice_of)(&in->depth, n, 0);
        FN(fetch)(FN(image_of_dy)(in, n, o) + b->oy0 * in->ys.row + b->ox0 * in->ys.pixel, &in->ys, outputs, b->oy1 - b->oy0, b->ox1 - b->ox0, index, parts);
        if (slice >= 0 && y1 > y0 && x1 > x0) FN(fetch)(FN(image_of_x)(in, n, slice, c) + y0 * in->xs.row + x0 * in->xs.pixel, &in->xs, channels, y1 - y0, x1 - x0, index, parts);
    }
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
    const conv_columns outputs = outputs_of(g);
    const long icg = g->ic / g->groups, ocg = outputs.count, start = FN(panel_at)(outputs, first).column;
    const conv_activation none = {ACT_NONE, 0, 0};
    for (long i = first; i < last; i++) {
        const FN(panel) p = FN(panel_at)(outputs, i);
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
    const conv_columns group_outputs = outputs_of(g);
    const long chunk = index % job->chunks, n = index / job->chunks % job->nblocks, m = index / (job->chunks * job->nblocks) % job->mblocks;
    const long group = index / (job->chunks * job->nblocks * job->mblocks);
    const long strips = ceil_div(icg, LINE), s0 = part(strips, job->mblocks, m), s1 = part(strips, job->mblocks, m + 1);
    const long c0 = s0 * LINE, c1 = MIN(icg, s1 * LINE), panels = FN(panel_count)(group_outputs), first = part(panels, job->nblocks, n), last = part(panels, job->nblocks, n + 1);
    const FN(panel) left = FN(panel_at)(group_outputs, first), right = FN(panel_at)(group_outputs, last - 1);
    const long columns = right.column + right.nr - left.column, outputs = right.column + right.valid - left.column, pitch = FN(strip_pitch)(columns);
    /* rows of the accumulators, as dW has them: [tap][channel] or [channel][tap] */
    const long row_tap = g->nhwc ? c1 - c0 : 1, row_channel = g->nhwc ? 1 : taps;

    /* of the largest block */
    const long images = MIN(job->blocks.all, job->blocks.images), height = ceil_div(g->oh, job->blocks.down), width = MIN(g->ow, ceil_div(ceil_div(g->ow, LINE), job->blocks.across) * LINE);
    const FN(strip_shape) most = FN(strip_of)(g, c1 - c0, height, width);
    const long rows = most.merged ? g->kw * icg : LINE, taps_a_call = most.merged ? g->kw : 1, calls = g->kh * g->kw / taps_a_call;
    const long most_segments = images * height;
    const size_t acc_bytes = (size_t)((c1 - c0) * taps * columns) * sizeof(T), x_bytes = (size_t)(images * most.rows * most.columns * most.pitch + VL) * sizeof(T);
    const size_t dy_bytes = (size_t)(images * height * width * pitch + VL) * sizeof(T), list_bytes = (size_t)(calls * most_segments) * sizeof(segment);
    const size_t offset_bytes = (size_t)rows * sizeof(long), count_bytes = (size_t)calls * sizeof(long);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(acc_bytes) + aligned_size(x_bytes) + aligned_size(dy_bytes) + aligned_size(list_bytes) +
                                            2 * aligned_size(offset_bytes) + aligned_size(count_bytes))};
    if (!s.next) return OUT_OF_MEMORY;
    T *acc = take(&s, acc_bytes), *x = take(&s, x_bytes), *dy = take(&s, dy_bytes);
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
        const FN(sum_block) next = FN(sum_block_at)(g, &job->blocks, MIN(i + 1, b1 - 1));
        const FN(strip_shape) shape = FN(strip_of)(g, c1 - c0, b.oy1 - b.oy0, b.ox1 - b.ox0);
        FN(fill_dy)(in, &b, group * ocg + left.column, outputs, dy, pitch);
        for (long kz = 0; kz < in->depth.taps; kz++) {
            FN(fill_x)(g, in, &b, &shape, kz, group * icg + c0, c1 - c0, x);
            for (long call = 0; call < calls; call++)
                counts[call] = FN(tap_segments)(g, &in->depth, &b, &shape, kz, call * taps_a_call / g->kw, call * taps_a_call % g->kw, segments + call * most_segments);
            for (long j = first; j < last; j++) {
                FN(panel) p = FN(panel_at)(group_outputs, j);
                p.valid = p.nr;
                FN(tile) t = {.b = dy + p.column - left.column, .ldb = pitch, .step = g->sw * shape.pitch};
                for (long k = s0; k < s1; k++)
                    for (long call = 0; call < calls; call++) {
                        if (!counts[call] && i > b0) continue;
                        const long row = (kz * g->kh * g->kw + call * taps_a_call) * row_tap + (k - s0) * LINE * row_channel;
                        t.a = x + (k - s0) * LINE;
                        t.segments = segments + call * most_segments;
                        t.count = counts[call];
                        t.c = acc + row * columns + p.column - left.column;
                        t.z = i > b0 ? t.c : NULL;
                        if (i + 1 < b1 && kz == in->depth.taps - 1)
                            FN(fetch_block)(g, in, &next, group * icg + c0, c1 - c0, group * ocg + left.column, outputs, ((j - first) * (s1 - s0) + k - s0) * calls + call,
                                            (last - first) * (s1 - s0) * calls);
                        FN(gemm_rows)(&t, &p, most.merged ? rows : MIN(LINE, icg - k * LINE), aoff, coff, coff);
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

/* Pixels that no tap reads are left out of x. */
static void FN(simplify)(conv_geometry *g, conv_gradient *in) {
    if (g->kh == 1 && !g->pt) {
        in->xs.row *= g->sh;
        g->sh = 1;
        g->ih = g->oh;
    }
    if (g->kw == 1 && !g->pl && in->xs.channel == 1) {
        in->xs.pixel *= g->sw;
        g->sw = 1;
        g->iw = g->ow;
    }
}

static int FN(weight_gemm)(const conv_geometry *geometry, const conv_blocking *blocking, const conv_gradient *gradient, int threads) {
    conv_geometry shape = *geometry, *g = &shape;
    conv_gradient tensors = *gradient, *in = &tensors;
    FN(simplify)(g, in);
    const long strips = ceil_div(g->ic / g->groups, LINE), panels = FN(panel_count)(outputs_of(g)), size = FN(gradient_size)(g, &in->depth);
    const FN(weight_job) job = {
        .g = g, .in = in, .blocks = FN(divide_sum)(g, g->n * in->depth.out, blocking->block), .chunks = blocking->chunks,
        .mblocks = ceil_div(strips * LINE, blocking->channels), .nblocks = MIN(panels, ceil_div(FN(padded)(outputs_of(g)), blocking->channels)),
        .partial = blocking->chunks > 1 ? pool_arena(CALL_ARENA, (size_t)((blocking->chunks - 1) * size) * sizeof(T)) : NULL,
    };
    if (blocking->chunks > 1 && !job.partial) return OUT_OF_MEMORY;
    const int status = pool_run(FN(weight_task), (void *)&job, g->groups * job.mblocks * job.nblocks * job.chunks, threads);
    return status || job.chunks == 1 ? status : pool_run(FN(add_task), (void *)&job, ceil_div(size, PART), threads);
}
#undef LINE
#undef PART
