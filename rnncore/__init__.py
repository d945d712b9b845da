"""Recurrent networks (RNN, GRU, LSTM), forward and backward, on the CPU: a faster backend for NumPy models."""

from . import reference
from ._engine import available_isas, use_isa
from .functional import gru_backward, gru_forward, lstm_backward, lstm_forward, rnn_backward, rnn_forward

__all__ = [
    "available_isas",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "reference",
    "rnn_backward",
    "rnn_forward",
    "use_isa",
]
