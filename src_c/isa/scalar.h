/* Vector verbs for one lane of plain C: the instruction set that every machine has, and the yardstick for the others.
 * v_fma is C's fma(): always one rounding, slow where the CPU has no such instruction. v_mac, which products
 * use, is a*b+c with two. Meaning of each verb: see ../vec.h. */

#define FA_REGISTERS 16
#define VL 1
typedef real vec;
typedef ireal vint;
typedef int vmask;

#if FA_F32
#define C_(name) name##f
#else
#define C_(name) name
#endif

FA_INLINE vmask m_first(fa_size n) { return n > 0; }
FA_INLINE vec v_load(const real *p) { return *p; }
FA_INLINE void v_store(real *p, vec v) { *p = v; }
FA_INLINE void v_stream(real *p, vec v) { *p = v; }
FA_INLINE vec v_load_n(const real *p, fa_size n) { return n > 0 ? *p : 0; }
FA_INLINE void v_store_n(real *p, vec v, fa_size n) {
  if (n > 0) *p = v;
}
FA_INLINE vec v_set1(real x) { return x; }
FA_INLINE vec v_zero(void) { return 0; }

FA_INLINE vec v_add(vec a, vec b) { return a + b; }
FA_INLINE vec v_sub(vec a, vec b) { return a - b; }
FA_INLINE vec v_mul(vec a, vec b) { return a * b; }
FA_INLINE vec v_div(vec a, vec b) { return a / b; }
FA_INLINE vec v_sqrt(vec a) { return C_(sqrt)(a); }
FA_INLINE vec v_fma(vec a, vec b, vec c) { return C_(fma)(a, b, c); }
FA_INLINE vec v_fms(vec a, vec b, vec c) { return C_(fma)(a, b, -c); }
FA_INLINE vec v_fnma(vec a, vec b, vec c) { return C_(fma)(-a, b, c); }
FA_INLINE vec v_min(vec a, vec b) { return a < b ? a : b; }
FA_INLINE vec v_max(vec a, vec b) { return a > b ? a : b; }

FA_INLINE vint v_bits(vec a) {
  vint i;
  memcpy(&i, &a, sizeof i);
  return i;
}
FA_INLINE vec v_from_bits(vint a) {
  vec v;
  memcpy(&v, &a, sizeof v);
  return v;
}
FA_INLINE vint vi_set1(ireal x) { return x; }
FA_INLINE vint vi_add(vint a, vint b) { return (vint)((ureal)a + (ureal)b); }
FA_INLINE vint vi_sub(vint a, vint b) { return (vint)((ureal)a - (ureal)b); }
FA_INLINE vint vi_and(vint a, vint b) { return a & b; }
FA_INLINE vint vi_or(vint a, vint b) { return a | b; }
FA_INLINE vint vi_xor(vint a, vint b) { return a ^ b; }
FA_INLINE vint vi_shl(vint a, int k) { return (vint)((ureal)a << k); }
FA_INLINE vint vi_shr(vint a, int k) { return (vint)((ureal)a >> k); }
FA_INLINE vmask vi_gt(vint a, vint b) { return a > b; }
FA_INLINE vmask vi_eq(vint a, vint b) { return a == b; }

FA_INLINE vec v_and(vec a, vec b) { return v_from_bits(v_bits(a) & v_bits(b)); }
FA_INLINE vec v_or(vec a, vec b) { return v_from_bits(v_bits(a) | v_bits(b)); }
FA_INLINE vec v_xor(vec a, vec b) { return v_from_bits(v_bits(a) ^ v_bits(b)); }
FA_INLINE vec v_andnot(vec a, vec b) { return v_from_bits(~v_bits(a) & v_bits(b)); }

/* Quiet comparisons: no flag for NaN, whatever the compiler makes of <. */
FA_INLINE vmask v_lt(vec a, vec b) { return isless(a, b); }
FA_INLINE vmask v_le(vec a, vec b) { return islessequal(a, b); }
FA_INLINE vmask v_gt(vec a, vec b) { return isgreater(a, b); }
FA_INLINE vmask v_ge(vec a, vec b) { return isgreaterequal(a, b); }
FA_INLINE vmask v_eq(vec a, vec b) { return a == b; }
FA_INLINE vmask v_isnan(vec a) { return a != a; }
FA_INLINE vmask m_and(vmask a, vmask b) { return a & b; }
FA_INLINE vmask m_or(vmask a, vmask b) { return a | b; }
FA_INLINE vmask m_not(vmask a) { return !a; }
FA_INLINE int m_any(vmask a) { return a; }
FA_INLINE vec v_sel(vmask m, vec a, vec b) { return m ? a : b; }
FA_INLINE vint vi_sel(vmask m, vint a, vint b) { return m ? a : b; }

FA_INLINE vec v_rint(vec a) { return C_(nearbyint)(a); }
/* a * 2^n, one rounding, as in avx2.h: two powers of two, the first product exact. */
FA_INLINE vec fa_pow2(vec n) {
#if FA_F32
  return v_from_bits((vint)((uint32_t)((int32_t)n + 127) << 23));
#else
  return v_from_bits((vint)((uint64_t)((int64_t)n + 1023) << 52));
#endif
}
FA_INLINE vec v_scale2(vec a, vec n) {
  vec half = v_rint(n * R(0.5));
  return (a * fa_pow2(half)) * fa_pow2(n - half);
}
FA_INLINE vec v_lookup16(const real *table, vint index) { return table[index & 15]; }
FA_INLINE vec v_lookup32(const real *table, vint index) { return table[index & 31]; }
FA_INLINE real v_hsum(vec a) { return a; }
FA_INLINE real v_hmax(vec a) { return a; }
FA_INLINE vec v_zip_lo(vec a, vec b) { (void)b; return a; } /* half a lane: never asked for */
FA_INLINE vec v_zip_hi(vec a, vec b) { (void)a; return b; }
#define FA_HAS_MAC 1
FA_INLINE vec v_mac(vec a, vec b, vec c) { return a * b + c; }
