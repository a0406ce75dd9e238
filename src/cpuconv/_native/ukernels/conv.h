/* What the framework (Python, Cython) and the micro-kernels agree on. One `ukernels` table is exported per ISA. */
#ifndef CPUCONV_CONV_H
#define CPUCONV_CONV_H
#include <stddef.h>
#include <stdint.h>

/* One forward convolution; sizes in elements. ic and oc count all groups. */
typedef struct {
    long n, ic, ih, iw, oc, kh, kw, sh, sw, pt, pl, dh, dw, groups, oh, ow;
    int nhwc;
    int halves; /* as in conv_columns, of products that make output channels */
} conv_geometry;

/* Columns of a product, which panels divide; whether the last of these may be half a vector after whole ones, which pays where two of those are
   multiplied as fast as one. */
typedef struct {
    long count;
    int halves;
} conv_columns;

enum { ACT_NONE, ACT_CLIP, ACT_LEAKY_RELU, ACT_SIGMOID, ACT_TANH, ACT_SILU, ACT_HARDSIGMOID, ACT_HARDSWISH, ACT_GELU };

typedef struct {
    int kind;
    double a, b; /* clip: low, high; leaky_relu: slope */
} conv_activation;

/* Elements between two images, channels, rows and pixels. NHWC: channels lie side by side. */
typedef struct {
    long image, channel, row, pixel;
} conv_strides;

typedef struct {
    const void *x, *weight, *bias, *residual; /* weight: packed; bias: packed, never NULL; residual: may be NULL or y */
    void *y;
    const void *x_begin, *x_end; /* nothing before and nothing from there on is read */
    conv_strides xs, ys;         /* of x; of y and residual */
} conv_tensors;

/* A weight anywhere in memory, and what lies between two of its output channels, input channels, rows and columns of taps, in elements.
   Taps turned round lie at negative distances. */
typedef struct {
    const void *first, *end; /* nothing from the end on is read */
    long output, channel, row, column;
} conv_weight;

/* One spatial axis. */
typedef struct {
    long in, out, taps, stride, pad, dilation;
} conv_axis;

/* A weight's gradient: contiguous, HWIO or OIHW, of x and the gradient of y. 3-D: depth, and elements between slices; 2-D is of depth 1. */
typedef struct {
    const void *x, *dy;
    void *dw;
    const void *x_end, *dy_end; /* nothing from here on is read */
    conv_strides xs, ys;
    conv_axis depth;
    long x_slice, y_slice;
} conv_gradient;

/* cblas_sgemm or cblas_dgemm of a BLAS with 32-bit ints that was set to one thread. */
typedef struct {
    const void *gemm;
} conv_blas;

typedef struct {
    long block;    /* pixels, tiles or output rows that one task takes */
    long channels; /* input channels of a strip (implicit GEMM, NCHW); channels that pass a block together (depthwise, NHWC); channels of a task, of
                      either kind (weight gradients) */
    long chunks;   /* pieces of the sum that are computed apart (weight gradients) */
    long kc;       /* longest piece of the summation between two visits of the output */
    int band;      /* what ends here is but a band of an image, whose results do not depend on where bands end */
    int unpacked;  /* panels of the weight are packed as their turns come (implicit GEMM of NHWC, or 1x1) */
    int far;       /* the images are more than the caches hold (NHWC) */
    int stream;    /* results go past the caches, where they fill whole lines */
    int across;    /* rows of the result are completed one after the other, even where L1 would hold all panels (NHWC) */
    int mh, mw;    /* Winograd: output tile per axis */
    double point[3]; /* Winograd: interpolates at 0, +-point[i] and infinity */
} conv_blocking;

typedef struct {
    long (*gemm_packed_size)(conv_columns, long k);                              /* elements */
    void (*gemm_pack)(const conv_geometry *, const conv_weight *, void *packed); /* to panels or rows */
    long (*gemm_weight_size)(const conv_geometry *);                             /* elements */
    long (*gemm_bias_columns)(const conv_geometry *);                            /* of each group; 0: the bias as it is */
    int (*implicit_gemm)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int threads);
    long (*winograd_packed_size)(const conv_geometry *, const conv_blocking *);  /* elements */
    void (*winograd_pack)(const conv_geometry *, const conv_blocking *, const double *gh, const double *gw, const conv_weight *, void *packed);
    long (*winograd_workspace)(const conv_geometry *, const conv_blocking *);    /* bytes a thread */
    int (*winograd)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int threads);
    long (*depthwise_packed_size)(const conv_geometry *);                        /* elements, the bias among them */
    void (*depthwise_pack)(const conv_geometry *, const void *weight, const void *bias, void *packed);
    int (*depthwise)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int threads);
    int (*involution)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int threads);
    int (*weight_gemm)(const conv_geometry *, const conv_blocking *, const conv_gradient *, int threads);
    int (*weight_depthwise)(const conv_geometry *, const conv_blocking *, const conv_gradient *, int threads);
    int (*im2col)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, const conv_blas *, int threads);
    long (*few_channels_packed_size)(const conv_geometry *);                     /* elements */
    void (*few_channels_pack)(const conv_geometry *, const void *weight, void *packed);
    int (*few_channels)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int threads);
    long (*grouped_lanes_packed_size)(const conv_geometry *);                    /* elements */
    void (*grouped_lanes_pack)(const conv_geometry *, const void *weight, void *packed);
    int (*grouped_lanes)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int threads);
} conv_family;

typedef struct {
    conv_family f32, f64;
} ukernels;

/* A convolution of 8-bit integers: g is one slice of the depth, whose size, taps, stride, front padding, dilation and outputs follow. */
typedef struct {
    conv_geometry g;
    long id, kd, sd, pf, dd, od;
    int bytes; /* results are of 8 bits */
} int8_geometry;

typedef struct {
    const void *x;
    const int32_t *weight, *bias; /* packed; bias and what follows padded to whole panels, per group */
    const int32_t *w_zero;        /* times the sum of x is subtracted; NULL for nothing */
    const float *scale;           /* of 8-bit results; NULL for 32-bit sums */
    void *y;
    conv_strides xs, ys;
    long xs_depth, ys_depth;
    int x_signed, y_signed, x_zero, y_zero;
} int8_tensors;

typedef struct {
    int dot_length, x_signed; /* elements in a lane; how 8-bit dot products take x */
    int (*gemm_form)(const int8_geometry *);         /* of the packed weight; convolutions that share it share the weight */
    long (*gemm_packed_size)(const int8_geometry *); /* lanes */
    void (*gemm_pack)(const int8_geometry *, const int32_t *lanes, int32_t *packed);
    int (*gemm)(const int8_geometry *, const int8_tensors *, long rows, int threads);
    int (*depthwise)(const int8_geometry *, const int8_tensors *, const conv_family *floats, const conv_blocking *, int threads); /* weight: as there */
} int8_ukernels;
#endif
