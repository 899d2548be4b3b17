# Aligned memory from a pool. Other extensions: ``from fastact._core.workspace cimport Workspace``.

cimport numpy as cnp

cdef class Workspace:
    cdef char *data
    cdef size_t size

cdef cnp.ndarray new_array(int ndim, cnp.npy_intp *dims, int type_number, double itemsize, size_t pooled=*)
cdef object no_memory(double size)
