/* Kernels that training needs around the layers: embedding rows, losses with their gradients, optimiser updates, norms.
 *
 * Every kernel has one signature: it works on the units [first, last) of its problem, whose arrays and settings stand in
 * one argument struct. A unit is an embedding position, a column group, or a block of fixed size, never a thread's
 * share, and sums are kept per block, so that results have the same bits for any number of threads.
 *
 *   kernel               arguments            unit
 *   embedding_forward    fa_embedding_args    one index
 *   embedding_backward   fa_embedding_args    a group of FA_EMBEDDING_COLUMNS columns
 *   cross_entropy        fa_cross_entropy_args  a block of FA_LOSS_ROWS rows
 *   squared_error        fa_squared_error_args  a block of FA_REDUCE_BLOCK elements
 *   sum_squares          fa_sum_squares_args    a block of FA_REDUCE_BLOCK elements
 *   sgd, adam            fa_update_args         a block of FA_UPDATE_BLOCK elements
 *   zero                 fa_update_args         the same; clears the gradient
 */
#ifndef FA_TRAINING_H
#define FA_TRAINING_H

#include "config.h"

enum {
  FA_EMBEDDING_COLUMNS = 16, /* a cache line of float32: threads share none */
  FA_LOSS_ROWS = 16,
  FA_REDUCE_BLOCK = 4096,
  FA_UPDATE_BLOCK = 1024,
};

/* Rows of a table by index: out[i] = table[indices[i]], and the sum of dy[i] into the table's gradient. The caller has
 * checked the indices (fa_first_outside). All arrays are dense. */
typedef struct {
  fa_size count;          /* n indices */
  fa_size width;          /* D */
  const int64_t *indices; /* (n,) */
  const void *source;     /* forward: table (N, D); backward: dy (n, D) */
  void *target;           /* forward: out (n, D); backward: gradient of the table (N, D), added to */
} fa_embedding_args;

/* Softmax cross-entropy of rows of logits z against class numbers t:
 *   loss = log(sum_j exp(z_j)) - z_t,   dloss/dz_j = exp(z_j) / sum - [j = t]
 * Rows whose target is `ignored` add nothing and get a zero gradient. */
typedef struct {
  fa_size rows, classes;
  const void *logits;     /* (rows, classes) */
  const int64_t *targets; /* (rows,), checked by the caller */
  int64_t ignored;
  int has_ignored;
  double scale;     /* of the gradient, usually 1 / rows */
  void *gradient;   /* (rows, classes), or NULL for the loss alone */
  double *loss;     /* (blocks,): sum over the rows of a block */
  int64_t *correct; /* (blocks,): rows whose first largest logit is the target's; or NULL */
} fa_cross_entropy_args;

/* Squared error: per block the sum of (p - t)^2, and the gradient scale * (p - t). */
typedef struct {
  fa_size n;
  const void *prediction, *target; /* (n,) */
  double scale;                    /* of the gradient, usually 2 / n */
  void *gradient;                  /* (n,), or NULL */
  double *loss;                    /* (blocks,) */
} fa_squared_error_args;

/* Per block the sum of x^2, in float64. */
typedef struct {
  fa_size n;
  const void *x; /* (n,) */
  double *sums;  /* (blocks,) */
} fa_sum_squares_args;

/* One optimiser step over flat buffers, PyTorch's formulas: first g = gradient_scale * gradient + weight_decay * w, then
 *   sgd    v = momentum v + g;  w -= rate (nesterov ? g + momentum v : v);  without `first`: w -= rate g
 *   adam   m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;  w -= rate m / (sqrt(v) root_scale + eps)
 * with rate = lr / (1 - beta1^t) and root_scale = 1 / sqrt(1 - beta2^t) for adam. */
typedef struct {
  fa_size n;
  void *parameters, *gradients, *first, *second; /* (n,): w, gradient, v of sgd or m of adam, v of adam */
  double gradient_scale, weight_decay, rate;
  double momentum; /* sgd */
  int nesterov;
  double beta1, beta2, eps, root_scale; /* adam */
} fa_update_args;

typedef void (*fa_training_kernel)(const void *args, fa_size first, fa_size last);

typedef struct {
  fa_training_kernel embedding_forward, embedding_backward;
  fa_training_kernel cross_entropy, squared_error, sum_squares;
  fa_training_kernel sgd, adam, zero;
} fa_training_kernels;

/* Position of the first index outside 0 <= index < limit (and not `ignored`, where that counts), or -1. *counted, if not
 * NULL, receives the number of those that are not ignored. */
static inline fa_size fa_first_outside(const int64_t *indices, fa_size n, int64_t limit, int has_ignored,
                                       int64_t ignored, fa_size *counted) {
  fa_size skipped = 0, bad = 0;
  for (fa_size i = 0; i < n; i++) { /* no early way out: this form is vectorised */
    int skip = has_ignored & (indices[i] == ignored);
    skipped += skip;
    bad += ((uint64_t)indices[i] >= (uint64_t)limit) & !skip;
  }
  if (counted) *counted = n - skipped;
  if (!bad) return -1;
  for (fa_size i = 0; i < n; i++)
    if ((uint64_t)indices[i] >= (uint64_t)limit && !(has_ignored && indices[i] == ignored)) return i;
  return -1;
}

#endif
