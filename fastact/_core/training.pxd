# The C interface of the training kernels' callers, for other extensions.
cimport numpy as cnp

from fastact._core.runtime cimport fa_size

cdef extern from "training.h" nogil:
    ctypedef void (*fa_training_kernel)(const void *args, fa_size first, fa_size last) noexcept nogil

cdef int element_type(cnp.ndarray x) except -1
cdef int dense(cnp.ndarray a, str name, int type_number, int ndim, bint writeable=*) except -1
cdef void run(fa_training_kernel kernel, const void *args, fa_size units, double serial_ns) noexcept nogil
cdef double add_up(const double *sums, fa_size n) noexcept nogil
cdef void *new_sums(fa_size n) except NULL
