/* float16 to float32 and back, and float32 to bfloat16, in integer arithmetic that any CPU has: to nearest, ties to
 * even, subnormals and NaN kept.
 *
 * The ufunc loops compute float16 in float32 by blocks, and packed weights may be bfloat16; nothing else here knows the
 * types. */
#ifndef FA_HALF_H
#define FA_HALF_H

#include <stdint.h>
#include <string.h>

static inline float fa_half_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, magnitude = half & 0x7FFFu;
  uint32_t bits;
  float value;
  if (magnitude >= 0x7C00u) /* inf, NaN */
    bits = 0x7F800000u | (magnitude & 0x3FFu) << 13;
  else if (magnitude >= 0x0400u) /* the exponent's bias goes from 15 to 127 */
    bits = (magnitude << 13) + (112u << 23);
  else { /* subnormal: a whole multiple of 2^-24 */
    value = (float)magnitude * 0x1p-24f;
    memcpy(&bits, &value, sizeof bits);
  }
  bits |= sign;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint16_t fa_float_to_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u;
  bits &= 0x7FFFFFFFu;
  if (bits > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (bits >> 13 & 0x1FFu)); /* a quiet NaN */
  if (bits >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);                          /* 65520 and above: inf */
  if (bits >= 0x38800000u) /* 2^-14 and above: rebias, round to nearest even on the 13 bits dropped */
    return (uint16_t)(sign | ((bits - (112u << 23) + 0xFFFu + (bits >> 13 & 1u)) >> 13));
  /* Subnormal: adding 0.5 brings the multiple of 2^-24 to the bottom of the significand, rounded by the addition. */
  float magnitude;
  memcpy(&magnitude, &bits, sizeof magnitude);
  magnitude += 0.5f;
  memcpy(&bits, &magnitude, sizeof bits);
  return (uint16_t)(sign | (bits - 0x3F000000u));
}

/* bfloat16 is the upper half of a float32. */
static inline uint16_t fa_float_to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x0040u); /* a quiet NaN */
  return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

#endif
