/* 1x1 convolutions of NCHW images, turned round: rows of the product are output channels, its columns pixels, which come in panels of lanes as
   they stand side by side in their planes, and go to planes: nothing is transposed. */

/* Whether a convolution is done so. Vectors of pixels must be full. */
static int int8_channel_rows(const int8_geometry *q) {
    const conv_geometry *g = &q->g;
    const long pixels = g->oh * g->ow;
    return !g->nhwc && g->kh * g->kw * q->kd == 1 && g->sh == 1 && g->sw == 1 && q->sd == 1 && g->oh == g->ih && g->ow == g->iw && q->od == q->id && !g->pt &&
           !g->pl && !q->pf && 16 * p32_padded(pixel_columns(pixels)) <= 17 * pixels;
}

/* Sums of the elements of each column of a panel of k lanes. */
static void panel_sums(const int32_t *b, long k, long nr, int32_t *sums) {
    const int32_t one = DOT_LENGTH == 4 ? 0x01010101 : 0x00010001;
    for (long j = 0; j < nr; j += VL) {
        VEC sum = {0};
        for (long l = 0; l < k; l++) sum = X_SIGNED ? dot(sum, SPLAT(one), LOAD(b + l * nr + j)) : dot(sum, LOAD(b + l * nr + j), SPLAT(one));
        STORE(sums + j, sum);
    }
}

/* One panel of pixels of one slice of an image and group against output channels [first, last). */
static int int8_channel_task(void *context, long index) {
    enum { GROUP = 24 };
    const int8_job *job = context;
    const int8_geometry *q = job->q;
    const int8_tensors *t = job->t;
    const long groups = q->g.groups, which = index / job->bands % job->split, rest = index / (job->bands * job->split);
    const long group = rest % groups, oz = rest / groups % q->od, image = rest / (groups * q->od), pixels = q->g.oh * q->g.ow;
    const long ocg = q->g.oc / groups, icg = q->g.ic / groups, k = job->lanes.ic;
    const p32_panel p = p32_panel_at(pixel_columns(pixels), index % job->bands);
    const long first = part(ocg, job->split, which), last = part(ocg, job->split, which + 1);
    scratch s = {pool_arena(TASK_ARENA, aligned_size((size_t)(k * p.nr) * 4) + aligned_size((size_t)(GROUP * p.nr + VL) * 4) + (size_t)p.nr * 4)};
    if (!s.next) return OUT_OF_MEMORY;
    int32_t *b = take(&s, (size_t)(k * p.nr) * 4), *sums = take(&s, (size_t)p.nr * 4), *c = take(&s, (size_t)(GROUP * p.nr + VL) * 4);

    const uint8_t *x = (const uint8_t *)t->x + image * t->xs.image + group * icg * t->xs.channel + oz * t->xs_depth + p.column;
    const int ordered = t->scale && p.nr == 4 * VL && p.valid == p.nr;
    for (long l = 0; l < k; l++) {
        const uint8_t *from = x + l * DOT_LENGTH * t->xs.channel;
        const long some = MIN(DOT_LENGTH, icg - l * DOT_LENGTH);
        if (ordered && some == DOT_LENGTH) {
#ifdef PANEL_BYTES
            rows_to_panel(job->how.flip * 0x01010101u, from, t->xs.channel, (VEC *)(b + l * p.nr));
#else
            u32x rows[DOT_LENGTH];
            UNROLL for (int r = 0; r < DOT_LENGTH; r++) rows[r] = (u32x)LOAD((const int32_t *)(from + r * t->xs.channel));
            rows_to_lanes(job->how, rows, (VEC *)(b + l * p.nr));
#endif
            continue;
        }
        row_to_lanes(job->how, from, t->xs.channel, 1, p.valid, some, ordered ? c : b + l * p.nr);
        if (ordered) panel_to_lanes(c, b + l * p.nr);
        for (long i = p.valid; i < p.nr; i++) b[l * p.nr + i] = 0;
    }
    if (t->w_zero) panel_sums(b, k, p.nr, sums);
    const segment all = {0, 0, k};
    const int8_range range = int8_range_of(t->y_signed, t->y_zero);
    const long at = image * t->ys.image + oz * t->ys_depth + p.column, padded = i32_padded(outputs_of(&q->g));
#ifdef PANEL_BYTES
    const int finishes = ordered && !t->w_zero;
    int large = 0; /* whether a sum may be made larger */
    for (long o = first; finishes && o < last; o++) large |= t->scale[group * padded + o] >= 1;
#else
    const int finishes = 0;
#endif
    long aoff[GROUP], coff[GROUP];
    for (long i = 0; i < GROUP; i++) {
        aoff[i] = i * k;
        coff[i] = i * (t->scale && !finishes ? p.nr : t->ys.channel);
    }
    for (long o = first; o < last; o += GROUP) {
        const long height = MIN(GROUP, last - o), y = at + (group * ocg + o) * t->ys.channel;
        p32_tile tile = {.segments = &all, .count = 1, .step = 1, .b = b, .ldb = p.nr, .a = t->weight + (group * ocg + o) * k, .bias_m = t->bias + group * padded + o};
        tile.c = t->scale ? c : (int32_t *)t->y + y;
#ifdef PANEL_BYTES
        int8_finish finish = {.range = range, .scale = finishes ? t->scale + group * padded + o : NULL, .first = tile.bias_m, .clip = large, .origin = c, .bytes = (uint8_t *)t->y + y};
        tile.finish = finishes ? &finish : NULL;
#endif
        p32_gemm_rows(&tile, &p, height, aoff, coff, coff);
        for (long i = 0; t->w_zero && i < height; i++)
            for (long j = 0; j < p.valid; j++) tile.c[coff[i] + j] -= t->w_zero[group * padded + o + i] * sums[j];
        for (long i = 0; t->scale && !finishes && i < height; i++) {
            const f32xu scale = t->scale[group * padded + o + i] - (f32x){0};
            uint8_t *to = (uint8_t *)t->y + y + i * t->ys.channel;
            if (ordered) STORE((int32_t *)to, requantized_panel(range, (const VEC *)(c + coff[i]), &scale, 0, 1));
            else requantize_pixels(range, c + coff[i], scale[0], p.valid, to, 1);
        }
    }
    return 0;
}
