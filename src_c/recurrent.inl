/* Steps of a recurrent layer and the products over many of them: see recurrent.h for layouts.
 *
 * Tried, and no gain (Zen 5, AVX-512, float32, one thread): the products of 2 or 4 groups before their cells at batch
 * 1 (within noise at H = 32, 128 and 256: out-of-order execution overlaps them already); the input product inside the
 * step where all weights fit L1 (H = 32: 15.7 and 16.0 us for 100 steps); fetching ahead the slabs of the next group
 * in the backward products, of the gates of the next group or of the tile's own for the backward cell (-2 to +2 % of
 * a training step, 3 % between equal runs); 128, 192 or 384 rows in a chunk of the weight gradients (equal);
 * asking in L2 for the panel or block after this one from within the tiles of all products, as product.inl does (1-8 %
 * slower with large batches, 12-33 % at 8: the hardware does it better); the same in L1 at batch 1 (0-10 % slower: the
 * weights come at 160 GB/s there, and a loop that only loads them reaches 145 at 256 KB and 150 at 1 MB). The
 * products run at 97 % of the pipes at (100, 32, 64, 256); the rest is the pointwise part, 4 % of a training step
 * forward and 4 % backward.
 *
 * The same with AVX2 on Zen 3: the input product before the loop from batches of 8 on, 32, 64 or 128 rows of it at a time,
 * two threads by rows or by units: (100, 8, 128, 128) 2.38 ms in the median, 2.37 to 2.76 with it, (50, 32, 128, 128) 4.2 and
 * 4.4 to 5.5, (100, 32, 128, 512) 72 and 75 to 89; rows instead of units (level to 15 % slower). */

/* ---- forward -------------------------------------------------------------------------------------------------- */

static const FA_ALIGN(64) real no_bias[TILE_COLS];

/* Tile i of `tiles` of a product in group g: rows first .. first + rows - 1. The panel of group `after` is wanted next,
 * ahead_row elements a k of it by each tile. */
typedef struct {
  fa_size g, after, i, ahead_row, first, rows;
} step_tile;
FA_INLINE step_tile step_tile_at(fa_size row_begin, fa_size n, fa_size i, fa_size tiles, fa_size g, fa_size after,
                                 fa_size ahead_row) {
  const fa_size first = row_begin + n * i / tiles;
  return (step_tile){g, after, i, ahead_row, first, row_begin + n * (i + 1) / tiles - first};
}
/* Its part of the next panel, of so many rows of words. */
FA_INLINE const real *step_ahead(const step_tile *tile, const void *panels, fa_size rows) {
  return GATE_FETCHES ? (const real *)panels + rows * (tile->after * TILE_COLS + tile->i * tile->ahead_row) : NULL;
}

/* Tiles run over time; over the rows of a single step, and over all rows at once where those stand one behind the other. */
static void input_product(const fa_recurrent_forward *s, const fa_recurrent_share *share, fa_size t_begin,
                          fa_size t_end) {
  const int ragged = s->starts != NULL, over_batch = ragged || t_end - t_begin == 1;
  const fa_size n = ragged ? s->starts[t_end] - s->starts[t_begin]
                    : over_batch ? share->row_end - share->row_begin : t_end - t_begin;
  const fa_size b_begin = ragged ? 0 : share->row_begin, b_end = over_batch ? b_begin + 1 : share->row_end;
  const fa_size a_row = over_batch ? s->x_b : s->x_t, z_row = (over_batch ? 1 : s->B) * TILE_COLS;
  const real *x = (const real *)s->x + step_offset(s->starts, t_begin, s->x_t, s->x_b);
  const fa_size rows = fa_panel_rows(s->precision, s->inputs), tiles = gate_tiles(s->cell, s->precision, n);
  const fa_size ahead_row = gate_ahead(s->precision, s->inputs, share->group_end - share->group_begin, tiles);
  real *out = s->cell->layer_norm ? s->norm.ih : s->slabs;
  for (fa_size g = share->group_begin; g < share->group_end; g++) {
    const fa_size after = FA_MIN(g + 1, share->group_end - 1);
    real *z = out + (g * s->slab_rows + slab_row(s, t_begin)) * TILE_COLS;
    for (fa_size b = b_begin; b < b_end; b++)
      for (fa_size i = 0; i < tiles; i++) {
        const step_tile tile = step_tile_at(0, n, i, tiles, g, after, b == b_begin ? ahead_row : 0);
        const gate_product product = {
            .init = s->cell->layer_norm ? no_bias : (const real *)s->bias + g * TILE_COLS,
            .a = x + tile.first * a_row + b * s->x_b,
            .a_row = a_row,
            .a_size = s->inputs,
            .panel_a = (const real *)s->ih + g * rows * TILE_COLS,
            .panel_b = s->hh,
            .out = z + tile.first * z_row + b * TILE_COLS,
            .out_row = z_row,
            .out_vec = VL,
            .ahead_a = step_ahead(&tile, s->ih, rows),
            .ahead_row = tile.ahead_row,
        };
        gate_product_rows(s->cell, s->precision, tile.rows, &product, 1);
      }
  }
  if (s->cell->layer_norm) norm_input(s, share, t_begin, t_end);
}

/* The products of one tile in step t. */
FA_INLINE void step_product(const fa_recurrent_forward *s, fa_size t, const step_tile *tile, real *out, fa_size out_row,
                            fa_size out_vec) {
  const fa_size g = tile->g, first = tile->first;
  const fa_size ih_rows = fa_panel_rows(s->precision, s->inputs), hh_rows = fa_panel_rows(s->precision, s->R);
  const fa_size Rp = operand_width(s->cell, s->R);
  gate_product product = {
      .init = (const real *)s->bias + g * TILE_COLS,
      .a = (const real *)s->x + step_offset(s->starts, t, s->x_t, s->x_b) + first * s->x_b,
      .a_row = s->x_b,
      .a_size = s->inputs,
      .panel_a = (const real *)s->ih + g * ih_rows * TILE_COLS,
      .b = (const real *)(s->operand ? s->operand : s->h) + (state_row(s->starts, s->B, t, s->h_ring) + first) * Rp,
      .b_row = Rp,
      .b_size = s->R,
      .panel_b = (const real *)s->hh + g * hh_rows * TILE_COLS,
      .out = out,
      .out_row = out_row,
      .out_vec = out_vec,
      .ahead_a = step_ahead(tile, s->ih, ih_rows),
      .ahead_b = step_ahead(tile, s->hh, hh_rows),
      .ahead_row = tile->ahead_row,
  };
  if (s->cell->layer_norm) {
    product.init = no_bias;
    product.a_size = 0;
  } else if (s->hoisted) {
    product.init = (const real *)s->slabs + (g * s->slab_rows + slab_row(s, t) + first) * TILE_COLS;
    product.init_row = TILE_COLS;
    product.a_size = 0;
  }
  gate_product_rows(s->cell, s->precision, tile->rows, &product, 0);
}

/* The same of the second product: four vectors of units of h, or of a GRU's candidate. */
FA_INLINE void second_product(const fa_recurrent_forward *s, fa_size t, const step_tile *tile, real *out, fa_size out_row,
                              fa_size out_vec) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL), panel = fa_panel_rows(s->precision, s->H);
  const gate_product product = {
      .init = no_bias,
      .b = (const real *)s->mid + (mid_row(s, t) + tile->first) * Hp,
      .b_row = Hp,
      .b_size = s->H,
      .panel_b = (const real *)s->second + tile->g * panel * TILE_COLS,
      .out = out,
      .out_row = out_row,
      .out_vec = out_vec,
      .ahead_b = step_ahead(tile, s->second, panel),
      .ahead_row = tile->ahead_row,
  };
  gate_product_rows(&second_cell, s->precision, tile->rows, &product, 0);
}

/* There and back again: what the last step read last is still in the cache. */
FA_INLINE fa_size group_at(fa_size t, fa_size begin, fa_size end, fa_size k) { return t & 1 ? begin + end - 1 - k : k; }

/* `plain`, `keep` and `second` are literals. */
FA_INLINE void forward_step_body(const fa_recurrent_forward *s, const fa_recurrent_share *share, fa_size t,
                                 const int plain, const int keep, const int second) {
  const fa_size row_end = FA_MIN(share->row_end, step_rows(s->starts, s->B, t));
  const fa_size n = row_end - share->row_begin;
  const fa_size tiles = gate_tiles(second ? &second_cell : s->cell, s->precision, n);
  const fa_size begin = second ? 0 : share->group_begin, end = second ? cell_groups(&second_cell, s->P) : share->group_end;
  const fa_size ahead_row = gate_ahead(s->precision, second ? s->H : s->inputs + s->R, end - begin, tiles);
  FA_ALIGN(64) real z[LSTM_ROWS * TILE_COLS];
  fa_size waiting = 0; /* rows in z */
  cell_slots q;
  if (!plain) q.count = 0;
  for (fa_size k = begin; k < end; k++) {
    const fa_size g = group_at(t, begin, end, k), after = group_at(t, begin, end, FA_MIN(k + 1, end - 1));
    for (fa_size i = 0; i < tiles; i++) {
      const step_tile tile = step_tile_at(share->row_begin, n, i, tiles, g, after, ahead_row);
      if (plain) {
        step_product(s, t, &tile, z + waiting * TILE_COLS, TILE_COLS, VL);
        waiting += tile.rows;
        if (i + 1 < tiles && waiting + TILE_ROWS <= LSTM_ROWS) continue;
        lstm_cell(s, t, g, tile.first + tile.rows - waiting, waiting, z, keep);
        waiting = 0;
        continue;
      }
      if (second)
        second_product(s, t, &tile, q.z[0] + q.count * VL, VL, CELL_SLOTS * VL);
      else
        step_product(s, t, &tile, q.z[0] + q.count * VL, VL, CELL_SLOTS * VL);
      for (fa_size m = 0; m < tile.rows; m++, q.count++) q.at[q.count].g = g, q.at[q.count].row = tile.first + m;
      if (q.count + TILE_ROWS <= CELL_SLOTS) continue;
      if (second)
        second_slots(s, t, &q);
      else
        cells_forward(s, t, &q);
      q.count = 0;
    }
  }
  if (plain || !q.count) return;
  if (second)
    second_slots(s, t, &q);
  else
    cells_forward(s, t, &q);
}

/* The recurrent product of all groups first, as its statistics are of whole rows. */
static void norm_step(const fa_recurrent_forward *s, const fa_recurrent_share *share, fa_size t) {
  const fa_size row_end = FA_MIN(share->row_end, step_rows(s->starts, s->B, t)), n = row_end - share->row_begin;
  const fa_size groups = cell_groups(s->cell, s->H), tiles = gate_tiles(s->cell, s->precision, n);
  const fa_size ahead_row = gate_ahead(s->precision, s->R, groups, tiles);
  for (fa_size k = 0; k < groups; k++) {
    const fa_size g = group_at(t, 0, groups, k), after = group_at(t, 0, groups, FA_MIN(k + 1, groups - 1));
    real *out = (real *)s->norm.hh + (g * s->norm.hh_rows + mid_row(s, t)) * TILE_COLS;
    for (fa_size i = 0; i < tiles; i++) {
      const step_tile tile = step_tile_at(share->row_begin, n, i, tiles, g, after, ahead_row);
      step_product(s, t, &tile, out + tile.first * TILE_COLS, TILE_COLS, VL);
    }
  }
  norm_cells(s, t, share->row_begin, row_end);
}

static void forward_step(const fa_recurrent_forward *s, const fa_recurrent_share *share, fa_size t) {
  if (s->cell->layer_norm)
    norm_step(s, share, t);
  else if (!s->cell->plain)
    forward_step_body(s, share, t, 0, 0, 0);
  else if (s->keep_gates)
    forward_step_body(s, share, t, 1, 1, 0);
  else
    forward_step_body(s, share, t, 1, 0, 0);
  if (s->cell->second) forward_step_body(s, share, t, 0, 0, 1);
}

/* ---- backward ------------------------------------------------------------------------------------------------- */

#define BACK_TILES 16 /* tiles whose dh waits in the buffer on the stack (24 KB in float32) while the runs go by */

/* The gradient of the initial h from what stands in dh after step -1. */
FA_NOINLINE void first_dh(const fa_recurrent_backward *s, const fa_recurrent_share *share, fa_size g, fa_size vecs) {
  const fa_size Pp = h_width(s->cell, s->P);
  for (fa_size b = share->row_begin; b < share->row_end; b++)
    for (fa_size unit = g * VL; unit < (g + vecs) * VL; unit += VL) {
      real *dh = (real *)s->dh + b * Pp + unit;
      vec d = v_load(dh);
      if (s->masks.drop) d = v_mul(d, load_columns((const real *)s->masks.drop + b * s->P + unit, s->P - unit));
      if (s->past) d = v_add(d, v_load((const real *)s->past + b * Pp + unit));
      v_store(dh, d);
    }
}

/* Where dZ of the recurrent product stands. */
FA_INLINE const real *recurrent_slabs(const fa_recurrent_backward *s) {
  return s->cell->layer_norm ? s->norm.hh : s->slabs;
}

/* Tiles i_begin .. i_end - 1 of dZ of step t + 1 times a panel of W_hh: `vecs` vectors of units of out, whose first row is
 * that of the first tile. n rows of the share go on. */
FA_INLINE void recurrent_back(const fa_recurrent_backward *s, const fa_recurrent_share *share, fa_size t, fa_size n,
                              const real *panel, fa_size vecs, fa_size i_begin, fa_size i_end, real *out,
                              fa_size out_row) {
  const fa_size groups = cell_groups(s->cell, s->H), runs = run_count(tile_count(n), groups);
  const fa_size from = share->row_begin + tile_begin(n, i_begin);
  for (fa_size r = 0; r < runs; r++)
    for (fa_size i = i_begin; i < i_end; i++) {
      fa_size first = share->row_begin + tile_begin(n, i), rows = share->row_begin + tile_begin(n, i + 1) - first;
      back_product product = {
          .slabs = recurrent_slabs(s) + (step_row(s->starts, s->B, t + 1) + first) * TILE_COLS,
          .slab_row = TILE_COLS,
          .slab_group = s->slab_rows * TILE_COLS,
          .panel = panel,
          .out = out + (first - from) * out_row,
          .out_row = out_row,
          .columns = vecs * VL,
      };
      set_run(&product, r, runs, groups, vecs);
      set_depth(&product, s->cell, 1, vecs);
      back_product_rows(rows, vecs, &product);
    }
}

/* What the products of step t + 1 give to the gates of step t, with full_gates. */
FA_NOINLINE void gates_from_product(const fa_recurrent_backward *s, const fa_recurrent_share *share, fa_size t,
                                    fa_size n) {
  const fa_size groups = cell_groups(s->cell, s->H), Hp = cell_units(s->cell, s->H);
  for (int gate = 0; gate < 3; gate++)
    for (fa_size g = share->group_begin, vecs; g < share->group_end; g += vecs) {
      vecs = block_vecs(g, share->group_end);
      recurrent_back(s, share, t, n,
                     (const real *)s->hh_back + gates_back(s->cell, s->H, s->P, gate) + g * VL * groups * TILE_COLS, vecs,
                     0, tile_count(n), (real *)s->dgates + (gate * s->B + share->row_begin) * Hp + g * VL, Hp);
    }
}

/* dmid = dZ W of the second product in step t. */
FA_NOINLINE void second_back(const fa_recurrent_backward *s, fa_size t, fa_size row_begin, fa_size row_end) {
  const fa_size groups = cell_groups(&second_cell, s->P), vectors = FA_CEIL_DIV(s->H, VL), Hp = vectors * VL;
  const fa_size n = row_end - row_begin, tiles = tile_count(n), runs = run_count(tiles, groups);
  for (fa_size g = 0, vecs; g < vectors; g += vecs) {
    vecs = block_vecs(g, vectors);
    for (fa_size r = 0; r < runs; r++)
      for (fa_size i = 0; i < tiles; i++) {
        const fa_size first = row_begin + tile_begin(n, i);
        back_product product = {
            .slabs = (const real *)s->second_slabs + (step_row(s->starts, s->B, t) + first) * TILE_COLS,
            .slab_row = TILE_COLS,
            .slab_group = s->slab_rows * TILE_COLS,
            .panel = (const real *)s->second_back + g * VL * groups * TILE_COLS,
            .out = (real *)s->dmid + first * Hp + g * VL,
            .out_row = Hp,
            .columns = vecs * VL,
        };
        set_run(&product, r, runs, groups, vecs);
        set_depth(&product, &second_cell, 1, vecs);
        back_product_rows(row_begin + tile_begin(n, i + 1) - first, vecs, &product);
      }
  }
}

/* A cell for whole rows, from dmid. */
FA_INLINE void rows_backward(backward_cell cell, const fa_recurrent_backward *s, fa_size t, fa_size first,
                             fa_size row_end) {
  const fa_size groups = cell_groups(s->cell, s->H), Hp = cell_units(s->cell, s->H);
  pieces_backward(cell, s, t, 0, groups, first, row_end - first, (const real *)s->dmid + first * Hp, Hp, 0);
}

/* Asks for what forward left of these rows, long ago: a few lines in each group, too short for the hardware to guess (8 %
 * of a training step at (100, 32, 64, 256)). */
FA_INLINE void norm_fetch(const fa_recurrent_backward *s, fa_size t, fa_size first, fa_size end) {
  const fa_size row = step_row(s->starts, s->B, t) + first, n = (end - first) * TILE_COLS;
  for (fa_size g = 0, groups = cell_groups(s->cell, s->H); g < groups; g++)
    for (fa_size k = 0, at = (g * s->slab_rows + row) * TILE_COLS; k < n; k += FA_MAX_VL) {
      FA_PREFETCH_L2((const real *)s->slabs + at + k);
      FA_PREFETCH_L2((const real *)s->norm.ih + at + k);
      FA_PREFETCH_L2((const real *)s->norm.hh + at + k);
    }
}

/* An LSTM that normalises c: its output, c, its gates and the products, a few rows at a time. */
static void norm_cells_backward(const fa_recurrent_backward *s, fa_size t, fa_size row_begin, fa_size row_end) {
  const fa_size block = norm_block(cell_groups(s->cell, s->H));
  for (fa_size first = row_begin, end; first < row_end; first = end) {
    end = FA_MIN(first + block, row_end);
    if (end < row_end) norm_fetch(s, t, end, FA_MIN(end + block, row_end));
    rows_backward(lstm_norm_slots_backward, s, t, first, end);
    norm_c_backward(s, t, first, end);
    rows_backward(lstm_slots_backward, s, t, first, end);
    norm_products_backward(s, t, first, end);
  }
}

/* The rows of a share that go on after step t: their dh comes from dZ of step t + 1. That of the others, whose last step
 * this is, stands in s->dh; there it goes before the first step, too. With a second product dh is complete before its
 * units are mixed once more, so that a share has whole rows; the same with layer_norm. */
static void backward_step(const fa_recurrent_backward *s, const fa_recurrent_share *share, fa_size t) {
  const fa_cell *cell = s->cell;
  const fa_size groups = cell_groups(cell, s->H), Pp = h_width(cell, s->P);
  const fa_size row_end = t < 0 ? share->row_end : FA_MIN(share->row_end, step_rows(s->starts, s->B, t));
  const fa_size going_on = t < s->T - 1 ? FA_MIN(row_end, step_rows(s->starts, s->B, t + 1)) : share->row_begin;
  const fa_size n = going_on - share->row_begin, tiles = tile_count(n);
  const fa_size units_begin = share->group_begin, units_end = cell->second ? Pp / VL : share->group_end;
  FA_ALIGN(64) real buffer[BACK_TILES * TILE_ROWS * TILE_COLS];
  const fa_size blocks = block_count(units_end - units_begin);
  const int norm_c = cell->layer_norm && cell->kind == FA_LSTM;
  const backward_cell collect = cell->second ? second_slots_backward : norm_c ? dh_slots_backward : NULL;
  if (s->dgates) gates_from_product(s, share, t, n);
  for (fa_size k = 0; k < blocks; k++) {
    /* There and back again, as forward: 3-5 % of a training step at batch 1, where W_hh fills the L2. */
    const fa_size block = t & 1 ? blocks - 1 - k : k;
    const fa_size g = units_begin + block_begin(units_end - units_begin, block), vecs = block_vecs(g, units_end);
    for (fa_size i_begin = 0; i_begin < tiles; i_begin += BACK_TILES) {
      const fa_size i_end = FA_MIN(tiles, i_begin + BACK_TILES), from = share->row_begin + tile_begin(n, i_begin);
      const fa_size rows = share->row_begin + tile_begin(n, i_end) - from;
      real *dh = t < 0 ? (real *)s->dh + from * Pp + g * VL : buffer;
      const fa_size dh_row = t < 0 ? Pp : vecs * VL;
      recurrent_back(s, share, t, n, (const real *)s->hh_back + g * VL * groups * TILE_COLS, vecs, i_begin, i_end, dh,
                     dh_row);
      if (t >= 0 && collect)
        pieces_backward(collect, s, t, g, vecs, from, rows, dh, dh_row, 1);
      else if (t >= 0)
        cells_backward(s, t, g, vecs, from, rows, dh, dh_row, 1);
    }
    if (t >= 0 && going_on < row_end) {
      const real *dh = (const real *)s->dh + going_on * Pp + g * VL;
      if (collect)
        pieces_backward(collect, s, t, g, vecs, going_on, row_end - going_on, dh, Pp, 0);
      else
        cells_backward(s, t, g, vecs, going_on, row_end - going_on, dh, Pp, 0);
    }
    if (t < 0 && (s->past || s->masks.drop)) first_dh(s, share, g, vecs);
  }
  if (t < 0) return;
  if (cell->second) second_back(s, t, share->row_begin, row_end);
  if (norm_c)
    norm_cells_backward(s, t, share->row_begin, row_end);
  else if (collect)
    rows_backward(cell->kind == FA_GRU ? gru_reset_slots_backward : lstm_slots_backward, s, t, share->row_begin,
                  row_end);
  else if (cell->layer_norm)
    norm_products_backward(s, t, share->row_begin, row_end);
}

/* dX = dZ W_ih. Tiles run over the batch, or over time where the batch is smaller than a tile; over all rows at once where
 * those stand one behind the other: a batch of 8 has no tiles of 4 rows then. */
static void input_gradient(const fa_recurrent_backward *s, fa_size t_begin, fa_size t_end, int part, int parts) {
  const fa_size groups = cell_groups(s->cell, s->H), n_vecs = FA_CEIL_DIV(s->inputs, VL), steps = t_end - t_begin;
  const int over_batch = s->starts != NULL || s->B >= TILE_ROWS;
  const int joined = s->starts != NULL || (over_batch && s->dx_t == s->B * s->dx_b);
  const fa_size row_begin = step_row(s->starts, s->B, t_begin);
  const fa_size inner = joined ? step_row(s->starts, s->B, t_end) - row_begin : over_batch ? s->B : steps;
  const fa_size outer = joined ? 1 : over_batch ? steps : s->B, tiles = tile_count(inner);
  const fa_size work_begin = outer * tiles * part / parts, work_end = outer * tiles * (part + 1) / parts;
  const fa_size runs = run_count(outer * tiles, groups);
  const real *slabs = s->cell->layer_norm ? s->norm.ih : s->slabs;
  real *dx = (real *)s->dx + step_offset(s->starts, t_begin, s->dx_t, s->dx_b);
  for (fa_size v = 0, vecs; v < n_vecs; v += vecs) {
    vecs = block_vecs(v, n_vecs);
    for (fa_size r = 0; r < runs; r++)
      for (fa_size work = work_begin; work < work_end; work++) {
        fa_size i = work % tiles, first = tile_begin(inner, i), rows = tile_begin(inner, i + 1) - first;
        fa_size t = over_batch ? work / tiles : first, b = over_batch ? first : work / tiles;
        back_product product = {
            .slabs = slabs + (row_begin + t * s->B + b) * TILE_COLS,
            .slab_row = (over_batch ? 1 : s->B) * TILE_COLS,
            .slab_group = s->slab_rows * TILE_COLS,
            .panel = (const real *)s->ih_back + v * VL * groups * TILE_COLS,
            .out = dx + t * s->dx_t + b * s->dx_b + v * VL,
            .out_row = over_batch ? s->dx_b : s->dx_t,
            .columns = s->inputs - v * VL,
        };
        set_run(&product, r, runs, groups, vecs);
        set_depth(&product, s->cell, 0, vecs);
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
        vecs = part_vecs(v, n_vecs);
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
  real *out;      /* row 0, first column of the block */
  fa_size row[4]; /* of the first unit of each column of the group */
  fa_size first, row_stride, columns;
} gradient_product;

FA_INLINE real *gradient_row(const gradient_product *p, fa_size m) {
  fa_size j = p->first + m;
  return p->out + (p->row[j / VL % 4] + j % VL) * p->row_stride; /* % 4: of the scalar set, tiles of 6 rows never come */
}

/* One sweep; every argument but p is a literal. */
FA_INLINE void gradient_sweep(const gradient_product *p, const int rows, const int vecs, const int begin, const int end) {
  vec acc[TILE_ROWS][TILE_VECS];
  FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = begin; v < end; v++)
    FA_PREFETCH_WRITE(gradient_row(p, m) + v * VL);
  tile_zero(acc, rows, begin, end);
  tile_sweep(acc, rows, begin, end, p->slab + p->first, 1, TILE_COLS, tile_panel(p->block, p->size, vecs), FA_FULL,
             p->size, 0, VL, 0, p->block, 0);
  FA_UNROLL for (int m = 0; m < rows; m++) {
    real *out = gradient_row(p, m);
    FA_UNROLL for (int v = begin; v < end; v++) add_columns(out + v * VL, acc[m][v], p->columns - v * VL);
  }
}
FA_INLINE void gradient_product_body(const gradient_product *p, const int rows, const int vecs) {
#define SWEEP(begin, end) gradient_sweep(p, rows, vecs, begin, end)
  TILE_EACH_SWEEP(rows, vecs, SWEEP);
#undef SWEEP
}
#define GRADIENT_PRODUCT(rows, vecs)                                                                                \
  FA_NOINLINE void gradient_product_##rows##_##vecs(const gradient_product *p) { gradient_product_body(p, rows, vecs); }

#define GRADIENT_PRODUCTS(rows) GRADIENT_PRODUCT(rows, 1) GRADIENT_PRODUCT(rows, 2) GRADIENT_PRODUCT(rows, 4)
GRADIENT_PRODUCTS(1)
GRADIENT_PRODUCTS(2)
GRADIENT_PRODUCTS(3)
GRADIENT_PRODUCTS(4)
GRADIENT_PRODUCTS(5)
GRADIENT_PRODUCTS(6)

FA_INLINE void gradient_product_rows(fa_size rows, fa_size vecs, const gradient_product *p) {
#define ROW(rows) {gradient_product_##rows##_1, gradient_product_##rows##_2, gradient_product_##rows##_4}
  static void (*const product[TILE_ROWS][3])(const gradient_product *) = {ROW(1), ROW(2), ROW(3),
                                                                          ROW(4), ROW(5), ROW(6)};
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
    const fa_cell *cell = s->cell;
    const fa_size a = s->bias_a ? column_size(cell, cell->row_ih, s->H, g, v) : 0;
    const fa_size b = s->bias_b ? column_size(cell, cell->row_bias_hh, s->H, g, v) : 0;
    if (a) add_columns((real *)s->bias_a + column_row(cell, cell->row_ih, s->H, g, v), sum[v], a);
    if (b) add_columns((real *)s->bias_b + column_row(cell, cell->row_bias_hh, s->H, g, v), sum[v], b);
  }
}

/* The gradient of the peepholes of a group: column sums of dZ times the state that the gate saw. */
static void peephole_gradient(const fa_recurrent_gradient *s, fa_size g, fa_size t_begin, fa_size t_end) {
  const fa_size Hp = FA_ROUND_UP(s->H, VL);
  vec sum[3] = {v_zero(), v_zero(), v_zero()};
  for (fa_size t = t_begin; t < t_end; t++) {
    const real *before = (const real *)s->c + state_row(s->starts, s->B, t, -1) * Hp + g * VL;
    const real *after = (const real *)s->c + state_row(s->starts, s->B, t + 1, -1) * Hp + g * VL;
    const real *slab = (const real *)s->gates + (g * s->slab_rows + step_row(s->starts, s->B, t)) * TILE_COLS;
    for (fa_size b = 0, n = step_rows(s->starts, s->B, t); b < n; b++, slab += TILE_COLS)
      FA_UNROLL for (int k = 0; k < 3; k++) {
        vec c = v_load((k == 2 ? after : before) + b * Hp);
        sum[k] = v_mac(v_load(slab + cell_peephole_gate[k] * VL), c, sum[k]);
      }
  }
  for (int k = 0, row = 0; k < 3; k++)
    if (s->cell->row_hh[cell_peephole_gate[k]] >= 0)
      add_columns((real *)s->peephole + row++ * s->H + g * VL, sum[k], s->H - g * VL);
}

static void weight_gradient(const fa_recurrent_gradient *s, fa_size t_begin, fa_size t_end, int part, int parts) {
  const fa_size row_begin = step_row(s->starts, s->B, t_begin), n = step_row(s->starts, s->B, t_end) - row_begin;
  const fa_size groups = cell_groups(s->cell, s->H), n_vecs = FA_CEIL_DIV(s->K, VL);
  /* Units of work are (group, vector of columns), a block belongs to the part that holds its first vector. */
  const fa_size begin = groups * n_vecs * part / parts, end = groups * n_vecs * (part + 1) / parts;
  for (fa_size g = begin / n_vecs; g * n_vecs < end; g++) {
    const real *slab = (const real *)s->slabs + (g * s->slab_rows + row_begin) * TILE_COLS;
    fa_size units[4];
    for (int v = 0; v < 4; v++) units[v] = column_size(s->cell, s->row, s->H, g, v);
    if (g * n_vecs >= begin && (s->bias_a || s->bias_b))
      bias_gradient(s, g, (const real *)s->gates + (g * s->slab_rows + row_begin) * TILE_COLS, n);
    if (g * n_vecs >= begin && s->peephole) peephole_gradient(s, g, t_begin, t_end);
    for (fa_size v = 0, vecs; v < n_vecs && g * n_vecs + v < end; v += vecs) {
      vecs = block_vecs(v, n_vecs);
      if (g * n_vecs + v < begin) continue;
      gradient_product product = {
          .slab = slab,
          .block = (const real *)s->packed + v * n * VL,
          .size = n,
          .out = (real *)s->gradient + v * VL,
          .row_stride = s->K,
          .columns = s->K - v * VL,
      };
      for (int column = 0; column < 4; column++)
        product.row[column] = column_row(s->cell, s->row, s->H, g, column);
      /* Columns without a gap between their units are one run of dZ: a whole group, a GRU's three. */
      for (int column = 0, next; column < 4; column = next) {
        fa_size run = units[column];
        for (next = column + 1; next < 4 && units[next - 1] == VL && units[next]; next++) run += units[next];
        for (fa_size i = 0, tiles = tile_count(run); i < tiles; i++) {
          product.first = column * VL + tile_begin(run, i);
          gradient_product_rows(column * VL + tile_begin(run, i + 1) - product.first, vecs, &product);
        }
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
      .norm_gradient = norm_gradient,                                                                               \
  }
