"""What all models share: settings in the manner of scikit-learn, layers by name, files."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from types import NoneType
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast

import numpy as np
from numpy.random import Generator, RandomState
from numpy.typing import DTypeLike

from .. import checks
from .._types import Array
from ..checks import Rule
from ..distributed import TIMEOUT, Ranks
from ..engine.quantization import PRECISIONS, Precision, already_quantized
from ..engine.settings import get_isa
from ..layers import RECURRENT, Embedding, Recurrent, blank_layers
from ..layers.frozen import observe, quantize_layers
from ..optim import SGD, Adagrad, Adam, RMSProp
from . import parallel, scikit_learn
from .network import Trunk
from .position import Numbers, Position, check_arrays, checksum, get_random, make_random, set_random, take_group
from .quantization import from_arrays, to_arrays
from .shards import SHARDS, check_shards, shared_cores
from .storage import write_model
from .training import Callbacks, Run, Schedule, as_callbacks, check_idle, check_schedule

BATCHES = ("batch_size", "accumulation", "chunk_length")  # settings that say what a batch is
OPTIMIZERS = {"sgd": SGD, "rmsprop": RMSProp, "adagrad": Adagrad, "adam": Adam}


Random = int | Generator | RandomState | None


def as_generator(random_state: Random, name: str = "random_state") -> Generator:
    """Return the given Generator, or a new one: an int is its seed, a RandomState draws one, None is a random one."""
    if isinstance(random_state, RandomState):
        return np.random.default_rng(random_state.randint(2**32, size=4, dtype=np.uint32))
    return checks.generator(name, random_state)


def _random_state(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (Generator, RandomState)):
        return value
    return checks.integer(name, value, least=0, most=None)


def setting(default: Any, rule: Rule | None = None, *, network: bool = False) -> Any:
    """A setting of a model: its default, its check, and whether it says what the layers are and do.

    A change of a setting of the network takes effect when the layers are made anew.
    """
    return dataclasses.field(default=default, metadata={"rule": rule, "network": network})


COUNT = partial(checks.integer, least=1)


class RunOptions(NamedTuple):
    """What ``fit`` takes beside data."""

    callback: Callbacks | None = None
    progress: bool = False
    resume: bool = False
    comm: Any = None
    shards: int | None = None
    timeout: float = TIMEOUT


@dataclasses.dataclass(eq=False, repr=False)
class Model:
    """Settings, layers, training and files. A subclass says what its layers are and how a batch is trained on."""

    level: Literal["char", "word"] = setting("char", checks.one_of(("char", "word")), network=True)
    cell: str = setting("lstm", checks.one_of(RECURRENT), network=True)
    hidden_size: int = setting(128, COUNT, network=True)
    num_layers: int = setting(1, COUNT, network=True)
    _: dataclasses.KW_ONLY
    embedding_size: int | None = setting(None, checks.optional(checks.integer, least=0), network=True)
    embedding_scale: float = setting(1.0, checks.positive, network=True)
    dropout: float = setting(0.0, checks.share, network=True)
    recurrent_dropout: float = setting(0.0, checks.share, network=True)
    cell_options: dict[str, Any] | None = setting(None, network=True)  # checked with the cell
    max_vocabulary: int | None = setting(None, checks.optional(checks.integer, least=3), network=True)
    epochs: int = setting(10, COUNT)
    batch_size: int = setting(32, COUNT)
    optimizer: Literal["adam", "rmsprop", "adagrad", "sgd"] = setting("adam", checks.one_of(OPTIMIZERS))
    learning_rate: float = setting(2e-3, checks.positive)
    learning_rate_decay: float = setting(1.0, checks.positive)
    schedule: Schedule = setting(None, check_schedule)
    warm_up: int = setting(0, partial(checks.integer, least=0))
    accumulation: int = setting(1, COUNT)
    clip_norm: float | None = setting(5.0, checks.optional(checks.positive))
    patience: int | None = setting(None, checks.optional(checks.integer, least=1))
    warm_start: bool = setting(False, checks.flag)
    dtype: DTypeLike = setting("float32", checks.floating_dtype, network=True)
    random_state: Random = setting(None, _random_state)

    # Before ``fit``. Without annotations, because they are no settings; in the class, because the constructor of an
    # estimator sets nothing but those.
    history = cast("list[dict[str, Any]]", ())
    interrupted = False
    last_params = cast("dict[str, Array] | None", None)
    layers = cast("dict[str, Any]", None)  # by name
    params = cast("dict[str, Array]", None)
    grads = cast("dict[str, Array]", None)
    _rng = cast(Generator, None)
    _optimizer = cast(Any, None)
    _optimizer_settings = ("", 0.0)  # of which it was made
    _position = cast("Position | None", None)  # of the last run
    _precision = cast("str | None", None)  # that the weights were rounded to
    _carried = cast(Any, None)  # state of the recurrent layers that goes on from batch to batch
    _carried_shape = cast("tuple[int, ...] | None", None)  # (states, layers, H), if one does

    score_name: ClassVar[str]  # what ``score`` returns, for tables
    _estimator_type: ClassVar[str | None] = None  # "classifier", so that scikit-learn splits by class
    _takes_arrays = True
    _needs_targets = True

    @property
    def losses(self) -> list[float]:
        """The loss of every update of the last run, nats; empty before ``fit``."""
        return [] if self._position is None else list(self._position.losses)

    # ---- settings -----------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name, as given; for scikit-learn.

        Parameters
        ----------
        deep : bool
            Without meaning here: no setting is an estimator.

        Returns
        -------
        dict
        """
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def set_params(self, **params: Any) -> Self:
        """Change settings; they are checked and used by the next ``fit``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            There is no such setting; then none is changed.
        """
        known = self.get_params()
        if unknown := params.keys() - known.keys():
            raise ValueError(f"{type(self).__name__} has the settings {', '.join(known)}; got {min(unknown)!r}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def check_settings(self) -> None:
        """Check all settings, as ``fit`` does before anything else.

        Raises
        ------
        ValueError, TypeError
            The value of a setting is wrong.
        """
        self._check_together(self._settings())

    def _check_together(self, settings: dict[str, Any]) -> None:
        """Raise ValueError for settings that do not go together; what was fitted may differ from some of them."""

    def _settings(self) -> dict[str, Any]:
        """Return the checked settings in plain types. Attributes stay as given, which scikit-learn requires."""
        settings = self.get_params()
        clean = {
            field.name: field.metadata["rule"](field.name, settings[field.name])
            for field in dataclasses.fields(self)
            if field.metadata["rule"] is not None
        }
        if not isinstance(self.cell_options, (Mapping, NoneType)):
            raise TypeError(f"cell_options must be a dict or None; got {self.cell_options!r}")
        cell, options = clean["cell"], dict(self.cell_options or {})
        if unknown := options.keys() - set(RECURRENT[cell].settings):
            allowed = ", ".join(map(repr, RECURRENT[cell].settings))
            raise ValueError(f"cell_options of {cell!r} may hold {allowed}; got {min(unknown)!r}")
        return settings | clean | {"cell_options": options or None}

    # ---- layers -------------------------------------------------------------------------------------------------

    def _make_trunk(
        self, format: Any, rng: Generator, *, size: int | None = None, bidirectional: bool = False
    ) -> Trunk:
        """Embedding and recurrent layers for inputs of some format; size is that of the embedding."""
        common: dict[str, Any] = {"dtype": self.dtype, "seed": rng}
        embedding = Embedding(format.size, size, **common) if format.holds_ids and size else None
        if embedding:
            embedding.params["W"] *= self.embedding_scale
        recurrent = RECURRENT[self.cell](
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

    def _embedding_width(self) -> int:
        """E: as set, or what is usual for characters and for words."""
        if self.embedding_size is not None:
            return self.embedding_size
        return self.hidden_size if self.level == "word" else 64

    def _take_layers(self, **layers: Any) -> None:
        """Name the layers and their parameters; those that are None are left out."""
        self.layers = {name: layer for name, layer in layers.items() if layer is not None}
        self.params = {f"{name}.{key}": a for name, layer in self.layers.items() for key, a in layer.params.items()}
        self.grads = {f"{name}.{key}": a for name, layer in self.layers.items() for key, a in layer.grads.items()}
        self._optimizer = self._position = self._carried = self._precision = None
        network = {field.name for field in dataclasses.fields(self) if field.metadata["network"]}
        self._built = {name: value for name, value in self._settings().items() if name in network}

    def _zero_grad(self) -> None:
        self._check_trainable()
        for layer in self.layers.values():
            layer.zero_grad()

    def _check_built(self) -> None:
        if self.layers is None:
            raise scikit_learn.not_fitted("the model has no parameters yet: call fit first")

    def _check_trainable(self) -> None:
        if self._precision:
            raise TypeError(
                f"a model in {self._precision} cannot be trained: train the model that quantize was called of, "
                "and quantize it again"
            )

    def __sklearn_is_fitted__(self) -> bool:
        return self.layers is not None

    def __sklearn_tags__(self) -> Any:
        kind, arrays, needs_targets = self._estimator_type, self._takes_arrays, self._needs_targets
        return scikit_learn.tags(kind, arrays=arrays, needs_targets=needs_targets)

    # ---- fewer bytes --------------------------------------------------------------------------------------------

    @property
    def precision(self) -> str:
        """Of the weights: "float32" or "float64", or "bfloat16" or "int8" of a model that ``quantize`` made."""
        dtype = self.dtype if self.layers is None else self._built["dtype"]
        return self._precision or np.dtype(dtype).name

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters; 0 before ``fit``."""
        return sum(layer.nbytes for layer in (self.layers or {}).values())

    def quantize(self, precision: Precision, calibration: Any = None) -> Self:
        """Return a copy of the model for use whose weights take a half or a quarter of the bytes.

        It predicts, scores, samples and searches as the model does, and faster; ``save`` writes a small file. It cannot
        be trained. :func:`rnncore.compare` tells what the rounding costs.

        Parameters
        ----------
        precision : {"bfloat16", "int8"}
            See ``quantize`` of the recurrent layers. The output layer, embeddings and the like are rounded as well.
        calibration : what ``predict`` takes, or a tuple of its arguments; texts of a language model; optional
            Data that the model reads in float, to set the scales of the inputs of its recurrent layers in int8. Without
            it every step of every sequence has a scale of its own, which costs little.

        Returns
        -------
        model
            Of the same class.

        Raises
        ------
        RuntimeError
            A callback of ``fit`` called this.
        ValueError
            The model was not fitted or is quantized already, the precision is unknown, or a matrix is not finite.
        """
        self._check_built()
        check_idle(self)
        checks.choice("precision", precision, PRECISIONS)
        if self._precision:
            raise already_quantized("a model", self._precision)
        recurrent = {name: layer for name, layer in self.layers.items() if isinstance(layer, Recurrent)}
        observed: dict[str, Any] = {}
        if calibration is not None:
            observed = {name: observe(layer, layer.all_weights()) for name, layer in recurrent.items()}
            data = calibration if isinstance(calibration, tuple) else (calibration,)
            if not data:
                raise ValueError("calibration must hold what predict takes; got an empty tuple")
            with checks.named(X="calibration", texts="calibration", text="calibration", x="calibration"):
                self._with_layers(self.layers | observed, None)._read_all(*data)
        quantized = {
            name: quantize_layers(layer, layer.all_weights(), precision, observed.get(name))
            if name in recurrent
            else layer.quantize(precision)
            for name, layer in self.layers.items()
        }
        return self._with_layers(quantized, precision)

    def _with_layers(self, layers: dict[str, Any], precision: str | None) -> Self:
        """Return a copy for inference with other layers, by the names of its own."""
        model = copy.copy(self)
        model.layers, model.params, model.grads, model.last_params = self.layers, {}, {}, None
        model._optimizer = model._position = model._carried = None
        # Wherever the model refers to one of its layers, the copy refers to the one that takes its place.
        memo = {id(layer): layers[name] for name, layer in self.layers.items()}
        model = copy.deepcopy(model, memo)
        model._precision = precision
        return model

    def _read_all(self, *data: Any) -> Any:
        """Let the layers read data."""
        return self.predict(*data)  # type: ignore[attr-defined]  # all but one have it

    # ---- many sequences -----------------------------------------------------------------------------------------

    def _frozen(self) -> Any:
        """What the methods of ``_map`` are given first: weights for many calls."""
        return self._trunk.freeze()  # type: ignore[attr-defined]  # all but one have it

    def _map(
        self, method: str, batches: Sequence[Array], make: Callable[[Array], Any], n_jobs: int | None, *options: Any
    ) -> Iterator[Any]:
        """Yield what a method says of each batch of rows: here, or in the processes of joblib.

        It is called as ``method(frozen, *make(rows), *options)``.
        """
        workers = parallel.count_workers(n_jobs)
        if workers > 1 and len(batches) > 1:
            yield from parallel.run(
                self, method, len(batches), lambda number: make(batches[number]), options, n_jobs, workers
            )
            return
        frozen, function = self._frozen(), getattr(self, method)
        for rows in batches:
            yield function(frozen, *make(rows), *options)

    # ---- training -----------------------------------------------------------------------------------------------

    @contextmanager
    def _as_before_on_error(self) -> Iterator[Any]:
        """Bad input leaves the model as it was."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _check_training(self, validation: Any, resume: bool) -> bool:
        """Settings may have been set since they were checked. -> whether ``fit`` goes on with the layers as they are"""
        check_idle(self)
        self._check_trainable()
        settings = self._settings()
        self._check_together(settings)
        if self.patience is not None and validation is None:
            raise ValueError("patience needs validation data in fit, to see when the held-out loss rises; got none")
        if settings["schedule"] == "plateau" and validation is None:
            raise ValueError("schedule 'plateau' needs validation data in fit, to see when the loss rests; got none")
        resume = checks.flag("resume", resume)
        if resume and self._position is None:
            raise ValueError(
                "resume goes on with a run of this model, or of a file that save(path, training=True) wrote; "
                f"{'the model was not fitted' if self.layers is None else 'this model was loaded without its run'}"
            )
        goes_on = resume or (self.warm_start and self.layers is not None)
        for name, was in self._built.items() if goes_on else ():
            if settings[name] != was:
                what = "resume" if resume else "warm_start"
                raise ValueError(f"{what} goes on with {name} = {was!r} of the layers; got {settings[name]!r}")
        return goes_on

    def _run(self, options: RunOptions, validation: Any, prepare: Callable[[Ranks], tuple[Any, Any]]) -> Self:
        """prepare(ranks) returns the arguments of ``Run.train``; an error there leaves the model as it was."""
        with Ranks(options.comm, options.timeout) as ranks:
            with self._as_before_on_error():
                callbacks = as_callbacks(options.callback, checks.flag("progress", options.progress) and not ranks.rank)
                kinds = {"validation": type(validation).__name__, "model": type(self).__name__}
                shards = checks.optional(checks.integer, least=1)("shards", options.shards)
                resume = checks.flag("resume", options.resume)
                given = {"resume": resume, "shards": shards, "timeout": options.timeout}
                ranks.agree("arguments", kinds | given | {"warm_start": self.warm_start, "fitted": bool(self.layers)})
                arguments = prepare(ranks)
            self._train(*arguments, callbacks, ranks)
        return self

    def _share_random(self, options: RunOptions, ranks: Ranks) -> None:
        """Bring the random generators of all ranks into the state of that of rank 0; a run that goes on has its own."""
        if ranks.size > 1 and not options.resume:
            set_random(self._rng, ranks.broadcast(get_random(self._rng)))

    def _begin_random(self, resume: bool) -> Numbers:
        """Return the state of the random generator where the run begins; a run that goes on draws its data again."""
        if resume and self._position is not None:
            set_random(self._rng, self._position.begin_random)
        return get_random(self._rng)

    def _take_position(self, options: RunOptions, ranks: Ranks, begin_random: Numbers, data: int) -> None:
        """Set the position of the run: a new one, or that of the last run if its batches were the same."""
        settings = self._settings()
        going_on = self._position if options.resume else None
        shards = options.shards
        if shards is None and going_on is not None:
            shards = going_on.batches["shards"]
        if shards is None and options.comm is not None:
            shards = SHARDS
        if shards is not None:
            shards = check_shards(shards, ranks)
        batches = {name: value for name, value in settings.items() if name in BATCHES} | {"shards": shards}
        if going_on is None:
            going_on = self._position = Position(begin_random, get_random(self._rng), data, batches)
        elif going_on.data != data:
            raise ValueError("resume needs the data of the run that it goes on with; got other data")
        for name, was in going_on.batches.items():
            if batches[name] != was:
                raise ValueError(f"resume goes on with {name} = {was!r} of the run; got {batches[name]!r}")
        if ranks.size > 1:
            plain = {name: repr(settings[name]) for name in settings.keys() - {"random_state", "schedule"}}
            sums = {"parameters": checksum([list(self.params.values())]), "data": data}
            memory = {} if self._optimizer is None else self._optimizer.state
            sums["optimizer"] = checksum([list(arrays.values()) for arrays in memory.values()])
            moment = {"update": going_on.update, "random numbers": get_random(self._rng)}
            ranks.agree("model, data and settings", {"instruction set": get_isa()} | plain | sums | moment)

    def _update(self, batch: Any) -> Any:
        """Loss of a batch, with its gradients in ``grads``. -> loss, its weight in the mean, steps of sequences"""
        raise NotImplementedError

    @property
    def _reads_shards_at_once(self) -> bool:
        """Whether there is ``_add_by_shards`` for batches of equal shards."""
        return False

    def _add_by_shards(self, part: Any, flat: Array, rows: Array) -> None:
        """Add the gradients of the shards of a part of a batch, in one pass over all of them.

        Row n of the part is of shard ``n % shards``. flat (shards, values) of ``grads``: sums over the rows, not means;
        rows (shards, 3): the sum of the losses, its weight, the steps.
        """
        raise NotImplementedError

    def _train(
        self,
        make_batches: Callable[..., Any],
        score: Callable[..., Any] | None,
        callbacks: list[Any],
        ranks: Ranks,
    ) -> None:
        """make_batches() gives the batches of an epoch; score() the mean loss of held-out data, or is None."""
        assert self._position is not None
        wanted = (self.optimizer, self.learning_rate)
        if self._optimizer is None or self._optimizer_settings[0] != self.optimizer:
            self._optimizer = OPTIMIZERS[self.optimizer](self.params, self.learning_rate)
        elif self._optimizer_settings != wanted:
            self._optimizer.learning_rate = self.learning_rate
        self._optimizer_settings = wanted
        with shared_cores(ranks):
            Run(self, self._optimizer, callbacks, self._position, ranks).train(make_batches, score)

    # ---- files --------------------------------------------------------------------------------------------------

    def _data_state(self) -> Any:
        """Return what the model learned about its data in JSON types, for ``_restore_data``."""
        raise NotImplementedError

    def _restore_data(self, state: Any) -> Any:
        """Set what ``_data_state`` described and make the layers for it."""
        raise NotImplementedError

    def save(self, path: str | PathLike[str], *, training: bool = False) -> None:
        """Write the model to one .npz file without pickle; :func:`rnncore.load` reads it.

        The file is whole or not there, whatever ends the save. An earlier one is replaced and passes on its
        permissions; where ``path`` is a symbolic link, the file that it points to is. A FIFO or a device is written
        into. Ctrl-C waits for the file, and a note on the KeyboardInterrupt then says that it was written.

        Parameters
        ----------
        path : str or path-like
        training : bool
            Keep what training needs to go on: the optimiser, the random generator, and the position of the last run.
            A later ``fit`` of the loaded model, with ``resume`` or with ``warm_start``, then has the same bits as that
            of this one. A callback of ``fit`` may save, too. The file is three to five times as large.

        Raises
        ------
        ValueError
            The model has no parameters yet, or with ``training`` was not fitted.
        OSError
            The file cannot be written; an existing one is unchanged.
        """
        self._check_built()
        settings = self._settings() | self._built
        if isinstance(settings["random_state"], (Generator, RandomState)):
            settings["random_state"] = None
        if callable(settings["schedule"]):
            settings["schedule"] = None
        if isinstance(settings.get("class_weight"), dict):
            settings["class_weight"] = list(settings["class_weight"].items())  # keys of JSON are str, labels any type
        description = {"settings": settings, **self._data_state(), "history": self.history}
        arrays = self.params
        if self._precision:
            description["precision"], arrays = self._precision, to_arrays(self.layers)
        if checks.flag("training", training):
            if self._position is None:
                why = f"it is in {self._precision}, for use" if self._precision else "it was not fitted"
                raise ValueError(f"training=True keeps a run, and this model has none: {why}")
            position, kept = self._position.describe()
            description["training"] = {
                "position": position,
                "random": get_random(self._rng),
                "optimizer": self._optimizer_settings,
                "learning_rate": self._optimizer.learning_rate,
                "iterations": self._optimizer.iterations,
            }
            for kind, state in self._optimizer.state.items():
                kept |= {f"optimizer/{kind}/{name}": array for name, array in state.items()}
            arrays = arrays | {f"training/{name}": array for name, array in kept.items()}
        write_model(path, type(self).__name__, description, arrays)

    @classmethod
    def _restore(cls, description: dict[str, Any], arrays: dict[str, Array]) -> Any:
        settings = dict(description["settings"])
        if isinstance(settings.get("class_weight"), list):
            settings["class_weight"] = dict(settings["class_weight"])
        model = cls(**settings)
        model._settings()
        random_state, training = model.random_state, description.get("training")
        if training is not None:
            model.random_state = make_random(training["random"])  # layers draw dropout from it
        kept = take_group(arrays, "training")
        params = {name: array for name, array in arrays.items() if not name.startswith("training/")}
        # Room for an array that is missing: it is named below. A quantized model has at least a byte for a number.
        precision = description.get("precision")
        with blank_layers((2 if precision is None else 16) * sum(array.nbytes for array in arrays.values())):
            model._restore_data(description)
        model.random_state = random_state
        if precision is not None:
            model = model._with_layers(from_arrays(model.layers, precision, params), precision)
        else:
            for name, array in check_arrays("parameters", params, model.params).items():
                model.params[name][...] = array
        model.history = list(description["history"])
        if training is not None:
            model._restore_training(training, kept)
        return model

    def _restore_training(self, training: dict[str, Any], arrays: dict[str, Array]) -> None:
        name, rate = training["optimizer"]
        self._optimizer = OPTIMIZERS[checks.choice("optimizer", name, OPTIMIZERS)](self.params, rate)
        self._optimizer_settings = (name, rate)
        self._optimizer.learning_rate = training["learning_rate"]
        self._optimizer.iterations = checks.integer("iterations", training["iterations"], least=0)
        for kind, state in self._optimizer.state.items():
            found = check_arrays(f"optimizer {kind}", take_group(arrays, f"optimizer/{kind}"), state)
            for key, array in state.items():
                array[...] = found[key]
        self._position = Position.restore(training["position"], arrays, self.params)
        set_random(self._rng, training["random"])  # making the layers has drawn from it

    def __repr__(self) -> Any:
        size = "" if self.params is None else f", {sum(p.size for p in self.params.values()):,} parameters"
        if self._precision:
            size = f", {self._precision}, {self.nbytes:,} bytes"
        return f"<{type(self).__name__} {self.cell} {self.num_layers} x {self.hidden_size}{size}>"
