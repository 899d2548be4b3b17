/* The table of kernels: one filled in for each (instruction set, element type), one pair of them active at a time.
 *
 * A family of kernels brings a header with its argument structs and its table (all data pointers are void *, their
 * element type is the table's), and an .inl with the bodies that fills the table in. */
#ifndef FA_KERNELS_H
#define FA_KERNELS_H

#include "activations.h"
#include "gated.h"
#include "losses.h"
#include "norm.h"
#include "pooling.h"
#include "probe.h"
#include "product.h"
#include "recurrent.h"
#include "rows.h"
#include "slopes.h"
#include "training.h"

typedef struct {
  const char *isa;
  int lanes;    /* elements in a vector */
  int itemsize; /* bytes of an element */
  fa_activation_kernels activation;
  const fa_gated_kernels *gated; /* [FA_MAP_COUNT], of the activations that gate */
  const fa_rows_kernel *rows; /* [FA_ROWS_COUNT] */
  fa_product_kernels product;
  fa_recurrent_kernels recurrent;
  fa_training_kernels training;
  fa_norm_kernels norm;
  fa_pooling_kernels pooling;
  fa_slopes_kernels slopes;
  fa_loss_kernels losses;
  fa_probe_kernels probe;
} fa_kernels;

#endif
