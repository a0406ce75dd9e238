/* Few input channels in a convolution or each of its groups: NCHW by shifted rows, NHWC by grouped lanes. */
static long FN(few_channels_packed_size)(const conv_geometry *g) {
    return (g->nhwc ? ceil_div(g->oc, VL) * VL : g->oc) * (g->ic / g->groups) * g->kh * g->kw;
}

static void FN(few_channels_pack)(const conv_geometry *g, const void *weight, void *packed) {
    (g->nhwc ? FN(lanes_pack) : FN(shifted_pack))(g, weight, packed);
}

static int FN(few_channels)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    return (g->nhwc ? FN(grouped_lanes) : FN(shifted_rows))(g, blocking, tensors, act, threads);
}
