/* A barrier for the threads of one parallel region, for steps of a microsecond: 50-60 ns on two near cores, 250-275 ns
 * on far ones, where `omp barrier` takes 190 and 410 (and 20 us under a passive wait policy).
 *
 * One flag a thread, each on cache lines of its own: a thread publishes the number of barriers it has reached and waits
 * until all others have published as many. The count is of the team that really formed: fa_team_size() inside the
 * region. Waiting spins for a bounded time, then gives the core away, so that a team on shared cores still moves on. */
#ifndef FA_SYNC_H
#define FA_SYNC_H

#include <stdatomic.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef _WIN32
#include <windows.h>
#define FA_YIELD() SwitchToThread()
#else
#include <sched.h>
#define FA_YIELD() sched_yield()
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define FA_PAUSE() _mm_pause()
#elif defined(__aarch64__) && !defined(_MSC_VER)
#define FA_PAUSE() __asm__ volatile("yield")
#else
#define FA_PAUSE() ((void)0)
#endif

#define FA_TEAM_MAX 64   /* most threads of a team with a barrier */
#define FA_SPIN_MAX 4096 /* pauses before the first yield: 40-200 us */

static inline int fa_team_size(void) {
#ifdef _OPENMP
  return omp_get_num_threads();
#else
  return 1;
#endif
}
static inline int fa_team_rank(void) {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

typedef struct {
  struct {
    atomic_uint reached;
    char own_lines[128 - sizeof(atomic_uint)];
  } thread[FA_TEAM_MAX];
} fa_barrier;

static inline void fa_barrier_init(fa_barrier *barrier) {
  for (int i = 0; i < FA_TEAM_MAX; i++) atomic_init(&barrier->thread[i].reached, 0);
}

/* `count` is the calling thread's own: 0 at first, one more with each wait. Everything written before the wait by any
 * thread of the team is seen after it by all. */
static inline void fa_barrier_wait(fa_barrier *barrier, int rank, int size, unsigned *count) {
  unsigned target = ++*count;
  atomic_store_explicit(&barrier->thread[rank].reached, target, memory_order_release);
  for (int i = 0; i < size; i++)
    for (unsigned spins = 0; (int)(atomic_load_explicit(&barrier->thread[i].reached, memory_order_acquire) - target) < 0;
         spins++) {
      if (spins < FA_SPIN_MAX)
        FA_PAUSE();
      else
        FA_YIELD();
    }
}

#endif
