/* Bodies of the pooling kernels: see pooling.h. A tile of columns goes down the steps of its sequence in registers. */

enum {
  POOL_TILE = 8,   /* vectors: 512 bytes of each row with AVX-512 */
  POOL_FLUSH = 32, /* steps that are summed up by themselves, so that the error grows with the square root of T or so */
};

/* Does something with every tile of columns j .. of a sequence: 8, 4 and 2 vectors, and one by one what is left. `vecs`
 * and `whole` are literals there; a vector that is not whole has `count` lanes. */
#define POOL_TILE_OF(n, size, ...)                \
  for (; j + (size)*VL <= (n); j += (size)*VL) {  \
    const int vecs = size, whole = 1;             \
    const fa_size count = VL;                     \
    __VA_ARGS__                                   \
  }
#define POOL_EACH(n, ...)                     \
  do {                                        \
    fa_size j = 0;                            \
    POOL_TILE_OF(n, POOL_TILE, __VA_ARGS__)   \
    POOL_TILE_OF(n, 4, __VA_ARGS__)           \
    POOL_TILE_OF(n, 2, __VA_ARGS__)           \
    for (; j < (n); j += VL) {                \
      const int vecs = 1, whole = 0;          \
      const fa_size count = FA_MIN(VL, (n)-j); \
      __VA_ARGS__                             \
    }                                         \
  } while (0)
#define POOL_VECS(v) FA_UNROLL for (int v = 0; v < vecs; v++)

FA_INLINE vec pool_load(const real *p, const int whole, fa_size count) {
  return whole ? v_load(p) : v_load_n(p, count);
}
FA_INLINE void pool_store(real *p, vec v, const int whole, fa_size count) {
  if (whole)
    v_store(p, v);
  else
    v_store_n(p, v, count);
}
FA_INLINE fa_size pool_length(const fa_pooling_args *a, fa_size b) { return a->lengths ? a->lengths[b] : a->T; }

static void pool_mean(const void *args, fa_size first, fa_size last) {
  const fa_pooling_args *a = args;
  for (fa_size b = first; b < last; b++) {
    const real *x = (const real *)a->x + b * a->x_b;
    const fa_size length = pool_length(a, b);
    const vec share = v_set1((real)(1 / (double)length));
    POOL_EACH(a->n, {
      vec total[POOL_TILE], sum[POOL_TILE];
      POOL_VECS(v) total[v] = v_zero();
      for (fa_size begin = 0; begin < length; begin += POOL_FLUSH) {
        POOL_VECS(v) sum[v] = v_zero();
        for (fa_size t = begin; t < FA_MIN(begin + POOL_FLUSH, length); t++)
          POOL_VECS(v) sum[v] = v_add(sum[v], pool_load(x + t * a->x_t + j + v * VL, whole, count));
        POOL_VECS(v) total[v] = v_add(total[v], sum[v]);
      }
      POOL_VECS(v) pool_store((real *)a->y + b * a->n + j + v * VL, v_mul(total[v], share), whole, count);
    });
  }
}

static void pool_max(const void *args, fa_size first, fa_size last) {
  const fa_pooling_args *a = args;
  for (fa_size b = first; b < last; b++) {
    const real *x = (const real *)a->x + b * a->x_b;
    const fa_size length = pool_length(a, b);
    POOL_EACH(a->n, {
      vec top[POOL_TILE];
      POOL_VECS(v) top[v] = pool_load(x + j + v * VL, whole, count);
      for (fa_size t = 1; t < length; t++) POOL_VECS(v) { /* v_max would drop a NaN that came first */
        const vec now = pool_load(x + t * a->x_t + j + v * VL, whole, count);
        top[v] = v_sel(m_or(v_gt(now, top[v]), v_isnan(now)), now, top[v]);
      }
      POOL_VECS(v) pool_store((real *)a->y + b * a->n + j + v * VL, top[v], whole, count);
    });
  }
}

/* 0 in the steps beyond the length. */
FA_INLINE void pool_clear(const fa_pooling_args *a, real *dx, fa_size length) {
  for (fa_size t = length; t < a->T; t++) memset(dx + t * a->dx_t, 0, (size_t)a->n * sizeof(real));
}

static void pool_mean_backward(const void *args, fa_size first, fa_size last) {
  const fa_pooling_args *a = args;
  for (fa_size b = first; b < last; b++) {
    real *dx = (real *)a->dx + b * a->dx_b;
    const fa_size length = pool_length(a, b);
    const vec share = v_set1((real)(1 / (double)length));
    POOL_EACH(a->n, {
      vec each[POOL_TILE];
      POOL_VECS(v) each[v] = v_mul(pool_load((const real *)a->dy + b * a->n + j + v * VL, whole, count), share);
      for (fa_size t = 0; t < length; t++)
        POOL_VECS(v) pool_store(dx + t * a->dx_t + j + v * VL, each[v], whole, count);
    });
    pool_clear(a, dx, length);
  }
}

static void pool_max_backward(const void *args, fa_size first, fa_size last) {
  const fa_pooling_args *a = args;
  for (fa_size b = first; b < last; b++) {
    const real *x = (const real *)a->x + b * a->x_b;
    real *dx = (real *)a->dx + b * a->dx_b;
    const fa_size length = pool_length(a, b);
    POOL_EACH(a->n, {
      vec top[POOL_TILE], left[POOL_TILE]; /* dy until its step has come, then 0 */
      POOL_VECS(v) {
        top[v] = pool_load((const real *)a->y + b * a->n + j + v * VL, whole, count);
        left[v] = pool_load((const real *)a->dy + b * a->n + j + v * VL, whole, count);
      }
      for (fa_size t = 0; t < length; t++) POOL_VECS(v) {
        const vec now = pool_load(x + t * a->x_t + j + v * VL, whole, count);
        const vmask here = m_or(v_eq(now, top[v]), v_isnan(now));
        pool_store(dx + t * a->dx_t + j + v * VL, v_sel(here, left[v], v_zero()), whole, count);
        left[v] = v_sel(here, v_zero(), left[v]);
      }
    });
    pool_clear(a, dx, length);
  }
}

#define POOLING_KERNELS { pool_mean, pool_mean_backward, pool_max, pool_max_backward }
