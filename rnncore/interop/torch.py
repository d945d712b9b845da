"""PyTorch: weights in and out, and drop-in modules for ``torch.nn``'s RNN, GRU and LSTM on the CPU.

Write ``from rnncore.interop.torch import GRU`` in place of ``from torch.nn import GRU``. The modules are subclasses of
those of torch.nn, with the same constructor, parameters, initial values, state dict and results. ``replace(model)``
converts an existing model. Parameters are read in place: no call copies the weights. ``PackedSequence``, float32 and
float64 are supported. Dropout between layers draws from PyTorch's generator.

torch.nn's own forward pass computes what the engine does not support:

* tensors on other devices, of other dtypes or of subclasses;
* calls under autocast, ``torch.compile``, tracers, dispatch modes or forward-mode derivatives;
* batches that take longer to set up than to compute, such as single steps: up to 8 tokens of an RNN, 3 of a GRU, and 1
  of an LSTM in float64.

Differences from torch.nn:

* ``proj_size`` of an LSTM raises ValueError; so does a wrong shape or dtype, also of a parameter.
* Double backward (``create_graph``) and the transforms of ``torch.func`` raise an error.
* The input and the weights must not be changed in place between forward and backward, whichever gradients are needed;
  biases may be.
* Tensors that were an input or a parameter can no longer be resized in place (``resize_``): NumPy shares their memory.
* The number of threads is rnncore's (:func:`rnncore.set_num_threads`), not ``torch.set_num_threads``. PyTorch's threads
  keep spinning for a while after its parallel operations. If there are no spare cores, set the environment variable
  ``OMP_WAIT_POLICY=passive`` to leave the cores to the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from .._types import Array
from ..engine import calls, cells
from ..engine.packing import PackedTokens
from ..layers import Recurrent
from . import state_dict
from .cells import FRAMEWORK_VARIANTS

__all__ = ["GRU", "LSTM", "RNN", "from_torch", "replace", "to_torch"]

#: The engine's variant for each mode of a torch.nn module.
_VARIANTS = {
    "RNN_TANH": cells.RNN.variant("tanh"),
    "RNN_RELU": cells.RNN.variant("relu"),
    "GRU": FRAMEWORK_VARIANTS[cells.GRU],
    "LSTM": FRAMEWORK_VARIANTS[cells.LSTM],
}


# ---- weights --------------------------------------------------------------------------------------------------------


def from_torch(source: Any, *, prefix: str = "", dtype: Any = None, **options: Any) -> Recurrent:
    """Make a layer of rnncore with a copy of a module's weights.

    Parameters
    ----------
    source : torch.nn.RNN, GRU or LSTM, or a state dict of one
    prefix : str, default ""
        For a state dict: use only the keys that start with it, for example ``"encoder.rnn."``.
    dtype : {"float32", "float64"}, optional
        Default: that of the weights.
    **options
        For a state dict, which does not record them: ``nonlinearity``, ``batch_first``, ``dropout``.

    Returns
    -------
    rnncore.RNN, GRU or LSTM
        A GRU has the form "reset_after" and the update "old".

    Raises
    ------
    ValueError
        The module has projections (``proj_size``); a key of the state dict is missing or unknown, or a shape is wrong.
    TypeError
        ``source`` is something else, or a tensor has another dtype.

    Examples
    --------
    >>> module = torch.nn.GRU(3, 5, num_layers=2, bidirectional=True)
    >>> layer = from_torch(module)
    >>> x = torch.randn(7, 2, 3)
    >>> bool(np.allclose(layer(x.numpy())[0], module(x)[0].detach().numpy(), atol=1e-6))
    True
    """
    if isinstance(source, torch.nn.RNNBase):
        if options or prefix:
            raise TypeError(f"a module tells its own options; got {', '.join(['prefix'] * bool(prefix) + [*options])}")
        options = {"batch_first": source.batch_first, "dropout": source.dropout if source.num_layers > 1 else 0.0}
        if source.mode.startswith("RNN"):
            options["nonlinearity"] = source.nonlinearity
        source = source.state_dict()
    elif isinstance(source, torch.nn.Module) or not hasattr(source, "items"):
        raise TypeError(f"source must be a torch.nn.RNN, GRU or LSTM, or its state dict; got {type(source).__name__}")
    arrays = {name: _array_of(name, value) for name, value in source.items() if str(name).startswith(prefix)}
    return state_dict.to_layer(arrays, prefix=prefix, dtype=dtype, **options)


def to_torch(layer: Recurrent) -> GRU | LSTM | RNN:
    """Make a torch.nn module with a copy of a layer's weights.

    Parameters
    ----------
    layer : rnncore.RNN, GRU or LSTM

    Returns
    -------
    torch.nn.RNN, GRU or LSTM
        With the layer's dtype, ``batch_first`` and ``dropout``, but not ``recurrent_dropout``. The second biases are 0,
        except for a GRU's candidate.

    Raises
    ------
    ValueError
        PyTorch does not have the cell; the message names the option.

    Examples
    --------
    >>> import rnncore as rc
    >>> layer = rc.LSTM(3, 5, num_layers=2, batch_first=True, seed=0)
    >>> module = to_torch(layer)
    >>> x = torch.randn(2, 7, 3)
    >>> bool(np.allclose(layer(x.numpy())[0], module(x)[0].detach().numpy(), atol=1e-6))
    True
    """
    arrays = state_dict.from_layer(layer)
    options: dict[str, Any] = (
        {"nonlinearity": layer.variant.options["activation"]} if "activation" in layer.cell.options else {}
    )
    with torch.random.fork_rng(devices=[]):  # the initial values are overwritten: do not advance PyTorch's generator
        module = getattr(torch.nn, layer.cell.label)(
            layer.input_size,
            layer.hidden_size,
            layer.num_layers,
            batch_first=layer.batch_first,
            dropout=layer.dropout if layer.num_layers > 1 else 0.0,
            bidirectional=layer.bidirectional,
            dtype=getattr(torch, layer.dtype.name),
            **options,
        )
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return module


def _array_of(name: str, tensor: torch.Tensor) -> Array:
    """Return a tensor, or an array, as an array."""
    if not isinstance(tensor, torch.Tensor):
        return np.asarray(tensor)
    if tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        raise TypeError(f"{name} must be of float16, float32 or float64; got {tensor.dtype}")
    return tensor.detach().cpu().numpy()


# ---- one layer of a module, in one direction or both ----------------------------------------------------------------
#
# x (T, N, D), or (L, D) where the tokens are packed; states (directions, N, H), h or h and c, () for zeros; weights
# w_ih (G*H, D), w_hh (G*H, H), and b_ih, b_hh (G*H,) if there are biases, for each direction.


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


def _tensor(array: Array | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array)


def _array(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.resolve_neg().detach().numpy()


def _arrays(
    rows: Any,
    directions: int,
    x: torch.Tensor,
    states: list[torch.Tensor],
    weights: list[torch.Tensor] | tuple[Any, ...],
) -> tuple[Any, ...]:
    """Tensors, the weights direction by direction -> x, states, weights as above"""
    count = len(weights) // directions
    array: Any = _array(x)
    if rows is not None:
        array = PackedTokens(array, rows)
    of_weights = list(map(_array, weights))
    groups = [of_weights[k : k + count] for k in range(0, len(of_weights), count)]
    return array, list(map(_array, states)), groups


class _Recurrence(torch.autograd.Function):
    """:func:`_forward` in autograd. Values for the backward pass are saved tensors, which live as long as the graph."""

    @staticmethod
    def forward(
        ctx: Any,
        variant: Any,
        rows: Array | None,
        directions: int,
        x: torch.Tensor,
        h0: torch.Tensor | None,
        c0: torch.Tensor | None,
        *weights: Any,
    ) -> tuple[Any, ...]:
        states = [state for state in (h0, c0) if state is not None]
        y, finals, ctx.caches = _forward(variant, *_arrays(rows, directions, x, states, weights), training=True)
        ctx.variant, ctx.biases = variant, len(weights) > 2 * directions
        kept = [cache.detach() for cache in ctx.caches]
        # Save the weights, and x unless the engine copied it: PyTorch detects if they are changed before backward.
        x = x if x.is_contiguous() else torch.from_numpy(kept[0][0])
        matrices = [tensor for tensor in weights if tensor.dim() == 2]
        ctx.save_for_backward(x, *matrices, *(_tensor(array) for arrays in kept for array in arrays[1:]))
        ctx.set_materialize_grads(False)
        return tuple(map(_tensor, (y, *finals)))

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor, *dfinals: Any) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the engine has no gradients of gradients: create_graph must be False; got True")
        x, *saved = map(_array, ctx.saved_tensors)
        matrices, kept = saved[: 2 * len(ctx.caches)], saved[2 * len(ctx.caches) :]
        count = len(kept) // len(ctx.caches)
        caches = [
            cache.attach(matrices[2 * k].T, matrices[2 * k + 1].T, (x, *kept[k * count : (k + 1) * count]))
            for k, cache in enumerate(ctx.caches)
        ]
        dx, results = _backward(ctx.variant, caches, _array(dy), list(map(_array, dfinals)), ctx.needs_input_grad[3])
        dstates = [
            np.stack([getattr(g, name) for g in results]) if needed else None
            for name, needed in zip(("dh0", "dc0"), ctx.needs_input_grad[4:6], strict=True)
        ]
        gradients = [gradient for g in results for gradient in _gradients_of_weights(g, ctx.biases)]
        return None, None, None, *map(_tensor, (dx, *dstates, *gradients))


def _run(
    variant: Any, rows: Any, directions: int, x: torch.Tensor, states: list[torch.Tensor], weights: list[torch.Tensor]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Tensors -> y, final states"""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *states, *weights)):
        h0, c0 = (*states, None, None)[:2]
        y, *finals = _Recurrence.apply(variant, rows, directions, x, h0, c0, *weights)
        return y, finals
    y, finals, _ = _forward(variant, *_arrays(rows, directions, x, states, weights), training=False)
    return _tensor(y), list(map(_tensor, finals))


# ---- modules --------------------------------------------------------------------------------------------------------

_PLAIN = torch.Tensor, torch.nn.Parameter


def _is_observed() -> bool:
    """Whether a tracer, a dispatch mode or a forward-mode derivative follows the operations one by one."""
    return torch.jit.is_tracing() or is_in_torch_dispatch_mode() or forward_ad._current_level >= 0


class _Recurrent:
    """Mixin of the three modules: a forward pass on the engine, before torch.nn's in the order of bases."""

    #: At or below this many tokens torch.nn is faster (H = 128 .. 1024), by dtype.
    _few_tokens: dict[torch.dtype, int]

    # Attributes of torch.nn.RNNBase.
    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    proj_size: int
    batch_first: bool
    bidirectional: bool
    training: bool
    dropout: float
    _all_weights: list[list[str]]
    _parameters: dict[str, Any]

    def __init__(self, *args, **kwargs):  # type: ignore[no-untyped-def]  # the exact signature of torch.nn
        super().__init__(*args, **kwargs)
        if self.proj_size:
            raise ValueError(f"proj_size must be 0: the engine has no projections; got {self.proj_size}")

    def forward(
        self, input: PackedSequence | torch.Tensor, hx: torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[Any, ...]:
        """input (T, N, D), with ``batch_first`` (N, T, D), (T, D), or a PackedSequence -> output, states"""
        is_batch = type(input) is torch.Tensor and input.dim() == 3
        if is_batch and 0 < input.size(0) * input.size(1) <= self._few_tokens.get(input.dtype, 0):
            return super().forward(input, hx)  # type: ignore[misc]
        x, batch_sizes, order, back = input if isinstance(input, PackedSequence) else (input, None, None, None)
        if not self._is_for_the_engine(x):
            return super().forward(input, hx)  # type: ignore[misc]
        states = self._states(hx)
        weights = [[self._weight(name) for name in names] for names in self._all_weights]
        self._check(x, states, weights, batch_sizes)
        is_single = batch_sizes is None and x.dim() == 2
        if is_single:
            x, states = x.unsqueeze(1), [state.unsqueeze(1) for state in states]
        elif batch_sizes is None and self.batch_first:
            x = x.transpose(0, 1)
        if order is not None:
            states = [state.index_select(1, order) for state in states]

        variant = _VARIANTS[self.mode]
        rows = None if batch_sizes is None else batch_sizes.numpy()
        directions = 2 if self.bidirectional else 1
        of_layers = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = torch.nn.functional.dropout(x, self.dropout)
            cells = slice(layer * directions, (layer + 1) * directions)
            own = states if self.num_layers == 1 else [state[cells] for state in states]
            x, final = _run(variant, rows, directions, x, own, [w for of_cell in weights[cells] for w in of_cell])
            of_layers.append(final)
        finals = of_layers[0]
        if self.num_layers > 1:
            finals = [torch.cat(parts) for parts in zip(*of_layers, strict=True)]

        if back is not None:
            finals = [state.index_select(1, back) for state in finals]
        if is_single:
            x, finals = x.squeeze(1), [state.squeeze(1) for state in finals]
        elif batch_sizes is not None:
            x = PackedSequence(x, batch_sizes, order, back)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, tuple(finals) if self.mode == "LSTM" else finals[0]

    def _weight(self, name: str) -> torch.Tensor:
        """The parameter, or what a parametrization computes in its place."""
        parameter = self._parameters.get(name)
        return getattr(self, name) if parameter is None else parameter

    def _is_for_the_engine(self, x: torch.Tensor) -> bool:
        return (
            type(x) in _PLAIN
            and (x.dtype is torch.float32 or x.dtype is torch.float64)
            and x.is_cpu
            and x.layout is torch.strided
            and not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or _is_observed())
        )

    def _states(self, hx: torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None) -> list[torch.Tensor]:
        """Return the tensors in hx as a list."""
        if hx is None:
            return []
        is_lstm = self.mode == "LSTM"
        states = list(hx) if is_lstm and isinstance(hx, (tuple, list)) else [hx]
        if len(states) != (2 if is_lstm else 1) or not all(isinstance(state, torch.Tensor) for state in states):
            kinds = ", ".join(type(state).__name__ for state in states)
            raise TypeError(f"hx must be {'a tuple (h_0, c_0) of tensors' if is_lstm else 'a tensor'}; got {kinds}")
        return states

    def _check(
        self,
        x: torch.Tensor,
        states: list[torch.Tensor],
        weights: list[list[torch.Tensor]],
        batch_sizes: torch.Tensor | None,
    ) -> None:
        """Raise ValueError unless shapes, dtypes and devices match the module's settings and its input."""
        D, H, directions = self.input_size, self.hidden_size, 2 if self.bidirectional else 1
        is_packed, time = batch_sizes is not None, int(self.batch_first and x.dim() == 3)
        if x.dim() not in ((2,) if is_packed else (2, 3)) or x.shape[-1] != D or x.shape[time] == 0:
            axes = "(N, T, D) or (T, D)" if self.batch_first else "(T, N, D) or (T, D)"
            axes = "(L, D)" if is_packed else f"{axes}, T > 0,"
            raise ValueError(f"input must be {axes} with D = input_size = {D}; got {tuple(x.shape)}")
        letters, wanted = "(num_layers * directions, N, H)", (self.num_layers * directions, H)
        if batch_sizes is not None:
            wanted = wanted[0], int(batch_sizes[0]), H
        elif x.dim() == 3:
            wanted = wanted[0], x.shape[1 - time], H
        else:
            letters = "(num_layers * directions, H)"
        for name, state in zip(("h_0", "c_0"), states, strict=False):
            if state.shape != wanted:
                raise ValueError(f"{name} must be {letters} = {wanted}; got {tuple(state.shape)}")
            if state.dtype is not x.dtype or not state.is_cpu or state.layout is not torch.strided:
                raise ValueError(f"{name} must be {_kind_of(x)}, as the input; got {_kind_of(state)}")
        GH = {"LSTM": 4, "GRU": 3}.get(self.mode, 1) * H
        dtype, strided = x.dtype, torch.strided
        for k, tensors in enumerate(weights):
            shapes = (GH, D if k < directions else H * directions), (GH, H), (GH,), (GH,)
            for position, (tensor, shape) in enumerate(zip(tensors, shapes, strict=False)):
                if tensor is None or tensor.shape != shape:
                    got = None if tensor is None else tuple(tensor.shape)
                    raise ValueError(f"{self._all_weights[k][position]} must be {shape}; got {got}")
                if tensor.dtype is not dtype or not tensor.is_cpu or tensor.layout is not strided:
                    name = self._all_weights[k][position]
                    raise ValueError(f"input must be {_kind_of(tensor)}, as {name}; got {_kind_of(x)}")


def _kind_of(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} on {tensor.device}" + ("" if tensor.layout is torch.strided else f", {tensor.layout}")


class RNN(_Recurrent, torch.nn.RNN):
    """:class:`torch.nn.RNN`, on rnncore's engine.

    Examples
    --------
    >>> rnn = RNN(3, 5, nonlinearity="relu")
    >>> y, h_n = rnn(torch.ones(7, 2, 3))
    >>> y.sum().backward()
    >>> y.shape, rnn.weight_hh_l0.grad.shape
    (torch.Size([7, 2, 5]), torch.Size([5, 5]))
    """

    _few_tokens = {torch.float32: 8, torch.float64: 8}


class GRU(_Recurrent, torch.nn.GRU):
    """:class:`torch.nn.GRU`, on rnncore's engine.

    Examples
    --------
    >>> gru = GRU(3, 5, num_layers=2, bidirectional=True, batch_first=True, dtype=torch.float64)
    >>> y, h_n = gru(torch.ones(2, 7, 3, dtype=torch.float64))
    >>> y.shape, h_n.shape
    (torch.Size([2, 7, 10]), torch.Size([4, 2, 5]))
    """

    _few_tokens = {torch.float32: 3, torch.float64: 3}


class LSTM(_Recurrent, torch.nn.LSTM):
    """:class:`torch.nn.LSTM`, on rnncore's engine; ``proj_size`` must be 0.

    Examples
    --------
    >>> lstm = LSTM(3, 5)
    >>> packed = torch.nn.utils.rnn.pack_sequence([torch.ones(7, 3), torch.ones(4, 3)])
    >>> y, (h_n, c_n) = lstm(packed)
    >>> y.data.shape, c_n.shape
    (torch.Size([11, 5]), torch.Size([1, 2, 5]))
    """

    _few_tokens = {torch.float64: 1}


def replace(model: Any) -> list[str]:
    """Run every RNN, GRU and LSTM of torch.nn in a model on rnncore's engine, keeping objects and parameters.

    Parameters
    ----------
    model : torch.nn.Module
        Or one of the three itself. LSTMs with projections and modules of other classes are left unchanged.

    Returns
    -------
    list of str
        The names of the converted modules, as in ``model.named_modules()``.

    Raises
    ------
    TypeError
        ``model`` is not a module.

    Examples
    --------
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.GRU(3, 5), "output": torch.nn.Linear(5, 2)})
    >>> replace(model)
    ['encoder']
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    classes = {torch.nn.RNN: RNN, torch.nn.GRU: GRU, torch.nn.LSTM: LSTM}
    changed = {name: m for name, m in model.named_modules() if type(m) in classes and not m.proj_size}
    for module in changed.values():
        module.__class__ = classes[type(module)]
    return list(changed)
