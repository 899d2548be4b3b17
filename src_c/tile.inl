/* The register tile: the inner product of every packed product and of every recurrent step.
 *
 *   acc[m][v] += sum over k < K of a[m*a_row + k*a_col] * b[k][v*VL + lane]     m < rows, v < vecs
 *
 * A tile is TILE_ROWS x TILE_VECS = 6 x 4 vectors. 32 registers hold it whole (24 sums, 4 of b, one broadcast of a);
 * 16 hold up to three rows (12 sums, 3 broadcasts, one of b), and of more rows two vectors at a time (12 sums, 2 of b,
 * one broadcast): two sweeps over k, each of which reads but half of b. With two tiles of three rows instead, which read
 * it all twice, AVX2 on Zen 3 reaches at 4 rows (1000, 1000) 34 GF/s instead of 54, at 8 rows (256, 256) 53 instead of
 * 72, and the same with many rows. Rows and vecs are literals at every call, so the loops unroll and acc stays in
 * registers. b may be a packed panel or the caller's own rows (tile_matrix); a is read in place with broadcasts at any
 * strides: packing it costs 3-10 % on row-major operands.
 *
 * A packed panel may hold rounded numbers (fa_precision), several rows of them in the lanes of one row of words; they
 * become float32 in registers, by shifts and masks that any CPU has. */
#define TILE_VECS 4
#define TILE_COLS (TILE_VECS * VL)
#define TILE_ROWS 6
/* Vectors whose sums are in registers at a time, and DO(begin, end) for each sweep of a tile, all literals. What a sweep
 * begins with and leaves is its own: sums of the other one that are alive meanwhile drive GCC to keep them in registers. */
#define TILE_SWEEP(rows) (FA_REGISTERS >= 32 || (rows) <= 3 ? TILE_VECS : 2)
#define TILE_EACH_SWEEP(rows, vecs, DO)                                   \
  do {                                                                    \
    DO(0, FA_MIN(vecs, TILE_SWEEP(rows)));                                \
    if ((vecs) > TILE_SWEEP(rows)) DO(TILE_SWEEP(rows), vecs);            \
  } while (0)

/* Where b has its vectors: vector v of row k begins at at + k * row + v / PART_VECS * part + v % PART_VECS * VL. The
 * recurrent panels lie in parts of what a sweep reads: [part][k][PART_VECS * VL], each part whole cache lines. With 16
 * registers a sweep by rows of four vectors reads but every other line; the hardware does not fetch those in time, and
 * fetching them ahead is one instruction more a k. AVX2 on Zen 3, 8 rows, panels from L3, best and median over a minute in
 * which another thread used the core, too: 96.7 and 58 of 103 GF/s by rows of four vectors, fetched 16 rows ahead; 99.7
 * and 76 in parts. */
#define PART_VECS (FA_REGISTERS >= 32 ? TILE_VECS : 2)
#define PART_COLS(vecs) (FA_MIN(vecs, PART_VECS) * VL)
typedef struct {
  const real *at;
  fa_size row, part;
} tile_matrix;
/* A panel of so many rows (of words, see fa_precision) and vectors: 1, 2 or 4. */
FA_INLINE tile_matrix tile_panel(const real *panel, fa_size rows, fa_size vecs) {
  return (tile_matrix){panel, PART_COLS(vecs), rows * PART_COLS(vecs)};
}
/* A matrix whose rows are contiguous. */
FA_INLINE tile_matrix tile_rows_of(const real *b, fa_size row) { return (tile_matrix){b, row, PART_VECS * VL}; }
FA_INLINE const real *tile_vector(const tile_matrix *b, const int v) {
  return b->at + v / PART_VECS * b->part + v % PART_VECS * VL;
}

FA_INLINE void tile_zero(vec acc[TILE_ROWS][TILE_VECS], const int rows, const int begin, const int end) {
  FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = begin; v < end; v++) acc[m][v] = v_zero();
}

/* Row j of those that a row of words holds; `precision` and j are literals. An int8 weight b comes as 1.5 + b / 256,
 * its bits in the significand of a float32: two instructions. To take 1.5 away from each would be a third, and 15 % of
 * a step of batch 1: whoever sums takes it away from the sum. */
#define INT8_BIAS R(1.5)
FA_INLINE vec panel_load(const real *words, const fa_precision precision, const int j) {
  const vec word = v_load(words);
  const vint bits = v_bits(word);
  if (precision == FA_BFLOAT16) return v_from_bits(j ? vi_and(bits, vi_set1((ireal)0xFFFF0000)) : vi_shl(bits, 16));
  if (precision == FA_INT8) {
    const vint low = j == 0 ? vi_shl(bits, 15) : vi_shl(bits, 7), high = j == 2 ? vi_shr(bits, 1) : vi_shr(bits, 9);
    const vint moved = j < 2 ? low : high;
    return v_from_bits(vi_xor(vi_and(moved, vi_set1(0x7F8000)), vi_set1(0x3FC00000)));
  }
  return word;
}

/* Vectors begin .. end - 1 (literals), one k, row j of a row of words: of the last vector only the first `last` lanes of
 * b are read where `masked` says so (a literal). */
FA_INLINE void tile_step(vec acc[TILE_ROWS][TILE_VECS], const int rows, const int begin, const int end, const real *a,
                         fa_size a_row, const tile_matrix *b, const fa_precision precision, const int j,
                         const int masked, fa_size last) {
#define TILE_B(v) \
  (masked && (v) == end - 1 ? v_load_n(tile_vector(b, v), last) : panel_load(tile_vector(b, v), precision, j))
  if (FA_REGISTERS >= 32 || rows > 3) { /* hold b, broadcast a */
    vec bk[TILE_VECS];
    FA_UNROLL for (int v = begin; v < end; v++) bk[v] = TILE_B(v);
    FA_UNROLL for (int m = 0; m < rows; m++) {
      vec am = v_set1(a[m * a_row]);
      FA_UNROLL for (int v = begin; v < end; v++) v_accumulate(&acc[m][v], am, bk[v]);
    }
  } else { /* hold the broadcasts, stream b: one register fewer */
    vec am[TILE_ROWS];
    FA_UNROLL for (int m = 0; m < rows; m++) am[m] = v_set1(a[m * a_row]);
    FA_UNROLL for (int v = begin; v < end; v++) {
      vec bv = TILE_B(v);
      FA_UNROLL for (int m = 0; m < rows; m++) v_accumulate(&acc[m][v], am[m], bv);
    }
  }
#undef TILE_B
}

/* With 16 vector registers tiles take care to have few instructions: four k a round, and strides that are literals where a
 * caller has several. One lane has 16 registers, too, but there that would be code and nothing else. */
#define TILE_TERSE (FA_REGISTERS < 32 && VL > 1)

/* One sweep over k. With `fetch`, a literal, it asks in L2 for what will be wanted after it: `ahead` and so on, `ahead_row`
 * further at each k, a line every other k. TILE_TERSE four k a round: a k of 8 multiply-adds, four cycles, leaves room for 24
 * instructions, and for 12 while another thread uses the core. One k a round takes 21 of them, two 17.5, four 15.5; 12
 * multiply-adds take 27 and 22. AVX2 on Zen 3, gates of 4 rows, GF/s, best and median over minutes with such a thread: 95 and
 * 83 by two k, 96 and 85 by four, of 6 rows 99 and 88 by one, 99 and 92 by four. */
#define SWEEP_ROUND(precision) (TILE_TERSE && (precision) == FA_FULL ? 4 : fa_word_rows(precision))
FA_INLINE void tile_sweep(vec acc[TILE_ROWS][TILE_VECS], const int rows, const int begin, const int end, const real *a,
                          fa_size a_row, fa_size a_col, tile_matrix b, const fa_precision precision, fa_size K,
                          const int masked, fa_size last, const int fetch, const real *ahead, fa_size ahead_row) {
  const int word = fa_word_rows(precision), round = SWEEP_ROUND(precision);
  for (fa_size rounds = K / round; rounds > 0; rounds--, ahead += round / word * ahead_row) {
    FA_UNROLL for (int j = 0; j < round; j++, a += a_col, b.at += j % word == 0 ? b.row : 0) {
      if (fetch && j % (2 * word) == 0) FA_PREFETCH_L2(ahead + j / word * ahead_row);
      tile_step(acc, rows, begin, end, a, a_row, &b, precision, j % word, masked, last);
    }
  }
  if (word == 1)
    for (fa_size left = K % round; left > 0; left--, a += a_col, b.at += b.row)
      tile_step(acc, rows, begin, end, a, a_row, &b, precision, 0, masked, last);
  else
    FA_UNROLL for (int j = 0; j < round - 1; j++)
      if (j < K % round) tile_step(acc, rows, begin, end, a + j * a_col, a_row, &b, precision, j, masked, last);
}

/* The whole sums of a sweep, acc = A B. Those with fewer than 8 sums would wait for each other's multiply-add (latency 4,
 * two a cycle): they run over 2, 4 or 8 interleaved parts of k, added up pairwise at the end. The first sweep of others
 * fetches ahead. */
#define TILE_SPLITS(sums) ((sums) >= 8 ? 1 : (sums) >= 4 ? 2 : (sums) >= 2 ? 4 : 8)

FA_INLINE void tile_product(vec acc[TILE_ROWS][TILE_VECS], const int rows, const int begin, const int end, const real *a,
                            fa_size a_row, fa_size a_col, tile_matrix b, fa_size K, const int masked, fa_size last,
                            const int fetch, const real *ahead, fa_size ahead_row) {
  const int splits = TILE_SPLITS(rows * (end - begin));
  fa_size k = 0;
  tile_zero(acc, rows, begin, end);
  if (splits > 1 && K >= splits) {
    vec part[8][TILE_ROWS][TILE_VECS];
    FA_UNROLL for (int s = 0; s < splits; s++) tile_zero(part[s], rows, begin, end);
    for (; k + splits <= K; k += splits)
      FA_UNROLL for (int s = 0; s < splits; s++, a += a_col, b.at += b.row)
        tile_step(part[s], rows, begin, end, a, a_row, &b, FA_FULL, 0, masked, last);
    FA_UNROLL for (int n = splits / 2; n > 0; n /= 2)
      FA_UNROLL for (int s = 0; s < n; s++)
        FA_UNROLL for (int m = 0; m < rows; m++)
          FA_UNROLL for (int v = begin; v < end; v++) part[s][m][v] = v_add(part[s][m][v], part[s + n][m][v]);
    FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = begin; v < end; v++) acc[m][v] = part[0][m][v];
  }
  tile_sweep(acc, rows, begin, end, a, a_row, a_col, b, FA_FULL, K - k, masked, last,
             fetch && splits == 1 && begin == 0, ahead, ahead_row);
}
