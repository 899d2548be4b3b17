"""What this machine can do: multiply-add peak, copy bandwidth, and how far apart two threads are. For the benchmarks.

Each function does a fixed amount of work once; the caller takes the time and the minimum over repeats.
"""
from cython.parallel cimport prange
from libc.stdint cimport int64_t

from fastact._core.runtime cimport active, fa_size, threads_for

cdef extern from "kernels.h" nogil:
    ctypedef struct fa_probe_kernels:
        fa_size (*multiply_add)(fa_size rounds, void *sink) noexcept nogil
        void (*copy)(void *to, const void *source, fa_size n, int stream) noexcept nogil
    ctypedef struct fa_kernels:
        fa_probe_kernels probe

cdef extern from * nogil:
    """
    #include <stdatomic.h>
    #include <stdint.h>

    static struct { _Atomic int64_t at; char pad[120]; } fa_meeting[2];

    /* Thread `self` of two: say that round i is reached and wait until the other says so, `rounds` times. Gives up,
       returning 0, when the other does not come (it may share this core). */
    static int fa_meet(int self, int64_t rounds) {
      for (int64_t i = 1; i <= rounds; i++) {
        int64_t spins = 0, other;
        atomic_store_explicit(&fa_meeting[self].at, i, memory_order_release);
        while ((other = atomic_load_explicit(&fa_meeting[1 - self].at, memory_order_acquire)) < i)
          if (other < 0 || ++spins > 100000000) {
            atomic_store_explicit(&fa_meeting[self].at, -1, memory_order_release);
            return 0;
          }
      }
      return 1;
    }
    static void fa_meet_reset(void) { atomic_store(&fa_meeting[0].at, 0); atomic_store(&fa_meeting[1].at, 0); }
    """
    int fa_meet(int self, int64_t rounds)
    void fa_meet_reset()


cdef fa_size multiply_add_once(const fa_probe_kernels *kernels, fa_size rounds) noexcept nogil:
    cdef double sink = 0
    return kernels.multiply_add(rounds, &sink)


def multiply_add(int dtype, fa_size rounds, int n_threads):
    """Run chains of multiply-adds on n_threads threads and return the operations done.

    Parameters
    ----------
    dtype : int
        0 for float32, 1 for float64.
    rounds : int
    n_threads : int
        At most as many as the thread policy allows.
    """
    cdef const fa_probe_kernels *kernels = &(<const fa_kernels *>active(1 if dtype else 0)).probe
    cdef int i, n = threads_for(1e12, n_threads)
    cdef fa_size operations = 0
    for i in prange(n, schedule="static", num_threads=n, nogil=True):
        operations += multiply_add_once(kernels, rounds)
    return operations


cdef void copy_rows(const fa_probe_kernels *kernels, char *to, const char *source, fa_size items, int itemsize,
                    bint stream, int n, int times) noexcept nogil:
    """Copy in n equal pieces that end at multiples of 64 elements, one a thread, so many times over."""
    cdef fa_size piece = (items // n + 63) // 64 * 64
    cdef int i
    for i in prange(n * times, schedule="static", num_threads=n):
        copy_piece(kernels, to, source, items, itemsize, stream, piece, i // times)


cdef void copy_piece(const fa_probe_kernels *kernels, char *to, const char *source, fa_size items, int itemsize,
                     bint stream, fa_size piece, int i) noexcept nogil:
    cdef fa_size first = min(items, i * piece)
    kernels.copy(to + first * itemsize, source + first * itemsize, min(piece, items - first), stream)


def copy(source, to, bint stream, int n_threads, int times=1):
    """Copy a float32 or float64 array on n_threads threads, `times` over, with non-temporal stores if `stream`."""
    cdef const float[::1] source32
    cdef float[::1] to32
    cdef const double[::1] source64
    cdef double[::1] to64
    cdef int n = threads_for(1e12, n_threads)
    if source.shape != to.shape or source.dtype != to.dtype:
        raise ValueError(f"to: expected {source.shape} of {source.dtype}, got {to.shape} of {to.dtype}")
    if source.shape[0] == 0:
        return
    if source.dtype == "f4":
        source32, to32 = source, to
        with nogil:
            copy_rows(&(<const fa_kernels *>active(0)).probe, <char *>&to32[0], <const char *>&source32[0],
                      source32.shape[0], 4, stream, n, times)
    else:
        source64, to64 = source, to
        with nogil:
            copy_rows(&(<const fa_kernels *>active(1)).probe, <char *>&to64[0], <const char *>&source64[0],
                      source64.shape[0], 8, stream, n, times)


def meet(int64_t rounds):
    """Let two threads wait for each other `rounds` times. False if there are no two threads that run at once."""
    cdef int i, met = 0
    if threads_for(1e12, 2) < 2:
        return False
    fa_meet_reset()
    with nogil:
        for i in prange(2, schedule="static", chunksize=1, num_threads=2):
            met += fa_meet(i, rounds)
    return met == 2
