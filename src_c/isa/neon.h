/* Vector verbs for AArch64 NEON: 4 floats or 2 doubles, 32 registers, masks are integer vectors.
 * Meaning of each verb: see ../vec.h. */
#include <arm_neon.h>

#define FA_REGISTERS 32

#if FA_F32
typedef float32x4_t vec;
typedef int32x4_t vint;
typedef uint32x4_t vmask;
#define VL 4
#define F_(op) op##_f32
#define S_(op) op##_s32
#define U_(op) op##_u32
#define V_TO_INT(v) vreinterpretq_s32_f32(v)
#define V_FROM_INT(i) vreinterpretq_f32_s32(i)
#define M_TO_INT(m) vreinterpretq_s32_u32(m)
#define M_FROM_INT(i) vreinterpretq_u32_s32(i)
#else
typedef float64x2_t vec;
typedef int64x2_t vint;
typedef uint64x2_t vmask;
#define VL 2
#define F_(op) op##_f64
#define S_(op) op##_s64
#define U_(op) op##_u64
#define V_TO_INT(v) vreinterpretq_s64_f64(v)
#define V_FROM_INT(i) vreinterpretq_f64_s64(i)
#define M_TO_INT(m) vreinterpretq_s64_u64(m)
#define M_FROM_INT(i) vreinterpretq_u64_s64(i)
#endif

static const ireal fa_mask_window[2 * VL] = {
#if FA_F32
    -1, -1, -1, -1, 0, 0, 0, 0
#else
    -1, -1, 0, 0
#endif
};
FA_INLINE vmask m_first(fa_size n) {
  n = n < 0 ? 0 : n > VL ? VL : n;
  return M_FROM_INT(S_(vld1q)(fa_mask_window + VL - n));
}
FA_INLINE vec v_load(const real *p) { return F_(vld1q)(p); }
FA_INLINE void v_store(real *p, vec v) { F_(vst1q)(p, v); }
FA_INLINE void v_stream(real *p, vec v) { F_(vst1q)(p, v); }
FA_INLINE vec v_load_n(const real *p, fa_size n) {
  real lane[VL] = {0};
  memcpy(lane, p, (size_t)(n < 0 ? 0 : n > VL ? VL : n) * sizeof(real));
  return v_load(lane);
}
FA_INLINE void v_store_n(real *p, vec v, fa_size n) {
  real lane[VL];
  v_store(lane, v);
  memcpy(p, lane, (size_t)(n < 0 ? 0 : n > VL ? VL : n) * sizeof(real));
}
FA_INLINE vec v_set1(real x) { return F_(vdupq_n)(x); }
FA_INLINE vec v_zero(void) { return F_(vdupq_n)(0); }

FA_INLINE vec v_add(vec a, vec b) { return F_(vaddq)(a, b); }
FA_INLINE vec v_sub(vec a, vec b) { return F_(vsubq)(a, b); }
FA_INLINE vec v_mul(vec a, vec b) { return F_(vmulq)(a, b); }
FA_INLINE vec v_div(vec a, vec b) { return F_(vdivq)(a, b); }
FA_INLINE vec v_sqrt(vec a) { return F_(vsqrtq)(a); }
FA_INLINE vec v_fma(vec a, vec b, vec c) { return F_(vfmaq)(c, a, b); }
FA_INLINE vec v_fms(vec a, vec b, vec c) { return F_(vfmaq)(F_(vnegq)(c), a, b); }
FA_INLINE vec v_fnma(vec a, vec b, vec c) { return F_(vfmsq)(c, a, b); }
FA_INLINE vec v_rint(vec a) { return F_(vrndnq)(a); }

FA_INLINE vint v_bits(vec a) { return V_TO_INT(a); }
FA_INLINE vec v_from_bits(vint a) { return V_FROM_INT(a); }
FA_INLINE vint vi_set1(ireal x) { return S_(vdupq_n)(x); }
FA_INLINE vint vi_add(vint a, vint b) { return S_(vaddq)(a, b); }
FA_INLINE vint vi_sub(vint a, vint b) { return S_(vsubq)(a, b); }
FA_INLINE vint vi_and(vint a, vint b) { return S_(vandq)(a, b); }
FA_INLINE vint vi_or(vint a, vint b) { return S_(vorrq)(a, b); }
FA_INLINE vint vi_xor(vint a, vint b) { return S_(veorq)(a, b); }
#define vi_shl(a, k) S_(vshlq_n)(a, k)
#define vi_shr(a, k) M_TO_INT(U_(vshrq_n)(M_FROM_INT(a), k))
FA_INLINE vmask vi_gt(vint a, vint b) { return S_(vcgtq)(a, b); }
FA_INLINE vmask vi_eq(vint a, vint b) { return S_(vceqq)(a, b); }

FA_INLINE vec v_and(vec a, vec b) { return v_from_bits(vi_and(v_bits(a), v_bits(b))); }
FA_INLINE vec v_or(vec a, vec b) { return v_from_bits(vi_or(v_bits(a), v_bits(b))); }
FA_INLINE vec v_xor(vec a, vec b) { return v_from_bits(vi_xor(v_bits(a), v_bits(b))); }
FA_INLINE vec v_andnot(vec a, vec b) { return v_from_bits(S_(vbicq)(v_bits(b), v_bits(a))); }

FA_INLINE vmask v_lt(vec a, vec b) { return F_(vcltq)(a, b); }
FA_INLINE vmask v_le(vec a, vec b) { return F_(vcleq)(a, b); }
FA_INLINE vmask v_gt(vec a, vec b) { return F_(vcgtq)(a, b); }
FA_INLINE vmask v_ge(vec a, vec b) { return F_(vcgeq)(a, b); }
FA_INLINE vmask v_eq(vec a, vec b) { return F_(vceqq)(a, b); }
FA_INLINE vmask m_and(vmask a, vmask b) { return U_(vandq)(a, b); }
FA_INLINE vmask m_or(vmask a, vmask b) { return U_(vorrq)(a, b); }
FA_INLINE vmask m_not(vmask a) { return M_FROM_INT(vi_xor(M_TO_INT(a), vi_set1(-1))); }
FA_INLINE vmask v_isnan(vec a) { return m_not(v_eq(a, a)); }
#if FA_F32
FA_INLINE int m_any(vmask a) { return vmaxvq_u32(a) != 0; }
#else
FA_INLINE int m_any(vmask a) { return (vgetq_lane_u64(a, 0) | vgetq_lane_u64(a, 1)) != 0; }
#endif
FA_INLINE vec v_sel(vmask m, vec a, vec b) { return F_(vbslq)(m, a, b); }
FA_INLINE vint vi_sel(vmask m, vint a, vint b) { return S_(vbslq)(m, a, b); }
/* a < b ? a : b with the second operand for NaN, as on x86 (NEON's own min would return the NaN). */
FA_INLINE vec v_min(vec a, vec b) { return v_sel(v_lt(a, b), a, b); }
FA_INLINE vec v_max(vec a, vec b) { return v_sel(v_gt(a, b), a, b); }

FA_INLINE vec fa_pow2(vec n) {
#if FA_F32
  return v_from_bits(vi_shl(vi_add(vcvtq_s32_f32(n), vi_set1(127)), 23));
#else
  return v_from_bits(vi_shl(vi_add(vcvtq_s64_f64(n), vi_set1(1023)), 52));
#endif
}
FA_INLINE vec v_scale2(vec a, vec n) { /* two exact powers of two, one rounding: see avx2.h */
  vec half = v_rint(v_mul(n, v_set1(R(0.5))));
  return v_mul(v_mul(a, fa_pow2(half)), fa_pow2(v_sub(n, half)));
}

FA_INLINE vec fa_lookup_lanes(const real *table, vint index, ireal mask) {
  ireal lane[VL];
  real out[VL];
  S_(vst1q)(lane, index);
  for (int i = 0; i < VL; i++) out[i] = table[lane[i] & mask];
  return v_load(out);
}
FA_INLINE vec v_lookup16(const real *table, vint index) { return fa_lookup_lanes(table, index, 15); }
FA_INLINE vec v_lookup32(const real *table, vint index) { return fa_lookup_lanes(table, index, 31); }

FA_INLINE real v_hsum(vec a) {
  real lane[VL];
  v_store(lane, a);
#if FA_F32
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
#else
  return lane[0] + lane[1];
#endif
}
FA_INLINE real v_hmax(vec a) {
  real lane[VL], m;
  v_store(lane, a);
  m = lane[0];
  for (int i = 1; i < VL; i++) m = m > lane[i] ? m : lane[i];
  return m;
}
FA_INLINE vec v_zip_lo(vec a, vec b) { return F_(vzip1q)(a, b); }
FA_INLINE vec v_zip_hi(vec a, vec b) { return F_(vzip2q)(a, b); }
