"""Language models: the probability of the next character or word, trained by teacher forcing."""

import time
from typing import NamedTuple

import numpy as np

from .. import checks, functional
from ..layers import GRU, LSTM, RNN, Dense, Embedding
from ..losses import fused_softmax_cross_entropy
from ..optim import SGD, Adagrad, Adam, RMSProp
from ..text import Vocabulary, batches_by_length, pad, streams
from .storage import write_model

_CELLS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
_CELL_OPTIONS = {
    "rnn": ("activation", "init"),
    "gru": ("form", "update", "init"),
    "lstm": ("peephole", "peephole_output", "output_activation", "forget_bias", "init"),
}
_OPTIMIZERS = {"sgd": SGD, "rmsprop": RMSProp, "adagrad": Adagrad, "adam": Adam}


class Progress(NamedTuple):
    """Where a training run stands; given to the callback of ``fit``."""

    epoch: int  # from 1
    update: int  # of all updates, from 1
    updates: int  # that the whole run will make
    tokens: int  # trained on so far
    loss: float  # of this update, nats a token
    held_out: float | None  # nats a token, after the last update of an epoch with validation text


class LanguageModel:
    """A recurrent language model of characters or words.

    Each token is predicted from all before it; a text or sentence starts from ``<eos>`` and a zero state. Texts given
    to :meth:`fit` as one str are trained as parallel streams whose state is carried from chunk to chunk (truncated
    back-propagation through time); a list of str is trained one sentence a row, each ending in ``<eos>``.

    Parameters
    ----------
    level : {"char", "word"}
        Words are separated by white space, and a newline is ``<eos>``.
    cell : {"lstm", "gru", "rnn"}
    hidden_size : int
        H.
    num_layers : int
    embedding_size : int, optional
        E; 0 feeds one-hot ids. None is 64 for characters and ``hidden_size`` for words.
    dropout : float
        Between the layers.
    cell_options : dict, optional
        More arguments of the layer: ``{"peephole": True}``, ``{"form": "reset_after"}``.
    max_vocabulary : int, optional
        Entries at most, ``<unk>`` and ``<eos>`` included. None is no limit for characters and 10,000 for words.
    epochs, batch_size : int
        Passes over the text; streams or sentences side by side.
    chunk_length : int
        Steps that gradients go back.
    optimizer : {"adam", "rmsprop", "adagrad", "sgd"}
    learning_rate : float
    clip_norm : float or None
        Largest global norm of the gradients.
    dtype : {"float32", "float64"}
    seed : int or None
        For the initial parameters, dropout and the order of sentences.

    Attributes
    ----------
    vocabulary : Vocabulary
    layers : dict
        ``embedding`` (where there is one), ``recurrent``, ``output``.
    params, grads : dict of ndarray
        By name: ``embedding.W``, ``recurrent.Wx_0``, ..., ``output.W``, ``output.b``.
    history : list of dict
        For every epoch begun: epoch, loss and held_out (nats a token; None without validation text or if it did not
        end), tokens, seconds of training.
    interrupted : bool
        The last ``fit`` was ended by KeyboardInterrupt.

    Examples
    --------
    >>> model = LanguageModel(hidden_size=32, epochs=30, batch_size=4, chunk_length=16, learning_rate=0.01, seed=0)
    >>> model = model.fit("the cat sat on the mat. " * 40)
    >>> model.sample(12, prompt="the cat ", temperature=0)
    'sat on the m'
    >>> bool(model.perplexity("the cat sat on the mat.") < 2)
    True
    """

    def __init__(
        self,
        level="char",
        cell="lstm",
        hidden_size=256,
        num_layers=1,
        *,
        embedding_size=None,
        dropout=0.0,
        cell_options=None,
        max_vocabulary=None,
        epochs=5,
        batch_size=32,
        chunk_length=64,
        optimizer="adam",
        learning_rate=2e-3,
        clip_norm=5.0,
        dtype="float32",
        seed=None,
    ):
        for name, value, choices in (
            ("level", level, ("char", "word")),
            ("cell", cell, _CELLS),
            ("optimizer", optimizer, _OPTIMIZERS),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
        if unknown := set(cell_options or {}) - set(_CELL_OPTIONS[cell]):
            allowed = ", ".join(map(repr, _CELL_OPTIONS[cell]))
            raise ValueError(f"cell_options of {cell!r} may hold {allowed}; got {min(unknown)!r}")
        self.level, self.cell, self.optimizer = level, cell, optimizer
        self.hidden_size = checks.integer("hidden_size", hidden_size, least=1)
        self.num_layers = checks.integer("num_layers", num_layers, least=1)
        self.embedding_size = (
            embedding_size if embedding_size is None else checks.integer("embedding_size", embedding_size, least=0)
        )
        self.dropout = checks.share("dropout", dropout)
        self.cell_options = None if cell_options is None else dict(cell_options)
        self.max_vocabulary = (
            max_vocabulary if max_vocabulary is None else checks.integer("max_vocabulary", max_vocabulary, least=3)
        )
        self.epochs = checks.integer("epochs", epochs, least=1)
        self.batch_size = checks.integer("batch_size", batch_size, least=1)
        self.chunk_length = checks.integer("chunk_length", chunk_length, least=1)
        self.learning_rate = checks.positive("learning_rate", learning_rate)
        self.clip_norm = clip_norm if clip_norm is None else checks.positive("clip_norm", clip_norm)
        self.dtype = np.dtype(dtype).name
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64; got {self.dtype}")
        self.seed = seed if seed is None else checks.integer("seed", seed, least=0)
        self.vocabulary = None
        self.history = []
        self.interrupted = False

    # ---- the network --------------------------------------------------------------------------------------------

    def build(self, vocabulary):
        """Make the layers for a vocabulary, with fresh parameters; ``fit`` does this.

        Returns
        -------
        self
        """
        size = self.embedding_size
        if size is None:
            size = self.hidden_size if self.level == "word" else 64
        self._rng = np.random.default_rng(self.seed)
        common = {"dtype": self.dtype, "seed": self._rng}
        V = len(vocabulary)
        self._embedding = Embedding(V, size, **common) if size else None
        self._recurrent = _CELLS[self.cell](
            size or V,
            self.hidden_size,
            self.num_layers,
            dropout=self.dropout,
            **common,
            **(self.cell_options or {}),
        )
        self._output = Dense(self.hidden_size, V, **common)
        layers = {"embedding": self._embedding, "recurrent": self._recurrent, "output": self._output}
        self.layers = {name: layer for name, layer in layers.items() if layer is not None}
        self.params = {f"{name}.{key}": a for name, layer in self.layers.items() for key, a in layer.params.items()}
        self.grads = {f"{name}.{key}": a for name, layer in self.layers.items() for key, a in layer.grads.items()}
        self.vocabulary, self.history, self._sentences = vocabulary, [], False
        return self

    def loss_and_gradients(self, inputs, targets, lengths=None, state=None):
        """Mean loss of one chunk; the gradients of it replace those in ``grads``.

        Parameters
        ----------
        inputs, targets : integer arrays (T, N)
            Ids of the tokens before, and of the tokens to predict.
        lengths : integer array (N,), optional
        state : as the recurrent layer takes it, optional

        Returns
        -------
        loss : float
            Nats a token.
        state
            After the chunk.
        """
        for layer in self.layers.values():
            layer.zero_grad()
        x, embedding_cache = self._embedding.forward(inputs) if self._embedding else (inputs, None)
        h, state, cache = self._recurrent.forward(x, state, lengths)
        loss, dh = fused_softmax_cross_entropy(self._output, h, targets, lengths)
        dx, _ = self._recurrent.backward(dh, cache)
        if self._embedding:
            self._embedding.backward(dx, embedding_cache)
        return loss, state

    # ---- training -----------------------------------------------------------------------------------------------

    def fit(self, texts, validation=None, *, callback=None):
        """Train on a text or on sentences, from fresh parameters.

        Parameters
        ----------
        texts : str or list of str
            One continuous text, or sentences.
        validation : str or list of str, optional
            Held-out text, scored after every epoch.
        callback : function, optional
            Called with a :class:`Progress` after every update; training ends when it returns True.

        Returns
        -------
        self
            KeyboardInterrupt ends training early and keeps the model so far (``interrupted`` is True).

        Raises
        ------
        TypeError, ValueError
            ``texts`` is not text, is empty, or has fewer tokens than ``batch_size``.
        """
        sentences = not isinstance(texts, str)
        texts = list(texts) if sentences else texts
        if not texts:
            raise ValueError("texts must hold at least one sentence or character; got none")
        self.build(Vocabulary.from_text(texts, self.level, self.max_vocabulary))
        self._sentences = sentences
        encoded = self._encode(texts)
        if not sentences and len(encoded[0]) < self.batch_size:
            raise ValueError(f"texts must hold at least batch_size = {self.batch_size} tokens; got {len(encoded[0])}")
        held_out = None if validation is None else self._scored(validation)
        if held_out is not None and not sum(map(len, held_out)):
            raise ValueError("validation must hold at least one token; got none")
        optimizer = _OPTIMIZERS[self.optimizer](self.params, self.learning_rate)
        self.interrupted = False
        try:
            self._train(encoded, held_out, optimizer, callback)
        except KeyboardInterrupt:
            self.interrupted = True
        return self

    def _train(self, encoded, held_out, optimizer, callback):
        update = tokens = 0
        for epoch in range(1, self.epochs + 1):
            chunks = list(self._chunks(encoded))
            record = {"epoch": epoch, "loss": 0.0, "held_out": None, "tokens": 0, "seconds": 0.0}
            self.history.append(record)
            state = None
            for number, (inputs, targets, lengths, first) in enumerate(chunks, 1):
                start = time.perf_counter()
                loss, state = self.loss_and_gradients(inputs, targets, lengths, None if first else state)
                optimizer.step(self.grads, clip_norm=self.clip_norm)
                count = targets.size if lengths is None else int(lengths.sum())
                update, tokens = update + 1, tokens + count
                record["tokens"] += count
                record["loss"] += (loss - record["loss"]) * count / max(record["tokens"], 1)
                record["seconds"] += time.perf_counter() - start
                if number == len(chunks) and held_out is not None:
                    record["held_out"] = self._nats(held_out)
                progress = Progress(epoch, update, len(chunks) * self.epochs, tokens, loss, record["held_out"])
                if callback is not None and callback(progress):
                    return

    def _encode(self, texts):
        """-> list of id arrays: the text as it is, or the sentences with <eos> at their ends."""
        if isinstance(texts, str):
            return [self.vocabulary.encode(texts)]
        end = [self.vocabulary.eos_id]
        return [np.concatenate([self.vocabulary.encode(text), end]) for text in texts]

    def _chunks(self, encoded):
        """Yield inputs (T, N), targets (T, N), lengths or None, and whether the state starts anew."""
        if self._sentences:
            for rows in batches_by_length([len(ids) for ids in encoded], self.batch_size, self._rng):
                targets, lengths = pad([encoded[row] for row in rows])
                yield from self._cut(targets, lengths)
        else:
            yield from self._cut(streams(encoded[0], self.batch_size), None)

    def _cut(self, targets, lengths):
        inputs = np.empty_like(targets)
        inputs[:1] = self.vocabulary.eos_id
        inputs[1:] = targets[:-1]
        for begin in range(0, len(targets), self.chunk_length):
            steps = slice(begin, begin + self.chunk_length)
            left = None if lengths is None else np.clip(lengths - begin, 0, len(targets[steps]))
            yield inputs[steps], targets[steps], left, begin == 0

    # ---- use ----------------------------------------------------------------------------------------------------

    def log_prob(self, texts):
        """Log-probability (nats) of a text or of sentences.

        Parameters
        ----------
        texts : str or list of str
            The end ``<eos>`` is counted for sentences, if the model was trained on sentences.

        Returns
        -------
        float for a str, ndarray (len(texts),) for a list
        """
        self._check_built()
        if isinstance(texts, str):
            return float(self._log_probs(self._scored(texts))[0])
        return self._log_probs(self._scored(texts))

    def perplexity(self, texts):
        """``exp(-log_prob / number of tokens)`` of all texts together.

        Parameters
        ----------
        texts : str or list of str

        Returns
        -------
        float

        Raises
        ------
        ValueError
            There is no token.
        """
        self._check_built()
        encoded = self._scored(texts)
        if not sum(map(len, encoded)):
            raise ValueError("texts must hold at least one token; got none")
        return float(np.exp(self._nats(encoded)))

    def _nats(self, encoded):
        """Mean loss of a token."""
        return float(-self._log_probs(encoded).sum() / sum(map(len, encoded)))

    def _scored(self, texts):
        """-> list of id arrays whose tokens count."""
        texts = [texts] if isinstance(texts, str) else texts
        return self._encode(texts) if self._sentences else [self.vocabulary.encode(text) for text in texts]

    def _log_probs(self, encoded):
        result = np.zeros(len(encoded))
        if not encoded:
            return result
        for rows in batches_by_length([len(ids) for ids in encoded], self.batch_size):
            targets, lengths = pad([encoded[row] for row in rows], dtype=np.int64)
            state = None
            for inputs, wanted, left, _ in self._cut(targets, lengths):
                x = self._embedding(inputs) if self._embedding else inputs
                h, state = self._recurrent(x, state, left)
                losses, _ = fused_softmax_cross_entropy(self._output, h, wanted, left, reduction="none", training=False)
                result[rows] -= losses.sum(axis=0)
        return result

    def sample(self, n, prompt="", temperature=1.0, top_k=None, top_p=None, seed=None, *, stop_at_eos=None):
        """Draw text: every drawn token is fed back. ``<unk>`` is never drawn.

        Parameters
        ----------
        n : int
            Tokens at most.
        prompt : str
            Text that comes before; it is not part of the result.
        temperature : float
            Divides the logits: below 1 is more careful, 0 always takes the likeliest token.
        top_k : int, optional
            Draw among the k likeliest tokens.
        top_p : float, optional
            Draw among the likeliest tokens that together reach this probability.
        seed : int, numpy.random.Generator or None
            One uniform number is used for each token.
        stop_at_eos : bool, optional
            End at ``<eos>``. Default: if the model was trained on sentences.

        Returns
        -------
        str

        Raises
        ------
        ValueError, TypeError
            An argument is out of its range.

        Notes
        -----
        The loop runs in native code. Top-p after Holtzman et al. 2020, "The curious case of neural text degeneration".
        """
        self._check_built()
        n = checks.integer("n", n, least=0)
        if not 0 <= temperature < np.inf:
            raise ValueError(f"temperature must be at least 0 and finite; got {temperature!r}")
        if top_k is not None:
            top_k = checks.integer("top_k", top_k, least=1)
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1]; got {top_p!r}")
        vocabulary = self.vocabulary
        context = np.concatenate([[vocabulary.eos_id], vocabulary.encode(prompt)])
        recurrent = self._recurrent
        states = np.zeros((len(recurrent.state_names), recurrent.num_layers, recurrent.hidden_size), recurrent.dtype)
        if len(context) > 1:
            before = context[:-1, None]
            _, state = recurrent(self._embedding(before) if self._embedding else before)
            states[:] = np.reshape(state, states.shape)
        if stop_at_eos is None:
            stop_at_eos = self._sentences
        banned = [vocabulary.unk_id]
        if self.level == "char" and not stop_at_eos:
            # Nothing stands for it in a text of characters.
            banned.append(vocabulary.eos_id)
        rng = np.random.default_rng(seed)
        drawn, token = [], int(context[-1])
        # In pieces, so that an interrupt is heard.
        while n > 0 and not (drawn and stop_at_eos and token == vocabulary.eos_id):
            ids = functional.sample_ids(
                recurrent.cells(),
                self._embedding.params["W"] if self._embedding else None,
                self._output.params["W"],
                self._output.params["b"],
                states[0],
                states[1] if len(states) > 1 else None,
                token,
                rng.random(min(n, 4096)),
                temperature=float(temperature),
                top_k=0 if top_k is None else min(top_k, len(vocabulary)),
                top_p=1.0 if top_p is None else float(top_p),
                banned=banned,
                stop=vocabulary.eos_id if stop_at_eos else -1,
            )
            drawn.append(ids)
            token, n = int(ids[-1]), n - len(ids)
        ids = np.concatenate(drawn) if drawn else np.empty(0, np.int64)
        if stop_at_eos and len(ids) and ids[-1] == vocabulary.eos_id:
            ids = ids[:-1]
        return vocabulary.decode(ids)

    # ---- files --------------------------------------------------------------------------------------------------

    _SETTINGS = (
        "level",
        "cell",
        "hidden_size",
        "num_layers",
        "embedding_size",
        "dropout",
        "cell_options",
        "max_vocabulary",
        "epochs",
        "batch_size",
        "chunk_length",
        "optimizer",
        "learning_rate",
        "clip_norm",
        "dtype",
        "seed",
    )

    def save(self, path):
        """Write the model to one .npz file without pickle; :func:`rnncore.load` reads it.

        The file is written under a temporary name and renamed: it is whole or not there.

        Parameters
        ----------
        path : str or path-like
        """
        self._check_built()
        description = {
            "settings": {name: getattr(self, name) for name in self._SETTINGS},
            "vocabulary": self.vocabulary.state(),
            "sentences": self._sentences,
            "history": self.history,
        }
        write_model(path, type(self).__name__, description, self.params)

    @classmethod
    def _restore(cls, description, arrays):
        model = cls(**description["settings"])
        vocabulary = Vocabulary.from_state(description["vocabulary"])
        if arrays["output.b"].shape != (len(vocabulary),):
            raise ValueError(f"output.b must be ({len(vocabulary)},); got {arrays['output.b'].shape}")
        model.build(vocabulary)
        if arrays.keys() != model.params.keys():
            raise ValueError(f"parameters must be {sorted(model.params)}; got {sorted(arrays)}")
        for name, p in model.params.items():
            if arrays[name].shape != p.shape or arrays[name].dtype != p.dtype:
                wanted = f"{p.shape} {p.dtype}"
                raise ValueError(f"{name} must be {wanted}; got {arrays[name].shape} {arrays[name].dtype}")
        for name, p in model.params.items():
            p[...] = arrays[name]
        model.history, model._sentences = list(description["history"]), bool(description["sentences"])
        return model

    def _check_built(self):
        if self.vocabulary is None:
            raise ValueError("the model has no parameters yet: call fit first")

    def __repr__(self):
        size = "" if self.vocabulary is None else f", {len(self.vocabulary)} {self.level}s"
        return f"<LanguageModel {self.cell} {self.num_layers} x {self.hidden_size}{size}>"
