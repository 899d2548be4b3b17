/* Row kernels: softmax and log_softmax along rows, forward and backward (from y).
 *
 *   softmax             y = exp(x - m) / s                m = max x, s = sum exp(x - m)
 *   softmax backward    dx = y (dy - s)                   s = sum dy y
 *   log_softmax         y = (x - m) - log s               m, s as for softmax
 *   log_softmax b.      dx = dy - exp(y) s                s = sum dy
 *
 * All four are: a maximum (forward only), a sum of terms, a map; softmax leaves its terms in the output between the two.
 * x - m enters exp with its rounding error, which would otherwise be multiplied by |x - m|: 5 additions, on ports that
 * exp leaves idle. The sum runs in ROWS_LANES compensated partial sums (5 more additions; without them a row of 100 000
 * loses 240 ulp in float64), element j in sum j mod ROWS_LANES, added in halves at the end: one order for rows in memory order (lanes along the row), for strided ones, and for neighbouring rows side by side
 * (lanes across rows), so a result does not depend on the layout. A row of n elements costs the same in all
 * but the strided way. A row with a NaN or +inf, or of nothing but -inf, is NaN. */
enum { ROWS_SOFTMAX, ROWS_LOG_SOFTMAX, ROWS_SOFTMAX_BACKWARD, ROWS_LOG_SOFTMAX_BACKWARD };
enum { ROWS_LANES = FA_MAX_VL, ROWS_VECS = ROWS_LANES / VL, ROWS_ACROSS = 8 };
#define ROWS_FORWARD(operation) ((operation) <= ROWS_LOG_SOFTMAX)

/* exp(x - m), m >= x. */
FA_INLINE vec rows_exp(vec x, vec m) {
  vec d = v_sub(x, m), back = v_sub(d, x);
  vec tail = v_sub(v_sub(x, v_sub(d, back)), v_add(m, back));
  tail = v_sel(v_gt(d, v_set1(LOGISTIC_ZERO)), tail, v_zero());
  math_exp_parts e = math_exp_reduced(v_max(v_set1(LOGISTIC_ZERO), d), tail, 1);
  return v_scale2(v_add(v_set1(1), e.p), e.n);
}
/* A sum and its lost low part. */
typedef struct {
  vec head, tail;
} rows_sum;
FA_INLINE rows_sum rows_add(rows_sum s, vec term) {
  vec head = v_add(s.head, term), back = v_sub(head, s.head);
  vec lost = v_add(v_sub(s.head, v_sub(head, back)), v_sub(term, back));
  return (rows_sum){head, v_add(s.tail, lost)};
}
FA_INLINE rows_sum rows_add_sums(rows_sum a, rows_sum b) {
  return (rows_sum){v_add(a.head, b.head), v_add(a.tail, b.tail)};
}
/* What is summed, from the operands a (x or dy) and b (y). */
FA_INLINE vec rows_term(const int operation, vec a, vec b, vec m) {
  switch (operation) {
    case ROWS_SOFTMAX_BACKWARD: return v_mul(a, b);
    case ROWS_LOG_SOFTMAX_BACKWARD: return a;
    default: return rows_exp(a, m);
  }
}
/* The result from the operands (a: the term, for softmax) and the sum. */
FA_INLINE vec rows_result(const int operation, vec a, vec b, vec m, vec s) {
  switch (operation) {
    case ROWS_SOFTMAX: return v_div(a, s);
    case ROWS_LOG_SOFTMAX: return v_sub(v_sub(a, m), s);
    case ROWS_SOFTMAX_BACKWARD: return v_mul(b, v_sub(a, s));
    default: return v_fnma(math_exp(b), s, a);
  }
}

FA_INLINE vec rows_load(const real *p, fa_size stride, fa_size j, fa_size n, const int strided, const int whole) {
  if (strided) return v_load_strided(p + j * stride, stride, n - j);
  return whole ? v_load(p + j) : v_load_n(p + j, n - j);
}
FA_INLINE void rows_store(real *p, fa_size stride, fa_size j, fa_size n, const int strided, const int whole, vec v) {
  if (strided) v_store_strided(p + j * stride, stride, v, n - j);
  else if (whole) v_store(p + j, v);
  else v_store_n(p + j, v, n - j);
}

typedef struct {
  const real *a, *b;
  real *out;
  fa_size a_stride, b_stride, out_stride, n; /* in elements */
} rows_row;

/* One block of ROWS_LANES elements of each pass; `whole` when it lies within the row. */
FA_INLINE void rows_block_max(rows_row r, fa_size j, vec top[ROWS_VECS], const int strided, const int whole) {
  FA_UNROLL for (int v = 0; v < ROWS_VECS; v++, j += VL) {
    vec x = rows_load(r.a, r.a_stride, j, r.n, strided, whole);
    top[v] = v_max(whole ? x : v_sel(m_first(r.n - j), x, v_set1(-INFINITY)), top[v]);
  }
}
FA_INLINE void rows_block_sum(const int operation, rows_row r, fa_size j, vec m, rows_sum sum[ROWS_VECS],
                              const int strided, const int whole) {
  FA_UNROLL for (int v = 0; v < ROWS_VECS; v++, j += VL) {
    vec a = rows_load(r.a, r.a_stride, j, r.n, strided, whole);
    vec b = operation == ROWS_SOFTMAX_BACKWARD ? rows_load(r.b, r.b_stride, j, r.n, strided, whole) : a;
    vec term = rows_term(operation, a, b, m);
    if (operation == ROWS_SOFTMAX) rows_store(r.out, r.out_stride, j, r.n, strided, whole, term);
    sum[v] = rows_add(sum[v], whole ? term : v_sel(m_first(r.n - j), term, v_zero()));
  }
}
FA_INLINE void rows_block_map(const int operation, rows_row r, fa_size j, vec m, vec s, const int strided, const int whole) {
  FA_UNROLL for (int v = 0; v < ROWS_VECS; v++, j += VL) {
    vec a = operation == ROWS_SOFTMAX ? rows_load(r.out, r.out_stride, j, r.n, strided, whole)
                                      : rows_load(r.a, r.a_stride, j, r.n, strided, whole);
    vec b = ROWS_FORWARD(operation) ? a : rows_load(r.b, r.b_stride, j, r.n, strided, whole);
    rows_store(r.out, r.out_stride, j, r.n, strided, whole, rows_result(operation, a, b, m, s));
  }
}

/* One row, lanes along it. */
FA_INLINE void rows_along(const int operation, rows_row r, const int strided) {
  fa_size j, blocks = strided ? 0 : r.n / ROWS_LANES * ROWS_LANES;
  vec m = v_zero();
  if (ROWS_FORWARD(operation)) {
    vec top[ROWS_VECS];
    for (int v = 0; v < ROWS_VECS; v++) top[v] = v_set1(-INFINITY);
    for (j = 0; j < blocks; j += ROWS_LANES) rows_block_max(r, j, top, strided, 1);
    for (; j < r.n; j += ROWS_LANES) rows_block_max(r, j, top, strided, 0);
    for (int v = 1; v < ROWS_VECS; v++) top[0] = v_max(top[v], top[0]);
    m = v_set1(v_hmax(top[0]));
  }
  rows_sum sum[ROWS_VECS];
  for (int v = 0; v < ROWS_VECS; v++) sum[v] = (rows_sum){v_zero(), v_zero()};
  for (j = 0; j < blocks; j += ROWS_LANES) rows_block_sum(operation, r, j, m, sum, strided, 1);
  for (; j < r.n; j += ROWS_LANES) rows_block_sum(operation, r, j, m, sum, strided, 0);
  for (int half = ROWS_VECS / 2; half > 0; half /= 2)
    for (int v = 0; v < half; v++) sum[v] = rows_add_sums(sum[v], sum[v + half]);
  vec s = v_set1(v_hsum(sum[0].head) + v_hsum(sum[0].tail));
  if (operation == ROWS_LOG_SOFTMAX) s = math_log(s);
  for (j = 0; j < blocks; j += ROWS_LANES) rows_block_map(operation, r, j, m, s, strided, 1);
  for (; j < r.n; j += ROWS_LANES) rows_block_map(operation, r, j, m, s, strided, 0);
}

/* Up to ROWS_ACROSS vectors of neighbouring rows, lanes across them: the strides are those along a row. */
FA_INLINE void rows_across(const int operation, rows_row r, fa_size rows) {
  vec m[ROWS_ACROSS], s[ROWS_ACROSS];
  rows_sum sum[ROWS_LANES][ROWS_ACROSS];
  const int vecs = (int)FA_CEIL_DIV(rows, VL);
  for (int v = 0; v < vecs; v++) {
    m[v] = ROWS_FORWARD(operation) ? v_set1(-INFINITY) : v_zero();
    for (int k = 0; k < ROWS_LANES; k++) sum[k][v] = (rows_sum){v_zero(), v_zero()};
  }
  if (ROWS_FORWARD(operation))
    for (fa_size j = 0; j < r.n; j++)
      for (int v = 0; v < vecs; v++) m[v] = v_max(v_load_n(r.a + j * r.a_stride + v * VL, rows - v * VL), m[v]);
  for (fa_size j = 0; j < r.n; j++)
    for (int v = 0; v < vecs; v++) {
      vec a = v_load_n(r.a + j * r.a_stride + v * VL, rows - v * VL);
      vec b = operation == ROWS_SOFTMAX_BACKWARD ? v_load_n(r.b + j * r.b_stride + v * VL, rows - v * VL) : a;
      vec term = rows_term(operation, a, b, m[v]);
      if (operation == ROWS_SOFTMAX) v_store_n(r.out + j * r.out_stride + v * VL, term, rows - v * VL);
      sum[j % ROWS_LANES][v] = rows_add(sum[j % ROWS_LANES][v], term);
    }
  for (int v = 0; v < vecs; v++) {
    for (int half = ROWS_LANES / 2; half > 0; half /= 2)
      for (int k = 0; k < half; k++) sum[k][v] = rows_add_sums(sum[k][v], sum[k + half][v]);
    s[v] = v_add(sum[0][v].head, sum[0][v].tail);
    if (operation == ROWS_LOG_SOFTMAX) s[v] = math_log(s[v]);
  }
  for (fa_size j = 0; j < r.n; j++)
    for (int v = 0; v < vecs; v++) {
      const real *from = operation == ROWS_SOFTMAX ? r.out + j * r.out_stride : r.a + j * r.a_stride;
      vec a = v_load_n(from + v * VL, rows - v * VL);
      vec b = ROWS_FORWARD(operation) ? a : v_load_n(r.b + j * r.b_stride + v * VL, rows - v * VL);
      v_store_n(r.out + j * r.out_stride + v * VL, rows_result(operation, a, b, m[v], s[v]), rows - v * VL);
    }
}

FA_INLINE void rows_run(const int operation, const fa_rows_args *args) {
  const fa_size size = (fa_size)sizeof(real);
  const int backward = !ROWS_FORWARD(operation);
  rows_row r = {.a_stride = args->in_stride[0] / size,
                .b_stride = backward ? args->in_stride[1] / size : 0,
                .out_stride = args->out_stride / size,
                .n = args->n};
  const int contiguous = r.a_stride == 1 && r.out_stride == 1 && (!backward || r.b_stride == 1);
  const int neighbours = args->in_row_stride[0] == size && args->out_row_stride == size &&
                         (!backward || args->in_row_stride[1] == size);
  const fa_size step = !contiguous && neighbours ? ROWS_ACROSS * VL : 1;
  for (fa_size row = 0; row < args->rows; row += step) {
    r.a = (const real *)((const char *)args->in[0] + row * args->in_row_stride[0]);
    r.b = backward ? (const real *)((const char *)args->in[1] + row * args->in_row_stride[1]) : r.a;
    r.out = (real *)((char *)args->out + row * args->out_row_stride);
    if (contiguous) rows_along(operation, r, 0);
    else if (neighbours) rows_across(operation, r, FA_MIN(step, args->rows - row));
    else rows_along(operation, r, 1);
  }
}

static void softmax_forward(const fa_rows_args *args) { rows_run(ROWS_SOFTMAX, args); }
static void softmax_backward(const fa_rows_args *args) { rows_run(ROWS_SOFTMAX_BACKWARD, args); }
static void log_softmax_forward(const fa_rows_args *args) { rows_run(ROWS_LOG_SOFTMAX, args); }
static void log_softmax_backward(const fa_rows_args *args) { rows_run(ROWS_LOG_SOFTMAX_BACKWARD, args); }

static const fa_rows_kernels rows_kernels[FA_ROWS_COUNT] = {
    [FA_ROWS_softmax] = {softmax_forward, softmax_backward},
    [FA_ROWS_log_softmax] = {log_softmax_forward, log_softmax_backward},
};
