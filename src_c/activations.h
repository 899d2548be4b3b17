/* Activation functions: what each one is (read back by Python, docs, tests and benchmarks) and its kernels.
 *
 * activations.def holds one section an activation: its bodies and its row. Here the rows become an enum, the table
 * of descriptions and the shape of the table of kernels. */
#ifndef FA_ACTIVATIONS_H
#define FA_ACTIVATIONS_H

#include "config.h"

/* ---- Elementwise kernels ------------------------------------------------------------------------------------ */

enum { FA_MAP_OPERANDS = 8 };

/* out[i] = f(in[0][i], in[1][i], ...) for i < n. The inputs are x (forward, derivatives) or dy and x or y (backward),
 * then the parameters in the order of the description. Strides are in bytes, 0 repeats one value, any sign. `out` may be
 * in[k] at the same stride; other overlaps behave as a loop over ascending i would, as long as out[i] is never an
 * in[k][j] with j > i. */
typedef struct {
  fa_size n;
  const void *in[FA_MAP_OPERANDS];
  fa_size in_stride[FA_MAP_OPERANDS];
  void *out;
  fa_size out_stride;
  fa_size total; /* elements of the whole call when this is one thread's share, else 0: decides on non-temporal stores */
} fa_map_args;

typedef void (*fa_map_kernel)(const fa_map_args *);

typedef struct {
  fa_map_kernel forward;     /* x -> f(x) */
  fa_map_kernel backward_x;  /* dy, x -> dy f'(x) */
  fa_map_kernel backward_y;  /* dy, y -> dy f'(x) where y = f(x); NULL where y does not determine it */
  fa_map_kernel derivative1; /* x -> f'(x) */
  fa_map_kernel derivative2; /* x -> f''(x) */
} fa_map_kernels;

/* ---- Descriptions ------------------------------------------------------------------------------------------- */

enum {
#define ACTIVATION(name, ...) FA_ACT_##name,
#include "activations.def"
#undef ACTIVATION
  FA_ACT_COUNT
};

enum { FA_MAX_PARAMETERS = 2, FA_MAX_LANDMARKS = 4 };

typedef struct {
  const char *name;
  double value; /* the default */
} fa_parameter;

typedef struct {
  const char *name, *formula;
  int parameter_count;
  fa_parameter parameters[FA_MAX_PARAMETERS];
  const char *backward_from; /* "x" or "either" */
  /* Largest error in units of the last place at default parameters: f, f', f''. */
  double ulp_f32[3], ulp_f64[3];
  /* |x| of the interior zeros of f' and of f'' that are not exact: for |x| within a factor 1.4 of it the bound is
   * 4 eps times the largest |f'| or |f''| instead. 0: there are none. */
  double zeros[2];
  int landmark_count;
  double landmarks[FA_MAX_LANDMARKS][2]; /* x and the exact f(x), at default parameters */
  int monotonic, odd;                    /* at default parameters */
  double low, high;                      /* range, at default parameters */
} fa_activation_info;

/* Description of activation `index` (one of FA_ACT_*). */
static inline const fa_activation_info *fa_activation_describe(int index) {
#define PARAMETER(name, value) {name, value}
#define TWO(...) __VA_ARGS__
#define NO_PARAMETERS {NULL, 0}
#define ULP(f, d1, d2) {f, d1, d2}
#define ZEROS(d1, d2) {d1, d2}
#define NO_ZEROS {0, 0}
#define AT(x, y) {x, y}
#define LANDMARKS(count, ...) .landmark_count = count, .landmarks = {__VA_ARGS__}
#define ACTIVATION(name_, formula_, count_, parameters_, from_, ulp_f32_, ulp_f64_, zeros_, landmarks_, monotonic_, odd_, low_,  \
                   high_)                                                                                              \
  {.name = #name_, .formula = formula_, .parameter_count = count_, .parameters = {parameters_},                       \
   .backward_from = #from_, .ulp_f32 = ulp_f32_, .ulp_f64 = ulp_f64_, .zeros = zeros_, landmarks_, .monotonic = monotonic_,            \
   .odd = odd_, .low = low_, .high = high_},
  static const fa_activation_info info[] = {
#include "activations.def"
  };
#undef ACTIVATION
#undef PARAMETER
#undef TWO
#undef NO_PARAMETERS
#undef ULP
#undef ZEROS
#undef NO_ZEROS
#undef AT
#undef LANDMARKS
  return &info[index];
}

typedef struct {
  const fa_map_kernels *map; /* [FA_ACT_COUNT] */
} fa_activation_kernels;

#endif
