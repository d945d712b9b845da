/* The contract between the time loops (Cython) and the step kernels (C).
 *
 * One table per element type and instruction set; a `void *` points to that element type ("real"). Matrices are
 * row-major and dense. n is the number of rows (sequences) of one time step, H the hidden size, G the number of gate
 * blocks; a gates array is (n, G H), blocks side by side: LSTM i f g o, GRU r z n, simplified GRU z n.
 * No two pointers overlap unless it says so. Nothing is checked here and nothing is allocated.
 */
#ifndef RNNCORE_KERNELS_H
#define RNNCORE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* More rows or a longer inner dimension than this are cut into several BLAS calls, whose integers have 32 bits.
 * Columns and distances between rows are checked before, in Python. */
#ifndef RNNCORE_BLAS_LARGEST
#define RNNCORE_BLAS_LARGEST (1 << 30)
#endif

enum { CELL_RNN, CELL_GRU, CELL_LSTM };
enum { ACTIVATION_TANH, ACTIVATION_RELU, ACTIVATION_IDENTITY };
enum { FORM_RESET_BEFORE, FORM_RESET_AFTER, FORM_SIMPLIFIED };
enum { UPDATE_NEW, UPDATE_OLD };
enum { PEEPHOLE_NONE, PEEPHOLE_CURRENT, PEEPHOLE_PREVIOUS };

typedef struct kernel_table {
    /* out (rows, M) = b (M,) + table[ids[row]] (V, M); table and ids may be NULL: out = b */
    void (*fill_rows)(ptrdiff_t rows, ptrdiff_t M, const void *b, const void *table, const int64_t *ids, void *out);
    /* table[ids[row]] (V, M) += a (rows, M), in order of rows */
    void (*scatter_add)(ptrdiff_t rows, ptrdiff_t M, const int64_t *ids, const void *a, void *table);
    /* out (M,) += sum over the rows of a (rows, M), in order of rows */
    void (*column_sums)(ptrdiff_t rows, ptrdiff_t M, const void *a, void *out);
    /* out (count,) += a (count,) */
    void (*add)(ptrdiff_t count, const void *a, void *out);

    /* h (count,): pre-activations in, states out */
    void (*rnn_forward)(ptrdiff_t count, int activation, void *h);
    /* da (count,) = dh * act'(.), from the state h (count,) */
    void (*rnn_backward)(ptrdiff_t count, int activation, const void *h, const void *dh, void *da);

    /* gates (n, 4H): pre-activations in, activated out; c_prev, c, h (n, H); peephole (3, H) rows i f o, or NULL */
    void (*lstm_forward)(ptrdiff_t n, ptrdiff_t H, int peephole_output, int output_activation, void *gates,
                         const void *c_prev, const void *peephole, void *c, void *h);
    /* dh (n, H) in; dc (n, H): dL/dc in, dL/dc_prev out; dgates (n, 4H) out; dpeephole (3, H) is added to */
    void (*lstm_backward)(ptrdiff_t n, ptrdiff_t H, int peephole_output, int output_activation, const void *gates,
                          const void *c_prev, const void *c, const void *peephole, const void *dh, void *dc,
                          void *dgates, void *dpeephole);

    /* Activates all gate blocks but the last; rh (n, H) = r * h_prev, or NULL */
    void (*gru_gates)(ptrdiff_t n, ptrdiff_t H, int G, void *gates, const void *h_prev, void *rh);
    /* candidate: last block = tanh(last block + r * m), m (n, H) or NULL for the block alone; h = mix(z, n, h_prev) */
    void (*gru_update)(ptrdiff_t n, ptrdiff_t H, int G, int update, void *gates, const void *m, const void *h_prev,
                       void *h);
    /* dh (n, H): dL/dh in, its direct part of dL/dh_prev out; dgates: blocks z and n; with m also r and dm (n, H) */
    void (*gru_update_backward)(ptrdiff_t n, ptrdiff_t H, int G, int update, const void *gates, const void *m,
                                const void *h_prev, void *dh, void *dgates, void *dm);
    /* drh (n, H) = dL/d(r h_prev) in; block r of dgates (n, 3H) out; dh += drh * r; rh (n, H) = r * h_prev out */
    void (*gru_reset_backward)(ptrdiff_t n, ptrdiff_t H, const void *gates, const void *h_prev, const void *drh,
                               void *dh, void *dgates, void *rh);

    /* Softmax cross-entropy and its gradient in one pass. logits (rows, V): in; d(sum of weighted losses)/d logits: out.
     * losses (rows,) = -log softmax(logits)[target]; weights (rows,) scale the gradient only;
     * a row of weight 0 is not looked at: its loss and gradient are 0. */
    void (*softmax_cross_entropy)(ptrdiff_t rows, ptrdiff_t V, void *logits, const int64_t *targets,
                                  const double *weights, double *losses);
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
