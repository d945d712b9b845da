from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..optim import Optimizer

class Progress(NamedTuple):
    epoch: int
    update: int
    updates: int
    tokens: int
    loss: float
    held_out: float | None
    epoch_ends: bool
    record: dict[str, Any]
    optimizer: Optimizer

Callback = Callable[[Progress], bool | None]
Callbacks = Callback | Sequence[Callback]
