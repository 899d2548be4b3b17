/* Elementary functions in double words, for the precise tier: the same reductions and tables as in math.inl, every step
 * that costs more than about a tenth of an ulp with its rounding error kept.
 *
 * A result is a pair good to about 2^-26 (float32) or 2^-55 (float64) relative to it, so an activation that makes its
 * value of them and rounds once is off by 0.5 and a little, 0.75 where a subnormal result is rounded again. Largest errors
 * in ulp of f, f', f'' in float32 over every 61st bit pattern, and ns an element with AVX-512 on one Zen 5 core in L2
 * (the default tier: sigmoid 0.18, tanh 0.15, silu 0.19, softplus 0.43, gelu 0.18, gelu_tanh 0.32, mish 0.25):
 *
 *   activation    error                 time, float32            float64
 *   exponential   1.00  1.00  1.00      0.12  0.12  0.12         0.33  0.33  0.33
 *   sigmoid       0.75  0.76  0.87      0.33  0.39  0.57         0.78  0.91  1.37
 *   tanh          0.89  0.75  0.86      0.37  0.42  0.61         0.86  0.98  1.51
 *   silu          0.78  0.78  0.78      0.42  0.59  0.63         0.97  1.38  1.51
 *   softplus      0.75  0.75  0.76      0.79  0.44  0.53         2.17  1.04  1.20
 *   gelu          0.77  0.77  0.77      0.40  0.38  0.36         1.48  1.43  0.85
 *   gelu_tanh     0.75  0.76  0.77      0.60  0.85  0.97         1.35  1.92  2.16
 *   mish          0.80  0.78  0.94      0.64  0.76  1.00         1.47  1.75  2.22
 *
 * The time is the latency of a chain of 90 to 150 operations more than their number: two vectors a pass, interleaved by
 * the compiler's scheduler (MAP_KERNEL's `ahead`), took sigmoid from 0.38 to 0.33 and mish' from 1.10 to 0.80. */

/* ---- Exponentials ---- */

/* exp(x) = 2^n (1 + p), EXP_ZERO <= x <= EXP_INFINITE; p is accurate relative to itself where n = 0. */
typedef struct {
  vec n;
  math_pair p;
} pair_exp;

FA_INLINE pair_exp pair_exp_at(math_pair x, const int has_tail) {
  vec n = math_exp_multiple(x.head), part = v_fnma(n, v_set1(LN2_HEAD), x.head);
  vec head = v_fnma(n, v_set1(LN2_TAIL), part), rest = v_fnma(n, v_set1(LN2_TAIL), v_sub(part, head));
  math_pair r = {head, rest};
  if (has_tail) r = pair_fast_sum(head, v_add(rest, x.tail)); /* the tail may be many ulp of r */
  vec curve = math_polynomial(r.head, exp_q_pair, MATH_COUNT(exp_q_pair));
  return (pair_exp){n, pair_fast_sum(r.head, v_fma(v_mul(r.head, r.head), curve, v_fma(r.tail, r.head, r.tail)))};
}
FA_INLINE math_pair pair_exp_mantissa(pair_exp e) { return pair_shift(v_set1(1), e.p); }
/* exp(x), at most 1.02 ulp off by the longer polynomial alone. */
FA_INLINE vec pair_exp_round(vec x) {
  vec n = math_exp_multiple(x), r = v_fnma(n, v_set1(LN2_TAIL), v_fnma(n, v_set1(LN2_HEAD), x));
  vec p = v_fma(v_mul(r, r), math_polynomial(r, exp_q_pair, MATH_COUNT(exp_q_pair)), r);
  return v_scale2(v_add(v_set1(1), p), n);
}
/* k exp(x). */
FA_INLINE vec pair_exp_times_round(pair_exp e, math_pair k) {
  return v_scale2(pair_mul_round(pair_exp_mantissa(e), k), e.n);
}

/* As math_logistic: E = exp(-|x|) = 2^n mantissa, E - 1 relative to itself, 1 + E. */
typedef struct {
  vec n, scale;
  math_pair mantissa, E, E_minus_1, one_plus_E;
} pair_logistic;

FA_INLINE pair_logistic pair_logistic_at(math_pair x, const int has_tail) {
  vec one = v_set1(1), tail = v_xor(x.tail, v_andnot(x.head, v_sign_bit()));
  math_pair minus_a = {v_max(v_set1(LOGISTIC_ZERO), v_or(x.head, v_sign_bit())), tail};
  pair_exp e = pair_exp_at(minus_a, has_tail);
  vec scale = math_pow2(v_max(v_set1(EXPONENT_MIN), e.n));
  vec below = v_sub(scale, one), below_tail = v_sub(scale, v_add(below, one)); /* scale - 1 takes two words from 2^-24 down */
  math_pair mantissa = pair_exp_mantissa(e), E = pair_scale(mantissa, scale);
  vec sum = v_fma(scale, mantissa.head, one), sum_tail = v_fma(scale, mantissa.head, v_sub(one, sum));
  math_pair minus = pair_fast_sum(below, v_mul(scale, e.p.head));
  minus.tail = v_add(minus.tail, v_fma(scale, e.p.tail, below_tail));
  return (pair_logistic){e.n, scale, mantissa, E, minus, {sum, v_fma(scale, mantissa.tail, sum_tail)}};
}
/* value 2^n for x < 0, value elsewhere. */
FA_INLINE vec pair_logistic_side(pair_logistic l, vec x, vec value) {
  return v_scale2(value, v_sel(v_lt(x, v_zero()), l.n, v_zero()));
}
FA_INLINE math_pair pair_logistic_cube(pair_logistic l) { return pair_mul(pair_square(l.one_plus_E), l.one_plus_E); }

/* The numerator of sigmoid(x) over 1 + E, the power of two apart. */
FA_INLINE math_pair pair_sigmoid_over(pair_logistic l, vec x) {
  return pair_sel(v_lt(x, v_zero()), l.mantissa, pair_of(v_set1(1)));
}
FA_INLINE vec pair_sigmoid_round(math_pair x, const int has_tail) {
  pair_logistic l = pair_logistic_at(x, has_tail);
  return pair_logistic_side(l, x.head, pair_div_round(pair_sigmoid_over(l, x.head), l.one_plus_E));
}
/* x sigmoid(u), where u has the sign of x. */
FA_INLINE vec pair_silu_round(vec x, pair_logistic l, vec u) {
  math_pair s = pair_div(pair_sigmoid_over(l, u), l.one_plus_E);
  vec bounded = v_sel(v_gt(u, v_set1(LOGISTIC_ZERO)), x, v_and(x, v_sign_bit()));
  return v_sel(v_gt(u, v_set1(-LOGISTIC_ZERO)), x, v_copysign(pair_logistic_side(l, u, pair_times_round(s, bounded)), x));
}
/* factor sigmoid'(x), and factor sigmoid''(x). */
FA_INLINE vec pair_sigmoid_d1_round(math_pair x, const int has_tail, math_pair factor) {
  pair_logistic l = pair_logistic_at(x, has_tail);
  return v_scale2(pair_div_round(pair_mul(l.mantissa, factor), pair_square(l.one_plus_E)), l.n);
}
FA_INLINE vec pair_sigmoid_d2_round(math_pair x, const int has_tail, math_pair factor) {
  pair_logistic l = pair_logistic_at(x, has_tail);
  math_pair numerator = pair_mul(pair_mul(l.mantissa, l.E_minus_1), factor);
  return v_xor(v_scale2(pair_div_round(numerator, pair_logistic_cube(l)), l.n), v_and(x.head, v_sign_bit()));
}

/* tanh(|x|), from E of 2x. */
FA_INLINE math_pair pair_tanh_abs(math_pair x, const int has_tail) {
  math_pair m = pair_logistic_at(pair_scale(x, v_set1(2)), has_tail).E_minus_1;
  return pair_div(pair_neg(m), pair_shift(v_set1(2), m));
}

/* 1 - a for |a| <= 1. */
FA_INLINE math_pair pair_one_minus(math_pair a) { return pair_shift(v_set1(1), pair_neg(a)); }
/* `left` 2^n at x < 0, and 1 minus that elsewhere: the derivatives of x sigmoid(x) and its kin. */
FA_INLINE vec pair_complement_round(pair_logistic l, vec x, math_pair left) {
  vec right = pair_round(pair_one_minus(pair_scale(left, l.scale)));
  return v_sel(v_lt(x, v_zero()), v_scale2(pair_round(left), l.n), right);
}

/* log(1 + u) / u for 0 <= u <= 1. */
FA_INLINE math_pair pair_log1p_ratio(math_pair u) {
  vint index = v_bits(v_fma(u.head, v_set1(15), v_set1(ROUND_MAGIC)));
  vec q = v_add(v_sub(u.head, v_lookup16(log1p_at, index)), u.tail);
  vec sum = v_lookup16(log1p_c[MATH_COUNT(log1p_c) - 1], index), c = v_lookup16(log1p_c[0], index);
  FA_UNROLL for (int k = MATH_COUNT(log1p_c) - 2; k >= 1; k--) sum = v_fma(sum, q, v_lookup16(log1p_c[k], index));
  vec ratio = v_fma(sum, q, c);
  return (math_pair){ratio, v_fma(sum, q, v_sub(c, ratio))};
}
/* log(1 + E) = 2^n times this. */
FA_INLINE math_pair pair_log1p(pair_logistic l) { return pair_mul(l.mantissa, pair_log1p_ratio(l.E)); }

/* ---- Tables ---- */

/* As math_pieces, for x = t + tail; the two lowest coefficients have tails. The product is added to the constant as
 * head and tail, since next to a piece with a root the sum is an eighth of the constant, whose half ulp then counts. */
FA_INLINE math_pair pair_pieces(math_pair x, const real scale, const real *centres, const real (*c)[32], const int count,
                                const real (*tails)[32]) {
  vint index = v_bits(v_fma(x.head, v_set1(scale), v_set1(ROUND_MAGIC)));
  vec q = v_sub(x.head, v_lookup32(centres, index)), sum = v_lookup32(c[count - 1], index);
  FA_UNROLL for (int k = count - 2; k >= 2; k--) sum = v_fma(sum, q, v_lookup32(c[k], index));
  vec c1 = v_lookup32(c[1], index), slope = v_fma(sum, q, c1);
  vec slope_tail = v_add(v_fma(sum, q, v_sub(c1, slope)), v_lookup32(tails[1], index));
  math_pair rise = pair_product(slope, q), y = pair_fast_sum(v_lookup32(c[0], index), rise.head);
  vec y_tail = v_add(v_add(y.tail, rise.tail), v_lookup32(tails[0], index));
  return (math_pair){y.head, v_fma(slope, x.tail, v_fma(slope_tail, q, y_tail))};
}
#define PAIR_TABLE(name) name##_at, name##_c, MATH_COUNT(name##_c), name##_tail

/* ---- Inverse tangent ---- */

/* atan(z), 0 <= z <= 1, with A in powers of z^2 - 1/2; the slope at the tail is that of the chord. */
FA_INLINE math_pair pair_atan_unit(math_pair z) {
  math_pair w = pair_product(z.head, z.head);
  vec v = v_sub(w.head, v_set1(R(0.5)));
  vec rest = v_mul(v, math_polynomial(v, atan_a_pair + 1, MATH_COUNT(atan_a_pair) - 1));
  math_pair a = pair_fast_sum(v_set1(atan_a_pair[0]), v_add(v_set1(ATAN_A_PAIR_TAIL), rest));
  math_pair curve = pair_mul(pair_times(w, z.head), a);
  math_pair y = pair_fast_add(pair_of(z.head), curve);
  return (math_pair){y.head, v_add(y.tail, v_mul(z.tail, v_fnma(v_set1(R(0.5)), w.head, v_set1(1))))};
}
/* pi / 2 - a. */
FA_INLINE math_pair pair_below_half_pi(math_pair a) {
  return pair_fast_add((math_pair){v_set1(HALF_PI), v_set1(HALF_PI_TAIL)}, pair_neg(a));
}

/* ---- Gaussians ---- */

/* exp(-u^2) and |u|, cut as in math_gaussian_at. */
typedef struct {
  pair_exp e;
  math_pair t;
} pair_gaussian;
FA_INLINE pair_gaussian pair_gaussian_at(math_pair u) {
  math_pair t = {v_min(v_set1(GAUSSIAN_ZERO), v_abs(u.head)), v_xor(u.tail, v_and(u.head, v_sign_bit()))};
  return (pair_gaussian){pair_exp_at(pair_neg(pair_square(t)), 1), t};
}
/* exp(-t^2 / 2), 0 <= t <= NORMAL_ZERO. */
FA_INLINE pair_exp pair_density(vec t) { return pair_exp_at(pair_scale(pair_product(t, t), v_set1(R(-0.5))), 1); }
FA_INLINE math_pair pair_density_0(void) { return (math_pair){v_set1(DENSITY_0), v_set1(DENSITY_0_TAIL)}; }

/* As math_normal_tail_far: t Phi(-t), or Phi(-t) - t phi(t). */
FA_INLINE vec pair_normal_tail_far_round(vec t, const int slope) {
  t = v_min(v_set1(NORMAL_ZERO), t);
  vec inverse = v_div(v_set1(1), t), w = v_mul(inverse, inverse), c0 = v_set1(normal_far[0]);
  vec rest = v_mul(w, math_polynomial(w, normal_far + 1, MATH_COUNT(normal_far) - 1));
  math_pair g = pair_fast_sum(c0, rest);
  if (slope) g = pair_sub(pair_times(g, inverse), pair_times(pair_density_0(), t));
  return pair_exp_times_round(pair_density(t), g);
}

/* ---- Roots ---- */

/* 1 / t^2 times a where t^2 may be out of range, t > 2^30. */
FA_INLINE vec pair_over_square_round(math_pair a, math_pair t) {
  t.head = v_min(v_set1(MAX_FINITE), t.head);
  math_pair part = pair_scale(t, v_set1(PICK(0x1p-64, 0x1p-512)));
  return v_scale2(pair_div_round(a, pair_square(part)), v_set1(PICK(-128.0, -1024.0)));
}
/* a + b t^2, a and b t^2 not negative. */
FA_INLINE math_pair pair_square_sum(vec a, vec b, math_pair t) {
  math_pair s = pair_times(pair_square(t), b);
  return pair_add(pair_of(a), s);
}
