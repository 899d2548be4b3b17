/* Row kernels: softmax and log_softmax along rows, forward and backward.
 *
 * A row of n elements lies either along the lanes of a vector or across them, one row a lane: the second serves an axis
 * that is not the last (neighbouring rows are neighbours in memory) and short rows, where a sum over lanes would cost
 * more than the row. Both are the same loop over "units", vectors of VL lanes at any two strides:
 *
 *     along   unit u = elements u VL ... u VL + VL - 1 of one row         lane stride = element, unit stride = VL elements
 *     across  unit u = element u of VL rows                               lane stride = row,     unit stride = element
 *
 * Element j of a row is added to partial sum j mod ROW_LANES, and the partial sums are added in halves (i with i + 32,
 * i + 16, ...), so a row has the same bits in either layout and on every instruction set. Four vectors of partial sums
 * hide the latency of the compensated addition: on one vector the additions would wait for each other.
 *
 * Errors: x - max is kept as head and tail, the sum as sum and correction, so neither |x - max| nor n enters the bound:
 * exp 1.1 ulp, sum 0.5, quotient 0.5. log_softmax takes log1p of what exceeds 1: the dominant class keeps its digits. */

enum { ROW_LANES = 4 * FA_MAX_VL, ROW_SHORT = 32 };

/* Operands of VL rows (across) or of one row (along); strides in bytes. */
typedef struct {
  const char *in[2];
  fa_size in_lane[2], in_unit[2];
  char *out;
  fa_size out_lane, out_unit;
  fa_size units; /* of the row */
  fa_size lanes; /* across: rows; along: elements in the last unit */
} rows_job;

FA_INLINE vec rows_load(const rows_job *job, int operand, fa_size u, fa_size lanes, const int dense) {
  const char *p = job->in[operand] + u * job->in_unit[operand];
  if (dense) return lanes >= VL ? v_load((const real *)p) : v_load_n((const real *)p, lanes);
  real lane[VL] = {0};
  for (fa_size i = 0; i < VL && i < lanes; i++) memcpy(&lane[i], p + i * job->in_lane[operand], sizeof(real));
  return v_load(lane);
}
FA_INLINE void rows_store(const rows_job *job, fa_size u, fa_size lanes, vec v, const int dense) {
  char *p = job->out + u * job->out_unit;
  if (dense) {
    if (lanes >= VL)
      v_store((real *)p, v);
    else
      v_store_n((real *)p, v, lanes);
    return;
  }
  real lane[VL];
  v_store(lane, v);
  for (fa_size i = 0; i < VL && i < lanes; i++) memcpy(p + i * job->out_lane, &lane[i], sizeof(real));
}
FA_INLINE fa_size rows_lanes(const rows_job *job, fa_size u, const int across) {
  return across || u == job->units - 1 ? job->lanes : VL;
}

/* A sum and what rounding took from it. */
typedef struct {
  vec sum, lost;
} rows_sum;

FA_INLINE rows_sum rows_add(rows_sum a, vec b, vec b_lost) { /* TwoSum */
  vec s = v_add(a.sum, b), part = v_sub(s, a.sum);
  vec error = v_add(v_sub(a.sum, v_sub(s, part)), v_sub(b, part));
  return (rows_sum){s, v_add(v_add(a.lost, b_lost), error)};
}

enum { ROW_VECTORS = ROW_LANES / VL }; /* vectors of partial sums along a row */

/* How many partial sums are in use: across, those that the elements reach. */
FA_INLINE int rows_partials(const rows_job *job, const int across) {
  if (!across) return ROW_VECTORS;
  int count = 1;
  while (count < ROW_LANES && count < job->units) count *= 2;
  return count;
}
FA_INLINE void rows_clear(rows_sum *partial, int count) {
  for (int i = 0; i < count; i++) partial[i] = (rows_sum){v_zero(), v_zero()};
}

/* The partial sums of each row added in halves: across, a vector for each partial sum; along, VL of them in a vector, and
 * the result in every lane. */
FA_INLINE rows_sum rows_fold(rows_sum *partial, int count, const int across) {
  for (int half = count / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) partial[i] = rows_add(partial[i], partial[i + half].sum, partial[i + half].lost);
  rows_sum total = partial[0];
  if (!across)
    for (int lanes = VL; lanes > 1; lanes /= 2) { /* lane i meets i + VL/2, and both stay as neighbours */
      vec sum = v_zip_hi(total.sum, total.sum), lost = v_zip_hi(total.lost, total.lost);
      total = rows_add((rows_sum){v_zip_lo(total.sum, total.sum), v_zip_lo(total.lost, total.lost)}, sum, lost);
    }
  return total;
}

/* x - m as head and tail, for x <= m. */
FA_INLINE math_pair rows_below(vec x, vec m) {
  vec d = v_sub(x, m), part = v_sub(d, x);
  vec tail = v_sub(v_sub(x, v_sub(d, part)), v_add(m, part));
  return (math_pair){d, v_sel(v_gt(d, v_set1(EXP_ZERO)), tail, v_zero())};
}
FA_INLINE vec rows_exp(math_pair x) {
  math_exp_parts e = math_exp_reduced(v_max(v_set1(EXP_ZERO), x.head), x.tail, 1);
  return v_scale2(v_add(v_set1(1), e.p), e.n);
}

/* log(sum + lost) for sums of at least 1, in each lane, as head and tail. */
FA_INLINE math_pair rows_log(rows_sum s, const int across) {
  real sum[VL], lost[VL], head[VL], tail[VL];
  v_store(sum, s.sum);
  v_store(lost, s.lost);
  int count = across ? VL : 1;
  for (int i = 0; i < count; i++) {
    double above = ((double)sum[i] - 1) + (double)lost[i]; /* exact for sums below 2 */
    double value = sum[i] < 2 ? log1p(above) : log((double)sum[i]) + (double)lost[i] / (double)sum[i];
    head[i] = (real)value;
    tail[i] = (real)(value - (double)head[i]);
    if (!(value < INFINITY)) tail[i] = 0;
  }
  if (!across) return (math_pair){v_set1(head[0]), v_set1(tail[0])};
  return (math_pair){v_load(head), v_load(tail)};
}

/* What a unit adds to the sums of its rows: exp(x - m), which softmax also keeps in out ... */
FA_INLINE void softmax_term(const rows_job *job, fa_size u, fa_size lanes, vec m, rows_sum *sum, const int dense,
                            const int logarithm) {
  vec e = rows_exp(rows_below(rows_load(job, 0, u, lanes, dense), m));
  if (lanes < VL) e = v_sel(m_first(lanes), e, v_zero());
  *sum = rows_add(*sum, e, v_zero());
  if (!logarithm) rows_store(job, u, lanes, e, dense);
}
/* ... and on the way back dy y or dy, where dy does not count if x was masked: y is 0 or -inf there. */
FA_INLINE vec softmax_shown(vec dy, vec y, const int logarithm) {
  return v_sel(v_eq(y, logarithm ? v_set1(-INFINITY) : v_zero()), v_zero(), dy);
}
FA_INLINE void softmax_backward_term(const rows_job *job, fa_size u, fa_size lanes, vec m, rows_sum *sum, const int dense,
                                     const int logarithm) {
  (void)m;
  vec dy = rows_load(job, 0, u, lanes, dense), y = rows_load(job, 1, u, lanes, dense), lost = v_zero();
  vec product = softmax_shown(dy, y, logarithm);
  if (!logarithm) {
    dy = product;
    product = v_mul(dy, y);
    lost = v_fms(dy, y, product);
  }
  *sum = rows_add(*sum, product, lost);
}

/* The sum over each row of a term. Along, whole groups of vectors first: their sums stay in registers. */
#define ROWS_SUM(term)                                                                                                 \
  FA_INLINE rows_sum term##s(const rows_job *job, vec m, const int across, const int dense, const int logarithm) {     \
    rows_sum partial[ROW_LANES];                                                                                       \
    const int count = rows_partials(job, across);                                                                      \
    fa_size u = 0;                                                                                                     \
    rows_clear(partial, count);                                                                                        \
    if (!across && job->units > ROW_VECTORS) {                                                                         \
      rows_sum group[ROW_VECTORS];                                                                                     \
      FA_UNROLL for (int g = 0; g < ROW_VECTORS; g++) group[g] = (rows_sum){v_zero(), v_zero()};                       \
      for (; u + ROW_VECTORS < job->units; u += ROW_VECTORS)                                                           \
        FA_UNROLL for (int g = 0; g < ROW_VECTORS; g++) term(job, u + g, VL, m, &group[g], dense, logarithm);          \
      FA_UNROLL for (int g = 0; g < ROW_VECTORS; g++) partial[g] = group[g];                                           \
    }                                                                                                                  \
    for (; u < job->units; u++)                                                                                        \
      term(job, u, rows_lanes(job, u, across), m, &partial[u & (count - 1)], dense, logarithm);                        \
    return rows_fold(partial, count, across);                                                                          \
  }
ROWS_SUM(softmax_term)
ROWS_SUM(softmax_backward_term)

/* y = exp(x) / sum(exp(x)), or its logarithm. */
FA_INLINE void rows_softmax(const rows_job *job, const int across, const int dense, const int logarithm) {
  vec lowest = v_set1(-INFINITY), m = lowest;
  for (fa_size u = 0; u < job->units; u++) {
    fa_size lanes = rows_lanes(job, u, across);
    vec x = rows_load(job, 0, u, lanes, dense);
    m = v_max(m, lanes < VL ? v_sel(m_first(lanes), x, lowest) : x);
  }
  if (!across) m = v_set1(v_hmax(m));
  m = v_sel(v_eq(m, lowest), v_zero(), m); /* nothing but -inf: no NaN from -inf - -inf, and the sum of terms is 0 */
  rows_sum total = softmax_terms(job, m, across, dense, logarithm);
  total.sum = v_max(v_set1(1), total.sum); /* 1 at least, or 0 */
  if (logarithm) {
    math_pair log_sum = rows_log(total, across);
    for (fa_size u = 0; u < job->units; u++) {
      fa_size lanes = rows_lanes(job, u, across);
      math_pair d = rows_below(rows_load(job, 0, u, lanes, dense), m);
      rows_store(job, u, lanes, v_add(v_sub(d.head, log_sum.head), v_sub(d.tail, log_sum.tail)), dense);
    }
  } else {
    rows_job again = *job; /* the numerators are in out */
    again.in[0] = job->out, again.in_lane[0] = job->out_lane, again.in_unit[0] = job->out_unit;
    vec sum = v_add(total.sum, total.lost);
    for (fa_size u = 0; u < job->units; u++) {
      fa_size lanes = rows_lanes(job, u, across);
      rows_store(job, u, lanes, v_div(rows_load(&again, 0, u, lanes, dense), sum), dense);
    }
  }
}

/* A masked entry is one of -inf: it gets 0, or -inf, and nothing flows back to it.
 * softmax: dx = y (dy - sum(dy y)); log_softmax: dx = dy - exp(y) sum(dy). in = dy, y. */
FA_INLINE void rows_softmax_backward(const rows_job *job, const int across, const int dense, const int logarithm) {
  rows_sum total = softmax_backward_terms(job, v_zero(), across, dense, logarithm);
  vec sum = v_add(total.sum, total.lost);
  for (fa_size u = 0; u < job->units; u++) {
    fa_size lanes = rows_lanes(job, u, across);
    vec dy = rows_load(job, 0, u, lanes, dense), y = rows_load(job, 1, u, lanes, dense);
    dy = softmax_shown(dy, y, logarithm);
    vec dx = logarithm ? v_fnma(rows_exp((math_pair){y, v_zero()}), sum, dy) : v_mul(y, v_sub(dy, sum));
    rows_store(job, u, lanes, dx, dense);
  }
}

typedef void (*rows_body)(const rows_job *);
/* Bodies by layout: along the lanes; across them with neighbouring rows; across them with any strides. */
#define ROWS_KERNEL(name, operands, function, logarithm)                                                               \
  FA_NOINLINE void name##_along(const rows_job *job) { function(job, 0, 1, logarithm); }                               \
  FA_NOINLINE void name##_across(const rows_job *job) { function(job, 1, 1, logarithm); }                              \
  FA_NOINLINE void name##_gathered(const rows_job *job) { function(job, 1, 0, logarithm); }                            \
  static void name(const fa_rows_args *args) { rows_run(args, operands, name##_along, name##_across, name##_gathered); }

/* VL short rows whose elements adjoin: turned on the stack, worked on across, turned back. */
FA_INLINE void rows_turned(const rows_job *rows, int operands, fa_size n, rows_body across) {
  FA_ALIGN(64) real buffer[3][ROW_SHORT][VL];
  vec block[VL];
  const fa_size row = VL * (fa_size)sizeof(real);
  rows_job job = {.out = (char *)buffer[2], .out_lane = sizeof(real), .out_unit = row, .units = n, .lanes = VL};
  for (int k = 0; k < operands; k++) {
    job.in[k] = (const char *)buffer[k], job.in_lane[k] = sizeof(real), job.in_unit[k] = row;
    for (fa_size j = 0; j < n; j += VL) {
      for (int i = 0; i < VL; i++) block[i] = v_load_n((const real *)(rows->in[k] + i * rows->in_lane[k]) + j, n - j);
      v_transpose(block);
      for (int i = 0; i < VL; i++) v_store(buffer[k][j + i], block[i]);
    }
  }
  across(&job);
  for (fa_size j = 0; j < n; j += VL) {
    for (int i = 0; i < VL; i++) block[i] = v_load(buffer[2][j + i]);
    v_transpose(block);
    for (int i = 0; i < VL; i++) v_store_n((real *)(rows->out + i * rows->out_lane) + j, block[i], n - j);
  }
}

/* Chooses the layout and goes through the rows. */
static void rows_run(const fa_rows_args *args, int operands, rows_body along, rows_body across, rows_body gathered) {
  const fa_size item = sizeof(real);
  if (args->n <= 0) return;
  int elements_adjoin = args->out_stride == item, rows_adjoin = args->out_row_stride == item;
  for (int k = 0; k < operands; k++) {
    elements_adjoin &= args->in_stride[k] == item;
    rows_adjoin &= args->in_row_stride[k] == item;
  }
  for (fa_size row = 0, done; row < args->rows; row += done) {
    int turned = elements_adjoin && VL > 1 && args->n <= ROW_SHORT && args->rows - row >= VL;
    rows_body body = elements_adjoin && !turned ? along : rows_adjoin ? across : gathered;
    rows_job job = {.units = body == along ? FA_CEIL_DIV(args->n, VL) : args->n};
    done = body == along ? 1 : FA_MIN(VL, args->rows - row);
    job.lanes = body == along ? (args->n - 1) % VL + 1 : done;
    for (int k = 0; k < operands; k++) {
      job.in[k] = (const char *)args->in[k] + row * args->in_row_stride[k];
      job.in_lane[k] = body == along ? item : args->in_row_stride[k];
      job.in_unit[k] = body == along ? VL * item : args->in_stride[k];
    }
    job.out = (char *)args->out + row * args->out_row_stride;
    job.out_lane = body == along ? item : args->out_row_stride;
    job.out_unit = body == along ? VL * item : args->out_stride;
    if (turned)
      rows_turned(&job, operands, args->n, across);
    else
      body(&job);
  }
}

ROWS_KERNEL(softmax_rows, 1, rows_softmax, 0)
ROWS_KERNEL(log_softmax_rows, 1, rows_softmax, 1)
ROWS_KERNEL(softmax_rows_backward, 2, rows_softmax_backward, 0)
ROWS_KERNEL(log_softmax_rows_backward, 2, rows_softmax_backward, 1)

static const fa_rows_kernels rows_kernels[FA_ROWS_COUNT] = {
    [FA_ROWS_softmax] = {softmax_rows, softmax_rows_backward},
    [FA_ROWS_log_softmax] = {log_softmax_rows, log_softmax_rows_backward},
};
