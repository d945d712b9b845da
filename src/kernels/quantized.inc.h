/* Products in 8 bits: the rows of A are quantized as they come, the factor was quantized when it was packed (int8.inc.h).
 * A value stands for value times the scale of its row or column. */

/* q, a row of quantized_row_bytes(K), = x / scale, rounded to the nearest of -127 .. 127 (ties to even). The scale is
 * the largest |x| over 127 unless `fixed` is above 0. Zeros with scale 0 if that is no normal number, and with scale NaN
 * if an x is not finite. */
static void NAME(quantize_row)(ptrdiff_t K, const real *restrict x, real fixed, int8_t *restrict q,
                               real *restrict scale) {
    NAME(signed_bits) largest = 0;
    for (ptrdiff_t k = 0; k < K; k++) {
        NAME(signed_bits) bits = NAME(magnitude_bits)(x[k]);
        largest = bits > largest ? bits : largest;
    }
    real found;
    memcpy(&found, &largest, sizeof found);
    real s = fixed > 0 ? fixed : found / 127;
    int is_finite = largest < NAME(magnitude_bits)((real)INFINITY);
    if (!is_finite || s < (real)(REAL_IS_DOUBLE ? 0x1p-1022 : 0x1p-126)) {
        *scale = is_finite ? 0 : (real)NAN;
        memset(q, 0, (size_t)quantized_row_bytes(K));
        return;
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        real value = x[k] / s;
        value = value < -127 ? -127 : value;
        q[k] = NAME(round_to_int8)(value > 127 ? 127 : value);
    }
    int32_t negative = 0;
    for (ptrdiff_t k = 0; k < K; k++) negative += q[k] < 0 ? -q[k] : 0;
    memset(q + K, 0, (size_t)(quantized_row_bytes(K) - K));
    memcpy(q + quantized_row_bytes(K) - 4, &negative, 4);
    *scale = s;
}

static void NAME(quantize_rows)(ptrdiff_t m, ptrdiff_t K, const void *A, ptrdiff_t lda, double fixed, int8_t *q,
                                void *scales) {
    for (ptrdiff_t i = 0; i < m; i++)
        NAME(quantize_row)(K, (const real *)A + i * lda, (real)fixed, q + i * quantized_row_bytes(K), (real *)scales + i);
}

/* C += sums * row_scale * scales */
static void NAME(add_scaled)(ptrdiff_t count, const int32_t *restrict sums, real row_scale, const float *restrict scales,
                             real *restrict C) {
    for (ptrdiff_t j = 0; j < count; j++) C[j] += (real)sums[j] * (row_scale * (real)scales[j]);
}

static void NAME(multiply_int8)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const int8_t *q, const void *scales,
                                const void *packed, const void *from, ptrdiff_t ldfrom, void *C_, ptrdiff_t ldc) {
    real *C = C_;
    ptrdiff_t ldq = quantized_row_bytes(K), most = CEIL_DIVIDE(m, CEIL_DIVIDE(m, INT8_ROWS) + !m);
    if (from != C_) NAME(copy_start)(m, M, (NAME(start)){from, ldfrom}, C, ldc);
    for (ptrdiff_t j = 0; j < M; j += INT8_COLUMNS) {
        const INT8_NAME(panel) *panel = (const void *)((const char *)packed + j / INT8_COLUMNS * INT8_PANEL(K));
        ptrdiff_t count = SMALLER(INT8_COLUMNS, M - j);
        for (ptrdiff_t i = 0; i < m; i += most) {
            int32_t sums[INT8_ROWS * INT8_COLUMNS];
            ptrdiff_t rows = SMALLER(most, m - i);
            INT8_NAME(sums)(rows)((K + 3) / 4, CEIL_DIVIDE(count, INT8_LENGTH), q + i * ldq, ldq, panel, sums);
            for (ptrdiff_t r = 0; r < rows; r++)
                NAME(add_scaled)(count, sums + r * INT8_COLUMNS, ((const real *)scales)[i + r], panel->scales,
                                 C + (i + r) * ldc + j);
        }
    }
}

/* out = b + the values that lie `shift` bits from the top of the words, times their scales */
static void NAME(scale_group)(ptrdiff_t count, const int32_t *restrict words, int shift, const float *restrict scales,
                              const real *restrict b, real *restrict out) {
    if (b)
        for (ptrdiff_t j = 0; j < count; j++)
            out[j] = b[j] + (real)((int32_t)((uint32_t)words[j] << shift) >> 24) * (real)scales[j];
    else
        for (ptrdiff_t j = 0; j < count; j++)
            out[j] = (real)((int32_t)((uint32_t)words[j] << shift) >> 24) * (real)scales[j];
}

static void NAME(gather_int8)(ptrdiff_t rows, ptrdiff_t M, ptrdiff_t K, const void *b, const void *packed,
                              const int64_t *ids, void *out, ptrdiff_t ldout) {
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < M; j += INT8_COLUMNS) {
            const INT8_NAME(panel) *panel = (const void *)((const char *)packed + j / INT8_COLUMNS * INT8_PANEL(K));
            int byte = (int)(ids[i] % 4);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            int shift = 24 - 8 * byte;
#else
            int shift = 8 * byte;
#endif
            NAME(scale_group)(SMALLER(INT8_COLUMNS, M - j),
                              (const int32_t *)(const void *)(panel->values + ids[i] / 4 * 4 * INT8_COLUMNS), shift,
                              panel->scales, b ? (const real *)b + j : NULL, (real *)out + i * ldout + j);
        }
}
