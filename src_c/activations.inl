/* Activation kernels: the map drivers over the bodies of activations.def, and their table. */

/* ---- Map: out[i] = f(in[0][i], ...) -------------------------------------------------------------------------
 *
 * Every kernel is one loop over whole vectors; each operand is read at in[i & mask], mask -1 for an array and 0 for a value that
 * repeats (in then points to a vector of copies). The elements left over go through the same loop once more, from a padded
 * copy on the stack, so a value never depends on its place. Operands at other strides are gathered in blocks. */
enum { MAP_OPERANDS = 2 + FA_MAX_PARAMETERS, MAP_BLOCK = 256 };
#define MAP_STREAM_BYTES ((fa_size)32 << 20) /* non-temporal stores from this footprint on: pays beyond the L3 */

typedef struct {
  const real *in[MAP_OPERANDS];
  fa_size mask[MAP_OPERANDS];
  real *out;
  fa_size n;   /* elements of the next pass: whole vectors */
  int stream;  /* non-temporal stores */
  fa_size rest; /* elements after it; -1 when the pass is over the rest */
  real *rest_out;
  FA_ALIGN(64) real repeated[MAP_OPERANDS][VL];
  FA_ALIGN(64) real tail[MAP_OPERANDS + 1][VL];
} map_run;

FA_NOINLINE void map_blocks(const fa_map_args *args, int operands, fa_map_kernel kernel) {
  FA_ALIGN(64) real buffer[MAP_OPERANDS + 1][MAP_BLOCK];
  fa_map_args block = {.out = buffer[MAP_OPERANDS], .out_stride = sizeof(real)};
  for (int k = 0; k < operands; k++) {
    block.in[k] = args->in_stride[k] ? buffer[k] : args->in[k];
    block.in_stride[k] = args->in_stride[k] ? (fa_size)sizeof(real) : 0;
  }
  for (fa_size start = 0; start < args->n; start += MAP_BLOCK) {
    block.n = FA_MIN(MAP_BLOCK, args->n - start);
    for (int k = 0; k < operands; k++) {
      fa_size stride = args->in_stride[k];
      const char *in = (const char *)args->in[k] + start * stride;
      if (stride)
        for (fa_size i = 0; i < block.n; i++) buffer[k][i] = *(const real *)(in + i * stride);
    }
    kernel(&block);
    char *out = (char *)args->out + start * args->out_stride;
    for (fa_size i = 0; i < block.n; i++) *(real *)(out + i * args->out_stride) = buffer[MAP_OPERANDS][i];
  }
}

/* Stores past the caches pay for a large result apart from its inputs; they need an aligned address. */
FA_NOINLINE int map_streams(const fa_map_args *args, int operands) {
  fa_size total = FA_MAX(args->total, args->n), arrays = 1;
  uintptr_t out = (uintptr_t)args->out, bytes = (uintptr_t)args->n * sizeof(real);
  for (int k = 0; k < operands; k++) {
    uintptr_t in = (uintptr_t)args->in[k];
    if (in < out + bytes && out < in + bytes) return 0;
    arrays += args->in_stride[k] != 0;
  }
  return total * arrays * (fa_size)sizeof(real) >= MAP_STREAM_BYTES && out % sizeof(real) == 0;
}

/* Prepares the first pass; 0 if the work is already done. */
FA_INLINE int map_begin(map_run *run, const fa_map_args *args, const int operands, fa_map_kernel kernel) {
  int direct = args->out_stride == (fa_size)sizeof(real);
  for (int k = 0; k < operands; k++) direct &= args->in_stride[k] == 0 || args->in_stride[k] == (fa_size)sizeof(real);
  if (args->n <= 0) return 0;
  if (!direct) {
    map_blocks(args, operands, kernel);
    return 0;
  }
  fa_size start = 0;
  run->stream = 0;
  if (FA_UNLIKELY(FA_MAX(args->n, args->total) * 2 * (fa_size)sizeof(real) >= MAP_STREAM_BYTES / 2) &&
      map_streams(args, operands)) {
    run->stream = 1;
    start = (fa_size)((64 - (uintptr_t)args->out % 64) % 64 / sizeof(real));
    if (start > 0) {
      fa_map_args head = *args;
      head.n = FA_MIN(start, args->n);
      head.total = 0;
      kernel(&head);
    }
    if (start >= args->n) return 0;
  }
  for (int k = 0; k < operands; k++) {
    const real *in = args->in[k];
    if (args->in_stride[k]) {
      run->mask[k] = -1;
      run->in[k] = in + start;
    } else {
      run->mask[k] = 0;
      run->in[k] = run->repeated[k];
      v_store(run->repeated[k], v_set1(*in));
    }
  }
  run->out = (real *)args->out + start;
  run->n = (args->n - start) / VL * VL;
  run->rest = args->n - start - run->n;
  return 1;
}

/* Prepares the pass over the rest, or stores it; 0 when all is done. */
FA_INLINE int map_next(map_run *run, const int operands) {
  if (run->rest < 0) {
    v_store_n(run->rest_out, v_load(run->tail[MAP_OPERANDS]), -run->rest);
    return 0;
  }
  if (run->rest == 0) return 0;
  for (int k = 0; k < operands; k++) {
    v_store(run->tail[k], v_load_n(run->in[k] + (run->n & run->mask[k]), run->mask[k] ? run->rest : VL));
    run->in[k] = run->tail[k];
  }
  run->rest_out = run->out + run->n;
  run->out = run->tail[MAP_OPERANDS];
  run->n = VL;
  run->rest = -run->rest;
  run->stream = 0;
  return 1;
}

/* A kernel of `data` arrays (dy first, where there are two; the last one is the body's x) and `count` parameters. The
 * fields of the run are copied to locals: vector stores may alias anything, and the loop would read them again. `held`: no
 * parameter is an array, and what the body makes of them alone is computed once.
 * `halved`: chains of dependent operations too long for the CPU to look past, those of the precise bodies and on some
 * instruction sets (FA_CUTS_ALL) the others, run as two loops over up to MAP_AHEAD vectors, two a turn, the second from where
 * the first left them (math_cut). The last ones of a call, if they are four at least, do so, too: AVX2 on Zen 3, 24 vectors of
 * sigmoid in 7 % less time, 8 of tanh in 20 % less. */
enum { MAP_AHEAD = 16 };
#define MAP_LOAD(k, i) v_load(in[k] + ((i) & mask[k]))
#define MAP_BODY(data, count, held, i, result, y)                                  \
  vec p[FA_MAX_PARAMETERS];                                                        \
  FA_UNROLL for (int k = 0; k < count; k++) p[k] = held ? parameter[k] : MAP_LOAD(data + k, i); \
  vec dy = MAP_LOAD(0, i), x = MAP_LOAD(data - 1, i);                              \
  y = result;                                                                      \
  (void)dy, (void)p;
#define MAP_STORE(i, y)                   \
  do {                                    \
    if (stream) v_stream(out + (i), y);   \
    else v_store(out + (i), y);           \
  } while (0)
#define MAP_PART(data, count, held, result, part, store)                           \
  for (int j = 0; j < ahead; j += 2) {                                             \
    vec y[2];                                                                      \
    FA_UNROLL for (int v = 0; v < 2; v++) {                                        \
      const math_cut half = {part, {state[0] + j + v, state[1] + j + v, state[2] + j + v}, &far}, *cut = &half; \
      MAP_BODY(data, count, held, i + (j + v) * VL, result, y[v])                  \
      (void)cut;                                                                   \
    }                                                                              \
    FA_UNROLL for (int v = 0; v < 2; v++) store;                                   \
  }
#define MAP_LOOP(data, count, halved, held, result)                                \
  while (i < n) {                                                                  \
    fa_size end = n;                                                               \
    const int ahead = (int)FA_MIN(MAP_AHEAD, (n - i) / VL) & ~1;                   \
    if (halved && ahead >= 4) {                                                    \
      vec state[3][MAP_AHEAD];                                                     \
      vmask far = m_first(0);                                                      \
      MAP_PART(data, count, held, result, CUT_FIRST_HALF, (void)y[v])              \
      if (FA_LIKELY(!m_any(far))) {                                                \
        MAP_PART(data, count, held, result, CUT_SECOND_HALF, MAP_STORE(i + (j + v) * VL, y[v])) \
        i += ahead * VL;                                                           \
        continue;                                                                  \
      }                                                                            \
      end = i + ahead * VL;                                                        \
    }                                                                              \
    const math_cut *cut = NULL;                                                    \
    for (; i < end; i += VL) {                                                     \
      vec y;                                                                       \
      MAP_BODY(data, count, held, i, result, y)                                    \
      MAP_STORE(i, y);                                                             \
    }                                                                              \
    (void)cut;                                                                     \
  }
#define MAP_KERNEL(kernel, data, count, is_precise, halved, result)                \
  static void kernel(const fa_map_args *args) {                                    \
    const int precise = is_precise;                                                \
    map_run run;                                                                   \
    if (!map_begin(&run, args, data + count, kernel)) return;                      \
    do {                                                                           \
      const real *in[data + count];                                                \
      fa_size mask[data + count];                                                  \
      FA_UNROLL for (int k = 0; k < data + count; k++) in[k] = run.in[k], mask[k] = run.mask[k]; \
      real *out = run.out;                                                         \
      const fa_size n = run.n;                                                     \
      const int stream = run.stream;                                               \
      fa_size i = 0;                                                               \
      vec parameter[FA_MAX_PARAMETERS];                                            \
      int held = 1;                                                                \
      FA_UNROLL for (int k = data; k < data + count; k++) held &= mask[k] == 0;    \
      if (held) {                                                                  \
        FA_UNROLL for (int k = 0; k < count; k++) parameter[k] = v_load(in[data + k]); \
        MAP_LOOP(data, count, halved, 1, result)                                   \
      } else {                                                                     \
        MAP_LOOP(data, count, 0, 0, result)                                        \
      }                                                                            \
      (void)precise;                                                               \
    } while (map_next(&run, data + count));                                        \
  }

/* ---- The bodies and their kernels ---- */
#if defined(__GNUC__)
#define BODY_UNUSED __attribute__((unused))
#else
#define BODY_UNUSED
#endif
#define BODY(name)                                                                             \
  FA_INLINE vec name(vec x BODY_UNUSED, const vec *p BODY_UNUSED, const int precise BODY_UNUSED, \
                     const math_cut *cut BODY_UNUSED)
/* A constant, NaN where x is. */
FA_INLINE vec constant_at(vec x, real value) { return v_sel(v_isnan(x), x, v_set1(value)); }
/* right where x > 0, left elsewhere, NaN where x is. */
FA_INLINE vec if_positive(vec x, real right, vec left) {
  return v_sel(v_gt(x, v_zero()), v_set1(right), v_sel(v_isnan(x), x, left));
}

#define ACTIVATION_BODIES
#define ACTIVATION(...)
#include "activations.def"
#undef ACTIVATION
#undef ACTIVATION_BODIES

/* f'(x) is dy f'(x) for a dy of 1, to the bit; a body of its own would be but one operation shorter. */
FA_NOINLINE void map_derivative1(const fa_map_args *args, int count, fa_map_kernel backward_x) {
  static const real one = 1;
  fa_map_args own = *args;
  for (int k = 0; k < 1 + count; k++) own.in[1 + k] = args->in[k], own.in_stride[1 + k] = args->in_stride[k];
  own.in[0] = &one, own.in_stride[0] = 0;
  backward_x(&own);
}

/* The kernels of a tier: `kernel` is their common name, name or precise_name. */
#define KERNEL_Y_x(kernel, name, count, precise, halved)
#define KERNEL_Y_either(kernel, name, count, is_precise, halved) \
  MAP_KERNEL(kernel##_backward_y, 2, count, is_precise, halved, v_mul(dy, name##_dy(x, p, precise, cut)))
#define MAP_KERNELS(kernel, name, count, from, is_precise, halved)                                            \
  MAP_KERNEL(kernel##_forward, 1, count, is_precise, halved, name##_f(x, p, precise, cut))                    \
  MAP_KERNEL(kernel##_derivative2, 1, count, is_precise, halved, name##_d2(x, p, precise, cut))               \
  MAP_KERNEL(kernel##_backward_x, 2, count, is_precise, halved, v_mul(dy, name##_d1(x, p, precise, cut)))     \
  static void kernel##_derivative1(const fa_map_args *args) { map_derivative1(args, count, kernel##_backward_x); } \
  KERNEL_Y_##from(kernel, name, count, is_precise, halved)
#define HALVED_same 0
#define HALVED_own FA_CUTS_ALL
#define PRECISE_KERNELS_same(name, count, from)
#define PRECISE_KERNELS_own(name, count, from) MAP_KERNELS(precise_##name, name, count, from, 1, 1)
#define ACTIVATION(name, count, from, tiers, ...) MAP_KERNELS(name, name, count, from, 0, HALVED_##tiers)
#include "activations.def"
#undef ACTIVATION
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("schedule-insns") /* interleaves the two vectors of a turn */
#endif
#define ACTIVATION(name, count, from, tiers, ...) PRECISE_KERNELS_##tiers(name, count, from)
#include "activations.def"
#undef ACTIVATION
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

#define BACKWARD_Y_x(kernel) NULL
#define BACKWARD_Y_either(kernel) kernel##_backward_y
#define MAP_ENTRY(kernel, from) \
  {kernel##_forward, kernel##_backward_x, BACKWARD_Y_##from(kernel), kernel##_derivative1, kernel##_derivative2}
#define PRECISE_ENTRY_same(name, from) MAP_ENTRY(name, from)
#define PRECISE_ENTRY_own(name, from) MAP_ENTRY(precise_##name, from)
static const fa_map_kernels map_kernels[FA_MAP_COUNT] = {
#define ACTIVATION(name, count, from, ...) [FA_ACT_##name] = MAP_ENTRY(name, from),
#include "activations.def"
#undef ACTIVATION
#define ACTIVATION(name, count, from, tiers, ...) [FA_ACT_COUNT + FA_ACT_##name] = PRECISE_ENTRY_##tiers(name, from),
#include "activations.def"
#undef ACTIVATION
};

#define ACTIVATION_KERNELS {.map = map_kernels}
