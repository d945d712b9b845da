"""Recurrent networks, forward and backward, on the CPU: a faster backend for NumPy models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

try:
    from .engine.settings import available_isas, get_num_threads, set_num_threads, use_isa
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rnncore's compiled module is not here: this looks like its source checkout, not the installed package. "
        "Leave the directory, or build in place with: pip install -e . (see 'Getting started' in the documentation)"
    ) from error
from . import functional, gates, layers
from .config import show_config
from .functional import *  # noqa: F403
from .gates import *  # noqa: F403
from .inspection import gate_activations, gradient_flow
from .layers.attention import *  # noqa: F403
from .layers.frozen import *  # noqa: F403
from .layers.recurrent import *  # noqa: F403
from .layers.simple import *  # noqa: F403
from .losses import fused_softmax_cross_entropy, sigmoid_cross_entropy, softmax_cross_entropy
from .optim import SGD, Adagrad, Adam, RMSProp, clip_by_global_norm, clip_by_value
from .sequence_losses import crf_loss, crf_marginals, ctc_loss, viterbi
from .text import Vocabulary, batches_by_length, pad, streams

if TYPE_CHECKING:
    from . import distributed, metrics, plots, reference, testing
    from .corpus import Corpus
    from .models import (
        EncoderDecoder,
        LanguageModel,
        SequenceClassifier,
        SequenceGenerator,
        SequenceTagger,
        SequenceTranscriber,
        compare,
        load,
    )

__version__ = "0.2.0"

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "Corpus",
    "EncoderDecoder",
    "LanguageModel",
    "RMSProp",
    "SequenceClassifier",
    "SequenceGenerator",
    "SequenceTagger",
    "SequenceTranscriber",
    "Vocabulary",
    "available_isas",
    "batches_by_length",
    "clip_by_global_norm",
    "clip_by_value",
    "compare",
    "crf_loss",
    "crf_marginals",
    "ctc_loss",
    "distributed",
    "fused_softmax_cross_entropy",
    "gate_activations",
    "get_num_threads",
    "gradient_flow",
    "load",
    "metrics",
    "pad",
    "plots",
    "reference",
    "set_num_threads",
    "show_config",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "streams",
    "testing",
    "use_isa",
    "viterbi",
]
__all__ += functional.__all__
__all__ += layers.attention.__all__
__all__ += layers.frozen.__all__
__all__ += gates.__all__
__all__ += layers.recurrent.__all__
__all__ += layers.simple.__all__


def __getattr__(name: str) -> object:
    """Load a module, or a model, when it is first used: without them the import takes half the time."""
    if name in ("distributed", "metrics", "models", "plots", "reference", "testing"):
        return import_module(f".{name}", __name__)
    if name in __all__:
        module = ".corpus" if name == "Corpus" else ".models"
        value = globals()[name] = getattr(import_module(module, __name__), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=import_module(__name__))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
