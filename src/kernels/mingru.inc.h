/* minGRU, one step, from the pre-activations a of the gates z n. Shapes and aliasing: cells.h.
 *
 *   z = sigmoid(a_z)    n = g(a_n)    h = (1 - z) h_prev + z n
 *
 * g is the identity, or g(a) = a + 0.5 for a >= 0 and sigmoid(a) below; then dg/da is 1 where n >= 0.5, else n (1 - n). */

ALWAYS_INLINE void NAME(mingru_forward_row)(ptrdiff_t units, int candidate, real *restrict gate_z,
                                            real *restrict gate_n, const real *restrict h_prev, real *restrict h) {
    for (ptrdiff_t j = 0; j < units; j++) {
        real z = NAME(sigmoid)(gate_z[j]), n = gate_n[j];
        if (candidate == CANDIDATE_POSITIVE) {
            real below = NAME(sigmoid)(n);
            n = n >= 0 ? n + (real)0.5 : below;
        }
        gate_z[j] = z;
        gate_n[j] = n;
        h[j] = (1 - z) * h_prev[j] + z * n;
    }
}

ALWAYS_INLINE void NAME(mingru_backward_row)(ptrdiff_t units, int candidate, const real *restrict gate_z,
                                             const real *restrict gate_n, const real *restrict h_prev,
                                             real *restrict dh_inout, real *restrict da_z, real *restrict da_n) {
    for (ptrdiff_t j = 0; j < units; j++) {
        real z = gate_z[j], n = gate_n[j], dh = dh_inout[j];
        real slope = candidate == CANDIDATE_POSITIVE && n < (real)0.5 ? n * (1 - n) : 1;
        da_z[j] = dh * (n - h_prev[j]) * z * (1 - z);
        da_n[j] = dh * z * slope;
        dh_inout[j] = dh * (1 - z);
    }
}

static void NAME(mingru_identity_row)(ptrdiff_t units, real *restrict gate_z, real *restrict gate_n,
                                      const real *restrict h_prev, real *restrict h) {
    NAME(mingru_forward_row)(units, CANDIDATE_IDENTITY, gate_z, gate_n, h_prev, h);
}

static void NAME(mingru_positive_row)(ptrdiff_t units, real *restrict gate_z, real *restrict gate_n,
                                      const real *restrict h_prev, real *restrict h) {
    NAME(mingru_forward_row)(units, CANDIDATE_POSITIVE, gate_z, gate_n, h_prev, h);
}

static void NAME(mingru_forward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int candidate, const int *places,
                                 void *gates_, const void *h_prev_, void *h_) {
    real *gates = gates_, *h = h_;
    const real *h_prev = h_prev_;
    for (; n > 0; n--, gates += 2 * H, h_prev += H, h += H)
        if (candidate == CANDIDATE_POSITIVE)
            NAME(mingru_positive_row)(units, gates + places[0] * H, gates + places[1] * H, h_prev, h);
        else
            NAME(mingru_identity_row)(units, gates + places[0] * H, gates + places[1] * H, h_prev, h);
}

static void NAME(mingru_identity_backward_row)(ptrdiff_t units, const real *restrict gate_z,
                                               const real *restrict gate_n, const real *restrict h_prev,
                                               real *restrict dh, real *restrict da_z, real *restrict da_n) {
    NAME(mingru_backward_row)(units, CANDIDATE_IDENTITY, gate_z, gate_n, h_prev, dh, da_z, da_n);
}

static void NAME(mingru_positive_backward_row)(ptrdiff_t units, const real *restrict gate_z,
                                               const real *restrict gate_n, const real *restrict h_prev,
                                               real *restrict dh, real *restrict da_z, real *restrict da_n) {
    NAME(mingru_backward_row)(units, CANDIDATE_POSITIVE, gate_z, gate_n, h_prev, dh, da_z, da_n);
}

static void NAME(mingru_backward)(ptrdiff_t n, ptrdiff_t units, ptrdiff_t H, int candidate, const int *places,
                                  const void *gates_, const void *h_prev_, void *dh_, void *dgates_) {
    const real *gates = gates_, *h_prev = h_prev_;
    real *dh = dh_, *dgates = dgates_;
    for (; n > 0; n--, gates += 2 * H, h_prev += H, dh += H, dgates += 2 * H) {
        const real *z = gates + places[0] * H, *candidates = gates + places[1] * H;
        real *da_z = dgates + places[0] * H, *da_n = dgates + places[1] * H;
        if (candidate == CANDIDATE_POSITIVE)
            NAME(mingru_positive_backward_row)(units, z, candidates, h_prev, dh, da_z, da_n);
        else
            NAME(mingru_identity_backward_row)(units, z, candidates, h_prev, dh, da_z, da_n);
    }
}
