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


cdef enum AffinePhase:
    AFFINE_STARTING, AFFINE_PACKING, AFFINE_ROWS, AFFINE_COLUMNS


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
    int shards                   # row n adds to the gradients of shard n % shards, so many values after those of the
    Py_ssize_t shard_step        # shard before; L is a multiple of shards
    void *scratch                # packed W, packed W', a chunk of y, then work of each piece
    Py_ssize_t packed_size, transposed_size, chunk_size, work_size
    int pieces                   # of each phase
    AffinePhase phase
    Py_ssize_t begin             # of the chunk
    Factor factor, transposed    # of W and W'; that of W is given where it is packed already, and then W is not


cdef inline int next_affine_phase(void *context) noexcept nogil:
    cdef Affine *f = <Affine *>context
    if f.phase == AFFINE_STARTING:
        f.phase = AFFINE_PACKING
        f.begin = -f.chunk
        if f.dx != NULL or f.packed_size > 0:
            return f.pieces
    if f.phase == AFFINE_ROWS and f.dx != NULL:
        f.phase = AFFINE_COLUMNS
        return f.pieces
    f.phase = AFFINE_ROWS
    f.begin += f.chunk
    return f.pieces if f.begin < f.L else 0


cdef inline void affine_rows(const Affine *f, int piece, floating *y, floating *work) noexcept nogil:
    """What needs some rows of the chunk y (n,K) and all columns."""
    cdef const kernel_table *k = f.kernels
    cdef Py_ssize_t D = f.D, K = f.K, n = min(f.chunk, f.L - f.begin)
    cdef Py_ssize_t first = share_begin(n, piece, f.pieces, 8), row = f.begin + first
    cdef Py_ssize_t rows = share_begin(n, piece + 1, f.pieces, 8) - first
    y += first * K
    if f.computes_y:
        product_from(k, rows, <const floating *>f.x + row * D, D, &f.factor, <const floating *>f.b, 0, y, K, work)
    if f.targets != NULL:
        k.softmax_cross_entropy(rows, K, y, f.targets + row, f.weights + row, f.losses + row)
    if f.dx != NULL:
        # dx (L,D) = dy W'
        product_from(k, rows, <const floating *>y, K, &f.transposed, NULL, 0, <floating *>f.dx + row * D, D, NULL)


cdef inline void affine_columns(const Affine *f, int piece, const floating *y, floating *work) noexcept nogil:
    """What needs some columns of the chunk y (n,K) and all rows."""
    cdef Py_ssize_t column = share_begin(f.K, piece, f.pieces, LARGEST_PANEL)
    cdef Py_ssize_t columns = share_begin(f.K, piece + 1, f.pieces, LARGEST_PANEL) - column
    cdef OuterSum sum
    cdef Tokens tokens
    cdef Matrix dW
    cdef int shard
    # dW (D,K) += x' dy;   db (K,) += sum of dy (L,K)
    tokens.first, tokens.step, tokens.count = 0, 1, min(f.chunk, f.L - f.begin)
    for shard in range(f.shards):
        dW = submatrix(f.dW, 0, column, work)
        dW.values = at(dW.values, shard * f.shard_step, work)
        sum = outer_sum(<const floating *>f.x + f.begin * f.D, f.D, columns, dW, True)
        add_outer_sums(f.kernels, shard_tokens(tokens, shard, f.shards), columns, y + column, f.K, &sum, 1,
                       <floating *>f.db + shard * f.shard_step + column, work)


cdef inline void affine_piece(const Affine *f, int piece, floating *scratch) noexcept nogil:
    cdef floating *y = scratch + f.packed_size + f.transposed_size
    cdef floating *work = y + f.chunk_size + piece * f.work_size
    if f.y != NULL:
        y = <floating *>f.y + f.begin * f.K
    if f.phase == AFFINE_ROWS:
        affine_rows(f, piece, y, work)
    elif f.phase == AFFINE_COLUMNS:
        affine_columns(f, piece, y, work)
    else:
        if f.packed_size > 0:
            pack_factor(f.kernels, &f.factor, piece, f.pieces, scratch)
        if f.dx != NULL:
            pack_factor(f.kernels, &f.transposed, piece, f.pieces, scratch)


cdef inline void run_affine_piece(void *context, int piece) noexcept nogil:
    cdef const Affine *f = <const Affine *>context
    if f.is_double:
        affine_piece(f, piece, <double *>f.scratch)
    else:
        affine_piece(f, piece, <float *>f.scratch)


cdef inline void begin_affine(Affine *f, floating *scratch) noexcept nogil:
    cdef floating *packed = scratch
    cdef floating *transposed = scratch + f.packed_size
    if f.factor.packed == NULL:
        f.factor = factor(f.kernels, f.D, f.K, 1, 0, f.W, &packed if f.packed_size > 0 else NULL)
    f.transposed = factor(f.kernels, f.K, f.D, 1, 0, transpose(f.W), &transposed)
    f.phase = AFFINE_STARTING


cdef inline int run_affine_with(Affine *f, team *threads, int size) except -1:
    """Make the scratch for a team of that size, then run."""
    cdef block memory
    cdef job phases
    cdef bint interrupted
    f.pieces = size
    f.chunk = f.L if f.y != NULL else min(f.L, max(<Py_ssize_t>CHUNK_ROWS, CHUNK_LOGITS // f.K))
    f.chunk = (f.chunk + f.shards - 1) // f.shards * f.shards
    f.packed_size = 0
    if f.computes_y and f.factor.packed == NULL and packing_pays(1, f.L):
        f.packed_size = padded(packed_size(f.D, f.K))
    f.transposed_size = 0 if f.dx == NULL else padded(packed_size(f.K, f.D))
    f.chunk_size = padded(f.chunk * f.K) if f.y == NULL else 0
    f.work_size = quantized_work(f.factor.precision, f.chunk, f.D, sizeof(double) if f.is_double else sizeof(float))
    if f.dx != NULL:
        f.work_size = outer_sums_work(f.D, f.chunk, largest_share(f.K, size, LARGEST_PANEL), f.dW.column_step != 1)
    take_memory((f.packed_size + f.transposed_size + f.chunk_size + size * f.work_size)
                * (sizeof(double) if f.is_double else sizeof(float)), &memory)
    f.scratch = memory.start
    if f.is_double:
        begin_affine(f, <double *>f.scratch)
    else:
        begin_affine(f, <float *>f.scratch)
    phases.next_phase, phases.run_piece, phases.context = next_affine_phase, run_affine_piece, f
    with nogil:
        interrupted = run_job(threads, &phases)
    give_block(memory)
    return -1 if interrupted else 0  # the exception of the signal handler is set


cdef inline int run_affine(Affine *f, const CostRule *rule, int max_threads) except -1:
    cdef team *threads = NULL
    cdef int size = threads_for(2. * f.L * f.D * f.K * (f.computes_y + (0 if f.dx == NULL else 2)), rule, max_threads)
    if size == 1:
        return run_affine_with(f, NULL, 1)
    size = take_team(size, &threads)
    try:
        return run_affine_with(f, threads, size)
    finally:
        leave_team(threads, size)
