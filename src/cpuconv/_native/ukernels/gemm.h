/* The GEMM that all families share: tiles of micro-kernels over a B packed in panels. A panel is [k][nr]; the columns of
   B are divided into panels of up to NV_MAX vectors, as even as can be. Of 3, which leave no register over, there is one at most, so that no panel is but
   one vector, whose loads bind. Columns are padded to vectors, or, where that saves time (conv_geometry), the last panel is of half a vector. */
typedef struct {
    const T *a, *b, *z;              /* z: what is added to A B (a residual, or C itself), or NULL */
    T *c;
    const T *bias_n, *bias_m;        /* along columns, along rows; at most one, or both NULL */
    const long *aoff, *coff, *zoff;  /* of rows */
    const segment *segments;
    long count, ldb, step;           /* segments; between rows of B; between columns of A */
    int clip, stream, narrow;        /* stream: C goes past the caches; narrow: of the last vector, half is stored */
    T low, high;
    long span;                       /* elements of B, 0 if it is read in place */
    long next, next_row;             /* from B to what it is next, where that comes from beyond L2, else 0; between rows of that, 0 if it is packed */
    T *copy;                         /* where a B that is read in place is left as a packed panel by the first tile, or NULL */
    long a_next;                     /* from a tile's A to what is prefetched of A, which comes from beyond L2, or 0 */
    long ahead, each;                /* prefetched meanwhile: from A to the first line, of one or two; elements for each row of B */
    long repeat;                     /* tiles that the micro-kernel makes, each so much further on: */
    long a_step, b_step, c_step;     /* (of z too) */
    long bias_n_step, bias_m_step;
#ifdef FINISH
    const int8_finish *finish;       /* or NULL */
#endif
} FN(tile);

typedef void (*FN(ukernel))(const FN(tile) *);
/* Bytes of B that gemm_across passes for each row of tiles. An AVX-512 tile reads 256 of them for 20 multiply-adds, more than L2 gives beside A; one
   of AVX2 64 for 12. */
enum { FN(ACROSS) = VB == 64 ? IN_L1 : 128 << 10 };

/* Vectors of the panels that the first tile copies, and its rows at most. */
enum { FN(COPIED) = NV_MAX == 4 ? 4 : 2, FN(COPYING_ROWS) = 6 };

#define UVEC VEC
#define UVL VL
#define UVECU FN(vecu)
#define UMASK FN(mask)
#define UNV NV_MAX
#define UK(name) FN(gemm_##name)
#include "gemm_ukernel.h"
#undef UVEC
#undef UVL
#undef UVECU
#undef UMASK
#undef UNV
#undef UK

#if HALF_VECTORS
typedef T FN(half) __attribute__((vector_size(VB / 2)));
typedef T_INT FN(halfmask) __attribute__((vector_size(VB / 2)));
typedef T FN(halfu) __attribute__((vector_size(VB / 2), aligned(sizeof(T)), may_alias));
#define UVEC FN(half)
#define UVL (VL / 2)
#define UVECU FN(halfu)
#define UMASK FN(halfmask)
#define UNV 1
#define UK(name) FN(gemm_half_##name)
#include "gemm_ukernel.h"
#undef UVEC
#undef UVL
#undef UVECU
#undef UMASK
#undef UNV
#undef UK
#endif

/* Indexed by `far`, by vectors in the panel (0: half a vector), then by rows - 1. */
static const FN(ukernel) FN(gemm_ukernels)[2][NV_MAX + 1][MR_MAX] = {
#define ROW4(far, nv) FN(gemm_##far##1x##nv), FN(gemm_##far##2x##nv), FN(gemm_##far##3x##nv), FN(gemm_##far##4x##nv)
#define ROW6(far, nv) ROW4(far, nv), FN(gemm_##far##5x##nv), FN(gemm_##far##6x##nv)
#define ROW8(far, nv) ROW6(far, nv), FN(gemm_##far##7x##nv), FN(gemm_##far##8x##nv)
#if VB == 64
#define ROW1(far) ROW8(far, 1), FN(gemm_##far##9x1), FN(gemm_##far##10x1), FN(gemm_##far##11x1), FN(gemm_##far##12x1)
#else
#define ROW1(far) ROW8(far, 1)
#endif
#if HALF_VECTORS
#define HALF {FN(gemm_half_1x1), FN(gemm_half_2x1), FN(gemm_half_3x1), FN(gemm_half_4x1), FN(gemm_half_5x1), FN(gemm_half_6x1), FN(gemm_half_7x1), FN(gemm_half_8x1)}
#else
#define HALF {0}
#endif
#if NV_MAX == 2
#define ROWS(far) {HALF, {ROW1(far)}, {ROW6(far, 2)}}
#elif NV_MAX == 3
#define ROWS(far) {HALF, {ROW1(far)}, {ROW6(far, 2)}, {ROW4(far, 3)}}
#else
#define ROWS(far) {HALF, {ROW1(far)}, {ROW8(far, 2)}, {ROW8(far, 3)}, {ROW6(far, 4)}}
#endif
    ROWS(), ROWS(far_)
#undef ROW4
#undef ROW6
#undef ROW8
#undef ROW1
#undef HALF
#undef ROWS
};
#ifdef T_IS_FLOAT
static const FN(ukernel) FN(gemm_copying)[FN(COPYING_ROWS)] = {FN(gemm_copying_1), FN(gemm_copying_2), FN(gemm_copying_3), FN(gemm_copying_4), FN(gemm_copying_5), FN(gemm_copying_6)};
#endif
/* Rows of the tallest tiles, of short sums and of long ones, by vectors of a panel. AVX-512 has registers for more, but stores of more than some 18 accumulators at once hold
   up the next tile (on a Zen 4, those of 20 cost a cycle each). For long sums that weighs less than loads of B, which taller tiles share. Of one vector, 8 accumulators just hide the latency of
   two multiply-adds a cycle; 12 are 1.02 to 1.05 times as fast, more no faster (Zen 5). */
enum { FN(LONG_SUM) = 128 };
#if VB == 64
static const int FN(gemm_mr)[2][5] = {{8, 12, 7, 5, 4}, {8, 12, 8, 7, 6}};
#else
#define HEIGHTS {8, 8, NV_MAX <= 3 ? 6 : 8, NV_MAX == 3 ? 4 : 8, 6}
static const int FN(gemm_mr)[2][5] = {HEIGHTS, HEIGHTS};
#undef HEIGHTS
#endif

/* The same for panels of nv vectors, nr elements. B that is not packed is read from further away: the fewer times, the better. */
INLINE int FN(tallest)(const FN(tile) *t, int nv, long nr) { return FN(gemm_mr)[(t->ldb != nr && !t->copy) || t->span >= FN(LONG_SUM) * nr][nv]; }

typedef struct {
    int nv;
    long column, nr, valid; /* first column, columns with padding, columns without */
} FN(panel);

/* Whether the first of `rows` rows of tiles can leave a B that is read in place as a packed panel, for others to come. */
INLINE int FN(copies)(const FN(panel) *p, long rows) { return p->nv == FN(COPIED) && p->valid == p->nr && rows > FN(COPYING_ROWS); }

/* Panels of v whole vectors. */
INLINE long FN(whole_panels)(long v) { return NV_MAX == 3 ? MAX(v > 0, v / 2) : (v + NV_MAX - 1) / NV_MAX; }

/* Vectors that divide some columns, and whether there is one of half a vector besides. */
INLINE long FN(vectors)(conv_columns columns, int *half) {
    const long v = columns.count / VL, rest = columns.count % VL;
    *half = HALF_VECTORS && rest && rest <= VL / 2 && (columns.halves || !v);
    return v + (rest && !*half);
}

INLINE long FN(panel_count)(conv_columns columns) {
    int half;
    const long v = FN(vectors)(columns, &half);
    return FN(whole_panels)(v) + half;
}

/* Panel `index` of the ones that divide some columns. */
INLINE FN(panel) FN(panel_at)(conv_columns columns, long index) {
    int half;
    const long v = FN(vectors)(columns, &half), count = FN(whole_panels)(v);
    if (index == count) return (FN(panel)){0, v * VL, VL / 2, columns.count - v * VL};
    /* in 32 bits: of 64, a division takes as long as many multiply-adds */
    long each = (uint32_t)v / (uint32_t)count, wide = v - each * count, nv = each + (index < wide);
    long column = VL * (index * each + (index < wide ? index : wide)), left = columns.count - column;
    return (FN(panel)){(int)nv, column, nv * VL, left < nv * VL ? left : nv * VL};
}

/* Columns of the packed form. */
INLINE long FN(padded)(conv_columns columns) {
    FN(panel) last = FN(panel_at)(columns, FN(panel_count)(columns) - 1);
    return last.column + last.nr;
}

/* Whether of the panel's last vector just half exists: tiles store that much of it (but do not add to it), and are not computed apart. On an Intel Xeon,
   and with AVX2, 1x1 of 24 (12) outputs take 0.84 to 0.9 of the time of a panel of one vector and another of half a one, whose loads bind; 40 to 120 take 0.9 to 1.0. */
INLINE int FN(ends_in_half)(const FN(tile) *t, const FN(panel) *p) { return HALF_VECTORS && p->nv >= 2 && p->valid == p->nr - VL / 2 && !t->z; }

static long FN(gemm_packed_size)(conv_columns columns, long k) { return k * FN(padded)(columns); }

/* A tile whose last columns do not exist: computed apart and copied. */
IN_MEMORY static void FN(gemm_edge)(const FN(tile) *t, const FN(panel) *p, long height) {
    T c[MR_MAX * 4 * VL] __attribute__((aligned(64)));
    long offsets[MR_MAX];
    FN(tile) whole = *t;
    for (long i = 0; i < height; i++) {
        offsets[i] = i * p->nr;
        if (!t->z) continue;
        FN(copy)(c + offsets[i], t->z + t->zoff[i], p->valid);
        FN(zero)(c + offsets[i] + p->valid, p->nr - p->valid);
    }
    whole.repeat = 1;
    whole.stream = 0;
    whole.c = c;
    whole.coff = whole.zoff = offsets;
    if (t->z) whole.z = c;
    FN(gemm_ukernels)[0][p->nv][height - 1](&whole);
    for (long i = 0; i < height; i++) FN(copy)(t->c + t->coff[i], c + offsets[i], p->valid);
}

/* Tile `index` of `count` on one panel, and as many after it, `most` in all, as need nothing else; returns their number. The first ones fetch what B
   is next, a share of each row of B that is half a line, or up to two where tiles are few: were all of it read by the first tile of the next product, that one
   would wait for L3, and Winograd of many channels took up to 1.8 times as long. The shares are as even as can be (of three tiles 4/3 lines each: a Xeon,
   whose L3 gives little at a time, needs 0.95 of the time of two lines in two of them). */
INLINE long FN(gemm_some)(FN(tile) *t, const int far, long nv, long height, long index, long count, long most) {
#ifdef T_IS_FLOAT
    if (t->copy) {
        t->repeat = 1;
        t->bias_m_step = height;
        FN(gemm_copying)[height - 1](t);
        t->b = t->copy;
        t->ldb = nv * VL;
        t->copy = NULL;
        return 1;
    }
#endif
    const int rows = t->next_row > 0;
    const long even = VL / 2 * ceil_div(2 * (int)nv, (int)count), share = rows ? 2 * VL : MIN(2 * VL, MAX(LINE_BYTES / 2 / (long)sizeof(T), even)), fetches = far && share * index < nv * VL;
    if (fetches) { /* of rows of their own a line of each, and the one before it of the next row */
        const long next = t->b + t->segments->b * t->ldb + t->next - (t->a + t->segments->a); /* from A */
        t->ahead = next + (rows ? VL * (2 * index + 1) : t->span / (nv * VL) * share * index);
        t->each = rows ? t->next_row : share;
    } else if (t->a_next) {
        t->ahead = t->a_next;
        t->each = height;
    }
    t->repeat = fetches ? 1 : most;
    t->bias_m_step = height;
    FN(gemm_ukernels)[fetches || t->a_next][nv][height - 1](t);
    return t->repeat;
}

/* The tile, and what it adds, `rows` rows of even steps further down. */
INLINE void FN(step_down)(FN(tile) *t, long rows, long a_step, long c_step) {
    t->a += rows * a_step;
    t->c += rows * c_step;
    if (t->z) t->z += rows * c_step;
    if (t->bias_m) t->bias_m += rows;
}

INLINE void FN(next_offsets)(FN(tile) *t, long rows) {
    t->aoff += rows;
    t->coff += rows;
    t->zoff += rows;
}

/* All tiles of `rows` rows on one panel, in heights as even as can be. After a tile of h rows, A, C and z are h times their steps further on,
   or, where those are 0, the offsets of rows are. */
INLINE void FN(gemm_tiles)(FN(tile) t, const FN(panel) *p, long rows, long a_step, long c_step) {
    const int nv = p->nv, far = t.next != 0, mr = FN(tallest)(&t, nv, p->nr), tiles = ((int)rows + mr - 1) / mr, low = (int)rows / tiles, higher = (int)rows % tiles;
    t.narrow = FN(ends_in_half)(&t, p);
    const int copied = t.copy != NULL; /* by a tile that fetches nothing */
    for (long i = 0, some; i < tiles; i += some) {
        const long height = low + (i < higher);
        t.a_step = height * a_step;
        t.c_step = height * c_step;
        if (p->valid == p->nr || t.narrow) some = FN(gemm_some)(&t, far, nv, height, i - copied, tiles, c_step ? (i < higher ? higher : tiles) - i : 1);
        else {
            FN(gemm_edge)(&t, p, height);
            some = 1;
        }
        FN(step_down)(&t, some * height, a_step, c_step);
        if (!c_step) FN(next_offsets)(&t, height);
    }
}

/* Rows at any offsets. */
IN_MEMORY static void FN(gemm_rows)(const FN(tile) *tile, const FN(panel) *p, long rows, const long *aoff, const long *coff, const long *zoff) {
    FN(tile) t = *tile;
    t.aoff = aoff;
    t.coff = coff;
    t.zoff = zoff;
    FN(gemm_tiles)(t, p, rows, 0, 0);
}

/* Rows as far from each other, a_step in A, c_step in C and z. */
IN_MEMORY static void FN(gemm_even_rows)(const FN(tile) *tile, const FN(panel) *p, long rows, long a_step, long c_step) {
    long aoff[MR_MAX], coff[MR_MAX];
    for (long i = 0; i < MR_MAX; i++) {
        aoff[i] = i * a_step;
        coff[i] = i * c_step;
    }
    FN(tile) t = *tile;
    t.aoff = aoff;
    t.coff = t.zoff = coff;
    FN(gemm_tiles)(t, p, rows, a_step, c_step);
}

/* Kinds of panels in gemm_across: wide ones, narrower ones, one with padding, one of half a vector. */
enum { FN(KINDS) = 4 };

/* The next panel for gemm_across: one more of the last kind, or a new kind. */
INLINE void FN(add_panel)(FN(tile) *t, const FN(panel) *p, FN(tile) *tiles, FN(panel) *panels, long *kinds) {
    FN(tile) *last = tiles + *kinds - 1;
    if (*kinds && p->nr == panels[*kinds - 1].nr && p->valid == p->nr && t->ldb == last->ldb) {
        last->repeat++;
        return;
    }
    t->repeat = 1;
    t->c_step = p->nr;
    t->bias_n_step = p->nr;
    tiles[*kinds] = *t;
    panels[(*kinds)++] = *p;
}

/* Some panels whose columns of C follow each other (tiles[i]: of panels[i] and its equals, `repeat` in all), one row of tiles after another, so that
   A is read once and C is written in the order of memory. Rows at any offsets, or, where those are NULL, as far from each other. */
IN_MEMORY static void FN(gemm_across)(FN(tile) *tiles, const FN(panel) *panels, long count, long rows, const long *aoff, const long *coff, long a_step,
                                      long c_step) {
    long first_a[MR_MAX], first_c[MR_MAX];
    const int even = !aoff;
    for (long i = 0; even && i < MR_MAX; i++) {
        first_a[i] = i * a_step;
        first_c[i] = i * c_step;
    }
    for (long j = 0; j < count; j++) {
        tiles[j].aoff = even ? first_a : aoff;
        tiles[j].narrow = FN(ends_in_half)(tiles + j, panels + j);
        tiles[j].coff = tiles[j].zoff = even ? first_c : coff;
    }
    const int mr = MIN(FN(gemm_mr)[0][panels[0].nv], FN(gemm_mr)[0][panels[count - 1].nv]); /* of the widest, and of half a vector if that is the last */
    const int n = ((int)rows + mr - 1) / mr, low = (int)rows / n, higher = (int)rows % n;
    for (int i = 0; i < n; i++) {
        const long height = low + (i < higher);
        for (long j = 0; j < count; j++) {
            if (panels[j].valid == panels[j].nr || tiles[j].narrow) FN(gemm_ukernels)[0][panels[j].nv][height - 1](tiles + j);
            else FN(gemm_edge)(tiles + j, panels + j, height);
            if (even) FN(step_down)(tiles + j, height, a_step, c_step);
            else FN(next_offsets)(tiles + j, height);
        }
    }
}

INLINE void FN(set_clip)(FN(tile) *t, const conv_activation act) {
    t->clip = act.kind == ACT_CLIP;
    t->low = (T)act.a;
    t->high = (T)act.b;
}
