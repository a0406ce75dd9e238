/* Few input channels in a convolution or each of its groups: NCHW by shifted rows; NHWC by pixel tiles or, grouped, by grouped lanes. */
static long FN(few_channels_packed_size)(const conv_geometry *g) {
    if (!g->nhwc) return g->oc * (g->ic / g->groups) * g->kh * g->kw;
    return g->groups == 1 ? FN(pixels_packed_size)(g) : ceil_div(g->oc, VL) * VL * (g->ic / g->groups) * g->kh * g->kw;
}

static void FN(few_channels_pack)(const conv_geometry *g, const void *weight, void *packed) {
    (!g->nhwc ? FN(shifted_pack) : g->groups == 1 ? FN(pixels_pack) : FN(lanes_pack))(g, weight, packed);
}

static int FN(few_channels)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    return (!g->nhwc ? FN(shifted_rows) : g->groups == 1 ? FN(pixel_tiles) : FN(grouped_lanes))(g, blocking, tensors, act, threads);
}
