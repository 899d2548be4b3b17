/* Prints a hash of the outputs of every elementwise kernel of one instruction set, in both tiers, over inputs that visit every
 * exponent, both signs, zeros, infinities, NaN and subnormals. Sets that promise the same bits print the same lines.
 *
 * Compiled together with src_c/kernels.c for one FA_ISA and both element types: see compare_isas.sh. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"

#define TABLE_(dtype, isa) fa_kernels_##dtype##_##isa
#define TABLE(dtype, isa) TABLE_(dtype, isa)
extern const fa_kernels TABLE(f32, FA_ISA), TABLE(f64, FA_ISA);

enum { COUNT = 50021 }; /* odd: every call ends in a tail */

static uint64_t state = 88172645463325252u;
static uint64_t random_bits(void) { /* xorshift64: the same sequence on every machine */
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

/* Half of the inputs are random bit patterns, half lie in [-32, 32], where the functions do their work. */
static void fill(int itemsize, void *out) {
  for (int i = 0; i < COUNT; i++) {
    uint64_t bits = random_bits();
    double near = ((double)(bits >> 11) / (double)(1ull << 53) - 0.5) * 64;
    if (itemsize == 4) {
      uint32_t pattern = (uint32_t)(bits >> 32);
      float value = (float)near;
      memcpy((char *)out + 4 * i, i % 2 ? (void *)&pattern : (void *)&value, 4);
    } else {
      memcpy((char *)out + 8 * i, i % 2 ? (void *)&bits : (void *)&near, 8);
    }
  }
}

static uint64_t hash(int itemsize, const void *data) { /* FNV-1a over the values; every NaN counts the same */
  uint64_t h = 14695981039346656037u;
  for (int i = 0; i < COUNT; i++) {
    uint64_t bits = 0;
    double value;
    if (itemsize == 4) {
      float narrow;
      memcpy(&narrow, (const char *)data + 4 * i, 4);
      value = (double)narrow;
    } else {
      memcpy(&value, (const char *)data + 8 * i, 8);
    }
    if (value == value) memcpy(&bits, (const char *)data + itemsize * i, (size_t)itemsize);
    h = (h ^ (value == value ? bits : 1)) * 1099511628211u;
  }
  return h;
}

static void run(const fa_kernels *table) {
  int size = table->itemsize;
  void *x = malloc((size_t)(COUNT * size)), *dy = malloc((size_t)(COUNT * size)), *out = malloc((size_t)(COUNT * size));
  if (!x || !dy || !out) exit(2);
  fill(size, x);
  fill(size, dy);
  for (int index = 0; index < FA_MAP_COUNT; index++) {
    const fa_activation_info *info = fa_activation_describe(index % FA_ACT_COUNT);
    const char *tier = index < FA_ACT_COUNT ? "" : ".precise";
    const fa_map_kernels *map = &table->activation.map[index];
    const fa_map_kernel kernels[] = {map->forward, map->derivative1, map->derivative2, map->backward_x, map->backward_y};
    float narrow[FA_MAX_PARAMETERS];
    for (int k = 0; k < 5; k++) {
      if (!kernels[k]) continue;
      fa_map_args args = {.n = COUNT, .out = out, .out_stride = size};
      int operands = 0;
      if (k >= 3) args.in[operands] = dy, args.in_stride[operands++] = size;
      args.in[operands] = x, args.in_stride[operands++] = size;
      for (int p = 0; p < info->parameter_count; p++) {
        narrow[p] = (float)info->parameters[p].value;
        args.in[operands++] = size == 4 ? (const void *)&narrow[p] : (const void *)&info->parameters[p].value;
      }
      kernels[k](&args);
      printf("%s%s f%d %d %016llx\n", info->name, tier, 8 * size, k, (unsigned long long)hash(size, out));
    }
  }
  free(x);
  free(dy);
  free(out);
}

int main(void) {
  run(&TABLE(f32, FA_ISA));
  run(&TABLE(f64, FA_ISA));
  return 0;
}
