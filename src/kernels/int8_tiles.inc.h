/* The register tiles of one variant of DOT (int8.inc.h), by the number of rows. */

#define FETCHED_AHEAD 1024 /* bytes, for a single row: 1.1 times as fast from the second-level cache */
#define TILE_NAME(function) JOIN3(int8_##function, VARIANT, ISA)

VARIANT_TARGET ALWAYS_INLINE void TILE_NAME(tile)(const int rows, const int vectors, ptrdiff_t groups, const int8_t *A,
                                                  ptrdiff_t lda, const INT8_NAME(panel) *panel, int32_t *sums) {
    const int chains = rows == 1 ? 2 : 1; /* of a row: enough independent sums */
    INT8_NAME(ints) sum[INT8_ROWS][2][INT8_VECTORS];
    const int8_t *B = panel->values;
    int32_t negative[INT8_ROWS];
    UNROLL for (int i = 0; i < rows; i++) {
        memcpy(negative + i, A + i * lda + 4 * groups, 4);
        UNROLL for (int v = 0; v < vectors; v++) {
            sum[i][0][v] = START(i, v);
            sum[i][1][v] = (INT8_NAME(ints)){0};
        }
    }
    ptrdiff_t group = 0;
    for (; group + chains <= groups; group += chains)
        UNROLL for (int chain = 0; chain < chains; chain++) {
            UNROLL for (int v = 0; v < vectors && rows == 1; v += 64 / VECTOR_BYTES)
                __builtin_prefetch(B + FETCHED_AHEAD + v * VECTOR_BYTES);
            UNROLL for (int i = 0; i < rows; i++) {
                int32_t four;
                memcpy(&four, A + i * lda + (group + chain) * 4, 4);
                INT8_NAME(ints) a = four - (INT8_NAME(ints)){0};
                UNROLL for (int v = 0; v < vectors; v++) sum[i][chain][v] =
                    DOT(sum[i][chain][v], a, *(const INT8_NAME(ints) *)(B + v * VECTOR_BYTES));
            }
            B += INT8_COLUMNS * 4;
        }
    for (; group < groups; group++) {
        int32_t four;
        memcpy(&four, A + group * 4, 4);
        INT8_NAME(ints) a = four - (INT8_NAME(ints)){0};
        UNROLL for (int v = 0; v < vectors; v++)
            sum[0][0][v] = DOT(sum[0][0][v], a, *(const INT8_NAME(ints) *)(B + v * VECTOR_BYTES));
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            *(INT8_NAME(ints) *)(sums + i * INT8_COLUMNS + v * INT8_LENGTH) = sum[i][0][v] + sum[i][1][v];
}

#define CASE(rows, vectors) \
    case vectors: TILE_NAME(tile)(rows, vectors, groups, A, lda, panel, sums); break;
#define TILE(rows)                                                                                                    \
    VARIANT_TARGET static void TILE_NAME(tile_##rows)(ptrdiff_t groups, ptrdiff_t vectors, const int8_t *A,           \
                                                      ptrdiff_t lda, const INT8_NAME(panel) *panel, int32_t *sums) {  \
        switch (vectors) {                                                                                            \
            CASE(rows, 1) CASE(rows, 2) CASE(rows, 3) CASE(rows, 4)                                                   \
        }                                                                                                             \
    }
TILE(1) TILE(2) TILE(3)
#if INT8_ROWS == 6
TILE(4) TILE(5) TILE(6)
#endif

static INT8_NAME(sums_function) *const TILE_NAME(sums)[INT8_ROWS + 1] = {
    NULL, TILE_NAME(tile_1), TILE_NAME(tile_2), TILE_NAME(tile_3),
#if INT8_ROWS == 6
    TILE_NAME(tile_4), TILE_NAME(tile_5), TILE_NAME(tile_6),
#endif
};

#undef FETCHED_AHEAD
#undef TILE_NAME
#undef TILE
#undef CASE
#undef VARIANT
#undef VARIANT_TARGET
#undef DOT
#undef START
