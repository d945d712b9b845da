"""Recurrent networks (RNN, GRU, LSTM), forward and backward, on the CPU: a faster backend for NumPy models."""

from __future__ import annotations

from . import metrics, plots, reference

try:
    from ._engine import available_isas, get_num_threads, set_num_threads, use_isa
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rnncore's compiled module is not here: this looks like its source checkout, not the installed package. "
        "Leave the directory, or build in place with: pip install -e ."
    ) from error
from .functional import gru_backward, gru_forward, lstm_backward, lstm_forward, rnn_backward, rnn_forward
from .inspection import gate_activations, gradient_flow
from .layers import GRU, LSTM, RNN, Dense, Embedding
from .losses import fused_softmax_cross_entropy, sigmoid_cross_entropy, softmax_cross_entropy
from .models import EncoderDecoder, LanguageModel, SequenceClassifier, SequenceGenerator, SequenceTagger, load
from .optim import SGD, Adagrad, Adam, RMSProp, clip_by_global_norm, clip_by_value
from .text import Vocabulary, batches_by_length, pad, streams

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adagrad",
    "Adam",
    "Dense",
    "Embedding",
    "EncoderDecoder",
    "LanguageModel",
    "RMSProp",
    "SequenceClassifier",
    "SequenceGenerator",
    "SequenceTagger",
    "Vocabulary",
    "available_isas",
    "batches_by_length",
    "clip_by_global_norm",
    "clip_by_value",
    "fused_softmax_cross_entropy",
    "gate_activations",
    "get_num_threads",
    "gradient_flow",
    "gru_backward",
    "gru_forward",
    "load",
    "lstm_backward",
    "lstm_forward",
    "metrics",
    "pad",
    "plots",
    "reference",
    "rnn_backward",
    "rnn_forward",
    "set_num_threads",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "streams",
    "use_isa",
]
