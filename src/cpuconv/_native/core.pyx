# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Passes arguments to the C kernels and releases the GIL. Arrays come as C-contiguous buffers; nothing is checked but that."""
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, uintptr_t

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


cdef const isa_table *find_isa(str isa) except NULL:
    cdef int i = 0
    cdef bytes name = isa.encode()
    while cpuconv_tables[i].isa != NULL:
        if cpuconv_tables[i].isa == name:
            return &cpuconv_tables[i]
        i += 1
    raise ValueError(f"no micro-kernels for ISA {isa!r} in this build")


cdef const conv_family *find_family(str isa, str dtype) except NULL:
    cdef const ukernels *floats = find_isa(isa).floats
    return &floats.f32 if dtype == "f32" else &floats.f64


def int8_dot(str isa):
    """Elements in a 32-bit lane of the kernels of 8-bit integers (4: bytes, 2: of 16 bits), and whether, if bytes, the image's are signed."""
    cdef const int8_ukernels *kernels = find_isa(isa).int8
    return kernels.dot_length, bool(kernels.x_signed)


def packed_columns(str isa, str dtype, bint halves, long count):
    """Columns of a GEMM operand after padding to panels, which may end in half a vector."""
    cdef conv_columns columns
    columns.count, columns.halves = count, halves
    return find_family(isa, dtype).gemm_packed_size(columns, 1)


def spend_cycles(long count):
    """Spends `count` cycles: half as many steps of two cycles, each waiting for the one before, which no compiler can shorten."""
    cdef unsigned long x = count, k = count | 1
    cdef long i
    with nogil:
        for i in range(count // 2):
            x = (x ^ k) + k
    return x


include "arrays.pxi"


cdef int set_geometry(conv_geometry *g, values) except -1:
    (g.n, g.ic, g.ih, g.iw, g.oc, g.kh, g.kw, g.sh, g.sw, g.pt, g.pl, g.dh, g.dw, g.groups, g.oh, g.ow, g.nhwc, g.halves) = values
    return 0


cpdef enum:
    IMPLICIT_GEMM
    WINOGRAD
    DEPTHWISE
    IM2COL
    INVOLUTION
    FEW_CHANNELS
    GROUPED_LANES


cdef class Convolution:
    """One native algorithm on one geometry: `pack` the weight, then `run`. Immutable; safe from many threads at once.

    geometry: the ints of conv_geometry in order; activation: (kind, a, b); blocking: (block, channels, kc, band, unpacked, far, stream, across, mh, mw,
    points).
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
        self.blocking.block, self.blocking.channels, self.blocking.kc = blocking[:3]
        self.blocking.band, self.blocking.unpacked, self.blocking.far, self.blocking.stream, self.blocking.across = blocking[3:8]
        self.blocking.mh, self.blocking.mw, points = blocking[8:]
        for i, point in enumerate(points):
            self.blocking.point[i] = point
        self.blas.gemm = <const void *>gemm

    def packed_size(self):
        """Elements of the packed weight."""
        if self.kind == WINOGRAD:
            return self.family.winograd_packed_size(&self.g, &self.blocking)
        if self.kind == DEPTHWISE:
            return self.family.depthwise_packed_size(&self.g)
        if self.kind == FEW_CHANNELS:
            return self.family.few_channels_packed_size(&self.g)
        if self.kind == GROUPED_LANES:
            return self.family.grouped_lanes_packed_size(&self.g)
        return self.family.gemm_weight_size(&self.g)

    def bias_columns(self):
        """Columns to which each group's bias is padded; 0 for none (implicit GEMM only)."""
        return self.family.gemm_bias_columns(&self.g)

    def weight_form(self):
        """Which of the algorithm's forms the packed weight has, where that depends on the size of the image."""
        return int(self.kind == IMPLICIT_GEMM and self.family.gemm_bias_columns(&self.g) == 0)

    def workspace(self):
        """Bytes of scratch for each thread (Winograd only)."""
        return self.family.winograd_workspace(&self.g, &self.blocking)

    def pack(self, weight, bias, packed, gh=None, gw=None):
        """weight: of 4 axes; a view, but for depthwise. gh, gw: Winograd's weight transforms per axis, float64, C-contiguous."""
        cdef Buffer w = Buffer(weight, strided=self.kind != DEPTHWISE), b = Buffer(bias), p = Buffer(packed, True), h = Buffer(gh), v = Buffer(gw)
        cdef conv_weight view
        if self.kind != DEPTHWISE:
            view = w.weight(self.g.nhwc)
        with nogil:
            if self.kind == WINOGRAD:
                self.family.winograd_pack(&self.g, &self.blocking, <const double *>h.view.buf, <const double *>v.view.buf, &view, p.view.buf)
            elif self.kind == DEPTHWISE:
                self.family.depthwise_pack(&self.g, w.view.buf, b.view.buf, p.view.buf)
            elif self.kind == FEW_CHANNELS:
                self.family.few_channels_pack(&self.g, w.view.buf, p.view.buf)
            elif self.kind == GROUPED_LANES:
                self.family.grouped_lanes_pack(&self.g, w.view.buf, p.view.buf)
            else:
                self.family.gemm_pack(&self.g, &view, p.view.buf)

    def run(self, x, weight, bias, residual, y, int threads):
        cdef Buffer bx = Buffer(x, strided=True), bw = Buffer(weight), bb = Buffer(bias), br = Buffer(residual, strided=True)
        cdef Buffer by = Buffer(y, True, True)
        cdef conv_tensors t
        cdef int status = 0
        if self.g.n == 0:
            return
        t.x, t.weight, t.bias, t.residual, t.y = bx.pointer(), bw.pointer(), bb.pointer(), br.pointer(), by.pointer()
        t.x_begin, t.x_end, t.xs, t.ys = t.x, bx.end(), bx.strides(self.g.nhwc), by.strides(self.g.nhwc)
        with nogil:
            status = self.compute(&t, threads)
        if status:
            raise no_workspace()

    cdef int compute(self, const conv_tensors *t, int threads) noexcept nogil:
        if self.kind == IMPLICIT_GEMM:
            return self.family.implicit_gemm(&self.g, &self.blocking, t, self.act, threads)
        if self.kind == WINOGRAD:
            return self.family.winograd(&self.g, &self.blocking, t, self.act, threads)
        if self.kind == DEPTHWISE:
            return self.family.depthwise(&self.g, &self.blocking, t, self.act, threads)
        if self.kind == INVOLUTION:
            return self.family.involution(&self.g, &self.blocking, t, self.act, threads)
        if self.kind == FEW_CHANNELS:
            return self.family.few_channels(&self.g, &self.blocking, t, self.act, threads)
        if self.kind == GROUPED_LANES:
            return self.family.grouped_lanes(&self.g, &self.blocking, t, self.act, threads)
        return self.family.im2col(&self.g, &self.blocking, t, self.act, &self.blas, threads)


cdef class Bound(Fixed):
    """A Convolution with its packed weight and bias, for arrays of as many elements as its geometry's."""
    cdef Convolution convolution
    cdef Buffer weight, bias
    cdef conv_tensors tensors

    def __init__(self, Convolution convolution, weight, bias, x_shape, y_shape):
        cdef conv_geometry *g = &convolution.g
        self.convolution, self.weight, self.bias = convolution, Buffer(weight), Buffer(bias)
        self.tensors.weight, self.tensors.bias, self.tensors.residual = self.weight.pointer(), self.bias.pointer(), NULL
        self.tensors.xs, self.tensors.ys = packed_strides(g.ic, g.ih, g.iw, g.nhwc), packed_strides(g.oc, g.oh, g.ow, g.nhwc)
        self.expect(x_shape, y_shape, convolution.f64)

    cdef int compute(self, const void *x, const void *x_end, void *y, int threads) noexcept nogil:
        cdef conv_tensors t = self.tensors
        t.x, t.x_begin, t.x_end, t.y = x, x, x_end, y
        return self.convolution.compute(&t, threads)


cdef class Separable:
    """Depthwise convolutions and the 1x1 convolution of their results in one pass, by bands of rows. Immutable; safe from many threads at once.

    Stages are (Convolution, packed weight, packed bias): `depthwise`, one for each channel that an input channel is multiplied to, of whole images;
    `pointwise`, of a band and, if there is a smaller last one, of that. whole: bands are images, so small that all threads share each stage of one.
    """
    cdef separable_stage *stages
    cdef separable_job job
    cdef list buffers
    cdef bint nhwc

    def __cinit__(self, depthwise, pointwise, bint whole):
        cdef Convolution c
        cdef Buffer weight, bias
        self.stages = <separable_stage *>PyMem_Malloc((len(depthwise) + len(pointwise)) * sizeof(separable_stage))
        if self.stages == NULL:
            raise MemoryError()
        self.buffers = []
        for i, (c, w, b) in enumerate([*depthwise, *pointwise]):
            weight, bias = Buffer(w), Buffer(b)
            self.buffers += weight, bias
            self.stages[i].family, self.stages[i].g, self.stages[i].blocking, self.stages[i].act = c.family, c.g, c.blocking, c.act
            self.stages[i].weight, self.stages[i].bias = weight.pointer(), bias.pointer()
        self.job.depthwise, self.job.pointwise = self.stages, self.stages + len(depthwise)
        self.job.multiplier, self.job.rows, self.job.whole = len(depthwise), self.job.pointwise.g.oh, whole
        self.nhwc = self.stages.g.nhwc

    def __dealloc__(self):
        PyMem_Free(self.stages)

    def run(self, x, residual, y, int threads):
        cdef Buffer bx = Buffer(x, strided=True), br = Buffer(residual, strided=True), by = Buffer(y, True, True)
        cdef separable_job job = self.job
        cdef int status
        if self.stages.g.n == 0:
            return
        job.x, job.x_end, job.residual, job.y, job.size = bx.pointer(), bx.end(), br.pointer(), by.pointer(), bx.view.itemsize
        job.xs, job.ys = bx.strides(self.nhwc), by.strides(self.nhwc)
        with nogil:
            status = separable_run(&job, threads)
        if status:
            raise no_workspace()


cdef class BoundSeparable(Fixed):
    """A Separable, for arrays of the shapes of its geometry."""
    cdef Separable separable
    cdef separable_job job

    def __init__(self, Separable separable, x_shape, y_shape, bint f64):
        cdef const conv_geometry *d = &separable.job.depthwise.g
        cdef const conv_geometry *p = &separable.job.pointwise.g
        self.separable, self.job = separable, separable.job
        self.job.size = 8 if f64 else 4
        self.job.xs, self.job.ys = packed_strides(d.ic, d.ih, d.iw, d.nhwc), packed_strides(p.oc, d.oh, d.ow, d.nhwc)
        self.expect(x_shape, y_shape, f64)

    cdef int compute(self, const void *x, const void *x_end, void *y, int threads) noexcept nogil:
        cdef separable_job job = self.job
        job.x, job.x_end, job.y = x, x_end, y
        return separable_run(&job, threads)


include "int8.pxi"
include "gradient.pxi"


def awake():
    """Whether short work is worth sharing: the pool's threads are awake, or calls follow each other so soon that once woken they stay so."""
    return bool(pool_awake())


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
