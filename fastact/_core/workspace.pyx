"""Memory that is handed out again: workspaces of recurrent layers, and outputs of layers, which live in such."""

from libc.stddef cimport size_t

cimport numpy as cnp

cnp.import_array()

cdef extern from "workspace.h" nogil:
    void *fa_workspace_alloc(size_t bytes)
    void fa_workspace_free(void *)

cdef enum:
    POOLED_BYTES = 1 << 14   # arrays from here on are worth a workspace, which takes 0.2 us to get and to give back
    POOL_SLOTS = 64
    MAX_AXES = 64            # NumPy's
    POOL_BYTES = 1 << 30     # most memory that waits in the pool

cdef void *pool_data[POOL_SLOTS]
cdef size_t pool_size[POOL_SLOTS]
cdef int pool_next = 0
cdef size_t pool_made = 0


cdef class Workspace:
    """Aligned memory from a pool, which gets it back when the object dies: fresh memory cost 11 % of a training step.

    The pool is guarded by the GIL and keeps at most POOL_SLOTS blocks.
    """
    def __cinit__(self, size_t size):
        global pool_made
        cdef int i, best = -1
        size = (size + 4095) // 4096 * 4096
        for i in range(POOL_SLOTS):
            if pool_data[i] != NULL and size <= pool_size[i] <= 2 * size + 65536:
                if best < 0 or pool_size[i] < pool_size[best]:
                    best = i
        if best >= 0:
            self.data = <char *>pool_data[best]
            self.size = pool_size[best]
            pool_data[best] = NULL
            return
        self.data = <char *>fa_workspace_alloc(size)
        if self.data == NULL:
            clear_pool()
            self.data = <char *>fa_workspace_alloc(size)
            if self.data == NULL:
                raise no_memory(size)
        self.size = size
        pool_made += 1

    def __dealloc__(self):
        global pool_next
        cdef int i
        if self.data == NULL:
            return
        if self.size > POOL_BYTES - pool_bytes():
            fa_workspace_free(self.data)
            return
        for i in range(POOL_SLOTS):
            if pool_data[i] == NULL:
                pool_data[i] = self.data
                pool_size[i] = self.size
                return
        fa_workspace_free(pool_data[pool_next])
        pool_data[pool_next] = self.data
        pool_size[pool_next] = self.size
        pool_next = (pool_next + 1) % POOL_SLOTS


cdef object no_memory(double size):
    return MemoryError(f"recurrent layer: no {size / 2**20:.0f} MB of memory for its workspace; "
                       "use a smaller batch or a shorter sequence")


def empty(tuple shape, cnp.dtype dtype, size_t pooled=POOLED_BYTES):
    """An uninitialised C-contiguous array; one of ``pooled`` bytes or more lives in a workspace, which the pool gets back
    when the array and all its views are gone. Outputs and gradients of layers are such arrays, so that a training step
    takes no fresh memory (3 % of a step at (100, 64, 256, 512), for y and dx of the LSTM alone)."""
    cdef cnp.npy_intp dims[MAX_AXES]
    cdef int axis, ndim = len(shape)
    for axis in range(ndim):
        dims[axis] = shape[axis]
    return new_array(ndim, dims, dtype.num, dtype.itemsize, pooled)


cdef cnp.ndarray new_array(int ndim, cnp.npy_intp *dims, int type_number, double itemsize, size_t pooled=POOLED_BYTES):
    """``empty`` for other extensions."""
    cdef double size = itemsize  # as a number that does not wrap around
    cdef int axis
    cdef Workspace space
    cdef cnp.ndarray array
    for axis in range(ndim):
        size *= dims[axis]
    if size < pooled or size == 0 or size > 1LL << 62:
        return cnp.PyArray_EMPTY(ndim, dims, type_number, 0)
    space = Workspace(<size_t>size)
    array = cnp.PyArray_SimpleNewFromData(ndim, dims, type_number, space.data)
    cnp.set_array_base(array, space)
    return array


def clear_pool():
    """Give all idle workspaces back to the system."""
    cdef int i
    for i in range(POOL_SLOTS):
        fa_workspace_free(pool_data[i])
        pool_data[i] = NULL


def made():
    """Workspaces so far that no idle one could serve: none in the steady state."""
    return pool_made


cpdef size_t pool_bytes():
    """Bytes that wait in the pool."""
    cdef int i
    cdef size_t total = 0
    for i in range(POOL_SLOTS):
        if pool_data[i] != NULL:
            total += pool_size[i]
    return total
