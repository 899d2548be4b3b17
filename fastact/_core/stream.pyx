"""A stack of recurrent layers over a stream, one time step a call: packed weights, the state, the result's array.

Everything is there before the first step, and a step makes no object: it checks its arguments, runs the steps of the
layers (``recurrent.pyx``) and copies h. From Python that is 0.4 us at I = H = 32, batch 1.

Forms of the state, packing and the public class are ``fastact/nn/streams.py``'s.
"""

from libc.stddef cimport ptrdiff_t, size_t
from libc.string cimport memcpy

cimport numpy as cnp
import numpy as np

from fastact._core.recurrent cimport (
    ForwardJob,
    begin_steps,
    load_steps,
    reset_steps,
    run_step,
    save_steps,
    step_cost,
    step_output,
    step_width,
    steps_bytes,
    unchanged,
)
from fastact._core.runtime cimport active, fa_size
from fastact._core.workspace cimport Workspace

cnp.import_array()

cdef enum:
    RELEASE_NS = 1000       # least work, as step_cost has it, for which the GIL is given away: two streams in two threads
                            # are 1.6 times as fast as one at I = 64, H = 128, and no faster at 32, 32


cdef class StackStream:
    """State and place of a stack in one direction; ``_renew``, a subclass's, calls ``_take`` with its packed weights.

    Parameters
    ----------
    dtype : float32 or float64
    batch, input_size, output_size : int
    """
    cdef readonly fa_size batch_size
    cdef fa_size input_size, output_size, itemsize
    cdef object dtype
    cdef int type_number, layers
    cdef const void *kernels    # of the layout of what follows
    cdef Workspace space        # jobs, then their memory
    cdef ForwardJob **jobs
    cdef list cells, made_of
    cdef dict attributes
    cdef cnp.ndarray result
    cdef bint long_steps, running

    def __init__(self, cnp.dtype dtype not None, fa_size batch, fa_size input_size, fa_size output_size):
        self.dtype, self.type_number, self.itemsize = dtype, dtype.num, dtype.itemsize
        self.batch_size, self.input_size, self.output_size = batch, input_size, output_size
        self.result = np.zeros((batch, output_size), dtype)

    def _take(self, list cells, list made_of, dict attributes):
        """Begin anew, from zeros, with these packed cells; the rest is what ``unchanged`` takes."""
        cdef size_t bytes = (len(cells) * sizeof(ForwardJob *) + 63) // 64 * 64
        cdef Workspace space = Workspace(bytes + sum([steps_bytes(cell, self.batch_size) for cell in cells]))
        cdef ForwardJob **jobs = <ForwardJob **>space.data
        cdef char *memory = space.data + bytes
        cdef double cost = 0
        cdef int n
        for n in range(len(cells)):
            jobs[n] = begin_steps(cells[n], self.batch_size, memory)
            memory += steps_bytes(cells[n], self.batch_size)
            cost += step_cost(jobs[n])
        self.space, self.jobs, self.layers = space, jobs, len(cells)
        self.kernels = active(self.itemsize == 8)
        self.long_steps = cost >= RELEASE_NS
        self.cells, self.made_of, self.attributes = cells, made_of, attributes

    cdef int check_current(self) except -1:
        """Take the weights, or the instruction set, that have changed."""
        if self.running:
            raise RuntimeError("stream: another thread is in a step of it; make a stream for each, layer.stream()")
        if self.kernels != active(self.itemsize == 8) or not unchanged(self.made_of, self.attributes):
            self._renew()
        return 0

    def _load(self, int letter, list state):
        """h (0) or c (1) of all layers from C-contiguous arrays of batch x H elements."""
        cdef int n
        self.check_current()
        for n in range(self.layers):
            load_steps(self.jobs[n], letter, <const char *>cnp.PyArray_DATA(<cnp.ndarray>state[n]))

    def _save(self, int letter, list state):
        """h (0) or c (1) of all layers into such arrays."""
        cdef int n
        if self.running:
            self.check_current()
        for n in range(self.layers):
            save_steps(self.jobs[n], letter, <char *>cnp.PyArray_DATA(<cnp.ndarray>state[n]))

    def reset(self):
        """Back to a state of zeros, for the next sequence."""
        cdef int n
        self.check_current()
        for n in range(self.layers):
            reset_steps(self.jobs[n])

    def step(self, x, out=None):
        """The next time step.

        Parameters
        ----------
        x : numpy.ndarray of shape (B, I)
            Of the layer's dtype. Read where it is: the last axis must be contiguous, rows may be any distance apart, as in
            ``sequences[:, t]``.
        out : numpy.ndarray of shape (B, H), optional
            Filled and returned, with a contiguous last axis as well; it may overlap x.

        Returns
        -------
        h : numpy.ndarray of shape (B, H)
            Output of the last layer. Without ``out`` the stream's own array, overwritten by the next step: copy what
            is to be kept.

        Raises
        ------
        TypeError
            If x or out is no NumPy array or has another dtype.
        ValueError
            If its shape is another, or it cannot be read where it is.
        RuntimeError
            If another thread is in a step of this stream.
        """
        cdef cnp.ndarray to = self.result
        cdef const void *data
        cdef char *to_data
        cdef fa_size row, to_row
        self.check_current()
        if not self.fits(x, self.input_size):
            raise self.misfit("x", x, "I", self.input_size)
        if out is not None:
            if not self.fits(out, self.output_size) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
                raise self.misfit("out", out, "H", self.output_size)
            to = out
        data, row = cnp.PyArray_DATA(<cnp.ndarray>x), cnp.PyArray_STRIDE(<cnp.ndarray>x, 0) // self.itemsize
        to_data, to_row = <char *>cnp.PyArray_DATA(to), cnp.PyArray_STRIDE(to, 0)
        if self.long_steps:
            self.running = True
            with nogil:
                self.run(data, row, to_data, to_row)
            self.running = False
        else:
            self.run(data, row, to_data, to_row)
        return to

    cdef void run(self, const void *x, fa_size x_row, char *out, fa_size out_row) noexcept nogil:
        """One layer after the other, each reading h of the one before where it is; ``out_row`` in bytes."""
        cdef ForwardJob *job
        cdef const char *h
        cdef fa_size b, h_row
        cdef int n
        for n in range(self.layers):
            job = self.jobs[n]
            run_step(job, x, x_row)
            x, x_row = step_output(job), step_width(job)
        h, h_row = <const char *>x, x_row * self.itemsize
        for b in range(self.batch_size):
            memcpy(out + b * out_row, h + b * h_row, self.output_size * self.itemsize)

    cdef bint fits(self, a, fa_size width) noexcept:
        """Whether an argument is an array of (batch, width) that can be used where it is."""
        cdef cnp.ndarray array
        if not cnp.PyArray_CheckExact(a):
            return False
        array = a
        return (
            cnp.PyArray_TYPE(array) == self.type_number and cnp.PyArray_ISBEHAVED_RO(array)
            and cnp.PyArray_NDIM(array) == 2 and cnp.PyArray_DIM(array, 0) == self.batch_size
            and cnp.PyArray_DIM(array, 1) == width
            and (width == 1 or cnp.PyArray_STRIDE(array, 1) == self.itemsize)
            and cnp.PyArray_STRIDE(array, 0) % self.itemsize == 0
        )

    cdef object misfit(self, str name, a, str letter, fa_size width):
        """What is wrong with an argument."""
        shape = (self.batch_size, width)
        if not isinstance(a, np.ndarray) or isinstance(a, np.ma.MaskedArray):
            return TypeError(f"{name}: expected a NumPy array of shape (B, {letter}) = {shape}, got {type(a).__name__}; "
                             f"np.asarray(..., np.{self.dtype}) makes one")
        if a.dtype != self.dtype:
            return TypeError(f"{name}: expected {self.dtype}, the layer's dtype, got {a.dtype}; a stream converts nothing: "
                             f"{name}.astype(np.{self.dtype})")
        if a.shape != shape:
            hint = f"; {name}[None] adds the batch axis" if a.shape == shape[1:] and self.batch_size == 1 else ""
            return ValueError(f"{name}: expected shape (B, {letter}) = {shape}, got {a.shape}{hint}")
        if name == "out" and not a.flags.writeable:
            return ValueError("out: expected a writable array, got a read-only one; pass a copy")
        return ValueError(f"{name}: expected an aligned ndarray in native byte order with a contiguous last axis, got "
                          f"{type(a).__name__} of strides {a.strides}; np.ascontiguousarray({name}) is one")
