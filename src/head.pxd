"""The output layer: an affine map, forward and backward, with softmax cross-entropy on top if there are targets."""

from cython cimport floating
from libc.stdint cimport int64_t

from call cimport *
from kernels cimport *
from memory cimport *
from plan cimport *
from products cimport *
from threads cimport *


# Upper bound on the logits of a chunk of rows: they stay in cache from the product to the gradients.
cdef enum:
    CHUNK_LOGITS = 1 << 21
    CHUNK_ROWS = 64


cdef struct Affine:
    const kernel_table *kernels
    Py_ssize_t L, D, K, chunk    # rows in all, and rows at a time
    bint is_double
    bint computes_y              # y = x W + b; otherwise y holds dL/dy
    void *x                      # (L, D)
    Matrix W                     # (D, K)
    void *b                      # (K,)
    void *y                      # (L, K); NULL: in the scratch, a chunk of rows at a time
    const int64_t *targets       # (L,), with weights and losses; NULL: no softmax
    const double *weights
    double *losses
    void *dx                     # (L, D); NULL: no gradients
    Matrix dW                    # (D, K), added to
    void *db                     # (K,), added to
    void *scratch                # packed W, packed W', a chunk of y, then work of each thread
    Py_ssize_t packed_size, transposed_size, chunk_size, work_size
    int size
    barrier everyone


cdef inline void affine_part(const Affine *f, int member, floating *scratch) noexcept nogil:
    """What one thread does: shares of the columns of W, then of the rows of each chunk."""
    cdef const kernel_table *k = f.kernels
    cdef Py_ssize_t D = f.D, K = f.K, i, chunk, n, begin, rows
    cdef Py_ssize_t column = share_begin(K, member, f.size, LARGEST_PANEL)
    cdef Py_ssize_t columns = share_begin(K, member + 1, f.size, LARGEST_PANEL) - column
    cdef floating *packed = scratch
    cdef floating *transposed = scratch + f.packed_size
    cdef floating *work = transposed + f.transposed_size + f.chunk_size + member * f.work_size
    cdef floating *y
    cdef barrier *everyone = <barrier *>&f.everyone
    cdef Factor W, W_transposed
    cdef OuterSum dW
    cdef Tokens tokens
    if f.computes_y:
        W = factor(k, D, K, 1, 0, f.W, &packed if f.packed_size else NULL, member, f.size)
    if f.dx != NULL:
        W_transposed = factor(k, K, D, 1, 0, transpose(f.W), &transposed, member, f.size)
    wait_for_all(everyone, f.size)
    for i in range((f.L + f.chunk - 1) // f.chunk):
        chunk = i * f.chunk
        n = min(f.chunk, f.L - chunk)
        begin = share_begin(n, member, f.size, 8)
        rows = share_begin(n, member + 1, f.size, 8) - begin
        y = scratch + f.packed_size + f.transposed_size if f.y == NULL else <floating *>f.y + chunk * K
        if f.computes_y:
            product_from(k, rows, <const floating *>f.x + (chunk + begin) * D, D, &W, <const floating *>f.b, 0,
                         y + begin * K, K)
        if f.targets != NULL:
            k.softmax_cross_entropy(rows, K, y + begin * K, f.targets + chunk + begin, f.weights + chunk + begin,
                                    f.losses + chunk + begin)
        if f.dx != NULL:
            # dx (L,D) = dy W';   dW (D,K) += x' dy;   db (K,) += sum of dy (L,K)
            product_from(k, rows, <const floating *>y + begin * K, K, &W_transposed, NULL, 0,
                         <floating *>f.dx + (chunk + begin) * D, D)
            wait_for_all(everyone, f.size)
            tokens.first, tokens.step, tokens.count = 0, 1, n
            dW = outer_sum(<const floating *>f.x + chunk * D, D, columns, submatrix(f.dW, 0, column, work), True)
            add_outer_sums(k, tokens, columns, y + column, K, &dW, 1, <floating *>f.db + column, work)
        if f.y == NULL:
            wait_for_all(everyone, f.size)  # before the next chunk overwrites this one


cdef inline void part_of_affine(void *context, int member) noexcept nogil:
    cdef const Affine *f = <const Affine *>context
    cdef unsigned long long saved = begin_flush_subnormals()
    if f.is_double:
        affine_part(f, member, <double *>f.scratch)
    else:
        affine_part(f, member, <float *>f.scratch)
    end_flush_subnormals(saved)


cdef inline int run_affine(Affine *f, const CostRule *rule, int max_threads) except -1:
    """Set the sizes of the scratch and of the team, then run."""
    cdef block memory
    cdef Py_ssize_t values
    f.chunk = f.L if f.y != NULL else min(f.L, max(<Py_ssize_t>CHUNK_ROWS, CHUNK_LOGITS // f.K))
    f.packed_size = 0
    if f.computes_y and packing_pays(1, f.L):
        f.packed_size = padded(packed_size(f.D, f.K))
    f.transposed_size = 0 if f.dx == NULL else padded(packed_size(f.K, f.D))
    f.chunk_size = padded(f.chunk * f.K) if f.y == NULL else 0
    f.size = take_team(threads_for(2. * f.L * f.D * f.K * (f.computes_y + (0 if f.dx == NULL else 2)), rule,
                                   max_threads))
    try:
        f.work_size = 0
        if f.dx != NULL:
            f.work_size = outer_sums_work(f.D, f.chunk, largest_share(f.K, f.size, LARGEST_PANEL),
                                          f.dW.column_step != 1)
        values = f.packed_size + f.transposed_size + f.chunk_size + f.size * f.work_size
        take_memory(values * (sizeof(double) if f.is_double else sizeof(float)), &memory)
        f.scratch = memory.start
        with nogil:
            run_team(f.size, part_of_affine, f)
        give_block(memory)
    finally:
        leave_team(f.size)
    return 0
