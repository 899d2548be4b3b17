/* What the steps of a recurrent layer stand on: where rows are, the products with packed weights, packing. See
 * recurrent.h for the layouts.
 *
 * A tile of up to TILE_ROWS sequences x 4 gates x VL units is computed in registers and passed through a small buffer
 * on the stack to the pointwise part (cells.inl), so the gates never travel through memory in inference. Order of
 * summation: bias, inputs, hidden units, each in order; tiles of one row (two, with 32 registers) are too short a chain
 * for the FMA pipes and sum k in SPLIT interleaved parts. Not so the input product before the loop: how its rows fall
 * into tiles depends on the number of steps, and a sequence must give the same bits in one piece, in two, or step by
 * step. There all tiles sum in order. */

#include "half.h"

/* Gates of the three rows of peephole weights. */
static const int cell_peephole_gate[3] = {FA_GATE_I, FA_GATE_F, FA_GATE_O};
/* Rows of the columns in the weights of full_gates. */
static const int cell_gate_rows[4] = {0, 1, -1, 2};

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

/* Groups of a layer, and where the units of one of its columns stand. */
FA_INLINE int cell_vectors(const fa_cell *cell) { return cell->kind == FA_RNN ? 4 : 1; }
FA_INLINE fa_size cell_groups(const fa_cell *cell, fa_size H) { return FA_CEIL_DIV(H, VL * cell_vectors(cell)); }
FA_INLINE fa_size cell_units(const fa_cell *cell, fa_size H) { return cell_groups(cell, H) * VL * cell_vectors(cell); }
FA_INLINE fa_size column_begin(const fa_cell *cell, fa_size g, fa_size column) {
  return cell->kind == FA_RNN ? (4 * g + column) * VL : g * VL;
}
/* The padded rows of h, and of what the recurrent product reads. */
FA_INLINE fa_size h_width(const fa_cell *cell, fa_size P) { return cell_units(cell, P); }
FA_INLINE fa_size operand_width(const fa_cell *cell, fa_size R) { return cell_units(cell, R); }
/* The second product's columns are vectors of units, as an RNN's. */
static const fa_cell second_cell = {.kind = FA_RNN};
/* How many units there are. */
FA_INLINE fa_size column_size(const fa_cell *cell, const int row[4], fa_size H, fa_size g, fa_size column) {
  return row[column] < 0 ? 0 : FA_MAX(0, FA_MIN(VL, H - column_begin(cell, g, column)));
}
/* The first row of theirs in the weights. */
FA_INLINE fa_size column_row(const fa_cell *cell, const int row[4], fa_size H, fa_size g, fa_size column) {
  return FA_MAX(row[column], 0) * H + column_begin(cell, g, column);
}

/* Where the backward weights of gate k of full_gates begin, behind those of h. */
FA_INLINE fa_size gates_back(const fa_cell *cell, fa_size H, fa_size P, fa_size k) {
  return (FA_ROUND_UP(P, VL) + k * FA_ROUND_UP(H, VL)) * cell_groups(cell, H) * TILE_COLS;
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

/* part[s][m][v] += a[m][k] * b[k][v], begin <= v < end, k mod split = s; k past the last whole round goes to part 0. */
FA_INLINE void split_accumulate(vec part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS], const int split, const int rows,
                                const int begin, const int end, const real *a, fa_size a_row, tile_matrix b,
                                const fa_precision precision, fa_size K) {
  const int word = fa_word_rows(precision), round = FA_MAX(split, word);
  fa_size k = 0;
  for (; k + round <= K; k += round, b.at += round / word * b.row)
    FA_UNROLL for (int s = 0; s < round; s++) FA_UNROLL for (int m = 0; m < rows; m++) {
      vec am = v_set1(a[m * a_row + k + s]);
      FA_UNROLL for (int v = begin; v < end; v++)
        part[s % split][m][v] = v_mac(am, panel_load(tile_vector(&b, v) + s / word * b.row, precision, s % word),
                                      part[s % split][m][v]);
    }
  for (; k < K; k += word, b.at += b.row)
    FA_UNROLL for (int j = 0; j < word; j++)
      if (k + j < K)
        FA_UNROLL for (int m = 0; m < rows; m++) {
          vec am = v_set1(a[m * a_row + k + j]);
          FA_UNROLL for (int v = begin; v < end; v++)
            part[0][m][v] = v_mac(am, panel_load(tile_vector(&b, v), precision, j), part[0][m][v]);
        }
}

FA_INLINE void split_zero(vec part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS], const int split, const int rows,
                          const int begin, const int end) {
  FA_UNROLL for (int s = 0; s < split; s++)
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = begin; v < end; v++) part[s][m][v] = v_zero();
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
  fa_size out_row, out_vec; /* from row to row, from vector to vector */
  const real *ahead_a, *ahead_b; /* this tile's part of the panels after these, ahead_row elements a k */
  fa_size ahead_row;
} gate_product;

/* Elements of each k of the next panel that each of `tiles` tiles asks for in L2, 0 if none. With an L2 of 512 KB (AVX2 on
 * Zen 3) large weights come from L3: (20, 32, 256, 512) 28.0 -> 24.2 ms where six tiles fetch them ahead, but with two
 * (20, 8, 512, 512) 8.5 -> 10.4, and (100, 8, 64, 128) 2.08 -> 2.20 where they would be in L2. On Zen 5 the hardware does it
 * better, see recurrent.inl. */
#define GATE_FETCHES (FA_REGISTERS < 32)
FA_INLINE fa_size gate_ahead(fa_precision precision, fa_size K, fa_size groups, fa_size tiles) {
  const fa_size bytes = groups * fa_panel_rows(precision, K) * TILE_COLS * (fa_size)sizeof(real);
  return GATE_FETCHES && tiles > 3 && bytes >= 2 << 20 ? FA_CEIL_DIV(TILE_COLS, tiles) : 0;
}

/* The panel of a matrix of K columns; int8 words stand behind the row of their scales. */
FA_INLINE tile_matrix gate_panel(const real *words, const fa_precision precision, fa_size K) {
  return tile_panel(words, fa_panel_rows(precision, K) - (precision == FA_INT8), TILE_VECS);
}

/* The bodies of all tiles; every argument but p is a literal. Columns 0 .. vecs - 1 come from x, 4 - vecs .. 3 from h: with
 * 3 vecs, a GRU's, one of each is missing. */
FA_INLINE void gate_sweep(const gate_product *p, const fa_precision precision, const int rows, const int vecs,
                          const int begin, const int end) {
  vec acc[TILE_ROWS][TILE_VECS];
  const int fetch = GATE_FETCHES && begin == 0;
  const int x_end = FA_MIN(end, vecs), h_begin = FA_MAX(begin, 4 - vecs);
#define EACH_COLUMN(from, to) FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = from; v < to; v++)
#define LOAD acc[m][v] = v_load(p->init + m * p->init_row + v * VL)
#define STORE v_store(p->out + m * p->out_row + v * p->out_vec, acc[m][v])
  EACH_COLUMN(begin, x_end) LOAD;
  tile_sweep(acc, rows, begin, x_end, p->a, p->a_row, 1, gate_panel(p->panel_a, precision, p->a_size), precision,
             p->a_size, 0, VL, fetch, p->ahead_a, p->ahead_row);
  EACH_COLUMN(begin, FA_MIN(h_begin, x_end)) STORE;
  EACH_COLUMN(FA_MAX(begin, x_end), end) LOAD;
  tile_sweep(acc, rows, h_begin, end, p->b, p->b_row, 1, gate_panel(p->panel_b, precision, p->b_size), precision,
             p->b_size, 0, VL, fetch, p->ahead_b, p->ahead_row);
  EACH_COLUMN(h_begin, end) STORE;
#undef EACH_COLUMN
#undef LOAD
#undef STORE
}
/* With 16 registers, a GRU's three columns of up to four rows in one sweep: 12 sums. By two and one, the four sums of the
 * single one wait for each other, and (20, 8, 256, 256) took 2.04 ms instead of 1.72 (AVX2 on Zen 3). More rows do not
 * fit, so there its tiles have no more. */
#define GATE_ONE_SWEEP(precision, vecs) (FA_REGISTERS < 32 && (precision) == FA_FULL && (vecs) == 3)
#define GATE_ROWS 4
FA_INLINE void gate_product_in_order(const gate_product *p, const fa_precision precision, const int rows,
                                     const int vecs) {
#define SWEEP(begin, end) gate_sweep(p, precision, rows, vecs, begin, end)
  if (GATE_ONE_SWEEP(precision, vecs) && rows <= GATE_ROWS) SWEEP(0, TILE_VECS);
  else TILE_EACH_SWEEP(rows, TILE_VECS, SWEEP);
#undef SWEEP
}
FA_INLINE void gate_product_split(const gate_product *p, const fa_precision precision, const int split,
                                  const int rows, const int vecs) {
  vec part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS];
  split_zero(part, split, rows, 0, TILE_VECS);
  split_accumulate(part, split, rows, 0, vecs, p->a, p->a_row, gate_panel(p->panel_a, precision, p->a_size),
                   precision, p->a_size);
  split_accumulate(part, split, rows, 4 - vecs, 4, p->b, p->b_row, gate_panel(p->panel_b, precision, p->b_size),
                   precision, p->b_size);
  FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < TILE_VECS; v++)
    v_store(p->out + m * p->out_row + v * p->out_vec,
            v_add(v_load(p->init + m * p->init_row + v * VL), split_sum(part, split, m, v)));
}

/* sum[m][v] += scale[v] (a A)[m][v], begin <= v < end, for an int8 panel, whose weights come with a bias. */
FA_INLINE void add_scaled(vec sum[TILE_ROWS][TILE_VECS], const int split, const int rows, const int begin,
                          const int end, const real *a, fa_size a_row, const real *scale, fa_size K) {
  if (!K) return;
  vec acc[TILE_ROWS][TILE_VECS], part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS];
  const tile_matrix words = gate_panel(scale + TILE_COLS, FA_INT8, K);
  if (split == 1) {
    tile_zero(acc, rows, begin, end);
    tile_sweep(acc, rows, begin, end, a, a_row, 1, words, FA_INT8, K, 0, VL, 0, scale, 0);
  } else {
    split_zero(part, split, rows, begin, end);
    split_accumulate(part, split, rows, begin, end, a, a_row, words, FA_INT8, K);
  }
  FA_UNROLL for (int m = 0; m < rows; m++) {
    vec of_a = v_zero();
    for (fa_size k = 0; k < K; k += VL) of_a = v_add(of_a, v_load_n(a + m * a_row + k, K - k));
    const vec bias = v_set1(INT8_BIAS * v_hsum(of_a));
    FA_UNROLL for (int v = begin; v < end; v++) {
      const vec total = v_sub(split == 1 ? acc[m][v] : split_sum(part, split, m, v), bias);
      sum[m][v] = v_mac(v_load(scale + v * VL), total, sum[m][v]);
    }
  }
}
FA_INLINE void gate_sweep_scaled(const gate_product *p, const int split, const int rows, const int vecs,
                                 const int begin, const int end) {
  vec sum[TILE_ROWS][TILE_VECS];
  FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = begin; v < end; v++)
    sum[m][v] = v_load(p->init + m * p->init_row + v * VL);
  add_scaled(sum, split, rows, begin, FA_MIN(end, vecs), p->a, p->a_row, p->panel_a, p->a_size);
  add_scaled(sum, split, rows, FA_MAX(begin, 4 - vecs), end, p->b, p->b_row, p->panel_b, p->b_size);
  FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = begin; v < end; v++)
    v_store(p->out + m * p->out_row + v * p->out_vec, sum[m][v]);
}
FA_INLINE void gate_product_scaled(const gate_product *p, const int split, const int rows, const int vecs) {
#define SWEEP(begin, end) gate_sweep_scaled(p, split, rows, vecs, begin, end)
  TILE_EACH_SWEEP(rows, TILE_VECS, SWEEP);
#undef SWEEP
}

FA_INLINE void gate_product_any(const gate_product *p, const fa_precision precision, const int split, const int rows,
                                const int vecs) {
  if (precision == FA_INT8)
    gate_product_scaled(p, split, rows, vecs);
  else if (split > 1)
    gate_product_split(p, precision, split, rows, vecs);
  else
    gate_product_in_order(p, precision, rows, vecs);
}

#define GATE_PRODUCT(precision, order, split, rows)                                                                 \
  FA_NOINLINE void gate_product_##precision##_##order##_##rows##_3(const gate_product *p) {                         \
    gate_product_any(p, precision, split, rows, 3);                                                                 \
  }                                                                                                                 \
  FA_NOINLINE void gate_product_##precision##_##order##_##rows##_4(const gate_product *p) {                         \
    gate_product_any(p, precision, split, rows, 4);                                                                 \
  }
#define LARGE_TILES(DO, precision) \
  DO(precision, in_order, 1, 3) DO(precision, in_order, 1, 4)  \
  DO(precision, in_order, 1, 5) DO(precision, in_order, 1, 6)
#define GATE_PRODUCTS(precision)                                                                                    \
  GATE_PRODUCT(precision, in_order, 1, 1)                                                                           \
  GATE_PRODUCT(precision, in_order, 1, 2)                                                                           \
  GATE_PRODUCT(precision, split, SPLIT(1), 1)                                                                       \
  GATE_PRODUCT(precision, split, SPLIT(2), 2)                                                                       \
  LARGE_TILES(GATE_PRODUCT, precision)
GATE_PRODUCTS(FA_FULL)
#if FA_F32
GATE_PRODUCTS(FA_BFLOAT16)
GATE_PRODUCTS(FA_INT8)
#endif

/* `order`, a literal: sums in order, whatever the number of rows. */
FA_INLINE void gate_product_rows(const fa_cell *cell, fa_precision precision, fa_size rows, const gate_product *p,
                                 const int order) {
#define ENTRY(precision, order, split, rows) \
  {gate_product_##precision##_##order##_##rows##_4, gate_product_##precision##_##order##_##rows##_3},
#define ROWS(precision, order) {ENTRY(precision, order, , 1) ENTRY(precision, order, , 2) LARGE_TILES(ENTRY, precision)}
  static void (*const product[][2][TILE_ROWS][2])(const gate_product *) = {
      {ROWS(FA_FULL, split), ROWS(FA_FULL, in_order)},
#if FA_F32
      {ROWS(FA_BFLOAT16, split), ROWS(FA_BFLOAT16, in_order)},
      {ROWS(FA_INT8, split), ROWS(FA_INT8, in_order)},
#endif
  };
#undef ENTRY
#undef ROWS
  product[precision][order][rows - 1][cell->kind == FA_GRU](p);
}

/* out = dZ panel (or out += with `accumulate`) for rows x (vecs * VL) columns, of which `columns` are there. dZ rows lie
 * in slabs. The depth 4 Hp is cut in runs of BACK_GROUPS groups, so that a run of the panel stays in L2 for all tiles. */
#define BACK_GROUPS FA_MAX(1, 512 / TILE_COLS)
typedef struct {
  const real *slabs; /* row 0 of group 0, first column */
  fa_size slab_row, slab_group, groups;
  fa_size depth; /* columns of dZ times VL: all four, or a GRU's three */
  const real *panel;
  fa_size panel_rows; /* of all runs */
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

FA_INLINE void add_columns(real *p, vec v, fa_size columns) {
  if (FA_LIKELY(columns >= VL))
    v_store(p, v_add(v_load(p), v));
  else
    v_store_n(p, v_add(v_load_n(p, columns), v), columns);
}

/* One sweep over the groups of the run; every argument but p is a literal. The rows of the next group, which stand far from
 * these, are asked for ahead (AVX2 on Zen 3: 2 % of a training step at (50, 32, 128, 128)); the next run of the panel too
 * made no difference. */
FA_INLINE void back_sweep(const back_product *p, const int rows, const int vecs, const int begin, const int end) {
  vec acc[TILE_ROWS][TILE_VECS];
  if (p->accumulate)
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = begin; v < end; v++)
      acc[m][v] = load_columns(p->out + m * p->out_row + v * VL, p->columns - v * VL);
  else
    tile_zero(acc, rows, begin, end);
  tile_matrix panel = tile_panel(p->panel, p->panel_rows, vecs);
  for (fa_size g = 0; g < p->groups; g++, panel.at += TILE_COLS * panel.row) {
    const real *slabs = p->slabs + g * p->slab_group;
    if (GATE_FETCHES && begin == 0)
      FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < TILE_VECS; v += FA_MAX_VL / VL)
        FA_PREFETCH(slabs + p->slab_group + m * p->slab_row + v * VL);
    tile_sweep(acc, rows, begin, end, slabs, p->slab_row, 1, panel, FA_FULL, p->depth, 0, VL, 0, slabs, 0);
  }
  FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = begin; v < end; v++)
    store_columns(p->out + m * p->out_row + v * VL, acc[m][v], p->columns - v * VL);
}
FA_INLINE void back_product_body(const back_product *p, const int rows, const int vecs) {
#define SWEEP(begin, end) back_sweep(p, rows, vecs, begin, end)
  TILE_EACH_SWEEP(rows, vecs, SWEEP);
#undef SWEEP
}
#define BACK_PRODUCT(rows, vecs)                                                                                    \
  FA_NOINLINE void back_product_##rows##_##vecs(const back_product *p) { back_product_body(p, rows, vecs); }
#define BACK_PRODUCT_SPLIT(rows, vecs)                                                                              \
  FA_NOINLINE void back_product_##rows##_##vecs(const back_product *p) {                                            \
    vec part[MAX_SPLIT][MAX_SPLIT_ROWS][TILE_VECS];                                                                 \
    split_zero(part, SPLIT(rows), rows, 0, vecs);                                                                   \
    tile_matrix panel = tile_panel(p->panel, p->panel_rows, vecs);                                                  \
    for (fa_size g = 0; g < p->groups; g++, panel.at += TILE_COLS * panel.row)                                      \
      split_accumulate(part, SPLIT(rows), rows, 0, vecs, p->slabs + g * p->slab_group, p->slab_row, panel, FA_FULL, \
                       p->depth);                                                                                   \
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
BACK_PRODUCTS(BACK_PRODUCT, 4)
BACK_PRODUCTS(BACK_PRODUCT, 5)
BACK_PRODUCTS(BACK_PRODUCT, 6)

FA_INLINE void back_product_rows(fa_size rows, fa_size vecs, const back_product *p) {
#define ROW(rows) {back_product_##rows##_1, back_product_##rows##_2, back_product_##rows##_4}
  static void (*const product[TILE_ROWS][3])(const back_product *) = {ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6)};
#undef ROW
  product[rows - 1][vecs / 2](p);
}

/* Leave the column out that a GRU's product does not have: the first one for h, the last one for x. */
FA_INLINE void set_depth(back_product *p, const fa_cell *cell, int of_h, fa_size vecs) {
  p->depth = TILE_COLS;
  if (cell->kind != FA_GRU) return;
  p->depth = TILE_COLS - VL;
  if (of_h) p->slabs += VL, p->panel += VL * PART_COLS(vecs);
}

/* Run r of the depth: its groups, and whether it adds to the run before. One tile needs the panel only once: one run. */
FA_INLINE fa_size run_count(fa_size tiles, fa_size groups) { return tiles == 1 ? 1 : FA_CEIL_DIV(groups, BACK_GROUPS); }
FA_INLINE void set_run(back_product *p, fa_size r, fa_size runs, fa_size groups, fa_size vecs) {
  fa_size begin = r * BACK_GROUPS;
  p->slabs += begin * p->slab_group;
  p->panel += begin * TILE_COLS * PART_COLS(vecs);
  p->panel_rows = groups * TILE_COLS;
  p->groups = runs == 1 ? groups : FA_MIN(groups - begin, BACK_GROUPS);
  p->accumulate = r > 0;
}

/* Vectors in the column block that begins at vector v of n: 4 as long as there are 4, then 2, then 1. */
FA_INLINE fa_size block_vecs(fa_size v, fa_size n) { return n - v >= 4 ? 4 : n - v >= 2 ? 2 : 1; }
/* Those of its first part: packed one by one, parts of a block stand as they should. */
FA_INLINE fa_size part_vecs(fa_size v, fa_size n) { return FA_MIN(block_vecs(v, n), PART_VECS); }

FA_INLINE fa_size block_count(fa_size n) { return n / 4 + n % 4 / 2 + n % 2; }
FA_INLINE fa_size block_begin(fa_size n, fa_size i) { return i <= n / 4 ? 4 * i : n / 4 * 4 + 2; }

/* n rows in equal tiles (8 = 4 + 4: a tile of 2 rows runs at half speed): where tile i begins. */
FA_INLINE fa_size tile_count(fa_size n) { return FA_CEIL_DIV(n, TILE_ROWS); }
FA_INLINE fa_size tile_begin(fa_size n, fa_size i) { return n ? n * i / tile_count(n) : 0; }
/* Tiles of a product with forward weights. */
FA_INLINE fa_size gate_tiles(const fa_cell *cell, fa_precision precision, fa_size n) {
  const int vecs = cell->kind == FA_GRU ? 3 : 4;
  return FA_CEIL_DIV(n, GATE_ONE_SWEEP(precision, vecs) ? GATE_ROWS : TILE_ROWS);
}

/* ---- packing -------------------------------------------------------------------------------------------------- */

/* The matrices whose columns stand one behind the other in a panel: h has one, with full_gates two. */
typedef struct {
  const int *row;
  const real *weight;
  fa_size K;
} panel_part;

/* Panels of groups group_begin .. group_end - 1 of a matrix of K columns, by VL x VL transpositions; zero where a column
 * has no rows. In a panel of `depth` columns. */
static void pack_forward(const fa_cell *cell, const int row[4], const real *weight, fa_size H, fa_size K, real *out,
                         fa_size depth, fa_size group_begin, fa_size group_end) {
  for (fa_size g = group_begin; g < group_end; g++) {
    for (fa_size k = 0; k < K; k += VL)
      for (fa_size gate = 0; gate < 4; gate++) {
        const fa_size units = column_size(cell, row, H, g, gate);
        const real *from = weight + (units ? column_row(cell, row, H, g, gate) : 0) * K + k;
        real *to = out + g * depth * TILE_COLS + (gate / PART_VECS * depth + k) * PART_COLS(4) + gate % PART_VECS * VL;
        vec rows[VL];
        if (FA_LIKELY(units == VL && K - k >= VL)) {
          FA_UNROLL for (int u = 0; u < VL; u++) rows[u] = v_load(from + u * K);
          v_transpose(rows);
          FA_UNROLL for (int j = 0; j < VL; j++) v_store(to + j * PART_COLS(4), rows[j]);
        } else
          for (fa_size j = 0; j < VL && j < K - k; j++) v_store(to + j * PART_COLS(4), v_load_strided(from + j, K, units));
      }
  }
}

#if FA_F32
/* The largest of so far and |weight|; NaN, and so for good, if one of them is not finite. */
static real largest_weight(real largest, const real *weight, fa_size K) {
  for (fa_size k = 0; k < K; k++) {
    const real size = fabsf(weight[k]);
    largest = size < INFINITY ? FA_MAX(size, largest) : NAN;
  }
  return largest;
}
/* A row that is all zero, or not finite, has no steps of int8. */
FA_INLINE uint32_t rounded_bits(fa_precision precision, real weight, real scale) {
  if (precision == FA_BFLOAT16) return fa_float_to_bfloat16(weight);
  const real steps = scale > 0 ? rintf(weight / scale) : 0;
  return (uint8_t)(int)FA_MAX(-127, FA_MIN(127, steps));
}

/* A group's panel of words; where a column has no rows the weights are zero. */
static void pack_words(const fa_cell *cell, fa_precision precision, const panel_part *parts, int n_parts, fa_size H,
                       fa_size rows, real *out, fa_size g) {
  const int word = fa_word_rows(precision), scaled = precision == FA_INT8;
  memset(out, 0, rows * TILE_COLS * sizeof(real));
  for (fa_size column = 0; column < TILE_COLS; column++) {
    const fa_size gate = column / VL, lane = column % VL, part = gate / PART_VECS, at = column % PART_COLS(4);
    real *words = out + scaled * TILE_COLS + part * (rows - scaled) * PART_COLS(4) + at;
    const real *weight[2] = {NULL, NULL};
    real largest = 0;
    for (int n = 0; n < n_parts; n++) {
      const panel_part *p = &parts[n];
      if (lane >= column_size(cell, p->row, H, g, gate)) continue;
      weight[n] = p->weight + (column_row(cell, p->row, H, g, gate) + lane) * p->K;
      if (scaled) largest = largest_weight(largest, weight[n], p->K);
    }
    const real scale = largest / 127;
    if (scaled) out[column] = scale * 256;
    for (fa_size n = 0, first = 0; n < n_parts; first += parts[n++].K)
      for (fa_size k = 0; weight[n] && k < parts[n].K; k++) {
        const fa_size shift = (first + k) % word * (32 / word);
        real *to = words + (first + k) / word * PART_COLS(4);
        uint32_t bits;
        memcpy(&bits, to, sizeof bits);
        bits |= rounded_bits(precision, weight[n][k], scale) << shift;
        memcpy(to, &bits, sizeof bits);
      }
  }
}
#endif

/* The panels of a matrix, or of two. */
static void pack_panels(const fa_cell *cell, fa_precision precision, const panel_part *parts, int n_parts, fa_size H,
                        real *out, fa_size group_begin, fa_size group_end) {
  const fa_size depth = parts[0].K + (n_parts == 2 ? parts[1].K : 0);
#if FA_F32
  if (precision != FA_FULL) {
    const fa_size rows = fa_panel_rows(precision, depth);
    for (fa_size g = group_begin; g < group_end; g++)
      pack_words(cell, precision, parts, n_parts, H, rows, out + g * rows * TILE_COLS, g);
    return;
  }
#else
  (void)precision; /* of float64 weights, always full */
#endif
  for (int n = 0; n < n_parts; out += parts[n++].K * PART_COLS(4))
    pack_forward(cell, parts[n].row, parts[n].weight, H, parts[n].K, out, depth, group_begin, group_end);
}

/* The same matrix with its rows in slab order, in blocks of columns; its rows are weight_row apart. */
static void pack_backward(const fa_cell *cell, const int row[4], const real *weight, fa_size weight_row, fa_size H,
                          fa_size K, real *out, fa_size group_begin, fa_size group_end) {
  fa_size groups = cell_groups(cell, H), n = FA_CEIL_DIV(K, VL);
  for (fa_size v = 0, vecs; v < n; v += vecs) {
    vecs = part_vecs(v, n);
    real *to = out + (v * groups + group_begin * vecs) * 4 * VL * VL;
    for (fa_size g = group_begin; g < group_end; g++)
      for (fa_size gate = 0; gate < 4; gate++) {
        const fa_size units = column_size(cell, row, H, g, gate);
        const real *from = weight + (units ? column_row(cell, row, H, g, gate) : 0) * weight_row + v * VL;
        for (fa_size u = 0; u < VL; u++) {
          const fa_size columns = u < units ? K - v * VL : 0;
          for (fa_size j = 0; j < vecs; j++, to += VL)
            v_store(to, columns - j * VL >= VL ? v_load(from + j * VL) : v_load_n(from + j * VL, columns - j * VL));
          if (u + 1 < units) from += weight_row;
        }
      }
  }
}

/* A vector of G H elements in the order of a slab's row; zero where a column has no rows. */
static void pack_gains(const fa_cell *cell, const int row[4], const real *gain, fa_size H, real *out,
                       fa_size group_begin, fa_size group_end) {
  for (fa_size g = group_begin; g < group_end; g++)
    for (fa_size k = 0; k < 4; k++) {
      const fa_size units = column_size(cell, row, H, g, k);
      v_store(out + g * TILE_COLS + k * VL, v_load_n(gain + (units ? column_row(cell, row, H, g, k) : 0), units));
    }
}

static void cell_pack(const fa_recurrent_pack *p, fa_size group_begin, fa_size group_end) {
  const fa_cell *cell = p->cell;
  const fa_size H = p->H, Hp = cell_units(cell, H);
  const fa_size P = p->P;
  const panel_part ih = {cell->row_ih, p->weight_ih, p->inputs};
  const panel_part hh[2] = {{cell->row_hh, p->weight_hh, P}, {cell_gate_rows, p->weight_gates, 3 * H}};
  pack_panels(cell, p->precision, &ih, 1, H, p->ih, group_begin, group_end);
  pack_panels(cell, p->precision, hh, p->weight_gates ? 2 : 1, H, p->hh, group_begin, group_end);
  const real *bias_ih = p->bias_ih, *bias_hh = p->bias_hh;
  real *bias = (real *)p->bias + group_begin * TILE_COLS;
  for (fa_size g = group_begin; g < group_end; g++) {
    for (fa_size gate = 0; gate < 4; gate++, bias += VL) {
      const fa_size ih = column_size(cell, cell->row_ih, H, g, gate), hh = column_size(cell, cell->row_bias_hh, H, g, gate);
      vec sum = bias_ih && ih ? v_load_n(bias_ih + column_row(cell, cell->row_ih, H, g, gate), ih) : v_zero();
      if (bias_hh && hh) sum = v_add(sum, v_load_n(bias_hh + column_row(cell, cell->row_bias_hh, H, g, gate), hh));
      v_store(bias, sum);
    }
    if (p->peephole)
      for (int k = 0, row = 0; k < 3; k++) {
        const int there = cell->row_hh[cell_peephole_gate[k]] >= 0;
        const real *from = (const real *)p->weight_peephole + row * H + g * VL;
        v_store((real *)p->peephole + k * Hp + g * VL, there ? v_load_n(from, H - g * VL) : v_zero());
        row += there;
      }
  }
  if (cell->layer_norm) {
    pack_gains(cell, cell->row_ih, p->norm_ih, H, p->gain_ih, group_begin, group_end);
    pack_gains(cell, cell->row_hh, p->norm_hh, H, p->gain_hh, group_begin, group_end);
  }
  if (p->norm_c)
    for (fa_size unit = group_begin * VL; unit < group_end * VL; unit += VL) {
      v_store((real *)p->gain_c + unit, v_load_n((const real *)p->norm_c + unit, H - unit));
      v_store((real *)p->shift_c + unit, v_load_n((const real *)p->norm_c_shift + unit, H - unit));
    }
  if (p->hh_back) pack_backward(cell, cell->row_hh, p->weight_hh, P, H, P, p->hh_back, group_begin, group_end);
  if (p->ih_back)
    pack_backward(cell, cell->row_ih, p->weight_ih, p->inputs, H, p->inputs, p->ih_back, group_begin, group_end);
  if (p->hh_back && p->weight_gates)
    for (int k = 0; k < 3; k++)
      pack_backward(cell, cell_gate_rows, (const real *)p->weight_gates + k * H, 3 * H, H, H,
                    (real *)p->hh_back + gates_back(cell, H, P, k), group_begin, group_end);
  if (p->weight_second && group_begin == 0) { /* one thread: the projection is the smaller matrix */
    const fa_size second_groups = cell_groups(&second_cell, P);
    const panel_part second = {second_cell.row_hh, p->weight_second, H};
    pack_panels(&second_cell, p->precision, &second, 1, P, p->second, 0, second_groups);
    if (p->second_back)
      pack_backward(&second_cell, second_cell.row_hh, p->weight_second, H, P, H, p->second_back, 0, second_groups);
  }
}
