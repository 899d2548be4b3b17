"""Losses with their gradients: the ndarray side of ``src_c/losses.h``.

Callers inside the package have validated shapes and types in the user's terms; what is checked again here only keeps
a wrong call from reading or writing outside an array. Sums are kept in float64 for blocks of fixed size and added up in
the order of the blocks.
"""

cimport numpy as cnp
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from fastact._core.runtime cimport active, fa_size
from fastact._core.training cimport add_up, dense, element_type, fa_training_kernel, new_sums, run

cnp.import_array()

cdef extern from "losses.h" nogil:
    enum:
        FA_LOSS_BLOCK
        FA_LOSS_ROWS
        FA_ELEMENT_LOSS_COUNT
        FA_ROW_LOSS_COUNT
        FA_LOSS_squared_error
        FA_LOSS_absolute_error
        FA_ROW_LOSS_cross_entropy
        FA_ROW_LOSS_picked
    ctypedef struct fa_operand:
        const void *data
        fa_size repeat, period
    ctypedef struct fa_element_loss_args:
        fa_size n
        const void *prediction
        fa_operand target, weight, columns
        double a, b, c
        double target_low, target_high, low, high
        double scale
        void *gradient
        void *each
        double *loss
    ctypedef struct fa_row_loss_args:
        fa_size rows, classes
        const void *prediction
        const int64_t *labels
        const void *target
        const void *class_weight
        fa_operand weight
        int size_by_class
        int has_ignored
        int64_t ignored
        double a, b
        double scale
        void *gradient
        void *each
        double *loss
        double *correct
    ctypedef struct fa_ctc_args:
        fa_size batch, steps, classes, most_labels
        const void *logits
        const int64_t *labels
        const int64_t *label_counts
        const int64_t *step_counts
        int64_t blank
        const double *scale
        void *gradient
        int zero_infinity
        void *room
        double *loss
    ctypedef struct fa_loss_kernels:
        fa_training_kernel element[FA_ELEMENT_LOSS_COUNT]
        fa_training_kernel row[FA_ROW_LOSS_COUNT]
        fa_training_kernel ctc
    const char *fa_element_loss_name(int loss)
    const char *fa_row_loss_name(int loss)
    fa_size fa_ctc_room(fa_size steps, fa_size most_labels)
    fa_size fa_first_outside(const int64_t *indices, fa_size n, int64_t limit, int has_ignored, int64_t ignored,
                             fa_size *counted)

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_kernels:
        fa_loss_kernels losses

#: Numbers of the losses of elements, and of those of rows, by name.
ELEMENT = {fa_element_loss_name(loss).decode(): loss for loss in range(FA_ELEMENT_LOSS_COUNT)}
ROW = {fa_row_loss_name(loss).decode(): loss for loss in range(FA_ROW_LOSS_COUNT)}


cdef const fa_loss_kernels *kernels_of(cnp.ndarray x) except NULL:
    return &(<const fa_kernels *>active(element_type(x))).losses


cdef void *data_of(cnp.ndarray a, str name, int type_number, fa_size size, bint writeable=False) except? NULL:
    """Data of a dense array of this type and number of elements, of any shape; NULL for None."""
    if a is None:
        return NULL
    dense(a, name, type_number, cnp.PyArray_NDIM(a), writeable)
    if cnp.PyArray_SIZE(a) != size:
        raise ValueError(f"{name}: expected {size} elements, got shape {(<object>a).shape}")
    return cnp.PyArray_DATA(a)


cdef fa_operand repeated(cnp.ndarray a, str name, int type_number, fa_size n) except *:
    """An array whose elements stand for n / size of n elements each; no data for None."""
    cdef fa_operand operand
    cdef fa_size size = 0 if a is None else cnp.PyArray_SIZE(a)
    if a is not None and (size == 0 or n % size):
        raise ValueError(f"{name}: expected a number of elements that divides {n}, got shape {(<object>a).shape}")
    operand.data = data_of(a, name, type_number, size)
    operand.repeat, operand.period = n // size if size else 1, 0
    return operand


cdef double number_at(const void *data, int type_number, fa_size i) noexcept nogil:
    return (<const float *>data)[i] if type_number == cnp.NPY_FLOAT32 else (<const double *>data)[i]


cdef double total_weight(const fa_operand *weight, int type_number, fa_size n) noexcept nogil:
    """Sum of the weights of n elements; NaN if one is negative, infinite or NaN."""
    cdef double total = 0, w
    cdef fa_size i
    cdef bint bad = False
    for i in range(n // weight.repeat):
        w = number_at(weight.data, type_number, i)
        bad |= not 0 <= w < INFINITY
        total += w
    return (INFINITY - INFINITY) if bad else total * weight.repeat


cdef int refuse_weight() except -1:
    raise ValueError("weight: expected finite weights of at least 0, got a negative one, an infinity or NaN")


def elements(int loss, cnp.ndarray prediction not None, cnp.ndarray target not None, cnp.ndarray gradient,
             cnp.ndarray each, cnp.ndarray weight, bint mean, double a=0.0, double b=0.0, double c=0.0,
             double low=-INFINITY, double high=INFINITY, double target_low=-INFINITY, double target_high=INFINITY,
             cnp.ndarray columns=None, fa_size group=1):
    """A loss of elements (number ``loss`` of ELEMENT): ``(loss, size)``, mean or sum, and the sum of the weights.

    The mean is over groups of so many elements: with 1 over elements, with C over rows of C terms that belong together.

    All arrays are dense and of one type. ``target`` and ``weight`` may have fewer elements than ``prediction``, each for
    a run of its elements; ``columns`` holds the parameter a along the last axis. ``gradient`` and ``each`` receive,
    unless None, the derivative of what is returned, and the weighted losses.
    """
    cdef const fa_loss_kernels *kernels = kernels_of(prediction)
    cdef fa_element_loss_args args
    cdef int type_number = cnp.PyArray_TYPE(prediction)
    cdef fa_size blocks
    cdef double total, size, ns
    if not 0 <= loss < FA_ELEMENT_LOSS_COUNT:
        raise ValueError(f"loss: expected 0 to {FA_ELEMENT_LOSS_COUNT - 1}, got {loss}")
    args.n = cnp.PyArray_SIZE(prediction)
    args.prediction = data_of(prediction, "prediction", type_number, args.n)
    args.target = repeated(target, "target", type_number, args.n)
    args.weight = repeated(weight, "weight", type_number, args.n)
    args.columns.data = NULL
    if columns is not None:
        args.columns.data = data_of(columns, "columns", type_number, cnp.PyArray_SIZE(columns))
        args.columns.repeat, args.columns.period = 1, max(cnp.PyArray_SIZE(columns), 1)
    args.gradient = data_of(gradient, "gradient", type_number, args.n, True)
    args.each = data_of(each, "each", type_number, args.n, True)
    args.a, args.b, args.c = a, b, c
    args.low, args.high, args.target_low, args.target_high = low, high, target_low, target_high
    blocks = (args.n + FA_LOSS_BLOCK - 1) // FA_LOSS_BLOCK
    ns = (0.08 if loss <= FA_LOSS_absolute_error else 0.25) * cnp.PyArray_ITEMSIZE(prediction) * args.n
    args.loss = <double *>new_sums(blocks)
    with nogil:
        size = args.n if args.weight.data == NULL else total_weight(&args.weight, type_number, args.n)
        size = size / group
        args.scale = 1.0
        if mean:
            args.scale = 1.0 / size if size > 0 else 0.0
        total = 0
        if size == size:
            run(kernels.element[loss], &args, blocks, ns)
            total = add_up(args.loss, blocks)
        free(args.loss)
    if size != size:
        refuse_weight()
    return total * args.scale, size


def first_outside(cnp.ndarray indices, int64_t limit, ignored=None):
    """Position of the first of the int64 indices outside 0 <= index < limit that is not ``ignored``, or -1."""
    cdef fa_size n = cnp.PyArray_SIZE(indices), bad
    cdef int has_ignored = ignored is not None
    cdef int64_t skip = ignored if has_ignored else 0
    cdef const int64_t *data = <const int64_t *>data_of(indices, "indices", cnp.NPY_INT64, n)
    with nogil:
        bad = fa_first_outside(data, n, limit, has_ignored, skip, NULL)
    return bad


cdef double row_weight(const fa_row_loss_args *args, int type_number) noexcept nogil:
    """Sum of the weights of the rows, with those of their classes where they count; NaN if one is none."""
    cdef double total = 0, w
    cdef fa_size i
    cdef bint bad = False
    for i in range(args.rows):
        w = number_at(args.weight.data, type_number, i // args.weight.repeat) if args.weight.data != NULL else 1.0
        bad |= not 0 <= w < INFINITY
        if args.labels != NULL:  # a row of dense targets has no class
            if args.has_ignored and args.labels[i] == args.ignored:
                continue
            if w != 0 and args.size_by_class:
                w *= number_at(args.class_weight, type_number, args.labels[i])
        total += w
    return (INFINITY - INFINITY) if bad else total


def rows(int loss, cnp.ndarray prediction not None, cnp.ndarray labels, cnp.ndarray target, cnp.ndarray gradient,
         cnp.ndarray each, cnp.ndarray weight, bint mean, bint count_correct=False, ignored=None,
         cnp.ndarray class_weight=None, double a=0.0, double b=0.0):
    """A loss of rows (number ``loss`` of ROW), along the last axis: ``(loss, size, correct, bad)``.

    Of the n rows, of C numbers each, ``labels`` (n,) int64 holds the classes, or ``target`` (n, C) numbers. ``weight``
    may have fewer elements, each for a run of rows. ``size`` is the sum of the weights, ``correct`` that of the rows that argmax
    finds (-1 unless asked for). ``gradient`` and ``each`` (n,) receive, unless None, the derivative of what is
    returned, and the weighted losses. ``bad`` is the position of the first label that is neither 0 <= label < C nor
    ``ignored``, when nothing was computed, or -1.
    """
    cdef const fa_loss_kernels *kernels = kernels_of(prediction)
    cdef fa_row_loss_args args
    cdef int type_number = cnp.PyArray_TYPE(prediction), ndim = cnp.PyArray_NDIM(prediction)
    cdef fa_size n = cnp.PyArray_SIZE(prediction), blocks, bad = -1, counted
    cdef double total = 0, correct = -1, size, ns
    if not 0 <= loss < FA_ROW_LOSS_COUNT:
        raise ValueError(f"loss: expected 0 to {FA_ROW_LOSS_COUNT - 1}, got {loss}")
    if n == 0 or ndim == 0 or (labels is None) == (target is None):
        raise ValueError("prediction: expected rows of numbers, and labels or target")
    args.classes = cnp.PyArray_DIM(prediction, ndim - 1)
    args.rows = n // args.classes
    args.prediction = data_of(prediction, "prediction", type_number, n)
    args.labels = <const int64_t *>data_of(labels, "labels", cnp.NPY_INT64, args.rows)
    args.target = data_of(target, "target", type_number, n)
    args.weight = repeated(weight, "weight", type_number, args.rows)
    args.class_weight = data_of(class_weight, "class_weight", type_number, args.classes)
    args.gradient = data_of(gradient, "gradient", type_number, n, True)
    args.each = data_of(each, "each", type_number, args.rows, True)
    args.size_by_class = class_weight is not None and (loss == FA_ROW_LOSS_cross_entropy or loss == FA_ROW_LOSS_picked)
    args.has_ignored = ignored is not None
    args.ignored = ignored if args.has_ignored else 0
    args.a, args.b = a, b
    blocks = (args.rows + FA_LOSS_ROWS - 1) // FA_LOSS_ROWS
    ns = args.rows * (15 + 0.06 * cnp.PyArray_ITEMSIZE(prediction) * args.classes)
    args.loss = <double *>new_sums(2 * blocks)
    args.correct = args.loss + blocks if count_correct else NULL
    with nogil:
        counted = args.rows
        if args.labels != NULL:
            bad = fa_first_outside(args.labels, args.rows, args.classes, args.has_ignored, args.ignored, &counted)
        size = counted
        if bad < 0:
            if args.weight.data != NULL or args.size_by_class:
                size = row_weight(&args, type_number)
            args.scale = 1.0
            if mean:
                args.scale = 1.0 / size if size > 0 else 0.0
            if size == size:
                run(kernels.row[loss], &args, blocks, ns)
                total = add_up(args.loss, blocks) * args.scale
                if args.correct != NULL:
                    correct = add_up(args.correct, blocks)
        free(args.loss)
    if size != size:
        refuse_weight()
    return total, size, correct, bad


def ctc(cnp.ndarray logits not None, cnp.ndarray labels not None, cnp.ndarray label_counts not None,
        cnp.ndarray step_counts not None, cnp.ndarray scale not None, cnp.ndarray gradient, cnp.ndarray losses not None,
        int64_t blank, bint zero_infinity):
    """CTC of logits (B, T, C) and labels (B, S): fills ``losses`` (B,), float64, each before its weight.

    Counts (B,) are int64: S or T at most. ``scale`` (B,), float64, multiplies the ``gradient`` of each sequence; with 0
    it is left out.
    """
    cdef const fa_loss_kernels *kernels = kernels_of(logits)
    cdef fa_ctc_args args
    cdef int type_number = cnp.PyArray_TYPE(logits)
    cdef fa_size i, k
    dense(logits, "logits", type_number, 3)
    dense(labels, "labels", cnp.NPY_INT64, 2)
    args.batch, args.steps = cnp.PyArray_DIM(logits, 0), cnp.PyArray_DIM(logits, 1)
    args.classes = cnp.PyArray_DIM(logits, 2)
    args.most_labels = cnp.PyArray_DIM(labels, 1)
    args.logits = cnp.PyArray_DATA(logits)
    args.labels = <const int64_t *>data_of(labels, "labels", cnp.NPY_INT64, args.batch * args.most_labels)
    args.label_counts = <const int64_t *>data_of(label_counts, "label_counts", cnp.NPY_INT64, args.batch)
    args.step_counts = <const int64_t *>data_of(step_counts, "step_counts", cnp.NPY_INT64, args.batch)
    args.scale = <const double *>data_of(scale, "scale", cnp.NPY_FLOAT64, args.batch)
    args.gradient = data_of(gradient, "gradient", type_number, args.batch * args.steps * args.classes, True)
    args.loss = <double *>data_of(losses, "losses", cnp.NPY_FLOAT64, args.batch, True)
    args.blank, args.zero_infinity = blank, zero_infinity
    if not 0 <= blank < args.classes:
        raise ValueError(f"blank: expected 0 <= blank < {args.classes}, got {blank}")
    for i in range(args.batch):
        if not (0 <= args.label_counts[i] <= args.most_labels and 0 <= args.step_counts[i] <= args.steps):
            raise ValueError(f"label_counts, step_counts: expected at most {args.most_labels} and {args.steps}")
        for k in range(args.label_counts[i]):
            if not 0 <= args.labels[i * args.most_labels + k] < args.classes:
                raise ValueError(f"labels: expected 0 <= label < {args.classes} in row {i}")
    args.room = malloc(max(args.batch, 1) * fa_ctc_room(args.steps, args.most_labels) * cnp.PyArray_ITEMSIZE(logits))
    if args.room == NULL:
        raise MemoryError(f"CTC of {args.batch} sequences of {args.steps} steps and {args.most_labels} labels")
    with nogil:
        run(kernels.ctc, &args, args.batch, 60.0 * args.batch * args.steps * (2 + args.most_labels // 8))
        free(args.room)
