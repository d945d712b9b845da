from dataclasses import KW_ONLY, dataclass
from os import PathLike
from typing import Any, Literal, Self

from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]

@dataclass(eq=False, repr=False)
class Model:
    level: Literal["char", "word"] = "char"
    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    hidden_size: int = 128
    num_layers: int = 1
    _: KW_ONLY
    embedding_size: int | None = None
    embedding_scale: float = 1.0
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    cell_options: dict[str, Any] | None = None
    max_vocabulary: int | None = None
    epochs: int = 10
    batch_size: int = 32
    optimizer: Literal["adam", "rmsprop", "adagrad", "sgd"] = "adam"
    learning_rate: float = 2e-3
    learning_rate_decay: float = 1.0
    clip_norm: float | None = 5.0
    patience: int | None = None
    warm_start: bool = False
    dtype: DTypeLike = "float32"
    def __post_init__(self) -> None:
        self.history: list[dict[str, Any]]
        self.interrupted: bool
        self.layers: dict[str, Any] | None
        self.params: dict[str, Array] | None
        self.grads: dict[str, Array] | None
    def get_params(self, deep: bool = True) -> dict[str, Any]: ...
    def set_params(self, **params: Any) -> Self: ...
    def save(self, path: str | PathLike[str]) -> None: ...
