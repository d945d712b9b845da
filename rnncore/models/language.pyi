from dataclasses import KW_ONLY, dataclass
from typing import Any, Self, overload

from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from ..text import Vocabulary
from .base import Model
from .decoding import Beam
from .training import Callbacks

Array = NDArray[Any]

@dataclass(eq=False, repr=False)
class LanguageModel(Model):
    hidden_size: int = 256
    _: KW_ONLY
    epochs: int = 5
    chunk_length: int = 64
    seed: int | Generator | None = None
    def __post_init__(self) -> None:
        self.vocabulary: Vocabulary | None
    def build(self, vocabulary: Vocabulary) -> Self: ...
    def loss_and_gradients(
        self, inputs: ArrayLike, targets: ArrayLike, lengths: ArrayLike | None = None, state: Any = None
    ) -> tuple[float, Any]: ...
    def fit(
        self,
        texts: str | list[str],
        validation: str | list[str] | None = None,
        *,
        callback: Callbacks | None = None,
        progress: bool = False,
    ) -> Self: ...
    @overload
    def log_prob(self, texts: str) -> float: ...
    @overload
    def log_prob(self, texts: list[str]) -> Array: ...
    def score_many(self, texts: list[str], prompt: str = "", *, per_token: bool = False) -> Array: ...
    def score(self, texts: str | list[str]) -> float: ...
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
    def beam_search(
        self,
        n: int,
        prompt: str = "",
        *,
        beam_width: int = 5,
        length_penalty: float = 0.7,
        stop_at_eos: bool | None = None,
    ) -> Beam: ...
