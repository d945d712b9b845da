/* Numbers m 2^e with e any whole number, both in doubles: products and sums of them neither overflow nor underflow, as in
 * log space, but cost a few instructions that compilers vectorise, and keep all digits. Included once for every
 * instruction set, with the kernels of double.
 *
 * m is 0, with an exponent far below every other, or about 1: products are normalised. */

typedef struct {
    double m, e;
} NAME(scaled);

#define ZERO_EXPONENT (-0x1p900) /* far below every other */
#define LEFT_OUT (2 * ZERO_EXPONENT) /* added to an exponent: below that of zero, so that the number adds nothing */
static const NAME(scaled) NAME(zero) = {0, ZERO_EXPONENT};

/* 2^e for a whole e <= 1023; 0 below 2^-1022 */
ALWAYS_INLINE double NAME(power_of_two)(double e) {
    double shifted = (e < -1023 ? -1023 : e) + (0x1.8p52 + 1023); /* e + 1023 in the low bits */
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits <<= 52;
    memcpy(&shifted, &bits, sizeof bits);
    return shifted;
}

/* m 2^e with any m >= 0 that is not subnormal */
ALWAYS_INLINE NAME(scaled) NAME(normalised)(double m, double e) {
    uint64_t bits, exponent;
    memcpy(&bits, &m, sizeof bits);
    exponent = bits >> 52 | 0x4330000000000000u; /* 2^52 + the biased exponent */
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    NAME(scaled) result;
    double found;
    memcpy(&found, &exponent, sizeof found);
    memcpy(&result.m, &bits, sizeof bits);
    result.m = m == 0 ? 0 : result.m;
    result.e = m == 0 ? ZERO_EXPONENT : e + (found - (0x1p52 + 1023));
    return result;
}

/* exp(x), with an exponent of all 53 bits where |x| > 2^50: then x has no digits for m. 0 below -2^800, -inf too. */
ALWAYS_INLINE NAME(scaled) NAME(scaled_exp)(double x) {
    double inner = x < -0x1p50 ? -0x1p50 : x > 0x1p50 ? 0x1p50 : x, scale;
    double k = (inner * 1.4426950408889634 + 0x1.8p52) - 0x1.8p52; /* as exp_parts has it */
    double m = 1 + NAME(exp_parts)(inner, &scale), e = x * 1.4426950408889634;
    uint64_t bits;
    memcpy(&bits, &e, sizeof bits);
    bits &= ~(uint64_t)3; /* a whole number: the last bit of 2^50 is a quarter */
    memcpy(&e, &bits, sizeof e);
    m = x < -0x1p800 ? 0 : inner == x || x != x ? m : 1;
    e = x < -0x1p800 ? ZERO_EXPONENT : inner == x ? k : e;
    return (NAME(scaled)){m, e};
}

/* log(x), -inf for 0 */
static double NAME(scaled_log)(NAME(scaled) x) { return log(x.m) + (x.m == 0 ? 0 : x.e * 0.69314718055994531); }

ALWAYS_INLINE NAME(scaled) NAME(sum_of_two)(NAME(scaled) a, NAME(scaled) b) {
    double e = a.e > b.e ? a.e : b.e;
    return (NAME(scaled)){a.m * NAME(power_of_two)(a.e - e) + b.m * NAME(power_of_two)(b.e - e), e};
}

ALWAYS_INLINE NAME(scaled) NAME(sum_of_three)(NAME(scaled) a, NAME(scaled) b, NAME(scaled) c) {
    NAME(scaled) sum = NAME(sum_of_two)(a, b);
    double e = sum.e > c.e ? sum.e : c.e;
    return (NAME(scaled)){sum.m * NAME(power_of_two)(sum.e - e) + c.m * NAME(power_of_two)(c.e - e), e};
}

/* a b / total <= 1. The exponent is above 1 only where those of numbers above 2^53 are rounded. */
ALWAYS_INLINE double NAME(share)(NAME(scaled) a, NAME(scaled) b, NAME(scaled) total) {
    double e = a.e + b.e - total.e;
    return a.m * b.m / total.m * NAME(power_of_two)(e > 1 ? 1 : e);
}
