from dataclasses import dataclass
from typing import Any, Literal, Self

from numpy.typing import ArrayLike, NDArray

from .estimator import Labeller, Sequences, Validation
from .training import Callbacks

Array = NDArray[Any]

@dataclass(eq=False, repr=False, kw_only=True)
class SequenceClassifier(Labeller):
    pooling: Literal["last", "mean"] = "last"
    def loss_and_gradients(
        self, inputs: Array, targets: Array, lengths: ArrayLike | None = None, weights: ArrayLike | None = None
    ) -> float: ...
    def fit(
        self,
        X: Sequences,
        y: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        validation: Validation | None = None,
        callback: Callbacks | None = None,
        progress: bool = False,
    ) -> Self: ...
    def predict_proba(self, X: Sequences, *, lengths: ArrayLike | None = None) -> Array: ...
    def predict(self, X: Sequences, *, lengths: ArrayLike | None = None) -> Array: ...
    def score(self, X: Sequences, y: ArrayLike, *, lengths: ArrayLike | None = None) -> float: ...
