/* Elementary functions in double words, for the precise tier: the same reductions and tables as in math.inl, every step
 * that costs more than about a tenth of an ulp with its rounding error kept.
 *
 * A result is a pair good to about 2^-26 (float32) or 2^-55 (float64) relative to it, so an activation that makes its
 * value of them and rounds once is off by 0.5 and a little, 0.75 where a subnormal result is rounded again. Largest errors
 * in ulp of f, f', f'' in float32 over every 61st bit pattern, and ns an element with AVX-512 on one Zen 5 core in L2
 * (the default tier: sigmoid 0.18, tanh 0.15, silu 0.19, softplus 0.43, gelu 0.18, gelu_tanh 0.32, mish 0.25):
 *
 *   activation    error                 time, float32            float64
 *   exponential   0.75  0.75  0.75      0.12  0.12  0.12         0.29  0.29  0.29
 *   sigmoid       0.75  0.75  0.75      0.27  0.27  0.40         0.61  0.63  0.89
 *   tanh          0.75  0.75  0.75      0.14  0.29  0.42         0.69  0.67  0.96
 *   silu          0.76  0.76  0.77      0.31  0.39  0.46         0.72  0.86  1.04
 *   softplus      1.02  0.75  0.75      0.49  0.34  0.37         1.42  0.80  0.86
 *   gelu          0.76  0.76  0.76      0.30  0.27  0.28         1.31  1.24  0.63
 *   gelu_tanh     0.75  0.77  0.75      0.45  0.61  0.83         1.01  1.35  1.79
 *   mish          0.80  0.87  0.95      0.50  0.61  0.85         1.15  1.43  1.80
 *
 * The time is the latency of a chain of 60 to 120 operations more than their number, so every body is cut in two (math_cut):
 * one loop over 16 vectors leaves off in the middle of a chain, the next takes it up. With the two vectors a turn that the
 * compiler's scheduler interleaves, that took sigmoid from 0.29 to 0.25 and tanh in float64 from 0.85 to 0.69. Before the cut,
 * the table of sixteenths in exp took sigmoid from 0.33 to 0.29, float64 from 0.79 to 0.63. The tail of the reduced argument,
 * which only expm1 needs, is computed and stored for all: 0.25 to 0.27 for sigmoid.
 *
 * Tried, no use: loops over 8 (0.31 for sigmoid) or 32 vectors (the same); one vector a turn of the two loops (0.26); tanh of
 * degree 7 (0.18 for 0.17); mish' from a table of 32 pieces of mish' exp(t) (0.44 and 1.2 ulp, but 1.86 for 1.38 in float64);
 * the cut behind the table of powers instead of before it (0.28 for sigmoid); a cut in exp and gelu'' (0.15 and 0.32). */

/* ---- Exponentials ---- */

/* exp(x) = 2^n power (1 + p), EXP_ZERO <= x <= EXP_INFINITE, with power = 2^(k / 16) from a table of head and tail: |p| is at
 * most 1 / 45, so its tail and that of its argument are next to nothing beside 1. They count where 1 is taken off again. */
typedef struct {
  vec n;
  math_pair power, p, mantissa; /* mantissa = power (1 + p) */
} pair_exp;
#define SIXTEENTH_MAGIC (ROUND_MAGIC / 16 + EXPONENT_BIAS)

FA_INLINE pair_exp pair_exp_at(math_pair x, const int has_tail, const math_cut *cut) {
  vec magic = v_set1(SIXTEENTH_MAGIC), sum = magic;
  math_pair p = {magic, magic};
  if (cut_begins(cut)) {
    sum = v_fma(x.head, v_set1(LOG2_E), magic);
    vec sixteenths = v_sub(sum, magic);
    vec part = v_fnma(sixteenths, v_set1(LN2_HEAD), x.head), head = v_fnma(sixteenths, v_set1(LN2_TAIL), part);
    math_pair r = {head, v_fnma(sixteenths, v_set1(LN2_TAIL), v_sub(part, head))};
    if (has_tail) r = pair_fast_sum(r.head, v_add(r.tail, x.tail)); /* the tail may be many ulp of r */
    vec square = v_mul(r.head, r.head), curve = math_polynomial(r.head, exp_q_sixteenth, MATH_COUNT(exp_q_sixteenth));
    p.head = v_fma(square, curve, r.head);
    p.tail = v_add(v_fma(square, curve, v_sub(r.head, p.head)), r.tail);
  }
  cut_halfway(cut, &sum, &p.head, &p.tail);
  vint steps = v_bits(sum); /* 16 (n + EXPONENT_BIAS) + k in the low bits */
  vec n = v_sub(v_from_bits(vi_and(steps, vi_set1(~15))), magic);
  math_pair power = {v_lookup16(exp_powers[0], steps), v_lookup16(exp_powers[1], steps)};
  return (pair_exp){n, power, p, pair_fast_sum(power.head, v_fma(power.head, p.head, power.tail))};
}
/* k exp(x). */
FA_INLINE vec pair_exp_times_round(pair_exp e, math_pair k) { return v_scale2(pair_mul_round(e.mantissa, k), e.n); }

/* exp(x); too short for a cut. */
FA_INLINE vec pair_exp_round(vec x) {
  pair_exp e = pair_exp_at(pair_of(x), 0, NULL);
  return v_scale2(e.mantissa.head, e.n);
}

/* As math_logistic: E = exp(-|x|) = 2^n mantissa, E - 1 relative to itself, 1 + E. */
typedef struct {
  vec n, scale;
  math_pair mantissa, E, E_minus_1, one_plus_E;
} pair_logistic;

FA_INLINE pair_logistic pair_logistic_at(math_pair x, const int has_tail, const math_cut *cut) {
  vec one = v_set1(1), tail = v_xor(x.tail, v_andnot(x.head, v_sign_bit()));
  math_pair minus_a = {v_max(v_set1(LOGISTIC_ZERO), v_or(x.head, v_sign_bit())), tail};
  pair_exp e = pair_exp_at(minus_a, has_tail, cut);
  vec scale = math_pow2(v_max(v_set1(EXPONENT_MIN), e.n));
  math_pair E = pair_scale(e.mantissa, scale);
  vec sum = v_fma(scale, e.mantissa.head, one), sum_tail = v_fma(scale, e.mantissa.head, v_sub(one, sum));
  /* power - 1 takes two words from 2^-24 down */
  vec power = v_mul(scale, e.power.head), below = v_sub(power, one), below_tail = v_sub(power, v_add(below, one));
  math_pair rise = pair_product(e.power.head, e.p.head), minus = pair_fast_sum(below, v_mul(scale, rise.head));
  vec rise_tail = v_fma(e.power.head, e.p.tail, v_add(rise.tail, e.power.tail));
  minus.tail = v_add(minus.tail, v_fma(scale, rise_tail, below_tail));
  return (pair_logistic){e.n, scale, e.mantissa, E, minus, {sum, v_fma(scale, e.mantissa.tail, sum_tail)}};
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
FA_INLINE vec pair_sigmoid_round(math_pair x, const int has_tail, const math_cut *cut) {
  pair_logistic l = pair_logistic_at(x, has_tail, cut);
  return pair_logistic_side(l, x.head, pair_div_round(pair_sigmoid_over(l, x.head), l.one_plus_E));
}
/* x sigmoid(u), where u has the sign of x; x is bounded where the result is 0. */
FA_INLINE vec pair_silu_round(vec x, pair_logistic l, vec u) {
  math_pair s = pair_div(pair_sigmoid_over(l, u), l.one_plus_E);
  return v_sel(v_gt(u, v_set1(-LOGISTIC_ZERO)), x, v_copysign(pair_logistic_side(l, u, pair_times_round(s, x)), x));
}
/* sigmoid'(x) and sigmoid''(x) times a factor that `numerator`, the mantissa otherwise, has taken in. */
FA_INLINE vec pair_sigmoid_d1_round(pair_logistic l, math_pair numerator) {
  return v_scale2(pair_div_round(numerator, pair_square(l.one_plus_E)), l.n);
}
FA_INLINE vec pair_sigmoid_d2_round(pair_logistic l, math_pair numerator, vec x) {
  vec curve = pair_div_round(pair_mul(numerator, l.E_minus_1), pair_logistic_cube(l));
  return v_xor(v_scale2(curve, l.n), v_and(x, v_sign_bit()));
}

/* tanh(|x|), from E of 2x. */
FA_INLINE math_pair pair_tanh_abs(math_pair x, const int has_tail, const math_cut *cut) {
  math_pair m = pair_logistic_at(pair_scale(x, v_set1(2)), has_tail, cut).E_minus_1;
  return pair_div(pair_neg(m), pair_shift(v_set1(2), m));
}

/* 1 - a; exact also for a > 1, as the head is then a multiple of its last place. */
FA_INLINE math_pair pair_one_minus(math_pair a) {
  vec one = v_set1(1), head = v_sub(one, a.head);
  return (math_pair){head, v_sub(v_sub(v_sub(one, head), a.head), a.tail)};
}
/* E value on the left of 0 and 1 - E value on the right: the derivatives of x sigmoid(x) and its kin. The right is at least
 * 1 / 2, so that rounding E value first costs a quarter of an ulp. */
FA_INLINE vec pair_logistic_step_round(pair_logistic l, vec x, math_pair value) {
  vmask left = v_lt(x, v_zero());
  math_pair factor = pair_scale(l.mantissa, v_sel(left, v_set1(1), v_neg(l.scale)));
  vec base = v_sel(left, v_zero(), v_set1(1));
  return v_scale2(v_add(base, pair_mul_round(value, factor)), v_sel(left, l.n, v_zero()));
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
FA_INLINE math_pair pair_pieces(math_pair x, const int has_tail, const real scale, const real *centres, const real (*c)[32],
                                const int count, const real (*tails)[32], const math_cut *cut) {
  vec place = v_fma(x.head, v_set1(scale), v_set1(ROUND_MAGIC)), q = place, sum = place;
  if (cut_begins(cut)) {
    q = v_sub(x.head, v_lookup32(centres, v_bits(place))), sum = v_lookup32(c[count - 1], v_bits(place));
    FA_UNROLL for (int k = count - 2; k >= count / 2; k--) sum = v_fma(sum, q, v_lookup32(c[k], v_bits(place)));
  }
  cut_halfway(cut, &place, &q, &sum);
  vint index = v_bits(place);
  FA_UNROLL for (int k = count / 2 - 1; k >= 2; k--) sum = v_fma(sum, q, v_lookup32(c[k], index));
  vec c1 = v_lookup32(c[1], index), slope = v_fma(sum, q, c1);
  vec slope_tail = v_add(v_fma(sum, q, v_sub(c1, slope)), v_lookup32(tails[1], index));
  math_pair rise = pair_product(slope, q), y = pair_fast_sum(v_lookup32(c[0], index), rise.head);
  vec y_tail = v_fma(slope_tail, q, v_add(v_add(y.tail, rise.tail), v_lookup32(tails[0], index)));
  return (math_pair){y.head, has_tail ? v_fma(slope, x.tail, y_tail) : y_tail};
}
/* A table of 16 pieces over 0 <= t < 15 shift, whose width grows with t: four an octave of t + shift. One word, for constant
 * terms that are nearly exact: the rounding error of the slope is kept, which is all there is in the piece around a zero. */
FA_INLINE vec pair_log_pieces_round(vec t, const real shift, const real *centres, const real (*c)[16], const int count,
                                    const math_cut *cut) {
  vec place = v_add(t, v_set1(shift)), q = v_zero(), sum = v_zero();
  if (cut_begins(cut)) {
    vint index = vi_shr(v_bits(place), EXPONENT_SHIFT - 2);
    q = v_sub(t, v_lookup16(centres, index)), sum = v_lookup16(c[count - 1], index);
    FA_UNROLL for (int k = count - 2; k >= count / 2; k--) sum = v_fma(sum, q, v_lookup16(c[k], index));
  }
  cut_halfway(cut, &place, &q, &sum);
  vint index = vi_shr(v_bits(place), EXPONENT_SHIFT - 2);
  FA_UNROLL for (int k = count / 2 - 1; k >= 2; k--) sum = v_fma(sum, q, v_lookup16(c[k], index));
  vec c1 = v_lookup16(c[1], index), slope = v_fma(sum, q, c1), slope_tail = v_fma(sum, q, v_sub(c1, slope));
  return v_fma(slope, q, v_fma(slope_tail, q, v_lookup16(c[0], index)));
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
FA_INLINE pair_gaussian pair_gaussian_at(math_pair u, const math_cut *cut) {
  math_pair t = {v_min(v_set1(GAUSSIAN_ZERO), v_abs(u.head)), v_xor(u.tail, v_and(u.head, v_sign_bit()))};
  return (pair_gaussian){pair_exp_at(pair_neg(pair_square(t)), 1, cut), t};
}
/* exp(-t^2 / 2), 0 <= t <= NORMAL_ZERO. */
FA_INLINE pair_exp pair_density(vec t) { return pair_exp_at(pair_scale(pair_product(t, t), v_set1(R(-0.5))), 1, NULL); }
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
