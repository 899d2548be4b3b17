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
  FA_ACT_COUNT,
  FA_MAP_COUNT = 2 * FA_ACT_COUNT /* kernels: FA_ACT_x of the default tier, FA_ACT_COUNT + FA_ACT_x of the precise one */
};

enum { FA_MAX_PARAMETERS = 3, FA_MAX_POINTS = 4 };

typedef struct {
  const char *name;
  double value; /* the default */
} fa_parameter;

typedef struct {
  int count;
  double x[FA_MAX_POINTS];
} fa_places;

typedef struct {
  int count;
  double xy[FA_MAX_POINTS][2];
} fa_points;

/* All that depends on parameters holds at the defaults. */
typedef struct {
  const char *name, *formula;
  const char *aliases;   /* other names, separated by blanks, or NULL */
  const char *surrogate; /* the formula whose derivatives stand in for those of the function, or NULL */
  const char *note;      /* who means what by the name, or NULL */
  int parameter_count;
  fa_parameter parameters[FA_MAX_PARAMETERS];
  const char *backward_from; /* "x" or "either" */
  double ulp_f32[3], ulp_f64[3]; /* largest error of f, f', f'' in units of the last place: the default tier */
  /* Interior zeros of f' and of f'' that are not kept to a relative error: for x within a factor 1.4 of one, the bound is
   * 4 eps times the largest |f'| or |f''| instead. */
  fa_places zeros[2];
  fa_places kinks;     /* where f, f' or f'' jumps */
  fa_points landmarks; /* x and the exact f(x) */
  int monotonic, odd;
  double range[2];
} fa_activation_info;

/* Description of activation `index` (one of FA_ACT_*). */
static inline const fa_activation_info *fa_activation_describe(int index) {
#define ACTIVATION(name_, count, from, tiers, ...) \
  {.name = #name_, .parameter_count = count, .backward_from = #from, __VA_ARGS__},
  static const fa_activation_info info[] = {
#include "activations.def"
  };
#undef ACTIVATION
  return &info[index];
}

#define FA_PRECISE_ULP 1.1

/* Largest error of f, f' or f'' (order 0 to 2) of a tier in an element type of 4 or 8 bytes. */
static inline double fa_activation_ulp(const fa_activation_info *info, int precise, int itemsize, int order) {
  double ordinary = itemsize == 4 ? info->ulp_f32[order] : info->ulp_f64[order];
  return precise ? FA_MIN(ordinary, FA_PRECISE_ULP) : ordinary;
}

typedef struct {
  const fa_map_kernels *map; /* [FA_MAP_COUNT] */
} fa_activation_kernels;

#endif
