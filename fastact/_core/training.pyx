"""Embedding rows, losses with gradients, norms and optimiser updates: the ndarray side of ``src_c/training.h``.

Callers inside the package have validated shapes and types in the user's terms; what is checked again here only keeps
a wrong call from reading or writing outside an array. Arrays are dense ndarrays; the ndarray C interface is used
because a typed memoryview costs 0.2-0.4 us an argument, as long as a whole small kernel.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport int64_t

from fastact._core.runtime cimport active, fa_fpenv, fa_fpenv_enter, fa_fpenv_leave, fa_size, threads_for

cnp.import_array()

cdef extern from "training.h" nogil:
    enum:
        FA_EMBEDDING_COLUMNS
    ctypedef struct fa_embedding_args:
        fa_size count
        fa_size width
        const int64_t *indices
        const void *source
        void *target
    ctypedef void (*fa_training_kernel)(const void *args, fa_size first, fa_size last) noexcept nogil
    ctypedef struct fa_training_kernels:
        fa_training_kernel embedding_forward
        fa_training_kernel embedding_backward
    fa_size fa_first_outside(const int64_t *indices, fa_size n, int64_t limit, int has_ignored, int64_t ignored,
                             fa_size *counted)

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_kernels:
        fa_training_kernels training


cdef const fa_training_kernels *kernels_of(cnp.ndarray x) except NULL:
    """The active kernels for the element type of x."""
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
        return &(<const fa_kernels *>active(0)).training
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64:
        return &(<const fa_kernels *>active(1)).training
    raise TypeError(f"expected a float32 or float64 array, got {x.dtype}")


cdef int dense(cnp.ndarray a, str name, int type_number, int ndim, bint writeable=False) except -1:
    """Raise unless a is C-contiguous, aligned, native, of this type and number of dimensions."""
    cdef int flags = cnp.NPY_ARRAY_CARRAY if writeable else cnp.NPY_ARRAY_CARRAY_RO
    if (
        cnp.PyArray_TYPE(a) != type_number
        or cnp.PyArray_NDIM(a) != ndim
        or not cnp.PyArray_CHKFLAGS(a, flags)
        or not cnp.PyArray_ISNOTSWAPPED(a)
    ):
        got = <object>a
        raise ValueError(
            f"{name}: expected a C-contiguous{' writeable' if writeable else ''} array of {ndim} dimension(s) and type "
            f"{cnp.PyArray_DescrFromType(type_number)}, got shape {got.shape}, {got.dtype}, strides {got.strides}"
        )
    return 0


cdef void run(fa_training_kernel kernel, const void *args, fa_size units, double serial_ns) noexcept nogil:
    """The kernel over all units, shared out to as many threads as pay for serial_ns of work."""
    cdef int n = threads_for(serial_ns, <int>min(units, 1 << 16))
    cdef int t
    cdef fa_fpenv saved
    if n < 2:
        saved = fa_fpenv_enter()
        kernel(args, 0, units)
        fa_fpenv_leave(saved)
        return
    for t in prange(n, num_threads=n, schedule="static", chunksize=1):
        share(kernel, args, units * t // n, units * (t + 1) // n)


cdef void share(fa_training_kernel kernel, const void *args, fa_size first, fa_size last) noexcept nogil:
    cdef fa_fpenv saved = fa_fpenv_enter()
    kernel(args, first, last)
    fa_fpenv_leave(saved)


cdef int check_indices(cnp.ndarray indices, int64_t limit) except -1:
    cdef fa_size n = cnp.PyArray_SIZE(indices), bad
    cdef const int64_t *data = <const int64_t *>cnp.PyArray_DATA(indices)
    with nogil:
        bad = fa_first_outside(data, n, limit, 0, 0, NULL)
    if bad >= 0:
        raise IndexError(f"indices: expected 0 <= index < {limit}, got {data[bad]} at position {bad}")
    return 0


# ---- embedding ----


def embedding_forward(cnp.ndarray weight, cnp.ndarray indices, cnp.ndarray out):
    """``out[i] = weight[indices[i]]``: weight (N, D), indices int64 (n,), out (n, D).

    Raises IndexError with the first index outside 0 <= index < N and its position, before anything is written.
    """
    cdef const fa_training_kernels *kernels = kernels_of(weight)
    cdef fa_embedding_args args
    cdef double ns
    dense(weight, "weight", cnp.PyArray_TYPE(weight), 2)
    dense(indices, "indices", cnp.NPY_INT64, 1)
    dense(out, "out", cnp.PyArray_TYPE(weight), 2, True)
    args.count, args.width = cnp.PyArray_DIM(indices, 0), cnp.PyArray_DIM(weight, 1)
    if cnp.PyArray_DIM(out, 0) != args.count or cnp.PyArray_DIM(out, 1) != args.width:
        raise ValueError(f"out: expected shape {(args.count, args.width)}, got {(<object>out).shape}")
    check_indices(indices, cnp.PyArray_DIM(weight, 0))
    args.indices = <const int64_t *>cnp.PyArray_DATA(indices)
    args.source, args.target = cnp.PyArray_DATA(weight), cnp.PyArray_DATA(out)
    ns = args.count * (2 + 0.03 * cnp.PyArray_ITEMSIZE(weight) * args.width)
    with nogil:
        run(kernels.embedding_forward, &args, args.count, ns)


def embedding_backward(cnp.ndarray indices, cnp.ndarray dy, cnp.ndarray grad):
    """``grad[indices[i]] += dy[i]`` in the order of i: indices int64 (n,), dy (n, D), grad (N, D).

    The same bits for any number of threads. Raises IndexError as ``embedding_forward`` does.
    """
    cdef const fa_training_kernels *kernels = kernels_of(grad)
    cdef fa_embedding_args args
    cdef double ns
    cdef fa_size groups
    dense(indices, "indices", cnp.NPY_INT64, 1)
    dense(dy, "dy", cnp.PyArray_TYPE(grad), 2)
    dense(grad, "grad", cnp.PyArray_TYPE(grad), 2, True)
    args.count, args.width = cnp.PyArray_DIM(indices, 0), cnp.PyArray_DIM(grad, 1)
    if cnp.PyArray_DIM(dy, 0) != args.count or cnp.PyArray_DIM(dy, 1) != args.width:
        raise ValueError(f"dy: expected shape {(args.count, args.width)}, got {(<object>dy).shape}")
    check_indices(indices, cnp.PyArray_DIM(grad, 0))
    args.indices = <const int64_t *>cnp.PyArray_DATA(indices)
    args.source, args.target = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(grad)
    groups = (args.width + FA_EMBEDDING_COLUMNS - 1) // FA_EMBEDDING_COLUMNS
    ns = args.count * (3 + 0.05 * cnp.PyArray_ITEMSIZE(grad) * args.width)
    with nogil:
        run(kernels.embedding_backward, &args, groups, ns)
