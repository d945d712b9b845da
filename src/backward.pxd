"""The backward pass: prepare the factors, then run the time loop in reverse, chunk by chunk.

After the steps of a chunk the gradients of the weights, and of x, are summed over its tokens. A chunk has about 256
tokens a group, so that their gate gradients are still in the cache. The time loop is cut by rows and hidden units, the
sums by columns of the weights.

The sums may be those of shards of the rows instead. Each is the same chain as that of a call with the rows of its shard
alone; the time loop runs over all rows at once.
"""

from cython cimport floating

from call cimport *
from cells cimport *
from plan cimport *
from products cimport *
from steps cimport *
from threads cimport *


# ---- chunks of steps ------------------------------------------------------------------------------------------------

cdef enum:
    CHUNK_TOKENS = 256
    # Of several shards a chunk is longer: the gradients of each pass once a chunk, as many bytes as its tokens.
    SHARDS_OF_CHUNK = 4


cdef inline Chunk chunk_before(const Call *f, Py_ssize_t end) noexcept nogil:
    """The chunk of steps that ends before step `end`."""
    cdef const BatchRows *s = &f.batch
    cdef Py_ssize_t rows
    cdef Chunk chunk
    chunk.first = chunk.end = end
    chunk.count = 0
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
    f.h_before = chunk_array(states, irregular or f.batch.mask != NULL, &address, item)
    f.c_before = chunk_array(states, irregular and f.dpeephole != NULL, &address, item)
    return address


cdef inline Py_ssize_t packed_transpose_size(const Call *f) noexcept nogil:
    """Values of the packed transpose of Wx, which dx needs."""
    return 0 if f.dx == NULL else padded(packed_size(gate_columns(&f.layer), f.layer.D))


cdef inline Py_ssize_t set_backward_scratch(Call *f) noexcept nogil:
    """Set the sizes of the scratch and return its number of values.

    First the arrays of a chunk, placed by place_chunk; then the packed transposes of Wx and, for each member, of Wh;
    then three states for each group, and what weight_gradients needs for each piece.
    """
    cdef const Layer *w = &f.layer
    cdef int size = plan_size(&f.plan)
    cdef Py_ssize_t columns = largest_share(gate_columns(w), size, LARGEST_PANEL)
    f.chunk_tokens = min(token_count(&f.batch), max(<Py_ssize_t>CHUNK_TOKENS * min(f.shards, <int>SHARDS_OF_CHUNK)
                                                    * f.plan.groups, f.batch.N))
    f.packed_size = padded(packed_size(recurrent_columns(w), f.plan.units))
    f.group_size = 3 * padded(largest_group(&f.plan) * w.H)
    f.work_size = outer_sums_work(max(w.D, w.H), f.chunk_tokens, columns,
                                  f.dWx.column_step != 1 or f.dWh.column_step != 1)
    return (place_chunk(f, 0, 1) + packed_transpose_size(f) + f.plan.members * f.packed_size
            + f.plan.groups * f.group_size + size * f.work_size)


# ---- factors --------------------------------------------------------------------------------------------------------

cdef inline void begin_backward(Call *f, floating *scratch) noexcept nogil:
    """Set the chunk, the groups and the members with their factors, in scratch of set_backward_scratch values."""
    cdef const Layer *w = &f.layer
    cdef Py_ssize_t columns = gated_columns(w), candidates = recurrent_columns(w) - columns
    cdef floating *room = <floating *>place_chunk(f, <size_t>scratch, sizeof(floating))
    cdef floating *packed
    cdef Member *p
    cdef Matrix Wh
    cdef int i
    f.chunk.first = f.batch.T
    if f.dx != NULL:
        packed = room
        f.Wx_transposed = factor(w.kernels, gate_columns(w), w.D, 1, 0, transpose(w.Wx), &packed)
        room += packed_transpose_size(f)
    for i in range(f.plan.members):
        p = f.members + i
        begin_member(p, f, i)
        packed = room
        Wh = transpose(submatrix(w.Wh, p.first, 0, room))
        p.gates = factor(w.kernels, columns, p.units, 1, 0, Wh, &packed)
        p.candidate = factor(w.kernels, candidates, p.units, 1, 0, submatrix(Wh, columns, 0, room), &packed)
        room += f.packed_size
    begin_groups(f)
    for i in range(f.plan.groups):
        f.groups[i].scratch = room
        room += f.group_size
    f.work = room


cdef inline void pack_backward(const Call *f, int piece, floating *type_) noexcept nogil:
    """Pack a share of the factors of a member, and of the transpose of Wx."""
    cdef const Member *p = f.members + piece % f.plan.members
    cdef int share = piece // f.plan.members, shares = f.plan.groups
    pack_factor(f.layer.kernels, &p.gates, share, shares, type_)
    pack_factor(f.layer.kernels, &p.candidate, share, shares, type_)
    if f.dx != NULL:
        pack_factor(f.layer.kernels, &f.Wx_transposed, piece, plan_size(&f.plan), type_)


# ---- the time loop --------------------------------------------------------------------------------------------------

cdef inline void begin_backward_chunk(const Call *f, Group *g) noexcept nogil:
    g.running = True
    g.step.index = f.chunk.end
    g.ends = g.begins = False


cdef inline void begin_backward_step(const Call *f, Group *g, floating *type_) noexcept nogil:
    """Go to the step before, in order of computation, of a group, before any member."""
    cdef const BatchRows *s = &g.batch
    cdef Py_ssize_t H = f.layer.H, step = g.step.index - 1, t = time_of(s, step)
    cdef Py_ssize_t before = offset_at(s, time_of(s, step - 1)) if step > 0 else 0
    cdef floating *scratch = <floating *>g.scratch
    g.step.index = step
    g.step.n = rows_at(s, t)
    g.step.begin = offset_at(s, t)
    g.step.resets = resets_at(s, t)
    g.step.h_prev = state_before(s, step, H, <const floating *>f.h + before * H,
                                 <const floating *>f.h0 + s.first * H, scratch)
    if f.dc0 != NULL:
        g.step.c_prev = state_before(s, step, H, <const floating *>f.c + before * H,
                                     <const floating *>f.c0 + s.first * H, scratch + padded(s.count * H))


cdef inline bint advance_backward(const Call *f, Group *g, floating *type_) noexcept nogil:
    """Go to the next stages of a group in the chunk, before any member; return whether there are any.

    The last stage of a step and the first one of the next go together: a member needs only its own units of dh.
    """
    cdef bint begun = g.step.index < f.chunk.end
    if not g.running or (g.ends and not g.begins):
        g.running = False
        return False
    if begun and g.stage + 2 < backward_stages(&f.layer):
        g.ends = g.begins = False
        g.stage += 1
        return True
    g.ends, g.begins = begun, g.step.index > f.chunk.first
    g.ended = g.step
    g.stage = 0
    if g.begins:
        begin_backward_step(f, g, type_)
    return True


cdef inline void backward_stage(const Call *f, const Group *g, const Member *p, const Step *step, int stage,
                                floating *type_) noexcept nogil:
    """What a member does in one stage of a step."""
    cdef Py_ssize_t H = f.layer.H, GH = gate_columns(&f.layer), begin = step.begin, kept = begin - f.chunk.begin
    step_backward(&f.layer, p, stage, step.n, <const floating *>step.h_prev, <const floating *>step.c_prev,
                  at(f.gates, begin * GH, type_), at(f.c, begin * H, type_), at(f.m, begin * H, type_),
                  at(f.h, begin * H, type_), at(f.batch.mask, g.batch.first * H, type_),
                  <floating *>f.dh0 + g.batch.first * H,
                  at(f.dc0, g.batch.first * H, type_), at(f.dgates, kept * GH, type_), at(f.dm, kept * H, type_),
                  <floating *>g.scratch + 2 * padded(g.batch.count * H), at(f.rh, kept * H, type_))


cdef inline void begin_member_step(const Call *f, const Group *g, const Member *p, floating *type_) noexcept nogil:
    """The first stage of a step, with what weight_gradients needs of the states before it."""
    cdef const Step *step = &g.step
    cdef Py_ssize_t H = f.layer.H, u = p.first, kept = step.begin - f.chunk.begin
    if f.batch.mask != NULL:
        multiply_rows(step.n, p.units, <const floating *>step.h_prev + u,
                      <const floating *>f.batch.mask + g.batch.first * H + u, <floating *>f.h_before + kept * H + u, H)
    elif f.h_before != NULL:
        copy_rows(step.n, p.units, <const floating *>step.h_prev + u, <floating *>f.h_before + kept * H + u, H)
    if f.c_before != NULL:
        copy_rows(step.n, p.units, <const floating *>step.c_prev + u, <floating *>f.c_before + kept * H + u, H)
    if f.dh != NULL:
        f.layer.kernels.add(step.n, p.units, <const floating *>f.dh + step.begin * H + u, H,
                            <floating *>f.dh0 + g.batch.first * H + u, H)
    backward_stage(f, g, p, step, 0, type_)


cdef inline void end_member_step(const Call *f, const Group *g, const Member *p, floating *type_) noexcept nogil:
    """The last stage of a step."""
    cdef const Step *step = &g.ended
    cdef Py_ssize_t H = f.layer.H, state = g.batch.first * H + p.first
    backward_stage(f, g, p, step, backward_stages(&f.layer) - 1, type_)
    if step.resets != NULL:
        zero_rows(step.resets, step.n, p.units, <floating *>f.dh0 + state, H)
        if f.dc0 != NULL:
            zero_rows(step.resets, step.n, p.units, <floating *>f.dc0 + state, H)


cdef inline void backward_stages_of(const Call *f, const Group *g, const Member *p, floating *type_) noexcept nogil:
    """What a member does after advance_backward."""
    if g.ends:
        end_member_step(f, g, p, type_)
    if g.begins:
        begin_member_step(f, g, p, type_)
    if not g.ends and not g.begins:
        backward_stage(f, g, p, &g.step, g.stage, type_)


cdef inline void backward_steps(const Call *f, Group *g, floating *type_) noexcept nogil:
    """The time loop of a group with a single member, through a chunk."""
    while advance_backward(f, g, type_) and not (g.step.index % STEPS_BETWEEN_LOOKS == 0 and is_interrupted()):
        backward_stages_of(f, g, f.members, type_)


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


cdef inline int pieces_of(const Call *f, Chunk chunk, int shard, StatesBefore before, Piece *pieces,
                          floating *type_) noexcept nogil:
    """Cut the tokens of a shard of a chunk into at most two pieces, and return how many."""
    cdef const BatchRows *s = &f.batch
    cdef Py_ssize_t H = f.layer.H, first = token_count(s) - s.N if s.reverse else 0
    pieces[0].tokens = shard_tokens(backward_tokens(chunk.begin, chunk.count, s.reverse), shard, f.shards)
    if before.kept != NULL:
        pieces[0].states = <const floating *>before.kept - chunk.begin * H
        return 1
    pieces[0].states = <const floating *>before.states + (s.N if s.reverse else -s.N) * H
    if chunk.first > 0:
        return 1
    # All but the first step of the computation, then that step.
    pieces[0].tokens.count -= s.N // f.shards
    pieces[1].tokens = shard_tokens(backward_tokens(first, s.N, s.reverse), shard, f.shards)
    pieces[1].states = <const floating *>before.initial - first * H
    return 2


cdef inline void weight_gradients(const Call *f, Chunk chunk, int shard, bint adds, int part, int parts,
                                  floating *work) noexcept nogil:
    """Compute a share of the columns of dWx, dWh, db, dbhn and dpeephole of a shard, after backward_steps.

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
    cdef Tokens tokens = shard_tokens(backward_tokens(chunk.begin, chunk.count, s.reverse), shard, f.shards)
    cdef Py_ssize_t step = shard * f.shard_step
    cdef Matrix dWx = submatrix(f.dWx, 0, 0, work), dWh = submatrix(f.dWh, 0, 0, work)
    cdef floating *db = at(f.db, step, work)
    cdef floating *dbhn = at(f.dbhn, step, work)
    cdef floating *dpeephole = at(f.dpeephole, step, work)
    cdef Piece[2] pieces
    cdef const floating *states
    cdef StatesBefore before
    # Arrays kept of the chunk, so that the index of a token is that of the whole batch.
    cdef const floating *dgates = at(f.dgates, -chunk.begin * GH, work)
    cdef const floating *dm = at(f.dm, -chunk.begin * H, work)
    cdef const floating *rh = at(f.rh, -chunk.begin * H, work)
    cdef Matrix candidate
    cdef OuterSum[2] sums
    cdef int i, count
    cdef bint candidate_adds = adds
    dWx.values, dWh.values = at(dWx.values, step, work), at(dWh.values, step, work)
    candidate = submatrix(dWh, 0, columns + unit, work)
    # dWx (D,GH) = x' (D,L) dgates (L,GH)
    # dWh (H,GH) = h'' (H,L) dgates (L,GH); in the candidate's block of a GRU r h' replaces h', or dm dgates
    # db (GH,) = sum of dgates over the tokens
    if f.ids != NULL:
        k.scatter_add(tokens.count, end - begin, f.ids + tokens.first, tokens.step,
                      dgates + tokens.first * GH + begin, tokens.step * GH, at(dWx.values, begin, work), GH)
    before.kept, before.states, before.initial = f.h_before, f.h, f.h0
    for i in range(pieces_of(f, chunk, shard, before, pieces, work)):
        states = <const floating *>pieces[i].states
        count = 0
        if begin < columns:
            sums[count] = outer_sum(states, H, min(end, columns) - begin, submatrix(dWh, 0, begin, work), adds)
            count += 1
        if f.ids == NULL:
            sums[count] = outer_sum(<const floating *>f.x, w.D, end - begin, submatrix(dWx, 0, begin, work), adds)
            count += 1
        add_outer_sums(k, pieces[i].tokens, end - begin, dgates + begin, GH, sums, count, db + begin, work)
        if dm != NULL:
            sums[0] = outer_sum(states, H, units, candidate, adds)
            add_outer_sums(k, pieces[i].tokens, units, dm + unit, H, sums, 1, dbhn + unit, work)
        adds = adds or pieces[i].tokens.count > 0
    if rh != NULL:
        sums[0] = outer_sum(rh, H, units, candidate, candidate_adds)
        add_outer_sums(k, tokens, units, dgates + columns + unit, GH, sums, 1, <floating *>NULL, work)
    if dpeephole != NULL:
        # rows i, f: sum of da c';   row o: sum of da_o c, or da_o c'
        before.kept, before.states, before.initial = f.c_before, f.c, f.c0
        for i in range(pieces_of(f, chunk, shard, before, pieces, work)):
            states = <const floating *>pieces[i].states
            peephole_sums(f, pieces[i].tokens, 0, dgates, states, unit, units, dpeephole)
            peephole_sums(f, pieces[i].tokens, 1, dgates, states, unit, units, dpeephole)
            if w.cell.peephole_output == PEEPHOLE_PREVIOUS:
                peephole_sums(f, pieces[i].tokens, 2, dgates, states, unit, units, dpeephole)
        if w.cell.peephole_output == PEEPHOLE_CURRENT:
            peephole_sums(f, tokens, 2, dgates, <const floating *>f.c, unit, units, dpeephole)


cdef inline void peephole_sums(const Call *f, Tokens tokens, int row, const floating *dgates, const floating *c,
                               Py_ssize_t unit, Py_ssize_t units, floating *dpeephole) noexcept nogil:
    """dpeephole[row] += sum over the tokens of da c, with da of gate i, f, o for row 0, 1, 2"""
    cdef Py_ssize_t H = f.layer.H, GH = gate_columns(&f.layer)
    cdef Py_ssize_t block = f.layer.cell.places[3 if row == 2 else row] * H + unit
    f.layer.kernels.product_sums(tokens.count, units, dgates + tokens.first * GH + block, tokens.step * GH,
                                 c + tokens.first * H + unit, tokens.step * H,
                                 dpeephole + row * H + unit)


cdef inline void chunk_gradients(const Call *f, int piece, floating *type_) noexcept nogil:
    """A share of the gradients of the weights and of x."""
    cdef Py_ssize_t D = f.layer.D, GH = gate_columns(&f.layer), count = f.chunk.count, begin, end
    cdef int pieces = plan_size(&f.plan), shard
    for shard in range(f.shards):
        weight_gradients(f, f.chunk, shard, f.adds or f.chunk.end < f.batch.T, piece, pieces,
                         <floating *>f.work + piece * f.work_size)
    if f.dx != NULL:
        # dx (count,D) = dgates (count,GH) Wx' (GH,D)
        begin = share_begin(count, piece, pieces, 8)
        end = share_begin(count, piece + 1, pieces, 8)
        product_from(f.layer.kernels, end - begin, at(f.dgates, begin * GH, type_), GH, &f.Wx_transposed, NULL, 0,
                     at(f.dx, (f.chunk.begin + begin) * D, type_), D, NULL)


# ---- phases ---------------------------------------------------------------------------------------------------------

cdef inline int next_backward_phase(Call *f, floating *type_) noexcept nogil:
    """Go to the next phase of a call, after begin_backward, and return its number of pieces: 0 after the last."""
    cdef int i
    cdef bint running = False
    if f.phase == STARTING:
        f.phase = PACKING
        return plan_size(&f.plan)
    if f.phase == STEPPING and f.plan.members == 1:
        f.phase = SUMMING
        return plan_size(&f.plan)
    if f.phase != STEPPING:
        if f.chunk.first == 0:
            return 0
        f.phase = STEPPING
        f.chunk = chunk_before(f, f.chunk.first)
        for i in range(f.plan.groups):
            begin_backward_chunk(f, f.groups + i)
        if f.plan.members == 1:
            return f.plan.groups
    for i in range(f.plan.groups):
        running |= advance_backward(f, f.groups + i, type_)
    if not running:
        f.phase = SUMMING
    return plan_size(&f.plan)


cdef inline void run_backward_piece(const Call *f, int piece, floating *type_) noexcept nogil:
    cdef Group *g
    if f.phase == PACKING:
        pack_backward(f, piece, type_)
    elif f.phase == SUMMING:
        chunk_gradients(f, piece, type_)
    elif f.plan.members == 1:
        backward_steps(f, f.groups + piece, type_)
    else:
        g = f.groups + piece // f.plan.members
        if g.running:
            backward_stages_of(f, g, f.members + piece % f.plan.members, type_)
