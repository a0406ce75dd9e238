# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Passes arguments to the C kernels and releases the GIL. Arrays come as C-contiguous buffers; nothing is checked but that."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uintptr_t


cdef extern from "ukernels/conv.h" nogil:
    ctypedef struct conv_geometry:
        long n, ic, ih, iw, oc, kh, kw, sh, sw, pt, pl, dh, dw, groups, oh, ow
        int nhwc
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
        const void *x_end
        conv_strides xs, ys
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
        int mh, mw
        double point[3]
    ctypedef struct conv_blas:
        const void *gemm
    ctypedef struct conv_family:
        long (*gemm_packed_size)(long, long) noexcept nogil
        void (*gemm_pack)(const conv_geometry *, const void *, void *) noexcept nogil
        long (*gemm_weight_size)(const conv_geometry *) noexcept nogil
        long (*gemm_bias_columns)(const conv_geometry *) noexcept nogil
        int (*implicit_gemm)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int) noexcept nogil
        long (*winograd_packed_size)(const conv_geometry *, const conv_blocking *) noexcept nogil
        void (*winograd_pack)(const conv_geometry *, const conv_blocking *, const double *, const double *, const void *, void *) noexcept nogil
        long (*winograd_workspace)(const conv_geometry *, const conv_blocking *) noexcept nogil
        int (*winograd)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int) noexcept nogil
        long (*depthwise_packed_size)(const conv_geometry *) noexcept nogil
        void (*depthwise_pack)(const conv_geometry *, const void *, const void *, void *) noexcept nogil
        int (*depthwise)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, int) noexcept nogil
        int (*weight_gemm)(const conv_geometry *, const conv_blocking *, const conv_gradient *, int) noexcept nogil
        int (*weight_depthwise)(const conv_geometry *, const conv_blocking *, const conv_gradient *, int) noexcept nogil
        int (*im2col)(const conv_geometry *, const conv_blocking *, const conv_tensors *, conv_activation, const conv_blas *, int) noexcept nogil
    ctypedef struct ukernels:
        const char *isa
        conv_family f32, f64

cdef extern from "ukernels/tables.h" nogil:
    const ukernels *const *cpuconv_tables
    const char *const *cpuconv_features
    int cpuconv_supports(int feature) noexcept

cdef extern from "pool.h" nogil:
    ctypedef int (*pool_task)(void *, long) noexcept nogil
    int pool_run(pool_task, void *, long, int) noexcept
    int TASK_ARENA
    void *pool_arena(int, size_t) noexcept

ACTIVATIONS = (None, "clip", "leaky_relu", "sigmoid", "tanh", "silu", "hardsigmoid", "hardswish", "gelu")
"""Names in the order of the C enumeration."""


def cpu_features():
    """Of the features that some ISA needs, those that this CPU and operating system have."""
    cdef int i = 0
    found = []
    while cpuconv_features[i] != NULL:
        if cpuconv_supports(i):
            found.append(cpuconv_features[i].decode())
        i += 1
    return frozenset(found)


cdef const conv_family *find_family(str isa, str dtype) except NULL:
    cdef int i = 0
    cdef bytes name = b"ukernels_" + isa.replace("-", "_").encode()
    while cpuconv_tables[i] != NULL:
        if cpuconv_tables[i].isa == name:
            return &cpuconv_tables[i].f32 if dtype == "f32" else &cpuconv_tables[i].f64
        i += 1
    raise ValueError(f"no micro-kernels for ISA {isa!r} in this build")


def packed_columns(str isa, str dtype, long columns):
    """Columns of a GEMM operand after padding to panels."""
    return find_family(isa, dtype).gemm_packed_size(1, columns)


cdef class Buffer:
    """A pointer to an array's first element that keeps the array alive; NULL for None."""
    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, array, bint writable=False, bint strided=False):
        if array is not None:
            PyObject_GetBuffer(array, &self.view, (PyBUF_STRIDES if strided else PyBUF_SIMPLE) | (PyBUF_WRITABLE if writable else 0))
            self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef void *pointer(self) noexcept:
        return self.view.buf if self.held else NULL

    cdef const void *end(self) noexcept:
        """One past the last element, of an image array that is not empty."""
        cdef size_t offset = self.view.itemsize
        for i in range(self.view.ndim):
            offset += (self.view.shape[i] - 1) * self.view.strides[i]
        return <const char *>self.view.buf + offset

    cdef conv_strides strides(self, bint nhwc) noexcept:
        """Of an image array, in elements."""
        cdef conv_strides s
        cdef Py_ssize_t size = self.view.itemsize
        cdef int last = self.view.ndim - 1, width = last - 1 if nhwc else last
        s.image, s.channel = self.view.strides[0] // size, self.view.strides[last if nhwc else 1] // size
        s.row, s.pixel = self.view.strides[width - 1] // size, self.view.strides[width] // size
        return s

    cdef long slice(self, bint nhwc) noexcept:
        """Elements between the slices of a 3-D image array; 0 for a 2-D one."""
        return self.view.strides[1 if nhwc else 2] // self.view.itemsize if self.view.ndim == 5 else 0


cdef int set_geometry(conv_geometry *g, values) except -1:
    (g.n, g.ic, g.ih, g.iw, g.oc, g.kh, g.kw, g.sh, g.sw, g.pt, g.pl, g.dh, g.dw, g.groups, g.oh, g.ow, g.nhwc) = values
    return 0


cpdef enum:
    IMPLICIT_GEMM
    WINOGRAD
    DEPTHWISE
    IM2COL


cdef class Convolution:
    """One native algorithm on one geometry: `pack` the weight, then `run`. Immutable; safe from many threads at once.

    geometry: the ints of conv_geometry in order; activation: (kind, a, b); blocking: (block, channels, kc, mh, mw, points).
    gemm: address of cblas_?gemm for im2col, else 0.
    """
    cdef const conv_family *family
    cdef conv_geometry g
    cdef conv_activation act
    cdef conv_blocking blocking
    cdef conv_blas blas
    cdef int kind
    cdef bint f64

    def __init__(self, str isa, str dtype, int kind, geometry, activation, blocking, uintptr_t gemm=0):
        self.family = find_family(isa, dtype)
        self.f64 = dtype == "f64"
        self.kind = kind
        set_geometry(&self.g, geometry)
        self.act.kind, self.act.a, self.act.b = activation
        self.blocking.block, self.blocking.channels, self.blocking.kc, self.blocking.mh, self.blocking.mw, points = blocking
        for i, point in enumerate(points):
            self.blocking.point[i] = point
        self.blas.gemm = <const void *>gemm

    def packed_size(self):
        """Elements of the packed weight."""
        if self.kind == WINOGRAD:
            return self.family.winograd_packed_size(&self.g, &self.blocking)
        if self.kind == DEPTHWISE:
            return self.family.depthwise_packed_size(&self.g)
        return self.family.gemm_weight_size(&self.g)

    def bias_columns(self):
        """Columns to which each group's bias is padded; 0 for none (implicit GEMM only)."""
        return self.family.gemm_bias_columns(&self.g)

    def workspace(self):
        """Bytes of scratch for each thread (Winograd only)."""
        return self.family.winograd_workspace(&self.g, &self.blocking)

    def pack(self, weight, bias, packed, gh=None, gw=None):
        """gh, gw: Winograd's weight transforms per axis, float64, C-contiguous."""
        cdef Buffer w = Buffer(weight), b = Buffer(bias), p = Buffer(packed, True), h = Buffer(gh), v = Buffer(gw)
        with nogil:
            if self.kind == WINOGRAD:
                self.family.winograd_pack(&self.g, &self.blocking, <const double *>h.view.buf, <const double *>v.view.buf, w.view.buf, p.view.buf)
            elif self.kind == DEPTHWISE:
                self.family.depthwise_pack(&self.g, w.view.buf, b.view.buf, p.view.buf)
            else:
                self.family.gemm_pack(&self.g, w.view.buf, p.view.buf)

    def run(self, x, weight, bias, residual, y, int threads):
        cdef Buffer bx = Buffer(x, strided=True), bw = Buffer(weight), bb = Buffer(bias), br = Buffer(residual, strided=True)
        cdef Buffer by = Buffer(y, True, True)
        cdef conv_tensors t
        cdef int status = 0
        if self.g.n == 0:
            return
        t.x, t.weight, t.bias, t.residual, t.y = bx.pointer(), bw.pointer(), bb.pointer(), br.pointer(), by.pointer()
        t.x_end, t.xs, t.ys = bx.end(), bx.strides(self.g.nhwc), by.strides(self.g.nhwc)
        with nogil:
            if self.kind == IMPLICIT_GEMM:
                status = self.family.implicit_gemm(&self.g, &self.blocking, &t, self.act, threads)
            elif self.kind == WINOGRAD:
                status = self.family.winograd(&self.g, &self.blocking, &t, self.act, threads)
            elif self.kind == DEPTHWISE:
                status = self.family.depthwise(&self.g, &self.blocking, &t, self.act, threads)
            else:
                status = self.family.im2col(&self.g, &self.blocking, &t, self.act, &self.blas, threads)
        if status:
            raise MemoryError("convolution: no memory for the workspace of a thread")


cdef class WeightGradient:
    """The gradient of a weight on one geometry. Immutable; safe from many threads at once.

    geometry: the ints of conv_geometry in order; depth: those of conv_axis; blocking: (block, channels, chunks); depthwise: the kernel for
    as many groups as channels of either kind, in 2-D.
    """
    cdef const conv_family *family
    cdef conv_geometry g
    cdef conv_axis depth
    cdef conv_blocking blocking
    cdef bint depthwise

    def __init__(self, str isa, str dtype, geometry, depth, blocking, bint depthwise):
        self.depthwise = depthwise
        self.family = find_family(isa, dtype)
        set_geometry(&self.g, geometry)
        self.depth.size, self.depth.out, self.depth.taps, self.depth.stride, self.depth.pad, self.depth.dilation = depth
        self.blocking.block, self.blocking.channels, self.blocking.chunks = blocking

    def run(self, x, dy, dw, int threads):
        """dw is C-contiguous."""
        cdef Buffer bx = Buffer(x, strided=True), by = Buffer(dy, strided=True), bw = Buffer(dw, True)
        cdef conv_gradient t
        cdef int status
        t.x, t.dy, t.dw, t.x_end, t.dy_end = bx.pointer(), by.pointer(), bw.pointer(), bx.end(), by.end()
        t.xs, t.ys, t.x_slice, t.y_slice, t.depth = bx.strides(self.g.nhwc), by.strides(self.g.nhwc), bx.slice(self.g.nhwc), by.slice(self.g.nhwc), self.depth
        with nogil:
            if self.depthwise:
                status = self.family.weight_depthwise(&self.g, &self.blocking, &t, threads)
            else:
                status = self.family.weight_gemm(&self.g, &self.blocking, &t, threads)
        if status:
            raise MemoryError("weight gradient: no memory for the workspace of a thread")


def run_tasks(uintptr_t task, uintptr_t context, long tasks, int threads):
    """Runs C function `task(context, i)` for i in [0, tasks) on the pool (the JIT-compiled kernels come this way)."""
    cdef int status
    with nogil:
        status = pool_run(<pool_task>task, <void *>context, tasks, threads)
    return status


cdef void *task_arena(size_t length) noexcept nogil:
    return pool_arena(TASK_ARENA, length)


def arena_address():
    """Address of the C function `void *arena(size_t)` that gives a task the scratch of its thread, or NULL."""
    return <uintptr_t>&task_arena


def address(array):
    """Address of a C-contiguous array's first element; 0 for None."""
    cdef Buffer b = Buffer(array)
    return <uintptr_t>b.pointer()
