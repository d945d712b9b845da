"""Types that several modules use in annotations."""

from __future__ import annotations

from typing import Any, TypeAlias

from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[Any]
#: The state of a layer: h, or (h, c) of an LSTM.
State: TypeAlias = Array | tuple[Array, ...]
StateLike: TypeAlias = ArrayLike | tuple[ArrayLike, ...]
Seed: TypeAlias = int | Generator | None
