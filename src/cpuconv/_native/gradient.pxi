# The gradient of a weight; part of core.pyx.


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
