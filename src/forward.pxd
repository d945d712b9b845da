"""The forward pass of a part: prepare the factors, then run the time loop. backward.pxd is its mirror image."""

from cython cimport floating
from libc.string cimport memcpy, memset

from call cimport *
from interrupt cimport *
from plan cimport *
from products cimport *
from steps cimport *
from threads cimport wait_for_all


cdef inline Py_ssize_t steps_per_projection(const BatchRows *s) noexcept nogil:
    """Steps whose x Wx + b is one product: several only if they are contiguous, in a group of all rows."""
    return max(<Py_ssize_t>1, PROJECTION_ROWS // s.N) if s.count == s.N else 1


# ---- scratch --------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t packed_weights_size(const Call *f) noexcept nogil:
    """Values that prepare_forward packs for each member of a group."""
    cdef Py_ssize_t H = f.layer.H, D = f.layer.D, units = f.plan.units
    cdef Py_ssize_t columns = gated_columns(&f.layer), candidates = recurrent_columns(&f.layer) - columns
    cdef Py_ssize_t blocks = f.layer.cell.num_gates
    if units == H:
        return ((packed_size(H, columns) + packed_size(H, candidates) if f.packs_h else 0)
                + (packed_size(D, blocks * H) if f.packs_x else 0))
    return ((recurrent_columns(&f.layer) // H * packed_size(H, units) if f.packs_h else 0)
            + (blocks * packed_size(D, units) if f.packs_x else 0))


cdef inline Py_ssize_t set_forward_scratch(Call *f) noexcept nogil:
    """Set the sizes of the scratch and return its number of values.

    First the packed weights of each member; then for each thread two states, r h', and where nothing is saved two
    more states and the gates of a projection.
    """
    cdef Py_ssize_t H = f.layer.H, rows = largest_group(&f.plan)
    f.packed_size = 0 if f.has_packed else padded(packed_weights_size(f))
    f.member_size = 3 * padded(rows * H)
    if f.gates == NULL:
        f.member_size += 2 * padded(rows * H)
        if not state_is_gate(&f.layer):
            f.member_size += padded(max(rows, min(f.batch.T * f.batch.N, <Py_ssize_t>PROJECTION_ROWS))
                                    * gate_columns(&f.layer))
    return f.plan.members * f.packed_size + plan_size(&f.plan) * f.member_size


cdef inline void *state_or_zeros(const Call *f, void *state, char **room, size_t item) noexcept nogil:
    """The state, or if it is NULL zeros in *room, which is advanced."""
    cdef size_t size = padded(f.batch.N * f.layer.H) * item
    if state != NULL:
        return state
    memset(room[0], 0, size)
    room[0] += size
    return room[0] - size


# ---- factors and projections ----------------------------------------------------------------------------------------

cdef inline void prepare_forward(Part *p, const Call *f, floating *packed, int part, int parts) noexcept nogil:
    """Set the factors, packed into `packed` or by pack_weights. Ids read rows of Wx in place."""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t H = w.H, columns = gated_columns(w), candidates = recurrent_columns(w) - columns
    if f.has_packed:
        packed = <floating *>f.packed
        parts = 0
    cdef Matrix Wx = submatrix(w.Wx, 0, p.first, packed)
    cdef Matrix Wh = submatrix(w.Wh, 0, p.first, packed)
    cdef Matrix candidate = submatrix(Wh, 0, columns, packed)
    cdef floating **room_h = &packed if f.packs_h else NULL
    cdef floating **room_x = &packed if f.packs_x else NULL
    if p.units == H:
        p.gates = factor(w.kernels, H, columns, 1, 0, Wh, room_h, part, parts)
        p.candidate = factor(w.kernels, H, candidates, 1, 0, candidate, room_h, part, parts)
        p.x = factor(w.kernels, w.D, gate_columns(w), 1, 0, Wx, room_x, part, parts)
    else:
        p.gates = factor(w.kernels, H, p.units, columns // H, H, Wh, room_h, part, parts)
        p.candidate = factor(w.kernels, H, p.units, candidates // H, H, candidate, room_h, part, parts)
        p.x = factor(w.kernels, w.D, p.units, w.cell.num_gates, H, Wx, room_x, part, parts)


cdef inline void pack_weights(Call *f, floating *packed) noexcept nogil:
    """Pack Wx and Wh of a call with a plan for one thread, packs_x and packs_h: packed_weights_size(f) values."""
    cdef Part p
    begin_part(&p, f, 0)
    prepare_forward(&p, f, packed, 0, 1)


cdef inline void project(const Call *f, const Part *p, Py_ssize_t begin, Py_ssize_t n, floating *gates) noexcept nogil:
    """gates (n, GH) = x Wx + b for the n tokens from `begin` on"""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t GH = gate_columns(w)
    cdef int block
    if f.ids == NULL:
        product_from(w.kernels, n, <const floating *>f.x + begin * w.D, w.D, &p.x, <const floating *>w.b + p.first, 0,
                     gates + p.first, GH)
        return
    for block in range(p.x.blocks):
        w.kernels.gather_rows(n, p.x.M, at(w.b, p.first + block * p.x.step, gates),
                              at(w.Wx.values, p.first + block * p.x.step, gates), GH, f.ids + begin,
                              gates + p.first + block * p.x.step, GH)


# ---- the time loop --------------------------------------------------------------------------------------------------

cdef inline void forward_steps(const Call *f, const Part *p, floating *own, floating *shared) noexcept nogil:
    """Compute h and the final states of the part's rows and units, after prepare_forward.

    own, shared: scratch of the thread and of its group, f.member_size values each; they may be the same.
    """
    cdef const Layer *w = &f.layer
    cdef const BatchRows *s = &p.batch
    cdef Py_ssize_t H = w.H, GH = gate_columns(w), state = padded(s.count * H)
    cdef Py_ssize_t step, t, n, low, high, begin, chunk_end = 0, first_token = 0, running
    cdef bint saves = f.gates != NULL or state_is_gate(w), has_c = f.c_n != NULL
    cdef bint has_m = w.cell.form == FORM_RESET_AFTER
    cdef floating *h_scratch = own
    cdef floating *c_scratch = own + state
    cdef floating *rh = shared + 2 * state
    cdef floating *spare = shared + 3 * state
    cdef floating *projected = at(f.h if state_is_gate(w) else f.gates, 0, own) if saves else spare + 2 * state
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
            first_token = 0 if saves else begin
            project(f, p, begin, offset_at(s, high) + rows_at(s, high) - begin, projected + (begin - first_token) * GH)
        t = time_of(s, step)
        n = rows_at(s, t)
        begin = offset_at(s, t)
        h_prev = state_before(s, step, H, h_prev, h0, h_scratch)
        if has_c:
            c_prev = state_before(s, step, H, c_prev, c0, c_scratch)
            c_t = <floating *>f.c + begin * H if saves else spare + (step & 1) * state
        if has_m:
            m_t = <floating *>f.m + begin * H if saves else spare
        step_forward(w, p, n, h_prev, c_prev, projected + (begin - first_token) * GH, c_t, m_t, rh, h + begin * H)
        look_for_interrupt(f, p, step)
        meet(p)
        if is_last_step(f, p, step):
            return
        h_prev = h + begin * H
        c_prev = c_t
        # Rows that end with this step leave their final state.
        running = 0 if step == s.T - 1 else rows_at(s, time_of(s, step + 1))
        if running < n and p.leads:
            memcpy(h_n + running * H, h_prev + running * H, (n - running) * H * sizeof(floating))
            if has_c:
                memcpy(c_n + running * H, c_prev + running * H, (n - running) * H * sizeof(floating))


cdef inline void forward_part(const Call *f, int member, floating *scratch) noexcept nogil:
    """What one thread does of a forward call."""
    cdef Part p
    cdef const Plan *plan = &f.plan
    cdef floating *own = scratch + plan.members * f.packed_size
    begin_part(&p, f, member)
    prepare_forward(&p, f, scratch + member % plan.members * f.packed_size, member // plan.members, plan.groups)
    if plan.groups > 1:
        wait_for_all(f.barriers, plan_size(plan))
    forward_steps(f, &p, own + member * f.member_size, own + (member - member % plan.members) * f.member_size)
