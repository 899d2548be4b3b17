/* Vector verbs for AVX2 with FMA: 8 floats or 4 doubles, 16 registers, masks are vectors.
 * Meaning of each verb: see ../vec.h. */
#include <immintrin.h>

#define FA_REGISTERS 16
/* A chain of 50 to 90 cycles fills the scheduler of Zen 3 (128 vector operations with its queue): cut in two, tanh takes 0.37
 * instead of 0.45 ns an element, swish 0.48 instead of 0.60, gelu_tanh 0.63 instead of 0.81. */
#define FA_CUTS_ALL 1
/* Zen adds in two pipes and multiplies in two others, Intel does both in the same two. */
#define FA_ADDS_APART 1

#if FA_F32
typedef __m256 vec;
#define VL 8
#define P_(op) _mm256_##op##_ps
#define I_(op) _mm256_##op##_epi32
#define V_FROM_INT(i) _mm256_castsi256_ps(i)
#define V_TO_INT(v) _mm256_castps_si256(v)
#else
typedef __m256d vec;
#define VL 4
#define P_(op) _mm256_##op##_pd
#define I_(op) _mm256_##op##_epi64
#define V_FROM_INT(i) _mm256_castsi256_pd(i)
#define V_TO_INT(v) _mm256_castpd_si256(v)
#endif
typedef __m256i vint;
typedef vec vmask;

/* A window into this table gives the mask of the first n lanes. */
static const ireal fa_mask_window[2 * VL] = {
#if FA_F32
    -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0
#else
    -1, -1, -1, -1, 0, 0, 0, 0
#endif
};
FA_INLINE vint vi_first(fa_size n) {
  n = n < 0 ? 0 : n > VL ? VL : n;
  return _mm256_loadu_si256((const __m256i *)(fa_mask_window + VL - n));
}
FA_INLINE vmask m_first(fa_size n) { return V_FROM_INT(vi_first(n)); }

FA_INLINE vec v_load(const real *p) { return P_(loadu)(p); }
FA_INLINE void v_store(real *p, vec v) { P_(storeu)(p, v); }
FA_INLINE void v_stream(real *p, vec v) { P_(stream)(p, v); }
FA_INLINE vec v_load_n(const real *p, fa_size n) { return P_(maskload)(p, vi_first(n)); }
FA_INLINE void v_store_n(real *p, vec v, fa_size n) { /* a masked store takes 12 cycles on Zen 3 */
  if (n >= VL) {
    v_store(p, v);
    return;
  }
  if (n <= 0) return;
#if FA_F32
  __m128 half = _mm256_castps256_ps128(v);
  if (n & 4) _mm_storeu_ps(p, half), p += 4, half = _mm256_extractf128_ps(v, 1);
  if (n & 2) _mm_storel_pi((__m64 *)(void *)p, half), p += 2, half = _mm_movehl_ps(half, half);
  if (n & 1) _mm_store_ss(p, half);
#else
  __m128d half = _mm256_castpd256_pd128(v);
  if (n & 2) _mm_storeu_pd(p, half), p += 2, half = _mm256_extractf128_pd(v, 1);
  if (n & 1) _mm_store_sd(p, half);
#endif
}
FA_INLINE vec v_set1(real x) { return P_(set1)(x); }
FA_INLINE vec v_zero(void) { return P_(setzero)(); }

FA_INLINE vec v_add(vec a, vec b) { return P_(add)(a, b); }
FA_INLINE vec v_sub(vec a, vec b) { return P_(sub)(a, b); }
FA_INLINE vec v_mul(vec a, vec b) { return P_(mul)(a, b); }
FA_INLINE vec v_div(vec a, vec b) { return P_(div)(a, b); }
FA_INLINE vec v_sqrt(vec a) { return P_(sqrt)(a); }
FA_INLINE vec v_fma(vec a, vec b, vec c) { return P_(fmadd)(a, b, c); }
FA_INLINE vec v_fms(vec a, vec b, vec c) { return P_(fmsub)(a, b, c); }
FA_INLINE vec v_fnma(vec a, vec b, vec c) { return P_(fnmadd)(a, b, c); }
/* GCC writes a sum that an intrinsic returns to whatever register is free, and of 12 of them that leaves moves in the loop. */
#if defined(__GNUC__)
#define FA_HAS_ACCUMULATE 1
FA_INLINE void v_accumulate(vec *sum, vec a, vec b) {
#if FA_F32
  __asm__("vfmadd231ps %2, %1, %0" : "+x"(*sum) : "x"(a), "x"(b));
#else
  __asm__("vfmadd231pd %2, %1, %0" : "+x"(*sum) : "x"(a), "x"(b));
#endif
}
#endif
FA_INLINE vec v_min(vec a, vec b) { return P_(min)(a, b); }
FA_INLINE vec v_max(vec a, vec b) { return P_(max)(a, b); }
FA_INLINE vec v_rint(vec a) { return P_(round)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

FA_INLINE vint v_bits(vec a) { return V_TO_INT(a); }
FA_INLINE vec v_from_bits(vint a) { return V_FROM_INT(a); }
FA_INLINE vint vi_set1(ireal x) {
#if FA_F32
  return _mm256_set1_epi32(x);
#else
  return _mm256_set1_epi64x(x);
#endif
}
FA_INLINE vint vi_add(vint a, vint b) { return I_(add)(a, b); }
FA_INLINE vint vi_sub(vint a, vint b) { return I_(sub)(a, b); }
FA_INLINE vint vi_and(vint a, vint b) { return _mm256_and_si256(a, b); }
FA_INLINE vint vi_or(vint a, vint b) { return _mm256_or_si256(a, b); }
FA_INLINE vint vi_xor(vint a, vint b) { return _mm256_xor_si256(a, b); }
#define vi_shl(a, k) I_(slli)(a, k)
#define vi_shr(a, k) I_(srli)(a, k)
FA_INLINE vmask vi_gt(vint a, vint b) { return V_FROM_INT(I_(cmpgt)(a, b)); }
FA_INLINE vmask vi_eq(vint a, vint b) { return V_FROM_INT(I_(cmpeq)(a, b)); }

FA_INLINE vec v_and(vec a, vec b) { return P_(and)(a, b); }
FA_INLINE vec v_or(vec a, vec b) { return P_(or)(a, b); }
FA_INLINE vec v_xor(vec a, vec b) { return P_(xor)(a, b); }
FA_INLINE vec v_andnot(vec a, vec b) { return P_(andnot)(a, b); }

FA_INLINE vmask v_lt(vec a, vec b) { return P_(cmp)(a, b, _CMP_LT_OQ); }
FA_INLINE vmask v_le(vec a, vec b) { return P_(cmp)(a, b, _CMP_LE_OQ); }
FA_INLINE vmask v_gt(vec a, vec b) { return P_(cmp)(a, b, _CMP_GT_OQ); }
FA_INLINE vmask v_ge(vec a, vec b) { return P_(cmp)(a, b, _CMP_GE_OQ); }
FA_INLINE vmask v_eq(vec a, vec b) { return P_(cmp)(a, b, _CMP_EQ_OQ); }
FA_INLINE vmask v_isnan(vec a) { return P_(cmp)(a, a, _CMP_UNORD_Q); }
FA_INLINE vmask m_and(vmask a, vmask b) { return P_(and)(a, b); }
FA_INLINE vmask m_or(vmask a, vmask b) { return P_(or)(a, b); }
FA_INLINE vmask m_not(vmask a) { return P_(xor)(a, V_FROM_INT(vi_set1(-1))); }
FA_INLINE int m_any(vmask a) { return P_(movemask)(a) != 0; }
FA_INLINE vec v_sel(vmask m, vec a, vec b) { return P_(blendv)(b, a, m); }
#define FA_HAS_UNLESS 1
FA_INLINE vec v_unless(vmask m, vec a) { return v_andnot(m, a); } /* of a blend with zero GCC makes a comparison and this */
#define FA_HAS_BELOW 1
FA_INLINE vmask m_below(vec a) { return a; } /* a blend looks at the sign bit alone */
FA_INLINE vint vi_sel(vmask m, vint a, vint b) { return V_TO_INT(v_sel(m, V_FROM_INT(a), V_FROM_INT(b))); }

/* a * 2^n for integral |n| <= 2 * max exponent, in two multiplications by powers of two: the first is exact for
 * every a within a factor 2^64 of 1, so there is one rounding, as with AVX-512's scalef. */
FA_INLINE vec fa_pow2(vec n) { /* 2^n for a normal result: the exponent field made from the low bits of n + magic */
#if FA_F32
  vint biased = v_bits(v_add(n, v_set1(12582912.0f + 127.0f)));
  return v_from_bits(vi_shl(biased, 23));
#else
  vint biased = v_bits(v_add(n, v_set1(6755399441055744.0 + 1023.0)));
  return v_from_bits(vi_shl(biased, 52));
#endif
}
FA_INLINE vec v_scale2(vec a, vec n) {
  vec half = v_rint(v_mul(n, v_set1(R(0.5))));
  return v_mul(v_mul(a, fa_pow2(half)), fa_pow2(v_sub(n, half)));
}

/* Table lookups: the low bits of each lane's integer choose the entry; permutes and blends, no gather. */
#if FA_F32
FA_INLINE vec v_lookup16(const real *table, vint index) {
  vec low = _mm256_permutevar8x32_ps(v_load(table), index);
  vec high = _mm256_permutevar8x32_ps(v_load(table + 8), index);
  return v_sel(V_FROM_INT(vi_shl(index, 28)), high, low);
}
FA_INLINE vec v_lookup32(const real *table, vint index) {
  return v_sel(V_FROM_INT(vi_shl(index, 27)), v_lookup16(table + 16, index), v_lookup16(table, index));
}
#else
/* Four doubles a register make permutes of 16 or 32 entries longer than loading each lane from the table. */
FA_INLINE vec fa_lookup_lanes(const real *table, vint index, ireal mask) {
  FA_ALIGN(32) ireal lane[VL];
  _mm256_store_si256((__m256i *)lane, index);
  return _mm256_set_pd(table[lane[3] & mask], table[lane[2] & mask], table[lane[1] & mask], table[lane[0] & mask]);
}
FA_INLINE vec v_lookup16(const real *table, vint index) { return fa_lookup_lanes(table, index, 15); }
FA_INLINE vec v_lookup32(const real *table, vint index) { return fa_lookup_lanes(table, index, 31); }
#endif

/* Each half of FA_HALF vectors turned: lane j of vector i <-> lane i of vector j, in the lower halves and in the upper ones. */
#define FA_HALF (VL / 2)
FA_INLINE void fa_turn_halves(vec v[FA_HALF]) {
#if FA_F32
  vec ab_low = P_(unpacklo)(v[0], v[1]), ab_high = P_(unpackhi)(v[0], v[1]);
  vec cd_low = P_(unpacklo)(v[2], v[3]), cd_high = P_(unpackhi)(v[2], v[3]);
  v[0] = P_(shuffle)(ab_low, cd_low, 0x44);
  v[1] = P_(shuffle)(ab_low, cd_low, 0xee);
  v[2] = P_(shuffle)(ab_high, cd_high, 0x44);
  v[3] = P_(shuffle)(ab_high, cd_high, 0xee);
#else
  vec low = P_(unpacklo)(v[0], v[1]);
  v[1] = P_(unpackhi)(v[0], v[1]);
  v[0] = low;
#endif
}

/* Rows of a table: each lane's is loaded and they are transposed. On Zen 3 eight columns of 32 floats take 1.0 ns an element
 * so, 0.56 where the offsets have been in memory for a while, 2.2 by permutes and blends, 3.4 by gathers; 15 columns of doubles
 * 3.2 ns, 3.95 by v_lookup32. */
#define FA_LOOKS_UP_ROWS 1
FA_INLINE vint v_row_offsets(vint index) { return vi_shl(vi_and(index, vi_set1(31)), FA_F32 ? 5 : 7); }
FA_INLINE void v_lookup_rows(const real (*rows)[V_ROW], const vint *offsets, vec *column, const int columns) {
  const ireal *offset = (const ireal *)offsets;
#if FA_F32
#define HALF(i) _mm_load_ps((const real *)((const char *)rows + offset[i]) + k)
#define HALVES(i) _mm256_insertf128_ps(_mm256_castps128_ps256(HALF(i)), HALF(i + FA_HALF), 1)
#else
#define HALF(i) _mm_load_pd((const real *)((const char *)rows + offset[i]) + k)
#define HALVES(i) _mm256_insertf128_pd(_mm256_castpd128_pd256(HALF(i)), HALF(i + FA_HALF), 1)
#endif
  FA_UNROLL for (int k = 0; k < columns; k += FA_HALF) {
    FA_UNROLL for (int i = 0; i < FA_HALF; i++) column[k + i] = HALVES(i);
    fa_turn_halves(&column[k]);
  }
#undef HALF
#undef HALVES
}

FA_INLINE real v_hsum(vec a) {
#if FA_F32
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
#else
  __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
  return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
#endif
}
#if FA_F32
#define PERMUTE_HALVES(a, b, k) _mm256_permute2f128_ps(a, b, k)
#else
#define PERMUTE_HALVES(a, b, k) _mm256_permute2f128_pd(a, b, k)
#endif
FA_INLINE real v_hmax(vec a) {
  a = v_max(a, PERMUTE_HALVES(a, a, 0x01));
  a = v_max(a, P_(shuffle)(a, a, FA_F32 ? 0x4e : 0x5));
  if (FA_F32) a = v_max(a, P_(shuffle)(a, a, 0xb1));
  real lane[VL];
  v_store(lane, a);
  return lane[0];
}
FA_INLINE vec v_zip_lo(vec a, vec b) { return PERMUTE_HALVES(P_(unpacklo)(a, b), P_(unpackhi)(a, b), 0x20); }
FA_INLINE vec v_zip_hi(vec a, vec b) { return PERMUTE_HALVES(P_(unpacklo)(a, b), P_(unpackhi)(a, b), 0x31); }

/* 24 shuffles of floats, 8 of doubles; by zips it would be twice as many. */
#define FA_HAS_TRANSPOSE 1
FA_INLINE void v_transpose(vec rows[VL]) {
  fa_turn_halves(rows);
  fa_turn_halves(rows + FA_HALF);
  FA_UNROLL for (int i = 0; i < FA_HALF; i++) {
    vec low = rows[i], high = rows[i + FA_HALF];
    rows[i] = PERMUTE_HALVES(low, high, 0x20);
    rows[i + FA_HALF] = PERMUTE_HALVES(low, high, 0x31);
  }
}
