from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..optim import Optimizer

class Progress(NamedTuple):
    epoch: int
    update: int
    updates: int
    tokens: int
    loss: float
    held_out: float | None
    optimizer: Optimizer

Callback = Callable[[Progress], bool | None]
Callbacks = Callback | Sequence[Callback]
