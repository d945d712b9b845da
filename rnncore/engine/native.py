"""The native functions beside the cells: affine maps, the softmax, optimisers, gathering, streams, sampling.

As in :mod:`rnncore.engine.calls`, arguments are checked and results allocated here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _engine
from .._types import Array
from .arrays import (
    FLOAT32,
    FLOAT64,
    add,
    as_dense,
    as_dense_matrix,
    as_floating,
    as_ids,
    check_gradient,
    check_shape,
    empty,
    first_of_shards,
    is_dense,
    is_dense_matrix,
    is_writable,
    working_dtype,
    zeros,
)
from .cells import Variant

# ---- affine maps and the softmax --------------------------------------------------------------------------------


def affine_forward(x: Array, W: Array | _engine.QuantizedMatrix, b: Array) -> Array:
    """Return x (L, D) W (D, K) + b (K,), (L, K)."""
    x, W, b, dtype = _clean_affine(x, W, b)
    (L, D), K = x.shape, W.shape[1]
    if 0 in (L, D, K):
        return np.zeros((L, K), dtype) + b
    y = empty((L, K), dtype)
    _engine.affine(x, W, b, y, None, None, None, None, None, None)
    return y


def affine_backward(x: Array, W: Array, dy: Array, dW: Array, db: Array) -> Array:
    """Return dx (L, D), given x (L, D), W (D, K), dy (L, K); add to dW (D, K) and db (K,) in place."""
    x, W, _, dtype = _clean_affine(x, W, None)
    check_shape("dy", dy, "(L, K)", (len(x), W.shape[1]))
    check_gradient("dW", dW, "(D, K)", W.shape)
    check_gradient("db", db, "(K,)", W.shape[1:])
    if 0 in (*x.shape, W.shape[1]):
        return np.zeros(x.shape, dtype)
    dx = empty(x.shape, dtype)
    gradients = _gradient_buffers(dW, db, W.shape, dtype)
    _engine.affine(x, W, None, as_dense(dy, dtype), None, None, None, dx, *gradients)
    _add(dW, db, gradients)
    return dx


def softmax_head(
    x: Array,
    W: Array,
    b: Array,
    targets: NDArray[np.int64],
    weights: NDArray[np.float64],
    dW: Array | None = None,
    db: Array | None = None,
    shards: int = 1,
) -> tuple[NDArray[np.float64], Array | None]:
    """Compute the cross-entropy of softmax(x W + b), and its gradients, without an array of all logits.

    Parameters
    ----------
    x, W, b : arrays (L, D), (D, K), (K,)
    targets : int64 array (L,), dense
        In [0, K).
    weights : float64 array (L,), dense
        Scale the gradients only. A row of weight 0 is not read.
    dW, db : arrays as W and b, optional
        Added to in place. Without them there are no gradients, and dx is None.
    shards : int
        If not 1, dW and db have a leading axis of so many shards, and row n adds to those of shard ``n % shards``.

    Returns
    -------
    losses : float64 array (L,)
    dx : array (L, D) or None
    """
    x, W, b, dtype = _clean_affine(x, W, b)
    losses, dx = np.zeros(len(x)), None if dW is None else empty(x.shape, dtype)
    if dW is None or db is None:
        if len(x):
            _engine.affine(x, W, b, None, targets, weights, losses, dx, None, None)
        return losses, dx
    if shards > 1:
        first, step = first_of_shards({"dW": dW, "db": db}, shards, len(x))
        if not is_writable(first["dW"], W.shape, dtype, is_dense_matrix) or not is_writable(
            first["db"], W.shape[1:], dtype
        ):
            raise ValueError(f"shards need gradients of the shapes of the weights and of dtype {dtype}, contiguous")
        _engine.affine(x, W, b, None, targets, weights, losses, dx, first["dW"], first["db"], shards, step)
        return losses, dx
    check_gradient("dW", dW, "(D, K)", W.shape)
    check_gradient("db", db, "(K,)", W.shape[1:])
    if len(x):
        gradients = _gradient_buffers(dW, db, W.shape, dtype)
        _engine.affine(x, W, b, None, targets, weights, losses, dx, *gradients)
        _add(dW, db, gradients)
    return losses, dx


def _clean_affine(x: Array, W: Any, b: Array | None) -> tuple[Array, Any, Any, np.dtype[Any]]:
    """Return x, W and b, dense (W in C or Fortran order) and of one dtype, and the dtype; b may be None.

    A packed matrix W stays as it is, and has the dtype of its results.
    """
    x = as_floating("x", x)
    if not isinstance(W, _engine.QuantizedMatrix):
        W = as_floating("W", W)
    check_shape("W", W, "(D, K)", (x.shape[1], W.shape[-1]))
    if b is not None:
        b = as_floating("b", b)
        check_shape("b", b, "(K,)", W.shape[1:])
    if isinstance(W, _engine.QuantizedMatrix):
        dtype = FLOAT64 if W.is_double else FLOAT32
    else:
        dtype = working_dtype(x, W, *(() if b is None else (b,)))
        W = as_dense_matrix(W, dtype)
    return as_dense(x, dtype), W, None if b is None else as_dense(b, dtype), dtype


def _gradient_buffers(dW: Any, db: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Arrays that native code can add gradients to: dW and db, or buffers that :func:`_add` adds to them."""
    if is_writable(dW, shape, dtype, is_dense_matrix) and is_writable(db, shape[1:], dtype):
        return dW, db
    return zeros(shape, dtype), np.zeros(shape[1:], dtype)


def _add(dW: Any, db: Any, gradients: tuple[Any, Any]) -> None:
    if gradients[0] is not dW:
        add(dW, gradients[0])
        add(db, gradients[1])


# ---- arrays and optimisers --------------------------------------------------------------------------------------


def time_first(array: Array) -> Array:
    """Transpose (n, m, T) to (T, m, n), C-contiguous, in the array's dtype, float32 or float64."""
    if not is_dense(array, array.dtype) or not array.dtype.isnative:
        return np.array(array.transpose(2, 1, 0), array.dtype.newbyteorder("="), order="C")
    result = empty(array.shape[::-1], array.dtype)
    _engine.time_first(array, result)
    return result


def square_sum(array: Array) -> float:
    """Return the sum of the squares of a float32 or float64 array, in float64."""
    return _engine.square_sum(as_dense(array, array.dtype.newbyteorder("=")).reshape(-1)) if array.size else 0.0


def optimizer_step(rule: str, constants: tuple[float, ...], updates: list[tuple[Array, ...]]) -> None:
    """Apply one step of an optimiser to parameters and their states, in place.

    What must be converted is, before any parameter changes.

    Parameters
    ----------
    rule : str
        One of ``_engine.RULES``.
    constants : tuple of float
        Rate, scale of g, decay and share of g in the first state, decay and share of g**2 in the second, epsilon.
    updates : list of tuples (g, p, *state)
        The gradient of a parameter, of its shape; the parameter and its state arrays, float32 or float64, of one shape
        and dtype.
    """
    calls = [_prepare_update(rule, constants, *update) for update in updates if update[1].size]
    for arguments, arrays, own in calls:
        _engine.optimizer_step(*arguments)
        for array, dense in zip(arrays, own, strict=True):
            if not is_dense(array, dense.dtype):
                array[...] = dense.reshape(array.shape)


def _prepare_update(
    rule: str, constants: tuple[float, ...], g: Array, p: Array, *state: Array
) -> tuple[tuple[Any, ...], tuple[Array, ...], list[Array]]:
    """Return the arguments of the native call, the parameter with its state, and what is changed in their place."""
    dtype = p.dtype.newbyteorder("=")
    scale = constants[1]
    if scale < np.finfo(dtype).tiny:
        # In the dtype of p it would lose digits or become zero.
        g, constants = np.asarray(g, np.float64) * scale, (constants[0], 1.0, *constants[2:])
    own = [as_dense(array, dtype).reshape(-1) for array in (p, *state)]
    g = as_dense(g, dtype).reshape(-1)
    if np.may_share_memory(g, own[0]):
        g = g.copy()
    m = own[1] if rule in ("momentum", "adam") else None
    v = own[-1] if rule in ("squares", "adam") else None
    return (_engine.RULES[rule], constants, g, own[0], m, v), (p, *state), own


def scatter_add(ids: Array, rows: Array, table: Array) -> None:
    """Add rows (L, D) to table (V, D) at ids (L,), in place; an id may occur many times."""
    ids = as_ids(ids, len(table), "ids", "V")
    check_shape("rows", rows, "(L, D)", (len(ids), table.shape[1]))
    if not rows.size:
        return
    dtype = working_dtype(table)
    own = table if is_writable(table, table.shape, dtype) else zeros(table.shape, dtype)
    _engine.scatter_add(ids, as_dense(rows, dtype), own)
    if own is not table:
        add(table, own)


def softmax_cross_entropy_rows(
    logits: Array, targets: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Replace logits (L, V) by ``weights`` times their gradients, and return the losses (...), float64.

    All are C-contiguous; targets (...) int64 in [0, V) in other memory than logits, weights (...) float64. Where a
    weight is 0 nothing is read, and loss and gradient are 0.
    """
    losses = np.zeros(targets.size)
    if logits.size:
        _engine.softmax_cross_entropy(logits, targets.reshape(-1), weights.reshape(-1), losses)
    return losses.reshape(targets.shape)


# ---- attention --------------------------------------------------------------------------------------------------


def _dense_or_none(array: Array | None, dtype: np.dtype[Any]) -> Any:
    return None if array is None else as_dense(array, dtype)


def _check_attention(q: Any, k: Array | None, v: Array | None, memory: Any) -> tuple[int, int, int, np.dtype[Any]]:
    (T, N, A), S = q.shape, len(memory)
    if k is None:
        check_shape("memory", memory, "(S, N, E)", (S, N, A))
    else:
        check_shape("memory", memory, "(S, N, E)", (S, N, memory.shape[-1]))
        check_shape("keys", k, "(S, N, A)", (S, N, A))
        check_shape("v", v, "(A,)", (A,))  # type: ignore[arg-type]  # keys have it
    return T, N, S, working_dtype(q, memory)


def attend(
    lengths: NDArray[np.int64],
    memory_lengths: NDArray[np.int64],
    q: Any,
    k: Array | None,
    v: Array | None,
    memory: Any,
) -> tuple[Array, Array]:
    """Return the weights (T, N, S) of a memory (S, N, E) for queries q (T, N, A), and the context (T, N, E).

    Additive with keys k (S, N, A) and v (A,), multiplicative without, then A = E. All are of one dtype.
    """
    T, N, S, dtype = _check_attention(q, k, v, memory)
    weights, context = zeros((T, N, S), dtype), zeros((T, N, memory.shape[2]), dtype)
    if 0 not in (T, N, S):
        q, k, v, memory = (_dense_or_none(array, dtype) for array in (q, k, v, memory))
        _engine.attention(lengths, memory_lengths, q, k, v, memory, weights, context)
    return weights, context


def attend_backward(
    lengths: NDArray[np.int64],
    memory_lengths: NDArray[np.int64],
    q: Any,
    k: Array | None,
    v: Array | None,
    memory: Any,
    weights: Array,
    dcontext: Array,
) -> tuple[Array, Any, Any, Array]:
    """Return dq, dk (None without keys), dv (N, A) of each row, and dmemory; arguments as in :func:`attend`."""
    T, N, S, dtype = _check_attention(q, k, v, memory)
    A = q.shape[2]
    dq, dmemory = zeros(q.shape, dtype), zeros(memory.shape, dtype)
    dk, dv = (None, None) if k is None else (zeros(k.shape, dtype), zeros((N, A), dtype))
    if 0 not in (T, N, S):
        q, k, v, memory = (_dense_or_none(array, dtype) for array in (q, k, v, memory))
        own, weights = as_dense(dcontext, dtype), as_dense(weights, dtype)
        _engine.attention(lengths, memory_lengths, q, k, v, memory, weights, None, own, dq, dk, dv, dmemory)
    return dq, dk, dv, dmemory


# ---- losses of whole sequences ----------------------------------------------------------------------------------


def ctc(
    logits: Array,
    lengths: NDArray[np.int64],
    labels: list[NDArray[np.int64]],
    blank: int,
    weights: NDArray[np.float64],
    training: bool,
) -> tuple[NDArray[np.float64], Array | None]:
    """Return the losses (N,) of logits (T, N, V) by connectionist temporal classification, and ``weights`` times their
    gradients.

    labels are N arrays (L,) of int64 in [0, V), lengths (N,) in [0, T], blank in [0, V). A loss is inf if its labels do
    not fit into its frames, then the gradient is NaN.
    """
    T, N, V = logits.shape
    losses, dlogits = np.zeros(N), zeros(logits.shape, logits.dtype) if training else None
    if N and V:
        begins = np.concatenate([[0], np.cumsum([len(row) for row in labels])]).astype(np.int64)
        whole = np.concatenate([*labels, [blank]]).astype(np.int64)  # not empty
        _engine.ctc(as_dense(logits, logits.dtype), lengths, whole, begins, blank, weights, losses, dlogits)
    return losses, dlogits


def crf(
    emissions: Array,
    lengths: NDArray[np.int64],
    transitions: NDArray[np.float64],
    tags: NDArray[np.int64] | None,
    weights: NDArray[np.float64],
    training: bool,
) -> tuple[NDArray[np.float64], Any, NDArray[np.float64]]:
    """Return the losses (N,) of a conditional random field, and ``weights`` times the gradients of emissions (T, N, K)
    and transitions (K, K), float64. Without tags (T, N) log Z, and ``weights`` times the probabilities of the tags.

    All are C-contiguous, tags in [0, K) at valid steps, lengths (N,) in [0, T].
    """
    losses, dtransitions = np.zeros(emissions.shape[1]), np.zeros(transitions.shape)
    demissions = zeros(emissions.shape, emissions.dtype) if training else None
    if emissions.size:
        pairs = dtransitions if training and tags is not None else None
        _engine.crf(emissions, lengths, transitions, tags, weights, losses, demissions, pairs)
    return losses, demissions, dtransitions


def viterbi(emissions: Array, lengths: NDArray[np.int64], transitions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the tags (T, N) of the highest score, 0 at padded steps; arguments as in :func:`crf`."""
    tags = np.zeros(emissions.shape[:2], np.int64)
    if emissions.size:
        _engine.crf(emissions, lengths, transitions, tags, None, None, None, None)
    return tags


# ---- stacks of cells with packed weights ------------------------------------------------------------------------


def open_stack(
    cells: list[tuple[Variant, _engine.Weights, bool]], directions: int, state_axes: int = 3
) -> _engine.Stack:
    """The stack of these cells for native code: their packed weights, and whether they run in reverse.

    They are given layer by layer, and have the same states: (cells, N, H), or of a single cell with ``state_axes=2``
    (N, H).
    """
    native_cells = [(variant.native, weights, reverse) for variant, weights, reverse in cells]
    return _engine.Stack(native_cells, directions, len(cells[0][0].cell.states) > 1, state_axes)


def open_stream(stack: _engine.Stack, h: Array, c: Array | None = None) -> _engine.Stream:
    """A stream over a stack in one direction that keeps its state in h, c (layers, N, H)."""
    return _engine.Stream(stack, h.shape[1], h, c)


def sample_ids(
    stack: _engine.Stack,
    embedding: Array | _engine.QuantizedMatrix | None,
    Wy: Array | _engine.QuantizedMatrix,
    by: Array,
    h: Array,
    c: Array | None,
    first: int,
    uniforms: NDArray[np.float64],
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    banned: list[int],
    stop: int,
) -> NDArray[np.int64]:
    """Feed a stack of cells its own draws, and return an id for each value of ``uniforms``; fewer if ``stop`` is drawn.

    Parameters
    ----------
    stack : _engine.Stack
        In one direction.
    embedding : array (V, E) or None
        Rows for the ids; None feeds the ids to the first cell.
    Wy, by : arrays (H, V), (V,)
        Output layer.
    h, c : arrays (layers, H), dense, float32 or float64
        State, of the dtype of the stack, updated in place: all ids but the last one drawn have been fed back.
    first : int
        Id to feed first.
    uniforms : float64 array (n,)
        A number in [0, 1) for each draw.
    temperature : float
        Divides the logits; 0 takes the largest.
    top_k : int
        Draw from the k most likely ids; 0 for all.
    top_p : float
        Draw from the most likely ids that together reach this probability; 1 for all.
    banned : sequence of int
        Ids that are never drawn.
    stop : int
        Id that ends the sequence and is kept as its last, -1 for none.

    Returns
    -------
    ids : int64 array

    Raises
    ------
    ValueError
        A logit is NaN or infinite.
    """
    D, H, V = stack.input_size, stack.hidden_size, Wy.shape[1]
    dtype = FLOAT64 if stack.is_double else FLOAT32
    check_shape("Wy", Wy, "(H, V)", (H, V))
    check_shape("by", by, "(V,)", (V,))
    if embedding is not None:
        check_shape("embedding", embedding, "(V, E)", (V, D))
    elif D != V:
        raise ValueError(f"the stack must take V = {V} ids; got input_size = {D}")
    for name, state in (("h", h), ("c", c)):
        if state is not None:
            check_shape(name, state, "(layers, H)", (stack.count, H))
            if not is_dense(state, dtype):
                raise ValueError(f"{name} must be C-contiguous, of {dtype}; got {state.dtype}")
    if not 0 <= first < V:
        raise ValueError(f"first must lie in [0, V) = [0, {V}); got {first}")
    ids = np.empty(len(uniforms), np.int64)
    flags = np.zeros(V, np.int8)
    flags[banned] = 1
    by = as_dense(by, dtype)
    stream = open_stream(stack, h[:, None], None if c is None else c[:, None])
    drawn = _engine.sample["double" if stack.is_double else "float"](
        stream,
        None if embedding is None else _readable(embedding, dtype),
        _readable(Wy, dtype),
        by,
        first,
        uniforms,
        temperature,
        top_k,
        top_p,
        flags,
        stop,
        ids,
    )
    if drawn < 0:
        raise ValueError("the output of the model is not finite: it cannot be sampled from")
    return ids[:drawn]


def _readable(matrix: Array | _engine.QuantizedMatrix, dtype: np.dtype[Any]) -> Any:
    """A matrix as native code reads it: packed, or dense."""
    return matrix if isinstance(matrix, _engine.QuantizedMatrix) else as_dense(matrix, dtype)
