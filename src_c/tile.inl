/* The register tile: the inner product of every packed product and of every recurrent step.
 *
 *   acc[m][v] += sum over k < K of a[m*a_row + k*a_col] * b[k*b_row + v*VL + lane]     m < rows, v < vecs
 *
 * A tile is TILE_ROWS x TILE_VECS vectors: 6 x 4 with 32 registers (24 sums, 4 of b, one broadcast of a), 3 x 4 with 16
 * (12 sums, 3 broadcasts, one of b). Rows and vecs are literals at every call, so the loops unroll and acc stays in
 * registers. b may be a packed panel (b_row = TILE_COLS) or the caller's own rows; a is read in place with broadcasts
 * at any strides: packing it costs 3-10 % on row-major operands. */
#define TILE_VECS 4
#define TILE_COLS (TILE_VECS * VL)
#if FA_REGISTERS >= 32
#define TILE_ROWS 6
#else
#define TILE_ROWS 3
#endif

FA_INLINE void tile_zero(vec acc[TILE_ROWS][TILE_VECS], const int rows, const int vecs) {
  FA_UNROLL for (int m = 0; m < rows; m++) FA_UNROLL for (int v = 0; v < vecs; v++) acc[m][v] = v_zero();
}

FA_INLINE void tile_accumulate(vec acc[TILE_ROWS][TILE_VECS], const int rows, const int vecs, const real *a,
                               fa_size a_row, fa_size a_col, const real *b, fa_size b_row, fa_size K) {
  for (fa_size k = 0; k < K; k++, a += a_col, b += b_row) {
    if (FA_REGISTERS >= 32) { /* hold b, broadcast a */
      vec bk[TILE_VECS];
      FA_UNROLL for (int v = 0; v < vecs; v++) bk[v] = v_load(b + v * VL);
      FA_UNROLL for (int m = 0; m < rows; m++) {
        vec am = v_set1(a[m * a_row]);
        FA_UNROLL for (int v = 0; v < vecs; v++) acc[m][v] = v_mac(am, bk[v], acc[m][v]);
      }
    } else { /* hold the broadcasts, stream b: one register fewer */
      vec am[TILE_ROWS];
      FA_UNROLL for (int m = 0; m < rows; m++) am[m] = v_set1(a[m * a_row]);
      FA_UNROLL for (int v = 0; v < vecs; v++) {
        vec bv = v_load(b + v * VL);
        FA_UNROLL for (int m = 0; m < rows; m++) acc[m][v] = v_mac(am[m], bv, acc[m][v]);
      }
    }
  }
}
