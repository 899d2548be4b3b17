"""Which instruction set runs and how many threads: the compiled side of ``show_config`` and ``fastact.threads``."""

cdef extern from "dispatch.h" nogil:
    const fa_kernels *fa_active(int dtype)
    int fa_isa_count()
    const char *fa_isa_name(int index)
    int fa_isa_supported(int index)
    int fa_isa_active()
    int fa_isa_select(int index)

cdef extern from "threads.h" nogil:
    int fa_threads_openmp()
    int fa_threads_limit()
    void fa_threads_set_default(int n)
    void fa_threads_set(int n)
    int fa_threads_set_local(int n)
    int fa_threads_for(double serial_ns, int most)
    double fa_threads_region_ns()
    double fa_threads_set_region_ns(double ns)


cdef const fa_kernels *active(int dtype) noexcept nogil:
    return fa_active(dtype)


cdef int threads_for(double serial_ns, int most) noexcept nogil:
    return fa_threads_for(serial_ns, most)


cdef int threads_limit() noexcept nogil:
    return fa_threads_limit()


def isa_names():
    """Instruction sets in this build, weakest first."""
    return [fa_isa_name(i).decode() for i in range(fa_isa_count())]


def isa_available():
    """Those that this CPU runs, weakest first."""
    return [fa_isa_name(i).decode() for i in range(fa_isa_count()) if fa_isa_supported(i)]


def isa_active():
    """The one in use."""
    return fa_isa_name(fa_isa_active()).decode()


def isa_select(str name):
    """Use this instruction set from the next call on (tests force each in turn).

    Raises
    ------
    ValueError
        If the build or the CPU lacks it; the message lists what is there.
    """
    names = isa_names()
    if name not in names or fa_isa_select(names.index(name)) != 0:
        raise ValueError(
            f"instruction set: expected one of {', '.join(isa_available())} (available on this CPU), got {name!r}"
        )


def lanes():
    """Elements in a vector, float32 and float64, of the active set."""
    return fa_active(0).lanes, fa_active(1).lanes


def has_openmp():
    return bool(fa_threads_openmp())


def get_limit():
    """Most threads that a call from this thread may use now."""
    return fa_threads_limit()


def set_default_limit(int n):
    fa_threads_set_default(n)


def set_process_limit(int n):
    fa_threads_set(n)


def set_local_limit(int n):
    return fa_threads_set_local(n)


def region_ns():
    """Measured cost of opening a parallel region, in nanoseconds (0 with one thread or without OpenMP)."""
    return fa_threads_region_ns()


def set_region_ns(double ns):
    """Take ``ns`` for the measured cost (0: measure again); returns the former. For tests of the parallel path, which a
    measurement on a busy machine would otherwise switch off."""
    return fa_threads_set_region_ns(ns)


def threads_for_work(double serial_ns, int most):
    """Threads that a call of ``serial_ns`` nanoseconds in ``most`` pieces would use."""
    return fa_threads_for(serial_ns, most)
