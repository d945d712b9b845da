/* exp, sigmoid and tanh in plain C that compilers vectorise: no table, no branch, no call.
 * Included once for every real type and instruction set; see table.inc.h for what must be defined. */

/* The polynomials are the Taylor series of (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, long enough that the first term
 * left out is below a tenth of a unit in the last place. */
#if REAL_IS_DOUBLE
#define EXP_ROUND 0x1.8p52 /* adding it rounds to an integer and leaves that in the low bits */
#define EXP_LN2_HIGH 0x1.62e42fefa3800p-1
#define EXP_LN2_LOW 0x1.ef35793c76730p-45
#define EXP_LOWEST -708.0
#define EXP_HIGHEST 709.0
#define TANH_LOWEST -80.0
#define EXPONENT_BIAS 1023
#define MANTISSA_BITS 52
typedef uint64_t NAME(bits);
typedef int64_t NAME(signed_bits);
#else
#define EXP_ROUND 0x1.8p23f
#define EXP_LN2_HIGH 0x1.62e400p-1f
#define EXP_LN2_LOW 0x1.7f7d1cp-20f
#define EXP_LOWEST -87.0f
#define EXP_HIGHEST 88.0f
#define TANH_LOWEST -40.0f
#define EXPONENT_BIAS 127
#define MANTISSA_BITS 23
typedef uint32_t NAME(bits);
typedef int32_t NAME(signed_bits);
#endif

/* x = k ln 2 + r:  *scale = 2^k,  returns exp(r) - 1. Needs EXP_LOWEST <= x <= EXP_HIGHEST or NaN (NaN comes out). */
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

/* The clamps are written so that NaN passes through them. */
ALWAYS_INLINE real NAME(exp)(real x) {
    x = x < EXP_LOWEST ? EXP_LOWEST : x;
    x = x > EXP_HIGHEST ? EXP_HIGHEST : x;
    real scale;
    real e = NAME(exp_parts)(x, &scale);
    return scale * e + scale;
}

ALWAYS_INLINE real NAME(sigmoid)(real x) { return 1 / (1 + NAME(exp)(-x)); }

/* tanh|x| = -e / (2 + e) with e = exp(-2|x|) - 1, so that nothing cancels near zero. */
ALWAYS_INLINE real NAME(tanh)(real x) {
    real y = x < 0 ? x + x : -(x + x);
    y = y < TANH_LOWEST ? TANH_LOWEST : y;
    real scale;
    real e = NAME(exp_parts)(y, &scale);
    e = scale * e + (scale - 1);
    real t = e / (2 + e);
    return x < 0 ? t : -t;
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
#undef EXP_HIGHEST
#undef TANH_LOWEST
#undef EXPONENT_BIAS
#undef MANTISSA_BITS
