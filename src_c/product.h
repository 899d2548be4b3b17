/* The matrix product: C = activation(A B + bias), or C + A B in place of A B; any strides.
 *
 *     p = {.M = ..., .a = ..., ...};
 *     ns = kernels->product.plan(&p);                     method, orientation, blocks: from shape and layout alone
 *     bytes = kernels->product.split(&p, threads);        pieces, and the workspace that each thread needs
 *     for piece in 0 .. p.pieces-1:                       in any order, on any threads
 *       kernels->product.run(&p, piece, workspace_of_that_thread);
 *
 * An element's order of summation follows from plan(), never from split(): equal bits for any number of threads. */
#ifndef FA_PRODUCT_H
#define FA_PRODUCT_H

#include "activations.h"
#include "config.h"

typedef struct {
  fa_size M, N, K;
  const void *a;       /* A[m, k] at a + m a_row + k a_col; all strides in elements, of any sign */
  fa_size a_row, a_col;
  const void *b;       /* B[k, n] at b + k b_row + n b_col */
  fa_size b_row, b_col;
  const void *packed;  /* or B as pack() left it (b is then not read), else NULL */
  void *c;             /* C[m, n] at c + m c_row + n c_col; overlaps neither A nor B */
  fa_size c_row, c_col;
  const void *bias;    /* bias[n] at bias + n bias_col, or NULL */
  fa_size bias_row, bias_col;
  int accumulate;      /* add to what C holds */
  fa_map_kernel activation; /* of the sum, or NULL */
  const void *parameter[FA_MAX_PARAMETERS]; /* its scalars, of the table's element type */
  int parameters;

  /* Set by plan(), which may also swap the operands: C^T = B^T A^T is the same product. */
  int method;
  int pack_a, pack_b;
  fa_size k_block;
  fa_size row_units, col_units; /* what may be shared out: tiles of rows, panels of columns */
  double pack_a_ns, pack_b_ns, rest_ns;
  /* Set by split(). */
  int row_pieces, col_pieces, pieces; /* pieces may outnumber the threads */
  int threads;
} fa_product;

typedef struct {
  double (*plan)(fa_product *p);                        /* estimated nanoseconds on one core */
  size_t (*split)(fa_product *p, int threads);          /* bytes of workspace a thread, 64-byte aligned, or 0 */
  void (*run)(const fa_product *p, int piece, void *workspace);
  fa_size (*packed_size)(fa_size K, fa_size N);         /* elements of a packed B */
  void (*pack)(fa_size K, fa_size N, const void *b, fa_size b_row, fa_size b_col, void *packed);
} fa_product_kernels;

#endif
