"""Products by the BLAS that SciPy brings: the entry "blas" beside the instruction sets.

Its kernels are those of a set of the engine, except for the products. BLAS packs a matrix at every product, so factors
are read in place. It sums in an order of its own, which depends on the sizes: the promises of equal bits do not hold.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cython cimport floating
from libc.string cimport memcpy, memset
from scipy.linalg.cython_blas cimport dgemm, dgemv, sgemm, sgemv

from kernels cimport instruction_set, kernel_table, weight_gradient


# Sizes for BLAS, whose integers have 32 bits.
cdef enum:
    LARGEST = 1 << 30


# A row-major matrix, or one that is read transposed: element (i, j) at values[j * ld + i].
cdef struct Operand:
    const void *values
    Py_ssize_t ld
    bint transposed


cdef inline Operand operand(const void *values, Py_ssize_t ld, bint transposed) noexcept nogil:
    cdef Operand found
    found.values, found.ld, found.transposed = values, ld, transposed
    return found


cdef inline floating *element(const Operand *P, Py_ssize_t i, Py_ssize_t j, floating *type_) noexcept nogil:
    return <floating *>P.values + (j * P.ld + i if P.transposed else i * P.ld + j)


cdef inline void call_blas(int m, int K, int M, floating *A, const Operand *shape_A, floating *B,
                           const Operand *shape_B, floating beta, floating *C, Py_ssize_t ldc) noexcept nogil:
    """C (m, M) = beta C + A (m, K) B (K, M). BLAS is column-major, where C' (M, m) = B' A'."""
    cdef char *trans_A = b"T" if shape_A.transposed else b"N"
    cdef char *trans_B = b"T" if shape_B.transposed else b"N"
    cdef floating one = 1
    # A distance that exceeds the integers of BLAS is one of a single row, and not used.
    cdef int lda = <int>min(max(shape_A.ld, <Py_ssize_t>(m if shape_A.transposed else K)), <Py_ssize_t>LARGEST)
    cdef int ldb = <int>min(max(shape_B.ld, <Py_ssize_t>(K if shape_B.transposed else M)), <Py_ssize_t>LARGEST)
    cdef int ld = <int>min(max(ldc, <Py_ssize_t>M), <Py_ssize_t>LARGEST)
    cdef int step = lda if shape_A.transposed else 1, next_ = 1
    cdef int rows = K if shape_B.transposed else M, columns = M if shape_B.transposed else K
    if m == 1:
        if floating is float:
            sgemv(trans_B, &rows, &columns, &one, B, &ldb, A, &step, &beta, C, &next_)
        else:
            dgemv(trans_B, &rows, &columns, &one, B, &ldb, A, &step, &beta, C, &next_)
    elif floating is float:
        sgemm(trans_B, trans_A, &M, &m, &K, &one, B, &ldb, A, &lda, &beta, C, &ld)
    else:
        dgemm(trans_B, trans_A, &M, &m, &K, &one, B, &ldb, A, &lda, &beta, C, &ld)


cdef inline void add_product(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, Operand A, Operand B, floating beta, floating *C,
                             Py_ssize_t ldc) noexcept nogil:
    """C (m, M) = beta C + A (m, K) B (K, M), in parts whose sizes and distances fit the integers of BLAS."""
    cdef Py_ssize_t i, j, k, p, q, r
    cdef Py_ssize_t part_m = 1 if ldc > LARGEST or (not A.transposed and A.ld > LARGEST) else LARGEST
    cdef Py_ssize_t part_M = 1 if B.transposed and B.ld > LARGEST else LARGEST
    cdef Py_ssize_t part_K = LARGEST
    if (A.transposed and A.ld > LARGEST) or (not B.transposed and B.ld > LARGEST):
        part_K = 1
    for p in range((m + part_m - 1) // part_m):
        i = p * part_m
        for q in range((M + part_M - 1) // part_M):
            j = q * part_M
            for r in range((K + part_K - 1) // part_K):
                k = r * part_K
                call_blas(<int>min(part_m, m - i), <int>min(part_K, K - k), <int>min(part_M, M - j),
                          element(&A, i, k, C), &A, element(&B, k, j, C), &B, 1 if k > 0 else beta, C + i * ldc + j,
                          ldc)


# ---- the kernels, as kernels.h has them -----------------------------------------------------------------------------

cdef inline void multiply(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, const floating *A, Py_ssize_t lda, const void *B,
                          Py_ssize_t row_stride, Py_ssize_t column_stride, const floating *start, Py_ssize_t ldstart,
                          floating *C, Py_ssize_t ldc) noexcept nogil:
    cdef Py_ssize_t i
    cdef bint transposed = column_stride != 1
    for i in range(m):
        if start == NULL:
            if K == 0:
                memset(C + i * ldc, 0, M * sizeof(floating))
        elif start + i * ldstart != C + i * ldc:
            memcpy(C + i * ldc, start + i * ldstart, M * sizeof(floating))
    add_product(m, K, M, operand(A, lda, False), operand(B, column_stride if transposed else row_stride, transposed),
                <floating>(0 if start == NULL else 1), C, ldc)


cdef inline void weight_gradients(Py_ssize_t K, Py_ssize_t M, const floating *B, Py_ssize_t ldb,
                                  const weight_gradient *out, int count) noexcept nogil:
    cdef const weight_gradient *o
    cdef const floating *A
    cdef Py_ssize_t first = 0 if ldb > 0 else K - 1, sign = 1 if ldb > 0 else -1
    cdef int i
    for i in range(count):
        o = out + i
        # From the last row to the first: in the other direction, since BLAS has no negative distances.
        A = <const floating *>o.A + first * o.lda
        add_product(o.m, K, o.M, operand(A, sign * o.lda, True), operand(B + first * ldb, sign * ldb, False),
                    <floating>(1 if o.adds else 0), <floating *>o.C, o.ldc)


cdef Py_ssize_t weight_gradients_work(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M) noexcept nogil:
    return 0


cdef kernel_table f32, f64
cdef instruction_set entry


cdef void multiply_f32(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, const void *A, Py_ssize_t lda, const void *B,
                       Py_ssize_t row_stride, Py_ssize_t column_stride, const void *start, Py_ssize_t ldstart, void *C,
                       Py_ssize_t ldc) noexcept nogil:
    multiply(m, K, M, <const float *>A, lda, B, row_stride, column_stride, <const float *>start, ldstart, <float *>C,
             ldc)


cdef void multiply_f64(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, const void *A, Py_ssize_t lda, const void *B,
                       Py_ssize_t row_stride, Py_ssize_t column_stride, const void *start, Py_ssize_t ldstart, void *C,
                       Py_ssize_t ldc) noexcept nogil:
    multiply(m, K, M, <const double *>A, lda, B, row_stride, column_stride, <const double *>start, ldstart, <double *>C,
             ldc)


cdef void weight_gradients_f32(Py_ssize_t K, Py_ssize_t M, const void *B, Py_ssize_t ldb, const weight_gradient *out,
                               int count, void *sums, void *work) noexcept nogil:
    weight_gradients(K, M, <const float *>B, ldb, out, count)
    if sums != NULL:
        f32.column_sums(K, M, B, ldb, sums)


cdef void weight_gradients_f64(Py_ssize_t K, Py_ssize_t M, const void *B, Py_ssize_t ldb, const weight_gradient *out,
                               int count, void *sums, void *work) noexcept nogil:
    weight_gradients(K, M, <const double *>B, ldb, out, count)
    if sums != NULL:
        f64.column_sums(K, M, B, ldb, sums)


cdef int is_supported() noexcept nogil:
    return 1


def make_entry(of_float, of_double):
    """The entry (a capsule of an instruction_set), with all other kernels from capsules of two kernel_tables."""
    global f32, f64
    f32 = (<const kernel_table *>PyCapsule_GetPointer(of_float, "rnncore.kernel_table"))[0]
    f64 = (<const kernel_table *>PyCapsule_GetPointer(of_double, "rnncore.kernel_table"))[0]
    f32.pack = f64.pack = NULL
    f32.multiply_packed = f64.multiply_packed = NULL
    f32.multiply, f64.multiply = multiply_f32, multiply_f64
    f32.weight_gradients, f64.weight_gradients = weight_gradients_f32, weight_gradients_f64
    f32.weight_gradients_work = f64.weight_gradients_work = weight_gradients_work
    entry.name, entry.is_supported, entry.f32, entry.f64 = b"blas", is_supported, &f32, &f64
    return PyCapsule_New(&entry, "rnncore.instruction_set", NULL)
