/* Double-word arithmetic over the vector verbs: a pair stands for the exact sum of a head and a tail of the element type.
 *
 * The tail is at most an ulp or two of the head and mostly half of one, so a pair carries 46 bits in float32 and 104 in
 * float64. Products and quotients lose a few units of the square of eps, and so do sums that do not cancel. Nothing here
 * may overflow, and residuals of products below the normal range vanish: callers scale by 2^n last. Verbs that end in
 * `round` give one word, with one rounding of half an ulp and next to nothing else.
 *
 * The methods are Dekker's and Knuth's with the residuals from fused multiply-add (Joldes, Muller and Popescu, 2017). */

typedef struct {
  vec head, tail;
} math_pair;

FA_INLINE math_pair pair_of(vec a) { return (math_pair){a, v_zero()}; }
FA_INLINE math_pair pair_neg(math_pair a) { return (math_pair){v_neg(a.head), v_neg(a.tail)}; }
FA_INLINE math_pair pair_sel(vmask m, math_pair a, math_pair b) {
  return (math_pair){v_sel(m, a.head, b.head), v_sel(m, a.tail, b.tail)};
}
FA_INLINE vec pair_round(math_pair a) { return v_add(a.head, a.tail); }

/* ---- Sums ---- */

/* a + b exactly, for |a| >= |b| or a = 0 (Fast2Sum), and for any two (2Sum). */
FA_INLINE math_pair pair_fast_sum(vec a, vec b) {
  vec head = v_add(a, b);
  return (math_pair){head, v_sub(b, v_sub(head, a))};
}
FA_INLINE math_pair pair_sum(vec a, vec b) {
  vec head = v_add(a, b), part = v_sub(head, a);
  return (math_pair){head, v_add(v_sub(a, v_sub(head, part)), v_sub(b, part))};
}
/* a + b, for |a| >= |b| and for any two; not renormalised: tails add up, and count for more where heads cancel. */
FA_INLINE math_pair pair_fast_add(math_pair a, math_pair b) {
  math_pair s = pair_fast_sum(a.head, b.head);
  return (math_pair){s.head, v_add(s.tail, v_add(a.tail, b.tail))};
}
FA_INLINE math_pair pair_add(math_pair a, math_pair b) {
  math_pair s = pair_sum(a.head, b.head);
  return (math_pair){s.head, v_add(s.tail, v_add(a.tail, b.tail))};
}
FA_INLINE math_pair pair_sub(math_pair a, math_pair b) { return pair_add(a, pair_neg(b)); }
/* a + b of one word a, |a| >= |b|. */
FA_INLINE math_pair pair_shift(vec a, math_pair b) {
  math_pair s = pair_fast_sum(a, b.head);
  return (math_pair){s.head, v_add(s.tail, b.tail)};
}

/* ---- Products ---- */

FA_INLINE math_pair pair_product(vec a, vec b) {
  vec head = v_mul(a, b);
  return (math_pair){head, v_fms(a, b, head)};
}
FA_INLINE math_pair pair_mul(math_pair a, math_pair b) {
  math_pair p = pair_product(a.head, b.head);
  return (math_pair){p.head, v_fma(a.head, b.tail, v_fma(a.tail, b.head, p.tail))};
}
FA_INLINE math_pair pair_square(math_pair a) {
  math_pair p = pair_product(a.head, a.head);
  return (math_pair){p.head, v_fma(v_add(a.head, a.head), a.tail, p.tail)};
}
FA_INLINE math_pair pair_times(math_pair a, vec b) {
  math_pair p = pair_product(a.head, b);
  return (math_pair){p.head, v_fma(a.tail, b, p.tail)};
}
FA_INLINE math_pair pair_scale(math_pair a, vec power_of_2) {
  return (math_pair){v_mul(a.head, power_of_2), v_mul(a.tail, power_of_2)};
}
FA_INLINE vec pair_mul_round(math_pair a, math_pair b) {
  return v_fma(a.head, b.head, v_fma(a.head, b.tail, v_mul(a.tail, b.head)));
}
FA_INLINE vec pair_times_round(math_pair a, vec b) { return v_fma(a.head, b, v_mul(a.tail, b)); }

/* ---- Quotients and roots: the residual of the head is exact, and its quotient needs no more than the head's inverse ---- */

FA_INLINE math_pair pair_inverse(math_pair a) {
  vec inverse = v_div(v_set1(1), a.head);
  return (math_pair){inverse, v_mul(v_fnma(inverse, a.tail, v_fnma(inverse, a.head, v_set1(1))), inverse)};
}
FA_INLINE math_pair pair_div(math_pair a, math_pair b) {
  vec inverse = v_div(v_set1(1), b.head), q = v_mul(a.head, inverse);
  vec rest = v_add(v_fnma(q, b.head, a.head), v_fnma(q, b.tail, a.tail));
  return (math_pair){q, v_mul(rest, inverse)};
}
FA_INLINE vec pair_div_round(math_pair a, math_pair b) {
  vec inverse = v_div(v_set1(1), b.head), q = v_mul(a.head, inverse);
  vec rest = v_add(v_fnma(q, b.head, a.head), v_fnma(q, b.tail, a.tail));
  return v_fma(rest, inverse, q);
}
FA_INLINE vec pair_over_round(math_pair a, vec b) {
  vec inverse = v_div(v_set1(1), b), q = v_mul(a.head, inverse);
  return v_fma(v_add(v_fnma(q, b, a.head), a.tail), inverse, q);
}
FA_INLINE math_pair pair_sqrt(math_pair a) { /* a > 0 */
  vec s = v_sqrt(a.head), rest = v_add(v_fnma(s, s, a.head), a.tail);
  return (math_pair){s, v_div(v_mul(v_set1(R(0.5)), rest), s)};
}
