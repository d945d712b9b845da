"""The time loops: a whole sequence through one layer, forward and backward, in one call without the GIL.

Trusts its arguments; rnncore.functional checks and allocates. The tokens of a batch are *packed*: rows (sequences) in
order of falling length, time-major without gaps, so that step t is `rows_at(t)` rows at `offset_at(t)` and no step
needs a mask. L is the number of tokens, T N where all rows are of one length; then packed and plain are the same array.
"""

from operator import index as _index

cimport numpy as cnp
from cpython.buffer cimport PyBuffer_FillInfo
from cython cimport floating
from libc.math cimport exp
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memmove, memset

from kernels cimport *
from threads cimport *

cnp.import_array()


cdef extern from "stdlib.h" nogil:
    void *aligned_alloc(size_t alignment, size_t size)


# ---- instruction sets -----------------------------------------------------------------------------------------------

cdef const instruction_set *active = NULL


def available_isas():
    """Instruction sets that the kernels are compiled for and this machine runs, plainest first.

    Returns
    -------
    list of str

    Examples
    --------
    >>> available_isas()[0]
    'plain'
    """
    return [instruction_sets[k].name.decode() for k in range(instruction_set_count)
            if instruction_sets[k].is_supported()]


def use_isa(name):
    """Use the kernels of one instruction set in all calls from now on, in all threads.

    The widest one is used at the start, or that of the environment variable ``RNNCORE_ISA``.

    Parameters
    ----------
    name : str
        One of :func:`available_isas`.

    Raises
    ------
    ValueError
        This machine does not run it, or there is no such name.

    Examples
    --------
    >>> use_isa(available_isas()[-1])
    """
    global active
    for k in range(instruction_set_count):
        if instruction_sets[k].name.decode() == name and instruction_sets[k].is_supported():
            active = &instruction_sets[k]
            return
    raise ValueError(f"name must be one of {available_isas()}; got {name!r}")


def current_isa():
    return active.name.decode()


# The words of the Python interface.
KINDS = {"rnn": CELL_RNN, "gru": CELL_GRU, "lstm": CELL_LSTM}
ACTIVATIONS = {"tanh": ACTIVATION_TANH, "relu": ACTIVATION_RELU, "identity": ACTIVATION_IDENTITY}
OUTPUT_ACTIVATIONS = {"tanh": ACTIVATION_TANH, "identity": ACTIVATION_IDENTITY}
FORMS = {"reset_before": FORM_RESET_BEFORE, "reset_after": FORM_RESET_AFTER, "simplified": FORM_SIMPLIFIED}
UPDATES = {"new": UPDATE_NEW, "old": UPDATE_OLD}
RULES = {"sgd": RULE_SGD, "momentum": RULE_MOMENTUM, "squares": RULE_SQUARES, "adam": RULE_ADAM}
PEEPHOLES = {"current": PEEPHOLE_CURRENT, "previous": PEEPHOLE_PREVIOUS}


# ---- threads --------------------------------------------------------------------------------------------------------

cdef int threads = 1

# What a thread must have to do to be worth having; set_num_threads says it in words.
cdef double flops_per_thread
cdef Py_ssize_t rows_per_group, products_per_member, units_per_member


def set_cost_rule(double flops=12e6, Py_ssize_t rows=4, Py_ssize_t products=50_000, Py_ssize_t units=32):
    """The least of a call, of the rows of a batch, of a step between two barriers and of the hidden units that a thread
    joins for. The tests set small ones; no result depends on them."""
    global flops_per_thread, rows_per_group, products_per_member, units_per_member
    flops_per_thread, rows_per_group = max(flops, 1.), max(rows, 1)
    products_per_member, units_per_member = max(products, 1), max(units, 1)


def set_num_threads(n):
    """Use at most n threads in a call, from now on; never more than 64.

    At the start it is the number of cores that the process (and its container) may use, or the environment variable
    ``RNNCORE_NUM_THREADS``. A call takes one thread for each 12 million floating-point operations it has to do. It
    gives every thread rows of the batch, at least four; threads that are left over share the hidden units, where each
    has 50,000 multiplications a step or more; the two directions of a layer are computed side by side. Threads fall
    asleep a tenth of a millisecond after a call. No result depends on their number, not in one bit.

    Parameters
    ----------
    n : int

    Raises
    ------
    TypeError, ValueError
        n is no integer, or below 1.

    Examples
    --------
    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    global threads
    try:
        number = _index(n)
    except TypeError:
        raise TypeError(f"n must be an integer; got {n!r}") from None
    if number < 1:
        raise ValueError(f"n must be at least 1; got {number}")
    threads = min(number, MOST_THREADS)


def get_num_threads():
    """The number of threads that a call may use: see :func:`set_num_threads`.

    Returns
    -------
    int

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    return threads


cdef inline int threads_for(double flops) noexcept nogil:
    return <int>max(1., min(<double>threads, flops / flops_per_thread))


cdef inline Py_ssize_t share_begin(Py_ssize_t total, Py_ssize_t part, Py_ssize_t parts, Py_ssize_t unit) noexcept nogil:
    """Where a part begins if `total` is cut into `parts` nearly equal ones, at multiples of `unit`."""
    return min(total, (total * part // parts + unit - 1) // unit * unit)


cdef inline Py_ssize_t largest_share(Py_ssize_t total, Py_ssize_t parts, Py_ssize_t unit) noexcept nogil:
    """No part that share_begin begins is larger."""
    return min(total, ((total + parts - 1) // parts + unit - 1) // unit * unit)


# ---- memory ---------------------------------------------------------------------------------------------------------

cdef struct Memory:
    void *start
    size_t size


# Freed blocks that wait for the next call, oldest first; guarded by the GIL.
cdef enum:
    MOST_KEPT = 16
cdef size_t SMALLEST_KEPT = 1 << 16  # the allocator keeps smaller ones itself
cdef size_t LARGEST_KEPT = 1 << 28
cdef Memory[MOST_KEPT] kept
cdef int kept_count = 0
cdef size_t kept_size = 0


cdef Memory take_kept(int index) noexcept:
    global kept_count, kept_size
    cdef Memory taken = kept[index]
    kept_count -= 1
    kept_size -= taken.size
    memmove(&kept[index], &kept[index + 1], (kept_count - index) * sizeof(Memory))
    return taken


cdef int take_memory(size_t size, Memory *memory) except -1:
    """Memory of at least `size` bytes, aligned to 64, that an earlier call used: fresh memory costs a page fault every
    4 KB, a fifth of a training step at T=64 N=32 H=256. At most 256 MB are kept."""
    cdef int i, best = -1
    size = (size + 63) // 64 * 64
    if size >= SMALLEST_KEPT:
        for i in range(kept_count):
            if size <= kept[i].size <= 2 * size and (best < 0 or kept[i].size < kept[best].size):
                best = i
    if best >= 0:
        memory[0] = take_kept(best)
        return 0
    memory.size = size
    memory.start = aligned_alloc(64, max(size, 64))
    if memory.start == NULL:
        raise MemoryError(f"cannot allocate {size} bytes")
    return 0


cdef void give_memory(Memory memory) noexcept:
    global kept_count, kept_size
    if memory.start == NULL:
        return
    if not SMALLEST_KEPT <= memory.size <= LARGEST_KEPT:
        free(memory.start)
        return
    while kept_count == MOST_KEPT or kept_size + memory.size > LARGEST_KEPT:
        free(take_kept(0).start)
    kept[kept_count] = memory
    kept_count += 1
    kept_size += memory.size


cdef class Block:
    """Memory with the buffer protocol that outlives its arrays: see take_memory."""
    cdef Memory memory

    def __cinit__(self, size_t size):
        take_memory(size, &self.memory)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory.start, self.memory.size, 0, flags)

    def __dealloc__(self):
        give_memory(self.memory)


cdef inline Py_ssize_t padded(Py_ssize_t count) noexcept nogil:
    """Values of a scratch array: no two of them share a cache line."""
    return (count + 15) // 16 * 16


# ---- what describes a call ------------------------------------------------------------------------------------------

cdef struct Cell:
    int kind               # CELL_*
    int gates              # G, number of gate blocks
    int activation         # ACTIVATION_*: of the state (RNN) or of the cell state (LSTM)
    int variant            # FORM_* (GRU), PEEPHOLE_* (LSTM)
    int update             # UPDATE_* (GRU)
    int[4] places          # block of each gate, in the order of the equations: i f g o, r z n, z n


# A matrix (K, M) whose values lie row by row, or column by column; one of the steps is 1.
cdef struct Matrix:
    void *values
    Py_ssize_t row_step, column_step


cdef struct Layer:
    const kernel_table *kernels
    Cell cell
    Py_ssize_t D, H
    Matrix Wx              # (D, G H), by rows if there are ids
    Matrix Wh              # (H, G H)
    const void *b          # (G H,)
    const void *bhn        # (H,), GRU with FORM_RESET_AFTER
    const void *peephole   # (3, H), LSTM with a peephole


# Some rows of a batch.
cdef struct Batch:
    Py_ssize_t T, N
    Py_ssize_t first, count  # rows first .. first + count - 1 of the N
    const int64_t *rows      # (T,) falling: rows of the whole batch at each step, or NULL: N at every step
    const int64_t *offset    # (T,) first token of each step
    const char *resets       # (L,) state zeroed before this token, or NULL
    bint reverse


# How the work is cut: the rows of the batch into `groups`, the hidden units of each into `members` of it.
cdef struct Plan:
    int groups, members
    Py_ssize_t units                         # of a member; the last one may have fewer
    Py_ssize_t[MOST_THREADS + 1] first_row   # of each group


# One sequence call of one layer; L tokens. What a cell or call does not have is NULL.
cdef struct Call:
    Layer layer
    Batch batch
    Plan plan
    bint packs_x, packs_h        # Wx, Wh are packed, or read as they lie
    barrier *barriers            # of all threads, then of each group
    void *x                      # (L, D), or
    const int64_t *ids           # (L,)
    void *h0                     # (N, H), or zeros if NULL and nothing is kept; c0 as well
    void *c0
    void *gates                  # (L, G H) activated gates, kept for the backward pass; so are c, m (L, H)
    void *c
    void *m
    void *h                      # (L, H)
    void *h_n                    # (N, H), h0 on entry; c_n as well
    void *c_n
    void *dh                     # (L, H)
    void *dgates                 # (L, G H), filled for the products after the loop, as are the next four (L, H)
    void *dm
    void *rh
    void *h_before
    void *c_before
    void *dx                     # (L, D), or NULL: not wanted
    bint adds                    # dWh and, but for ids, dWx are added to; the other gradients of weights always are
    Matrix dWx                   # as the weights
    Matrix dWh
    void *db
    void *dbhn
    void *dpeephole
    void *dh0                    # (N, H): dL/dh_n on entry, dL/dh0 on return; dc0 as well
    void *dc0
    void *scratch
    Py_ssize_t packed_size, member_size   # of its parts: see set_forward_scratch, set_backward_scratch


# A right-hand factor (K, blocks M) of many products: packed, or as it lies.
cdef struct Factor:
    Py_ssize_t K, M
    int blocks
    Py_ssize_t step        # distance between the columns of two blocks in the product
    Matrix matrix          # its first block; column_step is 0 where it is packed
    Py_ssize_t values_step # distance between blocks


# What one thread does of a call. Wh is in two factors: the columns that multiply h' itself, and a GRU's candidate,
# which sees r h' or stands alone in m.
cdef struct Part:
    Batch batch
    Py_ssize_t first, units      # hidden units first .. first + units - 1
    bint leads                   # the first of its group
    int group_size
    barrier *group
    Factor x, gates, candidate


cdef inline Py_ssize_t rows_at(const Batch *s, Py_ssize_t t) noexcept nogil:
    return s.count if s.rows == NULL else max(<Py_ssize_t>0, min(s.count, s.rows[t] - s.first))


cdef inline Py_ssize_t offset_at(const Batch *s, Py_ssize_t t) noexcept nogil:
    return (t * s.N if s.rows == NULL else s.offset[t]) + s.first


cdef inline Py_ssize_t token_count(const Batch *s) noexcept nogil:
    """Of all rows."""
    return s.T * s.N if s.rows == NULL else s.offset[s.T - 1] + s.rows[s.T - 1]


cdef inline Py_ssize_t time_of(const Batch *s, Py_ssize_t step) noexcept nogil:
    """The time index of the step-th step in order of computation."""
    return s.T - 1 - step if s.reverse else step


cdef inline const char *resets_at(const Batch *s, Py_ssize_t t) noexcept nogil:
    """The reset flags of step t, or NULL if none is set."""
    cdef Py_ssize_t row, offset = offset_at(s, t)
    if s.resets != NULL:
        for row in range(rows_at(s, t)):
            if s.resets[offset + row]:
                return s.resets + offset
    return NULL


cdef inline floating *at(const void *array, Py_ssize_t offset, floating *type_) noexcept nogil:
    """array + offset, where an array that a cell does not have stays NULL."""
    return NULL if array == NULL else <floating *>array + offset


cdef inline void zero_rows(const char *flags, Py_ssize_t n, Py_ssize_t M, floating *rows, Py_ssize_t ld) noexcept nogil:
    """Zero the first M values of the flagged rows."""
    cdef Py_ssize_t row
    for row in range(n):
        if flags[row]:
            memset(rows + row * ld, 0, M * sizeof(floating))


cdef inline void copy_rows(Py_ssize_t n, Py_ssize_t M, const floating *source, floating *target,
                           Py_ssize_t ld) noexcept nogil:
    cdef Py_ssize_t row
    for row in range(n):
        memcpy(target + row * ld, source + row * ld, M * sizeof(floating))


cdef inline const floating *state_before(const Batch *s, Py_ssize_t step, Py_ssize_t H, const floating *states,
                                         const floating *initial, floating *scratch) noexcept nogil:
    """The state (n, H) that a step starts from, n = rows_at(its time).

    `states` is the block that the step before it wrote, `initial` (count, H) the state at the start. Rows that were not
    yet running (reverse, ragged) start from `initial`; reset rows start from zero; both are put together in `scratch`.
    """
    cdef Py_ssize_t t = time_of(s, step), n = rows_at(s, t)
    cdef Py_ssize_t running = rows_at(s, time_of(s, step - 1)) if step > 0 else 0
    cdef const char *resets = resets_at(s, t)
    if resets == NULL and running == 0:
        return initial
    if resets == NULL and running >= n:
        return states
    running = min(running, n)
    if running > 0:
        memcpy(scratch, states, running * H * sizeof(floating))
    memcpy(scratch + running * H, initial + running * H, (n - running) * H * sizeof(floating))
    if resets != NULL:
        zero_rows(resets, n, H, scratch, H)
    return scratch


# ---- products -------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t packed_size(Py_ssize_t K, Py_ssize_t M) noexcept nogil:
    return K * ((M + LARGEST_PANEL - 1) // LARGEST_PANEL * LARGEST_PANEL)


cdef inline Matrix transpose(Matrix B) noexcept nogil:
    cdef Matrix T
    T.values, T.row_step, T.column_step = B.values, B.column_step, B.row_step
    return T


cdef inline Matrix part_of(Matrix B, Py_ssize_t row, Py_ssize_t column, floating *type_) noexcept nogil:
    """B[row:, column:]"""
    B.values = at(B.values, row * B.row_step + column * B.column_step, type_)
    return B


cdef inline Factor factor(const kernel_table *k, Py_ssize_t K, Py_ssize_t M, int blocks, Py_ssize_t step, Matrix matrix,
                          floating **room, int part, int parts) noexcept nogil:
    """Blocks of M columns, `step` apart, of a matrix of K rows; as they lie where room is NULL.

    Otherwise they stand packed in *room, which moves on; `parts` threads pack a part of the columns each.
    """
    cdef Factor f
    cdef Py_ssize_t begin = share_begin(M, part, parts, LARGEST_PANEL)
    cdef Py_ssize_t end = share_begin(M, part + 1, parts, LARGEST_PANEL)
    cdef const floating *B = <const floating *>matrix.values
    cdef int block
    f.K = K
    f.M = M
    f.blocks = blocks
    f.step = step
    f.matrix = matrix
    f.values_step = step * matrix.column_step
    if room != NULL:
        f.matrix.values = room[0]
        f.matrix.column_step = 0
        f.values_step = packed_size(K, M)
        for block in range(blocks):
            if begin < end:
                k.pack(K, end - begin, B + (block * step + begin) * matrix.column_step, matrix.row_step,
                       matrix.column_step, room[0] + begin * K)
            room[0] += f.values_step
    return f


cdef inline void product_from(const kernel_table *k, Py_ssize_t m, const floating *A, Py_ssize_t lda, const Factor *f,
                              const floating *start, Py_ssize_t ldstart, floating *C, Py_ssize_t ldc) noexcept nogil:
    """C (m, M) = start + A (m, K) B (K, M), in each block of columns; start as in kernels.h."""
    cdef int block
    cdef const floating *values = <const floating *>f.matrix.values
    for block in range(f.blocks):
        if f.matrix.column_step == 0:
            k.multiply_packed(m, f.K, f.M, A, lda, values, start, ldstart, C, ldc)
        else:
            k.multiply(m, f.K, f.M, A, lda, values, f.matrix.row_step, f.matrix.column_step, start, ldstart, C, ldc)
        values += f.values_step
        C += f.step
        if start != NULL:
            start += f.step


cdef inline void product(const kernel_table *k, Py_ssize_t m, const floating *A, Py_ssize_t lda, const Factor *f,
                         floating *C, Py_ssize_t ldc) noexcept nogil:
    """C (m, M) += A (m, K) B (K, M), in each block of columns"""
    product_from(k, m, A, lda, f, <const floating *>C, ldc, C, ldc)


cdef Py_ssize_t gradients_work(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M) noexcept nogil:
    """Values of scratch that serve weight_gradients on every instruction set."""
    cdef Py_ssize_t work = 0
    cdef int i
    for i in range(instruction_set_count):
        work = max(work, instruction_sets[i].f32.weight_gradients_work(m, K, M),
                   instruction_sets[i].f64.weight_gradients_work(m, K, M))
    return padded(work)


# ---- how a call is cut into parts -----------------------------------------------------------------------------------

# The input projection of so many rows at a time is one product whose result is still in cache when its steps come.
cdef enum:
    PROJECTION_ROWS = 128

# Packing costs as much as the products of some thirty rows. It pays from so many steps on, since a step of few rows
# reads packed weights at twice the speed, or from so many tokens on. It does not for one row and weights that do not
# fit the second-level cache: read as they lie, they come as fast.
cdef enum:
    PACK_STEPS = 8
    PACK_TOKENS = 64
    FAR_VALUES = 1 << 19


cdef inline bint packing_pays(Py_ssize_t T, Py_ssize_t N) noexcept nogil:
    return T >= PACK_STEPS or T * N >= PACK_TOKENS


cdef inline void choose_packing(Call *f) noexcept nogil:
    cdef Py_ssize_t T = f.batch.T, N = f.batch.N
    f.packs_h = packing_pays(T, N) and not (N == 1 and f.layer.H * f.layer.H * f.layer.cell.gates >= FAR_VALUES)
    # One projection packs the panels as it goes.
    f.packs_x = packing_pays(T, N) and (T * N > PROJECTION_ROWS or f.plan.groups > 1)
    # What lies column by column is laid out anew for every product: once is enough.
    f.packs_h = f.packs_h or (f.layer.Wh.column_step != 1 and T > 1)
    f.packs_x = f.ids == NULL and (f.packs_x or (f.layer.Wx.column_step != 1 and T * N > PROJECTION_ROWS))


cdef inline Py_ssize_t gated_columns(const Layer *w) noexcept nogil:
    """Columns of Wh that multiply h' itself."""
    return 2 * w.H if w.cell.kind == CELL_GRU and w.cell.variant != FORM_SIMPLIFIED else w.cell.gates * w.H


cdef inline double flops_of(const Layer *w, const Batch *s, bint ids) noexcept nogil:
    return 2. * token_count(s) * ((0 if ids else w.D) + w.H) * w.cell.gates * w.H


cdef Py_ssize_t tokens_before_row(const Batch *s, Py_ssize_t row) noexcept nogil:
    cdef Py_ssize_t t, tokens = 0
    if s.rows == NULL:
        return s.T * row
    for t in range(s.T):
        tokens += min(s.rows[t], row)
    return tokens


cdef void make_plan(Plan *plan, const Layer *w, const Batch *s, int size) noexcept nogil:
    """For a team of that size."""
    cdef Py_ssize_t L = token_count(s), low, high, middle
    cdef Py_ssize_t step = s.N * w.cell.gates * w.H * w.H
    cdef int group
    if size == 1:
        plan.groups = plan.members = 1
        plan.units = w.H
        plan.first_row[0] = 0
        plan.first_row[1] = s.N
        return
    plan.groups = <int>max(<Py_ssize_t>1, min(size, s.N // rows_per_group))
    plan.members = <int>max(<Py_ssize_t>1, min(size // plan.groups, min(step // plan.groups // products_per_member,
                                                                       w.H // units_per_member)))
    plan.units = w.H
    if plan.members > 1:
        plan.units = ((w.H + plan.members - 1) // plan.members + units_per_member - 1) // units_per_member
        plan.units *= units_per_member
        plan.members = <int>((w.H + plan.units - 1) // plan.units)
    # Groups of nearly equal numbers of tokens.
    plan.first_row[0] = 0
    for group in range(1, plan.groups):
        low = plan.first_row[group - 1]
        high = s.N
        while low < high:
            middle = (low + high) // 2
            if tokens_before_row(s, middle) < L * group // plan.groups:
                low = middle + 1
            else:
                high = middle
        plan.first_row[group] = low
    plan.first_row[plan.groups] = s.N


cdef inline int plan_size(const Plan *plan) noexcept nogil:
    return plan.groups * plan.members


cdef inline Py_ssize_t most_rows(const Plan *plan) noexcept nogil:
    """Of a group."""
    cdef Py_ssize_t most = 0
    cdef int group
    for group in range(plan.groups):
        most = max(most, plan.first_row[group + 1] - plan.first_row[group])
    return most


cdef void begin_part(Part *p, const Call *f, int member) noexcept nogil:
    """All of a part but its factors."""
    cdef int group = member // f.plan.members
    p.leads = member % f.plan.members == 0
    p.group_size = f.plan.members
    p.group = NULL if f.barriers == NULL else f.barriers + 1 + group
    p.first = member % f.plan.members * f.plan.units
    p.units = min(f.plan.units, f.layer.H - p.first)
    p.batch = f.batch
    p.batch.first = f.plan.first_row[group]
    p.batch.count = f.plan.first_row[group + 1] - p.batch.first
    while p.batch.T > 0 and rows_at(&p.batch, p.batch.T - 1) == 0:
        p.batch.T -= 1


cdef inline void meet(const Part *p) noexcept nogil:
    wait_for_all(p.group, p.group_size)


# ---- forward --------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t steps_per_projection(const Batch *s) noexcept nogil:
    # The tokens of several steps are one piece only if it is all rows.
    return max(<Py_ssize_t>1, PROJECTION_ROWS // s.N) if s.count == s.N else 1


cdef inline Py_ssize_t prepared_size(const Call *f) noexcept nogil:
    """Room that prepare_forward needs for each member of a group."""
    cdef Py_ssize_t H = f.layer.H, D = f.layer.D, units = f.plan.units, blocks = f.layer.cell.gates, columns
    if units == H:
        columns = gated_columns(&f.layer)
        return ((packed_size(H, columns) + packed_size(H, blocks * H - columns) if f.packs_h else 0)
                + (packed_size(D, blocks * H) if f.packs_x else 0))
    return blocks * ((packed_size(H, units) if f.packs_h else 0) + (packed_size(D, units) if f.packs_x else 0))


cdef Py_ssize_t set_forward_scratch(Call *f) noexcept nogil:
    """-> number of values of the scratch: the packed weights of each member, then of each thread four states and more.
    """
    cdef Py_ssize_t H = f.layer.H, rows = most_rows(&f.plan)
    f.packed_size = padded(prepared_size(f))
    f.member_size = 3 * padded(rows * H)
    if f.gates == NULL:
        f.member_size += 2 * padded(rows * H)
        if f.layer.cell.kind != CELL_RNN:
            f.member_size += padded(max(rows, min(f.batch.T * f.batch.N, <Py_ssize_t>PROJECTION_ROWS))
                                    * f.layer.cell.gates * H)
    return f.plan.members * f.packed_size + plan_size(&f.plan) * f.member_size


cdef inline void *zero_state(const Call *f, void *state, char **room, size_t item) noexcept nogil:
    """The state, or zeros from the scratch where it is NULL."""
    cdef size_t size = padded(f.batch.N * f.layer.H) * item
    if state != NULL:
        return state
    memset(room[0], 0, size)
    room[0] += size
    return room[0] - size


cdef void prepare_forward(Part *p, const Call *f, floating *packed, int part, int parts) noexcept nogil:
    """Set the factors. Ids take rows of Wx as it lies."""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * H, columns = gated_columns(w)
    cdef Matrix Wx = part_of(w.Wx, 0, p.first, packed)
    cdef Matrix Wh = part_of(w.Wh, 0, p.first, packed)
    cdef Matrix candidate = part_of(Wh, 0, columns, packed)
    cdef floating **room_h = &packed if f.packs_h else NULL
    cdef floating **room_x = &packed if f.packs_x else NULL
    if p.units == H:
        p.gates = factor(w.kernels, H, columns, 1, 0, Wh, room_h, part, parts)
        p.candidate = factor(w.kernels, H, GH - columns, 1, 0, candidate, room_h, part, parts)
        p.x = factor(w.kernels, w.D, GH, 1, 0, Wx, room_x, part, parts)
    else:
        p.gates = factor(w.kernels, H, p.units, columns // H, H, Wh, room_h, part, parts)
        p.candidate = factor(w.kernels, H, p.units, (GH - columns) // H, H, candidate, room_h, part, parts)
        p.x = factor(w.kernels, w.D, p.units, w.cell.gates, H, Wx, room_x, part, parts)


cdef void project(const Call *f, const Part *p, Py_ssize_t begin, Py_ssize_t n, floating *gates) noexcept nogil:
    """gates (n, GH) = x Wx + b of the tokens from `begin` on"""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t GH = w.cell.gates * w.H
    cdef int block
    if f.ids == NULL:
        product_from(w.kernels, n, <const floating *>f.x + begin * w.D, w.D, &p.x, <const floating *>w.b + p.first, 0,
                     gates + p.first, GH)
        return
    for block in range(p.x.blocks):
        w.kernels.gather_rows(n, p.x.M, at(w.b, p.first + block * p.x.step, gates),
                              at(w.Wx.values, p.first + block * p.x.step, gates), GH, f.ids + begin,
                              gates + p.first + block * p.x.step, GH)


cdef void step_forward(const Layer *w, const Part *p, Py_ssize_t n, const floating *h_prev, const floating *c_prev,
                       floating *gates, floating *c, floating *m, floating *rh, floating *h) noexcept nogil:
    """One step: gates (n, G H) hold x Wx + b and become the activated gates (RNN: gates is h)."""
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H, units = p.units
    cdef int G = w.cell.gates
    cdef const kernel_table *k = w.kernels
    gates += p.first
    h += p.first
    # gates (n,GH) += h' (n,H) Wh (H,GH), of a GRU with reset gate only r, z (n,2H)
    product(k, n, h_prev, H, &p.gates, gates, GH)
    if w.cell.kind == CELL_RNN:
        k.rnn_forward(n, units, H, w.cell.activation, h)
    elif w.cell.kind == CELL_LSTM:
        k.lstm_forward(n, units, H, w.cell.variant, w.cell.activation, w.cell.places, gates, c_prev + p.first,
                       at(w.peephole, p.first, h), c + p.first, h)
    elif w.cell.variant == FORM_RESET_BEFORE:
        # n (n,H) += (r h') (n,H) Wh[:, 2H:]
        k.gru_gates(n, units, H, G, w.cell.places, gates, h_prev + p.first, rh + p.first)
        meet(p)
        product(k, n, <const floating *>rh, H, &p.candidate, gates + 2 * H, GH)
        k.gru_update(n, units, H, G, w.cell.update, w.cell.places, gates, NULL, h_prev + p.first, h)
    elif w.cell.variant == FORM_RESET_AFTER:
        # m (n,H) = bhn + h' (n,H) Wh[:, 2H:]
        m += p.first
        product_from(k, n, h_prev, H, &p.candidate, <const floating *>w.bhn + p.first, 0, m, H)
        k.gru_gates(n, units, H, G, w.cell.places, gates, h_prev + p.first, NULL)
        k.gru_update(n, units, H, G, w.cell.update, w.cell.places, gates, m, h_prev + p.first, h)
    else:
        k.gru_gates(n, units, H, G, w.cell.places, gates, h_prev + p.first, NULL)
        k.gru_update(n, units, H, G, w.cell.update, w.cell.places, gates, NULL, h_prev + p.first, h)


cdef void forward_steps(const Call *f, const Part *p, floating *own, floating *shared) noexcept nogil:
    """h and the final states of the part's rows and units, after prepare_forward.

    own, shared: scratch of the thread and of its group, f.member_size values each; they may be the same.
    """
    cdef const Layer *w = &f.layer
    cdef const Batch *s = &p.batch
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H, state = padded(s.count * H)
    cdef Py_ssize_t step, t, n, low, high, begin, chunk_end = 0, first_token = 0, running
    cdef bint keep = f.gates != NULL or w.cell.kind == CELL_RNN, is_lstm = w.cell.kind == CELL_LSTM
    cdef floating *h_scratch = own
    cdef floating *c_scratch = own + state
    cdef floating *rh = shared + 2 * state
    cdef floating *spare = shared + 3 * state
    cdef floating *projected = at(f.h if w.cell.kind == CELL_RNN else f.gates, 0, own) if keep else spare + 2 * state
    cdef floating *h = <floating *>f.h
    cdef floating *h_n = <floating *>f.h_n + s.first * H
    cdef floating *c_n = at(f.c_n, s.first * H, own)
    cdef const floating *h0 = <const floating *>f.h0 + s.first * H
    cdef const floating *c0 = at(f.c0, s.first * H, own)
    cdef const floating *h_prev = h0
    cdef const floating *c_prev = c0
    cdef floating *c_t = NULL
    cdef floating *m_t = NULL
    for step in range(s.T):
        if step == chunk_end:
            # gates (rows of several steps, GH) = x Wx + b
            chunk_end = min(s.T, step + steps_per_projection(s))
            low = time_of(s, chunk_end - 1 if s.reverse else step)
            high = time_of(s, step if s.reverse else chunk_end - 1)
            begin = offset_at(s, low)
            first_token = 0 if keep else begin
            project(f, p, begin, offset_at(s, high) + rows_at(s, high) - begin, projected + (begin - first_token) * GH)
        t = time_of(s, step)
        n = rows_at(s, t)
        begin = offset_at(s, t)
        h_prev = state_before(s, step, H, h_prev, h0, h_scratch)
        if is_lstm:
            c_prev = state_before(s, step, H, c_prev, c0, c_scratch)
            c_t = <floating *>f.c + begin * H if keep else spare + (step & 1) * state
        elif w.cell.variant == FORM_RESET_AFTER:
            m_t = <floating *>f.m + begin * H if keep else spare
        step_forward(w, p, n, h_prev, c_prev, projected + (begin - first_token) * GH, c_t, m_t, rh, h + begin * H)
        meet(p)
        h_prev = h + begin * H
        c_prev = c_t
        # Rows that end with this step leave their state behind.
        running = 0 if step == s.T - 1 else rows_at(s, time_of(s, step + 1))
        if running < n and p.leads:
            memcpy(h_n + running * H, h_prev + running * H, (n - running) * H * sizeof(floating))
            if is_lstm:
                memcpy(c_n + running * H, c_prev + running * H, (n - running) * H * sizeof(floating))


cdef void forward_part(const Call *f, int member, floating *scratch) noexcept nogil:
    cdef Part p
    cdef const Plan *plan = &f.plan
    cdef floating *own = scratch + plan.members * f.packed_size
    begin_part(&p, f, member)
    prepare_forward(&p, f, scratch + member % plan.members * f.packed_size, member // plan.members, plan.groups)
    if plan.groups > 1:
        wait_for_all(f.barriers, plan_size(plan))
    forward_steps(f, &p, own + member * f.member_size, own + (member - member % plan.members) * f.member_size)


# ---- backward -------------------------------------------------------------------------------------------------------

cdef Py_ssize_t set_backward_scratch(Call *f) noexcept nogil:
    """-> number of values of the scratch: the packed transposes of Wx and, for each member, Wh; then of each thread
    three states, or what weight_gradients needs."""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t L = token_count(&f.batch), GH = w.cell.gates * w.H, state = padded(most_rows(&f.plan) * w.H)
    cdef Py_ssize_t columns = largest_share(GH, plan_size(&f.plan), LARGEST_PANEL)
    f.packed_size = padded(packed_size(GH, f.plan.units))
    f.member_size = max(3 * state, products_work(max(w.D, w.H), L, columns,
                                                 f.dWx.column_step != 1 or f.dWh.column_step != 1))
    return ((0 if f.dx == NULL else padded(packed_size(GH, w.D))) + f.plan.members * f.packed_size
            + plan_size(&f.plan) * f.member_size)


cdef void prepare_backward(Part *p, const Call *f, floating *packed, int part, int parts) noexcept nogil:
    """Set the recurrent factors, transposed."""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t GH = w.cell.gates * w.H, columns = gated_columns(w)
    cdef Matrix Wh = transpose(part_of(w.Wh, p.first, 0, packed))
    cdef floating *room = packed
    p.gates = factor(w.kernels, columns, p.units, 1, 0, Wh, &room, part, parts)
    p.candidate = factor(w.kernels, GH - columns, p.units, 1, 0, part_of(Wh, columns, 0, packed), &room, part, parts)


cdef void step_backward(const Layer *w, const Part *p, Py_ssize_t n, const floating *h_prev, const floating *c_prev,
                        const floating *gates, const floating *c, const floating *m, const floating *h, floating *dh,
                        floating *dc, floating *dgates, floating *dm, floating *drh, floating *rh) noexcept nogil:
    """The step of step_forward in reverse: dh (n,H) and dc hold dL/dh, dL/dc, and become dL/dh', dL/dc'."""
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H, u = p.first, units = p.units
    cdef int G = w.cell.gates
    cdef const kernel_table *k = w.kernels
    dh += u
    if w.cell.kind == CELL_RNN:
        k.rnn_backward(n, units, H, w.cell.activation, h + u, dh, dgates + u)
    elif w.cell.kind == CELL_LSTM:
        k.lstm_backward(n, units, H, w.cell.variant, w.cell.activation, w.cell.places, gates + u, c_prev + u, c + u,
                        at(w.peephole, u, dh), dh, dc + u, dgates + u)
    elif w.cell.variant == FORM_RESET_BEFORE:
        k.gru_update_backward(n, units, H, G, w.cell.update, w.cell.places, gates + u, NULL, h_prev + u, dh,
                              dgates + u, NULL)
        # d(r h') (n,H) = dn (n,H) Wh[:, 2H:]'
        meet(p)
        product_from(k, n, <const floating *>dgates + 2 * H, GH, &p.candidate, NULL, 0, drh + u, H)
        k.gru_reset_backward(n, units, H, w.cell.places, gates + u, h_prev + u, drh + u, dh, dgates + u, rh + u)
    else:
        k.gru_update_backward(n, units, H, G, w.cell.update, w.cell.places, gates + u, at(m, u, dh), h_prev + u, dh,
                              dgates + u, at(dm, u, dh))
    meet(p)
    if w.cell.kind == CELL_GRU and w.cell.variant == FORM_RESET_AFTER:
        # dh' (n,H) += dm (n,H) Wh[:, 2H:]'
        product(k, n, <const floating *>dm, H, &p.candidate, dh, H)
    # dh' (n,H) += dgates (n,GH) Wh' (GH,H), of a GRU with reset gate only dr, dz (n,2H); of others it is all of dh'
    product_from(k, n, <const floating *>dgates, GH, &p.gates,
                 <const floating *>dh if w.cell.kind == CELL_GRU else NULL, H, dh, H)


cdef void backward_steps(const Call *f, const Part *p, floating *own, floating *shared) noexcept nogil:
    """dh0, dc0 and what the products after the loop need, of the part's rows and units, after prepare_backward."""
    cdef const Layer *w = &f.layer
    cdef const Batch *s = &p.batch
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H, state = padded(s.count * H), u = p.first
    cdef Py_ssize_t step, t, n, begin, before
    cdef const kernel_table *k = w.kernels
    cdef const floating *h0 = <const floating *>f.h0 + s.first * H
    cdef const floating *c0 = at(f.c0, s.first * H, own)
    cdef floating *dh = <floating *>f.dh0 + s.first * H
    cdef floating *dc = at(f.dc0, s.first * H, own)
    cdef const floating *h_prev
    cdef const floating *c_prev = NULL
    cdef const char *resets
    for step in range(s.T - 1, -1, -1):
        t = time_of(s, step)
        n = rows_at(s, t)
        begin = offset_at(s, t)
        before = offset_at(s, time_of(s, step - 1)) if step > 0 else 0
        h_prev = state_before(s, step, H, <const floating *>f.h + before * H, h0, own)
        if w.cell.kind == CELL_LSTM:
            c_prev = state_before(s, step, H, <const floating *>f.c + before * H, c0, own + state)
        if f.h_before != NULL:
            copy_rows(n, p.units, h_prev + u, <floating *>f.h_before + begin * H + u, H)
        if f.c_before != NULL:
            copy_rows(n, p.units, c_prev + u, <floating *>f.c_before + begin * H + u, H)
        if f.dh != NULL:
            k.add(n, p.units, <const floating *>f.dh + begin * H + u, H, dh + u, H)
        step_backward(w, p, n, h_prev, c_prev, at(f.gates, begin * GH, own), at(f.c, begin * H, own),
                      at(f.m, begin * H, own), at(f.h, begin * H, own), dh, dc, at(f.dgates, begin * GH, own),
                      at(f.dm, begin * H, own), shared + 2 * state, at(f.rh, begin * H, own))
        resets = resets_at(s, t)
        if resets != NULL:
            zero_rows(resets, n, p.units, dh + u, H)
            if w.cell.kind == CELL_LSTM:
                zero_rows(resets, n, p.units, dc + u, H)


# Sums over all tokens go through them in the order of the backward pass, last step first, as they would if the sequence
# were cut into pieces that add to the same gradients one after the other.
cdef struct Tokens:
    Py_ssize_t first, step, count


cdef inline Tokens all_tokens(const Batch *s) noexcept nogil:
    cdef Tokens tokens
    tokens.count = token_count(s)
    tokens.first = 0 if s.reverse else tokens.count - 1
    tokens.step = 1 if s.reverse else -1
    return tokens


# C (m, M) (+)= sum over the tokens of their row of A (L, m), dense, times something of M columns.
cdef struct Product:
    const void *A
    Py_ssize_t m, M
    Matrix C
    bint adds


cdef inline Product product_of(const floating *A, Py_ssize_t m, Py_ssize_t M, Matrix C, bint adds) noexcept nogil:
    cdef Product p
    p.A, p.m, p.M, p.C, p.adds = A, m, M, C, adds
    return p


cdef void add_products(const kernel_table *k, Tokens tokens, Py_ssize_t M, const floating *b, Py_ssize_t ldb,
                       const Product *products, int count, floating *sums, floating *work) noexcept nogil:
    """C (m, M) += sum over the tokens of a (m,) b (M,), of each of at most two products;   sums (M,) += b"""
    cdef weight_gradient[2] out
    cdef weight_gradient swapped
    cdef Product p
    cdef int i, by_rows = 0
    b += tokens.first * ldb
    ldb *= tokens.step
    for i in range(count):
        p = products[i]
        p.A = <const floating *>p.A + tokens.first * p.m
        if p.C.column_step == 1:
            out[by_rows].adds, out[by_rows].m, out[by_rows].M = p.adds, p.m, p.M
            out[by_rows].A, out[by_rows].lda = p.A, tokens.step * p.m
            out[by_rows].C, out[by_rows].ldc = p.C.values, p.C.row_step
            by_rows += 1
        else:
            # What lies by columns is C' (M, m), the sum of b a.
            swapped.adds, swapped.m, swapped.M = p.adds, p.M, p.m
            swapped.A, swapped.lda, swapped.C, swapped.ldc = b, ldb, p.C.values, p.C.column_step
            k.weight_gradients(tokens.count, p.m, p.A, tokens.step * p.m, &swapped, 1, NULL, work)
    if by_rows > 0:
        k.weight_gradients(tokens.count, M, b, ldb, out, by_rows, sums, work)
    elif sums != NULL:
        k.column_sums(tokens.count, M, b, ldb, sums)


cdef inline Py_ssize_t products_work(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M, bint by_columns) noexcept nogil:
    """Values of scratch for add_products of K tokens and matrices (m, M) at most."""
    return max(gradients_work(m, K, M), gradients_work(M, K, m) if by_columns else 0)


# A state before each token: an array of its own, or the states (L, H) shifted by one step behind `initial` (N, H).
cdef struct StatesBefore:
    const void *own
    const void *states
    const void *initial


# Some tokens, and the array whose row of a token is the state before it.
cdef struct Piece:
    Tokens tokens
    const void *states


cdef int pieces_of(const Batch *s, StatesBefore before, Py_ssize_t H, Piece *pieces, floating *type_) noexcept nogil:
    """-> number of pieces."""
    cdef Py_ssize_t L = token_count(s), first = L - s.N if s.reverse else 0
    pieces[0].tokens = pieces[1].tokens = all_tokens(s)
    if before.own != NULL:
        pieces[0].states = before.own
        return 1
    # All but the first step of the computation, then that.
    pieces[0].tokens.count = L - s.N
    pieces[1].tokens.count = s.N
    pieces[1].tokens.first = first if s.reverse else s.N - 1
    pieces[0].states = <const floating *>before.states + (s.N if s.reverse else -s.N) * H
    pieces[1].states = <const floating *>before.initial - first * H
    return 2


cdef void weight_gradients(const Call *f, int part, int parts, floating *work) noexcept nogil:
    """A part of the columns of dWx, dWh, db, dbhn and dpeephole, after backward_steps."""
    cdef const Layer *w = &f.layer
    cdef const Batch *s = &f.batch
    cdef const kernel_table *k = w.kernels
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H, columns = gated_columns(w)
    cdef Py_ssize_t begin = share_begin(GH, part, parts, LARGEST_PANEL)
    cdef Py_ssize_t end = share_begin(GH, part + 1, parts, LARGEST_PANEL)
    cdef Py_ssize_t unit = share_begin(H, part, parts, LARGEST_PANEL)
    cdef Py_ssize_t units = share_begin(H, part + 1, parts, LARGEST_PANEL) - unit
    cdef Tokens tokens = all_tokens(s)
    cdef Piece[2] pieces
    cdef const floating *states
    cdef StatesBefore before
    cdef const floating *dgates = <const floating *>f.dgates
    cdef const floating *dm = <const floating *>f.dm
    cdef Matrix candidate = part_of(f.dWh, 0, 2 * H + unit, work)
    cdef Product[2] products
    cdef int i, count
    cdef bint adds = f.adds
    # dWx (D,GH) = x' (D,L) dgates (L,GH)
    # dWh (H,GH) = h'' (H,L) dgates (L,GH), with r h' or dm in the candidate's block of a GRU
    # db (GH,) = sum of dgates over the tokens
    if f.ids != NULL:
        k.scatter_add(tokens.count, end - begin, f.ids + tokens.first, tokens.step,
                      dgates + tokens.first * GH + begin, tokens.step * GH, at(f.dWx.values, begin, work), GH)
    before.own, before.states, before.initial = f.h_before, f.h, f.h0
    for i in range(pieces_of(s, before, H, pieces, work)):
        states = <const floating *>pieces[i].states
        count = 0
        if begin < columns:
            products[count] = product_of(states, H, min(end, columns) - begin, part_of(f.dWh, 0, begin, work), adds)
            count += 1
        if f.ids == NULL:
            products[count] = product_of(<const floating *>f.x, w.D, end - begin, part_of(f.dWx, 0, begin, work), adds)
            count += 1
        add_products(k, pieces[i].tokens, end - begin, dgates + begin, GH, products, count, at(f.db, begin, work), work)
        if dm != NULL:
            products[0] = product_of(states, H, units, candidate, adds)
            add_products(k, pieces[i].tokens, units, dm + unit, H, products, 1, at(f.dbhn, unit, work), work)
        adds = adds or pieces[i].tokens.count > 0
    if f.rh != NULL:
        products[0] = product_of(<const floating *>f.rh, H, units, candidate, f.adds)
        add_products(k, tokens, units, dgates + 2 * H + unit, GH, products, 1, <floating *>NULL, work)
    if f.dpeephole != NULL:
        # rows i, f: sum of da c';   row o: sum of da_o c, or da_o c'
        before.own, before.states, before.initial = f.c_before, f.c, f.c0
        for i in range(pieces_of(s, before, H, pieces, work)):
            states = <const floating *>pieces[i].states
            peephole_sums(f, pieces[i].tokens, 0, states, unit, units)
            peephole_sums(f, pieces[i].tokens, 1, states, unit, units)
            if w.cell.variant == PEEPHOLE_PREVIOUS:
                peephole_sums(f, pieces[i].tokens, 2, states, unit, units)
        if w.cell.variant == PEEPHOLE_CURRENT:
            peephole_sums(f, tokens, 2, <const floating *>f.c, unit, units)


cdef void peephole_sums(const Call *f, Tokens tokens, int row, const floating *c, Py_ssize_t unit,
                        Py_ssize_t units) noexcept nogil:
    """dpeephole[row] += sum over the tokens of da c, with da of gate i, f, o for row 0, 1, 2"""
    cdef Py_ssize_t H = f.layer.H, GH = 4 * H, block = f.layer.cell.places[3 if row == 2 else row] * H + unit
    f.layer.kernels.product_sums(tokens.count, units, <const floating *>f.dgates + tokens.first * GH + block,
                                 tokens.step * GH, c + tokens.first * H + unit, tokens.step * H,
                                 <floating *>f.dpeephole + row * H + unit)


cdef void backward_part(const Call *f, int member, floating *scratch) noexcept nogil:
    cdef Part p
    cdef const Layer *w = &f.layer
    cdef const Plan *plan = &f.plan
    cdef int parts = plan_size(plan)
    cdef Py_ssize_t L = token_count(&f.batch), D = w.D, GH = w.cell.gates * w.H
    cdef Py_ssize_t begin = share_begin(L, member, parts, 8), end = share_begin(L, member + 1, parts, 8)
    cdef floating *packed = scratch
    cdef floating *own
    begin_part(&p, f, member)
    if f.dx != NULL:
        p.x = factor(w.kernels, GH, D, 1, 0, transpose(w.Wx), &scratch, member, parts)
        scratch = packed + padded(packed_size(GH, D))
    prepare_backward(&p, f, scratch + member % plan.members * f.packed_size, member // plan.members, plan.groups)
    if plan.groups > 1:
        wait_for_all(f.barriers, parts)
    own = scratch + plan.members * f.packed_size
    backward_steps(f, &p, own + member * f.member_size, own + (member - member % plan.members) * f.member_size)
    wait_for_all(f.barriers, parts)
    weight_gradients(f, member, parts, own + member * f.member_size)
    # dx (L,D) = dgates (L,GH) Wx' (GH,D)
    if f.dx != NULL:
        product_from(w.kernels, end - begin, at(f.dgates, begin * GH, own), GH, &p.x, NULL, 0,
                     at(f.dx, begin * D, own), D)


# ---- called by rnncore.functional -----------------------------------------------------------------------------------

cdef inline void *address(array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline Matrix matrix_of(array) noexcept:
    """An array (K, M) in C or in Fortran order; NULL for None."""
    cdef Matrix matrix
    memset(&matrix, 0, sizeof(Matrix))
    if array is not None:
        matrix.values = address(array)
        matrix.row_step, matrix.column_step = cnp.PyArray_DIM(<cnp.ndarray>array, 1), 1
        if not cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, cnp.NPY_ARRAY_C_CONTIGUOUS):
            matrix.row_step, matrix.column_step = 1, cnp.PyArray_DIM(<cnp.ndarray>array, 0)
    return matrix


cdef inline bint is_double(array) noexcept:
    return cnp.PyArray_TYPE(<cnp.ndarray>array) == cnp.NPY_DOUBLE


cdef inline bint is_plain(array, int number, int axes, Py_ssize_t first, Py_ssize_t second) noexcept:
    """A dense array of that dtype, whose last axes are as long as said."""
    return (cnp.PyArray_CheckExact(array) and cnp.PyArray_TYPE(<cnp.ndarray>array) == number
            and cnp.PyArray_NDIM(<cnp.ndarray>array) == axes
            and cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, cnp.NPY_ARRAY_CARRAY_RO)
            and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>array)
            and cnp.PyArray_DIM(<cnp.ndarray>array, axes - 1) == second
            and (axes == 1 or cnp.PyArray_DIM(<cnp.ndarray>array, axes - 2) == first))


cdef inline bint is_matrix(array, int number, Py_ssize_t rows, Py_ssize_t columns) noexcept:
    """An array (rows, columns) of that dtype, dense in C or in Fortran order."""
    return (cnp.PyArray_CheckExact(array) and cnp.PyArray_TYPE(<cnp.ndarray>array) == number
            and cnp.PyArray_NDIM(<cnp.ndarray>array) == 2 and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>array)
            and (cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, cnp.NPY_ARRAY_CARRAY_RO)
                 or cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, cnp.NPY_ARRAY_FARRAY_RO))
            and cnp.PyArray_DIM(<cnp.ndarray>array, 0) == rows
            and cnp.PyArray_DIM(<cnp.ndarray>array, 1) == columns)


def fits(Py_ssize_t G, x, Wx, Wh, b, h0, c0, bhn, peephole):
    """Whether x (T,N,D), the weights and the states are dense arrays of one dtype, float32 or float64, whose shapes go
    together, Wx and Wh in C or in Fortran order; or x are int64 ids (T,N), in any order and range, and Wx in C order.
    h0, c0, bhn, peephole may be None. Says nothing about what is wrong: see rnncore.functional."""
    cdef int number
    cdef bint ids
    cdef Py_ssize_t N, D, GH
    if not cnp.PyArray_CheckExact(Wx) or cnp.PyArray_NDIM(<cnp.ndarray>Wx) != 2 or not cnp.PyArray_CheckExact(x):
        return False
    ids = cnp.PyArray_NDIM(<cnp.ndarray>x) == 2 and cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.NPY_INT64
    if not ids and cnp.PyArray_NDIM(<cnp.ndarray>x) != 3:
        return False
    number = cnp.PyArray_TYPE(<cnp.ndarray>Wx)
    N = cnp.PyArray_DIM(<cnp.ndarray>x, 1)
    D = cnp.PyArray_DIM(<cnp.ndarray>(Wx if ids else x), 0 if ids else 2)
    GH = cnp.PyArray_DIM(<cnp.ndarray>Wx, 1)
    return ((number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE) and GH % G == 0
            and (is_plain(Wx, number, 2, D, GH) if ids else is_plain(x, number, 3, N, D))
            and is_matrix(Wx, number, D, GH) and is_matrix(Wh, number, GH // G, GH)
            and is_plain(b, number, 1, 0, GH)
            and (h0 is None or is_plain(h0, number, 2, N, GH // G))
            and (c0 is None or is_plain(c0, number, 2, N, GH // G))
            and (bhn is None or is_plain(bhn, number, 1, 0, GH // G))
            and (peephole is None or is_plain(peephole, number, 2, 3, GH // G)))


cdef int describe(Call *f, tuple cell, batch, tuple weights, x, ids, h0, c0, gates, c, m, h) except -1:
    """What forward and backward have in common; the plan is for one thread."""
    cdef int k
    Wx, Wh, b, bhn, peephole = weights
    T, N, rows, offset, resets, reverse = batch
    memset(f, 0, sizeof(Call))
    # Read once a call: use_isa may change `active` from another thread.
    f.layer.kernels = active.f64 if is_double(Wh) else active.f32
    kind, gates_, activation, variant, update, places = cell
    f.layer.cell.kind, f.layer.cell.gates, f.layer.cell.activation = kind, gates_, activation
    f.layer.cell.variant, f.layer.cell.update = variant, update
    for k in range(f.layer.cell.gates):
        f.layer.cell.places[k] = places[k]
    f.layer.D = cnp.PyArray_DIM(<cnp.ndarray>Wx, 0)
    f.layer.H = cnp.PyArray_DIM(<cnp.ndarray>Wh, 0)
    f.layer.Wx = matrix_of(Wx)
    f.layer.Wh = matrix_of(Wh)
    f.layer.b = address(b)
    f.layer.bhn = address(bhn)
    f.layer.peephole = address(peephole)
    f.batch.T = T
    f.batch.N = f.batch.count = N
    f.batch.rows = <const int64_t *>address(rows)
    f.batch.offset = <const int64_t *>address(offset)
    f.batch.resets = <const char *>address(resets)
    f.batch.reverse = reverse
    f.plan.groups = f.plan.members = 1
    f.plan.units = f.layer.H
    f.plan.first_row[1] = f.batch.N
    f.x = address(x)
    f.ids = <const int64_t *>address(ids)
    f.h0 = address(h0)
    f.c0 = address(c0)
    f.gates = address(gates)
    f.c = address(c)
    f.m = address(m)
    f.h = address(h)
    return 0


# One call, or two side by side.
cdef struct Pair:
    Call[2] calls
    int count, size
    bint backward, is_double


cdef void part_of_call(const Pair *pair, int which, int member) noexcept nogil:
    cdef const Call *f = &pair.calls[which]
    if member >= plan_size(&f.plan):
        return
    if pair.is_double:
        if pair.backward:
            backward_part(f, member, <double *>f.scratch)
        else:
            forward_part(f, member, <double *>f.scratch)
    elif pair.backward:
        backward_part(f, member, <float *>f.scratch)
    else:
        forward_part(f, member, <float *>f.scratch)


cdef void part_of_pair(void *context, int member) noexcept nogil:
    cdef const Pair *pair = <const Pair *>context
    cdef unsigned long long saved = begin_flush_subnormals()
    cdef int first = plan_size(&pair.calls[0].plan)
    if pair.size == 1:
        part_of_call(pair, 0, 0)
        if pair.count == 2:
            part_of_call(pair, 1, 0)
    elif member < first:
        part_of_call(pair, 0, member)
    else:
        part_of_call(pair, 1, member - first)
    end_flush_subnormals(saved)


cdef int make_plans(Pair *pair, int size) noexcept nogil:
    """Plans for a team of at most that size. -> size of the team that they need"""
    cdef int i, needed = 0
    for i in range(pair.count):
        # Two calls share the team.
        make_plan(&pair.calls[i].plan, &pair.calls[i].layer, &pair.calls[i].batch,
                  max(1, (size + 1 - i) // pair.count if pair.count == 2 else size))
        needed += plan_size(&pair.calls[i].plan)
    return 1 if size == 1 else needed


cdef int run_pair(Pair *pair) except -1:
    """Make the plans, the scratch and the barriers of one call or two, and run them."""
    cdef double flops = 0
    cdef int i, wanted, granted, barriers = 0
    cdef Py_ssize_t values = 0
    cdef Py_ssize_t[2] needed
    cdef size_t item = sizeof(double) if pair.is_double else sizeof(float)
    cdef Memory memory
    cdef char *room
    cdef char *states
    for i in range(pair.count):
        flops += flops_of(&pair.calls[i].layer, &pair.calls[i].batch, pair.calls[i].ids != NULL)
    wanted = make_plans(pair, threads_for(2 * flops if pair.backward else flops))
    granted = take_team(wanted)
    try:
        # A smaller team than was wanted has other plans, which may need fewer threads still.
        pair.size = make_plans(pair, granted) if granted < wanted else wanted
        for i in range(pair.count):
            if pair.backward:
                needed[i] = set_backward_scratch(&pair.calls[i])
            else:
                choose_packing(&pair.calls[i])
                needed[i] = set_forward_scratch(&pair.calls[i])
                needed[i] += 2 * padded(pair.calls[i].batch.N * pair.calls[i].layer.H)  # zero_state
            values += padded(needed[i])
            barriers += 1 + pair.calls[i].plan.groups
        take_memory(values * item + barriers * sizeof(barrier), &memory)
        memset(memory.start, 0, barriers * sizeof(barrier))
        room = <char *>memory.start + barriers * sizeof(barrier)
        pair.calls[0].barriers = <barrier *>memory.start
        pair.calls[1].barriers = pair.calls[0].barriers + 1 + pair.calls[0].plan.groups
        for i in range(pair.count):
            states = room
            room += padded(needed[i]) * item
            if not pair.backward:
                pair.calls[i].h0 = zero_state(&pair.calls[i], pair.calls[i].h0, &states, item)
                if pair.calls[i].layer.cell.kind == CELL_LSTM:
                    pair.calls[i].c0 = zero_state(&pair.calls[i], pair.calls[i].c0, &states, item)
            pair.calls[i].scratch = states
        with nogil:
            run_team(pair.size, part_of_pair, pair)
        give_memory(memory)
    finally:
        leave_team(granted)
    return 0


def forward(*calls):
    """One call, or two side by side: tuples (cell, batch, weights, x, ids, h0, c0, gates, c, m, h, h_n, c_n).

    cell is (kind, G, activation, variant, update, places), batch (T, N, rows, offset, resets, reverse), weights (Wx, Wh,
    b, bhn, peephole); the rest as in Call. All arrays are dense and of one dtype, Wx, Wh, dWx and dWh in C or in Fortran
    order, Wx in C order if there are ids; T, N, H > 0 and there is a token.
    """
    cdef Pair pair
    pair.backward = False
    pair.count = 0
    for cell, batch, weights, x, ids, h0, c0, gates, c, m, h, h_n, c_n in calls:
        describe(&pair.calls[pair.count], cell, batch, weights, x, ids, h0, c0, gates, c, m, h)
        pair.calls[pair.count].h_n = address(h_n)
        pair.calls[pair.count].c_n = address(c_n)
        pair.is_double = is_double(h)
        pair.count += 1
    run_pair(&pair)


def backward(*calls):
    """One call, or two side by side: tuples of what `forward` takes up to h, then the arrays of Call from dh on."""
    cdef Pair pair
    cdef Call *f
    pair.backward = True
    pair.count = 0
    for (cell, batch, weights, x, ids, h0, c0, gates, c, m, h, dh, dgates, dm, rh, h_before, c_before, dx, adds, dWx,
         dWh, db, dbhn, dpeephole, dh0, dc0) in calls:
        f = &pair.calls[pair.count]
        describe(f, cell, batch, weights, x, ids, h0, c0, gates, c, m, h)
        f.dh = address(dh)
        f.dgates = address(dgates)
        f.dm = address(dm)
        f.rh = address(rh)
        f.h_before = address(h_before)
        f.c_before = address(c_before)
        f.dx = address(dx)
        f.adds = adds
        f.dWx = matrix_of(dWx)
        f.dWh = matrix_of(dWh)
        f.db = address(db)
        f.dbhn = address(dbhn)
        f.dpeephole = address(dpeephole)
        f.dh0 = address(dh0)
        f.dc0 = address(dc0)
        pair.is_double = is_double(h)
        pair.count += 1
    run_pair(&pair)


def softmax_cross_entropy(floating[:, ::1] logits, const int64_t[::1] targets, const double[::1] weights,
                          double[::1] losses):
    """In place: logits (rows,V) become their gradients; losses (rows,) are written. Needs rows, V > 0."""
    cdef unsigned long long saved
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    with nogil:
        saved = begin_flush_subnormals()
        k.softmax_cross_entropy(logits.shape[0], logits.shape[1], &logits[0, 0], &targets[0], &weights[0], &losses[0])
        end_flush_subnormals(saved)


# ---- affine maps and the softmax on top of them ---------------------------------------------------------------------

# Rows of a chunk hold so many logits at most: they stay in cache from the product to the gradients.
cdef enum:
    CHUNK_LOGITS = 1 << 21
    CHUNK_ROWS = 64


cdef struct Affine:
    const kernel_table *kernels
    Py_ssize_t L, D, K, chunk    # rows in all, and rows at a time
    bint is_double, computes_y   # or else y holds dL/dy
    void *x                      # (L, D)
    Matrix W                     # (D, K)
    void *b                      # (K,)
    void *y                      # (L, K), or NULL: a chunk of it, in the scratch
    const int64_t *targets       # (L,), with weights and losses; or NULL: no softmax
    const double *weights
    double *losses
    void *dx                     # (L, D); or NULL: no gradients
    Matrix dW                    # (D, K), added to
    void *db                     # (K,), added to
    void *scratch                # packed W, packed W', a chunk of y, and work of each thread
    Py_ssize_t packed_size, transposed_size, chunk_size, work_size
    int size
    barrier everyone


cdef void affine_part(const Affine *f, int member, floating *scratch) noexcept nogil:
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
    cdef Product dW
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
            dW = product_of(<const floating *>f.x + chunk * D, D, columns, part_of(f.dW, 0, column, work), True)
            add_products(k, tokens, columns, y + column, K, &dW, 1, <floating *>f.db + column, work)
        if f.y == NULL:
            wait_for_all(everyone, f.size)  # before the next chunk takes the place of this one


cdef void part_of_affine(void *context, int member) noexcept nogil:
    cdef const Affine *f = <const Affine *>context
    cdef unsigned long long saved = begin_flush_subnormals()
    if f.is_double:
        affine_part(f, member, <double *>f.scratch)
    else:
        affine_part(f, member, <float *>f.scratch)
    end_flush_subnormals(saved)


def affine(x, W, b, y, targets, weights, losses, dx, dW, db):
    """Forward with b; softmax cross-entropy with targets; backward with dx: see Affine. Needs L, D, K > 0."""
    cdef Affine f
    cdef Memory memory
    cdef Py_ssize_t values
    memset(&f, 0, sizeof(Affine))
    f.is_double = is_double(W)
    f.kernels = active.f64 if f.is_double else active.f32
    f.L = cnp.PyArray_DIM(<cnp.ndarray>x, 0)
    f.D = cnp.PyArray_DIM(<cnp.ndarray>W, 0)
    f.K = cnp.PyArray_DIM(<cnp.ndarray>W, 1)
    f.computes_y = b is not None
    f.x = address(x)
    f.W = matrix_of(W)
    f.b = address(b)
    f.y = address(y)
    f.targets = <const int64_t *>address(targets)
    f.weights = <const double *>address(weights)
    f.losses = <double *>address(losses)
    f.dx = address(dx)
    f.dW = matrix_of(dW)
    f.db = address(db)
    f.chunk = f.L if f.y != NULL else min(f.L, max(<Py_ssize_t>CHUNK_ROWS, CHUNK_LOGITS // f.K))
    f.packed_size = 0
    if f.computes_y and packing_pays(1, f.L):
        f.packed_size = padded(packed_size(f.D, f.K))
    f.transposed_size = 0 if f.dx == NULL else padded(packed_size(f.K, f.D))
    f.chunk_size = padded(f.chunk * f.K) if f.y == NULL else 0
    f.size = take_team(threads_for(2. * f.L * f.D * f.K * (f.computes_y + (0 if f.dx == NULL else 2))))
    try:
        f.work_size = 0
        if f.dx != NULL:
            f.work_size = products_work(f.D, f.chunk, largest_share(f.K, f.size, LARGEST_PANEL), f.dW.column_step != 1)
        values = f.packed_size + f.transposed_size + f.chunk_size + f.size * f.work_size
        take_memory(values * (sizeof(double) if f.is_double else sizeof(float)), &memory)
        f.scratch = memory.start
        with nogil:
            run_team(f.size, part_of_affine, &f)
        give_memory(memory)
    finally:
        leave_team(f.size)


def time_first(const floating[:, :, ::1] source, floating[:, :, ::1] target):
    """target (T,m,n) = source (n,m,T), dense."""
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    cdef Py_ssize_t n = source.shape[0], m = source.shape[1], T = source.shape[2], j
    if n == 0 or m == 0 or T == 0:
        return
    with nogil:
        for j in range(m):
            k.transpose(n, T, &source[0, j, 0], m * T, &target[0, j, 0], m * n)


def are_ids(const int64_t[::1] ids, Py_ssize_t size):
    """Whether all ids (L,) lie in [0, size)."""
    cdef Py_ssize_t i
    cdef bint right = True
    with nogil:
        for i in range(ids.shape[0]):
            right &= 0 <= ids[i] < size
    return right


def scatter_add(const int64_t[::1] ids, const floating[:, ::1] rows, floating[:, ::1] table):
    """table (V,D)[ids] += rows (L,D). Needs L, D > 0."""
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    cdef Py_ssize_t D = rows.shape[1]
    with nogil:
        k.scatter_add(rows.shape[0], D, &ids[0], 1, &rows[0, 0], D, &table[0, 0], D)


# ---- optimisers -----------------------------------------------------------------------------------------------------

def optimizer_step(int rule, tuple constants, g, p, m, v):
    """A rule of RULES: g, p, m, v (count,), dense and of one dtype; constants as in kernels.h. m, v may be None."""
    cdef double[OPTIMIZER_CONSTANTS] numbers
    cdef const kernel_table *k = active.f64 if is_double(p) else active.f32
    cdef Py_ssize_t count = cnp.PyArray_DIM(<cnp.ndarray>p, 0)
    cdef void *address_g = address(g)
    cdef void *address_p = address(p)
    cdef void *address_m = address(m)
    cdef void *address_v = address(v)
    cdef unsigned long long saved
    cdef int i
    for i in range(OPTIMIZER_CONSTANTS):
        numbers[i] = constants[i]
    with nogil:
        saved = begin_flush_subnormals()
        k.optimizer_step(rule, count, numbers, address_g, address_p, address_m, address_v)
        end_flush_subnormals(saved)


def square_sum(const floating[::1] a):
    """Of a (count,), count > 0."""
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    cdef double total
    with nogil:
        total = k.square_sum(a.shape[0], &a[0])
    return total


def read(const float[::1] a):
    """The sum of a (count,), for the time it takes: the bandwidth of the memory that a is in."""
    cdef double total
    with nogil:
        total = active.f32.sum(a.shape[0], &a[0])
    return total


# ---- streaming ------------------------------------------------------------------------------------------------------

cdef class Stream:
    """A stack of cells with packed weights, one step a call. See rnncore.layers.Stream and functional.sample_ids."""
    cdef Call *calls
    cdef Part *parts
    cdef Py_ssize_t count
    cdef bint is_double
    cdef tuple arrays                     # hold what the pointers in calls point to
    cdef Memory memory

    def __cinit__(self, list cells, Py_ssize_t N, h, c):
        """cells: (cell, Wx, Wh, b, bhn, peephole), bottom first; states h, c (cells, N, H), c None where there is none.
        All arrays are dense and of one dtype; the states are replaced by every step, the weights must not change."""
        cdef Py_ssize_t l, values = 0, scratch = 0, H = cnp.PyArray_DIM(<cnp.ndarray>h, 2)
        cdef size_t item
        cdef Call *f
        cdef char *room
        self.count = len(cells)
        self.is_double = is_double(h)
        item = sizeof(double) if self.is_double else sizeof(float)
        self.arrays = (cells, h, c)
        self.calls = <Call *>malloc(self.count * sizeof(Call))
        self.parts = <Part *>malloc(self.count * sizeof(Part))
        if self.calls == NULL or self.parts == NULL:
            raise MemoryError
        for l in range(self.count):
            f = &self.calls[l]
            cell, *weights = cells[l]
            describe(f, cell, (1, N, None, None, None, False), tuple(weights), None, None, None, None, None, None, None,
                     None)
            f.h0 = f.h_n = <char *>address(h) + l * N * H * item
            f.c0 = f.c_n = NULL if c is None else <char *>address(c) + l * N * H * item
            f.packs_x = f.packs_h = True
            scratch = max(scratch, set_forward_scratch(f) - f.packed_size)
            values += f.packed_size
        take_memory((values + scratch) * item, &self.memory)
        room = <char *>self.memory.start
        for l in range(self.count):
            f = &self.calls[l]
            begin_part(&self.parts[l], f, 0)
            if self.is_double:
                prepare_forward[double](&self.parts[l], f, <double *>room, 0, 1)
            else:
                prepare_forward[float](&self.parts[l], f, <float *>room, 0, 1)
            room += f.packed_size * item
        for l in range(self.count):
            self.calls[l].scratch = room

    def __dealloc__(self):
        free(self.calls)
        free(self.parts)
        give_memory(self.memory)

    cdef void advance(self, void *x, const int64_t *ids, void *out) noexcept nogil:
        """x (N,D), or ids (N,) -> out (N,H), the state of the top layer."""
        cdef Py_ssize_t l
        cdef unsigned long long saved = begin_flush_subnormals()
        for l in range(self.count):
            # The new state is written to out, then over the old one, which is the input of the next layer.
            self.calls[l].x = x
            self.calls[l].ids = ids
            self.calls[l].h = out
            if self.is_double:
                forward_steps[double](&self.calls[l], &self.parts[l], <double *>self.calls[l].scratch,
                                      <double *>self.calls[l].scratch)
            else:
                forward_steps[float](&self.calls[l], &self.parts[l], <float *>self.calls[l].scratch,
                                     <float *>self.calls[l].scratch)
            x = self.calls[l].h0
            ids = NULL
        end_flush_subnormals(saved)

    def try_step(self, x, out):
        """Step if x (N,D) and out (N,H) are what advance needs, and apart. -> whether it did"""
        cdef const Call *f = &self.calls[0]
        cdef int number = cnp.NPY_DOUBLE if self.is_double else cnp.NPY_FLOAT
        cdef Py_ssize_t N = f.batch.N
        cdef char *address_x
        cdef char *address_out
        if not (is_plain(x, number, 2, N, f.layer.D) and is_plain(out, number, 2, N, f.layer.H)
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)):
            return False
        address_x = <char *>address(x)
        address_out = <char *>address(out)
        if (address_x < address_out + cnp.PyArray_NBYTES(<cnp.ndarray>out)
                and address_out < address_x + cnp.PyArray_NBYTES(<cnp.ndarray>x)):
            return False
        with nogil:
            self.advance(address_x, NULL, address_out)
        return True

    def step(self, x, ids, out):
        """Arrays as in advance, x or ids None; dense and checked."""
        cdef void *address_x = address(x)
        cdef const int64_t *address_ids = <const int64_t *>address(ids)
        cdef void *address_out = address(out)
        with nogil:
            self.advance(address_x, address_ids, address_out)


# ---- sampling -------------------------------------------------------------------------------------------------------

cdef struct Candidate:
    double weight
    Py_ssize_t id


cdef int by_falling_weight(const void *a, const void *b) noexcept nogil:
    cdef const Candidate *p = <const Candidate *>a
    cdef const Candidate *q = <const Candidate *>b
    if p.weight != q.weight:
        return -1 if p.weight > q.weight else 1
    return (p.id > q.id) - (p.id < q.id)


cdef void select_largest(Candidate *candidates, Py_ssize_t count, Py_ssize_t k) noexcept nogil:
    """Bring the k first of `count` in the order of by_falling_weight to the front, in any order (Hoare's selection)."""
    cdef Py_ssize_t low = 0, high = count - 1, i, j
    cdef Candidate pivot, other
    while low < high:
        pivot = candidates[(low + high) // 2]
        i = low
        j = high
        while i <= j:
            while by_falling_weight(&candidates[i], &pivot) < 0:
                i += 1
            while by_falling_weight(&pivot, &candidates[j]) < 0:
                j -= 1
            if i <= j:
                other = candidates[i]
                candidates[i] = candidates[j]
                candidates[j] = other
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


cdef Py_ssize_t draw(const floating *logits, Py_ssize_t V, double temperature, Py_ssize_t top_k, double top_p,
                     const char *banned, double uniform, Candidate *candidates) noexcept nogil:
    """One id from softmax(logits / temperature), or -1 if that is not defined."""
    cdef Py_ssize_t j, kept = 0, best = -1, all_
    cdef double total = 0, reached = 0, bound
    for j in range(V):
        if not banned[j]:
            if logits[j] != logits[j]:
                return -1
            if best < 0 or logits[j] > logits[best]:
                best = j
    if best < 0 or logits[best] - logits[best] != 0:
        return -1
    if temperature == 0:
        return best
    for j in range(V):
        if not banned[j]:
            candidates[kept].id = j
            candidates[kept].weight = exp((<double>logits[j] - <double>logits[best]) / temperature)
            total += candidates[kept].weight
            kept += 1
    if not total > 0:
        return -1
    if 0 < top_k < kept or top_p < 1:
        if 0 < top_k < kept:
            select_largest(candidates, kept, top_k)
            kept = top_k
        elif top_p < 1:
            # All those below this bound together weigh less than 1 - top_p: none of them is needed.
            bound = (1 - top_p) * total / kept
            all_ = kept
            kept = 0
            for j in range(all_):
                if candidates[j].weight >= bound:
                    candidates[kept] = candidates[j]
                    kept += 1
        qsort(candidates, kept, sizeof(Candidate), by_falling_weight)
        # The shortest run of the likeliest that reaches top_p of all.
        for j in range(kept):
            reached += candidates[j].weight
            if reached >= top_p * total:
                kept = j + 1
                break
        total = reached
    uniform *= total
    reached = 0
    for j in range(kept):
        reached += candidates[j].weight
        if reached > uniform:
            return candidates[j].id
    return best


def sample(Stream stack, const floating[:, ::1] embedding, const floating[:, ::1] Wy, const floating[::1] by,
           int64_t first, const double[::1] uniforms, double temperature, Py_ssize_t top_k, double top_p,
           const char[::1] banned, Py_ssize_t stop, int64_t[::1] ids, floating[::1] scratch):
    """See functional.sample_ids; scratch (H + V,). Returns the number of ids drawn, or -1 if the logits are not finite.
    """
    cdef Py_ssize_t H = Wy.shape[0], V = Wy.shape[1], n = uniforms.shape[0], drawn = 0
    cdef Candidate *candidates = <Candidate *>malloc(V * sizeof(Candidate))
    cdef floating *top = &scratch[0]
    cdef floating *logits = top + H
    cdef int64_t token = first
    cdef const kernel_table *k = stack.calls[0].layer.kernels
    if candidates == NULL:
        raise MemoryError
    with nogil:
        while drawn < n:
            if embedding is not None:
                stack.advance(<void *>&embedding[token, 0], NULL, top)
            else:
                stack.advance(NULL, &token, top)
            # logits (V,) = by + h (H,) Wy (H,V)
            k.multiply(1, H, V, top, H, &Wy[0, 0], V, 1, &by[0], 0, logits, V)
            token = draw(logits, V, temperature, top_k, top_p, &banned[0], uniforms[drawn], candidates)
            if token < 0:
                drawn = -1
                break
            ids[drawn] = token
            drawn += 1
            if token == stop:
                break
    free(candidates)
    return drawn


def _usable_cores():
    """Cores that the process may use: its affinity, and the quota of its container (cgroup v2)."""
    import os
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or no quota ("max")
        pass
    return cores


def _start():
    import os
    *_, widest = available_isas()
    try:
        use_isa(os.environ.get("RNNCORE_ISA", widest))
    except ValueError as error:
        raise ValueError(f"environment variable RNNCORE_ISA: {error}") from None
    set_cost_rule()
    try:
        set_num_threads(int(os.environ.get("RNNCORE_NUM_THREADS", _usable_cores())))
    except ValueError as error:
        raise ValueError(f"environment variable RNNCORE_NUM_THREADS: {error}") from None


_start()
