/* Few input channels in a convolution or each of its groups: shifted rows, or tiles of rows. */
static long FN(few_channels_packed_size)(const conv_geometry *g) { return g->oc * (g->ic / g->groups) * g->kh * g->kw; }

static int FN(few_channels)(const conv_geometry *g, const conv_blocking *blocking, const conv_tensors *tensors, conv_activation act, int threads) {
    conv_geometry plane = *g;
    conv_tensors of_plane = *tensors;
    if (FN(mix_channels)(&plane, &of_plane)) return FN(row_tiles)(&plane, blocking, &of_plane, act, g->ic, threads);
    return FN(in_row_tiles)(g, 0) ? FN(row_tiles)(g, blocking, tensors, act, 0, threads) : FN(shifted_rows)(g, blocking, tensors, act, threads);
}
