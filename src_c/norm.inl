/* Bodies of the normalisation kernels: see norm.h.
 *
 * Rows go NORM_TOGETHER at a time: what waits for its last addition in one does something in another, and what belongs to
 * a column (gain, bias, sums) is loaded once for all of them. The variance comes from a second pass over the row, which
 * is in L1: E[x^2] - E[x]^2 has no correct digit left in float32 where the mean is some thousand deviations away from 0.
 * Sums along a row go to float64 every NORM_FLUSH elements. */

enum { NORM_TOGETHER = 4, NORM_FLUSH = 64 * VL, NORM_TILE = 4 };

/* The first `count` lanes at p, zero in the others; `whole`, a literal, says that all are there. */
#define NORM_LOAD(p) (whole ? v_load(p) : v_load_n(p, count))
#define NORM_STORE(p, v) (whole ? v_store(p, v) : v_store_n(p, v, count))
/* Does something at every vector of begin .. end, of `count` lanes. */
#define NORM_EACH(begin, end, ...)                                  \
  do {                                                              \
    fa_size j = (begin);                                            \
    for (; j + VL <= (end); j += VL) {                              \
      const int whole = 1;                                          \
      const fa_size count = VL;                                     \
      (void)count;                                                  \
      __VA_ARGS__                                                   \
    }                                                               \
    if (j < (end)) {                                                \
      const int whole = 0;                                          \
      const fa_size count = (end) - j;                              \
      __VA_ARGS__                                                   \
    }                                                               \
  } while (0)
#define NORM_ROWS(r) FA_UNROLL for (int r = 0; r < together; r++)

/* ---- rows by their own statistics ------------------------------------------------------------------------------ */

typedef struct {
  vec mean, scale; /* scale: 1 / sqrt(var + eps) */
} norm_of_row;

/* Of `together` rows, a literal, as is `centred`. */
FA_INLINE void norm_row_statistics(const fa_norm_args *a, fa_size first, const int together, const int centred,
                                   norm_of_row *of) {
  const fa_size n = a->n;
  const real *x = (const real *)a->x + first * n;
  double total[NORM_TOGETHER] = {0};
  vec sum[NORM_TOGETHER];
  NORM_ROWS(r) of[r].mean = v_zero();
  if (centred) {
    for (fa_size begin = 0; begin < n; begin += NORM_FLUSH) {
      NORM_ROWS(r) sum[r] = v_zero();
      NORM_EACH(begin, FA_MIN(begin + NORM_FLUSH, n), NORM_ROWS(r) sum[r] = v_add(sum[r], NORM_LOAD(x + r * n + j)););
      NORM_ROWS(r) total[r] += (double)v_hsum(sum[r]);
    }
    NORM_ROWS(r) of[r].mean = v_set1((real)(total[r] / (double)n));
    NORM_ROWS(r) total[r] = 0;
  }
  for (fa_size begin = 0; begin < n; begin += NORM_FLUSH) {
    NORM_ROWS(r) sum[r] = v_zero();
    NORM_EACH(begin, FA_MIN(begin + NORM_FLUSH, n), NORM_ROWS(r) {
      vec d = NORM_LOAD(x + r * n + j);
      if (centred) d = v_sub(d, of[r].mean);
      if (!whole) d = v_sel(m_first(count), d, v_zero());
      sum[r] = v_mac(d, d, sum[r]);
    });
    NORM_ROWS(r) total[r] += (double)v_hsum(sum[r]);
  }
  NORM_ROWS(r) of[r].scale = v_set1((real)(1 / sqrt(total[r] / (double)n + a->eps)));
}

FA_INLINE void norm_rows_forward(const fa_norm_args *a, fa_size first, const int together, const int centred) {
  const fa_size n = a->n;
  const real *x = (const real *)a->x + first * n, *gain = a->gain, *bias = a->bias;
  real *y = (real *)a->y + first * n;
  norm_of_row of[NORM_TOGETHER];
  norm_row_statistics(a, first, together, centred, of);
  NORM_EACH(0, n, {
    const vec g = gain ? NORM_LOAD(gain + j) : v_set1(1), b = bias ? NORM_LOAD(bias + j) : v_zero();
    NORM_ROWS(r) {
      vec d = NORM_LOAD(x + r * n + j);
      if (centred) d = v_sub(d, of[r].mean);
      NORM_STORE(y + r * n + j, v_fma(v_mul(d, of[r].scale), g, b));
    }
  });
  if (!a->statistics) return;
  NORM_ROWS(r) {
    real *to = (real *)a->statistics + 2 * (first + r);
    v_store_n(to, of[r].mean, 1);
    v_store_n(to + 1, of[r].scale, 1);
  }
}

/* `sums` is that of the block. */
FA_INLINE void norm_rows_backward(const fa_norm_args *a, fa_size first, const int together, const int centred,
                                  real *sums) {
  const fa_size n = a->n;
  const real *x = (const real *)a->x + first * n, *dy = (const real *)a->dy + first * n, *gain = a->gain;
  real *dx = a->dx ? (real *)a->dx + first * n : NULL;
  norm_of_row of[NORM_TOGETHER];
  vec mean_a[NORM_TOGETHER], along[NORM_TOGETHER];
  NORM_ROWS(r) {
    const real *from = (const real *)a->statistics + 2 * (first + r);
    of[r].mean = v_set1(from[0]);
    of[r].scale = v_set1(from[1]);
    mean_a[r] = along[r] = v_zero();
  }
#define NORM_XHAT(r) v_mul(centred ? v_sub(NORM_LOAD(x + (r)*n + j), of[r].mean) : NORM_LOAD(x + (r)*n + j), of[r].scale)
  if (dx) {
    double total_a[NORM_TOGETHER] = {0}, total_ax[NORM_TOGETHER] = {0};
    for (fa_size begin = 0; begin < n; begin += NORM_FLUSH) {
      vec sum_a[NORM_TOGETHER], sum_ax[NORM_TOGETHER];
      NORM_ROWS(r) sum_a[r] = sum_ax[r] = v_zero();
      NORM_EACH(begin, FA_MIN(begin + NORM_FLUSH, n), {
        const vec g = gain ? NORM_LOAD(gain + j) : v_set1(1);
        NORM_ROWS(r) { /* beyond the tail dy is 0 */
          const vec d = v_mul(NORM_LOAD(dy + r * n + j), g);
          if (centred) sum_a[r] = v_add(sum_a[r], d);
          sum_ax[r] = v_mac(d, NORM_XHAT(r), sum_ax[r]);
        }
      });
      NORM_ROWS(r) {
        if (centred) total_a[r] += (double)v_hsum(sum_a[r]);
        total_ax[r] += (double)v_hsum(sum_ax[r]);
      }
    }
    NORM_ROWS(r) mean_a[r] = v_set1((real)(total_a[r] / (double)n));
    NORM_ROWS(r) along[r] = v_set1((real)(total_ax[r] / (double)n));
  }
  NORM_EACH(0, n, {
    const vec g = gain ? NORM_LOAD(gain + j) : v_set1(1);
    vec sum_gain = v_zero(), sum_bias = v_zero();
    if (sums) sum_gain = NORM_LOAD(sums + j), sum_bias = NORM_LOAD(sums + n + j);
    NORM_ROWS(r) {
      const vec d = NORM_LOAD(dy + r * n + j), xhat = NORM_XHAT(r);
      sum_gain = v_mac(d, xhat, sum_gain);
      sum_bias = v_add(d, sum_bias);
      if (!dx) continue;
      vec inner = v_mul(d, g);
      if (centred) inner = v_sub(inner, mean_a[r]);
      NORM_STORE(dx + r * n + j, v_mul(of[r].scale, v_fnma(xhat, along[r], inner)));
    }
    if (sums) {
      NORM_STORE(sums + j, sum_gain);
      NORM_STORE(sums + n + j, sum_bias);
    }
  });
#undef NORM_XHAT
}

/* Rows row .. end, NORM_TOGETHER at a time and then one by one; and those of the blocks, with the sums of each. */
#define NORM_EACH_ROW(row, end, many, one)                                                         \
  for (; row + NORM_TOGETHER <= end; row += NORM_TOGETHER) many;                                   \
  for (; row < end; row++) one
#define NORM_BLOCKS(a, first, last, many, one)                                                     \
  for (fa_size block = (first); block < (last); block++) {                                         \
    fa_size row = block * FA_NORM_ROWS, end = FA_MIN(row + FA_NORM_ROWS, (a)->rows);               \
    real *sums = (a)->sums ? (real *)(a)->sums + block * 2 * (a)->n : NULL;                        \
    if (sums) memset(sums, 0, (size_t)(2 * (a)->n) * sizeof(real));                                \
    NORM_EACH_ROW(row, end, many, one);                                                            \
  }

#define NORM_ROW_KERNELS(name, centred)                                                            \
  static void norm_##name(const void *args, fa_size first, fa_size last) {                         \
    const fa_norm_args *a = args;                                                                  \
    NORM_BLOCKS(a, first, last, norm_rows_forward(a, row, NORM_TOGETHER, centred),                 \
                norm_rows_forward(a, row, 1, centred))                                             \
  }                                                                                                \
  static void norm_##name##_backward(const void *args, fa_size first, fa_size last) {              \
    const fa_norm_args *a = args;                                                                  \
    NORM_BLOCKS(a, first, last, norm_rows_backward(a, row, NORM_TOGETHER, centred, sums),          \
                norm_rows_backward(a, row, 1, centred, sums))                                      \
  }
NORM_ROW_KERNELS(layer, 1)
NORM_ROW_KERNELS(rms, 0)

/* ---- columns by theirs ------------------------------------------------------------------------------------------ */

/* Means and sums of squared deviations of the columns tile .. end over some rows. */
FA_INLINE void norm_tile_moments(const real *x, fa_size n, fa_size rows, fa_size width, real *mean, real *squares) {
  vec sum[NORM_TILE], centre[NORM_TILE];
  const vec share = v_set1(1 / (real)rows);
  for (int k = 0; k < NORM_TILE; k++) sum[k] = v_zero();
  if (FA_LIKELY(width == NORM_TILE * VL)) {
    for (fa_size i = 0; i < rows; i++) FA_UNROLL for (int k = 0; k < NORM_TILE; k++)
        sum[k] = v_add(sum[k], v_load(x + i * n + k * VL));
    for (int k = 0; k < NORM_TILE; k++) centre[k] = v_mul(sum[k], share), sum[k] = v_zero();
    for (fa_size i = 0; i < rows; i++) FA_UNROLL for (int k = 0; k < NORM_TILE; k++) {
        const vec d = v_sub(v_load(x + i * n + k * VL), centre[k]);
        sum[k] = v_mac(d, d, sum[k]);
      }
    for (int k = 0; k < NORM_TILE; k++) v_store(mean + k * VL, centre[k]), v_store(squares + k * VL, sum[k]);
    return;
  }
  NORM_EACH(0, width, {
    vec s = v_zero(), q = v_zero();
    for (fa_size i = 0; i < rows; i++) s = v_add(s, NORM_LOAD(x + i * n + j));
    const vec c = v_mul(s, share);
    for (fa_size i = 0; i < rows; i++) {
      const vec d = v_sub(NORM_LOAD(x + i * n + j), c);
      q = v_mac(d, d, q);
    }
    NORM_STORE(mean + j, c);
    NORM_STORE(squares + j, q);
  });
}

static void norm_batch_moments(const void *args, fa_size first, fa_size last) {
  const fa_norm_args *a = args;
  for (fa_size block = first; block < last; block++) {
    const fa_size row = block * FA_NORM_ROWS, rows = FA_MIN(FA_NORM_ROWS, a->rows - row);
    const real *x = (const real *)a->x + row * a->n;
    real *mean = (real *)a->sums + block * 2 * a->n;
    for (fa_size tile = 0; tile < a->n; tile += NORM_TILE * VL) /* stays in L1 between the two passes */
      norm_tile_moments(x + tile, a->n, rows, FA_MIN(NORM_TILE * VL, a->n - tile), mean + tile, mean + a->n + tile);
  }
}

/* The moments of the blocks put together (Chan, Golub and LeVeque 1979), in float64. */
static void norm_batch_statistics(const void *args, fa_size first, fa_size last) {
  const fa_norm_args *a = args;
  const fa_size blocks = FA_CEIL_DIV(a->rows, FA_NORM_ROWS);
  const double R = (double)a->rows;
  for (fa_size begin = first * FA_NORM_COLUMNS; begin < FA_MIN(last * FA_NORM_COLUMNS, a->n);
       begin += FA_NORM_COLUMNS) {
    const int count = (int)FA_MIN(FA_NORM_COLUMNS, a->n - begin);
    double mean[FA_NORM_COLUMNS] = {0}, squares[FA_NORM_COLUMNS] = {0};
    for (fa_size block = 0; block < blocks; block++) {
      const real *of = (const real *)a->sums + block * 2 * a->n + begin;
      const double weight = (double)FA_MIN(FA_NORM_ROWS, a->rows - block * FA_NORM_ROWS);
      for (int k = 0; k < count; k++) mean[k] += weight * (double)of[k];
    }
    for (int k = 0; k < count; k++) mean[k] /= R;
    for (fa_size block = 0; block < blocks; block++) {
      const real *of = (const real *)a->sums + block * 2 * a->n + begin;
      const double weight = (double)FA_MIN(FA_NORM_ROWS, a->rows - block * FA_NORM_ROWS);
      for (int k = 0; k < count; k++) {
        const double d = (double)of[k] - mean[k];
        squares[k] += (double)of[a->n + k] + weight * d * d;
      }
    }
    real *statistics = (real *)a->statistics + begin;
    real *running_mean = (real *)a->running_mean + begin, *running_variance = (real *)a->running_variance + begin;
    for (int k = 0; k < count; k++) {
      statistics[k] = (real)mean[k];
      statistics[a->n + k] = (real)(1 / sqrt(squares[k] / R + a->eps));
      running_mean[k] = (real)((1 - a->momentum) * (double)running_mean[k] + a->momentum * mean[k]);
      running_variance[k] =
          (real)((1 - a->momentum) * (double)running_variance[k] + a->momentum * (squares[k] / (R - 1)));
    }
  }
}

static void norm_batch_running(const void *args, fa_size first, fa_size last) {
  const fa_norm_args *a = args;
  const real *mean = a->running_mean, *variance = a->running_variance;
  real *statistics = a->statistics;
  for (fa_size k = first * FA_NORM_COLUMNS; k < FA_MIN(last * FA_NORM_COLUMNS, a->n); k++) {
    statistics[k] = mean[k];
    statistics[a->n + k] = (real)(1 / sqrt((double)variance[k] + a->eps));
  }
}

FA_INLINE void norm_columns_forward(const fa_norm_args *a, fa_size first, const int together) {
  const fa_size n = a->n;
  const real *x = (const real *)a->x + first * n, *gain = a->gain, *bias = a->bias, *statistics = a->statistics;
  real *y = (real *)a->y + first * n;
  NORM_EACH(0, n, {
    const vec mean = NORM_LOAD(statistics + j), scale = NORM_LOAD(statistics + n + j);
    const vec g = gain ? v_mul(NORM_LOAD(gain + j), scale) : scale, b = bias ? NORM_LOAD(bias + j) : v_zero();
    NORM_ROWS(r) NORM_STORE(y + r * n + j, v_fma(v_sub(NORM_LOAD(x + r * n + j), mean), g, b));
  });
}
static void norm_batch(const void *args, fa_size first, fa_size last) {
  const fa_norm_args *a = args;
  fa_size row = first * FA_NORM_ROWS, end = FA_MIN(last * FA_NORM_ROWS, a->rows);
  NORM_EACH_ROW(row, end, norm_columns_forward(a, row, NORM_TOGETHER), norm_columns_forward(a, row, 1));
}

/* Sums of dy xhat and of dy. */
FA_INLINE void norm_columns_sums(const fa_norm_args *a, fa_size first, const int together, real *sums) {
  const fa_size n = a->n;
  const real *x = (const real *)a->x + first * n, *dy = (const real *)a->dy + first * n, *statistics = a->statistics;
  NORM_EACH(0, n, {
    const vec mean = NORM_LOAD(statistics + j), scale = NORM_LOAD(statistics + n + j);
    vec sum_gain = NORM_LOAD(sums + j), sum_bias = NORM_LOAD(sums + n + j);
    NORM_ROWS(r) {
      const vec d = NORM_LOAD(dy + r * n + j);
      sum_gain = v_mac(d, v_mul(v_sub(NORM_LOAD(x + r * n + j), mean), scale), sum_gain);
      sum_bias = v_add(d, sum_bias);
    }
    NORM_STORE(sums + j, sum_gain);
    NORM_STORE(sums + n + j, sum_bias);
  });
}
static void norm_batch_sums(const void *args, fa_size first, fa_size last) {
  const fa_norm_args *a = args;
  NORM_BLOCKS(a, first, last, norm_columns_sums(a, row, NORM_TOGETHER, sums), norm_columns_sums(a, row, 1, sums))
}

FA_INLINE void norm_columns_backward(const fa_norm_args *a, fa_size first, const int together) {
  const fa_size n = a->n;
  const real *x = (const real *)a->x + first * n, *dy = (const real *)a->dy + first * n;
  const real *gain = a->gain, *statistics = a->statistics, *totals = a->totals;
  real *dx = (real *)a->dx + first * n;
  const vec share = v_set1((real)a->share);
  NORM_EACH(0, n, {
    const vec mean = NORM_LOAD(statistics + j), scale = NORM_LOAD(statistics + n + j);
    const vec g = gain ? v_mul(NORM_LOAD(gain + j), scale) : scale;
    const vec along = v_mul(v_mul(NORM_LOAD(totals + j), share), scale), of_dy = v_mul(NORM_LOAD(totals + n + j), share);
    NORM_ROWS(r) {
      const vec d = v_sub(NORM_LOAD(dy + r * n + j), of_dy);
      NORM_STORE(dx + r * n + j, v_mul(g, v_fnma(v_sub(NORM_LOAD(x + r * n + j), mean), along, d)));
    }
  });
}
static void norm_batch_backward(const void *args, fa_size first, fa_size last) {
  const fa_norm_args *a = args;
  fa_size row = first * FA_NORM_ROWS, end = FA_MIN(last * FA_NORM_ROWS, a->rows);
  NORM_EACH_ROW(row, end, norm_columns_backward(a, row, NORM_TOGETHER), norm_columns_backward(a, row, 1));
}

/* ---- gradients of gain and bias ---------------------------------------------------------------------------------- */

FA_INLINE void norm_add_up(const fa_norm_args *a, fa_size begin, fa_size which, real *gradient) {
  const fa_size blocks = FA_CEIL_DIV(a->rows, FA_NORM_ROWS);
  const int count = (int)FA_MIN(FA_NORM_COLUMNS, a->n - begin);
  double total[FA_NORM_COLUMNS] = {0};
  for (fa_size block = 0; block < blocks; block++) {
    const real *of = (const real *)a->sums + (2 * block + which) * a->n + begin;
    for (int k = 0; k < count; k++) total[k] += (double)of[k];
  }
  for (int k = 0; k < count; k++) {
    if (a->totals) ((real *)a->totals)[which * a->n + begin + k] = (real)total[k];
    if (gradient) gradient[begin + k] += (real)total[k];
  }
}
static void norm_gradients(const void *args, fa_size first, fa_size last) {
  const fa_norm_args *a = args;
  for (fa_size begin = first * FA_NORM_COLUMNS; begin < FA_MIN(last * FA_NORM_COLUMNS, a->n);
       begin += FA_NORM_COLUMNS) {
    norm_add_up(a, begin, 0, a->of_gain);
    norm_add_up(a, begin, 1, a->of_bias);
  }
}

#define NORM_KERNELS                                                                                                   \
  {                                                                                                                    \
    norm_layer, norm_layer_backward, norm_rms, norm_rms_backward, norm_batch_moments, norm_batch_statistics,           \
        norm_batch_running, norm_batch, norm_batch_sums, norm_batch_backward, norm_gradients                           \
  }
