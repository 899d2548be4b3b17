/* Thread policy: see threads.h. */
#define _POSIX_C_SOURCE 200809L
#include "threads.h"

#include <stdatomic.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifndef _WIN32
#include <pthread.h>
#endif

#ifdef _MSC_VER
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

static atomic_int cores = 1;   /* affinity and cgroup */
static atomic_int process;     /* set_num_threads, or 0 */
static atomic_int forked;      /* in a child: serial */
static THREAD_LOCAL int local; /* the context manager's, or 0 */
static _Atomic double region_ns;
static _Atomic double measured; /* when, in seconds; 0: region_ns was given */

/* A region that takes longer was probably measured while something else had a core: measured again after a while, so that
 * a process started in a busy moment does not stay serial. It costs 0.4-0.9 us with 2 threads. */
#define DISTURBED_NS 4000
#define AGAIN_SECONDS 0.25

int fa_threads_openmp(void) {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

#ifndef _WIN32
static void in_child(void) { atomic_store(&forked, 1); }
#endif

void fa_threads_set_default(int n) {
  static atomic_flag registered = ATOMIC_FLAG_INIT;
  atomic_store(&cores, n > 0 ? n : 1);
#ifndef _WIN32
  if (!atomic_flag_test_and_set(&registered)) pthread_atfork(NULL, NULL, in_child);
#endif
}
void fa_threads_set(int n) { atomic_store(&process, n); }
int fa_threads_set_local(int n) {
  int before = local;
  local = n;
  return before;
}

/* OMP_NUM_THREADS may be a list (one entry a nesting level): the first counts. */
static int environment_limit(void) {
  const char *text = getenv("OMP_NUM_THREADS");
  long n = text ? strtol(text, NULL, 10) : 0;
  return n > 0 && n < 1 << 16 ? (int)n : 0;
}

int fa_threads_limit(void) {
#ifdef _OPENMP
  int n;
  if (atomic_load_explicit(&forked, memory_order_relaxed) || omp_in_parallel()) return 1;
  if (local > 0) return local;
  if ((n = atomic_load_explicit(&process, memory_order_relaxed)) > 0) return n;
  if ((n = environment_limit()) > 0) return n;
  return atomic_load_explicit(&cores, memory_order_relaxed);
#else
  return 1;
#endif
}

#ifdef _OPENMP
static double time_regions(int threads) { /* minimum over 20 empty regions, or 2 ms; the first ones start the threads */
  double best = 1e9, begin = omp_get_wtime(), start = begin;
  for (int i = 0; i < 20 && start - begin < 2e-3; i++) {
    volatile int touched = 0;
    start = omp_get_wtime();
#pragma omp parallel num_threads(threads)
    {
      if (omp_get_thread_num() == 0) touched = 1;
    }
    double ns = (omp_get_wtime() - start) * 1e9;
    if (touched && ns < best) best = ns;
  }
  return best;
}
#endif

double fa_threads_region_ns(void) {
#ifdef _OPENMP
  double cost = atomic_load_explicit(&region_ns, memory_order_relaxed);
  double last = atomic_load_explicit(&measured, memory_order_relaxed);
  if (cost == 0 || (cost > DISTURBED_NS && last > 0 && omp_get_wtime() - last > AGAIN_SECONDS)) {
    int threads = fa_threads_limit();
    if (threads < 2) return 0;
    cost = time_regions(threads);
    cost = cost < 300 ? 300 : cost > 20000 ? 20000 : cost;
    atomic_store(&region_ns, cost);
    atomic_store(&measured, omp_get_wtime());
  }
  return cost;
#else
  return 0;
#endif
}

double fa_threads_set_region_ns(double ns) {
  atomic_store(&measured, 0);
  return atomic_exchange(&region_ns, ns);
}

int fa_threads_for(double serial_ns, int most) {
  /* Below 5 us no machine gains, and nothing is asked or started. */
  if (serial_ns < 5000 || most < 2) return 1;
  int n = fa_threads_limit();
  if (n > most) n = most;
  if (n < 2) return 1;
  /* The measured cost is that of awake workers; asleep ones take several times as long, hence the factor. */
  double piece = 8 * fa_threads_region_ns();
  double useful = serial_ns / piece;
  if (useful < 2) return 1;
  return useful < n ? (int)useful : n;
}
