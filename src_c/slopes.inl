/* Bodies of the leaky rectifier with a slope for each column: see slopes.h. Rows go together as in norm.inl, so that a
 * vector of slopes and of sums is loaded once for all of them. */

FA_INLINE void slopes_forward_rows(const fa_slopes_args *a, fa_size first, const int together) {
  const fa_size n = a->n;
  const real *x = (const real *)a->x + first * n, *slopes = a->alpha;
  real *y = (real *)a->y + first * n;
  NORM_EACH(0, n, {
    const vec alpha = NORM_LOAD(slopes + j);
    NORM_ROWS(r) NORM_STORE(y + r * n + j, leaky_relu_f(NORM_LOAD(x + r * n + j), &alpha, 0, NULL));
  });
}
static void slopes_forward(const void *args, fa_size first, fa_size last) {
  const fa_slopes_args *a = args;
  fa_size row = first * FA_SLOPES_ROWS, end = FA_MIN(last * FA_SLOPES_ROWS, a->rows);
  NORM_EACH_ROW(row, end, slopes_forward_rows(a, row, NORM_TOGETHER), slopes_forward_rows(a, row, 1));
}

/* `sums` is that of the block. */
FA_INLINE void slopes_backward_rows(const fa_slopes_args *a, fa_size first, const int together, double *sums) {
  const fa_size n = a->n;
  const real *x = (const real *)a->x + first * n, *dy = (const real *)a->dy + first * n, *slopes = a->alpha;
  real *dx = a->dx ? (real *)a->dx + first * n : NULL;
  NORM_EACH(0, n, {
    const vec alpha = NORM_LOAD(slopes + j);
    real left[NORM_TOGETHER][VL], of_left[NORM_TOGETHER][VL]; /* x and dy where x is not above 0, else 0 */
    NORM_ROWS(r) {
      const vec v = NORM_LOAD(x + r * n + j), d = NORM_LOAD(dy + r * n + j);
      const vmask right = v_gt(v, v_zero());
      v_store(left[r], v_sel(right, v_zero(), v));
      v_store(of_left[r], v_sel(right, v_zero(), d));
      if (dx) NORM_STORE(dx + r * n + j, v_mul(d, leaky_relu_d1(v, &alpha, 0, NULL)));
    }
    for (fa_size k = 0; sums && k < count; k++) {
      double sum = sums[j + k];
      NORM_ROWS(r) sum += (double)left[r][k] * (double)of_left[r][k];
      sums[j + k] = sum;
    }
  });
}
static void slopes_backward(const void *args, fa_size first, fa_size last) {
  const fa_slopes_args *a = args;
  for (fa_size block = first; block < last; block++) {
    fa_size row = block * FA_SLOPES_ROWS, end = FA_MIN(row + FA_SLOPES_ROWS, a->rows);
    double *sums = a->sums ? a->sums + block * a->n : NULL;
    if (sums) memset(sums, 0, (size_t)a->n * sizeof(double));
    NORM_EACH_ROW(row, end, slopes_backward_rows(a, row, NORM_TOGETHER, sums), slopes_backward_rows(a, row, 1, sums));
  }
}

#define SLOPES_KERNELS {slopes_forward, slopes_backward}
