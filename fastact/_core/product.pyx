# cython: wraparound=True
"""The matrix product's front door: checks, broadcasting of stacks, workspace, threads.

A call on two plain float32 or float64 matrices goes straight through the ndarray C-API to the kernel; anything else is
first made into such calls by ``_general``.
"""

cimport cython
cimport numpy as cnp
from cython.parallel cimport prange, threadid
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastact._core.activations cimport Caller
from fastact._core.runtime cimport active as active_table, fa_fpenv, fa_fpenv_enter, fa_fpenv_leave, threads_for
from fastact._core.workspace cimport new_array

import numpy as np

from fastact._core.workspace import empty

cnp.import_array()


# ---- workspace: a few buffers that calls borrow; only touched with the GIL held ----

cdef enum:
    POOL = 8

cdef struct buffer:
    void *raw
    size_t size

cdef buffer _pool[POOL]
cdef int _pooled = 0


cdef int _borrow(buffer *borrowed, size_t size) except -1:
    global _pooled
    borrowed.raw = NULL
    borrowed.size = 0
    if size == 0:
        return 0
    if _pooled:
        _pooled -= 1
        borrowed[0] = _pool[_pooled]
        if borrowed.size >= size:
            return 0
        free(borrowed.raw)
    borrowed.raw = malloc(size + 63)
    if borrowed.raw == NULL:
        raise MemoryError(f"matmul: could not allocate {size} bytes of workspace")
    borrowed.size = size
    return 0


cdef void _give_back(buffer *borrowed) noexcept:
    global _pooled
    if borrowed.raw == NULL:
        return
    if _pooled < POOL:
        _pool[_pooled] = borrowed[0]
        _pooled += 1
    else:
        free(borrowed.raw)


# ---- running ----

cdef void _run_piece(const fa_kernels *kernels, const fa_product *p, int piece, void *workspace) noexcept nogil:
    cdef fa_fpenv saved = fa_fpenv_enter()
    kernels.product.run(p, piece, workspace)
    fa_fpenv_leave(saved)


cdef int _run(const fa_kernels *kernels, fa_product *p) except -1:
    """One product: plan, workspace, threads."""
    cdef buffer borrowed
    cdef double ns = kernels.product.plan(p)
    cdef int threads = threads_for(ns, 1 << 20)
    cdef size_t size = kernels.product.split(p, threads)
    cdef char *workspace
    cdef int piece
    _borrow(&borrowed, size * <size_t>p.threads)
    workspace = <char *>((<uintptr_t>borrowed.raw + 63) & ~<uintptr_t>63)
    if p.pieces == 1 and ns < 5000:  # releasing the GIL would cost more than it is worth
        _run_piece(kernels, p, 0, workspace)
    elif p.pieces == 1:
        with nogil:
            _run_piece(kernels, p, 0, workspace)
    else:
        for piece in prange(p.pieces, num_threads=p.threads, schedule="dynamic", chunksize=1, nogil=True):
            _run_piece(kernels, p, piece, workspace + <size_t>threadid() * size)
    _give_back(&borrowed)
    return 0


# ---- packed operands ----

cdef class PackedMatrix:
    """A matrix laid out once for use as the right operand of many products; made by `pack`.

    Attributes
    ----------
    shape : tuple of int
        (K, N).
    dtype : numpy.dtype
        float32 or float64.

    Notes
    -----
    It holds a copy: later changes of the original do not reach it. ``numpy.asarray(packed)`` gives the matrix back.
    Pickles and deep-copies; the layout follows the instruction set in use by itself.
    """

    def __init__(self, b):
        b = _as_operand(b, "b")
        if b.ndim != 2:
            raise ValueError(f"b: expected a matrix (K, N), got {b.ndim} dimension(s) of shape {b.shape}")
        if b.dtype != np.float32:
            b = b.astype(np.float64, copy=False) if b.dtype != np.float16 else b.astype(np.float32)
        self.shape = b.shape
        self.dtype = b.dtype
        self.K, self.N = b.shape
        self.typenum = cnp.NPY_FLOAT if b.dtype == np.float32 else cnp.NPY_DOUBLE
        self._lay_out(b)

    def _lay_out(self, b):
        cdef const fa_kernels *kernels = <const fa_kernels *>active_table(self.typenum == cnp.NPY_DOUBLE)
        cdef fa_size itemsize = b.itemsize, b_row, b_col, size
        # An array of stride 0 may have more elements than memory has bytes: the size must not overflow.
        if (self.N + <double>kernels.lanes) * self.K * itemsize > 1LL << 62:
            raise MemoryError(f"b: no memory to pack a matrix of shape {self.shape}")
        size = kernels.product.packed_size(self.K, self.N)
        cdef cnp.ndarray source = _aligned(b)
        cdef cnp.ndarray panels = _empty_aligned(size, self.dtype)
        b_row, b_col = source.strides[0] // itemsize, source.strides[1] // itemsize
        cdef const void *data = cnp.PyArray_DATA(source)
        cdef void *target = cnp.PyArray_DATA(panels)
        if size > 0:
            with nogil:
                kernels.product.pack(self.K, self.N, data, b_row, b_col, target)
        self.panels = panels
        self.lanes = kernels.lanes

    cdef object current(self):
        """The panels, laid out anew if the instruction set has changed since."""
        if active_table(self.typenum == cnp.NPY_DOUBLE).lanes != self.lanes:
            self._lay_out(self.unpack())
        return self.panels

    def unpack(self):
        """The matrix as an ordinary array, shape (K, N)."""
        cdef fa_size columns = 4 * self.lanes, n, width
        matrix = np.empty(self.shape, self.dtype)
        for n in range(0, self.N if self.K else 0, columns):
            width = min(columns, (self.N - n + self.lanes - 1) // self.lanes * self.lanes)
            panel = self.panels[self.K * n : self.K * (n + width)].reshape(self.K, width)
            matrix[:, n : n + columns] = panel[:, : self.N - n]
        return matrix

    def __array__(self, dtype=None, copy=None):
        if copy is not None and not copy:
            raise ValueError("a packed matrix can't be viewed as an array without a copy")
        return self.unpack().astype(dtype or self.dtype, copy=False)

    @property
    def ndim(self):
        return 2

    def __reduce__(self):
        return PackedMatrix, (self.unpack(),)

    def __repr__(self):
        return f"PackedMatrix(shape={self.shape}, dtype={self.dtype})"


cdef object _empty_aligned(fa_size size, object dtype):
    itemsize = dtype.itemsize
    raw = np.empty(size * itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * itemsize].view(dtype)


cdef object _aligned(object x):
    """x itself where its elements lie at whole multiples of their size in native byte order, else a copy."""
    if x.flags.aligned and x.dtype.isnative:
        return x
    return np.array(x, dtype=x.dtype.newbyteorder("="), copy=True)


cdef object _as_operand(object x, str name):
    x = np.asarray(x)
    if x.dtype.kind not in "fiub" or x.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected an array of float32, float64, float16, integers or booleans, got {x.dtype}")
    return x


# ---- one matrix by one matrix ----

cdef inline bint _is_plain(object x, int typenum) noexcept:
    """An ndarray proper, two-dimensional, of this type, aligned, in native byte order."""
    return (
        cnp.PyArray_CheckExact(x)
        and cnp.PyArray_TYPE(<cnp.ndarray>x) == typenum
        and cnp.PyArray_NDIM(<cnp.ndarray>x) == 2
        and cnp.PyArray_CHKFLAGS(<cnp.ndarray>x, cnp.NPY_ARRAY_ALIGNED)
        and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>x)
    )


cdef struct span:
    char *low
    char *high


cdef inline span _span(cnp.ndarray x) noexcept:
    """The stretch of memory from the first byte of x to behind its last; from NULL to NULL without elements."""
    cdef span memory
    cdef cnp.npy_intp reach
    cdef int i
    memory.low = <char *>cnp.PyArray_DATA(x)
    memory.high = memory.low + cnp.PyArray_ITEMSIZE(x)
    for i in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(x, i) == 0:
            memory.low = memory.high = NULL
            break
        reach = (cnp.PyArray_DIM(x, i) - 1) * cnp.PyArray_STRIDE(x, i)
        if reach > 0:
            memory.high += reach
        else:
            memory.low += reach
    return memory


cdef inline bint _overlap(cnp.ndarray x, cnp.ndarray y) noexcept:
    """Whether the stretches of memory that two arrays span have a byte in common."""
    cdef span a = _span(x), b = _span(y)
    return a.low < b.high and b.low < a.high


cdef object _matrix_product(cnp.ndarray a, object b, object out, object bias, Caller activation, bint accumulate):
    """Plain matrices of one type (b may be packed), out None or plain, bias None or a contiguous vector of that type."""
    cdef int typenum = cnp.PyArray_TYPE(a)
    cdef const fa_kernels *kernels = <const fa_kernels *>active_table(typenum == cnp.NPY_DOUBLE)
    cdef fa_size itemsize = cnp.PyArray_ITEMSIZE(a)
    cdef fa_product p
    cdef cnp.npy_intp shape[2]
    cdef cnp.ndarray c, matrix
    cdef double values[FA_MAX_PARAMETERS]
    cdef PackedMatrix packed
    memset(&p, 0, sizeof(p))
    p.M = cnp.PyArray_DIM(a, 0)
    p.K = cnp.PyArray_DIM(a, 1)
    if type(b) is PackedMatrix:
        packed = <PackedMatrix>b
        p.N = packed.N
        if packed.K != p.K:
            raise _mismatch(a, b)
        panels = packed.current()
        p.packed = cnp.PyArray_DATA(<cnp.ndarray>panels)
    else:
        matrix = <cnp.ndarray>b
        p.N = cnp.PyArray_DIM(matrix, 1)
        if cnp.PyArray_DIM(matrix, 0) != p.K:
            raise _mismatch(a, b)
    if bias is not None and cnp.PyArray_DIM(<cnp.ndarray>bias, 0) != p.N:
        raise ValueError(f"bias: expected shape ({p.N},), one value a column of b, got {bias.shape}")
    if out is None:
        shape[0], shape[1] = p.M, p.N
        c = new_array(2, shape, typenum, cnp.PyArray_ITEMSIZE(a))
        result = c
    else:
        c = <cnp.ndarray>out
        result = out
        if cnp.PyArray_DIM(c, 0) != p.M or cnp.PyArray_DIM(c, 1) != p.N:
            raise ValueError(f"out: expected shape ({p.M}, {p.N}), got {out.shape}")
        if not cnp.PyArray_ISWRITEABLE(c):
            raise ValueError("out: expected a writeable array, got a read-only one; pass out=None or a copy")
        if _overlap(c, a):
            a = a.copy()
        if p.packed == NULL and _overlap(c, <cnp.ndarray>b):
            matrix = b.copy()
        if bias is not None and _overlap(c, <cnp.ndarray>bias):
            bias = bias.copy()
    if p.M == 0 or p.N == 0:
        return result
    p.a = cnp.PyArray_DATA(a)
    p.a_row = cnp.PyArray_STRIDE(a, 0) // itemsize
    p.a_col = cnp.PyArray_STRIDE(a, 1) // itemsize
    if p.packed == NULL:
        p.b = cnp.PyArray_DATA(matrix)
        p.b_row = cnp.PyArray_STRIDE(matrix, 0) // itemsize
        p.b_col = cnp.PyArray_STRIDE(matrix, 1) // itemsize
    p.c = cnp.PyArray_DATA(c)
    p.c_row = cnp.PyArray_STRIDE(c, 0) // itemsize
    p.c_col = cnp.PyArray_STRIDE(c, 1) // itemsize
    if bias is not None:
        p.bias = cnp.PyArray_DATA(<cnp.ndarray>bias)
        p.bias_col = 1
    p.accumulate = accumulate
    if activation is None:
        _run(kernels, &p)
    elif _set_activation(kernels, &p, activation, typenum, values):
        _run(kernels, &p)
    else:
        _run(kernels, &p)
        activation(result, out=result)
    return result


cdef bint _set_activation(
    const fa_kernels *kernels, fa_product *p, Caller activation, int typenum, double *values
) except -1:
    """Have the kernel apply it; False if it is not one of the core's elementwise functions."""
    cdef int i
    if activation.name == "linear":
        return True
    if activation.rowwise or not 0 <= activation.index < FA_MAP_COUNT:
        return False
    p.activation = kernels.activation.map[activation.index].forward
    p.parameters = len(activation.parameter_names)
    for i in range(p.parameters):
        if typenum == cnp.NPY_FLOAT:
            (<float *>&values[i])[0] = <float>activation.values[i]
        else:
            values[i] = activation.values[i]
        p.parameter[i] = &values[i]
    return True


def _mismatch(a, b):
    return ValueError(
        f"b: expected {a.shape[-1]} rows, as many as a has columns, got a of shape {a.shape} and b of shape {b.shape}"
    )


cdef object _product(a, b, bias, activation, out, bint accumulate):
    cdef int typenum
    if activation is not None and (not isinstance(activation, Caller) or (<Caller>activation).rowwise):
        activation = _as_activation(activation)  # 0.7 us; an elementwise function, as layers hold it, needs no check
    if cnp.PyArray_CheckExact(a):
        typenum = cnp.PyArray_TYPE(<cnp.ndarray>a)
        if (
            (typenum == cnp.NPY_FLOAT or typenum == cnp.NPY_DOUBLE)
            and _is_plain(a, typenum)
            and (_is_plain(b, typenum) or (type(b) is PackedMatrix and (<PackedMatrix>b).typenum == typenum))
            and (out is None and not accumulate or _is_plain(out, typenum))
            and (
                bias is None
                or cnp.PyArray_CheckExact(bias)
                and cnp.PyArray_TYPE(<cnp.ndarray>bias) == typenum
                and cnp.PyArray_NDIM(<cnp.ndarray>bias) == 1
                and cnp.PyArray_CHKFLAGS(<cnp.ndarray>bias, cnp.NPY_ARRAY_CARRAY_RO)
                and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>bias)
            )
        ):
            return _matrix_product(<cnp.ndarray>a, b, out, bias, activation, accumulate)
    return _general(a, b, bias, activation, out, accumulate)


def _as_activation(activation):
    from fastact._activations import as_activation

    return as_activation(activation, keeps_shape=True)


# ---- anything else ----

def _general(a, b, bias, activation, out, accumulate):
    """Vectors, stacks, mixed types, unaligned arrays: brought to plain matrices, then each product in turn."""
    packed = b if type(b) is PackedMatrix else None
    a = _as_operand(a, "a")
    if packed is None:
        b = _as_operand(b, "b")
    for name, x in (("a", a), ("b", b)):
        if x.ndim == 0:
            raise ValueError(f"{name}: expected at least one dimension, got a scalar; multiply scalars with *")
    common = np.result_type(a.dtype, b.dtype)
    if common.kind != "f":
        common = np.dtype(np.float64)
    common = common.newbyteorder("=")
    work = np.dtype(np.float32) if common == np.float16 else common
    if packed is not None and packed.dtype != work:
        packed = b = PackedMatrix(packed.unpack().astype(work))
    a = _aligned(a.astype(work, copy=False))
    if packed is None:
        b = _aligned(b.astype(work, copy=False))

    vector_a, vector_b = a.ndim == 1, b.ndim == 1
    if vector_a:
        a = a[np.newaxis, :]
    if vector_b:
        b = b[:, np.newaxis]
    if a.shape[-1] != b.shape[-2 if packed is None else 0]:
        raise _mismatch(a, b)
    columns = b.shape[-1]
    try:
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(
            f"a, b: expected stacks that broadcast together, got shapes {a.shape} and {b.shape}"
        ) from None
    shape = stack + a.shape[-2 : -1 if not vector_a else -2] + (() if vector_b else (columns,))
    full = stack + (a.shape[-2], columns)

    if bias is not None:
        bias = np.ascontiguousarray(_as_operand(bias, "bias"), dtype=work)
        if bias.shape != (columns,):
            raise ValueError(f"bias: expected shape ({columns},), one value a column of b, got {bias.shape}")
    if out is None:
        if accumulate:
            raise ValueError("out: expected an array to add to, got None")
        result, target = None, empty(full, work)
    else:
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out: expected a numpy array, got {type(out).__name__}")
        if out.shape != shape:
            raise ValueError(f"out: expected shape {shape}, got {out.shape}")
        if not out.flags.writeable:
            raise ValueError("out: expected a writeable array, got a read-only one; pass out=None or a copy")
        if not np.can_cast(common, out.dtype, "same_kind"):
            raise TypeError(f"out: expected dtype {common} (or another float), got {out.dtype}")
        result = out
        direct = type(out) is np.ndarray and out.dtype == work and out.flags.aligned and out.dtype.isnative
        operands = [x for x in (a, None if packed is not None else b, bias) if x is not None]
        if direct and not any(np.may_share_memory(out, x) for x in operands):
            target = out
            if vector_a:
                target = target[..., np.newaxis] if vector_b else target[..., np.newaxis, :]
            if vector_b:
                target = target[..., np.newaxis]
        elif accumulate:
            target = np.array(np.asarray(out).reshape(full), dtype=work)
        else:
            target = np.empty(full, work)

    if b.ndim == 2 and a.ndim > 2 and _collapses(a) and _collapses(target):
        _matrix_product(a.reshape(-1, a.shape[-1]), b, target.reshape(-1, columns), bias, activation, accumulate)
    elif not stack:
        _matrix_product(a, b, target, bias, activation, accumulate)
    else:
        stacked_a = np.broadcast_to(a, stack + a.shape[-2:])
        stacked_b = b if packed is not None else np.broadcast_to(b, stack + b.shape[-2:])
        for index in np.ndindex(stack):
            _matrix_product(
                stacked_a[index], b if packed is not None else stacked_b[index], target[index], bias, activation,
                accumulate,
            )

    if result is None:
        return target.reshape(shape).astype(common, copy=False)[()]
    if not np.may_share_memory(target, result):
        np.copyto(result, target.reshape(shape), casting="same_kind")
    return result


def _collapses(x):
    """Whether the leading dimensions run through memory as one (x is then as good as a matrix)."""
    return x.size > 0 and all(
        x.shape[i + 1] * x.strides[i + 1] == x.strides[i] or x.shape[i] == 1 for i in range(x.ndim - 2)
    )


# ---- sums of columns ----

cdef float _one32 = 1
cdef double _one64 = 1


def add_column_sums(cnp.ndarray x not None, cnp.ndarray out not None):
    """``out += x.sum(axis=0)`` for x (M, N) and a contiguous out (N,): the gradient of a bias.

    A product with a row of ones, which is a single 1 at stride 0: the same bits for any number of threads, and 0.2 us at
    (32, 10) where np.sum takes 1.6.
    """
    cdef int typenum = cnp.PyArray_TYPE(x)
    cdef fa_size itemsize = cnp.PyArray_ITEMSIZE(x)
    cdef fa_product p
    if (
        (typenum != cnp.NPY_FLOAT and typenum != cnp.NPY_DOUBLE)
        or not _is_plain(x, typenum)
        or cnp.PyArray_TYPE(out) != typenum
        or cnp.PyArray_NDIM(out) != 1
        or cnp.PyArray_DIM(out, 0) != cnp.PyArray_DIM(x, 1)
        or not cnp.PyArray_CHKFLAGS(out, cnp.NPY_ARRAY_CARRAY)
        or not cnp.PyArray_ISNOTSWAPPED(out)
    ):
        raise ValueError(f"x, out: expected (M, N) and contiguous (N,) of one float type, got {(<object>x).shape} "
                         f"{x.dtype} and {(<object>out).shape} {out.dtype}")
    memset(&p, 0, sizeof(p))
    p.M, p.K, p.N = 1, cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    if p.K == 0 or p.N == 0:
        return
    if _overlap(out, x):
        x = x.copy()
    p.a = &_one32 if typenum == cnp.NPY_FLOAT else <const void *>&_one64
    p.b = cnp.PyArray_DATA(x)
    p.b_row, p.b_col = cnp.PyArray_STRIDE(x, 0) // itemsize, cnp.PyArray_STRIDE(x, 1) // itemsize
    p.c = cnp.PyArray_DATA(out)
    p.c_row = p.c_col = 1
    p.accumulate = True
    _run(<const fa_kernels *>active_table(typenum == cnp.NPY_DOUBLE), &p)


# ---- public ----

def matmul(a, b, out=None, bias=None, activation=None, bint accumulate=False):
    """``out = activation(a @ b + bias)``, or with ``accumulate`` the same with ``out + a @ b`` in place of ``a @ b``.

    The library's own entry: the public one is `fastact.matmul`.
    """
    return _product(a, b, bias, activation, out, accumulate)


def public_matmul(a, b, bias=None, activation=None, out=None):
    """Matrix product with a fused epilogue: ``activation(a @ b + bias)``.

    Parameters
    ----------
    a : array_like, shape (..., M, K) or (K,)
    b : array_like, shape (..., K, N) or (K,), or PackedMatrix
        Any strides; row-major operands are fastest. A matrix used in many products is best packed once with `pack`.
    bias : array_like, shape (N,), optional
        Added to every row.
    activation : str or Activation, optional
        Applied to the sums while they are in cache.
    out : numpy.ndarray, optional
        Filled and returned. It may overlap the operands.

    Returns
    -------
    numpy.ndarray, shape (..., M, N)
        Vectors and stacks follow `numpy.matmul`. float32 and float64 are computed in their own precision; float16 in
        float32 and rounded once; integers and booleans in float64.

    Raises
    ------
    ValueError
        If shapes do not fit, or ``out`` is read-only.
    TypeError
        If an operand is not real, or ``out`` can't hold the result.

    Notes
    -----
    The result has the same bits for any number of threads. The order of summation follows from the shape and from which
    operand is contiguous along which side, so that of a transposed copy may round otherwise.

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> a = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> fa.matmul(a, np.eye(2), bias=[0.5, 0.0])
    array([[1.5, 2. ],
           [3.5, 4. ]])
    """
    return _product(a, b, bias, activation, out, False)


def pack(b):
    """Lay a matrix out once for many products ``fa.matmul(a, packed)``.

    Parameters
    ----------
    b : array_like, shape (K, N)

    Returns
    -------
    PackedMatrix
        A copy: later changes of ``b`` do not reach it.

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> w = fa.pack(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> w
    PackedMatrix(shape=(2, 2), dtype=float64)
    >>> fa.matmul(np.array([1.0, 1.0]), w)
    array([4., 6.])
    """
    return PackedMatrix(b)
