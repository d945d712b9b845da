from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .layers import GRU, LSTM, RNN, StateLike

def gradient_flow(
    layer: RNN | GRU | LSTM,
    x: ArrayLike,
    dy: ArrayLike | None = None,
    state: StateLike | None = None,
    lengths: ArrayLike | None = None,
) -> NDArray[np.float64]: ...
def gate_activations(
    layer: RNN | GRU | LSTM, x: ArrayLike, state: StateLike | None = None, lengths: ArrayLike | None = None
) -> list[dict[str, NDArray[Any]]]: ...
