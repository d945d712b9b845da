from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[Any]
State = Array | tuple[Array, Array]
StateLike = ArrayLike | tuple[ArrayLike, ArrayLike]
Init = Literal["orthogonal", "uniform"]
Seed = int | Generator | None

def dropout_mask(rng: Generator, shape: tuple[int, ...], share: float, dtype: np.dtype[Any]) -> Array: ...

class _Layer:
    dtype: Any
    params: dict[str, Array]
    grads: dict[str, Array]
    def zero_grad(self) -> None: ...

class Embedding(_Layer):
    size: int
    dimension: int
    def __init__(self, size: int, dimension: int, *, dtype: DTypeLike = "float32", seed: Seed = None) -> None: ...
    def __call__(self, ids: ArrayLike) -> Array: ...
    def forward(self, ids: ArrayLike) -> tuple[Array, Array]: ...
    def backward(self, dy: ArrayLike, cache: Array) -> None: ...

class Dense(_Layer):
    input_size: int
    output_size: int
    def __init__(
        self, input_size: int, output_size: int, *, dtype: DTypeLike = "float32", seed: Seed = None
    ) -> None: ...
    def weights(self) -> tuple[Array, Array]: ...
    def __call__(self, x: ArrayLike) -> Array: ...
    def forward(self, x: ArrayLike) -> tuple[Array, Array]: ...
    def backward(self, dy: ArrayLike, cache: Array) -> Array: ...

class LayerCache(NamedTuple):
    shape: tuple[int, int]
    cells: list[list[Any]]
    masks: list[Array]
    recurrent_masks: list[Array]
    @property
    def gates(self) -> list[Array | None]: ...

class _Recurrent(_Layer):
    input_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    batch_first: bool
    dropout: float
    recurrent_dropout: float
    checkpoint: Literal[True] | int | None
    backend: Any
    cell_name: str
    gate_names: tuple[str, ...]
    state_names: tuple[str, ...]
    @property
    def gates(self) -> int: ...
    @property
    def directions(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    def weights(self, layer: int, direction: int) -> dict[str, Array]: ...
    def options(self) -> dict[str, str]: ...
    def time_major(self, x: ArrayLike) -> Array: ...
    def time_major_gradient(self, dy: ArrayLike, T: int, N: int) -> Array: ...
    def split_state(self, state: StateLike | None, N: int, argument: str = "state") -> dict[str, Array]: ...
    def cells(self) -> list[tuple[Any, ...]]: ...
    def stream(self, batch_size: int = 1) -> Stream: ...
    def __call__(
        self, x: ArrayLike, state: StateLike | None = None, lengths: ArrayLike | None = None
    ) -> tuple[Array, Any]: ...
    def forward(
        self, x: ArrayLike, state: StateLike | None = None, lengths: ArrayLike | None = None
    ) -> tuple[Array, Any, LayerCache]: ...
    def backward(
        self, dy: ArrayLike | None, cache: LayerCache, dstate: StateLike | None = None
    ) -> tuple[Array | None, Any]: ...

class Stream:
    batch_size: int
    input_size: int
    hidden_size: int
    state: Any
    def __init__(self, layer: _Recurrent, batch_size: int = 1) -> None: ...
    def step(self, x: ArrayLike, out: Array | None = None) -> Array: ...
    def reset(self) -> None: ...

class RNN(_Recurrent):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        activation: Literal["tanh", "relu", "identity"] = "tanh",
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        checkpoint: Literal[True] | int | None = None,
        init: Init = "orthogonal",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None: ...

class GRU(_Recurrent):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        form: Literal["reset_before", "reset_after", "simplified"] = "reset_before",
        update: Literal["new", "old"] = "new",
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        checkpoint: Literal[True] | int | None = None,
        init: Init = "orthogonal",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None: ...

class LSTM(_Recurrent):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        peephole: bool = False,
        peephole_output: Literal["current", "previous"] = "current",
        output_activation: Literal["tanh", "identity"] = "tanh",
        forget_bias: float = 1.0,
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        checkpoint: Literal[True] | int | None = None,
        init: Init = "orthogonal",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None: ...
