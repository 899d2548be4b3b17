/* Row kernels: functions of whole rows of numbers. Bodies in rows.inl. */
#ifndef FA_ROWS_H
#define FA_ROWS_H

#include "config.h"

enum { FA_ROWS_OPERANDS = 4 };

/* `rows` rows; an operand has n elements a row where the signature says (n), one where it says (). Strides are in bytes; a
 * row stride of 0 repeats a row or value. out may be an input at the same strides. */
typedef struct {
  fa_size rows, n;
  const void *in[FA_ROWS_OPERANDS];
  fa_size in_row_stride[FA_ROWS_OPERANDS], in_stride[FA_ROWS_OPERANDS];
  void *out;
  fa_size out_row_stride, out_stride;
} fa_rows_args;

typedef void (*fa_rows_kernel)(const fa_rows_args *);

/* ROW(name, signature): backward kernels take dy, then y or, where noted, x; `scaled` ones take the temperature last,
 * standardize epsilon and what stands for a masked entry (NaN: nothing), normalize p (1, 2 or infinity) and epsilon. */
#define FA_ROWS_TABLE(ROW)                                                                                             \
  ROW(softmax, "(n)->(n)")                                                                                             \
  ROW(softmax_backward, "(n),(n)->(n)")                                                                                \
  ROW(softmax_scaled, "(n),()->(n)")                                                                                   \
  ROW(softmax_scaled_backward, "(n),(n),()->(n)")                                                                      \
  ROW(softmin, "(n)->(n)")                                                                                             \
  ROW(softmin_backward, "(n),(n)->(n)")                                                                                \
  ROW(softmin_scaled, "(n),()->(n)")                                                                                   \
  ROW(softmin_scaled_backward, "(n),(n),()->(n)")                                                                      \
  ROW(log_softmax, "(n)->(n)")                                                                                         \
  ROW(log_softmax_backward, "(n),(n)->(n)")                                                                            \
  ROW(log_softmax_scaled, "(n),()->(n)")                                                                               \
  ROW(log_softmax_scaled_backward, "(n),(n),()->(n)")                                                                  \
  ROW(logsumexp, "(n)->()")                                                                                            \
  ROW(logsumexp_backward, "(),(n)->(n)") /* from x */                                                                  \
  ROW(hardmax, "(n)->(n)")                                                                                             \
  ROW(hardmax_backward, "(n),(n)->(n)")                                                                                \
  ROW(maxout, "(n)->()")                                                                                               \
  ROW(maxout_backward, "(),(n)->(n)") /* from x */                                                                     \
  ROW(sparsemax, "(n)->(n)")                                                                                           \
  ROW(sparsemax_backward, "(n),(n)->(n)")                                                                              \
  ROW(standardize, "(n),(),()->(n)")                                                                                   \
  ROW(standardize_backward, "(n),(n),(),()->(n)") /* from x */                                                         \
  ROW(normalize, "(n),(),()->(n)")                                                                                     \
  ROW(normalize_backward, "(n),(n),(),()->(n)") /* from x */

enum {
#define FA_ROW_INDEX(name, signature) FA_ROWS_##name,
  FA_ROWS_TABLE(FA_ROW_INDEX)
#undef FA_ROW_INDEX
  FA_ROWS_COUNT
};

typedef struct {
  const char *name, *signature;
} fa_rows_info;

static inline const fa_rows_info *fa_rows_describe(int index) {
#define FA_ROW_INFO(name, signature) {#name, signature},
  static const fa_rows_info info[] = {FA_ROWS_TABLE(FA_ROW_INFO)};
#undef FA_ROW_INFO
  return &info[index];
}

#endif
