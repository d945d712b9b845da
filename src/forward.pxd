"""The forward pass: prepare the factors, then run the time loop. backward.pxd is its mirror image."""

from cython cimport floating
from libc.string cimport memcpy, memset

from call cimport *
from plan cimport *
from products cimport *
from steps cimport *
from threads cimport *


# ---- scratch --------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t packed_weights_size(const Call *f) noexcept nogil:
    """Values that the factors of each member pack."""
    cdef Py_ssize_t H = f.layer.H, D = f.layer.D, units = f.plan.units
    cdef Py_ssize_t columns = gated_columns(&f.layer), candidates = recurrent_columns(&f.layer) - columns
    cdef Py_ssize_t blocks = f.layer.cell.num_gates
    if units == H:
        return ((packed_size(H, columns) + packed_size(H, candidates) if f.packs_h else 0)
                + (packed_size(D, blocks * H) if f.packs_x else 0))
    return ((recurrent_columns(&f.layer) // H * packed_size(H, units) if f.packs_h else 0)
            + (blocks * packed_size(D, units) if f.packs_x else 0))


cdef inline bint saves(const Call *f) noexcept nogil:
    """Whether the backward pass will have the gates, c and m of all tokens, or the cell has none."""
    return f.gates != NULL or state_is_gate(&f.layer)


cdef inline Py_ssize_t set_forward_scratch(Call *f, size_t item) noexcept nogil:
    """Set the sizes of the scratch and return its number of values.

    First the packed weights of each member; then for each group two states, r h', where nothing is saved two more
    states and the gates of a projection, and where there is a mask the masked state; then for each piece what quantized
    products need.
    """
    cdef Py_ssize_t state = padded(largest_group(&f.plan) * f.layer.H)
    f.packed_size = 0 if f.has_packed else padded(packed_weights_size(f))
    f.group_size = 3 * state
    if not saves(f):
        f.group_size += 2 * state + padded(max(largest_group(&f.plan),
                                               min(f.batch.T * f.batch.N, <Py_ssize_t>PROJECTION_ROWS))
                                           * gate_columns(&f.layer))
    if f.batch.mask != NULL:
        f.group_size += state
    f.work_size = quantized_work(f.layer.precision, max(largest_group(&f.plan), <Py_ssize_t>PROJECTION_ROWS),
                                 max(f.layer.D, f.layer.H), item)
    return f.plan.members * f.packed_size + f.plan.groups * f.group_size + plan_size(&f.plan) * f.work_size


cdef inline void *state_or_zeros(const Call *f, void *state, char **room, size_t item) noexcept nogil:
    """The state, or if it is NULL zeros in *room, which is advanced."""
    cdef size_t size = padded(f.batch.N * f.layer.H) * item
    if state != NULL:
        return state
    memset(room[0], 0, size)
    room[0] += size
    return room[0] - size


# ---- factors and projections ----------------------------------------------------------------------------------------

cdef inline Factor shared_factor(const Call *f, const Member *p, Py_ssize_t K, Py_ssize_t columns, char **packed,
                                 size_t item) noexcept nogil:
    """The columns of a member in a matrix (K, columns) that is packed at *packed, which is advanced past it."""
    cdef int precision = f.layer.precision
    cdef Py_ssize_t H = f.layer.H
    cdef Factor shared = packed_factor(precision, K, columns, packed[0] + packed_bytes(precision, item, K, p.first))
    if p.units < H:
        shared.M, shared.blocks, shared.step = p.units, columns // H, H
        shared.packed_step = packed_bytes(precision, item, K, H)
    packed[0] += packed_bytes(precision, item, K, columns)
    return shared


cdef inline void describe_shared_factors(Member *p, const Call *f, size_t item) noexcept nogil:
    """Set the factors of a member, which are packed for all calls: gates, candidate, x, one after the other."""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t columns = gated_columns(w)
    cdef char *packed = <char *>f.packed
    p.gates = shared_factor(f, p, w.H, columns, &packed, item)
    p.candidate = shared_factor(f, p, w.H, recurrent_columns(w) - columns, &packed, item)
    p.x = shared_factor(f, p, w.D, gate_columns(w), &packed, item)
    p.x.scale = w.x_scale


cdef inline void describe_factors(Member *p, const Call *f, floating *packed) noexcept nogil:
    """Set the factors of a member, whose packed weights go to `packed` in that order. Ids read rows of Wx in place."""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t H = w.H, columns = gated_columns(w), candidates = recurrent_columns(w) - columns
    cdef Matrix Wx = submatrix(w.Wx, 0, p.first, packed)
    cdef Matrix Wh = submatrix(w.Wh, 0, p.first, packed)
    cdef Matrix candidate = submatrix(Wh, 0, columns, packed)
    cdef floating **room_h = &packed if f.packs_h else NULL
    cdef floating **room_x = &packed if f.packs_x else NULL
    if p.units == H:
        p.gates = factor(w.kernels, H, columns, 1, 0, Wh, room_h)
        p.candidate = factor(w.kernels, H, candidates, 1, 0, candidate, room_h)
        p.x = factor(w.kernels, w.D, gate_columns(w), 1, 0, Wx, room_x)
    else:
        p.gates = factor(w.kernels, H, p.units, columns // H, H, Wh, room_h)
        p.candidate = factor(w.kernels, H, p.units, candidates // H, H, candidate, room_h)
        p.x = factor(w.kernels, w.D, p.units, w.cell.num_gates, H, Wx, room_x)


cdef inline void begin_forward(Call *f, floating *scratch) noexcept nogil:
    """Set the groups and members, in scratch of set_forward_scratch values."""
    cdef int i
    begin_groups(f)
    for i in range(f.plan.members):
        begin_member(f.members + i, f, i)
        if f.has_packed:
            describe_shared_factors(f.members + i, f, sizeof(floating))
        else:
            describe_factors(f.members + i, f, scratch + i * f.packed_size)
    scratch += f.plan.members * f.packed_size
    for i in range(f.plan.groups):
        f.groups[i].scratch = scratch + i * f.group_size
    f.work = scratch + f.plan.groups * f.group_size


cdef inline void pack_forward(const Call *f, int piece, floating *type_) noexcept nogil:
    """Pack a share of the factors of a member."""
    cdef const Member *p = f.members + piece % f.plan.members
    cdef int share = piece // f.plan.members, shares = f.plan.groups
    pack_factor(f.layer.kernels, &p.gates, share, shares, type_)
    pack_factor(f.layer.kernels, &p.candidate, share, shares, type_)
    pack_factor(f.layer.kernels, &p.x, share, shares, type_)


cdef inline size_t all_packed_bytes(const Layer *w, size_t item) noexcept nogil:
    """Bytes of the factors of a cell that are packed for all calls."""
    cdef Py_ssize_t columns = gated_columns(w)
    return (packed_bytes(w.precision, item, w.H, columns)
            + packed_bytes(w.precision, item, w.H, recurrent_columns(w) - columns)
            + packed_bytes(w.precision, item, w.D, gate_columns(w)))


cdef inline void pack_weights(Call *f, floating *packed) noexcept nogil:
    """Pack Wx and Wh of a call with a plan for one thread, packs_x and packs_h for all calls: all_packed_bytes."""
    cdef Member p
    begin_member(&p, f, 0)
    f.members = &p
    describe_factors(&p, f, packed)
    pack_forward(f, 0, packed)


cdef inline void pack_quantized_weights(const Call *f, const Matrix *Wx, const float *scales_x, const Matrix *Wh,
                                        const float *scales_h, size_t value) noexcept nogil:
    """Pack Wx and Wh at f.packed for all calls: in C order, in bfloat16 or int8, `value` bytes each; scales (G H,) of
    int8."""
    cdef const kernel_table *k = f.layer.kernels
    cdef Py_ssize_t columns = gated_columns(&f.layer)
    cdef Member p
    begin_member(&p, f, 0)
    describe_shared_factors(&p, f, 0)
    pack_quantized(k, &p.x, Wx.values, Wx.row_step, scales_x)
    if has_Wh(&f.layer.cell):
        pack_quantized(k, &p.gates, Wh.values, Wh.row_step, scales_h)
        pack_quantized(k, &p.candidate, <const char *>Wh.values + columns * value, Wh.row_step,
                       at(scales_h, columns, <float *>NULL))


cdef inline void project(const Call *f, const Member *p, Py_ssize_t begin, Py_ssize_t n, floating *gates,
                         floating *work) noexcept nogil:
    """gates (n, GH) = x Wx + b for the n tokens from `begin` on"""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t GH = gate_columns(w), column
    cdef int block
    if f.ids == NULL:
        product_from(w.kernels, n, <const floating *>f.x + begin * w.D, w.D, &p.x, <const floating *>w.b + p.first, 0,
                     gates + p.first, GH, work)
        return
    for block in range(p.x.blocks):
        column = p.first + block * p.x.step
        if w.precision != PRECISION_FULL:
            gather(w.kernels, n, &p.x, block, <const floating *>at(w.b, column, gates), f.ids + begin, gates + column,
                   GH)
            continue
        w.kernels.gather_rows(n, p.x.M, at(w.b, column, gates), at(w.Wx.values, column, gates), GH, f.ids + begin,
                              gates + column, GH)


# ---- the time loop --------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t steps_per_projection(const BatchRows *s) noexcept nogil:
    """Steps whose x Wx + b is one product: several only if they are contiguous, in a group of all rows."""
    return max(<Py_ssize_t>1, PROJECTION_ROWS // s.N) if s.count == s.N else 1


cdef inline void end_forward_step(const Call *f, Group *g, floating *type_) noexcept nogil:
    """After all members: rows that end with this step leave their final state."""
    cdef const BatchRows *s = &g.batch
    cdef Py_ssize_t H = f.layer.H, n = g.step.n, running = 0
    if g.step.index < s.T - 1:
        running = rows_at(s, time_of(s, g.step.index + 1))
    if running < n:
        memcpy(<floating *>f.h_n + (s.first + running) * H, <floating *>g.step.h + running * H,
               (n - running) * H * sizeof(floating))
        if f.c_n != NULL:
            memcpy(<floating *>f.c_n + (s.first + running) * H, <floating *>g.step.c + running * H,
                   (n - running) * H * sizeof(floating))


cdef inline void begin_projection(const Call *f, Group *g) noexcept nogil:
    """Choose the tokens whose x Wx + b is computed in this step: the rows of several steps."""
    cdef const BatchRows *s = &g.batch
    cdef Py_ssize_t step = g.step.index, low, high
    g.projection_end = min(s.T, step + steps_per_projection(s))
    low = time_of(s, g.projection_end - 1 if s.reverse else step)
    high = time_of(s, step if s.reverse else g.projection_end - 1)
    g.projection = offset_at(s, low)
    g.projected_rows = offset_at(s, high) + rows_at(s, high) - g.projection


cdef inline void begin_forward_step(const Call *f, Group *g, floating *type_) noexcept nogil:
    """Go to the next step of a group, before any member."""
    cdef const BatchRows *s = &g.batch
    cdef Py_ssize_t H = f.layer.H, GH = gate_columns(&f.layer), step = g.step.index + 1, t = time_of(s, step)
    cdef Py_ssize_t begin = offset_at(s, t), state = padded(s.count * H)
    cdef floating *scratch = <floating *>g.scratch
    g.step.index = step
    g.step.n = rows_at(s, t)
    g.step.begin = begin
    g.projected_rows = 0
    if step == g.projection_end:
        begin_projection(f, g)
    # The state before is in what the step before has written.
    g.step.h_prev = state_before(s, step, H, <const floating *>g.step.h, <const floating *>f.h0 + s.first * H, scratch)
    if f.c_n != NULL:
        g.step.c_prev = state_before(s, step, H, <const floating *>g.step.c, <const floating *>f.c0 + s.first * H,
                                     scratch + state)
    g.step.h_masked = masked_state(s, g.step.n, H, <const floating *>g.step.h_prev, scratch + f.group_size - state)
    g.step.h = <floating *>f.h + begin * H
    if saves(f):
        g.step.gates = g.step.h if state_is_gate(&f.layer) else <floating *>f.gates + begin * GH
        g.step.c = at(f.c, begin * H, type_)
        g.step.m = at(f.m, begin * H, type_)
    else:
        g.step.gates = scratch + 5 * state + (begin - g.projection) * GH
        g.step.c = scratch + (3 + (step & 1)) * state
        g.step.m = scratch + 3 * state


cdef inline bint advance_forward(const Call *f, Group *g, floating *type_) noexcept nogil:
    """Go to the next stage of a group, before any member; return whether there is one."""
    if not g.running:
        return False
    if g.step.index >= 0 and g.stage + 1 < forward_stages(&f.layer):
        g.stage += 1
        return True
    if g.step.index >= 0:
        end_forward_step(f, g, type_)
    g.running = g.step.index + 1 < g.batch.T
    if g.running:
        begin_forward_step(f, g, type_)
        g.stage = 0
    return g.running


cdef inline void forward_stage(const Call *f, const Group *g, const Member *p, floating *type_) noexcept nogil:
    """What a member does in the stage of its group."""
    cdef floating *work = <floating *>f.work + ((g - f.groups) * f.plan.members + (p - f.members)) * f.work_size
    if g.stage == 0 and g.projected_rows > 0:
        project(f, p, g.projection, g.projected_rows,
                <floating *>g.step.gates - (g.step.begin - g.projection) * gate_columns(&f.layer), work)
    step_forward(&f.layer, p, g.stage, g.step.n, <const floating *>g.step.h_prev, <const floating *>g.step.h_masked,
                 <const floating *>g.step.c_prev, <floating *>g.step.gates, <floating *>g.step.c, <floating *>g.step.m,
                 <floating *>g.scratch + 2 * padded(g.batch.count * f.layer.H), <floating *>g.step.h, work)


cdef inline void forward_steps(const Call *f, Group *g, floating *type_) noexcept nogil:
    """The time loop of a group with a single member."""
    while advance_forward(f, g, type_) and not (g.step.index % STEPS_BETWEEN_LOOKS == 0 and is_interrupted()):
        forward_stage(f, g, f.members, type_)


# ---- phases ---------------------------------------------------------------------------------------------------------

cdef inline int next_forward_phase(Call *f, floating *type_) noexcept nogil:
    """Go to the next phase of a call, after begin_forward, and return its number of pieces: 0 after the last."""
    cdef bint running = False
    cdef int i
    if f.phase == STARTING:
        f.phase = PACKING
        if not f.has_packed and (f.packs_x or f.packs_h):
            return plan_size(&f.plan)
    if f.plan.members == 1:
        if f.phase == STEPPING:
            return 0
        f.phase = STEPPING
        return f.plan.groups
    f.phase = STEPPING
    for i in range(f.plan.groups):
        running |= advance_forward(f, f.groups + i, type_)
    return plan_size(&f.plan) if running else 0


cdef inline void run_forward_piece(const Call *f, int piece, floating *type_) noexcept nogil:
    cdef Group *g
    if f.phase == PACKING:
        pack_forward(f, piece, type_)
    elif f.plan.members == 1:
        forward_steps(f, f.groups + piece, type_)
    else:
        g = f.groups + piece // f.plan.members
        if g.running:
            forward_stage(f, g, f.members + piece % f.plan.members, type_)
