/* Pooling over time: sequences x (B, T, n), each with its length L in 1 .. T, become y (B, n):
 *
 *   mean   y = (x_1 + ... + x_L) / L     dx_t = dy / L
 *   max    y = the greatest of them      dx_t = dy at the first step whose x is y, else 0
 *
 * and dx is 0 beyond the lengths. A NaN within the length shows. A unit of the kernels is a sequence. */
#ifndef FA_POOLING_H
#define FA_POOLING_H

#include "training.h"

typedef struct {
  fa_size T, n;
  const void *x;           /* row (b, t) begins at x + b * x_b + t * x_t, in elements; its n are contiguous */
  fa_size x_b, x_t;
  void *y;                 /* (B, n); backward of max reads it */
  const void *dy;          /* (B, n) */
  void *dx;                /* as x, with strides of its own */
  fa_size dx_b, dx_t;
  const int64_t *lengths;  /* (B,), or NULL: all are T */
} fa_pooling_args;

typedef struct {
  fa_training_kernel mean, mean_backward, max, max_backward;
} fa_pooling_kernels;

#endif
