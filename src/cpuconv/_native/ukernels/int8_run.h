/* What is exported: packing of weights, and the division into tasks. */

static int int8_gemm_form(const int8_geometry *q) { return int8_channel_rows(q) + 2 * q->bytes; }

static long int8_gemm_packed_size(const int8_geometry *q) {
    const conv_geometry g = lane_geometry(q);
    return q->g.groups * (int8_channel_rows(q) ? g.oc * g.ic : q->kd * i32_gemm_weight_size(&g));
}

/* lanes: [group][kd][kh kw ic/DOT_LENGTH][oc]. */
static void int8_gemm_pack(const int8_geometry *q, const int32_t *lanes, int32_t *packed) {
    const conv_geometry g = lane_geometry(q);
    if (int8_channel_rows(q)) {
        for (long group = 0; group < q->g.groups; group++, lanes += g.ic * g.oc)
            for (long o = 0; o < g.oc; o++)
                for (long l = 0; l < g.ic; l++) *packed++ = lanes[l * g.oc + o];
        return;
    }
    const long size = g.kh * g.kw * g.ic * g.oc;
    for (long i = 0; i < q->g.groups * q->kd; i++, lanes += size) {
        const conv_weight weight = {lanes, lanes + size, 1, g.oc, g.kw * g.ic * g.oc, g.ic * g.oc};
        int32_t *to = packed + i * i32_gemm_weight_size(&g), row[4 * VL];
        i32_gemm_pack(&g, &weight, to);
        for (long j = 0; j < i32_panel_count(outputs_of(&g)); j++) {
            const i32_panel p = i32_panel_at(outputs_of(&g), j);
            for (long k = 0; in_lanes(q, &p) && k < g.kh * g.kw * g.ic; k++) {
                memcpy(row, to + k * p.nr, sizeof row);
                panel_to_lanes(row, to + k * p.nr);
            }
            to += g.kh * g.kw * g.ic * p.nr;
        }
    }
}

static int int8_gemm(const int8_geometry *q, const int8_tensors *t, long rows, int threads) {
    int8_job job = {.q = q, .t = t, .lanes = lane_geometry(q), .how = int8_reading_of(t->x_signed, t->x_zero)};
    const conv_geometry *g = &q->g;
    /* lanes are read as whole */
    job.in_place = DOT_LENGTH == 4 && !job.how.flip && g->nhwc && g->ic / g->groups % 4 == 0 && !(g->pt | g->pl | q->pf) && t->xs.row % 4 == 0 &&
                   t->xs.pixel % 4 == 0 && t->xs.channel == 1 && (g->oh - 1) * g->sh + (g->kh - 1) * g->dh < g->ih &&
                   (g->ow - 1) * g->sw + (g->kw - 1) * g->dw < g->iw && (q->od - 1) * q->sd + (q->kd - 1) * q->dd < q->id;
    const int channels = int8_channel_rows(q);
    const long parts = channels ? ceil_div(job.lanes.oc, 16) : i32_panel_count(outputs_of(&job.lanes));
    job.bands = channels ? p32_panel_count(pixel_columns(g->oh * g->ow)) : ceil_div(g->oh, rows);
    job.split = 1;
    const long tasks = job.bands * g->groups * q->od * g->n;
    if (threads > 1) job.split = MIN(parts, ceil_div(4 * threads, MAX(1, tasks)));
    return pool_run(channels ? int8_channel_task : int8_task, &job, tasks * job.split, threads);
}
