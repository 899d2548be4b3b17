/* The LSTM cell: see recurrent.h for layouts.
 *
 *   i, f, o = sigmoid(z_i, z_f, z_o)   g = tanh(z_g)   c' = f c + i g   h' = o tanh(c')
 *   z = bias + x W_ih^T + h W_hh^T
 *
 * A tile of up to TILE_ROWS sequences x 4 gates x VL units is computed in registers and passed through a small buffer
 * on the stack to the pointwise part, so the gates never travel through memory in inference. Order of summation: bias,
 * inputs, hidden units, each in order; tiles of one row (two, with 32 registers) are too short a chain for the FMA
 * pipes and sum k in SPLIT interleaved parts.
 *
 * Tried, and no gain (Zen 5, AVX-512, float32, one thread): the products of 2 or 4 groups before their cells at batch
 * 1 (within noise at H = 32, 128 and 256: out-of-order execution overlaps them already); the input product inside the
 * step where all weights fit L1 (H = 32: 15.7 and 16.0 us for 100 steps); fetching ahead the slabs of the next group
 * in the backward products, of the gates of the next group or of the tile's own for the backward cell (-2 to +2 % of
 * a training step, 3 % between equal runs); 128, 192 or 384 rows in a chunk of the weight gradients (equal). The
 * products run at 97 % of the pipes at (100, 32, 64, 256); the rest is the pointwise part, 4 % of a training step
 * forward and 4 % backward. */

/* ---- rows ----------------------------------------------------------------------------------------------------- */

/* The first row of step t where rows stand one behind the other, and the first slot of a state of which h or c is made. */
FA_INLINE fa_size step_row(const fa_size *starts, fa_size B, fa_size t) { return starts ? starts[t] : t * B; }
FA_INLINE fa_size state_row(const fa_size *starts, fa_size B, fa_size slot, fa_size ring) {
  return ring >= 0 ? (slot & ring) * B : step_row(starts, B, slot - 1) + B;
}
/* Sequences that have a step t. */
FA_INLINE fa_size step_rows(const fa_size *starts, fa_size B, fa_size t) {
  return starts ? starts[t + 1] - starts[t] : B;
}
/* Offset of the rows of step t in x, y or one of their gradients. */
FA_INLINE fa_size step_offset(const fa_size *starts, fa_size t, fa_size row_t, fa_size row_b) {
  return starts ? starts[t] * row_b : t * row_t;
}
/* The first slab row of step t: in a ring, slots begin anew at every multiple of its length. */
FA_INLINE fa_size slab_row(const fa_recurrent_forward *s, fa_size t) {
  return step_row(s->starts, s->B, t) - step_row(s->starts, s->B, t & ~s->slab_ring);
}

/* ---- products ------------------------------------------------------------------------------------------------- */

/* Interleaved partial sums in a tile of so many rows: at least 8 chains in flight, at most the registers. */
#if FA_REGISTERS >= 32
#define SPLIT(rows) ((rows) == 1 ? 4 : (rows) == 2 ? 2 : 1)
#define MAX_SPLIT_ROWS 2
#else
#define SPLIT(rows) ((rows) == 1 ? 2 : 1)
#define MAX_SPLIT_ROWS 1
#endif
#define MAX_SPLIT 4

/* part[s][m][v] += a[m][k] * b[k][v], k mod split = s; k past the last whole round goes to part 0. */
FA_INLINE void split_accumulate(vec part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS], const int split, const int rows,
                                const int vecs, const real *a, fa_size a_row, const real *b, fa_size K) {
  fa_size k = 0;
  for (; k + split <= K; k += split, b += split * vecs * VL)
    FA_UNROLL for (int s = 0; s < split; s++) FA_UNROLL for (int m = 0; m < rows; m++) {
      vec am = v_set1(a[m * a_row + k + s]);
      FA_UNROLL for (int v = 0; v < vecs; v++)
        part[s][m][v] = v_mac(am, v_load(b + (s * vecs + v) * VL), part[s][m][v]);
    }
  for (; k < K; k++, b += vecs * VL)
    FA_UNROLL for (int m = 0; m < rows; m++) {
      vec am = v_set1(a[m * a_row + k]);
      FA_UNROLL for (int v = 0; v < vecs; v++) part[0][m][v] = v_mac(am, v_load(b + v * VL), part[0][m][v]);
    }
}

FA_INLINE void split_zero(vec part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS], const int split, const int rows,
                          const int vecs) {
  FA_UNROLL for (int s = 0; s < split; s++)
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < vecs; v++) part[s][m][v] = v_zero();
}

/* The sum of the parts, pairwise: (0 + 1) + (2 + 3). */
FA_INLINE vec split_sum(vec part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS], const int split, const int m, const int v) {
  if (split == 1) return part[0][m][v];
  vec low = v_add(part[0][m][v], part[1][m][v]);
  return split == 2 ? low : v_add(low, v_add(part[2][m][v], part[3][m][v]));
}

/* out = init + a A + b B for rows x TILE_COLS; A and B are panels of packed weights. */
typedef struct {
  const real *init;
  fa_size init_row; /* 0: the same for all rows */
  const real *a, *panel_a;
  fa_size a_row, a_size;
  const real *b, *panel_b;
  fa_size b_row, b_size;
  real *out;
  fa_size out_row;
} gate_product;

#define GATE_PRODUCT(rows)                                                                                          \
  FA_NOINLINE void gate_product_##rows(const gate_product *p) {                                                     \
    vec acc[TILE_ROWS][TILE_VECS];                                                                                  \
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < TILE_VECS; v++)                          \
      acc[m][v] = v_load(p->init + m * p->init_row + v * VL);                                                       \
    tile_accumulate(acc, rows, TILE_VECS, p->a, p->a_row, 1, p->panel_a, TILE_COLS, p->a_size);                     \
    tile_accumulate(acc, rows, TILE_VECS, p->b, p->b_row, 1, p->panel_b, TILE_COLS, p->b_size);                     \
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < TILE_VECS; v++)                          \
      v_store(p->out + m * p->out_row + v * VL, acc[m][v]);                                                         \
  }
#define GATE_PRODUCT_SPLIT(rows)                                                                                    \
  FA_NOINLINE void gate_product_##rows(const gate_product *p) {                                                     \
    vec part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS];                                                                 \
    split_zero(part, SPLIT(rows), rows, TILE_VECS);                                                                 \
    split_accumulate(part, SPLIT(rows), rows, TILE_VECS, p->a, p->a_row, p->panel_a, p->a_size);                    \
    split_accumulate(part, SPLIT(rows), rows, TILE_VECS, p->b, p->b_row, p->panel_b, p->b_size);                    \
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < TILE_VECS; v++)                          \
      v_store(p->out + m * p->out_row + v * VL,                                                                     \
              v_add(v_load(p->init + m * p->init_row + v * VL), split_sum(part, SPLIT(rows), m, v)));               \
  }
GATE_PRODUCT_SPLIT(1)
#if MAX_SPLIT_ROWS >= 2
GATE_PRODUCT_SPLIT(2)
#else
GATE_PRODUCT(2)
#endif
GATE_PRODUCT(3)
#if TILE_ROWS == 6
GATE_PRODUCT(4)
GATE_PRODUCT(5)
GATE_PRODUCT(6)
#endif

FA_INLINE void gate_product_rows(fa_size rows, const gate_product *p) {
  static void (*const product[TILE_ROWS])(const gate_product *) = {
      gate_product_1, gate_product_2, gate_product_3,
#if TILE_ROWS == 6
      gate_product_4, gate_product_5, gate_product_6,
#endif
  };
  product[rows - 1](p);
}

/* out = dZ panel (or out += with `accumulate`) for rows x (vecs * VL) columns, of which `columns` are there. dZ rows lie
 * in slabs. The depth 4 Hp is cut in runs of BACK_GROUPS groups, so that a run of the panel stays in L2 for all tiles. */
#define BACK_GROUPS FA_MAX(1, 512 / TILE_COLS)
typedef struct {
  const real *slabs; /* row 0 of group 0 */
  fa_size slab_row, slab_group, groups;
  const real *panel;
  real *out;
  fa_size out_row, columns;
  int accumulate;
} back_product;

FA_INLINE vec load_columns(const real *p, fa_size columns) {
  return FA_LIKELY(columns >= VL) ? v_load(p) : v_load_n(p, columns);
}
FA_INLINE void store_columns(real *p, vec v, fa_size columns) {
  if (FA_LIKELY(columns >= VL))
    v_store(p, v);
  else
    v_store_n(p, v, columns);
}

#define BACK_PRODUCT(rows, vecs)                                                                                    \
  FA_NOINLINE void back_product_##rows##_##vecs(const back_product *p) {                                            \
    vec acc[TILE_ROWS][TILE_VECS];                                                                                  \
    if (p->accumulate)                                                                                              \
      FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < vecs; v++)                             \
        acc[m][v] = load_columns(p->out + m * p->out_row + v * VL, p->columns - v * VL);                            \
    else                                                                                                            \
      tile_zero(acc, rows, vecs);                                                                                   \
    const real *panel = p->panel;                                                                                   \
    for (fa_size g = 0; g < p->groups; g++, panel += TILE_COLS * vecs * VL)                                         \
      tile_accumulate(acc, rows, vecs, p->slabs + g * p->slab_group, p->slab_row, 1, panel, vecs * VL, TILE_COLS);  \
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < vecs; v++)                               \
      store_columns(p->out + m * p->out_row + v * VL, acc[m][v], p->columns - v * VL);                              \
  }
#define BACK_PRODUCT_SPLIT(rows, vecs)                                                                              \
  FA_NOINLINE void back_product_##rows##_##vecs(const back_product *p) {                                            \
    vec part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS];                                                                 \
    split_zero(part, SPLIT(rows), rows, vecs);                                                                      \
    const real *panel = p->panel;                                                                                   \
    for (fa_size g = 0; g < p->groups; g++, panel += TILE_COLS * vecs * VL)                                         \
      split_accumulate(part, SPLIT(rows), rows, vecs, p->slabs + g * p->slab_group, p->slab_row, panel, TILE_COLS); \
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < vecs; v++)                               \
    {                                                                                                               \
      real *out = p->out + m * p->out_row + v * VL;                                                                 \
      vec sum = split_sum(part, SPLIT(rows), m, v);                                                                 \
      store_columns(out, p->accumulate ? v_add(load_columns(out, p->columns - v * VL), sum) : sum,                  \
                    p->columns - v * VL);                                                                           \
    }                                                                                                               \
  }

#define BACK_PRODUCTS(KIND, rows) KIND(rows, 1) KIND(rows, 2) KIND(rows, 4)
BACK_PRODUCTS(BACK_PRODUCT_SPLIT, 1)
#if MAX_SPLIT_ROWS >= 2
BACK_PRODUCTS(BACK_PRODUCT_SPLIT, 2)
#else
BACK_PRODUCTS(BACK_PRODUCT, 2)
#endif
BACK_PRODUCTS(BACK_PRODUCT, 3)
#if TILE_ROWS == 6
BACK_PRODUCTS(BACK_PRODUCT, 4)
BACK_PRODUCTS(BACK_PRODUCT, 5)
BACK_PRODUCTS(BACK_PRODUCT, 6)
#endif

FA_INLINE void back_product_rows(fa_size rows, fa_size vecs, const back_product *p) {
#define ROW(rows) {back_product_##rows##_1, back_product_##rows##_2, back_product_##rows##_4}
  static void (*const product[TILE_ROWS][3])(const back_product *) = {
      ROW(1), ROW(2), ROW(3),
#if TILE_ROWS == 6
      ROW(4), ROW(5), ROW(6),
#endif
  };
#undef ROW
  product[rows - 1][vecs / 2](p);
}

/* Run r of the depth: its groups, and whether it adds to the run before. One tile needs the panel only once: one run. */
FA_INLINE fa_size run_count(fa_size tiles, fa_size groups) { return tiles == 1 ? 1 : FA_CEIL_DIV(groups, BACK_GROUPS); }
FA_INLINE void set_run(back_product *p, fa_size r, fa_size runs, fa_size groups, fa_size vecs) {
  fa_size begin = r * BACK_GROUPS;
  p->slabs += begin * p->slab_group;
  p->panel += begin * TILE_COLS * vecs * VL;
  p->groups = runs == 1 ? groups : FA_MIN(groups - begin, BACK_GROUPS);
  p->accumulate = r > 0;
}

/* Vectors in the column block that begins at vector v of n: 4 as long as there are 4, then 2, then 1. */
FA_INLINE fa_size block_vecs(fa_size v, fa_size n) { return n - v >= 4 ? 4 : n - v >= 2 ? 2 : 1; }

FA_INLINE fa_size block_count(fa_size n) { return n / 4 + n % 4 / 2 + n % 2; }
FA_INLINE fa_size block_begin(fa_size n, fa_size i) { return i <= n / 4 ? 4 * i : n / 4 * 4 + 2; }

/* n rows in equal tiles (8 = 4 + 4: a tile of 2 rows runs at half speed): where tile i of `tiles` begins. */
FA_INLINE fa_size tile_count(fa_size n) { return FA_CEIL_DIV(n, TILE_ROWS); }
FA_INLINE fa_size tile_begin(fa_size n, fa_size i) { return n * i / tile_count(n); }

/* ---- packing -------------------------------------------------------------------------------------------------- */

/* Panels of groups group_begin .. group_end - 1 of a (4H, K) matrix, by VL x VL transpositions. */
static void pack_forward(const real *weight, fa_size H, fa_size K, real *out, fa_size group_begin, fa_size group_end) {
  for (fa_size g = group_begin; g < group_end; g++) {
    fa_size units = FA_MIN(VL, H - g * VL);
    for (fa_size k = 0; k < K; k += VL)
      for (fa_size gate = 0; gate < 4; gate++) {
        const real *from = weight + (gate * H + g * VL) * K + k;
        real *to = out + (g * K + k) * TILE_COLS + gate * VL;
        vec rows[VL];
        if (FA_LIKELY(units == VL && K - k >= VL)) {
          FA_UNROLL for (int u = 0; u < VL; u++) rows[u] = v_load(from + u * K);
          v_transpose(rows);
          FA_UNROLL for (int j = 0; j < VL; j++) v_store(to + j * TILE_COLS, rows[j]);
        } else
          for (fa_size j = 0; j < VL && j < K - k; j++) v_store(to + j * TILE_COLS, v_load_strided(from + j, K, units));
      }
  }
}

/* The same matrix with its rows in slab order, in blocks of columns. */
static void pack_backward(const real *weight, fa_size H, fa_size K, real *out, fa_size group_begin,
                          fa_size group_end) {
  fa_size groups = FA_CEIL_DIV(H, VL), n = FA_CEIL_DIV(K, VL);
  for (fa_size v = 0, vecs; v < n; v += vecs) {
    vecs = block_vecs(v, n);
    real *to = out + (v * groups + group_begin * vecs) * 4 * VL * VL;
    for (fa_size g = group_begin; g < group_end; g++)
      for (fa_size gate = 0; gate < 4; gate++)
        for (fa_size u = 0; u < VL; u++) {
          const real *from = weight + (gate * H + g * VL + u) * K + v * VL;
          fa_size columns = g * VL + u < H ? K - v * VL : 0;
          for (fa_size j = 0; j < vecs; j++, to += VL)
            v_store(to, columns - j * VL >= VL ? v_load(from + j * VL) : v_load_n(from + j * VL, columns - j * VL));
        }
  }
}

static void cell_pack(const fa_recurrent_pack *p, fa_size group_begin, fa_size group_end) {
  pack_forward(p->weight_ih, p->H, p->inputs, p->ih, group_begin, group_end);
  pack_forward(p->weight_hh, p->H, p->H, p->hh, group_begin, group_end);
  const real *bias_ih = p->bias_ih, *bias_hh = p->bias_hh;
  real *bias = (real *)p->bias + group_begin * TILE_COLS;
  for (fa_size g = group_begin; g < group_end; g++)
    for (fa_size gate = 0; gate < 4; gate++, bias += VL) {
      fa_size first = gate * p->H + g * VL, units = p->H - g * VL;
      vec sum = bias_ih ? v_load_n(bias_ih + first, units) : v_zero();
      v_store(bias, bias_hh ? v_add(sum, v_load_n(bias_hh + first, units)) : sum);
    }
  if (p->hh_back) pack_backward(p->weight_hh, p->H, p->H, p->hh_back, group_begin, group_end);
  if (p->ih_back) pack_backward(p->weight_ih, p->H, p->inputs, p->ih_back, group_begin, group_end);
}

/* ---- forward -------------------------------------------------------------------------------------------------- */

/* Tiles run over time; over all rows at once where those stand one behind the other. */
static void input_product(const fa_recurrent_forward *s, const fa_recurrent_share *share, fa_size t_begin,
                          fa_size t_end) {
  const int ragged = s->starts != NULL;
  const fa_size n = ragged ? s->starts[t_end] - s->starts[t_begin] : t_end - t_begin;
  const fa_size b_begin = ragged ? 0 : share->row_begin, b_end = ragged ? 1 : share->row_end;
  const fa_size a_row = ragged ? s->x_b : s->x_t, z_row = (ragged ? 1 : s->B) * TILE_COLS;
  const real *x = (const real *)s->x + step_offset(s->starts, t_begin, s->x_t, s->x_b);
  for (fa_size g = share->group_begin; g < share->group_end; g++) {
    real *z = (real *)s->slabs + (g * s->slab_rows + slab_row(s, t_begin)) * TILE_COLS;
    for (fa_size b = b_begin; b < b_end; b++)
      for (fa_size i = 0; i < tile_count(n); i++) {
        fa_size first = tile_begin(n, i);
        const gate_product product = {
            .init = (const real *)s->bias + g * TILE_COLS,
            .a = x + first * a_row + b * s->x_b,
            .a_row = a_row,
            .a_size = s->inputs,
            .panel_a = (const real *)s->ih + g * s->inputs * TILE_COLS,
            .out = z + first * z_row + b * TILE_COLS,
            .out_row = z_row,
        };
        gate_product_rows(tile_begin(n, i + 1) - first, &product);
      }
  }
}

/* The pointwise part for `rows` tile rows of one group. `keep` is a literal: inference stores no gates. */
FA_INLINE void lstm_cell(const fa_recurrent_forward *s, fa_size t, fa_size g, fa_size first, fa_size rows, const real *z,
                         const int keep) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL), units = s->H - g * VL;
  const real *c_in = (const real *)s->c + (state_row(s->starts, s->B, t, s->c_ring) + first) * Hp + g * VL;
  real *c_out = (real *)s->c + (state_row(s->starts, s->B, t + 1, s->c_ring) + first) * Hp + g * VL;
  real *h_out = (real *)s->h + (state_row(s->starts, s->B, t + 1, s->h_ring) + first) * Hp + g * VL;
  real *y = s->y ? (real *)s->y + step_offset(s->starts, t, s->y_t, s->y_b) + first * s->y_b + g * VL : NULL;
  real *gates = keep ? (real *)s->slabs + (g * s->slab_rows + slab_row(s, t) + first) * TILE_COLS : NULL;
  for (fa_size m = 0; m < rows; m++, z += TILE_COLS) {
    vec i = math_sigmoid(v_load(z)), f = math_sigmoid(v_load(z + VL));
    vec candidate = math_tanh(v_load(z + 2 * VL)), o = math_sigmoid(v_load(z + 3 * VL));
    vec c = v_mac(f, v_load(c_in + m * Hp), v_mul(i, candidate));
    vec h = v_mul(o, math_tanh(c));
    v_store(c_out + m * Hp, c);
    v_store(h_out + m * Hp, h);
    if (y) store_columns(y + m * s->y_b, h, units);
    if (keep) {
      v_store(gates + m * TILE_COLS, i);
      v_store(gates + m * TILE_COLS + VL, f);
      v_store(gates + m * TILE_COLS + 2 * VL, candidate);
      v_store(gates + m * TILE_COLS + 3 * VL, o);
    }
  }
}

FA_INLINE void forward_step_body(const fa_recurrent_forward *s, const fa_recurrent_share *share, fa_size t, const int keep) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL), row_end = FA_MIN(share->row_end, step_rows(s->starts, s->B, t));
  const fa_size n = row_end - share->row_begin, tiles = tile_count(n);
  FA_ALIGN(64) real z[TILE_ROWS * TILE_COLS];
  for (fa_size k = share->group_begin; k < share->group_end; k++) {
    /* There and back again: what the last step read last is still in the cache. */
    const fa_size g = t & 1 ? share->group_begin + share->group_end - 1 - k : k;
    for (fa_size i = 0; i < tiles; i++) {
      fa_size first = share->row_begin + tile_begin(n, i), rows = share->row_begin + tile_begin(n, i + 1) - first;
      gate_product product = {
          .init = (const real *)s->bias + g * TILE_COLS,
          .a = (const real *)s->x + step_offset(s->starts, t, s->x_t, s->x_b) + first * s->x_b,
          .a_row = s->x_b,
          .a_size = s->inputs,
          .panel_a = (const real *)s->ih + g * s->inputs * TILE_COLS,
          .b = (const real *)s->h + (state_row(s->starts, s->B, t, s->h_ring) + first) * Hp,
          .b_row = Hp,
          .b_size = s->H,
          .panel_b = (const real *)s->hh + g * s->H * TILE_COLS,
          .out = z,
          .out_row = TILE_COLS,
      };
      if (s->hoisted) {
        product.init = (const real *)s->slabs + (g * s->slab_rows + slab_row(s, t) + first) * TILE_COLS;
        product.init_row = TILE_COLS;
        product.a_size = 0;
      }
      gate_product_rows(rows, &product);
      lstm_cell(s, t, g, first, rows, z, keep);
    }
  }
}

static void forward_step(const fa_recurrent_forward *s, const fa_recurrent_share *share, fa_size t) {
  if (s->keep_gates)
    forward_step_body(s, share, t, 1);
  else
    forward_step_body(s, share, t, 0);
}

/* ---- backward ------------------------------------------------------------------------------------------------- */

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

#define BACK_TILES 16 /* tiles whose dh waits in the buffer on the stack (24 KB in float32) while the runs go by */

/* The rows of a share that go on after step t: their dh comes from dZ of step t + 1. That of the others, whose last step
 * this is, stands in s->dh; there it goes before the first step, too. */
static void backward_step(const fa_recurrent_backward *s, const fa_recurrent_share *share, fa_size t) {
  const fa_size groups = FA_CEIL_DIV(s->H, VL), Hp = groups * VL, slab_group = s->slab_rows * TILE_COLS;
  const fa_size row_end = t < 0 ? share->row_end : FA_MIN(share->row_end, step_rows(s->starts, s->B, t));
  const fa_size going_on = t < s->T - 1 ? FA_MIN(row_end, step_rows(s->starts, s->B, t + 1)) : share->row_begin;
  const fa_size n = going_on - share->row_begin, tiles = tile_count(n), runs = run_count(tiles, groups);
  FA_ALIGN(64) real buffer[BACK_TILES * TILE_ROWS * TILE_COLS];
  const fa_size blocks = block_count(share->group_end - share->group_begin);
  for (fa_size k = 0; k < blocks; k++) {
    /* There and back again, as forward: 3-5 % of a training step at batch 1, where W_hh fills the L2. */
    const fa_size block = t & 1 ? blocks - 1 - k : k;
    const fa_size g = share->group_begin + block_begin(share->group_end - share->group_begin, block);
    const fa_size vecs = block_vecs(g, share->group_end);
    for (fa_size i_begin = 0; i_begin < tiles; i_begin += BACK_TILES) {
      const fa_size i_end = FA_MIN(tiles, i_begin + BACK_TILES), from = share->row_begin + tile_begin(n, i_begin);
      real *dh = t < 0 ? (real *)s->dh + from * Hp + g * VL : buffer;
      const fa_size dh_row = t < 0 ? Hp : vecs * VL;
      for (fa_size r = 0; r < runs; r++)
        for (fa_size i = i_begin; i < i_end; i++) {
          fa_size first = share->row_begin + tile_begin(n, i), rows = share->row_begin + tile_begin(n, i + 1) - first;
          back_product product = {
              .slabs = (const real *)s->slabs + (step_row(s->starts, s->B, t + 1) + first) * TILE_COLS,
              .slab_row = TILE_COLS,
              .slab_group = slab_group,
              .panel = (const real *)s->hh_back + g * VL * 4 * Hp,
              .out = dh + (first - from) * dh_row,
              .out_row = dh_row,
              .columns = vecs * VL,
          };
          set_run(&product, r, runs, groups, vecs);
          back_product_rows(rows, vecs, &product);
        }
      if (t >= 0)
        for (fa_size v = 0; v < vecs; v++)
          lstm_cell_backward(s, t, g + v, from, share->row_begin + tile_begin(n, i_end) - from, dh + v * VL, dh_row);
    }
    if (t >= 0 && going_on < row_end)
      for (fa_size v = 0; v < vecs; v++)
        lstm_cell_backward(s, t, g + v, going_on, row_end - going_on, (real *)s->dh + going_on * Hp + (g + v) * VL, Hp);
  }
}

/* dX = dZ W_ih. Tiles run over the batch, or over time where the batch is smaller than a tile; over all rows at once where
 * those stand one behind the other. */
static void input_gradient(const fa_recurrent_backward *s, fa_size t_begin, fa_size t_end, int part, int parts) {
  const fa_size groups = FA_CEIL_DIV(s->H, VL), n_vecs = FA_CEIL_DIV(s->inputs, VL), steps = t_end - t_begin;
  const int ragged = s->starts != NULL, over_batch = ragged || s->B >= TILE_ROWS;
  const fa_size row_begin = step_row(s->starts, s->B, t_begin);
  const fa_size inner = ragged ? s->starts[t_end] - row_begin : over_batch ? s->B : steps;
  const fa_size outer = ragged ? 1 : over_batch ? steps : s->B, tiles = tile_count(inner);
  const fa_size work_begin = outer * tiles * part / parts, work_end = outer * tiles * (part + 1) / parts;
  const fa_size runs = run_count(outer * tiles, groups);
  real *dx = (real *)s->dx + step_offset(s->starts, t_begin, s->dx_t, s->dx_b);
  for (fa_size v = 0, vecs; v < n_vecs; v += vecs) {
    vecs = block_vecs(v, n_vecs);
    for (fa_size r = 0; r < runs; r++)
      for (fa_size work = work_begin; work < work_end; work++) {
        fa_size i = work % tiles, first = tile_begin(inner, i), rows = tile_begin(inner, i + 1) - first;
        fa_size t = over_batch ? work / tiles : first, b = over_batch ? first : work / tiles;
        back_product product = {
            .slabs = (const real *)s->slabs + (row_begin + t * s->B + b) * TILE_COLS,
            .slab_row = (over_batch ? 1 : s->B) * TILE_COLS,
            .slab_group = s->slab_rows * TILE_COLS,
            .panel = (const real *)s->ih_back + v * VL * groups * TILE_COLS,
            .out = dx + t * s->dx_t + b * s->dx_b + v * VL,
            .out_row = over_batch ? s->dx_b : s->dx_t,
            .columns = s->inputs - v * VL,
        };
        set_run(&product, r, runs, groups, vecs);
        product.accumulate |= s->dx_adds;
        back_product_rows(rows, vecs, &product);
      }
  }
}

/* ---- gradients of the weights --------------------------------------------------------------------------------- */

static void gradient_pack(const fa_recurrent_gradient *s, fa_size t_begin, fa_size t_end, int part, int parts) {
  const fa_size n = step_row(s->starts, s->B, t_end) - step_row(s->starts, s->B, t_begin);
  const fa_size n_vecs = FA_CEIL_DIV(s->K, VL), begin = n * part / parts, end = n * (part + 1) / parts;
  fa_size r = 0;
  for (fa_size t = t_begin; t < t_end; t++) {
    const real *from = (const real *)s->a + step_offset(s->a_starts, t, s->a_t, s->a_b);
    for (fa_size b = 0, rows = step_rows(s->starts, s->B, t); b < rows; b++, r++, from += s->a_b) {
      if (r < begin || r >= end) continue;
      for (fa_size v = 0, vecs; v < n_vecs; v += vecs) {
        vecs = block_vecs(v, n_vecs);
        real *to = (real *)s->packed + (v * n + r * vecs) * VL;
        for (fa_size j = v; j < v + vecs; j++, to += VL)
          v_store(to, s->K - j * VL >= VL ? v_load(from + j * VL) : v_load_n(from + j * VL, s->K - j * VL));
      }
    }
  }
}

/* gradient rows [gate j / VL, unit] += dZ columns j .. j + rows - 1 of a slab, times one column block of A. */
typedef struct {
  const real *slab, *block;
  fa_size size; /* rows (t, b) of the chunk */
  real *out;    /* row of unit 0 of the group in gate 0, first column of the block */
  fa_size first, gate_stride, row_stride, columns;
} gradient_product;

FA_INLINE real *gradient_row(const gradient_product *p, fa_size m) {
  fa_size j = p->first + m;
  return p->out + j / VL * p->gate_stride + j % VL * p->row_stride;
}

#define GRADIENT_PRODUCT(rows, vecs)                                                                                \
  FA_NOINLINE void gradient_product_##rows##_##vecs(const gradient_product *p) {                                    \
    vec acc[TILE_ROWS][TILE_VECS];                                                                                  \
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < vecs; v++)                               \
      FA_PREFETCH_WRITE(gradient_row(p, m) + v * VL);                                                               \
    tile_zero(acc, rows, vecs);                                                                                     \
    tile_accumulate(acc, rows, vecs, p->slab + p->first, 1, TILE_COLS, p->block, vecs * VL, p->size);               \
    FA_UNROLL for (int m = 0; m < rows; m++) {                                                                      \
      real *out = gradient_row(p, m);                                                                               \
      FA_UNROLL for (int v = 0; v < vecs; v++) add_columns(out + v * VL, acc[m][v], p->columns - v * VL);           \
    }                                                                                                               \
  }

FA_INLINE void add_columns(real *p, vec v, fa_size columns) {
  if (FA_LIKELY(columns >= VL))
    v_store(p, v_add(v_load(p), v));
  else
    v_store_n(p, v_add(v_load_n(p, columns), v), columns);
}

#define GRADIENT_PRODUCTS(rows) GRADIENT_PRODUCT(rows, 1) GRADIENT_PRODUCT(rows, 2) GRADIENT_PRODUCT(rows, 4)
GRADIENT_PRODUCTS(1)
GRADIENT_PRODUCTS(2)
GRADIENT_PRODUCTS(3)
#if TILE_ROWS == 6
GRADIENT_PRODUCTS(4)
GRADIENT_PRODUCTS(5)
GRADIENT_PRODUCTS(6)
#endif

FA_INLINE void gradient_product_rows(fa_size rows, fa_size vecs, const gradient_product *p) {
#define ROW(rows) {gradient_product_##rows##_1, gradient_product_##rows##_2, gradient_product_##rows##_4}
  static void (*const product[TILE_ROWS][3])(const gradient_product *) = {
      ROW(1), ROW(2), ROW(3),
#if TILE_ROWS == 6
      ROW(4), ROW(5), ROW(6),
#endif
  };
#undef ROW
  product[rows - 1][vecs / 2](p);
}

/* Column sums of a slab's chunk: the gradient of both biases. */
static void bias_gradient(const fa_recurrent_gradient *s, fa_size g, const real *slab, fa_size n) {
  vec sum[TILE_VECS];
  FA_UNROLL for (int v = 0; v < TILE_VECS; v++) sum[v] = v_zero();
  for (fa_size r = 0; r < n; r++)
    FA_UNROLL for (int v = 0; v < TILE_VECS; v++) sum[v] = v_add(sum[v], v_load(slab + r * TILE_COLS + v * VL));
  FA_UNROLL for (int v = 0; v < TILE_VECS; v++) {
    fa_size first = v * s->H + g * VL;
    if (s->bias_a) add_columns((real *)s->bias_a + first, sum[v], s->H - g * VL);
    if (s->bias_b) add_columns((real *)s->bias_b + first, sum[v], s->H - g * VL);
  }
}

static void weight_gradient(const fa_recurrent_gradient *s, fa_size t_begin, fa_size t_end, int part, int parts) {
  const fa_size row_begin = step_row(s->starts, s->B, t_begin), n = step_row(s->starts, s->B, t_end) - row_begin;
  const fa_size groups = FA_CEIL_DIV(s->H, VL), n_vecs = FA_CEIL_DIV(s->K, VL);
  /* Units of work are (group, vector of columns), a block belongs to the part that holds its first vector. */
  const fa_size begin = groups * n_vecs * part / parts, end = groups * n_vecs * (part + 1) / parts;
  for (fa_size g = begin / n_vecs; g * n_vecs < end; g++) {
    const real *slab = (const real *)s->slabs + (g * s->slab_rows + row_begin) * TILE_COLS;
    const fa_size units = FA_MIN(VL, s->H - g * VL);
    if (g * n_vecs >= begin && (s->bias_a || s->bias_b)) bias_gradient(s, g, slab, n);
    for (fa_size v = 0, vecs; v < n_vecs && g * n_vecs + v < end; v += vecs) {
      vecs = block_vecs(v, n_vecs);
      if (g * n_vecs + v < begin) continue;
      gradient_product product = {
          .slab = slab,
          .block = (const real *)s->packed + v * n * VL,
          .size = n,
          .out = (real *)s->gradient + g * VL * s->K + v * VL,
          .gate_stride = s->H * s->K,
          .row_stride = s->K,
          .columns = s->K - v * VL,
      };
      /* A whole group is one run of columns of dZ; in the last one each gate is a run of its own. */
      const fa_size run = units == VL ? TILE_COLS : units, tiles = tile_count(run);
      for (fa_size from = 0; from < TILE_COLS; from += units == VL ? TILE_COLS : VL)
        for (fa_size i = 0; i < tiles; i++) {
          product.first = from + tile_begin(run, i);
          gradient_product_rows(from + tile_begin(run, i + 1) - product.first, vecs, &product);
        }
    }
  }
}

#define RECURRENT_KERNELS                                                                                           \
  {                                                                                                                 \
      .pack = cell_pack,                                                                                            \
      .input = input_product,                                                                                       \
      .step = forward_step,                                                                                         \
      .backward_step = backward_step,                                                                               \
      .input_gradient = input_gradient,                                                                             \
      .gradient_pack = gradient_pack,                                                                               \
      .gradient = weight_gradient,                                                                                  \
  }
