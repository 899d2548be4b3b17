/* Recurrent layers: packed weights, one time step forward and backward, and the products over many steps around them.
 *
 * Letters: T steps, B sequences, I inputs (`inputs` in code: C has a macro I), H hidden units. Units stand in groups of
 * VL (the lanes of a vector); the last group is padded with units whose weights are zero, so that they stay zero.
 * Hp = groups * VL. Four gates, see fa_cell. P units of h, fewer than H where an LSTM projects them; R operands of the
 * recurrent product: P, or P + 3 H with full_gates.
 *
 * Layouts that only these kernels see ("row" = one (t, b) pair):
 *   forward weights   [group][k][4 gates][VL]      one register tile holds all four gates of its units (an RNN: four
 *                                                  vectors of units, a group has 4 VL); fewer rows in bfloat16 and
 *                                                  int8, see fa_precision; with 16 registers in two parts, gates 0 and
 *                                                  1 of all k before 2 and 3, see tile_matrix
 *   bias              [group][4 gates][VL]         the sum of both biases
 *   backward weights  [column block][4 Hp][block]  rows in the order (group, gate, lane) of the gates' slabs;
 *                                                  blocks of 4 vectors of columns, in parts as above, then 2, then 1
 *   slabs             [group][row][4 gates][VL]    one buffer in turn: hoisted input product, gates, dZ
 *   h, c              [slot][B][Pp], [slot][B][Hp]
 *   layer norm        gains and their sums as the bias; the two products in slabs of their own (fa_recurrent_norm)
 * Row r of a slab is slot * B + b. A buffer with fewer slots than steps is a ring: the slot of step t is t & ring
 * (-1: one slot a step).
 *
 * Ragged sequences are sorted by length, longest first, so that step t has rows 0 .. n_t - 1 with n_t falling, and
 * their rows stand without gaps: row (t, b) is starts[t] + b, in the slabs, in x, y and all their gradients, and in h
 * and c behind the B rows of the initial state. starts[-1] = -B, starts[T] is the number of rows. NULL: all are equal.
 *
 * The caller owns the loop over time and the threads; a kernel does a share of one step or of one chunk of steps. All
 * pointers are to elements of the table's type; strides are in elements. */
#ifndef FA_RECURRENT_H
#define FA_RECURRENT_H

#include "activations.h"

/* Part of a step that one thread does: rows of the batch, groups of units (in backward: a block belongs to the share
 * that holds its first group). The bits of a result do not depend on the shares as long as a cut batch leaves 3 rows
 * to each. */
typedef struct {
  fa_size row_begin, row_end;
  fa_size group_begin, group_end;
} fa_recurrent_share;

/* What a panel of float32 kernels has of the weights: all, or, for inference alone, rounded ones. A lane then holds 2
 * or 4 successive k, the first in its lowest bits: bfloat16, or signed bytes, each weight = byte * scale / 256 with a
 * scale for every row of the weights; a row of these scales begins the panel. Only weights are rounded: x, h, c, biases
 * and sums are float32. */
typedef enum { FA_FULL, FA_BFLOAT16, FA_INT8 } fa_precision;
/* k in a row of words, and rows of the panel of a matrix of K columns. */
static inline int fa_word_rows(fa_precision precision) {
  return precision == FA_INT8 ? 4 : precision == FA_BFLOAT16 ? 2 : 1;
}
static inline fa_size fa_panel_rows(fa_precision precision, fa_size K) {
  const int word = fa_word_rows(precision);
  return (K + word - 1) / word + (precision == FA_INT8);
}

typedef enum { FA_LSTM, FA_GRU, FA_RNN } fa_cell_kind;
enum { FA_GATE_I, FA_GATE_F, FA_GATE_G, FA_GATE_O, FA_CELL_OUTPUT, FA_CELL_FUNCTIONS };
/* The columns of a GRU: the candidate's product with x, two gates, the candidate's product with h. The products leave out
 * the column that they do not have. */
enum { FA_GRU_N, FA_GRU_R, FA_GRU_Z, FA_GRU_H };

/* What a cell does between the products. The columns of its slabs are the gates i, f, g, o of one vector of units, those of
 * a GRU, or, as an RNN has but one, four vectors of units. */
typedef struct {
  fa_cell_kind kind;
  int plain;         /* LSTM with sigmoid gates, tanh for the rest and nothing more: a kernel of its own */
  int row_ih[4];     /* which block of H rows of weight_ih and bias_ih a column has; -1: none */
  int row_hh[4];     /* the same of weight_hh */
  int row_bias_hh[4]; /* and of bias_hh */
  int coupled;       /* f = 1 - i */
  int full_gates;    /* the gates i, f, o of the step before are operands of the recurrent product, too */
  int second;        /* a second product within the step: an LSTM's projection, or the candidate of a GRU that resets h
                        before the product */
  double clip;       /* bounds what goes into the gates and the candidate; INFINITY: none */
  double cell_clip;  /* bounds an LSTM's c; INFINITY: none */
  int layer_norm;    /* a step is done for whole rows: their statistics stand between its products and its gates */
  double norm_eps;
  int function[FA_CELL_FUNCTIONS]; /* FA_ACT_* of the columns and of the LSTM's output */
  double parameter[FA_CELL_FUNCTIONS][FA_MAX_PARAMETERS];
} fa_cell;

/* What a pass draws anew, or, for zoneout in inference, expects; each may be NULL. */
typedef struct {
  const void *drop;                /* row b, P: times h in the recurrent product, the same at every step */
  const void *take_h, *take_c;     /* row (t, b): how much of the step a unit takes; the rest of it stays as it was */
  fa_size take_h_row, take_c_row;  /* from row to row: P and H, or 0 if all are the same */
} fa_recurrent_masks;

/* Layer normalisation. x W_ih, h W_hh and, on its way out, an LSTM's c each become xhat = (v - mean) / sqrt(var + eps)
 * over all that a row has of them; the gates get gain_ih xhat_ih + gain_hh xhat_hh + bias, the output
 * gain_c xhat_c + shift_c. */
typedef struct {
  const void *gain_ih, *gain_hh; /* as bias */
  const void *gain_c, *shift_c;  /* [Hp], an LSTM's */
  void *ih; /* xhat of the input product, as the slabs; in inference it is the slabs */
  void *hh; /* the recurrent product, then its xhat: as the slabs in training, rows of one step in inference */
  fa_size hh_rows;
  void *scale_ih, *scale_hh; /* of each row, 1 / sqrt(var + eps); NULL in inference */
  void *statistics_c;        /* of each row, mean and scale; rows as those of hh */
} fa_recurrent_norm;

typedef struct {
  fa_size inputs, H, P, R;
  const fa_cell *cell;
  fa_precision precision; /* of ih, hh and second; backward weights are full */
  const void *weight_ih, *weight_hh; /* (G H, I), (G H, P), C order, of the G gates that have rows */
  const void *bias_ih, *bias_hh;     /* (G H), either may be NULL */
  const void *weight_peephole;       /* the gates with rows among i, f, o; H; or NULL */
  const void *weight_gates;          /* (3 H, 3 H) of full_gates: rows and columns i, f, o; or NULL */
  const void *weight_second;         /* (P, H), or NULL */
  const void *norm_ih, *norm_hh;     /* (G H), gains of layer_norm, or NULL */
  const void *norm_c, *norm_c_shift; /* (H), an LSTM's, or NULL */
  void *ih, *hh, *bias;              /* forward weights */
  void *peephole;                    /* [3: i, f, o][Hp], or NULL */
  void *second;                      /* forward weights as those of an RNN of P units */
  void *hh_back, *ih_back;           /* backward weights, or NULL */
  void *second_back;
  void *gain_ih, *gain_hh, *gain_c, *shift_c; /* as fa_recurrent_norm has them */
} fa_recurrent_pack;

typedef struct {
  fa_size T, B, inputs, H, P, R;
  const fa_size *starts;
  const fa_cell *cell;
  fa_precision precision;
  const void *ih, *hh, *bias, *peephole, *second;
  const void *x; /* row (t, b) begins at x + t * x_t + b * x_b (x_t unused if ragged); its I elements are contiguous */
  fa_size x_t, x_b;
  void *y; /* the same for the P elements of each h; NULL if nobody wants them */
  fa_size y_t, y_b;
  void *h, *c; /* slot 0 holds the initial state, slot (t + 1) & ring receives step t */
  fa_size h_ring, c_ring;
  fa_recurrent_masks masks;
  void *operand; /* slots as h: what the recurrent product reads, if that is not h itself: R elements, rows of Rp */
  void *mid;     /* slots as h, without an initial one, [B][Hp]: what the second product reads */
  void *slabs; /* NULL if neither hoisted nor keep_gates */
  fa_size slab_rows, slab_ring;
  fa_recurrent_norm norm;
  int hoisted;    /* the input product stands in the slabs already (input_product); always with layer_norm */
  int keep_gates; /* training: leave the gates in the slabs, before their activation where its derivative needs that */
} fa_recurrent_forward;

/* Gradients of the gains: summed up row by row of the batch, whoever does a row, and added together at the end. */
typedef struct {
  void *c, *xhat_c;          /* [B][Hp]: gradient of what c's normalisation gives; xhat, then gradient of c */
  void *sum_ih, *sum_hh;     /* [B] rows as gain_ih */
  void *sum_c, *sum_shift_c; /* [B][Hp] */
  void *of_ih, *of_hh;       /* (G H): added to in the end */
  void *of_c, *of_shift_c;   /* (H), an LSTM's */
} fa_recurrent_norm_gradient;

typedef struct {
  fa_size T, B, inputs, H, P;
  const fa_size *starts;
  const fa_cell *cell;
  const void *hh_back, *ih_back, *peephole, *second_back;
  const void *dy; /* as y above, or NULL */
  fa_size dy_t, dy_b;
  void *dx; /* as x above, or NULL */
  fa_size dx_t, dx_b;
  int dx_adds; /* dx += instead of = */
  const void *h, *c; /* slots of all steps, as forward left them; c of an LSTM alone */
  void *slabs;       /* gates of all steps; dZ when a step is done */
  fa_recurrent_norm norm; /* with layer_norm ih and hh hold dZ of the two products then */
  fa_recurrent_norm_gradient norm_gradient;
  fa_size slab_rows;
  void *second_slabs; /* dZ of the second product */
  void *dh, *dc;     /* [B][Pp], [B][Hp]: gradient of the final state; of the initial one after step -1 */
  void *dgates;      /* full_gates: [3: i, f, o][B][Hp], what the products of the step after gave */
  void *dmid;        /* [B][Hp]: gradient of what the second product reads, or of h where c is normalised */
  void *past;        /* [B][Pp]: what goes past the products to h before the step; NULL if all goes through them */
  fa_recurrent_masks masks;
} fa_recurrent_backward;

/* dW += dZ^T A for the rows of some steps, where row (t, b) of A is what dZ was multiplied with. */
typedef struct {
  fa_size B, H, K;
  const fa_size *starts;
  const fa_cell *cell;
  const int *row; /* row_ih or row_hh of the cell */
  const void *a; /* row (t, b) begins at a + t * a_t + b * a_b, K elements; if ragged, at a + (a_starts[t] + b) * a_b */
  fa_size a_t, a_b;
  const fa_size *a_starts;
  void *packed; /* scratch of the chunk, [column block][row][block], ceil(K / VL) vectors a row */
  const void *slabs;
  const void *gates; /* dZ of biases and peepholes: slabs, but for layer_norm */
  fa_size slab_rows;
  void *gradient;        /* (G H, K) in C order */
  void *bias_a, *bias_b; /* (G H), gradients of bias_ih and bias_hh, or NULL */
  const void *c;         /* slots of all steps, for the peepholes */
  void *peephole;        /* gradient of weight_peephole, or NULL */
} fa_recurrent_gradient;

typedef struct {
  void (*pack)(const fa_recurrent_pack *, fa_size group_begin, fa_size group_end);
  /* Input product of steps t_begin .. t_end - 1 into the slabs, normalised if it is to be, bias included. */
  void (*input)(const fa_recurrent_forward *, const fa_recurrent_share *, fa_size t_begin, fa_size t_end);
  void (*step)(const fa_recurrent_forward *, const fa_recurrent_share *, fa_size t);
  /* t from T - 1 down to 0; then t = -1, which leaves the gradient of the initial h in dh. */
  void (*backward_step)(const fa_recurrent_backward *, const fa_recurrent_share *, fa_size t);
  /* Of steps t_begin .. t_end - 1; part of parts: which share of the tiles is this thread's. */
  void (*input_gradient)(const fa_recurrent_backward *, fa_size t_begin, fa_size t_end, int part, int parts);
  void (*gradient_pack)(const fa_recurrent_gradient *, fa_size t_begin, fa_size t_end, int part, int parts);
  void (*gradient)(const fa_recurrent_gradient *, fa_size t_begin, fa_size t_end, int part, int parts);
  /* After all steps, with layer_norm. */
  void (*norm_gradient)(const fa_recurrent_backward *, int part, int parts);
} fa_recurrent_kernels;

#endif
