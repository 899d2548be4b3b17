# The C table of activations: descriptions and kernels. Other extensions: ``from fastact._core.activations cimport Caller``
# and read ``caller.index`` and ``caller.values``.
cimport numpy as cnp

from fastact._core.runtime cimport fa_size

cdef extern from "kernels.h" nogil:
    enum:
        FA_ACT_COUNT
        FA_MAP_COUNT
        FA_ROWS_COUNT
        FA_ROWS_OPERANDS
        FA_MAX_PARAMETERS
        FA_MAX_POINTS
        FA_MAP_OPERANDS

    ctypedef struct fa_map_args:
        fa_size n
        const void *in_ "in"[FA_MAP_OPERANDS]
        fa_size in_stride[FA_MAP_OPERANDS]
        void *out
        fa_size out_stride
        fa_size total
    ctypedef void (*fa_map_kernel)(const fa_map_args *) noexcept nogil
    ctypedef struct fa_map_kernels:
        fa_map_kernel forward, backward_x, backward_y, derivative1, derivative2

    ctypedef struct fa_rows_args:
        fa_size rows, n
        const void *in_ "in"[FA_ROWS_OPERANDS]
        fa_size in_row_stride[FA_ROWS_OPERANDS]
        fa_size in_stride[FA_ROWS_OPERANDS]
        void *out
        fa_size out_row_stride, out_stride
    ctypedef void (*fa_rows_kernel)(const fa_rows_args *) noexcept nogil
    ctypedef struct fa_rows_info:
        const char *name
        const char *signature
    const fa_rows_info *fa_rows_describe(int index)

    ctypedef struct fa_activation_kernels:
        const fa_map_kernels *map
    ctypedef struct kernels "fa_kernels":
        int lanes
        fa_activation_kernels activation
        const fa_rows_kernel *rows

    ctypedef struct fa_parameter:
        const char *name
        double value
    ctypedef struct fa_places:
        int count
        double x[FA_MAX_POINTS]
    ctypedef struct fa_points:
        int count
        double xy[FA_MAX_POINTS][2]
    ctypedef struct fa_activation_info:
        const char *name
        const char *formula
        const char *aliases
        const char *surrogate
        const char *note
        int parameter_count
        fa_parameter parameters[FA_MAX_PARAMETERS]
        const char *backward_from
        double ulp_f32[3]
        double ulp_f64[3]
        fa_places zeros[2]
        fa_places kinks
        fa_points landmarks
        int monotonic, odd
        double range "range"[2]
    const fa_activation_info *fa_activation_describe(int index)
    double fa_activation_ulp(const fa_activation_info *info, int precise, int itemsize, int order)

# What a loop needs to know; NumPy hands it back as the loop's data.
cdef struct Loop:
    int index        # row of the table of kernels: FA_ACT_* (+ FA_ACT_COUNT: precise), or FA_ROWS_* for a function of rows
    int kind         # its column; forward or not for a function of rows
    int dtype        # 0 float32, 1 float64, 2 float16
    int n_in         # inputs: x, or dy and x or y; then the parameters
    int row_operands # of a function of rows, bit k: operand k, the output last, is a whole row; else 0

# The arrays that go straight to a kernel.
cdef bint ordinary(object a)
cdef bint fits(object a, cnp.ndarray like, int ndim, const cnp.npy_intp *shape)
cdef cnp.ndarray into(object out, cnp.ndarray x, object other, int ndim, const cnp.npy_intp *shape)

cdef class Caller:
    cdef readonly int index          # FA_ACT_* of an elementwise activation (+ FA_ACT_COUNT: precise), else -1
    cdef readonly bint rowwise
    cdef readonly str name
    cdef readonly tuple parameter_names
    cdef double values[8]            # of the parameters
    cdef Loop *loops[7]              # one array a kind, over dtypes; NULL where there is no such kernel
    cdef readonly object ufunc       # of the forward function
    cdef readonly dict ufuncs        # kind -> ufunc
    cdef _make_ufuncs(self, object doc)
    cdef _make_row_ufuncs(self, object doc, bint from_x)
    cdef int place(self, object axis, object x) except -2
    cdef bint resolve(self, dict params, double *values) except -1
    cdef bint suit(self, const double *values) except -1
    cdef object direct(self, int kind, object a, object b, object out, const double *values)
    cdef object direct_rows(
        self, int kind, object a, object b, object out, int axis, fa_size n, bint keepdims, const double *values
    )
