"""Types that several modules use in annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from numpy.random import Generator  # NumPy loads it when it is first used

Array: TypeAlias = NDArray[Any]
#: The state of a layer: h, or (h, c) of an LSTM.
State: TypeAlias = Array | tuple[Array, ...]
StateLike: TypeAlias = ArrayLike | tuple[ArrayLike, ...]
Seed: TypeAlias = "int | Generator | None"
