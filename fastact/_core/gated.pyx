"""Gated linear units in one pass: the ndarray side of ``src_c/gated.h``.

Callers have validated in the user's terms; what is checked again here keeps a wrong call from leaving an array.
"""

cimport numpy as cnp

from fastact._core.activations cimport FA_MAP_COUNT, FA_MAX_PARAMETERS
from fastact._core.runtime cimport active, fa_size
from fastact._core.training cimport fa_training_kernel, run

cnp.import_array()

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_gated_args:
        fa_size n
        const void *value
        const void *gate
        const void *dy
        void *y
        void *dvalue
        void *dgate
        double parameter[FA_MAX_PARAMETERS]
    ctypedef struct fa_gated_kernels:
        fa_training_kernel forward, backward
    ctypedef struct fa_kernels:
        int lanes
        const fa_gated_kernels *gated

# Serial time of a vector, for the thread policy.
cdef double VECTOR_NS = 4.0


cdef char *halves(cnp.ndarray x, int second) except NULL:
    """Where the first or second half of the first row begins in x of (rows, 2, n)."""
    if cnp.PyArray_NDIM(x) != 3 or cnp.PyArray_DIM(x, 1) != 2 or not cnp.PyArray_ISCARRAY_RO(x):
        raise ValueError("x: expected a dense array of shape (rows, 2, n)")
    return <char *> cnp.PyArray_DATA(x) + second * cnp.PyArray_DIM(x, 2) * cnp.PyArray_ITEMSIZE(x)


cdef object start(int index, tuple parameters, int dtype, fa_size total, fa_gated_args *args, bint backward):
    """The kernel of activation ``index`` over all elements of y or dy."""
    cdef const fa_kernels *table = <const fa_kernels *> active(dtype)
    cdef const fa_gated_kernels *gated
    cdef int k
    if not 0 <= index < FA_MAP_COUNT or table.gated[index].forward == NULL or len(parameters) > FA_MAX_PARAMETERS:
        raise ValueError("index: expected an activation that gates")
    for k in range(len(parameters)):
        args.parameter[k] = parameters[k]
    gated = &table.gated[index]
    with nogil:
        run(gated.backward if backward else gated.forward, args, total, total * VECTOR_NS / table.lanes)


cdef int dtype_of(cnp.ndarray x, cnp.ndarray y) except -1:
    if cnp.PyArray_TYPE(x) not in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE) or cnp.PyArray_TYPE(y) != cnp.PyArray_TYPE(x):
        raise TypeError("x, y: expected one dtype, float32 or float64")
    if 2 * cnp.PyArray_SIZE(y) != cnp.PyArray_SIZE(x) or not cnp.PyArray_ISCARRAY_RO(y):
        raise ValueError("y: expected a dense array of half the size of x")
    return cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE


def forward(int index, tuple parameters, cnp.ndarray x, cnp.ndarray y, bint gate_first):
    """y of (rows, n) = value f(gate), the halves of x of (rows, 2, n)."""
    cdef fa_gated_args args
    cdef int dtype = dtype_of(x, y)
    if not cnp.PyArray_ISWRITEABLE(y):
        raise ValueError("y: expected an array that can be written")
    args.n = cnp.PyArray_DIM(x, 2)
    args.gate = halves(x, not gate_first)
    args.value = halves(x, gate_first)
    args.y = cnp.PyArray_DATA(y)
    start(index, parameters, dtype, cnp.PyArray_SIZE(y), &args, False)


def backward(int index, tuple parameters, cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dx, bint gate_first):
    """dx, laid out as x, for dy of (rows, n)."""
    cdef fa_gated_args args
    cdef int dtype = dtype_of(x, dy)
    if dtype_of(dx, dy) != dtype or not cnp.PyArray_ISWRITEABLE(dx) or cnp.PyArray_DIM(dx, 2) != cnp.PyArray_DIM(x, 2):
        raise ValueError("dx: expected an array as x that can be written")
    args.n = cnp.PyArray_DIM(x, 2)
    args.gate = halves(x, not gate_first)
    args.value = halves(x, gate_first)
    args.dgate = halves(dx, not gate_first)
    args.dvalue = halves(dx, gate_first)
    args.dy = cnp.PyArray_DATA(dy)
    start(index, parameters, dtype, cnp.PyArray_SIZE(dy), &args, True)


cdef bint fits(object a, int kind, int ndim, const cnp.npy_intp *shape) noexcept:
    """Whether it is a plain dense array of this type and shape."""
    cdef int k
    if type(a) is not cnp.ndarray or cnp.PyArray_TYPE(a) != kind or not cnp.PyArray_ISCARRAY_RO(a):
        return False
    if cnp.PyArray_NDIM(a) != ndim:
        return False
    for k in range(ndim):
        if cnp.PyArray_DIM(a, k) != shape[k]:
            return False
    return True


cdef bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef char *of_a = <char *> cnp.PyArray_DATA(a)
    cdef char *of_b = <char *> cnp.PyArray_DATA(b)
    return of_a + cnp.PyArray_NBYTES(a) <= of_b or of_b + cnp.PyArray_NBYTES(b) <= of_a


def direct(int index, tuple parameters, x, dy, out, axis, bint gate_first):
    """The result for plain dense arrays of one float type, apart from each other: y, or dx where there is a dy.

    None where anything is out of the ordinary; the caller finds out what. A call costs 0.5 us instead of 7.
    """
    cdef fa_gated_args args
    cdef cnp.npy_intp shape[64]
    cdef const cnp.npy_intp *wanted = shape
    cdef int k, at, ndim, kind
    cdef fa_size half, itemsize, total = 1
    cdef cnp.ndarray result
    if type(x) is not cnp.ndarray or type(axis) is not int or parameters is None:
        return None
    kind = cnp.PyArray_TYPE(x)
    ndim = cnp.PyArray_NDIM(x)
    if kind not in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE) or not cnp.PyArray_ISCARRAY_RO(x) or not -ndim <= axis < ndim:
        return None
    at = axis + ndim if axis < 0 else axis
    if ndim > 64 or cnp.PyArray_DIM(x, at) % 2:
        return None
    args.n = 1
    for k in range(ndim):
        shape[k] = cnp.PyArray_DIM(x, k) // (2 if k == at else 1)
        total *= shape[k]
        if k >= at:
            args.n *= shape[k]
    if dy is not None and not fits(dy, kind, ndim, shape):
        return None
    if dy is not None:
        wanted = cnp.PyArray_DIMS(x)
    if out is None:
        result = cnp.PyArray_EMPTY(ndim, wanted, kind, 0)
    elif fits(out, kind, ndim, wanted) and cnp.PyArray_ISWRITEABLE(out) and apart(out, x):
        if dy is not None and not apart(out, dy):
            return None
        result = out
    else:
        return None
    if total == 0:
        return result
    itemsize = cnp.PyArray_ITEMSIZE(x)
    args.gate = <char *> cnp.PyArray_DATA(x) + (0 if gate_first else args.n * itemsize)
    args.value = <char *> cnp.PyArray_DATA(x) + (args.n * itemsize if gate_first else 0)
    if dy is None:
        args.y = cnp.PyArray_DATA(result)
    else:
        args.dy = cnp.PyArray_DATA(dy)
        args.dgate = <char *> cnp.PyArray_DATA(result) + (0 if gate_first else args.n * itemsize)
        args.dvalue = <char *> cnp.PyArray_DATA(result) + (args.n * itemsize if gate_first else 0)
    start(index, parameters, kind == cnp.NPY_DOUBLE, total, &args, dy is not None)
    return result
