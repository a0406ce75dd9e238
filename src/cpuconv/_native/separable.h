/* A depthwise convolution and the 1x1 convolution of its result in one pass: what the first makes of a band of rows stays in cache for the second. */
#ifndef CPUCONV_SEPARABLE_H
#define CPUCONV_SEPARABLE_H
#include "ukernels/conv.h"

/* A convolution with its packed weight and bias. */
typedef struct {
    const conv_family *family;
    conv_geometry g;
    conv_blocking blocking;
    conv_activation act;
    const void *weight, *bias;
} separable_stage;

typedef struct {
    const separable_stage *depthwise; /* [multiplier], of whole images: stage j makes the channels c multiplier + j of the weight, c = 0, 1, ... */
    const separable_stage *pointwise; /* [2]: of bands of `rows` rows, and of a last one with fewer; channels in the order [multiplier][c] */
    long multiplier, rows, size;      /* size: bytes of an element */
    int whole;                        /* images are so small that all threads share each stage of one */
    const void *x, *x_end, *residual; /* residual: may be NULL or y */
    void *y;
    conv_strides xs, ys;
} separable_job;

/* Returns 0, or non-zero where memory is short. */
int separable_run(const separable_job *job, int threads);
#endif
