/* Dot products of 8-bit integers: a 32-bit lane holds DOT_LENGTH elements of the sum. acc + a . b in every lane, modulo 2^32, exact.
   With 8-bit dot products (VNNI, NEON dotprod) an element is a byte, and one operand's sign is that of the instruction; without
   them an element is 16 bits wide, which vpmaddubsw would saturate in and vpmaddwd does not. Intrinsics, for GNU vectors have no word for these. */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)
#define DOT_LENGTH 4
typedef uint8_t element;
#else
#define DOT_LENGTH 2
typedef int16_t element;
#endif
#ifdef __ARM_FEATURE_DOTPROD
#define X_SIGNED 1
#else
#define X_SIGNED 0
#endif
#if defined(__x86_64__) && VB > 16 || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

/* a: of the image (u8 for VNNI, else signed), b: of the weight (signed). */
INLINE VEC dot(VEC acc, VEC a, VEC b) {
#if defined(__AVX512VNNI__)
    return (VEC)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#elif defined(__AVXVNNI__)
    return (VEC)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)a, (__m256i)b);
#elif defined(__AVX512BW__)
    return acc + (VEC)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return acc + (VEC)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return acc + (VEC)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__ARM_FEATURE_DOTPROD)
    return (VEC)vdotq_s32((int32x4_t)acc, (int8x16_t)a, (int8x16_t)b);
#else
    return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}
