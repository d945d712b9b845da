from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, NamedTuple, Self, overload

from numpy.random import Generator
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..text import Vocabulary

Array = NDArray[Any]

class Progress(NamedTuple):
    epoch: int
    update: int
    updates: int
    tokens: int
    loss: float
    held_out: float | None

class LanguageModel:
    level: str
    cell: str
    hidden_size: int
    num_layers: int
    embedding_size: int | None
    dropout: float
    cell_options: dict[str, Any] | None
    max_vocabulary: int | None
    epochs: int
    batch_size: int
    chunk_length: int
    optimizer: str
    learning_rate: float
    clip_norm: float | None
    dtype: str
    seed: int | None
    vocabulary: Vocabulary | None
    layers: dict[str, Any]
    params: dict[str, Array]
    grads: dict[str, Array]
    history: list[dict[str, Any]]
    interrupted: bool
    def __init__(
        self,
        level: Literal["char", "word"] = "char",
        cell: Literal["lstm", "gru", "rnn"] = "lstm",
        hidden_size: int = 256,
        num_layers: int = 1,
        *,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        cell_options: dict[str, Any] | None = None,
        max_vocabulary: int | None = None,
        epochs: int = 5,
        batch_size: int = 32,
        chunk_length: int = 64,
        optimizer: Literal["adam", "rmsprop", "adagrad", "sgd"] = "adam",
        learning_rate: float = 2e-3,
        clip_norm: float | None = 5.0,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None: ...
    def build(self, vocabulary: Vocabulary) -> Self: ...
    def loss_and_gradients(
        self, inputs: ArrayLike, targets: ArrayLike, lengths: ArrayLike | None = None, state: Any = None
    ) -> tuple[float, Any]: ...
    def fit(
        self,
        texts: str | Sequence[str],
        validation: str | Sequence[str] | None = None,
        *,
        callback: Callable[[Progress], bool | None] | None = None,
    ) -> Self: ...
    @overload
    def log_prob(self, texts: str) -> float: ...
    @overload
    def log_prob(self, texts: list[str]) -> Array: ...
    def perplexity(self, texts: str | list[str]) -> float: ...
    def sample(
        self,
        n: int,
        prompt: str = "",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | Generator | None = None,
        *,
        stop_at_eos: bool | None = None,
    ) -> str: ...
    def save(self, path: str | PathLike[str]) -> None: ...
