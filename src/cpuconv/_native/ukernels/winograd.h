/* Convolution by F(m,r): blocks of tiles of the input become V[a][tile][channel], a batch of GEMMs on transformed weights U[panel][u][channel][nr]
   makes M[a][tile][nr], and the inverse transform makes output pixels. A block stays in L2. Dilation d makes d x d grids of pixels that do not
   meet: each is an image of its own. Small images share a block. NCHW images pass through channel-last strips of VL channels. */

typedef struct {
    const conv_geometry *g;
    const conv_blocking *blocking;
    const conv_tensors *tensors;
    conv_activation act;
    FN(points) points;
    const FN(winograd_tile) *tile;
    long uh, uw;                     /* points of the weight per axis: where they are fewer than the tile's, the last one is for all that are left */
    conv_strides xs, ys;             /* of the grids */
    long grids;                      /* of a group, images x dilation */
    long tiles_y, tiles_x;           /* of the largest grid */
    long blocks_g, blocks_y, blocks_x; /* blocks_g < grids: a block takes whole grids */
    long most;                       /* tiles in the largest block */
    long v_stride, m_stride, channels; /* between the matrices of V and of M; channels of V with padding */
    T *shared;                       /* V of all threads, where one block is worked on by all */
    long group, block;               /* that block */
} FN(winograd_job);

/* The tiles of grids [g0, g1) that a block takes. */
typedef struct {
    long g0, g1, tiles; /* tiles: of all */
    FN(tile_rect) rect; /* of each grid */
} FN(tile_block);

/* Every dh-th row and dw-th pixel of an image. */
typedef struct {
    long x, y; /* offsets of its first pixels */
    long ih, iw, oh, ow, pt, pl;
} FN(grid);

INLINE long FN(floor_div)(long a, long b) { return a >= 0 ? a / b : -ceil_div(-a, b); }

INLINE FN(grid) FN(grid_at)(const FN(winograd_job) *job, long index) {
    const conv_geometry *g = job->g;
    const conv_strides *xs = &job->tensors->xs, *ys = &job->tensors->ys;
    const long image = index / (g->dh * g->dw), ry = index / g->dw % g->dh, rx = index % g->dw; /* phases of the output */
    const long fy = FN(floor_div)(ry - g->pt, g->dh), fx = FN(floor_div)(rx - g->pl, g->dw);
    const long qy = ry - g->pt - fy * g->dh, qx = rx - g->pl - fx * g->dw; /* and of the input */
    return (FN(grid)){image * xs->image + qy * xs->row + qx * xs->pixel, image * ys->image + ry * ys->row + rx * ys->pixel,
                      MAX(0, ceil_div(g->ih - qy, g->dh)), MAX(0, ceil_div(g->iw - qx, g->dw)), ceil_div(g->oh - ry, g->dh), ceil_div(g->ow - rx, g->dw), -fy, -fx};
}

INLINE long FN(tile_points)(long k, long m, long stride) { return stride * (m - 1) + k; }

/* Blocks for the pool's `threads`: where they are few, their number becomes a multiple of the threads if there are rows of tiles enough. */
static FN(winograd_job) FN(winograd_job_of)(const conv_geometry *g, const conv_blocking *b, int threads) {
    FN(winograd_job) job = {.g = g, .blocking = b};
    const long icg = g->ic / g->groups, nh = FN(tile_points)(g->kh, b->mh, g->sh), nw = FN(tile_points)(g->kw, b->mw, g->sw);
    job.tile = FN(tile_of)((int)nh, (int)nw, b->mh, b->mw);
    job.uh = FN(weight_points)(g->kh, b->mh, g->sh);
    job.uw = FN(weight_points)(g->kw, b->mw, g->sw);
    job.points = FN(make_points)(b, g->sh == 2 ? b->mh + 1 : (int)MAX(nh, nw));
    job.grids = g->n * g->dh * g->dw;
    job.tiles_y = ceil_div(ceil_div(g->oh, g->dh), b->mh);
    job.tiles_x = ceil_div(ceil_div(g->ow, g->dw), b->mw);
    job.blocks_g = job.grids;
    job.blocks_y = job.blocks_x = 1;
    const long tiles = job.tiles_y * job.tiles_x, together = MIN(job.grids, b->block / tiles);
    if (together > 1) {
        job.blocks_g = ceil_div(job.grids, together);
        job.blocks_g = MIN(job.grids, ceil_div(job.blocks_g, threads) * threads);
    } else {
        job.blocks_x = ceil_div(job.tiles_x, b->block);
        job.blocks_y = job.blocks_x > 1 ? job.tiles_y : ceil_div(job.tiles_y, MAX(1, b->block / job.tiles_x));
        const long others = MAX(1, job.grids * g->groups * job.blocks_x), tasks = others * job.blocks_y;
        if (tasks < 8 * threads) job.blocks_y = MIN(job.tiles_y, ceil_div(ceil_div(tasks, threads) * threads, others));
    }
    job.most = ceil_div(job.grids, MAX(1, job.blocks_g)) * ceil_div(job.tiles_y, job.blocks_y) * ceil_div(job.tiles_x, job.blocks_x);
    job.channels = ceil_div(icg, VL) * VL;
    /* One more vector, lest the matrices of V (or M) fall on the same cache sets. */
    job.v_stride = job.most * job.channels + VL;
    job.m_stride = job.most * FN(panel_at)(outputs_of(g), 0).nr + VL;
    return job;
}

INLINE long FN(matrices)(const FN(winograd_job) *job) { return job->tile->nh * job->tile->nw; }
INLINE long FN(block_count)(const FN(winograd_job) *job) { return job->blocks_g * job->blocks_y * job->blocks_x; }

INLINE FN(tile_block) FN(block_at)(const FN(winograd_job) *job, long index) {
    const long x = index % job->blocks_x, y = index / job->blocks_x % job->blocks_y, grid = index / (job->blocks_x * job->blocks_y);
    FN(tile_block) b = {.g0 = part(job->grids, job->blocks_g, grid), .g1 = part(job->grids, job->blocks_g, grid + 1),
                        .rect = {part(job->tiles_y, job->blocks_y, y), part(job->tiles_y, job->blocks_y, y + 1), part(job->tiles_x, job->blocks_x, x),
                                 part(job->tiles_x, job->blocks_x, x + 1), job->blocking->mh, job->blocking->mw}};
    b.tiles = (b.g1 - b.g0) * (b.rect.ty1 - b.rect.ty0) * (b.rect.tx1 - b.rect.tx0);
    return b;
}

/* Elements of the channel-last strips of NCHW: the larger of input and output. */
static long FN(strip_size)(const FN(winograd_job) *job) {
    const conv_geometry *g = job->g;
    if (g->nhwc) return 0;
    const long rows = ceil_div(job->tiles_y, job->blocks_y) * job->blocking->mh * g->sh + g->kh - 1;
    const long columns = ceil_div(job->tiles_x, job->blocks_x) * job->blocking->mw * g->sw + g->kw - 1;
    return MAX(MIN(rows, g->ih) * MIN(columns, g->iw), MIN(rows, g->oh) * MIN(columns, g->ow)) * VL;
}

/* The pixels of a group that the tiles of a block touch, within the image of grid `index`. */
static FN(tile_source) FN(source_of)(const FN(winograd_job) *job, long group, const FN(tile_rect) *b, long index) {
    const conv_geometry *g = job->g;
    const conv_strides *xs = &job->xs;
    const FN(grid) grid = FN(grid_at)(job, index);
    const long mh = b->mh * g->sh, mw = b->mw * g->sw, icg = g->ic / g->groups;
    FN(tile_source) s = {.end = job->tensors->x_end, .row = xs->row, .pixel = xs->pixel, .pt = grid.pt, .pl = grid.pl, .stride = g->sh, .channels = icg};
    s.y0 = MIN(grid.ih, MAX(0, b->ty0 * mh - grid.pt));
    s.y1 = MAX(s.y0, MIN(grid.ih, b->ty1 * mh + g->kh - 1 - grid.pt));
    s.x0 = MIN(grid.iw, MAX(0, b->tx0 * mw - grid.pl));
    s.x1 = MAX(s.x0, MIN(grid.iw, b->tx1 * mw + g->kw - 1 - grid.pl));
    s.image = (const T *)job->tensors->x + grid.x + group * icg * xs->channel + s.y0 * xs->row + s.x0 * xs->pixel;
    return s;
}

/* Vectors [c0, c1) of the channels of a block into V. */
static void FN(input_stage)(const FN(winograd_job) *job, long group, const FN(tile_block) *b, long c0, long c1, T *strip, T *v) {
    const conv_strides *xs = &job->xs;
    const FN(tile_order) order = {&job->points, job->v_stride, job->channels};
    for (long i = b->g0; i < b->g1; i++, v += b->tiles / (b->g1 - b->g0) * job->channels) {
        const FN(tile_source) pixels = FN(source_of)(job, group, &b->rect, i);
        FN(tile_source) s = pixels;
        if (job->g->nhwc) {
            s.image += c0 * VL;
            s.channels = MIN(pixels.channels, c1 * VL) - c0 * VL;
            job->tile->input(&order, &b->rect, &s, v + c0 * VL);
            continue;
        }
        const long rows = s.y1 - s.y0, columns = s.x1 - s.x0;
        s.image = strip;
        s.pixel = s.channels = VL;
        s.row = columns * VL;
        s.end = strip + rows * s.row;
        for (long c = c0; c < c1; c++) {
            FN(band_to_pixels)(pixels.image + c * VL * xs->channel, xs, MIN(VL, pixels.channels - c * VL), rows, columns, pixels.end, strip, VL);
            job->tile->input(&order, &b->rect, &s, v + c * VL);
        }
    }
}

/* Micro-kernels that the products of one panel of a block take, at least. */
INLINE long FN(panel_products)(const FN(winograd_job) *job, const FN(tile_block) *b, const FN(panel) *p) {
    return FN(matrices)(job) * ceil_div(b->tiles, FN(gemm_mr)[1][p->nv]);
}

/* A GEMM of `rows` tiles, of which there is one matrix of V, U and M, with prefetching between micro-kernels. */
static void FN(multiply_matrix)(FN(tile) t, const FN(panel) *p, long rows, long channels, FN(ahead) *in, FN(ahead) *out) {
    long aoff[MR_MAX], coff[MR_MAX];
    for (long i = 0; i < MR_MAX; i++) {
        aoff[i] = i * channels;
        coff[i] = i * p->nr;
    }
    t.aoff = aoff;
    t.coff = t.zoff = coff;
    /* heights as even as can be */
    const long count = ceil_div(rows, FN(tallest)(&t, p->nv, p->nr)), low = rows / count, higher = rows % count;
    for (long i = 0, some; i < count; i += some) {
        const long height = low + (i < higher);
        FN(prefetch)(in);
        FN(prefetch)(out);
        t.a_step = height * channels;
        t.c_step = height * p->nr;
        some = FN(gemm_some)(&t, t.next != 0, p->nv, height, i, count, in->quota || out->quota ? 1 : (i < higher ? higher : count) - i);
        FN(step_down)(&t, some * height, channels, p->nr);
    }
}

/* M of one panel: a GEMM for each point of the weight and each coordinate of the tiles that it serves. */
static void FN(multiply_stage)(const FN(winograd_job) *job, const FN(tile_block) *b, const FN(panel) *p, const T *u, const T *v, T *m, FN(ahead) *in, FN(ahead) *out) {
    const long icg = job->g->ic / job->g->groups, nh = job->tile->nh, nw = job->tile->nw, passes = ceil_div(icg, job->blocking->kc);
    const long size = job->uh * job->uw * icg * FN(padded)(outputs_of(job->g)) * (long)sizeof(T), next = size > FAR ? icg * p->nr : 0;
    for (long uy = 0; uy < job->uh; uy++)
        for (long ux = 0; ux < job->uw; ux++, u += icg * p->nr)
            for (long y = uy; y < (uy < job->uh - 1 ? uy + 1 : nh); y++)
                for (long x = ux; x < (ux < job->uw - 1 ? ux + 1 : nw); x++) {
                    FN(tile) tile = {.a = v + (y * nw + x) * job->v_stride, .b = u, .ldb = p->nr, .c = m + (y * nw + x) * job->m_stride, .count = 1, .step = 1, .next = next};
                    for (long pass = 0; pass < passes; pass++) {
                        const long k0 = part(icg, passes, pass);
                        const segment piece = {k0, k0, part(icg, passes, pass + 1) - k0};
                        tile.segments = &piece;
                        tile.span = piece.length * p->nr;
                        FN(multiply_matrix)(tile, p, b->tiles, job->channels, in, out);
                        tile.z = tile.c;
                    }
                }
}

/* GEMMs and inverse transform of one panel of output channels of a block; `in`: what to prefetch besides. */
static void FN(output_stage)(const FN(winograd_job) *job, long group, const FN(tile_block) *b, long index, const T *v, T *strip, T *m, FN(ahead) *in) {
    const conv_geometry *g = job->g;
    const conv_strides *ys = &job->ys;
    const long icg = g->ic / g->groups, ocg = g->oc / g->groups;
    const conv_columns outputs = outputs_of(g);
    const FN(panel) p = FN(panel_at)(outputs, index);
    const long oy = b->rect.ty0 * b->rect.mh, ox = b->rect.tx0 * b->rect.mw;
    FN(ahead) out = {0};
    if (in->quota && !job->blocking->stream) {
        const FN(grid) grid = FN(grid_at)(job, b->g0);
        const T *y = (const T *)job->tensors->y + grid.y + (group * ocg + p.column) * ys->channel + oy * ys->row + ox * ys->pixel;
        out = FN(ahead_of)(y, ys, MIN(grid.oh, b->rect.ty1 * b->rect.mh) - oy, MIN(grid.ow, b->rect.tx1 * b->rect.mw) - ox, p.valid, FN(panel_products)(job, b, &p));
    }
    FN(multiply_stage)(job, b, &p, (const T *)job->tensors->weight + job->uh * job->uw * icg * (group * FN(padded)(outputs) + p.column), v, m, in, &out);
    const T *residual = job->tensors->residual;
    const FN(tile_order) order = {&job->points, job->m_stride, p.nr};
    for (long i = b->g0; i < b->g1; i++, m += b->tiles / (b->g1 - b->g0) * p.nr) {
        const FN(grid) grid = FN(grid_at)(job, i);
        const long rows = MIN(grid.oh, b->rect.ty1 * b->rect.mh) - oy, columns = MIN(grid.ow, b->rect.tx1 * b->rect.mw) - ox;
        if (rows <= 0 || columns <= 0) continue; /* a grid smaller than the largest */
        for (long c = 0; c < p.valid; c += VL) {
            const long lanes = MIN(VL, p.valid - c), channel = group * ocg + p.column + c;
            const T *bias = (const T *)job->tensors->bias + channel;
            const long at = grid.y + channel * ys->channel + oy * ys->row + ox * ys->pixel;
            T *y = (T *)job->tensors->y + at;
            const T *z = residual ? residual + at : NULL;
            const int stream = job->blocking->stream && lanes == VL && FN(whole_lines)(y, VL, ys->pixel, ys->row);
            FN(tile_target) t = {y, z, bias, ys->row, ys->pixel, oy, ox, grid.oh, grid.ow, lanes, job->act, stream};
            if (g->nhwc) {
                job->tile->output(&order, &b->rect, m + c, &t);
                continue;
            }
            T padded_bias[VL];
            for (long l = 0; l < VL; l++) padded_bias[l] = l < lanes ? bias[l] : 0;
            t = (FN(tile_target)){strip, NULL, padded_bias, columns * VL, VL, oy, ox, grid.oh, grid.ow, VL, {ACT_NONE, 0, 0}, 0};
            job->tile->output(&order, &b->rect, m + c, &t);
            FN(pixels_to_band)(strip, VL, ys, lanes, rows, columns, z, job->act, y);
        }
    }
}

typedef struct {
    T *v, *m, *strip;
} FN(winograd_scratch);

/* Bytes of scratch; with `s`, a thread's, from its arena (zero if memory is short). V only where the block is not shared. */
static size_t FN(winograd_arena)(const FN(winograd_job) *job, int with_v, FN(winograd_scratch) *s) {
    const size_t matrices = (size_t)FN(matrices)(job);
    const size_t v = with_v ? matrices * (size_t)job->v_stride * sizeof(T) : 0, m = (matrices * (size_t)job->m_stride + VL) * sizeof(T);
    const size_t strip = (size_t)FN(strip_size)(job) * sizeof(T);
    const size_t bytes = aligned_size(v) + aligned_size(m) + aligned_size(strip);
    if (!s) return bytes;
    scratch memory = {pool_arena(TASK_ARENA, bytes)};
    if (!memory.next) return 0;
    s->v = take(&memory, v);
    s->m = take(&memory, m);
    s->strip = take(&memory, strip);
    return bytes;
}

/* What task `index`, which this thread is likely to do next, will read, to be fetched during the products of block b. */
static FN(ahead) FN(next_input)(const FN(winograd_job) *job, const FN(tile_block) *b, long index) {
    const conv_geometry *g = job->g;
    const long blocks = FN(block_count)(job);
    const conv_columns outputs = outputs_of(g);
    if (!job->blocking->far || b->g1 - b->g0 > 1 || index >= g->groups * blocks) return (FN(ahead)){0};
    const FN(tile_block) next = FN(block_at)(job, index % blocks);
    const FN(tile_source) s = FN(source_of)(job, index / blocks, &next.rect, next.g0);
    const FN(panel) first = FN(panel_at)(outputs, 0);
    return FN(ahead_of)(s.image, &job->xs, s.y1 - s.y0, s.x1 - s.x0, s.channels, FN(panel_count)(outputs) * FN(panel_products)(job, b, &first));
}

static int FN(winograd_task)(void *context, long index) {
    const FN(winograd_job) *job = context;
    FN(winograd_scratch) s;
    if (!FN(winograd_arena)(job, 1, &s)) return OUT_OF_MEMORY;
    const long blocks = FN(block_count)(job), group = index / blocks, panels = FN(panel_count)(outputs_of(job->g));
    const FN(tile_block) b = FN(block_at)(job, index % blocks);
    FN(input_stage)(job, group, &b, 0, job->channels / VL, s.strip, s.v);
    FN(ahead) in = FN(next_input)(job, &b, index + 1);
    for (long i = 0; i < panels; i++) FN(output_stage)(job, group, &b, i, s.v, s.strip, s.m, &in);
    return 0;
}

static int FN(winograd_shared_input)(void *context, long index) {
    const FN(winograd_job) *job = context;
    FN(winograd_scratch) s;
    if (!FN(winograd_arena)(job, 0, &s)) return OUT_OF_MEMORY;
    const FN(tile_block) b = FN(block_at)(job, job->block);
    FN(input_stage)(job, job->group, &b, index, index + 1, s.strip, job->shared);
    return 0;
}

static int FN(winograd_shared_output)(void *context, long index) {
    const FN(winograd_job) *job = context;
    FN(winograd_scratch) s;
    if (!FN(winograd_arena)(job, 0, &s)) return OUT_OF_MEMORY;
    const FN(tile_block) b = FN(block_at)(job, job->block);
    FN(output_stage)(job, job->group, &b, index, job->shared, s.strip, s.m, &(FN(ahead)){0});
    return 0;
}

/* Whether the threads had better share each block, dividing its panels of output channels, than take whole blocks: they do if few or
   uneven blocks would leave threads idle, or if the blocks would be too small to repay reading the weight. */
static int FN(share_blocks)(const FN(winograd_job) *job, int threads) {
    const conv_geometry *g = job->g;
    const long tasks = g->groups * FN(block_count)(job), panels = FN(panel_count)(outputs_of(g));
    if (threads == 1 || tasks >= 8 * threads || panels < threads) return 0;
    if (job->most < 12) return 1;
    const long rounds = ceil_div(tasks, threads), tiles = job->grids * g->groups * job->tiles_y * job->tiles_x;
    const double whole = (double)tiles / (double)(threads * rounds * job->most), shared = 0.93 * (double)panels / (double)(threads * ceil_div(panels, threads));
    return shared > whole;
}

static int FN(winograd)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    FN(winograd_job) job = FN(winograd_job_of)(g, blocking, threads);
    const int share = FN(share_blocks)(&job, threads);
    if (share) job = FN(winograd_job_of)(g, blocking, 1); /* whole blocks: each reads the weight once */
    job.tensors = tensors;
    job.act = act;
    job.xs = tensors->xs;
    job.ys = tensors->ys;
    job.xs.row *= g->dh;
    job.ys.row *= g->dh;
    job.xs.pixel *= g->dw;
    job.ys.pixel *= g->dw;
    const long blocks = FN(block_count)(&job), tasks = g->groups * blocks;
    if (!share) return pool_run(FN(winograd_task), &job, tasks, threads);
    job.shared = pool_arena(CALL_ARENA, (size_t)(FN(matrices)(&job) * job.v_stride) * sizeof(T));
    if (!job.shared) return OUT_OF_MEMORY;
    int status = 0;
    for (long i = 0; i < tasks && !status; i++) {
        job.block = i % blocks;
        job.group = i / blocks;
        status = pool_run(FN(winograd_shared_input), &job, job.channels / VL, threads);
        if (!status) status = pool_run(FN(winograd_shared_output), &job, FN(panel_count)(outputs_of(g)), threads);
    }
    return status;
}

static long FN(winograd_workspace)(const conv_geometry *g, const conv_blocking *blocking) {
    const FN(winograd_job) job = FN(winograd_job_of)(g, blocking, 1);
    return (long)FN(winograd_arena)(&job, 1, NULL);
}
