/* Convolution as a GEMM whose column matrix is never stored.
   Pixel rows: rows of A are pixels of a channel-last image, read in place at offsets; a tap shifts all rows alike, so it is one
   segment (whole rows of taps are one segment where they are contiguous); B is the packed weight. Taps that fall on padding are
   skipped, as the pixels of a block share theirs; small images are computed tap by tap. NCHW images come band by band as channel-last strips.
   An unpacked weight is packed piece by piece: in NHWC a tap of some channels for all pixels of a band of rows, in strips for each block.
   Few output channels (dot_rows.h): dot products over the channels of a pixel.
   Channel rows, for NCHW where a strip would not pay (1x1, or few output channels): the product turned round. Rows of A are output
   channels of the weight, B are pixels (in place for 1x1, else packed panels), C is written in place. */

/* The last pixels of a plane that are dot products by channel rows of 1x1 (last_pixels), being too few for a panel. */
enum { FN(FEW_PIXELS) = VB == 64 ? 4 : 2 };
INLINE int FN(unpadded_1x1)(const conv_geometry *g) {
    return g->kh * g->kw == 1 && !g->pt && !g->pl && (g->oh - 1) * g->sh < g->ih && (g->ow - 1) * g->sw < g->iw;
}
INLINE long FN(few_pixels)(const conv_geometry *g) {
    const long rest = g->oh * g->ow % VL;
    return FN(unpadded_1x1)(g) && g->ic / g->groups % VL == 0 && rest <= FN(FEW_PIXELS) ? rest : 0;
}

/* Whether the weight does not stay in L2. */
INLINE int FN(far_weight)(const conv_geometry *g) { return g->oc * g->kh * g->kw * (g->ic / g->groups) * (long)sizeof(T) > FAR; }

/* Whether an image is so small that taps which padding skips leave rectangles of too few pixels to hide that a far weight comes from L3: it is computed tap by
   tap then, if a tap's sums are long enough (3x3 of 512-512 channels with 7x7 outputs takes 0.75 to 0.9 of the time, with 4x4 half of it; sums of 32 in groups up to 1.35). */
INLINE int FN(small_padded)(const conv_geometry *g) { return g->oh * g->ow <= PIXEL_BLOCK && g->ic / g->groups >= FN(LONG_SUM) && skips_taps(g); }

/* Whether an NCHW image is computed by channel rows. */
INLINE int FN(channel_rows)(const conv_geometry *g) {
    const long ocg = g->oc / g->groups, k = g->kh * g->kw * (g->ic / g->groups), pixels = g->oh * g->ow, rest = pixels - FN(few_pixels)(g);
    const int far = ocg * k * (long)sizeof(T) > FAR; /* a weight that each panel of pixels would read from beyond L2 */
    const int full = rest == 0 || (!far && 16 * FN(padded)(pixel_columns(rest)) <= 17 * rest);
    return !g->nhwc && ((g->kh * g->kw == 1 && full) || ocg <= VL / 2);
}

#include "implicit_gemm_pack.h"

typedef struct {
    const conv_geometry *g;
    const conv_blocking *blocking;
    const conv_tensors *tensors;
    conv_activation act;
    const pixel_block *blocks; /* NHWC: of one image */
    long count, split;         /* blocks, bands or panels of pixels in an image; parts of the output channels */
    int far;                   /* all pixels pass a part before the next part, which then comes from beyond L2 but once */
    long together;             /* images whose pixels do: 1 or all */
} FN(gemm_job);

/* The part of an output that a task makes: block or band, output channels [first, last) in panels or rows, of a group of an image. */
typedef struct {
    long piece, group, image, first, last;
} FN(gemm_part);

INLINE FN(gemm_part) FN(part_of)(const FN(gemm_job) *job, long index, long units) {
    const long count = job->count, split = job->split, groups = job->g->groups, together = job->far ? job->together : 1;
    const long piece = job->far ? index % count : index / split % count, inside = job->far ? index / count % together : 0;
    const long which = job->far ? index / (count * together) % split : index % split, rest = index / (count * together * split);
    return (FN(gemm_part)){piece, rest % groups, rest / groups * together + inside, part(units, split, which), part(units, split, which + 1)};
}

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

/* A channel-last image, or a strip of one: element (y, x, c) of the input at x + y x_row + x x_pixel + c - c0 for channels
   [c0, c1) of the group; that of the output, for panel p, at y + y y_row + x y_pixel + p.column y_column, y_row = ow y_pixel. */
typedef struct {
    const T *x;
    long x_row, x_pixel, c0, c1;
    T *y;
    const T *z;
    long y_row, y_pixel, y_column; /* y_pixel: 0 for the panel's own width, and rows without gaps */
#ifdef FINISH
    const int8_finish *finish;
#endif
} FN(gemm_view);

/* Bytes of scratch that pixel_rows takes, and those for pieces of an unpacked weight. */
INLINE size_t FN(pixel_rows_scratch)(const conv_geometry *g, long rows) {
    return 2 * aligned_size((size_t)rows * sizeof(long)) + 2 * aligned_size((size_t)(g->kh * g->kw + 1) * sizeof(segment));
}
INLINE size_t FN(piece_scratch)(const conv_blocking *b) { return b->unpacked ? aligned_size((size_t)(b->kc * NV_MAX * VL) * sizeof(T)) : 0; }

/* Offsets of a block's pixels from its first, which is in column x0. */
INLINE void FN(pixel_offsets)(const tap_rect *r, long x0, long pixels, long row, long pixel, long *to) {
    for (long i = 0, y = 0, x = x0; i < pixels; y++, x = r->ox0)
        for (const long end = MIN(pixels, i + r->ox1 - x); i < end; i++, x++) to[i] = y * row + (x - x0) * pixel;
}

/* Whether a row of pixels begins as far from the end of the one before as pixels are from each other, in a block of `rows` that begins in column x0. */
INLINE int FN(even_pixels)(const conv_geometry *g, const tap_rect *r, const FN(gemm_view) *view, long x0, long rows) {
    const long width = r->ox1 - r->ox0;
    return x0 + rows <= r->ox1 || (g->sh * view->x_row == width * g->sw * view->x_pixel && (view->y_pixel ? view->y_row == width * view->y_pixel : g->ow == width));
}

#if VB == 64 && defined(T_IS_FLOAT)
#include "pixel_neighbours.h"
#endif

/* A block's pixels against a panel row by row, the tiles of each in one call. */
INLINE void FN(gemm_by_rows)(const FN(tile) *tile, const FN(panel) *p, const tap_rect *r, long x0, long pixels, long x_row, long x_pixel, long y_row, long y_pixel) {
    FN(tile) t = *tile;
    for (long x = x0, some; pixels > 0; pixels -= some, x = r->ox0) {
        some = MIN(pixels, r->ox1 - x);
        long done = 0;
#if VB == 64 && defined(T_IS_FLOAT)
        done = FN(gemm_neighbours)(&t, p, some, x_pixel, y_pixel);
        FN(step_down)(&t, done, x_pixel, y_pixel);
#endif
        if (done < some) FN(gemm_even_rows)(&t, p, some - done, x_pixel, y_pixel);
        FN(step_down)(&t, 1, x_row - (x + done - r->ox0) * x_pixel, y_row - (x + done - r->ox0) * y_pixel);
    }
}

/* The taps of a rectangle as segments, those that are contiguous as one; returns their number. */
INLINE long FN(tap_segments_of)(const conv_geometry *g, const tap_rect *r, const FN(gemm_view) *view, segment *list) {
    const long icg = g->ic / g->groups, channels = view->c1 - view->c0;
    long count = 0;
    for (long ky = r->ky0; ky < r->ky1; ky++)
        for (long kx = r->kx0; kx < r->kx1; kx++) {
            const long a = ky * g->dh * view->x_row + kx * g->dw * view->x_pixel, b = (ky * g->kw + kx) * icg + view->c0;
            segment *last = list + count - 1;
            if (count && last->a + last->length == a && last->b + last->length == b) last->length += channels;
            else list[count++] = (segment){a, b, channels};
        }
    return count;
}

/* One block of pixels against panels [first, last). bias_n: of the group, or NULL. */
static void FN(pixel_rows)(const FN(gemm_job) *job, const pixel_block *block, const FN(gemm_view) *view, long group, long first, long last, const T *bias,
                           conv_activation act, scratch s) {
    const conv_geometry *g = job->g;
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, taps = g->kh * g->kw;
    const conv_columns outputs = outputs_of(g);
    const tap_rect *r = &block->rect;
    const long rows = block->p1 - block->p0, width = r->ox1 - r->ox0, y0 = r->oy0 + block->p0 / width, x0 = r->ox0 + block->p0 % width;
    const long x_row = g->sh * view->x_row, x_pixel = g->sw * view->x_pixel;
    const int even = FN(even_pixels)(g, r, view, x0, rows);
    long *aoff = take(&s, (size_t)rows * sizeof(long)), *coff = take(&s, (size_t)rows * sizeof(long));
    segment *all = take(&s, (size_t)(taps + 1) * sizeof(segment)), *piece = take(&s, (size_t)(taps + 1) * sizeof(segment));

    if (!even) FN(pixel_offsets)(r, x0, rows, x_row, x_pixel, aoff);
    const long count = FN(tap_segments_of)(g, r, view, all), total = (r->ky1 - r->ky0) * (r->kx1 - r->kx0) * (view->c1 - view->c0);
    const long passes = MAX(1, ceil_div(total, job->blocking->kc)), panels = last - first;
    const int unpacked = job->blocking->unpacked;
    T *copy = take(&s, 0);
    /* at uneven offsets each tile of a panel is a call: to make it for all panels at once pays where sums are short; at even ones all are one call, which
       is faster where L1 holds the panels anyway (by 1.02 to 1.17 times with AVX2, by up to 1.07 times with AVX-512 on a Zen 5), unless the result comes
       from a slow L3, which takes whole rows better than parts (a Xeon) */
    const int held = !job->blocking->across && panels * total * NV_MAX * VB <= IN_L1, pays = even ? !held && 2 * total * NV_MAX * VB <= FN(ACROSS) : total <= SHORT_SUM;
    const int across = !unpacked && passes == 1 && view->y_column == 1 && panels > 1 && pays;
    const int far = taps * icg * FN(padded)(outputs) * (long)sizeof(T) > (unpacked ? IN_L1 : FAR); /* rows far apart in an unpacked one the CPU fetches too late */
    const int by_rows = !even && total <= SHORT_SUM && width >= 2 * MR_MAX; /* of one vector: 1.05 times as fast; of wider panels, calls hide behind tiles */
    const int ahead = job->blocking->far && even && count == 1 && passes == 1 && x_pixel == total; /* pixels that are read side by side, once */
    const int streams = job->blocking->stream && g->nhwc && passes == 1 && act.kind <= ACT_CLIP;
    FN(tile) tiles[FN(KINDS)];
    FN(panel) each[FN(KINDS)];
    long kinds = 0;
    FN(tile) t = {.a = view->x + y0 * x_row - g->pt * view->x_row + x0 * x_pixel - g->pl * view->x_pixel, .segments = piece, .step = 1};
#ifdef FINISH
    t.finish = view->finish;
#endif
    for (long i = first, spread = 0; i < last; i++) {
        FN(panel) p = FN(panel_at)(outputs, i);
        const segment *cursor = all;
        long done = 0;
        const long y_pixel = view->y_pixel ? view->y_pixel : p.nr, y_row = view->y_pixel ? view->y_row : g->ow * p.nr;
        if (!even && spread != y_pixel) FN(pixel_offsets)(r, x0, rows, y_row, spread = y_pixel, coff);
        const long at = y0 * y_row + x0 * y_pixel + p.column * view->y_column;
        const T *weight = job->tensors->weight;
        t.b = unpacked ? copy : weight + taps * icg * (group * FN(padded)(outputs) + p.column);
        t.ldb = p.nr;
        t.c = view->y + at;
        t.z = view->z ? view->z + at : NULL;
        t.bias_n = bias ? bias + p.column : NULL;
        t.clip = 0;
        t.stream = streams && FN(whole_lines)(t.c, p.nr, y_pixel, y_row);
        for (long pass = 0; pass < passes; pass++) {
            t.count = FN(cut)(&cursor, &done, all + count, part(total, passes, pass + 1) - part(total, passes, pass), piece);
            t.span = (part(total, passes, pass + 1) - part(total, passes, pass)) * p.nr;
            t.next = far ? t.span : 0;
            if (unpacked) {
                const long o = group * ocg + p.column;
                /* next are the same rows of the next panel, or the next rows of the first one */
                const T *next = weight + (i < last - 1 ? all->b * g->oc + o + p.nr : (all->b + total) * g->oc + group * ocg + FN(panel_at)(outputs, first).column);
                const T *rows_of_panel = weight + piece->b * g->oc + o;
                const int copies = g->nhwc && t.count == 1 && FN(copies)(&p, rows);
                t.copy = copies ? copy : NULL;
                t.ldb = copies ? g->oc : p.nr;
                t.b = copies ? rows_of_panel : copy;
                if (copies) piece->b = 0;
                else FN(pack_piece)(g, weight, o, piece, t.count, &p, copy);
                t.next = far && g->nhwc ? next - copy : 0;
                t.next_row = g->oc;
            }
            if (pass == passes - 1) FN(set_clip)(&t, act);
            t.a_next = ahead && i == first ? PIXELS_AHEAD / (long)sizeof(T) / x_pixel * x_pixel : 0;
            if (across) {
                t.b_step = taps * icg * p.nr;
                FN(add_panel)(&t, &p, tiles, each, &kinds);
            } else if (even) FN(gemm_even_rows)(&t, &p, rows, x_pixel, y_pixel);
            else if (by_rows && p.nv <= 1) FN(gemm_by_rows)(&t, &p, r, x0, rows, x_row, x_pixel, y_row, y_pixel);
            else FN(gemm_rows)(&t, &p, rows, aoff, coff, coff);
            t.z = t.c;
            t.bias_n = NULL;
        }
        if (across) {
            const long column = each[0].column, end = p.column + p.nr;
            if (i < last - 1 && total * (end + NV_MAX * VL - column) * (long)sizeof(T) <= FN(ACROSS)) continue;
            t.c = tiles[0].c;
            FN(gemm_across)(tiles, each, kinds, rows, even ? NULL : aoff, coff, x_pixel, y_pixel);
            kinds = 0;
            p.valid += p.column - column;
        }
        if (act.kind > ACT_CLIP)
            for (long row = 0; row < rows; row++) FN(activate)(act, t.c + (even ? row * y_pixel : coff[row]), p.valid);
    }
}

/* One block of pixels where outputs are few, all of its group. */
static void FN(dot_pixels)(const FN(gemm_job) *job, const pixel_block *block, const FN(gemm_view) *view, long group, scratch s) {
    const conv_geometry *g = job->g;
    const long ocg = g->oc / g->groups, k = g->kh * g->kw * (g->ic / g->groups);
    const tap_rect *r = &block->rect;
    const long rows = block->p1 - block->p0, width = r->ox1 - r->ox0, y0 = r->oy0 + block->p0 / width, x0 = r->ox0 + block->p0 % width;
    long *aoff = take(&s, (size_t)rows * sizeof(long)), *coff = take(&s, (size_t)rows * sizeof(long));
    T *copy = take(&s, (size_t)(VL * k) * sizeof(T));
    segment *taps = take(&s, (size_t)(g->kh * g->kw + 1) * sizeof(segment));
    const int even = FN(even_pixels)(g, r, view, x0, rows);
    if (!even) {
        FN(pixel_offsets)(r, x0, rows, g->sh * view->x_row, g->sw * view->x_pixel, aoff);
        FN(pixel_offsets)(r, x0, rows, view->y_row, view->y_pixel, coff);
    }
    const long at = y0 * view->y_row + x0 * view->y_pixel;
    for (long o = 0; o < ocg; o++) {
        const FN(tile) t = {
            .a = view->x + (y0 * g->sh - g->pt) * view->x_row + (x0 * g->sw - g->pl) * view->x_pixel,
            .aoff = even ? NULL : aoff, .coff = even ? NULL : coff, .a_step = g->sw * view->x_pixel, .c_step = view->y_pixel,
            .b = (const T *)job->tensors->weight + (group * ocg + o) * k, .bias_n = (const T *)job->tensors->bias + group * ocg + o,
            .segments = taps, .count = FN(tap_segments_of)(g, r, view, taps),
            .c = view->y + at + o, .z = view->z ? view->z + at + o : NULL,
        };
        FN(dot_rows)(&t, rows, k, job->act, copy);
    }
}

#include "pixel_tasks.h"
#include "channel_rows.h"

/* Pixels of a block, at most `most`: as many for each thread, and smaller blocks where they and panels are few. */
INLINE long FN(block_size)(const conv_geometry *g, long most, long parts, int threads) {
    const long pixels = g->oh * g->ow, others = MAX(1, parts * g->groups * g->n), few = 24;
    if (threads == 1 || pixels < few) return most;
    const long count = MAX(ceil_div(pixels, most), MIN(pixels / few, ceil_div(2 * threads, others))), more = ceil_div(count, threads) * threads;
    return ceil_div(pixels, pixels / more >= few ? more : MAX(1, count / threads * threads));
}

/* Of a strided 1x1 without padding, the pixels that it reads, as an image of their own. */
INLINE void FN(skip_pixels)(conv_geometry *g, conv_tensors *t) {
    if (!FN(unpadded_1x1)(g)) return;
    t->xs.row *= g->sh;
    t->xs.pixel *= g->sw;
    g->ih = g->oh;
    g->iw = g->ow;
    g->sh = g->sw = 1;
}

static int FN(implicit_gemm)(const conv_geometry *geometry, const conv_blocking *blocking, const conv_tensors *t, conv_activation act, int threads) {
    conv_geometry read = *geometry, *const g = &read;
    conv_tensors skipped = *t, *const tensors = &skipped;
    if (!g->nhwc) FN(skip_pixels)(g, tensors);
    const int channels = FN(channel_rows)(g);
    const long ocg = g->oc / g->groups, parts = channels ? ceil_div(ocg, 16) : FN(panel_count)(outputs_of(g));
    FN(gemm_job) job = {g, blocking, tensors, act, NULL, 0, 1, 0, 1};
    pixel_block *blocks = NULL;
    const long weight = g->oc * g->kh * g->kw * (g->ic / g->groups) * (long)sizeof(T), image = g->ih * g->iw * g->ic * (long)sizeof(T);
    const int far = g->nhwc && FN(far_weight)(g) && image < FAR, unpacked = g->nhwc && blocking->unpacked;
    const int by_taps = unpacked || (far && FN(small_padded)(g) && !FN(few_outputs)(g));
    const long size = FN(block_size)(g, blocking->block, parts, threads);
    if (by_taps) job.count = MIN(g->oh, ceil_div(g->oh * g->ow, size));
    else if (g->nhwc) job.count = pixel_blocks(g, 0, g->oh, size, &blocks);
    else job.count = ceil_div(channels ? g->oh * g->ow : g->oh, blocking->block);
    if (job.count < 0) return OUT_OF_MEMORY;
    if (channels && job.count > 1 && job.count * g->groups * g->n < 6 * threads) /* as many for each, of a panel at least */
        job.count = MAX(job.count, MIN(ceil_div(job.count, threads) * threads, g->oh * g->ow / (NV_MAX * VL)));
    job.blocks = blocks;
    job.far = far && (job.count > 1 || (by_taps && !unpacked));
    if (job.far) {
        job.split = parts;
        if (parts * image < weight) job.together = g->n; /* images are less to read again than the weight is */
    }
    else if (threads > 1) { /* enough tasks of one size for all threads to end together; NCHW arranges its pixels anew for each part */
        const long tasks = MAX(1, job.count * g->groups * g->n), wanted = ceil_div((g->nhwc ? 6 : 1) * threads, tasks);
        job.split = tasks == 1 ? MIN(parts, wanted) : ceil_div(parts, MAX(1, parts / wanted));
    }
    const int status = pool_run(by_taps ? FN(taps_task) : g->nhwc ? FN(nhwc_task) : channels ? FN(channel_task) : FN(strip_task), &job, job.count * job.split * g->groups * g->n, threads);
    free(blocks);
    return status;
}
