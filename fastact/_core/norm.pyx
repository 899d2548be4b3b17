"""Layer, RMS and batch normalisation of the rows of an array (R, n): the ndarray side of ``src_c/norm.h``.

Callers inside the package have validated shapes and types in the user's terms; what is checked again here only keeps a
wrong call from reading or writing outside an array. All arrays are dense and of one type.
"""

cimport numpy as cnp

from fastact._core.runtime cimport active, fa_size
from fastact._core.training cimport dense, fa_training_kernel, run
from fastact._core.workspace cimport Workspace

cnp.import_array()

cdef extern from "norm.h" nogil:
    enum:
        FA_NORM_ROWS
        FA_NORM_COLUMNS
    ctypedef struct fa_norm_args:
        fa_size rows, n
        const void *x
        const void *dy
        void *y
        void *dx
        const void *gain
        const void *bias
        double eps
        void *statistics
        void *running_mean
        void *running_variance
        double momentum
        void *sums
        void *totals
        void *of_gain
        void *of_bias
        double share
    ctypedef struct fa_norm_kernels:
        fa_training_kernel layer, layer_backward, rms, rms_backward
        fa_training_kernel batch_moments, batch_statistics, batch_running, batch, batch_sums, batch_backward, gradients

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_kernels:
        fa_norm_kernels norm


cdef const fa_norm_kernels *begin(fa_norm_args *args, cnp.ndarray x) except NULL:
    """Enter x, with everything else absent, and give the kernels for its type."""
    cdef int type_number = cnp.PyArray_TYPE(x)
    if type_number != cnp.NPY_FLOAT32 and type_number != cnp.NPY_FLOAT64:
        raise TypeError(f"x: expected a float32 or float64 array, got {x.dtype}")
    dense(x, "x", type_number, 2)
    args[0] = fa_norm_args(
        cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), cnp.PyArray_DATA(x), NULL, NULL, NULL, NULL, NULL, 0.0, NULL,
        NULL, NULL, 0.0, NULL, NULL, NULL, NULL, 0.0)
    return &(<const fa_kernels *>active(0 if type_number == cnp.NPY_FLOAT32 else 1)).norm


cdef void *data(cnp.ndarray a, str name, cnp.ndarray x, int ndim, fa_size first, fa_size second,
                bint writeable) except? NULL:
    """The data of an array of this shape, of the type of x; NULL for None."""
    if a is None:
        return NULL
    dense(a, name, cnp.PyArray_TYPE(x), ndim, writeable)
    if cnp.PyArray_DIM(a, 0) != first or (ndim == 2 and cnp.PyArray_DIM(a, 1) != second):
        raise ValueError(f"{name}: expected shape {(first, second)[:ndim]}, got {(<object>a).shape}")
    return cnp.PyArray_DATA(a)


cdef inline fa_size blocks_of(const fa_norm_args *args) noexcept nogil:
    return (args.rows + FA_NORM_ROWS - 1) // FA_NORM_ROWS


cdef inline fa_size groups_of(const fa_norm_args *args) noexcept nogil:
    return (args.n + FA_NORM_COLUMNS - 1) // FA_NORM_COLUMNS


cdef inline double cost(const fa_norm_args *args, cnp.ndarray x) noexcept:
    """Nanoseconds of one pass over x, about."""
    return 0.02 * cnp.PyArray_ITEMSIZE(x) * args.rows * args.n


def rows_forward(bint centred, cnp.ndarray x not None, cnp.ndarray gain, cnp.ndarray bias, cnp.ndarray y not None,
                 cnp.ndarray statistics, double eps):
    """y = gain xhat + bias of each row, with its mean and variance (``centred``) or its mean square.

    ``statistics`` (R, 2) receives what the backward pass needs.
    """
    cdef fa_norm_args args
    cdef const fa_norm_kernels *kernels = begin(&args, x)
    args.gain = data(gain, "gain", x, 1, args.n, 0, False)
    args.bias = data(bias, "bias", x, 1, args.n, 0, False)
    args.y = data(y, "y", x, 2, args.rows, args.n, True)
    args.statistics = data(statistics, "statistics", x, 2, args.rows, 2, True)
    args.eps = eps
    cdef double ns = 2 * cost(&args, x)
    with nogil:
        run(kernels.layer if centred else kernels.rms, &args, blocks_of(&args), ns)


cdef Workspace block_sums(fa_norm_args *args, cnp.ndarray x):
    """Room for the sums of the blocks and their totals."""
    cdef fa_size row = 2 * args.n * cnp.PyArray_ITEMSIZE(x)
    cdef Workspace space = Workspace((blocks_of(args) + 1) * row)
    args.totals = space.data
    args.sums = space.data + row
    return space


def rows_backward(bint centred, cnp.ndarray x not None, cnp.ndarray dy not None, cnp.ndarray gain,
                  cnp.ndarray statistics not None, cnp.ndarray dx, cnp.ndarray of_gain, cnp.ndarray of_bias):
    """Backward of ``rows_forward``: fills dx, adds to of_gain and of_bias, each of which may be None."""
    cdef fa_norm_args args
    cdef const fa_norm_kernels *kernels = begin(&args, x)
    cdef Workspace space = None
    args.dy = data(dy, "dy", x, 2, args.rows, args.n, False)
    args.gain = data(gain, "gain", x, 1, args.n, 0, False)
    args.statistics = data(statistics, "statistics", x, 2, args.rows, 2, False)
    args.dx = data(dx, "dx", x, 2, args.rows, args.n, True)
    args.of_gain = data(of_gain, "of_gain", x, 1, args.n, 0, True)
    args.of_bias = data(of_bias, "of_bias", x, 1, args.n, 0, True)
    if args.of_gain != NULL or args.of_bias != NULL:
        space = block_sums(&args, x)
    cdef double ns = 4 * cost(&args, x)
    with nogil:
        run(kernels.layer_backward if centred else kernels.rms_backward, &args, blocks_of(&args), ns)
        if args.sums != NULL:
            run(kernels.gradients, &args, groups_of(&args), 0.1 * blocks_of(&args) * args.n)


def batch_forward(cnp.ndarray x not None, cnp.ndarray gain, cnp.ndarray bias, cnp.ndarray y not None,
                  cnp.ndarray statistics not None, cnp.ndarray running_mean not None,
                  cnp.ndarray running_variance not None, double eps, double momentum, bint running):
    """y = gain xhat + bias of each column, with its mean and variance over the rows, which ``statistics`` (2, n) receives.

    The running statistics take them in, or, with ``running``, take their place and stay. R is 2 or more, else.
    """
    cdef fa_norm_args args
    cdef const fa_norm_kernels *kernels = begin(&args, x)
    cdef Workspace space = None
    args.gain = data(gain, "gain", x, 1, args.n, 0, False)
    args.bias = data(bias, "bias", x, 1, args.n, 0, False)
    args.y = data(y, "y", x, 2, args.rows, args.n, True)
    args.statistics = data(statistics, "statistics", x, 2, 2, args.n, True)
    args.running_mean = data(running_mean, "running_mean", x, 1, args.n, 0, not running)
    args.running_variance = data(running_variance, "running_variance", x, 1, args.n, 0, not running)
    args.eps, args.momentum = eps, momentum
    if not running:
        if args.rows < 2:
            raise ValueError(f"x: expected two rows or more, got {args.rows}")
        space = block_sums(&args, x)
    cdef double ns = cost(&args, x)
    with nogil:
        if running:
            run(kernels.batch_running, &args, groups_of(&args), 5.0 * args.n)
        else:
            run(kernels.batch_moments, &args, blocks_of(&args), ns)
            run(kernels.batch_statistics, &args, groups_of(&args), (5 + 0.4 * blocks_of(&args)) * args.n)
        args.sums = NULL
        run(kernels.batch, &args, blocks_of(&args), 2 * ns)


def batch_backward(cnp.ndarray x not None, cnp.ndarray dy not None, cnp.ndarray gain, cnp.ndarray statistics not None,
                   cnp.ndarray dx, cnp.ndarray of_gain, cnp.ndarray of_bias, bint running):
    """Backward of ``batch_forward``: fills dx, adds to of_gain and of_bias, each of which may be None."""
    cdef fa_norm_args args
    cdef const fa_norm_kernels *kernels = begin(&args, x)
    cdef Workspace space
    args.dy = data(dy, "dy", x, 2, args.rows, args.n, False)
    args.gain = data(gain, "gain", x, 1, args.n, 0, False)
    args.statistics = data(statistics, "statistics", x, 2, 2, args.n, False)
    args.dx = data(dx, "dx", x, 2, args.rows, args.n, True)
    args.of_gain = data(of_gain, "of_gain", x, 1, args.n, 0, True)
    args.of_bias = data(of_bias, "of_bias", x, 1, args.n, 0, True)
    args.share = 0.0 if running or args.rows == 0 else 1.0 / args.rows
    space = block_sums(&args, x)
    cdef double ns = cost(&args, x)
    with nogil:
        run(kernels.batch_sums, &args, blocks_of(&args), 2 * ns)
        run(kernels.gradients, &args, groups_of(&args), 0.1 * blocks_of(&args) * args.n)
        if args.dx != NULL:
            run(kernels.batch_backward, &args, blocks_of(&args), 3 * ns)
