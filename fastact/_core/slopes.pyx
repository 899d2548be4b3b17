"""The leaky rectifier with a slope for each column, and the gradient of the slopes: the ndarray side of ``src_c/slopes.h``."""

cimport numpy as cnp

from fastact._core.activations cimport fits, into, ordinary
from fastact._core.runtime cimport active, fa_size
from fastact._core.training cimport dense, element_type, fa_training_kernel, run
from fastact._core.workspace cimport new_array

cnp.import_array()

cdef extern from "slopes.h" nogil:
    enum:
        FA_SLOPES_ROWS
    ctypedef struct fa_slopes_args:
        fa_size rows, n
        const void *x
        const void *dy
        const void *alpha
        void *y
        void *dx
        double *sums
    ctypedef struct fa_slopes_kernels:
        fa_training_kernel forward, backward

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_kernels:
        fa_slopes_kernels slopes

#: Rows that share a row of sums.
BLOCK_ROWS = FA_SLOPES_ROWS


cdef void work(fa_training_kernel kernel, const fa_slopes_args *args, double ns) noexcept:
    """Over all blocks of rows; ``ns`` an element, about, on one thread."""
    cdef fa_size blocks = (args.rows + FA_SLOPES_ROWS - 1) // FA_SLOPES_ROWS
    with nogil:
        run(kernel, args, blocks, ns * args.rows * args.n)


def forward(x, alpha, out):
    """x where x > 0, else alpha x, for x (..., N) and alpha (N,); None for what is no ordinary array, or not of that shape.

    NumPy's loop is one of N elements for each row, with threads and floating-point state set up in each: 1.9 times the
    time at N = 256.
    """
    cdef fa_slopes_args args
    cdef cnp.ndarray given, y
    cdef int ndim
    if not ordinary(x):
        return None
    given = x
    ndim = cnp.PyArray_NDIM(given)
    if ndim < 2 or not fits(alpha, given, 1, cnp.PyArray_DIMS(given) + ndim - 1):
        return None
    if out is None:
        y = new_array(ndim, cnp.PyArray_DIMS(given), cnp.PyArray_TYPE(given), cnp.PyArray_ITEMSIZE(given))
    else:
        y = into(out, given, alpha, ndim, cnp.PyArray_DIMS(given))
    if y is None or cnp.PyArray_SIZE(given) == 0:
        return y
    args.n = cnp.PyArray_DIM(given, ndim - 1)
    args.rows = cnp.PyArray_SIZE(given) // args.n
    args.x, args.alpha, args.y = cnp.PyArray_DATA(given), cnp.PyArray_DATA(alpha), cnp.PyArray_DATA(y)
    work((<const fa_kernels *>active(element_type(given))).slopes.forward, &args, 0.03 * cnp.PyArray_ITEMSIZE(given))
    return y


def backward(cnp.ndarray x not None, cnp.ndarray dy not None, cnp.ndarray alpha not None, cnp.ndarray dx,
             cnp.ndarray sums not None):
    """Fills dx (R, n), unless it is None, and the sums of dy x over x <= 0 of each BLOCK_ROWS rows (blocks, n), float64.

    x and dy (R, n) and alpha (n,) are dense and of one type.
    """
    cdef fa_slopes_args args
    cdef int type_number = cnp.PyArray_TYPE(x), kind = element_type(x)
    dense(x, "x", type_number, 2)
    dense(dy, "dy", type_number, 2)
    dense(alpha, "alpha", type_number, 1)
    dense(sums, "sums", cnp.NPY_FLOAT64, 2, True)
    if dx is not None:
        dense(dx, "dx", type_number, 2, True)
    args.rows, args.n = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    for name, array, shape in (
        ("dy", dy, (args.rows, args.n)), ("alpha", alpha, (args.n,)), ("dx", dx, (args.rows, args.n)),
        ("sums", sums, ((args.rows + FA_SLOPES_ROWS - 1) // FA_SLOPES_ROWS, args.n)),
    ):
        if array is not None and array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    args.x, args.dy, args.alpha = cnp.PyArray_DATA(x), cnp.PyArray_DATA(dy), cnp.PyArray_DATA(alpha)
    args.dx = NULL if dx is None else cnp.PyArray_DATA(dx)
    args.sums = <double *>cnp.PyArray_DATA(sums)
    work((<const fa_kernels *>active(kind)).slopes.backward, &args, 0.08 * cnp.PyArray_ITEMSIZE(x))
