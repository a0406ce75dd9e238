#include "separable.h"
#include "pool.h"

static long clamp(long value, long low, long high) { return value < low ? low : value > high ? high : value; }

/* A band of output rows of an image. */
static int band(const separable_job *job, long index, int threads) {
    const conv_geometry *d = &job->depthwise->g;
    const long bands = (d->oh + job->rows - 1) / job->rows, image = index / bands, oy = index % bands * job->rows;
    const long rows = clamp(job->rows, 0, d->oh - oy), channels = d->ic * job->multiplier, pixels = rows * d->ow;
    const long first = oy * d->sh - d->pt, top = clamp(first, 0, d->ih); /* first row seen, in the padding perhaps; in the image */
    const size_t bytes = (size_t)(channels * pixels * job->size);
    char *between = pool_arena(BAND_ARENA, bytes);
    if (!between) return 1;

    conv_geometry g = *d;
    g.n = 1;
    g.ih = clamp(first + (rows - 1) * d->sh + (d->kh - 1) * d->dh + 1, top, d->ih) - top;
    g.pt = top - first;
    g.oh = rows;
    conv_tensors t = {.x = (const char *)job->x + (image * job->xs.image + top * job->xs.row) * job->size, .x_begin = job->x, .x_end = job->x_end, .xs = job->xs};
    t.ys = d->nhwc ? (conv_strides){0, 1, channels * d->ow, channels} : (conv_strides){0, pixels, d->ow, 1};
    for (long j = 0; j < job->multiplier; j++) {
        const separable_stage *s = job->depthwise + j;
        t.weight = s->weight;
        t.bias = s->bias;
        t.y = between + j * d->ic * t.ys.channel * job->size;
        const int status = s->family->depthwise(&g, &s->blocking, &t, s->act, threads);
        if (status) return status;
    }

    const separable_stage *p = job->pointwise + (rows < job->rows);
    const long at = (image * job->ys.image + oy * job->ys.row) * job->size;
    const conv_tensors u = {
        between, p->weight, p->bias, job->residual ? (const char *)job->residual + at : NULL, (char *)job->y + at, between, between + bytes, t.ys, job->ys,
    };
    return p->family->implicit_gemm(&p->g, &p->blocking, &u, p->act, threads);
}

static int band_task(void *context, long index) { return band(context, index, 1); }

int separable_run(const separable_job *job, int threads) {
    const conv_geometry *d = &job->depthwise->g;
    const long bands = d->n * ((d->oh + job->rows - 1) / job->rows);
    if (!job->whole || bands >= 2 * threads) return pool_run(band_task, (void *)job, bands, threads);
    int status = 0;
    for (long i = 0; i < bands && !status; i++) status = band(job, i, threads);
    return status;
}
