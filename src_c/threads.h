/* The one place that decides how many threads a call may use. Besides sync.h, which asks who is in a region, no other C
 * file mentions OpenMP.
 *
 * Limit, strongest first: the calling thread's own (the context manager), the process's (set_num_threads),
 * OMP_NUM_THREADS, the cores that the process may really use (affinity and cgroup, found at import).
 * One thread always: in a build without OpenMP, inside another parallel region, and in a forked child, where GNU
 * OpenMP would wait for ever on workers that the fork did not copy. */
#ifndef FA_THREADS_H
#define FA_THREADS_H

int fa_threads_openmp(void);      /* 1 if this build has OpenMP */
int fa_threads_limit(void);       /* most threads that a call from here may use now */
void fa_threads_set_default(int n); /* cores of this process */
void fa_threads_set(int n);       /* for the process; 0 takes the setting back */
int fa_threads_set_local(int n);  /* for this thread; 0 takes it back; returns the value before */

/* Threads that pay for work of serial_ns nanoseconds on one core which can be cut into `most` pieces. 1 unless the time
 * saved is several times the measured cost of opening a parallel region (first measured when a call is long enough to
 * ask; no thread starts before that). */
int fa_threads_for(double serial_ns, int most);
double fa_threads_region_ns(void); /* that cost; measures it if need be; 0 without OpenMP */
double fa_threads_set_region_ns(double ns); /* tests: take this for the measured cost (0: measure); returns the former */

#endif
