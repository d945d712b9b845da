from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .reference import GRUGradients, LSTMGradients, RNNGradients

Array = NDArray[Any]
Cell = tuple[int, int, int, int, int, tuple[int, ...]]

class PackedTokens(NamedTuple):
    tokens: Array
    rows: Array

class Cache:
    kind: str
    hidden_size: int
    @classmethod
    def of(
        cls,
        kind: str,
        cell: Cell,
        weights: tuple[Array, Array, Array],
        x: Array,
        h: Array,
        h0: Array,
        gates: Array | None = None,
        c: Array | None = None,
        c0: Array | None = None,
    ) -> Cache: ...
    def with_weights(self, Wx: Array, Wh: Array, b: Array) -> Cache: ...
    def give(self) -> dict[str, Array]: ...
    def let_go(self) -> tuple[Array | None, ...]: ...
    def held(self, Wx: Array, Wh: Array, kept: tuple[Array | None, ...]) -> Cache: ...
    @property
    def h(self) -> Array | None: ...
    @property
    def gates(self) -> Array | None: ...
    @property
    def c(self) -> Array | None: ...

def rnn_forward(
    x: ArrayLike,
    Wx: ArrayLike,
    Wh: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    activation: Literal["tanh", "relu", "identity"] = "tanh",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Literal[True] | int | None = None,
) -> tuple[Array, Array, Cache | None]: ...
def rnn_backward(dh: ArrayLike | None, cache: Cache | None, dh_n: ArrayLike | None = None) -> RNNGradients: ...
def gru_forward(
    x: ArrayLike,
    Wx: ArrayLike,
    Wh: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    form: Literal["reset_before", "reset_after", "simplified"] = "reset_before",
    update: Literal["new", "old"] = "new",
    bhn: ArrayLike | None = None,
    gate_order: Literal["rzn", "zrn"] = "rzn",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Literal[True] | int | None = None,
) -> tuple[Array, Array, Cache | None]: ...
def gru_backward(dh: ArrayLike | None, cache: Cache | None, dh_n: ArrayLike | None = None) -> GRUGradients: ...
def lstm_forward(
    x: ArrayLike,
    Wx: ArrayLike,
    Wh: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
    *,
    peephole: ArrayLike | None = None,
    peephole_output: Literal["current", "previous"] = "current",
    output_activation: Literal["tanh", "identity"] = "tanh",
    gate_order: str = "ifgo",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Literal[True] | int | None = None,
) -> tuple[Array, tuple[Array, Array], Cache | None]: ...
def lstm_backward(
    dh: ArrayLike | None, cache: Cache | None, dh_n: ArrayLike | None = None, dc_n: ArrayLike | None = None
) -> LSTMGradients: ...

# For the other modules of the package.
def as_real(name: str, value: ArrayLike) -> Array: ...
def clean_ids(ids: Array, size: int, name: str = "ids in x", letter: str = "D") -> NDArray[np.int64]: ...
def clean_lengths(lengths: ArrayLike, T: int, N: int) -> NDArray[np.int64]: ...
def rnn_cell(activation: str) -> Cell: ...
def gru_cell(form: str, update: str, gate_order: str = "rzn") -> Cell: ...
def lstm_cell(has_peephole: bool, peephole_output: str, output_activation: str, gate_order: str = "ifgo") -> Cell: ...
def affine_forward(x: Array, W: Array, b: Array) -> Array: ...
def affine_backward(x: Array, W: Array, dy: Array, dW: Array, db: Array) -> Array: ...
def softmax_head(
    x: Array, W: Array, b: Array, targets: Array, weights: Array, dW: Array | None = None, db: Array | None = None
) -> tuple[Array, Array | None]: ...
def square_sum(array: Array) -> float: ...
def optimizer_step(rule: str, constants: tuple[float, ...], g: Array, p: Array, *state: Array) -> None: ...
def side_by_side(
    function: Callable[..., Any],
    arguments: list[dict[str, Any]],
    into: list[dict[str, Array]] | None = None,
    needs_dx: bool = True,
) -> list[Any]: ...
def time_first(array: Array) -> Array: ...
def checkpoint_segments(checkpoint: Literal[True] | int, steps: int) -> int: ...
def scatter_add(ids: Array, rows: Array, table: Array) -> None: ...
def softmax_cross_entropy_rows(logits: Array, targets: Array, weights: Array) -> Array: ...
def make_stream(cells: list[Any], D: int, dtype: Any, h: Array, c: Array | None) -> Any: ...
def sample_ids(
    cells: list[Any],
    embedding: Array | None,
    Wy: Array,
    by: Array,
    h: Array,
    c: Array | None,
    first: int,
    uniforms: Array,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    banned: list[int],
    stop: int,
) -> NDArray[np.int64]: ...
