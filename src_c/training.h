/* Kernels that training needs around the layers: embedding rows, optimiser updates, norms. Losses: losses.h.
 *
 * Every kernel has one signature: it works on the units [first, last) of its problem, whose arrays and settings stand in
 * one argument struct. A unit is an embedding position, a column group, or a block of fixed size, never a thread's
 * share, and sums are kept per block, so that results have the same bits for any number of threads.
 *
 *   kernel               arguments            unit
 *   embedding_forward    fa_embedding_args    one index
 *   embedding_backward   fa_embedding_args    a group of FA_EMBEDDING_COLUMNS columns
 *   sum_squares          fa_sum_squares_args    a block of FA_REDUCE_BLOCK elements
 *   update[rule]         fa_update_args         a block of FA_UPDATE_BLOCK elements
 *   zero                 fa_update_args         the same; clears the gradient
 */
#ifndef FA_TRAINING_H
#define FA_TRAINING_H

#include "config.h"

enum {
  FA_EMBEDDING_COLUMNS = 16, /* a cache line of float32: threads share none */
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

/* Per block the sum of x^2, in float64. */
typedef struct {
  fa_size n;
  const void *x; /* (n,) */
  double *sums;  /* (blocks,) */
} fa_sum_squares_args;

/* Rules of the optimisers, and how many state arrays each has. First g = gradient_scale * gradient + decay * w, and
 * w is shrunk: w *= shrink (1 without decoupled decay). Then, with the state m, v, u,
 *
 *   sgd            w -= rate g
 *   sgd_momentum   m = beta1 m + g;  w -= rate m
 *   sgd_nesterov   m = beta1 m + g;  w -= rate (g + beta1 m)
 *   adam           m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;  w -= rate m / (sqrt(v) root_scale + eps)
 *   amsgrad        the same with u = max(u, v) under the root
 *   nadam          the same as adam with rate m + rate_now g for rate m
 *   lion           w -= rate sign(beta1 m + (1 - beta1) g);  m = beta2 m + (1 - beta2) g
 *   rmsprop        v = beta2 v + (1 - beta2) g^2;  w -= rate g / (sqrt(v) + eps)
 *   rmsprop_centered           u += (1 - beta2)(g - u);  v - u^2 under the root
 *   rmsprop_momentum           m = beta1 m + g / (sqrt(v) + eps);  w -= rate m
 *   rmsprop_centered_momentum  both
 *   adagrad        v += g^2;  w -= rate g / (sqrt(v) + eps)
 *   adadelta       v = beta2 v + (1 - beta2) g^2;  d = sqrt(u + eps) / sqrt(v + eps) g;  w -= rate d;
 *                  u = beta2 u + (1 - beta2) d^2
 *   rprop          u *= beta2 where m g > 0, beta1 where m g < 0, kept within low .. high;  w -= u sign(g), but not where
 *                  m g < 0;  m = g, or 0 there */
#define FA_UPDATES(UPDATE)                                                                                          \
  UPDATE(sgd, NONE) UPDATE(sgd_momentum, M) UPDATE(sgd_nesterov, M)                                                 \
  UPDATE(adam, M | V) UPDATE(amsgrad, M | V | U) UPDATE(nadam, M | V) UPDATE(lion, M)                               \
  UPDATE(rmsprop, V) UPDATE(rmsprop_centered, V | U) UPDATE(rmsprop_momentum, M | V)                                \
  UPDATE(rmsprop_centered_momentum, M | V | U) UPDATE(adagrad, V) UPDATE(adadelta, V | U) UPDATE(rprop, M | U)

enum {
#define UPDATE(name, states) FA_UPDATE_##name,
  FA_UPDATES(UPDATE)
#undef UPDATE
  FA_UPDATE_COUNT
};
/* The state arrays of a rule, in the order m, v, u. */
enum { FA_STATE_NONE = 0, FA_STATE_M = 1, FA_STATE_V = 2, FA_STATE_U = 4, FA_STATES = 3 };

static inline const char *fa_update_name(int rule) {
#define UPDATE(name, states) #name,
  static const char *const names[] = {FA_UPDATES(UPDATE)};
#undef UPDATE
  return names[rule];
}
static inline int fa_update_states(int rule) {
  enum { NONE = FA_STATE_NONE, M = FA_STATE_M, V = FA_STATE_V, U = FA_STATE_U };
#define UPDATE(name, states) (states),
  static const int of_rule[] = {FA_UPDATES(UPDATE)};
#undef UPDATE
  return of_rule[rule];
}

typedef struct {
  fa_size n;
  void *parameters, *gradients; /* (n,) */
  void *state[FA_STATES];       /* m, v, u, (n,) each, as the rule has them */
  double gradient_scale, decay, shrink;
  double rate, rate_now, beta1, beta2, eps, root_scale, low, high;
} fa_update_args;

typedef void (*fa_training_kernel)(const void *args, fa_size first, fa_size last);

typedef struct {
  fa_training_kernel embedding_forward, embedding_backward;
  fa_training_kernel sum_squares;
  fa_training_kernel update[FA_UPDATE_COUNT], zero;
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
