from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Gradients = Mapping[str, Array] | Iterable[Array | None]

def clip_by_value(grads: Gradients, limit: float) -> None: ...
def clip_by_global_norm(grads: Gradients, max_norm: float) -> float: ...

class Optimizer:
    params: dict[str, Array]
    iterations: int
    state: dict[str, dict[str, Array]]
    learning_rate: float
    def step(self, grads: Mapping[str, Array], *, clip_norm: float | None = None) -> float | None: ...

class SGD(Optimizer):
    def __init__(self, params: Mapping[str, Array], learning_rate: float = 0.01, momentum: float = 0.0) -> None: ...

class RMSProp(Optimizer):
    def __init__(
        self, params: Mapping[str, Array], learning_rate: float = 1e-3, decay: float = 0.9, epsilon: float = 1e-8
    ) -> None: ...

class Adagrad(Optimizer):
    def __init__(self, params: Mapping[str, Array], learning_rate: float = 1e-2, epsilon: float = 1e-8) -> None: ...

class Adam(Optimizer):
    def __init__(
        self,
        params: Mapping[str, Array],
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None: ...
