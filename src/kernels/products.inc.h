/* Matrix products. Every element of every product is one chain of roundings,
 *     c = from[i, j];  c = fma(A[i, k], B[k, j], c)  for k = 0 .. K-1 in order  (multiply, then add, without FMA),
 * whatever the tile, edge, packing or blocking (cutting K stores and reloads c, which is exact): a row of a product
 * has the same bits alone as among others. Included once for every real type and instruction set; see table.inc.h. */

/* The register tile is MR rows by NV vectors, a panel W columns; KC rows of a panel pass between two visits to C. A tile
 * of 6 x 4 reads 10 values for 24 multiply-adds; 8 x 2 reads 10 for 16, and reached 0.85 of its rate. */
#define MR 6
#if VECTOR_BYTES == 64 || defined(__aarch64__) /* 32 registers */
#define NV 4
#define MOST_ROWS 8 /* 7 and 8 rows pass half a panel at a time: in two blocks they would read B twice */
#else               /* 16 */
#define NV 2
#define MOST_ROWS MR
#endif
#define KC 256
/* Up to so many rows take two panels at once. NEON has no operands in memory: three would not find room. */
#if defined(__aarch64__)
#define WIDE_ROWS 2
#else
#define WIDE_ROWS 3
#endif
#define VECTOR_LENGTH (VECTOR_BYTES / (ptrdiff_t)sizeof(real))
#define W (NV * VECTOR_LENGTH)
#define MC_BLOCKS 16
#define MC (MC_BLOCKS * MR) /* weight_gradients: rows and columns of C between two packings of A and B */
#define NC 1024
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))
#define CEIL_DIVIDE(a, b) (((a) + (b)-1) / (b))

/* A: element (i, k) at[i * row_step + k * k_step] within a block of at most MOST_ROWS rows; blocks are block_step apart. */
typedef struct {
    const real *at;
    ptrdiff_t row_step, k_step, block_rows, block_step;
} NAME(left);

/* What the sums start from: element (i, j) at[i * row_step + j], or zeros if NULL. */
typedef struct {
    const real *at;
    ptrdiff_t row_step;
} NAME(start);

ALWAYS_INLINE NAME(start) NAME(start_at)(NAME(start) from, ptrdiff_t i, ptrdiff_t j) {
    if (from.at) from.at += i * from.row_step + j;
    return from;
}

/* A factor that fills half the second-level cache is fetched ahead of its use: one that exceeds that cache comes at
 * 100 GB/s, at 128 with prefetch, and the first visit to a panel took as long as its products with 64 rows (H = 1024:
 * 195 GFLOP/s, 240 with prefetch). */
#define EXCEEDS(type, K, M, bytes) ((K) * (M) * (ptrdiff_t)sizeof(type) > (bytes))
#define IS_FETCHED(type, K, M) EXCEEDS(type, K, M, 1 << 19)
#define IS_FAR(type, K, M) EXCEEDS(type, K, M, 3 << 19)
#define FAR_AHEAD 32 /* rows of B, for a single block of rows */
#define STREAMS 8    /* rows of B that are read side by side in place */
#define STREAM_AHEAD (512 / (ptrdiff_t)sizeof(real)) /* what comes from memory is fetched so far ahead */

#define PANEL(function) NAME(function)
#define panel_value real
#define READ_ROW(row, vectors, b, b_panel)      \
    UNROLL for (int v = 0; v < vectors; v++) row[v] = \
        *(const NAME(vector) *)(b + v / NV * b_panel + v % NV * VECTOR_LENGTH)
#include "tiles.inc.h"
#undef PANEL
#undef panel_value
#undef READ_ROW

#if __has_builtin(__builtin_shufflevector)
/* Transposed matrices are read by vectors of at most two lanes of 16 bytes: values are exchanged within a lane at little
 * cost, and gcc joins lanes while it loads them. LOW and HIGH interleave the lower halves of the lanes of two such
 * vectors, or the upper ones. */
#define SLICE_BYTES SMALLER(VECTOR_BYTES, 32)
#define SLICE (SLICE_BYTES / (ptrdiff_t)sizeof(real))
#define LANE (16 / (ptrdiff_t)sizeof(real))
typedef real NAME(lane) __attribute__((vector_size(16), aligned(sizeof(real)), may_alias));
typedef real NAME(slice) __attribute__((vector_size(SLICE_BYTES), aligned(sizeof(real)), may_alias));
#if VECTOR_BYTES == 16
#define READ_LANES(p, step) *(const NAME(lane) *)(p)
#elif REAL_IS_DOUBLE
#define READ_LANES(p, step) \
    __builtin_shufflevector(*(const NAME(lane) *)(p), *(const NAME(lane) *)((p) + (step)), 0, 1, 2, 3)
#else
#define READ_LANES(p, step) \
    __builtin_shufflevector(*(const NAME(lane) *)(p), *(const NAME(lane) *)((p) + (step)), 0, 1, 2, 3, 4, 5, 6, 7)
#endif
#if VECTOR_BYTES == 16 && REAL_IS_DOUBLE
#define LOW 0, 2
#define HIGH 1, 3
#elif VECTOR_BYTES == 16
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#elif REAL_IS_DOUBLE
#define LOW 0, 4, 2, 6
#define HIGH 1, 5, 3, 7
#else
#define LOW 0, 8, 1, 9, 4, 12, 5, 13
#define HIGH 2, 10, 3, 11, 6, 14, 7, 15
#endif

/* a[k] = column k of source (SLICE rows, LANE columns), rows source_step apart */
ALWAYS_INLINE void NAME(read_transposed)(const real *restrict source, ptrdiff_t source_step, NAME(slice) *a) {
    NAME(slice) b[LANE];
    UNROLL for (int i = 0; i < LANE; i++) a[i] = READ_LANES(source + i * source_step, LANE * source_step);
    UNROLL for (int round = 1; round < LANE; round *= 2) {
        UNROLL for (int i = 0; i < LANE / 2; i++) {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + LANE / 2], LOW);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + LANE / 2], HIGH);
        }
        UNROLL for (int i = 0; i < LANE; i++) a[i] = b[i];
    }
}
#undef LOW
#undef HIGH
#undef READ_LANES
#define TRANSPOSES 1
#else
#define TRANSPOSES 0
#endif

/* target (K, count), rows target_step apart = B (K, count), the transpose of B as it lies */
ALWAYS_INLINE void NAME(transpose_block)(ptrdiff_t K, ptrdiff_t count, const real *restrict B, ptrdiff_t column_stride,
                                         real *restrict target, ptrdiff_t target_step) {
    ptrdiff_t whole_k = 0, whole = 0;
#if TRANSPOSES
    whole_k = K / LANE * LANE;
    whole = whole_k ? count / SLICE * SLICE : 0;
    for (ptrdiff_t j = 0; j < whole; j += SLICE)
        for (ptrdiff_t k = 0; k < whole_k; k += LANE) {
            NAME(slice) rows[LANE];
            NAME(read_transposed)(B + j * column_stride + k, column_stride, rows);
            UNROLL for (int i = 0; i < LANE; i++) *(NAME(slice) *)(target + (k + i) * target_step + j) = rows[i];
        }
#endif
    for (ptrdiff_t j = 0; j < count; j++)
        for (ptrdiff_t k = j < whole ? whole_k : 0; k < K; k++) target[k * target_step + j] = B[k + j * column_stride];
}

static void NAME(transpose)(ptrdiff_t rows, ptrdiff_t columns, const void *source, ptrdiff_t source_step, void *target,
                            ptrdiff_t target_step) {
    NAME(transpose_block)(columns, rows, source, source_step, target, target_step);
}

/* packed (K, width) = B (K, count), the transpose of B as it lies, zero beyond column `count` */
ALWAYS_INLINE void NAME(pack_transposed)(const ptrdiff_t width, ptrdiff_t K, ptrdiff_t count, const real *restrict B,
                                         ptrdiff_t column_stride, real *restrict packed) {
    NAME(transpose_block)(K, count, B, column_stride, packed, width);
    for (ptrdiff_t k = 0; k < K; k++)
        for (ptrdiff_t j = count; j < width; j++) packed[k * width + j] = 0;
}

ALWAYS_INLINE void NAME(pack_block)(const ptrdiff_t width, ptrdiff_t K, ptrdiff_t count, const real *restrict B,
                                    ptrdiff_t row_stride, real *restrict packed) {
    if (count == width) {
        /* A constant size: moves of vectors, no call. */
        for (ptrdiff_t k = 0; k < K; k++) memcpy(packed + k * width, B + k * row_stride, (size_t)width * sizeof(real));
        return;
    }
    for (ptrdiff_t k = 0; k < K; k++)
        for (ptrdiff_t j = 0; j < width; j++) packed[k * width + j] = j < count ? B[k * row_stride + j] : 0;
}

/* packed (ceil(M / width), K, width) = B (K, M), zero beyond column M. Few rows of all panels at a time read B in
 * long pieces; a transposed B is read in long pieces panel by panel. */
ALWAYS_INLINE void NAME(pack_panels)(const ptrdiff_t width, ptrdiff_t K, ptrdiff_t M, const real *B,
                                     ptrdiff_t row_stride, ptrdiff_t column_stride, real *packed) {
    ptrdiff_t step = column_stride == 1 ? 8 : K;
    for (ptrdiff_t k = 0; k < K; k += step)
        for (ptrdiff_t j = 0; j < M; j += width) {
            const real *source = B + k * row_stride + j * column_stride;
            real *target = packed + j * K + k * width;
            ptrdiff_t rows = SMALLER(step, K - k), count = SMALLER(width, M - j);
            if (column_stride == 1)
                NAME(pack_block)(width, rows, count, source, row_stride, target);
            else
                NAME(pack_transposed)(width, rows, count, source, column_stride, target);
        }
}

static void NAME(pack)(ptrdiff_t K, ptrdiff_t M, const void *B, ptrdiff_t row_stride, ptrdiff_t column_stride,
                       void *packed) {
    NAME(pack_panels)(W, K, M, B, row_stride, column_stride, packed);
}

/* Blocks of nearly equal height, for a product of M columns: 9 rows are 5 and 4, not 8 and 1. */
ALWAYS_INLINE NAME(left) NAME(row_major)(ptrdiff_t m, ptrdiff_t M, const real *A, ptrdiff_t lda) {
    ptrdiff_t most = M > W / 2 ? MR : MOST_ROWS;
    ptrdiff_t block_rows = m > MOST_ROWS ? CEIL_DIVIDE(m, CEIL_DIVIDE(m, most)) : MOST_ROWS;
    return (NAME(left)){A, lda, 1, block_rows, block_rows * lda};
}

static void NAME(copy_start)(ptrdiff_t m, ptrdiff_t M, NAME(start) from, real *C, ptrdiff_t ldc) {
    for (ptrdiff_t i = 0; i < m; i++)
        for (ptrdiff_t j = 0; j < M; j++) C[i * ldc + j] = from.at ? from.at[i * from.row_step + j] : 0;
}

static void NAME(multiply_packed)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const void *A, ptrdiff_t lda,
                                  const void *packed, const void *from, ptrdiff_t ldfrom, void *C, ptrdiff_t ldc) {
    NAME(start) start = {from, ldfrom};
    if (K)
        NAME(multiply_panels)(m, K, M, NAME(row_major)(m, M, A, lda), packed, start, C, ldc);
    else
        NAME(copy_start)(m, M, start, C, ldc);
}

/* C (m, M) += A (m, depth) B (depth, M), columns begin .. end - 1 */
ALWAYS_INLINE void NAME(add_columns)(const int depth, ptrdiff_t m, ptrdiff_t begin, ptrdiff_t end,
                                     const real *restrict A, ptrdiff_t lda, const real *restrict B, ptrdiff_t ldb,
                                     real *restrict C, ptrdiff_t ldc) {
    for (ptrdiff_t j = begin; j < end; j++)
        for (ptrdiff_t i = 0; i < m; i++) {
            real c = C[i * ldc + j];
            UNROLL for (int k = 0; k < depth; k++) c += A[i * lda + k] * B[k * ldb + j];
            C[i * ldc + j] = c;
        }
}

/* C (m, M) += A (m, depth) B (depth, M): C passes through registers once for several rows of B, which are read as the
 * streams that they are, from the first whole line of the cache on: arrays of NumPy begin within one, and vectors across
 * two lines come at 0.8 of the speed. */
ALWAYS_INLINE void NAME(add_rows)(const int depth, const int fetches, ptrdiff_t m, ptrdiff_t M, const real *restrict A,
                                  ptrdiff_t lda, const real *restrict B, ptrdiff_t ldb, real *restrict C,
                                  ptrdiff_t ldc) {
    ptrdiff_t begin = (ptrdiff_t)(-(uintptr_t)B % VECTOR_BYTES / sizeof(real)), j = SMALLER(begin, M);
    NAME(add_columns)(depth, m, 0, j, A, lda, B, ldb, C, ldc);
    for (; j + VECTOR_LENGTH <= M; j += VECTOR_LENGTH) {
        NAME(vector) b[STREAMS];
        UNROLL for (int k = 0; k < depth; k++) {
            if (fetches) __builtin_prefetch(B + k * ldb + j + STREAM_AHEAD);
            b[k] = *(const NAME(vector) *)(B + k * ldb + j);
        }
        for (ptrdiff_t i = 0; i < m; i++) {
            NAME(vector) c = *(const NAME(vector) *)(C + i * ldc + j);
            UNROLL for (int k = 0; k < depth; k++) c += A[i * lda + k] * b[k];
            *(NAME(vector) *)(C + i * ldc + j) = c;
        }
    }
    NAME(add_columns)(depth, m, j, M, A, lda, B, ldb, C, ldc);
}

static void NAME(multiply_streams)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const real *A, ptrdiff_t lda, const real *B,
                                   ptrdiff_t ldb, NAME(start) from, real *C, ptrdiff_t ldc) {
    if (from.at != C) NAME(copy_start)(m, M, from, C, ldc);
    int fetches = VECTOR_BYTES == 64 && EXCEEDS(real, K, M, 6 << 20);
    ptrdiff_t k = 0;
    for (; k + STREAMS <= K && fetches; k += STREAMS)
        NAME(add_rows)(STREAMS, 1, m, M, A + k, lda, B + k * ldb, ldb, C, ldc);
    for (; k + STREAMS <= K; k += STREAMS) NAME(add_rows)(STREAMS, 0, m, M, A + k, lda, B + k * ldb, ldb, C, ldc);
    for (; k < K; k++) NAME(add_rows)(1, 0, m, M, A + k, lda, B + k * ldb, ldb, C, ldc);
}

#if TRANSPOSES
/* p[0], p[step], ... of `count` values, zeros for the others and for NULL */
ALWAYS_INLINE NAME(slice) NAME(slice_of)(const real *p, ptrdiff_t step, ptrdiff_t count) {
    NAME(slice) values = {0};
    if (p && step == 1 && count >= SLICE) return *(const NAME(slice) *)p;
    for (ptrdiff_t lane = 0; p && lane < SMALLER(SLICE, count); lane++) values[lane] = p[lane * step];
    return values;
}

/* C (rows, M) = from + A (rows, K) B, where B (K, M) is a transposed matrix, read as it lies: pieces of it are turned in
 * registers, and the chains of SLICE columns advance side by side. The columns of one slice are as many streams as a
 * processor fetches ahead; with more, weights from afar came at two thirds of the speed. */
ALWAYS_INLINE void NAME(transposed_rows)(const int rows, ptrdiff_t K, ptrdiff_t M, const real *restrict A,
                                         ptrdiff_t lda, const real *restrict B, ptrdiff_t column_stride,
                                         NAME(start) from, real *C, ptrdiff_t ldc) {
    for (ptrdiff_t j = 0; j < M; j += SLICE, B += SLICE * column_stride) {
        NAME(slice) sum[TRANSPOSED_ROWS], b[LANE];
        ptrdiff_t columns = SMALLER(SLICE, M - j), k = 0;
        UNROLL for (int i = 0; i < rows; i++)
            sum[i] = NAME(slice_of)(from.at ? from.at + i * from.row_step + j : NULL, 1, columns);
        for (; k + LANE <= K && columns == SLICE; k += LANE) {
            NAME(read_transposed)(B + k, column_stride, b);
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int l = 0; l < LANE; l++) sum[i] += A[i * lda + k + l] * b[l];
        }
        for (; k < K; k++) {
            b[0] = NAME(slice_of)(B + k, column_stride, columns);
            UNROLL for (int i = 0; i < rows; i++) sum[i] += A[i * lda + k] * b[0];
        }
        UNROLL for (int i = 0; i < rows; i++)
            for (ptrdiff_t lane = 0; lane < columns; lane++) C[i * ldc + j + lane] = sum[i][lane];
    }
}

#define TRANSPOSED(rows)                                                                                              \
    static void NAME(transposed_##rows)(ptrdiff_t K, ptrdiff_t M, const real *A, ptrdiff_t lda, const real *B,         \
                                        ptrdiff_t column_stride, NAME(start) from, real *C, ptrdiff_t ldc) {          \
        NAME(transposed_rows)(rows, K, M, A, lda, B, column_stride, from, C, ldc);                                    \
    }
TRANSPOSED(1) TRANSPOSED(2) TRANSPOSED(3) TRANSPOSED(4)

static void (*const NAME(transposed)[TRANSPOSED_ROWS + 1])(ptrdiff_t K, ptrdiff_t M, const real *A, ptrdiff_t lda,
                                                           const real *B, ptrdiff_t column_stride, NAME(start) from,
                                                           real *C, ptrdiff_t ldc) = {
    NULL, NAME(transposed_1), NAME(transposed_2), NAME(transposed_3), NAME(transposed_4)};
#endif

/* Packs a panel when it is needed, and does not keep it: for many rows, once. */
static void NAME(multiply_rows)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, NAME(left) A, const real *B,
                                ptrdiff_t row_stride, ptrdiff_t column_stride, NAME(start) from, real *C,
                                ptrdiff_t ldc) {
    real packed[KC * W];
    for (ptrdiff_t j = 0; j < M; j += W)
        for (ptrdiff_t k = 0; k < K; k += KC) {
            ptrdiff_t depth = SMALLER(KC, K - k), columns = SMALLER(W, M - j);
            NAME(left) part = A;
            part.at += k * A.k_step;
            NAME(pack_panels)(W, depth, columns, B + k * row_stride + j * column_stride, row_stride, column_stride,
                              packed);
            NAME(multiply_panels)(m, depth, columns, part, packed,
                                  k ? (NAME(start)){C + j, ldc} : NAME(start_at)(from, 0, j), C + j, ldc);
        }
}

static void NAME(multiply)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const void *A_, ptrdiff_t lda, const void *B_,
                           ptrdiff_t row_stride, ptrdiff_t column_stride, const void *from_, ptrdiff_t ldfrom,
                           void *C_, ptrdiff_t ldc) {
    NAME(left) A = NAME(row_major)(m, M, A_, lda);
    NAME(start) from = {from_, ldfrom};
    const real *B = B_;
    real *C = C_;
    ptrdiff_t whole = M / W * W, rest = M - whole;
    if (!K || !m) {
        NAME(copy_start)(m, M, from, C, ldc);
#if TRANSPOSES
    } else if (column_stride != 1 && m <= TRANSPOSED_ROWS) {
        NAME(transposed)[m](K, M, A_, lda, B, column_stride, from, C, ldc);
#endif
    } else if (column_stride == 1 && (m == 1 || (m <= MOST_ROWS && IS_FAR(real, K, M)))) {
        NAME(multiply_streams)(m, K, M, A_, lda, B, row_stride, from, C, ldc);
    } else if (column_stride != 1 || m > MOST_ROWS || !whole) {
        NAME(multiply_rows)(m, K, M, A, B, row_stride, column_stride, from, C, ldc);
    } else {
        NAME(whole_panels)(m, K, M, A, (NAME(right)){B, row_stride, W}, from, C, ldc);
        if (rest) /* the last W columns; what is done already is computed again and thrown away */
            NAME(part_panel)(m, K, W - rest, rest, A, (NAME(right)){B + M - W, row_stride, 0},
                             NAME(start_at)(from, 0, whole), C + whole, ldc);
    }
}

#define STRIPS_WORK (SMALLER(K, KC) * CEIL_DIVIDE(SMALLER(m, MC), MR) * MR)

static ptrdiff_t NAME(weight_gradients_work)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M) {
    return STRIPS_WORK + SMALLER(K, KC) * CEIL_DIVIDE(SMALLER(M, NC), W) * W;
}

static void NAME(weight_gradients)(ptrdiff_t K, ptrdiff_t M, const void *B_, ptrdiff_t ldb, const weight_gradient *out,
                                   int count, void *sums, void *work) {
    const real *B = B_;
    real *panels = work, *strips = panels + SMALLER(K, KC) * CEIL_DIVIDE(SMALLER(M, NC), W) * W;
    for (ptrdiff_t j = 0; j < M; j += NC)
        for (ptrdiff_t k = 0; k < K; k += KC) {
            ptrdiff_t depth = SMALLER(KC, K - k), columns = SMALLER(NC, M - j);
            NAME(pack_panels)(W, depth, columns, B + k * ldb + j, ldb, 1, panels);
            if (sums) NAME(column_sums)(depth, columns, B + k * ldb + j, ldb, (real *)sums + j);
            for (const weight_gradient *o = out; o < out + count; o++)
                for (ptrdiff_t i = 0; i < o->m && j < o->M; i += MC) {
                    const real *A = (const real *)o->A + k * o->lda + i;
                    real *C = (real *)o->C + i * o->ldc + j;
                    ptrdiff_t rows = SMALLER(MC, o->m - i);
                    NAME(pack_panels)(MR, depth, rows, A, o->lda, 1, strips);
                    NAME(multiply_panels)(rows, depth, SMALLER(columns, o->M - j),
                                          (NAME(left)){strips, 1, MR, MR, MR * depth}, panels,
                                          (NAME(start)){k || o->adds ? C : NULL, o->ldc}, C, o->ldc);
                }
        }
}

#include "bfloat16.inc.h"
#include "quantized.inc.h"

#undef MR
#undef NV
#undef KC
#undef WIDE_ROWS
#undef VECTOR_LENGTH
#undef W
#undef MC
#undef MC_BLOCKS
#undef NC
#undef SMALLER
#undef CEIL_DIVIDE
#undef MOST_ROWS
#undef STRIPS_WORK
#undef TRANSPOSES
#undef LANE
#undef SLICE
#undef SLICE_BYTES
#undef EXCEEDS
#undef IS_FETCHED
#undef IS_FAR
#undef STREAMS
#undef STREAM_AHEAD
#undef FAR_AHEAD
#undef TRANSPOSED
