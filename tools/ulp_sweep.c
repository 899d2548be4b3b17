/* Largest error of the float32 activation kernels, in units of the last place, over every float32 (or every s-th).
 *
 *   tools/ulp_sweep.sh [isa [stride [tier [name ...]]]]    e.g. tools/ulp_sweep.sh avx512 1 precise gelu elu
 *
 * The tier is default or precise; without a name, every function.
 *
 * The yardstick is the float64 kernel of the same function, which tools/ulp_mpmath.py holds to a few float64 ulp: that
 * leaves an error of 2^-27 float32 ulp. One ulp is the spacing of float32 at the true value (2^-149 when subnormal). Prints
 * for f, f' and f'' the largest error outside the neighbourhoods of the interior zeros that the description names, and
 * there the largest absolute error in units of eps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

#define TABLE_(dtype, isa) fa_kernels_##dtype##_##isa
#define TABLE(dtype, isa) TABLE_(dtype, isa)
extern const fa_kernels TABLE(f32, ISA), TABLE(f64, ISA);

enum { CHUNK = 4096 };

typedef struct {
  double worst, worst_near; /* in ulp; next to interior zeros, in eps */
  float at, at_near;
  long long bad; /* NaN, infinities or landmarks that disagree */
  float bad_at;
} sweep;

/* 2^e for -1022 <= e <= 1023. */
static inline double power_of_2(int64_t e) {
  const int64_t bits = (e + 1023) << 52;
  double result;
  memcpy(&result, &bits, 8);
  return result;
}

/* Error of a finite `got` in ulp of `want`, without a branch, so that compilers vectorise the loop around it. */
static inline double ulp_finite(float got, double want) {
  int64_t bits;
  memcpy(&bits, &want, 8);
  int64_t exponent = ((bits >> 52) & 0x7ff) - 1022;
  exponent = exponent < -125 ? -125 : exponent;
  return fabs((double)got - want) * power_of_2(24 - exponent);
}

/* The same where anything may be NaN, infinite, zero or beyond float32: INFINITY if the two disagree in kind. */
static double ulp(float got, double want) {
  if (want == 0 && got != 0) return INFINITY;
  if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : INFINITY;
  if (isinf(got) || isinf(want) || fabs(want) >= 0x1.ffffffp127) return (float)want == got ? 0 : INFINITY;
  return ulp_finite(got, want);
}

static void map(fa_map_kernel kernel, const void *in, void *out, int n, int size, const fa_activation_info *info) {
  float single[FA_MAX_PARAMETERS];
  double both[FA_MAX_PARAMETERS];
  fa_map_args args = {.n = n, .in = {in}, .in_stride = {size}, .out = out, .out_stride = size};
  for (int k = 0; k < info->parameter_count; k++) {
    single[k] = (float)info->parameters[k].value;
    both[k] = single[k]; /* parameters rounded to the element type count as exact */
    args.in[1 + k] = size == 4 ? (void *)&single[k] : (void *)&both[k];
  }
  kernel(&args);
}

static int near_any(const fa_places *zeros, double x) {
  int near = 0;
  for (int i = 0; i < zeros->count; i++) near |= x / zeros->x[i] > 1 / 1.4 && x / zeros->x[i] < 1.4;
  return near;
}

static sweep run(fa_map_kernel k32, fa_map_kernel k64, const fa_activation_info *info, long long stride,
                 const fa_places *zeros) {
  sweep s = {0};
  float x[CHUNK], y[CHUNK];
  double wide[CHUNK], want[CHUNK];
  for (long long bits = 0; bits < 1LL << 32;) {
    int n = 0;
    for (; n < CHUNK && bits < 1LL << 32; n++, bits += stride) {
      uint32_t b = (uint32_t)bits;
      memcpy(&x[n], &b, 4);
      wide[n] = x[n];
    }
    map(k32, x, y, n, 4, info);
    map(k64, wide, want, n, 8, info);
    /* Most chunks hold nothing new: one pass without branches says so (`ordinary` fails for NaN as well). */
    double most = 0;
    int ordinary = !zeros || zeros->count == 0;
    for (int i = 0; i < n; i++) {
      const double e = ulp_finite(y[i], want[i]);
      most = e > most ? e : most;
      ordinary &= (fabs(want[i]) < 0x1p127) & (fabsf(y[i]) < 0x1p127f) & ((want[i] != 0) | (y[i] == 0));
    }
    if (ordinary && most <= s.worst) continue;
    for (int i = 0; i < n; i++) {
      double e = ulp(y[i], want[i]);
      if (e == INFINITY) {
        if (!s.bad++) s.bad_at = x[i];
        continue;
      }
      if (zeros && near_any(zeros, wide[i])) {
        e = fabs(y[i] - want[i]) * 0x1p23;
        if (e > s.worst_near) s.worst_near = e, s.at_near = x[i];
      } else if (e > s.worst) s.worst = e, s.at = x[i];
    }
  }
  return s;
}

static int wanted(int argc, char **argv, const char *name) {
  int found = argc <= 3;
  for (int i = 3; i < argc; i++) found |= !strcmp(argv[i], name);
  return found;
}

int main(int argc, char **argv) {
  long long stride = argc > 1 ? atoll(argv[1]) : 997;
  int failed = 0, precise = argc > 2 && !strcmp(argv[2], "precise");
  for (int a = 0; a < FA_ACT_COUNT; a++) {
    const fa_activation_info *info = fa_activation_describe(a);
    if (!wanted(argc, argv, info->name)) continue;
    const fa_map_kernels *k32 = &TABLE(f32, ISA).activation.map[precise * FA_ACT_COUNT + a];
    const fa_map_kernels *k64 = &TABLE(f64, ISA).activation.map[a];
    fa_map_kernel pairs[3][2] = {{k32->forward, k64->forward},
                                 {k32->derivative1, k64->derivative1},
                                 {k32->derivative2, k64->derivative2}};
    for (int order = 0; order < 3; order++) {
      sweep s = run(pairs[order][0], pairs[order][1], info, stride, order ? &info->zeros[order - 1] : NULL);
      double budget = fa_activation_ulp(info, precise, 4, order);
      int over = s.worst > budget || s.worst_near > 4 || s.bad;
      failed |= over;
      printf("%-17s f%-2s %7.3f ulp at %-14.9g budget %-4g%s", info->name, &"''"[2 - order], s.worst, s.at,
             budget, over ? " OVER" : "");
      if (s.worst_near > 0) printf("  near zero %.3f eps at %.9g", s.worst_near, s.at_near);
      if (s.bad) printf("  %lld wrong NaN or inf, first at %.9g", s.bad, s.bad_at);
      printf("\n");
      fflush(stdout);
    }
  }
  return failed;
}
