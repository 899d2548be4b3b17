"""Activations over NumPy arrays: ufuncs built from the C table, and the short way past them for ordinary arrays.

Two faces stand over the same two functions, ``run_map`` (elementwise) and ``run_rows`` (softmax and its kin): the loops
that NumPy calls, and ``Caller``, which takes contiguous float32 and float64 arrays straight to the kernel, because the
ufunc machinery alone costs 240 ns (and twice that with a parameter), more than the arithmetic of a thousand elements.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport NAN
from libc.stdint cimport uint16_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memcmp, memcpy

from fastact._core.runtime cimport active, fa_fpenv, fa_fpenv_enter, fa_fpenv_leave, fa_size, threads_for

import numpy as np

cnp.import_array()
cnp.import_umath()

cdef extern from "half.h" nogil:
    float fa_half_to_float(uint16_t half)
    uint16_t fa_float_to_half(float value)

cdef extern from "numpy/arrayobject.h":
    bint PyArray_ISCARRAY(cnp.ndarray)
    bint PyArray_ISCARRAY_RO(cnp.ndarray)


# What a loop computes: the columns of the table of kernels.
KINDS = (
    "forward", "derivative1", "derivative2", "backward_x", "backward_y", "forward_scaled", "backward_y_scaled"
)

cdef enum:
    FORWARD = 0
    DERIVATIVE1 = 1
    DERIVATIVE2 = 2
    BACKWARD_X = 3
    BACKWARD_Y = 4
    FORWARD_SCALED = 5      # of rows: with a temperature
    BACKWARD_Y_SCALED = 6
    N_KINDS = 7

    FLOAT32 = 0
    FLOAT64 = 1
    FLOAT16 = 2        # computed in float32, by blocks
    N_DTYPES = 3

    MAX_INPUTS = 5     # dy, x or y, and FA_MAX_PARAMETERS
    BLOCK = 256        # elements of a block that goes through a buffer
    GRAIN = 64         # elements: threads share no cache line
    RELEASE_GIL = 500  # elements: NumPy's own threshold
    MAX_DIMS = 64      # NumPy's own limit

assert MAX_INPUTS == 2 + FA_MAX_PARAMETERS

# Serial time of a vector, for the thread policy: the kernels take 1 to 4 ns a vector, and memory bounds them at 2.
cdef double VECTOR_NS = 2.0


# ------------------------------------------------------------------------------------------------- elementwise

cdef fa_map_kernel map_kernel(const Loop *loop) noexcept nogil:
    """The active instruction set's kernel for this loop."""
    cdef const fa_map_kernels *row = &table(loop.dtype).activation.map[loop.index]
    if loop.kind == FORWARD:
        return row.forward
    if loop.kind == DERIVATIVE1:
        return row.derivative1
    if loop.kind == DERIVATIVE2:
        return row.derivative2
    return row.backward_x if loop.kind == BACKWARD_X else row.backward_y


cdef inline const kernels *table(int dtype) noexcept nogil:
    return <const kernels *> active(FLOAT64 if dtype == FLOAT64 else FLOAT32)


cdef inline fa_size itemsize(int dtype) noexcept nogil:
    return 8 if dtype == FLOAT64 else 4 if dtype == FLOAT32 else 2


cdef fa_size dependence(const Loop *loop, fa_size n, char **data, const fa_size *steps) noexcept nogil:
    """How many elements may be read ahead of the writes, n if all.

    The elements are defined one after another: where an input shares memory with the output, it may read what an
    earlier element wrote. The same pointer and stride is the ordinary in-place call and no obstacle.
    """
    cdef fa_size size = itemsize(loop.dtype), step = steps[loop.n_in], most = n, behind
    cdef char *out = data[loop.n_in]
    cdef char *low = out + min(<fa_size> 0, (n - 1) * step)
    cdef char *high = out + max(<fa_size> 0, (n - 1) * step) + size
    cdef char *first
    cdef char *last
    cdef int i
    for i in range(loop.n_in):
        if data[i] == out and steps[i] == step and step != 0:
            continue
        first = data[i] + min(<fa_size> 0, (n - 1) * steps[i])
        last = data[i] + max(<fa_size> 0, (n - 1) * steps[i]) + size
        if last <= low or high <= first:
            continue
        if steps[i] != step or step == 0 or (data[i] - out) % size != 0:
            return 1
        behind = (out - data[i]) // step if (out - data[i]) % step == 0 else 1
        most = min(most, BLOCK if behind < 0 else max(<fa_size> 1, behind))
    return most


cdef void run_blocks(
    const Loop *loop, fa_size n, char **data, const fa_size *steps, fa_size block
) noexcept nogil:
    """Block by block, every input copied (or widened from float16) before the block's output is written."""
    cdef double buffers[MAX_INPUTS + 1][BLOCK]
    cdef fa_map_args args
    cdef fa_size start = 0, count, j, size = itemsize(loop.dtype)
    cdef int i
    cdef char *source
    cdef char *target
    cdef fa_map_kernel kernel = map_kernel(loop)
    block = min(block, <fa_size> BLOCK)
    args.total = 0
    while start < n:
        count = min(block, n - start)
        for i in range(loop.n_in):
            source = data[i] + start * steps[i]
            target = <char *> buffers[i]
            args.in_[i] = target
            if loop.dtype == FLOAT16:
                args.in_stride[i] = sizeof(float)
                for j in range(count):
                    (<float *> target)[j] = fa_half_to_float((<uint16_t *> (source + j * steps[i]))[0])
            else:
                args.in_stride[i] = size
                for j in range(count):
                    memcpy(target + j * size, source + j * steps[i], size)
        target = data[loop.n_in] + start * steps[loop.n_in]
        args.n = count
        if loop.dtype == FLOAT16:
            args.out = buffers[MAX_INPUTS]
            args.out_stride = sizeof(float)
            kernel(&args)
            for j in range(count):
                (<uint16_t *> (target + j * steps[loop.n_in]))[0] = fa_float_to_half((<float *> buffers[MAX_INPUTS])[j])
        else:
            args.out = target
            args.out_stride = steps[loop.n_in]
            kernel(&args)
        start += count


cdef void run_piece(
    const Loop *loop, fa_size start, fa_size n, fa_size total, char **data, const fa_size *steps
) noexcept nogil:
    """Elements [start, start + n), on this thread; ``total`` as in fa_map_args."""
    cdef char *shifted[MAX_INPUTS + 1]
    cdef fa_map_args args
    cdef fa_fpenv saved = fa_fpenv_enter()
    cdef int i
    if loop.dtype == FLOAT16:
        for i in range(loop.n_in + 1):
            shifted[i] = data[i] + start * steps[i]
        run_blocks(loop, n, shifted, steps, BLOCK)
    else:
        args.n = n
        args.total = total
        for i in range(loop.n_in):
            args.in_[i] = data[i] + start * steps[i]
            args.in_stride[i] = steps[i]
        args.out = data[loop.n_in] + start * steps[loop.n_in]
        args.out_stride = steps[loop.n_in]
        map_kernel(loop)(&args)
    fa_fpenv_leave(saved)


cdef void run_map(const Loop *loop, fa_size n, char **data, const fa_size *steps) noexcept nogil:
    """out[i] = kernel(in0[i], in1[i], ...); ``data`` and ``steps`` (bytes) hold the inputs, then the output."""
    cdef fa_size ahead = dependence(loop, n, data, steps), each
    cdef fa_fpenv saved
    cdef int n_threads, t
    if n <= 0:
        return
    if ahead < n:
        saved = fa_fpenv_enter()
        run_blocks(loop, n, data, steps, ahead)
        fa_fpenv_leave(saved)
        return
    n_threads = threads_for(n * VECTOR_NS / table(loop.dtype).lanes, <int> min(n // GRAIN, <fa_size> 4096))
    if n_threads == 1:
        run_piece(loop, 0, n, 0, data, steps)
        return
    each = (n // n_threads + GRAIN) // GRAIN * GRAIN
    for t in prange(n_threads, num_threads=n_threads, schedule="static"):
        if t * each < n:
            run_piece(loop, t * each, min(each, n - t * each), n, data, steps)


cdef void map_loop(
    char **data, const cnp.npy_intp *dimensions, const cnp.npy_intp *steps, void *loop
) noexcept nogil:
    run_map(<const Loop *> loop, dimensions[0], data, <const fa_size *> steps)


# -------------------------------------------------------------------------------------------------------- rows

cdef struct Rows:
    # Blocks of rows: of an array whose axis k holds the rows, the axes before k tell the blocks, those after it the rows.
    fa_rows_args args            # of the first block
    fa_size blocks
    fa_size block_bytes[FA_ROWS_OPERANDS]   # from one block to the next
    fa_size out_block_bytes


cdef struct Steps:
    # Of an operand, in bytes: from one element of a row, one row and one block to the next.
    fa_size element, row, block


cdef void run_rows_piece(const Loop *loop, fa_size start, fa_size count, const Rows *whole) noexcept nogil:
    """Rows [start, start + count) of all, on this thread."""
    cdef fa_rows_args args = whole.args
    cdef fa_rows_kernel kernel = table(loop.dtype).rows[loop.index]
    cdef fa_size each = whole.args.rows, block, first
    cdef fa_fpenv saved = fa_fpenv_enter()
    cdef int i
    while count > 0:
        block, first = start // each, start % each
        args.rows = min(count, each - first)
        for i in range(loop.n_in):
            args.in_[i] = (
                <const char *> whole.args.in_[i] + block * whole.block_bytes[i] + first * args.in_row_stride[i]
            )
        args.out = <char *> whole.args.out + block * whole.out_block_bytes + first * args.out_row_stride
        kernel(&args)
        start += args.rows
        count -= args.rows
    fa_fpenv_leave(saved)


cdef void run_rows(const Loop *loop, const Rows *whole) noexcept nogil:
    """out[r] = kernel(in0[r], in1[r], ...) for rows of n elements. Row kernels pass over their input three times."""
    cdef fa_size each, rows = whole.args.rows * whole.blocks
    cdef int n_threads, t
    if rows <= 0:
        return
    n_threads = threads_for(
        rows * whole.args.n * 3 * VECTOR_NS / table(loop.dtype).lanes, <int> min(rows, <fa_size> 4096)
    )
    if n_threads == 1:
        run_rows_piece(loop, 0, rows, whole)
        return
    each = (rows + n_threads - 1) // n_threads
    if whole.args.rows > GRAIN:   # neighbouring rows may be neighbours in memory
        each = (each + GRAIN - 1) // GRAIN * GRAIN
    for t in prange(n_threads, num_threads=n_threads, schedule="static"):
        if t * each < rows:
            run_rows_piece(loop, t * each, min(each, rows - t * each), whole)


cdef void rows_loop(
    char **data, const cnp.npy_intp *dimensions, const cnp.npy_intp *steps, void *loop_data
) noexcept nogil:
    cdef const Loop *loop = <const Loop *> loop_data
    cdef const cnp.npy_intp *within = steps + loop.n_in + 1   # strides within a row, of those operands that are rows
    cdef Rows rows
    cdef int i, n_in = loop.n_in
    rows.blocks = 1
    rows.args.rows = dimensions[0]
    rows.args.n = dimensions[1]
    for i in range(n_in):
        rows.args.in_[i] = data[i]
        rows.args.in_row_stride[i] = steps[i]
        rows.args.in_stride[i] = rows.block_bytes[i] = 0
        if loop.row_operands >> i & 1:
            rows.args.in_stride[i] = within[0]
            within += 1
    rows.args.out = data[n_in]
    rows.args.out_row_stride = steps[n_in]
    rows.args.out_stride = within[0] if loop.row_operands >> n_in & 1 else 0
    rows.out_block_bytes = 0
    run_rows(loop, &rows)


# ------------------------------------------------------------------------------------------------------ ufuncs

cdef dict _rows_table():
    cdef const fa_rows_info *info
    table = {}
    for index in range(FA_ROWS_COUNT):
        info = fa_rows_describe(index)
        table[info.name.decode()] = index, info.signature.decode()
    return table


# The functions of rows: name -> (FA_ROWS_*, signature).
ROWS = _rows_table()

# What is added to the name of a function of rows.
_ROWS_KINDS = {
    FORWARD: "", BACKWARD_X: "_backward", BACKWARD_Y: "_backward", FORWARD_SCALED: "_scaled",
    BACKWARD_Y_SCALED: "_scaled_backward",
}


cdef int row_operands(str signature):
    """Bit k: operand k, the output last, is a whole row."""
    cores = signature.replace("->", ",").split(",")
    return sum([1 << k for k in range(len(cores)) if cores[k] == "(n)"])



cdef str text(const char *words):
    return "" if words == NULL else words.decode()


cdef tuple places(const fa_places *at):
    return tuple([at.x[i] for i in range(at.count)])


cdef dict largest_errors(const fa_activation_info *info, int precise):
    """Of f, f' and f'' in ulp, by dtype, for a tier."""
    return {
        name: tuple([fa_activation_ulp(info, precise, size, i) for i in range(3)])
        for name, size in (("float32", 4), ("float64", 8))
    }


def describe(int index):
    """Row ``index`` of the C table of elementwise activations, as a dict."""
    if not 0 <= index < FA_ACT_COUNT:
        raise IndexError(f"index: expected 0 to {FA_ACT_COUNT - 1}, got {index}")
    cdef const fa_activation_info *info = fa_activation_describe(index)
    return {
        "name": text(info.name),
        "index": index,
        "formula": text(info.formula),
        "aliases": tuple(text(info.aliases).split()),
        "surrogate": text(info.surrogate),
        "note": text(info.note),
        "parameters": {text(info.parameters[i].name): info.parameters[i].value for i in range(info.parameter_count)},
        "backward_from": text(info.backward_from),
        "ulp": largest_errors(info, 0),
        "precise_ulp": largest_errors(info, 1),
        "zeros": (places(&info.zeros[0]), places(&info.zeros[1])),
        "kinks": places(&info.kinks),
        "landmarks": [(info.landmarks.xy[i][0], info.landmarks.xy[i][1]) for i in range(info.landmarks.count)],
        "monotonic": bool(info.monotonic),
        "odd": bool(info.odd),
        "range": (info.range[0], info.range[1]),
    }


def describe_all():
    return [describe(i) for i in range(FA_ACT_COUNT)]


cdef Loop *make_loops(int index, int kind, int n_in, int row_operands) except NULL:
    """One loop a dtype; ufuncs keep pointing at them, so they live as long as the process."""
    cdef Loop *loops = <Loop *> calloc(N_DTYPES, sizeof(Loop))
    if loops == NULL:
        raise MemoryError()
    for dtype in range(N_DTYPES):
        loops[dtype] = Loop(index, kind, dtype, n_in, row_operands)
    if not row_operands and map_kernel(&loops[FLOAT32]) == NULL:   # backward from y, where y does not determine it
        raise LookupError(f"no kernel {KINDS[kind]} in row {index}")
    return loops


cdef object make_ufunc(Loop *loops, str signature, str name, str doc):
    """The NumPy ufunc (gufunc with a signature) over these loops, also an attribute of this module, where pickle looks."""
    # Ascending, as NumPy searches for the first loop that holds the inputs: int8 goes to float16 as in np.sin. Row
    # functions have no float16 loop (a row would need a buffer of unknown length): NumPy casts.
    cdef int[3] order = [FLOAT16, FLOAT32, FLOAT64]
    cdef int[3] number = [cnp.NPY_FLOAT16, cnp.NPY_FLOAT32, cnp.NPY_FLOAT64]
    cdef bint rowwise = signature is not None
    cdef int first = 1 if rowwise else 0, n_loops = 3 - first, n_in = loops[0].n_in, i, k
    cdef cnp.PyUFuncGenericFunction *functions = <cnp.PyUFuncGenericFunction *> malloc(3 * sizeof(void *))
    cdef void **data = <void **> malloc(3 * sizeof(void *))
    cdef char *types = <char *> malloc(3 * (MAX_INPUTS + 1))
    if functions == NULL or data == NULL or types == NULL:
        raise MemoryError()
    for i in range(n_loops):
        functions[i] = <cnp.PyUFuncGenericFunction> (rows_loop if rowwise else map_loop)
        data[i] = &loops[order[first + i]]
        for k in range(n_in + 1):
            types[i * (n_in + 1) + k] = <char> number[first + i]
    encoded = name.encode(), doc.encode(), (signature or "").encode()
    _KEPT.append(encoded)
    if rowwise:
        ufunc = cnp.PyUFunc_FromFuncAndDataAndSignature(
            functions, data, types, n_loops, n_in, 1, cnp.PyUFunc_None, encoded[0], encoded[1], 0,
            encoded[2],
        )
    else:
        ufunc = cnp.PyUFunc_FromFuncAndData(
            functions, data, types, n_loops, n_in, 1, cnp.PyUFunc_None, encoded[0], encoded[1], 0
        )
    globals()[name] = ufunc
    try:
        ufunc.__module__ = __name__   # NumPy 2.2 on; before, pickle searches the loaded modules for the name
    except AttributeError:
        pass
    return ufunc


_KEPT = []   # names and docstrings that ufuncs point at
_SUFFIX = ("", "_derivative1", "_derivative2", "_backward", "_backward_from_y")


# ------------------------------------------------------------------------------------------------------ caller

cdef tuple _NUMBERS = (float, int, np.integer, np.floating, np.bool_)


cdef inline bint as_scalar(object value, double *result) except -1:
    """Whether ``value`` is one real number; NumPy scalars and 0-d arrays are."""
    if type(value) is float:
        result[0] = <double> value
        return True
    if isinstance(value, _NUMBERS) or (
        isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "fiub"
    ):
        result[0] = float(value)
        return True
    return False


cdef bint ordinary(object a):
    """A C-contiguous, aligned array of float32 or float64 in native byte order, not a subclass, not 0-d."""
    return (
        cnp.PyArray_CheckExact(a)
        and (cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT or cnp.PyArray_TYPE(a) == cnp.NPY_DOUBLE)
        and PyArray_ISCARRAY_RO(a)
        and cnp.PyArray_NDIM(a) > 0
    )


cdef bint fits(object a, cnp.ndarray like, int ndim, const cnp.npy_intp *shape):
    """Whether it is an ordinary array of that shape and of the other one's type."""
    cdef int i
    if not ordinary(a) or cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(like) or cnp.PyArray_NDIM(a) != ndim:
        return False
    for i in range(ndim):
        if cnp.PyArray_DIM(a, i) != shape[i]:
            return False
    return True


cdef inline bint apart(cnp.ndarray out, cnp.ndarray a):
    """The same memory from first to last, or none in common. Both are contiguous."""
    cdef char *p = <char *> cnp.PyArray_DATA(out)
    cdef char *q = <char *> cnp.PyArray_DATA(a)
    cdef cnp.npy_intp p_size = cnp.PyArray_NBYTES(out), q_size = cnp.PyArray_NBYTES(a)
    return p == q and p_size == q_size or p + p_size <= q or q + q_size <= p


cdef cnp.ndarray into(object out, cnp.ndarray x, object other, int ndim, const cnp.npy_intp *shape):
    """``out`` where a kernel may write a result of that shape there, a new array where it is None, else None."""
    if out is None:
        return cnp.PyArray_EMPTY(ndim, shape, cnp.PyArray_TYPE(x), 0)
    if not fits(out, x, ndim, shape) or not PyArray_ISCARRAY(out) or not apart(out, x):
        return None
    return None if other is not None and not apart(out, other) else out


cdef class Caller:
    """Calls of one activation: ordinary arrays go to the kernel, all else to ``_call`` and ``_backward`` of the subclass.

    ``ufuncs`` maps a kind to its ufunc, for the kinds that exist: none without a row of the table, where index is -1 and
    rowwise False.
    """

    def __cinit__(self, str name, int index, bint rowwise, dict parameters, doc=None, base=None, facts=None):
        cdef int kind, n_params = len(parameters)
        cdef Caller other
        self.name, self.index, self.rowwise = name, index, rowwise
        self.parameter_names = tuple(parameters)
        for i in range(8):
            self.values[i] = NAN   # to standardize: nothing is masked
        for i, value in enumerate(parameters.values()):
            self.values[i] = value
        if base is not None:
            other = base
            self.ufuncs, self.ufunc = other.ufuncs, other.ufunc
            for kind in range(N_KINDS):
                self.loops[kind] = other.loops[kind]
            return
        self.ufuncs = {}
        if rowwise:
            self._make_row_ufuncs(doc, facts["backward_from"] == "x")
        elif index >= 0:
            self._make_ufuncs(doc)
        self.ufunc = self.ufuncs.get("forward")

    cdef _make_ufuncs(self, object doc):
        cdef int kind
        for kind in range(FORWARD_SCALED):
            n_in = (2 if kind >= BACKWARD_X else 1) + len(self.parameter_names)
            try:
                self.loops[kind] = make_loops(self.index, kind, n_in, 0)
            except LookupError:
                continue
            name = self.name.replace(".", "_") + _SUFFIX[kind]   # pickle takes a dot for an attribute
            self.ufuncs[KINDS[kind]] = make_ufunc(self.loops[kind], None, name, doc(KINDS[kind]))

    cdef _make_row_ufuncs(self, object doc, bint from_x):
        cdef int kind
        for kind, suffix in _ROWS_KINDS.items():
            index, signature = ROWS.get(self.name + suffix, (-1, ""))
            if index < 0 or kind == BACKWARD_X and not from_x or kind == BACKWARD_Y and from_x:
                continue
            self.loops[kind] = make_loops(index, kind, signature.count(",") + 1, row_operands(signature))
            self.ufuncs[KINDS[kind]] = make_ufunc(self.loops[kind], signature, self.name + suffix, doc(KINDS[kind]))

    cdef bint resolve(self, dict params, double *values) except -1:
        """Fill in the values of the parameters. False if one is an array: those go through the ufunc."""
        cdef Py_ssize_t i = 0, n = len(self.parameter_names)
        memcpy(values, self.values, sizeof(self.values))
        if params is None or not params:
            return True
        for name, value in params.items():
            for i in range(n):
                if name == <str> self.parameter_names[i]:
                    break
            else:
                self._unknown_parameter(name)
            if not as_scalar(value, &values[i]):
                return False
        return True

    cdef bint suit(self, const double *values) except -1:
        """Whether parameters other than its own are values that it takes."""
        cdef Py_ssize_t i
        if memcmp(values, self.values, sizeof(self.values)) == 0:
            return True
        try:
            for i in range(len(self.parameter_names)):
                self._check_value(self.parameter_names[i], values[i])
        except ValueError:
            return False
        return True

    cdef int place(self, object axis, object x) except -2:
        """The axis of the rows, counted from the first; -1 where ``direct`` can't serve this call."""
        if axis is None and not self.rowwise:
            return 0
        if not self.rowwise or not cnp.PyArray_CheckExact(x) or axis is not None and type(axis) is not int:
            return -1
        cdef int ndim = cnp.PyArray_NDIM(x)
        cdef object k = -1 if axis is None else axis
        return k if 0 <= k < ndim else k + ndim if -ndim <= k < 0 else -1

    cdef object direct(self, int kind, object a, object b, object out, const double *values):
        """kernel(a[, b]) of each element into ``out`` or a new array, or None if these arrays go through the ufunc."""
        cdef float narrow[MAX_INPUTS]
        cdef char *data[MAX_INPUTS + 1]
        cdef fa_size steps[MAX_INPUTS + 1]
        cdef cnp.ndarray x, result
        cdef Loop *loop = self.loops[kind]
        cdef int i, n_arrays = 1 if b is None else 2
        cdef fa_size n
        if loop == NULL or not ordinary(a):
            return None
        x = a
        if b is not None and not fits(b, x, cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x)):
            return None
        result = into(out, x, b, cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x))
        if result is None:
            return None
        loop = &loop[FLOAT32 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT else FLOAT64]
        n = cnp.PyArray_SIZE(x)
        data[0] = <char *> cnp.PyArray_DATA(x)
        if b is not None:
            data[1] = <char *> cnp.PyArray_DATA(b)
        for i in range(n_arrays, loop.n_in):
            narrow[i] = <float> values[i - n_arrays]
            data[i] = <char *> &narrow[i] if loop.dtype == FLOAT32 else <char *> &values[i - n_arrays]
            steps[i] = 0
        steps[0] = steps[n_arrays - 1] = steps[loop.n_in] = itemsize(loop.dtype)
        data[loop.n_in] = <char *> cnp.PyArray_DATA(result)
        if n > RELEASE_GIL:
            with nogil:
                run_map(loop, n, data, steps)
        else:
            run_map(loop, n, data, steps)
        return result

    cdef object direct_rows(
        self, int kind, object a, object b, object out, int axis, fa_size n, bint keepdims, const double *values
    ):
        """As ``direct``, of rows of n neighbours along ``axis``, or of the whole axis where n is 0.

        An operand with one value a row lacks the axis; with ``keepdims`` it has an entry there for each row.
        """
        cdef cnp.npy_intp reduced[MAX_DIMS]
        cdef const cnp.npy_intp *shape
        cdef cnp.ndarray x, result
        cdef Loop *loop
        cdef Rows rows
        cdef Steps[3] steps   # of a temperature, of one value a row, of rows
        cdef Steps step
        cdef float[2] narrow
        cdef int i, ndim, count = 0, n_arrays = 1 if b is None else 2
        cdef fa_size size, after = 1
        if self.loops[FORWARD_SCALED] != NULL:
            if values[0] != 1:   # the temperature
                kind = FORWARD_SCALED if kind == FORWARD else BACKWARD_Y_SCALED
                if not 1e-30 <= values[0] <= 1e30:
                    return None
        elif not self.suit(values):   # _call says what is wrong
            return None
        loop = self.loops[kind]
        if loop == NULL or not ordinary(a if loop.row_operands & 1 else b):
            return None
        x = a if loop.row_operands & 1 else b
        ndim, shape = cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x)
        if n == 0:
            n = max(<fa_size> shape[axis], <fa_size> 1)
        if shape[axis] % n or ndim > MAX_DIMS:
            return None
        for i in range(ndim):
            if i != axis or keepdims:
                reduced[count] = shape[i] // (n if i == axis else 1)
                count += 1
            if i > axis:
                after *= shape[i]
        for i, operand in enumerate((a, b)[:n_arrays]):
            if operand is not x and not (
                fits(operand, x, ndim, shape) if loop.row_operands >> i & 1 else fits(operand, x, count, reduced)
            ):
                return None
        if loop.row_operands >> loop.n_in & 1:
            result = into(out, x, b if x is a else a, ndim, shape)
        elif count and shape[axis]:
            result = into(out, x, None, count, reduced)
        else:   # a number, or the value of an empty row
            return None
        if result is None or cnp.PyArray_SIZE(x) == 0:
            return result
        loop = &loop[FLOAT32 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT else FLOAT64]
        size = itemsize(loop.dtype)
        steps[0] = Steps(0, 0, 0)
        if after == 1:   # along the last axis: one block
            rows.args.rows, rows.blocks = cnp.PyArray_SIZE(x) // n, 1
            steps[1], steps[2] = Steps(0, size, 0), Steps(size, n * size, 0)
        else:            # neighbouring rows are neighbours in memory
            rows.args.rows, rows.blocks = after, cnp.PyArray_SIZE(x) // (n * after)
            steps[1], steps[2] = Steps(0, size, after * size), Steps(after * size, size, n * after * size)
        rows.args.n = n
        rows.args.in_[0] = cnp.PyArray_DATA(a)
        if b is not None:
            rows.args.in_[1] = cnp.PyArray_DATA(b)
        for i in range(loop.n_in - n_arrays):
            narrow[i] = <float> values[i]
            rows.args.in_[n_arrays + i] = (
                <const void *> &narrow[i] if loop.dtype == FLOAT32 else <const void *> &values[i]
            )
        for i in range(loop.n_in):
            step = steps[0] if i >= n_arrays else steps[2] if loop.row_operands >> i & 1 else steps[1]
            rows.args.in_stride[i], rows.args.in_row_stride[i], rows.block_bytes[i] = step.element, step.row, step.block
        step = steps[2] if loop.row_operands >> loop.n_in & 1 else steps[1]
        rows.args.out = cnp.PyArray_DATA(result)
        rows.args.out_stride, rows.args.out_row_stride, rows.out_block_bytes = step.element, step.row, step.block
        if cnp.PyArray_SIZE(x) > RELEASE_GIL:
            with nogil:
                run_rows(loop, &rows)
        else:
            run_rows(loop, &rows)
        return result

    def reduce_rows(self, x, dy, out, axis, fa_size n, bint keepdims):
        """y of rows of n neighbours along an axis (0: of all of it), or dx where there is a dy; None as ``direct``."""
        cdef int place = self.place(axis, x)
        if place < 0:
            return None
        if dy is None:
            return self.direct_rows(FORWARD, x, None, out, place, n, keepdims, self.values)
        return self.direct_rows(BACKWARD_X, dy, x, out, place, n, keepdims, self.values)

    def __call__(self, x, out=None, *, where=True, dtype=None, axis=None, **params):
        cdef double values[8]
        cdef Py_ssize_t i, n
        cdef int place = 0
        if where is True and dtype is None and (place := self.place(axis, x)) >= 0 and self.resolve(params, values):
            if self.rowwise:
                result = self.direct_rows(FORWARD, x, None, out, place, 0, False, values)
            else:
                result = self.direct(FORWARD, x, None, out, values)
            if result is not None:
                return result
            n = len(self.parameter_names)
            if out is None and self.index >= 0 and (   # the rest: see _promote_as_sin
                cnp.PyArray_ISFLOAT(x) if cnp.PyArray_CheckExact(x) and (n or cnp.PyArray_ISUSERDEF(x)) else n == 0
            ):
                try:
                    return self.ufunc(x, *[values[i] for i in range(n)])
                except (TypeError, ValueError):
                    pass   # _call tries again, and says what is wrong
        return self._call(x, out, where, dtype, axis, params)

    def backward(self, dy, x=None, y=None, out=None, *, where=True, dtype=None, axis=None, **params):
        cdef double values[8]
        cdef bint from_x = self.loops[BACKWARD_X] != NULL if self.rowwise else x is not None
        cdef int place = 0, kind = BACKWARD_X if from_x else BACKWARD_Y
        cdef object operand = x if kind == BACKWARD_X else y
        if (
            operand is not None and where is True and dtype is None
            and (place := self.place(axis, dy)) >= 0
            and self.resolve(params, values)
        ):
            if self.rowwise:
                result = self.direct_rows(kind, dy, operand, out, place, 0, False, values)
            else:
                result = self.direct(kind, dy, operand, out, values)
            if result is not None:
                return result
        return self._backward(dy, x, y, out, where, dtype, axis, params)

    def derivative(self, x, order=1, out=None, *, where=True, dtype=None, **params):
        cdef double values[8]
        cdef int kind
        if (
            not self.rowwise and where is True and dtype is None
            and (order == 1 or order == 2) and self.resolve(params, values)
        ):
            result = self.direct(DERIVATIVE1 if order == 1 else DERIVATIVE2, x, None, out, values)
            if result is not None:
                return result
        return self._derivative(x, order, out, where, dtype, params)
