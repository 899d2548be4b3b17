/* Gated linear units: f and f' of an activation's body, multiplied in the registers that they come from. */

/* A part of a row after the other, the last vector of each cut. The products have the order (dy value) f'. */
#define GATED_EACH(...)                                                                      \
  for (fa_size at = first; at < last;) {                                                     \
    const fa_size n = args->n, row = at / n, begin = at % n, end = FA_MIN(n, begin + last - at); \
    for (fa_size i = begin; i < end; i += VL) {                                              \
      const fa_size lanes = end - i, half = 2 * row * n + i, whole = row * n + i;            \
      vec x = gated_load(gate + half, lanes);                                                \
      __VA_ARGS__                                                                            \
    }                                                                                        \
    at += end - begin;                                                                       \
  }
FA_INLINE vec gated_load(const real *p, fa_size lanes) { return FA_LIKELY(lanes >= VL) ? v_load(p) : v_load_n(p, lanes); }
FA_INLINE void gated_store(real *p, vec v, fa_size lanes) {
  if (FA_LIKELY(lanes >= VL))
    v_store(p, v);
  else
    v_store_n(p, v, lanes);
}
#define GATED_KERNELS(kernel, name, is_precise)                                              \
  static void kernel##_forward(const void *arguments, fa_size first, fa_size last) {         \
    const fa_gated_args *args = arguments;                                                   \
    const int precise = is_precise;                                                          \
    const real *value = args->value, *gate = args->gate;                                     \
    real *y = args->y;                                                                       \
    vec p[FA_MAX_PARAMETERS];                                                                \
    FA_UNROLL for (int k = 0; k < FA_MAX_PARAMETERS; k++) p[k] = v_set1((real)args->parameter[k]); \
    GATED_EACH(gated_store(y + whole, v_mul(gated_load(value + half, lanes), name##_f(x, p, precise, NULL)), lanes);) \
  }                                                                                          \
  static void kernel##_backward(const void *arguments, fa_size first, fa_size last) {        \
    const fa_gated_args *args = arguments;                                                   \
    const int precise = is_precise;                                                          \
    const real *value = args->value, *gate = args->gate, *from = args->dy;                   \
    real *dvalue = args->dvalue, *dgate = args->dgate;                                       \
    vec p[FA_MAX_PARAMETERS];                                                                \
    FA_UNROLL for (int k = 0; k < FA_MAX_PARAMETERS; k++) p[k] = v_set1((real)args->parameter[k]); \
    GATED_EACH({                                                                             \
      vec dy = gated_load(from + whole, lanes), slope = v_mul(dy, gated_load(value + half, lanes)); \
      gated_store(dvalue + half, v_mul(dy, name##_f(x, p, precise, NULL)), lanes);                 \
      gated_store(dgate + half, v_mul(slope, name##_d1(x, p, precise, NULL)), lanes);              \
    })                                                                                       \
  }
#define GATED_TIERS(name) GATED_KERNELS(gated_##name, name, 0) GATED_KERNELS(gated_precise_##name, name, 1)
FA_GATES(GATED_TIERS)

static const fa_gated_kernels gated_kernels[FA_MAP_COUNT] = {
#define GATED_ENTRIES(name)                                                                  \
  [FA_ACT_##name] = {gated_##name##_forward, gated_##name##_backward},                       \
  [FA_ACT_COUNT + FA_ACT_##name] = {gated_precise_##name##_forward, gated_precise_##name##_backward},
    FA_GATES(GATED_ENTRIES)
#undef GATED_ENTRIES
};
