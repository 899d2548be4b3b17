/* The pointwise part of a step: from the products to the new state, and back to the gradients of the products.
 *
 *   i, f, o = sigmoid(z_i, z_f, z_o)   g = tanh(z_g)   c' = f c + i g   h' = o tanh(c')
 *
 * The plain cell above stands in registers. A variant has any activation in any place, peepholes (z_i + p_i c,
 * z_f + p_f c, z_o + p_o c'), a forget gate 1 - i, gates that are 1: the pieces of a few tiles are collected in L1, gate by
 * gate, and each activation is one call of its kernel in activations.inl over all of them, so it has the bits of the
 * ufunc, and a new activation is usable here without a line of code. */

/* ---- plain LSTM ----------------------------------------------------------------------------------------------- */

/* Rows that go through it together, at most. Where bodies are cut (cut.inl) one loop leaves the halfway state of all their gates,
 * the next goes on to c and halfway to tanh(c), a third to h, which leaves the pipes less to wait for: AVX2 on Zen 3, ns a
 * vector of units, 25 for 4 rows and 21.5 for 6 without cuts, 21.7 and 19.3 with them, 19 for 8, 18.6 for 12, 18 for 24. */
enum { LSTM_ROWS = FA_CUTS_ALL ? 12 : TILE_ROWS };
typedef vec lstm_state[2][4]; /* halfway */

/* Where the rows of one vector of units begin; gates only in training. */
typedef struct {
  const real *c_in;
  real *c_out, *h_out, *y, *gates;
  fa_size Hp, y_row, units;
} lstm_rows;

/* A gate from z, or half of it; k is a literal. */
FA_INLINE vec lstm_gate(vec z, const int k, const math_cut *cut) {
  return k == FA_GATE_G ? math_tanh_at(z, z, 0, cut) : math_sigmoid_of(z, cut);
}
/* The second half of the gates of row m, or all of them without a state: the new c. o takes the place of its z. */
FA_INLINE vec lstm_new_c(const lstm_rows *to, fa_size m, real *z, lstm_state *state, const int keep) {
  vec gate[4];
  FA_UNROLL for (int k = 0; k < 4; k++) {
    const math_cut half = {CUT_SECOND_HALF, {state ? &(*state)[0][k] : NULL, state ? &(*state)[1][k] : NULL}, NULL};
    gate[k] = lstm_gate(v_load(z + k * VL), k, state ? &half : NULL);
    if (keep) v_store(to->gates + m * TILE_COLS + k * VL, gate[k]);
  }
  const vec c = v_mac(gate[FA_GATE_F], v_load(to->c_in + m * to->Hp), v_mul(gate[FA_GATE_I], gate[FA_GATE_G]));
  v_store(to->c_out + m * to->Hp, c);
  v_store(z + FA_GATE_O * VL, gate[FA_GATE_O]);
  return c;
}
FA_INLINE void lstm_new_h(const lstm_rows *to, fa_size m, const real *z, vec tanh_c) {
  const vec h = v_mul(v_load(z + FA_GATE_O * VL), tanh_c);
  v_store(to->h_out + m * to->Hp, h);
  if (to->y) store_columns(to->y + m * to->y_row, h, to->units);
}
/* All rows in halves; 0 if a gate is too far out for them. */
FA_INLINE int lstm_cell_cut(const lstm_rows *to, fa_size rows, real *z, const int keep) {
  lstm_state state[LSTM_ROWS];
  vmask far = m_first(0);
  for (fa_size m = 0; m < rows; m++)
    FA_UNROLL for (int k = 0; k < 4; k++) {
      const math_cut half = {CUT_FIRST_HALF, {&state[m][0][k], &state[m][1][k]}, &far};
      (void)lstm_gate(v_load(z + m * TILE_COLS + k * VL), k, &half);
    }
  if (FA_UNLIKELY(m_any(far))) return 0;
  for (fa_size m = 0; m < rows; m++) {
    const vec c = lstm_new_c(to, m, z + m * TILE_COLS, &state[m], keep);
    const math_cut half = {CUT_FIRST_HALF, {&state[m][0][0], &state[m][1][0]}, NULL};
    (void)math_tanh_at(c, c, 0, &half);
  }
  for (fa_size m = 0; m < rows; m++) {
    const vec c = v_load(to->c_out + m * to->Hp);
    const math_cut half = {CUT_SECOND_HALF, {&state[m][0][0], &state[m][1][0]}, NULL};
    lstm_new_h(to, m, z + m * TILE_COLS, math_tanh_at(c, c, 0, &half));
  }
  return 1;
}

/* The pointwise part for up to LSTM_ROWS rows of one group. `keep` is a literal: inference stores no gates. Two loops at
 * least, as tanh(c) waits for four activations: short iterations fill the pipes (AVX2 on Zen 3, 6 rows: 3.6 -> 3.0 ns a unit). */
FA_INLINE void lstm_cell(const fa_recurrent_forward *s, fa_size t, fa_size g, fa_size first, fa_size rows, real *z,
                         const int keep) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL);
  const lstm_rows to = {
      .c_in = (const real *)s->c + (state_row(s->starts, s->B, t, s->c_ring) + first) * Hp + g * VL,
      .c_out = (real *)s->c + (state_row(s->starts, s->B, t + 1, s->c_ring) + first) * Hp + g * VL,
      .h_out = (real *)s->h + (state_row(s->starts, s->B, t + 1, s->h_ring) + first) * Hp + g * VL,
      .y = s->y ? (real *)s->y + step_offset(s->starts, t, s->y_t, s->y_b) + first * s->y_b + g * VL : NULL,
      .gates = keep ? (real *)s->slabs + (g * s->slab_rows + slab_row(s, t) + first) * TILE_COLS : NULL,
      .Hp = Hp,
      .y_row = s->y_b,
      .units = s->H - g * VL,
  };
  if (FA_CUTS_ALL && lstm_cell_cut(&to, rows, z, keep)) return;
  for (fa_size m = 0; m < rows; m++) (void)lstm_new_c(&to, m, z + m * TILE_COLS, NULL, keep);
  for (fa_size m = 0; m < rows; m++) lstm_new_h(&to, m, z + m * TILE_COLS, math_tanh(v_load(to.c_out + m * Hp)));
}

/* dZ of one unit vector in `rows` rows, in place of the gates; dh holds what came from the step after. */
FA_INLINE void lstm_cell_backward(const fa_recurrent_backward *s, fa_size t, fa_size g, fa_size first, fa_size rows,
                                  const real *dh, fa_size dh_row) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL), units = s->H - g * VL;
  const real *c_before = (const real *)s->c + (state_row(s->starts, s->B, t, -1) + first) * Hp + g * VL;
  const real *c_after = (const real *)s->c + (state_row(s->starts, s->B, t + 1, -1) + first) * Hp + g * VL;
  const real *dy = s->dy ? (const real *)s->dy + step_offset(s->starts, t, s->dy_t, s->dy_b) + first * s->dy_b + g * VL
                         : NULL;
  real *dc_state = (real *)s->dc + first * Hp + g * VL;
  real *slab = (real *)s->slabs + (g * s->slab_rows + step_row(s->starts, s->B, t) + first) * TILE_COLS;
  const vec one = v_set1(1);
  for (fa_size m = 0; m < rows; m++, slab += TILE_COLS) {
    vec d = v_load(dh + m * dh_row);
    if (dy) d = v_add(d, load_columns(dy + m * s->dy_b, units));
    vec i = v_load(slab), f = v_load(slab + VL), candidate = v_load(slab + 2 * VL), o = v_load(slab + 3 * VL);
    vec tanh_c = math_tanh(v_load(c_after + m * Hp));
    vec through = v_mul(d, o);
    vec dc = v_add(v_load(dc_state + m * Hp), v_sub(through, v_mul(through, v_mul(tanh_c, tanh_c))));
    vec i_dc = v_mul(i, dc), f_dc = v_mul(f, dc);
    v_store(slab, v_mul(v_mul(i_dc, candidate), v_sub(one, i)));
    v_store(slab + VL, v_mul(v_mul(f_dc, v_load(c_before + m * Hp)), v_sub(one, f)));
    v_store(slab + 2 * VL, v_sub(i_dc, v_mul(i_dc, v_mul(candidate, candidate))));
    v_store(slab + 3 * VL, v_mul(v_mul(through, tanh_c), v_sub(one, o)));
    v_store(dc_state + m * Hp, f_dc);
  }
}

/* ---- any other LSTM ------------------------------------------------------------------------------------------- */

enum { CELL_SLOTS = 24 }; /* 6 KB of gates in float32 with AVX-512; the backward cell holds 20 KB */

/* Pieces of VL units: one row of the batch in one group each. */
typedef struct {
  FA_ALIGN(64) real z[4][CELL_SLOTS * VL];
  struct {
    fa_size g, row;
  } at[CELL_SLOTS];
  fa_size count;
} cell_slots;

typedef real cell_buffer[CELL_SLOTS * VL];

/* One call of an activation's kernel over two operands or one; in place is fine. */
FA_INLINE void cell_map(fa_map_kernel kernel, const int operands, const double *parameters, const real *a, const real *b,
                        real *out, fa_size n) {
  real p[FA_MAX_PARAMETERS];
  fa_map_args args = {.n = n, .in = {a, b}, .in_stride = {sizeof(real), operands == 2 ? sizeof(real) : 0}, .out = out,
                      .out_stride = sizeof(real)};
  for (int k = 0; k < FA_MAX_PARAMETERS; k++) {
    p[k] = (real)parameters[k];
    args.in[operands + k] = &p[k];
  }
  kernel(&args);
}
/* The clip is of what goes into gates and candidate, not of an LSTM's c on its way out. */
FA_INLINE int cell_clips(const fa_cell *cell, int k) { return k != FA_CELL_OUTPUT && cell->clip < INFINITY; }
/* NaN goes through. */
FA_INLINE vec bounded(vec v, vec bound) { return v_max(v_neg(bound), v_min(bound, v)); }
/* d where |z| is below the bound, else 0. */
FA_INLINE vec where_inside(vec z, vec bound, vec d) { return v_sel(v_lt(v_abs(z), bound), d, v_zero()); }
FA_INLINE void cell_forward(const fa_cell *cell, int k, const real *z, real *y, fa_size n) {
  if (cell_clips(cell, k)) {
    for (fa_size o = 0; o < n; o += VL) v_store(y + o, bounded(v_load(z + o), v_set1((real)cell->clip)));
    z = y;
  }
  cell_map(map_kernels[cell->function[k]].forward, 1, cell->parameter[k], z, NULL, y, n);
}
/* d *= f'(z): from y where that is cheaper and exact enough, else from z. The gate that backward finds in the slab is y
 * or z accordingly. */
FA_INLINE int cell_keeps_y(const fa_cell *cell, int k) {
  return (cell->function[k] == FA_ACT_sigmoid || cell->function[k] == FA_ACT_tanh) && !cell_clips(cell, k);
}
FA_INLINE void cell_backward(const fa_cell *cell, int k, real *d, const real *z, const real *y, fa_size n) {
  const fa_map_kernels *kernels = &map_kernels[cell->function[k]];
  if (cell_keeps_y(cell, k))
    cell_map(kernels->backward_y, 2, cell->parameter[k], d, y, d, n);
  else
    cell_map(kernels->backward_x, 2, cell->parameter[k], d, z, d, n);
  if (cell_clips(cell, k))
    for (fa_size o = 0; o < n; o += VL)
      v_store(d + o, where_inside(v_load(z + o), v_set1((real)cell->clip), v_load(d + o)));
}

#define FOR_SLOTS(q, j) for (fa_size j = 0, o = 0; j < (q)->count; j++, o += VL)
FA_INLINE void slots_fill(const cell_slots *q, real *out, vec value) { FOR_SLOTS(q, j) v_store(out + o, value); }

/* y = f(z) in place of one gate's z; one of them goes to the slab. */
FA_INLINE void slots_activate(const fa_cell *cell, int k, cell_slots *q, real *slabs, fa_size slab_rows, fa_size n) {
  real *z = q->z[k];
  const int keeps_y = cell_keeps_y(cell, k);
  if (keeps_y) cell_forward(cell, k, z, z, n);
  if (slabs)
    FOR_SLOTS(q, j) v_store(slabs + (q->at[j].g * slab_rows + q->at[j].row) * TILE_COLS + k * VL, v_load(z + o));
  if (!keeps_y) cell_forward(cell, k, z, z, n);
}
/* The value of a gate from what the slab had of it. */
FA_INLINE void slots_value(const fa_cell *cell, int k, const cell_slots *q, real *value, fa_size n) {
  if (cell_keeps_y(cell, k))
    FOR_SLOTS(q, j) v_store(value + o, v_load(q->z[k] + o));
  else
    cell_forward(cell, k, q->z[k], value, n);
}

/* Where the new h of a step goes, and what it needs. */
typedef struct {
  const fa_recurrent_forward *s;
  const real *before, *take;
  real *after, *operand, *y;
  fa_size Pp, Rp;
} h_store;
FA_INLINE const real *masked_rows(const void *rows, fa_size row, fa_size row_size) {
  return rows ? (const real *)rows + row * row_size : NULL;
}
FA_INLINE h_store store_of(const fa_recurrent_forward *s, fa_size t) {
  const fa_size Pp = h_width(s->cell, s->P), Rp = operand_width(s->cell, s->R);
  const fa_size after = state_row(s->starts, s->B, t + 1, s->h_ring);
  return (h_store){
      .s = s,
      .before = (const real *)s->h + state_row(s->starts, s->B, t, s->h_ring) * Pp,
      .take = masked_rows(s->masks.take_h, step_row(s->starts, s->B, t), s->masks.take_h_row),
      .after = (real *)s->h + after * Pp,
      .operand = s->operand ? (real *)s->operand + after * Rp : NULL,
      .y = s->y ? (real *)s->y + step_offset(s->starts, t, s->y_t, s->y_b) : NULL,
      .Pp = Pp,
      .Rp = Rp,
  };
}
/* What remains of a step after zoneout. */
FA_INLINE vec taken(const real *take, vec before, vec after, fa_size units) {
  return take ? v_mac(load_columns(take, units), v_sub(after, before), before) : after;
}
FA_INLINE void store_h(const h_store *to, fa_size row, fa_size unit, vec h) {
  const fa_recurrent_forward *s = to->s;
  const fa_size at = row * to->Pp + unit, units = s->P - unit;
  if (unit >= to->Pp) return; /* the second product's last group may reach beyond */
  if (to->take) h = taken(to->take + row * s->masks.take_h_row + unit, v_load(to->before + at), h, units);
  v_store(to->after + at, h);
  if (to->operand) {
    const vec seen = s->masks.drop ? v_mul(h, load_columns((const real *)s->masks.drop + row * s->P + unit, units)) : h;
    store_columns(to->operand + row * to->Rp + unit, seen, units);
  }
  if (to->y) store_columns(to->y + row * s->y_b + unit, h, units);
}
/* Rows of what the second product reads: one slot, or that of every step. */
FA_INLINE fa_size mid_row(const fa_recurrent_forward *s, fa_size t) {
  return s->h_ring >= 0 ? 0 : step_row(s->starts, s->B, t);
}

/* The whole gradient of h for the pieces; d comes with what step t + 1 left, of which dZ W_hh (`product`) is what the
 * recurrent dropout has seen. What zoneout took away goes past the step. */
FA_INLINE void slots_dh(const fa_recurrent_backward *s, fa_size t, const cell_slots *q, real *d, int product) {
  const fa_size Pp = h_width(s->cell, s->P);
  const real *dy = s->dy ? (const real *)s->dy + step_offset(s->starts, t, s->dy_t, s->dy_b) : NULL;
  const real *drop = product ? s->masks.drop : NULL;
  const real *take = masked_rows(s->masks.take_h, step_row(s->starts, s->B, t), s->masks.take_h_row);
  real *past = s->past;
  FOR_SLOTS(q, j) {
    const fa_size row = q->at[j].row, unit = q->at[j].g * VL, units = s->P - unit, at = row * Pp + unit;
    vec dh = v_load(d + o);
    if (drop) dh = v_mul(dh, load_columns(drop + row * s->P + unit, units));
    if (past) dh = v_add(dh, v_load(past + at));
    if (dy) dh = v_add(dh, load_columns(dy + row * s->dy_b + unit, units));
    if (take) {
      const vec through = v_mul(dh, load_columns(take + row * s->masks.take_h_row + unit, units));
      v_store(past + at, v_sub(dh, through));
      dh = through;
    }
    v_store(d + o, dh);
  }
}

/* Gates of the pieces, in q->z, and their new c. */
FA_INLINE void lstm_gates(const fa_recurrent_forward *s, fa_size t, cell_slots *q, real *c) {
  const fa_cell *cell = s->cell;
  const fa_size Hp = FA_ROUND_UP(s->H, VL), n = q->count * VL;
  const real *c_in = (const real *)s->c + state_row(s->starts, s->B, t, s->c_ring) * Hp;
  real *c_out = (real *)s->c + state_row(s->starts, s->B, t + 1, s->c_ring) * Hp;
  const real *take = masked_rows(s->masks.take_c, step_row(s->starts, s->B, t), s->masks.take_c_row);
  real *slabs = s->keep_gates || cell->layer_norm ? (real *)s->slabs + slab_row(s, t) * TILE_COLS : NULL;
  const real *peephole = s->peephole;
  FOR_SLOTS(q, j) v_store(c + o, v_load(c_in + q->at[j].row * Hp + q->at[j].g * VL));
  for (int k = 0; k < 4; k++) {
    static const int order[4] = {FA_GATE_I, FA_GATE_F, FA_GATE_G, FA_GATE_O}, peephole_of[4] = {0, 1, -1, 2};
    const int gate = order[k];
    real *z = q->z[gate];
    if (gate == FA_GATE_O) /* the others are there: the new state */
      FOR_SLOTS(q, j) {
        vec i = v_load(q->z[FA_GATE_I] + o), f = v_load(q->z[FA_GATE_F] + o), g = v_load(q->z[FA_GATE_G] + o);
        vec old_c = v_load(c + o), new_c = v_mac(f, old_c, v_mul(i, g));
        const fa_size unit = q->at[j].g * VL;
        if (cell->cell_clip < INFINITY) new_c = bounded(new_c, v_set1((real)cell->cell_clip));
        if (take) new_c = taken(take + q->at[j].row * s->masks.take_c_row + unit, old_c, new_c, s->H - unit);
        v_store(c + o, new_c);
        v_store(c_out + q->at[j].row * Hp + q->at[j].g * VL, new_c);
      }
    if (cell->row_hh[gate] >= 0) {
      if (peephole && peephole_of[gate] >= 0)
        FOR_SLOTS(q, j) {
          vec p = v_load(peephole + peephole_of[gate] * Hp + q->at[j].g * VL);
          v_store(z + o, v_mac(p, v_load(c + o), v_load(z + o)));
        }
      slots_activate(cell, gate, q, slabs, s->slab_rows, n);
    } else if (gate == FA_GATE_F && cell->coupled)
      FOR_SLOTS(q, j) v_store(z + o, v_sub(v_set1(1), v_load(q->z[FA_GATE_I] + o)));
    else
      slots_fill(q, z, v_set1(1));
  }
  if (cell->full_gates) {
    const h_store store = store_of(s, t);
    FOR_SLOTS(q, j)
      for (int k = 0; k < 3; k++) {
        const fa_size unit = q->at[j].g * VL;
        store_columns(store.operand + q->at[j].row * store.Rp + s->P + k * s->H + unit,
                      v_load(q->z[cell_peephole_gate[k]] + o), s->H - unit);
      }
  }
}
/* h = o f(c), whose place c takes. */
FA_INLINE void lstm_output(const fa_recurrent_forward *s, fa_size t, const cell_slots *q, real *c) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL);
  const h_store store = store_of(s, t);
  real *mid = s->cell->second ? (real *)s->mid + mid_row(s, t) * Hp : NULL;
  cell_forward(s->cell, FA_CELL_OUTPUT, c, c, q->count * VL);
  FOR_SLOTS(q, j) {
    const fa_size row = q->at[j].row, unit = q->at[j].g * VL;
    const vec h = v_mul(v_load(q->z[FA_GATE_O] + o), v_load(c + o));
    if (mid)
      v_store(mid + row * Hp + unit, h);
    else
      store_h(&store, row, unit, h);
  }
}
/* With layer_norm only up to the new c: what comes out depends on whole rows of it. */
FA_NOINLINE void lstm_slots(const fa_recurrent_forward *s, fa_size t, cell_slots *q) {
  FA_ALIGN(64) cell_buffer c;
  lstm_gates(s, t, q, c);
  if (!s->cell->layer_norm) lstm_output(s, t, q, c);
}

/* dZ of a gate in place of its z, from the gradient d of its value. */
FA_INLINE void gate_backward(const fa_recurrent_backward *s, int gate, cell_slots *q, real *d, const real *value,
                             fa_size n) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL);
  if (s->cell->row_hh[gate] < 0) {
    slots_fill(q, q->z[gate], v_zero());
    return;
  }
  if (s->dgates && gate != FA_GATE_G) {
    const real *of_gate = (const real *)s->dgates + (gate == FA_GATE_O ? 2 : gate) * s->B * Hp;
    FOR_SLOTS(q, j) v_store(d + o, v_add(v_load(d + o), v_load(of_gate + q->at[j].row * Hp + q->at[j].g * VL)));
  }
  cell_backward(s->cell, gate, d, q->z[gate], value, n);
  FOR_SLOTS(q, j) v_store(q->z[gate] + o, v_load(d + o));
}

/* Through h = o f(c): d, the gradient of h, becomes that of o; dc is that of c. */
FA_INLINE void lstm_output_backward(const fa_cell *cell, const cell_slots *q, const real *c, const real *o_value,
                                    real *d, real *dc) {
  const fa_size n = q->count * VL;
  FA_ALIGN(64) cell_buffer squashed;
  cell_forward(cell, FA_CELL_OUTPUT, c, squashed, n);
  FOR_SLOTS(q, j) {
    vec dh = v_load(d + o);
    v_store(dc + o, v_mul(dh, v_load(o_value + o)));
    v_store(d + o, v_mul(dh, v_load(squashed + o)));
  }
  cell_backward(cell, FA_CELL_OUTPUT, dc, c, squashed, n);
}

/* dZ of the collected pieces, whose dh stands in d (with a projection, d is its gradient already; with layer_norm it is
 * that of o, and what c gets from the output stands in norm_gradient.xhat_c), in place of the gates. */
FA_NOINLINE void lstm_slots_backward(const fa_recurrent_backward *s, fa_size t, cell_slots *q, real *d, int product) {
  const fa_cell *cell = s->cell;
  const fa_size Hp = FA_ROUND_UP(s->H, VL), n = q->count * VL;
  const real *c_before = (const real *)s->c + state_row(s->starts, s->B, t, -1) * Hp;
  const real *c_after = (const real *)s->c + state_row(s->starts, s->B, t + 1, -1) * Hp;
  const real *take = masked_rows(s->masks.take_c, step_row(s->starts, s->B, t), s->masks.take_c_row);
  real *slabs = (real *)s->slabs + step_row(s->starts, s->B, t) * TILE_COLS, *dc_state = s->dc;
  const real *peephole = s->peephole;
  FA_ALIGN(64) cell_buffer value[4], c, dc;
  FOR_SLOTS(q, j) {
    const fa_size g = q->at[j].g, row = q->at[j].row;
    const real *slab = slabs + (g * s->slab_rows + row) * TILE_COLS;
    FA_UNROLL for (int gate = 0; gate < 4; gate++) v_store(q->z[gate] + o, v_load(slab + gate * VL));
    v_store(c + o, v_load(c_after + row * Hp + g * VL));
  }
  for (int gate = 0; gate < 4; gate++) {
    if (cell->row_hh[gate] < 0)
      slots_fill(q, value[gate], v_set1(1));
    else
      slots_value(cell, gate, q, value[gate], n);
  }
  if (cell->coupled)
    FOR_SLOTS(q, j) v_store(value[FA_GATE_F] + o, v_sub(v_set1(1), v_load(value[FA_GATE_I] + o)));
  if (cell->layer_norm) {
    const real *of_output = s->norm_gradient.xhat_c;
    FOR_SLOTS(q, j) v_store(dc + o, v_load(of_output + q->at[j].row * Hp + q->at[j].g * VL));
  } else {
    if (!cell->second) slots_dh(s, t, q, d, product);
    lstm_output_backward(cell, q, c, value[FA_GATE_O], d, dc);
  }
  /* From here on a gate's dZ takes the place of its z. */
  gate_backward(s, FA_GATE_O, q, d, value[FA_GATE_O], n);
  FOR_SLOTS(q, j) {
    const fa_size g = q->at[j].g, at = q->at[j].row * Hp + g * VL;
    vec sum = v_add(v_load(dc_state + at), v_load(dc + o));
    if (peephole) sum = v_mac(v_load(peephole + 2 * Hp + g * VL), v_load(q->z[FA_GATE_O] + o), sum);
    const vec before = v_load(c_before + at), i = v_load(value[FA_GATE_I] + o);
    vec past = v_zero();
    if (take) {
      const vec through = v_mul(sum, load_columns(take + q->at[j].row * s->masks.take_c_row + g * VL, s->H - g * VL));
      past = v_sub(sum, through);
      sum = through;
    }
    if (cell->cell_clip < INFINITY) {
      const vec new_c = v_mac(v_load(value[FA_GATE_F] + o), before, v_mul(i, v_load(value[FA_GATE_G] + o)));
      sum = where_inside(new_c, v_set1((real)cell->cell_clip), sum);
    }
    v_store(dc + o, sum);
    v_store(c + o, before);
    v_store(dc_state + at, past);
    v_store(d + o, v_mul(sum, i));
  }
  gate_backward(s, FA_GATE_G, q, d, value[FA_GATE_G], n);
  if (cell->coupled)
    FOR_SLOTS(q, j) v_store(d + o, v_mul(v_load(dc + o), v_sub(v_load(value[FA_GATE_G] + o), v_load(c + o))));
  else
    FOR_SLOTS(q, j) v_store(d + o, v_mul(v_load(dc + o), v_load(value[FA_GATE_G] + o)));
  gate_backward(s, FA_GATE_I, q, d, value[FA_GATE_I], n);
  FOR_SLOTS(q, j) v_store(d + o, v_mul(v_load(dc + o), v_load(c + o)));
  gate_backward(s, FA_GATE_F, q, d, value[FA_GATE_F], n);
  FOR_SLOTS(q, j) {
    const fa_size g = q->at[j].g, row = q->at[j].row;
    vec before = v_mac(v_load(dc + o), v_load(value[FA_GATE_F] + o), v_load(dc_state + row * Hp + g * VL));
    if (peephole) {
      before = v_mac(v_load(peephole + g * VL), v_load(q->z[FA_GATE_I] + o), before);
      before = v_mac(v_load(peephole + Hp + g * VL), v_load(q->z[FA_GATE_F] + o), before);
    }
    v_store(dc_state + row * Hp + g * VL, before);
    real *slab = slabs + (g * s->slab_rows + row) * TILE_COLS;
    /* The units that only fill up the last group may hold anything; their dZ is 0. */
    FA_UNROLL for (int gate = 0; gate < 4; gate++) v_store(slab + gate * VL, load_columns(q->z[gate] + o, s->H - g * VL));
  }
}

/* ---- GRU ------------------------------------------------------------------------------------------------------ */

/* r, z = gates of z_r, z_z; n = f(z_n + r (W h + b)); h' = (1 - z) n + z h. The column of h goes to the slab as it is. */
FA_NOINLINE void gru_slots(const fa_recurrent_forward *s, fa_size t, cell_slots *q) {
  const fa_cell *cell = s->cell;
  const fa_size Hp = FA_ROUND_UP(s->H, VL), n = q->count * VL;
  const real *h_in = (const real *)s->h + state_row(s->starts, s->B, t, s->h_ring) * Hp;
  const h_store store = store_of(s, t);
  real *slabs = s->keep_gates ? (real *)s->slabs + slab_row(s, t) * TILE_COLS : NULL;
  static const int order[3] = {FA_GRU_R, FA_GRU_Z, FA_GRU_N};
  for (int k = 0; k < 3; k++) {
    real *z = q->z[order[k]];
    if (order[k] == FA_GRU_N)
      FOR_SLOTS(q, j)
        v_store(z + o, v_mac(v_load(q->z[FA_GRU_R] + o), v_load(q->z[FA_GRU_H] + o), v_load(z + o)));
    slots_activate(cell, order[k], q, slabs, s->slab_rows, n);
  }
  FOR_SLOTS(q, j) {
    const fa_size g = q->at[j].g, row = q->at[j].row;
    vec candidate = v_load(q->z[FA_GRU_N] + o), update = v_load(q->z[FA_GRU_Z] + o);
    vec h = v_mac(update, v_load(h_in + row * Hp + g * VL), v_mul(v_sub(v_set1(1), update), candidate));
    store_h(&store, row, g * VL, h);
    if (slabs) v_store(slabs + (g * s->slab_rows + row) * TILE_COLS + FA_GRU_H * VL, v_load(q->z[FA_GRU_H] + o));
  }
}

FA_NOINLINE void gru_slots_backward(const fa_recurrent_backward *s, fa_size t, cell_slots *q, real *d, int product) {
  const fa_cell *cell = s->cell;
  const fa_size Hp = FA_ROUND_UP(s->H, VL), n = q->count * VL;
  const real *h_before = (const real *)s->h + state_row(s->starts, s->B, t, -1) * Hp;
  real *slabs = (real *)s->slabs + step_row(s->starts, s->B, t) * TILE_COLS, *past = s->past;
  FA_ALIGN(64) cell_buffer value[4], of_r, of_z;
  FOR_SLOTS(q, j) {
    const fa_size g = q->at[j].g, row = q->at[j].row;
    const real *slab = slabs + (g * s->slab_rows + row) * TILE_COLS;
    FA_UNROLL for (int k = 0; k < 4; k++) v_store(q->z[k] + o, v_load(slab + k * VL));
  }
  slots_dh(s, t, q, d, product);
  for (int k = FA_GRU_N; k <= FA_GRU_Z; k++) slots_value(cell, k, q, value[k], n);
  FOR_SLOTS(q, j) {
    const fa_size at = q->at[j].row * Hp + q->at[j].g * VL;
    vec dh = v_load(d + o), update = v_load(value[FA_GRU_Z] + o);
    v_store(past + at, s->masks.take_h ? v_mac(dh, update, v_load(past + at)) : v_mul(dh, update));
    v_store(of_z + o, v_mul(dh, v_sub(v_load(h_before + at), v_load(value[FA_GRU_N] + o))));
    v_store(d + o, v_mul(dh, v_sub(v_set1(1), update)));
  }
  cell_backward(cell, FA_GRU_N, d, q->z[FA_GRU_N], value[FA_GRU_N], n);
  FOR_SLOTS(q, j) v_store(of_r + o, v_mul(v_load(d + o), v_load(q->z[FA_GRU_H] + o)));
  cell_backward(cell, FA_GRU_R, of_r, q->z[FA_GRU_R], value[FA_GRU_R], n);
  cell_backward(cell, FA_GRU_Z, of_z, q->z[FA_GRU_Z], value[FA_GRU_Z], n);
  FOR_SLOTS(q, j) {
    const fa_size g = q->at[j].g, units = s->H - g * VL;
    real *slab = slabs + (g * s->slab_rows + q->at[j].row) * TILE_COLS;
    v_store(slab + FA_GRU_N * VL, load_columns(d + o, units));
    v_store(slab + FA_GRU_R * VL, load_columns(of_r + o, units));
    v_store(slab + FA_GRU_Z * VL, load_columns(of_z + o, units));
    v_store(d + o, v_mul(v_load(d + o), v_load(value[FA_GRU_R] + o)));
    v_store(slab + FA_GRU_H * VL, load_columns(d + o, units));
  }
}

/* Reset before the product: n = f(z_n + W (r h) + b). First the gates and r h, what the second product reads; z_n waits in
 * the slab. */
FA_NOINLINE void gru_reset_slots(const fa_recurrent_forward *s, fa_size t, cell_slots *q) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL), n = q->count * VL;
  const real *seen = (const real *)(s->operand ? s->operand : s->h) + state_row(s->starts, s->B, t, s->h_ring) * Hp;
  real *mid = (real *)s->mid + mid_row(s, t) * Hp, *slabs = (real *)s->slabs + slab_row(s, t) * TILE_COLS;
  slots_activate(s->cell, FA_GRU_R, q, slabs, s->slab_rows, n);
  slots_activate(s->cell, FA_GRU_Z, q, slabs, s->slab_rows, n);
  FOR_SLOTS(q, j) {
    const fa_size g = q->at[j].g, at = q->at[j].row * Hp + g * VL;
    v_store(slabs + (g * s->slab_rows + q->at[j].row) * TILE_COLS + FA_GRU_N * VL, v_load(q->z[FA_GRU_N] + o));
    v_store(mid + at, v_mul(v_load(q->z[FA_GRU_R] + o), v_load(seen + at)));
  }
}
/* Then the candidate, with the second product in d. */
FA_NOINLINE void gru_candidate_slots(const fa_recurrent_forward *s, fa_size t, cell_slots *q, const real *d) {
  const fa_cell *cell = s->cell;
  const fa_size n = q->count * VL;
  const h_store store = store_of(s, t);
  real *slabs = (real *)s->slabs + slab_row(s, t) * TILE_COLS;
  FA_ALIGN(64) cell_buffer update;
  FOR_SLOTS(q, j) {
    const real *slab = slabs + (q->at[j].g * s->slab_rows + q->at[j].row) * TILE_COLS;
    v_store(q->z[FA_GRU_N] + o, v_add(v_load(slab + FA_GRU_N * VL), v_load(d + o)));
    v_store(q->z[FA_GRU_Z] + o, v_load(slab + FA_GRU_Z * VL));
  }
  slots_value(cell, FA_GRU_Z, q, update, n);
  slots_activate(cell, FA_GRU_N, q, slabs, s->slab_rows, n);
  FOR_SLOTS(q, j) {
    const fa_size row = q->at[j].row, unit = q->at[j].g * VL;
    const vec z = v_load(update + o), old = v_load(store.before + row * store.Pp + unit);
    store_h(&store, row, unit, v_mac(z, old, v_mul(v_sub(v_set1(1), z), v_load(q->z[FA_GRU_N] + o))));
  }
}
/* Backward through the candidate: dZ of the second product, of n and of z. */
FA_NOINLINE void gru_candidate_slots_backward(const fa_recurrent_backward *s, fa_size t, cell_slots *q, real *d) {
  const fa_cell *cell = s->cell;
  const fa_size Hp = FA_ROUND_UP(s->H, VL), n = q->count * VL;
  const real *h_before = (const real *)s->h + state_row(s->starts, s->B, t, -1) * Hp;
  real *slabs = (real *)s->slabs + step_row(s->starts, s->B, t) * TILE_COLS, *past = s->past;
  FA_ALIGN(64) cell_buffer candidate, update, of_z;
#define SLAB_OF(j) (slabs + (q->at[j].g * s->slab_rows + q->at[j].row) * TILE_COLS)
  FOR_SLOTS(q, j) {
    v_store(q->z[FA_GRU_N] + o, v_load(SLAB_OF(j) + FA_GRU_N * VL));
    v_store(q->z[FA_GRU_Z] + o, v_load(SLAB_OF(j) + FA_GRU_Z * VL));
  }
  slots_value(cell, FA_GRU_N, q, candidate, n);
  slots_value(cell, FA_GRU_Z, q, update, n);
  FOR_SLOTS(q, j) {
    const fa_size at = q->at[j].row * Hp + q->at[j].g * VL;
    const vec dh = v_load(d + o), z = v_load(update + o);
    v_store(past + at, s->masks.take_h ? v_mac(dh, z, v_load(past + at)) : v_mul(dh, z));
    v_store(of_z + o, v_mul(dh, v_sub(v_load(h_before + at), v_load(candidate + o))));
    v_store(d + o, v_mul(dh, v_sub(v_set1(1), z)));
  }
  cell_backward(cell, FA_GRU_N, d, q->z[FA_GRU_N], candidate, n);
  cell_backward(cell, FA_GRU_Z, of_z, q->z[FA_GRU_Z], update, n);
  FOR_SLOTS(q, j) {
    const fa_size units = s->H - q->at[j].g * VL;
    v_store(d + o, load_columns(d + o, units));
    v_store(SLAB_OF(j) + FA_GRU_N * VL, v_load(d + o));
    v_store(SLAB_OF(j) + FA_GRU_Z * VL, load_columns(of_z + o, units));
  }
}
/* And through the reset gate: d is the gradient of r h. */
FA_NOINLINE void gru_reset_slots_backward(const fa_recurrent_backward *s, fa_size t, cell_slots *q, real *d,
                                          int product) {
  (void)product;
  const fa_size Hp = FA_ROUND_UP(s->H, VL), n = q->count * VL;
  const real *h_before = (const real *)s->h + state_row(s->starts, s->B, t, -1) * Hp;
  real *slabs = (real *)s->slabs + step_row(s->starts, s->B, t) * TILE_COLS, *past = s->past;
  FA_ALIGN(64) cell_buffer reset;
  FOR_SLOTS(q, j) v_store(q->z[FA_GRU_R] + o, v_load(SLAB_OF(j) + FA_GRU_R * VL));
  slots_value(s->cell, FA_GRU_R, q, reset, n);
  FOR_SLOTS(q, j) {
    const fa_size row = q->at[j].row, unit = q->at[j].g * VL, at = row * Hp + unit;
    const vec drop = s->masks.drop ? load_columns((const real *)s->masks.drop + row * s->H + unit, s->H - unit)
                                   : v_set1(1);
    const vec of_product = v_mul(v_load(d + o), drop);
    v_store(past + at, v_mac(of_product, v_load(reset + o), v_load(past + at)));
    v_store(d + o, v_mul(of_product, v_load(h_before + at)));
  }
  cell_backward(s->cell, FA_GRU_R, d, q->z[FA_GRU_R], reset, n);
  FOR_SLOTS(q, j) {
    v_store(SLAB_OF(j) + FA_GRU_R * VL, load_columns(d + o, s->H - q->at[j].g * VL));
    v_store(SLAB_OF(j) + FA_GRU_H * VL, v_zero());
  }
#undef SLAB_OF
}

/* ---- RNN ------------------------------------------------------------------------------------------------------ */

/* h' = f(z); columns are vectors of units. */
FA_NOINLINE void rnn_slots(const fa_recurrent_forward *s, fa_size t, cell_slots *q) {
  const fa_size n = q->count * VL;
  const h_store store = store_of(s, t);
  real *slabs = s->keep_gates ? (real *)s->slabs + slab_row(s, t) * TILE_COLS : NULL;
  for (int k = 0; k < 4; k++) {
    slots_activate(s->cell, k, q, slabs, s->slab_rows, n);
    FOR_SLOTS(q, j) store_h(&store, q->at[j].row, column_begin(s->cell, q->at[j].g, k), v_load(q->z[k] + o));
  }
}

/* Here a piece is one vector of units, which g counts. */
FA_NOINLINE void rnn_slots_backward(const fa_recurrent_backward *s, fa_size t, cell_slots *q, real *d, int product) {
  const fa_size n = q->count * VL;
  real *slabs = (real *)s->slabs + step_row(s->starts, s->B, t) * TILE_COLS;
#define SLAB_OF(j) (slabs + (q->at[j].g / 4 * s->slab_rows + q->at[j].row) * TILE_COLS + q->at[j].g % 4 * VL)
  FOR_SLOTS(q, j) v_store(q->z[0] + o, v_load(SLAB_OF(j)));
  slots_dh(s, t, q, d, product);
  cell_backward(s->cell, 0, d, q->z[0], q->z[0], n);
  FOR_SLOTS(q, j) v_store(SLAB_OF(j), load_columns(d + o, s->H - q->at[j].g * VL));
#undef SLAB_OF
}

/* ---- whichever it is ------------------------------------------------------------------------------------------ */

FA_INLINE void cells_forward(const fa_recurrent_forward *s, fa_size t, cell_slots *q) {
  static void (*const cells[])(const fa_recurrent_forward *, fa_size, cell_slots *) = {lstm_slots, gru_slots, rnn_slots};
  if (s->cell->second && s->cell->kind == FA_GRU)
    gru_reset_slots(s, t, q);
  else
    cells[s->cell->kind](s, t, q);
}

/* What follows the second product, which stands in four vectors of units a group. */
FA_NOINLINE void second_slots(const fa_recurrent_forward *s, fa_size t, const cell_slots *q) {
  const h_store store = store_of(s, t);
  for (int k = 0; k < 4; k++) {
    cell_slots of_column;
    FA_ALIGN(64) cell_buffer d;
    of_column.count = 0;
    FOR_SLOTS(q, j) {
      const fa_size g = 4 * q->at[j].g + k;
      if (g * VL >= s->P) continue;
      v_store(d + of_column.count * VL, v_load(q->z[k] + o));
      of_column.at[of_column.count].g = g;
      of_column.at[of_column.count++].row = q->at[j].row;
    }
    if (s->cell->kind == FA_GRU)
      gru_candidate_slots(s, t, &of_column, d);
    else
      FOR_SLOTS(&of_column, j) store_h(&store, of_column.at[j].row, of_column.at[j].g * VL, v_load(d + o));
  }
}

/* From the gradient of the new h to dZ of the second product. */
FA_NOINLINE void second_slots_backward(const fa_recurrent_backward *s, fa_size t, cell_slots *q, real *d, int product) {
  real *slabs = (real *)s->second_slabs + step_row(s->starts, s->B, t) * TILE_COLS;
  slots_dh(s, t, q, d, product);
  if (s->cell->kind == FA_GRU) gru_candidate_slots_backward(s, t, q, d);
  FOR_SLOTS(q, j)
    v_store(slabs + (q->at[j].g / 4 * s->slab_rows + q->at[j].row) * TILE_COLS + q->at[j].g % 4 * VL,
            load_columns(d + o, s->P - q->at[j].g * VL));
}

/* The backward cell of `vecs` groups in `rows` rows, by collected pieces. */
typedef void (*backward_cell)(const fa_recurrent_backward *, fa_size, cell_slots *, real *, int);
FA_INLINE void pieces_backward(backward_cell cell, const fa_recurrent_backward *s, fa_size t, fa_size g, fa_size vecs,
                               fa_size first, fa_size rows, const real *dh, fa_size dh_row, int product) {
  cell_slots q;
  q.count = 0;
  FA_ALIGN(64) cell_buffer d;
  for (fa_size v = 0; v < vecs; v++)
    for (fa_size m = 0; m < rows; m++) {
      v_store(d + q.count * VL, v_load(dh + m * dh_row + v * VL));
      q.at[q.count].g = g + v;
      q.at[q.count].row = first + m;
      if (++q.count == CELL_SLOTS || (v == vecs - 1 && m == rows - 1)) {
        cell(s, t, &q, d, product);
        q.count = 0;
      }
    }
}
FA_INLINE void cells_backward(const fa_recurrent_backward *s, fa_size t, fa_size g, fa_size vecs, fa_size first,
                              fa_size rows, const real *dh, fa_size dh_row, int product) {
  static const backward_cell cells[] = {lstm_slots_backward, gru_slots_backward, rnn_slots_backward};
  if (s->cell->plain)
    for (fa_size v = 0; v < vecs; v++) lstm_cell_backward(s, t, g + v, first, rows, dh + v * VL, dh_row);
  else
    pieces_backward(cells[s->cell->kind], s, t, g, vecs, first, rows, dh, dh_row, product);
}
