/* Activations over n contiguous elements, in place. Formulas and constants: Cephes (exp, tanh); Abramowitz and Stegun
   7.1.26 (erf, absolute error 1.5e-7, float32 only). float64 calls the C library. */
#if T_IS_FLOAT
INLINE VEC FN(vexp)(VEC x) {
    const FN(mask) infinite = x > 88.7228394f;
    x = FN(vmin)(SPLAT(88.3762626647949f), FN(vmax)(SPLAT(-87.3365447505f), x));
    VEC shifted = x * SPLAT(1.44269504088896341f) + SPLAT(12582912.f); /* rounds to an integer in the low mantissa bits */
    VEC n = shifted - SPLAT(12582912.f);
    FN(mask) power = ((FN(mask))shifted - (FN(mask))SPLAT(12582912.f) + 127) << 23;
    VEC r = x - n * SPLAT(0.693359375f) + n * SPLAT(2.12194440e-4f);
    VEC p = SPLAT(1.9875691500e-4f);
    p = p * r + SPLAT(1.3981999507e-3f);
    p = p * r + SPLAT(8.3334519073e-3f);
    p = p * r + SPLAT(4.1665795894e-2f);
    p = p * r + SPLAT(1.6666665459e-1f);
    p = p * r + SPLAT(5.0000001201e-1f);
    const VEC y = (p * r * r + r + 1.f) * (VEC)power, infinity = SPLAT(INFINITY);
    return SELECT(FN(mask), infinite, infinity, y);
}
INLINE VEC FN(vsigmoid)(VEC x) { return 1.f / (1.f + FN(vexp)(-x)); }
INLINE VEC FN(vtanh)(VEC x) {
    VEC z = x * x, p = SPLAT(-5.70498872745e-3f);
    p = p * z + SPLAT(2.06390887954e-2f);
    p = p * z + SPLAT(-5.37397155531e-2f);
    p = p * z + SPLAT(1.33314422036e-1f);
    p = p * z + SPLAT(-3.33332819422e-1f);
    VEC near = p * z * x + x, far = 1.f - 2.f / (FN(vexp)(2.f * x) + 1.f);
    return SELECT(FN(mask), z < 0.390625f, near, far);
}
INLINE VEC FN(verf)(VEC x) {
    VEC size = (VEC)((FN(mask))x & 0x7fffffff), t = 1.f / (1.f + 0.3275911f * size);
    VEC p = SPLAT(1.061405429f);
    p = p * t + SPLAT(-1.453152027f);
    p = p * t + SPLAT(1.421413741f);
    p = p * t + SPLAT(-0.284496736f);
    p = p * t + SPLAT(0.254829592f);
    VEC y = 1.f - p * t * FN(vexp)(-size * size);
    return (VEC)((FN(mask))y | ((FN(mask))x & (int)0x80000000));
}
#else
#define LIBM(name, f) INLINE VEC FN(name)(VEC x) { for (long l = 0; l < VL; l++) x[l] = f(x[l]); return x; }
LIBM(vtanh, tanh)
LIBM(verf, erf)
LIBM(vexp, exp)
#undef LIBM
INLINE VEC FN(vsigmoid)(VEC x) { return 1. / (1. + FN(vexp)(-x)); }
#endif

INLINE VEC FN(activate_vector)(const conv_activation act, VEC v) {
    switch (act.kind) {
    case ACT_CLIP: return FN(vmin)(SPLAT(act.b), FN(vmax)(SPLAT(act.a), v));
    case ACT_LEAKY_RELU: {
        VEC zero = {0};
        return FN(vmax)(zero, v) + (T)act.a * FN(vmin)(zero, v);
    }
    case ACT_SIGMOID: return FN(vsigmoid)(v);
    case ACT_TANH: return FN(vtanh)(v);
    case ACT_SILU: return v * FN(vsigmoid)(v);
    case ACT_HARDSIGMOID: return FN(vmin)(SPLAT(1), FN(vmax)(SPLAT(0), v / (T)6 + (T)0.5));
    case ACT_HARDSWISH: return v * FN(vmin)(SPLAT(1), FN(vmax)(SPLAT(0), v / (T)6 + (T)0.5));
    case ACT_GELU: return (T)0.5 * v * (1 + FN(verf)(v * (T)0.70710678118654752440));
    default: return v;
    }
}

/* For kernels that finish vector by vector: the cheap ones inline, the others as a call. */
static __attribute__((noinline)) VEC FN(activate_call)(const conv_activation act, VEC v) { return FN(activate_vector)(act, v); }
INLINE VEC FN(activated)(const conv_activation act, VEC v) {
    if (act.kind == ACT_NONE) return v;
    if (act.kind == ACT_CLIP) return FN(vmin)(SPLAT(act.b), FN(vmax)(SPLAT(act.a), v));
    return FN(activate_call)(act, v);
}

/* The tail goes through a whole vector too, so an element's value does not depend on where in a row it stands. */
INLINE void FN(activate_row)(const conv_activation act, T *y, long n) {
    long i = 0;
    for (; i + VL <= n; i += VL) STORE(y + i, FN(activate_vector)(act, LOAD(y + i)));
    if (i < n) FN(store_part)(y + i, FN(activate_vector)(act, FN(load_part)(y + i, n - i)), n - i);
}

static void FN(activate)(conv_activation act, void *y, long n) {
    switch (act.kind) { /* a loop of its own for each */
#define ROW(k) case k: act.kind = k; FN(activate_row)(act, y, n); break;
    ROW(ACT_CLIP) ROW(ACT_LEAKY_RELU) ROW(ACT_SIGMOID) ROW(ACT_TANH)
    ROW(ACT_SILU) ROW(ACT_HARDSIGMOID) ROW(ACT_HARDSWISH) ROW(ACT_GELU)
#undef ROW
    }
}
