/* Few input channels in a convolution or each of its groups: grouped lanes where NHWC has vectors of channels, else shifted rows, or tiles of rows. */
INLINE int FN(in_lanes)(const conv_geometry *g) { return g->nhwc && MIN(g->ic, g->oc) >= VL; }

static long FN(few_channels_packed_size)(const conv_geometry *g) {
    return (FN(in_lanes)(g) ? ceil_div(g->oc, VL) * VL : g->oc) * (g->ic / g->groups) * g->kh * g->kw;
}

static void FN(few_channels_pack)(const conv_geometry *g, const void *weight, void *packed) {
    (FN(in_lanes)(g) ? FN(lanes_pack) : FN(shifted_pack))(g, weight, packed);
}

static int FN(few_channels)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    return (FN(in_lanes)(g) ? FN(grouped_lanes) : FN(in_row_tiles)(g) ? FN(row_tiles) : FN(shifted_rows))(g, blocking, tensors, act, threads);
}
