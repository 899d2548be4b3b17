# The C interface of the core: the active table of kernels, thread policy, floating-point state.
# Other extensions: ``from fastact._core.runtime cimport active, threads_for``.
from libc.stddef cimport ptrdiff_t

cdef extern from "kernels.h" nogil:
    ctypedef ptrdiff_t fa_size
    ctypedef struct fa_kernels:
        const char *isa
        int lanes
        int itemsize

cdef extern from "fpenv.h" nogil:
    ctypedef struct fa_fpenv:
        pass
    fa_fpenv fa_fpenv_enter()
    void fa_fpenv_leave(fa_fpenv saved)

cdef const fa_kernels *active(int dtype) noexcept nogil   # dtype: 0 float32, 1 float64
cdef int threads_for(double serial_ns, int most) noexcept nogil
cdef int threads_limit() noexcept nogil
