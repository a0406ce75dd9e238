/* Convolution as a GEMM whose column matrix is never stored.
   NHWC: rows of A are pixels, read in place at offsets; a tap shifts all rows alike, so it is one segment (whole rows of
   taps are one segment where they are contiguous); B is the packed weight. Taps that fall on padding are skipped, as the
   pixels of a block share theirs.
   NCHW, turned round: rows of A are output channels of the weight, B are packed panels of pixels, C is written in place. */

/* Weight to B panels [group][panel][kh kw icg][nr] (NHWC, from HWIO) or to rows [oc][kh kw icg] (NCHW, from OIHW). */
static void FN(gemm_pack)(const conv_geometry *g, const void *weight, void *packed) {
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, taps = g->kh * g->kw, k = taps * icg;
    const T *w = weight;
    T *to = packed;
    if (!g->nhwc) {
        for (long o = 0; o < g->oc; o++)
            for (long t = 0; t < taps; t++)
                for (long c = 0; c < icg; c++) *to++ = w[(o * icg + c) * taps + t];
        return;
    }
    for (long group = 0; group < g->groups; group++)
        for (long i = 0; i < FN(panel_count)(ocg); i++) {
            const FN(panel) p = FN(panel_at)(ocg, i);
            for (long row = 0; row < k; row++, to += p.nr) {
                FN(copy)(to, w + row * g->oc + group * ocg + p.column, p.valid);
                for (long j = p.valid; j < p.nr; j++) to[j] = 0;
            }
        }
}

typedef struct {
    const conv_geometry *g;
    const conv_blocking *blocking;
    const conv_tensors *tensors;
    conv_activation act;
    const pixel_block *blocks;
    long count, split; /* blocks of an image; parts of a block's output channels */
} FN(gemm_job);

/* Copies the next piece of a segment list, at most `length` long in all; advances the cursor (list, done). */
INLINE long FN(cut)(const segment **list, long *done, const segment *end, long length, segment *piece) {
    long count = 0;
    while (length > 0 && *list < end) {
        const long take = MIN(length, (*list)->length - *done);
        piece[count++] = (segment){(*list)->a + *done, (*list)->b + *done, take};
        length -= take;
        *done += take;
        if (*done == (*list)->length) {
            ++*list;
            *done = 0;
        }
    }
    return count;
}

static int FN(nhwc_task)(void *context, long index) {
    const FN(gemm_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *in = job->tensors;
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, taps = g->kh * g->kw, split = job->split;
    const pixel_block *block = job->blocks + index % job->count;
    const long which = index / job->count % split, group = index / (job->count * split) % g->groups, image = index / (job->count * split * g->groups);
    const tap_rect *r = &block->rect;
    const long rows = block->p1 - block->p0, most = taps + 1;
    const size_t offsets = aligned_size((size_t)rows * sizeof(long));
    scratch s = {pool_arena(TASK_ARENA, 2 * offsets + 2 * aligned_size((size_t)most * sizeof(segment)))};
    if (!s.next) return OUT_OF_MEMORY;
    long *aoff = take(&s, offsets), *coff = take(&s, offsets);
    segment *all = take(&s, (size_t)most * sizeof(segment)), *piece = take(&s, (size_t)most * sizeof(segment));

    const long width = r->ox1 - r->ox0;
    for (long i = 0, y = r->oy0 + block->p0 / width, x = r->ox0 + block->p0 % width; i < rows; y++, x = r->ox0) {
        long a = ((y * g->sh - g->pt) * g->iw + x * g->sw - g->pl) * g->ic, c = (y * g->ow + x) * g->oc;
        for (const long end = MIN(rows, i + r->ox1 - x); i < end; i++, a += g->sw * g->ic, c += g->oc) {
            aoff[i] = a;
            coff[i] = c;
        }
    }
    long count = 0, total = 0;
    for (long ky = r->ky0; ky < r->ky1; ky++)
        for (long kx = r->kx0; kx < r->kx1; kx++, total += icg) {
            const long a = (ky * g->dh * g->iw + kx * g->dw) * g->ic, b = (ky * g->kw + kx) * icg;
            if (count && all[count - 1].a + all[count - 1].length == a && all[count - 1].b + all[count - 1].length == b) all[count - 1].length += icg;
            else all[count++] = (segment){a, b, icg};
        }

    const long panels = FN(panel_count)(ocg), first = part(panels, split, which), last = part(panels, split, which + 1);
    const long passes = MAX(1, ceil_div(total, job->blocking->kc)), y0 = image * g->oh * g->ow * g->oc + group * ocg;
    FN(tile) t = {.a = (const T *)in->x + image * g->ih * g->iw * g->ic + group * icg, .segments = piece};
    for (long i = first; i < last; i++) {
        const FN(panel) p = FN(panel_at)(ocg, i);
        const segment *cursor = all;
        long done = 0;
        t.b = (const T *)in->weight + taps * icg * (group * FN(padded)(ocg) + p.column);
        t.ldb = p.nr;
        t.c = (T *)in->y + y0 + p.column;
        t.z = in->residual ? (const T *)in->residual + y0 + p.column : NULL;
        t.bias_n = (const T *)in->bias + group * FN(padded)(ocg) + p.column;
        t.clip = 0;
        for (long pass = 0; pass < passes; pass++) {
            t.count = FN(cut)(&cursor, &done, all + count, part(total, passes, pass + 1) - part(total, passes, pass), piece);
            if (pass == passes - 1) FN(set_clip)(&t, job->act);
            FN(gemm_rows)(&t, &p, rows, aoff, coff, coff);
            t.z = t.c;
            t.bias_n = NULL;
        }
        if (job->act.kind > ACT_CLIP)
            for (long row = 0; row < rows; row++) FN(activate)(job->act, t.c + coff[row], p.valid);
    }
    return 0;
}

/* Runs of pixels of a rectangle between the image y and a contiguous panel, for the row of one channel. */
INLINE void FN(move_pixels)(const conv_geometry *g, const tap_rect *r, long p0, long p1, T *plane, T *panel, int gather) {
    const long width = r->ox1 - r->ox0;
    for (long p = p0; p < p1;) {
        const long x = p % width, run = MIN(p1 - p, width - x);
        T *at = plane + (r->oy0 + p / width) * g->ow + r->ox0 + x;
        if (gather) FN(copy)(panel, at, run);
        else FN(copy)(at, panel, run);
        panel += run;
        p += run;
    }
}

/* One panel of pixels against rows [o0, o1) of the weight. Where the panel's pixels are contiguous in y, C is y itself. */
static void FN(nchw_panel)(const FN(gemm_job) *job, const pixel_block *block, const FN(panel) *p, FN(tile) *t, const T *z, T *y, long rows, T *tile_rows, int last) {
    enum { GROUP = 24 };
    const conv_geometry *g = job->g;
    const tap_rect *r = &block->rect;
    const long plane = g->oh * g->ow, k = g->kh * g->kw * (g->ic / g->groups), width = r->ox1 - r->ox0;
    const int contiguous = width == g->ow;
    const long p0 = block->p0 + p->column, p1 = p0 + p->valid;
    const T *a = t->a, *bias = t->bias_m;
    for (long o = 0; o < rows; o += GROUP) {
        const long height = MIN(GROUP, rows - o);
        long aoff[GROUP], coff[GROUP];
        t->a = a + o * k;
        t->bias_m = bias ? bias + o : NULL;
        if (contiguous) {
            const long start = r->oy0 * g->ow + p0;
            t->c = y + o * plane + start;
            t->z = z ? z + o * plane + start : NULL;
        } else {
            t->c = tile_rows;
            t->z = z ? tile_rows : NULL;
            if (z)
                for (long i = 0; i < height; i++) FN(move_pixels)(g, r, p0, p1, (T *)z + (o + i) * plane, tile_rows + i * p->nr, 1);
        }
        for (long i = 0; i < height; i++) {
            aoff[i] = i * k;
            coff[i] = i * (contiguous ? plane : p->nr);
        }
        FN(gemm_rows)(t, p, height, aoff, coff, coff);
        if (last && job->act.kind > ACT_CLIP)
            for (long i = 0; i < height; i++) FN(activate)(job->act, t->c + coff[i], p->valid);
        if (!contiguous)
            for (long i = 0; i < height; i++) FN(move_pixels)(g, r, p0, p1, y + (o + i) * plane, tile_rows + i * p->nr, 0);
    }
    t->a = a;
    t->bias_m = bias;
}

static int FN(nchw_task)(void *context, long index) {
    const FN(gemm_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *in = job->tensors;
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, taps = g->kh * g->kw, k = taps * icg, split = job->split;
    const pixel_block *block = job->blocks + index % job->count;
    const long which = index / job->count % split, group = index / (job->count * split) % g->groups, image = index / (job->count * split * g->groups);
    const tap_rect *r = &block->rect;
    const long pixels = block->p1 - block->p0, panels = FN(panel_count)(pixels), kc = MIN(job->blocking->kc, k), plane = g->oh * g->ow;
    const size_t b_bytes = (size_t)(kc + 1) * FN(padded)(pixels) * sizeof(T), piece_bytes = (size_t)(taps + 1) * sizeof(segment);
    const size_t tile_bytes = (size_t)24 * NV_MAX * VL * sizeof(T);
    const size_t run_bytes = 3 * (size_t)MIN(NV_MAX * VL, pixels) * sizeof(FN(run));
    scratch s = {pool_arena(TASK_ARENA, aligned_size(b_bytes) + aligned_size(piece_bytes) + aligned_size(tile_bytes) + aligned_size(run_bytes))};
    if (!s.next) return OUT_OF_MEMORY;
    T *b = take(&s, b_bytes), *tile_rows = take(&s, tile_bytes);
    segment *piece = take(&s, piece_bytes);
    FN(run) *columns = take(&s, run_bytes);

    const long o0 = group * ocg + part(ocg, split, which), rows = group * ocg + part(ocg, split, which + 1) - o0;
    const T *x = (const T *)in->x + (image * g->ic + group * icg) * g->ih * g->iw, *z = in->residual;
    T *y = (T *)in->y + (image * g->oc + o0) * plane;
    z = z ? z + (image * g->oc + o0) * plane : NULL;
    /* Pixels of a 1x1 convolution are read in place, but for a narrow last panel, whose vectors would read too far. */
    const int pointwise = taps == 1 && g->sh == 1 && g->sw == 1 && plane == g->ih * g->iw && !g->pt && !g->pl;
    FN(tile) t = {.a = (const T *)in->weight + o0 * k, .bias_m = (const T *)in->bias + o0, .segments = piece};
    const long kx_taps = r->kx1 - r->kx0, total = (r->ky1 - r->ky0) * kx_taps * icg, passes = MAX(1, ceil_div(total, kc));
    for (long pass = 0; pass < passes; pass++) {
        const long k0 = part(total, passes, pass), k1 = part(total, passes, pass + 1);
        t.count = 0;
        for (long i = k0; i < k1;) {
            const long tap = i / icg, c = i % icg, run = MIN(icg - c, k1 - i);
            const long ky = r->ky0 + tap / kx_taps, kx = r->kx0 + tap % kx_taps, a = (ky * g->kw + kx) * icg + c;
            for (long j = 0; j < panels; j++) {
                const FN(panel) p = FN(panel_at)(pixels, j);
                if (pointwise && p.valid == p.nr) continue;
                const long runs = FN(column_runs)(g, r, block->p0 + p.column, block->p0 + p.column + p.valid, ky, kx, columns);
                T *to = b + p.column * kc + (i - k0) * p.nr;
                for (long l = 0; l < run; l++, to += p.nr) {
                    FN(column_row)(columns, runs, g->sw, x + (c + l) * g->ih * g->iw, to);
                    for (long e = p.valid; e < p.nr; e++) to[e] = 0;
                }
            }
            segment *last = piece + t.count - 1;
            if (t.count && last->a + last->length == a) last->length += run;
            else piece[t.count++] = (segment){a, i - k0, run};
            i += run;
        }
        const int last = pass == passes - 1;
        if (last) FN(set_clip)(&t, job->act);
        for (long j = 0; j < panels; j++) {
            const FN(panel) p = FN(panel_at)(pixels, j);
            const int in_place = pointwise && p.valid == p.nr;
            t.b = in_place ? x + k0 * plane + block->p0 + p.column : b + p.column * kc;
            t.ldb = in_place ? plane : p.nr;
            FN(nchw_panel)(job, block, &p, &t, z, y, rows, tile_rows, last);
        }
        z = y;
        t.bias_m = NULL;
    }
    return 0;
}

/* Vector operations, in units of one row of the weight, that one way of dividing the image costs in NCHW: a multiply-add for each
   product, and the visit of the output, dearer where a panel's pixels are not contiguous there. */
static long FN(nchw_cost)(const conv_geometry *g, const pixel_block *blocks, long count) {
    long cost = 0;
    for (long i = 0; i < count; i++) {
        const tap_rect *r = &blocks[i].rect;
        const long products = (r->ky1 - r->ky0) * (r->kx1 - r->kx0) * (g->ic / g->groups), visit = r->ox1 - r->ox0 == g->ow ? 2 : 10;
        cost += FN(padded)(blocks[i].p1 - blocks[i].p0) * (products + visit);
    }
    return cost;
}

static int FN(implicit_gemm)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    pixel_block *blocks = NULL;
    long count = 0, best = 0;
    if (g->nhwc) count = pixel_blocks(g, 1, 1, blocking->block, &blocks);
    else
        for (int ways = 0; ways < 3; ways++) { /* unsplit; rows; rows and columns: skipped taps against narrow panels */
            pixel_block *now;
            const long n = pixel_blocks(g, ways > 0, ways > 1, blocking->block, &now);
            if (n < 0) count = -1;
            else if (!blocks || FN(nchw_cost)(g, now, n) < best) {
                free(blocks);
                blocks = now;
                count = n;
                best = FN(nchw_cost)(g, now, n);
            } else free(now);
            if (count < 0 || g->kh * g->kw == 1) break;
        }
    int status = OUT_OF_MEMORY;
    if (count >= 0) {
        /* Enough tasks for all threads to end together; NCHW packs its pixels once for each part. */
        const long ocg = g->oc / g->groups, most = g->nhwc ? FN(panel_count)(ocg) : ceil_div(ocg, 16);
        const long wanted = threads == 1 ? 1 : ceil_div((g->nhwc ? 6 : 3) * threads, MAX(1, count * g->groups * g->n));
        FN(gemm_job) job = {g, blocking, tensors, act, blocks, count, MIN(most, wanted)};
        status = pool_run(g->nhwc ? FN(nhwc_task) : FN(nchw_task), &job, count * job.split * g->groups * g->n, threads);
    }
    free(blocks);
    return status;
}
