/* LSTM, one step, from the pre-activations a of the gates i f g o. Shapes and aliasing: cells.h.
 *
 *   i = sigmoid(a_i + p_i c_prev)    f = sigmoid(a_f + p_f c_prev)    g = tanh(a_g)
 *   c = f c_prev + i g                                                                 (1)
 *   o = sigmoid(a_o + p_o c), or with c_prev in place of c
 *   h = o tanh(c), or o c                                                              (2)
 *
 * p = 0 without peephole. The backward step marks the equation that each line differentiates. */

ALWAYS_INLINE void NAME(lstm_forward_row)(ptrdiff_t units, ptrdiff_t H, int peephole_output, int output_activation,
                                          real *restrict gate_i, real *restrict gate_f, real *restrict gate_g,
                                          real *restrict gate_o, const real *restrict c_prev,
                                          const real *restrict peephole, real *restrict c_out,
                                          real *restrict h_out) {
    for (ptrdiff_t j = 0; j < units; j++) {
        real a_i = gate_i[j], a_f = gate_f[j], a_o = gate_o[j];
        if (peephole_output != PEEPHOLE_NONE) {
            a_i += peephole[j] * c_prev[j];
            a_f += peephole[H + j] * c_prev[j];
        }
        real i = NAME(sigmoid)(a_i), f = NAME(sigmoid)(a_f), g = NAME(tanh)(gate_g[j]);
        real c = f * c_prev[j] + i * g; /* (1) */
        if (peephole_output == PEEPHOLE_CURRENT) a_o += peephole[2 * H + j] * c;
        if (peephole_output == PEEPHOLE_PREVIOUS) a_o += peephole[2 * H + j] * c_prev[j];
        real o = NAME(sigmoid)(a_o);
        real h = o * (output_activation == ACTIVATION_TANH ? NAME(tanh)(c) : c); /* (2) */
        gate_i[j] = i;
        gate_f[j] = f;
        gate_g[j] = g;
        gate_o[j] = o;
        c_out[j] = c;
        h_out[j] = h;
    }
}

ALWAYS_INLINE void NAME(lstm_backward_row)(ptrdiff_t units, ptrdiff_t H, int peephole_output, int output_activation,
                                           const real *restrict gate_i, const real *restrict gate_f,
                                           const real *restrict gate_g, const real *restrict gate_o,
                                           const real *restrict c_prev, const real *restrict c,
                                           const real *restrict peephole, const real *restrict dh,
                                           real *restrict dc_inout, real *restrict da_i, real *restrict da_f,
                                           real *restrict da_g, real *restrict da_o) {
    for (ptrdiff_t j = 0; j < units; j++) {
        real i = gate_i[j], f = gate_f[j], g = gate_g[j], o = gate_o[j];
        real activated = output_activation == ACTIVATION_TANH ? NAME(tanh)(c[j]) : c[j];
        real slope = output_activation == ACTIVATION_TANH ? 1 - activated * activated : 1;
        real do_ = dh[j] * activated * o * (1 - o); /* (2) */
        real dc = dc_inout[j] + dh[j] * o * slope;
        if (peephole_output == PEEPHOLE_CURRENT) dc += do_ * peephole[2 * H + j];
        real di = dc * g * i * (1 - i); /* (1) */
        real df = dc * c_prev[j] * f * (1 - f);
        real dg = dc * i * (1 - g * g);
        real dc_prev = dc * f;
        if (peephole_output != PEEPHOLE_NONE) {
            dc_prev += di * peephole[j] + df * peephole[H + j];
            if (peephole_output == PEEPHOLE_PREVIOUS) dc_prev += do_ * peephole[2 * H + j];
        }
        dc_inout[j] = dc_prev;
        da_i[j] = di;
        da_f[j] = df;
        da_g[j] = dg;
        da_o[j] = do_;
    }
}

/* The four gates of a row. */
#define GATES(gates) gates + places[0] * H, gates + places[1] * H, gates + places[2] * H, gates + places[3] * H

/* The six variants of the LSTM, each with its options as constants. */
#define LSTM_VARIANT(SUFFIX, PEEPHOLE, ACTIVATION)                                                                    \
    static void NAME(lstm_forward_##SUFFIX)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, const int *places,             \
                                            real *gates, const real *c_prev, const real *peephole, real *c,           \
                                            real *h) {                                                                \
        for (; n > 0; n--, gates += 4 * H, c_prev += H, c += H, h += H)                                               \
            NAME(lstm_forward_row)(units, H, PEEPHOLE, ACTIVATION, GATES(gates), c_prev, peephole, c, h);             \
    }                                                                                                                 \
    static void NAME(lstm_backward_##SUFFIX)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, const int *places,            \
                                             const real *gates, const real *c_prev, const real *c,                    \
                                             const real *peephole, const real *dh, real *dc, real *dgates) {          \
        for (; n > 0; n--, gates += 4 * H, c_prev += H, c += H, dh += H, dc += H, dgates += 4 * H)                    \
            NAME(lstm_backward_row)(units, H, PEEPHOLE, ACTIVATION, GATES(gates), c_prev, c, peephole, dh, dc,        \
                                    GATES(dgates));                                                                   \
    }
LSTM_VARIANT(plain, PEEPHOLE_NONE, ACTIVATION_TANH)
LSTM_VARIANT(current, PEEPHOLE_CURRENT, ACTIVATION_TANH)
LSTM_VARIANT(previous, PEEPHOLE_PREVIOUS, ACTIVATION_TANH)
LSTM_VARIANT(plain_identity, PEEPHOLE_NONE, ACTIVATION_IDENTITY)
LSTM_VARIANT(current_identity, PEEPHOLE_CURRENT, ACTIVATION_IDENTITY)
LSTM_VARIANT(previous_identity, PEEPHOLE_PREVIOUS, ACTIVATION_IDENTITY)
#undef LSTM_VARIANT
#undef GATES

#define LSTM_DISPATCH(DIRECTION, ...)                                                                                 \
    switch (2 * peephole_output + (output_activation != ACTIVATION_TANH)) {                                           \
    case 2 * PEEPHOLE_NONE: NAME(lstm_##DIRECTION##_plain)(__VA_ARGS__); break;                                       \
    case 2 * PEEPHOLE_CURRENT: NAME(lstm_##DIRECTION##_current)(__VA_ARGS__); break;                                  \
    case 2 * PEEPHOLE_PREVIOUS: NAME(lstm_##DIRECTION##_previous)(__VA_ARGS__); break;                                \
    case 2 * PEEPHOLE_NONE + 1: NAME(lstm_##DIRECTION##_plain_identity)(__VA_ARGS__); break;                          \
    case 2 * PEEPHOLE_CURRENT + 1: NAME(lstm_##DIRECTION##_current_identity)(__VA_ARGS__); break;                     \
    case 2 * PEEPHOLE_PREVIOUS + 1: NAME(lstm_##DIRECTION##_previous_identity)(__VA_ARGS__); break;                   \
    }

static void NAME(lstm_forward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int peephole_output, int output_activation,
                               const int *places, void *gates, const void *c_prev, const void *peephole, void *c,
                               void *h) {
    LSTM_DISPATCH(forward, n, units, H, places, gates, c_prev, peephole, c, h)
}

static void NAME(lstm_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int peephole_output, int output_activation,
                                const int *places, const void *gates, const void *c_prev, const void *c,
                                const void *peephole, const void *dh, void *dc, void *dgates) {
    LSTM_DISPATCH(backward, n, units, H, places, gates, c_prev, c, peephole, dh, dc, dgates)
}
#undef LSTM_DISPATCH
