/* Kernels that do nothing useful: they measure what this machine can do, the roofline of the benchmarks. */
#ifndef FA_PROBE_H
#define FA_PROBE_H

#include "config.h"

typedef struct {
  /* Multiply-add on chains of vectors that never leave the registers. Returns the operations done, two for each lane;
   * *sink takes a sum of the chains so that none of them is optimised away. */
  fa_size (*multiply_add)(fa_size rounds, void *sink);
  /* to[i] = from[i] for i < n, with non-temporal stores where `stream` says so and `to` is aligned to a vector. */
  void (*copy)(void *to, const void *from, fa_size n, int stream);
} fa_probe_kernels;

#endif
