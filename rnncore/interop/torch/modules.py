"""The modules: what they hand to the engine, and what to torch.nn."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from .recurrence import run

_PLAIN = torch.Tensor, torch.nn.Parameter


class _ModuleOf(str):
    """``__module__`` of a class; of its instances it is torch.nn, where torch.fx knows a module for a leaf by it."""

    def __get__(self, instance: object, owner: type) -> str:
        return str(self) if instance is None else "torch.nn"


def _is_observed() -> bool:
    """Whether a tracer, a transform, a dispatch mode or a forward-mode derivative follows the operations one by one."""
    return (
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0  # torch.utils._python_dispatch's flag stays set in PyTorch 2.4
        or forward_ad._current_level >= 0
    )


# PyTorch 2.4 does not have it.
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


class Recurrent:
    """Mixin of the three modules: a forward pass on the engine, before torch.nn's in the order of bases."""

    #: The class of torch.nn that the module takes the place of.
    of_torch: type
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

    def forward(
        self, input: PackedSequence | torch.Tensor, hx: torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[Any, ...]:
        """input (T, N, D), with ``batch_first`` (N, T, D), (T, D), or a PackedSequence -> output, states"""
        is_compiling = torch.compiler.is_compiling()
        if not is_compiling and type(input) is torch.Tensor and input.dim() == 3:  # first: these calls are the shortest
            if 0 < input.size(0) * input.size(1) <= self._few_tokens.get(input.dtype, 0):
                return super().forward(input, hx)  # type: ignore[misc]
        if _is_exporting() if is_compiling else _is_observed():
            return super().forward(input, hx)  # type: ignore[misc]
        x, batch_sizes, order, back = input, None, None, None
        if isinstance(input, PackedSequence):
            x, batch_sizes, order, back = input.data, input.batch_sizes, input.sorted_indices, input.unsorted_indices
        states = self._states(hx)
        if states is None or not self.is_for_the_engine(x) or torch.is_autocast_enabled("cpu"):
            return super().forward(input, hx)  # type: ignore[misc]
        weights = [[self._weight(name) for name in names] for names in self._all_weights]
        if not self._fits(x, states, weights, batch_sizes, order):
            return super().forward(input, hx)  # type: ignore[misc]
        is_single = batch_sizes is None and x.dim() == 2
        if is_single:
            x, states = x.unsqueeze(1), [state.unsqueeze(1) for state in states]
        elif batch_sizes is None and self.batch_first:
            x = x.transpose(0, 1)
        if order is not None and is_compiling and not states:  # a compiler takes the size of the batch from them
            cells = self.num_layers * (2 if self.bidirectional else 1)
            states = [x.new_zeros(cells, len(order), self.hidden_size)] * (2 if self.mode == "LSTM" else 1)
        if order is not None:
            states = [state.index_select(1, order) for state in states]

        directions = 2 if self.bidirectional else 1
        of_layers = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = torch.nn.functional.dropout(x, self.dropout)
            cells = slice(layer * directions, (layer + 1) * directions)
            own = states if self.num_layers == 1 else [state[cells] for state in states]
            of_layer = [w for of_cell in weights[cells] for w in of_cell]
            x, final = run(self.mode, batch_sizes, directions, x, own, of_layer)
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

    def is_for_the_engine(self, x: torch.Tensor) -> bool:
        """Whether the engine supports the module's settings, and tensors like x."""
        return (
            not self.proj_size
            and type(x) in _PLAIN
            and (x.dtype is torch.float32 or x.dtype is torch.float64)
            and x.is_cpu
            and x.layout is torch.strided
        )

    def _states(self, hx: Any) -> list[torch.Tensor] | None:
        """Return the tensors in hx as a list, None if it is of another type."""
        if hx is None:
            return []
        if self.mode == "LSTM":
            states = list(hx) if isinstance(hx, (tuple, list)) and len(hx) == 2 else [None]
        else:
            states = [hx]
        return states if all(isinstance(state, torch.Tensor) for state in states) else None

    def _fits(
        self,
        x: torch.Tensor,
        states: list[torch.Tensor],
        weights: list[list[torch.Tensor]],
        batch_sizes: torch.Tensor | None,
        order: torch.Tensor | None,
    ) -> bool:
        """Whether shapes, dtypes and devices match the module's settings and its input."""
        D, H, directions = self.input_size, self.hidden_size, 2 if self.bidirectional else 1
        dtype, strided, cells = x.dtype, torch.strided, self.num_layers * directions
        is_packed, time = batch_sizes is not None, int(self.batch_first and x.dim() == 3)
        if x.dim() not in ((2,) if is_packed else (2, 3)) or x.shape[-1] != D or x.shape[time] == 0:
            return False
        for state in states:
            wanted: tuple[int, ...] = (cells, H) if x.dim() == 2 else (cells, x.shape[1 - time], H)
            if batch_sizes is not None:
                wanted = cells, self._batch_size(batch_sizes, order, state), H
            if state.shape != wanted or state.dtype is not dtype or not state.is_cpu or state.layout is not strided:
                return False
        GH = {"LSTM": 4, "GRU": 3}.get(self.mode, 1) * H
        for k, tensors in enumerate(weights):
            shapes = (GH, D if k < directions else H * directions), (GH, H), (GH,), (GH,)
            for position, tensor in enumerate(tensors):
                if (
                    tensor is None
                    or tensor.shape != shapes[position]
                    or tensor.dtype is not dtype
                    or not tensor.is_cpu
                    or tensor.layout is not strided
                ):
                    return False
        return True

    @staticmethod
    def _batch_size(batch_sizes: torch.Tensor, order: torch.Tensor | None, state: torch.Tensor) -> int:
        if not torch.compiler.is_compiling():
            return int(batch_sizes[0])
        # A compiler does not know values; the engine checks them when it runs.
        return state.size(1) if order is None else len(order)

    # ---- copies, files and scripts ------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        twin: Any = type(self).__new__(type(self))
        memo[id(self)] = twin
        # These two are made of the parameters; a parametrization's value in them could not be copied.
        derived = "_flat_weights", "_flat_weight_refs"
        state = {name: value for name, value in self.__dict__.items() if name not in derived}
        twin.__dict__.update(copy.deepcopy(state, memo))
        twin._init_flat_weights()
        return twin

    def __copy__(self) -> Any:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as the module of torch.nn, which loads without rnncore; subclasses as themselves."""
        reduced = super().__reduce_ex__(protocol)
        if type(self) is not converted(self.of_torch, to_engine=True):
            return reduced
        # pickle wants the object's own class after __newobj__, but takes any callable. This one's parameters, of device
        # "meta", have no values, and their initialisation draws no random numbers.
        settings: list[Any] = [1, 1, 1, True, False, 0.0, False]
        settings[3:3] = ["tanh"] if self.of_torch is torch.nn.RNN else []
        return self.of_torch, (*settings, 0, "meta"), reduced[2]

    def _get_name(self) -> str:
        """The name in ``print(model)``: it tells a module of the engine from one of torch.nn."""
        name = str(super()._get_name())  # type: ignore[misc]
        return f"rnncore.{name}" if type(self) is converted(self.of_torch, to_engine=True) else name

    def __prepare_scriptable__(self) -> torch.nn.Module:
        """What torch.jit.script compiles: the module of torch.nn with the same parameters."""
        twin = copy.copy(self)
        twin.__class__ = converted(type(self), to_engine=False) or type(self)
        return twin


class RNN(Recurrent, torch.nn.RNN):
    """:class:`torch.nn.RNN`, on rnncore's engine.

    Examples
    --------
    >>> import torch
    >>> rnn = RNN(3, 5, nonlinearity="relu")
    >>> y, h_n = rnn(torch.ones(7, 2, 3))
    >>> y.sum().backward()
    >>> y.shape, rnn.weight_hh_l0.grad.shape
    (torch.Size([7, 2, 5]), torch.Size([5, 5]))
    """

    __module__ = _ModuleOf("rnncore.interop.torch")
    of_torch = torch.nn.RNN
    _few_tokens = {torch.float32: 8, torch.float64: 8}


class GRU(Recurrent, torch.nn.GRU):
    """:class:`torch.nn.GRU`, on rnncore's engine.

    Examples
    --------
    >>> import torch
    >>> gru = GRU(3, 5, num_layers=2, bidirectional=True, batch_first=True, dtype=torch.float64)
    >>> y, h_n = gru(torch.ones(2, 7, 3, dtype=torch.float64))
    >>> y.shape, h_n.shape
    (torch.Size([2, 7, 10]), torch.Size([4, 2, 5]))
    """

    __module__ = _ModuleOf("rnncore.interop.torch")
    of_torch = torch.nn.GRU
    _few_tokens = {torch.float32: 3, torch.float64: 3}


class LSTM(Recurrent, torch.nn.LSTM):
    """:class:`torch.nn.LSTM`, on rnncore's engine; with ``proj_size`` on torch.nn's.

    Examples
    --------
    >>> import torch
    >>> lstm = LSTM(3, 5)
    >>> packed = torch.nn.utils.rnn.pack_sequence([torch.ones(7, 3), torch.ones(4, 3)])
    >>> y, (h_n, c_n) = lstm(packed)
    >>> y.data.shape, c_n.shape
    (torch.Size([11, 5]), torch.Size([1, 2, 5]))
    """

    __module__ = _ModuleOf("rnncore.interop.torch")
    of_torch = torch.nn.LSTM
    _few_tokens = {torch.float64: 1}


_BY_TORCH: dict[type, type] = {module.of_torch: module for module in (RNN, GRU, LSTM)}


def converted(cls: type, *, to_engine: bool) -> type | None:
    """Return the class that a module of class ``cls`` has on the engine, or in torch.nn; None if there is none."""
    classes = _BY_TORCH if to_engine else {module: of_torch for of_torch, module in _BY_TORCH.items()}
    if cls in classes:
        return classes[cls]
    if cls.__module__ != "torch.nn.utils.parametrize" or cls.__bases__[0] not in classes:
        return None
    # torch.nn.utils.parametrize gives each module a class of its own, which has properties for the parameters.
    namespace = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    namespace["__deepcopy__"] = Recurrent.__deepcopy__
    return type(cls.__name__, (classes[cls.__bases__[0]],), namespace)
