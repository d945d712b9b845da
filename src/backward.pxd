"""The backward pass of a part: prepare the factors, run the time loop in reverse, then sum over all tokens."""

from cython cimport floating

from call cimport *
from cells cimport *
from plan cimport *
from products cimport *
from steps cimport *
from threads cimport wait_for_all


# ---- scratch --------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t packed_transpose_size(const Call *f) noexcept nogil:
    """Values of the packed transpose of Wx, which dx needs."""
    return 0 if f.dx == NULL else padded(packed_size(gate_columns(&f.layer), f.layer.D))


cdef inline Py_ssize_t set_backward_scratch(Call *f) noexcept nogil:
    """Set the sizes of the scratch and return its number of values.

    First the packed transposes of Wx and, for each member, of Wh; then for each thread three states, or what
    weight_gradients needs.
    """
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t L = token_count(&f.batch), state = padded(largest_group(&f.plan) * w.H)
    cdef Py_ssize_t columns = largest_share(gate_columns(w), plan_size(&f.plan), LARGEST_PANEL)
    f.packed_size = padded(packed_size(recurrent_columns(w), f.plan.units))
    f.member_size = max(3 * state, outer_sums_work(max(w.D, w.H), L, columns,
                                                   f.dWx.column_step != 1 or f.dWh.column_step != 1))
    return packed_transpose_size(f) + f.plan.members * f.packed_size + plan_size(&f.plan) * f.member_size


# ---- factors --------------------------------------------------------------------------------------------------------

cdef inline void prepare_backward(Part *p, const Call *f, floating *packed, int part, int parts) noexcept nogil:
    """Set the recurrent factors, transposed."""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t columns = gated_columns(w), candidates = recurrent_columns(w) - columns
    cdef Matrix Wh = transpose(submatrix(w.Wh, p.first, 0, packed))
    cdef floating *room = packed
    p.gates = factor(w.kernels, columns, p.units, 1, 0, Wh, &room, part, parts)
    p.candidate = factor(w.kernels, candidates, p.units, 1, 0, submatrix(Wh, columns, 0, packed), &room, part, parts)


# ---- the time loop --------------------------------------------------------------------------------------------------

cdef inline void backward_steps(const Call *f, const Part *p, floating *own, floating *shared) noexcept nogil:
    """Compute dh0, dc0 and the inputs of weight_gradients for the part's rows and units, after prepare_backward."""
    cdef const Layer *w = &f.layer
    cdef const BatchRows *s = &p.batch
    cdef Py_ssize_t H = w.H, GH = gate_columns(w), state = padded(s.count * H), u = p.first
    cdef Py_ssize_t step, t, n, begin, before
    cdef bint has_c = f.dc0 != NULL
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
        if has_c:
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
            if has_c:
                zero_rows(resets, n, p.units, dc + u, H)


# ---- sums over all tokens -------------------------------------------------------------------------------------------

# The states before each token: an array of their own, or `states` (L, H) shifted by one step with `initial` (N, H) first.
cdef struct StatesBefore:
    const void *own
    const void *states
    const void *initial


# Some tokens, and the array whose row of a token is the state before it.
cdef struct Piece:
    Tokens tokens
    const void *states


cdef inline int pieces_of(const BatchRows *s, StatesBefore before, Py_ssize_t H, Piece *pieces,
                          floating *type_) noexcept nogil:
    """Cut all tokens into at most two pieces, and return how many."""
    cdef Py_ssize_t L = token_count(s), first = L - s.N if s.reverse else 0
    pieces[0].tokens = pieces[1].tokens = all_tokens(s)
    if before.own != NULL:
        pieces[0].states = before.own
        return 1
    # All but the first step of the computation, then that step.
    pieces[0].tokens.count = L - s.N
    pieces[1].tokens.count = s.N
    pieces[1].tokens.first = first if s.reverse else s.N - 1
    pieces[0].states = <const floating *>before.states + (s.N if s.reverse else -s.N) * H
    pieces[1].states = <const floating *>before.initial - first * H
    return 2


cdef inline void weight_gradients(const Call *f, int part, int parts, floating *work) noexcept nogil:
    """Compute a share of the columns of dWx, dWh, db, dbhn and dpeephole, after backward_steps."""
    cdef const Layer *w = &f.layer
    cdef const BatchRows *s = &f.batch
    cdef const kernel_table *k = w.kernels
    cdef Py_ssize_t H = w.H, GH = gate_columns(w), columns = gated_columns(w)
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
    cdef Matrix candidate = submatrix(f.dWh, 0, columns + unit, work)
    cdef OuterSum[2] sums
    cdef int i, count
    cdef bint adds = f.adds
    # dWx (D,GH) = x' (D,L) dgates (L,GH)
    # dWh (H,GH) = h'' (H,L) dgates (L,GH); in the candidate's block of a GRU r h' replaces h', or dm dgates
    # db (GH,) = sum of dgates over the tokens
    if f.ids != NULL:
        k.scatter_add(tokens.count, end - begin, f.ids + tokens.first, tokens.step,
                      dgates + tokens.first * GH + begin, tokens.step * GH, at(f.dWx.values, begin, work), GH)
    before.own, before.states, before.initial = f.h_before, f.h, f.h0
    for i in range(pieces_of(s, before, H, pieces, work)):
        states = <const floating *>pieces[i].states
        count = 0
        if begin < columns:
            sums[count] = outer_sum(states, H, min(end, columns) - begin, submatrix(f.dWh, 0, begin, work), adds)
            count += 1
        if f.ids == NULL:
            sums[count] = outer_sum(<const floating *>f.x, w.D, end - begin, submatrix(f.dWx, 0, begin, work), adds)
            count += 1
        add_outer_sums(k, pieces[i].tokens, end - begin, dgates + begin, GH, sums, count, at(f.db, begin, work), work)
        if dm != NULL:
            sums[0] = outer_sum(states, H, units, candidate, adds)
            add_outer_sums(k, pieces[i].tokens, units, dm + unit, H, sums, 1, at(f.dbhn, unit, work), work)
        adds = adds or pieces[i].tokens.count > 0
    if f.rh != NULL:
        sums[0] = outer_sum(<const floating *>f.rh, H, units, candidate, f.adds)
        add_outer_sums(k, tokens, units, dgates + columns + unit, GH, sums, 1, <floating *>NULL, work)
    if f.dpeephole != NULL:
        # rows i, f: sum of da c';   row o: sum of da_o c, or da_o c'
        before.own, before.states, before.initial = f.c_before, f.c, f.c0
        for i in range(pieces_of(s, before, H, pieces, work)):
            states = <const floating *>pieces[i].states
            peephole_sums(f, pieces[i].tokens, 0, states, unit, units)
            peephole_sums(f, pieces[i].tokens, 1, states, unit, units)
            if w.cell.peephole_output == PEEPHOLE_PREVIOUS:
                peephole_sums(f, pieces[i].tokens, 2, states, unit, units)
        if w.cell.peephole_output == PEEPHOLE_CURRENT:
            peephole_sums(f, tokens, 2, <const floating *>f.c, unit, units)


cdef inline void peephole_sums(const Call *f, Tokens tokens, int row, const floating *c, Py_ssize_t unit,
                               Py_ssize_t units) noexcept nogil:
    """dpeephole[row] += sum over the tokens of da c, with da of gate i, f, o for row 0, 1, 2"""
    cdef Py_ssize_t H = f.layer.H, GH = gate_columns(&f.layer)
    cdef Py_ssize_t block = f.layer.cell.places[3 if row == 2 else row] * H + unit
    f.layer.kernels.product_sums(tokens.count, units, <const floating *>f.dgates + tokens.first * GH + block,
                                 tokens.step * GH, c + tokens.first * H + unit, tokens.step * H,
                                 <floating *>f.dpeephole + row * H + unit)


cdef inline void backward_part(const Call *f, int member, floating *scratch) noexcept nogil:
    """What one thread does of a backward call."""
    cdef Part p
    cdef const Layer *w = &f.layer
    cdef const Plan *plan = &f.plan
    cdef int parts = plan_size(plan)
    cdef Py_ssize_t L = token_count(&f.batch), D = w.D, GH = gate_columns(w)
    cdef Py_ssize_t begin = share_begin(L, member, parts, 8), end = share_begin(L, member + 1, parts, 8)
    cdef floating *packed_x = scratch
    cdef floating *packed = scratch + packed_transpose_size(f)
    cdef floating *own = packed + plan.members * f.packed_size
    begin_part(&p, f, member)
    if f.dx != NULL:
        p.x = factor(w.kernels, GH, D, 1, 0, transpose(w.Wx), &packed_x, member, parts)
    prepare_backward(&p, f, packed + member % plan.members * f.packed_size, member // plan.members, plan.groups)
    if plan.groups > 1:
        wait_for_all(f.barriers, parts)
    backward_steps(f, &p, own + member * f.member_size, own + (member - member % plan.members) * f.member_size)
    wait_for_all(f.barriers, parts)
    weight_gradients(f, member, parts, own + member * f.member_size)
    # dx (L,D) = dgates (L,GH) Wx' (GH,D)
    if f.dx != NULL:
        product_from(w.kernels, end - begin, at(f.dgates, begin * GH, own), GH, &p.x, NULL, 0,
                     at(f.dx, begin * D, own), D)
