# A layer's forward pass step by step, for streams; the passes over whole sequences are called from Python.
from libc.stddef cimport size_t

from fastact._core.runtime cimport fa_size

cdef struct ForwardJob      # a pass with its state and its place in the sequence

cpdef bint unchanged(list made_of, dict attributes) except -1

cdef size_t steps_bytes(object cell, fa_size B) except 0
cdef ForwardJob *begin_steps(object cell, fa_size B, char *memory) except NULL
cdef void run_step(ForwardJob *job, const void *x, fa_size x_row) noexcept nogil
cdef double step_cost(const ForwardJob *job) noexcept nogil
cdef fa_size step_width(const ForwardJob *job) noexcept nogil
cdef const char *step_output(const ForwardJob *job) noexcept nogil
cdef void reset_steps(ForwardJob *job) noexcept nogil
cdef void load_steps(ForwardJob *job, int letter, const char *state) noexcept nogil
cdef void save_steps(const ForwardJob *job, int letter, char *state) noexcept nogil
