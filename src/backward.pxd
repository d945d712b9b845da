"""The backward pass of a part: prepare the factors, then run the time loop in reverse, chunk by chunk.

After the steps of a chunk the gradients of the weights are summed over its tokens. On one thread a chunk has about 256
tokens, so that their gate gradients are still in the cache. On several threads all steps are one chunk: the time loop
is split by rows and hidden units, the sums by columns of the weights, and threads would have to meet twice per chunk.
"""

from cython cimport floating

from call cimport *
from interrupt cimport *
from cells cimport *
from plan cimport *
from products cimport *
from steps cimport *
from threads cimport wait_for_all


# ---- chunks of steps ------------------------------------------------------------------------------------------------

cdef enum:
    CHUNK_TOKENS = 256


# Steps first .. end - 1 of a computation, and their tokens begin .. begin + count - 1.
cdef struct Chunk:
    Py_ssize_t first, end, begin, count


cdef inline Chunk chunk_before(const Call *f, const Part *p, Py_ssize_t end) noexcept nogil:
    """The chunk of steps that ends before step `end`."""
    cdef const BatchRows *s = &p.batch
    cdef Py_ssize_t rows
    cdef Chunk chunk
    chunk.end = end
    if plan_size(&f.plan) > 1:
        chunk.first = chunk.begin = 0
        chunk.count = token_count(&f.batch)
        return chunk
    chunk.first, chunk.count = end, 0
    while chunk.first > 0:
        rows = rows_at(s, time_of(s, chunk.first - 1))
        if chunk.count + rows > f.chunk_tokens:
            break
        chunk.first -= 1
        chunk.count += rows
    chunk.begin = offset_at(s, time_of(s, end - 1 if s.reverse else chunk.first))
    return chunk


# ---- scratch --------------------------------------------------------------------------------------------------------

cdef inline void *chunk_array(Py_ssize_t values, bint wanted, size_t *address, size_t item) noexcept nogil:
    """Return the array at *address, which is advanced past it; NULL if the array is not wanted."""
    cdef void *array = <void *>address[0]
    if not wanted:
        return NULL
    address[0] += padded(values) * item
    return array


cdef inline size_t place_chunk(Call *f, size_t address, size_t item) noexcept nogil:
    """Place the arrays of a chunk from an address on, and return where they end."""
    cdef Py_ssize_t states = f.chunk_tokens * f.layer.H
    cdef bint is_gru = f.layer.cell.type == CELL_GRU, irregular = f.batch.rows != NULL or f.batch.resets != NULL
    f.dgates = chunk_array(f.chunk_tokens * gate_columns(&f.layer), True, &address, item)
    f.dm = chunk_array(states, is_gru and f.layer.cell.form == FORM_RESET_AFTER, &address, item)
    f.rh = chunk_array(states, is_gru and f.layer.cell.form == FORM_RESET_BEFORE, &address, item)
    f.h_before = chunk_array(states, irregular, &address, item)
    f.c_before = chunk_array(states, irregular and f.dpeephole != NULL, &address, item)
    return address


cdef inline Py_ssize_t packed_transpose_size(const Call *f) noexcept nogil:
    """Values of the packed transpose of Wx, which dx needs."""
    return 0 if f.dx == NULL else padded(packed_size(gate_columns(&f.layer), f.layer.D))


cdef inline Py_ssize_t set_backward_scratch(Call *f) noexcept nogil:
    """Set the sizes of the scratch and return its number of values.

    First the arrays of a chunk, placed by place_chunk; then the packed transposes of Wx and, for each member, of Wh;
    then for each thread three states, or what weight_gradients needs.
    """
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t L = token_count(&f.batch), state = padded(largest_group(&f.plan) * w.H)
    cdef Py_ssize_t columns = largest_share(gate_columns(w), plan_size(&f.plan), LARGEST_PANEL)
    f.chunk_tokens = L if plan_size(&f.plan) > 1 else min(L, max(<Py_ssize_t>CHUNK_TOKENS, f.batch.N))
    f.packed_size = padded(packed_size(recurrent_columns(w), f.plan.units))
    f.member_size = max(3 * state, outer_sums_work(max(w.D, w.H), f.chunk_tokens, columns,
                                                   f.dWx.column_step != 1 or f.dWh.column_step != 1))
    return (place_chunk(f, 0, 1) + packed_transpose_size(f) + f.plan.members * f.packed_size
            + plan_size(&f.plan) * f.member_size)


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

cdef inline void backward_steps(const Call *f, const Part *p, Chunk chunk, floating *own,
                                floating *shared) noexcept nogil:
    """Take dh0, dc0 back through a chunk of steps, and compute what weight_gradients needs, after prepare_backward."""
    cdef const Layer *w = &f.layer
    cdef const BatchRows *s = &p.batch
    cdef Py_ssize_t H = w.H, GH = gate_columns(w), state = padded(s.count * H), u = p.first
    cdef Py_ssize_t step, t, n, begin, before, kept
    cdef bint has_c = f.dc0 != NULL
    cdef const kernel_table *k = w.kernels
    cdef const floating *h0 = <const floating *>f.h0 + s.first * H
    cdef const floating *c0 = at(f.c0, s.first * H, own)
    cdef floating *dh = <floating *>f.dh0 + s.first * H
    cdef floating *dc = at(f.dc0, s.first * H, own)
    cdef const floating *h_prev
    cdef const floating *c_prev = NULL
    cdef const char *resets
    for step in range(chunk.end - 1, chunk.first - 1, -1):
        t = time_of(s, step)
        n = rows_at(s, t)
        begin = offset_at(s, t)
        kept = begin - chunk.begin
        before = offset_at(s, time_of(s, step - 1)) if step > 0 else 0
        h_prev = state_before(s, step, H, <const floating *>f.h + before * H, h0, own)
        if has_c:
            c_prev = state_before(s, step, H, <const floating *>f.c + before * H, c0, own + state)
        if f.h_before != NULL:
            copy_rows(n, p.units, h_prev + u, <floating *>f.h_before + kept * H + u, H)
        if f.c_before != NULL:
            copy_rows(n, p.units, c_prev + u, <floating *>f.c_before + kept * H + u, H)
        if f.dh != NULL:
            k.add(n, p.units, <const floating *>f.dh + begin * H + u, H, dh + u, H)
        look_for_interrupt(f, p, s.T - 1 - step)  # step_backward meets
        step_backward(w, p, n, h_prev, c_prev, at(f.gates, begin * GH, own), at(f.c, begin * H, own),
                      at(f.m, begin * H, own), at(f.h, begin * H, own), dh, dc, at(f.dgates, kept * GH, own),
                      at(f.dm, kept * H, own), shared + 2 * state, at(f.rh, kept * H, own))
        if is_last_step(f, p, s.T - 1 - step):
            return
        resets = resets_at(s, t)
        if resets != NULL:
            zero_rows(resets, n, p.units, dh + u, H)
            if has_c:
                zero_rows(resets, n, p.units, dc + u, H)


# ---- sums over the tokens of a chunk --------------------------------------------------------------------------------

# The states before each token: those kept of the chunk, or `states` (L, H) shifted by one step with `initial` (N, H)
# first.
cdef struct StatesBefore:
    const void *kept
    const void *states
    const void *initial


# Some tokens, and the array whose row of a token is the state before it.
cdef struct Piece:
    Tokens tokens
    const void *states


cdef inline int pieces_of(const BatchRows *s, Chunk chunk, StatesBefore before, Py_ssize_t H, Piece *pieces,
                          floating *type_) noexcept nogil:
    """Cut the tokens of a chunk into at most two pieces, and return how many."""
    cdef Py_ssize_t first = token_count(s) - s.N if s.reverse else 0
    pieces[0].tokens = pieces[1].tokens = backward_tokens(chunk.begin, chunk.count, s.reverse)
    if before.kept != NULL:
        pieces[0].states = <const floating *>before.kept - chunk.begin * H
        return 1
    pieces[0].states = <const floating *>before.states + (s.N if s.reverse else -s.N) * H
    if chunk.first > 0:
        return 1
    # All but the first step of the computation, then that step.
    pieces[0].tokens.count -= s.N
    pieces[1].tokens = backward_tokens(first, s.N, s.reverse)
    pieces[1].states = <const floating *>before.initial - first * H
    return 2


cdef inline void weight_gradients(const Call *f, Chunk chunk, bint adds, int part, int parts,
                                  floating *work) noexcept nogil:
    """Compute a share of the columns of dWx, dWh, db, dbhn and dpeephole, after backward_steps.

    dWh and, unless there are ids, dWx are added to if `adds`.
    """
    cdef const Layer *w = &f.layer
    cdef const BatchRows *s = &f.batch
    cdef const kernel_table *k = w.kernels
    cdef Py_ssize_t H = w.H, GH = gate_columns(w), columns = gated_columns(w)
    cdef Py_ssize_t begin = share_begin(GH, part, parts, LARGEST_PANEL)
    cdef Py_ssize_t end = share_begin(GH, part + 1, parts, LARGEST_PANEL)
    cdef Py_ssize_t unit = share_begin(H, part, parts, LARGEST_PANEL)
    cdef Py_ssize_t units = share_begin(H, part + 1, parts, LARGEST_PANEL) - unit
    cdef Tokens tokens = backward_tokens(chunk.begin, chunk.count, s.reverse)
    cdef Piece[2] pieces
    cdef const floating *states
    cdef StatesBefore before
    # Arrays kept of the chunk, so that the index of a token is that of the whole batch.
    cdef const floating *dgates = at(f.dgates, -chunk.begin * GH, work)
    cdef const floating *dm = at(f.dm, -chunk.begin * H, work)
    cdef const floating *rh = at(f.rh, -chunk.begin * H, work)
    cdef Matrix candidate = submatrix(f.dWh, 0, columns + unit, work)
    cdef OuterSum[2] sums
    cdef int i, count
    cdef bint candidate_adds = adds
    # dWx (D,GH) = x' (D,L) dgates (L,GH)
    # dWh (H,GH) = h'' (H,L) dgates (L,GH); in the candidate's block of a GRU r h' replaces h', or dm dgates
    # db (GH,) = sum of dgates over the tokens
    if f.ids != NULL:
        k.scatter_add(tokens.count, end - begin, f.ids + tokens.first, tokens.step,
                      dgates + tokens.first * GH + begin, tokens.step * GH, at(f.dWx.values, begin, work), GH)
    before.kept, before.states, before.initial = f.h_before, f.h, f.h0
    for i in range(pieces_of(s, chunk, before, H, pieces, work)):
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
    if rh != NULL:
        sums[0] = outer_sum(rh, H, units, candidate, candidate_adds)
        add_outer_sums(k, tokens, units, dgates + columns + unit, GH, sums, 1, <floating *>NULL, work)
    if f.dpeephole != NULL:
        # rows i, f: sum of da c';   row o: sum of da_o c, or da_o c'
        before.kept, before.states, before.initial = f.c_before, f.c, f.c0
        for i in range(pieces_of(s, chunk, before, H, pieces, work)):
            states = <const floating *>pieces[i].states
            peephole_sums(f, pieces[i].tokens, 0, dgates, states, unit, units)
            peephole_sums(f, pieces[i].tokens, 1, dgates, states, unit, units)
            if w.cell.peephole_output == PEEPHOLE_PREVIOUS:
                peephole_sums(f, pieces[i].tokens, 2, dgates, states, unit, units)
        if w.cell.peephole_output == PEEPHOLE_CURRENT:
            peephole_sums(f, tokens, 2, dgates, <const floating *>f.c, unit, units)


cdef inline void peephole_sums(const Call *f, Tokens tokens, int row, const floating *dgates, const floating *c,
                               Py_ssize_t unit, Py_ssize_t units) noexcept nogil:
    """dpeephole[row] += sum over the tokens of da c, with da of gate i, f, o for row 0, 1, 2"""
    cdef Py_ssize_t H = f.layer.H, GH = gate_columns(&f.layer)
    cdef Py_ssize_t block = f.layer.cell.places[3 if row == 2 else row] * H + unit
    f.layer.kernels.product_sums(tokens.count, units, dgates + tokens.first * GH + block, tokens.step * GH,
                                 c + tokens.first * H + unit, tokens.step * H,
                                 <floating *>f.dpeephole + row * H + unit)


cdef inline void backward_part(const Call *f, int member, floating *scratch) noexcept nogil:
    """What one thread does of a backward call."""
    cdef Part p
    cdef const Layer *w = &f.layer
    cdef const Plan *plan = &f.plan
    cdef int parts = plan_size(plan)
    cdef Py_ssize_t D = w.D, GH = gate_columns(w), begin, end
    cdef Chunk chunk
    cdef bint adds = f.adds
    cdef floating *packed_x = scratch
    cdef floating *packed = scratch + packed_transpose_size(f)
    cdef floating *own = packed + plan.members * f.packed_size
    begin_part(&p, f, member)
    if f.dx != NULL:
        p.x = factor(w.kernels, GH, D, 1, 0, transpose(w.Wx), &packed_x, member, parts)
    prepare_backward(&p, f, packed + member % plan.members * f.packed_size, member // plan.members, plan.groups)
    if plan.groups > 1:
        wait_for_all(f.barriers, parts)
    chunk.first = p.batch.T
    while True:
        chunk = chunk_before(f, &p, chunk.first)
        backward_steps(f, &p, chunk, own + member * f.member_size,
                       own + (member - member % plan.members) * f.member_size)
        wait_for_all(f.barriers, parts)
        if f.interrupt != NULL and f.interrupt.found:
            return
        weight_gradients(f, chunk, adds, member, parts, own + member * f.member_size)
        # dx (count,D) = dgates (count,GH) Wx' (GH,D)
        if f.dx != NULL:
            begin = share_begin(chunk.count, member, parts, 8)
            end = share_begin(chunk.count, member + 1, parts, 8)
            product_from(w.kernels, end - begin, at(f.dgates, begin * GH, own), GH, &p.x, NULL, 0,
                         at(f.dx, (chunk.begin + begin) * D, own), D)
        if chunk.first == 0:
            break
        adds = True
