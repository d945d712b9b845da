/* What attention needs beside products: additive scores, and the softmax of each step over the memory. Shapes: kernels.h.
 *
 *   score(t, s) = v . tanh(q_t + k_s)                                                          (1) Bahdanau et al. 2015
 *   weights(t, .) = softmax(score(t, .))                                                       (2) */

ALWAYS_INLINE real NAME(additive_score)(ptrdiff_t A, const real *restrict q, const real *restrict k,
                                        const real *restrict v) {
    /* Sixteen partial sums, as in exp_row. */
    real partial[16] = {0}, sum = 0;
    ptrdiff_t whole = A - A % 16;
    for (ptrdiff_t j = 0; j < whole; j += 16)
        for (int lane = 0; lane < 16; lane++) partial[lane] += v[j + lane] * NAME(tanh)(q[j + lane] + k[j + lane]);
    for (ptrdiff_t j = whole; j < A; j++) partial[j - whole] += v[j] * NAME(tanh)(q[j] + k[j]);
    for (int lane = 0; lane < 16; lane++) sum += partial[lane];
    return sum;
}

static void NAME(additive_scores)(ptrdiff_t T, ptrdiff_t S, ptrdiff_t A, const void *q, ptrdiff_t ldq, const void *k,
                                  ptrdiff_t ldk, const void *v, void *scores, ptrdiff_t lds) {
    for (ptrdiff_t t = 0; t < T; t++) /* (1) */
        for (ptrdiff_t s = 0; s < S; s++)
            ((real *)scores)[t * lds + s] =
                NAME(additive_score)(A, (const real *)q + t * ldq, (const real *)k + s * ldk, v);
}

ALWAYS_INLINE void NAME(additive_row_backward)(ptrdiff_t A, const real *restrict q, const real *restrict k,
                                               const real *restrict v, real dscore, real *restrict dq,
                                               real *restrict dk, real *restrict dv) {
    for (ptrdiff_t j = 0; j < A; j++) {
        real y = NAME(tanh)(q[j] + k[j]), d = dscore * v[j] * (1 - y * y);
        dq[j] += d;
        dk[j] += d;
        dv[j] += dscore * y;
    }
}

static void NAME(additive_backward)(ptrdiff_t T, ptrdiff_t S, ptrdiff_t A, const void *q, ptrdiff_t ldq, const void *k,
                                    ptrdiff_t ldk, const void *v, const void *dscores, ptrdiff_t lds, void *dq,
                                    ptrdiff_t lddq, void *dk, ptrdiff_t lddk, void *dv) {
    for (ptrdiff_t t = 0; t < T; t++)
        for (ptrdiff_t s = 0; s < S; s++)
            NAME(additive_row_backward)(A, (const real *)q + t * ldq, (const real *)k + s * ldk, v,
                                        ((const real *)dscores)[t * lds + s], (real *)dq + t * lddq,
                                        (real *)dk + s * lddk, dv);
}

static void NAME(softmax_rows)(ptrdiff_t rows, ptrdiff_t S, void *scores, ptrdiff_t lds) {
    for (ptrdiff_t t = 0; t < rows; t++) { /* (2) */
        real *row = (real *)scores + t * lds, sum = (real)NAME(exp_row)(S, (double)NAME(maximum)(S, row), row);
        NAME(scale_row)(S, 1 / sum, row);
    }
}

/* d score = weights (d weights - sum of weights d weights) */
static void NAME(softmax_rows_backward)(ptrdiff_t rows, ptrdiff_t S, const void *weights, ptrdiff_t ldw, void *dweights,
                                        ptrdiff_t ldd) {
    for (ptrdiff_t t = 0; t < rows; t++) {
        const real *restrict w = (const real *)weights + t * ldw;
        real *restrict d = (real *)dweights + t * ldd, mean = 0;
        for (ptrdiff_t s = 0; s < S; s++) mean += w[s] * d[s];
        for (ptrdiff_t s = 0; s < S; s++) d[s] = w[s] * (d[s] - mean);
    }
}
