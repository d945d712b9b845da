"""The cells as functions, forward and backward, and their documentation. The work is done in :mod:`rnncore.engine`."""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from ._types import Array, GRUGradients, LSTMGradients, MinGRUGradients, RNNGradients
from .documentation import document
from .engine import calls
from .engine.cache import Cache
from .engine.cells import GRU, LSTM, RNN, MinGRU
from .engine.packing import PackedTokens

__all__ = [
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "mingru_backward",
    "mingru_forward",
    "rnn_backward",
    "rnn_forward",
]

Checkpoint = Literal[True] | int | None

_PARTS = {
    "INPUT": """
x : array (T, N, D), or integer array (T, N)
    Inputs; integers are ids in [0, D) and mean one-hot rows, as cheap as indexing. Or PackedTokens.
Wx : array (D, {G}H)
    Input weights.""",
    "RECURRENT": """
Wh : array (H, {G}H)
    Recurrent weights.""",
    "START": """
b : array ({G}H,)
    Bias.
h0 : array (N, H), optional
    Initial state; default zeros.""",
    "OPTIONS": """
lengths : integer array (N,), optional
    Valid steps of each row, in any order, 0..T. Later steps are not computed: ``h`` is 0 there, and ``x`` is not
    read.
resets : bool array (T, N), optional
    Zero the state before these steps.
reverse : bool, default False
    Run from the last valid step to the first; outputs stay at their own time index.
training : bool, default True
    Save what the backward pass needs. With False nothing is saved and ``cache`` is None.
checkpoint : True or int, optional
    Save only the states at the start of this many segments of the sequence; the backward pass recomputes each
    segment (Chen et al. 2016, "Training deep nets with sublinear memory cost"). True means the square root of T:
    memory grows with that, time by about a third, and every result has the same bits.""",
    "MASK": """
recurrent_mask : array (N, H), optional
    Factors of h' where it multiplies Wh: ``(mask h') Wh``, and where a GRU resets it ``(r mask h') Whn``. Dropout whose
    mask is the same at all steps of a sequence (Gal and Ghahramani 2016, "A theoretically grounded application of
    dropout in recurrent neural networks"). No gradient is computed for it.""",
    "RAISES": """
Raises
------
ValueError
    A shape, an option, an id or a length is wrong; the message says what was wanted and what came.
TypeError
    An array is not of a floating dtype (ids and lengths: not integer; resets: not bool).
""",
    "OUTPUTS": """
h : ndarray (T, N, H)
    State after each step.
h_n : ndarray (N, H)
    State after the last valid step of each row; ``h0`` where the length is 0.""",
}


@document(_PARTS, G="")
def rnn_forward(
    x: ArrayLike | PackedTokens,
    Wx: ArrayLike,
    Wh: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    activation: Literal["tanh", "relu", "identity"] = "tanh",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Checkpoint = None,
    recurrent_mask: ArrayLike | None = None,
) -> tuple[Array, Array, Cache | None]:
    """Run a simple recurrent network over a sequence: ``h = act(x Wx + h' Wh + b)``, h' the state before the step.

    Equations, in the notation of the course too: :func:`rnncore.reference.rnn_forward`. Dtype: all float32 or all
    float64; mixed arguments promote as in NumPy, float16 is computed in float32.

    Parameters
    ----------
    INPUT
    RECURRENT
    START
    activation : {"tanh", "relu", "identity"}
    OPTIONS
    MASK

    Returns
    -------
    OUTPUTS
    cache : Cache or None
        For :func:`rnn_backward`.

    RAISES

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> x, Wx, Wh, b = (rng.normal(size=s) for s in [(7, 2, 3), (3, 5), (5, 5), (5,)])
    >>> h, h_n, cache = rc.rnn_forward(x, Wx, Wh, b)
    >>> h.shape, bool((h[-1] == h_n).all())
    ((7, 2, 5), True)
    """
    options = lengths, resets, reverse, training, checkpoint, recurrent_mask
    return calls.forward(RNN.variant(activation), x, Wx, Wh, b, h0, None, None, None, *options)


def rnn_backward(dh: ArrayLike | None, cache: Cache | None, dh_n: ArrayLike | None = None) -> RNNGradients:
    """Compute the gradients of :func:`rnn_forward` by back-propagation through time.

    Parameters
    ----------
    dh : array (T, N, H) or None
        Gradient of the loss with respect to ``h``, converted to the dtype of the forward pass; None means zero.
    cache : Cache
        From :func:`rnn_forward`; unchanged, so it can be used again.
    dh_n : array (N, H), optional
        Gradient with respect to ``h_n``.

    Returns
    -------
    RNNGradients
        dx (T, N, D), or None for ids; dWx (D, H); dWh (H, H); db (H,); dh0 (N, H).

    Raises
    ------
    ValueError, TypeError
        As :func:`rnn_forward`; TypeError for a cache of another cell.

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> h, h_n, cache = rc.rnn_forward(np.ones((4, 1, 2)), np.ones((2, 3)), np.eye(3), np.zeros(3))
    >>> rc.rnn_backward(np.ones_like(h), cache).dWh.shape
    (3, 3)
    """
    gradients: RNNGradients = calls.backward(RNN, dh, cache, dh_n)
    return gradients


@document(_PARTS, G="G")
def gru_forward(
    x: ArrayLike | PackedTokens,
    Wx: ArrayLike,
    Wh: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    form: Literal["reset_before", "reset_after", "simplified"] = "reset_before",
    update: Literal["new", "old"] = "new",
    bhn: ArrayLike | None = None,
    gate_order: Literal["rzn", "zrn"] = "rzn",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Checkpoint = None,
    recurrent_mask: ArrayLike | None = None,
) -> tuple[Array, Array, Cache | None]:
    """Run a gated recurrent unit over a sequence; gate blocks r z n (simplified: z n).

    With h' the state before the step: ``r, z = sigmoid(x Wx + h' Wh + b)``, then the candidate

    * "reset_before" (Cho et al. 2014, the course): ``n = tanh(x Wxn + (r h') Whn + bn)``
    * "reset_after" (PyTorch, Keras, cuDNN): ``n = tanh(x Wxn + bn + r (h' Whn + bhn))``
    * "simplified" (the course; G = 2): ``n = tanh(x Wxn + h' Whn + bn)``

    and ``h = z n + (1-z) h'`` for update "new", ``h = (1-z) n + z h'`` for "old". Equations, in the notation of the
    course too: :func:`rnncore.reference.gru_forward`. Dtypes as in :func:`rnn_forward`.

    Parameters
    ----------
    INPUT
    RECURRENT
    START
    form : {"reset_before", "reset_after", "simplified"}
    update : {"new", "old"}
        What z weighs.
    bhn : array (H,), optional
        Recurrent bias of the candidate, "reset_after" only; default zeros.
    gate_order : {"rzn", "zrn"}
        Order of the gate blocks in the weights, in ``cache.gates`` and in the gradients ("simplified": without r).
        No reordering or copy is needed.
    OPTIONS
    MASK

    Returns
    -------
    OUTPUTS
    cache : Cache or None
        For :func:`gru_backward`.

    RAISES

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> x, Wx, Wh, b = (rng.normal(size=s) for s in [(7, 2, 3), (3, 15), (5, 15), (15,)])
    >>> h, h_n, cache = rc.gru_forward(x, Wx, Wh, b, lengths=[7, 4])
    >>> h.shape, cache.gates.shape, bool((h[3, 1] == h_n[1]).all())
    ((7, 2, 5), (7, 2, 15), True)
    """
    variant = GRU.variant(form, update, gate_order)
    if bhn is not None and form != "reset_after":
        raise ValueError(f"bhn belongs to form='reset_after'; got form={form!r}")
    options = lengths, resets, reverse, training, checkpoint, recurrent_mask
    return calls.forward(variant, x, Wx, Wh, b, h0, None, bhn, None, *options)


def gru_backward(dh: ArrayLike | None, cache: Cache | None, dh_n: ArrayLike | None = None) -> GRUGradients:
    """Compute the gradients of :func:`gru_forward` by back-propagation through time.

    Parameters
    ----------
    dh : array (T, N, H) or None
        Gradient of the loss with respect to ``h``, converted to the dtype of the forward pass; None means zero.
    cache : Cache
        From :func:`gru_forward`; unchanged, so it can be used again.
    dh_n : array (N, H), optional
        Gradient with respect to ``h_n``.

    Returns
    -------
    GRUGradients
        dx (T, N, D), or None for ids; dWx (D, GH); dWh (H, GH); db (GH,); dh0 (N, H); dbhn (H,), or None unless
        the form is "reset_after".

    Raises
    ------
    ValueError, TypeError
        As :func:`gru_forward`; TypeError for a cache of another cell.

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> h, h_n, cache = rc.gru_forward(np.ones((4, 1, 2)), np.ones((2, 9)), np.ones((3, 9)), np.zeros(9))
    >>> rc.gru_backward(np.ones_like(h), cache).dWx.shape
    (2, 9)
    """
    gradients: GRUGradients = calls.backward(GRU, dh, cache, dh_n)
    return gradients


@document(_PARTS, G="4")
def lstm_forward(
    x: ArrayLike | PackedTokens,
    Wx: ArrayLike,
    Wh: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
    *,
    peephole: ArrayLike | None = None,
    peephole_output: Literal["current", "previous"] = "current",
    output_activation: Literal["tanh", "identity"] = "tanh",
    gate_order: str = "ifgo",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Checkpoint = None,
    recurrent_mask: ArrayLike | None = None,
) -> tuple[Array, tuple[Array, Array], Cache | None]:
    """Run a long short-term memory over a sequence; gate blocks i f g o.

    With h' and c' the states before the step: ``i, f, o = sigmoid(x Wx + h' Wh + b)``, ``g = tanh(.)``,
    ``c = f c' + i g``, ``h = o tanh(c)``. Equations, in the notation of the course too:
    :func:`rnncore.reference.lstm_forward`. Dtypes as in :func:`rnn_forward`.

    Parameters
    ----------
    INPUT
    RECURRENT
    START
    c0 : array (N, H), optional
        Initial cell state; default zeros.
    peephole : array (3, H), optional
        Peephole weights, rows i f o: i and f see ``c'``.
    peephole_output : {"current", "previous"}
        Whether o sees ``c`` (Gers, ONNX) or ``c'`` (the course).
    output_activation : {"tanh", "identity"}
        ``h = o tanh(c)``, or the variant ``h = o c``.
    gate_order : str, default "ifgo"
        Order of the gate blocks in the weights, in ``cache.gates`` and in the gradients: these letters in any order, as
        in "ifog" or "fgio"; g is the candidate, c~ in the course. No reordering or copy is needed.
    OPTIONS
    MASK

    Returns
    -------
    h : ndarray (T, N, H)
        State after each step.
    (h_n, c_n) : ndarrays (N, H)
        States after the last valid step of each row; ``h0``, ``c0`` where the length is 0.
    cache : Cache or None
        For :func:`lstm_backward`.

    RAISES

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> ids = rng.integers(27, size=(7, 2))
    >>> Wx, Wh, b = (rng.normal(size=s).astype("float32") for s in [(27, 20), (5, 20), (20,)])
    >>> h, (h_n, c_n), cache = rc.lstm_forward(ids, Wx, Wh, b)
    >>> h.shape, h.dtype, cache.c.shape
    ((7, 2, 5), dtype('float32'), (7, 2, 5))
    """
    variant = LSTM.variant(peephole is not None, peephole_output, output_activation, gate_order)
    options = lengths, resets, reverse, training, checkpoint, recurrent_mask
    return calls.forward(variant, x, Wx, Wh, b, h0, c0, None, peephole, *options)


def lstm_backward(
    dh: ArrayLike | None, cache: Cache | None, dh_n: ArrayLike | None = None, dc_n: ArrayLike | None = None
) -> LSTMGradients:
    """Compute the gradients of :func:`lstm_forward` by back-propagation through time.

    Parameters
    ----------
    dh : array (T, N, H) or None
        Gradient of the loss with respect to ``h``, converted to the dtype of the forward pass; None means zero.
    cache : Cache
        From :func:`lstm_forward`; unchanged, so it can be used again.
    dh_n, dc_n : array (N, H), optional
        Gradients with respect to ``h_n`` and ``c_n``.

    Returns
    -------
    LSTMGradients
        dx (T, N, D), or None for ids; dWx (D, 4H); dWh (H, 4H); db (4H,); dh0, dc0 (N, H); dpeephole (3, H), or
        None without peephole.

    Raises
    ------
    ValueError, TypeError
        As :func:`lstm_forward`; TypeError for a cache of another cell.

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> h, state, cache = rc.lstm_forward(np.ones((4, 1, 2)), np.ones((2, 12)), np.ones((3, 12)), np.zeros(12))
    >>> rc.lstm_backward(np.ones_like(h), cache).dc0.shape
    (1, 3)
    """
    gradients: LSTMGradients = calls.backward(LSTM, dh, cache, dh_n, dc_n)
    return gradients


@document(_PARTS, G="2")
def mingru_forward(
    x: ArrayLike | PackedTokens,
    Wx: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    candidate: Literal["identity", "positive"] = "identity",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Checkpoint = None,
) -> tuple[Array, Array, Cache | None]:
    """Run a minimal gated recurrent unit over a sequence; gate blocks z n.

    With h' the state before the step: ``z = sigmoid(x Wx + b)``, ``n = g(x Wx + b)``, ``h = (1 - z) h' + z n``. There
    are no recurrent weights. Source: Feng et al. 2024, "Were RNNs all we needed?". Equations:
    :func:`rnncore.reference.mingru_forward`. Dtypes as in :func:`rnn_forward`.

    Parameters
    ----------
    INPUT
    START
    candidate : {"identity", "positive"}
        g(a) is a, or a + 0.5 where a >= 0 and sigmoid(a) below: states stay positive if they start so.
    OPTIONS

    Returns
    -------
    OUTPUTS
    cache : Cache or None
        For :func:`mingru_backward`.

    RAISES

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> x, Wx, b = (rng.normal(size=s) for s in [(7, 2, 3), (3, 10), (10,)])
    >>> h, h_n, cache = rc.mingru_forward(x, Wx, b, candidate="positive")
    >>> h.shape, bool((h > 0).all())
    ((7, 2, 5), True)
    """
    options = lengths, resets, reverse, training, checkpoint
    return calls.forward(MinGRU.variant(candidate), x, Wx, None, b, h0, None, None, None, *options)


def mingru_backward(dh: ArrayLike | None, cache: Cache | None, dh_n: ArrayLike | None = None) -> MinGRUGradients:
    """Compute the gradients of :func:`mingru_forward` by back-propagation through time.

    Parameters
    ----------
    dh : array (T, N, H) or None
        Gradient of the loss with respect to ``h``, converted to the dtype of the forward pass; None means zero.
    cache : Cache
        From :func:`mingru_forward`; unchanged, so it can be used again.
    dh_n : array (N, H), optional
        Gradient with respect to ``h_n``.

    Returns
    -------
    MinGRUGradients
        dx (T, N, D), or None for ids; dWx (D, 2H); db (2H,); dh0 (N, H).

    Raises
    ------
    ValueError, TypeError
        As :func:`mingru_forward`; TypeError for a cache of another cell.

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> h, h_n, cache = rc.mingru_forward(np.ones((4, 1, 2)), np.ones((2, 6)), np.zeros(6))
    >>> rc.mingru_backward(np.ones_like(h), cache).dWx.shape
    (2, 6)
    """
    gradients: MinGRUGradients = calls.backward(MinGRU, dh, cache, dh_n)
    return gradients
