"""The specification of rnncore: the cells in plain NumPy, forward and backward.

Same names, signatures and results as the engine, so ``from rnncore import reference as rc`` is enough to
compare the two.

Shapes: T time, N batch, D input, H hidden, G gate blocks; ``x (T,N,D)``, ``h (T,N,H)``, ``Wx (D,G*H)``,
``Wh (H,G*H)``, ``b (G*H,)``. The blocks lie side by side: RNN one, GRU r z n (simplified: z n), LSTM i f g o,
minGRU z n.

Option names are checked here; shapes and ranges are not, so NumPy's own errors show.
"""

from __future__ import annotations

from .._types import GRUGradients, LSTMGradients, MinGRUGradients, RNNGradients
from .crf import crf_loss, crf_marginals, viterbi
from .ctc import ctc_loss
from .gru import gru_backward, gru_forward
from .int8 import Int8Matrix
from .lstm import lstm_backward, lstm_forward
from .mingru import mingru_backward, mingru_forward
from .rnn import rnn_backward, rnn_forward

__all__ = [
    "GRUGradients",
    "Int8Matrix",
    "LSTMGradients",
    "MinGRUGradients",
    "RNNGradients",
    "crf_loss",
    "crf_marginals",
    "ctc_loss",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "mingru_backward",
    "mingru_forward",
    "rnn_backward",
    "rnn_forward",
    "viterbi",
]
