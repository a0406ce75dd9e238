/* What the GEMM of 8-bit integers needs to make bytes of sums. */
typedef float f32x __attribute__((vector_size(VB)));
typedef float f32xu __attribute__((vector_size(VB), aligned(sizeof(float)), may_alias));
typedef int8_t i8x __attribute__((vector_size(VB / 4)));

typedef struct {
    float low, high; /* what the rounded numbers are clipped to, before y's zero point is added */
    int32_t zero;
    int is_signed;
} int8_range;

static int8_range int8_range_of(int y_signed, int y_zero) {
    return (int8_range){(float)((y_signed ? -128 : 0) - y_zero), (float)((y_signed ? 127 : 255) - y_zero), y_zero, y_signed};
}

/* Of numbers, not NaN: then they are one instruction, for which GNU vectors have no word. */
INLINE f32x float_max(f32x a, f32x b) {
#if defined(__AVX512F__) && VB == 64
    return (f32x)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__) && VB == 32
    return (f32x)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (f32x)_mm_max_ps((__m128)a, (__m128)b);
#else
    return SELECT(VEC, a > b, a, b);
#endif
}
INLINE f32x float_min(f32x a, f32x b) {
#if defined(__AVX512F__) && VB == 64
    return (f32x)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX__) && VB == 32
    return (f32x)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (f32x)_mm_min_ps((__m128)a, (__m128)b);
#else
    return SELECT(VEC, a < b, a, b);
#endif
}

#if defined(__AVX512BW__) && VB == 64 && DOT_LENGTH == 4
/* The sums of a panel of 4 VL columns to bytes, the columns in the order that panel_to_lanes gives them. Conversions round half to even, and packing
   saturates, for which GNU vectors have no words. Numbers of 2^31 and more would be converted to -2^31: `clip` is for scales that may make such, of 1 and more. */
INLINE VEC requantized_panel(const int8_range range, const VEC *sum, const f32xu *scales, const int step, const int clip) {
    __m512i v[4];
    UNROLL for (int j = 0; j < 4; j++) {
        f32x scaled = __builtin_convertvector(sum[j], f32x) * scales[j * step];
        if (clip) scaled = float_min(2147483520.f - (f32x){0}, scaled);
        v[j] = _mm512_cvtps_epi32((__m512)scaled);
    }
    const __m512i zero = _mm512_set1_epi16((short)range.zero);
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(v[0], v[1]), zero), high = _mm512_adds_epi16(_mm512_packs_epi32(v[2], v[3]), zero);
    return (VEC)(range.is_signed ? _mm512_packs_epi16(low, high) : _mm512_packus_epi16(low, high));
}
INLINE void panel_to_lanes(const int32_t *restrict from, int32_t *restrict to) {
    for (long n = 0; n < 4 * VL; n++) to[n / 4 % 4 * VL + n / 16 * 4 + n % 4] = from[n];
}

/* Bytes of four rows to lanes of that order. */
INLINE void rows_to_panel(const uint32_t flip, const uint8_t *from, long row, VEC *to) {
    __m512i r[4];
    UNROLL for (int i = 0; i < 4; i++) r[i] = _mm512_xor_si512(_mm512_loadu_si512(from + i * row), _mm512_set1_epi32((int)flip));
    UNROLL for (int half = 0; half < 2; half++) {
        const __m512i a = half ? _mm512_unpackhi_epi8(r[0], r[1]) : _mm512_unpacklo_epi8(r[0], r[1]);
        const __m512i b = half ? _mm512_unpackhi_epi8(r[2], r[3]) : _mm512_unpacklo_epi8(r[2], r[3]);
        to[2 * half] = (VEC)_mm512_unpacklo_epi16(a, b);
        to[2 * half + 1] = (VEC)_mm512_unpackhi_epi16(a, b);
    }
}

/* Makes bytes of the sums of whole panels, instead of storing them: `bytes` lies as `origin` would, where the sums were to be stored. */
typedef struct {
    int8_range range;
    const float *scale;   /* of columns, in the order of lanes, or of rows */
    const int32_t *first; /* the bias of the first row */
    int clip;
    const int32_t *origin;
    uint8_t *bytes;
} int8_finish;

INLINE void finish_bytes(const int8_finish *f, const VEC *sum, const f32xu *scale, const int step, const int32_t *at) {
    const VEC v = f->clip ? requantized_panel(f->range, sum, scale, step, 1) : requantized_panel(f->range, sum, scale, step, 0);
    STORE((int32_t *)(f->bytes + (at - f->origin)), v);
}
/* Rows are pixels, columns channels; or rows are channels. `row`: where the row's bias lies, if rows have one. */
INLINE void finish_channels(const int8_finish *f, const VEC *sum, const int32_t *at, const int32_t *row) {
    (void)row;
    finish_bytes(f, sum, (const f32xu *)f->scale, 1, at);
}
INLINE void finish_pixels(const int8_finish *f, const VEC *sum, const int32_t *at, const int32_t *row) {
    const f32xu scale = f->scale[row - f->first] - (f32x){0};
    finish_bytes(f, sum, &scale, 0, at);
}
#define PANEL_BYTES
#endif
