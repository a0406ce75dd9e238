/* The tasks of implicit_gemm.h by pixel rows: blocks of pixels, or all of a band tap by tap, of NHWC images, and strips of NCHW ones. */

/* The view of a group of an NHWC image, from output row oy0 on. */
INLINE FN(gemm_view) FN(nhwc_view)(const FN(gemm_job) *job, const FN(gemm_part) *p, long oy0) {
    const conv_geometry *g = job->g;
    const conv_tensors *in = job->tensors;
    const long icg = g->ic / g->groups, at = p->image * in->ys.image + p->group * (g->oc / g->groups) + oy0 * in->ys.row;
    return (FN(gemm_view)){(const T *)in->x + p->image * in->xs.image + p->group * icg + oy0 * g->sh * in->xs.row, in->xs.row, in->xs.pixel, 0, icg,
                           (T *)in->y + at, in->residual ? (const T *)in->residual + at : NULL, in->ys.row, in->ys.pixel, 1};
}

static int FN(nhwc_task)(void *context, long index) {
    const FN(gemm_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_columns outputs = outputs_of(g);
    const FN(gemm_part) p = FN(part_of)(job, index, FN(panel_count)(outputs));
    const pixel_block *block = job->blocks + p.piece;
    const size_t copy = FN(few_outputs)(g) ? (size_t)(VL * g->kh * g->kw * (g->ic / g->groups)) * sizeof(T) : 0;
    scratch s = {pool_arena(TASK_ARENA, FN(pixel_rows_scratch)(g, block->p1 - block->p0) + copy)};
    if (!s.next) return OUT_OF_MEMORY;
    const FN(gemm_view) view = FN(nhwc_view)(job, &p, 0);
    if (FN(few_outputs)(g)) FN(dot_pixels)(job, block, &view, p.group, s);
    else FN(pixel_rows)(job, block, &view, p.group, p.first, p.last, (const T *)job->tensors->bias + p.group * FN(padded)(outputs), job->act, s);
    return 0;
}

/* y = bias + z of panels [first, last) in output rows [oy0, oy1), counted from y's first. */
static void FN(begin_sums)(const conv_geometry *g, const FN(gemm_view) *view, long oy0, long oy1, long first, long last, const T *bias) {
    for (long i = first; i < last; i++) {
        const FN(panel) p = FN(panel_at)(outputs_of(g), i);
        const long y_pixel = view->y_pixel ? view->y_pixel : p.nr, y_row = view->y_pixel ? view->y_row : g->ow * p.nr;
        for (long oy = oy0; oy < oy1; oy++)
            for (long ox = 0; ox < g->ow; ox++) {
                const long at = oy * y_row + ox * y_pixel + p.column * view->y_column;
                for (long c = 0; c < p.valid; c++) view->y[at + c] = view->z ? bias[p.column + c] + view->z[at + c] : bias[p.column + c];
            }
    }
}

/* Output rows [oy0, oy1), which are [0, oy1 - oy0) of the view, against panels [first, last), tap by tap: a piece of the weight is one tap of some channels,
   for all pixels that read it. For rectangles of pixels that share all their taps it would be packed, or come from beyond L2, once for each. bias: NULL where
   y already holds sums; is it padded, bias is added ahead. */
static void FN(tap_by_tap)(const FN(gemm_job) *job, const FN(gemm_view) *of, long oy0, long oy1, long group, long first, long last, const T *bias, conv_activation act, scratch s) {
    const conv_geometry *g = job->g;
    const long taps = g->kh * g->kw, channels = of->c1 - of->c0, pieces = ceil_div(channels, job->blocking->kc);
    const int padded = skips_taps(g);
    FN(gemm_view) view = *of;
    if (padded && bias) {
        FN(begin_sums)(g, &view, 0, oy1 - oy0, first, last, bias);
        view.z = view.y;
        bias = NULL;
    }
    for (long i = 0; i < taps * pieces; i++) {
        pixel_block block = pixels_of_tap(g, i / pieces, oy0, oy1);
        block.rect.oy0 -= oy0;
        block.rect.oy1 -= oy0;
        view.c0 = of->c0 + part(channels, pieces, i % pieces);
        view.c1 = of->c0 + part(channels, pieces, i % pieces + 1);
        view.x = of->x + view.c0 - of->c0;
        if (block.p1 > 0) FN(pixel_rows)(job, &block, &view, group, first, last, bias, !padded && i == taps * pieces - 1 ? act : (conv_activation){0}, s);
        view.z = view.y;
        bias = NULL;
    }
    if (!padded || !act.kind) return;
    const long column = FN(panel_at)(outputs_of(g), first).column;
    const FN(panel) final = FN(panel_at)(outputs_of(g), last - 1);
    for (long oy = 0; oy < oy1 - oy0; oy++)
        for (long ox = 0; ox < g->ow; ox++) FN(activate)(act, view.y + oy * view.y_row + ox * view.y_pixel + column, final.column + final.valid - column);
}

/* NHWC, tap by tap: a band of output rows. The pixels of a piece of an unpacked weight stay in L2 while all panels pass. */
static int FN(taps_task)(void *context, long index) {
    const FN(gemm_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_columns outputs = outputs_of(g);
    const FN(gemm_part) p = FN(part_of)(job, index, FN(panel_count)(outputs));
    if (p.first == p.last) return 0;
    const long oy0 = part(g->oh, job->count, p.piece), oy1 = part(g->oh, job->count, p.piece + 1);
    scratch s = {pool_arena(TASK_ARENA, FN(pixel_rows_scratch)(g, (oy1 - oy0) * g->ow) + FN(piece_scratch)(job->blocking))};
    if (!s.next) return OUT_OF_MEMORY;
    const FN(gemm_view) view = FN(nhwc_view)(job, &p, oy0);
    FN(tap_by_tap)(job, &view, oy0, oy1, p.group, p.first, p.last, (const T *)job->tensors->bias + p.group * FN(padded)(outputs), job->act, s);
    return 0;
}

/* From one pixel of a strip to the next: were it 2^n bytes, the 16 that a transpose writes would meet in few sets of L1. */
INLINE long FN(strip_pixel)(long channels) { return channels * (long)sizeof(T) % 1024 ? channels : channels + VL; }

/* NCHW: a band of output rows. Its input rows become a channel-last strip, some channels at a time where there are many; the output
   gathers in a channel-last strip, panel by panel, and returns to planes at the end. */
static int FN(strip_task)(void *context, long index) {
    const FN(gemm_job) *job = context;
    const conv_geometry *g = job->g;
    const conv_tensors *in = job->tensors;
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups, some = MIN(icg, job->blocking->channels);
    const conv_columns outputs = outputs_of(g);
    const FN(gemm_part) p = FN(part_of)(job, index, FN(panel_count)(outputs));
    if (p.first == p.last) return 0;
    const long oy0 = part(g->oh, job->count, p.piece), oy1 = part(g->oh, job->count, p.piece + 1), pixels = (oy1 - oy0) * g->ow;
    const long top = MIN(g->ih, MAX(0, oy0 * g->sh - g->pt)), rows = MAX(0, MIN(g->ih, (oy1 - 1) * g->sh - g->pt + (g->kh - 1) * g->dh + 1) - top);
    const FN(panel) first = FN(panel_at)(outputs, p.first), final = FN(panel_at)(outputs, p.last - 1);
    const size_t in_bytes = (size_t)(rows * g->iw * FN(strip_pixel)(some) + VL) * sizeof(T);
    const size_t out_bytes = (size_t)(pixels * (final.column + final.nr - first.column) + VL) * sizeof(T);
    const size_t rest = FN(pixel_rows_scratch)(g, MIN(PIXEL_BLOCK, pixels)) + FN(piece_scratch)(job->blocking);
    scratch s = {pool_arena(TASK_ARENA, aligned_size(in_bytes) + aligned_size(out_bytes) + rest)};
    pixel_block *blocks;
    const long count = pixel_blocks(g, oy0, oy1, PIXEL_BLOCK, &blocks);
    if (!s.next || count < 0) {
        if (count >= 0) free(blocks);
        return OUT_OF_MEMORY;
    }
    T *strip = take(&s, in_bytes), *out = (T *)take(&s, out_bytes) - first.column * pixels;
    const T *x = (const T *)in->x + p.image * in->xs.image + top * in->xs.row, *bias = (const T *)in->bias + p.group * FN(padded)(outputs);
    const conv_activation none = {ACT_NONE, 0, 0};
    const int far = FN(far_weight)(g), by_taps = far && FN(small_padded)(g);
    for (long c = 0; c < icg; c += some) {
        const long channels = MIN(some, icg - c), pixel = FN(strip_pixel)(channels);
        FN(band_to_pixels)(x + (p.group * icg + c) * in->xs.channel, &in->xs, channels, rows, g->iw, in->x_end, strip, pixel);
        /* all blocks pass a panel before the next one, which comes from beyond L2 but once */
        for (long j = p.first, next; j < p.last; j = next) {
            next = far ? j + 1 : p.last;
            FN(gemm_view) view = {.x = strip - top * g->iw * pixel, .x_row = g->iw * pixel, .x_pixel = pixel, .c0 = c, .c1 = c + channels, .y = out, .z = c ? out : NULL, .y_column = pixels};
            view.x += oy0 * g->sh * view.x_row; /* output rows are counted from the band's first */
            if (by_taps) FN(tap_by_tap)(job, &view, oy0, oy1, p.group, j, next, c ? NULL : bias, none, s);
            for (long i = 0; i < count && !by_taps; i++) {
                pixel_block block = blocks[i];
                block.rect.oy0 -= oy0;
                block.rect.oy1 -= oy0;
                FN(pixel_rows)(job, &block, &view, p.group, j, next, c ? NULL : bias, none, s);
            }
        }
    }
    free(blocks);
    const T *residual = in->residual;
    for (long i = p.first; i < p.last; i++) {
        const FN(panel) panel = FN(panel_at)(outputs, i);
        for (long j = 0; j < panel.valid; j += VL) {
            const long at = p.image * in->ys.image + (p.group * ocg + panel.column + j) * in->ys.channel + oy0 * in->ys.row;
            FN(pixels_to_band)(out + panel.column * pixels + j, panel.nr, &in->ys, MIN(VL, panel.valid - j), oy1 - oy0, g->ow, residual ? residual + at : NULL,
                               job->act, (T *)in->y + at);
        }
    }
    return 0;
}
