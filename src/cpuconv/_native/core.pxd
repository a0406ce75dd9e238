# cython: language_level=3
"""What the C headers declare, for core.pyx."""
from libc.stdint cimport int32_t

cdef extern from "ukernels/conv.h" nogil:
    ctypedef struct conv_geometry:
        long n, ic, ih, iw, oc, kh, kw, sh, sw, pt, pl, dh, dw, groups, oh, ow
        int nhwc, halves
    ctypedef struct conv_columns:
        long count
        int halves
    ctypedef struct conv_activation:
        int kind
        double a, b
    ctypedef struct conv_strides:
        long image, channel, row, pixel
    ctypedef struct conv_tensors:
        const void *x
        const void *weight
        const void *bias
        const void *residual
        void *y
        const void *x_begin
        const void *x_end
        conv_strides xs, ys
    ctypedef struct conv_weight:
        const void *first
        const void *end
        long output, channel, row, column
    ctypedef struct conv_axis:
        long size "in", out, taps, stride, pad, dilation
    ctypedef struct conv_gradient:
        const void *x
        const void *dy
        void *dw
        const void *x_end
        const void *dy_end
        conv_strides xs, ys
        conv_axis depth
        long x_slice, y_slice
    ctypedef struct conv_blocking:
        long block, channels, chunks, kc
        int band, unpacked, far, stream, across, mh, mw
        double point[3]
    ctypedef struct conv_blas:
        const void *gemm
    ctypedef struct conv_family:
        long (*gemm_packed_size)(conv_columns, long) noexcept nogil
        void (*gemm_pack)(const conv_geometry *, const conv_weight *, void *) noexcept nogil
        long (*gemm_weight_size)(const conv_geometry *) noexcept nogil
        long (*gemm_bias_columns)(const conv_geometry *) noexcept nogil
        int (*implicit_gemm)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int) noexcept nogil
        long (*winograd_packed_size)(const conv_geometry *, const conv_blocking *) noexcept nogil
        void (*winograd_pack)(const conv_geometry *, const conv_blocking *, const double *, const double *, const conv_weight *, void *) noexcept nogil
        long (*winograd_workspace)(const conv_geometry *, const conv_blocking *) noexcept nogil
        int (*winograd)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int) noexcept nogil
        long (*depthwise_packed_size)(const conv_geometry *) noexcept nogil
        void (*depthwise_pack)(const conv_geometry *, const void *, const void *, void *) noexcept nogil
        int (*depthwise)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int) noexcept nogil
        int (*involution)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int) noexcept nogil
        int (*weight_gemm)(const conv_geometry *, const conv_blocking *, const conv_gradient *, int) noexcept nogil
        int (*weight_depthwise)(const conv_geometry *, const conv_blocking *, const conv_gradient *, int) noexcept nogil
        int (*im2col)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, const conv_blas *, int) noexcept nogil
        long (*few_channels_packed_size)(const conv_geometry *) noexcept nogil
        void (*few_channels_pack)(const conv_geometry *, const void *, void *) noexcept nogil
        int (*few_channels)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int) noexcept nogil
        long (*grouped_lanes_packed_size)(const conv_geometry *) noexcept nogil
        void (*grouped_lanes_pack)(const conv_geometry *, const void *, void *) noexcept nogil
        int (*grouped_lanes)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int) noexcept nogil
    ctypedef struct ukernels:
        conv_family f32, f64
    ctypedef struct int8_geometry:
        conv_geometry g
        long id, kd, sd, pf, dd, od
        int bytes
    ctypedef struct int8_tensors:
        const void *x
        const int32_t *weight
        const int32_t *bias
        const int32_t *w_zero
        const float *scale
        void *y
        conv_strides xs, ys
        long xs_depth, ys_depth
        int x_signed, y_signed, x_zero, y_zero
    ctypedef struct int8_ukernels:
        int dot_length, x_signed
        int (*gemm_form)(const int8_geometry *) noexcept nogil
        long (*gemm_packed_size)(const int8_geometry *) noexcept nogil
        void (*gemm_pack)(const int8_geometry *, const int32_t *, int32_t *) noexcept nogil
        int (*gemm)(const int8_geometry *, const int8_tensors *, long, int) noexcept nogil
        int (*depthwise)(const int8_geometry *, const int8_tensors *, const conv_family *, const conv_blocking *, int) noexcept nogil

cdef extern from "ukernels/tables.h" nogil:
    ctypedef struct isa_table:
        const char *isa
        const ukernels *floats
        const int8_ukernels *int8
    const isa_table *cpuconv_tables
    const char *const *cpuconv_features
    int cpuconv_supports(int feature) noexcept

cdef extern from "separable.h" nogil:
    ctypedef struct separable_stage:
        const conv_family *family
        conv_geometry g
        conv_blocking blocking
        conv_activation act
        const void *weight
        const void *bias
    ctypedef struct separable_job:
        const separable_stage *depthwise
        const separable_stage *pointwise
        long multiplier, rows, size
        int whole
        const void *x
        const void *x_end
        const void *residual
        void *y
        conv_strides xs, ys
    int separable_run(const separable_job *, int) noexcept

cdef extern from "pool.h" nogil:
    ctypedef int (*pool_task)(void *, long) noexcept nogil
    int pool_run(pool_task, void *, long, int) noexcept
    int pool_awake() noexcept
    int TASK_ARENA
    void *pool_arena(int, size_t) noexcept
