"""The types of RNN as models that a user fits, saves and loads."""

from __future__ import annotations

from os import PathLike

from .base import Model
from .classifier import SequenceClassifier
from .generator import SequenceGenerator
from .language import LanguageModel
from .quantization import compare
from .seq2seq import EncoderDecoder
from .storage import read_model
from .tagger import SequenceTagger
from .transcriber import SequenceTranscriber

__all__ = [
    "EncoderDecoder",
    "LanguageModel",
    "SequenceClassifier",
    "SequenceGenerator",
    "SequenceTagger",
    "SequenceTranscriber",
    "compare",
    "load",
]

_MODELS = {
    model.__name__: model
    for model in (
        LanguageModel,
        SequenceTagger,
        SequenceClassifier,
        SequenceGenerator,
        EncoderDecoder,
        SequenceTranscriber,
    )
}


def load(path: str | PathLike[str]) -> Model:
    """Read a model that its ``save`` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    model
        Of the class that was saved, with the same parameters to the bit.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no model of rnncore, is damaged, or comes from a newer version of the format.
    """
    name, description, arrays = read_model(path)
    if not isinstance(name, str) or name not in _MODELS:
        raise ValueError(f"{path}: model must be one of {', '.join(_MODELS)}; got {name!r}")
    try:
        return _MODELS[name]._restore(description, arrays)
    except (KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
