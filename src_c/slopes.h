/* The leaky rectifier of the rows of x (R, n) with a slope for each column (PReLU, He et al. 2015, arXiv:1502.01852):
 *
 *   y = x where x > 0, else alpha x       dx = dy f'(x)       gradient of alpha: the sum of dy x over x <= 0
 *
 * Kernels work on units [first, last) as those of training.h do. A block has FA_SLOPES_ROWS rows; its sums are in float64,
 * where products of float32 are exact, and row after row, so that they have the same bits for any number of threads. NaN
 * in x adds its product, too.
 *
 *   kernel    unit              from          gives
 *   forward   a block of rows   x, alpha      y
 *   backward  a block of rows   x, dy, alpha  dx, sums */
#ifndef FA_SLOPES_H
#define FA_SLOPES_H

#include "training.h"

enum { FA_SLOPES_ROWS = 64 };

typedef struct {
  fa_size rows, n;
  const void *x, *dy; /* (R, n) */
  const void *alpha;  /* (n,) */
  void *y, *dx;       /* (R, n); dx NULL where nobody wants it */
  double *sums;       /* (blocks, n), or NULL */
} fa_slopes_args;

typedef struct {
  fa_training_kernel forward, backward;
} fa_slopes_kernels;

#endif
