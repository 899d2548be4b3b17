/* Losses with their gradients, in one pass: of single elements, of rows, of alignments (CTC).
 *
 * Kernels have the signature of training.h: they work on the units [first, last) of a problem, and keep their sums, in
 * float64, one a unit, so that results have the same bits for any number of threads.
 *
 *   kernel              arguments            unit
 *   element[loss]       fa_element_loss_args a block of FA_LOSS_BLOCK elements
 *   row[loss]           fa_row_loss_args     a block of FA_LOSS_ROWS rows
 *   ctc                 fa_ctc_args          a sequence
 *
 * What the weight of an element or row is 0 for adds nothing and gets a zero gradient, whatever stands there. */
#ifndef FA_LOSSES_H
#define FA_LOSSES_H

#include "training.h"

enum {
  FA_LOSS_BLOCK = 4096,
  FA_LOSS_ROWS = 16,
};

/* An array whose element i stands at i / repeat % period; NULL for none, period 0 for no period. */
typedef struct {
  const void *data;
  fa_size repeat, period;
} fa_operand;

/* The term l of prediction p and target t, with parameters a, b, c; y = 1 for t > 0, else -1. t' = a t + b.
 *
 *   squared_error     (p - t)^2
 *   absolute_error    |p - t|
 *   huber             b (p - t)^2 / 2 up to |p - t| = a, b a (|p - t| - a / 2) beyond
 *   log_cosh          log cosh(p - t)
 *   quantile          max(a (t - p), (a - 1) (t - p))
 *   poisson           p - t log(p + a), with c also Stirling's t log t - t + log(2 pi t) / 2 for t > 1
 *   poisson_log       exp(p) - t p, the same
 *   binary            -a t log p - (1 - t) log(1 - p), each logarithm at least -100
 *   binary_logits     a t softplus(-p) + (1 - t) softplus(p)
 *   focal             b t (1 - s)^a softplus(-p) + c (1 - t) s^a softplus(p), s = sigmoid(p)
 *   hinge             max(0, a - y p)
 *   squared_hinge     max(0, a - y p)^2
 *   probability       -t' log p, the logarithm at least -100
 *   log_probability   -t' p
 *   kl                t (log t - p)
 *   kl_log            exp(t) (t - p)
 *
 * SQUARE: what the body gives is squared, in float64, where it neither overflows nor vanishes in float32. */
#define FA_ELEMENT_LOSSES(LOSS)                                                                                    \
  LOSS(squared_error, SQUARE) LOSS(absolute_error, PLAIN) LOSS(huber, PLAIN) LOSS(log_cosh, PLAIN)                 \
  LOSS(quantile, PLAIN) LOSS(poisson, PLAIN) LOSS(poisson_log, PLAIN) LOSS(binary, PLAIN)                          \
  LOSS(binary_logits, PLAIN) LOSS(focal, PLAIN) LOSS(hinge, PLAIN) LOSS(squared_hinge, SQUARE)                     \
  LOSS(probability, PLAIN) LOSS(log_probability, PLAIN) LOSS(kl, PLAIN) LOSS(kl_log, PLAIN)

/* Over rows of C numbers z with a class t, or a row of targets t_j; weights w_j of the classes, 1 unless given.
 *
 *   cross_entropy     w_t (1 - b) (log(sum_j exp(z_j)) - z_t) + b / C sum_k w_k (log(sum_j exp(z_j)) - z_k)
 *   dense_cross_entropy   sum_k w_k t'_k (log(sum_j exp(z_j)) - z_k), t' = (1 - b) t + b / C
 *   picked            -w_t log z_t, the logarithm at least -100; with a, -w_t z_t
 *   focal_classes     -w_t (1 - p)^a log p, p = softmax(z)_t
 *   margin            w_t / C sum_{j != t} max(0, a - z_t + z_j), with b its square
 *   cosine            1 - z.t / (max(|z|, a) max(|t|, a)) */
#define FA_ROW_LOSSES(LOSS) \
  LOSS(cross_entropy) LOSS(dense_cross_entropy) LOSS(picked) LOSS(focal_classes) LOSS(margin) LOSS(cosine)

enum {
#define LOSS(name, ...) FA_LOSS_##name,
  FA_ELEMENT_LOSSES(LOSS)
#undef LOSS
  FA_ELEMENT_LOSS_COUNT
};
enum {
#define LOSS(name) FA_ROW_LOSS_##name,
  FA_ROW_LOSSES(LOSS)
#undef LOSS
  FA_ROW_LOSS_COUNT
};

static inline const char *fa_element_loss_name(int loss) {
#define LOSS(name, ...) #name,
  static const char *const names[] = {FA_ELEMENT_LOSSES(LOSS)};
#undef LOSS
  return names[loss];
}
static inline const char *fa_row_loss_name(int loss) {
#define LOSS(name) #name,
  static const char *const names[] = {FA_ROW_LOSSES(LOSS)};
#undef LOSS
  return names[loss];
}

typedef struct {
  fa_size n;
  const void *prediction;           /* (n,) */
  fa_operand target, weight;
  fa_operand columns;               /* the parameter a where it is not the same for all elements */
  double a, b, c;
  double target_low, target_high; /* a target or prediction outside makes the loss NaN: the caller looks for it then */
  double low, high;
  double scale;   /* of the gradient */
  void *gradient; /* (n,), or NULL */
  void *each;     /* (n,), weighted terms; or NULL */
  double *loss;   /* (blocks,) */
} fa_element_loss_args;

typedef struct {
  fa_size rows, classes;
  const void *prediction;   /* (rows, classes) */
  const int64_t *labels;    /* (rows,), checked by the caller; or NULL */
  const void *target;       /* (rows, classes), or NULL */
  const void *class_weight; /* (classes,), or NULL */
  fa_operand weight;        /* of rows */
  int size_by_class;        /* the weights of the classes enter the size: cross_entropy and picked, as in PyTorch */
  int has_ignored;          /* rows with the label `ignored` have weight 0 */
  int64_t ignored;
  double a, b;
  double scale;    /* of the gradient */
  void *gradient;  /* (rows, classes), or NULL */
  void *each;      /* (rows,), weighted losses; or NULL */
  double *loss;    /* (blocks,) */
  double *correct; /* (blocks,): weight of the rows whose first largest entry is the target's; or NULL */
} fa_row_loss_args;

/* Connectionist temporal classification (Graves et al., 2006): minus the logarithm of the probability that logits of T
 * steps spell the labels, repetitions merged and blanks dropped; and its gradient by the logits. */
typedef struct {
  fa_size batch, steps, classes, most_labels; /* B, T, C, S */
  const void *logits;                         /* (B, T, C) */
  const int64_t *labels;                      /* (B, S), checked by the caller */
  const int64_t *label_counts, *step_counts;  /* (B,) */
  int64_t blank;
  const double *scale;  /* (B,), of the gradient */
  void *gradient;       /* (B, T, C), or NULL */
  int zero_infinity;    /* a sequence that cannot be spelt has loss 0 and no gradient, else +inf and NaN */
  void *room;           /* (B, fa_ctc_room): the kernel uses that of its first sequence, the rest is never touched */
  double *loss;         /* (B,) */
} fa_ctc_args;

typedef struct {
  fa_training_kernel element[FA_ELEMENT_LOSS_COUNT], row[FA_ROW_LOSS_COUNT];
  fa_training_kernel ctc;
} fa_loss_kernels;

/* Positions along the labels, padded to whole vectors with room on both sides. */
static inline fa_size fa_ctc_width(fa_size most_labels) {
  const fa_size lanes = 16;
  return FA_ROUND_UP(most_labels + 1, lanes) + 2 * lanes;
}
/* Elements of room for a sequence: the forward variables of all steps, and a few rows more. */
static inline fa_size fa_ctc_room(fa_size steps, fa_size most_labels) {
  return (2 * (steps + 1) + 6) * fa_ctc_width(most_labels);
}

#endif
