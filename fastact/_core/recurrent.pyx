"""One recurrent layer in one direction over whole sequences: packed weights, the loop over time, the threads.

A pass opens one parallel region. Inside it each thread does its share of every step: rows of the batch, which needs no
barrier between steps, where each thread gets 3 rows or more; else groups of hidden units, with one spin barrier a step.
Units, too, where there are many weights for few rows: each core then has only its part of them to read (2 threads: 2-8 %
of a forward pass at batches of 8 and 16, H = 256 and 512). Not backward, where that costs 1-12 %: all of dZ is read.
Ragged sequences are always cut by units: rows would leave one thread with the long ones. The order of every summation
depends on the shape alone. Stacks, directions, merging and lengths are ``fastact/nn/recurrent.py``'s.

Measured on 2 cores of Zen 5 (AVX-512, float32), and the reason for the constants below: the input product belongs into
the step from a batch of 8 on (3-14 % faster; no buffer for it), before the loop below that (1.2-1.9 times faster at
batch 1) and where both matrices are more than the L3 keeps (1.6-1.8 times at (20, 8, 1024, 1024)); weight gradients are
summed over chunks of 192-768 rows while dZ is still in the cache (10-15 % against the whole sequence at once at
(100, 64, 256, 512)).
"""

from cython.parallel cimport parallel
from libc.math cimport INFINITY
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
    ctypedef enum fa_precision:
        FA_FULL, FA_BFLOAT16, FA_INT8
    fa_size fa_panel_rows(fa_precision precision, fa_size K)
    ctypedef enum fa_cell_kind:
        FA_LSTM, FA_GRU, FA_RNN
    ctypedef struct fa_cell:
        fa_cell_kind kind
        int plain
        int row_ih[4]
        int row_hh[4]
        int row_bias_hh[4]
        int coupled, full_gates, second
        double clip, cell_clip
        int layer_norm
        double norm_eps
        int function[FA_CELL_FUNCTIONS]
        double parameter[FA_CELL_FUNCTIONS][FA_MAX_PARAMETERS]
    ctypedef struct fa_recurrent_masks:
        const void *drop
        const void *take_h
        const void *take_c
        fa_size take_h_row, take_c_row
    ctypedef struct fa_recurrent_norm:
        const void *gain_ih
        const void *gain_hh
        const void *gain_c
        const void *shift_c
        void *ih
        void *hh
        fa_size hh_rows
        void *scale_ih
        void *scale_hh
        void *statistics_c
    ctypedef struct fa_recurrent_pack:
        fa_size inputs, H, P, R
        const fa_cell *cell
        fa_precision precision
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *weight_peephole
        const void *weight_gates
        const void *weight_second
        const void *norm_ih
        const void *norm_hh
        const void *norm_c
        const void *norm_c_shift
        void *peephole
        void *ih
        void *hh
        void *bias
        void *second
        void *hh_back
        void *ih_back
        void *second_back
        void *gain_ih
        void *gain_hh
        void *gain_c
        void *shift_c
    ctypedef struct fa_recurrent_forward:
        fa_size T, B, inputs, H, P, R
        const fa_size *starts
        const fa_cell *cell
        fa_precision precision
        const void *ih
        const void *hh
        const void *bias
        const void *peephole
        const void *second
        const void *x
        fa_size x_t, x_b
        void *y
        fa_size y_t, y_b
        void *h
        void *c
        fa_size h_ring, c_ring
        fa_recurrent_masks masks
        void *operand
        void *mid
        void *slabs
        fa_size slab_rows, slab_ring
        fa_recurrent_norm norm
        int hoisted, keep_gates
    ctypedef struct fa_recurrent_norm_gradient:
        void *c
        void *xhat_c
        void *sum_ih
        void *sum_hh
        void *sum_c
        void *sum_shift_c
        void *of_ih
        void *of_hh
        void *of_c
        void *of_shift_c
    ctypedef struct fa_recurrent_backward:
        fa_size T, B, inputs, H, P
        const fa_size *starts
        const fa_cell *cell
        const void *hh_back
        const void *ih_back
        const void *peephole
        const void *second_back
        const void *dy
        fa_size dy_t, dy_b
        void *dx
        fa_size dx_t, dx_b
        int dx_adds
        const void *h
        const void *c
        void *slabs
        fa_recurrent_norm norm
        fa_recurrent_norm_gradient norm_gradient
        fa_size slab_rows
        void *second_slabs
        void *dh
        void *dc
        void *dgates
        void *dmid
        void *past
        fa_recurrent_masks masks
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
        const void *gates
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
        void (*norm_gradient)(const fa_recurrent_backward *, int, int) noexcept nogil
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
    IN_STEP_BYTES = 1 << 24  # ... and up to so many bytes of weights
    HOIST_ROWS = 256         # rows of the input product done at a time in inference
    GRADIENT_ROWS = 384      # rows of a chunk of the weight gradients
    ROWS_EACH = 3            # least rows of the batch that a thread gets
    L2_BYTES = 1 << 20       # weights from which on cutting the units spares their way from the L3,
    L2_ROWS = 8              # ... for so many rows a thread; more rows hide the way of more weights
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


cdef inline double weight_bytes(const kernel_table *kernels, double columns, fa_size K, fa_size H) noexcept nogil:
    """Of a matrix of K columns in full precision."""
    return columns * H * K * kernels.itemsize


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
    clip, cell_clip : float
        Bounds of what goes into the gates and the candidate, and of an LSTM's c; infinity for none.
    full_gates : bool
        The gates of the step before are operands of the recurrent product.
    second : bool
        There is a second product in a step: an LSTM's projection, or that of r h in a GRU.
    zoneout : (float, float)
        Of h and c: how much of them stays as it was before a step, in inference.
    norm_eps : float
        Of layer normalisation; 0 for none.
    """
    cdef fa_cell args
    cdef fa_cell second_args    # the columns of the second product
    cdef int gate_rows[4]       # of the weights of full_gates
    cdef double zoneout[2]
    cdef readonly bint peepholes

    def __init__(self, str kind, tuple row_ih, tuple row_hh, list functions, bint coupled=False, bint peepholes=False,
                 double clip=INFINITY, double cell_clip=INFINITY, bint full_gates=False, bint second=False,
                 tuple zoneout=(0.0, 0.0), double norm_eps=0.0):
        cdef int k, j
        cdef Caller function
        self.args.kind = {"LSTM": FA_LSTM, "GRU": FA_GRU, "RNN": FA_RNN}[kind]
        for k in range(COLUMNS):
            self.args.row_ih[k] = row_ih[k]
            self.args.row_hh[k] = row_hh[k]
            self.args.row_bias_hh[k] = row_hh[k]
            self.second_args.row_ih[k] = self.second_args.row_hh[k] = self.second_args.row_bias_hh[k] = 0
        if kind == "GRU" and second:  # nothing acts on the candidate's product with its bias
            self.args.row_bias_hh[0] = row_ih[0]
        self.second_args.kind = FA_RNN
        self.gate_rows[:] = [0, 1, -1, 2]
        self.zoneout[0], self.zoneout[1] = zoneout
        for k in range(FA_CELL_FUNCTIONS):
            function = functions[k]
            if function.index < 0:
                raise ValueError(f"{function.name}: expected an activation of the table")
            self.args.function[k] = function.index
            for j in range(FA_MAX_PARAMETERS):
                self.args.parameter[k][j] = function.values[j]
        self.args.coupled = coupled
        self.args.full_gates = full_gates
        self.args.second = second
        self.args.clip = clip
        self.args.cell_clip = cell_clip
        self.args.layer_norm = norm_eps > 0
        self.args.norm_eps = norm_eps
        self.peepholes = peepholes
        self.args.plain = (
            kind == "LSTM" and row_ih == (0, 1, 2, 3) and not coupled and not peepholes
            and clip == INFINITY and cell_clip == INFINITY and not full_gates and not second
            and norm_eps == 0
            and [function.name for function in functions] == ["sigmoid", "sigmoid", "tanh", "sigmoid", "tanh"])

    cdef bint whole_rows(self) noexcept:
        """Whether no thread can do with a part of the units of a step."""
        return self.args.second or self.args.layer_norm

    cdef bint zones_out(self) noexcept:
        return self.zoneout[0] > 0 or self.zoneout[1] > 0


cdef class PackedCell:
    """The weights of one layer in the layout of one instruction set (src_c/recurrent.h). Never changed once made."""
    cdef Workspace space
    cdef const kernel_table *kernels
    cdef readonly Cell cell
    cdef readonly fa_size input_size, hidden_size, output_size   # I, H, P
    cdef fa_size operands       # R
    cdef readonly bint for_training
    cdef fa_precision precision
    cdef readonly size_t nbytes     # of all that is packed
    cdef void *ih
    cdef void *hh
    cdef void *bias
    cdef void *peephole
    cdef void *second
    cdef void *take_h           # rows of what zoneout takes in inference, or NULL
    cdef void *take_c
    cdef void *hh_back
    cdef void *ih_back
    cdef void *second_back
    cdef fa_recurrent_norm norm     # its gains

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
    """Whether a pack is still what it was made of: a list of (attribute, its Parameter, the version of that then)."""
    cdef tuple entry
    for entry in made_of:
        if attributes.get(entry[0]) is not entry[1] or entry[1].version != entry[2]:
            return False
    return True


def pack_cell(Cell cell not None, bint training, str precision, cnp.ndarray weight_ih, cnp.ndarray weight_hh,
              cnp.ndarray bias_ih, cnp.ndarray bias_hh, cnp.ndarray norm_ih=None, cnp.ndarray norm_hh=None,
              cnp.ndarray norm_c=None, cnp.ndarray norm_c_shift=None, cnp.ndarray weight_peephole=None,
              cnp.ndarray weight_gates=None, cnp.ndarray weight_hr=None):
    """Pack a layer's weights, C-contiguous, of one dtype: (G H, I), (G H, P), (G H) or None twice; of layer
    normalisation (G H) twice and (H) twice, or None; the peepholes or None, (3 H, 3 H) of full gate recurrence or None,
    the projection (P, H) or None. ``precision`` "bfloat16" or "int8" rounds float32 weights; not for training."""
    cdef PackedCell packed = PackedCell.__new__(PackedCell)
    cdef const kernel_table *kernels = <const kernel_table *>active(
        0 if cnp.PyArray_TYPE(weight_ih) == cnp.NPY_FLOAT32 else 1)
    cdef fa_size I = cnp.PyArray_DIM(weight_ih, 1), P = cnp.PyArray_DIM(weight_hh, 1), size = kernels.itemsize
    cdef fa_size H = P if weight_hr is None else cnp.PyArray_DIM(weight_hr, 1)
    cdef fa_size R = P + (0 if weight_gates is None else 3 * H), row = slab_width(H, kernels, &cell.args) * size
    cdef fa_size second_row = slab_width(P, kernels, &cell.second_args) * size if cell.args.second else 0
    cdef fa_precision rounded = {None: FA_FULL, "bfloat16": FA_BFLOAT16, "int8": FA_INT8}[precision]
    cdef size_t n_ih = lines(fa_panel_rows(rounded, I) * row), n_hh = lines(fa_panel_rows(rounded, R) * row)
    cdef size_t n_bias = 2 * lines(row)     # with room for the peepholes
    cdef size_t n_second = lines(fa_panel_rows(rounded, H) * second_row)
    cdef size_t n_hh_back = lines((padded(P, kernels) + (0 if weight_gates is None else 3 * padded(H, kernels))) * row)
    cdef size_t n_ih_back = lines(padded(I, kernels) * row), n_second_back = lines(padded(H, kernels) * second_row)
    cdef size_t n_take = lines(P * size), n_take_c = lines(H * size)
    cdef size_t n_gain = lines(row) if cell.args.layer_norm else 0
    cdef size_t all = n_ih + n_hh + n_bias + n_second + n_take + n_take_c + 3 * n_gain + (
        n_hh_back + n_ih_back + n_second_back if training else 0)
    cdef Workspace space = Workspace(all)
    cdef char *p = space.data
    cdef char *take = p + n_ih + n_hh + n_bias + n_second
    cdef char *gains = take + n_take + n_take_c     # of ih, of hh, then both of c, a quarter row each
    cdef char *back = gains + 3 * n_gain
    cdef PackJob job
    cdef fa_recurrent_pack *args = &job.args
    cdef int n
    if rounded != FA_FULL and (size != 4 or training):
        raise ValueError("precision: expected None for float64 weights and for training")
    job.kernels = kernels
    packed.space = space
    packed.kernels = kernels
    packed.cell = cell
    packed.input_size = I
    packed.hidden_size = H
    packed.output_size = P
    packed.operands = R
    packed.for_training = training
    packed.precision = rounded
    packed.nbytes = all
    packed.ih = p
    packed.hh = p + n_ih
    packed.bias = p + n_ih + n_hh
    packed.peephole = NULL if weight_peephole is None else p + n_ih + n_hh + lines(row)
    packed.second = p + n_ih + n_hh + n_bias
    packed.take_h = filled(take, 1 - cell.zoneout[0], P, size) if cell.zoneout[0] > 0 else NULL
    packed.take_c = filled(take + n_take, 1 - cell.zoneout[1], H, size) if cell.zoneout[1] > 0 else NULL
    packed.hh_back = back if training else NULL
    packed.ih_back = back + n_hh_back if training else NULL
    packed.second_back = back + n_hh_back + n_ih_back if training else NULL
    args.norm_ih = data_of(norm_ih)
    args.norm_hh = data_of(norm_hh)
    args.norm_c = data_of(norm_c)
    args.norm_c_shift = data_of(norm_c_shift)
    args.gain_ih = gains
    args.gain_hh = gains + n_gain
    args.gain_c = gains + 2 * n_gain
    args.shift_c = gains + 2 * n_gain + row // 2
    packed.norm.gain_ih = args.gain_ih
    packed.norm.gain_hh = args.gain_hh
    packed.norm.gain_c = args.gain_c
    packed.norm.shift_c = args.shift_c
    args.inputs = I
    args.H = H
    args.P = P
    args.R = R
    args.cell = &cell.args
    args.precision = rounded
    args.weight_ih = cnp.PyArray_DATA(weight_ih)
    args.weight_hh = cnp.PyArray_DATA(weight_hh)
    args.bias_ih = data_of(bias_ih)
    args.bias_hh = data_of(bias_hh)
    args.weight_peephole = data_of(weight_peephole)
    args.weight_gates = data_of(weight_gates)
    args.weight_second = second_weight(cell, H, data_of(weight_hh), data_of(weight_hr), size)
    args.peephole = packed.peephole
    args.ih = packed.ih
    args.hh = packed.hh
    args.bias = packed.bias
    args.second = packed.second
    args.hh_back = packed.hh_back
    args.ih_back = packed.ih_back
    args.second_back = packed.second_back
    n = threads_for((I + R) * row * (0.05 if training else 0.03), <int>groups_of(H, kernels, &cell.args))
    with nogil:
        run_team(pack_share, &job, n)
    return packed


cdef char *filled(char *row, double value, fa_size n, fa_size size) noexcept:
    cdef fa_size k
    for k in range(n):
        if size == 4:
            (<float *>row)[k] = <float>value
        else:
            (<double *>row)[k] = value
    return row


cdef inline char *second_weight(Cell cell, fa_size H, char *weight_hh, char *weight_hr, fa_size size) noexcept:
    """Of the second product, or its gradient: the projection, or the candidate's rows of a GRU's weight_hh."""
    if not cell.args.second:
        return NULL
    return weight_hh + 2 * H * H * size if cell.args.kind == FA_GRU else weight_hr


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
                       double columns, double passes, bint ragged, bint whole) noexcept nogil:
    """How a pass is cut. ``passes``: 1 for forward, 2 for backward, in units of the forward product; ``groups`` that can
    be cut, ``columns`` of the products; ``whole``: no thread can do with a part of the units."""
    cdef Plan plan
    cdef double each_ns = step_ns(kernels, B, I, H, columns) * passes
    cdef double weights = weight_bytes(kernels, columns, I + H, H)
    cdef int limit
    cdef bint even, heavy
    if whole:
        groups = 1
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
    if groups >= plan.threads and each_ns >= STEP_NS * plan.threads:
        limit = threads_for(each_ns * T, <int>min(groups, FA_TEAM_MAX))
        # Twice as many threads as rows allow; or as many, if that spares weights and leaves no thread a tenth more. All
        # of what the weights are multiplied with is read by each thread: h is small, dZ, backward, four times as much.
        even = 10 * limit * ((groups + limit - 1) // limit) <= 11 * groups
        heavy = passes == 1 and weights >= L2_BYTES * max(1.0, B / <double>(L2_ROWS * plan.threads))
        if limit >= 2 * plan.threads or (limit >= plan.threads > 1 and heavy and even):
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
    fa_cell cell            # the layer's, plain only if nothing is masked
    fa_recurrent_forward args
    fa_size begin, end      # steps
    bint before_steps       # where the input product belongs
    fa_size hoist_steps     # steps of the input product done at a time, a divisor of the slabs' ring
    Plan plan
    fa_barrier barrier


cdef void prepare_forward(ForwardJob *job, PackedCell cell, fa_size B) noexcept:
    """All of inference that does not depend on the sequences and on where things are."""
    cdef fa_recurrent_forward *args = &job.args
    memset(job, 0, sizeof(ForwardJob))
    job.kernels = cell.kernels
    job.cell = cell.cell.args
    job.cell.plain = job.cell.plain and not cell.cell.zones_out()
    args.B = B
    args.inputs = cell.input_size
    args.H = cell.hidden_size
    args.P = cell.output_size
    args.R = cell.operands
    args.cell = &job.cell
    args.precision = cell.precision
    args.ih = cell.ih
    args.hh = cell.hh
    args.bias = cell.bias
    args.peephole = cell.peephole
    args.second = cell.second
    args.masks.take_h = cell.take_h
    args.masks.take_c = cell.take_c
    args.norm = cell.norm
    job.before_steps = B < IN_STEP_BATCH or weight_bytes(
        cell.kernels, columns_of(&job.cell), cell.input_size + cell.operands, cell.hidden_size) > IN_STEP_BYTES
    args.hoisted = job.before_steps or job.cell.layer_norm


cdef struct NormBytes:
    size_t ih, hh, scale, c


cdef NormBytes norm_bytes(const fa_cell *cell, fa_size rows, fa_size row_bytes, fa_size size,
                          bint training) noexcept nogil:
    """What layer normalisation needs besides the slabs: of all rows in training, of one step in inference."""
    cdef NormBytes n
    memset(&n, 0, sizeof(n))
    if cell.layer_norm:
        n.hh = lines(rows * row_bytes)
        n.ih = n.hh if training else 0
        n.scale = lines(rows * size) if training else 0
        n.c = lines(2 * rows * size) if cell.kind == FA_LSTM else 0
    return n


cdef void place_norm(fa_recurrent_forward *args, NormBytes n, char *memory, bint training) noexcept nogil:
    args.norm.ih = memory if training else args.slabs
    args.norm.hh = memory + n.ih
    args.norm.hh_rows = args.slab_rows if training else args.B | 1
    args.norm.scale_ih = memory + n.ih + n.hh if training else NULL
    args.norm.scale_hh = memory + n.ih + n.hh + n.scale if training else NULL
    args.norm.statistics_c = memory + n.ih + n.hh + 2 * n.scale


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


cdef void load_columns(char *rows, const char *state, fa_size B, size_t n, size_t n_row) noexcept nogil:
    """(B, H) into some columns of rows; n and n_row bytes a row. NULL leaves them."""
    cdef fa_size b
    if state == NULL:
        return
    if n == n_row:
        memcpy(rows, state, B * n)
    else:
        for b in range(B):
            memcpy(rows + b * n_row, state + b * n, n)


cdef void load_state(char *rows, const char *state, fa_size B, size_t n, size_t n_padded) noexcept nogil:
    """(B, H) into [B][Hp], padded with zeros; a NULL state is zero."""
    if state == NULL or n != n_padded:
        memset(rows, 0, B * n_padded)
    load_columns(rows, state, B, n, n_padded)


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


cdef fa_recurrent_masks masks_of(tuple masks, fa_size P, fa_size H) noexcept:
    """The struct of (drop, take_h, take_c), each an array or None; ``take`` of one row is all rows'."""
    cdef fa_recurrent_masks found
    memset(&found, 0, sizeof(found))
    if masks is not None:
        found.drop = data_of(<cnp.ndarray>masks[0])
        found.take_h = data_of(<cnp.ndarray>masks[1])
        found.take_c = data_of(<cnp.ndarray>masks[2])
        found.take_h_row = 0 if masks[1] is None or masks[1].size == P else P
        found.take_c_row = 0 if masks[2] is None or masks[2].size == H else H
    return found


cdef class Tape:
    """What a forward pass leaves for its backward pass."""
    cdef readonly PackedCell cell
    cdef Workspace space        # slabs and states of all steps
    cdef char *h
    cdef char *c
    cdef char *operand          # what the recurrent product reads, if not h
    cdef char *mid              # what the second product reads
    cdef fa_recurrent_norm norm
    cdef readonly object x
    cdef readonly object starts
    cdef readonly tuple masks
    cdef readonly fa_size T, B
    cdef fa_size slab_rows
    cdef bint time_major        # x, and dy and dx alike

    cdef const fa_size *starts_data(self) noexcept:
        cdef const fa_size *before = NULL
        if self.starts is None:
            return NULL
        before = <const fa_size *>cnp.PyArray_DATA(<cnp.ndarray>self.starts)
        return before + 1

    cdef fa_size rows(self) noexcept:
        return starts_at(self.starts_data(), self.B, self.T)

    def sequence(self, int which=0):
        """h (0) or c (1) after each step, (T, B, P) or (T, B, H), or (N, .) if ragged; in place, not to be written."""
        cdef const kernel_table *kernels = self.cell.kernels
        cdef fa_size units = self.cell.hidden_size if which else self.cell.output_size
        cdef cnp.npy_intp dims[2]
        dims[0] = self.rows()
        dims[1] = state_width(units, kernels, &self.cell.cell.args)
        rows = cnp.PyArray_SimpleNewFromData(
            2, dims, cnp.NPY_FLOAT32 if kernels.itemsize == 4 else cnp.NPY_FLOAT64,
            (self.c if which else self.h) + self.B * dims[1] * kernels.itemsize)
        cnp.set_array_base(rows, self.space)
        rows = rows[:, :units]
        return rows if self.starts is not None else rows.reshape(self.T, self.B, units)

    def gates(self):
        """The columns of all steps, a copy (4, T, B, H) or (4, N, H), before ``backward_pass`` turns them into gradients.

        Not of an RNN, whose columns are units.
        """
        cdef const kernel_table *kernels = self.cell.kernels
        cdef cnp.npy_intp dims[4]
        dims[0] = vectors_of(self.cell.hidden_size, kernels)
        dims[1] = self.slab_rows
        dims[2] = COLUMNS
        dims[3] = kernels.lanes
        slabs = cnp.PyArray_SimpleNewFromData(
            4, dims, cnp.NPY_FLOAT32 if kernels.itemsize == 4 else cnp.NPY_FLOAT64, self.space.data)
        slabs = slabs[:, :self.rows()]
        units = slabs.transpose(2, 1, 0, 3).reshape(COLUMNS, self.rows(), -1)[:, :, :self.cell.hidden_size].copy()
        return units if self.starts is not None else units.reshape(COLUMNS, self.T, self.B, self.cell.hidden_size)


cdef inline fa_size next_power_of_2(fa_size n) noexcept nogil:
    cdef fa_size power = 1
    while power < n:
        power *= 2
    return power


cdef inline char *item_data(tuple arrays, int which) noexcept:
    """Where an array of a tuple begins; NULL for what is not there."""
    return NULL if arrays is None or which >= len(arrays) else data_of(<cnp.ndarray>arrays[which])


def forward_pass(PackedCell cell not None, cnp.ndarray x not None, cnp.ndarray y, tuple initial, tuple final,
                 cnp.ndarray starts, bint training, bint time_major=True, tuple masks=None):
    """One layer and direction over x.

    Parameters
    ----------
    x : array of shape (T, B, I), or (B, T, I) without ``time_major``, or (N, I) if ragged
        Read in place if its last axis is contiguous; the others may run backwards.
    y : array of shape (T, B, P), (B, T, P) or (N, P) alike; or None
        The same; filled.
    initial, final : (h, c, i, f, o), as far as the cell has them, arrays (1, B, P) or (1, B, H), or None
        C-contiguous; the final state is filled. i, f, o are the gates, of full gate recurrence.
    starts : array of shape (T + 2,) of intp, or None
        Of ragged sequences, longest first: -B, then the first row of each step in x and y, and N; see src_c/recurrent.h.
    masks : (drop, take_h, take_c), or None
        fa_recurrent_masks: C-contiguous arrays of the layer's type, each or None: (B, P); for h and c
        (T, B, .), (N, .) or (1, .). Without, zoneout takes what it expects.

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
    cdef const kernel_table *kernels = cell.kernels
    cdef const fa_cell *kind = &cell.cell.args
    cdef fa_size size = kernels.itemsize, I = cell.input_size, H = cell.hidden_size, P = cell.output_size, steps
    cdef fa_size Hp = state_width(H, kernels, kind), Pp = state_width(P, kernels, kind)
    cdef fa_size Rp = state_width(cell.operands, kernels, kind), width = slab_width(H, kernels, kind)
    cdef bint has_c = kind.kind == FA_LSTM, needs_slabs
    cdef int axes = 2 if ragged else 3, k
    cdef Workspace space
    cdef Tape tape
    cdef ForwardJob job
    cdef fa_recurrent_forward *args = &job.args
    cdef double bytes_at_most
    cdef size_t n_slabs, n_h, n_c, n_operand, n_mid, slots
    cdef NormBytes n
    cdef cnp.ndarray seen_first = None

    if B == 0:  # an empty array may have 2^60 steps
        T = 0
    if ragged:
        starts_data = <const fa_size *>cnp.PyArray_DATA(starts)
        starts_data += 1
    x = rows_in_place(x)
    if (
        cnp.PyArray_NDIM(x) != axes or cnp.PyArray_DIM(x, axes - 1) != I or cnp.PyArray_ITEMSIZE(x) != size
        or (y is not None and (cnp.PyArray_NDIM(y) != axes or cnp.PyArray_DIM(y, axes - 1) != P))
    ):
        raise ValueError("x, y: expected the sizes and the type that the weights were packed with")
    # An array of stride 0 may have more steps than memory has bytes: no size below, nor of the backward pass, overflows.
    bytes_at_most = (T + 2.0) * B * size * (
        (5.0 if kind.layer_norm else 2.0) * width + Pp + Rp + 8.0 * Hp + padded(I, kernels))
    if bytes_at_most > 1LL << 62:
        raise no_memory(bytes_at_most)
    prepare_forward(&job, cell, B)
    if masks is not None:
        args.masks = masks_of(masks, P, H)
        job.cell.plain = False
    job.end = T
    job.plan = plan_threads(
        kernels, T, B, I, H, groups_of(H, kernels, kind), columns_of(kind), 1, ragged, cell.cell.whole_rows())
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

    # Rings of the state and of the hoisted input product; in training each step keeps its own slot. Where the product
    # could be part of the step and stands before it only to be normalised, one step at a time: its rows stay in L2.
    steps = next_power_of_2(max(1, HOIST_ROWS // max(B, 1))) if job.before_steps else 1
    if T < steps:
        steps = next_power_of_2(max(T, 1))
    job.hoist_steps = steps
    args.h_ring = -1 if training else 1
    args.c_ring = -1 if training else 0
    args.slab_ring = -1 if training else steps - 1
    needs_slabs = args.hoisted or (kind.second and kind.kind == FA_GRU)  # whose gates wait for the candidate
    args.slab_rows = starts_at(starts_data, B, T) if training else steps * B if needs_slabs else 0
    if kind.layer_norm:  # odd: the groups of a row lie in different sets of L1
        args.slab_rows |= 1
    slots = starts_at(starts_data, B, T) + B if training else 2 * B  # of h
    n_slabs = lines(args.slab_rows * width * size)
    n_h = lines(slots * Pp * size)
    n_c = 0 if not has_c else lines((slots if training else B) * Hp * size)
    n_operand = lines(slots * Rp * size) if args.masks.drop != NULL or kind.full_gates else 0
    n_mid = lines(slots * Hp * size) if kind.second else 0
    n = norm_bytes(kind, args.slab_rows if training else B | 1, width * size, size, training)
    space = Workspace(n_slabs + n_h + n_c + n_operand + n_mid + n.ih + n.hh + 2 * n.scale + n.c)
    args.slabs = space.data
    args.h = space.data + n_slabs
    args.c = space.data + n_slabs + n_h
    args.operand = space.data + n_slabs + n_h + n_c if n_operand > 0 else NULL
    args.mid = space.data + n_slabs + n_h + n_c + n_operand
    place_norm(args, n, space.data + n_slabs + n_h + n_c + n_operand + n_mid, training)
    if args.masks.drop != NULL and initial is not None:
        seen_first = initial[0].reshape(B, P) * masks[0]
    elif initial is not None:
        seen_first = initial[0]
    load_state(<char *>args.h, item_data(initial, 0), B, P * size, Pp * size)
    if has_c:
        load_state(<char *>args.c, item_data(initial, 1), B, H * size, Hp * size)
    if args.operand != NULL:
        memset(args.operand, 0, B * Rp * size)
        load_columns(<char *>args.operand, data_of(seen_first), B, P * size, Rp * size)
        for k in range(3 if kind.full_gates else 0):
            load_columns(<char *>args.operand + (P + k * H) * size, item_data(initial, 2 + k), B, H * size, Rp * size)
    with nogil:
        fa_barrier_init(&job.barrier)
        run_team(forward_share, &job, job.plan.threads)
    save_final(<char *>args.h, item_data(final, 0), starts_data, args.h_ring, T, B, P * size, Pp * size)
    save_final(<char *>args.c, item_data(final, 1), starts_data, args.c_ring, T, B, H * size, Hp * size)
    for k in range(3 if kind.full_gates else 0):
        save_final(<char *>args.operand + (P + k * H) * size, item_data(final, 2 + k), starts_data, args.h_ring, T, B,
                   H * size, Rp * size)
    if not training:
        return None
    tape = Tape.__new__(Tape)
    tape.cell = cell
    tape.space = space
    tape.h = <char *>args.h
    tape.c = <char *>args.c
    tape.operand = <char *>args.operand
    tape.mid = <char *>args.mid
    tape.norm = args.norm
    tape.x = x
    tape.starts = starts
    tape.masks = masks
    tape.slab_rows = args.slab_rows
    tape.T = T
    tape.B = B
    tape.time_major = time_major
    return tape


# ---- rows of ragged sequences ----------------------------------------------------------------------------------------

cdef struct RowsJob:
    const char *source
    char *out
    const fa_size *index
    fa_size n
    size_t bytes            # of a row
    ptrdiff_t source_row, out_row


cdef void take_share(void *of, int rank, int size) noexcept nogil:
    cdef const RowsJob *job = <const RowsJob *>of
    cdef fa_size i, end = job.n * (rank + 1) // size
    for i in range(job.n * rank // size, end):
        if job.index[i] < 0:
            memset(job.out + i * job.out_row, 0, job.bytes)
        else:
            memcpy(job.out + i * job.out_row, job.source + job.index[i] * job.source_row, job.bytes)


def take_rows(cnp.ndarray source not None, cnp.ndarray index not None, cnp.ndarray out not None):
    """``out[i] = source[index[i]]``, zeros for a negative index: source (N, K), out (M, K), index (M,) of intp.

    Rows may be any distance apart; their elements are contiguous, and out has no part in source.
    """
    cdef RowsJob job
    cdef int threads
    cdef fa_size n = cnp.PyArray_DIM(source, 0), K = cnp.PyArray_DIM(out, 1), size = cnp.PyArray_ITEMSIZE(out)
    cdef bint fits = (
        cnp.PyArray_TYPE(source) == cnp.PyArray_TYPE(out) and cnp.PyArray_TYPE(index) == cnp.NPY_INTP
        and cnp.PyArray_NDIM(source) == 2 and cnp.PyArray_NDIM(out) == 2 and cnp.PyArray_NDIM(index) == 1
        and cnp.PyArray_DIM(source, 1) == K and cnp.PyArray_DIM(index, 0) == cnp.PyArray_DIM(out, 0)
        and cnp.PyArray_CHKFLAGS(index, cnp.NPY_ARRAY_CARRAY_RO) and cnp.PyArray_ISWRITEABLE(out)
        and (K < 2 or cnp.PyArray_SIZE(index) == 0
             or (cnp.PyArray_STRIDE(source, 1) == size and cnp.PyArray_STRIDE(out, 1) == size))
    )
    if not fits:
        raise ValueError("source, index, out: expected (N, K), (M,) of intp and (M, K) with contiguous rows of one type")
    if cnp.PyArray_SIZE(index) and index.max() >= n:
        raise IndexError(f"index: expected less than N = {n}, got {index.max()}")
    job.source = data_of(source)
    job.out = data_of(out)
    job.index = <const fa_size *>cnp.PyArray_DATA(index)
    job.n = cnp.PyArray_DIM(index, 0)
    job.bytes = K * size
    job.source_row = cnp.PyArray_STRIDE(source, 0)
    job.out_row = cnp.PyArray_STRIDE(out, 0)
    threads = threads_for(job.n * (2 + 0.05 * job.bytes), <int>min(job.n, FA_TEAM_MAX))
    with nogil:
        run_team(take_share, &job, threads)


# ---- step by step ----------------------------------------------------------------------------------------------------

cdef ForwardJob *begin_steps(object cell, fa_size B, char *memory) except NULL:
    """A forward pass that stops after each step, from a zero state, in ``steps_bytes`` of memory: the same kernels and
    the same bits as ``forward_pass`` without training. The cell must outlive it."""
    cdef PackedCell packed = cell
    cdef ForwardJob *job = <ForwardJob *>memory
    cdef fa_recurrent_forward *args = &job.args
    cdef StepBytes n
    prepare_forward(job, packed, B)
    n = step_memory(packed, B)
    memory += lines(sizeof(ForwardJob))
    job.hoist_steps = 1
    args.T = 1
    args.h_ring = 1
    args.h = memory
    args.c = memory + n.h
    args.operand = memory + n.h + n.c if n.operand > 0 else NULL
    args.mid = memory + n.h + n.c + n.operand
    args.slabs = memory + n.h + n.c + n.operand + n.mid
    args.slab_rows = B
    place_norm(args, n.norm, <char *>args.slabs + n.slabs, False)
    reset_steps(job)
    return job


cdef struct StepBytes:
    size_t h, c, operand, mid, slabs, all
    NormBytes norm


cdef StepBytes step_memory(PackedCell cell, fa_size B) noexcept:
    """Of two slots of what is read while the next is written, and one of the rest."""
    cdef const kernel_table *kernels = cell.kernels
    cdef const fa_cell *kind = &cell.cell.args
    cdef fa_size row = B * kernels.itemsize
    cdef StepBytes n
    n.h = lines(2 * row * state_width(cell.output_size, kernels, kind))
    n.c = lines(row * state_width(cell.hidden_size, kernels, kind))
    n.operand = lines(2 * row * state_width(cell.operands, kernels, kind)) if kind.full_gates else 0
    n.mid = n.c if kind.second else 0
    n.slabs = lines(row * slab_width(cell.hidden_size, kernels, kind))
    n.norm = norm_bytes(kind, B | 1, slab_width(cell.hidden_size, kernels, kind) * kernels.itemsize,
                        kernels.itemsize, False)
    n.all = n.h + n.c + n.operand + n.mid + n.slabs + n.norm.hh + n.norm.c
    return n


cdef size_t steps_bytes(object cell, fa_size B) except 0:
    return lines(sizeof(ForwardJob)) + step_memory(cell, B).all


cdef void run_step(ForwardJob *job, const void *x, fa_size x_row) noexcept nogil:
    """The next step, for the B rows of x, ``x_row`` elements apart."""
    cdef const fa_recurrent_forward *args = &job.args
    job.plan = plan_threads(job.kernels, 1, args.B, args.inputs, args.H, groups_of(args.H, job.kernels, args.cell),
                            columns_of(args.cell), 1, False, args.cell.second or args.cell.layer_norm)
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
    return state_width(job.args.P, job.kernels, job.args.cell)


cdef const char *step_output(const ForwardJob *job) noexcept nogil:
    """h after the last step: B rows."""
    return <const char *>job.args.h + job.begin * job.args.B * step_width(job) * job.kernels.itemsize


cdef struct StepState:      # where one letter of the state is: its first row, bytes of its units and from row to row
    char *rows
    size_t n, row


cdef StepState step_state(const ForwardJob *job, int letter) noexcept nogil:
    """h (0), c (1), or, with full gates, i, f or o (2 to 4)."""
    cdef const fa_recurrent_forward *args = &job.args
    cdef fa_size size = job.kernels.itemsize
    cdef StepState found
    found.n = (args.P if letter == 0 else args.H) * size
    if letter == 0:
        found.rows = <char *>step_output(job)
        found.row = step_width(job) * size
    elif letter == 1:
        found.rows = <char *>args.c
        found.row = state_width(args.H, job.kernels, args.cell) * size
    else:
        found.row = state_width(args.R, job.kernels, args.cell) * size
        found.rows = (<char *>args.operand + job.begin * args.B * found.row
                      + (args.P + (letter - 2) * args.H) * size)
    return found


cdef void reset_steps(ForwardJob *job) noexcept nogil:
    load_steps(job, 0, NULL)
    load_steps(job, 1, NULL)
    if job.args.operand != NULL:
        memset(job.args.operand, 0, 2 * job.args.B * state_width(job.args.R, job.kernels, job.args.cell)
               * job.kernels.itemsize)


cdef void load_steps(ForwardJob *job, int letter, const char *state) noexcept nogil:
    """A letter of the state from its (B, .); NULL is zero, of h and c."""
    cdef StepState to = step_state(job, letter)
    if letter > 1:
        load_columns(to.rows, state, job.args.B, to.n, to.row)
        return
    load_state(to.rows, state, job.args.B, to.n, to.row)
    if letter == 0 and job.args.operand != NULL:  # begins with h
        to = step_state(job, 2)
        load_columns(to.rows - job.args.P * job.kernels.itemsize, state, job.args.B,
                     job.args.P * job.kernels.itemsize, to.row)


cdef void save_steps(const ForwardJob *job, int letter, char *state) noexcept nogil:
    """A letter of the state into its (B, .)."""
    cdef StepState of = step_state(job, letter)
    cdef fa_size b
    for b in range(job.args.B):
        memcpy(state + b * of.n, of.rows + b * of.row, of.n)


# ---- backward --------------------------------------------------------------------------------------------------------

cdef struct BackwardJob:
    const kernel_table *kernels
    fa_cell cell            # as forward had it
    fa_recurrent_backward args
    fa_recurrent_gradient gradients[4]  # of weight_ih, weight_hh, then of those that the cell has besides
    int n_gradients
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
    cdef int k
    while end > 0:
        begin = max(0, end - job.chunk_steps)
        for t in range(end - 1, begin - 1, -1):
            kernels.backward_step(args, &share, t)
            if meet:
                fa_barrier_wait(&job.barrier, rank, size, &met)
        # The first barrier: dZ of the chunk is complete, and nobody reads the packed rows of the chunk before.
        if size > 1:
            fa_barrier_wait(&job.barrier, rank, size, &met)
        for k in range(job.n_gradients):
            kernels.gradient_pack(&job.gradients[k], begin, end, rank, size)
        if size > 1:
            fa_barrier_wait(&job.barrier, rank, size, &met)
        for k in range(job.n_gradients):
            kernels.gradient(&job.gradients[k], begin, end, rank, size)
        if args.dx != NULL:
            kernels.input_gradient(args, begin, end, rank, size)
        end = begin
    if args.T > 0:
        kernels.backward_step(args, &share, -1)
    if args.cell.layer_norm and job.n_gradients > 0:  # every row's sums were complete at the last chunk's barriers
        kernels.norm_gradient(args, rank, size)


cdef fa_recurrent_gradient *next_gradient(BackwardJob *job, fa_size K, const int *row, char *packed,
                                          char *of_weight) noexcept:
    """One more matrix that dZ was multiplied with: as the first, without biases and peepholes."""
    cdef fa_recurrent_gradient *gradient = &job.gradients[job.n_gradients]
    job.n_gradients += 1
    gradient[0] = job.gradients[0]
    gradient.K = K
    gradient.row = row
    gradient.packed = packed
    gradient.gradient = of_weight
    gradient.bias_a = NULL
    gradient.bias_b = NULL
    gradient.peephole = NULL
    return gradient


def backward_pass(Tape tape not None, cnp.ndarray dy, tuple final, cnp.ndarray dx, bint dx_adds, tuple initial not None,
                  tuple gradients not None):
    """Backward pass of ``forward_pass``, once a tape.

    Parameters
    ----------
    dy : array of the shape of y, or None
        Read in place if its last axis is contiguous; the others may run backwards.
    final : (dh, dc, di, df, do), as far as the cell has them, arrays (1, B, P) or (1, B, H), or None
        C-contiguous.
    dx : array of the shape of x, or None
        With a contiguous last axis; filled, or added to with ``dx_adds``.
    initial : the same
        C-contiguous; filled.
    gradients : as the weights of ``pack_cell``, in its order
        C-contiguous; added to. All None: they are not computed.
    """
    cdef PackedCell cell = tape.cell
    cdef const kernel_table *kernels = cell.kernels
    cdef bint ragged = tape.starts is not None
    cdef int time_axis = -1 if ragged else 0 if tape.time_major else 1, batch_axis = 0 if ragged else 1 - time_axis
    cdef const fa_size *starts = tape.starts_data()
    cdef fa_size T = tape.T, B = tape.B, size = kernels.itemsize, I = cell.input_size, H = cell.hidden_size
    cdef fa_size P = cell.output_size
    cdef const fa_cell *kind = &cell.cell.args
    cdef fa_size Hp = state_width(H, kernels, kind), Pp = state_width(P, kernels, kind), rows
    cdef fa_size Rp = state_width(cell.operands, kernels, kind)
    cdef size_t n_c = lines(B * Hp * size), n_h = lines(B * Pp * size), n_gates = 3 * n_c if kind.full_gates else 0
    cdef size_t n_second = 0, n_packed, n_sums = 0
    cdef Workspace scratch
    cdef BackwardJob job
    cdef fa_recurrent_backward *args = &job.args
    cdef fa_recurrent_gradient *gradient
    cdef cnp.ndarray x
    cdef char *packed
    cdef int k

    if tape.space is None:
        raise RuntimeError("backward_pass: this tape has been used")
    x = tape.x
    job.kernels = kernels
    job.cell = cell.cell.args
    job.cell.plain = job.cell.plain and tape.masks is None
    job.plan = plan_threads(
        kernels, T, B, I, H, vectors_of(H, kernels), columns_of(kind), 2, ragged, cell.cell.whole_rows())
    job.chunk_steps = max(1, min(T, (GRADIENT_ROWS + B - 1) // max(B, 1)))
    rows = job.chunk_steps * B
    if kind.second:
        n_second = lines(tape.slab_rows * slab_width(P, kernels, &cell.cell.second_args) * size)
    n_packed = padded(I, kernels) + padded(P, kernels)  # of the rows that dZ was multiplied with
    if kind.full_gates:
        n_packed += padded(3 * H, kernels)
    if kind.second:
        n_packed += padded(H, kernels)
    if kind.layer_norm:
        n_sums = lines(B * slab_width(H, kernels, kind) * size)
    scratch = Workspace(
        2 * n_h + 2 * n_c + n_gates + n_second + 2 * n_sums + (4 * n_c if n_sums > 0 else 0) + rows * n_packed * size
        + 4 * LINE)

    args.T = T
    args.B = B
    args.inputs = I
    args.H = H
    args.P = P
    args.starts = starts
    args.cell = &job.cell
    args.masks = masks_of(tape.masks, P, H)
    args.hh_back = cell.hh_back
    args.ih_back = cell.ih_back
    args.peephole = cell.peephole
    args.second_back = cell.second_back
    args.slabs = tape.space.data
    args.slab_rows = tape.slab_rows
    args.h = tape.h
    args.c = tape.c
    args.dh = scratch.data
    args.past = scratch.data + n_h if kind.kind == FA_GRU or args.masks.take_h != NULL else NULL
    args.dc = scratch.data + 2 * n_h
    args.dmid = scratch.data + 2 * n_h + n_c
    args.dgates = scratch.data + 2 * n_h + 2 * n_c if kind.full_gates else NULL
    args.second_slabs = scratch.data + 2 * n_h + 2 * n_c + n_gates
    packed = scratch.data + 2 * n_h + 2 * n_c + n_gates + n_second
    args.norm = tape.norm
    if kind.layer_norm:
        memset(packed, 0, 2 * n_sums + 2 * n_c)
        args.norm_gradient.sum_ih = packed
        args.norm_gradient.sum_hh = packed + n_sums
        args.norm_gradient.sum_c = packed + 2 * n_sums
        args.norm_gradient.sum_shift_c = packed + 2 * n_sums + n_c
        args.norm_gradient.c = packed + 2 * n_sums + 2 * n_c
        args.norm_gradient.xhat_c = packed + 2 * n_sums + 3 * n_c
        packed += 2 * n_sums + 4 * n_c
    args.norm_gradient.of_ih = item_data(gradients, 4)
    args.norm_gradient.of_hh = item_data(gradients, 5)
    args.norm_gradient.of_c = item_data(gradients, 6)
    args.norm_gradient.of_shift_c = item_data(gradients, 7)
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

    gradient = &job.gradients[0]
    gradient.B = B
    gradient.H = H
    gradient.K = I
    gradient.starts = starts
    gradient.cell = &job.cell
    gradient.row = &kind.row_ih[0]
    gradient.a = cnp.PyArray_DATA(x)
    gradient.a_t = stride_of(x, time_axis)
    gradient.a_b = stride_of(x, batch_axis)
    gradient.a_starts = starts
    gradient.packed = packed
    gradient.slabs = args.norm.ih if kind.layer_norm else args.slabs
    gradient.gates = args.slabs
    gradient.slab_rows = tape.slab_rows
    gradient.gradient = item_data(gradients, 0)
    gradient.bias_a = item_data(gradients, 2)
    gradient.bias_b = item_data(gradients, 3)
    gradient.c = args.c
    gradient.peephole = item_data(gradients, 8)
    packed += lines(rows * padded(I, kernels) * size)
    job.n_gradients = 1

    gradient = next_gradient(&job, P, &kind.row_hh[0], packed, item_data(gradients, 1))
    gradient.slabs = args.norm.hh if kind.layer_norm else args.slabs
    gradient.a = tape.h if tape.operand == NULL else tape.operand
    gradient.a_b = Pp if tape.operand == NULL else Rp
    gradient.a_t = B * gradient.a_b
    if ragged:  # h before step t stands B rows behind the rows of step t - 1
        gradient.a = <char *>gradient.a + gradient.a_t * size
        gradient.a_starts = starts - 1
    packed += lines(rows * padded(P, kernels) * size)
    if kind.full_gates:
        gradient = next_gradient(&job, 3 * H, &cell.cell.gate_rows[0], packed, item_data(gradients, 9))
        gradient.slabs = job.gradients[1].slabs
        gradient.a = <char *>job.gradients[1].a + P * size
        gradient.a_t = B * Rp
        gradient.a_b = Rp
        gradient.a_starts = job.gradients[1].a_starts
        packed += lines(rows * padded(3 * H, kernels) * size)
    if kind.second:
        gradient = next_gradient(&job, H, &cell.cell.second_args.row_hh[0], packed, NULL)
        gradient.H = P
        gradient.cell = &cell.cell.second_args
        gradient.a = tape.mid
        gradient.a_t = B * Hp
        gradient.a_b = Hp
        gradient.slabs = args.second_slabs
        gradient.gradient = second_weight(cell.cell, H, item_data(gradients, 1), item_data(gradients, 10), size)
    if item_data(gradients, 0) == NULL:
        job.n_gradients = 0
    load_state(<char *>args.dh, item_data(final, 0), B, P * size, Pp * size)
    load_state(<char *>args.dc, item_data(final, 1), B, H * size, Hp * size)
    if n_second > 0 and padded(P, kernels) * size * tape.slab_rows < <fa_size>n_second:  # vectors that no piece writes
        memset(args.second_slabs, 0, n_second)
    if args.past != NULL:
        memset(args.past, 0, B * Pp * size)
    for k in range(3 if kind.full_gates else 0):
        load_state(<char *>args.dgates + k * B * Hp * size, item_data(final, 2 + k), B, H * size, Hp * size)
    with nogil:
        if B > 0:
            fa_barrier_init(&job.barrier)
            run_team(backward_share, &job, job.plan.threads)
    save_state(<char *>args.dh, item_data(initial, 0), B, P * size, Pp * size)
    if kind.kind == FA_LSTM:
        save_state(<char *>args.dc, item_data(initial, 1), B, H * size, Hp * size)
    for k in range(3 if kind.full_gates else 0):
        save_state(<char *>args.dgates + k * B * Hp * size, item_data(initial, 2 + k), B, H * size, Hp * size)
    tape.space = None
    tape.x = None


def plan(dtype, fa_size T, fa_size B, fa_size I, fa_size H, double passes=1):
    """(threads, whether the batch is cut rather than the units) of an LSTM for a shape; ``passes`` 1 forward, 2 backward."""
    cdef const kernel_table *kernels = <const kernel_table *>active(0 if dtype == np.float32 else 1)
    cdef Plan found = plan_threads(kernels, T, B, I, H, vectors_of(H, kernels), 4, passes, False, False)
    return found.threads, bool(found.by_rows)
