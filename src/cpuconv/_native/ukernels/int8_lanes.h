/* VB bytes as four vectors of lanes: lane i of vector j is number 4 i + j of the bytes, so bit operations bring bytes into lanes, and results into bytes. */
typedef uint32_t u32x __attribute__((vector_size(VB)));
typedef int16_t i16x __attribute__((vector_size(VB)));

/* Bits of a where the mask has ones, else of b: in this form, one instruction of AVX-512. */
INLINE u32x selected(u32x a, u32x b, const uint32_t mask) { return b ^ ((a ^ b) & mask); }

/* The numbers in the odd places of a change places with those in the even places of b; a place is `bits` wide. */
INLINE void exchange(u32x *a, u32x *b, const int bits, const uint32_t even) {
    const u32x x = *a, y = *b;
    *a = selected(x, y << bits, even);
    *b = selected(x >> bits, y, even);
}

/* Bytes of DOT_LENGTH rows to four vectors of lanes. */
INLINE void rows_to_lanes(const int8_reading how, const u32x *rows, VEC *to) {
    const uint32_t flip = how.flip * 0x01010101u;
    u32x t[DOT_LENGTH];
    UNROLL for (int r = 0; r < DOT_LENGTH; r++) t[r] = rows[r] ^ flip;
#if DOT_LENGTH == 4
    exchange(t, t + 1, 8, 0x00ff00ff);
    exchange(t + 2, t + 3, 8, 0x00ff00ff);
    exchange(t, t + 2, 16, 0xffff);
    exchange(t + 1, t + 3, 16, 0xffff);
    UNROLL for (int j = 0; j < 4; j++) to[j] = (VEC)t[j];
#else
    const i16x zero = (i16x){0} + (int16_t)how.zero;
    u32x even[2], odd[2];
    UNROLL for (int r = 0; r < 2; r++) {
        even[r] = (u32x)((i16x)(t[r] & 0x00ff00ff) - zero);
        odd[r] = (u32x)((i16x)((t[r] >> 8) & 0x00ff00ff) - zero);
    }
    exchange(even, even + 1, 16, 0xffff);
    exchange(odd, odd + 1, 16, 0xffff);
    to[0] = (VEC)even[0], to[1] = (VEC)odd[0], to[2] = (VEC)even[1], to[3] = (VEC)odd[1];
#endif
}

/* VB sums in four vectors of lanes to bytes in order; scales: of each vector, `step` (0 or 1) vectors apart. */
INLINE VEC requantized_lanes(const int8_range range, const VEC *sum, const f32xu *scales, const int step) {
    u32x b[4];
    UNROLL for (int j = 0; j < 4; j++) b[j] = (u32x)rounded(range, sum[j], scales[j * step]);
    return to_bytes(range, (VEC)selected(selected(b[0], b[1] << 8, 0x00ff00ff), selected(b[2], b[3] << 8, 0x00ff00ff) << 16, 0xffff));
}

/* 4 VL numbers to the order of lanes. */
INLINE void to_lanes(const int32_t *restrict from, int32_t *restrict to) {
    for (long j = 0; j < 4; j++)
        for (long i = 0; i < VL; i++) to[j * VL + i] = from[4 * i + j];
}

#ifndef PANEL_BYTES
/* As those of int8_panel.h. */
INLINE VEC requantized_panel(const int8_range range, const VEC *sum, const f32xu *scales, const int step, const int clip) {
    return (void)clip, requantized_lanes(range, sum, scales, step);
}
INLINE void panel_to_lanes(const int32_t *restrict from, int32_t *restrict to) { to_lanes(from, to); }
#endif
