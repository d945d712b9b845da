"""Cython's view of kernels/kernels.h, which has the contract."""

from libc.stdint cimport int8_t, int64_t, uint16_t

from cells cimport cell_kernels


cdef extern from "kernels.h" nogil:
    enum:
        RULE_SGD, RULE_MOMENTUM, RULE_SQUARES, RULE_ADAM
        OPTIMIZER_CONSTANTS

        PRECISION_FULL, PRECISION_BFLOAT16, PRECISION_INT8

    const Py_ssize_t LARGEST_QUANTIZED, LARGEST_PANEL, TRANSPOSED_ROWS

    ctypedef struct weight_gradient:
        int adds
        Py_ssize_t m
        Py_ssize_t M
        const void *A
        Py_ssize_t lda
        void *C
        Py_ssize_t ldc

    ctypedef struct kernel_table:
        void (*pack)(Py_ssize_t K, Py_ssize_t M, const void *B, Py_ssize_t row_stride, Py_ssize_t column_stride,
                     void *packed) noexcept nogil
        void (*transpose)(Py_ssize_t rows, Py_ssize_t columns, const void *source, Py_ssize_t source_step, void *target,
                          Py_ssize_t target_step) noexcept nogil
        void (*multiply_packed)(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, const void *A, Py_ssize_t lda,
                                const void *packed, const void *start, Py_ssize_t ldstart, void *C,
                                Py_ssize_t ldc) noexcept nogil
        void (*pack_bfloat16)(Py_ssize_t K, Py_ssize_t M, const uint16_t *B, Py_ssize_t ldb,
                              void *packed) noexcept nogil
        void (*multiply_bfloat16)(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, const void *A, Py_ssize_t lda,
                                  const void *packed, const void *start, Py_ssize_t ldstart, void *C,
                                  Py_ssize_t ldc) noexcept nogil
        void (*gather_bfloat16)(Py_ssize_t rows, Py_ssize_t M, Py_ssize_t K, const void *b, const void *packed,
                                const int64_t *ids, void *out, Py_ssize_t ldout) noexcept nogil
        void (*pack_int8)(Py_ssize_t K, Py_ssize_t M, const int8_t *B, Py_ssize_t ldb, const float *scales,
                          void *packed) noexcept nogil
        void (*quantize_rows)(Py_ssize_t m, Py_ssize_t K, const void *A, Py_ssize_t lda, double fixed, int8_t *q,
                              void *scales) noexcept nogil
        void (*multiply_int8)(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, const int8_t *q, const void *scales,
                              const void *packed, const void *start, Py_ssize_t ldstart, void *C,
                              Py_ssize_t ldc) noexcept nogil
        void (*gather_int8)(Py_ssize_t rows, Py_ssize_t M, Py_ssize_t K, const void *b, const void *packed,
                            const int64_t *ids, void *out, Py_ssize_t ldout) noexcept nogil
        void (*multiply)(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, const void *A, Py_ssize_t lda, const void *B,
                         Py_ssize_t row_stride, Py_ssize_t column_stride, const void *start, Py_ssize_t ldstart,
                         void *C, Py_ssize_t ldc) noexcept nogil
        void (*weight_gradients)(Py_ssize_t K, Py_ssize_t M, const void *B, Py_ssize_t ldb, const weight_gradient *out,
                                 int count, void *sums, void *work) noexcept nogil
        Py_ssize_t (*weight_gradients_work)(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M) noexcept nogil
        void (*gather_rows)(Py_ssize_t rows, Py_ssize_t M, const void *b, const void *table, Py_ssize_t ldtable,
                            const int64_t *ids, void *out, Py_ssize_t ldout) noexcept nogil
        void (*scatter_add)(Py_ssize_t rows, Py_ssize_t M, const int64_t *ids, Py_ssize_t ids_step, const void *a,
                            Py_ssize_t lda, void *table, Py_ssize_t ldtable) noexcept nogil
        void (*column_sums)(Py_ssize_t rows, Py_ssize_t M, const void *a, Py_ssize_t lda, void *out) noexcept nogil
        void (*product_sums)(Py_ssize_t rows, Py_ssize_t M, const void *a, Py_ssize_t lda, const void *b,
                             Py_ssize_t ldb, void *out) noexcept nogil
        void (*add)(Py_ssize_t rows, Py_ssize_t M, const void *a, Py_ssize_t lda, void *out,
                    Py_ssize_t ldout) noexcept nogil
        const cell_kernels *cells
        void (*softmax_cross_entropy)(Py_ssize_t rows, Py_ssize_t V, void *logits, const int64_t *targets,
                                      const double *weights, double *losses) noexcept nogil
        void (*additive_scores)(Py_ssize_t T, Py_ssize_t S, Py_ssize_t A, const void *q, Py_ssize_t ldq, const void *k,
                                Py_ssize_t ldk, const void *v, void *scores, Py_ssize_t lds) noexcept nogil
        void (*additive_backward)(Py_ssize_t T, Py_ssize_t S, Py_ssize_t A, const void *q, Py_ssize_t ldq,
                                  const void *k, Py_ssize_t ldk, const void *v, const void *dscores, Py_ssize_t lds,
                                  void *dq, Py_ssize_t lddq, void *dk, Py_ssize_t lddk, void *dv) noexcept nogil
        void (*softmax_rows)(Py_ssize_t rows, Py_ssize_t S, void *scores, Py_ssize_t lds) noexcept nogil
        void (*softmax_rows_backward)(Py_ssize_t rows, Py_ssize_t S, const void *weights, Py_ssize_t ldw,
                                      void *dweights, Py_ssize_t ldd) noexcept nogil
        double (*ctc)(Py_ssize_t T, Py_ssize_t V, const void *logits, Py_ssize_t step, Py_ssize_t L,
                      const int64_t *labels, Py_ssize_t blank, double weight, void *dlogits,
                      double *work) noexcept nogil
        double (*crf)(Py_ssize_t T, Py_ssize_t K, const void *emissions, Py_ssize_t step, const double *A,
                      const int64_t *tags, Py_ssize_t tag_step, double weight, void *demissions, double *dA,
                      double *work) noexcept nogil
        void (*viterbi)(Py_ssize_t T, Py_ssize_t K, const void *emissions, Py_ssize_t step, const double *A,
                        int64_t *tags, Py_ssize_t tag_step, double *work) noexcept nogil
        void (*optimizer_step)(int rule, Py_ssize_t count, const double *constants, const void *g, void *p, void *m,
                               void *v) noexcept nogil
        double (*square_sum)(Py_ssize_t count, const void *a) noexcept nogil
        double (*sum)(Py_ssize_t count, const void *a) noexcept nogil

    ctypedef struct instruction_set:
        const char *name
        int (*is_supported)() noexcept nogil
        const kernel_table *f32
        const kernel_table *f64

    Py_ssize_t quantized_row_bytes(Py_ssize_t K)
    Py_ssize_t ctc_work(Py_ssize_t T, Py_ssize_t V, Py_ssize_t L, bint trains)
    Py_ssize_t crf_work(Py_ssize_t T, Py_ssize_t K, bint trains)
    Py_ssize_t viterbi_work(Py_ssize_t T, Py_ssize_t K)

    const instruction_set *instruction_sets
    const int instruction_set_count
    const char *build_description

    unsigned long long begin_flush_subnormals()
    void end_flush_subnormals(unsigned long long saved)
