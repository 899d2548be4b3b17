# The C interface of the matrix product, for other extensions.
from fastact._core.runtime cimport fa_size

cdef extern from "product.h" nogil:
    enum:
        FA_MAX_PARAMETERS
        FA_MAP_COUNT
    ctypedef struct fa_map_args:
        pass
    ctypedef void (*fa_map_kernel)(const fa_map_args *) noexcept nogil
    ctypedef struct fa_map_kernels:
        fa_map_kernel forward
    ctypedef struct fa_activation_kernels:
        const fa_map_kernels *map
    ctypedef struct fa_product:
        fa_size M, N, K
        const void *a
        fa_size a_row, a_col
        const void *b
        fa_size b_row, b_col
        const void *packed
        void *c
        fa_size c_row, c_col
        const void *bias
        fa_size bias_row, bias_col
        int accumulate
        fa_map_kernel activation
        const void *parameter[FA_MAX_PARAMETERS]
        int parameters
        int pieces, threads
    ctypedef struct fa_product_kernels:
        double (*plan)(fa_product *p) noexcept nogil
        size_t (*split)(fa_product *p, int threads) noexcept nogil
        void (*run)(const fa_product *p, int piece, void *workspace) noexcept nogil
        fa_size (*packed_size)(fa_size K, fa_size N) noexcept nogil
        void (*pack)(fa_size K, fa_size N, const void *b, fa_size b_row, fa_size b_col, void *packed) noexcept nogil

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_kernels:
        int lanes
        fa_activation_kernels activation
        fa_product_kernels product

cdef class PackedMatrix:
    cdef readonly tuple shape
    cdef readonly object dtype
    cdef fa_size K, N
    cdef int typenum, lanes
    cdef object panels
    cdef object current(self)
