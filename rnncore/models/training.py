"""The training loop: epochs of batches, callbacks, history, the best epoch."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import checks
from .._types import Array
from ..distributed import CommonError, Ranks
from ..interrupts import Interrupts
from ..optim import NotFiniteError, Optimizer
from .position import Position, get_random, set_random
from .shards import Shards


class Progress(NamedTuple):
    """The progress of a training run, passed to the callbacks of ``fit``."""

    epoch: int  # from 1; goes on where a warm start goes on
    update: int  # of all updates of this run, from 1; goes on where an interrupted run does
    updates: int  # that the whole run will make
    tokens: int  # steps of sequences trained on so far
    loss: float  # of this update, nats
    held_out: float | None  # mean loss, after the last update of an epoch with validation data
    epoch_ends: bool  # after the last update of an epoch
    record: dict[str, Any]  # of the epoch, as in ``history``
    optimizer: Optimizer  # its learning_rate may be changed


Callback = Callable[[Progress], bool | None]
Callbacks = Callback | Sequence[Callback]


Schedule = Literal["cosine", "plateau"] | Callable[[int, int], float] | None
PLATEAU_EPOCHS = 2


def check_schedule(name: str, value: Any) -> Any:
    """Return a schedule; ValueError for anything else."""
    return value if value is None or callable(value) else checks.choice(name, value, ("cosine", "plateau"))


# The models that are being trained.
_running: set[Any] = set()


def check_idle(model: Any) -> None:
    """Raise RuntimeError if the model is being trained: its layers must stay what the run trains."""
    if model in _running:
        raise RuntimeError("the model is being trained: a callback of fit cannot call its build or fit")


class Run:
    """One run of training. It writes the model's parameters, ``history``, ``interrupted`` and ``last_params``.

    callbacks: a list of functions of a :class:`Progress`, which rank 0 calls. What the run has done is in its
    :class:`Position`, which it changes only when Ctrl-C waits: after an interrupt the position, the parameters and the
    optimiser belong together. Ctrl-C of one rank ends all of them before the same update.
    """

    def __init__(self, model: Any, optimizer: Any, callbacks: list[Any], position: Position, ranks: Ranks) -> None:
        self.model, self.optimizer, self.position, self.ranks = model, optimizer, position, ranks
        self.callbacks = [] if ranks.rank else callbacks
        shards = position.batches["shards"]
        self.shards = None if shards is None else Shards(model, shards, ranks)

    def train(self, make_batches: Callable[..., Any], score: Callable[..., Any] | None) -> None:
        """make_batches() gives the batches of an epoch; score() the mean loss of held-out data, or is None."""
        model, at = self.model, self.position
        model.interrupted, model.last_params = False, None
        with Interrupts() as interrupts:
            try:
                _running.add(model)
                with interrupts.later():
                    set_random(model._rng, at.random)
                    self._take_last()
                with interrupts.later() if self.ranks.size > 1 else nullcontext():
                    while at.epochs < model.epochs and not (model.patience and at.since_best >= model.patience):
                        if self._train_epoch(make_batches, score, interrupts):
                            break
                    self._agree(False, interrupts.received())
            except KeyboardInterrupt:
                model.interrupted = True
            finally:
                _running.discard(model)
                for callback in self.callbacks:
                    if isinstance(callback, Bar):
                        callback.close()
            with interrupts.later():
                if model.interrupted or model.patience is not None:
                    self._take_best()

    def _take_last(self) -> None:
        at = self.position
        if at.last_params is not None:
            self._take(at.last_params)
            at.last_params = None

    def _take_best(self) -> None:
        model, at = self.model, self.position
        if at.best_params is not None and at.best_update < at.update:
            at.last_params = {name: p.copy() for name, p in model.params.items()}
            self._take(at.best_params)
        if model.interrupted:
            model.last_params = at.last_params

    def _take(self, params: dict[str, Array]) -> None:
        for name, p in self.model.params.items():
            p[...] = params[name]

    def _train_epoch(self, make_batches: Any, score: Any, interrupts: Interrupts) -> bool:
        """Train to the end of the epoch that has begun, or of a new one; return whether a callback ended the run."""
        model, optimizer, at = self.model, self.optimizer, self.position
        if at.epoch_random is None:
            with interrupts.later():
                self._begin_epoch()
        assert at.epoch_random is not None
        record = model.history[-1]
        set_random(model._rng, at.epoch_random)
        batches = make_batches()
        if record["updates"]:
            set_random(model._rng, at.random)
            model._carried = at.carried
        numbers = range(len(batches))
        groups = [numbers[k : k + model.accumulation] for k in range(0, len(batches), model.accumulation)]
        updates = at.update - record["updates"] + len(groups) * (model.epochs - at.epochs)
        while at.epoch_random is not None:
            if record["updates"] < len(groups):
                start = time.perf_counter()
                group = groups[record["updates"]]
                if self.shards is None:
                    loss, weight, tokens = self._gradients([batches.part(number) for number in group])
                else:
                    loss, weight, tokens = self.shards.gradients(batches, group, interrupts.received)
                factor = self._factor(at.update + 1, updates)
                with interrupts.later():
                    self._step(factor)
                    self._count(record, factor, loss, weight, tokens)
                    record["seconds"] += time.perf_counter() - start
            if record["updates"] == len(groups):
                held_out = None if score is None else score()
                with interrupts.later():
                    self._end_epoch(record, held_out)
            run = (record["epoch"], at.update, updates, at.tokens)
            ends = at.epoch_random is None
            progress = Progress(*run, at.losses[-1], record["held_out"], ends, record, optimizer)
            # All of them hear of every update, whatever one of them says.
            ends, interrupted = False, False
            try:
                ends = any([callback(progress) for callback in self.callbacks])
            except KeyboardInterrupt:
                if self.ranks.size == 1:
                    raise
                interrupted = True
            if self._agree(ends, interrupted or interrupts.received()):
                return True
        return False

    def _agree(self, ends: bool, interrupted: bool) -> bool:
        """Take what the callbacks of rank 0 said: whether the run ends, and the learning rate.

        KeyboardInterrupt if any of several ranks was interrupted.
        """
        if self.ranks.size == 1:
            return ends
        said = np.array([[ends, self.optimizer.learning_rate, interrupted]])
        said = self.ranks.gather(said, np.arange(self.ranks.size + 1))
        self.optimizer.learning_rate = float(said[0, 1])
        if said[:, 2].any():
            raise KeyboardInterrupt
        return bool(said[0, 0])

    def _begin_epoch(self) -> None:
        model, at = self.model, self.position
        epoch = model.history[-1]["epoch"] + 1 if model.history else 1
        record: dict[str, Any] = {"epoch": epoch, "loss": 0.0, "held_out": None, "seconds": 0.0}
        record |= {"updates": 0, "tokens": 0, "learning_rate": self.optimizer.learning_rate}
        model.history.append(record)
        at.epoch_random, at.weight = at.random, 0.0

    def _count(self, record: dict[str, Any], factor: float, loss: float, weight: float, tokens: int) -> None:
        """Write down an update."""
        model, at = self.model, self.position
        if record["updates"] == 0:
            record["learning_rate"] *= factor
        record["updates"] += 1
        at.losses.append(loss)
        at.tokens += tokens
        at.weight += weight
        at.random, at.carried = get_random(model._rng), model._carried
        record["tokens"] += tokens
        if weight:
            record["loss"] += (loss - record["loss"]) * weight / at.weight

    def _end_epoch(self, record: dict[str, Any], held_out: float | None) -> None:
        at = self.position
        if held_out is not None:
            record["held_out"] = held_out
            self._compare(held_out)
        self.optimizer.learning_rate *= self.model.learning_rate_decay
        at.epochs += 1
        at.epoch_random = None

    def _step(self, factor: float) -> None:
        """Update the parameters, with the learning rate times a factor."""
        optimizer, rate = self.optimizer, self.optimizer.learning_rate
        if factor == 0:
            return
        try:
            optimizer.learning_rate = rate * factor
            optimizer.step(self.model.grads, clip_norm=self.model.clip_norm, check_finite=True)
        except NotFiniteError as error:
            epoch, update = self.model.history[-1]["epoch"], self.position.update + 1
            raise CommonError(
                f"update {update}, in epoch {epoch}: {error}. The parameters are those before this update. A lower "
                "learning_rate or clip_norm may help, or data of smaller values"
            ) from None
        finally:
            optimizer.learning_rate = rate

    def _factor(self, update: int, updates: int) -> float:
        """What multiplies the learning rate of an update."""
        schedule, warm_up = self.model.schedule, self.model.warm_up
        if update <= warm_up:
            return update / warm_up
        if schedule == "cosine":
            return (1 + math.cos(math.pi * min(1, (update - 1 - warm_up) / max(updates - warm_up, 1)))) / 2
        return checks.not_negative("the value of schedule", schedule(update, updates)) if callable(schedule) else 1.0

    def _gradients(self, batches: list[Any]) -> tuple[float, float, int]:
        """Leave the gradient of the mean loss of some batches in ``grads``; return it, its weight, and the steps."""
        model = self.model
        if len(batches) == 1:
            return model._update(batches[0])
        means = {name: np.zeros_like(grad) for name, grad in model.grads.items()}
        loss = total = 0.0
        steps = 0
        for batch in batches:
            mean, weight, tokens = model._update(batch)
            total, steps = total + weight, steps + tokens
            share = weight / total if total else 0.0  # of the mean so far
            loss += (mean - loss) * share
            for name, grad in model.grads.items():
                means[name] += (grad - means[name]) * grad.dtype.type(share)
        for name, grad in model.grads.items():
            grad[...] = means[name]
        return loss, total, steps

    def _compare(self, held_out: float) -> None:
        at = self.position
        at.since_best += 1
        if self.model.schedule == "plateau" and held_out >= at.best and at.since_best % PLATEAU_EPOCHS == 0:
            self.optimizer.learning_rate /= 2
        if held_out < at.best:
            at.best, at.best_update, at.since_best = held_out, at.update, 0
            at.best_params = {name: p.copy() for name, p in self.model.params.items()}


def as_callbacks(callback: Callbacks | None, progress: bool) -> list[Any]:
    """Return a list of callbacks; TypeError unless ``callback`` is None, a function or a list of them."""
    callbacks = [] if callback is None else [callback] if callable(callback) else callback
    if not isinstance(callbacks, (list, tuple)) or not all(map(callable, callbacks)):
        raise TypeError(f"callback must be a function or a list of functions; got {callback!r}")
    return [*callbacks, Bar()] if progress else list(callbacks)


class Bar:
    """A callback that shows a progress bar of tqdm, with the mean loss of the last 50 updates.

    Parameters
    ----------
    disable : bool or None
        As tqdm has it: None shows no bar where the output is not a terminal.
    """

    def __init__(self, disable: bool | None = False) -> None:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            raise ModuleNotFoundError("progress=True needs tqdm: pip install tqdm") from None
        self._make, self._disable = tqdm, disable
        self._bar: Any = None
        self._start = time.perf_counter()
        self._losses: deque[float] = deque(maxlen=50)

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            self._tokens_before = progress.tokens if progress.update > 1 else 0  # of a run that goes on
            options = {"total": progress.updates, "initial": progress.update - 1, "mininterval": 0.5}
            self._bar = self._make(unit="update", disable=self._disable, **options)
        rate = (progress.tokens - self._tokens_before) / (time.perf_counter() - self._start)
        held_out = "" if progress.held_out is None else f", held-out {progress.held_out:.3f}"
        self._losses.append(progress.loss)
        loss = sum(self._losses) / len(self._losses)
        text = f"epoch {progress.epoch}, loss {loss:.3f}{held_out}, {rate:,.0f} tokens/s"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()

    def write(self, text: str) -> None:
        """Print a line above the bar."""
        self._make.write(text)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
