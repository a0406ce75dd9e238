# Convolutions of 8-bit integers; part of core.pyx.


cdef class Int8Convolution:
    """A convolution of 8-bit integers on one geometry: `pack` the lanes of the weight (GEMM), then `run`. Immutable; safe from many threads at once.

    kind: IMPLICIT_GEMM or DEPTHWISE; geometry: the ints of conv_geometry in order; depth: (size, taps, stride, front padding, dilation, outputs); rows: of outputs that a task takes;
    channels: that it takes (DEPTHWISE, NCHW).
    signs: whether x, and an 8-bit y, are signed, and whether y is of 8 bits.
    """
    cdef const int8_ukernels *kernels
    cdef const conv_family *floats
    cdef int8_geometry q
    cdef conv_blocking blocking
    cdef int kind
    cdef bint x_signed, y_signed

    def __init__(self, str isa, int kind, geometry, depth, long rows, long channels, signs):
        self.kernels, self.floats = find_isa(isa).int8, find_family(isa, "f32")
        set_geometry(&self.q.g, geometry)
        self.q.id, self.q.kd, self.q.sd, self.q.pf, self.q.dd, self.q.od = depth
        self.kind, self.blocking.block, self.blocking.channels = kind, rows, channels
        self.x_signed, self.y_signed, self.q.bytes = signs

    def form(self):
        """Of the packed weight (GEMM): convolutions of equal form share theirs."""
        return self.kernels.gemm_form(&self.q)

    def packed_size(self):
        """Lanes of the packed weight."""
        return self.kernels.gemm_packed_size(&self.q)

    def pack(self, lanes, packed):
        cdef Buffer w = Buffer(lanes), p = Buffer(packed, True)
        with nogil:
            self.kernels.gemm_pack(&self.q, <const int32_t *>w.view.buf, <int32_t *>p.view.buf)

    def run(self, x, weight, bias, w_zero, scale, int x_zero, int y_zero, y, int threads):
        """x and y of 5 axes, in y's case of int32 or, with scale, of bytes; bias, w_zero and scale padded to panels; w_zero and scale may be None."""
        cdef Buffer bx = Buffer(x, strided=True), bw = Buffer(weight), bb = Buffer(bias), bz = Buffer(w_zero), bs = Buffer(scale)
        cdef Buffer by = Buffer(y, True, True)
        cdef int8_tensors t
        cdef int status = 0
        if self.q.g.n == 0:
            return
        t.x, t.weight, t.bias, t.w_zero = bx.pointer(), <const int32_t *>bw.pointer(), <const int32_t *>bb.pointer(), <const int32_t *>bz.pointer()
        t.scale, t.y = <const float *>bs.pointer(), by.pointer()
        t.xs, t.ys, t.xs_depth, t.ys_depth = bx.strides(self.q.g.nhwc), by.strides(self.q.g.nhwc), bx.slice(self.q.g.nhwc), by.slice(self.q.g.nhwc)
        t.x_signed, t.y_signed, t.x_zero, t.y_zero = self.x_signed, self.y_signed, x_zero, y_zero
        with nogil:
            if self.kind == IMPLICIT_GEMM:
                status = self.kernels.gemm(&self.q, &t, self.blocking.block, threads)
            else:
                status = self.kernels.depthwise(&self.q, &t, self.floats, &self.blocking, threads)
        if status:
            raise no_workspace()
