"""How a call is cut into parts for threads, and which weights are packed."""

from call cimport *
from kernels cimport LARGEST_PANEL, PRECISION_FULL, TRANSPOSED_ROWS


# Minimum flops of a call for each further thread, rows of a group, products of a member between two barriers, and
# hidden units of a member. set_num_threads documents the values.
cdef struct CostRule:
    double flops_per_thread
    Py_ssize_t rows_per_group, products_per_member, units_per_member


# ---- packing --------------------------------------------------------------------------------------------------------

# Input projections run over about so many rows at a time: the result is still in cache when its steps come.
cdef enum:
    PROJECTION_ROWS = 128

# Which weights a call packs, and which it reads in place: the one rule, measured by bench/packing.py.
#
# A step of few rows reads packed weights at twice the speed of weights in C order in place; packing costs as much as
# the products of some thirty rows. It pays from so many steps on, or from so many tokens on. For a single row it pays
# later where the weights fill the second-level cache, and not at all where they exceed it: read in place, they stream
# as fast.
#
# A step of at most four rows reads transposed weights in place at 1.2 to 2 times the cost of C order; more rows, or
# one product of many tokens, pack them as they go, and packing them for good costs no more from the second step on.
cdef enum:
    PACK_STEPS = 8
    PACK_TOKENS = 64
    WIDE_VALUES = 1 << 17
    PACK_WIDE_STEPS = 24
    FAR_VALUES = 3 << 17
    PACK_TRANSPOSED_STEPS = 4
    PACK_TRANSPOSED_FAR_STEPS = 16


cdef inline bint packing_pays(Py_ssize_t T, Py_ssize_t N) noexcept nogil:
    return T >= PACK_STEPS or T * N >= PACK_TOKENS


cdef inline bint packs_recurrent(const Call *f) noexcept nogil:
    cdef Py_ssize_t T = f.batch.T, N = f.batch.N
    cdef Py_ssize_t values = f.layer.H * recurrent_columns(&f.layer)
    # Members read pieces of the rows, which do not stream.
    cdef bint far = N == 1 and values >= FAR_VALUES and f.plan.members == 1
    if f.layer.Wh.column_step == 1 and N == 1 and values >= WIDE_VALUES:
        return T >= PACK_WIDE_STEPS and not far
    if f.layer.Wh.column_step == 1:
        return packing_pays(T, N)
    return T >= (2 if N > TRANSPOSED_ROWS else PACK_TRANSPOSED_FAR_STEPS if far else PACK_TRANSPOSED_STEPS)


cdef inline bint has_panels_of(const Layer *w, Py_ssize_t units) noexcept nogil:
    """Whether members of so many units have whole panels of a factor of all gate blocks."""
    return w.H % LARGEST_PANEL == 0 and units % LARGEST_PANEL == 0


cdef inline void choose_packing(Call *f) noexcept nogil:
    cdef Py_ssize_t T = f.batch.T, N = f.batch.N
    # Members of a group read the panels of their own units, or have factors of their own.
    f.has_packed = f.packed != NULL and (f.plan.members == 1 or has_panels_of(&f.layer, f.plan.units))
    if f.layer.precision == PRECISION_FULL and f.layer.kernels.pack == NULL:
        f.has_packed = False  # BLAS reads them in place
    f.packs_h = f.has_packed or packs_recurrent(f)
    # A single projection packs panels as it goes.
    f.packs_x = f.has_packed or T * N > PROJECTION_ROWS or (f.plan.groups > 1 and packing_pays(T, N))
    f.packs_x = f.packs_x and f.ids == NULL


# ---- interrupts -----------------------------------------------------------------------------------------------------

# In the time loop of a group: see is_interrupted in threads.h. Large products look for themselves.
cdef enum:
    STEPS_BETWEEN_LOOKS = 8


# ---- groups and members ---------------------------------------------------------------------------------------------

cdef inline double flops_of(const Layer *w, const BatchRows *s, bint ids) noexcept nogil:
    """Multiplications and additions of the products of a forward pass."""
    return 2. * token_count(s) * ((0 if ids else w.D) * gate_columns(w) + w.H * recurrent_columns(w))


cdef inline int threads_for(double flops, const CostRule *rule, int max_threads) noexcept nogil:
    return <int>max(1., min(<double>max_threads, flops / rule.flops_per_thread))


cdef inline Py_ssize_t tokens_before_row(const BatchRows *s, Py_ssize_t row) noexcept nogil:
    cdef Py_ssize_t t, tokens = 0
    if s.rows == NULL:
        return s.T * row
    for t in range(s.T):
        tokens += min(s.rows[t], row)
    return tokens


cdef inline void single_plan(Plan *plan, const Layer *w, const BatchRows *s) noexcept nogil:
    plan.groups = plan.members = 1
    plan.units = w.H
    plan.first_row[0] = 0
    plan.first_row[1] = s.N


cdef inline void make_plan(Plan *plan, const Layer *w, const BatchRows *s, const CostRule *rule,
                           int size) noexcept nogil:
    """The plan for a team of that size."""
    cdef Py_ssize_t L = token_count(s), low, high, middle
    cdef Py_ssize_t step = s.N * w.H * recurrent_columns(w), unit = rule.units_per_member
    cdef int group
    if w.precision != PRECISION_FULL:
        # It is only packed.
        unit = LARGEST_PANEL if has_panels_of(w, LARGEST_PANEL) else w.H
    if size == 1:
        single_plan(plan, w, s)
        return
    plan.groups = <int>max(<Py_ssize_t>1, min(size, s.N // rule.rows_per_group))
    plan.members = <int>max(
        <Py_ssize_t>1, min(size // plan.groups, min(step // plan.groups // rule.products_per_member, w.H // unit))
    )
    plan.units = w.H
    if plan.members > 1:
        plan.units = ((w.H + plan.members - 1) // plan.members + unit - 1) // unit * unit
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
    """Pieces of most phases."""
    return plan.groups * plan.members


cdef inline Py_ssize_t largest_group(const Plan *plan) noexcept nogil:
    """Rows of the largest group."""
    cdef Py_ssize_t largest = 0
    cdef int group
    for group in range(plan.groups):
        largest = max(largest, plan.first_row[group + 1] - plan.first_row[group])
    return largest


cdef inline void begin_groups(const Call *f) noexcept nogil:
    """Set the rows of the groups, before their first step."""
    cdef Group *g
    cdef int i
    for i in range(f.plan.groups):
        g = f.groups + i
        g.batch = f.batch
        g.batch.first = f.plan.first_row[i]
        g.batch.count = f.plan.first_row[i + 1] - g.batch.first
        g.running = True
        g.step.index = -1
        g.projection_end = 0
        g.step.h = g.step.c = g.step.m = NULL
        g.step.c_prev = NULL


cdef inline void begin_member(Member *p, const Call *f, int member) noexcept nogil:
    """Set the units of a member, not its factors."""
    p.first = member * f.plan.units
    p.units = min(f.plan.units, f.layer.H - p.first)
