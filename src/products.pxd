"""Factors and products: C = start + A B with B packed or in place, and sums of outer products over tokens."""

from cython cimport floating
from libc.stdint cimport int8_t, int64_t, uint16_t
from libc.string cimport memset

from call cimport *
from kernels cimport *
from threads cimport is_interrupted


cdef inline Py_ssize_t share_begin(Py_ssize_t total, Py_ssize_t part, Py_ssize_t parts, Py_ssize_t unit) noexcept nogil:
    """Where a part begins if `total` is cut into `parts` nearly equal shares, at multiples of `unit`."""
    return min(total, (total * part // parts + unit - 1) // unit * unit)


cdef inline Py_ssize_t largest_share(Py_ssize_t total, Py_ssize_t parts, Py_ssize_t unit) noexcept nogil:
    """Upper bound on the size of a share of share_begin."""
    return min(total, ((total + parts - 1) // parts + unit - 1) // unit * unit)


# ---- interrupts -----------------------------------------------------------------------------------------------------

# What is multiplied, or packed, between two looks for an interrupt: some ten milliseconds of work.
cdef enum:
    PRODUCTS_BETWEEN_LOOKS = 1 << 27
    PACKED_BETWEEN_LOOKS = 1 << 22
    ROWS_BETWEEN_LOOKS = 128      # at least: a factor is read once for so many, or
    ROWS_IN_PLACE = 512           # packed as it goes
    GRADIENT_TOKENS = 256         # of the sums of outer products, into so many rows and columns: the kernels cut tokens
    GRADIENT_COLUMNS = 1024       # and columns in the same way
    GRADIENT_ROWS = 1 << 12


cdef inline Py_ssize_t panels_of(Py_ssize_t work, Py_ssize_t column) noexcept nogil:
    """Columns of so much work each that make up `work`: whole panels, at least one."""
    return max(LARGEST_PANEL, work // max(column, <Py_ssize_t>1) // LARGEST_PANEL * LARGEST_PANEL)


# ---- matrices and factors -------------------------------------------------------------------------------------------

cdef inline Matrix transpose(Matrix B) noexcept nogil:
    cdef Matrix T
    T.values, T.row_step, T.column_step = B.values, B.column_step, B.row_step
    return T


cdef inline Matrix submatrix(Matrix B, Py_ssize_t row, Py_ssize_t column, floating *type_) noexcept nogil:
    """B[row:, column:]"""
    B.values = at(B.values, row * B.row_step + column * B.column_step, type_)
    return B


cdef inline Py_ssize_t packed_size(Py_ssize_t K, Py_ssize_t M) noexcept nogil:
    """Values of a packed matrix (K, M)."""
    return K * ((M + LARGEST_PANEL - 1) // LARGEST_PANEL * LARGEST_PANEL)


cdef inline size_t packed_bytes(int precision, size_t item, Py_ssize_t K, Py_ssize_t M) noexcept nogil:
    """Bytes of a packed matrix (K, M) of a precision, with values of `item` bytes if it is PRECISION_FULL."""
    cdef size_t columns = (M + LARGEST_PANEL - 1) // LARGEST_PANEL * LARGEST_PANEL
    if precision == PRECISION_INT8:
        return columns * ((K + 3) // 4 * 4 + 8)  # with a scale and a sum of each column
    return columns * K * (2 if precision == PRECISION_BFLOAT16 else item)


cdef inline Factor factor(const kernel_table *k, Py_ssize_t K, Py_ssize_t M, int blocks, Py_ssize_t step, Matrix matrix,
                          floating **room) noexcept nogil:
    """The factor of `blocks` blocks of M columns, `step` apart, of a matrix of K rows.

    Read in place if room is NULL or the kernels do not pack. Otherwise pack_factor writes it to *room, which is
    advanced.
    """
    cdef Factor f
    f.K, f.M, f.blocks, f.step, f.matrix, f.packed = K, M, blocks, step, matrix, NULL
    f.precision, f.packed_step, f.scale = PRECISION_FULL, packed_size(K, M) * sizeof(floating), 0
    if room != NULL and k.pack != NULL:
        f.packed = room[0]
        room[0] += blocks * packed_size(K, M)
    return f


cdef inline void pack_factor(const kernel_table *k, const Factor *f, int part, int parts,
                             floating *type_) noexcept nogil:
    """Pack a share of the columns, unless the factor is read in place."""
    cdef Py_ssize_t begin = share_begin(f.M, part, parts, LARGEST_PANEL)
    cdef Py_ssize_t end = share_begin(f.M, part + 1, parts, LARGEST_PANEL)
    cdef Py_ssize_t most = panels_of(PACKED_BETWEEN_LOOKS, f.K), columns
    cdef int block
    if f.packed == NULL:
        return
    while begin < end and not is_interrupted():
        columns = min(most, end - begin)
        for block in range(f.blocks):
            k.pack(f.K, columns, submatrix(f.matrix, 0, block * f.step + begin, type_).values, f.matrix.row_step,
                   f.matrix.column_step, <floating *>(<char *>f.packed + block * f.packed_step) + begin * f.K)
        begin += columns


cdef inline Factor packed_factor(int precision, Py_ssize_t K, Py_ssize_t M, void *packed) noexcept nogil:
    """The factor of a matrix (K, M) that is packed already."""
    cdef Factor f
    memset(&f, 0, sizeof(Factor))
    f.K, f.M, f.blocks, f.precision, f.packed = K, M, 1, precision, packed
    return f


cdef inline void pack_quantized(const kernel_table *k, const Factor *f, const void *values, Py_ssize_t ld,
                                const float *scales) noexcept nogil:
    """Pack a factor of one block from its values (K, M) in bfloat16 or int8, rows ld apart; scales (M,) of int8."""
    cdef Py_ssize_t most = panels_of(PACKED_BETWEEN_LOOKS, f.K), begin = 0, columns
    cdef char *packed
    while begin < f.M and not is_interrupted():
        columns = min(most, f.M - begin)
        packed = <char *>f.packed + packed_bytes(f.precision, 0, f.K, begin)
        if f.precision == PRECISION_BFLOAT16:
            k.pack_bfloat16(f.K, columns, <const uint16_t *>values + begin, ld, packed)
        else:
            k.pack_int8(f.K, columns, <const int8_t *>values + begin, ld, scales + begin, packed)
        begin += columns


cdef inline void gather(const kernel_table *k, Py_ssize_t rows, const Factor *f, int block, const floating *b,
                        const int64_t *ids, floating *out, Py_ssize_t ldout) noexcept nogil:
    """out (rows, M) = b + rows of a block of a factor in bfloat16 or int8; b (M,) or NULL."""
    cdef const void *packed = <const char *>f.packed + block * f.packed_step
    if f.precision == PRECISION_BFLOAT16:
        k.gather_bfloat16(rows, f.M, f.K, b, packed, ids, out, ldout)
    else:
        k.gather_int8(rows, f.M, f.K, b, packed, ids, out, ldout)


# Rows of A that are quantized at a time.
cdef enum:
    QUANTIZED_ROWS = 64


cdef inline Py_ssize_t quantized_work(int precision, Py_ssize_t rows, Py_ssize_t K, size_t item) noexcept nogil:
    """Scratch values of products of at most so many rows with a factor of at most K rows."""
    if precision != PRECISION_INT8:
        return 0
    rows = min(rows, <Py_ssize_t>QUANTIZED_ROWS)
    return padded(QUANTIZED_ROWS + (rows * quantized_row_bytes(K) + item - 1) // item)


cdef inline void multiply_columns(const kernel_table *k, Py_ssize_t m, const floating *A, Py_ssize_t lda,
                                  const Factor *f, int block, Py_ssize_t begin, Py_ssize_t columns,
                                  const floating *start, Py_ssize_t ldstart, floating *C, Py_ssize_t ldc,
                                  floating *work) noexcept nogil:
    """Columns of a block of a factor, from a multiple of LARGEST_PANEL on; in int8, the rows quantized in `work`."""
    cdef const char *packed = <const char *>f.packed + block * f.packed_step
    cdef Py_ssize_t column = block * f.step + begin
    start = at(start, column, C)
    C += column
    if f.packed != NULL:
        packed += packed_bytes(f.precision, sizeof(floating), f.K, begin)
    if f.precision == PRECISION_INT8:
        k.multiply_int8(m, f.K, columns, <const int8_t *>(work + QUANTIZED_ROWS), work, packed, start, ldstart, C, ldc)
    elif f.precision == PRECISION_BFLOAT16:
        k.multiply_bfloat16(m, f.K, columns, A, lda, packed, start, ldstart, C, ldc)
    elif f.packed != NULL:
        k.multiply_packed(m, f.K, columns, A, lda, packed, start, ldstart, C, ldc)
    else:
        k.multiply(m, f.K, columns, A, lda, submatrix(f.matrix, 0, column, C).values, f.matrix.row_step,
                   f.matrix.column_step, start, ldstart, C, ldc)


cdef inline void product_from(const kernel_table *k, Py_ssize_t m, const floating *A, Py_ssize_t lda, const Factor *f,
                              const floating *start, Py_ssize_t ldstart, floating *C, Py_ssize_t ldc,
                              floating *work) noexcept nogil:
    """C (m, M) = start + A (m, K) B (K, M), in each block of columns; start as `from` in kernels.h.

    `work` are quantized_work values; NULL if the factor is not in int8.
    """
    cdef Py_ssize_t most_rows = m, most = f.M, row = 0, rows, column
    cdef int block
    if m * f.K * f.M > PRODUCTS_BETWEEN_LOOKS:
        most_rows = max(<Py_ssize_t>(ROWS_IN_PLACE if f.packed == NULL else ROWS_BETWEEN_LOOKS),
                        PRODUCTS_BETWEEN_LOOKS // (f.K * f.M))
        most = panels_of(PRODUCTS_BETWEEN_LOOKS, min(m, most_rows) * f.K)
    if f.precision == PRECISION_INT8:
        most_rows = min(most_rows, <Py_ssize_t>QUANTIZED_ROWS)
    while row < m:
        rows = min(most_rows, m - row)
        if f.precision == PRECISION_INT8:
            k.quantize_rows(rows, f.K, A, lda, f.scale, <int8_t *>(work + QUANTIZED_ROWS), work)
        for block in range(f.blocks):
            column = 0
            while column < f.M:
                if (row > 0 or column > 0) and is_interrupted():
                    return
                multiply_columns(k, rows, A, lda, f, block, column, min(most, f.M - column), start, ldstart, C, ldc,
                                 work)
                column += most
        row += rows
        A += rows * lda
        C += rows * ldc
        start = at(start, rows * ldstart, C)


cdef inline void product(const kernel_table *k, Py_ssize_t m, const floating *A, Py_ssize_t lda, const Factor *f,
                         floating *C, Py_ssize_t ldc, floating *work) noexcept nogil:
    """C (m, M) += A (m, K) B (K, M), in each block of columns"""
    product_from(k, m, A, lda, f, <const floating *>C, ldc, C, ldc, work)


# ---- sums over tokens -----------------------------------------------------------------------------------------------

# Sums over tokens run in the order of the backward pass, last step first: a sequence that is cut into pieces, which add
# to the same gradients one after the other, gives the same bits.
cdef struct Tokens:
    Py_ssize_t first, step, count


cdef inline Tokens backward_tokens(Py_ssize_t begin, Py_ssize_t count, bint reverse) noexcept nogil:
    """Tokens begin .. begin + count - 1 in the order of the backward pass."""
    cdef Tokens tokens
    tokens.count = count
    tokens.first = begin if reverse else begin + count - 1
    tokens.step = 1 if reverse else -1
    return tokens


cdef inline Tokens shard_tokens(Tokens tokens, int shard, int shards) noexcept nogil:
    """Those of whole steps whose rows are of a shard: see Call.shards."""
    tokens.first += shard if tokens.step > 0 else shard - (shards - 1)
    tokens.step *= shards
    tokens.count //= shards
    return tokens


# C (m, M) (+)= sum over tokens of the outer product of a row of A (L, m) and the first M of a row of b.
cdef struct OuterSum:
    const void *A
    Py_ssize_t m, M
    Matrix C
    bint adds


cdef inline OuterSum outer_sum(const floating *A, Py_ssize_t m, Py_ssize_t M, Matrix C, bint adds) noexcept nogil:
    cdef OuterSum p
    p.A, p.m, p.M, p.C, p.adds = A, m, M, C, adds
    return p


cdef inline void add_outer_sums(const kernel_table *k, Tokens tokens, Py_ssize_t M, const floating *b, Py_ssize_t ldb,
                                const OuterSum *outer_sums, int count, floating *sums, floating *work) noexcept nogil:
    """Compute at most two outer sums with the same b (L, M), and sums (M,) += b."""
    cdef weight_gradient[2] in_c_order
    cdef weight_gradient transposed
    cdef OuterSum p
    cdef int i, found = 0
    b += tokens.first * ldb
    ldb *= tokens.step
    for i in range(count):
        p = outer_sums[i]
        p.A = <const floating *>p.A + tokens.first * p.m
        if p.C.column_step == 1:
            in_c_order[found].adds, in_c_order[found].m, in_c_order[found].M = p.adds, p.m, p.M
            in_c_order[found].A, in_c_order[found].lda = p.A, tokens.step * p.m
            in_c_order[found].C, in_c_order[found].ldc = p.C.values, p.C.row_step
            found += 1
        else:
            # In Fortran order it is C' (M, m), the sum of the outer products of b and A.
            transposed.adds, transposed.m, transposed.M = p.adds, p.M, p.m
            transposed.A, transposed.lda, transposed.C, transposed.ldc = b, ldb, p.C.values, p.C.column_step
            weight_gradients_of(k, tokens.count, p.m, <const floating *>p.A, tokens.step * p.m, &transposed, 1,
                                <floating *>NULL, work)
    if found > 0:
        weight_gradients_of(k, tokens.count, M, b, ldb, in_c_order, found, sums, work)
    elif sums != NULL:
        k.column_sums(tokens.count, M, b, ldb, sums)


cdef inline void weight_gradients_of(const kernel_table *k, Py_ssize_t K, Py_ssize_t M, const floating *B,
                                     Py_ssize_t ldb, const weight_gradient *out, int count, floating *sums,
                                     floating *work) noexcept nogil:
    """k.weight_gradients, some tokens, rows and columns at a time."""
    cdef weight_gradient[2] part
    cdef Py_ssize_t column = 0, token, row, m = max(<Py_ssize_t>1, out[0].m)
    cdef int i
    if count > 1:
        m = max(m, out[1].m)
    while column < M:
        token = 0
        while token < K:
            row = 0
            while row < m and not is_interrupted():
                for i in range(count):
                    part[i].adds = out[i].adds or token > 0
                    part[i].m = max(<Py_ssize_t>0, min(<Py_ssize_t>GRADIENT_ROWS, out[i].m - row))
                    part[i].M = max(<Py_ssize_t>0, min(<Py_ssize_t>GRADIENT_COLUMNS, out[i].M - column))
                    part[i].A = <const floating *>out[i].A + token * out[i].lda + row
                    part[i].lda = out[i].lda
                    part[i].C = <floating *>out[i].C + row * out[i].ldc + column
                    part[i].ldc = out[i].ldc
                k.weight_gradients(min(<Py_ssize_t>GRADIENT_TOKENS, K - token),
                                   min(<Py_ssize_t>GRADIENT_COLUMNS, M - column), B + token * ldb + column, ldb, part,
                                   count, at(sums, column, work) if row == 0 else NULL, work)
                row += GRADIENT_ROWS
            token += GRADIENT_TOKENS
        column += GRADIENT_COLUMNS


cdef inline Py_ssize_t gradients_work(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M) noexcept nogil:
    """Scratch values that serve weight_gradients on every instruction set."""
    cdef Py_ssize_t work = 0
    cdef int i
    for i in range(instruction_set_count):
        work = max(work, instruction_sets[i].f32.weight_gradients_work(m, K, M),
                   instruction_sets[i].f64.weight_gradients_work(m, K, M))
    return padded(work)


cdef inline Py_ssize_t outer_sums_work(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, bint fortran_order) noexcept nogil:
    """Scratch values for add_outer_sums over K tokens into matrices of at most (m, M)."""
    return max(gradients_work(m, K, M), gradients_work(M, K, m) if fortran_order else 0)
