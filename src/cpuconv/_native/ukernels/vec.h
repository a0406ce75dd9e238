/* Vectors of T in the widest registers of the ISA that this file is compiled for. T, FN(name) and VB (bytes) are set by
   the includer; every helper is a template over them. */
typedef T FN(vec) __attribute__((vector_size(VB)));
typedef T FN(vecu) __attribute__((vector_size(VB), aligned(sizeof(T)), may_alias));
typedef T_INT FN(mask) __attribute__((vector_size(VB)));
#define VEC FN(vec)
#define VL ((long)(VB / sizeof(T)))
#define LOAD(p) FN(load)(p)
#define STORE(p, v) (*(FN(vecu) *)(p) = (v))
/* Past the caches: results that they would lose before they are read then push out nothing else, and memory is not read to be overwritten. p: at a multiple
   of VB; lines are to be written whole, at once. Other threads see it after a locked instruction, such as pool_run, and each thread's part of it, ends with. */
#ifdef __x86_64__
typedef float FN(stream) __attribute__((vector_size(VB)));
#if VB == 64
#define STREAM(p, v) __builtin_ia32_movntps512((float *)(p), (FN(stream))(v))
#elif VB == 32
#define STREAM(p, v) __builtin_ia32_movntps256((float *)(p), (FN(stream))(v))
#else
#define STREAM(p, v) __builtin_ia32_movntps((float *)(p), (FN(stream))(v))
#endif
#else
#define STREAM STORE
#endif
/* s - 0 is s, -0 too, which 0 + s is not */
#define SPLAT(s) ((T)(s) - (VEC){0})

/* Whether `length` elements that are written at once, at p and at any number of steps and rows from there, fill cache lines. */
INLINE int FN(whole_lines)(const T *p, long length, long step, long row) { return ((uintptr_t)p | (uintptr_t)(length | step | row) * sizeof(T)) % LINE_BYTES == 0; }

INLINE VEC FN(load)(const T *p) { return *(const FN(vecu) *)p; }

/* NaN in v stays NaN: a comparison with it is false. */
INLINE VEC FN(vmax)(VEC low, VEC v) { return SELECT(FN(mask), low > v, low, v); }
INLINE VEC FN(vmin)(VEC high, VEC v) { return SELECT(FN(mask), high < v, high, v); }

/* n < VL elements. (For memcpy of less than 64 bytes gcc takes "rep movs", some 30 cycles.) */
INLINE void FN(copy_part)(T *restrict to, const T *restrict from, long n) {
    UNROLL for (int some = VB / (int)sizeof(T) / 2; some > 0; some /= 2) {
        if (n < some) continue;
        __builtin_memcpy(to, from, (size_t)some * sizeof(T));
        __builtin_memcpy(to + n - some, from + n - some, (size_t)some * sizeof(T));
        return;
    }
}

INLINE void FN(copy)(T *restrict to, const T *restrict from, long n) {
    if (n < VL) {
        FN(copy_part)(to, from, n);
        return;
    }
    long i = 0;
    for (; i + VL <= n; i += VL) STORE(to + i, LOAD(from + i));
    if (i < n) STORE(to + n - VL, LOAD(from + n - VL));
}

/* First n < VL elements only: nothing beyond them is read or written. */
INLINE VEC FN(load_part)(const T *p, long n) {
    T v[VL] __attribute__((aligned(VB))) = {0};
    FN(copy_part)(v, p, n);
    return LOAD(v);
}
INLINE void FN(store_part)(T *p, VEC v, long n) {
    T all[VL] __attribute__((aligned(VB)));
    STORE(all, v);
    FN(copy_part)(p, all, n);
}

INLINE void FN(zero)(T *to, long n) {
    long i = 0;
    for (; i + VL <= n; i += VL) STORE(to + i, (VEC){0});
    for (; i < n; i++) to[i] = 0;
}
