/* Vector verbs for AVX-512 (F, VL, DQ, BW): 16 floats or 8 doubles, 32 registers, real mask registers.
 * Meaning of each verb: see ../vec.h. */
#include <immintrin.h>

#define FA_REGISTERS 32

#if FA_F32
typedef __m512 vec;
typedef __mmask16 vmask;
#define VL 16
#define P_(op) _mm512_##op##_ps
#define I_(op) _mm512_##op##_epi32
#define M_(op) _mm512_##op##_ps_mask
#define MI_(op) _mm512_##op##_epi32_mask
#define V_FROM_INT(i) _mm512_castsi512_ps(i)
#define V_TO_INT(v) _mm512_castps_si512(v)
#else
typedef __m512d vec;
typedef __mmask8 vmask;
#define VL 8
#define P_(op) _mm512_##op##_pd
#define I_(op) _mm512_##op##_epi64
#define M_(op) _mm512_##op##_pd_mask
#define MI_(op) _mm512_##op##_epi64_mask
#define V_FROM_INT(i) _mm512_castsi512_pd(i)
#define V_TO_INT(v) _mm512_castpd_si512(v)
#endif
typedef __m512i vint;

FA_INLINE vmask m_first(fa_size n) { return (vmask)((1u << (n < 0 ? 0 : n > VL ? VL : n)) - 1u); }

FA_INLINE vec v_load(const real *p) { return P_(loadu)(p); }
FA_INLINE void v_store(real *p, vec v) { P_(storeu)(p, v); }
FA_INLINE void v_stream(real *p, vec v) { P_(stream)(p, v); }
FA_INLINE vec v_load_n(const real *p, fa_size n) { return P_(maskz_loadu)(m_first(n), p); }
FA_INLINE void v_store_n(real *p, vec v, fa_size n) { P_(mask_storeu)(p, m_first(n), v); }
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
FA_INLINE vec v_min(vec a, vec b) { return P_(min)(a, b); }
FA_INLINE vec v_max(vec a, vec b) { return P_(max)(a, b); }
FA_INLINE vec v_rint(vec a) { return P_(roundscale)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
#define FA_SCALES_AT_ONCE 1
FA_INLINE vec v_scale2(vec a, vec n) { return P_(scalef)(a, n); }

FA_INLINE vint v_bits(vec a) { return V_TO_INT(a); }
FA_INLINE vec v_from_bits(vint a) { return V_FROM_INT(a); }
FA_INLINE vint vi_set1(ireal x) {
#if FA_F32
  return _mm512_set1_epi32(x);
#else
  return _mm512_set1_epi64(x);
#endif
}
FA_INLINE vint vi_add(vint a, vint b) { return I_(add)(a, b); }
FA_INLINE vint vi_sub(vint a, vint b) { return I_(sub)(a, b); }
FA_INLINE vint vi_and(vint a, vint b) { return _mm512_and_si512(a, b); }
FA_INLINE vint vi_or(vint a, vint b) { return _mm512_or_si512(a, b); }
FA_INLINE vint vi_xor(vint a, vint b) { return _mm512_xor_si512(a, b); }
#define vi_shl(a, k) I_(slli)(a, k)
#define vi_shr(a, k) I_(srli)(a, k)
FA_INLINE vmask vi_gt(vint a, vint b) { return MI_(cmpgt)(a, b); }
FA_INLINE vmask vi_eq(vint a, vint b) { return MI_(cmpeq)(a, b); }

FA_INLINE vec v_and(vec a, vec b) { return v_from_bits(vi_and(v_bits(a), v_bits(b))); }
FA_INLINE vec v_or(vec a, vec b) { return v_from_bits(vi_or(v_bits(a), v_bits(b))); }
FA_INLINE vec v_xor(vec a, vec b) { return v_from_bits(vi_xor(v_bits(a), v_bits(b))); }
FA_INLINE vec v_andnot(vec a, vec b) { return v_from_bits(_mm512_andnot_si512(v_bits(a), v_bits(b))); }

FA_INLINE vmask v_lt(vec a, vec b) { return M_(cmp)(a, b, _CMP_LT_OQ); }
FA_INLINE vmask v_le(vec a, vec b) { return M_(cmp)(a, b, _CMP_LE_OQ); }
FA_INLINE vmask v_gt(vec a, vec b) { return M_(cmp)(a, b, _CMP_GT_OQ); }
FA_INLINE vmask v_ge(vec a, vec b) { return M_(cmp)(a, b, _CMP_GE_OQ); }
FA_INLINE vmask v_eq(vec a, vec b) { return M_(cmp)(a, b, _CMP_EQ_OQ); }
FA_INLINE vmask v_isnan(vec a) { return M_(cmp)(a, a, _CMP_UNORD_Q); }
FA_INLINE vmask m_and(vmask a, vmask b) { return (vmask)(a & b); }
FA_INLINE vmask m_or(vmask a, vmask b) { return (vmask)(a | b); }
FA_INLINE vmask m_not(vmask a) { return (vmask)~a; }
FA_INLINE int m_any(vmask a) { return a != 0; }
FA_INLINE vec v_sel(vmask m, vec a, vec b) { return P_(mask_blend)(m, b, a); }
FA_INLINE vint vi_sel(vmask m, vint a, vint b) { return I_(mask_blend)(m, b, a); }

/* Table lookups: the low bits of each lane's integer choose the entry; no gather, no memory after the load. */
FA_INLINE vec v_lookup16(const real *table, vint index) {
#if FA_F32
  return _mm512_permutexvar_ps(index, v_load(table));
#else
  return _mm512_permutex2var_pd(v_load(table), index, v_load(table + 8));
#endif
}
FA_INLINE vec v_lookup32(const real *table, vint index) {
#if FA_F32
  return _mm512_permutex2var_ps(v_load(table), index, v_load(table + 16));
#else
  vmask high = _mm512_test_epi64_mask(index, _mm512_set1_epi64(16));
  return v_sel(high, v_lookup16(table + 16, index), v_lookup16(table, index));
#endif
}

/* Sums of lanes in halves: lane i with lane i + VL/2, and so on. Every instruction set keeps its own order. */
FA_INLINE real v_hsum(vec a) { return P_(reduce_add)(a); }
FA_INLINE real v_hmax(vec a) { return P_(reduce_max)(a); }
#if FA_F32
FA_INLINE vec v_zip_lo(vec a, vec b) {
  return P_(permutex2var)(a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b);
}
FA_INLINE vec v_zip_hi(vec a, vec b) {
  return P_(permutex2var)(a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b);
}
#else
FA_INLINE vec v_zip_lo(vec a, vec b) {
  return P_(permutex2var)(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b);
}
FA_INLINE vec v_zip_hi(vec a, vec b) {
  return P_(permutex2var)(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b);
}
#endif
