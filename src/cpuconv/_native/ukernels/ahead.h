/* Prefetching during a long computation, which leaves the memory idle. */

/* Pixels that will soon be read or written, `bytes` bytes of each of rows x columns: their lines are prefetched a few at a time, between
   micro-kernels. It pays only where images are too large for the cache. */
typedef struct {
    const char *at;
    long row, pixel, rows, columns, bytes;
    long y, x, byte; /* the next line */
    long quota;      /* lines at a time */
} FN(ahead);

/* Pixels of `channels` channels, to be prefetched by `times` calls. */
static FN(ahead) FN(ahead_of)(const T *pixels, const conv_strides *s, long rows, long columns, long channels, long times) {
    enum { SIZE = sizeof(T) };
    FN(ahead) a = {(const char *)pixels, s->row * SIZE, s->pixel * SIZE, rows, columns, channels * SIZE, 0, 0, 0, 0};
    a.quota = ceil_div(rows * columns * ceil_div(a.bytes, LINE_BYTES), times);
    return a;
}

INLINE void FN(prefetch)(FN(ahead) *a) {
    for (long n = a->quota; n > 0 && a->y < a->rows; n--) {
        __builtin_prefetch(a->at + a->y * a->row + a->x * a->pixel + a->byte, 0, 2);
        if ((a->byte += LINE_BYTES) < a->bytes) continue;
        a->byte = 0;
        if (++a->x < a->columns) continue;
        a->x = 0;
        a->y++;
    }
}

