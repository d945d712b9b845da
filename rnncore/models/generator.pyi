from dataclasses import dataclass
from typing import Any, Self

from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from ..text import Vocabulary
from .estimator import Estimator, Sequences, Validation
from .training import Callbacks

Array = NDArray[Any]

@dataclass(eq=False, repr=False, kw_only=True)
class SequenceGenerator(Estimator):
    @property
    def classes_(self) -> Array | None: ...
    @property
    def vocabulary(self) -> Vocabulary | None: ...
    def loss_and_gradients(
        self, inputs: Array, targets: Array, lengths: ArrayLike | None = None, labels: Array | None = None
    ) -> float: ...
    def fit(
        self,
        X: Sequences,
        y: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        validation: Validation | None = None,
        callback: Callbacks | None = None,
        progress: bool = False,
    ) -> Self: ...
    def log_prob(self, X: Sequences, y: ArrayLike | None = None, *, lengths: ArrayLike | None = None) -> Array: ...
    def predict_proba(
        self, X: Sequences, y: ArrayLike | None = None, *, lengths: ArrayLike | None = None
    ) -> list[Array]: ...
    def predict(self, X: Sequences, y: ArrayLike | None = None, *, lengths: ArrayLike | None = None) -> list[Array]: ...
    def score(self, X: Sequences, y: ArrayLike | None = None, *, lengths: ArrayLike | None = None) -> float: ...
    def generate(
        self,
        n: int,
        *,
        label: Any = None,
        seed: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        random_state: int | Generator | None = None,
    ) -> Any: ...
