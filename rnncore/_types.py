"""Types that several modules use: those of annotations, and what the backward functions return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from numpy.random import Generator  # NumPy loads it when it is first used

Array: TypeAlias = NDArray[Any]
#: The state of a layer: h, or (h, c) of an LSTM.
State: TypeAlias = Array | tuple[Array, ...]
StateLike: TypeAlias = ArrayLike | tuple[ArrayLike, ...]
Seed: TypeAlias = "int | Generator | None"


class RNNGradients(NamedTuple):
    """Gradients of the arguments of :func:`~rnncore.rnn_forward`; ``dx`` is None for ids."""

    dx: Array | None  # (T,N,D)
    dWx: Array  # (D,H)
    dWh: Array  # (H,H)
    db: Array  # (H,)
    dh0: Array  # (N,H)


class GRUGradients(NamedTuple):
    """Gradients of the arguments of :func:`~rnncore.gru_forward`.

    ``dx`` is None for ids, ``dbhn`` unless the form is reset_after.
    """

    dx: Array | None  # (T,N,D)
    dWx: Array  # (D,G*H)
    dWh: Array  # (H,G*H)
    db: Array  # (G*H,)
    dh0: Array  # (N,H)
    dbhn: Array | None  # (H,)


class LSTMGradients(NamedTuple):
    """Gradients of the arguments of :func:`~rnncore.lstm_forward`.

    ``dx`` is None for ids, ``dpeephole`` without peephole.
    """

    dx: Array | None  # (T,N,D)
    dWx: Array  # (D,4H)
    dWh: Array  # (H,4H)
    db: Array  # (4H,)
    dh0: Array  # (N,H)
    dc0: Array  # (N,H)
    dpeephole: Array | None  # (3,H)


class MinGRUGradients(NamedTuple):
    """Gradients of the arguments of :func:`~rnncore.mingru_forward`; ``dx`` is None for ids."""

    dx: Array | None  # (T,N,D)
    dWx: Array  # (D,2H)
    db: Array  # (2H,)
    dh0: Array  # (N,H)
