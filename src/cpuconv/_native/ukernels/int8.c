/* The kernels of 8-bit integers, compiled once per ISA: those of implicit_gemm.h with 32-bit lanes for elements, each of them a few channels,
   and dot products for multiply-adds. */
#include "common.h"
#pragma GCC diagnostic ignored "-Wunused-function" /* not all that the templates hold is used for integers */

#undef T
#undef T_INT
#undef T_IS_FLOAT
#undef FN
#undef HALF_VECTORS
#undef VL_IS
#define T int32_t
#define VL_IS(n) (VB == 4 * (n))
#define T_INT int32_t
#define HALF_VECTORS 0
#if VB == 64 || defined(__aarch64__)
#define NV_MAX 4
#else
#define NV_MAX 2
#endif
#undef MULTIPLY_ADD
/* The product turned round: rows are of the weight, vectors of pixels. */
#define FN(name) p32_##name
#define MULTIPLY_ADD(acc, s, b) dot(acc, b, SPLAT(s))
#include "vec.h"
#include "dot.h"
#include "int8_panel.h"
#ifdef PANEL_BYTES
#define FINISH finish_pixels
#endif
#include "gemm.h"
#undef FN
#undef MULTIPLY_ADD
#undef FINISH
#ifdef PANEL_BYTES
#define FINISH finish_channels
#endif

#define FN(name) i32_##name
#define MULTIPLY_ADD(acc, s, b) dot(acc, SPLAT(s), b)
#include "vec.h"
/* Integers have no activations. */
INLINE VEC i32_activated(const conv_activation act, VEC v) { return (void)act, v; }
INLINE void i32_activate(conv_activation act, void *y, long n) { (void)act, (void)y, (void)n; }
#include "gemm.h"
#include "transpose.h"
#include "columns.h"
#include "dot_rows.h"
#include "implicit_gemm.h"
#include "int8_strip.h"
#include "int8_output.h"
#include "int8_lanes.h"
#include "int8_gemm.h"
#include "int8_channels.h"
#include "int8_run.h"
#include "int8_depthwise.h"
#include "int8_depthwise_planes.h"

const int8_ukernels NAME(int8_) = {
    .dot_length = DOT_LENGTH,
    .x_signed = X_SIGNED,
    .gemm_form = int8_gemm_form,
    .gemm_packed_size = int8_gemm_packed_size,
    .gemm_pack = int8_gemm_pack,
    .gemm = int8_gemm,
    .depthwise = int8_depthwise,
};
