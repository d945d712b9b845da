/* A linear-chain conditional random field (Lafferty, McCallum and Pereira 2001) over one sequence. Shapes and scratch:
 * kernels.h. With y_t (K,) the emissions, A (K, K) the transitions (from i to j), p_t = exp(y_t) and W = exp(A):
 *
 *   a_0 = p_0,   a_t(j) = p_t(j) sum_i a_{t-1}(i) W(i, j)                                                 (1)
 *   b_{T-1} = 1,   q_t = b_t p_t,   b_{t-1}(i) = sum_j W(i, j) q_t(j)                                       (2)
 *   Z = sum_j a_{T-1}(j)                                                                                  (3)
 *   P(tag_t = j) = a_t(j) b_t(j) / Z,   P(tag_{t-1} = i, tag_t = j) = a_{t-1}(i) W(i, j) q_t(j) / Z       (4)
 *   loss = log Z - sum_t y_t(tag_t) - sum_t A(tag_{t-1}, tag_t)                                           (5) */

#if REAL_IS_DOUBLE
typedef struct {
    double *m, *e;
} NAME(row);

ALWAYS_INLINE NAME(row) NAME(row_at)(double *values, ptrdiff_t count) { return (NAME(row)){values, values + count}; }

/* out = exp(x) */
static void NAME(exp_all)(ptrdiff_t count, const double *restrict x, NAME(row) out) {
    double *restrict m = out.m, *restrict e = out.e;
    for (ptrdiff_t j = 0; j < count; j++) {
        NAME(scaled) p = NAME(scaled_exp)(x[j]);
        m[j] = p.m;
        e[j] = p.e;
    }
}

/* out (K,) = a (K,) W (K, K) */
static void NAME(row_times_matrix)(ptrdiff_t K, NAME(row) a, NAME(row) W, NAME(row) out) {
    double *restrict m = out.m, *restrict e = out.e;
    for (ptrdiff_t j = 0; j < K; j++) e[j] = 2 * ZERO_EXPONENT;
    for (ptrdiff_t i = 0; i < K; i++) {
        const double *restrict W_e = W.e + i * K;
        double a_e = a.e[i];
        for (ptrdiff_t j = 0; j < K; j++) e[j] = a_e + W_e[j] > e[j] ? a_e + W_e[j] : e[j];
    }
    for (ptrdiff_t j = 0; j < K; j++) m[j] = 0;
    for (ptrdiff_t i = 0; i < K; i++) {
        const double *restrict W_m = W.m + i * K, *restrict W_e = W.e + i * K;
        double a_m = a.m[i], a_e = a.e[i];
        for (ptrdiff_t j = 0; j < K; j++) m[j] += a_m * W_m[j] * NAME(power_of_two)(a_e + W_e[j] - e[j]);
    }
}

/* out = a times b, value by value; a may be out */
static void NAME(times)(ptrdiff_t K, NAME(row) a, NAME(row) b, NAME(row) out) {
    for (ptrdiff_t j = 0; j < K; j++) {
        NAME(scaled) product = NAME(normalised)(a.m[j] * b.m[j], a.e[j] + b.e[j]);
        out.m[j] = product.m;
        out.e[j] = product.e;
    }
}

static NAME(scaled) NAME(sum_of_row)(ptrdiff_t K, NAME(row) a) {
    NAME(scaled) sum = NAME(zero);
    for (ptrdiff_t j = 0; j < K; j++) {
        sum = NAME(sum_of_two)(sum, (NAME(scaled)){a.m[j], a.e[j]});
        sum = NAME(normalised)(sum.m, sum.e);
    }
    return sum;
}

/* pairs (K, K) += weight times the probabilities (4) of two tags that follow each other */
static void NAME(add_pairs)(ptrdiff_t K, double weight, NAME(row) a, NAME(row) W, NAME(row) q, NAME(scaled) Z,
                            double *pairs) {
    for (ptrdiff_t i = 0; i < K; i++) {
        const double *restrict W_m = W.m + i * K, *restrict W_e = W.e + i * K;
        double *restrict row = pairs + i * K, a_m = weight * a.m[i] / Z.m, a_e = a.e[i] - Z.e;
        for (ptrdiff_t j = 0; j < K; j++) {
            double e = a_e + W_e[j] + q.e[j];
            row[j] += a_m * W_m[j] * q.m[j] * NAME(power_of_two)(e > 2 ? 2 : e); /* as in share, with one factor more */
        }
    }
}

/* log Z of y (T, K), which becomes P(tag_t = j) if `trains`; pairs, unless NULL, as in add_pairs. A (K, K). Work: crf_work */
static double NAME(crf_paths)(ptrdiff_t T, ptrdiff_t K, const double *A, int trains, double weight, double *y,
                              double *pairs, double *work) {
    NAME(row) W = NAME(row_at)(work, K * K), turned = NAME(row_at)(work + 2 * K * K, K * K);
    NAME(row) p = NAME(row_at)(work + 4 * K * K, K), b = NAME(row_at)(p.m + 2 * K, K), q = NAME(row_at)(b.m + 2 * K, K);
    double *all = q.m + 2 * K;
    ptrdiff_t pause = STEPS_BETWEEN_LOOKS(K * K);
    NAME(exp_all)(K * K, A, W);
    NAME(row) a = NAME(row_at)(all, K);
    NAME(exp_all)(K, y, a);
    for (ptrdiff_t t = 1; t < T; t++) { /* (1) */
        if (t % pause == 0 && is_interrupted()) return NAN;
        NAME(row) now = trains ? NAME(row_at)(all + t * 2 * K, K) : t % 2 ? b : q;
        NAME(row_times_matrix)(K, a, W, now);
        NAME(exp_all)(K, y + t * K, p);
        NAME(times)(K, now, p, now);
        a = now;
    }
    NAME(scaled) Z = NAME(sum_of_row)(K, a); /* (3) */
    double log_Z = NAME(scaled_log)(Z);
    if (!trains || Z.m == 0) return log_Z;
    for (ptrdiff_t i = 0; i < K; i++)
        for (ptrdiff_t j = 0; j < K; j++) {
            turned.m[j * K + i] = W.m[i * K + j];
            turned.e[j * K + i] = W.e[i * K + j];
        }
    for (ptrdiff_t j = 0; j < K; j++) {
        b.m[j] = 1;
        b.e[j] = 0;
    }
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        if (t % pause == 0 && is_interrupted()) return NAN;
        NAME(exp_all)(K, y + t * K, p);
        NAME(times)(K, b, p, q);
        a = NAME(row_at)(all + t * 2 * K, K);
        for (ptrdiff_t j = 0; j < K; j++) /* (4) */
            y[t * K + j] = NAME(share)((NAME(scaled)){a.m[j], a.e[j]}, (NAME(scaled)){b.m[j], b.e[j]}, Z);
        if (t == 0) break;
        if (pairs) NAME(add_pairs)(K, weight, NAME(row_at)(all + (t - 1) * 2 * K, K), W, q, Z, pairs);
        NAME(row_times_matrix)(K, q, turned, b); /* (2) */
    }
    return log_Z;
}
#endif

/* y (T, K) = emissions less the largest of each step; returns the sum of those */
static double NAME(shifted)(ptrdiff_t T, ptrdiff_t K, const real *emissions, ptrdiff_t step, double *y) {
    double sum = 0;
    for (ptrdiff_t t = 0; t < T; t++, emissions += step, y += K) {
        double largest = (double)NAME(maximum)(K, emissions);
        for (ptrdiff_t j = 0; j < K; j++) y[j] = (double)emissions[j] - largest;
        sum += largest;
    }
    return sum;
}

static double NAME(crf)(ptrdiff_t T, ptrdiff_t K, const void *emissions, ptrdiff_t step, const double *A,
                        const int64_t *tags, ptrdiff_t tag_step, double weight, void *demissions, double *dA,
                        double *work) {
    double *y = work, *rest = y + T * K;
    double shift = NAME(shifted)(T, K, emissions, step, y), path = 0;
    /* NaN, +inf, or -inf everywhere: there is no probability. */
    int is_finite = 1;
    for (ptrdiff_t j = 0; j < T * K; j++) is_finite &= y[j] <= 0;
    for (ptrdiff_t j = 0; j < K * K; j++) is_finite &= A[j] < INFINITY;
    for (ptrdiff_t t = 0; t < T && tags; t++) { /* (5) */
        path += y[t * K + tags[t * tag_step]];
        if (t) path += A[tags[(t - 1) * tag_step] * K + tags[t * tag_step]];
    }
    double log_Z = !T           ? 0
                   : !is_finite ? NAN
                                : NAME_F64(crf_paths)(T, K, A, demissions != NULL, weight, y, dA, rest);
    if (log_Z == -INFINITY) log_Z = NAN;
    int is_possible = log_Z - path < INFINITY;
    for (ptrdiff_t j = 0; j < K * K && dA && !is_possible; j++) dA[j] = NAN;
    for (ptrdiff_t t = 0; t < T && demissions; t++) {
        real *d = (real *)demissions + t * step;
        for (ptrdiff_t j = 0; j < K; j++) d[j] = is_possible ? (real)(weight * y[t * K + j]) : NAN;
        if (!tags) continue;
        d[tags[t * tag_step]] -= (real)weight;
        if (t && dA) dA[tags[(t - 1) * tag_step] * K + tags[t * tag_step]] -= weight;
    }
    return tags ? log_Z - path : log_Z + shift;
}

/* score_t(j) = y_t(j) + max_i (score_{t-1}(i) + A(i, j)), of equal ones the first i */
static void NAME(viterbi)(ptrdiff_t T, ptrdiff_t K, const void *emissions, ptrdiff_t step, const double *A, int64_t *tags,
                          ptrdiff_t tag_step, double *work) {
    const real *y = emissions;
    int64_t *from = (int64_t *)work;
    double *score = work + T * K, *now = score + K;
    ptrdiff_t pause = STEPS_BETWEEN_LOOKS(K * K);
    for (ptrdiff_t j = 0; j < K && T; j++) score[j] = (double)y[j];
    for (ptrdiff_t t = 1; t < T; t++) {
        if (t % pause == 0 && is_interrupted()) return;
        int64_t *restrict best = from + t * K;
        double *restrict top = now;
        for (ptrdiff_t j = 0; j < K; j++) {
            best[j] = 0;
            top[j] = score[0] + A[j];
        }
        for (ptrdiff_t i = 1; i < K; i++) {
            const double *restrict row = A + i * K;
            double base = score[i];
            for (ptrdiff_t j = 0; j < K; j++) {
                best[j] = base + row[j] > top[j] ? i : best[j];
                top[j] = base + row[j] > top[j] ? base + row[j] : top[j];
            }
        }
        for (ptrdiff_t j = 0; j < K; j++) top[j] += (double)y[t * step + j];
        now = score;
        score = top;
    }
    ptrdiff_t tag = 0;
    for (ptrdiff_t j = 1; j < K && T; j++) tag = score[j] > score[tag] ? j : tag;
    for (ptrdiff_t t = T - 1; t >= 0; t--) {
        tags[t * tag_step] = tag;
        if (t) tag = from[t * K + tag];
    }
}
