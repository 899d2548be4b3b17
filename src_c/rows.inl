/* Row kernels: softmax and its kin, sparsemax, hardmax, maxima and log-sum-exp along rows, rows over their deviation or
 * norm, forward and backward.
 *
 * A row of n elements lies either along the lanes of a vector or across them, one row a lane: the second serves an axis
 * that is not the last (neighbouring rows are neighbours in memory) and short rows, where a sum over lanes would cost
 * more than the row. Both are the same loop over "units", vectors of VL lanes at any two strides:
 *
 *     along   unit u = elements u VL ... u VL + VL - 1 of one row         lane stride = element, unit stride = VL elements
 *     across  unit u = element u of VL rows                               lane stride = row,     unit stride = element
 *
 * Several vectors of rows (across) or several rows (along) go together, `wide` of them: what waits for its last addition in
 * one row does something in another. Across, ROW_PANEL vectors of longer rows do: 4 KiB of neighbours are read at once, where
 * four vectors at a stride of a power of two would all fall into the same few sets of the caches (float32, 1024 x 1024 along
 * axis 0: softmax 0.70 -> 0.36 ns an element, its backward 0.47 -> 0.23). What is known of a panel's rows stands in L1. Of
 * rows of up to ROW_BLOCK elements, VL go together one after the other: what is known of each then stands in the lanes of
 * one vector, so that the last additions and the logarithm are done for all of them at once.
 *
 * Element j of a row is added to partial sum j mod ROW_LANES, and the partial sums are added in halves (i with i + 32,
 * i + 16, ...), so a row has the same bits in either layout and on every instruction set. Along, four vectors of partial
 * sums hide the latency of the compensated addition. Across, compensated partial sums come one after the other in the order
 * of that tree, of which one sum a level waits.
 *
 * Errors: x - max is kept as head and tail, the sum as sum and correction, so neither |x - max| nor n enters the bound:
 * exp 1.1 ulp, sum 0.5, quotient 0.5. log_softmax takes log1p of what exceeds 1: the dominant class keeps its digits.
 *
 * Times, ns an element in float32 on one Zen 3 core with AVX2, rows of 128 in L2. Exact sums that start at what no term exceeds
 * (SUM_FROM_START) take four operations instead of seven, squares among them; exponentials are cut in two loops and made ahead
 * of their sums; a quotient is a product, corrected: softmax 0.98 -> 0.78, logsumexp 0.83 -> 0.66. Rows that need no care, in
 * blocks: standardize 1.06 -> 0.60, backward 1.71 -> 0.79, normalize 0.63 -> 0.36, backward 1.08 -> 0.42.
 *
 * Tried, no use: copying the columns of a non-last axis first, where a stride of a power of two throws them all into one set
 * of the cache: of four vectors, to the stack, at 8 KiB (1.29 ns an element for 1.42; 0.54 at other strides); of 8 or 16, to
 * a place in L2, at 4 KiB (1024 x 1024: 1 to 1.8 times the time of a panel in place).
 *
 * A masked entry is one of -inf (standardize: as told): it gets 0 (log_softmax: -inf), and nothing flows back to it. */

enum { ROW_LANES = 4 * FA_MAX_VL, ROW_LEVELS = FA_F32 ? 6 : 5 };
/* Elements of rows that are turned, that go in blocks, of which two go together, that need no panel; then vectors at once. */
enum { ROW_SHORT = 32, ROW_BLOCK = 512, ROW_MIDDLE = 512, ROW_FEW = 8, ROW_WIDE = 4, ROW_PANEL = 64 };
/* Of two operands two rows together are four streams of memory, which are not fetched ahead as two are. Where a row has but four
 * partial sums (16 lanes) they fill the pipes all the same; else up to 320 bytes. Softmax backward with AVX2 on Zen 3, ns an
 * element by two rows and by one, rows of 64 0.27 and 0.29, in 4 MB 0.28 and 0.30; of 256 0.18 and 0.18, in 4 MB 0.35 and 0.23;
 * float64 rows of 128 in 8 MB 1.3 and 0.67. */
enum { ROW_MIDDLE_OF_TWO = ROW_LANES > 4 * VL ? 320 / sizeof(real) : ROW_MIDDLE };

/* Variants of one body: bits. */
enum { ROW_PLAIN = 0, ROW_LOG = 1, ROW_SCALED = 2, ROW_NEGATED = 4, ROW_REDUCED = 8, ROW_TIMES_DY = 16, ROW_CENTRED = 32,
       ROW_CAREFUL = 64 };

/* What a body is compiled for. */
typedef struct {
  int across, dense; /* dense: the lanes adjoin */
  int wide;          /* so many vectors of rows, or rows, at once; 1 for a block */
  int kind;
  int block;         /* VL rows along, one after the other */
} rows_mode;

/* Operands of `times` groups of wide vectors of rows (across) or wide rows (along); strides in bytes. */
typedef struct rows_job {
  const char *in[FA_ROWS_OPERANDS];
  fa_size in_lane[FA_ROWS_OPERANDS], in_unit[FA_ROWS_OPERANDS];
  fa_size in_wide[FA_ROWS_OPERANDS]; /* from one of the vectors of rows, or rows, to the next */
  char *out;
  fa_size out_lane, out_unit, out_wide;
  fa_size times;
  fa_size units; /* of the row */
  fa_size lanes; /* across: rows; along: elements in the last unit */
  real sign;     /* of a scaled body: 0, or -0 where x counts with its sign changed (softmin) */
  const struct rows_job *whole; /* what this is the rest of */
} rows_job;

/* Where a pass over the units stands: unit u of the w-th of those that go together, of which `lanes` lanes count. In a sum: its
 * value, if that was made ahead, and whether it is the first of its partial sum (if that is known). */
typedef struct {
  fa_size u, lanes;
  int w;
  const vec *made;
  int first;
} rows_place;

#if VL > 1 /* 64 partial sums on one lane are too many to write out */
#define ROWS_UNROLL FA_UNROLL
#define ROWS_UNROLL_WIDE FA_UNROLL_4
#else
#define ROWS_UNROLL
#define ROWS_UNROLL_WIDE
#endif
/* Vectors of what is known of the rows. */
#define ROWS_WIDE(mode, w) ROWS_UNROLL_WIDE for (int w = 0; w < (mode).wide; w++)
/* Does something at every place of a row, whole vectors first; not of a block. */
#define ROWS_EACH(job, mode, place, ...)                                                                               \
  do {                                                                                                                 \
    const fa_size whole = (job)->lanes >= VL ? (job)->units : (mode).across ? 0 : (job)->units - 1;                    \
    for (fa_size u_ = 0; u_ < whole; u_++)                                                                             \
      ROWS_WIDE(mode, w_) {                                                                                            \
        const rows_place place = {.u = u_, .lanes = VL, .w = w_};                                                      \
        __VA_ARGS__                                                                                                    \
      }                                                                                                                \
    for (fa_size u_ = whole; u_ < (job)->units; u_++)                                                                  \
      ROWS_WIDE(mode, w_) {                                                                                            \
        const rows_place place = {.u = u_, .lanes = (job)->lanes, .w = w_};                                            \
        __VA_ARGS__                                                                                                    \
      }                                                                                                                \
  } while (0)

FA_INLINE vec rows_gather(const char *p, fa_size stride, fa_size lanes) {
  if (stride == (fa_size)sizeof(real)) return lanes >= VL ? v_load((const real *)p) : v_load_n((const real *)p, lanes);
  real lane[VL] = {0};
  for (fa_size i = 0; i < VL && i < lanes; i++) memcpy(&lane[i], p + i * stride, sizeof(real));
  return v_load(lane);
}
FA_INLINE void rows_scatter(char *p, fa_size stride, fa_size lanes, vec v) {
  if (stride == (fa_size)sizeof(real)) {
    v_store_n((real *)p, v, lanes);
    return;
  }
  real lane[VL];
  v_store(lane, v);
  for (fa_size i = 0; i < VL && i < lanes; i++) memcpy(p + i * stride, &lane[i], sizeof(real));
}
/* From one unit to the next: along, a constant, without which every vector of a sum has a pointer of its own. */
FA_INLINE fa_size rows_unit(fa_size stride, rows_mode m) { return m.across ? stride : VL * (fa_size)sizeof(real); }
FA_INLINE vec rows_load(const rows_job *job, int operand, rows_place at, rows_mode m) {
  const char *p = job->in[operand] + at.u * rows_unit(job->in_unit[operand], m) + at.w * job->in_wide[operand];
  if (!m.dense) return rows_gather(p, job->in_lane[operand], at.lanes);
  return at.lanes >= VL ? v_load((const real *)p) : v_load_n((const real *)p, at.lanes);
}
FA_INLINE void rows_store(const rows_job *job, rows_place at, vec v, rows_mode m) {
  char *p = job->out + at.u * rows_unit(job->out_unit, m) + at.w * job->out_wide;
  if (!m.dense)
    rows_scatter(p, job->out_lane, at.lanes, v);
  else if (at.lanes >= VL)
    v_store((real *)p, v);
  else
    v_store_n((real *)p, v, at.lanes);
}
/* Long rows along: the same place of the next one, as hardware prefetching ends with the page (softmax backward float32, rows of
 * 1024, 1M: 0.94 -> 1.0 of PyTorch; shorter rows gain nothing). */
FA_INLINE void rows_prefetch(const rows_job *job, int operand, rows_place at, rows_mode m) {
  if (m.across || m.block || m.wide > 1) return;
  FA_PREFETCH(job->in[operand] + at.u * rows_unit(0, m) + (at.w + m.wide) * job->in_wide[operand]);
}
/* An operand, or the output, with one value a row: along, in every lane; of a block, each in its own. */
FA_INLINE vec rows_value(const rows_job *job, int operand, int w, rows_mode m) {
  const char *p = job->in[operand] + w * job->in_wide[operand];
  if (m.block) return rows_gather(p, job->in_wide[operand], VL);
  return m.across ? rows_gather(p, job->in_lane[operand], m.wide > 1 ? VL : job->lanes) : v_set1(*(const real *)p);
}
FA_INLINE void rows_store_value(const rows_job *job, int w, vec v, rows_mode m) {
  if (m.block)
    rows_scatter(job->out, job->out_wide, VL, v);
  else
    rows_scatter(job->out + w * job->out_wide, job->out_lane, !m.across ? 1 : m.wide > 1 ? VL : job->lanes, v);
}
/* From one row of a block to the next, and how one is gone through. A copy of the job for each row costs more than the row:
 * GCC joins two stores of 8 bytes to one load of 16, which waits for both. */
FA_INLINE void rows_next(rows_job *one) {
  FA_UNROLL for (int k = 0; k < FA_ROWS_OPERANDS; k++) one->in[k] += one->in_wide[k];
  one->out += one->out_wide;
}
FA_INLINE rows_mode rows_one(rows_mode m) { return (rows_mode){.dense = m.dense, .wide = 1, .kind = m.kind}; }

/* ---- Sums --------------------------------------------------------------------------------------------------- */

/* A sum and what rounding took from it; of SUM_TWO two sums. */
typedef struct {
  vec sum, lost;
} rows_sum;

/* How a sum is made: plainly, two of them at once, exactly (2Sum), or exactly from a start that no term exceeds in size
 * (Fast2Sum: four operations instead of seven), which is taken off again; starts are such that this is exact, too. */
enum { SUM_PLAIN, SUM_TWO, SUM_EXACT, SUM_FROM_START };

/* Fast2Sum where there is nothing to multiply meanwhile: what rounding took, by the other pipes. */
FA_INLINE rows_sum rows_add_apart(rows_sum a, vec b) {
  vec sum = v_add(a.sum, b);
  return (rows_sum){sum, v_add(a.lost, v_sub_apart(b, v_sub_apart(sum, a.sum)))};
}

FA_INLINE rows_sum rows_add(rows_sum a, vec b, const int how) {
  math_pair s = how == SUM_FROM_START ? pair_fast_sum(a.sum, b) : pair_sum(a.sum, b);
  return (rows_sum){s.head, v_add(a.lost, s.tail)};
}
/* The term of a place. */
FA_INLINE rows_sum rows_take(rows_sum a, vec b, rows_place at, const int how) {
  return how == SUM_EXACT && at.first ? (rows_sum){b, a.lost} : rows_add(a, b, how);
}
/* A square, likewise from a start: what rounding took of it is in the rest. */
FA_INLINE rows_sum rows_take_square(rows_sum a, vec d) {
  vec sum = v_fma(d, d, a.sum);
  return (rows_sum){sum, v_add(a.lost, v_fms(d, d, v_sub_apart(sum, a.sum)))};
}
/* Two partial sums, whose starts are off. */
FA_INLINE rows_sum rows_join(rows_sum a, rows_sum b, const int how) {
  if (how == SUM_PLAIN) return (rows_sum){v_add(a.sum, b.sum), a.lost};
  if (how == SUM_TWO) return (rows_sum){v_add(a.sum, b.sum), v_add(a.lost, b.lost)};
  const vec sum = v_add(a.sum, b.sum), part = v_sub(sum, a.sum); /* 2Sum, half of it by the other pipes */
  const vec rest = v_add(v_sub_apart(a.sum, v_sub_apart(sum, part)), v_sub_apart(b.sum, part));
  return (rows_sum){sum, v_add(v_add(a.lost, b.lost), rest)};
}

enum { ROW_VECTORS = ROW_LANES / VL }; /* vectors of partial sums along a row */

/* The first `count` of sums added in halves. */
FA_INLINE rows_sum rows_halve(rows_sum *sums, const int count, const int how) {
  ROWS_UNROLL for (int half = count / 2; half > 0; half /= 2)
    ROWS_UNROLL for (int i = 0; i < half; i++) sums[i] = rows_join(sums[i], sums[i + half], how);
  return sums[0];
}
/* The lanes of a partial sum added in halves; the result in every lane. */
FA_INLINE rows_sum rows_fold(rows_sum total, const int how) {
  FA_UNROLL for (int lanes = VL; lanes > 1; lanes /= 2) { /* lane i meets i + VL/2, and both stay as neighbours */
    rows_sum high = {v_zip_hi(total.sum, total.sum), v_zip_hi(total.lost, total.lost)};
    total = rows_join((rows_sum){v_zip_lo(total.sum, total.sum), v_zip_lo(total.lost, total.lost)}, high, how);
  }
  return total;
}
/* The same for VL rows, each sum in the lane of its row. */
FA_INLINE rows_sum rows_fold_block(const rows_sum total[VL], const int how) {
  vec sum[VL], lost[VL];
  rows_sum turned[VL];
  FA_UNROLL for (int i = 0; i < VL; i++) sum[i] = total[i].sum, lost[i] = how == SUM_PLAIN ? v_zero() : total[i].lost;
  v_transpose(sum);
  if (how != SUM_PLAIN) v_transpose(lost);
  FA_UNROLL for (int i = 0; i < VL; i++) turned[i] = (rows_sum){sum[i], lost[i]};
  return rows_halve(turned, VL, how);
}

/* What is known of a row; along in every lane, across and of a block in the lane of the row. */
typedef struct {
  vec top;             /* what x is measured from: the greatest; of a size: the greatest |x| */
  vec inverse, rest;   /* 1 / temperature, as head and tail; of a size: the power of two by which x is multiplied */
  vec temperature;     /* of a size: p, or what stands for a masked entry */
  vec start;           /* of a sum */
  vec sum, over;       /* of the exponentials, or of dy y; the size; and 1 over it */
  math_pair log_sum;
  vec dy;
  math_pair threshold; /* sparsemax: x - top counts above it ...; standardize: the mean */
  vec count;           /* ... and so many do; whole numbers, in any order */
  vec dy_mean, dy_y;   /* of the backward pass of a size: what is taken off dy, evenly and in proportion to y */
} rows_row;

FA_INLINE vec rows_spread(const vec *known, int w) {
  real lane;
  memcpy(&lane, (const char *)known + w * (fa_size)sizeof(real), sizeof(real));
  return v_set1(lane);
}
/* a / row->sum, as the product with 1 / sum corrected once: within 0.51 ulp (Markstein 1990), three operations of multipliers
 * for one of the divider, which on Zen 3 takes eight floats in the time of seven such. */
FA_INLINE vec rows_quotient(vec a, const rows_row *row) {
  vec q = v_mul(a, row->over);
  return v_fnma(v_fms(q, row->sum, a), row->over, q);
}
/* What is known of one row of a block, in every lane. */
FA_INLINE rows_row rows_known(const rows_row *rows, int w) {
#define SPREAD(field) rows_spread(&rows->field, w)
  return (rows_row){SPREAD(top), SPREAD(inverse), SPREAD(rest), SPREAD(temperature), SPREAD(start), SPREAD(sum), SPREAD(over),
                    {SPREAD(log_sum.head), SPREAD(log_sum.tail)}, SPREAD(dy),
                    {SPREAD(threshold.head), SPREAD(threshold.tail)}, SPREAD(count), SPREAD(dy_mean), SPREAD(dy_y)};
#undef SPREAD
}
/* ROWS_EACH with what is known of the row of a place; the rows of a block one after the other. */
#define ROWS_EACH_OF(job, mode, rows, one, place, known, ...)                                                          \
  do {                                                                                                                 \
    if ((mode).block) {                                                                                                \
      const rows_mode mode_ = rows_one(mode);                                                                          \
      rows_job job_ = *(job), *one = &job_;                                                                            \
      for (int row_ = 0; row_ < VL; row_++, rows_next(one)) {                                                          \
        const rows_row known = rows_known(rows, row_);                                                                 \
        ROWS_EACH(one, mode_, place, __VA_ARGS__);                                                                     \
      }                                                                                                                \
    } else {                                                                                                           \
      const rows_job *one = job;                                                                                       \
      ROWS_EACH(one, mode, place, const rows_row known = (rows)[place.w]; __VA_ARGS__);                                \
    }                                                                                                                  \
  } while (0)

/* term##s: the sum over each row of a term, which adds itself to a partial sum. `ahead` makes the values of some terms ahead
 * of their sum (rows_nothing_ahead: none). Across, leaf i of the tree is the partial sum whose number is i with its bits
 * reversed; like the digits of a binary counter, two finished sums of one level make one of the next. All partial sums at once
 * would be 32 KB; plain ones of ROW_WIDE vectors are half of that, and take the row as it comes (out of order, such narrow
 * pieces of memory that is not in a cache come a third slower). */
#define ROWS_SUM(term, how, ahead)                                                                                     \
  FA_INLINE rows_sum term##_begun(const rows_row *row, rows_mode m) {                                                  \
    return (void)m, (rows_sum){(how) == SUM_FROM_START ? row->start : v_zero(), v_zero()};                             \
  }                                                                                                                    \
  FA_INLINE rows_sum term##_ended(rows_sum sum, const rows_row *row, rows_mode m) {                                    \
    return (void)m, (how) == SUM_FROM_START ? (rows_sum){v_sub(sum.sum, row->start), sum.lost} : sum;                  \
  }                                                                                                                    \
  FA_INLINE void term##s_partial(const rows_job *job, rows_row *row, rows_sum *total, rows_mode m) {                   \
    rows_sum partial[ROW_WIDE][ROW_VECTORS], group[ROW_WIDE][ROW_VECTORS];                                             \
    fa_size u = 0, whole = job->units - (job->lanes < VL);                                                             \
    if (job->units <= ROW_VECTORS / 2) {                                                                               \
      for (; u < job->units; u++)                                                                                      \
        ROWS_WIDE(m, w) {                                                                                              \
          rows_sum sum = term##_begun(&row[w], m);                                                                     \
          term(job, (rows_place){u, u < whole ? VL : job->lanes, w, NULL, 1}, &row[w], &sum, m);                       \
          partial[w][u] = term##_ended(sum, &row[w], m);                                                               \
        }                                                                                                              \
      for (fa_size half = ROW_VECTORS / 4; half > 0; half /= 2)                                                        \
        for (fa_size i = 0; i < FA_MIN(half, job->units - half); i++)                                                  \
          ROWS_WIDE(m, w) partial[w][i] = rows_join(partial[w][i], partial[w][i + half], how);                         \
      ROWS_WIDE(m, w) total[w] = partial[w][0];                                                                        \
      return;                                                                                                          \
    }                                                                                                                  \
    ROWS_WIDE(m, w) ROWS_UNROLL for (int g = 0; g < ROW_VECTORS; g++) group[w][g] = term##_begun(&row[w], m);          \
    for (; u + ROW_VECTORS <= whole; u += ROW_VECTORS) {                                                               \
      vec made[ROW_VECTORS * ROW_WIDE];                                                                                \
      const int ready = ahead(job, row, u, ROW_VECTORS, made, m);                                                      \
      ROWS_UNROLL for (int g = 0; g < ROW_VECTORS; g++)                                                                \
        ROWS_WIDE(m, w)                                                                                                \
          term(job, (rows_place){u + g, VL, w, ready ? &made[g * m.wide + w] : NULL, 0}, &row[w], &group[w][g], m);    \
    }                                                                                                                  \
    ROWS_WIDE(m, w) ROWS_UNROLL for (int g = 0; g < ROW_VECTORS; g++) partial[w][g] = group[w][g];                     \
    for (int g = 0; u < job->units; u++, g++)                                                                          \
      ROWS_WIDE(m, w) term(job, (rows_place){u, u < whole ? VL : job->lanes, w, NULL, 0}, &row[w], &partial[w][g], m); \
    ROWS_WIDE(m, w) {                                                                                                  \
      ROWS_UNROLL for (int g = 0; g < ROW_VECTORS; g++) partial[w][g] = term##_ended(partial[w][g], &row[w], m);       \
      total[w] = rows_halve(partial[w], ROW_VECTORS, how);                                                             \
    }                                                                                                                  \
  }                                                                                                                    \
  FA_INLINE void term##s_across(const rows_job *job, rows_row *row, rows_sum *total, rows_mode m) {                    \
    const fa_size lanes = m.wide > 1 ? VL : job->lanes;                                                                \
    if ((how) == SUM_PLAIN && m.wide <= ROW_WIDE) {                                                                    \
      vec partial[ROW_LANES][ROW_WIDE];                                                                                \
      for (fa_size u = 0; u < job->units; u++)                                                                         \
        ROWS_WIDE(m, w) {                                                                                              \
          rows_sum sum = {u < ROW_LANES ? v_zero() : partial[u % ROW_LANES][w], v_zero()};                             \
          term(job, (rows_place){u, lanes, w, NULL, 0}, &row[w], &sum, m);                                             \
          partial[u % ROW_LANES][w] = sum.sum;                                                                         \
        }                                                                                                              \
      for (fa_size half = ROW_LANES / 2; half > 0; half /= 2)                                                          \
        for (fa_size i = 0; i < FA_MIN(half, job->units - half); i++)                                                  \
          ROWS_WIDE(m, w) partial[i][w] = v_add(partial[i][w], partial[i + half][w]);                                  \
      ROWS_WIDE(m, w) total[w] = (rows_sum){partial[0][w], v_zero()};                                                  \
      return;                                                                                                          \
    }                                                                                                                  \
    rows_sum waiting[ROW_LEVELS + 1][ROW_PANEL];                                                                       \
    vec made[ROW_PANEL];                                                                                               \
    int levels = 0;                                                                                                    \
    while (levels < ROW_LEVELS && 1 << levels < job->units) levels++;                                                  \
    const int leaves = 1 << levels;                                                                                    \
    for (int leaf = 0, begin = 0; leaf < leaves; leaf++) {                                                             \
      rows_sum sum[ROW_PANEL];                                                                                         \
      int level = 0, bit = leaves / 2;                                                                                 \
      ROWS_WIDE(m, w) sum[w] = term##_begun(&row[w], m);                                                               \
      for (fa_size u = begin; u < job->units; u += leaves) {                                                           \
        const int ready = m.wide == ROW_PANEL && ahead(job, row, u, 1, made, m);                                       \
        if (u == begin)                                                                                                \
          ROWS_WIDE(m, w) term(job, (rows_place){u, lanes, w, ready ? &made[w] : NULL, 1}, &row[w], &sum[w], m);       \
        else                                                                                                           \
          ROWS_WIDE(m, w) term(job, (rows_place){u, lanes, w, ready ? &made[w] : NULL, 0}, &row[w], &sum[w], m);       \
      }                                                                                                                \
      ROWS_WIDE(m, w) sum[w] = term##_ended(sum[w], &row[w], m);                                                       \
      for (; leaf >> level & 1; level++)                                                                               \
        ROWS_WIDE(m, w) sum[w] = rows_join(waiting[level][w], sum[w], how);                                            \
      ROWS_WIDE(m, w) waiting[level][w] = sum[w];                                                                      \
      for (; begin & bit; bit /= 2) begin ^= bit; /* counts with its bits reversed */                                  \
      begin ^= bit;                                                                                                    \
    }                                                                                                                  \
    ROWS_WIDE(m, w) total[w] = waiting[levels][w];                                                                     \
  }                                                                                                                    \
  FA_INLINE void term##s_block(const rows_job *job, const rows_row *row, rows_sum *total, rows_mode m) {               \
    rows_sum of_row[VL];                                                                                               \
    rows_job one = *job;                                                                                               \
    for (int w = 0; w < VL; w++, rows_next(&one)) {                                                                    \
      rows_row known = rows_known(row, w);                                                                             \
      term##s_partial(&one, &known, &of_row[w], rows_one(m));                                                          \
    }                                                                                                                  \
    *total = rows_fold_block(of_row, how);                                                                             \
  }                                                                                                                    \
  FA_INLINE void term##s(const rows_job *job, rows_row *row, rows_sum *total, rows_mode m) {                           \
    if (m.across) {                                                                                                    \
      term##s_across(job, row, total, m);                                                                              \
    } else if (m.block) {                                                                                              \
      term##s_block(job, row, total, m);                                                                               \
    } else {                                                                                                           \
      term##s_partial(job, row, total, m);                                                                             \
      ROWS_WIDE(m, w) total[w] = rows_fold(total[w], how);                                                             \
    }                                                                                                                  \
  }

/* ---- x - max and its exponential ---------------------------------------------------------------------------- */

/* x, or -x for softmin. */
FA_INLINE vec rows_x(const rows_job *job, rows_place at, rows_mode m) {
  vec x = rows_load(job, (m.kind & ROW_TIMES_DY) ? 1 : 0, at, m);
  return (m.kind & ROW_SCALED) ? v_xor(x, v_set1(job->sign)) : x;
}

/* The greatest lane of each of VL vectors, each in its own lane. */
FA_INLINE vec rows_hmax_block(vec of_row[VL]) {
  v_transpose(of_row);
  ROWS_UNROLL for (int half = VL / 2; half > 0; half /= 2)
    ROWS_UNROLL for (int i = 0; i < half; i++) of_row[i] = v_max(of_row[i], of_row[i + half]);
  return of_row[0];
}
FA_INLINE void rows_tops_partial(const rows_job *job, vec *top, rows_mode m, const int nan) {
  vec lowest = v_set1(-INFINITY), spoilt[ROW_PANEL];
  ROWS_WIDE(m, w) top[w] = lowest, spoilt[w] = v_zero();
  ROWS_EACH(job, m, at, {
    vec x = rows_x(job, at, m);
    if (nan) spoilt[at.w] = v_sel(v_isnan(x), x, spoilt[at.w]); /* lanes beyond the end are 0 */
    top[at.w] = v_max(top[at.w], at.lanes < VL ? v_sel(m_first(at.lanes), x, lowest) : x);
  });
  ROWS_WIDE(m, w) if (nan && m_any(v_isnan(spoilt[w])))
    top[w] = m.across ? v_sel(v_isnan(spoilt[w]), spoilt[w], top[w]) : v_set1(NAN);
}
/* The greatest x of each row (along, in every lane), NaN where there is one if `nan`; -inf for a row of nothing else. */
FA_INLINE void rows_tops(const rows_job *job, vec *top, rows_mode m, const int nan) {
  if (m.block) {
    vec of_row[VL];
    rows_job one = *job;
    for (int w = 0; w < VL; w++, rows_next(&one)) rows_tops_partial(&one, &of_row[w], rows_one(m), nan);
    *top = rows_hmax_block(of_row);
    return;
  }
  rows_tops_partial(job, top, m, nan);
  if (!m.across) ROWS_WIDE(m, w) top[w] = v_set1(v_hmax(top[w]));
}

/* What x is measured from: 0 for a row of -inf, so that -inf stays -inf. */
FA_INLINE vec rows_origin(vec top) { return v_sel(v_eq(top, v_set1(-INFINITY)), v_zero(), top); }

/* (x - top) / temperature as head and tail, for x <= top; no tail where exp is 0. */
FA_INLINE math_pair rows_below(vec x, const rows_row *row, const int kind, const int near) {
  vec d = v_sub(x, row->top), part = v_sub(d, x);
  vec tail = v_sub(v_sub(x, v_sub(d, part)), v_add(row->top, part));
  if (kind & ROW_SCALED) {
    vec head = v_mul(d, row->inverse);
    tail = v_fma(tail, row->inverse, v_fma(d, row->rest, v_fms(d, row->inverse, head)));
    d = head;
  }
  return (math_pair){d, near ? tail : v_sel(v_gt(d, v_set1(EXP_ZERO)), tail, v_zero())};
}
FA_INLINE vec rows_exp(math_pair x, const int near) {
  return math_exp_times(math_exp_reduced(near ? x.head : v_max(v_set1(EXP_ZERO), x.head), x.tail, 1, NULL), v_set1(1), near);
}
FA_INLINE vec rows_exp_below(vec x, const rows_row *row, const int kind) {
  const math_cut *const cut = NULL;
  MATH_RETURN_BY_RANGE(rows_below(x, row, kind, 1).head, MATH_NEAR, cut, rows_exp(rows_below(x, row, kind, near), near));
}

/* log(sum + lost) for sums of at least 1, as head and tail: the power of two apart, so that a sum of 1 keeps its digits. */
FA_INLINE math_pair rows_log(rows_sum s) {
  vint exponent = vi_sub(vi_shr(v_bits(s.sum), EXPONENT_SHIFT), vi_set1(EXPONENT_BIAS));
  vec n = v_sub(v_from_bits(vi_add(exponent, v_bits(v_set1(ROUND_MAGIC)))), v_set1(ROUND_MAGIC)), scale = math_pow2(v_neg(n));
  math_pair excess = {v_fms(s.sum, scale, v_set1(1)), v_mul(s.lost, scale)};
  math_pair twos = pair_fast_sum(v_mul(n, v_set1(LN2_HEAD)), v_mul(n, v_set1(LN2_TAIL)));
  return pair_add(twos, pair_mul(excess, pair_log1p_ratio(excess)));
}

/* ---- softmax, softmin, log_softmax, logsumexp ------------------------------------------------------------------- */

/* exp(x - top) of `units` units, `wide` of each, in two loops over a few vectors (cut.inl), four of which a turn. */
enum { ROW_AHEAD = 16, ROW_TURN = 4 };
FA_INLINE rows_place softmax_place(fa_size u, int vector, int v, rows_mode m) {
  const int units = m.wide >= ROW_TURN ? vector / m.wide : vector / m.wide + v / m.wide;
  return (rows_place){.u = u + units, .lanes = VL, .w = m.wide >= ROW_TURN ? vector % m.wide + v : v % m.wide};
}
FA_INLINE vec softmax_half(math_pair d, const math_cut *cut) {
  return math_exp_times(math_exp_reduced(d.head, d.tail, 1, cut), v_set1(1), 1);
}
FA_INLINE int softmax_ahead(const rows_job *job, const rows_row *row, fa_size u, fa_size units, vec *made, rows_mode m) {
  if (!FA_CUTS_ALL || units * m.wide < ROW_TURN) return 0;
  for (int begin = 0, end = (int)units * m.wide; begin < end; begin += ROW_AHEAD) {
    const int some = FA_MIN(ROW_AHEAD, end - begin);
    vec state[2][ROW_AHEAD];
    vmask far = m_first(0);
    for (int i = 0; i < some; i += ROW_TURN)
      FA_UNROLL for (int v = 0; v < ROW_TURN; v++) {
        const rows_place at = softmax_place(u, begin + i, v, m);
        const math_pair d = rows_below(rows_x(job, at, m), &row[at.w], m.kind, 1);
        const math_cut half = {CUT_FIRST_HALF, {&state[0][i + v], &state[1][i + v]}, &far};
        far = m_or(far, v_gt(v_abs(d.head), v_set1(MATH_NEAR)));
        (void)softmax_half(d, &half);
      }
    if (FA_LIKELY(!m_any(far))) {
      for (int i = 0; i < some; i += ROW_TURN)
        FA_UNROLL for (int v = 0; v < ROW_TURN; v++) {
          const math_cut half = {CUT_SECOND_HALF, {&state[0][i + v], &state[1][i + v]}, &far};
          made[begin + i + v] = softmax_half(pair_of(v_zero()), &half);
        }
    } else {
      for (int i = 0; i < some; i++) {
        const rows_place at = softmax_place(u, begin + i / ROW_TURN * ROW_TURN, i % ROW_TURN, m);
        made[begin + i] = rows_exp_below(rows_x(job, at, m), &row[at.w], m.kind);
      }
    }
  }
  return 1;
}
#define rows_nothing_ahead(job, row, u, units, made, m) ((void)(made), 0)

/* exp(x - top), which softmax also keeps in out. Its sum starts at 1, which no term exceeds. That of a logarithm does not: what
 * it has beyond the greatest term, 1, counts to the last digit. */
#define SOFTMAX_HOW(kind) ((kind) & ROW_LOG ? SUM_EXACT : SUM_FROM_START)
FA_INLINE void softmax_term(const rows_job *job, rows_place at, rows_row *row, rows_sum *sum, rows_mode m) {
  vec e = at.made ? *at.made : rows_exp_below(rows_x(job, at, m), row, m.kind);
  if (at.lanes < VL) e = v_sel(m_first(at.lanes), e, v_zero());
  *sum = rows_take(*sum, e, at, SOFTMAX_HOW(m.kind));
  if (!(m.kind & (ROW_LOG | ROW_REDUCED))) rows_store(job, at, e, m);
}
ROWS_SUM(softmax_term, SOFTMAX_HOW(m.kind), softmax_ahead)

/* y = exp(x / temperature) / sum(exp(x / temperature)) or its logarithm; reduced: the logarithm of the sum; times dy, for
 * its backward: in = dy, x. */
FA_INLINE void rows_softmax(const rows_job *job, rows_mode m) {
  const int reduced = m.kind & ROW_REDUCED;
  vec top[ROW_PANEL], one = v_set1(1);
  rows_row row[ROW_PANEL];
  rows_sum total[ROW_PANEL];
  rows_tops(job, top, m, reduced);
  ROWS_WIDE(m, w) {
    row[w] = (rows_row){.top = rows_origin(top[w]), .start = one};
    if (m.kind & ROW_SCALED) {
      row[w].temperature = rows_value(job, 1, w, m);
      row[w].inverse = v_div(one, row[w].temperature);
      row[w].rest = v_mul(v_fnma(row[w].inverse, row[w].temperature, one), row[w].inverse);
    }
  }
  softmax_terms(job, row, total, m);
  ROWS_WIDE(m, w) total[w].sum = v_max(one, total[w].sum); /* 1 at least, or 0 */
  if (m.kind & ROW_LOG) {
    ROWS_WIDE(m, w) row[w].log_sum = rows_log(total[w]);
    if (reduced) {
      ROWS_WIDE(m, w) {
        rows_sum y = rows_add((rows_sum){row[w].top, row[w].log_sum.tail}, row[w].log_sum.head, SUM_EXACT);
        vec finite = v_add(y.sum, y.lost);
        rows_store_value(job, w, v_sel(v_eq(v_abs(top[w]), v_set1(INFINITY)), top[w], finite), m);
      }
      return;
    }
    ROWS_EACH_OF(job, m, row, one_row, at, known, {
      /* x - top is no farther from 0 than y is: rounded, it costs half an ulp. */
      vec d = v_sub(rows_x(one_row, at, m), known.top);
      if (m.kind & ROW_SCALED) d = v_mul(d, known.inverse);
      rows_store(one_row, at, v_sub(v_sub(d, known.log_sum.head), known.log_sum.tail), m);
    });
  } else {
    rows_job again = *job; /* the numerators are in out */
    again.in[0] = job->out, again.in_lane[0] = job->out_lane;
    again.in_unit[0] = job->out_unit, again.in_wide[0] = job->out_wide;
    ROWS_WIDE(m, w) {
      row[w].sum = v_add(total[w].sum, total[w].lost);
      row[w].over = v_div(one, row[w].sum);
      if (m.kind & ROW_TIMES_DY) row[w].dy = rows_value(job, 0, w, m);
    }
    ROWS_EACH_OF(&again, m, row, one_row, at, known, {
      vec y = rows_quotient(rows_load(one_row, 0, at, m), &known);
      rows_store(one_row, at, (m.kind & ROW_TIMES_DY) ? v_mul(known.dy, y) : y, m);
    });
  }
}

/* dy where x was not masked, else 0: y is 0, or -inf, there. */
FA_INLINE vec softmax_shown(vec dy, vec y, const int kind) {
  return v_unless(v_eq(y, (kind & ROW_LOG) ? v_set1(-INFINITY) : v_zero()), dy);
}
/* dy y, or dy for log_softmax. */
FA_INLINE void softmax_backward_term(const rows_job *job, rows_place at, rows_row *row, rows_sum *sum, rows_mode m) {
  (void)row;
  vec y = rows_load(job, 1, at, m), dy = softmax_shown(rows_load(job, 0, at, m), y, m.kind);
  sum->sum = (m.kind & ROW_LOG) ? v_add(sum->sum, dy) : v_fma(dy, y, sum->sum);
}
ROWS_SUM(softmax_backward_term, SUM_PLAIN, rows_nothing_ahead)

/* softmax: dx = y (dy - sum(dy y)); log_softmax: dx = dy - exp(y) sum(dy); over the temperature, of softmin over minus that.
 * in = dy, y. */
FA_INLINE void rows_softmax_backward(const rows_job *job, rows_mode m) {
  rows_sum total[ROW_PANEL];
  rows_row row[ROW_PANEL];
  ROWS_WIDE(m, w) {
    row[w] = (rows_row){.top = v_zero()};
    if (m.kind & ROW_SCALED) row[w].temperature = v_xor(rows_value(job, 2, w, m), v_set1(job->sign));
  }
  softmax_backward_terms(job, row, total, m);
  ROWS_WIDE(m, w) row[w].sum = v_add(total[w].sum, total[w].lost);
  ROWS_EACH_OF(job, m, row, one_row, at, known, {
    vec y = rows_load(one_row, 1, at, m), dy = softmax_shown(rows_load(one_row, 0, at, m), y, m.kind);
    rows_prefetch(one_row, 0, at, m);
    rows_prefetch(one_row, 1, at, m);
    vec dx = (m.kind & ROW_LOG)       ? v_fnma(rows_exp((math_pair){y, v_zero()}, 0), known.sum, dy)
             : (m.kind & ROW_NEGATED) ? v_mul(y, v_sub(known.sum, dy))
                                      : v_mul(y, v_sub(dy, known.sum));
    rows_store(one_row, at, (m.kind & ROW_SCALED) ? v_div(dx, known.temperature) : dx, m);
  });
}

/* ---- hardmax, maxout -------------------------------------------------------------------------------------------- */

/* 1, or dy, at the first of the greatest x, else 0; NaN throughout a row with a NaN. in = x, or dy and x. */
FA_INLINE void rows_first_top(const rows_job *job, rows_mode m) {
  vec top[ROW_PANEL], mark[ROW_PANEL], rest[ROW_PANEL], zero = v_zero();
  vmask open[ROW_PANEL];
  rows_tops(job, top, m, 1);
  ROWS_WIDE(m, w) {
    mark[w] = (m.kind & ROW_TIMES_DY) ? rows_value(job, 0, w, m) : v_set1(1);
    rest[w] = v_sel(v_isnan(top[w]), top[w], zero); /* elsewhere */
    open[w] = m_not(v_eq(top[w], v_set1(-INFINITY)));
  }
  ROWS_EACH(job, m, at, {
    const int w = at.w;
    vmask hit = m_and(open[w], v_eq(rows_x(job, at, m), top[w]));
    vec y = v_sel(hit, mark[w], rest[w]);
    if (at.lanes < VL) hit = m_and(hit, m_first(at.lanes));
    if (m.across) {
      open[w] = m_and(open[w], m_not(hit));
    } else if (m_any(hit)) { /* the first lane of them */
      real lane[VL];
      int first = 1;
      v_store(lane, v_sel(hit, v_set1(1), zero));
      for (int i = 0; i < VL; i++) {
        if (lane[i] == 0) continue;
        lane[i] = first;
        first = 0;
      }
      y = v_sel(v_eq(v_load(lane), v_set1(1)), mark[w], rest[w]);
      open[w] = m_first(0);
    }
    rows_store(job, at, y, m);
  });
}

FA_INLINE void rows_greatest(const rows_job *job, rows_mode m) {
  vec top[ROW_PANEL];
  rows_tops(job, top, m, 1);
  ROWS_WIDE(m, w) rows_store_value(job, w, top[w], m);
}

/* hardmax has no slope. */
FA_INLINE void rows_nothing(const rows_job *job, rows_mode m) {
  ROWS_EACH(job, m, at, { rows_store(job, at, v_zero(), m); });
}

/* ---- sparsemax (Martins & Astudillo 2016): y = max(x - tau, 0) with sum(y) = 1 ---------------------------------- */

/* x - top - threshold. */
FA_INLINE vec sparsemax_excess(vec x, const rows_row *row) {
  math_pair d = rows_below(x, row, ROW_PLAIN, 0);
  return v_add(v_sub(d.head, row->threshold.head), v_sub(d.tail, row->threshold.tail));
}
/* x - top of the elements above the threshold, which are counted too. */
FA_INLINE void sparsemax_term(const rows_job *job, rows_place at, rows_row *row, rows_sum *sum, rows_mode m) {
  vec x = rows_x(job, at, m);
  math_pair d = rows_below(x, row, m.kind, 0);
  vmask above = v_gt(sparsemax_excess(x, row), v_zero());
  if (at.lanes < VL) above = m_and(above, m_first(at.lanes));
  sum->lost = v_add(sum->lost, v_sel(above, d.tail, v_zero()));
  *sum = rows_take(*sum, v_sel(above, d.head, v_zero()), at, SUM_EXACT);
  row->count = v_add(row->count, v_sel(above, v_set1(1), v_zero()));
}
ROWS_SUM(sparsemax_term, SUM_EXACT, rows_nothing_ahead)

FA_INLINE vec rows_count(vec count, rows_mode m) { return m.across ? count : v_set1(v_hsum(count)); }

/* The threshold by Michelot's iteration, from -1 below the top (nothing there can count): the mean excess over 1 of what
 * lies above it is a higher threshold, until no element drops out. Each set of elements contains the next, so rows that are
 * done stand still while the other lanes go on. Ends after 3 to 8 passes on random rows of any length. */
FA_INLINE void rows_sparsemax(const rows_job *job, rows_mode m) {
  rows_row row[ROW_PANEL];
  vec top[ROW_PANEL], before[ROW_PANEL], one = v_set1(1);
  rows_tops(job, top, m, 1);
  ROWS_WIDE(m, w) {
    row[w].top = rows_origin(top[w]);
    row[w].threshold = pair_of(v_set1(-1));
    before[w] = v_set1(-1);
  }
  for (;;) {
    rows_sum total[ROW_PANEL];
    vmask changed = m_first(0);
    ROWS_WIDE(m, w) row[w].count = v_zero();
    sparsemax_terms(job, row, total, m);
    ROWS_WIDE(m, w) {
      vec count = rows_count(row[w].count, m);
      changed = m_or(changed, m_not(v_eq(count, before[w])));
      before[w] = count;
      total[w] = rows_add(total[w], v_neg(one), SUM_EXACT);
      vec head = v_div(total[w].sum, count);
      vec tail = v_div(v_add(v_fnma(head, count, total[w].sum), total[w].lost), count);
      math_pair *threshold = &row[w].threshold;
      vec rise = v_add(v_sub(head, threshold->head), v_sub(tail, threshold->tail));
      *threshold = pair_sel(v_gt(rise, v_zero()), (math_pair){head, tail}, *threshold);
    }
    if (!m_any(changed)) break;
  }
  ROWS_EACH(job, m, at, { rows_store(job, at, v_max(v_zero(), sparsemax_excess(rows_x(job, at, m), &row[at.w])), m); });
}

/* dy where y > 0, which are counted too. */
FA_INLINE void sparsemax_backward_term(const rows_job *job, rows_place at, rows_row *row, rows_sum *sum, rows_mode m) {
  vmask support = v_gt(rows_load(job, 1, at, m), v_zero());
  sum->sum = v_add(sum->sum, v_sel(support, rows_load(job, 0, at, m), v_zero()));
  row->count = v_add(row->count, v_sel(support, v_set1(1), v_zero()));
}
ROWS_SUM(sparsemax_backward_term, SUM_PLAIN, rows_nothing_ahead)

/* dx = dy - mean(dy) over the support of y, 0 elsewhere. in = dy, y. */
FA_INLINE void rows_sparsemax_backward(const rows_job *job, rows_mode m) {
  rows_row row[ROW_PANEL];
  rows_sum total[ROW_PANEL];
  vec mean[ROW_PANEL];
  ROWS_WIDE(m, w) row[w].count = v_zero();
  sparsemax_backward_terms(job, row, total, m);
  ROWS_WIDE(m, w) mean[w] = v_div(v_add(total[w].sum, total[w].lost), rows_count(row[w].count, m));
  ROWS_EACH(job, m, at, {
    vec y = rows_load(job, 1, at, m), dy = rows_load(job, 0, at, m);
    vec outside = v_sel(v_isnan(y), y, v_zero());
    rows_store(job, at, v_sel(v_gt(y, v_zero()), v_sub(dy, mean[at.w]), outside), m);
  });
}

/* ---- standardize, normalize: a row, less its mean or not, over its deviation or its p-norm ------------------------- */

/* in = x, or dy and x; then epsilon and what stands for a masked entry (NaN: nothing), or p and epsilon. Most rows need no
 * care: none masked, p = 2, sizes for which squares neither overflow nor vanish where they count. Otherwise a body is
 * ROW_CAREFUL: it does the same, to the same bits, and leaves out what is masked, knows the other norms, and multiplies x by a
 * power of two that takes the greatest |x| of a row that is not moderate, or the size that epsilon stands for, to [2, 4). */
#define SIZE_LEAST PICK(0x1p-30, 0x1p-250) /* moderate: the greatest |x|, and what epsilon stands for */
#define SIZE_GREATEST PICK(0x1p40, 0x1p400)

FA_INLINE vec size_x(const rows_job *job, rows_place at, const rows_row *row, rows_mode m) {
  vec x = rows_load(job, (m.kind & ROW_TIMES_DY) ? 1 : 0, at, m);
  return (m.kind & ROW_CAREFUL) ? v_mul(x, row->inverse) : x;
}
/* The power of two above, the least normal one for 0. */
FA_INLINE vec size_power_above(vec a) {
  vint exponent = vi_shl(vi_shr(v_bits(v_min(a, v_set1(MAX_FINITE / 4))), EXPONENT_SHIFT), EXPONENT_SHIFT);
  return v_from_bits(vi_add(exponent, vi_shl(vi_set1(1), EXPONENT_SHIFT)));
}
/* 2^(1 - n) for 2^n <= greatest < 2^(n + 1). */
FA_INLINE vec size_power(vec greatest) {
  vint bits = v_bits(v_max(math_pow2(v_set1(EXPONENT_MIN)), greatest));
  vint mantissa = vi_sub(vi_shl(vi_set1(1), EXPONENT_SHIFT), vi_set1(1)); /* its bits cleared: a power of two */
  vint one = v_bits(v_set1(1)), power = vi_sub(bits, vi_and(bits, mantissa));
  return v_from_bits(vi_add(vi_sub(vi_add(one, one), power), vi_shl(vi_set1(1), EXPONENT_SHIFT)));
}
FA_INLINE vec size_centred(vec x, const rows_row *row, rows_mode m) {
  return (m.kind & ROW_CENTRED) ? v_sub(v_sub(x, row->threshold.head), row->threshold.tail) : x;
}
/* 0 in place of a value where x is masked. */
FA_INLINE vec size_shown(vec value, vec x, const rows_row *row, rows_mode m) {
  return (m.kind & ROW_CENTRED) && (m.kind & ROW_CAREFUL) ? v_unless(v_eq(x, row->temperature), value) : value;
}
/* The greatest x and the greatest -x of each row, along in every lane; careful: of what is finite and not masked. */
FA_INLINE void size_range_partial(const rows_job *job, const rows_row *row, vec *top, vec *bottom, rows_mode m) {
  vec lowest = v_set1(-INFINITY), least[ROW_PANEL];
  ROWS_WIDE(m, w) top[w] = lowest, least[w] = v_neg(lowest);
  ROWS_EACH(job, m, at, {
    vec x = rows_load(job, (m.kind & ROW_TIMES_DY) ? 1 : 0, at, m), low = x;
    if ((m.kind & ROW_CAREFUL) || at.lanes < VL) {
      vmask counts = m_first(at.lanes);
      if (m.kind & ROW_CAREFUL) {
        counts = m_and(counts, v_lt(v_abs(x), v_set1(INFINITY)));
        if (m.kind & ROW_CENTRED) counts = m_and(counts, m_not(v_eq(x, row[at.w].temperature)));
      }
      low = v_sel(counts, x, v_neg(lowest)), x = v_sel(counts, x, lowest);
    }
    top[at.w] = v_max(top[at.w], x), least[at.w] = v_min(least[at.w], low);
  });
  ROWS_WIDE(m, w) bottom[w] = v_neg(least[w]);
}
FA_INLINE void size_range(const rows_job *job, const rows_row *row, vec *top, vec *bottom, rows_mode m) {
  if (m.block) {
    vec tops[VL], bottoms[VL];
    rows_job one = *job;
    for (int w = 0; w < VL; w++, rows_next(&one)) size_range_partial(&one, row, &tops[w], &bottoms[w], rows_one(m));
    *top = rows_hmax_block(tops), *bottom = rows_hmax_block(bottoms);
    return;
  }
  size_range_partial(job, row, top, bottom, m);
  if (!m.across) ROWS_WIDE(m, w) top[w] = v_set1(v_hmax(top[w])), bottom[w] = v_set1(v_hmax(bottom[w]));
}

/* x of what is not masked, which is counted too. */
FA_INLINE void size_mean_term(const rows_job *job, rows_place at, rows_row *row, rows_sum *sum, rows_mode m) {
  vec x = size_x(job, at, row, m);
  *sum = rows_add_apart(*sum, size_shown(x, x, row, m)); /* lanes beyond the end are 0 */
  if (m.kind & ROW_CAREFUL) {
    vec shown = size_shown(v_set1(1), x, row, m);
    row->count = v_add(row->count, at.lanes < VL ? v_sel(m_first(at.lanes), shown, v_zero()) : shown);
  }
}
ROWS_SUM(size_mean_term, SUM_FROM_START, rows_nothing_ahead)

/* The square of x less the mean, or |x|^p; of p = infinity nothing, unless x is infinite or NaN. */
FA_INLINE void size_term(const rows_job *job, rows_place at, rows_row *row, rows_sum *sum, rows_mode m) {
  vec x = size_x(job, at, row, m), d = size_shown(size_centred(x, row, m), x, row, m);
  if (at.lanes < VL) d = v_sel(m_first(at.lanes), d, v_zero());
  rows_sum squares = rows_take_square(*sum, d);
  if ((m.kind & ROW_CAREFUL) && !(m.kind & ROW_CENTRED)) {
    vec a = v_abs(x), infinite = v_sel(v_lt(a, v_set1(INFINITY)), v_zero(), a);
    rows_sum sizes = rows_take(*sum, v_sel(v_eq(row->temperature, v_set1(1)), a, infinite), at, SUM_FROM_START);
    vmask euclidean = v_eq(row->temperature, v_set1(2));
    squares = (rows_sum){v_sel(euclidean, squares.sum, sizes.sum), v_sel(euclidean, squares.lost, sizes.lost)};
  }
  *sum = squares;
}
ROWS_SUM(size_term, SUM_FROM_START, rows_nothing_ahead)

/* The sum; where it is infinite, nothing is known of what was lost. */
FA_INLINE vec size_total(rows_sum total) {
  return v_sel(v_eq(total.sum, v_set1(INFINITY)), total.sum, v_add(total.sum, total.lost));
}

/* What is known of each row: power, mean and size, its greatest |x| times the power, and whether epsilon takes the place of its
 * norm. 1 over a size of 0 or infinity is 0: such rows give zeros, NaN where x is not finite, and so do their gradients. If
 * not all rows can do without care, and the body is not ROW_CAREFUL, returns 0. */
FA_INLINE int size_of_rows(const rows_job *job, rows_row *row, vmask *floored, rows_mode m) {
  const int first = (m.kind & ROW_TIMES_DY) ? 2 : 1, centred = m.kind & ROW_CENTRED;
  const fa_size n = m.across ? job->units : (job->units - 1) * VL + job->lanes;
  const vec terms = v_set1((real)(n / ROW_LANES + 2)); /* of a partial sum, and one */
  rows_sum total[ROW_PANEL];
  vec epsilon[ROW_PANEL], top[ROW_PANEL], bottom[ROW_PANEL];
  vmask careful = m_first(0);
  ROWS_WIDE(m, w) {
    epsilon[w] = rows_value(job, centred ? first : first + 1, w, m);
    row[w] = (rows_row){.temperature = rows_value(job, centred ? first + 1 : first, w, m), .count = v_zero()};
  }
  size_range(job, row, top, bottom, m);
  ROWS_WIDE(m, w) {
    vec floor = centred ? v_sqrt(epsilon[w]) : epsilon[w], greatest = v_max(v_max(top[w], bottom[w]), v_zero());
    vmask moderate = m_and(v_ge(greatest, v_set1(SIZE_LEAST)), v_le(v_max(floor, greatest), v_set1(SIZE_GREATEST)));
    row[w].top = greatest;
    if (m.kind & ROW_CAREFUL) {
      row[w].inverse = v_sel(moderate, v_set1(1), size_power(v_max(floor, greatest)));
      row[w].top = v_mul(greatest, row[w].inverse);
      top[w] = v_mul(top[w], row[w].inverse), bottom[w] = v_mul(bottom[w], row[w].inverse);
    } else {
      vmask simple = centred ? v_isnan(row[w].temperature) : v_eq(row[w].temperature, v_set1(2));
      careful = m_or(careful, m_not(m_and(moderate, simple)));
    }
  }
  if (m.across) careful = m_and(careful, m_first(m.wide > 1 ? VL : job->lanes));
  if (!(m.kind & ROW_CAREFUL) && m_any(careful)) return 0;
  if (centred) {
    /* Between two powers of two, as far from both as any partial sum reaches. */
    ROWS_WIDE(m, w) row[w].start = v_mul(size_power_above(v_mul(terms, row[w].top)), v_set1(3));
    size_mean_terms(job, row, total, m);
    ROWS_WIDE(m, w) {
      vec count = v_set1((real)n), none = row[w].temperature; /* counts end at 2^24 in float32, rows do not */
      if (m.kind & ROW_CAREFUL) count = v_sel(v_isnan(none), count, rows_count(row[w].count, m));
      vec head = v_div(total[w].sum, count);
      vec tail = v_div(v_add(v_fnma(head, count, total[w].sum), total[w].lost), count);
      row[w].threshold = (math_pair){head, tail};
      row[w].count = count;
      vec highest = v_sub(v_sub(top[w], head), tail), lowest = v_add(v_add(bottom[w], head), tail);
      row[w].top = v_max(highest, lowest);
    }
  }
  ROWS_WIDE(m, w) {
    vec greatest = v_mul(row[w].top, row[w].top);
    if ((m.kind & ROW_CAREFUL) && !centred) greatest = v_max(greatest, row[w].top);
    row[w].start = size_power_above(greatest);
  }
  size_terms(job, row, total, m);
  ROWS_WIDE(m, w) {
    vec sum = size_total(total[w]), least = epsilon[w], size;
    if (m.kind & ROW_CAREFUL) least = v_mul(least, row[w].inverse);
    if (centred) {
      if (m.kind & ROW_CAREFUL) least = v_mul(least, row[w].inverse);
      size = v_sqrt(v_add(least, v_div(sum, row[w].count)));
    } else {
      vec p = row[w].temperature;
      size = v_sqrt(sum);
      if (m.kind & ROW_CAREFUL)
        size = v_sel(v_eq(p, v_set1(1)), sum, v_sel(v_eq(p, v_set1(INFINITY)), v_add(row[w].top, sum), size));
      floored[w] = v_lt(size, least);
      size = v_sel(floored[w], least, size);
    }
    vmask nothing = m_or(v_eq(size, v_zero()), v_eq(size, v_set1(INFINITY)));
    row[w].sum = v_sel(nothing, v_set1(1), size);
    row[w].over = v_sel(nothing, v_zero(), v_div(v_set1(1), size));
  }
  return 1;
}

/* y = (x - mean) / sqrt(variance + epsilon), 0 where masked; y = x / max(norm, epsilon). */
FA_INLINE int rows_sized(const rows_job *job, rows_mode m) {
  rows_row row[ROW_PANEL];
  vmask floored[ROW_PANEL];
  if (!size_of_rows(job, row, floored, m)) return 0;
  ROWS_EACH_OF(job, m, row, one_row, at, known, {
    vec x = size_x(one_row, at, &known, m);
    rows_store(one_row, at, size_shown(rows_quotient(size_centred(x, &known, m), &known), x, &known, m), m);
  });
  return 1;
}

/* x / norm, whose gradient is what dy y takes: of p = 1 its sign, of p = infinity that of the greatest, elsewhere 0. */
FA_INLINE vec size_slope(vec x, vec y, const rows_row *row, rows_mode m) {
  if (!(m.kind & ROW_CAREFUL) || (m.kind & ROW_CENTRED)) return y;
  vec p = row->temperature, sign = v_sel(v_eq(x, v_zero()), v_zero(), v_copysign(v_set1(1), x));
  vec greatest = v_sel(v_eq(v_abs(x), row->top), sign, v_zero());
  return v_sel(v_eq(p, v_set1(1)), sign, v_sel(v_eq(p, v_set1(INFINITY)), greatest, y));
}
/* dy and dy y; of p = infinity the greatest are counted, too: they share the gradient. */
#define SIZE_BACKWARD_HOW(kind) ((kind) & (ROW_CENTRED | ROW_CAREFUL) ? SUM_TWO : SUM_PLAIN)
FA_INLINE void size_backward_term(const rows_job *job, rows_place at, rows_row *row, rows_sum *sum, rows_mode m) {
  vec x = size_x(job, at, row, m), dy = rows_load(job, 0, at, m), d = size_centred(x, row, m);
  sum->sum = v_fma(dy, size_shown(v_mul(d, row->over), x, row, m), sum->sum);
  if (m.kind & ROW_CENTRED) {
    sum->lost = v_add(sum->lost, dy);
  } else if (m.kind & ROW_CAREFUL) {
    vec greatest = v_sel(v_eq(v_abs(x), row->top), v_set1(1), v_zero());
    sum->lost = v_add(sum->lost, at.lanes < VL ? v_sel(m_first(at.lanes), greatest, v_zero()) : greatest);
  }
}
ROWS_SUM(size_backward_term, SIZE_BACKWARD_HOW(m.kind), rows_nothing_ahead)

/* dx = (dy - mean(dy) - y mean(dy y)) / deviation, or (dy - norm' sum(dy y)) / norm, or dy / epsilon. in = dy, x. */
FA_INLINE int rows_sized_backward(const rows_job *job, rows_mode m) {
  rows_row row[ROW_PANEL];
  rows_sum total[ROW_PANEL];
  vmask floored[ROW_PANEL];
  if (!size_of_rows(job, row, floored, m)) return 0;
  size_backward_terms(job, row, total, m);
  ROWS_WIDE(m, w) {
    row[w].dy_y = total[w].sum;
    if (m.kind & ROW_CENTRED) {
      row[w].dy_mean = v_div(total[w].lost, row[w].count);
      row[w].dy_y = v_div(total[w].sum, row[w].count);
    } else {
      if (m.kind & ROW_CAREFUL)
        row[w].dy_y = v_div(total[w].sum, v_sel(v_eq(row[w].temperature, v_set1(INFINITY)), total[w].lost, v_set1(1)));
      row[w].dy_y = v_sel(floored[w], v_zero(), row[w].dy_y);
    }
  }
  ROWS_EACH_OF(job, m, row, one_row, at, known, {
    vec x = size_x(one_row, at, &known, m), dy = rows_load(one_row, 0, at, m);
    vec y = v_mul(size_centred(x, &known, m), known.over);
    vec inner = (m.kind & ROW_CENTRED) ? v_sub(dy, known.dy_mean) : dy;
    vec dx = v_mul(v_fnma(size_slope(x, y, &known, m), known.dy_y, inner), known.over);
    if (m.kind & ROW_CAREFUL) dx = v_mul(dx, known.inverse);
    rows_store(one_row, at, size_shown(dx, x, &known, m), m);
  });
  return 1;
}

/* ---- Layouts ---------------------------------------------------------------------------------------------------- */

/* A body and how many vectors of rows, or rows, it takes at once. */
typedef struct {
  void (*run)(const rows_job *);
  int wide;
} rows_body;
/* Bodies by layout, the wider first, and which operands are rows (the others have one value a row). */
typedef struct {
  rows_body block;            /* along the lanes, VL rows one after the other; or none */
  rows_body exact[3];         /* the same for rows of 1, 2 and 4 vectors; or none */
  rows_body along[2];         /* along the lanes */
  rows_body panel, across[2]; /* across them, neighbouring rows adjoin */
  rows_body gathered;         /* across them, any strides */
  int operands, is_row[FA_ROWS_OPERANDS], out_is_row;
} rows_bodies;

/* VL rows of n elements, `stride` apart, as n vectors `pitch` apart, and back. Rows of two without gaps, maxout's, are two
 * vectors: to zip them rotates the bits of an element's number, the last one to the top in log2(VL) turns (maxout float32
 * 0.9 -> 0.2 ns an element). */
FA_INLINE void rows_turn(const char *in, fa_size stride, fa_size n, real *out, fa_size pitch) {
  vec block[VL];
  if (n == 2 && stride == 2 * (fa_size)sizeof(real)) {
    vec first = v_load((const real *)in), second = v_load((const real *)in + VL);
    FA_UNROLL for (int turn = 1; turn < VL; turn *= 2) {
      vec low = v_zip_lo(first, second);
      second = v_zip_hi(first, second);
      first = low;
    }
    v_store(out, first);
    v_store(out + pitch, second);
    return;
  }
  for (fa_size j = 0; j < n; j += VL) {
    for (int i = 0; i < VL; i++) block[i] = v_load_n((const real *)(in + i * stride) + j, n - j);
    v_transpose(block);
    for (int i = 0; i < VL; i++) v_store(out + (j + i) * pitch, block[i]);
  }
}
FA_INLINE void rows_turn_back(const real *in, fa_size pitch, char *out, fa_size stride, fa_size n) {
  vec block[VL];
  if (n == 2 && stride == 2 * (fa_size)sizeof(real)) {
    vec first = v_load(in), second = v_load(in + pitch);
    v_store((real *)out, v_zip_lo(first, second));
    v_store((real *)out + VL, v_zip_hi(first, second));
    return;
  }
  for (fa_size j = 0; j < n; j += VL) {
    for (int i = 0; i < VL; i++) block[i] = v_load(in + (j + i) * pitch);
    v_transpose(block);
    for (int i = 0; i < VL; i++) v_store_n((real *)(out + i * stride) + j, block[i], n - j);
  }
}

/* Short rows whose elements adjoin: turned on the stack, worked on across, turned back. */
FA_INLINE void rows_turned(rows_job rows, const rows_bodies *bodies, rows_body across, fa_size n) {
  FA_ALIGN(64) real buffer[FA_ROWS_OPERANDS + 1][ROW_SHORT * ROW_WIDE * VL];
  const fa_size vector = VL * (fa_size)sizeof(real), pitch = across.wide * VL;
  real *out = buffer[FA_ROWS_OPERANDS];
  rows_job job = rows;
  job.units = n, job.times = 1;
  for (int k = 0; k < bodies->operands; k++) {
    if (!bodies->is_row[k]) continue;
    job.in[k] = (const char *)buffer[k], job.in_lane[k] = sizeof(real);
    job.in_unit[k] = across.wide * vector, job.in_wide[k] = vector;
  }
  if (bodies->out_is_row) job.out = (char *)out, job.out_lane = sizeof(real);
  if (bodies->out_is_row) job.out_unit = across.wide * vector, job.out_wide = vector;
  for (fa_size group = 0; group < rows.times; group++) {
    for (int k = 0; k < bodies->operands; k++) {
      if (!bodies->is_row[k]) job.in[k] = rows.in[k];
      for (int w = 0; bodies->is_row[k] && w < across.wide; w++)
        rows_turn(rows.in[k] + w * rows.in_wide[k], rows.in_lane[k], n, buffer[k] + w * VL, pitch);
      rows.in[k] += across.wide * rows.in_wide[k];
    }
    if (!bodies->out_is_row) job.out = rows.out;
    across.run(&job);
    for (int w = 0; bodies->out_is_row && w < across.wide; w++)
      rows_turn_back(out + w * VL, pitch, rows.out + w * rows.out_wide, rows.out_lane, n);
    rows.out += across.wide * rows.out_wide;
  }
}

/* The body for rows of just so many vectors. */
FA_INLINE const rows_body *rows_exact(const rows_bodies *bodies, fa_size n) {
  for (int i = 0; i < 3; i++)
    if (n == VL << i && bodies->exact[i].run) return &bodies->exact[i];
  return NULL;
}

/* Chooses the layout and goes through the rows; sign: see rows_job. */
static void rows_run(const fa_rows_args *args, const rows_bodies *bodies, real sign) {
  const fa_size item = sizeof(real);
  int elements_adjoin = !bodies->out_is_row || args->out_stride == item;
  int rows_adjoin = !bodies->out_is_row || args->out_row_stride == item;
  for (int k = 0; k < bodies->operands; k++) {
    elements_adjoin &= !bodies->is_row[k] || args->in_stride[k] == item;
    rows_adjoin &= !bodies->is_row[k] || args->in_row_stride[k] == item;
  }
  const fa_size middle = bodies->is_row[0] && bodies->is_row[1] ? ROW_MIDDLE_OF_TWO : ROW_MIDDLE;
  for (fa_size row = 0; row < args->rows;) { /* two or three times: the wider body, the narrower one, the rest */
    const fa_size left = args->rows - row;
    const rows_body *exact = elements_adjoin && left >= VL ? rows_exact(bodies, args->n) : NULL;
    const int turned = elements_adjoin && VL > 1 && args->n <= ROW_SHORT && left >= VL && !exact;
    const int along = elements_adjoin && !turned;
    rows_body body = bodies->gathered;
    if (exact)
      body = *exact;
    else if (along && bodies->block.run && args->n <= ROW_BLOCK && left >= VL)
      body = bodies->block;
    else if (along)
      body = bodies->along[args->n > middle || left < bodies->along[0].wide];
    else if (rows_adjoin && !turned && args->n > ROW_FEW && left >= bodies->panel.wide * VL)
      body = bodies->panel;
    else if (turned || rows_adjoin)
      body = bodies->across[left < bodies->across[0].wide * VL];
    const fa_size rows = along ? 1 : FA_MIN(VL, left), together = rows * body.wide;
    rows_job job = {.units = along ? FA_CEIL_DIV(args->n, VL) : args->n, .times = left / together, .sign = sign};
    job.lanes = along ? (args->n + VL - 1) % VL + 1 : rows;
    for (int k = 0; k < bodies->operands; k++) {
      job.in[k] = (const char *)args->in[k] + row * args->in_row_stride[k];
      job.in_lane[k] = along ? item : args->in_row_stride[k];
      job.in_unit[k] = along ? VL * item : args->in_stride[k];
      job.in_wide[k] = rows * args->in_row_stride[k];
    }
    job.out = (char *)args->out + row * args->out_row_stride;
    job.out_lane = along ? item : args->out_row_stride;
    job.out_unit = along ? VL * item : args->out_stride;
    job.out_wide = rows * args->out_row_stride;
    if (turned)
      rows_turned(job, bodies, body, args->n);
    else
      body.run(&job);
    row += together * job.times;
  }
}

/* A kernel: the body's variant, and whether each operand (a fourth is none), and the output, is a row. Bodies work on a copy
 * of the job, which no store to `out` can alter: its fields stay in registers (softmax backward 0.18 ns an element instead
 * of 0.23). */
#define ROWS_BODY(name, body, across, dense, wide, kind, block, vectors)                                               \
  FA_NOINLINE void name(const rows_job *job) {                                                                         \
    rows_job own = *job;                                                                                               \
    own.whole = job;                                                                                                   \
    for (; own.times > 0; own.times--) {                                                                               \
      if (vectors) own.units = vectors, own.lanes = VL; /* which the compiler knows in each round */                   \
      body(&own, (rows_mode){across, dense, (block) ? 1 : (wide), kind, block});                                       \
      FA_UNROLL for (int k = 0; k < FA_ROWS_OPERANDS; k++) own.in[k] += (wide) * own.in_wide[k];                       \
      own.out += (wide) * own.out_wide;                                                                                \
    }                                                                                                                  \
  }
#define ROWS_KERNEL(name, body, kind, block, count, row0, row1, row2, out_row)                                         \
  ROWS_BLOCK_##block(name, body, kind)                                                                                 \
  ROWS_BODY(name##_pairs, body, 0, 1, 2, kind, 0, 0)                                                                   \
  ROWS_BODY(name##_along, body, 0, 1, 1, kind, 0, 0)                                                                   \
  ROWS_BODY(name##_panel, body, 1, 1, ROW_PANEL, kind, 0, 0)                                                           \
  ROWS_BODY(name##_wide, body, 1, 1, ROW_WIDE, kind, 0, 0)                                                             \
  ROWS_BODY(name##_across, body, 1, 1, 1, kind, 0, 0)                                                                  \
  ROWS_BODY(name##_gathered, body, 1, 0, 1, kind, 0, 0)                                                                \
  static const rows_bodies name##_bodies = {ROWS_BLOCK_ENTRY_##block(name),                                            \
                                            {{name##_pairs, 2}, {name##_along, 1}},                                    \
                                            {name##_panel, ROW_PANEL},                                                 \
                                            {{name##_wide, ROW_WIDE}, {name##_across, 1}},                             \
                                            {name##_gathered, 1},                                                      \
                                            count,                                                                     \
                                            {row0, row1, row2},                                                        \
                                            out_row};                                                                  \
  static void name##_rows(const fa_rows_args *args) { rows_run(args, &name##_bodies, 0); }
/* Bodies for blocks: none; for longer rows; or for rows of 1, 2 and 4 vectors, where sums are plain (softmax backward float32 on
 * Zen 3, rows of 8, 16 and 32: 0.49, 0.42, 0.43 ns an element turned, 0.25, 0.22, 0.38 so; others are faster turned). */
#define ROWS_BLOCK_none(name, body, kind)
#define ROWS_BLOCK_ENTRY_none(name) {NULL, 0}, {{NULL, 0}}
#if VL > 1
#define ROWS_BLOCK_block(name, body, kind) ROWS_BODY(name##_block, body, 0, 1, VL, kind, 1, 0)
#define ROWS_BLOCK_ENTRY_block(name) {name##_block, VL}, {{NULL, 0}}
#define ROWS_BLOCK_exact(name, body, kind)                                                                             \
  ROWS_BODY(name##_block1, body, 0, 1, VL, kind, 1, 1)                                                                 \
  ROWS_BODY(name##_block2, body, 0, 1, VL, kind, 1, 2)                                                                 \
  ROWS_BODY(name##_block4, body, 0, 1, VL, kind, 1, 4)
#define ROWS_BLOCK_ENTRY_exact(name) {NULL, 0}, {{name##_block1, VL}, {name##_block2, VL}, {name##_block4, VL}}
#else
#define ROWS_BLOCK_block ROWS_BLOCK_none
#define ROWS_BLOCK_exact ROWS_BLOCK_none
#define ROWS_BLOCK_ENTRY_block ROWS_BLOCK_ENTRY_none
#define ROWS_BLOCK_ENTRY_exact ROWS_BLOCK_ENTRY_none
#endif
#define ROWS_SOFTMAX(name, kind)                                                                                       \
  ROWS_KERNEL(name, rows_softmax, kind, block, 1, 1, 0, 0, 1)                                                          \
  ROWS_KERNEL(name##_backward, rows_softmax_backward, kind, exact, 2, 1, 1, 0, 1)                                      \
  ROWS_KERNEL(name##_scaled, rows_softmax, (kind) | ROW_SCALED, block, 2, 1, 0, 0, 1)                                  \
  ROWS_KERNEL(name##_scaled_backward, rows_softmax_backward, (kind) | ROW_SCALED, exact, 3, 1, 1, 0, 1)
ROWS_SOFTMAX(softmax, ROW_PLAIN)
ROWS_SOFTMAX(log_softmax, ROW_LOG)
ROWS_KERNEL(logsumexp, rows_softmax, ROW_LOG | ROW_REDUCED, block, 1, 1, 0, 0, 0)
ROWS_KERNEL(logsumexp_backward, rows_softmax, ROW_TIMES_DY, block, 2, 0, 1, 0, 1)
ROWS_KERNEL(hardmax, rows_first_top, ROW_PLAIN, none, 1, 1, 0, 0, 1)
ROWS_KERNEL(hardmax_backward, rows_nothing, ROW_PLAIN, none, 2, 1, 1, 0, 1)
ROWS_KERNEL(maxout, rows_greatest, ROW_PLAIN, none, 1, 1, 0, 0, 0)
ROWS_KERNEL(maxout_backward, rows_first_top, ROW_TIMES_DY, none, 2, 0, 1, 0, 1)
ROWS_KERNEL(sparsemax, rows_sparsemax, ROW_PLAIN, none, 1, 1, 0, 0, 1)
ROWS_KERNEL(sparsemax_backward, rows_sparsemax_backward, ROW_PLAIN, none, 2, 1, 1, 0, 1)
/* softmin(x) = softmax(-x), softmin itself that at a temperature of 1: the same bits, and no bodies of their own but for its
 * backward, which without the division takes 0.25 instead of 0.42 ns an element (rows of 32, AVX2 on Zen 3). */
ROWS_KERNEL(softmin_backward, rows_softmax_backward, ROW_NEGATED, exact, 2, 1, 1, 0, 1)
static void softmin_scaled_rows(const fa_rows_args *args) { rows_run(args, &softmax_scaled_bodies, R(-0.0)); }
static void softmin_scaled_backward_rows(const fa_rows_args *args) {
  rows_run(args, &softmax_scaled_backward_bodies, R(-0.0));
}
static void softmin_rows(const fa_rows_args *args) {
  static const real temperature = 1;
  fa_rows_args scaled = *args;
  scaled.in[1] = &temperature, scaled.in_row_stride[1] = scaled.in_stride[1] = 0;
  softmin_scaled_rows(&scaled);
}

/* The next group of what is left of a job. Taken from the whole: were it a copy of the rest, that would not stay in registers. */
FA_NOINLINE rows_job rows_group(const rows_job *whole, fa_size left, fa_size wide, fa_size times) {
  rows_job group = *whole;
  const fa_size done = (whole->times - left) * wide;
  for (int k = 0; k < FA_ROWS_OPERANDS; k++) group.in[k] += done * group.in_wide[k];
  group.out += done * group.out_wide;
  group.times = times;
  return group;
}
/* Where `body` says (0) that rows need care, they go again through a careful body: along one at a time, those of a panel or of
 * four vectors together, others gathered. Careful bodies are twice as long, so not every layout has its own. */
#define ROWS_SIZED(name, body, kind, count, row0, row1)                                                                \
  ROWS_BODY(name##_careful_along, body, 0, 1, 1, (kind) | ROW_CAREFUL, 0, 0)                                           \
  ROWS_BODY(name##_careful_panel, body, 1, 1, ROW_PANEL, (kind) | ROW_CAREFUL, 0, 0)                                   \
  ROWS_BODY(name##_careful_wide, body, 1, 1, ROW_WIDE, (kind) | ROW_CAREFUL, 0, 0)                                     \
  ROWS_BODY(name##_careful_gathered, body, 1, 0, 1, (kind) | ROW_CAREFUL, 0, 0)                                        \
  FA_INLINE void name##_with_care(const rows_job *job, rows_mode m) {                                                  \
    if (FA_LIKELY(body(job, m))) return;                                                                               \
    const fa_size wide = m.block ? VL : m.wide;                                                                        \
    const rows_job again = rows_group(job->whole, job->times, wide, m.across ? 1 : wide);                              \
    if (!m.across) name##_careful_along(&again);                                                                       \
    else if (m.wide == ROW_PANEL) name##_careful_panel(&again);                                                        \
    else if (m.wide == ROW_WIDE) name##_careful_wide(&again);                                                          \
    else name##_careful_gathered(&again);                                                                              \
  }                                                                                                                    \
  ROWS_KERNEL(name, name##_with_care, kind, block, count, row0, row1, 0, 1)
ROWS_SIZED(standardize, rows_sized, ROW_CENTRED, 3, 1, 0)
ROWS_SIZED(standardize_backward, rows_sized_backward, ROW_CENTRED | ROW_TIMES_DY, 4, 1, 1)
ROWS_SIZED(normalize, rows_sized, ROW_PLAIN, 3, 1, 0)
ROWS_SIZED(normalize_backward, rows_sized_backward, ROW_TIMES_DY, 4, 1, 1)

#define ROWS_ENTRY(name, signature) name##_rows,
static const fa_rows_kernel rows_kernels[FA_ROWS_COUNT] = {FA_ROWS_TABLE(ROWS_ENTRY)};
