/* All kernels for one element type, and the table of them. */
#include "vec.h"
/* 32 registers hold tiles of up to four vectors' width, 16 of up to three; of two without fused multiply-add, whose products need one more. */
#if VB == 64 || defined(__aarch64__)
#define NV_MAX 4
#elif VB == 32
#define NV_MAX 3
#else
#define NV_MAX 2
#endif
#include "activation.h"
#include "gemm.h"
#include "transpose.h"
#include "columns.h"
#include "dot_rows.h"
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
#include "shifted_rows.h"
#include "row_tiles.h"
#include "grouped_lanes.h"
#include "few_channels.h"
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
    .depthwise = FN(depthwise),
    .involution = FN(involution),
    .weight_gemm = FN(weight_gemm),
    .weight_depthwise = FN(weight_depthwise),
    .im2col = FN(im2col),
    .few_channels_packed_size = FN(few_channels_packed_size),
    .few_channels_pack = FN(few_channels_pack),
    .few_channels = FN(few_channels),
    .grouped_lanes_packed_size = FN(grouped_lanes_packed_size),
    .grouped_lanes_pack = FN(grouped_lanes_pack),
    .grouped_lanes = FN(grouped_lanes),
};
#undef NV_MAX
#undef VEC
#undef VL
#undef LOAD
#undef STORE
#undef SPLAT
