/* Layer normalisation inside the recurrent cells (Ba, Kiros and Hinton 2016, arXiv:1607.06450).
 *
 *   xhat = (v - mean) / sqrt(var + eps)     dv = (a - mean(a) - xhat mean(a xhat)) / sqrt(var + eps), a = gain dz
 *
 * over what one row (t, b) has of the input product, of the recurrent product, or of c. The biased variance comes from
 * a second pass over the row, which is in L1: E[v^2] - E[v]^2 has no correct digit left in float32 where the mean is
 * some thousand deviations away from 0. Sums go by columns and then over lanes, whatever else is in the batch. */

typedef struct {
  const fa_cell *cell;
  const int *row; /* which columns are there */
  fa_size H, groups, full; /* groups, and those without units that only fill them up */
  fa_size stride;          /* from group to group */
  real share;              /* 1 / the number of units and columns that are there */
} norm_row;

static const int norm_row_c[4] = {0, -1, -1, -1};

/* The products have four vectors a group, c has one; `columns`, a literal. */
#define FOR_NORM(r, columns, g, k) \
  for (fa_size g = 0; g < (r)->groups; g++) FA_UNROLL for (int k = 0; k < columns; k++)

/* Zero for what only fills up the last group, and for a column that the product does not have. */
FA_INLINE vec norm_there(const norm_row *r, fa_size g, int k, vec v) {
  if (r->row[k] < 0) return v_zero();
  return g < r->full ? v : v_sel(m_first(column_size(r->cell, r->row, r->H, g, k)), v, v_zero());
}
FA_INLINE vec norm_mean(const norm_row *r, const int columns, const vec sum[4]) {
  const vec all = columns == 1 ? sum[0] : v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]));
  return v_set1(v_hsum(all) * r->share);
}

FA_INLINE void norm_statistics(const norm_row *r, const int columns, const real *v, vec *mean, vec *scale) {
  vec sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()}, squares[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
  FOR_NORM(r, columns, g, k) sum[k] = v_add(sum[k], norm_there(r, g, k, v_load(v + g * r->stride + k * VL)));
  *mean = norm_mean(r, columns, sum);
  FOR_NORM(r, columns, g, k) {
    const vec d = norm_there(r, g, k, v_sub(v_load(v + g * r->stride + k * VL), *mean));
    squares[k] = v_mac(d, d, squares[k]);
  }
  const vec variance = norm_mean(r, columns, squares);
  *scale = v_div(v_set1(1), v_sqrt(v_add(variance, v_set1((real)r->cell->norm_eps))));
}

/* out = base + gain xhat for a product v; base may be out. In training v becomes xhat, and *scale, which is NULL in
 * inference, is filled. */
FA_INLINE void norm_forward(const norm_row *r, real *v, real *scale, const real *gain, const real *base,
                            fa_size base_stride, real *out, fa_size out_stride) {
  vec mean, factor;
  norm_statistics(r, 4, v, &mean, &factor);
  FOR_NORM(r, 4, g, k) {
    real *at = v + g * r->stride + k * VL;
    const vec xhat = v_mul(v_sub(v_load(at), mean), factor);
    if (scale) v_store(at, xhat);
    v_store(out + g * out_stride + k * VL,
            v_mac(v_load(gain + g * TILE_COLS + k * VL), xhat, v_load(base + g * base_stride + k * VL)));
  }
  if (scale) v_store_n(scale, factor, 1);
}

/* xhat becomes dv; what the gain, and the shift if there is one, get from this row is added to its sums. */
FA_INLINE void norm_backward(const norm_row *r, const int columns, const real *gain, const real *dz, real *xhat,
                             real scale, real *sum_gain, real *sum_shift) {
  vec sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()}, products[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
  FOR_NORM(r, columns, g, k) {
    const fa_size at = g * r->stride + k * VL, packed = (g * columns + k) * VL;
    const vec d = v_load(dz + at), x = v_load(xhat + at), a = v_mul(v_load(gain + packed), d);
    sum[k] = v_add(sum[k], a);
    products[k] = v_mac(a, x, products[k]);
    v_store(sum_gain + packed, v_mac(d, x, v_load(sum_gain + packed)));
    if (columns == 1) v_store(sum_shift + packed, v_add(v_load(sum_shift + packed), d));
  }
  const vec mean = norm_mean(r, columns, sum), along = norm_mean(r, columns, products), factor = v_set1(scale);
  FOR_NORM(r, columns, g, k) {
    const fa_size at = g * r->stride + k * VL, packed = (g * columns + k) * VL;
    const vec a = v_sub(v_mul(v_load(gain + packed), v_load(dz + at)), mean);
    v_store(xhat + at, v_mul(factor, v_sub(a, v_mul(along, v_load(xhat + at)))));
  }
}

/* ---- forward -------------------------------------------------------------------------------------------------- */

FA_INLINE norm_row norm_row_of(const fa_cell *cell, const int *row, fa_size H, fa_size stride) {
  fa_size columns = 0;
  for (int k = 0; k < 4; k++) columns += row[k] >= 0;
  return (norm_row){
      .cell = cell,
      .row = row,
      .H = H,
      .groups = cell_groups(cell, H),
      .full = H / (VL * cell_vectors(cell)),
      .stride = stride,
      .share = 1 / (real)(cell->kind == FA_RNN ? H : columns * H),
  };
}

/* Rows of the batch that go through all phases of a step before the next ones do: some 2 CELL_SLOTS pieces, which stay
 * in L1. */
FA_INLINE fa_size norm_block(fa_size groups) { return FA_MAX(1, 2 * CELL_SLOTS / groups); }

/* The input product of a chunk, as it stands in norm.ih, to the slabs. */
static void norm_input(const fa_recurrent_forward *s, const fa_recurrent_share *share, fa_size t_begin,
                       fa_size t_end) {
  const norm_row r = norm_row_of(s->cell, s->cell->row_ih, s->H, s->slab_rows * TILE_COLS);
  for (fa_size t = t_begin; t < t_end; t++)
    for (fa_size b = share->row_begin, end = FA_MIN(share->row_end, step_rows(s->starts, s->B, t)); b < end; b++) {
      const fa_size at = (slab_row(s, t) + b) * TILE_COLS;
      real *scale = s->norm.scale_ih ? (real *)s->norm.scale_ih + step_row(s->starts, s->B, t) + b : NULL;
      norm_forward(&r, (real *)s->norm.ih + at, scale, s->norm.gain_ih, s->bias, TILE_COLS, (real *)s->slabs + at,
                   r.stride);
    }
}

/* What goes into the gates stands in the slabs. */
FA_NOINLINE void norm_slots(const fa_recurrent_forward *s, fa_size t, cell_slots *q) {
  const real *slabs = (const real *)s->slabs + slab_row(s, t) * TILE_COLS;
  FOR_SLOTS(q, j) {
    const real *z = slabs + (q->at[j].g * s->slab_rows + q->at[j].row) * TILE_COLS;
    FA_UNROLL for (int k = 0; k < 4; k++) v_store(q->z[k] + o, v_load(z + k * VL));
  }
  cells_forward(s, t, q);
}

/* The gate o of the pieces and xhat of their c: where it comes from is the same for both passes. */
FA_INLINE void norm_load_o(const fa_cell *cell, cell_slots *q, const real *slabs, fa_size slab_rows) {
  real *value = q->z[FA_GATE_O];
  if (cell->row_hh[FA_GATE_O] < 0) {
    slots_fill(q, value, v_set1(1));
    return;
  }
  FOR_SLOTS(q, j)
    v_store(value + o, v_load(slabs + (q->at[j].g * slab_rows + q->at[j].row) * TILE_COLS + FA_GATE_O * VL));
  slots_value(cell, FA_GATE_O, q, value, q->count * VL);
}
/* `statistics` of the step's rows; zeros fill up c. */
FA_INLINE void norm_load_c(const cell_slots *q, const real *c, fa_size H, const real *statistics, real *xhat) {
  const fa_size Hp = FA_ROUND_UP(H, VL);
  FOR_SLOTS(q, j) {
    const fa_size row = q->at[j].row, unit = q->at[j].g * VL;
    const vec v = load_columns(c + row * Hp + unit, H - unit);
    v_store(xhat + o, v_mul(v_sub(v, v_set1(statistics[2 * row])), v_set1(statistics[2 * row + 1])));
  }
}
FA_INLINE void norm_affine_c(const fa_recurrent_norm *norm, const cell_slots *q, const real *xhat, real *out) {
  FOR_SLOTS(q, j) {
    const fa_size unit = q->at[j].g * VL;
    v_store(out + o, v_mac(v_load((const real *)norm->gain_c + unit), v_load(xhat + o),
                           v_load((const real *)norm->shift_c + unit)));
  }
}

/* h = o f(gain xhat_c + shift). */
FA_NOINLINE void lstm_norm_slots(const fa_recurrent_forward *s, fa_size t, cell_slots *q) {
  const real *c = (const real *)s->c + state_row(s->starts, s->B, t + 1, s->c_ring) * FA_ROUND_UP(s->H, VL);
  FA_ALIGN(64) cell_buffer seen;
  norm_load_o(s->cell, q, (const real *)s->slabs + slab_row(s, t) * TILE_COLS, s->slab_rows);
  norm_load_c(q, c, s->H, (const real *)s->norm.statistics_c + 2 * mid_row(s, t), seen);
  norm_affine_c(&s->norm, q, seen, seen);
  lstm_output(s, t, q, seen);
}

typedef void (*forward_slots)(const fa_recurrent_forward *, fa_size, cell_slots *);
FA_INLINE void pieces_forward(forward_slots cell, const fa_recurrent_forward *s, fa_size t, fa_size groups,
                              fa_size first, fa_size rows) {
  cell_slots q;
  q.count = 0;
  for (fa_size g = 0; g < groups; g++)
    for (fa_size m = 0; m < rows; m++) {
      q.at[q.count].g = g;
      q.at[q.count].row = first + m;
      if (++q.count == CELL_SLOTS || (g == groups - 1 && m == rows - 1)) {
        cell(s, t, &q);
        q.count = 0;
      }
    }
}

/* A step from its recurrent product, as it stands in norm.hh, to the new state, but for the second product. */
static void norm_cells(const fa_recurrent_forward *s, fa_size t, fa_size row_begin, fa_size row_end) {
  const fa_cell *cell = s->cell;
  const norm_row r = norm_row_of(cell, cell->row_hh, s->H, s->norm.hh_rows * TILE_COLS);
  const norm_row of_c = norm_row_of(cell, norm_row_c, s->H, VL);
  const fa_size Hp = cell_units(cell, s->H), block = norm_block(r.groups);
  real *hh = (real *)s->norm.hh + mid_row(s, t) * TILE_COLS;
  real *slabs = (real *)s->slabs + slab_row(s, t) * TILE_COLS;
  real *scale = s->norm.scale_hh ? (real *)s->norm.scale_hh + mid_row(s, t) : NULL;
  for (fa_size first = row_begin, rows; first < row_end; first += rows) {
    rows = FA_MIN(block, row_end - first);
    for (fa_size b = first; b < first + rows; b++) {
      real *z = slabs + b * TILE_COLS;
      norm_forward(&r, hh + b * TILE_COLS, scale ? scale + b : NULL, s->norm.gain_hh, z, s->slab_rows * TILE_COLS, z,
                   s->slab_rows * TILE_COLS);
    }
    pieces_forward(norm_slots, s, t, r.groups, first, rows);
    if (cell->kind != FA_LSTM) continue;
    const real *c = (const real *)s->c + state_row(s->starts, s->B, t + 1, s->c_ring) * Hp;
    for (fa_size b = first; b < first + rows; b++) {
      real *statistics = (real *)s->norm.statistics_c + 2 * (mid_row(s, t) + b);
      vec mean, factor;
      norm_statistics(&of_c, 1, c + b * Hp, &mean, &factor);
      v_store_n(statistics, mean, 1);
      v_store_n(statistics + 1, factor, 1);
    }
    pieces_forward(lstm_norm_slots, s, t, r.groups, first, rows);
  }
}

/* ---- backward ------------------------------------------------------------------------------------------------- */

/* The gradient of h, complete, where that of what a projection reads would be. */
FA_NOINLINE void dh_slots_backward(const fa_recurrent_backward *s, fa_size t, cell_slots *q, real *d, int product) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL);
  slots_dh(s, t, q, d, product);
  FOR_SLOTS(q, j) v_store((real *)s->dmid + q->at[j].row * Hp + q->at[j].g * VL, v_load(d + o));
}

/* d in dmid becomes the gradient of o; that of gain xhat_c + shift, and xhat_c, to norm_gradient. */
FA_NOINLINE void lstm_norm_slots_backward(const fa_recurrent_backward *s, fa_size t, cell_slots *q, real *d,
                                          int product) {
  (void)product;
  const fa_size Hp = FA_ROUND_UP(s->H, VL), step = step_row(s->starts, s->B, t);
  const real *c = (const real *)s->c + state_row(s->starts, s->B, t + 1, -1) * Hp;
  FA_ALIGN(64) cell_buffer xhat, seen, dc;
  norm_load_o(s->cell, q, (const real *)s->slabs + step * TILE_COLS, s->slab_rows);
  norm_load_c(q, c, s->H, (const real *)s->norm.statistics_c + 2 * step, xhat);
  norm_affine_c(&s->norm, q, xhat, seen);
  lstm_output_backward(s->cell, q, seen, q->z[FA_GATE_O], d, dc);
  FOR_SLOTS(q, j) {
    const fa_size unit = q->at[j].g * VL, at = q->at[j].row * Hp + unit;
    v_store((real *)s->dmid + at, v_load(d + o));
    v_store((real *)s->norm_gradient.c + at, load_columns(dc + o, s->H - unit));
    v_store((real *)s->norm_gradient.xhat_c + at, v_load(xhat + o));
  }
}

/* Through the normalisation of c: its gradient takes the place of xhat_c. */
static void norm_c_backward(const fa_recurrent_backward *s, fa_size t, fa_size row_begin, fa_size row_end) {
  const norm_row r = norm_row_of(s->cell, norm_row_c, s->H, VL);
  const fa_recurrent_norm_gradient *to = &s->norm_gradient;
  const real *statistics = (const real *)s->norm.statistics_c + 2 * step_row(s->starts, s->B, t);
  for (fa_size b = row_begin; b < row_end; b++) {
    const fa_size at = b * r.groups * VL;
    norm_backward(&r, 1, s->norm.gain_c, (const real *)to->c + at, (real *)to->xhat_c + at, statistics[2 * b + 1],
                  (real *)to->sum_c + at, (real *)to->sum_shift_c + at);
  }
}

/* From dZ in the slabs to that of the two products. */
static void norm_products_backward(const fa_recurrent_backward *s, fa_size t, fa_size row_begin, fa_size row_end) {
  const norm_row of_ih = norm_row_of(s->cell, s->cell->row_ih, s->H, s->slab_rows * TILE_COLS);
  const norm_row of_hh = norm_row_of(s->cell, s->cell->row_hh, s->H, s->slab_rows * TILE_COLS);
  const fa_recurrent_norm_gradient *to = &s->norm_gradient;
  for (fa_size b = row_begin; b < row_end; b++) {
    const fa_size row = step_row(s->starts, s->B, t) + b, at = row * TILE_COLS, sums = b * of_ih.groups * TILE_COLS;
    const real *dz = (const real *)s->slabs + at;
    norm_backward(&of_ih, 4, s->norm.gain_ih, dz, (real *)s->norm.ih + at, ((const real *)s->norm.scale_ih)[row],
                  (real *)to->sum_ih + sums, NULL);
    norm_backward(&of_hh, 4, s->norm.gain_hh, dz, (real *)s->norm.hh + at, ((const real *)s->norm.scale_hh)[row],
                  (real *)to->sum_hh + sums, NULL);
  }
}

/* gradient += the sums of all rows of the batch, for one group. */
FA_INLINE void norm_add_sums(const fa_cell *cell, const int row[4], fa_size H, fa_size B, fa_size g, const int columns,
                             const real *sums, real *gradient) {
  const fa_size width = cell_groups(cell, H) * columns * VL;
  for (int k = 0; k < columns; k++) {
    const fa_size units = column_size(cell, row, H, g, k);
    vec sum = v_zero();
    for (fa_size b = 0; b < B; b++) sum = v_add(sum, v_load(sums + b * width + (g * columns + k) * VL));
    if (units) add_columns(gradient + column_row(cell, row, H, g, k), sum, units);
  }
}
static void norm_gradient(const fa_recurrent_backward *s, int part, int parts) {
  const fa_cell *cell = s->cell;
  const fa_recurrent_norm_gradient *from = &s->norm_gradient;
  const fa_size groups = cell_groups(cell, s->H);
  for (fa_size g = groups * part / parts, end = groups * (part + 1) / parts; g < end; g++) {
    norm_add_sums(cell, cell->row_ih, s->H, s->B, g, 4, from->sum_ih, from->of_ih);
    norm_add_sums(cell, cell->row_hh, s->H, s->B, g, 4, from->sum_hh, from->of_hh);
    if (cell->kind != FA_LSTM) continue;
    norm_add_sums(cell, norm_row_c, s->H, s->B, g, 1, from->sum_c, from->of_c);
    norm_add_sums(cell, norm_row_c, s->H, s->B, g, 1, from->sum_shift_c, from->of_shift_c);
  }
}
