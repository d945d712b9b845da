from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from ..text import Vocabulary
from .base import Model

Array = NDArray[Any]
Sequences = Iterable[str] | Iterable[list[str]] | Iterable[ArrayLike] | Array
Validation = float | tuple[Any, Any] | tuple[Any, Any, ArrayLike]

@dataclass(eq=False, repr=False, kw_only=True)
class Estimator(Model):
    random_state: int | Generator | None = None

@dataclass(eq=False, repr=False, kw_only=True)
class Labeller(Estimator):
    bidirectional: bool = True
    class_weight: dict[Any, float] | Literal["balanced"] | None = None
    @property
    def classes_(self) -> Array: ...
    @property
    def vocabulary(self) -> Vocabulary | None: ...
