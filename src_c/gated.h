/* Gated linear units: value f(gate), where value and gate are the two halves of each row of x. */
#ifndef FA_GATED_H
#define FA_GATED_H

#include "activations.h"
#include "training.h"

/* The activations that gate. */
#define FA_GATES(X) X(sigmoid) X(silu) X(gelu) X(gelu_tanh) X(relu)

/* Element i of row r stands at r * n + i of y and dy, at r * 2 n + i of the rest. */
typedef struct {
  fa_size n; /* elements of a half */
  const void *value, *gate, *dy;
  void *y;              /* of forward */
  void *dvalue, *dgate; /* of backward */
  double parameter[FA_MAX_PARAMETERS];
} fa_gated_args;

typedef struct { /* their unit is an element of y or dy */
  fa_training_kernel forward;  /* y = value f(gate) */
  fa_training_kernel backward; /* dvalue = dy f(gate), dgate = dy value f'(gate) */
} fa_gated_kernels;

#endif
