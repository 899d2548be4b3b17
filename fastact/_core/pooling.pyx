"""Pooling over the steps of sequences (B, T, n): the ndarray side of ``src_c/pooling.h``.

Callers inside the package have validated shapes and types in the user's terms; what is checked again here only keeps a
wrong call from reading or writing outside an array.
"""

cimport numpy as cnp
from libc.stdint cimport int64_t

from fastact._core.runtime cimport active, fa_size
from fastact._core.training cimport dense, element_type, fa_training_kernel, run

cnp.import_array()

cdef extern from "pooling.h" nogil:
    ctypedef struct fa_pooling_args:
        fa_size T, n
        const void *x
        fa_size x_b, x_t
        void *y
        const void *dy
        void *dx
        fa_size dx_b, dx_t
        const int64_t *lengths
    ctypedef struct fa_pooling_kernels:
        fa_training_kernel mean, mean_backward, max, max_backward

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_kernels:
        fa_pooling_kernels pooling


cdef void *rows(cnp.ndarray a, str name, cnp.ndarray x, bint writeable, fa_size *b, fa_size *t) except NULL:
    """The data of an array of the shape and type of x whose last axis is contiguous, and its other strides in elements."""
    cdef fa_size size = cnp.PyArray_ITEMSIZE(x)
    cdef int wanted = cnp.NPY_ARRAY_ALIGNED | (cnp.NPY_ARRAY_WRITEABLE if writeable else 0), k
    if (
        cnp.PyArray_NDIM(a) != 3 or cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(x)
        or cnp.PyArray_FLAGS(a) & wanted != wanted or not cnp.PyArray_ISNOTSWAPPED(a)
        or (cnp.PyArray_SIZE(a) > 0 and (  # strides of what has no elements, or one, may be anything
            (cnp.PyArray_DIM(a, 2) > 1 and cnp.PyArray_STRIDE(a, 2) != size)
            or (cnp.PyArray_DIM(a, 0) > 1 and cnp.PyArray_STRIDE(a, 0) % size)
            or (cnp.PyArray_DIM(a, 1) > 1 and cnp.PyArray_STRIDE(a, 1) % size)
        ))
    ):
        raise ValueError(f"{name}: expected an aligned array (B, T, n) of {x.dtype} with contiguous rows")
    for k in range(3):
        if cnp.PyArray_DIM(a, k) != cnp.PyArray_DIM(x, k):
            raise ValueError(f"{name}: expected shape {(<object>x).shape}, got {(<object>a).shape}")
    b[0] = cnp.PyArray_STRIDE(a, 0) // size
    t[0] = cnp.PyArray_STRIDE(a, 1) // size
    return cnp.PyArray_DATA(a)


cdef const fa_pooling_kernels *begin(fa_pooling_args *args, cnp.ndarray x, cnp.ndarray y, cnp.ndarray lengths,
                                     bint writeable) except NULL:
    """Enter x, y and the lengths, and give the kernels for their type."""
    cdef const fa_kernels *kernels = <const fa_kernels *>active(element_type(x))
    cdef fa_size b
    args.x = rows(x, "x", x, False, &args.x_b, &args.x_t)
    args.T, args.n = cnp.PyArray_DIM(x, 1), cnp.PyArray_DIM(x, 2)
    dense(y, "y", cnp.PyArray_TYPE(x), 2, writeable)
    if cnp.PyArray_DIM(y, 0) != cnp.PyArray_DIM(x, 0) or cnp.PyArray_DIM(y, 1) != args.n:
        raise ValueError(f"y: expected shape (B, n) of x {(<object>x).shape}, got {(<object>y).shape}")
    args.y = cnp.PyArray_DATA(y)
    args.lengths = NULL
    if args.T < 1:
        raise ValueError("x: expected a step or more")
    if lengths is not None:
        dense(lengths, "lengths", cnp.NPY_INT64, 1)
        args.lengths = <const int64_t *>cnp.PyArray_DATA(lengths)
        if cnp.PyArray_DIM(lengths, 0) != cnp.PyArray_DIM(x, 0):
            raise ValueError(f"lengths: expected one for each of {cnp.PyArray_DIM(x, 0)} sequences")
        for b in range(cnp.PyArray_DIM(x, 0)):
            if args.lengths[b] < 1 or args.lengths[b] > args.T:
                raise ValueError(f"lengths: expected each from 1 to {args.T}, got {args.lengths[b]}")
    return &kernels.pooling


cdef inline double cost(cnp.ndarray x) noexcept:
    """Nanoseconds of one pass over x, about."""
    return 0.02 * cnp.PyArray_ITEMSIZE(x) * cnp.PyArray_SIZE(x)


def forward(bint greatest, cnp.ndarray x not None, cnp.ndarray lengths, cnp.ndarray y not None):
    """Fill y (B, n) with the greatest, or the mean, of the steps of x (B, T, n) within the lengths (B,), or of all."""
    cdef fa_pooling_args args
    cdef const fa_pooling_kernels *kernels = begin(&args, x, y, lengths, True)
    cdef double ns = cost(x)
    cdef fa_size B = cnp.PyArray_DIM(x, 0)
    with nogil:
        run(kernels.max if greatest else kernels.mean, &args, B, ns)


def backward(bint greatest, cnp.ndarray x not None, cnp.ndarray lengths, cnp.ndarray y not None,
             cnp.ndarray dy not None, cnp.ndarray dx not None):
    """Fill dx, of the shape of x, for dy of the shape of y. Of the mean only the shapes of x and y count."""
    cdef fa_pooling_args args
    cdef const fa_pooling_kernels *kernels = begin(&args, x, y, lengths, False)
    dense(dy, "dy", cnp.PyArray_TYPE(x), 2)
    if cnp.PyArray_DIM(dy, 0) != cnp.PyArray_DIM(y, 0) or cnp.PyArray_DIM(dy, 1) != args.n:
        raise ValueError(f"dy: expected shape {(<object>y).shape}, got {(<object>dy).shape}")
    args.dy = cnp.PyArray_DATA(dy)
    args.dx = rows(dx, "dx", x, True, &args.dx_b, &args.dx_t)
    cdef double ns = 2 * cost(x)
    cdef fa_size B = cnp.PyArray_DIM(x, 0)
    with nogil:
        run(kernels.max_backward if greatest else kernels.mean_backward, &args, B, ns)
