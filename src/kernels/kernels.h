/* The contract between the time loops (Cython) and the kernels (C); the steps of the cells are in cells.h.
 *
 * One table per element type and instruction set; a `void *` points to that element type ("real"). Matrices are
 * row-major; ld* are the distances between rows, negative to run from the last row to the first. No two pointers overlap
 * unless it says so. Kernels check nothing and allocate nothing. */
#ifndef RNNCORE_KERNELS_H
#define RNNCORE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "cells.h"

enum { RULE_SGD, RULE_MOMENTUM, RULE_SQUARES, RULE_ADAM };
enum { OPTIMIZER_CONSTANTS = 7 };

/* A multiple of every panel width: a packed factor of M columns takes M rounded up to it. */
enum { LARGEST_PANEL = 64 };

/* What the values of a packed factor are. */
enum { PRECISION_FULL, PRECISION_BFLOAT16, PRECISION_INT8 };

/* Sums of so many products of 8 bits fit 32 bits. */
enum { LARGEST_QUANTIZED = 1 << 17 };

/* `multiply` reads a transposed B in place for so many rows of A; more cost as much as packing it. */
enum { TRANSPOSED_ROWS = 4 };

/* C (m, M) = A' B, with A (K, m) and the first M columns of B; added to C if `adds`, else C is not read. */
typedef struct weight_gradient {
    int adds;
    ptrdiff_t m, M;
    const void *A;
    ptrdiff_t lda;
    void *C;
    ptrdiff_t ldc;
} weight_gradient;

/* Scratch of ctc: the values of A_{-1} .. A_L, or of B_0 .. B_{L+1}, in one frame, in whole lines of the cache; then all
 * of it, in doubles. */
static inline ptrdiff_t ctc_stride(ptrdiff_t L) { return (L + 2 + 7) / 8 * 8; }
static inline ptrdiff_t ctc_work(ptrdiff_t T, ptrdiff_t V, ptrdiff_t L, int trains) {
    return V + T + T * (L + 1) + (1 + 4 * (2 + (trains ? T : 0))) * ctc_stride(L);
}

/* Scratch of crf and viterbi in doubles. */
static inline ptrdiff_t crf_work(ptrdiff_t T, ptrdiff_t K, int trains) {
    return T * K + 4 * K * K + 6 * K + 2 * K * (trains ? T : 1);
}
static inline ptrdiff_t viterbi_work(ptrdiff_t T, ptrdiff_t K) { return (T + 2) * K; }

/* Bytes of a row of K values in int8, with what some instruction sets need of it. */
static inline ptrdiff_t quantized_row_bytes(ptrdiff_t K) { return (K + 3) / 4 * 4 + 4; }

typedef struct kernel_table {
    /* Products. Every element is one chain of multiply-adds in order of k that starts from `from`, in all functions and
     * for all sizes: a row has the same bits alone, among others, packed or not. Any size may be 0.
     * `from` (m, M) may be C itself, one row for all (ldfrom 0), or NULL for zeros.
     * packed = B (K, M) in panels, from B[k * row_stride + j * column_stride]; one of the strides is 1.
     * NULL, as multiply_packed, if all factors are read in place */
    void (*pack)(ptrdiff_t K, ptrdiff_t M, const void *B, ptrdiff_t row_stride, ptrdiff_t column_stride, void *packed);
    /* target (columns, rows) = the transpose of source (rows, columns); *_step are the distances between rows */
    void (*transpose)(ptrdiff_t rows, ptrdiff_t columns, const void *source, ptrdiff_t source_step, void *target,
                      ptrdiff_t target_step);
    /* C (m, M) = from + A (m, K) B (K, M), B as packed by `pack`: for factors used at many steps */
    void (*multiply_packed)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const void *A, ptrdiff_t lda, const void *packed,
                            const void *from, ptrdiff_t ldfrom, void *C, ptrdiff_t ldc);
    /* The same with B (K, M) of bfloat16, rows ldb apart, packed by pack_bfloat16: widened without loss, so that the bits
     * are those of multiply_packed with the widened B */
    void (*pack_bfloat16)(ptrdiff_t K, ptrdiff_t M, const uint16_t *B, ptrdiff_t ldb, void *packed);
    void (*multiply_bfloat16)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const void *A, ptrdiff_t lda, const void *packed,
                              const void *from, ptrdiff_t ldfrom, void *C, ptrdiff_t ldc);
    /* out (rows, M) = b + rows `ids` of the packed B (K, M), b (M,) or NULL for zeros */
    void (*gather_bfloat16)(ptrdiff_t rows, ptrdiff_t M, ptrdiff_t K, const void *b, const void *packed,
                            const int64_t *ids, void *out, ptrdiff_t ldout);
    /* B (K, M) of int8 in [-127, 127], rows ldb apart, with a scale for each column */
    void (*pack_int8)(ptrdiff_t K, ptrdiff_t M, const int8_t *B, ptrdiff_t ldb, const float *scales, void *packed);
    /* q (m, K) = A (m, K) / scales (m,), rounded to [-127, 127]; a row of q takes quantized_row_bytes. A scale is `fixed`,
     * or if that is 0 the largest |A| of the row over 127; NaN if the row is not finite */
    void (*quantize_rows)(ptrdiff_t m, ptrdiff_t K, const void *A, ptrdiff_t lda, double fixed, int8_t *q, void *scales);
    /* C (m, M) = from + (q B) times the scale of the row and of the column; the sums q B are exact for
     * K <= LARGEST_QUANTIZED */
    void (*multiply_int8)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const int8_t *q, const void *scales,
                          const void *packed, const void *from, ptrdiff_t ldfrom, void *C, ptrdiff_t ldc);
    void (*gather_int8)(ptrdiff_t rows, ptrdiff_t M, ptrdiff_t K, const void *b, const void *packed,
                        const int64_t *ids, void *out, ptrdiff_t ldout);
    /* C (m, M) = from + A (m, K) B (K, M), B in place, with strides as for `pack`: where packing does not pay */
    void (*multiply)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const void *A, ptrdiff_t lda, const void *B,
                     ptrdiff_t row_stride, ptrdiff_t column_stride, const void *from, ptrdiff_t ldfrom, void *C,
                     ptrdiff_t ldc);
    /* Sums over K > 0 tokens of B (K, M): C (m, M) = (C +) A' B for each of `count` products, and sums (M,) += B unless
     * NULL. `work` has as many values as weight_gradients_work says for the largest m */
    void (*weight_gradients)(ptrdiff_t K, ptrdiff_t M, const void *B, ptrdiff_t ldb, const weight_gradient *out,
                             int count, void *sums, void *work);
    ptrdiff_t (*weight_gradients_work)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M);

    /* out (rows, M) = b (M,) + table[ids[row]] (V, M) */
    void (*gather_rows)(ptrdiff_t rows, ptrdiff_t M, const void *b, const void *table, ptrdiff_t ldtable,
                        const int64_t *ids, void *out, ptrdiff_t ldout);
    /* table[ids[row]] (V, M) += a (rows, M), in order of rows; ids are ids_step apart */
    void (*scatter_add)(ptrdiff_t rows, ptrdiff_t M, const int64_t *ids, ptrdiff_t ids_step, const void *a,
                        ptrdiff_t lda, void *table, ptrdiff_t ldtable);
    /* out (M,) += sum over the rows of a (rows, M), in order of rows */
    void (*column_sums)(ptrdiff_t rows, ptrdiff_t M, const void *a, ptrdiff_t lda, void *out);
    /* out (M,) += sum over the rows of a (rows, M) b (rows, M), in order of rows */
    void (*product_sums)(ptrdiff_t rows, ptrdiff_t M, const void *a, ptrdiff_t lda, const void *b, ptrdiff_t ldb,
                         void *out);
    /* out (rows, M) += a (rows, M) */
    void (*add)(ptrdiff_t rows, ptrdiff_t M, const void *a, ptrdiff_t lda, void *out, ptrdiff_t ldout);

    const cell_kernels *cells;

    /* a (V,) = exp(a - shift), with shift >= all of a; returns their sum */
    double (*exp_row)(ptrdiff_t V, double shift, void *a);
    /* Softmax cross-entropy and its gradient in one pass. logits (rows, V): in; d(sum of weighted losses)/d logits: out.
     * losses (rows,) = -log softmax(logits)[target]; weights (rows,) scale the gradient only;
     * a row of weight 0 is not read: its loss and gradient are 0. */
    void (*softmax_cross_entropy)(ptrdiff_t rows, ptrdiff_t V, void *logits, const int64_t *targets,
                                  const double *weights, double *losses);

    /* Attention. scores (T, S) = v . tanh(q_t + k_s), with q (T, A), k (S, A), v (A,) */
    void (*additive_scores)(ptrdiff_t T, ptrdiff_t S, ptrdiff_t A, const void *q, ptrdiff_t ldq, const void *k,
                            ptrdiff_t ldk, const void *v, void *scores, ptrdiff_t lds);
    /* dq (T, A), dk (S, A), dv (A,) += the gradients, given dscores (T, S) */
    void (*additive_backward)(ptrdiff_t T, ptrdiff_t S, ptrdiff_t A, const void *q, ptrdiff_t ldq, const void *k,
                              ptrdiff_t ldk, const void *v, const void *dscores, ptrdiff_t lds, void *dq,
                              ptrdiff_t lddq, void *dk, ptrdiff_t lddk, void *dv);
    /* scores (rows, S) become their softmax, S > 0 */
    void (*softmax_rows)(ptrdiff_t rows, ptrdiff_t S, void *scores, ptrdiff_t lds);
    /* dweights (rows, S) become the gradient of the scores, given the softmax */
    void (*softmax_rows_backward)(ptrdiff_t rows, ptrdiff_t S, const void *weights, ptrdiff_t ldw, void *dweights,
                                  ptrdiff_t ldd);

    /* -log P(labels (L,) | logits (T, V)), nats, of connectionist temporal classification with this blank; dlogits =
     * weight times the gradient, unless NULL. Rows of both are `step` apart. inf if no path is possible, then the gradient
     * is NaN, and NaN if a logit is. `work` has as many doubles as ctc_work says */
    double (*ctc)(ptrdiff_t T, ptrdiff_t V, const void *logits, ptrdiff_t step, ptrdiff_t L, const int64_t *labels,
                  ptrdiff_t blank, double weight, void *dlogits, double *work);

    /* A conditional random field with emissions (T, K) and transitions A (K, K), from row to column. Rows of emissions and
     * demissions are `step` apart, tags tag_step. Returns log Z - score(tags), nats; demissions (unless NULL) = weight times
     * the gradient, dA (unless NULL; only with demissions) += that of A.
     * Without tags (NULL): log Z, and weight times the probability of every tag at every step.
     * inf if the tags are impossible, NaN if a value is NaN or +inf or nothing is possible; then the gradients are NaN.
     * `work` has as many doubles as crf_work says */
    double (*crf)(ptrdiff_t T, ptrdiff_t K, const void *emissions, ptrdiff_t step, const double *A, const int64_t *tags,
                  ptrdiff_t tag_step, double weight, void *demissions, double *dA, double *work);
    /* tags (T,) of the highest score; work: viterbi_work doubles */
    void (*viterbi)(ptrdiff_t T, ptrdiff_t K, const void *emissions, ptrdiff_t step, const double *A, int64_t *tags,
                    ptrdiff_t tag_step, double *work);

    /* One step of an optimiser: gradient g (count,); p and the state m, v (count,), as the rule has them, in place.
     * constants: rate, scale of g, decay and share of g in m, decay and share of g^2 in v, epsilon */
    void (*optimizer_step)(int rule, ptrdiff_t count, const double *constants, const void *g, void *p, void *m,
                           void *v);
    /* Sum of the squares of a (count,) */
    double (*square_sum)(ptrdiff_t count, const void *a);
    /* Sum of a (count,), at the speed of reading it */
    double (*sum)(ptrdiff_t count, const void *a);
} kernel_table;

typedef struct instruction_set {
    const char *name;
    int (*is_supported)(void);
    const kernel_table *f32, *f64;
} instruction_set;

/* Those compiled in, narrowest first; this machine may not run them all. */
extern const instruction_set instruction_sets[];
extern const int instruction_set_count;

/* Compiler and flags, for bug reports. */
extern const char *build_description;

/* Treat subnormal numbers as zero in this thread: arithmetic on them is up to a hundred times slower. */
unsigned long long begin_flush_subnormals(void);
void end_flush_subnormals(unsigned long long saved);

#endif
