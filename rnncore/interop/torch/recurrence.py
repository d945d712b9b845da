"""One layer of a module, in one direction or both, on the engine and differentiable.

As arrays: x (T, N, D), or (L, D) where the tokens are packed; states (directions, N, H), h or h and c, () for zeros;
weights w_ih (G*H, D), w_hh (G*H, H), and b_ih, b_hh (G*H,) if there are biases, for each direction. Tensors are the
same, but weights come in one list, direction by direction.

Eager calls go through an ``autograd.Function``, compiled ones through operators of ``torch.library``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..._types import Array
from ...engine import calls, cells
from ...engine.cache import Cache
from ...engine.packing import PackedTokens
from ..cells import FRAMEWORK_VARIANTS

#: The engine's variant for each mode of a torch.nn module.
_VARIANTS = {
    "RNN_TANH": cells.RNN.variant("tanh"),
    "RNN_RELU": cells.RNN.variant("relu"),
    "GRU": FRAMEWORK_VARIANTS[cells.GRU],
    "LSTM": FRAMEWORK_VARIANTS[cells.LSTM],
}


def run(
    mode: str,
    batch_sizes: torch.Tensor | None,
    directions: int,
    x: torch.Tensor,
    states: list[torch.Tensor],
    weights: list[torch.Tensor],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Tensors -> y, final states; ``batch_sizes`` (T,) of packed tokens"""
    h0, c0 = (*states, None, None)[:2]
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights))
    if torch.compiler.is_compiling():
        outputs = torch.ops.rnncore.recurrence(x, batch_sizes, h0, c0, weights, mode, directions, training)
        y, *finals = outputs[: 1 + len(_VARIANTS[mode].cell.states)]
        return y, finals
    if training:
        # If x must be copied, save a copy that is part of the graph: create_graph needs the gradient through it.
        y, *finals = _Recurrence.apply(mode, batch_sizes, directions, x.contiguous(), h0, c0, *weights)
        return y, finals
    y, finals, _ = _forward(_VARIANTS[mode], *_arrays(batch_sizes, directions, x, states, weights), training=False)
    return _tensor(y), list(map(_tensor, finals))


# ---- arrays ---------------------------------------------------------------------------------------------------------


def _arguments(
    variant: Any, x: Array, states: list[Array], weights: list[list[Array]], training: bool
) -> Iterator[Any]:
    """Yield the keywords of the engine's forward function for each direction; weights are transposed views."""
    for direction, (w_ih, w_hh, *biases) in enumerate(weights):
        arguments: dict[str, Any] = {
            "x": x,
            "Wx": w_ih.T,
            "Wh": w_hh.T,
            "reverse": direction == 1,
            "training": training,
        }
        for name, state in zip(("h0", "c0"), states, strict=False):
            arguments[name] = state[direction]
        if not biases:
            arguments["b"] = np.zeros(len(w_ih), w_ih.dtype)
        elif variant.has_bhn:
            b_ih, b_hh = biases
            k = 2 * w_hh.shape[1]  # r and z; n = tanh(x Wxn + b_in + r * (h' Whn + b_hn)) keeps its two biases apart
            arguments["b"] = b_ih + b_hh
            arguments["b"][k:] = b_ih[k:]
            arguments["bhn"] = b_hh[k:]
        else:
            arguments["b"] = biases[0] + biases[1]
        yield arguments


def _forward(
    variant: Any, x: Array, states: list[Array], weights: list[list[Array]], *, training: bool
) -> tuple[Any, ...]:
    """Arrays -> y (T, N, H * directions) or (L, H * directions), final states, caches of the directions"""
    if len(weights) == 2 and isinstance(x, np.ndarray):
        x = np.ascontiguousarray(x)  # copied once, not for each direction
    arguments = _arguments(variant, x, states, weights, training)
    has_c = len(variant.cell.states) > 1
    if len(weights) == 1:
        y, final, cache = calls.forward(variant, **next(arguments))
        return y, [state[None] for state in (final if has_c else (final,))], [cache]
    outputs, finals, caches = zip(*calls.forward_side_by_side(variant, list(arguments)), strict=True)
    finals = zip(*finals, strict=True) if has_c else [finals]
    return np.concatenate(outputs, axis=-1), [np.stack(states) for states in finals], caches


def _backward(variant: Any, caches: list[Any], dy: Array, dfinals: list[Array], needs_dx: bool) -> tuple[Any, ...]:
    """Arrays; dy and items of dfinals may be None -> dx or None, gradients of the cell in each direction"""
    H = caches[0].hidden_size
    arguments = []
    for direction, cache in enumerate(caches):
        arguments.append({"cache": cache, "dh": None if dy is None else dy[..., direction * H : (direction + 1) * H]})
        for name, dfinal in zip(("dh_n", "dc_n"), dfinals, strict=False):
            arguments[-1][name] = None if dfinal is None else dfinal[direction]
    results = calls.backward_side_by_side(variant.cell, arguments, needs_dx=needs_dx)
    dx = results[0].dx
    for other in results[1:]:
        dx = None if dx is None else np.add(dx, other.dx, out=dx)
    return dx, results


def _gradients_of_weights(g: Any, biases: bool) -> tuple[Array, ...]:
    """Gradients of one cell -> those of w_ih, w_hh and, if there are biases, b_ih, b_hh."""
    if not biases:
        return g.dWx.T, g.dWh.T
    db_hh = g.db.copy()
    if getattr(g, "dbhn", None) is not None:
        db_hh[-len(g.dbhn) :] = g.dbhn
    return g.dWx.T, g.dWh.T, g.db, db_hh


# ---- tensors --------------------------------------------------------------------------------------------------------


def _tensor(array: Array | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array)


def _array(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.resolve_neg().detach().numpy()


def _arrays(
    batch_sizes: torch.Tensor | None,
    directions: int,
    x: torch.Tensor,
    states: list[torch.Tensor],
    weights: list[torch.Tensor] | tuple[Any, ...],
) -> tuple[Any, ...]:
    """Tensors -> x, states, weights as arrays"""
    count = len(weights) // directions
    array: Any = _array(x)
    if batch_sizes is not None:
        array = PackedTokens(array, batch_sizes.numpy())
    of_weights = list(map(_array, weights))
    groups = [of_weights[k : k + count] for k in range(0, len(of_weights), count)]
    return array, list(map(_array, states)), groups


def _matrices(weights: Any) -> list[torch.Tensor]:
    return [tensor for tensor in weights if tensor.dim() == 2]


def _gradients(
    mode: str,
    caches: list[Cache],
    x: torch.Tensor,
    matrices: list[torch.Tensor],
    kept: list[torch.Tensor | None],
    cotangents: Any,
    biases: bool,
    needs: Any,
) -> tuple[Any, ...]:
    """Tensors, and caches whose arrays are in ``kept`` -> dx, dh0, dc0 where they are needed, gradients of weights"""
    x, variant, count = _array(x), _VARIANTS[mode], len(kept) // len(caches)
    attached = [
        cache.attach(
            _array(matrices[2 * k]).T,
            _array(matrices[2 * k + 1]).T,
            (x, *map(_array, kept[k * count : (k + 1) * count])),
        )
        for k, cache in enumerate(caches)
    ]
    dy, *dfinals = map(_array, cotangents)
    dx, results = _backward(variant, attached, dy, dfinals, needs[0])
    dstates = [
        np.stack([getattr(g, name) for g in results]) if needed else None
        for name, needed in zip(("dh0", "dc0"), needs[1:], strict=True)
    ]
    dweights = [gradient for g in results for gradient in _gradients_of_weights(g, biases)]
    return tuple(map(_tensor, (dx, *dstates, *dweights)))


# ---- eager calls ----------------------------------------------------------------------------------------------------


class _Recurrence(torch.autograd.Function):
    """:func:`_forward` in autograd. Values for the backward pass are saved tensors, which live as long as the graph."""

    @staticmethod
    def forward(
        ctx: Any,
        mode: str,
        batch_sizes: torch.Tensor | None,
        directions: int,
        x: torch.Tensor,
        h0: torch.Tensor | None,
        c0: torch.Tensor | None,
        *weights: torch.Tensor,
    ) -> tuple[Any, ...]:
        states = [state for state in (h0, c0) if state is not None]
        arrays = _arrays(batch_sizes, directions, x, states, weights)
        y, finals, ctx.caches = _forward(_VARIANTS[mode], *arrays, training=True)
        ctx.settings = mode, batch_sizes, directions
        # Save x and the matrices: PyTorch detects if they are changed before backward.
        kept = [_tensor(array) for cache in ctx.caches for array in cache.detach()[1:]]
        ctx.save_for_backward(x, *_matrices(weights), *kept)
        # Only gradients of gradients read these again; they may change otherwise.
        ctx.states, ctx.biases = states, [tensor for tensor in weights if tensor.dim() == 1]
        ctx.versions = _versions(states, ctx.biases)
        ctx.set_materialize_grads(False)
        return tuple(map(_tensor, (y, *finals)))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[Any, ...]:
        mode, batch_sizes, directions = ctx.settings
        x, *saved = ctx.saved_tensors
        matrices, kept = saved[: 2 * directions], saved[2 * directions :]
        if not torch.is_grad_enabled():
            needs = ctx.needs_input_grad[3:6]
            gradients = _gradients(mode, ctx.caches, x, matrices, kept, cotangents, bool(ctx.biases), needs)
            return None, None, None, *gradients
        if _versions(ctx.states, ctx.biases) != ctx.versions:
            raise RuntimeError(
                "an initial state or a bias has been modified by an inplace operation: with create_graph=True they "
                "must not change between forward and backward"
            )
        return None, None, None, *_gradients_by_torch(ctx, x, matrices, cotangents)


def _versions(*groups: list[torch.Tensor]) -> list[int | None]:
    """The counters of changes in place."""
    return [None if tensor.is_inference() else tensor._version for tensors in groups for tensor in tensors]


def _gradients_by_torch(
    ctx: Any, x: torch.Tensor, matrices: list[torch.Tensor], cotangents: tuple[torch.Tensor | None, ...]
) -> tuple[Any, ...]:
    """What :func:`_gradients` returns, by operations of PyTorch, which have gradients themselves."""
    mode, batch_sizes, directions = ctx.settings
    weights: list[torch.Tensor] = []
    for k in range(0, 2 * directions, 2):
        weights += (*matrices[k : k + 2], *ctx.biases[k : k + 2])
    # Views, because one tensor may be several of the inputs.
    views = [tensor.view_as(tensor) for tensor in (x, *ctx.states, *weights)]
    x, states, weights = views[0], views[1 : len(ctx.states) + 1], views[len(ctx.states) + 1 :]
    if not states:
        N = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
        states = [x.new_zeros(directions, N, weights[1].shape[1]) for _ in _VARIANTS[mode].cell.states]
    hx = states if mode == "LSTM" else states[0]
    settings = bool(ctx.biases), 1, 0.0, True, directions == 2  # num_layers, dropout, training
    function = getattr(torch, mode.lower())
    if batch_sizes is None:
        outputs = function(x, hx, weights, *settings, False)
    else:
        outputs = function(x, batch_sizes, hx, weights, *settings)
    used = [k for k, cotangent in enumerate(cotangents) if cotangent is not None]
    needed = [view for view in views if view.requires_grad]
    found = iter(
        torch.autograd.grad(
            [outputs[k] for k in used], needed, [cotangents[k] for k in used], create_graph=True, allow_unused=True
        )
    )
    dx, *others = [next(found) if view.requires_grad else None for view in views]
    dh0, dc0 = (*others[: len(ctx.states)], None, None)[:2]
    return dx, dh0, dc0, *others[len(ctx.states) :]


# ---- compiled calls -------------------------------------------------------------------------------------------------
#
# Kept for the backward pass, for each direction: those of h0, c0, gates, c, m and h that the cell has, L = T * N.


def _kept_shapes(variant: Any, N: Any, L: Any, H: int) -> dict[str, tuple[Any, Any]]:
    states = {f"{state}0": (N, H) for state in variant.cell.states}
    return states | {name: (L, blocks * H) for name, blocks in variant.saved_blocks} | {"h": (L, H)}


def _recurrence(
    x: torch.Tensor,
    batch_sizes: torch.Tensor | None,
    h0: torch.Tensor | None,
    c0: torch.Tensor | None,
    weights: list[torch.Tensor],
    mode: str,
    directions: int,
    training: bool,
) -> list[torch.Tensor]:
    """y, final states and, for training, what is kept"""
    states = [state for state in (h0, c0) if state is not None]
    arrays = _arrays(batch_sizes, directions, x, states, weights)
    y, finals, caches = _forward(_VARIANTS[mode], *arrays, training=training)
    kept = [array for cache in caches for array in cache.detach()[1:] if array is not None] if training else []
    return [torch.from_numpy(array) for array in (y, *finals, *kept)]


def _shapes(
    x: torch.Tensor,
    batch_sizes: torch.Tensor | None,
    h0: torch.Tensor | None,
    c0: torch.Tensor | None,
    weights: list[torch.Tensor],
    mode: str,
    directions: int,
    training: bool,
) -> list[torch.Tensor]:
    variant, H = _VARIANTS[mode], weights[1].shape[1]
    *tokens, _ = x.shape
    if h0 is not None:
        N = h0.shape[1]
    elif batch_sizes is None:
        N = x.shape[1]
    else:
        N = torch.library.get_ctx().new_dynamic_size()
    shapes = [(*tokens, directions * H)] + [(directions, N, H)] * len(variant.cell.states)
    if training:
        shapes += [*_kept_shapes(variant, N, math.prod(tokens), H).values()] * directions
    return [x.new_empty(shape) for shape in shapes]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    x, batch_sizes, h0, _, weights, ctx.mode, ctx.directions, _ = inputs
    ctx.has_states, ctx.num_weights = h0 is not None, len(weights)
    ctx.save_for_backward(x, batch_sizes, *_matrices(weights), *output[1 + len(_VARIANTS[ctx.mode].cell.states) :])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, cotangents: list[torch.Tensor | None]) -> tuple[Any, ...]:
    x, batch_sizes, *saved = ctx.saved_tensors
    count, has_dx = 2 * ctx.directions, ctx.needs_input_grad[0]
    num_states = len(_VARIANTS[ctx.mode].cell.states)
    dy, dh_n, dc_n = (*cotangents[: 1 + num_states], None)[:3]
    biases = ctx.num_weights > count
    gradients = torch.ops.rnncore.recurrence_backward(
        dy, dh_n, dc_n, x, batch_sizes, saved[:count], saved[count:], ctx.mode, biases, has_dx
    )
    dx = gradients[0] if has_dx else None
    dh0, dc0 = (*gradients[has_dx : has_dx + num_states], None)[:2] if ctx.has_states else (None, None)
    return dx, None, dh0, dc0, list(gradients[has_dx + num_states :]), None, None, None


def _recurrence_backward(
    dy: torch.Tensor | None,
    dh_n: torch.Tensor | None,
    dc_n: torch.Tensor | None,
    x: torch.Tensor,
    batch_sizes: torch.Tensor | None,
    matrices: list[torch.Tensor],
    kept: list[torch.Tensor],
    mode: str,
    biases: bool,
    needs_dx: bool,
) -> list[torch.Tensor]:
    """dx if it is needed, gradients of the initial states and of the weights"""
    variant, rows = _VARIANTS[mode], None if batch_sizes is None else batch_sizes.numpy()
    caches = [Cache.detached(variant, _array(x), rows, w_hh.shape[1], bool(k)) for k, w_hh in enumerate(matrices[1::2])]
    names, arrays = _kept_shapes(variant, 0, 0, 0), iter(kept)
    order = ("h0", "c0", "gates", "c", "m", "h")
    of_caches = [next(arrays) if name in names else None for _ in caches for name in order]
    needs = needs_dx, True, "c0" in names
    gradients = _gradients(mode, caches, x, matrices, of_caches, (dy, dh_n, dc_n), biases, needs)
    # Gradients have the layout of their weights; the shapes below promise C order.
    return [gradient.contiguous() for gradient in gradients if gradient is not None]


def _shapes_of_gradients(
    dy: torch.Tensor | None,
    dh_n: torch.Tensor | None,
    dc_n: torch.Tensor | None,
    x: torch.Tensor,
    batch_sizes: torch.Tensor | None,
    matrices: list[torch.Tensor],
    kept: list[torch.Tensor],
    mode: str,
    biases: bool,
    needs_dx: bool,
) -> list[torch.Tensor]:
    directions = len(matrices) // 2
    shapes = [tuple(x.shape)] * needs_dx + [(directions, *kept[0].shape)] * len(_VARIANTS[mode].cell.states)
    for w_ih, w_hh in zip(matrices[::2], matrices[1::2], strict=True):
        shapes += [tuple(w_ih.shape), tuple(w_hh.shape)] + [(w_hh.shape[0],)] * (2 * biases)
    return [x.new_empty(shape) for shape in shapes]


_OPERATOR = torch.library.custom_op(
    "rnncore::recurrence",
    _recurrence,
    mutates_args=(),
    schema="(Tensor x, Tensor? batch_sizes, Tensor? h0, Tensor? c0, Tensor[] weights, str mode, int directions, "
    "bool training) -> Tensor[]",
)
_OPERATOR.register_fake(_shapes)
_OPERATOR.register_autograd(_differentiate, setup_context=_save)
_BACKWARD = torch.library.custom_op(
    "rnncore::recurrence_backward",
    _recurrence_backward,
    mutates_args=(),
    schema="(Tensor? dy, Tensor? dh_n, Tensor? dc_n, Tensor x, Tensor? batch_sizes, Tensor[] matrices, Tensor[] kept, "
    "str mode, bool biases, bool needs_dx) -> Tensor[]",
)
_BACKWARD.register_fake(_shapes_of_gradients)
