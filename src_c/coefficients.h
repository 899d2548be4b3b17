/* Constants of math.inl and of the activations, for the element type of this unit.
 * Written by tools/gen_coeffs.py, which says how: do not edit. Errors are relative, of the rounded
 * coefficients in exact arithmetic. */
#ifndef FA_COEFFICIENTS_H
#define FA_COEFFICIENTS_H

#if FA_F32

/* expm1(r) = r + r^2 Q(r), |r| <= ln2/2: error 2^-25.9 */
static const real exp_q[5] = {0x1p-1f, 0x1.5554aap-3f, 0x1.555538p-5f, 0x1.122c6cp-7f, 0x1.6cd364p-10f};
#define LN2_HEAD 0x1.62e4p-1f
#define LN2_TAIL 0x1.7f7d1cp-20f
#define LOG2_E 0x1.715476p+0f
#define ROUND_MAGIC 0x1.8p+23f

#else

/* expm1(r) = r + r^2 Q(r), |r| <= ln2/2: error 2^-60.9 */
static const real exp_q[11] = {0x1p-1, 0x1.5555555555559p-3, 0x1.5555555555555p-5, 0x1.111111110f626p-7, 0x1.6c16c16c16723p-10,
    0x1.a01a01b022754p-13, 0x1.a01a01a4991b8p-16, 0x1.71ddf7a9029bp-19, 0x1.27e4e24b99e05p-22,
    0x1.af6001bc2814cp-26, 0x1.1f64fd8f18dbep-29};
#define LN2_HEAD 0x1.62e42fefa38p-1
#define LN2_TAIL 0x1.ef35793c7673p-45
#define LOG2_E 0x1.71547652b82fep+0
#define ROUND_MAGIC 0x1.8p+52

#endif

#endif
