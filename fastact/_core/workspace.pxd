# Aligned memory from a pool. Other extensions: ``from fastact._core.workspace cimport Workspace``.

cdef class Workspace:
    cdef char *data
    cdef size_t size

cdef object no_memory(double size)
