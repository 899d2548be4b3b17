/* The matrix product by four methods, chosen by estimated time from shape and layout.
 *
 * PANELS, vectors along n: register tiles of TILE_ROWS x TILE_COLS over k blocks. B lies in zero-padded panels of
 *   TILE_COLS columns (prepacked, or packed block by block here), or is read in place where its rows are contiguous
 *   and too few rows of A would share a packed copy. A is read in place with broadcasts; where its rows are not contiguous
 *   it is packed, in strips [k][rows of the tile], or in rows if B is read in place.
 * DOTS, vectors along k: few rows or columns, both operands contiguous along k; sums across lanes at the end.
 * ROW, one row of A by row-major B: the sums stay in L1 while B streams past, eight whole rows at a time; also for any
 *   number of rows if B has no more.
 * FEW, few rows of A by a row-major B from beyond L2: the same with four rows of B, which meet every row of A in registers.
 *
 * Each may compute C^T = B^T A^T by exchanging operands and strides. The bias is added and the activation applied while
 * a block of C is still in cache. Threads share out whole tiles and pack their own parts of B (or A): no barrier.
 *
 * Tried on Zen 5, one core, and left out (GF/s, float32 unless said):
 *   k blocks of 256 instead of 512, n = 1024: 201 against 209, float64 101 against 106; of 384: 204 and 104. Of 1024, with
 *     the panel after this one fetched ahead: 226 and 110 of a peak of 243 and 121; without that 218 and 106.
 *   Fetching the rows of an unpacked B ahead while packing, packing an A whose rows stand 8 KB apart: no difference.
 *   Packing row-major B below 64 rows: (24, 1000, 1000) 172 against 215 in place, (48, 512, 512) 194 against 205.
 *   Sweeping an unpacked B in strips of 32 or 64 rows of k instead of 128: (24, 1000, 1000) 204, 215 and 221;
 *     (6, 2048, 2048) 109, 75 to 85 and 116.
 *   One row by (2048, 2048): tiles of 64 columns 19, ROW 35 (NumPy 37); four or two rows at a time, and prefetching
 *     the next eight: -2 to -15 %; sums in blocks of 512 or 256 columns: -12 and -30 %.
 *   Packing a column-major A strip by strip, n = 1024: 191 and 96 against 207 and 102 with whole cache lines.
 *   Prefetching B's panel 8 or 24 rows of k ahead, n = 1024: 210 and 216 against 207, float64 104 and 102 against 102,
 *     with 3 % between equal runs: not clear enough for the four loads a step.
 *   Element by element stores of a transposed tile: (32, 512, 128), float64, exchanged: 39, through registers 102.
 *
 * Tried with AVX2 on Zen 3 (peak 103 and 51; equal runs differ by up to 10 % there):
 *   Panels of 2 vectors, tiles of 6 x 2, k blocks of 256, 384 and 512, n = 1024: 74 to 87 against 88 to 93; in blocks of
 *     1024 with A packed, too: 70 to 77.
 *   k blocks of 128, 256, 384, 512, 768 and 1024, n = 1000: 67, 77, 86, 88, 90, 90; n = 2048: 60, 77, 83, 83, 94, 93.
 *   (20, 2048, 2048) from packed panels, 2, 4, 8 or 16 together, in k blocks of 64 to 512, the next ones fetched while
 *     multiplying or not: 38 to 57; FEW 71, float64 24 and 35; (8, 2048, 2048) 36 and 63.
 *   FEW by 2, 6 and 8 rows of B: 51, 67 and 48 at (20, 2048, 2048); its sums in 8 or 64 KB: 69 at 8, (65, 2048, 2048) 78 at
 *     64 KB, 51 at 16, 71 from panels; fetching 0, 8 and 16 rows ahead: 63, 74 and 77. For 33 to 64 rows sums in 32 or 64 KB,
 *     or panels, (64, 2048, 2048): 66, 70 and 66 against 76; (64, 512, 2048), float64: 38, 37 and 35 against 38.
 *   Panels in parts of 2 vectors, as the recurrent ones (tile_matrix): n = 1024 0 to +2 %, 300 to 500 -2 to +1 %, by tiles of
 *     three rows and of six.
 *   The last, partial vector of a row stored in halves and quarters instead of by a mask: +2 to 5 % at (100, 10, 100). */

enum { PRODUCT_PANELS, PRODUCT_DOTS, PRODUCT_ROW, PRODUCT_FEW };

#define PRODUCT_K_BLOCK 1024
#define PRODUCT_DOT_BLOCK (8192 / (fa_size)sizeof(real))
#define PRODUCT_A_BYTES (FA_REGISTERS >= 32 ? 576 << 10 : 192 << 10) /* a block of A, which stays in L2 */
#define PRODUCT_M_BLOCK 144 /* most rows in it: their part of C waits in cache for the activation */
#define PRODUCT_N_PANELS 48              /* panels in a packed block of B */
/* Panels that are packed together, 512 bytes of each row of B, and the rows that are fetched ahead meanwhile. AVX2 on
 * Zen 3 reads a B of 16 MB that way at 20 GB/s: 5.4 by single panels, 128 bytes a row, 10 without fetching. */
#define PACK_PANELS (FA_REGISTERS >= 32 ? 1 : 4)
#define PACK_AHEAD (FA_REGISTERS >= 32 ? 0 : 8)
#define STRIP_AHEAD 8 /* columns of A that are fetched ahead while packing */
#define DOT_ROWS (FA_REGISTERS >= 32 ? 4 : 2)
#define DOT_COLS 4
#define ROW_DEPTH 8
#define PIECE_NS 100e3 /* pieces shorter than about a quarter of this do not pay */
#define ROW_COLS (16384 / (fa_size)sizeof(real)) /* sums that stay in L1 */
#define DOT_COLS_ONE_ROW 8
/* AVX2 on Zen 3, 12 rows of C at a time instead of 144: (2000, 8, 2000) 17 -> 44 GF/s, (2048, 32, 2048) 66 -> 73, float64
 * 24 -> 32, (2000, 2, 2000) 12 -> 18; of 6, 24, 48 rows 39, 30, 20 at the first. (500, 20, 2000) 78 -> 75. */
#define LONG_C_K (FA_REGISTERS >= 32 ? 0 : 128)
#define LONG_C_BYTES (8 << 20)
#define LONG_C_ROWS 12
#define FEW_DEPTH 4 /* rows of B in registers */
#define FEW_VECS 2  /* vectors of each */
#define FEW_COLS (FEW_VECS * VL)
#define FEW_ROWS 64                              /* most rows of A */
#define FEW_AHEAD 8                              /* rows of B that are fetched ahead */
#define FEW_K_BLOCK 2048                         /* columns of A that are packed together */
#define FEW_SUMS (16384 / (fa_size)sizeof(real)) /* in L1, with what is fetched */

/* A stretch of C that a tile computes: its sums come in acc or in sums, go out with what C held, bias, stride. */
typedef struct {
  fa_size K;
  const real *a;
  fa_size a_row, a_col;
  const real *b;
  fa_size b_row;
  real *c;
  fa_size c_row, c_col;
  const real *bias;
  fa_size bias_row, bias_col;
  fa_size last; /* columns in the last vector, 1 .. VL */
  int add;      /* to what C holds */
  const real *ahead; /* this tile's part of the panel after this one, ahead_row elements a k */
  fa_size ahead_row;
} product_tile;

/* Sums in rows to C: by vectors where it has a unit stride along n, transposed in registers if along m, else one by one. */
FA_NOINLINE void product_scatter(const product_tile *t, fa_size rows, fa_size cols, const real *sums, fa_size sums_row) {
  if (t->c_col == 1) {
    for (fa_size m = 0; m < rows; m++)
      for (fa_size n = 0; n < cols; n += VL) {
        const fa_size left = cols - n;
        real *c = t->c + m * t->c_row + n;
        vec x = v_load(sums + m * sums_row + n);
        if (t->add) x = v_add(left < VL ? v_load_n(c, left) : v_load(c), x);
        if (t->bias && !t->bias_col) x = v_add(x, v_set1(t->bias[m * t->bias_row]));
        else if (t->bias) x = v_add(x, left < VL ? v_load_n(t->bias + n, left) : v_load(t->bias + n));
        if (left < VL) v_store_n(c, x, left);
        else v_store(c, x);
      }
    return;
  }
  if (t->c_row == 1 && (!t->bias || (t->bias_col == 0 && t->bias_row == 1))) {
    for (fa_size m = 0; m < rows; m += VL)
      for (fa_size n = 0; n < cols; n += VL) {
        vec column[VL];
        FA_UNROLL for (int i = 0; i < VL; i++)
          column[i] = m + i < rows ? v_load(sums + (m + i) * sums_row + n) : v_zero();
        v_transpose(column);
        FA_UNROLL for (int i = 0; i < VL; i++)
          if (n + i < cols) {
            real *c = t->c + m + (n + i) * t->c_col;
            vec x = column[i];
            if (t->add) x = v_add(v_load_n(c, rows - m), x);
            if (t->bias) x = v_add(x, v_load_n(t->bias + m, rows - m));
            v_store_n(c, x, rows - m);
          }
      }
    return;
  }
  for (fa_size m = 0; m < rows; m++)
    for (fa_size n = 0; n < cols; n++) {
      real *c = t->c + m * t->c_row + n * t->c_col;
      real x = sums[m * sums_row + n];
      if (t->add) x = *c + x;
      if (t->bias) x += t->bias[m * t->bias_row + n * t->bias_col];
      *c = x;
    }
}

/* One sweep of a tile of `vecs` vectors. A has the strides a_row and a_col. */
FA_INLINE void product_sweep(const product_tile *t, const int rows, const int vecs, const int begin, const int end,
                             const int masked, const fa_size a_row, const fa_size a_col) {
  vec acc[TILE_ROWS][TILE_VECS];
  real *c = t->c;
  const fa_size c_row = t->c_row, last = end == vecs ? t->last : VL;
#define EACH_VECTOR FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = begin; v < end; v++)
#define LOAD(p) (v == vecs - 1 ? v_load_n(p, last) : v_load(p))
  if (t->c_col == 1) EACH_VECTOR FA_PREFETCH_WRITE(c + m * c_row + v * VL);
  const fa_size b_row = masked ? t->b_row : vecs * VL;
  tile_product(acc, rows, begin, end, t->a, a_row, a_col, tile_rows_of(t->b, b_row), t->K,
               masked && end == vecs, last, !masked, t->ahead, t->ahead_row);
  if (FA_UNLIKELY(t->c_col != 1 || (t->bias && !t->bias_col))) { /* C turned, or its bias */
    FA_ALIGN(64) real sums[TILE_ROWS * TILE_COLS];
    product_tile part = *t;
    part.c += begin * VL * t->c_col;
    if (part.bias) part.bias += begin * VL * t->bias_col;
    EACH_VECTOR v_store(sums + m * TILE_COLS + (v - begin) * VL, acc[m][v]);
    product_scatter(&part, rows, (end - begin - 1) * VL + last, sums, TILE_COLS);
    return;
  }
  if (t->add) EACH_VECTOR acc[m][v] = v_add(LOAD(c + m * c_row + v * VL), acc[m][v]);
  if (t->bias) EACH_VECTOR acc[m][v] = v_add(acc[m][v], LOAD(t->bias + v * VL));
  if (last == VL) EACH_VECTOR v_store(c + m * c_row + v * VL, acc[m][v]);
  else
    FA_UNROLL for (int m = 0; m < rows; m++) {
      FA_UNROLL for (int v = begin; v < end - 1; v++) v_store(c + m * c_row + v * VL, acc[m][v]);
      v_store_n(c + m * c_row + (end - 1) * VL, acc[m][end - 1], last);
    }
#undef EACH_VECTOR
#undef LOAD
}

/* How a tile reads its operands: rows of A or strips of it, and packed panels; or rows, and the rows of B in place. TILE_TERSE
 * rows have unit stride along k, and the columns of a strip stand one behind the other: strides that are literals. They leave
 * a k of 12 multiply-adds in 22 instructions instead of 26 to 29, which counts where another thread uses the core, too: AVX2
 * on Zen 3, n = 512, column-major A 63 -> 79 GF/s, row-major 73 -> 80, and 91 and 94 before and after where none does. In one
 * function with a branch GCC no longer keeps sums where they are. */
enum { PRODUCT_OF_ROWS, PRODUCT_INPLACE, PRODUCT_OF_STRIPS, PRODUCT_READS };
FA_INLINE void product_tile_body(const product_tile *t, const int rows, const int vecs, const int reads) {
  const int strip = reads == PRODUCT_OF_STRIPS;
  const fa_size a_row = TILE_TERSE && strip ? 1 : t->a_row, a_col = !TILE_TERSE ? t->a_col : strip ? rows : 1;
#define SWEEP(begin, end) product_sweep(t, rows, vecs, begin, end, reads == PRODUCT_INPLACE, a_row, a_col)
  TILE_EACH_SWEEP(rows, vecs, SWEEP);
#undef SWEEP
}

#define TILE_FUNCTION(rows, vecs, reads) \
  FA_NOINLINE void product_tile_##reads##_##rows##x##vecs(const product_tile *t) { product_tile_body(t, rows, vecs, reads); }
#define TILE_FUNCTIONS(rows, reads) \
  TILE_FUNCTION(rows, 1, reads) TILE_FUNCTION(rows, 2, reads) TILE_FUNCTION(rows, 3, reads) TILE_FUNCTION(rows, 4, reads)
#define TILES_FUNCTIONS(reads) \
  TILE_FUNCTIONS(1, reads) TILE_FUNCTIONS(2, reads) TILE_FUNCTIONS(3, reads) TILE_FUNCTIONS(4, reads) TILE_FUNCTIONS(5, reads) \
  TILE_FUNCTIONS(6, reads)
#define TILE_NAMES(rows, reads)                                                                             \
  {                                                                                                         \
    product_tile_##reads##_##rows##x1, product_tile_##reads##_##rows##x2, product_tile_##reads##_##rows##x3, \
        product_tile_##reads##_##rows##x4                                                                   \
  }
#define TILE_TABLE(reads) \
  {TILE_NAMES(1, reads), TILE_NAMES(2, reads), TILE_NAMES(3, reads), TILE_NAMES(4, reads), TILE_NAMES(5, reads), TILE_NAMES(6, reads)}
TILES_FUNCTIONS(0) TILES_FUNCTIONS(1)
#if TILE_TERSE
TILES_FUNCTIONS(2)
#endif
static void (*const product_tile_table[PRODUCT_READS][TILE_ROWS][TILE_VECS])(const product_tile *) = {
#if TILE_TERSE
    TILE_TABLE(0), TILE_TABLE(1), TILE_TABLE(2)
#else
    TILE_TABLE(0), TILE_TABLE(1), TILE_TABLE(0)
#endif
};

/* Blocks are of equal length but for rounding, so that no short one is left over. */
FA_INLINE fa_size product_even(fa_size total, fa_size block) {
  return total <= block ? total : FA_CEIL_DIV(total, FA_CEIL_DIV(total, block));
}
FA_INLINE fa_size share(fa_size total, fa_size pieces, fa_size piece) { return total * piece / pieces; }

/* ---- packing ---- */

/* `count` vectors that stand `stride` apart, contiguous along k, to rows of k: out[k * out_row + i], i < VL. */
FA_INLINE void pack_transposed(const real *in, fa_size stride, fa_size count, fa_size K, real *out, fa_size out_row) {
  for (fa_size k = 0; k < K; k += VL) {
    vec rows[VL];
    fa_size n = K - k;
    if (count >= VL && n >= VL)
      FA_UNROLL for (int i = 0; i < VL; i++) rows[i] = v_load(in + i * stride + k);
    else
      FA_UNROLL for (int i = 0; i < VL; i++) rows[i] = i < count ? v_load_n(in + i * stride + k, n) : v_zero();
    v_transpose(rows);
    if (n >= VL)
      FA_UNROLL for (int i = 0; i < VL; i++) v_store(out + (k + i) * out_row, rows[i]);
    else
      FA_UNROLL for (int i = 0; i < VL; i++) if (i < n) v_store(out + (k + i) * out_row, rows[i]);
  }
}

/* The panels of `cols` columns that stand side by side: each K rows of its width (a multiple of VL), zero beyond cols. */
static void product_pack_panels(fa_size K, fa_size cols, const real *b, fa_size b_row, fa_size b_col, real *out) {
  if (b_col == 1) {
    for (fa_size k = 0; k < K; k++, b += b_row) {
      real *to = out + k * TILE_COLS;
      fa_size n = 0;
      if (PACK_AHEAD && k + PACK_AHEAD < K)
        for (fa_size line = 0; line < cols; line += 64 / (fa_size)sizeof(real))
          FA_PREFETCH(b + PACK_AHEAD * b_row + line);
      for (; n + TILE_COLS <= cols; n += TILE_COLS, to += K * TILE_COLS)
        FA_UNROLL for (int v = 0; v < TILE_VECS; v++) v_store(to + v * VL, v_load(b + n + v * VL));
      for (to = out + K * n + k * FA_ROUND_UP(cols - n, VL); n < cols; n += VL, to += VL)
        v_store(to, v_load_n(b + n, cols - n));
    }
    return;
  }
  for (fa_size n = 0; n < cols; n += TILE_COLS, b += TILE_COLS * b_col, out += K * TILE_COLS) {
    const fa_size left = FA_MIN(TILE_COLS, cols - n), width = FA_ROUND_UP(left, VL);
    for (fa_size v = 0; v < width; v += VL)
      if (b_row == 1) pack_transposed(b + v * b_col, b_col, left - v, K, out + v, width);
      else
        for (fa_size k = 0; k < K; k++)
          v_store(out + k * width + v, v_load_strided(b + k * b_row + v * b_col, b_col, left - v));
  }
}

FA_INLINE fa_size panel_cols(fa_size N, fa_size panel) { return FA_MIN(TILE_COLS, N - panel * TILE_COLS); }

static fa_size product_packed_size(fa_size K, fa_size N) { return K * FA_ROUND_UP(N, VL); }
static void product_pack(fa_size K, fa_size N, const void *b, fa_size b_row, fa_size b_col, void *packed) {
  for (fa_size n = 0; n < N; n += PACK_PANELS * TILE_COLS)
    product_pack_panels(K, FA_MIN(PACK_PANELS * TILE_COLS, N - n), (const real *)b + n * b_col, b_row, b_col,
                        (real *)packed + K * n);
}

/* Tiles t0 .. t1 of rows of A, each as a strip [k][rows of the tile]. Where the columns of A are contiguous, all strips
 * are filled column by column, so that a cache line of A is read once: its strips apart would read each line 3.7 times,
 * from beyond L2 where columns stand multiples of 4 KB apart. Stores run up to VL - 1 elements past each k; the next one
 * mends it, and the last one falls into the gap that separates the strips. */
FA_INLINE fa_size strip_size(fa_size K) { return FA_ROUND_UP(K, VL) * TILE_ROWS + VL; }

static void pack_strips(fa_size K, fa_size M, fa_size units, fa_size t0, fa_size t1, const real *a, fa_size a_row,
                        fa_size a_col, real *out) {
  const fa_size gap = strip_size(K), strips = t1 - t0;
  if (a_row == 1) {
    fa_size first[PRODUCT_M_BLOCK / TILE_ROWS + 1];
    for (fa_size t = 0; t <= strips; t++) first[t] = share(M, units, t0 + t);
    for (fa_size k = 0; k < K; k++, a += a_col) {
      if (k + STRIP_AHEAD < K)
        for (fa_size m = first[0]; m < first[strips]; m += 64 / (fa_size)sizeof(real))
          FA_PREFETCH(a + STRIP_AHEAD * a_col + m);
      for (fa_size t = 0; t < strips; t++) {
        const fa_size rows = first[t + 1] - first[t];
        const real *from = a + first[t];
        real *to = out + t * gap + k * rows;
        for (fa_size m = 0; m < rows; m += VL) v_store(to + m, v_load_n(from + m, rows - m));
      }
    }
    return;
  }
  for (fa_size t = t0; t < t1; t++, out += gap) {
    const fa_size m0 = share(M, units, t), rows = share(M, units, t + 1) - m0;
    for (fa_size k = 0; k < K; k++)
      for (fa_size m = 0; m < rows; m++) out[k * rows + m] = a[(m0 + m) * a_row + k * a_col];
  }
}

/* The same rows of A as rows, each K elements and up to the next vector, which take no more room. */
static void pack_rows(fa_size K, fa_size rows, const real *a, fa_size a_row, fa_size a_col, real *out) {
  const fa_size pitch = FA_ROUND_UP(K, VL);
  if (a_row == 1) {
    for (fa_size k = 0; k < K; k += VL) pack_transposed(a + k * a_col, a_col, K - k, rows, out + k, pitch);
    return;
  }
  for (fa_size m = 0; m < rows; m++)
    for (fa_size k = 0; k < K; k++) out[m * pitch + k] = a[m * a_row + k * a_col];
}

/* ---- the activation, on a block of C that was just written ---- */

static void product_activate(const fa_product *p, fa_size m0, fa_size m1, fa_size n0, fa_size n1) {
  fa_size rows = m1 - m0, cols = n1 - n0, row = p->c_row, col = p->c_col;
  real *c = (real *)p->c + m0 * row + n0 * col;
  fa_map_args args = {0};
  for (int i = 0; i < p->parameters; i++) args.in[1 + i] = p->parameter[i];
  if (col != 1 && (row == 1 || cols < rows)) { /* along m */
    fa_size swap = rows;
    rows = cols, cols = swap;
    swap = row, row = col, col = swap;
  }
  if (row == cols * col) cols *= rows, rows = 1;
  args.n = cols;
  args.in_stride[0] = args.out_stride = col * (fa_size)sizeof(real);
  for (fa_size m = 0; m < rows; m++) {
    args.in[0] = args.out = c + m * row;
    p->activation(&args);
  }
}

/* ---- panels ---- */

/* Does C hardly fit a cache? */
FA_INLINE int product_long(const fa_product *p) { return p->M * p->N * (fa_size)sizeof(real) > LONG_C_BYTES; }

/* Tiles of rows in a block of A, of the `tiles` of a piece. Where such a C takes most of the time, few rows of it are
 * written from end to end. */
FA_INLINE fa_size product_m_tiles(const fa_product *p, fa_size tiles) {
  const fa_size rows = FA_CEIL_DIV(p->M, p->row_units);
  if (p->K <= LONG_C_K && product_long(p)) return FA_MIN(tiles, LONG_C_ROWS / rows);
  const fa_size tile_bytes = FA_MAX(1, p->k_block) * rows * (fa_size)sizeof(real);
  return product_even(tiles, FA_MAX(1, FA_MIN(PRODUCT_M_BLOCK / rows, PRODUCT_A_BYTES / tile_bytes)));
}

/* Where panel q of the columns q0 .. stands, rows k0 .. of it; packed here, or before by product_pack. */
FA_INLINE real *product_panel(const fa_product *p, real *packed_b, fa_size place, fa_size q, fa_size k0, fa_size k_len) {
  if (p->packed) return (real *)p->packed + p->K * q * TILE_COLS + k0 * FA_ROUND_UP(panel_cols(p->N, q), VL);
  return packed_b + place * TILE_COLS * k_len;
}

static void product_panels(const fa_product *p, fa_size t0, fa_size t1, fa_size q0, fa_size q1, real *workspace) {
  const fa_size M = p->M, N = p->N, K = p->K, k_block = p->k_block;
  const fa_size m_tiles = product_m_tiles(p, t1 - t0), n_panels = p->pack_b ? PRODUCT_N_PANELS : q1 - q0;
  const int inplace = !p->pack_b && !p->packed;
  const int reads = inplace ? PRODUCT_INPLACE : p->pack_a ? PRODUCT_OF_STRIPS : PRODUCT_OF_ROWS;
  const int once = p->pack_b && m_tiles == t1 - t0; /* one block of A: panels are packed into the places of the last */
  real *const packed_b = workspace;
  real *const packed_a = workspace + (p->pack_b ? k_block * TILE_COLS * FA_MIN(once ? PACK_PANELS : n_panels, q1 - q0) : 0);

  for (fa_size qb = q0; qb < q1; qb += n_panels) {
    const fa_size qe = FA_MIN(qb + n_panels, q1);
    fa_size k0 = 0;
    do { /* once even for K = 0 */
      const fa_size k_len = FA_MIN(k_block, K - k0);
      const int final = k0 + k_len >= K;
      for (fa_size tb = t0; tb < t1; tb += m_tiles) {
        const fa_size te = FA_MIN(tb + m_tiles, t1);
        const fa_size mb = share(M, p->row_units, tb), me = share(M, p->row_units, te);
        const real *const a = (const real *)p->a + k0 * p->a_col;
        if (p->pack_a && inplace)
          pack_rows(k_len, me - mb, a + mb * p->a_row, p->a_row, p->a_col, packed_a);
        else if (p->pack_a)
          pack_strips(k_len, M, p->row_units, tb, te, a, p->a_row, p->a_col, packed_a);
        for (fa_size q = qb; q < qe; q++) {
          const fa_size n0 = q * TILE_COLS, cols = panel_cols(N, q), vecs = FA_CEIL_DIV(cols, VL);
          const real *b = p->packed ? p->packed : (const real *)p->b + k0 * p->b_row + n0 * p->b_col, *next = b;
          product_tile tile = {
              .K = k_len,
              .a_row = p->a_row,
              .a_col = p->a_col,
              .b = b,
              .b_row = p->b_row,
              .c_row = p->c_row,
              .c_col = p->c_col,
              .bias = NULL,
              .bias_row = p->bias_row,
              .bias_col = p->bias_col,
              .last = cols - (vecs - 1) * VL,
              .add = p->accumulate || k0 > 0,
          };
          if (!inplace) {
            real *panel = product_panel(p, packed_b, once ? (q - qb) % PACK_PANELS : q - qb, q, k0, k_len);
            if (p->pack_b && tb == t0 && (q - qb) % PACK_PANELS == 0) /* right before their first use */
              product_pack_panels(k_len, FA_MIN(FA_MIN(PACK_PANELS, qe - q) * TILE_COLS, N - n0), b, p->b_row, p->b_col,
                                  panel);
            tile.b = next = panel;
            tile.b_row = vecs * VL;
            if (p->packed || tb > t0) { /* else the next one is packed only when its turn comes */
              const fa_size after = q + 1 < qe ? q + 1 : qb;
              next = product_panel(p, packed_b, after - qb, after, k0, k_len);
              tile.ahead_row = FA_CEIL_DIV(TILE_COLS, te - tb);
            }
          }
          for (fa_size t = tb; t < te; t++) {
            const fa_size m0 = share(M, p->row_units, t), rows = share(M, p->row_units, t + 1) - m0;
            if (reads == PRODUCT_OF_STRIPS) {
              tile.a = packed_a + (t - tb) * strip_size(k_len);
              tile.a_row = 1;
              tile.a_col = rows;
            } else if (p->pack_a) {
              tile.a_row = FA_ROUND_UP(k_len, VL);
              tile.a_col = 1;
              tile.a = packed_a + (m0 - mb) * tile.a_row;
            } else {
              tile.a = a + m0 * p->a_row;
            }
            tile.ahead = next + (t - tb) * k_len * tile.ahead_row;
            tile.c = (real *)p->c + m0 * p->c_row + n0 * p->c_col;
            if (final && p->bias) tile.bias = (const real *)p->bias + m0 * p->bias_row + n0 * p->bias_col;
            product_tile_table[reads][rows - 1][vecs - 1](&tile);
          }
        }
        if (final && p->activation) product_activate(p, mb, me, qb * TILE_COLS, FA_MIN(qe * TILE_COLS, N));
      }
      k0 += k_len;
    } while (k0 < K);
  }
}

/* ---- dots ---- */

FA_INLINE void dot_tile_body(const product_tile *t, const int rows, const int cols) {
  const int splits = TILE_SPLITS(rows * cols);
  const fa_size a_row = t->a_row, b_col = t->b_row; /* here b_row holds the distance between columns */
  vec acc[8][4][8];
  FA_ALIGN(64) real sums[FA_ROUND_UP(32, VL)];
  const real *a = t->a, *b = t->b;
  fa_size k = 0;
#define EACH_SUM FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int n = 0; n < cols; n++)
  FA_UNROLL for (int s = 0; s < splits; s++) EACH_SUM acc[s][m][n] = v_zero();
  for (; k + splits * VL <= t->K; k += splits * VL)
    FA_UNROLL for (int s = 0; s < splits; s++) {
      vec am[4];
      FA_UNROLL for (int m = 0; m < rows; m++) am[m] = v_load(a + m * a_row + k + s * VL);
      FA_UNROLL for (int n = 0; n < cols; n++) {
        vec bn = v_load(b + n * b_col + k + s * VL);
        FA_UNROLL for (int m = 0; m < rows; m++) acc[s][m][n] = v_mac(am[m], bn, acc[s][m][n]);
      }
    }
  for (; k < t->K; k += VL) {
    vec am[4];
    FA_UNROLL for (int m = 0; m < rows; m++) am[m] = v_load_n(a + m * a_row + k, t->K - k);
    FA_UNROLL for (int n = 0; n < cols; n++) {
      vec bn = v_load_n(b + n * b_col + k, t->K - k);
      FA_UNROLL for (int m = 0; m < rows; m++) acc[0][m][n] = v_mac(am[m], bn, acc[0][m][n]);
    }
  }
  FA_UNROLL for (int n2 = splits / 2; n2 > 0; n2 /= 2)
    FA_UNROLL for (int s = 0; s < n2; s++) EACH_SUM acc[s][m][n] = v_add(acc[s][m][n], acc[s + n2][m][n]);
  FA_UNROLL for (int first = 0; first < rows * cols; first += VL) {
    vec group[VL];
    FA_UNROLL for (int i = 0; i < VL; i++)
      group[i] = first + i < rows * cols ? acc[0][(first + i) / cols][(first + i) % cols] : v_zero();
    v_store(sums + first, v_hsums(group));
  }
  EACH_SUM {
    real *c = t->c + m * t->c_row + n * t->c_col, x = sums[m * cols + n];
    if (t->add) x = *c + x;
    if (t->bias) x += t->bias[m * t->bias_row + n * t->bias_col];
    *c = x;
  }
#undef EACH_SUM
}

#define DOT_FUNCTION(rows, cols) \
  static void dot_tile_##rows##x##cols(const product_tile *t) { dot_tile_body(t, rows, cols); }
DOT_FUNCTION(1, 1) DOT_FUNCTION(1, 2) DOT_FUNCTION(1, 4) DOT_FUNCTION(1, 8) DOT_FUNCTION(2, 1) DOT_FUNCTION(2, 2)
DOT_FUNCTION(2, 4)
#if FA_REGISTERS >= 32
DOT_FUNCTION(3, 1) DOT_FUNCTION(3, 2) DOT_FUNCTION(3, 4) DOT_FUNCTION(4, 1) DOT_FUNCTION(4, 2) DOT_FUNCTION(4, 4)
#endif
static void (*const dot_tile_table[4][4])(const product_tile *) = {
    {dot_tile_1x1, dot_tile_1x2, dot_tile_1x4, dot_tile_1x8},
    {dot_tile_2x1, dot_tile_2x2, dot_tile_2x4, NULL},
#if FA_REGISTERS >= 32
    {dot_tile_3x1, dot_tile_3x2, dot_tile_3x4, NULL},
    {dot_tile_4x1, dot_tile_4x2, dot_tile_4x4, NULL},
#endif
};

/* Columns in units of DOT_COLS_ONE_ROW, so that a split never changes how they fall into tiles. */
static void product_dots(const fa_product *p, fa_size u0, fa_size u1, real *workspace) {
  const fa_size M = p->M, K = p->K, N = FA_MIN(p->N, u1 * DOT_COLS_ONE_ROW), row_tiles = FA_CEIL_DIV(M, DOT_ROWS);
  const fa_size widest = M == 1 ? 3 : 2;
  const real *a = p->a;
  fa_size a_row = p->a_row;
  if (p->pack_a) { /* small: whole, row after row of k */
    for (fa_size m = 0; m < M; m++)
      for (fa_size k = 0; k < K; k++) workspace[m * K + k] = a[m * a_row + k * p->a_col];
    a = workspace;
    a_row = K;
  }
  fa_size k0 = 0;
  do {
    const fa_size k_len = FA_MIN(p->k_block, K - k0);
    const int final = k0 + k_len >= K;
    for (fa_size n = u0 * DOT_COLS_ONE_ROW; n < N;) {
      fa_size log_cols = widest;
      while (n + (1 << log_cols) > N) log_cols--;
      product_tile tile = {
          .K = k_len,
          .a_row = a_row,
          .b = (const real *)p->b + n * p->b_col + k0,
          .b_row = p->b_col,
          .c_row = p->c_row,
          .c_col = p->c_col,
          .bias_row = p->bias_row,
          .bias_col = p->bias_col,
          .add = p->accumulate || k0 > 0,
      };
      for (fa_size t = 0; t < row_tiles; t++) {
        const fa_size m = share(M, row_tiles, t), rows = share(M, row_tiles, t + 1) - m;
        tile.a = a + m * a_row + k0;
        tile.c = (real *)p->c + m * p->c_row + n * p->c_col;
        tile.bias = final && p->bias ? (const real *)p->bias + m * p->bias_row + n * p->bias_col : NULL;
        dot_tile_table[rows - 1][log_cols](&tile);
      }
      n += (fa_size)1 << log_cols;
    }
    k0 += k_len;
  } while (k0 < K);
  if (p->activation) product_activate(p, 0, M, u0 * DOT_COLS_ONE_ROW, N);
}

/* ---- one row, few rows ---- */

/* c[n] = (add ? c[n] : 0) + sum over k < depth of a[k * a_col] * b[k * b_row + n], n < N; depth is a literal. */
FA_INLINE void row_step(real *c, fa_size N, int add, const real *a, fa_size a_col, const real *b, fa_size b_row,
                        const int depth) {
  vec ak[ROW_DEPTH];
  FA_UNROLL for (int k = 0; k < depth; k++) ak[k] = v_set1(a[k * a_col]);
  fa_size n = 0;
  for (; n + VL <= N; n += VL) {
    vec sum = add ? v_load(c + n) : v_zero();
    FA_UNROLL for (int k = 0; k < depth; k++) sum = v_mac(ak[k], v_load(b + k * b_row + n), sum);
    v_store(c + n, sum);
  }
  if (n < N) {
    vec sum = add ? v_load_n(c + n, N - n) : v_zero();
    FA_UNROLL for (int k = 0; k < depth; k++) sum = v_mac(ak[k], v_load_n(b + k * b_row + n, N - n), sum);
    v_store_n(c + n, sum, N - n);
  }
}

FA_NOINLINE void row_steps(real *c, fa_size N, int add, const real *a, fa_size a_col, const real *b, fa_size b_row,
                           fa_size depth) {
#define DEPTH(k) \
  case k: row_step(c, N, add, a, a_col, b, b_row, k); break
  switch (depth) {
    DEPTH(1);
    DEPTH(2);
    DEPTH(3);
    DEPTH(4);
    DEPTH(5);
    DEPTH(6);
    DEPTH(7);
    default: DEPTH(ROW_DEPTH);
  }
#undef DEPTH
}

FA_INLINE void row_bias(real *c, fa_size N, const real *bias, fa_size bias_col) {
  fa_size n = 0;
  for (; n + VL <= N; n += VL) v_store(c + n, v_add(v_load(c + n), bias_col ? v_load(bias + n) : v_set1(*bias)));
  for (; n < N; n++) c[n] += bias[n * bias_col];
}

/* A row by a matrix whose rows are contiguous: the sums stay in L1 while ROW_DEPTH rows of B stream past. Several rows only
 * where those are all of B: a block of them stays in L1, and C is written from end to end. */
static void product_row(const fa_product *p, fa_size m0, fa_size m1, fa_size q0, fa_size q1) {
  const fa_size n1 = FA_MIN(p->N, q1 * TILE_COLS), K = p->K, block = p->M == 1 ? ROW_COLS : ROW_COLS / ROW_DEPTH;
  for (fa_size n0 = q0 * TILE_COLS; n0 < n1; n0 += block) {
    const fa_size N = FA_MIN(block, n1 - n0);
    for (fa_size m = m0; m < m1; m++) {
      const real *a = (const real *)p->a + m * p->a_row, *b = (const real *)p->b + n0;
      real *c = (real *)p->c + m * p->c_row + n0;
      for (fa_size k = 0; k < K; k += ROW_DEPTH)
        row_steps(c, N, p->accumulate || k > 0, a + k * p->a_col, p->a_col, b + k * p->b_row, p->b_row,
                  FA_MIN(ROW_DEPTH, K - k));
      if (p->bias) row_bias(c, N, (const real *)p->bias + m * p->bias_row + n0 * p->bias_col, p->bias_col);
    }
    if (p->activation) product_activate(p, m0, m1, n0, n0 + N);
  }
}

/* sums[m][n] += a[m][k] * b[k * b_row + n], n < FEW_COLS, k < depth, of which C has `cols`; depth is a literal. */
FA_INLINE void few_step(real *sums, fa_size M, const real *a, const real *b, fa_size b_row, fa_size cols, fa_size ahead,
                        const int depth) {
  vec bk[FEW_DEPTH][FEW_VECS];
#define EACH_VECTOR FA_UNROLL for (int k = 0; k < depth; k++) FA_UNROLL for (int v = 0; v < FEW_VECS; v++)
  if (cols >= FEW_COLS) EACH_VECTOR bk[k][v] = v_load(b + k * b_row + v * VL);
  else EACH_VECTOR bk[k][v] = v_load_n(b + k * b_row + v * VL, FA_MAX(0, cols - v * VL));
  FA_UNROLL for (int k = 0; k < depth; k++) FA_PREFETCH(b + (k + ahead) * b_row);
  for (fa_size m = 0; m < M; m++, a += depth, sums += FEW_COLS) {
    vec sum[FEW_VECS];
    FA_UNROLL for (int v = 0; v < FEW_VECS; v++) sum[v] = v_load(sums + v * VL);
    EACH_VECTOR sum[v] = v_mac(v_set1(a[k]), bk[k][v], sum[v]);
    FA_UNROLL for (int v = 0; v < FEW_VECS; v++) v_store(sums + v * VL, sum[v]);
  }
#undef EACH_VECTOR
}

/* A's columns in groups of FEW_DEPTH, [k / FEW_DEPTH][m][k % FEW_DEPTH], and what is left one by one, [k][m]. */
static void pack_few(fa_size K, fa_size M, const real *a, fa_size a_row, fa_size a_col, real *out) {
  fa_size k = 0;
  for (; k + FEW_DEPTH <= K; k += FEW_DEPTH, a += FEW_DEPTH * a_col)
    for (fa_size m = 0; m < M; m++)
      FA_UNROLL for (int i = 0; i < FEW_DEPTH; i++) *out++ = a[m * a_row + i * a_col];
  for (; k < K; k++, a += a_col)
    for (fa_size m = 0; m < M; m++) *out++ = a[m * a_row];
}

/* B is read once, in place. The sums of a block of columns are contiguous, [columns / FEW_COLS][M][FEW_COLS]: rows of C that
 * stand multiples of 4 KB apart would share a few sets of L1. */
static void product_few(const fa_product *p, fa_size q0, fa_size q1, real *workspace) {
  const fa_size M = p->M, K = p->K, n1 = FA_MIN(p->N, q1 * TILE_COLS);
  const fa_size block = FA_MAX(1, FEW_SUMS / (M * TILE_COLS)) * TILE_COLS;
  real *const packed_a = workspace, *const sums = workspace + FA_ROUND_UP(M * p->k_block, VL);
  for (fa_size k0 = 0; k0 < K; k0 += p->k_block) {
    const fa_size k_len = FA_MIN(p->k_block, K - k0);
    const int final = k0 + k_len >= K;
    pack_few(k_len, M, (const real *)p->a + k0 * p->a_col, p->a_row, p->a_col, packed_a);
    for (fa_size n0 = q0 * TILE_COLS; n0 < n1; n0 += block) {
      const fa_size N = FA_MIN(block, n1 - n0);
      const real *b = (const real *)p->b + k0 * p->b_row + n0;
      for (fa_size i = 0; i < M * FA_ROUND_UP(N, FEW_COLS); i += VL) v_store(sums + i, v_zero());
      fa_size k = 0;
      for (; k + FEW_DEPTH <= k_len; k += FEW_DEPTH)
        for (fa_size n = 0; n < N; n += FEW_COLS)
          few_step(sums + n * M, M, packed_a + k * M, b + k * p->b_row + n, p->b_row, N - n,
                   k + FEW_AHEAD + FEW_DEPTH <= k_len ? FEW_AHEAD : 0, FEW_DEPTH);
      for (; k < k_len; k++)
        for (fa_size n = 0; n < N; n += FEW_COLS)
          few_step(sums + n * M, M, packed_a + k * M, b + k * p->b_row + n, p->b_row, N - n, 0, 1);
      product_tile tile = {
          .c_row = p->c_row,
          .c_col = p->c_col,
          .bias_row = p->bias_row,
          .bias_col = p->bias_col,
          .add = p->accumulate || k0 > 0,
      };
      for (fa_size n = 0; n < N; n += FEW_COLS) {
        tile.c = (real *)p->c + (n0 + n) * p->c_col;
        if (final && p->bias) tile.bias = (const real *)p->bias + (n0 + n) * p->bias_col;
        product_scatter(&tile, M, FA_MIN(FEW_COLS, N - n), sums + n * M, FEW_COLS);
      }
      if (final && p->activation) product_activate(p, 0, M, n0, n0 + N);
    }
  }
}

/* ---- choice ---- */

/* Costs in nanoseconds, from counts of cycles at 4.2 GHz on Zen 5, with 16 registers at 3.2 GHz on Zen 3; only their order
 * matters, and that a call's whole time decides whether threads pay. */
#define CYCLES(x) ((double)(x) * (FA_REGISTERS >= 32 ? 0.24 : 0.31))
/* A vector of a row-major B, packed from L2 or from beyond; an element of a column-major A, packed in strips; one of a C that
 * is turned, in each block of k. AVX2, GF/s: float64 (12, 1000, 1000) exchanged, B in strips, 20 against 32; float32
 * (200, 500, 200) of two column-major operands exchanged, C turned, 73 against 84. */
#define PACK_CYCLES(far) (FA_REGISTERS >= 32 ? 2 : (far) ? 5 : 2.5)
#define FAR_CYCLES (FA_REGISTERS >= 32 ? 0 : 3) /* a vector of a far B, read in place by tiles */
#define FEW_CYCLES 1.6                          /* a vector of B, read by FEW */
#define STRIP_CYCLES (FA_REGISTERS >= 32 ? 0.4 : 2)
#define TURNED_CYCLES(blocks) (FA_REGISTERS >= 32 ? 1.5 : 5 * (blocks))
#define STREAM_BYTE_NS (FA_REGISTERS >= 32 ? 0.0095 : 0.016) /* of a matrix that is read once, from L2 or beyond */

static void product_swap(fa_product *p) {
#define EXCHANGE(type, x, y) \
  do {                       \
    type hold = x;           \
    x = y;                   \
    y = hold;                \
  } while (0)
  EXCHANGE(fa_size, p->M, p->N);
  EXCHANGE(const void *, p->a, p->b);
  EXCHANGE(fa_size, p->a_row, p->b_col);
  EXCHANGE(fa_size, p->a_col, p->b_row);
  EXCHANGE(fa_size, p->c_row, p->c_col);
  EXCHANGE(fa_size, p->bias_row, p->bias_col);
#undef EXCHANGE
}

static double plan_total(fa_product *p) { return p->pack_a_ns + p->pack_b_ns + p->rest_ns; }

/* Most rows of A for which row-major B is not packed, and the rows of such a B that are swept across all columns. With
 * AVX2 on Zen 3 packing pays earlier, (32, 512, 2048) 44 -> 72 GF/s. */
#define M_INPLACE (FA_REGISTERS >= 32 ? 64 : 12)
#define K_INPLACE 128

/* Does B hardly fit an L2 of 512 KB? */
FA_INLINE int product_far(const fa_product *p) { return p->K * p->N * (fa_size)sizeof(real) > 384 << 10; }

/* Vectors of C that go out, or elements of a C that is turned. */
FA_INLINE double output_cycles(const fa_product *p) {
  const double M = (double)p->M, N = (double)p->N, vecs = (double)FA_CEIL_DIV(p->N, VL);
  const double blocks = (double)FA_CEIL_DIV(p->K, FA_MAX(1, p->k_block));
  return p->c_col == 1 ? M * vecs * 2 : M * N * (p->c_row == 1 ? TURNED_CYCLES(blocks) : 4);
}

/* Rows of a tile: with 16 registers many rows by long panels go by three, as tiles of six read a panel in two sweeps, half of each
 * row at a time. GF/s by three and by six, and medians over minutes in which another thread used the core, too: (1024, 1024,
 * 1024) 94 and 90, 76 and 82, (300, 1024, 300) 93 and 91, 76 and 85, but (1000, 700, 1000) 93 and 95, (512, 512, 512) 94 and
 * 95, 78 and 82, (100, 100, 100) 85 and 88, 72 and 81. By six also where A is packed, (1024, 1024, 1024) 84 against 88, or
 * three rows have too few sums to hide a multiply-add, (1000, 1000) by 12 57 and 73, (2000, 300) by 16 74 and 94. */
FA_INLINE fa_size product_tile_rows(const fa_product *p) {
  return FA_REGISTERS >= 32 || p->M <= 48 || p->N <= 2 * VL || p->k_block <= 768 || p->pack_a ? TILE_ROWS : TILE_ROWS / 2;
}

static void plan_panels(fa_product *p) {
  const double M = (double)p->M, K = (double)p->K;
  const double vecs = (double)FA_CEIL_DIV(p->N, VL);
  p->method = PRODUCT_PANELS;
  p->col_units = FA_CEIL_DIV(p->N, TILE_COLS);
  p->k_block = product_even(p->K, PRODUCT_K_BLOCK);
  p->pack_b = !p->packed && (p->b_col != 1 || p->M > M_INPLACE);
  p->pack_a = p->a_col != 1 && p->K > 1 && (p->col_units > 2 || FA_REGISTERS < 32);
  p->row_units = FA_CEIL_DIV(p->M, product_tile_rows(p));
  p->pack_b_ns = 0;
  if (p->pack_b) p->pack_b_ns = CYCLES(K * vecs * (p->b_col == 1 ? PACK_CYCLES(product_far(p)) : p->b_row == 1 ? 4 : 2 * VL));
  else if (!p->packed && p->col_units > 1) p->k_block = product_even(p->K, K_INPLACE);
  p->pack_a_ns = p->pack_a ? CYCLES(K * M * (p->a_row == 1 ? STRIP_CYCLES : 1.5)) : 0;
  const double rows_loads = (double)p->row_units * vecs + M * (double)p->col_units, macs = M * vecs;
  const double in_place = !p->pack_b && !p->packed && product_far(p) ? FAR_CYCLES * vecs : 0;
  const double mac = FA_REGISTERS < 32 && p->N <= VL ? 0.7 : 0.55; /* six sums do not hide a multiply-add */
  p->rest_ns = CYCLES(K * (mac * FA_MAX(macs, rows_loads) + in_place) +
                      output_cycles(p) + 50 * (double)(p->row_units * p->col_units));
}

/* A multiply-add of dots, by the bytes of the operand that is read again and again. With AVX2 on Zen 3 (L1 of 32 KB) dots
 * lose to panels earlier, GF/s: 48 KB (1000, 1000) by 12 49 against 57, 160 KB 44 against 63; float64, whose vectors of 4
 * waste less of a panel, (500, 2048) by 10 24 against 35; where the operand was copied, (300, 784) by 10 47 against 58,
 * (128, 64) by 10 26 against 34. */
FA_INLINE double dot_cycles(double bytes, int copied) {
  if (FA_REGISTERS >= 32) return bytes <= 24e3 ? 0.55 : bytes <= 5e5 ? 0.65 : 1.0;
  const double cycles = bytes <= 24e3 ? 0.55 : bytes <= 40e3 ? 0.65 : bytes <= 128e3 ? 0.75 : 1.0;
  return (copied ? FA_MAX(cycles, 0.9) : cycles) * (VL <= 4 ? 1.3 : 1);
}

/* Both operands contiguous along k, or the smaller one copied so. */
static int plan_dots(fa_product *p) {
  const double M = (double)p->M, N = (double)p->N, K = (double)p->K;
  if (p->N < p->M) {
    product_swap(p);
    return plan_dots(p);
  }
  if (p->packed || (p->b_row != 1 && p->K > 1) || (p->a_col != 1 && p->K > 1 && p->M > 16)) return 0;
  p->method = PRODUCT_DOTS;
  p->row_units = 1;
  p->col_units = FA_CEIL_DIV(p->N, DOT_COLS_ONE_ROW);
  p->k_block = product_even(p->K, PRODUCT_DOT_BLOCK);
  p->pack_b = 0;
  p->pack_b_ns = 0;
  p->pack_a = p->a_col != 1 && p->K > 1;
  p->pack_a_ns = p->pack_a ? CYCLES(M * K * 1.5) : 0;
  double row_tiles = (double)FA_CEIL_DIV(p->M, DOT_ROWS), cols = p->M == 1 ? 8 : 4;
  double loads = row_tiles * N + M * N / cols;
  const double bytes = M * K * (double)sizeof(real); /* the small operand is read again for every few columns */
  const double mac = dot_cycles(bytes, p->pack_a) * ((p->K % VL && (p->pack_a || p->a_row % VL || p->b_col % VL)) ? 1.35 : 1);
  p->rest_ns = CYCLES((double)FA_CEIL_DIV(p->K, VL) * mac * FA_MAX(M * N, loads) + M * N * 3);
  p->rest_ns = FA_MAX(p->rest_ns, K * N * sizeof(real) * STREAM_BYTE_NS);
  return 1;
}

/* With 16 registers only: not measured with more. */
static int plan_few(fa_product *p) {
  if (FA_REGISTERS >= 32 || p->M == 1 || p->M > FEW_ROWS || p->b_col != 1 || p->K == 0) return 0;
  const double M = (double)p->M, K = (double)p->K, vecs = (double)FA_ROUND_UP(p->N, FEW_COLS) / VL;
  p->method = PRODUCT_FEW;
  p->row_units = 1;
  p->col_units = FA_CEIL_DIV(p->N, TILE_COLS);
  p->k_block = product_even(p->K, FEW_K_BLOCK);
  p->pack_b = 0;
  p->pack_b_ns = 0;
  p->pack_a = 1;
  p->pack_a_ns = CYCLES(M * K * 1.5);
  p->rest_ns = CYCLES(K * vecs * (0.57 * M + FEW_CYCLES) + 12 * M * vecs + output_cycles(p));
  return 1;
}

/* In place of panels. Several rows with 16 registers only: not measured with more. AVX2 on Zen 3, GF/s, (690, 1, 261) 11 and
 * 15, (300, 4, 300) 36 and 42, (20, 5, 20000) 39 and 62, but (2000, 4, 64) 36 and 28, (2000, 2, 2000) 19 and 11. */
static void plan_row(fa_product *p) {
  const double M = (double)p->M, K = (double)p->K, N = (double)p->N, vecs = (double)FA_CEIL_DIV(p->N, VL);
  if (p->b_col != 1 || p->c_col != 1 || p->K == 0 || p->N < 2 * TILE_COLS) return;
  if (p->M > 1 && (FA_REGISTERS >= 32 || p->K > ROW_DEPTH || vecs < 16 || product_long(p))) return;
  p->method = PRODUCT_ROW;
  p->row_units = p->M;
  p->pack_a = p->pack_b = 0;
  p->pack_a_ns = p->pack_b_ns = 0;
  if (p->M > 1) p->rest_ns = CYCLES(M * (20 + K + vecs * (0.5 * K + 1)));
  p->rest_ns = FA_MAX(p->rest_ns, FA_MAX(K, M) * N * sizeof(real) * STREAM_BYTE_NS);
}

static double product_plan(fa_product *p) {
  fa_product best;
  if (p->K == 1) p->a_col = p->b_row = 1; /* strides along sides of length 1 mean nothing */
  if (p->M == 1) p->a_row = 1, p->c_row = 1;
  if (p->N == 1) p->b_col = 1, p->c_col = 1;
  if (p->packed) {
    plan_panels(p);
    return plan_total(p);
  }
  best = *p;
  plan_panels(&best);
  fa_product other = *p;
  product_swap(&other);
  plan_panels(&other);
  if (plan_total(&other) < plan_total(&best)) best = other;
  other = *p;
  if (plan_few(&other) && plan_total(&other) < plan_total(&best)) best = other;
  other = *p;
  product_swap(&other);
  if (plan_few(&other) && plan_total(&other) < plan_total(&best)) best = other;
  other = *p;
  if (plan_dots(&other) && plan_total(&other) < plan_total(&best)) best = other;
  *p = best;
  if (p->method == PRODUCT_PANELS) plan_row(p);
  return plan_total(p);
}

/* The grid of pieces with the least time: a row of pieces packs its part of A once a piece, a column its part of B.
 * Long work goes in several pieces a thread, which take them as they come free: a core that the system lends out for a
 * while would otherwise hold up the other. A quarter of a piece is the expected wait for the last one. */
static size_t product_split(fa_product *p, int threads) {
  double least = 0;
  const int many = p->rest_ns > threads * PIECE_NS && p->method != PRODUCT_ROW; /* whose pieces of B's rows get short */
  const int most = threads == 1 ? 1 : many ? 4 * threads : threads;
  p->row_pieces = p->col_pieces = 1;
  for (int pieces = most; pieces > threads / 2; pieces /= 2)
    for (int rows = 1; rows <= pieces; rows++) {
      int cols = pieces / rows;
      if (rows > p->row_units || cols > p->col_units) continue;
      double row_part = (double)FA_CEIL_DIV(p->row_units, rows) / (double)p->row_units;
      double col_part = (double)FA_CEIL_DIV(p->col_units, cols) / (double)p->col_units;
      double piece = p->pack_a_ns * row_part + p->pack_b_ns * col_part + p->rest_ns * row_part * col_part;
      double ns = piece * ((double)FA_CEIL_DIV(rows * cols, threads) + 0.25);
      if (least == 0 || ns < least) least = ns, p->row_pieces = rows, p->col_pieces = cols;
    }
  p->pieces = p->row_pieces * p->col_pieces;
  p->threads = FA_MIN(threads, p->pieces);

  fa_size elements = 0;
  if (p->method == PRODUCT_DOTS) {
    if (p->pack_a) elements = p->M * p->K;
  } else if (p->method == PRODUCT_FEW) {
    elements = FA_ROUND_UP(p->M * p->k_block, VL) + FA_MAX(FEW_SUMS, p->M * TILE_COLS);
  } else {
    const fa_size panels = FA_CEIL_DIV(p->col_units, p->col_pieces);
    if (p->pack_b) elements += p->k_block * TILE_COLS * FA_MIN(PRODUCT_N_PANELS, panels);
    if (p->pack_a) elements += strip_size(p->k_block) * FA_MIN(PRODUCT_M_BLOCK / TILE_ROWS, FA_CEIL_DIV(p->row_units, p->row_pieces));
  }
  return (size_t)FA_ROUND_UP(elements * (fa_size)sizeof(real), 64);
}

static void product_run(const fa_product *p, int piece, void *workspace) {
  const int row = piece / p->col_pieces, col = piece % p->col_pieces;
  const fa_size q0 = share(p->col_units, p->col_pieces, col), q1 = share(p->col_units, p->col_pieces, col + 1);
  if (p->method == PRODUCT_DOTS) product_dots(p, q0, q1, workspace);
  else if (p->method == PRODUCT_ROW)
    product_row(p, share(p->row_units, p->row_pieces, row), share(p->row_units, p->row_pieces, row + 1), q0, q1);
  else if (p->method == PRODUCT_FEW) product_few(p, q0, q1, workspace);
  else
    product_panels(p, share(p->row_units, p->row_pieces, row), share(p->row_units, p->row_pieces, row + 1), q0, q1,
                   workspace);
}

#define PRODUCT_KERNELS \
  {.plan = product_plan, .split = product_split, .run = product_run, .packed_size = product_packed_size, \
   .pack = product_pack}
