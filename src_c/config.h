/* Compile-time facts shared by every kernel: element type, inlining, restrict.
 *
 * kernels.c is compiled once per (instruction set, element type); the build passes
 *   FA_ISA    one of scalar, avx2, avx512, neon
 *   FA_DTYPE  f32 or f64
 * and everything below follows from these two. */
#ifndef FA_CONFIG_H
#define FA_CONFIG_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef ptrdiff_t fa_size; /* every length and stride; strides are in elements unless said otherwise */

#define FA_PASTE_(a, b, c) a##_##b##_##c
#define FA_PASTE(a, b, c) FA_PASTE_(a, b, c)
#define FA_SUFFIXED(name) FA_PASTE(name, FA_DTYPE, FA_ISA) /* the few symbols that leave a unit */
#define FA_STRING_(x) #x
#define FA_STRING(x) FA_STRING_(x)

#if defined(_MSC_VER) && !defined(__clang__)
#define FA_INLINE static __forceinline
#define FA_NOINLINE static __declspec(noinline)
#define FA_RESTRICT __restrict
#define FA_ALIGN(n) __declspec(align(n))
#define FA_UNROLL
#define FA_UNROLL_4
#define FA_LIKELY(x) (x)
#define FA_UNLIKELY(x) (x)
#define FA_PREFETCH(p) ((void)(p))
#define FA_PREFETCH_L2(p) ((void)(p))
#define FA_PREFETCH_WRITE(p) ((void)(p))
#else
#define FA_INLINE static inline __attribute__((always_inline, unused))
#define FA_NOINLINE static __attribute__((noinline, unused))
#define FA_RESTRICT __restrict__
#define FA_ALIGN(n) __attribute__((aligned(n)))
#if defined(__clang__)
#define FA_UNROLL _Pragma("unroll")
#define FA_UNROLL_4 _Pragma("unroll 4")
#else
#define FA_UNROLL _Pragma("GCC unroll 64")
#define FA_UNROLL_4 _Pragma("GCC unroll 4")
#endif
#define FA_LIKELY(x) __builtin_expect(!!(x), 1)
#define FA_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define FA_PREFETCH(p) __builtin_prefetch(p, 0)
#define FA_PREFETCH_L2(p) __builtin_prefetch(p, 0, 2)
#define FA_PREFETCH_WRITE(p) __builtin_prefetch(p, 1)
#endif

#define FA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FA_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FA_CEIL_DIV(a, b) (((a) + (b) - 1) / (b))
#define FA_ROUND_UP(a, b) (FA_CEIL_DIV(a, b) * (b))

/* Element type. */
#define FA_TAG_f32 32
#define FA_TAG_f64 64
#define FA_TAG2(x) FA_TAG_##x
#define FA_TAG(x) FA_TAG2(x)
#ifdef FA_DTYPE
#if FA_TAG(FA_DTYPE) == 32
#define FA_F32 1
typedef float real;
typedef int32_t ireal;
typedef uint32_t ureal;
#define R(x) x##f /* a literal of the element type: R(0.5) */
#else
#define FA_F32 0
typedef double real;
typedef int64_t ireal;
typedef uint64_t ureal;
#define R(x) x
#endif
#endif

#endif
