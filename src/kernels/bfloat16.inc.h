/* Factors in bfloat16, the upper half of a float: widening is exact, and every product has the bits of the same product
 * with the widened factor. A panel is packed in pairs of vectors: the lower halves of the words of a pair are its first
 * VECTOR_LENGTH columns, the upper halves the others, so that a shift and a mask widen it. */

#if REAL_IS_DOUBLE
#define WORD_BYTES (VECTOR_BYTES / 2)
typedef real NAME(widened) __attribute__((vector_size(VECTOR_BYTES)));
#define FLOATS_TO_REAL(floats) ((NAME(vector))__builtin_convertvector(floats, NAME(widened)))
#else
#define WORD_BYTES VECTOR_BYTES
#define FLOATS_TO_REAL(floats) ((NAME(vector))(floats))
#endif
typedef uint32_t NAME(bfloat16_words) __attribute__((vector_size(WORD_BYTES), aligned(2), may_alias));
typedef float NAME(bfloat16_floats) __attribute__((vector_size(WORD_BYTES)));

ALWAYS_INLINE void NAME(widen_pair)(const uint16_t *p, NAME(vector) *first, NAME(vector) *second) {
    NAME(bfloat16_words) words = *(const NAME(bfloat16_words) *)p;
    *first = FLOATS_TO_REAL((NAME(bfloat16_floats))(words << 16));
    *second = FLOATS_TO_REAL((NAME(bfloat16_floats))(words & 0xffff0000u));
}

/* Where a column of a pair is. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PAIR_PLACE(column) ((column) % VECTOR_LENGTH * 2 + (column) / VECTOR_LENGTH)
#else
#define PAIR_PLACE(column) ((column) % VECTOR_LENGTH * 2 + 1 - (column) / VECTOR_LENGTH)
#endif
#define PAIR (2 * VECTOR_LENGTH)

#define PANEL(function) NAME(bfloat16_##function)
#define panel_value uint16_t
#define READ_ROW(row, vectors, b, b_panel)      \
    UNROLL for (int v = 0; v < vectors; v += 2) \
        NAME(widen_pair)(b + v / NV * b_panel + v % NV * VECTOR_LENGTH, row + v, row + v + 1)
#include "tiles.inc.h"
#undef PANEL
#undef panel_value
#undef READ_ROW

static void NAME(pack_bfloat16)(ptrdiff_t K, ptrdiff_t M, const uint16_t *B, ptrdiff_t ldb, void *packed) {
    for (ptrdiff_t j = 0; j < CEIL_DIVIDE(M, W) * W; j++) {
        uint16_t *target = (uint16_t *)packed + j / W * W * K + j % W / PAIR * PAIR + PAIR_PLACE(j % PAIR);
        for (ptrdiff_t k = 0; k < K; k++) target[k * W] = j < M ? B[k * ldb + j] : 0;
    }
}

/* rows (K, W) = rows of a packed panel */
static void NAME(widen_panel)(ptrdiff_t K, const uint16_t *panel, real *restrict rows) {
    for (ptrdiff_t j = 0; j < K * W; j += PAIR) {
        NAME(vector) pair[2];
        NAME(widen_pair)(panel + j, pair, pair + 1);
        for (int v = 0; v < 2; v++) *(NAME(vector) *)(rows + j + v * VECTOR_LENGTH) = pair[v];
    }
}

/* More rows read a panel that was widened once. Where floats are widened beside the multiply-adds at no cost, none do. */
#if REAL_IS_DOUBLE || VECTOR_BYTES == 64
#define WIDENING_ROWS (2 * MR)
#else
#define WIDENING_ROWS PTRDIFF_MAX
#endif

static void NAME(multiply_bfloat16)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const void *A_, ptrdiff_t lda,
                                    const void *packed, const void *from_, ptrdiff_t ldfrom, void *C_, ptrdiff_t ldc) {
    NAME(left) A = NAME(row_major)(m, M, A_, lda);
    NAME(start) from = {from_, ldfrom};
    real *C = C_;
    real rows[KC * W];
    if (!K) {
        NAME(copy_start)(m, M, from, C, ldc);
    } else if (m <= WIDENING_ROWS) {
        NAME(bfloat16_multiply_panels)(m, K, M, A, packed, from, C, ldc);
    } else {
        for (ptrdiff_t j = 0; j < M; j += W)
            for (ptrdiff_t k = 0; k < K; k += KC) {
                ptrdiff_t depth = SMALLER(KC, K - k);
                NAME(left) part = A;
                part.at += k * A.k_step;
                NAME(widen_panel)(depth, (const uint16_t *)packed + j * K + k * W, rows);
                NAME(multiply_panels)(m, depth, SMALLER(W, M - j), part, rows,
                                      k ? (NAME(start)){C + j, ldc} : NAME(start_at)(from, 0, j), C + j, ldc);
            }
    }
}

static void NAME(gather_bfloat16)(ptrdiff_t rows, ptrdiff_t M, ptrdiff_t K, const void *b_, const void *packed,
                                  const int64_t *ids, void *out_, ptrdiff_t ldout) {
    real row[W];
    const real *b = b_;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < M; j += W) {
            real *out = (real *)out_ + i * ldout + j;
            NAME(widen_panel)(1, (const uint16_t *)packed + j * K + ids[i] * W, row);
            for (ptrdiff_t l = 0; l < SMALLER(W, M - j); l++) out[l] = b ? b[j + l] + row[l] : row[l];
        }
}

#undef WIDENING_ROWS
#undef WORD_BYTES
#undef FLOATS_TO_REAL
#undef PAIR
#undef PAIR_PLACE
