/* Row kernels: softmax and its kin, sparsemax, hardmax, maxima and log-sum-exp along rows, forward and backward.
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
 * exp 1.1 ulp, sum 0.5, quotient 0.5. log_softmax takes log1p of what exceeds 1: the dominant class keeps its digits.
 *
 * Tried, no use: copying the columns of a non-last axis to the stack first, where a stride of 8 KiB throws them all into
 * one set of the cache (1.29 ns an element for 1.42; 0.54 at other strides).
 *
 * A masked entry is one of -inf: it gets 0 (log_softmax: -inf), and nothing flows back to it. */

enum { ROW_LANES = 4 * FA_MAX_VL, ROW_SHORT = 32 };

/* Variants of one body, known at compile time: bits. */
enum { ROW_PLAIN = 0, ROW_LOG = 1, ROW_SCALED = 2, ROW_NEGATED = 4, ROW_REDUCED = 8, ROW_TIMES_DY = 16 };

/* Operands of VL rows (across) or of one row (along); strides in bytes. */
typedef struct {
  const char *in[FA_ROWS_OPERANDS];
  fa_size in_lane[FA_ROWS_OPERANDS], in_unit[FA_ROWS_OPERANDS];
  char *out;
  fa_size out_lane, out_unit;
  fa_size units; /* of the row */
  fa_size lanes; /* across: rows; along: elements in the last unit */
} rows_job;

FA_INLINE vec rows_gather(const char *p, fa_size stride, fa_size lanes) {
  real lane[VL] = {0};
  for (fa_size i = 0; i < VL && i < lanes; i++) memcpy(&lane[i], p + i * stride, sizeof(real));
  return v_load(lane);
}
FA_INLINE void rows_scatter(char *p, fa_size stride, fa_size lanes, vec v) {
  real lane[VL];
  v_store(lane, v);
  for (fa_size i = 0; i < VL && i < lanes; i++) memcpy(p + i * stride, &lane[i], sizeof(real));
}
FA_INLINE vec rows_load(const rows_job *job, int operand, fa_size u, fa_size lanes, const int dense) {
  const char *p = job->in[operand] + u * job->in_unit[operand];
  if (dense) return lanes >= VL ? v_load((const real *)p) : v_load_n((const real *)p, lanes);
  return rows_gather(p, job->in_lane[operand], lanes);
}
FA_INLINE void rows_store(const rows_job *job, fa_size u, fa_size lanes, vec v, const int dense) {
  char *p = job->out + u * job->out_unit;
  if (!dense)
    rows_scatter(p, job->out_lane, lanes, v);
  else if (lanes >= VL)
    v_store((real *)p, v);
  else
    v_store_n((real *)p, v, lanes);
}
/* An operand, or the output, with one value a row: along, in every lane. */
FA_INLINE vec rows_value(const rows_job *job, int operand, const int across) {
  if (!across) return v_set1(*(const real *)job->in[operand]);
  return rows_gather(job->in[operand], job->in_lane[operand], job->lanes);
}
FA_INLINE void rows_store_value(const rows_job *job, vec v, const int across) {
  rows_scatter(job->out, job->out_lane, across ? job->lanes : 1, v);
}
FA_INLINE fa_size rows_lanes(const rows_job *job, fa_size u, const int across) {
  return across || u == job->units - 1 ? job->lanes : VL;
}

/* ---- Sums --------------------------------------------------------------------------------------------------- */

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

/* Two partial sums; plain ones have lost nothing that is known. */
FA_INLINE rows_sum rows_join(rows_sum a, rows_sum b, const int compensated) {
  return compensated ? rows_add(a, b.sum, b.lost) : (rows_sum){v_add(a.sum, b.sum), a.lost};
}

/* The partial sums of each row added in halves: across, a vector for each partial sum; along, VL of them in a vector, and
 * the result in every lane. */
FA_INLINE rows_sum rows_fold(rows_sum *partial, int count, const int across, const int compensated) {
  for (int half = count / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) partial[i] = rows_join(partial[i], partial[i + half], compensated);
  rows_sum total = partial[0];
  if (!across)
    for (int lanes = VL; lanes > 1; lanes /= 2) { /* lane i meets i + VL/2, and both stay as neighbours */
      rows_sum high = {v_zip_hi(total.sum, total.sum), v_zip_hi(total.lost, total.lost)};
      total = rows_join((rows_sum){v_zip_lo(total.sum, total.sum), v_zip_lo(total.lost, total.lost)}, high, compensated);
    }
  return total;
}

/* What the terms of a sum need to know of their row. */
typedef struct {
  vec top;              /* the greatest x */
  vec inverse, rest;    /* 1 / temperature, as head and tail */
  math_pair threshold;  /* sparsemax: x - top counts above it ... */
  vec count;            /* ... and so many do; whole numbers, in any order */
} rows_row;

/* The sum over each row of a term, which adds itself to a partial sum, compensated or plainly. Along, whole groups of
 * vectors first: their sums stay in registers. */
#define ROWS_SUM(term, compensated)                                                                                    \
  FA_INLINE rows_sum term##s(const rows_job *job, rows_row *row, const int across, const int dense, const int kind) {  \
    rows_sum partial[ROW_LANES];                                                                                       \
    const int count = rows_partials(job, across);                                                                      \
    fa_size u = 0;                                                                                                     \
    rows_clear(partial, count);                                                                                        \
    if (!across && job->units >= ROW_VECTORS) {                                                                        \
      rows_sum group[ROW_VECTORS];                                                                                     \
      FA_UNROLL for (int g = 0; g < ROW_VECTORS; g++) group[g] = (rows_sum){v_zero(), v_zero()};                       \
      const fa_size full = job->units - (job->lanes < VL);                                                             \
      for (; u + ROW_VECTORS <= full; u += ROW_VECTORS)                                                                \
        FA_UNROLL for (int g = 0; g < ROW_VECTORS; g++) term(job, u + g, VL, row, &group[g], dense, kind);             \
      FA_UNROLL for (int g = 0; g < ROW_VECTORS; g++) partial[g] = group[g];                                           \
    }                                                                                                                  \
    for (; u < job->units; u++)                                                                                        \
      term(job, u, rows_lanes(job, u, across), row, &partial[u & (count - 1)], dense, kind);                           \
    return rows_fold(partial, count, across, compensated);                                                             \
  }

/* ---- x - max and its exponential ---------------------------------------------------------------------------- */

/* x, or -x for softmin. */
FA_INLINE vec rows_x(const rows_job *job, int operand, fa_size u, fa_size lanes, const int dense, const int kind) {
  vec x = rows_load(job, operand, u, lanes, dense);
  return (kind & ROW_NEGATED) ? v_neg(x) : x;
}

/* The greatest x of each row (in every lane), NaN where there is one if `nan`; -inf for a row of nothing else. */
FA_INLINE vec rows_top(const rows_job *job, int operand, const int across, const int dense, const int kind,
                       const int nan) {
  vec lowest = v_set1(-INFINITY), m = lowest, spoilt = v_zero();
  for (fa_size u = 0; u < job->units; u++) {
    fa_size lanes = rows_lanes(job, u, across);
    vec x = rows_x(job, operand, u, lanes, dense, kind);
    if (nan) spoilt = v_sel(v_isnan(x), x, spoilt); /* lanes beyond the end are 0 */
    m = v_max(m, lanes < VL ? v_sel(m_first(lanes), x, lowest) : x);
  }
  if (!across) m = v_set1(v_hmax(m));
  if (nan && m_any(v_isnan(spoilt))) m = across ? v_sel(v_isnan(spoilt), spoilt, m) : v_set1(NAN);
  return m;
}

/* What x is measured from: 0 for a row of -inf, so that -inf stays -inf. */
FA_INLINE vec rows_origin(vec top) { return v_sel(v_eq(top, v_set1(-INFINITY)), v_zero(), top); }

/* (x - top) / temperature as head and tail, for x <= top; no tail where exp is 0. */
FA_INLINE math_pair rows_below(vec x, const rows_row *row, const int kind) {
  vec d = v_sub(x, row->top), part = v_sub(d, x);
  vec tail = v_sub(v_sub(x, v_sub(d, part)), v_add(row->top, part));
  if (kind & ROW_SCALED) {
    vec head = v_mul(d, row->inverse);
    tail = v_fma(tail, row->inverse, v_fma(d, row->rest, v_fms(d, row->inverse, head)));
    d = head;
  }
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

/* ---- softmax, softmin, log_softmax, logsumexp ------------------------------------------------------------------- */

/* exp(x - top), which softmax also keeps in out. */
FA_INLINE void softmax_term(const rows_job *job, fa_size u, fa_size lanes, rows_row *row, rows_sum *sum,
                            const int dense, const int kind) {
  vec x = rows_x(job, (kind & ROW_TIMES_DY) ? 1 : 0, u, lanes, dense, kind);
  vec e = rows_exp(rows_below(x, row, kind));
  if (lanes < VL) e = v_sel(m_first(lanes), e, v_zero());
  *sum = rows_add(*sum, e, v_zero());
  if (!(kind & (ROW_LOG | ROW_REDUCED))) rows_store(job, u, lanes, e, dense);
}
ROWS_SUM(softmax_term, 1)

/* y = exp(x / temperature) / sum(exp(x / temperature)) or its logarithm; reduced: the logarithm of the sum; times dy, for
 * its backward: in = dy, x. */
FA_INLINE void rows_softmax(const rows_job *job, const int across, const int dense, const int kind) {
  const int reduced = kind & ROW_REDUCED, operand = (kind & ROW_TIMES_DY) ? 1 : 0;
  vec top = rows_top(job, operand, across, dense, kind, reduced);
  rows_row row = {.top = rows_origin(top)};
  if (kind & ROW_SCALED) {
    vec temperature = rows_value(job, 1, across), one = v_set1(1);
    row.inverse = v_div(one, temperature);
    row.rest = v_mul(v_fnma(row.inverse, temperature, one), row.inverse);
  }
  rows_sum total = softmax_terms(job, &row, across, dense, kind);
  total.sum = v_max(v_set1(1), total.sum); /* 1 at least, or 0 */
  if (kind & ROW_LOG) {
    math_pair log_sum = rows_log(total, across);
    if (reduced) {
      rows_sum y = rows_add((rows_sum){row.top, log_sum.tail}, log_sum.head, v_zero());
      rows_store_value(job, v_sel(v_eq(v_abs(top), v_set1(INFINITY)), top, v_add(y.sum, y.lost)), across);
      return;
    }
    for (fa_size u = 0; u < job->units; u++) {
      fa_size lanes = rows_lanes(job, u, across);
      math_pair d = rows_below(rows_x(job, 0, u, lanes, dense, kind), &row, kind);
      rows_store(job, u, lanes, v_add(v_sub(d.head, log_sum.head), v_sub(d.tail, log_sum.tail)), dense);
    }
  } else {
    rows_job again = *job; /* the numerators are in out */
    again.in[0] = job->out, again.in_lane[0] = job->out_lane, again.in_unit[0] = job->out_unit;
    vec sum = v_add(total.sum, total.lost), dy = v_set1(1);
    if (kind & ROW_TIMES_DY) dy = rows_value(job, 0, across);
    for (fa_size u = 0; u < job->units; u++) {
      fa_size lanes = rows_lanes(job, u, across);
      vec y = v_div(rows_load(&again, 0, u, lanes, dense), sum);
      rows_store(job, u, lanes, (kind & ROW_TIMES_DY) ? v_mul(dy, y) : y, dense);
    }
  }
}

/* dy where x was not masked, else 0: y is 0, or -inf, there. */
FA_INLINE vec softmax_shown(vec dy, vec y, const int kind) {
  return v_sel(v_eq(y, (kind & ROW_LOG) ? v_set1(-INFINITY) : v_zero()), v_zero(), dy);
}
/* dy y, or dy for log_softmax. */
FA_INLINE void softmax_backward_term(const rows_job *job, fa_size u, fa_size lanes, rows_row *row, rows_sum *sum,
                                     const int dense, const int kind) {
  (void)row;
  vec y = rows_load(job, 1, u, lanes, dense), dy = softmax_shown(rows_load(job, 0, u, lanes, dense), y, kind);
  sum->sum = (kind & ROW_LOG) ? v_add(sum->sum, dy) : v_fma(dy, y, sum->sum);
}
ROWS_SUM(softmax_backward_term, 0)

/* softmax: dx = y (dy - sum(dy y)); log_softmax: dx = dy - exp(y) sum(dy); over the temperature. in = dy, y. */
FA_INLINE void rows_softmax_backward(const rows_job *job, const int across, const int dense, const int kind) {
  rows_sum total = softmax_backward_terms(job, NULL, across, dense, kind);
  vec sum = v_add(total.sum, total.lost), temperature = v_set1(1);
  if (kind & ROW_SCALED) temperature = rows_value(job, 2, across);
  for (fa_size u = 0; u < job->units; u++) {
    fa_size lanes = rows_lanes(job, u, across);
    vec y = rows_load(job, 1, u, lanes, dense), dy = softmax_shown(rows_load(job, 0, u, lanes, dense), y, kind);
    vec dx = (kind & ROW_LOG)       ? v_fnma(rows_exp((math_pair){y, v_zero()}), sum, dy)
             : (kind & ROW_NEGATED) ? v_mul(y, v_sub(sum, dy))
                                    : v_mul(y, v_sub(dy, sum));
    rows_store(job, u, lanes, (kind & ROW_SCALED) ? v_div(dx, temperature) : dx, dense);
  }
}

/* ---- hardmax, maxout -------------------------------------------------------------------------------------------- */

/* 1, or dy, at the first of the greatest x, else 0; NaN throughout a row with a NaN. in = x, or dy and x. */
FA_INLINE void rows_first_top(const rows_job *job, const int across, const int dense, const int kind) {
  const int operand = (kind & ROW_TIMES_DY) ? 1 : 0;
  vec top = rows_top(job, operand, across, dense, kind, 1), zero = v_zero();
  vec mark = (kind & ROW_TIMES_DY) ? rows_value(job, 0, across) : v_set1(1);
  vec rest = v_sel(v_isnan(top), top, zero); /* elsewhere */
  vmask open = m_not(v_eq(top, v_set1(-INFINITY)));
  for (fa_size u = 0; u < job->units; u++) {
    fa_size lanes = rows_lanes(job, u, across);
    vmask hit = m_and(open, v_eq(rows_load(job, operand, u, lanes, dense), top));
    vec y = v_sel(hit, mark, rest);
    if (lanes < VL) hit = m_and(hit, m_first(lanes));
    if (across) {
      open = m_and(open, m_not(hit));
    } else if (m_any(hit)) { /* the first lane of them */
      real lane[VL];
      int first = 1;
      v_store(lane, v_sel(hit, v_set1(1), zero));
      for (int i = 0; i < VL; i++) {
        if (lane[i] == 0) continue;
        lane[i] = first;
        first = 0;
      }
      y = v_sel(v_eq(v_load(lane), v_set1(1)), mark, rest);
      open = m_first(0);
    }
    rows_store(job, u, lanes, y, dense);
  }
}

FA_INLINE void rows_greatest(const rows_job *job, const int across, const int dense, const int kind) {
  rows_store_value(job, rows_top(job, 0, across, dense, kind, 1), across);
}

/* hardmax has no slope. */
FA_INLINE void rows_nothing(const rows_job *job, const int across, const int dense, const int kind) {
  (void)kind;
  for (fa_size u = 0; u < job->units; u++) rows_store(job, u, rows_lanes(job, u, across), v_zero(), dense);
}

/* ---- sparsemax (Martins & Astudillo 2016): y = max(x - tau, 0) with sum(y) = 1 ---------------------------------- */

/* x - top - threshold. */
FA_INLINE vec sparsemax_excess(vec x, const rows_row *row) {
  math_pair d = rows_below(x, row, ROW_PLAIN);
  return v_add(v_sub(d.head, row->threshold.head), v_sub(d.tail, row->threshold.tail));
}
/* x - top of the elements above the threshold, which are counted too. */
FA_INLINE void sparsemax_term(const rows_job *job, fa_size u, fa_size lanes, rows_row *row, rows_sum *sum,
                              const int dense, const int kind) {
  vec x = rows_load(job, 0, u, lanes, dense);
  math_pair d = rows_below(x, row, kind);
  vmask above = v_gt(sparsemax_excess(x, row), v_zero());
  if (lanes < VL) above = m_and(above, m_first(lanes));
  *sum = rows_add(*sum, v_sel(above, d.head, v_zero()), v_sel(above, d.tail, v_zero()));
  row->count = v_add(row->count, v_sel(above, v_set1(1), v_zero()));
}
ROWS_SUM(sparsemax_term, 1)

/* The threshold by Michelot's iteration, from -1 below the top (nothing there can count): the mean excess over 1 of what
 * lies above it is a higher threshold, until no element drops out. Each set of elements contains the next, so rows that are
 * done stand still while the other lanes go on. Ends after 3 to 8 passes on random rows of any length. */
FA_INLINE void rows_sparsemax(const rows_job *job, const int across, const int dense, const int kind) {
  rows_row row = {.top = rows_origin(rows_top(job, 0, across, dense, kind, 1))};
  row.threshold = (math_pair){v_set1(-1), v_zero()};
  vec before = v_set1(-1);
  for (;;) {
    row.count = v_zero();
    rows_sum total = sparsemax_terms(job, &row, across, dense, kind);
    vec count = row.count, one = v_set1(1);
    if (!across) count = v_set1(v_hsum(count));
    if (!m_any(m_not(v_eq(count, before)))) break;
    before = count;
    total = rows_add(total, v_neg(one), v_zero());
    vec head = v_div(total.sum, count);
    vec tail = v_div(v_add(v_fnma(head, count, total.sum), total.lost), count);
    vec rise = v_add(v_sub(head, row.threshold.head), v_sub(tail, row.threshold.tail));
    vmask higher = v_gt(rise, v_zero());
    row.threshold.head = v_sel(higher, head, row.threshold.head);
    row.threshold.tail = v_sel(higher, tail, row.threshold.tail);
  }
  for (fa_size u = 0; u < job->units; u++) {
    fa_size lanes = rows_lanes(job, u, across);
    rows_store(job, u, lanes, v_max(v_zero(), sparsemax_excess(rows_load(job, 0, u, lanes, dense), &row)), dense);
  }
}

/* dy where y > 0, which are counted too. */
FA_INLINE void sparsemax_backward_term(const rows_job *job, fa_size u, fa_size lanes, rows_row *row, rows_sum *sum,
                                       const int dense, const int kind) {
  (void)kind;
  vmask support = v_gt(rows_load(job, 1, u, lanes, dense), v_zero());
  sum->sum = v_add(sum->sum, v_sel(support, rows_load(job, 0, u, lanes, dense), v_zero()));
  row->count = v_add(row->count, v_sel(support, v_set1(1), v_zero()));
}
ROWS_SUM(sparsemax_backward_term, 0)

/* dx = dy - mean(dy) over the support of y, 0 elsewhere. in = dy, y. */
FA_INLINE void rows_sparsemax_backward(const rows_job *job, const int across, const int dense, const int kind) {
  rows_row row = {.count = v_zero()};
  rows_sum total = sparsemax_backward_terms(job, &row, across, dense, kind);
  vec count = row.count;
  if (!across) count = v_set1(v_hsum(count));
  vec mean = v_div(v_add(total.sum, total.lost), count);
  for (fa_size u = 0; u < job->units; u++) {
    fa_size lanes = rows_lanes(job, u, across);
    vec y = rows_load(job, 1, u, lanes, dense), dy = rows_load(job, 0, u, lanes, dense);
    vec dx = v_sel(v_gt(y, v_zero()), v_sub(dy, mean), v_sel(v_isnan(y), y, v_zero()));
    rows_store(job, u, lanes, dx, dense);
  }
}

/* ---- Layouts ---------------------------------------------------------------------------------------------------- */

typedef void (*rows_body)(const rows_job *);
/* Bodies by layout, and which operands are rows (the others have one value a row). */
typedef struct {
  rows_body along;    /* along the lanes */
  rows_body across;   /* across them, neighbouring rows adjoin */
  rows_body gathered; /* across them, any strides */
  int operands, is_row[FA_ROWS_OPERANDS], out_is_row;
} rows_bodies;

/* VL short rows whose elements adjoin: turned on the stack, worked on across, turned back. */
FA_INLINE void rows_turned(const rows_job *rows, const rows_bodies *bodies, fa_size n) {
  FA_ALIGN(64) real buffer[FA_ROWS_OPERANDS + 1][ROW_SHORT][VL];
  vec block[VL];
  const fa_size row = VL * (fa_size)sizeof(real);
  rows_job job = *rows;
  job.units = n, job.lanes = VL;
  for (int k = 0; k < bodies->operands; k++) {
    if (!bodies->is_row[k]) continue;
    job.in[k] = (const char *)buffer[k], job.in_lane[k] = sizeof(real), job.in_unit[k] = row;
    for (fa_size j = 0; j < n; j += VL) {
      for (int i = 0; i < VL; i++) block[i] = v_load_n((const real *)(rows->in[k] + i * rows->in_lane[k]) + j, n - j);
      v_transpose(block);
      for (int i = 0; i < VL; i++) v_store(buffer[k][j + i], block[i]);
    }
  }
  real(*out)[VL] = buffer[FA_ROWS_OPERANDS];
  if (bodies->out_is_row) job.out = (char *)out, job.out_lane = sizeof(real), job.out_unit = row;
  bodies->across(&job);
  if (!bodies->out_is_row) return;
  for (fa_size j = 0; j < n; j += VL) {
    for (int i = 0; i < VL; i++) block[i] = v_load(out[j + i]);
    v_transpose(block);
    for (int i = 0; i < VL; i++) v_store_n((real *)(rows->out + i * rows->out_lane) + j, block[i], n - j);
  }
}

/* Chooses the layout and goes through the rows. */
static void rows_run(const fa_rows_args *args, const rows_bodies *bodies) {
  const fa_size item = sizeof(real);
  int elements_adjoin = !bodies->out_is_row || args->out_stride == item;
  int rows_adjoin = !bodies->out_is_row || args->out_row_stride == item;
  for (int k = 0; k < bodies->operands; k++) {
    elements_adjoin &= !bodies->is_row[k] || args->in_stride[k] == item;
    rows_adjoin &= !bodies->is_row[k] || args->in_row_stride[k] == item;
  }
  for (fa_size row = 0, done; row < args->rows; row += done) {
    int turned = elements_adjoin && VL > 1 && args->n <= ROW_SHORT && args->rows - row >= VL;
    rows_body body = elements_adjoin && !turned ? bodies->along : rows_adjoin ? bodies->across : bodies->gathered;
    const int along = body == bodies->along;
    rows_job job = {.units = along ? FA_CEIL_DIV(args->n, VL) : args->n};
    done = along ? 1 : FA_MIN(VL, args->rows - row);
    job.lanes = along ? (args->n + VL - 1) % VL + 1 : done;
    for (int k = 0; k < bodies->operands; k++) {
      job.in[k] = (const char *)args->in[k] + row * args->in_row_stride[k];
      job.in_lane[k] = along ? item : args->in_row_stride[k];
      job.in_unit[k] = along ? VL * item : args->in_stride[k];
    }
    job.out = (char *)args->out + row * args->out_row_stride;
    job.out_lane = along ? item : args->out_row_stride;
    job.out_unit = along ? VL * item : args->out_stride;
    if (turned)
      rows_turned(&job, bodies, args->n);
    else
      body(&job);
  }
}

/* A kernel: the body's variant, and whether each operand, and the output, is a row. Bodies work on a copy of the job, which
 * no store to `out` can alter: its fields stay in registers (softmax backward 0.18 ns an element instead of 0.23). */
#define ROWS_KERNEL(name, body, kind, count, row0, row1, row2, out_row)                                                \
  FA_NOINLINE void name##_along(const rows_job *job) { const rows_job own = *job; body(&own, 0, 1, kind); }            \
  FA_NOINLINE void name##_across(const rows_job *job) { const rows_job own = *job; body(&own, 1, 1, kind); }           \
  FA_NOINLINE void name##_gathered(const rows_job *job) { const rows_job own = *job; body(&own, 1, 0, kind); }         \
  static void name##_rows(const fa_rows_args *args) {                                                                  \
    static const rows_bodies bodies = {name##_along, name##_across, name##_gathered, count, {row0, row1, row2}, out_row}; \
    rows_run(args, &bodies);                                                                                           \
  }
#define ROWS_SOFTMAX(name, kind)                                                                                       \
  ROWS_KERNEL(name, rows_softmax, kind, 1, 1, 0, 0, 1)                                                                 \
  ROWS_KERNEL(name##_backward, rows_softmax_backward, kind, 2, 1, 1, 0, 1)                                             \
  ROWS_KERNEL(name##_scaled, rows_softmax, (kind) | ROW_SCALED, 2, 1, 0, 0, 1)                                         \
  ROWS_KERNEL(name##_scaled_backward, rows_softmax_backward, (kind) | ROW_SCALED, 3, 1, 1, 0, 1)
ROWS_SOFTMAX(softmax, ROW_PLAIN)
ROWS_SOFTMAX(softmin, ROW_NEGATED)
ROWS_SOFTMAX(log_softmax, ROW_LOG)
ROWS_KERNEL(logsumexp, rows_softmax, ROW_LOG | ROW_REDUCED, 1, 1, 0, 0, 0)
ROWS_KERNEL(logsumexp_backward, rows_softmax, ROW_TIMES_DY, 2, 0, 1, 0, 1)
ROWS_KERNEL(hardmax, rows_first_top, ROW_PLAIN, 1, 1, 0, 0, 1)
ROWS_KERNEL(hardmax_backward, rows_nothing, ROW_PLAIN, 2, 1, 1, 0, 1)
ROWS_KERNEL(maxout, rows_greatest, ROW_PLAIN, 1, 1, 0, 0, 0)
ROWS_KERNEL(maxout_backward, rows_first_top, ROW_TIMES_DY, 2, 0, 1, 0, 1)
ROWS_KERNEL(sparsemax, rows_sparsemax, ROW_PLAIN, 1, 1, 0, 0, 1)
ROWS_KERNEL(sparsemax_backward, rows_sparsemax_backward, ROW_PLAIN, 2, 1, 1, 0, 1)

#define ROWS_ENTRY(name, signature) name##_rows,
static const fa_rows_kernel rows_kernels[FA_ROWS_COUNT] = {FA_ROWS_TABLE(ROWS_ENTRY)};
