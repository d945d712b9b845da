/* One time step of each cell, forward above backward. Shapes and aliasing: kernels.h.
 *
 * The pointers stand at the first of the `units` hidden units to do; H stays the distance between gate blocks, and gate
 * k of the order in which the equations name them is block places[k]. Every loop over the units is a function of its
 * own whose pointers are `restrict` parameters: compilers drop restrict on local pointers, and the loop with it its
 * vectors. Options are constant arguments of an always-inlined body, so that no option puts a branch into a loop. */

/* ---- RNN: h = act(a) ------------------------------------------------------------------------------------------ */

static void NAME(rnn_forward_row)(ptrdiff_t units, int activation, real *h) {
    if (activation == ACTIVATION_TANH)
        for (ptrdiff_t j = 0; j < units; j++) h[j] = NAME(tanh)(h[j]);
    else if (activation == ACTIVATION_RELU)
        for (ptrdiff_t j = 0; j < units; j++) h[j] = h[j] < 0 ? 0 : h[j];
}

static void NAME(rnn_forward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int activation, void *h) {
    for (ptrdiff_t row = 0; row < n; row++) NAME(rnn_forward_row)(units, activation, (real *)h + row * H);
}

ALWAYS_INLINE void NAME(rnn_backward_body)(ptrdiff_t units, int activation, const real *restrict h,
                                           const real *restrict dh, real *restrict da) {
    for (ptrdiff_t j = 0; j < units; j++) {
        if (activation == ACTIVATION_TANH)
            da[j] = dh[j] * (1 - h[j] * h[j]);
        else if (activation == ACTIVATION_RELU)
            da[j] = h[j] > 0 ? dh[j] : 0;
        else
            da[j] = dh[j];
    }
}

static void NAME(rnn_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int activation, const void *h_,
                               const void *dh_, void *da_) {
    const real *h = h_, *dh = dh_;
    real *da = da_;
    for (; n > 0; n--, h += H, dh += H, da += H)
        switch (activation) {
        case ACTIVATION_TANH: NAME(rnn_backward_body)(units, ACTIVATION_TANH, h, dh, da); break;
        case ACTIVATION_RELU: NAME(rnn_backward_body)(units, ACTIVATION_RELU, h, dh, da); break;
        default: NAME(rnn_backward_body)(units, ACTIVATION_IDENTITY, h, dh, da);
        }
}

/* ---- LSTM ----------------------------------------------------------------------------------------------------- */

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

/* ---- GRU: h = w_n n + w_h h_prev with (w_n, w_h) = (z, 1 - z) or (1 - z, z) ------------------------------------- */

static void NAME(sigmoid_row)(ptrdiff_t count, real *restrict a) {
    for (ptrdiff_t j = 0; j < count; j++) a[j] = NAME(sigmoid)(a[j]);
}

static void NAME(product_row)(ptrdiff_t count, const real *restrict a, const real *restrict b, real *restrict out) {
    for (ptrdiff_t j = 0; j < count; j++) out[j] = a[j] * b[j];
}

static void NAME(gru_gates)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int G, const int *places, void *gates_,
                            const void *h_prev_, void *rh_) {
    real *gates = gates_, *rh = rh_;
    const real *h_prev = h_prev_;
    for (ptrdiff_t row = 0; row < n; row++) {
        for (int block = 0; block < G - 1; block++) NAME(sigmoid_row)(units, gates + (row * G + block) * H);
        if (rh) NAME(product_row)(units, gates + (row * G + places[0]) * H, h_prev + row * H, rh + row * H);
    }
}

ALWAYS_INLINE void NAME(gru_update_body)(ptrdiff_t units, int reset_after, int update, const real *restrict r,
                                         const real *restrict z, real *restrict n, const real *restrict m,
                                         const real *restrict h_prev, real *restrict h) {
    for (ptrdiff_t j = 0; j < units; j++) {
        real candidate = NAME(tanh)(reset_after ? n[j] + r[j] * m[j] : n[j]); /* (1) */
        real change = update == UPDATE_NEW ? z[j] * (candidate - h_prev[j]) : z[j] * (h_prev[j] - candidate);
        n[j] = candidate;
        h[j] = (update == UPDATE_NEW ? h_prev[j] : candidate) + change; /* (2) */
    }
}

ALWAYS_INLINE void NAME(gru_update_backward_body)(ptrdiff_t units, int reset_after, int update, const real *restrict r,
                                                  const real *restrict z, const real *restrict n,
                                                  const real *restrict m, const real *restrict h_prev,
                                                  real *restrict dh, real *restrict da_r, real *restrict da_z,
                                                  real *restrict da_n, real *restrict dm) {
    for (ptrdiff_t j = 0; j < units; j++) {
        real difference = n[j] - h_prev[j];
        real weight_n = update == UPDATE_NEW ? z[j] : 1 - z[j]; /* (2) */
        real dn = dh[j] * weight_n;
        real dz = dh[j] * (update == UPDATE_NEW ? difference : -difference);
        real dn_pre = dn * (1 - n[j] * n[j]); /* (1) */
        da_z[j] = dz * z[j] * (1 - z[j]);
        da_n[j] = dn_pre;
        dh[j] -= dn;
        if (reset_after) {
            da_r[j] = dn_pre * m[j] * r[j] * (1 - r[j]);
            dm[j] = dn_pre * r[j];
        }
    }
}

#define GRU_VARIANT(SUFFIX, RESET_AFTER, UPDATE)                                                                      \
    static void NAME(gru_update_##SUFFIX)(ptrdiff_t units, const real *r, const real *z, real *n, const real *m,      \
                                          const real *h_prev, real *h) {                                              \
        NAME(gru_update_body)(units, RESET_AFTER, UPDATE, r, z, n, m, h_prev, h);                                     \
    }                                                                                                                 \
    static void NAME(gru_update_backward_##SUFFIX)(ptrdiff_t units, const real *r, const real *z, const real *n,      \
                                                   const real *m, const real *h_prev, real *dh, real *da_r,           \
                                                   real *da_z, real *da_n, real *dm) {                                \
        NAME(gru_update_backward_body)(units, RESET_AFTER, UPDATE, r, z, n, m, h_prev, dh, da_r, da_z, da_n, dm);     \
    }
GRU_VARIANT(new, 0, UPDATE_NEW)
GRU_VARIANT(old, 0, UPDATE_OLD)
GRU_VARIANT(after_new, 1, UPDATE_NEW)
GRU_VARIANT(after_old, 1, UPDATE_OLD)
#undef GRU_VARIANT

#define GRU_DISPATCH(FUNCTION, ...)                                                                                   \
    if (m && update == UPDATE_NEW) NAME(FUNCTION##_after_new)(__VA_ARGS__);                                           \
    else if (m) NAME(FUNCTION##_after_old)(__VA_ARGS__);                                                              \
    else if (update == UPDATE_NEW) NAME(FUNCTION##_new)(__VA_ARGS__);                                                 \
    else NAME(FUNCTION##_old)(__VA_ARGS__);

/* The gates are r z n, those of the simplified form z n: z is the last but one, r counts only where there is m. */
static void NAME(gru_update)(ptrdiff_t rows, ptrdiff_t units, ptrdiff_t H, int G, int update, const int *places,
                             void *gates_, const void *m_, const void *h_prev_, void *h_) {
    real *gates = gates_, *h = h_;
    const real *m = m_, *h_prev = h_prev_;
    for (ptrdiff_t row = 0; row < rows; row++, gates += G * H, h_prev += H, h += H) {
        real *n = gates + places[G - 1] * H;
        const real *r = gates + places[0] * H, *z = gates + places[G - 2] * H, *m_row = m ? m + row * H : NULL;
        GRU_DISPATCH(gru_update, units, r, z, n, m_row, h_prev, h)
    }
}

static void NAME(gru_update_backward)(ptrdiff_t rows, ptrdiff_t units, ptrdiff_t H, int G, int update,
                                      const int *places, const void *gates_, const void *m_, const void *h_prev_,
                                      void *dh_, void *dgates_, void *dm_) {
    ptrdiff_t at_r = places[0] * H, at_z = places[G - 2] * H, at_n = places[G - 1] * H;
    const real *gates = gates_, *m = m_, *h_prev = h_prev_;
    real *dh = dh_, *dgates = dgates_, *dm = dm_;
    for (ptrdiff_t row = 0; row < rows; row++, gates += G * H, dgates += G * H, h_prev += H, dh += H) {
        const real *m_row = m ? m + row * H : NULL;
        real *dm_row = m ? dm + row * H : NULL;
        GRU_DISPATCH(gru_update_backward, units, gates + at_r, gates + at_z, gates + at_n, m_row, h_prev, dh,
                     dgates + at_r, dgates + at_z, dgates + at_n, dm_row)
    }
}
#undef GRU_DISPATCH

static void NAME(gru_reset_backward_row)(ptrdiff_t units, const real *restrict r, const real *restrict h_prev,
                                         const real *restrict drh, real *restrict dh, real *restrict da_r,
                                         real *restrict rh) {
    for (ptrdiff_t j = 0; j < units; j++) {
        da_r[j] = drh[j] * h_prev[j] * r[j] * (1 - r[j]);
        dh[j] += drh[j] * r[j];
        rh[j] = r[j] * h_prev[j];
    }
}

static void NAME(gru_reset_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, const int *places, const void *gates_,
                                     const void *h_prev_, const void *drh_, void *dh_, void *dgates_, void *rh_) {
    const real *gates = gates_, *h_prev = h_prev_, *drh = drh_;
    real *dh = dh_, *dgates = dgates_, *rh = rh_;
    for (ptrdiff_t row = 0; row < n; row++) {
        ptrdiff_t at_r = (row * 3 + places[0]) * H;
        NAME(gru_reset_backward_row)(units, gates + at_r, h_prev + row * H, drh + row * H, dh + row * H, dgates + at_r,
                                     rh + row * H);
    }
}
