/* Bodies of the training kernels: see training.h. */

/* ---- embedding ---- */

/* n elements; the tail is masked so that nothing beyond a row is touched. */
FA_INLINE void row_copy(real *FA_RESTRICT out, const real *FA_RESTRICT x, fa_size n) {
  fa_size j = 0;
  for (; j + VL <= n; j += VL) v_store(out + j, v_load(x + j));
  if (j < n) v_store_n(out + j, v_load_n(x + j, n - j), n - j);
}
FA_INLINE void row_add(real *FA_RESTRICT out, const real *FA_RESTRICT x, fa_size n) {
  fa_size j = 0;
  for (; j + VL <= n; j += VL) v_store(out + j, v_add(v_load(out + j), v_load(x + j)));
  if (j < n) v_store_n(out + j, v_add(v_load_n(out + j, n - j), v_load_n(x + j, n - j)), n - j);
}

static void embedding_forward(const void *args, fa_size first, fa_size last) {
  const fa_embedding_args *a = args;
  const real *table = a->source;
  real *out = a->target;
  for (fa_size i = first; i < last; i++) row_copy(out + i * a->width, table + a->indices[i] * a->width, a->width);
}

/* Threads share the columns, not the indices: each element of the gradient is summed by one thread in the order of the
 * indices. */
static void embedding_backward(const void *args, fa_size first, fa_size last) {
  const fa_embedding_args *a = args;
  fa_size begin = first * FA_EMBEDDING_COLUMNS;
  fa_size width = FA_MIN(last * FA_EMBEDDING_COLUMNS, a->width) - begin;
  const real *dy = (const real *)a->source + begin;
  real *gradient = (real *)a->target + begin;
  for (fa_size i = 0; i < a->count; i++) row_add(gradient + a->indices[i] * a->width, dy + i * a->width, width);
}

/* ---- sums ---- */

/* Sums run in float64 over SUM_LANES chains in plain C, which compilers vectorise as it stands: the order is fixed by the
 * source, so the sum has the same bits on every instruction set. Squares of float32 are exact there and neither
 * overflow nor vanish. */
#define SUM_LANES 32

FA_INLINE double sum_lanes(double *lane) {
  for (int half = SUM_LANES / 2; half > 0; half /= 2)
    for (int k = 0; k < half; k++) lane[k] += lane[k + half];
  return lane[0];
}

static void sum_squares(const void *args, fa_size first, fa_size last) {
  const fa_sum_squares_args *a = args;
  for (fa_size block = first; block < last; block++) {
    const real *x = (const real *)a->x + block * FA_REDUCE_BLOCK;
    fa_size n = FA_MIN(FA_REDUCE_BLOCK, a->n - block * FA_REDUCE_BLOCK), i = 0;
    double lane[SUM_LANES] = {0};
    for (; i + SUM_LANES <= n; i += SUM_LANES)
      for (int k = 0; k < SUM_LANES; k++) lane[k] += (double)x[i + k] * (double)x[i + k];
    for (int k = 0; i + k < n; k++) lane[k] += (double)x[i + k] * (double)x[i + k];
    a->sums[block] = sum_lanes(lane);
  }
}

/* ---- optimiser updates ---- */

/* The settings as vectors. The kernels keep them in registers: read through the argument struct they would be converted
 * and broadcast again at each vector, because a store through a vector may alias anything. */
typedef struct {
  vec gradient_scale, decay, shrink, rate, rate_now, beta1, beta2, gain1, gain2, eps, root_scale, low, high;
} update_settings;
/* w after its decay, g with its own, and the state. */
typedef struct {
  vec w, g, m, v, u;
} update_lanes;
typedef update_lanes (*update_body)(const update_settings *s, update_lanes x);

FA_INLINE update_settings update_read(const fa_update_args *a) {
  return (update_settings){
      .gradient_scale = v_set1((real)a->gradient_scale),
      .decay = v_set1((real)a->decay),
      .shrink = v_set1((real)a->shrink),
      .rate = v_set1((real)a->rate),
      .rate_now = v_set1((real)a->rate_now),
      .beta1 = v_set1((real)a->beta1),
      .beta2 = v_set1((real)a->beta2),
      .gain1 = v_set1((real)(1 - a->beta1)),
      .gain2 = v_set1((real)(1 - a->beta2)),
      .eps = v_set1((real)a->eps),
      .root_scale = v_set1((real)a->root_scale),
      .low = v_set1((real)a->low),
      .high = v_set1((real)a->high),
  };
}

/* `count` lanes at one place; `whole` and `states` are literals. */
FA_INLINE void update_at(const update_settings *s, const update_body body, const int states, real *w, const real *g,
                         real *const *state, fa_size i, const int whole, fa_size count) {
#define LOAD(p) (whole ? v_load((p) + i) : v_load_n((p) + i, count))
#define STORE(p, value) (whole ? v_store((p) + i, value) : v_store_n((p) + i, value, count))
  update_lanes x = {LOAD(w), LOAD(g), v_zero(), v_zero(), v_zero()};
  if (states & FA_STATE_M) x.m = LOAD(state[0]);
  if (states & FA_STATE_V) x.v = LOAD(state[1]);
  if (states & FA_STATE_U) x.u = LOAD(state[2]);
  x.g = v_fma(s->decay, x.w, v_mul(x.g, s->gradient_scale));
  x.w = v_mul(x.w, s->shrink);
  x = body(s, x);
  STORE(w, x.w);
  if (states & FA_STATE_M) STORE(state[0], x.m);
  if (states & FA_STATE_V) STORE(state[1], x.v);
  if (states & FA_STATE_U) STORE(state[2], x.u);
#undef LOAD
#undef STORE
}

/* A rule over whole vectors of the blocks, then over the tail. */
FA_INLINE void update(const fa_update_args *a, fa_size first, fa_size last, const update_body body, const int states) {
  const update_settings s = update_read(a);
  const fa_size begin = first * FA_UPDATE_BLOCK, n = FA_MIN(last * FA_UPDATE_BLOCK, a->n) - begin;
  real *w = (real *)a->parameters + begin, *state[FA_STATES];
  const real *g = (const real *)a->gradients + begin;
  fa_size i = 0;
  for (int k = 0; k < FA_STATES; k++) state[k] = states >> k & 1 ? (real *)a->state[k] + begin : NULL;
  for (; i + VL <= n; i += VL) update_at(&s, body, states, w, g, state, i, 1, VL);
  if (i < n) update_at(&s, body, states, w, g, state, i, 0, n - i);
}

#define RULE(name) FA_INLINE update_lanes name##_rule(const update_settings *s, update_lanes x)
FA_INLINE vec update_squares(const update_settings *s, update_lanes x) { /* v = beta2 v + (1 - beta2) g^2 */
  return v_fma(v_mul(s->gain2, x.g), x.g, v_mul(s->beta2, x.v));
}
FA_INLINE vec update_signed(vec size, vec of) { /* size with the sign of another number; 0 for 0, NaN for NaN */
  return v_sel(v_eq(of, v_zero()), v_zero(), v_sel(v_isnan(of), of, v_copysign(size, of)));
}

RULE(sgd) {
  x.w = v_fnma(s->rate, x.g, x.w);
  return x;
}
RULE(sgd_momentum) {
  x.m = v_fma(s->beta1, x.m, x.g);
  x.w = v_fnma(s->rate, x.m, x.w);
  return x;
}
RULE(sgd_nesterov) {
  x.m = v_fma(s->beta1, x.m, x.g);
  x.w = v_fnma(s->rate, v_fma(s->beta1, x.m, x.g), x.w);
  return x;
}
RULE(adam) {
  x.m = v_fma(s->gain1, v_sub(x.g, x.m), x.m);
  x.v = update_squares(s, x);
  x.w = v_fnma(s->rate, v_div(x.m, v_fma(v_sqrt(x.v), s->root_scale, s->eps)), x.w);
  return x;
}
RULE(amsgrad) {
  x.m = v_fma(s->gain1, v_sub(x.g, x.m), x.m);
  x.v = update_squares(s, x);
  x.u = v_max(x.u, x.v);
  x.w = v_fnma(s->rate, v_div(x.m, v_fma(v_sqrt(x.u), s->root_scale, s->eps)), x.w);
  return x;
}
RULE(nadam) {
  x.m = v_fma(s->gain1, v_sub(x.g, x.m), x.m);
  x.v = update_squares(s, x);
  vec ahead = v_fma(s->rate, x.m, v_mul(s->rate_now, x.g));
  x.w = v_sub(x.w, v_div(ahead, v_fma(v_sqrt(x.v), s->root_scale, s->eps)));
  return x;
}
RULE(lion) {
  x.w = v_sub(x.w, update_signed(s->rate, v_fma(s->gain1, v_sub(x.g, x.m), x.m)));
  x.m = v_fma(s->gain2, v_sub(x.g, x.m), x.m);
  return x;
}
/* g over its root mean square. */
FA_INLINE vec rmsprop_scaled(const update_settings *s, update_lanes *x, const int centered) {
  x->v = update_squares(s, *x);
  vec square = x->v;
  if (centered) {
    x->u = v_fma(s->gain2, v_sub(x->g, x->u), x->u);
    square = v_max(v_zero(), v_fnma(x->u, x->u, x->v)); /* rounding may leave a little less than 0 */
  }
  return v_div(x->g, v_add(v_sqrt(square), s->eps));
}
#define RMSPROP(name, centered, momentum)                                     \
  RULE(name) {                                                                \
    vec step = rmsprop_scaled(s, &x, centered);                               \
    if (momentum) step = x.m = v_fma(s->beta1, x.m, step);                    \
    x.w = v_fnma(s->rate, step, x.w);                                         \
    return x;                                                                 \
  }
RMSPROP(rmsprop, 0, 0)
RMSPROP(rmsprop_centered, 1, 0)
RMSPROP(rmsprop_momentum, 0, 1)
RMSPROP(rmsprop_centered_momentum, 1, 1)
RULE(adagrad) {
  x.v = v_fma(x.g, x.g, x.v);
  x.w = v_fnma(s->rate, v_div(x.g, v_add(v_sqrt(x.v), s->eps)), x.w);
  return x;
}
RULE(adadelta) {
  x.v = update_squares(s, x);
  vec step = v_mul(v_div(v_sqrt(v_add(x.u, s->eps)), v_sqrt(v_add(x.v, s->eps))), x.g);
  x.w = v_fnma(s->rate, step, x.w);
  x.u = v_fma(v_mul(s->gain2, step), step, v_mul(s->beta2, x.u));
  return x;
}
RULE(rprop) {
  vec before = update_signed(v_set1(1), x.m), same = v_mul(before, x.g); /* the product of both may vanish */
  vmask back = v_lt(same, v_zero());
  x.u = v_mul(x.u, v_sel(back, s->beta1, v_sel(v_gt(same, v_zero()), s->beta2, v_set1(1))));
  x.u = v_min(v_max(x.u, s->low), s->high);
  x.m = v_sel(back, v_zero(), x.g);
  x.w = v_sub(x.w, update_signed(x.u, x.m));
  return x;
}
#undef RMSPROP
#undef RULE

#define NONE FA_STATE_NONE
#define M FA_STATE_M
#define V FA_STATE_V
#define U FA_STATE_U
#define UPDATE(name, states) \
  static void update_##name(const void *args, fa_size first, fa_size last) { update(args, first, last, name##_rule, states); }
FA_UPDATES(UPDATE)
#undef UPDATE
#undef NONE
#undef M
#undef V
#undef U

static void zero(const void *args, fa_size first, fa_size last) {
  const fa_update_args *a = args;
  fa_size begin = first * FA_UPDATE_BLOCK, end = FA_MIN(last * FA_UPDATE_BLOCK, a->n);
  memset((real *)a->gradients + begin, 0, (size_t)(end - begin) * sizeof(real));
}

#define UPDATE_ENTRY(name, states) update_##name,
#define TRAINING_KERNELS \
  { embedding_forward, embedding_backward, sum_squares, {FA_UPDATES(UPDATE_ENTRY)}, zero }
