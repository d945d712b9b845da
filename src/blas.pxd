"""Row-major products over SciPy's BLAS: the one place that knows column-major order and BLAS integers."""

from cython cimport floating
from scipy.linalg.cython_blas cimport dgemm, dgemv, sgemm, sgemv


cdef extern from "kernels.h" nogil:
    const Py_ssize_t BLAS_LARGEST "RNNCORE_BLAS_LARGEST"


cdef inline void _multiply(bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
                           const floating *a, Py_ssize_t lda, const floating *b, Py_ssize_t ldb,
                           floating beta, floating *c, Py_ssize_t ldc) noexcept nogil:
    # Row-major C = A B is column-major C' = B' A'.
    cdef char trans_a = b"T" if transpose_a else b"N"
    cdef char trans_b = b"T" if transpose_b else b"N"
    cdef int m_ = <int>m, n_ = <int>n, k_ = <int>k, lda_ = <int>lda, ldb_ = <int>ldb, ldc_ = <int>ldc, one = 1
    cdef int inc_a = lda_ if transpose_a else 1
    cdef int rows_b = k_ if transpose_b else n_
    cdef int columns_b = n_ if transpose_b else k_
    cdef floating alpha = 1
    if m == 1:
        if floating is float:
            sgemv(&trans_b, &rows_b, &columns_b, &alpha, <float *>b, &ldb_, <float *>a, &inc_a, &beta, c, &one)
        else:
            dgemv(&trans_b, &rows_b, &columns_b, &alpha, <double *>b, &ldb_, <double *>a, &inc_a, &beta, c, &one)
    elif floating is float:
        sgemm(&trans_b, &trans_a, &n_, &m_, &k_, &alpha, <float *>b, &ldb_, <float *>a, &lda_, &beta, c, &ldc_)
    else:
        dgemm(&trans_b, &trans_a, &n_, &m_, &k_, &alpha, <double *>b, &ldb_, <double *>a, &lda_, &beta, c, &ldc_)


cdef inline void multiply(bint transpose_a, bint transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
                          const floating *a, Py_ssize_t lda, const floating *b, Py_ssize_t ldb,
                          floating beta, floating *c, Py_ssize_t ldc) noexcept nogil:
    """C (m,n) = op(A) (m,k) op(B) (k,n) + beta C; row-major, ld* are distances between rows as stored.

    beta is 0 or 1; 0 overwrites C whatever stands there. Sizes may be 0.
    """
    cdef Py_ssize_t row, inner, rows, depth, i, j
    if m == 0 or n == 0:
        return
    if k == 0:
        if beta == 0:
            for i in range(m):
                for j in range(n):
                    c[i * ldc + j] = 0
        return
    row = 0
    while row < m:
        rows = min(m - row, BLAS_LARGEST)
        inner = 0
        while inner < k:
            depth = min(k - inner, BLAS_LARGEST)
            _multiply(transpose_a, transpose_b, rows, n, depth,
                      a + (inner * lda + row if transpose_a else row * lda + inner), lda,
                      b + (inner if transpose_b else inner * ldb), ldb,
                      beta if inner == 0 else <floating>1, c + row * ldc, ldc)
            inner += depth
        row += rows
