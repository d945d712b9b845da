from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from numpy.typing import ArrayLike, NDArray

from .estimator import Labeller, Sequences, Validation
from .training import Callbacks

Array = NDArray[Any]

@dataclass(eq=False, repr=False, kw_only=True)
class SequenceTagger(Labeller):
    output: Literal["softmax", "sigmoid"] = "softmax"
    def loss_and_gradients(
        self, inputs: Array, targets: Array, lengths: ArrayLike | None = None, weights: ArrayLike | None = None
    ) -> float: ...
    def fit(
        self,
        X: Sequences,
        y: Sequence[ArrayLike] | Array,
        *,
        lengths: ArrayLike | None = None,
        validation: Validation | None = None,
        callback: Callbacks | None = None,
        progress: bool = False,
    ) -> Self: ...
    def predict_proba(self, X: Sequences, *, lengths: ArrayLike | None = None) -> list[Array]: ...
    def predict(self, X: Sequences, *, lengths: ArrayLike | None = None) -> list[Array]: ...
    def score(self, X: Sequences, y: Sequence[ArrayLike] | Array, *, lengths: ArrayLike | None = None) -> float: ...
