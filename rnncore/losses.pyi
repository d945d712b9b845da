from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

from .layers import Dense

Array = NDArray[Any]
Reduction = Literal["mean", "sum", "none"]

def sigmoid(x: Array) -> Array: ...
def softmax_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> tuple[Any, Array]: ...
def fused_softmax_cross_entropy(
    dense: Dense,
    x: ArrayLike,
    targets: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    training: bool = True,
) -> tuple[Any, Array | None]: ...
def sigmoid_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> tuple[Any, Array]: ...
