/* Integer arithmetic of convolutions that does not depend on the element type. */

INLINE long ceil_div(long a, long b) { return (a + b - 1) / b; }

/* The columns of a product that makes the output channels of a group. */
INLINE conv_columns outputs_of(const conv_geometry *g) { return (conv_columns){g->oc / g->groups, g->halves}; }

/* Those of one that makes pixels. Their panels may end in half a vector on every CPU: it is one of many, and is read in place where a vector would reach too far. */
INLINE conv_columns pixel_columns(long pixels) { return (conv_columns){pixels, 1}; }

/* Where part i begins when [0, total) is divided into `parts` pieces as even as can be, larger ones among the others: threads take runs of parts. */
INLINE long part(long total, long parts, long i) { return total * i / parts; }

/* A rectangle of output pixels [oy0,oy1) x [ox0,ox1) for all of which exactly the taps [ky0,ky1) x [kx0,kx1) lie inside
   the image: the other taps read padding only and are skipped. */
typedef struct {
    long oy0, oy1, ox0, ox1, ky0, ky1, kx0, kx1;
} tap_rect;

/* Taps of one axis that fall inside [0, size) for output o: first and one past last. Monotone in o. */
INLINE void valid_taps(long o, long stride, long pad, long dilation, long taps, long size, long *first, long *last) {
    const long start = o * stride - pad;
    *first = start >= 0 ? 0 : MIN(taps, (-start + dilation - 1) / dilation);
    *last = start >= size ? 0 : MIN(taps, (size - 1 - start) / dilation + 1);
    if (*last < *first) *last = *first;
}

/* Outputs of one axis of which a tap falls inside [0, size): first and one past last. */
INLINE void outputs_of_tap(long tap, long outputs, long stride, long pad, long dilation, long size, long *first, long *last) {
    const long start = tap * dilation - pad;
    *first = start >= 0 ? 0 : MIN(outputs, ceil_div(-start, stride));
    *last = start >= size ? *first : MAX(*first, MIN(outputs, (size - 1 - start) / stride + 1));
}

/* The run of outputs from o on, below `end`, with the same valid taps. Runs are few (at most 2 taps + 1), so a scan with
   doubling steps is not needed: bisection on the monotone bounds finds the end. */
INLINE long same_taps_end(long o, long end, long stride, long pad, long dilation, long taps, long size, long *first, long *last) {
    valid_taps(o, stride, pad, dilation, taps, size, first, last);
    long low = o, high = end; /* low has the same taps, high not (or is the end) */
    while (high - low > 1) {
        long mid = low + (high - low) / 2, f, l;
        valid_taps(mid, stride, pad, dilation, taps, size, &f, &l);
        if (f == *first && l == *last) low = mid;
        else high = mid;
    }
    return high;
}

/* Output rows [oy0, oy1) as rectangles, row-major; written to `out` unless it is NULL; returns their number. */
static long tap_rects(const conv_geometry *g, long oy0, long oy1, tap_rect *out) {
    long count = 0, ky0, ky1, kx0, kx1;
    for (long oy = oy0, below; oy < oy1; oy = below) {
        below = same_taps_end(oy, oy1, g->sh, g->pt, g->dh, g->kh, g->ih, &ky0, &ky1);
        for (long ox = 0, right; ox < g->ow; ox = right) {
            right = same_taps_end(ox, g->ow, g->sw, g->pl, g->dw, g->kw, g->iw, &kx0, &kx1);
            if (out) out[count] = (tap_rect){oy, below, ox, right, ky0, ky1, kx0, kx1};
            count++;
        }
    }
    return count;
}

INLINE long rect_pixels(const tap_rect *r) { return (r->oy1 - r->oy0) * (r->ox1 - r->ox0); }

/* Consecutive pixels [p0, p1) of a rectangle: the pixels of one task. */
typedef struct {
    tap_rect rect;
    long p0, p1;
} pixel_block;

/* The output pixels of rows [oy0, oy1) that read a tap. */
static pixel_block pixels_of_tap(const conv_geometry *g, long tap, long oy0, long oy1) {
    const long ky = tap / g->kw, kx = tap % g->kw;
    tap_rect r = {.ky0 = ky, .ky1 = ky + 1, .kx0 = kx, .kx1 = kx + 1};
    outputs_of_tap(ky, g->oh, g->sh, g->pt, g->dh, g->ih, &r.oy0, &r.oy1);
    outputs_of_tap(kx, g->ow, g->sw, g->pl, g->dw, g->iw, &r.ox0, &r.ox1);
    r.oy0 = MAX(oy0, r.oy0);
    r.oy1 = MAX(r.oy0, MIN(oy1, r.oy1));
    return (pixel_block){r, 0, rect_pixels(&r)};
}

/* Whether some output reads padding. */
INLINE int skips_taps(const conv_geometry *g) {
    const long plane = g->oh * g->ow;
    return pixels_of_tap(g, 0, 0, g->oh).p1 < plane || pixels_of_tap(g, g->kh * g->kw - 1, 0, g->oh).p1 < plane;
}

/* Divides output rows [oy0, oy1) into blocks of at most `size` pixels; *blocks is to be freed. Returns their number, or -1. */
static long pixel_blocks(const conv_geometry *g, long oy0, long oy1, long size, pixel_block **blocks) {
    const long rects = tap_rects(g, oy0, oy1, NULL);
    tap_rect *rect = malloc((size_t)rects * sizeof *rect);
    if (!rect) return -1;
    tap_rects(g, oy0, oy1, rect);
    long count = 0, n = 0;
    for (long r = 0; r < rects; r++) count += ceil_div(rect_pixels(rect + r), size);
    *blocks = malloc((size_t)count * sizeof **blocks);
    for (long r = 0; *blocks && r < rects; r++) {
        const long pixels = rect_pixels(rect + r), parts = ceil_div(pixels, size);
        for (long i = 0; i < parts; i++) (*blocks)[n++] = (pixel_block){rect[r], part(pixels, parts, i), part(pixels, parts, i + 1)};
    }
    free(rect);
    return *blocks ? count : -1;
}

/* A bump allocator over one arena. */
typedef struct {
    char *next;
} scratch;
INLINE size_t aligned_size(size_t bytes) { return (bytes + 63) & ~(size_t)63; }
INLINE void *take(scratch *s, size_t bytes) {
    void *p = s->next;
    s->next += aligned_size(bytes);
    return p;
}
