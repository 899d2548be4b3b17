/* One compilation unit per (FA_ISA, FA_DTYPE): every kernel body over that unit's vector verbs, and their table.
 * Everything is static but the table, so code for one instruction set can't be linked into another's. */
#include "kernels.h"

#include "fpenv.h"
#include "vec.h"

#include "math.inl"
#include "math_pairs.inl"
#include "activations.inl"
#include "gated.inl"
#include "rows.inl"
#include "tile.inl"
#include "product.inl"
#include "recurrent_products.inl"
#include "cells.inl"
#include "recurrent_norm.inl"
#include "recurrent.inl"
#include "training.inl"
#include "norm.inl"
#include "pooling.inl"
#include "slopes.inl"
#include "losses.inl"
#include "ctc.inl"
#include "probe.inl"

const fa_kernels FA_SUFFIXED(fa_kernels) = {
    .isa = FA_STRING(FA_ISA),
    .lanes = VL,
    .itemsize = (int)sizeof(real),
    .activation = ACTIVATION_KERNELS,
    .gated = gated_kernels,
    .rows = rows_kernels,
    .product = PRODUCT_KERNELS,
    .recurrent = RECURRENT_KERNELS,
    .training = TRAINING_KERNELS,
    .norm = NORM_KERNELS,
    .pooling = POOLING_KERNELS,
    .slopes = SLOPES_KERNELS,
    .losses = LOSS_KERNELS,
    .probe = PROBE_KERNELS,
};
