/* Normalisation of the rows of x (R, n), each by its own mean and variance, or of its columns by theirs over all rows:
 *
 *   layer   xhat = (x - mean) / sqrt(var + eps) of each row     Ba, Kiros and Hinton 2016, arXiv:1607.06450
 *   rms     xhat = x / sqrt(mean(x^2) + eps) of each row        Zhang and Sennrich 2019, arXiv:1910.07467
 *   batch   xhat = (x - mean) / sqrt(var + eps) of each column  Ioffe and Szegedy 2015, arXiv:1502.03167
 *
 * and y = gain xhat + bias, with variances over all numbers (not one less). Backward, with a = gain dy:
 *
 *   dx = (a - mean(a) - xhat mean(a xhat)) / sqrt(var + eps), without mean(a) in rms
 *   gradient of gain: the sum of dy xhat over the rows, of bias: that of dy
 *
 * Kernels work on units [first, last) as those of training.h do. Sums over rows are kept per block of FA_NORM_ROWS rows and
 * added up in the order of the blocks, so that results have the same bits for any number of threads.
 *
 *   kernel           unit                    from                         gives
 *   layer, rms       a block of rows         x                            y, statistics if there are
 *   *_backward       a block of rows         x, dy, statistics            dx, sums
 *   batch_moments    a block of rows         x                            sums: mean and squared deviations of the block
 *   batch_statistics FA_NORM_COLUMNS columns those sums                   statistics, running statistics
 *   batch_running    FA_NORM_COLUMNS columns running statistics           statistics
 *   batch            a block of rows         x, statistics                y
 *   batch_sums       a block of rows         x, dy, statistics            sums
 *   gradients        FA_NORM_COLUMNS columns sums                         totals, and adds to of_gain, of_bias
 *   batch_backward   a block of rows         x, dy, statistics, totals    dx */
#ifndef FA_NORM_H
#define FA_NORM_H

#include "training.h"

enum { FA_NORM_ROWS = 64, FA_NORM_COLUMNS = 32 };

typedef struct {
  fa_size rows, n;
  const void *x, *dy;       /* (R, n) */
  void *y, *dx;             /* (R, n); dx NULL where nobody wants it */
  const void *gain, *bias;  /* (n,), or NULL for 1 and 0 */
  double eps;
  void *statistics;         /* mean and 1 / deviation: of the rows (R, 2), or NULL; of the columns (2, n) */
  void *running_mean, *running_variance; /* (n,), the latter over one number less */
  double momentum;          /* share of this batch in them */
  void *sums;               /* (blocks, 2, n): of dy xhat and of dy, or NULL; or the moments */
  void *totals;             /* (2, n): their sums over the blocks, or NULL */
  void *of_gain, *of_bias;  /* (n,) gradients, or NULL */
  double share;             /* of totals in dx: 1 / R, or 0 where the statistics did not come from x */
} fa_norm_args;

typedef struct {
  fa_training_kernel layer, layer_backward, rms, rms_backward;
  fa_training_kernel batch_moments, batch_statistics, batch_running, batch, batch_sums, batch_backward, gradients;
} fa_norm_kernels;

#endif
