# Arrays as the C kernels take them; part of core.pyx.
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from numpy import dtype, float32, float64, ndarray


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
        """One past the last element, of an array that is not empty."""
        cdef size_t offset = self.view.itemsize
        for i in range(self.view.ndim):
            offset += (self.view.shape[i] - 1) * max(self.view.strides[i], 0)
        return <const char *>self.view.buf + offset

    cdef conv_strides strides(self, bint nhwc) noexcept:
        """Of an image array, in elements."""
        cdef conv_strides s
        cdef Py_ssize_t size = self.view.itemsize
        cdef int last = self.view.ndim - 1, width = last - 1 if nhwc else last
        s.image, s.channel = self.view.strides[0] // size, self.view.strides[last if nhwc else 1] // size
        s.row, s.pixel = self.view.strides[width - 1] // size, self.view.strides[width] // size
        return s

    cdef conv_weight weight(self, bint nhwc) noexcept:
        """Of a weight's array, HWIO or OIHW."""
        cdef conv_weight w
        cdef Py_ssize_t size = self.view.itemsize
        cdef int output = 3 if nhwc else 0, row = 0 if nhwc else 2
        w.first, w.end = self.view.buf, self.end()
        w.output, w.channel = self.view.strides[output] // size, self.view.strides[2 if nhwc else 1] // size
        w.row, w.column = self.view.strides[row] // size, self.view.strides[row + 1] // size
        return w

    cdef long slice(self, bint nhwc) noexcept:
        """Elements between the slices of a 3-D image array; 0 for a 2-D one."""
        return self.view.strides[1 if nhwc else 2] // self.view.itemsize if self.view.ndim == 5 else 0


cdef conv_strides packed_strides(long channels, long rows, long pixels, bint nhwc) noexcept:
    """Of a C-contiguous image array."""
    cdef conv_strides s
    s.image = channels * rows * pixels
    s.channel, s.row, s.pixel = (1, pixels * channels, channels) if nhwc else (rows * pixels, pixels, 1)
    return s


cdef object no_workspace():
    return MemoryError("convolution: no memory for the workspace of a thread")


cdef class Fixed:
    """What runs the short way: on C-contiguous arrays of given shapes and dtype."""
    cdef object dtype
    cdef Py_ssize_t x_shape[8]
    cdef Py_ssize_t y_shape[8]
    cdef int ndim
    cdef Py_ssize_t itemsize

    cdef int expect(self, x_shape, y_shape, bint f64) except -1:
        self.ndim, self.itemsize = len(x_shape), 8 if f64 else 4
        self.dtype = dtype(float64 if f64 else float32)  # the very object that NumPy gives its arrays
        for i in range(self.ndim):
            self.x_shape[i], self.y_shape[i] = x_shape[i], y_shape[i]
        return 0

    cdef int compute(self, const void *x, const void *x_end, void *y, int threads) noexcept nogil:
        return 0

    def run(self, x, y, int threads):
        """Compute y from x; or, where they are not arrays of the dtype that fit, or overlap, return False and do nothing."""
        cdef Py_buffer bx, by
        cdef const void *x_end
        cdef int status = 0
        cdef bint fits
        if type(x) is not ndarray or type(y) is not ndarray or x.dtype is not self.dtype or y.dtype is not self.dtype:
            return False
        PyObject_GetBuffer(x, &bx, PyBUF_STRIDES)
        try:
            PyObject_GetBuffer(y, &by, PyBUF_STRIDES)
            try:
                fits = self.fits(&bx, self.x_shape) and self.fits(&by, self.y_shape) and not by.readonly
                x_end = <const char *>bx.buf + bx.len
                if fits and (x_end <= <const void *>by.buf or <const void *>(<const char *>by.buf + by.len) <= bx.buf):
                    with nogil:
                        status = self.compute(bx.buf, x_end, by.buf, threads)
                else:
                    return False
            finally:
                PyBuffer_Release(&by)
        finally:
            PyBuffer_Release(&bx)
        if status:
            raise no_workspace()
        return True

    cdef bint fits(self, const Py_buffer *b, const Py_ssize_t *shape) noexcept:
        """Whether an array is of that shape, C-contiguous, aligned and not empty."""
        cdef Py_ssize_t step = self.itemsize
        cdef int i
        if b.ndim != self.ndim or b.len == 0 or <uintptr_t>b.buf % <uintptr_t>step:
            return False
        for i in range(self.ndim - 1, -1, -1):
            if b.shape[i] != shape[i] or (b.strides[i] != step and shape[i] != 1):
                return False
            step *= shape[i]
        return True
