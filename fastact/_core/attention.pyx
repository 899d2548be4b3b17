"""Scaled dot-product attention for many heads at once, forward and backward.

For each head of each sequence, with T queries q (T, D), S keys k (S, D) and values v (S, V):

    scores = scale q kᵀ, -inf where a key is hidden;  p = softmax(scores);  y = dropout(p) v

Scores live in blocks of rows that stay in L2, never as (B, h, T, S); the way back computes them again, which is a fifth of
its products. Heads are strided views, so they are never copied apart. The pieces of work are blocks of queries (forward)
and heads (backward, which adds up dk and dv from block to block), so no result depends on how threads shared them.

Keys beyond a sequence's length, and those that causality hides from all queries of a block, are never touched. Which
entries dropout takes is a hash of seed and place: the way back needs no mask.

Operands are checked by the caller, ``fastact.nn.attention``; here only what keeps a wrong call from memory beyond them.
"""

cimport numpy as cnp
from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastact._core.product cimport fa_kernels, fa_product
from fastact._core.runtime cimport active, fa_fpenv, fa_fpenv_enter, fa_fpenv_leave, fa_size, threads_for

cnp.import_array()

cdef extern from "workspace.h" nogil:
    void *fa_workspace_alloc(size_t bytes)
    void fa_workspace_free(void *)

cdef extern from "rows.h" nogil:
    enum:
        FA_ROWS_softmax_scaled
        FA_ROWS_softmax_scaled_backward
    ctypedef struct fa_rows_args:
        fa_size rows, n
        const void *in_ "in"[3]
        fa_size in_row_stride[3]
        fa_size in_stride[3]
        void *out
        fa_size out_row_stride, out_stride
    ctypedef void (*fa_rows_kernel)(const fa_rows_args *) noexcept nogil

cdef extern from "kernels.h" nogil:
    ctypedef struct row_kernels "fa_kernels":
        const fa_rows_kernel *rows

cdef enum:
    BLOCK_SCORES = 1 << 15   # of a block: two of them (128 KB each in float32) and a head's operands stay in L2
    LEAST_ROWS = 12          # of a block, however many keys there are: two tiles of the product
    CAUSAL_BLOCKS = 4        # at least, for causality to save something: keys after a block are left out
    LANE_SCORES = 16         # rows of scores begin at multiples of it


# ---- what a call is about ----

cdef struct matrix:
    char *data
    fa_size rows, columns
    fa_size row, column      # strides, in elements

cdef struct operand:
    # (B, T, h, D), the last axis contiguous; strides in elements.
    char *data
    fa_size sequence, time, head, width

cdef struct Job:
    const fa_kernels *kernels
    const fa_rows_kernel *rows
    fa_size itemsize
    fa_size heads, queries, keys   # h, T, S
    fa_size block, blocks          # queries in a block, blocks in a head
    operand q, k, v, y             # backward: y is its gradient
    operand dq, dk, dv             # backward
    double temperature             # 1 / scale
    float temperature32
    bint causal
    const int64_t *lengths         # of the keys of each sequence, or NULL
    const uint8_t *mask            # (B, h, T, S), 0 hides; or NULL
    fa_size mask_stride[4]         # in bytes
    uint64_t seed, threshold       # dropout takes entries whose hash is below the threshold; 0: no dropout
    double kept                    # what the others are multiplied with
    char *weights                  # forward: p goes here, (B, h, T, S) zeroed and contiguous, or NULL

cdef struct Scratch:
    # A thread's own: its memory only grows.
    char *scores
    char *gradients
    char *product
    size_t scores_size, gradients_size, product_size
    bint failed

ctypedef fused real:
    float
    double


cdef bint reserve(char **data, size_t *have, size_t need) noexcept nogil:
    if have[0] < need or data[0] == NULL:
        fa_workspace_free(data[0])
        data[0] = <char *>fa_workspace_alloc(need + 64)
        have[0] = need if data[0] != NULL else 0
    return data[0] != NULL


cdef inline matrix head(const operand *x, fa_size itemsize, fa_size b, fa_size h, fa_size first, fa_size last) noexcept nogil:
    """Steps first to last of one head of one sequence: (last - first, D)."""
    cdef matrix m
    m.data = x.data + itemsize * (b * x.sequence + h * x.head + first * x.time)
    m.rows, m.columns = last - first, x.width
    m.row, m.column = x.time, 1
    return m


cdef inline matrix turned(matrix m) noexcept nogil:
    cdef matrix t
    t.data = m.data
    t.rows, t.columns = m.columns, m.rows
    t.row, t.column = m.column, m.row
    return t


cdef void multiply(const Job *job, Scratch *scratch, matrix a, matrix b, matrix c, bint accumulate) noexcept nogil:
    """c = a b, or c += a b, on this thread."""
    cdef fa_product p
    cdef size_t size
    if c.rows == 0 or c.columns == 0:
        return
    memset(&p, 0, sizeof(p))
    p.M, p.K, p.N = a.rows, a.columns, b.columns
    p.a, p.a_row, p.a_col = a.data, a.row, a.column
    p.b, p.b_row, p.b_col = b.data, b.row, b.column
    p.c, p.c_row, p.c_col = c.data, c.row, c.column
    p.accumulate = accumulate
    job.kernels.product.plan(&p)
    size = job.kernels.product.split(&p, 1)
    if not reserve(&scratch.product, &scratch.product_size, size):
        scratch.failed = True
        return
    job.kernels.product.run(&p, 0, scratch.product)


# ---- scores ----

cdef void hide(const Job *job, fa_size b, fa_size h, fa_size first, matrix scores, real *data) noexcept nogil:
    """-inf for the hidden entries of a block of scores."""
    cdef fa_size i, j
    cdef const uint8_t *mask
    cdef real *row
    for i in range(scores.rows):
        row = data + i * scores.row
        if job.causal:
            for j in range(first + i + 1, scores.columns):
                row[j] = -INFINITY
        if job.mask != NULL:
            mask = job.mask + b * job.mask_stride[0] + h * job.mask_stride[1] + (first + i) * job.mask_stride[2]
            for j in range(scores.columns):
                if mask[j * job.mask_stride[3]] == 0:
                    row[j] = -INFINITY


cdef inline uint64_t hashed(uint64_t x) noexcept nogil:
    """The output function of splitmix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef void drop(const Job *job, fa_size b, fa_size h, fa_size first, matrix scores, real *data) noexcept nogil:
    """Dropout of a block of p, or of its gradient: the same entries each time."""
    cdef fa_size i, j
    cdef uint64_t place
    cdef real kept = <real>job.kept
    cdef real *row
    for i in range(scores.rows):
        row = data + i * scores.row
        place = <uint64_t>(((b * job.heads + h) * job.queries + first + i) * job.keys)
        for j in range(scores.columns):
            row[j] = row[j] * kept if hashed(job.seed + (place + j) * <uint64_t>0x9E3779B97F4A7C15) >= job.threshold else 0


cdef void dropout(const Job *job, fa_size b, fa_size h, fa_size first, matrix p) noexcept nogil:
    if job.threshold and job.itemsize == 4:
        drop(job, b, h, first, p, <float *>p.data)
    elif job.threshold:
        drop(job, b, h, first, p, <double *>p.data)


cdef void over_rows(const Job *job, int kernel, matrix p, const matrix *dp) noexcept nogil:
    """softmax of the rows of p in place; or, with dp, the way back through it, in dp."""
    cdef fa_rows_args args
    cdef int last = 0 if dp == NULL else 1
    memset(&args, 0, sizeof(args))
    args.rows, args.n = p.rows, p.columns
    args.in_[last] = p.data
    if dp != NULL:
        args.in_[0] = dp.data
    for i in range(last + 1):
        args.in_row_stride[i], args.in_stride[i] = p.row * job.itemsize, job.itemsize
    args.in_[last + 1] = &job.temperature32 if job.itemsize == 4 else <const void *>&job.temperature
    args.out = <void *>args.in_[0]
    args.out_row_stride, args.out_stride = args.in_row_stride[0], job.itemsize
    job.rows[kernel](&args)


cdef matrix room(const Job *job, Scratch *scratch, char **data, size_t *have, fa_size rows, fa_size columns) noexcept nogil:
    """A block of scores in a thread's scratch."""
    cdef matrix m
    m.rows, m.columns = rows, columns
    m.row, m.column = (columns + LANE_SCORES - 1) // LANE_SCORES * LANE_SCORES, 1
    if not reserve(data, have, rows * m.row * job.itemsize):
        scratch.failed = True
    m.data = data[0]
    return m


cdef fa_size visible(const Job *job, fa_size b, fa_size last) noexcept nogil:
    """Keys of sequence b that any query before ``last`` may see: the first so many."""
    cdef fa_size n = job.keys if job.lengths == NULL else job.lengths[b]
    return min(n, last) if job.causal else n


cdef matrix probabilities(const Job *job, Scratch *scratch, fa_size b, fa_size h, fa_size first, fa_size last) noexcept nogil:
    """p, before dropout, of some queries, for the keys that they see."""
    cdef fa_size n = visible(job, b, last)
    cdef matrix p = room(job, scratch, &scratch.scores, &scratch.scores_size, last - first, n)
    if scratch.failed or n == 0:
        return p
    multiply(
        job, scratch, head(&job.q, job.itemsize, b, h, first, last), turned(head(&job.k, job.itemsize, b, h, 0, n)), p, False
    )
    if scratch.failed:
        return p
    if job.causal or job.mask != NULL:
        if job.itemsize == 4:
            hide(job, b, h, first, p, <float *>p.data)
        else:
            hide(job, b, h, first, p, <double *>p.data)
    over_rows(job, FA_ROWS_softmax_scaled, p, NULL)
    return p


# ---- a thread's pieces ----

cdef void forward_piece(const Job *job, fa_size piece, Scratch *scratch) noexcept nogil:
    """y of one block of queries of one head."""
    cdef fa_size place = piece // job.blocks, b = place // job.heads, h = place % job.heads, i
    cdef fa_size first = piece % job.blocks * job.block, last = min(first + job.block, job.queries)
    cdef matrix p
    if scratch.failed:
        return
    cdef fa_fpenv saved = fa_fpenv_enter()
    p = probabilities(job, scratch, b, h, first, last)
    if not scratch.failed:
        if job.weights != NULL:
            for i in range(p.rows):
                memcpy(
                    job.weights + job.itemsize * (place * job.queries + first + i) * job.keys,
                    p.data + job.itemsize * i * p.row,
                    job.itemsize * p.columns,
                )
        dropout(job, b, h, first, p)
        multiply(
            job, scratch, p, head(&job.v, job.itemsize, b, h, 0, p.columns),
            head(&job.y, job.itemsize, b, h, first, last), False,
        )
    fa_fpenv_leave(saved)


cdef void clear(const Job *job, matrix m) noexcept nogil:
    cdef fa_size i
    for i in range(m.rows):
        memset(m.data + job.itemsize * i * m.row, 0, job.itemsize * m.columns)


cdef void backward_piece(const Job *job, fa_size piece, Scratch *scratch) noexcept nogil:
    """dq, dk and dv of one head, block of queries after block."""
    cdef fa_size b = piece // job.heads, h = piece % job.heads, block, first, last, n
    cdef matrix p, dp, dy
    cdef fa_fpenv saved = fa_fpenv_enter()
    clear(job, head(&job.dk, job.itemsize, b, h, 0, job.keys))
    clear(job, head(&job.dv, job.itemsize, b, h, 0, job.keys))
    for block in range(job.blocks):
        if scratch.failed:
            break
        first = block * job.block
        last = min(first + job.block, job.queries)
        p = probabilities(job, scratch, b, h, first, last)
        n = p.columns
        dp = room(job, scratch, &scratch.gradients, &scratch.gradients_size, last - first, n)
        if scratch.failed:
            break
        dy = head(&job.y, job.itemsize, b, h, first, last)
        if n > 0:
            multiply(job, scratch, dy, turned(head(&job.v, job.itemsize, b, h, 0, n)), dp, False)
            dropout(job, b, h, first, dp)
            over_rows(job, FA_ROWS_softmax_scaled_backward, p, &dp)
            dropout(job, b, h, first, p)
            multiply(job, scratch, turned(p), dy, head(&job.dv, job.itemsize, b, h, 0, n), True)
            multiply(
                job, scratch, turned(dp), head(&job.q, job.itemsize, b, h, first, last),
                head(&job.dk, job.itemsize, b, h, 0, n), True,
            )
        multiply(
            job, scratch, dp, head(&job.k, job.itemsize, b, h, 0, n), head(&job.dq, job.itemsize, b, h, first, last), False
        )
    fa_fpenv_leave(saved)


cdef int run(const Job *job, bint back, fa_size pieces, double ns) except -1:
    """All pieces, on as many threads as pay."""
    cdef int threads, t
    cdef fa_size piece
    cdef bint failed = False
    cdef Scratch *scratch
    if pieces == 0:
        return 0
    threads = threads_for(ns, <int>min(pieces, 1 << 16))
    scratch = <Scratch *>calloc(threads, sizeof(Scratch))
    if scratch == NULL:
        raise MemoryError("attention: no memory for its workspace")
    with nogil:
        if threads == 1:
            for piece in range(pieces):
                if back:
                    backward_piece(job, piece, scratch)
                else:
                    forward_piece(job, piece, scratch)
        else:
            for piece in prange(pieces, num_threads=threads, schedule="dynamic", chunksize=1):
                if back:
                    backward_piece(job, piece, scratch + threadid())
                else:
                    forward_piece(job, piece, scratch + threadid())
        for t in range(threads):
            failed = failed or scratch[t].failed
            fa_workspace_free(scratch[t].scores)
            fa_workspace_free(scratch[t].gradients)
            fa_workspace_free(scratch[t].product)
        free(scratch)
    if failed:
        raise MemoryError(f"attention: no memory for the scores of {job.block} queries and {job.keys} keys")
    return 0


# ---- from arrays ----

cdef int take(operand *x, cnp.ndarray a, str name, int typenum, fa_size *shape, bint writeable=False) except -1:
    """An array (B, T, h, D) as an operand; ``shape`` holds what its sides must be, or -1, and takes them."""
    cdef fa_size itemsize = cnp.PyArray_ITEMSIZE(a)
    cdef int axis
    if (
        cnp.PyArray_TYPE(a) != typenum
        or cnp.PyArray_NDIM(a) != 4
        or not cnp.PyArray_CHKFLAGS(a, cnp.NPY_ARRAY_ALIGNED)
        or not cnp.PyArray_ISNOTSWAPPED(a)
        or (writeable and not cnp.PyArray_ISWRITEABLE(a))
        or (cnp.PyArray_DIM(a, 3) > 1 and cnp.PyArray_SIZE(a) > 0 and cnp.PyArray_STRIDE(a, 3) != itemsize)
    ):
        raise ValueError(f"{name}: expected an array (B, T, h, D) with a contiguous last axis, got strides {(<object>a).strides}")
    for axis in range(4):
        if shape[axis] >= 0 and cnp.PyArray_DIM(a, axis) != shape[axis]:
            raise ValueError(f"{name}: expected size {shape[axis]} of axis {axis}, got {(<object>a).shape}")
        shape[axis] = cnp.PyArray_DIM(a, axis)
        if cnp.PyArray_STRIDE(a, axis) % itemsize:
            raise ValueError(f"{name}: expected strides of whole elements, got {(<object>a).strides}")
    x.data = <char *>cnp.PyArray_DATA(a)
    x.sequence = cnp.PyArray_STRIDE(a, 0) // itemsize
    x.time = cnp.PyArray_STRIDE(a, 1) // itemsize
    x.head = cnp.PyArray_STRIDE(a, 2) // itemsize
    x.width = shape[3]
    return 0


cdef double prepare(Job *job, tuple operands, cnp.ndarray y, object scores) except -1:
    """Everything but the results; the time of a forward pass in nanoseconds on one thread."""
    cdef cnp.ndarray q, k, v
    q, k, v = operands
    scale, causal, lengths, mask, dropped, seed = scores
    cdef int typenum = cnp.PyArray_TYPE(q), axis
    cdef fa_size size
    cdef fa_size[4] of_q, of_k, of_v, of_y
    cdef cnp.ndarray array
    memset(job, 0, sizeof(Job))
    if typenum != cnp.NPY_FLOAT and typenum != cnp.NPY_DOUBLE:
        raise TypeError(f"q: expected float32 or float64, got {q.dtype}")
    for axis in range(4):
        of_q[axis] = of_k[axis] = of_v[axis] = of_y[axis] = -1
    take(&job.q, q, "q", typenum, of_q)
    of_k[0], of_k[2], of_k[3] = of_q[0], of_q[2], of_q[3]
    take(&job.k, k, "k", typenum, of_k)
    of_v[0], of_v[1], of_v[2] = of_k[0], of_k[1], of_k[2]
    take(&job.v, v, "v", typenum, of_v)
    of_y[0], of_y[1], of_y[2], of_y[3] = of_q[0], of_q[1], of_q[2], of_v[3]
    take(&job.y, y, "y", typenum, of_y)
    job.kernels = <const fa_kernels *>active(typenum == cnp.NPY_DOUBLE)
    job.rows = (<const row_kernels *>job.kernels).rows
    job.itemsize = cnp.PyArray_ITEMSIZE(q)
    job.heads, job.queries, job.keys = of_q[2], of_q[1], of_k[1]
    job.block = BLOCK_SCORES // max(job.keys, 1)
    if causal:
        job.block = min(job.block, (job.queries + CAUSAL_BLOCKS - 1) // CAUSAL_BLOCKS)
    job.block = min(max(job.block, LEAST_ROWS), max(job.queries, 1))
    job.blocks = (job.queries + job.block - 1) // job.block
    if job.blocks:
        job.block = (job.queries + job.blocks - 1) // job.blocks
        job.blocks = (job.queries + job.block - 1) // job.block
    job.temperature = 1 / scale
    job.temperature32 = <float>job.temperature
    job.causal = causal
    if lengths is not None:
        array = lengths
        if cnp.PyArray_TYPE(array) != cnp.NPY_INT64 or lengths.shape != (of_q[0],) or not lengths.flags.c_contiguous:
            raise ValueError("lengths: expected a contiguous int64 array (B,)")
        job.lengths = <const int64_t *>cnp.PyArray_DATA(array)
        for size in range(of_q[0]):
            if not 0 <= job.lengths[size] <= job.keys:
                raise ValueError(f"lengths: expected each from 0 to {job.keys}, got {job.lengths[size]}")
    if mask is not None:
        array = mask
        if cnp.PyArray_TYPE(array) != cnp.NPY_BOOL or mask.shape != (of_q[0], of_q[2], of_q[1], of_k[1]):
            raise ValueError("mask: expected a boolean array (B, h, T, S)")
        job.mask = <const uint8_t *>cnp.PyArray_DATA(array)
        for axis in range(4):
            job.mask_stride[axis] = cnp.PyArray_STRIDE(array, axis)
    if dropped > 0:
        job.threshold = <uint64_t>(<double>dropped * 18446744073709551616.0)
        job.seed = seed
        job.kept = 1 / (1 - dropped)
    # 2 operations each at about 130 in a nanosecond, and the softmax at half a nanosecond a score.
    return (
        <double>of_q[0] * job.heads * job.queries * job.keys
        * (0.004 * job.itemsize * (job.q.width + job.v.width) + 0.12 * job.itemsize)
    )


def forward(tuple operands, cnp.ndarray y not None, object scores, cnp.ndarray weights=None):
    """Attention of the operands, queries (B, T, h, D), keys (B, S, h, D) and values (B, S, h, V): y (B, T, h, V), filled.

    ``scores`` is (scale, causal, lengths, mask, dropped, seed): lengths (B,) int64 of the keys or None; mask (B, h, T, S)
    bool, True where a query sees a key, or None; dropped, the share of p that dropout takes. ``weights`` (B, h, T, S):
    zeros that take p, without dropout.
    """
    cdef Job job
    cdef double ns = prepare(&job, operands, y, scores)
    cdef fa_size batch = cnp.PyArray_DIM(y, 0)
    if not cnp.PyArray_ISWRITEABLE(y):
        raise ValueError("y: expected a writeable array")
    if weights is not None:
        if (
            (<object>weights).shape != (batch, job.heads, job.queries, job.keys)
            or cnp.PyArray_TYPE(weights) != cnp.PyArray_TYPE(y)
            or not cnp.PyArray_CHKFLAGS(weights, cnp.NPY_ARRAY_CARRAY)
        ):
            raise ValueError("weights: expected a contiguous array (B, h, T, S) of the type of q")
        job.weights = <char *>cnp.PyArray_DATA(weights)
    run(&job, False, batch * job.heads * job.blocks, ns)


def backward(cnp.ndarray dy not None, tuple operands, tuple gradients, object scores):
    """The operands' gradients, filled, for dy (B, T, h, V); operands and scores as ``forward`` had them."""
    cdef Job job
    cdef double ns = prepare(&job, operands, dy, scores)
    cdef int typenum = cnp.PyArray_TYPE(dy)
    cdef fa_size batch = cnp.PyArray_DIM(dy, 0)
    cdef cnp.ndarray dq, dk, dv
    dq, dk, dv = gradients
    cdef fa_size[4] of_q, of_k, of_v
    of_q[0], of_q[1], of_q[2], of_q[3] = batch, job.queries, job.heads, job.q.width
    of_k[0], of_k[1], of_k[2], of_k[3] = batch, job.keys, job.heads, job.q.width
    of_v[0], of_v[1], of_v[2], of_v[3] = batch, job.keys, job.heads, job.v.width
    take(&job.dq, dq, "dq", typenum, of_q, True)
    take(&job.dk, dk, "dk", typenum, of_k, True)
    take(&job.dv, dv, "dv", typenum, of_v, True)
    run(&job, True, batch * job.heads, 2.5 * ns)
