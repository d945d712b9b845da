/* The contract between the time loops (Cython) and the step kernels (C).
 *
 * One table per element type and instruction set; a `void *` points to that element type ("real"). Matrices are
 * row-major; ld* are the distances between rows, negative to go from the last to the first. n is the number of rows
 * (sequences) of one time step, H the hidden size, G the number of gate blocks; a gates array is (n, G H), blocks side
 * by side. Of LSTM i f g o, GRU r z n, simplified GRU z n, gate k is block places[k]; the candidate n is the last one.
 * No two pointers overlap unless it says so. Nothing is checked here and nothing is allocated.
 */
#ifndef RNNCORE_KERNELS_H
#define RNNCORE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { CELL_RNN, CELL_GRU, CELL_LSTM };
enum { ACTIVATION_TANH, ACTIVATION_RELU, ACTIVATION_IDENTITY };
enum { FORM_RESET_BEFORE, FORM_RESET_AFTER, FORM_SIMPLIFIED };
enum { UPDATE_NEW, UPDATE_OLD };
enum { RULE_SGD, RULE_MOMENTUM, RULE_SQUARES, RULE_ADAM };
enum { OPTIMIZER_CONSTANTS = 7 };
enum { PEEPHOLE_NONE, PEEPHOLE_CURRENT, PEEPHOLE_PREVIOUS };

/* A multiple of every panel width: packed factors of M columns fit in M rounded up to it. */
enum { LARGEST_PANEL = 64 };

/* C (m, M) of a product with the first M columns of B; A (K, m). What stands in C is added to, or is not read. */
typedef struct weight_gradient {
    int adds;
    ptrdiff_t m, M;
    const void *A;
    ptrdiff_t lda;
    void *C;
    ptrdiff_t ldc;
} weight_gradient;

typedef struct kernel_table {
    /* Products. Every element is one chain of multiply-adds in order of k that starts from `from`, in all functions and
     * whatever the sizes: a row's result has the same bits alone, among others, packed or not. Any size may be 0.
     * `from` (m, M) may be C itself, one row for all (ldfrom 0), or NULL for zeros.
     * packed = B (K, M) in panels, from B[k * row_stride + j * column_stride], where one stride is 1 */
    void (*pack)(ptrdiff_t K, ptrdiff_t M, const void *B, ptrdiff_t row_stride, ptrdiff_t column_stride, void *packed);
    /* target (columns, rows) = the transpose of source (rows, columns), their rows that far apart */
    void (*transpose)(ptrdiff_t rows, ptrdiff_t columns, const void *source, ptrdiff_t source_step, void *target,
                      ptrdiff_t target_step);
    /* C (m, M) = from + A (m, K) B (K, M), B as packed by `pack`: for factors used at many steps */
    void (*multiply_packed)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const void *A, ptrdiff_t lda, const void *packed,
                            const void *from, ptrdiff_t ldfrom, void *C, ptrdiff_t ldc);
    /* C (m, M) = from + A (m, K) B (K, M), B as it lies, with strides as for `pack`: where packing does not pay */
    void (*multiply)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M, const void *A, ptrdiff_t lda, const void *B,
                     ptrdiff_t row_stride, ptrdiff_t column_stride, const void *from, ptrdiff_t ldfrom, void *C,
                     ptrdiff_t ldc);
    /* Sums over K > 0 tokens of B (K, M): C (m, M) = (C +) A' B for each of `count` A, and sums (M,) += B, or NULL; work
     * as large as _work says for the largest m */
    void (*weight_gradients)(ptrdiff_t K, ptrdiff_t M, const void *B, ptrdiff_t ldb, const weight_gradient *out,
                             int count, void *sums, void *work);
    ptrdiff_t (*weight_gradients_work)(ptrdiff_t m, ptrdiff_t K, ptrdiff_t M);

    /* out (rows, M) = b (M,) + table[ids[row]] (V, M) */
    void (*gather_rows)(ptrdiff_t rows, ptrdiff_t M, const void *b, const void *table, ptrdiff_t ldtable,
                        const int64_t *ids, void *out, ptrdiff_t ldout);
    /* table[ids[row]] (V, M) += a (rows, M), in order of rows; ids lie ids_step apart */
    void (*scatter_add)(ptrdiff_t rows, ptrdiff_t M, const int64_t *ids, ptrdiff_t ids_step, const void *a,
                        ptrdiff_t lda, void *table, ptrdiff_t ldtable);
    /* out (M,) += sum over the rows of a (rows, M), in order of rows */
    void (*column_sums)(ptrdiff_t rows, ptrdiff_t M, const void *a, ptrdiff_t lda, void *out);
    /* out (M,) += sum over the rows of a (rows, M) b (rows, M), in order of rows */
    void (*product_sums)(ptrdiff_t rows, ptrdiff_t M, const void *a, ptrdiff_t lda, const void *b, ptrdiff_t ldb,
                         void *out);
    /* out (rows, M) += a (rows, M) */
    void (*add)(ptrdiff_t rows, ptrdiff_t M, const void *a, ptrdiff_t lda, void *out, ptrdiff_t ldout);

    /* The steps do `units` hidden units, from the one on that all their pointers stand at; the sizes in brackets are
     * those of the whole arrays.
     * h (n, H): pre-activations in, states out */
    void (*rnn_forward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int activation, void *h);
    /* da (n, H) = dh * act'(.), from the state h (n, H) */
    void (*rnn_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int activation, const void *h, const void *dh,
                         void *da);

    /* gates (n, 4H): pre-activations in, activated out; c_prev, c, h (n, H); peephole (3, H) rows i f o, or NULL */
    void (*lstm_forward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int peephole_output, int output_activation,
                         const int *places, void *gates, const void *c_prev, const void *peephole, void *c, void *h);
    /* dh (n, H) in; dc (n, H): dL/dc in, dL/dc_prev out; dgates (n, 4H) out */
    void (*lstm_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int peephole_output, int output_activation,
                          const int *places, const void *gates, const void *c_prev, const void *c,
                          const void *peephole, const void *dh, void *dc, void *dgates);

    /* Activates all gate blocks but the last; rh (n, H) = r * h_prev, or NULL */
    void (*gru_gates)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int G, const int *places, void *gates,
                      const void *h_prev, void *rh);
    /* candidate: last block = tanh(last block + r * m), m (n, H) or NULL for the block alone; h = mix(z, n, h_prev) */
    void (*gru_update)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int G, int update, const int *places, void *gates,
                       const void *m, const void *h_prev, void *h);
    /* dh (n, H): dL/dh in, its direct part of dL/dh_prev out; dgates: blocks z and n; with m also r and dm (n, H) */
    void (*gru_update_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int G, int update, const int *places,
                                const void *gates, const void *m, const void *h_prev, void *dh, void *dgates,
                                void *dm);
    /* drh (n, H) = dL/d(r h_prev) in; block r of dgates (n, 3H) out; dh += drh * r; rh (n, H) = r * h_prev out */
    void (*gru_reset_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, const int *places, const void *gates,
                               const void *h_prev, const void *drh, void *dh, void *dgates, void *rh);

    /* Softmax cross-entropy and its gradient in one pass. logits (rows, V): in; d(sum of weighted losses)/d logits: out.
     * losses (rows,) = -log softmax(logits)[target]; weights (rows,) scale the gradient only;
     * a row of weight 0 is not looked at: its loss and gradient are 0. */
    void (*softmax_cross_entropy)(ptrdiff_t rows, ptrdiff_t V, void *logits, const int64_t *targets,
                                  const double *weights, double *losses);

    /* One step of an optimiser: g (count,) in, p and the state m, v (count,) in place, those that the rule has.
     * constants: rate, scale of g, decay and share of g in m, decay and share of g^2 in v, epsilon */
    void (*optimizer_step)(int rule, ptrdiff_t count, const double *constants, const void *g, void *p, void *m,
                           void *v);
    /* Sum of the squares of a (count,) */
    double (*square_sum)(ptrdiff_t count, const void *a);
    /* Sum of a (count,): how fast it can be read */
    double (*sum)(ptrdiff_t count, const void *a);
} kernel_table;

typedef struct instruction_set {
    const char *name;
    int (*is_supported)(void);
    const kernel_table *f32, *f64;
} instruction_set;

/* From the plainest to the widest one compiled in; not all of them need to run on this machine. */
extern const instruction_set instruction_sets[];
extern const int instruction_set_count;

/* Subnormal numbers count as zero from begin to end, in this thread: they cost up to a hundred times an ordinary one. */
unsigned long long begin_flush_subnormals(void);
void end_flush_subnormals(unsigned long long saved);

#endif
