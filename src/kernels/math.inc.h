/* exp, sigmoid and tanh in plain C that compilers vectorise: no table, no branch, no call.
 * Included once for every real type and instruction set; see table.inc.h for what must be defined. */

/* The polynomials are the Taylor series of (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, long enough that the first term
 * left out is below a tenth of a unit in the last place. */
#if REAL_IS_DOUBLE
#define EXP_ROUND 0x1.8p52 /* adding it rounds to an integer and leaves that in the low bits */
#define EXP_LN2_HIGH 0x1.62e42fefa3800p-1
#define EXP_LN2_LOW 0x1.ef35793c76730p-45
#define EXP_LOWEST -0x1.6232bdd7abcd2p+9 /* the lowest whose exp is a normal number, -708.4 */
#define TANH_LOWEST -80.0
#define ABS __builtin_fabs
#define COPYSIGN __builtin_copysign
#define EXPONENT_BIAS 1023
#define MANTISSA_BITS 52
typedef uint64_t NAME(bits);
typedef int64_t NAME(signed_bits);
#else
#define EXP_ROUND 0x1.8p23f
#define EXP_LN2_HIGH 0x1.62e400p-1f
#define EXP_LN2_LOW 0x1.7f7d1cp-20f
#define EXP_LOWEST -0x1.5d589ep+6f /* -87.34 */
#define TANH_LOWEST -40.0f
#define ABS __builtin_fabsf
#define COPYSIGN __builtin_copysignf
#define EXPONENT_BIAS 127
#define MANTISSA_BITS 23
typedef uint32_t NAME(bits);
typedef int32_t NAME(signed_bits);
#endif

/* x = k ln 2 + r:  *scale = 2^k,  returns exp(r) - 1. Needs |x| <= -EXP_LOWEST; NaN comes out of NaN, and of other x
 * what the caller must replace. */
ALWAYS_INLINE real NAME(exp_parts)(real x, real *scale) {
    real rounded = x * (real)1.4426950408889634 + EXP_ROUND;
    real k = rounded - EXP_ROUND;
    real r = x - k * EXP_LN2_HIGH;
    r = r - k * EXP_LN2_LOW;
    NAME(bits) exponent;
    memcpy(&exponent, &rounded, sizeof exponent);
    exponent = (exponent + EXPONENT_BIAS) << MANTISSA_BITS;
    memcpy(scale, &exponent, sizeof exponent);
#if REAL_IS_DOUBLE
    real q = 1.0 / 6227020800.0;
    q = q * r + 1.0 / 479001600.0;
    q = q * r + 1.0 / 39916800.0;
    q = q * r + 1.0 / 3628800.0;
    q = q * r + 1.0 / 362880.0;
    q = q * r + 1.0 / 40320.0;
    q = q * r + 1.0 / 5040.0;
    q = q * r + 1.0 / 720.0;
#else
    real q = 1.0f / 5040.0f;
    q = q * r + 1.0f / 720.0f;
#endif
    q = q * r + (real)1 / 120;
    q = q * r + (real)1 / 24;
    q = q * r + (real)1 / 6;
    q = q * r + (real)1 / 2;
    return q * (r * r) + r;
}

/* Of x <= 0. Results below the normal numbers are 0: subnormal ones are slow on many processors. The comparisons here
 * and below are written so that NaN passes through. */
ALWAYS_INLINE real NAME(exp)(real x) {
    real scale;
    real e = NAME(exp_parts)(x, &scale);
    return x < EXP_LOWEST ? 0 : scale * e + scale;
}

/* As above, 0 where the result would be subnormal. */
ALWAYS_INLINE real NAME(sigmoid)(real x) {
    real scale;
    real e = NAME(exp_parts)(-x, &scale);
    real y = 1 / (1 + (scale * e + scale));
    y = x < EXP_LOWEST ? 0 : y;
    return x > -EXP_LOWEST ? 1 : y;
}

/* tanh|x| = -e / (2 + e) with e = exp(-2|x|) - 1, so that nothing cancels near zero; the sign is that of x, of zeros too. */
ALWAYS_INLINE real NAME(tanh)(real x) {
    real y = -2 * ABS(x);
    y = y < TANH_LOWEST ? TANH_LOWEST : y;
    real scale;
    real e = NAME(exp_parts)(y, &scale);
    e = scale * e + (scale - 1);
    return COPYSIGN(e / (2 + e), x);
}

/* The bits of |x|, in the order of the values: those of infinity and NaN are above all. */
ALWAYS_INLINE NAME(signed_bits) NAME(magnitude_bits)(real x) {
    NAME(bits) bits;
    memcpy(&bits, &x, sizeof bits);
    return (NAME(signed_bits))(bits & ~(NAME(bits))0 >> 1);
}

/* x in [-127, 127] rounded to the nearest integer, ties to even */
ALWAYS_INLINE int8_t NAME(round_to_int8)(real x) {
    NAME(bits) bits;
    x += EXP_ROUND;
    memcpy(&bits, &x, sizeof bits);
    return (int8_t)bits;
}

#undef EXP_ROUND
#undef EXP_LN2_HIGH
#undef EXP_LN2_LOW
#undef EXP_LOWEST
#undef TANH_LOWEST
#undef ABS
#undef COPYSIGN
#undef EXPONENT_BIAS
#undef MANTISSA_BITS
