/* Optimisers: one pass over a parameter p, its gradient and its state m, v. Equations and sources: rnncore/optim.py. */

#if REAL_IS_DOUBLE
#define SQRT sqrt
#else
#define SQRT sqrtf
#endif

ALWAYS_INLINE void NAME(optimizer_body)(int rule, ptrdiff_t count, real rate, real scale, real keep_m, real take_m,
                                        real keep_v, real take_v, real epsilon, const real *restrict gradient,
                                        real *restrict p, real *restrict m, real *restrict v) {
    for (ptrdiff_t j = 0; j < count; j++) {
        real g = scale * gradient[j], direction = g;
        if (rule == RULE_MOMENTUM || rule == RULE_ADAM) direction = m[j] = keep_m * m[j] + take_m * g;
        if (rule == RULE_SQUARES || rule == RULE_ADAM) {
            v[j] = keep_v * v[j] + take_v * (g * g);
            direction /= SQRT(v[j]) + epsilon;
        }
        p[j] -= rate * direction;
    }
}

static void NAME(optimizer_step)(int rule, ptrdiff_t count, const double *constants, const void *g, void *p, void *m,
                                 void *v) {
    real c[OPTIMIZER_CONSTANTS];
    for (int k = 0; k < OPTIMIZER_CONSTANTS; k++) c[k] = (real)constants[k];
    switch (rule) {
#define STEP(RULE)                                                                                                    \
    case RULE: NAME(optimizer_body)(RULE, count, c[0], c[1], c[2], c[3], c[4], c[5], c[6], g, p, m, v); break;
        STEP(RULE_SGD)
        STEP(RULE_MOMENTUM)
        STEP(RULE_SQUARES)
        STEP(RULE_ADAM)
#undef STEP
    }
}

/* In float64, with sixteen partial sums: a fixed order that vectorises. */
static double NAME(square_sum)(ptrdiff_t count, const void *a_) {
    const real *a = a_;
    double partial[16] = {0}, sum = 0;
    ptrdiff_t whole = count - count % 16;
    for (ptrdiff_t j = 0; j < whole; j += 16)
        for (int lane = 0; lane < 16; lane++) partial[lane] += (double)a[j + lane] * (double)a[j + lane];
    for (ptrdiff_t j = whole; j < count; j++) partial[j - whole] += (double)a[j] * (double)a[j];
    for (int lane = 0; lane < 16; lane++) sum += partial[lane];
    return sum;
}

#undef SQRT
