/* The register tiles, and products of whole matrices by them. Included by products.inc.h for panels of the real type,
 * and by bfloat16.inc.h for panels of bfloat16, which READ_ROW widens while it reads them: the chains are the same. */

/* B: element (k, j) at[k * k_step + j] within a panel of W columns; panels are panel_step apart. */
typedef struct {
    const panel_value *at;
    ptrdiff_t k_step, panel_step;
} PANEL(right);

/* C (rows, vectors) = from + A (rows, K) B (K, vectors), NV vectors in a panel, while the part of B from `ahead` on comes
 * into the cache */
ALWAYS_INLINE void PANEL(tile)(const int rows, const int vectors, ptrdiff_t K, const real *restrict a, ptrdiff_t a_row,
                              ptrdiff_t a_k, const panel_value *restrict b, ptrdiff_t b_k, ptrdiff_t b_panel,
                              NAME(start) from, real *C, ptrdiff_t ldc, const panel_value *ahead, ptrdiff_t ahead_k) {
    NAME(vector) c[MOST_ROWS][4 * NV], row[4 * NV];
    /* Vectors from one fetch to the next. Many rows are several blocks, each of which fetches a part. */
    const int step = rows == 1 ? NV / 2 * (int)(sizeof(real) / sizeof(panel_value)) : rows <= 4 ? 1 : NV;
    if (from.at) {
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int v = 0; v < vectors; v++)
                c[i][v] = *(const NAME(vector) *)(from.at + i * from.row_step + v * VECTOR_LENGTH);
    } else {
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int v = 0; v < vectors; v++) c[i][v] = (NAME(vector)){0};
    }
    for (ptrdiff_t k = 0; k < K; k++, a += a_k, b += b_k, ahead += ahead_k) {
        UNROLL for (int v = 0; v < vectors; v += step)
            __builtin_prefetch(ahead + v / NV * b_panel + v % NV * VECTOR_LENGTH);
        READ_ROW(row, vectors, b, b_panel);
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int v = 0; v < vectors; v++) c[i][v] += a[i * a_row] * row[v];
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++) *(NAME(vector) *)(C + i * ldc + v * VECTOR_LENGTH) = c[i][v];
}

typedef void PANEL(tile_function)(ptrdiff_t K, const real *a, ptrdiff_t a_row, ptrdiff_t a_k, const panel_value *b,
                                 ptrdiff_t b_k, ptrdiff_t b_panel, NAME(start) from, real *C, ptrdiff_t ldc,
                                 const panel_value *ahead, ptrdiff_t ahead_k);

#define TILE(name, rows, vectors)                                                                                     \
    static void PANEL(name)(ptrdiff_t K, const real *a, ptrdiff_t a_row, ptrdiff_t a_k, const panel_value *b,         \
                            ptrdiff_t b_k, ptrdiff_t b_panel, NAME(start) from, real *C, ptrdiff_t ldc,               \
                            const panel_value *ahead, ptrdiff_t ahead_k) {                                            \
        PANEL(tile)(rows, vectors, K, a, a_row, a_k, b, b_k, b_panel, from, C, ldc, ahead, ahead_k);                  \
    }
#if NV == 4
#define NARROW_TILES(rows) \
    TILE(narrow_tile_##rows##x1, rows, 1) TILE(narrow_tile_##rows##x2, rows, 2) TILE(narrow_tile_##rows##x3, rows, 3)
#else
#define NARROW_TILES(rows) TILE(narrow_tile_##rows##x1, rows, 1)
#endif
#define TILES(rows) TILE(tile_##rows##x1, rows, NV) NARROW_TILES(rows)
TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6)
#if MOST_ROWS == 8
#define TALL_TILES(rows)                                                                                              \
    NARROW_TILES(rows)                                                                                                \
    static void PANEL(tile_##rows##x1)(ptrdiff_t K, const real *a, ptrdiff_t a_row, ptrdiff_t a_k,                    \
                                       const panel_value *b, ptrdiff_t b_k, ptrdiff_t b_panel, NAME(start) from,      \
                                       real *C, ptrdiff_t ldc, const panel_value *ahead, ptrdiff_t ahead_k) {         \
        PANEL(narrow_tile_##rows##x2)(K, a, a_row, a_k, b, b_k, b_panel, from, C, ldc, ahead, ahead_k);               \
        PANEL(narrow_tile_##rows##x2)(K, a, a_row, a_k, b + W / 2, b_k, b_panel, NAME(start_at)(from, 0, W / 2),      \
                                      C + W / 2, ldc, ahead + W / 2, ahead_k);                                        \
    }
TALL_TILES(7) TALL_TILES(8)
#endif
TILE(tile_1x2, 1, 2 * NV) TILE(tile_2x2, 2, 2 * NV) TILE(tile_1x4, 1, 4 * NV)
#if WIDE_ROWS == 3
TILE(tile_3x2, 3, 2 * NV)
#endif

/* [log2 of panels][rows]: few rows take several panels at once, for 8 independent FMAs in flight. */
static PANEL(tile_function) *const PANEL(tiles)[3][MOST_ROWS + 1] = {
    {NULL, PANEL(tile_1x1), PANEL(tile_2x1), PANEL(tile_3x1), PANEL(tile_4x1), PANEL(tile_5x1), PANEL(tile_6x1),
#if MOST_ROWS == 8
     PANEL(tile_7x1), PANEL(tile_8x1),
#endif
    },
    {NULL, PANEL(tile_1x2), PANEL(tile_2x2),
#if WIDE_ROWS == 3
     PANEL(tile_3x2)
#endif
    },
    {NULL, PANEL(tile_1x4)},
};

/* [vectors][rows]: as many vectors of a panel as its last columns need. */
#if MOST_ROWS == 8
#define NARROW_TALL(vectors) PANEL(narrow_tile_7x##vectors), PANEL(narrow_tile_8x##vectors)
#else
#define NARROW_TALL(vectors)
#endif
#define NARROW(vectors)                                                                                               \
    {NULL, PANEL(narrow_tile_1x##vectors), PANEL(narrow_tile_2x##vectors), PANEL(narrow_tile_3x##vectors),               \
     PANEL(narrow_tile_4x##vectors), PANEL(narrow_tile_5x##vectors), PANEL(narrow_tile_6x##vectors), NARROW_TALL(vectors)}
static PANEL(tile_function) *const PANEL(narrow_tiles)[NV][MOST_ROWS + 1] = {
    {NULL},
    NARROW(1),
#if NV == 4
    NARROW(2),
    NARROW(3),
#endif
};

/* C (m, M) = from + A (m, K) B (K, M) in the whole panels of M: of MC rows of A, KC columns stay in the second-level
 * cache while all panels pass. */
static void PANEL(whole_panels)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, NAME(left) A, PANEL(right) B,
                               NAME(start) from, real *C, ptrdiff_t ldc) {
    /* The processor itself fetches for a row. */
    int fetched = m == 1 ? IS_FAR(panel_value, K, M) : IS_FETCHED(panel_value, K, M);
    int groups = m == 1 ? 2 : m <= WIDE_ROWS ? 1 : 0;
    for (ptrdiff_t left = m; left > 0; left -= MC_BLOCKS * A.block_rows) {
        ptrdiff_t rows = SMALLER(MC_BLOCKS * A.block_rows, left), blocks = CEIL_DIVIDE(rows, A.block_rows);
        /* Each block of rows fetches its share of KC rows of the next panel; a single one what it needs soon. */
        ptrdiff_t ahead_k = !fetched ? 0 : blocks > 1 ? W / blocks : B.k_step;
        ptrdiff_t ahead = !fetched ? 0 : blocks > 1 ? B.panel_step : FAR_AHEAD * B.k_step;
        for (ptrdiff_t k = 0; k < K; k += KC) {
            ptrdiff_t depth = SMALLER(KC, K - k), panel = 0;
            NAME(start) start = k ? (NAME(start)){C, ldc} : from;
            for (int group = groups; group >= 0; group--)
                for (; panel + (1 << group) <= M / W; panel += 1 << group) {
                    const real *a = A.at + k * A.k_step;
                    const panel_value *b = B.at + panel * B.panel_step + k * B.k_step, *next = b + ahead;
                    for (ptrdiff_t i = 0; i < rows; i += A.block_rows, a += A.block_step, next += depth * ahead_k)
                        PANEL(tiles)[group][SMALLER(A.block_rows, rows - i)](
                            depth, a, A.row_step, A.k_step, b, B.k_step, B.panel_step,
                            NAME(start_at)(start, i, panel * W), C + i * ldc + panel * W, ldc, next, ahead_k);
                }
        }
        A.at += MC_BLOCKS * A.block_step;
        C += MC_BLOCKS * A.block_rows * ldc;
        from = NAME(start_at)(from, MC_BLOCKS * A.block_rows, 0);
    }
}

/* C (m, count) = from + A (m, K) B (K, W)[:, first : first + count] */
static void PANEL(part_panel)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t first, ptrdiff_t count, NAME(left) A, PANEL(right) B,
                             NAME(start) from, real *C, ptrdiff_t ldc) {
    real whole[MOST_ROWS * W];
    ptrdiff_t vectors = CEIL_DIVIDE(first + count, VECTOR_LENGTH);
    PANEL(tile_function) *const *tiles = vectors < NV ? PANEL(narrow_tiles)[vectors] : PANEL(tiles)[0];
    int fits = !first && count == vectors * VECTOR_LENGTH;
    for (ptrdiff_t i = 0, block = 0; i < m; i += A.block_rows, block++) {
        ptrdiff_t rows = SMALLER(A.block_rows, m - i);
        if (fits) {
            tiles[rows](K, A.at + block * A.block_step, A.row_step, A.k_step, B.at, B.k_step, 0,
                        NAME(start_at)(from, i, 0), C + i * ldc, ldc, B.at, 0);
            continue;
        }
        for (ptrdiff_t j = 0; j < rows * W; j++) whole[j] = 0;
        for (ptrdiff_t r = 0; r < rows && from.at; r++)
            for (ptrdiff_t j = 0; j < count; j++) whole[r * W + first + j] = from.at[(i + r) * from.row_step + j];
        tiles[rows](K, A.at + block * A.block_step, A.row_step, A.k_step, B.at, B.k_step, 0, (NAME(start)){whole, W},
                    whole, W, B.at, 0);
        for (ptrdiff_t r = 0; r < rows; r++)
            for (ptrdiff_t j = 0; j < count; j++) C[(i + r) * ldc + j] = whole[r * W + first + j];
    }
}

static void PANEL(multiply_panels)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, NAME(left) A, const panel_value *packed,
                                  NAME(start) from, real *C, ptrdiff_t ldc) {
    ptrdiff_t whole = M / W * W;
    PANEL(whole_panels)(m, K, M, A, (PANEL(right)){packed, W, K * W}, from, C, ldc);
    if (whole < M)
        PANEL(part_panel)(m, K, 0, M - whole, A, (PANEL(right)){packed + whole * K, W, 0},
                         NAME(start_at)(from, 0, whole), C + whole, ldc);
}

#undef TILE
#undef TILES
#undef NARROW_TILES
#undef NARROW
#undef NARROW_TALL
#undef TALL_TILES
