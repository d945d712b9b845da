"""What all models share: settings in the manner of scikit-learn, layers by name, the training loop, files."""

import dataclasses
import time
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np

from .. import checks
from ..layers import GRU, LSTM, RNN, Embedding
from ..optim import SGD, Adagrad, Adam, Optimizer, RMSProp
from .network import Trunk
from .storage import write_model

CELLS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
CELL_OPTIONS = {
    "rnn": ("activation", "init"),
    "gru": ("form", "update", "init"),
    "lstm": ("peephole", "peephole_output", "output_activation", "forget_bias", "init"),
}
OPTIMIZERS = {"sgd": SGD, "rmsprop": RMSProp, "adagrad": Adagrad, "adam": Adam}


class Progress(NamedTuple):
    """Where a training run stands; given to the callbacks of ``fit``."""

    epoch: int  # from 1; goes on where a warm start goes on
    update: int  # of all updates of this run, from 1
    updates: int  # that the whole run will make
    tokens: int  # steps of sequences trained on so far
    loss: float  # of this update, nats
    held_out: float | None  # mean loss, after the last update of an epoch with validation data
    optimizer: Optimizer  # its learning_rate may be changed


def _random_state(name, value):
    if value is None or isinstance(value, np.random.Generator):
        return value
    return checks.integer(name, value, least=0)


def _dtype(name, value):
    found = np.dtype(value).name
    if found not in ("float32", "float64"):
        raise ValueError(f"{name} must be float32 or float64; got {found}")
    return found


@dataclasses.dataclass(eq=False, repr=False)
class Model:
    """Settings, layers, training and files. A subclass says what its layers are and how a batch is trained on."""

    level: str = "char"
    cell: str = "lstm"
    hidden_size: int = 128
    num_layers: int = 1
    _: dataclasses.KW_ONLY
    embedding_size: int | None = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    cell_options: dict | None = None
    max_vocabulary: int | None = None
    epochs: int = 10
    batch_size: int = 32
    optimizer: str = "adam"
    learning_rate: float = 2e-3
    learning_rate_decay: float = 1.0
    clip_norm: float | None = 5.0
    patience: int | None = None
    warm_start: bool = False
    dtype: str = "float32"

    # How each setting is checked, by name.
    _rules = {
        "level": partial(checks.choice, choices=("char", "word")),
        "cell": partial(checks.choice, choices=CELLS),
        "hidden_size": partial(checks.integer, least=1),
        "num_layers": partial(checks.integer, least=1),
        "embedding_size": checks.optional(checks.integer, least=0),
        "dropout": checks.share,
        "recurrent_dropout": checks.share,
        "max_vocabulary": checks.optional(checks.integer, least=3),
        "epochs": partial(checks.integer, least=1),
        "batch_size": partial(checks.integer, least=1),
        "optimizer": partial(checks.choice, choices=OPTIMIZERS),
        "learning_rate": checks.positive,
        "learning_rate_decay": checks.positive,
        "clip_norm": checks.optional(checks.positive),
        "patience": checks.optional(checks.integer, least=1),
        "warm_start": checks.flag,
        "dtype": _dtype,
        "bidirectional": checks.flag,
        "random_state": _random_state,
        "seed": _random_state,
    }

    def __post_init__(self):
        self._settings()
        self.history = []
        self.interrupted = False
        self.layers = self.params = self.grads = None

    # ---- settings -----------------------------------------------------------------------------------------------

    def get_params(self, deep=True):
        """The settings by name, as given; for scikit-learn.

        Parameters
        ----------
        deep : bool
            Without meaning here: no setting is an estimator.

        Returns
        -------
        dict
        """
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def set_params(self, **params):
        """Change settings; they are used by the next ``fit``.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            There is no such setting, or its value is wrong; then none is changed.
        """
        before = self.get_params()
        if unknown := params.keys() - before.keys():
            raise ValueError(f"{type(self).__name__} has the settings {', '.join(before)}; got {min(unknown)!r}")
        try:
            for name, value in params.items():
                setattr(self, name, value)
            self._settings()
        except (TypeError, ValueError):
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    def _settings(self):
        """The settings checked, in plain types. Attributes stay what was given, as scikit-learn wants it."""
        settings = self.get_params()
        clean = {name: self._rules[name](name, settings[name]) for name in settings if name in self._rules}
        cell, options = clean["cell"], dict(self.cell_options or {})
        if unknown := options.keys() - set(CELL_OPTIONS[cell]):
            allowed = ", ".join(map(repr, CELL_OPTIONS[cell]))
            raise ValueError(f"cell_options of {cell!r} may hold {allowed}; got {min(unknown)!r}")
        return settings | clean | {"cell_options": options or None}

    # ---- layers -------------------------------------------------------------------------------------------------

    def _make_trunk(self, format, rng, *, size=None, bidirectional=False):
        """Embedding and recurrent layers for inputs of some format; size is that of the embedding."""
        common = {"dtype": self.dtype, "seed": rng}
        embedding = Embedding(format.size, size, **common) if format.holds_ids and size else None
        recurrent = CELLS[self.cell](
            size if embedding else format.size,
            self.hidden_size,
            self.num_layers,
            **({"bidirectional": True} if bidirectional else {}),
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            **common,
            **(self.cell_options or {}),
        )
        return Trunk(embedding, recurrent, self.dropout, rng)

    def _embedding_width(self):
        """E: as set, or what is usual for characters and for words."""
        if self.embedding_size is not None:
            return self.embedding_size
        return self.hidden_size if self.level == "word" else 64

    def _take_layers(self, **layers):
        """Name the layers and their parameters; those that are None are left out."""
        self.layers = {name: layer for name, layer in layers.items() if layer is not None}
        self.params = {f"{name}.{key}": a for name, layer in self.layers.items() for key, a in layer.params.items()}
        self.grads = {f"{name}.{key}": a for name, layer in self.layers.items() for key, a in layer.grads.items()}
        self._optimizer = None

    def _zero_grad(self):
        for layer in self.layers.values():
            layer.zero_grad()

    def _check_built(self):
        if self.layers is None:
            raise ValueError("the model has no parameters yet: call fit first")

    def __sklearn_is_fitted__(self):
        return self.layers is not None

    # ---- training -----------------------------------------------------------------------------------------------

    @contextmanager
    def _as_before_on_error(self):
        """Bad input leaves the model as it was."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _check_training(self, validation):
        """Settings may have been set since they were checked."""
        self._settings()
        if self.patience is not None and validation is None:
            raise ValueError("patience needs validation data in fit, to see when the held-out loss rises; got none")

    def _update(self, batch):
        """Loss of a batch, with its gradients in ``grads``. -> loss, its weight in the mean, steps of sequences"""
        raise NotImplementedError

    def _train(self, make_batches, score, callback, progress):
        """Train for ``epochs`` epochs.

        make_batches() gives the batches of an epoch, score() the mean loss of held-out data, or is None. Sets
        ``history``, ``interrupted`` and, where there is a best epoch to go back to, its parameters.
        """
        callbacks = [] if callback is None else [callback] if callable(callback) else list(callback)
        if progress:
            callbacks.append(_Bar())
        if self._optimizer is None:
            self._optimizer = OPTIMIZERS[self.optimizer](self.params, self.learning_rate)
        self.interrupted = False
        best, best_params, since = np.inf, None, 0
        run = {"update": 0, "tokens": 0}
        try:
            for _ in range(self.epochs):
                record, stopped = self._train_epoch(make_batches(), score, callbacks, run)
                self._optimizer.learning_rate *= self.learning_rate_decay
                since += 1
                if record["held_out"] is not None and record["held_out"] < best:
                    best, since = record["held_out"], 0
                    best_params = {name: p.copy() for name, p in self.params.items()}
                if stopped:
                    return
                if self.patience is not None and best_params is not None and since >= self.patience:
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            for each in callbacks:
                if isinstance(each, _Bar):
                    each.close()
        if best_params is not None and (self.interrupted or self.patience is not None):
            for name, p in self.params.items():
                p[...] = best_params[name]

    def _train_epoch(self, batches, score, callbacks, run):
        """-> record of the epoch, whether a callback ended the training"""
        epoch = self.history[-1]["epoch"] + 1 if self.history else 1
        rate = self._optimizer.learning_rate
        record = {"epoch": epoch, "loss": 0.0, "held_out": None, "tokens": 0, "seconds": 0.0, "learning_rate": rate}
        self.history.append(record)
        updates = len(batches) * self.epochs
        total = 0.0
        for number, batch in enumerate(batches, 1):
            start = time.perf_counter()
            loss, weight, tokens = self._update(batch)
            self._optimizer.step(self.grads, clip_norm=self.clip_norm)
            total += weight
            run["update"] += 1
            run["tokens"] += tokens
            record["tokens"] += tokens
            record["loss"] += (loss - record["loss"]) * weight / max(total, 1e-300)
            record["seconds"] += time.perf_counter() - start
            if number == len(batches) and score is not None:
                record["held_out"] = score()
            at = Progress(epoch, run["update"], updates, run["tokens"], loss, record["held_out"], self._optimizer)
            # All of them hear of every update, whatever one of them says.
            if any([each(at) for each in callbacks]):
                return record, True
        return record, False

    # ---- files --------------------------------------------------------------------------------------------------

    def _data_state(self):
        """What the model learned about its data, in JSON types; ``_restore_data`` takes it back."""
        raise NotImplementedError

    def _restore_data(self, state):
        """Set what ``_data_state`` described and make the layers for it."""
        raise NotImplementedError

    def save(self, path):
        """Write the model to one .npz file without pickle; :func:`rnncore.load` reads it.

        The file is written under a temporary name and renamed: it is whole or not there. The state of the optimiser
        is not in it.

        Parameters
        ----------
        path : str or path-like
        """
        self._check_built()
        settings = self._settings()
        for name in ("random_state", "seed"):
            if isinstance(settings.get(name), np.random.Generator):
                settings[name] = None
        if isinstance(settings.get("class_weight"), dict):
            settings["class_weight"] = list(settings["class_weight"].items())  # keys of JSON are str, labels any type
        description = {"settings": settings, **self._data_state(), "history": self.history}
        write_model(path, type(self).__name__, description, self.params)

    @classmethod
    def _restore(cls, description, arrays):
        model = cls(**description["settings"])
        model._restore_data(description)
        if arrays.keys() != model.params.keys():
            raise ValueError(f"parameters must be {sorted(model.params)}; got {sorted(arrays)}")
        for name, p in model.params.items():
            if arrays[name].shape != p.shape or arrays[name].dtype != p.dtype:
                wanted = f"{p.shape} {p.dtype}"
                raise ValueError(f"{name} must be {wanted}; got {arrays[name].shape} {arrays[name].dtype}")
        for name, p in model.params.items():
            p[...] = arrays[name]
        model.history = list(description["history"])
        return model

    def __repr__(self):
        size = "" if self.params is None else f", {sum(p.size for p in self.params.values()):,} parameters"
        return f"<{type(self).__name__} {self.cell} {self.num_layers} x {self.hidden_size}{size}>"


class _Bar:
    """A callback that shows a progress bar of tqdm."""

    def __init__(self):
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            raise ModuleNotFoundError('progress=True needs tqdm: pip install "rnncore[cli]"') from None
        self._make, self._bar = tqdm, None

    def __call__(self, progress):
        if self._bar is None:
            self._bar = self._make(total=progress.updates, unit="update", mininterval=0.5)
        held_out = "" if progress.held_out is None else f", held-out {progress.held_out:.3f}"
        self._bar.set_postfix_str(f"epoch {progress.epoch}, loss {progress.loss:.3f}{held_out}", refresh=False)
        self._bar.update()

    def close(self):
        if self._bar is not None:
            self._bar.close()
