/* GRU, one step, from the pre-activations a of the gates r z n. Shapes and aliasing: cells.h.
 *
 *   r = sigmoid(a_r)    z = sigmoid(a_z)
 *   n = tanh(a_n), where a_n contains (r h_prev) Whn or h_prev Whn; or tanh(a_n + r m) with m = h_prev Whn + bhn   (1)
 *   h = z n + (1 - z) h_prev, or (1 - z) n + z h_prev                                                              (2)
 *
 * Between gru_gates and gru_update the time loop computes the product that needs r. */

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
        real added = update == UPDATE_NEW ? candidate : h_prev[j], kept = update == UPDATE_NEW ? h_prev[j] : candidate;
        n[j] = candidate;
        h[j] = z[j] * added + (1 - z[j]) * kept; /* (2); kept + z (added - kept) loses `added` where kept is far larger */
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
