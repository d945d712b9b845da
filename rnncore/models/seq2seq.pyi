from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import ArrayLike, NDArray

from ..text import Vocabulary
from .decoding import Beam
from .estimator import Estimator, Sequences, Validation
from .training import Callbacks

Array = NDArray[Any]

@dataclass(eq=False, repr=False, kw_only=True)
class EncoderDecoder(Estimator):
    bidirectional: bool = False
    reverse_source: bool = False
    @property
    def source_vocabulary(self) -> Vocabulary | None: ...
    @property
    def target_vocabulary(self) -> Vocabulary | None: ...
    def loss_and_gradients(
        self,
        sources: Array,
        inputs: Array,
        targets: Array,
        source_lengths: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> float: ...
    def fit(
        self,
        X: Sequences,
        y: Sequences,
        *,
        lengths: ArrayLike | None = None,
        validation: Validation | None = None,
        callback: Callbacks | None = None,
        progress: bool = False,
    ) -> Self: ...
    def log_prob(self, X: Sequences, y: Sequences, *, lengths: ArrayLike | None = None) -> Array: ...
    def predict(
        self,
        X: Sequences,
        *,
        lengths: ArrayLike | None = None,
        beam_width: int = 1,
        length_penalty: float = 0.7,
        max_length: int | None = None,
    ) -> list[Any]: ...
    def beam_search(
        self, source: Any, *, beam_width: int = 5, length_penalty: float = 0.7, max_length: int | None = None
    ) -> Beam: ...
    def score(self, X: Sequences, y: Sequences, *, lengths: ArrayLike | None = None) -> float: ...
