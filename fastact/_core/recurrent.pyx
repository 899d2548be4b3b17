"""Recurrent layers over whole sequences: the loop over time, the threads, the workspaces.

A call on a stack of layers opens one parallel region a layer and direction. Inside it each thread does its share of
every step: rows of the batch, which needs no barrier between steps, where each thread gets 3 rows or more; else groups of
hidden units, with one spin barrier a step. The order of every summation depends on the shape alone.

Measured on 2 cores of Zen 5 (AVX-512, float32), and the reason for the constants below: the input product belongs into
the step from a batch of 8 on (3-14 % faster; no buffer for it), before the loop below that (1.2-1.9 times faster at
batch 1); weight gradients are summed over chunks of 192-768 rows while dZ is still in the cache (10-15 % against the
whole sequence at once at (100, 64, 256, 512)).
"""

from cython.parallel cimport parallel
from libc.stddef cimport ptrdiff_t, size_t
from libc.string cimport memcpy, memset

cimport numpy as cnp
import numpy as np

from fastact._core.runtime cimport active, fa_fpenv, fa_fpenv_enter, fa_fpenv_leave, threads_for, threads_limit

cnp.import_array()

cdef extern from "kernels.h" nogil:
    ctypedef ptrdiff_t fa_size
    ctypedef struct fa_recurrent_share:
        fa_size row_begin, row_end, group_begin, group_end
    ctypedef struct fa_lstm_pack:
        fa_size inputs, H
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        void *ih
        void *hh
        void *bias
        void *hh_back
        void *ih_back
    ctypedef struct fa_lstm_forward:
        fa_size T, B, inputs, H
        const void *ih
        const void *hh
        const void *bias
        const void *x
        fa_size x_t, x_b
        void *y
        fa_size y_t, y_b
        void *h
        void *c
        fa_size h_ring, c_ring
        void *slabs
        fa_size slab_rows, slab_ring
        int hoisted, keep_gates
    ctypedef struct fa_lstm_backward:
        fa_size T, B, inputs, H
        const void *hh_back
        const void *ih_back
        const void *dy
        fa_size dy_t, dy_b
        void *dx
        fa_size dx_t, dx_b
        const void *c
        void *slabs
        void *dh
        void *dc
    ctypedef struct fa_lstm_gradient:
        fa_size B, H, K
        const void *a
        fa_size a_t, a_b
        void *packed
        const void *slabs
        fa_size slab_rows
        void *gradient
        void *bias_a
        void *bias_b
    ctypedef struct fa_recurrent_kernels:
        void (*pack)(const fa_lstm_pack *, fa_size, fa_size) noexcept nogil
        void (*input)(const fa_lstm_forward *, const fa_recurrent_share *, fa_size, fa_size) noexcept nogil
        void (*step)(const fa_lstm_forward *, const fa_recurrent_share *, fa_size) noexcept nogil
        void (*backward_step)(const fa_lstm_backward *, const fa_recurrent_share *, fa_size) noexcept nogil
        void (*input_gradient)(const fa_lstm_backward *, fa_size, fa_size, int, int) noexcept nogil
        void (*gradient_pack)(const fa_lstm_gradient *, fa_size, fa_size, int, int) noexcept nogil
        void (*gradient)(const fa_lstm_gradient *, fa_size, fa_size, int, int) noexcept nogil
    ctypedef struct kernel_table "fa_kernels":
        int lanes
        int itemsize
        fa_recurrent_kernels recurrent

cdef extern from "sync.h" nogil:
    enum: FA_TEAM_MAX
    ctypedef struct fa_barrier:
        pass
    int fa_team_size()
    int fa_team_rank()
    void fa_barrier_init(fa_barrier *)
    void fa_barrier_wait(fa_barrier *, int rank, int size, unsigned *count)

cdef extern from "workspace.h" nogil:
    void *fa_workspace_alloc(size_t bytes)
    void fa_workspace_free(void *)

cdef enum:
    GATES = 4
    IN_STEP_BATCH = 8        # from this batch on, the input product is part of the step
    HOIST_ROWS = 256         # rows of the input product done at a time in inference
    GRADIENT_ROWS = 384      # rows of a chunk of the weight gradients
    ROWS_EACH = 3            # least rows of the batch that a thread gets
    TILE_GROUPS = 4          # groups in a column block of the backward product
    STEP_NS = 600            # least work of a step that is worth a barrier
    LINE = 64
    POOLED_BYTES = 1 << 20   # arrays from here on are worth a workspace


# ---- workspaces ------------------------------------------------------------------------------------------------------

cdef enum:
    POOL_SLOTS = 24
    POOL_BYTES = 1 << 30     # most memory that waits in the pool
cdef void *pool_data[POOL_SLOTS]
cdef size_t pool_size[POOL_SLOTS]
cdef int pool_next = 0


cdef class Workspace:
    """Aligned memory from a pool, which gets it back when the object dies: fresh memory cost 11 % of a training step.

    The pool is guarded by the GIL and keeps at most POOL_SLOTS blocks.
    """
    cdef char *data
    cdef size_t size

    def __cinit__(self, size_t size):
        cdef int i, best = -1
        size = (size + 4095) // 4096 * 4096
        for i in range(POOL_SLOTS):
            if pool_data[i] != NULL and size <= pool_size[i] <= 2 * size + 65536:
                if best < 0 or pool_size[i] < pool_size[best]:
                    best = i
        if best >= 0:
            self.data = <char *>pool_data[best]
            self.size = pool_size[best]
            pool_data[best] = NULL
            return
        self.data = <char *>fa_workspace_alloc(size)
        if self.data == NULL:
            clear_pool()
            self.data = <char *>fa_workspace_alloc(size)
            if self.data == NULL:
                raise no_memory(size)
        self.size = size

    def __dealloc__(self):
        global pool_next
        cdef int i
        if self.data == NULL:
            return
        if self.size > POOL_BYTES - pool_bytes():
            fa_workspace_free(self.data)
            return
        for i in range(POOL_SLOTS):
            if pool_data[i] == NULL:
                pool_data[i] = self.data
                pool_size[i] = self.size
                return
        fa_workspace_free(pool_data[pool_next])
        pool_data[pool_next] = self.data
        pool_size[pool_next] = self.size
        pool_next = (pool_next + 1) % POOL_SLOTS


cdef object no_memory(double size):
    return MemoryError(f"recurrent layer: no {size / 2**20:.0f} MB of memory for its workspace; "
                       "use a smaller batch or a shorter sequence")


def empty(tuple shape, cnp.dtype dtype):
    """An uninitialised C-contiguous array; a large one lives in a workspace, which the pool gets back when the array and
    all its views are gone. (Fresh pages for y and dx cost 3 % of a training step at (100, 64, 256, 512).)"""
    cdef cnp.npy_intp dims[3]
    cdef cnp.npy_intp size = dtype.itemsize
    cdef int axis, ndim = len(shape)
    cdef Workspace space
    for axis in range(ndim):
        dims[axis] = shape[axis]
        size *= dims[axis]
    if size < POOLED_BYTES:
        return cnp.PyArray_EMPTY(ndim, dims, dtype.num, 0)
    space = Workspace(size)
    array = cnp.PyArray_SimpleNewFromData(ndim, dims, dtype.num, space.data)
    cnp.set_array_base(array, space)
    return array


def clear_pool():
    """Give all idle workspaces back to the system."""
    cdef int i
    for i in range(POOL_SLOTS):
        fa_workspace_free(pool_data[i])
        pool_data[i] = NULL


cpdef size_t pool_bytes():
    """Bytes that wait in the pool."""
    cdef int i
    cdef size_t total = 0
    for i in range(POOL_SLOTS):
        if pool_data[i] != NULL:
            total += pool_size[i]
    return total


cdef inline size_t lines(size_t bytes) noexcept nogil:
    """Rounded up to whole cache lines."""
    return (bytes + LINE - 1) // LINE * LINE


cdef inline fa_size groups_of(fa_size units, const kernel_table *kernels) noexcept nogil:
    return (units + kernels.lanes - 1) // kernels.lanes


cdef inline fa_size padded(fa_size units, const kernel_table *kernels) noexcept nogil:
    return groups_of(units, kernels) * kernels.lanes


# ---- teams -----------------------------------------------------------------------------------------------------------

ctypedef void (*team_body)(void *job, int rank, int size) noexcept nogil


cdef void run_member(team_body body, void *job, int rank, int size) noexcept nogil:
    cdef fa_fpenv saved = fa_fpenv_enter()
    body(job, rank, size)
    fa_fpenv_leave(saved)


cdef void run_team(team_body body, void *job, int threads) noexcept nogil:
    """Do a job on this many threads; each knows its rank and the size of the team that really formed."""
    if threads == 1:
        run_member(body, job, 0, 1)
    else:
        with parallel(num_threads=threads):
            run_member(body, job, fa_team_rank(), fa_team_size())


# ---- packed weights --------------------------------------------------------------------------------------------------

cdef class PackedLSTM:
    """The weights of one layer in the layout of one instruction set (src_c/recurrent.h). Never changed once made."""
    cdef Workspace space
    cdef const kernel_table *kernels
    cdef readonly fa_size input_size, hidden_size
    cdef readonly bint for_training
    cdef void *ih
    cdef void *hh
    cdef void *bias
    cdef void *hh_back
    cdef void *ih_back

    @property
    def current(self):
        """Whether the active instruction set is still the one of the layout."""
        return self.kernels == <const kernel_table *>active(0 if self.kernels.itemsize == 4 else 1)


cdef struct PackJob:
    const kernel_table *kernels
    fa_lstm_pack args


cdef void pack_share(void *job, int rank, int size) noexcept nogil:
    cdef const kernel_table *kernels = (<PackJob *>job).kernels
    cdef const fa_lstm_pack *args = &(<PackJob *>job).args
    cdef fa_size groups = groups_of(args.H, kernels)
    kernels.recurrent.pack(args, groups * rank // size, groups * (rank + 1) // size)


def pack_lstm(cnp.ndarray weight_ih, cnp.ndarray weight_hh, cnp.ndarray bias_ih, cnp.ndarray bias_hh, bint training):
    """Pack a layer's weights: (4H, I), (4H, H), (4H) or None twice, C-contiguous, all of one dtype."""
    cdef PackedLSTM packed = PackedLSTM.__new__(PackedLSTM)
    cdef const kernel_table *kernels = <const kernel_table *>active(
        0 if cnp.PyArray_TYPE(weight_ih) == cnp.NPY_FLOAT32 else 1)
    cdef fa_size I = cnp.PyArray_DIM(weight_ih, 1), H = cnp.PyArray_DIM(weight_hh, 1)
    cdef fa_size row = GATES * padded(H, kernels) * kernels.itemsize
    cdef size_t n_ih = lines(I * row), n_hh = lines(H * row), n_bias = lines(row)
    cdef size_t n_hh_back = lines(padded(H, kernels) * row), n_ih_back = lines(padded(I, kernels) * row)
    cdef Workspace space = Workspace(n_ih + n_hh + n_bias + (n_hh_back + n_ih_back if training else 0))
    cdef char *p = space.data
    cdef PackJob job
    cdef fa_lstm_pack *args = &job.args
    cdef int n
    job.kernels = kernels
    packed.space = space
    packed.kernels = kernels
    packed.input_size = I
    packed.hidden_size = H
    packed.for_training = training
    packed.ih = p
    packed.hh = p + n_ih
    packed.bias = p + n_ih + n_hh
    packed.hh_back = p + n_ih + n_hh + n_bias if training else NULL
    packed.ih_back = p + n_ih + n_hh + n_bias + n_hh_back if training else NULL
    args.inputs = I
    args.H = H
    args.weight_ih = cnp.PyArray_DATA(weight_ih)
    args.weight_hh = cnp.PyArray_DATA(weight_hh)
    args.bias_ih = NULL if bias_ih is None else cnp.PyArray_DATA(bias_ih)
    args.bias_hh = NULL if bias_hh is None else cnp.PyArray_DATA(bias_hh)
    args.ih = packed.ih
    args.hh = packed.hh
    args.bias = packed.bias
    args.hh_back = packed.hh_back
    args.ih_back = packed.ih_back
    n = threads_for((I + H) * row * (0.05 if training else 0.03), <int>groups_of(H, kernels))
    with nogil:
        run_team(pack_share, &job, n)
    return packed


# ---- threads ---------------------------------------------------------------------------------------------------------

cdef struct Plan:
    int threads
    bint by_rows    # cut the batch (no barrier a step), or else the hidden units


cdef Plan forced    # threads = 0: nothing is forced


def force_plan(int threads=0, bint by_rows=True):
    """For tests: cut every call this way as far as its shape allows; 0 threads returns to the measured rule."""
    forced.threads = threads
    forced.by_rows = by_rows


cdef Plan plan_threads(const kernel_table *kernels, fa_size T, fa_size B, fa_size I, fa_size H,
                       double passes) noexcept nogil:
    """How a layer is cut. ``passes``: 1 for forward, 2 for backward, in units of the forward product."""
    cdef Plan plan
    cdef double step_ns = B * H * (8.0 * (I + H) / 12.5 + 14.0) / kernels.lanes * passes
    cdef fa_size groups = groups_of(H, kernels)
    cdef int limit
    if passes > 1:
        groups = (groups + TILE_GROUPS - 1) // TILE_GROUPS
    if forced.threads > 0:
        plan = forced
        plan.threads = <int>min(plan.threads, max(1, B // ROWS_EACH if plan.by_rows else groups))
        return plan
    plan.threads = 1
    plan.by_rows = True
    if threads_limit() < 2:
        return plan
    plan.threads = threads_for(step_ns * T, <int>min(B // ROWS_EACH, FA_TEAM_MAX))
    if groups >= 2 * plan.threads and step_ns >= STEP_NS * plan.threads:
        limit = threads_for(step_ns * T, <int>min(groups, FA_TEAM_MAX))
        if limit >= 2 * plan.threads:
            plan.threads = limit
            plan.by_rows = False
    return plan


cdef fa_recurrent_share share_of(Plan plan, fa_size B, fa_size groups, fa_size block, int rank, int size) noexcept nogil:
    """The part of each step of thread ``rank``; groups are cut in multiples of ``block``."""
    cdef fa_recurrent_share share
    cdef fa_size blocks = (groups + block - 1) // block
    share.row_begin = 0
    share.row_end = B
    share.group_begin = 0
    share.group_end = groups
    if plan.by_rows:
        share.row_begin = B * rank // size
        share.row_end = B * (rank + 1) // size
    else:
        share.group_begin = min(groups, blocks * rank // size * block)
        share.group_end = min(groups, blocks * (rank + 1) // size * block)
    return share


# ---- forward ---------------------------------------------------------------------------------------------------------

cdef struct ForwardJob:
    const kernel_table *kernels
    fa_lstm_forward args
    fa_size hoist_steps     # steps of the input product done at a time, a divisor of the slabs' ring
    Plan plan
    fa_barrier barrier


cdef void forward_share(void *of, int rank, int size) noexcept nogil:
    cdef ForwardJob *job = <ForwardJob *>of
    cdef const fa_lstm_forward *args = &job.args
    cdef fa_recurrent_share share = share_of(job.plan, args.B, groups_of(args.H, job.kernels), 1, rank, size)
    cdef bint meet = size > 1 and not job.plan.by_rows
    cdef unsigned met = 0
    cdef fa_size t, begin = 0, end
    while begin < args.T:
        end = min(args.T, begin + job.hoist_steps)
        if args.hoisted:  # the share's own groups and rows are all that its steps read: no barrier
            job.kernels.recurrent.input(args, &share, begin, end)
        for t in range(begin, end):
            job.kernels.recurrent.step(args, &share, t)
            if meet:
                fa_barrier_wait(&job.barrier, rank, size, &met)
        begin = end


cdef void load_state(const kernel_table *kernels, char *rows, const char *state, fa_size B, fa_size H) noexcept nogil:
    """(B, H) into [B][Hp], padded with zeros; a NULL state is zero."""
    cdef size_t n = H * kernels.itemsize, n_padded = padded(H, kernels) * kernels.itemsize
    cdef fa_size b
    if state == NULL or n != n_padded:
        memset(rows, 0, B * n_padded)
    if state != NULL:
        if n == n_padded:
            memcpy(rows, state, B * n)
        else:
            for b in range(B):
                memcpy(rows + b * n_padded, state + b * n, n)


cdef void save_state(const kernel_table *kernels, const char *rows, char *state, fa_size B, fa_size H) noexcept nogil:
    """[B][Hp] into (B, H)."""
    cdef size_t n = H * kernels.itemsize, n_padded = padded(H, kernels) * kernels.itemsize
    cdef fa_size b
    if n == n_padded:
        memcpy(state, rows, B * n)
    else:
        for b in range(B):
            memcpy(state + b * n, rows + b * n_padded, n)


cdef inline char *layer_state(cnp.ndarray state, int layer):
    """Where a layer's (B, H) of a C-contiguous (layers, B, H) begins; NULL for None."""
    if state is None:
        return NULL
    return <char *>cnp.PyArray_DATA(state) + layer * cnp.PyArray_STRIDE(state, 0)


cdef cnp.ndarray rows_in_place(cnp.ndarray x):
    """x itself if the last axis is contiguous and everything lies at whole elements, else a copy."""
    cdef int axis, last = cnp.PyArray_NDIM(x) - 1
    cdef fa_size size = cnp.PyArray_ITEMSIZE(x)
    cdef bint usable = cnp.PyArray_ISALIGNED(x) and (
        cnp.PyArray_STRIDE(x, last) == size or cnp.PyArray_DIM(x, last) == 1)
    for axis in range(last):
        usable = usable and cnp.PyArray_STRIDE(x, axis) % size == 0
    return x if usable else np.array(x, order="C")


cdef class LSTMTape:
    """What the forward pass of a stack of layers leaves for its backward pass."""
    cdef list packed            # PackedLSTM of each layer
    cdef list spaces            # Workspace of each layer: slabs, then h, then c
    cdef object x               # keeps the input alive
    cdef const char *x_data
    cdef fa_size x_t, x_b, T, B
    cdef bint time_major, sequences


cdef LSTMTape new_tape(list packed, cnp.ndarray x, const fa_lstm_forward *args, fa_size T, fa_size B, bint time_major,
                       bint sequences):
    """The tape of a pass that begins: what it reads, no layer done yet."""
    cdef LSTMTape tape = LSTMTape.__new__(LSTMTape)
    tape.packed = packed
    tape.spaces = []
    tape.x = x
    tape.x_data = <const char *>args.x
    tape.x_t = args.x_t
    tape.x_b = args.x_b
    tape.T = T
    tape.B = B
    tape.time_major = time_major
    tape.sequences = sequences
    return tape


cdef inline char *kept_h(Workspace space, fa_size T, fa_size B, fa_size Hp, fa_size size) noexcept:
    """In the space of a layer in training, h [T + 1][B][Hp] stands behind the slabs of all steps, and c behind it."""
    return space.data + lines(T * B * GATES * Hp * size)


cdef inline fa_size next_power_of_2(fa_size n) noexcept nogil:
    cdef fa_size power = 1
    while power < n:
        power *= 2
    return power


def lstm_forward(list packed, cnp.ndarray x, cnp.ndarray y, cnp.ndarray h0, cnp.ndarray c0, cnp.ndarray h_final,
                 cnp.ndarray c_final, bint time_major, bint sequences, bint training):
    """Run a stack of layers over x.

    Parameters
    ----------
    packed : list of PackedLSTM, first layer first
    x : array of shape (B, T, I), or (T, B, I) if ``time_major``
        Read in place if its last axis is contiguous.
    y : array of shape (B, T, H) or (T, B, H), or (B, H) without ``sequences``
        C-contiguous; filled.
    h0, c0, h_final, c_final : arrays of shape (layers, B, H), or None
        C-contiguous; the last two are filled.

    Returns
    -------
    LSTMTape or None
        In training, what ``lstm_backward`` takes.
    """
    cdef int time_axis = 0 if time_major else 1, batch_axis = 1 - time_axis, layer, layers = len(packed)
    cdef fa_size T = cnp.PyArray_DIM(x, time_axis), B = cnp.PyArray_DIM(x, batch_axis)
    cdef PackedLSTM weights
    cdef Workspace space
    cdef Workspace below = None  # of the layer before, kept for as long as args.x points into it
    cdef LSTMTape tape = None
    cdef ForwardJob job
    cdef fa_lstm_forward *args = &job.args
    cdef const kernel_table *kernels
    cdef fa_size size, Hp, H, I, steps
    cdef double bytes_at_most
    cdef size_t n_slabs, n_h, n_c, n_y, state_bytes
    cdef char *h
    cdef char *c
    cdef char *p
    cdef const char *h_first
    cdef const char *c_first
    cdef char *h_last
    cdef char *c_last

    x = rows_in_place(x)
    weights = packed[0]
    size = weights.kernels.itemsize
    if (
        cnp.PyArray_DIM(x, 2) != weights.input_size or cnp.PyArray_ITEMSIZE(x) != size
        or cnp.PyArray_DIM(y, cnp.PyArray_NDIM(y) - 1) != weights.hidden_size
    ):
        raise ValueError("x, y: expected the sizes and the type that the weights were packed with")
    Hp = padded(weights.hidden_size, weights.kernels)
    # An array of stride 0 may have more steps than memory has bytes: no size below, nor of the backward pass, overflows.
    bytes_at_most = (T + 2.0) * B * size * ((GATES + 3.0) * Hp + padded(weights.input_size, weights.kernels))
    if bytes_at_most > 1LL << 62:
        raise no_memory(bytes_at_most)
    args.x = cnp.PyArray_DATA(x)
    args.x_t = cnp.PyArray_STRIDE(x, time_axis) // size
    args.x_b = cnp.PyArray_STRIDE(x, batch_axis) // size
    if training:
        tape = new_tape(packed, x, args, T, B, time_major, sequences)

    for layer in range(layers):
        weights = packed[layer]
        kernels = weights.kernels
        I = weights.input_size
        H = weights.hidden_size
        Hp = padded(H, kernels)
        args.T = T
        args.B = B
        args.inputs = I
        args.H = H
        args.ih = weights.ih
        args.hh = weights.hh
        args.bias = weights.bias
        args.hoisted = B < IN_STEP_BATCH
        args.keep_gates = training
        job.kernels = kernels
        job.plan = plan_threads(kernels, T, B, I, H, 1)

        # Rings of the state and of the hoisted input product; in training each step keeps its own slot.
        steps = next_power_of_2(max(1, HOIST_ROWS // max(B, 1)))
        if T < steps:
            steps = next_power_of_2(max(T, 1))
        job.hoist_steps = steps
        args.h_ring = -1 if training else 1
        args.c_ring = -1 if training else 0
        args.slab_ring = -1 if training else steps - 1
        args.slab_rows = (T if training else steps if args.hoisted else 0) * B
        state_bytes = B * Hp * size
        n_slabs = lines(args.slab_rows * GATES * Hp * size)
        n_h = lines(state_bytes * (T + 1 if training else 2))
        n_c = lines(state_bytes * (T + 1 if training else 1))
        n_y = T * B * H * size if layer < layers - 1 and not training else 0
        space = Workspace(n_slabs + n_h + n_c + n_y)
        p = space.data
        args.slabs = p
        h = p + n_slabs
        c = h + n_h
        args.h = h
        args.c = c
        if layer == layers - 1:
            args.y = NULL
            if sequences:
                args.y = cnp.PyArray_DATA(y)
                args.y_t = cnp.PyArray_STRIDE(y, time_axis) // size
                args.y_b = cnp.PyArray_STRIDE(y, batch_axis) // size
        elif training:
            args.y = NULL  # h of all steps is kept: the next layer reads that
        else:
            args.y = c + n_c
            args.y_t = B * H
            args.y_b = H
        h_first = layer_state(h0, layer)
        c_first = layer_state(c0, layer)
        h_last = layer_state(h_final, layer)
        c_last = layer_state(c_final, layer)

        with nogil:
            load_state(kernels, h, h_first, B, H)
            load_state(kernels, c, c_first, B, H)
            fa_barrier_init(&job.barrier)
            run_team(forward_share, &job, job.plan.threads)
            h += (T & args.h_ring) * state_bytes
            c += (T & args.c_ring) * state_bytes
            if h_last != NULL:
                save_state(kernels, h, h_last, B, H)
            if c_last != NULL:
                save_state(kernels, c, c_last, B, H)
        if layer == layers - 1:
            if not sequences:
                save_state(kernels, h, <char *>cnp.PyArray_DATA(y), B, H)
        elif training:
            args.x = <char *>args.h + state_bytes
            args.x_t = B * Hp
            args.x_b = Hp
        else:
            args.x = args.y
            args.x_t = args.y_t
            args.x_b = args.y_b
        below = space
        if training:
            tape.spaces.append(space)
    return tape


# ---- backward --------------------------------------------------------------------------------------------------------

cdef struct BackwardJob:
    const kernel_table *kernels
    fa_lstm_backward args
    fa_lstm_gradient of_ih, of_hh
    fa_size chunk_steps
    Plan plan
    fa_barrier barrier


cdef void backward_share(void *of, int rank, int size) noexcept nogil:
    cdef BackwardJob *job = <BackwardJob *>of
    cdef const fa_lstm_backward *args = &job.args
    cdef const fa_recurrent_kernels *kernels = &job.kernels.recurrent
    cdef fa_recurrent_share share = share_of(
        job.plan, args.B, groups_of(args.H, job.kernels), TILE_GROUPS, rank, size)
    cdef bint meet = size > 1 and not job.plan.by_rows
    cdef unsigned met = 0
    cdef fa_size t, begin, end = args.T
    while end > 0:
        begin = max(0, end - job.chunk_steps)
        for t in range(end - 1, begin - 1, -1):
            kernels.backward_step(args, &share, t)
            if meet:
                fa_barrier_wait(&job.barrier, rank, size, &met)
        # The first barrier: dZ of the chunk is complete, and nobody reads the packed rows of the chunk before.
        if size > 1:
            fa_barrier_wait(&job.barrier, rank, size, &met)
        kernels.gradient_pack(&job.of_ih, begin, end, rank, size)
        kernels.gradient_pack(&job.of_hh, begin, end, rank, size)
        if size > 1:
            fa_barrier_wait(&job.barrier, rank, size, &met)
        kernels.gradient(&job.of_ih, begin, end, rank, size)
        kernels.gradient(&job.of_hh, begin, end, rank, size)
        if args.dx != NULL:
            kernels.input_gradient(args, begin, end, rank, size)
        end = begin
    if args.T > 0:
        kernels.backward_step(args, &share, -1)


def lstm_backward(LSTMTape tape not None, cnp.ndarray dy, cnp.ndarray dh_final, cnp.ndarray dc_final, cnp.ndarray dx,
                  cnp.ndarray dh0, cnp.ndarray dc0, list gradients):
    """Backward pass of ``lstm_forward``, once a tape.

    Parameters
    ----------
    dy : array of the shape of y, or None
        Read in place if its last axis is contiguous.
    dh_final, dc_final : arrays of shape (layers, B, H), or None
        C-contiguous.
    dx : array of the shape of x, or None
        C-contiguous; filled.
    dh0, dc0 : arrays of shape (layers, B, H)
        C-contiguous; filled.
    gradients : list of (weight_ih, weight_hh, bias_ih or None, bias_hh or None), one a layer
        C-contiguous; added to.
    """
    cdef int time_axis = 0 if tape.time_major else 1, batch_axis = 1 - time_axis
    cdef int layer, layers = len(tape.packed)
    cdef fa_size T = tape.T, B = tape.B, size, I, H, Hp, rows, k
    cdef PackedLSTM weights
    cdef Workspace space, scratch
    cdef Workspace above = None  # of the layer after, kept for as long as args.dy points into it
    cdef BackwardJob job
    cdef fa_lstm_backward *args = &job.args
    cdef fa_lstm_gradient *gradient
    cdef const kernel_table *kernels
    cdef size_t state_bytes, n_packed_ih, n_packed_hh, n_dx
    cdef const char *dh_first
    cdef const char *dc_first
    cdef char *dh_last
    cdef char *dc_last
    cdef char *h
    cdef char *p
    cdef tuple into
    cdef bint last_only = not tape.sequences

    if tape.spaces is None:
        raise RuntimeError("lstm_backward: this tape has been used")
    weights = tape.packed[0]
    size = weights.kernels.itemsize
    args.dy = NULL
    if dy is not None:
        dy = rows_in_place(dy)
        args.dy = cnp.PyArray_DATA(dy)
        if tape.sequences:
            args.dy_t = cnp.PyArray_STRIDE(dy, time_axis) // size
            args.dy_b = cnp.PyArray_STRIDE(dy, batch_axis) // size
        else:  # the gradient of the last h: joins that of the final state
            args.dy_t = 0
            args.dy_b = cnp.PyArray_STRIDE(dy, 0) // size
    for layer in range(layers - 1, -1, -1):
        weights = tape.packed[layer]
        space = tape.spaces[layer]
        kernels = weights.kernels
        I = weights.input_size
        H = weights.hidden_size
        Hp = padded(H, kernels)
        state_bytes = B * Hp * size
        job.kernels = kernels
        job.plan = plan_threads(kernels, T, B, I, H, 2)
        job.chunk_steps = max(1, min(T, (GRADIENT_ROWS + B - 1) // max(B, 1)))
        rows = job.chunk_steps * B
        n_packed_ih = lines(rows * padded(I, kernels) * size)
        n_packed_hh = lines(rows * Hp * size)
        n_dx = T * B * I * size if layer > 0 else 0
        scratch = Workspace(2 * lines(state_bytes) + n_packed_ih + n_packed_hh + n_dx)
        p = scratch.data
        h = kept_h(space, T, B, Hp, size)

        args.T = T
        args.B = B
        args.inputs = I
        args.H = H
        args.hh_back = weights.hh_back
        args.ih_back = weights.ih_back
        args.slabs = space.data
        args.c = h + lines(state_bytes * (T + 1))
        args.dh = p
        args.dc = p + lines(state_bytes)
        p += 2 * lines(state_bytes)
        if layer > 0:
            args.dx = p + n_packed_ih + n_packed_hh
            args.dx_t = B * I
            args.dx_b = I
        else:
            args.dx = NULL
            if dx is not None:
                args.dx = cnp.PyArray_DATA(dx)
                args.dx_t = cnp.PyArray_STRIDE(dx, time_axis) // size
                args.dx_b = cnp.PyArray_STRIDE(dx, batch_axis) // size

        into = gradients[layer]
        gradient = &job.of_ih
        gradient.B = B
        gradient.H = H
        gradient.K = I
        if layer > 0:
            k = padded(I, kernels)
            gradient.a = kept_h(tape.spaces[layer - 1], T, B, k, size) + B * k * size
            gradient.a_t = B * k
            gradient.a_b = k
        else:
            gradient.a = tape.x_data
            gradient.a_t = tape.x_t
            gradient.a_b = tape.x_b
        gradient.packed = p
        gradient.slabs = args.slabs
        gradient.slab_rows = T * B
        gradient.gradient = cnp.PyArray_DATA(<cnp.ndarray>into[0])
        gradient.bias_a = NULL if into[2] is None else cnp.PyArray_DATA(<cnp.ndarray>into[2])
        gradient.bias_b = NULL if into[3] is None else cnp.PyArray_DATA(<cnp.ndarray>into[3])
        job.of_hh = job.of_ih
        gradient = &job.of_hh
        gradient.K = H
        gradient.a = h
        gradient.a_t = B * Hp
        gradient.a_b = Hp
        gradient.packed = p + n_packed_ih
        gradient.gradient = cnp.PyArray_DATA(<cnp.ndarray>into[1])
        gradient.bias_a = NULL
        gradient.bias_b = NULL

        dh_first = layer_state(dh_final, layer)
        dc_first = layer_state(dc_final, layer)
        dh_last = layer_state(dh0, layer)
        dc_last = layer_state(dc0, layer)
        with nogil:
            load_state(kernels, <char *>args.dh, dh_first, B, H)
            load_state(kernels, <char *>args.dc, dc_first, B, H)
            if last_only and layer == layers - 1 and args.dy != NULL:
                add_rows(kernels, <char *>args.dh, <const char *>args.dy, args.dy_b, B, H)
                args.dy = NULL
            if B > 0:
                fa_barrier_init(&job.barrier)
                run_team(backward_share, &job, job.plan.threads)
            save_state(kernels, <char *>args.dh, dh_last, B, H)
            save_state(kernels, <char *>args.dc, dc_last, B, H)
        args.dy = args.dx
        args.dy_t = args.dx_t
        args.dy_b = args.dx_b
        above = scratch
    tape.spaces = None
    tape.x = None


cdef void add_rows(const kernel_table *kernels, char *rows, const char *more, fa_size stride, fa_size B,
                   fa_size H) noexcept nogil:
    """[B][Hp] += (B, H), whose rows are ``stride`` elements apart."""
    cdef fa_size b, j, Hp = padded(H, kernels)
    for b in range(B):
        for j in range(H):
            if kernels.itemsize == 4:
                (<float *>rows)[b * Hp + j] += (<const float *>more)[b * stride + j]
            else:
                (<double *>rows)[b * Hp + j] += (<const double *>more)[b * stride + j]


def plan(dtype, fa_size T, fa_size B, fa_size I, fa_size H, double passes=1):
    """(threads, whether the batch is cut rather than the units) for a shape; ``passes`` 1 forward, 2 backward."""
    cdef Plan found = plan_threads(
        <const kernel_table *>active(0 if dtype == np.float32 else 1), T, B, I, H, passes)
    return found.threads, bool(found.by_rows)
