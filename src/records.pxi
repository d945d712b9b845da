"""The records of a call as Python makes them, and how they are described to native code; part of _engine.pyx."""

cdef class Cell:
    """A cell with its options: see describe_cell."""
    cdef cell_variant variant
    cdef tuple arguments

    def __init__(self, str name, tuple places, dict options):
        describe_cell(&self.variant, name, places, options)
        self.arguments = name, places, options

    def __reduce__(self):
        return Cell, self.arguments


cdef cnp.ndarray view_of(cnp.ndarray array):
    return None if array is None else array.view()


cdef struct Values:
    int precision
    size_t size                # bytes of a value
    Matrix matrix              # in C order
    const float *scales        # (columns,) of int8


cdef Values values_of(array, scales):
    """Quantized values (K, M): uint16 are bfloat16, int8 have float32 scales (M,). NULL for None."""
    cdef Values values
    cdef bint is_int8 = array is not None and cnp.PyArray_ITEMSIZE(<cnp.ndarray>array) == 1
    values.precision = PRECISION_INT8 if is_int8 else PRECISION_BFLOAT16
    values.size, values.matrix, values.scales = 1 if is_int8 else 2, matrix_of(array), <const float *>address(scales)
    return values


cdef class PackedWeights:
    """Wx and Wh of a cell, packed once for many forward calls, which run on the instruction set of that time."""
    cdef Layer layer           # without its arrays
    cdef block memory

    def __cinit__(self, Cell cell, Weights weights, Wx=None, Wx_scales=None, Wh=None, Wh_scales=None,
                  double x_scale=0):
        """Without Wx the weights have it in full precision; otherwise Wx and Wh are as values_of takes them."""
        cdef Call f
        cdef Values x = values_of(None, None), h = values_of(None, None)
        cdef bint double_precision = is_double(weights.b), interrupted
        cdef computation packing
        describe_call(&f, ForwardCall(cell, weights, Batch(1, 1)))
        if Wx is not None:
            x, h = values_of(Wx, Wx_scales), values_of(Wh, Wh_scales)
            f.layer.precision, f.layer.D = x.precision, length(Wx, 0)
        f.packs_x = f.packs_h = True
        f.layer.x_scale = x_scale
        self.layer = f.layer
        take_memory(max(<size_t>1, all_packed_bytes(&f.layer, cnp.PyArray_ITEMSIZE(weights.b))), &self.memory)
        f.packed = self.memory.start
        with nogil:
            begin_computation(&packing)
            if f.layer.precision != PRECISION_FULL:
                pack_quantized_weights(&f, &x.matrix, x.scales, &h.matrix, h.scales, x.size)
            elif double_precision:
                pack_weights(&f, <double *>f.packed)
            else:
                pack_weights(&f, <float *>f.packed)
            interrupted = end_computation(&packing)
        raise_if(interrupted)

    def __dealloc__(self):
        give_block(self.memory)

    @property
    def sizes(self):
        """(D, H)"""
        return self.layer.D, self.layer.H

    @property
    def takes_ids_only(self):
        return takes_ids_only(&self.layer)

    def read(self, bint of_Wh, const int64_t[::1] ids, floating[:, ::1] out):
        """out (rows, G H) = rows `ids` of quantized Wx, or Wh; out has the dtype of the biases. Needs rows > 0."""
        cdef Call f
        cdef Member p
        cdef const kernel_table *k = self.layer.kernels
        cdef Py_ssize_t rows = ids.shape[0], ld = out.shape[1]
        memset(&f, 0, sizeof(Call))
        f.layer, f.packed, f.plan.units = self.layer, self.memory.start, self.layer.H
        begin_member(&p, &f, 0)
        with nogil:
            describe_shared_factors(&p, &f, 0)
            if of_Wh:
                gather(k, rows, &p.gates, 0, <const floating *>NULL, &ids[0], &out[0, 0], ld)
                gather(k, rows, &p.candidate, 0, <const floating *>NULL, &ids[0], &out[0, 0] + p.gates.M, ld)
            else:
                gather(k, rows, &p.x, 0, <const floating *>NULL, &ids[0], &out[0, 0], ld)


cdef class QuantizedMatrix:
    """A matrix (K, M) in bfloat16 or int8, packed for products and reading rows: of output layers and embeddings."""
    cdef const kernel_table *kernels
    cdef block memory
    cdef Factor factor
    cdef readonly bint is_double

    def __cinit__(self, values, scales, bint is_double):
        """values and scales as values_of takes them; is_double tells the type of what it is multiplied with."""
        cdef Values given = values_of(values, scales)
        cdef Py_ssize_t K = length(values, 0), M = length(values, 1)
        cdef computation packing
        cdef bint interrupted
        self.kernels = active.f64 if is_double else active.f32
        self.is_double = is_double
        take_memory(max(<size_t>1, packed_bytes(given.precision, 0, K, M)), &self.memory)
        self.factor = packed_factor(given.precision, K, M, self.memory.start)
        with nogil:
            begin_computation(&packing)
            pack_quantized(self.kernels, &self.factor, given.matrix.values, given.matrix.row_step, given.scales)
            interrupted = end_computation(&packing)
        raise_if(interrupted)

    def __dealloc__(self):
        give_block(self.memory)

    @property
    def shape(self):
        return self.factor.K, self.factor.M

    def read(self, const int64_t[::1] ids, floating[:, ::1] out):
        """out (rows, M) = rows `ids`; out is float64 if is_double, else float32. Needs rows, M > 0."""
        with nogil:
            gather(self.kernels, ids.shape[0], &self.factor, 0, <const floating *>NULL, &ids[0], &out[0, 0],
                   self.factor.M)


cdef const kernel_table *kernels_for(W, const kernel_table *others):
    """The kernels that a QuantizedMatrix was packed for; others for an array."""
    return (<QuantizedMatrix>W).kernels if isinstance(W, QuantizedMatrix) else others


cdef Factor factor_of(W, floating *type_):
    """The factor of a matrix (K, M), an array that is read in place or a QuantizedMatrix; of no size for None."""
    if isinstance(W, QuantizedMatrix):
        return (<QuantizedMatrix>W).factor
    if W is None:
        return packed_factor(PRECISION_FULL, 0, 0, NULL)
    return factor(NULL, length(W, 0), length(W, 1), 1, 0, matrix_of(W), <floating **>NULL)


@cython.freelist(8)
cdef class Weights:
    """The weights of a cell, or their gradients; None for those that it does not have."""
    cdef readonly cnp.ndarray Wx, Wh, b, bhn, peephole
    cdef readonly PackedWeights packed     # Wx and Wh, or None: they are packed when a call wants it

    def __init__(self, cnp.ndarray Wx=None, cnp.ndarray Wh=None, cnp.ndarray b=None, cnp.ndarray bhn=None,
                 cnp.ndarray peephole=None):
        self.Wx, self.Wh, self.b, self.bhn, self.peephole = Wx, Wh, b, bhn, peephole

    def pack(self, Cell cell):
        """Pack Wx and Wh for all later forward calls: none of the arrays may change from now on."""
        self.packed = PackedWeights(cell, self)

    def pack_quantized(self, Cell cell, tuple Wx, tuple Wh, double x_scale):
        """Pack Wx and Wh, quantized, each as values_of takes them; the weights have no others."""
        self.packed = PackedWeights(cell, self, *Wx, *Wh, x_scale)

    def by_name(self):
        """A dict of those that are not None."""
        cdef dict arrays = {}
        for name, array in (("Wx", self.Wx), ("Wh", self.Wh), ("b", self.b), ("bhn", self.bhn),
                            ("peephole", self.peephole)):
            if array is not None:
                arrays[name] = array
        return arrays

    def views(self):
        """Views of all of them: the caller of a function may give its own arrays another shape afterwards."""
        return Weights(view_of(self.Wx), view_of(self.Wh), view_of(self.b), view_of(self.bhn), view_of(self.peephole))


@cython.freelist(8)
cdef class Batch:
    """The shape of a batch, which of its rows run at each step, and in which direction: see BatchRows in call.pxd."""
    cdef readonly Py_ssize_t T, N
    cdef readonly cnp.ndarray rows, offset, resets, mask
    cdef readonly bint reverse

    def __init__(self, Py_ssize_t T, Py_ssize_t N, cnp.ndarray rows=None, cnp.ndarray offset=None,
                 cnp.ndarray resets=None, bint reverse=False, cnp.ndarray mask=None):
        self.T, self.N, self.rows, self.offset, self.resets, self.reverse = T, N, rows, offset, resets, reverse
        self.mask = mask


@cython.freelist(8)
cdef class ForwardCall:
    """The arrays of a forward pass, named as in Call; what the backward pass does not need of them may be None.

    All arrays are contiguous and of one dtype: Wx and Wh in C or Fortran order (Wx in C order if there are ids), the
    others in C order. T, N and H are above 0, and there is a token.
    """
    cdef readonly Cell cell
    cdef readonly Weights weights
    cdef readonly Batch batch
    cdef readonly cnp.ndarray x, ids, h0, c0, gates, c, m, h, h_n, c_n

    def __init__(self, Cell cell, Weights weights, Batch batch, *, cnp.ndarray x=None, cnp.ndarray ids=None,
                 cnp.ndarray h0=None, cnp.ndarray c0=None, cnp.ndarray gates=None, cnp.ndarray c=None,
                 cnp.ndarray m=None, cnp.ndarray h=None, cnp.ndarray h_n=None, cnp.ndarray c_n=None):
        self.cell, self.weights, self.batch = cell, weights, batch
        self.x, self.ids, self.h0, self.c0 = x, ids, h0, c0
        self.gates, self.c, self.m, self.h, self.h_n, self.c_n = gates, c, m, h, h_n, c_n

    def saved(self):
        """A dict of what the backward pass needs, None for what the cell does not have."""
        return {"x": self.x, "h0": self.h0, "c0": self.c0, "gates": self.gates, "c": self.c, "m": self.m, "h": self.h}


@cython.freelist(8)
cdef class BackwardCall:
    """The arrays of a backward pass, named as in Call. ``dweights`` are added to if ``adds``; dbhn, db, dpeephole
    always are, and so is dWx if there are ids. They are those of the first of the shards: see Call."""
    cdef readonly ForwardCall forward
    cdef readonly Weights dweights
    cdef readonly bint adds
    cdef readonly int shards
    cdef readonly Py_ssize_t shard_step
    cdef readonly cnp.ndarray dh, dx, dh0, dc0

    def __init__(self, ForwardCall forward, Weights dweights, bint adds, *, cnp.ndarray dh=None, cnp.ndarray dx=None,
                 cnp.ndarray dh0=None, cnp.ndarray dc0=None, int shards=1, Py_ssize_t shard_step=0):
        self.forward, self.dweights, self.adds = forward, dweights, adds
        self.shards, self.shard_step = shards, shard_step
        self.dh, self.dx, self.dh0, self.dc0 = dh, dx, dh0, dc0


cdef int describe_layer(Layer *layer, Cell cell, Weights weights) except -1:
    # Read `active` once a call: use_isa may change it from another thread.
    layer.kernels = active.f64 if is_double(weights.b) else active.f32
    layer.D = 0 if weights.Wx is None else cnp.PyArray_DIM(weights.Wx, 0)
    if weights.packed is not None:
        layer.kernels, layer.precision = weights.packed.layer.kernels, weights.packed.layer.precision
        layer.D, layer.x_scale = weights.packed.layer.D, weights.packed.layer.x_scale
    layer.cell = cell.variant
    layer.Wx, layer.Wh = matrix_of(weights.Wx), matrix_of(weights.Wh)
    layer.b, layer.bhn, layer.peephole = address(weights.b), address(weights.bhn), address(weights.peephole)
    layer.H = cnp.PyArray_DIM(weights.b, 0) // cell.variant.num_gates
    return 0


cdef void describe_batch(BatchRows *s, Batch batch) noexcept:
    s.T = batch.T
    s.N = s.count = batch.N
    s.first = 0
    s.rows = <const int64_t *>address(batch.rows)
    s.offset = <const int64_t *>address(batch.offset)
    s.resets = <const char *>address(batch.resets)
    s.mask = address(batch.mask)
    s.reverse = batch.reverse


cdef int describe_call(Call *f, ForwardCall call) except -1:
    """Fill in what forward and backward have in common; the plan is for one thread."""
    memset(f, 0, sizeof(Call))
    describe_layer(&f.layer, call.cell, call.weights)
    describe_batch(&f.batch, call.batch)
    single_plan(&f.plan, &f.layer, &f.batch)
    f.packed = NULL if call.weights.packed is None else call.weights.packed.memory.start
    f.x = address(call.x)
    f.ids = <const int64_t *>address(call.ids)
    f.h0 = address(call.h0)
    f.c0 = address(call.c0)
    f.gates = address(call.gates)
    f.c = address(call.c)
    f.m = address(call.m)
    f.h = address(call.h)
    return 0


def fits(Cell cell, x, Wx, Wh, b, h0, c0, bhn, peephole):
    """Whether the arrays can go to native code as they are.

    That is: x (T,N,D), weights and states are contiguous arrays of one dtype, float32 or float64, with matching shapes,
    Wx and Wh in C or Fortran order; or x are int64 ids (T,N), of any layout and range, and Wx is in C order. Wh is None
    for a cell without; h0, c0, bhn and peephole may be None. Does not say what is wrong: rnncore.engine.arrays does.
    """
    cdef int number
    cdef bint ids
    cdef Py_ssize_t N, D, GH, H, G = cell.variant.num_gates
    if not cnp.PyArray_CheckExact(Wx) or cnp.PyArray_NDIM(<cnp.ndarray>Wx) != 2 or not cnp.PyArray_CheckExact(x):
        return False
    ids = cnp.PyArray_NDIM(<cnp.ndarray>x) == 2 and cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.NPY_INT64
    if not ids and cnp.PyArray_NDIM(<cnp.ndarray>x) != 3:
        return False
    number = cnp.PyArray_TYPE(<cnp.ndarray>Wx)
    N = length(x, 1)
    D = cnp.PyArray_DIM(<cnp.ndarray>(Wx if ids else x), 0 if ids else 2)
    GH = length(Wx, 1)
    H = GH // G
    return ((number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE) and GH % G == 0
            and (is_plain(Wx, number, 2, D, GH) if ids else is_plain(x, number, 3, N, D))
            and is_matrix(Wx, number, D, GH)
            and (is_matrix(Wh, number, H, GH) if has_Wh(&cell.variant) else Wh is None)
            and is_plain(b, number, 1, 0, GH)
            and (h0 is None or is_plain(h0, number, 2, N, H))
            and (c0 is None or is_plain(c0, number, 2, N, H))
            and (bhn is None or is_plain(bhn, number, 1, 0, H))
            and (peephole is None or is_plain(peephole, number, 2, 3, H)))
