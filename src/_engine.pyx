"""The doors from Python to native code.

Each subject has a room of its own in a .pxd: start with call.pxd, which describes a call and has the design note. The
callers in rnncore.engine check and allocate; nothing is checked here.
"""

cimport cython
cimport numpy as cnp
from cython cimport floating
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New

from arrays cimport *
from attention cimport *
from call cimport *
from cells cimport *
from forward cimport *
from head cimport *
from kernels cimport *
from memory cimport *
from paths cimport *
from plan cimport *
from products cimport *
from run cimport *
from sampling cimport *
from stack cimport *
from threads cimport *

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept
    unsigned long PyThread_get_thread_ident() noexcept nogil


cnp.import_array()


# ---- instruction sets -----------------------------------------------------------------------------------------------

cdef const instruction_set *active = NULL
cdef const char *CAPSULE = "rnncore.instruction_set"


cdef dict isas = {instruction_sets[k].name.decode(): PyCapsule_New(<void *>&instruction_sets[k], CAPSULE, NULL)
                  for k in range(instruction_set_count)}


def compiled_isas():
    """The instruction sets that the kernels are compiled for, narrowest first, and what was added."""
    return list(isas)


def add_isa(str name, capsule):
    """Add an instruction_set (kernels.h): see _blas.pyx."""
    isas[name] = capsule


cdef const instruction_set *find_isa(str name) except NULL:
    return <const instruction_set *>PyCapsule_GetPointer(isas[name], CAPSULE)


def is_supported(str name):
    """Whether this machine runs a compiled instruction set."""
    return bool(find_isa(name).is_supported())


def set_isa(str name):
    """Use the kernels of a compiled instruction set, which this machine runs, in all later calls."""
    global active
    active = find_isa(name)


def get_isa():
    return active.name.decode()


def kernels_of(str name, bint is_double):
    """The kernels of one instruction set, for tests that call them: a capsule of a kernel_table (kernels.h)."""
    cdef const instruction_set *found = find_isa(name)
    return PyCapsule_New(<void *>(found.f64 if is_double else found.f32), "rnncore.kernel_table", NULL)


# ---- threads --------------------------------------------------------------------------------------------------------

cdef int max_threads = 1, usable_cores = 1
cdef CostRule cost_rule


def set_usable_cores(int count):
    """Let all calls together have so many threads."""
    global usable_cores
    usable_cores = count
    set_core_count(count)


def set_cost_rule(double flops=12e6, Py_ssize_t rows=4, Py_ssize_t products=50_000, Py_ssize_t units=32, int cores=0):
    """Set the minimum flops, rows, products and units per thread, and the number of cores unless it is 0. Tests set
    others; no result depends on them."""
    set_core_count(cores or usable_cores)
    cost_rule.flops_per_thread, cost_rule.rows_per_group = max(flops, 1.), max(rows, 1)
    cost_rule.products_per_member, cost_rule.units_per_member = max(products, 1), max(units, 1)


def set_max_threads(n):
    """Use at most n threads, and never more than MAX_THREADS, in a call."""
    global max_threads
    max_threads = min(n, MAX_THREADS)


def get_max_threads():
    return max_threads


# ---- interrupts -----------------------------------------------------------------------------------------------------

cdef unsigned long main_thread = 0


def set_main_thread(unsigned long thread):
    """Tell which thread Python runs handlers of signals in."""
    global main_thread
    main_thread = thread


cdef bint run_handlers() noexcept with gil:
    """Run the handlers of signals that have come, and return whether one raised: its exception stays set."""
    return PyErr_CheckSignals() != 0


cdef bint handler_raised() noexcept nogil:
    # Other threads have no use for the GIL, and those that wait for it when Python exits do not come back.
    return PyThread_get_thread_ident() == main_thread and run_handlers()


set_interrupts(handler_raised)


cdef inline int raise_if(bint interrupted) except -1:
    """Raise what the handler of a signal has raised."""
    return -1 if interrupted else 0


# ---- memory ---------------------------------------------------------------------------------------------------------

globals().update(SMALLEST_POOLED=SMALLEST_POOLED, LARGEST_QUANTIZED=LARGEST_QUANTIZED)  # for Python

cdef class Block:
    """Pooled memory (see memory.h) with the buffer protocol; it returns to the pool when the last array on it goes."""
    cdef block memory

    def __cinit__(self, size_t size):
        take_memory(size, &self.memory)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory.start, self.memory.size, 0, flags)

    def __dealloc__(self):
        give_block(self.memory)


cdef cnp.ndarray new_array(int axes, cnp.npy_intp *shape, int number):
    """An uninitialised C-contiguous array, as rnncore.engine.arrays.empty makes one: large ones in pooled memory."""
    cdef cnp.ndarray array
    cdef Block memory
    cdef size_t size = sizeof(double) if number == cnp.NPY_DOUBLE else sizeof(float)
    cdef int axis
    for axis in range(axes):
        size *= shape[axis]
    if size < SMALLEST_POOLED:
        return cnp.PyArray_EMPTY(axes, shape, number, 0)
    memory = Block(size)
    array = cnp.PyArray_SimpleNewFromData(axes, shape, number, memory.memory.start)
    cnp.set_array_base(array, memory)
    return array


include "records.pxi"


# ---- forward and backward -------------------------------------------------------------------------------------------

def forward(ForwardCall first, ForwardCall second=None):
    """Run one forward call, or two side by side."""
    cdef Pair pair
    cdef ForwardCall call
    pair.backward = False
    pair.count = 0
    for call in (first,) if second is None else (first, second):
        describe_call(&pair.calls[pair.count], call)
        pair.calls[pair.count].h_n = address(call.h_n)
        pair.calls[pair.count].c_n = address(call.c_n)
        pair.is_double = is_double(call.h)
        pair.count += 1
    run_pair(&pair, &cost_rule, max_threads)


def backward(BackwardCall first, BackwardCall second=None):
    """Run one backward call, or two side by side."""
    cdef Pair pair
    cdef Call *f
    cdef BackwardCall call
    pair.backward = True
    pair.count = 0
    for call in (first,) if second is None else (first, second):
        f = &pair.calls[pair.count]
        describe_call(f, call.forward)
        f.dh = address(call.dh)
        f.dx = address(call.dx)
        f.adds, f.shards, f.shard_step = call.adds, call.shards, call.shard_step
        f.dWx = matrix_of(call.dweights.Wx)
        f.dWh = matrix_of(call.dweights.Wh)
        f.db = address(call.dweights.b)
        f.dbhn = address(call.dweights.bhn)
        f.dpeephole = address(call.dweights.peephole)
        f.dh0 = address(call.dh0)
        f.dc0 = address(call.dc0)
        pair.is_double = is_double(call.dh0)
        pair.count += 1
    run_pair(&pair, &cost_rule, max_threads)


# ---- the output layer -----------------------------------------------------------------------------------------------

def softmax_cross_entropy(floating[:, ::1] logits, const int64_t[::1] targets, const double[::1] weights,
                          double[::1] losses):
    """Replace logits (rows,V) by their gradients, and write losses (rows,). Needs rows, V > 0."""
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    cdef Py_ssize_t rows = logits.shape[0], V = logits.shape[1], row = 0, some = max(<Py_ssize_t>1, CHUNK_LOGITS // V)
    cdef computation of_rows
    cdef bint interrupted
    with nogil:
        begin_computation(&of_rows)
        while row < rows and not is_interrupted():
            k.softmax_cross_entropy(min(some, rows - row), V, &logits[row, 0], &targets[row], &weights[row],
                                    &losses[row])
            row += some
        interrupted = end_computation(&of_rows)
    raise_if(interrupted)


def affine(x, W, b, y, targets, weights, losses, dx, dW, db, int shards=1, Py_ssize_t shard_step=0):
    """Run an affine map forward if b is given, softmax cross-entropy if targets are, backward if dx is: see Affine.

    W is an array (D, K), or a QuantizedMatrix where there is no gradient. Needs L, D, K > 0, L a multiple of shards.
    """
    cdef Affine f
    memset(&f, 0, sizeof(Affine))
    f.is_double = is_double(x)
    f.kernels = active.f64 if f.is_double else active.f32
    if isinstance(W, QuantizedMatrix):
        f.kernels, f.factor = (<QuantizedMatrix>W).kernels, (<QuantizedMatrix>W).factor
    else:
        f.W = matrix_of(W)
    f.D, f.K = W.shape
    f.L, f.computes_y = length(x, 0), b is not None
    f.x, f.b, f.y = address(x), address(b), address(y)
    f.targets = <const int64_t *>address(targets)
    f.weights = <const double *>address(weights)
    f.losses = <double *>address(losses)
    f.dx, f.dW, f.db = address(dx), matrix_of(dW), address(db)
    f.shards, f.shard_step = shards, shard_step
    run_affine(&f, &cost_rule, max_threads)


# ---- attention ------------------------------------------------------------------------------------------------------

def attention(lengths, memory_lengths, q, k, v, memory, weights, context, dcontext=None, dq=None, dk=None, dv=None,
              dmemory=None):
    """Write weights and context, or with dcontext add to the gradients: see Attention. Needs T, N, S, A, E > 0."""
    cdef Attention f
    memset(&f, 0, sizeof(Attention))
    f.is_double = is_double(q)
    f.kernels = active.f64 if f.is_double else active.f32
    f.T, f.N, f.A = length(q, 0), length(q, 1), length(q, 2)
    f.S, f.E = length(memory, 0), length(memory, 2)
    f.backward = dcontext is not None
    f.lengths, f.memory_lengths = <const int64_t *>address(lengths), <const int64_t *>address(memory_lengths)
    f.q, f.k, f.v, f.memory = address(q), address(k), address(v), address(memory)
    f.weights, f.context, f.dcontext = address(weights), address(context), address(dcontext)
    f.dq, f.dk, f.dv, f.dmemory = address(dq), address(dk), address(dv), address(dmemory)
    run_attention(&f, &cost_rule, max_threads)


# ---- losses of whole sequences --------------------------------------------------------------------------------------

def ctc(logits, const int64_t[::1] lengths, const int64_t[::1] labels, const int64_t[::1] begins,
        Py_ssize_t blank, const double[::1] weights, double[::1] losses, dlogits):
    """Write losses (N,), and the gradients to dlogits unless None: see CTC. Needs N, V and the number of labels > 0."""
    cdef CTC f
    memset(&f, 0, sizeof(CTC))
    f.kernels = active.f64 if is_double(logits) else active.f32
    f.item = sizeof(double) if is_double(logits) else sizeof(float)
    f.N, f.V = length(logits, 1), length(logits, 2)
    f.logits = <const char *>address(logits)
    f.lengths, f.labels, f.begins, f.blank = &lengths[0], &labels[0], &begins[0], blank
    f.weights, f.losses, f.dlogits = &weights[0], &losses[0], <char *>address(dlogits)
    run_ctc(&f, &cost_rule, max_threads)


def crf(emissions, const int64_t[::1] lengths, const double[:, ::1] A, tags, weights, losses, demissions, dA):
    """Write losses (N,), and gradients unless None; or tags (T,N) if losses is None: see CRF. Needs T, N, K > 0."""
    cdef CRF f
    f.kernels = active.f64 if is_double(emissions) else active.f32
    f.item = sizeof(double) if is_double(emissions) else sizeof(float)
    f.T, f.N, f.K = length(emissions, 0), length(emissions, 1), length(emissions, 2)
    f.emissions, f.lengths, f.A = <const char *>address(emissions), &lengths[0], &A[0, 0]
    f.tags = <int64_t *>address(tags)
    f.weights, f.losses = <const double *>address(weights), <double *>address(losses)
    f.demissions, f.dA = <char *>address(demissions), <double *>address(dA)
    run_crf(&f)


# ---- arrays ---------------------------------------------------------------------------------------------------------

def time_first(const floating[:, :, ::1] source, floating[:, :, ::1] target):
    """target (T,m,n) = source (n,m,T)"""
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    cdef Py_ssize_t n = source.shape[0], m = source.shape[1], T = source.shape[2], j
    if n == 0 or m == 0 or T == 0:
        return
    with nogil:
        for j in range(m):
            k.transpose(n, T, &source[0, j, 0], m * T, &target[0, j, 0], m * n)


def are_ids(const int64_t[::1] ids, Py_ssize_t size):
    """Whether all ids (L,) are in [0, size)."""
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
    cdef unsigned long long saved
    with nogil:
        saved = begin_flush_subnormals()
        k.scatter_add(rows.shape[0], D, &ids[0], 1, &rows[0, 0], D, &table[0, 0], D)
        end_flush_subnormals(saved)


# ---- optimisers -----------------------------------------------------------------------------------------------------

RULES = {"sgd": RULE_SGD, "momentum": RULE_MOMENTUM, "squares": RULE_SQUARES, "adam": RULE_ADAM}


def optimizer_step(int rule, tuple constants, g, p, m, v):
    """Apply a rule of RULES in place: g, p, m, v (count,) of one dtype; constants as in kernels.h. m, v may be None."""
    cdef double[OPTIMIZER_CONSTANTS] numbers
    cdef const kernel_table *k = active.f64 if is_double(p) else active.f32
    cdef Py_ssize_t count = length(p, 0)
    cdef void *address_g = address(g)
    cdef void *address_p = address(p)
    cdef void *address_m = address(m)
    cdef void *address_v = address(v)
    cdef unsigned long long saved
    for i in range(OPTIMIZER_CONSTANTS):
        numbers[i] = constants[i]
    with nogil:
        saved = begin_flush_subnormals()
        k.optimizer_step(rule, count, numbers, address_g, address_p, address_m, address_v)
        end_flush_subnormals(saved)


def square_sum(const floating[::1] a):
    """Sum of the squares of a (count,), count > 0."""
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    cdef double total
    cdef unsigned long long saved
    with nogil:
        saved = begin_flush_subnormals()
        total = k.square_sum(a.shape[0], &a[0])
        end_flush_subnormals(saved)
    return total


def read(const float[::1] a):
    """Sum a (count,): the time it takes shows the bandwidth of the memory that a is in."""
    cdef double total
    with nogil:
        total = active.f32.sum(a.shape[0], &a[0])
    return total


# ---- stacks ---------------------------------------------------------------------------------------------------------

cdef class Stack:
    """Layers of cells with packed weights, in one direction or both, for inference: see native.open_stack."""
    cdef list cells                       # of (Cell, Weights, whether in reverse), layer by layer
    cdef Call *calls                      # one for each: its weights, no arrays
    cdef readonly Py_ssize_t count, input_size, hidden_size
    cdef int directions, state_axes
    cdef readonly bint is_double, takes_ids_only
    cdef bint has_c

    def __cinit__(self, list cells, int directions, bint has_c, int state_axes):
        """States are (cells, N, H), or with 2 axes, of a single cell, (N, H)."""
        cdef Py_ssize_t i
        self.cells, self.directions, self.has_c, self.state_axes = cells, directions, has_c, state_axes
        self.count = len(cells)
        self.calls = <Call *>malloc(self.count * sizeof(Call))
        if self.calls == NULL:
            raise MemoryError
        for i in range(self.count):
            cell, weights, reverse = cells[i]
            describe_call(&self.calls[i], ForwardCall(cell, weights, Batch(1, 1, reverse=reverse)))
        self.is_double = is_double((<Weights>cells[0][1]).b)
        self.input_size, self.hidden_size = self.calls[0].layer.D, self.calls[0].layer.H
        self.takes_ids_only = takes_ids_only(&self.calls[0].layer)

    def __dealloc__(self):
        free(self.calls)

    def try_run(self, x, state):
        """Run x (T,N,D) from a state as layers take it, if neither needs conversion nor is empty.

        Returns (y (T,N,H * directions), final state), or None where the way through rnncore.engine.calls is needed.
        """
        cdef int number = cnp.NPY_DOUBLE if self.is_double else cnp.NPY_FLOAT
        cdef Py_ssize_t T, N, H = self.hidden_size
        cdef cnp.npy_intp[3] shape
        cdef cnp.npy_intp *state_shape = shape + 3 - self.state_axes
        cdef cnp.ndarray y, h_n, c_n = None
        h0, c0 = state, None
        if self.has_c and state is not None:
            if not isinstance(state, tuple) or len(<tuple>state) != 2:
                return None
            h0, c0 = <tuple>state
        if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(<cnp.ndarray>x) != 3 or not (<cnp.ndarray>x).size:
            return None
        T, N = length(x, 0), length(x, 1)
        if (self.takes_ids_only or not is_plain(x, number, 3, N, self.input_size)
                or not self.fits_state(h0, number, N) or (self.has_c and not self.fits_state(c0, number, N))):
            return None
        shape[0], shape[1], shape[2] = T, N, H * self.directions
        y = new_array(3, shape, number)
        shape[0], shape[1], shape[2] = self.count, N, H
        h_n = new_array(self.state_axes, state_shape, number)
        if self.has_c:
            c_n = new_array(self.state_axes, state_shape, number)
        run_layers(self.calls, self.count, self.directions, self.is_double, T, N, address(x), address(h0), address(c0),
                   address(y), address(h_n), address(c_n), &cost_rule, max_threads)
        return y, h_n if c_n is None else (h_n, c_n)

    cdef bint fits_state(self, state, int number, Py_ssize_t N):
        return state is None or (is_plain(state, number, self.state_axes, N, self.hidden_size)
                                 and (self.state_axes == 2 or length(state, 0) == self.count))


cdef class Stream:
    """A stack in one direction that runs one step a call: see rnncore.layers.Stream and native.sample_ids."""
    cdef Call *calls
    cdef Group *groups                    # of each call; members as well
    cdef Member *members
    cdef Py_ssize_t count
    cdef bint is_double
    cdef tuple arrays                     # keep what the pointers in calls point to
    cdef block memory

    def __cinit__(self, Stack stack, Py_ssize_t N, cnp.ndarray h, cnp.ndarray c=None):
        """States h, c (cells, N, H), C-contiguous and of the dtype of the stack; every step replaces them."""
        cdef Py_ssize_t i
        cdef size_t item = sizeof(double) if stack.is_double else sizeof(float)
        self.count, self.is_double = stack.count, stack.is_double
        self.arrays = (stack, h, c)
        self.calls = <Call *>malloc(self.count * sizeof(Call))
        self.groups = <Group *>malloc(self.count * sizeof(Group))
        self.members = <Member *>malloc(self.count * sizeof(Member))
        if self.calls == NULL or self.groups == NULL or self.members == NULL:
            raise MemoryError
        for i in range(self.count):
            self.calls[i] = stack.calls[i]
        take_memory(set_states(self.calls, self.count, N, item, address(h), address(c)) * item, &self.memory)
        begin_layers(self.calls, self.groups, self.members, self.count, self.is_double, self.memory.start)

    def __dealloc__(self):
        free(self.calls)
        free(self.groups)
        free(self.members)
        give_block(self.memory)

    cdef void advance(self, void *x, const int64_t *ids, void *out) noexcept nogil:
        """Step with x (N,D), or ids (N,); out (N,H) is the new state of the top layer."""
        step_layers(self.calls, self.count, self.is_double, x, ids, out)

    cdef void run(self, void *x, const int64_t *ids, void *out):
        with nogil:
            self.advance(x, ids, out)

    def try_step(self, x, out):
        """Step if x (N,D) and out (N,H) can go to native code as they are and do not overlap; return whether it did."""
        cdef const Call *f = &self.calls[0]
        cdef int number = cnp.NPY_DOUBLE if self.is_double else cnp.NPY_FLOAT
        cdef Py_ssize_t N = f.batch.N
        cdef char *address_x
        cdef char *address_out
        if takes_ids_only(&f.layer) or not (
                is_plain(x, number, 2, N, f.layer.D) and is_plain(out, number, 2, N, f.layer.H)
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)):
            return False
        address_x = <char *>address(x)
        address_out = <char *>address(out)
        if (address_x < address_out + cnp.PyArray_NBYTES(<cnp.ndarray>out)
                and address_out < address_x + cnp.PyArray_NBYTES(<cnp.ndarray>x)):
            return False
        self.run(address_x, NULL, address_out)
        return True

    def step(self, x, ids, out):
        """Step with contiguous, checked arrays; x or ids is None."""
        self.run(address(x), <const int64_t *>address(ids), address(out))


# ---- sampling -------------------------------------------------------------------------------------------------------

def sample(Stream stack, embedding, Wy, const floating[::1] by, int64_t first, const double[::1] uniforms,
           double temperature, Py_ssize_t top_k, double top_p, const signed char[::1] banned, Py_ssize_t stop,
           int64_t[::1] ids):
    """Draw ids: see native.sample_ids. Return how many, or -1 if a logit is not finite.

    embedding and Wy are arrays in C order, or QuantizedMatrix objects.
    """
    cdef Py_ssize_t H = stack.calls[0].layer.H, E = stack.calls[0].layer.D, V = by.shape[0], n = uniforms.shape[0]
    cdef Py_ssize_t drawn = 0
    cdef const kernel_table *of_table = kernels_for(embedding, stack.calls[0].layer.kernels)
    cdef const kernel_table *k = kernels_for(Wy, stack.calls[0].layer.kernels)
    cdef Factor table = factor_of(embedding, <floating *>NULL), output = factor_of(Wy, <floating *>NULL)
    cdef bint embeds = embedding is not None
    cdef block memory
    cdef Candidate *candidates
    cdef floating *logits
    cdef floating *top
    cdef floating *row
    cdef floating *work
    cdef floating *x = NULL
    cdef int64_t token = first
    cdef computation draws
    cdef bint interrupted
    cdef size_t values = padded(V) + padded(H) + padded(E) + quantized_work(output.precision, 1, H, sizeof(floating))
    take_memory(V * sizeof(Candidate) + values * sizeof(floating), &memory)
    candidates = <Candidate *>memory.start
    logits = <floating *>(candidates + V)
    top = logits + padded(V)
    row = top + padded(H)
    work = row + padded(E)
    with nogil:
        begin_computation(&draws)
        while drawn < n and not (drawn % STEPS_BETWEEN_LOOKS == 0 and is_interrupted()):
            if embeds and table.packed == NULL:
                x = at(table.matrix.values, token * E, row)
            elif embeds:
                gather(of_table, 1, &table, 0, <const floating *>NULL, &token, row, E)
                x = row
            stack.advance(x, NULL if embeds else &token, top)
            # logits (V,) = by + h (H,) Wy (H,V)
            product_from(k, 1, top, H, &output, &by[0], 0, logits, V, work)
            token = draw(logits, V, temperature, top_k, top_p, &banned[0], uniforms[drawn], candidates)
            if token < 0:
                drawn = -1
                break
            ids[drawn] = token
            drawn += 1
            if token == stop:
                break
        interrupted = end_computation(&draws)
    give_block(memory)
    raise_if(interrupted)
    return drawn


# ---- start ----------------------------------------------------------------------------------------------------------

build = build_description.decode()
active = &instruction_sets[0]
set_cost_rule()
