/* The vocabulary of vector verbs, over which every kernel is written once.
 *
 * One header per instruction set (isa/) defines, for the element type of this unit (real = float or double):
 *
 *   types      vec (VL lanes of real), vint (as many integers of the same width), vmask
 *   memory     v_load, v_store        unaligned, VL lanes
 *              v_load_n, v_store_n    the first n lanes (n may be <= 0 or >= VL); other lanes read as +0, untouched in memory
 *              v_stream               non-temporal store to an address aligned to a vector
 *   constants  v_set1, v_zero, vi_set1
 *   arithmetic v_add, v_sub, v_mul, v_div, v_sqrt: correctly rounded
 *              v_fma a*b+c, v_fms a*b-c, v_fnma c-a*b: one rounding
 *              v_mac a*b+c: as many roundings as is fast; only for products, never where bits are promised
 *              v_accumulate(sum, a, b): *sum = v_mac(a, b, *sum), for sums that should stay in their registers
 *              v_min a<b?a:b, v_max a>b?a:b: the second operand if either is NaN
 *              v_sub_apart: v_sub by v_fnma on a CPU whose additions and multiplications do not share pipes (FA_ADDS_APART), for
 *              loops that add more than they multiply
 *              v_rint: to nearest, ties to even
 *              v_scale2(a, n): a * 2^n, n integral, one rounding also into the subnormals (|a| within 2^+-64 of 1,
 *              |n| <= 250 in float32, <= 2000 in float64); FA_SCALES_AT_ONCE where that is one instruction, not nine
 *   bits       v_bits, v_from_bits, v_and, v_or, v_xor, v_andnot (~a & b), vi_add, vi_sub, vi_and, vi_or, vi_xor,
 *              vi_shl, vi_shr (logical; the count is a literal), vi_gt, vi_eq
 *   choice     m_below(a): a < 0, for v_sel alone and where -0 and NaN may be on either side
 *              v_lt, v_le, v_gt, v_ge, v_eq (quiet, false for NaN), v_isnan -> vmask; m_and, m_or, m_not, m_any, m_first(n)
 *              v_sel(m, a, b), vi_sel: m ? a : b; v_unless(m, a): m ? 0 : a
 *   tables     v_lookup16, v_lookup32: table[index mod 16 or 32] by permutes where the CPU has them
 *              if FA_LOOKS_UP_ROWS: v_row_offsets(index), bytes to row index mod 32, and v_lookup_rows, a row for each lane
 *              from offsets in memory: column[k] = rows[..][k] for k < columns, a literal <= V_ROW, and some beyond
 *   across     v_hsum, v_hmax: over all lanes
 *              v_zip_lo, v_zip_hi: a0 b0 a1 b1 ... of the lower and of the upper halves of a and b
 *
 * FA_REGISTERS, how many there are, and FA_CUTS_ALL where the CPU looks so little ahead that also short bodies are cut
 * (cut.inl), and the verbs below, which follow from those. All are bit for bit the same on every instruction set except v_mac
 * and the order of v_hsum. */
#ifndef FA_VEC_H
#define FA_VEC_H

#include "config.h"

#define V_ROW (FA_F32 ? 8 : 16) /* columns of a table in rows */
#define FA_IS_scalar 1
#define FA_IS_avx2 2
#define FA_IS_avx512 3
#define FA_IS_neon 4
#define FA_IS2(x) FA_IS_##x
#define FA_IS(x) FA_IS2(x)
#if FA_IS(FA_ISA) == FA_IS_avx512
#include "isa/avx512.h"
#elif FA_IS(FA_ISA) == FA_IS_avx2
#include "isa/avx2.h"
#elif FA_IS(FA_ISA) == FA_IS_neon
#include "isa/neon.h"
#else
#include "isa/scalar.h"
#endif

#define FA_MAX_VL (64 / (int)sizeof(real)) /* lanes of the widest instruction set: buffers and panels are padded to it */

#ifndef FA_SCALES_AT_ONCE
#define FA_SCALES_AT_ONCE 0
#endif
#ifndef FA_LOOKS_UP_ROWS
#define FA_LOOKS_UP_ROWS 0
#endif
#ifndef FA_CUTS_ALL
#define FA_CUTS_ALL 0
#endif
#ifndef FA_HAS_MAC
FA_INLINE vec v_mac(vec a, vec b, vec c) { return v_fma(a, b, c); }
#endif

#ifndef FA_HAS_ACCUMULATE
FA_INLINE void v_accumulate(vec *sum, vec a, vec b) { *sum = v_mac(a, b, *sum); }
#endif

#ifndef FA_ADDS_APART
#define FA_ADDS_APART 0
#endif
FA_INLINE vec v_sub_apart(vec a, vec b) { return FA_ADDS_APART ? v_fnma(b, v_set1(1), a) : v_sub(a, b); }

#ifndef FA_HAS_UNLESS
FA_INLINE vec v_unless(vmask m, vec a) { return v_sel(m, v_zero(), a); }
#endif

#ifndef FA_HAS_BELOW
FA_INLINE vmask m_below(vec a) { return v_lt(a, v_zero()); }
#endif

FA_INLINE vec v_sign_bit(void) { return v_set1(R(-0.0)); }
FA_INLINE vec v_neg(vec a) { return v_xor(a, v_sign_bit()); }
FA_INLINE vec v_abs(vec a) { return v_andnot(v_sign_bit(), a); }
FA_INLINE vec v_copysign(vec magnitude, vec sign) {
  return v_or(v_andnot(v_sign_bit(), magnitude), v_and(v_sign_bit(), sign));
}

#ifndef FA_HAS_TRANSPOSE
/* rows[i] lane j <-> rows[j] lane i, in place: log2(VL) rounds of zips. */
FA_INLINE void v_transpose(vec rows[VL]) {
  FA_UNROLL for (int step = VL; step > 1; step /= 2) {
    vec next[VL];
    FA_UNROLL for (int i = 0; i < VL / 2; i++) {
      next[2 * i] = v_zip_lo(rows[i], rows[i + VL / 2]);
      next[2 * i + 1] = v_zip_hi(rows[i], rows[i + VL / 2]);
    }
    FA_UNROLL for (int i = 0; i < VL; i++) rows[i] = next[i];
  }
}
#endif

/* The sums over all lanes of v[0] .. v[VL-1], in lanes 0 .. VL-1. Overwrites v. */
FA_INLINE vec v_hsums(vec v[VL]) {
  FA_UNROLL for (int n = VL / 2; n > 0; n /= 2)
    FA_UNROLL for (int i = 0; i < n; i++) v[i] = v_add(v_zip_lo(v[i], v[i + n]), v_zip_hi(v[i], v[i + n]));
  return v[0];
}

/* The first n of elements that stand `stride` elements apart. */
FA_INLINE vec v_load_strided(const real *p, fa_size stride, fa_size n) {
  real lane[VL] = {0};
  for (fa_size i = 0; i < VL && i < n; i++) lane[i] = p[i * stride];
  return v_load(lane);
}

#endif
