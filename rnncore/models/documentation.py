"""Parts of docstrings that the models share."""

from __future__ import annotations

import textwrap
from typing import Any, TypeVar

from ..engine.cells import CELLS

T = TypeVar("T")

_CELLS = ", ".join(f'"{name}"' for name in CELLS)
_PARTS = {
    "NETWORK": """
level : {"char", "word"}
    What a token of a str is; words are separated by white space. Lists of tokens need "word".
cell : {{CELLS}}
hidden_size : int
    H.
num_layers : int
embedding_size : int, optional
    E, of ids and text; 0 feeds one-hot ids. None is 64 for characters and ``hidden_size`` for words.
embedding_scale : float
    Standard deviation of the embedding at the start. Small data of many words want a small one, 0.1: what is random
    about rare words is noise.
dropout : float
    Share of the values after the embedding, between the layers and before the output layer that training sets to
    zero.
recurrent_dropout : float
    Share of the hidden units that a batch does without on their way from step to step, the same at all steps
    (variational dropout: Gal and Ghahramani 2016).
cell_options : dict, optional
    More arguments of the layer: ``{"peephole": True}``, ``{"form": "reset_after"}``.
max_vocabulary : int, optional
    Entries at most, ``<unk>`` and ``<eos>`` included. None is no limit for characters and 10,000 for words. For
    integer ids their number; None is the largest of the training data and one.""",
    "TRAINING": """
epochs, batch_size : int
    Passes over the data; sequences side by side, of like length.
optimizer : {"adam", "rmsprop", "adagrad", "sgd"}
learning_rate : float
learning_rate_decay : float
    Factor of the learning rate after every epoch: 0.9 leaves a third of it after 10 epochs, nothing after 60.
clip_norm : float or None
    Largest global norm of the gradients.
patience : int, optional
    End when the held-out loss has not fallen for so many epochs; however training ends, the parameters are those of
    the best epoch. Needs validation data in ``fit``.
warm_start : bool
    ``fit`` goes on from the parameters, vocabulary, classes and optimiser as they are.
dtype : {"float32", "float64"}""",
    "RANDOM": """
random_state : int, numpy.random.Generator or None
    For the initial parameters, dropout, the order of batches and held-out shares.""",
    "FITTED": """
vocabulary : Vocabulary or None
layers, params, grads : dict
    By name.
history : list of dict
    For every epoch begun: epoch, loss and held_out (mean loss in nats; None without validation data or if it did not
    end), tokens, seconds of training, learning_rate.
interrupted : bool
    The last ``fit`` was ended by KeyboardInterrupt.""",
    "SEQUENCES": """
X : list of sequences
    All of one kind: str, lists of str (tokens), integer arrays (T,) of ids, or arrays (T, D) of features; of any
    lengths, 0 too. Or a padded array (N, T) of ids or (N, T, D).""",
    "FIT": """
lengths : integer array (N,), optional
    Of the rows of a padded array.
validation : float, or tuple (X, y) or (X, y, lengths), optional
    Share of the sequences that is held out, or held-out data; scored after every epoch.
callback : function or list of functions, optional
    Called with a :class:`Progress` after every update; training ends when one returns True.
progress : bool
    Show a bar (needs tqdm).""",
    "SEEN": """
Parameters
----------
X : sequences, as in :meth:`fit`
    Characters and words that were not in the training data are ``<unk>``.
lengths : integer array (N,), optional
    Of the rows of a padded array.""",
    "DATA": """
Parameters
----------
X, y, lengths
    As in :meth:`fit`.""",
    "WRONG": """
Raises
------
TypeError, ValueError
    An argument is wrong, or there is nothing to score; the message names it.""",
    "RAISES": """
KeyboardInterrupt ends training early and keeps the parameters of the best epoch, or without validation data those of
the moment.

Raises
------
TypeError, ValueError
    An argument is wrong; the message names it, and the model is as it was before.""",
}


def document(cls: type[T]) -> type[T]:
    """Put the shared parts into the docstrings of a class and its methods."""
    for thing in (cls, *(value for value in vars(cls).values() if callable(value))):
        if thing.__doc__:
            thing.__doc__ = "\n".join(map(_expand, thing.__doc__.splitlines()))
    return cls


def _expand(line: str) -> Any:
    part = _PARTS.get(line.strip())
    return line if part is None else textwrap.indent(part.strip("\n"), line[: len(line) - len(line.lstrip())])
