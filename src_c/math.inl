/* Elementary functions over the vector verbs: exp, expm1, the logistic family, tanh and the normal distribution.
 *
 * All are right over the whole range (infinities, NaN, subnormal arguments and results) and the same bits on every
 * instruction set: one body, fused multiply-add everywhere, no reciprocal estimates. Polynomials and tables are in
 * coefficients.h (tools/gen_coeffs.py). The largest errors found are in ulp, float32 over every 29th bit pattern, float64
 * against mpmath at 8000 points; times are ns an element in float32 with AVX-512 on one Zen 5 core, in and out of L2.
 *
 *   function            method                                                             error          time
 *   exp                 n = round(x / ln2), r = x - n ln2 in two words, 1 + r + r^2 Q(r)     1.1 / 1.0      0.10
 *   expm1, x <= 0       2^n p + (2^n - 1), p = r + r^2 Q(r); ln2 in one word                 0.9 / 0.8      0.11
 *   sigmoid             1 / (1 + E), or E / (1 + E) for x < 0; E = exp(-|x|)                 2.3 / 1.9      0.16
 *   sigmoid'            E / (1 + E (E + 2))                                                2.4 / 2.0      0.17
 *   tanh                m / (2 - m), m = 1 - exp(-2|x|)                                      2.5 / 2.4      0.16
 *   log1p(u) / u        16 pieces of [0, 1]                                                0.6 / 0.6      -
 *   log                 2^k m; log m by log1p of m - 1 or of 1 / m - 1                     1.8 / 1.4      -
 *   erf                 t + t P(t^2) up to 9/8, then 1 - Q(t - 9/8)^8                    2.7 / 1.9      -
 *   x - tanh(x), tanh^2 polynomials in x^2 up to 1 (0.9), then by exp(-2|x|)                see docs/accuracy.md
 *   Phi(-t), gelu'      32 pieces of [0, 5.9) ([0, 6.9) in float64), then exp(-t^2 / 2)      2.6, 2.6       0.16
 *                       times a polynomial in 1 / t^2
 *
 * Three rules keep tails exact. Exponentials have negative arguments, so nothing overflows. Scaling by 2^n is the last
 * step, so a subnormal result is rounded once. An argument of exp that is itself a product (beta x, x^2 / 2, the cubic of
 * gelu_tanh) comes as head and tail, since exp turns an absolute error of its argument into a relative one.
 *
 * Tried, no use: a reciprocal estimate with Newton steps instead of the division (0.21 for 0.15); two words of ln2 in
 * expm1 (same error); (1 + E)(1 + E) for the square (4.2 ulp); tanh from a table of 32 pieces (0.17, and 0.9 with AVX2);
 * a table for Phi without the far branch (degree 9, 0.24); centres of pieces on a plain grid (half an ulp more);
 * unrolling the loop over vectors (nothing); erf as t P(t^2) / Q(t^2), degrees 5 and 5 (4 ulp, whatever the fit); erf and
 * x - tanh(x) in 32 pieces (with AVX2 1.05 and 1.00 ns, now 0.64 and 0.75). */
#include "coefficients.h"
#include "cut.inl"
#include "pairs.inl"

#if FA_F32
#define PICK(f32, f64) R(f32)
#define EXPONENT_SHIFT 23
#define EXPONENT_BIAS R(127.0)
#define EXPONENT_MIN R(-126.0)
#else
#define PICK(f32, f64) f64
#define EXPONENT_SHIFT 52
#define EXPONENT_BIAS 1023.0
#define EXPONENT_MIN -1022.0
#endif
#define MAX_FINITE PICK(0x1.fffffep127, 0x1.fffffffffffffp1023)
#define ROOT_RANGE PICK(0x1p60, 0x1p500) /* its square is in range, and 1 is nothing to it */
#define EXP_ZERO PICK(-104.5, -746.0)    /* exp is 0 from here down */
#define EXP_INFINITE PICK(89.0, 710.0)   /* and infinite from here up */

/* c[0] + c[1] x + ... c[count - 1] x^(count - 1), even and odd powers apart: half of Horner's latency. */
FA_INLINE vec math_polynomial(vec x, const real *c, const int count) {
  vec square = v_mul(x, x);
  vec top = v_set1(c[count - 1]), next = v_set1(c[count - 2]);
  FA_UNROLL for (int i = count - 3; i >= 0; i -= 2) {
    top = v_fma(top, square, v_set1(c[i]));
    if (i > 0) next = v_fma(next, square, v_set1(c[i - 1]));
  }
  return (count & 1) ? v_fma(next, x, top) : v_fma(top, x, next);
}

#define MATH_COUNT(array) ((int)(sizeof(array) / sizeof(array[0])))
/* 2^n for integral n whose result is a normal number. */
FA_INLINE vec math_pow2(vec n) {
  return v_from_bits(vi_shl(v_bits(v_add(n, v_set1(ROUND_MAGIC + EXPONENT_BIAS))), EXPONENT_SHIFT));
}

/* ---- Functions of an exponential, by range ----
 *
 * Where scaling by 2^n is nine instructions, they have two bodies. A vector whose arguments of exp, u, are all within `limit`
 * of 0 takes the one that is `near`: 2^n is a normal number there and factors are moderate, so it is multiplied in wherever that
 * is cheapest, and no argument needs a bound. The bits are the same. What ends in _by takes the constant `near`. With AVX2
 * (Zen 3), ns an element in L2: silu 0.72 -> 0.47, its derivative 0.94 -> 0.65, exp 0.39 -> 0.26, swish 0.93 -> 0.61. */
#define MATH_NEAR PICK(39.0, 600.0)    /* 2^n times a factor of 2^-64 is still normal */
#define MATH_NEAR_ROOT PICK(6.2, 24.4) /* its square is near */
/* The root of what is near if the factor of exp(-u^2) is not small: 6.2 is beyond in one of six pieces of 128 normal numbers
 * of deviation 2, 9.2 in one of 2000. */
FA_INLINE vec math_near_root(vec factor) {
  return v_sel(v_ge(v_abs(factor), v_set1(R(0.125))), v_set1(PICK(9.2, 26.4)), v_set1(MATH_NEAR_ROOT));
}
/* By -|u|, which most bodies need anyway. */
FA_INLINE vmask math_beyond(vec u, vec limit) { return v_lt(v_or(u, v_sign_bit()), v_neg(limit)); }
FA_INLINE int math_near(vec u, vec limit) {
  return !FA_SCALES_AT_ONCE && FA_LIKELY(!m_any(math_beyond(u, limit)));
}
/* Returns `result`, an expression of the constant `near`. The halves of a cut body are near; the first tells where u is not. */
#define MATH_RETURN_BY_RANGE(u, limit, cut, result) MATH_RETURN_BY_RANGE_OF(u, v_set1(limit), cut, result)
#define MATH_RETURN_BY_RANGE_OF(u, limit, cut, result)                            \
  do {                                                                            \
    if (cut && cut->part == CUT_FIRST_HALF)                                       \
      *cut->far = m_or(*cut->far, math_beyond(u, limit));                         \
    if (cut || math_near(u, limit)) {                                             \
      const int near = 1;                                                         \
      return result;                                                              \
    } else {                                                                      \
      const int near = 0;                                                         \
      return result;                                                              \
    }                                                                             \
  } while (0)

/* exp(x) = 2^n (1 + p), |p| <= 0.42, p accurate relative to itself. */
typedef struct {
  vec n, p;
} math_exp_parts;

/* n = x / ln2, rounded. */
FA_INLINE vec math_exp_multiple(vec x) {
  return v_sub(v_fma(x, v_set1(LOG2_E), v_set1(ROUND_MAGIC)), v_set1(ROUND_MAGIC));
}
/* Of n and x - n ln2; here a body is cut. */
FA_INLINE math_exp_parts math_exp_of_rest(vec n, vec r, const math_cut *cut) {
  cut_halfway(cut, &n, &r, NULL);
  return (math_exp_parts){n, v_fma(v_mul(r, r), math_polynomial(r, exp_q, MATH_COUNT(exp_q)), r)};
}
/* The parts of exp(x + tail), EXP_ZERO <= x <= EXP_INFINITE, |tail| at most some ulp of x. */
FA_INLINE math_exp_parts math_exp_reduced(vec x, vec tail, const int has_tail, const math_cut *cut) {
  vec n = math_exp_multiple(x);
  vec r = v_fnma(n, v_set1(LN2_TAIL), v_fnma(n, v_set1(LN2_HEAD), x));
  return math_exp_of_rest(n, has_tail ? v_add(r, tail) : r, cut);
}

/* k exp(x) of the parts of exp(x): scaled last, so that a subnormal result has one rounding. */
FA_INLINE vec math_exp_times(math_exp_parts e, vec k, const int near) {
  if (near) k = v_mul(k, math_pow2(e.n));
  vec y = v_fma(k, e.p, k);
  return near ? y : v_scale2(y, e.n);
}

/* exp(x). */
FA_INLINE vec math_exp_by(vec x, const int near, const math_cut *cut) {
  vec inside = near ? x : v_min(v_set1(EXP_INFINITE), v_max(v_set1(EXP_ZERO), x));
  return math_exp_times(math_exp_reduced(inside, inside, 0, cut), v_set1(1), near);
}
FA_INLINE vec math_exp_of(vec x, const math_cut *cut) { MATH_RETURN_BY_RANGE(x, MATH_NEAR, cut, math_exp_by(x, near, cut)); }
FA_INLINE vec math_exp(vec x) { return math_exp_of(x, NULL); }

/* expm1(x + tail) = scale p + (scale - 1) for x <= 0: relative accuracy also next to 0. ln2 in one word is enough, as its
 * error, times n, meets 2^n. */
typedef struct {
  vec scale, p;
} math_expm1_parts;
FA_INLINE math_expm1_parts math_expm1_reduced(vec x, vec tail, const int has_tail, const math_cut *cut) {
  x = v_max(v_set1(PICK(-20.0, -44.0)), x);
  vec n = math_exp_multiple(x), r = v_fnma(n, v_set1(LN2), x);
  math_exp_parts e = math_exp_of_rest(n, has_tail ? v_add(r, tail) : r, cut);
  return (math_expm1_parts){math_pow2(e.n), e.p};
}
FA_INLINE vec math_expm1_negative(vec x, vec tail, const int has_tail, const math_cut *cut) {
  math_expm1_parts e = math_expm1_reduced(x, tail, has_tail, cut);
  return v_fma(e.scale, e.p, v_sub(e.scale, v_set1(1)));
}

/* A product and its rounding error, as an argument of exp: no tail beyond the range of exp, where it could overflow. */
FA_INLINE math_pair math_pair_of(vec head, vec tail, const int near) {
  return (math_pair){head, near ? tail : v_sel(v_lt(v_abs(head), v_set1(PICK(1024.0, 4096.0))), tail, v_zero())};
}
FA_INLINE math_pair math_product_by(vec a, vec b, const int near) {
  vec head = v_mul(a, b);
  return math_pair_of(head, v_fms(a, b, head), near);
}
FA_INLINE math_pair math_product(vec a, vec b) { return math_product_by(a, b, 0); }
/* (a + tail) / b likewise, by the reciprocal of b: a division slows down where a is subnormal. */
FA_INLINE math_pair math_quotient(vec a, vec tail, vec b, const int near) {
  vec inverse = v_div(v_set1(1), b), head = v_mul(a, inverse);
  return math_pair_of(head, v_mul(v_add(v_fnma(head, b, a), tail), inverse), near);
}

/* a / t^2 where t^2 may be out of range, t > 2^30; a product or quotient that underflows costs 30 cycles, this scaling none. */
FA_INLINE vec math_over_square(vec a, vec t) {
  vec part = v_mul(t, v_set1(PICK(0x1p-64, 0x1p-512)));
  return v_scale2(v_div(a, v_mul(part, part)), v_set1(PICK(-128.0, -1024.0)));
}

#define LOGISTIC_ZERO PICK(-150.0, -800.0) /* exp(-|x|) times any moderate factor is 0 from here down */
/* What the sigmoid and its relatives are made of: E = exp(-|x|) = 2^n mantissa = scale (1 + p), and E - 1 to relative
 * accuracy. Near, the mantissa has been scaled already: it is E. */
typedef struct {
  vec n, mantissa, E, E_minus_1, scale, p;
  int near;
} math_logistic;

FA_INLINE math_logistic math_logistic_by(vec x, vec tail, const int has_tail, const int near, const math_cut *cut) {
  vec minus_a = v_or(x, v_sign_bit());
  if (has_tail) tail = v_xor(tail, v_andnot(x, v_sign_bit()));
  math_exp_parts e = math_exp_reduced(near ? minus_a : v_max(v_set1(LOGISTIC_ZERO), minus_a), tail, has_tail, cut);
  vec one = v_set1(1), scale = math_pow2(near ? e.n : v_max(v_set1(EXPONENT_MIN), e.n)), E = v_fma(scale, e.p, scale);
  return (math_logistic){
      e.n, near ? E : v_add(one, e.p), E, v_fma(scale, e.p, v_sub(scale, one)), scale, e.p, near};
}
FA_INLINE math_logistic math_logistic_at(vec x, vec tail, const int has_tail) {
  return math_logistic_by(x, tail, has_tail, 0, NULL);
}
/* Where |x| may be very large: as far as exp(-|x|) is not 0. */
FA_INLINE vec math_logistic_abs(math_logistic l, vec x) { return l.near ? v_abs(x) : v_min(v_set1(-LOGISTIC_ZERO), v_abs(x)); }
FA_INLINE vec math_logistic_above(math_logistic l, vec x) { return l.near ? x : v_max(v_set1(LOGISTIC_ZERO), x); }
/* (1 + E)^2 with the one rounding of 1 + E (E + 2), not the two of (1 + E)(1 + E). */
FA_INLINE vec math_logistic_square(math_logistic l) { return v_fma(l.E, v_add(l.E, v_set1(2)), v_set1(1)); }
FA_INLINE vec math_logistic_cube(math_logistic l) { return v_mul(math_logistic_square(l), v_add(l.E, v_set1(1))); }
/* y, made of the mantissa, as if of E. */
FA_INLINE vec math_logistic_scaled(math_logistic l, vec y) { return l.near ? y : v_scale2(y, l.n); }
/* right for x >= 0 (and NaN), left * E for x < 0; left made of the mantissa, where that is the word. */
FA_INLINE vec math_logistic_halves(math_logistic l, vec x, vec left_of_mantissa, vec right, vec denominator) {
  vmask negative = m_below(x);
  vec quotient = v_div(v_sel(negative, left_of_mantissa, right), denominator);
  return l.near ? quotient : v_scale2(quotient, v_sel(negative, l.n, v_zero()));
}
FA_INLINE vec math_logistic_sides(math_logistic l, vec x, vec left, vec right, vec denominator) {
  return math_logistic_halves(l, x, v_mul(l.mantissa, left), right, denominator);
}

/* 1 / (1 + exp(-x - tail)), as E / (1 + E) on the left. */
FA_INLINE vec math_sigmoid_by(vec x, vec tail, const int has_tail, const int near, const math_cut *cut) {
  math_logistic l = math_logistic_by(x, tail, has_tail, near, cut);
  return math_logistic_halves(l, x, l.mantissa, v_set1(1), v_add(l.E, v_set1(1)));
}
FA_INLINE vec math_sigmoid_of(vec x, const math_cut *cut) {
  MATH_RETURN_BY_RANGE(x, MATH_NEAR, cut, math_sigmoid_by(x, x, 0, near, cut));
}
FA_INLINE vec math_sigmoid(vec x) { return math_sigmoid_of(x, NULL); }

/* Derivatives of sigmoid times a factor: E / (1 + E)^2 and -sign(x) E (1 - E) / (1 + E)^3; the second keeps its relative
 * accuracy at the zero in 0. The factor comes in before the scaling, so tanh'(x) = 4 sigmoid'(2x) has one rounding in
 * the subnormals. */
FA_INLINE vec math_sigmoid_d1_by(vec x, vec tail, const int has_tail, vec factor, const int near, const math_cut *cut) {
  math_logistic l = math_logistic_by(x, tail, has_tail, near, cut);
  return math_logistic_scaled(l, v_div(v_mul(l.mantissa, factor), math_logistic_square(l)));
}
FA_INLINE vec math_sigmoid_d1(vec x, vec factor, const math_cut *cut) {
  MATH_RETURN_BY_RANGE(x, MATH_NEAR, cut, math_sigmoid_d1_by(x, x, 0, factor, near, cut));
}
/* The same for x = a b, with the rounding error of the product. */
FA_INLINE vec math_sigmoid_product_by(vec a, vec b, const int near, const math_cut *cut) {
  math_pair x = math_product_by(a, b, near);
  return math_sigmoid_by(x.head, x.tail, 1, near, cut);
}
FA_INLINE vec math_sigmoid_product(vec a, vec b, const math_cut *cut) {
  MATH_RETURN_BY_RANGE(v_mul(a, b), MATH_NEAR, cut, math_sigmoid_product_by(a, b, near, cut));
}
FA_INLINE vec math_sigmoid_d1_product_by(vec a, vec b, vec factor, const int near, const math_cut *cut) {
  math_pair x = math_product_by(a, b, near);
  return math_sigmoid_d1_by(x.head, x.tail, 1, factor, near, cut);
}
FA_INLINE vec math_sigmoid_d1_product(vec a, vec b, vec factor, const math_cut *cut) {
  MATH_RETURN_BY_RANGE(v_mul(a, b), MATH_NEAR, cut, math_sigmoid_d1_product_by(a, b, factor, near, cut));
}
FA_INLINE vec math_sigmoid_d2(vec x, vec tail, const int has_tail, vec factor) {
  math_logistic l = math_logistic_at(x, tail, has_tail);
  vec quotient = v_div(v_mul(v_mul(l.mantissa, factor), l.E_minus_1), math_logistic_cube(l));
  return v_xor(v_scale2(quotient, l.n), v_and(x, v_sign_bit()));
}

/* tanh(x + tail) = m / (2 - m) with m = 1 - exp(-2|x|), and the sign of x. */
FA_INLINE vec math_tanh_at(vec x, vec tail, const int has_tail, const math_cut *cut) {
  vec a = v_or(x, v_sign_bit());
  if (has_tail) tail = v_xor(v_add(tail, tail), v_andnot(x, v_sign_bit()));
  math_expm1_parts e = math_expm1_reduced(v_add(a, a), tail, has_tail, cut);
  vec m = v_fnma(e.scale, e.p, v_sub(v_set1(1), e.scale));
  return v_or(v_div(m, v_sub(v_set1(2), m)), v_and(x, v_sign_bit()));
}
FA_INLINE vec math_tanh(vec x) { return math_tanh_at(x, x, 0, NULL); }

/* log(1 + u) / u for 0 <= u <= 1. */
FA_INLINE vec math_log1p_ratio(vec u) {
  vint index = v_bits(v_fma(u, v_set1(15), v_set1(ROUND_MAGIC)));
  vec q = v_sub(u, v_lookup16(log1p_at, index));
  vec sum = v_lookup16(log1p_c[MATH_COUNT(log1p_c) - 1], index);
  FA_UNROLL for (int k = MATH_COUNT(log1p_c) - 2; k >= 0; k--) sum = v_fma(sum, q, v_lookup16(log1p_c[k], index));
  return sum;
}

/* log(x): x = 2^k m, sqrt(1/2) <= m < sqrt(2), and log m as that of 1 + u or 1 / (1 + u), so that nothing cancels next to 1. */
FA_INLINE vec math_log(vec x) {
  const vec one = v_set1(1), root_half = v_set1(R(0.70710678)), magic = v_set1(ROUND_MAGIC);
  const vmask tiny = v_lt(x, v_set1(PICK(0x1p-126, 0x1p-1022)));
  const vint bits = v_bits(v_sel(tiny, v_mul(x, v_set1(PICK(0x1p24, 0x1p54))), x));
  const vint exponent = vi_shr(vi_add(bits, vi_sub(v_bits(one), v_bits(root_half))), EXPONENT_SHIFT);
  const vec m = v_from_bits(vi_sub(bits, vi_sub(vi_shl(exponent, EXPONENT_SHIFT), v_bits(one))));
  vec k = v_sub(v_from_bits(vi_add(exponent, v_bits(magic))), v_set1(ROUND_MAGIC + EXPONENT_BIAS));
  k = v_sub(k, v_sel(tiny, v_set1(PICK(24.0, 54.0)), v_zero()));
  const vmask below = v_lt(m, one);
  const vec u = v_sel(below, v_div(v_sub(one, m), m), v_sub(m, one)), size = v_mul(u, math_log1p_ratio(u));
  const vec y = v_fma(k, v_set1(LN2_HEAD), v_fma(k, v_set1(LN2_TAIL), v_sel(below, v_neg(size), size)));
  const vmask ordinary = m_and(v_gt(x, v_zero()), v_lt(x, v_set1(INFINITY)));
  return v_sel(ordinary, y, v_sel(v_eq(x, v_zero()), v_set1(-INFINITY), v_sel(v_gt(x, v_zero()), x, v_set1(NAN))));
}

/* ---- Inverse tangent ---- */

/* atan(z + tail) for 0 <= z <= 1; the tail is small or z is, so that the slope of 1 serves. */
FA_INLINE vec math_atan_unit(vec z, vec tail, const int has_tail) {
  vec w = v_mul(z, z), cube = v_mul(z, w), a = math_polynomial(w, atan_a, MATH_COUNT(atan_a));
  return has_tail ? v_add(z, v_fma(cube, a, tail)) : v_fma(cube, a, z);
}
/* atan(t) for t >= 0, as pi / 2 - atan(1 / t) from 1 on. */
FA_INLINE vec math_atan(vec t) {
  vmask above = v_gt(t, v_set1(1));
  vec a = math_atan_unit(v_sel(above, v_div(v_set1(1), t), t), t, 0);
  return v_sel(above, v_add(v_sub(v_set1(HALF_PI), a), v_set1(HALF_PI_TAIL)), a);
}

/* ---- Tables ---- */

/* A table of 32 pieces over 0 <= t < 31.5 / scale, as MATH_TABLE(name) names it: a lookup and one fma a degree. Lookups by
 * rows are where a body is cut: their offsets come from memory. */
#if FA_LOOKS_UP_ROWS
#define MATH_TABLE(name) name##_rows, MATH_COUNT(name##_c)
FA_INLINE vec math_pieces(vec t, const real scale, const real (*rows)[V_ROW], const int count, const math_cut *cut) {
  vint here, *offsets = cut ? (vint *)cut->state[0] : &here;
  vec c[V_ROW];
  if (cut_begins(cut)) *offsets = v_row_offsets(v_bits(v_fma(t, v_set1(scale), v_set1(ROUND_MAGIC))));
  v_lookup_rows(rows, offsets, c, count + 1);
  vec q = v_sub(t, c[0]), sum = c[count];
  FA_UNROLL for (int k = count - 1; k > 0; k--) sum = v_fma(sum, q, c[k]);
  return sum;
}
#else
#define MATH_TABLE(name) name##_at, name##_c, MATH_COUNT(name##_c)
FA_INLINE vec math_pieces(vec t, const real scale, const real *centres, const real (*c)[32], const int count,
                          const math_cut *cut) {
  (void)cut;
  vint index = v_bits(v_fma(t, v_set1(scale), v_set1(ROUND_MAGIC)));
  vec q = v_sub(t, v_lookup32(centres, index));
  vec sum = v_lookup32(c[count - 1], index);
  FA_UNROLL for (int k = count - 2; k >= 0; k--) sum = v_fma(sum, q, v_lookup32(c[k], index));
  return sum;
}
#endif

/* t - tanh(t) and tanh(t)^2, t >= 0: a polynomial up to TANH_.._NEAR, from there by E = exp(-2t) as (t - 1) + 2E / (1 + E)
 * and 1 - 4E / (1 + E)^2. Both are computed and one is taken: a vector has lanes of both as a rule. */
FA_INLINE vec math_tanh_exponential(vec t, const math_cut *cut) {
  vec u = v_neg(v_add(t, t));
  math_expm1_parts e = math_expm1_reduced(u, u, 0, cut);
  return v_fma(e.scale, e.p, e.scale);
}
FA_INLINE vec math_tanh_rest(vec t, const math_cut *cut) { /* a quarter of t^3 apart: little of P is rounded into the result */
  vec E = math_tanh_exponential(t, cut), w = v_mul(t, t), cube = v_mul(t, w), quarter = v_mul(cube, v_set1(R(0.25)));
  vec near = v_fma(cube, math_polynomial(w, tanh_rest_near, MATH_COUNT(tanh_rest_near)), quarter);
  vec far = v_add(v_sub(t, v_set1(1)), v_div(v_add(E, E), v_add(E, v_set1(1))));
  return v_sel(v_lt(t, v_set1(TANH_REST_NEAR)), near, far);
}
FA_INLINE vec math_tanh_square(vec t, const math_cut *cut) {
  vec E = math_tanh_exponential(t, cut), w = v_mul(t, t), twice = v_add(E, E);
  vec near = v_fma(w, math_polynomial(w, tanh_square_near, MATH_COUNT(tanh_square_near)), w);
  vec far = v_sub(v_set1(1), v_div(v_add(twice, twice), v_fma(E, v_add(E, v_set1(2)), v_set1(1))));
  return v_sel(v_lt(t, v_set1(TANH_SQUARE_NEAR)), near, far);
}

/* erf(t), 0 <= t: t + t P(t^2) up to ERF_NEAR, 1 - Q(t - ERF_NEAR)^8 from there. The 8th root of erfc is a smooth curve, and
 * what rounding does to it hardly counts where erfc is small. 1 at ERF_END; NaN gives NaN. */
FA_INLINE vec math_erf(vec t, const math_cut *cut) {
  vec inside = v_min(v_set1(ERF_END), t), w = v_mul(inside, inside);
  vec near = v_fma(t, math_polynomial(w, erf_near, MATH_COUNT(erf_near)), t);
  vec q = math_polynomial(v_sub(inside, v_set1(ERF_NEAR)), erf_far, MATH_COUNT(erf_far));
  cut_halfway(cut, &near, &q, NULL);
  vec q2 = v_mul(q, q), q4 = v_mul(q2, q2);
  return v_sel(v_lt(t, v_set1(ERF_NEAR)), near, v_fnma(q4, q4, v_set1(1)));
}

/* ---- Normal distribution ---- */

/* The parts of exp(-u^2), and |u|, which is cut where exp(-u^2) times any moderate factor is 0. */
#define GAUSSIAN_ZERO PICK(12.0, 28.2)
typedef struct {
  math_exp_parts e;
  vec t, t_tail;
} math_gaussian;
FA_INLINE math_gaussian math_gaussian_by(math_pair u, const int near, const math_cut *cut) {
  vec t = near ? v_abs(u.head) : v_min(v_set1(GAUSSIAN_ZERO), v_abs(u.head)), tail = v_xor(u.tail, v_and(u.head, v_sign_bit()));
  vec square = v_mul(t, t), square_tail = v_fma(v_add(t, t), tail, v_fms(t, t, square));
  return (math_gaussian){math_exp_reduced(v_neg(square), v_neg(square_tail), 1, cut), t, tail};
}
FA_INLINE math_gaussian math_gaussian_at(math_pair u) { return math_gaussian_by(u, 0, NULL); }

/* exp(-t^2 / 2) f(t^2), 0 <= t; the square enters with its rounding error, as exp multiplies that by t^2. */
#define NORMAL_ZERO PICK(14.9, 39.5) /* t^2 times the density is 0 from here on */
FA_INLINE math_exp_parts math_density(vec t) {
  math_pair h = math_product(t, t);
  vec half = v_set1(R(-0.5));
  return math_exp_reduced(v_mul(half, h.head), v_mul(half, h.tail), 1, NULL);
}

/* Phi(-t) t and its relative Phi(-t) - t phi(t) beyond NORMAL_FAR; rare, so out of line of the common path. */
FA_INLINE vec math_normal_tail_far(vec t, const int slope) {
  t = v_min(v_set1(NORMAL_ZERO), t);
  math_exp_parts e = math_density(t);
  vec inverse = v_div(v_set1(1), t);
  vec g = math_polynomial(v_mul(inverse, inverse), normal_far, MATH_COUNT(normal_far));
  if (slope) g = v_fnma(t, v_set1(DENSITY_0), v_mul(g, inverse));
  return v_scale2(v_mul(v_add(v_set1(1), e.p), g), e.n);
}
