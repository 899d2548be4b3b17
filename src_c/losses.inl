/* Bodies of the losses of elements and of rows: see losses.h. */

/* ---- elements ---- */

/* A loss at VL elements, and its derivative by the prediction. */
typedef struct {
  vec term, slope;
} loss_lanes;
/* Prediction, target, parameters; and a choice that is the same for all elements. */
typedef struct {
  vec p, t, a, b, c;
  int extra; /* c != 0 */
} loss_input;
typedef loss_lanes (*loss_body)(loss_input x);

#define LOSS_BODY(name) FA_INLINE loss_lanes name##_loss(loss_input x)
#define LOG_LEAST v_set1(-100) /* of a probability of 0, as in PyTorch; 1e-12 likewise bounds the derivatives */
#define PROBABILITY_LEAST v_set1(R(1e-12))

FA_INLINE vec loss_log(vec value) { return v_sel(v_lt(value, LOG_LEAST), LOG_LEAST, value); }
FA_INLINE vec loss_log_of(vec x) { return loss_log(math_log(x)); }
/* log(1 - x): the rounding error of 1 - x comes in by the slope. */
FA_INLINE vec loss_log_rest(vec x) {
  const vec one = v_set1(1), y = v_sub(one, x), lost = v_sub(v_sub(one, y), x);
  return loss_log(v_add(math_log(y), v_div(lost, v_max(PROBABILITY_LEAST, y))));
}
/* sigmoid(z), sigmoid(-z), and their logarithms with the sign changed: each exact in its own tail. */
typedef struct {
  vec right, left, cost_right, cost_left;
} loss_odds;
FA_INLINE loss_odds loss_odds_at(vec z) {
  const vec zero = v_zero(), E = math_exp(v_or(z, v_sign_bit())), r = v_div(v_set1(1), v_add(E, v_set1(1)));
  const vec base = v_mul(E, math_log1p_ratio(E)), other = v_mul(E, r);
  const vmask negative = v_lt(z, zero);
  return (loss_odds){v_sel(negative, other, r), v_sel(negative, r, other), v_add(base, v_max(zero, v_neg(z))),
                     v_add(base, v_max(zero, z))};
}

LOSS_BODY(squared_error) {
  const vec d = v_sub(x.p, x.t);
  return (loss_lanes){d, v_add(d, d)};
}
LOSS_BODY(absolute_error) {
  const vec d = v_sub(x.p, x.t);
  return (loss_lanes){v_abs(d), update_signed(v_set1(1), d)};
}
LOSS_BODY(huber) {
  const vec d = v_sub(x.p, x.t), size = v_abs(d), half = v_set1(R(0.5));
  const vmask far = v_gt(size, x.a);
  const vec near_term = v_mul(half, v_mul(d, d)), far_term = v_mul(x.a, v_fnma(half, x.a, size));
  return (loss_lanes){v_mul(x.b, v_sel(far, far_term, near_term)), v_mul(x.b, v_sel(far, v_copysign(x.a, d), d))};
}
/* Next to 0 log1p(sinh^2 d) / 2, beyond |d| + log1p(exp(-2|d|)) - log 2; all from m = expm1(-|d|). */
LOSS_BODY(log_cosh) {
  const vec d = v_sub(x.p, x.t), size = v_abs(d), one = v_set1(1), two = v_set1(2);
  const vec m = math_expm1_negative(v_neg(size), size, 0, NULL), E = v_add(one, m), q = v_mul(m, v_add(m, two));
  const vmask far = v_gt(size, v_set1(R(0.875)));
  const vec sinh_d = v_div(q, v_mul(v_add(E, E), v_set1(-1))), u = v_sel(far, v_mul(E, E), v_mul(sinh_d, sinh_d));
  const vec log1p_u = v_mul(u, math_log1p_ratio(u));
  const vec term = v_sel(far, v_add(v_sub(size, v_set1(LN2)), log1p_u), v_mul(v_set1(R(0.5)), log1p_u));
  return (loss_lanes){term, v_copysign(v_div(q, v_add(q, two)), d)};
}
LOSS_BODY(quantile) {
  const vec d = v_sub(x.t, x.p), factor = v_sel(v_gt(d, v_zero()), x.a, v_sub(x.a, v_set1(1)));
  return (loss_lanes){v_mul(d, factor), v_sel(v_eq(d, v_zero()), v_zero(), v_neg(factor))};
}
/* Stirling's approximation of log t!, from t > 1 on. */
FA_INLINE vec loss_stirling(vec t) {
  const vec log_t = math_log(t), half = v_set1(R(0.5));
  const vec sum = v_fma(t, v_sub(log_t, v_set1(1)), v_mul(half, v_add(log_t, v_set1(R(1.8378770664093454836)))));
  return v_sel(v_gt(t, v_set1(1)), sum, v_zero());
}
LOSS_BODY(poisson) {
  const vec rate = v_add(x.p, x.a);
  vec term = v_fnma(x.t, math_log(rate), x.p);
  term = v_sel(v_eq(x.t, v_zero()), x.p, term); /* 0 log 0 */
  if (x.extra) term = v_add(term, loss_stirling(x.t));
  return (loss_lanes){term, v_sub(v_set1(1), v_sel(v_eq(x.t, v_zero()), x.t, v_div(x.t, rate)))};
}
LOSS_BODY(poisson_log) {
  const vec rate = math_exp(x.p);
  vec term = v_fnma(x.t, x.p, rate);
  if (x.extra) term = v_add(term, loss_stirling(x.t));
  return (loss_lanes){term, v_sub(rate, x.t)};
}
LOSS_BODY(binary) {
  const vec one = v_set1(1), wanted = v_mul(x.a, x.t), other = v_sub(one, x.t);
  const vec term = v_fma(wanted, loss_log_of(x.p), v_mul(other, loss_log_rest(x.p)));
  const vec right = v_max(PROBABILITY_LEAST, x.p), left = v_max(PROBABILITY_LEAST, v_sub(one, x.p));
  return (loss_lanes){v_neg(term), v_sub(v_div(other, left), v_div(wanted, right))};
}
LOSS_BODY(binary_logits) {
  const loss_odds o = loss_odds_at(x.p);
  const vec wanted = v_mul(x.a, x.t), other = v_sub(v_set1(1), x.t);
  return (loss_lanes){v_fma(wanted, o.cost_right, v_mul(other, o.cost_left)),
                      v_fms(other, o.right, v_mul(wanted, o.left))};
}
LOSS_BODY(focal) {
  const loss_odds o = loss_odds_at(x.p);
  const vec wanted = v_mul(v_mul(x.b, x.t), math_exp(v_neg(v_mul(x.a, o.cost_left))));
  const vec other = v_mul(v_mul(x.c, v_sub(v_set1(1), x.t)), math_exp(v_neg(v_mul(x.a, o.cost_right))));
  const vec slope_wanted = v_fma(v_mul(x.a, o.right), o.cost_right, o.left);
  const vec slope_other = v_fma(v_mul(x.a, o.left), o.cost_left, o.right);
  return (loss_lanes){v_fma(wanted, o.cost_right, v_mul(other, o.cost_left)),
                      v_fms(other, slope_other, v_mul(wanted, slope_wanted))};
}
/* max(0, a - y p) and its derivative. */
LOSS_BODY(hinge) {
  const vec y = v_sel(v_gt(x.t, v_zero()), v_set1(1), v_set1(-1)), short_by = v_fnma(y, x.p, x.a);
  return (loss_lanes){v_max(v_zero(), short_by), v_sel(v_gt(short_by, v_zero()), v_neg(y), v_zero())};
}
LOSS_BODY(squared_hinge) {
  loss_lanes l = hinge_loss(x);
  l.slope = v_mul(v_add(l.slope, l.slope), l.term);
  return l;
}
LOSS_BODY(probability) {
  const vec wanted = v_fma(x.a, x.t, x.b);
  return (loss_lanes){v_sel(v_eq(wanted, v_zero()), wanted, v_neg(v_mul(wanted, loss_log_of(x.p)))),
                      v_neg(v_div(wanted, v_max(PROBABILITY_LEAST, x.p)))};
}
LOSS_BODY(log_probability) {
  const vec wanted = v_fma(x.a, x.t, x.b);
  return (loss_lanes){v_sel(v_eq(wanted, v_zero()), wanted, v_neg(v_mul(wanted, x.p))), v_neg(wanted)};
}
LOSS_BODY(kl) {
  return (loss_lanes){v_sel(v_eq(x.t, v_zero()), x.t, v_mul(x.t, v_sub(math_log(x.t), x.p))), v_neg(x.t)};
}
LOSS_BODY(kl_log) {
  const vec wanted = math_exp(x.t);
  return (loss_lanes){v_sel(v_eq(wanted, v_zero()), wanted, v_mul(wanted, v_sub(x.t, x.p))), v_neg(wanted)};
}
#undef LOSS_BODY

/* SUM_LANES elements of an operand from i on, of which `count` are there: where they stand if they adjoin, else in
 * room. */
FA_INLINE const real *operand_at(const fa_operand *o, fa_size i, fa_size count, real *room) {
  const real *x = o->data;
  if (FA_LIKELY(o->repeat == 1 && o->period == 0 && count == SUM_LANES)) return x + i;
  fa_size place = i / o->repeat, rest = i % o->repeat;
  if (o->period) place %= o->period;
  for (fa_size k = 0; k < SUM_LANES; k++) {
    room[k] = k < count ? x[place] : 0;
    if (k >= count || ++rest < o->repeat) continue;
    rest = 0;
    if (++place == o->period) place = 0;
  }
  return room;
}

enum { PLAIN, SQUARE };

/* A loss over blocks. Terms are summed as in sum_squares: the same bits on every instruction set. */
FA_INLINE void element_loss(const fa_element_loss_args *x, fa_size first, fa_size last, const loss_body body,
                            const int kind) {
  const fa_operand prediction = {x->prediction, 1, 0};
  const vec scale = v_set1((real)x->scale), low = v_set1((real)x->low), high = v_set1((real)x->high);
  const vec target_low = v_set1((real)x->target_low), target_high = v_set1((real)x->target_high);
  const int bounded = x->low > -INFINITY || x->target_low > -INFINITY;
  real *gradient = x->gradient, *each = x->each, constant[SUM_LANES];
  loss_input at = {.b = v_set1((real)x->b), .c = v_set1((real)x->c), .extra = x->c != 0};
  for (int k = 0; k < SUM_LANES; k++) constant[k] = (real)x->a;
  for (fa_size block = first; block < last; block++) {
    double lane[SUM_LANES] = {0};
    const fa_size end = FA_MIN((block + 1) * FA_LOSS_BLOCK, x->n);
    for (fa_size i = block * FA_LOSS_BLOCK; i < end; i += SUM_LANES) {
      const fa_size count = FA_MIN(SUM_LANES, end - i);
      real rooms[4][SUM_LANES], term[SUM_LANES], slope[SUM_LANES];
      double value[SUM_LANES];
      const int whole = count == SUM_LANES;
      real *slopes = gradient && whole ? gradient + i : slope;
      const real *p = operand_at(&prediction, i, count, rooms[0]), *t = operand_at(&x->target, i, count, rooms[1]);
      const real *a = x->columns.data ? operand_at(&x->columns, i, count, rooms[2]) : constant;
      const real *w = x->weight.data ? operand_at(&x->weight, i, count, rooms[3]) : NULL;
      for (int k = 0; k < SUM_LANES; k += VL) {
        at.p = v_load(p + k), at.t = v_load(t + k), at.a = v_load(a + k);
        loss_lanes l = body(at);
        vec factor = scale;
        if (bounded) {
          const vmask below = m_or(v_lt(at.p, low), v_lt(at.t, target_low));
          const vmask above = m_or(v_gt(at.p, high), v_gt(at.t, target_high));
          l.term = v_sel(m_or(below, above), v_set1(NAN), l.term);
        }
        if (w) {
          const vec weight = v_load(w + k), zero = v_zero();
          const vmask none = v_eq(weight, zero);
          factor = v_mul(scale, weight);
          l = (loss_lanes){v_sel(none, zero, l.term), v_sel(none, zero, l.slope)};
        }
        v_store(term + k, l.term);
        v_store(slopes + k, v_mul(l.slope, factor));
      }
      if (FA_LIKELY(whole && !w && !each)) {
        for (int k = 0; k < SUM_LANES; k++) lane[k] += (double)term[k] * (kind == SQUARE ? (double)term[k] : 1.0);
        continue;
      }
      for (int k = 0; k < SUM_LANES; k++) value[k] = (double)term[k] * (kind == SQUARE ? (double)term[k] : 1.0);
      if (w)
        for (int k = 0; k < SUM_LANES; k++) value[k] *= (double)w[k];
      for (fa_size k = 0; k < count; k++) lane[k] += value[k];
      if (gradient && !whole) memcpy(gradient + i, slope, (size_t)count * sizeof(real));
      if (each)
        for (fa_size k = 0; k < count; k++) each[i + k] = (real)value[k];
    }
    x->loss[block] = sum_lanes(lane);
  }
}

#define LOSS(name, kind) \
  static void element_##name(const void *args, fa_size first, fa_size last) {      \
    element_loss(args, first, last, name##_loss, kind);                             \
  }
FA_ELEMENT_LOSSES(LOSS)
#undef LOSS

/* ---- rows ---- */

FA_INLINE real row_max(const real *z, fa_size n) {
  const vec lowest = v_set1(-(real)INFINITY);
  vec top = lowest;
  fa_size j = 0;
  for (; j + VL <= n; j += VL) top = v_max(v_load(z + j), top);
  if (j < n) top = v_max(v_sel(m_first(n - j), v_load_n(z + j, n - j), lowest), top);
  return v_hmax(top);
}

/* Sum of exp(z - top), each exponential kept in e if there is one. Partial sums of 64 vectors go to float64, so that the
 * error does not grow with the number of classes. */
FA_INLINE double row_exp(const real *z, real top, real *e, fa_size n) {
  enum { FLUSH = 64 * VL };
  const vec shift = v_set1(top);
  double total = 0;
  for (fa_size begin = 0; begin < n; begin += FLUSH) {
    fa_size end = FA_MIN(begin + FLUSH, n), j = begin;
    vec sum = v_zero();
    for (; j + VL <= end; j += VL) {
      vec y = math_exp(v_sub(v_load(z + j), shift));
      if (e) v_store(e + j, y);
      sum = v_add(sum, y);
    }
    if (j < end) {
      vec y = math_exp(v_sub(v_load_n(z + j, end - j), shift));
      if (e) v_store_n(e + j, y, end - j);
      sum = v_add(sum, v_sel(m_first(end - j), y, v_zero()));
    }
    total += (double)v_hsum(sum);
  }
  return total;
}

FA_INLINE void row_scale(real *x, real factor, fa_size n) {
  const vec f = v_set1(factor);
  fa_size j = 0;
  for (; j + VL <= n; j += VL) v_store(x + j, v_mul(v_load(x + j), f));
  if (j < n) v_store_n(x + j, v_mul(v_load_n(x + j, n - j), f), n - j);
}

/* Whether z[t] is the first of the largest, as argmax counts. */
FA_INLINE int row_first_max(const real *z, real top, fa_size t) {
  int earlier = 0;
  if (z[t] != top) return 0;
  for (fa_size j = 0; j < t; j++) earlier |= z[j] == top;
  return !earlier;
}

/* The loss of a row is log(sum) + rest, before the weight of the row; top is its largest number, for argmax. */
typedef struct {
  double sum, rest;
  real top;
} row_loss;
/* A row: its numbers z, class or targets t, and where the gradient goes, times `factor`. */
typedef struct {
  const real *z, *t;
  fa_size label;
  real *gradient; /* or NULL */
  double factor;
} loss_row;

FA_INLINE double class_weight(const fa_row_loss_args *x, fa_size j) {
  return x->class_weight ? (double)((const real *)x->class_weight)[j] : 1.0;
}
/* Shares of a row: w_j (keep t_j + share), t_j = 0 without dense targets. */
typedef struct {
  real keep, share;
} row_shares;
/* At the lanes from j on, 0 beyond the row. */
FA_INLINE vec row_shares_at(const fa_row_loss_args *x, const loss_row *r, row_shares s, fa_size j) {
  const fa_size left = x->classes - j;
  vec wanted = v_set1(s.share);
  if (r->t) wanted = v_fma(v_set1(s.keep), v_load_n(r->t + j, left), wanted);
  if (x->class_weight) wanted = v_mul(wanted, v_load_n((const real *)x->class_weight + j, left));
  return left < VL ? v_sel(m_first(left), wanted, v_zero()) : wanted;
}
/* Their sum, and that of the distances top - z_j, so weighted; summed as in row_exp. */
FA_INLINE double row_shares_sum(const fa_row_loss_args *x, const loss_row *r, row_shares s, real top,
                                double *distance) {
  enum { FLUSH = 64 * VL };
  double total = 0;
  *distance = 0;
  for (fa_size begin = 0; begin < x->classes; begin += FLUSH) {
    vec sum = v_zero(), far = v_zero();
    for (fa_size j = begin; j < FA_MIN(begin + FLUSH, x->classes); j += VL) {
      const vec wanted = row_shares_at(x, r, s, j), below = v_sub(v_set1(top), v_load_n(r->z + j, x->classes - j));
      sum = v_add(sum, wanted);
      far = v_add(far, v_sel(v_eq(wanted, v_zero()), v_zero(), v_mul(wanted, below)));
    }
    total += (double)v_hsum(sum);
    *distance += (double)v_hsum(far);
  }
  return total;
}
/* gradient = scale gradient - factor shares. */
FA_INLINE void row_less_shares(const fa_row_loss_args *x, const loss_row *r, row_shares s, double scale) {
  const vec by = v_set1((real)scale), factor = v_set1((real)r->factor);
  for (fa_size j = 0; j < x->classes; j += VL) {
    const fa_size left = x->classes - j;
    const vec g = v_mul(v_load_n(r->gradient + j, left), by);
    v_store_n(r->gradient + j, v_fnma(factor, row_shares_at(x, r, s, j), g), left);
  }
}

FA_INLINE row_loss cross_entropy_row(const fa_row_loss_args *x, loss_row r) {
  const fa_size n = x->classes;
  const real top = row_max(r.z, n);
  const double sum = row_exp(r.z, top, r.gradient, n), own = (double)top - (double)r.z[r.label];
  if (FA_LIKELY(x->b == 0 && !x->class_weight)) {
    if (r.gradient) {
      row_scale(r.gradient, (real)(r.factor / sum), n);
      r.gradient[r.label] -= (real)r.factor;
    }
    return (row_loss){sum, own, top};
  }
  const row_shares s = {.share = (real)(x->b / (double)n)};
  const double w = (1 - x->b) * class_weight(x, r.label);
  double distance;
  const double all = w + row_shares_sum(x, &r, s, top, &distance);
  if (r.gradient) {
    row_less_shares(x, &r, s, r.factor * all / sum);
    r.gradient[r.label] -= (real)(r.factor * w);
  }
  return (row_loss){1, all * log(sum) + w * own + distance, top};
}

FA_INLINE row_loss dense_cross_entropy_row(const fa_row_loss_args *x, loss_row r) {
  const real top = row_max(r.z, x->classes);
  const row_shares s = {.keep = (real)(1 - x->b), .share = (real)(x->b / (double)x->classes)};
  const double sum = row_exp(r.z, top, r.gradient, x->classes);
  double distance;
  const double all = row_shares_sum(x, &r, s, top, &distance);
  if (r.gradient) row_less_shares(x, &r, s, r.factor * all / sum);
  return (row_loss){1, all * log(sum) + distance, top};
}

FA_INLINE row_loss picked_row(const fa_row_loss_args *x, loss_row r) {
  const double w = class_weight(x, r.label), z = (double)r.z[r.label];
  const int is_log = x->a != 0;
  if (r.gradient) {
    memset(r.gradient, 0, (size_t)x->classes * sizeof(real));
    r.gradient[r.label] = (real)(-r.factor * w / (is_log ? 1.0 : FA_MAX(z, 1e-12)));
  }
  const real top = x->correct ? row_max(r.z, x->classes) : 0; /* else most of a row is never read */
  if (is_log) return (row_loss){1, -w * z, top};
  if (!(z >= 0 && z <= 1)) return (row_loss){1, NAN, top};
  return (row_loss){1, -w * (z > 0 ? FA_MAX(log(z), -100) : -100), top};
}

/* 1 - p comes from the other classes' exponentials alone, log p next to 1 from it: neither cancels. */
FA_INLINE row_loss focal_classes_row(const fa_row_loss_args *x, loss_row r) {
  const fa_size n = x->classes, t = r.label;
  const real top = row_max(r.z, n);
  real *g = r.gradient;
  const double w = class_weight(x, t), below = (double)r.z[t] - (double)top, own = exp(below);
  const double others = row_exp(r.z, top, g, t) + row_exp(r.z + t + 1, top, g ? g + t + 1 : NULL, n - t - 1);
  const double sum = own + others, p = own / sum, rest = others / sum;
  const double log_p = own > 0.5 ? -log1p(others / own) : below - log(sum);
  const double power = pow(rest, x->a);
  if (g) {
    const double slope = w * r.factor * (rest > 0 ? x->a * power / rest * p * log_p - power : x->a > 0 ? 0 : -1);
    row_scale(g, (real)(-slope / sum), n);
    g[t] = (real)(slope * rest);
  }
  return (row_loss){1, -w * power * log_p, top};
}

FA_INLINE row_loss margin_row(const fa_row_loss_args *x, loss_row r) {
  const double unit = class_weight(x, r.label) / (double)x->classes, own = x->a - (double)r.z[r.label];
  double total = 0, slopes = 0;
  for (fa_size j = 0; j < x->classes; j++) {
    const double excess = j == r.label ? 0 : own + (double)r.z[j];
    const double slope = !(excess <= 0) ? unit * (x->b != 0 ? 2 * excess : 1) : 0;
    if (!(excess <= 0)) total += x->b != 0 ? excess * excess : excess;
    slopes += slope;
    if (r.gradient) r.gradient[j] = (real)(r.factor * slope);
  }
  if (r.gradient) r.gradient[r.label] = (real)(-r.factor * slopes);
  return (row_loss){1, unit * total, row_max(r.z, x->classes)};
}

FA_INLINE double row_dot(const real *x, const real *y, fa_size n) {
  double lane[SUM_LANES] = {0};
  fa_size i = 0;
  for (; i + SUM_LANES <= n; i += SUM_LANES)
    for (int k = 0; k < SUM_LANES; k++) lane[k] += (double)x[i + k] * (double)y[i + k];
  for (int k = 0; i + k < n; k++) lane[k] += (double)x[i + k] * (double)y[i + k];
  return sum_lanes(lane);
}
FA_INLINE row_loss cosine_row(const fa_row_loss_args *x, loss_row r) {
  const fa_size n = x->classes;
  const double length = sqrt(row_dot(r.z, r.z, n)), other = FA_MAX(sqrt(row_dot(r.t, r.t, n)), x->a);
  const double unit = 1 / (FA_MAX(length, x->a) * other), cosine = row_dot(r.z, r.t, n) * unit;
  const double back = length > x->a ? cosine / (length * length) : 0;
  if (r.gradient)
    for (fa_size j = 0; j < n; j++) r.gradient[j] = (real)(r.factor * (back * (double)r.z[j] - unit * (double)r.t[j]));
  return (row_loss){1, 1 - cosine, 0};
}

typedef row_loss (*row_loss_body)(const fa_row_loss_args *x, loss_row r);

/* Whether the largest entry, the first of them, is that of the class, or of the largest target. */
static int row_is_correct(const loss_row *r, real top, fa_size n) {
  fa_size t = r->label;
  if (r->t) {
    const real wanted = row_max(r->t, n);
    for (t = 0; t < n - 1 && r->t[t] != wanted; t++) {
    }
  }
  return row_first_max(r->z, top, t);
}

/* The logarithms of a block's sums are taken as one, of their product, where all rows weigh the same: each is between 1
 * and the number of classes, so sixteen cannot overflow, and a scalar log (6 ns) a row would double the time of 100
 * classes. */
FA_INLINE void loss_of_rows(const fa_row_loss_args *x, fa_size first, fa_size last, const row_loss_body body) {
  const fa_size n = x->classes;
  const real *weights = x->weight.data;
  const int plain = !weights && !x->each;
  for (fa_size block = first; block < last; block++) {
    const fa_size end = FA_MIN((block + 1) * FA_LOSS_ROWS, x->rows);
    double product = 1, total = 0, correct = 0;
    for (fa_size i = block * FA_LOSS_ROWS; i < end; i++) {
      const double weight = weights ? (double)weights[i / x->weight.repeat] : 1.0;
      loss_row r = {.z = (const real *)x->prediction + i * n, .factor = x->scale * weight};
      if (x->labels) r.label = x->labels[i];
      if (x->target) r.t = (const real *)x->target + i * n;
      if (x->gradient) r.gradient = (real *)x->gradient + i * n;
      if (weight == 0 || (x->has_ignored && r.label == x->ignored)) {
        if (r.gradient) memset(r.gradient, 0, (size_t)n * sizeof(real));
        if (x->each) ((real *)x->each)[i] = 0;
        continue;
      }
      const row_loss l = body(x, r);
      if (plain) {
        product *= l.sum;
        total += l.rest;
      } else {
        const double loss = weight * (log(l.sum) + l.rest);
        total += loss;
        if (x->each) ((real *)x->each)[i] = (real)loss;
      }
      if (x->correct && row_is_correct(&r, l.top, n))
        correct += weight * (x->size_by_class ? class_weight(x, r.label) : 1.0);
    }
    x->loss[block] = log(product) + total;
    if (x->correct) x->correct[block] = correct;
  }
}

#define LOSS(name) \
  static void row_##name(const void *args, fa_size first, fa_size last) { loss_of_rows(args, first, last, name##_row); }
FA_ROW_LOSSES(LOSS)
#undef LOSS

#define ELEMENT_ENTRY(name, kind) element_##name,
#define ROW_ENTRY(name) row_##name,
#define LOSS_KERNELS {{FA_ELEMENT_LOSSES(ELEMENT_ENTRY)}, {FA_ROW_LOSSES(ROW_ENTRY)}, ctc}
