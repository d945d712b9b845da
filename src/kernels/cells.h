/* The cells: their names, options and step kernels. The words for them stand in ../cells.pxd.
 *
 * n is the number of rows (sequences) of one time step, H the hidden size, G the number of gate blocks. A gates array
 * is (n, G H), blocks side by side; gate k, in the order of the equations (i f g o, r z n, z n), is block places[k].
 * A step computes `units` hidden units, and the pointers already point at the first of them; shapes in brackets are
 * those of the whole arrays. No two pointers overlap. */
#ifndef RNNCORE_CELLS_H
#define RNNCORE_CELLS_H

#include <stddef.h>

enum { CELL_RNN, CELL_GRU, CELL_LSTM, CELL_MINGRU };
enum { ACTIVATION_TANH, ACTIVATION_RELU, ACTIVATION_IDENTITY };
enum { FORM_RESET_BEFORE, FORM_RESET_AFTER, FORM_SIMPLIFIED };
enum { UPDATE_NEW, UPDATE_OLD };
enum { PEEPHOLE_NONE, PEEPHOLE_CURRENT, PEEPHOLE_PREVIOUS }; /* the cell state that the output gate sees */
enum { CANDIDATE_IDENTITY, CANDIDATE_POSITIVE };
enum { LARGEST_GATE_COUNT = 4 };

/* A cell with its options. An option that a cell does not have is 0. */
typedef struct cell_variant {
    int type;              /* CELL_* */
    int num_gates;         /* G */
    int activation;        /* of the state of an RNN */
    int form, update;      /* of a GRU */
    int peephole_output;   /* of an LSTM */
    int output_activation; /* of an LSTM */
    int candidate;         /* of a minGRU */
    int places[LARGEST_GATE_COUNT];
} cell_variant;

typedef struct cell_kernels {
    /* h (n, H): pre-activations in, states out */
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

    /* Activates all gate blocks but the candidate n, the last one; rh (n, H) = r * h_prev, unless NULL */
    void (*gru_gates)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int G, const int *places, void *gates,
                      const void *h_prev, void *rh);
    /* n = tanh(a_n + r * m), m (n, H), or tanh(a_n) if m is NULL; h (n, H) is its mix with h_prev */
    void (*gru_update)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int G, int update, const int *places, void *gates,
                       const void *m, const void *h_prev, void *h);
    /* dh (n, H): dL/dh in, its direct part of dL/dh_prev out; dgates: blocks z and n; with m also r and dm (n, H) */
    void (*gru_update_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int G, int update, const int *places,
                                const void *gates, const void *m, const void *h_prev, void *dh, void *dgates,
                                void *dm);
    /* drh (n, H) = dL/d(r h_prev) in; block r of dgates (n, 3H) out; dh += drh * r; rh (n, H) = r * h_prev out */
    void (*gru_reset_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, const int *places, const void *gates,
                               const void *h_prev, const void *drh, void *dh, void *dgates, void *rh);

    /* gates (n, 2H): pre-activations z n in, activated out; h (n, H) = (1 - z) h_prev + z n */
    void (*mingru_forward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int candidate, const int *places, void *gates,
                           const void *h_prev, void *h);
    /* dh (n, H): dL/dh in, dL/dh_prev out; dgates (n, 2H) out */
    void (*mingru_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int candidate, const int *places,
                            const void *gates, const void *h_prev, void *dh, void *dgates);
} cell_kernels;

#endif
