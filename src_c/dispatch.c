/* Detection of the CPU's instruction sets and the choice among the tables built in. */
#include "dispatch.h"

#include <stdatomic.h>

#if defined(__x86_64__) || defined(_M_X64)
#define FA_X86 1
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#else
#define FA_X86 0
#endif

#define TABLES(isa) extern const fa_kernels fa_kernels_f32_##isa, fa_kernels_f64_##isa;
TABLES(scalar)
#if defined(FA_BUILD_avx2)
TABLES(avx2)
#endif
#if defined(FA_BUILD_avx512)
TABLES(avx512)
#endif
#if defined(FA_BUILD_neon)
TABLES(neon)
#endif

#if FA_X86
static void cpuid(unsigned leaf, unsigned sub, unsigned out[4]) {
#ifdef _MSC_VER
  __cpuidex((int *)out, (int)leaf, (int)sub);
#else
  out[0] = out[1] = out[2] = out[3] = 0;
  __get_cpuid_count(leaf, sub, &out[0], &out[1], &out[2], &out[3]);
#endif
}

/* The registers that the operating system saves: bits 1-2 XMM and YMM, 5-7 the AVX-512 state. */
static unsigned saved_state(void) {
  unsigned leaf1[4];
  cpuid(1, 0, leaf1);
  if (!(leaf1[2] >> 27 & 1)) return 0; /* no OSXSAVE: XGETBV would fault */
#ifdef _MSC_VER
  return (unsigned)_xgetbv(0);
#else
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
#endif
}

static int has_avx2(void) {
  unsigned leaf1[4], leaf7[4];
  cpuid(1, 0, leaf1);
  cpuid(7, 0, leaf7);
  return (saved_state() & 0x06) == 0x06 && (leaf1[2] >> 12 & 1) /* FMA */ && (leaf7[1] >> 5 & 1);
}

static int has_avx512(void) {
  unsigned leaf7[4];
  cpuid(7, 0, leaf7);
  const unsigned needed = 1u << 16 /* F */ | 1u << 17 /* DQ */ | 1u << 30 /* BW */ | 1u << 31 /* VL */;
  return has_avx2() && (saved_state() & 0xE6) == 0xE6 && (leaf7[1] & needed) == needed;
}
#endif

static int always(void) { return 1; }

static const struct {
  const char *name;
  int (*supported)(void);
  const fa_kernels *table[FA_DTYPES];
} sets[] = {
#define SET(isa, test) {#isa, test, {&fa_kernels_f32_##isa, &fa_kernels_f64_##isa}},
    SET(scalar, always)
#if defined(FA_BUILD_neon)
    SET(neon, always)
#endif
#if defined(FA_BUILD_avx2)
    SET(avx2, has_avx2)
#endif
#if defined(FA_BUILD_avx512)
    SET(avx512, has_avx512)
#endif
};

static atomic_int active; /* 0, scalar, until the package selects one at import */

const fa_kernels *fa_active(int dtype) {
  return sets[atomic_load_explicit(&active, memory_order_relaxed)].table[dtype];
}
int fa_isa_count(void) { return (int)(sizeof sets / sizeof sets[0]); }
const char *fa_isa_name(int index) { return sets[index].name; }
int fa_isa_supported(int index) { return sets[index].supported(); }
int fa_isa_active(void) { return atomic_load(&active); }
int fa_isa_select(int index) {
  if (index < 0 || index >= fa_isa_count() || !fa_isa_supported(index)) return -1;
  atomic_store(&active, index);
  return 0;
}
