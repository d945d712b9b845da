/* RNN, one step: h = act(a), a = x Wx + h_prev Wh + b. Shapes and aliasing: cells.h. */

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
