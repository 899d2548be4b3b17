"""output_scale f(input_scale x + input_shift) + output_shift, its derivatives and backward, as NumPy ufuncs.

Each is a chain of kernels of the table (the activation's and that of ``affine``) over blocks that stay in L1, so the bits
are those of the steps one after another, and only x and the result pass through memory.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdlib cimport calloc, malloc

from fastact._core.activations cimport FA_MAX_PARAMETERS, fa_map_args, fa_map_kernel, fa_map_kernels, kernels
from fastact._core.runtime cimport active, fa_fpenv, fa_fpenv_enter, fa_fpenv_leave, fa_size, threads_for

from fastact._core.activations import describe_all

cnp.import_array()
cnp.import_umath()

cdef enum:
    SCALED = 0              # x, parameters, input_scale, input_shift, output_scale, output_shift -> y
    SCALED_DERIVATIVE1 = 1  # the same -> dy/dx
    SCALED_DERIVATIVE2 = 2
    SCALED_BACKWARD = 3     # dy, then the same -> dx

    MAX_OPERANDS = 10       # dy, x, parameters, four scales, the result
    BLOCK = 512             # elements: five buffers of float64 are 20 KiB of L1
    GRAIN = 64              # elements: threads share no cache line

assert MAX_OPERANDS >= 7 + FA_MAX_PARAMETERS

# Serial time of a vector of a chain, for the thread policy: two or three kernels of 1 to 4 ns.
cdef double VECTOR_NS = 4.0
cdef list ROWS = describe_all()
# By index: the default tier, then the precise one.
cdef list NAMES = [row["name"] for row in ROWS] + [row["name"] + "_precise" for row in ROWS]
cdef int AFFINE = NAMES.index("affine")
cdef double[2] MINUS_ZERO = [-0.0, 0.0]   # added to a product, it changes no product: +0 would turn -0 into +0
cdef float[2] MINUS_ZERO_SINGLE = [-0.0, 0.0]

cdef struct Form:
    int index        # FA_ACT_* of the activation
    int kind         # what is computed
    int dtype        # 0 float32, 1 float64
    int parameters   # of the activation
    int inputs

cdef struct Operand:
    char *data
    fa_size step     # bytes from one element to the next


cdef inline const fa_map_kernels *row(const Form *form, int index) noexcept nogil:
    return &(<const kernels *> active(form.dtype)).activation.map[index]


cdef inline void run(
    fa_map_kernel kernel, fa_size n, const Operand *inputs, int count, Operand out
) noexcept nogil:
    cdef fa_map_args args
    cdef int k
    args.n = n
    args.total = 0
    for k in range(count):
        args.in_[k] = inputs[k].data
        args.in_stride[k] = inputs[k].step
    args.out = out.data
    args.out_stride = out.step
    kernel(&args)


cdef inline void affine(const Form *form, fa_size n, Operand x, Operand slope, Operand shift, Operand out) noexcept nogil:
    cdef Operand[3] inputs = [x, slope, shift]
    run(row(form, AFFINE).forward, n, inputs, 3, out)


cdef inline void multiply(const Form *form, fa_size n, Operand a, Operand b, Operand out) noexcept nogil:
    cdef Operand zero
    zero.data = <char *> MINUS_ZERO if form.dtype else <char *> MINUS_ZERO_SINGLE
    zero.step = 0
    affine(form, n, a, b, zero, out)


cdef void run_scaled(const Form *form, fa_size n, const Operand *at, Operand inside, Operand factor) noexcept nogil:
    """One block; ``inside`` and ``factor`` are buffers."""
    cdef const fa_map_kernels *f = row(form, form.index)
    cdef const Operand *x = at + (1 if form.kind == SCALED_BACKWARD else 0)
    cdef const Operand *scales = x + 1 + form.parameters   # of the input, its shift, of the output, its shift
    cdef Operand out = at[form.inputs]
    cdef Operand inputs[2 + FA_MAX_PARAMETERS]
    cdef int k
    affine(form, n, x[0], scales[0], scales[1], inside)
    for k in range(form.parameters):
        inputs[2 + k] = x[1 + k]
    inputs[1] = inside
    if form.kind == SCALED:
        run(f.forward, n, inputs + 1, 1 + form.parameters, inside)
        affine(form, n, inside, scales[2], scales[3], out)
        return
    multiply(form, n, scales[0], scales[2], factor)
    if form.kind == SCALED_DERIVATIVE2:
        multiply(form, n, factor, scales[0], factor)
    if form.kind == SCALED_BACKWARD:
        inputs[0] = at[0]
        run(f.backward_x, n, inputs, 2 + form.parameters, inside)
    else:
        run(
            f.derivative1 if form.kind == SCALED_DERIVATIVE1 else f.derivative2, n, inputs + 1, 1 + form.parameters,
            inside,
        )
    multiply(form, n, inside, factor, out)


cdef void run_piece(const Form *form, fa_size start, fa_size n, fa_size block, const Operand *whole) noexcept nogil:
    """Elements [start, start + n), on this thread, block by block."""
    cdef double[2][BLOCK] space
    cdef Operand[MAX_OPERANDS] at
    cdef Operand[2] buffers
    cdef fa_size done = 0, count
    cdef fa_fpenv saved = fa_fpenv_enter()
    cdef int k
    for k in range(2):
        buffers[k].data = <char *> space[k]
        buffers[k].step = 8 if form.dtype else 4
    while done < n:
        count = min(block, n - done)
        for k in range(form.inputs + 1):
            at[k].data = whole[k].data + (start + done) * whole[k].step
            at[k].step = whole[k].step
        run_scaled(form, count, at, buffers[0], buffers[1])
        done += count
    fa_fpenv_leave(saved)


cdef bint overlaps(Operand a, Operand b, fa_size n, fa_size size) noexcept nogil:
    """Whether b lies in a's memory, other than element by element: as where a ufunc accumulates."""
    if a.data == b.data and a.step == b.step:
        return False
    return (
        a.data + min(<fa_size> 0, (n - 1) * a.step) < b.data + max(<fa_size> 0, (n - 1) * b.step) + size
        and b.data + min(<fa_size> 0, (n - 1) * b.step) < a.data + max(<fa_size> 0, (n - 1) * a.step) + size
    )


cdef void loop(
    char **data, const cnp.npy_intp *dimensions, const cnp.npy_intp *steps, void *loop_data
) noexcept nogil:
    cdef const Form *form = <const Form *> loop_data
    cdef Operand[MAX_OPERANDS] whole
    cdef fa_size n = dimensions[0], block = BLOCK, each
    cdef int k, n_threads, t
    if n <= 0:
        return
    for k in range(form.inputs + 1):
        whole[k].data = data[k]
        whole[k].step = steps[k]
    for k in range(form.inputs):
        if overlaps(whole[k], whole[form.inputs], n, 8 if form.dtype else 4):
            block = 1
    n_threads = threads_for(
        n * VECTOR_NS / (<const kernels *> active(form.dtype)).lanes, <int> min(n // GRAIN, <fa_size> 4096)
    )
    if n_threads == 1 or block == 1:
        run_piece(form, 0, n, block, whole)
        return
    each = (n // n_threads + GRAIN) // GRAIN * GRAIN
    for t in prange(n_threads, num_threads=n_threads, schedule="static"):
        if t * each < n:
            run_piece(form, t * each, min(each, n - t * each), block, whole)


cdef object make_ufunc(int index, int kind, int parameters, str name, str doc):
    """The ufunc of float32 and float64, also an attribute of this module, where pickle looks."""
    cdef int inputs = parameters + (6 if kind == SCALED_BACKWARD else 5)
    cdef cnp.PyUFuncGenericFunction *functions = <cnp.PyUFuncGenericFunction *> malloc(2 * sizeof(void *))
    cdef void **forms = <void **> malloc(2 * sizeof(void *))
    cdef char *types = <char *> malloc(2 * MAX_OPERANDS)
    cdef Form *both = <Form *> calloc(2, sizeof(Form))   # NumPy keeps pointing at all four: for the life of the process
    cdef int dtype, k
    if functions == NULL or forms == NULL or types == NULL or both == NULL:
        raise MemoryError()
    for dtype in range(2):
        both[dtype] = Form(index, kind, dtype, parameters, inputs)
        functions[dtype] = <cnp.PyUFuncGenericFunction> loop
        forms[dtype] = &both[dtype]
        for k in range(inputs + 1):
            types[dtype * (inputs + 1) + k] = <char> (cnp.NPY_DOUBLE if dtype else cnp.NPY_FLOAT)
    encoded = name.encode(), doc.encode()
    _KEPT.append(encoded)
    ufunc = cnp.PyUFunc_FromFuncAndData(
        functions, forms, types, 2, inputs, 1, cnp.PyUFunc_None, encoded[0], encoded[1], 0
    )
    globals()[name] = ufunc
    try:
        ufunc.__module__ = __name__   # NumPy 2.2 on; before, pickle searches the loaded modules for the name
    except AttributeError:
        pass
    return ufunc


_KEPT = []   # names and docstrings that ufuncs point at
_MADE = {}   # FA_ACT_* -> its ufuncs by kind
_KINDS = {
    "forward": SCALED, "derivative1": SCALED_DERIVATIVE1, "derivative2": SCALED_DERIVATIVE2,
    "backward_x": SCALED_BACKWARD,
}


def scaled(int index):
    """The scaled ufuncs of activation ``index`` of the table, by kind; made when first asked for."""
    if index not in _MADE:
        name, parameters = NAMES[index], len(ROWS[index % len(ROWS)]["parameters"])
        _MADE[index] = {
            kind: make_ufunc(
                index, number, parameters, f"{name}_scaled_{kind}",
                f"{kind} of {name}, scaled: a chain of kernels in one pass; of its operands and parameters.",
            )
            for kind, number in _KINDS.items()
        }
    return _MADE[index]


def __getattr__(name):
    """The ufunc that another process pickled by name before this one made it."""
    activation, _, kind = name.rpartition("_scaled_")
    if activation in NAMES and kind in _KINDS:
        return scaled(NAMES.index(activation))[kind]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
