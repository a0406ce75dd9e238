/* Convolution of 8-bit integers as a GEMM without column matrix: a band of output rows at a time, its input rows a channel-last strip
   (NHWC images that need neither padding nor any change are read in place), the weight packed in panels of lanes, one slice of the
   depth after the other. With the zero points zx and zw

     sum (x - zx) (w - zw) = sum x w  - zx sum w + k zx zw  - zw sum x:

   the middle is a constant of each output channel, which the caller adds to the bias; the sums of x are needed only where
   zw is not 0. Elements of 16 bits have their zero points subtracted when they are read and packed. */

/* The convolution of lanes with which a slice of the depth is done. */
static conv_geometry lane_geometry(const int8_geometry *q) {
    conv_geometry g = q->g;
    g.n = g.groups = g.nhwc = 1;
    g.ic = ceil_div(q->g.ic / q->g.groups, DOT_LENGTH);
    g.oc = q->g.oc / q->g.groups;
    g.pt = g.pl = 0;
    return g;
}

typedef struct {
    const int8_geometry *q;
    const int8_tensors *t;
    conv_geometry lanes;
    int8_reading how;
    int in_place;
    long block, bands, split;
} int8_job;

/* Adds to sums[pixel] what the taps of an output pixel read, all channels together. `columns` is scratch for rows x width numbers. */
static void add_pixel_sums(const conv_geometry *g, const i32_gemm_view *v, long rows, long width, int32_t *columns, int32_t *sums) {
    const long channels = g->ic * DOT_LENGTH;
    for (long y = 0; y < rows; y++)
        for (long x = 0; x < width; x++) {
            const element *e = (const element *)(v->x + y * v->x_row + x * v->x_pixel);
            int32_t sum = 0;
            for (long c = 0; c < channels; c++) sum += X_SIGNED ? (int8_t)e[c] : e[c];
            columns[y * width + x] = sum;
        }
    for (long y = 0; y < g->oh; y++)
        for (long ky = 0; ky < g->kh; ky++)
            for (long kx = 0; kx < g->kw; kx++)
                for (long x = 0; x < g->ow; x++) sums[y * g->ow + x] += columns[(y * g->sh + ky * g->dh) * width + x * g->sw + kx * g->dw];
}

/* Whether the columns of a panel are in the order of lanes, so that its sums become bytes quickly. */
INLINE int in_lanes(const int8_geometry *q, const i32_panel *p) { return q->bytes && q->g.nhwc && p->nv == 4 && p->valid == p->nr; }

/* Pixels [p0, p1) of the band to bytes, NHWC. */
static void put_pixels(const int8_job *job, const i32_panel *p, const float *scale, long p0, long p1, const int32_t *c, uint8_t *y) {
    const int8_tensors *t = job->t;
    const int8_range range = int8_range_of(t->y_signed, t->y_zero);
    const int lanes = in_lanes(job->q, p);
    long row = p0 / job->lanes.ow, x = p0 % job->lanes.ow;
    for (long i = p0; i < p1; i++, c += p->nr) {
        uint8_t *to = y + row * t->ys.row + x * t->ys.pixel;
        if (lanes) STORE((int32_t *)to, requantized_panel(range, (const VEC *)c, (const f32xu *)scale, 1, 1));
        else requantize_channels(range, c, scale, p->valid, to);
        if (++x == job->lanes.ow) x = 0, row++;
    }
}

/* What of the sums of one panel goes where: `c` has a row of p->nr sums for each pixel of the band, unless they are in y already. */
static void put_panel(const int8_job *job, const conv_geometry *g, const i32_panel *p, const float *scale, long at, const int32_t *c, int32_t *planes) {
    const int8_tensors *t = job->t;
    const long pixels = g->oh * g->ow;
    if (!t->scale) {
        for (long j = 0; j < p->valid; j += VL)
            i32_pixels_to_band(c + j, p->nr, &t->ys, MIN(VL, p->valid - j), g->oh, g->ow, NULL, (conv_activation){0}, (int32_t *)t->y + at + j * t->ys.channel);
        return;
    }
    const int8_range range = int8_range_of(t->y_signed, t->y_zero);
    uint8_t *y = (uint8_t *)t->y + at;
    const conv_strides to = {.channel = pixels, .row = g->ow, .pixel = 1};
    for (long j = 0; j < p->valid; j += VL) {
        const long some = MIN(VL, p->valid - j);
        i32_pixels_to_band(c + j, p->nr, &to, some, g->oh, g->ow, NULL, (conv_activation){0}, planes);
        for (long l = 0; l < some; l++)
            requantize_band(range, planes + l * pixels, scale[j + l], g->oh, g->ow, y + (j + l) * t->ys.channel, t->ys.row, t->ys.pixel);
    }
}

static int int8_task(void *context, long index) {
    enum { BLOCK = 96 };
    const int8_job *job = context;
    const int8_geometry *q = job->q;
    const int8_tensors *t = job->t;
    const long groups = q->g.groups, band = index % job->bands, which = index / job->bands % job->split, rest = index / (job->bands * job->split);
    const long group = rest % groups, oz = rest / groups % q->od, image = rest / (groups * q->od);
    const long oy0 = part(q->g.oh, job->bands, band), oy1 = part(q->g.oh, job->bands, band + 1);
    conv_geometry g = job->lanes;
    g.oh = oy1 - oy0;
    const long rows = (g.oh - 1) * g.sh + (g.kh - 1) * g.dh + 1, width = (g.ow - 1) * g.sw + (g.kw - 1) * g.dw + 1, pixels = g.oh * g.ow;
    const long icg = q->g.ic / groups, nr = i32_panel_at(outputs_of(&g), 0).nr;
    const int direct = q->g.nhwc && !t->scale; /* sums are stored where they belong */
    const long some = q->g.nhwc && t->scale ? MIN(pixels, BLOCK) : pixels; /* sums that stay in L1 until they are bytes */
    const size_t strip_bytes = job->in_place ? 0 : ((size_t)(rows * width * g.ic + VL)) * 4, lane_bytes = job->in_place || q->g.nhwc ? 0 : (size_t)(width * g.ic) * 4;
    const size_t c_bytes = direct ? 0 : (size_t)(some * nr + VL) * 4, plane_bytes = t->scale && !q->g.nhwc ? (size_t)(pixels * VL + VL) * 4 : 0;
    const size_t sum_bytes = t->w_zero ? (size_t)pixels * 4 : 0, column_bytes = t->w_zero ? (size_t)(rows * width) * 4 : 0;
    /* one strip at a time where the depth has one tap, else all of them, for every panel visits them */
    const long strips = job->in_place ? 0 : q->kd;
    char *memory = pool_arena(TASK_ARENA, (size_t)strips * aligned_size(strip_bytes) + aligned_size(lane_bytes) + aligned_size(c_bytes) + aligned_size(plane_bytes) +
                                              aligned_size(sum_bytes) + aligned_size(column_bytes) + i32_pixel_rows_scratch(&g, pixels));
    if (!memory) return OUT_OF_MEMORY;
    scratch s = {memory};
    char *strip = take(&s, (size_t)strips * aligned_size(strip_bytes));
    int32_t *lanes = take(&s, lane_bytes), *c = take(&s, c_bytes), *planes = take(&s, plane_bytes), *sums = take(&s, sum_bytes), *columns = take(&s, column_bytes);

    const uint8_t *x = (const uint8_t *)t->x + image * t->xs.image + group * icg * t->xs.channel;
    const long y0 = image * t->ys.image + oz * t->ys_depth + oy0 * t->ys.row + group * g.oc * t->ys.channel;
    i32_gemm_view view = {.x_row = width * g.ic, .x_pixel = g.ic, .c1 = g.ic};
    if (job->in_place) view.x_row = t->xs.row / DOT_LENGTH, view.x_pixel = t->xs.pixel / DOT_LENGTH;
    if (direct) view.y_row = t->ys.row, view.y_pixel = t->ys.pixel;
    if (t->w_zero) memset(sums, 0, sum_bytes);
    for (long kz = 0; kz < q->kd; kz++) {
        const long iz = oz * q->sd - q->pf + kz * q->dd;
        const uint8_t *slice = iz < 0 || iz >= q->id ? NULL : x + iz * t->xs_depth;
        element *to = (element *)(strip + (size_t)kz * aligned_size(strip_bytes));
        if (!job->in_place) slice_to_strip(&q->g, &t->xs, job->how, slice, oy0 * g.sh - q->g.pt, rows, -q->g.pl, width, lanes, to);
        if (!t->w_zero) continue;
        view.x = job->in_place ? (const int32_t *)(slice + oy0 * g.sh * t->xs.row) : (const int32_t *)to;
        add_pixel_sums(&g, &view, rows, width, columns, sums);
    }
    const conv_columns outputs = outputs_of(&g);
    const long panels = i32_panel_count(outputs), first = part(panels, job->split, which), last = part(panels, job->split, which + 1);
    const conv_blocking blocking = {.kc = LONG_MAX};
    const long channel = group * i32_padded(outputs);
    for (long i = first; i < last; i++) {
        const i32_panel p = i32_panel_at(outputs, i);
        const long at = y0 + p.column * t->ys.channel;
        const int32_t *bias = t->bias + channel + p.column, *zero = t->w_zero ? t->w_zero + channel + p.column : NULL;
        const float *scale = t->scale ? t->scale + channel + p.column : NULL;
        int32_t ordered[3][4 * VL] __attribute__((aligned(64)));
        if (in_lanes(q, &p)) {
            panel_to_lanes(bias, ordered[0]);
            if (zero) panel_to_lanes(zero, ordered[1]);
            panel_to_lanes((const int32_t *)scale, ordered[2]);
            bias = ordered[0], zero = zero ? ordered[1] : NULL, scale = (const float *)ordered[2];
        }
#ifdef PANEL_BYTES
        /* of sums that are made in one go */
        int8_finish finish = {.range = int8_range_of(t->y_signed, t->y_zero), .scale = scale, .origin = c, .bytes = (uint8_t *)t->y + at};
        const int finishes = in_lanes(q, &p) && q->kd == 1 && !zero;
        for (long j = 0; finishes && j < p.nr; j++) finish.clip |= scale[j] >= 1;
        view.finish = finishes ? &finish : NULL;
        view.y_row = finishes || direct ? t->ys.row : 0, view.y_pixel = finishes || direct ? t->ys.pixel : 0;
#else
        const int finishes = 0;
#endif
        for (long p0 = 0; p0 < pixels; p0 += some) {
            const pixel_block block = {{0, g.oh, 0, g.ow, 0, g.kh, 0, g.kw}, p0, MIN(pixels, p0 + some)};
            for (long kz = 0; kz < q->kd; kz++) {
                const conv_tensors tensors = {.weight = t->weight + (group * q->kd + kz) * i32_gemm_weight_size(&g)};
                const i32_gemm_job inner = {&g, &blocking, &tensors, {0}, NULL, 0, 0};
                const long iz = oz * q->sd - q->pf + kz * q->dd;
                view.x = job->in_place ? (const int32_t *)(x + iz * t->xs_depth + oy0 * g.sh * t->xs.row)
                                       : (const int32_t *)(strip + (size_t)kz * aligned_size(strip_bytes));
                /* of this panel alone */
                view.y = direct ? (int32_t *)t->y + at : finishes ? c : c - p0 * p.nr;
                view.z = kz ? view.y : NULL;
                i32_pixel_rows(&inner, &block, &view, 0, i, i + 1, kz ? NULL : bias - p.column, (conv_activation){0}, s);
            }
            for (long k = block.p0; t->w_zero && k < block.p1; k++) {
                int32_t *row = direct ? (int32_t *)t->y + at + k / g.ow * t->ys.row + k % g.ow * t->ys.pixel : c + (k - p0) * p.nr;
                for (long j = 0; j < p.valid; j++) row[j] -= zero[j] * sums[k];
            }
            if (direct || finishes) continue;
            if (q->g.nhwc) put_pixels(job, &p, scale, block.p0, block.p1, c, (uint8_t *)t->y + at);
            else put_panel(job, &g, &p, scale, at, c, planes);
        }
    }
    return 0;
}
