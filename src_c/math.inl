/* Elementary functions over the vector verbs: exp, expm1, sigmoid, tanh.
 *
 * All are branch-free, right over the whole range (infinities, NaN, subnormal arguments and results), and the same bits
 * on every instruction set. Scaling by 2^n is the last step, so a subnormal result is rounded once. */
#include "coefficients.h"

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

/* exp(x) = 2^n (1 + p), |p| <= 0.42, p accurate relative to itself. */
typedef struct {
  vec n, p;
} math_exp_parts;

/* The parts of exp(x + tail), EXP_ZERO <= x <= EXP_INFINITE, |tail| at most some ulp of x. */
FA_INLINE math_exp_parts math_exp_reduced(vec x, vec tail, const int has_tail) {
  vec n = v_sub(v_fma(x, v_set1(LOG2_E), v_set1(ROUND_MAGIC)), v_set1(ROUND_MAGIC));
  vec r = v_fnma(n, v_set1(LN2_TAIL), v_fnma(n, v_set1(LN2_HEAD), x));
  if (has_tail) r = v_add(r, tail);
  vec q = math_polynomial(r, exp_q, MATH_COUNT(exp_q));
  return (math_exp_parts){n, v_fma(v_mul(r, r), q, r)};
}
FA_INLINE math_exp_parts math_exp_split(vec x) { return math_exp_reduced(x, x, 0); }

/* exp(x). */
FA_INLINE vec math_exp(vec x) {
  vec inside = v_min(v_set1(EXP_INFINITE), v_max(v_set1(EXP_ZERO), x));
  math_exp_parts e = math_exp_split(inside);
  return v_scale2(v_add(v_set1(1), e.p), e.n);
}

/* 1 / (1 + exp(-x)), as exp(-|x|) / (1 + exp(-|x|)) on the left. */
FA_INLINE vec math_sigmoid(vec x) {
  vmask negative = v_lt(x, v_zero());
  math_exp_parts e = math_exp_split(v_max(v_set1(EXP_ZERO), v_or(x, v_sign_bit())));
  vec one = v_set1(1), mantissa = v_add(one, e.p);
  vec denominator = v_fma(mantissa, math_pow2(v_max(v_set1(EXPONENT_MIN), e.n)), one);
  return v_scale2(v_div(v_sel(negative, mantissa, one), denominator), v_sel(negative, e.n, v_zero()));
}

/* tanh(x) = -m / (m + 2) with m = expm1(-2|x|), and the sign of x. */
FA_INLINE vec math_tanh(vec x) {
  vec a = v_or(x, v_sign_bit());
  math_exp_parts e = math_exp_split(v_max(v_set1(PICK(-20.0, -44.0)), v_add(a, a)));
  vec scale = math_pow2(e.n);
  vec m = v_fma(scale, e.p, v_sub(scale, v_set1(1)));
  return v_copysign(v_div(m, v_add(m, v_set1(2))), x);
}

/* Derivatives of sigmoid times a power of two, with E = exp(-|x|): E / (1 + E)^2 and -sign(x) E (1 - E) / (1 + E)^3. The
 * square as 1 + E (E + 2) has one rounding, not the two of (1 + E)(1 + E); 1 - E from expm1 keeps the zero of the second
 * at 0. The factor comes in before the scaling, so tanh(x)' = 4 sigmoid(2x)' is rounded once in the subnormals. */
FA_INLINE vec math_sigmoid_d1(vec x, real factor) {
  math_exp_parts e = math_exp_split(v_max(v_set1(EXP_ZERO), v_or(x, v_sign_bit())));
  vec one = v_set1(1), mantissa = v_add(one, e.p);
  vec E = v_mul(mantissa, math_pow2(v_max(v_set1(EXPONENT_MIN), e.n)));
  return v_scale2(v_div(v_mul(mantissa, v_set1(factor)), v_fma(E, v_add(E, v_set1(2)), one)), e.n);
}
FA_INLINE vec math_sigmoid_d2(vec x, real factor) {
  math_exp_parts e = math_exp_split(v_max(v_set1(EXP_ZERO), v_or(x, v_sign_bit())));
  vec one = v_set1(1), mantissa = v_add(one, e.p), scale = math_pow2(v_max(v_set1(EXPONENT_MIN), e.n));
  vec E = v_mul(mantissa, scale), difference = v_fma(scale, e.p, v_sub(scale, one));
  vec cube = v_mul(v_fma(E, v_add(E, v_set1(2)), one), v_add(E, one));
  vec quotient = v_div(v_mul(v_mul(mantissa, v_set1(factor)), difference), cube);
  return v_xor(v_scale2(quotient, e.n), v_and(x, v_sign_bit()));
}
