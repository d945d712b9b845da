/* Connectionist temporal classification (Graves et al. 2006) of one sequence. Shapes and scratch: kernels.h.
 *
 * The probability P of L labels is that of all paths through them, with a blank or none before, between and after: through
 * the states B_0 A_0 B_1 A_1 ... A_{L-1} B_L, where B_k is a blank and A_k label k. With p_t(s) the probability of the symbol
 * of state s in frame t, and skip_k = 1 if label k differs from label k-1 (0 for k = 0):
 *
 *   a_t(B_k) = (a_{t-1}(B_k) + a_{t-1}(A_{k-1})) p_t(B_k)                               a_{-1} = 1 for B_0, else 0      (1)
 *   a_t(A_k) = (a_{t-1}(A_k) + a_{t-1}(B_k) + skip_k a_{t-1}(A_{k-1})) p_t(A_k)                                         (2)
 *   q_t(s) = b_t(s) p_t(s)                                                  b_{T-1} = 1 for A_{L-1} and B_L, else 0      (3)
 *   b_t(B_k) = q_{t+1}(B_k) + q_{t+1}(A_k)                                                                              (4)
 *   b_t(A_k) = q_{t+1}(A_k) + q_{t+1}(B_{k+1}) + skip_{k+1} q_{t+1}(A_{k+1})                                            (5)
 *   P = a_{T-1}(B_L) + a_{T-1}(A_{L-1})                                                                                 (6)
 *   d -log P / d y_t(v) = softmax(y_t)(v) - sum of a_t(s) b_t(s) / P over the states s with symbol v                    (7) */

#if REAL_IS_DOUBLE
/* States of one frame: index k is that of A_k and B_k; A_{-1}, A_L and B_{L+1} are zeros that stay. */
typedef struct {
    double *A_m, *A_e, *B_m, *B_e;
} NAME(states);

ALWAYS_INLINE NAME(states) NAME(states_at)(double *row, ptrdiff_t stride) {
    return (NAME(states)){row + 1, row + stride + 1, row + 2 * stride, row + 3 * stride};
}

static void NAME(clear_states)(double *row, ptrdiff_t stride) {
    for (ptrdiff_t j = 0; j < stride; j++) {
        row[j] = row[2 * stride + j] = 0;
        row[stride + j] = row[3 * stride + j] = ZERO_EXPONENT;
    }
}

ALWAYS_INLINE NAME(scaled) NAME(A)(NAME(states) s, ptrdiff_t k) { return (NAME(scaled)){s.A_m[k], s.A_e[k]}; }
ALWAYS_INLINE NAME(scaled) NAME(B)(NAME(states) s, ptrdiff_t k) { return (NAME(scaled)){s.B_m[k], s.B_e[k]}; }

/* a_t from a_{t-1}; y (L+1,): logits of the blank and the labels, skip_e (L+1,): 0, or LEFT_OUT if skip is 0 */
static void NAME(ctc_forward)(ptrdiff_t L, const double *restrict y, const double *restrict skip_e, NAME(states) before,
                              NAME(states) now) {
    double *restrict A_m = now.A_m, *restrict A_e = now.A_e, *restrict B_m = now.B_m, *restrict B_e = now.B_e;
    NAME(scaled) blank = NAME(scaled_exp)(y[0]);
    for (ptrdiff_t k = 0; k <= L; k++) { /* (1) */
        NAME(scaled) b = NAME(sum_of_two)(NAME(B)(before, k), NAME(A)(before, k - 1));
        b = NAME(normalised)(b.m * blank.m, b.e + blank.e);
        B_m[k] = b.m;
        B_e[k] = b.e;
    }
    for (ptrdiff_t k = 0; k < L; k++) { /* (2) */
        NAME(scaled) p = NAME(scaled_exp)(y[1 + k]), last = NAME(A)(before, k - 1);
        last.e += skip_e[k];
        NAME(scaled) a = NAME(sum_of_three)(NAME(A)(before, k), NAME(B)(before, k), last);
        a = NAME(normalised)(a.m * p.m, a.e + p.e);
        A_m[k] = a.m;
        A_e[k] = a.e;
    }
}

/* q_t from b_t */
static void NAME(ctc_emit)(ptrdiff_t L, const double *restrict y, NAME(states) b, NAME(states) now) {
    double *restrict A_m = now.A_m, *restrict A_e = now.A_e, *restrict B_m = now.B_m, *restrict B_e = now.B_e;
    NAME(scaled) blank = NAME(scaled_exp)(y[0]);
    for (ptrdiff_t k = 0; k <= L; k++) { /* (3) */
        NAME(scaled) q = NAME(normalised)(b.B_m[k] * blank.m, b.B_e[k] + blank.e);
        B_m[k] = q.m;
        B_e[k] = q.e;
    }
    for (ptrdiff_t k = 0; k < L; k++) {
        NAME(scaled) p = NAME(scaled_exp)(y[1 + k]), q = NAME(normalised)(b.A_m[k] * p.m, b.A_e[k] + p.e);
        A_m[k] = q.m;
        A_e[k] = q.e;
    }
}

/* b_t from q_{t+1} */
static void NAME(ctc_backward)(ptrdiff_t L, const double *restrict skip_e, NAME(states) after, NAME(states) now) {
    double *restrict A_m = now.A_m, *restrict A_e = now.A_e, *restrict B_m = now.B_m, *restrict B_e = now.B_e;
    for (ptrdiff_t k = 0; k <= L; k++) { /* (4) */
        NAME(scaled) b = NAME(sum_of_two)(NAME(B)(after, k), NAME(A)(after, k));
        B_m[k] = b.m;
        B_e[k] = b.e;
    }
    for (ptrdiff_t k = 0; k < L; k++) { /* (5) */
        NAME(scaled) next = NAME(A)(after, k + 1);
        next.e += skip_e[k + 1];
        NAME(scaled) a = NAME(sum_of_three)(NAME(A)(after, k), NAME(B)(after, k + 1), next);
        A_m[k] = a.m;
        A_e[k] = a.e;
    }
}

/* shares (L+1,) = a_t b_t / P of all blanks together, and of each label */
static void NAME(ctc_shares)(ptrdiff_t L, NAME(states) a, NAME(states) b, NAME(scaled) P, double *restrict shares) {
    double partial[8] = {0}, blanks = 0;
    ptrdiff_t k = 0;
    for (; k + 8 <= L + 1; k += 8)
        for (int lane = 0; lane < 8; lane++)
            partial[lane] += NAME(share)(NAME(B)(a, k + lane), NAME(B)(b, k + lane), P);
    for (int lane = 0; lane < 8; lane++) blanks += partial[lane];
    for (; k <= L; k++) blanks += NAME(share)(NAME(B)(a, k), NAME(B)(b, k), P);
    shares[0] = blanks;
    for (k = 0; k < L; k++) shares[1 + k] = NAME(share)(NAME(A)(a, k), NAME(A)(b, k), P);
}

/* P of the logits y (T, L+1) <= 0 of the blank and the labels in each frame; if `trains` and P is not 0, y becomes the
 * shares (T, L+1). */
static NAME(scaled) NAME(ctc_paths)(ptrdiff_t T, ptrdiff_t L, const int64_t *labels, int trains, double *y, double *work) {
    ptrdiff_t stride = ctc_stride(L), size = 4 * stride;
    ptrdiff_t pause = STEPS_BETWEEN_LOOKS(L);
    double *skip_e = work, *first = work + stride, *second = first + size, *all = second + size;
    for (ptrdiff_t k = 0; k <= L; k++) skip_e[k] = 0 < k && k < L && labels[k] != labels[k - 1] ? 0 : LEFT_OUT;
    NAME(clear_states)(first, stride);
    NAME(clear_states)(second, stride);
    NAME(states) a = NAME(states_at)(first, stride);
    a.B_m[0] = 1;
    a.B_e[0] = 0;
    for (ptrdiff_t t = 0; t < T; t++) {
        if (t % pause == 0 && is_interrupted()) return NAME(zero);
        double *row = trains ? all + t * size : t % 2 ? first : second;
        if (trains) NAME(clear_states)(row, stride);
        NAME(states) now = NAME(states_at)(row, stride);
        NAME(ctc_forward)(L, y + t * (L + 1), skip_e, a, now);
        a = now;
    }
    NAME(scaled) P = NAME(sum_of_two)(NAME(B)(a, L), NAME(A)(a, L - 1)); /* (6) */
    P = NAME(normalised)(P.m, P.e);
    if (!trains || P.m == 0) return P;
    NAME(clear_states)(first, stride);
    NAME(clear_states)(second, stride);
    NAME(states) b = NAME(states_at)(first, stride), q = NAME(states_at)(second, stride);
    b.B_m[L] = 1;
    b.B_e[L] = 0;
    if (L) {
        b.A_m[L - 1] = 1;
        b.A_e[L - 1] = 0;
    }
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        if (t % pause == 0 && is_interrupted()) return P;
        if (t < T - 1) NAME(ctc_backward)(L, skip_e, q, b);
        NAME(ctc_emit)(L, y + t * (L + 1), b, q);
        NAME(ctc_shares)(L, NAME(states_at)(all + t * size, stride), b, P, y + t * (L + 1));
    }
    return P;
}
#endif

static double NAME(ctc)(ptrdiff_t T, ptrdiff_t V, const void *logits_, ptrdiff_t step, ptrdiff_t L, const int64_t *labels,
                        ptrdiff_t blank, double weight, void *dlogits_, double *work) {
    const real *logits = logits_;
    real *dlogits = dlogits_, *row = (real *)work;
    double *sums = work + V, *y = sums + T, *rest = y + T * (L + 1);
    NAME_F64(scaled) total = {1, 0}; /* of the sums of exp(y - max) */
    ptrdiff_t pause = STEPS_BETWEEN_LOOKS(V + L);
    for (ptrdiff_t t = 0; t < T; t++) {
        if (t % pause == 0 && is_interrupted()) return NAN;
        const real *source = logits + t * step;
        real *p = dlogits ? dlogits + t * step : row, largest = NAME(maximum)(V, source);
        double *gathered = y + t * (L + 1);
        gathered[0] = (double)source[blank] - (double)largest;
        for (ptrdiff_t k = 0; k < L; k++) gathered[1 + k] = (double)source[labels[k]] - (double)largest;
        memcpy(p, source, (size_t)V * sizeof(real));
        sums[t] = NAME(exp_row)(V, (double)largest, p);
        total = NAME_F64(normalised)(total.m * sums[t], total.e);
    }
    /* A sum is at least 1, unless a logit is NaN or infinite. */
    int is_finite = 1;
    for (ptrdiff_t t = 0; t < T; t++) is_finite &= sums[t] >= 1 && sums[t] < INFINITY;
    NAME_F64(scaled) P = is_finite ? NAME_F64(ctc_paths)(T, L, labels, dlogits != NULL, y, rest) : NAME_F64(zero);
    double loss = !is_finite ? NAN : NAME_F64(scaled_log)(total) - NAME_F64(scaled_log)(P);
    for (ptrdiff_t t = 0; t < T && dlogits; t++) { /* (7) */
        if (t % pause == 0 && is_interrupted()) return NAN;
        real *d = dlogits + t * step;
        const double *shares = y + t * (L + 1);
        NAME(scale_row)(V, P.m == 0 ? NAN : (real)(weight / sums[t]), d);
        d[blank] -= (real)(weight * shares[0]);
        for (ptrdiff_t k = 0; k < L; k++) d[labels[k]] -= (real)(weight * shares[1 + k]);
    }
    return loss;
}
