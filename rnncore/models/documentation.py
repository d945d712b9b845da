"""Parts of docstrings that the models share."""

from __future__ import annotations

from .. import documentation
from ..engine.cells import CELLS

_RESUME = """\
resume : bool
    Go on with the last run of this model, or of the file that it comes from (``save(path, training=True)``), where
    Ctrl-C, a callback or the last epoch ended it. With the same data and settings, the result has the same bits as an
    uninterrupted run. ``epochs`` may be larger than it was."""

_COMM = """\
comm : mpi4py.MPI.Comm, optional
    Train on the processes of a communicator, all of which call ``fit`` with the same data and settings. The result has
    the same bits for 1, 2, 4, ... ranks, up to ``shards`` of them. Callbacks and the bar are those of rank 0. Unless
    the number of threads is set, the ranks of a machine share its cores.
shards : int, optional
    1, 2, 4, ...: the parts that every batch is cut into, whose gradients are summed in one fixed order. 8 if ``comm``
    is given; otherwise the batch is not cut. A batch should have at least so many rows.
timeout : float
    Seconds after which a rank that does not answer is given up: :class:`rnncore.distributed.RankError`."""

_PARTS = {
    "NETWORK": """
level : {"char", "word"}
    Tokens of a str: characters, or words separated by white space. Lists of tokens need "word".
cell : {CELLS}
hidden_size : int
    H.
num_layers : int
embedding_size : int, optional
    E, for ids and text; with 0 the inputs are one-hot. None means 64 for characters and ``hidden_size`` for words.
embedding_scale : float
    Standard deviation of the initial embedding. With many words and little data use a small one, such as 0.1: the
    initial vector of a rare word is noise.
dropout : float
    Fraction of the values after the embedding, between the layers and before the output layer that training sets to
    zero.
recurrent_dropout : float
    Fraction of the hidden units that training drops from the recurrent connections: for each sequence others, and
    at all its steps the same (variational dropout: Gal and Ghahramani 2016).
cell_options : dict, optional
    More arguments of the layer: ``{"peephole": True}``, ``{"form": "reset_after"}``.
max_vocabulary : int, optional
    Upper bound of the entries, ``<unk>`` and ``<eos>`` included. None means no bound for characters and 10,000 for
    words. For integer ids their number; None means the largest id of the training data plus one.""",
    "TRAINING": """
epochs, batch_size : int
    Passes over the data; sequences in a batch, which have similar lengths.
optimizer : {"adam", "rmsprop", "adagrad", "sgd"}
learning_rate : float
learning_rate_decay : float
    Factor that multiplies the learning rate after every epoch: 0.9 leaves a third after 10 epochs.
schedule : {"cosine", "plateau"}, function or None
    What else the learning rate does: "cosine" lets it fall to zero over all updates (Loshchilov and Hutter 2017),
    "plateau" halves it when the held-out loss has not fallen for two epochs; a function takes the number of the update,
    from 1 (also those of the warm-up count), and that of all updates, and returns a factor. Files do not keep it.
warm_up : int
    Updates in which the rate rises from zero, before the schedule begins.
accumulation : int
    Batches whose gradients make one update, each with its weight: as a batch that is so many times as large.
clip_norm : float or None
    Largest global norm of the gradients.
patience : int, optional
    Stop when the held-out loss has not fallen for this many epochs, and keep the parameters of the best epoch. Needs
    validation data in ``fit``.
warm_start : bool
    ``fit`` continues with the present parameters, vocabulary, classes and optimiser.
dtype : {"float32", "float64"}""",
    "RANDOM": """
random_state : int, numpy.random.Generator, numpy.random.RandomState or None
    Draws the initial parameters, dropout, the order of the batches and the held-out sequences. Every ``fit`` with the
    same int gives the same model; a generator goes on from one ``fit`` to the next; None is different every time.""",
    "FITTED": """
vocabulary : Vocabulary or None
layers, params, grads : dict
    By name; None before ``fit``.
history : list of dict
    For every epoch: epoch, loss and held_out (mean loss in nats; None without validation data or if the epoch was
    interrupted), updates, tokens, seconds of training, learning_rate.
losses : list of float
    Of every update of the last run; :func:`rnncore.plots.loss_curve` draws them.
interrupted : bool
    Whether KeyboardInterrupt ended the last ``fit``; the model then has the parameters of the best epoch, if there
    was validation data.
last_params : dict or None
    After such an interrupt: the parameters of the last update, where that came after the best epoch.""",
    "SEQUENCES": """
X : list of sequences
    All of one kind: str, lists of str (tokens), integer arrays (T,) of ids, or arrays (T, D) of features. They may
    have any lengths, also 0. Or a padded array (N, T) of ids or (N, T, D).""",
    "FIT": """
lengths : integer array (N,), optional
    Lengths of the rows of a padded array.
sample_weight : array (N,), optional
    How much each sequence counts: its loss is multiplied by the weight, and a batch divides by the sum of its weights.
    A sequence of weight 0 is as if absent; one of weight 2 is as if given twice, if one batch holds all sequences and
    the vocabulary, which counts it once, stays in the same order.
validation : float, or tuple (X, y) or (X, y, lengths), optional
    Fraction of the sequences to hold out, or held-out data; scored after every epoch.
callback : function or list of functions, optional
    Called with a :class:`Progress` after every update; training ends when one returns True.
progress : bool
    Show a bar (needs tqdm).
"""
    + _RESUME
    + "\n"
    + _COMM,
    "RESUME": _RESUME + "\n" + _COMM,
    "SEEN": """
Parameters
----------
X : sequences, as in :meth:`fit`
    Characters and words that are not in the training data become ``<unk>``.
lengths : integer array (N,), optional
    Lengths of the rows of a padded array.""",
    "DATA": """
Parameters
----------
X, y, lengths
    As in :meth:`fit`.""",
    "WEIGHT": """
sample_weight : array (N,), optional
    How much each sequence counts.""",
    "JOBS": """
n_jobs : int, optional
    Processes of joblib that share the sequences, by the backend of ``joblib.parallel_config``: "loky", "dask", "ray".
    None is 1, or what ``joblib.parallel_config`` says; -1 all cores. The result has the same bits.""",
    "WRONG": """
Raises
------
TypeError, ValueError
    An argument is wrong, or there is nothing to score; the message names the argument.""",
    "RAISES": """
KeyboardInterrupt ends training early and keeps the parameters of the best epoch, or without validation data the
present ones.

Raises
------
TypeError, ValueError
    An argument is wrong; the message names it, and the model is unchanged.
ValueError
    An update would have made a parameter infinite or NaN. The message names it and the update, and the model, its
    optimiser and its position for ``resume`` are those of the update before.
RuntimeError
    A callback of ``fit`` called it.
rnncore.distributed.RankError
    Another rank of ``comm`` failed; its error is in the message.""",
}

#: Decorator: put the shared parts into the docstrings of a class and its methods.
document = documentation.document(_PARTS, CELLS="{" + ", ".join(f'"{name}"' for name in CELLS) + "}")
