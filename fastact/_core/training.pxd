# What kernels over blocks of rows share: argument checks, and the thread policy. Other extensions:
# ``from fastact._core.training cimport dense, run``.
cimport numpy as cnp

from fastact._core.runtime cimport fa_size

cdef extern from "training.h" nogil:
    ctypedef void (*fa_training_kernel)(const void *args, fa_size first, fa_size last) noexcept nogil

cdef int dense(cnp.ndarray a, str name, int type_number, int ndim, bint writeable=*) except -1
cdef void run(fa_training_kernel kernel, const void *args, fa_size units, double serial_ns) noexcept nogil
