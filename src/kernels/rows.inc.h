/* Whole rows: gather, scatter, sums, and the softmax of the output layer. Shapes: kernels.h. */

static void NAME(add_row)(ptrdiff_t M, const real *restrict a, real *restrict out) {
    for (ptrdiff_t j = 0; j < M; j++) out[j] += a[j];
}

static void NAME(add_product_row)(ptrdiff_t M, const real *restrict a, const real *restrict b, real *restrict out) {
    for (ptrdiff_t j = 0; j < M; j++) out[j] += a[j] * b[j];
}

static void NAME(sum_row)(ptrdiff_t M, const real *restrict a, const real *restrict b, real *restrict out) {
    for (ptrdiff_t j = 0; j < M; j++) out[j] = a[j] + b[j];
}

static void NAME(add)(ptrdiff_t rows, ptrdiff_t M, const void *a, ptrdiff_t lda, void *out, ptrdiff_t ldout) {
    for (ptrdiff_t row = 0; row < rows; row++) NAME(add_row)(M, (const real *)a + row * lda, (real *)out + row * ldout);
}

static void NAME(gather_rows)(ptrdiff_t rows, ptrdiff_t M, const void *b, const void *table, ptrdiff_t ldtable,
                            const int64_t *ids, void *out, ptrdiff_t ldout) {
    for (ptrdiff_t row = 0; row < rows; row++)
        NAME(sum_row)(M, b, (const real *)table + ids[row] * ldtable, (real *)out + row * ldout);
}

static void NAME(scatter_add)(ptrdiff_t rows, ptrdiff_t M, const int64_t *ids, ptrdiff_t ids_step, const void *a,
                              ptrdiff_t lda, void *table, ptrdiff_t ldtable) {
    for (ptrdiff_t row = 0; row < rows; row++)
        NAME(add_row)(M, (const real *)a + row * lda, (real *)table + ids[row * ids_step] * ldtable);
}

static void NAME(column_sums)(ptrdiff_t rows, ptrdiff_t M, const void *a, ptrdiff_t lda, void *out) {
    for (ptrdiff_t row = 0; row < rows; row++) NAME(add_row)(M, (const real *)a + row * lda, out);
}

static void NAME(product_sums)(ptrdiff_t rows, ptrdiff_t M, const void *a, ptrdiff_t lda, const void *b,
                               ptrdiff_t ldb, void *out) {
    for (ptrdiff_t row = 0; row < rows; row++)
        NAME(add_product_row)(M, (const real *)a + row * lda, (const real *)b + row * ldb, out);
}

/* As fast as a can be read: eight vectors of partial sums, 4 KB ahead of use brought into the cache. */
static double NAME(sum)(ptrdiff_t count, const void *a_) {
    enum { LENGTH = VECTOR_BYTES / sizeof(real) };
    const real *a = a_;
    NAME(vector) partial[8] = {{0}};
    ptrdiff_t j = 0;
    for (; j + 8 * LENGTH <= count; j += 8 * LENGTH)
        for (int k = 0; k < 8; k++) {
            __builtin_prefetch(a + j + k * LENGTH + 4096 / (ptrdiff_t)sizeof(real));
            partial[k] += *(const NAME(vector) *)(a + j + k * LENGTH);
        }
    double sum = 0;
    for (int k = 0; k < 8; k++)
        for (int lane = 0; lane < LENGTH; lane++) sum += (double)partial[k][lane];
    for (; j < count; j++) sum += (double)a[j];
    return sum;
}

static double NAME(exp_row)(ptrdiff_t V, double shift_, void *a_) {
    real *restrict a = a_, shift = (real)shift_;
    for (ptrdiff_t j = 0; j < V; j++) a[j] = NAME(exp)(a[j] - shift);
    /* Sixteen partial sums: a fixed order that vectorises, the same on every instruction set. */
    real partial[16] = {0};
    ptrdiff_t whole = V - V % 16;
    for (ptrdiff_t j = 0; j < whole; j += 16)
        for (int lane = 0; lane < 16; lane++) partial[lane] += a[j + lane];
    for (ptrdiff_t j = whole; j < V; j++) partial[j - whole] += a[j];
    real sum = 0;
    for (int lane = 0; lane < 16; lane++) sum += partial[lane];
    return (double)sum;
}

static void NAME(scale_row)(ptrdiff_t V, real factor, real *restrict a) {
    for (ptrdiff_t j = 0; j < V; j++) a[j] *= factor;
}

static real NAME(maximum)(ptrdiff_t V, const real *restrict a) {
    real largest = a[0];
    for (ptrdiff_t j = 1; j < V; j++) largest = a[j] > largest ? a[j] : largest;
    return largest;
}

/* loss = log sum_k exp(y_k - max) + max - y_target;   d loss / d y = softmax(y) - onehot(target) */
static void NAME(softmax_cross_entropy)(ptrdiff_t rows, ptrdiff_t V, void *logits, const int64_t *targets,
                                        const double *weights, double *losses) {
    real *y = logits;
    for (ptrdiff_t row = 0; row < rows; row++, y += V) {
        if (weights[row] == 0) {
            memset(y, 0, (size_t)V * sizeof(real));
            losses[row] = 0;
            continue;
        }
        real largest = NAME(maximum)(V, y), target = y[targets[row]];
        double sum = NAME(exp_row)(V, (double)largest, y);
        losses[row] = log(sum) + ((double)largest - (double)target);
        NAME(scale_row)(V, (real)(weights[row] / sum), y);
        y[targets[row]] -= (real)weights[row];
    }
}
