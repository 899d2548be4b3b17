"""One recurrent layer in one direction over whole sequences: packed weights, the loop over time, the threads.

A pass opens one parallel region. Inside it each thread does its share of every step: rows of the batch, which needs no
barrier between steps, where each thread gets 3 rows or more; else groups of hidden units, with one spin barrier a step.
Ragged sequences are always cut by units: rows would leave one thread with the long ones. The order of every summation
depends on the shape alone. Stacks, directions, merging and lengths are ``fastact/nn/recurrent.py``'s.

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

from fastact._core.activations cimport FA_MAX_PARAMETERS, Caller
from fastact._core.runtime cimport active, fa_fpenv, fa_fpenv_enter, fa_fpenv_leave, threads_for, threads_limit
from fastact._core.workspace cimport Workspace, no_memory

cnp.import_array()

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_recurrent_share:
        fa_size row_begin, row_end, group_begin, group_end
    enum: FA_CELL_FUNCTIONS
    ctypedef enum fa_cell_kind:
        FA_LSTM, FA_GRU, FA_RNN
    ctypedef struct fa_cell:
        fa_cell_kind kind
        int plain
        int row_ih[4]
        int row_hh[4]
        int coupled
        int function[FA_CELL_FUNCTIONS]
        double parameter[FA_CELL_FUNCTIONS][FA_MAX_PARAMETERS]
    ctypedef struct fa_recurrent_pack:
        fa_size inputs, H
        const fa_cell *cell
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *weight_peephole
        void *peephole
        void *ih
        void *hh
        void *bias
        void *hh_back
        void *ih_back
    ctypedef struct fa_recurrent_forward:
        fa_size T, B, inputs, H
        const fa_size *starts
        const fa_cell *cell
        const void *ih
        const void *hh
        const void *bias
        const void *peephole
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
    ctypedef struct fa_recurrent_backward:
        fa_size T, B, inputs, H
        const fa_size *starts
        const fa_cell *cell
        const void *hh_back
        const void *ih_back
        const void *peephole
        const void *dy
        fa_size dy_t, dy_b
        void *dx
        fa_size dx_t, dx_b
        int dx_adds
        const void *h
        const void *c
        void *slabs
        fa_size slab_rows
        void *dh
        void *dc
    ctypedef struct fa_recurrent_gradient:
        fa_size B, H, K
        const fa_size *starts
        const fa_cell *cell
        const int *row
        const void *a
        fa_size a_t, a_b
        const fa_size *a_starts
        void *packed
        const void *slabs
        fa_size slab_rows
        void *gradient
        void *bias_a
        void *bias_b
        const void *c
        void *peephole
    ctypedef struct fa_recurrent_kernels:
        void (*pack)(const fa_recurrent_pack *, fa_size, fa_size) noexcept nogil
        void (*input)(const fa_recurrent_forward *, const fa_recurrent_share *, fa_size, fa_size) noexcept nogil
        void (*step)(const fa_recurrent_forward *, const fa_recurrent_share *, fa_size) noexcept nogil
        void (*backward_step)(const fa_recurrent_backward *, const fa_recurrent_share *, fa_size) noexcept nogil
        void (*input_gradient)(const fa_recurrent_backward *, fa_size, fa_size, int, int) noexcept nogil
        void (*gradient_pack)(const fa_recurrent_gradient *, fa_size, fa_size, int, int) noexcept nogil
        void (*gradient)(const fa_recurrent_gradient *, fa_size, fa_size, int, int) noexcept nogil
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

cdef enum:
    COLUMNS = 4              # of a group in the slabs
    IN_STEP_BATCH = 8        # from this batch on, the input product is part of the step
    HOIST_ROWS = 256         # rows of the input product done at a time in inference
    GRADIENT_ROWS = 384      # rows of a chunk of the weight gradients
    ROWS_EACH = 3            # least rows of the batch that a thread gets
    TILE_GROUPS = 4          # groups in a column block of the backward product
    STEP_NS = 600            # least work of a step that is worth a barrier
    REGION_NS = 5000         # least work that is worth a parallel region, on any machine
    LINE = 64


cdef inline size_t lines(size_t bytes) noexcept nogil:
    """Rounded up to whole cache lines."""
    return (bytes + LINE - 1) // LINE * LINE


cdef inline char *data_of(cnp.ndarray array) noexcept:
    return NULL if array is None else <char *>cnp.PyArray_DATA(array)


cdef inline fa_size vectors_of(fa_size units, const kernel_table *kernels) noexcept nogil:
    return (units + kernels.lanes - 1) // kernels.lanes


cdef inline fa_size padded(fa_size units, const kernel_table *kernels) noexcept nogil:
    return vectors_of(units, kernels) * kernels.lanes


cdef inline fa_size groups_of(fa_size units, const kernel_table *kernels, const fa_cell *cell) noexcept nogil:
    return (vectors_of(units, kernels) + 3) // 4 if cell.kind == FA_RNN else vectors_of(units, kernels)


cdef inline fa_size state_width(fa_size units, const kernel_table *kernels, const fa_cell *cell) noexcept nogil:
    """Elements of a row of h or c: Hp."""
    return groups_of(units, kernels, cell) * kernels.lanes * (4 if cell.kind == FA_RNN else 1)


cdef inline fa_size slab_width(fa_size units, const kernel_table *kernels, const fa_cell *cell) noexcept nogil:
    """Elements of a row of all slabs."""
    return groups_of(units, kernels, cell) * kernels.lanes * COLUMNS


cdef inline double columns_of(const fa_cell *cell) noexcept nogil:
    """Columns that the products compute, per vector of units."""
    return 1 if cell.kind == FA_RNN else 3 if cell.kind == FA_GRU else 4


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

cdef class Cell:
    """What a layer's cells do between the products (fa_cell in src_c/recurrent.h).

    Parameters
    ----------
    kind : "LSTM", "GRU" or "RNN"
    row_ih, row_hh : tuple of int
        Of the four columns of the slabs: which block of H rows of the weights a column has, or -1.
    functions : list of Caller
        Activations of the columns and of an LSTM's output, each with a row in the table.
    coupled, peepholes : bool
    """
    cdef fa_cell args
    cdef readonly bint peepholes

    def __init__(self, str kind, tuple row_ih, tuple row_hh, list functions, bint coupled=False, bint peepholes=False):
        cdef int k, j
        cdef Caller function
        self.args.kind = {"LSTM": FA_LSTM, "GRU": FA_GRU, "RNN": FA_RNN}[kind]
        for k in range(COLUMNS):
            self.args.row_ih[k] = row_ih[k]
            self.args.row_hh[k] = row_hh[k]
        for k in range(FA_CELL_FUNCTIONS):
            function = functions[k]
            if function.index < 0:
                raise ValueError(f"{function.name}: expected an activation of the table")
            self.args.function[k] = function.index
            for j in range(FA_MAX_PARAMETERS):
                self.args.parameter[k][j] = function.values[j]
        self.args.coupled = coupled
        self.peepholes = peepholes
        self.args.plain = (
            kind == "LSTM" and row_ih == (0, 1, 2, 3) and not coupled and not peepholes
            and [function.name for function in functions] == ["sigmoid", "sigmoid", "tanh", "sigmoid", "tanh"])


cdef class PackedCell:
    """The weights of one layer in the layout of one instruction set (src_c/recurrent.h). Never changed once made."""
    cdef Workspace space
    cdef const kernel_table *kernels
    cdef readonly Cell cell
    cdef readonly fa_size input_size, hidden_size
    cdef readonly bint for_training
    cdef void *ih
    cdef void *hh
    cdef void *bias
    cdef void *peephole
    cdef void *hh_back
    cdef void *ih_back

    @property
    def current(self):
        """Whether the active instruction set is still the one of the layout."""
        return self.kernels == <const kernel_table *>active(0 if self.kernels.itemsize == 4 else 1)


cdef struct PackJob:
    const kernel_table *kernels
    fa_recurrent_pack args


cdef void pack_share(void *job, int rank, int size) noexcept nogil:
    cdef const kernel_table *kernels = (<PackJob *>job).kernels
    cdef const fa_recurrent_pack *args = &(<PackJob *>job).args
    cdef fa_size groups = groups_of(args.H, kernels, args.cell)
    kernels.recurrent.pack(args, groups * rank // size, groups * (rank + 1) // size)


cpdef bint unchanged(list made_of, dict attributes) except -1:
    """Whether weights are still those that a pack was made of: a list of (attribute, Parameter, its version then)."""
    cdef tuple entry
    for entry in made_of:
        if attributes.get(entry[0]) is not entry[1] or entry[1].version != entry[2]:
            return False
    return True


def pack_cell(Cell cell not None, bint training, cnp.ndarray weight_ih, cnp.ndarray weight_hh, cnp.ndarray bias_ih,
              cnp.ndarray bias_hh, cnp.ndarray weight_peephole):
    """Pack a layer's weights: (G H, I), (G H, H), (G H) or None twice, the peepholes or None; C-contiguous, of one dtype."""
    cdef PackedCell packed = PackedCell.__new__(PackedCell)
    cdef const kernel_table *kernels = <const kernel_table *>active(
        0 if cnp.PyArray_TYPE(weight_ih) == cnp.NPY_FLOAT32 else 1)
    cdef fa_size I = cnp.PyArray_DIM(weight_ih, 1), H = cnp.PyArray_DIM(weight_hh, 1)
    cdef fa_size row = slab_width(H, kernels, &cell.args) * kernels.itemsize
    cdef size_t n_ih = lines(I * row), n_hh = lines(H * row), n_bias = 2 * lines(row)  # with room for the peepholes
    cdef size_t n_hh_back = lines(padded(H, kernels) * row), n_ih_back = lines(padded(I, kernels) * row)
    cdef Workspace space = Workspace(n_ih + n_hh + n_bias + (n_hh_back + n_ih_back if training else 0))
    cdef char *p = space.data
    cdef PackJob job
    cdef fa_recurrent_pack *args = &job.args
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
    packed.cell = cell
    packed.peephole = NULL if weight_peephole is None else p + n_ih + n_hh + lines(row)
    packed.hh_back = p + n_ih + n_hh + n_bias if training else NULL
    packed.ih_back = p + n_ih + n_hh + n_bias + n_hh_back if training else NULL
    args.inputs = I
    args.H = H
    args.cell = &cell.args
    args.weight_peephole = data_of(weight_peephole)
    args.peephole = packed.peephole
    args.weight_ih = cnp.PyArray_DATA(weight_ih)
    args.weight_hh = cnp.PyArray_DATA(weight_hh)
    args.bias_ih = data_of(bias_ih)
    args.bias_hh = data_of(bias_hh)
    args.ih = packed.ih
    args.hh = packed.hh
    args.bias = packed.bias
    args.hh_back = packed.hh_back
    args.ih_back = packed.ih_back
    n = threads_for((I + H) * row * (0.05 if training else 0.03), <int>groups_of(H, kernels, &cell.args))
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


cdef inline double step_ns(const kernel_table *kernels, fa_size B, fa_size I, fa_size H, double columns) noexcept nogil:
    """Cost of a forward step on one thread, about."""
    return B * H * columns * (2.0 * (I + H) / 12.5 + 3.5) / kernels.lanes


cdef Plan plan_threads(const kernel_table *kernels, fa_size T, fa_size B, fa_size I, fa_size H, fa_size groups,
                       double columns, double passes, bint ragged) noexcept nogil:
    """How a pass is cut. ``passes``: 1 for forward, 2 for backward, in units of the forward product; ``groups`` that can
    be cut, ``columns`` of the products."""
    cdef Plan plan
    cdef double each_ns = step_ns(kernels, B, I, H, columns) * passes
    cdef int limit
    if passes > 1:
        groups = (groups + TILE_GROUPS - 1) // TILE_GROUPS
    if forced.threads > 0:
        plan = forced
        plan.by_rows = plan.by_rows and not ragged
        plan.threads = <int>min(plan.threads, max(1, B // ROWS_EACH if plan.by_rows else groups))
        return plan
    plan.threads = 1
    plan.by_rows = True
    if each_ns * T < REGION_NS or threads_limit() < 2:
        return plan
    if not ragged:
        plan.threads = threads_for(each_ns * T, <int>min(B // ROWS_EACH, FA_TEAM_MAX))
    if groups >= 2 * plan.threads and each_ns >= STEP_NS * plan.threads:
        limit = threads_for(each_ns * T, <int>min(groups, FA_TEAM_MAX))
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
    fa_recurrent_forward args
    fa_size begin, end      # steps
    fa_size hoist_steps     # steps of the input product done at a time, a divisor of the slabs' ring
    Plan plan
    fa_barrier barrier


cdef void prepare_forward(ForwardJob *job, PackedCell cell, fa_size B) noexcept:
    """All that does not depend on the sequences and on where things are."""
    cdef fa_recurrent_forward *args = &job.args
    memset(job, 0, sizeof(ForwardJob))
    job.kernels = cell.kernels
    args.B = B
    args.inputs = cell.input_size
    args.H = cell.hidden_size
    args.cell = &cell.cell.args
    args.ih = cell.ih
    args.hh = cell.hh
    args.bias = cell.bias
    args.peephole = cell.peephole
    args.hoisted = B < IN_STEP_BATCH


cdef void forward_share(void *of, int rank, int size) noexcept nogil:
    cdef ForwardJob *job = <ForwardJob *>of
    cdef const fa_recurrent_forward *args = &job.args
    cdef fa_recurrent_share share = share_of(
        job.plan, args.B, groups_of(args.H, job.kernels, args.cell), 1, rank, size)
    cdef bint meet = size > 1 and not job.plan.by_rows
    cdef unsigned met = 0
    cdef fa_size t, begin = job.begin, end
    while begin < job.end:
        end = min(job.end, begin + job.hoist_steps)
        if args.hoisted:  # the share's own groups and rows are all that its steps read: no barrier
            job.kernels.recurrent.input(args, &share, begin, end)
        for t in range(begin, end):
            job.kernels.recurrent.step(args, &share, t)
            if meet:
                fa_barrier_wait(&job.barrier, rank, size, &met)
        begin = end


cdef void load_state(char *rows, const char *state, fa_size B, size_t n, size_t n_padded) noexcept nogil:
    """(B, H) into [B][Hp], n and n_padded bytes a row, padded with zeros; a NULL state is zero."""
    cdef fa_size b
    if state == NULL or n != n_padded:
        memset(rows, 0, B * n_padded)
    if state != NULL:
        if n == n_padded:
            memcpy(rows, state, B * n)
        else:
            for b in range(B):
                memcpy(rows + b * n_padded, state + b * n, n)


cdef void save_state(const char *rows, char *state, fa_size B, size_t n, size_t n_padded) noexcept nogil:
    """[B][Hp] into (B, H)."""
    cdef fa_size b
    if n == n_padded:
        memcpy(state, rows, B * n)
    else:
        for b in range(B):
            memcpy(state + b * n, rows + b * n_padded, n)


cdef cnp.ndarray rows_in_place(cnp.ndarray x):
    """x itself if the last axis is contiguous and everything lies at whole elements, else a copy."""
    cdef int axis, last = cnp.PyArray_NDIM(x) - 1
    cdef fa_size size = cnp.PyArray_ITEMSIZE(x)
    cdef bint usable = cnp.PyArray_ISALIGNED(x) and (
        cnp.PyArray_STRIDE(x, last) == size or cnp.PyArray_DIM(x, last) == 1)
    for axis in range(last):
        usable = usable and cnp.PyArray_STRIDE(x, axis) % size == 0
    return x if usable else np.array(x, order="C")


cdef inline fa_size starts_at(const fa_size *starts, fa_size B, fa_size t) noexcept nogil:
    """The first row of step t where the rows of all steps stand one behind the other."""
    return starts[t] if starts != NULL else t * B


cdef inline fa_size state_row(const fa_size *starts, fa_size B, fa_size slot, fa_size ring) noexcept nogil:
    """The first row of a slot of h or c."""
    return (slot & ring) * B if ring >= 0 else starts_at(starts, B, slot - 1) + B


cdef inline fa_size stride_of(cnp.ndarray rows, int axis) noexcept:
    """Elements between two steps, or two rows; 0 along an axis that is not there (-1)."""
    return 0 if axis < 0 else cnp.PyArray_STRIDE(rows, axis) // cnp.PyArray_ITEMSIZE(rows)


cdef void save_final(const char *rows, char *state, const fa_size *starts, fa_size ring, fa_size T, fa_size B,
                     size_t n, size_t n_padded) noexcept nogil:
    """The state of each sequence after its last step into (B, H)."""
    cdef fa_size slot, begin, end = B
    if state == NULL:
        return
    for slot in range(0 if starts != NULL else T, T + 1):  # sequences of so many steps, the shortest stand last
        begin = 0 if slot == T else starts_at(starts, B, slot + 1) - starts_at(starts, B, slot)
        save_state(rows + (state_row(starts, B, slot, ring) + begin) * n_padded, state + begin * n, end - begin, n,
                   n_padded)
        end = begin


cdef class Tape:
    """What a forward pass leaves for its backward pass."""
    cdef readonly PackedCell cell
    cdef Workspace space        # slabs of all steps, then h, then c
    cdef readonly object x
    cdef readonly object starts
    cdef readonly fa_size T, B
    cdef bint time_major        # x, and dy and dx alike

    cdef const fa_size *starts_data(self) noexcept:
        cdef const fa_size *before = NULL
        if self.starts is None:
            return NULL
        before = <const fa_size *>cnp.PyArray_DATA(<cnp.ndarray>self.starts)
        return before + 1

    cdef fa_size rows(self) noexcept:
        return starts_at(self.starts_data(), self.B, self.T)

    cdef char *states(self, int which) noexcept:
        """All slots of h (0) or c (1)."""
        cdef const kernel_table *kernels = self.cell.kernels
        cdef fa_size H = self.cell.hidden_size, size = kernels.itemsize
        cdef const fa_cell *cell = &self.cell.cell.args
        return (self.space.data + lines(self.rows() * slab_width(H, kernels, cell) * size)
                + which * lines((self.B + self.rows()) * state_width(H, kernels, cell) * size))

    def sequence(self, int which=0):
        """h (0) or c (1) after each step, (T, B, H), or (N, H) if ragged; in place, not to be written."""
        cdef const kernel_table *kernels = self.cell.kernels
        cdef fa_size Hp = state_width(self.cell.hidden_size, kernels, &self.cell.cell.args)
        cdef cnp.npy_intp dims[2]
        dims[0] = self.rows()
        dims[1] = Hp
        rows = cnp.PyArray_SimpleNewFromData(
            2, dims, cnp.NPY_FLOAT32 if kernels.itemsize == 4 else cnp.NPY_FLOAT64,
            self.states(which) + self.B * Hp * kernels.itemsize)
        cnp.set_array_base(rows, self.space)
        rows = rows[:, :self.cell.hidden_size]
        return rows if self.starts is not None else rows.reshape(self.T, self.B, self.cell.hidden_size)

    def gates(self):
        """The columns of all steps, a copy (4, T, B, H) or (4, N, H), before ``backward_pass`` turns them into gradients.

        Not of an RNN, whose columns are units.
        """
        cdef const kernel_table *kernels = self.cell.kernels
        cdef cnp.npy_intp dims[4]
        dims[0] = vectors_of(self.cell.hidden_size, kernels)
        dims[1] = self.rows()
        dims[2] = COLUMNS
        dims[3] = kernels.lanes
        slabs = cnp.PyArray_SimpleNewFromData(
            4, dims, cnp.NPY_FLOAT32 if kernels.itemsize == 4 else cnp.NPY_FLOAT64, self.space.data)
        units = slabs.transpose(2, 1, 0, 3).reshape(COLUMNS, dims[1], -1)[:, :, :self.cell.hidden_size].copy()
        return units if self.starts is not None else units.reshape(COLUMNS, self.T, self.B, self.cell.hidden_size)


cdef inline fa_size next_power_of_2(fa_size n) noexcept nogil:
    cdef fa_size power = 1
    while power < n:
        power *= 2
    return power


cdef inline char *state_of(tuple states, int letter) noexcept:
    """Where h (0) or c (1) of a tuple (h, c) begins; NULL for what is not there."""
    return NULL if states is None or letter >= len(states) else <char *>cnp.PyArray_DATA(<cnp.ndarray>states[letter])


def forward_pass(PackedCell cell not None, cnp.ndarray x not None, cnp.ndarray y, tuple initial, tuple final,
                 cnp.ndarray starts, bint training, bint time_major=True):
    """One layer and direction over x.

    Parameters
    ----------
    x : array of shape (T, B, I), or (B, T, I) without ``time_major``, or (N, I) if ragged
        Read in place if its last axis is contiguous; the others may run backwards.
    y : array of shape (T, B, H), (B, T, H) or (N, H) alike; or None
        The same; filled.
    initial, final : (h, c), arrays of B * H elements, or None
        C-contiguous; the final state is filled.
    starts : array of shape (T + 2,) of intp, or None
        Of ragged sequences, longest first: -B, then the first row of each step in x and y, and N; see src_c/recurrent.h.

    Returns
    -------
    Tape or None
        In training, what ``backward_pass`` takes.
    """
    cdef bint ragged = starts is not None
    cdef int time_axis = -1 if ragged else 0 if time_major else 1, batch_axis = 0 if ragged else 1 - time_axis
    cdef fa_size T = cnp.PyArray_DIM(starts, 0) - 2 if ragged else cnp.PyArray_DIM(x, time_axis)
    cdef fa_size B = -(<const fa_size *>cnp.PyArray_DATA(starts))[0] if ragged else cnp.PyArray_DIM(x, batch_axis)
    cdef const fa_size *starts_data = NULL
    cdef fa_size size = cell.kernels.itemsize, I = cell.input_size, H = cell.hidden_size
    cdef const fa_cell *kind = &cell.cell.args
    cdef fa_size Hp = state_width(H, cell.kernels, kind), width = slab_width(H, cell.kernels, kind), steps
    cdef bint has_c = kind.kind == FA_LSTM
    cdef int axes = 2 if ragged else 3
    cdef const kernel_table *kernels = cell.kernels
    cdef Workspace space
    cdef Tape tape
    cdef ForwardJob job
    cdef fa_recurrent_forward *args = &job.args
    cdef double bytes_at_most
    cdef size_t n_slabs, n_h, state_bytes = B * Hp * size
    cdef const char *h_first = state_of(initial, 0)
    cdef const char *c_first = state_of(initial, 1)
    cdef char *h_last = state_of(final, 0)
    cdef char *c_last = state_of(final, 1)

    if ragged:
        starts_data = <const fa_size *>cnp.PyArray_DATA(starts)
        starts_data += 1
    x = rows_in_place(x)
    if (
        cnp.PyArray_NDIM(x) != axes or cnp.PyArray_DIM(x, axes - 1) != I or cnp.PyArray_ITEMSIZE(x) != size
        or (y is not None and (cnp.PyArray_NDIM(y) != axes or cnp.PyArray_DIM(y, axes - 1) != H))
    ):
        raise ValueError("x, y: expected the sizes and the type that the weights were packed with")
    # An array of stride 0 may have more steps than memory has bytes: no size below, nor of the backward pass, overflows.
    bytes_at_most = (T + 2.0) * B * size * (width + 3.0 * Hp + padded(I, kernels))
    if bytes_at_most > 1LL << 62:
        raise no_memory(bytes_at_most)
    prepare_forward(&job, cell, B)
    job.end = T
    job.plan = plan_threads(kernels, T, B, I, H, groups_of(H, kernels, kind), columns_of(kind), 1, ragged)
    args.T = T
    args.starts = starts_data
    args.x = cnp.PyArray_DATA(x)
    args.x_t = stride_of(x, time_axis)
    args.x_b = stride_of(x, batch_axis)
    args.y = data_of(y)
    if y is not None:
        args.y_t = stride_of(y, time_axis)
        args.y_b = stride_of(y, batch_axis)
    args.keep_gates = training

    # Rings of the state and of the hoisted input product; in training each step keeps its own slot.
    steps = next_power_of_2(max(1, HOIST_ROWS // max(B, 1)))
    if T < steps:
        steps = next_power_of_2(max(T, 1))
    job.hoist_steps = steps
    args.h_ring = -1 if training else 1
    args.c_ring = -1 if training else 0
    args.slab_ring = -1 if training else steps - 1
    args.slab_rows = starts_at(starts_data, B, T) if training else steps * B if args.hoisted else 0
    n_slabs = lines(args.slab_rows * width * size)
    n_h = lines((starts_at(starts_data, B, T) + B) * Hp * size if training else 2 * state_bytes)
    space = Workspace(n_slabs + n_h + (0 if not has_c else n_h if training else lines(state_bytes)))
    args.slabs = space.data
    args.h = space.data + n_slabs
    args.c = space.data + n_slabs + n_h
    with nogil:
        load_state(<char *>args.h, h_first, B, H * size, Hp * size)
        if has_c:
            load_state(<char *>args.c, c_first, B, H * size, Hp * size)
        fa_barrier_init(&job.barrier)
        run_team(forward_share, &job, job.plan.threads)
        save_final(<char *>args.h, h_last, starts_data, args.h_ring, T, B, H * size, Hp * size)
        save_final(<char *>args.c, c_last, starts_data, args.c_ring, T, B, H * size, Hp * size)
    if not training:
        return None
    tape = Tape.__new__(Tape)
    tape.cell = cell
    tape.space = space
    tape.x = x
    tape.starts = starts
    tape.T = T
    tape.B = B
    tape.time_major = time_major
    return tape


# ---- step by step ----------------------------------------------------------------------------------------------------

cdef ForwardJob *begin_steps(object cell, fa_size B, char *memory) except NULL:
    """A forward pass that stops after each step, from a zero state, in ``steps_bytes`` of memory: the same kernels and
    the same bits as ``forward_pass`` without training. The cell must outlive it."""
    cdef PackedCell packed = cell
    cdef ForwardJob *job = <ForwardJob *>memory
    cdef fa_recurrent_forward *args = &job.args
    cdef size_t state_bytes
    prepare_forward(job, packed, B)
    state_bytes = lines(B * step_width(job) * job.kernels.itemsize)
    memory += lines(sizeof(ForwardJob))
    job.hoist_steps = 1
    args.T = 1
    args.h_ring = 1
    args.h = memory
    args.c = memory + 2 * state_bytes
    args.slabs = memory + 3 * state_bytes
    args.slab_rows = B
    reset_steps(job)
    return job


cdef size_t steps_bytes(object cell, fa_size B) except 0:
    cdef PackedCell packed = cell
    cdef const kernel_table *kernels = packed.kernels
    cdef fa_size H = packed.hidden_size
    cdef const fa_cell *kind = &packed.cell.args
    return (lines(sizeof(ForwardJob)) + 3 * lines(B * state_width(H, kernels, kind) * kernels.itemsize)
            + lines(B * slab_width(H, kernels, kind) * kernels.itemsize))


cdef void run_step(ForwardJob *job, const void *x, fa_size x_row) noexcept nogil:
    """The next step, for the B rows of x, ``x_row`` elements apart."""
    cdef const fa_recurrent_forward *args = &job.args
    job.plan = plan_threads(job.kernels, 1, args.B, args.inputs, args.H,
                            groups_of(args.H, job.kernels, args.cell), columns_of(args.cell), 1, False)
    job.args.x = x
    job.args.x_b = x_row
    if job.plan.threads > 1:
        fa_barrier_init(&job.barrier)
    job.end = job.begin + 1
    run_team(forward_share, job, job.plan.threads)
    job.begin = job.end & 1     # which of the two slots of h is next


cdef double step_cost(const ForwardJob *job) noexcept nogil:
    """Nanoseconds of a step on one thread, about."""
    cdef const fa_recurrent_forward *args = &job.args
    return step_ns(job.kernels, args.B, args.inputs, args.H, columns_of(args.cell))


cdef fa_size step_width(const ForwardJob *job) noexcept nogil:
    """Elements of a row of h as ``step_output`` gives it."""
    return state_width(job.args.H, job.kernels, job.args.cell)


cdef const char *step_output(const ForwardJob *job) noexcept nogil:
    """h after the last step: B rows."""
    return <const char *>job.args.h + job.begin * job.args.B * step_width(job) * job.kernels.itemsize


cdef char *step_state(const ForwardJob *job, int letter) noexcept nogil:
    return <char *>step_output(job) if letter == 0 else <char *>job.args.c


cdef void reset_steps(ForwardJob *job) noexcept nogil:
    load_steps(job, 0, NULL)
    load_steps(job, 1, NULL)


cdef void load_steps(ForwardJob *job, int letter, const char *state) noexcept nogil:
    """h (0) or c (1) from (B, H); NULL is zero."""
    cdef size_t size = job.kernels.itemsize
    load_state(step_state(job, letter), state, job.args.B, job.args.H * size, step_width(job) * size)


cdef void save_steps(const ForwardJob *job, int letter, char *state) noexcept nogil:
    """h (0) or c (1) into (B, H)."""
    cdef size_t size = job.kernels.itemsize
    save_state(step_state(job, letter), state, job.args.B, job.args.H * size, step_width(job) * size)


# ---- backward --------------------------------------------------------------------------------------------------------

cdef struct BackwardJob:
    const kernel_table *kernels
    fa_recurrent_backward args
    fa_recurrent_gradient of_ih, of_hh
    fa_size chunk_steps
    Plan plan
    fa_barrier barrier


cdef void backward_share(void *of, int rank, int size) noexcept nogil:
    cdef BackwardJob *job = <BackwardJob *>of
    cdef const fa_recurrent_backward *args = &job.args
    cdef const fa_recurrent_kernels *kernels = &job.kernels.recurrent
    cdef fa_recurrent_share share = share_of(
        job.plan, args.B, vectors_of(args.H, job.kernels), TILE_GROUPS, rank, size)
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


def backward_pass(Tape tape not None, cnp.ndarray dy, tuple final, cnp.ndarray dx, bint dx_adds, tuple initial not None,
                  tuple gradients not None):
    """Backward pass of ``forward_pass``, once a tape.

    Parameters
    ----------
    dy : array of the shape of y, or None
        Read in place if its last axis is contiguous; the others may run backwards.
    final : (dh, dc), arrays of B * H elements, or None
        C-contiguous.
    dx : array of the shape of x, or None
        With a contiguous last axis; filled, or added to with ``dx_adds``.
    initial : (dh, dc), arrays of B * H elements
        C-contiguous; filled.
    gradients : (weight_ih, weight_hh, bias_ih, bias_hh, weight_peephole), the last three or None
        C-contiguous; added to.
    """
    cdef PackedCell cell = tape.cell
    cdef const kernel_table *kernels = cell.kernels
    cdef bint ragged = tape.starts is not None
    cdef int time_axis = -1 if ragged else 0 if tape.time_major else 1, batch_axis = 0 if ragged else 1 - time_axis
    cdef const fa_size *starts = tape.starts_data()
    cdef fa_size T = tape.T, B = tape.B, size = kernels.itemsize, I = cell.input_size, H = cell.hidden_size
    cdef const fa_cell *kind = &cell.cell.args
    cdef fa_size Hp = state_width(H, kernels, kind), rows
    cdef size_t state_bytes = lines(B * Hp * size), n_packed_ih
    cdef Workspace scratch
    cdef BackwardJob job
    cdef fa_recurrent_backward *args = &job.args
    cdef fa_recurrent_gradient *gradient
    cdef cnp.ndarray x
    cdef const char *dh_first = state_of(final, 0)
    cdef const char *dc_first = state_of(final, 1)
    cdef char *dh_last = state_of(initial, 0)
    cdef char *dc_last = state_of(initial, 1)

    if tape.space is None:
        raise RuntimeError("backward_pass: this tape has been used")
    x = tape.x
    job.kernels = kernels
    job.plan = plan_threads(kernels, T, B, I, H, vectors_of(H, kernels), columns_of(kind), 2, ragged)
    job.chunk_steps = max(1, min(T, (GRADIENT_ROWS + B - 1) // max(B, 1)))
    rows = job.chunk_steps * B
    n_packed_ih = lines(rows * padded(I, kernels) * size)
    scratch = Workspace(2 * state_bytes + n_packed_ih + lines(rows * padded(H, kernels) * size))

    args.T = T
    args.B = B
    args.inputs = I
    args.H = H
    args.starts = starts
    args.cell = kind
    args.hh_back = cell.hh_back
    args.ih_back = cell.ih_back
    args.peephole = cell.peephole
    args.slabs = tape.space.data
    args.slab_rows = tape.rows()
    args.h = tape.states(0)
    args.c = tape.states(1)
    args.dh = scratch.data
    args.dc = scratch.data + state_bytes
    args.dy = NULL
    if dy is not None:
        dy = rows_in_place(dy)
        args.dy = cnp.PyArray_DATA(dy)
        args.dy_t = stride_of(dy, time_axis)
        args.dy_b = stride_of(dy, batch_axis)
    args.dx = data_of(dx)
    args.dx_adds = dx_adds
    if dx is not None:
        args.dx_t = stride_of(dx, time_axis)
        args.dx_b = stride_of(dx, batch_axis)

    gradient = &job.of_ih
    gradient.B = B
    gradient.H = H
    gradient.K = I
    gradient.starts = starts
    gradient.cell = kind
    gradient.row = &kind.row_ih[0]
    gradient.a = cnp.PyArray_DATA(x)
    gradient.a_t = stride_of(x, time_axis)
    gradient.a_b = stride_of(x, batch_axis)
    gradient.a_starts = starts
    gradient.packed = scratch.data + 2 * state_bytes
    gradient.slabs = args.slabs
    gradient.slab_rows = args.slab_rows
    gradient.gradient = cnp.PyArray_DATA(<cnp.ndarray>gradients[0])
    gradient.bias_a = data_of(<cnp.ndarray>gradients[2])
    gradient.bias_b = data_of(<cnp.ndarray>gradients[3])
    gradient.c = args.c
    gradient.peephole = data_of(<cnp.ndarray>gradients[4])
    job.of_hh = job.of_ih
    gradient = &job.of_hh
    gradient.K = H
    gradient.row = &kind.row_hh[0]
    gradient.peephole = NULL
    gradient.a = tape.states(0)
    gradient.a_t = B * Hp
    gradient.a_b = Hp
    if ragged:  # h before step t stands B rows behind the rows of step t - 1
        gradient.a = <char *>gradient.a + B * Hp * size
        gradient.a_starts = starts - 1
    gradient.packed = scratch.data + 2 * state_bytes + n_packed_ih
    gradient.gradient = cnp.PyArray_DATA(<cnp.ndarray>gradients[1])
    gradient.bias_a = NULL
    gradient.bias_b = NULL
    with nogil:
        load_state(<char *>args.dh, dh_first, B, H * size, Hp * size)
        load_state(<char *>args.dc, dc_first, B, H * size, Hp * size)
        if B > 0:
            fa_barrier_init(&job.barrier)
            run_team(backward_share, &job, job.plan.threads)
        save_state(<char *>args.dh, dh_last, B, H * size, Hp * size)
        if dc_last != NULL:
            save_state(<char *>args.dc, dc_last, B, H * size, Hp * size)
    tape.space = None
    tape.x = None


def plan(dtype, fa_size T, fa_size B, fa_size I, fa_size H, double passes=1):
    """(threads, whether the batch is cut rather than the units) of an LSTM for a shape; ``passes`` 1 forward, 2 backward."""
    cdef const kernel_table *kernels = <const kernel_table *>active(0 if dtype == np.float32 else 1)
    cdef Plan found = plan_threads(kernels, T, B, I, H, vectors_of(H, kernels), 4, passes, False)
    return found.threads, bool(found.by_rows)
