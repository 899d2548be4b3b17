"""Embedding rows, norms and optimiser updates: the ndarray side of ``src_c/training.h``.

Callers inside the package have validated shapes and types in the user's terms; what is checked again here only keeps
a wrong call from reading or writing outside an array. Arrays are dense ndarrays; the ndarray C interface is used
because a typed memoryview costs 0.2-0.4 us an argument, as long as a whole small kernel.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from fastact._core.runtime cimport active, fa_fpenv, fa_fpenv_enter, fa_fpenv_leave, fa_size, threads_for

cnp.import_array()

cdef extern from "training.h" nogil:
    enum:
        FA_EMBEDDING_COLUMNS
        FA_REDUCE_BLOCK
        FA_UPDATE_BLOCK
    ctypedef struct fa_embedding_args:
        fa_size count
        fa_size width
        const int64_t *indices
        const void *source
        void *target
    ctypedef struct fa_sum_squares_args:
        fa_size n
        const void *x
        double *sums
    enum:
        FA_STATES
        FA_UPDATE_COUNT
    ctypedef struct fa_update_args:
        fa_size n
        void *parameters
        void *gradients
        void *state[FA_STATES]
        double gradient_scale, decay, shrink
        double rate, rate_now, beta1, beta2, eps, root_scale, low, high
    ctypedef struct fa_training_kernels:
        fa_training_kernel embedding_forward
        fa_training_kernel embedding_backward
        fa_training_kernel sum_squares
        fa_training_kernel update[FA_UPDATE_COUNT]
        fa_training_kernel zero
    const char *fa_update_name(int rule)
    int fa_update_states(int rule)
    fa_size fa_first_outside(const int64_t *indices, fa_size n, int64_t limit, int has_ignored, int64_t ignored,
                             fa_size *counted)

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_kernels:
        fa_training_kernels training


cdef int element_type(cnp.ndarray x) except -1:
    """Which table of kernels serves x, as ``active`` numbers them."""
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
        return 0
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64:
        return 1
    raise TypeError(f"expected a float32 or float64 array, got {x.dtype}")


cdef const fa_training_kernels *kernels_of(cnp.ndarray x) except NULL:
    return &(<const fa_kernels *>active(element_type(x))).training


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


cdef inline fa_size ceil_div(fa_size n, fa_size size) noexcept nogil:
    return (n + size - 1) // size


cdef int check_indices(cnp.ndarray indices, int64_t limit) except -1:
    cdef fa_size n = cnp.PyArray_SIZE(indices), bad
    cdef const int64_t *data = <const int64_t *>cnp.PyArray_DATA(indices)
    with nogil:
        bad = fa_first_outside(data, n, limit, 0, 0, NULL)
    if bad >= 0:
        raise IndexError(f"indices: expected 0 <= index < {limit}, got {data[bad]} at position {bad}")
    return 0


# ---- embedding ----


cdef double embedding_arrays(fa_embedding_args *args, cnp.ndarray indices, cnp.ndarray table, str table_name,
                             cnp.ndarray rows, str rows_name, bint gather) except -1:
    """Check indices (n,), table (N, D) and rows (n, D), enter them into args, and estimate the serial time in ns.

    With ``gather`` rows are made of the table, else they go into it.
    """
    cdef int type_number = cnp.PyArray_TYPE(table)
    dense(table, table_name, type_number, 2, not gather)
    dense(indices, "indices", cnp.NPY_INT64, 1)
    dense(rows, rows_name, type_number, 2, gather)
    args.count, args.width = cnp.PyArray_DIM(indices, 0), cnp.PyArray_DIM(table, 1)
    if cnp.PyArray_DIM(rows, 0) != args.count or cnp.PyArray_DIM(rows, 1) != args.width:
        raise ValueError(f"{rows_name}: expected shape {(args.count, args.width)}, got {(<object>rows).shape}")
    check_indices(indices, cnp.PyArray_DIM(table, 0))
    args.indices = <const int64_t *>cnp.PyArray_DATA(indices)
    args.source = cnp.PyArray_DATA(table if gather else rows)
    args.target = cnp.PyArray_DATA(rows if gather else table)
    return args.count * (1 + 0.01 * cnp.PyArray_ITEMSIZE(table) * args.width)


def embedding_forward(cnp.ndarray weight, cnp.ndarray indices, cnp.ndarray out):
    """``out[i] = weight[indices[i]]``: weight (N, D), indices int64 (n,), out (n, D).

    Raises IndexError with the first index outside 0 <= index < N and its position, before anything is written.
    """
    cdef const fa_training_kernels *kernels = kernels_of(weight)
    cdef fa_embedding_args args
    cdef double ns = embedding_arrays(&args, indices, weight, "weight", out, "out", True)
    with nogil:
        run(kernels.embedding_forward, &args, args.count, ns)


def embedding_backward(cnp.ndarray indices, cnp.ndarray dy, cnp.ndarray grad):
    """``grad[indices[i]] += dy[i]`` in the order of i: indices int64 (n,), dy (n, D), grad (N, D).

    The same bits for any number of threads. Raises IndexError as ``embedding_forward`` does.
    """
    cdef const fa_training_kernels *kernels = kernels_of(grad)
    cdef fa_embedding_args args
    cdef double ns = embedding_arrays(&args, indices, grad, "grad", dy, "dy", False)
    with nogil:
        run(kernels.embedding_backward, &args, ceil_div(args.width, FA_EMBEDDING_COLUMNS), ns)


# ---- sums in float64 per block of fixed size, added up in the order of the blocks ----


cdef double add_up(const double *sums, fa_size n) noexcept nogil:
    cdef double total = 0
    cdef fa_size i
    for i in range(n):
        total += sums[i]
    return total


cdef void *new_sums(fa_size n) except NULL:
    cdef void *sums = malloc(max(n, 1) * sizeof(double))
    if sums == NULL:
        raise MemoryError(f"{n} partial sums")
    return sums


cdef int64_t *spans_of(cnp.ndarray spans, fa_size n) except? NULL:
    """The pairs (begin, end) of an array (k, 2), each within 0 ... n."""
    cdef int64_t *pairs
    cdef fa_size k
    dense(spans, "spans", cnp.NPY_INT64, 2)
    pairs = <int64_t *>cnp.PyArray_DATA(spans)
    if cnp.PyArray_DIM(spans, 1) != 2:
        raise ValueError(f"spans: expected shape (k, 2), got {(<object>spans).shape}")
    for k in range(cnp.PyArray_DIM(spans, 0)):
        if not 0 <= pairs[2 * k] <= pairs[2 * k + 1] <= n:
            raise ValueError(f"spans: expected 0 <= begin <= end <= {n}, got {pairs[2 * k]}, {pairs[2 * k + 1]}")
    return pairs


def sum_squares(cnp.ndarray x, cnp.ndarray spans=None):
    """Sum of x^2 over a flat array, in float64: the same bits for any number of threads and instruction set.

    ``spans``, int64 of shape (k, 2): only x[begin:end] of each.
    """
    cdef int64_t *pairs
    if spans is not None:
        pairs = spans_of(spans, cnp.PyArray_DIM(x, 0))
        return sum([sum_squares(x[pairs[2 * k] : pairs[2 * k + 1]]) for k in range(cnp.PyArray_DIM(spans, 0))], 0.0)
    cdef const fa_training_kernels *kernels = kernels_of(x)
    cdef fa_sum_squares_args args
    cdef fa_size blocks
    cdef double total
    dense(x, "x", cnp.PyArray_TYPE(x), 1)
    args.n = cnp.PyArray_DIM(x, 0)
    args.x = cnp.PyArray_DATA(x)
    blocks = ceil_div(args.n, FA_REDUCE_BLOCK)
    args.sums = <double *>new_sums(blocks)
    with nogil:
        run(kernels.sum_squares, &args, blocks, 0.013 * cnp.PyArray_ITEMSIZE(x) * args.n)
        total = add_up(args.sums, blocks)
        free(args.sums)
    return total


# ---- optimiser steps over flat buffers (n,) ----


RULES = {fa_update_name(rule).decode(): rule for rule in range(FA_UPDATE_COUNT)}


def states(int rule):
    """Which of the state arrays m, v and u a rule has."""
    return [bool(fa_update_states(rule) >> k & 1) for k in range(FA_STATES)]


cdef void *flat(cnp.ndarray array, str name, cnp.ndarray like) except? NULL:
    """The data of a flat array of the type and length of another."""
    dense(array, name, cnp.PyArray_TYPE(like), 1, True)
    if cnp.PyArray_DIM(array, 0) != cnp.PyArray_DIM(like, 0):
        raise ValueError(f"{name}: expected {like.size} elements as in parameters, got {array.size}")
    return cnp.PyArray_DATA(array)


def update(int rule, cnp.ndarray parameters not None, cnp.ndarray gradients not None, tuple state not None,
           cnp.ndarray steps not None, cnp.ndarray spans=None, double gradient_scale=1.0, double rate=0.0, double decay=0.0, double shrink=1.0,
           double beta1=0.0, double beta2=0.0, double eps=0.0, double root_scale=1.0, double rate_now=0.0,
           double low=0.0, double high=0.0):
    """One step of a rule of src_c/training.h; ``state`` is (m, v, u), None for those that it has not.

    ``steps``, int64 of shape (), goes up by one: counter and arrays change in one call that no signal handler interrupts.
    ``spans``, int64 of shape (k, 2): only the elements begin ... end - 1 of each change.
    """
    cdef const fa_training_kernels *kernels = kernels_of(parameters)
    cdef fa_update_args args
    cdef fa_update_args part
    cdef int64_t *step
    cdef int64_t whole[2]
    cdef int64_t *pairs = whole
    cdef fa_size arrays = 2, itemsize = cnp.PyArray_ITEMSIZE(parameters), i, n_spans = 1
    cdef int k
    if not 0 <= rule < FA_UPDATE_COUNT or len(state) != FA_STATES:
        raise ValueError(f"rule: expected one of {len(RULES)} and {FA_STATES} states, got {rule} and {len(state)}")
    dense(steps, "steps", cnp.NPY_INT64, 0, True)
    step = <int64_t *>cnp.PyArray_DATA(steps)
    args.parameters = flat(parameters, "parameters", parameters)
    args.gradients = flat(gradients, "gradients", parameters)
    args.n = cnp.PyArray_DIM(parameters, 0)
    for k in range(FA_STATES):
        args.state[k] = NULL
        if fa_update_states(rule) >> k & 1:
            if state[k] is None:
                raise TypeError(f"state[{k}]: expected an array, got None")
            args.state[k] = flat(state[k], f"state[{k}]", parameters)
            arrays += 1
    args.gradient_scale, args.decay, args.shrink = gradient_scale, decay, shrink
    args.rate, args.rate_now, args.beta1, args.beta2, args.eps = rate, rate_now, beta1, beta2, eps
    args.root_scale, args.low, args.high = root_scale, low, high
    whole[0], whole[1] = 0, args.n
    if spans is not None:
        pairs, n_spans = spans_of(spans, args.n), cnp.PyArray_DIM(spans, 0)
    with nogil:
        for i in range(n_spans):
            part = args
            part.n = pairs[2 * i + 1] - pairs[2 * i]
            part.parameters = <char *>args.parameters + pairs[2 * i] * itemsize
            part.gradients = <char *>args.gradients + pairs[2 * i] * itemsize
            for k in range(FA_STATES):
                if args.state[k] != NULL:
                    part.state[k] = <char *>args.state[k] + pairs[2 * i] * itemsize
            run(kernels.update[rule], &part, ceil_div(part.n, FA_UPDATE_BLOCK), 0.014 * arrays * itemsize * part.n)
        step[0] += 1


def zero(cnp.ndarray gradients):
    """Set a flat array to zero, on as many threads as pay."""
    cdef const fa_training_kernels *kernels = kernels_of(gradients)
    cdef fa_update_args args
    dense(gradients, "gradients", cnp.PyArray_TYPE(gradients), 1, True)
    args.n = cnp.PyArray_DIM(gradients, 0)
    args.gradients = cnp.PyArray_DATA(gradients)
    with nogil:
        run(kernels.zero, &args, ceil_div(args.n, FA_UPDATE_BLOCK), 0.01 * cnp.PyArray_ITEMSIZE(gradients) * args.n)
