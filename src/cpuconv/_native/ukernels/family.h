/* All kernels for one element type, and the table of them. */
#include "vec.h"
/* 32 registers hold tiles of up to four vectors' width, 16 of two. */
#if VB == 64 || defined(__aarch64__)
#define NV_MAX 4
#else
#define NV_MAX 2
#endif
#include "activation.h"
#include "gemm.h"
#include "transpose.h"
#include "columns.h"
#include "implicit_gemm.h"
#include "im2col.h"
#include "weight_gemm.h"
#include "ahead.h"
#include "winograd_transforms.h"
#include "winograd_pack.h"
#include "winograd.h"
#include "depthwise_planes.h"
#include "depthwise.h"
#include "weight_depthwise.h"
#include "involution.h"
static const conv_family FN(FAMILY) = {
    .gemm_packed_size = FN(gemm_packed_size),
    .gemm_pack = FN(gemm_pack),
    .gemm_weight_size = FN(gemm_weight_size),
    .gemm_bias_columns = FN(gemm_bias_columns),
    .implicit_gemm = FN(implicit_gemm),
    .winograd_packed_size = FN(winograd_packed_size),
    .winograd_pack = FN(winograd_pack),
    .winograd_workspace = FN(winograd_workspace),
    .winograd = FN(winograd),
    .depthwise_packed_size = FN(depthwise_packed_size),
    .depthwise_pack = FN(depthwise_pack),
    .depthwise_by_planes = FN(depthwise_by_planes),
    .depthwise = FN(depthwise),
    .involution = FN(involution),
    .weight_gemm = FN(weight_gemm),
    .weight_depthwise = FN(weight_depthwise),
    .im2col = FN(im2col),
};
#undef NV_MAX
#undef VEC
#undef VL
#undef LOAD
#undef STORE
#undef SPLAT
