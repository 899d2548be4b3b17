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

/* ---- losses ---- */

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

/* The logarithms of a block's sums are taken as one, of their product: each is between 1 and the number of classes, so
 * sixteen cannot overflow, and a scalar log (6 ns) a row would double the time of 100 classes. */
static void cross_entropy(const void *args, fa_size first, fa_size last) {
  const fa_cross_entropy_args *a = args;
  const fa_size classes = a->classes;
  for (fa_size block = first; block < last; block++) {
    fa_size end = FA_MIN((block + 1) * FA_LOSS_ROWS, a->rows);
    double product = 1, distance = 0; /* of the target's logits below the largest */
    int64_t correct = 0;
    for (fa_size i = block * FA_LOSS_ROWS; i < end; i++) {
      const real *z = (const real *)a->logits + i * classes;
      real *gradient = a->gradient ? (real *)a->gradient + i * classes : NULL;
      const int64_t t = a->targets[i];
      if (a->has_ignored && t == a->ignored) {
        if (gradient) memset(gradient, 0, (size_t)classes * sizeof(real));
        continue;
      }
      const real top = row_max(z, classes);
      const double sum = row_exp(z, top, gradient, classes);
      product *= sum;
      distance += (double)top - (double)z[t];
      if (a->correct) correct += row_first_max(z, top, t);
      if (gradient) {
        row_scale(gradient, (real)(a->scale / sum), classes);
        gradient[t] -= (real)a->scale;
      }
    }
    a->loss[block] = log(product) + distance;
    if (a->correct) a->correct[block] = correct;
  }
}

/* Sums run in float64 over SUM_LANES chains in plain C, which compilers vectorise as it stands: the order is fixed by the
 * source, so the sum has the same bits on every instruction set. Squares of float32 are exact there and neither
 * overflow nor vanish. */
#define SUM_LANES 32

FA_INLINE double sum_lanes(double *lane) {
  for (int half = SUM_LANES / 2; half > 0; half /= 2)
    for (int k = 0; k < half; k++) lane[k] += lane[k + half];
  return lane[0];
}

static void squared_error(const void *args, fa_size first, fa_size last) {
  const fa_squared_error_args *a = args;
  const real *prediction = a->prediction, *target = a->target;
  real *gradient = a->gradient;
  const real scale = (real)a->scale;
  for (fa_size block = first; block < last; block++) {
    fa_size i = block * FA_REDUCE_BLOCK, end = FA_MIN(i + FA_REDUCE_BLOCK, a->n);
    double lane[SUM_LANES] = {0};
    for (; i < end; i += SUM_LANES) {
      fa_size count = FA_MIN(SUM_LANES, end - i);
      real d[SUM_LANES] = {0};
      if (FA_LIKELY(count == SUM_LANES))
        for (int k = 0; k < SUM_LANES; k++) d[k] = prediction[i + k] - target[i + k];
      else
        for (fa_size k = 0; k < count; k++) d[k] = prediction[i + k] - target[i + k];
      for (int k = 0; k < SUM_LANES; k++) lane[k] += (double)d[k] * (double)d[k];
      if (!gradient) continue;
      for (int k = 0; k < SUM_LANES; k++) d[k] *= scale;
      memcpy(gradient + i, d, (size_t)count * sizeof(real));
    }
    a->loss[block] = sum_lanes(lane);
  }
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
  vec gradient_scale, weight_decay, rate, momentum, beta2, gain1, gain2, eps, root_scale;
} update_settings;
typedef struct {
  vec w, g, m, v;
} update_lanes;
typedef update_lanes (*update_body)(const update_settings *s, update_lanes x);

FA_INLINE update_settings update_read(const fa_update_args *a) {
  return (update_settings){
      .gradient_scale = v_set1((real)a->gradient_scale),
      .weight_decay = v_set1((real)a->weight_decay),
      .rate = v_set1((real)a->rate),
      .momentum = v_set1((real)a->momentum),
      .beta2 = v_set1((real)a->beta2),
      .gain1 = v_set1((real)(1 - a->beta1)),
      .gain2 = v_set1((real)(1 - a->beta2)),
      .eps = v_set1((real)a->eps),
      .root_scale = v_set1((real)a->root_scale),
  };
}

/* `body` over whole vectors of the blocks, then over the tail; `moments` says how many state arrays there are. */
FA_INLINE void update(const fa_update_args *a, fa_size first, fa_size last, const update_body body, const int moments) {
  const update_settings s = update_read(a);
  fa_size begin = first * FA_UPDATE_BLOCK, n = FA_MIN(last * FA_UPDATE_BLOCK, a->n) - begin, i = 0;
  real *w = (real *)a->parameters + begin;
  real *m = moments > 0 ? (real *)a->first + begin : NULL, *v = moments > 1 ? (real *)a->second + begin : NULL;
  const real *g = (const real *)a->gradients + begin;
  for (; i + VL <= n; i += VL) {
    update_lanes x = {v_load(w + i), v_load(g + i), v_zero(), v_zero()};
    if (moments > 0) x.m = v_load(m + i);
    if (moments > 1) x.v = v_load(v + i);
    x = body(&s, x);
    v_store(w + i, x.w);
    if (moments > 0) v_store(m + i, x.m);
    if (moments > 1) v_store(v + i, x.v);
  }
  if (i < n) {
    update_lanes x = {v_load_n(w + i, n - i), v_load_n(g + i, n - i), v_zero(), v_zero()};
    if (moments > 0) x.m = v_load_n(m + i, n - i);
    if (moments > 1) x.v = v_load_n(v + i, n - i);
    x = body(&s, x);
    v_store_n(w + i, x.w, n - i);
    if (moments > 0) v_store_n(m + i, x.m, n - i);
    if (moments > 1) v_store_n(v + i, x.v, n - i);
  }
}

/* The gradient as the formulas mean it: scaled (by clipping), with the decay of weights. */
FA_INLINE vec update_gradient(const update_settings *s, update_lanes x) {
  return v_fma(s->weight_decay, x.w, v_mul(x.g, s->gradient_scale));
}

FA_INLINE update_lanes sgd_plain_body(const update_settings *s, update_lanes x) {
  x.w = v_fnma(s->rate, update_gradient(s, x), x.w);
  return x;
}
FA_INLINE update_lanes sgd_momentum_body(const update_settings *s, update_lanes x) {
  x.m = v_fma(s->momentum, x.m, update_gradient(s, x));
  x.w = v_fnma(s->rate, x.m, x.w);
  return x;
}
FA_INLINE update_lanes sgd_nesterov_body(const update_settings *s, update_lanes x) {
  vec g = update_gradient(s, x);
  x.m = v_fma(s->momentum, x.m, g);
  x.w = v_fnma(s->rate, v_fma(s->momentum, x.m, g), x.w);
  return x;
}
FA_INLINE update_lanes adam_body(const update_settings *s, update_lanes x) {
  vec g = update_gradient(s, x);
  x.m = v_fma(s->gain1, v_sub(g, x.m), x.m);
  x.v = v_fma(v_mul(s->gain2, g), g, v_mul(s->beta2, x.v));
  x.w = v_fnma(s->rate, v_div(x.m, v_fma(v_sqrt(x.v), s->root_scale, s->eps)), x.w);
  return x;
}

static void sgd(const void *args, fa_size first, fa_size last) {
  const fa_update_args *a = args;
  if (!a->first)
    update(a, first, last, sgd_plain_body, 0);
  else if (a->nesterov)
    update(a, first, last, sgd_nesterov_body, 1);
  else
    update(a, first, last, sgd_momentum_body, 1);
}
static void adam(const void *args, fa_size first, fa_size last) { update(args, first, last, adam_body, 2); }

static void zero(const void *args, fa_size first, fa_size last) {
  const fa_update_args *a = args;
  fa_size begin = first * FA_UPDATE_BLOCK, end = FA_MIN(last * FA_UPDATE_BLOCK, a->n);
  memset((real *)a->gradients + begin, 0, (size_t)(end - begin) * sizeof(real));
}

#define TRAINING_KERNELS \
  { embedding_forward, embedding_backward, cross_entropy, squared_error, sum_squares, sgd, adam, zero }
